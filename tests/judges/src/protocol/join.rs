// SPDX-License-Identifier: GPL-2.0-only

//! The steps of a join.

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{inside, Leaf, Run, Status, What};
use crate::hw::Hardware;

impl<H: Hardware> Run<'_, H> {
    /// The item at `at`, which led to the table `child`, is one of `leaf` now.
    pub(super) fn join(&mut self, at: u64, child: u64, leaf: Leaf) {
        self.agree(&leaf, at, What::Tab(child));
        let below = self.below(child);
        for table in &below {
            assert_eq!(self.tables[table].status, Status::Live, "Join: {table:#x}");
            let splits = self.splits.iter().map(|split| split.leaf);
            let mut busy = splits.chain(self.joins.iter().copied());
            assert!(
                busy.all(|other| other.table != *table),
                "Join: something is under way below {at:#x}"
            );
        }
        self.in_join(leaf, at);
        for table in below {
            self.tables.get_mut(&table).unwrap().status = Status::Old;
        }
        self.take("Join");
        self.end_of(leaf);
    }

    /// The item at `at`, which was one of the leaf `old`, is one of `leaf` now.
    pub(super) fn promote(&mut self, at: u64, old: Leaf, leaf: Leaf, (d, d_new): (bool, bool)) {
        assert!(d_new || !d, "Promote: D is dropped at {at:#x}");
        self.agree(&leaf, at, What::Leaf(old));
        self.in_join(leaf, at);
        self.take("Promote");
        self.end_of(leaf);
    }

    /// The join of a leaf, which may begin now.
    fn in_join(&mut self, leaf: Leaf, at: u64) {
        assert!(self.going.is_none(), "a join of what is being unmapped");
        let splits = self.splits.iter().map(|split| split.leaf);
        let joins = self.joins.iter().copied().filter(|join| *join != leaf);
        for other in splits.chain(joins) {
            assert!(
                !self.home_of(&other).any(|home| home == at),
                "a join of {at:#x}, where {other:x?} is under way"
            );
        }
        if !self.joins.contains(&leaf) {
            self.joins.push(leaf);
        }
    }

    /// The join of a leaf is over with the last of its items.
    fn end_of(&mut self, leaf: Leaf) {
        if self.whole(&leaf) {
            self.joins.retain(|join| *join != leaf);
            self.take("JoinEnd");
        }
    }

    /// Every address of `leaf` is translated as it does. What was at `at` is `before`.
    fn agree(&self, leaf: &Leaf, at: u64, before: What) {
        for home in self.home_of(leaf) {
            let what = if home == at {
                before
            } else {
                self.what_now(home)
            };
            self.agrees(leaf, home, what);
        }
    }

    fn agrees(&self, leaf: &Leaf, at: u64, what: What) {
        match what {
            What::Empty => panic!("Join: {leaf:x?}, but {at:#x} is empty"),
            What::Leaf(part) => assert!(
                part.is_part_of(leaf),
                "Join: {leaf:x?}, but {part:x?} is no part of it"
            ),
            What::Tab(child) => {
                for below in Self::slots(child) {
                    self.agrees(leaf, below, self.what_now(below));
                }
            }
        }
    }

    /// A table, and all below it.
    fn below(&self, table: u64) -> Vec<u64> {
        let mut tables = vec![table];
        for at in Self::slots(table) {
            if let What::Tab(child) = self.what_now(at) {
                tables.extend(self.below(child));
            }
        }
        tables
    }

    /// A flush of a range, of what leaves of some levels, and table items of some levels, left in
    /// caches: bit n for level n.
    pub fn flush_joined(&mut self, range: (u64, u64), leaf_levels: u32, table_levels: u32) {
        self.sync();
        let tables = self.tables.iter();
        let old = tables.filter(|(_, place)| place.status == Status::Old);
        let mut old: Vec<_> = old.map(|(&table, place)| (place.level, table)).collect();
        // What is above comes first: where hardware gets there, it gets to what is below.
        old.sort_by_key(|&(level, _)| Reverse(level));
        let mut reached = BTreeSet::new();
        for (level, table) in old {
            let named = leaf_levels & (1 << level) != 0 && table_levels & (2 << level) != 0;
            if named && inside(self.served(table), range) && !reached.contains(&table) {
                self.tables.get_mut(&table).unwrap().status = Status::Kept;
                self.take("FlushJoined");
            } else {
                reached.extend(self.below(table));
            }
        }
    }

    /// A table that a leaf has replaced was looked at: each D in it is in the leaves that serve
    /// these addresses now.
    pub(super) fn carry(&mut self, table: u64) {
        self.sync();
        let dirty: Vec<Leaf> = Self::slots(table)
            .filter(|&at| self.dirty(at))
            .filter_map(|at| match self.what_now(at) {
                What::Leaf(leaf) => Some(leaf),
                _ => None,
            })
            .collect();
        if !dirty.is_empty() {
            let slots = self.slots_in(&[Status::Live]);
            let live = slots.into_iter().filter_map(|at| match self.what_now(at) {
                What::Leaf(leaf) => Some(leaf),
                _ => None,
            });
            for leaf in live.filter(|leaf| !self.marked(leaf)) {
                for old in &dirty {
                    assert!(
                        old.last() < leaf.va || leaf.last() < old.va,
                        "Carry: D of {old:x?} is not in {leaf:x?}"
                    );
                }
            }
        }
        self.items.remove(&table);
        self.tables.get_mut(&table).unwrap().status = Status::Safe;
        self.take("Carry");
    }

    /// No join is under way, as the caller sees it.
    pub fn join_end(&mut self) {
        self.sync();
        let part = self.joins.first();
        assert!(part.is_none(), "JoinEnd: {part:x?} is not whole");
        for (table, place) in &self.tables {
            assert!(
                !matches!(place.status, Status::Old | Status::Kept),
                "the old table {table:#x} is left"
            );
        }
    }
}
