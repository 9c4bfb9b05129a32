/*
 * Unit tests of the forecast of pre-copy, and of the meter it relies on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: a guest whose dirty set shrinks with the passes is forecast to
 * converge, one with a working set that the link cannot carry within the
 * downtime limit to diverge as soon as two passes have shown it, and the
 * forecast agrees with playing such guests out.
 */
#include "qemu/osdep.h"
#include <math.h>
#include "migration/strategy/forecast.h"
#include "migration/strategy/meter.h"

#define MB 1e6

typedef struct {
    const char *name;
    double passes[4][2];        /* seconds, dirty MB; seconds 0 ends */
    double bandwidth, fits, budget;     /* MB/s, MB, MB */
    ForecastVerdict verdict;
    int to_go;                  /* -1: any */
} ForecastCase;

static const ForecastCase cases[] = {
    { "nothing known", {}, 100, 30, 1000, FORECAST_CONVERGES, -1 },
    { "idle", { { 10, 1 } }, 100, 30, 1000, FORECAST_FITS, 0 },
    { "just fits", { { 10, 30 } }, 100, 30, 1000, FORECAST_FITS, 0 },
    { "one pass to go", { { 10, 100 } }, 100, 30, 1000,
      FORECAST_CONVERGES, 1 },
    { "dirties as fast as the link", { { 10, 1000 } }, 100, 30, 4000,
      FORECAST_DIVERGES, -1 },
    { "dirties faster than the link", { { 10, 2000 } }, 100, 30, 4000,
      FORECAST_DIVERGES, -1 },
    { "one pass cannot show a working set", { { 8, 128 } }, 64, 19, 512,
      FORECAST_CONVERGES, 2 },
    { "two passes show it", { { 8, 128 }, { 2, 128 } }, 64, 19, 512,
      FORECAST_DIVERGES, 1 },
    { "a working set that fits in the end",
      { { 8, 128 }, { 2, 32 } }, 64, 19, 512, FORECAST_CONVERGES, 1 },
    { "passes of equal length teach no exponent",
      { { 8, 128 }, { 7.9, 128 } }, 64, 19, 512, FORECAST_CONVERGES, 2 },
    { "nothing dirty, no limit", { { 8, 0 } }, 64, 0, 512, FORECAST_FITS, 0 },
    { "a limit of nothing", { { 8, 1 } }, 64, 0, 512, FORECAST_DIVERGES, -1 },
    { "too slow for the budget", { { 10, 900 } }, 100, 10, 1000,
      FORECAST_DIVERGES, -1 },
    { "the same with money", { { 10, 500 } }, 100, 10, 100000,
      FORECAST_CONVERGES, 6 },
    { "the dirty set grows", { { 10, 100 }, { 1, 150 } }, 100, 30, 1000,
      FORECAST_DIVERGES, -1 },
    { "the link stalls", { { 10, 100 } }, 0.000001, 30, 1000,
      FORECAST_DIVERGES, -1 },
    { "a pass without length", { { 0.0000001, 100 } }, 100, 30, 1000,
      FORECAST_DIVERGES, -1 },
};

static void test_case(gconstpointer opaque)
{
    const ForecastCase *c = opaque;
    ForecastLimits limits = {
        .bandwidth = c->bandwidth * MB,
        .fits = c->fits * MB,
        .budget = c->budget * MB,
    };
    ForecastResult r;
    Forecast f;

    forecast_init(&f);
    for (int i = 0; i < 4 && c->passes[i][0]; i++) {
        forecast_add_pass(&f, c->passes[i][0], c->passes[i][1] * MB);
    }
    r = forecast_evaluate(&f, &limits);
    g_assert_cmpint(r.verdict, ==, c->verdict);
    if (c->to_go >= 0) {
        g_assert_cmpint(r.passes_to_go, ==, c->to_go);
    }
    g_assert_cmpfloat(r.rest, >=, 0);
    g_assert_cmpint(r.passes_to_go, <=, FORECAST_MAX_PASSES);
}

