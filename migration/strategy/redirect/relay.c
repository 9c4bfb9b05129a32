/*
 * Redirect: the old destination, which sends what it holds to the new one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest memory is cut into chunks.  Each thread claims the next one that
 * holds a page that is owed, asks which of its pages are there already, sends
 * the others, and has a SYNC follow them.  The answer for one chunk travels
 * while the one before it is sent.
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "block/aio.h"
#include "io/channel-tls.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "../../memserver/client.h"
#include "../trace.h"
#include "relay.h"

#define MAX_CONNECTIONS     8
/*
 * What is given back between two chunks, lest nothing come for so long that
 * the relay seems to be stalled; the rest when it has ended
 */
#define MAX_GAP_PAGES       ((256 * MiB) / PAGELINK_PAGE_SIZE)
/* 8 MiB: what is sent in vain when the source was faster */
#define CHUNK_PAGES         2048
/* Chunks without their ACK, for each connection */
#define MAX_UNACKED         4
/* Nothing moves or is answered for so long: give up */
#define TIMEOUT_MS          30000
/* At least, when the rate is limited */
#define BATCHES_A_SECOND    20
/* How often a wait looks whether the rate has changed */
#define RATE_LOOK_MS        100
/* For the last attempt to connect, at least */
#define LAST_ATTEMPT_MS     2000
/* Between two attempts to connect */
#define RETRY_PAUSE_MS      200

typedef struct RelayWorker RelayWorker;

typedef struct Chunk {
    RelayWorker *w;
    bool used;
    unsigned region;
    uint64_t first;
    uint32_t n;
    bool answered;
    uint8_t held[CHUNK_PAGES / 8];
} Chunk;

/* A connection; belongs to its thread */
struct RelayWorker {
    RedirectRelaySender *r;
    PageLinkClient *client;     /* written under r->lock */
    bool sending;               /* connected, not through; under r->lock */
    bool ending;                /* it ends the session; under r->lock */
    bool *known;                /* regions whose BLOCK was sent */
    /* Those without their ACK, the one being sent, and the next */
    Chunk chunks[MAX_UNACKED + 2];

    /* Set by callbacks */
    unsigned unacked;
    unsigned answers;
    bool refused;
    PageLinkAck ack;            /* since the connection began */
    uint64_t stale;             /* of it, counted as dropped */
};

/* Of a connection that failed: another one sends it */
typedef struct Returned {
    unsigned region;
    uint64_t first;
    uint32_t n;
} Returned;

/* Nothing in it is owed */
typedef struct Gap {
    unsigned region;
    uint64_t first, n;
} Gap;

struct RedirectRelaySender {
    /* Constant */
    RedirectSession session;
    SocketAddress *addr;
    QCryptoTLSCreds *tls_creds;
    char *tls_hostname;
    RedirectRelayRegion *regions;
    unsigned nregions;
    unsigned nworkers;
    uint64_t owed;
    int64_t retry_ms;
    uint64_t (*max_rate)(void *opaque);
    bool (*release)(unsigned region, uint64_t first, uint64_t n, bool arrived,
                    void *opaque);
    void (*done)(void *opaque);
    void *opaque;

    /* Atomic */
    uint64_t pages, zero, skipped, dropped, bytes;
    uint32_t refs;

    QemuMutex lock;
    QemuCond idle;              /* busy has become 0 */
    QemuCond news;              /* for workers: of what is below */
    /* Under the lock */
    RelayWorker workers[MAX_CONNECTIONS];
    unsigned alive;             /* workers that have not failed */
    unsigned busy;              /* workers that may read guest memory */
    unsigned sending;           /* workers that are connected, not through */
    bool ending;                /* a worker ends the session */
    bool told;                  /* done was scheduled */
    GArray *returned;           /* of Returned */
    unsigned next_region;       /* of the next chunk */
    uint64_t next_page;
    uint64_t rate;              /* limit when it was looked at last */
    double debt;                /* bytes that have left before their time */
    int64_t paid_us;            /* when some of it was paid last */
    RedirectRelayStatus status;
    char *error;
    int64_t start_ms, end_ms;   /* 0: not yet */

    bool freed;                 /* main thread */
};

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

