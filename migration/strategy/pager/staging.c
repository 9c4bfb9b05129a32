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

bool pager_staging_init(PagerStaging *s, uint64_t n, Error **errp)
{
    size_t len = n * PAGELINK_PAGE_SIZE;
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        error_setg_errno(errp, errno, "no room for a staging area of %zu "
                         "bytes", len);
        return false;
    }
    /* A huge page would be more than what was moved in */
    qemu_madvise(memory, len, QEMU_MADV_NOHUGEPAGE);
    qemu_madvise(memory, len, QEMU_MADV_DONTFORK);
    *s = (PagerStaging) {
        .memory = memory,
        .n = n,
        .slots = g_new0(PagerSlot, n),
        .index = g_hash_table_new(NULL, NULL),
    };
    return true;
}

void pager_staging_destroy(PagerStaging *s)
{
    if (s->memory) {
        munmap(s->memory, s->n * PAGELINK_PAGE_SIZE);
        g_free(s->slots);
        g_hash_table_destroy(s->index);
        *s = (PagerStaging) { 0 };
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
