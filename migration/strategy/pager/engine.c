/*
 * Remote pager: the engine's start, end and figures (see engine.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "migration/pagelink.h"
#include "engine-int.h"
#include "uffd.h"
#include "../trace.h"

#define DEFAULT_TIMEOUT_MS  10000

int64_t pager_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

PagerPlace *pager_place_of_page(PagerEngine *e, uint64_t page)
{
    unsigned i;

    for (i = 0; i < e->n_places; i++) {
        if (page - e->places[i].base < e->places[i].r.pages) {
            return &e->places[i];
        }
    }
    g_assert_not_reached();
}

bool pager_page_of_address(PagerEngine *e, uint64_t address, uint64_t *page)
{
    unsigned i;

    for (i = 0; i < e->n_places; i++) {
        uint64_t offset = address - (uintptr_t)e->places[i].r.host;

        if (offset / PAGELINK_PAGE_SIZE < e->places[i].r.pages) {
            *page = e->places[i].base + offset / PAGELINK_PAGE_SIZE;
            return true;
        }
    }
    return false;
}

void *pager_address(PagerEngine *e, uint64_t page)
{
    PagerPlace *p = pager_place_of_page(e, page);

    return (uint8_t *)p->r.host + (page - p->base) * PAGELINK_PAGE_SIZE;
}

void pager_changed(PagerEngine *e)
{
    e->config.changed(e->config.opaque);
}

void pager_wake_evictor(PagerEngine *e)
{
    if (pager_used(e) + e->headroom / 2 > e->limit) {
        qemu_cond_signal(&e->evict);
    }
}

void pager_drop(PagerEngine *e, uint64_t page)
{
    const PagerPlace *p = pager_place_of_page(e, page);
    uint64_t offset = page - p->base;
    uint8_t host = e->host[page];
    PagerRange *last, range;

    if (e->state[page] & PG_STORED) {
        e->hosts[host].info.stored--;
        e->state[page] &= ~PG_STORED;
    }
    if (host == PAGER_NO_HOST) {
        return;
    }
    e->version++;
    if (e->drops->len) {
        last = &g_array_index(e->drops, PagerRange, e->drops->len - 1);
        /* In one with it only if no page was written between the two */
        if (last->host == host && last->range.block == p->r.block &&
            last->range.version + 1 == e->version &&
            last->range.page + last->range.pages == offset &&
            last->range.pages < PAGELINK_MAX_DROP_PAGES / PAGELINK_MAX_BATCH) {
            last->range.pages++;
            last->range.version = e->version;
            return;
        }
    }
    if (e->drops->len == PAGER_MAX_DROPS) {
        /* The host keeps what nobody will ask for: a waste, and no more */
        return;
    }
    range = (PagerRange) {
        .host = host,
        .range = { .page = offset, .pages = 1, .block = p->r.block,
                   .version = e->version },
    };
    g_array_append_val(e->drops, range);
    qemu_cond_signal(&e->evict);
}

static bool open_uffds(PagerEngine *e, Error **errp)
{
    uint64_t features;
    bool move;

    if (!pager_uffd_features(&features, errp)) {
        return false;
    }
    move = features & UFFD_FEATURE_MOVE && !e->config.no_move;
    e->uffd = pager_uffd_open((features & UFFD_FEATURE_POISON) |
                              UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                              UFFD_FEATURE_EVENT_REMOVE |
                              UFFD_FEATURE_THREAD_ID, errp);
    return e->uffd >= 0 &&
           pager_staging_init(&e->staging, PAGER_STAGING_MAX * 2, move, errp);
}

static void unregister(PagerEngine *e, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        pager_uffd_unregister(e->uffd, e->places[i].r.host,
                              e->places[i].r.pages * PAGELINK_PAGE_SIZE);
    }
}

static bool register_regions(PagerEngine *e, Error **errp)
{
    unsigned i;

    for (i = 0; i < e->n_places; i++) {
        PagerPlace *p = &e->places[i];

        if (!pager_discard_rest(p, errp) ||
            !pager_uffd_register(e->uffd, p->r.host,
                                 p->r.pages * PAGELINK_PAGE_SIZE,
                                 UFFDIO_REGISTER_MODE_MISSING |
                                 UFFDIO_REGISTER_MODE_WP, errp)) {
            unregister(e, i);
            return false;
        }
    }
    return true;
}

/* Lock held, or nobody else there yet */
static void set_limit(PagerEngine *e, uint64_t pages)
{
    PagerShares shares = pager_shares(pages);

    e->limit = MAX(pages, PAGER_LIMIT_MIN);
    e->ceiling = MAX(e->limit, pager_used(e));
    e->ceiling_tail = e->staging.tail;
    e->staging_limit = shares.staging;
    e->headroom = shares.headroom;
}

