/*
 * Remote pager: memory servers that are away, silent or lost, on plain memory
 *
 * Proves: a server that is gone for a while costs time and no page; nobody
 * waits for one whose pages are not needed; a page that is lost is never read
 * as something else; and threads can be held, or made to fail, meanwhile.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/strategy/pager/uffd.h"
#include "migration/strategy/split/layout.h"
#include "pager-fixture.h"

static void shut_down(Fixture *f, unsigned host)
{
    unsigned i;

    QEMU_LOCK_GUARD(&f->lock);
    f->refuse[host] = true;
    for (i = 0; i < PAGER_LINK__MAX; i++) {
        shutdown(f->socket[host][i], SHUT_RDWR);
    }
}

static void bring_back(Fixture *f, unsigned host)
{
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->refuse[host] = false;
    }
    fixture_await_state(f, host, PAGER_HOST_UP);
}

static void end_session(Fixture *f, unsigned host)
{
    PageLinkClient *c = fixture_dial(f->server[host], PAGELINK_HELLO_TAKE, 3,
                                     PAGELINK_CLASS_BACKGROUND, NULL,
                                     &error_abort);

    g_assert_true(pagelink_client_end(c, &error_abort));
    pagelink_client_free(c);
}

/*
 * From now on a server takes what is asked on the demand link, and does not
 * answer; nor can it be connected to
 */
static void mute(Fixture *f, unsigned host)
{
    int fds[2];

    QEMU_LOCK_GUARD(&f->lock);
    f->stall = true;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds),
                    ==, 0);
    g_assert_cmpint(dup2(fds[0], f->demand_fd[host]), >=, 0);
    close(fds[0]);
    f->silent = fds[1];
}

static void unmute(Fixture *f, unsigned host)
{
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->stall = false;
        qemu_cond_broadcast(&f->cond);
    }
    fixture_await_state(f, host, PAGER_HOST_UP);
    close(f->silent);
}

static void test_lost(void)
{
    Worker w[MAX_THREADS];
    Setup s = fixture_small;
    Fixture *f;
    unsigned i;
    PagerInfo info;

    s.hosts = 2;
    f = fixture_start(&s);
    workers_start(f, w);
    for (i = 0; i < 3; i++) {
        unsigned host = i % 2;

        shut_down(f, host);
        fixture_await_state(f, host, PAGER_HOST_LOST);
        info = fixture_query(f);
        g_assert_nonnull(info.hosts[host].error);
        g_assert_cmpuint(info.waiting, >, 0);
        pager_info_clear(&info);
        WITH_QEMU_LOCK_GUARD(&f->lock) {
            f->refuse[host] = false;
        }
        fixture_await_state(f, host, PAGER_HOST_UP);
    }
    workers_end(f, w);
    fixture_verify_all(f);
    info = fixture_query(f);
    /* Or more, when a link that was not used is found broken later */
    g_assert_cmpuint(info.hosts[0].reconnects, >=, 2);
    g_assert_cmpuint(info.hosts[1].reconnects, >=, 1);
    pager_info_clear(&info);
    fixture_stop(f);
}

/* Pages of a region that server @host has if they are not local */
static uint64_t page_at(const Setup *s, unsigned host, uint64_t i)
{
    uint64_t extent = i / SPLIT_EXTENT_PAGES * s->hosts + host;

    return extent * SPLIT_EXTENT_PAGES + i % SPLIT_EXTENT_PAGES;
}

typedef struct Writer {
    Fixture *f;
    QemuThread thread;
    bool done;                  /* under the lock */
} Writer;

/* Uses pages that the first server has; the others may be away */
static void *write_first(void *opaque)
{
    Writer *w = opaque;
    Fixture *f = w->f;
    uint64_t n = f->setup.pages / f->setup.hosts, seed = 1;
    unsigned i;

    for (i = 0; i < f->setup.rounds; i++) {
        uint64_t page = page_at(&f->setup, 0, fixture_random(&seed) % n);

        fixture_verify(f, 0, page);
        fixture_write(f, 0, page);
    }
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        w->done = true;
        qemu_cond_broadcast(&f->cond);
    }
    return NULL;
}

