/*
 * Page link: codec
 *
 * Proves: what is encoded is decoded to the same; every message that breaks a
 * rule of docs/interop/pagelink.rst is refused, each rule by its own row of a
 * table; bytes at random never do more than be refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "migration/memserver/checksum.h"
#include "migration/memserver/codec.h"

static void test_header_round_trip(void)
{
    uint8_t buf[sizeof(PageLinkHeader)];
    PageLinkFault fault;
    PageLinkHeader h;

    pagelink_encode_header(buf, PAGELINK_PUT, 0, 2 * 24 + 4096, 2,
                           0x1122334455667788ULL);
    g_assert_cmpmem(buf, 4, "QPLK", 4);
    g_assert_true(pagelink_decode_header(buf, &h, &fault));
    g_assert_cmpuint(h.type, ==, PAGELINK_PUT);
    g_assert_cmpuint(h.length, ==, 2 * 24 + 4096);
    g_assert_cmpuint(h.count, ==, 2);
    g_assert_cmphex(h.request_id, ==, 0x1122334455667788ULL);
    g_assert_cmpuint(pagelink_table_length(&h), ==, 48);
}

typedef struct HeaderCase {
    uint16_t type, flags;
    uint32_t length, count;
    bool ok;
} HeaderCase;

static const HeaderCase header_cases[] = {
    { 0, 0, 0, 0, false },
    { 16, 0, 0, 0, false },
    { 0xffff, 0, 0, 0, false },
    { PAGELINK_HELLO, 0, 96, 0, true },
    { PAGELINK_HELLO, 0, 95, 0, false },
    { PAGELINK_HELLO, 0, 97, 0, false },
    { PAGELINK_HELLO, 1, 96, 0, false },
    { PAGELINK_HELLO, 0, 96, 1, false },
    { PAGELINK_HELLO_ACK, 0, 40, 0, true },
    { PAGELINK_HELLO_ACK, 0, 41, 0, false },
    { PAGELINK_ERROR, 1, 16, 0, true },
    { PAGELINK_ERROR, 2, 16, 0, false },
    { PAGELINK_ERROR, 0, 15, 0, false },
    { PAGELINK_ERROR, 0, 16 + 512, 0, true },
    { PAGELINK_ERROR, 0, 16 + 513, 0, false },
    { PAGELINK_BLOCK, 0, 17, 0, true },
    { PAGELINK_BLOCK, 0, 16, 0, false },
    { PAGELINK_BLOCK, 0, 16 + 255, 0, true },
    { PAGELINK_BLOCK, 0, 16 + 256, 0, false },
    { PAGELINK_PUT, 0, 24, 1, true },
    { PAGELINK_PUT, 0, 24 + 4096, 1, true },
    { PAGELINK_PUT, 0, 0, 0, false },
    { PAGELINK_PUT, 0, 24, 0, false },
    { PAGELINK_PUT, 0, 23, 1, false },
    { PAGELINK_PUT, 0, 24 + 4095, 1, false },
    { PAGELINK_PUT, 0, 24 + 2 * 4096, 1, false },
    { PAGELINK_PUT, 0, 256 * (24 + 4096), 256, true },
    { PAGELINK_PUT, 0, 257 * (24 + 4096), 257, false },
    { PAGELINK_PUT, 0, 24, 0xffffffff, false },
    { PAGELINK_PUT, 0, 0xffffffff, 1, false },
    { PAGELINK_PUT, 1, 24, 1, false },
    { PAGELINK_GET, 0, 16, 1, true },
    { PAGELINK_GET, 0, 16, 2, false },
    { PAGELINK_GET, 0, 0, 0, false },
    { PAGELINK_GET, 0, 256 * 16, 256, true },
    { PAGELINK_GET, 0, 257 * 16, 257, false },
    { PAGELINK_DATA, 1, 24, 1, true },
    { PAGELINK_DATA, 2, 24, 1, false },
    { PAGELINK_DATA, 0, 64 * (24 + 4096), 64, true },
    { PAGELINK_DATA, 0, 65 * 24, 65, false },
    { PAGELINK_DROP, 0, 24, 1, true },
    { PAGELINK_DROP, 0, 25, 1, false },
    { PAGELINK_DROP, 0, 257 * 24, 257, false },
    { PAGELINK_SYNC, 0, 0, 0, true },
    { PAGELINK_SYNC, 0, 1, 0, false },
    { PAGELINK_ACK, 0, 40, 0, true },
    { PAGELINK_ACK, 0, 39, 0, false },
    { PAGELINK_BITMAP_GET, 0, 16, 0, true },
    { PAGELINK_BITMAP_GET, 0, 17, 0, false },
    { PAGELINK_BITMAP, 0, 17, 0, true },
    { PAGELINK_BITMAP, 0, 16, 0, false },
    { PAGELINK_BITMAP, 0, 16 + 4096, 0, true },
    { PAGELINK_BITMAP, 0, 16 + 4097, 0, false },
    { PAGELINK_STATUS_GET, 1, 0, 0, true },
    { PAGELINK_STATUS_GET, 2, 0, 0, false },
    { PAGELINK_STATUS, 0, 96, 0, true },
    { PAGELINK_STATUS, 0, 96 + 176, 1, true },
    { PAGELINK_STATUS, 0, 96, 4097, false },
    { PAGELINK_SESSION_END, 0, 0, 0, true },
    { PAGELINK_SESSION_END, 0, 4, 0, false },
};

static void test_header_rules(void)
{
    size_t i;

    for (i = 0; i < ARRAY_SIZE(header_cases); i++) {
        const HeaderCase *c = &header_cases[i];
        uint8_t buf[sizeof(PageLinkHeader)];
        PageLinkFault fault = { 0 };
        PageLinkHeader h;
        bool ok;

        pagelink_encode_header(buf, c->type, c->flags, c->length, c->count, 1);
        ok = pagelink_decode_header(buf, &h, &fault);
        if (ok != c->ok) {
            g_test_message("row %zu: got %d: %s", i, ok, fault.text);
            g_test_fail();
        }
        if (!ok) {
            g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_PROTOCOL);
            g_assert_cmpuint(strlen(fault.text), >, 10);
        }
        buf[0] ^= 0x20;
        g_assert_false(pagelink_decode_header(buf, &h, &fault));
    }
}

static PageLinkHello good_hello(void)
{
    return (PageLinkHello) {
        .version_min = 1, .version_max = 1, .features = 1,
        .role = PAGELINK_ROLE_OWNER, .class = PAGELINK_CLASS_DEMAND,
        .flags = PAGELINK_HELLO_CREATE, .epoch = 7,
        .uuid = "0123456789abcde", .key = "fedcba987654321",
        .name = "a name",
    };
}

static bool hello_ok(const PageLinkHello *hello, PageLinkFault *fault)
{
    uint8_t buf[sizeof(*hello)];
    PageLinkHello out;

    pagelink_encode_hello(buf, hello);
    if (!pagelink_decode_hello(buf, &out, fault)) {
        return false;
    }
    g_assert_cmpmem(&out, sizeof(out), hello, sizeof(*hello));
    return true;
}

static void test_hello(void)
{
    PageLinkHello h = good_hello();
    uint8_t buf[sizeof(h)];
    PageLinkFault fault;

    g_assert_true(hello_ok(&h, &fault));
    h.version_max = 9;
    g_assert_true(hello_ok(&h, &fault));
    h.version_min = 2;
    g_assert_false(hello_ok(&h, &fault));
    g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_VERSION);
    g_assert_nonnull(strstr(fault.text, "2 to 9"));

#define REFUSED(change) do {                                    \
        h = good_hello();                                       \
        change;                                                 \
        g_assert_false(hello_ok(&h, &fault));                   \
        g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_PROTOCOL); \
    } while (0)

    REFUSED(h.version_min = 0);
    REFUSED(h.version_max = 0);
    REFUSED(h.features_required = 2);
    REFUSED(h.role = 0);
    REFUSED(h.role = 4);
    REFUSED(h.class = 0);
    REFUSED(h.class = 3);
    REFUSED(h.flags = 4);
    REFUSED(h.role = PAGELINK_ROLE_READER);
    REFUSED(h.epoch = 0);
    REFUSED(h.name[0] = '\n');
    REFUSED(h.name[0] = '\x80');
    REFUSED(h.name[31] = 'x');
#undef REFUSED

    h = good_hello();
    pagelink_encode_hello(buf, &h);
    buf[95] = 1;
    g_assert_false(pagelink_decode_hello(buf, &h, &fault));
}

static void test_hello_ack(void)
{
    PageLinkHelloAck a = {
        .version = 1, .max_blocks = 1024, .features = 1, .max_batch = 256,
        .window = 64, .epoch = 3, .free_pages = 1ULL << 40,
    }, out;
    uint8_t buf[sizeof(a)];
    PageLinkFault fault;

    pagelink_encode_hello_ack(buf, &a);
    g_assert_true(pagelink_decode_hello_ack(buf, &out, &fault));
    g_assert_cmpmem(&out, sizeof(out), &a, sizeof(a));
    a.version = 2;
    pagelink_encode_hello_ack(buf, &a);
    g_assert_false(pagelink_decode_hello_ack(buf, &out, &fault));
    a.version = 1;
    a.max_batch = 257;
    pagelink_encode_hello_ack(buf, &a);
    g_assert_false(pagelink_decode_hello_ack(buf, &out, &fault));
}

static void test_error(void)
{
    uint8_t buf[sizeof(PageLinkError) + PAGELINK_MAX_ERROR_TEXT];
    PageLinkHeader h = { .type = PAGELINK_ERROR };
    PageLinkFault in, out, fault;

    pagelink_fault(&in, PAGELINK_ERR_QUOTA, 17, "over by %d", 4);
    h.length = pagelink_encode_error(buf, &in);
    g_assert_true(pagelink_decode_error(&h, buf, &out, &fault));
    g_assert_cmpuint(out.code, ==, PAGELINK_ERR_QUOTA);
    g_assert_cmpuint(out.index, ==, 17);
    g_assert_cmpstr(out.text, ==, "over by 4");

    /* No control sequences into our logs */
    buf[sizeof(PageLinkError)] = '\x1b';
    g_assert_true(pagelink_decode_error(&h, buf, &out, &fault));
    g_assert_cmpstr(out.text, ==, "?ver by 4");
    /* A text longer than we keep is cut */
    memset(buf + sizeof(PageLinkError), 'x', PAGELINK_MAX_ERROR_TEXT);
    stl_be_p(buf + 8, PAGELINK_MAX_ERROR_TEXT);
    h.length = sizeof(buf);
    g_assert_true(pagelink_decode_error(&h, buf, &out, &fault));
    g_assert_cmpuint(strlen(out.text), ==, sizeof(out.text) - 1);
    h.length--;
    g_assert_false(pagelink_decode_error(&h, buf, &out, &fault));
    h.length++;
    stl_be_p(buf, 0);
    g_assert_false(pagelink_decode_error(&h, buf, &out, &fault));
}

