// SPDX-License-Identifier: GPL-2.0-only

//! The memory that tables are in, and its items.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::watch::{fire, reads_are_watched, Step, Store};
use iotable::mem::Cell;

/// What fills a freed table. No format uses this value.
pub(crate) const POISON: u64 = 0xdead_f4ee_7ab1_e000;

/// What is in a table from [`PtMem::alloc_undefined`].
pub(super) const UNWRITTEN: u64 = 0xdead_0000_7ab1_e000;

/// Bytes of one place in the slab, at least; smaller tables use a part of it.
pub(super) const SLOT: usize = 4096;

/// A table item in host memory.
#[derive(Debug)]
#[repr(transparent)]
pub struct HostCell(pub(super) AtomicU64);

impl HostCell {
    fn at(&self) -> u64 {
        &raw const self.0 as u64
    }

    /// The hardware reads it.
    pub fn hw_read(&self) -> u64 {
        not_poison(self.0.load(Ordering::Acquire))
    }
}

pub(super) fn not_poison(item: u64) -> u64 {
    assert_ne!(item, POISON, "read of a freed table");
    assert_ne!(item, UNWRITTEN, "read of an item that is not written yet");
    item
}

// SAFETY: An `AtomicU64` is 8 naturally aligned bytes, and each method is one access with at least
// the ordering that is asked for, atomic but for `init`.
unsafe impl Cell for HostCell {
    fn read(&self) -> u64 {
        if reads_are_watched() {
            fire(Step::Read, self.at());
        }
        // Rust has no dependency ordering, so acquire.
        not_poison(self.0.load(Ordering::Acquire))
    }

    fn read_acquire(&self) -> u64 {
        if reads_are_watched() {
            fire(Step::Read, self.at());
        }
        not_poison(self.0.load(Ordering::Acquire))
    }

    fn init(&self, item: u64) {
        fire(Step::Before(Store::Init), self.at());
        let old = self.0.load(Ordering::Relaxed);
        if old != UNWRITTEN {
            not_poison(old);
        }
        // SAFETY: The item is valid and aligned. Plain, so that ThreadSanitizer sees who reads it without
        // order; the contract of `init` is that nobody can.
        unsafe { self.0.as_ptr().write(item) };
        fire(Step::After(Store::Init), self.at());
    }

    fn set(&self, item: u64) {
        fire(Step::Before(Store::Set), self.at());
        let old = not_poison(self.0.swap(item, Ordering::Release));
        assert!(
            old == 0 || item == 0,
            "set() of {old:#x} to {item:#x}: hardware may have changed it meanwhile"
        );
        fire(Step::After(Store::Set), self.at());
    }

    fn publish(&self, old: u64, new: u64) -> core::result::Result<(), u64> {
        fire(Step::Before(Store::Publish), self.at());
        let result = self
            .0
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        let result = result.map(|_| ()).map_err(not_poison);
        fire(Step::After(Store::Publish), self.at());
        result
    }

    fn clear_bits(&self, bits: u64) {
        fire(Step::Before(Store::Publish), self.at());
        not_poison(self.0.fetch_and(!bits, Ordering::Relaxed));
        fire(Step::After(Store::Publish), self.at());
    }
}

/// Zeroed memory, in pages that the system provides when they are first touched.
pub(super) struct Slab {
    memory: NonNull<u8>,
    layout: Layout,
    base: usize,
    /// Bytes of one place.
    pub(super) slot: usize,
}

// SAFETY: The slab owns its memory, so any thread may drop it.
unsafe impl Send for Slab {}
// SAFETY: The memory is only accessed as atomics.
unsafe impl Sync for Slab {}

impl Slab {
    /// So many places of `slot` bytes, a power of two.
    pub(super) fn new(slots: usize, slot: usize) -> Slab {
        // Small alignment and one slot more: so the allocator need not touch it to zero it.
        let layout = Layout::from_size_align((slots + 1) * slot, 16).unwrap();
        // SAFETY: The size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let base = memory.as_ptr().align_offset(slot);
        Slab {
            memory,
            layout,
            base,
            slot,
        }
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64 + self.base as u64
    }

    /// The 8 bytes at `offset`, which is inside and a multiple of 8.
    pub(super) fn item(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.layout.size() - self.slot);
        // SAFETY: The item is inside the allocation (its last slot makes up for `base`), aligned,
        // and accessed as atomics only.
        unsafe { &*self.memory.as_ptr().add(self.base + offset).cast() }
    }

    /// As many items from `offset` on, all of which are inside.
    pub(super) fn items(&self, offset: usize, count: usize) -> &[HostCell] {
        assert!(offset % 8 == 0 && offset + 8 * count <= self.layout.size() - self.slot);
        // SAFETY: All of the items are inside the allocation, aligned, and accessed as atomics only,
        // which a `HostCell` is.
        unsafe {
            let first = self.memory.as_ptr().add(self.base + offset).cast();
            core::slice::from_raw_parts(first, count)
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: The memory is from `alloc_zeroed` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// First address of the tables of each arena there is, or 0, and the address behind them.
pub(super) static SLABS: [(AtomicU64, AtomicU64); 256] =
    [const { (AtomicU64::new(0), AtomicU64::new(0)) }; 256];

/// Panics if no arena has a table at `addr`, so that a made up address is not followed.
pub(super) fn check_in_slab(addr: u64) {
    let inside = SLABS.iter().any(|(start, end)| {
        let start = start.load(Ordering::Acquire);
        start != 0 && start <= addr && addr < end.load(Ordering::Acquire)
    });
    assert!(
        inside && addr % 8 == 0,
        "a table item points to {addr:#x}, where no table is"
    );
}
