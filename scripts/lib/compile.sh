# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Configure and compile a tree.  Stock and ours get the same options.

CONFIGURE_OPTIONS=(
    --python="$PYTHON" --target-list=x86_64-softmmu
    --without-default-features
    --enable-kvm --enable-tcg --enable-gnutls --enable-zstd
    --enable-linux-io-uring --enable-fdt=system --enable-avx2
    --enable-avx512bw --enable-slirp --enable-tools --enable-vhost-user
    --disable-install-blobs --disable-docs --disable-download
    --firmwarepath="$(IFS=:; printf '%s' "${FIRMWARE_DIRS[*]}")"
)

# configure_tree SRC NAME: the stamp in the build folder tells which options
# and which configure made it; without it the folder was left half-made.
configure_tree() {
    local src=$1 name=$2 options want stamp
    # shellcheck disable=SC2206   # words, as its user gave them
    options=("${CONFIGURE_OPTIONS[@]}" ${BUILD_CONFIGURE:-})
    use_ccache && options+=(--cc='ccache cc')
    stamp=$src/build/.configured
    want=$(printf '%s\n' "$src" "${options[@]}" | cat - "$src/configure" \
        "$src/pythondeps.toml" "$src/python/scripts/mkvenv.py" | sha256sum)
    [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$want" ] || return 0
    say "configuring $(realpath --relative-to="$REPO" "$src")"
    rm -rf "$src/build"
    mkdir -p "$src/build"
    printf '%s\n' '*' >"$src/build/.gitignore"
    logged "configure-$name" "QEMU's configure failed" \
        env -C "$src/build" ../configure "${options[@]}"
    write_file "$stamp" <<<"$want"
}

use_ccache() {
    command -v ccache >/dev/null && [ -z "${BUILD_NO_CCACHE:-}" ]
}

# ninja_tree SRC NAME TARGET...
ninja_tree() {
    local src=$1 name=$2 log="$BUILD_DIR/logs/ninja-$2.log"
    shift 2
    # Stock's objects are ours where the source is the same.
    export CCACHE_BASEDIR=$BUILD_DIR CCACHE_NOHASHDIR=1
    if ! ninja -C "$src/build" ${BUILD_JOBS:+-j "$BUILD_JOBS"} "$@" 2>&1 </dev/null |
        tee "$log" | ninja_progress; then
        grep -A20 -m1 '^FAILED' "$log" | sed 's/^/    /' >&2 || log_tail "$log"
        die "compiling $(realpath --relative-to="$REPO" "$src") failed (log: $log)"
    fi
}

# One line a minute of "[n/N] ..." lines.
ninja_progress() {
    local line last=$SECONDS
    while IFS= read -r line; do
        [[ $line == \[*/*\]* ]] || continue
        if [ $((SECONDS - last)) -ge "${BUILD_PROGRESS_SECONDS:-30}" ]; then
            say "compiled ${line%%]*}]"
            last=$SECONDS
        fi
    done
}

# finish_tree BUILD BIN: firmware where the programs look for it, and BIN with
# a link to every program.  The programs resolve the link and find the data
# beside themselves; a copy of one elsewhere uses --firmwarepath as it is.
finish_tree() {
    local build=$1 bin=$2 dir program
    for dir in "${FIRMWARE_DIRS[@]}"; do
        mkdir -p "$build/qemu-bundle${dir%/*}"
        [ -L "$build/qemu-bundle$dir" ] || ln -sfn "$dir" "$build/qemu-bundle$dir"
    done
    mkdir -p "$bin"
    find "$bin" -xtype l -delete
    for program in "$build"/qemu-* "$build"/migration/memserver/qemu-*; do
        if [ ! -f "$program" ] || [ ! -x "$program" ]; then
            continue
        fi
        [ -e "$bin/${program##*/}" ] ||
            ln -sfn "$(realpath -s --relative-to="$bin" "$program")" "$bin/${program##*/}"
    done
}

# check_program FILE: it runs, and it sees its firmware.
check_program() {
    local dir
    "$1" -version >"$BUILD_DIR/logs/version.log" 2>&1 ||
        die "$1 was built and does not run: $(tail -n 1 "$BUILD_DIR/logs/version.log")"
    for dir in $("$1" -L help); do
        [ ! -e "$dir/bios-256k.bin" ] || return 0
    done
    die "$1 was built and finds no firmware: bios-256k.bin is in none of ${FIRMWARE_DIRS[*]} (Debian's package seabios has it)"
}
