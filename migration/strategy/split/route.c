/*
 * Split memory: where each page goes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Called for each page that RAM is about to save.  A page that is all zeroes
 * goes nowhere: what the destination does not find anywhere is zero.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "exec/ramblock.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/ram.h"
#include "migration/strategy.h"
#include "source.h"
#include "split.h"
#include "../trace.h"

/*
 * Pages that are put off one after the other before RAM is left alone for a
 * while: some extents, so that a slow memory host does not hold up others
 */
#define PUT_OFF_MOST        (4 * SPLIT_EXTENT_PAGES)

static SplitSourceBlock *find_block(SplitSource *s, const RAMBlock *rb)
{
    if (s->blocks[s->last_block].rb == rb) {
        return &s->blocks[s->last_block];
    }
    for (unsigned i = 0; i < s->n_blocks; i++) {
        if (s->blocks[i].rb == rb) {
            s->last_block = i;
            return &s->blocks[i];
        }
    }
    return NULL;
}

/*
 * Push to a memory host.  RAM's locks are held, and when the guest is stopped
 * the BQL is, too: there is no waiting here.  can_take() sees to it that the
 * queues stay short while the guest runs.  The rest, when it is stopped, is
 * what fits the downtime limit.
 */
static int push(SplitSource *s, unsigned host, const SplitEntry *e)
{
    SplitSender *sender = s->hosts[host].sender;

    if (!split_sender_push(sender, e)) {
        split_source_fail(split_sender_error(sender));
        return -EIO;
    }
    return 1;
}

static void account(SplitSource *s, uint64_t bytes)
{
    stat64_add(&mig_stats.split_bytes, bytes);
    ram_transferred_add(bytes);
}

static uint8_t *extent_host(SplitSource *s, SplitSourceBlock *b, uint64_t page)
{
    return &s->layout->blocks[b - s->blocks].host[page / SPLIT_EXTENT_PAGES];
}

/* How many pages @h would take, those of @more extents new to it */
static uint64_t room_at(const SplitSourceHost *h, unsigned more)
{
    uint64_t used = h->stored + h->extents + more;

    return MIN(h->capacity - MIN(h->capacity, h->stored),
               h->frames - MIN(h->frames, used));
}

/*
 * The memory host with the most room for an extent of which @pages are to be
 * stored, or -1 if none has so much; one whose queue is full only if all
 * queues are
 */
static int choose_host(const SplitSource *s, unsigned pages)
{
    int64_t most = 0;
    bool best_ready = false;
    int best = -1;

    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        const SplitSourceHost *h = &s->hosts[i];
        uint64_t extents = h->extents * SPLIT_EXTENT_PAGES;
        /* What is promised counts, even if there is more room so far */
        int64_t room = MIN(h->capacity, h->frames) -
                       MAX(extents, h->stored);
        bool ready;

        if (room_at(h, 1) < pages) {
            continue;
        }
        ready = split_sender_has_room(h->sender, 1);
        if (best < 0 || ready > best_ready ||
            (ready == best_ready && room > most)) {
            best = i;
            best_ready = ready;
            most = room;
        }
    }
    return best;
}

static void changed(SplitSourceBlock *b, uint64_t page)
{
    set_bit(page / SPLIT_CHUNK_PAGES, b->changed);
}

/* The memory host's copy is of no use any more */
static int forget_remote(SplitSource *s, SplitSourceBlock *b, uint64_t page)
{
    unsigned host = *extent_host(s, b, page);
    SplitEntry e = {
        .block = b - s->blocks, .page = page, .version = ++s->version,
    };

    s->hosts[host].stored--;
    account(s, sizeof(PageLinkRange));
    return push(s, host, &e);
}

static void assign(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                   int host)
{
    *extent_host(s, b, page) = host;
    s->hosts[host].extents++;
    changed(b, page);
}

/* The pages of the extent of @page: the first and the end */
static uint64_t extent_of(const SplitSourceBlock *b, uint64_t page,
                          uint64_t *end)
{
    uint64_t first = ROUND_DOWN(page, SPLIT_EXTENT_PAGES);

    *end = MIN(b->pages, first + SPLIT_EXTENT_PAGES);
    return first;
}

