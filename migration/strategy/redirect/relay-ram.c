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
#include "creds.h"
#include "fault.h"
#include "relay-ram.h"
#include "relay.h"
#include "wire.h"

/* Main thread, but for what says otherwise */
static struct {
    /* The order, as far as it has come in */
    bool ordered;
    RedirectOrder order;
    RedirectBlocks blocks;
    unsigned long **owed;       /* bitmap of each block */
    uint64_t pages;             /* bits that are set there */

    RedirectRelaySender *sender;    /* NULL: it does not run */
    RAMBlock **ram;             /* of each region; relay's threads read it */
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

/* Threads of the relay; what this cannot do costs memory, nothing else */
static void release_ram(unsigned region, uint64_t first, uint64_t n,
                        void *opaque)
{
    RAMBlock *rb = relay.ram[region];
    bool give_up = redirect_fault("mid-relay");
    uint64_t start = ROUND_UP(first * PAGELINK_PAGE_SIZE, rb->page_size);
    uint64_t end = QEMU_ALIGN_DOWN((first + n) * PAGELINK_PAGE_SIZE,
                                   rb->page_size);

    if (give_up) {
        redirect_relay_cancel(relay.sender);
    }
    if (qatomic_read(&relay.keep) || start >= end || !is_ours_alone(rb)) {
        return;
    }
    if (ram_block_discard_range(rb, start, end - start)) {
        qatomic_set(&relay.keep, true);
    }
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

/* Keep the figures, free the rest */
static void relay_over(void)
{
    g_free(relay.last.error);
    redirect_relay_query(relay.sender, &relay.last);
    redirect_relay_free(g_steal_pointer(&relay.sender));
    g_clear_pointer(&relay.ram, g_free);
    relay.ended = true;
}

static void on_done(void *opaque)
{
    relay_over();
    qapi_event_send_migration_redirected(relay_state(relay.last.status),
                                         relay.last.pages, relay.last.bytes,
                                         relay.last.error);
    relay.done();
}

/* What redirect_relay_start() takes over */
static RedirectRelayRegion *make_regions(void)
{
    RedirectRelayRegion *regions = g_new0(RedirectRelayRegion,
                                          relay.blocks.n);

    relay.ram = g_new0(RAMBlock *, relay.blocks.n);
    for (uint32_t i = 0; i < relay.blocks.n; i++) {
        RedirectBlock *b = &relay.blocks.block[i];

        relay.ram[i] = find_ram(b, &error_abort);
        regions[i] = (RedirectRelayRegion) {
            .name = g_strdup(b->name),
            .host = relay.ram[i]->host,
            .pages = b->pages,
            .owed = g_steal_pointer(&relay.owed[i]),
        };
    }
    return regions;
}

bool redirect_relay_begin(void (*done)(void), Error **errp)
{
    RedirectRelayOptions o = {
        .session = relay.order.session,
        /* One encrypts while the other waits for the network */
        .connections = relay.order.tls ? 2 : 1,
        .tls_hostname = *relay.order.tls_hostname ? relay.order.tls_hostname
                                                  : NULL,
        .nregions = relay.blocks.n,
        .release = release_ram,
        .done = on_done,
    };
    SocketAddress *addr;

    assert(redirect_relay_ordered() && !relay.sender);
    addr = redirect_address_parse(relay.order.address, errp);
    if (!addr) {
        forget_order();
        return false;
    }
    if (relay.order.tls) {
        o.tls_creds = redirect_creds_client(errp);
        if (!o.tls_creds) {
            qapi_free_SocketAddress(addr);
            forget_order();
            return false;
        }
    }
    o.addr = addr;
    o.regions = make_regions();
    relay.redirects = relay.order.session.number;
    relay.keep = ram_block_discard_is_disabled();
    relay.done = done;
    relay.ended = false;
    relay.sender = redirect_relay_start(&o);
    object_unref(OBJECT(o.tls_creds));
    qapi_free_SocketAddress(addr);
    forget_order();
    return true;
}

bool redirect_relay_running(void)
{
    return relay.sender;
}

void redirect_relay_stop(void)
{
    if (relay.sender) {
        redirect_relay_cancel(relay.sender);
        relay_over();
    }
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
    info->remaining = (f.owed - f.pages - f.skipped) * PAGELINK_PAGE_SIZE;
    info->has_relay_pages = info->has_relay_zero_pages = true;
    info->relay_pages = f.pages;
    info->relay_zero_pages = f.zero;
    info->has_relay_bytes = info->has_relay_rate = true;
    info->relay_bytes = f.bytes;
    info->relay_rate = f.rate;
    info->error = f.error;
    return info;
}
