/*
 * Remote pager: the engine, on plain memory, with real memory servers
 *
 * Threads write to and read from more memory than may be resident.  Proves:
 * each page always holds what was written to it last; what is resident stays
 * under the limit; pages that are removed are zero; a server that is gone for
 * a while costs time and no page; after a gather all is there, and nothing of
 * userfaultfd is left; and all that with servers that are full, too, and with
 * and without UFFDIO_MOVE.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "qemu/module.h"
#include "qemu/thread.h"
#include "migration/memserver/server.h"
#include "migration/strategy/pager/engine.h"
#include "migration/strategy/pager/shares.h"
#include "migration/strategy/pager/staging.h"
#include "migration/strategy/pager/uffd.h"
#include "migration/strategy/split/layout.h"

#define PAGE        PAGELINK_PAGE_SIZE
#define WORDS       (PAGE / sizeof(uint64_t))
#define MAX_HOSTS   3
#define MAX_REGIONS 2
#define MAX_THREADS 4

typedef struct Setup {
    unsigned hosts, regions, threads;
    uint64_t pages;             /* of each region */
    uint64_t limit;
    uint64_t local;             /* one page in so many is local at first */
    uint64_t server_pages;      /* that each can store */
    unsigned rounds;            /* accesses by each thread */
    uint64_t lost;              /* page that no server has; 0: none */
    int timeout_ms;             /* or 0 */
    uint64_t capacity;          /* of each as told to the engine; 0: that */
    bool dense;                 /* no page is made zero */
} Setup;

typedef struct Fixture {
    Setup setup;
    MsServer *server[MAX_HOSTS];
    PagerEngine *e;
    uint64_t *memory[MAX_REGIONS];
    uint64_t *generation[MAX_REGIONS];  /* of each page: its thread's */
    QemuMutex lock;
    QemuCond cond;
    unsigned changes;
    bool refuse[MAX_HOSTS];             /* to connect */
    int socket[MAX_HOSTS][PAGER_LINK__MAX];     /* of the last connections */
    bool read_lost;                     /* under the lock */
    bool stall;                         /* connecting does not end */
    int silent;                         /* nobody reads */
    int demand_fd[MAX_HOSTS];           /* the engine's */
    PagerEngine *watch;                 /* atomic: each change, for... */
    bool was_down;                      /* ...a host that was not UP */
} Fixture;

/* As on Linux before 6.8; set by the test that runs */
static bool no_move;

/* -- System calls: as the C library's, but for what a test wants -- */

static struct {
    unsigned refuse;            /* one in so many has no memory; atomic */
    unsigned n;
    QemuMutex lock;
    QemuCond cond;
    bool gated;                 /* pages are not taken away... */
    uint64_t allowed;           /* ...but for so many */
} calls;

static void pass_gate(uint64_t pages)
{
    QEMU_LOCK_GUARD(&calls.lock);
    while (calls.gated && !calls.allowed) {
        qemu_cond_wait(&calls.cond, &calls.lock);
    }
    calls.allowed -= MIN(pages, calls.allowed);
}

int ioctl(int fd, unsigned long request, ...)
{
    unsigned refuse = qatomic_read(&calls.refuse);
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (request == UFFDIO_MOVE) {
        pass_gate(((struct uffdio_move *)arg)->len / PAGE);
    } else if (refuse && (request == UFFDIO_COPY ||
                          request == UFFDIO_ZEROPAGE ||
                          request == UFFDIO_WRITEPROTECT) &&
               qatomic_fetch_inc(&calls.n) % refuse == 0) {
        errno = ENOMEM;
        return -1;
    }
    return syscall(SYS_ioctl, fd, request, arg);
}

void *mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
    va_list ap;
    void *to;

    va_start(ap, flags);
    to = va_arg(ap, void *);
    va_end(ap);
    if (flags & MREMAP_DONTUNMAP) {
        pass_gate(len / PAGE);
    }
    return (void *)syscall(SYS_mremap, old, old_len, len, flags, to);
}

/* -- Servers -- */

static PageLinkClient *dial(MsServer *server, uint16_t flags, uint64_t epoch,
                            uint8_t class, int *socket, Error **errp)
{
    PageLinkClientOptions o = {
        .role = PAGELINK_ROLE_OWNER, .class = class, .flags = flags,
        .epoch = epoch, .name = "test", .timeout_ms = 20000,
    };
    QIOChannelSocket *sioc;
    PageLinkClient *c;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    ms_server_add_channel(server, sioc);
    object_unref(OBJECT(sioc));
    if (socket) {
        close(*socket);
        *socket = dup(fds[1]);
    }
    o.sioc = qio_channel_socket_new_fd(fds[1], &error_abort);
    c = pagelink_client_connect(&o, errp);
    object_unref(OBJECT(o.sioc));
    return c;
}

static PageLinkClient *connect_host(void *opaque, unsigned host,
                                    PagerLink link, bool take, bool *refused,
                                    Error **errp)
{
    Fixture *f = opaque;
    PageLinkClient *c;

    QEMU_LOCK_GUARD(&f->lock);
    while (f->stall) {
        qemu_cond_wait(&f->cond, &f->lock);
    }
    if (f->refuse[host]) {
        error_setg(errp, "nobody there");
        return NULL;
    }
    c = dial(f->server[host], take ? PAGELINK_HELLO_TAKE : 0, 2,
             link == PAGER_LINK_DEMAND ? PAGELINK_CLASS_DEMAND :
                                         PAGELINK_CLASS_BACKGROUND,
             &f->socket[host][link], errp);
    if (refused) {
        *refused = !c;
    }
    if (c && link == PAGER_LINK_DEMAND) {
        f->demand_fd[host] = pagelink_client_fd(c);
    }
    return c;
}

static void changed(void *opaque)
{
    Fixture *f = opaque;
    PagerInfo info = { 0 };
    unsigned i;

    if (qatomic_read(&f->watch)) {
        pager_engine_query(f->watch, &info);
    }
    for (i = 0; i < info.n_hosts; i++) {
        if (info.hosts[i].state != PAGER_HOST_UP) {
            qatomic_set(&f->was_down, true);
        }
    }
    pager_info_clear(&info);
    QEMU_LOCK_GUARD(&f->lock);
    f->changes++;
    qemu_cond_broadcast(&f->cond);
}

static PagerInfo query(Fixture *f)
{
    PagerInfo info;

    pager_engine_query(f->e, &info);
    return info;
}

