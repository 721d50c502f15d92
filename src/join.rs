// SPDX-License-Identifier: GPL-2.0-only

//! Join the leaves of a range, while devices use them: the reverse of a split.
//!
//! # What the IOMMU sees
//!
//! Where all that is below a table item translates as one leaf would, **one** compare-exchange
//! puts that leaf in place of the table item. Nothing below it changes: a walk that is under way,
//! or goes on from a cached table item, finds in the old tables what it found before. Where a
//! contiguous leaf can take the place of the leaves of several items, each item is replaced by one
//! compare-exchange; until the last one, neighbours describe the same translation in two ways.
//!
//! So between any two stores each address translates as it did, and so do all cached copies, which
//! are pieces of what is there now.
//!
//! The old tables are intact until the flush, and what hardware caches of them is used until then.
//! A device that writes through it sets the dirty bit there: after the flush, when nothing leads
//! there any more, such bits are collected, and then the tables are freed.
//!
//! # Where
//!
//! The largest leaves that alignment and `pgsize_bitmap` allow are made, at the highest level
//! first: a subtree goes as a whole, with one store. A table is read once for that. Leaves that
//! reach out of the range are left alone.
//!
//! # Failure
//!
//! Nothing is allocated. Hardware may set [`Format::HW_BITS`] while it runs; if anything else
//! changes, the range was not locked, and the join stops where it is.

#![forbid(unsafe_code)]

use crate::fmt::{
    Attrs,
    Format,
    Kind,
    Leaves, //
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
    Oa, //
};
use crate::table::{
    Index,
    Item,
    RawTable,
    Table, //
};
use crate::{
    Error,
    Pt,
    Result, //
};

/// Whether tables and leaves of a format can be joined: [`Pt::join`] never answers
/// [`Error::NotSupported`] then.
pub const fn can_join<F: Format>() -> bool {
    F::LIVE.table_to_leaf
}

/// What a join asks to be flushed: all that may be cached of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// First address.
    pub va: Iova,
    /// Last address.
    pub last: Iova,
    /// Levels of the old leaves, bit n for level n.
    pub leaf_levels: u32,
    /// Levels of the table items that are leaves now, and of all below.
    pub table_levels: u32,
}

/// What a join needs from outside.
pub trait Flusher<M: PtMem> {
    /// Flushes translations, and cached table items, of a range. When it returns, no device uses
    /// what was cached before, and no walk reads a table that it got from it.
    fn flush(&mut self, stale: Stale);

    /// Takes a table that hardware cannot reach any more, to free it at once or later.
    fn free(&mut self, table: RawTable<M>);
}

/// What a join did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Leaves that were made.
    pub leaves: usize,
    /// Tables that were given back.
    pub tables: usize,
    /// Flushes.
    pub flushes: usize,
}

/// How a stretch of addresses is translated: as by one leaf, if it were aligned to it.
#[derive(Clone, Copy)]
struct Uniform {
    /// Of the first address.
    oa: Oa,
    /// Without those bits that hardware sets.
    attrs: Attrs,
    /// Those bits, of any of the items.
    hw: u64,
    /// Whether tables translate so that have tables below.
    deep: bool,
}

/// Items of one table that follow each other and are uniform.
#[derive(Clone, Copy)]
struct Streak {
    va: Iova,
    bytes: Bytes,
    as_one: Uniform,
    /// So many leaves and tables.
    parts: u64,
    /// Whether there is something to join even if it is one part.
    tables: bool,
}

/// What a table has from some item on.
struct Part {
    /// How many items it is.
    items: u64,
    /// How many leaves they are, or 1 for a table.
    leaves: u64,
    /// How they translate, if that is uniform and they lie in the range as a whole.
    as_one: Option<Uniform>,
    /// Whether it is a table.
    is_table: bool,
}

/// A subtree whose place a leaf has taken. All in it are leaves, and tables if it is `deep`.
struct Detached<'t, F: Format, M: PtMem> {
    top: Table<'t, F, M>,
    deep: bool,
    leaf: Item<'t, F, M>,
}

/// As many subtrees share one flush.
const BATCH: usize = 8;

