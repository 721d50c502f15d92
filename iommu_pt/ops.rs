// SPDX-License-Identifier: GPL-2.0-only

//! The operations of `struct pt_iommu_ops`, generic over the format.
//!
//! All are called with the locking that `include/linux/generic_pt/iommu.h` documents: the caller
//! holds a lock over the range.

use core::ffi::{
    c_int,
    c_uint, //
};
use core::marker::PhantomData;
use core::pin::Pin;

use iotable::fmt::Prot;
use iotable::gather::Gather;
use iotable::mem::PtMem;
use iotable::range::Locked;
use iotable::{
    Bytes,
    DirtySink,
    Error,
    Iova,
    Level,
    Oa,
    RawTable,
    Seen,
    SplitFlush,
    Visitor, //
};
use kernel::bindings;
use kernel::error::code;
use pin_init::stack_pin_init;

use crate::gather::{
    self,
    FreeList,
    Iotlb,
    KernelFlusher,
    KernelGather,
    OwnGather,
    Tally, //
};
use crate::mem::KernelMem;
use crate::view::{
    self,
    errno,
    errno_of,
    page_sizes,
    with_table,
    KernelFormat,
    Tables,
    View, //
};

/// The one way into an operation: calls `f` with the table, and with the evidence that `len` from
/// `iova` on is locked, or an error if there are no such bytes.
///
/// # Safety
///
/// Until `f` returns, `iommu` is an initialised table of format `F`, a list of tables is
/// initialised, and the caller holds the lock that [`Locked::new`] asks for, for what `f` does.
#[inline(always)]
unsafe fn enter<F: KernelFormat, R>(
    iommu: *mut bindings::pt_iommu,
    tables: Tables,
    iova: Iova,
    len: Bytes,
    f: impl FnOnce(&View<'_, F>, iotable::Result<Locked>) -> R,
) -> R {
    // SAFETY: The caller holds the lock until `f` returns.
    let locked = |pt: &View<'_, F>| f(pt, unsafe { Locked::new(iova, len) });
    // SAFETY: The caller gives an initialised table of format `F`, and such a list.
    unsafe { with_table(iommu, tables, locked) }
}

/// The address and the level of the top table, for the hardware. A mock domain has no hardware and
/// does not use this.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`.
#[allow(dead_code)]
pub(crate) unsafe fn top<F: KernelFormat>(iommu: *mut bindings::pt_iommu) -> (u64, Level) {
    // SAFETY: The caller gives an initialised table of format `F`.
    let mem = unsafe { view::env::<F>(iommu, Tables::None) };
    let (items, level) = mem.top();
    let Oa(oa) = KernelMem::table_oa(items);
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
    let map_page = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        let range = range.ok()?;
        let attrs = F::attrs(Prot(prot), &pt.config().params).ok()?;
        pt.map_page(range, Oa(paddr), attrs)
    };
    if prot & (Prot::READ.0 | Prot::WRITE.0) != 0 {
        // SAFETY: The caller gives an initialised table and holds the lock over the range; a leaf
        // that crosses an edge of it only makes a map fail.
        if unsafe { enter(iommu, Tables::None, Iova(iova), Bytes(len), map_page) }.is_some() {
            // SAFETY: The counter is the caller's, valid and not used by anybody else.
            unsafe { *mapped = (*mapped).wrapping_add(len as usize) };
            return 0;
        }
    }
    // SAFETY: What this function asks for is all that `map_any` does, with the same arguments.
    unsafe { map_any::<F>(iommu, iova, paddr, len, prot, gfp, mapped) }
}

