/*
 * Unit tests of the messages of a redirect
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: what is encoded decodes to the same; what is cut short, too long
 * or beyond a limit is refused with a sentence that names it.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "migration/strategy/message.h"
#include "migration/strategy/redirect/return-path.h"

static RedirectBlock block_table[] = {
    { "pc.ram", 0x80000 }, { "rom", 64 },
};
static const RedirectBlocks two = {
    .block = block_table, .n = 2, .expected = 2
};
static const RedirectSession session = {
    .uuid = "0123456789abcde", .key = "KEYKEYKEYKEYKEY", .number = 3,
};

static void assert_refused(bool ok, Error *err, const char *named)
{
    g_assert_false(ok);
    if (!strstr(error_get_pretty(err), named)) {
        g_test_message("'%s' does not name '%s'", error_get_pretty(err),
                       named);
        g_test_fail();
    }
    error_free(err);
}

/* One decoder for the messages of the section, chosen by a letter */
static bool decode(char what, const uint8_t *buf, size_t len, Error **errp)
{
    /* An allocation of its own, so that a read beyond it is seen */
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    RedirectBlocks table = { .expected = 2 };
    RedirectSetup setup;
    RedirectOrder order;
    RedirectBitmap bitmap;
    RedirectRp rp;
    bool ok;

    switch (what) {
    case 's':
        return redirect_setup_decode(&setup, copy, len, errp);
    case 'o':
        return redirect_order_decode(&order, copy, len, errp);
    case 'b':
        ok = redirect_blocks_decode(&table, copy, len, errp);
        g_assert_cmpuint(table.n, ==, ok ? 2 : 0);
        g_free(table.block);
        return ok;
    case 'm':
        return redirect_bitmap_decode(&bitmap, &two, copy, len, errp);
    case 'r':
        return redirect_rp_decode(&rp, &two, copy, len, errp);
    default:
        g_assert_not_reached();
    }
}

static GByteArray *make_setup(void)
{
    GByteArray *out = g_byte_array_new();
    RedirectSetup setup = { .session = session, .blocks = 2 };

    redirect_setup_encode(out, &setup);
    return out;
}

static GByteArray *make_order(void)
{
    GByteArray *out = g_byte_array_new();
    RedirectOrder order = {
        .session = session, .blocks = 2, .tls = true, .pages = 1234567890123,
        .max_rate = 9876543210987,
        .address = "tcp:[::1]:4444", .tls_hostname = "host.example",
    };

    redirect_order_encode(out, &order);
    return out;
}

static GByteArray *make_blocks(void)
{
    GByteArray *out = g_byte_array_new();

    g_assert_cmpuint(redirect_blocks_encode(out, &two, 0), ==, 2);
    return out;
}

static GByteArray *make_bitmap(void)
{
    g_autofree unsigned long *map = bitmap_new(block_table[1].pages);
    GByteArray *out = g_byte_array_new();

    set_bit(0, map);
    set_bit(13, map);
    redirect_bitmap_encode(out, 1, 0, 14, map);
    return out;
}

/* Of a block that has 64 pages */
static GByteArray *make_long_bitmap(void)
{
    g_autofree unsigned long *map = bitmap_new(128);
    GByteArray *out = g_byte_array_new();

    redirect_bitmap_encode(out, 1, 0, 65, map);
    return out;
}

static GByteArray *make_rp(uint16_t type)
{
    static const uint8_t bits[] = { 0xff, 0x01 };
    GByteArray *out = g_byte_array_new();
    RedirectReady ready = { .tls = true, .address = "unix:/x" };
    RedirectBitmap have = { .block = 1, .first = 0, .n = 9, .bits = bits };
    RedirectRelay relay = {
        .state = REDIRECT_RELAY_DONE, .pages = 5, .zero = 4,
        .duplicates = 3, .bytes = 1ull << 40,
    };
    size_t len = 0;

    g_byte_array_set_size(out, REDIRECT_RP_MAX_LEN);
    switch (type) {
    case REDIRECT_RP_READY:
        len = redirect_rp_encode_ready(out->data, &ready);
        break;
    case REDIRECT_RP_REFUSED:
        len = redirect_rp_encode_refused(out->data, "no \033room");
        break;
    case REDIRECT_RP_HAVE:
        len = redirect_rp_encode_have(out->data, &have);
        break;
    case REDIRECT_RP_RELAY:
        len = redirect_rp_encode_relay(out->data, &relay);
        break;
    case REDIRECT_RP_ACCEPTED:
        len = redirect_rp_encode_accepted(out->data);
        break;
    }
    g_byte_array_set_size(out, len);
    return out;
}

