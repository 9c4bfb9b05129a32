/*
 * memserver: server (server-int.h describes its threads)
 *
 * Teardown, in this order: unpublish (no more accepts), stop (each I/O thread
 * tells its peers and returns), drain (joined), free (sessions, then frames).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "client.h"
#include "server-int.h"
#include "trace.h"

/* Sockets that are on the way: accepted or moving, or lingering */
#define MS_SOCKET_SLACK         64
#define REPEAT_MS               60000   /* a signal repeats another */
#define PAUSE_MS                10      /* of accepting, at the limit */

/* A TLS handshake under way; main thread only */
typedef struct MsShake {
    QTAILQ_ENTRY(MsShake) link;
    MsServer *server;
    QIOChannelSocket *sioc;
    QIOChannelTLS *tioc;
    guint timer;
    guint idle;                 /* handing over to an I/O thread */
    bool evicted;
} MsShake;

void ms_server_defaults(MsServerOptions *options)
{
    *options = (MsServerOptions) {
        .threads = MIN(MAX(g_get_num_processors(), 1), 16),
        .max_connections = 4096,
        .max_sessions = 1024,
        .session_connections = 64,
        .idle_report_ms = 10 * 60 * 1000,
        .stall_ms = 60 * 1000,
        .hello_ms = 10 * 1000,
    };
}

unsigned ms_server_strangers(const MsServerOptions *o)
{
    return MAX(o->max_connections / 4 / o->threads, MS_MIN_STRANGERS);
}

uint32_t ms_server_sockets(const MsServerOptions *o)
{
    return o->max_connections + MS_STATUS_PLACES +
           o->threads * ms_server_strangers(o) * (o->tls_creds ? 2 : 1) +
           MS_SOCKET_SLACK;
}

/* The janitor */

static void janitor_wake(void *opaque)
{
    MsServer *server = opaque;

    QEMU_LOCK_GUARD(&server->janitor_lock);
    server->janitor_work = true;
    qemu_cond_signal(&server->janitor_cond);
}

void ms_server_tell_ended(MsServer *server, MsSession *session)
{
    unsigned i;

    for (i = 0; i < server->nthreads; i++) {
        MsMail *mail = g_new0(MsMail, 1);

        mail->what = MS_MAIL_ENDED;
        mail->session = session;
        ms_session_ref(session);
        ms_thread_post(&server->threads[i], mail);
    }
}

static void janitor_reap(MsServer *server, MsFrameCache *cache)
{
    void *opaque;

    while (ms_sessions_reap(&server->sessions, cache, &opaque)) {
        g_autofree MsTicket *ticket = opaque;

        if (ticket) {
            MsMail *mail = g_new0(MsMail, 1);

            mail->what = MS_MAIL_FREED;
            mail->conn_id = ticket->conn_id;
            mail->request_id = ticket->request_id;
            ms_thread_post(ticket->thread, mail);
        }
    }
}

static void *janitor_main(void *opaque)
{
    MsServer *server = opaque;
    const MsServerOptions *o = &server->options;
    int64_t last = g_get_monotonic_time() / 1000;
    MsFrameCache cache;

    ms_frame_cache_init(&cache, server->slab, true);
    for (;;) {
        int64_t now;
        bool stop;

        WITH_QEMU_LOCK_GUARD(&server->janitor_lock) {
            if (!server->janitor_work && !server->janitor_stop) {
                qemu_cond_timedwait(&server->janitor_cond,
                                    &server->janitor_lock, MS_TICK_MS);
            }
            stop = server->janitor_stop;
            server->janitor_work = false;
        }
        if (stop) {
            break;
        }
        janitor_reap(server, &cache);
        now = g_get_monotonic_time() / 1000;
        if (now - last >= MS_TICK_MS) {
            ms_sessions_tick(&server->sessions, now, now - last,
                             o->idle_report_ms, o->expiry_ms,
                             o->taken_expiry_ms);
            last = now;
        }
    }
    ms_frame_cache_drain(&cache);
    return NULL;
}

/* Accepting: main thread */

static void server_add(MsServer *server, QIOChannelSocket *sioc,
                       QIOChannel *ioc)
{
    MsMail *mail = g_new0(MsMail, 1);

    mail->what = MS_MAIL_CONN;
    mail->conn = ms_conn_new(server, sioc, ioc);
    ms_thread_post(ms_thread_pick(server, PAGELINK_CLASS_DEMAND),
                   mail);
}

/* Ends a handshake, well or not, but not what it made */
static void shake_free(MsShake *shake)
{
    QTAILQ_REMOVE(&shake->server->shakes, shake, link);
    shake->server->nshakes -= !shake->evicted;
    if (shake->timer) {
        g_source_remove(shake->timer);
    }
    object_unref(OBJECT(shake->tioc));
    object_unref(OBJECT(shake->sioc));
    g_free(shake);
}

