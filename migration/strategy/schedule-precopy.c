/*
 * Schedule of mode precopy: the empty one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "schedule.h"

static ScheduleDecision precopy_setup(Schedule *s)
{
    return (ScheduleDecision) {
        .sentence = g_strdup("pre-copy until the rest fits the downtime "
                             "limit"),
    };
}

static const ScheduleOps precopy_ops = {
    .mode = RAM_STRATEGY_MODE_PRECOPY,
    .setup = precopy_setup,
};

static void precopy_register(void)
{
    schedule_register(&precopy_ops);
}
migration_init(precopy_register)
