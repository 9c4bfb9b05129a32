# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# shellcheck disable=SC2034   # read by whoever sources this
#
# Where things are.  Source this first; it brings say.sh along.
#
#   REPO        this repository
#   BUILD_DIR   everything that is made; build/ unless the caller's
#               environment says otherwise (tests do)
#   QEMU_SRC    the patched tree          QEMU_BUILD   its ninja folder
#   STOCK_SRC   the same source, stock    STOCK_BUILD

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
BUILD_DIR=$(realpath -m "${BUILD_DIR:-$REPO/build}")
QEMU_SRC=$BUILD_DIR/qemu-src
QEMU_BUILD=$QEMU_SRC/build
STOCK_SRC=$BUILD_DIR/stock/qemu-src
STOCK_BUILD=$STOCK_SRC/build
PYTHON=/usr/bin/python3

# shellcheck source=scripts/lib/say.sh
. "$REPO/scripts/lib/say.sh"

# base_value KEY: a value of patches/BASE.
base_value() {
    sed -n "s/^$1=//p" "$REPO/patches/BASE"
}

# take_lock NAME: one run at a time; the next one waits.
#   build, stock   the tree of that name and what is compiled in it
#   source         build/base.git and build/dl; held for seconds only
# The order is as listed.  Children inherit the lock: what a killed run has
# left running is waited for, too.
declare -A LOCK_FD=()
take_lock() {
    local fd
    mkdir -p "$BUILD_DIR/state" "$BUILD_DIR/logs" "$BUILD_DIR/tmp"
    exec {fd}>"$BUILD_DIR/state/$1.lock"
    if ! flock -n "$fd"; then
        say "waiting for another run that holds $BUILD_DIR/state/$1.lock"
        flock "$fd"
    fi
    LOCK_FD[$1]=$fd
}

drop_lock() {
    local fd=${LOCK_FD[$1]}
    exec {fd}>&-
}

# make_tmp: a folder TMP for this run; those of killed runs go.
make_tmp() {
    local old
    for old in "$BUILD_DIR"/tmp/*; do
        [ -e "/proc/${old##*/}" ] || rm -rf "$old"
    done
    TMP=$BUILD_DIR/tmp/$$
    mkdir -p "$TMP"
    trap 'rm -rf "$TMP"' EXIT
}

# write_file FILE: stdin into FILE, whole or not at all.
write_file() {
    mkdir -p "$(dirname "$1")"
    cat >"$1.new.$$"
    mv -f "$1.new.$$" "$1"
}

# need_disk MIB WHAT
need_disk() {
    local have
    mkdir -p "$BUILD_DIR"
    have=$(($(df --output=avail -k "$BUILD_DIR" | tail -n 1) / 1024))
    [ "$have" -ge "$1" ] ||
        die "$2 needs $1 MiB of disk and $BUILD_DIR has $have MiB free: free some, or set BUILD_DIR to a larger disk"
}