static void test_block(void)
{
    uint8_t buf[sizeof(PageLinkBlock) + PAGELINK_MAX_BLOCK_NAME];
    char name[PAGELINK_MAX_BLOCK_NAME + 1];
    PageLinkHeader h = { .type = PAGELINK_BLOCK };
    PageLinkFault fault;
    PageLinkBlock b;

    h.length = pagelink_encode_block(buf, 1023, PAGELINK_MAX_BLOCK_PAGES,
                                     "pc.ram");
    g_assert_true(pagelink_decode_block(&h, buf, &b, name, &fault));
    g_assert_cmpuint(b.block, ==, 1023);
    g_assert_cmpuint(b.pages, ==, PAGELINK_MAX_BLOCK_PAGES);
    g_assert_cmpstr(name, ==, "pc.ram");
    h.length++;
    g_assert_false(pagelink_decode_block(&h, buf, &b, name, &fault));

    h.length = pagelink_encode_block(buf, 1024, 1, "x");
    g_assert_false(pagelink_decode_block(&h, buf, &b, name, &fault));
    h.length = pagelink_encode_block(buf, 0, 0, "x");
    g_assert_false(pagelink_decode_block(&h, buf, &b, name, &fault));
    h.length = pagelink_encode_block(buf, 0, PAGELINK_MAX_BLOCK_PAGES + 1,
                                     "x");
    g_assert_false(pagelink_decode_block(&h, buf, &b, name, &fault));
    h.length = pagelink_encode_block(buf, 0, 1, "a\nb");
    g_assert_false(pagelink_decode_block(&h, buf, &b, name, &fault));
}

