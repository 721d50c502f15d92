# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of tools/test.sh
# Builds the selftests in the ways in which people build them, sourced by tools/test.sh. make returns 0 as long as one of
# its targets can be built, so every program that there are sources of is looked for.

test_selftests() {
	local tree=/tmp/selftests name dir
	check selftests || return 0
	mkdir -p "$shots/selftests"
	{
		verdict 'sources' selftests_tree
		for name in iommu/iommufd iommu/iommufd_split vfio/vfio_pci_device_test vfio/vfio_split_dma_test; do
			selftests_programs | grep -qx $name || printf 'fail\tsources\tthere is no %s\n' $name
		done
		selftests_build 'gcc' x86 '' all
		selftests_build 'clang' x86 '' all LLVM=1
		selftests_build 'gcc, O=, gen_tar' x86 $tree.gcc gen_tar
		selftests_build 'clang, O=, gen_tar' x86 $tree.clang gen_tar LLVM=1
		dir=/usr/guest-riscv64/usr
		selftests_build 'gcc for riscv64, O=' riscv $tree.riscv all CROSS_COMPILE=riscv64-linux-gnu- \
			USERCFLAGS="-isystem $dir/include" USERLDFLAGS="-L$dir/lib/riscv64-linux-gnu"
		dir=/usr/guest-arm64/usr
		selftests_build 'clang for arm64, O=' arm64 $tree.arm64 all LLVM=1 \
			USERCFLAGS="-isystem $dir/include" USERLDFLAGS="-L$dir/lib/aarch64-linux-gnu -fuse-ld=lld"
	} | record selftests
	rm -rf $tree*
}

# By their sources, and not by what a Makefile says.
selftests_programs() { (cd "$tree/tools/testing/selftests" && grep -lE '^int main\(|^TEST_HARNESS_MAIN' {iommu,vfio}/*.c | sed 's/\.c$//'); }

# A build in the tree writes into it, so the part that selftests are made of is copied.
selftests_tree() {
	rm -rf "$tree"
	mkdir "$tree"
	cd "$BUILD/pristine" &&
		rsync -aLR Makefile Kbuild scripts usr include/{uapi,asm-generic} arch/{x86,riscv,arm64}/{Makefile*,include,tools} arch/um/Makefile* arch/um/include \
			arch/x86/entry/syscalls arch/{riscv,arm64}/kernel/Makefile.syscalls drivers/iommu/iommufd/iommufd_test.h \
			tools/{include,arch,scripts,build} tools/testing/selftests/{*.h,*.mk,*.sh,Makefile,kselftest,iommu,vfio} "$tree/" &&
		rsync -a "$STAGE/" "$tree/"
}

# selftests_build CASE ARCH O TARGET ARGUMENT...: with an empty O in the tree, where what an earlier build left goes first.
selftests_build() {
	local name=$1 arch=$2 o=$3 target=$4 log="$shots/selftests/$1" built=$tree/tools/testing/selftests program what
	local make=(make -C "$tree" "ARCH=$arch" ${o:+"O=$o"}) tests=(-C "$built")
	shift 4
	make+=("-j$(jobs_)" "$@" TARGETS='iommu vfio')
	if [ -n "$o" ]; then
		mkdir "$o"
		built=$o/kselftest
	else
		"${make[@]}" "${tests[@]}" clean >"$log" 2>&1
	fi
	if ! "${make[@]}" headers >"$log" 2>&1 || ! "${make[@]}" "${tests[@]}" "$target" >>"$log" 2>&1; then
		printf 'fail\t%s\tmake failed\n' "$name"
	fi
	what=$(grep -m1 -E '(error|warning):' "$log" || true)
	printf '%s\t%s, without a warning\t%s\n' "${what:+fail}" "$name" "$what" | sed 's/^\t/pass\t/'
	for program in $(selftests_programs); do
		what=$(program_for "$built/$program")
		if [ "$target" = gen_tar ] && ! tar -xOf "$built"/kselftest_install/kselftest-packages/*.tar.gz "./$program" | cmp -s - "$built/$program"; then
			what='not in the archive'
		fi
		if [ "$what" = "$arch" ]; then printf 'pass\t%s, %s\t\n' "$name" "$program"; else printf 'fail\t%s, %s\t%s\n' "$name" "$program" "$what"; fi
	done
}

# The architecture of a program, which is in its 19th byte.
program_for() {
	case $(od -An -tu1 -j18 -N1 "$1" 2>/dev/null | tr -d ' ') in
	62) echo x86 ;;
	243) echo riscv ;;
	183) echo arm64 ;;
	*) echo 'not built' ;;
	esac
}
