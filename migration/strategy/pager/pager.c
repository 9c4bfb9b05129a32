/*
 * Remote pager: RAMBlocks, the state of the VM, events (see pager.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Lost hosts.  The engine says that a host is lost when somebody waits for it
 * and connecting to it has failed at least once.  The VM is then stopped, as
 * for an I/O error, and goes on when all hosts are there again, unless
 * somebody else has stopped it meanwhile.  If somebody continues it, it is
 * stopped again at once.  A vCPU that waits for a page of a lost host cannot
 * come to its stopping point: it counts as stopped, see pager_vcpu_stuck().
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/block.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/cpu-common.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "migration/ram.h"
#include "migration/options.h"
#include "migration/strategy.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-events-run-state.h"
#include "qapi/qapi-events-strategy.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "system/cpu-timers.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/runstate-action.h"
#include "system/system.h"
#include "../redirect/creds.h"
#include "../redirect/fault.h"
#include "pager-int.h"
#include "uffd.h"
#include "../trace.h"

/* A host that does not answer for so long is lost */
#define LINK_TIMEOUT_MS     10000
/* How often a reset looks whether vCPUs have stopped, or hosts are back */
#define STOPPING_MS         5
#define SETTLING_MS         100
/* Least memory for pages that come and go, beside what is unmanaged */
#define MIN_MANAGED         (256 * 1024)

/* Main thread with the BQL; attached is read by all */
static struct {
    SplitSetup *setup;          /* prepared or attached */
    PagerEngine *engine;        /* attached */
    bool attached;
    RAMBlock **blocks;          /* referenced while attached, or NULL */
    uint64_t unmanaged;
    bool no_move;               /* there is no UFFDIO_MOVE; once prepared */
    bool no_poison;             /* nor UFFDIO_POISON */
    PagerHostState *states;     /* as last told */
    bool paused;                /* by us */
    bool unfinished;            /* devices were not told that it is */
    bool undrained;             /* nor waited for */
    bool ending;                /* the process */
    bool leaving;               /* gathered, servers are being told */
    QemuSemaphore told;         /* they have been; left() takes it */
    Error *blocker;
    QCryptoTLSCreds *creds;     /* or NULL */
    QEMUTimer *look_again;      /* whether a reset can be; or NULL */
    Notifier shutdown;
    Notifier exit;
} pager;

PagerEngine *pager_engine(void)
{
    return pager.engine;
}

const SplitSetup *pager_setup(void)
{
    return pager.setup;
}

uint64_t pager_unmanaged(void)
{
    return pager.unmanaged;
}

bool pager_leaving(void)
{
    return pager.leaving;
}

bool pager_attached(void)
{
    return qatomic_read(&pager.attached);
}

/* -- Links -- */

static PageLinkClient *connect_host(unsigned host, uint8_t role, uint8_t class,
                                    uint16_t flags, uint32_t *refused,
                                    Error **errp)
{
    const SplitSetup *s = pager.setup;
    g_autoptr(SocketAddress) addr = socket_parse(s->hosts[host].uri, errp);
    PageLinkClientOptions o = {
        .addr = addr,
        .tls_creds = pager.creds,
        .tls_hostname = s->hosts[host].tls_hostname,
        .role = role,
        .class = class,
        .flags = flags,
        .epoch = s->epoch + 1,
        .name = qemu_name ?: "qemu",
        .timeout_ms = LINK_TIMEOUT_MS,
        .refused = refused,
    };

    if (!addr) {
        return NULL;
    }
    memcpy(o.uuid, s->uuid, sizeof(o.uuid));
    memcpy(o.key, s->key, sizeof(o.key));
    return pagelink_client_connect(&o, errp);
}

static PageLinkClient *engine_connect(void *opaque, unsigned host,
                                      PagerLink link, bool take, bool *refused,
                                      Error **errp)
{
    uint32_t code = 0;
    PageLinkClient *c;

    c = connect_host(host, PAGELINK_ROLE_OWNER,
                     link == PAGER_LINK_DEMAND ? PAGELINK_CLASS_DEMAND :
                                                 PAGELINK_CLASS_BACKGROUND,
                     take ? PAGELINK_HELLO_TAKE : 0, &code, errp);
    if (refused) {
        *refused = code == PAGELINK_ERR_AUTH ||
                   code == PAGELINK_ERR_STALE_EPOCH ||
                   code == PAGELINK_ERR_SESSION_ENDED;
    }
    return c;
}