/* Wait until what pager_engine_query() says of the state of @host is @state */
static void await_state(Fixture *f, unsigned host, PagerHostState state)
{
    bool there = false;

    while (!there) {
        unsigned seen;
        PagerInfo info;

        WITH_QEMU_LOCK_GUARD(&f->lock) {
            seen = f->changes;
        }
        info = query(f);
        there = info.hosts[host].state == state;
        pager_info_clear(&info);
        WITH_QEMU_LOCK_GUARD(&f->lock) {
            while (!there && f->changes == seen) {
                qemu_cond_wait(&f->cond, &f->lock);
            }
        }
    }
}

/* -- Pages -- */

static uint64_t *page_of(Fixture *f, unsigned region, uint64_t page)
{
    return f->memory[region] + page * WORDS;
}

static uint64_t word(uint64_t region, uint64_t page, uint64_t generation,
                     unsigned i)
{
    return generation ? (region << 56 | page << 32 | generation) * 2654435761U
                        + i : 0;
}

static void fill(uint64_t *data, unsigned region, uint64_t page,
                 uint64_t generation)
{
    unsigned i;

    for (i = 0; i < WORDS; i++) {
        data[i] = word(region, page, generation, i);
    }
}

static void verify(Fixture *f, unsigned region, uint64_t page)
{
    const uint64_t *data = page_of(f, region, page);
    uint64_t generation = f->generation[region][page];
    unsigned i;

    for (i = 0; i < WORDS; i++) {
        if (data[i] != word(region, page, generation, i)) {
            g_error("region %u page %" PRIu64 " word %u generation %" PRIu64
                    ": 0x%" PRIx64 " instead of 0x%" PRIx64, region, page, i,
                    generation, data[i], word(region, page, generation, i));
        }
    }
}

static void verify_all(Fixture *f)
{
    unsigned r;
    uint64_t p;

    for (r = 0; r < f->setup.regions; r++) {
        for (p = 0; p < f->setup.pages; p++) {
            verify(f, r, p);
        }
    }
}

static uint64_t mapped(Fixture *f)
{
    g_autofree uint8_t *there = g_malloc(f->setup.pages);
    uint64_t n = 0, p;
    unsigned r;

    for (r = 0; r < f->setup.regions; r++) {
        g_assert_cmpint(mincore(f->memory[r], f->setup.pages * PAGE, there),
                        ==, 0);
        for (p = 0; p < f->setup.pages; p++) {
            n += there[p] & 1;
        }
    }
    return n;
}

/* -- Start and end: as the source of a migration would have left it -- */

static void put_pages(Fixture *f, const SplitLayout *layout)
{
    PageLinkClient *c[MAX_HOSTS];
    uint64_t buf[WORDS];
    uint64_t p;
    unsigned h, r;

    for (h = 0; h < f->setup.hosts; h++) {
        c[h] = dial(f->server[h], PAGELINK_HELLO_CREATE, 1,
                    PAGELINK_CLASS_BACKGROUND, NULL, &error_abort);
        for (r = 0; r < f->setup.regions; r++) {
            pagelink_client_block(c[h], r, f->setup.pages, "ram",
                                  &error_abort);
        }
    }
    for (r = 0; r < f->setup.regions; r++) {
        for (p = 0; p < f->setup.pages; p++) {
            h = layout->blocks[r].host[p / SPLIT_EXTENT_PAGES];
            if (test_bit(p, layout->blocks[r].local)) {
                fill(page_of(f, r, p), r, p, 1);
                f->generation[r][p] = 1;
            } else if (h != SPLIT_HOST_NONE && p != f->setup.lost) {
                PageLinkPage put = {
                    .block = r, .page = p, .version = 7, .data = buf
                };

                /* What was sent before it became zero must not come back */
                fill(buf, r, p, 1);
                f->generation[r][p] = test_bit(p, layout->blocks[r].remote);
                g_assert_true(pagelink_client_put(c[h], &put, 1,
                                                  &error_abort));
            }
        }
    }
    for (h = 0; h < f->setup.hosts; h++) {
        g_assert_true(pagelink_client_sync(c[h], NULL, &error_abort));
        pagelink_client_free(c[h]);
    }
}

static SplitLayout *make_layout(const Setup *s)
{
    SplitSetup *setup = split_setup_new(s->hosts, s->regions);
    SplitLayout *l;
    unsigned r;
    uint64_t i;

    for (r = 0; r < s->regions; r++) {
        setup->blocks[r].pages = s->pages;
    }
    l = split_layout_new(setup);
    for (r = 0; r < s->regions; r++) {
        for (i = 0; i < split_extents(s->pages); i++) {
            /* The last extent of each was never sent */
            l->blocks[r].host[i] = i == split_extents(s->pages) - 1 ?
                                   SPLIT_HOST_NONE : i % s->hosts;
        }
        for (i = 0; s->local && i < s->pages; i += s->local) {
            set_bit(i, l->blocks[r].local);
        }
        for (i = 0; i < s->pages; i++) {
            if (i % 5 && !test_bit(i, l->blocks[r].local) &&
                l->blocks[r].host[i / SPLIT_EXTENT_PAGES] !=
                SPLIT_HOST_NONE) {
                set_bit(i, l->blocks[r].remote);
            }
        }
    }
    split_setup_free(setup);
    return l;
}