static void test_round_trip(void)
{
    g_autoptr(GByteArray) s = make_setup();
    g_autoptr(GByteArray) o = make_order();
    RedirectSetup setup;
    RedirectOrder order;

    redirect_setup_decode(&setup, s->data, s->len, &error_abort);
    g_assert_cmpmem(&setup.session, sizeof(session), &session,
                    sizeof(session));
    g_assert_cmpuint(setup.blocks, ==, 2);

    redirect_order_decode(&order, o->data, o->len, &error_abort);
    g_assert_cmpmem(&order.session, sizeof(session), &session,
                    sizeof(session));
    g_assert_cmpuint(order.blocks, ==, 2);
    g_assert_cmpuint(order.pages, ==, 1234567890123);
    g_assert_cmpuint(order.max_rate, ==, 9876543210987);
    g_assert_true(order.tls);
    g_assert_cmpstr(order.address, ==, "tcp:[::1]:4444");
    g_assert_cmpstr(order.tls_hostname, ==, "host.example");
}

static void test_bitmap(void)
{
    g_autofree unsigned long *map = bitmap_new(0x80000);
    g_autofree unsigned long *back = bitmap_new(0x80000);
    g_autoptr(GByteArray) out = g_byte_array_new();
    GRand *rand = g_rand_new_with_seed(5);
    RedirectBitmap b;

    for (unsigned i = 0; i < 5000; i++) {
        set_bit(g_rand_int_range(rand, 0, 0x80000), map);
    }
    g_rand_free(rand);
    redirect_bitmap_encode(out, 0, 0, 64 + 7, map);
    redirect_bitmap_decode(&b, &two, out->data, out->len, &error_abort);
    redirect_bitmap_or(back, &b);
    g_byte_array_set_size(out, 0);
    redirect_bitmap_encode(out, 0, 64, 0x3ffff, map);
    redirect_bitmap_decode(&b, &two, out->data, out->len, &error_abort);
    redirect_bitmap_or(back, &b);
    g_byte_array_set_size(out, 0);
    redirect_bitmap_encode(out, 0, 0x40000, 0x40000, map);
    redirect_bitmap_decode(&b, &two, out->data, out->len, &error_abort);
    redirect_bitmap_or(back, &b);
    g_assert_true(bitmap_equal(map, back, 0x80000));
    g_assert_cmpuint(redirect_bitmap_or(back, &b), ==, 0);
}

/* More blocks than one message holds */
static void test_many_blocks(void)
{
    RedirectBlocks many = { .n = PAGELINK_MAX_BLOCKS };
    RedirectBlocks got = { .expected = PAGELINK_MAX_BLOCKS };
    unsigned messages = 0;

    many.block = g_new0(RedirectBlock, many.n);
    for (uint32_t i = 0; i < many.n; i++) {
        many.block[i].pages = i + 1;
        memset(many.block[i].name, 'a' + i % 26, PAGELINK_MAX_BLOCK_NAME);
    }
    for (uint32_t i = 0; i < many.n; messages++) {
        g_autoptr(GByteArray) out = g_byte_array_new();

        i += redirect_blocks_encode(out, &many, i);
        g_assert_cmpuint(out->len, <=, STRATEGY_MSG_MAX_LEN);
        redirect_blocks_decode(&got, out->data, out->len, &error_abort);
        g_assert_cmpuint(got.n, ==, i);
    }
    g_assert_cmpuint(messages, >, 1);
    g_assert_cmpmem(got.block, got.n * sizeof(*got.block), many.block,
                    many.n * sizeof(*many.block));
    g_free(many.block);
    g_free(got.block);
}

