/*
 * Remote pager: the thread that serves faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One poll() over userfaultfd and the links, so that a fault that the network
 * has to answer costs no switch of threads here: read the fault, send the
 * GET, receive into place, UFFDIO_COPY.
 *
 * A removal (balloon, discard) is an event in the same queue: whoever removes
 * waits until it was read.  Pages that are put in place before that are
 * removed with the rest; any that the kernel is asked to put there between
 * the removal's begin and our reading of it fail with EAGAIN; afterwards we
 * know that they are zero.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/error-report.h"
#include "migration/pagelink.h"
#include "engine-int.h"
#include "uffd.h"
#include "../trace.h"

#define READ_EVENTS     32
/* While something has to be tried again that nobody tells us to */
#define AGAIN_MS        1
/* While answers are outstanding: look whether their host is silent */
#define WATCH_MS        1000

/* Lock held */
static PagerWaiter *waiter(PagerEngine *e, unsigned i)
{
    return &g_array_index(e->waiters, PagerWaiter, i);
}

static void wait_for(PagerEngine *e, PagerWaiter w, PagerWaitFor on)
{
    w.on = on;
    g_array_append_val(e->waiters, w);
    e->again |= on == PAGER_WAIT_AGAIN;
}

void pager_satisfied(PagerEngine *e, uint64_t page, bool from_host)
{
    int64_t now = 0;
    unsigned i = 0;

    while (i < e->waiters->len) {
        PagerWaiter *w = waiter(e, i);

        if (w->page != page) {
            i++;
            continue;
        }
        if (from_host && e->host[page] != PAGER_NO_HOST) {
            now = now ?: pager_now();
            pager_histogram_add(&e->hosts[e->host[page]].info.latency,
                                now - w->since);
        }
        g_array_remove_index_fast(e->waiters, i);
    }
}

void pager_try_again(PagerEngine *e, uint64_t page, PagerWaitFor on)
{
    unsigned i;

    for (i = 0; i < e->waiters->len; i++) {
        if (waiter(e, i)->page == page) {
            waiter(e, i)->on = on;
            e->again |= on == PAGER_WAIT_AGAIN;
        }
    }
}

/* A page is resident now that was not before.  Lock held. */
static void arrived(PagerEngine *e, uint64_t page, uint8_t state,
                    PagerPolicyWhy why)
{
    pg_set(e, page, state);
    pager_policy_add(e->policy, page, why);
    pager_wake_evictor(e);
}

/*
 * Fill a page that is nowhere, or find out whether one that should be there
 * is.  State FILLING; @old: what it was before.
 *
 * Here and below: what fails wakes nobody by itself.  A thread may have begun
 * to wait when a gather unregistered the region, after those were woken who
 * waited already.
 */
static bool fill(PagerEngine *e, const PagerWaiter *w, uint8_t old)
{
    void *host = pager_address(e, w->page);
    int ret = pager_uffd_zero(e->uffd, host);

    if (ret && ret != -EAGAIN) {
        pager_uffd_wake(e->uffd, host, PAGELINK_PAGE_SIZE);
    }
    if (!ret && old == PG_CLEAN) {
        /* One that was removed is ZERO by now */
        warn_report("split memory: page %" PRIu64 " was not there, and is "
                    "zero now", w->page);
    }
    QEMU_LOCK_GUARD(&e->lock);
    if (ret == -EEXIST) {
        /* An old message of a fault that was served */
        arrived(e, w->page, old == PG_CLEAN ? PG_CLEAN : PG_DIRTY,
                PAGER_POLICY_MISS);
    } else if (ret == -EAGAIN) {
        pg_set(e, w->page, old);
        if (old == PG_ZERO) {
            e->local--;
        } else {
            pager_policy_add(e->policy, w->page, PAGER_POLICY_MISS);
        }
        return false;
    } else if (ret) {
        /* It is not memory of ours any more */
        pg_set(e, w->page, PG_ZERO);
        e->local--;
    } else {
        e->info.absent_read += old == PG_CLEAN;
        e->info.faults_zero++;
        arrived(e, w->page, PG_DIRTY, PAGER_POLICY_MISS);
    }
    pager_satisfied(e, w->page, false);
    return true;
}

