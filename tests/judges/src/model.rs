// SPDX-License-Identifier: GPL-2.0-only

//! What must be mapped: a list of leaves, kept by the rules and not by tables.
//!
//! All choices are made the slow and obvious way: which leaf comes next is found by trying every
//! size, the fewest tables by trying every way to cut a leaf up.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::hw::{Bits, LeafAt};
use super::log::Dirty;
use crate::size::max_offset;
use iotable::{Error, Result};

/// The rules of one table.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Leaf sizes that may be used, bit n for `2^n` bytes.
    pub sizes: u64,
    /// log2 of the smallest leaf of the format.
    pub granule_lg2: u32,
    /// log2 of the items in a table.
    pub items_lg2: u32,
    /// log2 of the IOVA space.
    pub va_lg2: u32,
    /// The highest bit of it extends to bit 63.
    pub sign: bool,
    /// log2 of the OA space.
    pub oa_lg2: u32,
}

impl Rules {
    /// The level of a leaf of this size.
    pub fn level_of(&self, size_lg2: u32) -> u8 {
        ((size_lg2 - self.granule_lg2) / self.items_lg2) as u8
    }

    /// log2 of what an item covers.
    pub fn item_lg2(&self, level: u8) -> u32 {
        self.granule_lg2 + self.items_lg2 * u32::from(level)
    }

    /// The smallest page.
    pub fn page(&self) -> u64 {
        1 << self.sizes.trailing_zeros()
    }

    /// Whether all of the range can be translated.
    pub fn in_range(&self, va: u64, last: u64) -> bool {
        let fits = |va: u64| {
            if self.sign {
                let high = (va as i64) >> (self.va_lg2 - 1);
                high == 0 || high == -1
            } else {
                va & !max_offset(self.va_lg2) == 0
            }
        };
        fits(va) && fits(last) && (!self.sign || (va as i64 >> 63) == (last as i64 >> 63))
    }

    /// The largest leaf that can start at `va` and ends not after `last`.
    pub fn best(&self, va: u64, last: u64, oa: u64) -> Option<u32> {
        (0..64)
            .rev()
            .filter(|&lg2| (self.sizes >> lg2) & 1 == 1)
            .find(|&lg2| {
                let offset = (1u64 << lg2) - 1;
                va & offset == 0 && oa & offset == 0 && last - va >= offset
            })
    }

    /// The fewest tables that can take the place of the leaf `va..va + 2^size_lg2` so that none of
    /// `cuts` is crossed, found by trying every way.
    pub fn fewest_tables(&self, va: u64, size_lg2: u32, cuts: &[u64]) -> usize {
        self.fewest(va, size_lg2, self.level_of(size_lg2), cuts)
            .expect("cuts are aligned to the smallest page")
    }

    /// For the block at `va`, which is one or more items of a table of `level`.
    fn fewest(&self, va: u64, size_lg2: u32, level: u8, cuts: &[u64]) -> Option<usize> {
        let last = va + ((1 << size_lg2) - 1);
        let crossed = cuts.iter().any(|&cut| va < cut && cut <= last);
        let item_lg2 = self.item_lg2(level);
        if !crossed && (self.sizes >> size_lg2) & 1 == 1 {
            // A leaf: there is nothing below none.
            return Some(0);
        }
        if size_lg2 > item_lg2 {
            let half = size_lg2 - 1;
            let low = self.fewest(va, half, level, cuts)?;
            let high = self.fewest(va + (1 << half), half, level, cuts)?;
            Some(low + high)
        } else if level > 0 {
            let below = self.fewest(va, size_lg2, level - 1, cuts)?;
            Some(below + 1)
        } else {
            None
        }
    }

    /// The leaves that a split would replace, or why it must be refused, where `find` gives the
    /// leaf around an address.
    pub fn crossed(
        &self,
        va: u64,
        len: u64,
        find: impl Fn(u64) -> Option<(u64, Bits)>,
    ) -> Result<Vec<Cut>> {
        if (va | len) & (self.page() - 1) != 0 {
            return Err(Error::Invalid);
        }
        let last = va + (len - 1);
        if !self.in_range(va, last) {
            return Err(Error::NotMapped);
        }
        let first = find(va).ok_or(Error::NotMapped)?;
        let end = find(last).ok_or(Error::NotMapped)?;
        let mut cuts = Vec::new();
        if first.0 != va {
            cuts.push((first, va));
        }
        if last_of(end.0, &end.1) != last {
            cuts.push((end, last + 1));
        }
        let at: Vec<u64> = cuts.iter().map(|cut| cut.1).collect();
        let mut replaced = Vec::<Cut>::new();
        for &((start, bits), _) in &cuts {
            if replaced.iter().any(|other| other.va == start) {
                continue;
            }
            replaced.push(Cut {
                va: start,
                size_lg2: bits.size_lg2,
                tables: self.fewest_tables(start, bits.size_lg2, &at),
            });
        }
        Ok(replaced)
    }
}

