/*
 * Helpers for the tests of the RAM migration strategies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guests, their memory check and the plain QMP commands are those of
 * framework.h.  Nothing here waits for a time: each wait is for a state,
 * and has a bound that only a hang reaches.
 */
#include "qemu/osdep.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-util.h"
#include "qapi/error.h"
#include "qobject/qjson.h"

#define HANG_SECONDS 300

/* What is left of a pass takes at least so long while its end is not wanted */
#define REST_SECONDS 4

/* Something to wait for */
typedef struct Goal Goal;
struct Goal {
    bool (*reached)(const Goal *goal);
    QTestState *who;
    const char *name;           /* of a state, or of a serial file */
    const char *or;             /* of another state that will do */
    uint64_t count;
};

static void wait_for(Goal goal)
{
    int64_t start = g_get_monotonic_time();

    while (!goal.reached(&goal)) {
        if (g_get_monotonic_time() - start > HANG_SECONDS * G_USEC_PER_SEC) {
            g_test_message("hang: waited for %s %" PRIu64,
                           goal.name, goal.count);
            g_assert_not_reached();
        }
        g_usleep(1000);
    }
}

void strategy_set(QTestState *who, const char *json)
{
    qtest_qmp_assert_success(who, "{ 'execute': 'migrate-set-parameters',"
                             "  'arguments': { 'strategy': %p } }",
                             qobject_from_json(json, &error_abort));
}

void strategy_speed(StrategyGuests *g, int64_t bandwidth, int64_t downtime)
{
    /* The limit first: the bandwidth may be what holds the migration up */
    migrate_set_parameter_int(g->from, "downtime-limit", downtime);
    migrate_set_parameter_int(g->from, "max-bandwidth", bandwidth);
}

void strategy_listen(StrategyGuests *g, QTestState *who)
{
    static unsigned number;
    g_autofree char *uri = g->setup.unix_sockets ?
        g_strdup_printf("unix:%s/incoming-%u", migration_get_env()->tmpfs,
                        number++) : g_strdup("tcp:127.0.0.1:0");

    migrate_incoming_qmp(who, uri, NULL, "{ 'exit-on-error': false }");
}

static void set_up_destination(StrategyGuests *g)
{
    if (!g->setup.no_postcopy) {
        migrate_set_capability(g->to, "postcopy-ram", true);
    }
    if (g->setup.preempt) {
        migrate_set_capability(g->to, "postcopy-preempt", true);
    }
    if (g->setup.xbzrle) {
        migrate_set_capability(g->to, "xbzrle", true);
    }
    if (g->setup.set_up) {
        g->setup.set_up(g->to, false);
    }
    strategy_listen(g, g->to);
}

static void set_up_source(StrategyGuests *g)
{
    if (!g->setup.no_postcopy) {
        migrate_set_capability(g->from, "postcopy-ram", true);
    }
    if (g->setup.preempt) {
        migrate_set_capability(g->from, "postcopy-preempt", true);
    }
    if (g->setup.pause) {
        migrate_set_capability(g->from, "pause-before-switchover", true);
    }
    if (g->setup.xbzrle) {
        migrate_set_capability(g->from, "xbzrle", true);
    }
    if (g->setup.set_up) {
        g->setup.set_up(g->from, true);
    }
    if (g->setup.strategy) {
        strategy_set(g->from, g->setup.strategy);
    }
    strategy_speed(g, g->setup.bandwidth, g->setup.downtime);
    wait_for_serial("src_serial");
    if (g->setup.stopped) {
        strategy_stop(g);
    }
}

static int start_qemus(StrategyGuests *g, bool only_target)
{
    g_autofree char *firmware = strategy_firmware_create();
    g_autofree char *opts = g_strdup_printf("-nic none %s -bios %s",
                                            g->setup.no_vga ? "-vga none" : "",
                                            firmware);
    MigrateStart args = {
        .hide_stderr = g->setup.hide_stderr,
        .oob = g->setup.oob,
        .only_target = only_target,
        .opts_source = opts,
        .opts_target = opts,
    };

    return migrate_start(&g->from, &g->to, "defer", &args);
}

bool strategy_start(StrategyGuests *g, const StrategySetup *setup)
{
    *g = (StrategyGuests) { .setup = *setup };
    if (!setup->no_postcopy && !migration_get_env()->has_uffd) {
        g_test_skip("userfaultfd, which post-copy needs, is not available");
        return false;
    }
    if (start_qemus(g, false)) {
        return false;
    }
    set_up_destination(g);
    set_up_source(g);
    return true;
}

void strategy_replace_destination(StrategyGuests *g)
{
    qtest_quit(g->to);
    g_assert(!start_qemus(g, true));
    set_up_destination(g);
}

