// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tracker against a model of pages, on a kernel any ioctl of which can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::result::Result;
use std::sync::Arc;

use iommufd_bindings::iommufd::iommu_ioas_unmap;
use proptest::prelude::*;

use super::*;
use crate::ioctls::{page_size, Ioctls};
use crate::model::{Kernel, Knows};

/// Guest memory: (first page, pages, first page in its file). The first two touch, and are not one.
const REGIONS: [(u64, u64, u64); 3] = [(8, 16, 0), (24, 16, 100), (48, 16, 7 * 8)];
const PAGES: u64 = 72;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    Pieces,
    Pairs,
}

#[derive(Debug, Clone)]
enum Op {
    AddRegion(usize),
    RemoveRegion(usize),
    Share(u64, u64),
    Private(u64, u64),
    Prepare(u64, u64),
    AddIoas(u32, Kind),
    RemoveIoas(u32),
    ForgetIoas(u32),
}

/// What the tests know of what should be so.
struct World {
    kernel: Arc<Kernel>,
    tracker: Tracker,
    file: Arc<File>,
    regions: BTreeSet<usize>,
    shared: BTreeSet<u64>,
    ioases: BTreeMap<u32, Kind>,
}

type Pages = BTreeMap<u64, u64>;

impl World {
    fn new(knows: Knows) -> Self {
        Self {
            kernel: Kernel::new(knows),
            tracker: Tracker::new(),
            file: Arc::new(File::open("/dev/null").unwrap()),
            regions: BTreeSet::new(),
            shared: BTreeSet::new(),
            ioases: BTreeMap::new(),
        }
    }

    fn all_pages(&self) -> BTreeMap<u32, Pages> {
        let ids = self.ioases.keys();
        ids.map(|&id| (id, self.kernel.pages(id))).collect()
    }

    /// Whether the pages are all guest memory, in units that every IOAS has.
    fn is_memory(&self, first: u64, count: u64) -> bool {
        let unit = match self.ioases.values().any(|k| *k == Kind::Pairs) {
            true => 2,
            false => 1,
        };
        let units = first.is_multiple_of(unit) && count.is_multiple_of(unit);
        let in_region = |page: u64| {
            let mut regions = self.regions.iter().map(|&r| REGIONS[r]);
            regions.any(|(at, n, _)| (at..at + n).contains(&page))
        };
        count > 0 && units && (first..first + count).all(in_region)
    }

