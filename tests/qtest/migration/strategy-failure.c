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

typedef struct SilentTest {
    const char *name;
    const char *strategy;
    bool preempt;
    bool user_switches;         /* migrate-start-postcopy meanwhile */
    bool cancel;                /* else the destination answers */
} SilentTest;

static const SilentTest silent_tests[] = {
    {
        .name = "wait",
        .strategy = "{ 'mode': 'postcopy' }",
    }, {
        .name = "cancel",
        .strategy = "{ 'mode': 'postcopy' }",
        .cancel = true,
    }, {
        /* preempt waits for the destination as well, and nothing ends that */
        .name = "preempt/cancel",
        .strategy = "{ 'mode': 'postcopy' }",
        .preempt = true,
        .user_switches = true,
        .cancel = true,
    }, {
        .name = "preempt/hybrid/cancel",
        .strategy = "{ 'mode': 'hybrid' }",
        .preempt = true,
        .user_switches = true,
        .cancel = true,
    },
};

/*
 * The guest is not stopped before the destination has acknowledged the
 * strategy: one that says nothing gets no chance to lose it, even if the user
 * orders the switch.  Meanwhile the migration can be cancelled; when the
 * destination answers, it completes.
 */
static void test_silent_destination(const void *opaque)
{
    const SilentTest *t = opaque;
    const StrategySetup setup = {
        .strategy = t->strategy,
        .preempt = t->preempt,
        .hide_stderr = true,
        .bandwidth = STRATEGY_FAST,
    };
    g_autofree char *uri = NULL;
    g_autofree char *status = NULL;
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    uri = migrate_get_connect_uri(g.to);
    g_assert(!kill(qtest_pid(g.to), SIGSTOP));
    migrate_qmp(g.from, g.to, uri, NULL, "{}");
    strategy_wait_status(g.from, "active");
    if (t->user_switches) {
        qtest_qmp_assert_success(g.from,
                                 "{ 'execute': 'migrate-start-postcopy' }");
    }
    strategy_still_there(&g);
    status = migrate_query_status(g.from);
    g_assert_cmpstr(status, ==, "active");

    if (t->cancel) {
        migrate_cancel(g.from);
        strategy_wait_cancelled(g.from);
        strategy_still_there(&g);
        g_assert(!kill(qtest_pid(g.to), SIGCONT));
        strategy_replace_destination(&g);
        strategy_migrate(&g);
    } else {
        g_assert(!kill(qtest_pid(g.to), SIGCONT));
    }
    strategy_finish(&g);
}

void strategy_add_failure(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(silent_tests); i++) {
        g_autofree char *path =
            g_strdup_printf("/migration/strategy/failure/silent-destination/%s",
                            silent_tests[i].name);

        qtest_add_data_func(path, &silent_tests[i], test_silent_destination);
    }
    qtest_add_data_func("/migration/strategy/failure/destination-killed/hybrid",
                        "{ 'mode': 'hybrid' }", test_destination_killed);
    qtest_add_data_func("/migration/strategy/failure/destination-killed/auto",
                        "{ 'mode': 'auto' }", test_destination_killed);
    qtest_add_func("/migration/strategy/failure/refused-connection",
                   test_refused_connection);
}