/* As a reader, which changes nothing */
static bool try_hosts(Error **errp)
{
    unsigned i;

    for (i = 0; i < pager.setup->n_hosts; i++) {
        PageLinkClient *c = connect_host(i, PAGELINK_ROLE_READER,
                                         PAGELINK_CLASS_BACKGROUND, 0, NULL,
                                         errp);

        if (!c) {
            error_prepend(errp, "memory host %s cannot be reached from the "
                          "destination: ", pager.setup->hosts[i].uri);
            return false;
        }
        pagelink_client_free(c);
    }
    return true;
}

static bool get_creds(const SplitSetup *s, Error **errp)
{
    const char *id = migrate_tls_creds();

    if (!s->tls) {
        return true;
    }
    if (!id || !*id) {
        error_setg(errp, "the memory hosts want TLS: set the migration "
                   "parameter tls-creds at the destination, too");
        return false;
    }
    pager.creds = redirect_creds_client(errp);
    return pager.creds;
}

/* -- RAM -- */

static RAMBlock *find_block(const SplitBlock *b, Error **errp)
{
    RAMBlock *rb = qemu_ram_block_by_name(b->idstr);

    if (!rb) {
        error_setg(errp, "this VM has no RAM block '%s'", b->idstr);
        return NULL;
    }
    if (qemu_ram_get_used_length(rb) != b->pages * SPLIT_PAGE_SIZE) {
        error_setg(errp, "RAM block '%s' has another size here", b->idstr);
        return NULL;
    }
    if (qemu_ram_pagesize(rb) != SPLIT_PAGE_SIZE || qemu_ram_is_shared(rb) ||
        qemu_ram_get_fd(rb) >= 0) {
        error_setg(errp, "split memory needs private anonymous memory of "
                   "small pages, and '%s' at the destination is not: use "
                   "memory-backend-ram,share=off", b->idstr);
        return NULL;
    }
    return rb;
}

static bool find_blocks(const SplitSetup *s, Error **errp)
{
    uint64_t managed = 0;
    unsigned i;

    for (i = 0; i < s->n_blocks; i++) {
        if (!find_block(&s->blocks[i], errp)) {
            return false;
        }
        managed += s->blocks[i].pages * SPLIT_PAGE_SIZE;
    }
    pager.unmanaged = ram_bytes_total() - managed;
    if (s->main_memory < pager.unmanaged + MIN_MANAGED) {
        error_setg(errp, "main-memory of %" PRIu64 " bytes is less than what "
                   "this VM's devices need, %" PRIu64 " bytes",
                   s->main_memory, pager.unmanaged + MIN_MANAGED);
        return false;
    }
    return true;
}

/*
 * Small pages only, which no one shares with other processes: what is moved
 * away is a page.  Or back to what it was.
 */
static void advise_blocks(const SplitSetup *s, bool split)
{
    unsigned i;

    for (i = 0; i < s->n_blocks; i++) {
        /* One that was unplugged has no name, and another may have it */
        RAMBlock *rb = pager.blocks ? pager.blocks[i] :
                       qemu_ram_block_by_name(s->blocks[i].idstr);
        void *host = rb ? qemu_ram_get_host_addr(rb) : NULL;
        size_t len = s->blocks[i].pages * SPLIT_PAGE_SIZE;

        if (!host) {
            continue;
        }
        qemu_madvise(host, len, split ? QEMU_MADV_NOHUGEPAGE :
                                        QEMU_MADV_HUGEPAGE);
        if (machine_mem_merge(current_machine)) {
            qemu_madvise(host, len, split ? QEMU_MADV_UNMERGEABLE :
                                            QEMU_MADV_MERGEABLE);
        }
    }
}

/*
 * What the pager takes pages from stays mapped: a DIMM can be unplugged, and
 * what is at its address then would lose pages to the evictor.
 */
