/*
 * Tests of the RAM migration strategies: post-copy on demand only
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"

/* Rounds in which pages may still move that the guest has just asked for */
#define ROUNDS 20

typedef struct BackgroundTest {
    const char *name;
    StrategySetup setup;
    bool hmp;                   /* migrate -d -p -n instead of QMP */
} BackgroundTest;

static const BackgroundTest tests[] = {
    {
        .name = "off",
        .setup = {
            .strategy = "{ 'mode': 'postcopy', 'background': false }",
            .bandwidth = STRATEGY_FAST,
        },
    }, {
        .name = "off/preempt",
        .setup = {
            .strategy = "{ 'mode': 'postcopy', 'background': false }",
            .preempt = true,
            .bandwidth = STRATEGY_FAST,
        },
    }, {
        .name = "off/stopped",
        .setup = {
            .strategy = "{ 'mode': 'postcopy', 'background': false }",
            .stopped = true,
            .bandwidth = STRATEGY_FAST,
        },
    }, {
        .name = "off/hmp",
        .setup = { .bandwidth = STRATEGY_FAST },
        .hmp = true,
    },
};

static void run_hmp(QTestState *who, const char *command)
{
    g_autofree char *out = qtest_hmp(who, "%s", command);

    g_assert_cmpstr(out, ==, "");
}

static void check_hmp(QTestState *who, const char *command, const char *says)
{
    g_autofree char *out = qtest_hmp(who, "%s", command);

    if (!strstr(out, says)) {
        g_test_message("%s: %s", command, out);
        g_assert_not_reached();
    }
}

static void hmp_migrate_on_demand(StrategyGuests *g)
{
    g_autofree char *uri = migrate_get_connect_uri(g->to);
    g_autofree char *command = g_strdup_printf("migrate -d -p -n %s", uri);

    run_hmp(g->from, command);
    check_hmp(g->from, "info migrate", "strategy: postcopy");
    check_hmp(g->from, "info migrate", "background off");
    /* The flags are for this migration only */
    check_hmp(g->from, "info migrate_parameters",
              "strategy: mode=precopy,passes=1,background=on");
}

static uint64_t transferred(QTestState *who)
{
    g_autofree char *status = migrate_query_status(who);

    g_assert_cmpstr(status, ==, "postcopy-active");
    return strategy_ram(who, "transferred");
}

/*
 * Let the guest go over its memory again and again until that moves nothing
 * any more: by then it has asked for all that it will ever ask for.
 */
static void wait_settled(StrategyGuests *g)
{
    uint64_t before, now = transferred(g->from);
    unsigned same = 0;

    for (unsigned i = 0; i < ROUNDS && same < 2; i++) {
        before = now;
        strategy_wait_beats("dest_serial", 1);
        now = transferred(g->from);
        same = now == before ? same + 1 : 0;
    }
    g_assert_cmpint(same, ==, 2);
}

/*
 * With background off only what the guest asks for moves, and the migration
 * stays in post-copy; background on finishes it, with all memory intact.
 */
static void test_background(const void *opaque)
{
    const BackgroundTest *t = opaque;
    StrategyGuests g;

    if (!strategy_start(&g, &t->setup)) {
        return;
    }
    if (t->hmp) {
        hmp_migrate_on_demand(&g);
    } else {
        strategy_migrate(&g);
    }
    strategy_wait_status(g.from, "postcopy-active");
    if (t->setup.stopped) {
        /* Nothing at all was asked for, so there is all of it to come */
        g_assert_cmpint(transferred(g.from), <, 100 * MiB);
    }
    strategy_cont(&g);
    strategy_wait_running(g.to);
    wait_settled(&g);
    g_assert_cmpint(strategy_ram(g.from, "remaining"), >, 0);

    if (t->hmp) {
        run_hmp(g.from, "migrate_set_parameter strategy background=on");
    } else {
        strategy_set(g.from, "{ 'background': true }");
    }
    strategy_finish(&g);
}

/* background can be switched off, and on again, while post-copy runs */
static void test_toggle(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'postcopy' }",
        .bandwidth = STRATEGY_FAST,
    };
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    /* Slow enough that the push cannot be over before it is stopped */
    migrate_set_parameter_int(g.from, "max-postcopy-bandwidth", 4096);
    strategy_migrate(&g);
    strategy_wait_status(g.from, "postcopy-active");
    strategy_set(g.from, "{ 'background': false }");
    migrate_set_parameter_int(g.from, "max-postcopy-bandwidth", 0);
    strategy_wait_running(g.to);
    wait_settled(&g);
    g_assert_cmpint(strategy_ram(g.from, "remaining"), >, 0);
    strategy_set(g.from, "{ 'background': true }");
    strategy_finish(&g);
}

void strategy_add_background(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path =
            g_strdup_printf("/migration/strategy/background/%s",
                            tests[i].name);

        qtest_add_data_func(path, &tests[i], test_background);
    }
    qtest_add_func("/migration/strategy/background/toggle", test_toggle);
}
