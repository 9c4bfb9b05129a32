/*
 * Unit tests of relay and sink, over real sockets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: whoever comes first, the new destination ends up with what the
 * source sent where it sent anything, else with what the old destination
 * holds; the source learns of each page that arrived, and of nothing else;
 * memory is given back only after that; and neither side outlives its end,
 * its peer's, or a peer that lies.
 */
#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "crypto/tlscredspsk.h"
#include "migration/memserver/codec.h"
#include "migration/strategy/redirect/owed.h"
#include "migration/strategy/redirect/relay.h"
#include "migration/strategy/redirect/sink.h"
#include "migration/strategy/redirect/sink-int.h"

#define PAGE        PAGELINK_PAGE_SIZE
#define RAM_PAGES   10000
#define ROM_PAGES   40

static RedirectBlock block_table[] = {
    { "ram", RAM_PAGES }, { "rom", ROM_PAGES },
};
static const RedirectBlocks blocks = {
    .block = block_table, .n = 2, .expected = 2
};

/* The new destination, and what the source hears of it */
typedef struct Bench {
    uint8_t *to[2];
    RedirectMerge *merge;
    RedirectSink *sink;
    RedirectSession session;
    char *path;
    QCryptoTLSCreds *server, *client;

    QemuMutex lock;             /* of what follows */
    RedirectOwed *owed;
    unsigned long *received;    /* of ram */
    GArray *states;             /* REDIRECT_RELAY_*, without repetitions */
    RedirectRelay relay;        /* the last one */
    uint64_t reported;

    /* The old destination */
    uint8_t *from[2];
    RedirectRelaySender *sender;
    unsigned long *released;    /* of ram */
    uint64_t max_rate;          /* atomic */
    unsigned asked;             /* for max_rate; atomic */
    int64_t retry_ms;
    bool done;                  /* main loop */
} Bench;

static void on_report(const void *buf, size_t len, void *opaque)
{
    Bench *b = opaque;
    RedirectRp rp;

    redirect_rp_decode(&rp, &blocks, buf, len, &error_abort);
    QEMU_LOCK_GUARD(&b->lock);
    if (rp.type == REDIRECT_RP_HAVE) {
        uint64_t n = redirect_owed_have(b->owed, &rp.have);

        g_assert_cmpuint(n, >, 0);
        b->reported += n;
        return;
    }
    g_assert_cmpuint(rp.type, ==, REDIRECT_RP_RELAY);
    if (b->relay.state != rp.relay.state) {
        g_array_append_val(b->states, rp.relay.state);
    }
    b->relay = rp.relay;
}

static void on_received(unsigned block, uint64_t page, void *opaque)
{
    Bench *b = opaque;

    if (block == 0) {
        g_assert_false(test_bit(page, b->received));
        set_bit_atomic(page, b->received);
    }
}

static void start_sink(Bench *b, bool listen)
{
    SocketAddress address = { .type = SOCKET_ADDRESS_TYPE_UNIX };
    RedirectSinkOptions o = {
        .session = b->session, .blocks = &blocks, .merge = b->merge,
        .listen = listen ? &address : NULL, .tls_creds = b->server,
        .report = on_report, .received = on_received, .opaque = b,
    };

    address.u.q_unix.path = b->path;
    b->sink = redirect_sink_new(&o, &error_abort);
}

static uint8_t value_of(uint64_t page)
{
    return page % 5 ? page % 200 + 1 : 0;
}

/* Everything is owed, until the test says otherwise */
static Bench *bench_new(void)
{
    Bench *b = g_new0(Bench, 1);
    static unsigned number;

    qemu_mutex_init(&b->lock);
    b->path = g_strdup_printf("%s/strategy-relay-%d-%u", g_get_tmp_dir(),
                              getpid(), number++);
    b->session = (RedirectSession) {
        .uuid = "uuid", .key = "key", .number = 4
    };
    b->merge = redirect_merge_new();
    b->owed = redirect_owed_new(&blocks);
    b->states = g_array_new(false, false, sizeof(uint16_t));
    b->received = bitmap_new(RAM_PAGES);
    b->released = bitmap_new(RAM_PAGES);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pages = block_table[i].pages;
        g_autofree unsigned long *none = bitmap_new(pages);

        b->to[i] = qemu_memalign(PAGE, pages * PAGE);
        b->from[i] = qemu_memalign(PAGE, pages * PAGE);
        memset(b->to[i], 0xee, pages * PAGE);
        for (uint64_t page = 0; page < pages; page++) {
            memset(b->from[i] + page * PAGE, value_of(page), PAGE);
        }
        redirect_merge_add(b->merge, b->to[i], pages);
        redirect_owed_set_clean(b->owed, i, none);
    }
    return b;
}

static uint64_t on_max_rate(void *opaque)
{
    Bench *b = opaque;

    qatomic_inc(&b->asked);
    return qatomic_read(&b->max_rate);
}

static bool on_release(unsigned region, uint64_t first, uint64_t n,
                       bool arrived, void *opaque)
{
    Bench *b = opaque;

    if (region == 0) {
        for (uint64_t page = first; page < first + n; page++) {
            g_assert_false(test_bit(page, b->released));
            set_bit_atomic(page, b->released);
            /* Whoever reads it again sends rubbish */
            memset(b->from[0] + page * PAGE, 0xdd, PAGE);
        }
    }
    return true;
}

