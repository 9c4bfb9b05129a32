/*
 * Remote pager: where pages wait between guest RAM and their memory host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/madvise.h"
#include "migration/pagelink.h"
#include "staging.h"
#include "uffd.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP    4   /* Linux 5.7 */
#endif

/* @where: NULL, or what is replaced */
static void *map(void *where, size_t len)
{
    void *memory = mmap(where, len, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
                        (where ? MAP_FIXED : 0), -1, 0);

    if (memory != MAP_FAILED) {
        /* A huge page would be more than what was moved in */
        qemu_madvise(memory, len, QEMU_MADV_NOHUGEPAGE);
        qemu_madvise(memory, len, QEMU_MADV_DONTFORK);
    }
    return memory;
}

bool pager_staging_init(PagerStaging *s, uint64_t n, bool move, Error **errp)
{
    size_t len = n * PAGELINK_PAGE_SIZE;
    void *memory = map(NULL, len);

    if (memory == MAP_FAILED) {
        error_setg_errno(errp, errno, "no room for a staging area of %zu "
                         "bytes", len);
        return false;
    }
    *s = (PagerStaging) {
        .memory = memory,
        .n = n,
        .uffd = -1,
        .slots = g_new0(PagerSlot, n),
        .index = g_hash_table_new(NULL, NULL),
    };
    if (!move) {
        return true;
    }
    /*
     * Of its own: discarding slots must not raise events that somebody has to
     * read.  SIGBUS, since nobody serves faults of an empty slot.
     */
    s->uffd = pager_uffd_open(UFFD_FEATURE_MOVE | UFFD_FEATURE_SIGBUS, errp);
    return s->uffd >= 0 &&
           pager_uffd_register(s->uffd, memory, len,
                               UFFDIO_REGISTER_MODE_MISSING, errp);
}

void pager_staging_destroy(PagerStaging *s)
{
    if (s->memory) {
        if (s->uffd >= 0) {
            close(s->uffd);
        }
        munmap(s->memory, s->n * PAGELINK_PAGE_SIZE);
        g_free(s->slots);
        g_hash_table_destroy(s->index);
        *s = (PagerStaging) { 0 };
    }
}

static ssize_t take_mapping(void *dst, void *src, size_t pages)
{
    size_t len = pages * PAGELINK_PAGE_SIZE;

    if (mremap(src, len, len, MREMAP_MAYMOVE | MREMAP_FIXED |
               MREMAP_DONTUNMAP, dst) != MAP_FAILED) {
        return pages;
    }
    /* They may belong to two mappings */
    return pages > 1 ? take_mapping(dst, src, 1) : -errno;
}

ssize_t pager_staging_take(PagerStaging *s, uint64_t i, void *src,
                           size_t pages)
{
    uint8_t *slot = pager_staging_data(s, i);

    return s->uffd >= 0 ? pager_uffd_move(s->uffd, slot, src, pages) :
                          take_mapping(slot, src, pages);
}

static void discard(PagerStaging *s, uint64_t first, uint64_t n)
{
    uint8_t *slot = s->memory + first * PAGELINK_PAGE_SIZE;

    /* Without the mappings that came with the pages, or there would be many */
    if (s->uffd >= 0 || map(slot, n * PAGELINK_PAGE_SIZE) == MAP_FAILED) {
        madvise(slot, n * PAGELINK_PAGE_SIZE, MADV_DONTNEED);
    }
}

void pager_staging_discard(PagerStaging *s, uint64_t i, uint64_t n)
{
    uint64_t first = MIN(n, s->n - i % s->n);

    discard(s, i % s->n, first);
    if (n > first) {
        discard(s, 0, n - first);
    }
}

static gpointer key(uint64_t page)
{
    return (gpointer)(uintptr_t)page;
}

bool pager_staging_find(const PagerStaging *s, uint64_t page, uint64_t *i)
{
    uintptr_t found = (uintptr_t)g_hash_table_lookup(s->index, key(page));

    *i = found - 1;
    return found;
}

void pager_staging_put(PagerStaging *s, uint64_t i, uint64_t page)
{
    pager_staging_slot(s, i)->page = page;
    g_hash_table_insert(s->index, key(page), (gpointer)(uintptr_t)(i + 1));
}

void pager_staging_void(PagerStaging *s, uint64_t i)
{
    PagerSlot *slot = pager_staging_slot(s, i);

    if (slot->page != PAGER_NO_PAGE) {
        g_hash_table_remove(s->index, key(slot->page));
    }
    slot->page = PAGER_NO_PAGE;
    slot->state = PAGER_SLOT_VOID;
}
