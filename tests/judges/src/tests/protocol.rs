// SPDX-License-Identifier: GPL-2.0-only

//! Splits, folds, joins and unmaps of random shapes, with hardware in between, are runs of the system
//! that is proved; what is not such a run is seen.

use std::collections::BTreeMap;

use crate::arena::{watch, Arena, Event, RangeLock, Step, Store, View};
use crate::hw::{Amd, Arm, Hardware, Hit, OddHw, Riscv, Root, Vtd, X86};
use crate::protocol::{software_steps, Run};
use crate::rig::{Rig, Setup};
use crate::size::max_offset;
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86, G1, K4, M2};
use iotable::fmt::Features;
use iotable::gather::Gather;
use iotable::range::Locked;
use iotable::{Bytes, Iova, Level, RawTable};

mod join;

type Odd = OddHw<true, true>;

/// What the test does beside the operations, each of it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The old leaf is not flushed.
    NoFlush,
    /// Late dirty bits are not folded.
    NoFold,
    /// A store to a leaf of a group that does not look at what is there.
    NoCompare,
    /// An item of a subtree is written after it was published.
    TooEarly,
    /// A child goes elsewhere.
    Elsewhere,
    /// A store that no operation makes.
    Stray,
    /// A table is freed before the flush.
    FreedEarly,
    /// One of a join.
    Join(join::Wrong),
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Devices that write, each in one of the ways in which hardware may set D.
struct Devices<'a, H> {
    root: Root<'a, H>,
    random: Random,
    /// Where they write.
    at: (u64, u64),
    /// Translations that may be used until they are flushed.
    cached: Vec<(u64, Hit)>,
    written: Vec<u64>,
    steps: BTreeMap<&'static str, usize>,
    often: u64,
}

impl<H: Hardware> Devices<'_, H> {
    /// Takes translations into a cache.
    fn cache(&mut self) {
        for _ in 0..16 {
            let at = self.at.0 + self.random.below(self.at.1);
            self.cached.push((at, self.root.translate(at).unwrap()));
        }
    }

    /// Writes through a translation of any age.
    fn write_blindly(&mut self, index: usize) {
        let (at, hit) = self.cached[index];
        self.root.arena.hw_set(hit.item, H::DIRTY);
        self.written.push(at);
        *self.steps.entry("HwBlind").or_default() += 1;
    }

    fn act(&mut self) {
        if H::PRESET || self.root.arena.incoherent() || self.random.below(self.often) != 0 {
            return;
        }
        let at = self.at.0 + self.random.below(self.at.1);
        match self.random.below(3) {
            // A fresh walk, or what compares and then walks.
            0 => {
                if self.root.access(at, true).is_some() {
                    self.written.push(at);
                    *self.steps.entry("HwCompare").or_default() += 1;
                }
            }
            1 if !self.cached.is_empty() => {
                let index = self.random.below(self.cached.len() as u64) as usize;
                self.write_blindly(index);
            }
            _ => {
                let _ = self.root.access(at, false);
            }
        }
    }
}

#[derive(Default)]
struct Take {
    tables: Vec<RawTable<Arena>>,
    ranges: Vec<(u64, u64)>,
}

impl Gather<Arena> for Take {
    fn table(&mut self, table: RawTable<Arena>, _level: Level) {
        self.tables.push(table);
    }

    fn leaf(&mut self, _level: Level) {}

    fn range(&mut self, Iova(va): Iova, Bytes(len): Bytes) {
        self.ranges.push((va, va + (len - 1)));
    }
}

/// A mapping, and a run of the system that is about it.
struct Scene<'a, H: Hardware> {
    rig: &'a Rig<H>,
    run: Run<'a, H>,
    devices: Devices<'a, H>,
    mistake: Mistake,
}

impl<'a, H: Hardware> Scene<'a, H> {
    fn new(rig: &'a Rig<H>, at: (u64, u64), mut random: Random, mistake: Mistake) -> Self {
        let often = match mistake {
            Mistake::None => [3, 40, 1 << 40][random.below(3) as usize],
            _ => 1 << 40,
        };
        let root = rig.root();
        Scene {
            rig,
            run: Run::new(root),
            devices: Devices {
                root,
                random,
                at,
                cached: Vec::new(),
                written: Vec::new(),
                steps: BTreeMap::new(),
                often,
            },
            mistake,
        }
    }

