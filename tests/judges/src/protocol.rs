// SPDX-License-Identifier: GPL-2.0-only

//! Whether what was stored is a run of the system that `tests/prove/protocol` proves.
//!
//! `Protocol.v` says which stores software may make, and the proofs say that then no walk, no cache
//! and no dirty bit goes wrong, for tables of any size. They speak about this crate as far as its
//! stores are steps of that system: [`Run`] follows the arena's events, takes each store for a step
//! and panics where a condition of the step does not hold. Names of steps and conditions are those
//! of `Protocol.v`. It decodes items as hardware does, and never asks a
//! [`Format`](iotable::fmt::Format).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::arena::{Event, Step, Store, View};
use super::hw::{Entry, Hardware, Root};
use crate::size::{floor, max_offset};

mod join;

/// The list of steps that `Protocol.v` is compared with, too.
pub const STEPS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../prove/protocol/steps.list"
));

/// The steps of software in that list.
pub fn software_steps() -> Vec<&'static str> {
    let rows = STEPS.lines().filter(|row| !row.starts_with('#'));
    let fields = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let software = fields.filter(|row| row[1] == "software");
    software.map(|row| row[0]).collect()
}

/// A leaf at its place: `home` and `tr` of `Protocol.v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaf {
    table: u64,
    va: u64,
    size_lg2: u32,
    oa: u64,
    /// Rights and all other bits.
    rest: (bool, bool, u64),
}

impl Leaf {
    fn last(&self) -> u64 {
        self.va + max_offset(self.size_lg2)
    }

    fn covers(&self, va: u64) -> bool {
        self.va <= va && va <= self.last()
    }

    /// Whether it translates a part of what `other` does, and as that does.
    fn is_part_of(&self, other: &Leaf) -> bool {
        other.covers(self.va)
            && other.covers(self.last())
            && self.oa.wrapping_sub(other.oa) == self.va - other.va
            && self.rest == other.rest
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Empty,
    Leaf(Leaf),
    Tab(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Fresh,
    Live,
    Gone,
    Old,
    Kept,
    Safe,
}

/// Of a table that is not freed. Of a fresh one nobody knows its place.
#[derive(Clone, Copy, Debug)]
struct Place {
    status: Status,
    level: u8,
    va: u64,
}

/// `Open late` or `Flushed late`.
#[derive(Clone, Copy, Debug)]
struct Split {
    leaf: Leaf,
    open: bool,
    late: bool,
}

/// A run of the system, so far.
pub struct Run<'a, H> {
    root: Root<'a, H>,
    tables: BTreeMap<u64, Place>,
    /// The items of live and old tables, as they were after the last step.
    items: BTreeMap<u64, Vec<u64>>,
    splits: Vec<Split>,
    joins: Vec<Leaf>,
    /// What is being unmapped, and what was flushed of it.
    going: Option<(u64, u64)>,
    holes: Vec<(u64, u64)>,
    cleared: Vec<Leaf>,
    before: Option<(u64, u64)>,
    taken: BTreeMap<&'static str, usize>,
}

fn inside((first, last): (u64, u64), range: (u64, u64)) -> bool {
    range.0 <= first && last <= range.1
}

impl<'a, H: Hardware> Run<'a, H> {
    /// Begins with what is there.
    pub fn new(root: Root<'a, H>) -> Self {
        let mut run = Run {
            root,
            tables: BTreeMap::new(),
            items: BTreeMap::new(),
            splits: Vec::new(),
            joins: Vec::new(),
            going: None,
            holes: Vec::new(),
            cleared: Vec::new(),
            before: None,
            taken: BTreeMap::new(),
        };
        for at in root.scan(View::Cpu).tables {
            run.link(at.addr, at.level, at.va);
        }
        run
    }

    /// How often each step was taken.
    pub fn taken(&self) -> &BTreeMap<&'static str, usize> {
        &self.taken
    }

    fn take(&mut self, step: &'static str) {
        *self.taken.entry(step).or_default() += 1;
    }

