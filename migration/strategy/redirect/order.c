/*
 * Redirect: the order to the old destination, to become the relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "../message.h"
#include "order.h"
#include "probe.h"
#include "request.h"

/* Most BITMAPs in one part of the section */
#define BITMAPS_A_PART (STRATEGY_MSG_MAX_COUNT / 2)
/* How often a wait looks whether the migration is still alive */
#define WAIT_SLICE_MS 100

/* Migration thread only; of value while the order is written */
static struct {
    bool now;
    bool begun;
    const RedirectBlocks *blocks;
    RedirectOwed *owed;
    const RedirectReady *ready;
    const char *hostname;       /* of the new destination, or NULL */
    unsigned block;             /* of the next BITMAP */
    uint64_t first;
} order;

static QemuSemaphore accepted;  /* by the old destination */

void redirect_order_init(void)
{
    qemu_sem_init(&accepted, 0);
}

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

bool redirect_orders(void)
{
    return order.now;
}

static void order_put_head(QEMUFile *f)
{
    g_autoptr(GByteArray) buf = g_byte_array_new();
    const char *tls_hostname = migrate_tls_hostname();
    RedirectOrder o = {
        .session = *redirect_probe_session(),
        .blocks = order.blocks->n,
        .tls = order.ready->tls,
        .pages = redirect_owed_left(order.owed),
        .max_rate = migrate_max_bandwidth(),
    };

    pstrcpy(o.address, sizeof(o.address), order.ready->address);
    if (!tls_hostname || !*tls_hostname) {
        tls_hostname = order.hostname ?: "";
    }
    pstrcpy(o.tls_hostname, sizeof(o.tls_hostname), tls_hostname);
    redirect_order_encode(buf, &o);
    strategy_message_put(f, STRATEGY_MSG_RELAY_ORDER, STRATEGY_MSG_REQUIRED,
                         buf->data, buf->len);
    redirect_blocks_put(f, order.blocks);
}

void redirect_save_order(QEMUFile *f)
{
    g_autoptr(GByteArray) buf = g_byte_array_new();

    if (!order.begun) {
        order.begun = true;
        order_put_head(f);
    }
    for (int i = 0; i < BITMAPS_A_PART; i++) {
        g_byte_array_set_size(buf, 0);
        if (!redirect_owed_encode(order.owed, buf, &order.block,
                                  &order.first)) {
            order.now = false;
            return;
        }
        strategy_message_put(f, STRATEGY_MSG_RELAY_BITMAP,
                             STRATEGY_MSG_REQUIRED, buf->data, buf->len);
    }
}

bool redirect_order_send(const RedirectBlocks *blocks, RedirectOwed *owed,
                         const RedirectReady *ready, const char *hostname)
{
    MigrationState *s = migrate_get_current();

    while (qemu_sem_timedwait(&accepted, 0) == 0) {
        /* Of an old destination that answered too late */
    }
    order.begun = false;
    order.block = order.first = 0;
    order.blocks = blocks;
    order.owed = owed;
    order.ready = ready;
    order.hostname = hostname;
    order.now = true;
    while (order.now && !qemu_file_get_error(s->to_dst_file)) {
        /* No limit shall keep the section out of this turn */
        migration_rate_reset();
        qemu_savevm_state_iterate(s->to_dst_file, false);
    }
    order.now = false;
    return qemu_fflush(s->to_dst_file) == 0;
}

bool redirect_order_accepted(void)
{
    MigrationState *s = migrate_get_current();
    int64_t since = now_ms();
    uint64_t most = 0, taken;

    /* What was sent before the order may take its time on a slow link */
    while (now_ms() - since < REDIRECT_ACCEPT_MS) {
        taken = redirect_taken_by_old(NULL);
        if (taken > most) {
            most = taken;
            since = now_ms();
        }
        if (qemu_sem_timedwait(&accepted, WAIT_SLICE_MS) == 0) {
            return true;
        }
        if (s->state != MIGRATION_STATUS_ACTIVE || migrate_has_error(s) ||
            qemu_file_get_error(s->to_dst_file)) {
            break;
        }
    }
    return false;
}

void redirect_order_note_accepted(void)
{
    qemu_sem_post(&accepted);
}
