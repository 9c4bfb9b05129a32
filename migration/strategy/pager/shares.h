/*
 * Remote pager: what its limit is shared by
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Beside pages in use, a part of the limit is for those on their way out,
 * which memory hosts have already, or are about to have, and a part is kept
 * free for faults.  Memory hosts need room for as many pages more than what
 * exceeds the limit.
 */
#ifndef MIGRATION_STRATEGY_PAGER_SHARES_H
#define MIGRATION_STRATEGY_PAGER_SHARES_H

#include "qemu/units.h"

/* Of the staging area: at most, and its share of the limit */
#define PAGER_STAGING_MAX       (64 * MiB / 4096)
#define PAGER_STAGING_SHARE     16
#define PAGER_STAGING_MIN       16
/* Pages for faults to go on with while the evictor works */
#define PAGER_HEADROOM_SHARE    64
#define PAGER_HEADROOM_MIN      8
#define PAGER_HEADROOM_MAX      1024
/* A smaller limit is taken for this one */
#define PAGER_LIMIT_MIN         (4 * PAGER_STAGING_MIN)
/* Pages written at once to a memory host, beside those that it has */
#define PAGER_SHARES_HOST       64

typedef struct PagerShares {
    uint64_t staging;           /* pages, as the rest */
    uint64_t headroom;
} PagerShares;

static inline PagerShares pager_shares(uint64_t limit)
{
    limit = MAX(limit, PAGER_LIMIT_MIN);
    return (PagerShares) {
        .staging = MIN(MAX(limit / PAGER_STAGING_SHARE, PAGER_STAGING_MIN),
                       PAGER_STAGING_MAX),
        .headroom = MIN(MAX(limit / PAGER_HEADROOM_SHARE, PAGER_HEADROOM_MIN),
                        PAGER_HEADROOM_MAX),
    };
}

#endif
