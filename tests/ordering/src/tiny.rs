// SPDX-License-Identifier: GPL-2.0-only

//! The smallest format there can be, so that every interleaving can be looked at.
//!
//! A table has `2^ITEMS_LG2` items. Leaves are of every power of two of 4K. An item that changes
//! without becoming empty always becomes a larger number, which `cell.rs` uses.
//!
//! | bits | leaf | table |
//! |---|---|---|
//! | 0 | accessed | accessed |
//! | 1 | dirty | ignored |
//! | 2 | writing is allowed | 0 |
//! | 3 | ignored | 0 |
//! | 11:4 | ignored | address |
//! | 39:12 | OA | address |
//! | 57:56 | 3 minus the lg2 of the number of items | 0 |
//! | 60 | 1 | 0 |
//! | 61 | 0 | 1 |
//! | 62 | ignored | cleaned |
//! | others | ignored | 0 |

use iotable::fmt::{Attrs, Features, Format, Kind, Live, Params, Prot};
use iotable::{Error, Level, Oa, Result};
use iotable_judges::hw::{Bits, Entry, Hardware};

/// The accessed bit.
pub(crate) const A: u64 = 1 << 0;
/// The dirty bit.
pub(crate) const D: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const TABLE_OA: u64 = (1 << 40) - (1 << 4);
const LEAF_OA: u64 = (1 << 40) - (1 << 12);
const SIZE_SHIFT: u32 = 56;
const SIZE: u64 = 3 << SIZE_SHIFT;
const LEAF: u64 = 1 << 60;
const TABLE: u64 = 1 << 61;
const CLEANED: u64 = 1 << 62;

/// The format. With `MARKED`, a broken one: every table item says from the start that it was
/// cleaned.
#[derive(Debug)]
pub(crate) enum Tiny<const ITEMS_LG2: u32, const MARKED: bool> {}

impl<const ITEMS_LG2: u32, const MARKED: bool> Format for Tiny<ITEMS_LG2, MARKED> {
    const NAME: &'static str = "tiny";
    const GRANULE_LG2: u32 = 12;
    const ITEMS_LG2: u32 = ITEMS_LG2;
    const MAX_TOP_LEVEL: Level = Level(3);
    const MAX_VA_LG2: u32 = 12 + 4 * ITEMS_LG2;
    const MAX_OA_LG2: u32 = 40;
    const CONTIG: bool = true;
    const FEATURES: Features = Features::DMA_INCOHERENT.with(Features::DYNAMIC_TOP);
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = D;
    const HW_BITS: u64 = A | D;
    const CLEANED: u64 = CLEANED;
    const TOP_OA_MASK: u64 = TABLE_OA;

    fn kind(item: u64, _level: Level) -> Kind {
        if item & TABLE != 0 {
            Kind::Table
        } else if item & LEAF != 0 {
            Kind::Leaf
        } else {
            Kind::Empty
        }
    }

    fn table_oa(item: u64, _params: &Params) -> Oa {
        Oa(item & TABLE_OA)
    }

    fn leaf_oa(item: u64, _level: Level, _params: &Params) -> Oa {
        Oa(item & LEAF_OA)
    }

    fn contig_lg2(item: u64, _level: Level, _params: &Params) -> u32 {
        3 - ((item & SIZE) >> SIZE_SHIFT) as u32
    }

    fn leaf_attrs(item: u64, _level: Level, _params: &Params) -> Attrs {
        Attrs(item & !(LEAF_OA | SIZE | LEAF | TABLE))
    }

    fn encode_leaf(Oa(oa): Oa, size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let contig_lg2 = size_lg2 - level.item_lg2::<Self>();
        LEAF | (u64::from(3 - contig_lg2) << SIZE_SHIFT) | (oa & LEAF_OA) | attrs.0
    }

    fn encode_table(Oa(oa): Oa, _level: Level, _params: &Params) -> u64 {
        TABLE | (oa & TABLE_OA) | if MARKED { CLEANED } else { 0 }
    }

    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        ((1 << ITEMS_LG2) - 1) << level.item_lg2::<Self>()
    }

    fn attrs(prot: Prot, _params: &Params) -> Result<Attrs> {
        if !prot.has(Prot::READ) {
            return Err(Error::NotSupported);
        }
        Ok(Attrs(if prot.has(Prot::WRITE) { WRITE } else { 0 }))
    }
}

/// The hardware that the table above describes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TinyHw<const ITEMS_LG2: u32, const MARKED: bool>;

impl<const ITEMS_LG2: u32, const MARKED: bool> Hardware for TinyHw<ITEMS_LG2, MARKED> {
    type Format = Tiny<ITEMS_LG2, MARKED>;
    const GRANULE_LG2: u32 = 12;
    const ITEMS_LG2: u32 = ITEMS_LG2;
    const ACCESSED: u64 = 1;
    const DIRTY: u64 = 2;
    const IGNORED: u64 = 0xccff_ff00_0000_0ff8;

    fn new(_params: &Params) -> Self {
        TinyHw
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        match (item >> 60) & 3 {
            0 => {
                assert_eq!(item, 0, "neither a leaf nor a table: {item:#x}");
                Entry::Empty
            }
            1 => {
                let code = (item >> 56) & 3;
                assert!(code != 0 && 3 - code < ITEMS_LG2.into(), "size: {item:#x}");
                let size_lg2 = 12 + ITEMS_LG2 * u32::from(level) + (3 - code as u32);
                let oa = item & 0xff_ffff_f000;
                assert_eq!(oa & ((1 << size_lg2) - 1), 0, "address bits: {item:#x}");
                Entry::Leaf(Bits {
                    oa,
                    size_lg2,
                    read: true,
                    write: item & 4 != 0,
                    accessed: item & 1 != 0,
                    dirty: item & 2 != 0,
                    rest: item & Self::IGNORED,
                })
            }
            2 => {
                assert_ne!(level, 0, "a table item at level 0");
                assert_eq!(item & 0x8fff_ff00_0000_000c, 0, "reserved: {item:#x}");
                Entry::Table {
                    addr: item & 0xff_ffff_fff0,
                    read: true,
                    write: true,
                }
            }
            _ => panic!("both a leaf and a table: {item:#x}"),
        }
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        (prot.0 & 1 != 0).then_some((true, prot.0 & 2 != 0, 0))
    }

    fn page_sizes(&self) -> u64 {
        // Less than half of the space.
        (1 << (12 + 4 * ITEMS_LG2 - 1)) - (1 << 12)
    }
}

mod tests {
    use super::*;
    use iotable_judges::laws;

    #[test]
    fn the_tiny_formats_obey_the_laws() {
        for features in [Features::default(), Features::DMA_INCOHERENT] {
            let params = Params {
                features,
                enc_mask: 0,
            };
            laws::check::<TinyHw<1, false>>(&params);
            laws::check::<TinyHw<2, false>>(&params);
        }
    }
}
