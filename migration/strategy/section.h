/*
 * The savevm section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is in the stream only while a strategy is in force.  Each part of the
 * section is a list of messages, see message.h.  SECTION_START carries
 * STRATEGY_MSG_CONFIG, whose payload config.h describes; SECTION_END comes
 * before any device state and is empty today.
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

/* strategy_section_register: idempotent; main thread or incoming coroutine */
void strategy_section_register(void);

/*
 * strategy_section_stays_stopped: was the guest stopped by its user when it
 * came in with a strategy?  Main thread, once the device state is loaded.
 */
bool strategy_section_stays_stopped(void);

/*
 * strategy_section_requested: at the destination one more page was asked for
 *
 * @in_flight: pages asked for that have not come yet, this one included.
 * Any thread; callers exclude each other.
 */
void strategy_section_requested(uint32_t in_flight);

/*
 * strategy_section_query: what the stream said, at the destination
 *
 * The caller owns the result; NULL when no strategy came in.
 */
RamStrategyInfo *strategy_section_query(void);

#endif
