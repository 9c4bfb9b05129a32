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
    StrategyConfig c = { RAM_STRATEGY_MODE_HYBRID, 7, false, true };
    StrategyConfig d = STRATEGY_CONFIG_DEFAULT;
    RamStrategy *p = strategy_config_to_param(&c);

    g_assert_true(p->has_mode && p->has_passes && p->has_background &&
                  p->has_redirectable);
    g_assert_null(p->split);
    g_assert_true(strategy_config_merge(&d, p, &error_abort));
    assert_config(&d, RAM_STRATEGY_MODE_HYBRID, 7, false);
    g_assert_true(d.redirectable);
    qapi_free_RamStrategy(p);
}

/* Members of split are merged like the others; copies share nothing */
static void test_split(void)
{
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT, d = STRATEGY_CONFIG_DEFAULT;
    RamStrategy *p;

    merge(&c, "split.main-memory=64M");
    g_assert_cmpuint(c.split->main_memory, ==, 64 << 20);
    g_assert_cmpint(c.split->placement, ==, RAM_PLACEMENT_HOT);
    g_assert_cmpuint(c.split->replicas, ==, 1);
    g_assert_false(c.split->has_memory_hosts);

    merge(&c, "split.memory-hosts.0.uri=tcp:h:1,"
          "split.memory-hosts.0.capacity=1G,"
          "split.memory-hosts.1.uri=unix:/x,split.placement=address");
    g_assert_cmpuint(c.split->main_memory, ==, 64 << 20);
    g_assert_cmpint(c.split->placement, ==, RAM_PLACEMENT_ADDRESS);
    g_assert_cmpstr(c.split->memory_hosts->next->value->uri, ==, "unix:/x");

    p = strategy_config_to_param(&c);
    g_assert_true(strategy_config_merge(&d, p, &error_abort));
    qapi_free_RamStrategy(p);
    merge(&c, "split.memory-hosts.0.uri=tcp:i:2");
    g_assert_null(c.split->memory_hosts->next);
    g_assert_cmpstr(d.split->memory_hosts->value->uri, ==, "tcp:h:1");
    g_assert_cmpuint(d.split->memory_hosts->value->capacity, ==, 1 << 30);
    g_assert_false(d.split->memory_hosts->next->value->has_capacity);
    strategy_config_clear(&d);

    d = strategy_config_copy(&c);
    merge(&c, "split=off");
    g_assert_null(c.split);
    g_assert_cmpuint(d.split->main_memory, ==, 64 << 20);
    strategy_config_clear(&d);
}

static void test_split_refused(void)
{
    static const struct {
        const char *keyval, *named;
    } cases[] = {
        { "main-memory=0", "main-memory" },
        { "replicas=0", "replicas" },
        { "replicas=2", "replicas" },
        { "memory-hosts.0.uri=tcp:h:1,memory-hosts.0.capacity=0", "capacity" },
        { "memory-hosts.0.uri=h", "'h'" },
        { "memory-hosts.0.uri=tcp:h", "tcp:h" },
        { "memory-hosts.0.uri=exec:cat", "exec" },
        { "memory-hosts.0.uri=vsock:1:2", "vsock" },
        { "memory-hosts.0.uri=fd:3", "fd:3" },
        { "memory-hosts.0.uri=unix:/x,memory-hosts.1.uri=unix:/x", "twice" },
    };
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT;

    merge(&c, "split.main-memory=1M,split.memory-hosts.0.uri=unix:/y");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_auto(GStrv) members = g_strsplit(cases[i].keyval, ",", -1);
        g_autofree char *joined = g_strjoinv(",split.", members);
        g_autofree char *keyval = g_strdup_printf("mode=auto,split.%s", joined);
        RamStrategy *p = strategy_config_parse(keyval, &error_abort);
        Error *err = NULL;

        g_assert_false(strategy_config_merge(&c, p, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), cases[i].named));
        error_free(err);
        qapi_free_RamStrategy(p);
        assert_config(&c, RAM_STRATEGY_MODE_PRECOPY, 1, true);
        g_assert_cmpuint(c.split->main_memory, ==, 1 << 20);
        g_assert_cmpstr(c.split->memory_hosts->value->uri, ==, "unix:/y");
    }
    strategy_config_clear(&c);
}

/* As many memory hosts as a stream can tell of, and not one more */
static void test_split_many_hosts(void)
{
    g_autoptr(GString) keyval = g_string_new("split.main-memory=1M");
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT;
    RamStrategy *p;
    Error *err = NULL;

    for (unsigned i = 0; i < 64; i++) {
        g_string_append_printf(keyval, ",split.memory-hosts.%u.uri=unix:/%u",
                               i, i);
    }
    merge(&c, keyval->str);
    g_string_append(keyval, ",split.memory-hosts.64.uri=unix:/64");
    p = strategy_config_parse(keyval->str, &error_abort);
    g_assert_false(strategy_config_merge(&c, p, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "64"));
    error_free(err);
    qapi_free_RamStrategy(p);
    strategy_config_clear(&c);
}

