// SPDX-License-Identifier: GPL-2.0-only

//! What a carve leaves behind, and what it costs. [`Rig::carve`] compares it with the model and
//! looks at the table after each store; `explore.rs` and `iotlb.rs` have the rest.

use super::explore::{holes, Place};
use super::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86, G1, K4, M2};
use crate::arena::{watch, Event, Step, Store};
use crate::explore::Free;
use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Vtd, X86};
use crate::rig::{Rig, Setup};
use iotable::fmt::Features;
use iotable::Error;

#[test]
fn cost_by_where_the_edges_lie() {
    // Start and length of the hole in two 1G leaves, and the tables it takes.
    for (va, len, tables) in [
        (3 * M2 + K4, 2 * K4, 2),
        (3 * M2, M2 - K4, 2),
        (3 * M2, M2, 1),
        (3 * M2, 100 * M2, 1),
        (3 * M2 + K4, M2, 3),
        (3 * M2 + K4, 200 * M2, 3),
        (G1 - M2, 2 * M2, 2),
        (G1 - K4, 2 * K4, 4),
        (0, K4, 2),
        (0, M2, 1),
        (M2, 2 * G1 - M2, 1),
        (G1 - K4, G1 + K4, 2),
        (0, G1, 0),
        (0, 2 * G1, 0),
    ] {
        let mut rig = Rig::<Vtd>::new(Setup::plain(3));
        rig.map_ok(0, 2 * G1, 8 * G1, rw());
        assert_eq!(rig.carve(va, len, None), Ok(tables), "{va:#x} {len:#x}");
        assert_eq!(rig.model.find(va), None);
        assert_eq!(rig.carve(va, len, None), Err(Error::NotMapped), "again");
        rig.map_ok(va, len, 16 * G1 + va, rw());
        rig.finish();
    }
}

/// Where a size is missing, a table of smaller leaves stands for each of its blocks. The hole has
/// none.
#[test]
fn no_table_for_what_lies_in_the_hole() {
    let without = |split: bool| {
        let mut setup = Setup::plain(2);
        setup.without = M2;
        let mut rig = Rig::<Vtd>::new(setup);
        rig.map_ok(0, G1, 8 * G1, rw());
        let tables = if split {
            rig.split(3 * M2, 500 * M2)
        } else {
            rig.carve(3 * M2, 500 * M2, None)
        };
        rig.finish();
        tables
    };
    assert_eq!(without(true), Ok(513));
    assert_eq!(without(false), Ok(13));
}

/// Between the edges lie whole leaves, and tables with all their leaves.
#[test]
fn across_several_leaves() {
    for late in [None, Some(0), Some(1), Some(700)] {
        let mut rig = Rig::<Amd<false>>::new(Setup::plain(3));
        rig.map_ok(0, 4 * G1, 8 * G1, rw());
        rig.split(G1 + 5 * M2, K4).unwrap();
        rig.split(2 * G1, M2).unwrap();
        rig.access(2 * G1, true);
        rig.carve(G1 / 2 + K4, 3 * G1 - 7 * K4, late).unwrap();
        rig.carve(0, K4, late).unwrap();
        rig.carve(4 * G1 - M2, M2, late).unwrap();
        rig.finish();
    }
}

