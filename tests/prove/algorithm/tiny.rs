// SPDX-License-Identifier: GPL-2.0-only

//! The algorithm on a format that is small enough for CBMC to look at every run. It is compiled to
//! wasm and that to C, where `algorithm.c` calls it and plays the memory, the hardware and the judge:
//! every access to an item is a call that goes there.

#![no_std]

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use iotable::fmt::{Attrs, Features, Format, Kind, Live, Params, Prot};
use iotable::gather::Gather;
use iotable::mem::{Cell, PtMem};
use iotable::range::Locked;
use iotable::{
    Bytes, Config, Error, Flusher, Iova, Level, Oa, Pt, RawTable, Result, SplitFlush, Stale, Table,
};

const ITEMS_LG2: u32 = if cfg!(four) { 2 } else { 1 };
const TOP: u8 = if cfg!(four) { 1 } else { 2 };
const PAGE: u32 = 8;
const TABLES: usize = if cfg!(four) { 4 } else { 8 };

/// Tables of 2 items, or of 4 with contiguous leaves of two items.
///
/// | bits | leaf | table |
/// |---|---|---|
/// | 0 | 1 | 1 |
/// | 1 | 1 | 0 |
/// | 2 | one of two items | 0 |
/// | 3 | execution is allowed | 0 |
/// | 15:8 | OA | address |
/// | 32 | accessed | accessed |
/// | 33 | dirty | ignored |
/// | 34 | writing is allowed | 0 |
/// | 35 | ignored | 0 |
///
/// What decides the way of the algorithm is in the low half, what differs from run to run is in the
/// high one: so CBMC can follow the first as constants. Bit 3 is for joins: leaves that differ there
/// must not be joined. What else differs, they may not look at.
enum Tiny {}

const PRESENT: u32 = 1 << 0;
const LEAF: u32 = 1 << 1;
const TWO: u32 = 1 << 2;
const EXEC: u32 = 1 << 3;
const OA: u64 = 0xff00;
const D: u64 = 1 << 33;
const HIGH: u64 = 0xffff_ffff << 32;

impl Format for Tiny {
    const NAME: &'static str = "tiny";
    const GRANULE_LG2: u32 = PAGE;
    const ITEMS_LG2: u32 = ITEMS_LG2;
    const MAX_TOP_LEVEL: Level = Level(TOP);
    const MAX_VA_LG2: u32 = PAGE + (TOP as u32 + 1) * ITEMS_LG2;
    const MAX_OA_LG2: u32 = 16;
    const CONTIG: bool = ITEMS_LG2 > 1;
    const FEATURES: Features = Features(0);
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = D;
    // More than hardware sets: whether the rest is the same then needs no look at the high half.
    const HW_BITS: u64 = HIGH;
    const CLEANED: u64 = 0;
    const TOP_OA_MASK: u64 = OA;

    fn kind(item: u64, _level: Level) -> Kind {
        let item = item as u32;
        if item & PRESENT == 0 {
            Kind::Empty
        } else if item & LEAF == 0 {
            Kind::Table
        } else {
            Kind::Leaf
        }
    }

    fn table_oa(item: u64, _params: &Params) -> Oa {
        Oa(item & OA)
    }

    fn leaf_oa(item: u64, _level: Level, _params: &Params) -> Oa {
        Oa(item & OA)
    }

    fn contig_lg2(item: u64, _level: Level, _params: &Params) -> u32 {
        u32::from(Self::CONTIG && item as u32 & TWO != 0)
    }

    fn leaf_attrs(item: u64, _level: Level, _params: &Params) -> Attrs {
        Attrs(item & (HIGH | EXEC as u64))
    }

    fn encode_leaf(Oa(oa): Oa, size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let two = Self::CONTIG && size_lg2 != level.item_lg2::<Self>();
        let low = PRESENT | LEAF | if two { TWO } else { 0 };
        u64::from(low) | (oa & OA) | attrs.0
    }

    fn encode_table(Oa(oa): Oa, _level: Level, _params: &Params) -> u64 {
        u64::from(PRESENT) | (oa & OA)
    }

    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        let one = 1 << level.item_lg2::<Self>();
        if Self::CONTIG {
            one | one << 1
        } else {
            one
        }
    }

    fn attrs(_prot: Prot, _params: &Params) -> Result<Attrs> {
        Err(Error::NotSupported)
    }
}

// Whatever has 64 bits is two halves: what the harness has is 32 bits wide.
extern "C" {
    fn item_read(at: *const Item) -> u32;
    /// The other half of what the last call has read.
    fn item_high() -> u32;
    fn item_init(at: *const Item, low: u32, high: u32);
    fn item_set(at: *const Item, low: u32, high: u32);
    /// The first half of a compare-exchange: whether it is this item.
    fn item_is(at: *const Item, low: u32, high: u32) -> u32;
    /// The second half. Nothing happens between the two.
    fn item_replace(at: *const Item, low: u32, high: u32);
    fn item_clear_bits(at: *const Item, low: u32, high: u32);
    /// Whether there is no memory for the next table.
    fn table_fails() -> u32;
    fn table_alloc(zeroed: u32) -> u32;
    fn table_free(table: u32);
    fn gather_table(table: u32, level: u32);
    fn gather_range(page: u32, pages: u32);
    fn replaced(page: u32, pages_lg2: u32, level: u32);
    fn flush();
    fn join_flush(page: u32, pages: u32, leaf_levels: u32, table_levels: u32);
    fn join_free(table: u32);
}

