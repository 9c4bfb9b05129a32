/*
 * Tests of redirect: the destination changes while the migration runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

#ifdef CONFIG_GNUTLS
/* One folder for all: the relay is a client with what it was a server with */
static char *tls_path(const char *name)
{
    return g_build_filename(migration_get_env()->tmpfs, "redirect-tls", name,
                            NULL);
}

static void set_up_tls(QTestState *who, bool source)
{
    g_autofree char *dir = tls_path(NULL), *keys = tls_path("keys.psk");

    g_assert(!g_mkdir_with_parents(dir, 0700));
    g_assert(g_file_set_contents(keys, "qemu:7265646972656374\n", -1, NULL));
    qtest_qmp_assert_success(who, "{ 'execute': 'object-add',"
                             "  'arguments': { 'qom-type': 'tls-creds-psk',"
                             "    'id': 'tls0', 'endpoint': %s, 'dir': %s } }",
                             source ? "client" : "server", dir);
    migrate_set_parameter_str(who, "tls-creds", "tls0");
}

static void clean_tls(void)
{
    g_autofree char *dir = tls_path(NULL), *keys = tls_path("keys.psk");

    unlink(keys);
    rmdir(dir);
}
#endif

/* Then other threads than the migration's read the dirty log */
static void set_up_converge(QTestState *who, bool source)
{
    migrate_set_capability(who, "auto-converge", true);
    if (source) {
        migrate_set_parameter_int(who, "throttle-trigger-threshold", 1);
    }
}

typedef struct RedirectTest {
    const char *name;
    unsigned percent;           /* of the first pass, when it is redirected */
    unsigned passes;            /* or rather after so many passes */
    const char *mode;           /* "precopy" if NULL */
    const char *switch_reason;  /* the switch to post-copy, NULL: none */
    bool stopped;               /* the guest dirties nothing */
    bool preempt;
    bool xbzrle;
    void (*set_up)(QTestState *who, bool source);
    void (*clean)(void);
} RedirectTest;

static const RedirectTest tests[] = {
    { .name = "stopped/0", .percent = 0, .stopped = true },
    { .name = "stopped/10", .percent = 10, .stopped = true },
    { .name = "stopped/50", .percent = 50, .stopped = true },
    { .name = "stopped/90", .percent = 90, .stopped = true },
    { .name = "running/0", .percent = 0 },
    { .name = "running/10", .percent = 10 },
    { .name = "running/50", .percent = 50 },
    { .name = "running/90", .percent = 90 },
    { .name = "auto/50", .percent = 50, .mode = "auto" },
    { .name = "hybrid/50", .percent = 50, .mode = "hybrid",
      .switch_reason = "passes" },
    { .name = "hybrid/pass", .passes = 2, .mode = "hybrid" },
    { .name = "preempt/50", .percent = 50, .mode = "hybrid",
      .switch_reason = "passes", .preempt = true },
    { .name = "xbzrle/50", .percent = 50, .xbzrle = true },
    { .name = "auto-converge/50", .percent = 50, .set_up = set_up_converge },
    { .name = "xbzrle/pass", .passes = 2, .mode = "hybrid", .xbzrle = true },
#ifdef CONFIG_GNUTLS
    { .name = "tls/50", .percent = 50, .stopped = true,
      .set_up = set_up_tls, .clean = clean_tls },
#ifdef CONFIG_TASN1
    { .name = "x509/50", .percent = 50, .stopped = true,
      .set_up = redirect_x509_set_up, .clean = redirect_x509_clean },
#endif
#endif
};

static StrategySetup make_setup(const RedirectTest *t, char **json)
{
    *json = g_strdup_printf("{ 'redirectable': true, 'mode': '%s',"
                            "  'passes': %d }", t->mode ?: "precopy",
                            t->switch_reason ? 1 : 1000000);
    return (StrategySetup) {
        .strategy = *json,
        .stopped = t->stopped,
        .preempt = t->preempt,
        .xbzrle = t->xbzrle,
        .set_up = t->set_up,
        .bandwidth = STRATEGY_MEDIUM,
    };
}

