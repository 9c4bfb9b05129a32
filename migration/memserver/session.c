/*
 * memserver: sessions (see session.h for what it guarantees)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/units.h"
#include "qemu/uuid.h"
#include "session.h"
#include "trace.h"

/* What a session costs before its first block: the struct and its store */
#define SESSION_CHARGE          4

void ms_sessions_init(MsSessions *t, uint64_t max_pages, uint64_t quota,
                      uint32_t max_sessions, uint32_t max_connections,
                      void (*on_dying)(void *), void *opaque)
{
    *t = (MsSessions) {
        .account.limit = max_pages,
        .quota = quota ? quota : UINT64_MAX,
        .max_sessions = max_sessions,
        .max_connections = max_connections,
        .on_dying = on_dying,
        .opaque = opaque,
    };
    qemu_mutex_init(&t->lock);
    QTAILQ_INIT(&t->all);
    QTAILQ_INIT(&t->dying);
}

static void session_unpublish(MsSessions *t, MsSession *s)
{
    QTAILQ_REMOVE(&t->all, s, link);
    t->n--;
    (void)qatomic_xchg(&s->ended, true);
    smp_mb__after_rmw();
}

void ms_sessions_destroy(MsSessions *t, MsFrameCache *cache)
{
    MsSession *s;
    void *ticket;

    while ((s = QTAILQ_FIRST(&t->all))) {
        session_unpublish(t, s);
        ms_session_unref(t, s);
    }
    while (ms_sessions_reap(t, cache, &ticket)) {
        g_free(ticket);
    }
    assert(!t->account.used);
    qemu_mutex_destroy(&t->lock);
}

/* The time it takes does not depend on where the first difference is */
static bool equal_in_constant_time(const uint8_t *a, const uint8_t *b,
                                   size_t n)
{
    /* volatile: so that the compiler cannot leave the loop early */
    volatile uint8_t diff = 0;
    size_t i;

    for (i = 0; i < n; i++) {
        diff |= a[i] ^ b[i];
    }
    return !diff;
}

/*
 * Compares with every session, whatever it finds: the number of sessions is
 * all that the time can tell.
 */
static MsSession *session_find(MsSessions *t, const PageLinkHello *hello)
{
    MsSession *s, *found = NULL;

    QTAILQ_FOREACH(s, &t->all, link) {
        bool uuid = equal_in_constant_time(s->uuid, hello->uuid,
                                           sizeof(s->uuid));
        bool key = equal_in_constant_time(s->key, hello->key,
                                          sizeof(s->key));

        if (uuid & key) {
            found = s;
        }
    }
    return found;
}

static MsSession *session_create(MsSessions *t, const PageLinkHello *hello,
                                 PageLinkFault *fault)
{
    MsAccount *culprit;
    MsSession *s;

    if (t->n >= t->max_sessions) {
        pagelink_fault(fault, PAGELINK_ERR_LIMIT, PAGELINK_NO_INDEX,
                       "there are %u sessions already, which is the most "
                       "this memory host takes", t->n);
        return NULL;
    }
    s = g_new0(MsSession, 1);
    s->account.parent = &t->account;
    s->account.limit = t->quota;
    if (!ms_account_charge(&s->account, SESSION_CHARGE, &culprit)) {
        pagelink_fault(fault, PAGELINK_ERR_NO_MEMORY, PAGELINK_NO_INDEX,
                       "the memory host is full");
        g_free(s);
        return NULL;
    }
    memcpy(s->uuid, hello->uuid, sizeof(s->uuid));
    memcpy(s->key, hello->key, sizeof(s->key));
    memcpy(s->name, hello->name, sizeof(hello->name));
    s->created_ms = g_get_monotonic_time() / 1000;
    s->used_ms = s->created_ms;
    s->store = ms_store_new(&s->account);
    s->epoch = hello->epoch;
    s->refs = 1;                /* the table's */
    qemu_mutex_init(&s->owner_lock);
    qemu_mutex_init(&s->drain_lock);
    qemu_cond_init(&s->drained);
    qemu_mutex_init(&s->block_lock);
    QTAILQ_INSERT_TAIL(&t->all, s, link);
    t->n++;
    trace_memserver_session_new(s->name, s->epoch);
    return s;
}

/*
 * Wait for the writers that began before the epoch or ended was changed, under
 * owner_lock.  Writers that begin now see the change and turn back, so this is
 * short; writers of the new epoch only begin when their HELLO is answered.
 */
