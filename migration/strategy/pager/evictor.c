/*
 * Remote pager: the thread that makes room
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Moves victims to the staging area, writes those that their host does not
 * have, and gives back the memory of the oldest that it has.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "migration/pagelink.h"
#include "engine-int.h"
#include "../trace.h"

/*
 * Nothing helped: a page may just be in use, which is over soon.  When it goes
 * on, pages are pinned, or hosts full or gone.
 */
#define PAUSE_MS        5
/* So long a host may be away before others get its pages */
#define AWAY_NS         (100 * 1000000LL)
/* Longer: this thread may be held up between its looks at the two */
#define STUCK_NS        (5 * AWAY_NS)

typedef struct Victim {
    uint64_t page;
    bool clean;
    bool zero;
    int err;
} Victim;

/* Pages on their way to a host */
typedef struct Parcel {
    unsigned n, n_fresh;
    bool refused;
    bool fresh[PAGER_EVICT_BATCH];      /* the host has not got it */
    uint64_t slot[PAGER_EVICT_BATCH];
    uint64_t page[PAGER_EVICT_BATCH];
    PageLinkPage pages[PAGER_EVICT_BATCH];
} Parcel;

typedef struct Evictor {
    PagerEngine *e;
    Parcel *parcels;            /* per host */
    int64_t *away;              /* likewise: since when, ns; or 0 */
    uint64_t unsafe;            /* no slot before this one is UNSAFE */
    unsigned homeless;          /* UNSAFE ones that no host has room for */
    uint64_t give_up_next;      /* page */
    int64_t no_copies;          /* when there were none to give up, ns */
    unsigned drops_kept;        /* that no link is there for */
    bool gained;                /* something helped */
    int64_t in_vain;            /* since when nothing did, ns; or 0 */
} Evictor;

/* Lock held */
static bool pressure(const PagerEngine *e)
{
    return !e->gathering && pager_used(e) + e->headroom > e->limit;
}

/* Pages in the regions beyond their share.  Lock held. */
static uint64_t surplus(const PagerEngine *e)
{
    uint64_t share = e->limit - e->staging_limit - e->headroom;
    uint64_t have = e->local + e->fetching;

    return have > share ? have - share : 0;
}

/* Note which hosts cannot be reached.  Lock held. */
static void look_for_hosts(Evictor *ev)
{
    PagerEngine *e = ev->e;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        const PagerHost *h = &e->hosts[i];

        if (h->info.state == PAGER_HOST_UP && h->link[PAGER_LINK_WRITE]) {
            ev->away[i] = 0;
        } else if (!ev->away[i]) {
            ev->away[i] = pager_now();
            /* It may be back soon, and that would help */
            ev->in_vain = 0;
        }
    }
}

/* Is @host away, and another is there that has room?  Lock held. */
static bool other_is_better(const Evictor *ev, uint8_t host)
{
    PagerEngine *e = ev->e;
    uint8_t other;

    if (!ev->away[host]) {
        return false;
    }
    other = pager_host_with_room(e);
    return other != PAGER_NO_HOST && other != host &&
           e->hosts[other].info.state == PAGER_HOST_UP;
}

/* Choose victims and take them.  Lock held. */
static unsigned choose(Evictor *ev, Victim *v)
{
    PagerEngine *e = ev->e;
    uint64_t room = e->staging_limit + PAGER_EVICT_BATCH -
                    MIN(pager_staging_used(&e->staging),
                        e->staging_limit + PAGER_EVICT_BATCH);
    uint64_t want = MIN(MIN(surplus(e), room), PAGER_EVICT_BATCH);
    unsigned n = 0;
    uint64_t page;

    /* This thread may be here for drops only; a gather takes nothing away */
    if (!pressure(e)) {
        return 0;
    }
    while (n < want && pager_policy_victim(e->policy, &page)) {
        uint8_t state = pg_state(e, page);

        if (state == PG_CLEAN || state == PG_DIRTY) {
            /* What only a host has that is away had better stay here */
            bool clean = state == PG_CLEAN &&
                         !other_is_better(ev, e->host[page]);

            v[n++] = (Victim) { .page = page, .clean = clean };
            pg_set(e, page, clean ? PG_EVICT_CLEAN : PG_EVICT_DIRTY);
        }
        /* Others were removed, or are added again by whoever has them */
    }
    return n;
}

static int compare_victims(const void *a, const void *b)
{
    const Victim *x = a, *y = b;

    return x->page < y->page ? -1 : x->page > y->page;
}

