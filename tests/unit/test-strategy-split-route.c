/*
 * Unit tests of where the pages of split memory go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RAM, a guest that writes to it, and memory hosts, all of them reduced to
 * arrays.  Property: whatever the guest writes, and however little room there
 * is, at the end each page is where the map says, with its last content;
 * nobody ever has more than fits; and it ends.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "exec/ramblock.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/strategy.h"
#include "migration/strategy/split/source.h"
#include "migration/strategy/split/split.h"

#define EXTENTS 16
#define PAGES   (EXTENTS * SPLIT_EXTENT_PAGES)
#define HOSTS   3
/* Of estimates, ms */
#define EPSILON 0.0001

/* A memory host that is told at once, if its queue has room */
struct SplitSender {
    uint32_t content[PAGES];    /* 0: it has none */
    uint64_t version[PAGES];
    bool leaf[EXTENTS];
    uint64_t stored, leaves;
    unsigned queued;
    bool silent;
    SplitSenderStats stats;
};

static SplitSource source;
static struct SplitSender host[HOSTS];
static MigrationState migration;
static RAMBlock block;
static uint32_t main_content[PAGES];
static uint64_t late;           /* pages put off, or to be sent once more */
static bool failed;
static int waited;              /* ms */
static uint64_t downtime_limit, switchover_bandwidth, main_sent;

MigrationAtomicStats mig_stats;
bool strategy_routes_blocked;

MigrationState *migrate_get_current(void)
{
    return &migration;
}

void ram_transferred_add(uint64_t bytes)
{
}

void ram_save_later(RAMBlock *rb, unsigned long page)
{
    late += !test_and_set_bit(page, rb->bmap);
}

void ram_save_again(RAMBlock *rb, unsigned long page)
{
    ram_save_later(rb, page);
}

SplitSource *split_source_now(void)
{
    return &source;
}

uint64_t split_map_pending(const SplitSource *s)
{
    return 0;
}

uint64_t ram_bytes_remaining(void)
{
    return bitmap_count_one(block.bmap, PAGES) * SPLIT_PAGE_SIZE;
}

uint64_t qemu_file_transferred(QEMUFile *f)
{
    return main_sent;
}

uint64_t migration_transferred_bytes(void)
{
    g_assert_not_reached();
}

uint64_t migrate_downtime_limit(void)
{
    return downtime_limit;
}

uint64_t migrate_avail_switchover_bandwidth(void)
{
    return switchover_bandwidth;
}

void split_source_fail(Error *err)
{
    failed = true;
    error_free(err);
}

Error *split_sender_error(SplitSender *s)
{
    g_assert_not_reached();
}

bool split_sender_has_room(SplitSender *s, unsigned n)
{
    return s->queued + n <= SPLIT_SENDER_QUEUE;
}

SplitSenderState split_sender_wait(SplitSender *s, int ms)
{
    return SPLIT_SENDER_READY;
}

/* Not all are equally fast */
static void hosts_take(unsigned pages)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        if (!host[i].silent) {
            host[i].queued -= MIN(host[i].queued, pages << i);
        }
    }
}

SplitSenderResult split_sender_drain(SplitSender *s, uint64_t pages, int ms)
{
    while (s->queued > pages && ms--) {
        waited++;
        hosts_take(200);
    }
    return s->queued > pages ? SPLIT_SENDER_LATER : SPLIT_SENDER_DONE;
}

void split_sender_stats(SplitSender *s, SplitSenderStats *stats)
{
    *stats = s->stats;
}

bool split_sender_push(SplitSender *s, const SplitEntry *e)
{
    const SplitSourceHost *h = &source.hosts[s - host];
    bool had = s->content[e->page];

    /* While the guest runs, queues are short */
    g_assert_true(split_sender_has_room(s, 1) ||
                  migration.state != MIGRATION_STATUS_ACTIVE);
    s->queued++;
    g_assert_cmpuint(e->version, >, s->version[e->page]);
    s->version[e->page] = e->version;
    if (!e->data) {
        g_assert_true(had);
        s->content[e->page] = 0;
        s->stored--;
        return true;
    }
    s->content[e->page] = *(const uint32_t *)e->data;
    s->stored += !had;
    s->leaves += !s->leaf[e->page / SPLIT_EXTENT_PAGES];
    s->leaf[e->page / SPLIT_EXTENT_PAGES] = true;
    g_assert_cmpuint(s->stored, <=, h->capacity);
    g_assert_cmpuint(s->stored + s->leaves, <=, h->frames);
    return true;
}

