/*
 * Redirect: the destinations' side of the main stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "migration/migration.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "../trace.h"
#include "channel.h"
#include "fault.h"
#include "incoming.h"
#include "relay-ram.h"
#include "sink-ram.h"
#include "wire.h"

static struct {
    bool ordered;               /* ORDER came, so BLOCKS belong to it */
    bool was_relay;             /* and not the sink, most recently */
    bool again;                 /* another migration may come in */
    bool switching;             /* all pages are here, but not the devices */
} incoming;

bool redirect_incoming_knows(uint16_t type)
{
    switch (type) {
    case STRATEGY_MSG_REDIRECT_SETUP:
    case STRATEGY_MSG_REDIRECT_BLOCKS:
    case STRATEGY_MSG_REDIRECT_END:
    case STRATEGY_MSG_RELAY_ORDER:
    case STRATEGY_MSG_RELAY_BITMAP:
        return true;
    default:
        return false;
    }
}

bool redirect_incoming_message(const StrategyMessage *m, Error **errp)
{
    switch (m->type) {
    case STRATEGY_MSG_REDIRECT_SETUP:
        incoming.ordered = incoming.was_relay = false;
        redirect_fault("after-setup");
        return redirect_sink_message(m, errp);
    case STRATEGY_MSG_REDIRECT_BLOCKS:
        return incoming.ordered ? redirect_relay_message(m, errp)
                                : redirect_sink_message(m, errp);
    case STRATEGY_MSG_REDIRECT_END:
        redirect_fault("at-switchover");
        redirect_sink_end();
        incoming.switching = true;
        return true;
    case STRATEGY_MSG_RELAY_ORDER:
        incoming.ordered = true;
        return redirect_relay_message(m, errp);
    case STRATEGY_MSG_RELAY_BITMAP:
        return redirect_relay_message(m, errp);
    default:
        g_assert_not_reached();
    }
}

void redirect_incoming_cleanup(void)
{
    redirect_sink_end();
    incoming.ordered = incoming.switching = false;
}

void redirect_incoming_check(QEMUFile *f)
{
    /* Post-copy may have gone on already, and survives this */
    if (incoming.switching &&
        postcopy_state_get() < POSTCOPY_INCOMING_LISTENING &&
        redirect_peer_left(qemu_file_get_ioc(f))) {
        error_report("redirect: the source has cancelled the migration, or is "
                     "gone, before the guest could start here");
        qemu_file_set_error(f, -ECONNABORTED);
    }
}

bool redirect_incoming_ends(void)
{
    return redirect_relay_ordered();
}

/* As it was before migrate-incoming */
static void forget_migration(void)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (postcopy_state_get() == POSTCOPY_INCOMING_ADVISE) {
        postcopy_ram_incoming_cleanup(mis);
    }
    postcopy_state_set(POSTCOPY_INCOMING_NONE);
    migration_incoming_state_destroy();
    migration_incoming_state_renew();
    migrate_set_state(&mis->state, MIGRATION_STATUS_ACTIVE,
                      MIGRATION_STATUS_NONE);
}

static void relay_done(void)
{
    trace_redirect_relayed();
}

bool redirect_incoming_ended(void)
{
    uint8_t accepted[REDIRECT_RP_MAX_LEN];

    if (!redirect_relay_ordered()) {
        return false;
    }
    redirect_fault("before-accept");
    migrate_send_rp_strategy(migration_incoming_get_current(), accepted,
                             redirect_rp_encode_accepted(accepted));
    forget_migration();
    incoming.again = incoming.was_relay = true;
    redirect_relay_begin(relay_done);
    return true;
}

bool redirect_incoming_again(void)
{
    /* As in the first one: until something has come in */
    MigrationStatus status = migration_incoming_get_current()->state;

    return incoming.again && !redirect_relay_running() &&
           (status == MIGRATION_STATUS_NONE ||
            status == MIGRATION_STATUS_SETUP);
}

RamStrategyRedirectInfo *redirect_incoming_query(void)
{
    MigrationStatus status = migration_incoming_get_current()->state;

    if (incoming.was_relay && status != MIGRATION_STATUS_NONE &&
        status != MIGRATION_STATUS_SETUP) {
        /* Another migration has come in since, which was not redirected */
        return NULL;
    }
    return incoming.was_relay ? redirect_relay_info() : redirect_sink_info();
}
