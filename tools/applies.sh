# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of tools/lib.sh and source.sh
# make applies, sourced by tools/goal.sh: says of one kernel which patches fit it, and whether the sources do. What it says
# is kept in $OUT/applies/, a file for each kernel.

applies() {
	local version from p own how failed=0 whole=0 count=0 to file=$OUT/applies
	prepare_pristine
	version=$(kernel_version "$BUILD/pristine")
	own=$(cut -d. -f1,2 <<<"$version")
	from=${KERNEL:-"Debian's $(debian_suite)"}
	series >/tmp/series
	mkdir -p "$file"
	file+=/$version
	{
		while IFS= read -r p; do
			has_hunks "$p" || continue
			count=$((count + 1))
			if not_needed "$own" "$p"; then
				printf '%-24s %s\n' 'not needed' "$p"
				continue
			elif [ -e "$TOP/patches/$own/$p" ]; then
				how="its own, patches/$own/"
				p=$own/$p
			else
				how='as it is'
				whole=$((whole + 1))
			fi
			patch_applies "$p" >/tmp/applies.log 2>&1 || {
				how=FAILS
				failed=$((failed + 1))
			}
			printf '%-24s %s\n' "$how" "${p##*/}"
			[ "$how" != FAILS ] || grep -E 'FAILED|rejects' /tmp/applies.log | sed 's/^/    | /' || true
		done < <(listed_patches)
		while read -r _ to; do
			[ ! -e "$BUILD/pristine/$to" ] || {
				echo "IN THE WAY               $to"
				failed=$((failed + 1))
			}
		done < <(overlay_files)
		echo "Linux $version, $from: $whole of $count patches apply as they are, $failed do not apply"
	} >"$file"
	cat "$file"
	[ "$failed" = 0 ]
}