static void test_return_path(void)
{
    RedirectRp rp;
    g_autoptr(GByteArray) ready = make_rp(REDIRECT_RP_READY);
    g_autoptr(GByteArray) refused = make_rp(REDIRECT_RP_REFUSED);
    g_autoptr(GByteArray) have = make_rp(REDIRECT_RP_HAVE);
    g_autoptr(GByteArray) relay = make_rp(REDIRECT_RP_RELAY);
    g_autoptr(GByteArray) accepted = make_rp(REDIRECT_RP_ACCEPTED);

    redirect_rp_decode(&rp, &two, ready->data, ready->len, &error_abort);
    g_assert_cmpint(rp.type, ==, REDIRECT_RP_READY);
    g_assert_true(rp.ready.tls);
    g_assert_cmpstr(rp.ready.address, ==, "unix:/x");

    redirect_rp_decode(&rp, &two, refused->data, refused->len, &error_abort);
    g_assert_cmpint(rp.type, ==, REDIRECT_RP_REFUSED);
    g_assert_cmpstr(rp.sentence, ==, "no ?room");

    redirect_rp_decode(&rp, &two, have->data, have->len, &error_abort);
    g_assert_cmpint(rp.type, ==, REDIRECT_RP_HAVE);
    g_assert_cmpuint(rp.have.block, ==, 1);
    g_assert_cmpuint(rp.have.first, ==, 0);
    g_assert_cmpuint(rp.have.n, ==, 9);
    g_assert_cmpuint(rp.have.bits[1], ==, 1);

    redirect_rp_decode(&rp, &two, relay->data, relay->len, &error_abort);
    g_assert_cmpint(rp.type, ==, REDIRECT_RP_RELAY);
    g_assert_cmpuint(rp.relay.state, ==, REDIRECT_RELAY_DONE);
    g_assert_cmpuint(rp.relay.pages, ==, 5);
    g_assert_cmpuint(rp.relay.zero, ==, 4);
    g_assert_cmpuint(rp.relay.duplicates, ==, 3);
    g_assert_cmpuint(rp.relay.bytes, ==, 1ull << 40);

    redirect_rp_decode(&rp, &two, accepted->data, accepted->len, &error_abort);
    g_assert_cmpint(rp.type, ==, REDIRECT_RP_ACCEPTED);
}

/* A sentence that is too long is cut, a HAVE at its limit fits */
static void test_longest(void)
{
    g_autofree char *sentence = g_strnfill(2000, 'x');
    uint8_t buf[REDIRECT_RP_MAX_LEN];
    uint8_t bits[REDIRECT_MAX_HAVE_PAGES / 8] = { 0 };
    RedirectBitmap have = {
        .n = REDIRECT_MAX_HAVE_PAGES, .bits = bits, .first = 64,
    };
    RedirectRp rp;
    size_t len = redirect_rp_encode_refused(buf, sentence);

    g_assert_cmpuint(len, <=, REDIRECT_RP_MAX_LEN);
    redirect_rp_decode(&rp, NULL, buf, len, &error_abort);
    g_assert_cmpuint(strlen(rp.sentence), ==, REDIRECT_MAX_SENTENCE);
    len = redirect_rp_encode_have(buf, &have);
    g_assert_cmpuint(len, <=, REDIRECT_RP_MAX_LEN);
    redirect_rp_decode(&rp, &two, buf, len, &error_abort);
    g_assert_cmpuint(rp.have.n, ==, REDIRECT_MAX_HAVE_PAGES);
}

/* The length of each message follows from its content: no other will do */
static void test_cut_short(void)
{
    struct {
        char what;
        GByteArray *good;
    } cases[] = {
        { 's', make_setup() },
        { 'o', make_order() },
        { 'b', make_blocks() },
        { 'm', make_bitmap() },
        { 'r', make_rp(REDIRECT_RP_READY) },
        { 'r', make_rp(REDIRECT_RP_REFUSED) },
        { 'r', make_rp(REDIRECT_RP_HAVE) },
        { 'r', make_rp(REDIRECT_RP_RELAY) },
        { 'r', make_rp(REDIRECT_RP_ACCEPTED) },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        GByteArray *good = cases[i].good;

        g_assert_true(decode(cases[i].what, good->data, good->len,
                             &error_abort));
        for (size_t len = 0; len < good->len; len++) {
            Error *err = NULL;
            bool ok = decode(cases[i].what, good->data, len, &err);

            assert_refused(ok, err, "redirect: malformed");
        }
        g_byte_array_append(good, (const uint8_t *)"", 1);
        {
            Error *err = NULL;
            bool ok = decode(cases[i].what, good->data, good->len, &err);

            assert_refused(ok, err, "redirect: malformed");
        }
        g_byte_array_unref(good);
    }
}

