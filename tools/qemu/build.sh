# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of tools/lib.sh and tools/build.sh
# QEMU, the VMM that most people run, with patches/qemu, and a guest for it; sourced by tools/goal.sh after tools/alioth/build.sh.
# Outputs: QEMU (qemu.vmm), the guest's modules (qemu.module), and an archive for the guest in which QEMU runs, with both, the
# guest's kernel, its initramfs and firmware (qemu).
#
# QEMU is that of Debian's stable suite, as a source package. It stays in $QEMU, as does the root in which it is built: what is
# there needs no network.

QEMU=$BUILD/qemu

prepare_qemu() {
	prepare_qemu_vmm
	prepare_qemu_module
	local vmm module kernel root=/tmp/qemu-archive
	vmm=$(built qemu.vmm) module=$(built qemu.module) kernel=$(kernel_image x86)
	have_output qemu "$(echo "$vmm $module $kernel" | cat - "$TOP/tools/qemu/build.sh" "$TOP/tools/qemu/guest/init" /bin/busybox /usr/share/seabios/bios-256k.bin | key_of)" && return
	step "QEMU's guest: kernel and initramfs"
	rm -rf $root
	mkdir -p $root/guest/bin $root/guest/proc $root/guest/sys $root/guest/dev $root/qemu
	cp /bin/busybox $root/guest/bin/
	cp "$TOP/tools/qemu/guest/init" $root/guest/
	cp "$module"/*.ko $root/guest/
	alioth_pack $root/guest >$root/qemu/initrd
	cp "$vmm" $root/qemu/qemu
	cp /usr/share/seabios/bios-256k.bin /usr/share/qemu/pvh.bin /usr/share/qemu/kvmvapic.bin $root/qemu/
	"$LINUX/scripts/extract-vmlinux" "$kernel" >$root/qemu/vmlinux || die "there is no ELF image in $kernel."
	rm -r $root/guest
	alioth_pack $root >"$output.tmp"
	publish qemu "$output.tmp"
}

# The names in patches/qemu/series, in their order.
qemu_series() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$TOP/patches/qemu/series"; }

prepare_qemu_vmm() {
	local here=$TOP/tools/qemu work=$QEMU/work version p
	if have_output qemu.vmm "$(cat "$TOP"/patches/qemu/{series,*.patch} "$here"/{build.sh,demo.patch,devices.mak,packages} "$QEMU"/source/*.dsc 2>/dev/null | key_of)"; then
		note "QEMU: up to date"
		return 0
	fi
	qemu_source
	qemu_root
	have_output qemu.vmm "$(cat "$TOP"/patches/qemu/{series,*.patch} "$here"/{build.sh,demo.patch,devices.mak,packages} "$QEMU"/source/*.dsc | key_of)" && return
	version=$(qemu_version)
	step "QEMU $version of Debian, with patches/qemu (about 6 minutes on two cores)"
	need_gb 3 "$BUILD" "Building QEMU"
	rm -rf "$work"
	quiet "Unpacking QEMU" dpkg-source --no-check -x "$QEMU"/source/*.dsc "$work" || die "the source of QEMU in $QEMU/source is not complete: remove that directory and run the same command again."
	qemu_patch "$work" || die "patches/qemu does not fit QEMU $version, which Debian's trixie has now: use a cache (IOPTE_CACHE) that has the source of an older one in kernel-debian/qemu, or rebase the series (make applies)."
	patch -s -F0 -d "$work" -p1 <"$here/demo.patch" || die "tools/qemu/demo.patch does not fit QEMU $version."
	cp "$here/devices.mak" "$work/configs/devices/x86_64-softmmu/split.mak"
	# Firmware that Debian's source package does not have, and what its tests need.
	sed -i 's/^if unpack_edk2_blobs$/if false/' "$work/pc-bios/meson.build"
	sed -i '/^pycotap/d' "$work/pythondeps.toml"
	quiet -p qemu_progress "QEMU" qemu_build || die "QEMU does not build, or the series' unit tests fail: see the log above."
	cp "$work/build/qemu-system-x86_64" "$output.tmp"
	rm -rf "$work"
	publish qemu.vmm "$output.tmp"
}

qemu_version() { sed -n 's/^Version: //p' "$QEMU"/source/*.dsc | head -n 1; }

# qemu_patch TREE: without fuzz.
qemu_patch() {
	local p
	for p in $(qemu_series); do
		patch -F0 -N --batch --no-backup-if-mismatch -r - -d "$1" -p1 <"$TOP/patches/qemu/$p" >/tmp/qemu-patch.log 2>&1 || {
			say "patches/qemu/$p:" >&2
			sed 's/^/    | /' /tmp/qemu-patch.log >&2
			return 1
		}
	done
}

qemu_source() {
	! ls "$QEMU"/source/*.dsc >/dev/null 2>&1 || return 0
	step "Source of QEMU, of Debian trixie (40 MB to load)"
	rm -rf "$QEMU/source.tmp"
	mkdir -p "$QEMU/source.tmp"
	quiet "Loading QEMU" qemu_load ||
		die "the source of QEMU could not be loaded from Debian's trixie: check the network and run the same command again, or copy kernel-debian/qemu from a cache (IOPTE_CACHE) that has it; all other targets work without."
	mv "$QEMU/source.tmp" "$QEMU/source"
}

qemu_load() { cd "$QEMU/source.tmp" && type=deb-src debian_apt trixie update && type=deb-src debian_apt trixie source --download-only qemu; }

# The root in which it is built, $QEMU/root.
qemu_root() {
	local key
	key=$(key_of <"$TOP/tools/qemu/packages")
	[ "$(cat "$QEMU/root/etc/qemu-key" 2>/dev/null)" != "$key" ] || return 0
	step "Root for building QEMU: Debian trixie (about a minute, 500 MB)"
	rm -rf "$QEMU/root.tmp" "$QEMU/root"
	mkdir -p "$QEMU"
	quiet "Root for QEMU" mmdebstrap --mode=root --format=directory --variant=minbase --skip=check/empty --aptopt='Acquire::Retries "3"' \
		--dpkgopt=force-unsafe-io --include="$(sed '/^#/d' "$TOP/tools/qemu/packages" | xargs)" trixie "$QEMU/root.tmp" /etc/apt/sources.list ||
		die "the root for building QEMU could not be made: check the network and run the same command again."
	echo "$key" >"$QEMU/root.tmp/etc/qemu-key"
	mv "$QEMU/root.tmp" "$QEMU/root"
}

# Static: the guest in which it runs has no libraries, and little time to load it.
# shellcheck disable=SC2016 # the inner shell's
qemu_build() {
	unshare --mount --propagation unchanged bash -c '
		mount --bind "$2" "$1/mnt" && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/tmp" &&
		chroot "$1" sh -c "
			mkdir /mnt/build && cd /mnt/build &&
			../configure --target-list=x86_64-softmmu --static --without-default-features --enable-kvm --enable-system --enable-fdt=system \
				--disable-tcg --without-default-devices --with-devices-x86_64=split --disable-docs --disable-download --disable-install-blobs &&
			ninja -j$3 qemu-system-x86_64 tests/unit/test-iommufd tests/unit/test-iova-tree &&
			tests/unit/test-iommufd && tests/unit/test-iova-tree && strip qemu-system-x86_64"' bash "$QEMU/root" "$QEMU/work" "$(jobs_)"
}

qemu_progress() { tr '\r' '\n' <"$1" | sed -n 's/^\(\[[0-9/]*\]\).*/step \1/p' | tail -n 1; }

# Built where the kernel was, as alioth's.
prepare_qemu_module() {
	local kernel what here=$TOP/tools/qemu/guest main=$TOP/tools/alioth/guest work=/tmp/qemu-module
	kernel=$(built x86)
	have_output qemu.module "$(echo "$kernel" | cat - "$here"/{Kbuild,*.c} "$main"/{main.c,converter.h} "$TOP/tools/qemu/build.sh" | key_of)" && return
	flavour x86
	step "QEMU's guest: the modules that convert, and virtio_mem"
	configure x86 "$config"
	rm -rf $work
	cp -r "$here" $work
	cp "$main/converter.h" "$LINUX/drivers/virtio/virtio_mem.c" $work/
	for what in balloon mem iommu; do cp "$main/main.c" $work/main-$what.c; done
	quiet -p kernel_progress "$label" "${kmake[@]}" "-j$(jobs_)" "$target" modules_prepare || die "the $label does not build: see the log above."
	quiet "the modules of QEMU's guest" "${kmake[@]}" M=$work KBUILD_EXTRA_SYMBOLS="$BUILD/x86/vmlinux.symvers" modules ||
		die "the modules of QEMU's guest do not build: see the log above."
	rm -rf "$output.tmp"
	mkdir "$output.tmp"
	cp $work/*.ko "$output.tmp/"
	publish qemu.module "$output.tmp"
}
