// SPDX-License-Identifier: GPL-2.0-only

//! Hardware that sets A and D at every point between two accesses of a call.
//!
//! An access of software is a point of interest for what hardware does with an address only if it
//! is to an item that the walk for the address reads, or to the item whose bits are set: all other
//! accesses commute with that. [`Touches::unmerged`] checks that this is so.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use super::{prepare, AtFlush, Call, Free, Scene};
use crate::arena::{watch_reads, Event, Step, Store, View};
use crate::hw::{Hardware, Hit, LeafAt, Root};
use crate::log::Dirty;
use crate::rig::Rig;
use crate::size::max_offset;
use iotable::fmt::Format;
use iotable::{Bytes, Oa};

/// What hardware does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A walk, and the bits in the item that it found, as one.
    Access {
        /// The address, one of the targets.
        va: u64,
        /// D as well as A.
        write: bool,
    },
    /// A walk at an earlier point. The item is updated if it still is what was read then, else
    /// there is another walk.
    Compare {
        /// The address, one of the targets.
        va: u64,
        /// D as well as A.
        write: bool,
        /// The point of the walk.
        walked: usize,
    },
    /// A write through a translation that was cached before the call: D is set where it was read
    /// from, whatever is there now, as long as it is something.
    Blind {
        /// The address that was walked for, one of the targets.
        via: u64,
        /// The address that is written to, in the same leaf.
        va: u64,
    },
}

/// An act, and the point before which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// The number of the access.
    pub point: usize,
    /// What happens.
    pub act: Act,
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Points, each with everything that hardware did until then.
    pub states: u64,
    /// Those that stand for the others: calls that were made.
    pub calls: u64,
    /// Compare-exchanges that failed.
    pub raced: u64,
    /// Updates that found another item than was walked, and walked again.
    pub rewalked: u64,
}

impl Count {
    /// Adds what another exploration did.
    pub fn add(&mut self, other: Count) {
        self.states += other.states;
        self.calls += other.calls;
        self.raced += other.raced;
        self.rewalked += other.rewalked;
    }
}

/// A point of a call.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Bit n: it makes a difference for target n.
    matters: u64,
    /// Nothing from before the call is cached any more.
    flushed: bool,
}

/// A write, or read, that hardware did.
#[derive(Clone, Copy, Debug)]
struct Used {
    va: u64,
    write: bool,
    /// The leaf that the walk found, as first address and size; none if it was cached.
    leaf: Option<(u64, u64)>,
}

fn holds((start, size): (u64, u64), va: u64) -> bool {
    va.wrapping_sub(start) < size
}

fn leaf_around(hit: &Hit, va: u64) -> (u64, u64) {
    let size = 1 << hit.bits.size_lg2;
    (va & !(size - 1), size)
}

/// Explores one scene.
pub struct Touches<'a> {
    scene: &'a Scene,
    targets: &'a [u64],
    blind: bool,
    compare: bool,
    /// What was explored so far.
    pub count: Count,
}

/// One call, as it runs.
struct Run<'a, H: Hardware> {
    root: Root<'a, H>,
    touches: &'a Touches<'a>,
    shots: &'a [Shot],
    points: Vec<Point>,
    flushed: bool,
    /// The leaf that each target was in before, and the item it was read from.
    old: Vec<Option<Hit>>,
    /// Items that matter, with the targets that they matter for.
    items: HashMap<u64, u64>,
    /// Items that were walked to and what they were, by shot.
    walked: Vec<Option<(u64, u64)>>,
    used: Vec<Used>,
    /// The item that a compare-exchange is about to meet.
    met: u64,
    count: Count,
}