static void test_in_force(void)
{
    StrategyConfig c = STRATEGY_CONFIG_DEFAULT;

    g_assert_false(strategy_config_in_force(&c));
    merge(&c, "passes=3,background=off");
    g_assert_false(strategy_config_in_force(&c));
    merge(&c, "redirectable=on");
    g_assert_true(strategy_config_in_force(&c));
    merge(&c, "redirectable=off,split.main-memory=1M");
    g_assert_true(strategy_config_in_force(&c));
    merge(&c, "split=off,mode=auto");
    g_assert_true(strategy_config_in_force(&c));
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
        { "redirectable=2", "redirectable" },
        { "split=on", "on" },
        { "split.main-memory=big", "main-memory" },
        { "split.placement=cold", "cold" },
        { "split.memory-hosts.0.capacity=1", "uri" },
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

/* Split and redirectable clash with the same, whatever the mode */
static void test_check_features(void)
{
    static const struct {
        const char *keyval;
        StrategyContext ctx;
        const char *named;      /* NULL: works */
    } cases[] = {
        { "redirectable=on", {}, NULL },
        { "redirectable=on", { .multifd = true }, "multifd" },
        { "redirectable=on", { .rdma = true }, "RDMA" },
        { "redirectable=on", { .file = true }, "file" },
        { "redirectable=on", { .colo = true }, "x-colo" },
        { "redirectable=on", { .snapshot = true }, "background-snapshot" },
        { "redirectable=on", { .cpr = true }, "CPR" },
        { "redirectable=on,mode=auto", { .postcopy_ram = true }, NULL },
        { "redirectable=on,mode=auto", {}, "postcopy-ram" },
        { "split.main-memory=1M", {}, "memory-hosts" },
        { "split.memory-hosts.0.uri=tcp:h:1", {}, "main-memory" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1", {}, NULL },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .multifd = true }, "multifd" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .rdma = true }, "RDMA" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .file = true }, "file" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .postcopy_ram = true }, "postcopy-ram" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .xbzrle = true }, "xbzrle" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .mapped_ram = true }, "mapped-ram" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .ignore_shared = true }, "x-ignore-shared" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .exec = true }, "program" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .colo = true }, "x-colo" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .snapshot = true }, "background-snapshot" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1",
          { .cpr = true }, "CPR" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1,mode=hybrid",
          { .postcopy_ram = true }, "hybrid" },
        { "split.main-memory=1M,split.memory-hosts.0.uri=tcp:h:1,"
          "redirectable=on", {}, "redirectable" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        StrategyConfig c = STRATEGY_CONFIG_DEFAULT;
        Error *err = NULL;
        bool ok;

        merge(&c, cases[i].keyval);
        ok = strategy_config_check(&c, &cases[i].ctx, &err);
        g_assert_cmpint(ok, ==, !cases[i].named);
        if (!ok) {
            g_assert_nonnull(strstr(error_get_pretty(err), cases[i].named));
            error_free(err);
        }
        strategy_config_clear(&c);
    }
}

static void test_wire(void)
{
    for (int mode = 0; mode < RAM_STRATEGY_MODE__MAX; mode++) {
        StrategyConfig c = { mode, 0x01020304 + mode, mode & 1, mode & 2 };
        StrategyConfig d = STRATEGY_CONFIG_DEFAULT;
        uint8_t buf[STRATEGY_WIRE_CONFIG_LEN];

        strategy_config_encode(&c, buf);
        g_assert_true(strategy_config_decode(&d, buf, sizeof(buf),
                                             &error_abort));
        assert_config(&d, mode, 0x01020304 + mode, mode & 1);
        g_assert_cmpint(d.redirectable, ==, c.redirectable);
    }
}

/* The bytes themselves: they may never change */
static void test_wire_fixed(void)
{
    static const uint8_t expected[] = { 2, 3, 0, 0, 0, 0, 1, 2 };
    StrategyConfig c = { RAM_STRATEGY_MODE_HYBRID, 0x102, true, true };
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
        { { 2, 4, 0, 0, 0, 0, 0, 1 }, 8 },
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
    g_test_add_func("/strategy/config/split", test_split);
    g_test_add_func("/strategy/config/split/refused", test_split_refused);
    g_test_add_func("/strategy/config/split/many-hosts",
                    test_split_many_hosts);
    g_test_add_func("/strategy/config/in-force", test_in_force);
    g_test_add_func("/strategy/config/parse/refused", test_parse_refused);
    g_test_add_func("/strategy/config/check", test_check);
    g_test_add_func("/strategy/config/check/features", test_check_features);
    g_test_add_func("/strategy/config/wire", test_wire);
    g_test_add_func("/strategy/config/wire/fixed", test_wire_fixed);
    g_test_add_func("/strategy/config/wire/refused", test_wire_refused);
    return g_test_run();
}
