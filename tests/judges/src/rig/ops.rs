// SPDX-License-Identifier: GPL-2.0-only

//! The operations, each compared with the model, the hardware and the accounts.

#![forbid(unsafe_code)]

use crate::arena::{watch, Event, Step, Store, View};
use crate::hw::{Hardware, Hit, TableAt};
use crate::log::{Dirty, Log};
use crate::model::Cut;
use crate::size::max_offset;
use iotable::fmt::{Format, Prot};
use iotable::{Bytes, Error, Mapped, Result};

use super::still::{marked_after_cleaning, still, still_from_every_top};
use super::{map, Rig};

impl<H: Hardware> Rig<H> {
    /// Maps. `None` if the format refuses such a mapping, as it must.
    pub fn map(&mut self, va: u64, len: u64, oa: u64, prot: Prot) -> Option<Mapped> {
        let (grant, attrs) = self.grant(prot)?;
        let lock = self.arena.lock(va, len).unwrap();
        let mut log = Log::new(self.root());
        let root = self.root();
        let (first_top, allocated) = (self.arena.tops().len(), self.arena.allocated());
        let probes = self.some_leaves();
        let mut look = |event: Event| {
            marked_after_cleaning(&root, event);
            if matches!(event.step, Step::BeforeTop | Step::AfterTop) {
                still_from_every_top(&root, first_top, &probes);
            }
        };
        let mapped = watch(&mut look, || {
            map(&self.pt(), lock.range(), oa, attrs, &mut log)
        });
        let log = log.finish();
        assert_eq!(log.levels, 0, "map removed a leaf");
        drop(lock);
        let allocated = self.arena.allocated() - allocated;
        let linked = self.tables() + log.freed - log.tables;
        assert_eq!(allocated, linked, "a table that was not needed");
        if mapped.result == Err(Error::NoMemory) {
            if mapped.bytes != Bytes(0) {
                let part = self.model.map(va, mapped.bytes.0, oa, grant);
                assert_eq!(part, (mapped.bytes.0, Ok(())), "bytes of a partial map");
            }
        } else {
            let (bytes, result) = self.model.map(va, len, oa, grant);
            let bytes = Bytes(bytes);
            assert_eq!(mapped, Mapped { bytes, result });
        }
        self.check_top(first_top, mapped.result.is_ok().then_some((va, len)));
        self.check();
        Some(mapped)
    }

    /// Some of the leaves, each with what it translates to.
    pub fn some_leaves(&self) -> Vec<(u64, Option<Hit>)> {
        if self.arena.hw_top().is_none() {
            return Vec::new();
        }
        let leaves = self.model.leaves();
        let step = leaves.len() / 16 + 1;
        let ends = leaves.iter().step_by(step).chain(leaves.last());
        let at = ends.flat_map(|at| [at.va, at.va + max_offset(at.bits.size_lg2)]);
        let root = self.root();
        at.map(|va| (va, root.translate(va))).collect()
    }

    /// Panics if the top grew in another way than one level at a time, or, for a range that was
    /// mapped, to more than it takes.
    fn check_top(&self, first_top: usize, mapped: Option<(u64, u64)>) {
        let tops = self.arena.tops();
        for pair in tops.windows(2) {
            assert_eq!(pair[1].1, pair[0].1.above(), "one level at a time");
        }
        let (Some((va, len)), Some(&(_, before))) = (mapped, tops.get(first_top.wrapping_sub(1)))
        else {
            return;
        };
        let last = va + (len - 1);
        let leaves = self.model.leaves().into_iter();
        let inside = leaves.filter(|leaf| va <= leaf.va && leaf.va <= last);
        let highest_leaf = inside.map(|leaf| leaf.level).max();
        let rules = &self.model.rules;
        let fits = (0..).find(|level| last <= max_offset(rules.item_lg2(level + 1)));
        let want = fits.max(highest_leaf).max(Some(before.0));
        assert_eq!(Some(self.root().start().1), want, "level of the top");
    }

    /// Maps what can be mapped.
    pub fn map_ok(&mut self, va: u64, len: u64, oa: u64, prot: Prot) {
        let mapped = self.map(va, len, oa, prot).expect("a usual mapping");
        assert_eq!(mapped.result, Ok(()));
    }

