// SPDX-License-Identifier: GPL-2.0-only

//! Report the leaves and tables that translate a range, a part at a time.
//!
//! debugfs shows page tables by this. A table may have billions of items, and the range has to stay
//! locked while it is read. So a walk ends when it has looked at as many tables as it was asked to,
//! and says where to go on. Each leaf and table is reported at its first address: of two walks, one
//! up to an address and one from there on, exactly one reports it.

#![forbid(unsafe_code)]

use crate::fmt::{
    Attrs,
    Features,
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
    Iova,
    Oa, //
};
use crate::table::{
    Index,
    Table, //
};
use crate::{
    Level,
    Pt, //
};

/// A leaf that a walk has found, contiguous ones as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its first address.
    pub va: Iova,
    /// What that is translated to.
    pub oa: Oa,
    /// log2 of its size in bytes.
    pub size_lg2: u32,
    /// Its attributes as its first item has them, without those that hardware sets.
    pub attrs: Attrs,
}

/// Receives what [`Pt::walk`] finds, in the order of addresses; a table before what is in it.
pub trait Visitor {
    /// A leaf that starts in the range.
    fn leaf(&mut self, leaf: Seen);

    /// A table below the top, with items of this level, whose first address is in the range.
    fn table(&mut self, level: Level);
}

/// A walk that is under way.
struct Walk<'v, V: Visitor> {
    visitor: &'v mut V,
    /// Where it started.
    from: Iova,
    /// How many tables it may still enter.
    tables: u32,
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Reports the leaves and the tables that start in `range`. The top table is not reported:
    /// every page table has one.
    ///
    /// Looks at about `tables` tables, and always makes progress. Returns the address from which to
    /// go on, or `None` if it came to the end.
    ///
    /// The range may be locked shared. Nothing is reported for addresses that the table cannot
    /// translate.
    pub fn walk<V: Visitor>(&self, range: Locked, tables: u32, visitor: &mut V) -> Option<Iova> {
        let (va, last, rest) = self.translated(range)?;
        let mut walk = Walk {
            visitor,
            from: range.va(),
            tables,
        };
        self.walk_table(self.top, va, last, &mut walk).or(rest)
    }

    /// What lies in the table's range, up to the gap between its halves, and where the upper half
    /// begins if that is still to come.
    fn translated(&self, range: Locked) -> Option<(Iova, Iova, Option<Iova>)> {
        let lg2 = self.top_va_lg2();
        if !self.has(Features::SIGN_EXTEND) {
            let last = range.last().min(Iova(size::max_offset(lg2)));
            return (range.va() <= last).then_some((range.va(), last, None));
        }
        let low_last = Iova(size::max_offset(lg2.wrapping_sub(1)));
        let high = Iova(!low_last.0);
        if range.va() <= low_last {
            let rest = (range.last() >= high).then_some(high);
            return Some((range.va(), range.last().min(low_last), rest));
        }
        let va = range.va().max(high);
        (va <= range.last()).then_some((va, range.last(), None))
    }

    fn walk_table<V: Visitor>(
        &self,
        table: Table<'t, F, M>,
        va: Iova,
        last: Iova,
        walk: &mut Walk<'_, V>,
    ) -> Option<Iova> {
        walk.tables = walk.tables.saturating_sub(1);
        // Most leaves are at the lowest level; knowing it spares questions about each.
        if table.level() == Level::LEAF {
            self.walk_items(table, Level::LEAF, va, last, walk)
        } else {
            self.walk_items(table, table.level(), va, last, walk)
        }
    }

    #[inline(always)]
    fn walk_items<V: Visitor>(
        &self,
        table: Table<'t, F, M>,
        level: Level,
        va: Iova,
        last: Iova,
        walk: &mut Walk<'_, V>,
    ) -> Option<Iova> {
        let params = &self.cfg.params;
        let item_lg2 = level.item_lg2::<F>();
        let first = Index::of::<F>(va, level);
        let want = va.boundaries_to(last, item_lg2);
        let mut at = va.floor(item_lg2);
        for (n, cell) in table.cells(first, want.wrapping_add(1)).iter().enumerate() {
            let raw = cell.read();
            match F::kind(raw, level) {
                Kind::Empty => {}
                Kind::Leaf => {
                    let size_lg2 = item_lg2.wrapping_add(F::contig_lg2(raw, level, params));
                    // At the first of its items, and not again.
                    if at >= walk.from && at.offset(size_lg2) == Bytes(0) {
                        walk.visitor.leaf(Seen {
                            va: at,
                            oa: F::leaf_oa(raw, level, params),
                            size_lg2,
                            attrs: F::leaf_attrs(raw & !F::HW_BITS, level, params),
                        });
                    }
                }
                Kind::Table => {
                    // Do not stop at the first item: the walk must make progress, and the next
                    // walk, from the start of this table, would report the table again.
                    if walk.tables == 0 && at > va {
                        return Some(at);
                    }
                    // Hardware sets nothing in a table item that matters here, and the range is
                    // locked, so this is the item that was read above.
                    if let Some(child) = table.read(first.plus::<F>(n as u64)).child(params) {
                        if at >= walk.from {
                            walk.visitor.table(level.below());
                        }
                        let child_last = at.block_last(item_lg2).min(last);
                        let next = self.walk_table(child, va.max(at), child_last, walk);
                        if next.is_some() {
                            return next;
                        }
                    }
                }
            }
            at = at.plus(Bytes::block(item_lg2));
        }
        None
    }
}