static PagerHostState state_of(Fixture *f, unsigned host)
{
    PagerInfo info = fixture_query(f);
    PagerHostState state = info.hosts[host].state;

    pager_info_clear(&info);
    return state;
}

/*
 * Of two servers one is away, and nobody needs its pages.  What leaves goes to
 * the other, even if it came from the one that is away.
 */
static void test_one_lost(void)
{
    Setup s = fixture_small;
    PagerHostState state;
    Writer w = { 0 };
    uint64_t p;

    s.hosts = 2;
    s.local = 0;
    w.f = fixture_start(&s);
    /* Resident now, some written to and some not */
    for (p = 0; p < s.limit / 2; p++) {
        uint64_t page = page_at(&s, 1, p);

        fixture_verify(w.f, 0, page);
        if (p % 2) {
            fixture_write(w.f, 0, page);
        }
    }
    shut_down(w.f, 1);
    fixture_await_state(w.f, 1, PAGER_HOST_DEGRADED);
    qemu_thread_create(&w.thread, "writer", write_first, &w,
                       QEMU_THREAD_JOINABLE);
    WITH_QEMU_LOCK_GUARD(&w.f->lock) {
        while (state_of(w.f, 1) == PAGER_HOST_DEGRADED && !w.done) {
            qemu_cond_wait(&w.f->cond, &w.f->lock);
        }
    }
    state = state_of(w.f, 1);
    g_assert_cmpint(state, ==, PAGER_HOST_DEGRADED);
    /* They are at the first server, or here */
    for (p = 0; p < s.limit / 2; p++) {
        fixture_verify(w.f, 0, page_at(&s, 1, p));
    }
    g_assert_cmpint(state_of(w.f, 1), ==, PAGER_HOST_DEGRADED);
    qemu_thread_join(&w.thread);
    bring_back(w.f, 1);
    fixture_verify_all(w.f);
    fixture_stop(w.f);
}

/*
 * A thread that is held while its server is lost waits when the server is
 * there again, until it is released; others do not.
 */
static void test_hold(void)
{
    Reader held, other;
    Setup s = fixture_small;
    Fixture *f;

    s.local = 0;
    f = fixture_start(&s);
    shut_down(f, 0);
    reader_start(&held, f, 11, true);
    fixture_await_state(f, 0, PAGER_HOST_LOST);
    g_assert_true(pager_engine_hold(f->e, held.tid));
    g_assert_false(pager_engine_hold(f->e, qemu_get_thread_id()));
    bring_back(f, 0);
    reader_start(&other, f, 1001, true);
    qemu_thread_join(&other.thread);
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        g_assert_false(held.done);
    }
    g_assert_true(pager_engine_hold(f->e, held.tid));
    pager_engine_release(f->e);
    qemu_thread_join(&held.thread);
    g_assert_true(held.done);
    g_assert_false(pager_engine_hold(f->e, held.tid));
    fixture_stop(f);
}

/* Nor does a gather wait for those that are held */
static void test_hold_gather(void)
{
    Setup s = fixture_small;
    Reader held;
    Fixture *f;

    f = fixture_start(&s);
    shut_down(f, 0);
    reader_start(&held, f, 11, false);
    fixture_await_state(f, 0, PAGER_HOST_LOST);
    g_assert_true(pager_engine_hold(f->e, held.tid));
    /* Now no gather fetches it */
    g_assert_cmpint(madvise(fixture_page(f, 0, 11), PAGE, MADV_DONTNEED), ==,
                    0);
    f->generation[0][11] = 0;
    bring_back(f, 0);
    pager_engine_gather(f->e);
    fixture_await_gathered(f);
    qemu_thread_join(&held.thread);
    pager_engine_free(f->e);
    f->e = NULL;
    fixture_verify_all(f);
    fixture_stop(f);
}

