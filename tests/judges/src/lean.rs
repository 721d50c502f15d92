// SPDX-License-Identifier: GPL-2.0-only

//! A table that is checked only where an operation touched it: quick enough for a hundred million
//! operations.
//!
//! After every operation: the answer, the number of tables that it allocated, freed and left, what
//! it reported and in which order, and some addresses in and around the range, against
//! [`Runs`]. Every [`EVERY`] operations and at the end: everything.

#![forbid(unsafe_code)]

use super::arena::{watch, Arena, Event, Step, Store, View};
use super::hw::{Hardware, LeafAt, Root, TableAt, Visitor};
use super::log::Dirty;
use super::model::Cut;
use super::rig::{map, Rig, Setup};
use super::runs::{Place, Runs};
use crate::size::max_offset;
use iotable::fmt::Prot;
use iotable::gather::Gather;
use iotable::{Bytes, Error, Iova, Level, Mapped, Oa, RawTable, Result};

/// After so many operations all leaves and all tables are compared.
pub const EVERY: u32 = 2048;

/// A table and its quick judges.
pub struct Lean<H: Hardware> {
    /// Its memory, and the hardware. The model in it stays empty.
    pub rig: Rig<H>,
    /// What must be mapped.
    pub runs: Runs,
    unchecked: u32,
    random: u64,
}

/// Checks a gather while it happens, and frees tables as early as the contract allows.
struct Gone<'a, H: Hardware> {
    root: Root<'a, H>,
    /// Tables that have to go, each with its address until it does; 0 if this call makes it.
    want: Vec<(Place, Option<u64>)>,
    pending: Vec<(RawTable<Arena>, Place)>,
    ranges: Option<(u64, u64)>,
    levels: u32,
}

impl<'a, H: Hardware> Gone<'a, H> {
    fn new(root: Root<'a, H>, want: &[Place]) -> Self {
        let at = |&(level, va): &Place| {
            if level > root.start().1 {
                // A top that does not stay one: a leaf takes the place of it.
                return ((level, va), Some(0));
            }
            let addr = root.table_of(va, level, View::Cpu);
            assert!(addr.is_some(), "there is no table of {level} at {va:#x}");
            ((level, va), addr)
        };
        Gone {
            root,
            want: want.iter().map(at).collect(),
            pending: Vec::new(),
            ranges: None,
            levels: 0,
        }
    }

    fn reaches(&self, (level, va): Place, addr: u64) -> bool {
        let to = |view| self.root.table_of(va, level, view) == Some(addr);
        to(View::Cpu) || (self.root.arena.incoherent() && to(View::Memory))
    }

    fn finish(self) {
        assert!(self.pending.is_empty(), "tables without a range to flush");
        for (place, addr) in self.want {
            assert!(addr.is_none(), "the table {place:x?} stayed");
        }
    }
}

impl<H: Hardware> Gather<Arena> for Gone<'_, H> {
    fn table(&mut self, table: RawTable<Arena>, level: Level) {
        let addr = table.ptr().as_ptr() as u64;
        let arena = &self.root.arena;
        let found = self.want.iter_mut().find(|(place, at)| {
            let new = || arena.tops().contains(&(addr, Level(place.0)));
            *at == Some(addr) || (*at == Some(0) && place.0 + 1 == level.0 && new())
        });
        let Some((place, at)) = found else {
            panic!("the table {addr:#x} should stay, or is gathered twice");
        };
        *at = None;
        let place = *place;
        assert_eq!(place.0 + 1, level.0, "level of the gathered table");
        assert!(
            self.root.table_of(place.1, place.0, View::Cpu) != Some(addr),
            "gathered while a table item points to it"
        );
        self.pending.push((table, place));
    }

    fn leaf(&mut self, level: Level) {
        self.levels |= 1 << level.0;
    }

    fn range(&mut self, Iova(va): Iova, Bytes(len): Bytes) {
        let last = va + (len - 1);
        self.ranges = match self.ranges {
            // Without a gap, for what unmap names.
            Some((first, before)) if before.wrapping_add(1) == va => Some((first, last)),
            _ => Some((va, last)),
        };
        for (table, place) in core::mem::take(&mut self.pending) {
            let span = (1u64 << (H::GRANULE_LG2 + H::ITEMS_LG2 * (u32::from(place.0) + 1))) - 1;
            assert!(
                va <= place.1 && place.1 + span <= last,
                "{va:#x}..={last:#x} does not cover the freed {place:x?}"
            );
            let addr = table.ptr().as_ptr() as u64;
            assert!(
                !self.reaches(place, addr),
                "freed while the hardware reaches it"
            );
            self.root.arena.free_gathered(table);
        }
    }
}

