/*
 * Remote pager: what is asked of servers (the fault thread's)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages that somebody waits for go on the demand link, one to a GET, so that
 * none waits for another.  What is fetched ahead, and what a gather brings
 * home, goes on a link of its own in small batches.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "migration/pagelink.h"
#include "engine-int.h"
#include "uffd.h"
#include "../trace.h"

/* Pages that a gather looks at in one go */
#define GATHER_SCAN     65536

static PagerFetch *fetch_new(PagerEngine *e, unsigned host, PagerLink link,
                             unsigned room)
{
    PagerFetch *f = QSIMPLEQ_FIRST(&e->spare);

    if (f && f->room >= room) {
        QSIMPLEQ_REMOVE_HEAD(&e->spare, next);
    } else {
        f = g_new0(PagerFetch, 1);
        f->e = e;
        f->room = PAGER_FETCH_PAGES;
        f->data = qemu_memalign(PAGELINK_PAGE_SIZE,
                                f->room * PAGELINK_PAGE_SIZE);
    }
    f->host = host;
    f->link = link;
    f->n = f->done = 0;
    f->answered = f->failed = false;
    return f;
}

static void fetch_free(PagerFetch *f)
{
    QSIMPLEQ_INSERT_HEAD(&f->e->spare, f, next);
}

static void fetch_add(PagerFetch *f, uint64_t page)
{
    const PagerPlace *p = pager_place_of_page(f->e, page);

    f->page[f->n] = page;
    f->pages[f->n] = (PageLinkPage) {
        .block = p->r.block,
        .page = page - p->base,
        .data = f->data + f->n * PAGELINK_PAGE_SIZE,
    };
    f->n++;
}

/* The pages of @f that are not in place are remote as before */
static void fetch_give_up(PagerFetch *f)
{
    PagerEngine *e = f->e;
    PagerHost *h = &e->hosts[f->host];
    bool waited = false, changed = false;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        for (; f->done < f->n; f->done++) {
            uint64_t page = f->page[f->done];
            unsigned i;

            e->fetching--;
            if (e->state[page] & PG_REMOVED) {
                pg_set(e, page, PG_ZERO);
                pager_drop(e, page);
                pager_try_again(e, page, PAGER_WAIT_AGAIN);
                continue;
            }
            pg_set(e, page, PG_REMOTE);
            e->info.remote++;
            h->gather_left = e->pages;
            for (i = 0; i < e->waiters->len; i++) {
                waited |= g_array_index(e->waiters, PagerWaiter, i).page ==
                          page;
            }
            pager_try_again(e, page, f->link == PAGER_LINK_DEMAND ?
                            PAGER_WAIT_HOST : PAGER_WAIT_AGAIN);
        }
        changed = waited && f->link == PAGER_LINK_DEMAND &&
                  pager_host_need(h);
    }
    if (changed) {
        pager_changed(e);
    }
}

/*
 * Put a page in place.  False if an event has to be read first, or the page
 * was removed meanwhile.
 */
static bool install(PagerEngine *e, PagerFetch *f, unsigned i)
{
    bool none = f->pages[i].flags & PAGELINK_ENTRY_ZERO;
    uint64_t page = f->page[i];
    void *host = pager_address(e, page);
    bool removed, wp;
    int ret;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        removed = e->state[page] & PG_REMOVED;
        wp = !none && !(e->state[page] & PG_WRITE);
        if (removed) {
            e->fetching--;
            pg_set(e, page, PG_ZERO);
            pager_drop(e, page);
            pager_try_again(e, page, PAGER_WAIT_AGAIN);
        }
    }
    if (removed) {
        return true;
    }
    ret = none ? pager_uffd_zero(e->uffd, host) :
                 pager_uffd_copy(e->uffd, host, f->pages[i].data, wp);
    if (ret == -EAGAIN) {
        return false;
    }
    if (ret) {
        pager_uffd_wake(e->uffd, host, PAGELINK_PAGE_SIZE);
    }
    trace_pager_install(page, none, wp, ret);
    QEMU_LOCK_GUARD(&e->lock);
    e->fetching--;
    if (ret && ret != -EEXIST) {
        /* Not memory of ours any more */
        pg_set(e, page, PG_ZERO);
    } else {
        e->local++;
        pg_set(e, page, wp && !ret ? PG_CLEAN : PG_DIRTY);
        pager_policy_add(e->policy, page, f->link == PAGER_LINK_DEMAND ?
                         PAGER_POLICY_MISS : PAGER_POLICY_GUESS);
        pager_wake_evictor(e);
    }
    e->hosts[f->host].info.fetched++;
    pager_satisfied(e, page, true);
    return true;
}

