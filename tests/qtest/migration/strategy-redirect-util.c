/*
 * Helpers for the tests of redirect: more than two QEMUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

#define FAULT "QEMU_MIGRATION_FAULT"

/*
 * Memory above what the guest writes to, of 150 MiB in all.  It is filled, so
 * that no part of the first pass takes no time, and never changes.
 */
#define FILLED_START    (101 * 1024 * 1024)
#define FILLED_END      (149 * 1024 * 1024)
#define FILLED_WITH     0x5a

static void set_fault(const char *fault)
{
    if (fault) {
        g_setenv(FAULT, fault, true);
    } else {
        g_unsetenv(FAULT);
    }
}

bool redirect_start(RedirectGuests *r, const StrategySetup *setup,
                    unsigned hosts, const RedirectFaults *faults)
{
    static const RedirectFaults none;
    StrategySetup with = *setup;
    g_autofree char *uri = NULL;

    *r = (RedirectGuests) {};
    with.no_vga = true;
    faults = faults ?: &none;
    set_fault(faults->source);
    if (!strategy_start(&r->g, &with)) {
        set_fault(NULL);
        return false;
    }
    qtest_memset(r->g.from, FILLED_START, FILLED_WITH,
                 FILLED_END - FILLED_START);
    /* This one had the environment of the source */
    uri = migrate_get_connect_uri(r->g.to);
    qtest_quit(r->g.to);
    if (g_str_has_prefix(uri, "unix:")) {
        unlink(uri + strlen("unix:"));
    }
    for (unsigned i = 0; i < hosts; i++) {
        set_fault(faults->host[i]);
        strategy_add_destination(&r->g);
        r->host[r->hosts++] = r->g.to;
    }
    set_fault(NULL);
    redirect_to(r, 0);
    return true;
}

bool redirect_start_silent(RedirectGuests *r, unsigned hosts)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .hide_stderr = true,
        .bandwidth = STRATEGY_SLOW,
    };
    static const RedirectFaults faults = { .host[1] = "after-setup=stop" };

    if (!redirect_start(r, &setup, hosts, &faults)) {
        return false;
    }
    strategy_migrate(&r->g);
    strategy_wait_status(r->g.from, "active");
    return true;
}

void redirect_to(RedirectGuests *r, unsigned to)
{
    g_assert_cmpint(to, <, r->hosts);
    r->at = to;
    r->g.to = r->host[to];
}

void redirect_order(RedirectGuests *r, unsigned to)
{
    g_autofree char *uri = NULL;

    redirect_to(r, to);
    uri = migrate_get_connect_uri(r->g.to);
    qtest_qmp_assert_success(r->g.from, "{ 'execute': 'migrate-redirect',"
                             "  'arguments': { 'uri': %s } }", uri);
}

void redirect_refused(RedirectGuests *r, const char *uri, const char *names)
{
    g_autoptr(QDict) err = qtest_qmp_assert_failure_ref(
        r->g.from, "{ 'execute': 'migrate-redirect',"
        "  'arguments': { 'uri': %s } }", uri);
    const char *desc = qdict_get_str(err, "desc");

    g_test_message("refused: %s", desc);
    if (!strstr(desc, names)) {
        g_assert_cmpstr(desc, ==, names);
    }
}

void redirect_wait_relayed(QTestState *old, const char *status)
{
    g_autoptr(QDict) event =
        qtest_qmp_eventwait_ref(old, "MIGRATION_REDIRECTED");
    const QDict *data = qdict_get_qdict(event, "data");
    g_autoptr(QDict) rsp = migrate_query(old);

    g_test_message("relay: %s, %" PRId64 " pages",
                   qdict_get_str(data, "status"),
                   qdict_get_int(data, "pages"));
    if (status) {
        g_assert_cmpstr(qdict_get_str(data, "status"), ==, status);
    }
    g_assert(!qdict_haskey(rsp, "status"));
}

QDict *redirect_info(QTestState *who)
{
    g_autoptr(QDict) info = strategy_info(who);
    QDict *redirect = info ? qdict_get_qdict(info, "redirect") : NULL;

    if (redirect) {
        qobject_ref(redirect);
    }
    return redirect;
}

void redirect_wait_stopped(QTestState *who)
{
    int64_t start = g_get_monotonic_time();
    int status = 0;
    pid_t pid;

    /* It is our child: wait for it to stop, not to end */
    while (!(pid = waitpid(qtest_pid(who), &status, WNOHANG | WUNTRACED))) {
        /* Only a hang takes so long */
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        300 * G_USEC_PER_SEC);
        g_usleep(1000);
    }
    g_assert_cmpint(pid, ==, qtest_pid(who));
    g_assert(WIFSTOPPED(status));
}

static bool has_figure(QTestState *who, const char *member)
{
    g_autoptr(QDict) at = redirect_info(who);

    return at && qdict_haskey(at, member) &&
           qdict_get_try_int(at, member, true);
}

void redirect_wait_figure(QTestState *who, const char *member)
{
    int64_t start = g_get_monotonic_time();

    while (!has_figure(who, member)) {
        /* Only a hang takes so long */
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        300 * G_USEC_PER_SEC);
        g_usleep(1000);
    }
}

void redirect_wait_error(QTestState *who)
{
    redirect_wait_figure(who, "error");
}

static void quit_others(RedirectGuests *r)
{
    for (unsigned i = 0; i < r->hosts; i++) {
        if (i != r->at && r->host[i]) {
            qtest_quit(r->host[i]);
        }
    }
}

static void check_filled(QTestState *who)
{
    g_autofree uint8_t *page = g_malloc(4096);

    for (uint64_t addr = FILLED_START; addr < FILLED_END; addr += 64 * 1024) {
        qtest_memread(who, addr, page, 4096);
        for (unsigned i = 0; i < 4096; i++) {
            if (page[i] != FILLED_WITH) {
                g_test_message("wrong at 0x%" PRIx64, addr + i);
                g_assert_cmpint(page[i], ==, FILLED_WITH);
            }
        }
    }
}

void redirect_finish(RedirectGuests *r)
{
    strategy_wait_status(r->g.from, "completed");
    strategy_wait_status(r->g.to, "completed");
    check_filled(r->g.to);
    quit_others(r);
    strategy_finish(&r->g);
}

void redirect_quit(RedirectGuests *r)
{
    quit_others(r);
    strategy_quit(&r->g);
}
