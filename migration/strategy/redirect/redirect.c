/*
 * Redirect: the source's side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qobject/json-writer.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/socket.h"
#include "migration/strategy.h"
#include "migration/yank_functions.h"
#include "../message.h"
#include "../run.h"
#include "../trace.h"
#include "channel.h"
#include "fault.h"
#include "order.h"
#include "owed.h"
#include "probe.h"
#include "redirect.h"
#include "request.h"
#include "return-path.h"

/* How often to look for an answer when there is nothing else to do */
#define POLL_MS 10
/* Pages that are taken over with the lock held */
#define TAKE_SLICE 4096
/* How often the dirty log is read while the relay sends and A does not */
#define WAIT_SYNC_MS 1000

static struct {
    /* Main thread, BQL; constant while the migration thread runs */
    bool running;

    /* Migration thread only */
    GPtrArray *rams;            /* of RAMBlock: a number for each */
    bool idle;
    bool waits;                 /* there was nothing of its own to send */
    int64_t sync_ms;            /* of the last look at the dirty log */
    int64_t window_start;       /* of the migration's rate window, ms */
    uint64_t window_unsent;     /* bytes in the kernel's queue by then */
    bool window_idle;           /* there was nothing to send within it */

    /* Constant from the first redirect on */
    RedirectBlocks blocks;

    /* Protects what is below */
    QemuMutex lock;
    RedirectOwed *owed;         /* changed by the migration thread */
    bool deaf;                  /* the return path is still the old one */
    SocketAddress *addr;        /* where the stream goes now */
    RedirectPolicy policy;
    RedirectRelay relay;        /* as the new destination reported last */
    RedirectRelayHealth health;
    bool has_relay;
    bool woken;                 /* an urgent request is to be consumed */
    uint32_t redirects;
    uint64_t taken_over;        /* pages */
    uint64_t bytes_before;      /* sent before the redirect */
    uint64_t pages_before;
    uint64_t bytes_at_end;      /* in all; 0: it is not over */
    uint64_t pages_at_end;
    char *error;
} redirect;

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

void redirect_init(void)
{
    qemu_mutex_init(&redirect.lock);
    redirect_order_init();
    redirect_fault_init();
    redirect_request_init();
}

/* Number the blocks; what RAM sends, in its order */
static void blocks_fill(void)
{
    RAMBlock *rb;

    g_clear_pointer(&redirect.rams, g_ptr_array_unref);
    g_clear_pointer(&redirect.blocks.block, g_free);
    redirect.rams = g_ptr_array_new();
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (rb->used_length >= qemu_target_page_size()) {
            g_ptr_array_add(redirect.rams, rb);
        }
    }
    redirect.blocks.n = redirect.blocks.expected = redirect.rams->len;
    redirect.blocks.block = g_new0(RedirectBlock, redirect.rams->len);
    for (unsigned i = 0; i < redirect.rams->len; i++) {
        rb = g_ptr_array_index(redirect.rams, i);
        pstrcpy(redirect.blocks.block[i].name,
                sizeof(redirect.blocks.block[i].name), rb->idstr);
        redirect.blocks.block[i].pages =
            rb->used_length / qemu_target_page_size();
    }
}

void redirect_begin(const MigrationAddress *addr, bool redirectable)
{
    QEMU_LOCK_GUARD(&redirect.lock);
    redirect_owed_free(g_steal_pointer(&redirect.owed));
    qapi_free_SocketAddress(g_steal_pointer(&redirect.addr));
    if (addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET) {
        redirect.addr = QAPI_CLONE(SocketAddress, &addr->u.socket);
    }
    redirect.idle = redirect.waits = false;
    redirect.policy = (RedirectPolicy) {};
    redirect.window_start = 0;
    redirect.has_relay = false;
    redirect.redirects = 0;
    redirect.taken_over = 0;
    redirect.bytes_at_end = redirect.pages_at_end = 0;
    redirect.relay = (RedirectRelay) {};
    g_clear_pointer(&redirect.error, g_free);
    redirect.running = redirectable;
}

