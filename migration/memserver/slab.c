/*
 * memserver: page frames (see slab.h for what it guarantees)
 *
 * Chunks with free frames are in two lists, by whether at most or more than
 * half of them is free; allocation takes from the fuller ones, so that the
 * emptier ones can become empty.  Those in which enough free frames are still
 * resident are in a third, to be trimmed.  System calls are made without the
 * lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "slab.h"

#define HEAD_FRAMES             2
#define CHUNK_CAPACITY          (MS_FRAMES_PER_CHUNK - HEAD_FRAMES)
#define SPARE_CHUNKS            4       /* empty, kept against flapping */
#define CACHE_BATCH             (MS_FRAME_CACHE_SIZE / 2)
#define TRIM_CHUNKS             8       /* at most this many in one go */
#define TRIM_MIN                (CHUNK_CAPACITY / 16)   /* dirty ones */
#define DIRTY_MIN               2048    /* never trim below (8 MiB)... */
#define DIRTY_SHIFT             6       /* ...nor below used / 64 */

typedef struct MsFrameMeta {
    uint32_t refs;              /* atomic */
    uint32_t crc;               /* constant while published */
} MsFrameMeta;

/* Lies at the start of its own memory */
typedef struct MsChunk {
    MsFrameMeta meta[MS_FRAMES_PER_CHUNK];
    /* All below: under the slab's lock */
    QTAILQ_ENTRY(MsChunk) link; /* in a list of the slab, unless nfree is 0 */
    unsigned nfree;
    unsigned ndirty;            /* free ones that may still be resident */
    unsigned list;              /* index into MsSlab.partial */
    QTAILQ_ENTRY(MsChunk) dirty_link;   /* in MsSlab.dirty_chunks... */
    bool is_dirty;              /* ...if ndirty is TRIM_MIN or more */
    bool trimming;              /* in no list: a thread has it in hand */
    unsigned hint;              /* no free frame below this one */
    DECLARE_BITMAP(free, MS_FRAMES_PER_CHUNK);
} MsChunk;
QEMU_BUILD_BUG_ON(sizeof(MsChunk) > HEAD_FRAMES * PAGELINK_PAGE_SIZE);

typedef QTAILQ_HEAD(MsChunkList, MsChunk) MsChunkList;

struct MsSlab {
    QemuMutex lock;
    /* All below: under the lock */
    MsChunkList partial[2];     /* mostly used, mostly free */
    MsChunkList dirty_chunks;   /* those that are worth trimming */
    unsigned nempty;
    uint64_t nchunks;
    uint64_t used;
    uint64_t dirty;
};

static MsChunk *frame_chunk(void *frame)
{
    return (MsChunk *)((uintptr_t)frame & ~(uintptr_t)(MS_CHUNK_SIZE - 1));
}

static unsigned frame_index(void *frame)
{
    return ((uintptr_t)frame & (MS_CHUNK_SIZE - 1)) >> PAGELINK_PAGE_BITS;
}

static MsFrameMeta *frame_meta(void *frame)
{
    return &frame_chunk(frame)->meta[frame_index(frame)];
}

static void *chunk_frame(MsChunk *chunk, unsigned index)
{
    return (uint8_t *)chunk + (size_t)index * PAGELINK_PAGE_SIZE;
}

static MsChunk *chunk_map(void)
{
    uint8_t *area, *start;
    MsChunk *chunk;
    size_t before;

    /* Twice the size, so that an aligned chunk fits; then cut off the rest */
    area = mmap(NULL, 2 * MS_CHUNK_SIZE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return NULL;
    }
    start = (uint8_t *)QEMU_ALIGN_PTR_UP(area, MS_CHUNK_SIZE);
    before = start - area;
    if (before) {
        munmap(area, before);
    }
    if (before < MS_CHUNK_SIZE) {
        munmap(start + MS_CHUNK_SIZE, MS_CHUNK_SIZE - before);
    }
    /* One fault instead of 512: chunks are filled before the next is mapped */
    madvise(start, MS_CHUNK_SIZE, MADV_HUGEPAGE);
    /* Other people's guest memory has no place in our core dumps */
    madvise(start, MS_CHUNK_SIZE, MADV_DONTDUMP);

    chunk = (MsChunk *)start;
    chunk->nfree = CHUNK_CAPACITY;
    chunk->hint = HEAD_FRAMES;
    bitmap_set(chunk->free, HEAD_FRAMES, CHUNK_CAPACITY);
    return chunk;
}

