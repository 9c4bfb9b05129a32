/*
 * memserver: the store of one session (see store.h for what it guarantees)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "store.h"

#define LEAF_BITS               8
#define LEAF_PAGES              (1 << LEAF_BITS)
#define NODE_BITS               9
#define NODE_LEAVES             (1 << NODE_BITS)
#define MS_STRIPES              64

/* MsSlot.state: a frame's address, whose low bits are free, and these */
#define SLOT_ABSENT             0
#define SLOT_ZERO               1
#define SLOT_CRC                2       /* beside a frame: checksum is valid */
#define SLOT_FLAGS              3

typedef struct MsSlot {
    uint64_t version;
    uintptr_t state;
} MsSlot;
QEMU_BUILD_BUG_ON(sizeof(MsSlot) * LEAF_PAGES > PAGELINK_PAGE_SIZE);

typedef struct MsNode {
    MsSlot *leaves[NODE_LEAVES];
} MsNode;
QEMU_BUILD_BUG_ON(sizeof(MsNode) > PAGELINK_PAGE_SIZE);

struct MsBlock {
    uint64_t pages;             /* these three: constant */
    uint64_t charge;
    char *name;
    size_t nroots;
    MsNode *roots[];            /* each set once */
};

/* Lock order: one stripe at a time, and no other lock inside it */
struct MsStore {
    MsAccount *account;         /* constant */
    uint64_t pages;             /* atomic */
    uint64_t zero_pages;        /* atomic */
    uint32_t nblocks;           /* atomic */
    MsBlock *blocks[PAGELINK_MAX_BLOCKS];   /* each set once */
    struct {
        QemuMutex lock;
    } QEMU_ALIGNED(64) stripes[MS_STRIPES];
};

static void *slot_frame(const MsSlot *slot)
{
    return (void *)(slot->state & ~(uintptr_t)SLOT_FLAGS);
}

MsStore *ms_store_new(MsAccount *account)
{
    MsStore *store = qemu_memalign(64, sizeof(*store));
    size_t i;

    memset(store, 0, sizeof(*store));
    store->account = account;
    for (i = 0; i < MS_STRIPES; i++) {
        qemu_mutex_init(&store->stripes[i].lock);
    }
    return store;
}

static void leaf_free(MsStore *store, MsFrameCache *cache, MsSlot *slots)
{
    uint64_t released = 1;
    size_t i;

    for (i = 0; i < LEAF_PAGES; i++) {
        void *frame = slot_frame(&slots[i]);

        if (frame) {
            released += ms_frame_unref(cache, frame);
        }
    }
    ms_frame_unref(cache, slots);
    ms_account_release(store->account, released);
}

static void block_free(MsStore *store, MsFrameCache *cache, MsBlock *block)
{
    size_t i, j;

    for (i = 0; i < block->nroots; i++) {
        MsNode *node = block->roots[i];

        for (j = 0; node && j < NODE_LEAVES; j++) {
            if (node->leaves[j]) {
                leaf_free(store, cache, node->leaves[j]);
            }
        }
        if (node) {
            ms_frame_unref(cache, node);
            ms_account_release(store->account, 1);
        }
    }
    ms_account_release(store->account, block->charge);
    g_free(block->name);
    g_free(block);
}

void ms_store_free(MsStore *store, MsFrameCache *cache)
{
    size_t i;

    for (i = 0; i < PAGELINK_MAX_BLOCKS; i++) {
        if (store->blocks[i]) {
            block_free(store, cache, store->blocks[i]);
        }
    }
    for (i = 0; i < MS_STRIPES; i++) {
        qemu_mutex_destroy(&store->stripes[i].lock);
    }
    ms_frame_cache_drain(cache);
    qemu_vfree(store);
}

MsPut ms_store_add_block(MsStore *store, uint16_t id, uint64_t pages,
                         const char *name, MsAccount **culprit)
{
    MsBlock *block = store->blocks[id];
    size_t nroots, size;
    uint64_t charge;

    if (block) {
        return block->pages == pages && !strcmp(block->name, name) ?
               MS_PUT_STORED : MS_PUT_STALE;
    }
    nroots = DIV_ROUND_UP(pages, (uint64_t)NODE_LEAVES * LEAF_PAGES);
    size = sizeof(MsBlock) + nroots * sizeof(MsNode *);
    charge = DIV_ROUND_UP(size, PAGELINK_PAGE_SIZE);
    if (!ms_account_charge(store->account, charge, culprit)) {
        return MS_PUT_NO_MEMORY;
    }
    block = g_malloc0(size);
    block->pages = pages;
    block->charge = charge;
    block->name = g_strdup(name);
    block->nroots = nroots;
    qatomic_store_release(&store->blocks[id], block);
    qatomic_inc(&store->nblocks);
    return MS_PUT_STORED;
}

