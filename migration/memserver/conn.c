/*
 * memserver: a connection
 *
 * The bytes of a connection: a state machine that reads as much as there is,
 * straight into page frames where it is in pages, hands whole messages to
 * request.c and writes answers straight from page frames.
 *
 * Guarantees: never waits; never reads on while an answer cannot be sent, so
 * that a peer that does not read is held up by its own socket; between two
 * runs it holds at most one frame being received and MS_OUT_FRAMES being sent;
 * after MS_RUN_ROUNDS, or about MS_RUN_SLOTS of work, it lets others of its
 * thread go first.
 *
 * Threads: the I/O thread that holds the connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/epoll.h>
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "server-int.h"
#include "trace.h"

#define MS_RUN_ROUNDS           8       /* reads (256 KiB each) in a run */
#define MS_RUN_SLOTS            32768   /* of a store, well under 1 ms */
#define MS_LINGER_MS            2000

MsConn *ms_conn_new(MsServer *server, QIOChannelSocket *sioc, QIOChannel *ioc)
{
    MsConn *conn = g_new0(MsConn, 1);
    SocketAddress *addr;

    conn->sioc = sioc;
    conn->ioc = ioc;
    object_ref(OBJECT(sioc));
    object_ref(OBJECT(ioc));
    conn->id = qatomic_fetch_inc(&server->next_conn_id);
    conn->opened_ms = g_get_monotonic_time() / 1000;
    conn->progress_ms = conn->asked_ms = conn->opened_ms;
    conn->is_unix = sioc->localAddr.ss_family == AF_UNIX;
    addr = conn->is_unix ? NULL :
           qio_channel_socket_get_remote_address(sioc, NULL);
    conn->peer = addr ? socket_uri(addr) :
                 g_strdup_printf("unix#%" PRIu64, conn->id);
    qapi_free_SocketAddress(addr);
    trace_memserver_conn_open(conn->peer);
    return conn;
}

static void conn_out_reset(MsConn *conn)
{
    MsSession *session = conn->session ? conn->session : conn->leaving;
    uint32_t released = 0;

    while (conn->npins) {
        released += ms_frame_unref(&conn->thread->cache,
                                   conn->pins[--conn->npins]);
    }
    if (released) {
        ms_account_release(&session->account, released);
    }
    if (conn->leaving) {
        ms_session_disconnect(&conn->thread->server->sessions,
                              g_steal_pointer(&conn->leaving));
    }
    g_clear_pointer(&conn->big, g_free);
    conn->out_used = conn->niov = conn->iov_done = 0;
}

void ms_conn_drop_session(MsConn *conn)
{
    MsServer *server = conn->thread->server;
    MsSession *session = g_steal_pointer(&conn->session);

    ms_account_release(&session->account, conn->reserved);
    conn->reserved = 0;
    if (conn->frame) {
        ms_frame_unref(&conn->thread->cache, g_steal_pointer(&conn->frame));
    }
    qatomic_dec(&server->members);
    if (conn->npins) {
        conn->leaving = session;
    } else {
        ms_session_disconnect(&server->sessions, session);
    }
}

/* In order: the socket, what is in flight, then the session */
void ms_conn_free(MsConn *conn)
{
    qio_channel_close(QIO_CHANNEL(conn->sioc), NULL);
    conn_out_reset(conn);
    if (conn->session) {
        ms_conn_drop_session(conn);
    }
    assert(!conn->frame && !conn->leaving);
    object_unref(OBJECT(conn->ioc));
    object_unref(OBJECT(conn->sioc));
    g_free(conn->peer);
    g_free(conn);
}

void ms_conn_progress(MsConn *conn)
{
    conn->progress_ms = conn->thread->now_ms;
    conn->moved = 0;
}

/* A few bytes are no progress: who trickles is as good as stalled */
static void conn_moved(MsConn *conn, size_t n)
{
    conn->moved += n;
    if (conn->moved >= MS_STALL_BYTES) {
        ms_conn_progress(conn);
    }
}

