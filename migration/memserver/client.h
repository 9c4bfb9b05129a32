/*
 * Page link: client
 *
 * One connection to whoever serves pages.  Used by the source's sender
 * threads, the remote pager, the relay and qemu-memserver's own self-test.
 *
 * Guarantees: requests are answered in the order in which they were sent; data
 * is read straight into the caller's buffers; no call waits longer than the
 * timeout without a byte moving; after a failure every outstanding request is
 * completed as failed, and every later call fails at once with the same
 * reason.  Reconnecting is the caller's decision: it alone knows what to do
 * meanwhile.
 *
 * Threads: a client belongs to one thread, except for
 * pagelink_client_shutdown(), which any thread may call (yank).  Several
 * threads, or demand beside background, use several clients.
 *
 * Rejected: a receiver thread for each connection (a switch of threads for
 * each fault); a main loop (the pager has its own); coroutines (their users
 * are threads).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CLIENT_H
#define MEMSERVER_CLIENT_H

#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "codec.h"

typedef struct PageLinkClient PageLinkClient;

typedef struct PageLinkClientOptions {
    SocketAddress *addr;        /* where to connect to, or NULL and... */
    QIOChannelSocket *sioc;     /* ...a socket that is connected */
    QCryptoTLSCreds *tls_creds; /* or NULL */
    const char *tls_hostname;   /* or NULL: the host of addr */
    uint8_t role;               /* PAGELINK_ROLE_* */
    uint8_t class;              /* PAGELINK_CLASS_* */
    uint16_t flags;             /* PAGELINK_HELLO_* */
    uint64_t epoch;
    uint8_t uuid[PAGELINK_UUID_SIZE];
    uint8_t key[PAGELINK_KEY_SIZE];
    const char *name;           /* for status displays, or NULL */
    uint32_t features;          /* wanted */
    int timeout_ms;             /* 0: PAGELINK_CLIENT_TIMEOUT_MS */
    int connect_timeout_ms;     /* until HELLO's answer; 0: as the other */
    uint32_t *refused;          /* set if that is ERROR, to its code; or NULL */
} PageLinkClientOptions;

#define PAGELINK_CLIENT_TIMEOUT_MS      30000

typedef struct PageLinkPage {
    uint16_t block;
    uint16_t flags;             /* PAGELINK_ENTRY_*; set by a GET */
    uint64_t page;
    uint64_t version;           /* set by a GET */
    /*
     * PUT: content, or NULL for a zero page.  GET: where to put it; not
     * touched for zero and absent pages.
     */
    void *data;
} PageLinkPage;

/**
 * pagelink_prepare_socket: non-blocking, no delay, and probes of idle links
 * @idle: seconds without traffic before the first probe
 * @interval: between probes, of which four may be in vain
 *
 * A peer that vanished without a word must not stay for ever.  Both ends.
 */
void pagelink_prepare_socket(QIOChannelSocket *sioc, int idle, int interval);

/**
 * PageLinkDone: a request is complete
 * @error: NULL, or what went wrong; valid during the call
 *
 * May send further requests, must not free the client.
 */
typedef void PageLinkDone(void *opaque, const PageLinkFault *error);

/**
 * pagelink_client_connect: connect, shake hands, say HELLO
 *
 * Each of the three within the timeout.  A connection that was not made in time
 * leaves a thread behind, which ends when the kernel gives up, too.
 */
PageLinkClient *pagelink_client_connect(const PageLinkClientOptions *options,
                                        Error **errp);

/**
 * pagelink_client_free: close; outstanding requests complete as failed
 */
void pagelink_client_free(PageLinkClient *c);

/**
 * pagelink_client_shutdown: make all present and future calls fail (any thread)
 */
void pagelink_client_shutdown(PageLinkClient *c);

/**
 * pagelink_client_set_timeout: for calls from now on
 * @timeout_ms: more than 0
 */
void pagelink_client_set_timeout(PageLinkClient *c, int timeout_ms);

/**
 * pagelink_client_info: what the server said in its HELLO_ACK
 */
