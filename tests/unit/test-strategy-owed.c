/*
 * Unit tests of the pages that the source leaves to the relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: a page is owed until it has arrived, is dirty, or was taken over,
 * and leaves exactly once; pages are taken over from the far end; the source
 * helps a good relay within bounds, and takes everything from one that is
 * slow, stalled or gone.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "migration/strategy/redirect/owed.h"

static RedirectBlock block_table[] = {
    { "ram", 1000 }, { "rom", 64 }, { "small", 3 },
};
static const RedirectBlocks blocks = {
    .block = block_table, .n = 3, .expected = 3
};

static RedirectOwed *owed_all(void)
{
    RedirectOwed *o = redirect_owed_new(&blocks);

    for (unsigned i = 0; i < blocks.n; i++) {
        g_autofree unsigned long *none = bitmap_new(block_table[i].pages);

        redirect_owed_set_clean(o, i, none);
    }
    return o;
}

static uint64_t have(RedirectOwed *o, uint16_t block, uint64_t first,
                     uint32_t n, uint8_t pattern)
{
    uint8_t bits[256];
    RedirectBitmap b = {
        .block = block, .first = first, .n = n, .bits = bits
    };

    memset(bits, pattern, sizeof(bits));
    if (n % 8) {
        bits[n / 8] &= (1 << n % 8) - 1;
    }
    return redirect_owed_have(o, &b);
}

static void test_leave(void)
{
    RedirectOwed *o = owed_all();
    g_autofree unsigned long *dirty = bitmap_new(1000);

    g_assert_cmpuint(redirect_owed_left(o), ==, 1067);
    g_assert_cmpuint(have(o, 0, 64, 100, 0xff), ==, 100);
    g_assert_cmpuint(have(o, 0, 64, 100, 0xff), ==, 0);
    g_assert_cmpuint(redirect_owed_left(o), ==, 967);
    bitmap_set(dirty, 0, 65);
    g_assert_cmpuint(redirect_owed_drop_dirty(o, 0, dirty), ==, 64);
    g_assert_cmpuint(redirect_owed_drop_dirty(o, 0, dirty), ==, 0);
    g_assert_cmpuint(have(o, 0, 960, 40, 0x55), ==, 20);
    g_assert_cmpuint(have(o, 2, 0, 3, 0xff), ==, 3);
    g_assert_cmpuint(redirect_owed_left(o), ==, 967 - 64 - 20 - 3);
    redirect_owed_free(o);
}

static void test_set_clean(void)
{
    RedirectOwed *o = redirect_owed_new(&blocks);
    g_autofree unsigned long *dirty = bitmap_new(1000);

    g_assert_cmpuint(redirect_owed_left(o), ==, 0);
    bitmap_set(dirty, 10, 980);
    redirect_owed_set_clean(o, 0, dirty);
    g_assert_cmpuint(redirect_owed_left(o), ==, 20);
    /* Once more: the new state counts */
    bitmap_clear(dirty, 10, 10);
    redirect_owed_set_clean(o, 0, dirty);
    g_assert_cmpuint(redirect_owed_left(o), ==, 30);
    redirect_owed_free(o);
}

typedef struct Taken {
    unsigned block;
    uint64_t page;
    unsigned n;
} Taken;

static void on_take(unsigned block, uint64_t page, void *opaque)
{
    Taken *t = opaque;

    if (t->n) {
        g_assert_true(block < t->block || (block == t->block &&
                                           page < t->page));
    }
    *t = (Taken) { block, page, t->n + 1 };
}

static void test_take(void)
{
    RedirectOwed *o = owed_all();
    Taken t = {};

    have(o, 0, 896, 104, 0xff);
    g_assert_cmpuint(redirect_owed_take(o, 3, on_take, &t), ==, 3);
    g_assert_cmpuint(t.block, ==, 2);
    g_assert_cmpuint(t.page, ==, 0);
    g_assert_cmpuint(redirect_owed_take(o, 65, on_take, &t), ==, 65);
    g_assert_cmpuint(t.block, ==, 0);
    g_assert_cmpuint(t.page, ==, 895);
    g_assert_cmpuint(redirect_owed_take(o, 0, on_take, &t), ==, 0);
    /* What was taken does not come back with a HAVE */
    g_assert_cmpuint(have(o, 0, 832, 64, 0xff), ==, 63);
    g_assert_cmpuint(redirect_owed_take(o, UINT64_MAX, on_take, &t), ==, 832);
    g_assert_cmpuint(t.n, ==, 3 + 65 + 832);
    g_assert_cmpuint(t.page, ==, 0);
    g_assert_cmpuint(redirect_owed_left(o), ==, 0);
    g_assert_cmpuint(redirect_owed_take(o, 1, on_take, &t), ==, 0);
    redirect_owed_free(o);
}

