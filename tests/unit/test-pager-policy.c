/*
 * Remote pager: the parts that compute
 *
 * Proves: the percentiles of the histogram are within a bucket of the true
 * ones; strides are found among stray faults, and streams go on; the order of
 * eviction is about as good as LRU's although it sees faults only, better
 * where there are scans, and never loses or doubles a page.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "migration/strategy/pager/histogram.h"
#include "migration/strategy/pager/policy.h"
#include "migration/strategy/pager/stride.h"

static void test_histogram(void)
{
    PagerHistogram h = { 0 }, sum = { 0 };
    uint64_t ns;
    unsigned i;

    g_assert_cmpuint(pager_histogram_percentile(&h, 50), ==, 0);
    for (i = 1; i < PAGER_HISTOGRAM_BUCKETS; i++) {
        g_assert_cmpuint(pager_histogram_bound(i), >,
                         pager_histogram_bound(i - 1));
    }
    for (ns = 1; ns <= 1000000; ns++) {
        pager_histogram_add(&h, ns);
    }
    for (i = 1; i <= 100; i++) {
        uint64_t got = pager_histogram_percentile(&h, i);

        g_assert_cmpuint(got, >=, i * 10000);
        g_assert_cmpuint(got, <=, i * 10000 * 9 / 8 + 1);
    }
    pager_histogram_add(&sum, UINT64_MAX);
    pager_histogram_sum(&sum, &h);
    g_assert_cmpuint(sum.n, ==, 1000001);
    g_assert_cmpuint(pager_histogram_percentile(&sum, 100), ==,
                     pager_histogram_bound(PAGER_HISTOGRAM_BUCKETS - 1));
}

/* A scan with @stride, every @stray-th fault is elsewhere; ones fetched */
static unsigned scan(int64_t stride, unsigned stray, unsigned *asked)
{
    g_autoptr(GHashTable) there = g_hash_table_new(NULL, NULL);
    PagerStride s = { 0 };
    uint64_t page = 1000000;
    unsigned i, j, faults = 0, hits = 0;

    *asked = 0;
    for (i = 0; i < 1000; i++, page += stride) {
        PagerAdvice a;

        if (stray && i % stray == stray - 1) {
            a = pager_stride_fault(&s, 5000000 + (i * 7919) % 100000);
            *asked += a.n;
        }
        if (g_hash_table_contains(there, (gpointer)(uintptr_t)page)) {
            continue;
        }
        faults++;
        a = pager_stride_fault(&s, page);
        *asked += a.n;
        if (a.stream) {
            a.stream->fetched = a.n;
        }
        hits += a.hits;
        for (j = 1; j <= a.n; j++) {
            g_assert_cmpint(a.stride, ==, stride);
            g_hash_table_add(there, (gpointer)(uintptr_t)(page +
                                                          a.stride * j));
        }
    }
    /* What was fetched was of use, but for the last */
    g_assert_cmpuint(hits + 2 * PAGER_STRIDE_MAX, >=, *asked);
    g_assert_cmpuint(hits, <=, *asked);
    return faults;
}

/* A scan of memory half of which, at random, is resident: faults of the rest */
static unsigned scan_half(int64_t stride, unsigned *remote)
{
    PagerStride s = { 0 };
    unsigned i, faults = 0, ahead = 0, seed = 1;

    for (i = *remote = 0; i < 10000; i++) {
        seed = seed * 1103515245 + 12345;
        if (seed >> 31) {
            ahead -= ahead > 0;
            continue;
        }
        (*remote)++;
        if (ahead) {
            ahead--;
            continue;
        }
        faults++;
        ahead = pager_stride_fault(&s, 5000000 + i * stride).n;
    }
    return faults;
}

static void test_stride(void)
{
    static const int64_t strides[] = { 1, -1, 3, 16, -64 };
    PagerStride s = { 0 };
    unsigned i, asked, seed = 1;

    for (i = 0; i < ARRAY_SIZE(strides); i++) {
        /* 16 at a time, but for the beginning */
        g_assert_cmpuint(scan(strides[i], 0, &asked), <, 80);
        g_assert_cmpuint(asked, <, 1000 + PAGER_STRIDE_MAX);
        g_assert_cmpuint(scan(strides[i], 10, &asked), <, 300);
        g_assert_cmpuint(scan_half(strides[i], &asked), <, asked / 6);
    }
    /* No pattern, (next to) no advice */
    for (i = asked = 0; i < 10000; i++) {
        seed = seed * 1103515245 + 12345;
        asked += pager_stride_fault(&s, (seed >> 8) % 100000).n;
    }
    g_assert_cmpuint(asked, <, 100);
}