static gboolean shake_timeout(gpointer opaque)
{
    MsShake *shake = opaque;

    /* Makes the handshake fail, and shake_done() is called */
    shake->timer = 0;
    qio_channel_shutdown(QIO_CHANNEL(shake->sioc), QIO_CHANNEL_SHUTDOWN_BOTH,
                         NULL);
    return G_SOURCE_REMOVE;
}

/* Too many: the one that has taken longest fails */
static void shake_evict(MsServer *server)
{
    MsShake *shake = QTAILQ_FIRST(&server->shakes);

    while (shake->evicted) {
        shake = QTAILQ_NEXT(shake, link);
    }
    shake->evicted = true;
    server->nshakes--;
    qio_channel_shutdown(QIO_CHANNEL(shake->sioc), QIO_CHANNEL_SHUTDOWN_BOTH,
                         NULL);
}

static gboolean shake_hand_over(gpointer opaque)
{
    MsShake *shake = opaque;

    shake->idle = 0;
    server_add(shake->server, shake->sioc, QIO_CHANNEL(shake->tioc));
    shake_free(shake);
    return G_SOURCE_REMOVE;
}

static void shake_done(QIOTask *task, gpointer opaque)
{
    MsShake *shake = opaque;
    MsServer *server = shake->server;
    Error *err = NULL;

    if (qio_task_propagate_error(task, &err)) {
        warn_report_err(err);
        trace_memserver_conn_close("tls", "handshake failed");
        qatomic_inc(&server->refused);
        qatomic_dec(&server->connections);
        shake_free(shake);
        return;
    }
    if (shake->timer) {
        g_source_remove(shake->timer);
        shake->timer = 0;
    }
    /* The task still holds the channel, which is to have one owner only */
    shake->idle = g_idle_add(shake_hand_over, shake);
}

static void shake_start(MsServer *server, QIOChannelSocket *sioc)
{
    const MsServerOptions *o = &server->options;
    MsShake *shake = g_new0(MsShake, 1);
    Error *err = NULL;

    shake->server = server;
    QTAILQ_INSERT_TAIL(&server->shakes, shake, link);
    server->nshakes++;
    if (server->nshakes > o->threads * ms_server_strangers(o)) {
        shake_evict(server);
    }
    shake->sioc = sioc;
    object_ref(OBJECT(sioc));
    shake->tioc = qio_channel_tls_new_server(QIO_CHANNEL(sioc), o->tls_creds,
                                             o->tls_authz, &err);
    if (!shake->tioc) {
        warn_report_err(err);
        qatomic_inc(&server->refused);
        qatomic_dec(&server->connections);
        shake_free(shake);
        return;
    }
    shake->timer = g_timeout_add(o->hello_ms, shake_timeout, shake);
    qio_channel_tls_handshake(shake->tioc, shake_done, shake, NULL, NULL);
}

static void prepare_socket(QIOChannelSocket *sioc)
{
    qio_channel_set_name(QIO_CHANNEL(sioc), "memserver");
    pagelink_prepare_socket(sioc, 60, 15);
}

static void server_accept(QIONetListener *listener, QIOChannelSocket *sioc,
                          gpointer opaque);

static void server_listen(MsServer *server, bool on)
{
    guint i;

    for (i = 0; i < server->listeners->len; i++) {
        qio_net_listener_set_client_func(g_ptr_array_index(server->listeners,
                                                           i),
                                         on ? server_accept : NULL, server,
                                         NULL);
    }
}

static gboolean server_resume(gpointer opaque)
{
    MsServer *server = opaque;

    server->paused = 0;
    server_listen(server, true);
    return G_SOURCE_REMOVE;
}

static void server_accept(QIONetListener *listener, QIOChannelSocket *sioc,
                          gpointer opaque)
{
    MsServer *server = opaque;

    /*
     * Whom to refuse, and with which words, is decided when HELLO has come.
     * This only lets the I/O threads catch up before there are more sockets
     * than main() has made room for.
     */
    if (qatomic_fetch_inc(&server->connections) >=
        ms_server_sockets(&server->options) - MS_SOCKET_SLACK / 2 &&
        !server->paused) {
        server_listen(server, false);
        server->paused = g_timeout_add(PAUSE_MS, server_resume, server);
    }
    prepare_socket(sioc);
    if (server->options.tls_creds) {
        shake_start(server, sioc);
    } else {
        server_add(server, sioc, QIO_CHANNEL(sioc));
    }
}

