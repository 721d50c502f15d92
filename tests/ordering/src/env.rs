// SPDX-License-Identifier: GPL-2.0-only

//! Table memory in which loom decides what each load sees.
//!
//! The orderings are those of the kernel (`iommu_pt/mem.rs`), and no stronger:
//!
//! - [`Cell::init`] is a plain store: loom reports any access to the item that is not ordered
//!   after it.
//! - [`Cell::read`], and the hardware's load, are relaxed. The address dependency is an acquire
//!   fence where the address in the item is followed ([`PtMem::table_at`], a walk): loom has no
//!   consume. So a value that is read but not followed orders nothing. A model can do without the
//!   fences ([`Options::fences`]) if nothing in it depends on an address.
//! - [`Cell::publish`] is a compare-exchange, release if it succeeds, relaxed if not.
//! - [`PtMem::clean`] copies the latest value, with all that is ordered before it, to what hardware
//!   that does not snoop reads, and orders that before later stores.
//!
//! [`Broken`] makes an environment that does not keep to these, for controls that have to fail.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Std};
use std::sync::Arc;

use iotable::mem::{Cell, PtMem};
use iotable::{Bytes, Error, Level, Oa, RawTable, Result};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{fence, Ordering};
use loom::sync::Mutex;

use crate::model::Word;

/// What an environment does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Broken {
    /// `publish` and `change_top` are relaxed.
    pub(crate) relaxed: bool,
    /// `publish` stores without a comparison.
    pub(crate) blind: bool,
    /// `clean` does nothing.
    pub(crate) no_clean: bool,
    /// `change_top` stores without a comparison.
    pub(crate) blind_top: bool,
    /// `read_acquire` orders nothing.
    pub(crate) plain_read: bool,
}

impl Broken {
    const NOTHING: Broken = Broken {
        relaxed: false,
        blind: false,
        no_clean: false,
        blind_top: false,
        plain_read: false,
    };
    pub(crate) const RELAXED: Broken = Broken {
        relaxed: true,
        ..Self::NOTHING
    };
    pub(crate) const BLIND: Broken = Broken {
        blind: true,
        ..Self::NOTHING
    };
    pub(crate) const NO_CLEAN: Broken = Broken {
        no_clean: true,
        ..Self::NOTHING
    };
    pub(crate) const BLIND_TOP: Broken = Broken {
        blind_top: true,
        ..Self::NOTHING
    };
    pub(crate) const PLAIN_READ: Broken = Broken {
        plain_read: true,
        ..Self::NOTHING
    };
}

/// How the stores of [`Cell::init`] are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// Plain: who reads one without order is told so.
    Plain,
    /// Relaxed: who reads one without order may get an old value, and goes on.
    Relaxed,
}

/// What a model chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Its threads, the first one included.
    pub(crate) threads: usize,
    pub(crate) incoherent: bool,
    pub(crate) init: Init,
    /// Where an address is followed there is an acquire fence. It is more than the dependency
    /// orders: all that was read before counts too, for loom even what was read by threads that
    /// happened before.
    pub(crate) fences: bool,
    pub(crate) broken: Broken,
}

/// A table item.
pub(crate) struct LoomCell {
    /// What CPUs, and hardware that snoops, see.
    value: Word,
    /// What hardware that does not snoop sees, if there is such: the largest value that was written
    /// back, since items only become larger there, and a write-back is of the latest value.
    memory: Option<Word>,
    /// Written to by plain stores, and read by each other access.
    plain: UnsafeCell<()>,
    freed: AtomicBool,
    init: Init,
    broken: Broken,
}

// SAFETY: `plain` holds no data; all else is atomic.
unsafe impl Sync for LoomCell {}

impl LoomCell {
    fn new(options: Options) -> Self {
        LoomCell {
            value: Word::new(options.threads),
            memory: options.incoherent.then(|| Word::new(options.threads)),
            plain: UnsafeCell::new(()),
            freed: AtomicBool::new(false),
            init: options.init,
            broken: options.broken,
        }
    }

    fn shared(&self) {
        assert!(!self.freed.load(Std::Relaxed), "use of a freed table");
        self.plain.with(|_| ());
    }

    /// Nobody else may use it at the same time.
    fn exclusive(&self) {
        assert!(!self.freed.load(Std::Relaxed), "use of a freed table");
        if self.init == Init::Plain {
            self.plain.with_mut(|_| ());
        }
    }