static void session_drain(MsSession *s)
{
    QEMU_LOCK_GUARD(&s->drain_lock);
    (void)qatomic_xchg(&s->draining, true);
    smp_mb__after_rmw();
    while (qatomic_read(&s->writers)) {
        qemu_cond_wait(&s->drained, &s->drain_lock);
    }
    qatomic_set(&s->draining, false);
}

/* Make room for one more connection; under the table's lock */
static bool session_connect(MsSessions *t, MsSession *s,
                            const PageLinkHello *hello, PageLinkFault *fault)
{
    uint32_t limit = t->max_connections;

    if (hello->role == PAGELINK_ROLE_OWNER &&
        (qatomic_read(&s->taken) || hello->flags & PAGELINK_HELLO_TAKE)) {
        limit *= 2;
    }
    if (qatomic_read(&s->connections) >= limit) {
        return pagelink_fault(fault, PAGELINK_ERR_LIMIT, PAGELINK_NO_INDEX,
                              "the session has %u connections already, which "
                              "is the most it may have", limit);
    }
    ms_session_ref(s);
    qatomic_inc(&s->connections);
    return true;
}

/* Find or make; with a reference, and counted as connected */
static MsSession *session_open(MsSessions *t, const PageLinkHello *hello,
                               PageLinkFault *fault)
{
    MsSession *s;

    QEMU_LOCK_GUARD(&t->lock);
    s = session_find(t, hello);
    if (!s && !(hello->flags & PAGELINK_HELLO_CREATE)) {
        pagelink_fault(fault, PAGELINK_ERR_AUTH, PAGELINK_NO_INDEX,
                       "no such session, or the key is wrong");
        return NULL;
    }
    if (!s) {
        s = session_create(t, hello, fault);
    }
    return s && session_connect(t, s, hello, fault) ? s : NULL;
}

/* As an owner; under owner_lock */
static bool session_join(MsSession *s, const PageLinkHello *hello,
                         PageLinkFault *fault)
{
    if (hello->epoch < s->epoch) {
        return pagelink_fault(fault, PAGELINK_ERR_STALE_EPOCH,
                              PAGELINK_NO_INDEX,
                              "the session is owned with epoch %" PRIu64
                              ", a former owner (epoch %" PRIu64
                              ") cannot come back", s->epoch, hello->epoch);
    }
    if (hello->epoch == s->epoch) {
        return true;
    }
    if (!(hello->flags & PAGELINK_HELLO_TAKE)) {
        return pagelink_fault(fault, PAGELINK_ERR_STALE_EPOCH,
                              PAGELINK_NO_INDEX,
                              "the session is owned with epoch %" PRIu64
                              ": to own it with epoch %" PRIu64
                              ", ask to take it", s->epoch, hello->epoch);
    }
    trace_memserver_session_take(s->name, s->epoch, hello->epoch);
    qatomic_set(&s->taken, true);
    (void)qatomic_xchg(&s->epoch, hello->epoch);
    smp_mb__after_rmw();
    session_drain(s);
    return true;
}

MsSession *ms_sessions_hello(MsSessions *t, const PageLinkHello *hello,
                             PageLinkFault *fault)
{
    MsSession *s;
    bool ended, ok = true;

    do {
        s = session_open(t, hello, fault);
        if (!s) {
            return NULL;
        }
        if (hello->role == PAGELINK_ROLE_READER) {
            ended = qatomic_read(&s->ended);
        } else {
            /* The wait is here, where it holds up this session only */
            QEMU_LOCK_GUARD(&s->owner_lock);
            ended = qatomic_read(&s->ended);
            ok = ended || session_join(s, hello, fault);
        }
        if (ended || !ok) {
            /* It has not been used: used_ms stays as it is */
            qatomic_dec(&s->connections);
            ms_session_unref(t, s);
        }
        /* One that has just ended is as if it had never been found */
    } while (ended);
    if (!ok) {
        return NULL;
    }
    qatomic_set(&s->used_ms, g_get_monotonic_time() / 1000);
    return s;
}

void ms_session_disconnect(MsSessions *t, MsSession *s)
{
    qatomic_set(&s->used_ms, g_get_monotonic_time() / 1000);
    qatomic_dec(&s->connections);
    ms_session_unref(t, s);
}

void ms_session_ref(MsSession *s)
{
    qatomic_inc(&s->refs);
}

void ms_session_unref(MsSessions *t, MsSession *s)
{
    if (qatomic_fetch_dec(&s->refs) != 1) {
        return;
    }
    /* The table's reference is gone, so the session is unpublished */
    qemu_mutex_lock(&t->lock);
    QTAILQ_INSERT_TAIL(&t->dying, s, link);
    qemu_mutex_unlock(&t->lock);
    t->on_dying(t->opaque);
}

