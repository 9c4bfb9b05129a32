# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Patches to commits and back, so that one after the other changes no byte.
#
# A patch file carries From, Subject, the reason, and a diff with one line of
# context.  What git would write anew each time is left out: commit and blob
# ids, dates, statistics, its version.

is_hooks_tree() {
    [ -e "$1/.git" ] && plain_git -C "$1" rev-parse -q --verify hooks-base >/dev/null
}

# may_replace DIR: out, unless everything in it is in patches/ already.
may_replace() {
    is_hooks_tree "$1" || die "$1 exists and was not made by scripts/hooks-import: name another folder"
    [ -z "$(plain_git -C "$1" status --porcelain)" ] ||
        die "$1 has edits that are in no commit: commit and run scripts/hooks-export, or use --force"
    [ "$(plain_git -C "$1" rev-parse HEAD)" = "$(plain_git -C "$1" rev-parse -q --verify hooks-exported)" ] ||
        die "$1 has commits that are not in patches/: run scripts/hooks-export, or use --force"
}

# import_hooks DIR: made aside and renamed.
import_hooks() {
    local new="$1.new" patch mail
    rm -rf "$new"
    mkdir -p "$(dirname "$new")"
    plain_git clone -q --local --no-checkout --single-branch \
        --branch "$SOURCE_BASE" "$BASE_GIT" "$new"
    plain_git -C "$new" checkout -q -b hooks
    plain_git -C "$new" remote remove origin
    plain_git -C "$new" tag hooks-base
    # The overlay's links, and the tools' droppings.
    { printf '/build/\n'
      "$PYTHON" "$REPO/scripts/lib/overlay.py" list | sed 's,^,/,'; } >"$new/.git/info/exclude"
    mail=$TMP/mail
    for patch in $(series_patches); do
        { printf 'From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n'
          sed '1{/^From 0\{40\}/d}' "$REPO/patches/$patch"; } >"$mail"
        plain_git -C "$new" am -q --keep-non-patch --whitespace=nowarn "$mail" \
            >"$BUILD_DIR/logs/hooks.log" 2>&1 ||
            die "patches/$patch cannot be made a commit: $(sed -n 1p "$BUILD_DIR/logs/hooks.log")"
    done
    plain_git -C "$new" tag hooks-exported
    rm -rf "$1"
    mv "$new" "$1"
}

# export_hooks DIR OUT: patches and series of DIR's commits, in the folder OUT.
export_hooks() {
    local commit name
    rm -rf "$2"
    mkdir -p "$2"
    printf '# The hooks, in the order in which they are applied; hooks-export writes this.\n' >"$2/series"
    for commit in $(plain_git -C "$1" rev-list --reverse --no-merges hooks-base..HEAD); do
        name=$(patch_name "$1" "$commit")
        [ ! -e "$2/$name" ] || die "two commits of $1 have the same subject: $(plain_git -C "$1" log -1 --format=%s "$commit")"
        plain_git -C "$1" -c format.encodeEmailHeaders=false -c diff.noprefix=false \
            format-patch -1 --stdout -U1 -p --zero-commit --no-signature --no-numbered \
            --keep-subject --no-renames --no-ext-diff --diff-algorithm=myers "$commit" |
            without_noise >"$2/$name"
        printf '%s\n' "$name" >>"$2/series"
    done
}

# From-line, date and blob ids say nothing about a hook and change with the
# base; git needs none of them to apply it.
without_noise() {
    awk 'BEGIN { head = 1 }
         head && /^From 0+ / { next }
         head && /^Date: / { next }
         head && /^$/ { head = 0 }
         /^diff --git / { diff = 1 }
         diff && /^index [0-9a-f]+\.\.[0-9a-f]+( [0-7]+)?$/ { next }
         /^@@ / { diff = 0 }
         { print }' | sed -e '${/^$/d}'
}

# patch_name DIR COMMIT: the name of the patch with this subject, or a new one.
patch_name() {
    local subject patch
    subject=$(plain_git -C "$1" log -1 --format=%s "$2")
    for patch in $(series_patches); do
        if [ "$(patch_subject "$REPO/patches/$patch")" = "$subject" ]; then
            printf '%s\n' "$patch"
            return
        fi
    done
    printf '%s.patch\n' "$(plain_git -C "$1" log -1 --format=%f "$2" | tr '[:upper:]' '[:lower:]' | cut -c1-60)"
}

# The subject, unfolded, without [PATCH].
patch_subject() {
    awk '/^Subject: / { on = 1; sub(/^Subject: /, ""); s = $0; next }
         on && /^[ \t]/ { s = s $0; next }
         on { exit }
         END { sub(/^\[PATCH[^]]*\] */, "", s); print s }' "$1"
}

# install_patches FROM TO: only what differs is written, what is gone goes.
install_patches() {
    local file
    for file in "$1"/*; do
        cmp -s "$file" "$2/${file##*/}" || write_file "$2/${file##*/}" <"$file"
    done
    for file in "$2"/*.patch; do
        [ ! -e "$file" ] || [ -e "$1/${file##*/}" ] || rm -f "$file"
    done
}

# What stands between the subject and the trailers.
patch_reason() {
    awk '/^(diff --git |---$)/ { exit }
         body && NF && !/^[A-Za-z-]+-by: / { print }
         /^$/ { body = 1 }' "$1"
}
