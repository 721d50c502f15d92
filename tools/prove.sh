# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034,SC2154,SC2016 # top, cache, userns come from tools/run; $1 is for the hook
# The root in which proofs are checked: Debian trixie with the packages of tools/prove-packages. It is not the toolchain root,
# so that who only wants the proofs needs no more, and a change here rebuilds no kernel.

# Sets $prove_root and makes it if it is missing.
prove_make() {
	prove_root=$cache/prove-$( (cat "$top/tools/prove-packages" "$top/tools/prove.sh" && echo "$userns ${IOPTE_MIRROR-}") | sha256sum | cut -c1-12)
	[ ! -d "$prove_root" ] || return 0

	exec 9>"$cache/lock"
	flock -n 9 || {
		note "another run uses $cache; waiting for it"
		flock 9
	}
	if [ ! -d "$prove_root" ]; then
		step "Root for the proofs: Debian $root_suite in $prove_root (about 2 minutes, 2 GB)"
		need_gb 4 "$cache" "The first run"
		root_need_mmdebstrap
		root_ns rm -rf "$prove_root.tmp"
		mkdir "$prove_root.tmp"
		quiet -p root_progress "Root for the proofs" root_ns mmdebstrap --mode=root --format=directory --variant=minbase --skip=check/empty \
			--aptopt='Acquire::Retries "3"' --dpkgopt=force-unsafe-io --include="$(sed '/^#/d' "$top/tools/prove-packages" | xargs)" \
			--customize-hook='chroot "$1" apt-get clean' \
			--customize-hook='cd "$1" && mkdir -p src build cache out kernel etc/ssl/certs && : >>etc/ssl/certs/ca-certificates.crt' \
			"$root_suite" "$prove_root.tmp" ${IOPTE_MIRROR:+"$IOPTE_MIRROR"} ||
			die "the root for the proofs could not be made: check that this machine reaches its Debian mirror (http_proxy, IOPTE_MIRROR=URL for another mirror) and run the same command again."
		mv "$prove_root.tmp" "$prove_root"
	fi
	exec 9>&-
}