/* True if all is in place */
static bool fetch_install(PagerFetch *f)
{
    while (f->done < f->n) {
        if (!install(f->e, f, f->done)) {
            return false;
        }
        f->done++;
    }
    return true;
}

/*
 * A page is asked for only if its host has acknowledged it, and dropped only
 * when nobody will ask for it: one that is absent is lost.
 */
static bool fetch_complete(PagerFetch *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->pages[i].flags & PAGELINK_ENTRY_ABSENT) {
            pager_host_lost_page(&f->e->hosts[f->host], f->page[i]);
            return false;
        }
    }
    return true;
}

static void fetch_done(void *opaque, const PageLinkFault *error)
{
    PagerFetch *f = opaque;
    PagerHost *h = &f->e->hosts[f->host];

    f->answered = true;
    f->failed = error;
    h->progress[f->link] = pager_now();
    h->fetches -= f->link == PAGER_LINK_FETCH;
    if (error || !fetch_complete(f)) {
        /* Even if only this was refused: no page can be had that way */
        h->broken[f->link] = true;
        fetch_give_up(f);
        fetch_free(f);
    } else if (fetch_install(f)) {
        fetch_free(f);
    } else {
        QSIMPLEQ_INSERT_TAIL(&f->e->arrived, f, next);
    }
}

static void fetch_send(PagerFetch *f)
{
    PagerEngine *e = f->e;
    PagerHost *h = &e->hosts[f->host];
    PageLinkClient *c = h->link[f->link];
    PagerLink link = f->link;

    if (!c || h->broken[link]) {
        fetch_give_up(f);
        fetch_free(f);
        return;
    }
    if (!pagelink_client_outstanding(c)) {
        h->progress[link] = pager_now();
    }
    h->fetches += link == PAGER_LINK_FETCH;
    /* If it had failed before, there is no call of fetch_done() */
    if (!pagelink_client_get_async(c, f->pages, f->n, fetch_done, f, NULL) &&
        !f->answered) {
        h->fetches -= link == PAGER_LINK_FETCH;
        h->broken[link] = true;
        fetch_give_up(f);
        fetch_free(f);
    }
}

void pager_fetch_demand(PagerEngine *e, uint64_t page)
{
    PagerFetch *f = fetch_new(e, e->host[page], PAGER_LINK_DEMAND, 1);

    fetch_add(f, page);
    fetch_send(f);
}

bool pager_fetch_poll(PagerEngine *e, PagerHost *h, PagerLink link)
{
    Error *err = NULL;

    if (pagelink_client_poll(h->link[link], 0, &err) && !h->broken[link]) {
        return true;
    }
    h->broken[link] = true;
    pager_host_failed(h, link, h->silent[link] ? "it does not answer" :
                               err ? error_get_pretty(err) :
                                     "it refuses to give pages");
    h->silent[link] = false;
    error_free(err);
    return false;
}

bool pager_fetch_arrived(PagerEngine *e)
{
    PagerFetch *f;

    while ((f = QSIMPLEQ_FIRST(&e->arrived))) {
        if (!fetch_install(f)) {
            return true;
        }
        QSIMPLEQ_REMOVE_HEAD(&e->arrived, next);
        fetch_free(f);
    }
    return false;
}

/*
 * Fetch @page, which nobody waits for, with others of its host.  Lock held.
 */
static void take_ahead(PagerEngine *e, uint64_t page, PagerFetch **fetches)
{
    uint8_t host = e->host[page];
    PagerHost *h = &e->hosts[host];

    if (!h->link[PAGER_LINK_FETCH] || h->broken[PAGER_LINK_FETCH] ||
        h->fetches >= PAGER_MAX_FETCHES) {
        return;
    }
    if (!fetches[host]) {
        fetches[host] = fetch_new(e, host, PAGER_LINK_FETCH,
                                  PAGER_FETCH_PAGES);
    }
    if (fetches[host]->n < PAGER_FETCH_PAGES) {
        pg_set(e, page, PG_FETCHING);
        e->info.remote--;
        e->fetching++;
        fetch_add(fetches[host], page);
    }
}

static void send_all(PagerEngine *e, PagerFetch **fetches)
{
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        if (fetches[i]) {
            fetch_send(fetches[i]);
        }
    }
}

/* Was what @a skipped there, so that the guest may have come by?  Lock held. */
static bool went_by(const PagerEngine *e, uint64_t page, const PagerAdvice *a)
{
    unsigned i;

    for (i = 1; i <= a->skipped; i++) {
        if (pg_state(e, page - a->stride * i) == PG_REMOTE) {
            return false;
        }
    }
    return true;
}

