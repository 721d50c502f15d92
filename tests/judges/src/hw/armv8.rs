// SPDX-License-Identifier: GPL-2.0-only

//! Arm SMMUv3, stage 1 and stage 2, with descriptors of VMSAv8-64: DDI 0487, section D8.3, tables
//! "Stage 1 Block and Page descriptor fields", "Stage 2 ...", "Table descriptor fields".

#![forbid(unsafe_code)]

use super::{Bits, Entry, Hardware};
use iotable::fmt::armv8::Armv8;
use iotable::fmt::{Params, Prot};

/// An SMMUv3 with this granule, 48 bits of OA, no contiguous hint, and updates of the access flag
/// but not of the dirty state. Requests are privileged; whether others have access as well is one
/// of the other bits.
#[derive(Clone, Copy, Debug)]
pub struct Arm<const GRANULE_LG2: u32> {
    stage2: bool,
    forced_write_back: bool,
}

/// Bits `low` to `high` of an item.
fn field(item: u64, high: u32, low: u32) -> u64 {
    (item >> low) & ((1 << (high - low + 1)) - 1)
}

impl<const GRANULE_LG2: u32> Hardware for Arm<GRANULE_LG2> {
    type Format = Armv8<GRANULE_LG2>;
    const GRANULE_LG2: u32 = GRANULE_LG2;
    // As many items of 8 bytes as the granule holds.
    const ITEMS_LG2: u32 = GRANULE_LG2 - 3;
    const ACCESSED: u64 = 0x400;
    // A leaf for writing without DBM, bit 51, counts as dirty ever since.
    const DIRTY: u64 = 0;
    // Hardware may have such a flag; Linux does not switch it on.
    const TABLE_ACCESSED: u64 = 0;
    const PRESET: bool = true;
    // Ignored or PBHA 63:59, for software 58:55, and 54:53, which say what may be executed.
    const IGNORED: u64 = 0xffe0_0000_0000_0000;
    // Ignored or PBHA in a leaf, rights in a table item of stage 1: of what that ignores nothing is
    // ours.
    const FOREIGN: u64 = 1 << 62;

    fn new(params: &Params) -> Self {
        Arm {
            stage2: params.features.0 & (1 << 9) != 0,
            forced_write_back: params.features.0 & (1 << 11) != 0,
        }
    }

    fn decode(&self, item: u64, level: u8) -> Entry {
        if item & 1 == 0 {
            // Hardware ignores the rest; an operation leaves nothing behind.
            assert_eq!(item, 0, "not valid, but not 0: {item:#x}");
            return Entry::Empty;
        }
        // Arm's name of the level.
        let lookup = 3 - level;
        assert!(lookup != 0 || GRANULE_LG2 != 16, "64K has no level 0");
        let oa = item & 0xffff_ffff_f000;
        if lookup != 3 && item & 2 != 0 {
            assert_eq!(oa & ((1 << GRANULE_LG2) - 1), 0, "address bits: {item:#x}");
            // 63, 60, 59: NSTable, UXNTable, PXNTable; 61: nothing for unprivileged requests.
            // Reserved in stage 2.
            let limits = 0xb800_0000_0000_0000 | if self.stage2 { 1 << 62 } else { 0 };
            assert_eq!(item & limits, 0, "rights are taken away: {item:#x}");
            assert_eq!(field(item, 50, 48), 0, "reserved: {item:#x}");
            // 58:51 and 11:2 are ignored; one of them is in use.
            assert_eq!(item & 0x0778_0000_0000_0ffc, 0, "not ours: {item:#x}");
            return Entry::Table {
                addr: oa,
                read: true,
                write: field(item, 62, 62) == 0,
            };
        }
        let size_lg2 = match (lookup, GRANULE_LG2) {
            (3, _) => {
                assert_eq!(item & 2, 2, "reserved type at the last level: {item:#x}");
                GRANULE_LG2
            }
            (2, 12) => 21,
            (1, 12) => 30,
            (2, 14) => 25,
            (2, 16) => 29,
            _ => panic!("no block at level {lookup}: {item:#x}"),
        };
        // That includes nT, bit 16 of a block.
        assert_eq!(oa & ((1 << size_lg2) - 1), 0, "address bits: {item:#x}");
        // All that is neither address, type, access flag nor right: the contiguous hint, DBM and
        // what is reserved, too, which no new leaf has.
        let others = !(0xffff_ffff_f403 | 0x80);
        let (read, write, rest) = if self.stage2 {
            let (read, write) = (field(item, 6, 6) == 1, field(item, 7, 7) == 1);
            (read, write, item & others & !0x40)
        } else {
            // What unprivileged requests may do is one of the others.
            (true, field(item, 7, 7) == 0, item & others)
        };
        Entry::Leaf(Bits {
            oa,
            size_lg2,
            read,
            write,
            accessed: item & Self::ACCESSED != 0,
            dirty: write,
            rest,
        })
    }

    fn expect(&self, prot: Prot, _params: &Params) -> Option<(bool, bool, u64)> {
        let has = |bit: u32| prot.0 & (1 << bit) != 0;
        let (read, write, cache, mmio, privileged) = (has(0), has(1), has(2), has(4), has(5));
        if !read && !write {
            return None;
        }
        // 2 is outer, 3 is inner shareable.
        let shareable = if cache { 3 << 8 } else { 2 << 8 };
        let execute = if has(3) { 3 << 53 } else { 0 };
        let (read, type_and_user) = if self.stage2 {
            let memory = match (mmio, cache, self.forced_write_back) {
                (true, _, _) => 0b0001,
                (false, false, _) => 0b0101,
                (false, true, false) => 0b1111,
                (false, true, true) => 0b0110,
            };
            (read, memory << 2)
        } else {
            // The driver's MAIR: 0 is not cached, 1 is cached, 2 a device.
            let index = match (mmio, cache) {
                (true, _) => 2,
                (false, true) => 1,
                (false, false) => 0,
            };
            let user = if privileged { 0 } else { 1 << 6 };
            // Not global. What may be written to can be read.
            (true, (1 << 11) | user | (index << 2))
        };
        Some((read, write, shareable | execute | type_and_user))
    }

    fn page_sizes(&self) -> u64 {
        match GRANULE_LG2 {
            12 => (1 << 12) | (1 << 21) | (1 << 30),
            14 => (1 << 14) | (1 << 25),
            16 => (1 << 16) | (1 << 29),
            _ => panic!("no such granule"),
        }
    }
}
