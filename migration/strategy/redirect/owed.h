/*
 * Redirect: the pages that the source leaves to the relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RedirectOwed is a bitmap for each block.  A page is owed when the old
 * destination holds its current content and the new one does not.  It leaves
 * the bitmap when the new destination has it, when the guest dirties it (then
 * the source sends it anyway), or when the source takes it over.
 *
 * The relay works from the first page of the first block upwards; the source
 * takes over from the last page of the last block downwards.
 *
 * Threads: everything here is safe from any thread.
 *
 * RedirectPolicy decides how much the source takes over.  It is a function of
 * what it is told, the clock included; one thread uses it.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_OWED_H
#define MIGRATION_STRATEGY_REDIRECT_OWED_H

#include "wire.h"

typedef struct RedirectOwed RedirectOwed;

/* redirect_owed_new: nothing is owed; @blocks is copied */
RedirectOwed *redirect_owed_new(const RedirectBlocks *blocks);
void redirect_owed_free(RedirectOwed *o);

/*
 * redirect_owed_set_clean: all pages of the block that are not in @dirty are
 * owed from now on
 */
void redirect_owed_set_clean(RedirectOwed *o, unsigned block,
                             const unsigned long *dirty);

/*
 * redirect_owed_encode: the next part of the bitmaps, as BITMAP
 *
 * @block, @first: where to begin; set to where the next part begins.  Parts
 *                 in which nothing is owed are left out.
 *
 * Returns: false, with @out unchanged, when nothing is left
 */
bool redirect_owed_encode(RedirectOwed *o, GByteArray *out, unsigned *block,
                          uint64_t *first);

/*
 * redirect_owed_have: the new destination has these; returns how many of them
 * were owed
 */
uint64_t redirect_owed_have(RedirectOwed *o, const RedirectBitmap *have);

/*
 * redirect_owed_drop_dirty: pages in @dirty are not owed any more; returns how
 * many were
 */
uint64_t redirect_owed_drop_dirty(RedirectOwed *o, unsigned block,
                                  const unsigned long *dirty);

/*
 * redirect_owed_take: take up to @max pages from the far end
 *
 * @take: called for each page, with the lock of @o held
 *
 * Returns: how many were taken
 */
typedef void RedirectTake(unsigned block, uint64_t page, void *opaque);
uint64_t redirect_owed_take(RedirectOwed *o, uint64_t max, RedirectTake *take,
                            void *opaque);

/* redirect_owed_left: pages that are still owed */
uint64_t redirect_owed_left(RedirectOwed *o);

/* What is known of the relay */
typedef enum RedirectRelayHealth {
    REDIRECT_HEALTH_WAITING,    /* not yet connected, within its time */
    REDIRECT_HEALTH_GOOD,
    REDIRECT_HEALTH_SLOW,       /* below half of the source's rate */
    REDIRECT_HEALTH_STALLED,    /* nothing came for too long */
    REDIRECT_HEALTH_GONE,       /* lost, or done though pages are owed */
} RedirectRelayHealth;

const char *redirect_health_name(RedirectRelayHealth health);

typedef struct RedirectPolicy {
    uint64_t ram_pages;
    int64_t rtt_ms;             /* of the link to the new destination */

    int64_t last_progress_ms;   /* or the order */
    int64_t window_start_ms;
    uint64_t window_pages;
    uint64_t window_zero;       /* of them */
    uint64_t zero;              /* in all, up to this window */
    double rate;                /* of the relay, pages a second; 0: unknown */
    double own_rate;            /* of the source when busy; 0: unknown */
    unsigned own_windows;       /* since the order, that told it */
    bool connected;
    bool gone;
    uint64_t taken;             /* pages so far, while the relay was good */
} RedirectPolicy;

/* While the relay is good, the source takes over at most RAM / this */
#define REDIRECT_HELP_FRACTION      25
/* Nothing came for so long: stalled; the round trip is added eight times */
#define REDIRECT_STALL_MS           1000
/* A measured round trip that is longer says nothing about the link */
#define REDIRECT_MAX_RTT_MS         250
/* The relay has so long to connect */
#define REDIRECT_CONNECT_MS         5000
/* Windows in which the rate is measured */
#define REDIRECT_WINDOW_MS          400

/* What is taken over at once from a slow relay: this long's worth */
#define REDIRECT_SLOW_CHUNK_MS      2000

/*
 * redirect_policy_init: the order went out at @now_ms
 *
 * The source's own rate is kept until its first busy window on the new link,
 * or until it has helped as much as it may, tells another.
 */
void redirect_policy_init(RedirectPolicy *p, uint64_t ram_pages,
                          int64_t rtt_ms, int64_t now_ms);

/* redirect_policy_relay: the relay changed to @state, REDIRECT_RELAY_* */
void redirect_policy_relay(RedirectPolicy *p, uint16_t state, int64_t now_ms);

/* redirect_policy_progress: @pages more arrived from the relay; 0 will do */
void redirect_policy_progress(RedirectPolicy *p, uint64_t pages,
                              int64_t now_ms);

/* redirect_policy_zero: how many of all that ever arrived were zero pages */
void redirect_policy_zero(RedirectPolicy *p, uint64_t zero);

/*
 * redirect_policy_own: the source sent @rate pages a second in a window
 *
 * Only windows in which it always had something to send: an idle source would
 * find any relay good.
 */
void redirect_policy_own(RedirectPolicy *p, double rate);

RedirectRelayHealth redirect_policy_health(const RedirectPolicy *p,
                                           int64_t now_ms);

/*
 * redirect_policy_take: how many pages to take over now
 *
 * To be called when the source has nothing else to send.  The caller tells
 * with redirect_policy_took() how many there were.
 *
 * @health: of redirect_policy_health()
 * @left: what is still owed.  Of a slow relay's part no more is taken than
 *        lets both be done at the same time.
 */
uint64_t redirect_policy_take(const RedirectPolicy *p,
                              RedirectRelayHealth health, uint64_t left);
void redirect_policy_took(RedirectPolicy *p, RedirectRelayHealth health,
                          uint64_t pages);

#endif