static void on_done(void *opaque)
{
    ((Bench *)opaque)->done = true;
}

static void start_relay(Bench *b, unsigned connections)
{
    SocketAddress address = { .type = SOCKET_ADDRESS_TYPE_UNIX };
    RedirectRelayOptions o = {
        .session = b->session, .addr = &address, .tls_creds = b->client,
        .connections = connections, .nregions = 2,
        .retry_ms = b->retry_ms, .max_rate = on_max_rate,
        .release = on_release, .done = on_done, .opaque = b,
    };

    address.u.q_unix.path = b->path;
    o.regions = g_new0(RedirectRelayRegion, 2);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pages = block_table[i].pages, first = 0;
        unsigned block = 0;
        g_autoptr(GByteArray) out = g_byte_array_new();

        o.regions[i] = (RedirectRelayRegion) {
            .name = g_strdup(block_table[i].name), .host = b->from[i],
            .pages = pages, .owed = bitmap_new(pages),
        };
        while (redirect_owed_encode(b->owed, out, &block, &first)) {
            RedirectBitmap map;

            redirect_bitmap_decode(&map, &blocks, out->data, out->len,
                                   &error_abort);
            if (map.block == i) {
                redirect_bitmap_or(o.regions[i].owed, &map);
            }
            g_byte_array_set_size(out, 0);
        }
    }
    b->sender = redirect_relay_start(&o);
}

static RedirectRelayStatus wait_relay(Bench *b, RedirectRelayFigures *f)
{
    while (!b->done) {
        main_loop_wait(false);
    }
    redirect_relay_query(b->sender, f);
    if (f->error) {
        g_test_message("%s", f->error);
    }
    return f->status;
}

static unsigned last_state(Bench *b)
{
    QEMU_LOCK_GUARD(&b->lock);
    return b->states->len ? g_array_index(b->states, uint16_t,
                                          b->states->len - 1) : 0;
}

static void await_state(Bench *b, unsigned state)
{
    while (last_state(b) != state) {
        g_thread_yield();
    }
}

static void bench_free(Bench *b)
{
    redirect_relay_free(b->sender);
    redirect_sink_free(b->sink);
    redirect_merge_free(b->merge);
    redirect_owed_free(b->owed);
    g_array_free(b->states, true);
    for (unsigned i = 0; i < 2; i++) {
        qemu_vfree(b->to[i]);
        qemu_vfree(b->from[i]);
    }
    g_free(b->received);
    g_free(b->released);
    if (b->server) {
        object_unparent(OBJECT(b->server));
        object_unparent(OBJECT(b->client));
    }
    unlink(b->path);
    g_free(b->path);
    qemu_mutex_destroy(&b->lock);
    g_free(b);
}

static void assert_page(Bench *b, unsigned block, uint64_t page,
                        uint8_t value)
{
    uint8_t *p = b->to[block] + page * PAGE;

    if (p[0] != value || memcmp(p, p + 1, PAGE - 1)) {
        g_test_message("page %" PRIu64 " of block %u: 0x%x, not 0x%x", page,
                       block, p[0], value);
    }
    g_assert_true(p[0] == value && !memcmp(p, p + 1, PAGE - 1));
}

/* All of it comes from the relay */
static void whole(Bench *b, unsigned connections)
{
    RedirectRelayFigures f;
    RedirectMergeCounts c;

    start_sink(b, true);
    g_assert_true(g_str_has_prefix(redirect_sink_address(b->sink), "unix:"));
    start_relay(b, connections);
    g_assert_cmpint(wait_relay(b, &f), ==,
                    REDIRECT_RELAY_STATUS_COMPLETED);
    g_assert_null(f.error);
    g_assert_cmpuint(f.pages, ==, RAM_PAGES + ROM_PAGES);
    g_assert_cmpuint(f.zero, ==, (RAM_PAGES + ROM_PAGES) / 5);
    g_assert_cmpuint(f.bytes, >, f.pages * 4 / 5 * PAGE);
    await_state(b, REDIRECT_RELAY_DONE);
    g_assert_cmpuint(redirect_sink_rate(b->sink), >, 0);
    /* It is over, so that time does not count any more */
    g_assert_cmpint(b->sink->end_ms, >=, b->sink->start_ms);
    redirect_sink_free(g_steal_pointer(&b->sink));
    g_assert_cmpuint(b->states->len, ==, 2);
    g_assert_cmpuint(b->relay.pages, ==, RAM_PAGES + ROM_PAGES);
    g_assert_cmpuint(b->relay.zero, ==, f.zero);
    g_assert_cmpuint(b->relay.duplicates, ==, 0);
    g_assert_cmpuint(redirect_owed_left(b->owed), ==, 0);
    g_assert_cmpuint(b->reported, ==, RAM_PAGES + ROM_PAGES);
    g_assert_true(bitmap_full(b->received, RAM_PAGES));
    g_assert_true(bitmap_full(b->released, RAM_PAGES));
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t page = 0; page < block_table[i].pages; page++) {
            assert_page(b, i, page, value_of(page));
        }
    }
    redirect_merge_counts(b->merge, &c);
    g_assert_cmpuint(c.relay, ==, RAM_PAGES + ROM_PAGES);
    bench_free(b);
}

static void test_whole(void)
{
    whole(bench_new(), 1);
}