/* The messages say what is owed, no more and no less */
static void test_encode(void)
{
    static RedirectBlock table[] = {
        { "big", 3ull * REDIRECT_MAX_BITMAP_PAGES + 5 }, { "ram", 1000 },
    };
    const RedirectBlocks two = { .block = table, .n = 2, .expected = 2 };
    RedirectOwed *o = redirect_owed_new(&two);
    g_autofree unsigned long *dirty = bitmap_new(table[0].pages);
    g_autofree unsigned long *got = bitmap_new(table[0].pages);
    uint64_t first = 0, sum = 0;
    unsigned block = 0, parts = 0;
    g_autoptr(GByteArray) out = g_byte_array_new();

    bitmap_fill(dirty, table[0].pages);
    clear_bit(77, dirty);
    clear_bit(table[0].pages - 1, dirty);
    redirect_owed_set_clean(o, 0, dirty);
    redirect_owed_set_clean(o, 1, dirty);
    while (redirect_owed_encode(o, out, &block, &first)) {
        RedirectBitmap b;

        redirect_bitmap_decode(&b, &two, out->data, out->len, &error_abort);
        bitmap_zero(got, table[0].pages);
        sum += redirect_bitmap_or(got, &b);
        if (parts == 0) {
            g_assert_true(test_bit(77, got));
        } else if (parts == 1) {
            g_assert_true(test_bit(table[0].pages - 1, got));
        }
        g_byte_array_set_size(out, 0);
        parts++;
    }
    g_assert_cmpuint(parts, ==, 3);
    g_assert_cmpuint(sum, ==, 3);
    g_assert_cmpuint(sum, ==, redirect_owed_left(o));
    redirect_owed_free(o);
}

#define RAM     100000
#define HELP    (RAM / REDIRECT_HELP_FRACTION)

/* What happened, when, and what is made of it at the end */
static void test_health(void)
{
    enum { CONNECT = -1, LOST = -2, DONE = -3 };
    static const struct {
        const char *name;
        int64_t rtt;
        struct { int64_t ms, what; } step[6];
        int64_t ms;
        double own;
        RedirectRelayHealth health;
    } cases[] = {
        { "ordered", 0, { }, 10, 0, REDIRECT_HEALTH_WAITING },
        { "does not come", 0, { }, 4999, 1e6, REDIRECT_HEALTH_WAITING },
        { "has not come", 0, { }, 5000, 0, REDIRECT_HEALTH_STALLED },
        { "far away", 100, { }, 5700, 0, REDIRECT_HEALTH_WAITING },
        { "comes late", 0, { { 9000, CONNECT } }, 9100, 0,
          REDIRECT_HEALTH_GOOD },
        { "sends nothing", 0, { { 100, CONNECT } }, 1099, 1e6,
          REDIRECT_HEALTH_GOOD },
        { "sent nothing", 0, { { 100, CONNECT } }, 1100, 0,
          REDIRECT_HEALTH_STALLED },
        { "sent nothing from afar", 200, { { 100, CONNECT } }, 1100, 0,
          REDIRECT_HEALTH_GOOD },
        { "a round trip that cannot be", 10000, { { 100, CONNECT } }, 3100, 0,
          REDIRECT_HEALTH_STALLED },
        { "half", 0, { { 0, CONNECT }, { 500, 250 } }, 600, 1000,
          REDIRECT_HEALTH_GOOD },
        { "below half", 0, { { 0, CONNECT }, { 500, 249 } }, 600, 1000,
          REDIRECT_HEALTH_SLOW },
        { "slow, but so are we", 0, { { 0, CONNECT }, { 500, 1 } }, 600, 2,
          REDIRECT_HEALTH_GOOD },
        { "slow, then fast", 0,
          { { 0, CONNECT }, { 500, 10 }, { 1000, 500 } }, 1010, 1000,
          REDIRECT_HEALTH_GOOD },
        { "fast, then slow", 0,
          { { 0, CONNECT }, { 500, 500 }, { 1000, 10 }, { 1500, 10 } }, 1510,
          1000, REDIRECT_HEALTH_SLOW },
        { "fast, with a hiccup", 0,
          { { 0, CONNECT }, { 500, 500 }, { 1000, 10 } }, 1010, 1000,
          REDIRECT_HEALTH_GOOD },
        { "fast, then nothing", 0,
          { { 0, CONNECT }, { 500, 500 }, { 900, 0 } }, 1500, 1,
          REDIRECT_HEALTH_STALLED },
        { "too early to tell", 0, { { 0, CONNECT }, { 399, 1 } }, 399, 1e6,
          REDIRECT_HEALTH_GOOD },
        { "lost", 0, { { 0, CONNECT }, { 500, 500 }, { 510, LOST } }, 511, 1,
          REDIRECT_HEALTH_GONE },
        { "done", 0, { { 0, CONNECT }, { 500, 500 }, { 510, DONE } }, 511, 1,
          REDIRECT_HEALTH_GONE },
        { "lost and back", 0,
          { { 0, CONNECT }, { 10, LOST }, { 2000, CONNECT } }, 2010, 1,
          REDIRECT_HEALTH_GOOD },
        { "one of several connections", 0,
          { { 0, CONNECT }, { 390, 5 }, { 395, CONNECT }, { 400, 5 } },
          410, 100, REDIRECT_HEALTH_SLOW },
    };
    static const uint16_t states[] = {
        REDIRECT_RELAY_CONNECTED, REDIRECT_RELAY_LOST, REDIRECT_RELAY_DONE,
    };
    const int64_t epoch = 123456789;

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        RedirectPolicy p;
        RedirectRelayHealth health;

        p.own_rate = 0;
        redirect_policy_init(&p, RAM, cases[i].rtt, epoch);
        redirect_policy_own(&p, cases[i].own);
        for (unsigned j = 0; j < ARRAY_SIZE(cases[i].step); j++) {
            int64_t ms = epoch + cases[i].step[j].ms;
            int64_t what = cases[i].step[j].what;

            if (what < 0) {
                redirect_policy_relay(&p, states[-what - 1], ms);
            } else if (cases[i].step[j].ms) {
                redirect_policy_progress(&p, what, ms);
            }
        }
        health = redirect_policy_health(&p, epoch + cases[i].ms);
        if (health != cases[i].health) {
            g_test_message("%s: %s", cases[i].name,
                           redirect_health_name(health));
        }
        g_assert_cmpint(health, ==, cases[i].health);
    }
}

