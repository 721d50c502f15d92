# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154,SC2016 # top, cache, build, kernel come from tools/run
# The toolchain root: a Debian trixie tree with the packages of tools/root-packages, made by mmdebstrap.
# Root uses a mount namespace and chroot; anybody else the same inside a user namespace.

root_suite=trixie

# Sets $userns to the unshare options that make us root in a user namespace; empty for the real root.
root_choose_mode() {
	userns=
	if [ "$(id -u)" = 0 ]; then
		unshare --mount --pid --fork true 2>/dev/null ||
			die "root may not make a mount namespace here (CAP_SYS_ADMIN is missing): run on the host, or start the container with --privileged."
	else
		userns='--user --map-root-user --map-auto'
		# shellcheck disable=SC2086 # a list of options
		unshare $userns --mount --pid --fork true 2>/dev/null ||
			die "this user may not make user namespaces with subordinate ids: install uidmap, give the user a range (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)), allow unprivileged user namespaces, or run as root."
	fi
}

# root_ns COMMAND...: in namespaces of its own; when we die, all of it dies (unshare itself ignores SIGTERM).
root_ns() {
	# shellcheck disable=SC2086
	setpriv --pdeathsig KILL unshare $userns --mount --pid --fork --kill-child --propagation private -- "$@"
}

# root_packages [PREFIX:]: the names in the lines that start so, or with no prefix.
root_packages() {
	if [ -n "${1-}" ]; then sed -n "s/^$1//p" "$top/tools/root-packages"; else sed '/^#/d; /:/d' "$top/tools/root-packages"; fi |
		xargs
}

root_make() {
	root_key=$( (cat "$top/tools/root-packages" "$top/tools/bootstrap.sh" "$top/tools/foreign.sh" "$top/tools/new-rust.sh" && echo "$userns ${IOPTE_MIRROR-}") | sha256sum | cut -c1-12)
	root=$cache/root-$root_key
	[ ! -d "$root" ] || return 0

	exec 9>"$cache/lock"
	flock -n 9 || {
		note "another run uses $cache; waiting for it"
		flock 9
	}
	if [ ! -d "$root" ]; then
		step "Toolchain root: Debian $root_suite in $root (about 2 minutes, 3 GB)"
		need_gb 13 "$cache" "The first run"
		root_need_mmdebstrap
		root_ns rm -rf "$root.tmp"
		mkdir "$root.tmp"
		quiet -p root_progress "Toolchain root" root_ns "$top/tools/bootstrap.sh" $root_suite "$root.tmp" \
			"$(root_packages)" "$(root_packages backports:)" "$(root_packages riscv64:)" "$(root_packages arm64:)" "$(root_packages new-rust:)" \
			"$(root_packages new-rust-arm64:)" "${IOPTE_MIRROR-}" ||
			die "the toolchain root could not be made: check that this machine reaches its Debian mirror (http_proxy, IOPTE_MIRROR=URL for another mirror) and run the same command again."
		mv "$root.tmp" "$root"
	fi
	exec 9>&-
}

root_need_mmdebstrap() {
	command -v mmdebstrap >/dev/null && return 0
	[ -z "$userns" ] || die "mmdebstrap is missing: let an administrator run 'apt-get install mmdebstrap uidmap', then run the same command again."
	command -v apt-get >/dev/null || die "mmdebstrap is missing and there is no apt-get: install mmdebstrap with your package manager, then run the same command again."
	quiet "Installing mmdebstrap" sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap debian-archive-keyring' ||
		die "apt-get could not install mmdebstrap: check the network and the apt sources, then run the same command again."
}

root_progress() { tr '\r' '\n' <"$1" | awk '/^I: |^(Unpacking|Setting up) / { l = $0 } END { print substr(l, 1, 60) }'; }

# root_enter GOAL...: runs tools/goal.sh in the root; see tools/enter.sh for what it finds there.
root_enter() {
	export top cache build kernel root userns prove_root
	trap - INT TERM EXIT # a shell that waits for a command would keep the signal until that ends
	root_ns "$top/tools/enter.sh" bash /src/tools/goal.sh "$@"
}

# The root's files belong to subordinate ids when a user made them: only inside the namespace can they be removed.
cache_clean() {
	cache=$(cd "$cache" && pwd -P)
	exec 9>"$cache/lock"
	flock -n 9 || die "another run uses $cache: wait for it or stop it, then run make $1 again."
	root_choose_mode
	if [ "$1" = distclean ]; then
		root_ns sh -c 'rm -rf "$1"/root-* "$1"/prove-* "$1"/kernel-* "$1/sparse" "$1/cargo" "$1"/cargo-target* "$1/logs"' sh "$cache"
	else
		root_ns sh -c 'rm -rf "$1"/kernel-* "$1"/cargo-target* "$1/logs"' sh "$cache"
	fi
}
