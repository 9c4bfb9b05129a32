/*
 * Remote pager: the engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Keeps regions of private anonymous memory whole of which only some pages
 * are resident: the others are at page link servers.  It knows nothing of
 * guests; tests run it with a few megabytes and threads that use them.
 *
 * Guarantees: whoever touches a page sees what was last written to it, or
 * waits; never anything else, whatever becomes of the servers.  A server that
 * says that it has not got a page that it was given is lost for good: with it
 * went data, and zeroes instead would be a wrong answer.  What is
 * resident, staged and under way stays under the limit, for as long as the
 * servers take pages.  A page whose server has acknowledged it is never sent
 * again unless it was written to.
 *
 * A page is in one state at a time:
 *
 *              fault                  the server answers
 *     REMOTE ---------> FETCHING ----------------------------+
 *        ^                                                   v
 *        |              fault: filled with zeroes   CLEAN <-----> DIRTY
 *        |      ZERO --------------------------->     |  write      |
 *        |        ^                                   |             |
 *        |        | was all zero     fault: copied    v             v
 *        +------- STAGED -----------------------> (back)       EVICTING
 *      safe       ^   the server has it                             |
 *                 +-------------------------------------------------+
 *                                moved away
 *
 * CLEAN pages are write-protected; the first write makes them DIRTY.  That is
 * a fault, and not the kernel's asynchronous dirty tracking, because a page
 * loses its write-protect bit when it is moved: a write between a scan of
 * the bits and the move would be lost.
 *
 * Threads: one serves faults, and is the only one that puts pages into a
 * region: so the order of removals (balloon, discard) and arrivals is that in
 * which it reads and handles them.  One evicts; one per server connects
 * again.  None of them touches a region's memory, takes a lock of the
 * caller's, or waits for anything without a timeout or a wake-up.
 *
 * Rejected: a lock or an atomic per page (one lock, held for some hundred
 * nanoseconds at a time, has never shown in a profile); a pool of fault
 * threads (one serves several hundred thousand faults a second; what a fault
 * waits for is the network, and that is pipelined).
 */
#ifndef MIGRATION_STRATEGY_PAGER_ENGINE_H
#define MIGRATION_STRATEGY_PAGER_ENGINE_H

#include "../../memserver/client.h"
#include "histogram.h"

typedef struct PagerEngine PagerEngine;

typedef struct PagerRegion {
    const char *name;
    uint16_t block;             /* on the links */
    void *host;                 /* private, anonymous, no huge pages */
    uint64_t pages;
    /* As in SplitBlockLayout; read by pager_engine_new() only */
    const unsigned long *local;
    const unsigned long *remote;
    const uint8_t *extent_host;
} PagerRegion;

typedef enum PagerLink {
    PAGER_LINK_DEMAND,          /* pages that somebody waits for */
    PAGER_LINK_FETCH,           /* prefetch and gather */
    PAGER_LINK_WRITE,           /* evicted pages */
    PAGER_LINK__MAX,
} PagerLink;

typedef enum PagerHostState {
    PAGER_HOST_UP,
    PAGER_HOST_DEGRADED,        /* being connected again; nobody waits */
    PAGER_HOST_LOST,            /* somebody waits */
} PagerHostState;

typedef struct PagerHostConfig {
    const char *name;
    uint64_t capacity;          /* pages */
} PagerHostConfig;

typedef struct PagerConfig {
    const PagerRegion *regions;
    unsigned n_regions;
    const PagerHostConfig *hosts;
    unsigned n_hosts;
    uint64_t limit;             /* pages */
    uint64_t last_version;      /* that a page at a server may have */
    int timeout_ms;             /* a server that is silent is lost; 0: 10 s */
    bool no_move;               /* do without UFFDIO_MOVE, for tests */
    /*
     * Make a connection with @role of owner; @take: with the flag TAKE.  On
     * any of the engine's threads, and on the caller's in
     * pager_engine_new().  @refused: NULL, or set when the server answers,
     * and says that we do not own a session there.
     */
    PageLinkClient *(*connect)(void *opaque, unsigned host, PagerLink link,
                               bool take, bool *refused, Error **errp);
    /*
     * Something that pager_engine_query() tells has changed: the state of a
     * host, or a gather is done.  On one of the engine's threads; must not
     * wait, and must not call the engine but for a query.
     */
    void (*changed)(void *opaque);
    void *opaque;
} PagerConfig;