static void relay_unref(RedirectRelaySender *r)
{
    if (qatomic_fetch_dec(&r->refs) > 1) {
        return;
    }
    for (unsigned i = 0; i < r->nregions; i++) {
        g_free(r->regions[i].name);
        g_free(r->regions[i].owed);
    }
    for (unsigned i = 0; i < r->nworkers; i++) {
        g_free(r->workers[i].known);
    }
    g_free(r->regions);
    g_array_free(r->returned, true);
    qapi_free_SocketAddress(r->addr);
    object_unref(OBJECT(r->tls_creds));
    g_free(r->tls_hostname);
    qemu_mutex_destroy(&r->lock);
    qemu_cond_destroy(&r->idle);
    qemu_cond_destroy(&r->news);
    g_free(r->error);
    g_free(r);
}

static bool relay_over(RedirectRelayStatus status)
{
    return status > REDIRECT_RELAY_STATUS_ACTIVE;
}

static void relay_done_bh(void *opaque)
{
    RedirectRelaySender *r = opaque;

    if (!r->freed && r->done) {
        r->done(r->opaque);
    }
    relay_unref(r);
}

/*
 * Called with the lock held: is all over?  A worker that still connects does
 * not count, as it finds that out by itself.
 */
static void relay_tell_locked(RedirectRelaySender *r)
{
    if (!relay_over(r->status) || r->busy || r->told) {
        return;
    }
    r->told = true;
    trace_redirect_relay_end(r->status, r->pages, r->skipped, r->error ?: "");
    qatomic_inc(&r->refs);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), relay_done_bh, r);
}

/* Called with the lock held: the first reason to end is the one that counts */
static void relay_end_locked(RedirectRelaySender *r,
                             RedirectRelayStatus status, const char *error)
{
    if (relay_over(r->status)) {
        return;
    }
    r->status = status;
    r->error = g_strdup(error);
    r->end_ms = now_ms();
    qemu_cond_broadcast(&r->news);
    if (status != REDIRECT_RELAY_STATUS_COMPLETED) {
        for (unsigned i = 0; i < r->nworkers; i++) {
            if (r->workers[i].client) {
                pagelink_client_shutdown(r->workers[i].client);
            }
        }
    }
    relay_tell_locked(r);
}

/* Called with the lock held */
static void worker_through_locked(RelayWorker *w)
{
    if (w->sending) {
        w->sending = false;
        w->r->sending--;
        qemu_cond_broadcast(&w->r->news);
    }
}

/* Called with the lock held: what has not arrived for certain */
static void worker_return_locked(RelayWorker *w)
{
    RedirectRelaySender *r = w->r;

    for (unsigned i = 0; i < ARRAY_SIZE(w->chunks); i++) {
        Chunk *chunk = &w->chunks[i];

        if (chunk->used) {
            Returned back = { chunk->region, chunk->first, chunk->n };

            g_array_append_val(r->returned, back);
            chunk->used = false;
        }
    }
}

/* The last connection to fail ends the relay.  Takes over @err. */
static void worker_fail(RelayWorker *w, Error *err)
{
    RedirectRelaySender *r = w->r;
    /* The new destination says goodbye when it has all pages */
    bool released = w->client && pagelink_client_failure(w->client) ==
                                 PAGELINK_ERR_SHUTDOWN;

    QEMU_LOCK_GUARD(&r->lock);
    trace_redirect_relay_fail(r->alive, error_get_pretty(err));
    if (released) {
        relay_end_locked(r, REDIRECT_RELAY_STATUS_RELEASED, NULL);
    } else if (!--r->alive) {
        relay_end_locked(r, REDIRECT_RELAY_STATUS_FAILED,
                         error_get_pretty(err));
    }
    worker_return_locked(w);
    worker_through_locked(w);
    if (w->ending) {
        r->ending = w->ending = false;
        qemu_cond_broadcast(&r->news);
    }
    error_free(err);
}

static void relay_release(RedirectRelaySender *r, unsigned region,
                          uint64_t first, uint64_t n, bool arrived)
{
    if (r->release && n &&
        !r->release(region, first, n, arrived, r->opaque)) {
        redirect_relay_cancel(r);
    }
}

/*
 * Called with the lock held: what a failed connection left, or what comes
 * next.  @gap is what lies before it, in which nothing is owed.  Returns
 * false when the region is at its end.
 */
