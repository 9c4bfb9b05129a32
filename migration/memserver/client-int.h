/*
 * Page link: what the client's own files share
 *
 * client.c has the connection and its bytes, client-calls.c the requests.
 * Everything belongs to the thread that has the client.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CLIENT_INT_H
#define MEMSERVER_CLIENT_INT_H

#include "io/channel.h"
#include "qemu/queue.h"
#include "qemu/units.h"
#include "client.h"

#define IN_SIZE                 (16 * KiB)
#define READ_PAGES              PAGELINK_MAX_DATA_BATCH

/* A request without its answer */
typedef struct PageLinkOp {
    QSIMPLEQ_ENTRY(PageLinkOp) next;
    uint16_t answer;            /* type of the message that answers it */
    uint64_t id;
    PageLinkDone *done;
    void *opaque;
    PageLinkPage *pages;        /* GET */
    unsigned n, filled;
    PageLinkAck *ack;           /* SYNC */
    void **body;                /* others: the answer's body, or NULL */
    PageLinkHeader *head;       /* and its header */
    bool failed;
    PageLinkFault fault;
} PageLinkOp;

typedef QSIMPLEQ_HEAD(, PageLinkOp) PageLinkOpList;

struct PageLinkClient {
    QIOChannelSocket *sioc;
    QIOChannel *ioc;
    char *peer;
    int timeout_ms;
    PageLinkHelloAck info;
    uint64_t next_id;
    PageLinkFault failure;      /* code is 0 while all is well */

    PageLinkOpList ops;         /* sent */
    PageLinkOpList finished;    /* callback not yet called */
    unsigned nops;
    bool sending;               /* in the middle of a message */
    bool calling;               /* in a callback */
    bool put_refused;           /* an ERROR that answers no op */
    bool told;                  /* failure is what the peer said */
    PageLinkFault put_fault;
    uint32_t refusal;           /* code of what a sync failed with */

    /* Receiving */
    uint8_t *in;                /* IN_SIZE bytes */
    size_t in_pos, in_end;
    PageLinkHeader head;
    bool have_head;
    uint8_t *body;              /* of a message without pages */
    size_t body_fill;
    PageLinkEntry entries[PAGELINK_MAX_DATA_BATCH];
    unsigned next_entry;        /* whose page comes next */
    size_t page_fill;
    bool in_pages;
};

/* For callers that wait */
typedef struct Waiter {
    bool done;
    bool failed;
    PageLinkFault fault;
} Waiter;

/**
 * pagelink_client_report: turn a refusal into an Error; returns false
 */
bool pagelink_client_report(const PageLinkFault *fault, const char *peer,
                            Error **errp);

/**
 * pagelink_client_fail: the connection is of no use any more
 */
void pagelink_client_fail(PageLinkClient *c, const PageLinkFault *fault);
bool pagelink_client_fail_text(PageLinkClient *c, uint32_t code,
                               const char *text);

/**
 * pagelink_client_ready: false, with @errp set, if it has failed
 */
bool pagelink_client_ready(PageLinkClient *c, Error **errp);

/**
 * pagelink_op_new: note a request as sent, before it is: its answer may come
 * while the end of it still goes out
 */
PageLinkOp *pagelink_op_new(PageLinkClient *c, uint16_t answer, uint64_t id,
                            PageLinkDone *done, void *opaque);

/**
 * pagelink_client_send: all of it; takes in answers meanwhile, or both sides
 * might wait for ever
 */
bool pagelink_client_send(PageLinkClient *c, struct iovec *iov, unsigned niov,
                          Error **errp);

/**
 * pagelink_client_await: until @w, which pagelink_waiter_done() completes
 */
bool pagelink_client_await(PageLinkClient *c, Waiter *w, Error **errp);
void pagelink_waiter_done(void *opaque, const PageLinkFault *error);

/**
 * pagelink_client_call: send a request, wait, return the answer's body
 * @buf: room for the header, then the body of @length bytes
 * @answer: set to the body, to be freed with g_free(), or NULL
 */
bool pagelink_client_call(PageLinkClient *c, uint8_t *buf, uint16_t type,
                          uint16_t flags, uint32_t length,
                          uint16_t answer_type, void **answer,
                          PageLinkHeader *head, Error **errp);

#endif /* MEMSERVER_CLIENT_INT_H */