static uint32_t *content(uint64_t page)
{
    return (uint32_t *)(block.host + page * SPLIT_PAGE_SIZE);
}

static void setup(RamPlacement placement, uint64_t budget,
                  const uint64_t *capacity, const uint64_t *frames)
{
    source = (SplitSource) {
        .setup = split_setup_new(HOSTS, 1), .n_blocks = 1, .pages = PAGES,
        .blocks = g_new0(SplitSourceBlock, 1),
        .placement = placement_new(placement, PAGES, budget),
        .hosts = g_new0(SplitSourceHost, HOSTS),
        .dirty = bitmap_new(PAGES), .detect_zero = true,
        .left_most = SPLIT_EXTENT_PAGES,
        .later = g_array_new(false, false, sizeof(uint64_t)),
    };
    source.setup->blocks[0].pages = PAGES;
    source.layout = split_layout_new(source.setup);
    for (unsigned i = 0; i < HOSTS; i++) {
        host[i] = (struct SplitSender) { 0 };
        source.setup->hosts[i].uri = g_strdup("host");
        source.hosts[i] = (SplitSourceHost) {
            .sender = &host[i], .capacity = capacity[i], .frames = frames[i],
        };
    }
    block.host = g_malloc0(PAGES * SPLIT_PAGE_SIZE);
    block.bmap = bitmap_new(PAGES);
    source.blocks[0] = (SplitSourceBlock) {
        .rb = &block, .pages = PAGES, .changed = bitmap_new(1),
    };
    memset(main_content, 0, sizeof(main_content));
    migration.state = MIGRATION_STATUS_ACTIVE;
    failed = false;
    late = 0;
}

static void teardown(void)
{
    g_free(block.host);
    g_free(block.bmap);
    g_free(source.blocks[0].changed);
    g_free(source.blocks);
    g_free(source.hosts);
    g_free(source.dirty);
    g_array_unref(source.later);
    split_layout_free(source.layout);
    split_setup_free(source.setup);
    placement_free(source.placement);
}

static void guest_write(uint64_t page, uint32_t value)
{
    *content(page) = value;
    set_bit(page, block.bmap);
}

/* Turns of RAM until nothing is dirty, or the migration has failed */
static void send_all(void)
{
    uint64_t page = 0, in_turn = 0;

    while (!failed) {
        page = find_next_bit(block.bmap, PAGES, page);
        if (page == PAGES) {
            page = 0;
            if (find_first_bit(block.bmap, PAGES) == PAGES) {
                g_assert_true(split_turn());
                in_turn = 0;
                if (find_first_bit(block.bmap, PAGES) == PAGES) {
                    break;
                }
            }
            continue;
        }
        clear_bit(page, block.bmap);
        if (split_route(&block, page * SPLIT_PAGE_SIZE) == 0) {
            main_content[page] = *content(page);
        }
        /* RAM goes on from the same page: it would never get further */
        g_assert_false(test_bit(page, block.bmap));
        /* As much is put off as one turn may, and then RAM is left alone */
        g_assert_cmpuint(source.put_off, <=, 4 * SPLIT_EXTENT_PAGES);
        if (++in_turn % 64 == 0) {
            hosts_take(20);
        }
        if (strategy_routes_blocked) {
            g_assert_true(split_turn());
            g_assert_false(strategy_routes_blocked);
            in_turn = 0;
        }
        if (source.map_due) {
            source.map_due = false;
            placement_told(source.placement);
        }
    }
    strategy_routes_blocked = false;
}

