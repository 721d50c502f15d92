// SPDX-License-Identifier: GPL-2.0-only

//! What is special in each of the hardware's formats: the upper half, groups of items, sizes.
//!
//! [`Rig`] compares every call with the model and the hardware; the tests here choose the cases and
//! say some results in plain numbers too.

use crate::arena::View;
use crate::hw::{Amd, Arm, Hardware, Riscv, X86};
use crate::laws::all_prots;
use crate::rig::{Rig, Setup};
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, riscv, rw, x86, G1, K4, M2};
use iotable::fmt::amdv1::features as amdv1;
use iotable::fmt::armv8::features as armv8;
use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{Features, Prot};
use iotable::{Bytes, Error};

type Real = Amd<false>;
type Mock = Amd<true>;

/// AMD v1 without encryption, so that all OAs can be used, and a top that does not grow.
fn fixed(top: u8) -> Setup {
    Setup::plain(top)
}

/// The sizes of all leaves, in order.
fn sizes<H: Hardware>(rig: &Rig<H>) -> Vec<u32> {
    rig.leaves().iter().map(|leaf| leaf.bits.size_lg2).collect()
}

fn count<H: Hardware>(rig: &Rig<H>, size_lg2: u32) -> usize {
    sizes(rig)
        .into_iter()
        .filter(|&lg2| lg2 == size_lg2)
        .count()
}

fn all_rights<H: Hardware>(setup: Setup) {
    let mut rig = Rig::<H>::new(setup);
    let page = K4.max(1 << H::GRANULE_LG2);
    let block = M2.max(1 << (H::GRANULE_LG2 + H::ITEMS_LG2));
    for (n, prot) in all_prots().enumerate() {
        let va = n as u64 * G1;
        if rig.map(va, block + page, va, prot).is_some() {
            rig.lookup(va);
            rig.lookup(va + block);
            rig.split(va + page, page).unwrap();
        }
    }
    rig.finish();
}

#[test]
fn rights_and_features() {
    all_rights::<X86>(x86());
    let sme = x86().with(X86_64::AMD_ENCRYPT_TABLES).encrypted(47);
    all_rights::<X86>(sme);
    all_rights::<Real>(fixed(2));
    all_rights::<Real>(amd());
    all_rights::<Real>(fixed(2).with(amdv1::FORCE_COHERENCE));
    all_rights::<Mock>(mock());
    all_rights::<Riscv>(riscv());
    all_rights::<Riscv>(Setup::plain(3).with(Features::SIGN_EXTEND));
    for stage in [Features::default(), armv8::S2, armv8::S2.with(armv8::S2FWB)] {
        all_rights::<Arm<12>>(Setup::plain(2).with(stage));
        all_rights::<Arm<14>>(Setup::plain(2).with(stage));
        all_rights::<Arm<16>>(Setup::plain(1).with(stage));
    }
}

