/*
 * The strategy of the outgoing migration, while it runs and afterwards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-strategy.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/strategy.h"
#include "system/runstate.h"
#include "meter.h"
#include "redirect/redirect.h"
#include "run.h"
#include "schedule.h"
#include "split/split.h"
#include "trace.h"

/* Argument of the PING whose PONG says that the strategy was loaded */
#define STRATEGY_PING 0x73747261
/* PONGs until then: the one of the return path's own PING, and ours */
#define STRATEGY_PONGS 2
/* How often a wait looks whether the migration is still alive */
#define STRATEGY_WAIT_MS 100

typedef struct StrategyRun {
    /* Set before the migration thread starts, constant from then on */
    StrategyConfig config;
    Schedule *schedule;
    bool asked_for;

    /* Migration thread only */
    Meter meter;
    int64_t window_start;       /* of the current rate window, ms */
    bool pinged;
    unsigned pongs;
    bool want_switch;
    bool agreed;                /* the destination has loaded our section */
    bool reached_postcopy;
    bool warm_up;               /* this pass fills the delta cache */
    uint64_t pass_dirty;        /* bytes dirty when the pass started */
    bool mid_pass;              /* the estimate was not checked by a sync */
    bool starved;               /* demand only, and nobody demands */

    /* Any thread, atomically */
    bool running;               /* from the connection to the clean-up */
    bool background;
    bool waiting;               /* for the destination's acknowledgement */

    /* Protects what is below */
    QemuMutex lock;
    uint64_t passes;            /* pre-copy passes finished */
    int64_t pass_start;         /* ms */
    bool switched;
    int64_t switch_time;        /* ms since the migration started */
    RamStrategySwitchReason switch_reason;
    char *sentence;
    RamStrategyForecast *forecast;
} StrategyRun;

/* Written by the main thread while no migration thread exists */
static StrategyRun *current_run;

/*
 * Read for each page that is looked for, written by the migration thread
 * between two turns of its loop: a turn that decided to complete drains
 * everything, whatever the user sets meanwhile.
 */
bool strategy_demand_only_now;

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

static void run_free(StrategyRun *run)
{
    schedule_free(run->schedule);
    strategy_config_clear(&run->config);
    qemu_mutex_destroy(&run->lock);
    g_free(run->sentence);
    qapi_free_RamStrategyForecast(run->forecast);
    g_free(run);
}

/* Called with run->lock held; takes over what @d owns */
static void run_record_locked(StrategyRun *run, ScheduleDecision *d)
{
    if (d->sentence) {
        g_free(run->sentence);
        run->sentence = g_steal_pointer(&d->sentence);
    }
    if (d->forecast) {
        qapi_free_RamStrategyForecast(run->forecast);
        run->forecast = g_steal_pointer(&d->forecast);
    }
    if (d->switch_now && !run->want_switch) {
        run->want_switch = true;
        run->switch_reason = d->why;
    }
    schedule_decision_clear(d);
}

static void G_GNUC_PRINTF(2, 3)
run_say(StrategyRun *run, const char *fmt, ...)
{
    va_list ap;

    QEMU_LOCK_GUARD(&run->lock);
    g_free(run->sentence);
    va_start(ap, fmt);
    run->sentence = g_strdup_vprintf(fmt, ap);
    va_end(ap);
}

void strategy_run_begin(const StrategyConfig *config, bool asked_for)
{
    StrategyRun *run = g_new0(StrategyRun, 1);
    ScheduleDecision d;

    if (current_run) {
        run_free(current_run);
    }
    qemu_mutex_init(&run->lock);
    run->config = strategy_config_copy(config);
    run->asked_for = asked_for;
    run->schedule = schedule_new(config);
    run->background = config->background;
    run->pass_start = now_ms();
    run->switch_reason = RAM_STRATEGY_SWITCH_REASON_USER;
    d = schedule_setup(run->schedule);
    WITH_QEMU_LOCK_GUARD(&run->lock) {
        run_record_locked(run, &d);
    }
    current_run = run;
    trace_strategy_begin(RamStrategyMode_str(config->mode), config->passes,
                         config->background);
}

