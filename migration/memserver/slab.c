/*
 * memserver: page frames (see slab.h for what it guarantees)
 *
 * Chunks with free frames are in two lists, by whether at most or more than
 * half of them is free; allocation takes from the fuller ones, so that the
 * emptier ones can become empty.
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
    unsigned hint;              /* no free frame below this one */
    DECLARE_BITMAP(free, MS_FRAMES_PER_CHUNK);
} MsChunk;
QEMU_BUILD_BUG_ON(sizeof(MsChunk) > HEAD_FRAMES * PAGELINK_PAGE_SIZE);

typedef QTAILQ_HEAD(MsChunkList, MsChunk) MsChunkList;

struct MsSlab {
    QemuMutex lock;
    /* All below: under the lock */
    MsChunkList partial[2];     /* mostly used, mostly free */
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

static void chunk_link(MsSlab *slab, MsChunk *chunk)
{
    chunk->list = chunk->nfree > CHUNK_CAPACITY / 2;
    QTAILQ_INSERT_TAIL(&slab->partial[chunk->list], chunk, link);
}

static void chunk_unlink(MsSlab *slab, MsChunk *chunk)
{
    QTAILQ_REMOVE(&slab->partial[chunk->list], chunk, link);
}

MsSlab *ms_slab_new(void)
{
    MsSlab *slab = g_new0(MsSlab, 1);

    qemu_mutex_init(&slab->lock);
    QTAILQ_INIT(&slab->partial[0]);
    QTAILQ_INIT(&slab->partial[1]);
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
    if (chunk->nfree) {
        chunk_link(slab, chunk);
    }
    return got;
}

static void cache_fill(MsFrameCache *cache)
{
    MsSlab *slab = cache->slab;

    QEMU_LOCK_GUARD(&slab->lock);
    while (cache->n < CACHE_BATCH) {
        MsChunk *chunk = QTAILQ_FIRST(&slab->partial[0]);

        if (!chunk) {
            chunk = QTAILQ_FIRST(&slab->partial[1]);
        }
        if (!chunk) {
            chunk = chunk_map();
            if (!chunk) {
                return;
            }
            slab->nchunks++;
            slab->nempty++;
            chunk_link(slab, chunk);
        }
        cache->n += chunk_take(slab, chunk, cache->frames + cache->n,
                               CACHE_BATCH - cache->n);
    }
}

/* Give free frames of @chunk back to the system, run by run */
static void chunk_trim(MsSlab *slab, MsChunk *chunk)
{
    unsigned i = 0;

    /* Or khugepaged would fill the holes again, a while later */
    madvise(chunk, MS_CHUNK_SIZE, MADV_NOHUGEPAGE);
    while ((i = find_next_bit(chunk->free, MS_FRAMES_PER_CHUNK, i)) <
           MS_FRAMES_PER_CHUNK) {
        unsigned end = find_next_zero_bit(chunk->free, MS_FRAMES_PER_CHUNK, i);

        madvise(chunk_frame(chunk, i), (end - i) * PAGELINK_PAGE_SIZE,
                MADV_DONTNEED);
        i = end;
    }
    slab->dirty -= chunk->ndirty;
    chunk->ndirty = 0;
}

static void slab_trim(MsSlab *slab)
{
    unsigned done = 0;
    int list;

    for (list = 1; list >= 0; list--) {
        MsChunk *chunk;

        QTAILQ_FOREACH(chunk, &slab->partial[list], link) {
            if (chunk->ndirty < CHUNK_CAPACITY / 16) {
                continue;
            }
            chunk_trim(slab, chunk);
            if (++done == TRIM_CHUNKS) {
                return;
            }
        }
    }
}

/*
 * Put a frame back; an empty chunk that is not kept as a spare is returned in
 * @unmap, since unmapping can wait until the lock is released.
 */
static void slab_put(MsSlab *slab, void *frame, MsChunk **unmap)
{
    MsChunk *chunk = frame_chunk(frame);
    unsigned i = frame_index(frame);

    assert(!test_bit(i, chunk->free));
    if (chunk->nfree) {
        chunk_unlink(slab, chunk);
    }
    set_bit(i, chunk->free);
    chunk->hint = MIN(chunk->hint, i);
    chunk->nfree++;
    chunk->ndirty++;
    slab->dirty++;
    slab->used--;
    if (chunk->nfree == CHUNK_CAPACITY) {
        if (slab->nempty >= SPARE_CHUNKS) {
            slab->dirty -= chunk->ndirty;
            slab->nchunks--;
            *unmap = chunk;
            return;
        }
        slab->nempty++;
    }
    chunk_link(slab, chunk);
}

static void cache_shrink(MsFrameCache *cache, unsigned keep)
{
    MsSlab *slab = cache->slab;
    MsChunk *unmap[MS_FRAME_CACHE_SIZE];
    unsigned n = 0;

    WITH_QEMU_LOCK_GUARD(&slab->lock) {
        while (cache->n > keep) {
            unmap[n] = NULL;
            slab_put(slab, cache->frames[--cache->n], &unmap[n]);
            if (unmap[n]) {
                n++;
            }
        }
        if (slab->dirty > DIRTY_MIN + (slab->used >> DIRTY_SHIFT)) {
            slab_trim(slab);
        }
    }
    while (n) {
        munmap(unmap[--n], MS_CHUNK_SIZE);
    }
}

void ms_frame_cache_init(MsFrameCache *cache, MsSlab *slab)
{
    cache->slab = slab;
    cache->n = 0;
}

void ms_frame_cache_drain(MsFrameCache *cache)
{
    if (cache->n) {
        cache_shrink(cache, 0);
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

void ms_frame_unref(MsFrameCache *cache, void *frame)
{
    uint32_t old = qatomic_fetch_dec(&frame_meta(frame)->refs);

    assert(old);
    if (old == 1) {
        if (cache->n == MS_FRAME_CACHE_SIZE) {
            cache_shrink(cache, CACHE_BATCH);
        }
        cache->frames[cache->n++] = frame;
    }
}

uint32_t *ms_frame_crc(void *frame)
{
    return &frame_meta(frame)->crc;
}
