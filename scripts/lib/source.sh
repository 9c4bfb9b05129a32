# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Where QEMU's source comes from, and how it gets into build/base.git.
#
# Three kinds: "debian" (the package that patches/BASE pins, through apt),
# a tarball, a folder.  The choice lasts: it is kept in build/state/source so
# that scripts/check, demo and bench build what the user asked for once.
# Nothing of the caller's is ever written to.
#
# source_select sets SOURCE_KEY, the name of the branches in base.git.

source_select() {
    local wanted=$1 last="$BUILD_DIR/state/source"
    if [ -z "$wanted" ] && [ -s "$last" ]; then
        wanted=$(cat "$last")
        [ "$wanted" = debian ] ||
            say "source: $wanted, as last time (--qemu-source debian goes back to Debian's)"
    fi
    case ${wanted:-debian} in
    debian) source_debian ;;
    *)
        if [ -d "$wanted" ]; then
            source_folder "$(realpath "$wanted")"
        elif [ -f "$wanted" ]; then
            source_tarball "$(realpath "$wanted")"
        else
            die "--qemu-source $wanted: no such folder or file"
        fi
        ;;
    esac
    write_file "$last" <<<"${SOURCE_ORIGIN:-debian}"
}

# ------------------------------------------------------------ Debian's package

source_debian() {
    local version
    SOURCE_ORIGIN=debian
    version=$(base_value version)
    SOURCE_KEY=$(version_key "$version")
    have_ref "prepared/$SOURCE_KEY" && return
    # A version that stood in for a pinned one that is gone.
    if [ -s "$BUILD_DIR/state/stand-in.$SOURCE_KEY" ] &&
       [ ! -e "$BUILD_DIR/dl/$(base_value orig)" ]; then
        SOURCE_KEY=$(version_key "$(cat "$BUILD_DIR/state/stand-in.$SOURCE_KEY")")
        warn "the pinned $version is not in Debian's archive: building $SOURCE_KEY"
        have_ref "prepared/$SOURCE_KEY" && return
    fi
    SOURCE_KEY=$(version_key "$version")
    fetch_debian "$version"
    import_tarball "$FETCHED"
}

# 1:10.0.13+ds-0+deb13u1 -> 10.0.13+ds-0+deb13u1
version_key() {
    printf '%s\n' "${1#*:}"
}

# fetch_debian VERSION: leaves the path of a tarball in FETCHED.
fetch_debian() {
    local file want
    file=$(base_value orig) want=$(base_value sha256)
    FETCHED=$BUILD_DIR/dl/$file
    mkdir -p "$BUILD_DIR/dl"
    if [ -e "$FETCHED" ]; then
        check_sha256 "$FETCHED" "$want"
        return
    fi
    need_disk 400 "getting QEMU's source"
    is_debian || die "this is $OS_NAME, and QEMU's source package comes through Debian's apt: give the source yourself with --qemu-source DIR|TARBALL"
    say "getting QEMU's source: Debian's package $1"
    apt_index
    if ! apt_source "$1" "$file"; then
        fetch_stand_in "$1"
        return
    fi
    check_sha256 "$APT_FETCHED" "$want"
    mv -f "$APT_FETCHED" "$FETCHED"
}

# The pinned version is gone: the newest of the same series that downloads.
fetch_stand_in() {
    local pinned=$1 version series
    series=$(base_value series)
    for version in $(apt_source_versions | grep "^[0-9]*:*$series\." | grep -vxF "$pinned"); do
        if apt_source "$version" ''; then
            warn "the pinned version $pinned is not in Debian's archive any more: building $version with the same hooks; its hash is vouched for by Debian's signed index only"
            FETCHED=$BUILD_DIR/dl/$(basename "$APT_FETCHED")
            mv -f "$APT_FETCHED" "$FETCHED"
            write_file "$BUILD_DIR/state/stand-in.$SOURCE_KEY" <<<"$version"
            SOURCE_KEY=$(version_key "$version")
            return
        fi
    done
    die "cannot get QEMU's source: no package index and no $series.z tarball reachable at $(apt_mirror) (see $BUILD_DIR/logs/apt.log) and none in $BUILD_DIR/dl; connect to the network, or use --qemu-source DIR|TARBALL"
}

check_sha256() {
    local got
    got=$(sha256sum "$1" | cut -d' ' -f1)
    [ "$got" = "$2" ] && return
    mv -f "$1" "$1.wrong"
    die "$(basename "$1") has SHA-256 $got where patches/BASE wants $2: put aside as $1.wrong, nothing was built from it"
}

# ------------------------------------------------------- the caller's own tree

source_tarball() {
    SOURCE_ORIGIN=$1
    SOURCE_KEY=tarball-$(sha256sum "$1" | cut -c1-16)
    have_ref "prepared/$SOURCE_KEY" || import_tarball "$1"
}

