/*
 * RAM migration strategies: where the rest of QEMU enters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only calls and registrations; what they do lives in the other files of
 * this directory.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/core/cpu.h"
#include "qobject/qdict.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/strategy.h"
#include "config.h"
#include "delta-cache.h"
#include "pager/pager.h"
#include "redirect/incoming.h"
#include "redirect/order.h"
#include "redirect/redirect.h"
#include "redirect/sink-ram.h"
#include "run.h"
#include "section.h"
#include "split/split.h"

/* All with the BQL held */
static struct {
    StrategyConfig config;      /* the parameter */
    bool asked_for;             /* it was set at least once */
    struct {                    /* while `migrate -p -n` is handled */
        bool postcopy;
        bool demand_only;
    } once;
} parameter;

static NotifierWithReturn migration_notifier;
static NotifierWithReturn precopy_notifier;

static int on_migration_event(NotifierWithReturn *n, MigrationEvent *e,
                              Error **errp)
{
    switch (e->type) {
    case MIG_EVENT_PRECOPY_SETUP:
        strategy_run_connected();
        break;
    case MIG_EVENT_PRECOPY_DONE:
        /* Also called at the very end, in state completed */
        if (migrate_get_current()->state == MIGRATION_STATUS_DEVICE) {
            strategy_run_switched();
        }
        break;
    case MIG_EVENT_PRECOPY_FAILED:
        strategy_run_failed();
        break;
    default:
        break;
    }
    return 0;
}

static int on_precopy_event(NotifierWithReturn *n, void *data, Error **errp)
{
    PrecopyNotifyData *pnd = data;

    switch (pnd->reason) {
    case PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC:
        if (redirect_relay_sends()) {
            /*
             * What the source alone sends says nothing of the link: beside
             * that any guest would seem to dirty too fast.
             */
            mig_throttle_counter_reset();
        }
        break;
    case PRECOPY_NOTIFY_AFTER_BITMAP_SYNC:
        redirect_synced();
        if (!migration_thread_is_self()) {
            /* auto-converge reads the log in the middle of a pass */
            break;
        }
        if (redirect_holds()) {
            /* The relay has not finished its part of the pass */
            strategy_run_pass_restart();
            break;
        }
        strategy_run_pass_end();
        if (migrate_get_current()->state == MIGRATION_STATUS_ACTIVE) {
            split_pass_end();
        }
        if (!strategy_run_wants_switch() && delta_cache_pass_end()) {
            strategy_run_warm_up();
        }
        break;
    case PRECOPY_NOTIFY_CLEANUP:
        redirect_end();
        strategy_run_end();
        break;
    default:
        break;
    }
    return 0;
}

void strategy_init(void)
{
    parameter.config = STRATEGY_CONFIG_DEFAULT;
    redirect_init();
    migration_add_notifier(&migration_notifier, on_migration_event);
    precopy_notifier.notify = (NotifierWithReturnFunc)on_precopy_event;
    precopy_add_notifier(&precopy_notifier);
    pager_init();
}

bool strategy_vcpu_stuck(const CPUState *cpu)
{
    return pager_vcpu_stuck(cpu->thread_id);
}

bool strategy_vm_can_reset(void)
{
    return pager_vm_can_reset() && !split_finishing();
}

void strategy_vcpus_resumed(void)
{
    pager_vcpus_resumed();
}

bool strategy_vm_stopping(void)
{
    return pager_vm_stopping();
}

bool strategy_vm_stopped(void)
{
    return pager_vm_stopped();
}

bool strategy_memory_is_remote(void)
{
    return pager_attached();
}

/*
 * Is it the main-memory of the VM that runs here which is to change, and not
 * what the next migration does?
 */
static bool is_for_pager(const RamSplitSetting *s)
{
    return pager_attached() && s && s->type == QTYPE_QDICT &&
           s->u.split.has_main_memory && !s->u.split.has_memory_hosts &&
           !s->u.split.has_placement && !s->u.split.has_replicas;
}

/* A change of main-memory that could be for either */
static bool is_ambiguous(const RamSplitSetting *s)
{
    return pager_attached() && s && s->type == QTYPE_QDICT &&
           s->u.split.has_main_memory && !s->u.split.has_memory_hosts &&
           !is_for_pager(s);
}

bool strategy_set(const RamStrategy *param, Error **errp)
{
    RamStrategy rest = *param;
    bool resize = is_for_pager(param->split);

    if (is_ambiguous(param->split)) {
        error_setg(errp, "The memory of this VM is split: give main-memory by "
                   "itself to change how much of it is here, or with "
                   "memory-hosts for the next migration");
        return false;
    }
    if (resize) {
        rest.split = NULL;
    }
    if (!strategy_config_merge(&parameter.config, &rest, errp)) {
        return false;
    }
    if (resize &&
        !pager_set_main_memory(param->split->u.split.main_memory, errp)) {
        return false;
    }
    parameter.asked_for = true;
    if (param->has_background) {
        strategy_run_set_background(param->background);
    }
    return true;
}

RamStrategy *strategy_get(void)
{
    return strategy_config_to_param(&parameter.config);
}

