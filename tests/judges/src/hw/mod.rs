// SPDX-License-Identifier: GPL-2.0-only

//! The hardware: walkers written from the specifications, which never ask a
//! [`Format`](iotable::fmt::Format).
//!
//! A reserved bit that is not as it must be is a panic: real hardware would report a fault.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::arena::{Arena, View};
use crate::size::max_offset;
use iotable::fmt::{Format, Params, Prot};

mod amdv1;
mod armv8;
mod odd;
mod riscv;
mod vtdss;
mod x86_64;

pub use amdv1::Amd;
pub use armv8::Arm;
pub use odd::OddHw;
pub use riscv::Riscv;
pub use vtdss::Vtd;
pub use x86_64::X86;

/// A leaf item, as the hardware understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Where the leaf, all of it, goes.
    pub oa: u64,
    /// log2 of its bytes.
    pub size_lg2: u32,
    /// Grants reading.
    pub read: bool,
    /// Grants writing.
    pub write: bool,
    /// The accessed bit.
    pub accessed: bool,
    /// The dirty bit.
    pub dirty: bool,
    /// All other bits: memory type, snoop, encryption, and those that are ignored.
    pub rest: u64,
}

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Not present.
    Empty,
    /// Leads to a table.
    Table {
        /// Its address.
        addr: u64,
        /// Grants reading below.
        read: bool,
        /// Grants writing below.
        write: bool,
    },
    /// Translates.
    Leaf(Bits),
}

/// The bit layout of one kind of page table.
pub trait Hardware: Copy + 'static {
    /// The format that claims to produce it.
    type Format: Format;
    /// log2 of the smallest leaf.
    const GRANULE_LG2: u32;
    /// log2 of the number of items in a table.
    const ITEMS_LG2: u32;
    /// The bit that hardware sets in what it used.
    const ACCESSED: u64;
    /// The bit that hardware sets in a leaf that it wrote through; 0 if there is none.
    const DIRTY: u64;
    /// The bit that hardware sets in a table item that it used.
    const TABLE_ACCESSED: u64 = Self::ACCESSED;
    /// Linux sets accessed in each new leaf and dirty in each that may be written to, so hardware
    /// has nothing to set, and there is no dirty tracking. If there is no dirty bit at all, a leaf
    /// that may be written to counts as dirty.
    const PRESET: bool = false;
    /// Bits of a leaf that may have any value, most of them ignored, to see whether they survive.
    const IGNORED: u64;
    /// A bit of leaves and table items that hardware and the code under test leave as it is, for a
    /// change by somebody else.
    const FOREIGN: u64 = {
        let own = Self::Format::HW_BITS | Self::Format::CLEANED;
        1 << (Self::IGNORED & !own).trailing_zeros()
    };

    /// Hardware for a table with these parameters.
    fn new(params: &Params) -> Self;

    /// What the item means in a table of this level.
    fn decode(&self, item: u64, level: u8) -> Entry;

    /// What a leaf that is mapped with `prot` must grant, and its other bits. `None` if such a
    /// mapping must be refused.
    fn expect(&self, prot: Prot, params: &Params) -> Option<(bool, bool, u64)>;

    /// The leaf sizes of the specification.
    fn page_sizes(&self) -> u64;
}

/// What a translation gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The output address.
    pub oa: u64,
    /// The leaf; rights are those of all levels together.
    pub bits: Bits,
    /// Its level.
    pub level: u8,
    /// The address of the leaf item that was used.
    pub item: u64,
}

impl Hit {
    /// What a device can notice.
    pub fn seen(&self) -> (u64, bool, bool, u64) {
        (self.oa, self.bits.read, self.bits.write, self.bits.rest)
    }
}

/// A leaf, at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafAt {
    /// Its first address.
    pub va: u64,
    /// Its level.
    pub level: u8,
    /// Its bits; of a contiguous leaf, A and D are set if any of its items has them.
    pub bits: Bits,
}

