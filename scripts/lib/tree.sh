# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# The trees that are built: QEMU's files as git has them, plus links.
#
# A tree is brought from any state to the wanted one touching only the files
# that differ, so that ninja rebuilds little.  state/NAME.tree is removed
# before the first file is touched and written after the last: without it the
# contents of every file are compared.

series_patches() {
    sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$REPO/patches/series"
}

# hooked_tree BASE: set HOOKED to the git tree of BASE with all hooks.
hooked_tree() {
    local patch index="$TMP/index.hooks"
    rm -f "$index"
    GIT_INDEX_FILE=$index base_git read-tree "$1"
    for patch in $(series_patches); do
        apply_to_index "$index" "$patch"
    done
    HOOKED=$(GIT_INDEX_FILE=$index base_git write-tree)
    rm -f "$index"
}

# apply_to_index INDEX PATCH: all of it, or one sentence and out.
apply_to_index() {
    local log="$BUILD_DIR/logs/hooks.log" where
    [ -f "$REPO/patches/$2" ] || die "patches/series lists $2, and there is no patches/$2"
    GIT_INDEX_FILE=$1 base_git apply --cached --whitespace=nowarn "$REPO/patches/$2" 2>"$log" && return
    where=$(sed -n 's/^error: patch failed: //p; s/^error: \(.*\): does not exist in index/\1 (no such file)/p' "$log" |
        paste -sd, | sed 's/,/, /g')
    die "patches/$2 does not apply to QEMU $(base_git show "$SOURCE_BASE:VERSION"): ${where:-$(sed -n 1p "$log")}"
}

# sync_tree DIR NAME TREE: make DIR hold the git tree TREE.
sync_tree() {
    local dir=$1 name=$2 tree=$3
    local index="$BUILD_DIR/state/$name.index" stamp="$BUILD_DIR/state/$name.tree"
    mkdir -p "$dir"
    rm -f "$index.lock"
    if [ ! -e "$index" ]; then
        rm -f "$stamp"
        GIT_INDEX_FILE=$index base_git read-tree "$tree"
    fi
    tree_git "$index" "$dir" update-index -q --refresh >/dev/null || :
    keep_edits "$dir" "$name" "$index" "$stamp"
    [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$tree" ] || return 0
    rm -f "$stamp"
    say "bringing $(realpath --relative-to="$REPO" "$dir") to $(tree_summary "$tree")"
    tree_git "$index" "$dir" read-tree --reset -u "$tree" >"$BUILD_DIR/logs/tree.log" 2>&1 ||
        die "cannot write $dir: $(tail -n 1 "$BUILD_DIR/logs/tree.log")"
    write_file "$stamp" <<<"$tree"
}

tree_summary() {
    printf 'QEMU %s' "$(base_git show "$1:VERSION")"
    if [ "$1" = "${HOOKED:-}" ]; then
        printf ' with %s hooks' "$(series_patches | wc -l)"
    fi
}

tree_git() {
    local index=$1 dir=$2
    shift 2
    (cd "$dir" && GIT_INDEX_FILE=$index base_git --work-tree="$dir" "$@")
}

# Files of QEMU that somebody edited in the built tree: they are put back, as
# what is built must be what the repository says, and the edits are kept.
keep_edits() {
    local dir=$1 name=$2 index=$3 stamp=$4 kept
    [ -e "$stamp" ] || return 0
    [ -n "$(tree_git "$index" "$dir" diff-files --name-only)" ] || return 0
    mkdir -p "$BUILD_DIR/lost-edits"
    kept=$BUILD_DIR/lost-edits/$name-$(date +%Y%m%d-%H%M%S).patch
    tree_git "$index" "$dir" diff-files -p | write_file "$kept"
    warn "these files of $dir were edited and are put back, the edits are in $kept (hooks are edited with scripts/hooks-import): $(
        tree_git "$index" "$dir" diff-files --name-only | paste -sd' ')"
    rm -f "$stamp"
}

# lay_overlay DIR NAME
lay_overlay() {
    local clash changes
    clash=$("$PYTHON" "$REPO/scripts/lib/overlay.py" clashes "$BASE_GIT" "$SOURCE_BASE")
    [ -z "$clash" ] ||
        die "QEMU has a file of this name already, change it by a hook: $(paste -sd' ' <<<"$clash")"
    changes=$("$PYTHON" "$REPO/scripts/lib/overlay.py" lay "$1" "$BASE_GIT" "$BUILD_DIR/state/$2.index")
    [ -z "$changes" ] ||
        say "files of this repository: $(grep -c '^new ' <<<"$changes" || :) linked in, $(grep -c '^gone ' <<<"$changes" || :) removed"
}