static unsigned stored_in_extent(SplitSource *s, SplitSourceBlock *b,
                                 uint64_t page)
{
    uint64_t end, first = extent_of(b, page, &end);
    unsigned n = 0;

    for (uint64_t p = first; p < end; p++) {
        n += test_bit(b->base + p, s->placement->remote);
    }
    return n;
}

/*
 * The host of the extent of @page is full: another one gets the extent.  What
 * was stored is sent again.
 */
static int hand_on(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                   int host)
{
    uint64_t end, first = extent_of(b, page, &end);

    trace_split_hand_on(b->rb->idstr, first,
                        s->setup->hosts[*extent_host(s, b, page)].uri,
                        s->setup->hosts[host].uri);
    for (uint64_t p = first; p < end; p++) {
        if (p != page && test_bit(b->base + p, s->placement->remote)) {
            int ret = forget_remote(s, b, p);

            if (ret < 0) {
                return ret;
            }
            placement_zero(s->placement, b->base + p);
            ram_save_later(b->rb, p);
            s->hosts[host].rest++;
        }
    }
    assign(s, b, page, host);
    return 0;
}

/*
 * Make sure that the extent of @page, which has not been stored so far, has a
 * memory host with room for it.  0: there is none; 1: done; negative: the
 * migration fails.
 */
static int find_room(SplitSource *s, SplitSourceBlock *b, uint64_t page)
{
    uint8_t extent = *extent_host(s, b, page);
    int host, ret;

    if (extent != SPLIT_HOST_NONE && room_at(&s->hosts[extent], 0)) {
        return 1;
    }
    /* The page itself is in the placement's map already */
    host = choose_host(s, extent == SPLIT_HOST_NONE ? 1 :
                          stored_in_extent(s, b, page));
    if (host < 0) {
        return 0;
    }
    if (extent == SPLIT_HOST_NONE) {
        assign(s, b, page, host);
        return 1;
    }
    ret = hand_on(s, b, page, host);
    return ret < 0 ? ret : 1;
}

static int send_remote(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                       bool was_remote)
{
    SplitEntry e = {
        .block = b - s->blocks, .page = page,
        .data = b->rb->host + page * SPLIT_PAGE_SIZE,
    };
    int ret = was_remote ? 1 : find_room(s, b, page), host;

    if (ret < 0) {
        return ret;
    }
    if (!ret) {
        Error *err = NULL;

        if (placement_force_main(s->placement, b->base + page)) {
            return 0;
        }
        error_setg(&err, "split memory: main-memory and all memory hosts are "
                   "full: give more capacity");
        split_source_fail(err);
        return -ENOSPC;
    }
    host = *extent_host(s, b, page);
    s->hosts[host].stored += !was_remote;
    e.version = ++s->version;
    stat64_add(&mig_stats.normal_pages, 1);
    account(s, SPLIT_PAGE_SIZE + sizeof(PageLinkEntry));
    return push(s, host, &e);
}

static int send_zero(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                     bool was_remote)
{
    placement_zero(s->placement, b->base + page);
    stat64_add(&mig_stats.zero_pages, 1);
    s->zero_pages++;
    return was_remote ? forget_remote(s, b, page) : 1;
}

