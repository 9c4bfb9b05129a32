# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# For tests of scripts/: TAP, and a scratch repository with a small overlay
# and one hook, that shares QEMU's source with the real build folder.

REAL=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
REAL_BUILD=${BUILD_DIR:-$REAL/build}
unset BUILD_DIR QEMU_SOURCE SAY_NAME SAY_START MAKEFLAGS
WORK=$(mktemp -d "${TMPDIR:-/tmp}/test-scripts.XXXXXX")
trap 'cd /; rm -rf "$WORK"' EXIT
export GIT_CONFIG_GLOBAL=$WORK/gitconfig
git config --global user.name 'Test Person'
git config --global user.email test@example.org
git config --global safe.directory '*'
TAP_N=0 TAP_BAD=0

# ok NAME COMMAND...: one sub-test; what the command printed goes before it if
# it failed, where scripts/lib/summary.py looks for it.
ok() {
    local name=$1
    shift
    TAP_N=$((TAP_N + 1))
    if "$@" >"$WORK/tap.log" 2>&1; then
        echo "ok $TAP_N - $name"
    else
        TAP_BAD=1
        sed 's/^/# /' "$WORK/tap.log"
        [ ! -s "$WORK/err" ] || sed 's/^/# stderr: /' "$WORK/err"
        echo "not ok $TAP_N - $name"
    fi
}

skip() {
    TAP_N=$((TAP_N + 1))
    echo "ok $TAP_N - $1 # SKIP $2"
}

finish() {
    echo "1..$TAP_N"
    exit "$TAP_BAD"
}

# scratch NAME: a repository in $WORK/NAME, and cd there.
scratch() {
    mkdir -p "$WORK/$1"
    cd "$WORK/$1" || exit 1
    (cd "$REAL" && tar cf - scripts patches/BASE patches/export.* .gitignore) | tar xf -
    git init -q .
    printf '# empty\n' >patches/series
    mkdir -p build/dl migration/strategy
    cp -al "$REAL_BUILD/base.git" build/base.git
    find "$REAL_BUILD/dl" -name '*.orig.tar.*' -exec ln {} build/dl/ \; 2>/dev/null ||
        find "$REAL_BUILD/dl" -name '*.orig.tar.*' -exec cp {} build/dl/ \;
    printf '/* SPDX-License-Identifier: GPL-2.0-or-later */\n' >migration/strategy/probe.c
    write_hook
    git add -A
    git -c gc.auto=0 commit -q -m 'test: a scratch repository'
}

# The hook of the scratch repository: one line in migration/ram.c.
write_hook() {
    cat >patches/ram-probe.patch <<'P'
From: Test Person <test@example.org>
Subject: migration/ram: probe

A hook to test with.

Signed-off-by: Test Person <test@example.org>

diff --git a/migration/ram.c b/migration/ram.c
--- a/migration/ram.c
+++ b/migration/ram.c
@@ -4511,2 +4511,3 @@ static RAMBlockNotifier ram_mig_ram_notifier = {
 
+/* probe */
 void ram_mig_init(void)
P
    printf '%s\n' "$(sed -n 1p "$REAL/patches/series")" ram-probe.patch >patches/series
}

# run COMMAND...: status in RC, output in $WORK/out and $WORK/err.
run() {
    RC=0
    "$@" >"$WORK/out" 2>"$WORK/err" </dev/null || RC=$?
}

# refused PATTERN: the last run failed with one sentence that matches.
refused() {
    [ "$RC" != 0 ] || { echo "it succeeded"; return 1; }
    grep -qE -- "$1" "$WORK/err" || { echo "no such sentence: $1"; return 1; }
    [ "$(grep -c '^scripts/' "$WORK/err")" = 1 ] || { echo "not one sentence"; return 1; }
}

# holds TREE TREEISH: the files of TREE are those of TREEISH, byte for byte.
holds() {
    rm -f "$WORK/holds.index"
    GIT_INDEX_FILE=$WORK/holds.index git --git-dir=build/base.git read-tree "$2"
    GIT_INDEX_FILE=$WORK/holds.index git --git-dir=build/base.git --work-tree="$1" \
        update-index -q --refresh >/dev/null || :
    GIT_INDEX_FILE=$WORK/holds.index git --git-dir=build/base.git --work-tree="$1" \
        diff-files --stat --exit-code
}