static void test_several_connections(void)
{
    whole(bench_new(), 3);
}

static QCryptoTLSCreds *make_creds(const char *endpoint, const char *id,
                                   const char *dir)
{
    return QCRYPTO_TLS_CREDS(object_new_with_props(
        TYPE_QCRYPTO_TLS_CREDS_PSK, object_get_objects_root(), id,
        &error_abort, "endpoint", endpoint, "dir", dir, "priority", "NORMAL",
        NULL));
}

static void test_tls(void)
{
#ifdef CONFIG_GNUTLS
    g_autofree char *dir = g_dir_make_tmp("strategy-relay-XXXXXX", NULL);
    g_autofree char *keys = g_strdup_printf("%s/keys.psk", dir);
    Bench *b = bench_new();

    g_assert_true(g_file_set_contents(keys, "qemu:009d5638c40fde0c\n", -1,
                                      NULL));
    b->server = make_creds("server", "creds-server", dir);
    b->client = make_creds("client", "creds-client", dir);
    whole(b, 2);
    unlink(keys);
    rmdir(dir);
#else
    g_test_skip("built without GNUTLS");
#endif
}

/* Only some pages are owed, in a pattern that no chunk or word fits */
static void test_some(void)
{
    Bench *b = bench_new();
    g_autofree unsigned long *dirty = bitmap_new(RAM_PAGES);
    RedirectRelayFigures f;
    uint64_t owed;

    bitmap_fill(dirty, RAM_PAGES);
    for (uint64_t page = 4100; page < RAM_PAGES; page += 17) {
        clear_bit(page, dirty);
    }
    redirect_owed_drop_dirty(b->owed, 0, dirty);
    bitmap_fill(dirty, ROM_PAGES);
    redirect_owed_drop_dirty(b->owed, 1, dirty);
    owed = redirect_owed_left(b->owed);
    start_sink(b, true);
    start_relay(b, 1);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    g_assert_cmpuint(f.owed, ==, owed);
    g_assert_cmpuint(f.pages, ==, owed);
    await_state(b, REDIRECT_RELAY_DONE);
    g_assert_cmpuint(redirect_owed_left(b->owed), ==, 0);
    for (uint64_t page = 0; page < RAM_PAGES; page++) {
        bool sent = page >= 4100 && (page - 4100) % 17 == 0;

        assert_page(b, 0, page, sent ? value_of(page) : 0xee);
    }
    g_assert_true(bitmap_full(b->released, RAM_PAGES));
    bench_free(b);
}

/* What the source has sent is not sent by the relay any more */
static void test_skip(void)
{
    Bench *b = bench_new();
    RedirectRegion *ram = redirect_merge_region(b->merge, 0);
    RedirectRelayFigures f;

    for (uint64_t page = 5000; page < RAM_PAGES; page++) {
        redirect_merge_source(b->merge, ram, page);
    }
    start_sink(b, true);
    start_relay(b, 1);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    g_assert_cmpuint(f.skipped, ==, 5000);
    g_assert_cmpuint(f.pages, ==, 5000 + ROM_PAGES);
    assert_page(b, 0, 4999, value_of(4999));
    assert_page(b, 0, 5000, 0xee);
    bench_free(b);
}

/* Wait until the relay is in the middle of it */
static void await_pages(Bench *b, uint64_t pages)
{
    RedirectRelay relay;

    do {
        g_thread_yield();
        redirect_sink_query(b->sink, &relay);
    } while (relay.pages < pages);
}

/*
 * What the source sends after the relay has asked for it arrives twice: the
 * relay learns that the second copy was dropped
 */
static void test_duplicates(void)
{
    Bench *b = bench_new();
    RedirectRegion *ram = redirect_merge_region(b->merge, 0);
    RedirectRelayFigures f;

    /* One page leaves, which is behind the answer, the next much later */
    b->max_rate = 1;
    start_sink(b, true);
    start_relay(b, 1);
    await_pages(b, 1);
    for (uint64_t page = 100; page < 200; page++) {
        redirect_merge_source(b->merge, ram, page);
    }
    qatomic_set(&b->max_rate, 0);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    g_assert_cmpuint(f.dropped, ==, 100);
    g_assert_cmpuint(f.pages + f.skipped, ==, RAM_PAGES + ROM_PAGES);
    await_state(b, REDIRECT_RELAY_DONE);
    g_assert_cmpuint(b->relay.duplicates, ==, f.dropped);
    g_assert_cmpuint(b->relay.pages, ==, f.pages - f.dropped);
    bench_free(b);
}

#define SOURCE_VALUE 0xf0

typedef struct Source {
    Bench *b;
    unsigned seed;
    unsigned long *sent;
} Source;

/* Sends pages by chance and from the far end, some of them twice */
static void *source_main(void *opaque)
{
    Source *s = opaque;
    RedirectRegion *ram = redirect_merge_region(s->b->merge, 0);
    GRand *rand = g_rand_new_with_seed(s->seed);

    for (unsigned i = 0; i < 4000; i++) {
        uint64_t page = i % 2 ? RAM_PAGES - 1 - i / 2 :
                        g_rand_int_range(rand, 0, RAM_PAGES);

        redirect_merge_source(s->b->merge, ram, page);
        memset(s->b->to[0] + page * PAGE, SOURCE_VALUE, PAGE);
        set_bit(page, s->sent);
    }
    g_rand_free(rand);
    return NULL;
}