static bool ref_blocks(const SplitSetup *s, Error **errp)
{
    g_autofree RAMBlock **blocks = g_new0(RAMBlock *, s->n_blocks);
    unsigned i;

    for (i = 0; i < s->n_blocks; i++) {
        blocks[i] = find_block(&s->blocks[i], errp);
        if (!blocks[i]) {
            return false;
        }
    }
    for (i = 0; i < s->n_blocks; i++) {
        memory_region_ref(blocks[i]->mr);
    }
    pager.blocks = g_steal_pointer(&blocks);
    return true;
}

static void unref_blocks(void)
{
    unsigned i;

    for (i = 0; i < pager.setup->n_blocks; i++) {
        memory_region_unref(pager.blocks[i]->mr);
    }
    g_clear_pointer(&pager.blocks, g_free);
}

static uint64_t limit_pages(uint64_t main_memory)
{
    return (main_memory - pager.unmanaged) / SPLIT_PAGE_SIZE;
}

/* -- The state of the VM -- */

static void tell(RemoteMemoryStatus status, unsigned host, const char *why)
{
    trace_pager_tell(RemoteMemoryStatus_str(status),
                     pager.setup->hosts[host].uri, why ?: "");
    qapi_event_send_remote_memory(status, pager.setup->hosts[host].uri, why);
}

/* As far as has been told */
static bool any_lost(void)
{
    unsigned i;

    for (i = 0; i < pager.setup->n_hosts; i++) {
        if (pager.states[i] == PAGER_HOST_LOST) {
            return true;
        }
    }
    return false;
}

static bool any_lost_now(void)
{
    bool lost = false;
    PagerInfo info;
    unsigned i;

    pager_engine_query(pager.engine, &info);
    for (i = 0; i < info.n_hosts; i++) {
        lost |= info.hosts[i].state == PAGER_HOST_LOST;
    }
    pager_info_clear(&info);
    return lost;
}

/*
 * As vm_stop(), but for what waits for requests: those of block devices may
 * wait for pages that are lost, and the monitor would wait with them.
 */
static void pause_vm(void)
{
    pager.paused = pager.unfinished = true;
    runstate_set(RUN_STATE_IO_ERROR);
    cpu_disable_ticks();
    pause_all_vcpus();
    qapi_event_send_stop();
}

/* Do the rest of stopping the VM, and let it run if we stopped it */
static void go_on(void)
{
    bool start = pager.paused && runstate_check(RUN_STATE_IO_ERROR);
    bool tell = pager.unfinished;

    pager.paused = pager.unfinished = pager.undrained = false;
    if (tell) {
        vm_state_notify(false, runstate_get());
    }
    if (start) {
        vm_start();
    } else {
        bdrv_drain_all();
        bdrv_flush_all();
    }
}

static void pause_or_go_on(void)
{
    bool lost = any_lost();

    if (lost && runstate_is_running()) {
        pause_vm();
    } else if (!lost && (pager.unfinished || pager.undrained)) {
        go_on();
    }
}

static void compare_states(const PagerInfo *info)
{
    unsigned i;

    for (i = 0; i < info->n_hosts; i++) {
        PagerHostState now = info->hosts[i].state;

        if (now == pager.states[i]) {
            continue;
        }
        pager.states[i] = now;
        tell(now == PAGER_HOST_UP ? REMOTE_MEMORY_STATUS_RECOVERED :
             now == PAGER_HOST_LOST ? REMOTE_MEMORY_STATUS_LOST :
                                      REMOTE_MEMORY_STATUS_DEGRADED,
             i, now == PAGER_HOST_UP ? NULL : info->hosts[i].error);
    }
}

/* The engine is no more */
static void detached(void)
{
    qatomic_set(&pager.attached, false);
    advise_blocks(pager.setup, false);
    unref_blocks();
    migrate_del_blocker(&pager.blocker);
    g_clear_pointer(&pager.states, g_free);
}

/* After prepare(): as if nothing had been */
static void unprepare(void)
{
    ram_block_discard_require(false);
    g_clear_pointer(&pager.setup, split_setup_free);
    object_unref(OBJECT(pager.creds));
    pager.creds = NULL;
}