void redirect_request_failed(const char *why)
{
    trace_redirect_failed(why);
    QEMU_LOCK_GUARD(&redirect.lock);
    g_free(redirect.error);
    redirect.error = g_strdup(why);
}

/* The redirect does not come about; takes over @err */
static void give_up(Error *err)
{
    redirect_request_failed(error_get_pretty(err));
    redirect_probe_drop();
    redirect_request_end(err);
}

static void consume_wakeup(void)
{
    bool woken;

    WITH_QEMU_LOCK_GUARD(&redirect.lock) {
        woken = redirect.woken;
        redirect.woken = false;
    }
    if (woken) {
        migration_consume_urgent_request();
    }
}

void redirect_end(void)
{
    if (!redirect.running) {
        return;
    }
    redirect.running = false;
    redirect.idle = redirect.waits = false;
    consume_wakeup();
    WITH_QEMU_LOCK_GUARD(&redirect.lock) {
        redirect.bytes_at_end = migration_transferred_bytes();
        redirect.pages_at_end = ram_get_total_transferred_pages();
    }
    /* One that only connects must not find the next migration */
    if (redirect_request_exists()) {
        Error *err = NULL;

        error_setg(&err, "The migration ended before it could be redirected");
        give_up(err);
    }
}

static bool same_address(const SocketAddress *a, const SocketAddress *b)
{
    g_autofree char *sa = NULL, *sb = NULL;

    if (!a || !b || a->type != b->type) {
        return false;
    }
    sa = redirect_address_print(a, NULL);
    sb = redirect_address_print(b, NULL);
    return sa && sb && g_str_equal(sa, sb);
}

bool redirect_request_may(const SocketAddress *addr, Error **errp)
{
    if (!redirect.running) {
        error_setg(errp, "This migration cannot be redirected: set "
                   "'redirectable' in the parameter 'strategy' before it "
                   "starts");
        return false;
    }
    QEMU_LOCK_GUARD(&redirect.lock);
    if (!redirect.addr) {
        /* Its end cannot be forced: a program need not close its output */
        error_setg(errp, "The channel of this migration is no socket (exec:); "
                   "start the migration with a tcp: or unix: URI");
        return false;
    }
    if (redirect.addr->type == SOCKET_ADDRESS_TYPE_FD) {
        /* libvirt would wait for B, and then let the guest run on at A */
        error_setg(errp, "The channel of this migration was opened by somebody "
                   "else (fd:), who would look for the guest where that leads; "
                   "start the migration with a tcp: or unix: URI");
        return false;
    }
    if (same_address(addr, redirect.addr)) {
        error_setg(errp, "The migration goes there already");
        return false;
    }
    return true;
}

bool redirect_happened(void)
{
    return redirect.running && redirect.redirects;
}

static void take_back(unsigned block, uint64_t page, void *opaque)
{
    ram_save_again(g_ptr_array_index(redirect.rams, block), page);
}

static uint64_t take_some(RedirectOwed *owed, uint64_t max)
{
    uint64_t n = 0, some;

    do {
        /* In slices: others wait for the lock meanwhile */
        some = redirect_owed_take(owed, MIN(max - n, TAKE_SLICE), take_back,
                                  NULL);
        n += some;
    } while (some && n < max);
    return n;
}

/*
 * What is owed: all that is clean here.  What an earlier relay still owes is
 * not at the old destination, so that the source sends it.
 */
static void owe(void)
{
    RedirectOwed *old = redirect.owed;

    if (old) {
        take_some(old, UINT64_MAX);
    }
    WITH_QEMU_LOCK_GUARD(&redirect.lock) {
        redirect.deaf = true;
        redirect.owed = redirect_owed_new(&redirect.blocks);
    }
    redirect_owed_free(old);
    for (unsigned i = 0; i < redirect.rams->len; i++) {
        RAMBlock *rb = g_ptr_array_index(redirect.rams, i);

        redirect_owed_set_clean(redirect.owed, i, rb->bmap);
    }
}

