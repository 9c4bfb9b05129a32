/*
 * Remote pager: which page leaves next (see policy.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "policy.h"

/* Share of the small queue: what S3-FIFO's authors found good for most loads */
#define SMALL_SHARE     10

#define QUEUE_LEAST     1024        /* entries */

#define QUEUED          0x01
#define GHOST           0x02        /* left not long ago */

typedef struct Queue {
    uint32_t *pages;
    uint64_t size;                  /* a power of 2 */
    uint64_t head, tail;            /* taken at head, added at tail */
} Queue;

struct PagerPolicy {
    uint64_t pages;
    uint8_t *state;                 /* per page */
    Queue small, main, ghost;
};

static uint64_t queue_len(const Queue *q)
{
    return q->tail - q->head;
}

static uint32_t queue_pop(Queue *q)
{
    return q->pages[q->head++ & (q->size - 1)];
}

/* @size: a power of 2 */
static void queue_grow(Queue *q, uint64_t size)
{
    uint64_t n = queue_len(q), i;
    uint32_t *pages = g_new(uint32_t, size);

    for (i = 0; i < n; i++) {
        pages[i] = queue_pop(q);
    }
    g_free(q->pages);
    *q = (Queue) { .pages = pages, .size = size, .tail = n };
}

static void queue_push(Queue *q, uint32_t page)
{
    if (queue_len(q) == q->size) {
        queue_grow(q, q->size ? q->size * 2 : QUEUE_LEAST);
    }
    q->pages[q->tail++ & (q->size - 1)] = page;
}

PagerPolicy *pager_policy_new(uint64_t pages)
{
    PagerPolicy *p = g_new0(PagerPolicy, 1);

    assert(pages <= 1ULL << 32);
    p->pages = pages;
    p->state = g_malloc0(pages);
    return p;
}

void pager_policy_free(PagerPolicy *p)
{
    if (p) {
        g_free(p->small.pages);
        g_free(p->main.pages);
        g_free(p->ghost.pages);
        g_free(p->state);
        g_free(p);
    }
}

void pager_policy_add(PagerPolicy *p, uint64_t page, PagerPolicyWhy why)
{
    bool again = why == PAGER_POLICY_MISS && p->state[page] & GHOST;

    if (p->state[page] & QUEUED) {
        return;
    }
    /* Its entry in the ghost queue, if any, is void from now on */
    p->state[page] = QUEUED;
    queue_push(again || why == PAGER_POLICY_SOFT ? &p->main : &p->small, page);
}

void pager_policy_reserve(PagerPolicy *p, uint64_t n)
{
    uint64_t size = pow2ceil(queue_len(&p->main) + MAX(n, QUEUE_LEAST));

    if (size > p->main.size) {
        queue_grow(&p->main, size);
    }
}

void pager_policy_place(PagerPolicy *p, uint64_t page, uint64_t n)
{
    memset(p->state + page, QUEUED, n);
    while (n--) {
        queue_push(&p->main, page++);
    }
}

bool pager_policy_victim(PagerPolicy *p, uint64_t *page)
{
    uint64_t small = queue_len(&p->small), main = queue_len(&p->main);
    bool from_small = small * 100 >= (small + main) * SMALL_SHARE;

    if (!small && !main) {
        return false;
    }
    *page = queue_pop((from_small && small) || !main ? &p->small : &p->main);
    p->state[*page] &= ~QUEUED;
    return true;
}

void pager_policy_evicted(PagerPolicy *p, uint64_t page)
{
    uint64_t resident = queue_len(&p->small) + queue_len(&p->main);

    if (p->state[page] & (QUEUED | GHOST)) {
        return;
    }
    /* As many as the main queue can have */
    while (queue_len(&p->ghost) > resident) {
        p->state[queue_pop(&p->ghost)] &= ~GHOST;
    }
    p->state[page] |= GHOST;
    queue_push(&p->ghost, page);
}