static void check_all(void)
{
    const SplitBlockLayout *l = &source.layout->blocks[0];
    const Placement *p = source.placement;
    uint64_t stored[HOSTS] = { 0 };

    g_assert_cmpuint(p->n_main, <=, p->budget);
    for (uint64_t page = 0; page < PAGES; page++) {
        uint8_t h = l->host[page / SPLIT_EXTENT_PAGES];

        if (test_bit(page, p->main)) {
            g_assert_cmpuint(main_content[page], ==, *content(page));
        } else if (test_bit(page, p->remote)) {
            g_assert_cmpuint(h, <, HOSTS);
            g_assert_cmpuint(host[h].content[page], ==, *content(page));
            stored[h]++;
        } else {
            g_assert_cmpuint(*content(page), ==, 0);
        }
        for (unsigned i = 0; i < HOSTS; i++) {
            /* What is of no use is nowhere */
            if (i != h || !test_bit(page, p->remote)) {
                g_assert_cmpuint(host[i].content[page], ==, 0);
            }
        }
    }
    for (unsigned i = 0; i < HOSTS; i++) {
        g_assert_cmpuint(stored[i], ==, source.hosts[i].stored);
        g_assert_cmpuint(stored[i], ==, host[i].stored);
    }
}

static uint64_t hosts_used(void)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < HOSTS; i++) {
        n += host[i].stored != 0;
    }
    return n;
}

/*
 * A quarter of the extents is hot, and comes to the main host, so that those
 * who have them have less to store than others, who get full
 */
static void fill_and_write(GRand *rand, unsigned passes)
{
    uint32_t hot = g_rand_int(rand) & g_rand_int(rand);

    for (uint64_t page = 0; page < PAGES; page++) {
        guest_write(page, page % 2 ? 0 : page + 1);
    }
    send_all();
    for (unsigned pass = 0; pass < passes && !failed; pass++) {
        for (uint64_t page = 0; page < PAGES; page++) {
            if (hot & 1 << page / SPLIT_EXTENT_PAGES) {
                guest_write(page, g_rand_int(rand) | 1);
            }
        }
        for (unsigned i = 0; i < PAGES / 8; i++) {
            uint64_t page = g_rand_int_range(rand, 0, PAGES);

            guest_write(page, g_rand_boolean(rand) ? 0 : g_rand_int(rand) | 1);
        }
        split_pass_end();
        send_all();
        if (!failed) {
            check_all();
        }
    }
    /* And in the end all is there */
    for (uint64_t page = 0; page < PAGES && !failed; page++) {
        guest_write(page, page + 7);
    }
    split_pass_end();
    send_all();
}

static void test_room(RamPlacement placement)
{
    static const uint64_t plenty[HOSTS] = { PAGES, PAGES, PAGES };

    for (unsigned seed = 0; seed < 10; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

        setup(placement, PAGES / 4, plenty, plenty);
        fill_and_write(rand, 6);
        g_assert_false(failed);
        check_all();
        g_assert_cmpuint(hosts_used(), ==, HOSTS);
        teardown();
    }
}

static void test_room_address(void)
{
    test_room(RAM_PLACEMENT_ADDRESS);
}

static void test_room_hot(void)
{
    test_room(RAM_PLACEMENT_HOT);
}

/*
 * Just what check_capacity() of split.c demands: an extent for each host, and
 * a frame for each extent that has pages, the ones handed on included
 */
static void test_tight(void)
{
    static const uint64_t capacity[HOSTS] = {
        PAGES / 4 + SPLIT_EXTENT_PAGES, PAGES / 8 + SPLIT_EXTENT_PAGES,
        PAGES * 3 / 8 + SPLIT_EXTENT_PAGES,
    };
    uint64_t handed_on = 0;

    for (unsigned seed = 0; seed < 40; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        uint64_t frames[HOSTS], extents = 0;

        for (unsigned i = 0; i < HOSTS; i++) {
            frames[i] = capacity[i] + EXTENTS;
        }
        setup(seed % 2 ? RAM_PLACEMENT_HOT : RAM_PLACEMENT_ADDRESS, PAGES / 4,
              capacity, frames);
        fill_and_write(rand, 12);
        g_assert_false(failed);
        check_all();
        for (unsigned i = 0; i < HOSTS; i++) {
            extents += source.hosts[i].extents;
        }
        handed_on += extents > EXTENTS;
        teardown();
    }
    /* Or this test proves nothing of it */
    g_assert_cmpuint(handed_on, >, 0);
}

