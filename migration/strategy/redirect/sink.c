/*
 * Redirect: where the relay's pages arrive, at the new destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The sockets do not block; a thread that can do nothing waits for its socket
 * and for the notifier that stops all of them.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "io/channel-tls.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/sockets.h"
#include "sink-int.h"
#include "../trace.h"

/* How long figures may be old at the source */
#define FIGURES_MS      250
/* How long a peer is given to read that it is not needed any more */
#define LINGER_MS       2000

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

/* How long to wait for the peer until what was taken must be reported */
static int report_timeout(const SinkConn *c)
{
    if (!c->have.n) {
        return -1;
    }
    return MAX(0, c->have_since_ms + REDIRECT_SINK_REPORT_MS - now_ms());
}

typedef enum WaitResult { WAIT_READY, WAIT_TIMEOUT, WAIT_STOP } WaitResult;

/* Wait until @fd is ready for @events or the sink stops */
static WaitResult sink_wait(RedirectSink *sink, int fd, int events,
                            int timeout_ms)
{
    GPollFD fds[] = {
        { .fd = fd, .events = events },
        { .fd = event_notifier_get_fd(&sink->stop), .events = G_IO_IN },
    };

    if (g_poll(fds, 2, timeout_ms) < 0) {
        return errno == EINTR ? WAIT_READY : WAIT_STOP;
    }
    if (fds[1].revents) {
        return WAIT_STOP;
    }
    return fds[0].revents ? WAIT_READY : WAIT_TIMEOUT;
}

/* The same for a connection; reports what was taken when nothing comes */
static bool conn_wait(SinkConn *c, int events, int timeout_ms)
{
    int64_t end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;

    if (!c->joined) {
        /* In all, not for each byte */
        end = MIN(end, c->hello_end_ms);
    }
    for (;;) {
        int64_t left = end - now_ms();
        int report = report_timeout(c);
        int wait = timeout_ms < 0 ? -1 : MAX(left, 0);

        if (report >= 0 && (wait < 0 || report < wait)) {
            wait = report;
        }
        switch (sink_wait(c->sink, c->sioc->fd, events, wait)) {
        case WAIT_READY:
            return true;
        case WAIT_STOP:
            return false;
        case WAIT_TIMEOUT:
            sink_report_due(c);
            if (now_ms() >= end) {
                pagelink_fault(&c->fault, PAGELINK_ERR_TIMEOUT,
                               PAGELINK_NO_INDEX, "silent for %d ms",
                               timeout_ms);
                return sink_fail(c);
            }
        }
    }
}

bool sink_read(SinkConn *c, void *buf, size_t len, int timeout_ms)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = qio_channel_read(c->ioc, (char *)buf + done, len - done,
                                     NULL);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            if (!conn_wait(c, G_IO_IN, timeout_ms)) {
                return false;
            }
        } else if (n <= 0) {
            return false;
        } else {
            done += n;
            qatomic_add(&c->sink->bytes, n);
        }
        if (qatomic_read(&c->sink->stopping)) {
            return false;
        }
    }
    return true;
}

bool sink_write(SinkConn *c, const void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = qio_channel_write(c->ioc, (const char *)buf + done,
                                      len - done, NULL);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            if (!conn_wait(c, G_IO_OUT, REDIRECT_SINK_STALL_MS)) {
                return false;
            }
        } else if (n <= 0) {
            return false;
        } else {
            done += n;
        }
    }
    return true;
}

bool sink_reply(SinkConn *c, uint8_t *buf, uint16_t type, uint16_t flags,
                uint32_t length)
{
    pagelink_encode_header(buf, type, flags, length, 0, c->head.request_id);
    return sink_write(c, buf, sizeof(PageLinkHeader) + length);
}

bool sink_fail(SinkConn *c)
{
    c->fatal = true;
    c->fault_id = c->head.request_id;
    return false;
}

/* Tell the source how the relay does; with the sink's lock, for the order */
static void report_state(SinkConn *c)
{
    RedirectSink *sink = c->sink;
    uint8_t buf[REDIRECT_RP_MAX_LEN];
    RedirectRelay relay;

    redirect_sink_query(sink, &relay);
    c->figures_ms = now_ms();
    sink->report(buf, redirect_rp_encode_relay(buf, &relay), sink->opaque);
}

void sink_report_have(SinkConn *c)
{
    RedirectSink *sink = c->sink;
    uint8_t buf[REDIRECT_RP_MAX_LEN];

    if (!c->have.n) {
        return;
    }
    c->have.bits = c->have_bits;
    sink->report(buf, redirect_rp_encode_have(buf, &c->have), sink->opaque);
    memset(c->have_bits, 0, DIV_ROUND_UP(c->have.n, 8));
    c->have.n = 0;
    if (now_ms() - c->figures_ms >= FIGURES_MS) {
        QEMU_LOCK_GUARD(&sink->lock);
        report_state(c);
    }
}

