/*
 * Unit tests of the size of the XBZRLE cache
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: the size is a power of two that holds the dirty set whenever
 * the bound lets it, never shrinks, and never passes the bound.
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "migration/strategy/delta.h"

#define PAGE 4096

typedef struct {
    const char *name;
    uint64_t current, dirty, bound, expected;
} DeltaCase;

static const DeltaCase cases[] = {
    { "idle", PAGE, 0, 1 * GiB, PAGE },
    { "grows to twice the dirty set", PAGE, 128 * MiB, 1 * GiB, 256 * MiB },
    { "rounded up", PAGE, 100 * MiB, 1 * GiB, 256 * MiB },
    { "bounded", PAGE, 700 * MiB, 1 * GiB, 1 * GiB },
    { "larger than the bound", PAGE, 5 * GiB, 1 * GiB, 1 * GiB },
    { "still fits", 256 * MiB, 200 * MiB, 1 * GiB, 256 * MiB },
    { "fits exactly", 256 * MiB, 256 * MiB, 1 * GiB, 256 * MiB },
    { "no longer fits", 256 * MiB, 257 * MiB, 1 * GiB, 1 * GiB },
    { "never shrinks", 256 * MiB, 1 * MiB, 1 * GiB, 256 * MiB },
    { "not even under a bound", 2 * GiB, 5 * GiB, 1 * GiB, 2 * GiB },
    { "huge", PAGE, UINT64_MAX, 1ull << 62, 1ull << 62 },
};

static void test_case(gconstpointer opaque)
{
    const DeltaCase *c = opaque;

    g_assert_cmpuint(delta_cache_size(c->current, c->dirty, c->bound), ==,
                     c->expected);
}

static void test_bound(void)
{
    g_assert_cmpuint(delta_bound(512 * MiB, 16 * GiB, PAGE), ==, 512 * MiB);
    g_assert_cmpuint(delta_bound(513 * MiB, 16 * GiB, PAGE), ==, 1 * GiB);
    g_assert_cmpuint(delta_bound(64 * GiB, 24 * GiB, PAGE), ==, 2 * GiB);
    g_assert_cmpuint(delta_bound(64 * GiB, 0, PAGE), ==, 64 * GiB);
    g_assert_cmpuint(delta_bound(0, 0, PAGE), ==, PAGE);
    g_assert_cmpuint(delta_bound(1 * GiB, 100, PAGE), ==, PAGE);
}

static void test_random(void)
{
    uint64_t current = PAGE;

    for (int i = 0; i < 100000; i++) {
        uint64_t bound = 1ull << g_test_rand_int_range(12, 50);
        uint64_t dirty = (uint64_t)g_test_rand_int() <<
                         g_test_rand_int_range(0, 20);
        uint64_t size;

        if (i % 16 == 0) {
            current = PAGE;
        }
        size = delta_cache_size(current, dirty, bound);
        g_assert_true(is_power_of_2(size));
        g_assert_cmpuint(size, >=, current);
        g_assert_true(size == current || size <= bound);
        g_assert_true(size >= dirty || size >= bound);
        current = size;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("/strategy/delta/%02zu %s",
                                                i, cases[i].name);

        g_test_add_data_func(path, &cases[i], test_case);
    }
    g_test_add_func("/strategy/delta/bound", test_bound);
    g_test_add_func("/strategy/delta/random", test_random);
    return g_test_run();
}
