/*
 * The strategy of the outgoing migration, while it runs and afterwards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * At most one migration runs, and so at most one StrategyRun exists.  It is
 * made by the main thread before the migration thread starts, and replaced
 * by the next migration, so that query-migrate can tell of the last one.
 *
 * The migration thread calls strategy_run_sync_due() and
 * strategy_run_step() once per turn of its loop, and takes every decision.
 * What it found is kept under the run's lock for whoever asks.
 */
#ifndef MIGRATION_STRATEGY_RUN_H
#define MIGRATION_STRATEGY_RUN_H

#include "config.h"

/*
 * strategy_run_begin: a migration is about to start; main thread, BQL
 *
 * @config: what it runs with
 * @asked_for: whether a strategy was ever asked for; otherwise nothing is
 *             reported
 */
void strategy_run_begin(const StrategyConfig *config, bool asked_for);

/*
 * strategy_run_connected: the destination was reached; main thread, BQL
 *
 * Only from here on does the strategy act, so that nothing of it is left
 * over when no connection comes about.
 */
void strategy_run_connected(void);

/*
 * strategy_run_end: the migration is over; main thread, BQL
 *
 * Idempotent.  The report stays.
 */
void strategy_run_end(void);

/* strategy_run_begun: did this QEMU ever start to migrate?  BQL */
bool strategy_run_begun(void);

/* strategy_run_active: does a strategy change this migration?  Any thread. */
bool strategy_run_active(void);

/* strategy_run_config: what the active run was configured with */
const StrategyConfig *strategy_run_config(void);

/*
 * strategy_run_sync_due: is it time to read the dirty log?
 *
 * Migration thread, at the start of each turn of its loop.
 *
 * @fits: whether the estimate of the rest fits the downtime limit
 * @may_sync: false while a redirect has no use for it
 */
bool strategy_run_sync_due(bool fits, bool may_sync);

/*
 * strategy_run_step: may the migration complete in this turn?
 *
 * Migration thread, after the dirty log was read if it was due.  Orders
 * the switch to post-copy when the schedule wants it and the destination
 * has acknowledged the strategy.
 *
 * @fits: whether the rest fits the downtime limit
 */
bool strategy_run_step(bool fits);

/*
 * strategy_run_switch_due: switch to post-copy in this turn?
 *
 * Migration thread, after strategy_run_step().  Whoever ordered the switch:
 * not before the destination has acknowledged the strategy.
 */
bool strategy_run_switch_due(void);

/*
 * strategy_run_redirected: the stream goes to another destination now
 *
 * Migration thread.
 */
void strategy_run_redirected(void);

/*
 * strategy_run_iterates: should RAM send anything in this turn?
 *
 * Migration thread.
 *
 * @requested: whether the destination waits for pages
 */
bool strategy_run_iterates(bool requested);

/*
 * strategy_run_idle: is there nothing to do until the guest faults?
 *
 * Migration thread; it sleeps when the answer is true.  A broken return
 * path is noticed here, since a stream on which nothing is sent never
 * shows an error.
 */
bool strategy_run_idle(bool relay);

/*
 * strategy_run_pass_end: the dirty log was read in the pre-copy phase
 *
 * Migration thread, BQL.
 */
void strategy_run_pass_end(void);

/*
 * strategy_run_pass_restart: the log was read, but the pass goes on
 *
 * Migration thread, BQL.  What the guest dirtied before then tells nothing
 * about what it dirties in a pass.
 */
void strategy_run_pass_restart(void);

/* strategy_run_wants_switch: was the switch decided?  Migration thread. */
bool strategy_run_wants_switch(void);

/*
 * strategy_run_warm_up: the next pass only fills the delta cache
 *
 * Migration thread, BQL, after strategy_run_pass_end().
 */
void strategy_run_warm_up(void);

/* strategy_run_switched: the guest now runs at the destination; BQL */
void strategy_run_switched(void);

/* strategy_run_failed: forget a switch that did not come about; BQL */
void strategy_run_failed(void);

/*
 * strategy_run_set_background: push what nobody asked for, or stop that
 *
 * Any thread; takes effect within 100 ms, and only while a migration runs.
 */
void strategy_run_set_background(bool background);

/*
 * strategy_run_query: what the last migration did, or does
 *
 * Any thread.  The caller owns the result; NULL when there is nothing to
 * tell.
 */
RamStrategyInfo *strategy_run_query(void);

#endif
