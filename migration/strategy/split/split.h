/*
 * Split memory: the source, and what the destination loads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * While a migration with split memory runs, every page that RAM is about to
 * save comes to split_route() first, which leaves it to the main stream or
 * hands it to the sender of a memory host.  At most one such migration runs,
 * so there is one SplitSource.
 *
 * Before the guest may run at the destination, every memory host has
 * acknowledged every page, and the destination has taken the sessions over.
 * Until then the source has all: whatever fails, it ends the sessions and
 * goes on.
 */
#ifndef MIGRATION_STRATEGY_SPLIT_H
#define MIGRATION_STRATEGY_SPLIT_H

#include "exec/cpu-common.h"
#include "migration/qemu-file.h"
#include "qapi/qapi-types-strategy.h"
#include "../message.h"

/*
 * split_check: can this VM's memory be split?
 *
 * Main thread, BQL.  The error says what is in the way and what to do.
 */
bool split_check(const RamSplit *config, Error **errp);

/*
 * The section.  Migration thread; all but split_pending() with the BQL.
 *
 * split_save_setup: make the sessions, and say so to the destination.
 *                   Drops the BQL while it waits for the memory hosts.
 * split_iterates: is there something for split_save_iterate() to do?  Then
 *                 RAM lets it go first.
 * split_save_iterate: send what has changed of the map.  Without BQL.
 * split_pending: bytes that the memory hosts have yet to get, and of the map.
 * split_save_complete: wait until they have got all, but not for long, send
 *                      the rest of the map.  May drop the BQL while it waits.
 * split_finishing: does it wait?  RAM has been read for the last time then, and
 *                  must not change.  With the BQL.
 */
bool split_save_setup(QEMUFile *f, const RamSplit *config, Error **errp);
bool split_iterates(void);
void split_save_iterate(QEMUFile *f);
uint64_t split_pending(void);
bool split_save_complete(QEMUFile *f);
bool split_finishing(void);

/*
 * split_cleanup: the migration is over; main thread, BQL
 *
 * @completed: the destination has the sessions now; otherwise they are ended.
 */
void split_cleanup(bool completed);

/*
 * split_route: @offset of @rb is about to be saved
 *
 * Migration thread, RCU read lock, RAM's bitmap_mutex.  1: done, or put
 * off because the queue of its memory host is full; 0: save it on the main
 * stream; negative: the migration fails.  It never waits.
 */
int split_route(RAMBlock *rb, ram_addr_t offset);

/*
 * split_turn: once a turn of the migration thread's loop, without locks
 *
 * Waits for a moment if split_route() could not go on.  False: a memory host
 * has failed, and with it the migration.
 */
bool split_turn(void);

/*
 * split_estimate_window: so many seconds are over; what was sent in them
 * tells the rate of the main link.  Migration thread.
 *
 * split_fits: would the guest be stopped for no longer than the downtime
 * limit?  Migration thread.
 */
void split_estimate_window(double seconds);
bool split_fits(void);

/*
 * split_answers: may the guest be stopped, as far as the memory hosts go?
 *
 * Migration thread, no locks.  Not before all have answered lately: to one
 * that is silent the guest would wait.  False also when the answers took a
 * while, so that the caller has to look again.
 */
bool split_answers(void);

/*
 * split_wait_backlog: have the senders still work to do?
 *
 * Migration thread.  Waits for a moment if so: there is nothing else to do.
 */
bool split_wait_backlog(void);

/* split_pass_end: the dirty log was read; migration thread, BQL */
void split_pass_end(void);

/*
 * split_query: what the last migration did, or does; main thread, BQL
 *
 * The caller owns the result; NULL when memory was not split.
 */
RamSplitInfo *split_query(void);

/*
 * At the destination, main thread:
 *
 * split_load: one of the messages STRATEGY_MSG_SPLIT_*.
 * split_load_check: the next section is about to be read from @f.  Were it
 *                   the first with device state, and the end of the map was
 *                   not there, @f gets an error.
 * split_load_cleanup: the incoming migration is over; @completed or failed.
 */
bool split_load(const StrategyMessage *m, Error **errp);
void split_load_check(QEMUFile *f);
void split_load_cleanup(bool completed);

#endif
