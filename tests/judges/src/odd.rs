// SPDX-License-Identifier: GPL-2.0-only

//! A format that no hardware has, to break what is taken for granted about the others.
//!
//! - The granule is 2K, a table has 128 items and is 1K: neither is 4K.
//! - 4 levels; items of 2K, 256K, 32M, 4G. Leaves are contiguous in every power of two of items, up
//!   to half a table. But a single item of level 2 cannot be a leaf, its neighbours in size can:
//!   cutting a 64M leaf in two needs two tables.
//! - The table spans 39 bits, the highest of which extends to bit 63.
//! - Write permission is a bit that must be 0; A and D are where others have rights.
//!
//! | bits | leaf | table |
//! |---|---|---|
//! | 0 | accessed | accessed |
//! | 1 | dirty | ignored |
//! | 2 | 0 | 1 |
//! | 5:3 | lg2 of the number of items, xor 5 | 0 |
//! | 6 | memory type | 0 |
//! | 7 | snoop | 0 |
//! | 8 | ignored | 0 |
//! | 9 | ignored | ignored |
//! | 51:10 | OA, with the encryption bit in it | address, with the encryption bit in it |
//! | 56:52 | ignored | ignored |
//! | 57 | ignored | cleaned |
//! | 59:58 | ignored | ignored |
//! | 60 | writing is forbidden | the same |
//! | 61 | reading is allowed | the same |
//! | 62 | ignored | ignored |
//! | 63 | valid | valid |

#![forbid(unsafe_code)]

use iotable::fmt::{Attrs, Features, Format, Kind, Live, Params, Prot};
use iotable::{Error, Level, Oa, Result};

const A: u64 = 1 << 0;
const D: u64 = 1 << 1;
const TABLE: u64 = 1 << 2;
const SIZE_SHIFT: u32 = 3;
const SIZE: u64 = 7 << SIZE_SHIFT;
const SIZE_XOR: u64 = 5;
const SNOOP: u64 = 1 << 7;
const OA: u64 = ((1 << 52) - 1) & !((1 << 10) - 1);
const CLEANED: u64 = 1 << 57;
const READ_ONLY: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const VALID: u64 = 1 << 63;

/// The odd format, on hardware that allows to replace a live leaf by a table, or not, and to resize
/// a live contiguous leaf, or not.
#[derive(Debug)]
pub enum OddFmt<const TO_TABLE: bool, const RESIZE: bool> {}

/// The one that can be split.
pub type Odd = OddFmt<true, true>;

/// The encryption bit that tests use.
pub const ENC: u64 = 1 << 49;

impl<const TO_TABLE: bool, const RESIZE: bool> Format for OddFmt<TO_TABLE, RESIZE> {
    const NAME: &'static str = "odd";
    const GRANULE_LG2: u32 = 11;
    const ITEMS_LG2: u32 = 7;
    const MAX_TOP_LEVEL: Level = Level(3);
    const MAX_VA_LG2: u32 = 39;
    const MAX_OA_LG2: u32 = 52;
    const CONTIG: bool = true;
    const FEATURES: Features = Features::SIGN_EXTEND
        .with(Features::DMA_INCOHERENT)
        .with(Features::FLUSH_RANGE_NO_GAPS)
        .with(Features::DETAILED_GATHER);
    const LIVE: Live = Live {
        leaf_to_table: TO_TABLE,
        table_to_leaf: TO_TABLE,
        contig_resize: RESIZE,
    };
    const DIRTY: u64 = D;
    const HW_BITS: u64 = A | D;
    const CLEANED: u64 = CLEANED;
    const TOP_OA_MASK: u64 = OA;

    #[inline(always)]
    fn kind(item: u64, _level: Level) -> Kind {
        if item & VALID == 0 {
            Kind::Empty
        } else if item & TABLE != 0 {
            Kind::Table
        } else {
            Kind::Leaf
        }
    }

    #[inline(always)]
    fn table_oa(item: u64, params: &Params) -> Oa {
        Oa(item & OA & !params.enc_mask)
    }

    #[inline(always)]
    fn leaf_oa(item: u64, _level: Level, params: &Params) -> Oa {
        Oa(item & OA & !params.enc_mask)
    }

    #[inline(always)]
    fn contig_lg2(item: u64, _level: Level, _params: &Params) -> u32 {
        (((item & SIZE) >> SIZE_SHIFT) ^ SIZE_XOR) as u32
    }

    #[inline(always)]
    fn leaf_attrs(item: u64, _level: Level, params: &Params) -> Attrs {
        Attrs(item & (!(VALID | TABLE | SIZE | OA) | params.enc_mask))
    }

    #[inline(always)]
    fn encode_leaf(Oa(oa): Oa, size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let contig_lg2 = size_lg2.wrapping_sub(level.item_lg2::<Self>());
        let size = ((u64::from(contig_lg2) ^ SIZE_XOR) << SIZE_SHIFT) & SIZE;
        VALID | size | (oa & OA) | attrs.0
    }

    #[inline(always)]
    fn encode_table(Oa(oa): Oa, _level: Level, params: &Params) -> u64 {
        VALID | TABLE | READ | (oa & OA) | params.enc_mask
    }

    #[inline(always)]
    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        let single = 1 << level.item_lg2::<Self>();
        let all = single * ((1 << Self::ITEMS_LG2) - 1);
        if level.0 == 2 {
            all & !single
        } else {
            all
        }
    }

    #[inline(always)]
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs> {
        if !prot.has(Prot::READ) {
            return Err(Error::NotSupported);
        }
        let mut bits = READ;
        if !prot.has(Prot::WRITE) {
            bits |= READ_ONLY;
        }
        if prot.has(Prot::CACHE) {
            bits |= SNOOP;
        }
        if !prot.has(Prot::MMIO) {
            bits |= params.enc_mask;
        }
        Ok(Attrs(bits))
    }
}