/* Move pages [i, j), which lie side by side, to slots from @slot on */
static void move_run(PagerEngine *e, Victim *v, unsigned i, unsigned j,
                     uint64_t slot)
{
    while (i < j) {
        ssize_t n = pager_staging_take(&e->staging, slot,
                                       pager_address(e, v[i].page), j - i);

        if (n > 0) {
            i += n;
            slot += n;
        } else {
            v[i++].err = n;
            slot++;
        }
    }
}

static void take_away(PagerEngine *e, Victim *v, unsigned n, uint64_t slot)
{
    unsigned i, j;

    for (i = 0; i < n; i = j) {
        j = i + 1;
        while (j < n && v[j].page == v[j - 1].page + 1 &&
               (slot + j) % e->staging.n &&
               pager_place_of_page(e, v[j].page) ==
               pager_place_of_page(e, v[i].page)) {
            j++;
        }
        move_run(e, v, i, j, slot + i);
    }
    for (i = 0; i < n; i++) {
        v[i].zero = !v[i].err && !v[i].clean &&
                    buffer_is_zero(pager_staging_data(&e->staging, slot + i),
                                   PAGELINK_PAGE_SIZE);
    }
}

/* @v is not there any more.  Lock held. */
static void absent(PagerEngine *e, const Victim *v)
{
    bool removed = e->state[v->page] & PG_REMOVED;

    e->local--;
    if (!removed) {
        e->info.absent_clean += v->clean;
        e->info.absent_dirty += !v->clean;
    }
    if (!removed && v->clean && e->state[v->page] & PG_STORED) {
        /* If it was removed, that will be told.  If not, its host has it. */
        pg_set(e, v->page, PG_REMOTE);
        e->info.remote++;
        e->hosts[e->host[v->page]].gather_left = e->pages;
        return;
    }
    pg_set(e, v->page, PG_ZERO);
    pager_drop(e, v->page);
}

/* @v was not taken away: EBUSY, most likely.  Lock held. */
static void keep(PagerEngine *e, const Victim *v)
{
    if (e->state[v->page] & PG_REMOVED || v->err == -ENOENT) {
        absent(e, v);
        return;
    }
    e->info.busy++;
    pg_set(e, v->page, v->clean ? PG_CLEAN : PG_DIRTY);
    pager_policy_add(e->policy, v->page, PAGER_POLICY_SOFT);
}

/* @v is in slot @i now.  Lock held. */
static void stage(PagerEngine *e, const Victim *v, uint64_t i)
{
    PagerSlot *slot = pager_staging_slot(&e->staging, i);
    bool stored = e->state[v->page] & PG_STORED;
    bool removed = e->state[v->page] & PG_REMOVED;

    e->local--;
    if (removed) {
        pg_set(e, v->page, PG_ZERO);
        pager_drop(e, v->page);
        return;
    }
    pg_set(e, v->page, PG_STAGED);
    pager_staging_put(&e->staging, i, v->page);
    slot->version = ++e->version;
    slot->zero = v->zero;
    slot->state = v->clean || (v->zero && !stored) ? PAGER_SLOT_SAFE :
                                                     PAGER_SLOT_UNSAFE;
    if (v->clean) {
        e->info.evicted_clean++;
    } else if (v->zero) {
        e->info.evicted_zero++;
    } else {
        e->info.evicted_dirty++;
    }
}

/* True if a page was taken away */
static bool stage_some(Evictor *ev)
{
    PagerEngine *e = ev->e;
    Victim v[PAGER_EVICT_BATCH];
    bool wanted = false;
    unsigned n, i, taken = 0;
    uint64_t slot;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        look_for_hosts(ev);
        n = choose(ev, v);
        slot = e->staging.head;
    }
    if (!n) {
        return false;
    }
    qsort(v, n, sizeof(*v), compare_victims);
    take_away(e, v, n, slot);
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        for (i = 0; i < n; i++) {
            PagerSlot *s = pager_staging_slot(&e->staging, slot + i);

            wanted |= e->state[v[i].page] & PG_WANTED;
            *s = (PagerSlot) { .page = PAGER_NO_PAGE };
            if (v[i].err) {
                keep(e, &v[i]);
            } else {
                stage(e, &v[i], slot + i);
                taken++;
            }
        }
        e->staging.head += n;
    }
    trace_pager_stage(n, taken);
    if (wanted) {
        event_notifier_set(&e->kick);
    }
    return taken;
}

