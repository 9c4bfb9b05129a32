/*
 * memserver: sessions
 *
 * Proves: only the key opens a session, and a wrong one tells nothing; epochs
 * only rise; a take-over waits for the writers of the old epoch and shuts them
 * out, and meanwhile holds up no other session; quota and limit are told apart;
 * a session ends by its owner's word or by expiry, and its memory comes back;
 * none has more connections than it may.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "migration/memserver/session.h"

typedef struct Fixture {
    MsSlab *slab;
    MsFrameCache cache;
    MsSessions table;
    unsigned dying;
} Fixture;

static void on_dying(void *opaque)
{
    ((Fixture *)opaque)->dying++;
}

static void setup(Fixture *f, uint64_t max_pages, uint64_t quota)
{
    f->slab = ms_slab_new();
    ms_frame_cache_init(&f->cache, f->slab, false);
    f->dying = 0;
    ms_sessions_init(&f->table, max_pages, quota, 3, 4, on_dying, f);
}

static void teardown(Fixture *f)
{
    ms_sessions_destroy(&f->table, &f->cache);
    ms_frame_cache_drain(&f->cache);
    ms_slab_free(f->slab);
}

static PageLinkHello hello(char uuid, char key, uint16_t flags,
                           uint64_t epoch)
{
    PageLinkHello h = {
        .version_min = 1, .version_max = 1, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_BACKGROUND, .flags = flags, .epoch = epoch,
    };

    memset(h.uuid, uuid, sizeof(h.uuid));
    memset(h.key, key, sizeof(h.key));
    return h;
}

static MsSession *join(Fixture *f, char uuid, char key, uint16_t flags,
                       uint64_t epoch, uint32_t want)
{
    PageLinkHello h = hello(uuid, key, flags, epoch);
    PageLinkFault fault = { 0 };
    MsSession *s = ms_sessions_hello(&f->table, &h, &fault);

    if (want) {
        g_assert_null(s);
        g_assert_cmpuint(fault.code, ==, want);
    } else {
        g_assert_nonnull(s);
    }
    return s;
}

static void add_block(MsSession *s, uint64_t pages)
{
    MsAccount *culprit;

    g_assert_cmpint(ms_store_add_block(s->store, 0, pages, "ram", &culprit),
                    ==, MS_PUT_STORED);
}

static void test_key(void)
{
    PageLinkHello h = hello('a', 'k', 0, 1);
    PageLinkFault wrong, unknown;
    MsSession *s;
    Fixture f;
    int i;

    setup(&f, 1000, 0);
    join(&f, 'a', 'k', 0, 1, PAGELINK_ERR_AUTH);
    s = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    ms_session_disconnect(&f.table, s);
    /* Each single bit of the key matters */
    for (i = 0; i < 128; i++) {
        h.key[i / 8] ^= 1 << (i % 8);
        g_assert_null(ms_sessions_hello(&f.table, &h, &wrong));
        g_assert_cmpuint(wrong.code, ==, PAGELINK_ERR_AUTH);
        h.key[i / 8] ^= 1 << (i % 8);
    }
    /* An unknown session and a wrong key look the same */
    h = hello('b', 'k', 0, 1);
    g_assert_null(ms_sessions_hello(&f.table, &h, &unknown));
    g_assert_cmpstr(wrong.text, ==, unknown.text);
    g_assert_cmpuint(wrong.code, ==, unknown.code);
    s = join(&f, 'a', 'k', 0, 1, 0);
    ms_session_disconnect(&f.table, s);
    teardown(&f);
}

/* CREATE with another key neither tells of a session nor is in its way */
static void test_same_uuid(void)
{
    MsSession *a, *b, *again;
    Fixture f;

    setup(&f, 1000, 0);
    a = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    b = join(&f, 'a', 'x', PAGELINK_HELLO_CREATE, 7, 0);
    g_assert_true(a != b);
    again = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    g_assert_true(again == a);
    ms_session_disconnect(&f.table, again);
    ms_session_disconnect(&f.table, b);
    ms_session_disconnect(&f.table, a);
    teardown(&f);
}

