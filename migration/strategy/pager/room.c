/*
 * Remote pager: room at memory hosts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A host keeps its copy of a page that is resident again: while the page is
 * clean it can leave without being sent.  But when hosts have just as much
 * room as there are pages away, each of these copies is in the way of a page
 * that has to leave.  So when none has room, copies are given up, those first
 * that are worth nothing since the page is dirty, and the pages are dirty
 * from then on.  The DROP goes before the next PUT on the same connection.
 *
 * What a host has room for is not known for sure: it has its own bookkeeping,
 * and maybe other clients.  Each refusal halves what is sent to it that is
 * new, until it is as much as was dropped; now and then it is tried again.
 */
#include "qemu/osdep.h"
#include "engine-int.h"
#include "../trace.h"

/* How long to believe a host that has refused pages */
#define FULL_NS         (1000 * 1000000LL)
/* ... when nothing else helps: what it drops, it may free a little later */
#define SOON_NS         (50 * 1000000LL)
/* Looked at with the lock */
#define WINDOW_PAGES    (1 << 16)

/* Lock held */
static bool writable(const PagerHost *h)
{
    return !h->gone && h->link[PAGER_LINK_WRITE];
}

uint64_t pager_host_room(const PagerHost *h)
{
    return writable(h) && h->most > h->info.stored ?
           h->most - h->info.stored : 0;
}

uint8_t pager_host_with_room(PagerEngine *e)
{
    uint8_t best = PAGER_NO_HOST;
    uint64_t most = 0;
    bool best_up = false;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        uint64_t room = pager_host_room(&e->hosts[i]);
        bool up = e->hosts[i].info.state == PAGER_HOST_UP;

        if (room && (up > best_up || (up == best_up && room > most))) {
            best = i;
            best_up = up;
            most = room;
        }
    }
    return best;
}

/* Copies at @h that do not count any more, but which it has not dropped */
static uint64_t still_there(PagerEngine *e, const PagerHost *h)
{
    uint64_t pages = 0;
    unsigned i;

    for (i = 0; i < e->drops->len; i++) {
        const PagerRange *r = &g_array_index(e->drops, PagerRange, i);

        pages += r->host == h->index ? r->range.pages : 0;
    }
    return pages;
}

void pager_host_refused(PagerEngine *e, PagerHost *h, unsigned n)
{
    h->most = MIN(h->capacity,
                  h->info.stored + still_there(e, h) + n / 2);
    h->refused_at = pager_now();
}

/* Lock held */
static bool try_full_hosts(PagerEngine *e, int64_t believe)
{
    int64_t now = pager_now();
    bool any = false;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        PagerHost *h = &e->hosts[i];

        if (h->most < h->capacity && now - h->refused_at > believe) {
            h->most = h->capacity;
            any |= pager_host_room(h) > 0;
        }
    }
    return any;
}

/*
 * Give up to @n copies up of pages [@first, @end), which are in @state.
 * Lock held.
 */
static unsigned give_up(PagerEngine *e, uint8_t state, uint64_t first,
                        uint64_t end, unsigned n)
{
    unsigned done = 0;

    while (done < n && first < end && e->drops->len < PAGER_MAX_DROPS) {
        const uint8_t *found = memchr(e->state + first, state | PG_STORED,
                                      end - first);
        uint64_t page;

        if (!found) {
            break;
        }
        page = found - e->state;
        if (writable(&e->hosts[e->host[page]])) {
            pager_drop(e, page);
            pg_set(e, page, PG_DIRTY);
            done++;
        }
        first = page + 1;
    }
    return done;
}

bool pager_make_room(PagerEngine *e, uint64_t *from, unsigned n)
{
    unsigned dirty = 0, clean = 0;
    uint64_t seen = 0;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (try_full_hosts(e, FULL_NS)) {
            return true;
        }
    }
    while (dirty + clean < n && seen < e->pages) {
        uint64_t first = *from < e->pages ? *from : 0;
        uint64_t end = MIN(first + WINDOW_PAGES, e->pages);

        QEMU_LOCK_GUARD(&e->lock);
        dirty += give_up(e, PG_DIRTY, first, end, n - dirty - clean);
        clean += give_up(e, PG_CLEAN, first, end, n - dirty - clean);
        if (dirty + clean < n) {
            *from = end;
            seen += end - first;
        }
    }
    trace_pager_give_up(n, dirty, clean);
    if (dirty + clean) {
        return true;
    }
    QEMU_LOCK_GUARD(&e->lock);
    return !e->full && try_full_hosts(e, SOON_NS);
}
