// SPDX-License-Identifier: GPL-2.0-only

//! x86-64 tables, 4 and 5 levels: Intel VT-d first stage and AMD v2 ("guest") tables.
//!
//! Intel Virtualization Technology for Directed I/O, Architecture Specification: section 3.6
//! "First-Stage Translation", section 9.7 "First-Stage Paging Entries". AMD I/O Virtualization
//! Technology (IOMMU) Specification: section 2.2.6 "I/O Page Tables for Guest Translations".
//!
//! | level | name in the specifications |
//! |---|---|
//! | 0 | PTE |
//! | 1 | PDE |
//! | 2 | PDPTE |
//! | 3 | PML4E |
//! | 4 | PML5E |

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
    Level,
    Oa,
    Result, //
};

/// Present.
const P: u64 = 1 << 0;
/// Writable.
const RW: u64 = 1 << 1;
/// User.
const U: u64 = 1 << 2;
/// Accessed.
const A: u64 = 1 << 5;
/// Dirty; Linux sets it beforehand.
const D: u64 = 1 << 6;
/// Page size: a leaf above level 0.
const PS: u64 = 1 << 7;
/// Page attribute table index 2 of a level 0 leaf: the place of PS in larger ones.
const PAT: u64 = 1 << 7;
/// The same of a larger leaf.
const PAT_LARGE: u64 = 1 << 12;
/// Ignored by hardware; the first software bit of the C format, with the same use.
const SW0: u64 = 1 << 9;
/// Output or table address.
const OA: u64 = ((1 << 52) - 1) & !0xfff;

/// VT-d first stage, AMD v2.
#[derive(Debug)]
pub enum X86_64 {}

impl X86_64 {
    /// Table memory is encrypted: AMD SME.
    pub const AMD_ENCRYPT_TABLES: Features = Features(1 << Features::FORMAT_START);
}

impl Format for X86_64 {
    const NAME: &'static str = "x86_64";
    const GRANULE_LG2: u32 = 12;
    const MAX_TOP_LEVEL: Level = Level(4);
    const MAX_VA_LG2: u32 = 57;
    const MAX_OA_LG2: u32 = 52;
    const CONTIG: bool = false;
    const FEATURES: Features = Features::SIGN_EXTEND
        .with(Features::FLUSH_RANGE)
        .with(Features::FLUSH_RANGE_NO_GAPS)
        .with(Features::DMA_INCOHERENT)
        .with(Self::AMD_ENCRYPT_TABLES);
    // The rule is the processor's: page size must not change together with the page frame or the
    // rights while P is set. A split changes the size only.
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = 0;
    const HW_BITS: u64 = A | D;
    const CLEANED: u64 = SW0;
    const TOP_OA_MASK: u64 = OA;

    #[inline(always)]
    fn kind(item: u64, level: Level) -> Kind {
        if item & P == 0 {
            Kind::Empty
        } else if level.0 == 0 || (level.0 <= 2 && item & PS != 0) {
            Kind::Leaf
        } else {
            Kind::Table
        }
    }

    #[inline(always)]
    fn table_oa(item: u64, params: &Params) -> Oa {
        Oa(item & OA & !params.enc_mask)
    }

    #[inline(always)]
    fn leaf_oa(item: u64, level: Level, params: &Params) -> Oa {
        let oa = size::floor(item & OA & !params.enc_mask, level.item_lg2::<Self>());
        Oa(oa)
    }

    #[inline(always)]
    fn leaf_attrs(item: u64, level: Level, params: &Params) -> Attrs {
        let bits = item & !(OA & !params.enc_mask);
        if level.0 == 0 {
            return Attrs(bits);
        }
        let pat = if item & PAT_LARGE != 0 { PAT } else { 0 };
        Attrs((bits & !PS) | pat)
    }

    #[inline(always)]
    fn encode_leaf(Oa(oa): Oa, _size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let item = (oa & OA) | attrs.0;
        if level.0 == 0 {
            return item;
        }
        let pat = if attrs.0 & PAT != 0 { PAT_LARGE } else { 0 };
        item | PS | pat
    }

    #[inline(always)]
    fn encode_table(Oa(oa): Oa, _level: Level, params: &Params) -> u64 {
        (oa & OA) | P | RW | U | A | params.enc_mask
    }

    #[inline(always)]
    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        if level.0 <= 2 {
            size::pow2(level.item_lg2::<Self>())
        } else {
            0
        }
    }

    #[inline(always)]
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs> {
        let mut bits = P | U | A;
        if prot.has(Prot::WRITE) {
            bits |= RW | D;
        }
        if !prot.has(Prot::MMIO) {
            bits |= params.enc_mask;
        }
        Ok(Attrs(bits))
    }
}
