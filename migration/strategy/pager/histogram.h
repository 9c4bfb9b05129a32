/*
 * Remote pager: histogram of latencies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Buckets of an eighth of a power of two: at most 12.5 % wide, from 1 ns to
 * some 5 hours, in a fixed array.  A function of its arguments; whoever has
 * the histogram locks it.
 */
#ifndef MIGRATION_STRATEGY_PAGER_HISTOGRAM_H
#define MIGRATION_STRATEGY_PAGER_HISTOGRAM_H

#define PAGER_HISTOGRAM_SUB         8       /* buckets per power of two */
#define PAGER_HISTOGRAM_BUCKETS     (42 * PAGER_HISTOGRAM_SUB)

typedef struct PagerHistogram {
    uint64_t n;
    uint64_t buckets[PAGER_HISTOGRAM_BUCKETS];
} PagerHistogram;

void pager_histogram_add(PagerHistogram *h, uint64_t ns);

/* pager_histogram_sum: add @other to @h */
void pager_histogram_sum(PagerHistogram *h, const PagerHistogram *other);

/*
 * pager_histogram_percentile: in ns, the upper bound of the bucket that the
 * @percent of all lies in; 0 when there is nothing
 */
uint64_t pager_histogram_percentile(const PagerHistogram *h, double percent);

/* pager_histogram_bound: highest value in bucket @i, in ns */
uint64_t pager_histogram_bound(unsigned i);

#endif