    /// Does it, with the ioctls failing like this, and holds against what may have become of it.
    /// Whether it succeeded.
    fn run(&mut self, op: &Op, faults: &[Option<u8>]) -> Result<bool, TestCaseError> {
        let page = page_size();
        let before = self.all_pages();
        let bytes = |first: u64, count: u64| (first * page, count * page);
        let (mut range, mut grows, mut shrinks) = (0..0, false, false);
        let mut expect = self.shared.clone();
        let refused;
        let span = |first: u64, count: u64| first..first + count;
        let done = match *op {
            Op::AddRegion(r) => {
                let (first, count, at) = REGIONS[r];
                let source = Source::file(Arc::clone(&self.file), at * page);
                let (iova, length) = bytes(first, count);
                let permissions = [Permissions::Read, Permissions::ReadWrite][r % 2];
                self.kernel.arm(faults);
                let done = self.tracker.add_region(iova, length, source, permissions);
                refused = !self.regions.insert(r);
                prop_assert_eq!(done.is_err(), refused);
                done
            }
            Op::RemoveRegion(r) => {
                (range, shrinks) = (span(REGIONS[r].0, REGIONS[r].1), true);
                refused = !self.regions.contains(&r);
                if !refused {
                    expect.retain(|p| !range.contains(p));
                    // Whether or not it is gone.
                    self.shared = expect.clone();
                }
                self.kernel.arm(faults);
                let done = self.tracker.remove_region(range.start * page);
                if done.is_ok() {
                    self.regions.remove(&r);
                }
                done
            }
            Op::Share(first, count) => {
                (range, grows) = (span(first, count), true);
                expect.extend(range.clone());
                refused = !self.is_memory(first, count);
                let (iova, length) = bytes(first, count);
                self.kernel.arm(faults);
                self.tracker.set_shared(iova, length)
            }
            Op::Private(first, count) => {
                (range, shrinks) = (span(first, count), true);
                expect.retain(|p| !range.contains(p));
                refused = !self.is_memory(first, count);
                let (iova, length) = bytes(first, count);
                self.kernel.arm(faults);
                self.tracker.set_private(iova, length)
            }
            Op::Prepare(first, count) => {
                refused = !self.is_memory(first, count);
                let (iova, length) = bytes(first, count);
                self.kernel.arm(faults);
                self.tracker.prepare(iova, length)
            }
            Op::AddIoas(id, kind) => return self.add_ioas(id, kind, faults),
            Op::RemoveIoas(id) => {
                self.kernel.arm(faults);
                let done = self.tracker.remove_ioas(id);
                return self.removed(id, done.map(drop), &before);
            }
            Op::ForgetIoas(id) => {
                self.kernel.arm(faults);
                let done = self.tracker.forget_ioas(id);
                prop_assert_eq!(self.kernel.calls(), 0);
                if done.is_ok() {
                    self.kernel.remove_ioas(id);
                    self.ioases.remove(&id);
                }
                return Ok(done.is_ok());
            }
        };

        let after = self.all_pages();
        // Devices notice nothing outside of the range, at no time.
        let touched = self.kernel.touched();
        prop_assert!(touched.iter().all(|at| range.contains(&(at / page))));
        if refused {
            prop_assert!(done.is_err());
            prop_assert_eq!(self.kernel.calls(), 0, "{:?}", done);
        }
        let in_range = |at: &u64| range.contains(&(at / page));
        for (id, was) in &before {
            let is = &after[id];
            let was_shared = |at: &u64| self.shared.contains(&(at / page));
            match &done {
                Ok(()) if grows => {
                    prop_assert!(was.keys().all(|at| is.contains_key(at)));
                    prop_assert!(range.clone().all(|p| is.contains_key(&(p * page))));
                }
                Ok(()) if shrinks => {
                    let left: Vec<_> = was.keys().filter(|at| !in_range(at)).collect();
                    prop_assert_eq!(left, is.keys().collect::<Vec<_>>());
                }
                Ok(()) => prop_assert_eq!(was, is),
                Err(SplitError::Rollback { .. }) => {
                    prop_assert!(grows);
                    prop_assert!(was.keys().all(|at| is.contains_key(at)));
                }
                Err(SplitError::Hole { .. }) => {
                    prop_assert!(matches!(op, Op::Private(..)));
                    prop_assert!(is
                        .keys()
                        .all(|at| was.contains_key(at) || was_shared(at) && in_range(at)));
                }
                Err(_) if matches!(op, Op::RemoveRegion(..)) => {
                    prop_assert!(is.keys().all(|at| was.contains_key(at)));
                }
                // What was shared is, and nothing that was not, though a hole of before may be
                // closed.
                Err(_) if matches!(op, Op::Private(..)) => {
                    prop_assert!(is
                        .keys()
                        .all(|at| was.contains_key(at) || was_shared(at) && in_range(at)));
                    prop_assert!(was
                        .keys()
                        .all(|at| is.contains_key(at) || !was_shared(at) && in_range(at)));
                }
                Err(_) => prop_assert_eq!(was, is),
            }
        }
        if let Err(SplitError::Rollback { iova, length, .. }) = &done {
            let mapped = |id: &u32| after[id].contains_key(iova) && !before[id].contains_key(iova);
            prop_assert!(self.ioases.keys().any(mapped));
            prop_assert!(*length > 0 && !self.tracker.is_private(*iova, *length));
        }
        if let Err(SplitError::Hole { ioas_id, iova, .. }) = &done {
            prop_assert!(!after[ioas_id].contains_key(iova));
            prop_assert!(self.shared.contains(&(iova / page)));
        }
        if done.is_ok() {
            self.shared = expect;
            let (iova, length) = bytes(range.start, range.end - range.start);
            match op {
                Op::Share(..) => prop_assert!(self.tracker.is_shared(iova, length)),
                Op::Private(..) => prop_assert!(self.tracker.is_private(iova, length)),
                _ => {}
            }
        }
        Ok(done.is_ok())
    }