static void engine_init(PagerEngine *e, const PagerConfig *c)
{
    unsigned i;

    e->config = *c;
    e->uffd = -1;
    e->timeout_ns = (c->timeout_ms ?: DEFAULT_TIMEOUT_MS) * 1000000LL;
    e->version = c->last_version;
    e->n_places = c->n_regions;
    e->places = g_new0(PagerPlace, c->n_regions);
    for (i = 0; i < c->n_regions; i++) {
        e->places[i].r = c->regions[i];
        e->places[i].r.name = g_strdup(c->regions[i].name);
        e->places[i].base = e->pages;
        e->pages += c->regions[i].pages;
    }
    e->n_hosts = c->n_hosts;
    e->hosts = g_new0(PagerHost, c->n_hosts);
    for (i = 0; i < c->n_hosts; i++) {
        PagerHost *h = &e->hosts[i];

        h->e = e;
        h->index = i;
        h->name = g_strdup(c->hosts[i].name);
        h->capacity = h->most = c->hosts[i].capacity;
        qemu_cond_init(&h->cond);
    }
    qemu_mutex_init(&e->lock);
    qemu_cond_init(&e->evict);
    e->state = g_malloc0(e->pages);
    e->host = g_malloc(e->pages);
    e->policy = pager_policy_new(e->pages);
    e->waiters = g_array_new(false, false, sizeof(PagerWaiter));
    e->held = g_array_new(false, false, sizeof(uint32_t));
    e->drops = g_array_new(false, false, sizeof(PagerRange));
    QSIMPLEQ_INIT(&e->arrived);
    QSIMPLEQ_INIT(&e->spare);
    set_limit(e, c->limit);
    for (i = 0; i < e->n_places; i++) {
        pager_place_pages(e, &e->places[i]);
    }
}

static void engine_destroy(PagerEngine *e)
{
    unsigned i;

    pager_hosts_destroy(e);
    pager_fetch_destroy(e);
    if (e->uffd >= 0) {
        close(e->uffd);
    }
    pager_staging_destroy(&e->staging);
    for (i = 0; i < e->n_places; i++) {
        g_free((char *)e->places[i].r.name);
    }
    g_free(e->places);
    g_free(e->state);
    g_free(e->host);
    pager_policy_free(e->policy);
    g_array_free(e->waiters, true);
    g_array_free(e->held, true);
    g_clear_pointer(&e->spared, g_array_unref);
    g_array_free(e->drops, true);
    event_notifier_cleanup(&e->kick);
    qemu_cond_destroy(&e->evict);
    qemu_mutex_destroy(&e->lock);
    g_free(e);
}

PagerEngine *pager_engine_new(const PagerConfig *c, Error **errp)
{
    PagerEngine *e = g_new0(PagerEngine, 1);
    int ret = event_notifier_init(&e->kick, false);

    engine_init(e, c);
    if (ret) {
        error_setg_errno(errp, -ret, "no event notifier");
    } else if (open_uffds(e, errp) && register_regions(e, errp)) {
        if (pager_hosts_start(e, errp)) {
            qemu_thread_create(&e->evictor, "pager-evictor",
                               pager_evictor_main, e, QEMU_THREAD_JOINABLE);
            qemu_thread_create(&e->fault_thread, "pager-fault",
                               pager_fault_main, e, QEMU_THREAD_JOINABLE);
            trace_pager_start(e->pages, e->limit, e->local);
            return e;
        }
        unregister(e, e->n_places);
        pager_engine_end_sessions(e);
    }
    engine_destroy(e);
    return NULL;
}

void pager_engine_set_limit(PagerEngine *e, uint64_t pages)
{
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        set_limit(e, pages);
        qemu_cond_signal(&e->evict);
    }
    /* Whoever waits for room may go on */
    event_notifier_set(&e->kick);
}

void pager_engine_gather(PagerEngine *e)
{
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->gathering = true;
        qemu_cond_signal(&e->evict);
    }
    event_notifier_set(&e->kick);
}

void pager_engine_query(PagerEngine *e, PagerInfo *info)
{
    unsigned i;

    QEMU_LOCK_GUARD(&e->lock);
    *info = e->info;
    info->pages = e->pages;
    info->limit = e->limit;
    info->resident = e->local + e->fetching;
    info->staged = pager_staging_used(&e->staging);
    info->waiting = e->waiters->len;
    info->full = e->full;
    info->gathering = e->gathering;
    info->gathered = e->gathered;
    info->n_hosts = e->n_hosts;
    info->hosts = g_new(PagerHostInfo, e->n_hosts);
    for (i = 0; i < e->n_hosts; i++) {
        info->hosts[i] = e->hosts[i].info;
        info->hosts[i].capacity = e->hosts[i].capacity;
        info->hosts[i].error = g_strdup(e->hosts[i].info.error);
    }
    info->zero = e->pages - e->local - e->fetching - e->info.remote -
                 g_hash_table_size(e->staging.index);
}

