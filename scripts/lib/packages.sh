# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# shellcheck disable=SC2034   # read by whoever sources this
#
# What has to be on the machine, by purpose.  need_build_tools makes sure of
# the first list, on Debian by installing, elsewhere by looking.

BUILD_PACKAGES=(
    # what scripts/ themselves call
    git ca-certificates debian-archive-keyring xz-utils bzip2 perl
    python3 util-linux
    # QEMU's configure and compile
    gcc libc6-dev make ninja-build 'meson>=1.5' pkg-config flex bison
    python3-venv python3-setuptools
    libglib2.0-dev libpixman-1-dev libgnutls28-dev libzstd-dev liburing-dev
    libfdt-dev libslirp-dev zlib1g-dev
    # firmware, which Debian's source does not carry
    seabios ipxe-qemu qemu-system-data
)

# What the tests need beside: the guest's initramfs, network shaping, plots.
TEST_PACKAGES=(busybox-static cpio kmod iproute2 nftables python3-yaml procps
    openssl clang libclang-rt-dev python3-matplotlib)

# What scripts/bench needs: hosts, slow disks, what ours is compared with, plots.
BENCH_PACKAGES=(busybox-static cpio kmod iproute2 mount util-linux memcached
    iperf3 python3-matplotlib)

# For suite libvirt.  No service comes with them; its tests start their own.
LIBVIRT_PACKAGES=(libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    gnutls-bin)

# The guest's kernel, unpacked, never installed: see tests/functional.
FIRMWARE_DIRS=(/usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu)

need_build_tools() {
    case $(uname -m) in
    x86_64) ;;
    *) die "this builds x86_64-softmmu for x86_64 hosts, and this is $(uname -m)" ;;
    esac
    if is_debian; then
        case $OS_CODENAME in
        bookworm) ;;
        buster|bullseye) die "this is $OS_NAME: Debian 12 or 13 is needed" ;;
        esac
        need_packages "${BUILD_PACKAGES[@]}"
        return
    fi
    local lacking
    lacking=$(lacking_tools)
    [ -z "$lacking" ] ||
        die "this is $OS_NAME, where nothing can be installed by itself, and it lacks: $lacking"
}

# For systems other than Debian: what is not there, on one line.
lacking_tools() {
    local item lacking=()
    for item in git xz bzip2 perl gcc make ninja pkg-config flex bison; do
        command -v "$item" >/dev/null || lacking+=("$item")
    done
    [ -x "$PYTHON" ] || lacking+=("$PYTHON")
    for item in glib-2.0 pixman-1 gnutls libzstd liburing slirp zlib; do
        pkg-config --exists "$item" 2>/dev/null || lacking+=("$item (development files)")
    done
    echo 'int fdt_check_full(const void *, unsigned long); int main(void) { return fdt_check_full(0, 0); }' |
        gcc -xc - -o /dev/null -lfdt 2>/dev/null || lacking+=('libfdt (development files)')
    meson_is_new_enough || lacking+=('meson >= 1.5')
    (IFS=,; printf '%s' "${lacking[*]}" | sed 's/,/, /g')
}

meson_is_new_enough() {
    local have
    have=$(meson --version 2>/dev/null) || return 1
    [ "$(printf '1.5\n%s\n' "$have" | sort -V | sed -n 1p)" = 1.5 ]
}
