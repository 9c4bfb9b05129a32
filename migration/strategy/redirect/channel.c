/*
 * Redirect: the channel to a new destination, before the stream goes there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/ioctl.h>
#ifdef CONFIG_LINUX
#include <linux/sockios.h>
#endif
#include "block/aio.h"
#include "block/aio-wait.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "io/dns-resolver.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "migration/channel.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/strategy.h"
#include "migration/tls.h"
#include "channel.h"
#include "fault.h"

/* Of the return path, in migration.c */
#define RP_PONG 2

struct RedirectConnect {
    SocketAddress *addr;
    QIOChannelSocket *sioc;
    QIOChannelTLS *tioc;        /* or NULL */
    SocketAddress *not_to;      /* or NULL */
    Error *err;
    bool dropped;               /* atomic */

    /* Main thread only */
    bool ended;
    void (*done)(void *opaque);
    void *opaque;
};

static void connect_free(RedirectConnect *c)
{
    if (c->tioc) {
        object_unref(OBJECT(c->tioc));
    }
    object_unref(OBJECT(c->sioc));
    qapi_free_SocketAddress(c->addr);
    qapi_free_SocketAddress(c->not_to);
    error_free(c->err);
    g_free(c);
}

static void connect_ended_bh(void *opaque)
{
    RedirectConnect *c = opaque;

    c->ended = true;
    if (c->dropped) {
        connect_free(c);
        return;
    }
    c->done(c->opaque);
}

static void handshake_ended(QIOTask *task, gpointer opaque)
{
    RedirectConnect *c = opaque;

    qio_task_propagate_error(task, &c->err);
}

/* An IPv4 address may be written as one of IPv6 */
static const char *bare_host(const SocketAddress *a)
{
    const char *host = a->u.inet.host;

    strstart(host, "::ffff:", &host);
    return host;
}

static bool same_inet(const SocketAddress *a, const SocketAddress *b)
{
    return a->type == SOCKET_ADDRESS_TYPE_INET &&
           b->type == SOCKET_ADDRESS_TYPE_INET &&
           g_str_equal(bare_host(a), bare_host(b)) &&
           g_str_equal(a->u.inet.port, b->u.inet.port);
}

/* Is it where the migration goes already, under whatever name? */
static bool connect_allowed(RedirectConnect *c)
{
    SocketAddress **addrs;
    bool same = false;
    size_t n;

    if (!c->not_to || c->addr->type != SOCKET_ADDRESS_TYPE_INET) {
        return true;
    }
    if (qio_dns_resolver_lookup_sync(qio_dns_resolver_get_instance(), c->addr,
                                     &n, &addrs, &c->err) < 0) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        same |= same_inet(addrs[i], c->not_to);
        qapi_free_SocketAddress(addrs[i]);
    }
    g_free(addrs);
    if (same) {
        error_setg(&c->err, "the migration goes there already");
    }
    return !same;
}

static void *connect_thread(void *opaque)
{
    RedirectConnect *c = opaque;

    if (connect_allowed(c) &&
        qio_channel_socket_connect_sync(c->sioc, c->addr, &c->err) == 0 &&
        c->tioc && !qatomic_read(&c->dropped)) {
        /* The socket blocks, so the handshake has ended on return */
        qio_channel_tls_handshake(c->tioc, handshake_ended, c, NULL, NULL);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), connect_ended_bh, c);
    return NULL;
}

/* The TLS session over the socket, before that is connected */
static bool connect_prepare_tls(RedirectConnect *c, Error **errp)
{
    const char *hostname = c->addr->type == SOCKET_ADDRESS_TYPE_INET ?
                           c->addr->u.inet.host : NULL;

    if (!migrate_channel_requires_tls_upgrade(QIO_CHANNEL(c->sioc))) {
        return true;
    }
    c->tioc = migration_tls_client_create(QIO_CHANNEL(c->sioc), hostname,
                                          errp);
    if (!c->tioc) {
        return false;
    }
    qio_channel_set_name(QIO_CHANNEL(c->tioc), "migration-redirect-tls");
    return true;
}

static QIOChannelSocket *socket_below(QIOChannel *ioc)
{
    QIOChannelTLS *tioc =
        (QIOChannelTLS *)object_dynamic_cast(OBJECT(ioc),
                                             TYPE_QIO_CHANNEL_TLS);

    return (QIOChannelSocket *)
        object_dynamic_cast(OBJECT(tioc ? tioc->master : ioc),
                            TYPE_QIO_CHANNEL_SOCKET);
}

