/*
 * Fuzzer: the messages of the savevm section "ram-strategy"
 *
 * Input: any bytes, taken as what the source sent, and as one message on the
 * return path.  Whatever the parsers accept must be within the limits of
 * message.h and redirect/wire.h, and what has one form only must be the same
 * after encoding it again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "io/channel-buffer.h"
#include "migration/strategy/config.h"
#include "migration/strategy/message.h"
#include "migration/strategy/redirect/wire.h"
#include "migration/strategy/split/wire.h"
#include "fuzz.h"

/* More pages than this a real destination would refuse by its RAM */
#define MAX_PAGES       (1 << 20)

typedef struct Split {
    SplitSetup *setup;
    SplitLayout *layout;
} Split;

static bool on_setup(const StrategyMessage *m, Split *split, Error **errp)
{
    g_autoptr(GByteArray) again = NULL;
    uint64_t pages = 0;

    if (split->setup) {
        error_setg(errp, "twice");
        return false;
    }
    split->setup = split_wire_get_setup(m->payload, m->len, errp);
    if (!split->setup) {
        return false;
    }
    again = split_wire_put_setup(split->setup, &error_abort);
    assert(again->len == m->len);
    assert(!memcmp(again->data, m->payload, m->len));
    for (unsigned i = 0; i < split->setup->n_blocks; i++) {
        pages += split->setup->blocks[i].pages;
    }
    if (pages > MAX_PAGES) {
        error_setg(errp, "too big");
        return false;
    }
    split->layout = split_layout_new(split->setup);
    return true;
}

/* The chunk's head has been checked, so that it can be read as it is */
static void check_chunk(const StrategyMessage *m, const SplitLayout *l,
                        GByteArray *(*put)(const SplitLayout *, unsigned,
                                           uint64_t, uint32_t))
{
    g_autoptr(GByteArray) again = put(l, lduw_be_p(m->payload),
                                      ldq_be_p(m->payload + 8),
                                      ldl_be_p(m->payload + 4));

    assert(again->len == m->len);
    assert(!memcmp(again->data, m->payload, m->len));
}

static bool on_split(const StrategyMessage *m, Split *split, Error **errp)
{
    SplitLayout *l = split->layout;

    if (m->type == STRATEGY_MSG_SPLIT_SETUP) {
        return on_setup(m, split, errp);
    }
    if (!l) {
        error_setg(errp, "no set-up");
        return false;
    }
    if (m->type == STRATEGY_MSG_SPLIT_EXTENTS) {
        if (!split_wire_get_extents(l, split->setup->n_hosts, m->payload,
                                    m->len, errp)) {
            return false;
        }
        check_chunk(m, l, split_wire_put_extents);
        return true;
    }
    if (m->type == STRATEGY_MSG_SPLIT_LOCAL) {
        if (!split_wire_get_local(l, m->payload, m->len, errp)) {
            return false;
        }
        check_chunk(m, l, split_wire_put_local);
        return true;
    }
    if (m->type == STRATEGY_MSG_SPLIT_REMOTE) {
        if (!split_wire_get_remote(l, m->payload, m->len, errp)) {
            return false;
        }
        check_chunk(m, l, split_wire_put_remote);
        return true;
    }
    return split_wire_get_commit(l, m->payload, m->len, errp);
}

/* What a destination remembers of a redirect while it reads a list */
static RedirectBlocks blocks;

static void again_as(const StrategyMessage *m, GByteArray *again)
{
    assert(m->len == again->len && !memcmp(again->data, m->payload, m->len));
    g_byte_array_unref(again);
}

static void expect_blocks(uint32_t n)
{
    assert(n && n <= PAGELINK_MAX_BLOCKS);
    g_clear_pointer(&blocks.block, g_free);
    blocks = (RedirectBlocks) { .expected = n };
}

