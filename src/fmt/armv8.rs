// SPDX-License-Identifier: GPL-2.0-only

//! Arm VMSAv8-64 tables of an SMMUv3, stage 1 and stage 2, with granules of 4K, 16K and 64K.
//!
//! Arm Architecture Reference Manual for A-profile architecture (DDI 0487): section D8.2.6 and on
//! (granules), section D8.3 "Translation table descriptor formats", section D8.4 (permissions),
//! section D8.5 (hardware updates). Arm SMMU Architecture Specification, version 3 (IHI 0070):
//! section 3.4 "Address sizes", section 3.21.1 "Translation tables and TLB invalidation".
//!
//! Arm counts levels from the top, its last is 3:
//!
//! | level | Arm's level | 4K | 16K | 64K |
//! |---|---|---|---|---|
//! | 0 | 3 | page, 4K | page, 16K | page, 64K |
//! | 1 | 2 | block, 2M | block, 32M | block, 512M |
//! | 2 | 1 | block, 1G | tables of 32M items | tables of 512M items |
//! | 3 | 0 | tables of 1G items | tables of 64G items | none |
//!
//! A granule is a format of its own, [`Armv8<12>`](Armv8) and so on, because the size of a table
//! follows from it. A stage is a feature: only what [`Format::attrs`] makes depends on it.
//!
//! Left out: addresses of more than 48 bits, whose highest bits lie below the others in an item
//! (law 6); the contiguous hint, where each item of a group has its own OA (law 4); the dirty
//! state, which hardware sets by making a bit 0; several top tables side by side.

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
const VALID: u64 = 1 << 0;
/// In a table of level 0: a page, without this bit the item is reserved. Above: a table and not a
/// block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Both.
const TYPE: u64 = VALID | TABLE_OR_PAGE;
/// Stage 1: AttrIndx, a number of an attribute in MAIR. The driver puts the types of memory there.
const ATTR_INDEX_SHIFT: u32 = 2;
/// Normal memory, cached (write-back).
const INDEX_CACHE: u64 = 1;
/// Device memory. Number 0 is normal memory that is not cached.
const INDEX_DEVICE: u64 = 2;
/// Stage 2: MemAttr.
const MEM_ATTR_SHIFT: u32 = 2;
/// Device-nGnRE.
const MEM_DEVICE: u64 = 0x1;
/// Normal, not cached.
const MEM_NON_CACHEABLE: u64 = 0x5;
/// With FWB: write-back, whatever stage 1 says.
const MEM_FORCED_WRITE_BACK: u64 = 0x6;
/// Write-back, as far as stage 1 agrees.
const MEM_WRITE_BACK: u64 = 0xf;
/// Stage 1, AP[1]: unprivileged requests, too.
const UNPRIVILEGED: u64 = 1 << 6;
/// Stage 1, AP[2]: not for writing.
const READ_ONLY: u64 = 1 << 7;
/// Stage 2, S2AP[0]: reading.
const S2_READ: u64 = 1 << 6;
/// Stage 2, S2AP[1]: writing.
const S2_WRITE: u64 = 1 << 7;
/// Shareable by all observers, or by those of the inner domain.
const OUTER_SHAREABLE: u64 = 2 << 8;
const INNER_SHAREABLE: u64 = 3 << 8;
/// Access flag; Linux sets it beforehand.
const AF: u64 = 1 << 10;
/// Stage 1: not global.
const NG: u64 = 1 << 11;
/// Output or table address. Its lowest bits are 0 where the granule is larger.
const OA: u64 = ((1 << 48) - 1) & !0xfff;
/// Not for execution, privileged or not: PXN and UXN, or both bits of stage 2.
const XN: u64 = 3 << 53;
/// For software, in what points to a table ignored; io-pgtable-arm has the same use for it.
const SW_SYNC: u64 = 1 << 55;

/// Arm, 64 bits, with a granule of `2^GRANULE_LG2` bytes: 12, 14 or 16.
#[derive(Debug)]
pub enum Armv8<const GRANULE_LG2: u32> {}

/// Features of Arm, numbered as upstream's `enum` has them.
pub mod features {
    use super::Features;

    /// Stage 2: from the addresses of a guest.
    pub const S2: Features = Features(1 << (Features::FORMAT_START + 2));
    /// Stage 2 decides on the type of memory, whatever stage 1 says: FWB.
    pub const S2FWB: Features = Features(1 << (Features::FORMAT_START + 4));
}