fn upper_half<H: Hardware>(setup: Setup) {
    let mut rig = Rig::<H>::new(setup);
    let half = 1u64 << (rig.model.rules.va_lg2 - 1);
    let upper = half.wrapping_neg();
    // Neither half, or both.
    for (va, len) in [
        (half, K4),
        (half - K4, 2 * K4),
        (upper - K4, K4),
        (upper - K4, 2 * K4),
        (half << 1, K4),
        (0, upper + K4),
    ] {
        let mapped = rig.map(va, len, 0, rw()).unwrap();
        assert_eq!(
            (mapped.bytes, mapped.result),
            (Bytes(0), Err(Error::OutOfRange))
        );
        assert_eq!(rig.split(va, len), Err(Error::NotMapped));
        assert_eq!(rig.unmap(va, len), 0);
        rig.lookup(va);
        rig.lookup(va + (len - 1));
    }
    // The first and the last page of each half.
    for va in [0, half - K4, upper, K4.wrapping_neg()] {
        rig.map_ok(va, K4, va & (G1 - 1), rw());
        rig.lookup(va);
        rig.lookup(va + (K4 - 1));
        rig.lookup(va.wrapping_sub(1));
    }
    assert_eq!(rig.unmap(K4.wrapping_neg(), K4), K4);
    // Large leaves up to the end of all addresses, cut at the end, at the start and between.
    for (at, len) in [
        (K4.wrapping_neg(), K4),
        (G1.wrapping_neg(), K4),
        (M2.wrapping_neg(), M2),
        (G1.wrapping_neg() + M2 + K4, 9 * M2),
    ] {
        let start = (2 * G1).wrapping_neg();
        rig.map_ok(start, 2 * G1, 5 * G1, rw());
        let before = rig.model.count();
        assert_eq!(count(&rig, 30), 2);
        rig.split(at, len).unwrap();
        assert!(rig.model.count() > before);
        assert_eq!(rig.unmap(at, len), len);
        rig.lookup(u64::MAX);
        rig.lookup(start);
        let (before, after) = (at - start, at.wrapping_add(len));
        if before != 0 {
            assert_eq!(rig.unmap(start, before), before);
        }
        if after != 0 {
            assert_eq!(rig.unmap(after, after.wrapping_neg()), after.wrapping_neg());
        }
    }
    rig.finish();
}

#[test]
fn the_half_above_the_sign_bit() {
    upper_half::<X86>(x86());
    upper_half::<X86>(Setup {
        top_level: 4,
        ..x86().with(Features::DMA_INCOHERENT)
    });
    for top in 2..=4 {
        upper_half::<Riscv>(Setup {
            top_level: top,
            ..riscv()
        });
    }
}

// AMD's use without PASID: one bit less, and no upper half.
#[test]
fn x86_64_without_a_sign() {
    for (top, va_lg2) in [(3, 47), (4, 56)] {
        let mut rig = Rig::<X86>::new(Setup::plain(top).space(va_lg2));
        let end = 1u64 << va_lg2;
        for va in [end, K4.wrapping_neg(), end.wrapping_neg()] {
            let mapped = rig.map(va, K4, 0, rw()).unwrap();
            assert_eq!(mapped.result, Err(Error::OutOfRange));
            rig.lookup(va);
        }
        rig.map_ok(end - G1, G1, 0, rw());
        assert_eq!(rig.split(end - K4, K4), Ok(2));
        rig.lookup(end - 1);
        rig.lookup(end);
        rig.finish();
    }
}

/// Maps one leaf, lets hardware write through one of its pages, and cuts it in many ways.
fn one_leaf<H: Hardware>(make: impl Fn() -> Setup, size_lg2: u32) {
    let size = 1u64 << size_lg2;
    let page = 1 << H::GRANULE_LG2;
    let base = if size_lg2 < 40 { 5 << size_lg2 } else { 0 };
    let quarter = (size / 4).max(page);
    let mut holes = vec![
        (0, page),
        (size - page, page),
        (size / 2, size / 2),
        (0, quarter),
        (quarter, page),
        (size / 2 - page, 2 * page),
    ];
    if size_lg2 % 3 == 0 {
        holes.extend([(page, size - page), (quarter, size / 2)]);
    }
    for (n, (at, len)) in holes.into_iter().enumerate() {
        let mut rig = Rig::<H>::new(make());
        rig.map_ok(base, size, base, rw());
        assert_eq!(sizes(&rig), [size_lg2]);
        let dirty = n % 2 == 0;
        if dirty {
            // In one item of the group, which speaks for all.
            let va = base + ((size / 3) & !(page - 1));
            rig.root().access(va, true).expect("mapped");
            rig.model.touch(va, true);
            rig.check();
        }
        rig.read_dirty(base + at, len, true);
        rig.split(base + at, len).unwrap();
        let all = rig.leaves();
        assert!(all
            .iter()
            .all(|leaf| leaf.bits.dirty == (dirty || H::PRESET)));
        rig.read_dirty(base, size, false);
        rig.read_dirty(base + at, page, true);
        rig.read_dirty(base, size, true);
        rig.read_dirty(base, size, false);
        rig.lookup(base + at);
        rig.lookup(base + (size - 1));
        assert_eq!(rig.unmap(base + at, len), len);
        rig.finish();
    }
}