impl<H: Hardware> Run<'_, H> {
    fn find_items(&mut self) {
        self.items.clear();
        for (n, &va) in self.touches.targets.iter().enumerate() {
            let path = self.root.path(va, &[View::Cpu]);
            let old = self.old[n].filter(|_| self.touches.blind);
            for at in path.into_iter().chain(old.map(|hit| hit.item)) {
                *self.items.entry(at).or_default() |= 1 << n;
            }
        }
    }

    fn target(&self, va: u64) -> usize {
        let mut targets = self.touches.targets.iter();
        targets.position(|&target| target == va).expect("a target")
    }

    /// Hardware acts before an access to `at`, if it does.
    fn point(&mut self, at: Option<u64>) {
        let index = self.points.len();
        let matters = match at {
            Some(at) => self.items.get(&at).copied().unwrap_or(0),
            None => u64::MAX,
        };
        self.points.push(Point {
            matters,
            flushed: self.flushed,
        });
        for n in 0..self.shots.len() {
            let Shot { point, act } = self.shots[n];
            if let Act::Compare { va, walked, .. } = act {
                if walked == index {
                    let hit = self.root.translate(va);
                    let read = |hit: Hit| (hit.item, self.root.arena.hw_read(hit.item, View::Cpu));
                    self.walked[n] = hit.map(read);
                }
            }
            if point == index {
                self.act(n, act);
            }
        }
    }

    fn act(&mut self, n: usize, act: Act) {
        let arena = self.root.arena;
        match act {
            Act::Access { va, write } => self.access(va, write),
            Act::Compare { va, write, .. } => {
                let same = self.walked[n].filter(|&(item, read)| {
                    let table = item & !max_offset(H::ITEMS_LG2 + 3);
                    arena.is_table(table) && arena.hw_read(item, View::Cpu) == read
                });
                if same.is_none() && self.walked[n].is_some() {
                    self.count.rewalked += 1;
                }
                if let Some((item, _)) = same {
                    let hit = self.root.translate(va).expect("it is as it was");
                    let join = matches!(self.touches.scene.call, Call::Join { .. });
                    if join && hit.item != item && !self.flushed {
                        // In the table that goes, where the flush waits for it.
                        let dirty = if write { H::DIRTY } else { 0 };
                        arena.hw_set(item, H::ACCESSED | dirty);
                        let leaf = None;
                        self.used.push(Used { va, write, leaf });
                        return;
                    }
                    assert!(hit.item == item || join, "the same item, but another walk");
                }
                self.access(va, write);
            }
            Act::Blind { via, va } => {
                let hit = self.old[self.target(via)].expect("it was mapped");
                if arena.hw_read(hit.item, View::Cpu) != 0 {
                    arena.hw_set(hit.item, H::DIRTY);
                    self.used.push(Used {
                        va,
                        write: true,
                        leaf: None,
                    });
                }
            }
        }
    }

    fn access(&mut self, va: u64, write: bool) {
        self.root.access_tables(va);
        if let Some(hit) = self.root.access(va, write) {
            let leaf = Some(leaf_around(&hit, va));
            self.used.push(Used { va, write, leaf });
        }
    }

    fn step(&mut self, event: Event) {
        match event.step {
            // What is written first is unwritten before.
            Step::Read | Step::Before(Store::Init) => self.point(Some(event.at)),
            Step::Before(_) => {
                self.point(Some(event.at));
                self.met = self.root.arena.hw_read(event.at, View::Cpu);
            }
            Step::After(Store::Publish | Store::Set) => {
                if self.root.arena.hw_read(event.at, View::Cpu) == self.met {
                    self.count.raced += 1;
                }
                if self.items.contains_key(&event.at) {
                    self.find_items();
                    self.still();
                }
            }
            Step::AfterTop => self.find_items(),
            _ => {}
        }
    }

    /// What was mapped and is not about to go translates as before.
    fn still(&self) {
        let hole = match self.touches.scene.call {
            Call::Split { va, .. } | Call::Join { va, .. } => (va, 0),
            Call::Carve { va, len } => (va, len),
            _ => return,
        };
        let targets = self.touches.targets.iter().zip(&self.old);
        for (&va, old) in targets.filter(|(&va, _)| va.wrapping_sub(hole.0) >= hole.1) {
            let got = self.root.translate(va).map(|hit| hit.seen());
            assert_eq!(got, old.map(|hit| hit.seen()), "{va:#x} was disturbed");
        }
    }
}

impl<'a> Touches<'a> {
    /// For hardware that acts on `targets`. `blind`: it may set D where a cached translation came
    /// from; `compare`: it walks, and looks again when it sets bits.
    pub fn new(scene: &'a Scene, targets: &'a [u64], blind: bool, compare: bool) -> Self {
        assert!(targets.len() < 64);
        Touches {
            scene,
            targets,
            blind,
            compare,
            count: Count::default(),
        }
    }