/// A join that is under way.
struct Joiner<'j, 't, F: Format, M: PtMem, X: Flusher<M>> {
    flusher: &'j mut X,
    detached: [Option<Detached<'t, F, M>>; BATCH],
    stale: Option<Stale>,
    done: Joined,
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Makes as few leaves as can be of what is mapped in `range`, and every address translates as
    /// before, at every instant between.
    ///
    /// Leaves are joined where they follow each other in IOVA and OA and all their bits are equal,
    /// but for accessed and dirty: a leaf is dirty if anything that it was made of is. Others stay
    /// as they are, and so do those that lie in the range in part. Empty tables stay, too.
    ///
    /// The range is locked exclusively, also against [`iova_to_phys`](Self::iova_to_phys): tables
    /// are freed. Nothing is allocated.
    ///
    /// Errors: [`Error::NotSupported`] if not [`can_join`], [`Error::OutOfRange`], and
    /// [`Error::Raced`] if something else than hardware changed an item meanwhile: then a part may
    /// be joined.
    pub fn join<X: Flusher<M>>(&self, range: Locked, flusher: &mut X) -> Result<Joined> {
        if !can_join::<F>() {
            return Err(Error::NotSupported);
        }
        self.check_range(range)?;
        let mut joiner = Joiner {
            flusher,
            detached: [const { None }; BATCH],
            stale: None,
            done: Joined::default(),
        };
        let result = self.join_table(self.top, range.va(), range.last(), false, &mut joiner);
        joiner.finish(self);
        result.map(|_| joiner.done)
    }

    /// Joins what a table has of a range. If all of the table can be one leaf of the level above,
    /// or a part of one, nothing is changed, and that is the answer: the caller looks at what is
    /// next to it.
    fn join_table<X: Flusher<M>>(
        &self,
        table: Table<'t, F, M>,
        va: Iova,
        last: Iova,
        whole: bool,
        joiner: &mut Joiner<'_, 't, F, M, X>,
    ) -> Result<Option<Uniform>> {
        let level = table.level();
        let item_lg2 = table.item_lg2();
        let mut streak: Option<Streak> = None;
        let mut at = va.floor(item_lg2);
        let mut left = Index::of::<F>(va, level).room::<F>();
        loop {
            let item = table.read_at(at);
            let part = self.part_of(item, at, (va, last), left, joiner)?;
            let bytes = Bytes::blocks(part.items, item_lg2);
            streak = match (streak, part.as_one) {
                (Some(mut streak), Some(as_one)) if streak.as_one.goes_on(streak.bytes, as_one) => {
                    streak.add(bytes, as_one, &part);
                    Some(streak)
                }
                (before, found) => {
                    if let Some(streak) = before {
                        self.join_streak(table, streak, joiner)?;
                    }
                    found.map(|as_one| Streak {
                        va: at,
                        bytes,
                        as_one,
                        parts: part.leaves,
                        tables: part.is_table,
                    })
                }
            };
            let end = at.last_of(bytes);
            if end >= last || part.items >= left {
                break;
            }
            at = end.plus(Bytes(1));
            left = left.wrapping_sub(part.items);
        }
        let Some(streak) = streak else {
            return Ok(None);
        };
        let above = level.above();
        let table_lg2 = above.item_lg2::<F>();
        if whole
            && streak.bytes == Bytes::block(table_lg2)
            && size::offset(streak.as_one.oa.0, table_lg2) == 0
            && self.sizes(above) >= size::pow2(table_lg2)
        {
            return Ok(Some(Uniform {
                deep: streak.tables,
                ..streak.as_one
            }));
        }
        self.join_streak(table, streak, joiner)?;
        Ok(None)
    }

    /// What begins with `item`, in the `left` items that the table has from there on and in the
    /// range from `va` to `last`: one table, or as many leaves of one size as go on.
    #[inline(always)]
    fn part_of<X: Flusher<M>>(
        &self,
        item: Item<'t, F, M>,
        at: Iova,
        (va, last): (Iova, Iova),
        left: u64,
        joiner: &mut Joiner<'_, 't, F, M, X>,
    ) -> Result<Part> {
        let params = &self.cfg.params;
        let item_lg2 = item.table().item_lg2();
        let part = |items: u64, as_one, is_table| Part {
            items: items.min(left),
            leaves: 1,
            as_one,
            is_table,
        };
        Ok(match item.kind() {
            Kind::Empty => part(1, None, false),
            Kind::Leaf => {
                let size_lg2 = item.leaf_lg2(params);
                let leaf_last = at.block_last(size_lg2);
                let items = at.through(leaf_last).count(item_lg2);
                if at.floor(size_lg2) < va || leaf_last > last {
                    return Ok(part(items, None, false));
                }
                let more = last.since(leaf_last).count(item_lg2);
                let cells = item.table().cells(item.index(), items.wrapping_add(more));
                self.leaves_of(item, cells)
            }
            Kind::Table => {
                let Some(child) = item.child(params) else {
                    return Ok(part(1, None, false));
                };
                let block_last = at.block_last(item_lg2);
                let whole = va <= at && block_last <= last;
                let (first, last) = (va.max(at), last.min(block_last));
                let as_one = self.join_table(child, first, last, whole, joiner)?;
                part(1, as_one, true)
            }
        })
    }

    /// How many of `cells`, the first of which is `item`, are leaves that translate as one. Leaves
    /// of one size with equal attributes differ by a constant, so they are not decoded.
    #[inline(always)]
    fn leaves_of(&self, item: Item<'t, F, M>, cells: &[M::Cell]) -> Part {
        let params = &self.cfg.params;
        let level = item.table().level();
        let group_lg2 = item.contig_lg2(params);
        let oa = F::leaf_oa(item.raw(), level, params);
        let attrs = F::leaf_attrs(item.raw() & !F::HW_BITS, level, params);
        let mut expected = Leaves::new::<F>(oa, item.leaf_lg2(params), level, attrs);
        let mut leaves = 0u64;
        let mut set = 0;
        if group_lg2 == 0 {
            for cell in cells {
                let raw = cell.read();
                if (raw ^ expected.next_item()) & !F::HW_BITS != 0 {
                    break;
                }
                set |= raw;
                leaves = leaves.wrapping_add(1);
            }
        } else {
            for group in cells.chunks_exact(1usize.wrapping_shl(group_lg2)) {
                let leaf = expected.next_item();
                let mut differ = 0;
                let mut here = 0;
                for cell in group {
                    let raw = cell.read();
                    differ |= raw ^ leaf;
                    here |= raw;
                }
                if differ & !F::HW_BITS != 0 {
                    break;
                }
                set |= here;
                leaves = leaves.wrapping_add(1);
            }
        }
        let as_one = Uniform {
            oa,
            attrs,
            hw: set & F::HW_BITS,
            deep: false,
        };
        Part {
            // Not even the first: something else than hardware has changed it.
            items: size::shl(leaves, group_lg2).max(1),
            leaves,
            as_one: (leaves != 0).then_some(as_one),
            is_table: false,
        }
    }

    /// Makes the largest leaves of a streak that has more than one part, or a table.
    fn join_streak<X: Flusher<M>>(
        &self,
        table: Table<'t, F, M>,
        streak: Streak,
        joiner: &mut Joiner<'_, 't, F, M, X>,
    ) -> Result {
        if streak.parts == 1 && !streak.tables {
            return Ok(());
        }
        let Uniform {
            oa,
            attrs,
            hw,
            deep,
        } = streak.as_one;
        let item = Bytes::block(table.item_lg2());
        let mut sizes = self.sizes(table.level());
        if !F::LIVE.contig_resize {
            sizes &= item.0;
        }
        // Of several parts each has its own.
        let hw = (streak.parts == 1).then_some(hw);
        let mut at = Bytes(0);
        while at < streak.bytes {
            let (va, oa) = (streak.va.plus(at), oa.plus(at));
            let bytes = match best_run(sizes, va, streak.bytes.minus(at), oa) {
                Some(run) => {
                    let bytes = Bytes::block(run.size_lg2);
                    let leaf = F::encode_leaf(oa, run.size_lg2, table.level(), attrs);
                    self.join_leaf(table, va, run.size_lg2, leaf, (hw, deep), joiner)?;
                    bytes
                }
                // Not even one item: the level has no leaves of that size, and what is next to it
                // does not make it a larger one. So it is joined inside.
                None => {
                    let last = va.last_of(item);
                    if let Some(child) = table.read_at(va).child(&self.cfg.params) {
                        self.join_table(child, va, last, false, joiner)?;
                    }
                    item
                }
            };
            at = at.plus(bytes);
        }
        Ok(())
    }

    /// Puts the leaf `new` of `2^size_lg2` bytes in the place of what its items are, if they are
    /// not that leaf. `hw` is what hardware has set there, if that is known; where they are tables,
    /// `deep` says whether those have tables below.
    fn join_leaf<X: Flusher<M>>(
        &self,
        table: Table<'t, F, M>,
        va: Iova,
        size_lg2: u32,
        new: u64,
        (hw, deep): (Option<u64>, bool),
        joiner: &mut Joiner<'_, 't, F, M, X>,
    ) -> Result {
        let params = &self.cfg.params;
        let first = table.read_at(va);
        if first.kind() == Kind::Leaf && first.leaf_lg2(params) >= size_lg2 {
            return Ok(());
        }
        let items = size::pow2(table.level().contig_lg2::<F>(size_lg2));
        let mut i = 0;
        while i != items {
            let item = table.read(first.index().plus::<F>(i));
            match item.child(params) {
                Some(child) => {
                    let hw = hw.unwrap_or_else(|| self.hw_below(child, deep));
                    exchange(item, F::HW_BITS | F::CLEANED, |_| new | hw)?;
                    self.clean_items(table, item.index(), 1);
                    let at = va.plus(Bytes::blocks(i, table.item_lg2()));
                    let detached = Detached {
                        top: child,
                        deep,
                        leaf: item,
                    };
                    joiner.detach(self, detached, at);
                }
                None => {
                    exchange(item, F::HW_BITS, |old| new | (old & F::HW_BITS))?;
                    self.clean_items(table, item.index(), 1);
                }
            }
            i = i.wrapping_add(1);
        }
        joiner.done.leaves = joiner.done.leaves.wrapping_add(1);
        Ok(())
    }

    /// What hardware has set in any leaf of a subtree, which has tables below if it is `deep`, and
    /// no empty item.
    fn hw_below(&self, table: Table<'t, F, M>, deep: bool) -> u64 {
        let mut hw = 0;
        if deep {
            table.for_each(|item| {
                hw |= match item.child(&self.cfg.params) {
                    Some(child) => self.hw_below(child, child.level() != Level::LEAF),
                    None => item.raw(),
                };
            });
        } else {
            for cell in table.all() {
                hw |= cell.read();
            }
        }
        hw & F::HW_BITS
    }
}

/// Replaces an item by what `new` makes of it. Other bits than `may_change` must be as they were
/// read.
fn exchange<F: Format, M: PtMem>(
    item: Item<'_, F, M>,
    may_change: u64,
    new: impl Fn(u64) -> u64,
) -> Result {
    let mut old = item.raw();
    while let Err(now) = item.cell().publish(old, new(old)) {
        if (now ^ item.raw()) & !may_change != 0 {
            return Err(Error::Raced);
        }
        old = now;
    }
    Ok(())
}

impl<'t, F: Format, M: PtMem, X: Flusher<M>> Joiner<'_, 't, F, M, X> {
    /// The item `detached.leaf`, which serves addresses from `va` on, is a leaf now and was a table
    /// item that pointed to `detached.top`.
    fn detach(&mut self, pt: &Pt<'t, F, M>, detached: Detached<'t, F, M>, va: Iova) {
        if self.detached.iter().all(Option::is_some) {
            self.finish(pt);
        }
        let table = detached.leaf.table();
        let last = va.block_last(table.item_lg2());
        // One bit for each level below that of the item.
        let below = size::max_offset(u32::from(table.level().0)) as u32;
        let stale = self.stale.get_or_insert(Stale {
            va,
            last,
            leaf_levels: 0,
            table_levels: 0,
        });
        stale.va = stale.va.min(va);
        stale.last = stale.last.max(last);
        stale.leaf_levels |= below;
        stale.table_levels |= below.wrapping_shl(1);
        if let Some(slot) = self.detached.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(detached);
        }
    }

    /// Flushes, collects the dirty bits that came late, and gives the tables back.
    fn finish(&mut self, pt: &Pt<'t, F, M>) {
        let Some(stale) = self.stale.take() else {
            return;
        };
        self.flusher.flush(stale);
        self.done.flushes = self.done.flushes.wrapping_add(1);
        for slot in 0..BATCH {
            let taken = self.detached.get_mut(slot).and_then(Option::take);
            if let Some(Detached { top, deep, leaf }) = taken {
                if F::DIRTY != 0 && pt.hw_below(top, deep) & F::DIRTY != 0 {
                    make_dirty(leaf.table(), leaf.index());
                }
                self.free(pt, top, deep);
            }
        }
    }

    fn free(&mut self, pt: &Pt<'t, F, M>, table: Table<'t, F, M>, deep: bool) {
        if deep {
            table.for_each(|item| {
                if let Some(child) = item.child(&pt.cfg.params) {
                    self.free(pt, child, child.level() != Level::LEAF);
                }
            });
        }
        self.flusher.free(table.raw());
        self.done.tables = self.done.tables.wrapping_add(1);
    }
}

/// Sets the dirty bit of a leaf item.
fn make_dirty<F: Format, M: PtMem>(table: Table<'_, F, M>, index: Index) {
    loop {
        let item = table.read(index);
        let dirty = item.raw() | F::DIRTY;
        // The range is locked: it still is the leaf that was put there.
        if item.kind() != Kind::Leaf
            || item.raw() == dirty
            || item.cell().publish(item.raw(), dirty).is_ok()
        {
            return;
        }
    }
}

impl Uniform {
    /// Whether `other` is what would follow after `bytes`.
    #[inline(always)]
    fn goes_on(&self, bytes: Bytes, other: Uniform) -> bool {
        other.oa == self.oa.plus(bytes) && other.attrs == self.attrs
    }
}

impl Streak {
    #[inline(always)]
    fn add(&mut self, bytes: Bytes, as_one: Uniform, part: &Part) {
        self.bytes = self.bytes.plus(bytes);
        self.as_one.hw |= as_one.hw;
        self.as_one.deep |= as_one.deep;
        self.parts = self.parts.wrapping_add(part.leaves);
        self.tables |= part.is_table;
    }
}
