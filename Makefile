# SPDX-License-Identifier: GPL-2.0-only
# The front door. Everything is built and run in a toolchain root that the first target makes; see `make help`.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-debug prove litmus bench series series-check deb applies build vm shell clean distclean

help: ## this list
	@echo 'Hitless IOPTE splitting for Linux, in Rust.'
	@echo
	@sed -n 's/^\([a-z-]*\): ## \(.*\)/  make \1 \2/p' Makefile | awk '{ printf "  %s %-12s ", $$1, $$2; $$1 = $$2 = ""; print substr($$0, 3) }'
	@echo
	@echo 'Settings, as in make test KVM=1:'
	@echo '  KERNEL=/path/to/linux  use this tree (any 7.3.x or 7.2.x; it is copied, never changed) instead of Debian'"'"'s'
	@echo '  FLAVOUR=cfi|gcc        make test, vm: x86_64 guests on a kernel as distributions build them with clang or gcc'
	@echo '  DEBIAN=7.2             use the kernel of Debian'"'"'s testing suite'
	@echo '  FULL=1                 make deb: all of Debian'"'"'s modules'
	@echo '  KVM=1                  let QEMU use /dev/kvm; otherwise it emulates'
	@echo '  ONLY=REGEX             make test: only the checks whose names match, as in ONLY=kunit; make series-check: the patches'
	@echo '  BED=NAME               make demo, bench, vm: the machine (of tools/beds)'
	@echo '  CMD=COMMAND            make vm: what to run in it'
	@echo '  DEMO=vmm               make demo: a VMM that converts memory, page by page and with splits'
	@echo '  DEMO=alioth            make demo: a VMM from crates.io that does so, with a guest and an assigned disk'
	@echo '  DEMO=qemu              make demo: QEMU, whose guest has a balloon, virtio-mem and an assigned disk'
	@echo '  ONLY=tables|ioctls|vmm make bench: one part of it'
	@echo '  BOOTS=N ROUNDS=N       make bench: how often (default: 8 boots of 16 rounds)'
	@echo '  FROM="NAME <MAIL>"     make series: who signs the patches (default: of git config)'
	@echo '  JOBS=N                 build jobs and test guests at once (default: one per processor)'
	@echo '  IOPTE_CACHE=DIR        where the toolchain and the builds are kept (default: ~/.cache/iopte-split)'
	@echo '  IOPTE_MIRROR=URL       Debian mirror for the toolchain'
	@echo
	@echo 'Needs: x86_64, root or unprivileged user namespaces, 13 GB of disk (make deb: 12 more), 8 GB of memory, the network on the first run.'

demo: ## split a live 1G mapping under DMA and show it: the main job
	@tools/run demo

test: ## all tests but the longest (see Documentation/testing.md); the last line is the result
	@tools/run test

test-all: ## the same, and the runs that it leaves out for the time that they take
	@TEST_ALL=1 tools/run test

test-debug: ## the guests again on a kernel with KASAN, lockdep and what else watches; takes hours
	@DEBUG=1 tools/run test

prove: ## check the proofs (Documentation/proof.md): compiled formats against the manuals, split on tiny tables, the publish protocol for tables of any size
	@tools/run prove

litmus: ## the ordering claims under the kernel's memory model; needs herd7 and KERNEL=
	@Documentation/litmus/run '$(KERNEL)'

bench: ## the page tables against those in C, and a VMM's job with splits against one without
	@tools/run bench

series: ## a patch series for the kernel's lists, in out/series
	@tools/run series

series-check: ## build and check each patch of it; takes an hour or two
	@tools/run series-check

deb: ## kernel packages with Debian's configuration, and boot them; builds 25 minutes on two cores, with FULL=1 hours
	@tools/run deb

applies: ## which patches apply to which of Debian's kernels and QEMUs, in out/applies
	@rc=0; for v in 7.3 7.2; do DEBIAN=$$v tools/run applies || rc=1; done; tools/run applies-qemu || rc=1; exit $$rc

build: ## kernels, selftests and initramfs only
	@tools/run build

vm: ## run CMD in a guest on BED
	@tools/run vm '$(subst ','\'',$(or $(value CMD),uname -a))'

shell: ## a shell in the toolchain root
	@tools/run shell

clean: ## remove the builds from the cache, keep the toolchain
	@tools/run clean

distclean: ## remove everything from the cache
	@tools/run distclean