    /// The load of a hardware walk, of what was written back only or of all.
    pub(crate) fn walk(&self, memory: bool) -> u64 {
        if let (Some(word), true) = (&self.memory, memory) {
            assert!(!self.freed.load(Std::Relaxed), "use of a freed table");
            return word.load(Ordering::Relaxed);
        }
        self.shared();
        self.value.load(Ordering::Relaxed)
    }

    /// Hardware that sets bits without a look at the item.
    pub(crate) fn hw_set(&self, bits: u64) {
        self.shared();
        self.value.set_bits(bits, Ordering::Relaxed);
    }

    /// Hardware that sets bits if the item still is what it walked.
    pub(crate) fn hw_update(&self, old: u64, new: u64) -> bool {
        self.shared();
        self.value.replace(old, new, Ordering::Relaxed).is_ok()
    }

    fn release(&self) -> Ordering {
        if self.broken.relaxed {
            Ordering::Relaxed
        } else {
            Ordering::Release
        }
    }
}

// SAFETY: Each method is one atomic access to a word that loom keeps. That it is not 8 bytes is no harm: no
// hardware reads it.
unsafe impl Cell for LoomCell {
    fn read(&self) -> u64 {
        self.shared();
        self.value.load(Ordering::Relaxed)
    }

    fn read_acquire(&self) -> u64 {
        self.shared();
        self.value.load(if self.broken.plain_read {
            Ordering::Relaxed
        } else {
            Ordering::Acquire
        })
    }

    fn init(&self, item: u64) {
        self.exclusive();
        self.value.store(item, Ordering::Relaxed);
    }

    fn set(&self, item: u64) {
        self.shared();
        self.value.store(item, Ordering::Relaxed);
    }

    fn publish(&self, old: u64, new: u64) -> core::result::Result<(), u64> {
        self.shared();
        if self.broken.blind {
            self.value.store(new, self.release());
            return Ok(());
        }
        self.value.replace(old, new, self.release())
    }

    fn clear_bits(&self, bits: u64) {
        self.shared();
        let mut item = self.value.load(Ordering::Relaxed);
        if self.broken.blind {
            self.value.store(item & !bits, Ordering::Relaxed);
            return;
        }
        while let Err(now) = self.value.replace(item, item & !bits, Ordering::Relaxed) {
            item = now;
        }
    }
}

/// All tables that there will be. A freed one is not used again, so a late use is seen.
struct Pool {
    cells: Box<[LoomCell]>,
    items: usize,
    fences: bool,
    next: AtomicUsize,
    in_use: AtomicUsize,
}

std::thread_local! {
    /// The pool of the model that this thread runs: addresses have to be found without a value
    /// that leads to it. (Loom's threads are one real thread.)
    static POOL: RefCell<Option<Arc<Pool>>> = const { RefCell::new(None) };
}

const TABLE_LG2: u32 = 12;

impl Pool {
    fn current() -> Arc<Pool> {
        POOL.with_borrow(|pool| pool.clone().expect("no model runs"))
    }

    /// The items of the table at an address, which must be one.
    fn table(&self, oa: u64) -> &[LoomCell] {
        let n = (oa >> TABLE_LG2) as usize;
        assert!(
            oa % (1 << TABLE_LG2) == 0 && n != 0 && n <= self.next.load(Std::Relaxed),
            "{oa:#x} is no table"
        );
        &self.cells[(n - 1) * self.items..n * self.items]
    }

    /// An address that was read is followed.
    fn follow(&self) {
        if self.fences {
            fence(Ordering::Acquire);
        }
    }

    fn free(&self, table: NonNull<LoomCell>) {
        for cell in self.table(address(table)) {
            // Whatever anybody did with it comes before.
            cell.exclusive();
            assert!(!cell.freed.swap(true, Std::Relaxed), "freed twice");
        }
        self.in_use.fetch_sub(1, Std::Relaxed);
    }
}

/// The environment of a model.
pub(crate) struct LoomMem {
    pool: Arc<Pool>,
    /// Address and level of the top, for CPUs and for hardware.
    top: Word,
    hw_top: Word,
    top_lock: Mutex<()>,
    broken: Broken,
}

impl LoomMem {
    /// Room for `tables` tables of `2^items_lg2` items. To be made in a model, before its threads.
    pub(crate) fn new(tables: usize, items_lg2: u32, options: Options) -> LoomMem {
        let items = 1 << items_lg2;
        let cells = (0..tables * items).map(|_| LoomCell::new(options));
        let pool = Arc::new(Pool {
            cells: cells.collect(),
            items,
            fences: options.fences,
            next: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
        });
        POOL.set(Some(pool.clone()));
        LoomMem {
            pool,
            top: Word::new(options.threads),
            hw_top: Word::new(options.threads),
            top_lock: Mutex::new(()),
            broken: options.broken,
        }
    }

