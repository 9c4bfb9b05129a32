/*
 * Tests of the RAM migration strategies: what cannot work is refused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"
#include "qapi/error.h"
#include "qobject/qjson.h"

#define SOCKET "{ 'transport': 'socket', 'type': 'inet', " \
               "  'host': '127.0.0.1', 'port': '1' }"

typedef struct Clash {
    const char *capability;     /* switched on, instead of postcopy-ram */
    bool postcopy;              /* postcopy-ram is on */
    const char *address;
    const char *names;          /* what the error names */
} Clash;

static const Clash clashes[] = {
    { NULL, false, SOCKET, "postcopy-ram" },
    { "multifd", false, SOCKET, "multifd" },
    { "x-colo", false, SOCKET, "x-colo" },
    { NULL, true, "{ 'transport': 'rdma', 'host': '127.0.0.1', 'port': '1' }",
      "RDMA" },
    { NULL, true, "{ 'transport': 'file', 'filename': '/dev/null',"
      "  'offset': 0 }", "file" },
};

/* False when this build does not have the capability */
static bool set_capability(QTestState *who, const char *name, bool on)
{
    g_autoptr(QDict) rsp = qtest_qmp(
        who, "{ 'execute': 'migrate-set-capabilities', 'arguments': {"
        "  'capabilities': [ { 'capability': %s, 'state': %i } ] } }",
        name, on);

    return qdict_haskey(rsp, "return");
}

static void refuse(StrategyGuests *g, const char *mode, const Clash *clash)
{
    g_autoptr(QDict) err = qtest_qmp_assert_failure_ref(
        g->from, "{ 'execute': 'migrate', 'arguments': { 'channels': ["
        "  { 'channel-type': 'main', 'addr': %p } ] } }",
        qobject_from_json(clash->address, &error_abort));
    const char *desc = qdict_get_str(err, "desc");
    g_autoptr(QDict) now = migrate_query(g->from);

    g_test_message("%s: %s", mode, desc);
    g_assert(strstr(desc, mode));
    g_assert(strstr(desc, clash->names));
    /* Never started: query-migrate has no status and no report */
    g_assert(!qdict_haskey(now, "status"));
    g_assert(!qdict_haskey(now, "strategy"));
    strategy_wait_running(g->from);
}

static void refuse_each_mode(StrategyGuests *g, const Clash *clash)
{
    static const char *const modes[] = { "postcopy", "hybrid", "auto" };

    migrate_set_capability(g->from, "postcopy-ram", clash->postcopy);
    if (clash->capability &&
        !set_capability(g->from, clash->capability, true)) {
        g_test_message("no %s in this build", clash->capability);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        g_autofree char *json = g_strdup_printf("{ 'mode': '%s' }", modes[i]);

        strategy_set(g->from, json);
        refuse(g, modes[i], clash);
    }
    if (clash->capability) {
        migrate_set_capability(g->from, clash->capability, false);
    }
}

/*
 * Each mode that uses post-copy is refused where that cannot work: the error
 * names the mode and what clashes, the guest goes on, no migration is
 * reported, and nothing is left that keeps a plain migration from working
 */
static void test_refusals(void)
{
    static const StrategySetup setup = {
        .no_postcopy = true,
        .bandwidth = STRATEGY_FAST,
        .downtime = STRATEGY_ALL_FITS,
    };
    static const StrategyExpect plain = {
        .mode = "precopy", .passes_max = UINT32_MAX,
    };
    StrategyGuests g;

    if (!migration_get_env()->has_uffd) {
        g_test_skip("userfaultfd, which post-copy needs, is not available");
        return;
    }
    if (!strategy_start(&g, &setup)) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(clashes); i++) {
        refuse_each_mode(&g, &clashes[i]);
    }
    strategy_still_there(&g);

    migrate_set_capability(g.from, "postcopy-ram", false);
    strategy_set(g.from, "{ 'mode': 'precopy' }");
    strategy_migrate(&g);
    strategy_wait_status(g.from, "completed");
    strategy_check_source(g.from, &plain);
    strategy_finish(&g);
}

/*
 * A destination without the postcopy-ram capability refuses in the stream:
 * the migration fails and the guest goes on at the source
 */
static void test_destination_capability(void)
{
    static const StrategySetup setup = {
        .no_postcopy = true,
        .hide_stderr = true,
        .bandwidth = STRATEGY_FAST,
    };
    StrategyGuests g;

    if (!migration_get_env()->has_uffd) {
        g_test_skip("userfaultfd, which post-copy needs, is not available");
        return;
    }
    if (!strategy_start(&g, &setup)) {
        return;
    }
    migrate_set_capability(g.from, "postcopy-ram", true);
    strategy_set(g.from, "{ 'mode': 'postcopy' }");
    strategy_migrate(&g);
    strategy_wait_status(g.from, "failed");
    strategy_still_there(&g);

    g.setup.no_postcopy = false;
    strategy_replace_destination(&g);
    strategy_migrate(&g);
    strategy_finish(&g);
}

void strategy_add_refusals(void)
{
    qtest_add_func("/migration/strategy/refusals/source", test_refusals);
    qtest_add_func("/migration/strategy/refusals/destination",
                   test_destination_capability);
}
