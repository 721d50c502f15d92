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
//! dirty bit in whatever is there now: [`Pt::fold_late_dirty`] collects such bits after the flush.
//!
//! # Failure
//!
//! All tables that both edges need are allocated first. After the first visible store nothing can
//! fail, only be raced by hardware.

#![forbid(unsafe_code)]

use crate::fmt::{Attrs, Format};
use crate::mem::{Cell, PtMem};
use crate::range::Locked;
use crate::size::{self, best_run, Level, Run};
use crate::table::{Index, Item, Reserve, Table, Unlinked};
use crate::{Error, Pt, Result};

/// A leaf that was replaced by smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its first address.
    pub va: u64,
    /// log2 of its size in bytes.
    pub size_lg2: u32,
    /// Its level.
    pub level: Level,
    /// Hardware set the dirty bit of an item just before a table took its place, so it does not
    /// show there any more; what replaced the other items of the leaf may be clean.
    pub late_dirty: bool,
}

/// The leaves that [`Pt::split`] replaced, at most one at each edge, in ascending order. The caller
/// flushes each at its old size, and calls [`Pt::fold_late_dirty`] if hardware sets dirty bits,
/// before it lets go of the range lock.
#[must_use = "the old, large translations are still cached"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitFlush {
    /// The leaves.
    pub leaves: [Option<Replaced>; 2],
}

/// Addresses at which no leaf may cross; the same twice if there is only one.
#[derive(Clone, Copy)]
struct Cuts {
    low: u64,
    high: u64,
}

impl Cuts {
    /// The last address of the piece that starts at `va` and ends at `last` or at a cut. A cut that
    /// is aligned to `2^ignore_lg2` bytes does not count.
    #[inline(always)]
    fn piece_last(self, va: u64, last: u64, ignore_lg2: u32) -> u64 {
        let counts = |cut: u64| va < cut && cut <= last && size::offset(cut, ignore_lg2) != 0;
        if counts(self.low) {
            self.low.wrapping_sub(1)
        } else if counts(self.high) {
            self.high.wrapping_sub(1)
        } else {
            last
        }
    }
}

/// A leaf as it was found.
struct Leaf<'t, F: Format, M: PtMem> {
    item: Item<'t, F, M>,
    va: u64,
    size_lg2: u32,
    oa: u64,
}

impl<F: Format, M: PtMem> Leaf<'_, F, M> {
    #[inline(always)]
    fn last(&self) -> u64 {
        size::block_last(self.va, self.size_lg2)
    }

    #[inline(always)]
    fn level(&self) -> Level {
        self.item.table().level()
    }

    #[inline(always)]
    fn oa_at(&self, va: u64) -> u64 {
        self.oa.wrapping_add(va.wrapping_sub(self.va))
    }

    fn replaced(&self, late_dirty: bool) -> Option<Replaced> {
        Some(Replaced {
            va: self.va,
            size_lg2: self.size_lg2,
            level: self.level(),
            late_dirty,
        })
    }
}

/// How the addresses from some point on are to be translated by a table of one level.
enum Piece {
    /// By leaves of this level.
    Leaves(Run),
    /// One item needs a table below.
    Table,
}

/// What [`Piece`] depends on, the same for all of a table.
struct Pieces {
    cuts: Cuts,
    sizes: u64,
    ignore_lg2: u32,
}

