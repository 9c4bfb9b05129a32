/*
 * memserver: the store of one session
 *
 * For each block a radix tree from page number to page: a root array sized by
 * the block, nodes for 512 leaves (512 MiB), leaves for 256 pages (1 MiB).
 * Nodes and leaves are frames of the slab.  A leaf's slot holds the version of
 * the page and either a frame, or "zero", or "absent"; zero pages need no
 * frame.  A full leaf costs 1/256 of what it describes: 0.4 %.
 *
 * Guarantees: a page never goes back to an older version, also not through
 * "absent": a DROP leaves its version behind.  Readers see a page as it was
 * put, whole, or not at all.  All memory is charged to the account first, and
 * for as long as anybody holds it: whoever drops the last reference to a page's
 * frame, the store or who got it, releases its charge.
 *
 * Threads: any number may put, get and drop at the same time.  Adding blocks
 * is serialised by the caller; a block, once visible, stays until
 * ms_store_free().
 *
 * Locks: a slot is under the stripe lock of its leaf (MS_STRIPES of them,
 * chosen by leaf number); node and root entries are set once, by
 * compare-and-swap.  A caller that visits pages in order takes each lock once
 * for a run of pages of the same leaf.  No other lock is taken inside, and no
 * memory allocated or freed.
 *
 * Rejected: one rwlock for the store (every reader writes to its cache line,
 * and one writer stops all); RCU (pages are pinned for as long as a socket
 * takes, which is no grace period); a hash table (no order, more than 3 % of
 * overhead when half full, and rehashing stalls); a spin lock in each slot
 * (with fewer cores than threads a preempted holder costs a time slice).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_STORE_H
#define MEMSERVER_STORE_H

#include "account.h"
#include "slab.h"

typedef struct MsStore MsStore;
typedef struct MsBlock MsBlock;

typedef struct MsStoreStats {
    uint64_t pages;             /* with a frame */
    uint64_t zero_pages;
    uint32_t blocks;
} MsStoreStats;

typedef enum MsPut {
    MS_PUT_STORED,
    MS_PUT_STALE,               /* a newer version is there; no effect */
    MS_PUT_NO_MEMORY,           /* an account is full; no effect */
} MsPut;

typedef enum MsGet {
    MS_GET_ABSENT,
    MS_GET_ZERO,
    MS_GET_PAGE,
} MsGet;

/*
 * What was found; @frame carries a reference that the caller drops.  If that
 * was the last one, it releases one page of the store's account.
 */
typedef struct MsPage {
    MsGet what;
    bool has_crc;
    void *frame;
    uint64_t version;
} MsPage;

#define MS_WALK_DEAD            32

/*
 * A walk over pages: remembers which stripe is locked.  Initialise with
 * { 0 }, end with ms_walk_end().  Between, the thread may hold one stripe.
 */
typedef struct MsWalk {
    MsBlock *block;
    uint64_t leaf;              /* number of the leaf, if locked is set */
    QemuMutex *locked;
    struct MsSlot *slots;       /* of the leaf, NULL if there is none yet */
    int64_t pages_delta;
    int64_t zero_delta;
    MsAccount *culprit;         /* of MS_PUT_NO_MEMORY: whose limit it is */
    /* Frames to be dropped when no stripe is locked */
    MsFrameCache *cache;
    unsigned ndead;
    uintptr_t dead[MS_WALK_DEAD];
} MsWalk;

/**
 * ms_store_new:
 * @account: charged for everything; must outlive the store
 */
MsStore *ms_store_new(MsAccount *account);

/**
 * ms_store_free: drop all pages, release all charges
 *
 * No other thread may use the store any more.
 */
void ms_store_free(MsStore *store, MsFrameCache *cache);

/**
 * ms_store_add_block:
 *
 * Idempotent for the same @pages and @name.
 *
 * Returns: MS_PUT_STORED, MS_PUT_STALE if the block exists with another shape,
 *          or MS_PUT_NO_MEMORY, with @culprit set to the account that is full
 */
MsPut ms_store_add_block(MsStore *store, uint16_t id, uint64_t pages,
                         const char *name, MsAccount **culprit);

/**
 * ms_store_block: the block @id, or NULL
 */
MsBlock *ms_store_block(MsStore *store, uint16_t id);
uint64_t ms_block_pages(const MsBlock *block);
const char *ms_block_name(const MsBlock *block);

/**
 * ms_walk_end: release what the walk holds and book its changes
 */
void ms_walk_end(MsStore *store, MsWalk *walk);

/**
 * ms_store_prepare: make the bookkeeping that a put of this page needs
 *
 * Once it is there it stays, so the put cannot fail for the lack of it.
 *
 * Returns: false, with @culprit set, if there is no room for it
 */
bool ms_store_prepare(MsStore *store, MsFrameCache *cache, MsBlock *block,
                      uint64_t page, MsAccount **culprit);

/**
 * ms_store_put: store one page
 * @page: must be within the block
 * @frame: the content, or NULL for a zero page.  Taken over if MS_PUT_STORED
 *         is returned, otherwise still the caller's.
 * @has_crc: the frame's checksum is set
 * @reserved: pages that the caller has charged for this; decremented if one
 *            is used up, and when it is 0, one is charged
 *
 * A page that is being sent can always be replaced: its frame's charge then may
 * exceed the limit until it has been sent.
 */
MsPut ms_store_put(MsStore *store, MsWalk *walk, MsFrameCache *cache,
                   MsBlock *block, uint64_t page, uint64_t version,
                   void *frame, bool has_crc, uint32_t *reserved);

/**
 * ms_store_has_frame: would a put of this page need no new frame
 */
bool ms_store_has_frame(MsStore *store, MsWalk *walk, MsBlock *block,
                        uint64_t page);

/**
 * ms_store_get: look up one page within the block
 */
void ms_store_get(MsStore *store, MsWalk *walk, MsBlock *block, uint64_t page,
                  MsPage *out);

/**
 * ms_store_drop: forget pages that are not newer than @version
 *
 * Where nothing was ever stored and the account is full, the version is not
 * remembered.
 *
 * Returns: number of pages (with data or zero) that were dropped
 */
uint64_t ms_store_drop(MsStore *store, MsFrameCache *cache, MsBlock *block,
                       uint64_t page, uint32_t pages, uint64_t version);

/**
 * ms_store_bitmap: set a bit for each page that is held
 * @bits: DIV_ROUND_UP(@pages, 8) bytes, cleared by the caller
 */
void ms_store_bitmap(MsStore *store, MsBlock *block, uint64_t first,
                     uint32_t pages, uint8_t *bits);

void ms_store_stats(MsStore *store, MsStoreStats *stats);

#endif /* MEMSERVER_STORE_H */
