/*
 * Redirect: what the user asks for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/aio-wait.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-strategy.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/yank_functions.h"
#include "../run.h"
#include "../section.h"
#include "channel.h"
#include "request.h"

/* How often to look whether something moves */
#define LOOK_MS 500

typedef struct Request {
    RedirectRequest public;
    unsigned refs;              /* atomic: the coroutine, and `current` */
    QemuCoSleep sleep;          /* main thread only */
    bool connected;             /* main thread only */

    /* Protected by `lock` */
    RedirectPhase phase;
    bool withdrawn;
    bool broke_off;             /* the old channel, on purpose */
    Error *err;
} Request;

static QemuMutex lock;
/* Protected by `lock` */
static Request *current;

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

void redirect_request_init(void)
{
    qemu_mutex_init(&lock);
}

static void request_unref(Request *r)
{
    if (qatomic_fetch_dec(&r->refs) != 1) {
        return;
    }
    if (r->public.ioc) {
        object_unref(OBJECT(r->public.ioc));
    }
    qapi_free_SocketAddress(r->public.addr);
    g_free(r->public.hostname);
    error_free(r->err);
    g_free(r);
}

RedirectRequest *redirect_request_pending(RedirectPhase *phase)
{
    QEMU_LOCK_GUARD(&lock);
    if (!current || current->phase == REDIRECT_PHASE_CONNECTING) {
        return NULL;
    }
    *phase = current->phase;
    return &current->public;
}

bool redirect_request_exists(void)
{
    QEMU_LOCK_GUARD(&lock);
    return current;
}

bool redirect_request_broke_off(void)
{
    QEMU_LOCK_GUARD(&lock);
    return current && current->broke_off;
}

uint64_t redirect_taken_by_old(uint64_t *unsent)
{
    MigrationState *s = migrate_get_current();
    uint64_t written = migration_transferred_bytes(), left = 0;

    WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
        if (s->to_dst_file) {
            left = redirect_unsent(qemu_file_get_ioc(s->to_dst_file));
        }
    }
    if (unsent) {
        *unsent = left;
    }
    return written - MIN(written, left);
}

bool redirect_request_advance(RedirectPhase phase)
{
    QEMU_LOCK_GUARD(&lock);
    if (current->withdrawn) {
        return false;
    }
    current->phase = phase;
    return true;
}

static void request_wake_bh(void *opaque)
{
    Request *r = opaque;

    qemu_co_sleep_wake(&r->sleep);
    request_unref(r);
}

void redirect_request_end(Error *err)
{
    Request *r;

    WITH_QEMU_LOCK_GUARD(&lock) {
        r = current;
        if (!r) {
            error_free(err);
            return;
        }
        if (err && r->phase != REDIRECT_PHASE_CONNECTING) {
            migration_ioc_unregister_yank(r->public.ioc);
        }
        r->err = err;
        r->phase = REDIRECT_PHASE_ENDED;
        current = NULL;
    }
    /* Takes over the reference of `current` */
    aio_bh_schedule_oneshot(qemu_get_aio_context(), request_wake_bh, r);
}

/* The state of the migration does not allow it, and never will again */
static bool check_status(MigrationStatus status, Error **errp)
{
    switch (status) {
    case MIGRATION_STATUS_ACTIVE:
        return true;
    case MIGRATION_STATUS_SETUP:
    case MIGRATION_STATUS_WAIT_UNPLUG:
        error_setg(errp, "The migration is still being set up; redirect it "
                   "when its status is 'active'");
        return false;
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
    case MIGRATION_STATUS_POSTCOPY_PAUSED:
    case MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP:
    case MIGRATION_STATUS_POSTCOPY_RECOVER:
        error_setg(errp, "The guest runs at the destination already: a "
                   "migration in post-copy cannot be redirected");
        return false;
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
        error_setg(errp, "The switchover has begun; wait for its end, or "
                   "cancel the migration");
        return false;
    default:
        error_setg(errp, "No migration is running that could be redirected; "
                   "use migrate");
        return false;
    }
}

