/*
 * Sender: the thread that brings pages to one memory host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qapi/error.h"
#include "qapi/qapi-types-sockets.h"
#include "migration/memserver/client.h"
#include "sender.h"
#include "../trace.h"

/* How often an idle sender looks whether the connection is still there */
#define IDLE_MS                 500
/* How long a memory host may have nothing to say before it is asked */
#define QUIET_US                (2 * G_USEC_PER_SEC)
/* Bytes between two questions whether all was accepted */
#define SYNC_BYTES              (8 * 1024 * 1024)
/* Less than this tells more of the round trip than of the link, bytes */
#define MEASURE_LEAST           (1024 * 1024)
/* The rate is that of the last so many bytes, or about */
#define MEASURE_BYTES           (32 * 1024 * 1024)
/* How long the end of a session may take in the background */
#define END_TIMEOUT_MS          5000

struct SplitSender {
    /* Constant */
    SplitSetup *setup;
    const SplitHost *host;
    QCryptoTLSCreds *creds;
    char *name;
    int timeout_ms;

    /* The sender's thread only */
    PageLinkAck ack;            /* of the SYNC under way */
    bool ack_pending;
    uint64_t asked;             /* stats.bytes at the last SYNC */
    int64_t since;              /* start of what is being measured, us */

    QemuMutex lock;
    QemuCond work;              /* for the thread */
    QemuCond changed;           /* for who waits for the thread */

    /* Under lock */
    PageLinkClient *client;     /* used by the thread without it */
    SplitSenderState state;
    Error *err;
    uint64_t free_pages;
    SplitEntry *queue;
    unsigned size;              /* of the queue, a power of 2 */
    unsigned head, fill;        /* first entry, number of entries */
    int64_t answered;           /* when the memory host last did, us */
    unsigned taken;             /* entries in the message being sent */
    bool sync_wanted;
    bool synced;                /* since the last push */
    bool busy;                  /* the thread reads what was pushed */
    bool asking;                /* the thread waits for an answer */
    bool closing;
    bool closed;                /* whoever closes is done with the sender */
    bool end;
    bool yanked;
    SplitSenderStats stats;
};

static unsigned running;

unsigned split_sender_running(void)
{
    return qatomic_read(&running);
}

static void sender_free(SplitSender *s)
{
    pagelink_client_free(s->client);
    if (s->creds) {
        object_unref(OBJECT(s->creds));
    }
    split_setup_free(s->setup);
    error_free(s->err);
    qemu_cond_destroy(&s->work);
    qemu_cond_destroy(&s->changed);
    qemu_mutex_destroy(&s->lock);
    g_free(s->queue);
    g_free(s->name);
    g_free(s);
}

/* The first reason counts; takes over @err */
static void fail_locked(SplitSender *s, Error *err)
{
    if (s->state == SPLIT_SENDER_FAILED) {
        error_free(err);
        return;
    }
    error_prepend(&err, "memory host %s: ", s->host->uri);
    trace_split_sender_fail(error_get_pretty(err));
    s->err = err;
    s->state = SPLIT_SENDER_FAILED;
    qemu_cond_broadcast(&s->changed);
}

static void sender_fail(SplitSender *s, Error *err)
{
    QEMU_LOCK_GUARD(&s->lock);
    fail_locked(s, err);
}

static PageLinkClient *sender_connect(SplitSender *s, uint16_t flags,
                                      uint64_t epoch, int timeout_ms,
                                      Error **errp)
{
    g_autoptr(SocketAddress) addr = socket_parse(s->host->uri, errp);
    PageLinkClientOptions o = {
        .addr = addr, .tls_creds = s->creds,
        .tls_hostname = s->host->tls_hostname,
        .role = PAGELINK_ROLE_OWNER, .class = PAGELINK_CLASS_BACKGROUND,
        .flags = flags, .epoch = epoch, .name = s->name,
        .timeout_ms = timeout_ms,
    };

    if (!addr) {
        return NULL;
    }
    memcpy(o.uuid, s->setup->uuid, sizeof(o.uuid));
    memcpy(o.key, s->setup->key, sizeof(o.key));
    return pagelink_client_connect(&o, errp);
}

static bool sender_open(SplitSender *s, Error **errp)
{
    PageLinkClient *c = sender_connect(s, PAGELINK_HELLO_CREATE,
                                       s->setup->epoch, s->timeout_ms, errp);

    if (!c) {
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->client = c;
        if (s->yanked) {
            pagelink_client_shutdown(c);
        }
    }
    for (unsigned i = 0; i < s->setup->n_blocks; i++) {
        const SplitBlock *b = &s->setup->blocks[i];

        if (!pagelink_client_block(c, b->id, b->pages, b->idstr, errp)) {
            return false;
        }
    }
    QEMU_LOCK_GUARD(&s->lock);
    if (s->state == SPLIT_SENDER_FAILED) {
        error_setg(errp, "yanked");
        return false;
    }
    s->free_pages = pagelink_client_info(c)->free_pages;
    s->state = SPLIT_SENDER_READY;
    s->answered = g_get_monotonic_time();
    trace_split_sender_ready(s->host->uri, s->free_pages);
    qemu_cond_broadcast(&s->changed);
    return true;
}

