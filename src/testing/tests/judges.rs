// SPDX-License-Identifier: GPL-2.0-only

//! The judges judged: the hardware reads tables made by hand, and each account catches its crime.

use crate::fmt::vtdss::Vtdss;
use crate::fmt::{Features, Params};
use crate::mem::{Cell, PtMem};
use crate::testing::arena::{Arena, View, POISON};
use crate::testing::hw::{Hardware, OddHw, Root, Vtd};
use crate::testing::odd::ENC;
use crate::testing::rig::{still, Rig, Setup};
use crate::testing::tests::{rw, G1, K4, M2};
use crate::{Level, Table};

/// An arena that is forgotten, so that only what is expected panics.
fn quiet(incoherent: bool) -> core::mem::ManuallyDrop<Arena> {
    core::mem::ManuallyDrop::new(Arena::new(8, incoherent))
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
    let top = arena.new_top::<crate::testing::odd::Odd>().unwrap();
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

#[test]
fn a_mixed_walk_sees_each_item_either_way() {
    let arena = quiet(true);
    let top = arena.new_top::<Vtdss>().unwrap();
    arena.hw_publish(top, 0x4000_0083);
    let root = root(&arena, Vtd, top, 2, 39);
    assert_eq!(root.translate_mixed(0, 0).unwrap().oa, 0x4000_0000);
    assert_eq!(root.translate_mixed(0, 1), None);
    arena.clean(arena.table::<Vtdss>(top, Level(2)).raw().ptr(), 0, 8);
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

/// A table that was freed, and still is held.
fn freed(arena: &Arena) -> Table<'_, Vtdss, Arena> {
    let table = arena.table(arena.new_top::<Vtdss>().unwrap(), Level(2));
    arena.free_gathered(table.raw());
    table
}

#[test]
#[should_panic(expected = "freed twice")]
fn double_free() {
    let arena = quiet(false);
    arena.free_gathered(freed(&arena).raw());
}

#[test]
#[should_panic(expected = "read of a freed table")]
fn read_after_free() {
    let arena = quiet(false);
    freed(&arena).read_at(G1);
}

#[test]
#[should_panic(expected = "is in a freed table")]
fn walk_of_a_freed_table() {
    let arena = quiet(false);
    let top = Arena::table_oa(freed(&arena).raw().ptr());
    root(&arena, Vtd, top, 2, 39).translate(0);
}

#[test]
#[should_panic(expected = "written to after it was freed")]
fn write_after_free() {
    let arena = Arena::new(8, false);
    let table = arena.table::<Vtdss>(arena.new_top::<Vtdss>().unwrap(), Level(2));
    let cell = table.read_at(G1).cell();
    arena.free_gathered(table.raw());
    cell.publish(POISON, 1).unwrap();
}

#[test]
#[should_panic(expected = "where no table is")]
fn a_table_item_to_nowhere() {
    let arena = quiet(false);
    let top = arena.new_top::<Vtdss>().unwrap();
    arena.poke(top, 0x4000_0003);
    let item = arena.table::<Vtdss>(top, Level(2)).read_at(0);
    let _ = item.child(&Params::default());
}

#[test]
#[should_panic(expected = "tables leaked")]
fn leak() {
    let arena = Arena::new(8, false);
    arena.new_top::<Vtdss>().unwrap();
}

#[test]
#[should_panic(expected = "hardware may have changed it meanwhile")]
fn plain_store_over_a_live_item() {
    let arena = quiet(false);
    let top = arena.new_top::<Vtdss>().unwrap();
    let cell = arena.table::<Vtdss>(top, Level(2)).read_at(0).cell();
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
