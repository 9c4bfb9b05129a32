/*
 * Redirect: messages of the new destination to the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "return-path.h"

bool redirect_return_path_handle(const RedirectReturnPathOps *ops,
                                 const RedirectBlocks *blocks,
                                 const uint8_t *buf, size_t len, void *opaque,
                                 Error **errp)
{
    RedirectRp rp;

    if (!redirect_rp_decode(&rp, blocks, buf, len, errp)) {
        return false;
    }
    switch (rp.type) {
    case REDIRECT_RP_READY:
        ops->ready(&rp.ready, opaque);
        break;
    case REDIRECT_RP_REFUSED:
        ops->refused(rp.sentence, opaque);
        break;
    case REDIRECT_RP_ACCEPTED:
        ops->accepted(opaque);
        break;
    case REDIRECT_RP_HAVE:
        ops->have(&rp.have, opaque);
        break;
    case REDIRECT_RP_RELAY:
        ops->relay(&rp.relay, opaque);
        break;
    default:
        g_assert_not_reached();
    }
    return true;
}