    /// A split, its flush and its fold.
    fn split(&mut self, range: Locked) {
        let Scene {
            rig,
            run,
            devices,
            mistake,
        } = self;
        let (arena, mistake) = (&rig.arena, *mistake);
        let mut flush = None;
        let mut publishes = 0;
        let mut found = 0;
        watch(
            &mut |event: Event| {
                // A write between any two steps; a store is one step, so not in it.
                if matches!(event.step, Step::Before(Store::Publish) | Step::Free) {
                    devices.act();
                }
                if event.step == Step::Before(Store::Publish) {
                    publishes += 1;
                    sabotage_before(&devices.root, event.at, publishes, mistake);
                    found = arena.hw_read(event.at, View::Cpu);
                }
                if event.step == Step::After(Store::Publish) && mistake == Mistake::NoCompare {
                    let raw = arena.hw_read(event.at, View::Cpu);
                    if raw != found {
                        arena.poke(event.at, raw & !H::DIRTY);
                    }
                }
                run.event(event);
            },
            || flush = Some(rig.pt().split(range).unwrap()),
        );
        let flush = flush.unwrap();
        for leaf in flush.leaves() {
            for _ in 0..4 {
                devices.act();
            }
            if mistake != Mistake::NoFlush {
                run.flush_old(leaf.va.0, leaf.size_lg2);
            }
        }
        if mistake == Mistake::NoFold {
            devices.write_blindly(0);
            assert_eq!(flush.finish(), Ok(()));
        } else {
            // Nothing is late any more.
            let old: Vec<_> = flush.leaves().collect();
            let of = |at: u64, va: u64, size_lg2: u32| at >= va && at - va <= max_offset(size_lg2);
            let gone = |at| old.iter().any(|leaf| of(at, leaf.va.0, leaf.size_lg2));
            devices.cached.retain(|&(at, _)| !gone(at));
            watch(
                &mut |event: Event| {
                    if let Step::Before(_) = event.step {
                        devices.act();
                    }
                    run.event(event);
                },
                || assert_eq!(flush.fold_late_dirty(), Ok(())),
            );
        }
        run.fold_end();
        self.all_shown();
    }

    fn all_shown(&self) {
        for &at in &self.devices.written {
            assert!(self.run.shows(at), "a write at {at:#x} was forgotten");
        }
    }

    /// An unmap, its flush and its frees.
    fn unmap(&mut self, range: Locked) {
        let Scene { rig, run, .. } = self;
        run.forget(range.va().0, range.last().0);
        let mut gather = Take::default();
        watch(&mut |event: Event| run.event(event), || {
            assert_eq!(rig.pt().unmap(range, &mut gather), range.len());
        });
        if self.mistake == Mistake::FreedEarly {
            for table in &gather.tables {
                run.free(table.ptr().as_ptr() as u64);
            }
        }
        for (first, last) in gather.ranges {
            run.flush_hole(first, last);
        }
        for table in gather.tables {
            run.free(table.ptr().as_ptr() as u64);
            rig.arena.free_gathered(table);
        }
    }

    fn end(self) -> BTreeMap<&'static str, usize> {
        let mut taken = self.run.end();
        taken.extend(self.devices.steps);
        taken
    }
}

/// A part of `len` bytes from `va` on, with edges at any page, and often at a rounder place.
fn part<H: Hardware>(random: &mut Random, (va, len): (u64, u64), size: u64) -> (u64, u64) {
    let page = 1u64 << H::GRANULE_LG2;
    let mut edge = || {
        let at = random.below(len / page) * page;
        let round = random.below(1 + u64::from(size.trailing_zeros() - H::GRANULE_LG2));
        at & !max_offset(H::GRANULE_LG2 + round as u32)
    };
    let (a, b) = (edge(), edge());
    let (first, end) = (a.min(b), a.max(b));
    (va + first, if end == first { page } else { end - first })
}

/// Maps `size` bytes at `va`, does `what` to them under their lock, and returns the steps that were
/// taken.
fn run_scene<H: Hardware>(
    setup: Setup,
    (va, size): (u64, u64),
    seed: u64,
    mistake: Mistake,
    what: impl FnOnce(&mut Scene<'_, H>, &RangeLock<'_>),
) -> BTreeMap<&'static str, usize> {
    let mut rig = Rig::<H>::new(Setup { slots: 64, ..setup });
    rig.map_ok(va, size, 0, rw());
    let mut scene = Scene::new(&rig, (va, size), Random(seed | 1), mistake);
    let lock = rig.arena.lock(va, size).unwrap();
    what(&mut scene, &lock);
    let taken = scene.end();
    drop(lock);
    rig.finish();
    taken
}