static void conn_die(MsConn *conn, const char *why)
{
    trace_memserver_conn_close(conn->peer, why);
    conn->state = MS_CONN_DEAD;
}

uint8_t *ms_conn_out_bytes(MsConn *conn, size_t length)
{
    struct iovec *last = conn->niov ? &conn->iov[conn->niov - 1] : NULL;
    uint8_t *p = conn->out + conn->out_used;

    assert(conn->out_used + length <= MS_OUT_SIZE);
    if (last && (uint8_t *)last->iov_base + last->iov_len == p) {
        last->iov_len += length;
    } else {
        assert(conn->niov < MS_OUT_IOVS);
        conn->iov[conn->niov++] = (struct iovec) { p, length };
    }
    conn->out_used += length;
    return p;
}

void ms_conn_out_page(MsConn *conn, void *frame)
{
    struct iovec *last = &conn->iov[conn->niov - 1];

    assert(conn->npins < MS_OUT_FRAMES);
    conn->pins[conn->npins++] = frame;
    if ((uint8_t *)last->iov_base + last->iov_len == frame) {
        last->iov_len += PAGELINK_PAGE_SIZE;
        return;
    }
    assert(conn->niov < MS_OUT_IOVS);
    conn->iov[conn->niov++] = (struct iovec) { frame, PAGELINK_PAGE_SIZE };
}

bool ms_conn_out_has_room(const MsConn *conn)
{
    /* For a DATA with one entry, or an ERROR behind another answer */
    return conn->npins < MS_OUT_FRAMES && !conn->big &&
           conn->niov + 4 < MS_OUT_IOVS &&
           conn->out_used + 2 * (sizeof(PageLinkHeader) +
                                 sizeof(PageLinkError) +
                                 PAGELINK_MAX_ERROR_TEXT) <= MS_OUT_SIZE;
}

void ms_conn_reply(MsConn *conn, uint16_t type, uint16_t flags,
                   uint32_t count, uint64_t request_id,
                   const void *body, uint32_t length)
{
    uint8_t *p = ms_conn_out_bytes(conn, sizeof(PageLinkHeader) + length);

    pagelink_encode_header(p, type, flags, length, count, request_id);
    if (length) {
        memcpy(p + sizeof(PageLinkHeader), body, length);
    }
}

void ms_conn_reply_big(MsConn *conn, uint16_t type, uint32_t count,
                       uint64_t request_id, void *body, uint32_t length)
{
    uint8_t *p = ms_conn_out_bytes(conn, sizeof(PageLinkHeader));

    pagelink_encode_header(p, type, 0, length, count, request_id);
    assert(!conn->big && conn->niov < MS_OUT_IOVS);
    conn->big = body;
    conn->iov[conn->niov++] = (struct iovec) { body, length };
}

static void conn_send_fault(MsConn *conn, uint64_t request_id, uint16_t flags,
                            const PageLinkFault *fault)
{
    uint8_t body[sizeof(PageLinkError) + PAGELINK_MAX_ERROR_TEXT];
    uint32_t length = pagelink_encode_error(body, fault);

    trace_memserver_conn_refuse(conn->peer, fault->code, fault->text);
    ms_conn_reply(conn, PAGELINK_ERROR, flags, 0, request_id, body, length);
}

void ms_conn_refuse(MsConn *conn, uint64_t request_id,
                    const PageLinkFault *fault)
{
    conn_send_fault(conn, request_id, 0, fault);
}

void ms_conn_fail(MsConn *conn, uint64_t request_id,
                  const PageLinkFault *fault)
{
    if (conn->state >= MS_CONN_FINISH) {
        return;
    }
    conn->state = MS_CONN_FINISH;
    conn->nreqs = conn->next_req = 0;
    ms_conn_progress(conn);
    /* Asynchronous failures can come while answers fill the buffer */
    if (ms_conn_out_has_room(conn)) {
        conn_send_fault(conn, request_id, PAGELINK_ERROR_FATAL, fault);
    }
}