static bool claim_locked(RedirectRelaySender *r, Chunk *chunk, Gap *gap)
{
    RedirectRelayRegion *region = &r->regions[r->next_region];
    uint64_t owed;

    if (r->returned->len) {
        Returned *back = &g_array_index(r->returned, Returned,
                                        r->returned->len - 1);

        chunk->region = back->region;
        chunk->first = back->first;
        chunk->n = back->n;
        g_array_set_size(r->returned, r->returned->len - 1);
        return true;
    }
    gap->region = r->next_region;
    gap->first = r->next_page;
    owed = find_next_bit(region->owed, region->pages, r->next_page);
    if (owed >= region->pages) {
        gap->n = region->pages - gap->first;
        r->next_region++;
        r->next_page = 0;
        return false;
    }
    chunk->region = r->next_region;
    chunk->first = QEMU_ALIGN_DOWN(owed, CHUNK_PAGES);
    chunk->n = MIN(CHUNK_PAGES, region->pages - chunk->first);
    gap->n = chunk->first - gap->first;
    r->next_page = chunk->first + chunk->n;
    return true;
}

/*
 * Claim the next chunk in which a page is owed, give back what lies before
 * it, which may take long and needs no lock.  Returns NULL when there is none.
 */
static Chunk *relay_claim(RelayWorker *w)
{
    RedirectRelaySender *r = w->r;
    Chunk *chunk = w->chunks;

    while (chunk->used) {
        chunk++;
        assert(chunk < w->chunks + ARRAY_SIZE(w->chunks));
    }
    chunk->w = w;
    chunk->answered = false;
    while (!chunk->used) {
        Gap gap = { };

        WITH_QEMU_LOCK_GUARD(&r->lock) {
            if (!r->returned->len && r->next_region >= r->nregions) {
                return NULL;
            }
            chunk->used = claim_locked(r, chunk, &gap);
        }
        relay_release(r, gap.region, gap.first,
                      MIN(gap.n, MAX_GAP_PAGES), false);
    }
    return chunk;
}

static void chunk_answered(void *opaque, const PageLinkFault *error)
{
    Chunk *chunk = opaque;

    chunk->answered = true;
    chunk->w->answers++;
    if (error) {
        chunk->w->refused = true;
    }
}

/* All of it has arrived, or never will */
static void chunk_synced(void *opaque, const PageLinkFault *error)
{
    Chunk *chunk = opaque;
    RelayWorker *w = chunk->w;

    w->unacked--;
    w->answers++;
    qatomic_add(&w->r->dropped, w->ack.stale - w->stale);
    w->stale = w->ack.stale;
    if (error || w->ack.refused) {
        /* Still in use: it goes to another connection */
        w->refused = true;
        return;
    }
    relay_release(w->r, chunk->region, chunk->first, chunk->n, true);
    chunk->used = false;
}

/* Ask what of @chunk is there already */
static bool worker_ask(RelayWorker *w, Chunk *chunk, Error **errp)
{
    RedirectRelayRegion *region = &w->r->regions[chunk->region];

    if (!w->known[chunk->region]) {
        if (!pagelink_client_block(w->client, chunk->region, region->pages,
                                   region->name, errp)) {
            return false;
        }
        w->known[chunk->region] = true;
    }
    return pagelink_client_bitmap_async(w->client, chunk->region,
                                        chunk->first, chunk->n, chunk->held,
                                        chunk_answered, chunk, errp);
}

/* Let answers come in */
static bool worker_poll(RelayWorker *w, Error **errp)
{
    unsigned before = w->answers;
    int64_t end = now_ms() + TIMEOUT_MS;

    while (w->answers == before) {
        int64_t left = end - now_ms();

        if (left <= 0) {
            error_setg(errp, "no answer from the new destination for %d ms",
                       TIMEOUT_MS);
            return false;
        }
        if (!pagelink_client_poll(w->client, left, errp)) {
            return false;
        }
    }
    if (w->refused) {
        error_setg(errp, "the new destination has refused pages");
        return false;
    }
    return true;
}

static uint64_t relay_rate(RedirectRelaySender *r)
{
    return r->max_rate ? r->max_rate(r->opaque) : 0;
}

