/*
 * Unit tests of the placement of split memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: the main host never gets more than its budget, and every page
 * that was sent is at one place; by address, no page moves; by heat, the
 * budget is used up, what is written often ends up at the main host, and
 * what is sent for that alone stays within the promised part.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "migration/strategy/split/placement.h"

#define PAGES   16384

/* A migration of a guest, reduced to its dirty log */
typedef struct Sim {
    Placement *p;
    unsigned long *dirty;
    uint64_t sent, again;       /* pages sent; of them, clean */
} Sim;

static Sim *sim_new(RamPlacement kind, uint64_t pages, uint64_t budget)
{
    Sim *sim = g_new0(Sim, 1);

    sim->p = placement_new(kind, pages, budget);
    sim->dirty = bitmap_new(pages);
    return sim;
}

static void sim_free(Sim *sim)
{
    placement_free(sim->p);
    g_free(sim->dirty);
    g_free(sim);
}

static void check(Sim *sim)
{
    Placement *p = sim->p;

    g_assert_cmpuint(p->n_main + p->n_left, <=, p->budget);
    g_assert_cmpuint(bitmap_count_one(p->main, p->pages), ==, p->n_main);
    g_assert_cmpuint(bitmap_count_one(p->remote, p->pages), ==, p->n_remote);
    g_assert_false(bitmap_intersects(p->main, p->remote, p->pages));
}

static void on_again(void *opaque, uint64_t page)
{
    Sim *sim = opaque;

    g_assert_false(test_bit(page, sim->dirty));
    set_bit(page, sim->dirty);
    sim->again++;
}

static void send_dirty(Sim *sim)
{
    uint64_t page;

    while ((page = find_first_bit(sim->dirty, sim->p->pages)) <
           sim->p->pages) {
        bool main = placement_route(sim->p, page);

        g_assert_cmpint(main, ==, test_bit(page, sim->p->main));
        g_assert_cmpint(!main, ==, test_bit(page, sim->p->remote));
        clear_bit(page, sim->dirty);
        sim->sent++;
    }
    check(sim);
}

static void first_pass(Sim *sim)
{
    bitmap_fill(sim->dirty, sim->p->pages);
    send_dirty(sim);
}

/* End a pass in which what is in @sim->dirty was written; send that */
static void pass(Sim *sim)
{
    placement_pass_end(sim->p, sim->dirty, on_again, sim);
    placement_told(sim->p);
    check(sim);
    send_dirty(sim);
}

static void test_address(void)
{
    Sim *sim = sim_new(RAM_PLACEMENT_ADDRESS, PAGES, PAGES / 4);

    first_pass(sim);
    for (unsigned i = 0; i < 20; i++) {
        bitmap_set(sim->dirty, PAGES / 2, PAGES / 4);
        bitmap_set(sim->dirty, 10, 10);
        pass(sim);
    }
    g_assert_cmpuint(sim->p->n_main, ==, PAGES / 4);
    g_assert_cmpuint(find_next_zero_bit(sim->p->main, PAGES, 0), ==,
                     PAGES / 4);
    g_assert_cmpuint(sim->p->moved_in + sim->p->moved_out + sim->again, ==, 0);
    sim_free(sim);
}

/* Nothing is written: all of the budget is used, little is sent twice */
static void test_hot_idle(void)
{
    static const unsigned percent[] = { 1, 20, 30, 50, 80, 99, 100 };

    for (size_t i = 0; i < ARRAY_SIZE(percent); i++) {
        Sim *sim = sim_new(RAM_PLACEMENT_HOT, PAGES, PAGES * percent[i] / 100);

        first_pass(sim);
        pass(sim);
        pass(sim);
        g_assert_cmpuint(sim->p->n_main, ==, sim->p->budget);
        g_assert_cmpuint(sim->sent, <=, PAGES + PAGES / 16);
        g_assert_cmpuint(sim->p->moved_out, ==, 0);
        sim_free(sim);
    }
}

/* A hot set at the end of the memory, far less than the budget */
static void test_hot_moves_in(void)
{
    Sim *sim = sim_new(RAM_PLACEMENT_HOT, PAGES, PAGES / 2);

    first_pass(sim);
    for (unsigned i = 0; i < 4; i++) {
        bitmap_set(sim->dirty, PAGES - 700, 700);
        pass(sim);
    }
    g_assert_cmpuint(find_next_zero_bit(sim->p->main, PAGES, PAGES - 700), ==,
                     PAGES);
    g_assert_cmpuint(sim->p->n_main, ==, PAGES / 2);
    sim_free(sim);
}

/*
 * A hot set bigger than the reserve: in the end it has displaced cold pages,
 * a few in each pass, and nothing moves to and fro after that
 */
