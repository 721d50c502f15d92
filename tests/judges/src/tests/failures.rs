// SPDX-License-Identifier: GPL-2.0-only

//! Every allocation of every kind of map and split fails once, in every format.
//!
//! After a failed split nothing has changed. After a failed map the first `bytes` are mapped, as
//! they were to be, and nothing else is. Either way what is tried again succeeds, and gives the
//! leaves and the tables that it would have given at once.

use crate::arena::{watch, Event, Step, Store, View};
use crate::hw::{Amd, Arm, Hardware, LeafAt, OddHw, Riscv, Vtd, X86};
use crate::model::Rules;
use crate::rig::{Rig, Setup};
use crate::setups::{self, for_each_format};
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86, G1, K4, M2};
use iotable::fmt::Features;
use iotable::{Bytes, Error, Mapped, Result, SplitFlush};

/// The call that runs out of memory.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// To this OA.
    Map(u64),
    Split,
}

/// Its range.
type Range = (u64, u64);

/// All that a later call can depend on: the leaves, and the places of the tables.
#[derive(PartialEq)]
struct State {
    leaves: Vec<LeafAt>,
    tables: Vec<(u8, u64)>,
}

fn state<H: Hardware>(rig: &Rig<H>) -> State {
    let scan = rig.root().scan(View::Cpu);
    let mut tables: Vec<_> = scan.tables.iter().map(|at| (at.level, at.va)).collect();
    tables.sort_unstable();
    let leaves = scan.leaves;
    State { leaves, tables }
}

fn run<H: Hardware>(rig: &mut Rig<H>, call: Call, (va, len): Range) -> Mapped {
    match call {
        Call::Map(oa) => rig.map(va, len, oa, rw()).unwrap(),
        Call::Split => Mapped {
            bytes: Bytes(0),
            result: rig.split(va, len).map(|_| ()),
        },
    }
}

/// A split that must fail: without one store to a table that is reachable.
fn split_unseen<H: Hardware>(rig: &Rig<H>, (va, len): Range) -> Result {
    let reachable = rig.root().reachable(&[View::Cpu, View::Memory]);
    let in_use = rig.arena.in_use();
    let mut look = |event: Event| match event.step {
        Step::Before(Store::Init) => assert!(
            !reachable.contains(&(event.at & !((8 << H::ITEMS_LG2) - 1))),
            "a store, then a failure"
        ),
        Step::Before(_) => panic!("a visible store, then a failure"),
        _ => {}
    };
    let lock = rig.arena.lock(va, len).unwrap();
    let result = watch(&mut look, || rig.pt().split(lock.range()));
    let result = result.and_then(SplitFlush::finish);
    drop(lock);
    assert_eq!(rig.arena.in_use(), in_use, "a table leaked");
    rig.check();
    result
}

/// Lets each allocation of a call fail once; returns their number.
fn each_fails<H: Hardware>(make: &dyn Fn() -> Rig<H>, call: Call, range: Range) -> usize {
    let (va, len) = range;
    let mut rig = make();
    let (before, allocated) = (state(&rig), rig.arena.allocated());
    assert_eq!(run(&mut rig, call, range).result, Ok(()), "{call:?}");
    let (after, needed) = (state(&rig), rig.arena.allocated() - allocated);
    rig.finish();

    // What is tried again: all of it, or what is missing.
    for (k, rest) in (0..needed).flat_map(|k| [(k, false), (k, true)]) {
        let mut rig = make();
        rig.arena.fail_at(Some(k));
        let Call::Map(oa) = call else {
            if rest {
                // Twice in a row.
                assert_eq!(rig.split(va, len), Err(Error::NoMemory));
                rig.arena.fail_at(Some(needed - 1 - k));
            }
            assert_eq!(split_unseen(&rig, range), Err(Error::NoMemory));
            assert!(!rig.arena.failure_pending());
            assert!(state(&rig) == before, "something changed");
            assert_eq!(rig.split(va, len), Ok(needed), "a retry");
            assert!(state(&rig) == after, "not what it gives at once");
            rig.finish();
            continue;
        };
        let mapped = run(&mut rig, call, range);
        assert_eq!(mapped.result, Err(Error::NoMemory), "allocation {k}");
        assert!(!rig.arena.failure_pending());
        let Bytes(done) = mapped.bytes;
        assert!(done < len);
        let mut part = after.leaves.clone();
        part.retain(|leaf| before.leaves.contains(leaf) || leaf.va.wrapping_sub(va) < done);
        assert!(state(&rig).leaves == part, "not the first bytes");
        if rest {
            let (va, oa) = (va + done, oa + done);
            rig.map_ok(va, len - done, oa, rw());
        } else {
            if done != 0 {
                assert_eq!(rig.unmap(va, done), done);
            }
            assert!(state(&rig).leaves == before.leaves, "not as before");
            rig.map_ok(va, len, oa, rw());
        }
        assert!(state(&rig) == after, "not what it gives at once");
        rig.finish();
    }
    // One more would not be asked for.
    let mut rig = make();
    rig.arena.fail_at(Some(needed));
    assert_eq!(run(&mut rig, call, range).result, Ok(()));
    assert!(rig.arena.failure_pending(), "more than it takes");
    rig.arena.fail_at(None);
    rig.finish();
    needed
}