static Fixture *start(const Setup *s)
{
    g_autoptr(SplitLayout) layout = make_layout(s);
    PagerRegion regions[MAX_REGIONS];
    PagerHostConfig hosts[MAX_HOSTS];
    PagerConfig config = {
        .regions = regions, .n_regions = s->regions,
        .hosts = hosts, .n_hosts = s->hosts,
        .limit = s->limit, .last_version = 7, .no_move = no_move,
        .timeout_ms = s->timeout_ms,
        .connect = connect_host, .changed = changed,
    };
    Fixture *f = g_new0(Fixture, 1);
    MsServerOptions o;
    unsigned i, j;

    f->setup = *s;
    qemu_mutex_init(&f->lock);
    qemu_cond_init(&f->cond);
    for (i = 0; i < s->hosts; i++) {
        for (j = 0; j < PAGER_LINK__MAX; j++) {
            f->socket[i][j] = -1;
        }
        ms_server_defaults(&o);
        o.max_pages = s->server_pages;
        o.threads = 1;
        f->server[i] = ms_server_new(&o, &error_abort);
        hosts[i] = (PagerHostConfig) {
            .name = "server", .capacity = s->capacity ?: s->server_pages
        };
    }
    for (i = 0; i < s->regions; i++) {
        size_t len = s->pages * PAGE;

        f->memory[i] = mmap(NULL, len, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        g_assert_true(f->memory[i] != MAP_FAILED);
        qemu_madvise(f->memory[i], len, QEMU_MADV_NOHUGEPAGE);
        /* Two mappings, and not even extents on either side */
        qemu_madvise(f->memory[i], (s->pages / 2 | 1) * PAGE,
                     QEMU_MADV_DONTDUMP);
        f->generation[i] = g_new0(uint64_t, s->pages);
        regions[i] = (PagerRegion) {
            .name = "ram", .block = i, .host = f->memory[i],
            .pages = s->pages, .local = layout->blocks[i].local,
            .remote = layout->blocks[i].remote,
            .extent_host = layout->blocks[i].host,
        };
    }
    put_pages(f, layout);
    config.opaque = f;
    f->e = pager_engine_new(&config, &error_abort);
    return f;
}

static bool any_session(Fixture *f)
{
    unsigned i, n = 0;

    for (i = 0; i < f->setup.hosts; i++) {
        n += ms_server_sessions(f->server[i]);
    }
    g_thread_yield();
    return n;
}

static void stop(Fixture *f)
{
    unsigned i, j;

    if (f->e) {
        do {
            /* In vain with a server that is being connected again */
            pager_engine_end_sessions(f->e);
        } while (any_session(f));
        pager_engine_free(f->e);
    }
    for (i = 0; i < f->setup.hosts; i++) {
        for (j = 0; j < PAGER_LINK__MAX; j++) {
            close(f->socket[i][j]);
        }
        while (ms_server_connections(f->server[i])) {
            g_thread_yield();
        }
        g_assert_cmpuint(ms_server_sessions(f->server[i]), ==, 0);
        ms_server_free(f->server[i]);
    }
    for (i = 0; i < f->setup.regions; i++) {
        munmap(f->memory[i], f->setup.pages * PAGE);
        g_free(f->generation[i]);
    }
    qemu_cond_destroy(&f->cond);
    qemu_mutex_destroy(&f->lock);
    g_free(f);
}

static void end_session(Fixture *f, unsigned host)
{
    PageLinkClient *c = dial(f->server[host], PAGELINK_HELLO_TAKE, 3,
                             PAGELINK_CLASS_BACKGROUND, NULL, &error_abort);

    g_assert_true(pagelink_client_end(c, &error_abort));
    pagelink_client_free(c);
}

/* -- Those who use the memory -- */

typedef struct Worker {
    Fixture *f;
    QemuThread thread;
    unsigned index;
    uint64_t seed;
    uint64_t worst;             /* most pages seen resident */
    uint64_t most;              /* and stored at one server */
    bool full;                  /* so the engine said at some time */
} Worker;

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return *seed >> 33;
}

/* Each page belongs to one thread; some are hot, some are never written */
static void use_page(Worker *w)
{
    Fixture *f = w->f;
    const Setup *s = &f->setup;
    uint64_t n = s->pages / s->threads;
    unsigned region = next_random(&w->seed) % s->regions;
    uint64_t i = next_random(&w->seed) % 4 ? next_random(&w->seed) % n :
                                             next_random(&w->seed) % 32;
    uint64_t page = i * s->threads + w->index;
    uint64_t *generation = &f->generation[region][page];

    verify(f, region, page);
    switch (next_random(&w->seed) % (s->dense ? 4 : 8)) {
    case 0:
    case 1:
        fill(page_of(f, region, page), region, page, ++*generation);
        break;
    case 2:
        if (s->dense) {
            break;
        }
        /* Zero pages travel in another way */
        *generation = 0;
        fill(page_of(f, region, page), region, page, 0);
        break;
    case 3:
        /* A balloon */
        if (!s->dense && page % 7 == 0) {
            *generation = 0;
            g_assert_cmpint(madvise(page_of(f, region, page), PAGE,
                                    MADV_DONTNEED), ==, 0);
        }
        break;
    default:
        break;
    }
}

static void look(Worker *w)
{
    PagerInfo info = query(w->f);
    unsigned i;

    w->worst = MAX(w->worst, info.resident + info.staged);
    for (i = 0; i < info.n_hosts; i++) {
        w->most = MAX(w->most, info.hosts[i].stored);
    }
    w->full |= info.full;
    pager_info_clear(&info);
}

static void *work(void *opaque)
{
    Worker *w = opaque;
    unsigned i;

    for (i = 0; i < w->f->setup.rounds; i++) {
        use_page(w);
        if (i % 64 == 0) {
            look(w);
        }
    }
    return NULL;
}

static void start_work(Fixture *f, Worker *w)
{
    unsigned i;

    for (i = 0; i < f->setup.threads; i++) {
        w[i] = (Worker) { .f = f, .index = i, .seed = i + 1 };
        qemu_thread_create(&w[i].thread, "worker", work, &w[i],
                           QEMU_THREAD_JOINABLE);
    }
}

static uint64_t end_work(Fixture *f, Worker *w)
{
    uint64_t worst = 0;
    unsigned i;

    for (i = 0; i < f->setup.threads; i++) {
        qemu_thread_join(&w[i].thread);
        worst = MAX(worst, w[i].worst);
    }
    return worst;
}

static const Setup small = {
    .hosts = 1, .regions = 1, .threads = 2, .pages = 2048, .limit = 512,
    .local = 8, .server_pages = 100000, .rounds = 20000,
};

static void report(Fixture *f)
{
    PagerInfo info = query(f);

    g_test_message("faults: %" PRIu64 " remote, %" PRIu64 " staged, %" PRIu64
                   " zero, %" PRIu64 " first writes; prefetched %" PRIu64
                   ", used %" PRIu64 "; evicted: %" PRIu64 " clean, %" PRIu64
                   " dirty, %" PRIu64 " zero; removed %" PRIu64 ", busy %"
                   PRIu64, info.faults, info.faults_staged, info.faults_zero,
                   info.faults_write, info.prefetched, info.prefetch_used,
                   info.evicted_clean, info.evicted_dirty, info.evicted_zero,
                   info.removed, info.busy);
    g_test_message("latency: p50 %" PRIu64 " ns, p99 %" PRIu64 " ns",
                   pager_histogram_percentile(&info.hosts[0].latency, 50),
                   pager_histogram_percentile(&info.hosts[0].latency, 99));
    pager_info_clear(&info);
}

