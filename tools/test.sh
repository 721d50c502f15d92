# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tools/lib.sh and for tools/guests.sh
# make test, sourced by tools/goal.sh. Every case of every check becomes a line "STATUS<tab>CHECK: CASE<tab>DETAIL" in
# $results; the last line printed is their sum. /tmp is this run's own.
. "$TOP/tools/guests.sh"
. "$TOP/tools/documents.sh"
. "$TOP/tools/selftests.sh"

# DEBUG=1 runs the guests only, on the kernel with everything that watches, which takes its time, FLAVOUR= on one as
# distributions build them. TEST_ALL=1 adds the runs that are left out for the time they take. DEB=1 is for the packages of make
# deb: what comes with them, and guests with their kernel.
other=${DEBUG:+debug}${FLAVOUR-}${DEB:+deb}
shots=$OUT/test${other:+-$other}
lists=("$TOP/tools/tests.list" ${TEST_ALL:+"$TOP/tools/tests-all.list"} ${DEBUG:+"$TOP/tools/tests-debug.list"} ${FLAVOUR:+"$TOP/tools/tests-flavour.list"})
[ -z "${DEB-}" ] || lists=("$TOP/tools/tests-deb.list")
slower=${DEBUG:+6}
results=/tmp/results
mkdir -p "$shots"
: >$results
t_start=$SECONDS

# check NAME: starts one; false if ONLY leaves it out.
check() {
	wanted "$1" || return 1
	step "Test: $1"
	t_check=$SECONDS
}

# verdict CASE COMMAND...: one case, its output shown if it fails.
verdict() {
	local name=$1 log=/tmp/verdict.log
	shift
	if "$@" >$log 2>&1 </dev/null; then
		printf 'pass\t%s\t\n' "$name"
	else
		head -n 60 $log | sed 's/^/    | /' >&2
		printf 'fail\t%s\t%s\n' "$name" "$(grep -m1 . $log | tr '\t' ' ')"
	fi
}

# Scripts that a person edits: all that say they are shell.
shell_scripts() { (cd "$TOP" && grep -lrE '^#!.*(sh|busybox)|^# shellcheck shell' --exclude-dir=.git --exclude-dir=out --exclude-dir=target .) | sort; }

our_files() { awk '{ print $1 }' /tmp/overlay.list | grep -E "$1" || true; }

rust_files() { (cd "$TOP" && find . \( -name .git -o -name out -o -name target \) -prune -o -name '*.rs' -print) | sort; }

test_sources() {
	local f
	if check shellcheck; then
		for f in $(shell_scripts); do (cd "$TOP" && verdict "$f" shellcheck -x -P . "$f"); done | record shellcheck
	fi
	if check rustfmt; then
		for f in $(rust_files); do
			verdict "$f" rustfmt --check --color never --edition 2021 --config-path "$BUILD/pristine/.rustfmt.toml" --config skip_children=true "$TOP/$f"
		done | record rustfmt
	fi
	if check patches; then
		while IFS= read -r f; do verdict "$f" patch_applies "$f"; done < <(series) | record patches
	fi
	if check checkpatch; then
		{
			while IFS= read -r f; do verdict "$f" checkpatch "patches/$f"; done < <(series)
			for f in $(our_files '\.([ch]|rs)$'); do verdict "$f" checkpatch "$f" -f; done
		} | record checkpatch
	fi
}

checkpatch() {
	local file=$1 ignore
	shift
	ignore=$(awk -F' *[|] *' -v f="$file" '!/^#/ && NF >= 3 && f ~ $1 { printf "%s%s", s, $2; s = "," }' "$TOP/tools/checkpatch.ignore")
	"$LINUX/scripts/checkpatch.pl" --root="$LINUX" --strict --no-summary --color=never ${ignore:+--ignore "$ignore"} "$@" "$TOP/$file"
}

