// SPDX-License-Identifier: GPL-2.0-only

//! x86-64 tables (VT-d first stage, AMD v2): C structs and symbols.

use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{
    Features,
    Format, //
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
unsafe impl KernelFormat for X86_64 {
    const ENCRYPTED: Option<Features> = Some(X86_64::AMD_ENCRYPT_TABLES);

    #[inline(always)]
    unsafe fn common(iommu: *mut bindings::pt_iommu) -> *mut bindings::pt_common {
        let table: *mut bindings::pt_iommu_x86_64 = iommu.cast();
        // SAFETY: `iommu` is the first member of a `struct pt_iommu_x86_64`.
        unsafe { &raw mut (*table).x86_64_pt.common }
    }
}

fn shape(cfg: &bindings::pt_iommu_x86_64_cfg, _features: Features) -> iotable::Result<Shape> {
    if cfg.top_level < 3 || cfg.top_level > 4 {
        return Err(Error::NotSupported);
    }
    Ok(Shape {
        top_level: Level(cfg.top_level as u8),
        max_vasz_lg2: cfg.common.hw_max_vasz_lg2,
        max_oasz_lg2: cfg.common.hw_max_oasz_lg2.min(X86_64::MAX_OA_LG2 as u8),
    })
}

format_symbols!(x86_64, X86_64, pt_iommu_x86_64, pt_iommu_x86_64_cfg, shape);
fn hw_info(info: &mut bindings::pt_iommu_x86_64_hw_info, oa: u64, level: Level) {
    info.gcr3_pt = oa;
    info.levels = level.0 + 1;
}

format_hw_info!(
    x86_64,
    X86_64,
    pt_iommu_x86_64,
    pt_iommu_x86_64_hw_info,
    hw_info
);