static void test_epochs(void)
{
    MsSession *a, *b;
    PageLinkFault fault;
    PageLinkHello reader;
    Fixture f;

    setup(&f, 1000, 0);
    a = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 5, 0);
    join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 4, PAGELINK_ERR_STALE_EPOCH);
    join(&f, 'a', 'k', PAGELINK_HELLO_TAKE, 4, PAGELINK_ERR_STALE_EPOCH);
    join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 6, PAGELINK_ERR_STALE_EPOCH);
    g_assert_true(ms_session_write_begin(a, 5, &fault));
    ms_session_write_end(a);
    b = join(&f, 'a', 'k', PAGELINK_HELLO_TAKE, 6, 0);
    g_assert_true(a == b);
    g_assert_false(ms_session_write_begin(a, 5, &fault));
    g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_STALE_EPOCH);
    g_assert_true(ms_session_write_begin(a, 6, &fault));
    ms_session_write_end(a);
    /* The former owner cannot end it, but can read */
    g_assert_false(ms_session_end(&f.table, a, 5, NULL, &fault));
    reader = hello('a', 'k', 0, 0);
    reader.role = PAGELINK_ROLE_READER;
    g_assert_true(ms_sessions_hello(&f.table, &reader, &fault) == a);
    ms_session_disconnect(&f.table, a);
    ms_session_disconnect(&f.table, a);
    ms_session_disconnect(&f.table, b);
    teardown(&f);
}

typedef struct Writer {
    MsSession *s;
    QemuThread thread;
    uint64_t *shared;           /* epoch of the last write, atomic */
    uint64_t writes;
} Writer;

/* Writes the old epoch for as long as it may */
static void *writer_main(void *opaque)
{
    Writer *w = opaque;
    PageLinkFault fault;

    while (ms_session_write_begin(w->s, 1, &fault)) {
        qatomic_set(w->shared, 1);
        w->writes++;
        ms_session_write_end(w->s);
    }
    g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_STALE_EPOCH);
    return NULL;
}

/* After the take-over is answered, nothing of the old epoch is written */
static void test_take_over(void)
{
    int round, i;

    for (round = 0; round < 50; round++) {
        Writer writers[3];
        uint64_t shared = 0;
        MsSession *s, *mine;
        Fixture f;

        setup(&f, 1000, 0);
        s = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
        for (i = 0; i < 3; i++) {
            writers[i] = (Writer) { .s = s, .shared = &shared };
            qemu_thread_create(&writers[i].thread, "writer", writer_main,
                               &writers[i], QEMU_THREAD_JOINABLE);
        }
        while (!qatomic_read(&shared)) {
            g_thread_yield();
        }
        mine = join(&f, 'a', 'k', PAGELINK_HELLO_TAKE, 2, 0);
        qatomic_set(&shared, 2);
        for (i = 0; i < 3; i++) {
            qemu_thread_join(&writers[i].thread);
        }
        g_assert_cmpuint(qatomic_read(&shared), ==, 2);
        ms_session_disconnect(&f.table, s);
        ms_session_disconnect(&f.table, mine);
        teardown(&f);
    }
}

typedef struct Waiting {
    Fixture *f;
    MsSession *s;
    QemuThread thread;
    bool end;                   /* its session; otherwise take it over */
    bool done;                  /* atomic */
} Waiting;

static void *waiting_main(void *opaque)
{
    Waiting *w = opaque;
    PageLinkFault fault;

    if (w->end) {
        g_assert_true(ms_session_end(&w->f->table, w->s, 1, NULL, &fault));
    } else {
        w->s = join(w->f, 'a', 'k', PAGELINK_HELLO_TAKE, 2, 0);
    }
    qatomic_set(&w->done, true);
    return NULL;
}