/* The next entries that fit one message; returns their number */
static unsigned take_batch_locked(SplitSender *s, SplitEntry *batch)
{
    unsigned max = MIN(SPLIT_SENDER_BATCH,
                       pagelink_client_info(s->client)->max_batch);
    unsigned n = 0;

    while (n < max && n < s->fill) {
        SplitEntry *e = &s->queue[(s->head + n) % s->size];

        if (!e->data != !s->queue[s->head].data) {
            break;
        }
        batch[n++] = *e;
    }
    s->head = (s->head + n) % s->size;
    s->fill -= n;
    s->taken = n;
    s->busy = n;
    return n;
}

static bool send_drops(SplitSender *s, const SplitEntry *batch, unsigned n,
                       Error **errp)
{
    PageLinkRange ranges[SPLIT_SENDER_BATCH];

    for (unsigned i = 0; i < n; i++) {
        ranges[i] = (PageLinkRange) {
            .page = batch[i].page, .pages = 1, .block = batch[i].block,
            .version = batch[i].version,
        };
    }
    return pagelink_client_drop(s->client, ranges, n, errp);
}

static bool send_pages(SplitSender *s, const SplitEntry *batch, unsigned n,
                       Error **errp)
{
    PageLinkPage pages[SPLIT_SENDER_BATCH];

    for (unsigned i = 0; i < n; i++) {
        pages[i] = (PageLinkPage) {
            .page = batch[i].page, .block = batch[i].block,
            .version = batch[i].version, .data = (void *)batch[i].data,
        };
    }
    return pagelink_client_put(s->client, pages, n, errp);
}

static void count_batch_locked(SplitSender *s, const SplitEntry *batch,
                               unsigned n)
{
    QEMU_BUILD_BUG_ON(sizeof(PageLinkEntry) != sizeof(PageLinkRange));
    s->stats.bytes += sizeof(PageLinkHeader) + n * sizeof(PageLinkEntry);
    if (batch[0].data) {
        s->stats.pages += n;
        s->stats.bytes += (uint64_t)n * SPLIT_PAGE_SIZE;
    } else {
        s->stats.dropped += n;
    }
}

/* The memory host has what made stats.bytes @asked */
static void answered(SplitSender *s, uint64_t asked)
{
    int64_t now = g_get_monotonic_time();
    double bytes, rate;

    QEMU_LOCK_GUARD(&s->lock);
    s->answered = now;
    bytes = asked - s->stats.acked;
    s->stats.acked = asked;
    if (bytes >= MEASURE_LEAST) {
        rate = bytes * G_USEC_PER_SEC / MAX(now - s->since, 1);
        s->stats.rate += (rate - s->stats.rate) *
                         (s->stats.rate ? MIN(bytes / MEASURE_BYTES, 1) : 1);
        trace_split_sender_rate(s->host->uri, bytes, now - s->since,
                                s->stats.rate);
    }
    s->since = now;
    qemu_cond_broadcast(&s->changed);
}

static void ack_done(void *opaque, const PageLinkFault *error)
{
    SplitSender *s = opaque;

    s->ack_pending = false;
    if (!error) {
        answered(s, s->asked);
    }
}

/*
 * A full memory host refuses pages without closing the connection; this is
 * where that is noticed while pages move.  That the connection has failed
 * is noticed by who uses it next.
 */
static bool ask_for_refusals(SplitSender *s, Error **errp)
{
    if (!pagelink_client_poll(s->client, 0, errp)) {
        return false;
    }
    if (s->ack_pending) {
        return true;
    }
    if (s->ack.refused) {
        return pagelink_client_sync(s->client, NULL, errp);
    }
    if (s->stats.bytes - s->asked < SYNC_BYTES) {
        return true;
    }
    s->ack_pending = true;
    s->asked = s->stats.bytes;
    return pagelink_client_sync_async(s->client, &s->ack, ack_done, s, errp);
}

static bool send_batch(SplitSender *s, const SplitEntry *batch, unsigned n,
                       Error **errp)
{
    bool ok;

    if (s->stats.bytes == s->stats.acked) {
        s->since = g_get_monotonic_time();
    }
    ok = batch[0].data ? send_pages(s, batch, n, errp) :
                         send_drops(s, batch, n, errp);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->busy = false;
        s->taken = 0;
        s->asking = true;
        count_batch_locked(s, batch, n);
        qemu_cond_broadcast(&s->changed);
    }
    ok = ok && ask_for_refusals(s, errp);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->asking = false;
    }
    return ok;
}

