// SPDX-License-Identifier: GPL-2.0-only

//! Tables, items and subtrees that hardware cannot reach yet.
//!
//! The only file of the algorithms that touches memory. Safe code gets at an item only through a
//! [`Table`], and at a table only through a table item that it read ([`Item::child`]), so an
//! address is never made up.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::fmt::{
    Attrs,
    Format,
    Kind,
    Leaves,
    Params, //
};
use crate::mem::{
    Cell,
    PtMem, //
};
use crate::size::{
    self,
    Bytes,
    Iova,
    Level,
    Oa,
    Run, //
};
use crate::{
    Error,
    Pt,
    Result, //
};

/// A table as the environment sees it: to be freed, or for its address.
pub struct RawTable<M: PtMem>(NonNull<M::Cell>);

impl<M: PtMem> RawTable<M> {
    /// The memory of the table.
    #[inline(always)]
    pub fn ptr(self) -> NonNull<M::Cell> {
        self.0
    }
}

impl<M: PtMem> Clone for RawTable<M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: PtMem> Copy for RawTable<M> {}

/// A table of a known level.
///
/// # Invariants
///
/// 1. For `'t` the memory holds `2^F::ITEMS_LG2` items and is not freed: it is the top table, or
///    was read from a table item under the lock of a range that it serves, or is not linked yet.
/// 2. `level` is the level of its items.
pub struct Table<'t, F: Format, M: PtMem> {
    items: NonNull<M::Cell>,
    level: Level,
    _life: PhantomData<(&'t M, F)>,
}

impl<F: Format, M: PtMem> Clone for Table<'_, F, M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format, M: PtMem> Copy for Table<'_, F, M> {}

impl<F: Format, M: PtMem> fmt::Debug for Table<'_, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({:p}, level {})", self.items, self.level.0)
    }
}

/// The position of an item in its table.
///
/// # Invariants
///
/// Less than the number of items of a table of every format that uses the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index(u16);

impl Index {
    /// The item that serves `va` in a table of this level.
    #[inline(always)]
    pub(crate) fn of<F: Format>(va: Iova, level: Level) -> Index {
        // INVARIANT: The mask leaves an index that a table of `F` has.
        Index((size::shr(va.0, level.item_lg2::<F>()) & size::max_offset(F::ITEMS_LG2)) as u16)
    }

    /// The number of items from this one to the end of the table.
    #[inline(always)]
    pub(crate) fn room<F: Format>(self) -> u64 {
        size::pow2(F::ITEMS_LG2).wrapping_sub(u64::from(self.0))
    }

    /// The item `n` places further. Wraps at the end of the table.
    #[inline(always)]
    pub(crate) fn plus<F: Format>(self, n: u64) -> Index {
        // INVARIANT: The mask leaves an index that a table of `F` has.
        Index(((u64::from(self.0)).wrapping_add(n) & size::max_offset(F::ITEMS_LG2)) as u16)
    }

    /// The first item of the naturally aligned group of `2^lg2` items around this one.
    #[inline(always)]
    pub(crate) fn group(self, lg2: u32) -> Index {
        // INVARIANT: The new index is not larger than this one, for which it holds.
        Index(size::floor(u64::from(self.0), lg2) as u16)
    }

    #[inline(always)]
    fn byte(self) -> usize {
        (self.0 as usize).wrapping_mul(8)
    }
}

impl<'t, F: Format, M: PtMem> Table<'t, F, M> {
    /// The table at `items`.
    ///
    /// # Safety
    ///
    /// The invariants of [`Table`] hold: the memory is a table of this level, alive for `'t`.
    #[inline(always)]
    pub unsafe fn from_raw(items: NonNull<M::Cell>, level: Level) -> Self {
        // INVARIANT: The safety requirement is that both hold.
        Table {
            items,
            level,
            _life: PhantomData,
        }
    }

    /// The level of the table's items.
    #[inline(always)]
    pub fn level(self) -> Level {
        self.level
    }

    /// The same table, if this is its level.
    #[inline(always)]
    pub(crate) fn at(self, level: Level) -> Option<Self> {
        // INVARIANT: It is this table and its level, which the caller may have as a constant.
        (self.level == level).then_some(Table { level, ..self })
    }

