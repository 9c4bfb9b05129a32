/*
 * Fuzzer: the messages of the savevm section "ram-strategy"
 *
 * Input: any bytes, taken as what the source sent.  Whatever the parser
 * accepts must be within the limits of message.h, and a configuration that
 * it accepts must be the same after encoding it again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "io/channel-buffer.h"
#include "migration/strategy/config.h"
#include "migration/strategy/message.h"
#include "fuzz.h"

static bool on_message(const StrategyMessage *m, void *opaque, Error **errp)
{
    StrategyConfig config = STRATEGY_CONFIG_DEFAULT;
    uint8_t again[STRATEGY_WIRE_CONFIG_LEN];

    assert(m->type != STRATEGY_MSG_END);
    assert(m->len <= STRATEGY_MSG_MAX_LEN);
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
    if (!strategy_message_get_all(f, on_message, NULL, &err)) {
        assert(err);
        error_free(err);
    }
    qemu_fclose(f);
    return 0;
}
