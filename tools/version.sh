# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# Which kernels the patches are for. Sourced outside and inside the toolchain root.

supported='7.3.x (developed and tested on 7.3.4) or 7.2.x (7.2.12)'

# kernel_version TREE
kernel_version() {
	awk '/^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=/ { v[$1] = $3 }
		END { printf "%s.%s.%s%s\n", v["VERSION"], v["PATCHLEVEL"], v["SUBLEVEL"], v["EXTRAVERSION"] }' "$1/Makefile"
}

# check_version TREE WHAT
check_version() {
	version=$(kernel_version "$1")
	case $version in
	7.3.* | 7.2.*) ;;
	*) die "$2 is Linux $version and the patches are for Linux $supported: point KERNEL= at such a tree." ;;
	esac
}
