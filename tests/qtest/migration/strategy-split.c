/*
 * Tests of the RAM migration strategies: split memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest has 150 MiB, of which it writes 99 all the time.
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/bootfile.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-memhost.h"
#include "migration/strategy-util.h"
#include "qapi/error.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"

#define MAX_HOSTS 3

/* Only a hang takes so long */
#define HANG_US (300 * G_USEC_PER_SEC)

typedef struct SplitTest {
    const char *name;
    unsigned hosts;             /* memory hosts */
    unsigned main_mib;          /* main-memory */
    unsigned room_mib;          /* what each memory host takes; 0: enough */
    unsigned capacity_mib;      /* what it is said to take; 0: not said */
    const char *placement;      /* NULL: not set */
    bool stopped;               /* the guest is stopped by its user */
    bool pause;                 /* pause-before-switchover */
} SplitTest;

typedef struct Split {
    const SplitTest *test;
    StrategyGuests g;
    MemHost host[MAX_HOSTS];
} Split;

static char *split_json(const Split *s)
{
    g_autoptr(GString) json = g_string_new(NULL);

    g_string_printf(json, "{ 'split': { 'main-memory': %u",
                    s->test->main_mib << 20);
    if (s->test->placement) {
        g_string_append_printf(json, ", 'placement': '%s'",
                               s->test->placement);
    }
    g_string_append(json, ", 'memory-hosts': [");
    for (unsigned i = 0; i < s->test->hosts; i++) {
        g_string_append_printf(json, "%s { 'uri': '%s'", i ? "," : "",
                               s->host[i].uri);
        if (s->test->capacity_mib) {
            g_string_append_printf(json, ", 'capacity': %u",
                                   s->test->capacity_mib << 20);
        }
        g_string_append(json, " }");
    }
    g_string_append(json, " ] } }");
    return g_strdup(json->str);
}

static bool split_start(Split *s, const SplitTest *test, bool hide_stderr,
                        int64_t bandwidth, int64_t downtime)
{
    g_autofree char *json = NULL;
    StrategySetup setup = {
        .no_postcopy = true,
        .stopped = test->stopped,
        .pause = test->pause,
        .hide_stderr = hide_stderr,
        .bandwidth = bandwidth,
        .downtime = downtime,
    };

    *s = (Split) { .test = test };
    if (!memhost_available()) {
        return false;
    }
    if (!migration_get_env()->has_uffd) {
        g_test_skip("userfaultfd, which split memory needs, is not available");
        return false;
    }
    for (unsigned i = 0; i < test->hosts; i++) {
        memhost_start(&s->host[i], test->room_mib ?: 512, NULL);
    }
    json = split_json(s);
    setup.strategy = json;
    if (!strategy_start(&s->g, &setup)) {
        for (unsigned i = 0; i < test->hosts; i++) {
            memhost_kill(&s->host[i]);
        }
        return false;
    }
    return true;
}

static void split_stop_hosts(Split *s)
{
    for (unsigned i = 0; i < s->test->hosts; i++) {
        memhost_kill(&s->host[i]);
        g_free(s->host[i].path);
        g_free(s->host[i].uri);
    }
}

static QDict *split_info(QTestState *who)
{
    g_autoptr(QDict) info = strategy_info(who);
    QDict *split;

    g_assert(info);
    split = qdict_get_qdict(info, "split");
    g_assert(split);
    return qobject_ref(split);
}

/*
 * The guest adds one to a byte of each of its pages, again and again.  Twice
 * in 256 rounds some pages or all are zero, which are stored nowhere.
 */
static bool has_zeroes(QTestState *who)
{
    return qtest_readb(who, X86_TEST_MEM_START) < 2;
}

/* What the source says of it, and what the memory hosts say, is the same */
static void check_report(Split *s)
{
    bool zeroes = has_zeroes(s->g.from);
    g_autoptr(QDict) info = split_info(s->g.from);
    g_autofree char *hmp = qtest_hmp(s->g.from, "info migrate");
    uint64_t pages = 0, bytes = 0;
    const QListEntry *e;
    unsigned i = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "hosts"), e) {
        QDict *host = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_cmpstr(qdict_get_str(host, "uri"), ==, s->host[i].uri);
        g_assert_cmpint(qdict_get_int(host, "queued"), ==, 0);
        g_assert(zeroes || qdict_get_int(host, "stored"));
        g_assert(strstr(hmp, s->host[i].uri));
        pages += qdict_get_int(host, "stored") / 4096;
        bytes += qdict_get_int(host, "bytes-sent");
        i++;
    }
    g_assert_cmpuint(i, ==, s->test->hosts);
    g_assert_cmpuint(pages, ==, qdict_get_int(info, "remote-pages"));
    g_assert_cmpint(qdict_get_int(info, "main-pages"), <=,
                    (s->test->main_mib << 20) / 4096);
    if (!zeroes) {
        /* It writes more than main-memory can have */
        g_assert_cmpint(qdict_get_int(info, "main-pages") + pages, >,
                        (96 << 20) / 4096);
    }
    /* All of it is counted where QEMU counts */
    g_assert_cmpint(strategy_ram(s->g.from, "transferred"), >, bytes);
    g_assert_cmpint(strategy_ram(s->g.from, "normal-bytes"), >=,
                    pages * 4096);
}

