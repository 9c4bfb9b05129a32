/*
 * Remote pager: servers and a kernel without room, on plain memory
 *
 * Proves: no page is lost where servers are full, have just as much room as
 * they need, or more than they may use, nor where the kernel has no memory for
 * a while; and what is resident stays under the limit if it can.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "migration/strategy/pager/shares.h"
#include "migration/strategy/split/layout.h"
#include "pager-fixture.h"

static void write_all(Fixture *f)
{
    uint64_t p;

    for (p = 0; p < f->setup.pages; p++) {
        fixture_write(f, 0, p);
    }
}

/*
 * A server that takes no more: too much is resident, and nothing is lost.
 * When there is less, the limit holds again.
 */
static void test_full(void)
{
    Setup s = fixture_small;
    uint64_t p;
    PagerInfo info;
    Fixture *f;
    int64_t begin;

    s.limit = 128;
    s.server_pages = 1850;
    s.local = 0;
    f = fixture_start(&s);
    begin = g_get_monotonic_time();
    write_all(f);
    fixture_verify_all(f);
    info = fixture_query(f);
    g_test_message("resident %" PRIu64 " staged %" PRIu64 " stored %" PRIu64
                   " refused %" PRIu64 " full %d", info.resident, info.staged,
                   info.hosts[0].stored, info.hosts[0].refused, info.full);
    g_assert_cmpuint(info.hosts[0].refused, >, 0);
    /* It is tried once a second, with less each time it refuses */
    g_assert_cmpuint(info.hosts[0].refused, <=, 4 * PAGER_SHARES_HOST *
                     (2 + (g_get_monotonic_time() - begin) / G_USEC_PER_SEC));
    g_assert_true(info.full);
    g_assert_cmpuint(info.resident + info.staged, >=,
                     s.pages - s.server_pages);
    g_assert_cmpuint(s.pages - s.server_pages, >, s.limit);
    pager_info_clear(&info);
    for (p = 0; p < s.pages; p += 2) {
        f->generation[0][p] = 0;
        g_assert_cmpint(madvise(fixture_page(f, 0, p), PAGE, MADV_DONTNEED),
                        ==, 0);
    }
    do {
        fixture_verify_all(f);
        pager_info_clear(&info);
        info = fixture_query(f);
    } while (info.resident + info.staged > s.limit);
    pager_info_clear(&info);
    fixture_stop(f);
}

/* As much as the engine needs its servers to have room for */
static uint64_t least_room(const Setup *s)
{
    PagerShares shares = pager_shares(s->limit);

    return s->pages - s->limit + shares.staging + shares.headroom +
           s->hosts * PAGER_SHARES_HOST;
}

/* All pages are written to, then the threads use them */
static void fill_and_thrash(Fixture *f)
{
    Worker w[MAX_THREADS], filler = { .f = f };
    uint64_t worst, p;
    PagerInfo info;
    unsigned i;

    for (p = 0; p < f->setup.pages; p++) {
        fixture_write(f, 0, p);
        worker_look(&filler);
    }
    fixture_verify_all(f);
    workers_start(f, w);
    worst = workers_end(f, w);
    fixture_verify_all(f);
    worker_look(&filler);
    worst = MAX(worst, filler.worst);
    fixture_report(f);
    info = fixture_query(f);
    for (i = 0; i < f->setup.hosts; i++) {
        g_test_message("server %u: %" PRIu64 " stored, %" PRIu64 " written, %"
                       PRIu64 " dropped, %" PRIu64 " refused", i,
                       info.hosts[i].stored, info.hosts[i].written,
                       info.hosts[i].dropped, info.hosts[i].refused);
        g_assert_cmpuint(info.hosts[i].dropped, >, 0);
    }
    /* None was removed */
    g_assert_cmpuint(info.absent_clean, ==, 0);
    g_assert_cmpuint(info.absent_dirty, ==, 0);
    g_assert_cmpuint(info.absent_read, ==, 0);
    pager_info_clear(&info);
    g_test_message("at most %" PRIu64 " pages, limit %" PRIu64, worst,
                   f->setup.limit);
    g_assert_cmpuint(worst, <=, f->setup.limit + f->setup.threads);
    g_assert_cmpuint(fixture_mapped(f), <=, f->setup.limit);
    g_assert_false(filler.full);
    for (i = 0; i < f->setup.threads; i++) {
        g_assert_false(w[i].full);
        filler.most = MAX(filler.most, w[i].most);
    }
    if (f->setup.capacity) {
        g_assert_cmpuint(filler.most, <=, f->setup.capacity);
    }
}

/*
 * Servers with just as much room as they have to have.  They are full from
 * the start: for each page that leaves, another must be given up there.
 */
static void fit(unsigned hosts)
{
    Setup s = fixture_small;
    Fixture *f;

    s.hosts = hosts;
    s.local = 4;
    s.dense = true;
    /* And what they need beside pages: a frame per extent, and the tables */
    s.server_pages = DIV_ROUND_UP(least_room(&s), hosts) +
                     split_extents(s.pages) + 2;
    f = fixture_start(&s);
    fill_and_thrash(f);
    fixture_stop(f);
}

static void test_fit(void)
{
    fit(1);
}

static void test_fit_hosts(void)
{
    fit(3);
}

/* Servers that have room, of which no more is to be used than was said */
static void test_capacity(void)
{
    Setup s = fixture_small;
    Fixture *f;

    s.hosts = 2;
    s.local = 4;
    s.dense = true;
    s.capacity = DIV_ROUND_UP(least_room(&s), s.hosts);
    f = fixture_start(&s);
    fill_and_thrash(f);
    fixture_stop(f);
}

/*
 * The kernel has no memory for a page, for a while: it is not taken for one
 * that was removed
 */
static void test_no_memory(void)
{
    Worker w[MAX_THREADS];
    Setup s = fixture_small;
    Fixture *f;

    s.rounds = 4000;
    fixture_refuse_memory(3);
    f = fixture_start(&s);
    workers_start(f, w);
    workers_end(f, w);
    fixture_verify_all(f);
    pager_engine_gather(f->e);
    fixture_await_gathered(f);
    fixture_refuse_memory(0);
    pager_engine_free(f->e);
    f->e = NULL;
    fixture_verify_all(f);
    fixture_stop(f);
}

static const FixtureTest tests[] = {
    { "no-memory", test_no_memory, true },
    { "full", test_full, true },
    { "fit", test_fit, true },
    { "fit-hosts", test_fit_hosts },
    { "capacity", test_capacity },
};

int main(int argc, char **argv)
{
    if (!fixture_init(&argc, &argv)) {
        return 77;
    }
    fixture_add_tests("/pager/room", tests, ARRAY_SIZE(tests));
    return g_test_run();
}