#[test]
fn amdv1_leaves_in_all_sizes() {
    for size_lg2 in (13..=51).filter(|&lg2| lg2 != 39) {
        one_leaf::<Real>(|| fixed(5), size_lg2);
    }
    for size_lg2 in (12..=46).filter(|&lg2| lg2 != 39) {
        one_leaf::<Mock>(|| fixed(4), size_lg2);
    }
    // Encrypted, below a top that grew.
    for size_lg2 in [13, 16, 20, 22, 30, 34] {
        one_leaf::<Real>(amd, size_lg2);
    }
}

#[test]
fn riscv_64_and_x86_64_leaves_in_all_sizes() {
    for size_lg2 in [16, 21, 30, 39, 48] {
        one_leaf::<Riscv>(
            || Setup {
                top_level: 4,
                ..riscv()
            },
            size_lg2,
        );
    }
    for size_lg2 in [21, 30] {
        one_leaf::<X86>(x86, size_lg2);
        let sme = || x86().with(X86_64::AMD_ENCRYPT_TABLES).encrypted(51);
        one_leaf::<X86>(sme, size_lg2);
    }
}

#[test]
fn armv8_leaves_in_all_sizes() {
    for size_lg2 in [21, 30] {
        one_leaf::<Arm<12>>(arm_4k, size_lg2);
    }
    one_leaf::<Arm<14>>(arm_16k, 25);
    one_leaf::<Arm<16>>(arm_64k, 29);
}

/// Tables that a hole takes, and the sizes of the leaves then.
fn cost<H: Hardware>(setup: Setup, size: u64, at: u64, len: u64) -> (usize, Vec<u32>) {
    let mut rig = Rig::<H>::new(setup);
    rig.map_ok(0, size, 0, rw());
    assert_eq!(rig.model.count(), 1);
    let tables = rig.split(at, len).unwrap();
    let sizes = sizes(&rig);
    rig.finish();
    (tables, sizes)
}

#[test]
fn amdv1_costs() {
    let cost = |size, at, len| cost::<Real>(fixed(5), size, at, len);
    // Within a level no table, and the largest leaves.
    assert_eq!(cost(4 * K4, K4, K4), (0, vec![12, 12, 13]));
    assert_eq!(cost(16 * K4, 0, K4), (0, vec![12, 12, 13, 14, 15]));
    assert_eq!(cost(8 * M2, 6 * M2, M2), (0, vec![23, 22, 21, 21]));
    assert_eq!(cost(4 * G1, 2 * G1, 2 * G1), (0, vec![31, 31]));
    // One for each level below.
    let (tables, leaves) = cost(2 * M2, K4, K4);
    let mut want: Vec<u32> = vec![12, 12];
    want.extend(13..=21);
    assert_eq!((tables, leaves), (1, want));
    assert_eq!(cost(4 * G1, K4, K4).0, 2);
    // Halves of 1T would be 512G: each takes a table of two leaves.
    let half = 1 << 39;
    assert_eq!(cost(2 * half, half, half), (2, vec![38; 4]));
    assert_eq!(cost(1 << 51, 1 << 48, 1 << 48), (0, vec![48, 48, 49, 50]));
    // With no more sizes than others have.
    let three = K4 | M2 | G1;
    let mut rig = Rig::<Real>::new(fixed(3).without(!three));
    rig.map_ok(0, G1, 0, rw());
    assert_eq!(rig.split(M2 + K4, K4), Ok(2));
    assert_eq!((count(&rig, 12), count(&rig, 21)), (512, 511));
    rig.finish();
}