/* Source and relay send at once */
static void test_race(void)
{
    for (unsigned round = 0; round < 5; round++) {
        Bench *b = bench_new();
        Source s = {
            .b = b, .seed = round, .sent = bitmap_new(RAM_PAGES)
        };
        RedirectRelayFigures f;
        RedirectMergeCounts c;
        QemuThread thread;

        start_sink(b, true);
        start_relay(b, 1 + round % 2);
        qemu_thread_create(&thread, "source", source_main, &s,
                           QEMU_THREAD_JOINABLE);
        g_assert_cmpint(wait_relay(b, &f), ==,
                        REDIRECT_RELAY_STATUS_COMPLETED);
        qemu_thread_join(&thread);
        redirect_sink_free(g_steal_pointer(&b->sink));
        redirect_merge_counts(b->merge, &c);
        g_assert_cmpuint(f.pages, ==, c.relay + c.duplicates);
        g_assert_cmpuint(f.dropped, ==, c.duplicates);
        g_assert_cmpuint(b->reported, ==, c.relay);
        g_assert_cmpuint(c.relay - c.replaced + c.source, ==,
                         RAM_PAGES + ROM_PAGES);
        for (uint64_t page = 0; page < RAM_PAGES; page++) {
            assert_page(b, 0, page, test_bit(page, s.sent) ? SOURCE_VALUE
                                                           : value_of(page));
        }
        g_free(s.sent);
        bench_free(b);
    }
}

static void test_wrong_key(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;

    start_sink(b, true);
    b->session.key[15] ^= 1;
    start_relay(b, 1);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_FAILED);
    g_assert_nonnull(strstr(f.error, "wrong key"));
    g_free(f.error);
    g_assert_cmpuint(b->states->len, ==, 0);
    assert_page(b, 0, 0, 0xee);
    bench_free(b);
}

static void test_nobody_there(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;

    start_relay(b, 2);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_FAILED);
    g_assert_nonnull(strstr(f.error, b->path));
    g_free(f.error);
    bench_free(b);
}

/* The first connection is closed at once, and some more may be refused */
static void test_patience(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;
    int listener = unix_listen(b->path, &error_abort);

    b->retry_ms = 60000;
    start_relay(b, 1);
    close(accept(listener, NULL, NULL));
    close(listener);
    unlink(b->path);
    start_sink(b, true);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    g_assert_true(bitmap_full(b->released, RAM_PAGES));
    bench_free(b);
}

/* No faster than it may, whatever the number of connections */
static void test_max_rate(void)
{
    const uint64_t rate = 64 * MiB;
    const uint64_t batch = 64 * 1024 + PAGELINK_MAX_BATCH * (PAGE + 64);
    Bench *b = bench_new();
    int64_t start = g_get_monotonic_time();
    RedirectRelayFigures f;

    b->max_rate = rate;
    start_sink(b, true);
    start_relay(b, 2);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    /* The last batch of each has only left */
    g_assert_cmpint(g_get_monotonic_time() - start, >=,
                    (f.bytes - 2 * batch) * G_USEC_PER_SEC / rate);
    bench_free(b);
}

/* One that waits for its turn, which would take long, sees another rate */
static void test_rate_changes(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;
    unsigned before;

    b->max_rate = 1;
    start_sink(b, true);
    start_relay(b, 1);
    await_pages(b, 1);
    before = qatomic_read(&b->asked);
    while (qatomic_read(&b->asked) < before + 3) {
        g_thread_yield();
    }
    redirect_relay_query(b->sender, &f);
    g_assert_cmpuint(f.pages, ==, 1);
    qatomic_set(&b->max_rate, 0);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    bench_free(b);
}

/* Cut @n of two connections off in the middle */
static void cut_off(Bench *b, unsigned n, RedirectRelayFigures *f)
{
    unsigned joined;
    SinkConn *c;

    b->max_rate = 4 * MiB;
    start_sink(b, true);
    start_relay(b, 2);
    do {
        g_thread_yield();
        WITH_QEMU_LOCK_GUARD(&b->sink->lock) {
            joined = b->sink->joined;
        }
    } while (joined < 2);
    await_pages(b, 1);
    WITH_QEMU_LOCK_GUARD(&b->sink->lock) {
        QTAILQ_FOREACH(c, &b->sink->conns, next) {
            if (n) {
                n--;
                qio_channel_shutdown(QIO_CHANNEL(c->sioc),
                                     QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
            }
        }
    }
    qatomic_set(&b->max_rate, 0);
    wait_relay(b, f);
}

/* The other connection sends the chunks of the one that fails */
static void test_one_of_two_fails(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;

    cut_off(b, 1, &f);
    g_assert_cmpint(f.status, ==, REDIRECT_RELAY_STATUS_COMPLETED);
    await_state(b, REDIRECT_RELAY_DONE);
    g_assert_cmpuint(b->states->len, ==, 2);
    /* The connection that was cut off may report what it had read only now */
    while (redirect_owed_left(b->owed)) {
        g_thread_yield();
    }
    g_assert_true(bitmap_full(b->released, RAM_PAGES));
    for (uint64_t page = 0; page < RAM_PAGES; page++) {
        assert_page(b, 0, page, value_of(page));
    }
    bench_free(b);
}

static void test_both_fail(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;

    cut_off(b, 2, &f);
    g_assert_cmpint(f.status, ==, REDIRECT_RELAY_STATUS_FAILED);
    g_assert_nonnull(f.error);
    g_free(f.error);
    await_state(b, REDIRECT_RELAY_LOST);
    g_assert_cmpuint(redirect_owed_left(b->owed), >, 0);
    bench_free(b);
}

/* Make the relay stop in the middle: the sink waits for this lock */
static void hold_up(Bench *b)
{
    qemu_mutex_lock(&b->lock);
}

static void let_go(Bench *b)
{
    qemu_mutex_unlock(&b->lock);
}

static void test_cancel(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;

    start_sink(b, true);
    start_relay(b, 1);
    await_state(b, REDIRECT_RELAY_CONNECTED);
    hold_up(b);
    redirect_relay_cancel(b->sender);
    let_go(b);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_CANCELLED);
    await_state(b, REDIRECT_RELAY_LOST);
    g_assert_cmpuint(b->states->len, ==, 2);
    /* What the source has heard of has arrived */
    g_assert_cmpuint(b->reported, ==, b->relay.pages);
    bench_free(b);
}