    /// Makes the call, with `shots`. Checks how it ends; returns the points and a fingerprint of
    /// the end.
    fn run<H: Hardware>(&mut self, shots: &[Shot]) -> (Vec<Point>, u64) {
        let rig = prepare::<H>(self.scene);
        let root = rig.root();
        let before = rig.leaves();
        let mut run = Run {
            root,
            touches: &*self,
            shots,
            points: Vec::new(),
            flushed: false,
            old: self.targets.iter().map(|&va| root.translate(va)).collect(),
            items: HashMap::new(),
            walked: vec![None; shots.len()],
            used: Vec::new(),
            met: 0,
            count: Count {
                calls: 1,
                ..Count::default()
            },
        };
        run.find_items();
        let mut reported = None;
        match self.scene.call {
            Call::Split { va, len } => {
                let lock = rig.arena.lock(va, len).unwrap();
                let flush = watch_reads(&mut |event| run.step(event), || {
                    rig.pt().split(lock.range()).unwrap()
                });
                run.point(None);
                run.flushed = true;
                watch_reads(&mut |event| run.step(event), || flush.fold_late_dirty()).unwrap();
            }
            Call::Carve { va, len } => {
                let lock = rig.arena.lock(va, len).unwrap();
                let mut free = Free::new(&rig.arena);
                let flush = watch_reads(&mut |event| run.step(event), || {
                    rig.pt().carve(lock.range(), &mut free).unwrap()
                });
                run.point(None);
                run.flushed = true;
                watch_reads(&mut |event| run.step(event), || flush.fold_late_dirty()).unwrap();
            }
            Call::Join { va, len } => {
                let lock = rig.arena.lock(va, len).unwrap();
                let run = RefCell::new(&mut run);
                // What is cached is used until the last moment.
                let mut flusher = AtFlush::new(&rig.arena, || {
                    let mut run = run.borrow_mut();
                    run.point(None);
                    run.flushed = true;
                });
                watch_reads(&mut |event| run.borrow_mut().step(event), || {
                    rig.pt().join(lock.range(), &mut flusher).unwrap();
                });
            }
            Call::Unmap { va, len } => {
                let lock = rig.arena.lock(va, len).unwrap();
                let mut free = Free::new(&rig.arena);
                let done = watch_reads(&mut |event| run.step(event), || {
                    rig.pt().unmap(lock.range(), &mut free)
                });
                assert_eq!(done, Bytes(len));
                // It was flushed before its tables were freed.
                run.flushed = true;
            }
            Call::Map { va, len, oa, prot } => {
                let lock = rig.arena.lock(va, len).unwrap();
                let attrs = H::Format::attrs(prot, &rig.cfg.params).unwrap();
                let mut free = Free::new(&rig.arena);
                let done = watch_reads(&mut |event| run.step(event), || {
                    rig.pt().map(lock.range(), Oa(oa), attrs, &mut free)
                });
                assert_eq!(done.result, Ok(()));
            }
            Call::Clear { va, len } => {
                let lock = rig.arena.lock(va, len).unwrap();
                let mut sink = Dirty::default();
                watch_reads(&mut |event| run.step(event), || {
                    rig.pt().read_dirty(lock.range(), true, &mut sink).unwrap();
                });
                reported = Some(sink.joined());
            }
            call => panic!("{call:x?} cannot be explored"),
        }
        run.point(None);
        let Run {
            points,
            used,
            count,
            ..
        } = run;
        let after = rig.leaves();
        let context = || format!("{:x?} {shots:x?}", self.scene);
        match (&reported, self.scene.call) {
            (Some(told), Call::Clear { va, len }) => {
                cleared(&before, &after, (va, len), &told.found, &used, &context);
            }
            (_, Call::Join { .. }) => carried(&before, &after, &used, H::Format::DIRTY, &context),
            _ => kept(&rig, &before, &after, &used, &context),
        }
        if let Call::Carve { va, len } | Call::Unmap { va, len } = self.scene.call {
            // Whatever was tried again.
            let hole = (va, len);
            let inside = |leaf: &LeafAt| {
                holds(hole, leaf.va) || holds((leaf.va, 1 << leaf.bits.size_lg2), va)
            };
            let left = after.iter().find(|leaf| inside(leaf));
            assert!(left.is_none(), "in the hole: {left:x?} {}", context());
        }
        if H::Format::DIRTY != 0 {
            no_dirty_table(&rig, &context);
        }
        let mut end = DefaultHasher::new();
        for leaf in after {
            let bits = leaf.bits;
            (leaf.va, bits.size_lg2, bits.dirty, bits.accessed).hash(&mut end);
        }
        reported.map(|told| told.found).hash(&mut end);
        rig.finish();
        self.count.add(count);
        (points, end.finish())
    }

