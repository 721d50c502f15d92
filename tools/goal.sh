#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# tools/goal.sh GOAL: the inner half of every make target; tools/run starts it in the toolchain root.
set -euo pipefail
trap 'say "interrupted: the same command goes on from here" >&2; exit 130' INT TERM
. /src/tools/lib.sh
. /src/tools/source.sh
. /src/tools/build.sh
. /src/tools/alioth/build.sh
. /src/tools/qemu/build.sh
. /src/tools/deb/build

# One run at a time changes the trees; the outputs that it leaves are never changed, so tests and guests need no lock. Nor
# does who only uses what is there: the first look, without it, ends where something would have to change.
prepare() {
	local locked='' rc
	set +e
	(set -e && make_ready "$@") >/tmp/ready.log 2>&1
	rc=$?
	set -e
	if [ $rc = 0 ]; then
		cat /tmp/ready.log
		return 0
	fi
	exec 9>"$CACHE/lock"
	flock -n 9 || {
		note "another run builds in this cache; waiting for it"
		flock 9
	}
	locked=1
	make_ready "$@"
	exec 9>&-
}

# What $BED needs to be built. Where its name is wrong this ends the run: in an argument of a command it would not.
prepare_bed() {
	(use_bed "$BED") || exit 1
	prepare "$(kernel_of_bed "$BED")"
}

need_lock() { [ -n "$locked" ] || exit 1; }

make_ready() {
	local what
	prepare_source
	cp "$BUILD/pristine.id" /tmp/pristine.id
	stage_tree
	# To build something is to have the tree, so who only looks needs it for its own sake alone.
	[[ -z $locked && " $* " != *' tree '* ]] || prepare_tree
	for what; do
		case $what in
		tree) ;;
		x86 | debug | cfi | gcc | deb | riscv | arm | arm64k | count)
			if [ "$what" = deb ]; then prepare_deb; else prepare_kernel "$what"; fi
			prepare_selftests "$(tests_of "$what")"
			[ "$what" = riscv ] || prepare_programs "$(tests_of "$what")"
			prepare_initramfs "$(tests_of "$what")"
			;;
		alioth | qemu)
			prepare_kernel x86
			prepare_selftests x86
			prepare_programs x86
			prepare_initramfs x86
			"prepare_$what"
			;;
		uml | bench | armcount) prepare_kernel "$what" ;;
		esac
	done
	# What was staged may have been read while another run copied a tree that has changed.
	cmp -s /tmp/pristine.id "$BUILD/pristine.id" || need_lock
}

# What a patch series is made of; nothing is built in it. KERNEL= is copied whenever it has changed.
prepare_pristine() {
	[ -n "${KERNEL-}" ] || [ ! -f "$BUILD/pristine.id" ] || return 0
	prepare
}

# A function, so that editing this file does not disturb a run.
main() {
	local goal=$1
	shift
	[[ ${FLAVOUR-} =~ ^(|cfi|gcc)$ ]] || die "there is no FLAVOUR=$FLAVOUR: leave it out, or say FLAVOUR=cfi or FLAVOUR=gcc."
	case $goal in
	build)
		[ $# -gt 0 ] || set -- x86 riscv arm uml
		prepare "$@"
		;;
	demo)
		[[ ${DEMO:-run} =~ ^(run|vmm|alioth|qemu)$ ]] || die "there is no DEMO=$DEMO: leave it out, or say DEMO=vmm, DEMO=alioth or DEMO=qemu."
		if [[ ${DEMO-} =~ ^(alioth|qemu)$ ]]; then
			[[ $BED =~ ^vtd(\+$DEMO)?$ ]] || die "DEMO=$DEMO runs on bed vtd only, not on $BED: leave BED out."
			BED=vtd+$DEMO
		fi
		prepare_bed
		exec bash "$TOP/tools/demo/${DEMO:-run}" "$@"
		;;
	test) . "$TOP/tools/test.sh" ;;
	prove)
		step "Proofs: theorems, harnesses, and the breaks that they have to catch"
		exec bash "$TOP/tests/prove/run"
		;;
	deb)
		export DEB=1
		. "$TOP/tools/test.sh"
		;;
	bench)
		[[ ${ONLY:-tables} =~ ^(tables|ioctls|vmm)$ ]] || die "there is no part '$ONLY' of the bench: say ONLY=tables, ONLY=ioctls or ONLY=vmm, or leave it out."
		[[ ${ONLY:-vmm} != vmm ]] || prepare_bed
		# The last line about the tables has what the ioctls cost.
		[[ ${ONLY-} = vmm ]] || prepare count
		[[ ${ONLY:-tables} != tables ]] || prepare count armcount bench
		[[ ${ONLY-} = vmm ]] || "$TOP/tools/bench/ioctls"
		[[ ${ONLY:-tables} != tables ]] || "$TOP/tools/bench/run" "$@"
		[[ ${ONLY:-vmm} != vmm ]] || "$TOP/tools/bench/vmm"
		;;
	vm)
		prepare_bed
		exec "$TOP/tools/vm" "$@"
		;;
	series | series-check)
		prepare_pristine
		exec bash "$TOP/tools/series/run" "${goal#series-}"
		;;
	applies)
		. "$TOP/tools/applies.sh"
		applies
		;;
	applies-qemu)
		. "$TOP/tools/qemu/applies.sh"
		applies_qemu
		;;
	shell) exec bash "$@" ;;
	*) die "there is no goal '$goal': see make help." ;;
	esac
}

main "$@"; exit
