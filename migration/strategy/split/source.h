/*
 * Split memory: what the files of the source share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_STRATEGY_SPLIT_SOURCE_H
#define MIGRATION_STRATEGY_SPLIT_SOURCE_H

#include "exec/cpu-common.h"
#include "layout.h"
#include "placement.h"
#include "sender.h"
#include "../meter.h"

/*
 * The map is sent in units of so many pages: 32 MiB of RAM, 2 KiB of map.
 * Smaller ones would send less for a page that moves alone, but need a message
 * head each, and the destination takes a limited number of them.
 */
#define SPLIT_CHUNK_PAGES       8192
/* How often a wait looks whether the migration is still alive */
#define SPLIT_WAIT_MS           100

typedef struct SplitSourceBlock {
    RAMBlock *rb;               /* kept by a reference to its region */
    uint64_t pages;
    uint64_t base;              /* number of its first page, see placement.h */
    unsigned long *changed;     /* chunks of the map to be sent */
} SplitSourceBlock;

typedef struct SplitSourceHost {
    SplitSender *sender;
    uint64_t capacity;          /* pages that it may have */
    uint64_t frames;            /* of its memory, for pages and extents */
    uint64_t extents;           /* that it was given: a frame each, for good */
    uint64_t stored;            /* pages that it has */
    uint64_t rest;              /* dirty pages for it, see estimate.c */
} SplitSourceHost;

typedef struct SplitSource {
    /* Constant while the migration runs */
    SplitSetup *setup;
    unsigned n_blocks;
    SplitSourceBlock *blocks;
    uint64_t pages;             /* of all blocks, gaps included */
    bool detect_zero;

    /*
     * Migration thread.  Numbers are read by split_query() under the BQL as
     * well: they may be a moment old.
     */
    Placement *placement;
    SplitLayout *layout;        /* its maps are the placement's */
    SplitSourceHost *hosts;     /* setup->n_hosts */
    unsigned last_block;        /* the one of the last page */
    uint64_t version;
    uint64_t zero_pages;
    uint64_t again;             /* pages sent again only to move them */
    unsigned long *dirty;       /* for the placement */
    uint64_t left_most;         /* of Placement.n_left, then the map is due */
    bool map_due;
    unsigned put_off;           /* pages, one after the other */
    GArray *later;              /* of uint64_t: numbers of all of this turn */
    SplitSender *blocking;      /* the one that the last of them waits for */
    int64_t answered;           /* all memory hosts have, us; or 0 */
    int64_t deadline;           /* of the completion, us */
    bool finishing;             /* the completion waits; BQL */
    /* See estimate.c */
    uint64_t main_rest;         /* dirty pages for the main host */
    uint64_t main_bytes;        /* sent on the main link */
    Meter main_meter;
    double main_rate;           /* bytes per second; 0: unknown */
} SplitSource;

/*
 * split_blocks_find: the blocks that may have pages elsewhere
 *
 * BQL.  Main memory and DIMMs; everything else, ROMs and the memory of
 * devices, stays on the main host: @unmanaged is set to its size in bytes.
 * NULL if there is a block that cannot be split: the error names it.  The
 * caller owns the array.
 */
SplitSourceBlock *split_blocks_find(unsigned *n, uint64_t *unmanaged,
                                    Error **errp);

/* split_source_fail: the migration cannot go on; takes over @err */
void split_source_fail(Error *err);

/* split_source_alive: false once the migration was cancelled or has failed */
bool split_source_alive(void);

/* split_map_pending: bytes of the map that have changed */
uint64_t split_map_pending(const SplitSource *s);

/*
 * split_estimate_routed: @page of @b is about to be sent, to wherever
 *
 * Migration thread, before its place changes.  @b: NULL for a block that is not
 * split.
 */
void split_estimate_routed(SplitSource *s, const SplitSourceBlock *b,
                           uint64_t page);

/*
 * split_estimate_pass_end: the dirty log was read, and what is to move is
 * dirty, too; migration thread, BQL
 */
void split_estimate_pass_end(SplitSource *s);

/* split_estimate_ms: what is left would take so long, on the slowest link */
double split_estimate_ms(SplitSource *s);

/* split_source_now: the one that runs, or NULL */
SplitSource *split_source_now(void);

#endif
