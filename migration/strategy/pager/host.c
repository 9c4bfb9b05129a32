/*
 * Remote pager: servers, and connecting to them again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each host has a thread that sleeps until one of its links has failed, then
 * connects with growing pauses until it is there again.  The thread that had
 * the link goes on meanwhile with other hosts' pages.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "engine-int.h"
#include "../trace.h"

#define RETRY_MIN_MS    50
#define RETRY_MAX_MS    5000

static const char *const link_names[PAGER_LINK__MAX] = {
    [PAGER_LINK_DEMAND] = "demand",
    [PAGER_LINK_FETCH] = "fetch",
    [PAGER_LINK_WRITE] = "write",
};

static PageLinkClient *host_connect(PagerHost *h, PagerLink link, bool take,
                                    bool *refused, Error **errp)
{
    const PagerConfig *c = &h->e->config;

    return c->connect(c->opaque, h->index, link, take, refused, errp);
}

/* The first reason is the one to tell of a host that is gone */
static void set_error(PagerHost *h, const char *why)
{
    if (h->gone) {
        return;
    }
    g_free(h->info.error);
    h->info.error = g_strdup(why);
}

bool pager_host_need(PagerHost *h)
{
    h->needed = true;
    if (h->info.state == PAGER_HOST_DEGRADED && h->attempts) {
        h->info.state = PAGER_HOST_LOST;
        return true;
    }
    return false;
}

/* What it means for the host that @old does not work.  Lock held. */
static void note_failure(PagerHost *h, PagerLink link, PageLinkClient *old,
                         const char *why)
{
    h->want |= 1u << link;
    if (h->info.state == PAGER_HOST_UP) {
        h->info.state = PAGER_HOST_DEGRADED;
    }
    if (pagelink_client_failure(old) == PAGELINK_ERR_TIMEOUT ||
        (link != PAGER_LINK_WRITE && h->silent[link])) {
        /* That was long enough: connecting takes as long again to fail */
        h->attempts = MAX(h->attempts, 1);
        if (h->needed) {
            h->info.state = PAGER_HOST_LOST;
        }
    }
    set_error(h, why);
    qemu_cond_signal(&h->cond);
}

void pager_host_failed(PagerHost *h, PagerLink link, const char *why)
{
    PageLinkClient *old;
    bool over;

    trace_pager_host_failed(h->name, link_names[link], why);
    WITH_QEMU_LOCK_GUARD(&h->e->lock) {
        old = h->link[link];
        h->link[link] = NULL;
        /* Servers hang up when their session is ended */
        over = h->e->gathered;
        if (!over) {
            note_failure(h, link, old, why);
        }
    }
    pagelink_client_free(old);
    if (!over) {
        pager_changed(h->e);
    }
}

void pager_host_lost_page(PagerHost *h, uint64_t page)
{
    const PagerPlace *p = pager_place_of_page(h->e, page);
    g_autofree char *why = NULL;

    why = g_strdup_printf("it has lost page %" PRIu64 " of '%s', and maybe "
                          "others", page - p->base, p->r.name);
    trace_pager_host_failed(h->name, "", why);
    WITH_QEMU_LOCK_GUARD(&h->e->lock) {
        set_error(h, why);
        h->gone = true;
        h->info.state = PAGER_HOST_LOST;
    }
    pager_changed(h->e);
}

bool pager_host_refresh(PagerHost *h, PagerLink link)
{
    if (!h->fresh[link] || h->gone) {
        return false;
    }
    h->link[link] = h->fresh[link];
    h->fresh[link] = NULL;
    return true;
}

/* With the lock, which is given up while connecting */
static bool host_try(PagerHost *h, PagerLink link)
{
    Error *err = NULL;
    bool refused = false;
    PageLinkClient *c;

    qemu_mutex_unlock(&h->e->lock);
    c = host_connect(h, link, false, &refused, &err);
    qemu_mutex_lock(&h->e->lock);
    h->refused = refused;
    if (!c) {
        set_error(h, error_get_pretty(err));
        error_free(err);
        return false;
    }
    h->fresh[link] = c;
    h->want &= ~(1u << link);
    return true;
}

static void host_try_all(PagerHost *h)
{
    bool ok = true;
    unsigned link;

    for (link = 0; ok && link < PAGER_LINK__MAX && !h->e->quit &&
         !h->e->gathered; link++) {
        if (h->want & (1u << link)) {
            ok = host_try(h, link);
        }
    }
    if (h->gone) {
        /* While it was being connected */
    } else if (ok && !h->want) {
        h->attempts = 0;
        h->needed = false;
        h->most = h->capacity;
        h->info.state = PAGER_HOST_UP;
        h->info.reconnects++;
    } else if (!ok) {
        h->attempts++;
        if (h->needed) {
            h->info.state = PAGER_HOST_LOST;
        }
    }
    trace_pager_host_retry(h->name, h->attempts, h->info.error ?: "");
}

static void *host_main(void *opaque)
{
    PagerHost *h = opaque;
    PagerEngine *e = h->e;
    int pause_ms = RETRY_MIN_MS;

    qemu_mutex_lock(&e->lock);
    while (!e->quit) {
        PagerHostState before = h->info.state;
        bool changed;

        if (!h->want || h->gone || e->gathered) {
            pause_ms = RETRY_MIN_MS;
            qemu_cond_wait(&h->cond, &e->lock);
            continue;
        }
        host_try_all(h);
        qemu_cond_signal(&e->evict);
        changed = before != h->info.state;
        qemu_mutex_unlock(&e->lock);
        event_notifier_set(&e->kick);
        if (changed) {
            pager_changed(e);
        }
        qemu_mutex_lock(&e->lock);
        if (h->attempts && !e->quit) {
            qemu_cond_timedwait(&h->cond, &e->lock, pause_ms);
            pause_ms = MIN(pause_ms * 2, RETRY_MAX_MS);
        }
    }
    qemu_mutex_unlock(&e->lock);
    return NULL;
}

bool pager_hosts_start(PagerEngine *e, Error **errp)
{
    unsigned i, link;

    for (i = 0; i < e->n_hosts; i++) {
        PagerHost *h = &e->hosts[i];

        for (link = 0; link < PAGER_LINK__MAX; link++) {
            /* The first takes the session over, the others join */
            h->link[link] = host_connect(h, link, link == 0, NULL, errp);
            if (!h->link[link]) {
                return false;
            }
            for (unsigned b = 0; link == 0 && b < e->n_places; b++) {
                const PagerRegion *r = &e->places[b].r;

                if (!pagelink_client_block(h->link[0], r->block, r->pages,
                                           r->name, errp)) {
                    return false;
                }
            }
        }
    }
    for (i = 0; i < e->n_hosts; i++) {
        qemu_thread_create(&e->hosts[i].thread, "pager-host", host_main,
                           &e->hosts[i], QEMU_THREAD_JOINABLE);
    }
    return true;
}

void pager_hosts_stop(PagerEngine *e)
{
    unsigned i;

    for (i = 0; i < e->n_hosts; i++) {
        qemu_thread_join(&e->hosts[i].thread);
    }
}

void pager_hosts_destroy(PagerEngine *e)
{
    unsigned i, link;

    for (i = 0; i < e->n_hosts; i++) {
        PagerHost *h = &e->hosts[i];

        for (link = 0; link < PAGER_LINK__MAX; link++) {
            pagelink_client_free(h->link[link]);
            pagelink_client_free(h->fresh[link]);
        }
        qemu_cond_destroy(&h->cond);
        g_free(h->info.error);
        g_free(h->name);
    }
    g_free(e->hosts);
}