void sink_report_due(SinkConn *c)
{
    if (report_timeout(c) == 0) {
        sink_report_have(c);
    }
}

void sink_join(SinkConn *c)
{
    RedirectSink *sink = c->sink;

    QEMU_LOCK_GUARD(&sink->lock);
    c->joined = true;
    sink->start_ms = sink->start_ms ?: now_ms();
    if (!sink->joined++ && !sink->ended) {
        sink->end_ms = 0;
        qatomic_set(&sink->state, REDIRECT_RELAY_CONNECTED);
        report_state(c);
    }
}

void sink_end_session(SinkConn *c)
{
    RedirectSink *sink = c->sink;

    QEMU_LOCK_GUARD(&sink->lock);
    sink->ended = true;
    sink->end_ms = now_ms();
    qatomic_set(&sink->state, REDIRECT_RELAY_DONE);
    report_state(c);
}

static void conn_leave(SinkConn *c)
{
    RedirectSink *sink = c->sink;

    sink_report_have(c);
    QEMU_LOCK_GUARD(&sink->lock);
    if (c->joined && !--sink->joined && !sink->ended && !sink->stopping) {
        sink->end_ms = now_ms();
        qatomic_set(&sink->state, REDIRECT_RELAY_LOST);
        report_state(c);
    }
}

typedef struct Handshake {
    bool done;
    bool good;
    SinkConn *conn;
} Handshake;

static void handshake_done(QIOTask *task, gpointer opaque)
{
    Handshake *h = opaque;

    h->done = true;
    h->good = !qio_task_propagate_error(task, NULL);
}

static gboolean handshake_ends(gpointer opaque)
{
    Handshake *h = opaque;

    qio_channel_shutdown(QIO_CHANNEL(h->conn->sioc),
                         QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    return G_SOURCE_REMOVE;
}

static gboolean handshake_stop(gint fd, GIOCondition what, gpointer opaque)
{
    return handshake_ends(opaque);
}

/* In a main context of its own, bounded by time and by the sink's end */
static bool conn_handshake(SinkConn *c)
{
    RedirectSink *sink = c->sink;
    g_autoptr(GMainContext) context = NULL;
    Handshake h = { .conn = c };
    QIOChannelTLS *tioc;
    GSource *timer, *stop;

    if (!sink->tls_creds) {
        return true;
    }
    tioc = qio_channel_tls_new_server(c->ioc, sink->tls_creds,
                                      sink->tls_authz, NULL);
    if (!tioc) {
        return false;
    }
    object_unref(OBJECT(c->ioc));
    c->ioc = QIO_CHANNEL(tioc);
    context = g_main_context_new();
    timer = g_timeout_source_new(REDIRECT_SINK_HELLO_MS);
    stop = g_unix_fd_source_new(event_notifier_get_fd(&sink->stop), G_IO_IN);
    g_source_set_callback(timer, handshake_ends, &h, NULL);
    g_source_set_callback(stop, G_SOURCE_FUNC(handshake_stop), &h, NULL);
    g_source_attach(timer, context);
    g_source_attach(stop, context);
    qio_channel_tls_handshake(tioc, handshake_done, &h, NULL, context);
    while (!h.done) {
        g_main_context_iteration(context, true);
    }
    g_source_destroy(timer);
    g_source_destroy(stop);
    g_source_unref(timer);
    g_source_unref(stop);
    return h.good;
}

/* The next message: its header and what is not pages */
static bool conn_read_message(SinkConn *c)
{
    uint8_t head[sizeof(PageLinkHeader)];
    int timeout = c->joined ? REDIRECT_SINK_STALL_MS : REDIRECT_SINK_HELLO_MS;

    c->head.request_id = 0;
    /* Between two messages, who has said HELLO may take its time */
    if (!sink_read(c, head, 1, c->joined ? -1 : timeout) ||
        !sink_read(c, head + 1, sizeof(head) - 1, timeout)) {
        return false;
    }
    if (!pagelink_decode_header(head, &c->head, &c->fault)) {
        c->head.request_id = 0;
        return sink_fail(c);
    }
    if (!sink_accepts(c)) {
        return sink_fail(c);
    }
    return sink_read(c, c->table, pagelink_table_length(&c->head), timeout);
}

/*
 * What became of it is told; wait a little until the peer has read that.  A
 * peer without the key is not waited for: it could keep any number of threads.
 */
static void conn_say_goodbye(SinkConn *c)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkError) +
                PAGELINK_MAX_ERROR_TEXT];
    int64_t end = now_ms() + LINGER_MS;
    uint32_t length;

    if (c->fatal) {
        length = pagelink_encode_error(buf + sizeof(PageLinkHeader),
                                       &c->fault);
        pagelink_encode_header(buf, PAGELINK_ERROR, PAGELINK_ERROR_FATAL,
                               length, 0, c->fault_id);
        /* Best effort: a peer that does not read will not read this either */
        qio_channel_write(c->ioc, (char *)buf, sizeof(PageLinkHeader) + length,
                          NULL);
    }
    qio_channel_shutdown(QIO_CHANNEL(c->sioc), QIO_CHANNEL_SHUTDOWN_WRITE,
                         NULL);
    while (c->pages && now_ms() < end) {
        GPollFD fd = { .fd = c->sioc->fd, .events = G_IO_IN };
        ssize_t n = recv(fd.fd, c->pages, SINK_READ_PAGES * PAGELINK_PAGE_SIZE,
                         MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            break;
        }
        if (n < 0) {
            g_poll(&fd, 1, end - now_ms());
        }
    }
}