# With the root's rustc, which is the oldest that the kernel accepts; the crate for VMMs with the newer one.
test_cargo() {
	local args=(--manifest-path "$TOP/Cargo.toml" --locked) kernel=(--workspace --exclude iommufd-split) user=(-p iommufd-split)
	if check clippy; then
		{
			verdict 'cargo clippy' cargo clippy "${args[@]}" "${kernel[@]}" --all-targets --quiet -- -D warnings
			verdict 'cargo clippy, iommufd-split' new_cargo clippy "${args[@]}" "${user[@]}" --all-targets --quiet -- -D warnings
			verdict 'cargo clippy, iommufd-split, all features' new_cargo clippy "${args[@]}" "${user[@]}" --all-features --all-targets --quiet -- -D warnings
			verdict 'iommufd-split with rustc 1.88' user_floor
			verdict 'cargo doc, iommufd-split' user_doc
		} | record clippy
	fi
	if check publish; then
		{
			verdict 'cargo publish --dry-run' user_publish
			verdict 'files of the package' user_package
		} | record publish
	fi
	if check cargo; then
		mkdir -p "$shots/cargo"
		{
			quiet "cargo test" cargo test "${args[@]}" "${kernel[@]}" --no-fail-fast >&2 || true
			quiet "cargo test of iommufd-split" user_tests >&2 || true
			cat "$LOGS/cargo-test.log" "$LOGS/cargo-test-of-iommufd-split.log" >"$shots/cargo/log"
			cargo_cases "$shots/cargo/log"
		} | record cargo
	fi
}

user_tests() { new_cargo test "${args[@]}" "${user[@]}" --all-features --lib --examples --no-fail-fast && new_cargo test "${args[@]}" "${user[@]}" --all-features --doc; }
# Debian has no rustc 1.88, so by the root's 1.85, which is allowed those features in use that became stable by 1.88.
user_floor() {
	RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zcrate-attr=feature(let_chains,unsigned_is_multiple_of)' CARGO_TARGET_DIR=$CARGO_TARGET_DIR-floor \
		cargo check "${args[@]}" "${user[@]}" --lib --all-features --ignore-rust-version --quiet
}
user_doc() { RUSTDOCFLAGS='-D warnings' new_cargo doc "${args[@]}" "${user[@]}" --all-features --no-deps; }

# Nothing is sent. Builds the crate from its package, as one who downloads it does. Without the network what cannot be asked is
# whether the registry has that version. What a registry would refuse is a warning of cargo's.
user_publish() {
	local log=/tmp/publish.log
	new_cargo publish --dry-run --allow-dirty "${args[@]}" "${user[@]}" >$log 2>&1 && ! grep -q '^warning: manifest has no' $log && return
	cat $log
	grep -qE 'download of .* failed|attempting to make an HTTP request' $log && new_cargo package --offline --allow-dirty "${args[@]}" "${user[@]}"
}

user_package() {
	local files file
	files=$(new_cargo package --list --offline --allow-dirty "${args[@]}" "${user[@]}") || return
	for file in CHANGELOG.md LICENSE-APACHE LICENSE-BSD-3-Clause README.md src/lib.rs; do
		grep -qxF $file <<<"$files" || { echo "$file is not in the package" && return 1; }
	done
}

# In the root that tools/prove.sh has made; what it says while it works is the log.
test_prove() {
	check prove || return 0
	mkdir -p "$shots/prove"
	rm -f "$shots/prove/results"
	if [ -z "${PROVE-}" ]; then
		printf 'skip\tproofs\tonly with the word prove in ONLY\n'
	else
		# shellcheck disable=SC2016 # the inner shell's
		quiet "make prove" unshare --mount --propagation unchanged bash -c '
			mount --bind /src "$1/src" && mount --bind /out "$1/out" && mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" &&
			mount -t tmpfs tmpfs "$1/tmp" && chroot "$1" env JOBS="$3" QUICK=1 bash /src/tests/prove/run "$2"' \
			bash "$CACHE/$PROVE" "$shots/prove/results" "$(jobs_)" >&2 || true
		cp "$LOGS/make-prove.log" "$shots/prove/log"
		cat "$shots/prove/results" || printf 'fail\tproofs\tno result: see out/test/prove/log\n'
	fi | record prove
}