/* Whatever the old destination does now is not the migration's business */
static void old_return_path_close(MigrationState *s)
{
    WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
        if (s->rp_state.from_dst_file) {
            /* Not the file, which would report what its reader sees next */
            qio_channel_shutdown(qemu_file_get_ioc(s->rp_state.from_dst_file),
                                 QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        }
    }
    close_return_path_on_source(s);
    redirect_forget_error(NULL);
}

static void files_swap(MigrationState *s)
{
    JSONWriter *vmdesc;
    QEMUFile *old, *new = redirect_probe_take(&vmdesc);

    migration_ioc_unregister_yank_from_file(s->to_dst_file);
    WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
        old = s->to_dst_file;
        s->to_dst_file = new;
        redirect_request_advance(REDIRECT_PHASE_SWAPPED);
    }
    qemu_fclose(old);
    g_clear_pointer(&s->vmdesc, json_writer_free);
    s->vmdesc = vmdesc;
}

/* The stream goes on to the new destination */
static void stream_restart(MigrationState *s, RedirectRequest *request)
{
    g_free(s->hostname);
    s->hostname = g_strdup(request->hostname);
    socket_redirect_outgoing_migration(request->addr);
    /* Its answer was read with the handshake; only VFIO devices object */
    s->switchover_acked = true;
    strategy_run_redirected();
    if (open_return_path_on_source(s)) {
        qemu_file_set_error(s->to_dst_file, -EIO);
    }
    if (s->state != MIGRATION_STATUS_ACTIVE) {
        /* Cancelled: that may have shut down the old channel only */
        qemu_file_shutdown(s->to_dst_file);
    }
    /* What is known of the rate is that of another link */
    s->threshold_size = 0;
    s->iteration_start_time = now_ms();
    redirect.window_start = 0;
    s->iteration_initial_bytes = migration_transferred_bytes();
    s->iteration_initial_pages = ram_get_total_transferred_pages();
    migration_rate_reset();
}

static void note_redirect(const RedirectRequest *request, bool relays)
{
    uint64_t ram_pages = ram_bytes_total() / qemu_target_page_size();

    QEMU_LOCK_GUARD(&redirect.lock);
    redirect.deaf = false;
    redirect.redirects++;
    redirect_policy_init(&redirect.policy, ram_pages, redirect_probe_rtt_ms(),
                         now_ms());
    redirect.relay = (RedirectRelay) {};
    redirect.health = REDIRECT_HEALTH_WAITING;
    redirect.has_relay = true;
    redirect.taken_over = 0;
    redirect.bytes_before = migration_transferred_bytes();
    redirect.pages_before = ram_get_total_transferred_pages();
    g_clear_pointer(&redirect.error, g_free);
    if (!relays) {
        redirect_policy_relay(&redirect.policy, REDIRECT_RELAY_LOST, now_ms());
        redirect.health = REDIRECT_HEALTH_GONE;
        redirect.error = g_strdup(redirect_request_broke_off() ?
                                  "the old destination hung, so that its "
                                  "channel was broken off" :
                                  "the old destination did not take the order "
                                  "to be the relay");
    }
    qapi_free_SocketAddress(redirect.addr);
    redirect.addr = QAPI_CLONE(SocketAddress, request->addr);
}

/*
 * The new destination is ready: tell the old one, and change over.  From the
 * first byte of the order on there is no way back; an old destination that
 * does not answer costs time only, as the source has all it owes.
 */