/* Who is to have slot @i's page, which is UNSAFE.  Lock held. */
static uint8_t find_host(Evictor *ev, PagerSlot *slot)
{
    PagerEngine *e = ev->e;
    uint8_t host = e->host[slot->page];

    if (e->state[slot->page] & PG_STORED) {
        if (!other_is_better(ev, host) ||
            pager_now() - ev->away[host] < AWAY_NS) {
            return host;
        }
        pager_drop(e, slot->page);
    } else if (host != PAGER_NO_HOST && pager_host_room(&e->hosts[host]) &&
               !other_is_better(ev, host)) {
        return host;
    }
    host = pager_host_with_room(e);
    if (host != PAGER_NO_HOST) {
        /* That host may have been told to drop an older version */
        slot->version = ++e->version;
        e->host[slot->page] = host;
    }
    return host;
}

/* Put UNSAFE slot @i into the parcel of its host.  Lock held. */
static bool pack(Evictor *ev, uint64_t i)
{
    PagerEngine *e = ev->e;
    PagerSlot *slot = pager_staging_slot(&e->staging, i);
    const PagerPlace *place = pager_place_of_page(e, slot->page);
    uint8_t host;
    bool fresh;
    Parcel *p;

    if (slot->zero && !(e->state[slot->page] & PG_STORED)) {
        slot->state = PAGER_SLOT_SAFE;
        return false;
    }
    host = find_host(ev, slot);
    if (host == PAGER_NO_HOST) {
        ev->homeless++;
        return false;
    }
    p = &ev->parcels[host];
    if (p->n == PAGER_EVICT_BATCH || p->refused ||
        !e->hosts[host].link[PAGER_LINK_WRITE]) {
        return false;
    }
    fresh = !(e->state[slot->page] & PG_STORED);
    if (fresh) {
        e->state[slot->page] |= PG_STORED;
        e->hosts[host].info.stored++;
        p->n_fresh++;
    }
    p->fresh[p->n] = fresh;
    p->slot[p->n] = i;
    p->page[p->n] = slot->page;
    p->pages[p->n++] = (PageLinkPage) {
        .block = place->r.block,
        .page = slot->page - place->base,
        .version = slot->version,
        .data = slot->zero ? NULL : pager_staging_data(&e->staging, i),
    };
    return true;
}

/* Fill the parcels.  False if there is nothing that can be sent. */
static bool pack_all(Evictor *ev)
{
    PagerEngine *e = ev->e;
    bool any = false, first = true;
    unsigned h;
    uint64_t i;

    for (h = 0; h < e->n_hosts; h++) {
        ev->parcels[h].n = ev->parcels[h].n_fresh = 0;
        ev->parcels[h].refused = false;
    }
    ev->homeless = 0;
    QEMU_LOCK_GUARD(&e->lock);
    for (i = MAX(ev->unsafe, e->staging.tail); i < e->staging.head; i++) {
        if (pager_staging_slot(&e->staging, i)->state != PAGER_SLOT_UNSAFE) {
            continue;
        }
        if (first) {
            ev->unsafe = i;
            first = false;
        }
        any |= pack(ev, i);
    }
    if (first) {
        ev->unsafe = e->staging.head;
    }
    return any;
}

/* Host @h has no data of @page.  Lock held. */
static void not_stored(PagerEngine *e, PagerHost *h, uint64_t page)
{
    if (e->host[page] == h->index && e->state[page] & PG_STORED) {
        e->state[page] &= ~PG_STORED;
        h->info.stored--;
    }
}

/* The host has what is in the parcel.  Lock held. */
static void delivered(Evictor *ev, PagerHost *h, const Parcel *p)
{
    PagerEngine *e = ev->e;
    unsigned i;

    h->info.written += p->n;
    ev->gained = true;
    for (i = 0; i < p->n; i++) {
        PagerSlot *slot = pager_staging_slot(&e->staging, p->slot[i]);

        /* Its page may be back in the guest, or removed, by now */
        if (slot->page == p->page[i]) {
            slot->state = PAGER_SLOT_SAFE;
        }
        if (!p->pages[i].data) {
            not_stored(e, h, p->page[i]);
        }
    }
}

/*
 * Nothing of the parcel was taken.  Those that the host has it takes, if they
 * come alone; if not even that, it has not got them.  Lock held.
 */
static void refused(PagerEngine *e, PagerHost *h, Parcel *p)
{
    unsigned i;

    h->info.refused += p->n;
    p->refused = true;
    for (i = 0; i < p->n; i++) {
        if (p->fresh[i] || !p->n_fresh) {
            not_stored(e, h, p->page[i]);
        }
    }
    pager_host_refused(e, h, p->n_fresh ?: p->n);
}