static void thrash(const Setup *s)
{
    Worker w[MAX_THREADS];
    Fixture *f = start(s);
    PagerInfo info;

    start_work(f, w);
    /* A page of each thread may be on its way in */
    g_assert_cmpuint(end_work(f, w), <=, s->limit + s->threads);
    g_assert_cmpuint(mapped(f), <=, s->limit);
    verify_all(f);
    g_assert_cmpuint(mapped(f), <=, s->limit);
    report(f);
    info = query(f);
    /* Nothing of it was by chance */
    g_assert_cmpuint(info.faults, >, 1000);
    g_assert_cmpuint(info.faults_zero, >, 0);
    g_assert_cmpuint(info.faults_staged, >, 0);
    g_assert_cmpuint(info.evicted_clean, >, 0);
    g_assert_cmpuint(info.evicted_dirty, >, 0);
    g_assert_cmpuint(info.evicted_zero, >, 0);
    g_assert_cmpuint(info.removed, >, 0);
    g_assert_cmpuint(info.prefetched, >, 0);
    g_assert_cmpuint(info.hosts[0].latency.n, >, 0);
    while (info.waiting) {
        /* The last one is awake, and not yet off the list */
        pager_info_clear(&info);
        info = query(f);
    }
    pager_info_clear(&info);
    stop(f);
}

static void test_thrash(void)
{
    thrash(&small);
}

static void test_thrash_hosts(void)
{
    Setup s = small;

    s.hosts = 3;
    s.regions = 2;
    s.threads = 4;
    thrash(&s);
}

static void test_thrash_tiny(void)
{
    Setup s = small;

    s.limit = 64;
    s.local = 64;
    s.threads = 4;
    s.rounds = 5000;
    thrash(&s);
}

/* The limit is raised and lowered while threads are at work */
static void test_limit(void)
{
    static const uint64_t limits[] = { 2000, 128, 1000, 256 };
    Worker w[MAX_THREADS];
    Setup s = small;
    Fixture *f;
    unsigned i;

    s.threads = 1;
    for (i = 0, f = start(&s); i < ARRAY_SIZE(limits); i++) {
        pager_engine_set_limit(f->e, limits[i]);
        start_work(f, w);
        end_work(f, w);
        verify_all(f);
        /* Up to a quarter is room for faults to come, and the staging area */
        g_assert_cmpuint(mapped(f), <=, limits[i]);
        g_assert_cmpuint(mapped(f), >=, MIN(limits[i], s.pages * 4 / 5) / 2);
    }
    stop(f);
}

static void await_gathered(Fixture *f)
{
    QEMU_LOCK_GUARD(&f->lock);
    for (;;) {
        PagerInfo info = query(f);
        bool done = info.gathered;

        pager_info_clear(&info);
        if (done) {
            break;
        }
        qemu_cond_wait(&f->cond, &f->lock);
    }
}

static bool registered(void)
{
    g_autofree char *smaps = NULL;

    g_assert_true(g_file_get_contents("/proc/self/smaps", &smaps, NULL, NULL));
    /* VmFlags: um is userfaultfd missing, uw write-protect */
    return strstr(smaps, " um") || strstr(smaps, " uw");
}

static void test_gather(void)
{
    Worker w[MAX_THREADS];
    Setup s = small;
    Fixture *f;

    s.hosts = 3;
    f = start(&s);
    start_work(f, w);
    g_assert_true(registered());
    qatomic_set(&f->watch, f->e);
    pager_engine_gather(f->e);
    end_work(f, w);
    await_gathered(f);
    pager_engine_free(f->e);
    f->e = NULL;
    g_assert_false(registered());
    /* That the servers hang up at the end is no failure */
    g_assert_false(qatomic_read(&f->was_down));
    verify_all(f);
    stop(f);
}

static void shut_down(Fixture *f, unsigned host)
{
    unsigned i;

    QEMU_LOCK_GUARD(&f->lock);
    f->refuse[host] = true;
    for (i = 0; i < PAGER_LINK__MAX; i++) {
        shutdown(f->socket[host][i], SHUT_RDWR);
    }
}

static void test_lost(void)
{
    Worker w[MAX_THREADS];
    Setup s = small;
    Fixture *f;
    unsigned i;
    PagerInfo info;

    s.hosts = 2;
    f = start(&s);
    start_work(f, w);
    for (i = 0; i < 3; i++) {
        unsigned host = i % 2;

        shut_down(f, host);
        await_state(f, host, PAGER_HOST_LOST);
        info = query(f);
        g_assert_nonnull(info.hosts[host].error);
        g_assert_cmpuint(info.waiting, >, 0);
        pager_info_clear(&info);
        WITH_QEMU_LOCK_GUARD(&f->lock) {
            f->refuse[host] = false;
        }
        await_state(f, host, PAGER_HOST_UP);
    }
    end_work(f, w);
    verify_all(f);
    info = query(f);
    /* Or more, when a link that was not used is found broken later */
    g_assert_cmpuint(info.hosts[0].reconnects, >=, 2);
    g_assert_cmpuint(info.hosts[1].reconnects, >=, 1);
    pager_info_clear(&info);
    stop(f);
}

static void bring_back(Fixture *f, unsigned host)
{
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->refuse[host] = false;
    }
    await_state(f, host, PAGER_HOST_UP);
}

/* Pages of a region that server @host has if they are not local */
static uint64_t page_at(const Setup *s, unsigned host, uint64_t i)
{
    uint64_t extent = i / SPLIT_EXTENT_PAGES * s->hosts + host;

    return extent * SPLIT_EXTENT_PAGES + i % SPLIT_EXTENT_PAGES;
}

typedef struct Writer {
    Fixture *f;
    QemuThread thread;
    bool done;                  /* under the lock */
} Writer;

/* Uses pages that the first server has; the others may be away */
static void *write_first(void *opaque)
{
    Writer *w = opaque;
    Fixture *f = w->f;
    uint64_t n = f->setup.pages / f->setup.hosts, seed = 1;
    unsigned i;

    for (i = 0; i < f->setup.rounds; i++) {
        uint64_t page = page_at(&f->setup, 0, next_random(&seed) % n);

        verify(f, 0, page);
        fill(page_of(f, 0, page), 0, page, ++f->generation[0][page]);
    }
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        w->done = true;
        qemu_cond_broadcast(&f->cond);
    }
    return NULL;
}

