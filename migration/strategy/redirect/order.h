/*
 * Redirect: the order to the old destination, to become the relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Its parts are parts of the section "ram-strategy".  Migration thread, if
 * nothing else is said.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_ORDER_H
#define MIGRATION_STRATEGY_REDIRECT_ORDER_H

#include "migration/qemu-file.h"
#include "owed.h"
#include "wire.h"

/* redirect_order_init: once, when the migration objects are made */
void redirect_order_init(void);

/*
 * redirect_order_send: order what is @owed
 *
 * @ready: the answer of the new destination
 * @hostname: its name for TLS, or NULL
 *
 * Returns whether the old destination was told; it is lost otherwise.
 */
bool redirect_order_send(const RedirectBlocks *blocks, RedirectOwed *owed,
                         const RedirectReady *ready, const char *hostname);

/*
 * redirect_order_accepted: wait until the old destination has got all, so that
 * its channel can be closed; false when it does not say so, and takes nothing
 * for REDIRECT_ACCEPT_MS
 */
bool redirect_order_accepted(void);

/* redirect_order_note_accepted: it says so; any thread */
void redirect_order_note_accepted(void);

/*
 * redirect_orders: is the order being written?
 *
 * Then RAM must keep still, and redirect_save_order() is due.
 */
bool redirect_orders(void);

/* redirect_save_order: a part of it */
void redirect_save_order(QEMUFile *f);

#endif