/// Every place for the hole in a leaf of every size, with each allocation failing once, before a
/// store that anybody could see.
fn every_hole<H: Hardware>(setup: Setup, step: usize) {
    let setup = Setup { slots: 64, ..setup };
    let place = Place::new::<H>(setup);
    let mut n = 0;
    let mut made = 0;
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        for (from, to) in holes(&place.rules, size_lg2) {
            n += 1;
            if n % step != 0 {
                continue;
            }
            let mut rig = Rig::<H>::new(setup);
            for &(va, lg2) in &leaves {
                let oa = va & ((1 << place.rules.oa_lg2) - 1);
                rig.map_ok(va, 1 << lg2, oa & !((1 << lg2) - 1), rw());
            }
            let (va, len) = (leaves[0].0 + from, to - from);
            let lock = rig.arena.lock(va, len).unwrap();
            let needed = rig.pt().carve_tables(lock.range()).unwrap();
            for k in 0..needed {
                rig.arena.fail_at(Some(k));
                let live = rig.root().reachable(&[super::super::arena::View::Cpu]);
                let mut look = |event: Event| match event.step {
                    Step::Before(Store::Init) => {
                        assert!(!live.contains(&(event.at & !((8 << H::ITEMS_LG2) - 1))));
                    }
                    Step::Before(_) => panic!("a visible store, then a failure"),
                    _ => {}
                };
                let mut free = Free::new(&rig.arena);
                let result = watch(&mut look, || rig.pt().carve(lock.range(), &mut free));
                assert_eq!(result.err(), Some(Error::NoMemory));
                assert!(!rig.arena.failure_pending());
            }
            rig.arena.fail_at(None);
            drop(lock);
            rig.check();
            let late = (n % 3 == 0).then_some(n as u16);
            assert_eq!(rig.carve(va, len, late), Ok(needed));
            rig.finish();
            made += 1;
        }
    }
    assert!(made > 5, "{made}");
}

#[test]
fn every_hole_in_every_format() {
    let incoherent = Features::DMA_INCOHERENT;
    every_hole::<Vtd>(Setup::plain(2), 1);
    every_hole::<Vtd>(Setup::plain(2).with(incoherent), 3);
    every_hole::<X86>(x86(), 3);
    every_hole::<Amd<false>>(amd(), 4001);
    every_hole::<Amd<true>>(mock(), 4001);
    every_hole::<Riscv>(riscv(), 3);
    every_hole::<OddHw<true, true>>(odd(), 997);
    every_hole::<OddHw<true, true>>(odd().with(incoherent), 1999);
}

#[test]
fn every_hole_in_armv8() {
    let incoherent = Features::DMA_INCOHERENT;
    every_hole::<Arm<12>>(arm_4k(), 3);
    every_hole::<Arm<14>>(arm_16k().with(incoherent), 1);
    every_hole::<Arm<16>>(arm_64k(), 1);
}

/// Tables that cannot be split: what crosses no edge goes as with an unmap, everything else is
/// refused.
#[test]
fn where_nothing_can_be_split() {
    fn check<H: Hardware>(size_lg2: u32) {
        let mut rig = Rig::<H>::new(odd());
        let page = rig.model.rules.page();
        let size = 1u64 << size_lg2;
        rig.map_ok(0, size, 0, rw());
        assert_eq!(rig.leaves().len(), 1);
        assert_eq!(rig.carve(0, page, None), Err(Error::NotSupported));
        assert_eq!(rig.carve(0, size, None), Ok(0));
        rig.finish();
    }
    // A leaf that a table would have to replace, and one of several items.
    check::<OddHw<false, true>>(20);
    check::<OddHw<true, false>>(14);
}

/// The caller was wrong about what is mapped: the range is unmapped up to the gap, and the result
/// says so.
#[test]
fn a_gap_is_reported() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(0, 8 * M2, G1, rw());
    rig.unmap(4 * M2, M2);
    let lock = rig.arena.lock(K4, 8 * M2 - 2 * K4).unwrap();
    let mut free = Free::new(&rig.arena);
    let flush = rig.pt().carve(lock.range(), &mut free).unwrap();
    assert_eq!(flush.leaves().count(), 2);
    assert_eq!(flush.fold_late_dirty(), Err(Error::NotMapped));
    drop(lock);
    rig.model.split(K4, 8 * M2 - 2 * K4);
    for (va, last) in [(K4, 4 * M2 - 1), (7 * M2, 8 * M2 - K4 - 1)] {
        rig.model.unmap(va, last);
    }
    rig.check();
    rig.finish();
}