static PagerHostState state_of(Fixture *f, unsigned host)
{
    PagerInfo info = query(f);
    PagerHostState state = info.hosts[host].state;

    pager_info_clear(&info);
    return state;
}

/*
 * Of two servers one is away, and nobody needs its pages.  What leaves goes to
 * the other, even if it came from the one that is away.
 */
static void test_one_lost(void)
{
    Setup s = small;
    PagerHostState state;
    Writer w = { 0 };
    uint64_t p;

    s.hosts = 2;
    s.local = 0;
    w.f = start(&s);
    /* Resident now, some written to and some not */
    for (p = 0; p < s.limit / 2; p++) {
        uint64_t page = page_at(&s, 1, p);

        verify(w.f, 0, page);
        if (p % 2) {
            fill(page_of(w.f, 0, page), 0, page, ++w.f->generation[0][page]);
        }
    }
    shut_down(w.f, 1);
    await_state(w.f, 1, PAGER_HOST_DEGRADED);
    qemu_thread_create(&w.thread, "writer", write_first, &w,
                       QEMU_THREAD_JOINABLE);
    WITH_QEMU_LOCK_GUARD(&w.f->lock) {
        while (state_of(w.f, 1) == PAGER_HOST_DEGRADED && !w.done) {
            qemu_cond_wait(&w.f->cond, &w.f->lock);
        }
    }
    state = state_of(w.f, 1);
    g_assert_cmpint(state, ==, PAGER_HOST_DEGRADED);
    /* They are at the first server, or here */
    for (p = 0; p < s.limit / 2; p++) {
        verify(w.f, 0, page_at(&s, 1, p));
    }
    g_assert_cmpint(state_of(w.f, 1), ==, PAGER_HOST_DEGRADED);
    qemu_thread_join(&w.thread);
    bring_back(w.f, 1);
    verify_all(w.f);
    stop(w.f);
}

typedef struct Reader {
    Fixture *f;
    QemuThread thread;
    uint64_t page;
    bool verify;
    uint32_t tid;
    bool done;                  /* under the lock, as tid */
} Reader;

static void *read_page(void *opaque)
{
    Reader *r = opaque;

    WITH_QEMU_LOCK_GUARD(&r->f->lock) {
        r->tid = qemu_get_thread_id();
    }
    if (r->verify) {
        verify(r->f, 0, r->page);
    } else {
        (void)qatomic_read(page_of(r->f, 0, r->page));
    }
    WITH_QEMU_LOCK_GUARD(&r->f->lock) {
        r->done = true;
    }
    return NULL;
}

static void start_reader(Reader *r, Fixture *f, uint64_t page, bool verify)
{
    *r = (Reader) { .f = f, .page = page, .verify = verify };
    qemu_thread_create(&r->thread, "reader", read_page, r,
                       QEMU_THREAD_JOINABLE);
}

/*
 * A thread that is held while its server is lost waits when the server is
 * there again, until it is released; others do not.
 */
static void test_hold(void)
{
    Reader held, other;
    Setup s = small;
    Fixture *f;

    s.local = 0;
    f = start(&s);
    shut_down(f, 0);
    start_reader(&held, f, 11, true);
    await_state(f, 0, PAGER_HOST_LOST);
    g_assert_true(pager_engine_hold(f->e, held.tid));
    g_assert_false(pager_engine_hold(f->e, qemu_get_thread_id()));
    bring_back(f, 0);
    start_reader(&other, f, 1001, true);
    qemu_thread_join(&other.thread);
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        g_assert_false(held.done);
    }
    g_assert_true(pager_engine_hold(f->e, held.tid));
    pager_engine_release(f->e);
    qemu_thread_join(&held.thread);
    g_assert_true(held.done);
    g_assert_false(pager_engine_hold(f->e, held.tid));
    stop(f);
}

/* Nor does a gather wait for those that are held */
static void test_hold_gather(void)
{
    Setup s = small;
    Reader held;
    Fixture *f;

    f = start(&s);
    shut_down(f, 0);
    start_reader(&held, f, 11, false);
    await_state(f, 0, PAGER_HOST_LOST);
    g_assert_true(pager_engine_hold(f->e, held.tid));
    /* Now no gather fetches it */
    g_assert_cmpint(madvise(page_of(f, 0, 11), PAGE, MADV_DONTNEED), ==, 0);
    f->generation[0][11] = 0;
    bring_back(f, 0);
    pager_engine_gather(f->e);
    await_gathered(f);
    qemu_thread_join(&held.thread);
    pager_engine_free(f->e);
    f->e = NULL;
    verify_all(f);
    stop(f);
}

/* Are all pages that have data here, but for those of @host? */
static bool all_home_but(Fixture *f, unsigned host)
{
    g_autofree uint8_t *there = g_malloc(f->setup.pages);
    uint64_t p, extents = split_extents(f->setup.pages);

    g_assert_cmpint(mincore(f->memory[0], f->setup.pages * PAGE, there), ==,
                    0);
    for (p = 0; p < f->setup.pages; p++) {
        uint64_t extent = p / SPLIT_EXTENT_PAGES;

        /* The last extent is nobody's, see make_layout() */
        if (extent < extents - 1 && extent % f->setup.hosts != host &&
            f->generation[0][p] && !(there[p] & 1)) {
            return false;
        }
    }
    return true;
}

/* One server is away: all that the others have comes home nevertheless */
static void test_gather_away(void)
{
    Setup s = small;
    PagerInfo info;
    Fixture *f;

    s.hosts = 3;
    s.limit = 256;
    f = start(&s);
    verify_all(f);
    shut_down(f, 1);
    await_state(f, 1, PAGER_HOST_DEGRADED);
    pager_engine_gather(f->e);
    while (!all_home_but(f, 1)) {
        g_thread_yield();
    }
    info = query(f);
    g_assert_false(info.gathered);
    g_assert_cmpuint(info.remote, >, 0);
    /* It may come back */
    g_assert_cmpint(info.hosts[1].state, ==, PAGER_HOST_DEGRADED);
    pager_info_clear(&info);
    bring_back(f, 1);
    await_gathered(f);
    pager_engine_free(f->e);
    f->e = NULL;
    verify_all(f);
    stop(f);
}

