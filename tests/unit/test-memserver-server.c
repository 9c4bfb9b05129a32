/*
 * memserver: the server and the client library over socketpairs
 *
 * Proves: what is put comes back; refusals reach the one who can act on them
 * and change nothing; half messages, rubbish and vanishing peers leave no
 * frame behind; a peer that never reads holds up nobody; an old owner is shut
 * out in the middle of a message; a session ends wherever its connections are;
 * HELLO has a deadline; only a signal that is repeated soon ends the server.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "migration/memserver/client.h"
#include "migration/memserver/server.h"
#include "migration/memserver/slab.h"

#define PAGES   4096

#define THREADS 2

static MsServer *start_with(uint64_t max_pages, uint64_t quota,
                            int64_t hello_ms)
{
    MsServerOptions o;

    ms_server_defaults(&o);
    o.max_pages = max_pages;
    o.session_quota = quota;
    o.threads = THREADS;
    o.hello_ms = hello_ms;
    return ms_server_new(&o, &error_abort);
}

static MsServer *start(uint64_t max_pages, uint64_t quota)
{
    return start_with(max_pages, quota, 60000);
}

/* A connected socket whose other end the server has */
static int plug(MsServer *server)
{
    QIOChannelSocket *sioc;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    ms_server_add_channel(server, sioc);
    object_unref(OBJECT(sioc));
    return fds[1];
}

static PageLinkClient *try_connect(MsServer *server, char session,
                                   uint16_t flags, uint64_t epoch,
                                   uint32_t features, Error **errp)
{
    QIOChannelSocket *sioc = qio_channel_socket_new_fd(plug(server),
                                                       &error_abort);
    PageLinkClientOptions o = {
        .sioc = sioc, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_BACKGROUND, .flags = flags, .epoch = epoch,
        .features = features, .name = "test",
    };
    PageLinkClient *c;

    memset(o.uuid, session, sizeof(o.uuid));
    memset(o.key, session, sizeof(o.key));
    c = pagelink_client_connect(&o, errp);
    object_unref(OBJECT(sioc));
    return c;
}

static PageLinkClient *create(MsServer *server, char session,
                              uint32_t features)
{
    PageLinkClient *c = try_connect(server, session, PAGELINK_HELLO_CREATE, 1,
                                    features, &error_abort);

    pagelink_client_block(c, 0, PAGES, "ram", &error_abort);
    return c;
}

/* All peers gone: nothing may be left of what they held */
static void stop(MsServer *server, unsigned sessions)
{
    while (ms_server_connections(server)) {
        g_thread_yield();
    }
    g_assert_cmpuint(ms_server_sessions(server), ==, sessions);
    ms_server_free(server);
}

