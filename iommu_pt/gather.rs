// SPDX-License-Identifier: GPL-2.0-only

//! Puts what an operation removed into `struct iommu_iotlb_gather`.

use core::pin::Pin;

use iotable::fmt::Features;
use iotable::gather::Gather;
use iotable::{
    Bytes,
    Flusher,
    Iova,
    Level,
    RawTable,
    Replaced,
    Stale, //
};
use kernel::bindings;
use kernel::types::Opaque;
use pin_init::{
    pin_data,
    pin_init,
    PinInit, //
};

use crate::mem::KernelMem;

/// A list of tables, to be freed together.
///
/// # Invariants
///
/// `list` is initialised, and all that is on it are tables of `KernelMem`.
#[pin_data]
pub(crate) struct FreeList {
    #[pin]
    list: Opaque<bindings::iommu_pages_list>,
}

impl FreeList {
    /// An empty list.
    #[inline(always)]
    pub(crate) fn new() -> impl PinInit<Self> {
        // INVARIANT: A list head that points to itself is an empty list.
        pin_init!(Self {
            list <- Opaque::ffi_init(|list: *mut bindings::iommu_pages_list| {
                // SAFETY: The list is valid for writes. This is `INIT_LIST_HEAD()`, inlined.
                unsafe {
                    let head = &raw mut (*list).pages;
                    (*head).next = head;
                    (*head).prev = head;
                }
            }),
        })
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        // SAFETY: By the invariant the list is initialised.
        unsafe {
            let head = &raw mut (*self.list.get()).pages;
            (*head).next == head
        }
    }

    /// Adds a table, which is on no list: it was a part of a page table until now.
    #[inline(always)]
    pub(crate) fn add(&self, table: RawTable<KernelMem>) {
        // SAFETY: By the invariant the list is initialised, and a table that was part of a page
        // table is on no list.
        unsafe { bindings::iommu_pages_list_add(self.list.get(), table.ptr().as_ptr().cast()) };
    }

    /// What has to be done before the tables are freed, if they were made for an incoherent walker.
    ///
    /// # Safety
    ///
    /// `device` is the device that the tables were made for.
    pub(crate) unsafe fn stop_incoherent(&self, device: *mut bindings::device) {
        // SAFETY: By the invariant the list is initialised, and the caller gives its device.
        unsafe { bindings::iommu_pages_stop_incoherent_list(self.list.get(), device) };
    }

    /// Frees the tables.
    ///
    /// # Safety
    ///
    /// Nobody uses the tables any more, and the list is not used again.
    pub(crate) unsafe fn free(&self) {
        // SAFETY: By the invariant the list is initialised, and the caller answers for the tables.
        unsafe { bindings::iommu_put_pages_list(self.list.get()) };
    }

    /// Moves the tables to the freelist of a gather. Nothing is on this list afterwards.
    fn splice(&self, to: Iotlb) {
        // SAFETY: By the invariants both lists are initialised; ours is made empty again.
        unsafe {
            let list = self.list.get();
            bindings::iommu_pages_list_splice(list, &raw mut (*to.gather).freelist);
            bindings::INIT_LIST_HEAD(&raw mut (*list).pages);
        }
    }
}

/// Where an op that has no gather from its caller gathers.
#[pin_data]
pub(crate) struct OwnGather {
    #[pin]
    list: FreeList,
    #[pin]
    gather: Opaque<bindings::iommu_iotlb_gather>,
}

impl OwnGather {
    /// Not initialised yet but for its list: a map seldom has anything to gather.
    #[inline(always)]
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- FreeList::new(),
            gather: Opaque::uninit(),
        })
    }
}

/// `struct iommu_iotlb_gather` in use for a call on a table.
///
/// # Invariants
///
/// For as long as the value or a copy of it is used, `iommu` is an initialised table, and `gather`
/// is valid, initialised, and used through these alone.
#[derive(Clone, Copy)]
pub(crate) struct Iotlb {
    iommu: *mut bindings::pt_iommu,
    features: Features,
    gather: *mut bindings::iommu_iotlb_gather,
}

/// What a split tells the tracepoint of `iommu_split()`.
pub(crate) struct Tally {
    pub(crate) leaves: u8,
    pub(crate) flushes: u8,
    pub(crate) tables: u16,
}

impl Iotlb {
    /// # Safety
    ///
    /// For as long as the value or a copy of it is used, `iommu` is an initialised table with these
    /// features, and `gather` is valid, initialised, and used through these alone.
    #[inline(always)]
    pub(crate) unsafe fn new(
        iommu: *mut bindings::pt_iommu,
        features: Features,
        gather: *mut bindings::iommu_iotlb_gather,
    ) -> Self {
        // INVARIANT: By the safety requirement.
        Iotlb {
            iommu,
            features,
            gather,
        }
    }

    /// Flushes what was gathered, and frees the tables. Nothing is gathered afterwards.
    #[inline(always)]
    pub(crate) fn sync(self) {
        // SAFETY: By the invariant both are initialised, and the domain is a part of the table.
        unsafe { bindings::iommu_iotlb_sync(&raw mut (*self.iommu).domain, self.gather) };
    }

