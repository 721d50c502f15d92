// SPDX-License-Identifier: GPL-2.0-only

//! Splits of a leaf that somebody else changes at the same time, which the range lock is there to
//! prevent: the other one's change stays, nothing leaks, and what was replaced is reported.

use crate::arena::{watch, watch_reads, Event, RangeLock, Step, Store, View};
use crate::explore::Free;
use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Root, Vtd, X86};
use crate::model::Cut;
use crate::rig::{still, Rig, Setup};
use crate::size::max_offset;
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86, K4, M2};
use iotable::fmt::{Features, Format};
use iotable::{Bytes, Error, Iova, Level, Replaced};

type Odd = OddHw<true, true>;

/// A table with two leaves of a size side by side, and a hole in them.
struct Case {
    setup: Setup,
    base: u64,
    size_lg2: u32,
    /// Offset and length.
    hole: (u64, u64),
}

impl Case {
    fn rig<H: Hardware>(&self) -> Rig<H> {
        let mut rig = Rig::<H>::new(Setup {
            slots: 32,
            ..self.setup
        });
        rig.map_ok(self.base, 2 << self.size_lg2, 1 << self.size_lg2, rw());
        let sizes = [self.size_lg2; 2];
        assert!(rig.leaves().iter().map(|l| l.bits.size_lg2).eq(sizes));
        rig
    }

    fn hole(&self) -> (u64, u64) {
        (self.base + self.hole.0, self.hole.1)
    }
}

/// Holes at the start of a leaf, in it, and over the end of it, in the leaves of each format: of
/// one item, and contiguous ones whose items become smaller leaves or tables.
fn cases<H: Hardware>(setup: Setup, base: impl Fn(u32) -> u64, sizes: &[u32]) -> Vec<Case> {
    let page = 1 << H::GRANULE_LG2;
    let mut cases = Vec::new();
    for &size_lg2 in sizes {
        let size = 1u64 << size_lg2;
        for hole in [
            (0, page),
            (size / 2, size / 2),
            (size - page, size / 2 + page),
        ] {
            cases.push(Case {
                setup,
                base: base(size_lg2),
                size_lg2,
                hole,
            });
        }
    }
    cases
}

/// `test` with the cases of each format.
macro_rules! each_format {
    ($test:ident) => {
        // Not together one leaf of twice the size.
        let upper = |lg2: u32| (3u64 << lg2).wrapping_neg();
        let lower = |lg2: u32| 1u64 << lg2;
        $test::<Vtd>(cases::<Vtd>(Setup::plain(2), lower, &[21, 30]));
        $test::<X86>(cases::<X86>(x86(), upper, &[21, 30]));
        $test::<Riscv>(cases::<Riscv>(riscv(), upper, &[16, 21, 30]));
        $test::<Amd<false>>(cases::<Amd<false>>(amd(), lower, &[13, 15, 21, 22, 31]));
        $test::<Amd<true>>(cases::<Amd<true>>(mock(), lower, &[12, 14, 20, 21, 30]));
        $test::<Arm<12>>(cases::<Arm<12>>(arm_4k(), lower, &[21, 30]));
        $test::<Arm<14>>(cases::<Arm<14>>(arm_16k(), lower, &[25]));
        $test::<Arm<16>>(cases::<Arm<16>>(arm_64k(), lower, &[29]));
        $test::<Odd>(cases::<Odd>(odd(), upper, &[12, 14, 18, 20, 26, 33]));
    };
}

/// The addresses of the items of a leaf.
fn items<H: Hardware>(rig: &Rig<H>, leaf: &Cut) -> Vec<u64> {
    let rules = &rig.model.rules;
    let item_lg2 = rules.item_lg2(rules.level_of(leaf.size_lg2));
    let first = rig.root().translate(leaf.va).unwrap().item;
    let n = 1 << (leaf.size_lg2 - item_lg2);
    (0..n).map(|i| first + 8 * i).collect()
}

/// The accesses of a split to the items of the leaves that it replaces, from when it has found them
/// on: the number of the step, which leaf, and whether it loses items before that one.
fn accesses<H: Hardware>(case: &Case) -> Vec<(usize, usize, bool)> {
    let rig = case.rig::<H>();
    let (va, len) = case.hole();
    let cuts = rig.model.crossed(va, len).unwrap();
    let leaves: Vec<_> = cuts.iter().map(|cut| items(&rig, cut)).collect();
    let mut found = vec![false; leaves.len()];
    let (mut all, mut step) = (Vec::new(), 0);
    let lock = rig.arena.lock(va, len).unwrap();
    let mut look = |event: Event| {
        let item = |items: &Vec<u64>| items.iter().position(|&item| item == event.at);
        let place = leaves.iter().map(item).enumerate();
        if let Some((leaf, item)) = place.filter_map(|(leaf, item)| Some((leaf, item?))).next() {
            match event.step {
                // Where it is found. It may be what it likes before.
                Step::Read if !found[leaf] => found[leaf] = true,
                Step::Read | Step::Before(Store::Publish) if !found.contains(&false) => {
                    all.push((step, leaf, item != 0));
                }
                _ => {}
            }
        }
        step += 1;
    };
    let flush = watch_reads(&mut look, || rig.pt().split(lock.range())).unwrap();
    assert_eq!(flush.leaves().count(), leaves.len());
    flush.finish().unwrap();
    drop(lock);
    rig.finish();
    assert!(!all.is_empty());
    all
}