    fn link(&mut self, addr: u64, level: u8, va: u64) {
        let status = Status::Live;
        self.tables.insert(addr, Place { status, level, va });
        let items = Self::slots(addr).map(|at| self.raw(at)).collect();
        self.items.insert(addr, items);
    }

    fn slots(table: u64) -> impl Iterator<Item = u64> {
        (table..table + (8 << H::ITEMS_LG2)).step_by(8)
    }

    fn raw(&self, at: u64) -> u64 {
        self.root.arena.hw_read(at, View::Cpu)
    }

    fn dirty(&self, at: u64) -> bool {
        self.raw(at) & H::DIRTY != 0
    }

    /// The table that an item is in.
    fn table_of(&self, at: u64) -> (u64, Place) {
        let table = self.tables.range(..=at).next_back();
        let (&addr, &place) = table.expect("an item of no table");
        assert!(at < addr + (8 << H::ITEMS_LG2), "an item of no table");
        (addr, place)
    }

    fn item_lg2(level: u8) -> u32 {
        H::GRANULE_LG2 + H::ITEMS_LG2 * u32::from(level)
    }

    /// The first address that an item serves.
    fn va_of(&self, table: u64, place: Place, at: u64) -> u64 {
        let va = place.va + (((at - table) / 8) << Self::item_lg2(place.level));
        if self.root.sign && (va >> (self.root.va_lg2 - 1)) & 1 == 1 {
            va | !max_offset(self.root.va_lg2)
        } else {
            va
        }
    }

    fn what(&self, raw: u64, table: u64, place: Place, at: u64) -> What {
        match self.root.hw.decode(raw, place.level) {
            Entry::Empty => What::Empty,
            Entry::Table { addr, read, write } => {
                assert!(read && write, "a table item that takes rights away");
                What::Tab(addr)
            }
            Entry::Leaf(bits) => What::Leaf(Leaf {
                table,
                va: floor(self.va_of(table, place, at), bits.size_lg2),
                size_lg2: bits.size_lg2,
                oa: bits.oa,
                rest: (bits.read, bits.write, bits.rest),
            }),
        }
    }

    fn what_now(&self, at: u64) -> What {
        let (table, place) = self.table_of(at);
        self.what(self.raw(at), table, place, at)
    }

    /// The items that a leaf of a table of this level takes.
    fn home(leaf: &Leaf, level: u8) -> impl Iterator<Item = u64> {
        let item_lg2 = Self::item_lg2(level);
        let first = Root::<H>::item_at(leaf.table, level, leaf.va);
        (first..first + (8 << (leaf.size_lg2 - item_lg2))).step_by(8)
    }

    fn home_of(&self, leaf: &Leaf) -> impl Iterator<Item = u64> {
        Self::home(leaf, self.tables[&leaf.table].level)
    }

    fn marked(&self, leaf: &Leaf) -> bool {
        let mut home = self.home_of(leaf);
        home.any(|at| self.what_now(at) == What::Leaf(*leaf) && self.dirty(at))
    }

    fn whole(&self, leaf: &Leaf) -> bool {
        self.home_of(leaf)
            .all(|at| self.what_now(at) == What::Leaf(*leaf))
    }

    /// Hardware may have set A and D since the last step; nothing else may have changed.
    fn sync(&mut self) {
        let root = self.root;
        let set = H::ACCESSED | H::DIRTY | H::TABLE_ACCESSED;
        for (&table, items) in &mut self.items {
            let now = root.arena.hw_items(table, 1 << H::ITEMS_LG2, View::Cpu);
            for (at, (cell, old)) in Self::slots(table).zip(now.iter().zip(items)) {
                let new = cell.hw_read();
                let changed = new ^ *old;
                assert!(
                    changed & !set == 0 && new & changed == changed,
                    "{at:#x} was {old:#x} and is {new:#x}: a store that is no step"
                );
                *old = new;
            }
        }
    }

    /// The items of tables that are so.
    fn slots_in(&self, statuses: &[Status]) -> Vec<u64> {
        let tables = self.tables.iter();
        let of = tables.filter(|(_, place)| statuses.contains(&place.status));
        of.flat_map(|(&table, _)| Self::slots(table)).collect()
    }