    /// The acts for a point and those after it, with the points before which they make a difference
    /// and the number of points that each of these stands for.
    fn shots(
        &self,
        points: &[Point],
        from: usize,
        compare: bool,
        old: &[Option<(u64, u64)>],
    ) -> Vec<(Shot, u64)> {
        let mut shots = Vec::new();
        for (n, &va) in self.targets.iter().enumerate() {
            let mut places = Vec::new();
            let mut width = 0;
            for (point, at) in points.iter().enumerate().skip(from) {
                width += 1;
                if (at.matters >> n) & 1 == 1 {
                    places.push((point, width));
                    width = 0;
                }
            }
            for &(point, width) in &places {
                for write in [false, true] {
                    let act = Act::Access { va, write };
                    shots.push((Shot { point, act }, width));
                    for &(walked, wide) in &places {
                        if compare && walked < point {
                            let act = Act::Compare { va, write, walked };
                            shots.push((Shot { point, act }, width * wide));
                        }
                    }
                }
                let Some(leaf) = old[n].filter(|_| self.blind && !points[point].flushed) else {
                    continue;
                };
                for &other in self.targets.iter().filter(|&&other| holds(leaf, other)) {
                    let act = Act::Blind { via: va, va: other };
                    shots.push((Shot { point, act }, width));
                }
            }
        }
        shots
    }

    fn old_leaves<H: Hardware>(&self) -> Vec<Option<(u64, u64)>> {
        let rig = prepare::<H>(self.scene);
        let root = rig.root();
        let leaf = |&va: &u64| root.translate(va).map(|hit| leaf_around(&hit, va));
        let old = self.targets.iter().map(leaf).collect();
        rig.finish();
        old
    }

    /// Every way for hardware to act up to `depth` times; to look again, if it acts once.
    pub fn explore<H: Hardware>(&mut self, depth: usize) {
        let old = self.old_leaves::<H>();
        self.explore_from::<H>(&mut Vec::new(), depth, &old);
    }

    fn explore_from<H: Hardware>(
        &mut self,
        shots: &mut Vec<Shot>,
        depth: usize,
        old: &[Option<(u64, u64)>],
    ) {
        let (points, _) = self.run::<H>(shots);
        if depth == 0 {
            return;
        }
        let from = shots.last().map_or(0, |shot| shot.point);
        for (shot, width) in self.shots(
            &points,
            from,
            self.compare && shots.is_empty() && depth == 1,
            old,
        ) {
            self.count.states += width;
            shots.push(shot);
            self.explore_from::<H>(shots, depth - 1, old);
            shots.pop();
        }
    }

    /// One act at every single point, compared with what the point that stands for it gave.
    pub fn unmerged<H: Hardware>(&mut self) {
        let old = self.old_leaves::<H>();
        let (points, _) = self.run::<H>(&[]);
        for (shot, width) in self.shots(&points, 0, false, &old) {
            let (_, want) = self.run::<H>(&[shot]);
            for point in shot.point + 1 - width as usize..shot.point {
                let (_, got) = self.run::<H>(&[Shot { point, ..shot }]);
                self.count.states += 1;
                assert_eq!(
                    got, want,
                    "{shot:x?} is not as before {point}: {:x?}",
                    self.scene
                );
            }
        }
    }
}

