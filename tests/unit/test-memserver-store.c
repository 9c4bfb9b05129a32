/*
 * memserver: store and slab
 *
 * Proves: the store does what a flat array of (version, content) would do,
 * under random puts, zero puts, drops and gets; it never exceeds its account;
 * memory goes back to the system; threads that put, get and drop the same
 * pages see whole pages whose content belongs to their version, and versions
 * that never go back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "migration/memserver/store.h"

#define PAGES       5000
#define BLOCK       3

/* The model: 0 absent, 1 zero, 2 data with content = version */
typedef struct Model {
    uint64_t version[PAGES];
    uint8_t what[PAGES];
} Model;

static void fill(void *frame, uint64_t page, uint64_t version)
{
    uint64_t *p = frame;
    size_t i;

    for (i = 0; i < PAGELINK_PAGE_SIZE / 8; i++) {
        p[i] = page << 40 ^ version << 8 ^ i ^ 0x100000000ULL;
    }
}

static bool is_filled(const void *frame, uint64_t page, uint64_t version)
{
    const uint64_t *p = frame;
    size_t i;

    for (i = 0; i < PAGELINK_PAGE_SIZE / 8; i++) {
        if (p[i] != (page << 40 ^ version << 8 ^ i ^ 0x100000000ULL)) {
            return false;
        }
    }
    return true;
}

typedef struct Fixture {
    MsSlab *slab;
    MsFrameCache cache;
    MsAccount account;
    MsAccount *charged;         /* by the store */
    MsStore *store;
    MsBlock *block;
} Fixture;

static MsPut add_block(Fixture *f, uint16_t id, uint64_t pages,
                       const char *name)
{
    MsAccount *culprit;

    return ms_store_add_block(f->store, id, pages, name, &culprit);
}

static void setup(Fixture *f, uint64_t limit, uint64_t pages)
{
    f->slab = ms_slab_new();
    ms_frame_cache_init(&f->cache, f->slab, false);
    f->account = (MsAccount) { .limit = limit };
    f->charged = &f->account;
    f->store = ms_store_new(&f->account);
    g_assert_cmpint(add_block(f, BLOCK, pages, "ram"), ==, MS_PUT_STORED);
    f->block = ms_store_block(f->store, BLOCK);
    g_assert_nonnull(f->block);
}

static void teardown(Fixture *f)
{
    MsSlabStats stats;

    ms_store_free(f->store, &f->cache);
    ms_frame_cache_drain(&f->cache);
    ms_slab_stats(f->slab, &stats);
    g_assert_cmpuint(stats.used, ==, 0);
    g_assert_cmpuint(f->account.used, ==, 0);
    ms_slab_free(f->slab);
}

static MsPut put(Fixture *f, uint64_t page, uint64_t version, bool zero,
                 uint32_t *reserved)
{
    void *frame = zero ? NULL : ms_frame_get(&f->cache);
    MsWalk walk = { 0 };
    MsPut result;

    if (frame) {
        fill(frame, page, version);
    }
    result = ms_store_put(f->store, &walk, &f->cache, f->block, page, version,
                          frame, false, reserved);
    ms_walk_end(f->store, &walk);
    if (result != MS_PUT_STORED && frame) {
        ms_frame_unref(&f->cache, frame);
    }
    return result;
}

/* Who drops the last reference gives back the charge */
static void unpin(Fixture *f, void *frame)
{
    if (ms_frame_unref(&f->cache, frame)) {
        ms_account_release(f->charged, 1);
    }
}

static void *pin(Fixture *f, uint64_t page)
{
    MsWalk walk = { 0 };
    MsPage got;

    ms_store_get(f->store, &walk, f->block, page, &got);
    ms_walk_end(f->store, &walk);
    g_assert_cmpint(got.what, ==, MS_GET_PAGE);
    return got.frame;
}

static void check(Fixture *f, const Model *m, uint64_t page)
{
    MsWalk walk = { 0 };
    MsPage got;

    ms_store_get(f->store, &walk, f->block, page, &got);
    ms_walk_end(f->store, &walk);
    g_assert_cmpint(got.what, ==, m->what[page]);
    if (m->what[page]) {
        g_assert_cmpuint(got.version, ==, m->version[page]);
    }
    if (got.what == MS_GET_PAGE) {
        g_assert_true(is_filled(got.frame, page, got.version));
        unpin(f, got.frame);
    }
}

