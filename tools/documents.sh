# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2016,SC2154 # backquotes of Markdown; variables of tools/lib.sh and tools/test.sh
# What the documents say and a machine can check: blocks of C compile with the patched header and blocks of Rust with the
# crate for VMMs, options are taken, request numbers are those of the header, links and paths lead somewhere, lines are not too
# wide. A block is items or statements; statements get a function around them, whose parameters are what the documents leave to
# the reader.

test_documents() {
	local doc dir=/tmp/documents
	check documents || return 0
	rm -rf $dir
	mkdir -p $dir/include/linux $dir/crate
	cp "$LINUX/include/uapi/linux/iommufd.h" $dir/include/linux/
	cp "$TOP/Cargo.lock" $dir/crate/
	quiet "cargo fetch" new_cargo fetch --locked --manifest-path "$TOP/Cargo.toml" || true
	grep -rhoE --include='Kconfig*' '^[[:space:]]*(menu)?config [A-Z0-9_]+' "$LINUX" | sed 's/.*config /CONFIG_/' | sort -u >$dir/options
	{
		while IFS= read -r doc; do
			code_blocks "$doc" c document_c
			code_blocks "$doc" rust document_rust
			code_blocks "$doc" kconfig document_kconfig
			verdict "$doc: requests" document_requests "$TOP/$doc"
			verdict "$doc: links and paths" document_paths "$doc"
			verdict "$doc: options" document_options "$TOP/$doc"
			verdict "$doc: width" document_width "$TOP/$doc"
		done < <(cd "$TOP" && find . \( -name .git -o -name out -o -name target \) -prune -o -name '*.md' -printf '%P\n' | sort)
	} | record documents
}

# code_blocks DOCUMENT LANGUAGE FUNCTION: a verdict of FUNCTION about each block.
code_blocks() {
	local block
	rm -rf "$dir/blocks"
	mkdir -p "$dir/blocks"
	awk -v lang="$2" -v dir="$dir/blocks" '
		/^```/ { open = !open; file = open && $0 == "```" lang ? sprintf("%s/%04d", dir, NR) : ""; next }
		file { print >file }' "$TOP/$1"
	for block in "$dir/blocks"/*; do
		[ ! -f "$block" ] || verdict "$1:$((10#${block##*/})): $2" "$3" "$block"
	done
}

# 100 columns, but for tables and addresses.
document_width() { ! LC_ALL=C.UTF-8 grep -nE '^.{101}' "$1" | grep -vE '^[0-9]+:(\||.*https?://)'; }

# A struct that the header has, too, has to have the same layout.
document_c() {
	local block=$1 name=''
	name=$(sed -nE 's/^struct ([a-z_]+) \{$/\1/p' "$block")
	{
		printf '#include <%s>\n' errno.h stdbool.h stddef.h sys/ioctl.h
		[ -z "$name" ] || echo "#define $name kernels_$name"
		echo '#include <linux/iommufd.h>'
		[ -z "$name" ] || echo "#undef $name"
		grep '^#include' "$block" || true
		if grep -qE '^(static |struct [a-z_]+ \{)' "$block"; then
			grep -v '^#include' "$block"
		else
			echo 'int block(int iommufd, __u32 ioas_id, __u32 dev_id, __u32 idev_id, __u64 iova, __u64 length) {'
			grep -v '^#include' "$block"
			echo 'return 0; }'
		fi
		[ -z "$name" ] || {
			echo "_Static_assert(sizeof(struct $name) == sizeof(struct kernels_$name), \"size\");"
			sed -nE "s/^[[:space:]]+__[a-z0-9_]+ ([a-z_]+);.*/_Static_assert(offsetof(struct $name, \1) == offsetof(struct kernels_$name, \1), \"\1\");/p" "$block"
		}
	} >"$dir/block.c"
	gcc -std=gnu11 -Wall -Wno-unused -Werror -fsyntax-only -I "$dir/include" "$dir/block.c"
}

document_rust() {
	local block=$1 crate=$dir/crate
	mkdir -p "$crate/src"
	printf '%s\n' '[package]' 'name = "documents"' 'version = "0.1.0"' 'edition = "2021"' '[dependencies]' \
		"iommufd-split = { path = \"$TOP/iommufd_split/user\" }" 'iommufd-ioctls = "*"' 'libc = "*"' '[workspace]' >"$crate/Cargo.toml"
	{
		echo '#![deny(warnings)] #![allow(dead_code)]'
		if grep -qE '^(use|fn|struct) ' "$block"; then
			cat "$block"
		else
			echo 'use {std::{fs::File, os::fd::AsFd, sync::Arc}, iommufd_ioctls::IommuFd, iommufd_split::{Permissions, SharedMemory, SplitError}};'
			echo 'fn block(iommufd: Arc<IommuFd>, ioas_id: u32, dev_ids: Vec<u32>, memfd: File, gpa: u64) -> Result<(), SplitError> {'
			cat "$block"
			echo 'Ok(()) }'
		fi
	} >"$crate/src/lib.rs"
	new_cargo check --quiet --offline --manifest-path "$crate/Cargo.toml"
}

document_kconfig() {
	sed 's/[[:space:]]*#.*//' "$1" >"$dir/fragment"
	taken_on_defconfig "$dir/config" "$dir/fragment"
}

# A name and, close behind it, a number: `IOMMU_IOAS_SPLIT` (`0x3b96`), or a constant of Rust.
document_requests() {
	{
		echo '#include <linux/iommufd.h>'
		grep -oE '`IOMMU_[A-Z_]+(\(\))?`[^`]{0,12}`0x[0-9a-f]+`|const IOMMU_[A-Z_]+: [a-z_:]+ = 0x[0-9a-f]+' "$1" |
			sed -E 's/.*(IOMMU_[A-Z_]+).*(0x[0-9a-f]+).*/_Static_assert(\1 == \2, "\1");/'
	} >"$dir/block.c" || true
	gcc -std=gnu11 -Wall -Werror -fsyntax-only -I "$dir/include" "$dir/block.c"
}

# Links, and what is written as a path below a directory of this repository or of the kernel.
document_paths() {
	local doc=$1 path from rc=0
	from=$TOP/$(dirname "$doc")
	while IFS= read -r path; do
		[ -e "$from/${path%%#*}" ] || { echo "$doc: there is no $path" && rc=1; }
	done < <(grep -oE '\]\([^)]+\)' "$TOP/$doc" | sed 's/^](//; s/)$//' | grep -vE '^(https?:|#)')
	while IFS= read -r path; do
		document_path "$from" "$path" || { echo "$doc: there is no $path" && rc=1; }
	done < <(grep -oE '`(Documentation|drivers|examples|fuzz|include|iommu|iommu_pt|iommufd_split|mm|patches|scripts|selftests|src|syzkaller|tests|tools|vfio)/[A-Za-z0-9_./-]*`' "$TOP/$doc" | tr -d '`' | sort -u)
	return $rc
}

# As the reader of that document would look for it; patches go by their number.
document_path() {
	local base
	for base in "$1" "$TOP" "$TOP/tests/judges/src" "$TOP/iommufd_split/user" "$LINUX" "$LINUX/tools/testing/selftests"; do
		! compgen -G "$base/$2*" >/dev/null || return 0
	done
	return 1
}

document_options() {
	local missing
	missing=$(grep -oE '\bCONFIG_[A-Z0-9_]*[A-Z0-9]\b' "$1" | sort -u | comm -23 - "$dir/options")
	[ -z "$missing" ] || { echo "no Kconfig has $missing" && false; }
}