RamStrategy *strategy_parse(const char *keyval, Error **errp)
{
    return strategy_config_parse(keyval, errp);
}

/* What the next migration runs with; what it owns stays the parameter's */
static StrategyConfig next_config(void)
{
    StrategyConfig config = parameter.config;

    if (parameter.once.postcopy) {
        config.mode = RAM_STRATEGY_MODE_POSTCOPY;
    }
    if (parameter.once.demand_only) {
        config.background = false;
    }
    return config;
}

bool strategy_hmp_migrate(const QDict *args, Error **errp)
{
    bool postcopy = qdict_get_try_bool(args, "postcopy", false);
    bool demand_only = qdict_get_try_bool(args, "demand-only", false);

    if (qdict_get_try_bool(args, "resume", false) &&
        (postcopy || demand_only)) {
        error_setg(errp, "-p and -n choose the strategy of a new migration, "
                   "and do not go with -r");
        return false;
    }
    if (demand_only && !postcopy &&
        !strategy_mode_uses_postcopy(parameter.config.mode)) {
        error_setg(errp, "-n moves pages on demand only, which needs "
                   "post-copy: give -p as well");
        return false;
    }
    parameter.once.postcopy = postcopy;
    parameter.once.demand_only = demand_only;
    return true;
}

void strategy_hmp_migrate_done(void)
{
    parameter.once.postcopy = false;
    parameter.once.demand_only = false;
}

bool strategy_check(const MigrationAddress *addr, bool resume, Error **errp)
{
    StrategyContext ctx = {
        .postcopy_ram = migrate_postcopy_ram(),
        .multifd = migrate_multifd(),
        .colo = migrate_colo(),
        .snapshot = migrate_background_snapshot(),
        .cpr = migrate_mode() != MIG_MODE_NORMAL,
        .rdma = addr->transport == MIGRATION_ADDRESS_TYPE_RDMA,
        .file = addr->transport == MIGRATION_ADDRESS_TYPE_FILE,
        .exec = addr->transport == MIGRATION_ADDRESS_TYPE_EXEC,
        .xbzrle = migrate_xbzrle(),
        .mapped_ram = migrate_mapped_ram(),
        .ignore_shared = migrate_ignore_shared(),
    };
    StrategyConfig config = next_config();

    if (resume) {
        return true;
    }
    return strategy_config_check(&config, &ctx, errp) &&
           (!config.split || split_check(config.split, errp));
}

void strategy_begin(const MigrationAddress *addr, bool resume)
{
    StrategyConfig config = next_config();
    bool asked_for = parameter.asked_for || parameter.once.postcopy;

    if (resume) {
        return;
    }
    delta_cache_begin();
    strategy_run_begin(&config, asked_for);
    redirect_begin(addr, config.redirectable);
    if (strategy_config_in_force(&config)) {
        strategy_section_register();
    }
}

bool strategy_needs_return_path(void)
{
    return strategy_run_active();
}

bool strategy_repeats_setup_now;

bool strategy_survives_error(void)
{
    return redirect_survives_error();
}

bool strategy_return_path_message(const uint8_t *buf, size_t len,
                                  Error **errp)
{
    return redirect_message(buf, len, errp);
}

bool strategy_load_ends(void)
{
    QEMUFile *f = migration_incoming_get_current()->from_src_file;

    split_load_check(f);
    redirect_incoming_check(f);
    return redirect_incoming_ends();
}

bool strategy_load_ended(void)
{
    return redirect_incoming_ended();
}

bool strategy_incoming_again(void)
{
    return redirect_incoming_again();
}

void strategy_note_page(QEMUFile *f, int flags, RAMBlock *block,
                        ram_addr_t offset)
{
    redirect_sink_source_page(f, flags, block, offset);
}

int strategy_do_route_page(RAMBlock *block, ram_addr_t offset)
{
    return split_route(block, offset);
}

bool strategy_sync_due(bool fits)
{
    bool may_sync = redirect_safe_point();

    return strategy_run_sync_due(fits, may_sync);
}

bool strategy_step(bool fits)
{
    return strategy_run_step(fits && !redirect_holds());
}

bool strategy_switch_due(void)
{
    return strategy_run_switch_due() && !redirect_holds();
}

bool strategy_iterates(bool requested)
{
    return !redirect_orders() && !split_iterates() &&
           strategy_run_iterates(requested);
}

bool strategy_idle(void)
{
    return strategy_run_idle(redirect_idle());
}

bool strategy_stays_stopped(void)
{
    return strategy_section_stays_stopped();
}

bool strategy_section_wanted(const char *idstr)
{
    if (strcmp(idstr, STRATEGY_SECTION)) {
        return false;
    }
    strategy_section_register();
    return true;
}

void strategy_page_requested(uint32_t in_flight)
{
    strategy_section_requested(in_flight);
}

RamStrategyInfo *strategy_query(void)
{
    /* Once this QEMU has been a source, what it was before is past */
    return strategy_run_begun() ? strategy_run_query()
                                : strategy_section_query();
}