/*
 * An idle source, whose help is used up, finds a relay slow by what it could
 * send itself
 */
static void test_idle_source(void)
{
    RedirectPolicy p = { };

    redirect_policy_own(&p, 25000);
    /* Also after another redirect, which leaves it nothing to send */
    redirect_policy_init(&p, RAM, 0, 0);
    redirect_policy_relay(&p, REDIRECT_RELAY_CONNECTED, 0);
    redirect_policy_progress(&p, 10000, 400);
    redirect_policy_took(&p, REDIRECT_HEALTH_GOOD, HELP);
    g_assert_cmpint(redirect_policy_health(&p, 400), ==,
                    REDIRECT_HEALTH_GOOD);
    for (int64_t ms = 500; ms <= 5000; ms += 900) {
        redirect_policy_progress(&p, 1, ms);
    }
    g_assert_cmpint(redirect_policy_health(&p, 5000), ==,
                    REDIRECT_HEALTH_SLOW);
    /* Seconds' worth: each time costs a look at the dirty log */
    g_assert_cmpuint(redirect_policy_take(&p, REDIRECT_HEALTH_SLOW, RAM),
                     ==, 50000);
}

/* Pages of zero say little about a relay */
static void test_zero_pages(void)
{
    static const struct {
        uint64_t pages, zero;
        RedirectRelayHealth health;
    } cases[] = {
        { 1000, 0, REDIRECT_HEALTH_GOOD },
        { 1000, 500, REDIRECT_HEALTH_GOOD },
        /* Slow in what counts */
        { 800, 400, REDIRECT_HEALTH_SLOW },
        /* It had nothing else to send */
        { 10000, 10000, REDIRECT_HEALTH_GOOD },
        /* That is slow in any case */
        { 400, 400, REDIRECT_HEALTH_SLOW },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        RedirectPolicy p = { };
        uint64_t zero = 0;

        redirect_policy_init(&p, RAM, 0, 0);
        redirect_policy_own(&p, 1000);
        redirect_policy_relay(&p, REDIRECT_RELAY_CONNECTED, 0);
        for (int64_t ms = 1000; ms <= 3000; ms += 1000) {
            zero += cases[i].zero;
            redirect_policy_zero(&p, zero);
            redirect_policy_progress(&p, cases[i].pages, ms);
        }
        g_assert_cmpint(redirect_policy_health(&p, 3000), ==,
                        cases[i].health);
    }
}