fn rules<H: Hardware>(setup: Setup) -> Rules {
    let rig = Rig::<H>::new(setup);
    let rules = rig.model.rules;
    rig.finish();
    rules
}

/// Failures by kind of call.
#[derive(Default, Debug)]
struct Failed {
    calls: usize,
    maps: usize,
    splits: usize,
}

impl Failed {
    fn each<H: Hardware>(&mut self, make: &dyn Fn() -> Rig<H>, call: Call, range: Range) {
        let failed = each_fails(make, call, range);
        self.calls += 1;
        match call {
            Call::Map(_) => self.maps += failed,
            Call::Split => self.splits += failed,
        }
    }

    /// Maps of all shapes: one leaf of each size, up and down all levels, pages that fill tables,
    /// the ends of the space (below a top that grows), beside others, and over empty tables.
    fn maps<H: Hardware>(&mut self, setup: Setup) {
        let empty = || Rig::<H>::new(setup);
        let rules = rules::<H>(setup);
        let page = rules.page();
        let sizes: Vec<u64> = (0..64).map(|lg2| rules.sizes & (1 << lg2)).collect();
        let sizes: Vec<u64> = sizes.into_iter().filter(|&size| size != 0).collect();
        let last = crate::size::max_offset(rules.va_lg2 - u32::from(rules.sign));
        for &size in &sizes {
            let va = if last / 2 >= size { size } else { 0 };
            self.each(&empty, Call::Map(0), (va, size));
        }

        let least = |level: u8| {
            let fits = |size: &&u64| rules.level_of(size.trailing_zeros()) >= level;
            // Without such a leaf it takes many of the level below.
            let item = 1 << rules.item_lg2(level);
            sizes.iter().find(fits).copied().unwrap_or(item)
        };
        let (middle, big) = (least(1), least(2));
        let start = big - middle - page;
        let stairs = (start, big + 2 * (middle + page));
        let beside = || {
            let mut rig = empty();
            rig.map_ok(start - page, page, 0, rw());
            rig
        };
        let over_empty = || {
            let mut rig = empty();
            for va in [big + page, big + middle + page] {
                rig.map_ok(va, page, 0, rw());
                assert_eq!(rig.unmap(va, page), page);
            }
            rig
        };
        let all: [&dyn Fn() -> Rig<H>; 3] = [&empty, &beside, &over_empty];
        let span = 1u64 << rules.item_lg2(1);
        for make in all {
            self.each(make, Call::Map(start), stairs);
            // Pages only, of four tables.
            let pages = (big + span - page, 2 * span + 2 * page);
            self.each(make, Call::Map(page), pages);
            for half in [0, !last] {
                if half == 0 || rules.sign {
                    let va = half | (last - (page - 1));
                    self.each(make, Call::Map(0), (va, page));
                    let va = half | (last - (2 * span - 1));
                    self.each(make, Call::Map(0), (va, 2 * span));
                }
            }
        }
    }

