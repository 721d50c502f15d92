// SPDX-License-Identifier: GPL-2.0-only

//! Table memory on the host that keeps accounts.
//!
//! A table's hardware address is its address in this process, so a walk goes through real memory.
//! Every table is counted, freed memory is poisoned, and between any two stores a test can look at
//! the tables, or play the hardware and set bits ([`watch`]).
//!
//! Tables live in a slab that is only returned when the [`Arena`] is dropped. So a wrong pointer in
//! the code under test ends in a clear panic and not in memory that belongs to somebody else.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use iotable::fmt::Format;
use iotable::mem::PtMem;
use iotable::range::Locked;
use iotable::{Bytes, Error, Iova, Level, Oa, RawTable, Result, Table};

use slab::{check_in_slab, not_poison, Slab, SLABS, SLOT, UNWRITTEN};
use watch::fire;

mod slab;
mod watch;

pub use slab::HostCell;
pub(crate) use slab::POISON;
pub use watch::{watch, watch_reads, Event, Step, Store};

/// Where an incoherent walker reads a byte from: both may happen at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// What the CPU wrote: its cache was written back, or it is coherent.
    Cpu,
    /// Only what was cleaned.
    Memory,
}

const UNUSED: u8 = 0;
const FREED: u8 = 0xff;

/// The environment for tests. Panics when dropped if a table leaked or was written to after it was
/// freed.
pub struct Arena {
    cpu: Slab,
    memory: Slab,
    /// Per slot: `UNUSED`, `FREED` or the lg2 of the bytes of the table in it.
    state: Box<[AtomicU8]>,
    next: AtomicUsize,
    freed: Mutex<VecDeque<usize>>,
    locks: Mutex<Vec<(u64, u64)>>,
    incoherent: bool,
    in_use: AtomicUsize,
    allocated: AtomicUsize,
    fail_in: AtomicI64,
    /// All tops that hardware was ever told of, if the table can grow; the last is the current one.
    tops: Mutex<Vec<(u64, Level)>>,
}

/// Not `Mutex::lock`, whose slow path is in the standard library, where ThreadSanitizer does not
/// see that it orders anything.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(error)) => return error.into_inner(),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
}

impl Arena {
    /// Room for `slots` tables of the format. If `incoherent`, a walker sees only what was cleaned.
    pub fn new<F: Format>(slots: usize, incoherent: bool) -> Arena {
        let slot = SLOT.max(8 << F::ITEMS_LG2);
        let cpu = Slab::new(slots, slot);
        let (start, end) = (cpu.address(), cpu.address() + (slots * slot) as u64);
        let entry = SLABS.iter().find(|entry| {
            (entry.0)
                .compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        });
        entry
            .expect("too many arenas at once")
            .1
            .store(end, Ordering::Release);
        Arena {
            cpu,
            memory: Slab::new(slots, slot),
            state: (0..slots).map(|_| AtomicU8::new(UNUSED)).collect(),
            next: AtomicUsize::new(0),
            freed: Mutex::default(),
            locks: Mutex::default(),
            incoherent,
            in_use: AtomicUsize::new(0),
            allocated: AtomicUsize::new(0),
            fail_in: AtomicI64::new(-1),
            tops: Mutex::default(),
        }
    }

    /// Whether the walker is incoherent.
    pub fn incoherent(&self) -> bool {
        self.incoherent
    }

    /// Where in table memory `addr` is: the same in each arena that is used in the same way.
    pub fn offset_of(&self, addr: u64) -> u64 {
        self.slot_offset(addr).1 as u64
    }

    /// The number of tables that are not freed.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The number of tables that were ever allocated.
    pub fn allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Lets the `k`-th allocation from now (0: the next) fail; `None`: none.
    pub fn fail_at(&self, k: Option<usize>) {
        let k = k.map_or(-1, |k| i64::try_from(k).unwrap());
        self.fail_in.store(k, Ordering::Relaxed);
    }

    /// The allocation that is to fail, counted from now.
    pub fn failure_in(&self) -> Option<usize> {
        usize::try_from(self.fail_in.load(Ordering::Relaxed)).ok()
    }

