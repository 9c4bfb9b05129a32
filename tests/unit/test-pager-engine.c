/*
 * Remote pager: the engine, on plain memory, with real memory servers
 *
 * Threads write to and read from more memory than may be resident.  Proves:
 * each page always holds what was written to it last; what is resident stays
 * under the limit; pages that are removed are zero; after a gather all is
 * there, and nothing of userfaultfd is left; and all that with and without
 * UFFDIO_MOVE.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/madvise.h"
#include "migration/strategy/pager/staging.h"
#include "pager-fixture.h"

/* A region of which everything was local needs no server to be read */
static void test_all_local(void)
{
    Setup s = fixture_small;
    PagerInfo info;
    Fixture *f;

    s.local = 1;
    s.limit = 4096;
    f = fixture_start(&s);
    fixture_verify_all(f);
    info = fixture_query(f);
    g_assert_cmpuint(info.resident, ==, s.pages);
    g_assert_cmpuint(info.faults, ==, 0);
    g_assert_cmpuint(info.remote, ==, 0);
    pager_info_clear(&info);
    fixture_stop(f);
}

static void thrash(const Setup *s)
{
    Worker w[MAX_THREADS];
    Fixture *f = fixture_start(s);
    PagerInfo info;

    workers_start(f, w);
    /* A page of each thread may be on its way in */
    g_assert_cmpuint(workers_end(f, w), <=, s->limit + s->threads);
    g_assert_cmpuint(fixture_mapped(f), <=, s->limit);
    fixture_verify_all(f);
    g_assert_cmpuint(fixture_mapped(f), <=, s->limit);
    fixture_report(f);
    info = fixture_query(f);
    /* Nothing of it was by chance */
    g_assert_cmpuint(info.faults, >, 1000);
    g_assert_cmpuint(info.faults_zero, >, 0);
    g_assert_cmpuint(info.faults_staged, >, 0);
    g_assert_cmpuint(info.evicted_clean, >, 0);
    g_assert_cmpuint(info.evicted_dirty, >, 0);
    g_assert_cmpuint(info.evicted_zero, >, 0);
    g_assert_cmpuint(info.removed, >, 0);
    g_assert_cmpuint(info.prefetched, >, 0);
    g_assert_cmpuint(info.hosts[0].latency.n, >, 0);
    g_assert_cmpuint(info.absent_read, ==, 0);
    while (info.waiting) {
        /* The last one is awake, and not yet off the list */
        pager_info_clear(&info);
        info = fixture_query(f);
    }
    pager_info_clear(&info);
    fixture_stop(f);
}

static void test_thrash(void)
{
    thrash(&fixture_small);
}

static void test_thrash_hosts(void)
{
    Setup s = fixture_small;

    s.hosts = 3;
    s.regions = 2;
    s.threads = 4;
    thrash(&s);
}

static void test_thrash_tiny(void)
{
    Setup s = fixture_small;

    s.limit = 64;
    s.local = 64;
    s.threads = 4;
    s.rounds = 5000;
    thrash(&s);
}

/* The limit is raised and lowered while threads are at work */
static void test_limit(void)
{
    static const uint64_t limits[] = { 2000, 128, 1000, 256 };
    Worker w[MAX_THREADS];
    Setup s = fixture_small;
    Fixture *f;
    unsigned i;

    s.threads = 1;
    for (i = 0, f = fixture_start(&s); i < ARRAY_SIZE(limits); i++) {
        pager_engine_set_limit(f->e, limits[i]);
        workers_start(f, w);
        workers_end(f, w);
        fixture_verify_all(f);
        /* Up to a quarter is room for faults to come, and the staging area */
        g_assert_cmpuint(fixture_mapped(f), <=, limits[i]);
        g_assert_cmpuint(fixture_mapped(f), >=,
                         MIN(limits[i], s.pages * 4 / 5) / 2);
    }
    fixture_stop(f);
}

static bool registered(void)
{
    g_autofree char *smaps = NULL;

    g_assert_true(g_file_get_contents("/proc/self/smaps", &smaps, NULL, NULL));
    /* VmFlags: um is userfaultfd missing, uw write-protect */
    return strstr(smaps, " um") || strstr(smaps, " uw");
}

static void test_gather(void)
{
    Worker w[MAX_THREADS];
    Setup s = fixture_small;
    Fixture *f;

    s.hosts = 3;
    f = fixture_start(&s);
    workers_start(f, w);
    g_assert_true(registered());
    qatomic_set(&f->watch, f->e);
    pager_engine_gather(f->e);
    workers_end(f, w);
    fixture_await_gathered(f);
    pager_engine_free(f->e);
    f->e = NULL;
    g_assert_false(registered());
    /* That the servers hang up at the end is no failure */
    g_assert_false(qatomic_read(&f->was_down));
    fixture_verify_all(f);
    fixture_stop(f);
}

