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

void strategy_hmp_parameter(Monitor *mon, const RamStrategy *param)
{
    monitor_printf(mon, "%s: mode=%s,passes=%" PRIu32 ",background=%s\n",
                   MigrationParameter_str(MIGRATION_PARAMETER_STRATEGY),
                   RamStrategyMode_str(param->mode), param->passes,
                   param->background ? "on" : "off");
}