/* What the neighbours of a session do; none of it may wait for its writers */
static void *neighbour_main(void *opaque)
{
    PageLinkSessionStatus records[3];
    PageLinkStatus sum = { 0 };
    Waiting *w = opaque;
    MsSession *b;

    b = join(w->f, 'b', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    ms_session_disconnect(&w->f->table, b);
    b = join(w->f, 'b', 'k', PAGELINK_HELLO_TAKE, 2, 0);
    ms_session_disconnect(&w->f->table, b);
    ms_sessions_status(&w->f->table, NULL, &sum, records, 3);
    ms_sessions_tick(&w->f->table, 0, 1000, INT64_MAX, 0, 0);
    qatomic_set(&w->done, true);
    return NULL;
}

/* Whoever waits for writers holds up that session only */
static void check_drain(bool end)
{
    int64_t give_up = g_get_monotonic_time() + 300 * G_USEC_PER_SEC;
    Waiting w = { .end = end }, neighbour = { 0 };
    PageLinkFault fault;
    MsSession *s;
    Fixture f;
    void *ticket;

    setup(&f, 1000, 0);
    s = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    w.f = neighbour.f = &f;
    w.s = s;
    g_assert_true(ms_session_write_begin(s, 1, &fault));
    qemu_thread_create(&w.thread, "waiting", waiting_main, &w,
                       QEMU_THREAD_JOINABLE);
    while (qatomic_read(&s->epoch) == 1 && !qatomic_read(&s->ended)) {
        g_thread_yield();
    }
    qemu_thread_create(&neighbour.thread, "neighbour", neighbour_main,
                       &neighbour, QEMU_THREAD_JOINABLE);
    while (!qatomic_read(&neighbour.done)) {
        g_assert_cmpint(g_get_monotonic_time(), <, give_up);
        g_thread_yield();
    }
    qemu_thread_join(&neighbour.thread);
    /* and it does wait */
    g_assert_false(qatomic_read(&w.done));
    ms_session_write_end(s);
    qemu_thread_join(&w.thread);
    g_assert_true(w.done);
    ms_session_disconnect(&f.table, s);
    if (end) {
        g_assert_true(ms_sessions_reap(&f.table, &f.cache, &ticket));
    } else {
        ms_session_disconnect(&f.table, w.s);
    }
    teardown(&f);
}

static void test_drain_take(void)
{
    check_drain(false);
}

static void test_drain_end(void)
{
    check_drain(true);
}

/* A session has so many connections, its new owner as many again */
static void test_connections(void)
{
    MsSession *s[9];
    Fixture f;
    int i;

    setup(&f, 1000, 0);
    for (i = 0; i < 4; i++) {
        s[i] = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    }
    join(&f, 'a', 'k', 0, 1, PAGELINK_ERR_LIMIT);
    /* A neighbour does not notice */
    ms_session_disconnect(&f.table,
                          join(&f, 'b', 'k', PAGELINK_HELLO_CREATE, 1, 0));
    /* Former owners that hang on do not keep out the new one */
    for (; i < 8; i++) {
        s[i] = join(&f, 'a', 'k', PAGELINK_HELLO_TAKE, 2, 0);
    }
    join(&f, 'a', 'k', PAGELINK_HELLO_TAKE, 2, PAGELINK_ERR_LIMIT);
    ms_session_disconnect(&f.table, s[--i]);
    s[i++] = join(&f, 'a', 'k', 0, 2, 0);
    while (i) {
        ms_session_disconnect(&f.table, s[--i]);
    }
    g_assert_cmpuint(s[0]->connections, ==, 0);
    teardown(&f);
}

static void test_end(void)
{
    MsSession *a, *b;
    PageLinkFault fault;
    void *ticket;
    Fixture f;

    setup(&f, 1000, 0);
    a = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    b = join(&f, 'a', 'k', 0, 1, 0);
    add_block(a, 1000);
    g_assert_true(ms_session_end(&f.table, a, 1, &f, &fault));
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 0);
    g_assert_false(ms_session_end(&f.table, b, 1, NULL, &fault));
    g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_SESSION_ENDED);
    g_assert_false(ms_session_write_begin(b, 1, &fault));
    join(&f, 'a', 'k', 0, 1, PAGELINK_ERR_AUTH);
    g_assert_false(ms_sessions_reap(&f.table, &f.cache, &ticket));
    ms_session_disconnect(&f.table, a);
    g_assert_cmpuint(f.dying, ==, 0);
    ms_session_disconnect(&f.table, b);
    g_assert_cmpuint(f.dying, ==, 1);
    g_assert_true(ms_sessions_reap(&f.table, &f.cache, &ticket));
    g_assert_true(ticket == &f);
    g_assert_cmpuint(f.table.account.used, ==, 0);
    teardown(&f);
}