void strategy_add_destination(StrategyGuests *g)
{
    g_assert(!start_qemus(g, true));
    set_up_destination(g);
}

void strategy_migrate(StrategyGuests *g)
{
    migrate_qmp(g->from, g->to, NULL, NULL, "{}");
}

void strategy_migrate_busily(StrategyGuests *g)
{
    migrate_prepare_for_dirty_mem(g->from);
    strategy_migrate(g);
    migrate_wait_for_dirty_mem(g->from, g->to);
}

/* Fails if it is over, so that what is waited for will not come any more */
static void check_goes_on(const QDict *rsp, const Goal *goal)
{
    static const char *const final[] = { "completed", "failed", "cancelled" };
    const char *status = qdict_get_try_str(rsp, "status");

    for (size_t i = 0; i < ARRAY_SIZE(final); i++) {
        if (g_strcmp0(status, final[i]) == 0) {
            g_test_message("%s instead of %s: %s", status, goal->name,
                           qdict_get_try_str(rsp, "error-desc") ?: "");
            g_assert_cmpstr(status, ==, goal->name);
        }
    }
}

static bool has_status(const Goal *goal)
{
    g_autoptr(QDict) rsp = migrate_query(goal->who);
    const char *status = qdict_get_try_str(rsp, "status");

    if (g_strcmp0(status, goal->name) == 0 ||
        (goal->or && g_strcmp0(status, goal->or) == 0)) {
        return true;
    }
    check_goes_on(rsp, goal);
    return false;
}

void strategy_wait_status(QTestState *who, const char *status)
{
    wait_for((Goal) { .reached = has_status, .who = who, .name = status });
}

void strategy_wait_cancelled(QTestState *who)
{
    wait_for((Goal) { .reached = has_status, .who = who, .name = "cancelled",
                      .or = "failed" });
}

static bool has_passes(const Goal *goal)
{
    g_autoptr(QDict) rsp = migrate_query(goal->who);
    const QDict *info = qdict_get_qdict(rsp, "strategy");

    g_assert(info);
    check_goes_on(rsp, goal);
    return qdict_get_int(info, "pass") >= goal->count;
}

void strategy_wait_passes(QTestState *who, uint64_t passes)
{
    wait_for((Goal) { .reached = has_passes, .who = who,
                      .name = "passes", .count = passes });
}

/* What @who has left to send in this pass; false: it has not begun */
static bool query_left(const Goal *goal, uint64_t *total, uint64_t *left)
{
    g_autoptr(QDict) rsp = migrate_query(goal->who);
    const QDict *ram = qdict_get_qdict(rsp, "ram");

    check_goes_on(rsp, goal);
    if (!ram || !g_str_equal(qdict_get_str(rsp, "status"), "active")) {
        return false;
    }
    *total = qdict_get_int(ram, "total");
    *left = qdict_get_int(ram, "remaining");
    return *total;
}

void strategy_wait_sent(QTestState *who, unsigned percent)
{
    const Goal goal = { .who = who, .name = "percent of the first pass",
                        .count = percent };
    int64_t start = g_get_monotonic_time();
    uint64_t total = 0, left = 0, limit = UINT64_MAX;

    while (!query_left(&goal, &total, &left) ||
           (total - left) * 100 < total * percent) {
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        HANG_SECONDS * G_USEC_PER_SEC);
        if (total && MAX(left / REST_SECONDS, STRATEGY_CRAWL) <
                     limit / 10 * 9) {
            limit = MAX(left / REST_SECONDS, STRATEGY_CRAWL);
            migrate_set_parameter_int(who, "max-bandwidth", limit);
        }
        g_usleep(1000);
    }
}

static bool has_mid_pass_sync(const Goal *goal)
{
    g_autoptr(QDict) rsp = migrate_query(goal->who);
    const QDict *ram = qdict_get_qdict(rsp, "ram");
    const QDict *info = qdict_get_qdict(rsp, "strategy");

    g_assert_cmpstr(qdict_get_str(rsp, "status"), ==, "active");
    /* One reading is that of the set-up, and one ends each pass */
    return qdict_get_int(ram, "dirty-sync-count") >
           qdict_get_int(info, "pass") + 1;
}

void strategy_wait_mid_pass_sync(QTestState *who)
{
    wait_for((Goal) { .reached = has_mid_pass_sync, .who = who,
                      .name = "a sync in mid-pass" });
}

static char *query_run_state(QTestState *who)
{
    g_autoptr(QDict) rsp =
        qtest_qmp_assert_success_ref(who, "{ 'execute': 'query-status' }");

    return g_strdup(qdict_get_str(rsp, "status"));
}

static bool has_come_in(const Goal *goal)
{
    g_autofree char *state = query_run_state(goal->who);

    return !g_str_equal(state, "inmigrate");
}