/// `map_range()` of anything but one page. A function of its own, because it needs more stack.
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
    let map = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        let prot = Prot(prot);
        let params = &pt.config().params;
        if kernel::warn_on!(prot.0 & (Prot::READ.0 | Prot::WRITE.0) == 0) {
            return errno(Error::Invalid);
        }
        let attrs = match F::attrs(prot, params) {
            Ok(attrs) => attrs,
            Err(error) => {
                F::explain_refusal(prot, params.features);
                return errno(error);
            }
        };
        let range = match range {
            Ok(range) => range,
            Err(error) => return errno(error),
        };
        stack_pin_init!(let own = OwnGather::new());
        // SAFETY: The caller gives an initialised table, until the op returns.
        let mut gather = unsafe { KernelGather::new_owned(iommu, params.features, own.as_mut()) };
        let done = pt.map(range, Oa(paddr), attrs, &mut gather);
        // Tables were replaced by large leaves: nothing may walk them any more when we return.
        gather.sync_own();
        // SAFETY: The counter is the caller's, valid and not used by anybody else.
        unsafe { *mapped = (*mapped).wrapping_add(done.bytes.0 as usize) };
        errno_of(done.result)
    };
    // SAFETY: The caller gives an initialised table and holds the lock over the range; a leaf that
    // crosses an edge of it only makes a map fail.
    unsafe { enter(iommu, Tables::New(gfp), Iova(iova), Bytes(len), map) }
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
    let unmap = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        let Ok(range) = range else {
            return 0;
        };
        stack_pin_init!(let list = FreeList::new());
        // SAFETY: The caller lends its initialised gather until the op returns.
        let iotlb = unsafe { Iotlb::new(iommu, pt.config().params.features, iotlb) };
        let mut gather = KernelGather::new(iotlb, list.as_ref());
        pt.unmap(range, &mut gather).0 as usize
    };
    // SAFETY: The caller gives an initialised table and holds the lock, over whole leaves: the op's
    // contract is that no call of `map_range` is unmapped in part, and no leaf is larger than what
    // one call maps.
    unsafe { enter(iommu, Tables::None, Iova(iova), Bytes(len), unmap) }
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
    let split = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        // SAFETY: The caller lends its initialised gather until the op returns.
        let iotlb = unsafe { Iotlb::new(iommu, pt.config().params.features, iotlb) };
        match range.and_then(|range| pt.split(range)) {
            Ok(flush) => end_split(iotlb, flush),
            Err(error) => errno(error),
        }
    };
    // SAFETY: The caller gives an initialised table, and holds the write range lock over the range
    // and over all of each leaf that crosses one of its edges, until after the op; what a split
    // returns does not leave it.
    unsafe { enter(iommu, Tables::New(gfp), Iova(iova), Bytes(len), split) }
}

/// Gathers the leaves that were replaced, and syncs if dirty bits may come late.
fn end_split<F: KernelFormat>(iotlb: Iotlb, flush: SplitFlush<'_, F, KernelMem>) -> c_int {
    let mut done = Tally {
        leaves: 0,
        flushes: 0,
        tables: flush.tables() as u16,
    };
    for leaf in flush.leaves() {
        done.leaves = done.leaves.wrapping_add(1);
        if iotlb.add_replaced(leaf) {
            done.flushes = done.flushes.wrapping_add(1);
        }
    }
    let result = if F::DIRTY != 0 && iotlb.tracks_dirty() && !flush.is_empty() {
        // Until the flush hardware may set dirty bits where the old leaves were.
        iotlb.sync();
        done.flushes = done.flushes.wrapping_add(1);
        flush.fold_late_dirty()
    } else {
        flush.finish()
    };
    // After the last sync, which forgets it.
    iotlb.tell(done);
    // Either somebody changed a leaf without the lock that the caller has to hold, or a carve met
    // something that is not mapped. Both are bugs outside of this function. The other change stays.
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
    let prepare = |pt: &View<'_, F>, range: iotable::Result<Locked>| -> iotable::Result {
        let needed = pt.carve_tables(range?)?;
        for _ in 0..needed {
            let table = pt.mem().alloc_undefined(F::ITEMS_LG2.wrapping_add(3))?;
            // SAFETY: The caller's list is initialised, and a new table is on no list.
            unsafe { bindings::iommu_pages_list_add(tables, table.as_ptr().cast()) };
        }
        Ok(())
    };
    // SAFETY: The caller gives an initialised table, and holds the write range lock over the range
    // and over all of each leaf that crosses one of its edges.
    errno_of(unsafe { enter(iommu, Tables::New(gfp), Iova(iova), Bytes(len), prepare) })
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
    let carve = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        stack_pin_init!(let list = FreeList::new());
        // SAFETY: The caller lends its initialised gather until the op returns.
        let iotlb = unsafe { Iotlb::new(iommu, pt.config().params.features, iotlb) };
        let mut gather = KernelGather::new(iotlb, list.as_ref());
        match range.and_then(|range| pt.carve(range, &mut gather)) {
            Ok(flush) => end_split(iotlb, flush),
            Err(error) => {
                // It was prepared, so it cannot fail if the lock was held.
                kernel::warn_on!(true);
                errno(error)
            }
        }
    };
    let (iova, len) = (Iova(iova), Bytes(len));
    // SAFETY: The caller gives an initialised table and list, and holds the write range lock over
    // the range and over all of each leaf that crosses one of its edges, until after the op; what a
    // carve returns does not leave it.
    unsafe { enter(iommu, Tables::Prepared(tables), iova, len, carve) }
}

