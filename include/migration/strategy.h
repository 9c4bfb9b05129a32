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
#include "exec/cpu-common.h"
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
void strategy_begin(const MigrationAddress *addr, bool resume);
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
 * strategy_route_page: does the page at @offset of @block go elsewhere?
 *
 * Migration thread, RCU read lock, for each page that is about to be saved.
 * 0: no, save it; 1: yes, and it is on its way, or could not be taken now and
 * is dirty again when this turn of RAM is over; negative: the migration fails.
 *
 * strategy_route_blocked: end this turn of RAM, since hardly any page can be
 *                         taken?
 */
extern bool strategy_routes_pages;
extern bool strategy_routes_blocked;
int strategy_do_route_page(RAMBlock *block, ram_addr_t offset);

static inline int strategy_route_page(RAMBlock *block, ram_addr_t offset)
{
    return unlikely(qatomic_read(&strategy_routes_pages)) ?
           strategy_do_route_page(block, offset) : 0;
}

static inline bool strategy_route_blocked(void)
{
    return unlikely(qatomic_read(&strategy_routes_blocked));
}

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
 * Redirect: the destination changes while the migration runs; see
 * docs/devel/migration/redirect.rst.
 *
 * STRATEGY_RP_TYPE: type of our messages on the return path.
 *
 * At the source:
 * strategy_repeats_setup_now: the sections are set up once more, for
 *                             another destination.  Migration thread.
 * strategy_survives_error: the stream is broken: does it go on to another
 *                          destination?  Migration thread.
 * strategy_return_path_message: one came.  Thread of the return path.
 *
 * At the old destination, in the incoming coroutine:
 * strategy_load_ends: is there nothing more to load, by the source's order?
 * strategy_load_ended: if so, give up what the load needed.
 * strategy_incoming_again: may there be another migrate-incoming?
 *
 * At the new destination:
 * strategy_page_from_source: the source sends @offset in @block; before
 *                            it is written.  @flags are those of its header,
 *                            which was read from @f.  Thread that loads RAM.
 */
#define STRATEGY_RP_TYPE 9

extern bool strategy_repeats_setup_now;
bool strategy_survives_error(void);
extern bool redirect_sink_active;

static inline bool strategy_repeats_setup(void)
{
    return strategy_repeats_setup_now;
}

bool strategy_return_path_message(const uint8_t *buf, size_t len,
                                  Error **errp);
bool strategy_load_ends(void);
bool strategy_load_ended(void);
bool strategy_incoming_again(void);
void strategy_note_page(QEMUFile *f, int flags, RAMBlock *block,
                        ram_addr_t offset);

static inline void strategy_page_from_source(QEMUFile *f, int flags,
                                             RAMBlock *block,
                                             ram_addr_t offset)
{
    if (unlikely(redirect_sink_active)) {
        strategy_note_page(f, flags, block, offset);
    }
}

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

/*
 * strategy_page_requested: the destination asked for one more page, and
 * @in_flight have not come yet.  Any thread, under page_request_mutex.
 */
void strategy_page_requested(uint32_t in_flight);

/*
 * Split memory, while the VM runs at the main host.  With the BQL.
 *
 * strategy_memory_is_remote: is some of the VM's memory on memory hosts?
 *                            Any thread.
 * strategy_vcpu_stuck: does @cpu's thread wait for a page of a memory host
 *                      that is lost?  It runs nothing until
 *                      strategy_vcpus_resumed().
 * strategy_vm_can_reset: false while a memory host is away, or some vCPU may be
 *                        in the middle of an access to a page of one, or the
 *                        source of a migration has read its RAM for the last
 *                        time and waits for memory hosts: a reset waits until
 *                        that has ended.  Brings vCPUs to a stop if a reset is
 *                        requested.
 * strategy_vcpus_resumed: no vCPU needs to stay stopped any more.
 * strategy_vm_stopping: the vCPUs have stopped.  True if devices must not be told
 *                       so, as some wait for their requests, and these for pages
 *                       that are lost: they are told when the pages are back.
 *                       May take as long as it takes to find a host lost.
 * strategy_vm_stopped: somebody has stopped the VM.  True if he must not wait
 *                      for block devices, whose requests may wait for pages
 *                      that are lost.
 */
bool strategy_memory_is_remote(void);
bool strategy_vcpu_stuck(const CPUState *cpu);
bool strategy_vm_can_reset(void);
void strategy_vcpus_resumed(void);
bool strategy_vm_stopping(void);
bool strategy_vm_stopped(void);

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