static void commit(MigrationState *s, RedirectRequest *request,
                   const RedirectReady *ready)
{
    Error *err = NULL;
    bool relays;

    if (redirect_fault("before-order")) {
        error_setg(&err, "fault point 'before-order'");
    } else if (!redirect_request_advance(REDIRECT_PHASE_COMMITTING)) {
        error_setg(&err, "The redirect was withdrawn");
    } else if (migrate_has_error(s) && !redirect_request_broke_off()) {
        /* In this order: breaking off is noted before it is an error */
        error_setg(&err, "The migration to the old destination failed");
    } else {
        ram_save_redirect(redirect_probe_file(), &err);
    }
    if (err) {
        give_up(err);
        return;
    }
    /* The handshake has read its answer, and no more */
    redirect_probe_answered();
    owe();
    relays = !redirect_request_broke_off() &&
             redirect_order_send(&redirect.blocks, redirect.owed, ready,
                                 request->hostname) &&
             redirect_order_accepted();
    if (redirect_fault("after-order")) {
        relays = false;
    }
    old_return_path_close(s);
    note_redirect(request, relays);
    /* Another thread may have read the log meanwhile */
    redirect_synced();
    files_swap(s);
    stream_restart(s, request);
    trace_redirect_commit(redirect.redirects,
                            redirect_owed_left(redirect.owed), relays);
    redirect_request_end(NULL);
}

/* What becomes of the migration when the new destination does not take it */
static const char *instead(bool broke_off)
{
    return broke_off ? "the channel to the old destination, which hung, was "
                       "broken off already"
                     : "the migration goes on to the old one";
}

/* Go on with a redirect that was ordered */
static void request_step(MigrationState *s)
{
    bool broke_off = redirect_request_broke_off();
    RedirectPhase phase;
    RedirectRequest *request = redirect_request_pending(&phase);
    RedirectAnswer answer = REDIRECT_ANSWER_NONE;
    RedirectReady ready;
    Error *err = NULL;
    int64_t deadline;

    if (!request) {
        return;
    }
    deadline = request->deadline_ms;
    if (broke_off) {
        /* It may come from there only now */
        deadline += REDIRECT_ANSWER_MS + 1000;
    }
    if (!redirect_request_advance(REDIRECT_PHASE_PROBING)) {
        error_setg(&err, "The redirect was withdrawn");
    } else if (phase == REDIRECT_PHASE_QUEUED) {
        if (!redirect.owed) {
            blocks_fill();
        }
        if (!redirect_probe_begin(request->ioc, &redirect.blocks,
                                  redirect.redirects + 1, &err)) {
            /* One that refuses may have hung up before all was written */
            error_prepend(&err, "The new destination cannot take the "
                          "migration, and %s: ", instead(broke_off));
        }
    } else {
        answer = redirect_probe_poll(&ready, &err);
        if (err) {
            error_prepend(&err, "The new destination cannot take the "
                          "migration, and %s: ", instead(broke_off));
        }
    }
    if (answer == REDIRECT_ANSWER_NONE && !err &&
        now_ms() >= deadline) {
        error_setg(&err, "The new destination did not answer in %d s, and %s",
                   REDIRECT_ANSWER_MS / 1000, instead(broke_off));
    }
    if (err) {
        give_up(err);
    } else if (answer == REDIRECT_ANSWER_READY) {
        commit(s, request, &ready);
    }
}

/*
 * What the source can send: the rate of windows in which it always had
 * something to.  In pages that have data: zero pages cost next to nothing.
 * What the kernel still holds was not sent; it would flatter a new link.
 */
static void own_rate_note(MigrationState *s)
{
    int64_t ms = s->iteration_start_time - redirect.window_start;
    uint64_t unsent;
    double bytes;

    if (!ms) {
        return;
    }
    unsent = redirect_unsent(qemu_file_get_ioc(s->to_dst_file));
    if (redirect.window_start && !redirect.window_idle) {
        bytes = MAX(s->mbps, 0) * 125 * ms + redirect.window_unsent - unsent;
        QEMU_LOCK_GUARD(&redirect.lock);
        redirect_policy_own(&redirect.policy, MAX(bytes, 0) * 1000 / ms /
                                              PAGELINK_PAGE_SIZE);
    }
    redirect.window_start = s->iteration_start_time;
    redirect.window_unsent = unsent;
    redirect.window_idle = false;
}