    fn add_ioas(
        &mut self,
        id: u32,
        kind: Kind,
        faults: &[Option<u8>],
    ) -> Result<bool, TestCaseError> {
        let there = self.ioases.contains_key(&id);
        if !there {
            self.kernel.add_ioas(id, kind == Kind::Whole);
        }
        let granularity = match kind {
            Kind::Whole => Granularity::Whole,
            Kind::Pieces => Granularity::Pieces(page_size()),
            Kind::Pairs => Granularity::Pieces(2 * page_size()),
        };
        let kernel = Arc::clone(&self.kernel);
        let memory = SharedMemory::with_ioctls(kernel, id.into(), granularity).unwrap();
        self.kernel.arm(faults);
        let done = self.tracker.add_ioas(memory);
        if there {
            let exists = matches!(done, Err(SplitError::IoasExists { .. }));
            prop_assert!(exists);
            return Ok(false);
        }
        let pages: BTreeSet<u64> = self.kernel.pages(id).keys().copied().collect();
        let shared: BTreeSet<u64> = self.shared.iter().map(|p| p * page_size()).collect();
        match &done {
            Ok(()) => prop_assert_eq!(pages, shared),
            Err(SplitError::Rollback { iova, .. }) => {
                prop_assert!(pages.is_subset(&shared) && pages.contains(iova));
            }
            Err(_) => {
                prop_assert!(pages.is_empty());
                self.kernel.remove_ioas(id);
                return Ok(false);
            }
        }
        self.ioases.insert(id, kind);
        Ok(done.is_ok())
    }

    fn removed(
        &mut self,
        id: u32,
        done: crate::Result<()>,
        before: &BTreeMap<u32, Pages>,
    ) -> Result<bool, TestCaseError> {
        let pages = self.kernel.pages(id);
        match done {
            Ok(()) => {
                prop_assert!(pages.is_empty());
                self.kernel.remove_ioas(id);
                self.ioases.remove(&id);
                Ok(true)
            }
            Err(SplitError::NoIoas { .. }) => {
                prop_assert!(!self.ioases.contains_key(&id));
                Ok(false)
            }
            Err(_) => {
                prop_assert!(pages.iter().all(|(at, _)| before[&id].contains_key(at)));
                Ok(false)
            }
        }
    }

    /// After everything, whatever failed.
    fn agrees(&self) -> Result<(), TestCaseError> {
        let page = page_size();
        let shared: BTreeSet<u64> = self
            .tracker
            .shared()
            .flat_map(|(at, n)| at / page..(at + n) / page)
            .collect();
        prop_assert_eq!(&shared, &self.shared);
        let ids: BTreeSet<u32> = self.tracker.ioases().map(SharedMemory::ioas_id).collect();
        prop_assert_eq!(&ids, &self.ioases.keys().copied().collect());
        let mut reached = BTreeSet::new();
        let mut everywhere = shared.clone();
        for &id in &ids {
            let pages = self.kernel.pages(id);
            everywhere.retain(|p| pages.contains_key(&(p * page)));
            let kernel = self.kernel.areas(id);
            let areas: Vec<_> = kernel.iter().map(|(&s, a)| (s, a.end - s)).collect();
            let mut record = self.tracker.mappings(id, 0, PAGES * page).unwrap();
            if self.kernel.kept_apart() {
                // More than in the record, but each is a part of one.
                let within = |&(at, n): &(u64, u64)| {
                    let mut all = record.iter();
                    all.any(|&(first, length)| first <= at && at + n <= first + length)
                };
                prop_assert!(areas.iter().all(within), "{areas:x?} {record:x?}");
                let bytes = |all: &[(u64, u64)]| all.iter().map(|a| a.1).sum::<u64>();
                prop_assert_eq!(bytes(&areas), bytes(&record));
                record.clone_from(&areas);
            }
            prop_assert_eq!(record, areas);
            for (&start, area) in &kernel {
                let mut regions = self.regions.iter().map(|&r| (r, REGIONS[r]));
                let at = start / page;
                let (r, (first, count, source)) = regions
                    .find(|(_, (first, count, _))| (*first..first + count).contains(&at))
                    .expect("a mapping is in a region");
                prop_assert!(area.end / page <= first + count);
                prop_assert_eq!(area.source, (source + at - first) * page);
                prop_assert_eq!(area.flags, [5, 7][r % 2]);
                prop_assert!(area.fd.is_some());
                reached.extend(at..area.end / page);
            }
        }
        for p in 0..PAGES {
            if ids.iter().any(|id| self.ioases[id] == Kind::Pairs) {
                break;
            }
            let private = !shared.contains(&p) && !reached.contains(&p);
            prop_assert_eq!(self.tracker.is_private(p * page, page), private);
            let is_shared = self.tracker.is_shared(p * page, page);
            prop_assert_eq!(is_shared, everywhere.contains(&p));
        }
        Ok(())
    }

