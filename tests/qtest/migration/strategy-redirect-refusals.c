/*
 * Tests of redirect: what cannot work is refused, and nothing is lost by it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/un.h>
#include "qemu/sockets.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "migration/strategy-redirect-util.h"

static const StrategySetup redirectable = {
    .strategy = "{ 'redirectable': true }",
    .bandwidth = STRATEGY_SLOW,
};

/* The migration to the first destination goes on, and ends there */
static void finish_at_first(RedirectGuests *r)
{
    strategy_wait_status(r->g.from, "active");
    strategy_speed(&r->g, STRATEGY_FAST, STRATEGY_ALL_FITS);
    strategy_finish(&r->g);
}

static void test_no_migration(void)
{
    RedirectGuests r;

    if (!redirect_start(&r, &redirectable, 1, NULL)) {
        return;
    }
    redirect_refused(&r, "tcp:127.0.0.1:1", "No migration is running");
    strategy_migrate(&r.g);
    finish_at_first(&r);
}

static void test_not_redirectable(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'hybrid' }",
        .bandwidth = STRATEGY_SLOW,
    };
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "redirectable");
    finish_at_first(&r);
}

static void test_postcopy(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'hybrid', 'background': false,"
                    "  'redirectable': true }",
        .bandwidth = STRATEGY_FAST,
    };
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "postcopy-active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "post-copy");
    strategy_set(r.g.from, "{ 'background': true }");
    strategy_finish(&r.g);
}

/* The guest is about to leave, at once: that is too late */
static void test_mode_postcopy(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'mode': 'postcopy', 'redirectable': true }",
        .bandwidth = STRATEGY_FAST,
    };
    g_autofree char *uri = NULL;
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    uri = migrate_get_connect_uri(r.g.to);
    /* So that it stays before the switch */
    kill(qtest_pid(r.g.to), SIGSTOP);
    migrate_qmp(r.g.from, r.g.to, uri, NULL, "{}");
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "mode 'postcopy'");
    kill(qtest_pid(r.g.to), SIGCONT);
    strategy_finish(&r.g);
}

static void test_pre_switchover(void)
{
    static const StrategySetup setup = {
        .strategy = "{ 'redirectable': true }",
        .bandwidth = STRATEGY_FAST,
        .downtime = STRATEGY_ALL_FITS,
        .pause = true,
    };
    RedirectGuests r;

    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "pre-switchover");
    redirect_refused(&r, "tcp:127.0.0.1:1", "switchover");
    migrate_continue(r.g.from, "pre-switchover");
    strategy_finish(&r.g);
}

static void test_addresses(void)
{
    static const struct {
        const char *uri;
        const char *names;
    } wrong[] = {
        { "file:/dev/null", "tcp: and unix:" },
        { "exec:cat", "tcp: and unix:" },
        { "fd:3", "tcp: and unix:" },
        { "rdma:127.0.0.1:1", "tcp: and unix:" },
        { "vsock:2:1", "tcp: and unix:" },
        { "nonsense", "nonsense" },
        { "tcp:127.0.0.1:1", "Cannot connect" },
        { "unix:/nonexistent/socket", "Cannot connect" },
    };
    RedirectGuests r;
    g_autofree char *first = NULL;
    g_autoptr(QDict) info = NULL;

    if (!redirect_start(&r, &redirectable, 1, NULL)) {
        return;
    }
    first = migrate_get_connect_uri(r.g.to);
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        redirect_refused(&r, wrong[i].uri, wrong[i].names);
    }
    redirect_refused(&r, first, "goes there already");
    /* It does not count as one, but says what happened */
    info = redirect_info(r.g.from);
    g_assert(!info || qdict_get_int(info, "redirects") == 0);
    finish_at_first(&r);
}

static void set_up_bitmaps(QTestState *who, bool source)
{
    migrate_set_capability(who, "dirty-bitmaps", true);
}

static void test_dirty_bitmaps(void)
{
    StrategySetup setup = redirectable;
    RedirectGuests r;

    setup.set_up = set_up_bitmaps;
    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "dirty-bitmaps");
    finish_at_first(&r);
}

/* A destination that cannot take this guest says so before it is too late */
static void test_other_guest(void)
{
    g_autofree char *uri = NULL;
    StrategySetup setup = redirectable;
    RedirectGuests r;
    QTestState *other;

    setup.hide_stderr = true;
    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    other = qtest_init("-machine q35 -m 64M -nic none -incoming defer"
                       " 2>/dev/null");
    migrate_incoming_qmp(other, "tcp:127.0.0.1:0", NULL,
                         "{ 'exit-on-error': false }");
    uri = migrate_get_connect_uri(other);
    redirect_refused(&r, uri, "cannot take the migration");
    strategy_wait_status(other, "failed");
    qtest_quit(other);
    finish_at_first(&r);
}

