/*
 * memserver: server (server-int.h describes its threads)
 *
 * Teardown, in this order: unpublish (no more accepts), stop (each I/O thread
 * tells its peers and returns), drain (joined), free (sessions, then frames).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/epoll.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "server-int.h"
#include "trace.h"

#define EVENTS_AT_ONCE          64
#define TICK_MS                 1000
#define STOP_MS                 500     /* for peers to hear of it */

/* A TLS handshake under way; main thread only */
typedef struct MsShake {
    QTAILQ_ENTRY(MsShake) link;
    MsServer *server;
    QIOChannelSocket *sioc;
    QIOChannelTLS *tioc;
    guint timer;
    guint idle;                 /* handing over to an I/O thread */
} MsShake;

void ms_server_defaults(MsServerOptions *options)
{
    *options = (MsServerOptions) {
        .threads = MIN(MAX(g_get_num_processors(), 1), 16),
        .max_connections = 4096,
        .max_sessions = 1024,
        .idle_report_ms = 10 * 60 * 1000,
        .stall_ms = 60 * 1000,
        .hello_ms = 10 * 1000,
    };
}

/* I/O threads */

void ms_thread_post(MsThread *thread, MsMail *mail)
{
    WITH_QEMU_LOCK_GUARD(&thread->lock) {
        QSIMPLEQ_INSERT_TAIL(&thread->inbox, mail, next);
    }
    event_notifier_set(&thread->wake);
}

MsThread *ms_server_pick_thread(MsServer *server, uint8_t class)
{
    unsigned half = server->nthreads / 2;
    bool bulk = class == PAGELINK_CLASS_BACKGROUND;
    uint32_t n = qatomic_fetch_inc(&server->next_thread[bulk]) % half;

    return &server->threads[bulk ? half + n : n];
}

static void thread_detach(MsThread *thread, MsConn *conn)
{
    epoll_ctl(thread->epfd, EPOLL_CTL_DEL, conn->sioc->fd, NULL);
    QTAILQ_REMOVE(&thread->conns, conn, link);
    if (conn->queued) {
        QTAILQ_REMOVE(&thread->ready, conn, again);
        conn->queued = false;
    }
}

static void thread_free_conn(MsThread *thread, MsConn *conn)
{
    thread_detach(thread, conn);
    ms_conn_free(conn);
    qatomic_dec(&thread->server->connections);
}

static void thread_run_conn(MsThread *thread, MsConn *conn)
{
    uint32_t events;

    if (conn->queued) {
        QTAILQ_REMOVE(&thread->ready, conn, again);
        conn->queued = false;
    }
    ms_conn_run(conn, &events);
    if (conn->state == MS_CONN_DEAD) {
        thread_free_conn(thread, conn);
        return;
    }
    if (conn->move && !conn->niov) {
        MsMail *mail = g_new0(MsMail, 1);

        thread_detach(thread, conn);
        conn->move = false;
        mail->what = MS_MAIL_CONN;
        mail->conn = conn;
        ms_thread_post(ms_server_pick_thread(thread->server, conn->class),
                       mail);
        return;
    }
    if (!events) {
        QTAILQ_INSERT_TAIL(&thread->ready, conn, again);
        conn->queued = true;
        return;
    }
    if (events != conn->events) {
        struct epoll_event ev = { .events = events, .data.ptr = conn };

        conn->events = events;
        epoll_ctl(thread->epfd, EPOLL_CTL_MOD, conn->sioc->fd, &ev);
    }
}

/* The session has ended: its connections are of no use any more */
static void conn_drop_session(MsConn *conn)
{
    MsSession *session = g_steal_pointer(&conn->session);
    PageLinkFault fault;

    if (conn->reserved) {
        ms_account_release(&session->account, conn->reserved);
        conn->reserved = 0;
    }
    ms_session_disconnect(&conn->thread->server->sessions, session);
    pagelink_fault(&fault, PAGELINK_ERR_SESSION_ENDED, PAGELINK_NO_INDEX,
                   "the session has been ended by its owner");
    ms_conn_fail(conn, 0, &fault);
}

