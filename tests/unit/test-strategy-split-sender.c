/*
 * Unit tests of split memory's senders, against a real memory server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: what was pushed is there, in its last version, once a sync is
 * done; a memory host that is full, that stalls, that is not there or that
 * goes away is an error with its name, in time, and never holds up whoever
 * pushes, however much that is; what was pushed is not read after close, and a
 * session that was to be ended is gone.
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <poll.h>
#include "qapi/error.h"
#include "qapi/qapi-types-sockets.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "io/net-listener.h"
#include "migration/memserver/client.h"
#include "migration/memserver/server.h"
#include "migration/strategy/split/sender.h"

#define PAGES   1024
/* Nothing here takes as long unless it hangs */
#define LONG_MS 60000
/* Waited for in vain, and more than a busy machine takes to connect */
#define STALL_MS 2000

typedef struct Host {
    char *dir, *uri;
    MsServer *server;           /* NULL: something that only listens */
    QIONetListener *listener;
    GThread *thread;            /* runs the listener's main context */
    GMainLoop *loop;
    int silent;                 /* socket that is never served, or -1 */
} Host;

static void *run_loop(void *opaque)
{
    g_main_loop_run(opaque);
    return NULL;
}

/* Who connects is not answered before host_serve() */
static Host *host_listen(uint64_t max_pages)
{
    Host *h = g_new0(Host, 1);
    MsServerOptions o;

    h->silent = -1;
    h->dir = g_dir_make_tmp("split-sender-XXXXXX", NULL);
    h->uri = g_strdup_printf("unix:%s/socket", h->dir);
    if (max_pages) {
        g_autoptr(SocketAddress) addr = socket_parse(h->uri, &error_abort);

        ms_server_defaults(&o);
        o.max_pages = max_pages;
        o.threads = 1;
        h->server = ms_server_new(&o, &error_abort);
        h->listener = qio_net_listener_new();
        qio_net_listener_open_sync(h->listener, addr, 8, &error_abort);
        ms_server_add_listener(h->server, h->listener);
    } else {
        h->silent = unix_listen(h->uri + strlen("unix:"), &error_abort);
    }
    return h;
}

static void host_serve(Host *h)
{
    h->loop = g_main_loop_new(NULL, false);
    h->thread = g_thread_new("listener", run_loop, h->loop);
}

static Host *host_new(uint64_t max_pages)
{
    Host *h = host_listen(max_pages);

    if (max_pages) {
        host_serve(h);
    }
    return h;
}