/* More than fits is said, and never stored */
static void test_full(void)
{
    static const uint64_t little[HOSTS] = {
        PAGES / 8, PAGES / 8, PAGES / 8,
    };
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    setup(RAM_PLACEMENT_HOT, PAGES / 4, little, little);
    fill_and_write(rand, 1);
    g_assert_true(failed);
    teardown();
}

/* The guest is stopped: all is pushed at once, however much it is */
static void test_stopped(void)
{
    static const uint64_t plenty[HOSTS] = { PAGES, PAGES, PAGES };
    unsigned queued = 0;

    setup(RAM_PLACEMENT_ADDRESS, 0, plenty, plenty);
    for (unsigned i = 0; i < HOSTS; i++) {
        host[i].queued = SPLIT_SENDER_QUEUE;
    }
    migration.state = MIGRATION_STATUS_DEVICE;
    for (uint64_t page = 0; page < PAGES; page++) {
        guest_write(page, page + 1);
        clear_bit(page, block.bmap);
        g_assert_cmpint(split_route(&block, page * SPLIT_PAGE_SIZE), ==, 1);
    }
    g_assert_cmpuint(late, ==, 0);
    check_all();
    for (unsigned i = 0; i < HOSTS; i++) {
        queued += host[i].queued;
    }
    g_assert_cmpuint(queued, ==, HOSTS * SPLIT_SENDER_QUEUE + PAGES);
    teardown();
}

/*
 * A memory host that hangs holds up nothing but its own pages: others get
 * theirs as soon as their queues have room again
 */
static void test_hangs(void)
{
    static const uint64_t plenty[HOSTS] = { PAGES, PAGES, PAGES };
    uint64_t dirty;

    setup(RAM_PLACEMENT_ADDRESS, 0, plenty, plenty);
    for (uint64_t page = 0; page < PAGES; page++) {
        guest_write(page, page + 1);
    }
    send_all();
    check_all();
    for (unsigned i = 0; i < HOSTS; i++) {
        host[i].queued = SPLIT_SENDER_QUEUE;
    }
    host[0].silent = true;
    waited = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        guest_write(page, page + 2);
    }
    /* Turn by turn, until only the silent one has not got its pages */
    do {
        for (uint64_t page = 0; page < PAGES; page++) {
            if (test_and_clear_bit(page, block.bmap)) {
                split_route(&block, page * SPLIT_PAGE_SIZE);
            }
        }
        g_assert_true(split_turn());
        dirty = bitmap_count_one(block.bmap, PAGES);
    } while (dirty > host[0].stored);
    g_assert_cmpuint(dirty, ==, host[0].stored);
    /* Time to make that room, at 400 pages/ms and more, is 4 ms */
    g_assert_cmpint(waited, <, SPLIT_WAIT_MS / 4);
    host[0].silent = false;
    send_all();
    check_all();
    teardown();
}

/* What is left, in ms, as soon as the pass has begun */
static double estimate(void)
{
    split_pass_end();
    return split_estimate_ms(&source);
}

/*
 * The last link to be done counts, each by its own rate, and each page for the
 * link that it is going to take
 */
