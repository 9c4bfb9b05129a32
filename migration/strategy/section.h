/*
 * The savevm section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is in the stream only while a strategy is in force.  Each part of the
 * section is a list of messages:
 *
 *   be16 type, be16 flags, be32 length, payload[length]
 *
 * that ends with STRATEGY_MSG_END.  A reader skips types that it does not
 * know, unless STRATEGY_MSG_REQUIRED is set: then it fails the migration.
 * SECTION_START carries STRATEGY_MSG_CONFIG, whose payload config.h
 * describes; SECTION_END comes before any device state and is empty today.
 *
 * The section is registered when the first strategy comes into force, at
 * the source, or when the stream names it, at the destination: a section
 * that is registered takes a number, and would shift the numbers of all
 * sections behind it in the stream of a QEMU that never uses a strategy.
 */
#ifndef MIGRATION_STRATEGY_SECTION_H
#define MIGRATION_STRATEGY_SECTION_H

#include "qapi/qapi-types-strategy.h"

#define STRATEGY_SECTION            "ram-strategy"
#define STRATEGY_SECTION_VERSION    1

#define STRATEGY_MSG_END            0
#define STRATEGY_MSG_CONFIG         1

#define STRATEGY_MSG_REQUIRED       0x0001

#define STRATEGY_MSG_MAX_LEN        (64 * 1024)

/* strategy_section_register: idempotent; main thread or incoming coroutine */
void strategy_section_register(void);

/*
 * strategy_section_query: what the stream said, at the destination
 *
 * The caller owns the result; NULL when no strategy came in.
 */
RamStrategyInfo *strategy_section_query(void);

#endif