    /// Splits of leaves of each size: at one edge and two, in one leaf, in two of a size, and in
    /// two of different sizes; dirty and clean.
    fn splits<H: Hardware>(&mut self, setup: Setup) {
        let rules = rules::<H>(setup);
        let page = rules.page();
        let last = crate::size::max_offset(rules.va_lg2 - u32::from(rules.sign));
        let mut smaller = page;
        for size in (0..64).map(|lg2| rules.sizes & (1 << lg2)) {
            if size <= page {
                continue;
            }
            let three = last / 4 >= size;
            let va = if three { size } else { 0 };
            let dirty = size.trailing_zeros() % 2 == 0 && !H::PRESET;
            let make = |next: u64| {
                let mut rig = Rig::<H>::new(setup);
                rig.map_ok(va, size, 0, rw());
                if next != 0 {
                    rig.map_ok(va + size, next, 0, rw());
                }
                if dirty {
                    rig.set_dirty(va + size / 2).unwrap();
                }
                rig
            };
            let one = || make(0);
            for (at, len) in [
                (0, page),
                (size - page, page),
                (0, size / 2),
                (size / 2, page),
                (page, size - page),
            ] {
                self.each(&one, Call::Split, (va + at, len));
            }
            if size > 2 * page {
                self.each(&one, Call::Split, (va + page, page));
                self.each(&one, Call::Split, (va + page, size - 2 * page));
                self.each(&one, Call::Split, (va + size / 2 - page, 2 * page));
            }
            if three {
                let edge = va + size - page;
                self.each(&|| make(size), Call::Split, (edge, 2 * page));
                let half = (size / 2).max(page);
                self.each(&|| make(size), Call::Split, (va + size - half, half + page));
                if smaller > page {
                    self.each(&|| make(smaller), Call::Split, (edge, 2 * page));
                }
            }
            smaller = size;
        }
    }

    fn both<H: Hardware>(&mut self, setup: Setup) {
        self.maps::<H>(setup);
        self.splits::<H>(setup);
    }

    /// Says how many there were, and panics if they are fewer.
    fn report(self, format: &str, least: usize) {
        eprintln!("{format}: {self:?}");
        assert!(self.maps + self.splits >= least, "{self:?}");
    }
}

#[test]
fn vtdss() {
    let mut failed = Failed::default();
    for features in [Features::default(), Features::DMA_INCOHERENT] {
        for top in 2..=4 {
            failed.both::<Vtd>(Setup::plain(top).with(features));
        }
    }
    failed.both::<Vtd>(Setup::plain(2).without(G1));
    failed.report("vtdss", 500);
}

#[test]
fn x86_64() {
    let mut failed = Failed::default();
    failed.both::<X86>(x86());
    failed.both::<X86>(x86().with(Features::DMA_INCOHERENT).encrypted(47));
    failed.both::<X86>(Setup::plain(3).space(47));
    failed.both::<X86>(Setup {
        top_level: 4,
        ..x86()
    });
    failed.report("x86_64", 380);
}

#[test]
fn amdv1() {
    let mut failed = Failed::default();
    failed.both::<Amd<false>>(Setup::plain(5));
    failed.maps::<Amd<false>>(amd());
    failed.both::<Amd<false>>(Setup {
        top_level: 1,
        ..amd()
    });
    failed.both::<Amd<false>>(Setup::plain(3).without(!(K4 | M2 | G1)));
    failed.report("amdv1", 2400);
}

#[test]
fn amdv1_mock() {
    let mut failed = Failed::default();
    failed.both::<Amd<true>>(mock());
    failed.maps::<Amd<true>>(Setup {
        top_level: 1,
        ..mock()
    });
    failed.report("amdv1_mock", 880);
}

#[test]
fn riscv_64() {
    let mut failed = Failed::default();
    for top_level in 2..=4 {
        failed.both::<Riscv>(Setup {
            top_level,
            ..riscv()
        });
    }
    failed.both::<Riscv>(Setup::plain(2).with(Features::SIGN_EXTEND));
    failed.report("riscv_64", 500);
}

