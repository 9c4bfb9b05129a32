/*
 * Placement: which pages of a split VM its main host gets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "placement.h"

static const PlacementOps *known[RAM_PLACEMENT__MAX];

void placement_register(const PlacementOps *ops)
{
    assert(!known[ops->kind]);
    known[ops->kind] = ops;
}

Placement *placement_new(RamPlacement kind, uint64_t pages, uint64_t budget)
{
    Placement *p = g_new0(Placement, 1);

    assert(known[kind]);
    p->ops = known[kind];
    p->pages = pages;
    p->budget = budget;
    p->main = bitmap_new(pages);
    p->remote = bitmap_new(pages);
    p->state = g_malloc0(p->ops->state_size);
    if (p->ops->setup) {
        p->ops->setup(p);
    }
    return p;
}

void placement_free(Placement *p)
{
    if (!p) {
        return;
    }
    if (p->ops->cleanup) {
        p->ops->cleanup(p);
    }
    g_free(p->state);
    g_free(p->remote);
    g_free(p->main);
    g_free(p);
}

static bool forget(unsigned long *map, uint64_t *n, uint64_t page)
{
    if (!test_bit(page, map)) {
        return false;
    }
    clear_bit(page, map);
    (*n)--;
    return true;
}

static void note(unsigned long *map, uint64_t *n, uint64_t page)
{
    if (!test_bit(page, map)) {
        set_bit(page, map);
        (*n)++;
    }
}

static bool has_room(const Placement *p)
{
    return p->n_main + p->n_left < p->budget;
}

static bool leave_main(Placement *p, uint64_t page)
{
    bool left = forget(p->main, &p->n_main, page);

    p->n_left += left;
    return left;
}

static void note_main(Placement *p, uint64_t page)
{
    p->moved_in += forget(p->remote, &p->n_remote, page);
    note(p->main, &p->n_main, page);
}

bool placement_route(Placement *p, uint64_t page)
{
    bool room = has_room(p) || test_bit(page, p->main);

    if (room && p->ops->wants_main(p, page)) {
        note_main(p, page);
        return true;
    }
    p->moved_out += leave_main(p, page);
    note(p->remote, &p->n_remote, page);
    return false;
}

bool placement_force_main(Placement *p, uint64_t page)
{
    if (!has_room(p)) {
        return false;
    }
    note_main(p, page);
    /* It was never there */
    p->moved_in--;
    return true;
}

void placement_zero(Placement *p, uint64_t page)
{
    leave_main(p, page);
    forget(p->remote, &p->n_remote, page);
}

void placement_told(Placement *p)
{
    p->n_left = 0;
}

void placement_pass_end(Placement *p, const unsigned long *dirty,
                        PlacementAgain *again, void *opaque)
{
    p->passes++;
    if (p->ops->pass_end) {
        p->ops->pass_end(p, dirty, again, opaque);
    }
}