MsBlock *ms_store_block(MsStore *store, uint16_t id)
{
    return id < PAGELINK_MAX_BLOCKS ?
           qatomic_load_acquire(&store->blocks[id]) : NULL;
}

uint64_t ms_block_pages(const MsBlock *block)
{
    return block->pages;
}

const char *ms_block_name(const MsBlock *block)
{
    return block->name;
}

/* In MsWalk.dead: the frame's charge has gone over to another frame */
#define DEAD_UNCHARGED          1

/* Unlock, and only then do what may take long */
static void walk_leave(MsStore *store, MsWalk *walk)
{
    uint64_t released = 0;

    if (walk->locked) {
        qemu_mutex_unlock(walk->locked);
        walk->locked = NULL;
    }
    while (walk->ndead) {
        uintptr_t dead = walk->dead[--walk->ndead];
        void *frame = (void *)(dead & ~(uintptr_t)DEAD_UNCHARGED);

        if (ms_frame_unref(walk->cache, frame) && !(dead & DEAD_UNCHARGED)) {
            released++;
        }
    }
    if (released) {
        ms_account_release(store->account, released);
    }
}

/* Drop the store's reference to a frame that has left its slot */
static void walk_bury(MsStore *store, MsWalk *walk, MsFrameCache *cache,
                      void *frame, bool uncharged)
{
    walk->cache = cache;
    walk->dead[walk->ndead++] = (uintptr_t)frame |
                                (uncharged ? DEAD_UNCHARGED : 0);
    if (walk->ndead == MS_WALK_DEAD) {
        walk_leave(store, walk);
    }
}

static MsSlot *find_leaf(MsBlock *block, uint64_t leaf)
{
    MsNode *node = qatomic_load_acquire(&block->roots[leaf >> NODE_BITS]);

    return node ? qatomic_load_acquire(&node->leaves[leaf &
                                                     (NODE_LEAVES - 1)]) :
           NULL;
}

/* Lock the leaf of @page and find it, if it exists */
static void walk_to(MsStore *store, MsWalk *walk, MsBlock *block,
                    uint64_t page)
{
    uint64_t leaf = page >> LEAF_BITS;

    if (walk->locked && walk->block == block && walk->leaf == leaf) {
        return;
    }
    walk_leave(store, walk);
    walk->block = block;
    walk->leaf = leaf;
    walk->locked = &store->stripes[leaf % MS_STRIPES].lock;
    qemu_mutex_lock(walk->locked);
    walk->slots = find_leaf(block, leaf);
}

void ms_walk_end(MsStore *store, MsWalk *walk)
{
    walk_leave(store, walk);
    if (walk->pages_delta) {
        qatomic_add(&store->pages, walk->pages_delta);
        walk->pages_delta = 0;
    }
    if (walk->zero_delta) {
        qatomic_add(&store->zero_pages, walk->zero_delta);
        walk->zero_delta = 0;
    }
}

static void *zeroed_frame(MsStore *store, MsFrameCache *cache,
                          MsAccount **culprit)
{
    void *frame;

    if (!ms_account_charge(store->account, 1, culprit)) {
        return NULL;
    }
    frame = ms_frame_get(cache);
    if (!frame) {
        ms_account_release(store->account, 1);
        /* The host's memory has an end before --max-memory */
        *culprit = store->account;
        while ((*culprit)->parent) {
            *culprit = (*culprit)->parent;
        }
        return NULL;
    }
    memset(frame, 0, PAGELINK_PAGE_SIZE);
    return frame;
}

/* Set @where to a zeroed frame unless somebody else is faster */
static void *frame_at(MsStore *store, MsFrameCache *cache, void **where,
                      MsAccount **culprit)
{
    void *frame = qatomic_load_acquire(where), *other;

    if (frame) {
        return frame;
    }
    frame = zeroed_frame(store, cache, culprit);
    if (!frame) {
        return NULL;
    }
    other = qatomic_cmpxchg(where, NULL, frame);
    if (other) {
        ms_frame_unref(cache, frame);
        ms_account_release(store->account, 1);
        return other;
    }
    return frame;
}

bool ms_store_prepare(MsStore *store, MsFrameCache *cache, MsBlock *block,
                      uint64_t page, MsAccount **culprit)
{
    uint64_t leaf = page >> LEAF_BITS;
    MsNode *node;

    node = frame_at(store, cache, (void **)&block->roots[leaf >> NODE_BITS],
                    culprit);
    return node &&
           frame_at(store, cache,
                    (void **)&node->leaves[leaf & (NODE_LEAVES - 1)],
                    culprit);
}