/// `pt_iommu_ops.join_range`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F`, `iotlb` is initialised, and the caller holds the
/// write range lock over the range, and keeps `iova_to_phys` out of it.
unsafe extern "C" fn join_range<F: KernelFormat>(
    iommu: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    len: bindings::dma_addr_t,
    iotlb: *mut bindings::iommu_iotlb_gather,
) -> c_int {
    let join = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        let range = match range {
            Ok(range) => range,
            Err(error) => return errno(error),
        };
        stack_pin_init!(let list = FreeList::new());
        // SAFETY: The caller lends its initialised gather until the op returns.
        let iotlb = unsafe { Iotlb::new(iommu, pt.config().params.features, iotlb) };
        let mut flusher = KernelFlusher::new(iotlb, list.as_ref());
        match pt.join(range, &mut flusher) {
            Ok(_) => 0,
            // Somebody changed an item without the lock that the caller has to hold. That change
            // stays.
            Err(Error::Raced) => {
                kernel::warn_on!(true);
                code::EBUSY.to_errno()
            }
            Err(error) => errno(error),
        }
    };
    // SAFETY: The caller gives an initialised table, holds the write range lock over the range, and
    // keeps `iova_to_phys` out of it. A join does not touch leaves that cross its edges.
    unsafe { enter(iommu, Tables::None, Iova(iova), Bytes(len), join) }
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
    let set = |pt: &View<'_, F>, at: iotable::Result<Locked>| pt.set_dirty(at?);
    // SAFETY: The caller gives an initialised table. As with the C page tables, it is up to the
    // test that calls this not to unmap meanwhile.
    errno_of(unsafe { enter(iommu, Tables::None, Iova(iova), Bytes(1), set) })
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
    // SAFETY: The caller gives an initialised table of format `F`, whose `pt_common` is constant
    // but for the top, and an `info` of its own.
    unsafe { (*info).pgsize_bitmap = page_sizes::<F>(&*F::common(iommu)) };
}

/// Counts into `struct pt_iommu_walk`, and calls its `leaf`.
struct Walk(*mut bindings::pt_iommu_walk);

impl Visitor for Walk {
    #[inline(always)]
    fn leaf(&mut self, leaf: Seen) {
        // SAFETY: The struct is valid for the call that made this value, and nobody uses it
        // meanwhile but what it has as `leaf`.
        let callback = unsafe {
            let leaves = &mut (*self.0).leaves;
            if let Some(count) = leaves.get_mut(leaf.size_lg2 as usize) {
                *count = count.wrapping_add(1);
            }
            (*self.0).leaf
        };
        if let Some(callback) = callback {
            let leaf = bindings::pt_iommu_leaf {
                iova: leaf.va.0,
                paddr: leaf.oa.0,
                attrs: leaf.attrs.0,
                size_lg2: leaf.size_lg2 as u8,
            };
            // SAFETY: The caller of the op gave it to be called so.
            unsafe { callback(self.0, &raw const leaf) };
        }
    }

    fn table(&mut self, _level: Level) {
        // SAFETY: The struct is valid for the call that made this value, and no `leaf` runs now.
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
    // A length of 2^64 cannot be given, so the upper half is left for another call.
    let whole = iova == 0 && last == u64::MAX;
    let until = if whole { last >> 1 } else { last };
    let rest = whole.then_some(Iova(until.wrapping_add(1)));
    let visit = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        let Ok(range) = range else {
            return false;
        };
        // SAFETY: The caller gives a valid `walk`, which nothing else uses before the walk begins.
        let tables = unsafe {
            (*walk).table_size = 8u32.wrapping_shl(F::ITEMS_LG2);
            (*walk).max_tables
        };
        match pt.walk(range, tables, &mut Walk(walk)).or(rest) {
            Some(next) => {
                // SAFETY: The caller gives a valid `walk`, which nothing uses after the walk ended.
                unsafe { (*walk).next = next.0 };
                true
            }
            None => false,
        }
    };
    let iova = Iova(iova);
    let len = iova.through(Iova(until));
    // SAFETY: The caller gives an initialised table and holds the lock over the range.
    unsafe { enter(iommu, Tables::None, iova, len, visit) }
}

