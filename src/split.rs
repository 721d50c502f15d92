// SPDX-License-Identifier: GPL-2.0-only

//! Split the leaves that cross the edges of a range, while devices use them.
//!
//! # What the IOMMU sees
//!
//! A leaf is replaced item by item. Each item is replaced by **one** compare-exchange, either by a
//! smaller leaf or by a table item whose whole subtree was built, and made visible, before. So
//! between any two stores an item says either what it always said or the same in smaller pieces;
//! nothing is ever not present. If hardware sets a bit in the item meanwhile, the compare-exchange
//! fails, the bit is carried into the replacement, and it is tried again.
//!
//! A cached copy of the old leaf stays right too, until a later unmap: therefore every replaced
//! leaf is reported, in [`SplitFlush`], to be flushed at its **old** size. Until that flush a
//! device may write through the copy, and hardware that does not look at the item again sets the
//! dirty bit in whatever is there now: [`SplitFlush::fold_late_dirty`] collects such bits after the
//! flush.
//!
//! # Failure
//!
//! All that can fail is done first: [`Edges`] says which leaves are cut and how many tables that
//! takes, and [`Plan`] has these tables. The first visible store is in [`Plan::commit`], which
//! returns no error. One walk over the pieces of a leaf counts the tables, and takes them later.
//!
//! After the first visible store a split can only be raced by hardware, which sets
//! [`Format::HW_BITS`] and nothing else. An item that differs in more from the leaf that was found
//! is somebody else's now: the range lock was not what it has to be. Then the split stops where it
//! is ([`Raced`]), for whatever it would store may undo what the other one did. What it did replace
//! is flushed as ever.

#![forbid(unsafe_code)]

use core::marker::PhantomData;

use crate::fmt::{
    Attrs,
    Format,
    Kind,
    Params, //
};
use crate::mem::{
    Cell,
    PtMem, //
};
use crate::range::Locked;
use crate::size::{
    self,
    best_run,
    Bytes,
    Iova,
    Level,
    Oa,
    Run, //
};
use crate::table::{
    Index,
    Item,
    Reserve,
    Table,
    Unlinked, //
};
use crate::{
    Error,
    Pt,
    Result, //
};

/// Whether every live leaf of a format can be split: [`Pt::split`] never answers
/// [`Error::NotSupported`] then. All tables of a format have the same answer, so it is known before
/// there is one.
pub const fn can_split<F: Format>() -> bool {
    F::LIVE.leaf_to_table && (F::LIVE.contig_resize || !F::CONTIG)
}

/// A leaf that was replaced by smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its first address.
    pub va: Iova,
    /// log2 of its size in bytes.
    pub size_lg2: u32,
    /// Its level.
    pub level: Level,
}

impl Replaced {
    /// Its size.
    #[inline(always)]
    pub fn bytes(&self) -> Bytes {
        Bytes::blocks(1, self.size_lg2)
    }
}

/// The leaves that [`Pt::split`] or [`Pt::carve`] replaced, at most one at each edge. Only these
/// two make such a value.
///
/// The caller flushes each of the [`leaves`](Self::leaves) at its old size, and calls
/// [`fold_late_dirty`](Self::fold_late_dirty) if anybody reads dirty bits, else
/// [`finish`](Self::finish), before it lets go of the range lock. Both say whether the split is
/// complete.
#[must_use = "the old, large translations are still cached"]
pub struct SplitFlush<'t, F: Format, M: PtMem> {
    old: [Option<OldLeaf<'t, F, M>>; 2],
    params: Params,
    tables: usize,
    result: Result,
    /// Valid only while the range is locked.
    _range: PhantomData<Locked>,
}

/// The place of a leaf that was replaced.
struct OldLeaf<'t, F: Format, M: PtMem> {
    table: Table<'t, F, M>,
    va: Iova,
    size_lg2: u32,
    /// Hardware set the dirty bit of one item of the leaf just before a table replaced that item.
    /// The bit is in the table's leaves, but what replaced the other items of the leaf may be
    /// clean.
    late_dirty: bool,
    /// The number of bytes, from its start on, that were replaced: all, unless another caller
    /// interfered.
    done: Bytes,
}

/// The leaves at both edges of a range.
pub(crate) struct Edges<'t, F: Format, M: PtMem> {
    pub(crate) first: Leaf<'t, F, M>,
    /// The leaf at the second edge, if it is not the same leaf.
    pub(crate) last: Option<Leaf<'t, F, M>>,
    /// The number of tables that are needed to replace them.
    pub(crate) tables: usize,
}

