// SPDX-License-Identifier: GPL-2.0-only

//! What must be mapped, and by which tables: as [`model`](super::model), but quick.
//!
//! Leaves of one size that follow each other are one entry, so a split of 1G into a thousand leaves
//! costs four. Here the tables are modelled too: which exist depends on the history, since a table
//! that became empty stays until all of it is unmapped at once or a larger leaf takes its place.
//! `tests/random.rs` compares this with the plain model.

#![forbid(unsafe_code)]

use super::hw::{Bits, LeafAt};
use super::log::Dirty;
use super::model::{last_of, Cut, Grant, Rules};
use crate::size::{floor, max_offset};
use iotable::{Bytes, Error, Mapped, Result};

/// Leaves of one size, one behind the other, that go to one place and have the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    va: u64,
    /// The last address.
    last: u64,
    /// Of the first leaf.
    bits: Bits,
}

impl Run {
    fn leaf(&self, va: u64) -> (u64, Bits) {
        let start = self.va + floor(va - self.va, self.bits.size_lg2);
        let oa = self.bits.oa + (start - self.va);
        (start, Bits { oa, ..self.bits })
    }

    /// Whether `next` goes on where this ends.
    fn goes_on(&self, next: &Run) -> bool {
        self.last.wrapping_add(1) == next.va && self.leaf(self.last).1.after() == next.bits
    }
}

impl Bits {
    /// The bits of a leaf of the same kind right behind.
    fn after(self) -> Bits {
        let oa = self.oa + (1 << self.size_lg2);
        Bits { oa, ..self }
    }
}

/// A table: its level, and the first address that it serves.
pub type Place = (u8, u64);

/// What one call does, besides what it answers.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The number of tables that it allocates.
    pub new: usize,
    /// Those that it hands to the gather.
    pub gone: Vec<Place>,
}

/// What is mapped, and the tables below the top.
#[derive(Clone, Debug)]
pub struct Runs {
    /// The rules.
    pub rules: Rules,
    runs: Vec<Run>,
    /// First addresses of the tables of each level, in ascending order.
    tables: Vec<Vec<u64>>,
    top_level: u8,
    grows: bool,
}

impl Runs {
    /// Nothing mapped below a top of this level, which may be one that grows.
    pub fn new(rules: Rules, top_level: u8, grows: bool) -> Runs {
        Runs {
            rules,
            runs: Vec::new(),
            tables: vec![Vec::new(); 8],
            top_level,
            grows,
        }
    }

    /// The number of tables, the top one included.
    pub fn table_count(&self) -> usize {
        1 + self.tables.iter().map(Vec::len).sum::<usize>()
    }

    /// All tables but the top.
    pub fn places(&self) -> Vec<Place> {
        let of = |(level, at): (usize, &Vec<u64>)| -> Vec<Place> {
            at.iter().map(|&va| (level as u8, va)).collect()
        };
        self.tables.iter().enumerate().flat_map(of).collect()
    }

    /// The level of the top.
    pub fn top_level(&self) -> u8 {
        self.top_level
    }

