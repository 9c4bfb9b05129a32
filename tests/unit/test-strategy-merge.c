/*
 * Unit tests of the merge of pages from source and relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: whatever the order and however many threads, memory ends up with
 * what the source sent last where it sent anything, else with what the relay
 * sent first; no page is torn; each page is counted once.
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/thread.h"
#include "migration/strategy/redirect/merge.h"

#define PAGE    PAGELINK_PAGE_SIZE

typedef struct Memory {
    uint8_t *ram;
    uint64_t pages;
    RedirectMerge *merge;
    RedirectRegion *region;
} Memory;

static Memory memory_new(uint64_t pages)
{
    Memory m = { .ram = g_malloc0(pages * PAGE), .pages = pages };

    m.merge = redirect_merge_new();
    m.region = redirect_merge_add(m.merge, m.ram, pages);
    return m;
}

static void memory_free(Memory *m)
{
    redirect_merge_free(m->merge);
    g_free(m->ram);
}

static uint8_t *page_of(Memory *m, uint64_t page)
{
    return m->ram + page * PAGE;
}

/* As the thread that loads the main stream does it */
static void from_source(Memory *m, uint64_t page, uint8_t value)
{
    redirect_merge_source(m->merge, m->region, page);
    memset(page_of(m, page), value, PAGE);
}

static bool from_relay(Memory *m, uint64_t page, uint8_t value)
{
    uint8_t data[PAGE];

    memset(data, value, PAGE);
    return redirect_merge_relay(m->merge, m->region, page,
                                value ? data : NULL);
}

static void assert_page(Memory *m, uint64_t page, uint8_t value)
{
    for (unsigned i = 0; i < PAGE; i++) {
        g_assert_cmpuint(page_of(m, page)[i], ==, value);
    }
}

static void test_cases(void)
{
    Memory m = memory_new(100);
    RedirectMergeCounts c;

    g_assert_true(from_relay(&m, 0, 1));
    assert_page(&m, 0, 1);
    /* The relay's second copy is not better than its first */
    g_assert_false(from_relay(&m, 0, 2));
    assert_page(&m, 0, 1);
    /* The source replaces it, as often as it likes */
    from_source(&m, 0, 3);
    from_source(&m, 0, 4);
    g_assert_false(from_relay(&m, 0, 5));
    assert_page(&m, 0, 4);
    /* The source first */
    from_source(&m, 99, 6);
    g_assert_false(from_relay(&m, 99, 7));
    assert_page(&m, 99, 6);
    /* Zero pages, onto what was there before */
    memset(page_of(&m, 50), 9, PAGE);
    g_assert_true(from_relay(&m, 50, 0));
    assert_page(&m, 50, 0);
    g_assert_true(from_relay(&m, 51, 0));
    from_source(&m, 52, 8);
    g_assert_false(from_relay(&m, 52, 0));
    assert_page(&m, 52, 8);

    redirect_merge_counts(m.merge, &c);
    g_assert_cmpuint(c.source, ==, 3);
    g_assert_cmpuint(c.relay, ==, 3);
    g_assert_cmpuint(c.zero, ==, 2);
    g_assert_cmpuint(c.duplicates, ==, 4);
    g_assert_cmpuint(c.replaced, ==, 1);
    memory_free(&m);
}

static void test_regions(void)
{
    RedirectMerge *merge = redirect_merge_new();
    g_autofree uint8_t *a = g_malloc0(PAGE);
    g_autofree uint8_t *b = g_malloc0(2 * PAGE);
    g_autofree uint8_t *data = g_malloc(PAGE);
    RedirectRegion *r = redirect_merge_add(merge, a, 1);
    RedirectRegion *s = redirect_merge_add(merge, b, 2);

    memset(data, 5, PAGE);
    g_assert_true(redirect_merge_region(merge, 0) == r);
    g_assert_true(redirect_merge_region(merge, 1) == s);
    g_assert_null(redirect_merge_region(merge, 2));
    g_assert_cmpuint(redirect_region_pages(s), ==, 2);
    redirect_merge_source(merge, r, 0);
    g_assert_true(redirect_merge_relay(merge, s, 0, data));
    g_assert_false(redirect_merge_relay(merge, r, 0, data));
    g_assert_cmpuint(b[0], ==, 5);
    g_assert_cmpuint(a[0], ==, 0);
    redirect_merge_free(merge);
}

static void test_bitmap(void)
{
    Memory m = memory_new(300);
    static const uint64_t there[] = { 0, 1, 63, 64, 130, 299 };
    uint8_t bits[38];

    for (unsigned i = 0; i < ARRAY_SIZE(there); i++) {
        if (i % 2) {
            from_source(&m, there[i], 1);
        } else {
            from_relay(&m, there[i], 1);
        }
    }
    for (unsigned first = 0; first < 300; first++) {
        for (unsigned n = 1; n <= 300 - first; n++) {
            unsigned seen = 0, expected = 0;

            memset(bits, 0xff, sizeof(bits));
            redirect_merge_bitmap(m.merge, m.region, first, n, bits);
            for (unsigned i = 0; i < ARRAY_SIZE(there); i++) {
                if (there[i] >= first && there[i] < first + n) {
                    unsigned bit = there[i] - first;

                    g_assert_true(bits[bit / 8] >> (bit % 8) & 1);
                    expected++;
                }
            }
            for (unsigned i = 0; i < DIV_ROUND_UP(n, 8); i++) {
                seen += ctpop8(bits[i]);
            }
            g_assert_cmpuint(seen, ==, expected);
        }
    }
    memory_free(&m);
}

