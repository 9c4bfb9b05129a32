/*
 * Remote pager: where pages wait between guest RAM and their memory host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A ring of slots of one page each.  A page enters at the head; it leaves at
 * the tail when its memory host has it, and its memory is given back.  Until
 * then the content of a slot does not change or move, so that it can be sent,
 * and sent again, while the guest already has its page back: that is why a
 * page is copied out of its slot and not moved.
 *
 * The slots' memory belongs to whoever fills them (the evictor); everything
 * else is under the engine's lock.
 *
 * A page is taken away from the guest, and from whoever is about to write to
 * it, in one step, and without being copied: by UFFDIO_MOVE, which refuses
 * pages that are pinned for DMA; or before Linux 6.8 by mremap() with
 * MREMAP_DONTUNMAP, which does not, and which makes a mapping for each run of
 * pages, wherever the kernel likes, until they are given back.  Either leaves
 * the guest's memory registered with userfaultfd, so that the next access is a
 * fault.
 *
 * Rejected, for before Linux 6.8: to write-protect, copy and discard.  It
 * makes the evictor read guest memory, which may be gone under its hands, and
 * each page that is discarded is an event that the fault thread has to read
 * before anything else can be put in place.
 */
#ifndef MIGRATION_STRATEGY_PAGER_STAGING_H
#define MIGRATION_STRATEGY_PAGER_STAGING_H

#define PAGER_NO_PAGE           UINT64_MAX

typedef enum PagerSlotState {
    PAGER_SLOT_VOID,            /* nobody needs what is in it */
    PAGER_SLOT_UNSAFE,          /* the memory host may not have it */
    PAGER_SLOT_SAFE,
} PagerSlotState;

typedef struct PagerSlot {
    uint64_t page;              /* of all pages, or PAGER_NO_PAGE */
    uint64_t version;
    uint8_t state;              /* PAGER_SLOT_* */
    uint8_t host;               /* that has it, or is to have it */
    bool zero;
    bool stored;                /* the host has (some version of) it */
} PagerSlot;

typedef struct PagerStaging {
    uint64_t n;
    uint8_t *memory;            /* n pages, for UFFDIO_MOVE; or NULL */
    int uffd;                   /* of its own, for UFFDIO_MOVE; or -1 */
    uint8_t **data;             /* where each slot's page is; or NULL */
    uint64_t head, tail;        /* of all that ever entered, and left */
    PagerSlot *slots;
    GHashTable *index;          /* page to slot number + 1 */
} PagerStaging;

/*
 * pager_staging_init: reserves address space, no memory for pages
 *
 * @move: the kernel has UFFDIO_MOVE, and it is to be used
 */
bool pager_staging_init(PagerStaging *s, uint64_t n, bool move, Error **errp);
void pager_staging_destroy(PagerStaging *s);

static inline uint64_t pager_staging_used(const PagerStaging *s)
{
    return s->head - s->tail;
}

static inline PagerSlot *pager_staging_slot(PagerStaging *s, uint64_t i)
{
    return &s->slots[i % s->n];
}

static inline uint8_t *pager_staging_data(PagerStaging *s, uint64_t i)
{
    return s->data[i % s->n];
}

/*
 * pager_staging_take: take pages away from @src, to slots from @i on
 *
 * They do not go round the end of the ring.  A page that is not there is
 * -ENOENT, or, where there is no UFFDIO_MOVE, a slot of zeroes.  Evictor.
 *
 * Returns: number of pages taken, at least 1, or -errno, as of the first.
 */
ssize_t pager_staging_take(PagerStaging *s, uint64_t i, void *src,
                           size_t pages);

/* pager_staging_discard: give the memory of @n slots from @i on back */
void pager_staging_discard(PagerStaging *s, uint64_t i, uint64_t n);

/* pager_staging_find: number of the slot that has @page now */
bool pager_staging_find(const PagerStaging *s, uint64_t page, uint64_t *i);

/* pager_staging_put: @page is in slot @i from now on */
void pager_staging_put(PagerStaging *s, uint64_t i, uint64_t page);

/* pager_staging_void: slot @i's page is elsewhere from now on */
void pager_staging_void(PagerStaging *s, uint64_t i);

#endif
