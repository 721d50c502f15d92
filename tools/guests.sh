# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of tools/lib.sh and of who sources this
# Runs the guests of make test and of make series-check. Every case becomes a line "STATUS<tab>CHECK: CASE<tab>DETAIL" in
# $results. Who sources this sets $lists, files like tools/tests.list; $shots, the directory that gets a directory for each
# run; $other, the kernel that takes the place of x86, or nothing; $slower, a factor for time limits, or nothing; and
# $t_start, the second from which the time shown is counted.

wanted() { [[ -z ${ONLY-} || $1 =~ $ONLY ]]; }

# record CHECK [FILE] <cases: lines from the stdin, as tap.awk prints them, into FILE or else $results. Known failures are
# told apart here.
record() {
	local last
	last=$(mktemp)
	awk -F'\t' -v OFS='\t' -v check="$1" -v known="$TOP/tools/known-failures" '
		BEGIN {
			while ((getline line <known) > 0)
				if (line !~ /^#/ && split(line, f, / *\| */) >= 3 && f[1] == check) reason[f[2]] = f[3]
		}
		$2 in reason && $1 == "fail" { $1 = "known"; $3 = reason[$2] }
		$2 in reason && $1 == "pass" { $1 = "fail"; $3 = "passes, but tools/known-failures lists it: drop it there" }
		{ print $1, check ": " $2, $3 }' >"$last"
	cat "$last" >>"${2-$results}"
	awk -F'\t' -v t="$((SECONDS - t_check))" '
		{ c[$1]++ }
		$1 == "fail" || $1 == "known" { print "    " ($1 == "fail" ? "FAILED " : "known failure ") $2 ($3 != "" ? " (" $3 ")" : "") }
		END { printf "    %d passed, %d failed, %d skipped in %d s\n", c["pass"], c["fail"], c["skip"] + c["known"], t }' "$last"
	rm "$last"
}

# Cases of one run in $1/stdout, with the checks that go beyond single cases: enough of them, and a status that fits.
guest_cases() {
	local dir=$1 status=$2 least=$3 why=$4
	awk -f "$TOP/tools/tap.awk" "$dir/stdout" >"$dir/cases"
	awk -f "$TOP/tools/twins.awk" "$dir/cases" >"$dir/twins"
	cat "$dir/twins" >>"$dir/cases"
	cat "$dir/cases"
	local n
	n=$(grep -c '^pass' "$dir/cases" || true)
	[ "$n" -ge "$least" ] || printf 'fail\tnumber of cases\t%d passed, at least %d must\n' "$n" "$least"
	[ "$status" = 0 ] || { grep -q ^fail "$dir/cases" && [ "$status" -lt 124 ]; } ||
		printf 'fail\texit status %d\t%s\n' "$status" "$why"
}

run_uml() {
	local dir=$1 timeout=$2 suites=$3 rc=0 suite
	boot_kunit "$(kernel_image uml)" "$dir" "$timeout" || rc=$?
	for suite in $suites; do
		grep -q "^ok [0-9]* $suite" "$dir/stdout" || grep -q "^not ok [0-9]* $suite" "$dir/stdout" || {
			echo "suite $suite did not report"
			rc=125
		}
	done
	# Nobody would miss it. What the kernel's own Rust code tests is not our business.
	while read -r suite; do
		[[ $suite == rust_* || " $suites " == *" $suite "* ]] || {
			echo "suite $suite is not in the list"
			rc=125
		}
	done < <(sed -nE 's/^(not )?ok [0-9]+ ([^ ]+).*/\2/p' "$dir/stdout")
	return $rc
}

# The runs of tests.list that ONLY leaves: "NAME@BED|BED|TIMEOUT|LEAST|COMMAND" without the blanks around the first four.
guests() {
	local name beds bed timeout rest
	cat "${lists[@]}" | sed 's/#.*//; /^[[:space:]]*$/d; s/ *| */|/; s/ *| */|/2; s/ *| */|/3; s/ *| */|/4' |
		while IFS='|' read -r name beds timeout rest; do
			for bed in $beds; do
				[ -z "$other" ] || [ "$(kernel_of_bed "$bed")" = "$other" ] || continue
				! wanted "$name@$bed" || printf '%s|%s|%s|%s\n' "$name@$bed" "$bed" $((timeout * ${slower:-1})) "$rest"
			done
		done
}

# One guest, in a process of its own: what it has to say is in $run.report when $run.done is there.
run_guest() {
	local name=$1 bed=$2 timeout=$3 least=$4 command=$5 dir=$6 run=/tmp/guest.$1 rc=0
	t_check=$SECONDS
	{
		if [ "$bed" = uml ]; then
			quiet "$name" run_uml "$dir" "$timeout" "$command" || rc=$?
		else
			quiet "$name" "$TOP/tools/vm" -q -b "$bed" -t "$timeout" -o "$dir" "$command" || rc=$?
		fi
	} >"$run.progress"
	{
		echo "==> Test: $name"
		grep -E '\| | FAILED | log: ' "$run.progress" || true
		{ cat "$ui_log" "$dir/stdout" 2>/dev/null || true; } | sed -n '/started once more$/s/^/    /p'
		guest_cases "$dir" $rc "$least" "$(tail -n 1 "$ui_log")" | record "$name" "$run.record"
	} >"$run.report"
	touch "$run.done"
}

# The slowest first, as many at once as there are processors.
test_guests() {
	local name bed timeout least command dir running=() at_once t_shown=$SECONDS
	at_once=${JOBS:-$(nproc)}
	while IFS='|' read -r name bed timeout least command; do
		while [ "${#running[@]}" -ge "$at_once" ]; do reap; done
		dir=$shots/$name
		rm -rf "$dir"
		mkdir -p "$dir"
		run_guest "$name" "$bed" "$timeout" "$least" "$command" "$dir" &
		running+=("$name")
	done < <(guests | sort -t'|' -k3,3nr -s)
	while [ "${#running[@]}" -gt 0 ]; do reap; done
}

# Reports the guests that have ended; waits a moment. A person sees which ones run.
reap() {
	local name still=()
	sleep 0.3
	for name in "${running[@]}"; do
		if [ -e "/tmp/guest.$name.done" ]; then
			[ ! -t 1 ] || printf '\r\033[K'
			cat "/tmp/guest.$name.report"
			cat "/tmp/guest.$name.record" >>"$results"
		else
			still+=("$name")
		fi
	done
	running=(${still[@]+"${still[@]}"})
	if [ -t 1 ] && [ -z "${CI-}" ]; then
		printf '\r\033[K    %s: running %s' "$(ui_time $((SECONDS - t_start)))" "${running[*]}"
	elif [ $((SECONDS - t_shown)) -ge 30 ]; then
		t_shown=$SECONDS
		note "$(ui_time $((SECONDS - t_start))): running ${running[*]}"
	fi
}