impl Pieces {
    /// What comes at `va` in a table, or a part of one, that ends with `last`.
    #[inline(always)]
    fn at(&self, va: u64, last: u64) -> Piece {
        let last = self.cuts.piece_last(va, last, self.ignore_lg2);
        if va == last {
            return Piece::Table;
        }
        // The OA is aligned as the IOVA is, up to the size of the leaf.
        match best_run(self.sizes, va, last, va) {
            Some(run) => Piece::Leaves(run),
            None => Piece::Table,
        }
    }
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// After success no leaf crosses the start or the end of `range`, and every address translates
    /// as before, at every instant between.
    ///
    /// Costs the fewest tables, and leaves are as large as alignment and `pgsize_bitmap` allow.
    /// Rights, memory type and all other bits are those of the old leaf; a dirty leaf's children
    /// are all dirty, a clean one's all clean.
    ///
    /// Errors: [`Error::Invalid`] (not aligned to the smallest page), [`Error::NotMapped`] (nothing
    /// is mapped at the first or the last address), [`Error::NotSupported`] (the hardware needs
    /// break-before-make), and those of [`PtMem::alloc`]. On error nothing has changed.
    pub fn split(&self, range: Locked) -> Result<SplitFlush> {
        let page_lg2 = self.cfg.pgsize_bitmap.trailing_zeros();
        if size::offset(range.va() | range.len(), page_lg2) != 0 {
            return Err(Error::Invalid);
        }
        if self.check_range(range).is_err() {
            return Err(Error::NotMapped);
        }
        let first = self.leaf_at(range.va())?;
        let last = self.leaf_at(range.last())?;
        let low_cut = first.va != range.va();
        let high_cut = last.last() != range.last();
        let low = range.va();
        // Does not wrap where it is used: the leaf goes on behind the range.
        let high = range.last().wrapping_add(1);

        let mut flush = SplitFlush {
            leaves: [None, None],
        };
        if low_cut && high_cut && first.va == last.va {
            let cuts = Cuts { low, high };
            let mut reserve = Reserve::new(self, self.plan(&first, cuts)?)?;
            let late = self.replace(&first, cuts, &mut reserve)?;
            flush.leaves[0] = first.replaced(late);
            return Ok(flush);
        }
        let low_cuts = Cuts { low, high: low };
        let high_cuts = Cuts { low: high, high };
        let mut tables = 0usize;
        if low_cut {
            tables = tables.wrapping_add(self.plan(&first, low_cuts)?);
        }
        if high_cut {
            tables = tables.wrapping_add(self.plan(&last, high_cuts)?);
        }
        let mut reserve = Reserve::new(self, tables)?;
        if low_cut {
            let late = self.replace(&first, low_cuts, &mut reserve)?;
            flush.leaves[0] = first.replaced(late);
        }
        if high_cut {
            let late = self.replace(&last, high_cuts, &mut reserve)?;
            flush.leaves[1] = last.replaced(late);
        }
        Ok(flush)
    }