/* Start, and come to where it is to be redirected */
static bool start(RedirectGuests *r, const RedirectTest *t, unsigned hosts)
{
    g_autofree char *json = NULL;
    StrategySetup setup = make_setup(t, &json);

    if (!redirect_start(r, &setup, hosts, NULL)) {
        return false;
    }
    strategy_migrate(&r->g);
    if (t->passes) {
        strategy_wait_passes(r->g.from, t->passes);
    } else {
        strategy_wait_sent(r->g.from, t->percent);
    }
    /* Next to nothing moves until the redirect */
    strategy_speed(&r->g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    return true;
}

/*
 * The new destination got what the old one had from that, and the source sent
 * again only what it took over.  How much that may be is for the policy's unit
 * tests: a relay that gets no CPU for a second is not helped, but replaced.
 */
static void check_stopped(RedirectGuests *r, unsigned percent)
{
    g_autoptr(QDict) at = redirect_info(r->g.from);
    uint64_t total = strategy_ram(r->g.from, "total");
    uint64_t source = qdict_get_int(at, "source-pages") * 4096;
    uint64_t relay = qdict_get_int(at, "relay-pages") * 4096;
    uint64_t over = qdict_get_int(at, "taken-over");

    g_test_message("total %" PRIu64 ", source %" PRIu64 ", relay %" PRIu64
                   ", taken over %" PRIu64, total, source, relay, over);
    g_assert_cmpint(relay, >, 0);
    g_assert_cmpint(source, <=,
                    total * (100 - percent) / 100 + over + total / 50);
}

static void check_source(RedirectGuests *r, int64_t redirects)
{
    g_autoptr(QDict) at = redirect_info(r->g.from);

    g_assert(at);
    g_assert_cmpstr(qdict_get_str(at, "role"), ==, "source");
    g_assert_cmpint(qdict_get_int(at, "redirects"), ==, redirects);
    g_assert_cmpint(qdict_get_int(at, "remaining"), ==, 0);
    g_assert(!qdict_haskey(at, "error"));
}

static void check_destination(RedirectGuests *r)
{
    g_autoptr(QDict) at = redirect_info(r->g.to);

    g_assert(at);
    g_assert_cmpstr(qdict_get_str(at, "role"), ==, "destination");
    if (qdict_get_int(at, "relay-pages")) {
        g_assert_cmpint(qdict_get_int(at, "relay-rate"), >, 0);
    }
}

/*
 * The guest starts at the new destination, with its memory; the old one is
 * free
 */
static void test_redirect(const void *opaque)
{
    const RedirectTest *t = opaque;
    g_autoptr(QDict) info = NULL;
    RedirectGuests r;

    if (!start(&r, t, 2)) {
        return;
    }
    redirect_order(&r, 1);
    if (t->stopped) {
        /* While the source has much to send, the relay does all of its part */
        redirect_wait_relayed(r.host[0], "completed");
    }
    strategy_speed(&r.g, STRATEGY_FAST, t->switch_reason ?
                   STRATEGY_NOTHING_FITS : STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "completed");
    check_source(&r, 1);
    check_destination(&r);
    if (t->stopped && t->percent) {
        check_stopped(&r, t->percent);
    }
    info = strategy_info(r.g.from);
    g_assert_cmpstr(qdict_get_try_str(info, "switch-reason"), ==,
                    t->switch_reason);
    if (!t->stopped) {
        redirect_wait_relayed(r.host[0], NULL);
    }
    redirect_finish(&r);
    if (t->clean) {
        t->clean();
    }
}

/* Again, before or after the first relay is done: it makes no difference */
static void test_twice(void)
{
    static const RedirectTest t = { .percent = 50 };
    RedirectGuests r;

    if (!start(&r, &t, 3)) {
        return;
    }
    redirect_order(&r, 1);
    redirect_order(&r, 2);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "completed");
    check_source(&r, 2);
    redirect_wait_relayed(r.host[0], NULL);
    redirect_wait_relayed(r.host[1], NULL);
    redirect_finish(&r);
}

/* Over unix sockets, the relay next to where the new destination listens */
static void test_unix(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .unix_sockets = true,
        .stopped = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    g_autofree char *uri = NULL, *path = NULL;
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 2, NULL)) {
        return;
    }
    uri = migrate_get_connect_uri(r.host[1]);
    g_assert(g_str_has_prefix(uri, "unix:"));
    path = g_strdup_printf("%s.relay", uri + strlen("unix:"));
    strategy_migrate(&r.g);
    strategy_wait_sent(r.g.from, 50);
    strategy_speed(&r.g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    redirect_order(&r, 1);
    g_assert(g_file_test(path, G_FILE_TEST_EXISTS));
    redirect_wait_relayed(r.host[0], "completed");
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "completed");
    check_source(&r, 1);
    check_destination(&r);
    check_stopped(&r, 50);
    redirect_finish(&r);
    g_assert(!g_file_test(path, G_FILE_TEST_EXISTS));
}

