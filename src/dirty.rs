// SPDX-License-Identifier: GPL-2.0-only

//! Dirty tracking: leaves that hardware wrote through.

#![forbid(unsafe_code)]

use crate::fmt::{
    Format,
    Kind, //
};
use crate::mem::{
    Cell,
    PtMem, //
};
use crate::range::Locked;
use crate::size::{
    self,
    Bytes,
    Iova, //
};
use crate::table::{
    Index,
    Item,
    Table, //
};
use crate::{
    Error,
    Level,
    Pt,
    Result, //
};

/// Receives the dirty leaves that [`Pt::read_dirty`] finds.
pub trait DirtySink {
    /// `len` from `va` on, of one dirty leaf or of several that follow each other, may have been
    /// written to. None of these leaves is clean yet: after an error all of them stay dirty, and
    /// the read ends.
    fn dirty(&mut self, va: Iova, len: Bytes) -> Result;

    /// The leaves at these addresses, all of which were reported, are clean now: what the hardware
    /// caches of them has to be flushed, whatever the read returns in the end.
    fn cleared(&mut self, va: Iova, len: Bytes);
}

/// A read of dirty bits that is under way.
struct Reading<'s, S: DirtySink> {
    sink: &'s mut S,
    range: Locked,
    clear: bool,
}

impl<S: DirtySink> Reading<'_, S> {
    /// Reports what was asked for of the dirty leaves at `va..=last`.
    #[inline]
    fn report(&mut self, va: Iova, last: Iova) -> Result {
        let va = va.max(self.range.va());
        let last = last.min(self.range.last());
        self.sink.dirty(va, va.through(last))
    }

    /// Whether the leaves at `va..=last` may be made clean: only if all of them lies in the range,
    /// so that all was reported.
    fn clears(&self, va: Iova, last: Iova) -> bool {
        self.clear && self.range.va() <= va && last <= self.range.last()
    }
}

/// The first place from `at` on whose item does not fulfil `like`, or the end.
#[inline(always)]
fn skip<C: Cell>(cells: &[C], mut at: usize, like: impl Fn(u64) -> bool) -> usize {
    while cells.get(at).is_some_and(|cell| like(cell.read())) {
        at = at.wrapping_add(1);
    }
    at
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Reports what lies in `range` of each dirty leaf, and then makes the leaf clean if `clear` is
    /// set. A bit that hardware sets meanwhile is either reported or stays.
    ///
    /// A leaf of which only a part is in the range stays dirty: its one bit speaks for all of it,
    /// and the rest was not reported. So it is reported by each read of a part of it, until a read
    /// includes all of it, or it is split.
    ///
    /// The range may be locked shared. Errors: [`Error::NotSupported`] if the format has no dirty
    /// bit, [`Error::OutOfRange`], and what the sink returns. A leaf whose report the sink did not
    /// accept stays dirty.
    pub fn read_dirty<S: DirtySink>(&self, range: Locked, clear: bool, sink: &mut S) -> Result {
        if F::DIRTY == 0 {
            return Err(Error::NotSupported);
        }
        self.check_range(range)?;
        let mut reading = Reading { sink, range, clear };
        self.read_dirty_table(self.top, range.va(), range.last(), &mut reading)
    }

    fn read_dirty_table<S: DirtySink>(
        &self,
        table: Table<'t, F, M>,
        va: Iova,
        last: Iova,
        reading: &mut Reading<'_, S>,
    ) -> Result {
        // Most leaves are at the lowest level; knowing it spares questions about each.
        if table.level() == Level::LEAF {
            self.read_dirty_items(table, Level::LEAF, va, last, reading)
        } else {
            self.read_dirty_items(table, table.level(), va, last, reading)
        }
    }

    #[inline(always)]
    fn read_dirty_items<S: DirtySink>(
        &self,
        table: Table<'t, F, M>,
        level: Level,
        va: Iova,
        last: Iova,
        reading: &mut Reading<'_, S>,
    ) -> Result {
        let item_lg2 = level.item_lg2::<F>();
        let first = Index::of::<F>(va, level);
        let start = va.floor(item_lg2);
        let want = va.boundaries_to(last, item_lg2);
        let cells = table.cells(first, want.wrapping_add(1));
        let va_of = |n: usize| start.plus(Bytes::blocks(n as u64, item_lg2));
        let single = |item| F::is_single(item, level, &self.cfg.params);
        let dirty = |item| item & F::DIRTY != 0 && single(item);
        // An empty item may have the bit, too: hardware may set it late, without looking at the
        // item.
        let quiet =
            |item| (item & F::DIRTY == 0 && single(item)) || F::kind(item, level) == Kind::Empty;
        let mut at = 0;
        loop {
            // Most have nothing to report; those that have often follow each other.
            at = skip(cells, at, quiet);
            let Some(cell) = cells.get(at) else {
                return Ok(());
            };
            let mut end = at.wrapping_add(1);
            if dirty(cell.read()) {
                end = skip(cells, end, dirty);
                reading.report(va_of(at), va_of(end).before())?;
                if reading.clear {
                    // Only the outermost ones can be in the range in part.
                    let from = at.wrapping_add(usize::from(va_of(at) < va));
                    let cut = usize::from(last < va_of(end).before());
                    let whole = cells.get(from..end.wrapping_sub(cut)).unwrap_or_default();
                    if !whole.is_empty() {
                        M::Cell::clear_bits_of(whole, F::DIRTY);
                        let len = Bytes::blocks(whole.len() as u64, item_lg2);
                        reading.sink.cleared(va_of(from), len);
                    }
                }
            } else {
                let item = table.read(first.plus::<F>(at as u64));
                self.read_dirty_other(item, va_of(at), va, last, reading)?;
            }
            at = end;
        }
    }

    /// The table or the contiguous leaf of an item whose first address is `at`.
    fn read_dirty_other<S: DirtySink>(
        &self,
        item: Item<'t, F, M>,
        at: Iova,
        va: Iova,
        last: Iova,
        reading: &mut Reading<'_, S>,
    ) -> Result {
        let item_lg2 = item.table().item_lg2();
        if let Some(child) = item.child(&self.cfg.params) {
            let child_last = at.block_last(item_lg2).min(last);
            return self.read_dirty_table(child, va.max(at), child_last, reading);
        }
        let contig_lg2 = item.contig_lg2(&self.cfg.params);
        let leaf_lg2 = item_lg2.wrapping_add(contig_lg2);
        // At the first of its items that is in the range, and not again.
        if at > va && at.offset(leaf_lg2) != Bytes(0) {
            return Ok(());
        }
        let first = item.index().group(contig_lg2);
        let cells = item.table().cells(first, size::pow2(contig_lg2));
        let dirty = |cell: &M::Cell| cell.read() & F::DIRTY != 0;
        if cells.iter().any(dirty) {
            let (start, end) = (at.floor(leaf_lg2), at.block_last(leaf_lg2));
            reading.report(start, end)?;
            if reading.clears(start, end) {
                for cell in cells.iter().filter(|&cell| dirty(cell)) {
                    cell.clear_bits(F::DIRTY);
                }
                reading.sink.cleared(start, Bytes::block(leaf_lg2));
            }
        }
        Ok(())
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
