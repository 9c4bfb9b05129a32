/*
 * Split memory: the source, from set-up to clean-up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The sessions are made before the first page is sent, by the senders'
 * threads.  The map of the pages goes into the section at the end of each
 * pass, only what has changed, so that little is left to send when the guest
 * is stopped.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "qemu/uuid.h"
#include "qemu/yank.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-strategy.h"
#include "crypto/random.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/strategy.h"
#include "migration/yank_functions.h"
#include "qom/object.h"
#include "system/system.h"
#include "source.h"
#include "../pager/shares.h"
#include "split.h"
#include "wire.h"
#include "../trace.h"

/*
 * When the guest is stopped, what is left fits the downtime limit, as far as
 * can be known.  A memory host has so long, or ten times the limit.
 */
#define STOPPED_MS          5000
/* An answer that says that a memory host is there, and how long it does */
#define ANSWER_FRESH_MS     3000
/* After a wait, what fitted may fit no more */
#define ANSWER_AT_ONCE_MS   20

/* Of main-memory: with so much to be freed, the destination is told at once */
#define LEFT_PART           64

bool strategy_routes_pages;
bool strategy_routes_blocked;

/* Set and cleared with the BQL; the migration thread may read it without */
static SplitSource *source;
/* What the last one did; BQL */
static RamSplitInfo *last_info;

SplitSource *split_source_now(void)
{
    return source;
}

bool split_source_alive(void)
{
    MigrationState *s = migrate_get_current();

    return s->state != MIGRATION_STATUS_CANCELLING && !migrate_has_error(s);
}

void split_source_fail(Error *err)
{
    MigrationState *s = migrate_get_current();

    trace_split_fail(error_get_pretty(err));
    migrate_set_error(s, err);
    error_free(err);
    /* What the loop of the migration thread looks at */
    qemu_file_set_error(s->to_dst_file, -EIO);
}

static void source_free(SplitSource *s, bool end)
{
    for (unsigned i = 0; s->hosts && i < s->setup->n_hosts; i++) {
        SplitSender *sender = s->hosts[i].sender;

        if (sender) {
            yank_unregister_function(MIGRATION_YANK_INSTANCE,
                                     (YankFn *)split_sender_yank, sender);
            split_sender_close(sender, end);
        }
    }
    for (unsigned i = 0; i < s->n_blocks; i++) {
        memory_region_unref(s->blocks[i].rb->mr);
        g_free(s->blocks[i].changed);
        if (s->layout) {
            s->layout->blocks[i].local = NULL;
            s->layout->blocks[i].remote = NULL;
        }
    }
    split_layout_free(s->layout);
    placement_free(s->placement);
    split_setup_free(s->setup);
    g_free(s->blocks);
    g_free(s->hosts);
    g_free(s->dirty);
    g_clear_pointer(&s->later, g_array_unref);
    g_free(s);
}

static QCryptoTLSCreds *find_creds(Error **errp)
{
    const char *id = migrate_tls_creds();
    Object *creds = object_resolve_path_component(object_get_objects_root(),
                                                  id);

    if (!creds || !object_dynamic_cast(creds, TYPE_QCRYPTO_TLS_CREDS)) {
        error_setg(errp, "split memory: no TLS credentials with id '%s'", id);
        return NULL;
    }
    if (!qcrypto_tls_creds_check_endpoint(QCRYPTO_TLS_CREDS(creds),
                                          QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT,
                                          errp)) {
        return NULL;
    }
    return QCRYPTO_TLS_CREDS(creds);
}

/* What the destination will be told, but for what the memory hosts say */
static SplitSetup *make_setup(const SplitSource *s, const RamSplit *config,
                              Error **errp)
{
    unsigned n_hosts = QAPI_LIST_LENGTH(config->memory_hosts), i = 0;
    g_autoptr(SplitSetup) setup = split_setup_new(n_hosts, s->n_blocks);
    QemuUUID uuid;

    qemu_uuid_generate(&uuid);
    memcpy(setup->uuid, uuid.data, sizeof(setup->uuid));
    if (qcrypto_random_bytes(setup->key, sizeof(setup->key), errp) < 0) {
        return NULL;
    }
    setup->epoch = 1;
    setup->main_memory = config->main_memory;
    setup->tls = migrate_tls();
    for (RamMemoryHostList *h = config->memory_hosts; h; h = h->next, i++) {
        setup->hosts[i].uri = g_strdup(h->value->uri);
        setup->hosts[i].tls_hostname = g_strdup(h->value->tls_hostname);
        setup->hosts[i].capacity = h->value->has_capacity ?
                                   h->value->capacity : UINT64_MAX;
    }
    for (i = 0; i < s->n_blocks; i++) {
        setup->blocks[i] = (SplitBlock) {
            .id = i, .idstr = g_strdup(s->blocks[i].rb->idstr),
            .pages = s->blocks[i].pages,
        };
    }
    return g_steal_pointer(&setup);
}