/// The leaves at both edges of a range, and all that it takes to replace them.
pub(crate) struct Plan<'p, 't, F: Format, M: PtMem> {
    edges: &'p Edges<'t, F, M>,
    reserve: Reserve<'p, 't, F, M>,
    pt: &'p Pt<'t, F, M>,
}

/// Somebody else changed a leaf: all that may be in the way once something is visible.
pub(crate) struct Raced;

type Raceable<T = ()> = core::result::Result<T, Raced>;

/// The leaf at an edge of a range, as it was found, and where it is to be cut.
pub(crate) struct Leaf<'t, F: Format, M: PtMem> {
    item: Item<'t, F, M>,
    pub(crate) va: Iova,
    size_lg2: u32,
    oa: Oa,
    cuts: Cuts,
}

/// Where no leaf may cross, as offsets in the old leaf. Its start and its end are no cuts.
#[derive(Clone, Copy)]
struct Cuts {
    low: Bytes,
    high: Bytes,
    /// Whether the range between the two cuts becomes a hole.
    hole: bool,
}

impl<'t, F: Format, M: PtMem> Leaf<'t, F, M> {
    #[inline(always)]
    pub(crate) fn last(&self) -> Iova {
        self.va.block_last(self.size_lg2)
    }

    /// The offset cannot wrap, because no leaf is as large as the address space.
    #[inline(always)]
    fn end(&self) -> Bytes {
        Bytes::block(self.size_lg2)
    }

    #[inline(always)]
    fn level(&self) -> Level {
        self.item.table().level()
    }

    /// An item of the leaf as it is now, if it still is one: only hardware may change it.
    #[inline(always)]
    fn reread(&self, index: Index) -> Raceable<Item<'t, F, M>> {
        let item = self.item.table().read(index);
        if (item.raw() ^ self.item.raw()) & !F::HW_BITS == 0 {
            Ok(item)
        } else {
            Err(Raced)
        }
    }

    /// Whether the range has an edge inside.
    #[inline(always)]
    pub(crate) fn is_cut(&self) -> bool {
        self.cuts.low != Bytes(0) || self.cuts.high != self.end()
    }
}

/// A piece of what replaces a leaf, in a table of one level.
enum Piece {
    /// By leaves of this level.
    Leaves(Run),
    /// One item needs a table below.
    Table,
    /// A hole of this many bytes, whole items.
    Hole(Bytes),
}

