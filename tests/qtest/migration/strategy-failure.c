/*
 * Tests of the RAM migration strategies: failures before the switch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"

/*
 * When the destination dies in the first pass the guest goes on at the
 * source, and can be migrated to another one
 */
static void test_destination_killed(const void *opaque)
{
    const StrategySetup setup = {
        .strategy = opaque,
        .hide_stderr = true,
        .bandwidth = STRATEGY_SLOW,
    };
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    strategy_migrate_busily(&g);
    qtest_kill_qemu(g.to);
    strategy_wait_status(g.from, "failed");
    strategy_still_there(&g);

    strategy_replace_destination(&g);
    strategy_speed(&g, STRATEGY_MEDIUM, STRATEGY_NOTHING_FITS);
    strategy_migrate(&g);
    strategy_finish(&g);
}

static bool contains(const char *data, gsize len, const char *idstr)
{
    return memmem(data, len, idstr, strlen(idstr));
}

/*
 * A connection that is refused leaves nothing of its strategy behind: the
 * stream of a precopy migration to a file does not have our section
 */
static void test_refused_connection(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'hybrid' }",
        .hide_stderr = true,
        .bandwidth = STRATEGY_FAST,
        .downtime = STRATEGY_ALL_FITS,
    };
    const char *tmpfs = migration_get_env()->tmpfs;
    g_autofree char *path = g_build_filename(tmpfs, FILE_TEST_FILENAME, NULL);
    g_autofree char *file_uri = g_strdup_printf("file:%s", path);
    g_autofree char *nobody = g_strdup_printf("unix:%s/nobody", tmpfs);
    g_autofree char *stream = NULL;
    gsize len;
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    migrate_qmp(g.from, g.to, nobody, NULL, "{}");
    strategy_wait_status(g.from, "failed");
    strategy_still_there(&g);

    migrate_set_capability(g.from, "postcopy-ram", false);
    strategy_set(g.from, "{ 'mode': 'precopy' }");
    migrate_qmp(g.from, g.to, file_uri, NULL, "{}");
    strategy_wait_status(g.from, "completed");
    g_assert(g_file_get_contents(path, &stream, &len, NULL));
    g_assert(contains(stream, len, "pc.ram"));
    g_assert(!contains(stream, len, "ram-strategy"));
    strategy_quit(&g);
}

void strategy_add_failure(void)
{
    qtest_add_data_func("/migration/strategy/failure/destination-killed/hybrid",
                        "{ 'mode': 'hybrid' }", test_destination_killed);
    qtest_add_data_func("/migration/strategy/failure/destination-killed/auto",
                        "{ 'mode': 'auto' }", test_destination_killed);
    qtest_add_func("/migration/strategy/failure/refused-connection",
                   test_refused_connection);
}