/*
 * A guest that writes all along arrives with all of its memory, part of it
 * at the memory hosts, and lives on
 */
static void test_split(const void *opaque)
{
    const SplitTest *test = opaque;
    Split s;

    if (!split_start(&s, test, false, STRATEGY_MEDIUM,
                     STRATEGY_NOTHING_FITS)) {
        return;
    }
    strategy_migrate(&s.g);
    if (test->stopped) {
        /* With no downtime allowed, an empty rest ends it */
        strategy_speed(&s.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    } else {
        strategy_wait_passes(s.g.from, 2);
        for (unsigned i = 0; i < test->hosts; i++) {
            g_assert_cmpuint(memhost_sessions(&s.host[i]), ==, 1);
        }
        strategy_speed(&s.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    }
    if (test->pause) {
        strategy_wait_status(s.g.from, "pre-switchover");
        qtest_qmp_assert_success(s.g.from,
            "{ 'execute': 'migrate-continue', 'arguments': {"
            "  'state': 'pre-switchover' } }");
    }
    strategy_wait_status(s.g.from, "completed");
    check_report(&s);
    strategy_finish(&s.g);
    split_stop_hosts(&s);
}

/* After a failure: the guest goes on, and what is left of sessions is ended */
static void check_unharmed(Split *s)
{
    strategy_still_there(&s->g);
    for (unsigned i = 0; i < s->test->hosts; i++) {
        if (s->host[i].pid) {
            memhost_wait_sessions(&s->host[i], 0);
        }
    }
}

static void check_error(Split *s, const char *named)
{
    g_autoptr(QDict) rsp = migrate_query(s->g.from);
    const char *desc = qdict_get_try_str(rsp, "error-desc");

    g_test_message("%s", desc);
    g_assert(desc && strstr(desc, named));
}

/* Without split, the same guest migrates as ever */
static void finish_plain(Split *s)
{
    strategy_replace_destination(&s->g);
    strategy_set(s->g.from, "{ 'split': null }");
    strategy_speed(&s->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_migrate(&s->g);
    strategy_finish(&s->g);
    split_stop_hosts(s);
}

#ifdef CONFIG_GNUTLS
static char *psk_folder(void)
{
    g_autofree char *dir = g_build_filename(migration_get_env()->tmpfs,
                                            "split-psk", NULL);
    g_autofree char *file = g_build_filename(dir, "keys.psk", NULL);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert(g_file_set_contents(file, "qemu:6d656d6f7279\n", -1, NULL));
    return g_steal_pointer(&dir);
}

static void psk_remove(const char *dir)
{
    g_autofree char *file = g_build_filename(dir, "keys.psk", NULL);

    unlink(file);
    rmdir(dir);
}

static void add_creds(QTestState *who, const char *endpoint, const char *dir)
{
    qtest_qmp_assert_success(who, "{ 'execute': 'object-add', 'arguments': {"
                             "  'qom-type': 'tls-creds-psk', 'id': 'tls0',"
                             "  'endpoint': %s, 'dir': %s } }", endpoint, dir);
    migrate_set_parameter_str(who, "tls-creds", "tls0");
}

/* All links use the credentials of the migration, as its clients */
static void test_tls(void)
{
    static const SplitTest test = { .hosts = 1, .main_mib = 64 };
    g_autofree char *dir = NULL;
    g_autofree char *object = NULL;
    const char *options[] = { NULL, "--tls-creds=t", NULL };
    Split s;

    if (!split_start(&s, &test, false, STRATEGY_FAST, STRATEGY_ALL_FITS)) {
        return;
    }
    dir = psk_folder();
    object = g_strdup_printf("--object=tls-creds-psk,id=t,endpoint=server,"
                             "dir=%s", dir);
    options[0] = object;
    memhost_kill(&s.host[0]);
    memhost_start(&s.host[0], 512, options);
    add_creds(s.g.from, "client", dir);
    add_creds(s.g.to, "server", dir);
    strategy_migrate(&s.g);
    strategy_wait_status(s.g.from, "completed");
    check_report(&s);
    strategy_finish(&s.g);
    split_stop_hosts(&s);
    psk_remove(dir);
}

/* A memory host that wants TLS, and a migration that has none */
static void test_tls_missing(void)
{
    static const SplitTest test = { .hosts = 1, .main_mib = 64 };
    g_autofree char *dir = NULL;
    g_autofree char *object = NULL;
    const char *options[] = { NULL, "--tls-creds=t", NULL };
    Split s;

    if (!split_start(&s, &test, true, STRATEGY_FAST, STRATEGY_ALL_FITS)) {
        return;
    }
    dir = psk_folder();
    object = g_strdup_printf("--object=tls-creds-psk,id=t,endpoint=server,"
                             "dir=%s", dir);
    options[0] = object;
    memhost_kill(&s.host[0]);
    memhost_start(&s.host[0], 512, options);
    strategy_migrate(&s.g);
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, s.host[0].uri);
    strategy_still_there(&s.g);
    finish_plain(&s);
    psk_remove(dir);
}
#endif

/* When to cancel */
typedef enum CancelWhen {
    AT_ONCE,
    IN_FIRST_PASS,
    BETWEEN_PASSES,
    IN_PRE_SWITCHOVER,
    WHILE_HOST_IS_SILENT,       /* its queue is full */
    WHILE_THROTTLING,           /* likewise, with auto-converge */
    WHILE_STOPPED,              /* the guest; and a host is silent */
    WHILE_CONNECTING,
} CancelWhen;

static const struct {
    const char *name;
    CancelWhen when;
} cancels[] = {
    { "at-once", AT_ONCE },
    { "first-pass", IN_FIRST_PASS },
    { "between-passes", BETWEEN_PASSES },
    { "pre-switchover", IN_PRE_SWITCHOVER },
    { "silent-host", WHILE_HOST_IS_SILENT },
    { "silent-host-throttled", WHILE_THROTTLING },
    { "silent-host-stopped", WHILE_STOPPED },
    { "connecting", WHILE_CONNECTING },
};

static void wait_queued(Split *s, int64_t pages)
{
    int64_t start = g_get_monotonic_time();
    int64_t queued;

    do {
        g_autoptr(QDict) info = split_info(s->g.from);
        QListEntry *e =
            (QListEntry *)qlist_first(qdict_get_qlist(info, "hosts"));

        queued = qdict_get_int(qobject_to(QDict, qlist_entry_obj(e)),
                               "queued");
        g_assert_cmpint(g_get_monotonic_time() - start, <, HANG_US);
        g_usleep(1000);
    } while (queued < pages);
}

/*
 * Auto-converge reads the dirty log every five seconds, in the main thread and
 * with RAM's lock.  No pass can end meanwhile.
 */
static void wait_timer_sync(Split *s)
{
    uint64_t before = strategy_ram(s->g.from, "dirty-sync-count");
    int64_t start = g_get_monotonic_time();

    while (strategy_ram(s->g.from, "dirty-sync-count") == before) {
        g_assert_cmpint(g_get_monotonic_time() - start, <, HANG_US);
        g_usleep(10000);
    }
}

static void migrate_until(Split *s, CancelWhen when)
{
    if (when == WHILE_CONNECTING) {
        memhost_signal(&s->host[0], SIGSTOP);
    }
    if (when == IN_FIRST_PASS) {
        strategy_speed(&s->g, STRATEGY_SLOW, STRATEGY_NOTHING_FITS);
        strategy_migrate_busily(&s->g);
        return;
    }
    strategy_migrate(&s->g);
    switch (when) {
    case BETWEEN_PASSES:
        strategy_wait_passes(s->g.from, 1);
        break;
    case IN_PRE_SWITCHOVER:
        strategy_speed(&s->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
        strategy_wait_status(s->g.from, "pre-switchover");
        break;
    case WHILE_STOPPED:
        strategy_speed(&s->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
        strategy_wait_status(s->g.from, "pre-switchover");
        memhost_signal(&s->host[0], SIGSTOP);
        migrate_continue(s->g.from, "pre-switchover");
        strategy_wait_status(s->g.from, "device");
        break;
    case WHILE_HOST_IS_SILENT:
    case WHILE_THROTTLING:
        /* The destination, too, has been there by then */
        strategy_wait_passes(s->g.from, 1);
        memhost_signal(&s->host[0], SIGSTOP);
        wait_queued(s, 2000);
        if (when == WHILE_THROTTLING) {
            wait_timer_sync(s);
        }
        break;
    default:
        break;
    }
}

/*
 * QEMU shuts the return path down, which has the socket of the stream, before
 * it sets the state: if the migration notices first, by the one or by the other,
 * what was cancelled ends as failed.  But for no other reason, as that a memory
 * host gave no answer for too long.
 */
static void wait_cancelled(Split *s)
{
    int64_t start = g_get_monotonic_time();

    while (true) {
        g_autoptr(QDict) rsp = migrate_query(s->g.from);
        const char *status = qdict_get_str(rsp, "status");
        const char *desc = qdict_get_try_str(rsp, "error-desc");

        if (g_str_equal(status, "cancelled")) {
            break;
        }
        if (g_str_equal(status, "failed")) {
            if (desc && !g_str_has_prefix(desc, "Channel error") &&
                !g_str_has_prefix(desc, "Unable to write to socket") &&
                !strstr(desc, "was cancelled")) {
                g_test_message("failed instead of cancelled: %s", desc);
                g_assert_cmpstr(status, ==, "cancelled");
            }
            break;
        }
        g_assert_cmpint(g_get_monotonic_time() - start, <, HANG_US);
        g_usleep(1000);
    }
}

/*
 * A cancellation is quick at any time, whatever a memory host does; nothing
 * is left at the memory hosts
 */
static void test_cancel(const void *opaque)
{
    static const SplitTest test = { .hosts = 2, .main_mib = 64 };
    static const SplitTest pausing = {
        .hosts = 2, .main_mib = 64, .pause = true,
    };
    CancelWhen when = cancels[(uintptr_t)opaque].when;
    bool pauses = when == IN_PRE_SWITCHOVER || when == WHILE_STOPPED;
    Split s;

    if (!split_start(&s, pauses ? &pausing : &test, true,
                     STRATEGY_MEDIUM, STRATEGY_NOTHING_FITS)) {
        return;
    }
    migrate_set_capability(s.g.from, "auto-converge",
                           when == WHILE_THROTTLING);
    migrate_until(&s, when);
    migrate_cancel(s.g.from);
    wait_cancelled(&s);
    if (when == WHILE_HOST_IS_SILENT || when == WHILE_THROTTLING ||
        when == WHILE_STOPPED || when == WHILE_CONNECTING) {
        memhost_signal(&s.host[0], SIGCONT);
    }
    check_unharmed(&s);
    if (pauses) {
        migrate_set_capability(s.g.from, "pause-before-switchover", false);
    }
    finish_plain(&s);
}

/*
 * After a cancellation, split memory can be tried again: the room that the
 * first time took is there again, and one session is left at the end
 */
static void test_cancel_again(void)
{
    static const SplitTest test = {
        .hosts = 1, .main_mib = 40, .room_mib = 150,
    };
    Split s;

    if (!split_start(&s, &test, true, STRATEGY_MEDIUM,
                     STRATEGY_NOTHING_FITS)) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        strategy_migrate(&s.g);
        strategy_wait_passes(s.g.from, 1);
        /*
         * With as much less, there would not be room for the next time.  The
         * guest's bytes are 0 once in 256 rounds, and what the first pass
         * found in such a round comes later.
         */
        memhost_wait_pages(&s.host[0], (45 << 20) / 4096);
        migrate_cancel(s.g.from);
        wait_cancelled(&s);
        strategy_replace_destination(&s.g);
    }
    strategy_speed(&s.g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_migrate(&s.g);
    strategy_wait_status(s.g.from, "completed");
    check_report(&s);
    g_assert_cmpuint(memhost_sessions(&s.host[0]), ==, 1);
    strategy_finish(&s.g);
    split_stop_hosts(&s);
}

/* A memory host that dies in the middle: the source goes on */
static void test_host_killed(void)
{
    static const SplitTest test = { .hosts = 2, .main_mib = 64 };
    Split s;

    if (!split_start(&s, &test, true, STRATEGY_MEDIUM,
                     STRATEGY_NOTHING_FITS)) {
        return;
    }
    strategy_migrate(&s.g);
    strategy_wait_passes(s.g.from, 1);
    memhost_kill(&s.host[1]);
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, s.host[1].uri);
    check_unharmed(&s);
    finish_plain(&s);
}

/* The last moment: the guest is stopped, and a memory host is gone */
static void test_host_killed_late(void)
{
    static const SplitTest test = {
        .hosts = 2, .main_mib = 64, .pause = true,
    };
    Split s;

    if (!split_start(&s, &test, true, STRATEGY_FAST, STRATEGY_ALL_FITS)) {
        return;
    }
    strategy_migrate(&s.g);
    strategy_wait_status(s.g.from, "pre-switchover");
    memhost_kill(&s.host[1]);
    qtest_qmp_assert_success(s.g.from,
        "{ 'execute': 'migrate-continue', 'arguments': {"
        "  'state': 'pre-switchover' } }");
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, s.host[1].uri);
    check_unharmed(&s);
    migrate_set_capability(s.g.from, "pause-before-switchover", false);
    finish_plain(&s);
}

/*
 * The guest is about to be stopped, and @host gives no answer any more
 *
 * @downtime: of which the source has patience for ten times as much, but for
 * 5 s at least
 */
static bool stop_with_silent_host(Split *s, const SplitTest *test,
                                  unsigned host, int64_t downtime)
{
    if (!split_start(s, test, true, STRATEGY_FAST, STRATEGY_ALL_FITS)) {
        return false;
    }
    strategy_migrate(&s->g);
    strategy_wait_status(s->g.from, "pre-switchover");
    strategy_speed(&s->g, STRATEGY_FAST, downtime);
    memhost_signal(&s->host[host], SIGSTOP);
    migrate_continue(s->g.from, "pre-switchover");
    return true;
}

/*
 * Likewise, but it is only silent: the guest is not stopped for as long as
 * the link would wait, and the monitor answers meanwhile
 */
static void test_host_silent_late(void)
{
    static const SplitTest test = {
        .hosts = 2, .main_mib = 64, .pause = true,
    };
    Split s;

    if (!stop_with_silent_host(&s, &test, 1, 1)) {
        return;
    }
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, "while the guest was stopped");
    memhost_signal(&s.host[1], SIGCONT);
    check_unharmed(&s);
    migrate_set_capability(s.g.from, "pause-before-switchover", false);
    finish_plain(&s);
}

/*
 * Its RAM has been read for the last time by then: a reset, which writes to
 * it, is for the VM that goes on
 */
static void test_host_silent_reset(void)
{
    static const SplitTest test = {
        .hosts = 1, .main_mib = 64, .pause = true,
    };
    g_autoptr(QDict) rsp = NULL;
    Split s;

    /* Time enough to order a reset meanwhile */
    if (!stop_with_silent_host(&s, &test, 0, 1500)) {
        return;
    }
    strategy_wait_status(s.g.from, "device");
    qtest_qmp_assert_success(s.g.from, "{ 'execute': 'system_reset' }");
    qtest_qmp_eventwait(s.g.from, "RESET");
    /* The wait is over, and the migration about to fail */
    rsp = migrate_query(s.g.from);
    g_assert_nonnull(qdict_get_try_str(rsp, "error-desc"));
    strategy_wait_status(s.g.from, "failed");
    memhost_signal(&s.host[0], SIGCONT);
    strategy_quit(&s.g);
    split_stop_hosts(&s);
}

/* Nobody there */
static void test_host_unreachable(void)
{
    static const SplitTest test = { .hosts = 2, .main_mib = 64 };
    Split s;

    if (!split_start(&s, &test, true, STRATEGY_FAST, STRATEGY_ALL_FITS)) {
        return;
    }
    memhost_kill(&s.host[0]);
    strategy_migrate(&s.g);
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, s.host[0].uri);
    check_unharmed(&s);
    finish_plain(&s);
}