/*
 * One server has forgotten all: that is told, though no thread waits for one
 * of its pages; and the gather is not over
 */
static void test_gather_empty(void)
{
    Setup s = small;
    PagerInfo info;
    Fixture *f;

    s.hosts = 2;
    s.limit = 256;
    f = start(&s);
    end_session(f, 1);
    await_state(f, 1, PAGER_HOST_DEGRADED);
    pager_engine_gather(f->e);
    await_state(f, 1, PAGER_HOST_LOST);
    info = query(f);
    g_assert_false(info.gathered);
    g_assert_cmpuint(info.remote, >, 0);
    g_test_message("%s", info.hosts[1].error);
    pager_info_clear(&info);
    stop(f);
}

/*
 * The kernel has no memory for a page, for a while: it is not taken for one
 * that was removed
 */
static void test_no_memory(void)
{
    Worker w[MAX_THREADS];
    Setup s = small;
    Fixture *f;

    s.rounds = 4000;
    qatomic_set(&calls.refuse, 3);
    f = start(&s);
    start_work(f, w);
    end_work(f, w);
    verify_all(f);
    pager_engine_gather(f->e);
    await_gathered(f);
    qatomic_set(&calls.refuse, 0);
    pager_engine_free(f->e);
    f->e = NULL;
    verify_all(f);
    stop(f);
}

/* The main memory shrinks, a bit of it so far: who needs a page gets it */
static void test_lower(void)
{
    enum { BEFORE = 1900, USED = 1400, AFTER = 64, ALLOWED = 4 * 64 };
    PagerInfo info = { 0 };
    Setup s = small;
    Reader reader;
    uint64_t p, faults;
    Fixture *f;

    s.limit = BEFORE;
    s.local = 0;
    f = start(&s);
    for (p = 0; p < USED; p++) {
        fill(page_of(f, 0, p), 0, p, ++f->generation[0][p]);
    }
    info = query(f);
    faults = info.faults;
    pager_info_clear(&info);
    WITH_QEMU_LOCK_GUARD(&calls.lock) {
        calls.gated = true;
        calls.allowed = ALLOWED;
    }
    pager_engine_set_limit(f->e, AFTER);
    /* Beyond what was prefetched */
    start_reader(&reader, f, USED + 301, true);
    qemu_thread_join(&reader.thread);
    info = query(f);
    g_assert_cmpuint(info.faults, ==, faults + 1);
    g_assert_cmpuint(info.resident + info.staged, >, AFTER);
    g_assert_cmpuint(info.limit, ==, AFTER);
    WITH_QEMU_LOCK_GUARD(&calls.lock) {
        calls.gated = false;
        qemu_cond_broadcast(&calls.cond);
    }
    do {
        g_thread_yield();
        pager_info_clear(&info);
        info = query(f);
    } while (info.resident + info.staged > AFTER);
    pager_info_clear(&info);
    verify_all(f);
    g_assert_cmpuint(mapped(f), <=, AFTER);
    stop(f);
}

/*
 * From now on a server takes what is asked on the demand link, and does not
 * answer; nor can it be connected to
 */
static void mute(Fixture *f, unsigned host)
{
    int fds[2];

    QEMU_LOCK_GUARD(&f->lock);
    f->stall = true;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds),
                    ==, 0);
    g_assert_cmpint(dup2(fds[0], f->demand_fd[host]), >=, 0);
    close(fds[0]);
    f->silent = fds[1];
}

static void unmute(Fixture *f, unsigned host)
{
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->stall = false;
        qemu_cond_broadcast(&f->cond);
    }
    await_state(f, host, PAGER_HOST_UP);
    close(f->silent);
}

/* A page that is poisoned is told of by the kernel when it is to read it */
static void *write_page(void *opaque)
{
    Fixture *f = opaque;
    int fds[2];
    ssize_t n;

    g_assert_cmpint(pipe(fds), ==, 0);
    n = write(fds[1], page_of(f, 0, 11), 1);
    n = n < 0 ? -errno : n;
    close(fds[0]);
    close(fds[1]);
    return (void *)(intptr_t)n;
}

/*
 * The process ends, and a server is silent that nobody has found out about:
 * who waits for it fails as soon as it is lost, and no sooner
 */
static void test_poison(void)
{
    uint64_t features;
    QemuThread thread;
    PagerInfo info;
    Setup s = small;
    intptr_t ret;
    Fixture *f;

    g_assert_true(pager_uffd_features(&features, NULL));
    if (!(features & UFFD_FEATURE_POISON)) {
        g_test_skip("no UFFDIO_POISON here");
        return;
    }
    s.local = 0;
    s.timeout_ms = 200;
    f = start(&s);
    mute(f, 0);
    pager_engine_poison(f->e, NULL, 0);
    qemu_thread_create(&thread, "writer", write_page, f,
                       QEMU_THREAD_JOINABLE);
    ret = (intptr_t)qemu_thread_join(&thread);
    g_assert_cmpint(ret, ==, -EFAULT);
    info = query(f);
    g_assert_cmpint(info.hosts[0].state, ==, PAGER_HOST_LOST);
    pager_info_clear(&info);
    unmute(f, 0);
    stop(f);
}

/*
 * A server that takes requests and does not answer is lost after the timeout,
 * not when connecting to it has timed out, too
 */
static void test_silent(void)
{
    Setup s = small;
    PagerInfo info;
    Reader reader;
    Fixture *f;

    s.local = 0;
    s.timeout_ms = 200;
    f = start(&s);
    mute(f, 0);
    start_reader(&reader, f, 11, true);
    await_state(f, 0, PAGER_HOST_LOST);
    info = query(f);
    g_assert_cmpuint(info.waiting, ==, 1);
    g_assert_cmpstr(info.hosts[0].error, ==, "it does not answer");
    pager_info_clear(&info);
    unmute(f, 0);
    qemu_thread_join(&reader.thread);
    stop(f);
}

static void *read_lost(void *opaque)
{
    Fixture *f = opaque;
    uint64_t value = qatomic_read((uint64_t *)page_of(f, 0, f->setup.lost));

    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->read_lost = true;
    }
    return (void *)(uintptr_t)value;
}

/*
 * A page that was stored, and that its server has not got: who reads it waits,
 * and the server is not used again.  In neither map is another thing: zero,
 * and the server is not even asked.
 */
