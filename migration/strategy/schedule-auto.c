/*
 * Schedule of mode auto: pre-copy while a forecast says that it converges
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See forecast.h for how the forecast is made.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "schedule.h"
#include "forecast.h"

/*
 * A rest below this part of guest RAM is cheap: a pass that makes no progress
 * on it is too short to prove anything.  A guest with such a rest, an idle
 * one above all, is given up only after many of them.
 */
#define CHEAP_SHARE 256
#define CHEAP_PASSES 32

typedef struct AutoState {
    Forecast forecast;
    unsigned cheap_passes;
} AutoState;

static ScheduleDecision auto_setup(Schedule *s)
{
    AutoState *state = s->state;

    forecast_init(&state->forecast);
    return (ScheduleDecision) {
        .sentence = g_strdup("pre-copy: no pass has ended yet"),
    };
}

static RamStrategyForecast *auto_report(const SchedulePass *pass,
                                        const ForecastResult *r)
{
    static const RamStrategyForecastVerdict verdicts[] = {
        [FORECAST_FITS] = RAM_STRATEGY_FORECAST_VERDICT_FITS,
        [FORECAST_CONVERGES] = RAM_STRATEGY_FORECAST_VERDICT_CONVERGES,
        [FORECAST_DIVERGES] = RAM_STRATEGY_FORECAST_VERDICT_DIVERGES,
    };
    RamStrategyForecast *f = g_new0(RamStrategyForecast, 1);

    f->verdict = verdicts[r->verdict];
    f->dirty_rate = pass->dirty / pass->seconds;
    f->bandwidth = pass->bandwidth;
    f->dirty = pass->dirty;
    f->limit = pass->limit;
    f->has_passes_to_go = r->verdict != FORECAST_DIVERGES;
    f->passes_to_go = f->has_passes_to_go ? r->passes_to_go : 0;
    return f;
}

static char *auto_sentence(const SchedulePass *pass, const ForecastResult *r)
{
    const double mib = 1048576.0;
    g_autofree char *seen =
        g_strdup_printf("pass %" PRIu64 " took %.1f s and left %.1f MiB "
                        "dirty; at %.1f MiB/s the downtime limit of %" PRIu64
                        " ms allows %.1f MiB", pass->number, pass->seconds,
                        pass->dirty / mib, pass->bandwidth / mib,
                        pass->downtime_ms, pass->limit / mib);

    switch (r->verdict) {
    case FORECAST_FITS:
        return g_strdup_printf("pre-copy: %s, so the rest fits", seen);
    case FORECAST_CONVERGES:
        return g_strdup_printf("pre-copy: %s, and %u more pass%s should bring "
                               "the rest under it", seen, r->passes_to_go,
                               r->passes_to_go == 1 ? "" : "es");
    case FORECAST_DIVERGES:
        return g_strdup_printf("post-copy: %s, and %u more pass%s would still "
                               "leave %.1f MiB after sending %.1f MiB", seen,
                               r->passes_to_go,
                               r->passes_to_go == 1 ? "" : "es",
                               r->rest / mib, r->cost / mib);
    }
    g_assert_not_reached();
}

static ScheduleDecision auto_pass_end(Schedule *s, const SchedulePass *pass)
{
    AutoState *state = s->state;
    ForecastLimits limits = {
        .bandwidth = pass->memory_rate,
        .fits = pass->limit,
        .budget = pass->ram,
    };
    ForecastResult r;

    if (pass->warm_up) {
        return (ScheduleDecision) {
            .sentence = g_strdup_printf("pre-copy: pass %" PRIu64 " filled "
                                        "the delta cache", pass->number),
        };
    }
    forecast_add_pass(&state->forecast, pass->seconds, pass->dirty);
    r = forecast_evaluate(&state->forecast, &limits);
    if (r.verdict == FORECAST_DIVERGES &&
        pass->dirty <= pass->ram / CHEAP_SHARE &&
        state->cheap_passes < CHEAP_PASSES) {
        state->cheap_passes++;
        r.verdict = FORECAST_CONVERGES;
        r.passes_to_go = 1;
    }
    return (ScheduleDecision) {
        .switch_now = r.verdict == FORECAST_DIVERGES,
        .why = RAM_STRATEGY_SWITCH_REASON_FORECAST,
        .sentence = auto_sentence(pass, &r),
        .forecast = auto_report(pass, &r),
    };
}

static const ScheduleOps auto_ops = {
    .mode = RAM_STRATEGY_MODE_AUTO,
    .state_size = sizeof(AutoState),
    .setup = auto_setup,
    .pass_end = auto_pass_end,
};

static void auto_register(void)
{
    schedule_register(&auto_ops);
}
migration_init(auto_register)
