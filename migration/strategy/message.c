/*
 * Messages of the savevm section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "message.h"

void strategy_message_put(QEMUFile *f, uint16_t type, uint16_t flags,
                          const void *payload, uint32_t len)
{
    assert(len <= STRATEGY_MSG_MAX_LEN);
    qemu_put_be16(f, type);
    qemu_put_be16(f, flags);
    qemu_put_be32(f, len);
    qemu_put_buffer(f, payload, len);
}

void strategy_message_put_end(QEMUFile *f)
{
    strategy_message_put(f, STRATEGY_MSG_END, 0, NULL, 0);
}

/* Whether the header of @m, just read from @f, can be believed */
static bool validate_header(QEMUFile *f, const StrategyMessage *m,
                            Error **errp)
{
    if (qemu_file_get_error(f)) {
        error_setg(errp, "ram-strategy: the stream ended in a message");
        return false;
    }
    if (m->len > STRATEGY_MSG_MAX_LEN) {
        error_setg(errp, "ram-strategy: message %u of %" PRIu32 " bytes, more "
                   "than %d are not allowed", m->type, m->len,
                   STRATEGY_MSG_MAX_LEN);
        return false;
    }
    if (m->type == STRATEGY_MSG_END && (m->len || m->flags)) {
        error_setg(errp, "ram-strategy: the end of a list has %" PRIu32
                   " bytes and flags 0x%x", m->len, m->flags);
        return false;
    }
    return true;
}

bool strategy_message_get_all(QEMUFile *f, StrategyMessageFunc *func,
                              void *opaque, Error **errp)
{
    for (int i = 0; i < STRATEGY_MSG_MAX_COUNT; i++) {
        g_autofree uint8_t *payload = NULL;
        StrategyMessage m = {};

        m.type = qemu_get_be16(f);
        m.flags = qemu_get_be16(f);
        m.len = qemu_get_be32(f);
        if (!validate_header(f, &m, errp)) {
            return false;
        }
        if (m.type == STRATEGY_MSG_END) {
            return true;
        }
        m.payload = payload = g_malloc(m.len);
        if (qemu_get_buffer(f, payload, m.len) != m.len) {
            error_setg(errp, "ram-strategy: the stream ended in message %u",
                       m.type);
            return false;
        }
        if (!func(&m, opaque, errp)) {
            return false;
        }
    }
    error_setg(errp, "ram-strategy: more than %d messages",
               STRATEGY_MSG_MAX_COUNT);
    return false;
}

bool strategy_message_unknown(const StrategyMessage *m, Error **errp)
{
    if (m->flags & STRATEGY_MSG_REQUIRED) {
        error_setg(errp, "ram-strategy: the source requires message %u, "
                   "which this QEMU does not know: it is of a later version",
                   m->type);
        return false;
    }
    return true;
}
