/*
 * Size of the XBZRLE cache, chosen from the dirty set
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "delta.h"

uint64_t delta_bound(uint64_t ram, uint64_t host, uint64_t page)
{
    uint64_t bound = pow2ceil(MAX(ram, page));

    if (host) {
        bound = MIN(bound, pow2floor(MAX(host / DELTA_HOST_SHARE, page)));
    }
    return bound;
}

uint64_t delta_cache_size(uint64_t current, uint64_t dirty, uint64_t bound)
{
    if (dirty <= current || current >= bound) {
        return current;
    }
    /* Above half the bound, doubling could overflow; the bound wins anyway */
    return dirty > bound / 2 ? bound : pow2ceil(dirty * 2);
}
