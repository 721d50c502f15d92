// SPDX-License-Identifier: GPL-2.0-only

//! Arm SMMUv3, stage 1 and stage 2: C structs and symbols.
//!
//! C has one format, whose granule is a member of its structs. Here each granule is a format, and
//! the symbols choose.

use core::ffi::c_int;

use iotable::fmt::armv8::{
    features as armv8,
    Armv8, //
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

use crate::init::{
    self,
    Shape, //
};
use crate::ops::{
    self,
    Ops, //
};
use crate::view::{
    errno,
    KernelFormat, //
};

type Granule4K = Armv8<12>;
type Granule16K = Armv8<14>;
type Granule64K = Armv8<16>;

/// Calls a function of `ops` for the format that an initialised table has. The granule of a table
/// does not change.
macro_rules! of_granule {
    ($table:ident, $function:ident($($arg:expr),*)) => {
        match (*$table).armpt.tgsz_lg2 {
            12 => ops::$function::<Granule4K>($($arg),*),
            14 => ops::$function::<Granule16K>($($arg),*),
            _ => ops::$function::<Granule64K>($($arg),*),
        }
    };
}

// SAFETY: `common` is a projection within the one C struct.
unsafe impl<const GRANULE_LG2: u32> KernelFormat for Armv8<GRANULE_LG2> {
    const FORCED: Features = Features::DETAILED_GATHER;

    #[inline(always)]
    unsafe fn common(iommu: *mut bindings::pt_iommu) -> *mut bindings::pt_common {
        let table: *mut bindings::pt_iommu_armv8 = iommu.cast();
        // SAFETY: `iommu` is the first member of a `struct pt_iommu_armv8`.
        unsafe { &raw mut (*table).armpt.common }
    }
}

/// `IPS` of a context descriptor, `S2PS` of a stream table entry: the size of the OA.
fn physical_size(oa_lg2: u8) -> iotable::Result<u8> {
    match oa_lg2 {
        32 => Ok(0),
        36 => Ok(1),
        40 => Ok(2),
        42 => Ok(3),
        44 => Ok(4),
        48 => Ok(5),
        _ => Err(Error::NotSupported),
    }
}

/// The highest level at which a walk of stage 2 may start (DDI 0487, table "Implications of the
/// effective minimum T0SZ value on the initial stage 2 lookup level"). What lies above it would
/// take several tables of that level side by side, which are not served.
fn highest_stage2_top<F: Format>(oa_lg2: u8) -> Level {
    match (F::GRANULE_LG2, oa_lg2) {
        (12, 44..) => Level(3),
        (12, _) => Level(2),
        (14, 42..) | (16, 44..) => Level(2),
        _ => Level(1),
    }
}

fn shape<F: Format>(
    cfg: &bindings::pt_iommu_armv8_cfg,
    features: Features,
) -> iotable::Result<Shape> {
    let (va_lg2, oa_lg2) = (cfg.common.hw_max_vasz_lg2, cfg.common.hw_max_oasz_lg2);
    let stage2 = features.has(armv8::S2);
    if features.has(armv8::S2FWB) && !stage2 {
        return Err(Error::Invalid);
    }
    physical_size(oa_lg2)?;
    // As few levels as serve the space.
    let levels = match u32::from(va_lg2).checked_sub(F::GRANULE_LG2) {
        Some(bits @ 1..) => bits.div_ceil(F::ITEMS_LG2),
        _ => return Err(Error::Invalid),
    };
    let top_level = Level(levels.wrapping_sub(1) as u8);
    if stage2 {
        // With a granule of 4K a walk of one level takes small translation tables (STT), which the
        // driver does not ask for.
        let lowest = if F::GRANULE_LG2 == 12 { 1 } else { 0 };
        if top_level > highest_stage2_top::<F>(oa_lg2) || top_level < Level(lowest) {
            return Err(Error::NotSupported);
        }
    }
    Ok(Shape {
        top_level,
        max_vasz_lg2: va_lg2,
        max_oasz_lg2: oa_lg2,
    })
}

/// Initialises a table.
///
/// # Safety
///
/// `table` and `cfg` are valid, and nobody else uses the table.
#[kernel::prelude::export]
pub(crate) unsafe extern "C" fn pt_iommu_armv8_init(
    table: *mut bindings::pt_iommu_armv8,
    cfg: *const bindings::pt_iommu_armv8_cfg,
    gfp: bindings::gfp_t,
) -> c_int {
    // SAFETY: The caller gives a valid configuration, and does not change it meanwhile.
    let cfg = unsafe { &*cfg };
    // SAFETY: What `init_granule` asks for is all that this function does, with the same arguments.
    unsafe {
        match cfg.tgsz_lg2 {
            12 => init_granule::<Granule4K>(table, cfg, gfp),
            14 => init_granule::<Granule16K>(table, cfg, gfp),
            16 => init_granule::<Granule64K>(table, cfg, gfp),
            _ => errno(Error::NotSupported),
        }
    }
}

/// # Safety
///
/// As for [`pt_iommu_armv8_init`].
unsafe fn init_granule<F: KernelFormat>(
    table: *mut bindings::pt_iommu_armv8,
    cfg: &bindings::pt_iommu_armv8_cfg,
    gfp: bindings::gfp_t,
) -> c_int {
    // SAFETY: The caller gives a valid table that nobody else uses, and `struct pt_iommu_armv8` is
    // the table struct of these formats; it starts with its `struct pt_iommu`.
    let ret = unsafe {
        init::init::<F, _>(table, &cfg.common, gfp, |features| {
            shape::<F>(cfg, features)
        })
    };
    // SAFETY: The caller gives a valid table that nobody else knows yet.
    unsafe { (*table).armpt.tgsz_lg2 = F::GRANULE_LG2 as u8 };
    ret
}

const _: () = assert!(core::mem::offset_of!(bindings::pt_iommu_armv8, iommu) == 0);

/// Whether tables of this format have `split_range`, for drivers that have no table yet. All
/// granules have the same answer. Whether the SMMUs allow it (BBML 2) is the driver's to say.
///
/// # Safety
///
/// No requirements. It is unsafe only because bindgen declares all C functions so.
#[kernel::prelude::export]
pub(crate) unsafe extern "C" fn pt_iommu_armv8_can_split() -> bool {
    const {
        let all = [
            iotable::can_split::<Granule4K>(),
            iotable::can_split::<Granule16K>(),
            iotable::can_split::<Granule64K>(),
        ];
        assert!(all[0] == all[1] && all[1] == all[2]);
    }
    Ops::<Granule4K>::TABLE.split_range.is_some()
}

/// See [`iova_to_phys`](crate::ops::iova_to_phys).
///
/// # Safety
///
/// `domain` is part of an initialised table of this format; the caller holds a range lock that
/// includes `iova`.
#[kernel::prelude::export]
pub(crate) unsafe extern "C" fn pt_iommu_armv8_iova_to_phys(
    domain: *mut bindings::iommu_domain,
    iova: bindings::dma_addr_t,
) -> bindings::phys_addr_t {
    let table: *mut bindings::pt_iommu_armv8 = domain.cast();
    // SAFETY: The caller gives a table of this format, which starts with its domain, and holds the
    // lock.
    unsafe { of_granule!(table, iova_to_phys(domain, iova)) }
}

/// See [`read_and_clear_dirty`](crate::ops::read_and_clear_dirty). No granule has dirty tracking
/// yet.
///
/// # Safety
///
/// `domain` is part of an initialised table of this format, `dirty` is valid, and the caller holds
/// a read range lock over the range.
#[kernel::prelude::export]
pub(crate) unsafe extern "C" fn pt_iommu_armv8_read_and_clear_dirty(
    domain: *mut bindings::iommu_domain,
    iova: usize,
    size: usize,
    flags: usize,
    dirty: *mut bindings::iommu_dirty_bitmap,
) -> c_int {
    let table: *mut bindings::pt_iommu_armv8 = domain.cast();
    // SAFETY: The caller gives a table of this format, which starts with its domain, and a valid
    // `dirty`, and holds the lock.
    unsafe {
        of_granule!(
            table,
            read_and_clear_dirty(domain, iova, size, flags, dirty)
        )
    }
}

/// What the driver tells the hardware about the table.
///
/// # Safety
///
/// `table` is initialised, `info` is valid for writes.
#[kernel::prelude::export]
pub(crate) unsafe extern "C" fn pt_iommu_armv8_hw_info(
    table: *mut bindings::pt_iommu_armv8,
    info: *mut bindings::pt_iommu_armv8_hw_info,
) {
    // SAFETY: The caller gives an initialised table, which starts with its `struct pt_iommu`.
    let (oa, top) = unsafe { of_granule!(table, top(table.cast())) };
    // SAFETY: The table is initialised, and these members do not change after that.
    let (granule, common) = unsafe { ((*table).armpt.tgsz_lg2, &(*table).armpt.common) };
    // SAFETY: The caller gives a valid `info`, which nobody else uses meanwhile.
    let info = unsafe { &mut *info };

    let features = Features(common.features);
    info.ttb = oa;
    // T0SZ, S2T0SZ.
    info.tsz = 64u8.wrapping_sub(common.max_vasz_lg2);
    // TG0, S2TG.
    info.tg = match granule {
        12 => 0,
        14 => 2,
        _ => 1,
    };
    // Init has checked it.
    info.ps = physical_size(common.max_oasz_lg2).unwrap_or(0);
    // Walks are inner shareable, write-back and write-allocate; or outer shareable, not cached.
    (info.sh, info.irgn, info.orgn) = if features.has(Features::DMA_INCOHERENT) {
        (2, 0, 0)
    } else {
        (3, 1, 1)
    };
    if features.has(armv8::S2) {
        // S2SL0: with 4K, 0 is a walk of two levels.
        info.s2.sl0 = top.0.wrapping_sub(u8::from(granule == 12));
    } else {
        // Attribute 0 is normal memory, not cached; 1 write-back, read and write allocate; 2 a
        // device; 3 write-back in the outer domain only. The numbers are those that leaves have.
        info.s1.mair = 0xf4_04_ff_44;
    }
}