/* Anything else that it says is not cured by sending it less */
static bool no_room(const PageLinkClient *c)
{
    uint32_t code = pagelink_client_refusal(c);

    return code == PAGELINK_ERR_QUOTA || code == PAGELINK_ERR_NO_MEMORY;
}

/* Wait until host @h has the parcel that was sent, or refuses it */
static bool sync_one(Evictor *ev, PagerHost *h)
{
    PageLinkClient *c = h->link[PAGER_LINK_WRITE];
    Parcel *p = &ev->parcels[h->index];
    Error *err = NULL;
    bool ok;

    ok = pagelink_client_sync(c, NULL, &err);
    if (!ok && (!pagelink_client_poll(c, 0, NULL) || !no_room(c))) {
        pager_host_failed(h, PAGER_LINK_WRITE, error_get_pretty(err));
        error_free(err);
        return false;
    }
    trace_pager_write(h->name, p->n, ok, ok ? "" : error_get_pretty(err));
    error_free(err);
    QEMU_LOCK_GUARD(&ev->e->lock);
    if (ok) {
        delivered(ev, h, p);
    } else {
        refused(ev->e, h, p);
    }
    return true;
}

/* Make room for those that no host has room for.  True if there may be now. */
static bool make_room(Evictor *ev)
{
    if (!ev->homeless || pager_now() - ev->no_copies < PAUSE_MS * 1000000LL) {
        return false;
    }
    if (pager_make_room(ev->e, &ev->give_up_next,
                        MIN(ev->homeless, PAGER_EVICT_BATCH))) {
        return true;
    }
    ev->no_copies = pager_now();
    return false;
}

/* Keep what a host that may come back is to drop.  Lock held. */
static void keep_drop(Evictor *ev, const PagerRange *r)
{
    PagerEngine *e = ev->e;

    if (!e->hosts[r->host].gone && ev->drops_kept < PAGER_MAX_DROPS / 2 &&
        e->drops->len < PAGER_MAX_DROPS) {
        g_array_append_val(e->drops, *r);
        ev->drops_kept++;
    }
}

static void send_drops(Evictor *ev)
{
    PagerEngine *e = ev->e;
    g_autoptr(GArray) drops = NULL;
    unsigned i;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (e->drops->len <= ev->drops_kept) {
            return;
        }
        drops = e->drops;
        e->drops = g_array_new(false, false, sizeof(PagerRange));
        ev->drops_kept = 0;
    }
    for (i = 0; i < drops->len; i++) {
        const PagerRange *r = &g_array_index(drops, PagerRange, i);
        PagerHost *h = &e->hosts[r->host];
        PageLinkClient *c = h->link[PAGER_LINK_WRITE];
        bool sent = c && pagelink_client_drop(c, &r->range, 1, NULL);

        QEMU_LOCK_GUARD(&e->lock);
        if (sent) {
            h->info.dropped += r->range.pages;
        } else {
            keep_drop(ev, r);
        }
    }
}

/* Write what is UNSAFE.  True if something is, or can be, safe now. */
static bool write_some(Evictor *ev)
{
    PagerEngine *e = ev->e;
    bool packed = pack_all(ev), any = false;
    unsigned i;

    /*
     * While nothing is in a parcel: what is given up is dropped before the next
     * PUT, and must not be a page of it.
     */
    if (!packed && make_room(ev)) {
        any = true;
        send_drops(ev);
        packed = pack_all(ev);
    }
    if (!packed) {
        return any;
    }
    for (i = 0; i < e->n_hosts; i++) {
        PageLinkClient *c = e->hosts[i].link[PAGER_LINK_WRITE];

        /* If it fails, so does the sync */
        if (c && ev->parcels[i].n) {
            pagelink_client_put(c, ev->parcels[i].pages, ev->parcels[i].n,
                                NULL);
        }
    }
    for (i = 0; i < e->n_hosts; i++) {
        if (ev->parcels[i].n && e->hosts[i].link[PAGER_LINK_WRITE]) {
            any |= sync_one(ev, &e->hosts[i]);
        }
    }
    return any;
}

