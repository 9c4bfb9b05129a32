/*
 * Tests of the RAM migration strategies: an XBZRLE cache sized by itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-util.h"

/*
 * With xbzrle-cache-size 0 the cache grows from a page to what the guest
 * dirties; what it encodes arrives intact
 */
static void test_delta(const void *opaque)
{
    const StrategySetup setup = {
        .strategy = opaque,
        .no_postcopy = !opaque,
        .bandwidth = STRATEGY_SLOW,
    };
    g_autoptr(QDict) rsp = NULL;
    const QDict *cache;
    StrategyGuests g;

    if (!strategy_start(&g, &setup)) {
        return;
    }
    migrate_set_capability(g.from, "xbzrle", true);
    migrate_set_capability(g.to, "xbzrle", true);
    migrate_set_parameter_int(g.from, "xbzrle-cache-size", 0);
    strategy_migrate_busily(&g);
    strategy_speed(&g, STRATEGY_MEDIUM,
                   opaque ? STRATEGY_NOTHING_FITS : STRATEGY_ALL_FITS);
    strategy_wait_status(g.from, "completed");
    rsp = migrate_query(g.from);
    cache = qdict_get_qdict(rsp, "xbzrle-cache");
    g_assert(cache);
    /* What the guest writes is 99 MiB */
    g_assert_cmpint(qdict_get_int(cache, "cache-size"), >=, 16 * MiB);
    strategy_finish(&g);
}

void strategy_add_delta(void)
{
    qtest_add_data_func("/migration/strategy/delta/plain", NULL, test_delta);
    qtest_add_data_func("/migration/strategy/delta/hybrid",
                        "{ 'mode': 'hybrid', 'passes': 2 }", test_delta);
}