/* What is not plugged is clean, but is not at the old destination */
static void test_virtio_mem(void)
{
    static const char *const args = "-machine q35 -m 64M,maxmem=256M -nic none"
        " -object memory-backend-ram,id=m0,size=64M"
        " -device virtio-mem-pci,memdev=m0,bus=pcie.0";
    g_autofree char *to_args = g_strdup_printf("%s -incoming defer", args);
    g_autofree char *uri = NULL;
    RedirectGuests r = { };

    if (!qtest_has_device("virtio-mem-pci")) {
        g_test_skip("there is no virtio-mem");
        return;
    }
    r.g.from = qtest_init(args);
    r.g.to = qtest_init(to_args);
    strategy_listen(&r.g, r.g.to);
    strategy_set(r.g.from, redirectable.strategy);
    migrate_set_parameter_int(r.g.from, "max-bandwidth", 4096);
    uri = migrate_get_connect_uri(r.g.to);
    migrate_qmp(r.g.from, r.g.to, uri, NULL, "{}");
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "virtio-mem");
    qtest_quit(r.g.from);
    qtest_quit(r.g.to);
}

/* Who has opened the channel, as libvirt does, would not know of it */
static void test_fd(void)
{
    RedirectGuests r = { };
    int pair[2];

    r.g.from = qtest_init("-machine q35 -m 64M -nic none");
    g_assert_cmpint(qemu_socketpair(PF_LOCAL, SOCK_STREAM, 0, pair), ==, 0);
    qtest_qmp_fds_assert_success(r.g.from, &pair[1], 1,
                                 "{ 'execute': 'getfd',"
                                 "  'arguments': { 'fdname': 'fd-mig' } }");
    close(pair[1]);
    strategy_set(r.g.from, redirectable.strategy);
    migrate_set_parameter_int(r.g.from, "max-bandwidth", 4096);
    migrate_qmp(r.g.from, NULL, "fd:fd-mig", NULL, "{}");
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "fd:");
    close(pair[0]);
    qtest_quit(r.g.from);
}

/* A program cannot be told that the stream ends here */
static void test_exec(void)
{
    RedirectGuests r = { };

    r.g.from = qtest_init("-machine q35 -m 64M -nic none");
    strategy_set(r.g.from, redirectable.strategy);
    migrate_set_parameter_int(r.g.from, "max-bandwidth", 4096);
    migrate_qmp(r.g.from, NULL, "exec:cat >/dev/null", NULL, "{}");
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "exec:");
    migrate_cancel(r.g.from);
    qtest_quit(r.g.from);
}

/* A unix socket that nobody can connect to, nor is refused: it is full */
static int full_socket(const char *path, int *client)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_cmpint(listen(fd, 0), ==, 0);
    *client = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(connect(*client, (struct sockaddr *)&un, sizeof(un)), ==,
                    0);
    return fd;
}

/* A redirect that still connects does not outlive its migration */
static void test_dropped(void)
{
    StrategySetup setup = redirectable;
    g_autofree char *path = NULL, *uri = NULL, *text = NULL;
    RedirectGuests r;
    int fd, client;

    setup.hide_stderr = true;
    if (!redirect_start(&r, &setup, 2, NULL)) {
        return;
    }
    path = g_build_filename(migration_get_env()->tmpfs, "full", NULL);
    fd = full_socket(path, &client);
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    text = qtest_hmp(r.g.from, "migrate_redirect unix:%s", path);
    uri = migrate_get_connect_uri(r.host[1]);
    redirect_refused(&r, uri, "Another redirect is under way");
    migrate_cancel(r.g.from);
    strategy_wait_cancelled(r.g.from);
    redirect_wait_error(r.g.from);
    redirect_to(&r, 1);
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    redirect_refused(&r, "tcp:127.0.0.1:1", "Cannot connect");
    close(client);
    close(fd);
    unlink(path);
    redirect_quit(&r);
}

/* HMP knows the command, and reports where the user can see it */
static void test_hmp(void)
{
    StrategySetup setup = redirectable;
    g_autofree char *text = NULL, *again = NULL, *info = NULL;
    RedirectGuests r;

    setup.hide_stderr = true;
    if (!redirect_start(&r, &setup, 1, NULL)) {
        return;
    }
    text = qtest_hmp(r.g.from, "migrate_redirect tcp:127.0.0.1:1");
    g_assert(strstr(text, "No migration is running"));
    strategy_migrate(&r.g);
    strategy_wait_status(r.g.from, "active");
    /* As human-monitor-command it does not wait */
    again = qtest_hmp(r.g.from, "migrate_redirect tcp:127.0.0.1:1");
    g_assert(strstr(again, "info migrate"));
    redirect_wait_error(r.g.from);
    info = qtest_hmp(r.g.from, "info migrate");
    g_assert(strstr(info, "redirect error: Cannot connect"));
    finish_at_first(&r);
}

void strategy_add_redirect_refusals(void)
{
    static const struct {
        const char *name;
        void (*test)(void);
    } tests[] = {
        { "no-migration", test_no_migration },
        { "not-redirectable", test_not_redirectable },
        { "postcopy", test_postcopy },
        { "mode-postcopy", test_mode_postcopy },
        { "pre-switchover", test_pre_switchover },
        { "addresses", test_addresses },
        { "dirty-bitmaps", test_dirty_bitmaps },
        { "other-guest", test_other_guest },
        { "virtio-mem", test_virtio_mem },
        { "fd", test_fd },
        { "exec", test_exec },
        { "dropped", test_dropped },
        { "hmp", test_hmp },
    };

    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf(
            "/migration/strategy/redirect/refused/%s", tests[i].name);

        qtest_add_func(path, tests[i].test);
    }
}