/*
 * Take over from a relay that is not good enough, or when there is time.
 * Returns whether something was.
 */
static bool take_over(void)
{
    bool bad;
    uint64_t n;

    if (!redirect.owed || !redirect_owed_left(redirect.owed)) {
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&redirect.lock) {
        redirect_policy_progress(&redirect.policy, 0, now_ms());
        redirect.health = redirect_policy_health(&redirect.policy, now_ms());
        n = redirect_policy_take(&redirect.policy, redirect.health,
                                 redirect_owed_left(redirect.owed));
        bad = redirect.health == REDIRECT_HEALTH_STALLED ||
              redirect.health == REDIRECT_HEALTH_GONE;
    }
    if (!n || !(bad || !ram_bytes_remaining())) {
        return false;
    }
    n = take_some(redirect.owed, n);
    WITH_QEMU_LOCK_GUARD(&redirect.lock) {
        redirect_policy_took(&redirect.policy, redirect.health, n);
        redirect.taken_over += n;
        trace_redirect_take_over(n, redirect_health_name(redirect.health),
                                 redirect_owed_left(redirect.owed));
    }
    return n;
}

bool redirect_safe_point(void)
{
    MigrationState *s = migrate_get_current();
    bool took;

    consume_wakeup();
    redirect.idle = redirect.waits = false;
    if (!redirect.running || s->state != MIGRATION_STATUS_ACTIVE) {
        return true;
    }
    request_step(s);
    own_rate_note(s);
    took = take_over();
    redirect.window_idle |= !ram_bytes_remaining();
    if (!redirect_holds()) {
        return true;
    }
    redirect.waits = took || !ram_bytes_remaining();
    redirect.idle = !ram_bytes_remaining();
    return !took && now_ms() - redirect.sync_ms >= WAIT_SYNC_MS;
}

bool redirect_survives_error(void)
{
    MigrationState *s = migrate_get_current();
    RedirectPhase phase;

    if (!redirect.running || !redirect_request_broke_off()) {
        return false;
    }
    while (redirect_request_pending(&phase) &&
           s->state == MIGRATION_STATUS_ACTIVE) {
        request_step(s);
        g_usleep(POLL_MS * 1000);
    }
    return !qemu_file_get_error(s->to_dst_file);
}

bool redirect_waits(void)
{
    return redirect.waits;
}

bool redirect_holds(void)
{
    RedirectPhase phase;

    /* In post-copy it comes to no safe point: one that was queued too late */
    return redirect.running && !migration_in_postcopy() &&
           (redirect_request_pending(&phase) ||
            (redirect.owed && redirect_owed_left(redirect.owed)));
}

bool redirect_relay_sends(void)
{
    if (!redirect.running) {
        return false;
    }
    QEMU_LOCK_GUARD(&redirect.lock);
    return redirect.owed && redirect_owed_left(redirect.owed);
}

bool redirect_idle(void)
{
    return redirect.idle && !ram_bytes_remaining();
}

void redirect_synced(void)
{
    if (migration_thread_is_self()) {
        redirect.sync_ms = now_ms();
    }
    QEMU_LOCK_GUARD(&redirect.lock);
    if (!redirect.running || !redirect.owed || redirect.deaf) {
        return;
    }
    for (unsigned i = 0; i < redirect.rams->len; i++) {
        RAMBlock *rb = g_ptr_array_index(redirect.rams, i);

        redirect_owed_drop_dirty(redirect.owed, i, rb->bmap);
    }
}

static void on_ready(const RedirectReady *ready, void *opaque)
{
    /* The handshake took the only one that counts */
}

static void on_refused(const char *sentence, void *opaque)
{
}

static void on_accepted(void *opaque)
{
    redirect_order_note_accepted();
}

