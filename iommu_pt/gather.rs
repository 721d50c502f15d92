// SPDX-License-Identifier: GPL-2.0-only

//! From what an operation removed to `struct iommu_iotlb_gather`.

use core::mem::MaybeUninit;

use iotable::fmt::Features;
use iotable::gather::Gather;
use iotable::{Level, RawTable};
use kernel::bindings;

use crate::mem::KernelMem;

/// What `KernelGather` needs on the stack: a list head must not move once it is in use.
pub(crate) struct GatherSpace {
    list: MaybeUninit<bindings::iommu_pages_list>,
    own: MaybeUninit<bindings::iommu_iotlb_gather>,
}

impl GatherSpace {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        GatherSpace {
            list: MaybeUninit::uninit(),
            own: MaybeUninit::uninit(),
        }
    }
}

/// Gathers for one call of an op.
///
/// Tables are collected on a list of their own and only handed over together with the range that
/// covers them: what is on the iotlb gather's list may be freed by the flush of an earlier range.
///
/// # Invariants
///
/// 1. `list` is initialised if `started`, and so is `iotlb` if `owned`.
/// 2. `iotlb` is valid for the life of the value.
pub(crate) struct KernelGather<'a> {
    iommu: *mut bindings::pt_iommu,
    features: Features,
    iotlb: *mut bindings::iommu_iotlb_gather,
    list: &'a mut MaybeUninit<bindings::iommu_pages_list>,
    owned: bool,
    started: bool,
    leaf_levels: u8,
    table_levels: u8,
}

impl<'a> KernelGather<'a> {
    /// Gathers into the caller's `iotlb`.
    ///
    /// # Safety
    ///
    /// `iommu` and `iotlb` are valid and initialised for the life of the value.
    #[inline(always)]
    pub(crate) unsafe fn new(
        iommu: *mut bindings::pt_iommu,
        features: Features,
        iotlb: *mut bindings::iommu_iotlb_gather,
        space: &'a mut GatherSpace,
    ) -> Self {
        KernelGather {
            iommu,
            features,
            iotlb,
            list: &mut space.list,
            owned: false,
            started: false,
            leaf_levels: 0,
            table_levels: 0,
        }
    }

    /// Gathers into a gather of its own, for an op that has none: see [`sync_own`](Self::sync_own).
    ///
    /// # Safety
    ///
    /// `iommu` is valid and initialised for the life of the value.
    #[inline(always)]
    pub(crate) unsafe fn new_owned(
        iommu: *mut bindings::pt_iommu,
        features: Features,
        space: &'a mut GatherSpace,
    ) -> Self {
        KernelGather {
            iommu,
            features,
            iotlb: space.own.as_mut_ptr(),
            list: &mut space.list,
            owned: true,
            started: false,
            leaf_levels: 0,
            table_levels: 0,
        }
    }

    /// Flushes and frees what an owned gather collected, if anything.
    #[inline(always)]
    pub(crate) fn sync_own(self) {
        if self.owned && self.started {
            // SAFETY: both valid and initialised by the type's invariants.
            unsafe { bindings::iommu_iotlb_sync(&raw mut (*self.iommu).domain, self.iotlb) };
        }
    }

    /// Hands over the range, and the tables on the list with it.
    fn range_with_tables(&mut self, va: u64, len: u64) {
        if self.owned && !self.started {
            self.start();
        }
        if self.started && self.features.has(Features::DMA_INCOHERENT) {
            // SAFETY: the list is initialised; the device is the one the tables were made for.
            unsafe {
                bindings::iommu_pages_stop_incoherent_list(
                    self.list.as_mut_ptr(),
                    (*self.iommu).iommu_device,
                )
            };
        }
        self.gather_range(va, len);
        if self.started {
            // SAFETY: both lists are initialised; ours is made empty again.
            unsafe {
                bindings::iommu_pages_list_splice(
                    self.list.as_mut_ptr(),
                    &raw mut (*self.iotlb).freelist,
                );
                bindings::INIT_LIST_HEAD(&raw mut (*self.list.as_mut_ptr()).pages);
            }
        }
    }

    #[inline(always)]
    fn gather_range(&mut self, va: u64, len: u64) {
        // SAFETY: valid and initialised by the invariants.
        let queued = unsafe { (*self.iotlb).queued };
        // With a flush queue everything is flushed later anyhow.
        if !queued {
            // SAFETY: as above. The sync frees what was gathered for earlier ranges only.
            unsafe {
                if self.features.has(Features::FLUSH_RANGE_NO_GAPS)
                    && bindings::iommu_iotlb_gather_is_disjoint(
                        self.iotlb,
                        va as usize,
                        len as usize,
                    )
                {
                    bindings::iommu_iotlb_sync(&raw mut (*self.iommu).domain, self.iotlb);
                }
                add_range(self.iotlb, va, len);
            }
        }
        if self.features.has(Features::DETAILED_GATHER) {
            // SAFETY: valid; every bit pattern is valid for these fields.
            unsafe {
                let pt = &mut (*self.iotlb).__bindgen_anon_1.pt;
                pt.leaf_levels_bitmap |= self.leaf_levels;
                pt.table_levels_bitmap |= self.table_levels;
            }
            self.leaf_levels = 0;
            self.table_levels = 0;
        }
    }

    #[cold]
    fn start(&mut self) {
        // INVARIANT: 1: both are initialised in place, and do not move while borrowed.
        // SAFETY: valid for writes; the list head is not in use.
        unsafe {
            bindings::INIT_LIST_HEAD(&raw mut (*self.list.as_mut_ptr()).pages);
            if self.owned {
                bindings::iommu_iotlb_gather_init(self.iotlb);
            }
        }
        self.started = true;
    }
}

/// Adds `len` bytes from `va` to a gather: `iommu_iotlb_gather_add_range()`, inlined.
///
/// # Safety
///
/// `iotlb` is valid and nobody else uses it.
#[inline(always)]
pub(crate) unsafe fn add_range(iotlb: *mut bindings::iommu_iotlb_gather, va: u64, len: u64) {
    // SAFETY: by the safety requirement.
    let iotlb = unsafe { &mut *iotlb };
    let (start, end) = (va as usize, va.wrapping_add(len).wrapping_sub(1) as usize);
    iotlb.start = iotlb.start.min(start);
    iotlb.end = iotlb.end.max(end);
}

/// The bit of a level in the bitmaps of `iommu_iotlb_gather`.
#[inline(always)]
pub(crate) fn level_bit(level: Level) -> u8 {
    1u8.wrapping_shl(level.0.into())
}

impl Gather<KernelMem> for KernelGather<'_> {
    fn table(&mut self, table: RawTable<KernelMem>, level: Level) {
        if !self.started {
            self.start();
        }
        // SAFETY: the list is initialised; the table is on no list.
        unsafe {
            bindings::iommu_pages_list_add(self.list.as_mut_ptr(), table.ptr().as_ptr().cast())
        };
        self.table_levels |= level_bit(level);
    }

    #[inline(always)]
    fn leaf(&mut self, level: Level) {
        self.leaf_levels |= level_bit(level);
    }

    #[inline(always)]
    fn range(&mut self, va: u64, len: u64) {
        if self.owned || self.started {
            return self.range_with_tables(va, len);
        }
        self.gather_range(va, len);
    }
}
