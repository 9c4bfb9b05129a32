/*
 * memserver: sessions
 *
 * A session is a store of pages that belongs to whoever knows its UUID and its
 * 128-bit key: the two together are its name, so that nobody can find out about
 * a session, or be in its way, by its UUID alone.  It lives until its owner
 * ends it or, if so configured, until it has been idle without a connection for
 * the time of expiry; never because a connection broke.
 *
 * Ownership is handed over with an epoch.  Guarantee: once the HELLO that takes
 * ownership is answered, no write of an older epoch takes effect, neither one
 * that comes later nor one that was already half received.  The former owner
 * can still read.
 *
 * Threads: all functions from any thread, unless they say otherwise.
 *
 * Locks: MsSession.owner_lock, then MsSessions.lock or MsSession.drain_lock;
 * none is taken while a stripe of a store is held.  A thread waits for writers
 * with the session's own locks only: what happens in one session holds up no
 * other.
 *
 * Rejected: an rwlock held by every writer (a take-over could starve behind
 * writers that overlap); locking the table for each message; ending a session
 * in the thread that was asked to (freeing 100 GiB takes seconds, in which the
 * thread's other connections would stand still).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SESSION_H
#define MEMSERVER_SESSION_H

#include "qemu/queue.h"
#include "qemu/thread.h"
#include "codec.h"
#include "store.h"

/* What a session has seen since it was made; all atomic */
typedef struct MsCounters {
    uint64_t puts;
    uint64_t gets;
    uint64_t stale;
    uint64_t refused;
    uint64_t bytes_in;
    uint64_t bytes_out;
} MsCounters;

typedef struct MsSession {
    /* Constant */
    uint8_t uuid[PAGELINK_UUID_SIZE];
    uint8_t key[PAGELINK_KEY_SIZE];
    char name[PAGELINK_NAME_SIZE + 1];  /* with a terminator */
    int64_t created_ms;
    MsAccount account;
    MsStore *store;

    /* Atomic */
    uint32_t refs;
    uint32_t connections;       /* incremented under the table's lock */
    bool taken;                 /* ownership has moved at least once */
    int64_t used_ms;            /* time of the last message */
    MsCounters counters;

    /* Handing over, see ms_session_write_begin() */
    QemuMutex owner_lock;       /* held until the writers are gone */
    uint64_t epoch;             /* atomic; set under owner_lock */
    bool ended;                 /* likewise; by expiry under the table's lock */
    uint32_t writers;           /* atomic */
    bool draining;              /* atomic */
    QemuMutex drain_lock;
    QemuCond drained;           /* writers reached 0 while draining */

    QemuMutex block_lock;       /* serialises ms_store_add_block() */

    /* Janitor only */
    uint64_t last_in, last_out;
    bool idle_reported;

    uint64_t in_rate, out_rate; /* atomic; bytes a second */

    /* Under the table's lock: in MsSessions.all, then in MsSessions.dying */
    QTAILQ_ENTRY(MsSession) link;
    void *ticket;               /* who waits for the end; server.c's */
} MsSession;

typedef QTAILQ_HEAD(MsSessionList, MsSession) MsSessionList;

typedef struct MsSessions {
    /* Constant */
    MsAccount account;          /* --max-memory */
    uint64_t quota;             /* pages, UINT64_MAX: none */
    uint32_t max_sessions;
    uint32_t max_connections;   /* of one session */
    void (*on_dying)(void *opaque);     /* called without locks */
    void *opaque;

    QemuMutex lock;
    /* Under the lock */
    MsSessionList all;
    MsSessionList dying;        /* unpublished and unreferenced */
    uint32_t n;
} MsSessions;

/**
 * ms_sessions_init:
 * @max_pages: what all sessions together may use
 * @quota: what each may use, or 0
 * @max_connections: of one session; owners may have as many again after a
 *                   take-over, so that who owned it before cannot keep them out
 * @on_dying: told that ms_sessions_reap() has work to do
 */
void ms_sessions_init(MsSessions *t, uint64_t max_pages, uint64_t quota,
                      uint32_t max_sessions, uint32_t max_connections,
                      void (*on_dying)(void *), void *opaque);

/**
 * ms_sessions_destroy: all sessions must be unreferenced
 */
void ms_sessions_destroy(MsSessions *t, MsFrameCache *cache);

/**
 * ms_sessions_hello: find or make the session that a HELLO asks for
 *
 * May wait for the writers of a former owner.
 *
 * Returns: the session with a reference and counted as connected, or NULL with
 *          @fault set.  That a session does not exist cannot be told from a
 *          wrong key, neither by the answer nor by the time it takes.
 */
MsSession *ms_sessions_hello(MsSessions *t, const PageLinkHello *hello,
                             PageLinkFault *fault);

/**
 * ms_session_disconnect: give back what ms_sessions_hello() returned
 */
void ms_session_disconnect(MsSessions *t, MsSession *s);

/**
 * ms_session_ref, ms_session_unref: hold the struct and its store
 */
void ms_session_ref(MsSession *s);
void ms_session_unref(MsSessions *t, MsSession *s);

/**
 * ms_session_write_begin: may this epoch write?
 *
 * If so, it may until ms_session_write_end(), which must follow soon: a
 * take-over waits for it.
 */
bool ms_session_write_begin(MsSession *s, uint64_t epoch,
                            PageLinkFault *fault);
void ms_session_write_end(MsSession *s);

/**
 * ms_session_end: unpublish a session by its owner's word
 * @ticket: kept in the session for ms_sessions_reap()
 *
 * Afterwards nobody finds the session any more and no write takes effect; it
 * is freed by ms_sessions_reap() after the last reference is gone.
 */
bool ms_session_end(MsSessions *t, MsSession *s, uint64_t epoch,
                    void *ticket, PageLinkFault *fault);

/**
 * ms_sessions_reap: free one session that is unpublished and unreferenced
 * @ticket: set to what ms_session_end() was given, may be NULL
 *
 * Returns: false if there was none
 */
bool ms_sessions_reap(MsSessions *t, MsFrameCache *cache, void **ticket);

/**
 * ms_sessions_tick: rates, idle report, expiry; called once in a while
 * @now_ms: g_get_monotonic_time() / 1000
 * @interval_ms: since the last call
 * @report_ms: report a session that has been idle for this long
 * @expiry_ms: unpublish sessions without connection that have been idle for
 *             this long, 0: never
 * @taken_expiry_ms: the same for those that have been taken over, which may be
 *                   all there is of the memory of a VM that runs
 */
void ms_sessions_tick(MsSessions *t, int64_t now_ms, int64_t interval_ms,
                      int64_t report_ms, int64_t expiry_ms,
                      int64_t taken_expiry_ms);

/**
 * ms_sessions_status: sums over all sessions, and records of some
 * @only: only this session, or NULL for all
 * @max: room in @records
 *
 * Returns: number of records filled in
 */
uint32_t ms_sessions_status(MsSessions *t, MsSession *only,
                            PageLinkStatus *sum,
                            PageLinkSessionStatus *records, uint32_t max);

/**
 * ms_sessions_count: number of live sessions
 */
uint32_t ms_sessions_count(MsSessions *t);

#endif /* MEMSERVER_SESSION_H */
