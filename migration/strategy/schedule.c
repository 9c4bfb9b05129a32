/*
 * Schedules: registry and instances
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "schedule.h"

/* Written at start-up only */
static const ScheduleOps *schedules[RAM_STRATEGY_MODE__MAX];

void schedule_register(const ScheduleOps *ops)
{
    assert(!schedules[ops->mode]);
    assert(ops->setup);
    schedules[ops->mode] = ops;
}

Schedule *schedule_new(const StrategyConfig *config)
{
    Schedule *s = g_new0(Schedule, 1);

    s->ops = schedules[config->mode];
    assert(s->ops);
    s->config = *config;
    s->state = g_malloc0(s->ops->state_size);
    return s;
}

void schedule_free(Schedule *s)
{
    if (!s) {
        return;
    }
    if (s->ops->cleanup) {
        s->ops->cleanup(s);
    }
    g_free(s->state);
    g_free(s);
}

ScheduleDecision schedule_setup(Schedule *s)
{
    return s->ops->setup(s);
}

ScheduleDecision schedule_pass_end(Schedule *s, const SchedulePass *pass)
{
    if (!s->ops->pass_end) {
        return (ScheduleDecision) {};
    }
    return s->ops->pass_end(s, pass);
}

void schedule_decision_clear(ScheduleDecision *d)
{
    g_clear_pointer(&d->sentence, g_free);
    g_clear_pointer(&d->forecast, qapi_free_RamStrategyForecast);
}
