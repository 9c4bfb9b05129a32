/*
 * Redirect: the destinations' side of the main stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The new destination learns from its set-up that a relay will come, and has
 * a sink for it (sink-ram.h) up to the end of pre-copy.  The old one stops to
 * load by order of the source, becomes the relay (relay-ram.h), and after
 * that is as if no migration had ever come in.
 *
 * Main thread with the BQL, in the incoming coroutine.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_INCOMING_H
#define MIGRATION_STRATEGY_REDIRECT_INCOMING_H

#include "qapi/qapi-types-strategy.h"
#include "../message.h"

/* redirect_incoming_knows: is a message of @type one of a redirect? */
bool redirect_incoming_knows(uint16_t type);

/* redirect_incoming_message: take it in */
bool redirect_incoming_message(const StrategyMessage *m, Error **errp);

/* redirect_incoming_cleanup: the load is over, however it went; idempotent */
void redirect_incoming_cleanup(void);

/*
 * redirect_incoming_check: between two sections of @f: a source that has gone
 * away, by the user's cancel or otherwise, runs the guest, or will when it is
 * there again.  From the last message of a redirect on, this fails the load
 * then, which may have all it needs in its buffers.
 */
void redirect_incoming_check(QEMUFile *f);

/* redirect_incoming_ends: has the source ordered to become the relay? */
bool redirect_incoming_ends(void);

/*
 * redirect_incoming_ended: if so, give up the incoming migration, and begin
 *
 * Returns: whether it was so
 */
bool redirect_incoming_ended(void);

/* redirect_incoming_again: can there be another incoming migration? */
bool redirect_incoming_again(void);

/* redirect_incoming_query: the caller owns it; NULL: there was no redirect */
RamStrategyRedirectInfo *redirect_incoming_query(void);

#endif
