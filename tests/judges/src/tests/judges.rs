// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the judges: the hardware reads tables made by hand, and each account reports what it is
//! there to report.

use crate::arena::{Arena, HostCell, View, POISON};
use crate::hw::{Amd, Arm, Entry, Hardware, OddHw, Riscv, Root, Vtd, X86};
use crate::odd::ENC;
use crate::rig::{still, Rig, Setup};
use crate::tests::{rw, G1, K4, M2};
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::{Features, Params};
use iotable::mem::{Cell, PtMem};
use iotable::{Bytes, Level};

/// An arena that is forgotten, so that only what is expected panics.
fn quiet(incoherent: bool) -> core::mem::ManuallyDrop<Arena> {
    core::mem::ManuallyDrop::new(Arena::new::<Vtdss>(8, incoherent))
}

fn root<H: Hardware>(arena: &Arena, hw: H, top: u64, level: u8, va_lg2: u32) -> Root<'_, H> {
    Root {
        hw,
        arena,
        top,
        level,
        va_lg2,
        sign: false,
    }
}

#[test]
fn vtd_hardware_reads_a_table_made_by_hand() {
    let arena = quiet(false);
    let table = || arena.new_top::<Vtdss>().unwrap();
    let (top, dir, leaf) = (table(), table(), table());
    // Read-only by the PDPTE: rights are those of all levels.
    arena.poke(top + 8 * 3, dir | 1);
    arena.poke(top + 8 * 4, 0x40_0000_0000 | 0x80 | 0x800 | 0x200 | 3);
    arena.poke(dir, leaf | 3);
    arena.poke(dir + 8 * 511, 0x20_0000 | 0x80 | 3);
    arena.poke(leaf + 8 * 5, 0x1234_5000 | 0x400 | 2);
    let root = root(&arena, Vtd, top, 2, 39);
    let hit = |va| {
        root.translate(va)
            .map(|hit| (hit.seen(), hit.bits.size_lg2))
    };
    assert_eq!(hit(0), None);
    assert_eq!(
        hit(4 * G1 + 5),
        Some(((0x40_0000_0005, true, true, 0x800), 30))
    );
    assert!(root.translate(4 * G1).unwrap().bits.dirty);
    assert_eq!(hit(4 * G1 - 1), Some(((0x3f_ffff, true, false, 0), 21)));
    // A leaf for writing below a table for reading.
    assert_eq!(hit(3 * G1 + 5 * K4), None);
    assert_eq!(hit(1 << 39), None);
    let scan = root.scan(View::Cpu);
    assert_eq!((scan.tables.len(), scan.leaves.len()), (3, 3));
    assert_eq!(root.reachable(&[View::Cpu]).len(), 3);
    let hit = root.access(4 * G1 - M2, true).unwrap();
    assert_eq!(arena.hw_read(hit.item, View::Cpu), 0x20_0000 | 0x380 | 3);
}

#[test]
fn odd_hardware_reads_a_table_made_by_hand() {
    let arena = quiet(false);
    let top = arena.new_top::<crate::odd::Odd>().unwrap();
    let hw = OddHw::<true, true>::new(&Params {
        features: Features::default(),
        enc_mask: ENC,
    });
    // 8K of four items in level 0, encrypted, read-only.
    for i in 4..8 {
        arena.poke(
            top + 8 * i,
            (1 << 63) | (1 << 61) | (1 << 60) | ENC | 0x6000 | ((2 ^ 5) << 3),
        );
    }
    let root = root(&arena, hw, top, 0, 18);
    let hit = root.translate(0x3234).unwrap();
    assert_eq!(hit.seen(), (0x7234, true, false, ENC));
    assert_eq!(root.translate(0x4000), None);
    assert_eq!(root.scan(View::Cpu).leaves.len(), 1);
}

/// Hardware with every feature of its format, and this encryption bit.
fn hardware<H: Hardware>(enc_mask: u64) -> H {
    H::new(&Params {
        features: Features(0x180),
        enc_mask,
    })
}