/* The old destination goes away; another connection may take its place */
static void test_lost_and_back(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;

    start_sink(b, true);
    start_relay(b, 1);
    await_state(b, REDIRECT_RELAY_CONNECTED);
    hold_up(b);
    redirect_relay_cancel(b->sender);
    let_go(b);
    await_state(b, REDIRECT_RELAY_LOST);
    redirect_relay_free(b->sender);
    b->done = false;
    bitmap_zero(b->released, RAM_PAGES);
    for (uint64_t page = 0; page < RAM_PAGES; page++) {
        memset(b->from[0] + page * PAGE, value_of(page), PAGE);
    }
    start_relay(b, 1);
    g_assert_cmpint(wait_relay(b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    await_state(b, REDIRECT_RELAY_DONE);
    for (uint64_t page = 0; page < RAM_PAGES; page++) {
        assert_page(b, 0, page, value_of(page));
    }
    bench_free(b);
}

static void *free_sink(void *opaque)
{
    redirect_sink_free(opaque);
    return NULL;
}

/* The source has sent the rest: the relay is told that it may go */
static void test_released(void)
{
    Bench *b = bench_new();
    RedirectRelayFigures f;
    QemuThread thread;
    uint8_t *before;

    start_sink(b, true);
    start_relay(b, 1);
    await_pages(b, 1);
    hold_up(b);
    qemu_thread_create(&thread, "free", free_sink,
                       g_steal_pointer(&b->sink), QEMU_THREAD_JOINABLE);
    let_go(b);
    qemu_thread_join(&thread);
    /* Not one page is written from now on */
    before = g_memdup2(b->to[0], RAM_PAGES * PAGE);
    wait_relay(b, &f);
    if (f.status != REDIRECT_RELAY_STATUS_COMPLETED) {
        g_assert_cmpint(f.status, ==, REDIRECT_RELAY_STATUS_RELEASED);
        g_assert_null(f.error);
        g_assert_cmpuint(last_state(b), ==, REDIRECT_RELAY_CONNECTED);
    }
    g_assert_cmpmem(before, RAM_PAGES * PAGE, b->to[0], RAM_PAGES * PAGE);
    g_free(before);
    bench_free(b);
}

/* Freed while it connects, sends, or has ended: no callback afterwards */
static void test_free(void)
{
    for (unsigned i = 0; i < 20; i++) {
        Bench *b = bench_new();

        start_sink(b, true);
        start_relay(b, 1 + i % 3);
        if (i % 2) {
            await_pages(b, i * 100);
        }
        redirect_relay_free(g_steal_pointer(&b->sender));
        b->done = false;
        memset(b->from[0], 0xff, RAM_PAGES * PAGE);
        while (main_loop_wait(true), b->done) {
            g_assert_not_reached();
        }
        redirect_sink_free(g_steal_pointer(&b->sink));
        for (uint64_t page = 0; page < RAM_PAGES; page++) {
            g_assert_cmpuint(b->to[0][page * PAGE], !=, 0xff);
        }
        bench_free(b);
    }
}

/*
 * Peers that lie, as bytes on a socket
 */
typedef struct Peer {
    Bench *b;
    int fd;
} Peer;

static Peer peer_new(void)
{
    Peer p = { .b = bench_new() };
    QIOChannelSocket *sioc;
    int fds[2];

    start_sink(p.b, false);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    redirect_sink_add_channel(p.b->sink, sioc);
    object_unref(OBJECT(sioc));
    p.fd = fds[1];
    return p;
}

static void peer_free(Peer *p)
{
    close(p->fd);
    bench_free(p->b);
}

static void peer_send(Peer *p, uint16_t type, uint32_t count,
                      const void *body, uint32_t length)
{
    uint8_t head[sizeof(PageLinkHeader)];

    pagelink_encode_header(head, type, 0, length, count, 7);
    g_assert_cmpint(qemu_write_full(p->fd, head, sizeof(head)), ==,
                    sizeof(head));
    g_assert_cmpint(qemu_write_full(p->fd, body, length), ==, length);
}

static bool peer_read(Peer *p, void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(p->fd, (char *)buf + done, len - done);

        if (n <= 0) {
            return false;
        }
        done += n;
    }
    return true;
}

/* The next answer: its type, or the code of the ERROR as a negative number */
static int peer_answer(Peer *p, bool *fatal)
{
    uint8_t head[sizeof(PageLinkHeader)], body[PAGELINK_MAX_BITMAP_LENGTH];
    PageLinkFault error, fault;
    PageLinkHeader h;

    if (!peer_read(p, head, sizeof(head))) {
        return 0;
    }
    g_assert_true(pagelink_decode_header(head, &h, &fault));
    g_assert_true(peer_read(p, body, h.length));
    if (h.type != PAGELINK_ERROR) {
        return h.type;
    }
    g_assert_true(pagelink_decode_error(&h, body, &error, &fault));
    *fatal = h.flags & PAGELINK_ERROR_FATAL;
    return -(int)error.code;
}

static PageLinkHello good_hello(Bench *b)
{
    PageLinkHello hello = {
        .version_min = 1, .version_max = 1, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_BACKGROUND, .epoch = b->session.number,
    };

    memcpy(hello.uuid, b->session.uuid, sizeof(hello.uuid));
    memcpy(hello.key, b->session.key, sizeof(hello.key));
    return hello;
}

static int peer_hello(Peer *p, const PageLinkHello *hello, bool *fatal)
{
    uint8_t body[sizeof(*hello)];

    pagelink_encode_hello(body, hello);
    peer_send(p, PAGELINK_HELLO, 0, body, sizeof(body));
    return peer_answer(p, fatal);
}

static void peer_join(Peer *p)
{
    PageLinkHello hello = good_hello(p->b);
    bool fatal;

    g_assert_cmpint(peer_hello(p, &hello, &fatal), ==, PAGELINK_HELLO_ACK);
}

static void peer_block(Peer *p)
{
    uint8_t body[sizeof(PageLinkBlock) + PAGELINK_MAX_BLOCK_NAME];
    uint32_t length = pagelink_encode_block(body, 1, ROM_PAGES, "rom");
    bool fatal;

    peer_send(p, PAGELINK_BLOCK, 0, body, length);
    g_assert_cmpint(peer_answer(p, &fatal), ==, PAGELINK_ACK);
}

static void test_bad_hello(void)
{
    static const struct {
        size_t at;
        uint8_t value;
        int answer;
    } cases[] = {
        { offsetof(PageLinkHello, uuid), 'x', -PAGELINK_ERR_AUTH },
        { offsetof(PageLinkHello, key) + 3, 'x', -PAGELINK_ERR_AUTH },
        { offsetof(PageLinkHello, epoch) + 7, 3, -PAGELINK_ERR_STALE_EPOCH },
        { offsetof(PageLinkHello, epoch) + 7, 5, -PAGELINK_ERR_STALE_EPOCH },
        { offsetof(PageLinkHello, role), PAGELINK_ROLE_READER,
          -PAGELINK_ERR_ROLE },
        { offsetof(PageLinkHello, role), 9, -PAGELINK_ERR_PROTOCOL },
        { offsetof(PageLinkHello, version_min) + 1, 0,
          -PAGELINK_ERR_PROTOCOL },
        { offsetof(PageLinkHello, reserved), 1, -PAGELINK_ERR_PROTOCOL },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Peer p = peer_new();
        PageLinkHello hello = good_hello(p.b);
        uint8_t body[sizeof(hello)];
        bool fatal = false;

        pagelink_encode_hello(body, &hello);
        body[cases[i].at] = cases[i].value;
        peer_send(&p, PAGELINK_HELLO, 0, body, sizeof(body));
        g_assert_cmpint(peer_answer(&p, &fatal), ==, cases[i].answer);
        g_assert_true(fatal);
        g_assert_cmpint(peer_answer(&p, &fatal), ==, 0);
        g_assert_cmpuint(p.b->states->len, ==, 0);
        peer_free(&p);
    }
}

/* Requests that are refused, after which the connection goes on or not */
static void test_refusals(void)
{
    static const struct {
        uint16_t type;
        uint32_t count, length;
        uint64_t page;
        uint16_t block;
        int answer;
        bool fatal;
    } cases[] = {
        { PAGELINK_GET, 1, 16, 0, 1, -PAGELINK_ERR_UNSUPPORTED, false },
        { PAGELINK_DROP, 1, 24, 0, 1, -PAGELINK_ERR_UNSUPPORTED, false },
        { PAGELINK_STATUS_GET, 0, 0, 0, 0, -PAGELINK_ERR_UNSUPPORTED,
          false },
        { PAGELINK_PUT, 1, 24 + PAGE, 0, 0, -PAGELINK_ERR_UNKNOWN_BLOCK,
          false },
        { PAGELINK_PUT, 1, 24 + PAGE, 0, 2, -PAGELINK_ERR_UNKNOWN_BLOCK,
          false },
        { PAGELINK_PUT, 1, 24 + PAGE, ROM_PAGES, 1,
          -PAGELINK_ERR_OUT_OF_RANGE, false },
        { PAGELINK_PUT, 1, 24 + PAGE, UINT64_MAX, 1,
          -PAGELINK_ERR_PROTOCOL, true },
        { PAGELINK_PUT, 1, 24 + 2 * PAGE, 0, 1, -PAGELINK_ERR_PROTOCOL,
          true },
        { PAGELINK_PUT, 0, 0, 0, 1, -PAGELINK_ERR_PROTOCOL, true },
        { PAGELINK_HELLO, 0, 96, 0, 0, -PAGELINK_ERR_PROTOCOL, true },
        { PAGELINK_ACK, 0, 40, 0, 0, -PAGELINK_ERR_PROTOCOL, true },
        { 99, 0, 0, 0, 0, -PAGELINK_ERR_PROTOCOL, true },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree uint8_t *body = g_malloc0(24 + 3 * PAGE);
        Peer p = peer_new();
        bool fatal = false;

        peer_join(&p);
        peer_block(&p);
        stq_be_p(body, cases[i].page);
        if (cases[i].type == PAGELINK_PUT) {
            stw_be_p(body + 20, cases[i].block);
        } else if (cases[i].type == PAGELINK_GET) {
            stw_be_p(body + 8, cases[i].block);
        } else if (cases[i].type == PAGELINK_DROP) {
            stl_be_p(body + 16, 1);
            stw_be_p(body + 20, cases[i].block);
        }
        memset(body + 24, 0x77, PAGE);
        peer_send(&p, cases[i].type, cases[i].count, body, cases[i].length);
        g_assert_cmpint(peer_answer(&p, &fatal), ==, cases[i].answer);
        g_assert_cmpint(fatal, ==, cases[i].fatal);
        if (fatal) {
            g_assert_cmpint(peer_answer(&p, &fatal), ==, 0);
        } else {
            peer_send(&p, PAGELINK_SYNC, 0, NULL, 0);
            g_assert_cmpint(peer_answer(&p, &fatal), ==, PAGELINK_ACK);
        }
        for (uint64_t page = 0; page < ROM_PAGES; page++) {
            assert_page(p.b, 1, page, 0xee);
        }
        peer_free(&p);
    }
}

static void test_block_mismatch(void)
{
    static const struct {
        uint16_t block;
        uint64_t pages;
        const char *name;
    } cases[] = {
        { 1, ROM_PAGES, "ram" },
        { 1, ROM_PAGES + 1, "rom" },
        { 0, ROM_PAGES, "rom" },
        { 2, ROM_PAGES, "rom" },
    };
    Peer p = peer_new();

    peer_join(&p);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t body[sizeof(PageLinkBlock) + PAGELINK_MAX_BLOCK_NAME];
        uint32_t length = pagelink_encode_block(body, cases[i].block,
                                                cases[i].pages,
                                                cases[i].name);
        bool fatal = true;

        peer_send(&p, PAGELINK_BLOCK, 0, body, length);
        g_assert_cmpint(peer_answer(&p, &fatal), ==,
                        -PAGELINK_ERR_BLOCK_MISMATCH);
        g_assert_false(fatal);
    }
    peer_block(&p);
    peer_free(&p);
}