/// A mapping's bits, without its address and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Reading is allowed.
    pub read: bool,
    /// Writing is allowed.
    pub write: bool,
    /// New leaves are dirty: always, where there is no dirty tracking.
    pub dirty: bool,
    /// Other bits.
    pub rest: u64,
}

impl Grant {
    /// A new leaf of `2^size_lg2` bytes.
    pub(super) fn bits(&self, oa: u64, size_lg2: u32) -> Bits {
        Bits {
            oa,
            size_lg2,
            read: self.read,
            write: self.write,
            accessed: false,
            dirty: self.dirty,
            rest: self.rest,
        }
    }
}

/// A leaf that must be replaced by a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its first address.
    pub va: u64,
    /// log2 of its size.
    pub size_lg2: u32,
    /// Fewest tables it takes.
    pub tables: usize,
}

/// What is mapped.
#[derive(Clone, Debug)]
pub struct Model {
    /// The rules.
    pub rules: Rules,
    leaves: BTreeMap<u64, Bits>,
}

pub(super) fn last_of(va: u64, bits: &Bits) -> u64 {
    va + ((1 << bits.size_lg2) - 1)
}

impl Model {
    /// Nothing mapped.
    pub fn new(rules: Rules) -> Model {
        Model {
            rules,
            leaves: BTreeMap::new(),
        }
    }

    /// All leaves, in ascending order.
    pub fn leaves(&self) -> Vec<LeafAt> {
        let at = |(&va, &bits): (&u64, &Bits)| LeafAt {
            va,
            level: self.rules.level_of(bits.size_lg2),
            bits,
        };
        self.leaves.iter().map(at).collect()
    }

    /// The number of leaves.
    pub fn count(&self) -> usize {
        self.leaves.len()
    }

    /// The first leaf that starts at or after `va`.
    pub fn next(&self, va: u64) -> Option<(u64, Bits)> {
        let next = self.leaves.range(va..).next();
        next.map(|(&va, &bits)| (va, bits))
    }

    /// The ends of what is mapped without a gap around the leaf at `va`.
    pub fn stretch(&self, va: u64) -> Option<(u64, u64)> {
        let (mut first, bits) = self.find(va)?;
        let mut last = last_of(first, &bits);
        while let Some((start, _)) = first.checked_sub(1).and_then(|va| self.find(va)) {
            first = start;
        }
        while let Some((start, bits)) = last.checked_add(1).and_then(|va| self.find(va)) {
            last = last_of(start, &bits);
        }
        Some((first, last))
    }

    /// The `n`-th leaf, counted round and round.
    pub fn nth(&self, n: usize) -> Option<(u64, Bits)> {
        let n = n.checked_rem(self.leaves.len())?;
        self.leaves.iter().nth(n).map(|(&va, &bits)| (va, bits))
    }

    /// The leaf around `va`.
    pub fn find(&self, va: u64) -> Option<(u64, Bits)> {
        let (&start, &bits) = self.leaves.range(..=va).next_back()?;
        (va <= last_of(start, &bits)).then_some((start, bits))
    }

    fn find_mut(&mut self, va: u64) -> Option<&mut Bits> {
        let (&start, bits) = self.leaves.range_mut(..=va).next_back()?;
        (va <= last_of(start, bits)).then_some(bits)
    }

    fn overlaps(&self, va: u64, last: u64) -> bool {
        self.find(va).is_some() || self.leaves.range(va..=last).next().is_some()
    }

    /// Maps; returns the bytes that were mapped and how it ended.
    pub fn map(&mut self, va: u64, len: u64, oa: u64, grant: Grant) -> (u64, Result) {
        let last = va + (len - 1);
        let oa_fits = matches!(oa.checked_add(len - 1), Some(end) if end >> self.rules.oa_lg2 == 0);
        if !oa_fits || !self.rules.in_range(va, last) {
            return (0, Err(Error::OutOfRange));
        }
        let mut bytes = 0;
        while bytes < len {
            let (at, oa) = (va + bytes, oa + bytes);
            let Some(size_lg2) = self.rules.best(at, last, oa) else {
                return (bytes, Err(Error::NoPageSize));
            };
            if self.overlaps(at, at + ((1 << size_lg2) - 1)) {
                return (bytes, Err(Error::Busy));
            }
            let bits = grant.bits(oa, size_lg2);
            self.leaves.insert(at, bits);
            bytes += 1 << size_lg2;
        }
        (bytes, Ok(()))
    }

    /// Unmaps; returns the leaves that went.
    pub fn unmap(&mut self, va: u64, last: u64) -> Vec<(u64, Bits)> {
        let mut gone = Vec::new();
        let mut at = va;
        while let Some(bits) = self.leaves.remove(&at) {
            gone.push((at, bits));
            let end = last_of(at, &bits);
            if end >= last {
                break;
            }
            at = end + 1;
        }
        gone
    }

