// SPDX-License-Identifier: GPL-2.0-only

//! The environment: what this crate needs from outside.

use crate::{
    Bytes,
    Level,
    Oa,
    Result, //
};
use core::ptr::NonNull;

/// One 8-byte table item in memory that hardware may read, and set bits in, at any instant.
///
/// Methods are named by what they are for, so that each use shows its reason and each environment
/// (kernel, host threads, loom) can give it the ordering it needs.
///
/// # Safety
///
/// All methods act on the same 8 naturally aligned bytes, each as one access that cannot tear, and
/// with no caching by the compiler across calls. Orderings are as given at each method.
pub unsafe trait Cell {
    /// The current value. A read through an address that the value contains comes after it
    /// (`READ_ONCE`).
    fn read(&self) -> u64;

    /// As [`read`](Self::read), and no later access moves before it (acquire).
    fn read_acquire(&self) -> u64;

    /// Writes an item of a table that hardware cannot reach yet. The compiler may combine it with
    /// the writes of neighbouring items; [`publish`](Self::publish) orders all of them.
    fn init(&self, item: u64);

    /// Writes an item that is empty before the write or after it (`WRITE_ONCE`). Under the range
    /// lock the caller is its only software writer, and bits that hardware sets in an item that
    /// goes away are of no use.
    fn set(&self, item: u64);

    /// Replaces `old` by `new` if the item still is `old`, else returns what it is now.
    ///
    /// Release: all writes before it, to whatever memory, are visible to the hardware before `new`
    /// is, on a uniprocessor kernel too.
    fn publish(&self, old: u64, new: u64) -> core::result::Result<(), u64>;

    /// Makes these bits 0 in one atomic step, so that other bits which hardware sets meanwhile
    /// stay.
    fn clear_bits(&self, bits: u64);

    /// [`clear_bits`](Self::clear_bits) of each, one after another.
    #[inline]
    fn clear_bits_of(cells: &[Self], bits: u64)
    where
        Self: Sized,
    {
        for cell in cells {
            cell.clear_bits(bits);
        }
    }
}

/// The environment of one call on one table.
///
/// # Safety
///
/// 1. [`alloc`](Self::alloc) returns memory of `2^lg2` bytes, aligned to its size, zeroed, that
///    nobody else uses; if the walker is incoherent the zeroes are in memory, not only in a cache.
///    [`alloc_undefined`](Self::alloc_undefined) does the same, but for the zeroes.
/// 2. [`table_at`](Self::table_at) is the inverse of [`table_oa`](Self::table_oa) for every table
///    that either returned and that is not freed.
/// 3. A table given to a [`Gather`](crate::gather::Gather) stays allocated until the flush that
///    follows, and until no reader under the range lock of another range can hold it.
/// 4. After [`clean`](Self::clean) returns, the bytes are in memory for a walker that does not
///    snoop; it also orders them before later writes.
pub unsafe trait PtMem {
    /// A table item in this environment. Exactly 8 bytes where hardware reads it. In a test it may
    /// be larger; a table then has the same number of items.
    type Cell: Cell;

    /// A zeroed table of `2^lg2` bytes.
    fn alloc(&self, lg2: u32) -> Result<NonNull<Self::Cell>>;

    /// As [`alloc`](Self::alloc), but with any contents: the caller writes, and cleans, all of it.
    #[inline]
    fn alloc_undefined(&self, lg2: u32) -> Result<NonNull<Self::Cell>> {
        self.alloc(lg2)
    }

    /// Frees a table.
    ///
    /// # Safety
    ///
    /// `table` came from `alloc` or `alloc_undefined`, hardware cannot reach it and never could,
    /// and it is not used again.
    unsafe fn free(&self, table: NonNull<Self::Cell>);

    /// The address by which hardware reaches the table.
    fn table_oa(table: NonNull<Self::Cell>) -> Oa;

    /// The table at this address.
    ///
    /// # Safety
    ///
    /// `oa` is the [`table_oa`](Self::table_oa) of a table that is not freed.
    unsafe fn table_at(oa: Oa) -> NonNull<Self::Cell>;

    /// Makes the table `new` of `level` the top in place of `old`, for hardware and for readers
    /// alike, if `old` still is the top. Only called if the table has
    /// [`DYNAMIC_TOP`](crate::fmt::Features::DYNAMIC_TOP).
    ///
    /// Release: a reader that sees the new top sees all writes before the call.
    ///
    /// If `old` is not the top any more: [`Error::Raced`](crate::Error::Raced), and nothing has
    /// changed.
    fn change_top(
        &self,
        old: NonNull<Self::Cell>,
        new: NonNull<Self::Cell>,
        level: Level,
    ) -> Result;

    /// The top table and its level, read as one.
    fn top(&self) -> (NonNull<Self::Cell>, Level);

    /// Makes `len` from byte `start` of the table on visible to an incoherent walker. Only
    /// called if the table has [`DMA_INCOHERENT`](crate::fmt::Features::DMA_INCOHERENT).
    fn clean(&self, table: NonNull<Self::Cell>, start: usize, len: Bytes);
}
