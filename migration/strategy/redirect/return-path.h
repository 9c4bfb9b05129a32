/*
 * Redirect: messages of the new destination to the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * They travel on the return path as messages of the type
 * MIG_RP_MSG_STRATEGY; wire.h has their content, and
 * migrate_send_rp_strategy() sends them, from any thread.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_RETURN_PATH_H
#define MIGRATION_STRATEGY_REDIRECT_RETURN_PATH_H

#include "wire.h"

/*
 * What to do with a message, at the source.  On the thread that reads the
 * return path; all callbacks must be there.
 */
typedef struct RedirectReturnPathOps {
    void (*ready)(const RedirectReady *ready, void *opaque);
    void (*refused)(const char *sentence, void *opaque);
    void (*accepted)(void *opaque);
    void (*have)(const RedirectBitmap *have, void *opaque);
    void (*relay)(const RedirectRelay *relay, void *opaque);
} RedirectReturnPathOps;

/*
 * redirect_return_path_handle: dispatch one message
 *
 * @blocks: the complete table; HAVE is checked against it
 */
bool redirect_return_path_handle(const RedirectReturnPathOps *ops,
                                 const RedirectBlocks *blocks,
                                 const uint8_t *buf, size_t len, void *opaque,
                                 Error **errp);

#endif