/* In the lists that its numbers of free and dirty frames call for */
static void chunk_link(MsSlab *slab, MsChunk *chunk)
{
    if (!chunk->nfree) {
        return;
    }
    chunk->list = chunk->nfree > CHUNK_CAPACITY / 2;
    QTAILQ_INSERT_TAIL(&slab->partial[chunk->list], chunk, link);
    chunk->is_dirty = chunk->ndirty >= TRIM_MIN;
    if (chunk->is_dirty) {
        QTAILQ_INSERT_TAIL(&slab->dirty_chunks, chunk, dirty_link);
    }
}

static void chunk_unlink(MsSlab *slab, MsChunk *chunk)
{
    if (!chunk->nfree) {
        return;
    }
    QTAILQ_REMOVE(&slab->partial[chunk->list], chunk, link);
    if (chunk->is_dirty) {
        QTAILQ_REMOVE(&slab->dirty_chunks, chunk, dirty_link);
        chunk->is_dirty = false;
    }
}

MsSlab *ms_slab_new(void)
{
    MsSlab *slab = g_new0(MsSlab, 1);

    qemu_mutex_init(&slab->lock);
    QTAILQ_INIT(&slab->partial[0]);
    QTAILQ_INIT(&slab->partial[1]);
    QTAILQ_INIT(&slab->dirty_chunks);
    return slab;
}

void ms_slab_free(MsSlab *slab)
{
    MsChunk *chunk, *next;

    assert(!slab->used);
    QTAILQ_FOREACH_SAFE(chunk, &slab->partial[1], link, next) {
        munmap(chunk, MS_CHUNK_SIZE);
    }
    qemu_mutex_destroy(&slab->lock);
    g_free(slab);
}

void ms_slab_stats(MsSlab *slab, MsSlabStats *stats)
{
    QEMU_LOCK_GUARD(&slab->lock);
    stats->mapped = slab->nchunks * MS_FRAMES_PER_CHUNK;
    stats->used = slab->used;
    stats->dirty = slab->dirty;
}

/* Take up to @n frames of one chunk; returns how many */
static unsigned chunk_take(MsSlab *slab, MsChunk *chunk, void **out,
                           unsigned n)
{
    unsigned i = chunk->hint, got = 0;

    if (chunk->nfree == CHUNK_CAPACITY && slab->nempty) {
        slab->nempty--;
    }
    chunk_unlink(slab, chunk);
    while (got < n && chunk->nfree) {
        i = find_next_bit(chunk->free, MS_FRAMES_PER_CHUNK, i);
        clear_bit(i, chunk->free);
        chunk->nfree--;
        out[got++] = chunk_frame(chunk, i++);
    }
    chunk->hint = i;
    slab->used += got;
    if (chunk->ndirty) {
        unsigned reused = MIN(chunk->ndirty, got);

        chunk->ndirty -= reused;
        slab->dirty -= reused;
    }
    chunk_link(slab, chunk);
    return got;
}

static void cache_fill(MsFrameCache *cache)
{
    MsSlab *slab = cache->slab;
    MsChunk *fresh = NULL;

    qemu_mutex_lock(&slab->lock);
    while (cache->n < CACHE_BATCH) {
        MsChunk *chunk = QTAILQ_FIRST(&slab->partial[0]);

        if (!chunk) {
            chunk = QTAILQ_FIRST(&slab->partial[1]);
        }
        if (!chunk && !fresh) {
            /* Others can go on meanwhile, and may put some back */
            qemu_mutex_unlock(&slab->lock);
            fresh = chunk_map();
            qemu_mutex_lock(&slab->lock);
            if (!fresh) {
                break;
            }
            continue;
        }
        if (!chunk) {
            chunk = g_steal_pointer(&fresh);
            slab->nchunks++;
            slab->nempty++;
            chunk_link(slab, chunk);
        }
        cache->n += chunk_take(slab, chunk, cache->frames + cache->n,
                               CACHE_BATCH - cache->n);
    }
    qemu_mutex_unlock(&slab->lock);
    if (fresh) {
        munmap(fresh, MS_CHUNK_SIZE);
    }
}

/* Back into the lists, or out of the slab if it is empty and not needed */
static bool chunk_settle(MsSlab *slab, MsChunk *chunk)
{
    if (chunk->nfree == CHUNK_CAPACITY) {
        if (slab->nempty >= SPARE_CHUNKS) {
            slab->dirty -= chunk->ndirty;
            slab->nchunks--;
            return false;
        }
        slab->nempty++;
    }
    chunk_link(slab, chunk);
    return true;
}

/* Put a frame back.  Returns false if its chunk is to be unmapped. */
static bool slab_put(MsSlab *slab, void *frame)
{
    MsChunk *chunk = frame_chunk(frame);
    unsigned i = frame_index(frame);

    assert(!test_bit(i, chunk->free));
    if (!chunk->trimming) {
        chunk_unlink(slab, chunk);
    }
    set_bit(i, chunk->free);
    chunk->hint = MIN(chunk->hint, i);
    chunk->nfree++;
    chunk->ndirty++;
    slab->dirty++;
    slab->used--;
    return chunk->trimming || chunk_settle(slab, chunk);
}