static bool sender_answer_sync(SplitSender *s, Error **errp)
{
    if (!pagelink_client_sync(s->client, NULL, errp)) {
        return false;
    }
    /* Nothing was sent meanwhile */
    s->asked = s->stats.bytes;
    answered(s, s->asked);
    QEMU_LOCK_GUARD(&s->lock);
    s->asking = false;
    s->synced = !s->fill;
    s->sync_wanted = !s->synced;
    qemu_cond_broadcast(&s->changed);
    return true;
}

/*
 * Is there a reason to ask the memory host whether it has all?  Somebody wants
 * to know; all was sent, and how much is under way is to be known; or it has
 * been silent for long.
 */
static bool is_sync_due_locked(const SplitSender *s)
{
    return s->sync_wanted || s->stats.bytes != s->stats.acked ||
           g_get_monotonic_time() - s->answered > QUIET_US;
}

/* Returns when the sender is closing, with false when it failed before */
static bool sender_serve(SplitSender *s, Error **errp)
{
    SplitEntry batch[SPLIT_SENDER_BATCH];

    while (true) {
        bool sync, closing;
        unsigned n;

        WITH_QEMU_LOCK_GUARD(&s->lock) {
            if (!s->fill && !s->closing && !is_sync_due_locked(s)) {
                qemu_cond_timedwait(&s->work, &s->lock, IDLE_MS);
            }
            closing = s->closing;
            n = closing ? 0 : take_batch_locked(s, batch);
            sync = is_sync_due_locked(s);
            s->asking = sync && !n && !closing;
        }
        if (closing) {
            return true;
        }
        if (n) {
            if (!send_batch(s, batch, n, errp)) {
                return false;
            }
        } else if (sync) {
            if (!sender_answer_sync(s, errp)) {
                return false;
            }
        } else if (!pagelink_client_poll(s->client, 0, errp)) {
            return false;
        }
    }
}

/* End the session, whoever owns it and whatever became of the connection */
static void sender_end_session(SplitSender *s)
{
    PageLinkClient *c;
    Error *err = NULL;

    if (s->client) {
        pagelink_client_set_timeout(s->client, END_TIMEOUT_MS);
    }
    if (s->client && pagelink_client_end(s->client, NULL)) {
        trace_split_sender_end(s->host->uri, "");
        return;
    }
    /* The destination takes epoch + 1 */
    c = sender_connect(s, PAGELINK_HELLO_TAKE, s->setup->epoch + 2,
                       END_TIMEOUT_MS, &err);
    if (c) {
        pagelink_client_end(c, &err);
        pagelink_client_free(c);
    }
    trace_split_sender_end(s->host->uri, err ? error_get_pretty(err) : "");
    error_free(err);
}

static void *sender_main(void *opaque)
{
    SplitSender *s = opaque;
    Error *err = NULL;

    if (!sender_open(s, &err) || !sender_serve(s, &err)) {
        sender_fail(s, err);
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->busy = false;
        s->taken = 0;
        qemu_cond_broadcast(&s->changed);
        while (!s->closed) {
            qemu_cond_wait(&s->work, &s->lock);
        }
    }
    if (s->end) {
        sender_end_session(s);
    }
    sender_free(s);
    qatomic_dec(&running);
    return NULL;
}

SplitSender *split_sender_new(const SplitSetup *setup, unsigned host,
                              QCryptoTLSCreds *creds, const char *name,
                              int timeout_ms)
{
    SplitSender *s = g_new0(SplitSender, 1);
    QemuThread thread;

    s->setup = split_setup_clone(setup);
    s->host = &s->setup->hosts[host];
    s->name = g_strdup(name);
    s->timeout_ms = timeout_ms;
    s->size = SPLIT_SENDER_QUEUE;
    s->queue = g_new(SplitEntry, s->size);
    if (creds) {
        s->creds = creds;
        object_ref(OBJECT(creds));
    }
    qemu_mutex_init(&s->lock);
    qemu_cond_init(&s->work);
    qemu_cond_init(&s->changed);
    qatomic_inc(&running);
    qemu_thread_create(&thread, "split-sender", sender_main, s,
                       QEMU_THREAD_DETACHED);
    return s;
}

