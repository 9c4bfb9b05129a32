/*
 * Tests of the RAM migration strategies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The tests are in migration/strategy-*.c; guests and memory check are
 * those of migration-test.  They run with TCG, on which a guest behaves
 * the same everywhere, unless MIGRATION_TESTS_ACCEL is "kvm": some hosts
 * have a KVM that takes a minute for what TCG does in a second.  --full,
 * or -m slow, adds what takes long, KVM included.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "migration/strategy-util.h"

/*
 * The framework always asks for KVM first.  This stands before the path
 * of the binary, and takes that out of its arguments.
 */
#define WITHOUT_KVM \
    "/bin/sh -c '" \
    "n=$#; " \
    "while [ $n -gt 0 ]; do " \
    "a=$1; shift; n=$((n - 1)); " \
    "case \"$a $1\" in " \
    "\"-accel kvm\"*) shift; n=$((n - 1)); continue;; " \
    "esac; " \
    "set -- \"$@\" \"$a\"; " \
    "done; " \
    "exec \"$0\" \"$@\"' "

static void choose_accel(void)
{
    const char *binary = g_getenv("QTEST_QEMU_BINARY");
    g_autofree char *without_kvm = NULL;

    if (!binary) {
        return;
    }
    g_setenv("STRATEGY_QEMU_BINARY", binary, true);
    if (g_strcmp0(g_getenv("MIGRATION_TESTS_ACCEL"), "kvm")) {
        without_kvm = g_strconcat(WITHOUT_KVM, binary, NULL);
        g_setenv("QTEST_QEMU_BINARY", without_kvm, true);
    }
}

static bool take_full(int *argc, char **argv)
{
    bool full = false;
    int kept = 1;

    for (int i = 1; i < *argc; i++) {
        if (g_str_equal(argv[i], "--full")) {
            full = true;
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    *argc = kept;
    return full;
}

int main(int argc, char **argv)
{
    bool full = take_full(&argc, argv);
    MigrationTestEnv *env;
    int ret;

    g_test_init(&argc, &argv, NULL);
    choose_accel();
    env = migration_get_env();
    env->full_set = full || g_test_slow();
    module_call_init(MODULE_INIT_QOM);

    strategy_add_modes(env);
    strategy_add_background();
    strategy_add_parameters();
    strategy_add_refusals();
    strategy_add_cancel();
    strategy_add_failure();
    strategy_add_recovery();
    strategy_add_delta();
    strategy_add_redirect();
    strategy_add_redirect_refusals();
    strategy_add_redirect_faults();
    strategy_add_redirect_hangs();
    strategy_add_redirect_figures();
    strategy_add_redirect_cancel();
    strategy_add_split();

    ret = g_test_run();
    strategy_firmware_delete();
    return migration_env_clean(env) ?: ret;
}