/*
 * Give free frames of @chunk back to the system, run by run.  Without the
 * lock: the chunk is in no list, so that @free, a copy, stays free.
 */
static void chunk_trim(MsChunk *chunk, const unsigned long *free)
{
    unsigned i = 0;

    /* Or khugepaged would fill the holes again, a while later */
    madvise(chunk, MS_CHUNK_SIZE, MADV_NOHUGEPAGE);
    while ((i = find_next_bit(free, MS_FRAMES_PER_CHUNK, i)) <
           MS_FRAMES_PER_CHUNK) {
        unsigned end = find_next_zero_bit(free, MS_FRAMES_PER_CHUNK, i);

        madvise(chunk_frame(chunk, i), (end - i) * PAGELINK_PAGE_SIZE,
                MADV_DONTNEED);
        i = end;
    }
}

static bool slab_is_dirty(const MsSlab *slab)
{
    return slab->dirty > DIRTY_MIN + (slab->used >> DIRTY_SHIFT);
}

/*
 * Trim one chunk if there is too much free memory.  Only chunks in which that
 * pays are looked at, so a call either has an effect or costs nothing.
 */
static bool slab_trim(MsSlab *slab)
{
    DECLARE_BITMAP(free, MS_FRAMES_PER_CHUNK);
    unsigned trimmed;
    MsChunk *chunk;
    bool keep;

    WITH_QEMU_LOCK_GUARD(&slab->lock) {
        chunk = QTAILQ_FIRST(&slab->dirty_chunks);
        if (!chunk || !slab_is_dirty(slab)) {
            return false;
        }
        if (chunk->nfree == CHUNK_CAPACITY) {
            slab->nempty--;
        }
        chunk_unlink(slab, chunk);
        chunk->trimming = true;
        bitmap_copy(free, chunk->free, MS_FRAMES_PER_CHUNK);
        trimmed = chunk->ndirty;
    }
    chunk_trim(chunk, free);
    WITH_QEMU_LOCK_GUARD(&slab->lock) {
        chunk->trimming = false;
        chunk->ndirty -= trimmed;
        slab->dirty -= trimmed;
        keep = chunk_settle(slab, chunk);
    }
    if (!keep) {
        munmap(chunk, MS_CHUNK_SIZE);
    }
    return true;
}

static void cache_shrink(MsFrameCache *cache, unsigned keep)
{
    MsSlab *slab = cache->slab;
    MsChunk *unmap[MS_FRAME_CACHE_SIZE];
    unsigned n = 0, done = 0;
    bool dirty;

    WITH_QEMU_LOCK_GUARD(&slab->lock) {
        while (cache->n > keep) {
            void *frame = cache->frames[--cache->n];

            if (!slab_put(slab, frame)) {
                unmap[n++] = frame_chunk(frame);
            }
        }
        dirty = slab_is_dirty(slab) && !cache->bulk;
    }
    while (n) {
        munmap(unmap[--n], MS_CHUNK_SIZE);
    }
    while (dirty && done++ < TRIM_CHUNKS) {
        dirty = slab_trim(slab);
    }
}

void ms_frame_cache_init(MsFrameCache *cache, MsSlab *slab, bool bulk)
{
    cache->slab = slab;
    cache->bulk = bulk;
    cache->n = 0;
}

void ms_frame_cache_drain(MsFrameCache *cache)
{
    if (cache->n) {
        cache_shrink(cache, 0);
    }
    while (cache->bulk && slab_trim(cache->slab)) {
        /* one chunk after the other */
    }
}

void *ms_frame_get(MsFrameCache *cache)
{
    void *frame;

    if (!cache->n) {
        cache_fill(cache);
        if (!cache->n) {
            return NULL;
        }
    }
    frame = cache->frames[--cache->n];
    qatomic_set(&frame_meta(frame)->refs, 1);
    return frame;
}

void ms_frame_ref(void *frame)
{
    qatomic_inc(&frame_meta(frame)->refs);
}

bool ms_frame_unref(MsFrameCache *cache, void *frame)
{
    uint32_t old = qatomic_fetch_dec(&frame_meta(frame)->refs);

    assert(old);
    if (old > 1) {
        return false;
    }
    if (cache->n == MS_FRAME_CACHE_SIZE) {
        cache_shrink(cache, CACHE_BATCH);
    }
    cache->frames[cache->n++] = frame;
    return true;
}

bool ms_frame_is_shared(void *frame)
{
    return qatomic_read(&frame_meta(frame)->refs) > 1;
}

uint32_t *ms_frame_crc(void *frame)
{
    return &frame_meta(frame)->crc;
}