static void check_refused(bool ok, Error *err, const char *sentence)
{
    g_assert_false(ok);
    if (!strstr(error_get_pretty(err), sentence)) {
        g_test_message("expected '%s', got '%s'", sentence,
                       error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

/* The call first: it sets err */
#define refused(call, err, sentence) do {       \
        bool ok_ = !!(call);                    \
        check_refused(ok_, err, sentence);      \
    } while (0)

static void test_round_trip(void)
{
    g_autofree uint8_t *data = g_malloc(256 * PAGELINK_PAGE_SIZE);
    g_autofree uint8_t *back = g_malloc0(256 * PAGELINK_PAGE_SIZE);
    MsServer *server = start(100000, 0);
    uint32_t features;
    char name = 'a';

    for (features = 0; features <= PAGELINK_FEATURE_CHECKSUM; features++) {
        PageLinkClient *c = create(server, name++, features);
        PageLinkRange range = { .version = 9, .page = 3 * 200, .pages = 1 };
        PageLinkPage pages[256];
        uint8_t bits[PAGES / 8];
        PageLinkAck ack;
        int i;

        for (i = 0; i < 256; i++) {
            memset(data + i * PAGELINK_PAGE_SIZE, i, PAGELINK_PAGE_SIZE);
            pages[i] = (PageLinkPage) {
                .page = i * 3, .version = i,
                .data = i % 7 ? data + i * PAGELINK_PAGE_SIZE : NULL,
            };
        }
        g_assert_true(pagelink_client_put(c, pages, 256, &error_abort));
        g_assert_true(pagelink_client_sync(c, &ack, &error_abort));
        g_assert_cmpuint(ack.zero, ==, 37);
        g_assert_cmpuint(ack.stored, ==, 219);
        /* An older version is not taken, and told in the next ACK */
        pages[5].version = 4;
        pages[5].data = data;
        g_assert_true(pagelink_client_put(c, &pages[5], 1, &error_abort));
        /* A page full of zeroes is as good as a zero page */
        pages[6].version = 7;
        pages[6].data = back;
        g_assert_true(pagelink_client_put(c, &pages[6], 1, &error_abort));
        range.version = 200;
        g_assert_true(pagelink_client_drop(c, &range, 1, &error_abort));
        g_assert_true(pagelink_client_sync(c, &ack, &error_abort));
        g_assert_cmpuint(ack.stale, ==, 1);
        g_assert_cmpuint(ack.zero, ==, 38);
        g_assert_cmpuint(ack.dropped, ==, 1);

        for (i = 0; i < 256; i++) {
            pages[i] = (PageLinkPage) {
                .page = i * 3, .data = back + i * PAGELINK_PAGE_SIZE
            };
        }
        g_assert_true(pagelink_client_get(c, pages, 256, &error_abort));
        for (i = 0; i < 256; i++) {
            uint16_t want = i % 7 && i != 6 ? 0 : PAGELINK_ENTRY_ZERO;

            want = i == 200 ? PAGELINK_ENTRY_ABSENT : want;
            g_assert_cmpuint(pages[i].flags & ~PAGELINK_ENTRY_CRC, ==, want);
            g_assert_cmpuint(pages[i].version, ==, i == 6 ? 7 : i);
            if (!want) {
                g_assert_cmpmem(pages[i].data, PAGELINK_PAGE_SIZE,
                                data + i * PAGELINK_PAGE_SIZE,
                                PAGELINK_PAGE_SIZE);
            }
        }
        g_assert_true(pagelink_client_bitmap(c, 0, 0, PAGES, bits,
                                             &error_abort));
        for (i = 0; i < PAGES; i++) {
            g_assert_cmpint(bits[i / 8] >> (i % 8) & 1, ==,
                            i % 3 == 0 && i < 768 && i != 600);
        }
        memset(back, 0, 256 * PAGELINK_PAGE_SIZE);
        g_assert_true(pagelink_client_end(c, &error_abort));
        pagelink_client_free(c);
    }
    g_assert_cmpuint(ms_server_sessions(server), ==, 0);
    stop(server, 0);
}

static void count_done(void *opaque, const PageLinkFault *error)
{
    g_assert_null(error);
    (*(unsigned *)opaque)++;
}

/* Requests under way are answered in order, from callbacks too */
static void test_async(void)
{
    g_autofree uint8_t *back = g_malloc0(64 * PAGELINK_PAGE_SIZE);
    MsServer *server = start(100000, 0);
    PageLinkClient *c = create(server, 'a', 0);
    PageLinkPage pages[64];
    unsigned done = 0, i;

    for (i = 0; i < 64; i++) {
        memset(back, i + 1, PAGELINK_PAGE_SIZE);
        pages[i] = (PageLinkPage) { .page = i, .version = 1, .data = back };
        pagelink_client_put(c, &pages[i], 1, &error_abort);
    }
    for (i = 0; i < 64; i++) {
        pages[i].data = back + i * PAGELINK_PAGE_SIZE;
        g_assert_true(pagelink_client_get_async(c, &pages[i], 1, count_done,
                                                &done, &error_abort));
    }
    while (done < 64) {
        g_assert_true(pagelink_client_poll(c, -1, &error_abort));
    }
    g_assert_cmpuint(pagelink_client_outstanding(c), ==, 0);
    for (i = 0; i < 64; i++) {
        g_assert_cmpuint(back[i * PAGELINK_PAGE_SIZE + 4095], ==, i + 1);
    }
    pagelink_client_free(c);
    stop(server, 1);
}

/* Both ends of a TCP connection */
static void tcp_pair(int fds[2])
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(listener, >=, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&addr, len), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    g_assert_cmpint(getsockname(listener, (struct sockaddr *)&addr, &len), ==,
                    0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    g_assert_cmpint(connect(fds[0], (struct sockaddr *)&addr, len), ==, 0);
    fds[1] = accept(listener, NULL, NULL);
    g_assert_cmpint(fds[1], >=, 0);
    close(listener);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    g_assert_cmpint(getsockopt(fd, level, name, &value, &len), ==, 0);
    return value;
}

/* Idle links are probed from both ends, from the client's within a minute */
static void test_idle(void)
{
    MsServer *server = start(1000, 0);
    PageLinkClientOptions o = {
        .role = PAGELINK_ROLE_OWNER, .class = PAGELINK_CLASS_BACKGROUND,
        .flags = PAGELINK_HELLO_CREATE, .epoch = 1, .name = "test",
    };
    QIOChannelSocket *sioc;
    PageLinkClient *c;
    int fds[2], served;

    tcp_pair(fds);
    served = dup(fds[1]);
    sioc = qio_channel_socket_new_fd(fds[1], &error_abort);
    ms_server_add_channel(server, sioc);
    object_unref(OBJECT(sioc));
    o.sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    c = pagelink_client_connect(&o, &error_abort);
    object_unref(OBJECT(o.sioc));
    g_assert_cmpint(option(served, SOL_SOCKET, SO_KEEPALIVE), ==, 1);
    g_assert_cmpint(option(fds[0], SOL_SOCKET, SO_KEEPALIVE), ==, 1);
    g_assert_cmpint(option(fds[0], IPPROTO_TCP, TCP_KEEPIDLE) +
                    option(fds[0], IPPROTO_TCP, TCP_KEEPINTVL) *
                    option(fds[0], IPPROTO_TCP, TCP_KEEPCNT), <, 60);
    close(served);
    g_assert_true(pagelink_client_end(c, &error_abort));
    pagelink_client_free(c);
    ms_server_free(server);
}

static void test_refusals(void)
{
    uint8_t data[PAGELINK_PAGE_SIZE];
    PageLinkPage good = { .page = 1, .version = 1, .data = data };
    PageLinkPage batch[2] = { good, { .page = PAGES, .version = 1 } };
    PageLinkRange range = { .page = PAGES - 1, .pages = 2 };
    MsServer *server = start(100000, 0);
    PageLinkClient *c = create(server, 'a', 0);
    Error *err = NULL;

    memset(data, 1, sizeof(data));
    pagelink_client_put(c, batch, 2, &error_abort);
    refused(pagelink_client_sync(c, NULL, &err), err, "beyond block 0");
    batch[1] = (PageLinkPage) { .block = 5 };
    pagelink_client_put(c, batch, 2, &error_abort);
    err = NULL;
    refused(pagelink_client_sync(c, NULL, &err), err, "block 5 is unknown");
    err = NULL;
    refused(pagelink_client_get(c, batch, 2, &err), err, "is unknown");
    pagelink_client_drop(c, &range, 1, &error_abort);
    err = NULL;
    refused(pagelink_client_sync(c, NULL, &err), err, "beyond block 0");
    err = NULL;
    refused(pagelink_client_block(c, 0, PAGES + 1, "ram", &err), err,
            "another name or size");
    err = NULL;
    refused(pagelink_client_bitmap(c, 0, 1, PAGES, data, &err), err,
            "beyond block 0");
    /* The good half of a bad batch was not stored, the link still works */
    g_assert_true(pagelink_client_get(c, &good, 1, &error_abort));
    g_assert_cmpuint(good.flags, ==, PAGELINK_ENTRY_ABSENT);
    pagelink_client_free(c);
    stop(server, 1);
}

static void test_full(void)
{
    uint8_t data[PAGELINK_PAGE_SIZE];
    MsServer *server = start(300, 200);
    PageLinkClient *a = create(server, 'a', 0), *b = create(server, 'b', 0);
    PageLinkPage page = { .version = 1, .data = data };
    PageLinkRange all = { .version = 2, .pages = 256 };
    PageLinkAck ack;
    Error *err = NULL;

    memset(data, 1, sizeof(data));
    for (page.page = 0; page.page < 256; page.page++) {
        pagelink_client_put(a, &page, 1, &error_abort);
    }
    refused(pagelink_client_sync(a, NULL, &err), err, "quota of 200 pages");
    g_assert_cmpuint(pagelink_client_refusal(a), ==, PAGELINK_ERR_QUOTA);
    g_assert_true(pagelink_client_sync(a, &ack, &error_abort));
    g_assert_cmpuint(ack.stored, ==, 200 - 7);
    g_assert_cmpuint(ack.refused, ==, 256 - 193);
    for (page.page = 0; page.page < 256; page.page++) {
        pagelink_client_put(b, &page, 1, &error_abort);
    }
    err = NULL;
    refused(pagelink_client_sync(b, NULL, &err), err, "memory host is full");
    g_assert_cmpuint(pagelink_client_refusal(b), ==, PAGELINK_ERR_NO_MEMORY);
    g_assert_true(pagelink_client_sync(b, &ack, &error_abort));
    g_assert_cmpuint(ack.stored, ==, 100 - 7);
    /* What is there can be replaced, and what is dropped makes room */
    page.page = 3;
    page.version = 2;
    pagelink_client_put(b, &page, 1, &error_abort);
    g_assert_true(pagelink_client_sync(b, NULL, &error_abort));
    pagelink_client_drop(a, &all, 1, &error_abort);
    g_assert_true(pagelink_client_sync(a, NULL, &error_abort));
    page.page = 255;
    pagelink_client_put(b, &page, 1, &error_abort);
    g_assert_true(pagelink_client_sync(b, NULL, &error_abort));
    pagelink_client_free(a);
    pagelink_client_free(b);
    stop(server, 2);
}

static ssize_t read_full(int fd, void *buf, size_t length)
{
    return recv(fd, buf, length, MSG_WAITALL);
}

static ssize_t write_full(int fd, const void *buf, size_t length)
{
    return qemu_write_full(fd, buf, length);
}

/* Raw bytes: HELLO of an owner of session @session */
static void send_hello(int fd, char session)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkHello)];
    PageLinkHello hello = {
        .version_min = 1, .version_max = 1, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_BACKGROUND, .epoch = 1,
    };

    memset(hello.uuid, session, sizeof(hello.uuid));
    memset(hello.key, session, sizeof(hello.key));
    pagelink_encode_header(buf, PAGELINK_HELLO, 0, sizeof(hello), 0, 1);
    pagelink_encode_hello(buf + sizeof(PageLinkHeader), &hello);
    g_assert_cmpint(write_full(fd, buf, sizeof(buf)), ==, sizeof(buf));
}

