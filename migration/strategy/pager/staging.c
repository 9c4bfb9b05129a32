/*
 * Remote pager: where pages wait between guest RAM and their memory host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "migration/pagelink.h"
#include "staging.h"
#include "uffd.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP    4   /* Linux 5.7 */
#endif

/* Slots that pages are moved into, all in one place */
static bool init_area(PagerStaging *s, Error **errp)
{
    size_t len = s->n * PAGELINK_PAGE_SIZE;

    s->memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->memory == MAP_FAILED) {
        error_setg_errno(errp, errno, "no room for a staging area of %zu "
                         "bytes", len);
        s->memory = NULL;
        return false;
    }
    /* A huge page would be more than what was moved in */
    qemu_madvise(s->memory, len, QEMU_MADV_NOHUGEPAGE);
    qemu_madvise(s->memory, len, QEMU_MADV_DONTFORK);
    /*
     * Of its own: discarding slots must not raise events that somebody has to
     * read.  SIGBUS, since nobody serves faults of an empty slot.
     */
    s->uffd = pager_uffd_open(UFFD_FEATURE_MOVE | UFFD_FEATURE_SIGBUS, errp);
    return s->uffd >= 0 &&
           pager_uffd_register(s->uffd, s->memory, len,
                               UFFDIO_REGISTER_MODE_MISSING, errp);
}

bool pager_staging_init(PagerStaging *s, uint64_t n, bool move, Error **errp)
{
    *s = (PagerStaging) {
        .n = n,
        .uffd = -1,
        .data = g_new0(uint8_t *, n),
        .slots = g_new0(PagerSlot, n),
        .index = g_hash_table_new(NULL, NULL),
    };
    if (!move) {
        return true;
    }
    if (!init_area(s, errp)) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        s->data[i] = s->memory + i * PAGELINK_PAGE_SIZE;
    }
    return true;
}

void pager_staging_destroy(PagerStaging *s)
{
    if (!s->n) {
        return;
    }
    if (s->uffd >= 0) {
        close(s->uffd);
    }
    if (s->memory) {
        munmap(s->memory, s->n * PAGELINK_PAGE_SIZE);
    } else {
        pager_staging_discard(s, 0, s->n);
    }
    g_free(s->data);
    g_free(s->slots);
    g_hash_table_destroy(s->index);
    *s = (PagerStaging) { 0 };
}

/*
 * The kernel chooses where to: with MREMAP_FIXED, what was there is gone even
 * if the call fails, and anybody's mapping may be there the next time
 */
static ssize_t take_mapping(PagerStaging *s, uint64_t i, void *src,
                            size_t pages)
{
    size_t len = pages * PAGELINK_PAGE_SIZE;
    uint8_t *data = mremap(src, len, len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
                           NULL);

    if (data == MAP_FAILED) {
        return -errno;
    }
    for (size_t k = 0; k < pages; k++) {
        s->data[(i + k) % s->n] = data + k * PAGELINK_PAGE_SIZE;
    }
    return pages;
}

static ssize_t take(PagerStaging *s, uint64_t i, void *src, size_t pages)
{
    return s->uffd >= 0 ?
           pager_uffd_move(s->uffd, pager_staging_data(s, i), src, pages) :
           take_mapping(s, i, src, pages);
}

ssize_t pager_staging_take(PagerStaging *s, uint64_t i, void *src,
                           size_t pages)
{
    ssize_t n = take(s, i, src, pages);

    if (pages > 1 && (n == -EFAULT || n == -EINVAL)) {
        /* They belong to two mappings */
        n = take(s, i, src, 1);
    }
    if (n == -ENOMEM) {
        warn_report_once("split memory: no mapping to take pages away with, "
                         "is vm.max_map_count too low?");
    }
    return n;
}

/* Give the mappings of slots [@i, @end) back, side by side as they are */
static void unmap(PagerStaging *s, uint64_t i, uint64_t end)
{
    while (i < end) {
        uint8_t *data = s->data[i];
        uint64_t n = 0;

        while (data && i + n < end &&
               s->data[i + n] == data + n * PAGELINK_PAGE_SIZE) {
            s->data[i + n++] = NULL;
        }
        if (n && munmap(data, n * PAGELINK_PAGE_SIZE)) {
            /* Too many mappings to split one: the memory at least */
            madvise(data, n * PAGELINK_PAGE_SIZE, MADV_DONTNEED);
        }
        i += n ?: 1;
    }
}

static void discard(PagerStaging *s, uint64_t first, uint64_t n)
{
    if (s->memory) {
        madvise(s->memory + first * PAGELINK_PAGE_SIZE,
                n * PAGELINK_PAGE_SIZE, MADV_DONTNEED);
    } else {
        unmap(s, first, first + n);
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
