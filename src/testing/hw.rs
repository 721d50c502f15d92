// SPDX-License-Identifier: GPL-2.0-only

//! The hardware: walkers written from the specifications, which never ask a
//! [`Format`](crate::fmt::Format).
//!
//! A reserved bit that is not as it must be is a panic: real hardware would report a fault.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::arena::{Arena, View};
use super::odd::OddFmt;
use crate::fmt::vtdss::Vtdss;
use crate::fmt::{Features, Format, Params, Prot};

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
    /// The bit that hardware sets in a leaf that it wrote through.
    const DIRTY: u64;
    /// Bits of a leaf that hardware ignores, to see whether they survive.
    const IGNORED: u64;

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

/// Intel VT-d, second stage; section 9.8 of the specification.
#[derive(Clone, Copy, Debug)]
pub struct Vtd;

impl Hardware for Vtd {
    type Format = Vtdss;
    const GRANULE_LG2: u32 = 12;
    const ITEMS_LG2: u32 = 9;
    const ACCESSED: u64 = 0x100;
    const DIRTY: u64 = 0x200;
    // Bits 62:52 and 10.
    const IGNORED: u64 = 0x7ff0_0000_0000_0400;

    fn new(_params: &Params) -> Self {
        Vtd
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        let (read, write) = (item & 1 != 0, item & 2 != 0);
        if !read && !write {
            // Hardware ignores the rest; an operation leaves nothing behind.
            assert_eq!(item, 0, "not present, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let addr = item & 0x000f_ffff_ffff_f000;
        let size_lg2 = match level {
            0 => 12,
            1 if item & 0x80 != 0 => 21,
            2 if item & 0x80 != 0 => 30,
            _ => {
                if level > 2 {
                    assert_eq!(item & 0x80, 0, "bit 7 is reserved in an SS-PML4E");
                }
                assert_eq!(item & 0x800, 0, "bit 11 of a table item is not ours");
                return Entry::Table { addr, read, write };
            }
        };
        assert_eq!(
            addr & ((1 << size_lg2) - 1),
            0,
            "address bits below the page size are reserved: {item:#x} at level {level}"
        );
        Entry::Leaf(Bits {
            oa: addr,
            size_lg2,
            read,
            write,
            accessed: item & Self::ACCESSED != 0,
            dirty: item & Self::DIRTY != 0,
            // X, EMT, IPAT, ignored, SNP, ignored.
            rest: item & 0xfff0_0000_0000_0c7c,
        })
    }

    fn expect(&self, prot: Prot, params: &Params) -> Option<(bool, bool, u64)> {
        let (read, write) = (prot.0 & 1 != 0, prot.0 & 2 != 0);
        let force_coherence = params.features.0 & (1 << 7) != 0;
        let force_writeable = params.features.0 & (1 << 8) != 0;
        if !write && (!read || force_writeable) {
            return None;
        }
        Some((read, write, if force_coherence { 0x800 } else { 0 }))
    }

    fn page_sizes(&self) -> u64 {
        (1 << 12) | (1 << 21) | (1 << 30)
    }
}

/// The hardware that [`super::odd`] describes.
#[derive(Clone, Copy, Debug)]
pub struct OddHw<const TO_TABLE: bool, const RESIZE: bool> {
    enc_mask: u64,
}

impl<const T: bool, const R: bool> Hardware for OddHw<T, R> {
    type Format = OddFmt<T, R>;
    const GRANULE_LG2: u32 = 11;
    const ITEMS_LG2: u32 = 7;
    const ACCESSED: u64 = 1 << 0;
    const DIRTY: u64 = 1 << 1;
    const IGNORED: u64 = 0x4ff0_0000_0000_0300;

    fn new(params: &Params) -> Self {
        OddHw {
            enc_mask: params.enc_mask,
        }
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        if item >> 63 == 0 {
            assert_eq!(item, 0, "not valid, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let addr = item & 0x000f_ffff_ffff_fc00 & !self.enc_mask;
        let read = (item >> 61) & 1 == 1;
        let write = (item >> 60) & 1 == 0;
        if (item >> 2) & 1 == 1 {
            assert_ne!(level, 0, "a table item at level 0");
            assert_eq!(item & 0x1f8, 0, "reserved bits of a table item: {item:#x}");
            assert_eq!(item & self.enc_mask, self.enc_mask, "tables are encrypted");
            return Entry::Table { addr, read, write };
        }
        let code = ((item >> 3) & 7) ^ 5;
        assert_ne!(code, 7, "reserved size");
        assert!(level != 2 || code != 0, "no single leaf at level 2");
        let size_lg2 = 11 + 7 * u32::from(level) + code as u32;
        assert_eq!(addr & ((1 << size_lg2) - 1), 0, "address bits: {item:#x}");
        Entry::Leaf(Bits {
            oa: addr,
            size_lg2,
            read,
            write,
            accessed: item & 1 != 0,
            dirty: item & 2 != 0,
            rest: item & (0x4ff0_0000_0000_03c0 | self.enc_mask),
        })
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        let snoop = if prot.0 & 4 != 0 { 1 << 7 } else { 0 };
        let enc = if prot.0 & 16 != 0 { 0 } else { self.enc_mask };
        (prot.0 & 1 != 0).then_some((true, prot.0 & 2 != 0, snoop | enc))
    }

    fn page_sizes(&self) -> u64 {
        ((1 << 38) - (1 << 11)) & !(1 << 25)
    }
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

/// Hardware that was told where the top table is.
#[derive(Clone, Copy)]
pub struct Root<'a, H> {
    /// The bits.
    pub hw: H,
    /// The memory.
    pub arena: &'a Arena,
    /// Address of the top table.
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

    fn canonical(&self, va: u64) -> bool {
        let unused = 64 - self.va_lg2;
        if self.sign {
            ((va << unused) as i64 >> unused) as u64 == va
        } else {
            va << unused >> unused == va
        }
    }

    /// Translates. `view` says, for each item on the way (bit n: the n-th read), whether it is read
    /// as it is in memory and not as the CPU sees it.
    pub fn translate_mixed(&self, va: u64, views: u32) -> Option<Hit> {
        if !self.canonical(va) {
            return None;
        }
        let (mut table, mut level) = (self.top, self.level);
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

    /// Translates as coherent hardware does.
    pub fn translate(&self, va: u64) -> Option<Hit> {
        self.translate_mixed(va, 0)
    }

    /// What any walk may find, whichever items were written back to memory by now: one answer if
    /// all agree, which they must, else a panic.
    pub fn translate_any(&self, va: u64) -> Option<Hit> {
        let first = self.translate_mixed(va, 0);
        if self.arena.incoherent() {
            for views in 1..1 << (self.level + 1) {
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
            1 << (self.level + 1)
        } else {
            1
        }
    }

    /// Everything that can be reached in one view.
    pub fn scan(&self, view: View) -> Scan {
        let mut scan = Scan::default();
        self.scan_table(self.top, self.level, 0, (true, true), view, &mut scan);
        // The half above the sign bit comes last.
        scan.leaves.sort_by_key(|leaf| leaf.va);
        scan
    }

    fn scan_table(
        &self,
        table: u64,
        level: u8,
        va: u64,
        rights: (bool, bool),
        view: View,
        scan: &mut Scan,
    ) {
        let item_lg2 = Self::item_lg2(level);
        scan.tables.push(TableAt {
            va,
            size_lg2: item_lg2 + H::ITEMS_LG2,
            level,
            addr: table,
        });
        let mut index = 0;
        while index < 1 << H::ITEMS_LG2 {
            let read_item = |i| {
                let item = self.arena.hw_read(Self::slot(table, i), view);
                self.hw.decode(item, level)
            };
            let mut va = va.wrapping_add(index << item_lg2);
            if self.sign && (va >> (self.va_lg2 - 1)) & 1 == 1 {
                va |= !((1 << self.va_lg2) - 1);
            }
            match read_item(index) {
                Entry::Empty => index += 1,
                Entry::Table { addr, read, write } => {
                    let rights = (rights.0 && read, rights.1 && write);
                    self.scan_table(addr, level - 1, va, rights, view, scan);
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
                    scan.leaves.push(LeafAt { va, level, bits });
                    index += items;
                }
            }
        }
    }

    /// All tables that a walk can reach that reads each item as the CPU sees it, as it is in memory,
    /// or either, by `views`. Only needs items to be sound, not leaves to be complete.
    pub fn reachable(&self, views: &[View]) -> BTreeSet<u64> {
        let mut found = BTreeMap::new();
        self.reach(self.top, self.level, views, &mut found);
        found.into_keys().collect()
    }

    fn reach(&self, table: u64, level: u8, views: &[View], found: &mut BTreeMap<u64, u8>) {
        if let Some(before) = found.insert(table, level) {
            assert_eq!(before, level, "a table at two levels");
            return;
        }
        if level == 0 {
            return;
        }
        for index in 0..1 << H::ITEMS_LG2 {
            for &view in views {
                let item = self.arena.hw_read(Self::slot(table, index), view);
                if let Entry::Table { addr, .. } = self.hw.decode(item, level) {
                    self.reach(addr, level - 1, views, found);
                }
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
        let (mut table, mut level) = (self.top, self.level);
        loop {
            let at = Self::slot(table, va >> Self::item_lg2(level));
            match self.hw.decode(self.arena.hw_read(at, View::Cpu), level) {
                Entry::Table { addr, .. } => {
                    self.arena.hw_set(at, H::ACCESSED);
                    table = addr;
                    level -= 1;
                }
                _ => return,
            }
        }
    }
}

/// The features that say which walker it is.
pub fn sign_extends(params: &Params) -> bool {
    params.features.has(Features::SIGN_EXTEND)
}