void strategy_run_connected(void)
{
    MigrationState *s = migrate_get_current();

    qatomic_set(&current_run->running, true);
    if (strategy_run_active()) {
        /* A migration that was cancelled may have left PONGs behind */
        while (qemu_sem_timedwait(&s->rp_state.rp_pong_acks, 0) == 0) {
            trace_strategy_stale_pong();
        }
    }
}

void strategy_run_end(void)
{
    if (current_run) {
        qatomic_set(&current_run->running, false);
    }
    qatomic_set(&strategy_demand_only_now, false);
}

bool strategy_run_begun(void)
{
    return current_run;
}

static bool run_running(void)
{
    return current_run && qatomic_read(&current_run->running);
}

bool strategy_run_active(void)
{
    return run_running() && strategy_config_in_force(&current_run->config);
}

const StrategyConfig *strategy_run_config(void)
{
    return &current_run->config;
}

/* Note the rate of each window that migration_update_counters() closed */
static void run_meter(StrategyRun *run, MigrationState *s)
{
    if (run->window_start == s->iteration_start_time) {
        return;
    }
    if (run->window_start) {
        double seconds = (s->iteration_start_time - run->window_start) / 1e3;

        meter_add(&run->meter, s->mbps * 125000 * seconds, seconds);
        split_estimate_window(seconds);
    } else {
        /* What was sent before the first window is not of any */
        split_estimate_window(0);
    }
    run->window_start = s->iteration_start_time;
}

static void run_ping(StrategyRun *run, MigrationState *s)
{
    if (!run->pinged && s->rp_state.rp_thread_created) {
        qemu_savevm_send_ping(s->to_dst_file, STRATEGY_PING);
        run->pinged = true;
    }
}

bool strategy_run_sync_due(bool fits, bool may_sync)
{
    MigrationState *s = migrate_get_current();
    StrategyRun *run = current_run;
    bool in_postcopy = migration_in_postcopy();

    if (!strategy_run_active()) {
        return fits;
    }

    run->starved = false;
    run->mid_pass = false;
    qatomic_set(&strategy_demand_only_now,
                in_postcopy && !qatomic_read(&run->background) &&
                strategy_mode_uses_postcopy(run->config.mode));
    if (in_postcopy) {
        run->reached_postcopy = true;
        return fits;
    }

    if (run->config.split && !split_turn()) {
        run->mid_pass = true;
        return false;
    }
    run_ping(run, s);
    if (redirect_waits()) {
        /* A rate of nothing says nothing about the link */
        run->window_start = s->iteration_start_time;
    }
    run_meter(run, s);
    if (!may_sync) {
        run->mid_pass = true;
        return false;
    }
    if (run->want_switch && !run->passes) {
        /* Nothing was sent, so there is nothing that could fit */
        run->mid_pass = true;
        return false;
    }
    if (run->schedule->ops->full_passes && !run->want_switch) {
        run->mid_pass = ram_bytes_remaining() != 0;
        return !run->mid_pass;
    }
    if (run->config.split) {
        /* QEMU's own answer takes all links for one */
        fits = split_fits();
        if (!fits && !ram_bytes_remaining() && split_wait_backlog()) {
            /* All is sent, but not yet where it belongs */
            run->mid_pass = true;
            return false;
        }
    }
    /*
     * With a downtime limit of 0 not even an empty rest fits, so that the
     * log would never be read, and the guest stopped for all it dirtied.
     */
    run->mid_pass = !fits && ram_bytes_remaining();
    return !run->mid_pass;
}

static void run_pass_figures(StrategyRun *run, MigrationState *s,
                             SchedulePass *pass)
{
    uint64_t switchover = migrate_avail_switchover_bandwidth();
    double rate = meter_rate(&run->meter);
    int64_t ms = MAX(now_ms() - run->pass_start, 1);

    if (!rate) {
        /* Shorter than a window */
        rate = migration_transferred_bytes() * 1e3 /
               MAX(now_ms() - s->start_time, 1);
    }
    *pass = (SchedulePass) {
        .number = run->passes,
        .seconds = ms / 1e3,
        .dirty = ram_bytes_remaining(),
        .bandwidth = MAX(rate, 1),
        .warm_up = run->warm_up,
        .downtime_ms = migrate_downtime_limit(),
        .ram = ram_bytes_total(),
    };
    pass->memory_rate = pass->bandwidth;
    if (migrate_xbzrle()) {
        /* What the link carries stands for more memory than that */
        pass->memory_rate = MAX(pass->bandwidth,
                                (run->pass_dirty ?: pass->ram) * 1e3 / ms);
    }
    pass->limit = (switchover ?: pass->bandwidth) * pass->downtime_ms / 1000;
}

