// SPDX-License-Identifier: GPL-2.0-only

//! Splits under an adversary: hardware that walks, and sets A and D, between any two stores.

use crate::arena::{watch, Event, Step, Store, View};
use crate::hw::{Amd, Arm, Entry, Hardware, Hit, OddHw, Riscv, Vtd, X86};
use crate::rig::{still, Rig, Setup};
use crate::tests::{amd, arm_16k, arm_4k, mock, odd, riscv, rw, x86, G1, K4, M2};
use iotable::fmt::Features;
use iotable::{Bytes, DirtySink, Iova, Result, SplitFlush};

type Odd = OddHw<true, true>;

/// A hole to be cut.
#[derive(Clone, Copy, Debug)]
struct Hole {
    va: u64,
    len: u64,
}

/// Splits without the checks of the rig, with `look` called at every step.
fn split<H: Hardware>(rig: &Rig<H>, hole: Hole, mut look: impl FnMut(usize, Event)) -> usize {
    let mut step = 0;
    let mut hook = |event: Event| {
        look(step, event);
        step += 1;
    };
    let lock = rig.arena.lock(hole.va, hole.len).unwrap();
    let result = watch(&mut hook, || rig.pt().split(lock.range()));
    assert_eq!(result.and_then(SplitFlush::finish), Ok(()));
    step
}

/// The leaf around `va`, as first address and size.
fn leaf_around(hit: &Hit, va: u64) -> (u64, u64) {
    let size = 1 << hit.bits.size_lg2;
    (va & !(size - 1), size)
}

// After every single store, each class of address translates as before; memory that is not linked
// yet is the only one that plain stores go to.
fn disturbs_nobody<H: Hardware>(rig: &mut Rig<H>, hole: Hole) {
    let probes = rig.probes(hole.va, hole.len);
    let views: &[View] = &[View::Cpu, View::Memory];
    let root = rig.root();
    let table_mask = !((8u64 << H::ITEMS_LG2) - 1);
    split(rig, hole, |_, event| match event.step {
        Step::Before(Store::Init) => {
            let reachable = root.reachable(views);
            assert!(
                !reachable.contains(&(event.at & table_mask)),
                "a plain store to a live table"
            );
        }
        Step::Before(Store::Set) => panic!("a split publishes"),
        Step::Free => {
            assert!(
                !root.reachable(views).contains(&event.at),
                "freed while reachable"
            );
        }
        Step::After(_) | Step::Cleaned => still(&root, &probes),
        _ => {}
    });
    rig.model.split(hole.va, hole.len);
    rig.check();
}

#[test]
fn no_address_is_disturbed_after_any_store() {
    for features in [Features::default(), Features::DMA_INCOHERENT] {
        for (va, len) in [
            (G1 + M2, M2),
            (G1 + 5 * M2 + K4, K4),
            (G1 + 5 * M2 + K4, 7 * M2),
            (2 * G1 - K4, 2 * K4),
            (2 * G1 - M2, M2 + 3 * K4),
        ] {
            let mut rig = Rig::<Vtd>::new(Setup::plain(2).with(features));
            rig.map_ok(G1, 2 * G1, 0, rw());
            disturbs_nobody(&mut rig, Hole { va, len });
            rig.finish();
        }
        for size_lg2 in [13, 17, 18, 21, 26, 31, 33, 37] {
            let size = 1u64 << size_lg2;
            for (from, to) in [
                (0, 1 << 11),
                (1 << 11, size / 2),
                (size / 2, size - (1 << 11)),
            ] {
                let base = (size * 2).wrapping_neg();
                let mut rig = Rig::<Odd>::new(odd().with(features));
                rig.map_ok(base, size, size, rw());
                let hole = Hole {
                    va: base + from,
                    len: to - from,
                };
                disturbs_nobody(&mut rig, hole);
                rig.finish();
            }
        }
    }
}