impl<const GRANULE_LG2: u32> Armv8<GRANULE_LG2> {
    /// The highest level that has blocks.
    const BLOCKS_TO: Level = Level(if GRANULE_LG2 == 12 { 2 } else { 1 });
}

impl<const GRANULE_LG2: u32> Format for Armv8<GRANULE_LG2> {
    const NAME: &'static str = match GRANULE_LG2 {
        12 => "armv8_4k",
        14 => "armv8_16k",
        16 => "armv8_64k",
        _ => panic!("no such granule"),
    };
    const GRANULE_LG2: u32 = GRANULE_LG2;
    // A table is as large as the granule.
    const ITEMS_LG2: u32 = GRANULE_LG2 - 3;
    const MAX_TOP_LEVEL: Level = Level(if GRANULE_LG2 == 16 { 2 } else { 3 });
    const MAX_VA_LG2: u32 = 48;
    const MAX_OA_LG2: u32 = 48;
    const CONTIG: bool = false;
    const FEATURES: Features = Features::DMA_INCOHERENT
        .with(Features::FLUSH_RANGE)
        .with(Features::FLUSH_RANGE_NO_GAPS)
        .with(Features::DETAILED_GATHER)
        .with(features::S2)
        .with(features::S2FWB);
    // IHI 0070, 3.21.1: with BBML 2 a block may become a table that translates the same, and a
    // table a block. No conflict is reported; one of the entries is used, not a mix of them, and an
    // invalidation removes all that overlap. Below BBML 2 it must be made invalid first: the driver
    // knows which SMMU is so, and does not use these tables there.
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = 0;
    const HW_BITS: u64 = AF;
    const CLEANED: u64 = SW_SYNC;
    const TOP_OA_MASK: u64 = OA;

    #[inline(always)]
    fn kind(item: u64, level: Level) -> Kind {
        if item & VALID == 0 {
            Kind::Empty
        } else if level.0 == 0 || item & TABLE_OR_PAGE == 0 {
            Kind::Leaf
        } else {
            Kind::Table
        }
    }

    #[inline(always)]
    fn table_oa(item: u64, _params: &Params) -> Oa {
        Oa(item & OA)
    }

    #[inline(always)]
    fn leaf_oa(item: u64, _level: Level, _params: &Params) -> Oa {
        Oa(item & OA)
    }

    #[inline(always)]
    fn leaf_attrs(item: u64, _level: Level, _params: &Params) -> Attrs {
        Attrs(item & !(OA | TYPE))
    }

    #[inline(always)]
    fn encode_leaf(Oa(oa): Oa, _size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let item_type = if level.0 == 0 { TYPE } else { VALID };
        (oa & OA) | item_type | attrs.0
    }

    #[inline(always)]
    fn encode_table(Oa(oa): Oa, _level: Level, _params: &Params) -> u64 {
        // The bits that take rights away from all below are 0: the leaf alone decides.
        (oa & OA) | TYPE
    }

    #[inline(always)]
    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        if level <= Self::BLOCKS_TO {
            size::pow2(level.item_lg2::<Self>())
        } else {
            0
        }
    }

    #[inline(always)]
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs> {
        let (read, write) = (prot.has(Prot::READ), prot.has(Prot::WRITE));
        if !read && !write {
            return Err(Error::Invalid);
        }
        let mut bits = AF;
        bits |= if prot.has(Prot::CACHE) {
            INNER_SHAREABLE
        } else {
            OUTER_SHAREABLE
        };
        if prot.has(Prot::NOEXEC) {
            bits |= XN;
        }
        if params.features.has(features::S2) {
            if read {
                bits |= S2_READ;
            }
            if write {
                bits |= S2_WRITE;
            }
            let memory = if prot.has(Prot::MMIO) {
                MEM_DEVICE
            } else if !prot.has(Prot::CACHE) {
                MEM_NON_CACHEABLE
            } else if params.features.has(features::S2FWB) {
                MEM_FORCED_WRITE_BACK
            } else {
                MEM_WRITE_BACK
            };
            bits |= memory << MEM_ATTR_SHIFT;
        } else {
            bits |= NG;
            if !write {
                bits |= READ_ONLY;
            }
            if !prot.has(Prot::PRIV) {
                bits |= UNPRIVILEGED;
            }
            if prot.has(Prot::MMIO) {
                bits |= INDEX_DEVICE << ATTR_INDEX_SHIFT;
            } else if prot.has(Prot::CACHE) {
                bits |= INDEX_CACHE << ATTR_INDEX_SHIFT;
            }
        }
        Ok(Attrs(bits))
    }
}