void strategy_run_pass_end(void)
{
    MigrationState *s = migrate_get_current();
    StrategyRun *run = current_run;
    ScheduleDecision d;
    SchedulePass pass;

    if (!run_running()) {
        return;
    }

    QEMU_LOCK_GUARD(&run->lock);
    if (s->state != MIGRATION_STATUS_ACTIVE) {
        /* The sync of the set-up, or the last one with the guest stopped */
        run->pass_start = now_ms();
        return;
    }
    run->passes++;
    run_pass_figures(run, s, &pass);
    trace_strategy_pass_end(pass.number, pass.seconds * 1000, pass.dirty,
                            pass.bandwidth, pass.limit);
    d = schedule_pass_end(run->schedule, &pass);
    if (d.switch_now && !runstate_is_running()) {
        d.switch_now = false;
        g_free(d.sentence);
        d.sentence = g_strdup("pre-copy: the guest is stopped and dirties "
                              "nothing");
    }
    if (d.forecast) {
        trace_strategy_forecast(
            RamStrategyForecastVerdict_str(d.forecast->verdict),
            d.forecast->dirty_rate, d.forecast->bandwidth, d.forecast->dirty,
            d.forecast->limit, d.sentence);
    }
    run_record_locked(run, &d);
    run->pass_start = now_ms();
    run->pass_dirty = pass.dirty;
    run->warm_up = false;
    meter_reset(&run->meter);
}

void strategy_run_pass_restart(void)
{
    StrategyRun *run = current_run;

    if (!run_running()) {
        return;
    }
    QEMU_LOCK_GUARD(&run->lock);
    run->pass_start = now_ms();
    run->pass_dirty = ram_bytes_remaining();
}

bool strategy_run_wants_switch(void)
{
    return strategy_run_active() && current_run->want_switch;
}

void strategy_run_warm_up(void)
{
    if (run_running()) {
        current_run->warm_up = true;
    }
}

/*
 * Wait until the destination has loaded our section.
 *
 * One that does not know it gives up while it reads the set-up; were the
 * guest stopped here before that is known, it could be lost.
 */
static bool run_destination_agreed(StrategyRun *run, MigrationState *s)
{
    while (run->pongs < STRATEGY_PONGS) {
        if (qemu_sem_timedwait(&s->rp_state.rp_pong_acks,
                               STRATEGY_WAIT_MS) == 0) {
            run->pongs++;
            continue;
        }
        qatomic_set(&run->waiting, true);
        if (s->state != MIGRATION_STATUS_ACTIVE) {
            return false;
        }
        if (migrate_has_error(s) || qemu_file_get_error(s->to_dst_file)) {
            run_say(run, "failed: the destination gave up before it had "
                    "acknowledged the strategy (mode '%s'); a QEMU without "
                    "RAM strategies does not know the section ram-strategy",
                    RamStrategyMode_str(run->config.mode));
            if (!qemu_file_get_error(s->to_dst_file)) {
                qemu_file_set_error(s->to_dst_file, -ECONNRESET);
            }
            return false;
        }
    }
    if (run->pongs == STRATEGY_PONGS) {
        /* The preempt channel waits for one as well: give it back */
        qemu_sem_post(&s->rp_state.rp_pong_acks);
        run->pongs++;
    }
    return true;
}

