/*
 * Redirect: the source's side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A migration of which the destination changes while it runs.  What the old
 * destination has it sends to the new one by itself, as the relay (relay.h);
 * the source sends what is dirty, and in the end what the relay could not.
 * docs/devel/migration/redirect.rst has the protocol and its states.
 *
 * The monitor's coroutine connects and hands the channel over; everything
 * else happens on the migration thread, between two turns of its loop.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_REDIRECT_H
#define MIGRATION_STRATEGY_REDIRECT_REDIRECT_H

#include "migration/qemu-file.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-strategy.h"

/* redirect_init: once, when the migration objects are made */
void redirect_init(void);

/*
 * redirect_begin: a migration starts; main thread, BQL
 *
 * @addr: where it goes; copied
 */
void redirect_begin(const MigrationAddress *addr, bool redirectable);

/* redirect_end: it is over; main thread, BQL; idempotent */
void redirect_end(void);

/*
 * redirect_safe_point: begin a redirect that was ordered, or go on with it
 *
 * Migration thread, at the start of each turn, in pre-copy.
 *
 * Returns: may the dirty log be read?  Not in a turn that took pages over, and
 *          while redirect_holds() only once in a while, as nothing can end.
 */
bool redirect_safe_point(void);

/*
 * redirect_waits: has the source nothing but what it took over?
 *
 * Migration thread.  A pass is not over then: the relay is still at it.
 */
bool redirect_waits(void);

/*
 * redirect_survives_error: the stream is broken; does it go on elsewhere?
 *
 * Migration thread.  It is when a redirect has broken an old destination off
 * that hangs, and the new one is ready; may take seconds.
 */
bool redirect_survives_error(void);

/*
 * redirect_holds: may the guest not yet leave?
 *
 * Migration thread.  True while a redirect is on its way, and while the relay
 * owes pages.
 */
bool redirect_holds(void);

/*
 * redirect_relay_sends: does the relay owe pages?  Any thread.
 */
bool redirect_relay_sends(void);

/*
 * redirect_idle: is there nothing to do until the relay has sent more?
 *
 * Migration thread; it sleeps then.
 */
bool redirect_idle(void);

/* redirect_synced: the dirty log was read; on the thread that read it */
void redirect_synced(void);

/* redirect_happened: was this migration redirected?  Migration thread */
bool redirect_happened(void);

/* redirect_message: something came on the return path; its thread */
bool redirect_message(const uint8_t *buf, size_t len, Error **errp);

/* redirect_query: BQL; the caller owns the result; NULL: there was none */
RamStrategyRedirectInfo *redirect_query(void);

#endif