    fn leaf_at(&self, va: u64) -> Result<Leaf<'t, F, M>> {
        let item = self.find(va).ok_or(Error::NotMapped)?;
        let size_lg2 = item.leaf_lg2(&self.cfg.params);
        let start = size::floor(va, size_lg2);
        Ok(Leaf {
            item,
            va: start,
            size_lg2,
            oa: item.leaf_oa_at(start, &self.cfg.params),
        })
    }

    /// The number of tables that replacing `leaf` takes; [`Error::NotSupported`] if the hardware
    /// does not allow it live.
    fn plan(&self, leaf: &Leaf<'t, F, M>, cuts: Cuts) -> Result<usize> {
        let tables = self.count_tables(cuts, leaf.level(), leaf.va, leaf.last());
        let contig = leaf.size_lg2 != leaf.item.table().item_lg2();
        if (tables != 0 && !F::LIVE.leaf_to_table) || (contig && !F::LIVE.contig_resize) {
            return Err(Error::NotSupported);
        }
        Ok(tables)
    }

    /// How a table of `level` translates what a leaf did, cut at `cuts`.
    #[inline(always)]
    fn pieces(&self, cuts: Cuts, level: Level) -> Pieces {
        let sizes = self.sizes(level);
        let item_lg2 = level.item_lg2::<F>();
        Pieces {
            cuts,
            sizes,
            // Where all leaves are one item, a cut between two of them changes nothing.
            ignore_lg2: if sizes == size::pow2(item_lg2) {
                item_lg2
            } else {
                64
            },
        }
    }

    /// The number of tables below a table (or a part of one) of `level` that translates
    /// `va..=last`.
    fn count_tables(&self, cuts: Cuts, level: Level, mut va: u64, last: u64) -> usize {
        let mut tables = 0usize;
        let item_lg2 = level.item_lg2::<F>();
        if self.sizes(level) & size::pow2(item_lg2) != 0 {
            // Any item can be a leaf, but for those that a cut goes through.
            let mut counted = None;
            for cut in [cuts.low, cuts.high] {
                let block = size::floor(cut, item_lg2);
                let through = va < cut && cut <= last && cut != block;
                if through && counted != Some(block) {
                    counted = Some(block);
                    let block_last = size::block_last(block, item_lg2);
                    let below = self.count_tables(cuts, level.below(), block, block_last);
                    tables = tables.wrapping_add(1).wrapping_add(below);
                }
            }
            return tables;
        }
        let pieces = self.pieces(cuts, level);
        loop {
            let block_last = match pieces.at(va, last) {
                Piece::Leaves(run) => va.wrapping_add(run.count << run.size_lg2).wrapping_sub(1),
                Piece::Table => {
                    let block_last = size::block_last(va, level.item_lg2::<F>());
                    if level != Level::LEAF {
                        let below = level.below();
                        tables = tables
                            .wrapping_add(1)
                            .wrapping_add(self.count_tables(cuts, below, va, block_last));
                    }
                    block_last
                }
            };
            if block_last >= last {
                return tables;
            }
            va = block_last.wrapping_add(1);
        }
    }

    /// A subtree of `level` that translates the addresses from `va` on as `leaf` does.
    fn build<'p>(
        &self,
        leaf: &Leaf<'t, F, M>,
        cuts: Cuts,
        level: Level,
        mut va: u64,
        attrs: Attrs,
        reserve: &mut Reserve<'p, 't, F, M>,
    ) -> Result<Unlinked<'p, 't, F, M>> {
        let item_lg2 = level.item_lg2::<F>();
        let last = size::block_last(va, item_lg2.wrapping_add(F::ITEMS_LG2));
        // Counted before, so there is one.
        let mut new = reserve.take(level).ok_or(Error::NoMemory)?;
        let pieces = self.pieces(cuts, level);
        loop {
            let bytes = match pieces.at(va, last) {
                Piece::Leaves(run) => {
                    new.leaves(leaf.oa_at(va), run, attrs);
                    run.count << run.size_lg2
                }
                Piece::Table => {
                    new.subtree(self.build(leaf, cuts, level.below(), va, attrs, reserve)?);
                    size::pow2(item_lg2)
                }
            };
            va = va.wrapping_add(bytes);
            if va.wrapping_sub(1) == last {
                return Ok(new.finish());
            }
        }
    }

    /// Gives all leaves of a subtree that hardware cannot reach other attributes.
    #[cold]
    fn rebuild(&self, table: Table<'t, F, M>, attrs: Attrs) {
        let params = &self.cfg.params;
        table.for_each(|item| match item.child(params) {
            Some(child) => self.rebuild(child, attrs),
            None => {
                let oa = F::leaf_oa(item.raw(), table.level(), params);
                let size_lg2 = item.leaf_lg2(params);
                let leaf = F::encode_leaf(oa, size_lg2, table.level(), attrs);
                item.cell().init(leaf);
            }
        });
    }

    /// Replaces a live leaf, item by item. Returns [`Replaced::late_dirty`].
    fn replace(
        &self,
        leaf: &Leaf<'t, F, M>,
        cuts: Cuts,
        reserve: &mut Reserve<'_, 't, F, M>,
    ) -> Result<bool> {
        let table = leaf.item.table();
        let level = table.level();
        let item_lg2 = table.item_lg2();
        let last = leaf.last();
        let dirty = self.group_dirty(leaf);
        let mut late = 0;
        let mut va = leaf.va;
        let pieces = self.pieces(cuts, level);
        loop {
            let index = Index::of::<F>(va, level);
            let block_last = match pieces.at(va, last) {
                Piece::Leaves(run) => {
                    self.demote(table, index, leaf.oa_at(va), run, dirty);
                    va.wrapping_add(run.count << run.size_lg2).wrapping_sub(1)
                }
                Piece::Table => {
                    let block_last = size::block_last(va, item_lg2);
                    let mut item = table.read(index);
                    let mut attrs = self.attrs_of(item, dirty);
                    let mut new = self.build(leaf, cuts, level.below(), va, attrs, reserve)?;
                    loop {
                        self.clean_subtree(new.table());
                        match self.publish(item, new) {
                            Ok(_) => break,
                            // Hardware set a bit meanwhile: the children get it too.
                            Err(back) => {
                                new = back;
                                item = table.read(index);
                                attrs = self.attrs_of(item, dirty);
                                self.rebuild(new.table(), attrs);
                            }
                        }
                    }
                    late |= attrs.0;
                    block_last
                }
            };
            if block_last >= last {
                return Ok(late & F::DIRTY & !dirty != 0);
            }
            va = block_last.wrapping_add(1);
        }
    }

    /// Rewrites items of a live contiguous leaf as smaller leaves of the same level.
    fn demote(&self, table: Table<'t, F, M>, index: Index, oa: u64, run: Run, dirty: u64) {
        let group_lg2 = run.size_lg2.wrapping_sub(table.item_lg2());
        let items = run.count << group_lg2;
        let mut i = 0;
        while i != items {
            let leaf_oa = oa.wrapping_add((i >> group_lg2) << run.size_lg2);
            let mut item = table.read(index.plus::<F>(i));
            loop {
                let attrs = self.attrs_of(item, dirty);
                let new = F::encode_leaf(leaf_oa, run.size_lg2, table.level(), attrs);
                match item.cell().publish(item.raw(), new) {
                    Ok(()) => break,
                    Err(_) => item = table.read(item.index()),
                }
            }
            i = i.wrapping_add(1);
        }
        self.clean_items(table, index, items);
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
        let contig_lg2 = leaf.size_lg2.wrapping_sub(table.item_lg2());
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
