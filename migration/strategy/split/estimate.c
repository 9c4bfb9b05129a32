/*
 * Split memory: for how long the guest would be stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU judges what is left by the throughput of the migration as a whole.
 * Here the rest goes out on several links at once, and the guest waits for the
 * last of them: the time is the longest one, of what is left for a link by the
 * rate of that link.
 *
 * The rate of a memory host's link is measured by its acknowledgements, see
 * sender.c.  The main link has none; its rate is that of the windows in which
 * most went out, as for the forecast.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/host-utils.h"
#include "qemu/timer.h"
#include "exec/ramblock.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "source.h"
#include "split.h"
#include "../trace.h"

/* A pass in which little was sent tells little of the link */
#define KEPT_RATE           (7 / 8.0)

void split_estimate_window(double seconds)
{
    SplitSource *s = split_source_now();
    uint64_t bytes;

    if (!s) {
        return;
    }
    bytes = qemu_file_transferred(migrate_get_current()->to_dst_file);
    meter_add(&s->main_meter, bytes - s->main_bytes, seconds);
    s->main_bytes = bytes;
}

/* Dirty pages of an extent, by where they are going to be sent */
static void count_extent(SplitSource *s, const SplitSourceBlock *b,
                         uint8_t host, uint64_t extent)
{
    uint64_t first = BIT_WORD(extent * SPLIT_EXTENT_PAGES);
    uint64_t end = MIN(BIT_WORD((extent + 1) * SPLIT_EXTENT_PAGES),
                       BITS_TO_LONGS(b->pages));
    uint64_t base = BIT_WORD(b->base), remote = 0, all = 0;

    for (uint64_t i = first; i < end; i++) {
        unsigned long dirty = b->rb->bmap[i];

        if (dirty) {
            all += ctpopl(dirty);
            /* What was nowhere may go either way */
            remote += ctpopl(dirty & ~s->placement->main[base + i]);
        }
    }
    if (host == SPLIT_HOST_NONE) {
        remote = 0;
    } else {
        s->hosts[host].rest += remote;
    }
    /* Hints of free pages may come in between */
    s->main_rest -= MIN(remote, s->main_rest);
}

void split_estimate_routed(SplitSource *s, const SplitSourceBlock *b,
                           uint64_t page)
{
    uint64_t *rest = &s->main_rest;

    if (b && !test_bit(b->base + page, s->placement->main)) {
        const SplitBlockLayout *l = &s->layout->blocks[b - s->blocks];
        uint8_t host = l->host[page / SPLIT_EXTENT_PAGES];

        rest = host == SPLIT_HOST_NONE ? rest : &s->hosts[host].rest;
    }
    /* Extents may have been given to a host since the pass began */
    *rest -= *rest > 0;
}

void split_estimate_pass_end(SplitSource *s)
{
    double rate = meter_rate(&s->main_meter);

    if (rate) {
        /* In one window there may be passes in which hardly anything is sent */
        double kept = s->main_meter.count > 1 ? KEPT_RATE : 1;

        s->main_rate = MAX(rate, s->main_rate * kept);
        meter_reset(&s->main_meter);
    }
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        s->hosts[i].rest = 0;
    }
    /* That of devices, too */
    s->main_rest = ram_bytes_remaining() / SPLIT_PAGE_SIZE;
    for (unsigned i = 0; i < s->n_blocks; i++) {
        const SplitSourceBlock *b = &s->blocks[i];

        for (uint64_t e = 0; e < split_extents(b->pages); e++) {
            count_extent(s, b, s->layout->blocks[i].host[e], e);
        }
    }
}

/* When a link has not been measured: what QEMU would take for all of them */
static double overall_rate(const MigrationState *ms)
{
    int64_t elapsed = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - ms->start_time;

    return ms->mbps ? ms->mbps * 125000 :
                      migration_transferred_bytes() * 1e3 / MAX(elapsed, 1);
}

static double link_ms(const char *link, double bytes, double rate)
{
    double ms = bytes ? bytes * 1000 / MAX(rate, 1) : 0;

    trace_split_estimate(link, bytes, rate, ms);
    return ms;
}

double split_estimate_ms(SplitSource *s)
{
    MigrationState *ms = migrate_get_current();
    double given = migrate_avail_switchover_bandwidth();
    /* No link has more than all have: some pages went without being routed */
    uint64_t all = ram_bytes_remaining() / SPLIT_PAGE_SIZE;
    double other = overall_rate(ms), longest;

    longest = link_ms("main", MIN(s->main_rest, all) * SPLIT_PAGE_SIZE +
                      split_map_pending(s),
                      given ?: s->main_rate ?: other);
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        const SplitSourceHost *h = &s->hosts[i];
        SplitSenderStats stats;
        double bytes;

        split_sender_stats(h->sender, &stats);
        bytes = (MIN(h->rest, all) + stats.queued) * SPLIT_PAGE_SIZE +
                stats.bytes - stats.acked;
        longest = MAX(longest, link_ms(s->setup->hosts[i].uri, bytes,
                                       given ?: stats.rate ?: other));
    }
    return longest;
}

bool split_fits(void)
{
    SplitSource *s = split_source_now();

    /* In the first pass nobody knows what is going to be dirty */
    return s && s->placement->passes &&
           split_estimate_ms(s) <= migrate_downtime_limit();
}
