/*
 * Redirect: what the user asks for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * migrate-redirect is a coroutine of the main loop: it checks, connects, and
 * leaves the channel to the migration thread, which ends the request with or
 * without an error.  There is at most one request.
 *
 * The user gets an answer in bounded time.  A request that takes too long is
 * withdrawn, and then ended by the migration thread when it comes to it; one
 * that cannot be withdrawn any more, as the old destination was told, is
 * helped along by breaking the old channel off when that does not move.  The
 * same happens to an old destination that hangs before it can be told: its
 * migration would go nowhere, and the new one starts from the beginning.  Once
 * the switchover has begun, nothing is broken off: the guest may be there.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_REQUEST_H
#define MIGRATION_STRATEGY_REDIRECT_REQUEST_H

#include "io/channel.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-sockets.h"

/* To connect to the new destination */
#define REDIRECT_REACH_MS       10000
/* From then on until the answer of the new destination */
#define REDIRECT_ANSWER_MS      10000
/* For the old destination to take note, from the last byte that it took */
#define REDIRECT_ACCEPT_MS      5000
/* It has taken nothing of what it was sent for so long: it hangs */
#define REDIRECT_HUNG_MS        8000

typedef enum RedirectPhase {
    REDIRECT_PHASE_CONNECTING,
    REDIRECT_PHASE_QUEUED,      /* for the safe point */
    REDIRECT_PHASE_PROBING,     /* the new destination loads the set-up */
    REDIRECT_PHASE_COMMITTING,  /* the old one is being told */
    REDIRECT_PHASE_SWAPPED,     /* to_dst_file leads to the new one */
    REDIRECT_PHASE_ENDED,
} RedirectPhase;

/* Constant once it is queued */
typedef struct RedirectRequest {
    SocketAddress *addr;
    char *hostname;             /* for TLS, or NULL */
    QIOChannel *ioc;            /* registered with yank */
    int64_t deadline_ms;        /* until it may be probing, real time */
} RedirectRequest;

/* redirect_request_init: once, when the migration objects are made */
void redirect_request_init(void);

/*
 * redirect_request_pending: the request that is at least queued, or NULL
 *
 * Migration thread; valid until redirect_request_end().
 */
RedirectRequest *redirect_request_pending(RedirectPhase *phase);

/* redirect_request_exists: is there one, in whatever phase?  Any thread */
bool redirect_request_exists(void);

/*
 * redirect_request_broke_off: was the channel to the old destination broken
 * off for the pending request?  Migration thread
 */
bool redirect_request_broke_off(void);

/*
 * redirect_taken_by_old: bytes that the old destination's host has taken so
 * far; grows as long as something moves.  Any thread.
 *
 * @unsent: if not NULL, bytes that it has yet to take
 */
uint64_t redirect_taken_by_old(uint64_t *unsent);

/*
 * redirect_request_advance: go on to @phase
 *
 * Migration thread.  Returns false when the request was withdrawn.
 */
bool redirect_request_advance(RedirectPhase phase);

/*
 * redirect_request_end: it came about, or did not because of @err
 *
 * Migration thread, or main thread when that one is gone.  Takes over @err;
 * with one, the channel is no longer registered with yank.
 */
void redirect_request_end(Error *err);

/* redirect_request_failed: for query-migrate; in redirect.c; any thread */
void redirect_request_failed(const char *why);

/*
 * redirect_request_may: is this migration one that can be redirected?
 *
 * In redirect.c; main thread, BQL.
 *
 * @addr: where to
 */
bool redirect_request_may(const SocketAddress *addr, Error **errp);

#endif
