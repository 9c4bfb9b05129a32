/*
 * Redirect: the relay of this QEMU's guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-strategy.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "qemu/yank.h"
#include "block/aio.h"
#include "io/channel.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "migration/yank_functions.h"
#include "creds.h"
#include "fault.h"
#include "relay-ram.h"
#include "relay.h"
#include "wire.h"

/* The default of the parameter, in bytes a second, as options.c has it */
#define DEFAULT_MAX_BANDWIDTH (128 * MiB)
/* So long it tries to connect; the source waits a little longer */
#define RETRY_MS 4000

/* Main thread, but for what says otherwise */
static struct {
    /* The order, as far as it has come in */
    bool ordered;
    RedirectOrder order;
    RedirectBlocks blocks;
    unsigned long **owed;       /* bitmap of each block */
    uint64_t pages;             /* bits that are set there */

    bool running;               /* until memory is given back */
    RedirectRelaySender *sender;    /* NULL: it has ended, or never began */
    RAMBlock **ram;             /* of each region; relay's threads read it */
    unsigned nram;
    uint64_t source_rate;       /* limit of the source; constant meanwhile */
    bool keep;                  /* atomic: memory cannot be given back */
    void (*done)(void);
    uint32_t redirects;

    bool ended;                 /* there was one, and this is how it was */
    RedirectRelayFigures last;
} relay;

static void forget_order(void)
{
    if (relay.owed) {
        for (uint32_t i = 0; i < relay.blocks.n; i++) {
            g_free(relay.owed[i]);
        }
    }
    g_clear_pointer(&relay.owed, g_free);
    g_clear_pointer(&relay.blocks.block, g_free);
    relay.blocks.n = 0;
    relay.pages = 0;
    relay.ordered = false;
}

static RAMBlock *find_ram(const RedirectBlock *b, Error **errp)
{
    RAMBlock *rb = qemu_ram_block_by_name(b->name);

    if (!rb || rb->used_length != b->pages * PAGELINK_PAGE_SIZE) {
        error_setg(errp, "redirect: RAM block %s has not %" PRIu64 " pages "
                   "here", b->name, b->pages);
        return NULL;
    }
    return rb;
}

static bool take_blocks(const StrategyMessage *m, Error **errp)
{
    if (!redirect_blocks_decode(&relay.blocks, m->payload, m->len, errp)) {
        return false;
    }
    if (relay.blocks.n < relay.blocks.expected) {
        return true;
    }
    for (uint32_t i = 0; i < relay.blocks.n; i++) {
        if (!find_ram(&relay.blocks.block[i], errp)) {
            return false;
        }
    }
    relay.owed = g_new0(unsigned long *, relay.blocks.n);
    for (uint32_t i = 0; i < relay.blocks.n; i++) {
        relay.owed[i] = bitmap_new(relay.blocks.block[i].pages);
    }
    return true;
}

static bool take_bitmap(const StrategyMessage *m, Error **errp)
{
    RedirectBitmap b;

    if (!redirect_bitmap_decode(&b, &relay.blocks, m->payload, m->len,
                                errp)) {
        return false;
    }
    relay.pages += redirect_bitmap_or(relay.owed[b.block], &b);
    if (relay.pages > relay.order.pages) {
        error_setg(errp, "redirect: more pages are owed than ordered");
        return false;
    }
    return true;
}

bool redirect_relay_message(const StrategyMessage *m, Error **errp)
{
    if (m->type == STRATEGY_MSG_RELAY_ORDER) {
        forget_order();
        if (!redirect_order_decode(&relay.order, m->payload, m->len, errp)) {
            return false;
        }
        if (qemu_target_page_size() != PAGELINK_PAGE_SIZE) {
            error_setg(errp, "redirect: only for pages of %d bytes",
                       PAGELINK_PAGE_SIZE);
            return false;
        }
        relay.ordered = true;
        relay.blocks.expected = relay.order.blocks;
        return true;
    }
    if (!relay.ordered) {
        error_setg(errp, "redirect: part of an order without its beginning");
        return false;
    }
    if (m->type == STRATEGY_MSG_REDIRECT_BLOCKS) {
        return take_blocks(m, errp);
    }
    if (!relay.owed) {
        error_setg(errp, "redirect: a bitmap of blocks that are not known");
        return false;
    }
    return take_bitmap(m, errp);
}

