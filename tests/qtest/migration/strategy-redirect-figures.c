/*
 * Tests of redirect: what query-migrate says on all three hosts is so
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "qemu/units.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

/* Bytes a second at which a relay sends a page, and then none for long */
#define RELAY_STUCK 1000
/* Devices, and what is around the pages in the stream: no more than that */
#define NO_PAGES    (4 * MiB)

typedef struct Figures {
    QDict *source, *relay, *destination;
} Figures;

static Figures take_figures(RedirectGuests *r)
{
    return (Figures) {
        .source = redirect_info(r->g.from),
        .relay = redirect_info(r->host[0]),
        .destination = redirect_info(r->host[1]),
    };
}

static void drop_figures(Figures *f)
{
    qobject_unref(f->source);
    qobject_unref(f->relay);
    qobject_unref(f->destination);
}

static void assert_equal(const QDict *a, const QDict *b, const char *member)
{
    g_test_message("%s: %" PRId64 ", %" PRId64, member,
                   qdict_get_int(a, member), qdict_get_int(b, member));
    g_assert_cmpint(qdict_get_int(a, member), ==, qdict_get_int(b, member));
}

/* The new destination has counted the pages, the source all that it sent */
static void check_source_bytes(RedirectGuests *r, const Figures *f)
{
    int64_t sent = qdict_get_int(f->source, "source-bytes");
    int64_t came = qdict_get_int(f->destination, "source-bytes");
    int64_t pages = qdict_get_int(f->destination, "source-pages");

    g_test_message("%" PRId64 " bytes sent, %" PRId64 " came, %" PRId64
                   " pages", sent, came, pages);
    g_assert_cmpint(pages, >, 0);
    g_assert_cmpint(pages, <=, qdict_get_int(f->source, "source-pages"));
    g_assert_cmpint(came, <, sent);
    g_assert_cmpint(came, >, sent - NO_PAGES);
}

static void check_hmp(QTestState *who, const char *role, bool source_bytes)
{
    g_autofree char *text = qtest_hmp(who, "info migrate");

    g_assert(strstr(text, "redirects: 1"));
    g_assert(strstr(text, role));
    g_assert(strstr(text, "relay: completed"));
    g_assert(strstr(text, "relay pages: "));
    g_assert(strstr(text, "relay bytes: "));
    g_assert(strstr(text, "relay bytes/s: "));
    g_assert(strstr(text, "duplicates: "));
    g_assert(!strstr(text, "source pages: ") == !source_bytes);
    g_assert(!strstr(text, "source bytes: ") == !source_bytes);
}

/* Let the old destination send a page; it has then asked for some others */
static bool start_relay(RedirectGuests *r, const StrategySetup *setup)
{
    if (!redirect_start(r, setup, 2, NULL)) {
        return false;
    }
    strategy_migrate(&r->g);
    strategy_wait_sent(r->g.from, 50);
    strategy_speed(&r->g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    migrate_set_parameter_int(r->host[0], "max-bandwidth", RELAY_STUCK);
    redirect_order(r, 1);
    redirect_wait_figure(r->host[0], "relay-pages");
    return true;
}

/*
 * Everything comes from the source before the old destination sends what it
 * has asked for: all three know of these duplicates, and agree on the rest
 */
static void test_duplicates(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .stopped = true,
        .pause = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    static const char *const all[] = {
        "redirects", "relay-pages", "duplicates"
    };
    RedirectGuests r;
    Figures f;

    if (!start_relay(&r, &setup)) {
        return;
    }
    /* With a downtime allowed, what was taken over might be sent after that */
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_NOTHING_FITS);
    strategy_wait_status(r.g.from, "pre-switchover");
    migrate_set_parameter_int(r.host[0], "max-bandwidth", 0);
    redirect_wait_relayed(r.host[0], "completed");
    migrate_continue(r.g.from, "pre-switchover");
    strategy_wait_status(r.g.from, "completed");
    strategy_wait_status(r.g.to, "completed");
    f = take_figures(&r);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        assert_equal(f.relay, f.destination, all[i]);
        assert_equal(f.source, f.destination, all[i]);
    }
    assert_equal(f.source, f.destination, "relay-zero-pages");
    assert_equal(f.source, f.destination, "relay-bytes");
    /* The pages alone, and the requests between them, too */
    g_assert_cmpint(qdict_get_int(f.relay, "relay-bytes"), <,
                    qdict_get_int(f.destination, "relay-bytes"));
    g_assert_cmpint(qdict_get_int(f.relay, "duplicates"), >, 0);
    g_assert_cmpint(qdict_get_int(f.relay, "relay-pages"), >, 0);
    g_assert_cmpint(qdict_get_int(f.relay, "remaining"), ==, 0);
    check_source_bytes(&r, &f);
    drop_figures(&f);
    check_hmp(r.g.from, "as the source", true);
    check_hmp(r.host[0], "as the relay", false);
    check_hmp(r.host[1], "as the destination", true);
    redirect_finish(&r);
}

