/*
 * Remote pager: which page leaves next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the pager sees of the guest's accesses are faults, and nothing of
 * pages that are resident: Linux has no accessed bit for user space.  So LRU
 * is out of reach.  What is left is FIFO with a test: a victim is not
 * discarded but staged, from where the guest gets it back without the
 * network (Babaoglu and Joy, "Converting a swap-based system to do paging in
 * an architecture lacking page-referenced bits", SOSP 1981).  Such a soft
 * fault tells what an accessed bit would.  The order of the queues is that of
 * S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
 * SOSP 2023): new pages enter a small queue, pages that proved useful the main
 * one, and pages that left not long ago are remembered, so that they enter
 * the main queue when they come back.
 *
 * Rejected: LRU and CLOCK over accessed bits from /proc/PID/pagemap or idle
 * page tracking (bits of physical pages, root only); unmapping samples of hot
 * pages just to see faults (costs guest time when there is no pressure).
 *
 * A page is its number among all pages.  Three bytes of state would do; one
 * is used per page, and four in a queue for each page that is resident.  No
 * locks in here.
 */
#ifndef MIGRATION_STRATEGY_PAGER_POLICY_H
#define MIGRATION_STRATEGY_PAGER_POLICY_H

typedef struct PagerPolicy PagerPolicy;

typedef enum PagerPolicyWhy {
    PAGER_POLICY_MISS,          /* the guest asked, and it came from afar */
    PAGER_POLICY_SOFT,          /* the guest asked, and it was staged */
    PAGER_POLICY_GUESS,         /* nobody asked: prefetched */
} PagerPolicyWhy;

/* pager_policy_new: for page numbers below @pages, at most 2^32 */
PagerPolicy *pager_policy_new(uint64_t pages);
void pager_policy_free(PagerPolicy *p);

/* pager_policy_add: @page became resident; does nothing if it is queued */
void pager_policy_add(PagerPolicy *p, uint64_t page, PagerPolicyWhy why);

/* pager_policy_reserve: @n pages are going to be placed */
void pager_policy_reserve(PagerPolicy *p, uint64_t n);

/*
 * pager_policy_place: @n pages from @page on are resident from the start;
 * none of them was added before
 */
void pager_policy_place(PagerPolicy *p, uint64_t page, uint64_t n);

/*
 * pager_policy_victim: the page to stage next
 *
 * It is not queued any more.  The caller finds out whether it is still
 * resident, and adds it again if it cannot leave.
 */
bool pager_policy_victim(PagerPolicy *p, uint64_t *page);

/* pager_policy_evicted: @page was staged and nobody wanted it */
void pager_policy_evicted(PagerPolicy *p, uint64_t page);

#endif