    /// Unmaps; returns the bytes.
    pub fn unmap(&mut self, va: u64, len: u64) -> u64 {
        let allocated = self.arena.allocated();
        let lock = self.arena.lock(va, len).unwrap();
        let last = lock.range().last().0;
        let mut log = Log::new(self.root());
        let Bytes(bytes) = self.pt().unmap(lock.range(), &mut log);
        let log = log.finish();
        drop(lock);
        let gone = if self.in_reach(va, last) {
            self.model.unmap(va, last)
        } else {
            Vec::new()
        };
        let want: u64 = gone.iter().map(|(_, bits)| 1 << bits.size_lg2).sum();
        assert_eq!(bytes, want, "bytes unmapped");
        let mut levels = 0;
        for (_, bits) in &gone {
            levels |= 1 << self.model.rules.level_of(bits.size_lg2);
        }
        assert_eq!(log.levels, levels, "levels of removed leaves");
        let end = va.wrapping_add(bytes).wrapping_sub(1);
        if bytes == 0 {
            assert!(log.ranges.is_empty());
        } else {
            // Exactly what changed, without a gap and nothing else.
            assert_eq!(log.ranges.first().unwrap().0, va);
            assert_eq!(log.ranges.last().unwrap().1, end);
            for pair in log.ranges.windows(2) {
                assert_eq!(pair[0].1 + 1, pair[1].0);
            }
        }
        assert_eq!(self.arena.allocated(), allocated, "unmap allocated");
        let scan = self.root().scan(View::Cpu);
        assert_eq!(scan.tables.len() + log.freed, log.tables);
        if bytes != 0 {
            // What the caller asked for and got, no table may serve any more.
            let end = end.min(last);
            for at in &scan.tables {
                let covered = va <= at.va && at.va.saturating_add(max_offset(at.size_lg2)) <= end;
                assert!(
                    !covered || at.addr == self.root().start().0,
                    "{at:x?} stayed"
                );
            }
        }
        self.check();
        bytes
    }

    /// Addresses around the leaves and cuts of a split, each with what it translates to.
    pub fn probes(&self, va: u64, len: u64) -> Vec<(u64, Option<Hit>)> {
        let last = va.wrapping_add(len).wrapping_sub(1);
        let page = self.model.rules.page();
        let mut at = vec![
            va,
            va.wrapping_sub(1),
            last,
            last.wrapping_add(1),
            va.wrapping_sub(page),
            last.wrapping_add(page),
            va.wrapping_add(len >> 1),
        ];
        let mut random = va ^ len.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
        for edge in [va, last] {
            if let Some((start, bits)) = self.model.find(edge) {
                let size = 1u64 << bits.size_lg2;
                let quarter = size >> 2;
                at.extend([start, start.wrapping_sub(1), start + (size - 1)]);
                at.extend([
                    start.wrapping_add(size),
                    start + (page - 1),
                    start + (size - page),
                ]);
                at.extend([
                    start + quarter,
                    start + 2 * quarter - 1,
                    start + 3 * quarter,
                ]);
                for _ in 0..4 {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    at.push(start + (random >> 16) % size);
                }
            }
        }
        at.sort_unstable();
        at.dedup();
        let root = self.root();
        at.into_iter()
            .map(|va| (va, root.translate_any(va)))
            .collect()
    }

    /// Splits, with a look at the table after each store.
    pub fn split(&mut self, va: u64, len: u64) -> Result<usize> {
        self.split_written(va, len, None)
    }