    /// All leaves, in ascending order.
    pub fn leaves(&self) -> impl Iterator<Item = LeafAt> + '_ {
        self.runs.iter().flat_map(|run| {
            let level = self.rules.level_of(run.bits.size_lg2);
            (0..=(run.last - run.va) >> run.bits.size_lg2).map(move |n| {
                let offset = n << run.bits.size_lg2;
                let oa = run.bits.oa + offset;
                LeafAt {
                    va: run.va + offset,
                    level,
                    bits: Bits { oa, ..run.bits },
                }
            })
        })
    }

    /// The index of the first run that ends at or after `va`.
    fn index(&self, va: u64) -> usize {
        self.runs.partition_point(|run| run.last < va)
    }

    /// The leaf around `va`.
    pub fn find(&self, va: u64) -> Option<(u64, Bits)> {
        let run = self.runs.get(self.index(va))?;
        (run.va <= va).then(|| run.leaf(va))
    }

    /// The first leaf that starts at or after `va`.
    pub fn next(&self, va: u64) -> Option<(u64, Bits)> {
        let run = self.runs.get(self.index(va))?;
        if va <= run.va {
            return Some((run.va, run.bits));
        }
        let (start, bits) = run.leaf(va);
        match start == va {
            true => Some((start, bits)),
            false => self.next(last_of(start, &bits).checked_add(1)?),
        }
    }

    /// Any leaf; the same one for the same `n`.
    pub fn nth(&self, n: usize) -> Option<(u64, Bits)> {
        let run = self.runs[..].get(n.checked_rem(self.runs.len())?)?;
        let count = ((run.last - run.va) >> run.bits.size_lg2) + 1;
        let n = (n / self.runs.len()) as u64;
        // Its ends more often than others.
        let n = match n % 4 {
            0 => 0,
            1 => count - 1,
            _ => (n / 4).wrapping_mul(0x9e37_79b9) % count,
        };
        Some(run.leaf(run.va + (n << run.bits.size_lg2)))
    }

    /// The ends of what is mapped without a gap around the leaf at `va`.
    pub fn stretch(&self, va: u64) -> Option<(u64, u64)> {
        let mut low = self.index(va);
        let mut high = low;
        self.runs.get(low).filter(|run| run.va <= va)?;
        while low > 0 && self.runs[low - 1].last.wrapping_add(1) == self.runs[low].va {
            low -= 1;
        }
        while high + 1 < self.runs.len()
            && self.runs[high].last.wrapping_add(1) == self.runs[high + 1].va
        {
            high += 1;
        }
        Some((self.runs[low].va, self.runs[high].last))
    }

    fn overlaps(&self, va: u64, last: u64) -> bool {
        self.runs
            .get(self.index(va))
            .is_some_and(|run| run.va <= last)
    }

    /// Makes `at`, the first address of a leaf if of any, the start of a run.
    fn divide(&mut self, at: u64) {
        let i = self.index(at);
        let Some(&run) = self.runs.get(i).filter(|run| run.va < at) else {
            return;
        };
        self.runs[i].last = at - 1;
        let (va, bits) = run.leaf(at);
        assert_eq!(va, at, "inside a leaf");
        self.runs.insert(i + 1, Run { va, bits, ..run });
    }

    /// The runs from `va` to `last`, both of which are ends of leaves, if of any.
    fn part(&mut self, va: u64, last: u64) -> core::ops::Range<usize> {
        self.divide(va);
        if let Some(next) = last.checked_add(1) {
            self.divide(next);
        }
        self.index(va)..self.runs.partition_point(|run| run.va <= last)
    }

    /// Joins runs from `range` on with their neighbours.
    fn join(&mut self, range: core::ops::Range<usize>) {
        let first = range.start.max(1);
        let end = (range.end + 1).min(self.runs.len());
        if first >= end {
            return;
        }
        let mut to = first;
        for from in first..end {
            let run = self.runs[from];
            if self.runs[to - 1].goes_on(&run) {
                self.runs[to - 1].last = run.last;
            } else {
                self.runs[to] = run;
                to += 1;
            }
        }
        self.runs.drain(to..end);
    }

    /// Leaves at `va` that go to `oa`, none of which may be larger, and not after `last`.
    fn best(&self, va: u64, last: u64, oa: u64) -> Option<(u32, u64)> {
        let size_lg2 = self.rules.best(va, last, oa)?;
        let mut end = last;
        // Up to where a larger one starts, and fits.
        for lg2 in size_lg2 + 1..64 {
            let offset = max_offset(lg2);
            if (self.rules.sizes >> lg2) & 1 == 1 && (va ^ oa) & offset == 0 {
                let start = (va | offset).checked_add(1);
                if let Some(start) = start.filter(|&start| start <= last) {
                    if last - start >= offset {
                        end = end.min(start - 1);
                    }
                }
            }
        }
        // A length of 2^64 is not asked for.
        let count = (end - va + 1) >> size_lg2;
        Some((size_lg2, count))
    }

    fn has_table(&self, level: u8, va: u64) -> bool {
        let at = floor(va, self.rules.item_lg2(level + 1));
        self.tables[usize::from(level)].binary_search(&at).is_ok()
    }

    /// A table of `level` for `va`, unless it is the top or there is one. Whether it is new.
    fn add_table(&mut self, level: u8, va: u64) -> bool {
        if level >= self.top_level {
            return false;
        }
        let at = floor(va, self.rules.item_lg2(level + 1));
        let of_level = &mut self.tables[usize::from(level)];
        match of_level.binary_search(&at) {
            Ok(_) => false,
            Err(i) => {
                of_level.insert(i, at);
                true
            }
        }
    }

    /// Takes out tables below `level` that serve nothing but addresses of `va..=last`.
    fn remove_tables(&mut self, level: u8, va: u64, last: u64, gone: &mut Vec<Place>) {
        for level in 0..level {
            let span = max_offset(self.rules.item_lg2(level + 1));
            let of_level = &mut self.tables[usize::from(level)];
            let start = of_level.partition_point(|&at| at < va);
            let end =
                start + of_level[start..].partition_point(|&at| at <= last && last - at >= span);
            gone.extend(of_level.drain(start..end).map(|at| (level, at)));
        }
    }

    fn any_table(&self, level: u8, va: u64, last: u64) -> bool {
        self.tables[..usize::from(level)].iter().any(|of_level| {
            of_level
                .get(of_level.partition_point(|&at| at < va))
                .is_some_and(|&at| at <= last)
        })
    }

    fn alloc(fail: Option<usize>, tables: &mut Tables) -> Result {
        if fail == Some(tables.new) {
            return Err(Error::NoMemory);
        }
        tables.new += 1;
        Ok(())
    }

    /// Maps, with the `fail`-th allocation failing.
    pub fn map(
        &mut self,
        va: u64,
        len: u64,
        oa: u64,
        grant: Grant,
        fail: Option<usize>,
    ) -> (Mapped, Tables) {
        let mut tables = Tables::default();
        let mut bytes = 0;
        let result = self.map_all(va, len, oa, grant, fail, &mut tables, &mut bytes);
        let bytes = Bytes(bytes);
        (Mapped { bytes, result }, tables)
    }

    #[expect(clippy::too_many_arguments, reason = "the body of map()")]
    fn map_all(
        &mut self,
        va: u64,
        len: u64,
        oa: u64,
        grant: Grant,
        fail: Option<usize>,
        tables: &mut Tables,
        bytes: &mut u64,
    ) -> Result {
        let last = va + (len - 1);
        let oa_fits = matches!(oa.checked_add(len - 1), Some(end) if end >> self.rules.oa_lg2 == 0);
        if !oa_fits || !self.rules.in_range(va, last) {
            return Err(Error::OutOfRange);
        }
        while *bytes < len {
            let (at, oa) = (va + *bytes, oa + *bytes);
            let (size_lg2, count) = self.best(at, last, oa).ok_or(Error::NoPageSize)?;
            let level = self.rules.level_of(size_lg2);
            while self.grows && !self.serves(level, last) {
                Self::alloc(fail, tables)?;
                self.tables[usize::from(self.top_level)].push(0);
                self.top_level += 1;
            }
            let mut left = count;
            while left != 0 {
                let (at, oa) = (va + *bytes, oa + (*bytes - (at - va)));
                let table_last = at | max_offset(self.rules.item_lg2(level + 1).min(64));
                let part = left.min(((table_last - at) >> size_lg2) + 1);
                self.tables_for(level, at, fail, tables)?;
                let (done, result) = self.room(level, at, size_lg2, part, &mut tables.gone);
                if done != 0 {
                    let bits = grant.bits(oa, size_lg2);
                    let last = at + ((done << size_lg2) - 1);
                    let i = self.index(at);
                    self.runs.insert(i, Run { va: at, last, bits });
                    self.join(i..i + 1);
                }
                *bytes += done << size_lg2;
                result?;
                left -= done;
            }
        }
        Ok(())
    }

    /// Whether the top is high enough.
    fn serves(&self, level: u8, last: u64) -> bool {
        level <= self.top_level && last <= max_offset(self.rules.item_lg2(self.top_level + 1))
    }

    /// All tables on the way to `va` down to `level`.
    fn tables_for(
        &mut self,
        level: u8,
        va: u64,
        fail: Option<usize>,
        tables: &mut Tables,
    ) -> Result {
        if let Some((_, bits)) = self.find(va) {
            if self.rules.level_of(bits.size_lg2) > level {
                return Err(Error::Busy);
            }
        }
        for level in (level..self.top_level).rev() {
            if !self.has_table(level, va) {
                Self::alloc(fail, tables)?;
                self.add_table(level, va);
            }
        }
        Ok(())
    }

    /// How many of `count` leaves find room: nothing is mapped there. Empty tables go, item by
    /// item.
    fn room(
        &mut self,
        level: u8,
        va: u64,
        size_lg2: u32,
        count: u64,
        gone: &mut Vec<Place>,
    ) -> (u64, Result) {
        let last = va + ((count << size_lg2) - 1);
        if !self.overlaps(va, last) {
            if self.any_table(level, va, last) {
                self.remove_tables(level, va, last, gone);
            }
            return (count, Ok(()));
        }
        let item_lg2 = self.rules.item_lg2(level);
        let mut at = va;
        loop {
            let item_last = at + max_offset(item_lg2);
            if self.overlaps(at, item_last) {
                return ((at - va) >> size_lg2, Err(Error::Busy));
            }
            self.remove_tables(level, at, item_last, gone);
            at = item_last + 1;
        }
    }

    /// Unmaps; the number of bytes, and the levels of the leaves that went, bit n for level n.
    pub fn unmap(&mut self, va: u64, last: u64) -> (u64, u32, Tables) {
        let mut tables = Tables::default();
        let mut levels = 0;
        let first = self.index(va);
        let mut end = None;
        for i in first..self.runs.len() {
            let run = self.runs[i];
            let starts = match end {
                None => run.va <= va && run.leaf(va).0 == va,
                Some(end) => run.va == end,
            };
            if !starts {
                break;
            }
            levels |= 1 << self.rules.level_of(run.bits.size_lg2);
            let (start, bits) = run.leaf(last.min(run.last));
            let run_end = last_of(start, &bits);
            // Wraps behind the last of all addresses, where nothing follows.
            end = Some(run_end.wrapping_add(1));
            if run_end >= last {
                break;
            }
        }
        let Some(end) = end.map(|end| end.wrapping_sub(1)) else {
            return (0, 0, tables);
        };
        let gone = self.part(va, end);
        self.runs.drain(gone);
        self.remove_tables(self.top_level, va, end.min(last), &mut tables.gone);
        (end - va + 1, levels, tables)
    }

    /// The leaves that a split would replace, or why it must be refused.
    pub fn crossed(&self, va: u64, len: u64) -> Result<Vec<Cut>> {
        self.rules.crossed(va, len, |va| self.find(va))
    }

    /// Splits. Returns the number of new tables.
    pub fn split(&mut self, va: u64, len: u64) -> usize {
        let low = self.cut(va);
        low + va.checked_add(len).map_or(0, |end| self.cut(end))
    }

    /// Cuts the leaf around `at`, if `at` is not its first address, into the largest leaves.
    fn cut(&mut self, at: u64) -> usize {
        let Some((start, bits)) = self.find(at).filter(|(start, _)| *start != at) else {
            return 0;
        };
        let last = last_of(start, &bits);
        let old = self.part(start, last);
        let level = self.rules.level_of(bits.size_lg2);
        let mut new = Vec::new();
        let mut tables = 0;
        for (first, last) in [(start, at - 1), (at, last)] {
            let mut va = first;
            loop {
                let oa = bits.oa + (va - start);
                let (size_lg2, count) = self.best(va, last, oa).unwrap();
                let run = Run {
                    va,
                    last: va + ((count << size_lg2) - 1),
                    bits: Bits {
                        oa,
                        size_lg2,
                        ..bits
                    },
                };
                for level in self.rules.level_of(size_lg2)..level {
                    let step = max_offset(self.rules.item_lg2(level + 1));
                    let mut at = va;
                    loop {
                        tables += usize::from(self.add_table(level, at));
                        match (at | step).checked_add(1) {
                            Some(next) if next <= run.last => at = next,
                            _ => break,
                        }
                    }
                }
                new.push(run);
                if run.last == last {
                    break;
                }
                va = run.last + 1;
            }
        }
        self.runs.splice(old, new);
        tables
    }

    /// Makes the leaf around `va` dirty. `false` if there is none.
    pub fn set_dirty(&mut self, va: u64) -> bool {
        let Some((start, bits)) = self.find(va) else {
            return false;
        };
        if !bits.dirty {
            self.set_dirty_all(start, last_of(start, &bits));
        }
        true
    }

    /// Makes all leaves of `va..=last`, which no leaf crosses, dirty.
    pub fn set_dirty_all(&mut self, va: u64, last: u64) {
        let range = self.part(va, last);
        for run in &mut self.runs[range.clone()] {
            run.bits.dirty = true;
        }
        self.join(range);
    }

    /// What lies in the range of each dirty leaf. If `clear`, those that lie in it as a whole are
    /// clean afterwards.
    pub fn read_dirty(&mut self, va: u64, last: u64, clear: bool) -> Dirty {
        let mut dirty = Dirty::default();
        let range = self.index(va)..self.runs.partition_point(|run| run.va <= last);
        for run in self.runs[range].iter().filter(|run| run.bits.dirty) {
            let mut at = va.max(run.va);
            loop {
                let (start, bits) = run.leaf(at);
                let end = last_of(start, &bits);
                dirty.found.push((at, end.min(last) - at + 1));
                if clear && start == at && end <= last {
                    dirty.cleared.push((start, 1 << bits.size_lg2));
                }
                if end >= run.last.min(last) {
                    break;
                }
                at = end + 1;
            }
        }
        // Without a gap between them: only the outermost leaves may stay dirty.
        if let (Some(first), Some(end)) = (dirty.cleared.first(), dirty.cleared.last()) {
            let range = self.part(first.0, end.0 + (end.1 - 1));
            for run in &mut self.runs[range.clone()] {
                run.bits.dirty = false;
            }
            self.join(range);
        }
        dirty
    }
}