/* Random orders against a model that knows nothing of bits and locks */
static void test_model(void)
{
    enum { PAGES = 70, STEPS = 1000 };
    GRand *rand = g_rand_new_with_seed(20261121);

    for (unsigned round = 0; round < 100; round++) {
        Memory m = memory_new(PAGES);
        uint8_t content[PAGES] = { 0 };
        bool source[PAGES] = { 0 }, relay[PAGES] = { 0 };
        RedirectMergeCounts c, want = { 0 };

        for (unsigned i = 0; i < STEPS; i++) {
            unsigned page = g_rand_int_range(rand, 0, PAGES);
            uint8_t value = g_rand_int_range(rand, 0, 4);

            if (g_rand_boolean(rand)) {
                want.source += !source[page];
                want.replaced += !source[page] && relay[page];
                source[page] = true;
                content[page] = value;
                from_source(&m, page, value);
            } else {
                bool taken = !source[page] && !relay[page];

                if (taken) {
                    relay[page] = true;
                    content[page] = value;
                    want.relay++;
                    want.zero += !value;
                } else {
                    want.duplicates++;
                }
                g_assert_cmpint(from_relay(&m, page, value), ==, taken);
            }
        }
        for (unsigned page = 0; page < PAGES; page++) {
            assert_page(&m, page, content[page]);
        }
        redirect_merge_counts(m.merge, &c);
        g_assert_cmpmem(&c, sizeof(c), &want, sizeof(want));
        memory_free(&m);
    }
    g_rand_free(rand);
}

/*
 * Threads.  The source writes the number of its round into pages that it
 * picks by chance, and notes it; two relays send the same pages, with another
 * value each.
 */
#define THREAD_PAGES    2048
#define SOURCE_VALUE    0x40
#define RELAY_VALUE     0x80

typedef struct Racer {
    Memory *m;
    unsigned seed;
    bool is_source;
    uint8_t value;
    uint8_t last[THREAD_PAGES]; /* that the source wrote */
    uint64_t taken;
    QemuThread thread;
} Racer;

static void *race(void *opaque)
{
    Racer *r = opaque;
    GRand *rand = g_rand_new_with_seed(r->seed);

    for (unsigned i = 0; i < THREAD_PAGES * 2; i++) {
        unsigned page;

        if (r->is_source) {
            page = g_rand_int_range(rand, 0, THREAD_PAGES);
            r->last[page] = SOURCE_VALUE + g_rand_int_range(rand, 0, 16);
            from_source(r->m, page, r->last[page]);
        } else {
            page = i % THREAD_PAGES;
            r->taken += from_relay(r->m, page, r->value);
        }
    }
    g_rand_free(rand);
    return NULL;
}

static void test_threads(void)
{
    for (unsigned round = 0; round < 8; round++) {
        Memory m = memory_new(THREAD_PAGES);
        g_autofree Racer *racers = g_new0(Racer, 3);
        RedirectMergeCounts c;
        uint64_t source = 0;

        for (unsigned i = 0; i < 3; i++) {
            racers[i] = (Racer) {
                .m = &m, .seed = round, .is_source = i == 0,
                .value = RELAY_VALUE + i,
            };
            qemu_thread_create(&racers[i].thread, "racer", race, &racers[i],
                               QEMU_THREAD_JOINABLE);
        }
        for (unsigned i = 0; i < 3; i++) {
            qemu_thread_join(&racers[i].thread);
        }
        for (unsigned page = 0; page < THREAD_PAGES; page++) {
            uint8_t value = page_of(&m, page)[0];

            if (racers[0].last[page]) {
                g_assert_cmpuint(value, ==, racers[0].last[page]);
                source++;
            } else {
                g_assert_true(value == RELAY_VALUE + 1 ||
                              value == RELAY_VALUE + 2);
            }
            assert_page(&m, page, value);
        }
        redirect_merge_counts(m.merge, &c);
        g_assert_cmpuint(c.source, ==, source);
        g_assert_cmpuint(c.relay, ==, racers[1].taken + racers[2].taken);
        g_assert_cmpuint(c.relay + c.duplicates, ==, 4 * THREAD_PAGES);
        g_assert_cmpuint(c.relay - c.replaced + c.source, ==, THREAD_PAGES);
        memory_free(&m);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/strategy/merge/cases", test_cases);
    g_test_add_func("/strategy/merge/regions", test_regions);
    g_test_add_func("/strategy/merge/bitmap", test_bitmap);
    g_test_add_func("/strategy/merge/model", test_model);
    g_test_add_func("/strategy/merge/threads", test_threads);
    return g_test_run();
}
