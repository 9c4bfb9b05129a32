/*
 * Tests of redirect: somebody hangs, is slow, or goes away half-way
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

/* Bytes a second that keep a relay going, but do not get it anywhere */
#define RELAY_SLOW  (1000 * 1000)
/* At which it sends once, and then no more in this test */
#define RELAY_STUCK 1000

/* Half of a guest that does not write is at the first destination */
static bool start_stopped(RedirectGuests *r, const RedirectFaults *faults)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .stopped = true,
        .hide_stderr = true,
        .bandwidth = STRATEGY_MEDIUM,
    };

    if (!redirect_start(r, &setup, 2, faults)) {
        return false;
    }
    strategy_migrate(&r->g);
    strategy_wait_sent(r->g.from, 50);
    strategy_speed(&r->g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    return true;
}

static void finish_fast(RedirectGuests *r)
{
    strategy_speed(&r->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r->g.from, "completed");
}

static int64_t source_says(RedirectGuests *r, const char *member)
{
    g_autoptr(QDict) at = redirect_info(r->g.from);

    return qdict_get_int(at, member);
}

/*
 * The old destination's own limit holds for what it sends: it is slow, and
 * the source does what it would have done
 */
static void test_max_bandwidth(void)
{
    int64_t start, relay, us;
    RedirectGuests r;

    if (!start_stopped(&r, NULL)) {
        return;
    }
    migrate_set_parameter_int(r.host[0], "max-bandwidth", RELAY_SLOW);
    start = g_get_monotonic_time();
    redirect_order(&r, 1);
    finish_fast(&r);
    us = g_get_monotonic_time() - start;
    relay = source_says(&r, "relay-bytes");
    g_test_message("%" PRId64 " bytes in %" PRId64 " us", relay, us);
    /* The first batch leaves at once */
    g_assert_cmpint(relay, <=, us * (RELAY_SLOW / 1000000) + 64 * 1024);
    /* More or less than that, as fast as this machine lets the source be */
    g_assert_cmpint(source_says(&r, "taken-over"), >, 0);
    redirect_wait_relayed(r.host[0], NULL);
    redirect_finish(&r);
}

/* A relay that is stuck is ended by yank */
static void test_yank(void)
{
    RedirectGuests r;

    if (!start_stopped(&r, NULL)) {
        return;
    }
    migrate_set_parameter_int(r.host[0], "max-bandwidth", RELAY_STUCK);
    redirect_order(&r, 1);
    qtest_qmp_assert_success(r.host[0], "{ 'execute': 'yank', 'arguments': {"
                             "  'instances': [ { 'type': 'migration' } ] } }");
    redirect_wait_relayed(r.host[0], "cancelled");
    finish_fast(&r);
    g_assert_cmpint(source_says(&r, "taken-over"), >, 0);
    redirect_finish(&r);
}

/* Afterwards there is nothing left that yank could end */
static void test_second_yank(void)
{
    g_autoptr(QDict) err = NULL;
    RedirectGuests r;

    if (!start_stopped(&r, NULL)) {
        return;
    }
    redirect_order(&r, 1);
    redirect_wait_relayed(r.host[0], "completed");
    err = qtest_qmp_assert_failure_ref(
        r.host[0], "{ 'execute': 'yank', 'arguments': {"
        "  'instances': [ { 'type': 'migration' } ] } }");
    g_assert_cmpstr(qdict_get_str(err, "class"), ==, "DeviceNotFound");
    finish_fast(&r);
    redirect_finish(&r);
}

/*
 * Wait until nothing is sent for some seconds, which at this speed means that
 * nothing can be
 */
static void wait_stuck(QTestState *who)
{
    uint64_t most = 0;
    int64_t since = 0;

    do {
        uint64_t sent = strategy_ram(who, "transferred");

        if (!since || sent > most) {
            most = sent;
            since = g_get_monotonic_time();
        }
        g_usleep(1000);
    } while (g_get_monotonic_time() - since < 3 * G_USEC_PER_SEC);
}

/* The old destination hangs, and its channel will be broken off */
static bool start_hanging(RedirectGuests *r, unsigned hosts,
                          const RedirectFaults *faults)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .hide_stderr = true,
        .bandwidth = STRATEGY_MEDIUM,
    };

    if (!redirect_start(r, &setup, hosts, faults)) {
        return false;
    }
    strategy_migrate(&r->g);
    strategy_wait_sent(r->g.from, 20);
    kill(qtest_pid(r->host[0]), SIGSTOP);
    wait_stuck(r->g.from);
    return true;
}

/*
 * The old destination hangs, and with it the stream, before it could be told:
 * its channel is broken off, and the new one is sent all
 */
static void test_old_hangs(void)
{
    g_autoptr(QDict) at = NULL;
    RedirectGuests r;

    if (!start_hanging(&r, 2, NULL)) {
        return;
    }
    redirect_order(&r, 1);
    at = redirect_info(r.g.from);
    g_assert_cmpstr(qdict_get_str(at, "relay"), ==, "lost");
    g_assert_cmpint(qdict_get_int(at, "redirects"), ==, 1);
    g_assert(strstr(qdict_get_str(at, "error"), "broken off"));
    finish_fast(&r);
    kill(qtest_pid(r.host[0]), SIGCONT);
    redirect_finish(&r);
}