    /// Without failures everything can be put right.
    fn heals(&mut self) -> Result<(), TestCaseError> {
        for r in self.regions.clone() {
            let (first, count, _) = REGIONS[r];
            let wanted = self.shared.clone();
            for p in (first..first + count).step_by(2) {
                for p in [p, p + 1] {
                    let op = match wanted.contains(&p) {
                        true => Op::Share(p & !1, 2),
                        false => Op::Private(p & !1, 2),
                    };
                    prop_assert!(self.run(&op, &[])?);
                }
            }
            self.agrees()?;
        }
        let shared: BTreeSet<u64> = self.shared.iter().map(|p| p * page_size()).collect();
        for (id, pages) in self.all_pages() {
            prop_assert_eq!(
                pages.into_keys().collect::<BTreeSet<_>>(),
                shared.clone(),
                "{}",
                id
            );
        }
        for r in self.regions.clone() {
            prop_assert!(self.run(&Op::RemoveRegion(r), &[])?);
        }
        prop_assert!(self.all_pages().values().all(BTreeMap::is_empty));
        self.agrees()
    }
}

fn op() -> impl Strategy<Value = Op> {
    // Of a region, or anything.
    let range = prop_oneof![
        6 => (0..3usize, 0..16u64, 1..=16u64).prop_map(|(r, from, n)| {
            let (first, count, _) = REGIONS[r];
            (first + from, n.min(count - from))
        }),
        2 => (0..16u64, 1..=16u64).prop_map(|(from, n)| (8 + from * 2, n * 2)),
        1 => (0..PAGES, 0..16u64),
    ];
    let kind = prop_oneof![
        4 => Just(Kind::Whole),
        2 => Just(Kind::Pieces),
        1 => Just(Kind::Pairs),
    ];
    let converted = prop_oneof![
        3 => range.clone().prop_map(|(from, n)| Op::Private(from, n)),
        3 => range.clone().prop_map(|(from, n)| Op::Share(from, n)),
        1 => range.prop_map(|(from, n)| Op::Prepare(from, n)),
    ];
    prop_oneof![
        12 => converted,
        2 => (0..3usize).prop_map(Op::AddRegion),
        1 => (0..3usize).prop_map(Op::RemoveRegion),
        2 => (1..4u32, kind).prop_map(|(id, kind)| Op::AddIoas(id, kind)),
        1 => (1..4u32).prop_map(Op::RemoveIoas),
        1 => (1..4u32).prop_map(Op::ForgetIoas),
    ]
}

fn faults() -> impl Strategy<Value = Vec<Option<u8>>> {
    let fault = proptest::option::weighted(0.3, 0..32u8);
    prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(fault, 0..16),
        // All of them, for a while.
        (0..32u8, 0..8usize).prop_map(|(f, n)| vec![Some(f); n]),
    ]
}

fn knows() -> impl Strategy<Value = Knows> {
    prop_oneof![
        2 => Just(Knows::ALL),
        1 => Just(Knows::NO_JOIN),
        1 => Just(Knows::TWO_CALLS),
    ]
}