/* A PUT of one page with all its bytes, of which the caller sends some */
static uint8_t *make_put(uint64_t page, uint8_t content, size_t *length)
{
    PageLinkEntry e = { .page = page, .version = 100 };
    uint8_t *buf;

    *length = sizeof(PageLinkHeader) + sizeof(e) + PAGELINK_PAGE_SIZE;
    buf = g_malloc(*length);
    pagelink_encode_header(buf, PAGELINK_PUT, 0,
                           *length - sizeof(PageLinkHeader), 1, 7);
    pagelink_encode_entry(buf + sizeof(PageLinkHeader), &e);
    memset(buf + *length - PAGELINK_PAGE_SIZE, content, PAGELINK_PAGE_SIZE);
    return buf;
}

static void put_many(PageLinkClient *c)
{
    uint8_t data[PAGELINK_PAGE_SIZE];
    PageLinkPage page = { .version = 1, .data = data };

    memset(data, 3, sizeof(data));
    for (page.page = 0; page.page < PAGES; page.page++) {
        pagelink_client_put(c, &page, 1, &error_abort);
    }
    g_assert_true(pagelink_client_sync(c, NULL, &error_abort));
}

/* A peer that stops after any number of bytes and goes: no effect at all */
static void test_half_messages(void)
{
    MsServer *server = start(100000, 0);
    PageLinkClient *c = create(server, 'a', 0);
    uint8_t back[PAGELINK_PAGE_SIZE];
    PageLinkPage page = { .page = 5, .version = 1, .data = back };
    size_t length, cut;
    g_autofree uint8_t *put = make_put(5, 0xee, &length);

    memset(back, 1, sizeof(back));
    pagelink_client_put(c, &page, 1, &error_abort);
    g_assert_true(pagelink_client_sync(c, NULL, &error_abort));
    for (cut = 0; cut < length; cut += cut < 60 ? 1 : 509) {
        int fd = plug(server);

        send_hello(fd, 'a');
        g_assert_cmpint(write_full(fd, put, cut), ==, cut);
        /* Not closed with its answer unread: that would throw away ours too */
        g_assert_cmpint(read_full(fd, back, 64), ==, 64);
        close(fd);
    }
    while (ms_server_connections(server) > 1) {
        g_thread_yield();
    }
    g_assert_true(pagelink_client_get(c, &page, 1, &error_abort));
    g_assert_cmpuint(page.version, ==, 1);
    g_assert_cmpuint(back[0], ==, 1);
    /* and one byte more makes all the difference */
    {
        int fd = plug(server);

        send_hello(fd, 'a');
        g_assert_cmpint(write_full(fd, put, length), ==, length);
        shutdown(fd, SHUT_WR);
        while (read(fd, back, sizeof(back)) > 0) {
            /* until the server has closed */
        }
        close(fd);
    }
    g_assert_true(pagelink_client_get(c, &page, 1, &error_abort));
    g_assert_cmpuint(page.version, ==, 100);
    g_assert_cmpuint(back[0], ==, 0xee);
    put_many(c);
    g_assert_cmpuint(ms_server_frames(server), >=, PAGES);
    g_assert_true(pagelink_client_end(c, &error_abort));
    pagelink_client_free(c);
    /* Nothing but what the threads, janitor included, have at hand */
    g_assert_cmpuint(ms_server_frames(server), <=,
                     (2 * THREADS + 1) * MS_FRAME_CACHE_SIZE);
    stop(server, 0);
}