/* Memory hosts that have not enough for all: said before any page is sent */
static void test_host_small(void)
{
    static const SplitTest test = {
        .hosts = 2, .main_mib = 64, .room_mib = 16,
    };
    Split s;

    if (!split_start(&s, &test, true, STRATEGY_FAST, STRATEGY_ALL_FITS)) {
        return;
    }
    strategy_migrate(&s.g);
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, "less than this VM's RAM");
    check_unharmed(&s);
    finish_plain(&s);
}

/* Memory hosts that somebody else fills meanwhile */
static void test_host_full(void)
{
    static const SplitTest test = {
        .hosts = 1, .main_mib = 40, .room_mib = 140,
    };
    g_autofree char *selftest = NULL;
    g_autoptr(GError) err = NULL;
    Split s;
    int rc;

    if (!split_start(&s, &test, true, STRATEGY_CRAWL, STRATEGY_NOTHING_FITS)) {
        return;
    }
    strategy_migrate(&s.g);
    memhost_wait_sessions(&s.host[0], 1);
    selftest = g_strdup_printf("%s --selftest %s --pages 25600 --keep "
                               "--no-verify --latency 1",
                               memhost_program(), s.host[0].uri);
    g_spawn_command_line_sync(selftest, NULL, NULL, &rc, &err);
    g_assert_no_error(err);
    g_assert_cmpint(rc, ==, 0);
    strategy_speed(&s.g, STRATEGY_FAST, STRATEGY_NOTHING_FITS);
    strategy_wait_status(s.g.from, "failed");
    check_error(&s, s.host[0].uri);
    check_error(&s, "full");
    strategy_still_there(&s.g);
    /* The other one's stays */
    memhost_wait_sessions(&s.host[0], 1);
    finish_plain(&s);
}