RedirectConnect *redirect_connect_start(const SocketAddress *addr,
                                        QIOChannel *not_to,
                                        void (*done)(void *opaque),
                                        void *opaque, Error **errp)
{
    RedirectConnect *c = g_new0(RedirectConnect, 1);
    QIOChannelSocket *other = not_to ? socket_below(not_to) : NULL;
    QemuThread thread;

    c->addr = QAPI_CLONE(SocketAddress, addr);
    c->sioc = qio_channel_socket_new();
    qio_channel_set_name(QIO_CHANNEL(c->sioc), "migration-redirect");
    c->done = done;
    c->opaque = opaque;
    if (other && other->remoteAddrLen) {
        c->not_to = qio_channel_socket_get_remote_address(other, NULL);
    }
    if (redirect_fault("before-connect")) {
        error_setg(errp, "fault point 'before-connect'");
        connect_free(c);
        return NULL;
    }
    if (!connect_prepare_tls(c, errp)) {
        connect_free(c);
        return NULL;
    }
    qemu_thread_create(&thread, "mig/redirect", connect_thread, c,
                       QEMU_THREAD_DETACHED);
    return c;
}

QIOChannel *redirect_connect_take(RedirectConnect *c, Error **errp)
{
    QIOChannel *ioc = c->tioc ? QIO_CHANNEL(c->tioc) : QIO_CHANNEL(c->sioc);

    assert(c->ended);
    if (c->err) {
        error_propagate(errp, error_copy(c->err));
        return NULL;
    }
    if (redirect_fault("after-connect")) {
        error_setg(errp, "fault point 'after-connect'");
        return NULL;
    }
    return QIO_CHANNEL(object_ref(OBJECT(ioc)));
}

void redirect_connect_drop(RedirectConnect *c)
{
    if (!c) {
        return;
    }
    if (c->ended) {
        connect_free(c);
        return;
    }
    qatomic_set_mb(&c->dropped, true);
    /* Not connected yet: then the thread sees that it was dropped */
    if (c->sioc->fd >= 0) {
        qio_channel_shutdown(QIO_CHANNEL(c->sioc), QIO_CHANNEL_SHUTDOWN_BOTH,
                             NULL);
    }
}

bool redirect_same_peer(QIOChannel *a, QIOChannel *b)
{
    QIOChannelSocket *sa = socket_below(a), *sb = socket_below(b);

    return sa && sb && sa->remoteAddrLen &&
           sa->remoteAddrLen == sb->remoteAddrLen &&
           sa->remoteAddrLen > sizeof(sa_family_t) &&
           !memcmp(&sa->remoteAddr, &sb->remoteAddr, sa->remoteAddrLen);
}

bool redirect_peer_left(QIOChannel *ioc)
{
#ifdef POLLRDHUP
    QIOChannelSocket *sioc = socket_below(ioc);
    struct pollfd fd = { .events = POLLRDHUP };

    if (sioc) {
        fd.fd = sioc->fd;
        return poll(&fd, 1, 0) == 1;
    }
#endif
    return false;
}

uint64_t redirect_unsent(QIOChannel *ioc)
{
    int n = 0;

#ifdef SIOCOUTQ
    QIOChannelSocket *sioc = socket_below(ioc);

    if (!sioc || ioctl(sioc->fd, SIOCOUTQ, &n) < 0) {
        return 0;
    }
#endif
    return n;
}

struct RedirectHandshake {
    QIOChannel *ioc;
    uint8_t *setup;
    size_t len, ping;
    QemuThread thread;

    QemuMutex lock;
    RedirectAnswer answer;
    RedirectReady ready;
    int64_t rtt_ms;
    Error *err;
};

/* One message of the return path; NULL with @errp when it broke off */
static uint8_t *read_message(QIOChannel *ioc, uint16_t *type, uint16_t *len,
                             Error **errp)
{
    g_autofree uint8_t *buf = NULL;
    uint8_t head[4];

    if (qio_channel_read_all(ioc, (char *)head, sizeof(head), errp) < 0) {
        return NULL;
    }
    *type = lduw_be_p(head);
    *len = lduw_be_p(head + 2);
    buf = g_malloc(*len + 1);
    if (*len && qio_channel_read_all(ioc, (char *)buf, *len, errp) < 0) {
        return NULL;
    }
    return g_steal_pointer(&buf);
}