const PageLinkHelloAck *pagelink_client_info(const PageLinkClient *c);

/**
 * pagelink_client_fd: for the caller's poll(); readable: call
 * pagelink_client_poll()
 */
int pagelink_client_fd(const PageLinkClient *c);

/**
 * pagelink_client_outstanding: number of requests without an answer so far
 */
unsigned pagelink_client_outstanding(const PageLinkClient *c);

/**
 * pagelink_client_refusal: why the last pagelink_client_sync() that failed did,
 * PAGELINK_ERR_*, or 0
 */
uint32_t pagelink_client_refusal(const PageLinkClient *c);

/**
 * pagelink_client_failure: why the connection has failed, PAGELINK_ERR_*, or 0
 */
uint32_t pagelink_client_failure(const PageLinkClient *c);

/**
 * pagelink_client_poll: handle what has arrived
 * @timeout_ms: how long to wait for something, 0: not at all, -1: for ever
 *
 * Returns: false if the connection has failed
 */
bool pagelink_client_poll(PageLinkClient *c, int timeout_ms, Error **errp);

/**
 * pagelink_client_put: send pages; there is no answer unless one is refused
 * @n: 1 to pagelink_client_info()->max_batch
 *
 * Returns when the buffers can be reused; pages are safe only after
 * pagelink_client_sync().
 */
bool pagelink_client_put(PageLinkClient *c, const PageLinkPage *pages,
                         unsigned n, Error **errp);

/**
 * pagelink_client_get_async: ask for pages
 * @pages: must stay until @done is called
 */
bool pagelink_client_get_async(PageLinkClient *c, PageLinkPage *pages,
                               unsigned n, PageLinkDone *done, void *opaque,
                               Error **errp);

/**
 * pagelink_client_get: ask for pages and wait for them
 */
bool pagelink_client_get(PageLinkClient *c, PageLinkPage *pages, unsigned n,
                         Error **errp);

/**
 * pagelink_client_drop: forget ranges of pages; no answer unless refused
 */
bool pagelink_client_drop(PageLinkClient *c, const PageLinkRange *ranges,
                          unsigned n, Error **errp);

/**
 * pagelink_client_sync: wait until all that was sent has taken effect
 * @ack: what became of it, or NULL
 *
 * Returns: false also if anything sent since the last call was refused
 */
bool pagelink_client_sync(PageLinkClient *c, PageLinkAck *ack, Error **errp);

/**
 * pagelink_client_sync_async: the same without waiting
 * @ack: filled in before @done is called, or NULL
 */
bool pagelink_client_sync_async(PageLinkClient *c, PageLinkAck *ack,
                                PageLinkDone *done, void *opaque,
                                Error **errp);

/**
 * pagelink_client_block: make a block known
 */
bool pagelink_client_block(PageLinkClient *c, uint16_t block, uint64_t pages,
                           const char *name, Error **errp);

/**
 * pagelink_client_bitmap: which pages are held
 * @bits: DIV_ROUND_UP(pages, 8) bytes
 */
bool pagelink_client_bitmap(PageLinkClient *c, uint16_t block, uint64_t first,
                            uint32_t pages, uint8_t *bits, Error **errp);

/**
 * pagelink_client_bitmap_async: the same without waiting
 * @bits: filled in before @done is called, unless that tells of an error
 */
bool pagelink_client_bitmap_async(PageLinkClient *c, uint16_t block,
                                  uint64_t first, uint32_t pages,
                                  uint8_t *bits, PageLinkDone *done,
                                  void *opaque, Error **errp);

/**
 * pagelink_client_status:
 * @all: of all sessions, in the status role
 * @sessions: set to an array, to be freed with g_free(), or NULL
 * @n: set to its length
 */
bool pagelink_client_status(PageLinkClient *c, bool all,
                            PageLinkStatus *status,
                            PageLinkSessionStatus **sessions, uint32_t *n,
                            Error **errp);

/**
 * pagelink_client_end: end the session; returns when its memory is free
 */
bool pagelink_client_end(PageLinkClient *c, Error **errp);

#endif /* MEMSERVER_CLIENT_H */