typedef struct Refusal {
    const char *strategy;
    const char *capability;
    const char *address;
    const char *named;
} Refusal;

#define SOCKET "{ 'transport': 'socket', 'type': 'inet', " \
               "  'host': '127.0.0.1', 'port': '1' }"
#define HOST "'memory-hosts': [ { 'uri': 'unix:/x' } ]"
#define GOOD "{ 'split': { 'main-memory': 67108864, " HOST " } }"

static const Refusal refusals[] = {
    { "{ 'split': { " HOST " } }", NULL, SOCKET, "needs main-memory" },
    { "{ 'split': { 'main-memory': 67108864 } }", NULL, SOCKET,
      "needs memory-hosts" },
    { "{ 'split': { 'main-memory': 1048576, " HOST " } }", NULL, SOCKET,
      "too small" },
    { "{ 'split': { 'main-memory': 1073741824, " HOST " } }", NULL, SOCKET,
      "takes all RAM" },
    { "{ 'split': { 'main-memory': 67108864, 'memory-hosts': ["
      "  { 'uri': 'unix:/x', 'capacity': 8388608 },"
      "  { 'uri': 'unix:/y', 'capacity': 8388608 } ] } }", NULL, SOCKET,
      "less than this VM's RAM" },
    { "{ 'split': { 'main-memory': 67108864, 'memory-hosts': ["
      "  { 'uri': 'unix:/x', 'tls-hostname': 'mem1' } ] } }", NULL, SOCKET,
      "asks for TLS" },
    { "{ 'mode': 'auto', 'split': { 'main-memory': 67108864, " HOST " } }",
      "postcopy-ram", SOCKET, "'auto'" },
    { "{ 'redirectable': true, "
      "  'split': { 'main-memory': 67108864, " HOST " } }", NULL, SOCKET,
      "redirect" },
    { GOOD, "multifd", SOCKET, "multifd" },
    { GOOD, "postcopy-ram", SOCKET, "postcopy-ram" },
    { GOOD, "xbzrle", SOCKET, "xbzrle" },
    { GOOD, "x-colo", SOCKET, "x-colo" },
    { GOOD, "x-ignore-shared", SOCKET, "x-ignore-shared" },
    { GOOD, NULL, "{ 'transport': 'rdma', 'host': '127.0.0.1', 'port': '1' }",
      "RDMA" },
    { GOOD, NULL, "{ 'transport': 'file', 'filename': '/dev/null',"
      "  'offset': 0 }", "file" },
    { GOOD, NULL, "{ 'transport': 'exec', 'args': [ 'cat' ] }", "program" },
};