/// A VMM's usual start: all regions shared as a whole, an IOAS of each kind, holes in them.
fn started(knows: Knows, kinds: &[Kind], holes: &[(u64, u64)]) -> World {
    let mut world = World::new(knows);
    for (r, &(first, count, _)) in REGIONS.iter().enumerate() {
        world.run(&Op::AddRegion(r), &[]).unwrap();
        assert!(world.run(&Op::Share(first, count), &[]).unwrap());
    }
    for (id, kind) in (1..).zip(kinds) {
        assert!(world.run(&Op::AddIoas(id, *kind), &[]).unwrap());
    }
    for &(first, count) in holes {
        assert!(world.run(&Op::Private(first, count), &[]).unwrap());
    }
    world.agrees().unwrap();
    world
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    })]

    #[test]
    fn record_and_kernel_agree(
        knows in knows(),
        ops in proptest::collection::vec((op(), faults()), 1..40),
    ) {
        let mut world = started(knows, &[Kind::Whole], &[]);
        for (op, faults) in &ops {
            world.run(op, faults)?;
            world.agrees()?;
        }
        world.heals()?;
    }

    #[test]
    fn ranges_are_a_set_of_pages(
        ops in proptest::collection::vec((any::<bool>(), 0..64u64, 0..20u64), 1..50),
    ) {
        let mut ranges = Ranges::default();
        let mut pages = BTreeSet::new();
        for (insert, from, n) in ops {
            let range = from..from + n + 1;
            if insert {
                pages.extend(range.clone());
                ranges.insert(range.clone());
                prop_assert!(ranges.contains(&range));
            } else {
                pages.retain(|p| !range.contains(p));
                ranges.remove(&range);
                prop_assert!(ranges.within(&range).is_empty());
            }
            let runs: Vec<_> = ranges.iter().collect();
            prop_assert!(runs.windows(2).all(|w| w[0].end < w[1].start));
            prop_assert_eq!(runs.into_iter().flatten().collect::<BTreeSet<_>>(), pages.clone());
        }
    }
}

/// Each ioctl of a call fails once, in every way; and with each all those after it, for a while.
#[test]
fn every_ioctl_may_fail() {
    let kinds = [Kind::Whole, Kind::Pieces, Kind::Whole];
    let holes = [(10, 2), (20, 8), (50, 1)];
    let ops = [
        Op::Private(8, 32),
        Op::Private(12, 2),
        Op::Private(9, 14),
        Op::Share(8, 32),
        Op::Share(10, 1),
        Op::Prepare(9, 20),
        Op::RemoveRegion(0),
        Op::RemoveIoas(1),
        Op::RemoveIoas(2),
        Op::AddIoas(4, Kind::Whole),
        Op::AddIoas(4, Kind::Pieces),
    ];
    let mut failed = 0;
    for knows in [Knows::ALL, Knows::NO_JOIN, Knows::TWO_CALLS] {
        for op in &ops {
            let mut whole = started(knows, &kinds, &holes);
            assert!(whole.run(op, &[]).unwrap(), "{op:?}");
            let calls = whole.kernel.calls();
            assert!(calls > 0, "{op:?} takes no ioctl");
            for (at, more) in (0..calls).flat_map(|at| [(at, 0), (at, 3)]) {
                for kind in 0..16 {
                    let mut faults = vec![None; at];
                    faults.extend(vec![Some(kind); more + 1]);
                    let mut world = started(knows, &kinds, &holes);
                    let mut check = || -> Result<(), TestCaseError> {
                        failed += usize::from(!world.run(op, &faults)?);
                        world.agrees()?;
                        world.heals()
                    };
                    if let Err(e) = check() {
                        panic!("{knows:?} {op:?}, failures {faults:?}: {e}");
                    }
                }
            }
        }
    }
    assert!(failed > 1000, "{failed}");
}

/// Where everything goes well a conversion of what is mapped whole is one ioctl, and a region is
/// one.
#[test]
fn ioctls_are_as_few_as_promised() {
    let mut world = started(Knows::ALL, &[Kind::Whole], &[]);
    let calls = |world: &mut World, op| {
        assert!(world.run(&op, &[]).unwrap());
        world.kernel.calls()
    };
    assert_eq!(calls(&mut world, Op::Private(10, 2)), 1);
    assert_eq!(calls(&mut world, Op::Private(10, 2)), 0);
    // What is left on both sides of it.
    assert_eq!(calls(&mut world, Op::Private(9, 4)), 4);
    assert_eq!(calls(&mut world, Op::Share(8, 8)), 1);
    assert_eq!(calls(&mut world, Op::Share(8, 8)), 0);
    assert_eq!(calls(&mut world, Op::AddIoas(2, Kind::Whole)), 3);
    assert_eq!(calls(&mut world, Op::AddIoas(3, Kind::Pieces)), 48);
    // Two holes: they are filled at once, or one by one.
    for (knows, share) in [(Knows::ALL, 1), (Knows::NO_JOIN, 2)] {
        let mut world = started(knows, &[Kind::Whole], &[(10, 2), (14, 2)]);
        assert_eq!(calls(&mut world, Op::Share(8, 16)), share);
        assert_eq!(calls(&mut world, Op::Share(8, 16)), 0);
    }
    let mut world = started(Knows::TWO_CALLS, &[Kind::Whole], &[]);
    assert_eq!(calls(&mut world, Op::Private(10, 2)), 2);
}

