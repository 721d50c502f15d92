// SPDX-License-Identifier: GPL-2.0-only

//! AMD v1, section 2.2.3 of the specification, and the variant with 2K pages of iommufd's selftest.

#![forbid(unsafe_code)]

use super::{Bits, Entry, Hardware};
use iotable::fmt::amdv1::Amdv1;
use iotable::fmt::{Params, Prot};

/// AMD's host tables. With `MOCK` addresses are in units of 2K.
#[derive(Clone, Copy, Debug)]
pub struct Amd<const MOCK: bool> {
    enc_mask: u64,
    force_coherence: bool,
}

impl<const MOCK: bool> Amd<MOCK> {
    const UNIT_LG2: u32 = if MOCK { 11 } else { 12 };
    /// Levels with leaves; the specification counts from 1.
    const LEAF_LEVELS: u8 = if MOCK { 4 } else { 5 };
}

impl<const MOCK: bool> Hardware for Amd<MOCK> {
    type Format = Amdv1<MOCK>;
    const GRANULE_LG2: u32 = Self::UNIT_LG2;
    const ITEMS_LG2: u32 = 9;
    const ACCESSED: u64 = 0x20;
    const DIRTY: u64 = 0x40;
    // Bits 63, 8:7 and 4:1.
    const IGNORED: u64 = 0x8000_0000_0000_019e;

    fn new(params: &Params) -> Self {
        Amd {
            enc_mask: params.enc_mask,
            force_coherence: !MOCK && params.features.0 & (1 << 8) != 0,
        }
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        if item & 1 == 0 {
            // Hardware ignores the rest; an operation leaves nothing behind.
            assert_eq!(item, 0, "not present, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let read = (item >> 61) & 1 == 1;
        let write = (item >> 62) & 1 == 1;
        let units = (item & 0x000f_ffff_ffff_f000 & !self.enc_mask) >> 12;
        let item_lg2 = Self::UNIT_LG2 + 9 * u32::from(level);
        let next_level = (item >> 9) & 7;
        if next_level != 0 && next_level != 7 {
            // Levels may be left out; no operation does.
            assert_eq!(next_level, u64::from(level), "next level: {item:#x}");
            assert_eq!(item & 0x1ff0_0000_0000_0000, 0, "reserved: {item:#x}");
            assert_eq!(item & self.enc_mask, self.enc_mask, "tables are encrypted");
            let addr = units << Self::UNIT_LG2;
            return Entry::Table { addr, read, write };
        }
        assert!(level < Self::LEAF_LEVELS, "a leaf at the highest level");
        let (units, size_lg2) = if next_level == 0 {
            (units, item_lg2)
        } else {
            // Table 14: from bit 12 on as many ones as it takes, and a zero.
            let mut ones = 0;
            while (units >> ones) & 1 == 1 {
                ones += 1;
            }
            (units & !((1 << ones) - 1), Self::UNIT_LG2 + ones + 1)
        };
        assert!(
            (item_lg2..item_lg2 + 9).contains(&size_lg2),
            "a size of another level: {item:#x}"
        );
        assert_ne!(size_lg2, 39, "leaves of 512G do not work");
        let oa = units << Self::UNIT_LG2;
        assert_eq!(oa & ((1 << size_lg2) - 1), 0, "address bits: {item:#x}");
        Entry::Leaf(Bits {
            oa,
            size_lg2,
            read,
            write,
            accessed: item & Self::ACCESSED != 0,
            dirty: item & Self::DIRTY != 0,
            // Ignored, FC, U, reserved, encryption, ignored.
            rest: item & (0x9ff0_0000_0000_019e | self.enc_mask),
        })
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        let coherent = if self.force_coherence { 1 << 60 } else { 0 };
        let enc = if prot.0 & 16 != 0 { 0 } else { self.enc_mask };
        Some((prot.0 & 1 != 0, prot.0 & 2 != 0, coherent | enc))
    }

    fn page_sizes(&self) -> u64 {
        let highest = if MOCK { 46 } else { 51 };
        ((2 << highest) - (1 << Self::UNIT_LG2)) & !(1 << 39)
    }
}