static bool set_capability(QTestState *who, const char *name, bool on)
{
    g_autoptr(QDict) rsp = qtest_qmp(
        who, "{ 'execute': 'migrate-set-capabilities', 'arguments': {"
        "  'capabilities': [ { 'capability': %s, 'state': %i } ] } }",
        name, on);

    return qdict_haskey(rsp, "return");
}

static void refuse(QTestState *who, const char *address, const char *named)
{
    g_autoptr(QDict) now = NULL;
    g_autoptr(QDict) err = qtest_qmp_assert_failure_ref(
        who, "{ 'execute': 'migrate', 'arguments': { 'channels': ["
        "  { 'channel-type': 'main', 'addr': %p } ] } }",
        qobject_from_json(address, &error_abort));
    const char *desc = qdict_get_str(err, "desc");

    g_test_message("%s", desc);
    g_assert(strstr(desc, named));
    now = migrate_query(who);
    g_assert(!qdict_haskey(now, "status"));
}

/* Whatever clashes is named by `migrate` itself, which changes nothing */
static void test_refusals(void)
{
    QTestState *who = qtest_init("-m 150M");

    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        const Refusal *r = &refusals[i];

        strategy_set(who, "{ 'mode': 'precopy', 'redirectable': false, "
                     "  'split': null }");
        strategy_set(who, r->strategy);
        if (r->capability && !set_capability(who, r->capability, true)) {
            /* The only one that can be left out */
            g_assert_cmpstr(r->capability, ==, "x-colo");
            g_test_message("no %s in this build", r->capability);
            continue;
        }
        refuse(who, r->address, r->named);
        if (r->capability) {
            g_assert(set_capability(who, r->capability, false));
        }
    }
    qtest_quit(who);
}