    /// Whether the failure that [`fail_at`](Self::fail_at) asked for is still to come.
    pub fn failure_pending(&self) -> bool {
        self.fail_in.load(Ordering::Relaxed) >= 0
    }

    fn slot_offset(&self, addr: u64) -> (usize, usize) {
        let offset = addr.wrapping_sub(self.cpu.address()) as usize;
        assert!(
            offset < self.state.len() * self.cpu.slot,
            "{addr:#x} is not in table memory"
        );
        (offset / self.cpu.slot, offset)
    }

    /// Small tables do not all start at a 4K boundary, to find code that takes that for granted.
    fn start(&self, slot: usize, lg2: u32) -> usize {
        let bytes = self.cpu.slot;
        slot * bytes + ((slot << lg2) & (bytes - 1))
    }

    /// Panics if the 8 bytes at `addr` are not in a table that is in use; else their offset.
    fn check(&self, addr: u64) -> usize {
        let (slot, offset) = self.slot_offset(addr);
        let lg2 = self.state[slot].load(Ordering::Acquire);
        assert_ne!(lg2, FREED, "{addr:#x} is in a freed table");
        assert_ne!(lg2, UNUSED, "{addr:#x} is not in a table");
        let start = self.start(slot, lg2.into());
        assert!(
            offset >= start && offset + 8 <= start + (1 << lg2),
            "{addr:#x} is outside of its table"
        );
        offset
    }

    /// The hardware reads an item.
    pub fn hw_read(&self, addr: u64, view: View) -> u64 {
        let offset = self.check(addr);
        not_poison(self.view(view).item(offset).load(Ordering::Acquire))
    }

    /// The items of a table, for the hardware to read.
    pub fn hw_items(&self, addr: u64, items: usize, view: View) -> &[HostCell] {
        let offset = self.check(addr);
        assert_eq!(
            self.check(addr + 8 * (items as u64 - 1)),
            offset + 8 * (items - 1)
        );
        self.view(view).items(offset, items)
    }

    fn view(&self, view: View) -> &Slab {
        match view {
            View::Memory if self.incoherent => &self.memory,
            View::Cpu | View::Memory => &self.cpu,
        }
    }

    /// The hardware sets bits in an item. Only coherent hardware does that.
    pub fn hw_set(&self, addr: u64, bits: u64) {
        assert!(!self.incoherent, "no A/D bits without coherent walks");
        self.cpu
            .item(self.check(addr))
            .fetch_or(bits, Ordering::AcqRel);
    }

