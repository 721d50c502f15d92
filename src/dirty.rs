// SPDX-License-Identifier: GPL-2.0-only

//! Dirty tracking: leaves that hardware wrote through.

#![forbid(unsafe_code)]

use crate::fmt::{Format, Kind};
use crate::mem::{Cell, PtMem};
use crate::range::Locked;
use crate::size;
use crate::table::{Index, Item, Table};
use crate::{Error, Level, Pt, Result};

/// Receives the dirty leaves that [`Pt::read_dirty`] finds.
pub trait DirtySink {
    /// `len` bytes from `va`, one leaf or several that follow each other, were written to. If
    /// `cleared`, they are clean now and what the hardware caches of them has to be flushed.
    fn dirty(&mut self, va: u64, len: u64, cleared: bool);
}

/// Dirty leaves that follow each other, to be reported as one.
struct Reports<'s, S: DirtySink> {
    sink: &'s mut S,
    clear: bool,
    va: u64,
    /// 0 if there is none.
    len: u64,
}

impl<S: DirtySink> Reports<'_, S> {
    fn leaves(&mut self, va: u64, len: u64) {
        match self.len.checked_add(len) {
            Some(sum) if va == self.va.wrapping_add(self.len) => self.len = sum,
            // Not the next one, or all of 64 bits.
            _ => {
                self.report();
                self.va = va;
                self.len = len;
            }
        }
    }

    #[inline]
    fn report(&mut self) {
        if self.len != 0 {
            self.sink.dirty(self.va, self.len, self.clear);
            self.len = 0;
        }
    }
}

/// The first place from `at` on whose item is not `like` that, or the end.
#[inline(always)]
fn skip<C: Cell>(cells: &[C], mut at: usize, like: impl Fn(u64) -> bool) -> usize {
    while cells.get(at).is_some_and(|cell| like(cell.read())) {
        at = at.wrapping_add(1);
    }
    at
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Reports each dirty leaf that has an address in `range`, as a whole, and makes it clean if
    /// `clear` is set. A bit that hardware sets meanwhile is either reported or stays.
    ///
    /// The range may be locked shared. Errors: [`Error::NotSupported`] if the format has no dirty
    /// bit, [`Error::OutOfRange`].
    pub fn read_dirty<S: DirtySink>(&self, range: Locked, clear: bool, sink: &mut S) -> Result {
        if F::DIRTY == 0 {
            return Err(Error::NotSupported);
        }
        self.check_range(range)?;
        let mut reports = Reports {
            sink,
            clear,
            va: 0,
            len: 0,
        };
        self.read_dirty_table(self.top, range.va(), range.last(), &mut reports);
        reports.report();
        Ok(())
    }

    fn read_dirty_table<S: DirtySink>(
        &self,
        table: Table<'t, F, M>,
        va: u64,
        last: u64,
        reports: &mut Reports<'_, S>,
    ) {
        // Most leaves are at the lowest level; knowing it spares questions about each.
        if table.level() == Level::LEAF {
            self.read_dirty_items(table, Level::LEAF, va, last, reports);
        } else {
            self.read_dirty_items(table, table.level(), va, last, reports);
        }
    }

    #[inline(always)]
    fn read_dirty_items<S: DirtySink>(
        &self,
        table: Table<'t, F, M>,
        level: Level,
        va: u64,
        last: u64,
        reports: &mut Reports<'_, S>,
    ) {
        let item_lg2 = level.item_lg2::<F>();
        let first = Index::of::<F>(va, level);
        let start = size::floor(va, item_lg2);
        let want = size::shr(last, item_lg2).wrapping_sub(size::shr(va, item_lg2));
        let cells = table.cells(first, want.wrapping_add(1));
        let va_of = |n: usize| start.wrapping_add(size::shl(n as u64, item_lg2));
        let single = |item| F::is_single(item, level, &self.cfg.params);
        let dirty = |item| item & F::DIRTY != 0 && single(item);
        let quiet =
            |item| item & F::DIRTY == 0 && (single(item) || F::kind(item, level) == Kind::Empty);
        let mut at = 0;
        loop {
            // Most have nothing to report; those that have often follow each other.
            at = skip(cells, at, quiet);
            let Some(cell) = cells.get(at) else {
                return;
            };
            let mut end = at.wrapping_add(1);
            if single(cell.read()) {
                end = skip(cells, end, dirty);
                if reports.clear {
                    M::Cell::clear_bits_of(cells.get(at..end).unwrap_or_default(), F::DIRTY);
                }
                reports.leaves(va_of(at), va_of(end).wrapping_sub(va_of(at)));
            } else {
                let item = table.read(first.plus::<F>(at as u64));
                self.read_dirty_other(item, va_of(at), va, last, reports);
            }
            at = end;
        }
    }

    /// The table or the contiguous leaf of an item whose first address is `at`.
    fn read_dirty_other<S: DirtySink>(
        &self,
        item: Item<'t, F, M>,
        at: u64,
        va: u64,
        last: u64,
        reports: &mut Reports<'_, S>,
    ) {
        let item_lg2 = item.table().item_lg2();
        if let Some(child) = item.child(&self.cfg.params) {
            let child_last = size::block_last(at, item_lg2).min(last);
            self.read_dirty_table(child, va.max(at), child_last, reports);
            return;
        }
        let contig_lg2 = item.contig_lg2(&self.cfg.params);
        let leaf_lg2 = item_lg2.wrapping_add(contig_lg2);
        // At the first of its items that is in the range, and not again.
        if at <= va || size::offset(at, leaf_lg2) == 0 {
            let first = item.index().group(contig_lg2);
            if self.read_group(item.table(), first, contig_lg2, reports.clear) {
                reports.leaves(size::floor(at, leaf_lg2), size::pow2(leaf_lg2));
            }
        }
    }

    /// Whether any item of a contiguous leaf is dirty; makes all clean if `clear` is set.
    #[inline]
    fn read_group(
        &self,
        table: Table<'t, F, M>,
        first: Index,
        contig_lg2: u32,
        clear: bool,
    ) -> bool {
        let mut dirty = false;
        for cell in table.cells(first, size::pow2(contig_lg2)) {
            if cell.read() & F::DIRTY != 0 {
                dirty = true;
                if clear {
                    cell.clear_bits(F::DIRTY);
                }
            }
        }
        dirty
    }

    /// Makes the leaf at the first address of `at` dirty, as hardware would. For tests.
    ///
    /// Errors: [`Error::NotMapped`], [`Error::Raced`] if the item changed meanwhile,
    /// [`Error::NotSupported`].
    pub fn set_dirty(&self, at: Locked) -> Result {
        if F::DIRTY == 0 {
            return Err(Error::NotSupported);
        }
        self.check_range(at)?;
        let leaf = self.find(at.va()).ok_or(Error::NotMapped)?;
        match leaf.cell().publish(leaf.raw(), leaf.raw() | F::DIRTY) {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::Raced),
        }
    }
}
