# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Debian's archive through apt, with a source list, index and cache of our own
# under build/apt: the system's lists stay as they are.
#
#   need_packages NAME...   install what is missing
#   apt_index               fetch the index (at most once in six hours)
#   apt_source VERSION [F]  download qemu's source; the path in APT_FETCHED
#
# BUILD_APT_MIRROR names another mirror; BUILD_APT_SOURCES a complete source
# list to use in place of ours; BUILD_OS_RELEASE a file to read in place of
# /etc/os-release (the tests do).

OS_RELEASE=${BUILD_OS_RELEASE:-/etc/os-release}
# shellcheck source=/dev/null
OS_ID=$(. "$OS_RELEASE" 2>/dev/null && printf '%s' "${ID:-}") || :
# shellcheck source=/dev/null
OS_CODENAME=$(. "$OS_RELEASE" 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}") || :
# shellcheck source=/dev/null
OS_NAME=$(. "$OS_RELEASE" 2>/dev/null && printf '%s' "${PRETTY_NAME:-${ID:-}}") || :
OS_NAME=${OS_NAME:-an unknown system}
APT_DIR=$BUILD_DIR/apt

is_debian() {
    [ "$OS_ID" = debian ] && command -v apt-get >/dev/null
}

# The mirror that the system itself uses, where it is a plain one.
apt_mirror() {
    local found
    if [ -z "${BUILD_APT_MIRROR:-}" ]; then
        found=$(grep -hoE '^(deb |URIs:).*https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list \
            /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
            grep -oE 'https?://[^ ]+/debian' | grep -v snapshot | sed -n 1p) || :
        BUILD_APT_MIRROR=${found:-http://deb.debian.org/debian}
    fi
    printf '%s\n' "$BUILD_APT_MIRROR"
}

apt_sources_list() {
    local mirror security sign='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
    if [ -n "${BUILD_APT_SOURCES:-}" ]; then
        cat "$BUILD_APT_SOURCES"
        return
    fi
    mirror=$(apt_mirror)
    security=http://deb.debian.org/debian-security
    printf 'deb %s %s main\n' \
        "$sign $mirror" "$OS_CODENAME" "$sign $mirror" "$OS_CODENAME-updates" \
        "$sign $security" "$OS_CODENAME-security"
    [ "$OS_CODENAME" != bookworm ] ||
        printf 'deb %s %s main\n' "$sign $mirror" bookworm-backports
    printf 'deb-src %s %s main\n' \
        "$sign $mirror" trixie "$sign $mirror" trixie-updates \
        "$sign $security" trixie-security
}

# Makes the programs of apt work on our own state.
APT_OPTIONS=(
    -o Dir::Etc::sourcelist="$APT_DIR/sources.list"
    -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$APT_DIR/lists"
    -o Dir::Cache="$APT_DIR/cache"
    -o Dir::Cache::archives="$APT_DIR/cache/archives"
    -o Acquire::Retries=2 -o Acquire::http::Timeout=30
    -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=600
)

apt_index() {
    local new
    mkdir -p "$APT_DIR/lists/partial" "$APT_DIR/cache/archives/partial"
    new=$(apt_sources_list)
    if [ -e "$APT_DIR/fresh" ] && [ "$(cat "$APT_DIR/sources.list")" = "$new" ] &&
       [ -n "$(find "$APT_DIR/fresh" -mmin -360)" ]; then
        return
    fi
    rm -f "$APT_DIR/fresh"
    write_file "$APT_DIR/sources.list" <<<"$new"
    say "fetching Debian's package index into $APT_DIR"
    if apt-get "${APT_OPTIONS[@]}" update >>"$BUILD_DIR/logs/apt.log" 2>&1 </dev/null &&
       compgen -G "$APT_DIR/lists/*_InRelease" >/dev/null; then
        : >"$APT_DIR/fresh"
    fi
}

# Versions of qemu's source package, newest first.
apt_source_versions() {
    { apt-cache "${APT_OPTIONS[@]}" showsrc --only-source qemu 2>/dev/null || :; } |
        sed -n 's/^Version: //p' | sort -u |
        "$PYTHON" "$REPO/scripts/lib/debversion.py"
}

# apt_source VERSION [FILE]: the .orig tarball of it, in APT_FETCHED.
apt_source() {
    local dir="$TMP/apt-source"
    rm -rf "$dir"
    mkdir -p "$dir"
    (cd "$dir" && apt-get "${APT_OPTIONS[@]}" source --download-only --only-source \
        "qemu=$1" >>"$BUILD_DIR/logs/apt.log" 2>&1 </dev/null) || return 1
    APT_FETCHED=$(find "$dir" -name "${2:-*.orig.tar.*}" ! -name '*.asc' | sed -n 1p)
    [ -n "$APT_FETCHED" ]
}

# need_packages NAME...: installed when this returns, or a sentence and out.
# NAME/RELEASE takes it from that release, NAME>=VERSION wants a version.
need_packages() {
    local missing
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086   # a list of words
    install_packages $missing
}

missing_packages() {
    local want name have
    for want; do
        name=${want%%[>/]*}
        have=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$name" 2>/dev/null) || have=
        case $have in
        installed\ *)
            case $want in
            *'>='*) dpkg --compare-versions "${have#installed }" ge "${want#*>=}" || printf '%s\n' "$name" ;;
            esac ;;
        *) printf '%s\n' "$name" ;;
        esac
    done
}

install_packages() {
    local sudo='' release
    if [ "$(id -u)" != 0 ]; then
        sudo='sudo -n'
        $sudo true 2>/dev/null ||
            die "packages are missing and this is not root: run 'sudo apt-get install $*' (on Debian 12 meson comes from bookworm-backports)"
    fi
    need_disk 1500 "installing packages"
    apt_index
    say "installing: $*"
    release=$OS_CODENAME
    case " $* " in *' meson '*) [ "$OS_CODENAME" != bookworm ] || release=bookworm-backports ;; esac
    # Only meson is wanted from backports; the rest stays the release's own.
    if [ "$release" != "$OS_CODENAME" ]; then
        apt_install "$sudo" "meson/$release"
        # shellcheck disable=SC2046
        set -- $(printf '%s\n' "$@" | grep -vx meson)
        [ $# -gt 0 ] || return 0
    fi
    apt_install "$sudo" "$@"
}

apt_install() {
    local sudo=$1
    shift
    # shellcheck disable=SC2086   # sudo may be empty
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get "${APT_OPTIONS[@]}" \
        install -y --no-install-recommends "$@" >>"$BUILD_DIR/logs/apt.log" 2>&1 </dev/null || {
        log_tail "$BUILD_DIR/logs/apt.log" 8
        die "cannot install $*: see $BUILD_DIR/logs/apt.log"
    }
}