static bool entry_ok(uint16_t type, uint32_t features, PageLinkEntry e,
                     bool page, PageLinkEntry *out)
{
    uint8_t buf[sizeof(e)];
    PageLinkHeader h = {
        .type = type, .count = 1,
        .length = sizeof(e) + (page ? PAGELINK_PAGE_SIZE : 0),
    };
    PageLinkFault fault;
    uint32_t npages = 99;

    pagelink_encode_entry(buf, &e);
    if (!pagelink_decode_entries(&h, buf, features, out, &npages, &fault)) {
        return false;
    }
    g_assert_cmpuint(npages, ==, page);
    return true;
}

static void test_entries(void)
{
    const uint32_t crc = PAGELINK_FEATURE_CHECKSUM;
    PageLinkEntry e = {
        .page = PAGELINK_MAX_BLOCK_PAGES - 1, .version = UINT64_MAX,
        .crc = 0x89abcdef, .block = 1023, .flags = PAGELINK_ENTRY_CRC,
    }, out;

    g_assert_true(entry_ok(PAGELINK_PUT, crc, e, true, &out));
    g_assert_cmpmem(&out, sizeof(out), &e, sizeof(e));
    /* not negotiated */
    g_assert_false(entry_ok(PAGELINK_PUT, 0, e, true, &out));
    /* the length lies */
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, false, &out));
    e.flags = 0;
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, true, &out));
    e.crc = 0;
    g_assert_true(entry_ok(PAGELINK_PUT, crc, e, true, &out));
    e.page++;
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, true, &out));
    e.page = 0;
    e.block = 1024;
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, true, &out));
    e.block = 0;
    e.flags = PAGELINK_ENTRY_ZERO;
    g_assert_true(entry_ok(PAGELINK_PUT, crc, e, false, &out));
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, true, &out));
    e.flags = PAGELINK_ENTRY_ZERO | PAGELINK_ENTRY_CRC;
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, false, &out));
    e.flags = PAGELINK_ENTRY_ABSENT;
    g_assert_false(entry_ok(PAGELINK_PUT, crc, e, false, &out));
    g_assert_true(entry_ok(PAGELINK_DATA, crc, e, false, &out));
    e.flags = 0x8000;
    g_assert_false(entry_ok(PAGELINK_DATA, crc, e, true, &out));
}

