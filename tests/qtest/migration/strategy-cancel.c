/*
 * Tests of the RAM migration strategies: cancellation
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"

/* When to cancel */
typedef enum CancelWhen {
    AT_ONCE,                    /* in the set-up, or just after it */
    IN_FIRST_PASS,
    BETWEEN_PASSES,
    IN_PRE_SWITCHOVER,
} CancelWhen;

typedef struct CancelTest {
    const char *name;
    CancelWhen when;
    StrategySetup setup;
} CancelTest;

static const CancelTest tests[] = {
    {
        .name = "hybrid/setup",
        .when = AT_ONCE,
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
    }, {
        .name = "auto/setup",
        .when = AT_ONCE,
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .bandwidth = STRATEGY_SLOW,
        },
    }, {
        .name = "hybrid/first-pass",
        .when = IN_FIRST_PASS,
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
    }, {
        .name = "auto/first-pass",
        .when = IN_FIRST_PASS,
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .bandwidth = STRATEGY_SLOW,
        },
    }, {
        .name = "hybrid/between-passes",
        .when = BETWEEN_PASSES,
        .setup = {
            .strategy = "{ 'mode': 'hybrid', 'passes': 1000000 }",
            .bandwidth = STRATEGY_MEDIUM,
        },
    }, {
        /* The last moment before a switch to post-copy */
        .name = "hybrid/pre-switchover",
        .when = IN_PRE_SWITCHOVER,
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .pause = true,
            .bandwidth = STRATEGY_MEDIUM,
        },
    }, {
        .name = "postcopy/pre-switchover",
        .when = IN_PRE_SWITCHOVER,
        .setup = {
            .strategy = "{ 'mode': 'postcopy' }",
            .pause = true,
            .bandwidth = STRATEGY_FAST,
        },
    }, {
        /* The last moment before the end of pre-copy */
        .name = "auto/pre-switchover",
        .when = IN_PRE_SWITCHOVER,
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .pause = true,
            .bandwidth = STRATEGY_FAST,
            .downtime = STRATEGY_ALL_FITS,
        },
    },
};

static void migrate_until(StrategyGuests *g, CancelWhen when)
{
    switch (when) {
    case AT_ONCE:
        strategy_migrate(g);
        return;
    case IN_FIRST_PASS:
        strategy_migrate_busily(g);
        return;
    case BETWEEN_PASSES:
        strategy_migrate(g);
        strategy_wait_passes(g->from, 1);
        return;
    case IN_PRE_SWITCHOVER:
        strategy_migrate(g);
        strategy_wait_status(g->from, "pre-switchover");
        return;
    }
    g_assert_not_reached();
}

/*
 * A migration with a strategy can be cancelled at any time before the switch:
 * the guest goes on at the source, the report says that there was no switch,
 * and another migration with a strategy succeeds
 */
static void test_cancel(const void *opaque)
{
    const CancelTest *t = opaque;
    g_autoptr(QDict) info = NULL;
    StrategySetup setup = t->setup;
    StrategyGuests g;

    setup.hide_stderr = true;
    if (!strategy_start(&g, &setup)) {
        return;
    }
    migrate_until(&g, t->when);
    migrate_cancel(g.from);
    strategy_wait_cancelled(g.from);
    info = strategy_info(g.from);
    g_assert(info);
    g_assert(!qdict_get_bool(info, "switched"));
    strategy_still_there(&g);

    strategy_replace_destination(&g);
    if (setup.pause) {
        migrate_set_capability(g.from, "pause-before-switchover", false);
    }
    strategy_set(g.from, "{ 'passes': 1 }");
    strategy_speed(&g, STRATEGY_MEDIUM, STRATEGY_NOTHING_FITS);
    strategy_migrate(&g);
    strategy_finish(&g);
}

/* After the switch there is nothing to go back to: cancelling is refused */
static void test_in_postcopy(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'postcopy', 'background': false }",
        .bandwidth = STRATEGY_FAST,
    };
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    strategy_migrate(&g);
    strategy_wait_status(g.from, "postcopy-active");
    qobject_unref(qtest_qmp_assert_failure_ref(
        g.from, "{ 'execute': 'migrate_cancel' }"));
    strategy_set(g.from, "{ 'background': true }");
    strategy_finish(&g);
}

void strategy_add_cancel(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path =
            g_strdup_printf("/migration/strategy/cancel/%s", tests[i].name);

        qtest_add_data_func(path, &tests[i], test_cancel);
    }
    qtest_add_func("/migration/strategy/cancel/postcopy/active",
                   test_in_postcopy);
}