/// Cuts a leaf of `2^size_lg2` bytes: at its start, up to its middle, behind it up to the end.
fn disturbs_nobody_in<H: Hardware>(setup: Setup, base: u64, size_lg2: u32) {
    let (size, page) = (1u64 << size_lg2, 1 << H::GRANULE_LG2);
    let holes = [(0, page), (page, size / 2), (size / 2, size - page)];
    for (from, to) in holes.into_iter().filter(|(from, to)| from < to) {
        let mut rig = Rig::<H>::new(setup);
        rig.map_ok(base, size, size, rw());
        assert_eq!(rig.model.count(), 1);
        let hole = Hole {
            va: base + from,
            len: to - from,
        };
        disturbs_nobody(&mut rig, hole);
        rig.finish();
    }
}

#[test]
fn no_address_is_disturbed_in_any_format() {
    for size_lg2 in [21, 30] {
        let base = (2u64 << size_lg2).wrapping_neg();
        for setup in [x86(), x86().with(Features::DMA_INCOHERENT)] {
            disturbs_nobody_in::<X86>(setup, base, size_lg2);
        }
    }
    for size_lg2 in [16, 21, 30] {
        let base = (2u64 << size_lg2).wrapping_neg();
        disturbs_nobody_in::<Riscv>(riscv(), base, size_lg2);
    }
    for size_lg2 in [21, 30] {
        for features in [Features::default(), Features::DMA_INCOHERENT] {
            disturbs_nobody_in::<Arm<12>>(arm_4k().with(features), 4 << 30, size_lg2);
        }
    }
    // All of a table is looked at before each store: not for 64K, whose tables have 8192 items.
    disturbs_nobody_in::<Arm<14>>(arm_16k(), 1 << 47, 25);
    for size_lg2 in [13, 14, 16, 20, 21, 23, 29, 30, 31, 38, 40, 45] {
        disturbs_nobody_in::<Amd<false>>(amd(), 0, size_lg2);
        let base = 1 << 55;
        disturbs_nobody_in::<Amd<true>>(mock(), base, size_lg2);
    }
}

/// What the hardware does at one step.
#[derive(Clone, Copy, Debug)]
struct Touch {
    step: usize,
    va: u64,
    write: bool,
}

/// Splits while hardware does `touches`. Checks that no D is lost, and that none appears on a page
/// that no touched leaf held.
fn touched<H: Hardware>(rig: Rig<H>, hole: Hole, touches: &[Touch]) {
    let root = rig.root();
    let probes: Vec<_> = touches
        .iter()
        .map(|t| (t.va, root.translate(t.va)))
        .collect();
    let old: Vec<_> = probes
        .iter()
        .map(|(va, hit)| leaf_around(&hit.unwrap(), *va))
        .collect();
    let mut hits = Vec::new();
    split(&rig, hole, |step, event| {
        for touch in touches.iter().filter(|touch| touch.step == step) {
            root.access_tables(touch.va);
            let hit = root.access(touch.va, touch.write).expect("still mapped");
            hits.push((leaf_around(&hit, touch.va), hit.item, *touch));
        }
        if event.step == Step::After(Store::Publish) {
            still(&root, &probes);
        }
    });
    assert_eq!(hits.len(), touches.len(), "every touch happened");
    for leaf in rig.leaves() {
        let (first, size) = (leaf.va, 1u64 << leaf.bits.size_lg2);
        let inside = |va: u64| va.wrapping_sub(first) < size;
        let within = |(start, len): (u64, u64)| first.wrapping_sub(start) < len;
        let writes = || hits.iter().filter(|(.., touch)| touch.write);
        if writes().any(|(.., touch)| inside(touch.va)) {
            assert!(leaf.bits.dirty, "D was lost: {leaf:x?} {touches:x?}");
        }
        if hits.iter().any(|(.., touch)| inside(touch.va)) {
            assert!(leaf.bits.accessed, "A was lost: {leaf:x?} {touches:x?}");
        }
        if !writes().any(|(.., touch)| old.iter().any(|&o| within(o) && in_leaf(o, touch.va))) {
            assert!(!leaf.bits.dirty, "D came from nowhere: {leaf:x?}");
        }
        // A leaf of one item: all that the hardware may have written through it is dirty, and
        // nothing more.
        let items = |size: u64| size >> rig.model.rules.item_lg2(level_of(&rig, size));
        if old.iter().any(|&o| within(o) && items(o.1) == 1) {
            let want = writes().any(|&(leaf, ..)| within(leaf));
            assert_eq!(leaf.bits.dirty, want, "{leaf:x?} {hits:x?}");
        }
    }
    rig.finish();
}