    /// Whether anybody reads the dirty bits of the table.
    #[inline(always)]
    pub(crate) fn tracks_dirty(self) -> bool {
        // SAFETY: By the invariant the table is initialised, and its domain with it.
        unsafe { !(*self.iommu).domain.dirty_ops.is_null() }
    }

    #[inline(always)]
    fn is_disjoint(self, va: Iova, len: Bytes) -> bool {
        let (va, len) = (va.0 as usize, len.0 as usize);
        // SAFETY: By the invariant the gather is initialised.
        unsafe { bindings::iommu_iotlb_gather_is_disjoint(self.gather, va, len) }
    }

    /// Adds `len` from `va` on. If no flush is to include what is between them and what was
    /// gathered before, that is flushed first. Returns whether it was.
    #[inline(always)]
    fn add(self, va: Iova, len: Bytes, no_gaps: bool) -> bool {
        let apart = no_gaps && self.is_disjoint(va, len);
        if apart {
            self.sync();
        }
        // SAFETY: By the invariant the gather is initialised, and nobody else uses it now.
        unsafe { add_range(self.gather, va, len) };
        apart
    }

    /// Adds the levels of leaves and of table items that were removed, for a driver that asks.
    #[inline(always)]
    fn add_levels(self, leaves: u8, tables: u8) {
        if self.features.has(Features::DETAILED_GATHER) {
            // SAFETY: By the invariant the gather is valid; all of the union's members are
            // integers, so what is there is a valid `pt`.
            unsafe {
                let pt = &mut (*self.gather).__bindgen_anon_1.pt;
                pt.leaf_levels_bitmap |= leaves;
                pt.table_levels_bitmap |= tables;
            }
        }
    }

    /// Adds a leaf that smaller ones replaced. Returns whether what was gathered before was
    /// flushed: the edges of a split may be far apart, and two small flushes keep what is cached
    /// between them.
    pub(crate) fn add_replaced(self, leaf: Replaced) -> bool {
        let flushed = self.add(leaf.va, leaf.bytes(), true);
        self.add_levels(level_bit(leaf.level), 0);
        // SAFETY: By the invariant the gather is valid.
        unsafe { (*self.gather).leaf_to_table = true };
        flushed
    }

    /// Adds all that is cached of leaves and tables that a larger leaf took the place of.
    fn add_stale(self, stale: Stale) {
        self.add(stale.va, stale.va.through(stale.last), false);
        self.add_levels(stale.leaf_levels as u8, stale.table_levels as u8);
        // SAFETY: By the invariant the gather is valid.
        unsafe { (*self.gather).leaf_to_table = true };
    }

    /// Leaves the tally where the caller of the op looks for it.
    pub(crate) fn tell(self, tally: Tally) {
        // SAFETY: By the invariant the gather is valid; all of the union's members are integers, so
        // what is there is a valid `pt`.
        unsafe {
            let pt = &mut (*self.gather).__bindgen_anon_1.pt;
            pt.split_leaves = tally.leaves;
            pt.split_flushes = tally.flushes;
            pt.split_tables = tally.tables;
        }
    }
}

/// Whose gather a `KernelGather` gathers into.
#[repr(u16)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Caller,
    /// The op's own, which is not initialised yet.
    OwnUnused,
    Own,
}

/// Gathers for one call of an op.
///
/// Tables are collected on a list of their own and only handed over together with the range that
/// covers them: what is on the iotlb gather's list may be freed by the flush of an earlier range.
///
/// # Invariants
///
/// If the gather of `iotlb` is not initialised, `whose` says so, and it is not used.
pub(crate) struct KernelGather<'a> {
    iotlb: Iotlb,
    list: Pin<&'a FreeList>,
    whose: Whose,
    leaf_levels: u8,
    table_levels: u8,
}

impl<'a> KernelGather<'a> {
    /// Gathers into the gather of the op's caller.
    #[inline(always)]
    pub(crate) fn new(iotlb: Iotlb, list: Pin<&'a FreeList>) -> Self {
        KernelGather {
            iotlb,
            list,
            whose: Whose::Caller,
            leaf_levels: 0,
            table_levels: 0,
        }
    }

    /// Gathers into an `iotlb` of its own, for an op that is not given one;
    /// [`sync_own`](Self::sync_own) flushes it.
    ///
    /// # Safety
    ///
    /// `iommu` is valid and initialised for the life of the value.
    #[inline(always)]
    pub(crate) unsafe fn new_owned(
        iommu: *mut bindings::pt_iommu,
        features: Features,
        own: Pin<&'a mut OwnGather>,
    ) -> Self {
        let own = own.project();
        // SAFETY: The caller gives an initialised table. The gather is borrowed, and pinned, for
        // the life of the value, and `start` initialises it before it is used.
        let iotlb = unsafe { Iotlb::new(iommu, features, own.gather.get()) };
        // INVARIANT: It is not initialised yet.
        KernelGather {
            iotlb,
            list: own.list.into_ref(),
            whose: Whose::OwnUnused,
            leaf_levels: 0,
            table_levels: 0,
        }
    }