/// A mapping of `size` bytes at `va`, a hole in it, and the way from the one to the other, perhaps
/// with a way back in between.
fn follow<H: Hardware>(
    setup: Setup,
    (va, size): (u64, u64),
    hole: (u64, u64),
    seed: u64,
    mistake: Mistake,
) -> BTreeMap<&'static str, usize> {
    run_scene::<H>(setup, (va, size), seed, mistake, |scene, lock| {
        // Half of the leaves that are split are clean when it begins.
        let writes = scene.devices.random.below(2) == 0;
        scene.devices.cache();
        if writes {
            for _ in 0..16 {
                scene.devices.act();
            }
        }

        let mut range = lock.part(hole.0, hole.1);
        scene.split(range);
        if mistake == Mistake::None {
            for _ in 0..scene.devices.random.below(3) {
                let devices = &mut scene.devices;
                devices.cache();
                let random = &mut devices.random;
                let (first, len) = match random.below(2) {
                    0 => (va, size),
                    _ => part::<H>(random, (va, size), size),
                };
                scene.join(lock.part(first, len));
                if scene.devices.random.below(3) != 0 {
                    let (first, len) = part::<H>(&mut scene.devices.random, (va, size), size);
                    range = lock.part(first, len);
                    scene.split(range);
                }
            }
        }
        // What is unmapped is no part of a leaf.
        let all = mistake == Mistake::FreedEarly || scene.devices.random.below(2) == 0;
        scene.split(range);
        scene.unmap(if all { lock.range() } else { range });
    })
}

fn sabotage_before<H: Hardware>(root: &Root<'_, H>, at: u64, publishes: usize, mistake: Mistake) {
    if publishes != 1 {
        return;
    }
    match mistake {
        Mistake::NoCompare => root.arena.hw_set(at, H::DIRTY),
        Mistake::TooEarly | Mistake::Elsewhere => {
            // Slots are given out in order: the one behind the live tables is the subtree's first.
            let tables = root.scan(View::Cpu).tables;
            let child = tables.iter().map(|at| at.addr).max().unwrap() + 4096;
            let item = child + 8 * 3;
            let other = root.arena.hw_read(child + 8 * 5, View::Cpu);
            let item_is = if mistake == Mistake::TooEarly {
                0
            } else {
                other
            };
            root.arena.poke(item, item_is);
        }
        Mistake::Stray => {
            let item = root.translate(0).map_or(at, |hit| hit.item);
            let raw = root.arena.hw_read(item, View::Cpu);
            root.arena.poke(item, raw ^ H::IGNORED);
        }
        _ => {}
    }
}

/// Random shapes in one kind of table: `sizes` are those of the leaves that are worth a split.
fn shapes<H: Hardware>(
    setup: Setup,
    base: u64,
    sizes: &[u32],
    runs: u64,
) -> BTreeMap<&'static str, usize> {
    let mut all = BTreeMap::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in 0..runs {
        let size = 1u64 << sizes[random.below(sizes.len() as u64) as usize];
        let leaves = 1 + random.below(2);
        let (va, len) = (base + size, leaves * size);
        let hole = part::<H>(&mut random, (va, len), size);
        for (step, n) in follow::<H>(setup, (va, len), hole, seed, Mistake::None) {
            *all.entry(step).or_default() += n;
        }
    }
    all
}

/// Every step of software but those in `except` was seen.
fn all_seen(taken: &BTreeMap<&'static str, usize>, except: &[&str]) {
    let steps = software_steps();
    assert!(steps.len() >= 10);
    for step in &steps {
        assert!(
            except.contains(step) || taken.contains_key(step),
            "no {step} in {taken:?}"
        );
    }
    for step in taken.keys() {
        assert!(
            steps.contains(step) || step.starts_with("Hw"),
            "{step} is not in the list"
        );
    }
}

const RUNS: u64 = 100;
const NOT_TRACKED: &[&str] = &["FoldLook", "FoldMark", "FoldClean"];
const NO_GROUPS: &[&str] = &["Demote", "Promote", "FoldLook", "FoldMark", "FoldClean"];

