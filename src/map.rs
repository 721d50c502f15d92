// SPDX-License-Identifier: GPL-2.0-only

//! Map a range.

#![forbid(unsafe_code)]

use crate::fmt::{
    Attrs,
    Format,
    Kind,
    Leaves, //
};
use crate::gather::Gather;
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
    Table, //
};
use crate::{
    Error,
    Pt,
    Result, //
};

/// What [`Pt::map`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Bytes mapped from the start of the range, also if an error ended the call early. On error
    /// the caller unmaps these to get back to where it was.
    pub bytes: Bytes,
    /// Whether all of the range is mapped.
    pub result: Result,
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// Translates `range` to the same number of bytes from `oa`, with the largest leaves that
    /// alignment and `pgsize_bitmap` allow.
    ///
    /// Empty tables in the way of a larger leaf are handed to `gather`; if any were, the caller
    /// flushes and frees them before it returns.
    ///
    /// Errors: [`Error::OutOfRange`] (IOVA or OA beyond the table), [`Error::NoPageSize`] (not
    /// aligned to the smallest page), [`Error::Busy`] (something is mapped already), and those of
    /// [`PtMem::alloc`].
    ///
    /// [`map_page`](Self::map_page) is the fast path for one page. This is the slow path; call it
    /// after `map_page` returned `None`.
    #[inline]
    pub fn map<G: Gather<M>>(&self, range: Locked, oa: Oa, attrs: Attrs, gather: &mut G) -> Mapped {
        let mut bytes = Bytes(0);
        let result = self.map_all(range, oa, attrs, gather, &mut bytes);
        Mapped { bytes, result }
    }

    /// The fast path: maps one page of the smallest size, into a table that exists. `None` if it
    /// cannot; then nothing has changed, and [`map`](Self::map) has to do it.
    #[inline(always)]
    pub fn map_page(&self, range: Locked, oa: Oa, attrs: Attrs) -> Option<()> {
        let page = Bytes::block(F::GRANULE_LG2);
        let aligned = size::offset(range.va().0 | oa.0, F::GRANULE_LG2) == 0;
        if range.len() != page || !aligned || self.sizes(Level::LEAF) & page.0 == 0 {
            return None;
        }
        if self.incoherent() || self.check_range(range).is_err() {
            return None;
        }
        self.check_oa(range, oa).ok()?;
        let leaf = F::encode_leaf(oa, F::GRANULE_LG2, Level::LEAF, attrs);
        let table = self.descend(range.va()).continue_value()?;
        let item = table.read_at(range.va());
        (item.kind() == Kind::Empty).then(|| item.cell().set(leaf))
    }

    fn map_all<G: Gather<M>>(
        &self,
        range: Locked,
        oa: Oa,
        attrs: Attrs,
        gather: &mut G,
        bytes: &mut Bytes,
    ) -> Result {
        self.check_oa(range, oa)?;
        let mut pt = *self;
        let mut va = range.va();
        loop {
            let oa = oa.plus(va.since(range.va()));
            // At most as long as the OA space: does not wrap.
            let len = va.through(range.last());
            let run = best_run(self.cfg.pgsize_bitmap, va, len, oa).ok_or(Error::NoPageSize)?;
            let level = Level::of_size::<F>(run.size_lg2);
            pt = pt.reach(range, level)?;
            pt.map_run(va, oa, run, attrs, gather, bytes)?;
            va = va.plus(run.bytes);
            if va.before() == range.last() {
                return Ok(());
            }
        }
    }

    #[inline]
    fn check_oa(&self, range: Locked, oa: Oa) -> Result {
        let oa_last = oa.0.checked_add(range.last().since(range.va()).0);
        match oa_last {
            Some(last) if last <= size::max_offset(self.cfg.max_oa_lg2) => Ok(()),
            _ => Err(Error::OutOfRange),
        }
    }

    /// Installs leaves of one size.
    #[inline]
    fn map_run<G: Gather<M>>(
        &self,
        mut va: Iova,
        mut oa: Oa,
        run: Run,
        attrs: Attrs,
        gather: &mut G,
        bytes: &mut Bytes,
    ) -> Result {
        let level = Level::of_size::<F>(run.size_lg2);
        if level > self.top.level() {
            return Err(Error::OutOfRange);
        }
        let mut left = run.bytes;
        while left != Bytes(0) {
            let table = self.table_for_map(va, level)?;
            let room = Index::of::<F>(va, level).room::<F>();
            let part = Run {
                bytes: left.min(Bytes::blocks(room, table.item_lg2())),
                ..run
            };
            let (done, result) = self.fill(table, va, oa, part, attrs, gather);
            let done = Bytes::blocks(done, run.size_lg2);
            *bytes = bytes.plus(done);
            result?;
            left = left.minus(done);
            va = va.plus(done);
            oa = oa.plus(done);
        }
        Ok(())
    }

    /// The table of `level` that serves `va`, with all tables on the way to it.
    #[inline]
    fn table_for_map(&self, va: Iova, level: Level) -> Result<Table<'t, F, M>> {
        let mut table = self.top;
        while table.level() > level {
            let item = table.read_at(va);
            match item.kind() {
                Kind::Table => {
                    self.ensure_clean(item);
                    if let Some(child) = item.child(&self.cfg.params) {
                        table = child;
                    }
                }
                Kind::Leaf => return Err(Error::Busy),
                Kind::Empty => {
                    let new = self.new_table(table.level().below())?;
                    // If a concurrent map of a neighbouring range was faster, ours is freed and its
                    // table is read in the next turn.
                    if let Ok(child) = self.publish(item, new) {
                        table = child;
                    }
                }
            }
        }
        Ok(table)
    }

    /// Installs leaves that all lie in one table. Returns how many it did.
    #[inline]
    fn fill<G: Gather<M>>(
        &self,
        table: Table<'t, F, M>,
        va: Iova,
        oa: Oa,
        run: Run,
        attrs: Attrs,
        gather: &mut G,
    ) -> (u64, Result) {
        let level = table.level();
        let group_lg2 = level.contig_lg2::<F>(run.size_lg2);
        let first = Index::of::<F>(va, level);
        let mut leaves = Leaves::new::<F>(oa, run.size_lg2, level, attrs);
        let mut done = 0;
        let mut result = Ok(());
        if group_lg2 == 0 {
            for cell in table.cells(first, run.count()) {
                if F::kind(cell.read(), level) != Kind::Empty {
                    let at = va.plus(Bytes::blocks(done, run.size_lg2));
                    result = self.clear_tables(table, at, 1, gather);
                    if result.is_err() {
                        break;
                    }
                }
                cell.set(leaves.next_item());
                done = done.wrapping_add(1);
            }
        } else {
            while done != run.count() {
                let at = va.plus(Bytes::blocks(done, run.size_lg2));
                let cells = table.cells(Index::of::<F>(at, level), size::pow2(group_lg2));
                let empty = |cell: &M::Cell| F::kind(cell.read(), level) == Kind::Empty;
                if !cells.iter().all(empty) {
                    result = self.clear_tables(table, at, size::pow2(group_lg2), gather);
                    if result.is_err() {
                        break;
                    }
                }
                let item = leaves.next_item();
                for cell in cells {
                    cell.set(item);
                }
                done = done.wrapping_add(1);
            }
        }
        self.clean_items(table, first, size::shl(done, group_lg2));
        (done, result)
    }

    /// Makes room for leaves: takes empty tables out of `items` items from the one at `va` on.
    /// Fails if something is mapped there.
    #[cold]
    fn clear_tables<G: Gather<M>>(
        &self,
        table: Table<'t, F, M>,
        mut va: Iova,
        items: u64,
        gather: &mut G,
    ) -> Result {
        let mut i = 0;
        while i != items {
            let item = table.read_at(va);
            match item.kind() {
                Kind::Empty => {}
                Kind::Leaf => return Err(Error::Busy),
                Kind::Table => {
                    if let Some(child) = item.child(&self.cfg.params) {
                        if self.any_leaf(child) {
                            return Err(Error::Busy);
                        }
                        // Out of the hardware's reach first, then to the gather: it may flush.
                        item.cell().set(0);
                        self.clean_items(table, item.index(), 1);
                        self.gather_tables(child, gather);
                        gather.table(child.raw(), table.level());
                        gather.range(va, Bytes::block(table.item_lg2()));
                    }
                }
            }
            va = va.plus(Bytes::block(table.item_lg2()));
            i = i.wrapping_add(1);
        }
        Ok(())
    }

    fn any_leaf(&self, table: Table<'t, F, M>) -> bool {
        let mut found = false;
        table.for_each(|item| {
            found = found
                || match item.kind() {
                    Kind::Empty => false,
                    Kind::Leaf => true,
                    Kind::Table => item
                        .child(&self.cfg.params)
                        .is_some_and(|child| self.any_leaf(child)),
                }
        });
        found
    }

    /// Hands all tables below `table` to the gather.
    pub(crate) fn gather_tables<G: Gather<M>>(&self, table: Table<'t, F, M>, gather: &mut G) {
        if table.level() == Level::LEAF {
            return;
        }
        table.for_each(|item| {
            if let Some(child) = item.child(&self.cfg.params) {
                self.gather_tables(child, gather);
                gather.table(child.raw(), table.level());
            }
        });
    }
}
