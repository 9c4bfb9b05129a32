/*
 * HMP side of the strategies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "migration/strategy.h"
#include "monitor/monitor.h"

static void print_split_info(Monitor *mon, const RamSplitInfo *split)
{
    monitor_printf(mon, "split memory: %" PRIu64 " pages at the main host, %"
                   PRIu64 " at memory hosts, %" PRIu64 " moved in, %" PRIu64
                   " moved out\n", split->main_pages, split->remote_pages,
                   split->moved_in, split->moved_out);
    for (RamSplitHostInfoList *h = split->hosts; h; h = h->next) {
        monitor_printf(mon, "memory host %s: %" PRIu64 " of %" PRIu64
                       " KiB used, %" PRIu64 " pages sent, %" PRIu64
                       " queued\n", h->value->uri, h->value->stored / KiB,
                       h->value->capacity / KiB, h->value->pages_sent,
                       h->value->queued);
    }
}

void strategy_hmp_info(Monitor *mon, const RamStrategyInfo *info)
{
    if (!info) {
        return;
    }
    monitor_printf(mon, "strategy: %s, %" PRIu64 " passes done, background "
                   "%s\n", RamStrategyMode_str(info->mode), info->pass,
                   info->background ? "on" : "off");
    if (info->has_switch_time) {
        monitor_printf(mon, "strategy switched to post-copy: after %" PRId64
                       " ms, because of: %s\n", info->switch_time,
                       RamStrategySwitchReason_str(info->switch_reason));
    }
    if (info->split) {
        print_split_info(mon, info->split);
    }
    if (info->has_requests_in_flight) {
        monitor_printf(mon, "strategy page requests: %" PRIu32 " in flight, "
                       "%" PRIu32 " at most\n", info->requests_in_flight,
                       info->requests_peak);
    }
    monitor_printf(mon, "strategy says: %s\n", info->reason);
}

static void print_split(Monitor *mon, const RamSplit *split)
{
    int i = 0;

    if (split->has_main_memory) {
        monitor_printf(mon, ",split.main-memory=%" PRIu64, split->main_memory);
    }
    for (RamMemoryHostList *h = split->memory_hosts; h; h = h->next, i++) {
        monitor_printf(mon, ",split.memory-hosts.%d.uri=%s", i, h->value->uri);
        if (h->value->has_capacity) {
            monitor_printf(mon, ",split.memory-hosts.%d.capacity=%" PRIu64, i,
                           h->value->capacity);
        }
        if (h->value->tls_hostname) {
            monitor_printf(mon, ",split.memory-hosts.%d.tls-hostname=%s", i,
                           h->value->tls_hostname);
        }
    }
    monitor_printf(mon, ",split.placement=%s,split.replicas=%" PRIu32,
                   RamPlacement_str(split->placement), split->replicas);
}

/* In the syntax of migrate_set_parameter */
void strategy_hmp_parameter(Monitor *mon, const RamStrategy *param)
{
    monitor_printf(mon, "%s: mode=%s,passes=%" PRIu32 ",background=%s,"
                   "redirectable=%s",
                   MigrationParameter_str(MIGRATION_PARAMETER_STRATEGY),
                   RamStrategyMode_str(param->mode), param->passes,
                   param->background ? "on" : "off",
                   param->redirectable ? "on" : "off");
    if (param->split) {
        print_split(mon, &param->split->u.split);
    }
    monitor_printf(mon, "\n");
}
