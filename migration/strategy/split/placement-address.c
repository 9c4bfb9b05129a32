/*
 * Placement by address: the lowest pages are for the main host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * S-memV's threshold.  No page ever moves, which makes it the one to compare
 * with; pages that are all zeroes leave their room unused.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "placement.h"

static bool address_wants_main(Placement *p, uint64_t page)
{
    return page < p->budget;
}

static const PlacementOps address_ops = {
    .kind = RAM_PLACEMENT_ADDRESS,
    .wants_main = address_wants_main,
};

static void address_register(void)
{
    placement_register(&address_ops);
}
migration_init(address_register)