static ssize_t conn_read(MsConn *conn, const struct iovec *iov, size_t niov)
{
    Error *err = NULL;
    ssize_t n = qio_channel_readv(conn->ioc, iov, niov, &err);

    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return 0;
    }
    if (n <= 0) {
        conn_die(conn, err ? error_get_pretty(err) : "closed by the peer");
        error_free(err);
        return -1;
    }
    if (conn->state == MS_CONN_READY && conn->in_pos == conn->in_end) {
        ms_conn_progress(conn);     /* a message begins */
    } else {
        conn_moved(conn, n);
    }
    if (conn->session) {
        qatomic_add(&conn->session->counters.bytes_in, n);
    }
    return n;
}

/* Returns false if the socket is full (or broken) */
static bool conn_flush(MsConn *conn)
{
    while (conn->iov_done < conn->niov) {
        struct iovec *iov = &conn->iov[conn->iov_done];
        unsigned left = conn->niov - conn->iov_done;
        Error *err = NULL;
        ssize_t n = qio_channel_writev(conn->ioc, iov, left, &err);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            return false;
        }
        if (n < 0) {
            conn_die(conn, error_get_pretty(err));
            error_free(err);
            return false;
        }
        conn_moved(conn, n);
        if (conn->session) {
            qatomic_add(&conn->session->counters.bytes_out, n);
        }
        iov_discard_front(&iov, &left, n);
        conn->iov_done = conn->niov - left;
    }
    ms_conn_progress(conn);
    conn_out_reset(conn);
    return true;
}

/* Free space of the input buffer, at its end, after moving what is left */
static struct iovec conn_in_room(MsConn *conn)
{
    size_t left = conn->in_end - conn->in_pos;

    if (conn->in_pos) {
        memmove(conn->in, conn->in + conn->in_pos, left);
        conn->in_pos = 0;
        conn->in_end = left;
    }
    return (struct iovec) { conn->in + left, MS_IN_SIZE - left };
}

/* Pages of a PUT that the last reads of messages have already brought in */
static void conn_take_buffered_pages(MsConn *conn)
{
    while (conn->in_pos < conn->in_end &&
           conn->state == MS_CONN_PAYLOAD && conn->pages_left) {
        size_t n = MIN(conn->in_end - conn->in_pos,
                       PAGELINK_PAGE_SIZE - conn->frame_fill);
        void *frame;

        if (!conn->frame) {
            conn->frame = ms_frame_get(&conn->thread->cache);
            if (!conn->frame) {
                conn_die(conn, "out of memory");
                return;
            }
        }
        memcpy((uint8_t *)conn->frame + conn->frame_fill,
               conn->in + conn->in_pos, n);
        conn->in_pos += n;
        conn->frame_fill += n;
        if (conn->frame_fill == PAGELINK_PAGE_SIZE) {
            frame = g_steal_pointer(&conn->frame);
            conn->frame_fill = 0;
            ms_request_store(conn, &frame, 1);
        }
    }
}

/*
 * Read pages straight into frames, and what follows them into the buffer.
 * Returns like conn_read().
 */
static ssize_t conn_read_pages(MsConn *conn)
{
    MsFrameCache *cache = &conn->thread->cache;
    struct iovec iov[MS_IN_FRAMES + 1];
    void *frames[MS_IN_FRAMES];
    unsigned want = MIN(conn->pages_left, MS_IN_FRAMES);
    unsigned niov = 0, done, i;
    size_t bytes, pages;
    ssize_t n;

    for (i = 0; i < want; i++) {
        frames[i] = i || !conn->frame ? ms_frame_get(cache) : conn->frame;
        if (!frames[i]) {
            want = i;
            break;
        }
        iov[niov++] = (struct iovec) { frames[i], PAGELINK_PAGE_SIZE };
    }
    if (!want) {
        conn_die(conn, "out of memory");
        return -1;
    }
    iov[0].iov_base = (uint8_t *)iov[0].iov_base + conn->frame_fill;
    iov[0].iov_len -= conn->frame_fill;
    if (want == conn->pages_left) {
        iov[niov++] = conn_in_room(conn);
    }

    n = conn_read(conn, iov, niov);
    bytes = conn->frame_fill + MAX(n, 0);
    pages = (size_t)want * PAGELINK_PAGE_SIZE;
    if (bytes > pages) {
        conn->in_end += bytes - pages;
        bytes = pages;
    }
    done = bytes / PAGELINK_PAGE_SIZE;
    conn->frame = NULL;
    conn->frame_fill = bytes % PAGELINK_PAGE_SIZE;
    if (conn->frame_fill) {
        conn->frame = frames[done];
    }
    for (i = want; i > done + !!conn->frame; i--) {
        ms_frame_unref(cache, frames[i - 1]);
    }
    if (done) {
        ms_request_store(conn, frames, done);
    }
    return n;
}