bool redirect_relay_ordered(void)
{
    return relay.ordered && relay.owed && relay.pages == relay.order.pages;
}

/* Would nobody miss what is in @rb?  A file may have other users. */
static bool is_ours_alone(RAMBlock *rb)
{
    return rb->fd < 0 || (qemu_ram_is_shared(rb) &&
                          !qemu_ram_is_named_file(rb));
}

/* Any thread; what this cannot do costs memory, nothing else */
static void give_back(RAMBlock *rb, uint64_t start, uint64_t end)
{
    start = ROUND_UP(start, rb->page_size);
    end = QEMU_ALIGN_DOWN(end, rb->page_size);
    if (qatomic_read(&relay.keep) || start >= end || !is_ours_alone(rb) ||
        /* A device that was plugged meanwhile may forbid it */
        ram_block_discard_is_disabled()) {
        return;
    }
    if (ram_block_discard_range(rb, start, end - start)) {
        qatomic_set(&relay.keep, true);
    }
}

/* Threads of the relay */
static bool release_ram(unsigned region, uint64_t first, uint64_t n,
                        bool arrived, void *opaque)
{
    bool give_up = arrived && redirect_fault("mid-relay");

    give_back(relay.ram[region], first * PAGELINK_PAGE_SIZE,
              (first + n) * PAGELINK_PAGE_SIZE);
    return !give_up;
}

/*
 * Threads of the relay: this host's own limit, which may change any time.
 * Nobody who has not set it here, as destinations have no use for it else,
 * wants less than what the source may send.
 */
static uint64_t max_rate(void *opaque)
{
    uint64_t own = migrate_max_bandwidth();

    if (own != DEFAULT_MAX_BANDWIDTH) {
        return own;
    }
    return relay.source_rate ? MAX(relay.source_rate, own) : 0;
}

static RamRelayState relay_state(RedirectRelayStatus status)
{
    static const RamRelayState states[] = {
        [REDIRECT_RELAY_STATUS_CONNECTING] = RAM_RELAY_STATE_CONNECTING,
        [REDIRECT_RELAY_STATUS_ACTIVE] = RAM_RELAY_STATE_ACTIVE,
        [REDIRECT_RELAY_STATUS_COMPLETED] = RAM_RELAY_STATE_COMPLETED,
        [REDIRECT_RELAY_STATUS_RELEASED] = RAM_RELAY_STATE_RELEASED,
        [REDIRECT_RELAY_STATUS_FAILED] = RAM_RELAY_STATE_FAILED,
        [REDIRECT_RELAY_STATUS_CANCELLED] = RAM_RELAY_STATE_CANCELLED,
    };

    return states[status];
}

/* Called by the monitor's thread, too; not after it is unregistered */
static void relay_yank(void *opaque)
{
    redirect_relay_cancel(opaque);
}

static void given_back_bh(void *opaque)
{
    g_clear_pointer(&relay.ram, g_free);
    relay.running = false;
    qapi_event_send_migration_redirected(relay_state(relay.last.status),
                                         relay.last.pages, relay.last.bytes,
                                         relay.last.error);
    relay.done();
}

/* Gigabytes take their time, for which the main loop does not wait */
static void *give_back_thread(void *opaque)
{
    for (unsigned i = 0; i < relay.nram; i++) {
        give_back(relay.ram[i], 0, relay.ram[i]->used_length);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), given_back_bh, NULL);
    return NULL;
}

/* However it ended, what is still here is of no use to anybody */
static void relay_ended(void)
{
    QemuThread thread;

    relay.ended = true;
    qemu_thread_create(&thread, "redirect-free", give_back_thread, NULL,
                       QEMU_THREAD_DETACHED);
}

static void on_done(void *opaque)
{
    yank_unregister_function(MIGRATION_YANK_INSTANCE, relay_yank,
                             relay.sender);
    yank_unregister_instance(MIGRATION_YANK_INSTANCE);
    redirect_relay_query(relay.sender, &relay.last);
    redirect_relay_free(g_steal_pointer(&relay.sender));
    relay_ended();
}

