// SPDX-License-Identifier: GPL-2.0-only

//! Init of a table.

use core::ffi::c_int;

use iotable::fmt::Features;
use iotable::mem::PtMem;
use iotable::{
    Config,
    Error,
    Level, //
};
use kernel::bindings;
use pin_init::Zeroable;

use crate::mem::{
    is_in_linear_map,
    top_word, //
};
use crate::ops::Ops;
use crate::view::{
    self,
    errno_of,
    page_sizes,
    params,
    KernelFormat,
    Tables, //
};

/// What a format derives from its driver's configuration.
pub(crate) struct Shape {
    /// Level of the first top table.
    pub(crate) top_level: Level,
    /// log2 of the IOVA space.
    pub(crate) max_vasz_lg2: u8,
    /// log2 of the OA space.
    pub(crate) max_oasz_lg2: u8,
}

/// `pt_iommu_<fmt>_init`. `shape` checks the format's own part of the configuration; it is told the
/// features that the table will have.
///
/// # Safety
///
/// `table` is valid for writes of `T`, the table struct of format `F`, which starts with a
/// `struct pt_iommu`; nobody else uses it. The driver has set the members that it owns.
pub(crate) unsafe fn init<F: KernelFormat, T: Zeroable>(
    table: *mut T,
    cfg: &bindings::pt_iommu_cfg,
    gfp: bindings::gfp_t,
    shape: impl FnOnce(Features) -> iotable::Result<Shape>,
) -> c_int {
    // SAFETY: What this function asks for is all that `try_init` does, with the same arguments.
    errno_of(unsafe { try_init::<F, T>(table, cfg, gfp, shape) })
}

/// # Safety
///
/// As for [`init`].
unsafe fn try_init<F: KernelFormat, T: Zeroable>(
    table: *mut T,
    cfg: &bindings::pt_iommu_cfg,
    gfp: bindings::gfp_t,
    shape: impl FnOnce(Features) -> iotable::Result<Shape>,
) -> iotable::Result {
    let (va_lg2, oa_lg2) = (cfg.hw_max_vasz_lg2, cfg.hw_max_oasz_lg2);
    if va_lg2 == 0 || u32::from(va_lg2) > F::MAX_VA_LG2 || oa_lg2 == 0 {
        return Err(Error::Invalid);
    }
    // SAFETY: `table` is the caller's to write, and only what the driver owns is set.
    unsafe { zero::<T>(table) };
    let iommu: *mut bindings::pt_iommu = table.cast();
    // SAFETY: `table` is this format's struct, of which nobody else uses anything, and was zeroed:
    // a valid `pt_common`.
    let common = unsafe { &mut *F::common(iommu) };

    common.features = cfg.features;
    if cfg!(CONFIG_DEBUG_GENERIC_PT) {
        // The KUnit suites ask for more features than any format has. As in the C formats, those
        // that a format lacks are left out, and those that it always has are added.
        common.features = common.features & F::FEATURES.0 | F::FORCED.0;
    }
    let shape = shape(params::<F>(common.features).features)?;
    common.max_vasz_lg2 = shape.max_vasz_lg2;
    common.max_oasz_lg2 = shape.max_oasz_lg2;
    common.top_of_table = usize::from(shape.top_level.0);
    if u32::from(oa_lg2) > F::MAX_OA_LG2 {
        return Err(Error::Invalid);
    }
    check::<F>(common, shape.top_level)?;

    let features = Features(common.features);
    // SAFETY: The struct was zeroed but for what the driver set, so it is valid, and nobody else
    // uses it. `common` is another part of the table struct.
    let iommu_ref = unsafe { &mut *iommu };
    if features.has(Features::DYNAMIC_TOP) {
        // SAFETY: The pointer is the driver's: null, or to its ops, which are constant.
        let ops = unsafe { iommu_ref.driver_ops.as_ref() };
        if kernel::warn_on!(
            !ops.is_some_and(|ops| ops.change_top.is_some() && ops.get_top_lock.is_some())
        ) {
            return Err(Error::Invalid);
        }
    }
    if kernel::warn_on!(features.has(Features::DMA_INCOHERENT) && iommu_ref.iommu_device.is_null())
    {
        return Err(Error::Invalid);
    }

    let domain = &mut iommu_ref.domain;
    domain.type_ = bindings::__IOMMU_DOMAIN_PAGING;
    domain.pgsize_bitmap = page_sizes::<F>(common) as usize;
    domain.is_iommupt = true;
    let geometry = Config {
        params: params::<F>(common.features),
        max_va_lg2: u32::from(common.max_vasz_lg2),
        max_oa_lg2: u32::from(common.max_oasz_lg2),
        pgsize_bitmap: 0,
    };
    let (start, last) = geometry.aperture();
    domain.geometry.aperture_start = start.0;
    domain.geometry.aperture_end = last.0;
    domain.geometry.force_aperture = true;

    // SAFETY: `table` is this format's struct, and all of it is set but the top and the ops.
    let mem = unsafe { view::env::<F>(iommu, Tables::New(gfp)) };
    let top = mem.alloc(F::ITEMS_LG2 + 3)?;
    if kernel::warn_on!(!is_in_linear_map(top)) {
        // SAFETY: The table was allocated a moment ago, and nobody else knows it.
        unsafe { mem.free(top) };
        return Err(Error::NotSupported);
    }
    // SAFETY: `mem.common` is the valid `pt_common` of this table, which nobody reads yet.
    unsafe { (*mem.common).top_of_table = top_word(top, shape.top_level) };

    // Must be last, see pt_iommu_deinit().
    iommu_ref.ops = &Ops::<F>::TABLE;
    Ok(())
}

