// SPDX-License-Identifier: GPL-2.0-only

//! Table memory: pages of the IOMMU page allocator.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use iotable::mem::{
    Cell,
    PtMem, //
};
use iotable::{
    Bytes,
    Error,
    Level,
    Oa, //
};
use kernel::bindings;
use kernel::sync::atomic::{
    self,
    ordering, //
};

/// A table item, shared with the IOMMU.
///
/// Loads and stores are volatile, which is what `READ_ONCE()` and `WRITE_ONCE()` are: the kernel's
/// `Atomic` would make each an out-of-line call where helpers are not inlined.
#[repr(transparent)]
pub(crate) struct KernelCell(UnsafeCell<u64>);

// SAFETY: One naturally aligned 8-byte volatile access each; `publish` is a compare-exchange with
// release ordering, and on a uniprocessor kernel, where release is no barrier, dma_wmb() orders it
// against the device.
unsafe impl Cell for KernelCell {
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: A reference to a cell is valid for reads, and all other accesses are single copy
        // atomic as well.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline]
    fn read_acquire(&self) -> u64 {
        // SAFETY: A reference to a cell is valid for reads, aligned, and all other accesses are
        // single copy atomic as well.
        unsafe { atomic::atomic_load(self.0.get(), ordering::Acquire) }
    }

    #[inline(always)]
    fn init(&self, item: u64) {
        // SAFETY: The memory of a cell is valid for writes. Not volatile: nobody else can see it
        // yet.
        unsafe { self.0.get().write(item) }
    }

    #[inline(always)]
    fn set(&self, item: u64) {
        // SAFETY: The memory of a cell is valid for writes, and all other accesses are single copy
        // atomic as well.
        unsafe { self.0.get().write_volatile(item) }
    }

    #[inline]
    fn publish(&self, old: u64, new: u64) -> Result<(), u64> {
        #[cfg(not(CONFIG_SMP))]
        kernel::sync::barrier::dma_mb(kernel::sync::barrier::Write);
        // SAFETY: The memory of a cell is valid and aligned, and all other accesses are single copy
        // atomic as well.
        unsafe { atomic::cmpxchg(self.0.get(), old, new, ordering::Release) }.map(|_| ())
    }

    #[inline]
    fn clear_bits(&self, bits: u64) {
        Self::clear_bits_of(core::slice::from_ref(self), bits);
    }

    #[inline]
    fn clear_bits_of(cells: &[Self], bits: u64) {
        // SAFETY: So many cells are valid, aligned 64-bit words, one after another, and all other
        // accesses are single copy atomic as well.
        unsafe {
            bindings::pt_iommu_rust_clear_bits(cells.as_ptr().cast_mut().cast(), cells.len(), bits)
        }
    }
}

/// The environment of one call.
pub(crate) struct KernelMem {
    /// How to allocate.
    pub(crate) gfp: bindings::gfp_t,
    /// Tables that were allocated before and are used in place of new ones; else null.
    pub(crate) reserve: *mut bindings::iommu_pages_list,
    /// The device to flush caches for, if the walker is incoherent; else null.
    pub(crate) flush_dev: *mut bindings::device,
    /// The table, and its state in the same C object.
    pub(crate) iommu: *mut bindings::pt_iommu,
    /// See `iommu`.
    pub(crate) common: *mut bindings::pt_common,
}

/// What the address of memory in the linear map and its physical address differ by.
#[inline(always)]
fn linear_map() -> u64 {
    // SAFETY: The variable is written once, before any driver can make a table.
    unsafe { bindings::pt_iommu_rust_linear_map as u64 }
}

/// Whether the conversion between the table's address and its physical address works both ways.
pub(crate) fn is_in_linear_map(table: NonNull<KernelCell>) -> bool {
    // SAFETY: The table is from `alloc`, so it is in the linear map.
    let oa = unsafe { bindings::virt_to_phys(table.as_ptr().cast()) };
    // SAFETY: `oa` is what the kernel itself says about memory that it has mapped.
    let virt = unsafe { bindings::phys_to_virt(oa) };
    Oa(oa) == KernelMem::table_oa(table) && virt == table.as_ptr().cast()
}

/// The low bits of `top_of_table` hold the level.
const TOP_LEVEL_MASK: usize = bindings::PT_TOP_LEVEL_MASK as usize;

/// A top table and its level as one word.
pub(crate) fn top_word(table: NonNull<KernelCell>, level: Level) -> usize {
    table.as_ptr() as usize | usize::from(level.0)
}

impl KernelMem {
    /// Takes a table from the reserve.
    #[cold]
    fn take_page(&self) -> Result<NonNull<KernelCell>, Error> {
        // SAFETY: A reserve is an initialised list, and its tables came from `alloc_page`.
        let page = unsafe { bindings::pt_iommu_rust_take(self.reserve) };
        NonNull::new(page.cast::<KernelCell>()).ok_or(Error::NoMemory)
    }

