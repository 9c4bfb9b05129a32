/*
 * Redirect: which copy of a page wins at the new destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "merge.h"

#define STRIPES         256
/* Neighbours share a stripe: source and relay are seldom at the same place */
#define STRIPE_PAGES    16

typedef struct Stripe {
    QemuMutex lock;
    RedirectMergeCounts counts; /* under the lock */
} QEMU_ALIGNED(64) Stripe;

struct RedirectRegion {
    uint8_t *host;
    uint64_t pages;
    /*
     * Under the stripe of the page.  The bits of a word belong to several
     * stripes, so that they are set atomically.
     */
    unsigned long *source;
    unsigned long *relay;
};

struct RedirectMerge {
    GPtrArray *regions;
    Stripe stripes[STRIPES];
};

QEMU_BUILD_BUG_ON(BITS_PER_LONG % STRIPE_PAGES);

static void region_free(void *opaque)
{
    RedirectRegion *r = opaque;

    g_free(r->source);
    g_free(r->relay);
    g_free(r);
}

RedirectMerge *redirect_merge_new(void)
{
    RedirectMerge *m = qemu_memalign(64, sizeof(*m));

    memset(m, 0, sizeof(*m));
    m->regions = g_ptr_array_new_with_free_func(region_free);
    for (unsigned i = 0; i < STRIPES; i++) {
        qemu_mutex_init(&m->stripes[i].lock);
    }
    return m;
}

void redirect_merge_free(RedirectMerge *m)
{
    if (!m) {
        return;
    }
    for (unsigned i = 0; i < STRIPES; i++) {
        qemu_mutex_destroy(&m->stripes[i].lock);
    }
    g_ptr_array_free(m->regions, true);
    qemu_vfree(m);
}

RedirectRegion *redirect_merge_add(RedirectMerge *m, void *host,
                                   uint64_t pages)
{
    RedirectRegion *r = g_new0(RedirectRegion, 1);

    r->host = host;
    r->pages = pages;
    r->source = bitmap_new(pages);
    r->relay = bitmap_new(pages);
    g_ptr_array_add(m->regions, r);
    return r;
}

RedirectRegion *redirect_merge_region(RedirectMerge *m, unsigned number)
{
    return number < m->regions->len ? m->regions->pdata[number] : NULL;
}

uint64_t redirect_region_pages(const RedirectRegion *r)
{
    return r->pages;
}

static Stripe *stripe_of(RedirectMerge *m, uint64_t page)
{
    return &m->stripes[page / STRIPE_PAGES % STRIPES];
}

/* Is the bit set?  Other bits of the word may change meanwhile. */
static bool test_bit_shared(const unsigned long *map, uint64_t bit)
{
    return qatomic_read(&map[BIT_WORD(bit)]) & BIT_MASK(bit);
}

void redirect_merge_source(RedirectMerge *m, RedirectRegion *r, uint64_t page)
{
    Stripe *s = stripe_of(m, page);

    assert(page < r->pages);
    QEMU_LOCK_GUARD(&s->lock);
    if (test_bit_shared(r->source, page)) {
        return;
    }
    set_bit_atomic(page, r->source);
    s->counts.source++;
    s->counts.replaced += test_bit_shared(r->relay, page);
}

/* As for zero pages of the main stream: those that are zero stay untouched */
static void copy_page(uint8_t *to, const void *data)
{
    if (data) {
        memcpy(to, data, PAGELINK_PAGE_SIZE);
    } else if (!buffer_is_zero(to, PAGELINK_PAGE_SIZE)) {
        memset(to, 0, PAGELINK_PAGE_SIZE);
    }
}

bool redirect_merge_relay(RedirectMerge *m, RedirectRegion *r, uint64_t page,
                          const void *data)
{
    Stripe *s = stripe_of(m, page);

    assert(page < r->pages);
    QEMU_LOCK_GUARD(&s->lock);
    if (test_bit_shared(r->source, page) || test_bit_shared(r->relay, page)) {
        s->counts.duplicates++;
        return false;
    }
    copy_page(r->host + page * PAGELINK_PAGE_SIZE, data);
    set_bit_atomic(page, r->relay);
    s->counts.relay++;
    s->counts.zero += !data;
    return true;
}

void redirect_merge_bitmap(RedirectMerge *m, RedirectRegion *r,
                           uint64_t first, uint32_t n, uint8_t *bits)
{
    assert(first <= r->pages && n <= r->pages - first);
    memset(bits, 0, DIV_ROUND_UP(n, 8));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t page = first + i;

        if (!(page % BITS_PER_LONG) && i % 8 == 0 && n - i >= BITS_PER_LONG) {
            /* The usual case: whole words */
            uint64_t word = qatomic_read(&r->source[BIT_WORD(page)]) |
                            qatomic_read(&r->relay[BIT_WORD(page)]);

            for (unsigned b = 0; b < sizeof(long); b++) {
                bits[i / 8 + b] = word >> (b * 8);
            }
            i += BITS_PER_LONG - 1;
        } else if (test_bit_shared(r->source, page) ||
                   test_bit_shared(r->relay, page)) {
            bits[i / 8] |= 1u << (i % 8);
        }
    }
}

void redirect_merge_counts(RedirectMerge *m, RedirectMergeCounts *counts)
{
    *counts = (RedirectMergeCounts) { };
    for (unsigned i = 0; i < STRIPES; i++) {
        const RedirectMergeCounts *c = &m->stripes[i].counts;

        QEMU_LOCK_GUARD(&m->stripes[i].lock);
        counts->source += c->source;
        counts->relay += c->relay;
        counts->zero += c->zero;
        counts->duplicates += c->duplicates;
        counts->replaced += c->replaced;
    }
}
