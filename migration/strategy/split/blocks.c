/*
 * Split memory: which RAM can be split
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The destination's pager needs private anonymous memory of small pages.
 * It has the same machine, so that the source can tell.
 */
#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "system/hostmem.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "source.h"
#include "split.h"

/* Least memory for the guest's pages at the main host */
#define MIN_BUDGET              (16 * MiB)

static bool is_managed(RAMBlock *rb)
{
    Object *owner = rb->mr ? memory_region_owner(rb->mr) : NULL;

    return owner && object_dynamic_cast(owner, TYPE_MEMORY_BACKEND);
}

static bool check_block(RAMBlock *rb, Error **errp)
{
    if (qemu_ram_pagesize(rb) != SPLIT_PAGE_SIZE) {
        error_setg(errp, "split memory needs RAM of %d byte pages, and '%s' "
                   "has huge ones: start the VM without hugetlbfs, or switch "
                   "split off", SPLIT_PAGE_SIZE, rb->idstr);
        return false;
    }
    if (qemu_ram_is_shared(rb) || rb->fd >= 0) {
        error_setg(errp, "split memory needs private anonymous RAM, and '%s' "
                   "is shared or a file, as vhost-user needs it: start the "
                   "VM with memory-backend-ram,share=off, or switch split off",
                   rb->idstr);
        return false;
    }
    if (memory_region_has_ram_discard_manager(rb->mr)) {
        error_setg(errp, "split memory does not work with virtio-mem, which "
                   "has '%s': remove that device, or switch split off",
                   rb->idstr);
        return false;
    }
    return true;
}

SplitSourceBlock *split_blocks_find(unsigned *n, uint64_t *unmanaged,
                                    Error **errp)
{
    g_autoptr(GArray) found = g_array_new(false, true,
                                          sizeof(SplitSourceBlock));
    uint64_t base = 0;
    RAMBlock *rb;

    *unmanaged = 0;
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        SplitSourceBlock b = {
            .rb = rb, .pages = rb->used_length / SPLIT_PAGE_SIZE, .base = base,
        };

        if (!is_managed(rb)) {
            *unmanaged += rb->used_length;
            continue;
        }
        if (!check_block(rb, errp)) {
            return NULL;
        }
        g_array_append_val(found, b);
        base += ROUND_UP(b.pages, PLACEMENT_ALIGN);
    }
    *n = found->len;
    if (!*n || *n > SPLIT_MAX_BLOCKS) {
        error_setg(errp, "split memory does not work with %u blocks of RAM: "
                   "switch split off", *n);
        return NULL;
    }
    return (SplitSourceBlock *)g_array_free(g_steal_pointer(&found), false);
}

static bool check_sizes(const RamSplit *config, uint64_t total,
                        uint64_t unmanaged, Error **errp)
{
    uint64_t room = config->main_memory;

    if (config->main_memory < unmanaged + MIN_BUDGET) {
        error_setg(errp, "main-memory of %" PRIu64 " bytes is too small: this "
                   "VM needs %" PRIu64 " for the memory of its devices, and "
                   "at least %" PRIu64 " more", config->main_memory, unmanaged,
                   (uint64_t)MIN_BUDGET);
        return false;
    }
    if (config->main_memory >= total) {
        error_setg(errp, "main-memory of %" PRIu64 " bytes takes all RAM of "
                   "this VM, %" PRIu64 " bytes: switch split off",
                   config->main_memory, total);
        return false;
    }
    for (RamMemoryHostList *h = config->memory_hosts; h; h = h->next) {
        if (!h->value->has_capacity) {
            return true;
        }
        room = h->value->capacity > UINT64_MAX - room ? UINT64_MAX :
               room + h->value->capacity;
    }
    if (room < total) {
        error_setg(errp, "main-memory and the capacities of the memory hosts "
                   "are %" PRIu64 " bytes together, less than this VM's RAM, "
                   "%" PRIu64 " bytes: give more, or switch split off", room,
                   total);
        return false;
    }
    return true;
}

/*
 * Management software resets tls-creds for a migration that is not encrypted.
 * Who named the certificate of a memory host wants its link to be.
 */
static bool check_tls(const RamSplit *config, Error **errp)
{
    for (RamMemoryHostList *h = config->memory_hosts; h; h = h->next) {
        const char *name = h->value->tls_hostname;

        if (name && *name && !migrate_tls()) {
            error_setg(errp, "tls-hostname '%s' of memory host %s asks for "
                       "TLS, and this migration has none: set tls-creds "
                       "(virsh migrate --tls), or set tls-hostname to ''",
                       name, h->value->uri);
            return false;
        }
    }
    return true;
}

bool split_check(const RamSplit *config, Error **errp)
{
    g_autofree SplitSourceBlock *blocks = NULL;
    uint64_t unmanaged;
    unsigned n;

    if (qemu_target_page_size() != SPLIT_PAGE_SIZE ||
        qemu_real_host_page_size() != SPLIT_PAGE_SIZE) {
        error_setg(errp, "split memory needs pages of %d bytes, in the guest "
                   "and on the host: switch split off", SPLIT_PAGE_SIZE);
        return false;
    }
    if (ram_block_discard_is_disabled()) {
        error_setg(errp, "split memory does not work with devices that pin "
                   "the guest's memory, such as VFIO and vDPA: unplug them, "
                   "or switch split off");
        return false;
    }
    if (!check_tls(config, errp)) {
        return false;
    }
    blocks = split_blocks_find(&n, &unmanaged, errp);
    return blocks && check_sizes(config, ram_bytes_total(), unmanaged, errp);
}