/*
 * What is not plugged is never dirty, and would be taken for sent; to read it
 * would allocate it, here or at a destination.
 */
static bool ram_has_holes(void)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (rb->mr && memory_region_has_ram_discard_manager(rb->mr)) {
            return true;
        }
    }
    return false;
}

static bool check_clashes(MigrationState *s, Error **errp)
{
    MigrationInfo info = {};
    const char *clash = NULL;

    migration_populate_vfio_info(&info);
    if (info.vfio) {
        clash = "VFIO devices";
        g_free(info.vfio);
    } else if (migrate_dirty_bitmaps()) {
        clash = "the capability dirty-bitmaps";
    } else if (migrate_multifd()) {
        clash = "the capability multifd";
    } else if (strategy_run_config()->split) {
        clash = "split memory";
    } else if (s->rdma_migration) {
        clash = "RDMA";
    } else if (migrate_postcopy_preempt() && s->preempt_pre_7_2) {
        clash = "the preempt channel of machine types before 7.2";
    } else if (ram_has_holes()) {
        clash = "memory that is plugged in parts (virtio-mem)";
    } else if (qemu_target_page_size() != PAGELINK_PAGE_SIZE) {
        clash = "a target whose pages have not 4 KiB";
    }
    if (clash) {
        error_setg(errp, "A migration with %s cannot be redirected; cancel it "
                   "and start another one", clash);
        return false;
    }
    clash = qemu_savevm_other_iterable(STRATEGY_SECTION);
    if (clash) {
        /* The old destination has a part of it, which no relay can send */
        error_setg(errp, "A migration with '%s', which is sent in parts, "
                   "cannot be redirected; cancel it and start another one",
                   clash);
        return false;
    }
    return true;
}

static bool may_redirect(const SocketAddress *addr, Error **errp)
{
    MigrationState *s = migrate_get_current();

    if (!check_status(s->state, errp) || !redirect_request_may(addr, errp)) {
        return false;
    }
    if (strategy_run_config()->mode == RAM_STRATEGY_MODE_POSTCOPY) {
        error_setg(errp, "In mode 'postcopy' the guest runs at the destination "
                   "at once: there is nothing to redirect");
        return false;
    }
    return check_clashes(s, errp);
}

/* Make it the current one */
static Request *request_new(const char *uri, Error **errp)
{
    g_autoptr(MigrationChannel) channel = NULL;
    SocketAddress *addr;
    Request *r;

    if (!migrate_uri_parse(uri, &channel, errp)) {
        return NULL;
    }
    addr = &channel->addr->u.socket;
    if (channel->addr->transport != MIGRATION_ADDRESS_TYPE_SOCKET ||
        (addr->type != SOCKET_ADDRESS_TYPE_INET &&
         addr->type != SOCKET_ADDRESS_TYPE_UNIX)) {
        error_setg(errp, "A migration can be redirected to tcp: and unix: "
                   "addresses only, not to '%s'", uri);
        return NULL;
    }
    if (!may_redirect(addr, errp)) {
        return NULL;
    }
    QEMU_LOCK_GUARD(&lock);
    if (current) {
        error_setg(errp, "Another redirect is under way; wait for its end");
        return NULL;
    }
    r = g_new0(Request, 1);
    r->public.addr = QAPI_CLONE(SocketAddress, addr);
    if (addr->type == SOCKET_ADDRESS_TYPE_INET) {
        r->public.hostname = g_strdup(addr->u.inet.host);
    }
    r->refs = 2;
    current = r;
    return r;
}

static RedirectPhase request_phase(Request *r)
{
    QEMU_LOCK_GUARD(&lock);
    return r->phase;
}

/* Until it is connected or has ended, but not longer than @ms */
static void coroutine_fn request_wait(Request *r, bool connected, int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    while (request_phase(r) != REDIRECT_PHASE_ENDED &&
           !(connected && r->connected) && now_ms() < deadline) {
        qemu_co_sleep_ns_wakeable(&r->sleep, QEMU_CLOCK_REALTIME,
                                  (deadline - now_ms()) * SCALE_MS);
    }
}