    /// The table for the environment.
    #[inline(always)]
    pub(crate) fn raw(self) -> RawTable<M> {
        RawTable(self.items)
    }

    /// The cell of an item.
    #[inline(always)]
    pub(crate) fn cell(self, index: Index) -> &'t M::Cell {
        // SAFETY: In bounds by the invariant of `Index` and invariant 1 of `Table`, which also
        // keeps the memory alive for 't. Cells are only ever accessed through shared references.
        unsafe { self.items.add(index.0 as usize).as_ref() }
    }

    /// The cells of `n` items from `index` on, fewer if the table ends before.
    #[inline(always)]
    pub(crate) fn cells(self, index: Index, n: u64) -> &'t [M::Cell] {
        let n = n.min(index.room::<F>()) as usize;
        // SAFETY: `n` is at most what the table has from `index` on, so all of these items are in
        // the table, which invariant 1 of `Table` keeps alive for 't.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr().add(index.0 as usize), n) }
    }

    /// The cells of all items.
    #[inline(always)]
    pub(crate) fn all(self) -> &'t [M::Cell] {
        self.cells(Index(0), size::pow2(F::ITEMS_LG2))
    }

    /// Reads an item.
    #[inline(always)]
    pub(crate) fn read(self, index: Index) -> Item<'t, F, M> {
        Item {
            table: self,
            index,
            raw: self.cell(index).read(),
        }
    }

    /// The item that serves `va`.
    #[inline(always)]
    pub(crate) fn read_at(self, va: Iova) -> Item<'t, F, M> {
        self.read(Index::of::<F>(va, self.level))
    }

    /// Calls `f` with every item, in order.
    #[inline]
    pub(crate) fn for_each(self, mut f: impl FnMut(Item<'t, F, M>)) {
        let mut i = 0;
        while i != size::pow2(F::ITEMS_LG2) {
            f(self.read(Index(0).plus::<F>(i)));
            i = i.wrapping_add(1);
        }
    }

    /// log2 of the bytes that one item covers.
    #[inline(always)]
    pub(crate) fn item_lg2(self) -> u32 {
        self.level.item_lg2::<F>()
    }
}

/// An item as it was read: a copy, because hardware may change the original at any time.
pub(crate) struct Item<'t, F: Format, M: PtMem> {
    table: Table<'t, F, M>,
    index: Index,
    raw: u64,
}

impl<F: Format, M: PtMem> Clone for Item<'_, F, M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format, M: PtMem> Copy for Item<'_, F, M> {}

impl<'t, F: Format, M: PtMem> Item<'t, F, M> {
    #[inline(always)]
    pub(crate) fn kind(self) -> Kind {
        F::kind(self.raw, self.table.level)
    }

    #[inline(always)]
    pub(crate) fn raw(self) -> u64 {
        self.raw
    }

    #[inline(always)]
    pub(crate) fn table(self) -> Table<'t, F, M> {
        self.table
    }

    #[inline(always)]
    pub(crate) fn index(self) -> Index {
        self.index
    }

    #[inline(always)]
    pub(crate) fn cell(self) -> &'t M::Cell {
        self.table.cell(self.index)
    }

    /// The table that a table item points to, else `None`.
    #[inline(always)]
    pub(crate) fn child(self, params: &Params) -> Option<Table<'t, F, M>> {
        if self.kind() != Kind::Table {
            return None;
        }
        // SAFETY: The item was read from a table and is a table item, so it was made by
        // `Pt::link` from an address of `table_oa`; under the range lock its table is not freed.
        let items = unsafe { M::table_at(F::table_oa(self.raw, params)) };
        // SAFETY: A table item of this level points to a table one level below, and under the range
        // lock that is not freed.
        Some(unsafe { Table::from_raw(items, self.table.level.below()) })
    }

    /// log2 of the number of items of the leaf.
    #[inline(always)]
    pub(crate) fn contig_lg2(self, params: &Params) -> u32 {
        F::contig_lg2(self.raw, self.table.level, params)
    }

    /// log2 of the bytes of the leaf.
    #[inline(always)]
    pub(crate) fn leaf_lg2(self, params: &Params) -> u32 {
        self.table.item_lg2().wrapping_add(self.contig_lg2(params))
    }

    /// The OA that the leaf translates `va`, one of its addresses, to.
    #[inline(always)]
    pub(crate) fn leaf_oa_at(self, va: Iova, params: &Params) -> Oa {
        let Oa(oa) = F::leaf_oa(self.raw, self.table.level, params);
        let Bytes(offset) = va.offset(self.leaf_lg2(params));
        Oa(oa | offset)
    }
}

