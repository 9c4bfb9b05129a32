/*
 * Remote pager's unit tests: an engine on plain memory, with real servers
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
#include "migration/strategy/pager/uffd.h"
#include "migration/strategy/split/layout.h"
#include "pager-fixture.h"

/* As on Linux before 6.8; set by the test that runs */
static bool no_move;

/* UFFD_FEATURE_*, that the kernel has */
static uint64_t features;

const Setup fixture_small = {
    .hosts = 1, .regions = 1, .threads = 2, .pages = 2048, .limit = 512,
    .local = 8, .server_pages = 100000, .rounds = 20000,
};

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

void fixture_refuse_memory(unsigned one_in)
{
    qatomic_set(&calls.refuse, one_in);
}

void fixture_gate(uint64_t allowed)
{
    QEMU_LOCK_GUARD(&calls.lock);
    calls.gated = true;
    calls.allowed = allowed;
}

void fixture_ungate(void)
{
    QEMU_LOCK_GUARD(&calls.lock);
    calls.gated = false;
    qemu_cond_broadcast(&calls.cond);
}

/* -- Servers -- */

PageLinkClient *fixture_dial(MsServer *server, uint16_t flags,
                             uint64_t epoch, uint8_t class, int *socket,
                             Error **errp)
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
    c = fixture_dial(f->server[host], take ? PAGELINK_HELLO_TAKE : 0, 2,
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

PagerInfo fixture_query(Fixture *f)
{
    PagerInfo info;

    pager_engine_query(f->e, &info);
    return info;
}

void fixture_await_state(Fixture *f, unsigned host, PagerHostState state)
{
    bool there = false;

    while (!there) {
        unsigned seen;
        PagerInfo info;

        WITH_QEMU_LOCK_GUARD(&f->lock) {
            seen = f->changes;
        }
        info = fixture_query(f);
        there = info.hosts[host].state == state;
        pager_info_clear(&info);
        WITH_QEMU_LOCK_GUARD(&f->lock) {
            while (!there && f->changes == seen) {
                qemu_cond_wait(&f->cond, &f->lock);
            }
        }
    }
}

void fixture_await_gathered(Fixture *f)
{
    QEMU_LOCK_GUARD(&f->lock);
    for (;;) {
        PagerInfo info = fixture_query(f);
        bool done = info.gathered;

        pager_info_clear(&info);
        if (done) {
            break;
        }
        qemu_cond_wait(&f->cond, &f->lock);
    }
}

/* -- Pages -- */

uint64_t *fixture_page(Fixture *f, unsigned region, uint64_t page)
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

void fixture_write(Fixture *f, unsigned region, uint64_t page)
{
    fill(fixture_page(f, region, page), region, page,
         ++f->generation[region][page]);
}

void fixture_verify(Fixture *f, unsigned region, uint64_t page)
{
    const uint64_t *data = fixture_page(f, region, page);
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

void fixture_verify_all(Fixture *f)
{
    unsigned r;
    uint64_t p;

    for (r = 0; r < f->setup.regions; r++) {
        for (p = 0; p < f->setup.pages; p++) {
            fixture_verify(f, r, p);
        }
    }
}

uint64_t fixture_mapped(Fixture *f)
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
        c[h] = fixture_dial(f->server[h], PAGELINK_HELLO_CREATE, 1,
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
                fill(fixture_page(f, r, p), r, p, 1);
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

Fixture *fixture_start(const Setup *s)
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

void fixture_stop(Fixture *f)
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

/* -- Those who use the memory -- */

uint64_t fixture_random(uint64_t *seed)
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
    unsigned region = fixture_random(&w->seed) % s->regions;
    uint64_t i = fixture_random(&w->seed) % 4 ? fixture_random(&w->seed) % n :
                                                fixture_random(&w->seed) % 32;
    uint64_t page = i * s->threads + w->index;
    uint64_t *generation = &f->generation[region][page];

    fixture_verify(f, region, page);
    switch (fixture_random(&w->seed) % (s->dense ? 4 : 8)) {
    case 0:
    case 1:
        fixture_write(f, region, page);
        break;
    case 2:
        if (s->dense) {
            break;
        }
        /* Zero pages travel in another way */
        *generation = 0;
        fill(fixture_page(f, region, page), region, page, 0);
        break;
    case 3:
        /* A balloon */
        if (!s->dense && page % 7 == 0) {
            *generation = 0;
            g_assert_cmpint(madvise(fixture_page(f, region, page), PAGE,
                                    MADV_DONTNEED), ==, 0);
        }
        break;
    default:
        break;
    }
}

void worker_look(Worker *w)
{
    PagerInfo info = fixture_query(w->f);
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
            worker_look(w);
        }
    }
    return NULL;
}

void workers_start(Fixture *f, Worker *w)
{
    unsigned i;

    for (i = 0; i < f->setup.threads; i++) {
        w[i] = (Worker) { .f = f, .index = i, .seed = i + 1 };
        qemu_thread_create(&w[i].thread, "worker", work, &w[i],
                           QEMU_THREAD_JOINABLE);
    }
}

uint64_t workers_end(Fixture *f, Worker *w)
{
    uint64_t worst = 0;
    unsigned i;

    for (i = 0; i < f->setup.threads; i++) {
        qemu_thread_join(&w[i].thread);
        worst = MAX(worst, w[i].worst);
    }
    return worst;
}

void fixture_report(Fixture *f)
{
    PagerInfo info = fixture_query(f);

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

static void *read_page(void *opaque)
{
    Reader *r = opaque;

    WITH_QEMU_LOCK_GUARD(&r->f->lock) {
        r->tid = qemu_get_thread_id();
    }
    if (r->verify) {
        fixture_verify(r->f, 0, r->page);
    } else {
        (void)qatomic_read(fixture_page(r->f, 0, r->page));
    }
    WITH_QEMU_LOCK_GUARD(&r->f->lock) {
        r->done = true;
    }
    return NULL;
}

void reader_start(Reader *r, Fixture *f, uint64_t page, bool verify)
{
    *r = (Reader) { .f = f, .page = page, .verify = verify };
    qemu_thread_create(&r->thread, "reader", read_page, r,
                       QEMU_THREAD_JOINABLE);
}

/* -- Programs -- */

static void run_move(const void *opaque)
{
    no_move = false;
    ((const FixtureTest *)opaque)->run();
}

static void run_remap(const void *opaque)
{
    no_move = true;
    ((const FixtureTest *)opaque)->run();
}

bool fixture_init(int *argc, char ***argv)
{
    qemu_mutex_init(&calls.lock);
    qemu_cond_init(&calls.cond);
    module_call_init(MODULE_INIT_QOM);
    g_test_init(argc, argv, NULL);
    if (!pager_uffd_features(&features, NULL)) {
        g_printerr("userfaultfd is not to be had here\n");
        return false;
    }
    return true;
}

void fixture_add_tests(const char *path, const FixtureTest *tests, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        g_autofree char *move = g_strdup_printf("%s/%s", path, tests[i].name);
        g_autofree char *remap = g_strdup_printf("%s/remap/%s", path,
                                                 tests[i].name);

        if (features & UFFD_FEATURE_MOVE) {
            g_test_add_data_func(move, &tests[i], run_move);
        }
        if (tests[i].evicts || !(features & UFFD_FEATURE_MOVE)) {
            g_test_add_data_func(remap, &tests[i], run_remap);
        }
    }
}