bool strategy_run_step(bool fits)
{
    MigrationState *s = migrate_get_current();
    StrategyRun *run = current_run;
    bool waited;

    if (!strategy_run_active()) {
        return fits;
    }
    if (migration_in_postcopy()) {
        return fits && (!qatomic_read(&strategy_demand_only_now) ||
                        !ram_bytes_remaining());
    }
    if (run->mid_pass) {
        fits = false;
    } else if (run->config.split) {
        fits = split_fits();
    }
    if (!fits && !run->want_switch && !qatomic_read(&s->start_postcopy)) {
        return false;
    }
    run->agreed = run_destination_agreed(run, s);
    waited = qatomic_xchg(&run->waiting, false);
    if (!run->agreed || (fits && waited)) {
        /* After a wait, what fitted may fit no more */
        return false;
    }
    if (fits && run->config.split && !split_answers()) {
        return false;
    }
    if (fits) {
        run_say(run, "pre-copy: after pass %" PRIu64 " the rest of %.1f MiB "
                "fits the downtime limit of %" PRIu64 " ms%s", run->passes,
                ram_bytes_remaining() / 1048576.0, migrate_downtime_limit(),
                strategy_mode_uses_postcopy(run->config.mode) ?
                ", so there is no need for post-copy" : "");
    } else {
        qatomic_set(&s->start_postcopy, true);
    }
    return fits;
}

void strategy_run_redirected(void)
{
    MigrationState *s = migrate_get_current();
    StrategyRun *run = current_run;

    /* The new destination has loaded our section before it was ready */
    while (qemu_sem_timedwait(&s->rp_state.rp_pong_acks, 0) == 0) {
        trace_strategy_stale_pong();
    }
    run->pinged = true;
    run->pongs = STRATEGY_PONGS;
    run->agreed = false;
    run->window_start = 0;
    meter_reset(&run->meter);
}

bool strategy_run_switch_due(void)
{
    bool ordered = qatomic_read(&migrate_get_current()->start_postcopy);

    return ordered && (!strategy_run_active() || current_run->agreed);
}

bool strategy_run_iterates(bool requested)
{
    StrategyRun *run = current_run;

    if (!strategy_run_active() || requested) {
        return true;
    }
    if (migration_in_postcopy()) {
        run->starved = qatomic_read(&strategy_demand_only_now);
        return !run->starved;
    }
    /* Mode postcopy sends no page before the switch */
    return run->config.mode != RAM_STRATEGY_MODE_POSTCOPY;
}

bool strategy_run_idle(bool relay)
{
    MigrationState *s = migrate_get_current();

    if (!strategy_run_active() || !(current_run->starved || relay)) {
        return false;
    }
    if (migrate_has_error(s) && !qemu_file_get_error(s->to_dst_file)) {
        qemu_file_set_error(s->to_dst_file, -EIO);
    }
    return true;
}

void strategy_run_switched(void)
{
    MigrationState *s = migrate_get_current();
    StrategyRun *run = current_run;

    if (!run_running()) {
        return;
    }
    QEMU_LOCK_GUARD(&run->lock);
    run->switched = true;
    run->switch_time = now_ms() - s->start_time;
    if (!run->want_switch) {
        g_free(run->sentence);
        run->sentence = g_strdup_printf("post-copy after %" PRIu64 " passes, "
                                        "as migrate-start-postcopy was given",
                                        run->passes);
    }
    trace_strategy_switch(RamStrategySwitchReason_str(run->switch_reason),
                          run->passes, run->switch_time, run->sentence);
}

void strategy_run_failed(void)
{
    StrategyRun *run = current_run;

    if (!run_running()) {
        return;
    }
    QEMU_LOCK_GUARD(&run->lock);
    run->switched = run->switched && run->reached_postcopy;
}

void strategy_run_set_background(bool background)
{
    if (run_running()) {
        qatomic_set(&current_run->background, background);
    }
}

RamStrategyInfo *strategy_run_query(void)
{
    StrategyRun *run = current_run;
    RamStrategyInfo *info;

    if (!run || !run->asked_for) {
        return NULL;
    }
    QEMU_LOCK_GUARD(&run->lock);
    info = g_new0(RamStrategyInfo, 1);
    info->mode = run->config.mode;
    info->pass = run->passes;
    info->background = qatomic_read(&run->background);
    info->switched = run->switched;
    info->has_switch_reason = info->has_switch_time = run->switched;
    info->switch_reason = run->switch_reason;
    info->switch_time = run->switch_time;
    info->reason = g_strdup_printf("%s%s", run->sentence,
                                   qatomic_read(&run->waiting) ?
                                   "; waiting for the destination to "
                                   "acknowledge the strategy" : "");
    if (run->forecast) {
        info->forecast = QAPI_CLONE(RamStrategyForecast, run->forecast);
    }
    info->split = split_query();
    info->redirect = redirect_query();
    return info;
}
