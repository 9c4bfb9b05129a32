/*
 * Redirect: what the messages of a relay do at the new destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * As on any page link, a message is validated as a whole before any of it
 * takes effect.  What a relay does not need is refused as UNSUPPORTED.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "sink-int.h"
#include "../trace.h"

static bool equal_in_constant_time(const uint8_t *a, const uint8_t *b,
                                   size_t len)
{
    uint8_t differs = 0;

    for (size_t i = 0; i < len; i++) {
        differs |= a[i] ^ b[i];
    }
    return !differs;
}

/* A refusal after which the connection goes on */
static bool refuse(SinkConn *c)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkError) +
                PAGELINK_MAX_ERROR_TEXT];
    uint32_t length = pagelink_encode_error(buf + sizeof(PageLinkHeader),
                                            &c->fault);

    return sink_reply(c, buf, PAGELINK_ERROR, 0, length);
}

/* May whoever says @hello join the session? */
static bool check_session(RedirectSink *sink, const PageLinkHello *hello,
                          PageLinkFault *fault)
{
    const RedirectSession *s = &sink->session;
    bool uuid = equal_in_constant_time(s->uuid, hello->uuid, sizeof(s->uuid));
    bool key = equal_in_constant_time(s->key, hello->key, sizeof(s->key));

    if (!uuid || !key) {
        return pagelink_fault(fault, PAGELINK_ERR_AUTH, PAGELINK_NO_INDEX,
                              "no such session, or the wrong key");
    }
    if (hello->role != PAGELINK_ROLE_OWNER) {
        return pagelink_fault(fault, PAGELINK_ERR_ROLE, PAGELINK_NO_INDEX,
                              "only the relay is served here");
    }
    if (hello->epoch != s->number) {
        return pagelink_fault(fault, PAGELINK_ERR_STALE_EPOCH,
                              PAGELINK_NO_INDEX,
                              "this is the relay of redirect %" PRIu32,
                              s->number);
    }
    if (hello->features_required) {
        return pagelink_fault(fault, PAGELINK_ERR_VERSION, PAGELINK_NO_INDEX,
                              "the client insists on features 0x%08" PRIx32
                              ", here are none", hello->features_required);
    }
    return true;
}

bool sink_accepts(SinkConn *c)
{
    static const uint32_t requests =
        1u << PAGELINK_BLOCK | 1u << PAGELINK_PUT | 1u << PAGELINK_GET |
        1u << PAGELINK_DROP | 1u << PAGELINK_SYNC |
        1u << PAGELINK_BITMAP_GET | 1u << PAGELINK_STATUS_GET |
        1u << PAGELINK_SESSION_END;

    if (!c->joined && c->head.type != PAGELINK_HELLO) {
        return pagelink_fault(&c->fault, PAGELINK_ERR_PROTOCOL,
                              PAGELINK_NO_INDEX,
                              "the first message is a %s, it must be HELLO",
                              pagelink_type_name(c->head.type));
    }
    if (c->joined && !(requests >> c->head.type & 1)) {
        return pagelink_fault(&c->fault, PAGELINK_ERR_PROTOCOL,
                              PAGELINK_NO_INDEX,
                              "a client must not send %s here",
                              pagelink_type_name(c->head.type));
    }
    return true;
}

bool sink_hello(SinkConn *c)
{
    RedirectSink *sink = c->sink;
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkHelloAck)];
    PageLinkHello hello;
    PageLinkHelloAck ack = {
        .max_blocks = PAGELINK_MAX_BLOCKS,
        .max_batch = PAGELINK_MAX_BATCH,
        .window = 1,
        .epoch = sink->session.number,
    };

    if (!pagelink_decode_hello(c->table, &hello, &c->fault) ||
        !check_session(sink, &hello, &c->fault)) {
        trace_redirect_sink_refuse(c->fault.text);
        return sink_fail(c);
    }
    ack.version = MIN(hello.version_max, PAGELINK_VERSION_MAX);
    for (uint32_t i = 0; i < sink->blocks.n; i++) {
        ack.free_pages += sink->blocks.block[i].pages;
    }
    pagelink_encode_hello_ack(buf + sizeof(PageLinkHeader), &ack);
    trace_redirect_sink_hello(hello.name);
    sink_join(c);
    return sink_reply(c, buf, PAGELINK_HELLO_ACK, 0, sizeof(ack));
}

static bool reply_ack(SinkConn *c)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkAck)];

    pagelink_encode_ack(buf + sizeof(PageLinkHeader), &c->ack);
    return sink_reply(c, buf, PAGELINK_ACK, 0, sizeof(PageLinkAck));
}

static bool request_block(SinkConn *c)
{
    RedirectSink *sink = c->sink;
    char name[PAGELINK_MAX_BLOCK_NAME + 1];
    PageLinkBlock b;

    if (!pagelink_decode_block(&c->head, c->table, &b, name, &c->fault)) {
        return sink_fail(c);
    }
    if (b.block >= sink->blocks.n ||
        strcmp(sink->blocks.block[b.block].name, name) ||
        sink->blocks.block[b.block].pages != b.pages) {
        pagelink_fault(&c->fault, PAGELINK_ERR_BLOCK_MISMATCH,
                       PAGELINK_NO_INDEX, "block %u is not %s with %" PRIu64
                       " pages", b.block, name, b.pages);
        return refuse(c);
    }
    set_bit_atomic(b.block, sink->known);
    return reply_ack(c);
}

