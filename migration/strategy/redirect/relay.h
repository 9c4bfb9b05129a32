/*
 * Redirect: the old destination, which sends what it holds to the new one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A client of a page link (docs/interop/pagelink.rst): PUTs the pages that it
 * owes in ascending order, asks every now and then what has arrived there
 * from the source, so as not to send that, and gives memory back once a SYNC
 * says that it has arrived.  A connection that fails leaves its part to the
 * others; the relay fails with the last one.
 *
 * Threads: one for each connection, and none of them takes the BQL.  Memory
 * of the regions must not be written while the relay runs.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_RELAY_H
#define MIGRATION_STRATEGY_REDIRECT_RELAY_H

#include "crypto/tlscreds.h"
#include "qapi/qapi-types-strategy.h"
#include "wire.h"

typedef struct RedirectRelaySender RedirectRelaySender;

typedef struct RedirectRelayRegion {
    char *name;                 /* as in BLOCK */
    void *host;
    uint64_t pages;
    unsigned long *owed;        /* bitmap */
} RedirectRelayRegion;

/* What it is doing, or how it ended */
typedef enum RedirectRelayStatus {
    REDIRECT_RELAY_STATUS_CONNECTING,
    REDIRECT_RELAY_STATUS_ACTIVE,
    REDIRECT_RELAY_STATUS_COMPLETED,    /* all that it owed has arrived */
    REDIRECT_RELAY_STATUS_RELEASED,     /* it was not needed any more */
    REDIRECT_RELAY_STATUS_FAILED,
    REDIRECT_RELAY_STATUS_CANCELLED,
} RedirectRelayStatus;

typedef struct RedirectRelayFigures {
    RedirectRelayStatus status;
    uint64_t owed;              /* pages, by the order */
    uint64_t pages;             /* sent, zero pages included */
    uint64_t zero;
    uint64_t skipped;           /* not sent, as they were there */
    uint64_t dropped;           /* sent, but acknowledged as there already */
    uint64_t bytes;             /* sent */
    uint64_t rate;              /* bytes a second, over all the time */
    char *error;                /* why it failed, or NULL; g_free() */
} RedirectRelayFigures;

typedef struct RedirectRelayOptions {
    RedirectSession session;
    const SocketAddress *addr;      /* copied */
    QCryptoTLSCreds *tls_creds;     /* of the client's endpoint, or NULL */
    const char *tls_hostname;       /* or NULL */
    unsigned connections;           /* 1 to 8 */
    RedirectRelayRegion *regions;   /* taken over, with what they own */
    unsigned nregions;

    int64_t retry_ms;               /* tries so long to connect */

    /*
     * max_rate: bytes a second that all connections send at most, 0 for no
     *           limit; asked again and again, on the relay's threads; or NULL
     * release: pages @first to @first + @n - 1 of @region are not needed any
     *          more, as they have arrived or (!@arrived) were never owed; on
     *          the relay's threads, without locks; or NULL.  Returns false
     *          to cancel the relay.
     * done: the relay has ended; in the main loop.  Not called after
     *       redirect_relay_free().
     */
    uint64_t (*max_rate)(void *opaque);
    bool (*release)(unsigned region, uint64_t first, uint64_t n, bool arrived,
                    void *opaque);
    void (*done)(void *opaque);
    void *opaque;
} RedirectRelayOptions;

/* redirect_relay_start: begin; takes over @options->regions */
RedirectRelaySender *redirect_relay_start(const RedirectRelayOptions *options);

/* redirect_relay_cancel: end soon, in status CANCELLED; any thread */
void redirect_relay_cancel(RedirectRelaySender *r);

/* redirect_relay_query: any thread; the caller frees @figures->error */
void redirect_relay_query(RedirectRelaySender *r,
                          RedirectRelayFigures *figures);

/* redirect_relay_free: cancel, wait, free; main thread; NULL will do */
void redirect_relay_free(RedirectRelaySender *r);

#endif