/// A table, at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableAt {
    /// The first address that it serves.
    pub va: u64,
    /// log2 of the bytes that it serves.
    pub size_lg2: u32,
    /// The level of its items.
    pub level: u8,
    /// Where it is.
    pub addr: u64,
}

/// All that can be reached.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The tables, the top one included.
    pub tables: Vec<TableAt>,
    /// The leaves, in ascending order.
    pub leaves: Vec<LeafAt>,
}

/// Is shown what can be reached.
pub trait Visitor {
    /// A table, the top one first.
    fn table(&mut self, at: TableAt);
    /// A leaf.
    fn leaf(&mut self, at: LeafAt);
}

impl Visitor for Scan {
    fn table(&mut self, at: TableAt) {
        self.tables.push(at);
    }

    fn leaf(&mut self, at: LeafAt) {
        self.leaves.push(at);
    }
}

/// What walks can reach.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Tables, each with its level.
    pub tables: BTreeMap<u64, u8>,
    /// The table items that lead to them.
    pub links: BTreeSet<u64>,
}

/// Hardware that was told where the top table is.
#[derive(Clone, Copy)]
pub struct Root<'a, H> {
    /// The bits.
    pub hw: H,
    /// The memory.
    pub arena: &'a Arena,
    /// Address of the top table, unless the arena was told one.
    pub top: u64,
    /// Its level.
    pub level: u8,
    /// log2 of the IOVA space.
    pub va_lg2: u32,
    /// The highest translated bit extends to bit 63.
    pub sign: bool,
}