/// For which pieces of a leaf a walk is: for those that need a table, or for all.
const TABLES: bool = false;
const ALL: bool = true;

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// After success no leaf crosses the start or the end of `range`, and every address translates
    /// as before, at every instant between.
    ///
    /// Costs the fewest tables, and leaves are as large as alignment and `pgsize_bitmap` allow.
    /// Rights, memory type and all other bits are those of the old leaf; a dirty leaf's children
    /// are all dirty, a clean one's all clean.
    ///
    /// The lock over `range` includes all of each leaf that crosses one of its edges
    /// ([`Locked::new`]).
    ///
    /// Errors: [`Error::Invalid`] (not aligned to the smallest page), [`Error::NotMapped`] (nothing
    /// is mapped at the first or the last address), [`Error::NotSupported`] (the hardware needs
    /// break-before-make, never if [`can_split`]), and those of [`PtMem::alloc`]. On error nothing
    /// has changed.
    ///
    /// [`SplitFlush`] ends with [`Error::Raced`] if another caller changed a leaf meanwhile, which
    /// the lock has to prevent. Then only a part of the leaves may have been replaced.
    pub fn split(&self, range: Locked) -> Result<SplitFlush<'t, F, M>> {
        let edges = self.edges(range, false)?;
        let plan = self.plan(&edges)?;
        Ok(plan.commit())
    }

    /// Finds the leaves at both edges of a range, before anything changes, and what it takes to
    /// replace them: by leaves all over, or with a hole where the range is.
    #[inline(always)]
    pub(crate) fn edges(&self, range: Locked, hole: bool) -> Result<Edges<'t, F, M>> {
        let page_lg2 = self.cfg.pgsize_bitmap.trailing_zeros();
        if size::offset(range.va().0 | range.len().0, page_lg2) != 0 {
            return Err(Error::Invalid);
        }
        if self.check_range(range).is_err() {
            return Err(Error::NotMapped);
        }
        let first = self.leaf_at(range, range.va(), hole)?;
        let last = if range.last() > first.last() {
            Some(self.leaf_at(range, range.last(), hole)?)
        } else {
            None
        };
        let mut tables = self.tables_for(&first)?;
        if let Some(last) = &last {
            tables = tables.wrapping_add(self.tables_for(last)?);
        }
        Ok(Edges {
            first,
            last,
            tables,
        })
    }

    /// Allocates what it takes to replace the leaves at the edges. Errors are those of
    /// [`PtMem::alloc`].
    #[inline(always)]
    pub(crate) fn plan<'p>(&'p self, edges: &'p Edges<'t, F, M>) -> Result<Plan<'p, 't, F, M>> {
        Ok(Plan {
            edges,
            reserve: Reserve::new(self, edges.tables)?,
            pt: self,
        })
    }

    /// The leaf that translates `va`, to be cut at the edges of `range`. Not inlined, because it is
    /// large.
    #[inline(never)]
    fn leaf_at(&self, range: Locked, va: Iova, hole: bool) -> Result<Leaf<'t, F, M>> {
        let item = self.find(va).ok_or(Error::NotMapped)?;
        let size_lg2 = item.leaf_lg2(&self.cfg.params);
        let start = va.floor(size_lg2);
        let last = va.block_last(size_lg2);
        Ok(Leaf {
            item,
            va: start,
            size_lg2,
            oa: item.leaf_oa_at(start, &self.cfg.params),
            cuts: Cuts {
                low: range.va().max(start).since(start),
                high: start.through(range.last().min(last)),
                hole,
            },
        })
    }

    /// The number of tables that replacing `leaf` takes; [`Error::NotSupported`] if the hardware
    /// does not allow it live.
    fn tables_for(&self, leaf: &Leaf<'t, F, M>) -> Result<usize> {
        if !leaf.is_cut() {
            return Ok(0);
        }
        let tables = self.count_tables(leaf.cuts, leaf.level(), Bytes(0), leaf.end());
        let contig = leaf.level().contig_lg2::<F>(leaf.size_lg2) != 0;
        if (tables != 0 && !F::LIVE.leaf_to_table) || (contig && !F::LIVE.contig_resize) {
            return Err(Error::NotSupported);
        }
        Ok(tables)
    }

    /// Calls `f` with all pieces of a table of `level`, or of a part of one, that translates what a
    /// leaf did from offset `at` to `end`, each with its offset. If it is for [`TABLES`] only, what
    /// leaves can translate item by item is left out.
    #[inline(always)]
    fn pieces<const PIECES: bool>(
        &self,
        cuts: Cuts,
        level: Level,
        mut at: Bytes,
        end: Bytes,
        mut f: impl FnMut(Bytes, Piece) -> Raceable,
    ) -> Raceable {
        let sizes = self.sizes(level);
        let item_lg2 = level.item_lg2::<F>();
        let item = Bytes::block(item_lg2);
        // The next cut, where a leaf must end. If every leaf is one item, a cut between two items
        // changes nothing.
        let single = sizes == item.0 && !cuts.hole;
        let stop = |cut: Bytes| {
            if single && size::offset(cut.0, item_lg2) == 0 {
                Bytes(0) // Nowhere.
            } else {
                cut.min(end)
            }
        };
        let parts = [
            (stop(cuts.low), false),
            (stop(cuts.high), cuts.hole),
            (end, false),
        ];
        for (stop, hole) in parts {
            while at < stop {
                let left = stop.minus(at);
                let whole = left.floor(item_lg2);
                // IOVA and OA are as aligned as the offset, up to the size of the old leaf. Where a
                // cut goes through an item no leaf fits.
                let (piece, bytes) = if hole && whole != Bytes(0) {
                    (Piece::Hole(whole), whole)
                } else if PIECES == TABLES && sizes & item.0 != 0 && whole != Bytes(0) {
                    at = at.plus(whole);
                    continue;
                } else {
                    match best_run(sizes, Iova(at.0), left, Oa(at.0)) {
                        Some(run) if !hole => (Piece::Leaves(run), run.bytes),
                        _ => (Piece::Table, item),
                    }
                };
                f(at, piece)?;
                at = at.plus(bytes);
            }
        }
        Ok(())
    }

    /// The number of tables below a table of `level`, or a part of one, that translates what a leaf
    /// did from offset `at` to `end`. Not inlined, for the size of it.
    #[inline(never)]
    fn count_tables(&self, cuts: Cuts, level: Level, at: Bytes, end: Bytes) -> usize {
        let mut tables = 0usize;
        if level == Level::LEAF {
            return tables;
        }
        // It goes to the end: here nobody is in the way.
        let _ = self.pieces::<TABLES>(cuts, level, at, end, |at, piece| {
            if let Piece::Table = piece {
                let end = at.plus(Bytes::block(level.item_lg2::<F>()));
                let below = self.count_tables(cuts, level.below(), at, end);
                tables = tables.wrapping_add(1).wrapping_add(below);
            }
            Ok(())
        });
        tables
    }

    /// A subtree of `level` that translates what `leaf` did from offset `at` on.
    fn build<'p>(
        &self,
        leaf: &Leaf<'t, F, M>,
        level: Level,
        at: Bytes,
        attrs: Attrs,
        reserve: &mut Reserve<'p, 't, F, M>,
    ) -> Raceable<Unlinked<'p, 't, F, M>> {
        let end = at.plus(Bytes::block(level.above().item_lg2::<F>()));
        // The same walk counted it, so there is one. If not, nothing would be replaced from here.
        let mut new = reserve.take(level).ok_or(Raced)?;
        self.pieces::<ALL>(leaf.cuts, level, at, end, |at, piece| {
            match piece {
                Piece::Leaves(run) => new.leaves(leaf.oa.plus(at), run, attrs),
                Piece::Hole(bytes) => new.empty(bytes.count(level.item_lg2::<F>())),
                Piece::Table => {
                    new.subtree(self.build(leaf, level.below(), at, attrs, reserve)?);
                }
            }
            Ok(())
        })?;
        Ok(new.finish())
    }

    /// Gives all leaves of a subtree that hardware cannot reach other attributes.
    #[cold]
    fn rebuild(&self, table: Table<'t, F, M>, attrs: Attrs) {
        let params = &self.cfg.params;
        table.for_each(|item| match item.child(params) {
            Some(child) => self.rebuild(child, attrs),
            None if item.raw() == 0 => {}
            None => {
                let oa = F::leaf_oa(item.raw(), table.level(), params);
                let size_lg2 = item.leaf_lg2(params);
                let leaf = F::encode_leaf(oa, size_lg2, table.level(), attrs);
                item.cell().init(leaf);
            }
        });
    }

    /// Replaces a live leaf, item by item, if it is cut, and says in `old` what was replaced.
    fn replace(
        &self,
        leaf: &Leaf<'t, F, M>,
        reserve: &mut Reserve<'_, 't, F, M>,
        old: &mut Option<OldLeaf<'t, F, M>>,
    ) -> Raceable {
        if !leaf.is_cut() {
            return Ok(());
        }
        let dirty = self.group_dirty(leaf);
        let mut late = 0;
        let mut done = Bytes(0);
        let (level, end) = (leaf.level(), leaf.end());
        let result = self.pieces::<ALL>(leaf.cuts, level, Bytes(0), end, |at, piece| {
            done = at;
            match piece {
                Piece::Leaves(run) => self.demote(leaf, run, dirty, &mut done),
                Piece::Table => {
                    late |= self.subdivide(leaf, at, dirty, reserve)?.0;
                    done = at.plus(Bytes::block(leaf.item.table().item_lg2()));
                    Ok(())
                }
                Piece::Hole(bytes) => self.empty(leaf, bytes, &mut late, &mut done),
            }
        });
        if done != Bytes(0) {
            *old = Some(OldLeaf {
                table: leaf.item.table(),
                va: leaf.va,
                size_lg2: leaf.size_lg2,
                late_dirty: late & F::DIRTY & !dirty != 0,
                done,
            });
        }
        result
    }

    /// Replaces the item at offset `at` of a live leaf by a table. Returns the attributes that it
    /// had at last, `dirty` included.
    fn subdivide(
        &self,
        leaf: &Leaf<'t, F, M>,
        at: Bytes,
        dirty: u64,
        reserve: &mut Reserve<'_, 't, F, M>,
    ) -> Raceable<Attrs> {
        let level = leaf.level();
        let index = Index::of::<F>(leaf.va.plus(at), level);
        let mut item = leaf.reread(index)?;
        let mut attrs = self.attrs_of(item, dirty);
        let mut new = self.build(leaf, level.below(), at, attrs, reserve)?;
        loop {
            match self.publish(item, new) {
                Ok(_) => return Ok(attrs),
                // Hardware set a bit meanwhile, so the children get it too. They need not be
                // cleaned: hardware that sets bits walks coherently.
                Err(back) => {
                    new = back;
                    item = leaf.reread(index)?;
                    attrs = self.attrs_of(item, dirty);
                    self.rebuild(new.table(), attrs);
                }
            }
        }
    }

    /// Empties items of a live contiguous leaf, `bytes` from offset `done` on. `late` gets what
    /// they had in the end: a dirty bit in one of them counts for the rest of the leaf, too. `done`
    /// is the end of what was emptied.
    fn empty(
        &self,
        leaf: &Leaf<'t, F, M>,
        bytes: Bytes,
        late: &mut u64,
        done: &mut Bytes,
    ) -> Raceable {
        let table = leaf.item.table();
        let item_lg2 = table.item_lg2();
        let first = Index::of::<F>(leaf.va.plus(*done), table.level());
        let items = bytes.count(item_lg2);
        let mut i = 0;
        let mut result = Ok(());
        while i != items && result.is_ok() {
            match leaf.reread(first.plus::<F>(i)) {
                Ok(item) if item.cell().publish(item.raw(), 0).is_ok() => {
                    *late |= item.raw();
                    i = i.wrapping_add(1);
                    *done = done.plus(Bytes::block(item_lg2));
                }
                // Hardware set a bit meanwhile.
                Ok(_) => {}
                Err(raced) => result = Err(raced),
            }
        }
        self.clean_items(table, first, i);
        result
    }

    /// Rewrites items of a live contiguous leaf, from offset `done` on, as smaller leaves of the
    /// same level. `done` is the end of what was rewritten.
    fn demote(&self, leaf: &Leaf<'t, F, M>, run: Run, dirty: u64, done: &mut Bytes) -> Raceable {
        let table = leaf.item.table();
        let item_lg2 = table.item_lg2();
        let first = Index::of::<F>(leaf.va.plus(*done), table.level());
        let items = run.bytes.count(item_lg2);
        let mut i = 0;
        let mut result = Ok(());
        while i != items && result.is_ok() {
            // A leaf is aligned to its size, so it starts where the item is in it.
            let oa = leaf.oa.plus(done.floor(run.size_lg2));
            result = self.demote_item(leaf, first.plus::<F>(i), oa, run.size_lg2, dirty);
            if result.is_ok() {
                i = i.wrapping_add(1);
                *done = done.plus(Bytes::block(item_lg2));
            }
        }
        self.clean_items(table, first, i);
        result
    }

    /// Rewrites one item of a live contiguous leaf as one of a smaller leaf that goes to `oa`.
    #[inline(always)]
    fn demote_item(
        &self,
        leaf: &Leaf<'t, F, M>,
        index: Index,
        oa: Oa,
        size_lg2: u32,
        dirty: u64,
    ) -> Raceable {
        loop {
            let item = leaf.reread(index)?;
            let attrs = self.attrs_of(item, dirty);
            let new = F::encode_leaf(oa, size_lg2, leaf.level(), attrs);
            if item.cell().publish(item.raw(), new).is_ok() {
                return Ok(());
            }
        }
    }

    /// The attributes for what replaces `item`.
    #[inline(always)]
    fn attrs_of(&self, item: Item<'t, F, M>, dirty: u64) -> Attrs {
        let attrs = F::leaf_attrs(item.raw(), item.table().level(), &self.cfg.params);
        Attrs(attrs.0 | dirty)
    }

    /// The dirty bit if any item of the leaf has it: hardware sets it in one item of a group, but
    /// means the whole leaf.
    fn group_dirty(&self, leaf: &Leaf<'t, F, M>) -> u64 {
        let table = leaf.item.table();
        let contig_lg2 = table.level().contig_lg2::<F>(leaf.size_lg2);
        let first = Index::of::<F>(leaf.va, table.level());
        let mut dirty = 0;
        let mut i = 0;
        while i != size::pow2(contig_lg2) {
            dirty |= table.cell(first.plus::<F>(i)).read() & F::DIRTY;
            i = i.wrapping_add(1);
        }
        dirty
    }
}