/// An unmap of a mapping of its own keeps in-kernel users from pinning the range again.
#[test]
fn where_one_call_cannot_two_can() {
    const DEADLOCK: Option<u8> = Some(1);
    let mut world = started(Knows::ALL, &[Kind::Whole], &[]);
    assert!(world.run(&Op::Private(10, 2), &[DEADLOCK]).unwrap());
    assert_eq!(world.kernel.calls(), 3);
    world.agrees().unwrap();
}

/// Of an unmap that stopped, what it has not unmapped is not touched.
#[test]
fn what_is_still_mapped_stays() {
    let mut world = started(Knows::TWO_CALLS, &[Kind::Whole], &[]);
    assert!(world.run(&Op::Prepare(10, 2), &[]).unwrap());
    // The unmap refuses the second of three areas.
    assert!(!world.run(&Op::Private(8, 16), &[None, Some(2)]).unwrap());
    world.agrees().unwrap();
    let touched: Vec<u64> = world.kernel.touched().into_iter().collect();
    assert_eq!(touched, [8, 9].map(|p| p * page_size()));
}

/// All that a call has mapped before it failed is taken back, in every IOAS.
#[test]
fn a_share_that_fails_leaves_nothing() {
    let kinds = [Kind::Whole, Kind::Pieces];
    let mut world = started(Knows::NO_JOIN, &kinds, &[(10, 2), (14, 2), (18, 2)]);
    let before = world.all_pages();
    // Three mappings in one, six in the other.
    for at in 0..9 {
        let mut faults = vec![None; at];
        faults.push(Some(0));
        assert!(!world.run(&Op::Share(8, 16), &faults).unwrap());
        assert_eq!(world.all_pages(), before, "{at}");
        world.agrees().unwrap();
    }
}

/// What is mapped and should not be may be gone after an unmap that stopped: the tracker finds out.
#[test]
fn what_is_left_of_a_rollback_is_found() {
    let page = page_size();
    let mut world = started(Knows::TWO_CALLS, &[Kind::Whole], &[(10, 2), (14, 2)]);
    // The second map fails, and the first one cannot be undone.
    let faults = [None, Some(0), Some(0), Some(0)];
    assert!(!world.run(&Op::Share(8, 16), &faults).unwrap());
    assert!(!world.tracker.is_private(10 * page, 2 * page));
    // The unmap refuses the third of three areas.
    let faults = [None, None, Some(4)];
    assert!(!world.run(&Op::Private(8, 16), &faults).unwrap());
    world.agrees().unwrap();
    assert!(world.tracker.is_private(10 * page, 2 * page));
}

#[test]
fn regions_are_made_of_the_pieces_of_every_ioas() {
    let page = page_size();
    for (first, count, source) in [(1, 2, 0), (2, 1, 0), (2, 2, 1)] {
        let kernel = Kernel::new(Knows::ALL);
        kernel.add_ioas(1, false);
        let pairs = Granularity::Pieces(2 * page);
        let memory = SharedMemory::with_ioctls(kernel, 1.into(), pairs).unwrap();
        let source = Source::file(File::open("/dev/null").unwrap(), source * page);
        let (iova, length) = (first * page, count * page);
        let mut tracker = Tracker::new();
        tracker
            .add_region(iova, length, source.clone(), Permissions::Read)
            .unwrap();
        let refused = tracker.add_ioas(memory.clone());
        assert!(matches!(refused, Err(SplitError::Range { .. })));
        let mut tracker = Tracker::new();
        tracker.add_ioas(memory).unwrap();
        let refused = tracker.add_region(iova, length, source, Permissions::Read);
        assert!(matches!(refused, Err(SplitError::Range { .. })));
    }
}

