/*
 * Redirect: the channel to a new destination, before the stream goes there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_CHANNEL_H
#define MIGRATION_STRATEGY_REDIRECT_CHANNEL_H

#include "io/channel.h"
#include "qapi/qapi-types-sockets.h"
#include "wire.h"

/*
 * RedirectConnect: connect, with the TLS handshake if the migration uses TLS,
 * on a thread of its own: neither the monitor nor the migration waits for a
 * host that does not answer.
 */
typedef struct RedirectConnect RedirectConnect;

/*
 * redirect_connect_start: begin; main thread, BQL
 *
 * @not_to: the channel that there is: an address that turns out to be the one
 *          where this leads to is not connected to, as who listens there may
 *          take the connection for another one of the migration
 * @done: called in the main loop when it has ended, once, unless
 *        redirect_connect_drop() was called before
 *
 * Returns: NULL if it cannot even be tried
 */
RedirectConnect *redirect_connect_start(const SocketAddress *addr,
                                        QIOChannel *not_to,
                                        void (*done)(void *opaque),
                                        void *opaque, Error **errp);

/*
 * redirect_connect_take: the channel, after @done
 *
 * Returns: a reference, or NULL and why
 */
QIOChannel *redirect_connect_take(RedirectConnect *c, Error **errp);

/* redirect_connect_drop: give up or forget; main thread; NULL will do */
void redirect_connect_drop(RedirectConnect *c);

/* redirect_same_peer: do both channels lead to the same socket? */
bool redirect_same_peer(QIOChannel *a, QIOChannel *b);

/*
 * redirect_peer_left: has the other side closed @ioc, although there may still
 * be something to read?  False when that is not known.  Any thread.
 */
bool redirect_peer_left(QIOChannel *ioc);

/*
 * redirect_unsent: bytes that were written to @ioc, but which the other host
 * has not taken; 0 when that is not known.  Any thread.
 */
uint64_t redirect_unsent(QIOChannel *ioc);

/*
 * RedirectHandshake: send the new destination the set-up, wait for its answer
 *
 * A thread writes, so that nobody else waits for a host that does not read,
 * and reads what comes on the return path up to READY, and nothing beyond it.
 */
typedef struct RedirectHandshake RedirectHandshake;

typedef enum RedirectAnswer {
    REDIRECT_ANSWER_NONE,       /* not yet */
    REDIRECT_ANSWER_READY,
    REDIRECT_ANSWER_NO,         /* it refused, or went away */
} RedirectAnswer;

/*
 * redirect_handshake_start: @ioc, which blocks, must outlive it
 *
 * @setup: taken over, g_free()
 * @ping: so many bytes of it come first; they end with a PING, by which the
 *        round trip is measured
 */
RedirectHandshake *redirect_handshake_start(QIOChannel *ioc, uint8_t *setup,
                                            size_t len, size_t ping);

/*
 * redirect_handshake_poll: any thread
 *
 * @ready: set with REDIRECT_ANSWER_READY
 * @rtt_ms: of a PING, likewise; or NULL
 * @errp: set with REDIRECT_ANSWER_NO
 */
RedirectAnswer redirect_handshake_poll(RedirectHandshake *h,
                                       RedirectReady *ready, int64_t *rtt_ms,
                                       Error **errp);

/*
 * redirect_handshake_free: without an answer this breaks the channel off;
 * NULL will do
 */
void redirect_handshake_free(RedirectHandshake *h);

#endif
