// SPDX-License-Identifier: GPL-2.0-only

//! RISC-V Sv39, Sv48 and Sv57 tables.
//!
//! The RISC-V Instruction Set Manual, Volume II: chapters "Sv39", "Sv48", "Sv57", the extensions
//! "Svnapot" and "Svpbmt"; RISC-V IOMMU Architecture Specification.
//!
//! Level n is the specification's level n: 4K, 2M, 1G, 512G, 256T.

#![forbid(unsafe_code)]

use super::{
    Attrs,
    Features,
    Format,
    Kind,
    Live,
    Params,
    Prot, //
};
use crate::size;
use crate::{
    Error,
    Level,
    Oa,
    Result, //
};

/// Valid.
const V: u64 = 1 << 0;
/// Readable.
const R: u64 = 1 << 1;
/// Writable.
const W: u64 = 1 << 2;
/// Executable.
const X: u64 = 1 << 3;
/// User.
const U: u64 = 1 << 4;
/// Accessed; Linux sets it beforehand.
const A: u64 = 1 << 6;
/// Dirty; Linux sets it beforehand.
const D: u64 = 1 << 7;
/// Physical page number.
const PPN: u64 = ((1 << 54) - 1) & !0x3ff;
const PPN_SHIFT: u32 = 10;
/// The lowest four bits of the page number: its size, in a NAPOT leaf.
const PPN_NAPOT: u64 = 0xf << PPN_SHIFT;
/// Their value for 64K.
const NAPOT_64K: u64 = 1 << 13;
/// Svpbmt: non-cacheable memory.
const NC: u64 = 1 << 61;
/// Svpbmt: I/O.
const IO: u64 = 1 << 62;
/// Svnapot: one of a naturally aligned group.
const N: u64 = 1 << 63;

/// RISC-V, 64 bits.
#[derive(Debug)]
pub enum Riscv64 {}

impl Riscv64 {
    /// Leaves of 64K: Svnapot.
    pub const SVNAPOT_64K: Features = Features(1 << Features::FORMAT_START);
    /// Memory types in leaves: Svpbmt.
    pub const SVPBMT: Features = Features(1 << (Features::FORMAT_START + 1));
}

impl Format for Riscv64 {
    const NAME: &'static str = "riscv_64";
    const GRANULE_LG2: u32 = 12;
    const MAX_TOP_LEVEL: Level = Level(4);
    const MAX_VA_LG2: u32 = 57;
    const MAX_OA_LG2: u32 = 56;
    const CONTIG: bool = true;
    const FEATURES: Features = Features::SIGN_EXTEND
        .with(Features::FLUSH_RANGE)
        .with(Features::DETAILED_GATHER)
        .with(Self::SVNAPOT_64K)
        .with(Self::SVPBMT);
    // The IOMMU's software guidelines: promotion and demotion are the one update of a PTE that is
    // allowed without making it invalid first.
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = 0;
    const HW_BITS: u64 = A | D;
    const CLEANED: u64 = 0;
    const TOP_OA_MASK: u64 = ((1 << 56) - 1) & !0xfff;

    #[inline(always)]
    fn kind(item: u64, level: Level) -> Kind {
        if item & V == 0 {
            Kind::Empty
        } else if level.0 == 0 || item & (R | W | X) != 0 {
            Kind::Leaf
        } else {
            Kind::Table
        }
    }

    #[inline(always)]
    fn table_oa(item: u64, _params: &Params) -> Oa {
        Oa(((item & PPN) >> PPN_SHIFT) << 12)
    }

    #[inline(always)]
    fn leaf_oa(item: u64, _level: Level, _params: &Params) -> Oa {
        let ppn = if item & N != 0 {
            item & PPN & !PPN_NAPOT
        } else {
            item & PPN
        };
        Oa((ppn >> PPN_SHIFT) << 12)
    }

    #[inline(always)]
    fn contig_lg2(item: u64, _level: Level, _params: &Params) -> u32 {
        if item & N != 0 {
            4
        } else {
            0
        }
    }

    #[inline(always)]
    fn leaf_attrs(item: u64, _level: Level, _params: &Params) -> Attrs {
        Attrs(item & !(PPN | N))
    }

    #[inline(always)]
    fn encode_leaf(Oa(oa): Oa, size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let napot = if size_lg2 != level.item_lg2::<Self>() {
            N | NAPOT_64K
        } else {
            0
        };
        (((oa >> 12) << PPN_SHIFT) & PPN) | napot | attrs.0
    }

    #[inline(always)]
    fn encode_table(Oa(oa): Oa, _level: Level, _params: &Params) -> u64 {
        (((oa >> 12) << PPN_SHIFT) & PPN) | V
    }

    #[inline(always)]
    fn leaf_sizes(level: Level, params: &Params) -> u64 {
        let napot = if level.0 == 0 && params.features.has(Self::SVNAPOT_64K) {
            1 << 16
        } else {
            0
        };
        size::pow2(level.item_lg2::<Self>()) | napot
    }

    #[inline(always)]
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs> {
        let mut bits = V | A | U;
        if prot.has(Prot::WRITE) {
            bits |= W | R | D;
        }
        if prot.has(Prot::READ) {
            bits |= R;
        }
        if !prot.has(Prot::NOEXEC) {
            bits |= X;
        }
        if params.features.has(Self::SVPBMT) {
            if prot.has(Prot::MMIO) {
                bits |= IO;
            } else if !prot.has(Prot::CACHE) {
                bits |= NC;
            }
        }
        if bits & (X | W | R) == 0 {
            return Err(Error::NotSupported);
        }
        Ok(Attrs(bits))
    }
}