/// Whether the table that was asked for is one that the format can be.
fn check<F: KernelFormat>(common: &mut bindings::pt_common, top: Level) -> iotable::Result {
    if top > F::MAX_TOP_LEVEL {
        return Err(Error::Invalid);
    }
    if common.max_vasz_lg2 == 64 {
        common.features |= Features::FULL_VA.0;
    }
    let features = Features(common.features);
    if !F::FEATURES.has(features) || (!cfg!(CONFIG_DEBUG_GENERIC_PT) && !features.has(F::FORCED)) {
        return Err(Error::NotSupported);
    }
    // Is the top table large enough?
    if !features.has(Features::DYNAMIC_TOP)
        && top != F::MAX_TOP_LEVEL
        && u32::from(common.max_vasz_lg2) > F::ITEMS_LG2 + top.item_lg2::<F>()
    {
        return Err(Error::NotSupported);
    }
    common.max_oasz_lg2 = common.max_oasz_lg2.min(F::MAX_OA_LG2 as u8);
    if features.has(Features::SIGN_EXTEND)
        && features.0 & (Features::FULL_VA.0 | Features::DYNAMIC_TOP.0) != 0
    {
        return Err(Error::Invalid);
    }
    Ok(())
}

/// Zeroes a table struct, all but the domain and what the driver set.
///
/// # Safety
///
/// As for [`init`].
unsafe fn zero<T: Zeroable>(table: *mut T) {
    let domain = core::mem::size_of::<bindings::iommu_domain>();
    let iommu: *mut bindings::pt_iommu = table.cast();
    // SAFETY: All of `table` is the caller's to write. It starts with a `struct pt_iommu`, which
    // starts with the domain. Zeroes are valid for the rest, as for all of a `Zeroable`.
    unsafe {
        let (device, driver_ops, nid) = ((*iommu).iommu_device, (*iommu).driver_ops, (*iommu).nid);
        let rest = table.cast::<u8>().add(domain);
        rest.write_bytes(0, core::mem::size_of::<T>() - domain);
        (*iommu).iommu_device = device;
        (*iommu).driver_ops = driver_ops;
        (*iommu).nid = nid;
    }
}