/* Write up to the PING, and see how long the PONG takes */
static bool measure_rtt(RedirectHandshake *h, int64_t *rtt_ms, Error **errp)
{
    int64_t start;
    uint16_t type, len;

    if (qio_channel_write_all(h->ioc, (char *)h->setup, h->ping, errp) < 0) {
        return false;
    }
    start = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    do {
        g_autofree uint8_t *buf = read_message(h->ioc, &type, &len, errp);

        if (!buf) {
            error_prepend(errp, "it gave up while it read the set-up, its log "
                          "says why: ");
            return false;
        }
    } while (type != RP_PONG);
    *rtt_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - start;
    return true;
}

static bool write_rest(RedirectHandshake *h, Error **errp)
{
    return qio_channel_write_all(h->ioc, (char *)h->setup + h->ping,
                                 h->len - h->ping, errp) == 0;
}

/* Read up to the answer; false when there will be none */
static bool read_answer(QIOChannel *ioc, RedirectReady *ready, Error **errp)
{
    while (true) {
        g_autofree uint8_t *buf = NULL;
        uint16_t type, len;
        RedirectRp rp;

        buf = read_message(ioc, &type, &len, errp);
        if (!buf) {
            error_prepend(errp, "it gave up while it read the set-up, its log "
                          "says why: ");
            return false;
        }
        if (type != STRATEGY_RP_TYPE) {
            /* PONG, or that it does not object to the switchover */
            continue;
        }
        if (!redirect_rp_decode(&rp, NULL, buf, len, errp)) {
            return false;
        }
        if (rp.type == REDIRECT_RP_READY) {
            *ready = rp.ready;
            return true;
        }
        if (rp.type == REDIRECT_RP_REFUSED) {
            error_setg(errp, "it refused: %s", rp.sentence);
        } else {
            error_setg(errp, "it answered with message %u", rp.type);
        }
        return false;
    }
}

static void *handshake_thread(void *opaque)
{
    RedirectHandshake *h = opaque;
    RedirectReady ready;
    Error *err = NULL;
    int64_t rtt_ms;
    bool ok = measure_rtt(h, &rtt_ms, &err) && write_rest(h, &err) &&
              read_answer(h->ioc, &ready, &err);

    QEMU_LOCK_GUARD(&h->lock);
    if (ok) {
        h->ready = ready;
        h->rtt_ms = rtt_ms;
    }
    h->err = err;
    h->answer = ok ? REDIRECT_ANSWER_READY : REDIRECT_ANSWER_NO;
    return NULL;
}

RedirectHandshake *redirect_handshake_start(QIOChannel *ioc, uint8_t *setup,
                                            size_t len, size_t ping)
{
    RedirectHandshake *h = g_new0(RedirectHandshake, 1);

    h->ioc = ioc;
    h->setup = setup;
    h->len = len;
    h->ping = ping;
    qemu_mutex_init(&h->lock);
    qemu_thread_create(&h->thread, "mig/redirect-rp", handshake_thread, h,
                       QEMU_THREAD_JOINABLE);
    return h;
}

RedirectAnswer redirect_handshake_poll(RedirectHandshake *h,
                                       RedirectReady *ready, int64_t *rtt_ms,
                                       Error **errp)
{
    QEMU_LOCK_GUARD(&h->lock);
    if (h->answer == REDIRECT_ANSWER_READY) {
        *ready = h->ready;
        if (rtt_ms) {
            *rtt_ms = h->rtt_ms;
        }
    } else if (h->answer == REDIRECT_ANSWER_NO) {
        error_propagate(errp, error_copy(h->err));
    }
    return h->answer;
}

void redirect_handshake_free(RedirectHandshake *h)
{
    if (!h) {
        return;
    }
    if (redirect_handshake_poll(h, &(RedirectReady) {}, NULL, NULL) ==
        REDIRECT_ANSWER_NONE) {
        qio_channel_shutdown(h->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
    qemu_thread_join(&h->thread);
    qemu_mutex_destroy(&h->lock);
    error_free(h->err);
    g_free(h->setup);
    g_free(h);
}