/* RAM that cannot be paged is named */
static void test_refused_ram(void)
{
    static const struct {
        const char *args, *named, *needs;
    } cases[] = {
        { "-m 150M -object memory-backend-memfd,id=mem,size=150M,share=on "
          "-machine memory-backend=mem", "'mem'" },
        { "-m 150M -object memory-backend-ram,id=mem,size=150M,share=on "
          "-machine memory-backend=mem", "shared" },
        { "-m 150M,maxmem=1G,slots=1 "
          "-object memory-backend-ram,id=more,size=64M "
          "-device virtio-mem-pci,memdev=more", "virtio-mem" },
        /* No huge page is touched, so that none need be there */
        { "-m 150M -object memory-backend-memfd,id=mem,size=150M,share=off,"
          "hugetlb=on,hugetlbsize=2M,reserve=off -machine memory-backend=mem",
          "'mem'", "/sys/kernel/mm/hugepages/hugepages-2048kB" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        QTestState *who;

        if (cases[i].needs && access(cases[i].needs, F_OK)) {
            g_test_message("no %s here", cases[i].needs);
            continue;
        }
        who = qtest_init(cases[i].args);
        strategy_set(who, GOOD);
        refuse(who, SOCKET, cases[i].named);
        qtest_quit(who);
    }
}

/* A VM whose memory is not split: asked for it, it says so */
static void test_none(void)
{
    QTestState *who = qtest_init("-machine none");
    g_autoptr(QDict) info = qtest_qmp_assert_success_ref(
        who, "{ 'execute': 'query-remote-memory' }");
    g_autoptr(QDict) error = qtest_qmp_assert_failure_ref(
        who, "{ 'execute': 'remote-memory-gather' }");
    g_autofree char *hmp = qtest_hmp(who, "info remote_memory");

    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "none");
    g_assert_cmpint(qdict_get_int(info, "main-memory"), ==, 0);
    g_assert_cmpint(qdict_get_int(info, "resident"), ==, 0);
    g_assert(qlist_empty(qdict_get_qlist(info, "hosts")));
    g_assert(strstr(qdict_get_str(error, "desc"), "not split"));
    g_assert_cmpstr(hmp, ==, "remote memory: none\r\n");
    qtest_quit(who);
}

