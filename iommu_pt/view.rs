// SPDX-License-Identifier: GPL-2.0-only

//! A C table as `iotable` sees it: what init and the operations both need.

use core::ffi::c_int;

use iotable::fmt::{
    Features,
    Format,
    Params,
    Prot, //
};
use iotable::mem::PtMem;
use iotable::{
    Config,
    Error,
    Level,
    Pt,
    Table, //
};
use kernel::bindings;
use kernel::error::code;

use crate::mem::{
    KernelCell,
    KernelMem, //
};

/// What ties a format to its C structs.
///
/// # Safety
///
/// `common` returns the `struct pt_common` that lies in the same C object as the given
/// `struct pt_iommu`, for every table that was initialised for this format.
pub(crate) unsafe trait KernelFormat: Format {
    /// Features that the driver has to ask for.
    const FORCED: Features = Features(0);

    /// The feature that says that table memory is encrypted.
    const ENCRYPTED: Option<Features> = None;

    /// The `struct pt_common` of a table of this format.
    ///
    /// # Safety
    ///
    /// `iommu` is part of this format's table struct.
    unsafe fn common(iommu: *mut bindings::pt_iommu) -> *mut bindings::pt_common;

    /// Says in the kernel log why a mapping was refused, if the errno alone would puzzle.
    fn explain_refusal(_prot: Prot, _features: Features) {}
}

const _: () = {
    assert!(Prot::READ.0 == bindings::IOMMU_READ);
    assert!(Prot::WRITE.0 == bindings::IOMMU_WRITE);
    assert!(Prot::CACHE.0 == bindings::IOMMU_CACHE);
    assert!(Prot::NOEXEC.0 == bindings::IOMMU_NOEXEC);
    assert!(Prot::MMIO.0 == bindings::IOMMU_MMIO);
    assert!(Features::DMA_INCOHERENT.0 == 1 << bindings::pt_features_PT_FEAT_DMA_INCOHERENT);
    assert!(Features::DETAILED_GATHER.0 == 1 << bindings::pt_features_PT_FEAT_DETAILED_GATHER);
    assert!(Features::FORMAT_START == bindings::pt_features_PT_FEAT_FMT_START);
    assert!(core::mem::size_of::<KernelCell>() == 8);
};

/// The errno for an error of the page tables.
#[cold]
pub(crate) fn errno(error: Error) -> c_int {
    match error {
        Error::Invalid => code::EINVAL.to_errno(),
        Error::Overflow => code::EOVERFLOW.to_errno(),
        Error::OutOfRange => code::ERANGE.to_errno(),
        Error::NoPageSize => code::ENXIO.to_errno(),
        Error::Busy => -(bindings::EADDRINUSE as c_int),
        Error::NotMapped => code::ENOENT.to_errno(),
        Error::NotSupported => -(bindings::EOPNOTSUPP as c_int),
        Error::Raced => code::EAGAIN.to_errno(),
        Error::NoMemory => code::ENOMEM.to_errno(),
        Error::Env(errno) => errno,
    }
}

/// 0, or the errno for an error of the page tables.
#[inline(always)]
pub(crate) fn errno_of(result: iotable::Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => errno(error),
    }
}

/// Where a call gets tables from.
#[derive(Clone, Copy)]
pub(crate) enum Tables {
    /// It allocates none.
    None,
    /// From the page allocator.
    New(bindings::gfp_t),
    /// From a list of tables that `carve_prepare` allocated.
    Prepared(*mut bindings::iommu_pages_list),
}

/// The environment of a call.
///
/// # Safety
///
/// `iommu` is a table of format `F`, initialised but for its top and its ops, and a list of tables
/// is initialised, for as long as the value is used.
#[inline(always)]
pub(crate) unsafe fn env<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    tables: Tables,
) -> KernelMem {
    // SAFETY: The caller gives a table of format `F`, so `iommu` is part of that format's struct,
    // and its `pt_common` is as valid. These members are constant once they are initialised.
    let (common, device, features) = unsafe {
        let common = F::common(iommu);
        (common, (*iommu).iommu_device, (*common).features)
    };
    let incoherent = F::FEATURES.has(Features::DMA_INCOHERENT)
        && Features(features).has(Features::DMA_INCOHERENT);
    let (gfp, reserve) = match tables {
        Tables::None => (0, core::ptr::null_mut()),
        Tables::New(gfp) => (gfp, core::ptr::null_mut()),
        Tables::Prepared(list) => (0, list),
    };
    KernelMem {
        gfp,
        reserve,
        flush_dev: if incoherent {
            device
        } else {
            core::ptr::null_mut()
        },
        iommu,
        common,
    }
}

/// A page table as the operations see it.
pub(crate) type View<'a, F> = Pt<'a, F, KernelMem>;

/// Calls `f` with the table.
///
/// # Safety
///
/// Until `f` returns, `iommu` is an initialised table of format `F`, and a list of tables is
/// initialised.
#[inline(always)]
pub(crate) unsafe fn with_table<F: KernelFormat, R>(
    iommu: *mut bindings::pt_iommu,
    tables: Tables,
    f: impl FnOnce(&View<'_, F>) -> R,
) -> R {
    // SAFETY: The caller gives an initialised table of format `F`.
    let mem = unsafe { env::<F>(iommu, tables) };
    // SAFETY: The caller gives an initialised table, so both structs are valid, and but for the top
    // all of them is constant.
    let (bitmap, features, va_lg2, oa_lg2) = unsafe {
        let common = mem.common;
        (
            (*iommu).domain.pgsize_bitmap,
            (*common).features,
            (*common).max_vasz_lg2,
            (*common).max_oasz_lg2,
        )
    };
    let (items, level) = mem.top();
    let cfg = Config {
        params: params::<F>(features),
        max_va_lg2: u32::from(va_lg2),
        max_oa_lg2: u32::from(oa_lg2),
        pgsize_bitmap: bitmap as u64,
    };
    // SAFETY: An initialised table has a top table, of the level that was read together with it. It
    // lives as long as the table, and no view leaves `f`.
    let top = unsafe { Table::from_raw(items, level) };
    f(&Pt::new(&mem, cfg, top))
}

/// The parameters of a format in a table with these features.
#[inline(always)]
pub(crate) fn params<F: KernelFormat>(features: u32) -> Params {
    let features = Features(features).with(F::FORCED);
    let enc_mask = match F::ENCRYPTED {
        Some(feature) if features.has(feature) => sme_mask(),
        _ => 0,
    };
    Params { features, enc_mask }
}

/// The bit that makes a physical address encrypted, 0 without SME.
#[inline(always)]
fn sme_mask() -> u64 {
    #[cfg(CONFIG_AMD_MEM_ENCRYPT)]
    // SAFETY: The variable is written once, at boot, before there is any table.
    return unsafe { bindings::sme_me_mask };
    #[cfg(not(CONFIG_AMD_MEM_ENCRYPT))]
    0
}

/// The `pgsize_bitmap` of a table.
pub(crate) fn page_sizes<F: KernelFormat>(common: &bindings::pt_common) -> u64 {
    let params = params::<F>(common.features);
    let top = Level((common.top_of_table & bindings::PT_TOP_LEVEL_MASK as usize) as u8);
    iotable::page_sizes::<F>(
        &params,
        top,
        u32::from(common.max_vasz_lg2),
        u32::from(common.max_oasz_lg2),
    )
}
