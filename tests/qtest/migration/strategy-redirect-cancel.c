/*
 * Tests of redirect: the user cancels when it is awkward
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest runs at the source afterwards, and nowhere else.
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

/* Bytes a second at which a relay is not through in this test */
#define RELAY_STUCK 1000

/* Half of the first pass is at the first destination */
static bool start(RedirectGuests *r, bool pause, const RedirectFaults *faults)
{
    const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .pause = pause,
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

static void assert_not_running(QTestState *who)
{
    g_autoptr(QDict) rsp =
        qtest_qmp_assert_success_ref(who, "{ 'execute': 'query-status' }");

    g_assert_false(qdict_get_bool(rsp, "running"));
}

static void cancel(RedirectGuests *r)
{
    migrate_cancel(r->g.from);
    strategy_wait_cancelled(r->g.from);
    strategy_still_there(&r->g);
}

/* The first destination was only a relay: it takes the next migration */
static void finish_at_first(RedirectGuests *r)
{
    strategy_listen(&r->g, r->host[0]);
    redirect_to(r, 0);
    migrate_set_capability(r->g.from, "pause-before-switchover", false);
    strategy_speed(&r->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_migrate(&r->g);
    assert_not_running(r->host[1]);
    redirect_finish(r);
}

/* While the source waits for the old destination to take the order */
static void test_order(void)
{
    static const RedirectFaults faults = { .host[0] = "before-accept=stop" };
    g_autofree char *uri = NULL, *text = NULL;
    RedirectGuests r;

    if (!start(&r, false, &faults)) {
        return;
    }
    uri = migrate_get_connect_uri(r.host[1]);
    /* As human-monitor-command it does not wait */
    text = qtest_hmp(r.g.from, "migrate_redirect %s", uri);
    redirect_wait_stopped(r.host[0]);
    cancel(&r);
    strategy_wait_status(r.host[1], "failed");
    kill(qtest_pid(r.host[0]), SIGCONT);
    redirect_wait_relayed(r.host[0], NULL);
    finish_at_first(&r);
}

/* The guest has stopped, all pages are there, the relay is still at it */
static void test_pre_switchover(void)
{
    RedirectGuests r;

    if (!start(&r, true, NULL)) {
        return;
    }
    migrate_set_parameter_int(r.host[0], "max-bandwidth", RELAY_STUCK);
    redirect_order(&r, 1);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "pre-switchover");
    cancel(&r);
    strategy_wait_status(r.host[1], "failed");
    redirect_wait_relayed(r.host[0], NULL);
    finish_at_first(&r);
}

/* The new destination has all but the devices, and is about to load these */
static void test_switchover(void)
{
    static const RedirectFaults faults = { .host[1] = "at-switchover=stop" };
    RedirectGuests r;

    if (!start(&r, false, &faults)) {
        return;
    }
    redirect_order(&r, 1);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    redirect_wait_stopped(r.host[1]);
    strategy_wait_status(r.g.from, "device");
    cancel(&r);
    kill(qtest_pid(r.host[1]), SIGCONT);
    strategy_wait_status(r.host[1], "failed");
    redirect_wait_relayed(r.host[0], NULL);
    finish_at_first(&r);
}

void strategy_add_redirect_cancel(void)
{
    qtest_add_func("/migration/strategy/redirect/cancel/order", test_order);
    qtest_add_func("/migration/strategy/redirect/cancel/pre-switchover",
                   test_pre_switchover);
    qtest_add_func("/migration/strategy/redirect/cancel/switchover",
                   test_switchover);
}
