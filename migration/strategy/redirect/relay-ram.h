/*
 * Redirect: the relay of this QEMU's guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Takes the source's order out of the main stream, and runs relay.h over the
 * guest memory that has come in.  Main thread with the BQL, as the incoming
 * coroutine, but where it says otherwise.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_RELAY_RAM_H
#define MIGRATION_STRATEGY_REDIRECT_RELAY_RAM_H

#include "qapi/qapi-types-strategy.h"
#include "../message.h"

/*
 * redirect_relay_message: take in ORDER, BLOCKS or BITMAP
 *
 * Nothing happens yet.
 */
bool redirect_relay_message(const StrategyMessage *m, Error **errp);

/* redirect_relay_ordered: has a whole order come in that was not begun? */
bool redirect_relay_ordered(void);

/*
 * redirect_relay_begin: carry it out; the main stream is over
 *
 * When the relay has ended, in whatever way, guest memory is given back, then
 * MIGRATION_REDIRECTED is emitted and @done called, in the main loop.  Until
 * then, yank of the instance "migration" ends it.
 */
void redirect_relay_begin(void (*done)(void));

/* redirect_relay_running: guest memory is being read or given back */
bool redirect_relay_running(void);

/* redirect_relay_info: figures of the last relay; NULL when there was none */
RamStrategyRedirectInfo *redirect_relay_info(void);

#endif