    /// The hardware sets bits in an item if it still is `old`, which it walked; else it has to walk
    /// again.
    pub fn hw_update(&self, addr: u64, old: u64, bits: u64) -> bool {
        assert!(!self.incoherent, "no A/D bits without coherent walks");
        self.cpu
            .item(self.check(addr))
            .compare_exchange(old, old | bits, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Another CPU writes an item, and did not clean it yet.
    pub fn hw_publish(&self, addr: u64, item: u64) {
        let offset = self.check(addr);
        self.cpu.item(offset).store(item, Ordering::Release);
    }

    /// Gives an item any value: tests make bits that no operation makes.
    pub fn poke(&self, addr: u64, item: u64) {
        let offset = self.check(addr);
        self.cpu.item(offset).store(item, Ordering::Release);
        self.memory.item(offset).store(item, Ordering::Release);
    }

    /// Whether a table that is in use starts at `addr`.
    pub fn is_table(&self, addr: u64) -> bool {
        let (slot, offset) = self.slot_offset(addr);
        let lg2 = self.state[slot].load(Ordering::Acquire);
        lg2 != UNUSED && lg2 != FREED && offset == self.start(slot, lg2.into())
    }

    /// A new, empty top table.
    pub fn new_top<F: Format>(&self) -> Result<u64> {
        self.alloc(F::ITEMS_LG2 + 3).map(address)
    }

    /// Tells hardware of a top table that may change from now on.
    pub fn set_top(&self, addr: u64, level: Level) {
        assert!(self.is_table(addr), "{addr:#x} is not a table");
        lock(&self.tops).push((addr, level));
    }

    /// The top that hardware knows, if the table can grow.
    pub fn hw_top(&self) -> Option<(u64, Level)> {
        lock(&self.tops).last().copied()
    }

    /// All tops that hardware was told of, in order.
    pub fn tops(&self) -> Vec<(u64, Level)> {
        lock(&self.tops).clone()
    }

    /// The memory of the table at `addr`.
    pub fn memory(&self, addr: u64) -> NonNull<HostCell> {
        assert!(self.is_table(addr), "{addr:#x} is not a table");
        // SAFETY: The address is that of a table from `alloc`.
        unsafe { Self::table_at(Oa(addr)) }
    }

    /// The table at `addr`, taken to be of this level.
    pub fn table<F: Format>(&self, addr: u64, level: Level) -> Table<'_, F, Arena> {
        // SAFETY: It is a table, and its memory stays until the arena goes, which the result borrows.
        // Whatever its items are read as, a wrong one ends in a panic above.
        unsafe { Table::from_raw(self.memory(addr), level) }
    }

    /// Frees a table that went through a gather.
    pub fn free_gathered(&self, table: RawTable<Arena>) {
        self.release(address(table.ptr()));
    }

    /// Frees the table at `addr`.
    pub(crate) fn release(&self, addr: u64) {
        let (slot, offset) = self.slot_offset(addr);
        let lg2 = self.state[slot].swap(FREED, Ordering::AcqRel);
        assert_ne!(lg2, FREED, "table {addr:#x} is freed twice");
        assert_ne!(lg2, UNUSED, "free of {addr:#x}, which is no table");
        assert_eq!(offset, self.start(slot, lg2.into()), "not its start");
        self.fill(slot, POISON);
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        lock(&self.freed).push_back(slot);
    }

    fn fill(&self, slot: usize, item: u64) {
        let fill = |slab: &Slab| {
            for cell in slab.items(slot * slab.slot, slab.slot / 8) {
                // SAFETY: The item is in the slab. Plain as in `HostCell::init`: nobody uses the table.
                unsafe { cell.0.as_ptr().write(item) };
            }
        };
        fill(&self.cpu);
        if self.incoherent {
            fill(&self.memory);
        }
    }

    fn check_poison(&self, slot: usize) {
        for cell in self.cpu.items(slot * self.cpu.slot, self.cpu.slot / 8) {
            let item = cell.0.load(Ordering::Acquire);
            assert_eq!(item, POISON, "a table was written to after it was freed");
        }
    }

    /// Locks a range, as the range lock of `pt_iommu_ops`. Panics if part of it is locked already.
    pub fn lock(&self, va: u64, len: u64) -> Result<RangeLock<'_>> {
        // SAFETY: The guard that holds the value is what locks the range; tests use the value only
        // while they have the guard. Those with threads lock whole leaves; in the others nothing
        // else runs, but for what a test of violated locks does on purpose.
        let range = unsafe { Locked::new(Iova(va), Bytes(len)) }?;
        let last = range.last().0;
        let mut locks = lock(&self.locks);
        for &(start, before) in locks.iter() {
            assert!(before < va || last < start, "the range is locked");
        }
        locks.push((va, last));
        Ok(RangeLock { arena: self, range })
    }
}

/// Where a table is, for the CPU and for hardware.
fn address(table: NonNull<HostCell>) -> u64 {
    table.as_ptr() as u64
}

/// A locked range.
pub struct RangeLock<'a> {
    arena: &'a Arena,
    range: Locked,
}

impl RangeLock<'_> {
    /// The range, to be used while the lock is held.
    pub fn range(&self) -> Locked {
        self.range
    }

    /// A part of the range. Panics if it is not one.
    pub fn part(&self, va: u64, len: u64) -> Locked {
        let (first, last) = (self.range.va().0, self.range.last().0);
        assert!(first <= va && va + (len - 1) <= last);
        // SAFETY: The guard locks the range that this is a part of, and tests use the value only
        // while they have the guard.
        unsafe { Locked::new(Iova(va), Bytes(len)) }.unwrap()
    }
}

impl Drop for RangeLock<'_> {
    fn drop(&mut self) {
        let own = (self.range.va().0, self.range.last().0);
        lock(&self.arena.locks).retain(|&other| other != own);
    }
}

