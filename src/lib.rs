// SPDX-License-Identifier: GPL-2.0-only

//! IOMMU page tables whose large entries can be split while devices use them.
//!
//! This crate has the algorithms of the Rust provider of `pt_iommu_ops`: formats and operations,
//! nothing else. It knows no operating system. Everything that it needs from outside comes in
//! through [`mem::PtMem`]. The same files are built by cargo for the host and by Kbuild for the
//! kernel.
//!
//! # Vocabulary
//!
//! The words are those of `drivers/iommu/generic_pt`:
//!
//! - **IOVA** or *va*: the address a device uses, [`Iova`]. **OA**: output address, what it is
//!   translated to, [`Oa`].
//! - **table**: one page of **items** (8 bytes each). An item is *empty*, a *table item* (points to
//!   a table one level below) or part of a *leaf*.
//! - **level**: 0 holds the smallest leaves; a level's item covers `item_lg2` bits of IOVA.
//! - **leaf** or **entry**: a translation. A *contiguous* leaf is a group of items, each of which
//!   describes the whole group.
//! - **last** is inclusive, **end** is exclusive; `_lg2` means the base-2 logarithm of bytes (or of
//!   a number of items).
//!
//! # Invariants
//!
//! 1. *Hitless*: during [`Pt::split`] and [`Pt::join`], after every single store, every IOVA
//!    translates to the same OA with the same rights and memory type as before, whichever mix of
//!    old and new items a walker or a cache holds. [`Pt::carve`] does the same outside of its
//!    range.
//! 2. *No dirty bit is lost*: an item that hardware may write to is changed in two ways only: by a
//!    compare-exchange, which carries over what hardware set meanwhile, or by an atomic and-not of
//!    its dirty bit.
//! 3. *Build unreachable, publish once*: memory that a table item points to is complete (and clean,
//!    for an incoherent walker) before the store that makes it reachable.
//! 4. A table that hardware could reach is freed only through a [`gather::Gather`] or a
//!    [`Flusher`], that is after the IOTLB flush that covers it.
//!
//! # Locking
//!
//! As in `pt_iommu_ops`: the caller holds a lock over the IOVA range of a call; other ranges may
//! change at the same time. A leaf changes as a whole. So if a leaf crosses an edge of the range of
//! a split, a carve or an unmap, the lock covers all of the leaf. A join frees tables, so the lock
//! also keeps [`Pt::iova_to_phys`] out. Evidence of the lock is a value, [`range::Locked`].
//!
//! Reading order: this page, [`fmt`], one format, `split.rs`, then the kernel layer.

#![cfg_attr(not(CONFIG_RUST), no_std)]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(test)]
extern crate std;

pub mod fmt;
pub mod gather;
pub mod mem;
pub mod range;

mod carve;
mod dirty;
mod join;
mod map;
mod pt;
mod query;
mod size;
mod split;
mod table;
mod top;
mod unmap;
mod walk;

pub use dirty::DirtySink;
pub use join::{
    can_join,
    Flusher,
    Joined,
    Stale, //
};
pub use map::Mapped;
pub use pt::{
    page_sizes,
    Config,
    Pt,
    Top, //
};
pub use size::{
    Bytes,
    Iova,
    Level,
    Oa, //
};
pub use split::{
    can_split,
    Replaced,
    SplitFlush, //
};
pub use table::{
    RawTable,
    Table, //
};
pub use walk::{
    Seen,
    Visitor, //
};

/// Why an operation failed. The kernel layer turns each into one errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The arguments are malformed: length 0, or not aligned to the smallest page.
    Invalid,
    /// The last address, `iova + len - 1`, does not fit in 64 bits.
    Overflow,
    /// The IOVA or the OA lies outside what this table can hold.
    OutOfRange,
    /// No page size fits the alignment of IOVA, OA and length.
    NoPageSize,
    /// Something is mapped already.
    Busy,
    /// Nothing is mapped.
    NotMapped,
    /// The hardware or the format cannot do this.
    NotSupported,
    /// A concurrent change was seen; the caller may try again.
    Raced,
    /// No memory for a table.
    NoMemory,
    /// The environment could not make a table usable; the value is the environment's own (negative)
    /// error code.
    Env(i32),
}

/// Result of this crate's operations.
pub type Result<T = ()> = core::result::Result<T, Error>;