    /// The next event of the arena. What the test does as hardware in a hook comes before it.
    pub fn event(&mut self, event: Event) {
        match event.step {
            Step::Alloc => {
                let (status, level, va) = (Status::Fresh, 0, 0);
                let old = self.tables.insert(event.at, Place { status, level, va });
                assert!(old.is_none(), "a table that is not freed");
            }
            Step::Free => self.free(event.at),
            Step::Before(Store::Init) => {
                let status = self.table_of(event.at).1.status;
                assert_eq!(status, Status::Fresh, "Init of a table in use");
                self.take("Init");
            }
            Step::Before(store) => {
                // An unmap makes very many; its flush looks at all.
                if store == Store::Publish {
                    self.sync();
                    self.look();
                }
                self.before = Some((event.at, self.raw(event.at)));
            }
            Step::After(Store::Publish | Store::Set) => {
                let (at, old) = self.before.take().expect("before and after");
                assert_eq!(at, event.at);
                let new = self.raw(at);
                if new != old {
                    self.store(at, old, new);
                }
            }
            Step::BeforeTop | Step::AfterTop => panic!("a step that is not in the system"),
            Step::Read | Step::After(Store::Init) | Step::Cleaned => {}
        }
    }

    fn store(&mut self, at: u64, old: u64, new: u64) {
        let (table, place) = self.table_of(at);
        if place.status == Status::Fresh {
            return self.take("Init");
        }
        assert_eq!(place.status, Status::Live, "a store to an unlinked table");
        let d = old & H::DIRTY != 0;
        let d_new = new & H::DIRTY != 0;
        if let Some(items) = self.items.get_mut(&table) {
            items[((at - table) / 8) as usize] = new;
        }
        match (
            self.what(old, table, place, at),
            self.what(new, table, place, at),
        ) {
            (What::Leaf(leaf), What::Tab(child)) => {
                assert!(!d_new, "Subdivide: D in the table item");
                let va = self.va_of(table, place, at);
                self.built(child, place.level - 1, va, (&leaf, d));
                let split = self.in_split(&leaf, at);
                split.late |= d;
                self.link_built(child, place.level - 1, va);
                self.take("Subdivide");
            }
            (What::Tab(child), What::Leaf(leaf)) => self.join(at, child, leaf),
            (What::Leaf(old), What::Leaf(leaf)) if old.size_lg2 < leaf.size_lg2 => {
                self.promote(at, old, leaf, (d, d_new));
            }
            (What::Leaf(leaf), What::Leaf(other)) if leaf != other => {
                assert!(d_new || !d, "Demote: D is dropped at {at:#x}");
                assert!(
                    other.is_part_of(&leaf),
                    "Demote: {other:x?} for a part of {leaf:x?}"
                );
                assert!(self.splits.iter().all(|split| split.leaf != other));
                self.in_split(&leaf, at);
                self.take("Demote");
            }
            (What::Leaf(_), What::Leaf(_)) => {
                assert!(d_new && !d, "{old:#x} to {new:#x} is no step");
                self.take("FoldMark");
            }
            (What::Tab(_), What::Tab(_)) if d && !d_new => {
                for split in &self.splits {
                    assert!(
                        !self.home_of(&split.leaf).any(|home| home == at)
                            || (!split.open && split.late),
                        "FoldClean: nobody has looked at this D"
                    );
                }
                self.take("FoldClean");
            }
            // A bit that hardware ignores.
            (What::Tab(child), What::Tab(other)) => assert_eq!(child, other),
            (What::Leaf(leaf), What::Empty) => {
                let going = self.going.expect("Clear: nothing is being unmapped");
                assert!(inside((leaf.va, leaf.last()), going), "Clear: {leaf:x?}");
                self.cleared.push(leaf);
                self.take("Clear");
            }
            (What::Tab(child), What::Empty) => {
                let going = self.going.expect("Unlink: nothing is being unmapped");
                assert!(inside(self.served(child), going), "Unlink: {child:#x}");
                for at in Self::slots(child) {
                    assert_eq!(self.what_now(at), What::Empty, "Unlink: {at:#x} is in use");
                }
                self.items.remove(&child);
                self.tables.get_mut(&child).unwrap().status = Status::Gone;
                self.take("Unlink");
            }
            (from, to) => panic!("{from:x?} to {to:x?} is no step"),
        }
    }

