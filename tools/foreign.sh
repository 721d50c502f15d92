#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# tools/foreign.sh ARCH SUITE PACKAGE...: run in the toolchain root by tools/bootstrap.sh; unpacks packages of another
# architecture, which guests need (static programs, libraries to link with), into /usr/guest-ARCH. Nothing is installed.
# A change of this file makes a new root.
set -eu
arch=$1 suite=$2
shift 2
work=/tmp/foreign
mkdir -p $work/lists/partial "/usr/guest-$arch"
cd $work

apt() {
	apt-get -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=- \
		-o Dir::State::Lists=$work/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root \
		-o APT::Update::Error-Mode=any -o Acquire::Check-Valid-Until=false "$@" </dev/null
}

# Mirrors can be out of step, or behind, in what few use. The next suite's programs do as well; signatures are checked.
for from in "$suite" forky sid; do
	sed -n "s/^\(deb \(\[[^]]*\] \)\?[^ ]*\) $suite main.*/\1 $from main/p" /etc/apt/sources.list >list
	if apt update && apt download "$@"; then
		for deb in *.deb; do
			dpkg-deb -x "$deb" "/usr/guest-$arch"
			echo "$deb" >>/etc/toolchain-versions
		done
		cd /
		rm -r $work
		exit 0
	fi
	rm -f ./*.deb
done
echo "the mirror has no usable index for $arch"
exit 1
