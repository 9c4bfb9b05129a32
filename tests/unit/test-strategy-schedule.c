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

    g_assert_true(s->ops->full_passes);
    g_assert_false(switches(schedule_setup(s), 0));
    for (uint32_t i = 1; i < passes; i++) {
        SchedulePass p = pass(i, 8, 128 * MiB);

        g_assert_false(switches(schedule_pass_end(s, &p), 0));
    }
    g_assert_true(switches(schedule_pass_end(s, &(SchedulePass) {
                               .number = passes, .seconds = 1 }),
                           RAM_STRATEGY_SWITCH_REASON_PASSES));
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
    g_test_add_func("/strategy/schedule/auto", test_auto);
    return g_test_run();
}
