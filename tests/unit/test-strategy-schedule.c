/*
 * Unit tests of the schedules: selection, and what each decides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: each mode finds its own schedule, and switches to post-copy
 * exactly when its document says.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "migration/strategy/schedule.h"

static Schedule *new_schedule(RamStrategyMode mode, uint32_t passes)
{
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT;

    c.mode = mode;
    c.passes = passes;
    return schedule_new(&c);
}

/* Whether @d switches, and for @why; frees what it owns */
static bool switches(ScheduleDecision d, RamStrategySwitchReason why)
{
    bool ret = d.switch_now;

    if (ret) {
        g_assert_cmpint(d.why, ==, why);
        g_assert_nonnull(d.sentence);
    }
    schedule_decision_clear(&d);
    g_assert_null(d.sentence);
    g_assert_null(d.forecast);
    return ret;
}

static SchedulePass pass(uint64_t number, double seconds, uint64_t dirty)
{
    return (SchedulePass) {
        .number = number,
        .seconds = seconds,
        .dirty = dirty,
        .bandwidth = 64 * MiB,
        .memory_rate = 64 * MiB,
        .limit = 19 * MiB,
        .downtime_ms = 300,
        .ram = 512 * MiB,
    };
}

static void test_select(void)
{
    for (int mode = 0; mode < RAM_STRATEGY_MODE__MAX; mode++) {
        Schedule *s = new_schedule(mode, 1);

        g_assert_cmpint(s->ops->mode, ==, mode);
        g_assert_cmpint(s->config.mode, ==, mode);
        schedule_free(s);
    }
    schedule_free(NULL);
}

static void test_precopy(void)
{
    Schedule *s = new_schedule(RAM_STRATEGY_MODE_PRECOPY, 1);

    g_assert_false(switches(schedule_setup(s), 0));
    for (int i = 1; i < 50; i++) {
        SchedulePass p = pass(i, 8, 500 * MiB);

        g_assert_false(switches(schedule_pass_end(s, &p), 0));
    }
    schedule_free(s);
}

static void test_postcopy(void)
{
    Schedule *s = new_schedule(RAM_STRATEGY_MODE_POSTCOPY, 1);

    g_assert_true(switches(schedule_setup(s),
                           RAM_STRATEGY_SWITCH_REASON_MODE));
    schedule_free(s);
}

static void test_hybrid(gconstpointer opaque)
{
    uint32_t passes = GPOINTER_TO_UINT(opaque);
    Schedule *s = new_schedule(RAM_STRATEGY_MODE_HYBRID, passes);
    SchedulePass p;

    g_assert_true(s->ops->full_passes);
    g_assert_false(switches(schedule_setup(s), 0));
    for (uint32_t i = 1; i < passes; i++) {
        p = pass(i, 8, 128 * MiB);
        g_assert_false(switches(schedule_pass_end(s, &p), 0));
    }
    p = pass(passes, 8, 20 * MiB);
    g_assert_true(switches(schedule_pass_end(s, &p),
                           RAM_STRATEGY_SWITCH_REASON_PASSES));
    schedule_free(s);
}

/* A rest that fits is left to pre-copy, but not for ever */
static void test_hybrid_fits(void)
{
    Schedule *s = new_schedule(RAM_STRATEGY_MODE_HYBRID, 2);
    int i;

    g_assert_false(switches(schedule_setup(s), 0));
    for (i = 1; i < 10; i++) {
        SchedulePass p = pass(i, 1, 19 * MiB);

        if (switches(schedule_pass_end(s, &p),
                     RAM_STRATEGY_SWITCH_REASON_PASSES)) {
            break;
        }
    }
    g_assert_cmpint(i, ==, 5);
    schedule_free(s);
}

static void test_auto(void)
{
    const struct {
        SchedulePass passes[4];         /* number 0 ends */
        uint64_t switches_after;        /* 0: never */
    } guests[] = {
        { { pass(1, 8, 128 * MiB), pass(2, 2, 128 * MiB) }, 2 },
        { { pass(1, 8, 128 * MiB), pass(2, 2, 32 * MiB),
            pass(3, 0.5, 8 * MiB) }, 0 },
        { { pass(1, 8, 511 * MiB) }, 1 },
    };

    for (size_t g = 0; g < ARRAY_SIZE(guests); g++) {
        Schedule *s = new_schedule(RAM_STRATEGY_MODE_AUTO, 1);

        g_assert_false(switches(schedule_setup(s), 0));
        for (const SchedulePass *p = guests[g].passes; p->number; p++) {
            ScheduleDecision d = schedule_pass_end(s, p);
            bool expected = p->number == guests[g].switches_after;

            g_assert_nonnull(d.forecast);
            g_assert_cmpint(d.forecast->verdict ==
                            RAM_STRATEGY_FORECAST_VERDICT_DIVERGES, ==,
                            expected);
            g_assert_cmpint(switches(d, RAM_STRATEGY_SWITCH_REASON_FORECAST),
                            ==, expected);
        }
        schedule_free(s);
    }
}

/*
 * A rest that is next to nothing, and a pass too short to prove anything:
 * an idle guest under a tight limit is not given up for that
 */
static void test_auto_cheap(void)
{
    Schedule *s = new_schedule(RAM_STRATEGY_MODE_AUTO, 1);
    SchedulePass p = pass(1, 40, 600 * KiB);
    int i;

    g_assert_false(switches(schedule_setup(s), 0));
    for (i = 1; i < 1000; i++) {
        p.number = i;
        p.limit = 300 * KiB;
        if (switches(schedule_pass_end(s, &p),
                     RAM_STRATEGY_SWITCH_REASON_FORECAST)) {
            break;
        }
        p = pass(i, 0.1, 400 * KiB);
    }
    g_assert_cmpint(i, >, 30);
    g_assert_cmpint(i, <, 50);
    schedule_free(s);
}

/* The pass that fills the delta cache sends all of it once more: no news */
static void test_auto_warm_up(void)
{
    Schedule *s = new_schedule(RAM_STRATEGY_MODE_AUTO, 1);
    SchedulePass first = pass(1, 8, 128 * MiB);
    SchedulePass warm_up = pass(2, 2, 128 * MiB);
    SchedulePass with_delta = pass(3, 0.3, 40 * MiB);

    warm_up.warm_up = true;
    with_delta.memory_rate = 1000 * MiB;
    g_assert_false(switches(schedule_setup(s), 0));
    g_assert_false(switches(schedule_pass_end(s, &first), 0));
    g_assert_false(switches(schedule_pass_end(s, &warm_up), 0));
    g_assert_false(switches(schedule_pass_end(s, &with_delta), 0));
    schedule_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_MIGRATION);
    g_test_add_func("/strategy/schedule/select", test_select);
    g_test_add_func("/strategy/schedule/precopy", test_precopy);
    g_test_add_func("/strategy/schedule/postcopy", test_postcopy);
    g_test_add_data_func("/strategy/schedule/hybrid/1", GUINT_TO_POINTER(1),
                         test_hybrid);
    g_test_add_data_func("/strategy/schedule/hybrid/5", GUINT_TO_POINTER(5),
                         test_hybrid);
    g_test_add_func("/strategy/schedule/hybrid/fits", test_hybrid_fits);
    g_test_add_func("/strategy/schedule/auto", test_auto);
    g_test_add_func("/strategy/schedule/auto/cheap", test_auto_cheap);
    g_test_add_func("/strategy/schedule/auto/warm-up", test_auto_warm_up);
    return g_test_run();
}
