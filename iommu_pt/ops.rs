// SPDX-License-Identifier: GPL-2.0-only

//! The operations of `struct pt_iommu_ops`, generic over the format.
//!
//! All are called with the locking that `include/linux/generic_pt/iommu.h` documents: the caller
//! holds a lock over the range.

use core::ffi::{c_int, c_uint};

use iotable::fmt::{Features, Format, Params, Prot};
use iotable::mem::PtMem;
use iotable::range::Locked;
use iotable::{Config, DirtySink, Error, Level, Pt, Seen, SplitFlush, Table, Visitor};
use kernel::bindings;
use kernel::error::code;

use crate::gather::{self, GatherSpace, KernelGather};
use crate::mem::{KernelCell, KernelMem};

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

#[inline(always)]
fn errno_of(result: iotable::Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => errno(error),
    }
}

/// The environment of a call that may allocate with `gfp`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`.
#[inline(always)]
pub(crate) unsafe fn env<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    gfp: bindings::gfp_t,
) -> KernelMem {
    // SAFETY: by the safety requirement.
    let common = unsafe { F::common(iommu) };
    // SAFETY: as above.
    let (nid, device, features) =
        unsafe { ((*iommu).nid, (*iommu).iommu_device, (*common).features) };
    let incoherent = F::FEATURES.has(Features::DMA_INCOHERENT)
        && Features(features).has(Features::DMA_INCOHERENT);
    KernelMem {
        nid,
        gfp,
        reserve: core::ptr::null_mut(),
        flush_dev: if incoherent {
            device
        } else {
            core::ptr::null_mut()
        },
        iommu,
        common,
    }
}

/// The table as `iotable` sees it, for one call.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`, and stays one while the value is used.
#[inline(always)]
pub(crate) unsafe fn view<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    mem: &KernelMem,
) -> Pt<'_, F, KernelMem> {
    // SAFETY: by the safety requirement.
    let bitmap = unsafe { (*iommu).domain.pgsize_bitmap };
    // SAFETY: as above; but for the top, all is constant once initialised.
    let (features, va_lg2, oa_lg2) = unsafe {
        let common = mem.common;
        (
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
    // SAFETY: the top table of that level, which lives as long as the page table.
    let top = unsafe { Table::from_raw(items, level) };
    Pt::new(mem, cfg, top)
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
    // SAFETY: written once at boot.
    return unsafe { bindings::sme_me_mask };
    #[cfg(not(CONFIG_AMD_MEM_ENCRYPT))]
    0
}

/// The address and the level of the top table, for the hardware, which a mock domain has not.
///
/// # Safety
///
/// As for [`view`].
#[allow(dead_code)]
pub(crate) unsafe fn top<F: KernelFormat>(iommu: *mut bindings::pt_iommu) -> (u64, Level) {
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, 0) };
    let (items, level) = mem.top();
    let oa = KernelMem::table_oa(items);
    kernel::warn_on!(oa & !F::TOP_OA_MASK != 0);
    (oa, level)
}

