/*
 * The XBZRLE cache of the running migration, when it is sized by itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "exec/target_page.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/strategy.h"
#include "delta.h"
#include "delta-cache.h"
#include "trace.h"

/* Written with the BQL held, read by any thread; 0 stands for a page */
static uint64_t cache_size;

void delta_cache_begin(void)
{
    qatomic_set(&cache_size, 0);
}

uint64_t strategy_delta_cache_size(void)
{
    return qatomic_read(&cache_size) ?: qemu_target_page_size();
}

bool delta_cache_pass_end(void)
{
    MigrationState *s = migrate_get_current();
    uint64_t current = strategy_delta_cache_size();
    uint64_t dirty = ram_bytes_remaining();
    uint64_t bound, size;
    Error *local_err = NULL;

    if (!migrate_xbzrle() || s->parameters.xbzrle_cache_size ||
        s->state != MIGRATION_STATUS_ACTIVE) {
        return false;
    }
    bound = delta_bound(ram_bytes_total(), qemu_get_host_physmem(),
                        qemu_target_page_size());
    size = delta_cache_size(current, dirty, bound);
    if (size == current) {
        return false;
    }
    if (xbzrle_cache_resize(size, &local_err) < 0) {
        warn_report_err(local_err);
        return false;
    }
    trace_strategy_delta_cache(current, size, dirty, bound);
    qatomic_set(&cache_size, size);
    return true;
}