/* Half a message, then the end: a prefix of the pages, whole ones only */
static void test_half_put(void)
{
    g_autofree uint8_t *body = g_malloc0(3 * (24 + PAGE));
    uint8_t head[sizeof(PageLinkHeader)];
    Peer p = peer_new();

    peer_join(&p);
    peer_block(&p);
    for (unsigned i = 0; i < 3; i++) {
        stq_be_p(body + i * 24, i);
        stw_be_p(body + i * 24 + 20, 1);
    }
    memset(body + 72, 0x55, 3 * PAGE);
    pagelink_encode_header(head, PAGELINK_PUT, 0, 3 * (24 + PAGE), 3, 1);
    g_assert_cmpint(qemu_write_full(p.fd, head, sizeof(head)), ==,
                    sizeof(head));
    g_assert_cmpint(qemu_write_full(p.fd, body, 72 + 2 * PAGE + 100), ==,
                    72 + 2 * PAGE + 100);
    shutdown(p.fd, SHUT_WR);
    await_state(p.b, REDIRECT_RELAY_LOST);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *page = p.b->to[1] + i * PAGE;

        assert_page(p.b, 1, i, page[0]);
        g_assert_true(page[0] == 0x55 || page[0] == 0xee);
    }
    assert_page(p.b, 1, 2, 0xee);
    peer_free(&p);
}

