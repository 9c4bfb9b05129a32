/*
 * Redirect: the sink that fills this QEMU's guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "creds.h"
#include "sink-ram.h"
#include "sink.h"

/* What stands before an XBZRLE-encoded page in the stream, bytes */
#define XBZRLE_HEAD 3

bool redirect_sink_active;

/* Main thread, but for what says otherwise */
static struct {
    bool expected;              /* SETUP came */
    RedirectSetup setup;
    RedirectBlocks blocks;
    RAMBlock **ram;             /* of each region; threads of the sink too */
    RedirectMerge *merge;
    RedirectSink *sink;

    /* Block and region of the last page from the source */
    RAMBlock *last_block;
    RedirectRegion *last_region;
    uint64_t source_bytes;      /* in the stream, see stream_bytes() */

    bool ended;                 /* there was one, and this is how it was */
    RedirectRelay relay;
    uint64_t rate;              /* of the relay */
    RedirectMergeCounts counts;
} incoming;

static void send_to_source(const void *buf, size_t len)
{
    /* When this fails the main stream fails, too */
    migrate_send_rp_strategy(migration_incoming_get_current(), buf, len);
}

static void on_report(const void *buf, size_t len, void *opaque)
{
    send_to_source(buf, len);
}

static void on_received(unsigned block, uint64_t page, void *opaque)
{
    RAMBlock *rb = incoming.ram[block];

    if (rb->receivedmap) {
        ramblock_recv_bitmap_set_offset(rb, page * PAGELINK_PAGE_SIZE);
    }
}

/* Where the source has reached us is where the relay will, on another port */
static SocketAddress *choose_address(Error **errp)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    QIOChannel *ioc = qemu_file_get_ioc(mis->from_src_file);
    QIOChannelTLS *tioc = (QIOChannelTLS *)
        object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_TLS);
    QIOChannelSocket *sioc = (QIOChannelSocket *)
        object_dynamic_cast(OBJECT(tioc ? tioc->master : ioc),
                            TYPE_QIO_CHANNEL_SOCKET);
    SocketAddress *a;

    if (!sioc) {
        error_setg(errp, "the migration does not come over a socket");
        return NULL;
    }
    a = qio_channel_socket_get_local_address(sioc, errp);
    if (!a) {
        return NULL;
    }
    if (a->type == SOCKET_ADDRESS_TYPE_INET) {
        const char *v4;

        g_free(a->u.inet.port);
        a->u.inet.port = g_strdup("0");
        if (strstart(a->u.inet.host, "::ffff:", &v4)) {
            char *host = g_strdup(v4);

            g_free(a->u.inet.host);
            a->u.inet.host = host;
            a->u.inet.has_ipv4 = a->u.inet.has_ipv6 = false;
        }
    } else if (a->type == SOCKET_ADDRESS_TYPE_UNIX) {
        char *path = g_strdup_printf("%s.relay", a->u.q_unix.path);

        g_free(a->u.q_unix.path);
        a->u.q_unix.path = path;
    }
    return a;
}

static bool find_ram(Error **errp)
{
    incoming.ram = g_new0(RAMBlock *, incoming.blocks.n);
    for (uint32_t i = 0; i < incoming.blocks.n; i++) {
        const RedirectBlock *b = &incoming.blocks.block[i];
        RAMBlock *rb = qemu_ram_block_by_name(b->name);

        if (!rb || rb->used_length != b->pages * PAGELINK_PAGE_SIZE) {
            error_setg(errp, "redirect: RAM block %s has not %" PRIu64
                       " pages here", b->name, b->pages);
            return false;
        }
        incoming.ram[i] = rb;
        redirect_merge_add(incoming.merge, rb->host, b->pages);
    }
    return true;
}

static bool listen_for_relay(Error **errp)
{
    RedirectSinkOptions o = {
        .session = incoming.setup.session,
        .blocks = &incoming.blocks,
        .merge = incoming.merge,
        .tls_authz = migrate_tls_authz(),
        .report = on_report,
        .received = on_received,
    };
    SocketAddress *address = choose_address(errp);

    if (!address) {
        return false;
    }
    if (migrate_tls()) {
        o.tls_creds = redirect_creds_server(errp);
        if (!o.tls_creds) {
            qapi_free_SocketAddress(address);
            return false;
        }
    }
    o.listen = address;
    incoming.sink = redirect_sink_new(&o, errp);
    object_unref(OBJECT(o.tls_creds));
    qapi_free_SocketAddress(address);
    return incoming.sink;
}

static void answer_source(void)
{
    uint8_t buf[REDIRECT_RP_MAX_LEN];
    RedirectReady ready = { .tls = migrate_tls() };
    Error *err = NULL;
    size_t len;

    if (listen_for_relay(&err)) {
        pstrcpy(ready.address, sizeof(ready.address),
                redirect_sink_address(incoming.sink));
        len = redirect_rp_encode_ready(buf, &ready);
        qatomic_set(&redirect_sink_active, true);
    } else {
        len = redirect_rp_encode_refused(buf, error_get_pretty(err));
        error_free(err);
    }
    send_to_source(buf, len);
}