/* Pages to send at once: a slow stream shall not look like one that stalls */
static unsigned relay_batch(RedirectRelaySender *r, unsigned max)
{
    uint64_t rate = relay_rate(r);

    return rate ? MIN(MAX(rate / BATCHES_A_SECOND / PAGELINK_PAGE_SIZE, 1),
                      max) : max;
}

/*
 * Called with the lock held: time goes by, at a rate that may have changed.
 * What left when it was higher takes no longer now.  Returns how long there
 * is still a debt, ms.
 */
static double relay_pay_locked(RedirectRelaySender *r)
{
    int64_t now = g_get_monotonic_time();
    double rate = relay_rate(r), paid;

    if (!rate) {
        r->debt = 0;
    } else if (rate < r->rate) {
        r->debt *= rate / r->rate;
    }
    paid = rate * (now - r->paid_us) / G_USEC_PER_SEC;
    r->debt = MAX(r->debt - paid, 0);
    r->rate = rate;
    r->paid_us = now;
    return r->debt ? r->debt * 1000 / rate : 0;
}

/* Wait until @bytes more do not exceed the rate that all connections share */
static void relay_pace(RedirectRelaySender *r, uint64_t bytes)
{
    double ms;

    QEMU_LOCK_GUARD(&r->lock);
    while (ms = relay_pay_locked(r), ms && !relay_over(r->status)) {
        qemu_cond_timedwait(&r->news, &r->lock, MIN(ms, RATE_LOOK_MS) + 1);
    }
    r->debt += r->rate ? bytes : 0;
}

static bool worker_put(RelayWorker *w, const PageLinkPage *pages, unsigned n,
                       Error **errp)
{
    RedirectRelaySender *r = w->r;
    unsigned zero = 0;
    uint64_t bytes;

    for (unsigned i = 0; i < n; i++) {
        zero += !pages[i].data;
    }
    bytes = sizeof(PageLinkHeader) + n * sizeof(PageLinkEntry) +
            (uint64_t)(n - zero) * PAGELINK_PAGE_SIZE;
    relay_pace(r, bytes);
    if (!pagelink_client_put(w->client, pages, n, errp)) {
        return false;
    }
    qatomic_add(&r->pages, n);
    qatomic_add(&r->zero, zero);
    qatomic_add(&r->bytes, bytes);
    return true;
}

static bool worker_send(RelayWorker *w, const Chunk *chunk, Error **errp)
{
    RedirectRelaySender *r = w->r;
    RedirectRelayRegion *region = &r->regions[chunk->region];
    unsigned most = pagelink_client_info(w->client)->max_batch;
    unsigned max = relay_batch(r, most);
    uint64_t end = chunk->first + chunk->n, page;
    PageLinkPage pages[PAGELINK_MAX_BATCH];
    unsigned n = 0;

    for (page = find_next_bit(region->owed, end, chunk->first); page < end;
         page = find_next_bit(region->owed, end, page + 1)) {
        uint64_t bit = page - chunk->first;
        uint8_t *data = (uint8_t *)region->host + page * PAGELINK_PAGE_SIZE;

        if (chunk->held[bit / 8] >> (bit % 8) & 1) {
            qatomic_inc(&r->skipped);
            continue;
        }
        pages[n++] = (PageLinkPage) {
            .block = chunk->region,
            .page = page,
            .version = 1,
            .data = buffer_is_zero(data, PAGELINK_PAGE_SIZE) ? NULL : data,
        };
        if (n == max) {
            if (!worker_put(w, pages, n, errp)) {
                return false;
            }
            n = 0;
            max = relay_batch(r, most);
        }
    }
    return !n || worker_put(w, pages, n, errp);
}

/* Send @chunk, with a SYNC behind it */
static bool worker_chunk(RelayWorker *w, Chunk *chunk, Error **errp)
{
    while (!chunk->answered || w->unacked >= MAX_UNACKED) {
        if (!worker_poll(w, errp)) {
            return false;
        }
    }
    if (!worker_send(w, chunk, errp)) {
        return false;
    }
    w->unacked++;
    return pagelink_client_sync_async(w->client, &w->ack, chunk_synced, chunk,
                                      errp);
}

