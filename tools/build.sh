# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # kernel_hash, kconfig_hash, tests_hash come from stage_tree
# Kernels, selftests and initramfs; sourced by tools/goal.sh. Each output lies in $BUILD/out/NAME-KEY, where KEY is the
# hash of all that it is made of; it gets that name only when it is complete. $CURRENT/NAME points to the one in use.

# have_output NAME KEY: sets $output; true if it is there already. Used last, it is not among those that publish removes.
have_output() {
	output=$BUILD/out/$1-$2
	if { flock -s 8 && touch -c "$output" && [ -e "$output" ]; } 8>"$BUILD/out/.lock"; then
		ln -sfn "$output" "$CURRENT/$1"
	else
		need_lock
		return 1
	fi
}

# publish NAME TMP: TMP, complete, becomes the output; all but the five used last go.
publish() {
	mv "$2" "$output"
	touch "$output"
	ln -sfn "$output" "$CURRENT/$1"
	{
		flock 8
		find "$BUILD/out" -mindepth 1 -maxdepth 1 -name "$1-*" -printf '%T@ %p\n' | sort -rn | tail -n +6 | cut -d' ' -f2- | xargs -rd '\n' rm -rf
	} 8>"$BUILD/out/.lock"
}

key_of() { sha256sum | cut -c1-16; }

jobs_() { echo "${JOBS:-$(nproc)}"; }

check_null() { [ -c /dev/null ] || die "/dev/null in the toolchain root is no longer a device: run the same command again."; }

# config_on_top_of BASE OTHER: sets $config to BASE with the lines of OTHER. The last of two lines takes, and check_config wants
# both.
config_on_top_of() {
	config=/tmp/$2.config
	grep -vE "^($(sed -n 's/^\(CONFIG_.*\)=.*/\1/p' "$TOP/tools/configs/$2.config" | paste -sd'|'))=" "$TOP/tools/configs/$1.config" >"$config"
	cat "$TOP/tools/configs/$2.config" >>"$config"
}

# flavour FLAVOUR: sets what differs between the kernels, and for those with a guest what it is made of.
flavour() {
	config=$TOP/tools/configs/$1.config rustflags='' cflags='' compiler=LLVM=1 linker=
	case $1 in
	x86)
		arch=x86_64 target=bzImage image=arch/x86/boot/bzImage objects=1900 minutes=10 label='x86_64 kernel'
		cc=gcc suites='iommu vfio' guest_root=
		;;
	debug | cfi | gcc)
		arch=x86_64 target=bzImage image=arch/x86/boot/bzImage objects=2000 minutes=15 label="x86_64 $1 kernel"
		[ "$1" != gcc ] || compiler=CC=gcc
		config_on_top_of x86 "$1"
		;;
	riscv)
		arch=riscv target=Image image=arch/riscv/boot/Image objects=1500 minutes=8 label='RISC-V kernel'
		cc=riscv64-linux-gnu-gcc suites=vfio guest_root=/usr/guest-riscv64
		;;
	arm | arm64k)
		arch=arm64 target=Image image=arch/arm64/boot/Image objects=1700 minutes=9 label='Arm kernel'
		cc='clang --target=aarch64-linux-gnu' linker=lld suites=vfio guest_root=/usr/guest-arm64
		[ "$1" != arm64k ] || {
			label+=' with 64K pages'
			config_on_top_of arm arm64k
		}
		;;
	uml) arch=um target=linux image=linux objects=1110 minutes=5 label='User-Mode Linux kernel' suites='' ;;
	bench)
		arch=um target=linux image=linux objects=1050 minutes=5 label='User-Mode Linux kernel for bench' suites=''
		# As DEBUG_FORCE_FUNCTION_ALIGN_64B does for C; and loops: where code lies must not decide how fast it is.
		rustflags='-Cllvm-args=-align-all-functions=6 -Cllvm-args=-align-loops=64' cflags=-falign-loops=64
		;;
	count)
		arch=x86_64 target=bzImage image=arch/x86/boot/bzImage objects=1100 minutes=6 label='x86_64 kernel that counts' suites=''
		;;
	armcount) arch=arm64 target=Image image=arch/arm64/boot/Image objects=1100 minutes=6 label='Arm kernel that counts' suites='' ;;
	esac
	# KVM says something else to the kernel's makefiles than to us.
	kmake=(env -u KVM make -C "$LINUX" "ARCH=$arch" "$compiler" "O=$BUILD/$1" KBUILD_BUILD_USER=iopte KBUILD_BUILD_HOST=build "KRUSTFLAGS=$rustflags" "KCFLAGS=$cflags")
}

