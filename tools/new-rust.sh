#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# tools/new-rust.sh SUITE PACKAGE...: run in the toolchain root by tools/bootstrap.sh; unpacks the compiler of the suite's
# backports, and the libraries that it wants newer than they are here, into /usr/rust-new. Nothing is installed: what builds
# the kernel stays the oldest that it accepts. A change of this file makes a new root.
set -eu
suite=$1
shift
work=/tmp/new-rust
mkdir -p $work/partial /usr/rust-new
apt-get -y --no-install-recommends -o Dir::Cache::archives=$work -o APT::Sandbox::User=root -t "$suite-backports" --download-only \
	install "$@" </dev/null
for deb in "$work"/*.deb; do
	case $deb in
	*/rust-src_*) ;;
	*) dpkg-deb -x "$deb" /usr/rust-new ;;
	esac
done
rm -r $work
# Every library has its version in its name, so the other compiler does not notice.
echo "/usr/rust-new/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)" >/etc/ld.so.conf.d/rust-new.conf
ldconfig
/usr/rust-new/usr/bin/rustc --version >/usr/rust-new/version
