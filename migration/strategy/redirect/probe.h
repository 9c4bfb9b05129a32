/*
 * Redirect: the stream to a new destination, while it only has the set-up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Made beside the stream to the old destination, which goes on whatever goes
 * wrong here.  There is at most one.  Migration thread, if nothing else is
 * said.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_PROBE_H
#define MIGRATION_STRATEGY_REDIRECT_PROBE_H

#include "migration/qemu-file.h"
#include "qobject/json-writer.h"
#include "channel.h"
#include "wire.h"

/*
 * redirect_probe_begin: set the stream up; another thread writes it
 *
 * @ioc: where to; registered with yank
 * @blocks: what the relay will be asked for; stays the caller's
 * @number: of the redirect, from 1
 *
 * Without the BQL, which it takes.  After an error, redirect_probe_drop() is
 * due as well.
 */
bool redirect_probe_begin(QIOChannel *ioc, const RedirectBlocks *blocks,
                          uint32_t number, Error **errp);

/* redirect_probe_poll: the answer, if there is one; only once it has begun */
RedirectAnswer redirect_probe_poll(RedirectReady *ready, Error **errp);

/* redirect_probe_answered: nobody but the caller reads what comes next */
void redirect_probe_answered(void);

/* redirect_probe_session: of the relay; what the new destination knows */
const RedirectSession *redirect_probe_session(void);

/* redirect_probe_rtt_ms: the round trip; once it was answered */
int64_t redirect_probe_rtt_ms(void);

/* redirect_probe_file: stays the probe's */
QEMUFile *redirect_probe_file(void);

/* redirect_probe_take: it has become the migration's; the caller owns both */
QEMUFile *redirect_probe_take(JSONWriter **vmdesc);

/*
 * redirect_probe_drop: forget one that did not come about; it fails by itself
 *
 * Also main thread, when the migration thread is gone; without one, nothing
 * happens.
 */
void redirect_probe_drop(void);

/* redirect_blocks_put: the table, behind SETUP or ORDER; migration thread */
void redirect_blocks_put(QEMUFile *f, const RedirectBlocks *blocks);

/* redirect_save_setup: SETUP and BLOCKS, as part of the set-up */
void redirect_save_setup(QEMUFile *f);

/*
 * redirect_forget_error: what went wrong is not the migration's business
 *
 * @only: nothing but this error; NULL: whatever it was
 */
void redirect_forget_error(const Error *only);

#endif