static void left(void *opaque)
{
    qemu_sem_wait(&pager.told);
    pager.leaving = false;
    detached();
    unprepare();
    qapi_event_send_remote_memory(REMOTE_MEMORY_STATUS_GATHERED, NULL, NULL);
}

static void *leave(void *opaque)
{
    pager_engine_free(opaque);
    qemu_sem_post(&pager.told);
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), left, NULL);
    return NULL;
}

/* All is here.  To tell the servers may take as long as they like. */
static void start_to_leave(void)
{
    QemuThread thread;

    pager.leaving = true;
    qemu_thread_create(&thread, "pager-leave", leave,
                       g_steal_pointer(&pager.engine), QEMU_THREAD_DETACHED);
}

static void on_changed(void *opaque)
{
    PagerInfo info;
    bool gathered;

    if (!pager.engine) {
        return;
    }
    pager_engine_query(pager.engine, &info);
    compare_states(&info);
    gathered = info.gathered;
    if (gathered) {
        /* Whatever they are, nobody needs them any more */
        memset(pager.states, 0, info.n_hosts * sizeof(*pager.states));
    }
    pager_info_clear(&info);
    pause_or_go_on();
    if (gathered) {
        start_to_leave();
    }
}

/* On a thread of the engine's */
static void engine_changed(void *opaque)
{
    /* In the main loop only, not when somebody waits for a block device */
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), on_changed, NULL);
}

bool pager_vcpu_stuck(int tid)
{
    /*
     * Others than vm_stop(), who pause a VM that is running, go on to change
     * the state of its vCPUs: these have to come out of their fault.
     */
    return pager.engine && !runstate_is_running() &&
           pager_engine_hold(pager.engine, tid);
}

/* All are told to stop; have they? */
static bool vcpus_stopped(void)
{
    bool stopped = true;
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (!cpu->stopped) {
            cpu_pause(cpu);
            stopped = false;
        }
    }
    return stopped;
}

/* The main loop is run, which is all that it takes */
static void look_again(void *opaque)
{
}

/*
 * Who resets the VM waits until its vCPUs have stopped.  One of them may come
 * to wait for a host that is silent or gone, and while the main thread waits
 * nobody can be told that.  So they are stopped first, with the main loop
 * running.
 */
bool pager_vm_can_reset(void)
{
    bool settled;

    if (!pager.engine || !qemu_reset_requested_get()) {
        return true;
    }
    settled = pager_engine_settled(pager.engine);
    if (settled && vcpus_stopped()) {
        return true;
    }
    if (!pager.look_again) {
        pager.look_again = timer_new_ms(QEMU_CLOCK_REALTIME, look_again, NULL);
    }
    /* To set it runs the main loop, too */
    if (!timer_pending(pager.look_again)) {
        timer_mod(pager.look_again, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  (settled ? STOPPING_MS : SETTLING_MS));
    }
    return false;
}

void pager_vcpus_resumed(void)
{
    if (!pager.engine) {
        return;
    }
    pager_engine_release(pager.engine);
    if (runstate_is_running()) {
        pager.paused = pager.unfinished = pager.undrained = false;
        /* What is lost is lost as before */
        engine_changed(NULL);
    }
}

bool pager_vm_stopping(void)
{
    int64_t began = pager_now();
    bool lost;

    if (!pager.engine || pager.ending) {
        return false;
    }
    /*
     * What devices wait for comes, or its host is found to be lost, of which
     * nobody has been told yet.
     */
    while (!(lost = any_lost_now()) &&
           pager_engine_waits(pager.engine, began) &&
           pager_now() - began < 2LL * LINK_TIMEOUT_MS * SCALE_MS) {
        g_usleep(1000);
    }
    pager.unfinished = lost;
    return lost;
}

bool pager_vm_stopped(void)
{
    pager.paused = false;
    if (!pager.engine || pager.ending) {
        return false;
    }
    pager.undrained |= pager.unfinished || any_lost() || any_lost_now();
    return pager.undrained;
}