static void thread_adopt(MsThread *thread, MsConn *conn)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = conn };

    conn->thread = thread;
    conn->events = EPOLLIN;
    QTAILQ_INSERT_TAIL(&thread->conns, conn, link);
    if (epoll_ctl(thread->epfd, EPOLL_CTL_ADD, conn->sioc->fd, &ev) < 0) {
        thread_free_conn(thread, conn);
        return;
    }
    /* It may have been between two threads when both were told */
    if (conn->session && qatomic_read(&conn->session->ended)) {
        conn_drop_session(conn);
    }
    thread_run_conn(thread, conn);
}

static void thread_drop_session(MsThread *thread, MsSession *session)
{
    MsConn *conn, *next;

    QTAILQ_FOREACH_SAFE(conn, &thread->conns, link, next) {
        if (conn->session == session) {
            conn_drop_session(conn);
            thread_run_conn(thread, conn);
        }
    }
    ms_session_unref(&thread->server->sessions, session);
}

static void thread_tell_freed(MsThread *thread, uint64_t conn_id,
                              uint64_t request_id)
{
    uint8_t ack[sizeof(PageLinkAck)];
    MsConn *conn;

    QTAILQ_FOREACH(conn, &thread->conns, link) {
        if (conn->id == conn_id && conn->state == MS_CONN_WAIT_END) {
            pagelink_encode_ack(ack, &conn->ack);
            ms_conn_reply(conn, PAGELINK_ACK, 0, 0, request_id, ack,
                          sizeof(ack));
            conn->state = MS_CONN_FINISH;
            thread_run_conn(thread, conn);
            return;
        }
    }
}

static void thread_stop(MsThread *thread)
{
    MsConn *conn, *next;

    thread->stopping = true;
    QTAILQ_FOREACH_SAFE(conn, &thread->conns, link, next) {
        PageLinkFault fault;

        pagelink_fault(&fault, PAGELINK_ERR_SHUTDOWN, PAGELINK_NO_INDEX,
                       "the memory host is going away");
        ms_conn_fail(conn, 0, &fault);
        thread_run_conn(thread, conn);
    }
}

static void thread_read_inbox(MsThread *thread)
{
    QSIMPLEQ_HEAD(, MsMail) mails = QSIMPLEQ_HEAD_INITIALIZER(mails);
    MsMail *mail;

    event_notifier_test_and_clear(&thread->wake);
    WITH_QEMU_LOCK_GUARD(&thread->lock) {
        QSIMPLEQ_CONCAT(&mails, &thread->inbox);
    }
    while ((mail = QSIMPLEQ_FIRST(&mails))) {
        QSIMPLEQ_REMOVE_HEAD(&mails, next);
        switch (mail->what) {
        case MS_MAIL_CONN:
            thread_adopt(thread, mail->conn);
            break;
        case MS_MAIL_ENDED:
            thread_drop_session(thread, mail->session);
            break;
        case MS_MAIL_FREED:
            thread_tell_freed(thread, mail->conn_id, mail->request_id);
            break;
        case MS_MAIL_STOP:
            thread_stop(thread);
            break;
        }
        g_free(mail);
    }
}

static void thread_drop_stalled(MsThread *thread)
{
    MsConn *conn, *next;

    QTAILQ_FOREACH_SAFE(conn, &thread->conns, link, next) {
        PageLinkFault fault;

        if (!ms_conn_is_stalled(conn, thread->now_ms)) {
            continue;
        }
        if (conn->niov || conn->state >= MS_CONN_FINISH) {
            trace_memserver_conn_close(conn->peer, "stalled");
            thread_free_conn(thread, conn);
            continue;
        }
        pagelink_fault(&fault, PAGELINK_ERR_TIMEOUT, PAGELINK_NO_INDEX,
                       "nothing came for too long in the middle of a message");
        ms_conn_fail(conn, conn->head.request_id, &fault);
        conn->progress_ms = thread->now_ms;
        thread_run_conn(thread, conn);
    }
}

static int thread_timeout(MsThread *thread)
{
    if (!QTAILQ_EMPTY(&thread->ready)) {
        return 0;
    }
    if (thread->stopping) {
        return STOP_MS / 10;
    }
    return QTAILQ_EMPTY(&thread->conns) ? -1 : TICK_MS;
}