/// `pt_iommu_ops.map_range`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`, `mapped` is valid, and the caller holds the
/// write range lock over the range.
unsafe extern "C" fn map_range<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    paddr: bindings::phys_addr_t,
    len: bindings::dma_addr_t,
    prot: c_uint,
    gfp: bindings::gfp_t,
    mapped: *mut usize,
) -> c_int {
    // SAFETY: by the safety requirement. Nothing is allocated here.
    let mem = unsafe { env::<F>(iommu, 0) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: the caller holds the range lock. A leaf that crosses an edge only makes a map fail.
    let range = unsafe { Locked::new(iova, len) };
    let any = prot & (Prot::READ.0 | Prot::WRITE.0) != 0;
    if let (true, Ok(range), Ok(attrs)) = (any, range, F::attrs(Prot(prot), &pt.config().params)) {
        if pt.map_page(range, paddr, attrs).is_some() {
            // SAFETY: valid by the safety requirement.
            unsafe { *mapped = (*mapped).wrapping_add(len as usize) };
            return 0;
        }
    }
    // SAFETY: as for this function.
    unsafe { map_any::<F>(iommu, iova, paddr, len, prot, gfp, mapped) }
}

/// `map_range()` of whatever is not one page: apart, for the stack that it needs.
///
/// # Safety
///
/// As for [`map_range`].
#[inline(never)]
unsafe extern "C" fn map_any<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    paddr: bindings::phys_addr_t,
    len: bindings::dma_addr_t,
    prot: c_uint,
    gfp: bindings::gfp_t,
    mapped: *mut usize,
) -> c_int {
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, gfp) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    let prot = Prot(prot);
    if kernel::warn_on!(prot.0 & (Prot::READ.0 | Prot::WRITE.0) == 0) {
        return errno(Error::Invalid);
    }
    let attrs = match F::attrs(prot, &pt.config().params) {
        Ok(attrs) => attrs,
        Err(error) => {
            F::explain_refusal(prot, pt.config().params.features);
            return errno(error);
        }
    };
    // SAFETY: as in `map_range`.
    let range = match unsafe { Locked::new(iova, len) } {
        Ok(range) => range,
        Err(error) => return errno(error),
    };
    let mut space = GatherSpace::new();
    let features = pt.config().params.features;
    // SAFETY: the table is initialised.
    let mut gather = unsafe { KernelGather::new_owned(iommu, features, &mut space) };
    let done = pt.map(range, paddr, attrs, &mut gather);
    // Tables were replaced by large leaves: nothing may walk them any more when we return.
    gather.sync_own();
    // SAFETY: valid by the safety requirement.
    unsafe { *mapped = (*mapped).wrapping_add(done.bytes as usize) };
    errno_of(done.result)
}

/// `pt_iommu_ops.unmap_range`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`, `iotlb` is initialised, and the caller holds the
/// write range lock over the range and over all of each leaf that crosses one of its edges.
unsafe extern "C" fn unmap_range<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    len: bindings::dma_addr_t,
    iotlb: *mut bindings::iommu_iotlb_gather,
) -> usize {
    // SAFETY: by the safety requirement. Unmap never allocates.
    let mem = unsafe { env::<F>(iommu, 0) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: the caller holds the range lock, over whole leaves: the op's contract is that no call
    // of `map_range` is unmapped in part, and no leaf is larger than what one call maps.
    let Ok(range) = (unsafe { Locked::new(iova, len) }) else {
        return 0;
    };
    let mut space = GatherSpace::new();
    let features = pt.config().params.features;
    // SAFETY: both are initialised.
    let mut gather = unsafe { KernelGather::new(iommu, features, iotlb, &mut space) };
    pt.unmap(range, &mut gather) as usize
}

/// `pt_iommu_ops.split_range`.
///
/// # Safety
///
/// As for [`unmap_range`].
unsafe extern "C" fn split_range<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    len: bindings::dma_addr_t,
    gfp: bindings::gfp_t,
    iotlb: *mut bindings::iommu_iotlb_gather,
) -> c_int {
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, gfp) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: the caller holds the write range lock over the range and over all of each leaf that
    // crosses one of its edges, until after the op; `flush` does not leave it.
    let range = match unsafe { Locked::new(iova, len) } {
        Ok(range) => range,
        Err(error) => return errno(error),
    };
    match pt.split(range) {
        // SAFETY: by the safety requirement.
        Ok(flush) => unsafe { end_split(iommu, iotlb, flush) },
        Err(error) => errno(error),
    }
}