static int send_page(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                     bool was_remote)
{
    int ret;

    if (!placement_route(s->placement, b->base + page)) {
        return send_remote(s, b, page, was_remote);
    }
    if (was_remote) {
        ret = forget_remote(s, b, page);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * Not now.  It stays clean until the turn is over: RAM looks for the next dirty
 * page from this one on, and would find it again and again.
 */
static void put_off(SplitSource *s, SplitSourceBlock *b, uint64_t page)
{
    uint64_t number = b->base + page;

    g_array_append_val(s->later, number);
}

/* The turn is over.  False: nothing was put off in it */
static bool put_off_again(SplitSource *s)
{
    unsigned n = s->later->len;

    for (unsigned i = 0; i < n; i++) {
        uint64_t page = g_array_index(s->later, uint64_t, i);

        for (unsigned k = 0; k < s->n_blocks; k++) {
            const SplitSourceBlock *b = &s->blocks[k];

            if (page >= b->base && page - b->base < b->pages) {
                ram_save_again(b->rb, page - b->base);
                break;
            }
        }
    }
    g_array_set_size(s->later, 0);
    return n;
}

bool split_turn(void)
{
    SplitSource *s = split_source_now();
    bool idle;
    int ms;

    if (!s) {
        return true;
    }
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        SplitSender *sender = s->hosts[i].sender;

        if (split_sender_wait(sender, 0) == SPLIT_SENDER_FAILED) {
            split_source_fail(split_sender_error(sender));
            return false;
        }
    }
    /* There was nothing else to send, or hardly anything */
    idle = strategy_route_blocked() || !ram_bytes_remaining();
    if (put_off_again(s) && idle) {
        /* Others may have room before this one has */
        ms = s->setup->n_hosts > 1 ? SPLIT_WAIT_MS / 10 : SPLIT_WAIT_MS;
        split_sender_drain(s->blocking, SPLIT_SENDER_QUEUE / 2, ms);
        s->put_off = 0;
        qatomic_set(&strategy_routes_blocked, false);
    }
    return true;
}

/*
 * Whatever becomes of @page, can it be done now?  The locks of RAM are held,
 * for which the main loop may be waiting: this is no place to wait.
 */
static bool can_take(SplitSource *s, SplitSourceBlock *b, uint64_t page)
{
    uint8_t extent = *extent_host(s, b, page);
    int host = extent == SPLIT_HOST_NONE ? choose_host(s, 1) : extent;
    MigrationState *ms = migrate_get_current();
    unsigned entries = 1;

    if (extent != SPLIT_HOST_NONE && !room_at(&s->hosts[extent], 0)) {
        /* It may hand the extent on */
        entries = SPLIT_EXTENT_PAGES;
    }
    if (host < 0 || ms->state != MIGRATION_STATUS_ACTIVE ||
        split_sender_has_room(s->hosts[host].sender, entries)) {
        s->put_off = 0;
        return true;
    }
    s->blocking = s->hosts[host].sender;
    if (++s->put_off == PUT_OFF_MOST) {
        qatomic_set(&strategy_routes_blocked, true);
    }
    return false;
}

int split_route(RAMBlock *rb, ram_addr_t offset)
{
    SplitSource *s = split_source_now();
    SplitSourceBlock *b = find_block(s, rb);
    uint64_t page = offset / SPLIT_PAGE_SIZE;
    bool was_main, was_remote;
    int ret;

    if (!b) {
        split_estimate_routed(s, NULL, page);
        return 0;
    }
    if (!can_take(s, b, page)) {
        put_off(s, b, page);
        return 1;
    }
    split_estimate_routed(s, b, page);
    was_main = test_bit(b->base + page, s->placement->main);
    was_remote = test_bit(b->base + page, s->placement->remote);
    if (s->detect_zero && buffer_is_zero(rb->host + offset, SPLIT_PAGE_SIZE)) {
        ret = send_zero(s, b, page, was_remote);
    } else {
        ret = send_page(s, b, page, was_remote);
    }
    if (test_bit(b->base + page, s->placement->main) != was_main ||
        test_bit(b->base + page, s->placement->remote) != was_remote) {
        changed(b, page);
    }
    if (s->placement->n_left > s->left_most) {
        s->map_due = true;
    }
    return ret;
}

static void send_again(void *opaque, uint64_t page)
{
    SplitSource *s = opaque;

    for (unsigned i = 0; i < s->n_blocks; i++) {
        SplitSourceBlock *b = &s->blocks[i];

        if (page >= b->base && page - b->base < b->pages) {
            ram_save_again(b->rb, page - b->base);
            s->again++;
            break;
        }
    }
}

void split_pass_end(void)
{
    SplitSource *s = split_source_now();
    Placement *p;
    uint64_t again;

    if (!s) {
        return;
    }
    p = s->placement;
    again = s->again;
    for (unsigned i = 0; i < s->n_blocks; i++) {
        SplitSourceBlock *b = &s->blocks[i];

        bitmap_copy(s->dirty + BIT_WORD(b->base), b->rb->bmap, b->pages);
    }
    placement_pass_end(p, s->dirty, send_again, s);
    split_estimate_pass_end(s);
    s->map_due = true;
    trace_split_pass_end(p->passes, p->n_main, p->n_remote, p->moved_in,
                         p->moved_out, s->again - again);
}
