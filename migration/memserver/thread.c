/*
 * memserver: I/O threads
 *
 * Each waits for its connections with epoll, gives every one that can do
 * something a turn, and in between reads its inbox and looks for peers that
 * have stalled.
 *
 * Threads: the functions named ms_* are for others, all else is the thread's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/epoll.h>
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/units.h"
#include "server-int.h"
#include "trace.h"

#define EVENTS_AT_ONCE          64
#define STOP_MS                 500     /* for peers to hear of it */

void ms_thread_post(MsThread *thread, MsMail *mail)
{
    WITH_QEMU_LOCK_GUARD(&thread->lock) {
        QSIMPLEQ_INSERT_TAIL(&thread->inbox, mail, next);
    }
    event_notifier_set(&thread->wake);
}

MsThread *ms_thread_pick(MsServer *server, uint8_t class)
{
    unsigned half = server->nthreads / 2;
    bool bulk = class == PAGELINK_CLASS_BACKGROUND;
    uint32_t n = qatomic_fetch_inc(&server->next_thread[bulk]) % half;

    return &server->threads[bulk ? half + n : n];
}

/* It has a session, or is about to leave */
static void thread_forget_stranger(MsThread *thread, MsConn *conn)
{
    if (conn->stranger) {
        QTAILQ_REMOVE(&thread->strangers, conn, silent);
        conn->stranger = false;
        thread->nstrangers--;
    }
}

static void thread_detach(MsThread *thread, MsConn *conn)
{
    thread_forget_stranger(thread, conn);
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

/* Where it belongs, once its HELLO is answered */
static MsThread *conn_thread(MsConn *conn)
{
    MsServer *server = conn->thread->server;

    return conn->role == PAGELINK_ROLE_STATUS ?
           &server->threads[server->nthreads / 2] :
           ms_thread_pick(server, conn->class);
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
    if (conn->session) {
        thread_forget_stranger(thread, conn);
    }
    if (conn->move && !conn->niov) {
        MsMail *mail = g_new0(MsMail, 1);

        thread_detach(thread, conn);
        conn->move = false;
        mail->what = MS_MAIL_CONN;
        mail->conn = conn;
        ms_thread_post(conn_thread(conn), mail);
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
static void conn_end(MsConn *conn)
{
    PageLinkFault fault;

    ms_conn_drop_session(conn);
    pagelink_fault(&fault, PAGELINK_ERR_SESSION_ENDED, PAGELINK_NO_INDEX,
                   "the session has been ended by its owner");
    ms_conn_fail(conn, 0, &fault);
}

/*
 * A stranger needs a place: whoever has been silent for longest loses its own,
 * with a word if that can be sent at once
 */
static void thread_evict(MsThread *thread)
{
    unsigned half = thread->server->nthreads / 2;
    unsigned max = thread->index < half ?
                   ms_server_strangers(&thread->server->options) :
                   MS_STATUS_PLACES;

    while (thread->nstrangers > max) {
        MsConn *conn = QTAILQ_FIRST(&thread->strangers);
        PageLinkFault fault;
        uint32_t events;

        pagelink_fault(&fault, PAGELINK_ERR_LIMIT, PAGELINK_NO_INDEX,
                       "too many connections without a session");
        ms_conn_fail(conn, 0, &fault);
        ms_conn_run(conn, &events);
        qatomic_inc(&thread->server->refused);
        thread_free_conn(thread, conn);
    }
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
        conn_end(conn);
    }
    if (!conn->session && conn->state <= MS_CONN_READY) {
        QTAILQ_INSERT_TAIL(&thread->strangers, conn, silent);
        conn->stranger = true;
        thread->nstrangers++;
        thread_evict(thread);
    }
    thread_run_conn(thread, conn);
}

static void thread_drop_session(MsThread *thread, MsSession *session)
{
    MsConn *conn, *next;

    QTAILQ_FOREACH_SAFE(conn, &thread->conns, link, next) {
        if (conn->session == session) {
            conn_end(conn);
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
            ms_conn_progress(conn);
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
        uint64_t id;

        if (!ms_conn_is_stalled(conn, thread->now_ms, &id, &fault)) {
            continue;
        }
        if (conn->niov || conn->state >= MS_CONN_FINISH) {
            trace_memserver_conn_close(conn->peer, "stalled");
            thread_free_conn(thread, conn);
            continue;
        }
        ms_conn_fail(conn, id, &fault);
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
    return QTAILQ_EMPTY(&thread->conns) ? -1 : MS_TICK_MS;
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
            next_check = thread->now_ms + MS_TICK_MS;
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

bool ms_thread_init(MsThread *thread, MsServer *server, unsigned index,
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
    QTAILQ_INIT(&thread->strangers);
    ms_frame_cache_init(&thread->cache, server->slab, false);
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

void ms_thread_start(MsThread *thread)
{
    g_autofree char *name = NULL;
    unsigned half = thread->server->nthreads / 2;

    name = g_strdup_printf("%s-%u", thread->index < half ? "demand" : "bulk",
                           thread->index % half);
    qemu_thread_create(&thread->thread, name, thread_main, thread,
                       QEMU_THREAD_JOINABLE);
}

void ms_thread_cleanup(MsThread *thread)
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