fn in_leaf((start, len): (u64, u64), va: u64) -> bool {
    va.wrapping_sub(start) < len
}

fn level_of<H: Hardware>(rig: &Rig<H>, size: u64) -> u8 {
    rig.model.rules.level_of(size.trailing_zeros())
}

/// One touch at every step of the split, read or write, at each of `targets`; then pairs of touches
/// just before two compare-exchanges.
fn touched_everywhere<H: Hardware>(make: impl Fn() -> Rig<H>, hole: Hole, targets: &[u64]) {
    touched_at(make, hole, targets, 1);
}

/// As [`touched_everywhere`], but far from a compare-exchange only at every `stride`-th step.
fn touched_at<H: Hardware>(make: impl Fn() -> Rig<H>, hole: Hole, targets: &[u64], stride: usize) {
    let rig = make();
    let mut publishes = Vec::new();
    let steps = split(&rig, hole, |step, event| {
        if event.step == Step::Before(Store::Publish) {
            publishes.push(step);
        }
    });
    rig.finish();
    assert!(!publishes.is_empty());
    for &va in targets {
        let near = |step: usize| publishes.iter().any(|&at| step.abs_diff(at) <= 2);
        for step in (0..steps).filter(|&step| step % stride == 0 || near(step)) {
            for write in [false, true] {
                touched(make(), hole, &[Touch { step, va, write }]);
            }
        }
    }
    // The first makes the compare-exchange fail; the others come before its retry.
    let (a, b) = (targets[0], targets[targets.len() - 1]);
    for &step in &publishes {
        // Distance from one attempt to the next.
        let rig = make();
        let mut next = None;
        let root = rig.root();
        split(&rig, hole, |now, event| {
            if now == step {
                let _ = root.access(a, false);
            } else if now > step && event.step == Step::Before(Store::Publish) {
                next.get_or_insert(now);
            }
        });
        rig.finish();
        let Some(next) = next else { continue };
        let touch = |step, va, write| Touch { step, va, write };
        for (first, second) in [(false, true), (true, false), (true, true)] {
            touched(
                make(),
                hole,
                &[touch(step, a, first), touch(next, a, second)],
            );
            touched(
                make(),
                hole,
                &[touch(step, a, first), touch(next, b, second)],
            );
        }
    }
}

#[test]
fn no_dirty_bit_is_lost_at_any_step() {
    let make = || {
        let mut rig = Rig::<Vtd>::new(Setup {
            slots: 16,
            ..Setup::plain(2)
        });
        rig.map_ok(G1, 2 * G1, 0, rw());
        rig
    };
    let hole = |va, len| Hole { va, len };
    touched_everywhere(make, hole(G1 + M2, M2), &[G1 + M2, 2 * G1 - 1]);
    touched_everywhere(make, hole(G1 + K4, K4), &[G1 + K4, G1 + 2 * M2]);
    // Both edges, in leaves of their own.
    touched_everywhere(make, hole(2 * G1 - M2, 2 * M2), &[G1, 2 * G1]);
}

#[test]
fn no_dirty_bit_is_lost_in_contiguous_leaves() {
    let hole = |va, len| Hole { va, len };
    let page = 1 << 11;
    for (size_lg2, va, len, targets) in [
        (12, 0, page, [0, page]),
        (14, page, page, [0, 5 * page]),
        (17, 8 * page, 16 * page, [8 * page, 63 * page]),
        (20, 1 << 18, 1 << 18, [1 << 18, 1 << 19]),
        (20, page, page, [page, 1 << 19]),
        (26, 1 << 25, page, [1 << 25, 0]),
    ] {
        let make = || {
            let mut rig = Rig::<Odd>::new(Setup { slots: 16, ..odd() });
            rig.map_ok(1 << 37, 1 << size_lg2, 0, rw());
            rig
        };
        let targets = targets.map(|at| (1 << 37) + at);
        touched_everywhere(make, hole((1 << 37) + va, len), &targets);
    }
}