static void test_requests(void)
{
    PageLinkHeader h = { .type = PAGELINK_GET, .count = 1, .length = 16 };
    PageLinkRequest r = { .page = 12345678901, .block = 3 }, out;
    uint8_t buf[sizeof(r)];
    PageLinkFault fault;
    int i;

    r.page %= PAGELINK_MAX_BLOCK_PAGES;
    pagelink_encode_request(buf, &r);
    g_assert_true(pagelink_decode_requests(&h, buf, &out, &fault));
    g_assert_cmpmem(&out, sizeof(out), &r, sizeof(r));
    for (i = 10; i < 16; i++) {
        buf[i] = 1;
        g_assert_false(pagelink_decode_requests(&h, buf, &out, &fault));
        buf[i] = 0;
    }
    buf[3] = 1;
    g_assert_false(pagelink_decode_requests(&h, buf, &out, &fault));
    buf[3] = 0;
    buf[8] = 4;
    g_assert_false(pagelink_decode_requests(&h, buf, &out, &fault));
}

static void test_ranges(void)
{
    PageLinkHeader h = { .type = PAGELINK_DROP, .count = 2, .length = 48 };
    PageLinkRange r = { .page = 5, .version = 6, .pages = 7, .block = 8 };
    PageLinkRange out[2];
    uint8_t buf[2 * sizeof(r)];
    PageLinkFault fault;

    pagelink_encode_range(buf, &r);
    pagelink_encode_range(buf + 24, &r);
    g_assert_true(pagelink_decode_ranges(&h, buf, out, &fault));
    g_assert_cmpmem(&out[1], sizeof(r), &r, sizeof(r));
    r.pages = 0;
    pagelink_encode_range(buf, &r);
    g_assert_false(pagelink_decode_ranges(&h, buf, out, &fault));
    g_assert_cmpuint(fault.index, ==, 0);
    r.pages = PAGELINK_MAX_DROP_PAGES;
    pagelink_encode_range(buf, &r);
    g_assert_false(pagelink_decode_ranges(&h, buf, out, &fault));
    g_assert_cmpuint(fault.index, ==, 1);
    h.count = 1;
    g_assert_true(pagelink_decode_ranges(&h, buf, out, &fault));
    buf[23] = 1;
    g_assert_false(pagelink_decode_ranges(&h, buf, out, &fault));
}