/* A good message in which one number is replaced */
static void test_lies(void)
{
    struct {
        char what;
        GByteArray *good;
        unsigned at, bytes;
        uint64_t value;
        const char *named;
    } cases[] = {
        { 's', make_setup(), 32, 4, 0, "number 0" },
        { 's', make_setup(), 36, 4, 0, "0 blocks" },
        { 's', make_setup(), 36, 4, PAGELINK_MAX_BLOCKS + 1, "1025 blocks" },
        { 'o', make_order(), 32, 4, 0, "number 0" },
        { 'o', make_order(), 36, 4, 0, "0 blocks" },
        { 'o', make_order(), 40, 2, 2, "flags" },
        { 'o', make_order(), 46, 2, 1, "reserved" },
        { 'o', make_order(), 42, 2, 0, "address of 0" },
        { 'o', make_order(), 42, 2, REDIRECT_MAX_ADDRESS + 1, "address of" },
        { 'o', make_order(), 44, 2, REDIRECT_MAX_HOSTNAME + 1, "host name" },
        { 'o', make_order(), 68, 1, '\n', "printable" },
        { 'b', make_blocks(), 0, 4, 1, "from 1" },
        { 'b', make_blocks(), 4, 4, 0, "0 more" },
        { 'b', make_blocks(), 4, 4, 3, "3 more" },
        { 'b', make_blocks(), 4, 4, 1, "too many" },
        { 'b', make_blocks(), 8, 8, 0, "0 pages" },
        { 'b', make_blocks(), 8, 8, PAGELINK_MAX_BLOCK_PAGES + 1, "pages" },
        { 'b', make_blocks(), 16, 1, 0, "name" },
        { 'b', make_blocks(), 16, 1, 255, "ends" },
        { 'b', make_blocks(), 17, 1, 0, "name" },
        { 'm', make_bitmap(), 0, 2, 1, "reserved" },
        { 'm', make_bitmap(), 2, 2, 2, "block 2" },
        { 'm', make_bitmap(), 4, 4, 0, "0 pages" },
        { 'm', make_bitmap(), 4, 4, REDIRECT_MAX_BITMAP_PAGES + 1, "pages" },
        { 'm', make_bitmap(), 4, 4, 13, "beyond" },
        { 'm', make_bitmap(), 4, 4, 17, "bytes" },
        { 'm', make_long_bitmap(), 0, 2, 0, "not there" },
        { 'm', make_bitmap(), 8, 8, 1, "begins" },
        { 'm', make_bitmap(), 8, 8, 64, "not there" },
        { 'm', make_bitmap(), 8, 8, -64, "not there" },
        { 'r', make_rp(REDIRECT_RP_READY), 0, 2, 0, "type 0" },
        { 'r', make_rp(REDIRECT_RP_READY), 0, 2, 6, "type 6" },
        { 'r', make_rp(REDIRECT_RP_READY), 2, 2, 2, "flags" },
        { 'r', make_rp(REDIRECT_RP_READY), 4, 2, 0, "address of 0" },
        { 'r', make_rp(REDIRECT_RP_READY), 8, 1, 0x80, "printable" },
        { 'r', make_rp(REDIRECT_RP_REFUSED), 2, 2, 1, "sentence" },
        { 'r', make_rp(REDIRECT_RP_HAVE), 2, 2, 2, "block 2" },
        { 'r', make_rp(REDIRECT_RP_HAVE), 4, 4, 0, "0 pages" },
        { 'r', make_rp(REDIRECT_RP_HAVE), 4, 4, REDIRECT_MAX_HAVE_PAGES + 1,
          "pages" },
        { 'r', make_rp(REDIRECT_RP_HAVE), 8, 8, 32, "begins" },
        { 'r', make_rp(REDIRECT_RP_RELAY), 2, 2, 0, "state 0" },
        { 'r', make_rp(REDIRECT_RP_RELAY), 2, 2, 4, "state 4" },
        { 'r', make_rp(REDIRECT_RP_RELAY), 4, 4, 1, "reserved" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *at = cases[i].good->data + cases[i].at;
        Error *err = NULL;
        bool ok;

        switch (cases[i].bytes) {
        case 1:
            *at = cases[i].value;
            break;
        case 2:
            stw_be_p(at, cases[i].value);
            break;
        case 4:
            stl_be_p(at, cases[i].value);
            break;
        case 8:
            stq_be_p(at, cases[i].value);
            break;
        }
        ok = decode(cases[i].what, cases[i].good->data, cases[i].good->len,
                    &err);
        assert_refused(ok, err, cases[i].named);
        g_byte_array_unref(cases[i].good);
    }
}

static void test_addresses(void)
{
    static const char *const good[] = {
        "tcp:192.0.2.1:4444", "tcp:[2001:db8::1]:1", "tcp:host.example:0",
        "unix:/run/x.relay",
    };
    static const char *const bad[] = {
        "fd:3", "vsock:3:4", "192.0.2.1:4444", "", "unix:",
    };
    SocketAddress fd = { .type = SOCKET_ADDRESS_TYPE_FD };
    SocketAddress unix_ = { .type = SOCKET_ADDRESS_TYPE_UNIX };
    g_autofree char *path = g_strnfill(1000, '/');
    char control[] = "/\n";
    Error *err = NULL;
    char *text;

    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        SocketAddress *a = redirect_address_parse(good[i], &error_abort);

        text = redirect_address_print(a, &error_abort);
        g_assert_cmpstr(text, ==, good[i]);
        g_free(text);
        qapi_free_SocketAddress(a);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        err = NULL;
        g_assert_null(redirect_address_parse(bad[i], &err));
        error_free(err);
    }
    err = NULL;
    text = redirect_address_print(&fd, &err);
    assert_refused(text, err, "'fd'");
    err = NULL;
    unix_.u.q_unix.path = path;
    text = redirect_address_print(&unix_, &err);
    assert_refused(text, err, "too long");
    err = NULL;
    unix_.u.q_unix.path = control;
    text = redirect_address_print(&unix_, &err);
    assert_refused(text, err, "printable");
}

