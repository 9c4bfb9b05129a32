/*
 * Tests of redirect: somebody fails, dies or stops at each step
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Afterwards the guest runs on exactly one host.
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

typedef enum FaultEnd {
    AT_FIRST,                   /* the redirect fails, the migration goes on */
    AT_SECOND,                  /* the redirect succeeds all the same */
    AT_SOURCE,                  /* the migration fails */
} FaultEnd;

typedef struct FaultTest {
    const char *name;
    RedirectFaults faults;
    FaultEnd end;
    const char *names;          /* what the error of migrate-redirect names */
    const char *relay;          /* how the relay ends, NULL: it does not say */
    int dies;                   /* number of the host that does, -1: none */
    bool hide_stderr;
} FaultTest;

static const FaultTest tests[] = {
    {
        .name = "source/before-connect",
        .faults.source = "before-connect=fail",
        .end = AT_FIRST, .names = "before-connect", .dies = -1,
    }, {
        .name = "source/after-connect",
        .faults.source = "after-connect=fail",
        .end = AT_FIRST, .names = "after-connect", .dies = -1,
        .hide_stderr = true,
    }, {
        .name = "source/before-order",
        .faults.source = "before-order=fail",
        .end = AT_FIRST, .names = "before-order", .dies = -1,
        .hide_stderr = true,
    }, {
        .name = "new/after-setup",
        .faults.host[1] = "after-setup=exit",
        .end = AT_FIRST, .names = "cannot take the migration", .dies = 1,
        .hide_stderr = true,
    }, {
        .name = "old/before-accept",
        .faults.host[0] = "before-accept=exit",
        .end = AT_SECOND, .dies = 0, .hide_stderr = true,
    }, {
        .name = "old/before-relay",
        .faults.host[0] = "before-relay=exit",
        .end = AT_SECOND, .dies = 0, .hide_stderr = true,
    }, {
        .name = "old/no-relay",
        .faults.host[0] = "before-relay=fail",
        .end = AT_SECOND, .relay = "failed", .dies = -1, .hide_stderr = true,
    }, {
        .name = "old/mid-relay",
        .faults.host[0] = "mid-relay=exit",
        .end = AT_SECOND, .dies = 0, .hide_stderr = true,
    }, {
        .name = "old/cancelled",
        .faults.host[0] = "mid-relay=fail",
        .end = AT_SECOND, .relay = "cancelled", .dies = -1,
        .hide_stderr = true,
    }, {
        .name = "source/after-order",
        .faults.source = "after-order=fail",
        .end = AT_SECOND, .dies = -1, .hide_stderr = true,
    }, {
        .name = "new/at-switchover",
        .faults.host[1] = "at-switchover=exit",
        .end = AT_SOURCE, .dies = 1, .hide_stderr = true,
    },
};

static void expect_death(RedirectGuests *r, int dies)
{
    if (dies >= 0) {
        qtest_set_expected_status(r->host[dies], EXIT_FAILURE);
        qtest_wait_qemu(r->host[dies]);
        qtest_quit(r->host[dies]);
        r->host[dies] = NULL;
    }
}

static void end_at_first(RedirectGuests *r, const FaultTest *t)
{
    g_autofree char *uri = migrate_get_connect_uri(r->host[1]);

    redirect_refused(r, uri, t->names);
    expect_death(r, t->dies);
    strategy_wait_status(r->g.from, "active");
    strategy_speed(&r->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    redirect_finish(r);
}

static void end_at_second(RedirectGuests *r, const FaultTest *t)
{
    g_autoptr(QDict) at = NULL;

    redirect_order(r, 1);
    expect_death(r, t->dies);
    if (t->relay) {
        redirect_wait_relayed(r->host[0], t->relay);
    }
    strategy_speed(&r->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r->g.from, "completed");
    at = redirect_info(r->g.from);
    g_assert_cmpint(qdict_get_int(at, "remaining"), ==, 0);
    g_assert_cmpint(qdict_get_int(at, "taken-over"), >, 0);
    redirect_finish(r);
}

static void end_at_source(RedirectGuests *r, const FaultTest *t)
{
    redirect_order(r, 1);
    strategy_speed(&r->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r->g.from, "failed");
    expect_death(r, t->dies);
    redirect_to(r, 0);
    strategy_still_there(&r->g);
    redirect_quit(r);
}

static void test_fault(const void *opaque)
{
    static void (*const end[])(RedirectGuests *r, const FaultTest *t) = {
        [AT_FIRST] = end_at_first,
        [AT_SECOND] = end_at_second,
        [AT_SOURCE] = end_at_source,
    };
    const FaultTest *t = opaque;
    StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .hide_stderr = t->hide_stderr,
        /* What is owed stays owed, and somebody must send it */
        .stopped = t->end == AT_SECOND,
        .bandwidth = STRATEGY_MEDIUM,
    };
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 2, &t->faults)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_sent(r.g.from, 50);
    strategy_speed(&r.g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    end[t->end](&r, t);
}

/* The new destination never answers; the user gets an answer all the same */
static void test_silence(void)
{
    g_autofree char *uri = NULL;
    RedirectGuests r;
    pid_t pid;

    if (!redirect_start_silent(&r, 2)) {
        return;
    }
    pid = qtest_pid(r.host[1]);
    uri = migrate_get_connect_uri(r.host[1]);
    redirect_refused(&r, uri, "did not answer");
    kill(pid, SIGCONT);
    strategy_wait_status(r.host[1], "failed");
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    redirect_finish(&r);
}

/* The old destination stops in the middle: the source does the rest */
static void test_stall(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .stopped = true,
        .hide_stderr = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    static const RedirectFaults faults = { .host[0] = "mid-relay=stop" };
    g_autoptr(QDict) at = NULL;
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 2, &faults)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_sent(r.g.from, 50);
    strategy_speed(&r.g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    redirect_order(&r, 1);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "completed");
    at = redirect_info(r.g.from);
    g_assert_cmpint(qdict_get_int(at, "taken-over"), >, 0);
    kill(qtest_pid(r.host[0]), SIGCONT);
    redirect_wait_relayed(r.host[0], NULL);
    redirect_finish(&r);
}

/* Cancelled in the redirect: the guest stays, and both others are told */
static void test_cancel(void)
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
    redirect_order(&r, 1);
    migrate_cancel(r.g.from);
    strategy_wait_cancelled(r.g.from);
    strategy_still_there(&r.g);
    redirect_wait_relayed(r.host[0], NULL);
    strategy_wait_status(r.host[1], "failed");
    redirect_quit(&r);
}

void strategy_add_redirect_faults(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf(
            "/migration/strategy/redirect/fault/%s", tests[i].name);

        qtest_add_data_func(path, &tests[i], test_fault);
    }
    qtest_add_func("/migration/strategy/redirect/fault/new/silence",
                   test_silence);
    qtest_add_func("/migration/strategy/redirect/fault/old/stall", test_stall);
    qtest_add_func("/migration/strategy/redirect/fault/cancel", test_cancel);
}
