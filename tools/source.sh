# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # shared with the other files that tools/goal.sh sources
# The kernel tree, in two steps, sourced by tools/goal.sh.
#   $BUILD/pristine   Debian's source package, or a copy of the caller's KERNEL=; $BUILD/pristine.id says which content
#   $LINUX            the same (hard links) + patches/ + the overlay of tools/overlay.map
# A file of $LINUX gets a new mtime if and only if its content changes, also when it goes back to the pristine one, so
# that kbuild rebuilds what changed and nothing else.

deb_source=linux-source-$DEBIAN
STAGE=/tmp/stage

prepare_source() {
	if [ -n "${KERNEL-}" ]; then source_of_caller; else source_of_debian; fi
	check_version "$BUILD/pristine" "the source of Debian"
}

source_of_debian() {
	[ ! -f "$BUILD/pristine.id" ] || return 0
	need_lock
	step "Kernel source: Debian's $deb_source (150 MB to load)"
	need_gb 5 "$BUILD" "Building the kernels"
	quiet "Package list" debian_apt "$(debian_suite)" update ||
		die "the Debian mirror cannot be reached: check the network (http_proxy) and run the same command again, or give a kernel tree with KERNEL=/path/to/linux."
	rm -rf "$BUILD/deb.tmp" "$BUILD/pristine.tmp" "$BUILD/pristine"
	mkdir -p "$BUILD/deb.tmp" "$BUILD/pristine.tmp"
	quiet "Loading $deb_source" load_deb "$deb_source" "$BUILD/deb.tmp" ||
		die "$deb_source could not be loaded from Debian's $(debian_suite): check the network and run the same command again, or, if Debian no longer carries it, get a tree of Linux $supported and give it with KERNEL=/path/to/linux."
	quiet "Unpacking $deb_source" unpack_deb || die "$deb_source could not be unpacked: run the same command again."
	mv "$BUILD/pristine.tmp" "$BUILD/pristine"
	mv "$BUILD/deb.tmp/id" "$BUILD/pristine.id"
	rm -rf "$BUILD/deb.tmp"
}

# The older kernel comes from the testing suite.
debian_suite() { if [ "$DEBIAN" = 7.3 ]; then echo trixie-backports; else echo forky; fi; }

# debian_apt SUITE ARGUMENT...: apt-get with that suite alone, from the mirror that the toolchain root uses; with type=deb-src
# the sources of its packages. Mirrors can be behind in what few use; signatures are checked.
debian_apt() {
	local suite=$1 work=/tmp/debian
	shift
	mkdir -p $work/lists/partial
	sed -n "s/^deb \(\(\[[^]]*\] \)\?[^ ]*\) trixie main.*/${type:-deb} \1 $suite main/p" /etc/apt/sources.list >$work/list
	apt-get -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$work/lists -o Dir::Cache::pkgcache= \
		-o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o Acquire::Check-Valid-Until=false "$@"
}

# load_deb PACKAGE DIRECTORY [SUITE], after the package list.
load_deb() { (cd "$2" && debian_apt "${3-$(debian_suite)}" download "$1"); }