    /// The addresses that a table serves.
    fn served(&self, table: u64) -> (u64, u64) {
        let place = self.tables[&table];
        let first = self.va_of(table, place, table);
        (first, first + max_offset(Self::item_lg2(place.level + 1)))
    }

    /// The split of a leaf, which may begin now.
    fn in_split(&mut self, leaf: &Leaf, at: u64) -> &mut Split {
        assert!(self.going.is_none(), "a split of what is being unmapped");
        let splits = self.splits.iter().map(|split| split.leaf);
        let splits = splits.filter(|split| split != leaf);
        for other in splits.chain(self.joins.iter().copied()) {
            assert!(
                !self.home_of(&other).any(|home| home == at),
                "a split of {at:#x}, where {other:x?} is under way"
            );
        }
        let found = self.splits.iter().position(|split| split.leaf == *leaf);
        let index = found.unwrap_or(self.splits.len());
        if found.is_none() {
            let (leaf, open, late) = (*leaf, true, false);
            self.splits.push(Split { leaf, open, late });
        }
        let split = &mut self.splits[index];
        assert!(split.open, "a store to a leaf that was flushed");
        split
    }

    /// A subtree that nobody can reach yet is complete, and translates as `leaf` does. All of it is
    /// dirty if the item was: the fold would see to that, but without dirty tracking there is none.
    fn built(&self, table: u64, level: u8, va: u64, (leaf, d): (&Leaf, bool)) {
        let place = self.tables.get(&table).expect("a table item to no table");
        assert_eq!(place.status, Status::Fresh, "linked twice");
        let place = Place {
            level,
            va,
            ..*place
        };
        // Behind the group that was looked at last.
        let mut next = table;
        for at in Self::slots(table) {
            if at < next {
                continue;
            }
            match self.what(self.raw(at), table, place, at) {
                What::Empty => panic!("Subdivide: {at:#x} below is empty"),
                What::Tab(child) => {
                    self.built(child, level - 1, self.va_of(table, place, at), (leaf, d));
                    next = at + 8;
                }
                What::Leaf(new) => {
                    assert_eq!(new.va, self.va_of(table, place, at), "half a group");
                    assert!(new.is_part_of(leaf), "Subdivide: {new:x?} below {leaf:x?}");
                    assert!(
                        !d || self.dirty(at),
                        "Subdivide: D is dropped below, at {at:#x}"
                    );
                    for home in Self::home(&new, level) {
                        let what = self.what(self.raw(home), table, place, home);
                        assert_eq!(what, What::Leaf(new), "half a group");
                        next = home + 8;
                    }
                }
            }
        }
    }

    fn link_built(&mut self, table: u64, level: u8, va: u64) {
        self.link(table, level, va);
        let place = self.tables[&table];
        for at in Self::slots(table) {
            if let What::Tab(child) = self.what_now(at) {
                self.link_built(child, level - 1, self.va_of(table, place, at));
            }
        }
    }

    /// The flush of a leaf that was replaced.
    pub fn flush_old(&mut self, va: u64, size_lg2: u32) {
        self.sync();
        let at = |split: &Split| split.leaf.va == va && split.leaf.size_lg2 == size_lg2;
        let index = self.splits.iter().position(at);
        let index = index.expect("FlushOld: not a leaf that was replaced");
        let leaf = self.splits[index].leaf;
        assert!(
            self.home_of(&leaf)
                .all(|at| self.what_now(at) != What::Leaf(leaf)),
            "FlushOld: a part of {leaf:x?} is still there"
        );
        self.splits[index].open = false;
        self.take("FlushOld");
    }