/*
 * The one that is through last ends the session; one that still connects is
 * not waited for.  The others stay connected until then: a relay without a
 * connection would be taken for lost, and a connection that fails leaves
 * something to send.
 *
 * Returns whether there is more to send; else, w->ending tells whose it is to
 * end the session.
 */
static bool worker_wait(RelayWorker *w)
{
    RedirectRelaySender *r = w->r;

    QEMU_LOCK_GUARD(&r->lock);
    worker_through_locked(w);
    while (!relay_over(r->status)) {
        if (r->returned->len) {
            w->sending = true;
            r->sending++;
            return true;
        }
        if (!r->sending && !r->ending) {
            r->ending = w->ending = true;
            return false;
        }
        qemu_cond_wait(&r->news, &r->lock);
    }
    return false;
}

static bool worker_send_chunks(RelayWorker *w, Error **errp)
{
    Chunk *chunk = relay_claim(w), *next;

    if (chunk && !worker_ask(w, chunk, errp)) {
        return false;
    }
    for (; chunk; chunk = next) {
        next = relay_claim(w);
        if ((next && !worker_ask(w, next, errp)) ||
            !worker_chunk(w, chunk, errp)) {
            return false;
        }
    }
    while (w->unacked) {
        if (!worker_poll(w, errp)) {
            return false;
        }
    }
    return true;
}

static bool worker_send_all(RelayWorker *w, Error **errp)
{
    RedirectRelaySender *r = w->r;

    do {
        if (!worker_send_chunks(w, errp)) {
            return false;
        }
    } while (worker_wait(w));
    if (!w->ending) {
        return true;
    }
    if (!pagelink_client_end(w->client, errp)) {
        return false;
    }
    QEMU_LOCK_GUARD(&r->lock);
    relay_end_locked(r, REDIRECT_RELAY_STATUS_COMPLETED, NULL);
    return true;
}

static PageLinkClient *worker_connect(RelayWorker *w, int64_t ms,
                                      Error **errp)
{
    RedirectRelaySender *r = w->r;
    PageLinkClientOptions o = {
        .addr = r->addr,
        .tls_creds = r->tls_creds,
        .tls_hostname = r->tls_hostname,
        .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_BACKGROUND,
        .epoch = r->session.number,
        .name = "relay",
        .timeout_ms = TIMEOUT_MS,
        .connect_timeout_ms = ms,
    };

    memcpy(o.uuid, r->session.uuid, sizeof(o.uuid));
    memcpy(o.key, r->session.key, sizeof(o.key));
    return pagelink_client_connect(&o, errp);
}

/* False when the relay is over */
static bool relay_pause(RedirectRelaySender *r, int ms)
{
    QEMU_LOCK_GUARD(&r->lock);
    if (!relay_over(r->status)) {
        qemu_cond_timedwait(&r->news, &r->lock, ms);
    }
    return !relay_over(r->status);
}

/* Again and again for a while: it may be busy, or have no room for us yet */
static PageLinkClient *worker_connect_patiently(RelayWorker *w, Error **errp)
{
    int64_t end = now_ms() + w->r->retry_ms;

    while (true) {
        Error *err = NULL;
        PageLinkClient *client =
            worker_connect(w, MAX(end - now_ms(), LAST_ATTEMPT_MS), &err);

        if (client) {
            return client;
        }
        trace_redirect_relay_connect(error_get_pretty(err));
        if (now_ms() >= end || !relay_pause(w->r, RETRY_PAUSE_MS)) {
            error_propagate(errp, err);
            return NULL;
        }
        error_free(err);
    }
}

/* From here on the worker may read guest memory, unless it is too late */
static bool worker_begin(RelayWorker *w, PageLinkClient *client)
{
    RedirectRelaySender *r = w->r;

    QEMU_LOCK_GUARD(&r->lock);
    if (relay_over(r->status)) {
        return false;
    }
    w->client = client;
    w->sending = true;
    r->sending++;
    r->busy++;
    if (r->status == REDIRECT_RELAY_STATUS_CONNECTING) {
        r->status = REDIRECT_RELAY_STATUS_ACTIVE;
        r->start_ms = now_ms();
    }
    return true;
}