/// A table, or a subtree, that hardware cannot reach; freed when dropped.
///
/// # Invariants
///
/// Nothing points to `table` but this value, and all tables below are reached only through it.
pub(crate) struct Unlinked<'p, 't, F: Format, M: PtMem> {
    table: Table<'t, F, M>,
    pt: &'p Pt<'t, F, M>,
}

impl<'t, F: Format, M: PtMem> Unlinked<'_, 't, F, M> {
    #[inline(always)]
    pub(crate) fn table(&self) -> Table<'t, F, M> {
        self.table
    }
}

impl<F: Format, M: PtMem> Drop for Unlinked<'_, '_, F, M> {
    fn drop(&mut self) {
        self.pt.free_unlinked(self.table);
    }
}

/// A table that hardware cannot reach, while its items are written, the first one first.
///
/// # Invariants
///
/// 1. Nothing points to `table` but this value.
/// 2. The first `written` items are leaves or empty, or table items each made from an [`Unlinked`].
///    The items behind them are undefined and never read.
pub(crate) struct Unwritten<'p, 't, F: Format, M: PtMem> {
    table: Table<'t, F, M>,
    written: u64,
    pt: &'p Pt<'t, F, M>,
}

impl<'p, 't, F: Format, M: PtMem> Unwritten<'p, 't, F, M> {
    /// The cells of the next `n` items, fewer if the table ends before.
    #[inline(always)]
    fn next(&self, n: u64) -> &'t [M::Cell] {
        if self.written < size::pow2(F::ITEMS_LG2) {
            // INVARIANT: `written` is less than the number of items, by the comparison.
            self.table.cells(Index(self.written as u16), n)
        } else {
            &[]
        }
    }

    /// The next items are leaves, for addresses from `oa` on.
    #[inline(always)]
    pub(crate) fn leaves(&mut self, oa: Oa, run: Run, attrs: Attrs) {
        let level = self.table.level;
        let item_lg2 = self.table.item_lg2();
        let cells = self.next(run.bytes.count(item_lg2));
        if run.count() == 1 {
            init_all(cells, F::encode_leaf(oa, run.size_lg2, level, attrs));
        } else {
            let leaves = Leaves::new::<F>(oa, run.size_lg2, level, attrs);
            init_run(cells, level.contig_lg2::<F>(run.size_lg2), leaves);
        }
        // INVARIANT: 2: `cells` follow what was written, and all of them are leaves now.
        self.written = self.written.wrapping_add(cells.len() as u64);
    }

    /// The next `n` items are empty.
    #[inline]
    pub(crate) fn empty(&mut self, n: u64) {
        let cells = self.next(n);
        init_all(cells, 0);
        // INVARIANT: 2: `cells` follow what was written, and all of them are empty now.
        self.written = self.written.wrapping_add(cells.len() as u64);
    }

    /// The next item points to the subtree. An incoherent walker sees it, as
    /// [`finish`](Self::finish) has seen to, so it is marked as cleaned.
    #[inline]
    pub(crate) fn subtree(&mut self, child: Unlinked<'_, 't, F, M>) {
        if let Some(cell) = self.next(1).first() {
            cell.init(self.pt.link(&child) | self.pt.cleaned_bit());
            // INVARIANT: 2: The item was made from an `Unlinked`, which this table owns from now
            // on.
            core::mem::forget(child);
            self.written = self.written.wrapping_add(1);
        }
    }

    /// All items behind those that were written are empty. What is written is visible to an
    /// incoherent walker from here on.
    #[inline(always)]
    pub(crate) fn finish(self) -> Unlinked<'p, 't, F, M> {
        let pt = self.pt;
        let new = core::mem::ManuallyDrop::new(self).end();
        pt.clean_items(new.table, Index(0), Index(0).room::<F>());
        new
    }

    /// Must be called at most once: the result owns the table.
    #[inline(always)]
    fn end(&mut self) -> Unlinked<'p, 't, F, M> {
        // Few, or none: a split writes all.
        for cell in self.next(u64::MAX) {
            cell.init(0);
        }
        Unlinked {
            table: self.table,
            pt: self.pt,
        }
    }
}

