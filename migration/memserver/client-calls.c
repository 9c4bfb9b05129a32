/*
 * Page link: the client's requests (see client.h for what it guarantees)
 *
 * Each encodes a message, notes what must answer it, and sends it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "checksum.h"
#include "client-int.h"

bool pagelink_client_put(PageLinkClient *c, const PageLinkPage *pages,
                         unsigned n, Error **errp)
{
    uint8_t head[sizeof(PageLinkHeader) + PAGELINK_MAX_TABLE];
    struct iovec iov[PAGELINK_MAX_BATCH + 1];
    bool crc = c->info.features & PAGELINK_FEATURE_CHECKSUM;
    unsigned niov = 1, i;

    assert(n && n <= c->info.max_batch);
    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    for (i = 0; i < n; i++) {
        PageLinkEntry e = {
            .page = pages[i].page,
            .version = pages[i].version,
            .block = pages[i].block,
        };

        if (!pages[i].data) {
            e.flags = PAGELINK_ENTRY_ZERO;
        } else {
            struct iovec *last = &iov[niov - 1];

            if (crc) {
                e.flags = PAGELINK_ENTRY_CRC;
                e.crc = pagelink_crc32c(pages[i].data);
            }
            if (niov > 1 && (uint8_t *)last->iov_base + last->iov_len ==
                            (uint8_t *)pages[i].data) {
                last->iov_len += PAGELINK_PAGE_SIZE;
            } else {
                iov[niov++] = (struct iovec) {
                    pages[i].data, PAGELINK_PAGE_SIZE
                };
            }
        }
        pagelink_encode_entry(head + sizeof(PageLinkHeader) + i * sizeof(e),
                              &e);
    }
    iov[0] = (struct iovec) {
        head, sizeof(PageLinkHeader) + n * sizeof(PageLinkEntry)
    };
    pagelink_encode_header(head, PAGELINK_PUT, 0,
                           iov_size(iov, niov) - sizeof(PageLinkHeader), n,
                           c->next_id++);
    return pagelink_client_send(c, iov, niov, errp);
}

bool pagelink_client_get_async(PageLinkClient *c, PageLinkPage *pages,
                               unsigned n, PageLinkDone *done, void *opaque,
                               Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader) +
                PAGELINK_MAX_BATCH * sizeof(PageLinkRequest)];
    uint32_t length = n * sizeof(PageLinkRequest);
    struct iovec iov = { buf, sizeof(PageLinkHeader) + length };
    PageLinkOp *op;
    unsigned i;

    assert(n && n <= c->info.max_batch);
    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    for (i = 0; i < n; i++) {
        PageLinkRequest r = {
            .page = pages[i].page, .block = pages[i].block
        };

        pagelink_encode_request(buf + sizeof(PageLinkHeader) +
                                i * sizeof(r), &r);
    }
    pagelink_encode_header(buf, PAGELINK_GET, 0, length, n, c->next_id);
    op = pagelink_op_new(c, PAGELINK_DATA, c->next_id++, done, opaque);
    op->pages = pages;
    op->n = n;
    return pagelink_client_send(c, &iov, 1, errp);
}

bool pagelink_client_get(PageLinkClient *c, PageLinkPage *pages, unsigned n,
                         Error **errp)
{
    Waiter w = { 0 };

    /* Once the request is noted, its completion tells what went wrong */
    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    pagelink_client_get_async(c, pages, n, pagelink_waiter_done, &w, NULL);
    return pagelink_client_await(c, &w, errp);
}

bool pagelink_client_drop(PageLinkClient *c, const PageLinkRange *ranges,
                          unsigned n, Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader) + PAGELINK_MAX_TABLE];
    uint32_t length = n * sizeof(PageLinkRange);
    struct iovec iov = { buf, sizeof(PageLinkHeader) + length };
    unsigned i;

    assert(n && n <= c->info.max_batch);
    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    for (i = 0; i < n; i++) {
        pagelink_encode_range(buf + sizeof(PageLinkHeader) +
                              i * sizeof(PageLinkRange), &ranges[i]);
    }
    pagelink_encode_header(buf, PAGELINK_DROP, 0, length, n, c->next_id++);
    return pagelink_client_send(c, &iov, 1, errp);
}

/* Send a request whose body is in @buf behind room for the header */
static PageLinkOp *client_request(PageLinkClient *c, uint8_t *buf,
                                  uint16_t type, uint16_t flags,
                                  uint32_t length, uint16_t answer,
                                  PageLinkDone *done, void *opaque,
                                  struct iovec *iov)
{
    pagelink_encode_header(buf, type, flags, length, 0, c->next_id);
    *iov = (struct iovec) { buf, sizeof(PageLinkHeader) + length };
    return pagelink_op_new(c, answer, c->next_id++, done, opaque);
}

bool pagelink_client_sync_async(PageLinkClient *c, PageLinkAck *ack,
                                PageLinkDone *done, void *opaque,
                                Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader)];
    struct iovec iov;

    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    client_request(c, buf, PAGELINK_SYNC, 0, 0, PAGELINK_ACK, done, opaque,
                   &iov)->ack = ack;
    return pagelink_client_send(c, &iov, 1, errp);
}

