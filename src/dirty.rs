// SPDX-License-Identifier: GPL-2.0-only

//! Dirty tracking: leaves that hardware wrote through.

#![forbid(unsafe_code)]

use crate::fmt::{Format, Kind};
use crate::mem::{Cell, PtMem};
use crate::range::Locked;
use crate::size;
use crate::table::{Index, Item, Table};
use crate::{Error, Pt, Result, SplitFlush};

/// Receives the dirty leaves that [`Pt::read_dirty`] finds.
pub trait DirtySink {
    /// `len` bytes from `va`, one leaf, were written to. If `cleared`, the leaf is clean now and
    /// what the hardware caches of it has to be flushed.
    fn dirty(&mut self, va: u64, len: u64, cleared: bool);
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
        self.read_dirty_table(self.top, range.va(), range.last(), clear, sink);
        Ok(())
    }

    fn read_dirty_table<S: DirtySink>(
        &self,
        table: Table<'t, F, M>,
        mut va: u64,
        last: u64,
        clear: bool,
        sink: &mut S,
    ) {
        let item_lg2 = table.item_lg2();
        loop {
            let item = table.read_at(va);
            let mut block_lg2 = item_lg2;
            match item.kind() {
                Kind::Empty => {}
                Kind::Table => {
                    if let Some(child) = item.child(&self.cfg.params) {
                        let child_last = size::block_last(va, item_lg2).min(last);
                        self.read_dirty_table(child, va, child_last, clear, sink);
                    }
                }
                Kind::Leaf => {
                    let contig_lg2 = item.contig_lg2(&self.cfg.params);
                    block_lg2 = item_lg2.wrapping_add(contig_lg2);
                    if self.leaf_dirty(item, contig_lg2, clear) {
                        sink.dirty(size::floor(va, block_lg2), size::pow2(block_lg2), clear);
                    }
                }
            }
            let block_last = size::block_last(va, block_lg2);
            if block_last >= last {
                break;
            }
            va = block_last.wrapping_add(1);
            if Index::of::<F>(va, table.level()) == Index::of::<F>(0, table.level()) {
                break;
            }
        }
    }

    /// Whether any item of the leaf is dirty; makes all clean if `clear` is set.
    #[inline]
    fn leaf_dirty(&self, leaf: Item<'t, F, M>, contig_lg2: u32, clear: bool) -> bool {
        let first = leaf.index().group(contig_lg2);
        let mut dirty = false;
        let mut i = 0;
        while i != size::pow2(contig_lg2) {
            let cell = leaf.table().cell(first.plus::<F>(i));
            let mut item = cell.read();
            while item & F::DIRTY != 0 {
                dirty = true;
                if !clear {
                    break;
                }
                match cell.publish(item, item & !F::DIRTY) {
                    Ok(()) => break,
                    Err(now) => item = now,
                }
            }
            i = i.wrapping_add(1);
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

    /// Carries dirty bits that came late to all leaves that they may be meant for. To be called
    /// after the flush that `flush` asks for, after which nothing is late any more, and before the
    /// range lock of the split is let go.
    ///
    /// Hardware that wrote through a translation which it had cached before the split may set the
    /// dirty bit where the old leaf was, without a look at what is there now: a table item, or one
    /// item of a group that is several leaves now. The write may have gone to any address of the
    /// old leaf, so everything that replaced it becomes dirty.
    pub fn fold_late_dirty(&self, _range: Locked, flush: &SplitFlush) {
        if F::DIRTY == 0 {
            return;
        }
        for leaf in flush.leaves.iter().flatten() {
            let Some(table) = self.find_table(leaf.va, leaf.level) else {
                continue;
            };
            let items = size::pow2(leaf.size_lg2.wrapping_sub(table.item_lg2()));
            let first = Index::of::<F>(leaf.va, leaf.level);
            let mut late = leaf.late_dirty;
            let mut i = 0;
            while i != items && !late {
                late = table.cell(first.plus::<F>(i)).read() & F::DIRTY != 0;
                i = i.wrapping_add(1);
            }
            if late {
                self.make_dirty(table, first, items);
            }
        }
    }

    /// Makes all leaves in and below `items` items dirty, and no table item.
    fn make_dirty(&self, table: Table<'t, F, M>, first: Index, items: u64) {
        let mut i = 0;
        while i != items {
            let mut item = table.read(first.plus::<F>(i));
            if let Some(child) = item.child(&self.cfg.params) {
                let first = Index::of::<F>(0, child.level());
                self.make_dirty(child, first, first.room::<F>());
            }
            loop {
                let want = match item.kind() {
                    Kind::Empty => break,
                    Kind::Table => item.raw() & !F::DIRTY,
                    Kind::Leaf => item.raw() | F::DIRTY,
                };
                if want == item.raw() || item.cell().publish(item.raw(), want).is_ok() {
                    break;
                }
                item = table.read(item.index());
            }
            i = i.wrapping_add(1);
        }
        self.clean_items(table, first, items);
    }
}