static void conn_free(SinkConn *c)
{
    object_unref(OBJECT(c->ioc));
    object_unref(OBJECT(c->sioc));
    qemu_vfree(c->pages);
    g_free(c);
}

static void conn_serve(SinkConn *c)
{
    if (!conn_handshake(c) || !conn_read_message(c) || !sink_hello(c)) {
        return;
    }
    c->pages = qemu_memalign(PAGELINK_PAGE_SIZE,
                             SINK_READ_PAGES * PAGELINK_PAGE_SIZE);
    while (conn_read_message(c) && sink_request(c)) {
        /* Next */
    }
}

static void *conn_main(void *opaque)
{
    SinkConn *c = opaque;
    RedirectSink *sink = c->sink;
    bool shaken;

    conn_serve(c);
    conn_leave(c);
    shaken = !sink->tls_creds || c->joined;
    WITH_QEMU_LOCK_GUARD(&sink->lock) {
        if (sink->stopping && !c->fatal) {
            pagelink_fault(&c->fault, PAGELINK_ERR_SHUTDOWN,
                           PAGELINK_NO_INDEX,
                           "the relay is not needed any more");
            c->fault_id = 0;
            c->fatal = shaken;
        }
        trace_redirect_sink_leave(c->fatal ? c->fault.text : "closed",
                                  c->ack.stored, c->ack.zero, c->ack.stale);
        QTAILQ_REMOVE(&sink->conns, c, next);
        if (!--sink->connections) {
            qemu_cond_broadcast(&sink->idle);
        }
    }
    /* From here on, the sink may be gone */
    conn_say_goodbye(c);
    conn_free(c);
    return NULL;
}

/* Takes over @sioc; called with the lock held and with room */
static void conn_start(RedirectSink *sink, QIOChannelSocket *sioc)
{
    SinkConn *c = g_new0(SinkConn, 1);
    QemuThread thread;

    c->sink = sink;
    c->sioc = sioc;
    c->ioc = QIO_CHANNEL(sioc);
    object_ref(OBJECT(c->ioc));
    c->hello_end_ms = now_ms() + REDIRECT_SINK_HELLO_MS;
    qio_channel_set_blocking(c->ioc, false, NULL);
    qio_channel_set_delay(c->ioc, false);
    sink->connections++;
    QTAILQ_INSERT_TAIL(&sink->conns, c, next);
    qemu_thread_create(&thread, "redirect-sink", conn_main, c,
                       QEMU_THREAD_DETACHED);
}