/* To another destination and back to the first one */
static void test_back(void)
{
    static const RedirectTest t = { .percent = 50 };
    RedirectGuests r;

    if (!start(&r, &t, 2)) {
        return;
    }
    redirect_order(&r, 1);
    redirect_wait_relayed(r.host[0], NULL);
    strategy_listen(&r.g, r.host[0]);
    redirect_order(&r, 0);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "completed");
    check_source(&r, 2);
    check_destination(&r);
    redirect_wait_relayed(r.host[1], NULL);
    redirect_finish(&r);
}

/*
 * With a preempt channel, the old destination still listens: it must not take
 * a redirect to itself, under another name, for that channel
 */
static void test_alias(void)
{
    static const RedirectTest t = {
        .percent = 50, .mode = "hybrid", .switch_reason = "passes",
        .preempt = true
    };
    static const char *const names[] = {
        "localhost", "127.1", "[::ffff:127.0.0.1]"
    };
    g_autofree char *uri = NULL;
    const char *port;
    RedirectGuests r;

    if (!start(&r, &t, 1)) {
        return;
    }
    uri = migrate_get_connect_uri(r.g.to);
    port = strrchr(uri, ':');
    g_assert(g_str_has_prefix(uri, "tcp:127.0.0.1:"));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *alias = g_strdup_printf("tcp:%s%s", names[i], port);

        redirect_refused(&r, alias, "goes there already");
    }
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_NOTHING_FITS);
    strategy_wait_status(r.g.from, "completed");
    redirect_finish(&r);
}

/* An old destination takes another migration after all: it was forgotten */
static void test_old_again(void)
{
    static const RedirectTest t = { .percent = 50 };
    RedirectGuests r;

    if (!start(&r, &t, 2)) {
        return;
    }
    redirect_order(&r, 1);
    redirect_wait_relayed(r.host[0], NULL);
    migrate_cancel(r.g.from);
    strategy_wait_cancelled(r.g.from);
    strategy_still_there(&r.g);

    strategy_listen(&r.g, r.host[0]);
    redirect_to(&r, 0);
    strategy_set(r.g.from, "{ 'mode': 'hybrid', 'passes': 1 }");
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_NOTHING_FITS);
    strategy_migrate(&r.g);
    redirect_finish(&r);
}

/* When that one has failed, a third is refused, as a second ever was */
static void test_old_fails(void)
{
    static const RedirectTest t = { .percent = 50 };
    g_autoptr(QDict) err = NULL;
    RedirectGuests r;

    if (!start(&r, &t, 2)) {
        return;
    }
    redirect_order(&r, 1);
    redirect_wait_relayed(r.host[0], NULL);
    migrate_cancel(r.g.from);
    strategy_wait_cancelled(r.g.from);

    strategy_listen(&r.g, r.host[0]);
    redirect_to(&r, 0);
    strategy_migrate(&r.g);
    strategy_wait_status(r.host[0], "active");
    migrate_cancel(r.g.from);
    strategy_wait_cancelled(r.g.from);
    strategy_wait_status(r.host[0], "failed");
    err = qtest_qmp_assert_failure_ref(
        r.host[0], "{ 'execute': 'migrate-incoming',"
        "  'arguments': { 'uri': 'tcp:127.0.0.1:0' } }");
    g_assert_cmpstr(qdict_get_str(err, "desc"), ==,
                    "The incoming migration has already been started");
    redirect_quit(&r);
}

void strategy_add_redirect(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path =
            g_strdup_printf("/migration/strategy/redirect/%s", tests[i].name);

        qtest_add_data_func(path, &tests[i], test_redirect);
    }
    qtest_add_func("/migration/strategy/redirect/twice", test_twice);
    qtest_add_func("/migration/strategy/redirect/unix", test_unix);
    qtest_add_func("/migration/strategy/redirect/back", test_back);
    qtest_add_func("/migration/strategy/redirect/alias", test_alias);
    qtest_add_func("/migration/strategy/redirect/old-again", test_old_again);
    qtest_add_func("/migration/strategy/redirect/old-fails", test_old_fails);
}
