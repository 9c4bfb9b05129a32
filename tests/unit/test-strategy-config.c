/*
 * Unit tests of a strategy's configuration: merge, HMP form, check, wire
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: members that are left out keep their value, whatever is wrong
 * is refused by name and changes nothing, and what one end encodes the
 * other end reads back.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/strategy/config.h"

static void assert_config(const StrategyConfig *c, RamStrategyMode mode,
                          uint32_t passes, bool background)
{
    g_assert_cmpint(c->mode, ==, mode);
    g_assert_cmpuint(c->passes, ==, passes);
    g_assert_cmpint(c->background, ==, background);
}

static void merge(StrategyConfig *c, const char *keyval)
{
    RamStrategy *p = strategy_config_parse(keyval, &error_abort);

    g_assert_true(strategy_config_merge(c, p, &error_abort));
    qapi_free_RamStrategy(p);
}

static void test_merge(void)
{
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT;

    assert_config(&c, RAM_STRATEGY_MODE_PRECOPY, 1, true);
    merge(&c, "mode=hybrid,passes=3");
    assert_config(&c, RAM_STRATEGY_MODE_HYBRID, 3, true);
    merge(&c, "background=off");
    assert_config(&c, RAM_STRATEGY_MODE_HYBRID, 3, false);
    merge(&c, "auto");
    assert_config(&c, RAM_STRATEGY_MODE_AUTO, 3, false);
    merge(&c, "");
    assert_config(&c, RAM_STRATEGY_MODE_AUTO, 3, false);
    merge(&c, "passes=4294967295,background=on,mode=postcopy");
    assert_config(&c, RAM_STRATEGY_MODE_POSTCOPY, UINT32_MAX, true);
}

static void test_merge_refused(void)
{
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT;
    RamStrategy p = {
        .has_mode = true, .mode = RAM_STRATEGY_MODE_AUTO,
        .has_background = true, .background = false,
        .has_passes = true, .passes = 0,
    };
    Error *err = NULL;

    g_assert_false(strategy_config_merge(&c, &p, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "passes"));
    error_free(err);
    assert_config(&c, RAM_STRATEGY_MODE_PRECOPY, 1, true);
}

static void test_to_param(void)
{
    StrategyConfig c = { RAM_STRATEGY_MODE_HYBRID, 7, false };
    StrategyConfig d = STRATEGY_CONFIG_DEFAULT;
    RamStrategy *p = strategy_config_to_param(&c);

    g_assert_true(p->has_mode && p->has_passes && p->has_background);
    g_assert_true(strategy_config_merge(&d, p, &error_abort));
    assert_config(&d, RAM_STRATEGY_MODE_HYBRID, 7, false);
    qapi_free_RamStrategy(p);
}

static void test_parse_refused(void)
{
    static const struct {
        const char *keyval, *named;
    } cases[] = {
        { "mode=quick", "quick" },
        { "quick", "quick" },
        { "passes=-1", "passes" },
        { "passes=many", "passes" },
        { "passes=4294967296", "passes" },
        { "background=perhaps", "background" },
        { "colour=red", "colour" },
        { "mode=hybrid,speed=1", "speed" },
        { "passes.a=1", "passes" },
        { "mode=hybrid,,", "hybrid" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Error *err = NULL;

        g_assert_null(strategy_config_parse(cases[i].keyval, &err));
        g_assert_nonnull(err);
        g_assert_nonnull(strstr(error_get_pretty(err), cases[i].named));
        error_free(err);
    }
}

static void test_check(void)
{
    static const struct {
        StrategyContext ctx;
        const char *named;      /* NULL: works */
    } cases[] = {
        { { .postcopy_ram = true }, NULL },
        { { .postcopy_ram = false }, "postcopy-ram" },
        { { .multifd = true }, "multifd" },
        { { .postcopy_ram = true, .multifd = true }, "multifd" },
        { { .postcopy_ram = true, .rdma = true }, "RDMA" },
        { { .postcopy_ram = true, .file = true }, "file" },
        { { .postcopy_ram = true, .colo = true }, "x-colo" },
        { { .snapshot = true }, "background-snapshot" },
        { { .postcopy_ram = true, .cpr = true }, "CPR" },
    };

    for (int mode = 0; mode < RAM_STRATEGY_MODE__MAX; mode++) {
        StrategyConfig c = STRATEGY_CONFIG_DEFAULT;

        c.mode = mode;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
            Error *err = NULL;
            bool ok = strategy_config_check(&c, &cases[i].ctx, &err);

            if (!cases[i].named || mode == RAM_STRATEGY_MODE_PRECOPY) {
                g_assert_true(ok);
                g_assert_null(err);
                continue;
            }
            g_assert_false(ok);
            g_assert_nonnull(strstr(error_get_pretty(err), cases[i].named));
            g_assert_nonnull(strstr(error_get_pretty(err),
                                    RamStrategyMode_str(mode)));
            error_free(err);
        }
    }
}

