/*
 * Schedule of mode hybrid: a number of full passes, then post-copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pass here is full: the rest of an early-ended pass would have to be
 * asked for by the guest one fault at a time.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "schedule.h"

/* Passes beyond those asked for, while the rest fits the downtime limit */
#define EXTRA_PASSES 3

static ScheduleDecision hybrid_setup(Schedule *s)
{
    return (ScheduleDecision) {
        .sentence = g_strdup_printf("pre-copy for %" PRIu32 " full pass%s, "
                                    "then post-copy unless the rest fits the "
                                    "downtime limit", s->config.passes,
                                    s->config.passes == 1 ? "" : "es"),
    };
}

static ScheduleDecision hybrid_pass_end(Schedule *s, const SchedulePass *pass)
{
    if (pass->number < s->config.passes) {
        return (ScheduleDecision) {};
    }
    /*
     * QEMU completes by the rate of the last 100 ms, which a stretch of zero
     * pages makes low; a pass or two that cost next to nothing mend that.
     */
    if (pass->dirty <= pass->limit &&
        pass->number < (uint64_t)s->config.passes + EXTRA_PASSES) {
        return (ScheduleDecision) {
            .sentence = g_strdup_printf("pre-copy: after pass %" PRIu64 " the "
                                        "rest of %.1f MiB fits the downtime "
                                        "limit of %" PRIu64 " ms",
                                        pass->number, pass->dirty / 1048576.0,
                                        pass->downtime_ms),
        };
    }
    return (ScheduleDecision) {
        .switch_now = true,
        .why = RAM_STRATEGY_SWITCH_REASON_PASSES,
        .sentence = g_strdup_printf("post-copy after pass %" PRIu64 " of %"
                                    PRIu32 ": %.1f MiB are dirty, the "
                                    "downtime limit of %" PRIu64 " ms "
                                    "allows %.1f MiB", pass->number,
                                    s->config.passes,
                                    pass->dirty / 1048576.0,
                                    pass->downtime_ms,
                                    pass->limit / 1048576.0),
    };
}

static const ScheduleOps hybrid_ops = {
    .mode = RAM_STRATEGY_MODE_HYBRID,
    .full_passes = true,
    .setup = hybrid_setup,
    .pass_end = hybrid_pass_end,
};

static void hybrid_register(void)
{
    schedule_register(&hybrid_ops);
}
migration_init(hybrid_register)
