/*
 * Remote pager: what the engine's own files share
 *
 * engine.c starts and stops it and answers queries, place.c finds out what is
 * where at first, fault.c has the thread that serves faults, fetch.c what it
 * asks servers for, evictor.c the thread that makes room, room.c that at the
 * servers, host.c the servers and the threads that connect again.
 *
 * Locks: PagerEngine.lock, nothing else, and never held over a system call
 * but a signal to a thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_STRATEGY_PAGER_ENGINE_INT_H
#define MIGRATION_STRATEGY_PAGER_ENGINE_INT_H

#include "qemu/event_notifier.h"
#include "qemu/queue.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "engine.h"
#include "policy.h"
#include "shares.h"
#include "staging.h"
#include "stride.h"

#define PAGER_NO_HOST           0xff
#define PAGER_FETCH_PAGES       16      /* in a GET that nobody waits for */
#define PAGER_MAX_FETCHES       4       /* of those under way, per host */
#define PAGER_EVICT_BATCH       PAGER_SHARES_HOST
#define PAGER_DETECTORS         16
#define PAGER_MAX_DROPS         4096    /* ranges that wait to be dropped */

/* State of a page: one byte, PG_STATE or'ed with flags */
enum {
    PG_ZERO,                    /* nowhere; reads as zeroes */
    PG_REMOTE,                  /* its host has it */
    PG_FETCHING,                /* asked for, or being put in place */
    PG_CLEAN,                   /* resident, write-protected, host has it */
    PG_DIRTY,                   /* resident */
    PG_EVICT_CLEAN,             /* the evictor is taking it away */
    PG_EVICT_DIRTY,
    PG_STAGED,                  /* in a slot */
    PG_RETURNING,               /* being copied from its slot */
    PG_FILLING,                 /* being filled with zeroes, or looked at */
    PG_STATE = 0x0f,
    PG_STORED = 0x10,           /* its host has a version of it, maybe old */
    PG_WANTED = 0x20,           /* EVICT_*: somebody waits */
    PG_WRITE = 0x40,            /* FETCHING: whoever waits wants to write */
    PG_REMOVED = 0x80,          /* FETCHING, EVICT_*: is zero now */
};

typedef enum PagerWaitFor {
    PAGER_WAIT_FETCH,           /* its page is FETCHING */
    PAGER_WAIT_AGAIN,           /* try again soon */
    PAGER_WAIT_ROOM,            /* when something was evicted */
    PAGER_WAIT_HOST,            /* when the host is there again */
} PagerWaitFor;

/* A thread that waits for a page */
typedef struct PagerWaiter {
    uint64_t page;
    int64_t since;              /* ns */
    uint32_t tid;
    bool write;
    bool wp;                    /* page is there, but write-protected */
    PagerWaitFor on;
} PagerWaiter;

/* A GET; the fault thread's */
typedef struct PagerFetch {
    QSIMPLEQ_ENTRY(PagerFetch) next;
    PagerEngine *e;
    unsigned host;
    PagerLink link;
    unsigned n, done;           /* pages asked for, and put in place */
    bool answered;
    bool failed;
    uint64_t page[PAGER_FETCH_PAGES];
    PageLinkPage pages[PAGER_FETCH_PAGES];
    uint8_t *data;              /* n pages, or more */
    unsigned room;
} PagerFetch;

typedef QSIMPLEQ_HEAD(, PagerFetch) PagerFetchList;

typedef struct PagerHost {
    PagerEngine *e;
    unsigned index;
    char *name;
    uint64_t capacity;
    /*
     * Its thread's who uses it: WRITE the evictor's, the others the fault
     * thread's.  Changed under the lock, so that all can shut it down.
     */
    PageLinkClient *link[PAGER_LINK__MAX];
    /* Fault thread */
    int64_t progress[PAGER_LINK__MAX];  /* ns: something came, or was asked */
    unsigned fetches;           /* GETs on FETCH */
    bool broken[PAGER_LINK__MAX];
    bool silent[PAGER_LINK__MAX];       /* shut down for that */
    uint64_t gather_next;       /* page */
    /* Under the lock */
    uint64_t gather_left;       /* pages to look at before it has none left */
    PageLinkClient *fresh[PAGER_LINK__MAX];     /* connected again */
    unsigned want;              /* links to connect: 1 << PagerLink */
    unsigned attempts;          /* in vain since it was up */
    bool needed;                /* somebody waits */
    uint64_t most;              /* pages that it takes, as far as known */
    int64_t refused_at;         /* ns */
    bool refused;               /* it said that there is no such session */
    bool gone;                  /* it has lost pages: never used again */
    PagerHostInfo info;
    QemuCond cond;              /* want, quit */
    QemuThread thread;
} PagerHost;

typedef struct PagerRange {
    unsigned host;
    PageLinkRange range;
} PagerRange;

typedef struct PagerPlace {
    PagerRegion r;
    uint64_t base;              /* number of its first page among all */
} PagerPlace;

struct PagerEngine {
    /* Fixed */
    PagerConfig config;
    PagerPlace *places;
    unsigned n_places;
    uint64_t pages;
    unsigned n_hosts;
    PagerHost *hosts;
    int uffd;                   /* regions */
    int64_t timeout_ns;
    EventNotifier kick;         /* wakes the fault thread */
    QemuThread fault_thread;
    QemuThread evictor;