static void test_hot_displaces(void)
{
    uint64_t hot = PAGES / 4, pages, again;
    Sim *sim = sim_new(RAM_PLACEMENT_HOT, PAGES, PAGES / 2);

    first_pass(sim);
    for (unsigned i = 0; i < 40; i++) {
        again = sim->again;
        bitmap_set(sim->dirty, PAGES - hot, hot);
        pass(sim);
        g_assert_cmpuint(sim->again - again, <=,
                         i ? PAGES / 50 : PAGES / 16);
    }
    pages = bitmap_count_one_with_offset(sim->p->main, PAGES - hot, hot);
    g_assert_cmpuint(pages, >, hot * 95 / 100);
    g_assert_cmpuint(sim->p->n_main, >, PAGES / 2 * 95 / 100);
    again = sim->again;
    bitmap_set(sim->dirty, PAGES - hot, hot);
    pass(sim);
    g_assert_cmpuint(sim->again - again, <=, hot - pages);
    sim_free(sim);
}

/* Few dirty pages: it converges, so next to nothing is displaced */
static void test_hot_converges(void)
{
    Sim *sim = sim_new(RAM_PLACEMENT_HOT, PAGES, PAGES / 2);
    uint64_t again;

    first_pass(sim);
    bitmap_set(sim->dirty, PAGES / 2, PAGES / 2);
    pass(sim);
    for (unsigned dirty = PAGES / 4; dirty; dirty /= 2) {
        again = sim->again;
        bitmap_set(sim->dirty, PAGES - dirty, dirty);
        pass(sim);
        g_assert_cmpuint(sim->again - again, <=, dirty / 4);
    }
    sim_free(sim);
}

/* Everything is hot: no way to choose, but nothing breaks either */
static void test_hot_everything(void)
{
    Sim *sim = sim_new(RAM_PLACEMENT_HOT, PAGES, PAGES / 3);

    first_pass(sim);
    for (unsigned i = 0; i < 10; i++) {
        bitmap_fill(sim->dirty, PAGES);
        pass(sim);
    }
    g_assert_cmpuint(sim->p->n_main, ==, PAGES / 3);
    g_assert_cmpuint(sim->again, ==, 0);
    sim_free(sim);
}

/* Zero pages take no room anywhere, and give back what they had */
static void test_zero(void)
{
    for (int kind = 0; kind < RAM_PLACEMENT__MAX; kind++) {
        Sim *sim = sim_new(kind, PAGES, PAGES / 2);

        first_pass(sim);
        for (unsigned i = 0; i < PAGES; i += 2) {
            placement_zero(sim->p, i);
        }
        check(sim);
        g_assert_cmpuint(sim->p->n_main + sim->p->n_remote, ==, PAGES / 2);
        /* Not zero any more */
        bitmap_set(sim->dirty, 0, PAGES);
        pass(sim);
        g_assert_cmpuint(sim->p->n_main + sim->p->n_remote, ==, PAGES);
        g_assert_cmpuint(sim->p->n_main, ==, PAGES / 2);
        sim_free(sim);
    }
}

/* The memory hosts are full: the main host helps while it has room */
static void test_force_main(void)
{
    Sim *sim = sim_new(RAM_PLACEMENT_HOT, PAGES, PAGES / 2);
    uint64_t forced = 0;

    for (uint64_t page = 0; page < PAGES; page++) {
        if (!placement_route(sim->p, page) &&
            !placement_force_main(sim->p, page)) {
            break;
        }
        forced++;
        check(sim);
    }
    g_assert_cmpuint(forced, ==, PAGES / 2);
    g_assert_cmpuint(sim->p->moved_in, ==, 0);
    sim_free(sim);
}

/* Sizes that are no multiple of anything, budgets of next to nothing */
static void test_odd_sizes(void)
{
    static const uint64_t pages[] = { 1, 63, 64, 65, 1000, 4097 };

    for (int kind = 0; kind < RAM_PLACEMENT__MAX; kind++) {
        for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
            for (uint64_t budget = 0; budget <= pages[i];
                 budget += MAX(pages[i] / 3, 1)) {
                Sim *sim = sim_new(kind, pages[i], budget);

                first_pass(sim);
                for (unsigned n = 0; n < 5; n++) {
                    bitmap_set(sim->dirty, pages[i] - 1, 1);
                    pass(sim);
                }
                g_assert_cmpuint(sim->p->n_main, ==, budget);
                sim_free(sim);
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_MIGRATION);
    g_test_add_func("/strategy/split/placement/address", test_address);
    g_test_add_func("/strategy/split/placement/hot/idle", test_hot_idle);
    g_test_add_func("/strategy/split/placement/hot/moves-in", test_hot_moves_in);
    g_test_add_func("/strategy/split/placement/hot/displaces", test_hot_displaces);
    g_test_add_func("/strategy/split/placement/hot/converges", test_hot_converges);
    g_test_add_func("/strategy/split/placement/hot/everything", test_hot_everything);
    g_test_add_func("/strategy/split/placement/zero", test_zero);
    g_test_add_func("/strategy/split/placement/force-main", test_force_main);
    g_test_add_func("/strategy/split/placement/odd-sizes", test_odd_sizes);
    return g_test_run();
}
