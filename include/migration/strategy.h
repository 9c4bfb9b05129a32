/*
 * RAM migration strategies: what the rest of QEMU calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The only header of the strategies that files outside of
 * migration/strategy/ include.  See docs/devel/migration/strategies.rst.
 * With no strategy set, each of these answers as if it were not there.
 */
#ifndef MIGRATION_STRATEGY_H
#define MIGRATION_STRATEGY_H

#include "qemu/atomic.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-strategy.h"
#include "monitor/monitor.h"

/* strategy_init: once, when the migration objects are made */
void strategy_init(void);

/*
 * The parameter `strategy`.  Main thread, BQL.
 *
 * strategy_set: merge what the user gave; on error nothing is changed.
 * strategy_get: all its members; the caller owns the result.
 * strategy_parse: the form of HMP; the caller owns the result.
 */
bool strategy_set(const RamStrategy *param, Error **errp);
RamStrategy *strategy_get(void);
RamStrategy *strategy_parse(const char *keyval, Error **errp);

/*
 * An outgoing migration.  Main thread, BQL.
 *
 * strategy_check: refuse what cannot work, before anything is touched.
 * strategy_begin: take the configuration for this migration.
 * strategy_needs_return_path: open one, whatever the capability says?  Once
 *                             the destination is connected.
 *
 * @resume: a paused post-copy goes on; its strategy stays.
 */
bool strategy_check(const MigrationAddress *addr, bool resume, Error **errp);
void strategy_begin(bool resume);
bool strategy_needs_return_path(void);

/*
 * The loop of the migration thread; see migration/strategy/run.h.
 *
 * strategy_sync_due: read the dirty log now?  @fits: the estimate of the
 *                    rest is below the threshold.
 * strategy_step: may the migration complete?  Orders the switch to
 *                post-copy.  @fits: the rest is below the threshold.
 * strategy_switch_due: switch to post-copy?
 * strategy_iterates: should RAM send anything?  @requested: the guest
 *                    waits for pages.
 * strategy_idle: sleep until the guest asks for a page?
 */
bool strategy_sync_due(bool fits);
bool strategy_step(bool fits);
bool strategy_switch_due(void);
bool strategy_iterates(bool requested);
bool strategy_idle(void);

/*
 * strategy_demand_only: leave pages alone that nobody asked for?
 *
 * Asked for each page that is looked for.
 */
extern bool strategy_demand_only_now;

static inline bool strategy_demand_only(void)
{
    return qatomic_read(&strategy_demand_only_now);
}

/* strategy_delta_cache_size: XBZRLE cache when it is sized by itself, bytes */
uint64_t strategy_delta_cache_size(void);

/*
 * strategy_section_wanted: is @idstr a section of ours that the stream
 * names for the first time?  Registers it then.
 */
bool strategy_section_wanted(const char *idstr);

/*
 * strategy_stays_stopped: is the guest, at the start of post-copy at the
 * destination, to stay as its user stopped it?  With a strategy only.
 */
bool strategy_stays_stopped(void);

/* strategy_query: for query-migrate; the caller owns the result, or NULL */
RamStrategyInfo *strategy_query(void);

/*
 * HMP.
 *
 * strategy_hmp_migrate: take over the flags -p and -n until
 *                       strategy_hmp_migrate_done().
 * strategy_hmp_info: the part of `info migrate`.
 * strategy_hmp_parameter: the part of `info migrate_parameters`.
 */
bool strategy_hmp_migrate(const QDict *args, Error **errp);
void strategy_hmp_migrate_done(void);
void strategy_hmp_info(Monitor *mon, const RamStrategyInfo *info);
void strategy_hmp_parameter(Monitor *mon, const RamStrategy *param);

#endif