static ssize_t conn_discard(MsConn *conn)
{
    struct iovec iov[2];
    size_t n = MIN(conn->discard_left, conn->in_end - conn->in_pos);
    unsigned niov = 1;
    ssize_t got = 1;

    conn->in_pos += n;
    conn->discard_left -= n;
    if (conn->discard_left) {
        n = MIN(conn->discard_left, MS_SCRATCH_SIZE);
        iov[0] = (struct iovec) { conn->thread->scratch, n };
        if (n == conn->discard_left) {
            iov[niov++] = conn_in_room(conn);
        }
        got = conn_read(conn, iov, niov);
        if (got <= 0) {
            return got;
        }
        conn->discard_left -= MIN(n, got);
        conn->in_end += got > n ? got - n : 0;
    }
    if (!conn->discard_left) {
        conn->state = MS_CONN_READY;
        ms_conn_progress(conn);
    }
    return got;
}

/* Handle the next message if it is there as a whole; its pages come later */
static bool conn_next_message(MsConn *conn)
{
    const uint8_t *p = conn->in + conn->in_pos;
    size_t have = conn->in_end - conn->in_pos;
    PageLinkFault fault;
    size_t length;

    if (have < sizeof(PageLinkHeader)) {
        return false;
    }
    if (!pagelink_decode_header(p, &conn->head, &fault)) {
        ms_conn_fail(conn, 0, &fault);
        return true;
    }
    /* Before the body is there: only answers, which go the other way, can be */
    length = sizeof(PageLinkHeader) + pagelink_table_length(&conn->head);
    if (length > MS_IN_SIZE) {
        pagelink_fault(&fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                       "a client must not send %s here",
                       pagelink_type_name(conn->head.type));
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return true;
    }
    if (have < length) {
        return false;
    }
    conn->in_pos += length;
    conn->budget--;
    conn->asked_ms = conn->thread->now_ms;
    ms_conn_progress(conn);
    p += sizeof(PageLinkHeader);
    if (conn->state == MS_CONN_HELLO) {
        ms_request_hello(conn, p);
    } else {
        ms_request_message(conn, p);
    }
    return true;
}

/*
 * Act on what is in the buffer, until it is used up, answers fill the other
 * one, or it is somebody else's turn
 */
static void conn_handle_input(MsConn *conn)
{
    while (!conn->move && conn->budget > 0 && ms_conn_out_has_room(conn)) {
        switch (conn->state) {
        case MS_CONN_HELLO:
        case MS_CONN_READY:
            if (conn->next_req < conn->nreqs) {
                ms_request_get(conn);
            } else if (!conn_next_message(conn)) {
                return;
            }
            break;
        case MS_CONN_PAYLOAD:
            if (conn->in_pos == conn->in_end) {
                return;
            }
            conn_take_buffered_pages(conn);
            break;
        default:
            return;
        }
    }
}

/* Sent all that there was to say: wait for the peer to have read it */
static ssize_t conn_linger(MsConn *conn)
{
    struct iovec iov = { conn->thread->scratch, MS_SCRATCH_SIZE };
    int64_t since = conn->progress_ms;
    ssize_t n = conn_read(conn, &iov, 1);

    /* However much it still sends, it has only so much time */
    conn->progress_ms = since;
    return n;
}

