/*
 * memserver: is this memory host all right, and how fast is it from here
 *
 * Makes a session of its own with a random key, puts pages over several
 * connections, gets them back, measures single-page GETs on a demand
 * connection, tries what must be refused, and ends the session.
 *
 * What a page must contain follows from its number and version, so nothing
 * needs to be remembered.  The pages that are put come from a pool that fits
 * into the cache: the figures are those of the link and the memory host, not
 * those of a generator.
 *
 * Threads: one for each connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "crypto/random.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qnum.h"
#include "selftest.h"

#define POOL_PAGES              256

typedef struct Selftest {
    const MsSelftestOptions *o;
    PageLinkClientOptions client;
    uint64_t *pool;             /* POOL_PAGES pages, contents by index */
} Selftest;

typedef enum Job { JOB_PUT, JOB_GET, JOB_VERIFY } Job;

/* One connection's part of a measurement */
typedef struct Worker {
    Selftest *t;
    QemuThread thread;
    PageLinkClient *client;
    Job job;
    uint64_t first, pages;
    Error *err;
    bool failed;                /* a page was wrong, why says which */
    char why[256];
} Worker;

void ms_selftest_defaults(MsSelftestOptions *o)
{
    *o = (MsSelftestOptions) {
        .pages = 65536,
        .connections = 1,
        .batch = 128,
        .window = 4,
        .latency_count = 10000,
        .zero_percent = 0,
        .repeat = 1,
        .verify = true,
    };
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static bool page_is_zero(const Selftest *t, uint64_t page)
{
    return mix(page) % 100 < t->o->zero_percent;
}

/*
 * The content of a page: one of the pool, so that two neighbours differ.
 * Which version it is shows in the protocol only.
 */
static void *page_content(const Selftest *t, uint64_t page)
{
    if (page_is_zero(t, page)) {
        return NULL;
    }
    return (uint8_t *)t->pool + mix(page ^ 0x5555) % POOL_PAGES *
           PAGELINK_PAGE_SIZE;
}

static void make_pool(Selftest *t)
{
    size_t i, words = POOL_PAGES * PAGELINK_PAGE_SIZE / sizeof(uint64_t);

    t->pool = qemu_memalign(PAGELINK_PAGE_SIZE,
                            POOL_PAGES * PAGELINK_PAGE_SIZE);
    for (i = 0; i < words; i++) {
        t->pool[i] = mix(i);
    }
}

/*
 * The i-th page in an order without repetition that looks random: an affine
 * walk over the next power of two, leaving out what is beyond the end.
 */
typedef struct Walk {
    uint64_t first, pages, mask, step, at;
} Walk;

static void walk_init(Walk *w, uint64_t first, uint64_t pages)
{
    w->first = first;
    w->pages = pages;
    w->mask = pow2ceil(pages) - 1;
    w->step = (0x9e3779b97f4a7c15ULL & w->mask) | 1;
    w->at = 0;
}

static uint64_t walk_next(Walk *w)
{
    do {
        w->at = (w->at + w->step) & w->mask;
    } while (w->at >= w->pages);
    return w->first + w->at;
}

static bool worker_put(Worker *w, Error **errp)
{
    PageLinkPage batch[PAGELINK_MAX_BATCH];
    uint64_t left = w->pages;
    Walk walk;

    walk_init(&walk, w->first, w->pages);
    while (left) {
        unsigned n = MIN(left, w->t->o->batch), i;

        for (i = 0; i < n; i++) {
            batch[i] = (PageLinkPage) { .version = 1 };
            batch[i].page = walk_next(&walk);
            batch[i].data = page_content(w->t, batch[i].page);
        }
        if (!pagelink_client_put(w->client, batch, n, errp)) {
            return false;
        }
        left -= n;
    }
    return pagelink_client_sync(w->client, NULL, errp);
}

typedef struct GetSlot {
    Worker *w;
    PageLinkPage *pages;
    unsigned n;
    bool busy;
} GetSlot;

static void worker_check(Worker *w, const PageLinkPage *page)
{
    const void *want = page_content(w->t, page->page);
    uint16_t what = page->flags & (PAGELINK_ENTRY_ZERO |
                                   PAGELINK_ENTRY_ABSENT);

    if (page->version != 1 || what != (want ? 0 : PAGELINK_ENTRY_ZERO) ||
        (want && memcmp(want, page->data, PAGELINK_PAGE_SIZE))) {
        if (!w->failed) {
            w->failed = true;
            snprintf(w->why, sizeof(w->why), "page %" PRIu64 " came back "
                     "wrong (version %" PRIu64 ", flags 0x%x)", page->page,
                     page->version, page->flags);
        }
    }
}

static void get_done(void *opaque, const PageLinkFault *error)
{
    GetSlot *slot = opaque;
    Worker *w = slot->w;
    unsigned i;

    slot->busy = false;
    if (error) {
        w->failed = true;
        pstrcpy(w->why, sizeof(w->why), error->text);
    } else if (w->job == JOB_VERIFY) {
        for (i = 0; i < slot->n; i++) {
            worker_check(w, &slot->pages[i]);
        }
    }
}

static bool worker_get(Worker *w, Error **errp)
{
    const MsSelftestOptions *o = w->t->o;
    g_autofree GetSlot *slots = g_new0(GetSlot, o->window);
    g_autofree PageLinkPage *pages = g_new0(PageLinkPage,
                                            o->window * o->batch);
    uint8_t *buffer = qemu_memalign(PAGELINK_PAGE_SIZE,
                                    (size_t)o->window * o->batch *
                                    PAGELINK_PAGE_SIZE);
    uint64_t left = w->pages;
    uint32_t at = 0;
    bool ok = true;
    Walk walk;

    walk_init(&walk, w->first, w->pages);
    while (ok && left && !w->failed) {
        GetSlot *slot = &slots[at];
        PageLinkPage *p = &pages[at * o->batch];
        unsigned n = MIN(left, o->batch), i;

        while (ok && slot->busy) {
            ok = pagelink_client_poll(w->client, PAGELINK_CLIENT_TIMEOUT_MS,
                                      errp);
        }
        if (!ok) {
            break;
        }
        for (i = 0; i < n; i++) {
            p[i].page = walk_next(&walk);
            p[i].data = buffer + ((size_t)at * o->batch + i) *
                        PAGELINK_PAGE_SIZE;
        }
        *slot = (GetSlot) { .w = w, .pages = p, .n = n, .busy = true };
        ok = pagelink_client_get_async(w->client, p, n, get_done, slot, errp);
        left -= n;
        at = (at + 1) % o->window;
    }
    while (ok && pagelink_client_outstanding(w->client)) {
        ok = pagelink_client_poll(w->client, PAGELINK_CLIENT_TIMEOUT_MS,
                                  errp);
    }
    if (ok && w->failed) {
        error_setg(errp, "%s", w->why);
        ok = false;
    }
    qemu_vfree(buffer);
    return ok;
}

static void *worker_main(void *opaque)
{
    Worker *w = opaque;

    if (w->job == JOB_PUT) {
        worker_put(w, &w->err);
    } else {
        worker_get(w, &w->err);
    }
    return NULL;
}

/* All connections do the same thing at once; returns seconds, or -1 */
static double run_job(Worker *workers, unsigned n, Job job, Error **errp)
{
    int64_t start = g_get_monotonic_time(), end;
    bool ok = true;
    unsigned i;

    for (i = 0; i < n; i++) {
        workers[i].job = job;
        qemu_thread_create(&workers[i].thread, "selftest", worker_main,
                           &workers[i], QEMU_THREAD_JOINABLE);
    }
    for (i = 0; i < n; i++) {
        qemu_thread_join(&workers[i].thread);
        if (workers[i].err) {
            error_propagate(ok ? errp : NULL, workers[i].err);
            ok = false;
        }
    }
    end = g_get_monotonic_time();
    return ok ? MAX(end - start, 1) / 1e6 : -1;
}

static double cpu_seconds(void)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    return ru.ru_utime.tv_sec + ru.ru_stime.tv_sec +
           (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void put_double(QDict *dict, const char *name, double value)
{
    qdict_put(dict, name, qnum_from_double(value));
}

/* One measurement, made --repeat times; the median is what is reported */
static bool measure(Selftest *t, Worker *workers, Job job, const char *name,
                    QDict *out, Error **errp)
{
    unsigned repeat = t->o->repeat, i;
    g_autofree double *rates = g_new(double, repeat);
    g_autofree double *cpu = g_new(double, repeat);
    g_autofree char *key = g_strdup_printf("%s-pages-per-second", name);
    g_autofree char *cpu_key =
        g_strdup_printf("%s-client-bytes-per-cpu-second", name);

    for (i = 0; i < repeat; i++) {
        double before = cpu_seconds();
        double seconds = run_job(workers, t->o->connections, job, errp);

        if (seconds < 0) {
            return false;
        }
        rates[i] = t->o->pages / seconds;
        cpu[i] = t->o->pages * (double)PAGELINK_PAGE_SIZE /
                 MAX(cpu_seconds() - before, 0.000001);
    }
    qsort(rates, repeat, sizeof(*rates), compare_double);
    qsort(cpu, repeat, sizeof(*cpu), compare_double);
    put_double(out, key, rates[repeat / 2]);
    put_double(out, cpu_key, cpu[repeat / 2]);
    if (!t->o->json) {
        printf("%-10s %10.0f pages/s  %8.1f MiB/s\n", name,
               rates[repeat / 2], rates[repeat / 2] / 256);
    }
    return true;
}

static PageLinkClient *connect_as(Selftest *t, uint8_t role, uint8_t class,
                                  uint16_t flags, uint64_t epoch,
                                  Error **errp)
{
    PageLinkClientOptions o = t->client;

    o.role = role;
    o.class = class;
    o.flags = flags;
    o.epoch = epoch;
    return pagelink_client_connect(&o, errp);
}

static bool measure_latency(Selftest *t, QDict *out, Error **errp)
{
    uint32_t n = t->o->latency_count, i;
    g_autofree double *us = g_new(double, n);
    uint8_t *data = qemu_memalign(PAGELINK_PAGE_SIZE, PAGELINK_PAGE_SIZE);
    PageLinkClient *c;
    bool ok = true;
    Walk walk;

    c = connect_as(t, PAGELINK_ROLE_READER, PAGELINK_CLASS_DEMAND, 0, 0,
                   errp);
    if (!c) {
        qemu_vfree(data);
        return false;
    }
    walk_init(&walk, 0, t->o->pages);
    for (i = 0; ok && i < n; i++) {
        PageLinkPage page = { .page = walk_next(&walk), .data = data };
        struct timespec a, b;

        clock_gettime(CLOCK_MONOTONIC, &a);
        ok = pagelink_client_get(c, &page, 1, errp);
        clock_gettime(CLOCK_MONOTONIC, &b);
        us[i] = (b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3;
    }
    pagelink_client_free(c);
    qemu_vfree(data);
    if (!ok) {
        return false;
    }
    qsort(us, n, sizeof(*us), compare_double);
    put_double(out, "get-one-p50-us", us[n / 2]);
    put_double(out, "get-one-p99-us", us[(uint64_t)n * 99 / 100]);
    if (!t->o->json) {
        printf("one page   p50 %.1f us, p99 %.1f us\n", us[n / 2],
               us[(uint64_t)n * 99 / 100]);
    }
    return true;
}

static bool must_fail(bool failed, Error *err, const char *what,
                      const char *sentence, Error **errp)
{
    bool right = failed && err && strstr(error_get_pretty(err), sentence);

    if (!right) {
        error_setg(errp, "%s: expected a refusal with '%s', got '%s'", what,
                   sentence, err ? error_get_pretty(err) : "success");
    }
    error_free(err);
    return right;
}

static bool try_hello(Selftest *t, uint16_t flags, uint64_t epoch,
                      const char *what, const char *sentence, Error **errp)
{
    Error *err = NULL;
    PageLinkClient *c = connect_as(t, PAGELINK_ROLE_OWNER,
                                   PAGELINK_CLASS_BACKGROUND, flags, epoch,
                                   &err);

    pagelink_client_free(c);
    return must_fail(!c, err, what, sentence, errp);
}

/* What a memory host must refuse, in words, without any other effect */
static bool try_refusals(Selftest *t, PageLinkClient *c, Error **errp)
{
    PageLinkPage beyond = { .page = t->o->pages, .version = 1 };
    PageLinkPage unknown = { .block = 77, .version = 1 };
    Error *err = NULL;
    bool ok;

    t->client.key[0] ^= 1;
    ok = try_hello(t, 0, 1, "wrong key", "key is wrong", errp);
    t->client.key[0] ^= 1;
    if (!ok || !try_hello(t, 0, 2, "epoch ahead", "ask to take it", errp)) {
        return false;
    }
    pagelink_client_put(c, &beyond, 1, &error_abort);
    ok = pagelink_client_sync(c, NULL, &err);
    if (!must_fail(!ok, err, "page out of range", "beyond block", errp)) {
        return false;
    }
    err = NULL;
    pagelink_client_put(c, &unknown, 1, &error_abort);
    ok = pagelink_client_sync(c, NULL, &err);
    if (!must_fail(!ok, err, "unknown block", "is unknown", errp)) {
        return false;
    }
    return true;
}

/* Ownership moves on: the former owner is shut out */
static bool try_takeover(Selftest *t, PageLinkClient *old, Error **errp)
{
    PageLinkPage page = { .version = 2 };
    Error *err = NULL;
    PageLinkClient *c;
    bool ok;

    c = connect_as(t, PAGELINK_ROLE_OWNER, PAGELINK_CLASS_BACKGROUND,
                   PAGELINK_HELLO_TAKE, 2, errp);
    if (!c) {
        return false;
    }
    pagelink_client_put(old, &page, 1, &error_abort);
    ok = pagelink_client_sync(old, NULL, &err);
    ok = must_fail(!ok, err, "former owner", "cannot write any more", errp) &&
         try_hello(t, 0, 1, "former owner", "cannot come back", errp) &&
         pagelink_client_end(c, errp);
    pagelink_client_free(c);
    return ok;
}

static bool selftest_jobs(Selftest *t, Worker *workers, QDict *out,
                          Error **errp)
{
    if (!measure(t, workers, JOB_PUT, "put", out, errp) ||
        !measure(t, workers, JOB_GET, "get", out, errp)) {
        return false;
    }
    if (t->o->latency_count && !measure_latency(t, out, errp)) {
        return false;
    }
    if (!t->o->verify) {
        return true;
    }
    if (run_job(workers, t->o->connections, JOB_VERIFY, errp) < 0 ||
        !try_refusals(t, workers[0].client, errp)) {
        return false;
    }
    if (!t->o->json) {
        printf("verified   %" PRIu64 " pages, refusals as they must be\n",
               t->o->pages);
    }
    return true;
}

static bool selftest_connect(Selftest *t, Worker *workers, Error **errp)
{
    uint64_t share = DIV_ROUND_UP(t->o->pages, t->o->connections);
    unsigned i;

    for (i = 0; i < t->o->connections; i++) {
        Worker *w = &workers[i];

        w->t = t;
        w->first = i * share;
        w->pages = MIN(share, t->o->pages - w->first);
        w->client = connect_as(t, PAGELINK_ROLE_OWNER,
                               PAGELINK_CLASS_BACKGROUND,
                               PAGELINK_HELLO_CREATE, 1, errp);
        if (!w->client ||
            !pagelink_client_block(w->client, 0, t->o->pages, "selftest",
                                   errp)) {
            return false;
        }
    }
    return true;
}

static bool selftest_run(Selftest *t, QDict *out, Error **errp)
{
    unsigned n = t->o->connections, i;
    g_autofree Worker *workers = g_new0(Worker, n);
    bool connected = selftest_connect(t, workers, errp);
    bool ok = connected && selftest_jobs(t, workers, out, errp);

    if (connected && !t->o->keep) {
        if (ok && t->o->verify) {
            ok = try_takeover(t, workers[0].client, errp);
        } else {
            ok &= pagelink_client_end(workers[0].client, ok ? errp : NULL);
        }
    }
    for (i = 0; i < n; i++) {
        pagelink_client_free(workers[i].client);
    }
    return ok;
}

static bool selftest_check(const MsSelftestOptions *o, Error **errp)
{
    if (!o->pages || o->pages > PAGELINK_MAX_BLOCK_PAGES) {
        error_setg(errp, "number of pages must be 1 to %llu",
                   PAGELINK_MAX_BLOCK_PAGES);
        return false;
    }
    if (!o->connections || o->connections > MIN(o->pages, 64)) {
        error_setg(errp, "number of connections must be 1 to 64, and not "
                   "more than there are pages");
        return false;
    }
    if (!o->batch || o->batch > PAGELINK_MAX_BATCH) {
        error_setg(errp, "batch must be 1 to %d", PAGELINK_MAX_BATCH);
        return false;
    }
    if (!o->window || o->window > PAGELINK_MAX_WINDOW || !o->repeat) {
        error_setg(errp, "window must be 1 to %d, repeat at least 1",
                   PAGELINK_MAX_WINDOW);
        return false;
    }
    return true;
}

bool ms_selftest_run(const MsSelftestOptions *o, Error **errp)
{
    g_autoptr(QDict) out = qdict_new();
    Selftest t = {
        .o = o,
        .client = {
            .addr = o->addr,
            .tls_creds = o->tls_creds,
            .tls_hostname = o->tls_hostname,
            .name = "selftest",
            .features = o->checksum ? PAGELINK_FEATURE_CHECKSUM : 0,
        },
    };
    bool ok;

    if (!selftest_check(o, errp) ||
        qcrypto_random_bytes(t.client.uuid, sizeof(t.client.uuid),
                             errp) < 0 ||
        qcrypto_random_bytes(t.client.key, sizeof(t.client.key), errp) < 0) {
        return false;
    }
    make_pool(&t);
    ok = selftest_run(&t, out, errp);
    qemu_vfree(t.pool);
    if (ok && o->json) {
        g_autoptr(GString) text = NULL;

        qdict_put_int(out, "pages", o->pages);
        qdict_put_int(out, "connections", o->connections);
        qdict_put_int(out, "batch", o->batch);
        qdict_put_bool(out, "verified", o->verify);
        text = qobject_to_json_pretty(QOBJECT(out), true);
        printf("%s\n", text->str);
    }
    return ok;
}