static void on_shutdown(Notifier *n, void *opaque)
{
    g_autoptr(GArray) vcpus = g_array_new(false, false, sizeof(uint32_t));
    CPUState *cpu;

    if (shutdown_action == SHUTDOWN_ACTION_PAUSE) {
        /* Of the guest only */
        return;
    }
    pager.ending = true;
    if (!pager.engine || (pager.no_poison && !any_lost_now())) {
        return;
    }
    if (pager.no_poison) {
        error_report("A memory host is lost: ending without what disks have "
                     "yet to do, which may never end (better since Linux 6.6)");
        pager_engine_end_sessions(pager.engine);
        /* The answer to `quit' */
        monitor_cleanup();
        _exit(EXIT_FAILURE);
    }
    CPU_FOREACH(cpu) {
        uint32_t tid = cpu->thread_id;

        g_array_append_val(vcpus, tid);
    }
    /*
     * Requests that wait for a lost page fail, or draining them never ends.
     * The host may be silent only so far: while the main thread drains, nobody
     * will be told that it is lost.
     */
    pager_engine_poison(pager.engine, (uint32_t *)vcpus->data, vcpus->len);
}

static void on_process_exit(Notifier *n, void *opaque)
{
    if (pager.engine) {
        pager_engine_end_sessions(pager.engine);
    } else if (pager.leaving) {
        /* That thread ends with the process; servers are not to keep pages */
        qemu_sem_timedwait(&pager.told, LINK_TIMEOUT_MS);
    }
}

/*
 * Without UFFDIO_MOVE nothing tells of pages that are pinned: what a disk
 * writes to a page that is on its way out would be lost
 */
static bool GRAPH_RDLOCK check_nodes(Error **errp)
{
    BlockDriverState *bs = NULL;

    while ((bs = bdrv_next_node(bs))) {
        if (bdrv_get_flags(bs) & BDRV_O_NOCACHE) {
            error_setg(errp, "split memory with direct I/O to a disk ('%s' at "
                       "the destination) needs Linux 6.8 or later there: "
                       "use cache=writeback", bdrv_get_node_name(bs));
            return false;
        }
        if (bdrv_is_sg(bs)) {
            /* The host's device reads and writes guest memory itself */
            error_setg(errp, "split memory with a SCSI device of the host "
                       "('%s' at the destination) needs Linux 6.8 or later "
                       "there: use scsi-hd", bdrv_get_node_name(bs));
            return false;
        }
    }
    return true;
}

/*
 * The kernel's vhost-scsi keeps pages from being freed, but not from being
 * moved: not even UFFDIO_MOVE refuses them
 */
static bool check_vhost_scsi(Error **errp)
{
    bool ambiguous = false;

    if (object_resolve_path_type("", "vhost-scsi", &ambiguous) || ambiguous) {
        error_setg(errp, "split memory does not work with vhost-scsi at the "
                   "destination");
        return false;
    }
    return true;
}