unpack_deb() {
	cd "$BUILD/deb.tmp" || return
	sha256sum ./*.deb >id &&
		dpkg-deb --fsys-tarfile ./*.deb | tar -xO "./usr/src/$deb_source.tar.xz" | tar -xJ -C "$BUILD/pristine.tmp" --strip-components=1
}

# The caller's tree is read only. Its listing with sizes and times tells whether it changed since the last copy.
source_of_caller() {
	local id list=/tmp/files git=(git -c 'safe.directory=*' -C /kernel)
	if "${git[@]}" rev-parse 2>/dev/null; then
		"${git[@]}" ls-files -z --cached --others --exclude-standard
	else
		find /kernel -name .git -prune -o \( -type f -o -type l \) -printf '%P\0'
	fi | sort -z >$list
	# git lists files, too, that somebody deleted.
	id=$(cd /kernel && { xargs -0 stat --printf '%n %s %y\n' <$list 2>/dev/null || true; } | sha256sum)
	[ "$(cat "$BUILD/pristine.id" 2>/dev/null)" != "$id" ] || return 0
	need_lock
	step "Kernel source: copying $KERNEL (Linux $(kernel_version /kernel))"
	need_gb 5 "$BUILD" "Building the kernels"
	rm -f "$BUILD/pristine.id" "$BUILD/tree.id"
	mkdir -p "$BUILD/pristine"
	quiet "Copying the kernel tree" copy_tree $list || die "the tree $KERNEL could not be copied: see the log above."
	# What a build left inside the tree would stop a build outside of it.
	quiet "Cleaning the copy" make -C "$BUILD/pristine" ARCH=x86 mrproper || die "the copy of $KERNEL cannot be cleaned: give a clean tree."
	echo "$id" >"$BUILD/pristine.id"
}

copy_tree() {
	rsync -a --delete-missing-args --from0 --files-from="$1" /kernel/ "$BUILD/pristine/" || return
	# With --files-from rsync leaves what the list no longer names.
	cd "$BUILD/pristine" && find . \( -type f -o -type l \) -printf '%P\0' | sort -z | comm -z -23 - "$1" | xargs -0r rm -f
}

# Everything that patches and overlay change goes to a small stage of this run, whose hashes say what has to be built.
stage_tree() {
	local stage=$STAGE
	rm -rf "$stage"
	mkdir "$stage"
	stage_patches "$stage"
	stage_overlay "$stage"
	(cd "$stage" && find . \( -type f -o -type l \) -printf '%P\n' | sort) >/tmp/stage.list

	hash_of() { (cd "$stage" && { grep "$@" /tmp/stage.list || true; } | xargs -rd '\n' sha256sum | sha256sum); }
	tree_hash=$(hash_of '')
	tests_hash=$(hash_of -E '^tools/|/uapi/|^scripts/')
	kernel_hash=$(hash_of -vE '^((tools/testing|Documentation)/|MAINTAINERS$)')
	kconfig_hash=$(hash_of -E '(^|/)Kconfig|^scripts/')
}

# rsync moves what differs from the stage into $LINUX.
prepare_tree() {
	local id
	id="$(cat "$BUILD/pristine.id") $tree_hash"
	[ "$(cat "$BUILD/tree.id" 2>/dev/null)" != "$id" ] || return 0
	need_lock
	step "Kernel tree: Linux $(kernel_version "$BUILD/pristine") with $(wc -l </tmp/series) patches and $(wc -l </tmp/overlay.list) files of this repository"
	sync_tree "$STAGE"
	echo "$id" >"$BUILD/tree.id"
}

sync_tree() {
	local stage=$1 f pristine=$BUILD/pristine
	rm -f "$BUILD/tree.id"
	if [ ! -d "$LINUX" ]; then
		rm -rf "$LINUX.tmp"
		cp -al "$pristine" "$LINUX.tmp"
		mv "$LINUX.tmp" "$LINUX"
		cp "$BUILD/pristine.id" "$BUILD/linux.id"
	elif ! cmp -s "$BUILD/pristine.id" "$BUILD/linux.id"; then
		rm -f "$BUILD/linux.id"
		quiet "Bringing the tree up to date" rsync -rlp --checksum --delete "$pristine/" "$LINUX/" ||
			die "the kernel tree could not be brought up to date: see the log above, free disk space if that is what it lacks, and run the same command again."
		cp "$BUILD/pristine.id" "$BUILD/linux.id"
	fi
	# What an earlier stage changed and this one does not: back to pristine. The list survives an interruption.
	touch "$BUILD/staged"
	comm -23 "$BUILD/staged" /tmp/stage.list | while IFS= read -r f; do
		rm -f "$LINUX/$f"
		if [ -e "$pristine/$f" ]; then
			cp --preserve=mode "$pristine/$f" "$LINUX/$f"
		else
			rmdir -p --ignore-fail-on-non-empty "$LINUX/${f%/*}" 2>/dev/null || true
		fi
	done
	sort -u "$BUILD/staged" /tmp/stage.list >"$BUILD/staged.tmp"
	mv "$BUILD/staged.tmp" "$BUILD/staged"
	rsync -rlp --checksum "$stage/" "$LINUX/"
	cp /tmp/stage.list "$BUILD/staged"
}

# The names in patches/series, in their order.
listed_patches() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$TOP/patches/series"; }

# has_hunks PATCH: false for a patch that brings only files of ours (patches/files).
has_hunks() { grep -q '^+++ ' "$TOP/patches/$1"; }

# The patches in their order, below $TOP/patches, without those that have no hunks. A kernel that one of them does not fit
# has its own in a directory, as in 7.2/, where not-needed lists those that it does without.
series() {
	local p own
	own=$(kernel_version "$BUILD/pristine" | cut -d. -f1,2)
	listed_patches | while IFS= read -r p; do
		if [ -e "$TOP/patches/$own/$p" ]; then echo "$own/$p"; elif has_hunks "$p" && ! not_needed "$own" "$p"; then echo "$p"; fi
	done
}

not_needed() { grep -qs "^$2 " "$TOP/patches/$1/not-needed"; }

# touched [PATCH]: the files that it, or all of the series, changes.
touched() {
	local p
	for p in ${1-$(series)}; do
		sed -nE 's/^(---|\+\+\+) [ab]\/([^\t]+).*/\2/p' "$TOP/patches/$p"
	done | sort -u
}