/*
 * A guest that keeps rewriting @set bytes at @rate, its dirty memory after
 * time t being set * (1 - exp(-rate * t / set)), played out to the end.
 * Returns whether pre-copy comes under the limit within the budget.
 */
static bool play(double ram, double set, double rate, double bandwidth,
                 double fits, bool *gave_up)
{
    ForecastLimits limits = {
        .bandwidth = bandwidth, .fits = fits, .budget = ram,
    };
    double dirty = ram;
    Forecast f;

    forecast_init(&f);
    *gave_up = false;
    for (int pass = 0; pass < 30; pass++) {
        double seconds = dirty / bandwidth;
        ForecastResult r;

        dirty = set * (1 - exp(-rate * seconds / set));
        if (dirty <= fits) {
            return true;
        }
        forecast_add_pass(&f, seconds, dirty);
        r = forecast_evaluate(&f, &limits);
        if (r.verdict == FORECAST_DIVERGES) {
            *gave_up = true;
            return false;
        }
    }
    return false;
}

/*
 * Whatever the guest: the forecast gives up or pre-copy ends, within few
 * passes; one that fits after the first pass is never given up, and one
 * whose working set does not fit and is rewritten quickly always is.
 */
static void test_play(void)
{
    const double ram = 512 * MB, bandwidth = 64 * MB, fits = 19 * MB;

    for (double set = 1 * MB; set <= ram; set *= 1.5) {
        for (double rate = 0.1 * MB; rate <= 4000 * MB; rate *= 2) {
            bool gave_up, done = play(ram, set, rate, bandwidth, fits,
                                      &gave_up);

            g_assert_true(done || gave_up);
            if (set <= fits || rate * ram / bandwidth <= fits) {
                g_assert_true(done);
            }
            if (set >= 2 * fits && rate >= 8 * bandwidth) {
                g_assert_true(gave_up);
            }
        }
    }
}

static void test_meter_unknown(void)
{
    g_autofree Meter *m = g_new0(Meter, 1);

    g_assert_cmpfloat(meter_rate(m), ==, 0);
    meter_add(m, 0, 1);
    meter_add(m, 1, 0);
    g_assert_cmpfloat(meter_rate(m), ==, 0);
}

/* Neither a stretch of zero pages nor a burst moves the rate */
static void test_meter_weighted(void)
{
    g_autofree Meter *m = g_new0(Meter, 1);

    meter_add(m, 80 * MB, 0.1);                 /* fills the socket buffer */
    for (int i = 0; i < 40; i++) {
        meter_add(m, 5 * MB, 0.1);
    }
    for (int i = 0; i < 200; i++) {
        meter_add(m, 0.01 * MB, 0.1);           /* zero pages */
    }
    g_assert_cmpfloat(meter_rate(m), ==, 50 * MB);
    meter_reset(m);
    g_assert_cmpfloat(meter_rate(m), ==, 0);
}

/* Only the last windows count, and more of them than fit do no harm */
static void test_meter_wraps(void)
{
    g_autofree Meter *m = g_new0(Meter, 1);

    for (int i = 0; i < METER_WINDOWS; i++) {
        meter_add(m, 9 * MB, 0.1);
    }
    for (int i = 0; i < METER_WINDOWS; i++) {
        meter_add(m, 1 * MB, 0.1);
    }
    g_assert_cmpfloat(meter_rate(m), ==, 10 * MB);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("/strategy/forecast/%02zu %s",
                                                i, cases[i].name);

        g_test_add_data_func(path, &cases[i], test_case);
    }
    g_test_add_func("/strategy/forecast/play", test_play);
    g_test_add_func("/strategy/meter/unknown", test_meter_unknown);
    g_test_add_func("/strategy/meter/weighted", test_meter_weighted);
    g_test_add_func("/strategy/meter/wraps", test_meter_wraps);
    return g_test_run();
}
