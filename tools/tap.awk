# SPDX-License-Identifier: GPL-2.0-only
# Reads TAP as kselftest prints it, or KTAP as KUnit prints it (subtests indented by 4), and prints one line a case:
#   pass|fail|skip <tab> NAME <tab> DETAIL
# Only leaves count: a result that follows results of a deeper level sums those up. A sum that fails though none of its
# cases did is a failure of its own. Cases missing from a plan, and no plan at all, are failures.

function indent(s) { match(s, /^ */); return RLENGTH / 4 }

function emit(status, name, detail) {
	printf "%s\t%s\t%s\n", status, name, detail
	if (status == "fail")
		for (l = 0; l <= d; l++)
			bad[l]++
}

# Forgets what was collected below level @level.
function forget(level, l) {
	for (l = level; l <= 8; l++) {
		n[l] = 0
		bad[l] = 0
		delete plan[l]
		delete queue[l]
	}
}

{
	sub(/\r$/, "")
	sub(/^\[ *[0-9]+\.[0-9]+\] /, "")
}

/^ *1\.\.[0-9]+/ {
	d = indent($0)
	sub(/^ *1\.\./, "")
	plan[d] = $1 + 0
	plans++
	next
}

# KUnit names a suite before its cases.
/^ *# Subtest: / {
	d = indent($0) - 1
	sub(/^ *# Subtest: /, "")
	title[d < 0 ? 0 : d] = $0
	next
}

/^ *(not )?ok [0-9]+/ {
	d = indent($0)
	ok = $0 !~ /^ *not ok/
	detail = ""
	skip = 0
	line = $0
	if (match(line, /# *(SKIP|XFAIL|TODO)/)) {
		skip = 1
		detail = substr(line, RSTART + 2)
		line = substr(line, 1, RSTART - 1)
	} else if (match(line, / # /)) {
		detail = substr(line, RSTART + 3)
		line = substr(line, 1, RSTART - 1)
	}
	number = line
	sub(/^ *(not )?ok /, "", number)
	sub(/^ *(not )?ok [0-9]+ *(- )?/, "", line)
	sub(/ +$/, "", line)
	if (line == "")
		line = "case " (number + 0)
	# Names of the levels above were announced before; join them.
	path = ""
	for (i = 0; i < d; i++)
		path = path title[i] "."
	n[d]++
	if (number + 0 != n[d])
		emit("fail", path line, "is number " (number + 0) " where " n[d] " was due: a result is missing")
	if (n[d + 1] || plan[d + 1]) {
		if (plan[d + 1] && n[d + 1] != plan[d + 1])
			emit("fail", path line, "planned " plan[d + 1] " cases, reported " n[d + 1])
		else if (!ok && !bad[d + 1])
			emit("fail", path line, "failed though none of its cases did")
	} else {
		emit(skip ? "skip" : ok ? "pass" : "fail", path line, detail)
	}
	forget(d + 1)
	next
}

END {
	d = 0
	if (!plans)
		emit("fail", "plan", "no TAP plan in the output: the program did not start or died at once")
	else if (n[0] != plan[0])
		emit("fail", "plan", "planned " plan[0] " cases, reported " n[0] + 0)
}