static void put_one(Fixture *f, MsSession *s, uint64_t page, MsPut want)
{
    void *frame = ms_frame_get(&f->cache);
    MsWalk walk = { 0 };
    MsPut got;

    memset(frame, 1, PAGELINK_PAGE_SIZE);
    got = ms_store_put(s->store, &walk, &f->cache, ms_store_block(s->store, 0),
                       page, 1, frame, false, &(uint32_t) { 0 });
    ms_walk_end(s->store, &walk);
    g_assert_cmpint(got, ==, want);
    if (got != MS_PUT_STORED) {
        ms_frame_unref(&f->cache, frame);
    }
}

/* One session at its quota leaves the others their room */
static void test_quota(void)
{
    MsSession *a, *b, *c;
    MsAccount *culprit = NULL;
    Fixture f;
    int i;

    setup(&f, 50, 20);
    a = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    b = join(&f, 'b', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    c = join(&f, 'c', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    join(&f, 'd', 'k', PAGELINK_HELLO_CREATE, 1, PAGELINK_ERR_LIMIT);
    add_block(a, 100);
    add_block(b, 100);
    for (i = 0; i < 40; i++) {
        /* 4 for the session, 1 for the block, 2 for node and leaf */
        put_one(&f, a, i, i < 20 - 7 ? MS_PUT_STORED : MS_PUT_NO_MEMORY);
    }
    g_assert_cmpuint(a->account.used, ==, 20);
    g_assert_false(ms_account_charge(&a->account, 1, &culprit));
    g_assert_true(culprit == &a->account);
    for (i = 0; i < 40; i++) {
        put_one(&f, b, i, i < 20 - 7 ? MS_PUT_STORED : MS_PUT_NO_MEMORY);
    }
    g_assert_false(ms_account_charge(&c->account, 7, &culprit));
    g_assert_true(culprit == &f.table.account);
    g_assert_cmpuint(f.table.account.used, <=, 50);
    ms_session_disconnect(&f.table, a);
    ms_session_disconnect(&f.table, b);
    ms_session_disconnect(&f.table, c);
    teardown(&f);
}

static void test_expiry(void)
{
    PageLinkSessionStatus records[3];
    PageLinkStatus sum = { 0 };
    MsSession *a, *b;
    int64_t now;
    void *ticket;
    Fixture f;

    setup(&f, 1000, 0);
    a = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    b = join(&f, 'b', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    ms_session_disconnect(&f.table, b);
    now = b->used_ms;
    ms_sessions_tick(&f.table, now + 4000, 1000, 100000, 5000, 0);
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 2);
    /* Never without being asked to */
    ms_sessions_tick(&f.table, now + 1000000, 1000, 10000000, 0, 0);
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 2);
    /* One that is connected does not expire, however idle */
    ms_sessions_tick(&f.table, now + 6000, 1000, 100000, 5000, 0);
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 1);
    g_assert_true(ms_sessions_reap(&f.table, &f.cache, &ticket));
    g_assert_null(ticket);
    g_assert_cmpuint(ms_sessions_status(&f.table, NULL, &sum, records, 3), ==,
                     1);
    g_assert_cmpint(records[0].uuid[0], ==, 'a');
    g_assert_cmpuint(records[0].connections, ==, 1);
    ms_session_disconnect(&f.table, a);
    teardown(&f);
}

