// SPDX-License-Identifier: GPL-2.0-only

//! Intel VT-d second stage: C structs and symbols.

use core::ffi::c_int;

use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::{Features, Prot};
use iotable::{Error, Level};
use kernel::bindings;
use kernel::prelude::*;

use crate::init::{self, Shape};
use crate::ops::{self, KernelFormat};

// SAFETY: `common` is a projection within the one C struct.
unsafe impl KernelFormat for Vtdss {
    #[inline(always)]
    unsafe fn common(iommu: *mut bindings::pt_iommu) -> *mut bindings::pt_common {
        let table: *mut bindings::pt_iommu_vtdss = iommu.cast();
        // SAFETY: `iommu` is the first member of a `struct pt_iommu_vtdss`.
        unsafe { &raw mut (*table).vtdss_pt.common }
    }

    #[cold]
    fn explain_refusal(prot: Prot, features: Features) {
        if features.has(Vtdss::FORCE_WRITEABLE) && !prot.has(Prot::WRITE) {
            // SAFETY: may be called from any context.
            unsafe { bindings::pt_iommu_vtdss_read_only_refused() };
        }
    }
}

const _: () = assert!(core::mem::offset_of!(bindings::pt_iommu_vtdss, iommu) == 0);

/// Initialises a table; see `struct pt_iommu_vtdss_cfg`.
///
/// # Safety
///
/// `table` and `cfg` are valid, and nobody else uses the table.
#[export]
pub(crate) unsafe extern "C" fn pt_iommu_vtdss_init(
    table: *mut bindings::pt_iommu_vtdss,
    cfg: *const bindings::pt_iommu_vtdss_cfg,
    gfp: bindings::gfp_t,
) -> c_int {
    // SAFETY: valid by the safety requirement.
    let cfg = unsafe { &*cfg };
    let shape = || {
        // 3, 4 or 5 levels; the adjusted guest address widths of section 9.6.
        if cfg.top_level < 2 || cfg.top_level > 4 {
            return Err(Error::NotSupported);
        }
        Ok(Shape {
            top_level: Level(cfg.top_level as u8),
            max_vasz_lg2: cfg.common.hw_max_vasz_lg2,
            max_oasz_lg2: cfg.common.hw_max_oasz_lg2,
        })
    };
    // SAFETY: `pt_iommu_vtdss` is the table struct of this format.
    unsafe { init::init::<Vtdss, _>(table, &cfg.common, gfp, shape) }
}

/// What the driver writes into the context or PASID entry.
///
/// # Safety
///
/// `table` is initialised, `info` is valid for writes.
#[export]
pub(crate) unsafe extern "C" fn pt_iommu_vtdss_hw_info(
    table: *mut bindings::pt_iommu_vtdss,
    info: *mut bindings::pt_iommu_vtdss_hw_info,
) {
    let iommu: *mut bindings::pt_iommu = table.cast();
    // SAFETY: by the safety requirement.
    let (oa, level) = unsafe { ops::top::<Vtdss>(iommu) };
    // SAFETY: as above. A 3-level table has AW 1.
    unsafe {
        (*info).ssptptr = oa;
        (*info).aw = level.0 - 1;
    }
}

/// See [`ops::iova_to_phys`].
///
/// # Safety
///
/// As there.
#[export]
pub(crate) unsafe extern "C" fn pt_iommu_vtdss_iova_to_phys(
    domain: *mut bindings::iommu_domain,
    iova: bindings::dma_addr_t,
) -> bindings::phys_addr_t {
    // SAFETY: by the safety requirement.
    unsafe { ops::iova_to_phys::<Vtdss>(domain, iova) }
}

/// See [`ops::read_and_clear_dirty`].
///
/// # Safety
///
/// As there.
#[export]
pub(crate) unsafe extern "C" fn pt_iommu_vtdss_read_and_clear_dirty(
    domain: *mut bindings::iommu_domain,
    iova: usize,
    size: usize,
    flags: usize,
    dirty: *mut bindings::iommu_dirty_bitmap,
) -> c_int {
    // SAFETY: by the safety requirement.
    unsafe { ops::read_and_clear_dirty::<Vtdss>(domain, iova, size, flags, dirty) }
}