kernel_progress() { awk -v n="$objects" '/^  [A-Z]/ { c++ } END { printf "%d of about %d build steps", c, n }' "$1"; }

# drop_unfinished O: removes what a build that was killed had begun to write. Kbuild notes the command of a file after it has
# run, so such a file is newer than its note; make would take it for complete.
drop_unfinished() {
	local note file
	while IFS= read -r note; do
		file=${note##*/.}
		file=${note%/*}/${file%.cmd}
		[ ! "$file" -nt "$note" ] || rm -f "$file"
	done < <(find "$1" -name '.*.cmd')
}

prepare_kernel() {
	local f=$1 config wanted
	flavour "$f"
	if have_output "$f" "$(cat "$BUILD/pristine.id" "$config" "$TOP/tools/build.sh" /etc/toolchain-versions - <<<"$kernel_hash" | key_of)"; then
		note "$label: up to date"
		return 0
	fi
	step "$label: building with $(jobs_) jobs (about $minutes minutes from nothing on two cores)"
	check_null
	need_gb 2 "$BUILD" "Building a kernel"
	mkdir -p "$BUILD/$f"
	[ ! -e "$BUILD/$f/.building" ] || drop_unfinished "$BUILD/$f"
	touch "$BUILD/$f/.building"
	configure "$f" "$config"
	quiet -p kernel_progress "$label" "${kmake[@]}" "-j$(jobs_)" "$target" || die "the $label does not build: see the log above."
	rm "$BUILD/$f/.building"
	check_null
	wanted=$output.tmp
	rm -rf "$wanted"
	mkdir "$wanted"
	cp "$BUILD/$f/$image" "$BUILD/$f/.config" "$BUILD/$f/System.map" "$wanted/"
	publish "$f" "$wanted"
}

# Configuring probes the compiler for a quarter of a minute, so it is done when something that it reads has changed.
configure() {
	local f=$1 config=$2 key
	key=$(cat "$BUILD/pristine.id" "$config" /etc/toolchain-versions - <<<"$kconfig_hash" | key_of)
	[ "$(cat "$BUILD/$f/.configured" 2>/dev/null)" != "$key" ] || return 0
	rm -f "$BUILD/$f/.configured"
	quiet "$label, configuration" "${kmake[@]}" KCONFIG_ALLCONFIG="$config" allnoconfig ||
		die "the kernel cannot be configured: see the log above."
	check_config "$config" "$BUILD/$f/.config"
	quiet "$label, Rust toolchain" "${kmake[@]}" rustavailable ||
		die "this kernel tree does not accept the toolchain's Rust: see the log above; use a tree of Linux $supported."
	echo "$key" >"$BUILD/$f/.configured"
}

# Every line of the fragment must have taken effect: Kconfig drops what it cannot have without a word.
check_config() {
	local lost
	lost=$(sed -nE 's/^(CONFIG_[A-Z0-9_]+)=n$/# \1 is not set/p; /^CONFIG_/{/=n$/!p}' "$1" | while IFS= read -r line; do
		case $line in
		'# '*) ! grep -q "^$(cut -d' ' -f2 <<<"$line")=" "$2" || cut -d' ' -f2 <<<"$line" ;;
		*) grep -qxF "$line" "$2" || echo "${line%%=*}" ;;
		esac
	done | xargs)
	[ -z "$lost" ] || die "the kernel's configuration does not accept $lost: check what these depend on in this tree, or mend ${1#/src/}."
}

prepare_selftests() {
	local f=$1 tmp lib
	flavour "$f"
	if have_output "tests.$f" "$(cat "$BUILD/pristine.id" "$TOP/tools/build.sh" /etc/toolchain-versions - <<<"$tests_hash" | key_of)"; then
		note "$arch selftests: up to date"
		return 0
	fi
	step "$arch selftests: building $suites"
	check_null
	tmp=$output.tmp lib=$(echo "$guest_root"/usr/lib/*-linux-gnu)
	rm -rf "$tmp"
	mkdir "$tmp"
	quiet "$arch kernel headers" make -C "$LINUX" ARCH="$arch" O="$BUILD/headers" headers_install INSTALL_HDR_PATH="$tmp/usr" ||
		die "the kernel's headers cannot be installed: see the log above."
	quiet "$arch selftests" make -C "$LINUX/tools/testing/selftests" -j"$(jobs_)" O="$tmp/build" TARGETS="$suites" ARCH="$arch" CC="$cc" FORCE_TARGETS=1 \
		KHDR_INCLUDES="-isystem $tmp/usr/include ${guest_root:+-isystem $guest_root/usr/include}" LDFLAGS="-static ${guest_root:+-L$lib} ${linker:+-fuse-ld=$linker}" \
		install INSTALL_PATH="$tmp/install" ||
		die "the selftests do not build: see the log above."
	rm -r "$tmp/build"
	publish "tests.$f" "$tmp"
}

# Programs of the host's users, for the guest: static, by the newer compiler that their dependencies want.
prepare_programs() {
	local f=$1 tmp crate=$TOP/iommufd_split/user target cargo flags="'-C','target-feature=+crt-static'"
	case $f in
	x86) target=x86_64-unknown-linux-gnu ;;
	arm)
		target=aarch64-unknown-linux-gnu
		flags+=",'-C','linker=clang','-C','link-args=--target=aarch64-linux-gnu -fuse-ld=lld'"
		;;
	esac
	if have_output "programs.$f" "$( (cd "$crate" && find . -type f -print0 | sort -z | xargs -0 sha256sum && cat "$TOP/Cargo.lock" "$TOP/tools/build.sh" /usr/rust-new/version) | key_of)"; then
		note "programs for the ${target%%-*} guest: up to date"
		return 0
	fi
	step "Programs for the ${target%%-*} guest: building iommufd-split"
	tmp=$output.tmp
	rm -rf "$tmp"
	mkdir "$tmp"
	cargo=(new_cargo --config "target.$target.rustflags=[$flags]" --config profile.release.debug=0)
	quiet "iommufd-split" "${cargo[@]}" test --manifest-path "$TOP/Cargo.toml" --locked --release --target $target -p iommufd-split \
		--features vfio-ioctls --no-run --message-format=json --test kernel ||
		die "the programs do not build: see the log above."
	quiet "iommufd-split, vmm" "${cargo[@]}" build --manifest-path "$TOP/Cargo.toml" --locked --release --target $target -p iommufd-split --example vmm ||
		die "the programs do not build: see the log above."
	cp "$CARGO_TARGET_DIR-new/$target/release/examples/vmm" "$tmp/"
	cp "$(sed -n 's/.*"name":"kernel".*"executable":"\([^"]*\)".*/\1/p' "$LOGS/iommufd-split.log")" "$tmp/kernel"
	publish "programs.$f" "$tmp"
}

# Beside the kernel's own, which is the oldest that the kernel accepts.
new_cargo() { PATH=/usr/rust-new/usr/bin:$PATH CARGO_TARGET_DIR=$CARGO_TARGET_DIR-new cargo "$@"; }

prepare_initramfs() {
	local f=$1 tests programs='' busybox=$guest_root/bin/busybox
	tests=$(built "tests.$f")
	[ "$f" = riscv ] || programs=$(built "programs.$f")
	[ -e "$busybox" ] || busybox=$guest_root/usr/bin/busybox
	if have_output "initramfs.$f" "$( (echo "$tests $programs" && cat "$TOP"/tools/guest/* "$TOP/tools/build.sh" "$busybox") | key_of)"; then
		return 0
	fi
	step "$arch initramfs: busybox and the selftests"
	[ -n "$(ls "$tests/install")" ] || die "no selftest was built: see $LOGS_SHOWN/$arch-selftests.log."
	pack_initramfs "$busybox" "$tests/install" "$programs" >"$output.tmp"
	publish "initramfs.$f" "$output.tmp"
}

# pack_initramfs BUSYBOX TESTS PROGRAMS: from these directories, the last of which may be empty; on the standard output.
pack_initramfs() {
	local root=/tmp/initramfs
	rm -rf $root
	mkdir -p $root/bin $root/sbin $root/proc $root/sys $root/dev $root/tests $root/guest
	cp "$1" $root/bin/
	cp "$TOP/tools/guest/init" $root/init
	find "$TOP/tools/guest" -type f ! -name init -exec cp {} $root/guest/ \;
	cp -r "$2/." $root/tests/
	[ -z "$3" ] || cp -r "$3" $root/programs
	(cd $root && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --reproducible | gzip -1n)
}