/* Everything that takes no time; the senders start to connect */
static bool source_start(SplitSource *s, const RamSplit *config, Error **errp)
{
    QCryptoTLSCreds *creds = NULL;
    SplitSourceBlock *last;
    uint64_t unmanaged;

    s->blocks = split_blocks_find(&s->n_blocks, &unmanaged, errp);
    if (!s->blocks) {
        s->n_blocks = 0;
        return false;
    }
    for (unsigned i = 0; i < s->n_blocks; i++) {
        SplitSourceBlock *b = &s->blocks[i];

        memory_region_ref(b->rb->mr);
        b->changed = bitmap_new(DIV_ROUND_UP(b->pages, SPLIT_CHUNK_PAGES));
        bitmap_fill(b->changed, DIV_ROUND_UP(b->pages, SPLIT_CHUNK_PAGES));
    }
    last = &s->blocks[s->n_blocks - 1];
    s->pages = last->base + last->pages;
    s->detect_zero = migrate_zero_page_detection() != ZERO_PAGE_DETECTION_NONE;
    s->dirty = bitmap_new(s->pages);
    s->later = g_array_new(false, false, sizeof(uint64_t));
    s->placement = placement_new(config->placement, s->pages,
                                 (config->main_memory - unmanaged) /
                                 SPLIT_PAGE_SIZE);
    s->left_most = MAX(s->placement->budget / LEFT_PART, SPLIT_EXTENT_PAGES);
    s->setup = make_setup(s, config, errp);
    if (!s->setup) {
        return false;
    }
    s->layout = split_layout_new(s->setup);
    for (unsigned i = 0; i < s->n_blocks; i++) {
        SplitBlockLayout *b = &s->layout->blocks[i];

        g_free(b->local);
        g_free(b->remote);
        b->local = s->placement->main + BIT_WORD(s->blocks[i].base);
        b->remote = s->placement->remote + BIT_WORD(s->blocks[i].base);
    }
    if (s->setup->tls) {
        creds = find_creds(errp);
        if (!creds) {
            return false;
        }
    }
    s->hosts = g_new0(SplitSourceHost, s->setup->n_hosts);
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        s->hosts[i].sender = split_sender_new(s->setup, i, creds,
                                              qemu_get_vm_name(), 0);
        yank_register_function(MIGRATION_YANK_INSTANCE,
                               (YankFn *)split_sender_yank,
                               s->hosts[i].sender);
    }
    return true;
}

/*
 * Sessions of a migration that failed are ended in the background, and until
 * then take the room that this one is going to ask for
 */
static bool wait_ended(Error **errp)
{
    while (split_sender_running()) {
        if (!split_source_alive()) {
            error_setg(errp, "the migration was cancelled");
            return false;
        }
        g_usleep(SPLIT_WAIT_MS * 1000 / 10);
    }
    return true;
}

static bool wait_connected(SplitSource *s, Error **errp)
{
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        SplitSender *sender = s->hosts[i].sender;
        SplitSenderState state;

        do {
            if (!split_source_alive()) {
                error_setg(errp, "the migration was cancelled");
                return false;
            }
            state = split_sender_wait(sender, SPLIT_WAIT_MS);
        } while (state == SPLIT_SENDER_CONNECTING);
        if (state == SPLIT_SENDER_FAILED) {
            error_propagate(errp, split_sender_error(sender));
            return false;
        }
    }
    return true;
}