/* The server says why, then closes */
static void test_rubbish(void)
{
    MsServer *server = start(100000, 0);
    PageLinkClient *c = create(server, 'a', 0);
    unsigned round, i;

    for (round = 0; round < 200; round++) {
        uint8_t buf[512], head[sizeof(PageLinkHeader)];
        int fd = plug(server);
        PageLinkFault fault;
        PageLinkHeader h;

        for (i = 0; i < sizeof(buf); i++) {
            buf[i] = g_test_rand_int();
        }
        if (round % 2) {
            send_hello(fd, 'a');
            g_assert_cmpint(read_full(fd, head, sizeof(head)), ==,
                            sizeof(head));
            g_assert_true(pagelink_decode_header(head, &h, &fault));
            g_assert_cmpuint(h.type, ==, PAGELINK_HELLO_ACK);
            g_assert_cmpint(read_full(fd, head, 24), ==, 24);
            g_assert_cmpint(read_full(fd, head, 16), ==, 16);
        }
        if (round % 4 > 1) {
            /* right magic, wrong rest */
            stl_be_p(buf, PAGELINK_MAGIC);
            stw_be_p(buf + 4, round);
            stw_be_p(buf + 6, 0x8000);
        }
        g_assert_cmpint(write_full(fd, buf, sizeof(buf)), ==,
                        sizeof(buf));
        g_assert_cmpint(read_full(fd, head, sizeof(head)), ==,
                        sizeof(head));
        g_assert_true(pagelink_decode_header(head, &h, &fault));
        g_assert_cmpuint(h.type, ==, PAGELINK_ERROR);
        g_assert_cmpuint(h.flags, ==, PAGELINK_ERROR_FATAL);
        g_assert_cmpint(read_full(fd, buf, h.length), ==, h.length);
        g_assert_true(pagelink_decode_error(&h, buf, &fault, &fault));
        g_assert_cmpuint(fault.code, ==, PAGELINK_ERR_PROTOCOL);
        g_assert_cmpint(read(fd, buf, 1), ==, 0);
        close(fd);
    }
    g_assert_true(pagelink_client_sync(c, NULL, &error_abort));
    pagelink_client_free(c);
    stop(server, 1);
}

