/*
 * Schedule of mode postcopy: switch before the first page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Hines, Gopalan, "Post-Copy Based Live Virtual Machine Migration Using
 * Adaptive Pre-Paging and Dynamic Self-Ballooning", VEE 2009.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "schedule.h"

static ScheduleDecision postcopy_setup(Schedule *s)
{
    return (ScheduleDecision) {
        .switch_now = true,
        .why = RAM_STRATEGY_SWITCH_REASON_MODE,
        .sentence = g_strdup("post-copy from the start, as mode 'postcopy' "
                             "has it"),
    };
}

static const ScheduleOps postcopy_ops = {
    .mode = RAM_STRATEGY_MODE_POSTCOPY,
    .setup = postcopy_setup,
};

static void postcopy_register(void)
{
    schedule_register(&postcopy_ops);
}
migration_init(postcopy_register)