static int add_silent(Bench *b)
{
    QIOChannelSocket *sioc;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    redirect_sink_add_channel(b->sink, sioc);
    object_unref(OBJECT(sioc));
    return fds[1];
}

/*
 * More connections than are allowed: who has said HELLO stays, the oldest of
 * the others makes room, so that the relay always comes in
 */
static void test_too_many(void)
{
    Peer p = peer_new(), late = { .b = p.b };
    int fds[REDIRECT_SINK_MAX_CONNECTIONS];
    char c;

    peer_join(&p);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = add_silent(p.b);
    }
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    late.fd = add_silent(p.b);
    peer_join(&late);
    peer_block(&p);
    close(late.fd);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        close(fds[i]);
    }
    peer_free(&p);
}

/* A peer that never reads does not hold up the end of the sink */
static void test_never_reads(void)
{
    g_autofree uint8_t *body = g_malloc0(16);
    Peer p = peer_new();

    peer_join(&p);
    peer_block(&p);
    stl_be_p(body + 8, ROM_PAGES);
    stw_be_p(body + 12, 1);
    qemu_socket_set_nonblock(p.fd);
    for (;;) {
        uint8_t buf[sizeof(PageLinkHeader) + 16];

        pagelink_encode_header(buf, PAGELINK_BITMAP_GET, 0, 16, 0, 1);
        memcpy(buf + sizeof(PageLinkHeader), body, 16);
        if (write(p.fd, buf, sizeof(buf)) != sizeof(buf)) {
            break;
        }
    }
    redirect_sink_free(g_steal_pointer(&p.b->sink));
    peer_free(&p);
}