int pager_unstage(PagerEngine *e, uint64_t page, bool write)
{
    void *host = pager_address(e, page);
    PagerSlot slot = { 0 };
    uint64_t i = 0;
    bool found, wp;
    int ret;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (pg_state(e, page) != PG_STAGED) {
            /* The evictor was faster, and its host has it now */
            return -EAGAIN;
        }
        found = pager_staging_find(&e->staging, page, &i);
        assert(found);
        slot = *pager_staging_slot(&e->staging, i);
        pg_set(e, page, PG_RETURNING);
        e->local++;
    }
    /* What is in the slot is what the host has: track the first write */
    wp = slot.state == PAGER_SLOT_SAFE && !slot.zero && !write;
    ret = slot.zero && slot.state == PAGER_SLOT_SAFE ?
          pager_uffd_zero(e->uffd, host) :
          pager_uffd_copy(e->uffd, host, pager_staging_data(&e->staging, i),
                          wp);
    if (ret && ret != -EAGAIN) {
        pager_uffd_wake(e->uffd, host, PAGELINK_PAGE_SIZE);
    }
    QEMU_LOCK_GUARD(&e->lock);
    if (ret == -EAGAIN) {
        pg_set(e, page, PG_STAGED);
        e->local--;
        return ret;
    }
    pager_staging_void(&e->staging, i);
    if (ret && ret != -EEXIST) {
        pg_set(e, page, PG_ZERO);
        e->local--;
    } else {
        arrived(e, page, wp && !ret ? PG_CLEAN : PG_DIRTY, PAGER_POLICY_SOFT);
    }
    pager_satisfied(e, page, false);
    return 0;
}

/* The first write to a clean page.  State DIRTY. */
static bool unprotect(PagerEngine *e, const PagerWaiter *w)
{
    void *host = pager_address(e, w->page);
    int ret = pager_uffd_protect(e->uffd, host, PAGELINK_PAGE_SIZE, false);

    if (ret && ret != -EAGAIN) {
        pager_uffd_wake(e->uffd, host, PAGELINK_PAGE_SIZE);
    }
    QEMU_LOCK_GUARD(&e->lock);
    if (ret == -EAGAIN) {
        return false;
    }
    pager_satisfied(e, w->page, false);
    return true;
}

typedef enum Action {
    DONE,
    FILL,
    UNSTAGE,
    UNPROTECT,
    FETCH,
} Action;

/*
 * What is in force of the limit.  When that was lowered, those who wait and the
 * evictor share what it makes room for, or nobody would get a page before it
 * has written the whole difference.  Lock held.
 */
static uint64_t ceiling(PagerEngine *e)
{
    uint64_t given_back = (e->staging.tail - e->ceiling_tail) / 2;

    if (pager_used(e) <= e->limit) {
        e->ceiling = e->limit;
    }
    return MAX(e->limit, e->ceiling - MIN(given_back, e->ceiling));
}

/* Room for one more page, as far as we can know?  Lock held. */
static bool room(PagerEngine *e)
{
    /* When the process ends, nobody is to wait for room that none may make */
    return pager_used(e) < ceiling(e) || e->full || e->gathering || e->spared;
}

/* What is to be done for @w; takes the page for it.  Lock held. */
static Action decide(PagerEngine *e, PagerWaiter *w, uint8_t *old)
{
    uint8_t state = pg_state(e, w->page);

    *old = state;
    if (!e->gathering && pager_among(w->tid, e->held)) {
        wait_for(e, *w, PAGER_WAIT_HOST);
        return DONE;
    }
    switch (state) {
    case PG_ZERO:
    case PG_REMOTE:
        if (!room(e)) {
            e->starved = true;
            qemu_cond_signal(&e->evict);
            wait_for(e, *w, PAGER_WAIT_ROOM);
            return DONE;
        }
        if (state == PG_ZERO) {
            pg_set(e, w->page, PG_FILLING);
            e->local++;
            return FILL;
        }
        pg_set(e, w->page, PG_FETCHING | (w->write ? PG_WRITE : 0));
        e->info.remote--;
        e->fetching++;
        e->info.faults++;
        wait_for(e, *w, PAGER_WAIT_FETCH);
        return FETCH;
    case PG_FETCHING:
        e->state[w->page] |= w->write ? PG_WRITE : 0;
        wait_for(e, *w, PAGER_WAIT_FETCH);
        return DONE;
    case PG_EVICT_CLEAN:
    case PG_EVICT_DIRTY:
        e->state[w->page] |= PG_WANTED;
        wait_for(e, *w, PAGER_WAIT_AGAIN);
        return DONE;
    case PG_STAGED:
        e->info.faults_staged++;
        return UNSTAGE;
    case PG_CLEAN:
    case PG_DIRTY:
        if (w->wp) {
            e->info.faults_write += state == PG_CLEAN;
            pg_set(e, w->page, PG_DIRTY);
            return UNPROTECT;
        }
        pg_set(e, w->page, PG_FILLING);
        return FILL;
    default:
        /* RETURNING and FILLING are our own, and never last */
        g_assert_not_reached();
    }
}

