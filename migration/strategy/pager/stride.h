/*
 * Remote pager: what to fetch before it is asked for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Finds the stride that most of the last faults of a thread have in common,
 * by majority vote over ever longer windows (Al Maruf and Chowdhury,
 * "Effectively prefetching remote memory with Leap", ATC 2020), so that a
 * few stray faults do not hide a scan.  Once pages are fetched ahead the
 * faults between them are not seen any more: a stream is then known to go on
 * when a fault comes not far behind its last page (some of the next may be
 * resident), and each time it fetches twice as much as before, up to a limit.
 * The stream that was not heard of for longest is forgotten.
 *
 * A function of what it was told; no locks in here.
 */
#ifndef MIGRATION_STRATEGY_PAGER_STRIDE_H
#define MIGRATION_STRATEGY_PAGER_STRIDE_H

#define PAGER_STRIDE_HISTORY    32      /* faults */
#define PAGER_STRIDE_STREAMS    4
#define PAGER_STRIDE_FIRST      2       /* pages, at first */
#define PAGER_STRIDE_MAX        16      /* pages, at most */

typedef struct PagerStream {
    uint64_t next;              /* the fault that would continue it */
    int64_t stride;             /* in pages; 0: unused */
    unsigned window;            /* pages advised the last time */
    unsigned fetched;           /* of them; whoever fetched them sets it */
    uint64_t used;              /* when: number of the call */
} PagerStream;

typedef struct PagerStride {
    uint64_t calls;
    uint64_t faults;            /* of them, that continued no stream */
    uint64_t last;
    int64_t history[PAGER_STRIDE_HISTORY];      /* ring of differences */
    PagerStream streams[PAGER_STRIDE_STREAMS];
} PagerStride;

typedef struct PagerAdvice {
    unsigned n;                 /* pages to fetch: page + stride * 1...n */
    int64_t stride;
    unsigned hits;              /* pages fetched before, which were used... */
    unsigned skipped;           /* ...if page - stride * 1...n were there */
    PagerStream *stream;        /* of the advice; valid until the next call */
} PagerAdvice;

/* pager_stride_fault: @page was asked for, and was not there */
PagerAdvice pager_stride_fault(PagerStride *s, uint64_t page);

#endif
