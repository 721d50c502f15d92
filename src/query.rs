// SPDX-License-Identifier: GPL-2.0-only

//! Look up one address.

#![forbid(unsafe_code)]

use crate::fmt::{Format, Kind};
use crate::mem::PtMem;
use crate::range::Locked;
use crate::table::{Item, Table};
use crate::{Level, Pt};

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Walks to `va`, which must be inside the table's range, and gives `end` the item at which the
    /// walk ends: a leaf, an empty one, or one of level `stop` or of a top that is lower.
    #[inline(always)]
    pub(crate) fn walk<R>(&self, va: u64, stop: Level, end: impl Fn(Item<'t, F, M>) -> R) -> R {
        // The usual tops once each: the level is a constant then in every step, and with it most
        // answers about an item.
        if let Some(top) = self.top.at(Level(3)) {
            return self.walk_from(top, va, stop, end);
        }
        if let Some(top) = self.top.at(Level(2)) {
            return self.walk_from(top, va, stop, end);
        }
        self.walk_from(self.top, va, stop, end)
    }

    #[inline(always)]
    fn walk_from<R>(
        &self,
        mut table: Table<'t, F, M>,
        va: u64,
        stop: Level,
        end: impl Fn(Item<'t, F, M>) -> R,
    ) -> R {
        loop {
            let item = table.read_at(va);
            if table.level() <= stop {
                return end(item);
            }
            match item.child(&self.cfg.params) {
                Some(child) => table = child,
                None => return end(item),
            }
        }
    }

    /// The item of the leaf that translates `va`, which must be inside the table's range.
    #[inline(always)]
    pub(crate) fn find(&self, va: u64) -> Option<Item<'t, F, M>> {
        self.walk_from(self.top, va, Level::LEAF, |item| {
            (item.kind() == Kind::Leaf).then_some(item)
        })
    }

    /// The table of this level that serves `va`, which must be inside the table's range.
    pub(crate) fn find_table(&self, va: u64, level: Level) -> Option<Table<'t, F, M>> {
        let mut table = self.top;
        while table.level() > level {
            table = table.read_at(va).child(&self.cfg.params)?;
        }
        Some(table)
    }

    /// The OA of the first address of `at`, exact to the byte; `None` if it is not mapped.
    #[inline]
    pub fn iova_to_phys(&self, at: Locked) -> Option<u64> {
        self.check_range(at).ok()?;
        self.walk(at.va(), Level::LEAF, |item| {
            (item.kind() == Kind::Leaf).then(|| item.leaf_oa_at(at.va(), &self.cfg.params))
        })
    }
}