    fn alloc_page(&self, lg2: u32, zeroed: bool) -> Result<NonNull<KernelCell>, Error> {
        let size = 1usize.wrapping_shl(lg2);
        // SAFETY: The table is valid; the node is the driver's choice, and `gfp` is what the caller
        // of the op may use.
        let page =
            unsafe { bindings::pt_iommu_rust_alloc((*self.iommu).nid, self.gfp, size, zeroed) };
        let table = NonNull::new(page.cast::<KernelCell>()).ok_or(Error::NoMemory)?;
        if !self.flush_dev.is_null() {
            // SAFETY: The page was allocated a moment ago, and `flush_dev` is the table's device.
            let ret = unsafe { bindings::pt_iommu_rust_start_incoherent(page, self.flush_dev) };
            if ret != 0 {
                // SAFETY: The page was allocated a moment ago, and nobody else knows it.
                unsafe { bindings::iommu_free_pages(page) };
                return Err(Error::Env(ret));
            }
        }
        Ok(table)
    }
}

// SAFETY:
// 1. `iommu_alloc_pages_node_sz()` returns zeroed memory, aligned to its size, and
//    `iommu_alloc_pages_node_sz_undefined()` the same without the zeroes;
//    `iommu_pages_start_incoherent()` cleans it. What is in the reserve came from there.
// 2. Tables are in the linear map, where virt_to_phys() and phys_to_virt() are inverses, and
//    differ by a constant: `init` refuses to make a table where that is not so.
// 3. A table goes to the gather's freelist and is freed by the driver after its IOTLB flush; the
//    caller's range lock keeps it from readers of other ranges, as `pt_iommu_ops` requires.
// 4. `iommu_pages_flush_incoherent()` is a cache clean with the barriers that DMA needs.
unsafe impl PtMem for KernelMem {
    type Cell = KernelCell;

    fn alloc(&self, lg2: u32) -> Result<NonNull<KernelCell>, Error> {
        self.alloc_page(lg2, true)
    }

    fn alloc_undefined(&self, lg2: u32) -> Result<NonNull<KernelCell>, Error> {
        if !self.reserve.is_null() {
            return self.take_page();
        }
        self.alloc_page(lg2, false)
    }

    unsafe fn free(&self, table: NonNull<KernelCell>) {
        // SAFETY: The caller gives a table that came from `alloc`, for the same device, and does
        // not use it again.
        unsafe { bindings::iommu_pages_free_incoherent(table.as_ptr().cast(), self.flush_dev) };
    }

    #[inline(always)]
    fn table_oa(table: NonNull<KernelCell>) -> Oa {
        Oa((table.as_ptr() as u64).wrapping_sub(linear_map()))
    }

    #[inline(always)]
    unsafe fn table_at(Oa(oa): Oa) -> NonNull<KernelCell> {
        let table = oa.wrapping_add(linear_map()) as *mut KernelCell;
        // SAFETY: The caller gives the address of a table, so it is in the linear map, which does
        // not contain the null pointer. `assert_unchecked` lets rustc drop null checks,
        // `new_unchecked` alone does not.
        unsafe {
            core::hint::assert_unchecked(!table.is_null());
            NonNull::new_unchecked(table)
        }
    }

    fn change_top(
        &self,
        old: NonNull<KernelCell>,
        new: NonNull<KernelCell>,
        level: Level,
    ) -> Result<(), Error> {
        // SAFETY: The table is initialised, and a table with a dynamic top has the driver ops. The
        // old top is one level below.
        let changed = unsafe {
            bindings::pt_iommu_rust_change_top(
                self.iommu,
                self.common,
                top_word(old, level.below()),
                top_word(new, level),
                Self::table_oa(new).0,
                u32::from(level.0),
            )
        };
        if changed {
            Ok(())
        } else {
            Err(Error::Raced)
        }
    }

    #[inline(always)]
    fn top(&self) -> (NonNull<KernelCell>, Level) {
        // SAFETY: The table is initialised. READ_ONCE: the top may change at any time.
        let top = unsafe { (&raw const (*self.common).top_of_table).read_volatile() };
        // SAFETY: An initialised table has a top, and no table is at address 0.
        let table = unsafe { NonNull::new_unchecked((top & !TOP_LEVEL_MASK) as *mut KernelCell) };
        (table, Level((top & TOP_LEVEL_MASK) as u8))
    }

    fn clean(&self, table: NonNull<KernelCell>, start: usize, len: Bytes) {
        // SAFETY: `start..start + len` is inside a table that `alloc` made for this device.
        unsafe {
            bindings::pt_iommu_rust_flush_incoherent(
                self.flush_dev,
                table.as_ptr().cast(),
                start,
                len.0 as usize,
            )
        };
    }
}
