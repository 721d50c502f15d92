// SPDX-License-Identifier: GPL-2.0-only

//! Walks over a part of a table. [`Rig`] walks over all of it after each operation.

use std::vec;

use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Vtd, X86};
use crate::rig::{Rig, Setup};
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86, G1, K4, M2};
use iotable::fmt::{Features, Format, Prot};

/// Leaves of all kinds with holes between them, and a table in which nothing is left.
fn filled<H: Hardware>(setup: Setup) -> Rig<H> {
    let mut rig = Rig::<H>::new(setup);
    let page = rig.model.rules.page();
    for n in 0..3 {
        // From the middle of a table on, so that its first address is mapped to nothing.
        rig.map_ok(
            n * G1 + M2 + 3 * page,
            M2 * 3 / 2,
            n * G1 + M2 + 3 * page,
            rw(),
        );
    }
    rig.map_ok(3 * G1, G1, 3 * G1, Prot::READ);
    rig.map_ok(4 * G1 + 5 * M2, 3 * page, 4 * G1 + 5 * M2, rw());
    for n in 0..3 {
        rig.unmap(4 * G1 + 5 * M2 + n * page, page);
    }
    rig.split(3 * G1 + M2 + page, page).ok();
    rig
}

/// Whatever the range, and wherever a walk stops, each leaf and each table that starts in the range
/// is reported once, and nothing else.
fn parts<H: Hardware>(setup: Setup) {
    let rig = filled::<H>(setup);
    let page = rig.model.rules.page();
    let scan = rig.root().scan(crate::arena::View::Cpu);
    let mut edges = vec![0, page, M2, M2 + 3 * page, M2 + 4 * page, G1, G1 + page];
    edges.extend([
        3 * G1,
        3 * G1 + M2,
        3 * G1 + M2 + page,
        3 * G1 + M2 + 2 * page,
    ]);
    // In the middle of a large leaf, too.
    edges.extend([3 * G1 + 3 * M2 + page, 4 * G1 - page]);
    edges.extend([4 * G1, 4 * G1 + 5 * M2, 4 * G1 + 6 * M2]);
    for (n, &from) in edges.iter().enumerate() {
        for &to in &edges[n + 1..] {
            let inside = |va: u64| from <= va && va < to;
            let leaves = scan.leaves.iter().map(|leaf| leaf.va);
            let leaves: Vec<u64> = leaves.filter(|&va| inside(va)).collect();
            let tables = scan.tables[1..].iter().filter(|at| inside(at.va)).count();
            for limit in [0, 1, 2, 5, u32::MAX] {
                let walked = rig.walk(from, to - 1, limit);
                let got: Vec<u64> = walked.leaves.iter().map(|leaf| leaf.va.0).collect();
                assert_eq!(got, leaves, "{from:#x}..{to:#x} by {limit}");
                assert_eq!(walked.tables.len(), tables, "{from:#x}..{to:#x} by {limit}");
            }
        }
    }
    rig.finish();
}

#[test]
fn every_part_of_a_table() {
    parts::<Vtd>(Setup::plain(3));
    parts::<X86>(x86());
    parts::<Amd<false>>(amd());
    parts::<Amd<true>>(mock());
    parts::<Riscv>(riscv());
    parts::<Arm<12>>(arm_4k());
    parts::<Arm<14>>(arm_16k());
    parts::<Arm<16>>(arm_64k());
    parts::<OddHw<true, true>>(odd());
}

/// The attributes are those of the mapping, whatever hardware has set since.
fn attributes<H: Hardware>(setup: Setup) {
    let mut rig = Rig::<H>::new(setup);
    let attrs = rig.grant(rw()).unwrap().1;
    rig.map_ok(0, M2, 0, rw());
    let before = rig.walk(0, M2 - 1, 1);
    assert_eq!(before.leaves[0].attrs.0, attrs.0 & !H::Format::HW_BITS);
    rig.access(0, true);
    assert_eq!(rig.walk(0, M2 - 1, 1), before);
    rig.finish();
}

#[test]
fn attributes_without_what_hardware_sets() {
    attributes::<Vtd>(Setup::plain(3));
    attributes::<X86>(x86());
    attributes::<Amd<false>>(amd());
    attributes::<Amd<true>>(mock());
    attributes::<Riscv>(riscv());
    attributes::<Arm<12>>(arm_4k());
    attributes::<Arm<14>>(arm_16k());
    attributes::<Arm<16>>(arm_64k());
    attributes::<OddHw<true, true>>(odd());
}

/// In numbers: 1G with a 4K hole, and what is left of it in the tables when all is unmapped.
#[test]
fn a_hole_in_a_gigabyte() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(3));
    rig.map_ok(0, G1, 0, rw());
    rig.split(M2 + K4, K4).unwrap();
    let walked = rig.walk(0, G1 - 1, 100);
    let count = |lg2| {
        walked
            .leaves
            .iter()
            .filter(|leaf| leaf.size_lg2 == lg2)
            .count()
    };
    assert_eq!((count(30), count(21), count(12)), (0, 511, 512));
    assert_eq!(walked.tables, [2, 1, 0]);
    for (va, len) in [(0, M2 + K4), (M2 + K4, K4), (M2 + 2 * K4, G1 - M2 - 2 * K4)] {
        rig.unmap(va, len);
    }
    let walked = rig.walk(0, u64::MAX, 100);
    assert_eq!((walked.leaves.len(), walked.tables), (0, vec![2, 1, 0]));
    rig.finish();
}

/// What a table cannot translate, and the gap between two halves, have nothing.
#[test]
fn outside_of_a_table() {
    let mut rig = Rig::<X86>::new(x86());
    let upper = 0xffff_8000_0000_0000;
    rig.map_ok(upper, K4, 0, rw());
    rig.map_ok(0, K4, 0, rw());
    assert!(x86().params.features.has(Features::SIGN_EXTEND));
    for (va, last, leaves) in [
        (0, u64::MAX, 2),
        (K4, u64::MAX, 1),
        (1 << 47, u64::MAX, 1),
        (1 << 47, upper - 1, 0),
        (upper - K4, upper, 1),
        (upper + K4, u64::MAX, 0),
    ] {
        assert_eq!(rig.walk(va, last, 9).leaves.len(), leaves, "{va:#x}");
    }
    rig.finish();
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(0, K4, 0, rw());
    rig.map_ok((1 << 39) - K4, K4, 0, rw());
    assert_eq!(rig.walk(1 << 39, u64::MAX, 9).leaves.len(), 0);
    assert_eq!(rig.walk(0, u64::MAX, 9).leaves.len(), 2);
    rig.finish();
}