/// A piece that somebody else has unmapped is not left out without a word, and is shared again
/// when the call has failed.
#[test]
fn what_somebody_else_has_unmapped_is_told() {
    let page = page_size();
    let mut world = started(Knows::ALL, &[Kind::Pieces], &[]);
    let mut unmap = iommu_ioas_unmap {
        size: size_of::<iommu_ioas_unmap>() as u32,
        ioas_id: 1,
        iova: 10 * page,
        length: page,
    };
    world.kernel.unmap(&mut unmap).unwrap();
    let told = world.tracker.set_private(8 * page, 8 * page).unwrap_err();
    assert!(
        matches!(told, SplitError::UnmappedLength { unmapped, .. } if unmapped == 7 * page),
        "{told}"
    );
    assert!(world.tracker.is_shared(8 * page, 8 * page));
    world.agrees().unwrap();
    assert!(world.run(&Op::Private(8, 8), &[]).unwrap());
}

#[test]
fn an_ioas_that_went_away_is_no_error_for_what_shall_go() {
    let mut world = started(Knows::ALL, &[Kind::Whole], &[(10, 1)]);
    world.kernel.remove_ioas(1);
    world.tracker.remove_region(8 * page_size()).unwrap();
    world.tracker.remove_ioas(1).unwrap();
}

#[test]
fn a_device_goes_where_it_can_be_taken_away_from() {
    let mut world = World::new(Knows::ALL);
    let kernel = Arc::clone(&world.kernel);
    for (dev_id, splits) in [(10, true), (11, false)] {
        kernel.add_device(dev_id, splits);
    }
    assert_eq!(world.tracker.ioas_for(10).unwrap(), None);
    world.run(&Op::AddIoas(2, Kind::Whole), &[]).unwrap();
    assert_eq!(world.tracker.ioas_for(10).unwrap(), Some(2));
    assert_eq!(world.tracker.ioas_for(11).unwrap(), None);
    world.run(&Op::AddIoas(1, Kind::Pieces), &[]).unwrap();
    assert_eq!(world.tracker.ioas_for(10).unwrap(), Some(2));
    assert_eq!(world.tracker.ioas_for(11).unwrap(), Some(1));
    let gone = world.tracker.ioas_for(12).unwrap_err();
    assert_eq!(gone.errno(), Some(libc::ENOENT));
}

/// What a guest may send, and a VMM.
#[test]
fn what_is_no_memory_is_refused() {
    let page = page_size();
    let mut world = started(Knows::ALL, &[Kind::Whole], &[]);
    world.kernel.arm(&[]);
    let tracker = &mut world.tracker;
    for (iova, length) in [
        (8 * page, 0),
        (8 * page + 1, page),
        (8 * page, page - 1),
        (u64::MAX - page + 1, page),
        (u64::MAX - page + 1, 2 * page),
        (8 * page, u64::MAX - page + 1),
    ] {
        for done in [
            tracker.set_shared(iova, length),
            tracker.set_private(iova, length),
            tracker.prepare(iova, length),
        ] {
            assert!(matches!(done, Err(SplitError::Range { .. })), "{done:?}");
        }
    }
    let none = tracker.set_private(30 * page, 12 * page);
    assert!(matches!(none, Err(SplitError::NotMemory { iova }) if iova == 40 * page));
    let none = tracker.set_shared(0, 10 * page);
    assert!(matches!(none, Err(SplitError::NotMemory { iova: 0 })));
    let file = File::open("/dev/null").unwrap();
    let source = Source::file(file, 0);
    for (first, count) in [(0, 9), (23, 2), (63, 1), (8, 56), (0, 72)] {
        let there = tracker.add_region(
            first * page,
            count * page,
            source.clone(),
            Permissions::Read,
        );
        assert!(matches!(there, Err(SplitError::RegionExists { .. })));
    }
    let fits = tracker.add_region(40 * page, 8 * page, source, Permissions::Read);
    fits.unwrap();
    let none = tracker.remove_region(9 * page);
    assert!(matches!(none, Err(SplitError::NoRegion { .. })));
    assert_eq!(world.kernel.calls(), 0);
}