    /// As [`split`](Self::split). With `late`, a device writes through a copy of one of the
    /// replaced leaves, cached before, and the hardware notes it in the n-th item of the old leaf.
    pub fn split_written(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize> {
        let crossed = self.model.crossed(va, len);
        let probes = self.probes(va, len);
        let before = self.arena.allocated();
        let lock = self.arena.lock(va, len).unwrap();
        let root = self.root();
        let mut unlinked = 0u32;
        let mut look = |event: Event| {
            marked_after_cleaning(&root, event);
            match event.step {
                Step::After(Store::Init) => {
                    // Not each time: the test in `split_race.rs` does.
                    unlinked += 1;
                    if unlinked.is_power_of_two() {
                        still(&root, &probes);
                    }
                }
                Step::Before(Store::Set) => panic!("a plain store to a live item"),
                Step::After(_) | Step::Cleaned => still(&root, &probes),
                _ => {}
            }
        };
        let late = match &crossed {
            Ok(crossed) => late.and_then(|late| self.late_write(crossed, late)),
            Err(_) => None,
        };
        let mut dirtied = None;
        let result = watch(&mut look, || self.pt().split(lock.range()));
        let result = result.map(|flush| {
            let leaves: Vec<_> = flush.leaves().collect();
            assert_eq!(flush.tables(), self.arena.allocated() - before);
            if let Some((leaf, item)) = late {
                self.arena.hw_set(item, H::DIRTY);
                dirtied = Some(leaf);
            }
            let mut look = |event: Event| match event.step {
                Step::Before(Store::Publish) => {
                    assert!(late.is_some(), "nothing was late");
                }
                Step::After(Store::Publish) | Step::Cleaned => still(&root, &probes),
                step => panic!("{step:?} when dirty bits are carried"),
            };
            assert_eq!(watch(&mut look, || flush.fold_late_dirty()), Ok(()));
            leaves
        });
        drop(lock);
        let tables = self.arena.allocated() - before;
        match (result, crossed) {
            (Ok(flush), Ok(crossed)) => {
                assert!(!self.needs_break_before_make(&crossed));
                assert_eq!(flush.len(), crossed.len(), "leaves to flush");
                for (leaf, cut) in flush.iter().zip(&crossed) {
                    assert_eq!((leaf.va.0, leaf.size_lg2), (cut.va, cut.size_lg2));
                    assert_eq!(leaf.level.0, self.model.rules.level_of(cut.size_lg2));
                }
                let fewest: usize = crossed.iter().map(|cut| cut.tables).sum();
                assert_eq!(tables, fewest, "tables for {crossed:x?}");
                self.model.split(va, len);
                if let Some(Cut { va, size_lg2, .. }) = dirtied {
                    self.model.set_dirty_all(va, va + max_offset(size_lg2));
                }
                self.check();
                Ok(tables)
            }
            (Err(Error::NoMemory), Ok(_)) => {
                self.check();
                Err(Error::NoMemory)
            }
            (Err(Error::NotSupported), Ok(crossed)) => {
                assert!(self.needs_break_before_make(&crossed));
                assert_eq!(tables, 0);
                self.check();
                Err(Error::NotSupported)
            }
            (Err(error), Err(want)) => {
                assert_eq!(error, want);
                assert_eq!(tables, 0);
                self.check();
                Err(error)
            }
            (got, want) => panic!("split gave {got:?}, the model {want:x?}"),
        }
    }

    /// Carves, with a look at the table after each store: what is around the range translates as
    /// before, and what is in it does so until it does not any more. All of the range is mapped.
    /// Returns the number of tables that were allocated. `late` as for
    /// [`split_written`](Self::split_written).
    pub fn carve(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize> {
        let last = va.wrapping_add(len).wrapping_sub(1);
        let crossed = self.model.crossed(va, len);
        let (hole, around): (Vec<_>, Vec<_>) = self
            .probes(va, len)
            .into_iter()
            .partition(|&(at, _)| va <= at && at <= last);
        let before = self.arena.allocated();
        let lock = self.arena.lock(va, len).unwrap();
        let root = self.root();
        let mut gone = vec![false; hole.len()];
        let mut look = |event: Event| {
            marked_after_cleaning(&root, event);
            if matches!(
                event.step,
                Step::After(Store::Publish | Store::Set) | Step::Cleaned
            ) {
                still(&root, &around);
                for ((at, want), gone) in hole.iter().zip(&mut gone) {
                    let got = root.translate_mixed(*at, 0).map(|hit| hit.seen());
                    let same = got == want.map(|hit| hit.seen());
                    assert!(got.is_none() || same && !*gone, "{at:#x} came back");
                    *gone = got.is_none();
                }
            }
        };
        let late = match &crossed {
            Ok(crossed) => late.and_then(|late| self.late_write(crossed, late)),
            Err(_) => None,
        };
        let planned = self.pt().carve_tables(lock.range());
        let mut log = Log::new(root);
        let result = watch(&mut look, || self.pt().carve(lock.range(), &mut log));
        let log = log.finish();
        let mut dirtied = None;
        let result = result.map(|flush| {
            let leaves: Vec<_> = flush.leaves().collect();
            if let Some((leaf, item)) = late {
                self.arena.hw_set(item, H::DIRTY);
                dirtied = Some(leaf);
            }
            let mut look = |event: Event| match event.step {
                Step::Before(Store::Publish) => {
                    assert!(late.is_some(), "nothing was late");
                }
                Step::After(Store::Publish) | Step::Cleaned => still(&root, &around),
                step => panic!("{step:?} when dirty bits are carried"),
            };
            assert_eq!(watch(&mut look, || flush.fold_late_dirty()), Ok(()));
            leaves
        });
        drop(lock);
        let tables = self.arena.allocated() - before;
        match (result, crossed) {
            (Ok(leaves), Ok(crossed)) => {
                assert!(!self.needs_break_before_make(&crossed));
                assert_eq!(planned, Ok(tables), "tables that were planned");
                let level = |cut: &Cut| self.model.rules.level_of(cut.size_lg2);
                let replaced = leaves
                    .iter()
                    .map(|leaf| (leaf.va.0, leaf.size_lg2, leaf.level.0));
                let want = crossed.iter().map(|cut| (cut.va, cut.size_lg2, level(cut)));
                assert!(replaced.eq(want), "{leaves:x?} for {crossed:x?}");
                // One flush: all of the old leaves and of the range, without a gap.
                let old = |cut: &Cut| (cut.va, cut.va + max_offset(cut.size_lg2));
                let mut flush: Vec<_> = log.ranges.clone();
                flush.extend(crossed.iter().map(old));
                flush.sort_unstable();
                let low = crossed.first().map_or(va, |cut| cut.va.min(va));
                let high = crossed.last().map_or(last, |cut| old(cut).1.max(last));
                assert_eq!(flush.first().unwrap().0, low);
                assert_eq!(flush.last().unwrap().1, high);
                for pair in flush.windows(2) {
                    assert_eq!(pair[0].1 + 1, pair[1].0, "{flush:x?}");
                }
                self.model.split(va, len);
                self.model.unmap(va, last);
                if let Some(Cut { va, size_lg2, .. }) = dirtied {
                    self.model.set_dirty_all(va, va + max_offset(size_lg2));
                }
                self.check();
                // Of the tables that are where the old leaves were each has a leaf, and all are
                // new. What replaced the leaves is as few as there can be, so these are, too.
                let inside = |at: &&TableAt| {
                    crossed.iter().map(old).any(|(first, end)| {
                        first <= at.va && at.va + max_offset(at.size_lg2) <= end
                    })
                };
                let scan = self.root().scan(View::Cpu);
                let new: Vec<_> = scan.tables.iter().filter(inside).collect();
                assert_eq!(new.len(), tables, "tables for {crossed:x?}");
                for at in new {
                    let first = self.model.next(at.va);
                    assert!(
                        first.is_some_and(|(leaf, _)| leaf <= at.va + max_offset(at.size_lg2)),
                        "{at:x?} is for nothing"
                    );
                }
                Ok(tables)
            }
            (Err(Error::NoMemory), Ok(_)) => {
                self.check();
                Err(Error::NoMemory)
            }
            (Err(Error::NotSupported), Ok(crossed)) => {
                assert!(self.needs_break_before_make(&crossed));
                assert_eq!((tables, planned), (0, Err(Error::NotSupported)));
                self.check();
                Err(Error::NotSupported)
            }
            (Err(error), Err(want)) => {
                assert_eq!((error, planned), (want, Err(want)));
                assert_eq!(tables, 0);
                self.check();
                Err(error)
            }
            (got, want) => panic!("carve gave {got:?}, the model {want:x?}"),
        }
    }

    /// Where hardware that cached one of these leaves notes that it wrote through it.
    pub(crate) fn late_write(&self, crossed: &[Cut], n: u16) -> Option<(Cut, u64)> {
        if H::PRESET || self.arena.incoherent() || crossed.is_empty() {
            return None;
        }
        let cut = crossed[usize::from(n) % crossed.len()];
        let rules = &self.model.rules;
        let item_lg2 = rules.item_lg2(rules.level_of(cut.size_lg2));
        let item = u64::from(n / 2) % (1 << (cut.size_lg2 - item_lg2));
        let hit = self.root().translate(cut.va + (item << item_lg2));
        hit.filter(|hit| hit.bits.write).map(|hit| (cut, hit.item))
    }

    pub(crate) fn needs_break_before_make(&self, crossed: &[Cut]) -> bool {
        let live = H::Format::LIVE;
        let rules = &self.model.rules;
        crossed.iter().any(|cut| {
            let contig = cut.size_lg2 != rules.item_lg2(rules.level_of(cut.size_lg2));
            (cut.tables != 0 && !live.leaf_to_table) || (contig && !live.contig_resize)
        })
    }

    /// Hardware reads or writes.
    pub fn access(&mut self, va: u64, write: bool) {
        self.root().access_tables(va);
        self.root().access(va, write).expect("mapped");
        self.model.touch(va, write);
        self.check();
    }

    /// Makes a leaf dirty.
    pub fn set_dirty(&mut self, va: u64) -> Result {
        let result = self.pt().set_dirty(self.arena.lock(va, 1)?.range());
        if H::PRESET {
            assert_eq!(result, Err(Error::NotSupported));
            self.check();
            return result;
        }
        let known = self.model.set_dirty(va);
        assert_eq!(result.is_ok(), known, "{result:?}");
        self.check();
        result
    }

    /// Reads, and maybe clears, what is dirty.
    pub fn read_dirty(&mut self, va: u64, len: u64, clear: bool) {
        let lock = self.arena.lock(va, len).unwrap();
        let last = lock.range().last().0;
        let mut sink = Dirty::default();
        let result = self.pt().read_dirty(lock.range(), clear, &mut sink);
        drop(lock);
        if H::PRESET {
            assert_eq!((result, sink), (Err(Error::NotSupported), Dirty::default()));
        } else if self.in_reach(va, last) {
            assert_eq!(result, Ok(()));
            let want = self.model.read_dirty(va, last, clear);
            assert_eq!(sink.joined(), want.joined(), "dirty");
        } else {
            assert_eq!(result, Err(Error::OutOfRange));
        }
        self.check();
    }
}
