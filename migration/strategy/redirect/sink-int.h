/*
 * Redirect: what the sink's own files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sink.c has the life of the sink and of its connections and their bytes,
 * sink-request.c what messages do.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_SINK_INT_H
#define MIGRATION_STRATEGY_REDIRECT_SINK_INT_H

#include "qemu/event_notifier.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "../../memserver/codec.h"
#include "sink.h"

/*
 * Pages read at once: what the cache still has when they are copied, and what
 * a link of 1 Mbit/s brings before the relay seems to be stalled
 */
#define SINK_READ_PAGES         16

struct RedirectSink {
    /* Constant */
    RedirectSession session;
    RedirectBlocks blocks;
    RedirectMerge *merge;
    QCryptoTLSCreds *tls_creds;
    char *tls_authz;
    void (*report)(const void *buf, size_t len, void *opaque);
    void (*received)(unsigned block, uint64_t page, void *opaque);
    void *opaque;
    char *address;
    QIOChannelSocket *listener; /* or NULL */
    QemuThread acceptor;
    EventNotifier stop;         /* readable once the sink stops */

    uint64_t bytes;             /* atomic */
    /* BLOCKs that were made known; atomic, bit by bit */
    unsigned long known[PAGELINK_MAX_BLOCKS / BITS_PER_LONG];

    QemuMutex lock;
    QemuCond idle;              /* connections has become 0 */
    /* Under the lock */
    unsigned connections;       /* threads that may use the sink */
    QTAILQ_HEAD(, SinkConn) conns;  /* theirs, oldest first */
    unsigned joined;            /* connections that said HELLO */
    bool stopping;
    bool ended;                 /* SESSION_END came */
    /* REDIRECT_RELAY_*, 0: nobody came yet; read atomically without it */
    uint16_t state;
    int64_t start_ms, end_ms;   /* of the relay; 0: not yet */
};

/* A connection; belongs to its thread */
typedef struct SinkConn {
    RedirectSink *sink;
    QIOChannelSocket *sioc;
    QIOChannel *ioc;            /* the socket, or TLS over it */
    QTAILQ_ENTRY(SinkConn) next;    /* under the sink's lock */
    int64_t hello_end_ms;       /* it must have joined by then */
    bool joined;                /* written under the sink's lock */
    bool fatal;                 /* fault is to be sent, then nothing more */
    PageLinkFault fault;
    uint64_t fault_id;
    PageLinkAck ack;

    PageLinkHeader head;
    uint8_t table[PAGELINK_MAX_TABLE + 1];
    PageLinkEntry entries[PAGELINK_MAX_BATCH];
    uint8_t *pages;             /* SINK_READ_PAGES; NULL until joined */
    uint8_t *next_page;         /* in pages */

    /* Taken but not yet reported */
    RedirectBitmap have;        /* n == 0: none */
    uint8_t have_bits[REDIRECT_MAX_HAVE_PAGES / 8];
    int64_t have_since_ms;
    int64_t figures_ms;         /* when figures were last sent */
} SinkConn;

/*
 * sink_read, sink_write: all of it
 *
 * @timeout_ms: how long nothing may move; -1: for ever
 *
 * Returns: false when the connection is of no use any more, or the sink stops
 */
bool sink_read(SinkConn *c, void *buf, size_t len, int timeout_ms);
bool sink_write(SinkConn *c, const void *buf, size_t len);

/* sink_reply: send a message; @buf has room for the header before the body */
bool sink_reply(SinkConn *c, uint8_t *buf, uint16_t type, uint16_t flags,
                uint32_t length);

/* sink_fail: the connection ends with c->fault; returns false */
bool sink_fail(SinkConn *c);

/*
 * sink_report_have: tell the source what was taken, if anything was
 * sink_report_due: only if it is time to
 */
void sink_report_have(SinkConn *c);
void sink_report_due(SinkConn *c);

/*
 * sink_accepts: may the message whose header is in c->head come now?  If not,
 * c->fault says why.
 */
bool sink_accepts(SinkConn *c);

/*
 * sink_hello, sink_request: act on the message in c->head and c->table
 *
 * Returns: false when the connection is to end
 */
bool sink_hello(SinkConn *c);
bool sink_request(SinkConn *c);

/* sink_join, sink_end_session: what the source is told of */
void sink_join(SinkConn *c);
void sink_end_session(SinkConn *c);

#endif
