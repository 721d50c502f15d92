#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2154 # top, cache, build, kernel, root, userns come from root_enter
# tools/enter.sh COMMAND...: first thing in the new namespaces. Mounts what the toolchain root needs and runs COMMAND there.
#   /src checkout (read-only)  /out results  /cache all of the cache  /build this kernel source's trees  /kernel KERNEL=
# Kernel builds that run as root can replace /dev/null: the root always gets a /dev of its own.
set -eu

bind_ro() {
	mount --bind "$1" "$2"
	# In a user namespace the flags of the outer mount are locked; then it stays as it is.
	mount -o remount,bind,ro "$2" 2>/dev/null || true
}

mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
	name=${node%:*}
	if [ -n "$userns" ]; then
		: >"$root/dev/$name"
		mount --bind "/dev/$name" "$root/dev/$name"
	else
		mknod -m 666 "$root/dev/$name" c 1 "${node#*:}"
	fi
done
if [ -n "${KVM-}" ] && [ -e /dev/kvm ]; then
	: >"$root/dev/kvm"
	mount --bind /dev/kvm "$root/dev/kvm"
fi
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

cat /etc/resolv.conf >"$root/etc/resolv.conf" 2>/dev/null || true
cat /etc/hosts >"$root/etc/hosts" 2>/dev/null || true
# Trust what this machine trusts: behind an inspecting proxy the root's own certificates are not enough.
certs=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -s "$certs" ] || mount --bind "$certs" "$root/etc/ssl/certs/ca-certificates.crt"

bind_ro "$top" "$root/src"
mount --bind "$top/out" "$root/out"
mount --bind "$cache" "$root/cache"
mount --bind "$build" "$root/build"
[ -z "$kernel" ] || bind_ro "$kernel" "$root/kernel"

cd "$root"
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" \
	CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/cargo-target \
	KERNEL="$kernel" DEBIAN="$DEBIAN" KVM="${KVM-}" BED="${BED-}" DEMO="${DEMO-}" ONLY="${ONLY-}" TEST_ALL="${TEST_ALL-}" DEBUG="${DEBUG-}" FLAVOUR="${FLAVOUR-}" DEB="${DEB-}" FULL="${FULL-}" FROM="${FROM-}" V="${V-}" CI="${CI-}" JOBS="${JOBS-}" BOOTS="${BOOTS-}" ROUNDS="${ROUNDS-}" VMM_MEMORY="${VMM_MEMORY-}" CACHE_SHOWN="$cache" PROVE="${prove_root##*/}" \
	${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} ${no_proxy:+"no_proxy=$no_proxy"} \
	"$@"
