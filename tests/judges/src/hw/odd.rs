// SPDX-License-Identifier: GPL-2.0-only

//! The hardware that [`crate::odd`] describes.

#![forbid(unsafe_code)]

use super::{Bits, Entry, Hardware};
use crate::odd::OddFmt;
use iotable::fmt::{Params, Prot};

/// The hardware that [`crate::odd`] describes.
#[derive(Clone, Copy, Debug)]
pub struct OddHw<const TO_TABLE: bool, const RESIZE: bool> {
    enc_mask: u64,
}

impl<const T: bool, const R: bool> Hardware for OddHw<T, R> {
    type Format = OddFmt<T, R>;
    const GRANULE_LG2: u32 = 11;
    const ITEMS_LG2: u32 = 7;
    const ACCESSED: u64 = 1 << 0;
    const DIRTY: u64 = 1 << 1;
    const IGNORED: u64 = 0x4ff0_0000_0000_0300;

    fn new(params: &Params) -> Self {
        OddHw {
            enc_mask: params.enc_mask,
        }
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        if item >> 63 == 0 {
            assert_eq!(item, 0, "not valid, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let addr = item & 0x000f_ffff_ffff_fc00 & !self.enc_mask;
        let read = (item >> 61) & 1 == 1;
        let write = (item >> 60) & 1 == 0;
        if (item >> 2) & 1 == 1 {
            assert_ne!(level, 0, "a table item at level 0");
            assert_eq!(item & 0x1f8, 0, "reserved bits of a table item: {item:#x}");
            assert_eq!(item & self.enc_mask, self.enc_mask, "tables are encrypted");
            return Entry::Table { addr, read, write };
        }
        let code = ((item >> 3) & 7) ^ 5;
        assert_ne!(code, 7, "reserved size");
        assert!(level != 2 || code != 0, "no single leaf at level 2");
        let size_lg2 = 11 + 7 * u32::from(level) + code as u32;
        assert_eq!(addr & ((1 << size_lg2) - 1), 0, "address bits: {item:#x}");
        Entry::Leaf(Bits {
            oa: addr,
            size_lg2,
            read,
            write,
            accessed: item & 1 != 0,
            dirty: item & 2 != 0,
            rest: item & (0x4ff0_0000_0000_03c0 | self.enc_mask),
        })
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        let snoop = if prot.0 & 4 != 0 { 1 << 7 } else { 0 };
        let enc = if prot.0 & 16 != 0 { 0 } else { self.enc_mask };
        (prot.0 & 1 != 0).then_some((true, prot.0 & 2 != 0, snoop | enc))
    }

    fn page_sizes(&self) -> u64 {
        ((1 << 38) - (1 << 11)) & !(1 << 25)
    }
}