/// No D was lost, and none is where nothing was written; nor A.
fn kept<H: Hardware>(
    rig: &Rig<H>,
    before: &[LeafAt],
    after: &[LeafAt],
    used: &[Used],
    context: &dyn Fn() -> String,
) {
    let range = |leaf: &LeafAt| (leaf.va, 1u64 << leaf.bits.size_lg2);
    let rules = &rig.model.rules;
    for leaf in after {
        let new = range(leaf);
        let old = before.iter().find(|old| holds(range(old), leaf.va));
        let was_dirty = old.is_some_and(|old| old.bits.dirty);
        let inside = |used: &&Used| holds(new, used.va);
        let through = |used: &&Used| used.leaf.is_some_and(|hit| holds(hit, leaf.va));
        let writes = || used.iter().filter(|used| used.write);
        if was_dirty || writes().any(|used| inside(&used)) {
            assert!(leaf.bits.dirty, "D was lost: {leaf:x?} {}", context());
        }
        if used.iter().any(|used| inside(&used) && used.leaf.is_some()) {
            assert!(leaf.bits.accessed, "A was lost: {leaf:x?} {}", context());
        }
        // A group, or a write through a cache: everything that the old leaf was may be meant.
        let group = old.is_some_and(|old| old.bits.size_lg2 != rules.item_lg2(old.level));
        let vague = |used: &&Used| {
            (group || used.leaf.is_none()) && old.is_some_and(|old| holds(range(old), used.va))
        };
        let preset = H::PRESET && old.is_none();
        // Without dirty tracking nobody looks at the other items of a group.
        let tracked = H::Format::DIRTY != 0 || !group;
        let written = tracked && writes().any(|used| through(&used));
        let blind = writes().any(|used| used.leaf.is_none() && vague(&used));
        if written || blind {
            assert!(leaf.bits.dirty, "D was lost: {leaf:x?} {}", context());
        } else if !was_dirty && !preset && !writes().any(|used| vague(&used)) {
            assert!(!leaf.bits.dirty, "D from nowhere: {leaf:x?} {}", context());
        }
    }
}

/// A joined leaf is dirty if anything in it was, or was written to by whatever way, and not else. An
/// A may be lost with the old table. Without dirty tracking so may a D.
fn carried(
    before: &[LeafAt],
    after: &[LeafAt],
    used: &[Used],
    tracked: u64,
    context: &dyn Fn() -> String,
) {
    for leaf in after {
        let new = (leaf.va, 1u64 << leaf.bits.size_lg2);
        let dirty = |old: &&LeafAt| old.bits.dirty && holds(new, old.va);
        let written = used.iter().any(|used| used.write && holds(new, used.va));
        let noted = written || before.iter().any(|old| dirty(&old));
        if tracked != 0 {
            assert_eq!(leaf.bits.dirty, noted, "{leaf:x?} {}", context());
        } else {
            assert!(noted || !leaf.bits.dirty, "{leaf:x?} {}", context());
        }
    }
    let end = |leaves: &[LeafAt]| {
        leaves
            .iter()
            .map(|at| 1u64 << at.bits.size_lg2)
            .sum::<u64>()
    };
    assert_eq!(end(before), end(after), "{}", context());
}

/// Each write is either reported or still to be seen, and nothing else is; of a leaf that is not in
/// the range as a whole, it is still to be seen.
fn cleared(
    before: &[LeafAt],
    after: &[LeafAt],
    asked: (u64, u64),
    reported: &[(u64, u64)],
    used: &[Used],
    context: &dyn Fn() -> String,
) {
    for (leaf, old) in after.iter().zip(before) {
        let range = (leaf.va, 1u64 << leaf.bits.size_lg2);
        let last = leaf.va + (range.1 - 1);
        let part = (leaf.va.max(asked.0), last.min(asked.0 + (asked.1 - 1)));
        let in_range = part.0 <= part.1;
        let whole = part == (leaf.va, last);
        // All of the part, or nothing.
        let run = reported
            .iter()
            .find(|run| in_range && run.0 <= part.1 && part.0 <= run.0 + (run.1 - 1));
        let all = run.is_none_or(|&run| holds(run, part.0) && holds(run, part.1));
        assert!(all, "{run:x?} for {leaf:x?} {}", context());
        let told = run.is_some();
        let written = used.iter().any(|used| used.write && holds(range, used.va));
        if old.bits.dirty && in_range {
            assert!(told, "not reported: {leaf:x?} {}", context());
        }
        let noted = leaf.bits.dirty || (told && whole);
        assert_eq!(noted, old.bits.dirty || written, "{leaf:x?} {}", context());
        assert!(noted || !told, "D from nowhere: {leaf:x?} {}", context());
    }
    for &(va, len) in reported {
        let last = va + (len - 1);
        assert!(
            holds(asked, va) && holds(asked, last),
            "not asked for: {}",
            context()
        );
    }
    assert_eq!(after.len(), before.len());
}

/// D means nothing in a table item, and must not stay there.
fn no_dirty_table<H: Hardware>(rig: &Rig<H>, context: &dyn Fn() -> String) {
    let root = rig.root();
    let reach = root.reach(&[View::Cpu]);
    for &at in &reach.links {
        let item = rig.arena.hw_read(at, View::Cpu);
        assert!(item & H::DIRTY == 0, "D in a table item: {}", context());
    }
}