#[test]
fn x86_64_hardware_reads_a_table_made_by_hand() {
    let arena = quiet(false);
    let table = || arena.new_top::<Vtdss>().unwrap();
    let (top, dir, leaf) = (table(), table(), table());
    let enc = 1 << 47;
    // The upper half. Read-only by the PDPTE.
    arena.poke(top + 8 * 511, dir | enc | 0x25);
    arena.poke(dir, leaf | enc | 0x27);
    // Large, with PAT; and of the supervisor.
    arena.poke(dir + 8, 0x40_0000 | 0x1000 | enc | 0xe7);
    arena.poke(dir + 16, 0x60_0000 | 0x80 | 0x63);
    arena.poke(leaf + 8, (1 << 63) | 0x7000 | 0x80 | 0x67);
    let root = Root {
        sign: true,
        ..root(&arena, hardware::<X86>(enc), top, 2, 39)
    };
    let hit = |va| root.translate(va).map(|hit| hit.seen());
    let base = G1.wrapping_neg();
    let xd = 1 << 63;
    assert_eq!(hit(base + K4 + 5), Some((0x7005, true, false, xd | 0x80)));
    assert_eq!(hit(base + M2), Some((0x40_0000, true, false, enc | 0x80)));
    assert_eq!(hit(base + 2 * M2), None);
    assert_eq!(hit(base), None);
    assert_eq!(hit((base + K4) & ((1 << 39) - 1)), None);
    assert_eq!(root.scan(View::Cpu).leaves.len(), 3);
}

#[test]
fn amd_hardware_reads_a_table_made_by_hand() {
    let arena = quiet(false);
    let table = || arena.new_top::<Vtdss>().unwrap();
    let (top, dir, leaf) = (table(), table(), table());
    let rw = 3 << 61;
    arena.poke(top, dir | rw | 0x401);
    // Read-only below.
    arena.poke(dir, leaf | (1 << 61) | 0x201);
    for i in 2..4 {
        // 4M: 10 ones from the bits of next level on.
        arena.poke(dir + 8 * i, 0x40_0000 | 0x1f_f000 | rw | 0xe01);
    }
    for i in 16..32 {
        arena.poke(leaf + 8 * i, 0x5_0000 | 0x7000 | rw | (1 << 60) | 0xe01);
    }
    arena.poke(leaf + 8 * 20, 0x5_0000 | 0x7000 | rw | (1 << 60) | 0xe41);
    let root = root(&arena, hardware::<Amd<false>>(0), top, 2, 64);
    let hit = |va| root.translate(va).map(|hit| hit.seen());
    assert_eq!(hit(0x1_3210), Some((0x5_3210, true, false, 1 << 60)));
    assert_eq!(hit(0x61_0000), Some((0x61_0000, true, true, 0)));
    assert_eq!(hit(0x2_0000), None);
    // Beyond what three levels serve.
    assert_eq!(hit((1 << 39) + 0x61_0000), None);
    let leaves = root.scan(View::Cpu).leaves;
    assert_eq!((leaves.len(), leaves[0].bits.size_lg2), (2, 16));
    assert!(leaves[0].bits.dirty && !leaves[1].bits.dirty);
    assert!(!root.translate(0x1_0000).unwrap().bits.dirty);
    // The latest top is what counts.
    let above = arena.new_top::<Vtdss>().unwrap();
    arena.poke(above + 8, top | rw | 0x601);
    arena.set_top(above, Level(3));
    assert_eq!(hit(0x61_0000), None);
    assert_eq!(hit((1 << 39) + 0x61_0000).unwrap().0, 0x61_0000);
    assert_eq!(
        root.translate_from((top, 2), 0x61_0000, 0).unwrap().level,
        1
    );

    // The same bits with units of 2K.
    let mock = hardware::<Amd<true>>(0);
    let Entry::Leaf(bits) = mock.decode(0x5_0000 | 0x7000 | rw | 0xe01, 0) else {
        panic!("a leaf");
    };
    assert_eq!((bits.oa, bits.size_lg2), (0x2_8000, 15));
}

#[test]
fn riscv_hardware_reads_a_table_made_by_hand() {
    let arena = quiet(false);
    let table = || arena.new_top::<Vtdss>().unwrap();
    let (top, dir, leaf) = (table(), table(), table());
    arena.poke(top, (dir >> 2) | 1);
    arena.poke(dir, (leaf >> 2) | 1);
    arena.poke(dir + 8, (0x40_0000 >> 2) | (1 << 61) | 0xd7);
    for i in 16..32 {
        arena.poke(leaf + 8 * i, (1 << 63) | (0x5_8000 >> 2) | 0x53);
    }
    // Of the supervisor; for execution only; writing without reading.
    arena.poke(leaf, (0x7000 >> 2) | 0xc7);
    arena.poke(leaf + 8, (0x7000 >> 2) | 0x59);
    arena.poke(leaf + 16, (0x7000 >> 2) | 0xd5);
    let root = root(&arena, hardware::<Riscv>(0), top, 2, 39);
    let hit = |va| root.translate(va).map(|hit| hit.seen());
    assert_eq!(hit(0x1_3210), Some((0x5_3210, true, false, 0)));
    assert_eq!(hit(M2 + 9), Some((0x40_0009, true, true, 1 << 61)));
    assert_eq!((hit(0), hit(K4), hit(2 * K4)), (None, None, None));
    assert_eq!(root.scan(View::Cpu).leaves.len(), 5);
}