static void request_connected(void *opaque)
{
    Request *r = opaque;

    r->connected = true;
    qemu_co_sleep_wake(&r->sleep);
}

static RedirectConnect *connect_start(Request *r, Error **errp)
{
    MigrationState *s = migrate_get_current();

    QEMU_LOCK_GUARD(&s->qemu_file_lock);
    return redirect_connect_start(r->public.addr, s->to_dst_file ?
                                  qemu_file_get_ioc(s->to_dst_file) : NULL,
                                  request_connected, r, errp);
}

static bool coroutine_fn request_connect(Request *r, Error **errp)
{
    RedirectConnect *c = connect_start(r, errp);

    if (!c) {
        return false;
    }
    request_wait(r, true, REDIRECT_REACH_MS);
    if (request_phase(r) == REDIRECT_PHASE_ENDED) {
        error_propagate(errp, error_copy(r->err));
    } else if (r->connected) {
        r->public.ioc = redirect_connect_take(c, errp);
    } else {
        error_setg(errp, "it did not answer for %d s",
                   REDIRECT_REACH_MS / 1000);
    }
    redirect_connect_drop(c);
    return r->public.ioc;
}

/* Is there still something to redirect, and is it not there already? */
static bool request_queue(Request *r, Error **errp)
{
    MigrationState *s = migrate_get_current();

    if (request_phase(r) == REDIRECT_PHASE_ENDED) {
        error_propagate(errp, error_copy(r->err));
        return false;
    }
    if (!may_redirect(r->public.addr, errp)) {
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
        if (s->to_dst_file &&
            redirect_same_peer(qemu_file_get_ioc(s->to_dst_file),
                               r->public.ioc)) {
            error_setg(errp, "The migration goes there already");
            return false;
        }
    }
    migration_ioc_register_yank(r->public.ioc);
    r->public.deadline_ms = now_ms() + REDIRECT_ANSWER_MS;
    QEMU_LOCK_GUARD(&lock);
    r->phase = REDIRECT_PHASE_QUEUED;
    return true;
}

/* It took too long; false when it cannot be withdrawn any more */
static bool request_withdraw(Request *r)
{
    QEMU_LOCK_GUARD(&lock);
    r->withdrawn = r->phase < REDIRECT_PHASE_COMMITTING;
    return r->withdrawn;
}

/*
 * The migration goes on without a safe point.  Either side may run the guest
 * by now, so that its channel is not to be touched.
 */
static bool too_late(void)
{
    switch (migrate_get_current()->state) {
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
    case MIGRATION_STATUS_POSTCOPY_PAUSED:
    case MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP:
    case MIGRATION_STATUS_POSTCOPY_RECOVER:
        return true;
    default:
        return false;
    }
}

/*
 * The migration thread may hang in a write to the old destination, which
 * this ends.  Before it was told, only if @hung, and if the switchover has
 * not begun: with the BQL, which is held here, it cannot.
 */
static bool break_old_channel_off(Request *r, bool hung)
{
    MigrationState *s = migrate_get_current();

    QEMU_LOCK_GUARD(&s->qemu_file_lock);
    QEMU_LOCK_GUARD(&lock);
    if (current != r || !s->to_dst_file ||
        r->phase >= REDIRECT_PHASE_SWAPPED ||
        (r->phase < REDIRECT_PHASE_COMMITTING &&
         (!hung || s->state != MIGRATION_STATUS_ACTIVE))) {
        return false;
    }
    r->broke_off = true;
    qemu_file_shutdown(s->to_dst_file);
    return true;
}

/*
 * Until it has ended or it is too late for it, or for @ms, or (@ms < 0) as
 * long as the old destination takes something.  Returns whether that has taken
 * nothing for long, though there was something to take.
 */
