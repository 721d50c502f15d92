// SPDX-License-Identifier: GPL-2.0-only

//! Intel VT-d second stage: C structs and symbols.

use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::{
    Features,
    Prot, //
};
use iotable::{
    Error,
    Level, //
};
use kernel::bindings;

use crate::init::Shape;
use crate::symbols::{
    format_hw_info,
    format_symbols, //
};
use crate::view::KernelFormat;

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
            // SAFETY: It may be called from any context.
            unsafe { bindings::pt_iommu_vtdss_read_only_refused() };
        }
    }
}

fn shape(cfg: &bindings::pt_iommu_vtdss_cfg, _features: Features) -> iotable::Result<Shape> {
    // 3, 4 or 5 levels; the adjusted guest address widths of section 9.6.
    if cfg.top_level < 2 || cfg.top_level > 4 {
        return Err(Error::NotSupported);
    }
    Ok(Shape {
        top_level: Level(cfg.top_level as u8),
        max_vasz_lg2: cfg.common.hw_max_vasz_lg2,
        max_oasz_lg2: cfg.common.hw_max_oasz_lg2,
    })
}

format_symbols!(vtdss, Vtdss, pt_iommu_vtdss, pt_iommu_vtdss_cfg, shape);
fn hw_info(info: &mut bindings::pt_iommu_vtdss_hw_info, oa: u64, level: Level) {
    // A table of 3 levels has AW 1.
    info.ssptptr = oa;
    info.aw = level.0.wrapping_sub(1);
}

format_hw_info!(
    vtdss,
    Vtdss,
    pt_iommu_vtdss,
    pt_iommu_vtdss_hw_info,
    hw_info
);