impl<'t, F: Format, M: PtMem> Plan<'_, 't, F, M> {
    /// Replaces the leaves at the edges, where they are cut. Nothing can fail any more:
    /// [`SplitFlush`] says whether somebody was in the way.
    #[inline(always)]
    pub(crate) fn commit(mut self) -> SplitFlush<'t, F, M> {
        let mut flush = SplitFlush {
            old: [None, None],
            params: self.pt.cfg.params,
            tables: self.edges.tables,
            result: Ok(()),
            _range: PhantomData,
        };
        let [low, high] = &mut flush.old;
        let mut result = self.pt.replace(&self.edges.first, &mut self.reserve, low);
        if let (Ok(()), Some(last)) = (&result, &self.edges.last) {
            result = self.pt.replace(last, &mut self.reserve, high);
        }
        if let Err(Raced) = result {
            flush.result = Err(Error::Raced);
        }
        flush
    }
}

impl<F: Format, M: PtMem> OldLeaf<'_, F, M> {
    fn fold_late_dirty(&self, params: &Params) {
        let items = |bytes: Bytes| bytes.count(self.table.item_lg2());
        let first = Index::of::<F>(self.va, self.table.level());
        let all = items(Bytes::block(self.size_lg2));
        let mut late = self.late_dirty;
        let mut i = 0;
        while i != all && !late {
            late = self.table.cell(first.plus::<F>(i)).read() & F::DIRTY != 0;
            i = i.wrapping_add(1);
        }
        if late {
            make_dirty(self.table, first, all, items(self.done), params);
        }
    }
}