bool redirect_sink_message(const StrategyMessage *m, Error **errp)
{
    if (m->type == STRATEGY_MSG_REDIRECT_SETUP) {
        redirect_sink_end();
        if (!redirect_setup_decode(&incoming.setup, m->payload, m->len,
                                   errp)) {
            return false;
        }
        if (qemu_target_page_size() != PAGELINK_PAGE_SIZE) {
            error_setg(errp, "redirect: only for pages of %d bytes",
                       PAGELINK_PAGE_SIZE);
            return false;
        }
        incoming.blocks.expected = incoming.setup.blocks;
        incoming.merge = redirect_merge_new();
        incoming.expected = true;
        incoming.ended = false;
        incoming.relay = (RedirectRelay) { };
        incoming.rate = 0;
        incoming.source_bytes = 0;
        return true;
    }
    if (!incoming.expected) {
        error_setg(errp, "redirect: blocks without a set-up");
        return false;
    }
    if (!redirect_blocks_decode(&incoming.blocks, m->payload, m->len, errp)) {
        return false;
    }
    if (incoming.blocks.n == incoming.blocks.expected) {
        if (!find_ram(errp)) {
            return false;
        }
        answer_source();
    }
    return true;
}

/*
 * What a page takes in the stream: its header, which has been read, and what
 * follows, as ram_load_precopy() will read it
 */
static uint64_t stream_bytes(QEMUFile *f, int flags, RAMBlock *block)
{
    uint64_t bytes = sizeof(uint64_t);
    uint8_t *head;

    if (!(flags & RAM_SAVE_FLAG_CONTINUE)) {
        bytes += 1 + strlen(block->idstr);
    }
    if (flags & RAM_SAVE_FLAG_ZERO) {
        return bytes + 1;
    }
    if (!(flags & RAM_SAVE_FLAG_XBZRLE)) {
        return bytes + qemu_target_page_size();
    }
    /* Kind and length, then the encoded page */
    if (qemu_peek_buffer(f, &head, XBZRLE_HEAD, 0) == XBZRLE_HEAD) {
        bytes += XBZRLE_HEAD + lduw_be_p(head + 1);
    }
    return bytes;
}

void redirect_sink_source_page(QEMUFile *f, int flags, RAMBlock *block,
                               ram_addr_t offset)
{
    incoming.source_bytes += stream_bytes(f, flags, block);
    if (block != incoming.last_block) {
        incoming.last_block = block;
        incoming.last_region = NULL;
        for (uint32_t i = 0; i < incoming.blocks.n; i++) {
            if (incoming.ram[i] == block) {
                incoming.last_region = redirect_merge_region(incoming.merge,
                                                             i);
            }
        }
    }
    if (incoming.last_region) {
        redirect_merge_source(incoming.merge, incoming.last_region,
                              offset / PAGELINK_PAGE_SIZE);
    }
}

void redirect_sink_end(void)
{
    if (!incoming.expected) {
        return;
    }
    qatomic_set(&redirect_sink_active, false);
    if (incoming.sink) {
        redirect_sink_query(incoming.sink, &incoming.relay);
        incoming.rate = redirect_sink_rate(incoming.sink);
        redirect_sink_free(g_steal_pointer(&incoming.sink));
    }
    redirect_merge_counts(incoming.merge, &incoming.counts);
    incoming.relay.pages = incoming.counts.relay;
    g_clear_pointer(&incoming.merge, redirect_merge_free);
    g_clear_pointer(&incoming.ram, g_free);
    g_clear_pointer(&incoming.blocks.block, g_free);
    incoming.blocks.n = 0;
    incoming.last_block = NULL;
    incoming.last_region = NULL;
    incoming.expected = false;
    incoming.ended = true;
}

static RamRelayState relay_state(uint16_t state)
{
    switch (state) {
    case REDIRECT_RELAY_CONNECTED:
        return RAM_RELAY_STATE_ACTIVE;
    case REDIRECT_RELAY_DONE:
        return RAM_RELAY_STATE_COMPLETED;
    case REDIRECT_RELAY_LOST:
        return RAM_RELAY_STATE_LOST;
    default:
        return RAM_RELAY_STATE_CONNECTING;
    }
}

RamStrategyRedirectInfo *redirect_sink_info(void)
{
    RamStrategyRedirectInfo *info;
    RedirectMergeCounts counts = incoming.counts;
    RedirectRelay relay = incoming.relay;
    uint64_t rate = incoming.rate;

    if (!incoming.expected && !incoming.ended) {
        return NULL;
    }
    if (incoming.expected) {
        redirect_merge_counts(incoming.merge, &counts);
        relay = (RedirectRelay) { };
        rate = 0;
        if (incoming.sink) {
            redirect_sink_query(incoming.sink, &relay);
            rate = redirect_sink_rate(incoming.sink);
        }
    }
    info = g_new0(RamStrategyRedirectInfo, 1);
    info->role = RAM_REDIRECT_ROLE_DESTINATION;
    info->redirects = incoming.setup.session.number;
    info->has_relay = true;
    info->relay = relay_state(relay.state);
    info->has_source_pages = info->has_source_bytes = true;
    info->source_pages = counts.source;
    info->source_bytes = incoming.source_bytes;
    info->has_relay_pages = true;
    info->relay_pages = counts.relay;
    info->has_relay_zero_pages = info->has_duplicates = true;
    info->relay_zero_pages = counts.zero;
    info->duplicates = counts.duplicates;
    info->has_relay_bytes = info->has_relay_rate = true;
    info->relay_bytes = relay.bytes;
    info->relay_rate = rate;
    return info;
}