/* A stranger who says a little every now and then is sent away, too */
static void test_slow_hello(void)
{
    /* Not at the very moment at which the sink has had enough */
    const int wait_ms = REDIRECT_SINK_HELLO_MS * 3 / 10;
    Peer p = peer_new();
    uint8_t head[sizeof(PageLinkHeader)];
    GPollFD fd = { .fd = p.fd, .events = G_IO_IN };
    unsigned sent = 0;

    pagelink_encode_header(head, PAGELINK_HELLO, 0, sizeof(PageLinkHello), 0,
                           1);
    while (g_poll(&fd, 1, wait_ms) == 0) {
        g_assert_cmpuint(sent, <, 20);
        g_assert_cmpint(write(p.fd, head + sent++, 1), ==, 1);
    }
    g_assert_cmpuint(p.b->states->len, ==, 0);
    peer_free(&p);
}

/*
 * How fast it is: -m perf -p /strategy/relay/throughput.  No criterion, since
 * the machine decides.
 */
#define PERF_PAGES  (128 * 1024)

static void ignore_report(const void *buf, size_t len, void *opaque)
{
}

/* Of all threads, user and system, seconds */
static double cpu_time(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void test_throughput(void)
{
    RedirectBlock block = { "ram", PERF_PAGES };
    RedirectBlocks one = { .block = &block, .n = 1, .expected = 1 };
    SocketAddress address = { .type = SOCKET_ADDRESS_TYPE_INET };
    RedirectSinkOptions so = {
        .session.number = 1, .blocks = &one, .merge = redirect_merge_new(),
        .listen = &address, .report = ignore_report,
    };
    RedirectRelayOptions ro = {
        .session.number = 1, .connections = 1, .nregions = 1,
        .done = on_done,
    };
    g_autofree uint8_t *to = g_malloc(PERF_PAGES * PAGE);
    g_autofree uint8_t *from = g_malloc(PERF_PAGES * PAGE);
    g_autofree char *host = g_strdup("127.0.0.1"), *port = g_strdup("0");
    Bench b = {};
    RedirectRelayFigures f;
    RedirectSink *sink;
    double cpu;

    /* The memory is there already, as in a guest that has been used */
    memset(to, 1, PERF_PAGES * PAGE);
    memset(from, 2, PERF_PAGES * PAGE);
    redirect_merge_add(so.merge, to, PERF_PAGES);
    address.u.inet.host = host;
    address.u.inet.port = port;
    sink = redirect_sink_new(&so, &error_abort);
    ro.addr = redirect_address_parse(redirect_sink_address(sink),
                                     &error_abort);
    ro.opaque = &b;
    ro.regions = g_new0(RedirectRelayRegion, 1);
    ro.regions[0] = (RedirectRelayRegion) {
        .name = g_strdup("ram"), .host = from, .pages = PERF_PAGES,
        .owed = bitmap_new(PERF_PAGES),
    };
    bitmap_fill(ro.regions[0].owed, PERF_PAGES);
    cpu = cpu_time();
    b.sender = redirect_relay_start(&ro);
    g_assert_cmpint(wait_relay(&b, &f), ==, REDIRECT_RELAY_STATUS_COMPLETED);
    g_test_message("%.2f GB/s, %.2f s of CPU time for each GB", f.rate / 1e9,
                   (cpu_time() - cpu) / (f.pages * PAGE / 1e9));
    qapi_free_SocketAddress((SocketAddress *)ro.addr);
    redirect_relay_free(b.sender);
    redirect_sink_free(sink);
    redirect_merge_free(so.merge);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*func)(void);
    } tests[] = {
        { "whole", test_whole },
        { "several-connections", test_several_connections },
        { "tls", test_tls },
        { "some", test_some },
        { "skip", test_skip },
        { "duplicates", test_duplicates },
        { "race", test_race },
        { "wrong-key", test_wrong_key },
        { "nobody-there", test_nobody_there },
        { "patience", test_patience },
        { "max-rate", test_max_rate },
        { "rate-changes", test_rate_changes },
        { "one-of-two-fails", test_one_of_two_fails },
        { "both-fail", test_both_fail },
        { "cancel", test_cancel },
        { "lost-and-back", test_lost_and_back },
        { "released", test_released },
        { "free", test_free },
        { "bad-hello", test_bad_hello },
        { "refusals", test_refusals },
        { "block-mismatch", test_block_mismatch },
        { "half-put", test_half_put },
        { "too-many", test_too_many },
        { "never-reads", test_never_reads },
        { "slow-hello", test_slow_hello },
    };

    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/strategy/relay/%s",
                                                tests[i].name);

        g_test_add_func(path, tests[i].func);
    }
    if (g_test_perf()) {
        g_test_add_func("/strategy/relay/throughput", test_throughput);
    }
    return g_test_run();
}
