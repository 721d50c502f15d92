// SPDX-License-Identifier: GPL-2.0-only

//! Joins, and what is wrong with them.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{run_scene, Devices, Mistake, Scene};
use crate::arena::{watch, Arena, Event, Step, Store, View};
use crate::hw::{Amd, Entry, Hardware, Vtd};
use crate::protocol::Run;
use crate::rig::Setup;
use crate::tests::{amd, G1, K4, M2};
use iotable::range::Locked;
use iotable::{Flusher, RawTable, Stale};

/// What is wrong with a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The old tables are not flushed.
    NoFlush,
    /// They are, but for the last page.
    ShortFlush,
    /// They are, but for the table items that led to them.
    NoLevel,
    /// They are freed before the flush.
    FreedEarly,
    /// A late dirty bit is not folded.
    NoFold,
    /// It is looked for before the flush.
    FoldedEarly,
    /// A store to a smaller leaf does not look at what is there.
    NoCompare,
    /// The new leaf goes elsewhere.
    Elsewhere,
    /// It goes across another attribute.
    Across,
    /// The last item of a group stays.
    NotWhole,
    /// An old table is written to.
    Stray,
}

/// Between the join, the run and the devices.
struct Watched<'s, 'a, H: Hardware> {
    run: &'s mut Run<'a, H>,
    devices: &'s mut Devices<'a, H>,
    wrong: Option<Wrong>,
    /// What was in the item before the store.
    found: u64,
    /// Items that were stored to.
    stored: Vec<u64>,
}

impl<H: Hardware> Watched<'_, '_, H> {
    fn event(&mut self, event: Event) {
        let arena = self.devices.root.arena;
        match event.step {
            Step::Before(Store::Publish) => {
                self.devices.act();
                if self.wrong == Some(Wrong::NoCompare) {
                    arena.hw_set(event.at, H::DIRTY);
                }
                self.found = arena.hw_read(event.at, View::Cpu);
                self.run.event(event);
            }
            Step::After(Store::Publish) => {
                let raw = arena.hw_read(event.at, View::Cpu);
                if raw == self.found {
                    return self.run.event(event);
                }
                arena.poke(event.at, self.instead_of(raw, event.at));
                self.stored.push(event.at);
                self.run.event(event);
                if self.wrong == Some(Wrong::FreedEarly) {
                    if let Entry::Table { addr, .. } = self.devices.root.hw.decode(self.found, 1) {
                        self.run.free(addr);
                    }
                }
            }
            _ => self.run.event(event),
        }
    }

    /// What a mistake would have stored.
    fn instead_of(&self, raw: u64, at: u64) -> u64 {
        let folds = self.stored.contains(&at);
        match self.wrong {
            Some(Wrong::NoCompare) => raw & !H::DIRTY,
            Some(Wrong::Elsewhere) => raw ^ (1 << 35),
            Some(Wrong::Across) => raw ^ (1 << H::IGNORED.trailing_zeros()),
            Some(Wrong::NoFold) if folds => self.found,
            Some(Wrong::NotWhole) if self.stored.len() == 3 => self.found,
            _ => raw,
        }
    }

    fn flush(&mut self, stale: Stale) {
        for _ in 0..4 {
            self.devices.act();
        }
        let (first, mut last) = (stale.va.0, stale.last.0);
        let mut table_levels = stale.table_levels;
        match self.wrong {
            Some(Wrong::NoFlush | Wrong::FoldedEarly) => return,
            Some(Wrong::ShortFlush) => last -= 1 << H::GRANULE_LG2,
            Some(Wrong::NoLevel) => table_levels = 0,
            Some(Wrong::NoFold) => self.devices.write_blindly(0),
            Some(Wrong::Stray) => {
                let (_, hit) = self.devices.cached[0];
                let raw = self.devices.root.arena.hw_read(hit.item, View::Cpu);
                self.devices.root.arena.poke(hit.item, raw ^ H::IGNORED);
            }
            _ => {}
        }
        self.run
            .flush_joined((first, last), stale.leaf_levels, table_levels);
        let cached = &mut self.devices.cached;
        cached.retain(|&(at, _)| at < first || last < at);
    }

    fn free(&mut self, table: RawTable<Arena>) {
        let addr = table.ptr().as_ptr() as u64;
        if self.wrong == Some(Wrong::FoldedEarly) {
            self.devices.write_blindly(0);
            self.run.flush_joined((0, u64::MAX), !0, !0);
        }
        self.run.free(addr);
        self.devices.root.arena.free_gathered(table);
    }
}

struct Flushes<'w, 's, 'a, H: Hardware>(&'w RefCell<Watched<'s, 'a, H>>);

impl<H: Hardware> Flusher<Arena> for Flushes<'_, '_, '_, H> {
    fn flush(&mut self, stale: Stale) {
        self.0.borrow_mut().flush(stale);
    }

    fn free(&mut self, table: RawTable<Arena>) {
        self.0.borrow_mut().free(table);
    }
}

