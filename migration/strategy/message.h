/*
 * Messages of the savevm section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each part of the section is a list of messages,
 *
 *   be16 type, be16 flags, be32 length, payload[length]
 *
 * that ends with STRATEGY_MSG_END.  A reader skips types that it does not
 * know, unless STRATEGY_MSG_REQUIRED is set: then it fails the migration.
 * All numbers are permanent.
 */
#ifndef MIGRATION_STRATEGY_MESSAGE_H
#define MIGRATION_STRATEGY_MESSAGE_H

#include "migration/qemu-file.h"

#define STRATEGY_MSG_END            0
#define STRATEGY_MSG_CONFIG         1
/* Split memory: split/wire.h */
#define STRATEGY_MSG_SPLIT_SETUP    16
#define STRATEGY_MSG_SPLIT_EXTENTS  17
#define STRATEGY_MSG_SPLIT_LOCAL    18
#define STRATEGY_MSG_SPLIT_COMMIT   19
#define STRATEGY_MSG_SPLIT_REMOTE   20
/* Redirect: redirect/wire.h */
#define STRATEGY_MSG_REDIRECT_SETUP 32
#define STRATEGY_MSG_RELAY_ORDER    33
#define STRATEGY_MSG_RELAY_BITMAP   34
#define STRATEGY_MSG_REDIRECT_BLOCKS 35
#define STRATEGY_MSG_REDIRECT_END   36

#define STRATEGY_MSG_REQUIRED       0x0001

/* Longest payload, bytes */
#define STRATEGY_MSG_MAX_LEN        (64 * 1024)
/*
 * Most messages in one part of the section: three for each 64 MiB of a split
 * VM, if every other chunk of its map has changed
 */
#define STRATEGY_MSG_MAX_COUNT      (1024 * 1024)

typedef struct StrategyMessage {
    uint16_t type;
    uint16_t flags;
    uint32_t len;
    const uint8_t *payload;     /* valid during the callback only */
} StrategyMessage;

/*
 * strategy_message_put: write one; @len is at most STRATEGY_MSG_MAX_LEN
 *
 * An error stays in @f, as everywhere in savevm.
 */
void strategy_message_put(QEMUFile *f, uint16_t type, uint16_t flags,
                          const void *payload, uint32_t len);

/* strategy_message_put_end: end the list */
void strategy_message_put_end(QEMUFile *f);

typedef bool StrategyMessageFunc(const StrategyMessage *m, void *opaque,
                                 Error **errp);

/*
 * strategy_message_get_all: read up to the end of the list
 *
 * Calls @func for each message, in order, once its frame was validated.
 * Stops with an error when @func does, when the stream ends or errs, or
 * when a limit is passed.
 */
bool strategy_message_get_all(QEMUFile *f, StrategyMessageFunc *func,
                              void *opaque, Error **errp);

/* strategy_message_unknown: for @func to return on a type it does not know */
bool strategy_message_unknown(const StrategyMessage *m, Error **errp);

#endif