static void serve(PagerEngine *e, PagerWaiter w)
{
    bool done = true;
    Action action;
    uint8_t old;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        action = decide(e, &w, &old);
    }
    switch (action) {
    case DONE:
        return;
    case FILL:
        done = fill(e, &w, old);
        break;
    case UNSTAGE:
        done = pager_unstage(e, w.page, w.write) == 0;
        break;
    case UNPROTECT:
        done = unprotect(e, &w);
        break;
    case FETCH:
        pager_fetch_demand(e, w.page);
        pager_fetch_ahead(e, w.page, w.tid);
        return;
    }
    trace_pager_fault(w.page, old, w.write, w.wp, done);
    if (!done) {
        QEMU_LOCK_GUARD(&e->lock);
        wait_for(e, w, PAGER_WAIT_AGAIN);
    }
}

/* Serve those again who could not be served before */
static void serve_again(PagerEngine *e)
{
    g_autoptr(GArray) again = g_array_new(false, false, sizeof(PagerWaiter));
    unsigned i = 0;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->again = false;
        while (i < e->waiters->len) {
            PagerWaiter *w = waiter(e, i);

            if (w->on == PAGER_WAIT_FETCH) {
                i++;
            } else {
                g_array_append_val(again, *w);
                g_array_remove_index_fast(e->waiters, i);
            }
        }
    }
    for (i = 0; i < again->len; i++) {
        serve(e, g_array_index(again, PagerWaiter, i));
    }
}

/* The process ends: fail those whose host may never come back */
static void poison(PagerEngine *e)
{
    g_autoptr(GArray) pages = g_array_new(false, false, sizeof(uint64_t));
    unsigned i;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        for (i = 0; e->spared && i < e->waiters->len; i++) {
            const PagerWaiter *w = waiter(e, i);

            if (w->on == PAGER_WAIT_HOST &&
                e->host[w->page] != PAGER_NO_HOST &&
                e->hosts[e->host[w->page]].info.state == PAGER_HOST_LOST &&
                !pager_among(w->tid, e->spared)) {
                g_array_append_val(pages, w->page);
            }
        }
    }
    for (i = 0; i < pages->len; i++) {
        pager_uffd_poison(e->uffd,
                          pager_address(e, g_array_index(pages, uint64_t, i)),
                          PAGELINK_PAGE_SIZE);
    }
}

static void handle_fault(PagerEngine *e, const struct uffd_msg *m,
                         int64_t now)
{
    PagerWaiter w = {
        .since = now,
        .tid = m->arg.pagefault.feat.ptid,
        .write = m->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE |
                                           UFFD_PAGEFAULT_FLAG_WP),
        .wp = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
    };

    if (pager_page_of_address(e, m->arg.pagefault.address, &w.page)) {
        serve(e, w);
    }
}

/* The kernel is about to remove a page.  Lock held. */
static void remove_page(PagerEngine *e, uint64_t page)
{
    uint64_t i;

    switch (pg_state(e, page)) {
    case PG_ZERO:
        return;
    case PG_FETCHING:
    case PG_EVICT_CLEAN:
    case PG_EVICT_DIRTY:
        e->state[page] |= PG_REMOVED;
        break;
    case PG_STAGED:
        if (pager_staging_find(&e->staging, page, &i)) {
            pager_staging_void(&e->staging, i);
        }
        pg_set(e, page, PG_ZERO);
        pager_drop(e, page);
        break;
    case PG_REMOTE:
        e->info.remote--;
        pg_set(e, page, PG_ZERO);
        pager_drop(e, page);
        break;
    default:
        e->local--;
        pg_set(e, page, PG_ZERO);
        pager_drop(e, page);
        break;
    }
    e->info.removed++;
}

