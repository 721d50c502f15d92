// SPDX-License-Identifier: GPL-2.0-only

//! Unmap a range whose edges may lie inside of leaves, while devices use what is around it.
//!
//! The effect is that of a split and then an unmap, with one flush. A leaf that crosses an edge is
//! replaced as by a split (`split.rs`), but what replaces it leaves the range out: items that lie
//! in the range as a whole are empty from the start, and have no table below. The leaves between
//! the two edges are unmapped (`unmap.rs`).
//!
//! So between any two stores every address outside of the range translates as before, and each
//! address of the range loses its translation at one store. Until the flush a device may use a
//! cached copy of an old leaf for any address of it, in the range too: the flush has the **old**
//! size of each replaced leaf, and what the range was mapped to stays the device's until then.

#![forbid(unsafe_code)]

use crate::fmt::Format;
use crate::gather::Gather;
use crate::mem::PtMem;
use crate::range::Locked;
use crate::split::SplitFlush;
use crate::{
    Bytes,
    Error,
    Pt,
    Result, //
};

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// The number of tables that [`carve`](Self::carve) of this range allocates, 0 if no leaf
    /// crosses an edge.
    ///
    /// The answer holds as long as the range is locked. Its errors are those of `carve` before it
    /// allocates.
    pub fn carve_tables(&self, range: Locked) -> Result<usize> {
        Ok(self.edges(range, true)?.tables)
    }

    /// Removes the translation of `range`. Every address outside of it translates as before, at
    /// every instant between.
    ///
    /// The leaves around the range, their bits and the number of tables are as after a
    /// [`split`](Self::split) and an [`unmap`](Self::unmap) of it. Dirty bits of the range are
    /// lost, those around it are not: what replaces a dirty leaf is dirty.
    ///
    /// What was replaced is in the result, to be flushed at its old size; what lay between is given
    /// to `gather`, with the tables that the range covers, for the same flush. Together the two
    /// ranges have no gap. The lock and the errors are those of `split`; on error nothing has
    /// changed. [`SplitFlush`] ends with [`Error::NotMapped`], too: if something between the edges
    /// was not mapped, and was left as it is from there on.
    pub fn carve<G: Gather<M>>(
        &self,
        range: Locked,
        gather: &mut G,
    ) -> Result<SplitFlush<'t, F, M>> {
        let edges = self.edges(range, true)?;
        let flush = self.plan(&edges)?.commit();
        // The part of the range that no replaced leaf covers.
        let mut from = range.va();
        if edges.first.is_cut() {
            from = edges.first.last().plus(Bytes(1));
        }
        let mut to = range.last();
        let last = edges.last.as_ref().unwrap_or(&edges.first);
        if last.is_cut() {
            to = last.va.before();
        }
        let between = if flush.is_complete() {
            range.part(from, to)
        } else {
            None
        };
        match between {
            Some(between) if self.unmap(between, gather) != between.len() => {
                Ok(flush.failed(Error::NotMapped))
            }
            _ => Ok(flush),
        }
    }
}