static void test_wire(void)
{
    for (int mode = 0; mode < RAM_STRATEGY_MODE__MAX; mode++) {
        StrategyConfig c = { mode, 0x01020304 + mode, mode & 1 };
        StrategyConfig d = STRATEGY_CONFIG_DEFAULT;
        uint8_t buf[STRATEGY_WIRE_CONFIG_LEN];

        strategy_config_encode(&c, buf);
        g_assert_true(strategy_config_decode(&d, buf, sizeof(buf),
                                             &error_abort));
        assert_config(&d, mode, 0x01020304 + mode, mode & 1);
    }
}

/* The bytes themselves: they may never change */
static void test_wire_fixed(void)
{
    static const uint8_t expected[] = { 2, 1, 0, 0, 0, 0, 1, 2 };
    StrategyConfig c = { RAM_STRATEGY_MODE_HYBRID, 0x102, true };
    uint8_t buf[STRATEGY_WIRE_CONFIG_LEN];

    strategy_config_encode(&c, buf);
    g_assert_cmpmem(buf, sizeof(buf), expected, sizeof(expected));
}

static void test_wire_refused(void)
{
    static const struct {
        uint8_t buf[16];
        size_t len;
    } cases[] = {
        { { 2, 1, 0, 0, 0, 0, 0, 1 }, 0 },
        { { 2, 1, 0, 0, 0, 0, 0, 1 }, 7 },
        { { 2, 1, 0, 0, 0, 0, 0, 1 }, 9 },
        { { 4, 1, 0, 0, 0, 0, 0, 1 }, 8 },
        { { 255, 1, 0, 0, 0, 0, 0, 1 }, 8 },
        { { 2, 2, 0, 0, 0, 0, 0, 1 }, 8 },
        { { 2, 0x81, 0, 0, 0, 0, 0, 1 }, 8 },
        { { 2, 1, 1, 0, 0, 0, 0, 1 }, 8 },
        { { 2, 1, 0, 1, 0, 0, 0, 1 }, 8 },
        { { 2, 1, 0, 0, 0, 0, 0, 0 }, 8 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        StrategyConfig c = { RAM_STRATEGY_MODE_AUTO, 5, false };
        Error *err = NULL;

        g_assert_false(strategy_config_decode(&c, cases[i].buf, cases[i].len,
                                              &err));
        g_assert_nonnull(err);
        error_free(err);
        assert_config(&c, RAM_STRATEGY_MODE_AUTO, 5, false);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/strategy/config/merge", test_merge);
    g_test_add_func("/strategy/config/merge/refused", test_merge_refused);
    g_test_add_func("/strategy/config/to-param", test_to_param);
    g_test_add_func("/strategy/config/parse/refused", test_parse_refused);
    g_test_add_func("/strategy/config/check", test_check);
    g_test_add_func("/strategy/config/wire", test_wire);
    g_test_add_func("/strategy/config/wire/fixed", test_wire_fixed);
    g_test_add_func("/strategy/config/wire/refused", test_wire_refused);
    return g_test_run();
}