# The kernel's crates, with the flags of the x86_64 and Arm builds as kbuild left them, each with its formats; the kernel's
# lints become errors.
test_kernel_clippy() {
	local from to o cmd
	check 'clippy in the kernel' || return 0
	for o in "$BUILD"/{x86,arm}; do
		while read -r from to; do
			cmd=$o/${to%/*}/.$(basename "$to" .rs).o.cmd
			[ ! -f "$cmd" ] || verdict "${o##*/}: $from" kernel_clippy "$o" "$cmd"
		done < <(grep '\.rs$' /tmp/overlay.list)
	done | record 'clippy in the kernel'
}

kernel_clippy() {
	local cmd
	cmd=$(sed -n '1s/^savedcmd_[^=]*:= //p' "$2" | sed -E 's/ rustc / clippy-driver /; s/ --emit=[^ ]*//g; s/ --out-dir [^ ]*//; s/ ; .*//')
	(cd "$1" && RUSTC_BOOTSTRAP=1 CLIPPY_CONF_DIR=$LINUX bash -c "$cmd -Dwarnings --emit=metadata=/tmp/clippy.rmeta")
}

# With overflow checks an operation of which the compiler cannot tell that it fits leaves a call of a panic in the object.
test_overflow() {
	local o object
	check 'overflow panics' || return 0
	for o in "$BUILD"/{x86,arm}; do
		verdict "${o##*/}: checks are on" grep -qx 'CONFIG_RUST_OVERFLOW_CHECKS=y' "$o/.config"
		for object in drivers/iommu/generic_pt/rust/src/lib.o drivers/iommu/generic_pt/rust/iommu_pt/iommu_pt.o drivers/iommu/iommufd/split.o; do
			verdict "${o##*/}: $object" no_overflow_panic "$o/$object"
		done
	done | record 'overflow panics'
}

no_overflow_panic() {
	local symbols
	symbols=$(llvm-nm "$1") && ! grep -E 'panic_const.*_overflow' <<<"$symbols"
}