/* Of the rest of a slow relay, each does what it can in the same time */
static void test_fair(void)
{
    RedirectPolicy p = { };

    redirect_policy_init(&p, RAM, 0, 0);
    redirect_policy_own(&p, 9000);
    redirect_policy_relay(&p, REDIRECT_RELAY_CONNECTED, 0);
    redirect_policy_progress(&p, 1000, 1000);
    g_assert_cmpint(redirect_policy_health(&p, 1000), ==,
                    REDIRECT_HEALTH_SLOW);
    g_assert_cmpuint(redirect_policy_take(&p, REDIRECT_HEALTH_SLOW, RAM), ==,
                     18000);
    g_assert_cmpuint(redirect_policy_take(&p, REDIRECT_HEALTH_SLOW, 10000),
                     ==, 9000);
    g_assert_cmpuint(redirect_policy_take(&p, REDIRECT_HEALTH_SLOW, 100), ==,
                     256);
}

/* The source's rate follows what it sends, but one window is not all */
static void test_own_rate(void)
{
    RedirectPolicy p = { };

    redirect_policy_own(&p, 1000);
    redirect_policy_own(&p, 0);
    g_assert_cmpfloat(p.own_rate, ==, 750);
    for (unsigned i = 0; i < 20; i++) {
        redirect_policy_own(&p, 100);
    }
    g_assert_cmpfloat(p.own_rate, <, 110);
}

/*
 * The link to the new destination is another one: what the old one was like
 * counts until it is known
 */
static void test_new_link(void)
{
    static const struct {
        double before, after;
        RedirectRelayHealth health;
    } cases[] = {
        /* The old destination was behind a slow link, and still is */
        { 2600, 25000, REDIRECT_HEALTH_SLOW },
        /* The new one is, and the relay fills it */
        { 25000, 2600, REDIRECT_HEALTH_GOOD },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        RedirectPolicy p = { };

        redirect_policy_own(&p, cases[i].before);
        redirect_policy_init(&p, RAM, 0, 0);
        redirect_policy_relay(&p, REDIRECT_RELAY_CONNECTED, 0);
        redirect_policy_progress(&p, 1040, 400);
        g_assert_cmpint(redirect_policy_health(&p, 400), ==,
                        REDIRECT_HEALTH_GOOD);
        redirect_policy_own(&p, cases[i].after);
        g_assert_cmpint(redirect_policy_health(&p, 400), ==,
                        cases[i].health);
    }
}

/* How much is taken over in all when the source asks again and again */
static void test_budget(void)
{
    static const struct {
        RedirectRelayHealth health;
        uint64_t once;
        uint64_t all;
    } cases[] = {
        { REDIRECT_HEALTH_WAITING, 1000, HELP },
        { REDIRECT_HEALTH_GOOD, 1000, HELP },
        { REDIRECT_HEALTH_SLOW, 40000, RAM },
        { REDIRECT_HEALTH_STALLED, RAM, RAM },
        { REDIRECT_HEALTH_GONE, RAM, RAM },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        RedirectPolicy p = { .own_rate = 20000 };
        uint64_t sum = 0, n;

        redirect_policy_init(&p, RAM, 0, 0);
        g_assert_cmpuint(MIN(redirect_policy_take(&p, cases[i].health, RAM),
                             RAM), ==, cases[i].once);
        do {
            n = MIN(redirect_policy_take(&p, cases[i].health, RAM - sum),
                    RAM - sum);
            redirect_policy_took(&p, cases[i].health, n);
            sum += n;
        } while (n);
        g_assert_cmpuint(sum, ==, cases[i].all);
    }
}

/* What was taken from a bad relay does not use up the help for a good one */
static void test_budget_apart(void)
{
    RedirectPolicy p = { };

    redirect_policy_init(&p, RAM, 0, 0);
    redirect_policy_took(&p, REDIRECT_HEALTH_SLOW, RAM / 2);
    g_assert_cmpuint(redirect_policy_take(&p, REDIRECT_HEALTH_GOOD, RAM), ==,
                     256);
    redirect_policy_took(&p, REDIRECT_HEALTH_GOOD, HELP - 10);
    g_assert_cmpuint(redirect_policy_take(&p, REDIRECT_HEALTH_GOOD, RAM), ==,
                     10);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/strategy/owed/leave", test_leave);
    g_test_add_func("/strategy/owed/new-link", test_new_link);
    g_test_add_func("/strategy/owed/set-clean", test_set_clean);
    g_test_add_func("/strategy/owed/take", test_take);
    g_test_add_func("/strategy/owed/encode", test_encode);
    g_test_add_func("/strategy/owed/health", test_health);
    g_test_add_func("/strategy/owed/idle-source", test_idle_source);
    g_test_add_func("/strategy/owed/zero-pages", test_zero_pages);
    g_test_add_func("/strategy/owed/fair", test_fair);
    g_test_add_func("/strategy/owed/own-rate", test_own_rate);
    g_test_add_func("/strategy/owed/budget", test_budget);
    g_test_add_func("/strategy/owed/budget-apart", test_budget_apart);
    return g_test_run();
}
