// SPDX-License-Identifier: GPL-2.0-only

//! Intel VT-d first stage, section 9.7 of the specification; AMD v2, section 2.2.6 of AMD's.

#![forbid(unsafe_code)]

use super::{Bits, Entry, Hardware};
use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{Params, Prot};

/// VT-d first stage and AMD v2. Requests are user requests.
#[derive(Clone, Copy, Debug)]
pub struct X86 {
    enc_mask: u64,
}

impl Hardware for X86 {
    type Format = X86_64;
    const GRANULE_LG2: u32 = 12;
    const ITEMS_LG2: u32 = 9;
    const ACCESSED: u64 = 0x20;
    const DIRTY: u64 = 0x40;
    const PRESET: bool = true;
    // XD, 62:52, 11:9, G, PCD, PWT.
    const IGNORED: u64 = 0xfff0_0000_0000_0f18;

    fn new(params: &Params) -> Self {
        X86 {
            enc_mask: params.enc_mask,
        }
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        if item & 1 == 0 {
            // Hardware ignores the rest; an operation leaves nothing behind.
            assert_eq!(item, 0, "not present, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let user = item & 4 != 0;
        let (read, write) = (user, user && item & 2 != 0);
        let addr = item & 0x000f_ffff_ffff_f000 & !self.enc_mask;
        let size_lg2 = match level {
            0 => 12,
            1 if item & 0x80 != 0 => 21,
            2 if item & 0x80 != 0 => 30,
            _ => {
                assert_eq!(item & 0x80, 0, "bit 7 is reserved: {item:#x}");
                assert_eq!(item & self.enc_mask, self.enc_mask, "tables are encrypted");
                return Entry::Table { addr, read, write };
            }
        };
        // XD, ignored, encryption, ignored, G, PCD, PWT; PAT where a level 0 leaf has it.
        let mut rest = item & (0xfff0_0000_0000_0f18 | self.enc_mask);
        let (oa, pat) = if level == 0 {
            (addr, item & 0x80 != 0)
        } else {
            (addr & !0x1000, item & 0x1000 != 0)
        };
        if pat {
            rest |= 0x80;
        }
        assert_eq!(
            oa & ((1 << size_lg2) - 1),
            0,
            "address bits below the page size are reserved: {item:#x} at level {level}"
        );
        Entry::Leaf(Bits {
            oa,
            size_lg2,
            read,
            write,
            accessed: item & Self::ACCESSED != 0,
            dirty: item & Self::DIRTY != 0,
            rest,
        })
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        // Present means readable. Device memory is not encrypted.
        let enc = if prot.0 & 16 != 0 { 0 } else { self.enc_mask };
        Some((true, prot.0 & 2 != 0, enc))
    }

    fn page_sizes(&self) -> u64 {
        (1 << 12) | (1 << 21) | (1 << 30)
    }
}
