// SPDX-License-Identifier: GPL-2.0-only

//! Look up one address.

#![forbid(unsafe_code)]

use crate::fmt::{Format, Kind};
use crate::mem::PtMem;
use crate::range::Locked;
use crate::table::{Item, Table};
use crate::{Level, Pt};

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// The item of the leaf that translates `va`, which must be inside the table's range.
    #[inline(always)]
    pub(crate) fn find(&self, va: u64) -> Option<Item<'t, F, M>> {
        let mut table = self.top;
        loop {
            let item = table.read_at(va);
            match item.kind() {
                Kind::Empty => return None,
                Kind::Leaf => return Some(item),
                Kind::Table => table = item.child(&self.cfg.params)?,
            }
        }
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
        let item = self.find(at.va())?;
        Some(item.leaf_oa_at(at.va(), &self.cfg.params))
    }
}
