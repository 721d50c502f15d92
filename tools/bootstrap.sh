#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# tools/bootstrap.sh SUITE DIRECTORY PACKAGES BACKPORTS RISCV64 ARM64 NEW_RUST NEW_RUST_ARM64 [MIRROR]: makes the toolchain
# root; runs as (namespace) root. A change of this file makes a new root.
set -eu
suite=$1 dir=$2 packages=$3 backports=$4 riscv64=$5 arm64=$6 new_rust=$7 new_rust_arm64=$8 mirror=${9-}
foreign=$(dirname "$0")/foreign.sh
beside=$(dirname "$0")/new-rust.sh

# What a kernel or a guest's program can depend on: builds in the cache stay valid while these packages do.
toolchain='^(gcc|g\+\+|cpp|lib(gcc|c6|clang|llvm|elf|cap|std-rust)|linux-libc|binutils|clang|llvm|lld|rust|bindgen|pahole|busybox|uuid)'

# Mirrors can be out of step, or behind, in what few use. The next suite's programs do as well; signatures are checked.
guest_suites="$suite forky sid"
# A compiler takes a standard library of its own version only, and backports are not there for all architectures at once.
new_suites="$suite-backports forky sid"

# The backports line is made of the line that mmdebstrap wrote, so both use the same mirror. The packages from there are
# installed by apt inside the new root: the outer one cannot be told -t for some packages only.
# shellcheck disable=SC2016 # $1 is for the hook
setup='set -e
	sed -n "s/^\(deb \(\[[^]]*\] \)\?[^ ]*\) '$suite' main.*/\1 '$suite'-backports main/p" "$1/etc/apt/sources.list" >"$1/etc/apt/sources.list.d/backports.list"
	test -s "$1/etc/apt/sources.list.d/backports.list"'
# shellcheck disable=SC2016
customize='set -e
	chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -t '$suite'-backports install '$backports'
	chroot "$1" dpkg-query -W | grep -E "'$toolchain'" >"$1/etc/toolchain-versions"
	chroot "$1" sh -s riscv64 /usr/guest-riscv64 '$suite' "'"$guest_suites"'" '$riscv64' <"'$foreign'" >>"$1/etc/toolchain-versions"
	chroot "$1" sh -s arm64 /usr/guest-arm64 '$suite' "'"$guest_suites"'" '$arm64' <"'$foreign'" >>"$1/etc/toolchain-versions"
	chroot "$1" sh -s '$suite' '$new_rust' <"'$beside'"
	version=$(sed -n "s/^rustc \([0-9.]*\) .*/\1/p" "$1/usr/rust-new/version")
	chroot "$1" sh -s arm64 /usr/rust-new '$suite' "'"$new_suites"'" "'$new_rust_arm64'=$version*" <"'$foreign'"
	chroot "$1" apt-get clean
	mkdir -p "$1/src" "$1/build" "$1/cache" "$1/out" "$1/kernel"'

exec mmdebstrap --mode=root --format=directory --variant=minbase --skip=check/empty --aptopt='Acquire::Retries "3"' \
	--dpkgopt=force-unsafe-io \
	--include="$packages" --setup-hook="$setup" --customize-hook="$customize" "$suite" "$dir" ${mirror:+"$mirror"}