/* The main memory shrinks, a bit of it so far: who needs a page gets it */
static void test_lower(void)
{
    enum { BEFORE = 1900, USED = 1400, AFTER = 64, ALLOWED = 4 * 64 };
    PagerInfo info = { 0 };
    Setup s = fixture_small;
    Reader reader;
    uint64_t p, faults;
    Fixture *f;

    s.limit = BEFORE;
    s.local = 0;
    f = fixture_start(&s);
    for (p = 0; p < USED; p++) {
        fixture_write(f, 0, p);
    }
    info = fixture_query(f);
    faults = info.faults;
    pager_info_clear(&info);
    fixture_gate(ALLOWED);
    pager_engine_set_limit(f->e, AFTER);
    /* Beyond what was prefetched */
    reader_start(&reader, f, USED + 301, true);
    qemu_thread_join(&reader.thread);
    info = fixture_query(f);
    g_assert_cmpuint(info.faults, ==, faults + 1);
    g_assert_cmpuint(info.resident + info.staged, >, AFTER);
    g_assert_cmpuint(info.limit, ==, AFTER);
    fixture_ungate();
    do {
        g_thread_yield();
        pager_info_clear(&info);
        info = fixture_query(f);
    } while (info.resident + info.staged > AFTER);
    pager_info_clear(&info);
    fixture_verify_all(f);
    g_assert_cmpuint(fixture_mapped(f), <=, AFTER);
    fixture_stop(f);
}

/*
 * Pages that were fetched ahead are known as used when the next fault of the
 * stream comes, but not if pages between are still remote: that is a jump
 */
static void test_prefetch(void)
{
    static const Setup s = {
        .hosts = 1, .regions = 1, .pages = 2048, .limit = 1024,
        .server_pages = 100000,
    };
    /* With two fetched ahead at 3, four at 11, eight at 16, sixteen at 28 */
    static const unsigned order[] = {
        27, 26, 25, 0, 1, 2, 3, 11, 16, 28,
    };
    Fixture *f = fixture_start(&s);
    PagerInfo info;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(order); i++) {
        /* All of these are remote */
        fixture_verify(f, 0, order[i] * 5 + 1);
    }
    /* When this one is there, what the one before has set off is counted */
    fixture_verify(f, 0, 1504);
    info = fixture_query(f);
    g_assert_cmpuint(info.faults, ==, ARRAY_SIZE(order) + 1);
    g_assert_cmpuint(info.prefetched, ==, 2 + 4 + 8 + 16);
    g_assert_cmpuint(info.prefetch_used, ==, 4 + 8);
    pager_info_clear(&info);
    fixture_stop(f);
}

/*
 * Staging by mremap(): pages of two mappings are taken; what was given back, or
 * could not be taken, is somebody else's memory from then on
 */
static void test_staging(void)
{
    enum { N = 64, OTHERS = 256 };
    uint8_t *ram = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *gone = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *other[OTHERS];
    PagerStaging s;
    unsigned i;

    g_assert_true(ram != MAP_FAILED && gone != MAP_FAILED);
    qemu_madvise(ram, N / 2 * PAGE, QEMU_MADV_DONTDUMP);
    g_assert_true(pager_staging_init(&s, N, false, &error_abort));
    /* Nothing there */
    g_assert_cmpint(munmap(gone, N * PAGE), ==, 0);
    for (i = 0; i < N; i++) {
        g_assert_cmpint(pager_staging_take(&s, i, gone + i * PAGE, N - i), <,
                        0);
    }
    for (unsigned round = 1; round < 3; round++) {
        for (i = 0; i < N; i++) {
            memset(ram + i * PAGE, i + round, PAGE);
        }
        for (i = 0; i < N;) {
            ssize_t n = pager_staging_take(&s, i, ram + i * PAGE, N - i);

            g_assert_cmpint(n, >, 0);
            i += n;
        }
        for (i = 0; i < N; i++) {
            g_assert_cmpint(*pager_staging_data(&s, i), ==, i + round);
            g_assert_cmpint(ram[i * PAGE], ==, 0);
        }
        pager_staging_discard(&s, N / 4, N);
    }
    /* Some of them where pages were staged */
    for (i = 0; i < OTHERS; i++) {
        other[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        g_assert_true(other[i] != MAP_FAILED);
        *other[i] = i;
    }
    pager_staging_discard(&s, 0, N);
    pager_staging_destroy(&s);
    for (i = 0; i < OTHERS; i++) {
        g_assert_cmpint(*other[i], ==, i & 0xff);
        munmap(other[i], PAGE);
    }
    munmap(ram, N * PAGE);
}

static const FixtureTest tests[] = {
    { "all-local", test_all_local },
    { "thrash", test_thrash, true },
    { "thrash-hosts", test_thrash_hosts },
    { "thrash-tiny", test_thrash_tiny, true },
    { "limit", test_limit, true },
    { "gather", test_gather, true },
    { "lower", test_lower, true },
    { "prefetch", test_prefetch },
};

int main(int argc, char **argv)
{
    if (!fixture_init(&argc, &argv)) {
        return 77;
    }
    g_test_add_func("/pager/staging/remap", test_staging);
    fixture_add_tests("/pager/engine", tests, ARRAY_SIZE(tests));
    return g_test_run();
}