#[test]
fn vtdss_is_a_run() {
    let setup = Setup::plain(2);
    let taken = shapes::<Vtd>(setup, 0, &[21, 30], RUNS);
    all_seen(&taken, &["Demote", "Promote"]);
    // Hardware that does not snoop sets no D.
    let setup = setup.with(Features::DMA_INCOHERENT);
    let mut tables = 0;
    for (va, len) in [(G1 + M2, M2), (G1 + K4, K4), (2 * G1 - K4, 2 * K4)] {
        let hole = (va, len);
        tables += follow::<Vtd>(setup, (G1, 2 * G1), hole, 7, Mistake::None)["Subdivide"];
    }
    assert!(tables >= 4);
}

#[test]
fn amdv1_is_a_run() {
    let taken = shapes::<Amd<false>>(amd(), 0, &[14, 16, 20, 21, 22, 25, 30, 31], RUNS);
    all_seen(&taken, &[]);
    let taken = shapes::<Amd<true>>(mock(), 0, &[13, 15, 19, 20, 21, 24, 29], RUNS);
    all_seen(&taken, &[]);
}

#[test]
fn odd_is_a_run() {
    let taken = shapes::<Odd>(odd(), 1 << 37, &[12, 14, 17, 20, 23, 26], RUNS);
    all_seen(&taken, &[]);
}

#[test]
fn formats_without_dirty_tracking_are_runs() {
    let taken = shapes::<Riscv>(riscv(), 0, &[16, 21, 30], RUNS);
    all_seen(&taken, NOT_TRACKED);
    let taken = shapes::<X86>(x86(), 0, &[21, 30], RUNS);
    all_seen(&taken, NO_GROUPS);
}

#[test]
fn armv8_is_a_run() {
    let taken = shapes::<Arm<12>>(arm_4k(), 0, &[21, 30], RUNS);
    all_seen(&taken, NO_GROUPS);
    // With two levels there is no table that a hole could have as a whole.
    let no_tables: Vec<&str> = NO_GROUPS
        .iter()
        .copied()
        .chain(["Unlink", "FlushTable"])
        .collect();
    let taken = shapes::<Arm<14>>(arm_16k(), 0, &[25], RUNS / 4);
    all_seen(&taken, &no_tables);
    let taken = shapes::<Arm<16>>(arm_64k(), 0, &[29], RUNS / 8);
    all_seen(&taken, &no_tables);
}

fn mistake(mistake: Mistake) {
    // A group of four: items that become tables and leaves.
    let hole = (8 * M2 + M2 + K4, 2 * M2);
    follow::<Amd<false>>(amd(), (8 * M2, 4 * M2), hole, 7, mistake);
}

#[test]
fn without_a_mistake_it_is_a_run() {
    mistake(Mistake::None);
}

#[test]
#[should_panic(expected = "was not flushed")]
fn a_flush_that_is_left_out_is_seen() {
    mistake(Mistake::NoFlush);
}

#[test]
#[should_panic(expected = "FoldEnd: D may be meant for")]
fn a_fold_that_is_left_out_is_seen() {
    mistake(Mistake::NoFold);
}

#[test]
#[should_panic(expected = "Demote: D is dropped")]
fn a_store_that_does_not_compare_is_seen() {
    // All items of the group become smaller leaves.
    let hole = (4 * K4 + K4, 2 * K4);
    follow::<Amd<false>>(amd(), (4 * K4, 4 * K4), hole, 7, Mistake::NoCompare);
}

#[test]
#[should_panic(expected = "below is empty")]
fn a_subtree_that_is_published_too_early_is_seen() {
    follow::<Vtd>(
        Setup::plain(2),
        (G1, G1),
        (G1 + M2, M2),
        7,
        Mistake::TooEarly,
    );
}

#[test]
#[should_panic(expected = "Subdivide: Leaf")]
fn a_child_that_goes_elsewhere_is_seen() {
    follow::<Vtd>(
        Setup::plain(2),
        (G1, G1),
        (G1 + M2, M2),
        7,
        Mistake::Elsewhere,
    );
}

#[test]
#[should_panic(expected = "a store that is no step")]
fn a_store_of_nobody_is_seen() {
    follow::<Vtd>(
        Setup::plain(2),
        (0, 2 * G1),
        (G1 + M2, M2),
        7,
        Mistake::Stray,
    );
}

#[test]
#[should_panic(expected = "which is Gone")]
fn a_table_that_is_freed_too_early_is_seen() {
    follow::<Vtd>(
        Setup::plain(2),
        (G1, G1),
        (G1 + K4, 4 * M2),
        7,
        Mistake::FreedEarly,
    );
}
