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

static void print_figure(Monitor *mon, const char *name, bool has,
                         uint64_t value)
{
    if (has) {
        monitor_printf(mon, ", %s: %" PRIu64, name, value);
    }
}

static void print_redirect(Monitor *mon, const RamStrategyRedirectInfo *r)
{
    monitor_printf(mon, "redirects: %" PRIu32 ", as the %s", r->redirects,
                   RamRedirectRole_str(r->role));
    if (r->has_relay) {
        monitor_printf(mon, ", relay: %s", RamRelayState_str(r->relay));
    }
    print_figure(mon, "remaining bytes", r->has_remaining, r->remaining);
    print_figure(mon, "bytes taken over", r->has_taken_over, r->taken_over);
    print_figure(mon, "source pages", r->has_source_pages, r->source_pages);
    print_figure(mon, "source bytes", r->has_source_bytes, r->source_bytes);
    print_figure(mon, "relay pages", r->has_relay_pages, r->relay_pages);
    print_figure(mon, "relay bytes", r->has_relay_bytes, r->relay_bytes);
    print_figure(mon, "relay bytes/s", r->has_relay_rate, r->relay_rate);
    print_figure(mon, "duplicates", r->has_duplicates, r->duplicates);
    monitor_printf(mon, "\n");
    if (r->error) {
        monitor_printf(mon, "redirect error: %s\n", r->error);
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
    if (info->redirect) {
        print_redirect(mon, info->redirect);
    }
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