    /// Software may look at D at any time after the flush.
    fn look(&mut self) {
        for index in 0..self.splits.len() {
            let split = self.splits[index];
            if !split.open && !split.late && self.home_of(&split.leaf).any(|at| self.dirty(at)) {
                self.splits[index].late = true;
                self.take("FoldLook");
            }
        }
    }

    /// The split is over, as the caller sees it.
    pub fn fold_end(&mut self) {
        self.sync();
        for split in core::mem::take(&mut self.splits) {
            let old = split.leaf;
            assert!(!split.open, "FoldEnd: {old:x?} was not flushed");
            let meant = split.late || self.home_of(&old).any(|at| self.dirty(at));
            for at in self.slots_in(&[Status::Live]) {
                let (table, place) = self.table_of(at);
                if !old.covers(self.va_of(table, place, at)) {
                    continue;
                }
                if let What::Leaf(leaf) = self.what_now(at) {
                    assert!(
                        !meant || self.marked(&leaf),
                        "FoldEnd: D may be meant for {leaf:x?}"
                    );
                    assert!(self.whole(&leaf), "FoldEnd: {leaf:x?} is not whole");
                }
            }
            self.take("FoldEnd");
        }
    }

    /// Whether the leaf that serves an address is dirty.
    pub fn shows(&self, va: u64) -> bool {
        let hit = self.root.translate(va).expect("mapped");
        match self.what_now(hit.item) {
            What::Leaf(leaf) => self.marked(&leaf),
            _ => false,
        }
    }

    /// An unmap begins.
    pub fn forget(&mut self, first: u64, last: u64) {
        assert!(self.splits.is_empty(), "Forget: a split is not over");
        assert!(self.joins.is_empty(), "Forget: a join is not over");
        self.going = Some((first, last));
        self.take("Forget");
    }

    /// The flush of the range of an unmap.
    pub fn flush_hole(&mut self, first: u64, last: u64) {
        self.sync();
        let range = (first, last);
        let going = self.going.expect("FlushHole: nothing is being unmapped");
        assert!(inside(range, going), "FlushHole: more than was unmapped");
        for at in self.slots_in(&[Status::Live, Status::Old]) {
            if let What::Leaf(leaf) = self.what_now(at) {
                let apart = leaf.last() < first || last < leaf.va;
                assert!(apart, "FlushHole: {leaf:x?} is still there");
            }
        }
        for leaf in &self.cleared {
            let apart = leaf.last() < first || last < leaf.va;
            assert!(apart || inside((leaf.va, leaf.last()), range), "{leaf:x?}");
        }
        self.holes.push(range);
        self.take("FlushHole");
        let tables: Vec<u64> = self.tables.keys().copied().collect();
        for table in tables {
            let gone = self.tables[&table].status == Status::Gone;
            if gone && inside(self.served(table), range) {
                self.tables.get_mut(&table).unwrap().status = Status::Safe;
                self.take("FlushTable");
            }
        }
    }

    /// A table is freed.
    pub fn free(&mut self, table: u64) {
        let kept = |place: &Place| place.status == Status::Kept;
        if self.tables.get(&table).is_some_and(kept) {
            self.carry(table);
        }
        let place = self.tables.remove(&table).expect("a table");
        assert!(
            matches!(place.status, Status::Fresh | Status::Safe),
            "Free of {table:#x}, which is {:?}",
            place.status
        );
        self.take("Free");
    }

    /// Nothing is under way any more: what was unmapped is flushed, what was unlinked is freed.
    pub fn end(mut self) -> BTreeMap<&'static str, usize> {
        self.sync();
        assert!(self.splits.is_empty());
        self.join_end();
        for leaf in &self.cleared {
            let at = (leaf.va, leaf.last());
            let flushed = self.holes.iter().any(|&hole| inside(at, hole));
            assert!(flushed, "{leaf:x?} was unmapped and not flushed");
        }
        let live = |place: &Place| place.status == Status::Live;
        assert!(self.tables.values().all(live), "a table was not freed");
        self.taken
    }
}