// What is known of the group counts when an exchange is repeated, not only what the item says.
#[test]
fn dirty_bits_of_a_group_survive_an_exchange_that_fails() {
    fn check<H: Hardware>(setup: Setup, size: u64, items: u64, hole: Hole) {
        let item = |rig: &Rig<H>, n: u64| rig.root().translate(n * (size / items)).unwrap().item;
        for dirty in 0..items {
            for accessed in (0..items).filter(|&accessed| accessed != dirty) {
                let mut rig = Rig::<H>::new(Setup { slots: 16, ..setup });
                rig.map_ok(0, size, 0, rw());
                assert_eq!(rig.model.count(), 1);
                rig.arena.hw_set(item(&rig, dirty), H::DIRTY);
                let accessed = item(&rig, accessed);
                split(&rig, hole, |_, event| {
                    if event.at == accessed && event.step == Step::Before(Store::Publish) {
                        rig.arena.hw_set(accessed, H::ACCESSED);
                    }
                });
                assert!(
                    rig.leaves().iter().all(|leaf| leaf.bits.dirty),
                    "D was lost"
                );
                // Of each item by itself, too.
                for page in (0..size).step_by(1 << H::GRANULE_LG2) {
                    assert!(rig.root().translate(page).unwrap().bits.dirty, "{page:#x}");
                }
                rig.finish();
            }
        }
    }
    let hole = |va, len| Hole { va, len };
    let page = 1 << 11;
    // Items that become tables, smaller leaves, or some of each.
    check::<Amd<false>>(amd(), 2 * M2, 2, hole(K4, K4));
    check::<Amd<false>>(amd(), 4 * M2, 4, hole(M2 + K4, 2 * M2));
    check::<Amd<false>>(amd(), 4 * K4, 4, hole(K4, K4));
    check::<Amd<true>>(mock(), 2 << 20, 2, hole(page, page));
    check::<Odd>(odd(), 4 << 18, 4, hole((1 << 18) + page, 1 << 18));
    check::<Odd>(odd(), 8 * page, 8, hole(2 * page, 3 * page));
}

/// Splits `hole` while hardware that cached the leaf around `va` before sets D at step `at` in the
/// item that it read then, whatever is there now. A write anywhere in the old leaf may be meant, so
/// all of it must be dirty in the end, and nothing else. After the last step comes the flush, and
/// nothing is late any more; if `busy`, devices go on to read through the new leaves.
fn written_late<H: Hardware>(rig: Rig<H>, hole: Hole, va: u64, at: usize, busy: bool) {
    let root = rig.root();
    let probes = rig.probes(hole.va, hole.len);
    let hit = root.translate(va).unwrap();
    let (start, size) = leaf_around(&hit, va);
    let lock = rig.arena.lock(hole.va, hole.len).unwrap();
    let mut steps = 0;
    let mut flush = None;
    watch(
        &mut |_| {
            if steps == at {
                rig.arena.hw_set(hit.item, H::DIRTY);
            }
            steps += 1;
        },
        || flush = Some(rig.pt().split(lock.range()).unwrap()),
    );
    if at >= steps {
        rig.arena.hw_set(hit.item, H::DIRTY);
    }
    watch(
        &mut |event| match event.step {
            // The compare-exchange fails, once.
            Step::Before(Store::Publish) if busy => rig.arena.hw_set(event.at, H::ACCESSED),
            Step::After(Store::Publish) => still(&root, &probes),
            _ => {}
        },
        || assert_eq!(flush.unwrap().fold_late_dirty(), Ok(())),
    );
    for leaf in rig.leaves() {
        let inside = leaf.va.wrapping_sub(start) < size;
        assert_eq!(leaf.bits.dirty, inside, "step {at} of {steps}: {leaf:x?}");
    }
    for table in root.scan(View::Cpu).tables {
        for item in (table.addr..table.addr + (8 << H::ITEMS_LG2)).step_by(8) {
            let raw = rig.arena.hw_read(item, View::Cpu);
            let is_table = matches!(rig.hw.decode(raw, table.level), Entry::Table { .. });
            assert!(!is_table || raw & H::DIRTY == 0, "D stays in a table item");
        }
    }
    drop(lock);
    rig.finish();
}