/* Are all pages that have data here, but for those of @host? */
static bool all_home_but(Fixture *f, unsigned host)
{
    g_autofree uint8_t *there = g_malloc(f->setup.pages);
    uint64_t p, extents = split_extents(f->setup.pages);

    g_assert_cmpint(mincore(f->memory[0], f->setup.pages * PAGE, there), ==,
                    0);
    for (p = 0; p < f->setup.pages; p++) {
        uint64_t extent = p / SPLIT_EXTENT_PAGES;

        /* The last extent is nobody's, see make_layout() */
        if (extent < extents - 1 && extent % f->setup.hosts != host &&
            f->generation[0][p] && !(there[p] & 1)) {
            return false;
        }
    }
    return true;
}

/* One server is away: all that the others have comes home nevertheless */
static void test_gather_away(void)
{
    Setup s = fixture_small;
    PagerInfo info;
    Fixture *f;

    s.hosts = 3;
    s.limit = 256;
    f = fixture_start(&s);
    fixture_verify_all(f);
    shut_down(f, 1);
    fixture_await_state(f, 1, PAGER_HOST_DEGRADED);
    pager_engine_gather(f->e);
    while (!all_home_but(f, 1)) {
        g_thread_yield();
    }
    info = fixture_query(f);
    g_assert_false(info.gathered);
    g_assert_cmpuint(info.remote, >, 0);
    /* It may come back */
    g_assert_cmpint(info.hosts[1].state, ==, PAGER_HOST_DEGRADED);
    pager_info_clear(&info);
    bring_back(f, 1);
    fixture_await_gathered(f);
    pager_engine_free(f->e);
    f->e = NULL;
    fixture_verify_all(f);
    fixture_stop(f);
}

/*
 * One server has forgotten all: that is told, though no thread waits for one
 * of its pages; and the gather is not over
 */
static void test_gather_empty(void)
{
    Setup s = fixture_small;
    PagerInfo info;
    Fixture *f;

    s.hosts = 2;
    s.limit = 256;
    f = fixture_start(&s);
    end_session(f, 1);
    fixture_await_state(f, 1, PAGER_HOST_DEGRADED);
    pager_engine_gather(f->e);
    fixture_await_state(f, 1, PAGER_HOST_LOST);
    info = fixture_query(f);
    g_assert_false(info.gathered);
    g_assert_cmpuint(info.remote, >, 0);
    g_test_message("%s", info.hosts[1].error);
    pager_info_clear(&info);
    fixture_stop(f);
}

/*
 * A server that takes requests and does not answer is lost after the timeout,
 * not when connecting to it has timed out, too
 */
static void test_silent(void)
{
    Setup s = fixture_small;
    PagerInfo info;
    Reader reader;
    Fixture *f;

    s.local = 0;
    s.timeout_ms = 200;
    f = fixture_start(&s);
    mute(f, 0);
    reader_start(&reader, f, 11, true);
    fixture_await_state(f, 0, PAGER_HOST_LOST);
    info = fixture_query(f);
    g_assert_cmpuint(info.waiting, ==, 1);
    g_assert_cmpstr(info.hosts[0].error, ==, "it does not answer");
    pager_info_clear(&info);
    unmute(f, 0);
    qemu_thread_join(&reader.thread);
    fixture_stop(f);
}

/* A page that is poisoned is told of by the kernel when it is to read it */
static void *write_page(void *opaque)
{
    Fixture *f = opaque;
    int fds[2];
    ssize_t n;

    g_assert_cmpint(pipe(fds), ==, 0);
    n = write(fds[1], fixture_page(f, 0, 11), 1);
    n = n < 0 ? -errno : n;
    close(fds[0]);
    close(fds[1]);
    return (void *)(intptr_t)n;
}

/*
 * The process ends, and a server is silent that nobody has found out about:
 * who waits for it fails as soon as it is lost, and no sooner
 */