void ms_session_write_end(MsSession *s)
{
    unsigned before = qatomic_fetch_dec(&s->writers);

    /* Pairs with the barrier between draining and writers in session_drain() */
    smp_mb__after_rmw();
    if (before == 1 && qatomic_read(&s->draining)) {
        QEMU_LOCK_GUARD(&s->drain_lock);
        qemu_cond_broadcast(&s->drained);
    }
}

static bool session_may_write(MsSession *s, uint64_t epoch,
                              PageLinkFault *fault)
{
    uint64_t current = qatomic_read(&s->epoch);

    if (qatomic_read(&s->ended)) {
        return pagelink_fault(fault, PAGELINK_ERR_SESSION_ENDED,
                              PAGELINK_NO_INDEX,
                              "the session has been ended by its owner");
    }
    if (current != epoch) {
        return pagelink_fault(fault, PAGELINK_ERR_STALE_EPOCH,
                              PAGELINK_NO_INDEX,
                              "the session is owned with epoch %" PRIu64
                              " now, epoch %" PRIu64 " cannot write any more",
                              current, epoch);
    }
    return true;
}

bool ms_session_write_begin(MsSession *s, uint64_t epoch,
                            PageLinkFault *fault)
{
    /* In vain is not counted, or such attempts could hold up a take-over */
    if (!session_may_write(s, epoch, fault)) {
        return false;
    }
    /* Pairs with the exchange before session_drain() */
    qatomic_fetch_inc(&s->writers);
    smp_mb__after_rmw();
    if (!session_may_write(s, epoch, fault)) {
        ms_session_write_end(s);
        return false;
    }
    return true;
}

bool ms_session_end(MsSessions *t, MsSession *s, uint64_t epoch,
                    void *ticket, PageLinkFault *fault)
{
    WITH_QEMU_LOCK_GUARD(&s->owner_lock) {
        if (qatomic_read(&s->ended)) {
            return pagelink_fault(fault, PAGELINK_ERR_SESSION_ENDED,
                                  PAGELINK_NO_INDEX,
                                  "the session has been ended by its owner");
        }
        if (s->epoch != epoch) {
            return pagelink_fault(fault, PAGELINK_ERR_STALE_EPOCH,
                                  PAGELINK_NO_INDEX,
                                  "the session is owned with epoch %" PRIu64
                                  " now, epoch %" PRIu64 " cannot end it",
                                  s->epoch, epoch);
        }
        WITH_QEMU_LOCK_GUARD(&t->lock) {
            session_unpublish(t, s);
            s->ticket = ticket;
        }
        /* Nobody else waits with us: the table is free again */
        session_drain(s);
    }
    trace_memserver_session_end(s->name, epoch);
    ms_session_unref(t, s);
    return true;
}

bool ms_sessions_reap(MsSessions *t, MsFrameCache *cache, void **ticket)
{
    MsSession *s;

    WITH_QEMU_LOCK_GUARD(&t->lock) {
        s = QTAILQ_FIRST(&t->dying);
        if (!s) {
            return false;
        }
        QTAILQ_REMOVE(&t->dying, s, link);
    }
    ms_store_free(s->store, cache);
    ms_account_release(&s->account, SESSION_CHARGE);
    assert(!s->account.used && !s->writers);
    *ticket = s->ticket;
    qemu_mutex_destroy(&s->block_lock);
    qemu_mutex_destroy(&s->drain_lock);
    qemu_mutex_destroy(&s->owner_lock);
    qemu_cond_destroy(&s->drained);
    g_free(s);
    return true;
}

static char *session_report(MsSession *s, const char *what, int64_t idle_ms)
{
    MsStoreStats stats;
    QemuUUID uuid;
    char text[UUID_STR_LEN];

    memcpy(uuid.data, s->uuid, sizeof(uuid.data));
    qemu_uuid_unparse(&uuid, text);
    ms_store_stats(s->store, &stats);
    return g_strdup_printf("session %s (%s) %s: idle for %" PRId64 " s, %"
                           PRIu64 " pages", text,
                           s->name[0] ? s->name : "unnamed", what,
                           idle_ms / 1000, stats.pages);
}