/* What a memory server needs to know of the blocks, in frames */
static uint64_t table_frames(const SplitSource *s)
{
    const uint64_t node = 512 * SPLIT_EXTENT_PAGES;
    uint64_t frames = 0;

    for (unsigned i = 0; i < s->n_blocks; i++) {
        uint64_t nodes = DIV_ROUND_UP(s->blocks[i].pages, node);

        /* A frame each; and a pointer to each, in frames, behind a head */
        frames += nodes + 1 + DIV_ROUND_UP(nodes * 8, SPLIT_PAGE_SIZE);
    }
    return frames;
}

/*
 * Now that it is known what each memory host would take.
 *
 * A server needs a frame for each extent of which it has a page.  The source
 * gives extents by room, but the pager gives a page that leaves to whoever
 * has room for it: each server may come to have a page of every extent.  The
 * last extent that a host is given may have more pages than it has room for;
 * the pager writes less at once.  Of main-memory the pager keeps a part free,
 * and another is for pages on their way out, which are at their hosts, too.
 */
static bool check_capacity(SplitSource *s, Error **errp)
{
    PagerShares shares = pager_shares(s->placement->budget);
    uint64_t room = s->placement->budget, pages = 0, extents = 0, need;
    uint64_t tables = table_frames(s);

    QEMU_BUILD_BUG_ON(SPLIT_EXTENT_PAGES < PAGER_SHARES_HOST);

    for (unsigned i = 0; i < s->n_blocks; i++) {
        pages += s->blocks[i].pages;
        extents += split_extents(s->blocks[i].pages);
    }
    need = pages + shares.staging + shares.headroom;
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        SplitSourceHost *h = &s->hosts[i];
        SplitHost *host = &s->setup->hosts[i];
        uint64_t has = split_sender_free_pages(h->sender), most;

        h->frames = has - MIN(has, tables);
        h->capacity = MIN(host->capacity / SPLIT_PAGE_SIZE, h->frames);
        most = MIN(h->capacity, h->frames - MIN(h->frames, extents));
        if (most <= SPLIT_EXTENT_PAGES) {
            error_setg(errp, "memory host %s has no room: free some, or "
                       "leave it out", host->uri);
            return false;
        }
        host->capacity = h->capacity * SPLIT_PAGE_SIZE;
        room += most - SPLIT_EXTENT_PAGES;
    }
    if (room < need) {
        error_setg(errp, "split memory: main-memory and what the memory hosts "
                   "have free for pages are %" PRIu64 " MiB together, less "
                   "than this VM's RAM, %" PRIu64 " MiB, and %" PRIu64 " MiB "
                   "for pages on their way: give %" PRIu64 " MiB more",
                   room * SPLIT_PAGE_SIZE / MiB, pages * SPLIT_PAGE_SIZE / MiB,
                   DIV_ROUND_UP((need - pages) * SPLIT_PAGE_SIZE, MiB),
                   DIV_ROUND_UP((need - room) * SPLIT_PAGE_SIZE, MiB));
        return false;
    }
    return true;
}

bool split_save_setup(QEMUFile *f, const RamSplit *config, Error **errp)
{
    g_autoptr(GByteArray) message = NULL;
    bool ok;

    assert(!source);
    g_clear_pointer(&last_info, qapi_free_RamSplitInfo);
    bql_unlock();
    ok = wait_ended(errp);
    bql_lock();
    if (!ok) {
        return false;
    }
    source = g_new0(SplitSource, 1);
    if (!source_start(source, config, errp)) {
        return false;
    }
    bql_unlock();
    ok = wait_connected(source, errp);
    bql_lock();
    if (!ok || !check_capacity(source, errp)) {
        return false;
    }
    message = split_wire_put_setup(source->setup, errp);
    if (!message) {
        return false;
    }
    strategy_message_put(f, STRATEGY_MSG_SPLIT_SETUP, STRATEGY_MSG_REQUIRED,
                         message->data, message->len);
    trace_split_begin(source->pages, source->placement->budget,
                      source->setup->n_hosts);
    qatomic_set(&strategy_routes_pages, true);
    return true;
}