static void worker_close(RelayWorker *w)
{
    RedirectRelaySender *r = w->r;
    PageLinkClient *client = w->client;

    WITH_QEMU_LOCK_GUARD(&r->lock) {
        w->client = NULL;
    }
    pagelink_client_free(client);
    QEMU_LOCK_GUARD(&r->lock);
    if (!--r->busy) {
        qemu_cond_broadcast(&r->idle);
    }
    relay_tell_locked(r);
}

static void *worker_main(void *opaque)
{
    RelayWorker *w = opaque;
    RedirectRelaySender *r = w->r;
    Error *err = NULL;
    PageLinkClient *client = worker_connect_patiently(w, &err);

    if (!client) {
        worker_fail(w, err);
    } else if (!worker_begin(w, client)) {
        pagelink_client_free(client);
    } else {
        if (!worker_send_all(w, &err)) {
            worker_fail(w, err);
        }
        worker_close(w);
    }
    relay_unref(r);
    return NULL;
}

RedirectRelaySender *redirect_relay_start(const RedirectRelayOptions *o)
{
    RedirectRelaySender *r = g_new0(RedirectRelaySender, 1);

    assert(o->connections && o->connections <= MAX_CONNECTIONS);
    /* The first use of a type is not for several threads at once */
    object_class_by_name(TYPE_QIO_CHANNEL_SOCKET);
    object_class_by_name(TYPE_QIO_CHANNEL_TLS);
    qemu_mutex_init(&r->lock);
    qemu_cond_init(&r->idle);
    qemu_cond_init(&r->news);
    r->returned = g_array_new(false, false, sizeof(Returned));
    r->session = o->session;
    r->addr = QAPI_CLONE(SocketAddress, o->addr);
    r->tls_creds = o->tls_creds;
    if (r->tls_creds) {
        object_ref(OBJECT(r->tls_creds));
    }
    r->tls_hostname = g_strdup(o->tls_hostname);
    r->regions = o->regions;
    r->nregions = o->nregions;
    r->retry_ms = o->retry_ms;
    r->max_rate = o->max_rate;
    r->release = o->release;
    r->done = o->done;
    r->opaque = o->opaque;
    for (unsigned i = 0; i < r->nregions; i++) {
        r->owed += bitmap_count_one(r->regions[i].owed, r->regions[i].pages);
    }
    r->nworkers = r->alive = o->connections;
    r->refs = 1 + r->nworkers;
    trace_redirect_relay_start(r->owed);
    for (unsigned i = 0; i < r->nworkers; i++) {
        r->workers[i].r = r;
        r->workers[i].known = g_new0(bool, r->nregions);
    }
    for (unsigned i = 0; i < o->connections; i++) {
        QemuThread thread;

        qemu_thread_create(&thread, "redirect-relay", worker_main,
                           &r->workers[i], QEMU_THREAD_DETACHED);
    }
    return r;
}

void redirect_relay_cancel(RedirectRelaySender *r)
{
    QEMU_LOCK_GUARD(&r->lock);
    relay_end_locked(r, REDIRECT_RELAY_STATUS_CANCELLED, NULL);
}

void redirect_relay_query(RedirectRelaySender *r,
                          RedirectRelayFigures *figures)
{
    int64_t ms;

    QEMU_LOCK_GUARD(&r->lock);
    ms = (r->end_ms ?: now_ms()) - r->start_ms;
    *figures = (RedirectRelayFigures) {
        .status = r->status,
        .owed = r->owed,
        .pages = qatomic_read(&r->pages),
        .zero = qatomic_read(&r->zero),
        .skipped = qatomic_read(&r->skipped),
        .dropped = qatomic_read(&r->dropped),
        .bytes = qatomic_read(&r->bytes),
        .error = g_strdup(r->error),
    };
    if (r->start_ms) {
        figures->rate = figures->pages * PAGELINK_PAGE_SIZE * 1000 /
                        MAX(ms, 1);
    }
}

void redirect_relay_free(RedirectRelaySender *r)
{
    if (!r) {
        return;
    }
    redirect_relay_cancel(r);
    r->freed = true;
    WITH_QEMU_LOCK_GUARD(&r->lock) {
        while (r->busy) {
            qemu_cond_wait(&r->idle, &r->lock);
        }
    }
    relay_unref(r);
}