static bool is_running(const Goal *goal)
{
    g_autofree char *state = query_run_state(goal->who);

    return g_str_equal(state, "running");
}

void strategy_wait_running(QTestState *who)
{
    wait_for((Goal) { .reached = is_running, .who = who, .name = "running" });
}

static uint64_t count_beats(const char *serial)
{
    g_autofree char *path = g_build_filename(migration_get_env()->tmpfs,
                                             serial, NULL);
    g_autofree char *text = NULL;
    uint64_t beats = 0;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    for (const char *p = text; *p; p++) {
        beats += *p == 'B';
    }
    return beats;
}

static bool has_beats(const Goal *goal)
{
    return count_beats(goal->name) >= goal->count;
}

void strategy_wait_beats(const char *serial, unsigned beats)
{
    wait_for((Goal) { .reached = has_beats, .name = serial,
                      .count = count_beats(serial) + beats });
}

void strategy_still_there(StrategyGuests *g)
{
    strategy_wait_running(g->from);
    strategy_wait_beats("src_serial", 2);
}

void strategy_stop(StrategyGuests *g)
{
    qtest_qmp_assert_success(g->from, "{ 'execute': 'stop' }");
    g->setup.stopped = true;
}

void strategy_cont(StrategyGuests *g)
{
    g_autofree char *state = NULL;

    if (!g->setup.stopped) {
        return;
    }
    wait_for((Goal) { .reached = has_come_in, .who = g->to,
                      .name = "the guest" });
    state = query_run_state(g->to);
    g_assert_cmpstr(state, ==, "paused");
    qtest_qmp_assert_success(g->to, "{ 'execute': 'cont' }");
    g->setup.stopped = false;
}

void strategy_finish(StrategyGuests *g)
{
    strategy_wait_status(g->from, "completed");
    strategy_wait_status(g->to, "completed");
    strategy_cont(g);
    strategy_wait_running(g->to);
    wait_for_serial("dest_serial");
    migrate_end(g->from, g->to, true);
}

void strategy_quit(StrategyGuests *g)
{
    migrate_end(g->from, g->to, false);
}

QDict *strategy_info(QTestState *who)
{
    g_autoptr(QDict) rsp = migrate_query(who);
    QDict *info = qdict_get_qdict(rsp, "strategy");

    if (info) {
        qobject_ref(info);
    }
    return info;
}

static void check_forecast(const QDict *info, const StrategyExpect *expect)
{
    const QDict *forecast = qdict_get_qdict(info, "forecast");

    if (!expect->verdict) {
        g_assert(!forecast);
        return;
    }
    g_assert(forecast);
    g_assert_cmpstr(qdict_get_str(forecast, "verdict"), ==, expect->verdict);
    g_assert_cmpint(qdict_get_int(forecast, "bandwidth"), >, 0);
    g_assert(qdict_haskey(forecast, "passes-to-go") ==
             !g_str_equal(expect->verdict, "diverges"));
}

void strategy_check_source(QTestState *who, const StrategyExpect *expect)
{
    g_autoptr(QDict) rsp = migrate_query(who);
    const QDict *info = qdict_get_qdict(rsp, "strategy");
    bool switched = expect->switch_reason;

    if (!expect->mode) {
        g_assert(!info);
        return;
    }
    g_assert(info);
    g_test_message("strategy: %s", qdict_get_str(info, "reason"));
    g_assert_cmpstr(qdict_get_str(info, "mode"), ==, expect->mode);
    g_assert_cmpint(qdict_get_int(info, "pass"), >=, expect->passes_min);
    g_assert_cmpint(qdict_get_int(info, "pass"), <=, expect->passes_max);
    g_assert_cmpstr(qdict_get_str(info, "reason"), !=, "");
    g_assert(qdict_get_bool(info, "switched") == switched);
    g_assert(qdict_haskey(info, "switch-time") == switched);
    g_assert_cmpstr(qdict_get_try_str(info, "switch-reason"), ==,
                    expect->switch_reason);
    if (switched) {
        g_assert_cmpint(qdict_get_int(info, "switch-time"), <=,
                        qdict_get_int(rsp, "total-time"));
    }
    check_forecast(info, expect);
}

void strategy_check_destination(QTestState *who, const StrategyExpect *expect)
{
    g_autoptr(QDict) info = strategy_info(who);

    if (!expect->mode || g_str_equal(expect->mode, "precopy")) {
        g_assert(!info);
        return;
    }
    g_assert(info);
    g_assert_cmpstr(qdict_get_str(info, "mode"), ==, expect->mode);
    g_assert(qdict_get_bool(info, "switched") == !!expect->switch_reason);
}

int64_t strategy_ram(QTestState *who, const char *member)
{
    return read_ram_property_int(who, member);
}
