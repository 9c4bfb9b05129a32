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

/* The map is sent in units of so many pages: 128 MiB of RAM */
#define SPLIT_CHUNK_PAGES       32768
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
    SplitSender *blocking;      /* the one that the last of them waits for */
    int64_t answered;           /* all memory hosts have, us; or 0 */
    int64_t deadline;           /* of the completion, us; or 0 */
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

/*
 * split_source_late: has @host had its time while the guest is stopped?
 *
 * Then the migration has failed.  While the guest runs, it has all the time
 * that its link gives it.
 */
bool split_source_late(SplitSource *s, unsigned host);

/* split_source_now: the one that runs, or NULL */
SplitSource *split_source_now(void);

#endif