/// Makes dirty all leaves in `items` items, and all leaves below the first `own` of them. Table
/// items and empty items stay as they are.
fn make_dirty<F: Format, M: PtMem>(
    table: Table<'_, F, M>,
    first: Index,
    items: u64,
    own: u64,
    params: &Params,
) {
    let mut i = 0;
    while i != items {
        loop {
            let item = table.read(first.plus::<F>(i));
            let want = match item.kind() {
                Kind::Leaf => item.raw() | F::DIRTY,
                Kind::Table if i < own => {
                    if let Some(child) = item.child(params) {
                        let first = Index::of::<F>(Iova(0), child.level());
                        let items = first.room::<F>();
                        make_dirty(child, first, items, items, params);
                    }
                    item.raw() & !F::DIRTY
                }
                // A part of the hole.
                Kind::Empty if i < own => item.raw() & !F::DIRTY,
                // Empty, or somebody else's.
                _ => break,
            };
            // If the item changed meanwhile, repeat all of it: it may lead to another table now.
            if want == item.raw() || item.cell().publish(item.raw(), want).is_ok() {
                break;
            }
        }
        i = i.wrapping_add(1);
    }
}

impl<F: Format, M: PtMem> SplitFlush<'_, F, M> {
    /// The leaves that were replaced, in ascending order.
    #[inline]
    pub fn leaves(&self) -> impl Iterator<Item = Replaced> + '_ {
        self.old.iter().flatten().map(|old| Replaced {
            va: old.va,
            size_lg2: old.size_lg2,
            level: old.table.level(),
        })
    }

    /// Ok if no other caller interfered, so that the split is complete.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.result.is_ok()
    }

    /// Ends with this error.
    #[cold]
    pub(crate) fn failed(mut self, error: Error) -> Self {
        self.result = Err(error);
        self
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.leaves().next().is_none()
    }

    /// The number of tables that it took.
    #[inline]
    pub fn tables(&self) -> usize {
        self.tables
    }

    /// Carries late dirty bits over to all leaves that they may be meant for. Call it after the
    /// flush of [`leaves`](Self::leaves): no dirty bit comes late after that.
    ///
    /// Hardware that wrote through a translation which it had cached before the split may set the
    /// dirty bit where the old leaf was, without looking at what is there now: a table item, or one
    /// item of a group that is several leaves now. The write may have gone to any address of the
    /// old leaf, so everything that replaced it becomes dirty.
    ///
    /// Nothing is cleaned to memory: software alone reads dirty bits, hardware that finds one clear
    /// sets it again, and a table item's says nothing.
    ///
    /// Returns what [`finish`](Self::finish) does.
    pub fn fold_late_dirty(self) -> Result {
        if F::DIRTY != 0 {
            for old in self.old.iter().flatten() {
                old.fold_late_dirty(&self.params);
            }
        }
        self.result
    }

    /// The end for a table whose dirty bits nobody reads.
    ///
    /// [`Error::Raced`] if the split is not complete, see [`Pt::split`].
    #[inline]
    pub fn finish(self) -> Result {
        self.result
    }
}