static void handle_remove(PagerEngine *e, const struct uffd_msg *m)
{
    uint64_t address;

    trace_pager_remove(m->arg.remove.start, m->arg.remove.end);
    QEMU_LOCK_GUARD(&e->lock);
    for (address = m->arg.remove.start; address < m->arg.remove.end;
         address += PAGELINK_PAGE_SIZE) {
        uint64_t page;

        if (pager_page_of_address(e, address, &page)) {
            remove_page(e, page);
        }
    }
}

static void read_events(PagerEngine *e)
{
    struct uffd_msg msgs[READ_EVENTS];
    ssize_t n = read(e->uffd, msgs, sizeof(msgs)) / (ssize_t)sizeof(msgs[0]);
    int64_t now = pager_now();
    ssize_t i;

    /*
     * First what is removed: those who remove go on already, and to serve a
     * fault may put other pages in place that have arrived.
     */
    for (i = 0; i < n; i++) {
        if (msgs[i].event == UFFD_EVENT_REMOVE) {
            handle_remove(e, &msgs[i]);
        }
    }
    for (i = 0; i < n; i++) {
        if (msgs[i].event == UFFD_EVENT_PAGEFAULT) {
            handle_fault(e, &msgs[i], now);
        }
    }
}

/* Somebody has news: connections, room, a new limit, a gather, the end */
static bool handle_kick(PagerEngine *e)
{
    unsigned i, link;

    event_notifier_test_and_clear(&e->kick);
    QEMU_LOCK_GUARD(&e->lock);
    for (i = 0; i < e->n_hosts; i++) {
        for (link = PAGER_LINK_DEMAND; link <= PAGER_LINK_FETCH; link++) {
            if (pager_host_refresh(&e->hosts[i], link)) {
                e->hosts[i].broken[link] = false;
            }
        }
    }
    e->again = true;
    return !e->quit;
}

/* poll() over everything; returns the number of entries */
static unsigned watch(PagerEngine *e, struct pollfd *fds, bool hurry)
{
    unsigned n = 2, i, link;
    int timeout = -1;

    fds[0] = (struct pollfd) { .fd = e->uffd, .events = POLLIN };
    fds[1] = (struct pollfd) {
        .fd = event_notifier_get_fd(&e->kick), .events = POLLIN
    };
    for (i = 0; i < e->n_hosts; i++) {
        for (link = PAGER_LINK_DEMAND; link <= PAGER_LINK_FETCH; link++) {
            PageLinkClient *c = e->hosts[i].link[link];

            fds[n++] = (struct pollfd) {
                .fd = c ? pagelink_client_fd(c) : -1, .events = POLLIN
            };
            if (c && pagelink_client_outstanding(c)) {
                timeout = WATCH_MS;
            }
        }
    }
    if (hurry) {
        timeout = AGAIN_MS;
    }
    while (poll(fds, n, timeout) < 0 && errno == EINTR) {
        /* a signal */
    }
    return n;
}

static void poll_links(PagerEngine *e, const struct pollfd *fds)
{
    int64_t now = 0;
    unsigned i, link;

    for (i = 0; i < e->n_hosts; i++) {
        for (link = PAGER_LINK_DEMAND; link <= PAGER_LINK_FETCH; link++) {
            PagerHost *h = &e->hosts[i];
            PageLinkClient *c = h->link[link];

            if (!c) {
                continue;
            }
            if (h->broken[link] || fds[2 + i * 2 + link].revents) {
                pager_fetch_poll(e, h, link);
            } else if (pagelink_client_outstanding(c)) {
                now = now ?: pager_now();
                if (now - h->progress[link] > e->timeout_ns) {
                    h->silent[link] = true;
                    pagelink_client_shutdown(c);
                }
            }
        }
    }
}

void *pager_fault_main(void *opaque)
{
    PagerEngine *e = opaque;
    g_autofree struct pollfd *fds = g_new(struct pollfd, 2 + 2 * e->n_hosts);
    bool hurry = false;

    for (;;) {
        watch(e, fds, hurry);
        /* First what is to come goes out, then what came is taken in */
        if (fds[0].revents & POLLIN) {
            read_events(e);
        }
        poll_links(e, fds);
        if (fds[1].revents && !handle_kick(e)) {
            break;
        }
        if (e->again) {
            serve_again(e);
        }
        hurry = pager_fetch_arrived(e);
        hurry |= pager_gather_step(e);
        hurry |= e->again;
        poison(e);
    }
    return NULL;
}