/* What is loaded is, as a rule, loaded in a coroutine */
static bool coroutine_mixed_fn check_disks(Error **errp)
{
    if (qemu_in_coroutine()) {
        GRAPH_RDLOCK_GUARD();
        return check_nodes(errp);
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return check_nodes(errp);
}

/* -- What pager.h has -- */

bool pager_prepare(const SplitSetup *s, Error **errp)
{
    uint64_t features;

    if (pager.setup) {
        error_setg(errp, "this VM's memory is split already");
        return false;
    }
    if (!pager_uffd_features(&features, errp) || !find_blocks(s, errp)) {
        return false;
    }
    pager.no_move = !(features & UFFD_FEATURE_MOVE) ||
                    redirect_fault("pager-move");
    pager.no_poison = !(features & UFFD_FEATURE_POISON) ||
                      redirect_fault("pager-poison");
    if ((pager.no_move && !check_disks(errp)) || !check_vhost_scsi(errp)) {
        return false;
    }
    if (qemu_real_host_page_size() != SPLIT_PAGE_SIZE) {
        error_setg(errp, "split memory needs a host with pages of %d bytes",
                   SPLIT_PAGE_SIZE);
        return false;
    }
    if (should_mlock(mlock_state)) {
        error_setg(errp, "split memory does not work with -overcommit "
                   "mem-lock at the destination");
        return false;
    }
    if (ram_block_discard_require(true)) {
        error_setg(errp, "split memory does not work with devices that pin "
                   "guest memory (VFIO, vDPA) at the destination");
        return false;
    }
    pager.setup = split_setup_clone(s);
    if (!get_creds(s, errp) || !try_hosts(errp)) {
        unprepare();
        return false;
    }
    advise_blocks(s, true);
    return true;
}

void pager_discard(unsigned block, uint64_t first, uint64_t n)
{
    RAMBlock *rb = qemu_ram_block_by_name(pager.setup->blocks[block].idstr);

    if (rb) {
        /* What this cannot discard, pager_attach() cannot either, and says */
        ram_block_discard_range(rb, first * SPLIT_PAGE_SIZE,
                                n * SPLIT_PAGE_SIZE);
    }
}

bool pager_attach(const SplitLayout *l, Error **errp)
{
    const SplitSetup *s = pager.setup;
    g_autofree PagerRegion *regions = g_new0(PagerRegion, s->n_blocks);
    g_autofree PagerHostConfig *hosts = g_new0(PagerHostConfig, s->n_hosts);
    PagerConfig config = {
        .regions = regions, .n_regions = s->n_blocks,
        .hosts = hosts, .n_hosts = s->n_hosts,
        .limit = limit_pages(s->main_memory),
        .last_version = l->last_version,
        .timeout_ms = LINK_TIMEOUT_MS,
        .no_move = pager.no_move,
        .connect = engine_connect, .changed = engine_changed,
    };
    unsigned i;

    if (!ref_blocks(s, errp)) {
        return false;
    }
    for (i = 0; i < s->n_blocks; i++) {
        regions[i] = (PagerRegion) {
            .name = s->blocks[i].idstr, .block = s->blocks[i].id,
            .host = qemu_ram_get_host_addr(pager.blocks[i]),
            .pages = s->blocks[i].pages,
            .local = l->blocks[i].local, .remote = l->blocks[i].remote,
            .extent_host = l->blocks[i].host,
        };
    }
    for (i = 0; i < s->n_hosts; i++) {
        hosts[i].name = s->hosts[i].uri;
        hosts[i].capacity = s->hosts[i].capacity / SPLIT_PAGE_SIZE;
    }
    error_setg(&pager.blocker, "The memory of this VM is split: bring it home "
               "with remote-memory-gather first");
    if (migrate_add_blocker_internal(&pager.blocker, errp)) {
        unref_blocks();
        return false;
    }
    pager.states = g_new0(PagerHostState, s->n_hosts);
    pager.engine = pager_engine_new(&config, errp);
    if (!pager.engine) {
        unref_blocks();
        migrate_del_blocker(&pager.blocker);
        g_clear_pointer(&pager.states, g_free);
        return false;
    }
    qatomic_set(&pager.attached, true);
    qapi_event_send_remote_memory(REMOTE_MEMORY_STATUS_ATTACHED, NULL, NULL);
    return true;
}

void pager_abort(void)
{
    if (pager.leaving) {
        return;
    }
    if (pager.engine) {
        /* The source, whose epoch is over, cannot */
        pager_engine_end_sessions(pager.engine);
        g_clear_pointer(&pager.engine, pager_engine_free);
        detached();
    } else if (pager.setup) {
        advise_blocks(pager.setup, false);
    }
    if (pager.setup) {
        unprepare();
    }
}

bool pager_set_main_memory(uint64_t bytes, Error **errp)
{
    if (!pager.engine) {
        return true;
    }
    if (bytes < pager.unmanaged + MIN_MANAGED) {
        error_setg(errp, "main-memory of %" PRIu64 " bytes is too small: the "
                   "devices of this VM need %" PRIu64, bytes,
                   pager.unmanaged + MIN_MANAGED);
        return false;
    }
    pager.setup->main_memory = bytes;
    pager_engine_set_limit(pager.engine, limit_pages(bytes));
    return true;
}

void pager_init(void)
{
    qemu_sem_init(&pager.told, 0);
    pager.shutdown.notify = on_shutdown;
    qemu_register_shutdown_notifier(&pager.shutdown);
    pager.exit.notify = on_process_exit;
    qemu_add_exit_notifier(&pager.exit);
    pager_monitor_init();
}