static void on_have(const RedirectBitmap *have, void *opaque)
{
    uint64_t n;

    QEMU_LOCK_GUARD(&redirect.lock);
    if (!redirect.deaf) {
        n = redirect_owed_have(redirect.owed, have);
        redirect_policy_progress(&redirect.policy, n, now_ms());
        if (n && !redirect_owed_left(redirect.owed) && !redirect.woken) {
            /* It may be asleep, with nothing to send */
            redirect.woken = true;
            migration_make_urgent_request();
        }
    }
}

static void on_relay(const RedirectRelay *relay, void *opaque)
{
    QEMU_LOCK_GUARD(&redirect.lock);
    if (redirect.deaf) {
        return;
    }
    if (relay->state != redirect.relay.state) {
        redirect_policy_relay(&redirect.policy, relay->state, now_ms());
    }
    redirect.relay = *relay;
    redirect_policy_zero(&redirect.policy, relay->zero);
}

bool redirect_message(const uint8_t *buf, size_t len, Error **errp)
{
    static const RedirectReturnPathOps ops = {
        .ready = on_ready,
        .refused = on_refused,
        .accepted = on_accepted,
        .have = on_have,
        .relay = on_relay,
    };

    WITH_QEMU_LOCK_GUARD(&redirect.lock) {
        if (!redirect.owed) {
            error_setg(errp, "a message about a redirect, but there was none");
            return false;
        }
    }
    return redirect_return_path_handle(&ops, &redirect.blocks, buf, len, NULL,
                                       errp);
}

static RamRelayState relay_state(uint64_t left)
{
    if (!left && redirect.relay.state == REDIRECT_RELAY_DONE) {
        /* Its health is not looked at any more */
        return RAM_RELAY_STATE_COMPLETED;
    }
    switch (redirect.health) {
    case REDIRECT_HEALTH_WAITING:
    case REDIRECT_HEALTH_GOOD:
        if (redirect.relay.state == REDIRECT_RELAY_DONE || !left) {
            return RAM_RELAY_STATE_COMPLETED;
        }
        return redirect.health == REDIRECT_HEALTH_GOOD ?
               RAM_RELAY_STATE_ACTIVE : RAM_RELAY_STATE_CONNECTING;
    case REDIRECT_HEALTH_SLOW:
        return RAM_RELAY_STATE_SLOW;
    case REDIRECT_HEALTH_STALLED:
        return RAM_RELAY_STATE_STALLED;
    default:
        return RAM_RELAY_STATE_LOST;
    }
}

RamStrategyRedirectInfo *redirect_query(void)
{
    RamStrategyRedirectInfo *info;
    uint64_t page = qemu_target_page_size();
    uint64_t left;

    QEMU_LOCK_GUARD(&redirect.lock);
    left = redirect.owed ? redirect_owed_left(redirect.owed) : 0;
    if (!redirect.redirects && !redirect.error) {
        return NULL;
    }
    info = g_new0(RamStrategyRedirectInfo, 1);
    info->role = RAM_REDIRECT_ROLE_SOURCE;
    info->redirects = redirect.redirects;
    info->error = g_strdup(redirect.error);
    if (!redirect.redirects) {
        return info;
    }
    info->has_relay = info->has_remaining = info->has_taken_over = true;
    info->has_source_pages = info->has_source_bytes = true;
    info->has_relay_pages = info->has_relay_zero_pages = true;
    info->has_relay_bytes = info->has_duplicates = true;
    info->has_relay_rate = true;
    info->relay = relay_state(left);
    info->remaining = left * page;
    info->taken_over = redirect.taken_over * page;
    info->source_bytes = (redirect.bytes_at_end ?:
                          migration_transferred_bytes()) -
                         redirect.bytes_before;
    info->source_pages = (redirect.pages_at_end ?:
                          ram_get_total_transferred_pages()) -
                         redirect.pages_before;
    info->relay_pages = redirect.relay.pages;
    info->relay_zero_pages = redirect.relay.zero;
    info->relay_bytes = redirect.relay.bytes;
    info->relay_rate = redirect.policy.rate * page;
    info->duplicates = redirect.relay.duplicates;
    return info;
}
