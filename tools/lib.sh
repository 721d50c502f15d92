# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # sourced
# For scripts that run inside the toolchain root (tools/goal.sh, tools/vm, tools/demo/run): paths and functions.
#
#   $TOP /src   the checkout, read-only          $OUT   /out    <checkout>/out: what the user gets
#   $BUILD      trees and O= dirs of this kernel  $LINUX         the patched kernel tree with the overlay
#   $KSELFTEST  built selftests: iommu/, vfio/, vfio/libvfio/*.o, usr/include (this tree's uapi headers)
#   say, step, note, die, quiet, need_gb          tools/ui.sh
#   kernel_image x86|uml    path of the built kernel (bzImage, linux)
#   initramfs_image         path of the base initramfs
#   guest_cc OUT SOURCE...  static program for the guest, linked with libvfio
#   "$TOP/tools/vm"         boots a guest: see there
#
# tools/demo/run is started as `bash /src/tools/demo/run` after the x86 kernel, the selftests and the initramfs are ready.

TOP=/src
OUT=/out
BUILD=/build
CACHE=/cache
LINUX=$BUILD/linux
LOGS=$CACHE/logs
LOGS_SHOWN=${CACHE_SHOWN-}/logs
# Links to the outputs that this run uses, or else to the newest; /tmp is this run's own.
CURRENT=/tmp/current
KSELFTEST=$CURRENT/selftests
mkdir -p "$LOGS" "$BUILD/out"
if [ ! -d "$CURRENT" ]; then
	mkdir "$CURRENT"
	for name in x86 uml selftests initramfs.cpio.gz; do
		newest=$(find "$BUILD/out" -mindepth 1 -maxdepth 1 -name "$name-*" ! -name '*.tmp' -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p')
		[ -z "$newest" ] || ln -s "$newest" "$CURRENT/$name"
	done
fi
# shellcheck source=tools/ui.sh
. "$TOP/tools/ui.sh"
# shellcheck source=tools/version.sh
. "$TOP/tools/version.sh"

# What the kernel prints when something in it went wrong. Faults of a device's DMA are not among it: tests provoke them.
kernel_complaints='Kernel panic|BUG:|WARNING:|Oops|Call Trace:|rust_kernel: panicked|general protection fault|UBSAN:|KASAN:|blocked for more than|rcu:.*stall|Unable to handle|soft lockup'

built() { readlink -e "$CURRENT/$1" || die "$1 has not been built: run make build first."; }

kernel_image() {
	local image
	case $1 in
	x86) image=bzImage ;;
	uml) image=linux ;;
	*) die "kernel_image: there is no kernel '$1'; there are x86 and uml." ;;
	esac
	echo "$(built "$1")/$image"
}

initramfs_image() { built initramfs.cpio.gz; }

guest_cc() {
	local out=$1 st libvfio
	shift
	st=$(built selftests)
	mapfile -t libvfio < <(find "$st/vfio/libvfio" -name '*.o')
	gcc -O2 -Wall -static -D_GNU_SOURCE -isystem "$st/usr/include" -I"$LINUX/tools/testing/selftests" \
		-I"$LINUX/tools/testing/selftests/vfio/lib/include" -I"$LINUX/tools/include" \
		-o "$out" "$@" "${libvfio[@]}" -luuid -lpthread -lm
}