/// Splits, while somebody else gives the item that is accessed at a step the value of `change`. It
/// has to stay; everything else translates as before; late dirty bits are carried as ever.
fn changed_at<H: Hardware>(
    case: &Case,
    (at, leaf, behind): (usize, usize, bool),
    change: impl Fn(u64) -> u64,
) {
    let rig = case.rig::<H>();
    let (va, len) = case.hole();
    let cuts = rig.model.crossed(va, len).unwrap();
    let probes = rig.probes(va, len);
    let root = rig.root();
    let first = items(&rig, &cuts[0])[0];
    let lock = rig.arena.lock(va, len).unwrap();
    let (mut step, mut changed) = (0, None);
    let mut flush = None;
    watch_reads(
        &mut |event: Event| {
            if step == at {
                let old = rig.arena.hw_read(event.at, View::Cpu);
                rig.arena.poke(event.at, change(old));
                changed = Some((event.at, old));
            }
            step += 1;
        },
        || flush = Some(rig.pt().split(lock.range()).unwrap()),
    );
    let (item, old) = changed.unwrap();
    assert_eq!(rig.arena.hw_read(item, View::Cpu), change(old), "undone");
    let flush = flush.unwrap();
    let replaced = &cuts[..leaf + usize::from(behind)];
    let reported = replaced.iter().map(|cut| Replaced {
        va: Iova(cut.va),
        size_lg2: cut.size_lg2,
        level: Level(rig.model.rules.level_of(cut.size_lg2)),
    });
    let leaves: Vec<_> = flush.leaves().collect();
    assert!(
        reported.eq(leaves.iter().copied()),
        "{leaves:x?}, not {replaced:x?}"
    );
    let late = !H::PRESET && !replaced.is_empty();
    if late {
        rig.arena.hw_set(first, H::DIRTY);
    }
    assert_eq!(flush.fold_late_dirty(), Err(Error::Raced));
    let now = rig.arena.hw_read(item, View::Cpu);
    assert_eq!(now & !H::DIRTY, change(old) & !H::DIRTY, "undone");
    // As if the other one had never been, to look at all the rest.
    rig.arena.poke(item, old | (now & H::DIRTY));
    still(&root, &probes);
    let reachable = root.reachable(&[View::Cpu]);
    assert_eq!(reachable.len(), rig.arena.in_use(), "tables leaked");
    let dirty = |va: u64| {
        let inside = va.wrapping_sub(cuts[0].va) <= max_offset(cuts[0].size_lg2);
        H::PRESET || (late && inside)
    };
    for (va, hit) in &probes {
        // What was emptied has nothing that could be dirty.
        let hit = hit.and_then(|_| root.translate(*va));
        if let Some(hit) = hit.filter(|hit| hit.item != item) {
            assert_eq!(hit.bits.dirty, dirty(*va), "{va:#x}");
        }
    }
    drop(lock);
    rig.finish();
}

#[test]
fn an_item_that_is_somebody_elses_is_left_alone() {
    fn test<H: Hardware>(cases: Vec<Case>) {
        for case in cases {
            for access in accesses::<H>(&case) {
                changed_at::<H>(&case, access, |_| 0);
                let ignored = H::IGNORED & H::IGNORED.wrapping_neg();
                changed_at::<H>(&case, access, |item| item ^ ignored);
            }
        }
    }
    each_format!(test);
}

// Whichever bit it is, but those of the hardware.
#[test]
fn any_bit_tells_that_an_item_has_changed() {
    fn test<H: Hardware>(cases: Vec<Case>) {
        for case in cases {
            let first = accesses::<H>(&case)[0];
            for bit in (0..64).map(|n| 1u64 << n) {
                if (H::ACCESSED | H::DIRTY) & bit == 0 {
                    changed_at::<H>(&case, first, |item| item ^ bit);
                }
            }
        }
    }
    each_format!(test);
}

