// SPDX-License-Identifier: GPL-2.0-only

//! What an operation reports, checked while it does.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::arena::{Arena, View};
use super::hw::{Hardware, Root, TableAt};
use crate::size::max_offset;
use iotable::gather::Gather;
use iotable::{Bytes, DirtySink, Error, Iova, Level, RawTable, Result};

/// Checks a gather while it happens, and frees tables as early as the contract allows.
pub struct Log<'a, H: Hardware> {
    root: Root<'a, H>,
    places: BTreeMap<u64, TableAt>,
    pending: Vec<RawTable<Arena>>,
    seen: Gathered,
}

/// What an operation reported.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Levels of which a leaf was removed, bit n for level n.
    pub levels: u32,
    /// Ranges to flush, in order, as first and last address.
    pub ranges: Vec<(u64, u64)>,
    /// The number of tables that there were at the start.
    pub tables: usize,
    /// The number of tables that were freed.
    pub freed: usize,
}

impl<'a, H: Hardware> Log<'a, H> {
    /// For an operation that starts now.
    pub fn new(root: Root<'a, H>) -> Self {
        let tables = root.scan(View::Cpu).tables;
        Log {
            root,
            places: tables.into_iter().map(|at| (at.addr, at)).collect(),
            pending: Vec::new(),
            seen: Gathered::default(),
        }
    }

    /// Where a table was: from the start, or as the top for a moment of this operation.
    fn place(&self, addr: u64) -> TableAt {
        if let Some(&place) = self.places.get(&addr) {
            return place;
        }
        let tops = self.root.arena.tops();
        let top = tops.iter().find(|top| top.0 == addr);
        let &(_, Level(level)) = top.expect("not a table that there was");
        TableAt {
            va: 0,
            size_lg2: H::GRANULE_LG2 + H::ITEMS_LG2 * (u32::from(level) + 1),
            level,
            addr,
        }
    }

    /// Panics if something was handed over for which no range was named.
    pub fn finish(mut self) -> Gathered {
        assert!(self.pending.is_empty(), "tables without a range to flush");
        self.seen.tables = self.places.len();
        self.seen
    }
}

impl<H: Hardware> Gather<Arena> for Log<'_, H> {
    fn table(&mut self, table: RawTable<Arena>, level: Level) {
        let addr = table.ptr().as_ptr() as u64;
        let place = self.place(addr);
        assert_eq!(place.level + 1, level.0, "level of the gathered table");
        assert!(
            !self.root.reachable(&[View::Cpu]).contains(&addr),
            "gathered while a table item points to it"
        );
        self.pending.push(table);
    }

    fn leaf(&mut self, level: Level) {
        self.seen.levels |= 1 << level.0;
    }

    fn range(&mut self, Iova(va): Iova, Bytes(len): Bytes) {
        let last = va + (len - 1);
        self.seen.ranges.push((va, last));
        if self.pending.is_empty() {
            return;
        }
        // It may flush here, and free.
        let reachable = self.root.reachable(&[View::Cpu, View::Memory]);
        for table in core::mem::take(&mut self.pending) {
            let addr = table.ptr().as_ptr() as u64;
            let place = self.place(addr);
            let mut first = place.va;
            if self.root.sign && va >> 63 == 1 {
                first |= !max_offset(self.root.va_lg2);
            }
            assert!(
                va <= first && first + max_offset(place.size_lg2) <= last,
                "{va:#x}..={last:#x} does not cover the freed {place:x?}"
            );
            assert!(
                !reachable.contains(&addr),
                "freed while the hardware reaches it"
            );
            self.root.arena.free_gathered(table);
            self.seen.freed += 1;
        }
    }
}

/// What a read of dirty bits told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Addresses that may have been written to, each as first address and length.
    pub found: Vec<(u64, u64)>,
    /// Those of leaves that are clean now.
    pub cleared: Vec<(u64, u64)>,
    /// The number of reports that are taken, if not all are.
    pub room: Option<usize>,
}

impl Dirty {
    /// Joins ranges that follow each other: an operation may report them in any number of parts.
    pub fn joined(self) -> Dirty {
        Dirty {
            found: joined(self.found),
            cleared: joined(self.cleared),
            room: self.room,
        }
    }
}

impl DirtySink for Dirty {
    fn dirty(&mut self, Iova(va): Iova, Bytes(len): Bytes) -> Result {
        match &mut self.room {
            Some(0) => return Err(Error::Env(-14)),
            Some(room) => *room -= 1,
            None => {}
        }
        self.found.push((va, len));
        Ok(())
    }

    fn cleared(&mut self, Iova(va): Iova, Bytes(len): Bytes) {
        let &(found, of) = self
            .found
            .last()
            .expect("cleared, and nothing was reported");
        let last = va + (len - 1);
        assert!(
            found <= va && last <= found + (of - 1),
            "{va:#x}..={last:#x} was cleared without a report"
        );
        self.cleared.push((va, len));
    }
}

fn joined(leaves: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (va, len) in leaves {
        match runs.last_mut() {
            Some(run) if run.0.wrapping_add(run.1) == va => run.1 += len,
            _ => runs.push((va, len)),
        }
    }
    runs
}
