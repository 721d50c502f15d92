// SPDX-License-Identifier: GPL-2.0-only

//! RISC-V Sv39 to Sv57, with Svnapot and Svpbmt: the privileged architecture.

#![forbid(unsafe_code)]

use super::{Bits, Entry, Hardware};
use iotable::fmt::riscv_64::Riscv64;
use iotable::fmt::{Params, Prot};

/// A RISC-V IOMMU's first stage. Requests are user requests.
#[derive(Clone, Copy, Debug)]
pub struct Riscv {
    napot: bool,
    memory_types: bool,
}

impl Hardware for Riscv {
    type Format = Riscv64;
    const GRANULE_LG2: u32 = 12;
    const ITEMS_LG2: u32 = 9;
    const ACCESSED: u64 = 0x40;
    const DIRTY: u64 = 0x80;
    // Reserved in what is not a leaf.
    const TABLE_ACCESSED: u64 = 0;
    const PRESET: bool = true;
    // PBMT, RSW, G, X.
    const IGNORED: u64 = 0x6000_0000_0000_0328;

    fn new(params: &Params) -> Self {
        Riscv {
            napot: params.features.0 & (1 << 7) != 0,
            memory_types: params.features.0 & (1 << 8) != 0,
        }
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        if item & 1 == 0 {
            // Hardware ignores the rest; an operation leaves nothing behind.
            assert_eq!(item, 0, "not valid, but not 0: {item:#x}");
            return Entry::Empty;
        }
        let ppn = (item >> 10) & 0xfff_ffff_ffff;
        if item & 0xe == 0 {
            assert_ne!(level, 0, "a table item at level 0");
            // N, PBMT, 60:54, D, A, U.
            assert_eq!(item & 0xffc0_0000_0000_00d0, 0, "reserved: {item:#x}");
            return Entry::Table {
                addr: ppn << 12,
                read: true,
                write: true,
            };
        }
        let mut oa = ppn << 12;
        let mut size_lg2 = 12 + 9 * u32::from(level);
        if item >> 63 == 1 {
            assert!(self.napot && level == 0, "N is reserved: {item:#x}");
            assert_eq!(ppn & 0xf, 8, "reserved NAPOT size: {item:#x}");
            oa &= !0xffff;
            size_lg2 = 16;
        }
        assert_eq!(oa & ((1 << size_lg2) - 1), 0, "misaligned: {item:#x}");
        // Writing without reading is reserved.
        let user = item & 0x10 != 0;
        let read = user && item & 2 != 0;
        Entry::Leaf(Bits {
            oa,
            size_lg2,
            read,
            write: read && item & 4 != 0,
            accessed: item & Self::ACCESSED != 0,
            dirty: item & Self::DIRTY != 0,
            // PBMT, reserved, RSW, G, X.
            rest: item & 0x7fc0_0000_0000_0328,
        })
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        let write = prot.0 & 2 != 0;
        let read = write || prot.0 & 1 != 0;
        let execute = prot.0 & 8 == 0;
        // 2: I/O, 1: memory that is not cached.
        let memory_type = match (self.memory_types, prot.0 & 16 != 0, prot.0 & 4 != 0) {
            (true, true, _) => 2 << 61,
            (true, false, false) => 1 << 61,
            _ => 0,
        };
        let rest = memory_type | if execute { 8 } else { 0 };
        (read || execute).then_some((read, write, rest))
    }

    fn page_sizes(&self) -> u64 {
        let napot = if self.napot { 1 << 16 } else { 0 };
        (1 << 12) | (1 << 21) | (1 << 30) | (1 << 39) | (1 << 48) | napot
    }
}