/// One late D at every step near a compare-exchange and some others, in the items of `targets`.
fn written_late_everywhere<H: Hardware>(make: impl Fn() -> Rig<H>, hole: Hole, targets: &[u64]) {
    let rig = make();
    let mut near = Vec::new();
    let steps = split(&rig, hole, |step, event| {
        if event.step == Step::Before(Store::Publish) {
            near.extend([step.wrapping_sub(1), step, step + 1, step + 2]);
        }
    });
    rig.finish();
    near.extend((0..steps).step_by(97));
    near.push(steps);
    for &va in targets {
        for &at in &near {
            for busy in [false, true] {
                written_late(make(), hole, va, at, busy);
            }
        }
    }
}

#[test]
fn no_late_dirty_bit_is_lost() {
    let hole = |va, len| Hole { va, len };
    let few = |setup| Setup { slots: 16, ..setup };
    let vtd = || {
        let mut rig = Rig::<Vtd>::new(few(Setup::plain(2)));
        rig.map_ok(G1, 2 * G1, 0, rw());
        rig
    };
    written_late_everywhere(vtd, hole(G1 + M2, M2), &[G1 + M2]);
    written_late_everywhere(vtd, hole(G1 + K4, K4), &[G1]);
    written_late_everywhere(vtd, hole(2 * G1 - M2, 2 * M2), &[G1, 2 * G1]);
    // Any item of a group may be the one that was read.
    for (size, va, len, targets) in [
        (4 * K4, K4, K4, [K4, 0]),
        (16 * K4, 4 * K4, 2 * K4, [4 * K4, 15 * K4]),
        (4 * M2, M2, 2 * M2, [M2, 3 * M2]),
        (4 * M2, M2 + K4, K4, [M2, 0]),
        (2 * M2, K4, K4, [0, M2]),
        (M2, K4, K4, [0, K4]),
    ] {
        let make = || {
            let mut rig = Rig::<Amd<false>>::new(few(amd()));
            rig.map_ok(0, size, 0, rw());
            rig.map_ok(1 << 40, K4, 0, rw());
            rig
        };
        written_late_everywhere(make, hole(va, len), &targets);
    }
}

/// Clears what Linux sets in new leaves, so that the hardware has something to say.
fn unset<H: Hardware>(rig: &Rig<H>) {
    let root = rig.root();
    let items = 8 << H::ITEMS_LG2;
    for at in root.scan(View::Cpu).tables {
        for item in (at.addr..at.addr + items).step_by(8) {
            let raw = rig.arena.hw_read(item, View::Cpu);
            if let Entry::Leaf(_) = rig.hw.decode(raw, at.level) {
                rig.arena.poke(item, raw & !(H::ACCESSED | H::DIRTY));
            }
        }
    }
}