/* It hangs when it was told: the redirect goes on without a relay */
static void test_old_hangs_told(void)
{
    static const RedirectFaults faults = { .host[0] = "before-accept=stop" };
    g_autoptr(QDict) at = NULL;
    RedirectGuests r;

    if (!start_stopped(&r, &faults)) {
        return;
    }
    redirect_order(&r, 1);
    at = redirect_info(r.g.from);
    g_assert(strstr(qdict_get_str(at, "error"), "did not take the order"));
    finish_fast(&r);
    kill(qtest_pid(r.host[0]), SIGCONT);
    redirect_wait_relayed(r.host[0], NULL);
    redirect_finish(&r);
}

/* The new destination dies when all depends on it, and on the relay */
static void test_new_dies(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .hide_stderr = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 2, NULL)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_sent(r.g.from, 50);
    strategy_speed(&r.g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    migrate_set_parameter_int(r.host[0], "max-bandwidth", RELAY_SLOW);
    redirect_order(&r, 1);
    qtest_quit(r.host[1]);
    r.host[1] = NULL;
    strategy_wait_status(r.g.from, "failed");
    strategy_still_there(&r.g);
    redirect_wait_relayed(r.host[0], NULL);
    redirect_to(&r, 0);
    redirect_quit(&r);
}

/* A new destination that does not answer, and A in the middle of asking */
static bool start_probing(RedirectGuests *r, unsigned hosts)
{
    g_autofree char *uri = NULL, *text = NULL;

    if (!redirect_start_silent(r, hosts)) {
        return false;
    }
    uri = migrate_get_connect_uri(r->host[1]);
    /* As human-monitor-command it does not wait */
    text = qtest_hmp(r->g.from, "migrate_redirect %s", uri);
    redirect_wait_stopped(r->host[1]);
    return true;
}

static void end_probing(RedirectGuests *r)
{
    strategy_still_there(&r->g);
    kill(qtest_pid(r->host[1]), SIGCONT);
    strategy_wait_status(r->host[1], "failed");
}

/* Nothing of it is left for the next migration */
static void test_probing_cancel(void)
{
    RedirectGuests r;

    if (!start_probing(&r, 3)) {
        return;
    }
    migrate_cancel(r.g.from);
    strategy_wait_cancelled(r.g.from);
    strategy_wait_status(r.host[0], "failed");
    end_probing(&r);
    redirect_to(&r, 2);
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "Cannot connect");
    finish_fast(&r);
    redirect_finish(&r);
}

static void test_probing_old_dies(void)
{
    RedirectGuests r;

    if (!start_probing(&r, 2)) {
        return;
    }
    qtest_quit(r.host[0]);
    r.host[0] = NULL;
    redirect_to(&r, 1);
    strategy_wait_status(r.g.from, "failed");
    end_probing(&r);
    redirect_quit(&r);
}

/* Neither destination is left: the guest stays where it is */
static void end_hanging(RedirectGuests *r)
{
    strategy_wait_status(r->g.from, "failed");
    strategy_still_there(&r->g);
    kill(qtest_pid(r->host[0]), SIGCONT);
    strategy_wait_status(r->host[0], "failed");
    redirect_to(r, 0);
    redirect_quit(r);
}

static void test_new_dies_too(void)
{
    static const RedirectFaults faults = { .host[1] = "after-setup=exit" };
    g_autofree char *uri = NULL;
    RedirectGuests r;

    if (!start_hanging(&r, 2, &faults)) {
        return;
    }
    uri = migrate_get_connect_uri(r.host[1]);
    redirect_refused(&r, uri, "was broken off already");
    qtest_set_expected_status(r.host[1], EXIT_FAILURE);
    qtest_wait_qemu(r.host[1]);
    qtest_quit(r.host[1]);
    r.host[1] = NULL;
    end_hanging(&r);
}

static void test_new_refuses(void)
{
    g_autofree char *uri = NULL;
    QTestState *other;
    RedirectGuests r;

    if (!start_hanging(&r, 1, NULL)) {
        return;
    }
    other = qtest_init("-machine q35 -m 64M -nic none -incoming defer"
                       " 2>/dev/null");
    migrate_incoming_qmp(other, "tcp:127.0.0.1:0", NULL,
                         "{ 'exit-on-error': false }");
    uri = migrate_get_connect_uri(other);
    redirect_refused(&r, uri, "was broken off already");
    strategy_wait_status(other, "failed");
    qtest_quit(other);
    end_hanging(&r);
}

void strategy_add_redirect_hangs(void)
{
    static const struct {
        const char *name;
        void (*test)(void);
    } tests[] = {
        { "max-bandwidth", test_max_bandwidth },
        { "yank", test_yank },
        { "second-yank", test_second_yank },
        { "old", test_old_hangs },
        { "old-told", test_old_hangs_told },
        { "new-dies", test_new_dies },
        { "both/new-dies", test_new_dies_too },
        { "both/new-refuses", test_new_refuses },
        { "probing/cancel", test_probing_cancel },
        { "probing/old-dies", test_probing_old_dies },
    };

    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf(
            "/migration/strategy/redirect/hangs/%s", tests[i].name);

        qtest_add_func(path, tests[i].test);
    }
}