fn halves(item: u64) -> (u32, u32) {
    (item as u32, (item >> 32) as u32)
}

/// A place for an item. What is in it, the harness knows.
#[repr(transparent)]
struct Item(UnsafeCell<u64>);

// SAFETY: Nothing accesses what is in the cell: the address of a place only tells the harness which
// item is meant.
unsafe impl Sync for Item {}

const ITEMS: usize = 1 << ITEMS_LG2;

static PLACES: [Item; TABLES * ITEMS] = [const { Item(UnsafeCell::new(0)) }; TABLES * ITEMS];

/// Where the items are: the harness has to know.
#[no_mangle]
extern "C" fn places() -> *const Item {
    PLACES.as_ptr()
}

// SAFETY: Each method acts on the one item that the harness keeps for this place. It is a call, or
// two with nothing between them, that the compiler can neither see into nor leave out. There is one
// thread, and the harness makes each access when it is called, so all are in order.
unsafe impl Cell for Item {
    fn read(&self) -> u64 {
        // SAFETY: `item_read` takes any address and judges whether it may be read; `item_high` asks
        // for nothing.
        let (low, high) = unsafe { (item_read(self), item_high()) };
        u64::from(low) | u64::from(high) << 32
    }

    fn read_acquire(&self) -> u64 {
        self.read()
    }

    fn init(&self, item: u64) {
        let (low, high) = halves(item);
        // SAFETY: `item_init` takes any address and judges whether it is in a table that hardware
        // cannot reach.
        unsafe { item_init(self, low, high) }
    }

    fn set(&self, item: u64) {
        let (low, high) = halves(item);
        // SAFETY: `item_set` takes any address and judges whether it may be stored to now.
        unsafe { item_set(self, low, high) }
    }

    fn publish(&self, old: u64, new: u64) -> core::result::Result<(), u64> {
        let (low, high) = halves(old);
        // SAFETY: `item_is` takes any address and judges whether it is an item's.
        if unsafe { item_is(self, low, high) } == 0 {
            return Err(self.read());
        }
        let (low, high) = halves(new);
        // SAFETY: `item_replace` takes any address and judges the store. It follows an `item_is` of
        // this place that said yes.
        unsafe { item_replace(self, low, high) };
        Ok(())
    }

    fn clear_bits(&self, bits: u64) {
        let (low, high) = halves(bits);
        // SAFETY: `item_clear_bits` takes any arguments: the harness fails whenever it is called.
        unsafe { item_clear_bits(self, low, high) }
    }
}

struct Mem;

fn number(table: NonNull<Item>) -> u32 {
    ((table.as_ptr() as usize - places() as usize) / size_of::<Item>() / ITEMS) as u32
}

fn alloc(zeroed: u32) -> Result<NonNull<Item>> {
    // SAFETY: `table_fails` takes no arguments, and may be called at any time.
    if unsafe { table_fails() } != 0 {
        return Err(Error::NoMemory);
    }
    // SAFETY: `table_alloc` takes any argument. The table whose number it returns is not freed, and
    // its address is that number of pages.
    Ok(unsafe { Mem::table_at(Oa(u64::from(table_alloc(zeroed)) << PAGE)) })
}

// SAFETY: 1. The harness gives each table out once, with zeroes if it is told so, and what is at
// its place does not matter. 2. `table_oa` and `table_at` both count the tables from 0. 3. The
// harness never gives out a table again. 4. `clean` is not called, because the format has no
// incoherent walker.
unsafe impl PtMem for Mem {
    type Cell = Item;

    fn alloc(&self, _lg2: u32) -> Result<NonNull<Item>> {
        alloc(1)
    }

    fn alloc_undefined(&self, _lg2: u32) -> Result<NonNull<Item>> {
        alloc(0)
    }

    unsafe fn free(&self, table: NonNull<Item>) {
        // SAFETY: `table_free` takes any number and judges whether hardware never could reach the
        // table.
        unsafe { table_free(number(table)) }
    }

    fn table_oa(table: NonNull<Item>) -> Oa {
        Oa(u64::from(number(table)) << 8)
    }

    unsafe fn table_at(Oa(oa): Oa) -> NonNull<Item> {
        let place = PLACES.as_ptr().wrapping_add((oa as usize >> PAGE) * ITEMS);
        // SAFETY: The caller gives the address of a table, so this is the first of its places,
        // which is not null.
        unsafe { NonNull::new_unchecked(place.cast_mut()) }
    }

    fn change_top(&self, _old: NonNull<Item>, _new: NonNull<Item>, _level: Level) -> Result {
        Err(Error::NotSupported)
    }

