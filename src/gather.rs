// SPDX-License-Identifier: GPL-2.0-only

//! What has to be flushed, and freed after the flush.

#![forbid(unsafe_code)]

use crate::mem::PtMem;
use crate::{
    Bytes,
    Iova,
    Level,
    RawTable, //
};

/// Collects what an operation took away from the hardware's view.
///
/// The environment turns this into `struct iommu_iotlb_gather`. Tables and ranges are handed over
/// first, and the range to flush is named after that. Nothing of it may be reused before the IOTLB
/// and the walk caches are flushed for that range.
pub trait Gather<M: PtMem> {
    /// A table that no table item points to any more. It stays intact (walk caches may still lead
    /// to it) and is freed after the flush. `level` is the level of the item that pointed to it.
    fn table(&mut self, table: RawTable<M>, level: Level);

    /// A leaf of this level was removed.
    fn leaf(&mut self, level: Level);

    /// Names the range of all that was handed over since the last call: `len` from `va` on. May
    /// flush at once.
    fn range(&mut self, va: Iova, len: Bytes);
}