static void test_poison(void)
{
    uint64_t features;
    QemuThread thread;
    PagerInfo info;
    Setup s = fixture_small;
    intptr_t ret;
    Fixture *f;

    g_assert_true(pager_uffd_features(&features, NULL));
    if (!(features & UFFD_FEATURE_POISON)) {
        g_test_skip("no UFFDIO_POISON here");
        return;
    }
    s.local = 0;
    s.timeout_ms = 200;
    f = fixture_start(&s);
    mute(f, 0);
    pager_engine_poison(f->e, NULL, 0);
    qemu_thread_create(&thread, "writer", write_page, f,
                       QEMU_THREAD_JOINABLE);
    ret = (intptr_t)qemu_thread_join(&thread);
    g_assert_cmpint(ret, ==, -EFAULT);
    info = fixture_query(f);
    g_assert_cmpint(info.hosts[0].state, ==, PAGER_HOST_LOST);
    pager_info_clear(&info);
    unmute(f, 0);
    fixture_stop(f);
}

static void *read_lost(void *opaque)
{
    Fixture *f = opaque;
    uint64_t value = qatomic_read(fixture_page(f, 0, f->setup.lost));

    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->read_lost = true;
    }
    return (void *)(uintptr_t)value;
}

/*
 * A page that was stored, and that its server has not got: who reads it waits,
 * and the server is not used again.  In neither map is another thing: zero,
 * and the server is not even asked.
 */
static void test_lost_page(void)
{
    QemuThread thread;
    Setup s = fixture_small;
    PagerInfo info;
    Fixture *f;

    s.local = 0;
    s.lost = 11;
    f = fixture_start(&s);
    info = fixture_query(f);
    g_assert_cmpuint(info.zero, ==, s.pages - info.remote);
    g_assert_cmpuint(info.remote, ==, info.hosts[0].stored);
    pager_info_clear(&info);
    fixture_verify(f, 0, 5);
    info = fixture_query(f);
    g_assert_cmpuint(info.faults, ==, 0);
    pager_info_clear(&info);
    qemu_thread_create(&thread, "reader", read_lost, f, QEMU_THREAD_JOINABLE);
    fixture_await_state(f, 0, PAGER_HOST_LOST);
    info = fixture_query(f);
    g_assert_nonnull(strstr(info.hosts[0].error, "lost page 11 of 'ram'"));
    g_assert_cmpuint(info.waiting, ==, 1);
    pager_info_clear(&info);
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        g_assert_false(f->read_lost);
    }
    pager_engine_free(f->e);
    f->e = NULL;
    /* As at the end of the process: not before */
    qemu_thread_join(&thread);
    end_session(f, 0);
    fixture_stop(f);
}

/*
 * A session that somebody else has taken and ended: who reads waits, and the
 * pages are no zeroes
 */
static void test_session_ended(void)
{
    QemuThread thread;
    Setup s = fixture_small;
    PagerInfo info;
    Fixture *f;

    s.local = 0;
    f = fixture_start(&s);
    f->setup.lost = 11;
    end_session(f, 0);
    qemu_thread_create(&thread, "reader", read_lost, f, QEMU_THREAD_JOINABLE);
    fixture_await_state(f, 0, PAGER_HOST_LOST);
    info = fixture_query(f);
    g_assert_nonnull(info.hosts[0].error);
    g_test_message("%s", info.hosts[0].error);
    pager_info_clear(&info);
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        g_assert_false(f->read_lost);
    }
    pager_engine_free(f->e);
    f->e = NULL;
    qemu_thread_join(&thread);
    fixture_stop(f);
}

static const FixtureTest tests[] = {
    { "gather-away", test_gather_away },
    { "gather-empty", test_gather_empty },
    { "silent", test_silent },
    { "poison", test_poison },
    { "lost", test_lost },
    { "one-lost", test_one_lost },
    { "hold", test_hold },
    { "hold-gather", test_hold_gather },
    { "lost-page", test_lost_page },
    { "session-ended", test_session_ended },
};

int main(int argc, char **argv)
{
    if (!fixture_init(&argc, &argv)) {
        return 77;
    }
    fixture_add_tests("/pager/lost", tests, ARRAY_SIZE(tests));
    return g_test_run();
}