/* Until @done(s) or the sender has failed; returns which */
static SplitSenderResult wait_locked(SplitSender *s, uint64_t arg,
                                     bool (*done)(SplitSender *, uint64_t),
                                     int ms)
{
    int64_t end = g_get_monotonic_time() / 1000 + ms;

    while (s->state != SPLIT_SENDER_FAILED && !done(s, arg)) {
        int64_t left = end - g_get_monotonic_time() / 1000;

        if (left <= 0) {
            return SPLIT_SENDER_LATER;
        }
        qemu_cond_timedwait(&s->changed, &s->lock, left);
    }
    return s->state == SPLIT_SENDER_FAILED ? SPLIT_SENDER_ERROR :
                                             SPLIT_SENDER_DONE;
}

static bool is_ready(SplitSender *s, uint64_t arg)
{
    return s->state == SPLIT_SENDER_READY;
}

SplitSenderState split_sender_wait(SplitSender *s, int ms)
{
    QEMU_LOCK_GUARD(&s->lock);
    wait_locked(s, 0, is_ready, ms);
    return s->state;
}

uint64_t split_sender_free_pages(SplitSender *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->free_pages;
}

Error *split_sender_error(SplitSender *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->err ? error_copy(s->err) : NULL;
}

bool split_sender_has_room(SplitSender *s, unsigned n)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->fill + n <= SPLIT_SENDER_QUEUE ||
           s->state == SPLIT_SENDER_FAILED;
}

static void grow_locked(SplitSender *s)
{
    SplitEntry *queue = g_new(SplitEntry, s->size * 2);

    for (unsigned i = 0; i < s->fill; i++) {
        queue[i] = s->queue[(s->head + i) % s->size];
    }
    g_free(s->queue);
    s->queue = queue;
    s->size *= 2;
    s->head = 0;
}

bool split_sender_push(SplitSender *s, const SplitEntry *e)
{
    QEMU_LOCK_GUARD(&s->lock);
    if (s->state == SPLIT_SENDER_FAILED) {
        return false;
    }
    if (s->fill == s->size) {
        grow_locked(s);
    }
    s->queue[(s->head + s->fill) % s->size] = *e;
    s->fill++;
    s->synced = false;
    if (s->fill == 1 || s->fill % SPLIT_SENDER_BATCH == 0) {
        qemu_cond_signal(&s->work);
    }
    return true;
}

static bool is_synced(SplitSender *s, uint64_t arg)
{
    return s->synced;
}

SplitSenderResult split_sender_sync(SplitSender *s, int ms)
{
    QEMU_LOCK_GUARD(&s->lock);
    if (!s->synced && !s->sync_wanted) {
        s->sync_wanted = true;
        qemu_cond_signal(&s->work);
    }
    return wait_locked(s, 0, is_synced, ms);
}

static bool is_drained(SplitSender *s, uint64_t pages)
{
    return s->fill + s->taken <= pages;
}

SplitSenderResult split_sender_drain(SplitSender *s, uint64_t pages, int ms)
{
    QEMU_LOCK_GUARD(&s->lock);
    return wait_locked(s, pages, is_drained, ms);
}

static bool is_acked(SplitSender *s, uint64_t arg)
{
    return is_drained(s, 0) && s->stats.bytes == s->stats.acked;
}

SplitSenderResult split_sender_wait_acked(SplitSender *s, int ms)
{
    QEMU_LOCK_GUARD(&s->lock);
    return wait_locked(s, 0, is_acked, ms);
}

void split_sender_stats(SplitSender *s, SplitSenderStats *stats)
{
    QEMU_LOCK_GUARD(&s->lock);
    *stats = s->stats;
    stats->queued = s->fill + s->taken;
}

static void yank_locked(SplitSender *s)
{
    Error *err = NULL;

    s->yanked = true;
    if (s->client) {
        pagelink_client_shutdown(s->client);
    }
    if (s->state == SPLIT_SENDER_CONNECTING) {
        /* The thread finds out when it has connected, or has not */
        error_setg(&err, "yanked while it was being connected");
        fail_locked(s, err);
    }
}

void split_sender_yank(SplitSender *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    yank_locked(s);
}

void split_sender_close(SplitSender *s, bool end)
{
    bool connecting;

    qemu_mutex_lock(&s->lock);
    connecting = s->state == SPLIT_SENDER_CONNECTING;
    trace_split_sender_close(s->host->uri, end, connecting);
    s->closing = true;
    s->end = end;
    qemu_cond_signal(&s->work);
    if (s->busy || s->asking) {
        /*
         * What it sends must not be read any more, not even a moment later; and
         * nobody needs the answer
         */
        yank_locked(s);
    }
    while (s->busy) {
        qemu_cond_wait(&s->changed, &s->lock);
    }
    s->closed = true;
    qemu_cond_signal(&s->work);
    /* From here on, the thread may be gone as soon as the lock is free */
    qemu_mutex_unlock(&s->lock);
}