impl<F: Format, M: PtMem> Drop for Unwritten<'_, '_, F, M> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes consecutive leaves of `2^group_lg2` items each. Not inlined, because it needs many
/// registers.
#[inline(never)]
fn init_run<C: Cell>(cells: &[C], group_lg2: u32, mut leaves: Leaves) {
    if group_lg2 == 0 {
        by_eights(cells, || leaves.next_item());
    } else {
        let groups = cells.chunks_exact(1usize.wrapping_shl(group_lg2));
        let rest = groups.remainder();
        for group in groups {
            init_all(group, leaves.next_item());
        }
        // A table ends with a whole group, so this is not reached; but no item may stay undefined.
        for cell in rest {
            cell.init(0);
        }
    }
}

/// Writes the same item into all cells.
#[inline(always)]
fn init_all<C: Cell>(cells: &[C], item: u64) {
    by_eights(cells, || item);
}

/// Writes items, eight in each turn of the loop, so that most instructions are stores.
#[inline(always)]
fn by_eights<C: Cell>(cells: &[C], mut item: impl FnMut() -> u64) {
    let eights = cells.chunks_exact(8);
    let rest = eights.remainder();
    for eight in eights {
        for cell in eight {
            cell.init(item());
        }
    }
    for cell in rest {
        cell.init(item());
    }
}

/// Tables that were allocated before anything visible happens, so that nothing can fail after.
///
/// # Invariants
///
/// 1. `head` is the first of `len` tables, each chained to the next through its item 0 (as an
///    address, 0 at the end) and otherwise undefined. They never were reachable for hardware.
pub(crate) struct Reserve<'p, 't, F: Format, M: PtMem> {
    head: Oa,
    len: usize,
    pt: &'p Pt<'t, F, M>,
}

impl<'p, 't, F: Format, M: PtMem> Reserve<'p, 't, F, M> {
    /// Allocates `n` tables, or none.
    #[inline]
    pub(crate) fn new(pt: &'p Pt<'t, F, M>, n: usize) -> Result<Self> {
        let mut reserve = Reserve {
            head: Oa(0),
            len: 0,
            pt,
        };
        while reserve.len < n {
            let table = pt.mem.alloc_undefined(table_lg2::<F>())?;
            // SAFETY: 8 * 2^ITEMS_LG2 bytes; item 0 is in bounds and nobody else's.
            unsafe { table.as_ref() }.init(reserve.head.0);
            // INVARIANT: 1: Item 0 of the table leads to the tables before it, so it is the first
            // of one more.
            reserve.head = M::table_oa(table);
            reserve.len = reserve.len.wrapping_add(1);
        }
        Ok(reserve)
    }

    /// Takes a table, to be used at `level`; `None` if there are no more.
    #[inline]
    pub(crate) fn take(&mut self, level: Level) -> Option<Unwritten<'p, 't, F, M>> {
        if self.len == 0 {
            return None;
        }
        // SAFETY: By the invariant, `head` is the address of a table that is not freed.
        let items = unsafe { M::table_at(self.head) };
        // SAFETY: The table is not freed, and nobody else refers to it.
        let cell = unsafe { items.as_ref() };
        // INVARIANT: 1: Item 0 of the first table leads to the next, which is the first of one
        // fewer.
        self.head = Oa(cell.read());
        self.len = self.len.wrapping_sub(1);
        Some(Unwritten {
            // SAFETY: A whole table is a table of any level once its items are written; it lives
            // until freed.
            table: unsafe { Table::from_raw(items, level) },
            written: 0,
            pt: self.pt,
        })
    }
}

impl<F: Format, M: PtMem> Drop for Reserve<'_, '_, F, M> {
    #[inline]
    fn drop(&mut self) {
        while self.take(Level::LEAF).is_some() {}
    }
}

impl<F: Format, M: PtMem> Clone for Pt<'_, F, M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format, M: PtMem> Copy for Pt<'_, F, M> {}

/// log2 of the bytes of an item.
const ITEM_LG2: u32 = 3;

