# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the user sees: one line a step with the time since the start, one
# sentence when something cannot be done.  Long output goes to log files.

SAY_START=${SAY_START:-$(date +%s)}
SAY_NAME=${SAY_NAME:-scripts/$(basename "$0")}

say() {
    printf '[%4ds] %s\n' $(($(date +%s) - SAY_START)) "$*"
}

warn() {
    printf '%s: warning: %s\n' "$SAY_NAME" "$*" >&2
}

die() {
    printf '%s: %s\n' "$SAY_NAME" "$*" >&2
    exit 1
}

# log_tail LOG: the end of a log, indented, to stderr.
log_tail() {
    printf '%s: the end of %s:\n' "$SAY_NAME" "$1" >&2
    tail -n "${2:-25}" "$1" | sed 's/^/    /' >&2
}

# logged LOG SENTENCE COMMAND...: run with the output in build/logs/LOG.log;
# on failure show the end of it and die with the sentence.
logged() {
    local log="$BUILD_DIR/logs/$1.log" sentence=$2
    shift 2
    mkdir -p "$BUILD_DIR/logs"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        log_tail "$log"
        die "$sentence (log: $log)"
    fi
}