#[test]
fn riscv_64_costs() {
    let top = Setup {
        top_level: 4,
        ..riscv()
    };
    let cost = |size, at, len| {
        let (tables, sizes) = cost::<Riscv>(top, size, at, len);
        let of = |lg2| sizes.iter().filter(|&&size| size == lg2).count();
        (tables, [of(12), of(16), of(21), of(30), of(39)])
    };
    let k64 = 16 * K4;
    // A group of 16 has nothing between it and its pages.
    assert_eq!(cost(k64, 8 * K4, K4), (0, [16, 0, 0, 0, 0]));
    assert_eq!(cost(M2, k64, k64), (1, [0, 32, 0, 0, 0]));
    assert_eq!(cost(M2, 5 * k64, K4), (1, [16, 31, 0, 0, 0]));
    assert_eq!(cost(G1, 5 * k64, K4), (2, [16, 31, 511, 0, 0]));
    assert_eq!(cost(1 << 39, 5 * k64, K4), (3, [16, 31, 511, 511, 0]));
    assert_eq!(cost(1 << 48, 5 * k64, K4), (4, [16, 31, 511, 511, 511]));
    assert_eq!(cost(1 << 48, 1 << 39, 1 << 40), (1, [0, 0, 0, 0, 512]));
    // Without the extension.
    let mut rig = Rig::<Riscv>::new(Setup::plain(2).with(Features::SIGN_EXTEND));
    rig.map_ok(0, M2, 0, rw());
    assert_eq!(rig.split(5 * k64, K4), Ok(1));
    assert_eq!(count(&rig, 12), 512);
    rig.finish();
}

#[test]
fn armv8_costs() {
    let of = |sizes: &[u32], lg2| sizes.iter().filter(|&&size| size == lg2).count();
    let (tables, sizes) = cost::<Arm<12>>(arm_4k(), G1, 5 * M2 + K4, K4);
    assert_eq!((tables, of(&sizes, 12), of(&sizes, 21)), (2, 512, 511));
    // There is nothing between a block and its pages.
    let (k16, m32) = (1 << 14, 1 << 25);
    let (tables, sizes) = cost::<Arm<14>>(arm_16k(), m32, 5 * k16, k16);
    assert_eq!((tables, of(&sizes, 14)), (1, 2048));
    let (k64, m512) = (1 << 16, 1 << 29);
    let (tables, sizes) = cost::<Arm<16>>(arm_64k(), m512, 5 * k64, k64);
    assert_eq!((tables, of(&sizes, 16)), (1, 8192));
}

/// Where the space ends a table is not used to its end.
fn space<H: Hardware>(setup: Setup, va_lg2: u32) {
    let mut rig = Rig::<H>::new(setup.space(va_lg2));
    let (end, page) = (1u64 << va_lg2, 1u64 << H::GRANULE_LG2);
    let block = 1u64 << rig.model.rules.sizes.ilog2();
    for va in [end, page.wrapping_neg(), end << 1] {
        let mapped = rig.map(va, page, 0, rw()).unwrap();
        assert_eq!(mapped.result, Err(Error::OutOfRange));
        rig.lookup(va);
    }
    rig.map_ok(end - block, block, 0, rw());
    rig.map_ok(0, block, block, rw());
    rig.split(end - page, page).unwrap();
    rig.lookup(end - 1);
    rig.lookup(end);
    assert_eq!(rig.unmap(end - page, page), page);
    rig.finish();
}

#[test]
fn armv8_with_a_small_top() {
    for va_lg2 in [40, 42, 48] {
        space::<Arm<12>>(Setup::plain(3), va_lg2);
    }
    for (top, va_lg2) in [(2, 37), (2, 47), (3, 48)] {
        space::<Arm<14>>(Setup::plain(top), va_lg2);
    }
    for (top, va_lg2) in [(1, 32), (2, 43), (2, 48)] {
        space::<Arm<16>>(Setup::plain(top), va_lg2);
    }
}