# Every set of formats that can be configured: the kernel layer without a warning, and with no format nothing is built. The
# crate below it has all formats, whatever is configured.
test_formats() {
	local formats set i bit cfg
	check formats || return 0
	mapfile -t formats < <(awk '/^config / { name = $2 } /select IOMMU_PT_RUST_FORMATS/ { print name }' "$TOP/Kconfig")
	{
		verdict 'none' formats_none
		for ((i = 1; i < 1 << ${#formats[@]}; i++)); do
			set='' cfg=''
			for bit in "${!formats[@]}"; do
				if ((i >> bit & 1)); then
					set+=" ${formats[bit]#IOMMU_PT_RUST_}"
					cfg+=" --cfg=CONFIG_${formats[bit]}"
				fi
			done
			verdict "${set# }" formats_some "$cfg"
		done
	} | record formats
}

formats_some() {
	local cmd
	grep -vE "^--cfg=CONFIG_($(echo "${formats[@]}" | tr ' ' '|'))(=|$)" "$BUILD/x86/include/generated/rustc_cfg" >/tmp/rustc_cfg
	cmd=$(sed -n '1s/^savedcmd_[^=]*:= //p' "$BUILD/x86/drivers/iommu/generic_pt/rust/iommu_pt/.iommu_pt.o.cmd" |
		sed -E 's/ --emit=[^ ]*//g; s/ --out-dir [^ ]*//; s/ ; .*//; s! @[^ ]*/rustc_cfg ! @/tmp/rustc_cfg !')
	(cd "$BUILD/x86" && RUSTC_BOOTSTRAP=1 bash -c "$cmd $1 -Dwarnings --emit=metadata=/tmp/formats.rmeta")
}

formats_none() (
	o=/tmp/formats config=/tmp/formats.config
	mkdir -p $o
	sed 's/^\(CONFIG_IOMMU_PT_RUST_.*\)=y$/\1=n/' "$TOP/tools/configs/x86.config" >$config
	make -s -C "$LINUX" ARCH=x86_64 LLVM=1 O=$o KCONFIG_ALLCONFIG=$config allnoconfig && check_config $config $o/.config || exit
	[ -n "$(formats_objects "$BUILD/x86/.config")" ] && [ -z "$(formats_objects $o/.config)" ]
)

# What Kbuild makes of a configuration.
# shellcheck disable=SC2016 # make's variables
formats_objects() { printf '%s\n' "include $1" "include $TOP/Kbuild" 'all:; @echo $(obj-y) $(obj-m)' | make -s -f - all; }

# As a user runs the selftests in the tree, on a machine where nothing is there to test: each of ours is skipped as a whole,
# and says what to do.
test_kselftest() {
	local log=$shots/kselftest/log o=/tmp/kselftest
	check kselftest || return 0
	mkdir -p "$shots/kselftest" $o
	ln -sfn "$(built tests.x86)/usr" $o/usr
	quiet "make run_tests" make -C "$LINUX/tools/testing/selftests" -j"$(jobs_)" O=$o TARGETS='iommu vfio' FORCE_TARGETS=1 run_tests >&2 || true
	cp "$LOGS/make-run_tests.log" "$log"
	{
		kselftest_skips iommu 'enable CONFIG_IOMMUFD' iommufd_debugfs iommufd_join iommufd_split iommufd_split_fuzz iommufd_split_threads iommufd_split_users
		kselftest_skips vfio 'export VFIO_SELFTESTS_BDF=' vfio_split_dma_test
		verdict 'config fragments, on defconfig' taken_on_defconfig /tmp/kselftest.config "$LINUX"/tools/testing/selftests/{iommu,vfio}/config
	} | record kselftest
}

# taken_on_defconfig O FRAGMENT...: every line of them takes effect there; nothing may be lost for want of what it depends on.
taken_on_defconfig() (
	o=$1 kmake=(make -s -C "$LINUX" ARCH=x86_64 LLVM=1 "O=$1")
	shift
	mkdir -p "$o" && cd "$o" && "${kmake[@]}" defconfig &&
		"$LINUX/scripts/kconfig/merge_config.sh" -m .config "$@" >merge.log && "${kmake[@]}" olddefconfig && for f; do check_config "$f" .config; done
)

# kselftest_skips COLLECTION REASON TEST...: cases of $log; the reason must be among what the test itself printed.
kselftest_skips() {
	local collection=$1 reason=$2 name result
	shift 2
	for name; do
		result=$(sed -nE "s/^((not )?ok [0-9]+ selftests: $collection: $name\b.*)/\1/p" "$log")
		if [[ $result != ok*'# SKIP' ]]; then
			printf 'fail\t%s: %s\tnot skipped: %s\n' "$collection" "$name" "${result:-no result}"
		elif ! sed -n "/^# selftests: $collection: $name\$/,/^ok /p" "$log" | grep -q "$reason"; then
			printf 'fail\t%s: %s\tskipped without "%s"\n' "$collection" "$name" "$reason"
		else
			printf 'pass\t%s: %s\t\n' "$collection" "$name"
		fi
	done
}

cargo_cases() {
	awk '
		/^ +Running |^ +Doc-tests / { sub(/^ +(Running )?/, ""); sub(/ \(.*/, ""); unit = $0; units++ }
		/^test .* \.\.\. (ok|FAILED|ignored)/ {
			name = $0; sub(/^test /, "", name); status = name
			sub(/ \.\.\. .*/, "", name); sub(/ - should panic$/, "", name); sub(/.* \.\.\. /, "", status)
			printf "%s\t%s\t\n", status ~ /^ok/ ? "pass" : status ~ /^FAILED/ ? "fail" : "skip", unit " " name; n++
		}
		/^test result: / { results++ }
		END {
			if (!n) print "fail\tcargo test\tno test ran: see out/test/cargo/log"
			else if (results != units) printf "fail\tcargo test\t%d test programs started, %d finished\n", units, results
		}' "$1"
}

# What the guests and checks that ONLY leaves need to be built.
needed() {
	local name bed rest
	guests | while IFS='|' read -r name bed rest; do kernel_of_bed "$bed"; done
	[ -n "$other" ] || { ! wanted 'clippy in the kernel' && ! wanted 'overflow panics' && ! wanted formats && ! wanted kselftest; } || printf '%s\n' tree x86
	[ -n "$other" ] || { ! wanted 'clippy in the kernel' && ! wanted 'overflow panics'; } || echo arm
	[ "$other" != deb ] || echo deb
}

# prepared WHAT...: in a process of its own, because what stops a build must not stop the count.
prepared() {
	local apart=()
	t_check=$SECONDS
	[ "$1" = tree ] || apart=(apart)
	"${apart[@]}" bash "$TOP/tools/goal.sh" build "$@" || {
		printf 'fail\t%s\tsee the error above\n' "$*" | record build
		return 1
	}
}

# apart COMMAND...: what it writes to /tmp is not in the way of the checks meanwhile, but for the links to outputs.
apart() {
	# shellcheck disable=SC2016 # the inner shell's
	unshare --mount --propagation unchanged bash -c '
		mkdir -p /tmp/apart && mount -t tmpfs -o mode=1777 tmpfs /tmp/apart && mkdir /tmp/apart/current &&
			mount --bind /tmp/current /tmp/apart/current && mount --rbind /tmp/apart /tmp && exec "$@"' bash "$@"
}

# built_by PID: what it has said about its builds, then what it says; whether they went well.
built_by() {
	tail -n +1 -f --pid="$1" /tmp/builds
	wait "$1"
}

# What needs the tree, and what needs kernels.
test_tree() {
	[ -z "$other" ] || return 0
	test_sources
	test_documents
	test_selftests
	test_cargo
	test_prove
}
test_built() {
	if [ -z "$other" ]; then
		test_kernel_clippy
		test_overflow
		test_formats
		test_kselftest
	elif [ "$other" = deb ]; then
		. "$TOP/tools/deb/test"
		test_deb
	fi
}

# The names of all checks, by asking each one to start; none does. In a subshell, which keeps the real function.
checks() (
	check() { echo "$1" && return 1; }
	test_tree
	if [ "$other" = deb ]; then echo packages; else test_built; fi
	ONLY='' guests | cut -d'|' -f1
)

if [ -n "${ONLY-}" ]; then
	mapfile -t names < <(checks)
	matching=0
	for name in "${names[@]}"; do ! wanted "$name" || matching=$((matching + 1)); done
	[ $matching != 0 ] || die "no check matches ONLY='$ONLY': choose of $(printf "'%s' " "${names[@]}")"
fi

# What is built is built beside the checks that only need the tree: those leave a processor idle now and then.
if prepared tree; then
	mapfile -t what < <(needed | sort -u)
	if [ "${#what[@]}" != 0 ]; then
		prepared "${what[@]}" >/tmp/builds 2>&1 &
		builds=$!
	fi
	test_tree
	if [ "${#what[@]}" = 0 ] || built_by "$builds"; then
		test_built
		test_guests
	fi
fi

cp $results "$shots/results"
step "Result: $((SECONDS - t_start)) s; logs in out/${shots##*/}"
awk -F'\t' '$1 == "known" { print "    known failure: " $2 " (" $3 ")" } $1 == "fail" { print "    FAILED " $2 ($3 != "" ? " (" $3 ")" : "") }' $results
[ -z "${ONLY-}" ] || note "only checks that match '$ONLY' were run"
awk -F'\t' '{ c[$1]++ }
	END { printf "%d passed, %d failed, %d skipped\n", c["pass"], c["fail"], c["skip"] + c["known"]; exit c["fail"] > 0 || !c["pass"] }' $results