static void check_totals(Fixture *f, const Model *m)
{
    uint8_t bits[PAGES / 8 + 1] = { 0 };
    uint64_t pages = 0, zero = 0, i;
    MsStoreStats stats;

    ms_store_bitmap(f->store, f->block, 0, PAGES, bits);
    for (i = 0; i < PAGES; i++) {
        pages += m->what[i] == MS_GET_PAGE;
        zero += m->what[i] == MS_GET_ZERO;
        g_assert_cmpint(bits[i / 8] >> (i % 8) & 1, ==, m->what[i] != 0);
        check(f, m, i);
    }
    ms_store_stats(f->store, &stats);
    g_assert_cmpuint(stats.pages, ==, pages);
    g_assert_cmpuint(stats.zero_pages, ==, zero);
    g_assert_cmpuint(f->account.used, >=, pages);
    g_assert_cmpuint(f->account.used, <=, pages + 2 + PAGES / 256 + 1);
}

static void model_drop(Model *m, uint64_t page, uint64_t n, uint64_t version)
{
    uint64_t i;

    for (i = page; i < page + n; i++) {
        if (version >= m->version[i]) {
            m->version[i] = version;
            m->what[i] = MS_GET_ABSENT;
        }
    }
}

static void test_model(void)
{
    g_autofree Model *m = g_new0(Model, 1);
    Fixture f;
    int i;

    setup(&f, UINT64_MAX, PAGES);
    for (i = 0; i < 60000; i++) {
        uint64_t page = g_test_rand_int_range(0, PAGES);
        uint64_t version = g_test_rand_int_range(0, 50 + i / 100);
        unsigned op = g_test_rand_int_range(0, 10);

        if (op < 6) {
            bool zero = op < 2;
            bool stale = version < m->version[page];

            g_assert_cmpint(put(&f, page, version, zero, &(uint32_t) { 0 }),
                            ==, stale ? MS_PUT_STALE : MS_PUT_STORED);
            if (!stale) {
                m->version[page] = version;
                m->what[page] = zero ? MS_GET_ZERO : MS_GET_PAGE;
            }
        } else if (op == 6) {
            unsigned n = g_test_rand_int_range(1, MIN(PAGES - page, 300) + 1);

            ms_store_drop(f.store, &f.cache, f.block, page, n, version);
            model_drop(m, page, n, version);
        } else {
            check(&f, m, page);
        }
        if (i % 20000 == 0) {
            check_totals(&f, m);
        }
    }
    check_totals(&f, m);
    teardown(&f);
}

