/*
 * Redirect: which copy of a page wins at the new destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The source always wins: what it sends is at least as new as what the relay
 * has.  Of each page is remembered whether the source has sent it and whether
 * the relay has.  A copy from the relay is taken once, and only as long as
 * the source has sent none; test, copy and mark happen under one lock, of
 * which there are several, so that two pages seldom share one.  After
 * redirect_merge_source() returns, no copy of that page from the relay is in
 * progress, and none will be taken: the caller may write the page.
 *
 * Threads: regions are added before the merge is shared; everything else is
 * safe from any thread.
 *
 * Rejected: compare-and-exchange on a state in each page (the source would
 * have to spin while the relay copies), a version in each page (eight bytes
 * for what two bits say).
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_MERGE_H
#define MIGRATION_STRATEGY_REDIRECT_MERGE_H

#include "wire.h"

typedef struct RedirectMerge RedirectMerge;
typedef struct RedirectRegion RedirectRegion;

typedef struct RedirectMergeCounts {
    uint64_t source;            /* pages that the source has sent */
    uint64_t relay;             /* taken from the relay */
    uint64_t zero;              /* of these, as zero pages */
    uint64_t duplicates;        /* from the relay, dropped */
    uint64_t replaced;          /* taken from the relay, sent by the source */
} RedirectMergeCounts;

RedirectMerge *redirect_merge_new(void);
void redirect_merge_free(RedirectMerge *m);

/*
 * redirect_merge_add: the next region; they are numbered from 0
 *
 * @host: its memory, of @pages pages; stays the caller's
 */
RedirectRegion *redirect_merge_add(RedirectMerge *m, void *host,
                                   uint64_t pages);

/* redirect_merge_region: by number; NULL when there is none */
RedirectRegion *redirect_merge_region(RedirectMerge *m, unsigned number);

/* redirect_region_pages: how many it has */
uint64_t redirect_region_pages(const RedirectRegion *r);

/*
 * redirect_merge_source: the source sends @page; to be called before it is
 * written.  @page is within the region.
 */
void redirect_merge_source(RedirectMerge *m, RedirectRegion *r, uint64_t page);

/*
 * redirect_merge_relay: the relay has sent @page; copies it if it is wanted
 *
 * @data: 4096 bytes, or NULL for a zero page
 *
 * Returns: whether it was taken
 */
bool redirect_merge_relay(RedirectMerge *m, RedirectRegion *r, uint64_t page,
                          const void *data);

/*
 * redirect_merge_bitmap: which pages are there, from whomever
 *
 * @bits: (@n + 7) / 8 bytes, laid out as in RedirectBitmap
 */
void redirect_merge_bitmap(RedirectMerge *m, RedirectRegion *r,
                           uint64_t first, uint32_t n, uint8_t *bits);

void redirect_merge_counts(RedirectMerge *m, RedirectMergeCounts *counts);

#endif