void ms_conn_run(MsConn *conn, uint32_t *events)
{
    bool plain = conn->ioc == QIO_CHANNEL(conn->sioc);
    bool dry = false;           /* the last read took all there was */
    int round;

    *events = 0;
    conn->budget = MS_RUN_SLOTS;
    for (round = 0; round < MS_RUN_ROUNDS; round++) {
        ssize_t n = 0;

        conn_handle_input(conn);
        if (conn->niov && conn->state != MS_CONN_DEAD) {
            if (!conn_flush(conn)) {
                *events = EPOLLOUT;
                return;
            }
            if (conn->move) {
                return;
            }
            /* There may be more in the buffer, now that there is room */
            if (conn->state != MS_CONN_FINISH) {
                continue;
            }
        }
        if (conn->budget <= 0) {
            return;
        }
        /* Spares a read that finds nothing; TLS may hold more than epoll sees */
        if (dry && conn->state <= MS_CONN_PAYLOAD) {
            *events = EPOLLIN;
            return;
        }
        switch (conn->state) {
        case MS_CONN_HELLO:
        case MS_CONN_READY: {
            struct iovec iov = conn_in_room(conn);

            n = conn_read(conn, &iov, 1);
            if (n > 0) {
                conn->in_end += n;
                dry = plain && n < iov.iov_len;
            }
            break;
        }
        case MS_CONN_PAYLOAD:
            n = conn_read_pages(conn);
            break;
        case MS_CONN_DISCARD:
            n = conn_discard(conn);
            break;
        case MS_CONN_FINISH:
            conn->state = MS_CONN_LINGER;
            qio_channel_shutdown(QIO_CHANNEL(conn->sioc),
                                 QIO_CHANNEL_SHUTDOWN_WRITE, NULL);
            ms_conn_progress(conn);
            n = 1;
            break;
        case MS_CONN_LINGER:
            n = conn_linger(conn);
            break;
        case MS_CONN_WAIT_END:
        case MS_CONN_DEAD:
            *events = EPOLLERR;
            return;
        }
        if (n <= 0) {
            *events = EPOLLIN;
            return;
        }
    }
}

/* The id of what the peer is in the middle of sending */
static uint64_t conn_request_id(const MsConn *conn)
{
    PageLinkHeader head;
    PageLinkFault fault;

    if (conn->state == MS_CONN_PAYLOAD || conn->state == MS_CONN_DISCARD) {
        return conn->head.request_id;
    }
    return conn->in_end - conn->in_pos >= sizeof(head) &&
           pagelink_decode_header(conn->in + conn->in_pos, &head, &fault) ?
           head.request_id : 0;
}

bool ms_conn_is_stalled(const MsConn *conn, int64_t now_ms,
                        uint64_t *request_id, PageLinkFault *fault)
{
    const MsServerOptions *o = &conn->thread->server->options;
    int64_t since = now_ms - conn->progress_ms;
    bool stalled = since >= o->stall_ms;
    const char *what = "the middle of a message came too slowly, or not at "
                       "all";

    *request_id = conn_request_id(conn);
    switch (conn->state) {
    case MS_CONN_HELLO:
        stalled = now_ms - conn->opened_ms >= o->hello_ms;
        what = "HELLO did not come in time";
        break;
    case MS_CONN_READY:
        if (conn->role == PAGELINK_ROLE_STATUS &&
            now_ms - conn->asked_ms >= o->stall_ms) {
            stalled = true;
            what = "nobody asked for the status for too long";
        } else if (!conn->niov && conn->in_pos == conn->in_end) {
            stalled = false;
        }
        break;
    case MS_CONN_PAYLOAD:
    case MS_CONN_DISCARD:
        break;
    case MS_CONN_WAIT_END:
        stalled &= conn->niov;
        break;
    case MS_CONN_FINISH:
        stalled = since >= MIN(o->stall_ms, MS_LINGER_MS);
        break;
    case MS_CONN_LINGER:
        stalled = since >= MS_LINGER_MS;
        break;
    default:
        stalled = false;
    }
    if (stalled) {
        pagelink_fault(fault, PAGELINK_ERR_TIMEOUT, PAGELINK_NO_INDEX, "%s",
                       what);
    }
    return stalled;
}