    /// The leaves that a split would replace, or why it must be refused. Does not change anything.
    pub fn crossed(&self, va: u64, len: u64) -> Result<Vec<Cut>> {
        self.rules.crossed(va, len, |va| self.find(va))
    }

    /// Splits.
    pub fn split(&mut self, va: u64, len: u64) {
        self.cut(va);
        if let Some(end) = va.checked_add(len) {
            self.cut(end);
        }
    }

    /// Cuts the leaf around `at`, if `at` is not its first address, into the largest leaves.
    fn cut(&mut self, at: u64) {
        let Some((start, bits)) = self.find(at) else {
            return;
        };
        if start == at {
            return;
        }
        self.leaves.remove(&start);
        for (first, last) in [(start, at - 1), (at, last_of(start, &bits))] {
            let mut va = first;
            loop {
                let oa = bits.oa + (va - start);
                let size_lg2 = self.rules.best(va, last, oa).unwrap();
                let child = Bits {
                    oa,
                    size_lg2,
                    ..bits
                };
                self.leaves.insert(va, child);
                let end = last_of(va, &child);
                if end == last {
                    break;
                }
                va = end + 1;
            }
        }
    }

    /// Joins the leaves that lie in `va..=last` as a whole: those that follow each other and differ
    /// in nothing are mapped as one would map all of them.
    pub fn join(&mut self, va: u64, last: u64) {
        let inside = |at: &(u64, Bits)| last_of(at.0, &at.1) <= last;
        let leaves: Vec<(u64, Bits)> = self
            .leaves
            .range(va..=last)
            .map(|(&at, &bits)| (at, bits))
            .filter(inside)
            .collect();
        let follows = |a: &(u64, Bits), b: &(u64, Bits)| {
            let size = 1u64 << a.1.size_lg2;
            let same = |bits: &Bits| (bits.read, bits.write, bits.rest);
            a.0.checked_add(size) == Some(b.0)
                && a.1.oa + size == b.1.oa
                && same(&a.1) == same(&b.1)
        };
        for streak in leaves.chunk_by(follows) {
            let (first, bits) = streak[0];
            let (at, end) = streak[streak.len() - 1];
            let end = last_of(at, &end);
            for (at, _) in streak {
                self.leaves.remove(at);
            }
            let mut at = first;
            loop {
                let oa = bits.oa + (at - first);
                let size_lg2 = self.rules.best(at, end, oa).expect("larger than before");
                let new_last = at + ((1 << size_lg2) - 1);
                let part = |old: &&(u64, Bits)| at <= old.0 && old.0 <= new_last;
                let old: Vec<_> = streak.iter().filter(part).collect();
                let new = Bits {
                    oa,
                    size_lg2,
                    dirty: old.iter().any(|old| old.1.dirty),
                    accessed: old.iter().any(|old| old.1.accessed),
                    ..bits
                };
                self.leaves.insert(at, new);
                if new_last == end {
                    break;
                }
                at = new_last + 1;
            }
        }
    }

    /// Changes a leaf as hardware does. `false` if there is none.
    pub fn touch(&mut self, va: u64, dirty: bool) -> bool {
        match self.find_mut(va) {
            Some(bits) => {
                bits.accessed = true;
                bits.dirty |= dirty;
                true
            }
            None => false,
        }
    }

    /// Makes a leaf dirty and nothing else. `false` if there is none.
    pub fn set_dirty(&mut self, va: u64) -> bool {
        self.find_mut(va).map(|bits| bits.dirty = true).is_some()
    }

    /// Makes all leaves that start in `va..=last` dirty.
    pub fn set_dirty_all(&mut self, va: u64, last: u64) {
        for bits in self.leaves.range_mut(va..=last).map(|(_, bits)| bits) {
            bits.dirty = true;
        }
    }

    /// Gives a leaf other bits.
    pub fn set_rest(&mut self, va: u64, rest: u64) {
        if let Some(bits) = self.find_mut(va) {
            bits.rest = rest;
        }
    }

    /// What lies in the range of each dirty leaf. If `clear`, those that lie in it as a whole are
    /// clean afterwards.
    pub fn read_dirty(&mut self, va: u64, last: u64, clear: bool) -> Dirty {
        let start = self.find(va).map_or(va, |(start, _)| start);
        let mut dirty = Dirty::default();
        for (&first, bits) in self.leaves.range_mut(start..=last) {
            let end = last_of(first, bits);
            if bits.dirty {
                let part = (first.max(va), end.min(last));
                dirty.found.push((part.0, part.1 - part.0 + 1));
                if clear && part == (first, end) {
                    dirty.cleared.push((first, 1 << bits.size_lg2));
                    bits.dirty = false;
                }
            }
        }
        dirty
    }
}