static void test_bitmap(void)
{
    PageLinkHeader h = { .type = PAGELINK_BITMAP_GET, .length = 16 };
    PageLinkBitmap b = { .first = 1, .pages = 9, .block = 2 }, out;
    uint8_t buf[sizeof(b)];
    PageLinkFault fault;

    pagelink_encode_bitmap(buf, &b);
    g_assert_true(pagelink_decode_bitmap(&h, buf, &out, &fault));
    g_assert_cmpmem(&out, sizeof(out), &b, sizeof(b));
    h.type = PAGELINK_BITMAP;
    h.length = 16 + 2;
    g_assert_true(pagelink_decode_bitmap(&h, buf, &out, &fault));
    h.length = 16 + 3;
    g_assert_false(pagelink_decode_bitmap(&h, buf, &out, &fault));
    b.pages = 0;
    pagelink_encode_bitmap(buf, &b);
    g_assert_false(pagelink_decode_bitmap(&h, buf, &out, &fault));
    b.pages = PAGELINK_MAX_BITMAP_PAGES + 1;
    pagelink_encode_bitmap(buf, &b);
    g_assert_false(pagelink_decode_bitmap(&h, buf, &out, &fault));
}

/* Every field at its own value, so that none is swapped with another */
static void test_status(void)
{
    PageLinkHeader h = { .type = PAGELINK_STATUS, .count = 2 };
    PageLinkSessionStatus s, s2;
    PageLinkStatus st, st2;
    uint8_t buf[sizeof(st)], sbuf[sizeof(s)];
    PageLinkAck ack, ack2;
    PageLinkFault fault;
    size_t i;

    for (i = 0; i < sizeof(st) / 4; i++) {
        ((uint32_t *)&st)[i] = 1000 + i;
    }
    for (i = 0; i < sizeof(s); i++) {
        ((uint8_t *)&s)[i] = i + 1;
    }
    strcpy(s.name, "printable, 31 characters long.");
    s.name[31] = 0;
    for (i = 0; i < sizeof(ack); i++) {
        ((uint8_t *)&ack)[i] = i;
    }
    st.session_size = sizeof(s);
    h.length = sizeof(st) + 2 * sizeof(s);
    pagelink_encode_status(buf, &st);
    g_assert_true(pagelink_decode_status(&h, buf, &st2, &fault));
    g_assert_cmpmem(&st, sizeof(st), &st2, sizeof(st2));
    pagelink_encode_session_status(sbuf, &s);
    pagelink_decode_session_status(sbuf, &s2);
    g_assert_cmpmem(&s, sizeof(s), &s2, sizeof(s2));
    /* A server's idea of a name must not steer our terminal, nor run on */
    memset(sbuf + offsetof(PageLinkSessionStatus, name), 'x', sizeof(s.name));
    memcpy(sbuf + offsetof(PageLinkSessionStatus, name), "\033[2J\x9b\n", 6);
    pagelink_decode_session_status(sbuf, &s2);
    g_assert_cmpstr(s2.name, ==, "?[2J??xxxxxxxxxxxxxxxxxxxxxxxxx");
    pagelink_encode_ack(sbuf, &ack);
    pagelink_decode_ack(sbuf, &ack2);
    g_assert_cmpmem(&ack, sizeof(ack), &ack2, sizeof(ack2));

    /* A later version may append to the record, none may shorten it */
    st.session_size = sizeof(s) + 8;
    pagelink_encode_status(buf, &st);
    g_assert_false(pagelink_decode_status(&h, buf, &st2, &fault));
    h.length += 16;
    g_assert_true(pagelink_decode_status(&h, buf, &st2, &fault));
    st.session_size = sizeof(s) - 8;
    h.length = sizeof(st) + 2 * (sizeof(s) - 8);
    pagelink_encode_status(buf, &st);
    g_assert_false(pagelink_decode_status(&h, buf, &st2, &fault));
}

