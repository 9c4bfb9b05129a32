/*
 * The savevm section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Saving runs on the migration thread, loading on the incoming coroutine
 * of the main thread.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "qemu/thread.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "system/runstate.h"
#include "migration/strategy.h"
#include "message.h"
#include "redirect/incoming.h"
#include "redirect/order.h"
#include "redirect/probe.h"
#include "redirect/redirect.h"
#include "run.h"
#include "section.h"
#include "split/split.h"
#include "trace.h"

/* Main thread only */
static struct {
    bool loaded;
    bool started;               /* the first part of the section was read */
    StrategyConfig config;
} incoming;

/* Most page requests in flight at once; any thread, atomically */
static uint32_t requests_peak;

static int section_save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    uint8_t config[STRATEGY_WIRE_CONFIG_LEN];

    strategy_config_encode(strategy_run_config(), config);
    strategy_message_put(f, STRATEGY_MSG_CONFIG, STRATEGY_MSG_REQUIRED,
                         config, sizeof(config));
    if (strategy_run_config()->split &&
        !split_save_setup(f, strategy_run_config()->split, errp)) {
        return -EIO;
    }
    if (strategy_repeats_setup()) {
        redirect_save_setup(f);
    }
    strategy_message_put_end(f);
    return 0;
}

static bool section_is_active_iterate(void *opaque)
{
    return split_iterates() || redirect_orders();
}

static int section_save_iterate(QEMUFile *f, void *opaque)
{
    if (redirect_orders()) {
        redirect_save_order(f);
    } else {
        split_save_iterate(f);
    }
    strategy_message_put_end(f);
    return 1;
}

static void section_pending(void *opaque, uint64_t *must_precopy,
                            uint64_t *can_postcopy)
{
    *must_precopy += split_pending();
}

static int section_save_complete(QEMUFile *f, void *opaque)
{
    bool ok = !strategy_run_config()->split || split_save_complete(f);

    if (redirect_happened()) {
        strategy_message_put(f, STRATEGY_MSG_REDIRECT_END,
                             STRATEGY_MSG_REQUIRED, NULL, 0);
    }
    strategy_message_put_end(f);
    return ok ? 0 : -EIO;
}

static void section_save_cleanup(void *opaque)
{
    split_cleanup(migrate_get_current()->state == MIGRATION_STATUS_COMPLETED);
}

static bool section_is_active(void *opaque)
{
    return strategy_run_active();
}

static bool load_message(const StrategyMessage *m, void *opaque, Error **errp)
{
    switch (m->type) {
    case STRATEGY_MSG_CONFIG:
        if (!strategy_config_decode(&incoming.config, m->payload, m->len,
                                    errp)) {
            return false;
        }
        incoming.loaded = true;
        qatomic_set(&requests_peak, 0);
        trace_strategy_load(RamStrategyMode_str(incoming.config.mode),
                            incoming.config.passes,
                            incoming.config.background);
        return true;
    case STRATEGY_MSG_SPLIT_SETUP:
        if (incoming.started) {
            error_setg(errp, "ram-strategy: the set-up of split memory comes "
                       "after pages");
            return false;
        }
        return split_load(m, errp);
    case STRATEGY_MSG_SPLIT_EXTENTS:
    case STRATEGY_MSG_SPLIT_LOCAL:
    case STRATEGY_MSG_SPLIT_COMMIT:
    case STRATEGY_MSG_SPLIT_REMOTE:
        return split_load(m, errp);
    default:
        return redirect_incoming_knows(m->type) ?
               redirect_incoming_message(m, errp) :
               strategy_message_unknown(m, errp);
    }
}

static int section_load_state(QEMUFile *f, void *opaque, int version_id)
{
    Error *local_err = NULL;

    if (!strategy_message_get_all(f, load_message, NULL, &local_err)) {
        error_report_err(local_err);
        return -EINVAL;
    }
    /* All sections start before any goes on, RAM with its pages included */
    incoming.started = true;
    return 0;
}

static int section_load_cleanup(void *opaque)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    split_load_cleanup(mis->state == MIGRATION_STATUS_COMPLETED);
    redirect_incoming_cleanup();
    incoming.started = false;
    return 0;
}

static const SaveVMHandlers section_handlers = {
    .is_active = section_is_active,
    .is_active_iterate = section_is_active_iterate,
    .save_setup = section_save_setup,
    .save_live_iterate = section_save_iterate,
    .state_pending_estimate = section_pending,
    .state_pending_exact = section_pending,
    .save_cleanup = section_save_cleanup,
    .save_live_complete_precopy = section_save_complete,
    .load_state = section_load_state,
    .load_cleanup = section_load_cleanup,
};

void strategy_section_register(void)
{
    static bool registered;

    if (!registered) {
        register_savevm_live(STRATEGY_SECTION, 0, STRATEGY_SECTION_VERSION,
                             &section_handlers, NULL);
        registered = true;
    }
}

bool strategy_section_stays_stopped(void)
{
    return incoming.loaded && global_state_received() &&
           !runstate_is_live(global_state_get_runstate());
}

void strategy_section_requested(uint32_t in_flight)
{
    /* Writers exclude each other: see strategy_page_requested() */
    if (in_flight > qatomic_read(&requests_peak)) {
        qatomic_set(&requests_peak, in_flight);
    }
}

RamStrategyInfo *strategy_section_query(void)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    RamStrategyInfo *info;

    if (!incoming.loaded) {
        return NULL;
    }
    info = g_new0(RamStrategyInfo, 1);
    info->mode = incoming.config.mode;
    info->background = incoming.config.background;
    info->switched = postcopy_state_get() >= POSTCOPY_INCOMING_LISTENING;
    info->reason = g_strdup("chosen by the source");
    info->has_requests_in_flight = info->has_requests_peak = info->switched;
    info->requests_in_flight = qatomic_read(&mis->page_requested_count);
    info->requests_peak = qatomic_read(&requests_peak);
    info->redirect = redirect_incoming_query();
    return info;
}