impl<H: Hardware> Root<'_, H> {
    fn item_lg2(level: u8) -> u32 {
        H::GRANULE_LG2 + H::ITEMS_LG2 * u32::from(level)
    }

    fn slot(addr: u64, index: u64) -> u64 {
        addr + 8 * (index & ((1 << H::ITEMS_LG2) - 1))
    }

    /// Where a walk starts now: the top that was published last, if the table can grow.
    pub fn start(&self) -> (u64, u8) {
        match self.arena.hw_top() {
            Some((top, level)) => (top, level.0),
            None => (self.top, self.level),
        }
    }

    /// Whether a top table of this level serves `va`.
    pub fn canonical(&self, va: u64, level: u8) -> bool {
        // A table that can grow is not asked for more than its top serves.
        let reach = self.va_lg2.min(Self::item_lg2(level) + H::ITEMS_LG2);
        let unused = 64 - reach;
        if self.sign {
            ((va << unused) as i64 >> unused) as u64 == va
        } else {
            va << unused >> unused == va
        }
    }

    /// Translates. `view` says, for each item on the way (bit n: the n-th read), whether it is read
    /// as it is in memory and not as the CPU sees it.
    pub fn translate_mixed(&self, va: u64, views: u32) -> Option<Hit> {
        self.translate_from(self.start(), va, views)
    }

    /// As [`translate_mixed`](Self::translate_mixed), from a top that may not be the latest.
    pub fn translate_from(&self, (top, level): (u64, u8), va: u64, views: u32) -> Option<Hit> {
        if !self.canonical(va, level) {
            return None;
        }
        let (mut table, mut level) = (top, level);
        let (mut may_read, mut may_write) = (true, true);
        let mut views = views;
        loop {
            let at = Self::slot(table, va >> Self::item_lg2(level));
            let view = if views & 1 == 1 {
                View::Memory
            } else {
                View::Cpu
            };
            views >>= 1;
            match self.hw.decode(self.arena.hw_read(at, view), level) {
                Entry::Empty => return None,
                Entry::Table { addr, read, write } => {
                    may_read &= read;
                    may_write &= write;
                    table = addr;
                    level -= 1;
                }
                Entry::Leaf(mut bits) => {
                    bits.read &= may_read;
                    bits.write &= may_write;
                    return (bits.read || bits.write).then_some(Hit {
                        oa: bits.oa | (va & ((1 << bits.size_lg2) - 1)),
                        bits,
                        level,
                        item: at,
                    });
                }
            }
        }
    }

    /// The table of this level that serves `va`, if a walk gets there.
    pub fn table_of(&self, va: u64, level: u8, view: View) -> Option<u64> {
        let (mut table, mut at) = self.start();
        while at > level {
            let slot = Self::slot(table, va >> Self::item_lg2(at));
            match self.hw.decode(self.arena.hw_read(slot, view), at) {
                Entry::Table { addr, .. } => table = addr,
                _ => return None,
            }
            at -= 1;
        }
        Some(table)
    }

    /// Where a table of this level has the item for `va`.
    pub fn item_at(table: u64, level: u8, va: u64) -> u64 {
        Self::slot(table, va >> Self::item_lg2(level))
    }

    /// One step of a walk: what a table of this level has for `va`.
    pub fn entry(&self, table: u64, level: u8, va: u64, view: View) -> Entry {
        let at = Self::item_at(table, level, va);
        self.hw.decode(self.arena.hw_read(at, view), level)
    }

    /// Translates as coherent hardware does.
    pub fn translate(&self, va: u64) -> Option<Hit> {
        self.translate_mixed(va, 0)
    }

    /// What any walk may find, whichever items were written back to memory by now: one answer if
    /// all agree, which they must, else a panic.
    pub fn translate_any(&self, va: u64) -> Option<Hit> {
        let first = self.translate_mixed(va, 0);
        if self.arena.incoherent() {
            for views in 1..self.mixes() {
                let other = self.translate_mixed(va, views);
                assert_eq!(
                    other.map(|hit| hit.seen()),
                    first.map(|hit| hit.seen()),
                    "{va:#x} depends on what was written back ({views:#b})"
                );
            }
        }
        first
    }

    /// The number of ways to mix views on a walk.
    pub fn mixes(&self) -> u32 {
        if self.arena.incoherent() {
            1 << (self.start().1 + 1)
        } else {
            1
        }
    }

    /// Everything that can be reached in one view.
    pub fn scan(&self, view: View) -> Scan {
        let mut scan = Scan::default();
        self.visit(view, &mut scan);
        scan
    }

    /// Shows everything that can be reached in one view, tables before what is in them, leaves in
    /// ascending order.
    pub fn visit<V: Visitor>(&self, view: View, visitor: &mut V) {
        let (top, level) = self.start();
        self.visit_table(top, level, 0, (true, true), view, visitor);
    }

    fn visit_table<V: Visitor>(
        &self,
        table: u64,
        level: u8,
        va: u64,
        rights: (bool, bool),
        view: View,
        visitor: &mut V,
    ) {
        let item_lg2 = Self::item_lg2(level);
        visitor.table(TableAt {
            va,
            size_lg2: item_lg2 + H::ITEMS_LG2,
            level,
            addr: table,
        });
        let items = self.arena.hw_items(table, 1 << H::ITEMS_LG2, view);
        let used = (max_offset(self.va_lg2) >> item_lg2).min(max_offset(H::ITEMS_LG2));
        if va == 0 {
            // The top table is used in part.
            for item in &items[used as usize + 1..] {
                assert_eq!(item.hw_read(), 0, "outside of the space");
            }
        }
        let mut index = 0;
        while index < items.len() {
            let read_item = |i: usize| self.hw.decode(items[i].hw_read(), level);
            let mut va = va.wrapping_add((index as u64) << item_lg2);
            if self.sign && (va >> (self.va_lg2 - 1)) & 1 == 1 {
                va |= !max_offset(self.va_lg2);
            }
            match read_item(index) {
                Entry::Empty => index += 1,
                Entry::Table { addr, read, write } => {
                    let rights = (rights.0 && read, rights.1 && write);
                    self.visit_table(addr, level - 1, va, rights, view, visitor);
                    index += 1;
                }
                Entry::Leaf(mut bits) => {
                    let items = 1 << (bits.size_lg2 - item_lg2);
                    assert_eq!(index % items, 0, "a contiguous leaf without its start");
                    for i in index + 1..index + items {
                        let Entry::Leaf(other) = read_item(i) else {
                            panic!("a contiguous leaf with a hole");
                        };
                        bits.accessed |= other.accessed;
                        bits.dirty |= other.dirty;
                        let replica = Bits {
                            accessed: bits.accessed,
                            dirty: bits.dirty,
                            ..other
                        };
                        assert_eq!(replica, bits, "items of a leaf differ");
                    }
                    bits.read &= rights.0;
                    bits.write &= rights.1;
                    visitor.leaf(LeafAt { va, level, bits });
                    index += items;
                }
            }
        }
    }

    /// All tables that a walk can reach that reads each item as the CPU sees it, as it is in
    /// memory, or either, by `views`. Only needs items to be sound, not leaves to be complete.
    pub fn reachable(&self, views: &[View]) -> BTreeSet<u64> {
        self.reach(views).tables.into_keys().collect()
    }

    /// As [`reachable`](Self::reachable), with levels, and with the items that lead there.
    pub fn reach(&self, views: &[View]) -> Reach {
        let mut found = Reach::default();
        let (top, level) = self.start();
        self.reach_table(top, level, views, &mut found);
        found
    }

    fn reach_table(&self, table: u64, level: u8, views: &[View], found: &mut Reach) {
        if let Some(before) = found.tables.insert(table, level) {
            assert_eq!(before, level, "a table at two levels");
            return;
        }
        if level == 0 {
            return;
        }
        for index in 0..1 << H::ITEMS_LG2 {
            let at = Self::slot(table, index);
            for &view in views {
                let item = self.arena.hw_read(at, view);
                if let Entry::Table { addr, .. } = self.hw.decode(item, level) {
                    found.links.insert(at);
                    self.reach_table(addr, level - 1, views, found);
                }
            }
        }
    }

    /// The items that walks for `va` read, whichever view they have of each: what they find depends
    /// on these only. None if it cannot be translated at all.
    pub fn path(&self, va: u64, views: &[View]) -> Vec<u64> {
        let start = self.start();
        let mut path = Vec::new();
        if self.canonical(va, start.1) {
            self.path_from(start, va, views, &mut path);
        }
        path
    }

    fn path_from(&self, from: (u64, u8), va: u64, views: &[View], path: &mut Vec<u64>) {
        let (table, level) = from;
        let at = Self::slot(table, va >> Self::item_lg2(level));
        if path.contains(&at) {
            return;
        }
        path.push(at);
        for &view in views {
            let item = self.arena.hw_read(at, view);
            if let Entry::Table { addr, .. } = self.hw.decode(item, level) {
                self.path_from((addr, level - 1), va, views, path);
            }
        }
    }

    /// The hardware reads or writes through `va` and notes it in the item, as a compare-exchange of
    /// the hardware that walked a moment ago would. Returns the leaf that was used.
    pub fn access(&self, va: u64, write: bool) -> Option<Hit> {
        let hit = self.translate(va)?;
        let dirty = if write { H::DIRTY } else { 0 };
        self.arena.hw_set(hit.item, H::ACCESSED | dirty);
        Some(hit)
    }

    /// Sets the accessed bit in every table item on the way to `va`, as hardware does.
    pub fn access_tables(&self, va: u64) {
        let (mut table, mut level) = self.start();
        loop {
            let at = Self::slot(table, va >> Self::item_lg2(level));
            match self.hw.decode(self.arena.hw_read(at, View::Cpu), level) {
                Entry::Table { addr, .. } => {
                    self.arena.hw_set(at, H::TABLE_ACCESSED);
                    table = addr;
                    level -= 1;
                }
                _ => return,
            }
        }
    }
}