#[test]
fn armv8() {
    let mut failed = Failed::default();
    for features in [Features::default(), Features::DMA_INCOHERENT] {
        failed.both::<Arm<12>>(arm_4k().with(features));
        failed.both::<Arm<14>>(arm_16k().with(features));
        failed.both::<Arm<16>>(arm_64k().with(features));
    }
    failed.both::<Arm<12>>(Setup {
        top_level: 3,
        ..arm_4k().without(G1)
    });
    failed.report("armv8", 200);
}

#[test]
fn odd_format() {
    let mut failed = Failed::default();
    failed.both::<OddHw<true, true>>(odd());
    failed.both::<OddHw<true, true>>(odd().with(Features::DMA_INCOHERENT));
    let narrow = (1 << 11) | (1 << 13) | (1 << 18) | (1 << 24) | (1 << 31);
    failed.both::<OddHw<true, true>>(odd().without(narrow));
    failed.report("odd", 2300);
}

/// Some in plain numbers: a map or a split takes that many tables, and each can fail.
#[test]
fn tables_that_can_fail() {
    for features in [Features::default(), Features::DMA_INCOHERENT] {
        let make = || {
            let mut rig = Rig::<Vtd>::new(Setup::plain(3).with(features));
            rig.map_ok(0, 2 * G1, 0, rw());
            rig
        };
        for (va, len, tables) in [
            (M2, M2, 1),
            (K4, K4, 2),
            (K4, 9 * M2, 3),
            (G1 - K4, 2 * K4, 4),
        ] {
            assert_eq!(each_fails(&make, Call::Split, (va, len)), tables);
        }
    }
    let make = || {
        let mut rig = Rig::<OddHw<true, true>>::new(odd());
        rig.map_ok(0, 1 << 37, 0, rw());
        rig
    };
    // On each side: levels 2, 1 and 0, and one for the item of level 2 that is left over.
    let range = ((1 << 36) - (1 << 11), 1 << 12);
    assert_eq!(each_fails(&make, Call::Split, range), 8);
    let make = || {
        let mut rig = Rig::<Amd<false>>::new(amd());
        rig.map_ok(0, 8 * M2, 0, rw());
        rig.map_ok(8 * M2, 16 * K4, 8 * G1 + 8 * M2, rw());
        rig
    };
    // A table on one side, none on the other.
    let range = (8 * M2 - K4, 2 * K4);
    assert_eq!(each_fails(&make, Call::Split, range), 1);
    // Four tops, and a table of each level below.
    let make = || {
        let mut rig = Rig::<Amd<false>>::new(Setup {
            top_level: 1,
            ..amd()
        });
        rig.map_ok(0, M2 + K4, 0, rw());
        rig
    };
    let range = (K4.wrapping_neg(), K4);
    assert_eq!(each_fails(&make, Call::Map(M2), range), 9);
}

// Everything else goes on without memory.
#[test]
fn nothing_else_allocates() {
    fn check<H: Hardware>(setup: Setup) {
        let mut rig = Rig::<H>::new(setup);
        let page = rig.model.rules.page();
        let block = M2.max(1 << (H::GRANULE_LG2 + H::ITEMS_LG2));
        rig.map_ok(0, 2 * block, 0, rw());
        rig.split(page, 2 * page).unwrap();
        rig.arena.fail_at(Some(0));
        // Where nothing crosses, a split needs none.
        assert_eq!(rig.split(page, 2 * page), Ok(0));
        let _ = rig.set_dirty(page);
        rig.read_dirty(0, block, true);
        rig.lookup(page);
        assert_eq!(rig.unmap(page, 2 * page), 2 * page);
        assert_eq!(rig.unmap(3 * page, block), 2 * block - 3 * page);
        assert!(rig.arena.failure_pending());
        rig.arena.fail_at(None);
        rig.finish();
    }
    macro_rules! check_each {
        ($($name:ident: $hw:ty, $usual:ident;)*) => {
            $(check::<$hw>(setups::$usual());)*
        };
    }
    for_each_format!(check_each);
}