/* Like walk_to(), but the leaf exists afterwards */
static bool walk_make(MsStore *store, MsWalk *walk, MsFrameCache *cache,
                      MsBlock *block, uint64_t page)
{
    walk_to(store, walk, block, page);
    if (walk->slots) {
        return true;
    }
    walk_leave(store, walk);
    if (!ms_store_prepare(store, cache, block, page, &walk->culprit)) {
        return false;
    }
    walk_to(store, walk, block, page);
    return true;
}

MsPut ms_store_put(MsStore *store, MsWalk *walk, MsFrameCache *cache,
                   MsBlock *block, uint64_t page, uint64_t version,
                   void *frame, bool has_crc, uint32_t *reserved)
{
    bool inherit = false;
    MsSlot *slot;
    void *old;

    if (!walk_make(store, walk, cache, block, page)) {
        return MS_PUT_NO_MEMORY;
    }
    slot = &walk->slots[page & (LEAF_PAGES - 1)];
    if (version < slot->version) {
        return MS_PUT_STALE;
    }
    old = slot_frame(slot);
    if (frame && old) {
        /* References are taken under the stripe's lock: a no stays one */
        inherit = !ms_frame_is_shared(old);
        if (!inherit && !ms_account_charge(store->account, 1,
                                           &walk->culprit)) {
            ms_account_overdraw(store->account, 1);
        }
    } else if (frame) {
        if (*reserved) {
            (*reserved)--;
        } else if (!ms_account_charge(store->account, 1, &walk->culprit)) {
            return MS_PUT_NO_MEMORY;
        }
    }
    walk->pages_delta += !!frame - !!old;
    walk->zero_delta += !frame - (slot->state == SLOT_ZERO);
    slot->version = version;
    if (frame) {
        slot->state = (uintptr_t)frame | (has_crc ? SLOT_CRC : 0);
    } else {
        slot->state = SLOT_ZERO;
    }
    if (old) {
        walk_bury(store, walk, cache, old, inherit);
    }
    return MS_PUT_STORED;
}

bool ms_store_has_frame(MsStore *store, MsWalk *walk, MsBlock *block,
                        uint64_t page)
{
    walk_to(store, walk, block, page);
    return walk->slots && slot_frame(&walk->slots[page & (LEAF_PAGES - 1)]);
}

void ms_store_get(MsStore *store, MsWalk *walk, MsBlock *block, uint64_t page,
                  MsPage *out)
{
    const MsSlot *slot;

    *out = (MsPage) { .what = MS_GET_ABSENT };
    walk_to(store, walk, block, page);
    if (!walk->slots) {
        return;
    }
    slot = &walk->slots[page & (LEAF_PAGES - 1)];
    out->version = slot->version;
    if (slot->state == SLOT_ZERO) {
        out->what = MS_GET_ZERO;
    } else if (slot->state != SLOT_ABSENT) {
        out->what = MS_GET_PAGE;
        out->has_crc = slot->state & SLOT_CRC;
        out->frame = slot_frame(slot);
        ms_frame_ref(out->frame);
    }
}

uint64_t ms_store_drop(MsStore *store, MsFrameCache *cache, MsBlock *block,
                       uint64_t page, uint32_t pages, uint64_t version)
{
    MsWalk walk = { 0 };
    uint64_t end = page + pages, dropped = 0;

    while (page < end) {
        MsSlot *slot;
        void *old;

        if (!walk_make(store, &walk, cache, block, page)) {
            page = ROUND_UP(page + 1, LEAF_PAGES);
            continue;
        }
        slot = &walk.slots[page++ & (LEAF_PAGES - 1)];
        if (version < slot->version) {
            continue;
        }
        old = slot_frame(slot);
        dropped += slot->state != SLOT_ABSENT;
        walk.zero_delta -= slot->state == SLOT_ZERO;
        walk.pages_delta -= !!old;
        slot->state = SLOT_ABSENT;
        slot->version = version;
        if (old) {
            walk_bury(store, &walk, cache, old, false);
        }
    }
    ms_walk_end(store, &walk);
    return dropped;
}

void ms_store_bitmap(MsStore *store, MsBlock *block, uint64_t first,
                     uint32_t pages, uint8_t *bits)
{
    MsWalk walk = { 0 };
    uint64_t i = 0;

    while (i < pages) {
        uint64_t page = first + i;

        walk_to(store, &walk, block, page);
        if (!walk.slots) {
            i += LEAF_PAGES - (page & (LEAF_PAGES - 1));
            continue;
        }
        if (walk.slots[page & (LEAF_PAGES - 1)].state != SLOT_ABSENT) {
            bits[i / 8] |= 1 << (i % 8);
        }
        i++;
    }
    ms_walk_end(store, &walk);
}

void ms_store_stats(MsStore *store, MsStoreStats *stats)
{
    stats->pages = qatomic_read(&store->pages);
    stats->zero_pages = qatomic_read(&store->zero_pages);
    stats->blocks = qatomic_read(&store->nblocks);
}