/// log2 of the bytes of a table.
#[inline(always)]
fn table_lg2<F: Format>() -> u32 {
    F::ITEMS_LG2.wrapping_add(ITEM_LG2)
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// A table of `level` whose items are all empty.
    pub(crate) fn new_table(&self, level: Level) -> Result<Unlinked<'_, 't, F, M>> {
        let items = self.mem.alloc(table_lg2::<F>())?;
        Ok(Unlinked {
            // SAFETY: A whole table of zeroes is a table of any level; it lives until freed.
            table: unsafe { Table::from_raw(items, level) },
            pt: self,
        })
    }

    /// Adds a table of `level` above the top. Returns the top that the page table has afterwards:
    /// the new one, or the one of another thread that was faster.
    pub(crate) fn add_top(&self, level: Level) -> Result<Table<'t, F, M>> {
        let new = self.new_table(level)?;
        let table = new.table;
        let old = M::table_oa(self.top.items);
        let cell = table.cell(Index(0));
        cell.init(F::encode_table(old, level, &self.cfg.params) | self.cleaned_bit());
        self.clean_items(table, Index(0), 1);
        match self.mem.change_top(self.top.items, table.items, level) {
            Ok(()) => core::mem::forget(new),
            Err(Error::Raced) => cell.init(0), // The old top is not ours to free.
            Err(error) => {
                cell.init(0);
                return Err(error);
            }
        }
        let (items, level) = self.mem.top();
        // SAFETY: The top table, which lives as long as the page table.
        Ok(unsafe { Table::from_raw(items, level) })
    }

    #[inline(always)]
    fn cleaned_bit(&self) -> u64 {
        if self.incoherent() {
            F::CLEANED
        } else {
            0
        }
    }

    /// Frees a subtree that never was reachable.
    fn free_unlinked(&self, table: Table<'t, F, M>) {
        if table.level > Level::LEAF {
            table.for_each(|item| {
                if let Some(child) = item.child(&self.cfg.params) {
                    self.free_unlinked(child);
                }
            });
        }
        // SAFETY: Never linked, by the invariant of `Unlinked`; not used again: its owner is gone.
        unsafe { self.mem.free(table.items) };
    }

    /// The table item for a subtree, to be placed in a table one level above it.
    #[inline]
    pub(crate) fn link(&self, child: &Unlinked<'_, 't, F, M>) -> u64 {
        let level = child.table.level.above();
        F::encode_table(M::table_oa(child.table.items), level, &self.cfg.params)
    }

    /// Makes a subtree reachable in place of `old`. If the item is not `old` any more, the
    /// subtree is given back.
    #[inline]
    pub(crate) fn publish<'p>(
        &self,
        at: Item<'t, F, M>,
        child: Unlinked<'p, 't, F, M>,
    ) -> core::result::Result<Table<'t, F, M>, Unlinked<'p, 't, F, M>> {
        let new = self.link(&child);
        match at.cell().publish(at.raw, new) {
            Ok(()) => {
                let table = child.table;
                // Hardware may reach it now: from here on it is freed through a gather only.
                core::mem::forget(child);
                if self.incoherent() {
                    self.clean_items(at.table, at.index, 1);
                    self.set_cleaned(at.cell(), new);
                }
                Ok(table)
            }
            Err(_) => Err(child),
        }
    }

    /// Marks a table item as cleaned, after it was cleaned to memory. If the item has changed
    /// meanwhile it is left alone: a thread that finds it without the mark cleans it.
    fn set_cleaned(&self, cell: &M::Cell, item: u64) {
        let _ = cell.publish(item, item | F::CLEANED);
    }

    /// Makes sure that a table item, which another thread may have published a moment ago, is
    /// visible to an incoherent walker.
    #[inline(always)]
    pub(crate) fn ensure_clean(&self, at: Item<'t, F, M>) {
        if self.incoherent() && at.cell().read_acquire() & F::CLEANED == 0 {
            self.clean_items(at.table, at.index, 1);
        }
    }

    /// Makes `n` items from `index` visible to an incoherent walker.
    #[inline(always)]
    pub(crate) fn clean_items(&self, table: Table<'t, F, M>, index: Index, n: u64) {
        if self.incoherent() && n != 0 {
            let len = Bytes::blocks(n, ITEM_LG2);
            self.mem.clean(table.items, index.byte(), len);
        }
    }
}
