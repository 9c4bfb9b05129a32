/*
 * memserver: what the server's own files share
 *
 * Threads:
 *   main      accepts, shakes hands (TLS), hands connections to I/O threads
 *   I/O       2 x --threads: those for demand and those for background
 *             connections; each runs its connections to completion over epoll
 *   janitor   frees ended sessions, measures rates, expires
 *
 * A connection begins on a demand thread and moves to a background thread once
 * its HELLO says so; it is only ever touched by the thread that holds it.
 * Other threads speak to it through that thread's inbox.
 *
 * Strangers are connections without a session: those whose HELLO has not come,
 * and those that ask for the status, which all are on one background thread.
 * They have places of their own, a fixed number on each thread.  When those are
 * taken, whoever has been silent longest goes: so neither can strangers keep
 * out sessions, nor one another.
 *
 * Rejected: a thread for each connection (1000 stacks, and every shared lock
 * becomes contended by as many); coroutines or GSources on the main loop (a
 * trip of the main loop for each message, all idle connections polled each
 * time); one pool for both classes (a demand GET would wait for the bulk
 * batches in front of it).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SERVER_INT_H
#define MEMSERVER_SERVER_INT_H

#include "io/channel-tls.h"
#include "qemu/event_notifier.h"
#include "server.h"
#include "session.h"

/* Must hold any message without its pages, and is what a read can run ahead */
#define MS_IN_SIZE              (16 * KiB)
#define MS_IN_FRAMES            64      /* received by one read */
#define MS_OUT_SIZE             (8 * KiB)
#define MS_OUT_FRAMES           PAGELINK_MAX_DATA_BATCH
#define MS_OUT_IOVS             (2 * MS_OUT_FRAMES + 8)
#define MS_SCRATCH_SIZE         (64 * KiB)
#define MS_TICK_MS              1000    /* of threads and janitor */
#define MS_STALL_BYTES          (64 * KiB)  /* fewer in a stall_ms: stalled */
#define MS_STATUS_PLACES        32      /* for status connections */
#define MS_MIN_STRANGERS        16      /* on each demand thread, at least */
QEMU_BUILD_BUG_ON(MS_IN_SIZE < sizeof(PageLinkHeader) + PAGELINK_MAX_TABLE);

typedef struct MsThread MsThread;
typedef struct MsConn MsConn;

typedef enum MsConnState {
    MS_CONN_HELLO,              /* nothing but a HELLO is accepted */
    MS_CONN_READY,              /* waiting for a header and its table */
    MS_CONN_PAYLOAD,            /* in the pages of a PUT */
    MS_CONN_DISCARD,            /* in the pages of a PUT that was refused */
    MS_CONN_WAIT_END,           /* reading nothing until the session is freed */
    MS_CONN_FINISH,             /* send what is queued, then linger */
    MS_CONN_LINGER,             /* sent all: wait for the peer to close */
    MS_CONN_DEAD,
} MsConnState;

/* Owned by one I/O thread at a time; no locks */
struct MsConn {
    MsThread *thread;
    QTAILQ_ENTRY(MsConn) link;  /* in MsThread.conns */
    QTAILQ_ENTRY(MsConn) again; /* in MsThread.ready, if queued */
    QTAILQ_ENTRY(MsConn) silent;    /* in MsThread.strangers, if stranger */
    bool queued;
    bool stranger;
    bool move;                  /* HELLO is answered: belongs elsewhere */
    bool is_unix;
    uint64_t id;
    QIOChannelSocket *sioc;     /* the socket, for epoll */
    QIOChannel *ioc;            /* the socket or TLS over it */
    char *peer;
    uint32_t events;            /* that epoll waits for */
    MsConnState state;
    int64_t opened_ms;
    int64_t asked_ms;           /* when a message last came */
    int64_t progress_ms;        /* when enough last went in or out */
    size_t moved;               /* bytes since then */
    int64_t budget;             /* work left in this turn, in slots looked at */