static void test_lost_page(void)
{
    QemuThread thread;
    Setup s = small;
    PagerInfo info;
    Fixture *f;

    s.local = 0;
    s.lost = 11;
    f = start(&s);
    info = query(f);
    g_assert_cmpuint(info.zero, ==, s.pages - info.remote);
    g_assert_cmpuint(info.remote, ==, info.hosts[0].stored);
    pager_info_clear(&info);
    verify(f, 0, 5);
    info = query(f);
    g_assert_cmpuint(info.faults, ==, 0);
    pager_info_clear(&info);
    qemu_thread_create(&thread, "reader", read_lost, f, QEMU_THREAD_JOINABLE);
    await_state(f, 0, PAGER_HOST_LOST);
    info = query(f);
    g_assert_nonnull(strstr(info.hosts[0].error, "lost page 11 of 'ram'"));
    g_assert_cmpuint(info.waiting, ==, 1);
    pager_info_clear(&info);
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        g_assert_false(f->read_lost);
    }
    pager_engine_free(f->e);
    f->e = NULL;
    /* As at the end of the process: not before */
    qemu_thread_join(&thread);
    end_session(f, 0);
    stop(f);
}

/*
 * A session that somebody else has taken and ended: who reads waits, and the
 * pages are no zeroes
 */
static void test_session_ended(void)
{
    QemuThread thread;
    Setup s = small;
    PagerInfo info;
    Fixture *f;

    s.local = 0;
    f = start(&s);
    f->setup.lost = 11;
    end_session(f, 0);
    qemu_thread_create(&thread, "reader", read_lost, f, QEMU_THREAD_JOINABLE);
    await_state(f, 0, PAGER_HOST_LOST);
    info = query(f);
    g_assert_nonnull(info.hosts[0].error);
    g_test_message("%s", info.hosts[0].error);
    pager_info_clear(&info);
    WITH_QEMU_LOCK_GUARD(&f->lock) {
        g_assert_false(f->read_lost);
    }
    pager_engine_free(f->e);
    f->e = NULL;
    qemu_thread_join(&thread);
    stop(f);
}

static void write_all(Fixture *f)
{
    uint64_t p;

    for (p = 0; p < f->setup.pages; p++) {
        fill(page_of(f, 0, p), 0, p, ++f->generation[0][p]);
    }
}

/*
 * A server that takes no more: too much is resident, and nothing is lost.
 * When there is less, the limit holds again.
 */
static void test_full(void)
{
    Setup s = small;
    uint64_t p;
    PagerInfo info;
    Fixture *f;
    int64_t begin;

    s.limit = 128;
    s.server_pages = 1850;
    s.local = 0;
    f = start(&s);
    begin = g_get_monotonic_time();
    write_all(f);
    verify_all(f);
    info = query(f);
    g_test_message("resident %" PRIu64 " staged %" PRIu64 " stored %" PRIu64
                   " refused %" PRIu64 " full %d", info.resident, info.staged,
                   info.hosts[0].stored, info.hosts[0].refused, info.full);
    g_assert_cmpuint(info.hosts[0].refused, >, 0);
    /* It is tried once a second, with less each time it refuses */
    g_assert_cmpuint(info.hosts[0].refused, <=, 4 * PAGER_SHARES_HOST *
                     (2 + (g_get_monotonic_time() - begin) / G_USEC_PER_SEC));
    g_assert_true(info.full);
    g_assert_cmpuint(info.resident + info.staged, >=,
                     s.pages - s.server_pages);
    g_assert_cmpuint(s.pages - s.server_pages, >, s.limit);
    pager_info_clear(&info);
    for (p = 0; p < s.pages; p += 2) {
        f->generation[0][p] = 0;
        g_assert_cmpint(madvise(page_of(f, 0, p), PAGE, MADV_DONTNEED), ==, 0);
    }
    do {
        verify_all(f);
        pager_info_clear(&info);
        info = query(f);
    } while (info.resident + info.staged > s.limit);
    pager_info_clear(&info);
    stop(f);
}

/* As much as the engine needs its servers to have room for */
static uint64_t least_room(const Setup *s)
{
    PagerShares shares = pager_shares(s->limit);

    return s->pages - s->limit + shares.staging + shares.headroom +
           s->hosts * PAGER_SHARES_HOST;
}

/* All pages are written to, then the threads use them */
static void fill_and_thrash(Fixture *f)
{
    Worker w[MAX_THREADS], filler = { .f = f };
    uint64_t worst, p;
    PagerInfo info;
    unsigned i;

    for (p = 0; p < f->setup.pages; p++) {
        fill(page_of(f, 0, p), 0, p, ++f->generation[0][p]);
        look(&filler);
    }
    verify_all(f);
    start_work(f, w);
    worst = end_work(f, w);
    verify_all(f);
    look(&filler);
    worst = MAX(worst, filler.worst);
    report(f);
    info = query(f);
    for (i = 0; i < f->setup.hosts; i++) {
        g_test_message("server %u: %" PRIu64 " stored, %" PRIu64 " written, %"
                       PRIu64 " dropped, %" PRIu64 " refused", i,
                       info.hosts[i].stored, info.hosts[i].written,
                       info.hosts[i].dropped, info.hosts[i].refused);
        g_assert_cmpuint(info.hosts[i].dropped, >, 0);
    }
    pager_info_clear(&info);
    g_test_message("at most %" PRIu64 " pages, limit %" PRIu64, worst,
                   f->setup.limit);
    g_assert_cmpuint(worst, <=, f->setup.limit + f->setup.threads);
    g_assert_cmpuint(mapped(f), <=, f->setup.limit);
    g_assert_false(filler.full);
    for (i = 0; i < f->setup.threads; i++) {
        g_assert_false(w[i].full);
        filler.most = MAX(filler.most, w[i].most);
    }
    if (f->setup.capacity) {
        g_assert_cmpuint(filler.most, <=, f->setup.capacity);
    }
}

/*
 * Servers with just as much room as they have to have.  They are full from
 * the start: for each page that leaves, another must be given up there.
 */
static void fit(unsigned hosts)
{
    Setup s = small;
    Fixture *f;

    s.hosts = hosts;
    s.local = 4;
    s.dense = true;
    /* And what they need beside pages: a frame per extent, and the tables */
    s.server_pages = DIV_ROUND_UP(least_room(&s), hosts) +
                     split_extents(s.pages) + 2;
    f = start(&s);
    fill_and_thrash(f);
    stop(f);
}

