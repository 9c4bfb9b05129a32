/*
 * Redirect: where the relay's pages arrive, at the new destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server side of a page link (docs/interop/pagelink.rst) with a listener
 * of its own and one session, which exists from the start.  What arrives goes
 * through the merge (merge.h) into guest memory; what was taken is reported
 * to the source.
 *
 * Threads: one that accepts, one for each connection.  None of them takes the
 * BQL or needs the main loop, since that one loads the source's pages.
 *
 * Rejected: connections on the main loop (see there); the server of
 * qemu-memserver (it stores pages that come in any order and are asked for;
 * here each has its place, and nobody asks).
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_SINK_H
#define MIGRATION_STRATEGY_REDIRECT_SINK_H

#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "merge.h"
#include "wire.h"

#define REDIRECT_SINK_MAX_CONNECTIONS   8
#define REDIRECT_SINK_HELLO_MS          10000
#define REDIRECT_SINK_STALL_MS          60000
/* How long what was taken may wait before it is reported */
#define REDIRECT_SINK_REPORT_MS         25

typedef struct RedirectSink RedirectSink;

typedef struct RedirectSinkOptions {
    RedirectSession session;    /* copied */
    const RedirectBlocks *blocks;   /* copied */
    RedirectMerge *merge;       /* a region for each block; the caller's */
    const SocketAddress *listen;    /* port 0 for any; NULL: no listener */
    QCryptoTLSCreds *tls_creds; /* of the server's endpoint, or NULL */
    const char *tls_authz;      /* or NULL */

    /*
     * Both on the threads of connections.
     *
     * report: send a message of wire.h to the source
     * received: @page of region @block was taken; or NULL
     */
    void (*report)(const void *buf, size_t len, void *opaque);
    void (*received)(unsigned block, uint64_t page, void *opaque);
    void *opaque;
} RedirectSinkOptions;

/*
 * redirect_sink_new: listen, and take pages from then on
 *
 * Returns: NULL on error
 */
RedirectSink *redirect_sink_new(const RedirectSinkOptions *options,
                                Error **errp);

/* redirect_sink_address: where it listens, as in READY; stays the sink's */
const char *redirect_sink_address(const RedirectSink *sink);

/* redirect_sink_add_channel: as if it had been accepted; for tests */
void redirect_sink_add_channel(RedirectSink *sink, QIOChannelSocket *sioc);

/* redirect_sink_query: figures; safe from any thread */
void redirect_sink_query(RedirectSink *sink, RedirectRelay *relay);

/*
 * redirect_sink_rate: mean of the relay so far, or while it was there, bytes of
 * guest memory a second; safe from any thread
 */
uint64_t redirect_sink_rate(RedirectSink *sink);

/*
 * redirect_sink_free: stop; NULL will do
 *
 * When it returns, no page is being written, none will be, and no callback
 * runs.  Peers are told that they are not needed any more; a thread may for a
 * moment stay behind for that.
 */
void redirect_sink_free(RedirectSink *sink);

#endif