/* What a VM has taken over is its memory, however long it is cut off */
static void test_expiry_taken(void)
{
    MsSession *s;
    int64_t now;
    void *ticket;
    Fixture f;

    setup(&f, 1000, 0);
    s = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    ms_session_disconnect(&f.table, s);
    s = join(&f, 'a', 'k', PAGELINK_HELLO_TAKE, 2, 0);
    ms_session_disconnect(&f.table, s);
    now = s->used_ms;
    ms_sessions_tick(&f.table, now + 1000000, 1000, 10000000, 5000, 0);
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 1);
    ms_sessions_tick(&f.table, now + 6000, 1000, 10000000, 5000, 7000);
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 1);
    ms_sessions_tick(&f.table, now + 8000, 1000, 10000000, 0, 7000);
    g_assert_cmpuint(ms_sessions_count(&f.table), ==, 0);
    g_assert_true(ms_sessions_reap(&f.table, &f.cache, &ticket));
    teardown(&f);
}

static void test_rates(void)
{
    PageLinkSessionStatus r[3];
    PageLinkStatus sum = { 0 };
    MsSession *a, *b;
    Fixture f;

    setup(&f, 1000, 0);
    a = join(&f, 'a', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    b = join(&f, 'b', 'k', PAGELINK_HELLO_CREATE, 1, 0);
    a->counters.bytes_in = 5000;
    b->counters.bytes_out = 300;
    ms_sessions_tick(&f.table, a->used_ms, 500, 100000, 0, 0);
    g_assert_cmpuint(ms_sessions_status(&f.table, NULL, &sum, r, 3), ==, 2);
    g_assert_cmpuint(r[0].in_rate, ==, 10000);
    g_assert_cmpuint(r[1].out_rate, ==, 600);
    g_assert_cmpuint(sum.in_rate, ==, 10000);
    /* A session sees itself only */
    g_assert_cmpuint(ms_sessions_status(&f.table, b, &sum, r, 3), ==, 1);
    g_assert_cmpint(r[0].uuid[0], ==, 'b');
    ms_session_disconnect(&f.table, a);
    ms_session_disconnect(&f.table, b);
    teardown(&f);
}

/* A name may fill its field: there is a terminator behind it all the same */
static void test_long_name(void)
{
    PageLinkHello h = hello('a', 'k', PAGELINK_HELLO_CREATE, 1);
    PageLinkFault fault = { 0 };
    MsSession *s;
    Fixture f;

    setup(&f, 1000, 0);
    memset(h.name, 'N', sizeof(h.name));
    s = ms_sessions_hello(&f.table, &h, &fault);
    g_assert_nonnull(s);
    g_assert_cmpuint(strnlen(s->name, sizeof(s->name)), ==,
                     sizeof(h.name));
    ms_session_disconnect(&f.table, s);
    teardown(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/session/key", test_key);
    g_test_add_func("/memserver/session/same-uuid", test_same_uuid);
    g_test_add_func("/memserver/session/epochs", test_epochs);
    g_test_add_func("/memserver/session/take-over", test_take_over);
    g_test_add_func("/memserver/session/drain/take", test_drain_take);
    g_test_add_func("/memserver/session/drain/end", test_drain_end);
    g_test_add_func("/memserver/session/connections", test_connections);
    g_test_add_func("/memserver/session/end", test_end);
    g_test_add_func("/memserver/session/quota", test_quota);
    g_test_add_func("/memserver/session/expiry", test_expiry);
    g_test_add_func("/memserver/session/expiry/taken", test_expiry_taken);
    g_test_add_func("/memserver/session/rates", test_rates);
    g_test_add_func("/memserver/session/long-name", test_long_name);
    return g_test_run();
}
