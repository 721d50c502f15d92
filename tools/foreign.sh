#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# tools/foreign.sh ARCH DIRECTORY SUITE FROM PACKAGE...: run in the toolchain root of Debian's SUITE by tools/bootstrap.sh;
# unpacks packages of another architecture into DIRECTORY, for programs that run in guests, and prints their names. They come
# from the first of the suites FROM, a list in one word, that has them; PACKAGE may be NAME=VERSION, as of apt. Nothing is
# installed. A change of this file makes a new root.
set -eu
arch=$1 dir=$2 suite=$3 suites=$4
shift 4
work=/tmp/foreign
mkdir -p $work/lists/partial "$dir"
cd $work

apt() {
	apt-get -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=- \
		-o Dir::State::Lists=$work/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root \
		-o APT::Update::Error-Mode=any -o Acquire::Check-Valid-Until=false "$@" </dev/null >&2
}

for from in $suites; do
	sed -n "s/^\(deb \(\[[^]]*\] \)\?[^ ]*\) $suite main.*/\1 $from main/p" /etc/apt/sources.list >list
	if apt update && apt download "$@"; then
		for deb in *.deb; do
			dpkg-deb -x "$deb" "$dir"
			echo "$deb"
		done
		cd /
		rm -r $work
		exit 0
	fi
	rm -f ./*.deb
done
echo "the mirror has no usable index for $arch, or not $* in any of: $suites" >&2
exit 1