static bool coroutine_fn request_wait_moving(Request *r, int64_t ms)
{
    int64_t start = now_ms(), since = start, empty = start;
    uint64_t most = redirect_taken_by_old(NULL);

    while (request_phase(r) != REDIRECT_PHASE_ENDED && !too_late() &&
           (ms < 0 ? now_ms() - since < REDIRECT_HUNG_MS
                   : now_ms() - start < ms)) {
        uint64_t taken, unsent;

        request_wait(r, false, LOOK_MS);
        taken = redirect_taken_by_old(&unsent);
        if (taken > most) {
            most = taken;
            since = now_ms();
        }
        if (!unsent) {
            empty = now_ms();
        }
    }
    return now_ms() - MAX(since, empty) >= REDIRECT_HUNG_MS;
}

static void explain_withdrawal(Error **errp)
{
    if (check_status(migrate_get_current()->state, errp)) {
        error_setg(errp, "The stream to the old destination moves too slowly, "
                   "so that it could not be changed in %d s; the redirect was "
                   "withdrawn", REDIRECT_ANSWER_MS / 1000);
    }
}

/* It is with the migration thread */
static void coroutine_fn request_see_through(Request *r, Error **errp)
{
    /* A little more than the migration thread gives itself */
    bool hung = request_wait_moving(r, REDIRECT_ANSWER_MS + 1000);

    if (request_phase(r) == REDIRECT_PHASE_ENDED) {
        return;
    }
    if (!hung || !break_old_channel_off(r, true)) {
        if (request_withdraw(r)) {
            explain_withdrawal(errp);
            return;
        }
        request_wait_moving(r, -1);
        if (request_phase(r) != REDIRECT_PHASE_ENDED) {
            break_old_channel_off(r, false);
        }
    }
    request_wait_moving(r, INT32_MAX);
    if (request_phase(r) != REDIRECT_PHASE_ENDED && request_withdraw(r)) {
        explain_withdrawal(errp);
    }
}

static void coroutine_fn request_run(Request *r, Error **errp)
{
    Error *err = NULL;

    if (!request_connect(r, &err)) {
        error_prepend(&err, "Cannot connect to the new destination, so the "
                      "migration goes on to the old one: ");
    } else {
        request_queue(r, &err);
    }
    if (err) {
        if (request_phase(r) != REDIRECT_PHASE_ENDED) {
            redirect_request_failed(error_get_pretty(err));
            redirect_request_end(error_copy(err));
        }
        error_propagate(errp, err);
        return;
    }
    request_see_through(r, &err);
    if (!err && r->err) {
        err = error_copy(r->err);
    }
    error_propagate(errp, err);
}

void coroutine_fn qmp_migrate_redirect(const char *uri, Error **errp)
{
    Request *r = request_new(uri, errp);

    if (r) {
        request_run(r, errp);
        request_unref(r);
    }
}

typedef struct HmpRequest {
    Request *request;
    Monitor *mon;               /* NULL: nobody waits */
} HmpRequest;

static void coroutine_fn hmp_request_co(void *opaque)
{
    HmpRequest *h = opaque;
    Error *err = NULL;

    request_run(h->request, &err);
    request_unref(h->request);
    if (h->mon) {
        if (err) {
            monitor_printf(h->mon, "Error: %s\n", error_get_pretty(err));
        }
        monitor_resume(h->mon);
        error_free(err);
    } else if (err) {
        error_report_err(err);
    }
    g_free(h);
}

void hmp_migrate_redirect(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    HmpRequest *h;
    Request *r = request_new(qdict_get_str(qdict, "uri"), &err);

    if (!r) {
        hmp_handle_error(mon, err);
        return;
    }
    h = g_new0(HmpRequest, 1);
    h->request = r;
    if (monitor_suspend(mon) == 0) {
        h->mon = mon;
    } else {
        monitor_printf(mon, "this terminal does not wait; see info migrate\n");
    }
    qemu_coroutine_enter(qemu_coroutine_create(hmp_request_co, h));
}