static void test_estimate(void)
{
    static const uint64_t plenty[HOSTS] = { PAGES, PAGES, PAGES };
    const double page_ms = SPLIT_PAGE_SIZE / 1e3;   /* at 1 MB/s */
    uint64_t of[HOSTS + 1] = { 0 };
    double longest = 0;

    setup(RAM_PLACEMENT_ADDRESS, PAGES / 4, plenty, plenty);
    downtime_limit = 0;
    switchover_bandwidth = 0;
    migration.mbps = 8;
    for (uint64_t page = 0; page < PAGES; page++) {
        guest_write(page, page + 1);
    }
    send_all();
    /* Before the first pass is over nothing is known */
    g_assert_false(split_fits());
    g_assert_cmpfloat_with_epsilon(estimate(), 0, EPSILON);
    g_assert_true(split_fits());

    /* 100 pages of the main host, whose link is measured at 4 MB/s */
    main_sent = source.main_bytes + 400000;
    split_estimate_window(0.1);
    for (uint64_t page = 0; page < 100; page++) {
        guest_write(page, 1);
    }
    g_assert_cmpfloat_with_epsilon(estimate(), 100 * page_ms / 4, EPSILON);
    g_assert_false(split_fits());

    /* Half of them are sent: half of the time */
    bitmap_clear(block.bmap, 0, 50);
    g_assert_cmpfloat_with_epsilon(split_estimate_ms(&source),
                                   50 * page_ms / 4, EPSILON);

    /* Passes in which little is sent, a window for several of them */
    for (unsigned i = 0; i < 100; i++) {
        main_sent += 1000;
        split_estimate_window(0.1);
        split_pass_end();
    }
    g_assert_cmpfloat_with_epsilon(source.main_rate, 4e6, EPSILON);

    /* One page each extent, and links of 1, 2 and 3 MB/s */
    bitmap_zero(block.bmap, PAGES);
    for (unsigned e = 0; e < EXTENTS; e++) {
        uint8_t h = source.layout->blocks[0].host[e];

        guest_write(e * SPLIT_EXTENT_PAGES + 3, 1);
        of[h == SPLIT_HOST_NONE ? HOSTS : h]++;
    }
    for (unsigned i = 0; i < HOSTS; i++) {
        host[i].stats.rate = 1e6 * (i + 1);
        longest = MAX(longest, of[i] * page_ms / (i + 1));
    }
    g_assert_cmpuint(of[HOSTS], ==, EXTENTS / 4);
    longest = MAX(longest, of[HOSTS] * page_ms / 4);
    g_assert_cmpfloat_with_epsilon(estimate(), longest, EPSILON);

    /* What is sent is that of its link, the slowest, whatever others have */
    for (uint64_t page = 0; page < PAGES; page++) {
        if (source.layout->blocks[0].host[page / SPLIT_EXTENT_PAGES] == 0 &&
            test_and_clear_bit(page, block.bmap)) {
            split_route(&block, page * SPLIT_PAGE_SIZE);
        }
    }
    longest = MAX(of[1] * page_ms / 2, of[2] * page_ms / 3);
    longest = MAX(longest, of[HOSTS] * page_ms / 4);
    g_assert_cmpfloat(longest, <, of[0] * page_ms);
    g_assert_cmpfloat_with_epsilon(split_estimate_ms(&source), longest,
                                   EPSILON);

    /* What is queued or under way is not there yet */
    bitmap_zero(block.bmap, PAGES);
    host[2].stats.queued = 30;
    host[2].stats.bytes = 300000;
    g_assert_cmpfloat_with_epsilon(estimate(), 30 * page_ms / 3 + 100, EPSILON);
    downtime_limit = 30 * page_ms / 3 + 101;
    g_assert_true(split_fits());
    downtime_limit -= 2;
    g_assert_false(split_fits());

    /* The user knows better, of each link */
    switchover_bandwidth = 10000000;
    g_assert_true(split_fits());
    switchover_bandwidth = 0;
    teardown();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_MIGRATION);
    g_test_add_func("/strategy/split/route/address", test_room_address);
    g_test_add_func("/strategy/split/route/hot", test_room_hot);
    g_test_add_func("/strategy/split/route/tight", test_tight);
    g_test_add_func("/strategy/split/route/full", test_full);
    g_test_add_func("/strategy/split/route/stopped", test_stopped);
    g_test_add_func("/strategy/split/route/hangs", test_hangs);
    g_test_add_func("/strategy/split/route/estimate", test_estimate);
    return g_test_run();
}