void ms_server_add_channel(MsServer *server, QIOChannelSocket *sioc)
{
    prepare_socket(sioc);
    qatomic_inc(&server->connections);
    server_add(server, sioc, QIO_CHANNEL(sioc));
}

void ms_server_add_listener(MsServer *server, QIONetListener *listener)
{
    object_ref(OBJECT(listener));
    g_ptr_array_add(server->listeners, listener);
    qio_net_listener_set_name(listener, "memserver");
    qio_net_listener_set_client_func(listener, server_accept, server, NULL);
}

uint32_t ms_server_sessions(MsServer *server)
{
    return ms_sessions_count(&server->sessions);
}

uint32_t ms_server_connections(MsServer *server)
{
    return qatomic_read(&server->connections);
}

uint64_t ms_server_frames(MsServer *server)
{
    MsSlabStats stats;

    ms_slab_stats(server->slab, &stats);
    return stats.used;
}

bool ms_server_may_stop(uint32_t sessions, int64_t now_ms,
                        int64_t *refused_ms)
{
    if (!sessions || (*refused_ms && now_ms <= *refused_ms + REPEAT_MS)) {
        return true;
    }
    *refused_ms = now_ms;
    return false;
}

MsServer *ms_server_new(const MsServerOptions *options, Error **errp)
{
    MsServer *server = g_new0(MsServer, 1);
    unsigned i;

    server->options = *options;
    server->started_ms = g_get_monotonic_time() / 1000;
    server->nthreads = 2 * options->threads;
    server->threads = g_new0(MsThread, server->nthreads);
    server->slab = ms_slab_new();
    server->listeners = g_ptr_array_new();
    QTAILQ_INIT(&server->shakes);
    qemu_mutex_init(&server->janitor_lock);
    qemu_cond_init(&server->janitor_cond);
    ms_sessions_init(&server->sessions, options->max_pages,
                     options->session_quota, options->max_sessions,
                     options->session_connections, janitor_wake, server);
    if (options->tls_creds) {
        object_ref(OBJECT(options->tls_creds));
    }
    for (i = 0; i < server->nthreads; i++) {
        if (!ms_thread_init(&server->threads[i], server, i, errp)) {
            server->nthreads = i;
            ms_server_free(server);
            return NULL;
        }
    }
    for (i = 0; i < server->nthreads; i++) {
        ms_thread_start(&server->threads[i]);
    }
    qemu_thread_create(&server->janitor, "janitor", janitor_main, server,
                       QEMU_THREAD_JOINABLE);
    return server;
}

static void server_unpublish(MsServer *server)
{
    guint i;

    if (server->paused) {
        g_source_remove(server->paused);
    }
    server_listen(server, false);
    for (i = 0; i < server->listeners->len; i++) {
        QIONetListener *listener = g_ptr_array_index(server->listeners, i);

        qio_net_listener_disconnect(listener);
        object_unref(OBJECT(listener));
    }
    g_ptr_array_free(server->listeners, true);
    while (!QTAILQ_EMPTY(&server->shakes)) {
        MsShake *shake = QTAILQ_FIRST(&server->shakes);

        qio_channel_shutdown(QIO_CHANNEL(shake->sioc),
                             QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        g_main_context_iteration(NULL, true);
    }
}

static void server_stop(MsServer *server)
{
    unsigned i;

    for (i = 0; i < server->nthreads; i++) {
        MsMail *mail = g_new0(MsMail, 1);

        mail->what = MS_MAIL_STOP;
        ms_thread_post(&server->threads[i], mail);
    }
    for (i = 0; i < server->nthreads; i++) {
        qemu_thread_join(&server->threads[i].thread);
    }
    WITH_QEMU_LOCK_GUARD(&server->janitor_lock) {
        server->janitor_stop = true;
        qemu_cond_signal(&server->janitor_cond);
    }
    qemu_thread_join(&server->janitor);
}

void ms_server_free(MsServer *server)
{
    MsFrameCache cache;
    unsigned i;

    server_unpublish(server);
    if (server->janitor.thread) {
        server_stop(server);
    }
    for (i = 0; i < server->nthreads; i++) {
        ms_thread_cleanup(&server->threads[i]);
    }
    ms_frame_cache_init(&cache, server->slab, true);
    ms_sessions_destroy(&server->sessions, &cache);
    ms_frame_cache_drain(&cache);
    ms_slab_free(server->slab);
    if (server->options.tls_creds) {
        object_unref(OBJECT(server->options.tls_creds));
    }
    qemu_cond_destroy(&server->janitor_cond);
    qemu_mutex_destroy(&server->janitor_lock);
    g_free(server->threads);
    g_free(server);
}