static void test_limit(void)
{
    Fixture f;
    unsigned i, n = 0;

    /* root, node and leaf, then 20 pages */
    setup(&f, 23, PAGES);
    for (i = 0; i < 256; i++) {
        MsPut r = put(&f, i, 1, false, &(uint32_t) { 0 });

        g_assert_cmpint(r, ==, n < 20 ? MS_PUT_STORED : MS_PUT_NO_MEMORY);
        n += r == MS_PUT_STORED;
    }
    g_assert_cmpuint(f.account.used, ==, 23);
    /* Replacing needs nothing, nor does a zero page in the same leaf */
    g_assert_cmpint(put(&f, 0, 2, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    g_assert_cmpint(put(&f, 100, 2, true, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    /* but another leaf does */
    g_assert_cmpint(put(&f, 1000, 2, true, &(uint32_t) { 0 }), ==,
                    MS_PUT_NO_MEMORY);
    /* Zeroing a page makes room for one */
    g_assert_cmpint(put(&f, 0, 3, true, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    g_assert_cmpint(put(&f, 50, 3, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    g_assert_cmpint(put(&f, 51, 3, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_NO_MEMORY);
    teardown(&f);
}

static void test_reserved(void)
{
    uint32_t reserved = 2;
    MsAccount *culprit;
    Fixture f;

    setup(&f, UINT64_MAX, PAGES);
    g_assert_true(ms_account_charge(&f.account, 2, &culprit));
    put(&f, 1, 1, false, &reserved);
    g_assert_cmpuint(reserved, ==, 1);
    put(&f, 1, 2, false, &reserved);        /* replaces */
    put(&f, 2, 2, true, &reserved);         /* zero */
    put(&f, 1, 1, false, &reserved);        /* stale */
    g_assert_cmpuint(reserved, ==, 1);
    ms_account_release(&f.account, reserved);
    teardown(&f);
}

/* A frame that somebody still holds counts, whatever becomes of its page */
static void test_pinned(void)
{
    void *pins[4];
    Fixture f;
    int i;

    /* table, node, leaf and four pages */
    setup(&f, 7, PAGES);
    for (i = 0; i < 4; i++) {
        put(&f, i, 1, false, &(uint32_t) { 0 });
        pins[i] = pin(&f, i);
    }
    g_assert_cmpuint(f.account.used, ==, 7);
    /* Dropped, zeroed, replaced */
    g_assert_cmpuint(ms_store_drop(f.store, &f.cache, f.block, 0, 1, 2), ==,
                     1);
    put(&f, 1, 2, true, &(uint32_t) { 0 });
    g_assert_cmpuint(f.account.used, ==, 7);
    g_assert_cmpint(put(&f, 4, 1, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_NO_MEMORY);
    g_assert_cmpint(put(&f, 2, 2, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    g_assert_cmpuint(f.account.used, ==, 8);
    g_assert_cmpuint(ms_account_room(&f.account), ==, 0);
    for (i = 0; i < 3; i++) {
        g_assert_true(is_filled(pins[i], i, 1));
        unpin(&f, pins[i]);
        g_assert_cmpuint(f.account.used, ==, 7 - i);
    }
    /* Its page has stayed where it was */
    unpin(&f, pins[3]);
    g_assert_cmpuint(f.account.used, ==, 5);
    g_assert_cmpint(put(&f, 4, 1, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    teardown(&f);
}

/* After it, a put needs nothing but the page; without room it says so */
static void test_prepare(void)
{
    MsAccount *culprit = NULL;
    Fixture f;

    setup(&f, 4, PAGES);
    g_assert_true(ms_store_prepare(f.store, &f.cache, f.block, 0, &culprit));
    g_assert_true(ms_store_prepare(f.store, &f.cache, f.block, 255,
                                   &culprit));
    g_assert_cmpuint(f.account.used, ==, 3);
    g_assert_true(ms_store_prepare(f.store, &f.cache, f.block, 256,
                                   &culprit));
    g_assert_cmpuint(f.account.used, ==, 4);
    g_assert_null(culprit);
    g_assert_false(ms_store_prepare(f.store, &f.cache, f.block, 512,
                                    &culprit));
    g_assert_true(culprit == &f.account);
    g_assert_cmpint(put(&f, 300, 1, true, &(uint32_t) { 0 }), ==,
                    MS_PUT_STORED);
    g_assert_cmpint(put(&f, 300, 1, false, &(uint32_t) { 0 }), ==,
                    MS_PUT_NO_MEMORY);
    teardown(&f);
}

static void test_accounts(void)
{
    MsAccount parent = { .limit = 10 };
    MsAccount a = { .parent = &parent, .limit = 8 };
    MsAccount b = { .parent = &parent, .limit = UINT64_MAX };
    MsAccount *culprit = NULL;

    g_assert_true(ms_account_charge(&a, 8, &culprit));
    g_assert_false(ms_account_charge(&a, 1, &culprit));
    g_assert_true(culprit == &a);
    g_assert_cmpuint(ms_account_room(&b), ==, 2);
    g_assert_false(ms_account_charge(&b, 3, &culprit));
    g_assert_true(culprit == &parent);
    g_assert_cmpuint(b.used, ==, 0);
    g_assert_false(ms_account_charge(&b, UINT64_MAX, &culprit));
    g_assert_true(ms_account_charge(&b, 2, &culprit));
    ms_account_release(&a, 8);
    g_assert_cmpuint(parent.used, ==, 2);
    /* Beyond the limit: there is no room, not a lot of it */
    ms_account_overdraw(&a, 9);
    g_assert_cmpuint(ms_account_room(&a), ==, 0);
    g_assert_false(ms_account_charge(&a, 1, &culprit));
    g_assert_true(culprit == &a);
    g_assert_false(ms_account_charge(&b, 1, &culprit));
    g_assert_true(culprit == &parent);
    ms_account_release(&a, 9);
    g_assert_cmpuint(parent.used, ==, 2);
}

static void test_blocks(void)
{
    Fixture f;

    setup(&f, UINT64_MAX, PAGES);
    g_assert_cmpint(add_block(&f, BLOCK, PAGES, "ram"), ==,
                    MS_PUT_STORED);
    g_assert_cmpint(add_block(&f, BLOCK, PAGES + 1, "ram"), ==,
                    MS_PUT_STALE);
    g_assert_cmpint(add_block(&f, BLOCK, PAGES, "rom"), ==,
                    MS_PUT_STALE);
    g_assert_null(ms_store_block(f.store, BLOCK + 1));
    g_assert_null(ms_store_block(f.store, PAGELINK_MAX_BLOCKS));
    /* The largest block costs its table only, and its last page works */
    g_assert_cmpint(add_block(&f, 9, PAGELINK_MAX_BLOCK_PAGES,
                              "big"), ==, MS_PUT_STORED);
    f.block = ms_store_block(f.store, 9);
    g_assert_cmpint(put(&f, PAGELINK_MAX_BLOCK_PAGES - 1, 1, false,
                        &(uint32_t) { 0 }), ==, MS_PUT_STORED);
    teardown(&f);
}

/* 64 MiB: overhead under 3 %, and the memory comes back */
static void test_memory(void)
{
    const uint64_t pages = 16384;
    MsSlabStats stats;
    Fixture f;
    uint64_t i;

    setup(&f, UINT64_MAX, pages);
    for (i = 0; i < pages; i++) {
        put(&f, i * 7919 % pages, 1, false, &(uint32_t) { 0 });
    }
    ms_slab_stats(f.slab, &stats);
    g_assert_cmpuint(stats.mapped, >=, pages);
    g_assert_cmpuint((stats.mapped - 512 - pages) * 100, <, pages * 3);
    /* Every second page: no chunk can be unmapped, frames must be trimmed */
    for (i = 0; i < pages; i += 2) {
        ms_store_drop(f.store, &f.cache, f.block, i, 1, 2);
    }
    ms_slab_stats(f.slab, &stats);
    g_assert_cmpuint(stats.dirty, <=, 2048 + 512 + stats.used / 64);
    ms_store_drop(f.store, &f.cache, f.block, 0, pages, 3);
    ms_frame_cache_drain(&f.cache);
    ms_slab_stats(f.slab, &stats);
    g_assert_cmpuint(stats.mapped, <=, 512 * (4 + 3));
    teardown(&f);
}

/* One that frees much leaves trimming to the end, and then does it */
static void test_bulk(void)
{
    const uint64_t pages = 16384;
    MsFrameCache bulk;
    MsSlabStats stats;
    Fixture f;
    uint64_t i;

    setup(&f, UINT64_MAX, pages);
    ms_frame_cache_init(&bulk, f.slab, true);
    for (i = 0; i < pages; i++) {
        put(&f, i * 7919 % pages, 1, false, &(uint32_t) { 0 });
    }
    for (i = 0; i < pages; i += 2) {
        ms_store_drop(f.store, &bulk, f.block, i, 1, 2);
    }
    ms_slab_stats(f.slab, &stats);
    g_assert_cmpuint(stats.dirty, >, pages / 2 - 2 * MS_FRAME_CACHE_SIZE);
    ms_frame_cache_drain(&bulk);
    ms_slab_stats(f.slab, &stats);
    g_assert_cmpuint(stats.dirty, <=, 2048 + stats.used / 64);
    teardown(&f);
}

typedef struct Racer {
    Fixture *f;
    QemuThread thread;
    unsigned id;
} Racer;

/* Few pages, so that everybody meets everybody */
static void *racer_main(void *opaque)
{
    enum { N = 600 };
    Racer *r = opaque;
    g_autofree uint64_t *seen = g_new0(uint64_t, N);
    Fixture own = {
        .slab = r->f->slab, .store = r->f->store, .block = r->f->block,
        .charged = &r->f->account,
    };
    GRand *rand = g_rand_new_with_seed(r->id);
    unsigned i;

    ms_frame_cache_init(&own.cache, own.slab, false);
    for (i = 1; i < 6000; i++) {
        uint64_t page = g_rand_int_range(rand, 0, N);
        MsWalk walk = { 0 };
        MsPage got;

        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
        case 1:
            put(&own, page, i, i % 5 == 0, &(uint32_t) { 0 });
            break;
        case 2:
            ms_store_drop(own.store, &own.cache, own.block, page, 1, i);
            break;
        case 3:
            ms_store_get(own.store, &walk, own.block, page, &got);
            ms_walk_end(own.store, &walk);
            g_assert_cmpuint(got.version, >=, seen[page]);
            seen[page] = got.version;
            if (got.what == MS_GET_PAGE) {
                g_assert_true(is_filled(got.frame, page, got.version));
                unpin(&own, got.frame);
            }
            break;
        }
    }
    g_rand_free(rand);
    ms_frame_cache_drain(&own.cache);
    return NULL;
}

static void test_threads(void)
{
    Racer racers[4];
    unsigned i;
    Fixture f;

    setup(&f, UINT64_MAX, PAGES);
    for (i = 0; i < ARRAY_SIZE(racers); i++) {
        racers[i] = (Racer) { .f = &f, .id = i };
        qemu_thread_create(&racers[i].thread, "racer", racer_main, &racers[i],
                           QEMU_THREAD_JOINABLE);
    }
    for (i = 0; i < ARRAY_SIZE(racers); i++) {
        qemu_thread_join(&racers[i].thread);
    }
    teardown(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/store/model", test_model);
    g_test_add_func("/memserver/store/limit", test_limit);
    g_test_add_func("/memserver/store/reserved", test_reserved);
    g_test_add_func("/memserver/store/pinned", test_pinned);
    g_test_add_func("/memserver/store/prepare", test_prepare);
    g_test_add_func("/memserver/store/accounts", test_accounts);
    g_test_add_func("/memserver/store/blocks", test_blocks);
    g_test_add_func("/memserver/store/memory", test_memory);
    g_test_add_func("/memserver/store/bulk", test_bulk);
    g_test_add_func("/memserver/store/threads", test_threads);
    return g_test_run();
}