static void on_ready(const RedirectReady *ready, void *opaque)
{
    g_string_append(opaque, "ready ");
}

static void on_refused(const char *sentence, void *opaque)
{
    g_string_append(opaque, "refused ");
}

static void on_have(const RedirectBitmap *have, void *opaque)
{
    g_string_append(opaque, "have ");
}

static void on_relay(const RedirectRelay *relay, void *opaque)
{
    g_string_append(opaque, "relay ");
}

static void on_accepted(void *opaque)
{
    g_string_append(opaque, "accepted ");
}

static void test_dispatch(void)
{
    static const RedirectReturnPathOps ops = {
        .ready = on_ready, .refused = on_refused, .have = on_have,
        .relay = on_relay, .accepted = on_accepted,
    };
    g_autoptr(GString) seen = g_string_new(NULL);
    Error *err = NULL;
    bool ok;

    for (uint16_t type = REDIRECT_RP_READY; type <= REDIRECT_RP_ACCEPTED;
         type++) {
        g_autoptr(GByteArray) rp = make_rp(type);

        redirect_return_path_handle(&ops, &two, rp->data, rp->len, seen,
                                    &error_abort);
    }
    g_assert_cmpstr(seen->str, ==, "ready refused have relay accepted ");
    ok = redirect_return_path_handle(&ops, &two, (const uint8_t *)"\0\7", 2,
                                     seen, &err);
    assert_refused(ok, err, "type 7");
    g_assert_cmpstr(seen->str, ==, "ready refused have relay accepted ");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/strategy/wire/round-trip", test_round_trip);
    g_test_add_func("/strategy/wire/bitmap", test_bitmap);
    g_test_add_func("/strategy/wire/many-blocks", test_many_blocks);
    g_test_add_func("/strategy/wire/return-path", test_return_path);
    g_test_add_func("/strategy/wire/longest", test_longest);
    g_test_add_func("/strategy/wire/cut-short", test_cut_short);
    g_test_add_func("/strategy/wire/lies", test_lies);
    g_test_add_func("/strategy/wire/addresses", test_addresses);
    g_test_add_func("/strategy/wire/dispatch", test_dispatch);
    return g_test_run();
}