/* Asks for ever and never reads */
static void test_never_reads(void)
{
    uint8_t get[sizeof(PageLinkHeader) + 256 * sizeof(PageLinkRequest)];
    MsServer *server = start(100000, 0);
    PageLinkClient *c = create(server, 'a', 0);
    uint8_t data[PAGELINK_PAGE_SIZE];
    PageLinkPage page = { .version = 1, .data = data };
    int fds[10], i, round;
    size_t sent = 0;

    memset(data, 1, sizeof(data));
    for (i = 0; i < 256; i++) {
        PageLinkRequest r = { .page = i };

        page.page = i;
        pagelink_client_put(c, &page, 1, &error_abort);
        pagelink_encode_request(get + sizeof(PageLinkHeader) +
                                i * sizeof(r), &r);
    }
    pagelink_encode_header(get, PAGELINK_GET, 0,
                           sizeof(get) - sizeof(PageLinkHeader), 256, 1);
    for (i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = plug(server);
        send_hello(fds[i], 'a');
        /* Until its own socket is full: the server has stopped reading */
        for (;;) {
            ssize_t n = send(fds[i], get, sizeof(get), MSG_DONTWAIT);

            if (n < (ssize_t)sizeof(get)) {
                break;
            }
            sent += n;
        }
    }
    g_assert_cmpuint(sent, >, 0);
    for (round = 0; round < 200; round++) {
        page.page = round;
        g_assert_true(pagelink_client_get(c, &page, 1, &error_abort));
    }
    for (i = 0; i < ARRAY_SIZE(fds); i++) {
        close(fds[i]);
    }
    g_assert_true(pagelink_client_end(c, &error_abort));
    pagelink_client_free(c);
    stop(server, 0);
}