    /// The number of tables that are not freed.
    pub(crate) fn in_use(&self) -> usize {
        self.pool.in_use.load(Std::Relaxed)
    }

    /// Makes the first top known, before there are threads.
    pub(crate) fn set_top(&self, table: NonNull<LoomCell>, level: Level) {
        let word = address(table) | u64::from(level.0);
        self.top.store(word, Ordering::Relaxed);
        self.hw_top.store(word, Ordering::Relaxed);
    }

    /// Where hardware begins a walk, and the level.
    pub(crate) fn hw_top(&self) -> (u64, u8) {
        let word = self.hw_top.load(Ordering::Relaxed);
        (word & !0xff, word as u8)
    }

    /// The item of a walk: follows an address as a dependent load does.
    pub(crate) fn hw_item<R>(&self, oa: u64, index: usize, f: impl FnOnce(&LoomCell) -> R) -> R {
        self.pool.follow();
        f(&self.pool.table(oa)[index])
    }

    /// Frees a table that went through a gather.
    pub(crate) fn free_gathered(&self, table: RawTable<LoomMem>) {
        self.pool.free(table.ptr());
    }
}

impl Drop for LoomMem {
    fn drop(&mut self) {
        POOL.set(None);
    }
}

/// Where hardware finds a table.
fn address(table: NonNull<LoomCell>) -> u64 {
    let pool = Pool::current();
    let start = pool.cells.as_ptr();
    let offset = table.as_ptr() as usize - start as usize;
    let n = offset / size_of::<LoomCell>() / pool.items + 1;
    (n as u64) << TABLE_LG2
}

// SAFETY: 1. Each table is given out once, with all items 0. 2. Both count tables from 1. 3. Tables
// stay in the pool, which is dropped with the model. 4. `clean` copies to what a walker that does
// not snoop sees, and ends with a fence.
unsafe impl PtMem for LoomMem {
    type Cell = LoomCell;

    fn alloc(&self, lg2: u32) -> Result<NonNull<LoomCell>> {
        assert_eq!(1 << (lg2 - 3), self.pool.items);
        let n = self.pool.next.fetch_add(1, Std::Relaxed) + 1;
        assert!(
            n * self.pool.items <= self.pool.cells.len(),
            "pool too small"
        );
        self.pool.in_use.fetch_add(1, Std::Relaxed);
        let table = self.pool.table((n as u64) << TABLE_LG2);
        // Zeroing is a plain store.
        table.iter().for_each(LoomCell::exclusive);
        Ok(NonNull::from(table).cast())
    }

    unsafe fn free(&self, table: NonNull<LoomCell>) {
        self.pool.free(table);
    }

    fn table_oa(table: NonNull<LoomCell>) -> Oa {
        Oa(address(table))
    }

    unsafe fn table_at(Oa(oa): Oa) -> NonNull<LoomCell> {
        let pool = Pool::current();
        pool.follow();
        NonNull::from(pool.table(oa)).cast()
    }

    // As pt_iommu_rust_change_top() in iommu_pt/shim.c.
    fn change_top(&self, old: NonNull<LoomCell>, new: NonNull<LoomCell>, level: Level) -> Result {
        let old = address(old) | u64::from(level.0 - 1);
        let new = address(new) | u64::from(level.0);
        let order = if self.broken.relaxed {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        let locked = self.top_lock.lock().unwrap();
        if !self.broken.blind_top && self.top.load(Ordering::Relaxed) != old {
            return Err(Error::Raced);
        }
        self.hw_top.store(new, order);
        self.top.store(new, order);
        drop(locked);
        Ok(())
    }

    fn top(&self) -> (NonNull<LoomCell>, Level) {
        let word = self.top.load(Ordering::Relaxed);
        // SAFETY: `set_top` and `change_top` are given tables.
        let table = unsafe { Self::table_at(Oa(word & !0xff)) };
        (table, Level(word as u8))
    }

    fn clean(&self, table: NonNull<LoomCell>, start: usize, len: Bytes) {
        let end = start + len.0 as usize;
        let items = self.pool.table(address(table));
        for cell in &items[start / 8..end / 8] {
            cell.shared();
            let memory = cell.memory.as_ref().expect("clean() of a coherent table");
            if !self.broken.no_clean {
                // A read-modify-write sees the latest value, as a write-back does.
                let latest = cell.value.set_bits(0, Ordering::Acquire);
                memory.at_least(latest, Ordering::Release);
            }
        }
        fence(Ordering::Release);
    }
}
