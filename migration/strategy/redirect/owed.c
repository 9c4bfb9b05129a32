/*
 * Redirect: the pages that the source leaves to the relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "owed.h"

/* Pages, 1 MiB */
#define MIN_CHUNK 256

struct RedirectOwed {
    QemuMutex lock;             /* of all that follows */
    uint64_t left;
    unsigned blocks;
    struct OwedBlock {
        uint64_t pages;
        unsigned long *map;
        uint64_t top;           /* no page from here on is owed */
    } block[];
};

RedirectOwed *redirect_owed_new(const RedirectBlocks *blocks)
{
    RedirectOwed *o = g_malloc0(sizeof(*o) +
                                blocks->n * sizeof(o->block[0]));

    qemu_mutex_init(&o->lock);
    o->blocks = blocks->n;
    for (unsigned i = 0; i < o->blocks; i++) {
        o->block[i].pages = blocks->block[i].pages;
        o->block[i].map = bitmap_new(o->block[i].pages);
    }
    return o;
}

void redirect_owed_free(RedirectOwed *o)
{
    if (!o) {
        return;
    }
    for (unsigned i = 0; i < o->blocks; i++) {
        g_free(o->block[i].map);
    }
    qemu_mutex_destroy(&o->lock);
    g_free(o);
}

void redirect_owed_set_clean(RedirectOwed *o, unsigned block,
                             const unsigned long *dirty)
{
    struct OwedBlock *b = &o->block[block];

    QEMU_LOCK_GUARD(&o->lock);
    o->left -= bitmap_count_one(b->map, b->pages);
    bitmap_complement(b->map, dirty, b->pages);
    o->left += bitmap_count_one(b->map, b->pages);
    b->top = b->pages;
}

bool redirect_owed_encode(RedirectOwed *o, GByteArray *out, unsigned *block,
                          uint64_t *first)
{
    QEMU_LOCK_GUARD(&o->lock);
    for (; *block < o->blocks; (*block)++, *first = 0) {
        struct OwedBlock *b = &o->block[*block];
        uint64_t page = find_next_bit(b->map, b->pages, *first);

        if (page < b->pages) {
            page = QEMU_ALIGN_DOWN(page, REDIRECT_BITMAP_ALIGN);
            *first = MIN(page + REDIRECT_MAX_BITMAP_PAGES, b->pages);
            redirect_bitmap_encode(out, *block, page, *first - page, b->map);
            return true;
        }
    }
    return false;
}

uint64_t redirect_owed_have(RedirectOwed *o, const RedirectBitmap *have)
{
    struct OwedBlock *b = &o->block[have->block];
    uint64_t n = 0;

    QEMU_LOCK_GUARD(&o->lock);
    for (uint32_t i = 0; i < DIV_ROUND_UP(have->n, 8); i++) {
        uint64_t bit = have->first + i * 8;
        unsigned long *word = &b->map[BIT_WORD(bit)];
        unsigned long gone = (unsigned long)have->bits[i] <<
                             (bit % BITS_PER_LONG) & *word;

        n += ctpopl(gone);
        *word &= ~gone;
    }
    o->left -= n;
    return n;
}

uint64_t redirect_owed_drop_dirty(RedirectOwed *o, unsigned block,
                                  const unsigned long *dirty)
{
    struct OwedBlock *b = &o->block[block];
    uint64_t n = 0;

    QEMU_LOCK_GUARD(&o->lock);
    for (uint64_t i = 0; i < BITS_TO_LONGS(b->pages); i++) {
        n += ctpopl(b->map[i] & dirty[i]);
        b->map[i] &= ~dirty[i];
    }
    o->left -= n;
    return n;
}

uint64_t redirect_owed_take(RedirectOwed *o, uint64_t max, RedirectTake *take,
                            void *opaque)
{
    uint64_t n = 0;

    QEMU_LOCK_GUARD(&o->lock);
    for (int i = o->blocks - 1; i >= 0 && n < max && o->left; i--) {
        struct OwedBlock *b = &o->block[i];

        while (b->top && n < max) {
            uint64_t page = find_last_bit(b->map, b->top);

            if (page >= b->top) {
                b->top = 0;
                break;
            }
            clear_bit(page, b->map);
            b->top = page;
            o->left--;
            n++;
            take(i, page, opaque);
        }
    }
    return n;
}

uint64_t redirect_owed_left(RedirectOwed *o)
{
    QEMU_LOCK_GUARD(&o->lock);
    return o->left;
}

const char *redirect_health_name(RedirectRelayHealth health)
{
    static const char *const names[] = {
        [REDIRECT_HEALTH_WAITING] = "waiting",
        [REDIRECT_HEALTH_GOOD] = "good",
        [REDIRECT_HEALTH_SLOW] = "slow",
        [REDIRECT_HEALTH_STALLED] = "stalled",
        [REDIRECT_HEALTH_GONE] = "gone",
    };

    return names[health];
}