bool pagelink_client_sync(PageLinkClient *c, PageLinkAck *ack, Error **errp)
{
    Waiter w = { 0 };

    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    pagelink_client_sync_async(c, ack, pagelink_waiter_done, &w, NULL);
    if (!pagelink_client_await(c, &w, errp)) {
        c->refusal = w.fault.code;
        return false;
    }
    if (c->put_refused) {
        c->put_refused = false;
        c->refusal = c->put_fault.code;
        return pagelink_client_report(&c->put_fault, c->peer, errp);
    }
    return true;
}

/* Send a request, wait for its answer, return the body in @answer */
bool pagelink_client_call(PageLinkClient *c, uint8_t *buf, uint16_t type,
                          uint16_t flags, uint32_t length,
                          uint16_t answer_type, void **answer,
                          PageLinkHeader *head, Error **errp)
{
    Waiter w = { 0 };
    struct iovec iov;
    PageLinkOp *op;

    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    op = client_request(c, buf, type, flags, length, answer_type,
                        pagelink_waiter_done, &w, &iov);
    op->body = answer;
    op->head = head;
    pagelink_client_send(c, &iov, 1, NULL);
    return pagelink_client_await(c, &w, errp);
}

bool pagelink_client_block(PageLinkClient *c, uint16_t block, uint64_t pages,
                           const char *name, Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkBlock) +
                PAGELINK_MAX_BLOCK_NAME];
    uint32_t length = pagelink_encode_block(buf + sizeof(PageLinkHeader),
                                            block, pages, name);

    return pagelink_client_call(c, buf, PAGELINK_BLOCK, 0, length,
                                PAGELINK_ACK, NULL, NULL, errp);
}

typedef struct BitmapCall {
    PageLinkClient *client;
    PageLinkBitmap asked;
    uint8_t *bits;
    void *answer;
    PageLinkHeader head;
    PageLinkDone *done;
    void *opaque;
} BitmapCall;

/* Is the answer what was asked for? */
static bool bitmap_check(const BitmapCall *call, PageLinkFault *fault)
{
    PageLinkBitmap got;

    if (!pagelink_decode_bitmap(&call->head, call->answer, &got, fault)) {
        return false;
    }
    if (got.block != call->asked.block || got.first != call->asked.first ||
        got.pages != call->asked.pages) {
        return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                              "BITMAP of another range");
    }
    return true;
}

static void bitmap_done(void *opaque, const PageLinkFault *error)
{
    g_autofree BitmapCall *call = opaque;
    PageLinkFault fault;

    if (!error) {
        if (bitmap_check(call, &fault)) {
            memcpy(call->bits, (uint8_t *)call->answer + sizeof(PageLinkBitmap),
                   DIV_ROUND_UP(call->asked.pages, 8));
        } else {
            pagelink_client_fail(call->client, &fault);
            error = &fault;
        }
    }
    g_free(call->answer);
    call->done(call->opaque, error);
}

bool pagelink_client_bitmap_async(PageLinkClient *c, uint16_t block,
                                  uint64_t first, uint32_t pages,
                                  uint8_t *bits, PageLinkDone *done,
                                  void *opaque, Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkBitmap)];
    struct iovec iov;
    BitmapCall *call;
    PageLinkOp *op;

    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    call = g_new0(BitmapCall, 1);
    *call = (BitmapCall) {
        .client = c, .bits = bits, .done = done, .opaque = opaque,
        .asked = { .block = block, .first = first, .pages = pages },
    };
    pagelink_encode_bitmap(buf + sizeof(PageLinkHeader), &call->asked);
    op = client_request(c, buf, PAGELINK_BITMAP_GET, 0,
                        sizeof(PageLinkBitmap), PAGELINK_BITMAP, bitmap_done,
                        call, &iov);
    op->body = &call->answer;
    op->head = &call->head;
    return pagelink_client_send(c, &iov, 1, errp);
}

bool pagelink_client_bitmap(PageLinkClient *c, uint16_t block, uint64_t first,
                            uint32_t pages, uint8_t *bits, Error **errp)
{
    Waiter w = { 0 };

    if (!pagelink_client_ready(c, errp)) {
        return false;
    }
    pagelink_client_bitmap_async(c, block, first, pages, bits,
                                 pagelink_waiter_done, &w, NULL);
    return pagelink_client_await(c, &w, errp);
}

bool pagelink_client_status(PageLinkClient *c, bool all,
                            PageLinkStatus *status,
                            PageLinkSessionStatus **sessions, uint32_t *n,
                            Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader)];
    g_autofree void *answer = NULL;
    PageLinkHeader head;
    PageLinkFault fault;
    uint32_t i;

    if (!pagelink_client_call(c, buf, PAGELINK_STATUS_GET,
                              all ? PAGELINK_STATUS_ALL : 0, 0, PAGELINK_STATUS,
                              &answer, &head, errp)) {
        return false;
    }
    if (!pagelink_decode_status(&head, answer, status, &fault)) {
        pagelink_client_fail(c, &fault);
        return pagelink_client_ready(c, errp);
    }
    if (sessions) {
        *n = head.count;
        *sessions = g_new(PageLinkSessionStatus, head.count);
        for (i = 0; i < head.count; i++) {
            pagelink_decode_session_status((uint8_t *)answer +
                                           sizeof(PageLinkStatus) +
                                           i * status->session_size,
                                           &(*sessions)[i]);
        }
    }
    return true;
}

bool pagelink_client_end(PageLinkClient *c, Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader)];

    return pagelink_client_call(c, buf, PAGELINK_SESSION_END, 0, 0,
                                PAGELINK_ACK, NULL, NULL, errp);
}