    /* From HELLO on */
    MsSession *session;         /* or NULL for a STATUS connection */
    MsSession *leaving;         /* one that pins still belong to */
    uint64_t epoch;
    uint32_t features;
    uint8_t role;
    uint8_t class;
    PageLinkAck ack;

    /* Receiving */
    size_t in_pos, in_end;      /* valid part of in */
    PageLinkHeader head;        /* of the message in hand */
    PageLinkEntry entries[PAGELINK_MAX_BATCH];
    uint32_t next_entry;        /* next to be stored */
    uint32_t pages_left;        /* not yet stored, of a PUT */
    uint64_t discard_left;      /* bytes */
    uint32_t reserved;          /* pages charged for this PUT */
    void *frame;                /* the one that is partly filled */
    size_t frame_fill;
    bool put_failed;            /* fault: the first thing that went wrong */
    PageLinkFault fault;

    /* Answering a GET */
    PageLinkRequest reqs[PAGELINK_MAX_BATCH];
    uint32_t nreqs, next_req;
    uint64_t get_id;

    /* Sending */
    size_t out_used;
    unsigned niov, iov_done;
    unsigned npins;
    struct iovec iov[MS_OUT_IOVS];
    void *pins[MS_OUT_FRAMES];  /* a reference each */
    void *big;                  /* a body too long for out, g_malloc()ed */

    uint8_t out[MS_OUT_SIZE];
    uint8_t in[MS_IN_SIZE];
};

typedef struct MsMail {
    enum {
        MS_MAIL_CONN,           /* a connection changes to this thread */
        MS_MAIL_ENDED,          /* drop the connections of a session */
        MS_MAIL_FREED,          /* an ended session has been freed */
        MS_MAIL_STOP,
    } what;
    QSIMPLEQ_ENTRY(MsMail) next;
    MsConn *conn;               /* MS_MAIL_CONN */
    MsSession *session;         /* MS_MAIL_ENDED, with a reference */
    uint64_t conn_id;           /* MS_MAIL_FREED */
    uint64_t request_id;
} MsMail;

/* Who asked for the end of a session, to be told when it has been freed */
typedef struct MsTicket {
    MsThread *thread;
    uint64_t conn_id;
    uint64_t request_id;
} MsTicket;

struct MsThread {
    MsServer *server;           /* these: constant */
    unsigned index;
    int epfd;
    EventNotifier wake;
    QemuThread thread;

    QemuMutex lock;
    QSIMPLEQ_HEAD(, MsMail) inbox;      /* under the lock */

    /* Only the thread itself */
    bool stopping;
    int64_t now_ms;
    QTAILQ_HEAD(, MsConn) conns;
    QTAILQ_HEAD(, MsConn) ready;        /* have more to do */
    QTAILQ_HEAD(, MsConn) strangers;    /* silent for longest: first */
    unsigned nstrangers;
    MsFrameCache cache;
    uint8_t *scratch;
};

struct MsServer {
    MsServerOptions options;    /* constant */
    int64_t started_ms;
    MsSlab *slab;
    MsSessions sessions;
    MsThread *threads;          /* demand threads first, then background */
    unsigned nthreads;
    GPtrArray *listeners;       /* main thread */
    QTAILQ_HEAD(, MsShake) shakes;      /* main thread */
    unsigned nshakes;           /* main thread; those not given up */
    guint paused;               /* main thread; timer that accepts again */

    uint32_t connections;       /* atomic; all */
    uint32_t members;           /* atomic; those with a session */
    uint64_t refused;           /* atomic: connections */
    uint64_t next_conn_id;      /* atomic */
    uint32_t next_thread[2];    /* atomic: round robin, by class */

    QemuThread janitor;
    QemuMutex janitor_lock;
    QemuCond janitor_cond;
    bool janitor_work;          /* under janitor_lock */
    bool janitor_stop;
};