static int64_t xbzrle_pages(QTestState *who)
{
    g_autoptr(QDict) rsp = migrate_query(who);

    return qdict_get_int(qdict_get_qdict(rsp, "xbzrle-cache"), "pages");
}

/* Pages that are sent as differences count as what they are */
static void test_xbzrle(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .xbzrle = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    int64_t start, before;
    RedirectGuests r;
    Figures f;

    if (!start_relay(&r, &setup)) {
        return;
    }
    migrate_set_parameter_int(r.host[0], "max-bandwidth", 0);
    before = xbzrle_pages(r.g.from);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_NOTHING_FITS);
    for (start = g_get_monotonic_time();
         xbzrle_pages(r.g.from) < before + 1000; g_usleep(1000)) {
        /* Only a hang takes so long */
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        300 * G_USEC_PER_SEC);
    }
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "completed");
    strategy_wait_status(r.g.to, "completed");
    redirect_wait_relayed(r.host[0], NULL);
    f = take_figures(&r);
    check_source_bytes(&r, &f);
    drop_figures(&f);
    redirect_finish(&r);
}

#ifdef CONFIG_LINUX
/* Resident memory of a host's process, KiB */
static int64_t resident(QTestState *who)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(who));
    g_autofree char *text = NULL;
    const char *at;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    at = strstr(text, "VmRSS:");
    g_assert(at);
    return g_ascii_strtoll(at + strlen("VmRSS:"), NULL, 10);
}

/* Of the guest's memory next to nothing stays at the old destination */
static void test_memory(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .stopped = true,
        .pause = true,
        .bandwidth = STRATEGY_MEDIUM,
    };
    int64_t empty, full, after;
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 2, NULL)) {
        return;
    }
    empty = resident(r.host[0]);
    strategy_migrate(&r.g);
    strategy_wait_sent(r.g.from, 90);
    strategy_speed(&r.g, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS);
    migrate_set_parameter_int(r.host[0], "max-bandwidth", RELAY_STUCK);
    redirect_order(&r, 1);
    /* All of it has come in, and is held until the relay may go on */
    full = resident(r.host[0]);
    migrate_set_parameter_int(r.host[0], "max-bandwidth", 0);
    redirect_wait_relayed(r.host[0], NULL);
    after = resident(r.host[0]);
    g_test_message("%" PRId64 " KiB, %" PRId64 " with the guest's memory, %"
                   PRId64 " without", empty, full, after);
    /* Whatever the guest has written, what the test has filled is there */
    g_assert_cmpint((full - empty) * KiB, >,
                    strategy_ram(r.g.from, "total") / 8);
    g_assert_cmpint(after - empty, <, (full - empty) / 10);
    strategy_speed(&r.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_wait_status(r.g.from, "pre-switchover");
    migrate_continue(r.g.from, "pre-switchover");
    redirect_finish(&r);
}
#endif

void strategy_add_redirect_figures(void)
{
    qtest_add_func("/migration/strategy/redirect/figures/duplicates",
                   test_duplicates);
    qtest_add_func("/migration/strategy/redirect/figures/xbzrle",
                   test_xbzrle);
#ifdef CONFIG_LINUX
    qtest_add_func("/migration/strategy/redirect/figures/memory",
                   test_memory);
#endif
}
