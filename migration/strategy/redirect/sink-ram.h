/*
 * Redirect: the sink that fills this QEMU's guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread with the BQL, as the incoming coroutine, but where it says
 * otherwise.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_SINK_RAM_H
#define MIGRATION_STRATEGY_REDIRECT_SINK_RAM_H

#include "migration/strategy.h"
#include "qapi/qapi-types-strategy.h"
#include "../message.h"

/*
 * redirect_sink_message: take in SETUP or BLOCKS
 *
 * After the last BLOCKS the sink listens, and the source is sent READY, or
 * REFUSED when that was not possible.  False only when the stream is wrong.
 */
bool redirect_sink_message(const StrategyMessage *m, Error **errp);

/*
 * redirect_sink_source_page: the source sends this page; before it is
 * written.  @flags, RAM_SAVE_FLAG_*, are those of its header, which was read
 * from @f; what follows is not read.  Thread that loads RAM.  To be called
 * while redirect_sink_active is set, which migration/strategy.h declares.
 */
void redirect_sink_source_page(QEMUFile *f, int flags, RAMBlock *block,
                               ram_addr_t offset);

/*
 * redirect_sink_end: nothing more is taken from the relay, and no page is
 * being written when it returns.  Idempotent; before any device state is
 * loaded, and before guest memory or the return path goes away.
 */
void redirect_sink_end(void);

/* redirect_sink_info: figures; NULL when no redirect came here */
RamStrategyRedirectInfo *redirect_sink_info(void);

#endif