/* The pages of @b from chunk @chunk on that one message takes */
static uint64_t put_map_part(QEMUFile *f, SplitSource *s, SplitSourceBlock *b,
                             uint64_t chunk, bool final)
{
    const uint64_t most = SPLIT_WIRE_MAX_PAGES / SPLIT_CHUNK_PAGES;
    uint64_t chunks = DIV_ROUND_UP(b->pages, SPLIT_CHUNK_PAGES);
    uint64_t end = find_next_zero_bit(b->changed, MIN(chunks, chunk + most),
                                      chunk);
    uint64_t first = chunk * SPLIT_CHUNK_PAGES;
    uint64_t n = MIN(b->pages, end * SPLIT_CHUNK_PAGES) - first;
    g_autoptr(GByteArray) local = NULL;
    g_autoptr(GByteArray) remote = NULL;
    g_autoptr(GByteArray) extents = NULL;

    bitmap_clear(b->changed, chunk, end - chunk);
    local = split_wire_put_local(s->layout, b - s->blocks, first, n);
    strategy_message_put(f, STRATEGY_MSG_SPLIT_LOCAL, STRATEGY_MSG_REQUIRED,
                         local->data, local->len);
    remote = split_wire_put_remote(s->layout, b - s->blocks, first, n);
    strategy_message_put(f, STRATEGY_MSG_SPLIT_REMOTE, STRATEGY_MSG_REQUIRED,
                         remote->data, remote->len);
    extents = split_wire_put_extents(s->layout, b - s->blocks,
                                     first / SPLIT_EXTENT_PAGES,
                                     split_extents(n));
    strategy_message_put(f, STRATEGY_MSG_SPLIT_EXTENTS, STRATEGY_MSG_REQUIRED,
                         extents->data, extents->len);
    trace_split_map(b->rb->idstr, first, n, final);
    return end;
}

static void put_map(QEMUFile *f, SplitSource *s, bool final)
{
    QEMU_BUILD_BUG_ON(SPLIT_CHUNK_PAGES % SPLIT_EXTENT_PAGES);
    QEMU_BUILD_BUG_ON(SPLIT_WIRE_MAX_PAGES % SPLIT_CHUNK_PAGES);

    for (unsigned i = 0; i < s->n_blocks; i++) {
        SplitSourceBlock *b = &s->blocks[i];
        uint64_t chunks = DIV_ROUND_UP(b->pages, SPLIT_CHUNK_PAGES);
        uint64_t chunk = find_first_bit(b->changed, chunks);

        while (chunk < chunks) {
            chunk = put_map_part(f, s, b, chunk, final);
            chunk = find_next_bit(b->changed, chunks, chunk);
        }
    }
    placement_told(s->placement);
}

bool split_iterates(void)
{
    return source && source->map_due;
}

void split_save_iterate(QEMUFile *f)
{
    source->map_due = false;
    put_map(f, source, false);
}

uint64_t split_map_pending(const SplitSource *s)
{
    uint64_t chunks = 0;

    for (unsigned i = 0; i < s->n_blocks; i++) {
        const SplitSourceBlock *b = &s->blocks[i];

        chunks += bitmap_count_one(b->changed, DIV_ROUND_UP(b->pages,
                                                            SPLIT_CHUNK_PAGES));
    }
    /* Of both maps, and the hosts of the extents */
    return chunks * (SPLIT_CHUNK_PAGES / 4 +
                     SPLIT_CHUNK_PAGES / SPLIT_EXTENT_PAGES);
}

uint64_t split_pending(void)
{
    uint64_t queued = 0;

    if (!source) {
        return 0;
    }
    for (unsigned i = 0; i < source->setup->n_hosts; i++) {
        SplitSenderStats stats;

        split_sender_stats(source->hosts[i].sender, &stats);
        queued += stats.queued;
    }
    return queued * SPLIT_PAGE_SIZE + split_map_pending(source);
}

bool split_wait_backlog(void)
{
    for (unsigned i = 0; source && i < source->setup->n_hosts; i++) {
        /* split_fits() counts what is under way, too */
        if (split_sender_wait_acked(source->hosts[i].sender, SPLIT_WAIT_MS) ==
            SPLIT_SENDER_LATER) {
            return true;
        }
    }
    return false;
}

/* What a memory host may take when the guest is stopped */
static int64_t patience_ms(void)
{
    return MAX(STOPPED_MS, 10 * migrate_downtime_limit());
}

/* The guest is stopped, and the memory host has had its time: it is over */
static bool is_late(SplitSource *s, unsigned host)
{
    Error *err = NULL;

    if (g_get_monotonic_time() < s->deadline) {
        return false;
    }
    error_setg(&err, "memory host %s: no answer for %" PRId64 " ms while the "
               "guest was stopped", s->setup->hosts[host].uri, patience_ms());
    split_source_fail(err);
    return true;
}