/* Is there such a range?  Of a block that was made known? */
static bool check_range(SinkConn *c, uint16_t block, uint64_t first,
                        uint64_t n, uint32_t index)
{
    RedirectSink *sink = c->sink;

    if (block >= sink->blocks.n ||
        !(qatomic_read(&sink->known[BIT_WORD(block)]) & BIT_MASK(block))) {
        return pagelink_fault(&c->fault, PAGELINK_ERR_UNKNOWN_BLOCK, index,
                              "no BLOCK was sent for block %u", block);
    }
    if (first >= sink->blocks.block[block].pages ||
        n > sink->blocks.block[block].pages - first) {
        return pagelink_fault(&c->fault, PAGELINK_ERR_OUT_OF_RANGE, index,
                              "page %" PRIu64 " is beyond block %u", first,
                              block);
    }
    return true;
}

/* Note that @page is to be reported */
static void note_taken(SinkConn *c, uint16_t block, uint64_t page)
{
    uint64_t bit = page - c->have.first;

    if (c->have.n && (block != c->have.block || page < c->have.first ||
                      bit >= REDIRECT_MAX_HAVE_PAGES)) {
        sink_report_have(c);
    }
    if (!c->have.n) {
        c->have.block = block;
        c->have.first = QEMU_ALIGN_DOWN(page, REDIRECT_BITMAP_ALIGN);
        c->have_since_ms = g_get_monotonic_time() / 1000;
        bit = page - c->have.first;
    }
    c->have_bits[bit / 8] |= 1u << (bit % 8);
    c->have.n = MAX(c->have.n, bit + 1);
}

static void take_page(SinkConn *c, const PageLinkEntry *e, const void *data)
{
    RedirectSink *sink = c->sink;
    RedirectRegion *r = redirect_merge_region(sink->merge, e->block);

    if (!redirect_merge_relay(sink->merge, r, e->page, data)) {
        c->ack.stale++;
        return;
    }
    if (sink->received) {
        sink->received(e->block, e->page, sink->opaque);
    }
    note_taken(c, e->block, e->page);
    if (data) {
        c->ack.stored++;
    } else {
        c->ack.zero++;
    }
}

/* Read the next of @left pages, as many as fit */
static bool read_pages(SinkConn *c, uint32_t left)
{
    return sink_read(c, c->pages,
                     MIN(left, SINK_READ_PAGES) * PAGELINK_PAGE_SIZE,
                     REDIRECT_SINK_STALL_MS);
}

static bool refuse_put(SinkConn *c, uint32_t npages)
{
    c->ack.refused += c->head.count;
    for (; npages; npages -= MIN(npages, SINK_READ_PAGES)) {
        if (!read_pages(c, npages)) {
            return false;
        }
    }
    return refuse(c);
}

static bool request_put(SinkConn *c)
{
    uint32_t left, fill = 0, i;

    if (!pagelink_decode_entries(&c->head, c->table, 0, c->entries, &left,
                                 &c->fault)) {
        return sink_fail(c);
    }
    for (i = 0; i < c->head.count; i++) {
        if (!check_range(c, c->entries[i].block, c->entries[i].page, 1, i)) {
            return refuse_put(c, left);
        }
    }
    for (i = 0; i < c->head.count; i++) {
        if (c->entries[i].flags & PAGELINK_ENTRY_ZERO) {
            take_page(c, &c->entries[i], NULL);
            continue;
        }
        if (fill == 0) {
            if (!read_pages(c, left)) {
                return false;
            }
            fill = MIN(left, SINK_READ_PAGES);
            left -= fill;
            c->next_page = c->pages;
        }
        take_page(c, &c->entries[i], c->next_page);
        c->next_page += PAGELINK_PAGE_SIZE;
        fill--;
    }
    sink_report_due(c);
    return true;
}

static bool request_bitmap(SinkConn *c)
{
    g_autofree uint8_t *buf = NULL;
    PageLinkBitmap b;
    uint32_t length;

    if (!pagelink_decode_bitmap(&c->head, c->table, &b, &c->fault)) {
        return sink_fail(c);
    }
    if (!check_range(c, b.block, b.first, b.pages, PAGELINK_NO_INDEX)) {
        return refuse(c);
    }
    length = sizeof(b) + DIV_ROUND_UP(b.pages, 8);
    buf = g_malloc(sizeof(PageLinkHeader) + length);
    pagelink_encode_bitmap(buf + sizeof(PageLinkHeader), &b);
    redirect_merge_bitmap(c->sink->merge,
                          redirect_merge_region(c->sink->merge, b.block),
                          b.first, b.pages,
                          buf + sizeof(PageLinkHeader) + sizeof(b));
    return sink_reply(c, buf, PAGELINK_BITMAP, 0, length);
}

bool sink_request(SinkConn *c)
{
    switch (c->head.type) {
    case PAGELINK_BLOCK:
        return request_block(c);
    case PAGELINK_PUT:
        return request_put(c);
    case PAGELINK_SYNC:
        /* The source knows before the relay forgets */
        sink_report_have(c);
        return reply_ack(c);
    case PAGELINK_BITMAP_GET:
        return request_bitmap(c);
    case PAGELINK_SESSION_END:
        sink_report_have(c);
        sink_end_session(c);
        reply_ack(c);
        return false;
    default:
        pagelink_fault(&c->fault, PAGELINK_ERR_UNSUPPORTED, PAGELINK_NO_INDEX,
                       "%s is not served by the destination of a migration",
                       pagelink_type_name(c->head.type));
        return refuse(c);
    }
}
