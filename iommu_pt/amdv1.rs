// SPDX-License-Identifier: GPL-2.0-only

//! AMD v1 tables, and their 2K variant for iommufd's selftest: C structs and symbols.

use iotable::fmt::amdv1::{
    features,
    Amdv1, //
};
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
#[cfg(CONFIG_IOMMU_PT_RUST_AMDV1)]
use crate::symbols::format_hw_info;
use crate::symbols::format_symbols;
use crate::view::KernelFormat;

// SAFETY: `common` is a projection within the one C struct, which both variants use.
unsafe impl<const MOCK: bool> KernelFormat for Amdv1<MOCK> {
    const FORCED: Features = if MOCK {
        Features(0)
    } else {
        Features::DYNAMIC_TOP
            .with(features::ENCRYPT_TABLES)
            .with(features::FORCE_COHERENCE)
    };
    const ENCRYPTED: Option<Features> = Some(features::ENCRYPT_TABLES);

    #[inline(always)]
    unsafe fn common(iommu: *mut bindings::pt_iommu) -> *mut bindings::pt_common {
        let table: *mut bindings::pt_iommu_amdv1 = iommu.cast();
        // SAFETY: `iommu` is the first member of a `struct pt_iommu_amdv1`.
        unsafe { &raw mut (*table).amdpt.common }
    }
}

fn shape<const MOCK: bool>(
    cfg: &bindings::pt_iommu_amdv1_cfg,
    features: Features,
) -> iotable::Result<Shape> {
    let level = Level(cfg.starting_level as u8);
    let highest = Amdv1::<MOCK>::MAX_TOP_LEVEL;
    if cfg.starting_level == 0 || cfg.starting_level > u32::from(highest.0) {
        return Err(Error::Invalid);
    }
    let mut va_lg2 = Amdv1::<MOCK>::MAX_VA_LG2;
    if !features.has(Features::DYNAMIC_TOP) && level != highest {
        va_lg2 = level.above().item_lg2::<Amdv1<MOCK>>();
    }
    Ok(Shape {
        top_level: level,
        max_vasz_lg2: cfg.common.hw_max_vasz_lg2.min(va_lg2 as u8),
        max_oasz_lg2: cfg
            .common
            .hw_max_oasz_lg2
            .min(Amdv1::<MOCK>::MAX_OA_LG2 as u8),
    })
}

#[cfg(CONFIG_IOMMU_PT_RUST_AMDV1)]
format_symbols!(
    amdv1,
    Amdv1<false>,
    pt_iommu_amdv1,
    pt_iommu_amdv1_cfg,
    shape::<false>
);
#[cfg(CONFIG_IOMMU_PT_RUST_AMDV1)]
fn hw_info(info: &mut bindings::pt_iommu_amdv1_hw_info, oa: u64, level: Level) {
    info.host_pt_root = oa;
    info.mode = level.0 + 1;
}

#[cfg(CONFIG_IOMMU_PT_RUST_AMDV1)]
format_hw_info!(
    amdv1,
    Amdv1<false>,
    pt_iommu_amdv1,
    pt_iommu_amdv1_hw_info,
    hw_info
);

#[cfg(CONFIG_IOMMU_PT_RUST_AMDV1_MOCK)]
format_symbols!(
    amdv1_mock,
    Amdv1<true>,
    pt_iommu_amdv1,
    pt_iommu_amdv1_cfg,
    shape::<true>
);