/* Wait for one; with the BQL held, for a moment only */
static SplitSenderResult wait_synced(SplitSender *sender, bool held)
{
    SplitSenderResult result;

    if (held) {
        bql_unlock();
    }
    result = split_sender_sync(sender, SPLIT_WAIT_MS);
    if (held) {
        bql_lock();
    }
    return result;
}

/*
 * All at once, then one after the other.  @held: the BQL is held, which is
 * given up now and then, or nobody could cancel.
 */
static bool sync_all(SplitSource *s, bool held)
{
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        split_sender_sync(s->hosts[i].sender, 0);
    }
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        SplitSender *sender = s->hosts[i].sender;
        SplitSenderResult result = split_sender_sync(sender, 0);

        while (result == SPLIT_SENDER_LATER) {
            if (!split_source_alive() || (held && is_late(s, i))) {
                return false;
            }
            result = wait_synced(sender, held);
        }
        if (result == SPLIT_SENDER_ERROR) {
            split_source_fail(split_sender_error(sender));
            return false;
        }
    }
    return true;
}

bool split_answers(void)
{
    SplitSource *s = source;
    int64_t start = g_get_monotonic_time();

    if (s->answered && start - s->answered < ANSWER_FRESH_MS * 1000) {
        return true;
    }
    if (!sync_all(s, false)) {
        return false;
    }
    s->answered = g_get_monotonic_time();
    return s->answered - start < ANSWER_AT_ONCE_MS * 1000;
}

bool split_save_complete(QEMUFile *f)
{
    int64_t start = g_get_monotonic_time(), synced;
    uint8_t commit[SPLIT_WIRE_COMMIT_LEN];
    bool ok;

    if (source->later->len) {
        Error *err = NULL;

        error_setg(&err, "split memory: %u pages were put off and forgotten",
                   source->later->len);
        split_source_fail(err);
        return false;
    }
    source->deadline = start + patience_ms() * 1000;
    source->finishing = true;
    ok = sync_all(source, true);
    source->finishing = false;
    if (!ok) {
        return false;
    }
    synced = g_get_monotonic_time();
    put_map(f, source, true);
    source->layout->last_version = source->version;
    split_wire_put_commit(source->layout, commit);
    strategy_message_put(f, STRATEGY_MSG_SPLIT_COMMIT, STRATEGY_MSG_REQUIRED,
                         commit, sizeof(commit));
    trace_split_complete(synced - start, g_get_monotonic_time() - synced);
    return true;
}

bool split_finishing(void)
{
    return source && source->finishing;
}

static RamSplitInfo *make_info(const SplitSource *s)
{
    RamSplitInfo *info = g_new0(RamSplitInfo, 1);
    RamSplitHostInfoList **tail = &info->hosts;

    info->main_memory = s->setup->main_memory;
    info->main_pages = s->placement->n_main;
    info->remote_pages = s->placement->n_remote;
    info->zero_pages = s->zero_pages;
    info->moved_in = s->placement->moved_in;
    info->moved_out = s->placement->moved_out;
    for (unsigned i = 0; i < s->setup->n_hosts; i++) {
        RamSplitHostInfo *host = g_new0(RamSplitHostInfo, 1);
        SplitSenderStats stats;

        split_sender_stats(s->hosts[i].sender, &stats);
        host->uri = g_strdup(s->setup->hosts[i].uri);
        host->capacity = s->hosts[i].capacity * SPLIT_PAGE_SIZE;
        host->stored = s->hosts[i].stored * SPLIT_PAGE_SIZE;
        host->pages_sent = stats.pages;
        host->bytes_sent = stats.bytes;
        host->queued = stats.queued;
        QAPI_LIST_APPEND(tail, host);
    }
    return info;
}

RamSplitInfo *split_query(void)
{
    if (source && source->hosts) {
        return make_info(source);
    }
    return last_info ? QAPI_CLONE(RamSplitInfo, last_info) : NULL;
}

void split_cleanup(bool completed)
{
    SplitSource *s = source;

    qatomic_set(&strategy_routes_pages, false);
    qatomic_set(&strategy_routes_blocked, false);
    if (s) {
        last_info = split_query();
        source = NULL;
        source_free(s, !completed);
    }
}