void ms_sessions_tick(MsSessions *t, int64_t now_ms, int64_t interval_ms,
                      int64_t report_ms, int64_t expiry_ms,
                      int64_t taken_expiry_ms)
{
    MsSessionList expired = QTAILQ_HEAD_INITIALIZER(expired);
    g_autoptr(GPtrArray) reports = g_ptr_array_new_with_free_func(g_free);
    MsSession *s, *next;
    guint i;

    qemu_mutex_lock(&t->lock);
    QTAILQ_FOREACH_SAFE(s, &t->all, link, next) {
        uint64_t in = qatomic_read(&s->counters.bytes_in);
        uint64_t out = qatomic_read(&s->counters.bytes_out);
        int64_t idle = now_ms - qatomic_read(&s->used_ms);
        int64_t expiry = qatomic_read(&s->taken) ? taken_expiry_ms : expiry_ms;

        if (interval_ms > 0) {
            qatomic_set(&s->in_rate, (in - s->last_in) * 1000 / interval_ms);
            qatomic_set(&s->out_rate,
                        (out - s->last_out) * 1000 / interval_ms);
            s->last_in = in;
            s->last_out = out;
        }
        if (qatomic_read(&s->connections) || idle < report_ms) {
            s->idle_reported = false;
        } else if (!s->idle_reported) {
            s->idle_reported = true;
            g_ptr_array_add(reports, session_report(s, "is not used by "
                                                    "anybody", idle));
        }
        /* Connections are made under this lock, so none can come between */
        if (expiry && !qatomic_read(&s->connections) && idle >= expiry) {
            g_ptr_array_add(reports, session_report(s, "expires", idle));
            session_unpublish(t, s);
            QTAILQ_INSERT_TAIL(&expired, s, link);
        }
    }
    qemu_mutex_unlock(&t->lock);

    /* Writing to a log can take as long as it likes */
    for (i = 0; i < reports->len; i++) {
        warn_report("%s", (char *)g_ptr_array_index(reports, i));
    }
    QTAILQ_FOREACH_SAFE(s, &expired, link, next) {
        QTAILQ_REMOVE(&expired, s, link);
        ms_session_unref(t, s);
    }
}

static void session_record(MsSession *s, int64_t now_ms,
                           PageLinkSessionStatus *r)
{
    MsStoreStats stats;

    ms_store_stats(s->store, &stats);
    *r = (PageLinkSessionStatus) {
        .epoch = qatomic_read(&s->epoch),
        .connections = qatomic_read(&s->connections),
        .blocks = stats.blocks,
        .quota_pages = s->account.limit == UINT64_MAX ? 0 : s->account.limit,
        .used_pages = qatomic_read(&s->account.used),
        .pages = stats.pages,
        .zero_pages = stats.zero_pages,
        .puts = qatomic_read(&s->counters.puts),
        .gets = qatomic_read(&s->counters.gets),
        .stale = qatomic_read(&s->counters.stale),
        .refused = qatomic_read(&s->counters.refused),
        .bytes_in = qatomic_read(&s->counters.bytes_in),
        .bytes_out = qatomic_read(&s->counters.bytes_out),
        .in_rate = qatomic_read(&s->in_rate),
        .out_rate = qatomic_read(&s->out_rate),
        .idle_ms = MAX(now_ms - qatomic_read(&s->used_ms), 0),
        .age_ms = MAX(now_ms - s->created_ms, 0),
    };
    memcpy(r->uuid, s->uuid, sizeof(r->uuid));
    memcpy(r->name, s->name, sizeof(r->name));
}

uint32_t ms_sessions_status(MsSessions *t, MsSession *only,
                            PageLinkStatus *sum,
                            PageLinkSessionStatus *records, uint32_t max)
{
    int64_t now_ms = g_get_monotonic_time() / 1000;
    uint32_t n = 0;
    MsSession *s;

    QEMU_LOCK_GUARD(&t->lock);
    sum->session_size = sizeof(*records);
    sum->max_pages = t->account.limit;
    sum->used_pages = qatomic_read(&t->account.used);
    sum->sessions = t->n;
    QTAILQ_FOREACH(s, &t->all, link) {
        PageLinkSessionStatus r;

        session_record(s, now_ms, &r);
        sum->pages += r.pages;
        sum->zero_pages += r.zero_pages;
        sum->bytes_in += r.bytes_in;
        sum->bytes_out += r.bytes_out;
        sum->in_rate += r.in_rate;
        sum->out_rate += r.out_rate;
        sum->refused += r.refused;
        if (n < max && (!only || only == s)) {
            records[n++] = r;
        }
    }
    return n;
}

uint32_t ms_sessions_count(MsSessions *t)
{
    QEMU_LOCK_GUARD(&t->lock);
    return t->n;
}