static gboolean quit_loop(void *loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

/* The server goes away; the sockets of its clients are closed */
static void host_stop(Host *h)
{
    if (h->thread) {
        g_idle_add(quit_loop, h->loop);
        g_thread_join(h->thread);
        h->thread = NULL;
        qio_net_listener_disconnect(h->listener);
        object_unref(OBJECT(h->listener));
        g_main_loop_unref(h->loop);
        ms_server_free(h->server);
    }
}

static void host_free(Host *h)
{
    g_autofree char *path = g_strdup(h->uri + strlen("unix:"));

    host_stop(h);
    if (h->silent >= 0) {
        close(h->silent);
    }
    unlink(path);
    g_rmdir(h->dir);
    g_free(h->dir);
    g_free(h->uri);
    g_free(h);
}

static SplitSetup *make_setup(const char *uri)
{
    SplitSetup *s = split_setup_new(1, 2);

    memset(s->uuid, 1, sizeof(s->uuid));
    memset(s->key, 2, sizeof(s->key));
    s->epoch = 1;
    s->hosts[0].uri = g_strdup(uri);
    s->hosts[0].capacity = 1;
    for (unsigned i = 0; i < 2; i++) {
        s->blocks[i] = (SplitBlock) {
            .id = i, .idstr = g_strdup_printf("ram%u", i), .pages = PAGES,
        };
    }
    return s;
}

static SplitSender *start(const char *uri, int timeout_ms)
{
    g_autoptr(SplitSetup) s = make_setup(uri);

    return split_sender_new(s, 0, NULL, "test", timeout_ms);
}

static SplitSender *start_ready(Host *h)
{
    SplitSender *s = start(h->uri, 0);

    g_assert_cmpint(split_sender_wait(s, LONG_MS), ==, SPLIT_SENDER_READY);
    return s;
}

/* As the destination does */
static PageLinkClient *take_over(const char *uri, uint64_t epoch)
{
    g_autoptr(SplitSetup) s = make_setup(uri);
    g_autoptr(SocketAddress) addr = socket_parse(uri, &error_abort);
    PageLinkClientOptions o = {
        .addr = addr, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_DEMAND, .flags = PAGELINK_HELLO_TAKE,
        .epoch = epoch,
    };

    memcpy(o.uuid, s->uuid, sizeof(o.uuid));
    memcpy(o.key, s->key, sizeof(o.key));
    return pagelink_client_connect(&o, &error_abort);
}

/* Until all threads are done */
static void finish(void)
{
    while (split_sender_running()) {
        g_thread_yield();
    }
}

static void assert_failed(SplitSender *s, const char *uri, const char *named)
{
    g_autofree char *sentence = NULL;
    Error *err;

    while (split_sender_wait(s, LONG_MS) == SPLIT_SENDER_READY) {
        g_assert_cmpint(split_sender_sync(s, LONG_MS), !=, SPLIT_SENDER_LATER);
    }
    g_assert_cmpint(split_sender_wait(s, 0), ==, SPLIT_SENDER_FAILED);
    err = split_sender_error(s);
    g_assert_nonnull(err);
    sentence = g_strdup(error_get_pretty(err));
    error_free(err);
    if (!strstr(sentence, uri) || !strstr(sentence, named)) {
        g_test_message("expected '%s' and '%s' in '%s'", uri, named, sentence);
        g_test_fail();
    }
}

/* Every page many times over, with drops between */
static void test_last_version(void)
{
    g_autofree uint8_t *ram = g_malloc(PAGES * SPLIT_PAGE_SIZE);
    g_autofree uint8_t *back = g_malloc0(SPLIT_PAGE_SIZE);
    Host *h = host_listen(PAGES * 4);
    SplitSender *s = start(h->uri, 0);
    SplitSenderStats stats;
    uint64_t version = 0;
    PageLinkClient *c;

    for (unsigned i = 0; i < PAGES; i++) {
        memset(ram + i * SPLIT_PAGE_SIZE, 1 + i % 255, SPLIT_PAGE_SIZE);
    }
    for (unsigned pass = 0; pass < 6; pass++) {
        for (unsigned i = 0; i < PAGES; i++) {
            SplitEntry e = {
                .page = i, .version = ++version, .block = i % 2,
                .data = (i + pass) % 3 ?
                        ram + ((i + pass) % PAGES) * SPLIT_PAGE_SIZE : NULL,
            };

            /* More than the queue had room for at first */
            g_assert_true(split_sender_push(s, &e));
        }
    }
    /* All at once, so that the link can be measured */
    host_serve(h);
    g_assert_cmpint(split_sender_wait(s, LONG_MS), ==, SPLIT_SENDER_READY);
    g_assert_cmpuint(split_sender_free_pages(s), >, PAGES);
    g_assert_cmpint(split_sender_sync(s, LONG_MS), ==, SPLIT_SENDER_DONE);
    g_assert_cmpint(split_sender_drain(s, 0, 0), ==, SPLIT_SENDER_DONE);
    split_sender_stats(s, &stats);
    g_assert_cmpuint(stats.queued, ==, 0);
    g_assert_cmpuint(stats.acked, ==, stats.bytes);
    g_assert_cmpfloat(stats.rate, >, 0);
    g_assert_cmpuint(stats.pages, ==, 4 * PAGES);
    g_assert_cmpuint(stats.pages + stats.dropped, ==, 6 * PAGES);
    g_assert_cmpuint(stats.bytes, >=, stats.pages * SPLIT_PAGE_SIZE +
                     6 * PAGES * sizeof(PageLinkEntry));

    c = take_over(h->uri, 2);
    for (unsigned i = 0; i < PAGES; i++) {
        PageLinkPage p = { .page = i, .block = i % 2, .data = back };
        g_assert_true(pagelink_client_get(c, &p, 1, &error_abort));
        if ((i + 5) % 3) {
            g_assert_cmpint(p.flags, ==, 0);
            g_assert_cmpmem(back, SPLIT_PAGE_SIZE,
                            ram + ((i + 5) % PAGES) * SPLIT_PAGE_SIZE,
                            SPLIT_PAGE_SIZE);
        } else {
            g_assert_cmpint(p.flags, ==, PAGELINK_ENTRY_ABSENT);
        }
    }
    pagelink_client_free(c);
    split_sender_close(s, false);
    finish();
    g_assert_cmpuint(ms_server_sessions(h->server), ==, 1);
    host_free(h);
}

/* A sync counts only for what was pushed before it */
static void test_sync_again(void)
{
    static uint8_t page[SPLIT_PAGE_SIZE];
    SplitEntry e = { .version = 1, .data = page };
    Host *h = host_new(PAGES);
    SplitSender *s = start_ready(h);
    SplitSenderStats stats;

    for (unsigned i = 0; i < 100; i++) {
        e.version++;
        g_assert_true(split_sender_push(s, &e));
        g_assert_cmpint(split_sender_sync(s, LONG_MS), ==, SPLIT_SENDER_DONE);
        g_assert_cmpint(split_sender_drain(s, 0, 0), ==, SPLIT_SENDER_DONE);
    }
    /* Nobody needs to ask */
    e.version++;
    g_assert_true(split_sender_push(s, &e));
    g_assert_cmpint(split_sender_wait_acked(s, LONG_MS), ==, SPLIT_SENDER_DONE);
    split_sender_stats(s, &stats);
    g_assert_cmpuint(stats.pages, ==, 101);
    g_assert_cmpuint(stats.acked, ==, stats.bytes);
    split_sender_close(s, true);
    finish();
    g_assert_cmpuint(ms_server_sessions(h->server), ==, 0);
    host_free(h);
}

/* The end of a session that the destination took over reaches it as well */
static void test_end_taken(void)
{
    Host *h = host_new(PAGES);
    SplitSender *s = start_ready(h);
    PageLinkClient *c = take_over(h->uri, 2);

    split_sender_close(s, true);
    finish();
    g_assert_cmpuint(ms_server_sessions(h->server), ==, 0);
    pagelink_client_free(c);
    host_free(h);
}

/* Push without end; the error comes by itself, without a sync */
static void test_full(void)
{
    g_autofree uint8_t *ram = g_malloc(SPLIT_PAGE_SIZE);
    Host *h = host_new(256);
    SplitSender *s = start_ready(h);
    SplitEntry e = { .data = ram };

    memset(ram, 1, SPLIT_PAGE_SIZE);
    while (split_sender_push(s, &e)) {
        e.version++;
        e.page = (e.page + 1) % PAGES;
        e.block ^= !e.page;
        g_assert_cmpuint(e.version, <, 10000000);
        split_sender_drain(s, SPLIT_SENDER_QUEUE, LONG_MS);
    }
    assert_failed(s, h->uri, "memory");
    g_assert_cmpint(split_sender_sync(s, LONG_MS), ==, SPLIT_SENDER_ERROR);
    split_sender_close(s, true);
    finish();
    g_assert_cmpuint(ms_server_sessions(h->server), ==, 0);
    host_free(h);
}

/* Full, and few pages: the sync says so */
static void test_full_sync(void)
{
    g_autofree uint8_t *ram = g_malloc(SPLIT_PAGE_SIZE);
    Host *h = host_new(64);
    SplitSender *s = start_ready(h);
    SplitEntry e = { .data = ram };

    memset(ram, 1, SPLIT_PAGE_SIZE);
    for (e.page = 0; e.page < 200; e.page++) {
        g_assert_true(split_sender_push(s, &e));
    }
    g_assert_cmpint(split_sender_sync(s, LONG_MS), ==, SPLIT_SENDER_ERROR);
    assert_failed(s, h->uri, "memory");
    split_sender_close(s, true);
    finish();
    host_free(h);
}

static void test_no_such_host(void)
{
    SplitSender *s = start("unix:/nonexistent/socket", 0);

    assert_failed(s, "unix:/nonexistent/socket", "/nonexistent");
    split_sender_close(s, true);
    finish();
}

/* Somebody who accepts and never answers */
static void test_silent(void)
{
    Host *h = host_new(0);
    SplitSender *s = start(h->uri, 100);

    assert_failed(s, h->uri, "no answer");
    split_sender_close(s, false);
    finish();

    /* Neither who yanks */
    s = start(h->uri, 5000);
    split_sender_yank(s);
    g_assert_cmpint(split_sender_wait(s, 0), ==, SPLIT_SENDER_FAILED);
    split_sender_close(s, false);

    /* Whoever closes need not wait for the timeout */
    s = start(h->uri, 500);
    g_assert_cmpint(split_sender_wait(s, 0), ==, SPLIT_SENDER_CONNECTING);
    split_sender_close(s, false);
    finish();
    host_free(h);
}

/*
 * A memory host that stops reading in the middle: a proxy of which the far
 * end is read no more.  The one who pushes need not wait, the sender fails at
 * its timeout, and close does not wait for it.  One who has nothing to push
 * learns it, too.
 */
typedef enum Stall {
    STALL_FAILS,
    STALL_CLOSED,
    STALL_UNDER_WAY,            /* there is room for all in the socket */
    STALL_IDLE,
} Stall;

static void test_stall(Stall how)
{
    g_autofree uint8_t *ram = g_malloc(SPLIT_PAGE_SIZE);
    Host *h = host_new(PAGES * 100);
    Host *front = host_new(0);
    g_autoptr(SocketAddress) addr = socket_parse(h->uri, &error_abort);
    QIOChannelSocket *back = qio_channel_socket_new();
    bool fails = how == STALL_FAILS || how == STALL_IDLE;
    SplitSender *s = start(front->uri, fails ? STALL_MS : LONG_MS);
    struct pollfd pfd[2] = { { .events = POLLIN }, { .events = POLLIN } };
    SplitEntry e = { .data = ram };
    uint8_t buf[4096];

    memset(ram, 1, SPLIT_PAGE_SIZE);
    pfd[0].fd = qemu_accept(front->silent, NULL, NULL);
    g_assert_cmpint(pfd[0].fd, >=, 0);
    qio_channel_socket_connect_sync(back, addr, &error_abort);
    pfd[1].fd = back->fd;
    while (split_sender_wait(s, 0) == SPLIT_SENDER_CONNECTING) {
        if (poll(pfd, 2, 1) <= 0) {
            continue;
        }
        for (unsigned i = 0; i < 2; i++) {
            if (pfd[i].revents & POLLIN) {
                ssize_t n = read(pfd[i].fd, buf, sizeof(buf));

                g_assert_cmpint(n, >, 0);
                g_assert_cmpint(qemu_write_full(pfd[!i].fd, buf, n), ==, n);
            }
        }
    }
    /* From here on, nothing is read */
    while (how < STALL_UNDER_WAY && e.version < 8 * SPLIT_SENDER_QUEUE &&
           split_sender_push(s, &e)) {
        e.version++;
    }
    while (how == STALL_IDLE && split_sender_wait(s, 0) == SPLIT_SENDER_READY) {
        g_usleep(1000);
    }
    if (how == STALL_CLOSED) {
        g_assert_cmpuint(e.version, ==, 8 * SPLIT_SENDER_QUEUE);
        g_assert_false(split_sender_has_room(s, 1));
        g_assert_cmpint(split_sender_sync(s, 0), ==, SPLIT_SENDER_LATER);
        g_assert_cmpint(split_sender_drain(s, 0, 0), ==, SPLIT_SENDER_LATER);
        split_sender_close(s, false);
        /* The sanitizers see a read after this */
        g_clear_pointer(&ram, g_free);
    } else if (how == STALL_UNDER_WAY) {
        g_assert_true(split_sender_push(s, &e));
        g_assert_cmpint(split_sender_drain(s, 0, LONG_MS), ==,
                        SPLIT_SENDER_DONE);
        g_assert_cmpint(split_sender_wait_acked(s, 10), ==, SPLIT_SENDER_LATER);
        split_sender_close(s, false);
    } else {
        assert_failed(s, front->uri, "no answer");
        g_assert_false(split_sender_push(s, &e));
        split_sender_close(s, false);
    }
    finish();
    close(pfd[0].fd);
    object_unref(OBJECT(back));
    host_free(front);
    host_free(h);
}

static void test_stall_fails(void)
{
    test_stall(STALL_FAILS);
}

static void test_stall_closed(void)
{
    test_stall(STALL_CLOSED);
}

static void test_stall_under_way(void)
{
    test_stall(STALL_UNDER_WAY);
}

static void test_stall_idle(void)
{
    test_stall(STALL_IDLE);
}

/* An idle sender, too, notices that its memory host has gone */
static void test_server_gone(void)
{
    Host *h = host_new(PAGES);
    SplitSender *s = start_ready(h);

    host_stop(h);
    assert_failed(s, h->uri, "");
    split_sender_close(s, true);
    finish();
    host_free(h);
}

static void test_yank(void)
{
    Host *h = host_new(PAGES);
    SplitSender *s = start_ready(h);

    split_sender_yank(s);
    assert_failed(s, h->uri, "");
    split_sender_close(s, true);
    finish();
    g_assert_cmpuint(ms_server_sessions(h->server), ==, 0);
    host_free(h);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/strategy/split/sender/last-version", test_last_version);
    g_test_add_func("/strategy/split/sender/sync-again", test_sync_again);
    g_test_add_func("/strategy/split/sender/end-taken", test_end_taken);
    g_test_add_func("/strategy/split/sender/full", test_full);
    g_test_add_func("/strategy/split/sender/full-sync", test_full_sync);
    g_test_add_func("/strategy/split/sender/no-such-host", test_no_such_host);
    g_test_add_func("/strategy/split/sender/silent", test_silent);
    g_test_add_func("/strategy/split/sender/stall-fails", test_stall_fails);
    g_test_add_func("/strategy/split/sender/stall-closed", test_stall_closed);
    g_test_add_func("/strategy/split/sender/stall-under-way",
                    test_stall_under_way);
    g_test_add_func("/strategy/split/sender/stall-idle", test_stall_idle);
    g_test_add_func("/strategy/split/sender/server-gone", test_server_gone);
    g_test_add_func("/strategy/split/sender/yank", test_yank);
    return g_test_run();
}