/* server.c */
void ms_server_tell_ended(MsServer *server, MsSession *session);

/**
 * ms_server_strangers: places for connections without a session, on each
 *                      demand thread
 */
unsigned ms_server_strangers(const MsServerOptions *options);

/* thread.c: the I/O threads */
bool ms_thread_init(MsThread *thread, MsServer *server, unsigned index,
                    Error **errp);
void ms_thread_start(MsThread *thread);

/**
 * ms_thread_cleanup: after it has returned, or if it was never started
 */
void ms_thread_cleanup(MsThread *thread);

/**
 * ms_thread_post: the mail is taken over (any thread)
 */
void ms_thread_post(MsThread *thread, MsMail *mail);

/**
 * ms_thread_pick: the next one of a class in turn
 */
MsThread *ms_thread_pick(MsServer *server, uint8_t class);

/* conn.c: the life of a connection, its bytes */
MsConn *ms_conn_new(MsServer *server, QIOChannelSocket *sioc,
                    QIOChannel *ioc);
void ms_conn_free(MsConn *conn);

/**
 * ms_conn_run: do what can be done without waiting
 *
 * @events: set to what epoll is to wait for; 0 if there is more to do at once
 *
 * Sets conn->state to MS_CONN_DEAD when the connection is to be freed.
 */
void ms_conn_run(MsConn *conn, uint32_t *events);

/**
 * ms_conn_is_stalled: has the peer stopped in the middle of something?
 *
 * Or is it so slow that it might as well have, or silent where it must not be.
 *
 * @request_id: set to that of the message in hand, 0 if that is not known
 */
bool ms_conn_is_stalled(const MsConn *conn, int64_t now_ms,
                        uint64_t *request_id, PageLinkFault *fault);

/**
 * ms_conn_progress: something is done; the peer's time begins anew
 */
void ms_conn_progress(MsConn *conn);

/**
 * ms_conn_drop_session: leave it; frames being sent hold it until they are out
 */
void ms_conn_drop_session(MsConn *conn);

/**
 * ms_conn_fail: tell the peer, send nothing else, and close
 */
void ms_conn_fail(MsConn *conn, uint64_t request_id,
                  const PageLinkFault *fault);

/**
 * ms_conn_refuse: tell the peer and go on
 */
void ms_conn_refuse(MsConn *conn, uint64_t request_id,
                    const PageLinkFault *fault);

/**
 * ms_conn_reply: queue a message whose body is short
 */
void ms_conn_reply(MsConn *conn, uint16_t type, uint16_t flags,
                   uint32_t count, uint64_t request_id,
                   const void *body, uint32_t length);

/**
 * ms_conn_reply_big: queue a message with a body that is taken over
 */
void ms_conn_reply_big(MsConn *conn, uint16_t type, uint32_t count,
                       uint64_t request_id, void *body, uint32_t length);

/**
 * ms_conn_out_has_room: can the answer to any message be queued?
 */
bool ms_conn_out_has_room(const MsConn *conn);

/**
 * ms_conn_out_page: queue a page, with its reference
 */
void ms_conn_out_page(MsConn *conn, void *frame);

/**
 * ms_conn_out_bytes: room for @length bytes, queued
 */
uint8_t *ms_conn_out_bytes(MsConn *conn, size_t length);

/* request.c: what messages do */

/**
 * ms_request_hello, ms_request_message: act on the message in conn->head
 * @body: its table
 */
void ms_request_hello(MsConn *conn, const uint8_t *body);
void ms_request_message(MsConn *conn, const uint8_t *body);

/**
 * ms_request_store: store entries of a PUT, up to the next one that needs a
 *                   page which is not among @frames
 * @frames: @n received pages, all taken over
 */
void ms_request_store(MsConn *conn, void **frames, unsigned n);

/**
 * ms_request_get: queue the next part of the answer to a GET
 */
void ms_request_get(MsConn *conn);

#endif /* MEMSERVER_SERVER_INT_H */