/* MiB of mappings that somebody serves the missing pages of */
static unsigned paged_mib(QTestState *who)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps", qtest_pid(who));
    g_autofree char *smaps = NULL;
    g_auto(GStrv) lines = NULL;
    unsigned long kib = 0, sum = 0;

    g_assert(g_file_get_contents(path, &smaps, NULL, NULL));
    lines = g_strsplit(smaps, "\n", -1);
    for (char **line = lines; *line; line++) {
        sscanf(*line, "Size: %lu kB", &kib);
        if (g_str_has_prefix(*line, "VmFlags:") && strstr(*line, " um")) {
            sum += kib;
        }
    }
    return sum / 1024;
}

/*
 * A DIMM that is unplugged at the destination: its RAM stays mapped until the
 * gather, or the pager would take pages of what is mapped there next
 */
static void test_unplug(void)
{
    const char *args =
        "-nodefaults -vga none -m 64M,slots=1,maxmem=1G "
        "-object memory-backend-ram,id=more,size=64M "
        "-device pc-dimm,id=dimm,memdev=more,addr=0x100000000";
    g_autofree char *destination = g_strdup_printf("%s -incoming defer", args);
    g_autofree char *uri = NULL;
    g_autofree char *split = NULL;
    g_autoptr(QDict) devices = NULL;
    QTestState *from, *to;
    MemHost host = { 0 };
    unsigned before;

    if (!memhost_available()) {
        return;
    }
    if (!migration_get_env()->has_uffd) {
        g_test_skip("userfaultfd, which split memory needs, is not available");
        return;
    }
    from = qtest_init(args);
    to = qtest_init(destination);
    memhost_start(&host, 256, NULL);
    qtest_memset(from, 0x100000000, 0x5a, 48 << 20);
    uri = g_strdup_printf("unix:%s/unplug", migration_get_env()->tmpfs);
    split = g_strdup_printf("{ 'split': { 'main-memory': %u, 'memory-hosts': ["
                            "  { 'uri': '%s' } ] } }", 24 << 20, host.uri);
    strategy_set(from, split);
    qtest_qmp_assert_success(to, "{ 'execute': 'migrate-incoming',"
                             "  'arguments': { 'uri': %s } }", uri);
    qtest_qmp_assert_success(from, "{ 'execute': 'migrate',"
                             "  'arguments': { 'uri': %s } }", uri);
    strategy_wait_status(from, "completed");
    qtest_quit(from);
    before = paged_mib(to);
    /* And the staging area */
    g_assert_cmpuint(before, >=, 128);
    /* As the guest's ACPI methods do: slot 0, eject */
    qtest_outl(to, 0xa00, 0);
    qtest_outb(to, 0xa14, 8);
    devices = qtest_qmp(to, "{ 'execute': 'query-memory-devices' }");
    g_assert(qlist_empty(qdict_get_qlist(devices, "return")));
    qtest_qmp_assert_success(to, "{ 'execute': 'object-del',"
                             "  'arguments': { 'id': 'more' } }");
    /* Each waits until RCU has freed what is to be: a view, then its RAM */
    for (int i = 0; i < 4; i++) {
        g_autoptr(QDict) error = qtest_qmp_assert_failure_ref(
            to, "{ 'execute': 'device_add', 'arguments': {"
                "  'driver': 'x' } }");
    }
    g_assert_cmpuint(paged_mib(to), ==, before);
    qtest_qmp_assert_success(to, "{ 'execute': 'remote-memory-gather' }");
    for (;;) {
        g_autoptr(QDict) event = qtest_qmp_eventwait_ref(to, "REMOTE_MEMORY");
        QDict *data = qdict_get_qdict(event, "data");

        if (g_str_equal(qdict_get_str(data, "status"), "gathered")) {
            break;
        }
    }
    g_assert_cmpuint(paged_mib(to), ==, 0);
    qtest_quit(to);
    memhost_kill(&host);
    g_free(host.path);
    g_free(host.uri);
}