static void find_all_ram(void)
{
    relay.nram = relay.blocks.n;
    relay.ram = g_new0(RAMBlock *, relay.nram);
    for (uint32_t i = 0; i < relay.nram; i++) {
        relay.ram[i] = find_ram(&relay.blocks.block[i], &error_abort);
    }
}

/* What redirect_relay_start() takes over */
static RedirectRelayRegion *make_regions(void)
{
    RedirectRelayRegion *regions = g_new0(RedirectRelayRegion,
                                          relay.blocks.n);

    for (uint32_t i = 0; i < relay.blocks.n; i++) {
        RedirectBlock *b = &relay.blocks.block[i];

        regions[i] = (RedirectRelayRegion) {
            .name = g_strdup(b->name),
            .host = relay.ram[i]->host,
            .pages = b->pages,
            .owed = g_steal_pointer(&relay.owed[i]),
        };
    }
    return regions;
}

static bool relay_start(Error **errp)
{
    RedirectRelayOptions o = {
        .session = relay.order.session,
        /* One encrypts while the other waits for the network */
        .connections = relay.order.tls ? 2 : 1,
        .tls_hostname = *relay.order.tls_hostname ? relay.order.tls_hostname
                                                  : NULL,
        .nregions = relay.blocks.n,
        .retry_ms = RETRY_MS,
        .max_rate = max_rate,
        .release = release_ram,
        .done = on_done,
    };
    g_autoptr(SocketAddress) addr = NULL;

    if (redirect_fault("before-relay")) {
        error_setg(errp, "fault point 'before-relay'");
        return false;
    }
    addr = redirect_address_parse(relay.order.address, errp);
    if (!addr) {
        return false;
    }
    if (relay.order.tls) {
        o.tls_creds = redirect_creds_client(errp);
        if (!o.tls_creds) {
            return false;
        }
    }
    if (!yank_register_instance(MIGRATION_YANK_INSTANCE, errp)) {
        object_unref(OBJECT(o.tls_creds));
        return false;
    }
    o.addr = addr;
    o.regions = make_regions();
    relay.sender = redirect_relay_start(&o);
    yank_register_function(MIGRATION_YANK_INSTANCE, relay_yank, relay.sender);
    object_unref(OBJECT(o.tls_creds));
    return true;
}

void redirect_relay_begin(void (*done)(void))
{
    Error *err = NULL;

    assert(redirect_relay_ordered() && !relay.running);
    relay.running = true;
    relay.redirects = relay.order.session.number;
    relay.source_rate = relay.order.max_rate;
    relay.keep = ram_block_discard_is_disabled();
    relay.done = done;
    relay.ended = false;
    g_free(relay.last.error);
    relay.last = (RedirectRelayFigures) {
        .status = REDIRECT_RELAY_STATUS_FAILED,
    };
    find_all_ram();
    if (!relay_start(&err)) {
        relay.last.error = g_strdup(error_get_pretty(err));
        warn_reportf_err(err, "cannot be the relay of a redirected migration, "
                         "so that the source sends all: ");
        relay_ended();
    }
    forget_order();
}

bool redirect_relay_running(void)
{
    return relay.running;
}

RamStrategyRedirectInfo *redirect_relay_info(void)
{
    RamStrategyRedirectInfo *info;
    RedirectRelayFigures f;

    if (relay.sender) {
        redirect_relay_query(relay.sender, &f);
    } else if (relay.ended) {
        f = relay.last;
        f.error = g_strdup(f.error);
    } else {
        return NULL;
    }
    info = g_new0(RamStrategyRedirectInfo, 1);
    info->role = RAM_REDIRECT_ROLE_RELAY;
    info->redirects = relay.redirects;
    info->has_relay = true;
    info->relay = relay_state(f.status);
    info->has_remaining = true;
    /* What a connection that failed had sent counts once more */
    info->remaining = (f.owed - MIN(f.owed, f.pages + f.skipped)) *
                      PAGELINK_PAGE_SIZE;
    info->has_relay_pages = info->has_relay_zero_pages = true;
    info->relay_pages = f.pages - MIN(f.dropped, f.pages);
    info->relay_zero_pages = f.zero;
    info->has_duplicates = true;
    info->duplicates = f.dropped;
    info->has_relay_bytes = info->has_relay_rate = true;
    info->relay_bytes = f.bytes;
    info->relay_rate = f.rate;
    info->error = f.error;
    return info;
}