// A size in one item means nothing for its neighbour: every item is checked, and every item goes.
#[test]
fn groups_are_mapped_and_unmapped_as_a_whole() {
    fn check<H: Hardware>(setup: Setup, group: u64) {
        let page = 1u64 << H::GRANULE_LG2;
        let mut rig = Rig::<H>::new(setup);
        // In the way, at each place.
        for at in (0..group).step_by(page as usize) {
            rig.map_ok(at, page, 0, rw());
            let mapped = rig.map(0, group, group, rw()).unwrap();
            assert_eq!((mapped.bytes, mapped.result), (Bytes(0), Err(Error::Busy)));
            assert_eq!(rig.unmap(at, page), page);
        }
        rig.map_ok(0, 2 * group, 0, rw());
        let leaf = rig.model.nth(0).unwrap().1.size_lg2;
        for at in [page, group - page, group / 2] {
            assert_eq!(rig.unmap(at, page), 0, "from inside");
            let mapped = rig.map(at, page, 0, rw()).unwrap();
            assert_eq!(mapped.result, Err(Error::Busy));
        }
        // It ends inside: the leaf goes as a whole.
        assert_eq!(rig.unmap(0, page), 1 << leaf);
        rig.lookup(group - 1);
        rig.finish();
    }
    check::<Real>(fixed(2), 8 * K4);
    check::<Real>(amd(), 64 * K4);
    check::<Mock>(mock(), 16 << 11);
    check::<Riscv>(riscv(), 16 * K4);
}

#[test]
fn memory_types_of_x86_64_survive() {
    // PAT moves from bit 12 to bit 7 on the way to level 0; PS takes its place above.
    for (pat, others) in [(0x1000, 0), (0, 0x18), (0x1000, 0x18 | 0x100 | (1 << 63))] {
        let mut rig = Rig::<X86>::new(x86());
        rig.map_ok(G1, G1, 3 * G1, rw());
        let item = rig.root().translate(G1).unwrap().item;
        rig.arena
            .poke(item, rig.arena.hw_read(item, View::Cpu) | pat | others);
        let want = others | (pat >> 5);
        rig.model.set_rest(G1, want);
        rig.check();
        rig.split(G1 + 5 * M2 + K4, K4).unwrap();
        assert!(rig.leaves().iter().all(|leaf| leaf.bits.rest == want));
        assert_eq!((count(&rig, 12), count(&rig, 21)), (512, 511));
        rig.finish();
    }
}

#[test]
fn a_dirty_item_speaks_for_its_group() {
    let mut rig = Rig::<Real>::new(fixed(2));
    rig.map_ok(0, 32 * K4, 0, rw());
    for page in [0, 1, 17, 31] {
        let va = page * K4;
        rig.root().access(va, true).expect("mapped");
        rig.model.touch(va, true);
        // Asked for another page, that is reported all the same; read as a whole, it is clean
        // everywhere.
        rig.read_dirty(5 * K4, K4, false);
        rig.read_dirty(30 * K4, K4, true);
        rig.read_dirty(0, 32 * K4, true);
        for item in 0..32 {
            let hit = rig.root().translate(item * K4).unwrap();
            assert!(!hit.bits.dirty, "item {item} after page {page}");
        }
    }
    rig.root().access(31 * K4, true).expect("mapped");
    rig.model.touch(31 * K4, true);
    assert_eq!(rig.split(K4, K4), Ok(0));
    for item in 0..32 {
        assert!(rig.root().translate(item * K4).unwrap().bits.dirty);
    }
    rig.finish();
}

// Whatever grants nothing is still mapped.
#[test]
fn a_leaf_without_rights() {
    let mut rig = Rig::<Real>::new(fixed(2));
    rig.map_ok(0, M2, 0, Prot::default());
    rig.lookup(5);
    assert_eq!(rig.root().translate(5), None);
    let mapped = rig.map(0, K4, 0, rw()).unwrap();
    assert_eq!(mapped.result, Err(Error::Busy));
    assert_eq!(rig.split(K4, K4), Ok(1));
    assert_eq!(rig.unmap(0, M2), M2);
    rig.finish();
}