/// Splits, and just before the first store somebody else does `other` to a part of the leaf that is
/// not in the range.
fn overtaken<H: Hardware>(case: &Case, other: impl Fn(&Rig<H>, &RangeLock<'_>, (u64, u64))) {
    let rig = case.rig::<H>();
    let page = rig.model.rules.page();
    let (va, len) = case.hole();
    let elsewhere = match case.hole.0 {
        0 => va + max_offset(case.size_lg2) - (page - 1),
        _ => case.base,
    };
    let lock = rig.arena.lock(va, len).unwrap();
    let (mut after, mut flush) = (None, None);
    watch(
        &mut |event: Event| {
            if event.step == Step::Before(Store::Publish) && after.is_none() {
                other(&rig, &lock, (elsewhere, page));
                after = Some(rig.root().scan(View::Cpu));
            }
        },
        || flush = Some(rig.pt().split(lock.range()).unwrap()),
    );
    let flush = flush.unwrap();
    assert!(flush.is_empty());
    assert_eq!(flush.fold_late_dirty(), Err(Error::Raced));
    let (after, now) = (after.unwrap(), rig.root().scan(View::Cpu));
    assert!(
        after.leaves == now.leaves && after.tables == now.tables,
        "undone"
    );
    assert_eq!(now.tables.len(), rig.arena.in_use(), "tables leaked");
    drop(lock);
    rig.finish();
}

#[test]
fn a_faster_split_of_the_same_leaf_stays() {
    fn test<H: Hardware>(cases: Vec<Case>) {
        for case in cases {
            overtaken::<H>(&case, |rig, _, (va, len)| {
                let lock = rig.arena.lock(va, len).unwrap();
                let flush = rig.pt().split(lock.range()).unwrap();
                assert_eq!(flush.leaves().count(), 1);
                assert_eq!(flush.fold_late_dirty(), Ok(()));
                assert_eq!(
                    rig.root().translate(va).unwrap().bits.size_lg2,
                    H::GRANULE_LG2
                );
            });
        }
    }
    each_format!(test);
}

#[test]
fn a_leaf_that_is_gone_does_not_come_back() {
    fn test<H: Hardware>(cases: Vec<Case>) {
        for case in cases {
            overtaken::<H>(&case, |rig, lock, (va, len)| {
                let mut free = Free::new(&rig.arena);
                let rest = rig.arena.lock(va, len).unwrap();
                // From the start of the leaf, which goes as a whole.
                let range = match case.hole.0 {
                    0 => lock.part(case.base, len),
                    _ => rest.range(),
                };
                assert_eq!(rig.pt().unmap(range, &mut free), Bytes(1 << case.size_lg2));
            });
        }
    }
    each_format!(test);
}

// The mark that a table item is in memory is put on that item only.
#[test]
fn the_mark_of_a_clean_item_is_not_put_on_another() {
    let case = Case {
        setup: Setup::plain(2).with(Features::DMA_INCOHERENT),
        base: 0,
        size_lg2: 30,
        hole: (M2, M2),
    };
    let rig = case.rig::<Vtd>();
    let mark = <Vtd as Hardware>::Format::CLEANED;
    let item = rig.root().translate(0).unwrap().item;
    let lock = rig.arena.lock(M2, M2).unwrap();
    let mut stores = 0;
    let mut table = 0;
    let mut look = |event: Event| {
        // First the table item, then its mark.
        if event.at == item && event.step == Step::Before(Store::Publish) {
            stores += 1;
            if stores == 2 {
                table = rig.arena.hw_read(item, View::Cpu);
                rig.arena.poke(item, 0);
            }
        }
    };
    let flush = watch(&mut look, || rig.pt().split(lock.range())).unwrap();
    assert_eq!(flush.finish(), Ok(()));
    assert_ne!(table, 0);
    assert_eq!((rig.arena.hw_read(item, View::Cpu), table & mark), (0, 0));
    // Without it, the item is cleaned by who finds it.
    rig.arena.poke(item, table);
    drop(lock);
    rig.finish();
}

// It may be gone at any moment, and its dirty bits are the concern of whoever made it.
#[test]
fn late_dirty_bits_are_not_carried_into_tables_of_others() {
    type Real = Amd<false>;
    let mut rig = Rig::<Real>::new(Setup { slots: 16, ..amd() });
    rig.map_ok(0, 2 * M2, 0, rw());
    rig.map_ok(4 * M2, K4, 0, rw());
    let root = rig.root();
    let [first, second] = [0, M2].map(|va| root.translate(va).unwrap().item);
    let other = Root::<Real>::item_at(root.table_of(4 * M2, 1, View::Cpu).unwrap(), 1, 4 * M2);
    let table = rig.arena.hw_read(other, View::Cpu) | Real::DIRTY;
    let old = rig.arena.hw_read(second, View::Cpu);
    let lock = rig.arena.lock(K4, K4).unwrap();
    let mut look = |event: Event| {
        if event.at == second && event.step == Step::Before(Store::Publish) {
            rig.arena.poke(second, table);
        }
    };
    let flush = watch(&mut look, || rig.pt().split(lock.range())).unwrap();
    rig.arena.hw_set(first, Real::DIRTY);
    assert_eq!(flush.fold_late_dirty(), Err(Error::Raced));
    assert_eq!(rig.arena.hw_read(second, View::Cpu), table);
    assert!(!root.translate(4 * M2).unwrap().bits.dirty);
    assert!(root.translate(0).unwrap().bits.dirty);
    rig.arena.poke(second, old);
    drop(lock);
    rig.finish();
}
