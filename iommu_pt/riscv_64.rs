// SPDX-License-Identifier: GPL-2.0-only

//! RISC-V Sv39, Sv48 and Sv57: C structs and symbols.

use iotable::fmt::riscv_64::Riscv64;
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
unsafe impl KernelFormat for Riscv64 {
    const FORCED: Features = Features::DETAILED_GATHER;

    #[inline(always)]
    unsafe fn common(iommu: *mut bindings::pt_iommu) -> *mut bindings::pt_common {
        let table: *mut bindings::pt_iommu_riscv_64 = iommu.cast();
        // SAFETY: `iommu` is the first member of a `struct pt_iommu_riscv_64`.
        unsafe { &raw mut (*table).riscv_64pt.common }
    }
}

fn shape(cfg: &bindings::pt_iommu_riscv_64_cfg, _features: Features) -> iotable::Result<Shape> {
    let top_level = match cfg.common.hw_max_vasz_lg2 {
        39 => Level(2),
        48 => Level(3),
        57 => Level(4),
        _ => return Err(Error::Invalid),
    };
    Ok(Shape {
        top_level,
        max_vasz_lg2: cfg.common.hw_max_vasz_lg2,
        max_oasz_lg2: cfg.common.hw_max_oasz_lg2.min(Riscv64::MAX_OA_LG2 as u8),
    })
}

format_symbols!(
    riscv_64,
    Riscv64,
    pt_iommu_riscv_64,
    pt_iommu_riscv_64_cfg,
    shape
);
fn hw_info(info: &mut bindings::pt_iommu_riscv_64_hw_info, oa: u64, level: Level) {
    info.ppn = oa >> 12;
    // iosatp.MODE: 8 is Sv39, 9 is Sv48, 10 is Sv57.
    info.fsc_iosatp_mode = level.0 + 6;
}

format_hw_info!(
    riscv_64,
    Riscv64,
    pt_iommu_riscv_64,
    pt_iommu_riscv_64_hw_info,
    hw_info
);
