/*
 * Tests of the RAM migration strategies: the parameter, by QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * None of them migrates, so they need no guest.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"
#include "qapi/error.h"
#include "qobject/qjson.h"

typedef struct Parameter {
    const char *mode;
    int64_t passes;
    bool background;
} Parameter;

static void check_parameter(QTestState *who, const Parameter *expect)
{
    g_autoptr(QDict) rsp =
        qtest_qmp_assert_success_ref(who,
                                     "{ 'execute': 'query-migrate-parameters'"
                                     "}");
    const QDict *now = qdict_get_qdict(rsp, "strategy");

    g_assert(now);
    g_assert_cmpstr(qdict_get_str(now, "mode"), ==, expect->mode);
    g_assert_cmpint(qdict_get_int(now, "passes"), ==, expect->passes);
    g_assert(qdict_get_bool(now, "background") == expect->background);
}

/* What is left out keeps its value; what is set, and only that, changes */
static void test_merge(void)
{
    static const struct {
        const char *json;
        Parameter after;
    } steps[] = {
        { "{}", { "precopy", 1, true } },
        { "{ 'mode': 'hybrid' }", { "hybrid", 1, true } },
        { "{ 'passes': 3 }", { "hybrid", 3, true } },
        { "{ 'background': false }", { "hybrid", 3, false } },
        { "{ 'mode': 'auto', 'background': true }", { "auto", 3, true } },
        { "{ 'passes': 4294967295 }", { "auto", UINT32_MAX, true } },
        { "{ 'mode': 'postcopy', 'passes': 2, 'background': false }",
          { "postcopy", 2, false } },
        { "{}", { "postcopy", 2, false } },
    };
    QTestState *who = qtest_init("-machine none");

    check_parameter(who, &steps[0].after);
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        g_test_message("%s", steps[i].json);
        strategy_set(who, steps[i].json);
        check_parameter(who, &steps[i].after);
    }
    qtest_quit(who);
}

static const Parameter untouched = { "hybrid", 2, true };

/*
 * A wrong member or value is refused with an error that names it, and
 * nothing of the command takes effect
 */
static void test_wrong(void)
{
    static const struct {
        const char *json;
        const char *names;
    } wrong[] = {
        { "{ 'passes': 0 }", "passes" },
        { "{ 'mode': 'auto', 'background': false, 'passes': 0 }", "passes" },
        { "{ 'passes': -1 }", "passes" },
        { "{ 'passes': 4294967296 }", "passes" },
        { "{ 'passes': 'many' }", "passes" },
        { "{ 'mode': 'warp' }", "warp" },
        { "{ 'mode': 1 }", "mode" },
        { "{ 'background': 'off' }", "background" },
        { "{ 'mode': 'auto', 'speed': 9 }", "speed" },
        { "{ 'split': 1 }", "split" },
        { "{ 'mode': 'auto', 'split': { 'memory-hosts': [] } }",
          "memory-hosts" },
        { "{ 'redirectable': 'on' }", "redirectable" },
        { "null", "strategy" },
        { "'hybrid'", "strategy" },
    };
    QTestState *who = qtest_init("-machine none");

    migrate_set_parameter_int(who, "downtime-limit", 77);
    strategy_set(who, "{ 'mode': 'hybrid', 'passes': 2 }");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autoptr(QDict) err = qtest_qmp_assert_failure_ref(
            who, "{ 'execute': 'migrate-set-parameters', 'arguments': {"
            "  'downtime-limit': 5, 'strategy': %p } }",
            qobject_from_json(wrong[i].json, &error_abort));
        g_autoptr(QDict) rsp =
            qtest_qmp_assert_success_ref(who, "{ 'execute':"
                                         "  'query-migrate-parameters' }");

        g_test_message("%s: %s", wrong[i].json, qdict_get_str(err, "desc"));
        g_assert(strstr(qdict_get_str(err, "desc"), wrong[i].names));
        g_assert_cmpint(qdict_get_int(rsp, "downtime-limit"), ==, 77);
        check_parameter(who, &untouched);
    }
    qtest_quit(who);
}

/* Another parameter that is wrong keeps the strategy from being set */
static void test_wrong_other(void)
{
    QTestState *who = qtest_init("-machine none");

    strategy_set(who, "{ 'mode': 'hybrid', 'passes': 2 }");
    qobject_unref(qtest_qmp_assert_failure_ref(
        who, "{ 'execute': 'migrate-set-parameters', 'arguments': {"
        "  'xbzrle-cache-size': 5000, 'strategy': { 'mode': 'auto' } } }"));
    check_parameter(who, &untouched);
    qtest_quit(who);
}

/* Setting the parameter alone is no migration, and reports none */
static void test_no_migration(void)
{
    QTestState *who = qtest_init("-machine none");
    QDict *info;

    strategy_set(who, "{ 'mode': 'auto' }");
    info = strategy_info(who);
    g_assert(!info);
    qtest_quit(who);
}

/*
 * HMP takes a mode or a list of members, refuses what QMP refuses, and shows
 * what is set; flags of migrate that contradict each other are refused
 */