/* Those that have not said HELLO shall not keep out the relay */
static void conns_make_room(RedirectSink *sink)
{
    SinkConn *c;

    QTAILQ_FOREACH(c, &sink->conns, next) {
        if (!c->joined) {
            qio_channel_shutdown(QIO_CHANNEL(c->sioc),
                                 QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
            return;
        }
    }
}

void redirect_sink_add_channel(RedirectSink *sink, QIOChannelSocket *sioc)
{
    QEMU_LOCK_GUARD(&sink->lock);
    if (sink->connections >= REDIRECT_SINK_MAX_CONNECTIONS) {
        conns_make_room(sink);
    }
    if (!sink->stopping &&
        sink->connections < 2 * REDIRECT_SINK_MAX_CONNECTIONS) {
        object_ref(OBJECT(sioc));
        conn_start(sink, sioc);
    }
}

static void *acceptor_main(void *opaque)
{
    RedirectSink *sink = opaque;
    int fd = sink->listener->fd;

    while (sink_wait(sink, fd, G_IO_IN, -1) == WAIT_READY) {
        QIOChannelSocket *sioc = qio_channel_socket_accept(sink->listener,
                                                           NULL);

        if (!sioc) {
            /* Nobody any more, or no descriptors: do not spin */
            sink_wait(sink, -1, 0, 100);
            continue;
        }
        redirect_sink_add_channel(sink, sioc);
        object_unref(OBJECT(sioc));
    }
    return NULL;
}

static bool sink_listen(RedirectSink *sink, const SocketAddress *listen,
                        Error **errp)
{
    SocketAddress *address;

    sink->listener = qio_channel_socket_new();
    if (qio_channel_socket_listen_sync(sink->listener, (SocketAddress *)listen,
                                       REDIRECT_SINK_MAX_CONNECTIONS,
                                       errp) < 0) {
        return false;
    }
    address = qio_channel_socket_get_local_address(sink->listener, errp);
    if (address) {
        sink->address = redirect_address_print(address, errp);
        qapi_free_SocketAddress(address);
    }
    return sink->address;
}

static void sink_destroy(RedirectSink *sink)
{
    object_unref(sink->listener);
    object_unref(OBJECT(sink->tls_creds));
    event_notifier_cleanup(&sink->stop);
    qemu_mutex_destroy(&sink->lock);
    qemu_cond_destroy(&sink->idle);
    g_free(sink->blocks.block);
    g_free(sink->tls_authz);
    g_free(sink->address);
    g_free(sink);
}

RedirectSink *redirect_sink_new(const RedirectSinkOptions *o, Error **errp)
{
    RedirectSink *sink = g_new0(RedirectSink, 1);
    int ret = event_notifier_init(&sink->stop, false);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "redirect: no event notifier");
        g_free(sink);
        return NULL;
    }
    /* The first use of a type is not for several threads at once */
    object_class_by_name(TYPE_QIO_CHANNEL_SOCKET);
    object_class_by_name(TYPE_QIO_CHANNEL_TLS);
    qemu_mutex_init(&sink->lock);
    qemu_cond_init(&sink->idle);
    QTAILQ_INIT(&sink->conns);
    sink->session = o->session;
    sink->blocks = *o->blocks;
    sink->blocks.block = g_memdup2(o->blocks->block, o->blocks->n *
                                   sizeof(*o->blocks->block));
    sink->merge = o->merge;
    sink->tls_creds = o->tls_creds;
    if (sink->tls_creds) {
        object_ref(OBJECT(sink->tls_creds));
    }
    sink->tls_authz = g_strdup(o->tls_authz);
    sink->report = o->report;
    sink->received = o->received;
    sink->opaque = o->opaque;
    if (o->listen) {
        if (!sink_listen(sink, o->listen, errp)) {
            sink_destroy(sink);
            return NULL;
        }
        trace_redirect_sink_listen(sink->address);
        qemu_thread_create(&sink->acceptor, "redirect-accept", acceptor_main,
                           sink, QEMU_THREAD_JOINABLE);
    }
    return sink;
}

const char *redirect_sink_address(const RedirectSink *sink)
{
    return sink->address;
}

void redirect_sink_query(RedirectSink *sink, RedirectRelay *relay)
{
    RedirectMergeCounts counts;

    redirect_merge_counts(sink->merge, &counts);
    *relay = (RedirectRelay) {
        .state = qatomic_read(&sink->state),
        .pages = counts.relay,
        .zero = counts.zero,
        .duplicates = counts.duplicates,
        .bytes = qatomic_read(&sink->bytes),
    };
}

uint64_t redirect_sink_rate(RedirectSink *sink)
{
    RedirectMergeCounts counts;
    int64_t ms;

    redirect_merge_counts(sink->merge, &counts);
    QEMU_LOCK_GUARD(&sink->lock);
    if (!sink->start_ms) {
        return 0;
    }
    ms = (sink->end_ms ?: now_ms()) - sink->start_ms;
    return (counts.relay + counts.duplicates) * PAGELINK_PAGE_SIZE * 1000 /
           MAX(ms, 1);
}

void redirect_sink_free(RedirectSink *sink)
{
    if (!sink) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&sink->lock) {
        qatomic_set(&sink->stopping, true);
    }
    event_notifier_set(&sink->stop);
    if (sink->listener) {
        qemu_thread_join(&sink->acceptor);
    }
    WITH_QEMU_LOCK_GUARD(&sink->lock) {
        while (sink->connections) {
            qemu_cond_wait(&sink->idle, &sink->lock);
        }
    }
    sink_destroy(sink);
}