/* The old owner is in the middle of a page when ownership moves on */
static void test_take_over(void)
{
    MsServer *server = start(100000, 0);
    PageLinkClient *old = create(server, 'a', 0), *new;
    uint8_t back[PAGELINK_PAGE_SIZE], buf[4096];
    PageLinkPage page = { .page = 5, .version = 1, .data = back };
    size_t length;
    g_autofree uint8_t *put = make_put(5, 0xee, &length);
    Error *err = NULL;
    int fd = plug(server);

    send_hello(fd, 'a');
    g_assert_cmpint(read_full(fd, buf, 64), ==, 64);
    g_assert_cmpint(write_full(fd, put, length - 1), ==, length - 1);
    new = try_connect(server, 'a', PAGELINK_HELLO_TAKE, 2, 0, &error_abort);
    g_assert_cmpuint(pagelink_client_info(new)->epoch, ==, 2);
    g_assert_cmpint(write_full(fd, put + length - 1, 1), ==, 1);
    g_assert_cmpint(read_full(fd, buf, 40), ==, 40);
    g_assert_cmpuint(lduw_be_p(buf + 4), ==, PAGELINK_ERROR);
    g_assert_cmpuint(ldl_be_p(buf + 24), ==, PAGELINK_ERR_STALE_EPOCH);
    close(fd);

    memset(back, 1, sizeof(back));
    pagelink_client_put(old, &page, 1, &error_abort);
    refused(pagelink_client_sync(old, NULL, &err), err, "cannot write");
    err = NULL;
    refused(pagelink_client_end(old, &err), err, "cannot end it");
    g_assert_true(pagelink_client_get(new, &page, 1, &error_abort));
    g_assert_cmpuint(page.flags, ==, PAGELINK_ENTRY_ABSENT);
    err = NULL;
    refused(try_connect(server, 'a', 0, 1, 0, &err), err, "cannot come back");
    /* Ending it closes the others with a word */
    g_assert_true(pagelink_client_end(new, &error_abort));
    while (pagelink_client_poll(old, -1, NULL)) {
        /* the word is on its way */
    }
    err = NULL;
    refused(pagelink_client_sync(old, NULL, &err), err, "ended by its owner");
    pagelink_client_free(old);
    pagelink_client_free(new);
    stop(server, 0);
}