/// An SMMU, stage 2 if so, without FWB.
fn arm<const GRANULE_LG2: u32>(stage2: bool) -> Arm<GRANULE_LG2> {
    Arm::new(&Params {
        features: Features(if stage2 { 1 << 9 } else { 0 }),
        enc_mask: 0,
    })
}

#[test]
fn arm_hardware_reads_a_table_made_by_hand() {
    let arena = quiet(false);
    let table = || arena.new_top::<Vtdss>().unwrap();
    let (top, dir, leaf) = (table(), table(), table());
    // Read-only from the top down.
    arena.poke(top, dir | 3 | (1 << 62));
    arena.poke(top + 8, dir | 3);
    arena.poke(dir, leaf | 3);
    arena.poke(dir + 8, 0x40_0000 | 0xf45);
    arena.poke(top + 16, 0xffff_c000_0000 | (1 << 55) | 0xec1);
    arena.poke(leaf + 8, 0x7000 | (3 << 53) | 0xe4b);
    let root = root(&arena, arm::<12>(false), top, 2, 39);
    let hit = |va| root.translate(va).map(|hit| hit.seen());
    assert_eq!(hit(K4 + 5), Some((0x7005, true, false, (3 << 53) | 0xa48)));
    assert_eq!(hit(M2 + 9), Some((0x40_0009, true, false, 0xb44)));
    assert_eq!(hit(G1 + M2 + 9), Some((0x40_0009, true, true, 0xb44)));
    let want = (0xffff_c123_4567, true, false, (1 << 55) | 0xa40);
    assert_eq!(hit(2 * G1 + 0x123_4567), Some(want));
    assert_eq!((hit(0), hit(3 * G1), hit(1 << 39)), (None, None, None));
    assert!(root.translate(G1 + M2).unwrap().bits.accessed);

    // The same bits in stage 2 say something else; and with other granules.
    let decode = |item| match arm::<12>(true).decode(item, 1) {
        Entry::Leaf(bits) => (bits.read, bits.write, bits.rest),
        other => panic!("{other:?}"),
    };
    assert_eq!(decode(0x40_0000 | 0x4fd), (true, true, 0x3c));
    assert_eq!(decode(0x40_0000 | 0x355), (true, false, 0x314));
    assert_eq!(decode(0x40_0000 | 0x285), (false, true, 0x204));
    let size = |entry| match entry {
        Entry::Leaf(bits) => bits.size_lg2,
        _ => 0,
    };
    assert_eq!(size(arm::<14>(false).decode(0xec3, 0)), 14);
    assert_eq!(size(arm::<14>(false).decode(0xec1, 1)), 25);
    assert_eq!(size(arm::<16>(false).decode(0xec3, 0)), 16);
    assert_eq!(size(arm::<16>(false).decode(0xec1, 1)), 29);
}

#[test]
#[should_panic(expected = "no block at level 0")]
fn a_block_of_512g() {
    arm::<12>(false).decode(0xec1, 3);
}

#[test]
#[should_panic(expected = "no block at level 1")]
fn a_block_above_32m() {
    arm::<14>(false).decode(0xec1, 2);
}

#[test]
#[should_panic(expected = "address bits")]
fn a_table_between_two_granules() {
    arm::<16>(false).decode(0x1000 | 3, 1);
}

#[test]
#[should_panic(expected = "reserved type at the last level")]
fn a_page_that_looks_like_a_block() {
    arm::<12>(false).decode(0xec1, 0);
}

#[test]
#[should_panic(expected = "rights are taken away")]
fn a_table_for_the_privileged() {
    arm::<12>(false).decode((1 << 61) | 0x7003, 1);
}

#[test]
#[should_panic(expected = "tables are encrypted")]
fn a_table_that_is_not_encrypted() {
    hardware::<X86>(1 << 47).decode(0x7027, 1);
}

#[test]
#[should_panic(expected = "next level")]
fn a_table_item_for_another_level() {
    hardware::<Amd<false>>(0).decode((3 << 61) | 0x7201, 2);
}

#[test]
#[should_panic(expected = "a size of another level")]
fn a_group_that_is_too_large() {
    hardware::<Amd<false>>(0).decode((3 << 61) | 0x1f_f000 | 0xe01, 0);
}

#[test]
#[should_panic(expected = "leaves of 512G")]
fn a_leaf_of_512g() {
    hardware::<Amd<false>>(0).decode((3 << 61) | 1, 3);
}

#[test]
#[should_panic(expected = "reserved NAPOT size")]
fn a_group_of_eight() {
    hardware::<Riscv>(0).decode((1 << 63) | (0x5_4000 >> 2) | 0xdf, 0);
}