static void thread_handle_event(MsThread *thread, MsConn *conn,
                                uint32_t events)
{
    /* Waiting for the session to be freed, it has nothing to read or write */
    if (conn->state == MS_CONN_WAIT_END && (events & (EPOLLHUP | EPOLLERR))) {
        thread_free_conn(thread, conn);
        return;
    }
    thread_run_conn(thread, conn);
}

/*
 * An event's connection can be gone when its turn comes: only the inbox and
 * the stall check free other connections than their own, so they run between
 * the batches of events.
 */
static void *thread_main(void *opaque)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    MsThread *thread = opaque;
    int64_t next_check = 0, stop_at = 0;

    for (;;) {
        bool mail = false;
        MsConn *conn, *last;
        int i, n;

        n = epoll_wait(thread->epfd, events, EVENTS_AT_ONCE,
                       thread_timeout(thread));
        thread->now_ms = g_get_monotonic_time() / 1000;
        for (i = 0; i < n; i++) {
            if (!events[i].data.ptr) {
                mail = true;
                continue;
            }
            thread_handle_event(thread, events[i].data.ptr, events[i].events);
        }
        /* Each of those that were ready before gets one more turn */
        last = QTAILQ_LAST(&thread->ready);
        while ((conn = QTAILQ_FIRST(&thread->ready))) {
            thread_run_conn(thread, conn);
            if (conn == last) {
                break;
            }
        }
        if (mail) {
            thread_read_inbox(thread);
        }
        if (thread->now_ms >= next_check) {
            next_check = thread->now_ms + TICK_MS;
            thread_drop_stalled(thread);
        }
        if (thread->stopping) {
            stop_at = stop_at ? stop_at : thread->now_ms + STOP_MS;
            if (QTAILQ_EMPTY(&thread->conns) || thread->now_ms >= stop_at) {
                break;
            }
        }
    }
    while (!QTAILQ_EMPTY(&thread->conns)) {
        thread_free_conn(thread, QTAILQ_FIRST(&thread->conns));
    }
    return NULL;
}

static bool thread_init(MsThread *thread, MsServer *server, unsigned index,
                        Error **errp)
{
    struct epoll_event ev = { .events = EPOLLIN };
    int ret;

    thread->server = server;
    thread->index = index;
    qemu_mutex_init(&thread->lock);
    QSIMPLEQ_INIT(&thread->inbox);
    QTAILQ_INIT(&thread->conns);
    QTAILQ_INIT(&thread->ready);
    ms_frame_cache_init(&thread->cache, server->slab);
    thread->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (thread->epfd < 0) {
        error_setg_errno(errp, errno, "cannot create an epoll instance");
        return false;
    }
    ret = event_notifier_init(&thread->wake, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot create an event notifier");
        close(thread->epfd);
        return false;
    }
    epoll_ctl(thread->epfd, EPOLL_CTL_ADD,
              event_notifier_get_fd(&thread->wake), &ev);
    thread->scratch = g_malloc(MS_SCRATCH_SIZE);
    return true;
}

static void thread_start(MsThread *thread)
{
    g_autofree char *name = NULL;
    unsigned half = thread->server->nthreads / 2;

    name = g_strdup_printf("%s-%u", thread->index < half ? "demand" : "bulk",
                           thread->index % half);
    qemu_thread_create(&thread->thread, name, thread_main, thread,
                       QEMU_THREAD_JOINABLE);
}

