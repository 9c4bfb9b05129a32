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
#include "migration/migration-stats.h"
#include "migration/ram.h"
#include "source.h"
#include "split.h"
#include "../trace.h"

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

/* Push to a memory host, however long it takes */
static int push(SplitSource *s, unsigned host, const SplitEntry *e)
{
    SplitSender *sender = s->hosts[host].sender;

    while (split_source_alive()) {
        switch (split_sender_push(sender, e, SPLIT_WAIT_MS)) {
        case SPLIT_SENDER_DONE:
            return 1;
        case SPLIT_SENDER_ERROR:
            split_source_fail(split_sender_error(sender));
            return -EIO;
        case SPLIT_SENDER_LATER:
            break;
        }
    }
    return -ECANCELED;
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

/* The memory host with the most room, or -1 if all are full */
static int choose_host(const SplitSource *s)
{
    uint64_t most = 0, least = 0;
    int best = -1;

    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        const SplitSourceHost *h = &s->hosts[i];
        /* As long as there is room for whole extents, those count */
        uint64_t room = h->capacity - MIN(h->capacity, h->assigned);
        uint64_t left = h->capacity - MIN(h->capacity, h->stored);

        if (left && (best < 0 || room > most ||
                     (room == most && left > least))) {
            best = i;
            most = room;
            least = left;
        }
    }
    return best;
}

static void changed(SplitSourceBlock *b, uint64_t page)
{
    set_bit(page / SPLIT_CHUNK_PAGES, b->changed);
}

/* Make sure that @page has a memory host with room; -1 if there is none */
static int host_with_room(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                          bool was_remote)
{
    uint8_t *extent = extent_host(s, b, page);

    if (*extent == SPLIT_HOST_NONE) {
        int host = choose_host(s);

        if (host < 0) {
            return -1;
        }
        *extent = host;
        s->hosts[host].assigned += SPLIT_EXTENT_PAGES;
        changed(b, page);
    }
    if (!was_remote) {
        SplitSourceHost *h = &s->hosts[*extent];

        if (h->stored >= h->capacity) {
            return -1;
        }
        h->stored++;
    }
    return *extent;
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

static int send_remote(SplitSource *s, SplitSourceBlock *b, uint64_t page,
                       bool was_remote)
{
    SplitEntry e = {
        .block = b - s->blocks, .page = page,
        .data = b->rb->host + page * SPLIT_PAGE_SIZE,
    };
    int host = host_with_room(s, b, page, was_remote);

    if (host < 0) {
        Error *err = NULL;

        if (placement_force_main(s->placement, b->base + page)) {
            return 0;
        }
        error_setg(&err, "split memory: main-memory and all memory hosts are "
                   "full: give more capacity");
        split_source_fail(err);
        return -ENOSPC;
    }
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

int split_route(RAMBlock *rb, ram_addr_t offset)
{
    SplitSource *s = split_source_now();
    SplitSourceBlock *b = find_block(s, rb);
    uint64_t page = offset / SPLIT_PAGE_SIZE;
    bool was_main, was_remote;
    int ret;

    if (!b) {
        return 0;
    }
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
    s->map_due = true;
    trace_split_pass_end(p->passes, p->n_main, p->n_remote, p->moved_in,
                         p->moved_out, s->again - again);
}
