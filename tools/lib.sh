# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # sourced
# For scripts that run inside the toolchain root (tools/goal.sh, tools/vm, tools/demo/run): paths and functions.
#
#   $TOP /src   the checkout, read-only          $OUT   /out    <checkout>/out: what the user gets
#   $BUILD      trees and O= dirs of this kernel  $LINUX         the patched kernel tree with the overlay
#   say, step, note, die, quiet, need_gb          tools/ui.sh
#   kernel_of_bed BED              x86 (debug with DEBUG=1, deb with DEB=1, or $FLAVOUR), riscv, arm, arm64k or uml
#   kernel_image KERNEL            path of the built kernel
#   boot_kunit LINUX DIR TIMEOUT   runs the KUnit suites of a User-Mode Linux kernel
#   initramfs KERNEL               the base initramfs, on the standard output
#   "$TOP/tools/vm"         boots a guest: see there
#
# tools/demo/run is started as `bash /src/tools/demo/run` after what $BED needs is ready.

TOP=/src
OUT=/out
BUILD=/build
CACHE=/cache
LINUX=$BUILD/linux
LOGS=$CACHE/logs
LOGS_SHOWN=${CACHE_SHOWN-}/logs
# Links to the outputs that this run uses, or else to the newest; /tmp is this run's own.
CURRENT=/tmp/current
BED=${BED:-vtd}
mkdir -p "$LOGS" "$BUILD/out"
if [ ! -d "$CURRENT" ]; then
	mkdir "$CURRENT"
	for name in x86 debug cfi gcc deb riscv arm arm64k uml bench count armcount tests.x86 tests.riscv tests.arm initramfs.x86 initramfs.riscv initramfs.arm \
		programs.x86 programs.arm alioth.vmm alioth.module alioth qemu.vmm qemu.module qemu; do
		newest=$(find "$BUILD/out" -mindepth 1 -maxdepth 1 -name "$name-*" ! -name '*.tmp' -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p')
		[ -z "$newest" ] || ln -s "$newest" "$CURRENT/$name"
	done
fi
# shellcheck source=tools/ui.sh
. "$TOP/tools/ui.sh"
# shellcheck source=tools/version.sh
. "$TOP/tools/version.sh"

# What the kernel prints when something in it went wrong. Faults of a device's DMA are not among it: tests provoke them.
kernel_complaints='Kernel panic|kmemleak: ([0-9]+ new suspected|Cannot|Kernel memory leak detector disabled)|BUG:|WARNING:|Oops|Call Trace:|rust_kernel: panicked|general protection fault|UBSAN:|KASAN:|blocked for more than|rcu:.*stall|Unable to handle|soft lockup'

# boot_kunit LINUX DIR TIMEOUT: the KUnit suites of a User-Mode Linux kernel; what it printed is in DIR/stdout.
boot_kunit() {
	local rc=0
	TMPDIR=/tmp timeout -k 5 "$3" "$1" mem=2G kunit.enable=1 kunit.autorun=1 console=tty kunit_shutdown=halt \
		</dev/null >"$2/console.log" 2>&1 || rc=$?
	tr -d '\r' <"$2/console.log" | sed 's/^\[ *[0-9]*\.[0-9]*\] //' >"$2/stdout"
	! grep -m1 -E "$kernel_complaints" "$2/stdout" || rc=125
	return $rc
}

built() { readlink -e "$CURRENT/$1" || die "$1 has not been built: run make build first."; }

kernel_image() {
	local image
	[[ ! $1 =~ ^(alioth|qemu)$ ]] || set -- x86
	case $1 in
	x86 | debug | cfi | gcc | count) image=bzImage ;;
	deb) image=vmlinuz ;;
	riscv | arm | arm64k | armcount) image=Image ;;
	uml | bench) image=linux ;;
	*) die "kernel_image: there is no kernel '$1'; there are x86, debug, cfi, gcc, deb, riscv, arm, arm64k, uml, bench, count and armcount." ;;
	esac
	echo "$(built "$1")/$image"
}

# The kernels of other flavours run what the usual one runs, and so does Debian's, behind Debian's initramfs. "alioth" and
# "qemu" are the usual one with a VMM and its guest, which are in an archive of their own.
initramfs() {
	local kernel=$1 image
	if [ "$kernel" = deb ]; then
		image=$(built deb) && cat "$image/initrd"
	fi
	image=$(built "initramfs.$(tests_of "$kernel")") && cat "$image"
	if [[ $kernel =~ ^(alioth|qemu)$ ]]; then
		image=$(built "$kernel") && cat "$image"
	fi
}

# tests_of KERNEL: the kernel whose selftests it runs.
tests_of() { case $1 in debug | cfi | gcc | deb | count | alioth | qemu) echo x86 ;; arm64k) echo arm ;; *) echo "$1" ;; esac }

# use_bed BED[+WITH]: sets the bed_* variables; see tools/beds.
use_bed() {
	local bed=${1%%+*} with=
	[ "$bed" = "$1" ] || with=${1#*+}
	[[ -f $TOP/tools/beds/$bed && $bed != *.* && (-z $with || -f $TOP/tools/beds/with.$with) ]] ||
		die "there is no bed '$1': choose one of $(find "$TOP/tools/beds" -type f ! -name '*.*' -printf '%f ' | tr ' ' '\n' | sort | xargs), all also with +io, +vmm, +sdhci, +alioth or +qemu."
	# shellcheck source=tools/beds/vtd
	. "$TOP/tools/beds/$bed"
	# shellcheck source=tools/beds/with.io
	[ -z "$with" ] || . "$TOP/tools/beds/with.$with"
	[ "$bed_kernel" != x86 ] || {
		[ -z "${DEBUG-}" ] || . "$TOP/tools/beds/with.debug"
		[ -z "${FLAVOUR-}" ] || . "$TOP/tools/beds/with.flavour"
		[ -z "${DEB-}" ] || . "$TOP/tools/beds/with.deb"
	}
}

# In a subshell: the variables are not kept.
kernel_of_bed() (
	[ "$1" != uml ] || { echo uml && return; }
	use_bed "$1"
	echo "$bed_kernel"
)