    /// Flushes and frees what an owned gather collected, if anything.
    #[inline(always)]
    pub(crate) fn sync_own(self) {
        if self.whose == Whose::Own {
            self.iotlb.sync();
        }
    }

    /// Hands over the range, and the tables on the list with it.
    fn range_with_tables(&mut self, va: Iova, len: Bytes) {
        if self.whose == Whose::OwnUnused {
            self.start();
        }
        let tables = !self.list.is_empty();
        if tables && self.iotlb.features.has(Features::DMA_INCOHERENT) {
            // SAFETY: By the invariant of `Iotlb` the table is initialised, and its device is the
            // one the tables were made for.
            unsafe { self.list.stop_incoherent((*self.iotlb.iommu).iommu_device) };
        }
        self.gather_range(va, len);
        if tables {
            self.list.splice(self.iotlb);
        }
    }

    #[inline(always)]
    fn gather_range(&mut self, va: Iova, len: Bytes) {
        // SAFETY: By the invariant of `Iotlb` the gather is initialised.
        let queued = unsafe { (*self.iotlb.gather).queued };
        // With a flush queue everything is flushed later.
        if !queued {
            // A sync frees what was gathered for earlier ranges only.
            let no_gaps = self.iotlb.features.has(Features::FLUSH_RANGE_NO_GAPS);
            self.iotlb.add(va, len, no_gaps);
        }
        self.iotlb.add_levels(self.leaf_levels, self.table_levels);
        self.leaf_levels = 0;
        self.table_levels = 0;
    }

    #[cold]
    fn start(&mut self) {
        // SAFETY: The gather is this value's own, pinned, and not in use yet.
        unsafe { bindings::iommu_iotlb_gather_init(self.iotlb.gather) };
        // INVARIANT: It is initialised now.
        self.whose = Whose::Own;
    }
}

/// Adds `len` from `va` on to a gather: `iommu_iotlb_gather_add_range()`, inlined.
///
/// # Safety
///
/// `iotlb` is valid and nobody else uses it.
#[inline(always)]
pub(crate) unsafe fn add_range(iotlb: *mut bindings::iommu_iotlb_gather, va: Iova, len: Bytes) {
    // SAFETY: The caller gives a gather that is valid and that nobody else uses now.
    let iotlb = unsafe { &mut *iotlb };
    let (start, end) = (va.0 as usize, va.last_of(len).0 as usize);
    iotlb.start = iotlb.start.min(start);
    iotlb.end = iotlb.end.max(end);
}

/// The bit of a level in the bitmaps of `iommu_iotlb_gather`.
#[inline(always)]
pub(crate) fn level_bit(level: Level) -> u8 {
    1u8.wrapping_shl(level.0.into())
}

impl Gather<KernelMem> for KernelGather<'_> {
    fn table(&mut self, table: RawTable<KernelMem>, level: Level) {
        self.list.add(table);
        self.table_levels |= level_bit(level);
    }

    #[inline(always)]
    fn leaf(&mut self, level: Level) {
        self.leaf_levels |= level_bit(level);
    }

    #[inline(always)]
    fn range(&mut self, va: Iova, len: Bytes) {
        if self.whose != Whose::Caller || !self.list.is_empty() {
            return self.range_with_tables(va, len);
        }
        self.gather_range(va, len);
    }
}

/// Flushes for a join, and frees the tables that it detaches.
///
/// # Invariants
///
/// Hardware cannot reach what is on `list` any more.
pub(crate) struct KernelFlusher<'a> {
    iotlb: Iotlb,
    list: Pin<&'a FreeList>,
}

impl<'a> KernelFlusher<'a> {
    /// Frees what was on `list` when the result is dropped. The list is not used again.
    pub(crate) fn new(iotlb: Iotlb, list: Pin<&'a FreeList>) -> Self {
        // INVARIANT: A new list is empty.
        KernelFlusher { iotlb, list }
    }
}

impl Flusher<KernelMem> for KernelFlusher<'_> {
    fn flush(&mut self, stale: Stale) {
        self.iotlb.add_stale(stale);
        self.iotlb.sync();
    }

    fn free(&mut self, table: RawTable<KernelMem>) {
        // INVARIANT: A join gives back what no item leads to, after the flush.
        self.list.add(table);
    }
}

impl Drop for KernelFlusher<'_> {
    fn drop(&mut self) {
        if self.list.is_empty() {
            return;
        }
        // SAFETY: By the type invariant nobody uses the tables, and the list ends with this value;
        // by that of `Iotlb` the table is initialised, with the device that they were made for.
        unsafe {
            if self.iotlb.features.has(Features::DMA_INCOHERENT) {
                self.list.stop_incoherent((*self.iotlb.iommu).iommu_device);
            }
            self.list.free();
        }
    }
}
