// SPDX-License-Identifier: GPL-2.0-only

//! AMD v1 ("host") tables, up to 6 levels, with leaves of almost every power of two.
//!
//! AMD I/O Virtualization Technology (IOMMU) Specification: section 2.2.3 "I/O Page Tables for Host
//! Translations", table 14 "Example Page Size Encodings", table 15 "Page Table Level Parameters".
//!
//! The specification's levels 1 to 6 are levels 0 to 5 here.

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
const PR: u64 = 1 << 0;
/// Accessed, set by hardware if HA is enabled.
const A: u64 = 1 << 5;
/// Dirty, set by hardware if HD is enabled.
const D: u64 = 1 << 6;
/// Next level: 0 a leaf of one item, 7 a leaf whose size is in the address, else a table.
const NEXT_LEVEL: u64 = 7 << NEXT_LEVEL_SHIFT;
const NEXT_LEVEL_SHIFT: u32 = 9;
/// Output or table address.
const OA: u64 = ((1 << 52) - 1) & !0xfff;
const OA_SHIFT: u32 = 12;
/// Force coherent.
const FC: u64 = 1 << 60;
/// Read access.
const IR: u64 = 1 << 61;
/// Write access.
const IW: u64 = 1 << 62;

/// AMD v1. With `MOCK` the variant of iommufd's selftest: pages of 2K, to find code that takes 4K
/// for granted.
#[derive(Debug)]
pub enum Amdv1<const MOCK: bool> {}

/// Features of AMD v1.
pub mod features {
    use super::Features;

    /// Table memory is encrypted: SME.
    pub const ENCRYPT_TABLES: Features = Features(1 << Features::FORMAT_START);
    /// Set FC in every leaf.
    pub const FORCE_COHERENCE: Features = Features(1 << (Features::FORMAT_START + 1));
}

impl<const MOCK: bool> Format for Amdv1<MOCK> {
    const NAME: &'static str = if MOCK { "amdv1_mock" } else { "amdv1" };
    const GRANULE_LG2: u32 = if MOCK { 11 } else { 12 };
    const MAX_TOP_LEVEL: Level = Level(if MOCK { 4 } else { 5 });
    const MAX_VA_LG2: u32 = if MOCK { 56 } else { 64 };
    const MAX_OA_LG2: u32 = if MOCK { 51 } else { 52 };
    const CONTIG: bool = true;
    const FEATURES: Features = if MOCK {
        Features::DYNAMIC_TOP
    } else {
        Features::FULL_VA
            .with(Features::DYNAMIC_TOP)
            .with(Features::FLUSH_RANGE)
            .with(Features::FLUSH_RANGE_NO_GAPS)
            .with(features::ENCRYPT_TABLES)
            .with(features::FORCE_COHERENCE)
    };
    // Each item encodes its own size, so items of one group may differ for a while. Nothing in the
    // specification asks for break-before-make.
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = D;
    const HW_BITS: u64 = A | D;
    const CLEANED: u64 = 0;
    const TOP_OA_MASK: u64 = OA;

    #[inline(always)]
    fn kind(item: u64, level: Level) -> Kind {
        if item & PR == 0 {
            return Kind::Empty;
        }
        let next_level = item & NEXT_LEVEL;
        if level.0 == 0 || next_level == 0 || next_level == NEXT_LEVEL {
            Kind::Leaf
        } else {
            Kind::Table
        }
    }

    #[inline(always)]
    fn table_oa(item: u64, params: &Params) -> Oa {
        Oa(((item & OA & !params.enc_mask) >> OA_SHIFT) << Self::GRANULE_LG2)
    }

    #[inline(always)]
    fn leaf_oa(item: u64, _level: Level, params: &Params) -> Oa {
        let mut field = (item & OA & !params.enc_mask) >> OA_SHIFT;
        if item & NEXT_LEVEL == NEXT_LEVEL {
            // The low bits that are one, and the zero above them, say the size.
            field = size::floor(field, field.trailing_ones());
        }
        Oa(field << Self::GRANULE_LG2)
    }

    #[inline(always)]
    fn contig_lg2(item: u64, level: Level, _params: &Params) -> u32 {
        if item & NEXT_LEVEL == 0 {
            return 0;
        }
        // Bits from the one below this level's own lowest address bit on: at level 0 that is a bit
        // of NEXT_LEVEL, which is 1.
        let shift = level
            .item_lg2::<Self>()
            .wrapping_sub(Self::GRANULE_LG2)
            .wrapping_add(OA_SHIFT)
            .wrapping_sub(1);
        size::shr(item, shift).trailing_ones()
    }

    #[inline(always)]
    fn is_single(item: u64, _level: Level, _params: &Params) -> bool {
        item & (PR | NEXT_LEVEL) == PR
    }

    #[inline(always)]
    fn leaf_attrs(item: u64, _level: Level, params: &Params) -> Attrs {
        Attrs(item & !((OA & !params.enc_mask) | NEXT_LEVEL))
    }

    #[inline(always)]
    fn encode_leaf(Oa(oa): Oa, size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let mut address = oa;
        let mut next_level = 0;
        if size_lg2 != level.item_lg2::<Self>() {
            next_level = NEXT_LEVEL;
            // The size: all ones below the bit of half of it, which is zero in the OA.
            address |= 1u64.wrapping_shl(size_lg2.wrapping_sub(1)).wrapping_sub(1);
        }
        (((address >> Self::GRANULE_LG2) << OA_SHIFT) & OA) | next_level | attrs.0
    }

    #[inline(always)]
    fn encode_table(Oa(oa): Oa, level: Level, params: &Params) -> u64 {
        // IR and IW are the AND over all levels: the leaf alone decides.
        let field = ((oa >> Self::GRANULE_LG2) << OA_SHIFT) & OA;
        field | (u64::from(level.0) << NEXT_LEVEL_SHIFT) | PR | IR | IW | params.enc_mask
    }

    #[inline(always)]
    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        // Table 15: the topmost level has no leaves ("translation entries").
        if level >= Self::MAX_TOP_LEVEL {
            return 0;
        }
        let lowest = level.item_lg2::<Self>();
        let highest = lowest.wrapping_add(Self::ITEMS_LG2).wrapping_sub(1).min(51);
        // Leaves of 512G are not used because of a hardware bug.
        (size::max_offset(highest.wrapping_add(1)) & !size::max_offset(lowest)) & !(1 << 39)
    }

    #[inline(always)]
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs> {
        let mut bits = PR;
        if params.features.has(features::FORCE_COHERENCE) && !MOCK {
            bits |= FC;
        }
        if prot.has(Prot::READ) {
            bits |= IR;
        }
        if prot.has(Prot::WRITE) {
            bits |= IW;
        }
        if !prot.has(Prot::MMIO) {
            bits |= params.enc_mask;
        }
        Ok(Attrs(bits))
    }
}