#[test]
fn no_dirty_bit_is_lost_in_any_format() {
    let hole = |va, len| Hole { va, len };
    let few = |setup| Setup { slots: 16, ..setup };
    // Groups, and groups of items that hold tables when it is over.
    for (size, va, len, targets, stride) in [
        (4 * K4, K4, K4, [K4, 0], 1),
        (16 * K4, 4 * K4, 2 * K4, [4 * K4, 15 * K4], 1),
        (4 * M2, M2, 2 * M2, [M2, 3 * M2], 1),
        (2 * M2, K4, K4, [K4, 2 * M2 - 1], 61),
        (M2, K4, K4, [K4, M2 - 1], 61),
        (2 << 39, 1 << 39, 1 << 39, [0, 1 << 39], 61),
    ] {
        let make = || {
            let mut rig = Rig::<Amd<false>>::new(few(amd()));
            rig.map_ok(0, size, 0, rw());
            rig
        };
        touched_at(make, hole(va, len), &targets, stride);
    }
    for (size, va, len, targets) in [
        (16 * K4, 3 * K4, K4, [3 * K4, 15 * K4]),
        (M2, 5 * K4, K4, [5 * K4, M2 - 1]),
    ] {
        let base = size.wrapping_neg();
        let targets = targets.map(|at| base + at);
        let make = || {
            let mut rig = Rig::<Riscv>::new(few(riscv()));
            rig.map_ok(base, size, 0, rw());
            unset(&rig);
            rig
        };
        touched_at(make, hole(base + va, len), &targets, 61);
    }
    let make = || {
        let mut rig = Rig::<X86>::new(few(x86()));
        rig.map_ok(G1, G1, 0, rw());
        unset(&rig);
        rig
    };
    touched_at(make, hole(G1 + M2, M2), &[G1 + M2, 2 * G1 - 1], 61);
    touched_at(make, hole(G1 + K4, K4), &[G1 + K4, G1 + 2 * M2], 127);
}

// Before the publishing store, all that it makes reachable is in memory; after the call, so is the
// item itself.
#[test]
fn an_incoherent_walker_finds_a_clean_subtree() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(3).with(Features::DMA_INCOHERENT));
    rig.map_ok(G1, 2 * G1, 0, rw());
    let hole = Hole {
        va: 2 * G1 - K4,
        len: 2 * K4,
    };
    let hw = rig.hw;
    let arena = &rig.arena;
    let items = |table: u64| (0..512u64).map(move |i| table + 8 * i);
    let mut published = 0;
    split(&rig, hole, |_, event| {
        if event.step != Step::After(Store::Publish) {
            return;
        }
        // Level 2 is where 1G leaves were.
        let item = arena.hw_read(event.at, View::Cpu);
        let Entry::Table { addr, .. } = hw.decode(item, 2) else {
            panic!("not a table item: {item:#x}");
        };
        published += 1;
        for at in items(addr) {
            let item = arena.hw_read(at, View::Memory);
            assert_eq!(item, arena.hw_read(at, View::Cpu), "not cleaned: {at:#x}");
            if let Entry::Table { addr, .. } = hw.decode(item, 1) {
                assert_ne!(item & (1 << 10), 0, "not marked as cleaned");
                for at in items(addr) {
                    assert_eq!(
                        arena.hw_read(at, View::Memory),
                        arena.hw_read(at, View::Cpu)
                    );
                }
            }
        }
    });
    // Each is published, and marked as clean after.
    assert_eq!(published, 4);
    rig.model.split(hole.va, hole.len);
    rig.check();
    rig.finish();
}

// Clearing D is an exchange too: an access that hardware notes at the same time is not forgotten.
#[test]
fn reading_dirty_keeps_what_is_set_meanwhile() {
    struct Found(u64);
    impl DirtySink for Found {
        fn dirty(&mut self, _va: Iova, Bytes(len): Bytes) -> Result {
            self.0 += len;
            Ok(())
        }

        fn cleared(&mut self, _va: Iova, _len: Bytes) {}
    }
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(G1, G1, 0, rw());
    let item = rig.root().translate(G1).unwrap().item;
    rig.arena.hw_set(item, Vtd::DIRTY);
    let bits = || rig.arena.hw_read(item, View::Cpu) & (Vtd::ACCESSED | Vtd::DIRTY);
    assert_eq!(bits(), Vtd::DIRTY);
    let lock = rig.arena.lock(G1, G1).unwrap();
    let mut found = Found(0);
    watch(
        &mut |event| {
            if let Step::Before(_) = event.step {
                rig.arena.hw_set(event.at, Vtd::ACCESSED);
            }
        },
        || rig.pt().read_dirty(lock.range(), true, &mut found).unwrap(),
    );
    assert_eq!((found.0, bits()), (G1, Vtd::ACCESSED));
    drop(lock);
    rig.finish();
}