static void test_checksum(void)
{
    uint8_t page[PAGELINK_PAGE_SIZE] = { 0 };

    /* Computed with another implementation (python3 crc32c, RFC 3720) */
    g_assert_cmphex(pagelink_crc32c(page), ==, 0x98f94189);
    memset(page, 0xff, sizeof(page));
    g_assert_cmphex(pagelink_crc32c(page), ==, 0x25c1fe13);
}

/* Random bytes behind valid headers: refused or accepted, never out of step */
static void test_random(void)
{
    g_autofree uint8_t *buf = g_malloc(PAGELINK_MAX_TABLE);
    PageLinkEntry entries[PAGELINK_MAX_BATCH];
    PageLinkRequest requests[PAGELINK_MAX_BATCH];
    PageLinkRange ranges[PAGELINK_MAX_BATCH];
    char name[PAGELINK_MAX_BLOCK_NAME + 1];
    unsigned round, i;

    for (round = 0; round < 20000; round++) {
        uint8_t head[sizeof(PageLinkHeader)];
        uint32_t count = g_test_rand_int_range(0, 258);
        uint32_t type = g_test_rand_int_range(1, 17), npages;
        static const uint32_t sizes[] = { 0, 16, 24, 40, 96, 4120 };
        PageLinkFault fault;
        PageLinkHeader h;
        PageLinkBlock block;
        PageLinkBitmap bitmap;
        PageLinkHello hello;

        pagelink_encode_header(head, type, 0,
                               (count ? count : 1) * sizes[round % 6], count,
                               round);
        if (!pagelink_decode_header(head, &h, &fault)) {
            continue;
        }
        if (pagelink_table_length(&h) > PAGELINK_MAX_TABLE) {
            continue;
        }
        for (i = 0; i < pagelink_table_length(&h); i++) {
            /* Mostly zeroes, so that deeper checks are reached */
            buf[i] = g_test_rand_int_range(0, 4) ? 0 : g_test_rand_int();
        }
        switch (h.type) {
        case PAGELINK_HELLO:
            pagelink_decode_hello(buf, &hello, &fault);
            break;
        case PAGELINK_BLOCK:
            pagelink_decode_block(&h, buf, &block, name, &fault);
            break;
        case PAGELINK_PUT:
        case PAGELINK_DATA:
            if (pagelink_decode_entries(&h, buf, round, entries, &npages,
                                        &fault)) {
                g_assert_cmpuint(npages, <=, h.count);
            }
            break;
        case PAGELINK_GET:
            pagelink_decode_requests(&h, buf, requests, &fault);
            break;
        case PAGELINK_DROP:
            pagelink_decode_ranges(&h, buf, ranges, &fault);
            break;
        case PAGELINK_BITMAP:
        case PAGELINK_BITMAP_GET:
            pagelink_decode_bitmap(&h, buf, &bitmap, &fault);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pagelink/header/round-trip", test_header_round_trip);
    g_test_add_func("/pagelink/header/rules", test_header_rules);
    g_test_add_func("/pagelink/hello", test_hello);
    g_test_add_func("/pagelink/hello-ack", test_hello_ack);
    g_test_add_func("/pagelink/error", test_error);
    g_test_add_func("/pagelink/block", test_block);
    g_test_add_func("/pagelink/entries", test_entries);
    g_test_add_func("/pagelink/requests", test_requests);
    g_test_add_func("/pagelink/ranges", test_ranges);
    g_test_add_func("/pagelink/bitmap", test_bitmap);
    g_test_add_func("/pagelink/status", test_status);
    g_test_add_func("/pagelink/checksum", test_checksum);
    g_test_add_func("/pagelink/random", test_random);
    return g_test_run();
}
