// SPDX-License-Identifier: GPL-2.0-only

//! Intel VT-d, second stage.

#![forbid(unsafe_code)]

use super::{Bits, Entry, Hardware};
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::{Params, Prot};

/// Intel VT-d, second stage; section 9.8 of the specification.
#[derive(Clone, Copy, Debug)]
pub struct Vtd;

impl Hardware for Vtd {
    type Format = Vtdss;
    const GRANULE_LG2: u32 = 12;
    const ITEMS_LG2: u32 = 9;
    const ACCESSED: u64 = 0x100;
    const DIRTY: u64 = 0x200;
    // Bits 62:52 and 10.
    const IGNORED: u64 = 0x7ff0_0000_0000_0400;

    fn new(_params: &Params) -> Self {
        Vtd
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        let (read, write) = (item & 1 != 0, item & 2 != 0);
        if !read && !write {
            // Hardware ignores the rest; an operation leaves nothing behind.
            assert_eq!(item, 0, "not present, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let addr = item & 0x000f_ffff_ffff_f000;
        let size_lg2 = match level {
            0 => 12,
            1 if item & 0x80 != 0 => 21,
            2 if item & 0x80 != 0 => 30,
            _ => {
                if level > 2 {
                    assert_eq!(item & 0x80, 0, "bit 7 is reserved in an SS-PML4E");
                }
                assert_eq!(item & 0x800, 0, "bit 11 of a table item is not ours");
                return Entry::Table { addr, read, write };
            }
        };
        assert_eq!(
            addr & ((1 << size_lg2) - 1),
            0,
            "address bits below the page size are reserved: {item:#x} at level {level}"
        );
        Entry::Leaf(Bits {
            oa: addr,
            size_lg2,
            read,
            write,
            accessed: item & Self::ACCESSED != 0,
            dirty: item & Self::DIRTY != 0,
            // X, EMT, IPAT, ignored, SNP, ignored.
            rest: item & 0xfff0_0000_0000_0c7c,
        })
    }

    fn expect(&self, prot: Prot, params: &Params) -> Option<(bool, bool, u64)> {
        let (read, write) = (prot.0 & 1 != 0, prot.0 & 2 != 0);
        let force_coherence = params.features.0 & (1 << 7) != 0;
        let force_writeable = params.features.0 & (1 << 8) != 0;
        if !write && (!read || force_writeable) {
            return None;
        }
        Some((read, write, if force_coherence { 0x800 } else { 0 }))
    }

    fn page_sizes(&self) -> u64 {
        (1 << 12) | (1 << 21) | (1 << 30)
    }
}