void pager_info_clear(PagerInfo *info)
{
    unsigned i;

    for (i = 0; i < info->n_hosts; i++) {
        g_free(info->hosts[i].error);
    }
    g_free(info->hosts);
    *info = (PagerInfo) { 0 };
}

bool pager_among(uint32_t tid, const GArray *tids)
{
    unsigned i;

    for (i = 0; i < tids->len; i++) {
        if (g_array_index(tids, uint32_t, i) == tid) {
            return true;
        }
    }
    return false;
}

/* Lock held */
static bool all_up(const PagerEngine *e)
{
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        if (e->hosts[i].info.state != PAGER_HOST_UP) {
            return false;
        }
    }
    return true;
}

bool pager_engine_hold(PagerEngine *e, uint32_t tid)
{
    unsigned i;
    bool up;

    QEMU_LOCK_GUARD(&e->lock);
    up = all_up(e);
    for (i = 0; i < e->waiters->len; i++) {
        const PagerWaiter *w = &g_array_index(e->waiters, PagerWaiter, i);

        /* While all are there, room comes with what is written next */
        if (w->tid == tid && (w->on == PAGER_WAIT_HOST ||
                              (w->on == PAGER_WAIT_ROOM && !up))) {
            if (!pager_among(tid, e->held)) {
                g_array_append_val(e->held, tid);
            }
            return true;
        }
    }
    return false;
}

bool pager_engine_waits(PagerEngine *e, int64_t since)
{
    unsigned i;

    QEMU_LOCK_GUARD(&e->lock);
    for (i = 0; i < e->waiters->len; i++) {
        const PagerWaiter *w = &g_array_index(e->waiters, PagerWaiter, i);

        if (w->since <= since && !pager_among(w->tid, e->held)) {
            return true;
        }
    }
    return false;
}

bool pager_engine_settled(PagerEngine *e)
{
    unsigned i;

    QEMU_LOCK_GUARD(&e->lock);
    for (i = 0; i < e->waiters->len; i++) {
        if (g_array_index(e->waiters, PagerWaiter, i).on == PAGER_WAIT_HOST) {
            return false;
        }
    }
    return !e->held->len && all_up(e);
}

void pager_engine_release(PagerEngine *e)
{
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        g_array_set_size(e->held, 0);
    }
    event_notifier_set(&e->kick);
}

void pager_engine_poison(PagerEngine *e, const uint32_t *keep, unsigned n)
{
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        if (!e->spared) {
            e->spared = g_array_new(false, false, sizeof(uint32_t));
        }
        g_array_append_vals(e->spared, keep, n);
    }
    event_notifier_set(&e->kick);
}

void pager_engine_end_sessions(PagerEngine *e)
{
    const PagerConfig *config = &e->config;
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        PageLinkClient *c = NULL;
        bool up;

        WITH_QEMU_LOCK_GUARD(&e->lock) {
            up = e->hosts[i].link[PAGER_LINK_DEMAND] &&
                 e->hosts[i].info.state == PAGER_HOST_UP;
        }
        /* One of its own: the others belong to threads */
        if (up) {
            c = config->connect(config->opaque, i, PAGER_LINK_WRITE, false,
                                NULL, NULL);
        }
        if (c) {
            pagelink_client_end(c, NULL);
            pagelink_client_free(c);
        }
    }
}

static void shut_down_links(PagerEngine *e)
{
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        PageLinkClient *c = e->hosts[i].link[PAGER_LINK_WRITE];

        if (c) {
            pagelink_client_shutdown(c);
        }
    }
}

void pager_engine_free(PagerEngine *e)
{
    bool gathered;
    unsigned i;

    WITH_QEMU_LOCK_GUARD(&e->lock) {
        gathered = e->gathered;
    }
    if (gathered) {
        pager_engine_end_sessions(e);
    }
    WITH_QEMU_LOCK_GUARD(&e->lock) {
        e->quit = true;
        qemu_cond_signal(&e->evict);
        for (i = 0; i < e->n_hosts; i++) {
            qemu_cond_signal(&e->hosts[i].cond);
        }
        /* The evictor may be waiting for an answer */
        shut_down_links(e);
    }
    pager_hosts_stop(e);
    qemu_thread_join(&e->evictor);
    /* From here on nobody waits for a page */
    unregister(e, e->n_places);
    event_notifier_set(&e->kick);
    qemu_thread_join(&e->fault_thread);
    trace_pager_stop(e->info.faults, e->info.evicted_clean,
                     e->info.evicted_dirty);
    engine_destroy(e);
}
