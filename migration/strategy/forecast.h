/*
 * Forecast of pre-copy: will it converge?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pure library: no VM, no clock, no globals, no locks.  A forecast
 * belongs to one thread.
 *
 * Model.  A pass that takes time t leaves D(t) bytes of distinct memory
 * dirty.  A guest that wanders over all its memory gives D ~ t; one that
 * keeps rewriting a working set gives D ~ constant.  In between we take
 * D(t) = D_last * (t / t_last)^a, with 0 <= a <= 1 fitted to the last two
 * passes of clearly different length, and a = 1 until there are two: the
 * most hopeful assumption, so that a guest is given up only on evidence.
 * The next pass takes t = D / bandwidth; the passes are played forward
 * until the rest fits the limit, stops shrinking, or costs too much.
 *
 * The rise and fall of the dirty set over passes is described in Clark et
 * al., "Live Migration of Virtual Machines", NSDI 2005, section 4.
 *
 * Rejected: comparing the dirty rate with the bandwidth, as auto-converge
 * does.  The rate over a long first pass hides a working set that is
 * rewritten many times in it, so that every pass leaves the same rest.
 */
#ifndef MIGRATION_STRATEGY_FORECAST_H
#define MIGRATION_STRATEGY_FORECAST_H

/* Passes that the forecast looks ahead at the most */
#define FORECAST_MAX_PASSES 16

typedef enum ForecastVerdict {
    FORECAST_FITS,
    FORECAST_CONVERGES,
    FORECAST_DIVERGES,
} ForecastVerdict;

typedef struct ForecastPass {
    double seconds;             /* how long the pass took, > 0 */
    double dirty;               /* bytes dirty at its end */
} ForecastPass;

typedef struct Forecast {
    ForecastPass last;
    double exponent;            /* a in the model */
    unsigned passes;            /* passes seen */
} Forecast;

typedef struct ForecastLimits {
    double bandwidth;           /* bytes per second, > 0 */
    double fits;                /* bytes that fit the downtime limit */
    double budget;              /* bytes that further passes may cost */
} ForecastLimits;

typedef struct ForecastResult {
    ForecastVerdict verdict;
    unsigned passes_to_go;      /* meaningless when it diverges */
    double rest;                /* dirty bytes at the end of the forecast */
    double cost;                /* bytes that the passes looked at would send */
} ForecastResult;

/*
 * forecast_init: forget everything
 */
void forecast_init(Forecast *f);

/*
 * forecast_add_pass: learn from a pass that just ended
 *
 * @seconds: length of the pass; values <= 0 count as a microsecond
 * @dirty: bytes that are dirty now
 */
void forecast_add_pass(Forecast *f, double seconds, double dirty);

/*
 * forecast_evaluate: play the coming passes forward
 *
 * Before the first forecast_add_pass() the answer is FORECAST_CONVERGES
 * with nothing known.
 */
ForecastResult forecast_evaluate(const Forecast *f, const ForecastLimits *l);

#endif
