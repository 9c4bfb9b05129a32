/*
 * Placement: which pages of a split VM its main host gets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A placement is an ops table; each lives in a file of its own,
 * placement-NAME.c, and registers itself at start-up.  Like a schedule it is
 * pure: it sees page numbers and dirty bits, never the VM or the stream.  One
 * instance serves one migration, on one thread.
 *
 * Pages of all managed blocks are numbered one after the other; each block
 * starts at a multiple of PLACEMENT_ALIGN.  A page is
 *
 *   main      its current content, not all zeroes, went to the main host,
 *   remote    likewise, to a memory host,
 *   neither   it is all zeroes, or was not sent yet.
 *
 * This is kept here, since every decision needs it; the source's map of the
 * VM is made of these two bitmaps.
 */
#ifndef MIGRATION_STRATEGY_SPLIT_PLACEMENT_H
#define MIGRATION_STRATEGY_SPLIT_PLACEMENT_H

#include "qapi/qapi-types-strategy.h"

#define PLACEMENT_ALIGN         64

typedef struct Placement Placement;
typedef struct PlacementOps PlacementOps;

/* Called for a page that has to be sent again, clean as it is */
typedef void PlacementAgain(void *opaque, uint64_t page);

struct PlacementOps {
    RamPlacement kind;

    /* Size of the private state behind Placement, zeroed; may be 0 */
    size_t state_size;

    /* setup: the migration starts.  Optional. */
    void (*setup)(Placement *p);

    /*
     * wants_main: a page that is not zero is about to be sent; is it for
     * the main host?  There may be no room: that is not asked here.
     */
    bool (*wants_main)(Placement *p, uint64_t page);

    /*
     * pass_end: see placement_pass_end().  Optional: without it, no page
     * moves.
     */
    void (*pass_end)(Placement *p, const unsigned long *dirty,
                     PlacementAgain *again, void *opaque);

    /* cleanup: undo setup.  Optional. */
    void (*cleanup)(Placement *p);
};

struct Placement {
    const PlacementOps *ops;
    uint64_t pages;
    uint64_t budget;            /* pages that the main host may have */
    uint64_t n_main;            /* pages that it has */
    uint64_t n_left;            /* that it had, and has until it is told */
    uint64_t n_remote;
    uint64_t passes;            /* ended so far */
    uint64_t moved_in;          /* from a memory host to the main host */
    uint64_t moved_out;         /* the other way */
    unsigned long *main;
    unsigned long *remote;
    void *state;                /* private to the ops */
};

/* placement_register: make @ops known; once per kind, at start-up */
void placement_register(const PlacementOps *ops);

/*
 * placement_new: for @pages of which @budget fit the main host
 *
 * The caller owns it, and hands it to placement_free().
 */
Placement *placement_new(RamPlacement kind, uint64_t pages, uint64_t budget);

/* placement_free: NULL is fine */
void placement_free(Placement *p);

/*
 * placement_route: @page, which is not zero, is about to be sent
 *
 * Returns true if it is for the main host, and notes where it is from now
 * on.
 */
bool placement_route(Placement *p, uint64_t page);

/*
 * placement_force_main: the memory host has no room for @page, which
 * placement_route() gave to it
 *
 * Returns false if there is no room for it at the main host, either.
 */
bool placement_force_main(Placement *p, uint64_t page);

/*
 * placement_told: the main host has been told which pages it has no more
 *
 * Until then their room is not given to others.
 */
void placement_told(Placement *p);

/* placement_zero: @page is about to be sent as zero, or not at all */
void placement_zero(Placement *p, uint64_t page);

/*
 * placement_pass_end: the dirty log was read
 *
 * @dirty: a bit for each page
 * @again: called for pages that are to move although they are clean; in the
 *         next pass they come to placement_route() as if they were dirty
 *
 * Called for at most 1/16 of @pages when the first pass has ended, and later
 * for at most a quarter of those that are dirty.
 */
void placement_pass_end(Placement *p, const unsigned long *dirty,
                        PlacementAgain *again, void *opaque);

#endif
