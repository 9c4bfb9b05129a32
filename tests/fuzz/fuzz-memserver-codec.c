/*
 * Fuzzer: the page link's codec
 *
 * Input: any bytes, taken as a stream of messages.  Whatever passes validation
 * must be within the limits of pagelink.h and be the same after encoding it
 * again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/memserver/codec.h"
#include "fuzz.h"

static void one_message(const PageLinkHeader *h, const uint8_t *body)
{
    static PageLinkEntry entries[PAGELINK_MAX_BATCH];
    static PageLinkRequest requests[PAGELINK_MAX_BATCH];
    static PageLinkRange ranges[PAGELINK_MAX_BATCH];
    char name[PAGELINK_MAX_BLOCK_NAME + 1];
    uint8_t again[sizeof(PageLinkStatus)];
    PageLinkSessionStatus session;
    PageLinkHelloAck hello_ack;
    PageLinkFault error, fault;
    PageLinkBitmap bitmap;
    PageLinkStatus status;
    PageLinkHello hello;
    PageLinkBlock block;
    uint32_t npages, i;

    switch (h->type) {
    case PAGELINK_HELLO:
        if (pagelink_decode_hello(body, &hello, &fault)) {
            pagelink_encode_hello(again, &hello);
            assert(!memcmp(again, body, sizeof(hello)));
        }
        break;
    case PAGELINK_HELLO_ACK:
        if (pagelink_decode_hello_ack(body, &hello_ack, &fault)) {
            assert(hello_ack.max_batch <= PAGELINK_MAX_BATCH);
        }
        break;
    case PAGELINK_ERROR:
        if (pagelink_decode_error(h, body, &error, &fault)) {
            assert(strlen(error.text) < sizeof(error.text));
        }
        break;
    case PAGELINK_BLOCK:
        if (pagelink_decode_block(h, body, &block, name, &fault)) {
            assert(strlen(name) == block.name_length);
        }
        break;
    case PAGELINK_PUT:
    case PAGELINK_DATA:
        if (pagelink_decode_entries(h, body, PAGELINK_FEATURE_CHECKSUM,
                                    entries, &npages, &fault)) {
            assert(npages <= h->count);
            for (i = 0; i < h->count; i++) {
                pagelink_encode_entry(again, &entries[i]);
                assert(!memcmp(again, body + i * sizeof(PageLinkEntry),
                               sizeof(PageLinkEntry)));
            }
        }
        break;
    case PAGELINK_GET:
        if (pagelink_decode_requests(h, body, requests, &fault)) {
            assert(requests[h->count - 1].block < PAGELINK_MAX_BLOCKS);
        }
        break;
    case PAGELINK_DROP:
        if (pagelink_decode_ranges(h, body, ranges, &fault)) {
            assert(ranges[h->count - 1].pages <= PAGELINK_MAX_DROP_PAGES);
        }
        break;
    case PAGELINK_BITMAP:
    case PAGELINK_BITMAP_GET:
        pagelink_decode_bitmap(h, body, &bitmap, &fault);
        break;
    case PAGELINK_STATUS:
        if (pagelink_decode_status(h, body, &status, &fault)) {
            for (i = 0; i < h->count; i++) {
                pagelink_decode_session_status(body + sizeof(status) +
                                               i * status.session_size,
                                               &session);
            }
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    while (size >= sizeof(PageLinkHeader)) {
        g_autofree uint8_t *body = NULL;
        PageLinkFault fault;
        PageLinkHeader h;
        uint32_t length;

        if (!pagelink_decode_header(data, &h, &fault)) {
            break;
        }
        data += sizeof(PageLinkHeader);
        size -= sizeof(PageLinkHeader);
        length = pagelink_table_length(&h);
        if (length > size) {
            break;
        }
        /* An allocation of its own, so that a read beyond it is seen */
        body = g_memdup2(data, length);
        one_message(&h, body);
        data += length;
        size -= length;
    }
    return 0;
}