/// Gathers the leaves that were replaced, and syncs if dirty bits may come late.
///
/// # Safety
///
/// `iommu` is the initialised table that `flush` is of, and `iotlb` is initialised.
unsafe fn end_split<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iotlb: *mut bindings::iommu_iotlb_gather,
    flush: SplitFlush<'_, F, KernelMem>,
) -> c_int {
    let (mut leaves, mut flushes) = (0u8, 0u8);
    for leaf in flush.leaves() {
        leaves = leaves.wrapping_add(1);
        let len = 1u64.wrapping_shl(leaf.size_lg2);
        // SAFETY: `iotlb` is initialised by the safety requirement.
        unsafe {
            // The edges may be far apart: two small flushes keep what is cached between them.
            if bindings::iommu_iotlb_gather_is_disjoint(iotlb, leaf.va as usize, len as usize) {
                bindings::iommu_iotlb_sync(&raw mut (*iommu).domain, iotlb);
                flushes = flushes.wrapping_add(1);
            }
            gather::add_range(iotlb, leaf.va, len);
            (*iotlb).leaf_to_table = true;
            (*iotlb).__bindgen_anon_1.pt.leaf_levels_bitmap |= gather::level_bit(leaf.level);
        }
    }
    // SAFETY: the domain is part of the table, which is initialised.
    let dirty = F::DIRTY != 0 && unsafe { !(*iommu).domain.dirty_ops.is_null() };
    let tables = flush.tables() as u16;
    let result = if dirty && !flush.is_empty() {
        // Until the flush hardware may set dirty bits where the old leaves were.
        // SAFETY: both are initialised by the safety requirement.
        unsafe { bindings::iommu_iotlb_sync(&raw mut (*iommu).domain, iotlb) };
        flushes = flushes.wrapping_add(1);
        flush.fold_late_dirty()
    } else {
        flush.finish()
    };
    // After the last sync, which forgets them.
    // SAFETY: `iotlb` is initialised; every bit pattern is valid for these fields.
    unsafe {
        let pt = &mut (*iotlb).__bindgen_anon_1.pt;
        pt.split_leaves = leaves;
        pt.split_flushes = flushes;
        pt.split_tables = tables;
    }
    // Somebody else changed a leaf that the caller has to hold the lock over, or a carve met
    // something that is not mapped: a bug there. The other one's change stays.
    if kernel::warn_on!(result.is_err()) {
        return code::EBUSY.to_errno();
    }
    0
}

/// `pt_iommu_ops.carve_prepare`.
///
/// # Safety
///
/// As for [`split_range`]; `tables` is initialised.
unsafe extern "C" fn carve_prepare<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    len: bindings::dma_addr_t,
    gfp: bindings::gfp_t,
    tables: *mut bindings::iommu_pages_list,
) -> c_int {
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, gfp) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: as in `split_range`.
    let range = unsafe { Locked::new(iova, len) };
    let needed = match range.and_then(|range| pt.carve_tables(range)) {
        Ok(needed) => needed,
        Err(error) => return errno(error),
    };
    for _ in 0..needed {
        match mem.alloc_undefined(F::ITEMS_LG2.wrapping_add(3)) {
            // SAFETY: the list is initialised; the table is on no list.
            Ok(table) => unsafe {
                bindings::iommu_pages_list_add(tables, table.as_ptr().cast());
            },
            Err(error) => return errno(error),
        }
    }
    0
}

/// `pt_iommu_ops.carve_range`.
///
/// # Safety
///
/// As for [`split_range`]; `tables` has what [`carve_prepare`] put there.
unsafe extern "C" fn carve_range<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    len: bindings::dma_addr_t,
    tables: *mut bindings::iommu_pages_list,
    iotlb: *mut bindings::iommu_iotlb_gather,
) -> c_int {
    // SAFETY: by the safety requirement. Nothing is allocated here.
    let mut mem = unsafe { env::<F>(iommu, 0) };
    mem.reserve = tables;
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: as in `split_range`.
    let range = unsafe { Locked::new(iova, len) };
    let mut space = GatherSpace::new();
    let features = pt.config().params.features;
    // SAFETY: both are initialised.
    let mut gather = unsafe { KernelGather::new(iommu, features, iotlb, &mut space) };
    match range.and_then(|range| pt.carve(range, &mut gather)) {
        // SAFETY: by the safety requirement.
        Ok(flush) => unsafe { end_split(iommu, iotlb, flush) },
        Err(error) => {
            // It was prepared, so it cannot fail if the lock was held.
            kernel::warn_on!(true);
            errno(error)
        }
    }
}