// SAFETY: 1. A slot is given out once until it is freed, aligned and zeroed in both views. 2. Both
// are the identity. 3. Memory is returned with the arena only. 4. `clean` copies to the view that
// an incoherent walker has.
unsafe impl PtMem for Arena {
    type Cell = HostCell;

    fn alloc(&self, lg2: u32) -> Result<NonNull<HostCell>> {
        assert!(lg2 >= 3 && 1 << lg2 <= self.cpu.slot);
        if self.fail_in.load(Ordering::Relaxed) >= 0
            && self.fail_in.fetch_sub(1, Ordering::Relaxed) == 0
        {
            return Err(Error::NoMemory);
        }
        let slot = match self.next.fetch_add(1, Ordering::Relaxed) {
            slot if slot < self.state.len() => slot,
            _ => {
                let slot = lock(&self.freed).pop_front();
                let slot = slot.expect("the arena is too small for this test");
                self.check_poison(slot);
                self.fill(slot, 0);
                slot
            }
        };
        let old = self.state[slot].swap(lg2 as u8, Ordering::AcqRel);
        assert!(old == UNUSED || old == FREED);
        self.in_use.fetch_add(1, Ordering::Relaxed);
        self.allocated.fetch_add(1, Ordering::Relaxed);
        let addr = self.cpu.address() + self.start(slot, lg2) as u64;
        fire(Step::Alloc, addr);
        // SAFETY: `addr` is in the slab.
        Ok(unsafe { Self::table_at(Oa(addr)) })
    }

    fn alloc_undefined(&self, lg2: u32) -> Result<NonNull<HostCell>> {
        let table = self.alloc(lg2)?;
        self.fill(self.slot_offset(address(table)).0, UNWRITTEN);
        Ok(table)
    }

    unsafe fn free(&self, table: NonNull<HostCell>) {
        fire(Step::Free, address(table));
        self.release(address(table));
    }

    fn table_oa(table: NonNull<HostCell>) -> Oa {
        Oa(address(table))
    }

    unsafe fn table_at(Oa(oa): Oa) -> NonNull<HostCell> {
        check_in_slab(oa);
        NonNull::new(oa as *mut HostCell).expect("checked")
    }

    fn change_top(&self, old: NonNull<HostCell>, new: NonNull<HostCell>, level: Level) -> Result {
        let (old, new) = (address(old), address(new));
        fire(Step::BeforeTop, new);
        let result = {
            let mut tops = lock(&self.tops);
            if tops.last() == Some(&(old, level.below())) {
                assert!(self.is_table(new), "the new top is not a table");
                tops.push((new, level));
                Ok(())
            } else {
                assert!(!tops.is_empty(), "this table does not grow");
                Err(Error::Raced)
            }
        };
        fire(Step::AfterTop, new);
        result
    }

    fn top(&self) -> (NonNull<HostCell>, Level) {
        let (addr, level) = self.hw_top().expect("this table does not grow");
        // SAFETY: `set_top` and `change_top` are given tables.
        (unsafe { Self::table_at(Oa(addr)) }, level)
    }

    fn clean(&self, table: NonNull<HostCell>, start: usize, len: Bytes) {
        let len = len.0 as usize;
        assert!(self.incoherent, "clean() of a coherent table");
        assert!(start % 8 == 0 && len % 8 == 0 && len != 0);
        let addr = address(table);
        assert!(
            self.is_table(addr),
            "clean() of {addr:#x}, which is no table"
        );
        let first = self.check(addr + start as u64);
        self.check(addr + (start + len - 8) as u64);
        for offset in (first..first + len).step_by(8) {
            let item = self.cpu.item(offset).load(Ordering::Acquire);
            self.memory.item(offset).store(item, Ordering::Release);
        }
        fire(Step::Cleaned, addr + start as u64);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let start = self.cpu.address();
        let entry = SLABS
            .iter()
            .find(|entry| entry.0.load(Ordering::Acquire) == start);
        if let Some((start, end)) = entry {
            end.store(0, Ordering::Release);
            start.store(0, Ordering::Release);
        }
        if std::thread::panicking() {
            return;
        }
        for (slot, state) in self.state.iter().enumerate() {
            if state.load(Ordering::Acquire) == FREED {
                self.check_poison(slot);
            }
        }
        assert_eq!(self.in_use(), 0, "tables leaked");
    }
}
