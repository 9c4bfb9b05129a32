/*
 * Redirect: the channel to a new destination, before the stream goes there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/aio-wait.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/bswap.h"
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

struct RedirectConnect {
    SocketAddress *addr;
    QIOChannelSocket *sioc;
    QIOChannelTLS *tioc;        /* or NULL */
    int64_t start_ms;
    int64_t end_ms;
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

static void *connect_thread(void *opaque)
{
    RedirectConnect *c = opaque;

    if (qio_channel_socket_connect_sync(c->sioc, c->addr, &c->err) == 0 &&
        c->tioc && !qatomic_read(&c->dropped)) {
        /* The socket blocks, so the handshake has ended on return */
        qio_channel_tls_handshake(c->tioc, handshake_ended, c, NULL, NULL);
    }
    c->end_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
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

RedirectConnect *redirect_connect_start(const SocketAddress *addr,
                                        void (*done)(void *opaque),
                                        void *opaque, Error **errp)
{
    RedirectConnect *c = g_new0(RedirectConnect, 1);
    QemuThread thread;

    c->addr = QAPI_CLONE(SocketAddress, addr);
    c->sioc = qio_channel_socket_new();
    qio_channel_set_name(QIO_CHANNEL(c->sioc), "migration-redirect");
    c->done = done;
    c->opaque = opaque;
    if (redirect_fault("before-connect")) {
        error_setg(errp, "fault point 'before-connect'");
        connect_free(c);
        return NULL;
    }
    if (!connect_prepare_tls(c, errp)) {
        connect_free(c);
        return NULL;
    }
    c->start_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    qemu_thread_create(&thread, "mig/redirect", connect_thread, c,
                       QEMU_THREAD_DETACHED);
    return c;
}

QIOChannel *redirect_connect_take(RedirectConnect *c, int64_t *ms,
                                  Error **errp)
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
    *ms = c->end_ms - c->start_ms;
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

static QIOChannelSocket *socket_below(QIOChannel *ioc)
{
    QIOChannelTLS *tioc =
        (QIOChannelTLS *)object_dynamic_cast(OBJECT(ioc),
                                             TYPE_QIO_CHANNEL_TLS);

    return (QIOChannelSocket *)
        object_dynamic_cast(OBJECT(tioc ? tioc->master : ioc),
                            TYPE_QIO_CHANNEL_SOCKET);
}

bool redirect_same_peer(QIOChannel *a, QIOChannel *b)
{
    QIOChannelSocket *sa = socket_below(a), *sb = socket_below(b);

    return sa && sb && sa->remoteAddrLen &&
           sa->remoteAddrLen == sb->remoteAddrLen &&
           sa->remoteAddrLen > sizeof(sa_family_t) &&
           !memcmp(&sa->remoteAddr, &sb->remoteAddr, sa->remoteAddrLen);
}

struct RedirectHandshake {
    QIOChannel *ioc;
    QemuThread thread;

    QemuMutex lock;
    RedirectAnswer answer;
    RedirectReady ready;
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
    bool ok = read_answer(h->ioc, &ready, &err);

    QEMU_LOCK_GUARD(&h->lock);
    if (ok) {
        h->ready = ready;
    }
    h->err = err;
    h->answer = ok ? REDIRECT_ANSWER_READY : REDIRECT_ANSWER_NO;
    return NULL;
}

RedirectHandshake *redirect_handshake_start(QIOChannel *ioc)
{
    RedirectHandshake *h = g_new0(RedirectHandshake, 1);

    h->ioc = ioc;
    qemu_mutex_init(&h->lock);
    qemu_thread_create(&h->thread, "mig/redirect-rp", handshake_thread, h,
                       QEMU_THREAD_JOINABLE);
    return h;
}

RedirectAnswer redirect_handshake_poll(RedirectHandshake *h,
                                       RedirectReady *ready, Error **errp)
{
    QEMU_LOCK_GUARD(&h->lock);
    if (h->answer == REDIRECT_ANSWER_READY) {
        *ready = h->ready;
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
    if (redirect_handshake_poll(h, &(RedirectReady) {}, NULL) ==
        REDIRECT_ANSWER_NONE) {
        qio_channel_shutdown(h->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
    qemu_thread_join(&h->thread);
    qemu_mutex_destroy(&h->lock);
    error_free(h->err);
    g_free(h);
}