    fn top(&self) -> (NonNull<Item>, Level) {
        // SAFETY: Address 0 is that of table 0, the top, which is never freed.
        (unsafe { Self::table_at(Oa(0)) }, Level(TOP))
    }

    fn clean(&self, _table: NonNull<Item>, _start: usize, _len: Bytes) {}
}

impl Gather<Mem> for Mem {
    fn table(&mut self, table: RawTable<Mem>, level: Level) {
        // SAFETY: `gather_table` takes any arguments and judges whether the table was live, at this
        // level, and is linked no more.
        unsafe { gather_table(number(table.ptr()), u32::from(level.0)) }
    }

    fn leaf(&mut self, _level: Level) {}

    fn range(&mut self, Iova(va): Iova, Bytes(len): Bytes) {
        // SAFETY: `gather_range` takes any range: it only notes what is to be flushed.
        unsafe { gather_range((va >> PAGE) as u32, (len >> PAGE) as u32) }
    }
}

impl Flusher<Mem> for Mem {
    fn flush(&mut self, stale: Stale) {
        let pages = (stale.va.through(stale.last).0 >> PAGE) as u32;
        // SAFETY: `join_flush` takes any arguments: a flush of whatever range and levels does no
        // harm.
        unsafe {
            join_flush(
                (stale.va.0 >> PAGE) as u32,
                pages,
                stale.leaf_levels,
                stale.table_levels,
            )
        }
    }

    fn free(&mut self, table: RawTable<Mem>) {
        // SAFETY: `join_free` takes any number and judges whether the table is unlinked and
        // flushed.
        unsafe { join_free(number(table.ptr())) }
    }
}

fn pt(mem: &Mem) -> Pt<'_, Tiny, Mem> {
    with_sizes(mem, 0xffff & ((1 << (Tiny::MAX_VA_LG2 - 1)) - 1) & !0xff)
}

fn with_sizes(mem: &Mem, pgsize_bitmap: u64) -> Pt<'_, Tiny, Mem> {
    let config = Config {
        params: Params::default(),
        max_va_lg2: Tiny::MAX_VA_LG2,
        max_oa_lg2: Tiny::MAX_OA_LG2,
        pgsize_bitmap,
    };
    let (top, level) = mem.top();
    // SAFETY: `top` gives the top table and the level of its items. It is never freed.
    Pt::new(mem, config, unsafe { Table::from_raw(top, level) })
}

fn code(result: Result) -> u32 {
    match result {
        Ok(()) => 0,
        Err(error) if error == Error::NotMapped => 1,
        Err(error) if error == Error::NoMemory => 2,
        Err(error) if error == Error::Busy => 3,
        Err(_) => 4,
    }
}

fn end(flush_of: Result<SplitFlush<'_, Tiny, Mem>>) -> u32 {
    code(flush_of.and_then(|split| {
        for leaf in split.leaves() {
            // SAFETY: `replaced` takes any arguments and judges whether they can be those of a
            // leaf.
            unsafe {
                replaced(
                    (leaf.va.0 >> PAGE) as u32,
                    leaf.size_lg2 - PAGE,
                    leaf.level.0.into(),
                )
            }
        }
        // SAFETY: `flush` takes no arguments, and may be called at any time.
        unsafe { flush() };
        split.finish()
    }))
}

fn locked(page: u32, pages: u32) -> Result<Locked> {
    let (va, len) = (u64::from(page) << PAGE, u64::from(pages) << PAGE);
    // SAFETY: There is one thread, and each operation is over, its result used up, before the next
    // one begins. So nobody else uses the table, as if all of it were locked.
    unsafe { Locked::new(Iova(va), Bytes(len)) }
}

#[no_mangle]
extern "C" fn split(page: u32, pages: u32) -> u32 {
    end(locked(page, pages).and_then(|range| pt(&Mem).split(range)))
}

#[no_mangle]
extern "C" fn carve(page: u32, pages: u32) -> u32 {
    end(locked(page, pages).and_then(|range| pt(&Mem).carve(range, &mut Mem)))
}

#[no_mangle]
extern "C" fn join(page: u32, pages: u32) -> u32 {
    let done = locked(page, pages).and_then(|range| with_sizes(&Mem, !0xff).join(range, &mut Mem));
    code(done.map(|_| ()))
}

/// Returns the pages that it unmapped.
#[no_mangle]
extern "C" fn unmap(page: u32, pages: u32) -> u32 {
    let bytes = locked(page, pages).map_or(Bytes(0), |range| pt(&Mem).unmap(range, &mut Mem));
    (bytes.0 >> PAGE) as u32
}

/// Returns the pages that it mapped, times 8, and the code of its result.
#[no_mangle]
extern "C" fn map(page: u32, pages: u32, oa_page: u32, attrs: u32) -> u32 {
    let oa = Oa(u64::from(oa_page) << PAGE);
    match locked(page, pages) {
        Ok(range) => {
            let mapped = pt(&Mem).map(range, oa, Attrs(u64::from(attrs) << 32), &mut Mem);
            ((mapped.bytes.0 >> PAGE) as u32) << 3 | code(mapped.result)
        }
        Err(error) => code(Err(error)),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