/* How many of the oldest slots can be given back; they are void then */
static unsigned release(PagerEngine *e)
{
    unsigned n = 0;

    QEMU_LOCK_GUARD(&e->lock);
    while (pressure(e) && n < PAGER_EVICT_BATCH &&
           n < pager_staging_used(&e->staging) &&
           pager_used(e) - n + e->headroom > e->limit) {
        uint64_t i = e->staging.tail + n;
        PagerSlot *slot = pager_staging_slot(&e->staging, i);

        if (slot->state == PAGER_SLOT_UNSAFE ||
            (slot->state == PAGER_SLOT_SAFE &&
             pg_state(e, slot->page) != PG_STAGED)) {
            break;
        }
        if (slot->state == PAGER_SLOT_SAFE) {
            pg_set(e, slot->page, slot->zero ? PG_ZERO : PG_REMOTE);
            e->info.remote += !slot->zero;
            pager_policy_evicted(e->policy, slot->page);
            pager_staging_void(&e->staging, i);
        }
        n++;
    }
    return n;
}

/* Give memory back.  True if there was some to give. */
static bool release_some(Evictor *ev)
{
    PagerEngine *e = ev->e;
    unsigned n = release(e);
    bool kick;

    if (!n) {
        return false;
    }
    pager_staging_discard(&e->staging, e->staging.tail, n);
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->staging.tail += n;
        e->full &= pressure(e);
        kick = e->starved;
        e->starved = false;
    }
    if (kick) {
        event_notifier_set(&e->kick);
    }
    return true;
}

/* Lock held */
static void refresh_links(Evictor *ev)
{
    PagerEngine *e = ev->e;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        if (pager_host_refresh(&e->hosts[i], PAGER_LINK_WRITE)) {
            ev->drops_kept = 0;
        }
    }
}

/*
 * Nothing helped.  Either a host is gone that has to take pages: then those
 * who need room wait, and it is lost.  Or all are full, or pages pinned: then
 * more is resident than should be.  Lock held.
 */
static bool stuck(PagerEngine *e)
{
    bool changed = false, gone = false;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        if (!e->hosts[i].link[PAGER_LINK_WRITE]) {
            gone = true;
        }
    }
    /* If another has room, it is not for those that are gone */
    gone = gone && pager_host_with_room(e) == PAGER_NO_HOST;
    for (i = 0; gone && e->starved && i < e->n_hosts; i++) {
        if (!e->hosts[i].link[PAGER_LINK_WRITE]) {
            changed |= pager_host_need(&e->hosts[i]);
        }
    }
    if (!gone && !e->full) {
        e->full = true;
        changed = true;
    }
    return changed;
}

static void work(Evictor *ev)
{
    PagerEngine *e = ev->e;
    bool progress, changed = false, more, kick;

    do {
        send_drops(ev);
        progress = ev->gained = stage_some(ev);
        /* To be refused is no gain, but less is tried then */
        progress |= write_some(ev);
        if (release_some(ev)) {
            progress = ev->gained = true;
        }
        ev->in_vain = ev->gained ? 0 : ev->in_vain;
        WITH_QEMU_LOCK_GUARD(&e->lock) {
            refresh_links(ev);
            more = pressure(e) && !e->quit;
        }
    } while (more && progress);
    if (!more) {
        ev->in_vain = 0;
        return;
    }
    ev->in_vain = ev->in_vain ?: pager_now();
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (pager_now() - ev->in_vain > STUCK_NS) {
            changed = stuck(e);
        }
        kick = e->full && e->starved;
        e->evicting = false;
    }
    if (kick) {
        event_notifier_set(&e->kick);
    }
    if (changed) {
        pager_changed(e);
    }
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (!e->quit) {
            qemu_cond_timedwait(&e->evict, &e->lock, PAUSE_MS);
        }
    }
}

void *pager_evictor_main(void *opaque)
{
    PagerEngine *e = opaque;
    Evictor ev = {
        .e = e,
        .parcels = g_new0(Parcel, e->n_hosts),
        .away = g_new0(int64_t, e->n_hosts),
    };

    qemu_mutex_lock(&e->lock);
    while (!e->quit) {
        refresh_links(&ev);
        e->full &= pressure(e);
        if (!pressure(e) && e->starved) {
            /* Not this thread made room, but a removal, say */
            e->starved = false;
            event_notifier_set(&e->kick);
        }
        if (!pressure(e) && e->drops->len <= ev.drops_kept) {
            e->evicting = false;
            qemu_cond_wait(&e->evict, &e->lock);
            continue;
        }
        e->evicting = true;
        qemu_mutex_unlock(&e->lock);
        work(&ev);
        qemu_mutex_lock(&e->lock);
    }
    qemu_mutex_unlock(&e->lock);
    g_free(ev.parcels);
    g_free(ev.away);
    return NULL;
}
