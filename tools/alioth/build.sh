# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of tools/lib.sh and tools/build.sh
# A VMM that others wrote, alioth of crates.io, and a guest for it; sourced by tools/goal.sh after tools/build.sh. Three
# outputs: the VMM with our change (alioth.vmm), the guest's module (alioth.module), and an archive for the guest in which
# the VMM runs, with both, the guest's kernel and its initramfs (alioth).

alioth_version=0.12.0

prepare_alioth() {
	prepare_alioth_vmm
	prepare_alioth_module
	local vmm module kernel root=/tmp/alioth
	vmm=$(built alioth.vmm) module=$(built alioth.module) kernel=$(kernel_image x86)
	have_output alioth "$(echo "$vmm $module $kernel" | cat - "$TOP/tools/alioth/build.sh" "$TOP/tools/alioth/guest/init" /bin/busybox | key_of)" && return
	step "alioth's guest: kernel and initramfs"
	rm -rf $root
	mkdir -p $root/guest/bin $root/guest/proc $root/guest/sys $root/guest/dev $root/alioth
	cp /bin/busybox $root/guest/bin/
	cp "$TOP/tools/alioth/guest/init" $root/guest/
	cp "$module" $root/guest/converter.ko
	alioth_pack $root/guest >$root/alioth/initrd
	cp "$vmm" $root/alioth/alioth
	"$LINUX/scripts/extract-vmlinux" "$kernel" >$root/alioth/vmlinux || die "there is no ELF image in $kernel."
	rm -r $root/guest
	alioth_pack $root >"$output.tmp"
	publish alioth "$output.tmp"
}

alioth_pack() { (cd "$1" && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --reproducible | gzip -1n); }

# The VMM and its command line, as they are in the registry, with alioth.patch. Cargo.lock has the checksum of every crate,
# and cargo checks what it loads against it.
prepare_alioth_vmm() {
	local here=$TOP/tools/alioth work=/tmp/alioth-build target=x86_64-unknown-linux-gnu crate
	if have_output alioth.vmm "$( (cd "$TOP/iommufd_split/user" && find . -type f -print0 | sort -z | xargs -0 sha256sum && cat "$here"/{Cargo.toml,Cargo.lock,alioth.patch,build.sh} /usr/rust-new/version) | key_of)"; then
		note "alioth: up to date"
		return 0
	fi
	step "alioth $alioth_version of crates.io, with tools/alioth/alioth.patch"
	rm -rf $work
	mkdir -p $work/load/src
	touch $work/load/src/lib.rs
	cp "$here/Cargo.lock" $work/load/
	cp "$here/load.toml" $work/load/Cargo.toml
	quiet "alioth, download" alioth_load $work/load ||
		die "the registry does not have alioth $alioth_version, or cannot be reached: try again later, or copy cargo/registry from a cache (IOPTE_CACHE) that has it; all other targets work without."
	for crate in alioth alioth-cli; do
		mkdir $work/$crate
		tar -xzf "$(alioth_crate $crate)" -C $work/$crate --strip-components=1
	done
	# What only their own tests need was not loaded.
	sed -i '/^\[dev-dependencies/,/^$/d' $work/alioth*/Cargo.toml
	cp "$here/Cargo.toml" "$here/Cargo.lock" $work/
	patch -s -F0 -d $work -p1 <"$here/alioth.patch" || die "tools/alioth/alioth.patch does not fit alioth $alioth_version."
	quiet "alioth" new_cargo --config "target.$target.rustflags=['-C','target-feature=+crt-static']" build --manifest-path $work/Cargo.toml \
		--offline --release --target $target -p alioth-cli || die "alioth does not build: see the log above."
	cp "$CARGO_TARGET_DIR-new/$target/release/alioth" "$output.tmp"
	publish alioth.vmm "$output.tmp"
}

# What is there needs no network.
alioth_load() {
	new_cargo fetch --locked --offline --manifest-path "$1/Cargo.toml" || new_cargo fetch --locked --manifest-path "$1/Cargo.toml"
}

# alioth_crate NAME: the archive that cargo has loaded, which has to be the one that Cargo.lock names.
alioth_crate() {
	local sum file
	sum=$(awk -v name="\"$1\"" -v version="\"$alioth_version\"" '$1 == "name" { n = $3 } $1 == "version" { v = $3 } $1 == "checksum" && n == name && v == version { gsub(/"/, "", $3); print $3 }' "$TOP/tools/alioth/Cargo.lock")
	file=$(find "$CARGO_HOME/registry/cache" -name "$1-$alioth_version.crate" | head -n 1)
	if [ -z "$sum" ] || ! sha256sum "$file" | grep -q "^$sum "; then
		die "$1-$alioth_version.crate in the cache of cargo is not the one that tools/alioth/Cargo.lock names: remove it."
	fi
	echo "$file"
}

# Built where the kernel was, so that is built first if something else was there in between.
prepare_alioth_module() {
	local kernel here=$TOP/tools/alioth/guest work=/tmp/alioth-module
	kernel=$(built x86)
	have_output alioth.module "$(echo "$kernel" | cat - "$here"/{Kbuild,*.[ch]} "$TOP/tools/alioth/build.sh" | key_of)" && return
	flavour x86
	step "alioth's guest: the module that converts"
	configure x86 "$config"
	rm -rf $work
	cp -r "$here" $work
	quiet -p kernel_progress "$label" "${kmake[@]}" "-j$(jobs_)" "$target" modules_prepare || die "the $label does not build: see the log above."
	quiet "the guest's module" "${kmake[@]}" M=$work KBUILD_EXTRA_SYMBOLS="$BUILD/x86/vmlinux.symvers" modules ||
		die "the guest's module does not build: see the log above."
	cp $work/converter.ko "$output.tmp"
	publish alioth.module "$output.tmp"
}