static const SplitTest tests[] = {
    { .name = "one", .hosts = 1, .main_mib = 64 },
    { .name = "three", .hosts = 3, .main_mib = 64 },
    { .name = "address", .hosts = 2, .main_mib = 64, .placement = "address" },
    { .name = "capacity", .hosts = 2, .main_mib = 80, .capacity_mib = 60 },
    { .name = "stopped", .hosts = 2, .main_mib = 64, .stopped = true },
    { .name = "pause-before-switchover", .hosts = 2, .main_mib = 64,
      .pause = true },
};

void strategy_add_split(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path =
            g_strdup_printf("/migration/strategy/split/%s", tests[i].name);

        qtest_add_data_func(path, &tests[i], test_split);
    }
    for (uintptr_t i = 0; i < ARRAY_SIZE(cancels); i++) {
        g_autofree char *path = g_strdup_printf(
            "/migration/strategy/split/cancel/%s", cancels[i].name);

        qtest_add_data_func(path, (void *)i, test_cancel);
    }
    qtest_add_func("/migration/strategy/split/none", test_none);
    qtest_add_func("/migration/strategy/split/cancel/again",
                   test_cancel_again);
    qtest_add_func("/migration/strategy/split/host/killed", test_host_killed);
    qtest_add_func("/migration/strategy/split/host/killed-late",
                   test_host_killed_late);
    qtest_add_func("/migration/strategy/split/host/silent-late",
                   test_host_silent_late);
    qtest_add_func("/migration/strategy/split/host/silent-reset",
                   test_host_silent_reset);
    qtest_add_func("/migration/strategy/split/host/unreachable",
                   test_host_unreachable);
    qtest_add_func("/migration/strategy/split/host/small", test_host_small);
    qtest_add_func("/migration/strategy/split/host/full", test_host_full);
#ifdef CONFIG_GNUTLS
    qtest_add_func("/migration/strategy/split/tls", test_tls);
    qtest_add_func("/migration/strategy/split/tls/missing", test_tls_missing);
#endif
    qtest_add_func("/migration/strategy/split/unplug", test_unplug);
    qtest_add_func("/migration/strategy/split/refusals", test_refusals);
    qtest_add_func("/migration/strategy/split/refusals/ram",
                   test_refused_ram);
}
