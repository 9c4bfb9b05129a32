/*
 * Placement of what is written most at the main host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A migration sees which pages the guest writes, pass by pass, and nothing
 * else.  Each page has a heat: half of what it was, plus HEAT_DIRTY when it
 * is dirty at the end of a pass.
 *
 * The first pass fills the main host in the order of addresses, up to a
 * reserve.  Pages that are written after that have to be sent again anyway,
 * and then go to the main host for nothing, the hottest first.  What is left
 * of the reserve after the first pass is filled with clean pages, so that
 * main-memory is used up: that is sent twice, which is why the reserve is
 * small.  When there is no room for hotter pages, cold pages make some: not
 * more than a part of what is dirty, so that the migration converges as it
 * would without.
 *
 * Rejected: waiting for the dirty log before anything goes to the main host
 * (the first pass is most of the migration); the guest's accessed bits (KVM
 * has no interface that would not stop huge pages being mapped).
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "qemu/module.h"
#include "placement.h"

#define HEAT_DIRTY              128
/* How much hotter a page must be than the one it displaces */
#define HEAT_MARGIN             64
/* Of the budget, and of all pages, the smaller part is the reserve */
#define RESERVE_BUDGET_PART     8
#define RESERVE_PAGES_PART      16
/* Clean pages moved in a pass, at most: of all pages, and of the dirty ones */
#define MOVE_PAGES_PART         50
#define MOVE_DIRTY_PART         4
#define HEATS                   256

typedef struct Hot {
    uint8_t *heat;              /* of each page */
    uint64_t reserve;           /* pages */
    unsigned promote;           /* heat from which remote pages move in */
    unsigned long *move;        /* pages to move when they are sent next */
} Hot;

static void hot_setup(Placement *p)
{
    Hot *hot = p->state;

    hot->heat = g_malloc0(ROUND_UP(p->pages, BITS_PER_LONG));
    hot->move = bitmap_new(p->pages);
    hot->reserve = MIN(p->budget / RESERVE_BUDGET_PART,
                       p->pages / RESERVE_PAGES_PART);
    hot->promote = HEATS;
}

static bool hot_wants_main(Placement *p, uint64_t page)
{
    Hot *hot = p->state;
    bool move = test_and_clear_bit(page, hot->move);

    if (test_bit(page, p->main)) {
        return !move;
    }
    if (test_bit(page, p->remote)) {
        return move || hot->heat[page] >= hot->promote;
    }
    /* Not zero for the first time: if not in the first pass, just written */
    return p->passes || p->n_main < p->budget - hot->reserve;
}

/* What pass_end knows of all pages */
typedef struct Census {
    uint64_t dirty;
    uint64_t wanted[HEATS];     /* remote and dirty, by heat */
    uint64_t cold[HEATS];       /* at the main host and clean, by heat */
} Census;

/* A word of the bitmaps: one page after the other */
static void census_word(Placement *p, const unsigned long *dirty, Census *c,
                        uint64_t first)
{
    uint64_t end = MIN(first + BITS_PER_LONG, p->pages);
    Hot *hot = p->state;

    for (uint64_t page = first; page < end; page++) {
        bool is_dirty = test_bit(page, dirty);
        uint8_t heat = hot->heat[page] / 2 + is_dirty * HEAT_DIRTY;

        hot->heat[page] = heat;
        c->dirty += is_dirty;
        if (is_dirty && test_bit(page, p->remote)) {
            c->wanted[heat]++;
        } else if (!is_dirty && test_bit(page, p->main)) {
            c->cold[heat]++;
        }
    }
}

static void take_census(Placement *p, const unsigned long *dirty, Census *c)
{
    Hot *hot = p->state;

    for (uint64_t page = 0; page < p->pages; page += BITS_PER_LONG) {
        uint64_t word = BIT_WORD(page);

        /* Most of a big VM is cold, and this runs with the BQL held */
        if (!dirty[word] && buffer_is_zero(hot->heat + page, BITS_PER_LONG)) {
            c->cold[0] += ctpopl(p->main[word]);
        } else {
            census_word(p, dirty, c, page);
        }
    }
}

/*
 * Choose up to @n pages of @map that are clean, not hotter than @heat, and
 * in no move yet; returns how many
 */
static uint64_t move_clean(Placement *p, const unsigned long *map,
                           const unsigned long *dirty, uint64_t n,
                           unsigned heat, PlacementAgain *again, void *opaque)
{
    Hot *hot = p->state;
    uint64_t page = find_first_bit(map, p->pages), moved = 0;

    while (moved < n && page < p->pages) {
        if (hot->heat[page] <= heat && !test_bit(page, dirty) &&
            !test_bit(page, hot->move)) {
            set_bit(page, hot->move);
            again(opaque, page);
            moved++;
        }
        page = find_next_bit(map, p->pages, page + 1);
    }
    return moved;
}

/* Up to which heat there are @n cold pages; a margin below the hottest */
static unsigned coldest_heat(const Census *c, uint64_t n)
{
    unsigned heat = 0;
    uint64_t found = c->cold[0];

    while (found < n && heat + 1 < HEAT_DIRTY) {
        found += c->cold[++heat];
    }
    return heat;
}

static void hot_pass_end(Placement *p, const unsigned long *dirty,
                         PlacementAgain *again, void *opaque)
{
    Hot *hot = p->state;
    g_autofree Census *c = g_new0(Census, 1);
    uint64_t room = p->budget - MIN(p->budget, p->n_main);
    uint64_t wanted = 0, hottest = 0, most;
    unsigned heat;

    take_census(p, dirty, c);
    for (heat = HEAT_DIRTY; heat < HEATS; heat++) {
        wanted += c->wanted[heat];
        hottest += heat >= HEAT_DIRTY + HEAT_MARGIN ? c->wanted[heat] : 0;
    }
    most = MIN(p->pages / MOVE_PAGES_PART, c->dirty / MOVE_DIRTY_PART);
    if (p->passes == 1) {
        most = hot->reserve;
    }
    if (wanted < room) {
        move_clean(p, p->remote, dirty, MIN(room - wanted, most), HEATS,
                   again, opaque);
    } else if (hottest > room) {
        most = MIN(most, hottest - room);
        /* Cold pages are sent in this pass as well, most of them before */
        room += move_clean(p, p->main, dirty, most, coldest_heat(c, most),
                           again, opaque);
    }
    wanted = 0;
    hot->promote = HEATS;
    while (hot->promote > HEAT_DIRTY && wanted < room) {
        wanted += c->wanted[--hot->promote];
    }
}

static void hot_cleanup(Placement *p)
{
    Hot *hot = p->state;

    g_free(hot->heat);
    g_free(hot->move);
}

static const PlacementOps hot_ops = {
    .kind = RAM_PLACEMENT_HOT,
    .state_size = sizeof(Hot),
    .setup = hot_setup,
    .wants_main = hot_wants_main,
    .pass_end = hot_pass_end,
    .cleanup = hot_cleanup,
};

static void hot_register(void)
{
    placement_register(&hot_ops);
}
migration_init(hot_register)
