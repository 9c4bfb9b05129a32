/*
 * Remote pager: what is where at the start
 *
 * In the migration's downtime, so nothing here is done page by page that can
 * be done for a run of pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "migration/pagelink.h"
#include "../split/layout.h"
#include "engine-int.h"

/* Entries of /proc/self/pagemap */
#define PM_PAGES        4096            /* read at once */
#define PM_THERE        (3ULL << 62)    /* present, or swapped out */
/* Pages that are discarded without being looked up; less than PM_PAGES */
#define LONG_RUN        512

static void place_local(PagerEngine *e, const PagerPlace *p)
{
    uint64_t from = find_first_bit(p->r.local, p->r.pages), to;

    pager_policy_reserve(e->policy, bitmap_count_one(p->r.local,
                                                     p->r.pages));
    while (from < p->r.pages) {
        to = find_next_zero_bit(p->r.local, p->r.pages, from);
        memset(e->state + p->base + from, PG_DIRTY, to - from);
        e->local += to - from;
        pager_policy_place(e->policy, p->base + from, to - from);
        from = find_next_bit(p->r.local, p->r.pages, to);
    }
}

/* Those of one extent, [@first, @end) */
static void place_remote(PagerEngine *e, const PagerPlace *p, uint8_t host,
                         uint64_t first, uint64_t end)
{
    uint64_t from = find_next_bit(p->r.remote, end, first), to;

    while (from < end) {
        to = find_next_zero_bit(p->r.remote, end, from);
        memset(e->state + p->base + from, PG_REMOTE | PG_STORED, to - from);
        e->info.remote += to - from;
        e->hosts[host].info.stored += to - from;
        from = find_next_bit(p->r.remote, end, to);
    }
}

void pager_place_pages(PagerEngine *e, const PagerPlace *p)
{
    uint64_t first;

    for (first = 0; first < p->r.pages; first += SPLIT_EXTENT_PAGES) {
        uint64_t end = MIN(first + SPLIT_EXTENT_PAGES, p->r.pages);
        uint8_t host = p->r.extent_host[first / SPLIT_EXTENT_PAGES];

        memset(e->host + p->base + first, host, end - first);
        if (host != PAGER_NO_HOST) {
            place_remote(e, p, host, first, end);
        }
    }
    place_local(e, p);
}

static bool discard(const PagerPlace *p, uint64_t from, uint64_t to,
                    Error **errp)
{
    if (!madvise((uint8_t *)p->r.host + from * PAGELINK_PAGE_SIZE,
                 (to - from) * PAGELINK_PAGE_SIZE, MADV_DONTNEED)) {
        return true;
    }
    error_setg_errno(errp, errno, "cannot discard memory of '%s'", p->r.name);
    return false;
}

/* Of pages [@first, @end), @map's, of which none is local: those not absent */
static bool discard_there(const PagerPlace *p, const uint64_t *map,
                          uint64_t first, uint64_t end, Error **errp)
{
    uint64_t from = first, to;

    while (true) {
        while (from < end && !(map[from - first] & PM_THERE)) {
            from++;
        }
        if (from == end) {
            return true;
        }
        to = from + 1;
        while (to < end && map[to - first] & PM_THERE) {
            to++;
        }
        if (!discard(p, from, to, errp)) {
            return false;
        }
        from = to;
    }
}

static bool read_pagemap(int fd, const PagerPlace *p, uint64_t first,
                         uint64_t n, uint64_t *map)
{
    uint64_t page = (uintptr_t)p->r.host / PAGELINK_PAGE_SIZE + first;

    return pread(fd, map, n * sizeof(*map), page * sizeof(*map)) ==
           n * sizeof(*map);
}

/*
 * The next run of pages from @from on that are not local: [@from, @to).  False
 * if there is none.
 */
static bool next_run(const PagerPlace *p, uint64_t *from, uint64_t *to)
{
    *from = find_next_zero_bit(p->r.local, p->r.pages, *from);
    *to = find_next_bit(p->r.local, p->r.pages, *from);
    return *from < p->r.pages;
}

/*
 * A long run is discarded as it is: the kernel passes over what is not there.
 * Short ones are looked up first, many at once: a system call for each costs
 * more than that, and most of them have nothing to discard.
 */
bool pager_discard_rest(const PagerPlace *p, Error **errp)
{
    g_autofree uint64_t *map = g_new(uint64_t, PM_PAGES);
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t from, to, first = 0, end = 0;
    bool ok = true;

    for (from = 0; ok && next_run(p, &from, &to); from = to) {
        if (to - from >= LONG_RUN) {
            ok = discard(p, from, to, errp);
            continue;
        }
        if (to > end) {
            first = from;
            end = MIN(first + PM_PAGES, p->r.pages);
            if (fd < 0 || !read_pagemap(fd, p, first, end - first, map)) {
                /* As if all were there */
                memset(map, 0xff, PM_PAGES * sizeof(*map));
            }
        }
        ok = discard_there(p, map + (from - first), from, to, errp);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}