/// Puts every table on a list that is freed at once.
struct FreeAll<'a>(Pin<&'a FreeList>);

impl Gather<KernelMem> for FreeAll<'_> {
    fn table(&mut self, table: RawTable<KernelMem>, _level: Level) {
        self.0.add(table);
    }

    fn leaf(&mut self, _level: Level) {}

    fn range(&mut self, _va: Iova, _len: Bytes) {}
}

/// `pt_iommu_ops.deinit`.
///
/// # Safety
///
/// `iommu` is an initialised table of format `F` that neither hardware nor anybody else uses.
unsafe extern "C" fn deinit<F: KernelFormat>(iommu: *mut bindings::pt_iommu) {
    let take_down = |pt: &View<'_, F>| {
        stack_pin_init!(let list = FreeList::new());
        pt.take_down(&mut FreeAll(list.as_ref()));
        // SAFETY: The list holds all tables of this page table, which nobody uses any more; if the
        // walker is incoherent, they were made for `flush_dev`.
        unsafe {
            if !pt.mem().flush_dev.is_null() {
                list.stop_incoherent(pt.mem().flush_dev);
            }
            list.free();
        }
    };
    // SAFETY: The caller gives an initialised table of format `F`.
    unsafe { with_table(iommu, Tables::None, take_down) }
}

/// The ops of a format.
pub(crate) struct Ops<F>(PhantomData<F>);

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
        join_range: if iotable::can_join::<F>() {
            Some(join_range::<F>)
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
        deinit: Some(deinit::<F>),
    };
}

/// `pt_iommu_<fmt>_iova_to_phys`: 0 if there is no translation.
///
/// # Safety
///
/// `domain` is part of an initialised table of format `F`; the caller holds a range lock that
/// includes `iova`, or another one that keeps everything but a split from changing what is there.
#[inline(always)]
pub(crate) unsafe fn iova_to_phys<F: KernelFormat>(
    domain: *mut bindings::iommu_domain,
    iova: bindings::dma_addr_t,
) -> bindings::phys_addr_t {
    let find = |pt: &View<'_, F>, at: iotable::Result<Locked>| pt.iova_to_phys(at.ok()?);
    // SAFETY: The caller gives the domain of an initialised table, which is the first member of its
    // `struct pt_iommu`, and holds a lock over the address.
    let oa = unsafe { enter(domain.cast(), Tables::None, Iova(iova), Bytes(1), find) };
    oa.map_or(0, |Oa(oa)| oa)
}

const _: () = assert!(core::mem::offset_of!(bindings::pt_iommu, domain) == 0);

/// Puts dirty leaves into `struct iommu_dirty_bitmap`.
struct DirtyBitmap(*mut bindings::iommu_dirty_bitmap);

impl DirtySink for DirtyBitmap {
    #[inline]
    fn dirty(&mut self, va: Iova, len: Bytes) -> iotable::Result {
        // SAFETY: The struct is valid for the call that made this value.
        let bitmap = unsafe { (*self.0).bitmap };
        if bitmap.is_null() {
            return Ok(());
        }
        // SAFETY: Not null, so it is a bitmap, whose use the caller of the op serialises.
        match unsafe { bindings::iova_bitmap_set(bitmap, va.0 as usize, len.0 as usize) } {
            0 => Ok(()),
            errno => Err(Error::Env(errno)),
        }
    }

    #[inline]
    fn cleared(&mut self, va: Iova, len: Bytes) {
        // SAFETY: The struct is valid for the call that made this value, and a caller that lets
        // bits be cleared gives a gather, which nobody else uses meanwhile.
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
    let clear = flags & bindings::IOMMU_DIRTY_NO_CLEAR as usize == 0;
    let read = |pt: &View<'_, F>, range: iotable::Result<Locked>| {
        pt.read_dirty(range?, clear, &mut DirtyBitmap(dirty))
    };
    let (iova, size) = (Iova(iova as u64), Bytes(size as u64));
    // SAFETY: The caller gives the domain of an initialised table, which is the first member of its
    // `struct pt_iommu`, and holds a lock over the range.
    errno_of(unsafe { enter(domain.cast(), Tables::None, iova, size, read) })
}
