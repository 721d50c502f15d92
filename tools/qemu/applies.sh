# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of tools/lib.sh
# The half of make applies that is about QEMU, sourced by tools/goal.sh: which of the versions in Debian's suites patches/qemu
# fits. What it says is kept in $OUT/applies/qemu. Nothing is built, and what is loaded is not kept.

applies_qemu() {
	local suite version file=$OUT/applies/qemu
	mkdir -p "$OUT/applies"
	for suite in trixie trixie-backports forky sid; do
		type=deb-src debian_apt $suite update >/tmp/qemu-applies.log 2>&1 || die "the package list of Debian's $suite cannot be loaded: check the network and run the same command again."
		for version in $(qemu_versions $suite); do qemu_applies $suite "$version"; done
	done | tee "$file"
	grep -q ': all of ' "$file"
}

# qemu_versions SUITE, which can have more than one.
qemu_versions() {
	/usr/lib/apt/apt-helper cat-file /tmp/debian/lists/*_"$1"_*Sources* | awk '/^Package: / { ours = $2 == "qemu" } ours && /^Version: / { print $2 }' | sort -uV
}

# qemu_applies SUITE VERSION: a line about it.
qemu_applies() {
	local work=/tmp/qemu-applies p count=0 applied=0
	rm -rf $work
	mkdir -p $work
	if ! (cd $work && type=deb-src debian_apt "$1" source --download-only "qemu=$2") >$work/log 2>&1; then
		echo "QEMU $2, of Debian's $1: its source cannot be loaded now"
		return
	fi
	dpkg-source --no-check -x $work/*.dsc $work/tree >>$work/log 2>&1
	for p in $(qemu_series); do
		count=$((count + 1))
		! patch -F0 -N --batch --no-backup-if-mismatch -r - -d $work/tree -p1 <"$TOP/patches/qemu/$p" >$work/log.$count 2>&1 || applied=$((applied + 1))
	done
	if [ $applied = $count ]; then
		echo "QEMU $2, of Debian's $1: all of $count patches apply"
	else
		echo "QEMU $2, of Debian's $1: $applied of $count patches apply"
		grep -hE 'FAILED|find file' $work/log.* | head -n 10 | sed 's/^/    | /'
	fi
	rm -rf $work
}
