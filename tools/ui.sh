# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# What the user sees. Sourced by the scripts outside (POSIX sh) and inside (bash) the toolchain root.
# $LOGS must name a directory that exists before quiet is called.

say() { printf '%s\n' "$*"; }
step() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }

# die SENTENCE: the sentence says what is wrong and what to do.
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

ui_time() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# quiet [-p FUNCTION] WHAT COMMAND...: runs COMMAND with its output in a log and shows that it lives: one line,
# rewritten every second on a terminal, a new line every 30 seconds elsewhere. FUNCTION gets the log's name and prints
# how far it got. Returns COMMAND's status; after a failure the end of the log has been shown.
quiet() {
	ui_progress=
	if [ "$1" = -p ]; then
		ui_progress=$2
		shift 2
	fi
	ui_what=$1
	shift
	ui_log=$LOGS/$(printf '%s' "$ui_what" | tr -cs 'A-Za-z0-9_.\n' '-').log
	ui_t0=$(date +%s)
	ui_next=30
	ui_drawn=
	"$@" >"$ui_log" 2>&1 </dev/null 9>&- &
	ui_pid=$!
	while kill -0 "$ui_pid" 2>/dev/null; do
		sleep 0.2
		ui_t=$(($(date +%s) - ui_t0))
		if [ -t 1 ] && [ -z "${CI-}" ]; then
			[ "$ui_t" != "$ui_drawn" ] || continue
			ui_drawn=$ui_t
			printf '\r\033[K    %s: %s %s' "$ui_what" "$(ui_time "$ui_t")" "$(ui_far)"
		elif [ "$ui_t" -ge "$ui_next" ]; then
			ui_next=$((ui_t + 30))
			note "$ui_what: $(ui_time "$ui_t") $(ui_far)"
		fi
	done
	ui_rc=0
	wait "$ui_pid" || ui_rc=$?
	[ -z "$ui_drawn" ] || printf '\r\033[K'
	ui_t=$(($(date +%s) - ui_t0))
	if [ "$ui_rc" = 0 ]; then
		[ "$ui_t" -lt 2 ] || note "$ui_what: done in $(ui_time "$ui_t")"
	else
		note "$ui_what: FAILED after $(ui_time "$ui_t"); the end of its log:"
		tail -n 25 "$ui_log" | sed 's/^/    | /'
		note "the whole log: ${LOGS_SHOWN:-$LOGS}/${ui_log##*/}"
	fi
	return "$ui_rc"
}

ui_far() { [ -z "$ui_progress" ] || "$ui_progress" "$ui_log"; }

# need_gb GIGABYTES DIRECTORY WHAT
need_gb() {
	ui_free=$(df -Pk "$2" | awk 'NR == 2 { print int($4 / 1048576) }')
	[ "$ui_free" -ge "$1" ] ||
		die "$3 needs $1 GB of free disk space and $2 has only $ui_free GB: free some, or set IOPTE_CACHE to a directory on a larger disk."
}