/*
 * A session ends while connections of it are on their way from the thread that
 * has answered their HELLO to that of their class
 */
static void test_end_while_moving(void)
{
    MsServer *server = start(100000, 0);
    unsigned round, i;

    for (round = 0; round < 800; round++) {
        PageLinkClient *c = create(server, 'a', 0);
        uint8_t buf[4096];
        int fds[4];

        for (i = 0; i < ARRAY_SIZE(fds); i++) {
            fds[i] = plug(server);
            send_hello(fds[i], 'a');
        }
        /* Returns when the last connection has let go of it */
        g_assert_true(pagelink_client_end(c, &error_abort));
        pagelink_client_free(c);
        for (i = 0; i < ARRAY_SIZE(fds); i++) {
            while (read(fds[i], buf, sizeof(buf)) > 0) {
                /* whatever it was told before it was closed */
            }
            close(fds[i]);
        }
    }
    stop(server, 0);
}

/* Byte by byte, HELLO has no more time than at once */
static void test_slow_hello(void)
{
    MsServer *server = start_with(100000, 0, 200);
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkError)];
    struct pollfd pfd = { .fd = plug(server), .events = POLLIN };
    unsigned sent = 0;

    pagelink_encode_header(buf, PAGELINK_HELLO, 0, sizeof(PageLinkHello), 0,
                           5);
    while (poll(&pfd, 1, 50) == 0) {
        g_assert_cmpuint(sent, <, sizeof(PageLinkHeader) +
                                  sizeof(PageLinkHello) - 1);
        g_assert_cmpint(write_full(pfd.fd, sent < sizeof(PageLinkHeader) ?
                                   &buf[sent] : (uint8_t *)"\0", 1), ==, 1);
        sent++;
    }
    g_assert_cmpint(read_full(pfd.fd, buf, sizeof(buf)), ==, sizeof(buf));
    g_assert_cmpuint(lduw_be_p(buf + 4), ==, PAGELINK_ERROR);
    g_assert_cmpuint(ldl_be_p(buf + 24), ==, PAGELINK_ERR_TIMEOUT);
    close(pfd.fd);
    stop(server, 0);
}

/* An old refusal does not count: who asks again much later is told again */
static void test_may_stop(void)
{
    int64_t refused = 0;

    g_assert_true(ms_server_may_stop(0, 1000, &refused));
    g_assert_false(ms_server_may_stop(1, 2000, &refused));
    g_assert_true(ms_server_may_stop(1, 2000, &refused));
    g_assert_true(ms_server_may_stop(1, 62000, &refused));
    g_assert_false(ms_server_may_stop(1, 62001, &refused));
    g_assert_true(ms_server_may_stop(1, 62002, &refused));
    g_assert_true(ms_server_may_stop(0, 900000, &refused));
    g_assert_false(ms_server_may_stop(1, 900000, &refused));
}

typedef struct Loader {
    MsServer *server;
    QemuThread thread;
    unsigned id;
} Loader;

/* Own session each, all at once, until nothing must be left */
static void *loader_main(void *opaque)
{
    Loader *l = opaque;
    PageLinkClient *c = create(l->server, 'a' + l->id, l->id % 2);
    g_autofree uint8_t *data = g_malloc(64 * PAGELINK_PAGE_SIZE);
    PageLinkPage pages[64];
    unsigned round, i;

    for (round = 1; round <= 20; round++) {
        for (i = 0; i < 64; i++) {
            uint8_t *p = data + i * PAGELINK_PAGE_SIZE;

            memset(p, round + i + l->id, PAGELINK_PAGE_SIZE);
            pages[i] = (PageLinkPage) {
                .page = i * 31, .version = round, .data = p
            };
        }
        pagelink_client_put(c, pages, 64, &error_abort);
        memset(data, 0, 64 * PAGELINK_PAGE_SIZE);
        /* PUT's buffers can be used again as soon as it returns */
        g_assert_true(pagelink_client_get(c, pages, 64, &error_abort));
        for (i = 0; i < 64; i++) {
            uint8_t *p = pages[i].data;

            g_assert_cmpuint(pages[i].version, ==, round);
            g_assert_cmpuint(p[17], ==, (uint8_t)(round + i + l->id));
        }
    }
    g_assert_true(pagelink_client_end(c, &error_abort));
    pagelink_client_free(c);
    return NULL;
}