/// Compares all leaves with those that must be there, and notes the tables.
struct All<I> {
    want: I,
    places: Vec<Place>,
    dirty: bool,
}

impl<I: Iterator<Item = LeafAt>> Visitor for All<I> {
    fn table(&mut self, at: TableAt) {
        self.places.push((at.level, at.va));
    }

    fn leaf(&mut self, mut at: LeafAt) {
        let mut want = self.want.next();
        at.bits.accessed = false;
        if let Some(want) = want.as_mut().filter(|_| !self.dirty) {
            at.bits.dirty = want.bits.dirty;
        }
        assert_eq!(Some(at), want, "a leaf");
    }
}

impl<H: Hardware> Lean<H> {
    /// An empty table.
    pub fn new(setup: Setup) -> Self {
        let rig = Rig::new(setup);
        let grows = rig.arena.hw_top().is_some();
        Lean {
            runs: Runs::new(rig.model.rules, setup.top_level, grows),
            rig,
            unchecked: 0,
            random: 1,
        }
    }

    fn root(&self) -> Root<'_, H> {
        self.rig.root()
    }

    fn random(&mut self) -> u64 {
        self.random = (self.random)
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        self.random >> 16
    }

    /// Compares one address in all three: operation, hardware, model.
    pub fn lookup(&self, va: u64) {
        let lock = self.rig.arena.lock(va, 1).unwrap();
        let found = self.rig.pt().iova_to_phys(lock.range());
        let leaf = self.runs.find(va);
        let want = leaf.map(|(start, bits)| bits.oa + (va - start));
        assert_eq!(found, want.map(Oa), "iova_to_phys({va:#x})");
        self.probe(va);
    }

    /// Compares one address in the hardware and the model.
    fn probe(&self, va: u64) {
        let leaf = self.runs.find(va);
        // A leaf may grant nothing at all.
        let want = leaf.filter(|(_, bits)| bits.read || bits.write);
        let mut views = 0;
        loop {
            let hit = self.root().translate_mixed(va, views);
            let (Some(hit), Some((start, bits))) = (hit, want) else {
                assert_eq!(hit.map(|hit| hit.oa), want.map(|at| at.1.oa), "{va:#x}");
                return;
            };
            let seen = (bits.oa + (va - start), bits.read, bits.write, bits.rest);
            assert_eq!(hit.seen(), seen, "{va:#x}");
            assert_eq!(hit.bits.size_lg2, bits.size_lg2, "size at {va:#x}");
            let level = self.runs.rules.level_of(bits.size_lg2);
            assert_eq!(hit.level, level, "level at {va:#x}");
            // Of a group, one item is enough. Incoherent hardware does not set it.
            let single = bits.size_lg2 == self.runs.rules.item_lg2(level);
            if views == 0 && (single || !bits.dirty) {
                assert_eq!(hit.bits.dirty, bits.dirty, "dirty at {va:#x}");
            }
            if views != 0 || !self.rig.arena.incoherent() {
                return;
            }
            views = u32::MAX;
        }
    }

    /// Some addresses in and around `va..=last`.
    fn probe_range(&mut self, va: u64, last: u64) {
        let inside = self.random() % (last - va).max(1);
        self.lookup(va + inside);
        for at in [va, last, va.wrapping_sub(1), last.wrapping_add(1)] {
            self.probe(at);
        }
    }

    /// After an operation that allocated `new` tables, since there were `before`.
    fn done(&mut self, before: usize, new: usize) {
        assert_eq!(self.rig.arena.allocated() - before, new, "tables allocated");
        assert_eq!(
            self.rig.arena.in_use(),
            self.runs.table_count(),
            "tables in use"
        );
        self.unchecked += 1;
        if self.unchecked >= EVERY {
            self.check();
        }
    }

    /// Compares everything.
    pub fn check(&mut self) {
        self.unchecked = 0;
        let level = self.root().start().1;
        assert_eq!(level, self.runs.top_level(), "level of the top");
        let incoherent = self.rig.arena.incoherent();
        let views: &[View] = match incoherent {
            true => &[View::Cpu, View::Memory],
            false => &[View::Cpu],
        };
        for &view in views {
            let mut all = All {
                want: self.runs.leaves(),
                places: Vec::new(),
                // Incoherent hardware has no dirty bits: nobody cleans those that tests set.
                dirty: view == View::Cpu,
            };
            self.root().visit(view, &mut all);
            assert_eq!(all.want.next(), None, "not mapped");
            // The first is the top.
            let mut places = all.places.split_off(1);
            places.sort_unstable();
            assert!(
                places == self.runs.places(),
                "tables are not where they must be"
            );
        }
    }

    /// Maps. `None` if the format refuses such a mapping, as it must.
    pub fn map(&mut self, va: u64, len: u64, oa: u64, prot: Prot) -> Option<Mapped> {
        let (grant, attrs) = self.rig.grant(prot)?;
        let before = self.rig.arena.allocated();
        let fail = self.rig.arena.failure_in();
        let (want, tables) = self.runs.map(va, len, oa, grant, fail);
        let mut gone = Gone::new(self.root(), &tables.gone);
        let lock = self.rig.arena.lock(va, len).unwrap();
        let mapped = map(&self.rig.pt(), lock.range(), oa, attrs, &mut gone);
        assert_eq!(mapped, want, "map");
        assert_eq!(gone.levels, 0, "map removed a leaf");
        gone.finish();
        drop(lock);
        if mapped.bytes != Bytes(0) {
            self.probe_range(va, va + (mapped.bytes.0 - 1));
        }
        self.lookup(va + (len - 1));
        self.done(before, tables.new);
        Some(mapped)
    }

    /// Unmaps; returns the bytes.
    pub fn unmap(&mut self, va: u64, len: u64) -> u64 {
        let before = self.rig.arena.allocated();
        let last = va + (len - 1);
        let (want, levels, tables) = if self.rig.in_reach(va, last) {
            self.runs.unmap(va, last)
        } else {
            Default::default()
        };
        let mut gone = Gone::new(self.root(), &tables.gone);
        let lock = self.rig.arena.lock(va, len).unwrap();
        let Bytes(bytes) = self.rig.pt().unmap(lock.range(), &mut gone);
        assert_eq!(bytes, want, "bytes unmapped");
        assert_eq!(gone.levels, levels, "levels of removed leaves");
        // Exactly what changed.
        let range = bytes.checked_sub(1).map(|offset| (va, va + offset));
        assert_eq!(gone.ranges, range, "range to flush");
        gone.finish();
        drop(lock);
        self.probe_range(va, range.map_or(last, |(_, end)| end));
        self.done(before, 0);
        bytes
    }

    /// Splits. With `late`, a device writes through a copy of one of the replaced leaves, cached
    /// before, and the hardware notes it in the n-th item of the old leaf.
    pub fn split_written(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize> {
        let before = self.rig.arena.allocated();
        let fail = self.rig.arena.failure_in();
        let crossed = self.runs.crossed(va, len);
        let cuts: &[Cut] = crossed.as_deref().unwrap_or(&[]);
        let fewest: usize = cuts.iter().map(|cut| cut.tables).sum();
        let want = match &crossed {
            Err(error) => Err(*error),
            Ok(cuts) if self.rig.needs_break_before_make(cuts) => Err(Error::NotSupported),
            Ok(_) if fail.is_some_and(|n| n < fewest) => Err(Error::NoMemory),
            Ok(_) => Ok(()),
        };
        let root = self.rig.root();
        let late = late.and_then(|n| self.rig.late_write(cuts, n));
        // One of them after each store.
        let last = va + (len - 1);
        let mut probes = vec![va, last, va.wrapping_sub(1), last.wrapping_add(1)];
        for cut in cuts {
            probes.extend([cut.va, cut.va + max_offset(cut.size_lg2)]);
        }
        let views = if self.rig.arena.incoherent() {
            u32::MAX
        } else {
            0
        };
        let seen = |va, views| root.translate_mixed(va, views).map(|hit| hit.seen());
        let probes: Vec<_> = probes.into_iter().map(|va| (va, seen(va, 0))).collect();
        let mut turn = 0;
        let mut still = || {
            turn = (turn + 1) % probes.len();
            let (va, want) = probes[turn];
            assert_eq!(seen(va, 0), want, "{va:#x} was disturbed");
            if views != 0 {
                assert_eq!(seen(va, views), want, "{va:#x} was disturbed");
            }
        };
        let lock = self.rig.arena.lock(va, len).unwrap();
        let pt = self.rig.pt();
        let mut look = |event: Event| match event.step {
            Step::Before(Store::Set) => panic!("a plain store to a live item"),
            Step::After(Store::Publish) | Step::Cleaned => still(),
            _ => {}
        };
        let result = watch(&mut look, || pt.split(lock.range()));
        assert_eq!(
            result.as_ref().map(|_| ()).map_err(|error| *error),
            want,
            "split"
        );
        let tables = self.rig.arena.allocated() - before;
        let result = result.map(|flush| {
            let leaves = flush.leaves();
            let leaves = leaves.map(|leaf| (leaf.va.0, leaf.size_lg2, leaf.level.0));
            let level = |cut: &Cut| self.runs.rules.level_of(cut.size_lg2);
            let flushed = cuts.iter().map(|cut| (cut.va, cut.size_lg2, level(cut)));
            assert!(leaves.eq(flushed), "leaves to flush");
            if let Some((_, item)) = late {
                self.rig.arena.hw_set(item, H::DIRTY);
            }
            let mut look = |event: Event| match event.step {
                Step::Before(Store::Publish) => assert!(late.is_some(), "nothing was late"),
                Step::After(Store::Publish) | Step::Cleaned => still(),
                step => panic!("{step:?} when dirty bits are carried"),
            };
            assert_eq!(watch(&mut look, || flush.fold_late_dirty()), Ok(()));
        });
        drop(lock);
        let new = match result {
            Ok(()) => {
                let new = self.runs.split(va, len);
                assert_eq!(new, fewest, "the fewest tables, in two ways");
                if let Some((cut, _)) = late {
                    let last = cut.va + max_offset(cut.size_lg2);
                    self.runs.set_dirty_all(cut.va, last);
                }
                new
            }
            // As many as there were until one failed.
            Err(Error::NoMemory) => fail.unwrap_or(0),
            Err(_) => 0,
        };
        self.probe_range(va, last);
        for cut in crossed.iter().flatten() {
            self.probe_range(cut.va, cut.va + max_offset(cut.size_lg2));
        }
        self.done(before, new);
        result.map(|()| tables)
    }

    /// What a carve does, in two calls: [`Rig`] looks at the one.
    pub fn carve(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize> {
        let tables = self.split_written(va, len, late)?;
        assert_eq!(self.unmap(va, len), len);
        Ok(tables)
    }

    /// Hardware reads or writes.
    pub fn access(&mut self, va: u64, write: bool) {
        let before = self.rig.arena.allocated();
        self.root().access_tables(va);
        self.root().access(va, write).expect("mapped");
        if write {
            self.runs.set_dirty(va);
        }
        self.probe(va);
        self.done(before, 0);
    }

    /// Makes a leaf dirty.
    pub fn set_dirty(&mut self, va: u64) -> Result {
        let before = self.rig.arena.allocated();
        let lock = self.rig.arena.lock(va, 1)?;
        let result = self.rig.pt().set_dirty(lock.range());
        drop(lock);
        if H::PRESET {
            assert_eq!(result, Err(Error::NotSupported));
        } else {
            let known = self.runs.set_dirty(va);
            assert_eq!(result.is_ok(), known, "{result:?}");
        }
        self.probe(va);
        self.done(before, 0);
        result
    }

    /// Reads, and maybe clears, what is dirty.
    pub fn read_dirty(&mut self, va: u64, len: u64, clear: bool) {
        let before = self.rig.arena.allocated();
        let lock = self.rig.arena.lock(va, len).unwrap();
        let last = lock.range().last().0;
        let mut sink = Dirty::default();
        let result = self.rig.pt().read_dirty(lock.range(), clear, &mut sink);
        drop(lock);
        if H::PRESET {
            assert_eq!((result, sink), (Err(Error::NotSupported), Dirty::default()));
        } else if self.rig.in_reach(va, last) {
            assert_eq!(result, Ok(()));
            let want = self.runs.read_dirty(va, last, clear).joined();
            let told = sink.joined();
            assert!(told == want, "dirty: {told:x?}, not {want:x?}");
        } else {
            assert_eq!(result, Err(Error::OutOfRange));
        }
        self.probe_range(va, last);
        self.done(before, 0);
    }

    /// Compares everything once more, takes the table down, and checks that nothing is left.
    pub fn finish(mut self) {
        self.check();
        self.rig.finish();
    }
}
