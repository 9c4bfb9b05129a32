/*
 * HMP side of the strategies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/strategy.h"
#include "monitor/monitor.h"

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
