/*
 * Tests of the RAM migration strategies: each mode, to completion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each test checks the guest's memory at the destination, and that
 * query-migrate tells at both ends what happened.
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"

typedef struct ModeTest {
    const char *name;
    StrategySetup setup;
    int64_t then;               /* bandwidth after the guest was busy */
    bool user_stops;            /* stop then, before the bandwidth is set */
    bool user_switches;         /* migrate-start-postcopy then */
    StrategyExpect expect;
} ModeTest;

static const ModeTest modes[] = {
    {
        /* Nothing is reported until a strategy is asked for */
        .name = "none",
        .setup = { .bandwidth = STRATEGY_SLOW, .no_postcopy = true },
        .then = STRATEGY_FAST,
    }, {
        /* precopy asked for needs no capability, tells nobody, and iterates */
        .name = "precopy",
        .setup = {
            .strategy = "{ 'mode': 'precopy' }",
            .no_postcopy = true,
            .bandwidth = STRATEGY_SLOW,
        },
        .then = STRATEGY_FAST,
        .expect = { .mode = "precopy", .passes_max = UINT32_MAX },
    }, {
        /* postcopy makes no pass, even though nothing holds one up */
        .name = "postcopy",
        .setup = {
            .strategy = "{ 'mode': 'postcopy' }",
            .bandwidth = STRATEGY_FAST,
            .downtime = STRATEGY_ALL_FITS,
        },
        .expect = { .mode = "postcopy", .switch_reason = "mode" },
    }, {
        /* The same for a guest that does not run: it stays stopped */
        .name = "postcopy/stopped",
        .setup = {
            .strategy = "{ 'mode': 'postcopy' }",
            .stopped = true,
            .bandwidth = STRATEGY_FAST,
            .downtime = STRATEGY_ALL_FITS,
        },
        .expect = { .mode = "postcopy", .switch_reason = "mode" },
    }, {
        /* The handshake and the preempt channel wait for the same PONGs */
        .name = "postcopy/preempt",
        .setup = {
            .strategy = "{ 'mode': 'postcopy' }",
            .preempt = true,
            .bandwidth = STRATEGY_FAST,
        },
        .expect = { .mode = "postcopy", .switch_reason = "mode" },
    }, {
        /* hybrid switches after one pass by default */
        .name = "hybrid",
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .then = STRATEGY_MEDIUM,
        .expect = {
            .mode = "hybrid",
            .passes_min = 1, .passes_max = 1,
            .switch_reason = "passes",
        },
    }, {
        /* hybrid makes the number of passes that was asked for */
        .name = "hybrid/passes",
        .setup = {
            .strategy = "{ 'mode': 'hybrid', 'passes': 2 }",
            .bandwidth = STRATEGY_SLOW,
        },
        .then = STRATEGY_MEDIUM,
        .expect = {
            .mode = "hybrid",
            .passes_min = 2, .passes_max = 2,
            .switch_reason = "passes",
        },
    }, {
        .name = "hybrid/preempt",
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .preempt = true,
            .bandwidth = STRATEGY_SLOW,
        },
        .then = STRATEGY_MEDIUM,
        .expect = {
            .mode = "hybrid",
            .passes_min = 1, .passes_max = 1,
            .switch_reason = "passes",
        },
    }, {
        /*
         * hybrid finishes without post-copy when the rest fits, before all
         * passes are made, but not before the first one
         */
        .name = "hybrid/idle",
        .setup = {
            .strategy = "{ 'mode': 'hybrid', 'passes': 3 }",
            .stopped = true,
            .bandwidth = STRATEGY_FAST,
        },
        .expect = { .mode = "hybrid", .passes_min = 1, .passes_max = 1 },
    }, {
        /* The same with a guest that writes, and a limit that allows it */
        .name = "hybrid/fits",
        .setup = {
            .strategy = "{ 'mode': 'hybrid', 'passes': 2 }",
            .bandwidth = STRATEGY_MEDIUM,
            .downtime = STRATEGY_ALL_FITS,
        },
        .expect = { .mode = "hybrid", .passes_min = 1, .passes_max = 2 },
    }, {
        /* The user may switch before hybrid would */
        .name = "hybrid/user",
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .user_switches = true,
        .expect = { .mode = "hybrid", .switch_reason = "user" },
    }, {
        /*
         * A guest that is stopped in a pass has dirtied something, but no more
         * is to come: there is no need for post-copy
         */
        .name = "hybrid/stops",
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .user_stops = true,
        .then = STRATEGY_MEDIUM,
        .expect = { .mode = "hybrid", .passes_min = 2, .passes_max = 2 },
    }, {
        /* Its user may order it all the same: it stays stopped in post-copy */
        .name = "hybrid/stops/user",
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .user_stops = true,
        .user_switches = true,
        .expect = { .mode = "hybrid", .switch_reason = "user" },
    }, {
        /* auto stays with pre-copy while that converges */
        .name = "auto/converges",
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .bandwidth = STRATEGY_FAST,
            .downtime = STRATEGY_ALL_FITS,
        },
        .expect = {
            .mode = "auto",
            .passes_min = 1, .passes_max = UINT32_MAX,
            .verdict = "fits",
        },
    }, {
        /* auto never puts an idle guest through post-copy */
        .name = "auto/idle",
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .stopped = true,
            .bandwidth = STRATEGY_MEDIUM,
            .downtime = 300,
        },
        .expect = {
            .mode = "auto",
            .passes_min = 1, .passes_max = UINT32_MAX,
            .verdict = "fits",
        },
    }, {
        /* auto switches when pre-copy will not converge */
        .name = "auto/diverges",
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .then = STRATEGY_MEDIUM,
        .expect = {
            .mode = "auto",
            .passes_min = 1, .passes_max = UINT32_MAX,
            .switch_reason = "forecast",
            .verdict = "diverges",
        },
    }, {
        /* The same for a guest that is stopped in a pass: that helps it */
        .name = "auto/stops",
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .user_stops = true,
        .then = STRATEGY_MEDIUM,
        .expect = {
            .mode = "auto",
            .passes_min = 2, .passes_max = 2,
            .verdict = "fits",
        },
    }, {
        /* The user may switch before auto has seen a pass */
        .name = "auto/user",
        .setup = {
            .strategy = "{ 'mode': 'auto' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .user_switches = true,
        .expect = { .mode = "auto", .switch_reason = "user" },
    },
};