static void test_fit(void)
{
    fit(1);
}

static void test_fit_hosts(void)
{
    fit(3);
}

/* Servers that have room, of which no more is to be used than was said */
static void test_capacity(void)
{
    Setup s = small;
    Fixture *f;

    s.hosts = 2;
    s.local = 4;
    s.dense = true;
    s.capacity = DIV_ROUND_UP(least_room(&s), s.hosts);
    f = start(&s);
    fill_and_thrash(f);
    stop(f);
}

/* A region of which everything was local needs no server to be read */
static void test_all_local(void)
{
    Setup s = small;
    PagerInfo info;
    Fixture *f;

    s.local = 1;
    s.limit = 4096;
    f = start(&s);
    verify_all(f);
    info = query(f);
    g_assert_cmpuint(info.resident, ==, s.pages);
    g_assert_cmpuint(info.faults, ==, 0);
    g_assert_cmpuint(info.remote, ==, 0);
    pager_info_clear(&info);
    stop(f);
}

/*
 * Pages that were fetched ahead are known as used when the next fault of the
 * stream comes, but not if pages between are still remote: that is a jump
 */
static void test_prefetch(void)
{
    static const Setup s = {
        .hosts = 1, .regions = 1, .pages = 2048, .limit = 1024,
        .server_pages = 100000,
    };
    /* With two fetched ahead at 3, four at 11, eight at 16, sixteen at 28 */
    static const unsigned order[] = {
        27, 26, 25, 0, 1, 2, 3, 11, 16, 28,
    };
    Fixture *f = start(&s);
    PagerInfo info;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(order); i++) {
        /* All of these are remote */
        verify(f, 0, order[i] * 5 + 1);
    }
    /* When this one is there, what the one before has set off is counted */
    verify(f, 0, 1504);
    info = query(f);
    g_assert_cmpuint(info.faults, ==, ARRAY_SIZE(order) + 1);
    g_assert_cmpuint(info.prefetched, ==, 2 + 4 + 8 + 16);
    g_assert_cmpuint(info.prefetch_used, ==, 4 + 8);
    pager_info_clear(&info);
    stop(f);
}

/*
 * Staging by mremap(): pages of two mappings are taken; what was given back, or
 * could not be taken, is somebody else's memory from then on
 */
static void test_staging(void)
{
    enum { N = 64, OTHERS = 256 };
    uint8_t *ram = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *gone = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *other[OTHERS];
    PagerStaging s;
    unsigned i;

    g_assert_true(ram != MAP_FAILED && gone != MAP_FAILED);
    qemu_madvise(ram, N / 2 * PAGE, QEMU_MADV_DONTDUMP);
    g_assert_true(pager_staging_init(&s, N, false, &error_abort));
    /* Nothing there */
    g_assert_cmpint(munmap(gone, N * PAGE), ==, 0);
    for (i = 0; i < N; i++) {
        g_assert_cmpint(pager_staging_take(&s, i, gone + i * PAGE, N - i), <,
                        0);
    }
    for (unsigned round = 1; round < 3; round++) {
        for (i = 0; i < N; i++) {
            memset(ram + i * PAGE, i + round, PAGE);
        }
        for (i = 0; i < N;) {
            ssize_t n = pager_staging_take(&s, i, ram + i * PAGE, N - i);

            g_assert_cmpint(n, >, 0);
            i += n;
        }
        for (i = 0; i < N; i++) {
            g_assert_cmpint(*pager_staging_data(&s, i), ==, i + round);
            g_assert_cmpint(ram[i * PAGE], ==, 0);
        }
        pager_staging_discard(&s, N / 4, N);
    }
    /* Some of them where pages were staged */
    for (i = 0; i < OTHERS; i++) {
        other[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        g_assert_true(other[i] != MAP_FAILED);
        *other[i] = i;
    }
    pager_staging_discard(&s, 0, N);
    pager_staging_destroy(&s);
    for (i = 0; i < OTHERS; i++) {
        g_assert_cmpint(*other[i], ==, i & 0xff);
        munmap(other[i], PAGE);
    }
    munmap(ram, N * PAGE);
}

typedef struct Test {
    const char *name;
    void (*run)(void);
    bool evicts;                /* so that it matters how pages are taken */
} Test;

static const Test tests[] = {
    { "all-local", test_all_local },
    { "thrash", test_thrash, true },
    { "thrash-hosts", test_thrash_hosts },
    { "thrash-tiny", test_thrash_tiny, true },
    { "limit", test_limit, true },
    { "gather", test_gather, true },
    { "gather-away", test_gather_away },
    { "gather-empty", test_gather_empty },
    { "lower", test_lower, true },
    { "no-memory", test_no_memory, true },
    { "silent", test_silent },
    { "poison", test_poison },
    { "lost", test_lost },
    { "one-lost", test_one_lost },
    { "hold", test_hold },
    { "hold-gather", test_hold_gather },
    { "lost-page", test_lost_page },
    { "session-ended", test_session_ended },
    { "full", test_full, true },
    { "fit", test_fit, true },
    { "fit-hosts", test_fit_hosts },
    { "capacity", test_capacity },
    { "prefetch", test_prefetch },
};

static void run_move(const void *opaque)
{
    no_move = false;
    ((const Test *)opaque)->run();
}

static void run_remap(const void *opaque)
{
    no_move = true;
    ((const Test *)opaque)->run();
}

int main(int argc, char **argv)
{
    uint64_t features;
    unsigned i;

    qemu_mutex_init(&calls.lock);
    qemu_cond_init(&calls.cond);
    module_call_init(MODULE_INIT_QOM);
    g_test_init(&argc, &argv, NULL);
    if (!pager_uffd_features(&features, NULL)) {
        g_printerr("userfaultfd is not to be had here\n");
        return 77;
    }
    g_test_add_func("/pager/staging/remap", test_staging);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *move = g_strdup_printf("/pager/engine/%s",
                                                tests[i].name);
        g_autofree char *remap = g_strdup_printf("/pager/engine/remap/%s",
                                                 tests[i].name);

        if (features & UFFD_FEATURE_MOVE) {
            g_test_add_data_func(move, &tests[i], run_move);
        }
        if (tests[i].evicts || !(features & UFFD_FEATURE_MOVE)) {
            g_test_add_data_func(remap, &tests[i], run_remap);
        }
    }
    return g_test_run();
}