typedef struct PagerHostInfo {
    PagerHostState state;
    uint64_t capacity;          /* pages */
    uint64_t stored;            /* pages with data, as far as is known */
    uint64_t fetched;           /* pages */
    uint64_t written;
    uint64_t dropped;
    uint64_t refused;           /* in vain, since it was full */
    uint64_t reconnects;
    PagerHistogram latency;     /* faults that waited for it */
    char *error;                /* the last one, or NULL */
} PagerHostInfo;

typedef struct PagerInfo {
    uint64_t pages;             /* in all regions */
    uint64_t limit;
    uint64_t resident;          /* in the regions, those under way included */
    uint64_t staged;            /* slots in use */
    uint64_t remote;
    uint64_t zero;              /* pages that are nowhere */
    uint64_t faults;            /* pages asked for from a server */
    uint64_t faults_zero;
    uint64_t faults_staged;
    uint64_t faults_write;      /* first writes to clean pages */
    uint64_t prefetched;
    uint64_t prefetch_used;     /* as far as the next faults tell */
    uint64_t evicted_clean;     /* without being written */
    uint64_t evicted_dirty;
    uint64_t evicted_zero;
    uint64_t removed;           /* by a balloon or the like */
    uint64_t busy;              /* could not be moved */
    /*
     * Resident pages that were not there, which only a removal explains that
     * is not known yet: clean and dirty ones that were to be taken away
     */
    uint64_t absent_clean;
    uint64_t absent_dirty;
    uint64_t absent_read;       /* and clean ones that were read: none is */
    unsigned waiting;           /* faults, now */
    bool full;                  /* no server takes pages any more */
    bool gathering;
    bool gathered;
    unsigned n_hosts;
    PagerHostInfo *hosts;
} PagerInfo;

/*
 * pager_engine_new: take the sessions over, discard what is not local, and
 * start
 *
 * Waits for the servers.  From its return on, faults are served.
 */
PagerEngine *pager_engine_new(const PagerConfig *config, Error **errp);

/*
 * pager_engine_set_limit: any thread
 *
 * A lower limit is reached by and by: of the room that is made until then,
 * faults get half.
 */
void pager_engine_set_limit(PagerEngine *e, uint64_t pages);

/*
 * pager_engine_gather: bring everything home
 *
 * In the background; @changed tells when it is done, and then
 * pager_engine_free() ends the sessions and leaves the regions as ordinary
 * memory.  The limit does not hold any more.  Any thread.
 *
 * A server that is not there holds up no other's pages.  One that says that
 * the session is gone is lost as soon as the gather needs it.
 */
void pager_engine_gather(PagerEngine *e);

/* pager_engine_query: any thread; pager_info_clear() when done */
void pager_engine_query(PagerEngine *e, PagerInfo *info);
void pager_info_clear(PagerInfo *info);

/*
 * pager_engine_hold: does thread @tid wait for a host that is not there, or
 * for room while one is not there?  If so it goes on waiting until
 * pager_engine_release(), even if the host is there again.  Any thread.
 *
 * It goes on before that if the page that it waits for comes for another
 * reason: others wait for it, too, or a gather.
 */
bool pager_engine_hold(PagerEngine *e, uint32_t tid);

/* pager_now: the clock of all times here, ns; any thread */
int64_t pager_now(void);

/*
 * pager_engine_waits: does anybody wait for a page or for room who did so at
 * @since (of pager_now()), and is not held?  Any thread.
 */
bool pager_engine_waits(PagerEngine *e, int64_t since);

/*
 * pager_engine_settled: all hosts are there, nobody waits for one or is held
 *
 * As far as is known: a host may be silent since a moment ago.  Any thread.
 */
bool pager_engine_settled(PagerEngine *e);

/* pager_engine_release: all that are held may go on.  Any thread. */
void pager_engine_release(PagerEngine *e);

/*
 * pager_engine_poison: from now on, fail all that wait for a host that is
 * lost, or will be, but the threads @keep
 *
 * For the end of the process, when their server may never come back: the
 * kernel's accesses fail with EFAULT, others' with SIGBUS.  Any thread.
 */
void pager_engine_poison(PagerEngine *e, const uint32_t *keep, unsigned n);

/*
 * pager_engine_end_sessions: have the servers forget all, those that answer
 *
 * When nobody needs the pages any more, since the process ends or what was
 * attached is given up.  Waits for the servers.  Any thread.
 */
void pager_engine_end_sessions(PagerEngine *e);

/*
 * pager_engine_free: stop, unregister, free
 *
 * Waits for servers that are being connected, and after a gather for all.
 *
 * Pages that are not resident are zero from then on: nobody may use the
 * regions any more, unless a gather is done.
 */
void pager_engine_free(PagerEngine *e);

#endif
