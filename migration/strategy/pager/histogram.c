/*
 * Remote pager: histogram of latencies (see histogram.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "histogram.h"

#define SUB_BITS    3
QEMU_BUILD_BUG_ON(1 << SUB_BITS != PAGER_HISTOGRAM_SUB);

/* Values below 2 * SUB have a bucket each; above, the top bits choose */
static unsigned bucket(uint64_t ns)
{
    unsigned shift, i;

    if (ns < 2 * PAGER_HISTOGRAM_SUB) {
        return ns;
    }
    shift = 63 - clz64(ns) - SUB_BITS;
    i = (shift << SUB_BITS) + (ns >> shift);
    return MIN(i, PAGER_HISTOGRAM_BUCKETS - 1);
}

uint64_t pager_histogram_bound(unsigned i)
{
    unsigned shift;

    if (i < 2 * PAGER_HISTOGRAM_SUB) {
        return i;
    }
    shift = (i >> SUB_BITS) - 1;
    return ((uint64_t)(i - (shift << SUB_BITS)) + 1) * (1ULL << shift) - 1;
}

void pager_histogram_add(PagerHistogram *h, uint64_t ns)
{
    h->n++;
    h->buckets[bucket(ns)]++;
}

void pager_histogram_sum(PagerHistogram *h, const PagerHistogram *other)
{
    unsigned i;

    h->n += other->n;
    for (i = 0; i < PAGER_HISTOGRAM_BUCKETS; i++) {
        h->buckets[i] += other->buckets[i];
    }
}

uint64_t pager_histogram_percentile(const PagerHistogram *h, double percent)
{
    uint64_t below = 0;
    unsigned i;

    for (i = 0; i < PAGER_HISTOGRAM_BUCKETS; i++) {
        below += h->buckets[i];
        if (below && below >= h->n * percent / 100) {
            return pager_histogram_bound(i);
        }
    }
    return 0;
}
