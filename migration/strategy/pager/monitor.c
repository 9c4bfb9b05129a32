/*
 * Remote pager: commands of the monitors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/pagelink.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-strategy.h"
#include "qemu/cutils.h"
#include "pager-int.h"

static RemoteMemoryLatency *latency(const PagerHistogram *h)
{
    RemoteMemoryLatency *l = g_new0(RemoteMemoryLatency, 1);
    RemoteMemoryBucketList **tail = &l->histogram;
    unsigned i;

    l->count = h->n;
    l->p50 = pager_histogram_percentile(h, 50);
    l->p99 = pager_histogram_percentile(h, 99);
    for (i = 0; i < PAGER_HISTOGRAM_BUCKETS; i++) {
        if (h->buckets[i]) {
            RemoteMemoryBucket *b = g_new(RemoteMemoryBucket, 1);

            b->upto = pager_histogram_bound(i);
            b->count = h->buckets[i];
            QAPI_LIST_APPEND(tail, b);
        }
    }
    return l;
}

static RemoteMemoryHostInfo *host_info(const char *uri, const PagerHostInfo *h)
{
    static const RemoteMemoryHostState states[] = {
        [PAGER_HOST_UP] = REMOTE_MEMORY_HOST_STATE_UP,
        [PAGER_HOST_DEGRADED] = REMOTE_MEMORY_HOST_STATE_DEGRADED,
        [PAGER_HOST_LOST] = REMOTE_MEMORY_HOST_STATE_LOST,
    };
    RemoteMemoryHostInfo *info = g_new0(RemoteMemoryHostInfo, 1);

    info->uri = g_strdup(uri);
    info->state = states[h->state];
    info->capacity = h->capacity * PAGELINK_PAGE_SIZE;
    info->stored = h->stored * PAGELINK_PAGE_SIZE;
    info->fetched = h->fetched * PAGELINK_PAGE_SIZE;
    info->written = h->written * PAGELINK_PAGE_SIZE;
    info->dropped = h->dropped * PAGELINK_PAGE_SIZE;
    info->reconnects = h->reconnects;
    info->latency = latency(&h->latency);
    info->error = g_strdup(h->error);
    return info;
}

RemoteMemoryInfo *qmp_query_remote_memory(Error **errp)
{
    RemoteMemoryInfo *r;
    RemoteMemoryHostInfoList **tail;
    PagerInfo info;
    unsigned i;

    r = g_new0(RemoteMemoryInfo, 1);
    r->state = REMOTE_MEMORY_STATE_NONE;
    if (pager_leaving()) {
        r->state = REMOTE_MEMORY_STATE_GATHERING;
    }
    if (!pager_engine()) {
        return r;
    }
    pager_engine_query(pager_engine(), &info);
    r->state = info.gathering ? REMOTE_MEMORY_STATE_GATHERING :
                                REMOTE_MEMORY_STATE_ATTACHED;
    r->main_memory = pager_setup()->main_memory;
    r->unmanaged = pager_unmanaged();
    r->resident = info.resident * PAGELINK_PAGE_SIZE;
    r->staged = info.staged * PAGELINK_PAGE_SIZE;
    r->remote = info.remote * PAGELINK_PAGE_SIZE;
    r->zero = info.zero * PAGELINK_PAGE_SIZE;
    r->faults = info.faults;
    r->faults_zero = info.faults_zero;
    r->faults_staged = info.faults_staged;
    r->faults_write = info.faults_write;
    r->prefetched = info.prefetched;
    r->prefetch_used = info.prefetch_used;
    r->evicted_clean = info.evicted_clean;
    r->evicted_dirty = info.evicted_dirty;
    r->evicted_zero = info.evicted_zero;
    r->removed = info.removed;
    r->busy = info.busy;
    r->waiting = info.waiting;
    r->full = info.full;
    tail = &r->hosts;
    for (i = 0; i < info.n_hosts; i++) {
        QAPI_LIST_APPEND(tail, host_info(pager_setup()->hosts[i].uri,
                                         &info.hosts[i]));
    }
    pager_info_clear(&info);
    return r;
}

void qmp_remote_memory_gather(Error **errp)
{
    if (!pager_engine()) {
        error_setg(errp, "The memory of this VM is not split");
        return;
    }
    pager_engine_gather(pager_engine());
}

static void print_size(Monitor *mon, const char *what, uint64_t bytes)
{
    g_autofree char *size = size_to_str(bytes);

    monitor_printf(mon, "%s: %s\n", what, size);
}

static void print_host(Monitor *mon, const RemoteMemoryHostInfo *h)
{
    g_autofree char *stored = size_to_str(h->stored);
    g_autofree char *capacity = size_to_str(h->capacity);

    monitor_printf(mon, "%s: %s, stores %s of %s, faults %" PRIu64
                   ", p50 %" PRIu64 " us, p99 %" PRIu64 " us, reconnects %"
                   PRIu64 "\n", h->uri, RemoteMemoryHostState_str(h->state),
                   stored, capacity, h->latency->count, h->latency->p50 / 1000,
                   h->latency->p99 / 1000, h->reconnects);
    if (h->error) {
        monitor_printf(mon, "  last error: %s\n", h->error);
    }
}

static void hmp_info_remote_memory(Monitor *mon, const QDict *qdict)
{
    g_autoptr(RemoteMemoryInfo) r = qmp_query_remote_memory(&error_abort);
    RemoteMemoryHostInfoList *l;

    monitor_printf(mon, "remote memory: %s%s\n",
                   RemoteMemoryState_str(r->state),
                   r->full ? ", memory hosts are full" : "");
    if (r->state == REMOTE_MEMORY_STATE_NONE) {
        return;
    }
    print_size(mon, "main-memory", r->main_memory);
    print_size(mon, "unmanaged", r->unmanaged);
    print_size(mon, "resident", r->resident);
    print_size(mon, "staged", r->staged);
    print_size(mon, "remote", r->remote);
    print_size(mon, "zero", r->zero);
    monitor_printf(mon, "faults: %" PRIu64 " remote, %" PRIu64 " staged, %"
                   PRIu64 " zero, %" PRIu64 " first writes, %" PRIu32
                   " waiting\n", r->faults, r->faults_staged, r->faults_zero,
                   r->faults_write, r->waiting);
    monitor_printf(mon, "prefetched: %" PRIu64 ", known as used: %" PRIu64
                   "\n", r->prefetched, r->prefetch_used);
    monitor_printf(mon, "evicted: %" PRIu64 " clean, %" PRIu64 " dirty, %"
                   PRIu64 " zero\n", r->evicted_clean, r->evicted_dirty,
                   r->evicted_zero);
    for (l = r->hosts; l; l = l->next) {
        print_host(mon, l->value);
    }
}

static void hmp_remote_memory_gather(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_remote_memory_gather(&err);
    hmp_handle_error(mon, err);
}

void pager_monitor_init(void)
{
    monitor_register_hmp("remote_memory", true, hmp_info_remote_memory);
    monitor_register_hmp("remote_memory_gather", false,
                         hmp_remote_memory_gather);
}
