// SPDX-License-Identifier: GPL-2.0-only

//! Look up one address.

#![forbid(unsafe_code)]

use core::ops::ControlFlow;

use crate::fmt::{
    Format,
    Kind, //
};
use crate::mem::PtMem;
use crate::range::Locked;
use crate::table::{
    Item,
    Table, //
};
use crate::{
    Iova,
    Level,
    Oa,
    Pt, //
};

/// Where a walk is: in a table, or at its end with the OA that it has found, if any.
type Walk<'t, F, M> = ControlFlow<Option<Oa>, Table<'t, F, M>>;

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Walks to `va`, which must be inside the table's range: to the table of the lowest level, or
    /// to an end above it.
    ///
    /// Without a loop: so the level is a constant in each step, and most questions about an item
    /// are answered when it is compiled.
    #[inline(always)]
    pub(crate) fn descend(&self, va: Iova) -> Walk<'t, F, M> {
        const { assert!(F::MAX_TOP_LEVEL.0 <= 5) };
        let table = self.step(self.top, 5, va)?;
        let table = self.step(table, 4, va)?;
        let table = self.step(table, 3, va)?;
        let table = self.step(table, 2, va)?;
        self.lowest(table, va)
    }

    /// The end of [`descend`](Self::descend), from a table of level 1 or 0.
    #[inline(always)]
    fn lowest(&self, table: Table<'t, F, M>, va: Iova) -> Walk<'t, F, M> {
        match self.step(table, 1, va)?.at(Level::LEAF) {
            Some(table) => ControlFlow::Continue(table),
            // No top is above the highest level.
            None => ControlFlow::Break(None),
        }
    }

    /// One step down from a table of this level; none from one of another.
    #[inline(always)]
    fn step(&self, table: Table<'t, F, M>, level: u8, va: Iova) -> Walk<'t, F, M> {
        match table.at(Level(level)) {
            Some(table) if table.level() <= F::MAX_TOP_LEVEL => {
                let item = table.read_at(va);
                match item.kind() {
                    Kind::Empty => ControlFlow::Break(None),
                    Kind::Leaf => ControlFlow::Break(Some(item.leaf_oa_at(va, &self.cfg.params))),
                    Kind::Table => item
                        .child(&self.cfg.params)
                        .map_or(ControlFlow::Break(None), ControlFlow::Continue),
                }
            }
            _ => ControlFlow::Continue(table),
        }
    }

    /// The item of the leaf that translates `va`, which must be inside the table's range.
    #[inline(always)]
    pub(crate) fn find(&self, va: Iova) -> Option<Item<'t, F, M>> {
        let mut table = self.top;
        loop {
            let item = table.read_at(va);
            match item.child(&self.cfg.params) {
                Some(child) => table = child,
                None => return (item.kind() == Kind::Leaf).then_some(item),
            }
        }
    }

    /// The OA of the first address of `at`, exact to the byte; `None` if it is not mapped.
    #[inline]
    pub fn iova_to_phys(&self, at: Locked) -> Option<Oa> {
        self.check_range(at).ok()?;
        let va = at.va();
        // Rare top levels are handled apart. So few levels remain in most formats that comparisons
        // are cheaper than a jump table.
        let end = if self.top.level() >= Level(2) {
            self.descend(va)
        } else {
            self.lowest(self.top, va)
        };
        match end {
            ControlFlow::Continue(table) => {
                let item = table.read_at(va);
                (item.kind() == Kind::Leaf).then(|| item.leaf_oa_at(va, &self.cfg.params))
            }
            ControlFlow::Break(oa) => oa,
        }
    }
}