static void thread_cleanup(MsThread *thread)
{
    MsMail *mail;

    while ((mail = QSIMPLEQ_FIRST(&thread->inbox))) {
        QSIMPLEQ_REMOVE_HEAD(&thread->inbox, next);
        if (mail->what == MS_MAIL_CONN) {
            mail->conn->thread = thread;
            ms_conn_free(mail->conn);
            qatomic_dec(&thread->server->connections);
        } else if (mail->what == MS_MAIL_ENDED) {
            ms_session_unref(&thread->server->sessions, mail->session);
        }
        g_free(mail);
    }
    g_free(thread->scratch);
    ms_frame_cache_drain(&thread->cache);
    event_notifier_cleanup(&thread->wake);
    close(thread->epfd);
    qemu_mutex_destroy(&thread->lock);
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

    ms_frame_cache_init(&cache, server->slab);
    for (;;) {
        int64_t now;
        bool stop;

        WITH_QEMU_LOCK_GUARD(&server->janitor_lock) {
            if (!server->janitor_work && !server->janitor_stop) {
                qemu_cond_timedwait(&server->janitor_cond,
                                    &server->janitor_lock, TICK_MS);
            }
            stop = server->janitor_stop;
            server->janitor_work = false;
        }
        if (stop) {
            break;
        }
        janitor_reap(server, &cache);
        now = g_get_monotonic_time() / 1000;
        if (now - last >= TICK_MS) {
            ms_sessions_tick(&server->sessions, now, now - last,
                             o->idle_report_ms, o->expiry_ms);
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
    ms_thread_post(ms_server_pick_thread(server, PAGELINK_CLASS_DEMAND),
                   mail);
}

/* Ends a handshake, well or not, but not what it made */
static void shake_free(MsShake *shake)
{
    QTAILQ_REMOVE(&shake->server->shakes, shake, link);
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

static bool server_reserve_connection(MsServer *server)
{
    if (qatomic_fetch_inc(&server->connections) <
        server->options.max_connections) {
        return true;
    }
    qatomic_dec(&server->connections);
    qatomic_inc(&server->refused);
    return false;
}

/* Say why in one go; if the socket does not take it, so be it */
static void refuse_connection(QIOChannelSocket *sioc)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkError) +
                PAGELINK_MAX_ERROR_TEXT];
    PageLinkFault fault;
    uint32_t length;

    pagelink_fault(&fault, PAGELINK_ERR_LIMIT, PAGELINK_NO_INDEX,
                   "too many connections");
    length = pagelink_encode_error(buf + sizeof(PageLinkHeader), &fault);
    pagelink_encode_header(buf, PAGELINK_ERROR, PAGELINK_ERROR_FATAL, length,
                           0, 0);
    qio_channel_write(QIO_CHANNEL(sioc), (char *)buf,
                      sizeof(PageLinkHeader) + length, NULL);
}

static void prepare_socket(QIOChannelSocket *sioc)
{
    qio_channel_set_name(QIO_CHANNEL(sioc), "memserver");
    qio_channel_set_blocking(QIO_CHANNEL(sioc), false, NULL);
    qio_channel_set_delay(QIO_CHANNEL(sioc), false);
    if (sioc->localAddr.ss_family != AF_UNIX) {
        /* A peer that vanished without a word must not stay for ever */
        int on = 1, idle = 60, interval = 15, count = 4;

        setsockopt(sioc->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        setsockopt(sioc->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        setsockopt(sioc->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval,
                   sizeof(interval));
        setsockopt(sioc->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    }
}

static void server_accept(QIONetListener *listener, QIOChannelSocket *sioc,
                          gpointer opaque)
{
    MsServer *server = opaque;

    prepare_socket(sioc);
    if (!server_reserve_connection(server)) {
        if (!server->options.tls_creds) {
            refuse_connection(sioc);
        }
        return;
    }
    if (server->options.tls_creds) {
        shake_start(server, sioc);
    } else {
        server_add(server, sioc, QIO_CHANNEL(sioc));
    }
}

void ms_server_add_channel(MsServer *server, QIOChannelSocket *sioc)
{
    prepare_socket(sioc);
    if (server_reserve_connection(server)) {
        server_add(server, sioc, QIO_CHANNEL(sioc));
    }
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
                     janitor_wake, server);
    if (options->tls_creds) {
        object_ref(OBJECT(options->tls_creds));
    }
    for (i = 0; i < server->nthreads; i++) {
        if (!thread_init(&server->threads[i], server, i, errp)) {
            server->nthreads = i;
            ms_server_free(server);
            return NULL;
        }
    }
    for (i = 0; i < server->nthreads; i++) {
        thread_start(&server->threads[i]);
    }
    qemu_thread_create(&server->janitor, "janitor", janitor_main, server,
                       QEMU_THREAD_JOINABLE);
    return server;
}

static void server_unpublish(MsServer *server)
{
    guint i;

    for (i = 0; i < server->listeners->len; i++) {
        QIONetListener *listener = g_ptr_array_index(server->listeners, i);

        qio_net_listener_set_client_func(listener, NULL, NULL, NULL);
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
        thread_cleanup(&server->threads[i]);
    }
    ms_frame_cache_init(&cache, server->slab);
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