/* -- Policy: traces of page numbers, and what others would make of them -- */

#define PAGES       20000
#define LENGTH      400000

typedef unsigned Simulate(const uint32_t *trace, unsigned n, unsigned size);

static unsigned simulate_fifo(const uint32_t *trace, unsigned n,
                              unsigned size)
{
    g_autofree uint32_t *ring = g_new0(uint32_t, size);
    g_autofree bool *in = g_new0(bool, PAGES);
    unsigned i, used = 0, misses = 0;

    for (i = 0; i < n; i++) {
        if (in[trace[i]]) {
            continue;
        }
        if (used >= size) {
            in[ring[used % size]] = false;
        }
        ring[used++ % size] = trace[i];
        in[trace[i]] = true;
        misses++;
    }
    return misses;
}

static unsigned simulate_lru(const uint32_t *trace, unsigned n, unsigned size)
{
    g_autofree int *prev = g_new(int, PAGES + 1);
    g_autofree int *next = g_new(int, PAGES + 1);
    g_autofree bool *in = g_new0(bool, PAGES);
    unsigned i, used = 0, misses = 0;

    /* A list whose head is PAGES, oldest first */
    prev[PAGES] = next[PAGES] = PAGES;
    for (i = 0; i < n; i++) {
        int page = trace[i];

        if (in[page]) {
            next[prev[page]] = next[page];
            prev[next[page]] = prev[page];
        } else {
            misses++;
            if (used == size) {
                int old = next[PAGES];

                next[PAGES] = next[old];
                prev[next[old]] = PAGES;
                in[old] = false;
            } else {
                used++;
            }
            in[page] = true;
        }
        prev[page] = prev[PAGES];
        next[page] = PAGES;
        next[prev[PAGES]] = page;
        prev[PAGES] = page;
    }
    return misses;
}

/* Belady's: whoever is used last leaves; a heap of (next use, page) */
typedef struct Use {
    unsigned next;
    uint32_t page;
} Use;

static int compare_uses(gconstpointer a, gconstpointer b, gpointer opaque)
{
    const Use *x = a, *y = b;

    return x->next != y->next ? (x->next < y->next ? 1 : -1) :
           (int)x->page - (int)y->page;
}

static unsigned simulate_opt(const uint32_t *trace, unsigned n, unsigned size)
{
    g_autofree unsigned *next = g_new(unsigned, n);
    g_autofree unsigned *last = g_new(unsigned, PAGES);
    g_autofree GSequenceIter **in = g_new0(GSequenceIter *, PAGES);
    GSequence *order = g_sequence_new(g_free);
    unsigned i, used = 0, misses = 0;

    for (i = 0; i < PAGES; i++) {
        last[i] = n;
    }
    for (i = n; i-- > 0;) {
        next[i] = last[trace[i]];
        last[trace[i]] = i;
    }
    for (i = 0; i < n; i++) {
        Use *use;

        if (in[trace[i]]) {
            g_sequence_remove(in[trace[i]]);
        } else {
            misses++;
            if (used == size) {
                GSequenceIter *first = g_sequence_get_begin_iter(order);

                in[((Use *)g_sequence_get(first))->page] = NULL;
                g_sequence_remove(first);
            } else {
                used++;
            }
        }
        use = g_new(Use, 1);
        *use = (Use) { next[i], trace[i] };
        in[trace[i]] = g_sequence_insert_sorted(order, use, compare_uses,
                                                NULL);
    }
    g_sequence_free(order);
    return misses;
}