static bool on_redirect(const StrategyMessage *m, Error **errp)
{
    GByteArray *again;
    RedirectSetup setup;
    RedirectOrder order;
    RedirectBitmap map;
    uint32_t n = blocks.n;

    switch (m->type) {
    case STRATEGY_MSG_REDIRECT_SETUP:
        if (!redirect_setup_decode(&setup, m->payload, m->len, errp)) {
            return false;
        }
        redirect_setup_encode(again = g_byte_array_new(), &setup);
        again_as(m, again);
        expect_blocks(setup.blocks);
        return true;
    case STRATEGY_MSG_RELAY_ORDER:
        if (!redirect_order_decode(&order, m->payload, m->len, errp)) {
            return false;
        }
        redirect_order_encode(again = g_byte_array_new(), &order);
        again_as(m, again);
        expect_blocks(order.blocks);
        return true;
    case STRATEGY_MSG_REDIRECT_BLOCKS:
        if (!redirect_blocks_decode(&blocks, m->payload, m->len, errp)) {
            assert(blocks.n == n);
            return false;
        }
        assert(blocks.n > n && blocks.n <= blocks.expected);
        redirect_blocks_encode(again = g_byte_array_new(), &blocks, n);
        again_as(m, again);
        return true;
    default:
        if (!redirect_bitmap_decode(&map, &blocks, m->payload, m->len,
                                    errp)) {
            return false;
        }
        assert(map.first + map.n <= blocks.block[map.block].pages);
        assert(map.bits + DIV_ROUND_UP(map.n, 8) == m->payload + m->len);
        return true;
    }
}

static void on_return_path(const uint8_t *data, size_t size)
{
    RedirectBlock two[] = { { "ram", 128 }, { "rom", 3 } };
    const RedirectBlocks table = { .block = two, .n = 2, .expected = 2 };
    uint8_t again[REDIRECT_RP_MAX_LEN];
    RedirectRp rp;
    size_t len = size;

    if (size > REDIRECT_RP_MAX_LEN ||
        !redirect_rp_decode(&rp, &table, data, size, NULL)) {
        return;
    }
    switch (rp.type) {
    case REDIRECT_RP_READY:
        len = redirect_rp_encode_ready(again, &rp.ready);
        break;
    case REDIRECT_RP_HAVE:
        assert(rp.have.first + rp.have.n <= two[rp.have.block].pages);
        len = redirect_rp_encode_have(again, &rp.have);
        break;
    case REDIRECT_RP_RELAY:
        len = redirect_rp_encode_relay(again, &rp.relay);
        break;
    default:
        /* REFUSED is made printable */
        return;
    }
    assert(len == size && !memcmp(again, data, size));
}

static bool on_message(const StrategyMessage *m, void *opaque, Error **errp)
{
    StrategyConfig config = STRATEGY_CONFIG_DEFAULT;
    uint8_t again[STRATEGY_WIRE_CONFIG_LEN];

    assert(m->type != STRATEGY_MSG_END);
    assert(m->len <= STRATEGY_MSG_MAX_LEN);
    if (m->type >= STRATEGY_MSG_SPLIT_SETUP &&
        m->type <= STRATEGY_MSG_SPLIT_REMOTE) {
        return on_split(m, opaque, errp);
    }
    if (m->type >= STRATEGY_MSG_REDIRECT_SETUP &&
        m->type <= STRATEGY_MSG_REDIRECT_BLOCKS) {
        return on_redirect(m, errp);
    }
    if (m->type != STRATEGY_MSG_CONFIG) {
        return strategy_message_unknown(m, errp);
    }
    if (!strategy_config_decode(&config, m->payload, m->len, errp)) {
        return false;
    }
    strategy_config_encode(&config, again);
    assert(m->len == sizeof(again));
    assert(!memcmp(again, m->payload, sizeof(again)));
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    Split split = {};
    QIOChannelBuffer *bioc;
    Error *err = NULL;
    QEMUFile *f;

    if (!ready) {
        module_call_init(MODULE_INIT_QOM);
        ready = true;
    }
    bioc = qio_channel_buffer_new(size);
    bioc->usage = size;
    if (size) {
        memcpy(bioc->data, data, size);
    }
    f = qemu_file_new_input(QIO_CHANNEL(bioc));
    object_unref(OBJECT(bioc));
    if (!strategy_message_get_all(f, on_message, &split, &err)) {
        assert(err);
        error_free(err);
    }
    split_setup_free(split.setup);
    split_layout_free(split.layout);
    qemu_fclose(f);
    g_clear_pointer(&blocks.block, g_free);
    blocks = (RedirectBlocks) { };
    on_return_path(data, size);
    return 0;
}