/// `pt_iommu_ops.set_dirty`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`.
#[cfg(CONFIG_IOMMUFD_TEST)]
unsafe extern "C" fn set_dirty<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
) -> c_int {
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, 0) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: as with the C page tables, it is up to the test that calls this not to unmap
    // meanwhile.
    let range = unsafe { Locked::new(iova, 1) };
    errno_of(range.and_then(|range| pt.set_dirty(range)))
}

/// `pt_iommu_ops.get_info`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`, `info` is valid.
unsafe extern "C" fn get_info<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    info: *mut bindings::pt_iommu_info,
) {
    // SAFETY: by the safety requirement.
    let common = unsafe { &*F::common(iommu) };
    // SAFETY: as above.
    unsafe { (*info).pgsize_bitmap = crate::init::page_sizes::<F>(common) };
}

/// Counts into `struct pt_iommu_walk`, and calls its `leaf`.
struct Walk(*mut bindings::pt_iommu_walk);

impl Visitor for Walk {
    #[inline(always)]
    fn leaf(&mut self, leaf: Seen) {
        // SAFETY: valid for the call that made this value, and nobody else uses it but `leaf`.
        let callback = unsafe {
            let leaves = &mut (*self.0).leaves;
            if let Some(count) = leaves.get_mut(leaf.size_lg2 as usize) {
                *count = count.wrapping_add(1);
            }
            (*self.0).leaf
        };
        if let Some(callback) = callback {
            let leaf = bindings::pt_iommu_leaf {
                iova: leaf.va,
                paddr: leaf.oa,
                attrs: leaf.attrs.0,
                size_lg2: leaf.size_lg2 as u8,
            };
            // SAFETY: the caller of the op gave it to be called so.
            unsafe { callback(self.0, &raw const leaf) };
        }
    }

    fn table(&mut self, _level: Level) {
        // SAFETY: valid for the call that made this value.
        let tables = unsafe { &mut (*self.0).tables };
        *tables = tables.wrapping_add(1);
    }
}

/// `pt_iommu_ops.walk_range`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`, `walk` is valid, and the caller holds a read
/// range lock over the range.
unsafe extern "C" fn walk_range<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    last: bindings::dma_addr_t,
    walk: *mut bindings::pt_iommu_walk,
) -> bool {
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, 0) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // There is no length of 2^64: the upper half is left for another call.
    let whole = iova == 0 && last == u64::MAX;
    let until = if whole { last >> 1 } else { last };
    // SAFETY: the caller holds the range lock.
    let range = unsafe { Locked::new(iova, until.wrapping_sub(iova).wrapping_add(1)) };
    let Ok(range) = range else {
        return false;
    };
    // SAFETY: valid by the safety requirement.
    let tables = unsafe {
        (*walk).table_size = 8u32.wrapping_shl(F::ITEMS_LG2);
        (*walk).max_tables
    };
    let rest = whole.then_some(until.wrapping_add(1));
    match pt.walk(range, tables, &mut Walk(walk)).or(rest) {
        Some(next) => {
            // SAFETY: as above.
            unsafe { (*walk).next = next };
            true
        }
        None => false,
    }
}

/// The ops of a format.
pub(crate) struct Ops<F>(core::marker::PhantomData<F>);