static void test_mode(const void *opaque)
{
    const ModeTest *t = opaque;
    StrategyGuests g;

    if (!strategy_start(&g, &t->setup)) {
        return;
    }
    if (t->then || t->user_switches) {
        strategy_migrate_busily(&g);
    } else {
        strategy_migrate(&g);
    }
    if (t->user_stops) {
        strategy_stop(&g);
    }
    if (t->user_switches) {
        qtest_qmp_assert_success(g.from,
                                 "{ 'execute': 'migrate-start-postcopy' }");
    } else if (t->then) {
        /* Pre-copy alone ends only when all fits */
        strategy_speed(&g, t->then, t->then == STRATEGY_FAST ?
                       STRATEGY_ALL_FITS : STRATEGY_NOTHING_FITS);
    }
    strategy_wait_status(g.from, "completed");
    strategy_wait_status(g.to, "completed");
    strategy_check_source(g.from, &t->expect);
    strategy_check_destination(g.to, &t->expect);
    strategy_finish(&g);
}

/* Dirty logging by KVM serves a pass of hybrid as TCG's does */
static void test_kvm(void)
{
    static const ModeTest hybrid = {
        .setup = {
            .strategy = "{ 'mode': 'hybrid' }",
            .bandwidth = STRATEGY_SLOW,
        },
        .then = STRATEGY_MEDIUM,
        .expect = {
            .mode = "hybrid",
            .passes_min = 1, .passes_max = 1,
            .switch_reason = "passes",
        },
    };
    g_autofree char *without_kvm = g_strdup(g_getenv("QTEST_QEMU_BINARY"));

    g_setenv("QTEST_QEMU_BINARY", g_getenv("STRATEGY_QEMU_BINARY"), true);
    test_mode(&hybrid);
    g_setenv("QTEST_QEMU_BINARY", without_kvm, true);
}

/*
 * With auto-converge the dirty log is read every five seconds in the passes
 * that follow the first one; that does not end a pass
 */
static void test_auto_converge(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'hybrid', 'passes': 3 }",
        .bandwidth = STRATEGY_SLOW,
    };
    static const StrategyExpect expect = {
        .mode = "hybrid",
        .passes_min = 3, .passes_max = 3,
        .switch_reason = "passes",
    };
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    migrate_set_capability(g.from, "auto-converge", true);
    strategy_migrate_busily(&g);
    strategy_speed(&g, STRATEGY_MEDIUM, STRATEGY_NOTHING_FITS);
    strategy_wait_passes(g.from, 1);
    strategy_speed(&g, STRATEGY_SLOW, STRATEGY_NOTHING_FITS);
    strategy_wait_mid_pass_sync(g.from);
    strategy_speed(&g, STRATEGY_MEDIUM, STRATEGY_NOTHING_FITS);
    strategy_wait_status(g.from, "completed");
    strategy_check_source(g.from, &expect);
    strategy_finish(&g);
}

void strategy_add_modes(MigrationTestEnv *env)
{
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        g_autofree char *path = g_strdup_printf("/migration/strategy/modes/%s",
                                                modes[i].name);

        qtest_add_data_func(path, &modes[i], test_mode);
    }
    if (env->full_set) {
        qtest_add_func("/migration/strategy/modes/hybrid/auto-converge",
                       test_auto_converge);
    }
    if (env->full_set && env->has_kvm) {
        qtest_add_func("/migration/strategy/modes/kvm", test_kvm);
    }
}