/* Ours, with a staging area of a sixteenth, as the engine has it */
static unsigned simulate_pager(const uint32_t *trace, unsigned n,
                               unsigned size)
{
    enum { OUT, IN, STAGED };
    unsigned staging = size / 16, share = size - staging;
    g_autofree uint8_t *where = g_malloc0(PAGES);
    g_autofree uint32_t *ring = g_new0(uint32_t, size + 1);
    PagerPolicy *p = pager_policy_new(PAGES);
    unsigned i, resident = 0, head = 0, tail = 0, misses = 0;

    for (i = 0; i < n; i++) {
        uint32_t page = trace[i];
        uint64_t victim;

        if (where[page] == IN) {
            continue;
        }
        misses += where[page] == OUT;
        pager_policy_add(p, page, where[page] == OUT ? PAGER_POLICY_MISS :
                                                       PAGER_POLICY_SOFT);
        where[page] = IN;
        resident++;
        while (resident > share) {
            g_assert_true(pager_policy_victim(p, &victim));
            g_assert_cmpint(where[victim], ==, IN);
            where[victim] = STAGED;
            resident--;
            ring[head++ % (size + 1)] = victim;
            while (head - tail > staging) {
                uint32_t old = ring[tail++ % (size + 1)];

                if (where[old] == STAGED) {
                    where[old] = OUT;
                    pager_policy_evicted(p, old);
                }
            }
        }
    }
    for (i = 0; i < PAGES; i++) {
        resident -= where[i] == IN;
    }
    g_assert_cmpuint(resident, ==, 0);
    pager_policy_free(p);
    return misses;
}

static uint32_t random_page(GRand *r, double skew)
{
    static double *sums;
    static double skew_of_sums;
    double x;
    unsigned low = 0, high = PAGES - 1, i;

    if (!skew) {
        return g_rand_int_range(r, 0, PAGES);
    }
    if (!sums || skew_of_sums != skew) {
        double sum = 0;

        sums = g_renew(double, sums, PAGES);
        for (i = 0; i < PAGES; i++) {
            sum += 1 / pow(i + 1, skew);
            sums[i] = sum;
        }
        skew_of_sums = skew;
    }
    x = g_rand_double(r) * sums[PAGES - 1];
    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (sums[middle] < x) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    /* Spread over the memory */
    return (uint64_t)low * 7919 % PAGES;
}

static void make_trace(const char *kind, uint32_t *trace)
{
    GRand *r = g_rand_new_with_seed(42);
    unsigned i;

    for (i = 0; i < LENGTH; i++) {
        if (!strcmp(kind, "zipf")) {
            trace[i] = random_page(r, 0.99);
        } else if (!strcmp(kind, "uniform")) {
            trace[i] = random_page(r, 0);
        } else if (!strcmp(kind, "loop")) {
            trace[i] = i % (PAGES * 3 / 4);
        } else if (!strcmp(kind, "zipf-with-scans")) {
            trace[i] = i / 20000 % 2 ? i % PAGES : random_page(r, 0.99);
        } else {
            /* A working set that moves */
            trace[i] = (i / 50000 * 2500 + g_rand_int_range(r, 0, 4000)) %
                       PAGES;
        }
    }
    g_rand_free(r);
}

static void test_traces(void)
{
    static const struct {
        const char *name;
        double worst;           /* our hits by LRU's, at least */
    } kinds[] = {
        { "zipf", 0.99 },
        { "uniform", 0.97 },
        { "loop", 0.97 },
        { "zipf-with-scans", 0.94 },
        { "shifting", 0.97 },
    };
    static const unsigned shares[] = { 30, 50, 80 };
    g_autofree uint32_t *trace = g_new(uint32_t, LENGTH);
    unsigned i, j;

    g_test_message("hit rates:            memory    OPT    LRU   FIFO  pager");
    for (i = 0; i < ARRAY_SIZE(kinds); i++) {
        make_trace(kinds[i].name, trace);
        for (j = 0; j < ARRAY_SIZE(shares); j++) {
            unsigned size = PAGES * shares[j] / 100;
            double opt = LENGTH - simulate_opt(trace, LENGTH, size);
            double lru = LENGTH - simulate_lru(trace, LENGTH, size);
            double fifo = LENGTH - simulate_fifo(trace, LENGTH, size);
            double ours = LENGTH - simulate_pager(trace, LENGTH, size);

            g_test_message("%-20s %5u %%  %.3f  %.3f  %.3f  %.3f",
                           kinds[i].name, shares[j], opt / LENGTH,
                           lru / LENGTH, fifo / LENGTH, ours / LENGTH);
            g_assert_cmpfloat(ours, <=, opt);
            g_assert_cmpfloat(ours, >=, lru * kinds[i].worst);
            g_assert_cmpfloat(ours, >=, fifo * 0.97);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pager/histogram", test_histogram);
    g_test_add_func("/pager/stride", test_stride);
    g_test_add_func("/pager/policy/traces", test_traces);
    return g_test_run();
}