static void test_hmp(void)
{
    static const struct {
        const char *command;
        const char *says;       /* part of an error; NULL: it works */
        Parameter after;
    } steps[] = {
        { "migrate_set_parameter strategy hybrid", NULL,
          { "hybrid", 1, true } },
        { "migrate_set_parameter strategy mode=hybrid,passes=2", NULL,
          { "hybrid", 2, true } },
        { "migrate_set_parameter strategy background=off", NULL,
          { "hybrid", 2, false } },
        { "migrate_set_parameter strategy warp", "warp",
          { "hybrid", 2, false } },
        { "migrate_set_parameter strategy passes=0", "passes",
          { "hybrid", 2, false } },
        { "migrate_set_parameter strategy mode=auto,passes=0", "passes",
          { "hybrid", 2, false } },
        { "migrate_set_parameter strategy speed=9", "speed",
          { "hybrid", 2, false } },
        { "migrate_set_parameter strategy background=maybe", "background",
          { "hybrid", 2, false } },
        { "migrate_set_parameter strategy precopy", NULL,
          { "precopy", 2, false } },
        { "migrate -d -n tcp:127.0.0.1:1", "-p", { "precopy", 2, false } },
        { "migrate -d -r -p tcp:127.0.0.1:1", "-r", { "precopy", 2, false } },
        { "migrate -d -p tcp:127.0.0.1:1", "postcopy-ram",
          { "precopy", 2, false } },
    };
    QTestState *who = qtest_init("-machine none");

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        g_autofree char *out = qtest_hmp(who, "%s", steps[i].command);
        g_autofree char *shown = qtest_hmp(who, "info migrate_parameters");
        g_autofree char *expect =
            g_strdup_printf("strategy: mode=%s,passes=%" PRId64
                            ",background=%s,", steps[i].after.mode,
                            steps[i].after.passes,
                            steps[i].after.background ? "on" : "off");

        g_test_message("%s: %s", steps[i].command, out);
        if (steps[i].says) {
            g_assert(strstr(out, "Error"));
            g_assert(strstr(out, steps[i].says));
        } else {
            g_assert_cmpstr(out, ==, "");
        }
        check_parameter(who, &steps[i].after);
        g_assert(strstr(shown, expect));
    }
    qtest_quit(who);
}

/* What HMP shows of split memory, HMP takes again */
static void test_hmp_split(void)
{
    static const char split[] =
        "split.main-memory=1048576,"
        "split.memory-hosts.0.uri=tcp:localhost:1,"
        "split.memory-hosts.0.capacity=4096,"
        "split.memory-hosts.1.uri=unix:/x,"
        "split.memory-hosts.1.tls-hostname=mem1,"
        "split.placement=address,split.replicas=1\r\n";
    QTestState *who = qtest_init("-machine none");
    g_autofree char *set = qtest_hmp(who, "migrate_set_parameter strategy "
        "split.main-memory=1M,split.memory-hosts.0.uri=tcp:localhost:1,"
        "split.memory-hosts.0.capacity=4k,split.memory-hosts.1.uri=unix:/x,"
        "split.memory-hosts.1.tls-hostname=mem1,split.placement=address");
    g_autofree char *shown = qtest_hmp(who, "info migrate_parameters");
    g_autofree char *off = qtest_hmp(who, "migrate_set_parameter strategy "
                                     "split=off,redirectable=on");
    g_autofree char *gone = qtest_hmp(who, "info migrate_parameters");

    g_assert_cmpstr(set, ==, "");
    g_assert(strstr(shown, split));
    g_assert_cmpstr(off, ==, "");
    g_assert(strstr(gone, "redirectable=on\r\n"));
    strategy_set(who, "{ 'split': { 'main-memory': 1 } }");
    strategy_set(who, "{ 'split': null, 'redirectable': false }");
    check_parameter(who, &(Parameter) { "precopy", 1, true });
    qtest_quit(who);
}

/* 0 stands for a cache sized by itself; else the size is a power of two */
static void test_cache_size(void)
{
    static const int64_t wrong[] = { 1, 2048, 5000, 3 * MiB, -1 };
    QTestState *who = qtest_init("-machine none");

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        qobject_unref(qtest_qmp_assert_failure_ref(
            who, "{ 'execute': 'migrate-set-parameters',"
            "  'arguments': { 'xbzrle-cache-size': %" PRId64 " } }",
            wrong[i]));
    }
    migrate_set_parameter_int(who, "xbzrle-cache-size", 0);
    migrate_set_parameter_int(who, "xbzrle-cache-size", 4 * MiB);
    migrate_set_parameter_int(who, "xbzrle-cache-size", 0);
    qtest_quit(who);
}

void strategy_add_parameters(void)
{
    qtest_add_func("/migration/strategy/parameters/merge", test_merge);
    qtest_add_func("/migration/strategy/parameters/wrong", test_wrong);
    qtest_add_func("/migration/strategy/parameters/wrong-other",
                   test_wrong_other);
    qtest_add_func("/migration/strategy/parameters/no-migration",
                   test_no_migration);
    qtest_add_func("/migration/strategy/parameters/hmp", test_hmp);
    qtest_add_func("/migration/strategy/parameters/hmp-split", test_hmp_split);
    qtest_add_func("/migration/strategy/parameters/cache-size",
                   test_cache_size);
}