static void test_many(void)
{
    MsServer *server = start(100000, 0);
    Loader loaders[8];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(loaders); i++) {
        loaders[i] = (Loader) { .server = server, .id = i };
        qemu_thread_create(&loaders[i].thread, "loader", loader_main,
                           &loaders[i], QEMU_THREAD_JOINABLE);
    }
    for (i = 0; i < ARRAY_SIZE(loaders); i++) {
        qemu_thread_join(&loaders[i].thread);
    }
    stop(server, 0);
}

/* Stopping with live sessions and open connections: peers hear of it */
static void test_shutdown(void)
{
    MsServer *server = start(100000, 0);
    PageLinkClient *c = create(server, 'a', 0);
    Error *err = NULL;
    int fd = plug(server);

    ms_server_free(server);
    refused(pagelink_client_sync(c, NULL, &err), err, "is going away");
    pagelink_client_free(c);
    close(fd);
}

/* One who listens and never accepts: connecting ends with the timeout */
static void test_no_accept(void)
{
    g_autofree char *dir = g_dir_make_tmp("memserver-XXXXXX", NULL);
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    SocketAddress addr = { .type = SOCKET_ADDRESS_TYPE_UNIX };
    PageLinkClientOptions o = {
        .addr = &addr, .role = PAGELINK_ROLE_STATUS,
        .class = PAGELINK_CLASS_DEMAND, .timeout_ms = 50,
    };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), waiting[16];
    unsigned n = 0;
    Error *err = NULL;

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/sock", dir);
    addr.u.q_unix.path = sun.sun_path;
    g_assert_cmpint(bind(listener, (struct sockaddr *)&sun, sizeof(sun)), ==,
                    0);
    g_assert_cmpint(listen(listener, 0), ==, 0);
    do {
        g_assert_cmpuint(n, <, ARRAY_SIZE(waiting));
        waiting[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    } while (connect(waiting[n++], (struct sockaddr *)&sun,
                     sizeof(sun)) == 0);
    g_assert_cmpint(errno, ==, EAGAIN);

    refused(pagelink_client_connect(&o, &err), err,
            "no connection for 50 ms");

    /* This lets go of the connection that was given up */
    close(listener);
    while (n) {
        close(waiting[--n]);
    }
    unlink(sun.sun_path);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    signal(SIGPIPE, SIG_IGN);
    g_test_add_func("/memserver/server/round-trip", test_round_trip);
    g_test_add_func("/memserver/server/async", test_async);
    g_test_add_func("/memserver/server/idle", test_idle);
    g_test_add_func("/memserver/server/refusals", test_refusals);
    g_test_add_func("/memserver/server/full", test_full);
    g_test_add_func("/memserver/server/half-messages", test_half_messages);
    g_test_add_func("/memserver/server/rubbish", test_rubbish);
    g_test_add_func("/memserver/server/never-reads", test_never_reads);
    g_test_add_func("/memserver/server/take-over", test_take_over);
    g_test_add_func("/memserver/server/end-while-moving",
                    test_end_while_moving);
    g_test_add_func("/memserver/server/slow-hello", test_slow_hello);
    g_test_add_func("/memserver/server/may-stop", test_may_stop);
    g_test_add_func("/memserver/server/many", test_many);
    g_test_add_func("/memserver/server/shutdown", test_shutdown);
    g_test_add_func("/memserver/server/no-accept", test_no_accept);
    return g_test_run();
}
