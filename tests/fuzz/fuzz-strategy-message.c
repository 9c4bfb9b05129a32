/*
 * Fuzzer: the messages of the savevm section "ram-strategy"
 *
 * Input: any bytes, taken as what the source sent.  Whatever the parser
 * accepts must be within the limits of message.h, and what it makes of a
 * configuration or of split memory's set-up and map must be the same after
 * encoding it again.
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
    return 0;
}
