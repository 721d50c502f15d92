// SPDX-License-Identifier: GPL-2.0-only

//! Unmap a range, and take a whole table down.

#![forbid(unsafe_code)]

use crate::fmt::{
    Format,
    Kind, //
};
use crate::gather::Gather;
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
    Table, //
};
use crate::{
    Error,
    Level,
    Pt,
    Result, //
};

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Removes the translation of `range`. Never allocates.
    ///
    /// Returns the number of bytes from the start of the range that are unmapped now. That is less
    /// than asked for if it meets something that is not mapped, or starts inside a leaf. It is more
    /// if the range ends inside a leaf, which is then removed as a whole ([`split`](Self::split) it
    /// first to avoid that). Tables that the range covers go to `gather` as well.
    #[inline(always)]
    pub fn unmap<G: Gather<M>>(&self, range: Locked, gather: &mut G) -> Bytes {
        let mut bytes = Bytes(0);
        if self.check_range(range).is_ok() {
            // An error says where it ended early, and so does the count.
            let table = self.lowest_table(range);
            let _ = self.unmap_table(table, range.va(), range.last(), gather, &mut bytes);
        }
        if bytes != Bytes(0) {
            gather.range(range.va(), bytes);
        }
        bytes
    }

    /// The lowest table that serves all of the range and stays when the range is unmapped.
    #[inline(always)]
    fn lowest_table(&self, range: Locked) -> Table<'t, F, M> {
        let mut table = self.top;
        loop {
            let item_lg2 = table.item_lg2();
            let crosses = size::shr(range.va().0 ^ range.last().0, item_lg2) != 0;
            if crosses || range.len() == Bytes::block(item_lg2) {
                return table;
            }
            match table.read_at(range.va()).child(&self.cfg.params) {
                Some(child) => table = child,
                None => return table,
            }
        }
    }

    fn unmap_table<G: Gather<M>>(
        &self,
        table: Table<'t, F, M>,
        mut va: Iova,
        last: Iova,
        gather: &mut G,
        bytes: &mut Bytes,
    ) -> Result {
        let level = table.level();
        let item_lg2 = table.item_lg2();
        let first = Index::of::<F>(va, level);
        let mut index = first;
        let mut left = first.room::<F>();
        // From `first` on, how many items an incoherent walker has to see emptied.
        let mut emptied = 0u64;
        let mut result = Ok(());
        loop {
            let item = table.read(index);
            let (items, block_last) = match item.kind() {
                Kind::Empty => {
                    result = Err(Error::NotMapped);
                    break;
                }
                Kind::Leaf => {
                    let contig_lg2 = item.contig_lg2(&self.cfg.params);
                    let leaf_lg2 = item_lg2.wrapping_add(contig_lg2);
                    if va.offset(leaf_lg2) != Bytes(0) {
                        result = Err(Error::NotMapped);
                        break;
                    }
                    let mut items = size::pow2(contig_lg2);
                    for cell in table.cells(index, items) {
                        cell.set(0);
                    }
                    // Usually more leaves follow.
                    let more = va.boundaries_to(last, item_lg2);
                    if contig_lg2 == 0 && more != 0 && left != 1 {
                        let more = more.min(left.wrapping_sub(1));
                        let behind = table.cells(index.plus::<F>(1), more);
                        // Most leaves are here; knowing the level spares questions about each.
                        items = items.wrapping_add(match level {
                            Level(0) => self.clear_leaves(behind, Level(0)),
                            _ => self.clear_leaves(behind, level),
                        });
                    }
                    gather.leaf(level);
                    let gone = Bytes::blocks(items, item_lg2);
                    *bytes = bytes.plus(gone);
                    emptied = first.room::<F>().wrapping_sub(left).wrapping_add(items);
                    (items, va.plus(gone.minus(Bytes(1))))
                }
                Kind::Table => {
                    let block_last = va.block_last(item_lg2);
                    let covered = va.offset(item_lg2) == Bytes(0) && block_last <= last;
                    if let Some(child) = item.child(&self.cfg.params) {
                        let child_last = block_last.min(last);
                        result = self.unmap_table(child, va, child_last, gather, bytes);
                        if result.is_err() {
                            break;
                        }
                        if covered {
                            item.cell().set(0);
                            gather.table(child.raw(), level);
                            emptied = first.room::<F>().wrapping_sub(left).wrapping_add(1);
                        }
                    }
                    (1, block_last)
                }
            };
            if block_last >= last || items >= left {
                break;
            }
            index = index.plus::<F>(items);
            left = left.wrapping_sub(items);
            va = block_last.plus(Bytes(1));
        }
        self.clean_items(table, first, emptied);
        result
    }

    /// Empties items while they are leaves of one item each. Returns how many there were.
    #[inline(always)]
    fn clear_leaves(&self, cells: &[M::Cell], level: Level) -> u64 {
        let single = |cell: &M::Cell| F::is_single(cell.read(), level, &self.cfg.params);
        let mut n = 0usize;
        // Four in each turn of the loop, so that most instructions are loads and stores of items.
        for four in cells.chunks_exact(4) {
            if !four.iter().all(single) {
                break;
            }
            four.iter().for_each(|cell| cell.set(0));
            n = n.wrapping_add(4);
        }
        while let Some(cell) = cells.get(n) {
            if !single(cell) {
                break;
            }
            cell.set(0);
            n = n.wrapping_add(1);
        }
        n as u64
    }

    /// Hands every table to `gather`, the top one included.
    ///
    /// The hardware does not use the table any more and nothing is cached: the caller frees what
    /// was gathered at once.
    pub fn take_down<G: Gather<M>>(&self, gather: &mut G) {
        self.gather_tables(self.top, gather);
        gather.table(self.top.raw(), self.top.level().above());
    }
}