impl<F: KernelFormat> Ops<F> {
    pub(crate) const TABLE: bindings::pt_iommu_ops = bindings::pt_iommu_ops {
        map_range: Some(map_range::<F>),
        unmap_range: Some(unmap_range::<F>),
        split_range: if iotable::can_split::<F>() {
            Some(split_range::<F>)
        } else {
            None
        },
        carve_prepare: if iotable::can_split::<F>() {
            Some(carve_prepare::<F>)
        } else {
            None
        },
        carve_range: if iotable::can_split::<F>() {
            Some(carve_range::<F>)
        } else {
            None
        },
        #[cfg(CONFIG_IOMMUFD_TEST)]
        set_dirty: if F::DIRTY != 0 {
            Some(set_dirty::<F>)
        } else {
            None
        },
        #[cfg(not(CONFIG_IOMMUFD_TEST))]
        set_dirty: None,
        get_info: Some(get_info::<F>),
        walk_range: Some(walk_range::<F>),
        deinit: Some(crate::init::deinit::<F>),
    };
}

/// `pt_iommu_<fmt>_iova_to_phys`: 0 if there is no translation.
///
/// # Safety
///
/// `domain` is part of an initialised table of format `F`; the caller holds a range lock that
/// includes `iova`.
#[inline(always)]
pub(crate) unsafe fn iova_to_phys<F: KernelFormat>(
    domain: *mut bindings::iommu_domain,
    iova: bindings::dma_addr_t,
) -> bindings::phys_addr_t {
    let iommu: *mut bindings::pt_iommu = domain.cast();
    // SAFETY: by the safety requirement; the domain is the first member of `struct pt_iommu`.
    let mem = unsafe { env::<F>(iommu, 0) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: the caller holds the range lock.
    match unsafe { Locked::new(iova, 1) } {
        Ok(range) => pt.iova_to_phys(range).unwrap_or(0),
        Err(_) => 0,
    }
}

const _: () = assert!(core::mem::offset_of!(bindings::pt_iommu, domain) == 0);

/// Puts dirty leaves into `struct iommu_dirty_bitmap`.
struct DirtyBitmap(*mut bindings::iommu_dirty_bitmap);

impl DirtySink for DirtyBitmap {
    #[inline]
    fn dirty(&mut self, va: u64, len: u64) -> iotable::Result {
        // SAFETY: valid for the call that made this value.
        let bitmap = unsafe { (*self.0).bitmap };
        if bitmap.is_null() {
            return Ok(());
        }
        // SAFETY: valid, and the caller of the op serialises its use.
        match unsafe { bindings::iova_bitmap_set(bitmap, va as usize, len as usize) } {
            0 => Ok(()),
            errno => Err(Error::Env(errno)),
        }
    }

    #[inline]
    fn cleared(&mut self, va: u64, len: u64) {
        // SAFETY: valid for the call that made this value; a caller that lets bits be cleared gives
        // a gather.
        unsafe { gather::add_range((*self.0).gather, va, len) };
    }
}

/// `pt_iommu_<fmt>_read_and_clear_dirty`.
///
/// # Safety
///
/// `domain` is part of an initialised table of format `F`, `dirty` is valid, and the caller holds
/// a read range lock over the range.
pub(crate) unsafe fn read_and_clear_dirty<F: KernelFormat>(
    domain: *mut bindings::iommu_domain,
    iova: usize,
    size: usize,
    flags: usize,
    dirty: *mut bindings::iommu_dirty_bitmap,
) -> c_int {
    if !cfg!(CONFIG_IOMMUFD_DRIVER) {
        return errno(Error::NotSupported);
    }
    let iommu: *mut bindings::pt_iommu = domain.cast();
    // SAFETY: by the safety requirement.
    let mem = unsafe { env::<F>(iommu, 0) };
    // SAFETY: as above.
    let pt = unsafe { view::<F>(iommu, &mem) };
    // SAFETY: the caller holds the range lock.
    let range = unsafe { Locked::new(iova as u64, size as u64) };
    let clear = flags & bindings::IOMMU_DIRTY_NO_CLEAR as usize == 0;
    let mut sink = DirtyBitmap(dirty);
    errno_of(range.and_then(|range| pt.read_dirty(range, clear, &mut sink)))
}
