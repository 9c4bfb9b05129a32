/*
 * Remote pager: the parts that compute
 *
 * Proves: the percentiles of the histogram are within a bucket of the true
 * ones; strides are found among stray faults, and streams go on; the order of
 * eviction is about as good as LRU's although it sees faults only, better
 * where there are scans, and never loses or doubles a page, on accesses that
 * are made up here and on those of Linux guests (pager-traces/README.rst).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "qemu/bitmap.h"
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
        g_assert_cmpuint(a.skipped, ==, 0);
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

/* A stream that goes on is not forgotten for those that have ended */
static void test_streams(void)
{
    PagerStride s = { 0 };
    uint64_t page = 1 << 30;
    unsigned i, j;

    for (i = 0; i < 5; i++) {
        page += i ? 3 : 0;
        pager_stride_fault(&s, page);
    }
    for (i = 0; i < 20; i++) {
        PagerAdvice a;

        /* It finds all that it needs, for a while */
        page = s.streams[0].next + 3 * i / 2;
        page -= (page - s.streams[0].next) % 3;
        a = pager_stride_fault(&s, page);
        g_assert_cmpint(a.stride, ==, 3);
        g_assert_cmpuint(a.skipped, ==, i / 2);
        /* Another one that comes to nothing */
        for (j = 0; j < 6; j++) {
            pager_stride_fault(&s, (i + 1) * 100000 + j * 7);
        }
    }
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

#define PAGES      20000
#define LENGTH      400000

typedef struct Trace {
    uint32_t *page;             /* in the order of the accesses */
    unsigned n;
    unsigned pages;             /* each is below */
} Trace;

static Trace *trace_new(unsigned n, unsigned pages)
{
    Trace *trace = g_new(Trace, 1);

    *trace = (Trace) { g_new0(uint32_t, n), n, pages };
    return trace;
}

static void trace_free(Trace *trace)
{
    g_free(trace->page);
    g_free(trace);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Trace, trace_free)

/* What follows returns how often a cache of @size pages misses */
static unsigned simulate_fifo(const Trace *trace, unsigned size)
{
    g_autofree uint32_t *ring = g_new0(uint32_t, size);
    g_autofree bool *in = g_new0(bool, trace->pages);
    unsigned i, used = 0, misses = 0;

    for (i = 0; i < trace->n; i++) {
        if (in[trace->page[i]]) {
            continue;
        }
        if (used >= size) {
            in[ring[used % size]] = false;
        }
        ring[used++ % size] = trace->page[i];
        in[trace->page[i]] = true;
        misses++;
    }
    return misses;
}

static unsigned simulate_lru(const Trace *trace, unsigned size)
{
    g_autofree int *prev = g_new(int, trace->pages + 1);
    g_autofree int *next = g_new(int, trace->pages + 1);
    g_autofree bool *in = g_new0(bool, trace->pages);
    unsigned i, used = 0, misses = 0;

    /* A list whose head is trace->pages, oldest first */
    prev[trace->pages] = next[trace->pages] = trace->pages;
    for (i = 0; i < trace->n; i++) {
        int page = trace->page[i];

        if (in[page]) {
            next[prev[page]] = next[page];
            prev[next[page]] = prev[page];
        } else {
            misses++;
            if (used == size) {
                int old = next[trace->pages];

                next[trace->pages] = next[old];
                prev[next[old]] = trace->pages;
                in[old] = false;
            } else {
                used++;
            }
            in[page] = true;
        }
        prev[page] = prev[trace->pages];
        next[page] = trace->pages;
        next[prev[trace->pages]] = page;
        prev[trace->pages] = page;
    }
    return misses;
}

/* Belady's: whoever is used last leaves, first of all who is not used again */
static unsigned simulate_opt(const Trace *trace, unsigned size)
{
    g_autofree unsigned *next = g_new(unsigned, trace->n);
    g_autofree unsigned *last = g_new(unsigned, trace->pages);
    g_autofree uint32_t *done = g_new(uint32_t, size + 1);
    g_autofree bool *in = g_new0(bool, trace->pages);
    /* When pages that are in are used next; none at or after @end */
    g_autofree unsigned long *due = bitmap_new(trace->n);
    unsigned i, end = 0, n_done = 0, used = 0, misses = 0;

    for (i = 0; i < trace->pages; i++) {
        last[i] = trace->n;
    }
    for (i = trace->n; i-- > 0;) {
        next[i] = last[trace->page[i]];
        last[trace->page[i]] = i;
    }
    for (i = 0; i < trace->n; i++) {
        uint32_t page = trace->page[i];

        if (in[page]) {
            clear_bit(i, due);
        } else {
            misses++;
            if (used < size) {
                used++;
            } else if (n_done) {
                in[done[--n_done]] = false;
            } else {
                end = find_last_bit(due, end);
                clear_bit(end, due);
                in[trace->page[end]] = false;
            }
            in[page] = true;
        }
        if (next[i] == trace->n) {
            done[n_done++] = page;
        } else {
            set_bit(next[i], due);
            end = MAX(end, next[i] + 1);
        }
    }
    return misses;
}

/* Ours, with a staging area of a sixteenth, as the engine has it */
static unsigned simulate_pager(const Trace *trace, unsigned size)
{
    enum { OUT, IN, STAGED };
    unsigned staging = size / 16, share = size - staging;
    g_autofree uint8_t *where = g_malloc0(trace->pages);
    g_autofree uint32_t *ring = g_new0(uint32_t, size + 1);
    PagerPolicy *p = pager_policy_new(trace->pages);
    unsigned i, resident = 0, head = 0, tail = 0, misses = 0;

    for (i = 0; i < trace->n; i++) {
        uint32_t page = trace->page[i];
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
    for (i = 0; i < trace->pages; i++) {
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

static Trace *make_trace(const char *kind)
{
    Trace *trace = trace_new(LENGTH, PAGES);
    GRand *r = g_rand_new_with_seed(42);
    unsigned i;

    for (i = 0; i < LENGTH; i++) {
        uint32_t page;

        if (!strcmp(kind, "zipf")) {
            page = random_page(r, 0.99);
        } else if (!strcmp(kind, "uniform")) {
            page = random_page(r, 0);
        } else if (!strcmp(kind, "loop")) {
            page = i % (PAGES * 3 / 4);
        } else if (!strcmp(kind, "zipf-with-scans")) {
            page = i / 20000 % 2 ? i % PAGES : random_page(r, 0.99);
        } else {
            /* A working set that moves */
            page = (i / 50000 * 2500 + g_rand_int_range(r, 0, 4000)) % PAGES;
        }
        trace->page[i] = page;
    }
    g_rand_free(r);
    return trace;
}

/* The difference that @text begins with; @text moves on */
static int read_difference(const char **text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned value = 0, shift = 0, digit;

    do {
        const char *found;

        while (**text == '\n') {
            (*text)++;
        }
        g_assert_true(**text);
        found = strchr(digits, *(*text)++);
        g_assert_nonnull(found);
        digit = found - digits;
        g_assert_cmpuint(shift, <=, 25);
        value |= (digit & 31) << shift;
        shift += 5;
    } while (digit & 32);
    return value & 1 ? -(int)(value / 2) - 1 : value / 2;
}

/* pager-traces/README.rst has the format */
static Trace *read_trace(const char *name)
{
    g_autofree char *file = g_strconcat(name, ".trace", NULL);
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "pager-traces",
                                                  file, NULL);
    g_autofree char *content = NULL;
    g_autoptr(GError) error = NULL;
    const char *text;
    unsigned pages, n, i;
    int skip = 0;
    Trace *trace;

    g_file_get_contents(path, &content, NULL, &error);
    g_assert_no_error(error);
    text = strstr(content, "\npages ");
    g_assert_nonnull(text);
    g_assert_cmpint(sscanf(text, "\npages %u\naccesses %u\n%n", &pages, &n,
                           &skip), ==, 2);
    g_assert_cmpint(skip, >, 0);
    trace = trace_new(n, pages);
    for (i = 0, text += skip; i < n; i++) {
        trace->page[i] = read_difference(&text) + (i ? trace->page[i - 1] : 0);
        g_assert_cmpuint(trace->page[i], <, pages);
    }
    g_assert_cmpstr(text, ==, "\n");
    return trace;
}

typedef struct HitRates {
    double opt, lru, fifo, pager;
} HitRates;

/* Simulate a memory of @share % of all pages, and print what comes of it */
static HitRates hit_rates(const char *name, const Trace *trace, unsigned share)
{
    unsigned size = (uint64_t)trace->pages * share / 100;
    HitRates h = {
        .opt = 1 - (double)simulate_opt(trace, size) / trace->n,
        .lru = 1 - (double)simulate_lru(trace, size) / trace->n,
        .fifo = 1 - (double)simulate_fifo(trace, size) / trace->n,
        .pager = 1 - (double)simulate_pager(trace, size) / trace->n,
    };

    g_test_message("%-20s %5u %%  %.3f  %.3f  %.3f  %.3f", name, share,
                   h.opt, h.lru, h.fifo, h.pager);
    g_assert_cmpfloat(h.pager, <=, h.opt);
    return h;
}

static const unsigned shares[] = { 30, 50, 80 };

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
    unsigned i, j;

    g_test_message("hit rates:            memory    OPT    LRU   FIFO  pager");
    for (i = 0; i < ARRAY_SIZE(kinds); i++) {
        g_autoptr(Trace) trace = make_trace(kinds[i].name);

        for (j = 0; j < ARRAY_SIZE(shares); j++) {
            HitRates h = hit_rates(kinds[i].name, trace, shares[j]);

            g_assert_cmpfloat(h.pager, >=, h.lru * kinds[i].worst);
            g_assert_cmpfloat(h.pager, >=, h.fifo * 0.97);
        }
    }
}

/*
 * Of recorded accesses, many are the first of their page, which everybody
 * misses: so bounds are of misses.  They are what was measured and 2 % of it:
 * nothing here is random, and whoever changes the policy wants to know.
 */
static void test_recorded(void)
{
    static const struct {
        const char *name;
        double worst[ARRAY_SIZE(shares)];   /* our misses by LRU's, at most */
    } traces[] = {
        { "pack", { 1.03, 1.03, 0.97 } },
        { "sort", { 1.02, 1.00, 1.03 } },
        { "unpack", { 1.04, 1.11, 1.22 } },
    };
    unsigned i, j;

    g_test_message("hit rates, recorded:  memory    OPT    LRU   FIFO  pager");
    for (i = 0; i < ARRAY_SIZE(traces); i++) {
        g_autoptr(Trace) trace = read_trace(traces[i].name);

        for (j = 0; j < ARRAY_SIZE(shares); j++) {
            HitRates h = hit_rates(traces[i].name, trace, shares[j]);

            g_assert_cmpfloat(1 - h.pager, <=,
                              (1 - h.lru) * traces[i].worst[j]);
            g_assert_cmpfloat(h.pager, >, h.fifo);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pager/histogram", test_histogram);
    g_test_add_func("/pager/stride", test_stride);
    g_test_add_func("/pager/streams", test_streams);
    g_test_add_func("/pager/policy/traces", test_traces);
    g_test_add_func("/pager/policy/recorded", test_recorded);
    return g_test_run();
}
