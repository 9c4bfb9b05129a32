/*
 * memserver: server
 *
 * Listens, runs the I/O threads and owns the sessions.  A library: it never
 * exits, prints only what an operator must know, and can be driven over any
 * socket (tests and fuzzers hand it one end of a socketpair).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SERVER_H
#define MEMSERVER_SERVER_H

#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "io/net-listener.h"
#include "codec.h"

typedef struct MsServer MsServer;

typedef struct MsServerOptions {
    uint64_t max_pages;
    uint64_t session_quota;     /* pages, 0: none */
    uint32_t threads;           /* of each class */
    uint32_t max_connections;   /* with a session; others have own places */
    uint32_t max_sessions;
    uint32_t session_connections;   /* of any one session */
    int64_t expiry_ms;          /* of sessions, 0: never */
    int64_t taken_expiry_ms;    /* of those that were taken over, 0: never */
    int64_t idle_report_ms;
    int64_t stall_ms;           /* a connection in mid-message */
    int64_t hello_ms;           /* for TLS, then again for HELLO */
    bool local_status;          /* the status over unix sockets only */
    QCryptoTLSCreds *tls_creds; /* or NULL */
    const char *tls_authz;      /* or NULL */
} MsServerOptions;

/**
 * ms_server_defaults: sensible values for everything but max_pages
 */
void ms_server_defaults(MsServerOptions *options);

/**
 * ms_server_sockets: how many sockets may be open at a time
 */
uint32_t ms_server_sockets(const MsServerOptions *options);

/**
 * ms_server_new: start the threads
 * @options: copied
 */
MsServer *ms_server_new(const MsServerOptions *options, Error **errp);

/**
 * ms_server_add_listener: accept clients of @listener
 *
 * Accepting and TLS handshakes take place in the default main context, which
 * the caller must run.
 */
void ms_server_add_listener(MsServer *server, QIONetListener *listener);

/**
 * ms_server_add_channel: serve a connected socket, without TLS
 */
void ms_server_add_channel(MsServer *server, QIOChannelSocket *sioc);

/**
 * ms_server_sessions: number of live sessions
 * ms_server_connections: number of connections, handshakes included
 * ms_server_frames: page frames in use anywhere (tests look for leaks)
 */
uint32_t ms_server_sessions(MsServer *server);
uint32_t ms_server_connections(MsServer *server);
uint64_t ms_server_frames(MsServer *server);

/**
 * ms_server_may_stop: somebody asks the process to terminate
 * @refused_ms: when that was last refused, 0: never; updated
 *
 * Pure, any thread.
 *
 * Returns: whether to do so: there are no sessions, or it has been asked for
 *          before, not too long ago to be meant as one
 */
bool ms_server_may_stop(uint32_t sessions, int64_t now_ms,
                        int64_t *refused_ms);

/**
 * ms_server_free: tell all peers, stop all threads, free all
 */
void ms_server_free(MsServer *server);

#endif /* MEMSERVER_SERVER_H */
