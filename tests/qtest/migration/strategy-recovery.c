/*
 * Tests of the RAM migration strategies: recovery of post-copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"

typedef struct RecoveryTest {
    const char *name;
    const char *strategy;
    bool stopped;               /* nobody asks for pages: the source idles */
    bool destination_breaks;    /* else the source does */
    bool passes;                /* of pre-copy, before */
} RecoveryTest;

static const RecoveryTest tests[] = {
    {
        .name = "background-on",
        .strategy = "{ 'mode': 'postcopy' }",
    }, {
        .name = "background-off",
        .strategy = "{ 'mode': 'postcopy', 'background': false }",
    }, {
        .name = "idle",
        .strategy = "{ 'mode': 'postcopy', 'background': false }",
        .stopped = true,
        .destination_breaks = true,
    }, {
        .name = "hybrid",
        .strategy = "{ 'mode': 'hybrid' }",
        .destination_breaks = true,
        .passes = true,
    },
};

/*
 * Memory above what the guest writes to.  Nobody asks for it, so that there is
 * something to push when the guest has got all of its own.
 */
#define NOT_ASKED_FOR       (101 * MiB)
#define NOT_ASKED_FOR_SIZE  (16 * MiB)

static void write_unasked(QTestState *who)
{
    qtest_memset(who, NOT_ASKED_FOR, 0x5a, NOT_ASKED_FOR_SIZE);
}

static void migrate_with_unasked(StrategyGuests *g, bool passes)
{
    write_unasked(g->from);
    if (!passes) {
        strategy_migrate(g);
        return;
    }
    strategy_speed(g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    strategy_migrate(g);
    strategy_wait_status(g->from, "active");
    /* Dirty again, for after the pass */
    write_unasked(g->from);
    strategy_speed(g, STRATEGY_MEDIUM, STRATEGY_NOTHING_FITS);
}

/*
 * A link that breaks in post-copy is noticed by both ends, also when the
 * source has nothing to send; the migration is resumed over another one, and
 * the strategy goes on where it was: it ends when background is on.
 */
static void test_recovery(const void *opaque)
{
    const RecoveryTest *t = opaque;
    const StrategySetup setup = {
        .strategy = t->strategy,
        .stopped = t->stopped,
        .oob = true,
        .hide_stderr = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    g_autofree char *uri =
        g_strdup_printf("unix:%s/recover", migration_get_env()->tmpfs);
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    /* Slow enough that it cannot be over before the link breaks */
    migrate_set_parameter_int(g.from, "max-postcopy-bandwidth", 4096);
    migrate_with_unasked(&g, t->passes);
    strategy_wait_status(g.from, "postcopy-active");
    strategy_wait_status(g.to, "postcopy-active");

    migrate_pause(t->destination_breaks ? g.to : g.from);
    strategy_wait_status(g.to, "postcopy-paused");
    strategy_wait_status(g.from, "postcopy-paused");

    migrate_recover(g.to, uri);
    migrate_qmp(g.from, g.to, uri, NULL, "{ 'resume': true }");
    migrate_set_parameter_int(g.from, "max-postcopy-bandwidth", 0);
    if (strstr(t->strategy, "background")) {
        strategy_wait_status(g.from, "postcopy-active");
        strategy_set(g.from, "{ 'background': true }");
    }
    strategy_finish(&g);
}

void strategy_add_recovery(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path =
            g_strdup_printf("/migration/strategy/recovery/%s", tests[i].name);

        qtest_add_data_func(path, &tests[i], test_recovery);
    }
}