void redirect_policy_init(RedirectPolicy *p, uint64_t ram_pages,
                          int64_t rtt_ms, int64_t now_ms)
{
    *p = (RedirectPolicy) {
        .own_rate = p->own_rate,
        .ram_pages = ram_pages,
        .rtt_ms = MIN(rtt_ms, REDIRECT_MAX_RTT_MS),
        .last_progress_ms = now_ms,
        .window_start_ms = now_ms,
    };
}

void redirect_policy_relay(RedirectPolicy *p, uint16_t state, int64_t now_ms)
{
    if (state == REDIRECT_RELAY_CONNECTED) {
        if (!p->connected || p->gone) {
            p->last_progress_ms = p->window_start_ms = now_ms;
            p->window_pages = p->window_zero = 0;
        }
        p->connected = true;
        p->gone = false;
    } else {
        p->gone = true;
    }
}

/*
 * Zero pages are not what the link limits: those of a window do not count.
 * Where there are more of them than of others, they tell nothing about it
 * either, unless not even together were they many.
 */
static void window_rate(RedirectPolicy *p, int64_t ms)
{
    uint64_t zero = MIN(p->window_zero, p->window_pages);
    double all = p->window_pages * 1000.0 / ms;
    double rate = all;

    if (zero * 2 <= p->window_pages) {
        rate = (p->window_pages - zero) * 1000.0 / ms;
    } else if (all >= p->own_rate / 2) {
        return;
    }
    /* One bad window, on a busy host, does not make a relay slow */
    p->rate = p->rate ? (p->rate + rate) / 2 : rate;
}

void redirect_policy_progress(RedirectPolicy *p, uint64_t pages,
                              int64_t now_ms)
{
    int64_t ms = now_ms - p->window_start_ms;

    if (pages) {
        p->last_progress_ms = now_ms;
        p->window_pages += pages;
    }
    if (p->connected && ms >= REDIRECT_WINDOW_MS) {
        window_rate(p, ms);
        p->window_start_ms = now_ms;
        p->window_pages = p->window_zero = 0;
    }
}

void redirect_policy_zero(RedirectPolicy *p, uint64_t zero)
{
    p->window_zero += zero - p->zero;
    p->zero = zero;
}

void redirect_policy_own(RedirectPolicy *p, double rate)
{
    /* Smoothed over some windows, each of which may have zero pages only */
    p->own_rate = p->own_windows++ ? (p->own_rate * 3 + rate) / 4 : rate;
}

static uint64_t help_of(const RedirectPolicy *p)
{
    return p->ram_pages / REDIRECT_HELP_FRACTION;
}

RedirectRelayHealth redirect_policy_health(const RedirectPolicy *p,
                                           int64_t now_ms)
{
    int64_t silent = now_ms - p->last_progress_ms;

    if (p->gone) {
        return REDIRECT_HEALTH_GONE;
    }
    if (!p->connected) {
        return silent < REDIRECT_CONNECT_MS + 8 * p->rtt_ms ?
               REDIRECT_HEALTH_WAITING : REDIRECT_HEALTH_STALLED;
    }
    if (silent >= REDIRECT_STALL_MS + 8 * p->rtt_ms) {
        return REDIRECT_HEALTH_STALLED;
    }
    if (!p->own_windows && p->taken < help_of(p)) {
        /* Its rate to this destination is yet to be seen */
        return REDIRECT_HEALTH_GOOD;
    }
    return p->rate && p->rate < p->own_rate / 2 ? REDIRECT_HEALTH_SLOW
                                                : REDIRECT_HEALTH_GOOD;
}

/* In seconds' worth, as each time costs a look at the dirty log */
static uint64_t take_from_slow(const RedirectPolicy *p, uint64_t left)
{
    uint64_t most = p->own_rate * REDIRECT_SLOW_CHUNK_MS / 1000;
    uint64_t fair = left * p->own_rate / (p->own_rate + p->rate);

    return MAX(MIN(most, fair), MIN_CHUNK);
}

uint64_t redirect_policy_take(const RedirectPolicy *p,
                              RedirectRelayHealth health, uint64_t left)
{
    /* What goes out in a twentieth of a second, between 1 and 32 MiB */
    uint64_t chunk = MIN(MAX(p->own_rate / 20, MIN_CHUNK), 8192);
    uint64_t help = help_of(p);

    switch (health) {
    case REDIRECT_HEALTH_WAITING:
    case REDIRECT_HEALTH_GOOD:
        return MIN(chunk, help - MIN(help, p->taken));
    case REDIRECT_HEALTH_SLOW:
        return take_from_slow(p, left);
    default:
        /* Nobody else will send them */
        return UINT64_MAX;
    }
}

void redirect_policy_took(RedirectPolicy *p, RedirectRelayHealth health,
                          uint64_t pages)
{
    if (health == REDIRECT_HEALTH_WAITING || health == REDIRECT_HEALTH_GOOD) {
        p->taken += pages;
    }
}
