/*
 * Schedules: when does a migration go on with pre-copy, and when does it
 * switch to post-copy?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A schedule is an ops table; each lives in a file of its own,
 * schedule-MODE.c, and registers itself at start-up.  A schedule is pure:
 * it sees passes, and answers with a decision; it never touches the VM or
 * the stream, so it can be tested without either.  One instance serves one
 * migration, all its callbacks run on one thread at a time.
 */
#ifndef MIGRATION_STRATEGY_SCHEDULE_H
#define MIGRATION_STRATEGY_SCHEDULE_H

#include "config.h"

typedef struct Schedule Schedule;
typedef struct ScheduleOps ScheduleOps;

/* A pre-copy pass that just ended */
typedef struct SchedulePass {
    uint64_t number;            /* from 1 */
    double seconds;             /* how long it took, > 0 */
    uint64_t dirty;             /* bytes dirty now */
    uint64_t bandwidth;         /* bytes per second on the link, at least 1 */
    uint64_t memory_rate;       /* bytes of guest memory per second */
    uint64_t limit;             /* bytes that fit the downtime limit */
    uint64_t downtime_ms;       /* the downtime limit itself */
    uint64_t ram;               /* bytes of guest RAM */
    bool warm_up;               /* it only filled the delta cache */
} SchedulePass;

/* What a schedule wants */
typedef struct ScheduleDecision {
    bool switch_now;            /* go to post-copy unless the rest fits */
    RamStrategySwitchReason why;        /* if @switch_now */
    char *sentence;             /* for people; owned by the receiver */
    RamStrategyForecast *forecast;      /* or NULL; owned by the receiver */
} ScheduleDecision;

struct ScheduleOps {
    RamStrategyMode mode;

    /*
     * Whether passes must be full: the dirty log is not read again before
     * every page of the pass has been sent.  Otherwise it is read as soon
     * as the rest may fit the downtime limit, as QEMU does by itself.
     */
    bool full_passes;

    /* Size of the private state behind Schedule, zeroed; may be 0 */
    size_t state_size;

    /*
     * setup: a migration starts; say whether to switch before any pass.
     * Required.
     */
    ScheduleDecision (*setup)(Schedule *s);

    /*
     * pass_end: a pass ended and the dirty log was read.  Not called after
     * the switch.  Optional: without it pre-copy goes on.
     */
    ScheduleDecision (*pass_end)(Schedule *s, const SchedulePass *pass);

    /* cleanup: undo setup.  Optional. */
    void (*cleanup)(Schedule *s);
};

struct Schedule {
    const ScheduleOps *ops;
    StrategyConfig config;
    void *state;                /* private to the ops */
};

/*
 * schedule_register: make @ops known; once per mode, at start-up
 */
void schedule_register(const ScheduleOps *ops);

/*
 * schedule_new: the schedule that @config asks for
 *
 * The caller owns it, and hands it to schedule_free().
 */
Schedule *schedule_new(const StrategyConfig *config);

/* schedule_free: NULL is fine */
void schedule_free(Schedule *s);

ScheduleDecision schedule_setup(Schedule *s);
ScheduleDecision schedule_pass_end(Schedule *s, const SchedulePass *pass);

/* schedule_decision_clear: free what a decision owns */
void schedule_decision_clear(ScheduleDecision *d);

#endif