#[test]
#[should_panic(expected = "N is reserved")]
fn a_group_of_large_leaves() {
    hardware::<Riscv>(0).decode((1 << 63) | (8 << 10) | 0xdf, 1);
}

#[test]
#[should_panic(expected = "outside of the space")]
fn an_item_that_no_address_uses() {
    let arena = quiet(false);
    let top = arena.new_top::<Vtdss>().unwrap();
    arena.poke(top + 8 * 4, 0x83);
    root(&arena, Vtd, top, 2, 32).scan(View::Cpu);
}

#[test]
fn a_mixed_walk_sees_each_item_either_way() {
    let arena = quiet(true);
    let top = arena.new_top::<Vtdss>().unwrap();
    arena.hw_publish(top, 0x4000_0083);
    let root = root(&arena, Vtd, top, 2, 39);
    assert_eq!(root.translate_mixed(0, 0).unwrap().oa, 0x4000_0000);
    assert_eq!(root.translate_mixed(0, 1), None);
    arena.clean(arena.memory(top), 0, Bytes(8));
    assert_eq!(root.translate_any(0).unwrap().oa, 0x4000_0000);
}

#[test]
#[should_panic(expected = "address bits below the page size")]
fn misaligned_output_address() {
    Vtd.decode(0x20_1083, 1);
}

#[test]
#[should_panic(expected = "not present, but not 0")]
fn leftovers_in_an_empty_item() {
    Vtd.decode(0x1000, 0);
}

#[test]
#[should_panic(expected = "depends on what was written back")]
fn dirty_cache_lines() {
    let arena = quiet(true);
    let top = arena.new_top::<Vtdss>().unwrap();
    arena.hw_publish(top, 0x83);
    root(&arena, Vtd, top, 2, 39).translate_any(0);
}

/// A table that was freed: its address, and its first item, which still is held.
fn freed(arena: &Arena) -> (u64, &HostCell) {
    let top = arena.new_top::<Vtdss>().unwrap();
    let items = arena.hw_items(top, 1, View::Cpu);
    arena.release(top);
    (top, &items[0])
}

#[test]
#[should_panic(expected = "freed twice")]
fn double_free() {
    let arena = quiet(false);
    arena.release(freed(&arena).0);
}

#[test]
#[should_panic(expected = "read of a freed table")]
fn read_after_free() {
    let arena = quiet(false);
    freed(&arena).1.read();
}

#[test]
#[should_panic(expected = "is in a freed table")]
fn walk_of_a_freed_table() {
    let arena = quiet(false);
    root(&arena, Vtd, freed(&arena).0, 2, 39).translate(0);
}

#[test]
#[should_panic(expected = "written to after it was freed")]
fn write_after_free() {
    let arena = Arena::new::<Vtdss>(8, false);
    freed(&arena).1.publish(POISON, 1).unwrap();
}

#[test]
#[should_panic(expected = "where no table is")]
fn a_table_item_to_nowhere() {
    let rig = core::mem::ManuallyDrop::new(Rig::<Vtd>::new(Setup::plain(2)));
    rig.arena.poke(rig.root().start().0, 0x4000_0003);
    let lock = rig.arena.lock(0, 1).unwrap();
    rig.pt().iova_to_phys(lock.range());
}

#[test]
#[should_panic(expected = "tables leaked")]
fn leak() {
    let arena = Arena::new::<Vtdss>(8, false);
    arena.new_top::<Vtdss>().unwrap();
}

#[test]
#[should_panic(expected = "hardware may have changed it meanwhile")]
fn plain_store_over_a_live_item() {
    let arena = quiet(false);
    let top = arena.new_top::<Vtdss>().unwrap();
    let cell = &arena.hw_items(top, 1, View::Cpu)[0];
    cell.set(1);
    cell.set(2);
}

#[test]
#[should_panic(expected = "the range is locked")]
fn overlapping_locks() {
    let arena = quiet(false);
    let _lock = arena.lock(K4, K4).unwrap();
    let _other = arena.lock(0, 3 * K4).unwrap();
}

#[test]
#[should_panic(expected = "was disturbed")]
fn a_gap_in_a_mapping() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(0, G1, 0, rw());
    let probes = rig.probes(0, M2);
    rig.unmap(0, G1);
    still(&rig.root(), &probes);
}

#[test]
#[should_panic(expected = "the table has")]
fn a_leaf_that_nobody_asked_for() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(0, M2, 0, rw());
    let item = rig.root().translate(0).unwrap().item;
    rig.arena.poke(item, 0x40_0083);
    rig.check();
}

#[test]
fn levels_of_sizes() {
    assert_eq!(Level::of_size::<Vtdss>(12), Level(0));
    assert_eq!(Level::of_size::<Vtdss>(21), Level(1));
    assert_eq!(Level::of_size::<Vtdss>(30), Level(2));
}