void pager_fetch_ahead(PagerEngine *e, uint64_t page, uint32_t tid)
{
    PagerFetch *fetches[PAGER_NO_HOST] = { NULL };
    const PagerPlace *p = pager_place_of_page(e, page);
    PagerAdvice a = pager_stride_fault(&e->detectors[tid % PAGER_DETECTORS],
                                       page);
    unsigned i;

    if (!a.n && !a.hits) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->info.prefetch_used += went_by(e, page, &a) ? a.hits : 0;
        for (i = 1; i <= a.n; i++) {
            uint64_t next = page + a.stride * i;

            if (next - p->base >= p->r.pages ||
                pager_used(e) + e->headroom / 4 >= e->limit) {
                break;
            }
            if (pg_state(e, next) == PG_REMOTE) {
                take_ahead(e, next, fetches);
                a.stream->fetched += pg_state(e, next) == PG_FETCHING;
            }
        }
        e->info.prefetched += a.stream ? a.stream->fetched : 0;
    }
    send_all(e, fetches);
}

/* Nothing is left anywhere else.  Lock held. */
static bool all_home(PagerEngine *e)
{
    return !e->info.remote && !e->fetching && !e->evicting &&
           !g_hash_table_size(e->staging.index) &&
           !e->waiters->len;
}

/* The sessions are ended by whoever frees the engine: that may take a while */
static void gather_finish(PagerEngine *e)
{
    unsigned i;

    for (i = 0; i < e->n_places; i++) {
        pager_uffd_unregister(e->uffd, e->places[i].r.host,
                              e->places[i].r.pages * PAGELINK_PAGE_SIZE);
    }
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->gathered = true;
    }
    trace_pager_gathered();
    pager_changed(e);
}

/* The next of the staged pages, which are few */
static bool unstage_next(PagerEngine *e)
{
    GHashTableIter iter;
    gpointer key;
    uint64_t page;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        g_hash_table_iter_init(&iter, e->staging.index);
        if (!g_hash_table_iter_next(&iter, &key, NULL)) {
            return false;
        }
        page = (uintptr_t)key;
        if (pg_state(e, page) != PG_STAGED) {
            return false;
        }
    }
    return pager_unstage(e, page, false) == 0;
}

/*
 * Fetch pages of @h, as many as it may be asked for at a time.  Each host has
 * its own place in the regions, so that none waits for another.  Lock held.
 */
static void scan_host(PagerEngine *e, PagerHost *h, PagerFetch **fetches)
{
    unsigned n;

    for (n = 0; n < GATHER_SCAN && h->gather_left; n++) {
        uint64_t page = h->gather_next;

        if (pg_state(e, page) == PG_REMOTE && e->host[page] == h->index) {
            h->gather_left = e->pages;
            take_ahead(e, page, fetches);
            if (pg_state(e, page) == PG_REMOTE) {
                /* No more from this host for now */
                return;
            }
        }
        h->gather_left--;
        h->gather_next = page + 1 == e->pages ? 0 : page + 1;
    }
}

/* True if there is more to look at now */
static bool scan(PagerEngine *e, PagerFetch **fetches, bool *changed)
{
    bool more = false;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        PagerHost *h = &e->hosts[i];
        uint64_t from = h->gather_next;

        if (!h->gather_left) {
            continue;
        }
        scan_host(e, h, fetches);
        more |= h->gather_next != from;
        if (h->gather_left && h->refused && h->gather_next == from) {
            /* It has a page, says the map, and says that it has not */
            *changed |= pager_host_need(h);
        }
    }
    return more;
}

static void start_scan(PagerEngine *e)
{
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        e->hosts[i].gather_left = e->pages;
    }
    e->scanning = true;
}

bool pager_gather_step(PagerEngine *e)
{
    PagerFetch *fetches[PAGER_NO_HOST] = { NULL };
    bool wanted, home = false, more = false, changed = false;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        wanted = e->gathering && !e->gathered && !e->quit;
        if (wanted) {
            home = all_home(e);
        }
    }
    if (!wanted) {
        return false;
    }
    if (home) {
        gather_finish(e);
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (!e->scanning) {
            start_scan(e);
        }
        more = scan(e, fetches, &changed);
    }
    send_all(e, fetches);
    while (unstage_next(e)) {
        more = true;
    }
    if (changed) {
        pager_changed(e);
    }
    QEMU_LOCK_GUARD(&e->lock);
    /* Nobody tells when these are over, which is soon */
    return more || e->evicting || g_hash_table_size(e->staging.index);
}

void pager_fetch_destroy(PagerEngine *e)
{
    PagerFetchList *lists[] = { &e->arrived, &e->spare };
    PagerFetch *f;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(lists); i++) {
        while ((f = QSIMPLEQ_FIRST(lists[i]))) {
            QSIMPLEQ_REMOVE_HEAD(lists[i], next);
            qemu_vfree(f->data);
            g_free(f);
        }
    }
}