source_folder() {
    SOURCE_ORIGIN=$1
    if [ ! -x "$1/configure" ] || [ ! -f "$1/VERSION" ]; then
        die "--qemu-source $1: not a QEMU source tree (no configure, no VERSION)"
    fi
    folder_files "$1" >"$TMP/files"
    # shellcheck disable=SC2015   # a file that vanishes meanwhile is no error
    SOURCE_KEY=folder-$( (cd "$1" && xargs -0 -a "$TMP/files" \
        stat -c '%n %s %Y %f' -- 2>/dev/null || :) | sha256sum | cut -c1-16)
    have_ref "prepared/$SOURCE_KEY" && return
    need_disk 1000 "importing $1"
    say "importing $1"
    mkdir -p "$TMP/src"
    tar -C "$1" --null --no-recursion --ignore-failed-read -cf - \
        -T "$TMP/files" | tar -C "$TMP/src" -xf - ||
        die "cannot copy $1 to $TMP"
    import_tree "$TMP/src"
}

# The files of a tree, NUL-separated: what git has or would take where it is a
# git tree, everything but build folders otherwise.
folder_files() {
    # shellcheck disable=SC2016   # sh expands it
    if [ -e "$1/.git" ]; then
        { plain_git -C "$1" ls-files -z --recurse-submodules
          plain_git -C "$1" ls-files -z --others --exclude-standard
          submodule_free_parts "$1"; } | sort -zu |
            grep -zvE '^roms/[^/]+/' |
            (cd "$1" && xargs -0 -r sh -c \
                'for f; do if [ -f "$f" ] || [ -L "$f" ]; then printf "%s\0" "$f"; fi; done' sh)
    else
        (cd "$1" && find . \( -name .git -o -path './roms/*/*' \) -prune -o \
            -type d -exec test -e '{}/config-host.mak' \; -prune -o \
            \( -type f -o -type l \) -printf '%P\0') | sort -z
    fi
}

# Parts that configure has downloaded into a git tree, which git ignores there.
submodule_free_parts() {
    (cd "$1" && find subprojects/keycodemapdb subprojects/berkeley-softfloat-3 \
        subprojects/berkeley-testfloat-3 subprojects/dtc python/wheels \
        -name .git -prune -o -type f -print0 2>/dev/null) || :
}

# ------------------------------------------------------------------- importing

import_tarball() {
    need_disk 1000 "unpacking QEMU's source"
    say "unpacking $(basename "$1")"
    mkdir -p "$TMP/src"
    tar -C "$TMP/src" --strip-components=1 --exclude='*/roms/*/*' -xf "$1" \
        2>"$BUILD_DIR/logs/unpack.log" ||
        die "cannot unpack $1: $(tail -n 1 "$BUILD_DIR/logs/unpack.log")"
    import_tree "$TMP/src"
}

# import_tree DIR: DIR is ours and goes away.
import_tree() {
    local dir=$1 version pristine prepared
    if [ ! -x "$dir/configure" ] || [ ! -f "$dir/VERSION" ]; then
        die "$SOURCE_ORIGIN is not a QEMU source tree (no configure, no VERSION)"
    fi
    version=$(cat "$dir/VERSION")
    case $version in
    "$(base_value series)".*) ;;
    *) die "$SOURCE_ORIGIN is QEMU $version, and the series is for QEMU $(base_value series).z" ;;
    esac
    base_git_init
    pristine=$(commit_tree "$dir" "QEMU $version")
    prepare_source "$dir"
    prepared=$(commit_tree "$dir" "QEMU $version, prepared for a build without network" "$pristine")
    base_git update-ref "refs/heads/pristine/$SOURCE_KEY" "$pristine"
    base_git update-ref "refs/heads/prepared/$SOURCE_KEY" "$prepared"
    rm -rf "$dir" "$TMP/index"
    # One file in place of ten thousand: clones and links of it are instant.
    base_git repack -adq --window=0 --depth=0
}

# commit_tree DIR MESSAGE [PARENT]
commit_tree() {
    local tree
    GIT_INDEX_FILE=$TMP/index base_git --work-tree="$1" add -A -f .
    tree=$(GIT_INDEX_FILE=$TMP/index base_git write-tree)
    GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' \
        base_git commit-tree "$tree" ${3:+-p "$3"} -m "$2"
}

# What Debian's own patches do for the same reason (disable-pycotap.patch and
# skip-unpack-edk2-blobs.patch): its tarball has neither the wheel nor the
# firmware.  Common to stock and ours, and to no file that a hook touches.
prepare_source() {
    if ! compgen -G "$1/python/wheels/pycotap-*.whl" >/dev/null; then
        sed -i 's/^pycotap = /#&/' "$1/pythondeps.toml"
    fi
    if [ ! -e "$1/pc-bios/edk2-x86_64-code.fd.bz2" ]; then
        sed -i '1,3s/^if unpack_edk2_blobs$/& and false/' "$1/pc-bios/meson.build"
    fi
}