/// After any conversions a guest that shares everything has the mappings that it had at first.
#[test]
fn what_is_shared_again_is_one_mapping() {
    let page = page_size();
    let mut world = started(Knows::ALL, &[Kind::Whole], &[]);
    let before = world.kernel.areas(1);
    for round in 0..4 {
        for at in (8..40).step_by(3) {
            assert!(world.run(&Op::Private(at, 1 + round % 2), &[]).unwrap());
        }
        // One by one, in another order, and what was left of it at once.
        for at in (8..24).rev().step_by(2) {
            assert!(world.run(&Op::Share(at, 1), &[]).unwrap());
            world.agrees().unwrap();
        }
        assert!(world.run(&Op::Share(8, 32), &[]).unwrap());
        world.agrees().unwrap();
        assert_eq!(world.kernel.areas(1), before);
        assert_eq!(world.tracker.mappings(1, 0, PAGES * page).unwrap().len(), 3);
    }
    // Nothing is left of the mapping: nothing can be filled from it.
    assert!(world.run(&Op::Private(8, 16), &[]).unwrap());
    assert!(world.run(&Op::Share(10, 4), &[]).unwrap());
    assert!(world.run(&Op::Share(8, 16), &[]).unwrap());
    world.agrees().unwrap();
    let mapped = world.tracker.mappings(1, 8 * page, 16 * page).unwrap();
    assert_eq!(mapped.len(), 3);
}

/// A kernel that cannot fill a hole, this one or any, has it mapped.
#[test]
fn what_cannot_be_restored_is_mapped() {
    const PERMISSION: Option<u8> = Some(2);
    let page = page_size();
    for (knows, faults) in [(Knows::NO_JOIN, &[][..]), (Knows::ALL, &[PERMISSION])] {
        let mut world = started(knows, &[Kind::Whole], &[(10, 2)]);
        assert!(world.run(&Op::Share(10, 2), faults).unwrap());
        world.agrees().unwrap();
        let mapped = world.tracker.mappings(1, 8 * page, 16 * page).unwrap();
        assert_eq!(mapped.len(), 3, "{knows:?}");
    }
    // Two memories for one hole: what is there now was mapped in the hole of the other.
    let mut world = started(Knows::ALL, &[Kind::Whole], &[(10, 4)]);
    assert!(world.run(&Op::Share(10, 4), &[PERMISSION]).unwrap());
    assert!(world.run(&Op::Private(10, 2), &[]).unwrap());
    assert!(world.run(&Op::Share(10, 2), &[]).unwrap());
    assert_eq!(world.kernel.calls(), 1);
    world.agrees().unwrap();
    world.heals().unwrap();
}

/// What a fill has mapped before the call failed is in the middle of a mapping: it is cut out
/// again, and no device notices anything around it.
#[test]
fn a_fill_is_taken_back() {
    let kinds = [Kind::Whole, Kind::Whole, Kind::Pieces];
    let mut world = started(Knows::ALL, &kinds, &[(10, 2), (14, 2)]);
    let before = world.all_pages();
    // Filled in two IOASes, and the third piece fails in the last one.
    assert!(!world
        .run(&Op::Share(8, 16), &[None, None, None, None, Some(0)])
        .unwrap());
    assert_eq!(world.all_pages(), before);
    world.agrees().unwrap();
    let touched: BTreeSet<u64> = world.kernel.touched();
    let page = page_size();
    assert_eq!(touched, [10, 11, 14, 15].map(|p| p * page).into());
}

/// The kernel has more mappings than the record: what an unmap that stopped has left is found.
#[test]
fn what_is_left_of_one_that_is_several_is_found() {
    const APART: Option<u8> = Some(1);
    let page = page_size();
    let mut world = started(Knows::ALL, &[Kind::Whole], &[(10, 2)]);
    assert!(world.run(&Op::Share(10, 2), &[APART]).unwrap());
    assert_eq!(world.kernel.areas(1).len(), 5);
    assert_eq!(
        world
            .tracker
            .mappings(1, 8 * page, 16 * page)
            .unwrap()
            .len(),
        1
    );
    // The unmap of all three refuses the second, and so does that of what is one here.
    let refused = world.run(&Op::RemoveRegion(0), &[Some(2), Some(0), None, None]);
    assert!(!refused.unwrap());
    world.agrees().unwrap();
    assert!(world.tracker.is_private(8 * page, 2 * page));
    assert!(!world.tracker.is_private(10 * page, page));
}
