# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# QEMU's source as git objects.  build/base.git holds, for every source that
# was ever used, two branches:
#
#   pristine/KEY   the source as it was published (without roms/*/, which
#                  no part of this build reads)
#   prepared/KEY   plus the edits of lib/source.sh that make it configure
#
# Patches are applied to an index, never to files, so that a patch which does
# not apply leaves nothing behind and a changed series touches only the files
# that differ.

BASE_GIT=$BUILD_DIR/base.git

# Git as it comes, whatever the user has configured.
plain_git() {
    GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null \
    GIT_AUTHOR_NAME=hooks GIT_AUTHOR_EMAIL=hooks@localhost \
    GIT_COMMITTER_NAME=hooks GIT_COMMITTER_EMAIL=hooks@localhost \
        git -c core.autocrlf=false -c core.abbrev=12 -c core.safecrlf=false \
            -c advice.detachedHead=false -c gc.auto=0 -c maintenance.auto=false \
            -c safe.directory='*' "$@"
}

base_git() {
    plain_git --git-dir="$BASE_GIT" "$@"
}

base_git_init() {
    [ ! -e "$BASE_GIT/HEAD" ] || return 0
    rm -rf "$BASE_GIT.new"
    plain_git init -q --bare "$BASE_GIT.new"
    plain_git --git-dir="$BASE_GIT.new" config core.compression 1
    rm -rf "$BASE_GIT"
    mv "$BASE_GIT.new" "$BASE_GIT"
}

have_ref() {
    [ -e "$BASE_GIT/HEAD" ] && base_git rev-parse -q --verify "$1^{tree}" >/dev/null
}