impl<H: Hardware> Scene<'_, H> {
    /// A join, its flushes, folds and frees.
    pub(super) fn join(&mut self, range: Locked) {
        let count = |run: &Run<'_, H>, step| run.taken().get(step).copied().unwrap_or(0);
        let before = (count(&self.run, "JoinEnd"), count(&self.run, "Carry"));
        let watched = RefCell::new(Watched {
            run: &mut self.run,
            devices: &mut self.devices,
            wrong: match self.mistake {
                Mistake::Join(wrong) => Some(wrong),
                _ => None,
            },
            found: 0,
            stored: Vec::new(),
        });
        let mut step = |event: Event| watched.borrow_mut().event(event);
        let rig = self.rig;
        let done = watch(&mut step, || {
            rig.pt().join(range, &mut Flushes(&watched)).unwrap()
        });
        self.run.join_end();
        self.all_shown();
        assert_eq!(count(&self.run, "JoinEnd"), before.0 + done.leaves);
        assert_eq!(count(&self.run, "Carry"), before.1 + done.tables);
    }
}

/// A mapping that is split at some places, and joined.
fn back<H: Hardware>(
    setup: Setup,
    at: (u64, u64),
    holes: &[(u64, u64)],
    seed: u64,
    mistake: Mistake,
) -> BTreeMap<&'static str, usize> {
    run_scene::<H>(setup, at, seed, mistake, |scene, lock| {
        for &(first, len) in holes {
            scene.devices.cache();
            scene.split(lock.part(first, len));
        }
        scene.devices.cache();
        scene.join(lock.range());
    })
}

/// More tables in one group than share a flush: a part of the new leaf is there when they are
/// flushed, looked at and freed.
#[test]
fn a_flush_in_the_middle_of_a_group_is_a_run() {
    let holes: Vec<_> = (0..16).map(|n| (16 * M2 + n * M2 + K4, K4)).collect();
    for seed in 0..8 {
        let at = (16 * M2, 16 * M2);
        let taken = back::<Amd<false>>(amd(), at, &holes, seed, Mistake::None);
        assert_eq!((taken["Join"], taken["JoinEnd"]), (16, 1));
        assert_eq!((taken["FlushJoined"], taken["Carry"]), (16, 16));
    }
}

/// Tables, and leaves of two sizes, become one group.
#[test]
fn a_group_of_all_kinds_is_a_run() {
    for seed in 0..8 {
        let at = (8 * M2, 8 * M2);
        let taken = back::<Amd<false>>(amd(), at, &[(9 * M2 + K4, K4)], seed, Mistake::None);
        assert_eq!(
            (taken["Join"], taken["Promote"], taken["JoinEnd"]),
            (1, 7, 1)
        );
    }
}

/// Two levels of tables go at once: the upper one is flushed first.
#[test]
fn a_deep_subtree_is_a_run() {
    for seed in 0..4 {
        let taken = back::<Vtd>(
            Setup::plain(3),
            (G1, G1),
            &[(G1 + K4, K4)],
            seed,
            Mistake::None,
        );
        assert_eq!(
            (taken["Join"], taken["FlushJoined"], taken["Free"]),
            (1, 2, 2)
        );
    }
}

/// 2M of tables that become one leaf.
fn of_a_table(wrong: Wrong) {
    let holes = [(G1 + K4, K4)];
    back::<Vtd>(Setup::plain(2), (G1, M2), &holes, 7, Mistake::Join(wrong));
}

/// Four leaves that become one, in the table that they are in.
fn of_a_group(wrong: Wrong) {
    let holes = [(4 * K4 + K4, 2 * K4)];
    back::<Amd<false>>(amd(), (4 * K4, 4 * K4), &holes, 7, Mistake::Join(wrong));
}

#[test]
#[should_panic(expected = "which is Old")]
fn a_flush_that_is_left_out_is_seen() {
    of_a_table(Wrong::NoFlush);
}

#[test]
#[should_panic(expected = "which is Old")]
fn a_flush_that_is_short_is_seen() {
    of_a_table(Wrong::ShortFlush);
}

#[test]
#[should_panic(expected = "which is Old")]
fn a_flush_of_leaves_only_is_seen() {
    of_a_table(Wrong::NoLevel);
}

#[test]
#[should_panic(expected = "which is Old")]
fn a_table_that_is_freed_too_early_is_seen() {
    of_a_table(Wrong::FreedEarly);
}

#[test]
#[should_panic(expected = "Carry: D of")]
fn a_fold_that_is_left_out_is_seen() {
    of_a_table(Wrong::NoFold);
}

#[test]
#[should_panic(expected = "Carry: D of")]
fn a_fold_before_the_flush_is_seen() {
    of_a_table(Wrong::FoldedEarly);
}

#[test]
#[should_panic(expected = "Promote: D is dropped")]
fn a_store_that_does_not_compare_is_seen() {
    of_a_group(Wrong::NoCompare);
}

#[test]
#[should_panic(expected = "is no part of it")]
fn a_leaf_for_a_table_that_goes_elsewhere_is_seen() {
    of_a_table(Wrong::Elsewhere);
}

#[test]
#[should_panic(expected = "is no part of it")]
fn a_leaf_for_leaves_that_goes_elsewhere_is_seen() {
    of_a_group(Wrong::Elsewhere);
}

#[test]
#[should_panic(expected = "is no part of it")]
fn a_leaf_across_another_attribute_is_seen() {
    of_a_table(Wrong::Across);
}

#[test]
#[should_panic(expected = "is no part of it")]
fn a_larger_leaf_across_another_attribute_is_seen() {
    of_a_group(Wrong::Across);
}

#[test]
#[should_panic(expected = "is not whole")]
fn a_group_that_stays_in_part_is_seen() {
    of_a_group(Wrong::NotWhole);
}

#[test]
#[should_panic(expected = "a store that is no step")]
fn a_store_to_an_old_table_is_seen() {
    of_a_table(Wrong::Stray);
}