# patch_applies PATCH: in the order of /tmp/series, on the pristine tree, without fuzz; /tmp/series-check holds what those
# before this one made.
patch_applies() {
	local stage=/tmp/series-check f
	[ "$1" != "$(head -n 1 /tmp/series)" ] || rm -rf $stage
	mkdir -p $stage
	touched "$1" | while IFS= read -r f; do
		[ -e "$stage/$f" ] || [ ! -e "$BUILD/pristine/$f" ] || (cd "$BUILD/pristine" && cp --parents "$f" $stage)
	done
	patch -d $stage -p1 -F0 -N --batch --no-backup-if-mismatch -r - <"$TOP/patches/$1"
}

stage_patches() {
	local stage=$1 p f
	series >/tmp/series
	while IFS= read -r p; do
		[ -f "$TOP/patches/$p" ] || die "patches/series names $p, which is not in patches/: add the file or drop the line."
		touched "$p" | while IFS= read -r f; do
			[ -e "$stage/$f" ] || [ ! -e "$BUILD/pristine/$f" ] || (cd "$BUILD/pristine" && cp --parents --preserve=mode "$f" "$stage")
		done
		patch -d "$stage" -p1 -N --batch --no-backup-if-mismatch -r - <"$TOP/patches/$p" >/tmp/patch.log 2>&1 || {
			sed 's/^/    | /' /tmp/patch.log >&2
			die "patches/$p does not apply to Linux $(kernel_version "$BUILD/pristine"): use an unpatched tree of Linux $supported, or rebase the patch."
		}
	done </tmp/series
	# sync_tree brings files in and back, it does not take the kernel's own away.
	for p in $(touched); do
		[ -e "$stage/$p" ] || die "the patches delete $p of the kernel: tools/source.sh cannot do that yet."
	done
}

# Lines "SOURCE DESTINATION", a line for each file of tools/overlay.map.
overlay_files() {
	local from to f
	sed 's/#.*//; /^[[:space:]]*$/d' "$TOP/tools/overlay.map" | while read -r from to; do
		[ -e "$TOP/$from" ] || continue
		if [[ $from == */ ]]; then
			(cd "$TOP/$from" && find . -type f ! -name '.*' ! -name '*~' ! -name '*.orig' ! -name '*.rej' ! -path '*/target/*' -printf '%P\n') |
				while IFS= read -r f; do echo "$from$f $to$f"; done
		else
			echo "$from $to"
		fi
	done
}

stage_overlay() {
	local stage=$1 from to list=/tmp/overlay.list
	overlay_files >$list
	while read -r from to; do
		[ ! -e "$BUILD/pristine/$to" ] || die "$from would replace the kernel's own $to: such a change belongs into patches/."
		[ ! -e "$stage/$to" ] || die "$from would replace $to, which a patch makes: keep one of the two."
		install -D -m "$(stat -c %a "$TOP/$from")" "$TOP/$from" "$stage/$to"
	done <$list
}
