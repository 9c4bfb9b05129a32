/*
 * memserver: page frames
 *
 * Frames of 4 KiB, cut from chunks of 2 MiB that are mapped and unmapped as a
 * whole.  A frame has a reference count, so that a page can be replaced while
 * it is on its way into a socket, and room for its checksum; both stand in the
 * head of the chunk and are found by masking the frame's address.  The head is
 * 2 of 512 pages: 0.4 %.
 *
 * Guarantees: frames are page aligned; the content of a new frame is
 * undefined.  Free memory goes back to the system: a chunk as soon as it is
 * empty (a few are kept), single free frames once more than a fixed part of
 * the slab is free but resident.
 *
 * Threads: all functions may be called from any thread; a MsFrameCache belongs
 * to one thread.
 *
 * Rejected: malloc (returns memory only from the top of the heap, and its
 * header breaks the alignment); one mmap a page (two system calls and a VMA
 * for each); a file or memfd with FALLOC_FL_PUNCH_HOLE (slower faults, no huge
 * pages by default); garbage collection by moving pages (a frame's address
 * would no longer be stable while it is sent).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SLAB_H
#define MEMSERVER_SLAB_H

#include "migration/pagelink.h"

#define MS_CHUNK_SIZE           (2 * MiB)
#define MS_FRAMES_PER_CHUNK     (MS_CHUNK_SIZE / PAGELINK_PAGE_SIZE)
#define MS_FRAME_CACHE_SIZE     128

typedef struct MsSlab MsSlab;

/* Frames that one thread has at hand without taking the slab's lock */
typedef struct MsFrameCache {
    MsSlab *slab;
    bool bulk;                  /* see ms_frame_cache_init() */
    unsigned n;
    void *frames[MS_FRAME_CACHE_SIZE];
} MsFrameCache;

typedef struct MsSlabStats {
    uint64_t mapped;            /* frames in mapped chunks, heads included */
    uint64_t used;              /* frames handed out */
    uint64_t dirty;             /* frames free but still resident */
} MsSlabStats;

MsSlab *ms_slab_new(void);

/**
 * ms_slab_free: all frames must have been given back
 */
void ms_slab_free(MsSlab *slab);

void ms_slab_stats(MsSlab *slab, MsSlabStats *stats);

/**
 * ms_frame_cache_init:
 * @bulk: for one that mostly frees, much at a time.  What is left of chunks is
 *        given back to the system when the cache is drained, and not before:
 *        most of them will be empty then.
 */
void ms_frame_cache_init(MsFrameCache *cache, MsSlab *slab, bool bulk);

/**
 * ms_frame_cache_drain: give all frames in the cache back to the slab
 */
void ms_frame_cache_drain(MsFrameCache *cache);

/**
 * ms_frame_get: a frame with one reference
 *
 * Returns: NULL if the system has no memory
 */
void *ms_frame_get(MsFrameCache *cache);

/**
 * ms_frame_ref: one more reference; the caller must be sure of one
 */
void ms_frame_ref(void *frame);

/**
 * ms_frame_unref: drop a reference, and with the last one the frame
 *
 * May make system calls, so not to be called with a lock held.
 *
 * Returns: whether it was the last one
 */
bool ms_frame_unref(MsFrameCache *cache, void *frame);

/**
 * ms_frame_is_shared: is there another reference beside the caller's?
 *
 * A yes may be outdated at once; a no holds for as long as the caller keeps
 * others from getting at its own.
 */
bool ms_frame_is_shared(void *frame);

/**
 * ms_frame_crc: where the frame's checksum can be kept
 *
 * Written before the frame is published and constant afterwards.
 */
uint32_t *ms_frame_crc(void *frame);

#endif /* MEMSERVER_SLAB_H */