    QemuMutex lock;
    /* Under the lock */
    QemuCond evict;             /* wakes the evictor */
    uint8_t *state;             /* per page */
    uint8_t *host;              /* per page, or PAGER_NO_HOST */
    PagerPolicy *policy;
    PagerStaging staging;
    uint64_t version;           /* the last one given */
    uint64_t limit;
    uint64_t ceiling;           /* in force until the limit is reached... */
    uint64_t ceiling_tail;      /* ...staging.tail when it was that high */
    uint64_t staging_limit;     /* slots that may be in use */
    uint64_t headroom;          /* pages kept free for faults */
    uint64_t local;             /* CLEAN, DIRTY, and on the way out */
    uint64_t fetching;
    GArray *waiters;            /* of PagerWaiter */
    GArray *held;               /* of uint32_t: threads */
    GArray *spared;             /* likewise, when all others are poisoned */
    GArray *drops;              /* of PagerRange */
    bool starved;               /* a waiter waits for room */
    bool evicting;              /* the evictor is at work */
    bool full;                  /* no host takes a page */
    bool quit;
    bool gathering, gathered;
    PagerInfo info;             /* counters only */

    /* Fault thread */
    PagerFetchList arrived;     /* answered, not all in place yet */
    PagerFetchList spare;
    PagerStride detectors[PAGER_DETECTORS];
    bool scanning;              /* a gather has begun */
    bool again;                 /* somebody waits for AGAIN */
};

static inline uint8_t pg_state(const PagerEngine *e, uint64_t page)
{
    return e->state[page] & PG_STATE;
}

/* Keeps STORED, clears the other flags */
static inline void pg_set(PagerEngine *e, uint64_t page, uint8_t state)
{
    e->state[page] = (e->state[page] & PG_STORED) | state;
}

static inline uint64_t pager_used(const PagerEngine *e)
{
    return e->local + e->fetching + pager_staging_used(&e->staging);
}

/* engine.c */
PagerPlace *pager_place_of_page(PagerEngine *e, uint64_t page);
bool pager_page_of_address(PagerEngine *e, uint64_t address, uint64_t *page);
void *pager_address(PagerEngine *e, uint64_t page);
void pager_changed(PagerEngine *e);
bool pager_among(uint32_t tid, const GArray *tids);
/* Wake the evictor if there is enough to do for it.  Lock held. */
void pager_wake_evictor(PagerEngine *e);
/* Page @page is not at its host any more, or need not be.  Lock held. */
void pager_drop(PagerEngine *e, uint64_t page);

/* place.c */
/* Where the pages of a region are.  Nobody else is there yet. */
void pager_place_pages(PagerEngine *e, const PagerPlace *p);
/* What is not local holds nothing of value, but may be there */
bool pager_discard_rest(const PagerPlace *p, Error **errp);

/* fault.c */
void *pager_fault_main(void *opaque);
/* Nobody waits for @page any more.  Lock held. */
void pager_satisfied(PagerEngine *e, uint64_t page, bool from_host);
/* Those who wait for @page are to try again.  Lock held. */
void pager_try_again(PagerEngine *e, uint64_t page, PagerWaitFor on);
/* Put a staged page back.  0, or -EAGAIN if not now, or not staged any more. */
int pager_unstage(PagerEngine *e, uint64_t page, bool write);

/* fetch.c, fault thread */
/* Ask for page; its state is FETCHING */
void pager_fetch_demand(PagerEngine *e, uint64_t page);
void pager_fetch_ahead(PagerEngine *e, uint64_t page, uint32_t tid);
/* Put in place what could not be before.  True if something is left. */
bool pager_fetch_arrived(PagerEngine *e);
/* A link has failed: what was asked on it is to be asked again */
bool pager_fetch_poll(PagerEngine *e, PagerHost *h, PagerLink link);
/* Go on with the gather.  True if it is not waiting for anything. */
bool pager_gather_step(PagerEngine *e);
void pager_fetch_destroy(PagerEngine *e);

/* evictor.c */
void *pager_evictor_main(void *opaque);

/* host.c */
bool pager_hosts_start(PagerEngine *e, Error **errp);
void pager_hosts_stop(PagerEngine *e);
void pager_hosts_destroy(PagerEngine *e);
/* The owner of a link found that it does not work; frees it.  No lock. */
void pager_host_failed(PagerHost *h, PagerLink link, const char *why);
/*
 * It does not have a page that it was given.  No lock; the link is the
 * caller's, and fails with the next use.
 */
void pager_host_lost_page(PagerHost *h, uint64_t page);
/* Use the new connection, if there is one.  Lock held. */
bool pager_host_refresh(PagerHost *h, PagerLink link);
/* Somebody waits for this host.  Lock held; true if the state changed. */
bool pager_host_need(PagerHost *h);

/* room.c */
/* For how many pages that it has not got.  Lock held. */
uint64_t pager_host_room(const PagerHost *h);
/*
 * The host that has most room, of those that are UP if any has, for what
 * others take cannot be read now; or PAGER_NO_HOST.  Lock held.
 */
uint8_t pager_host_with_room(PagerEngine *e);
/* Host @h refused @n pages that it had not got.  Lock held. */
void pager_host_refused(PagerEngine *e, PagerHost *h, unsigned n);
/*
 * No host has room, and @n pages need it: give copies up of pages that are
 * resident.  @from: where to look first, and next time.  Evictor.
 *
 * Returns: whether a host may have room now.  DROPs are to be sent first.
 */
bool pager_make_room(PagerEngine *e, uint64_t *from, unsigned n);

#endif
