/*
 * Forecast of pre-copy: will it converge?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See forecast.h for the model.
 */
#include "qemu/osdep.h"
#include <math.h>
#include "forecast.h"

/* Passes whose lengths differ by less tell nothing about the exponent */
#define CLEARLY_DIFFERENT 1.25
/* No pass is taken to be shorter than this, in seconds */
#define SHORTEST 0.000001
/* A pass that shrinks the rest by less than this makes no progress */
#define PROGRESS 0.98

void forecast_init(Forecast *f)
{
    *f = (Forecast) { .exponent = 1.0 };
}

static double fit_exponent(const ForecastPass *a, const ForecastPass *b,
                           double otherwise)
{
    double longer = MAX(a->seconds, b->seconds);
    double shorter = MIN(a->seconds, b->seconds);
    double exponent;

    if (longer < shorter * CLEARLY_DIFFERENT ||
        a->dirty <= 0 || b->dirty <= 0) {
        return otherwise;
    }
    exponent = log(a->dirty / b->dirty) / log(a->seconds / b->seconds);
    return CLAMP(exponent, 0.0, 1.0);
}

void forecast_add_pass(Forecast *f, double seconds, double dirty)
{
    ForecastPass pass = {
        .seconds = MAX(seconds, SHORTEST),
        .dirty = MAX(dirty, 0),
    };

    if (f->passes) {
        f->exponent = fit_exponent(&f->last, &pass, f->exponent);
    }
    f->last = pass;
    f->passes++;
}

ForecastResult forecast_evaluate(const Forecast *f, const ForecastLimits *l)
{
    ForecastResult r = { .verdict = FORECAST_CONVERGES, .rest = f->last.dirty };

    if (!f->passes) {
        return r;
    }
    if (r.rest <= l->fits) {
        r.verdict = FORECAST_FITS;
        return r;
    }

    while (r.passes_to_go < FORECAST_MAX_PASSES) {
        double seconds = r.rest / MAX(l->bandwidth, 1);
        double next = f->last.dirty *
                      pow(seconds / f->last.seconds, f->exponent);

        r.passes_to_go++;
        r.cost += r.rest;
        if (next <= l->fits && r.cost <= l->budget) {
            r.rest = next;
            return r;
        }
        if (next > r.rest * PROGRESS || r.cost > l->budget) {
            break;
        }
        r.rest = next;
    }
    r.verdict = FORECAST_DIVERGES;
    return r;
}
