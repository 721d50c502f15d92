// SPDX-License-Identifier: GPL-2.0-only

//! What a split leaves behind: shape, cost, report, bits, errors.
//!
//! [`Rig::split`] compares all of it with the model each time, and looks at the table after each
//! store; the tests here choose where to cut and say some results in plain numbers too.

use crate::arena::View;
use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Vtd, X86};
use crate::odd::OddFmt;
use crate::rig::{Rig, Setup};
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86, G1, K4, M2};
use iotable::fmt::amdv1::Amdv1;
use iotable::fmt::armv8::Armv8;
use iotable::fmt::riscv_64::Riscv64;
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{Features, Prot};
use iotable::{can_split, Error, Iova, Level, Replaced};

type Odd = OddHw<true, true>;

/// Numbers of 4K, 2M and 1G leaves.
fn counts(rig: &Rig<Vtd>) -> (usize, usize, usize) {
    let of = |lg2| {
        rig.leaves()
            .iter()
            .filter(|l| l.bits.size_lg2 == lg2)
            .count()
    };
    (of(12), of(21), of(30))
}

/// A table with a 1G leaf at `va`.
fn one_gig(setup: Setup, va: u64) -> Rig<Vtd> {
    let mut rig = Rig::new(setup);
    rig.map_ok(va, G1, 7 * G1, rw());
    assert_eq!(counts(&rig), (0, 0, 1));
    rig
}

#[test]
fn a_2m_hole_costs_one_table() {
    for features in [
        Features::default(),
        Features::DMA_INCOHERENT,
        Vtdss::FORCE_COHERENCE,
        Vtdss::FORCE_WRITEABLE,
    ] {
        for top in 2..=4 {
            let mut rig = one_gig(Setup::plain(top).with(features), 5 * G1);
            assert_eq!(rig.split(5 * G1 + 8 * M2, M2), Ok(1));
            assert_eq!(counts(&rig), (0, 512, 0));
            assert_eq!(rig.unmap(5 * G1 + 8 * M2, M2), M2);
            assert_eq!(counts(&rig), (0, 511, 0));
            rig.finish();
        }
    }
}

#[test]
fn a_4k_hole_costs_two_tables() {
    for at in [0, K4, 100 * M2 + 5 * K4, 512 * M2 - K4] {
        let mut rig = one_gig(Setup::plain(2), 0);
        assert_eq!(rig.split(at, K4), Ok(2));
        assert_eq!(counts(&rig), (512, 511, 0));
        assert_eq!(rig.unmap(at, K4), K4);
        assert_eq!(counts(&rig), (511, 511, 0));
        rig.finish();
    }
}

#[test]
fn cost_by_where_the_edges_lie() {
    // Start and length of the hole in two 1G leaves, and the tables it takes.
    for (va, len, tables) in [
        // Both edges in the same 2M.
        (3 * M2 + K4, 2 * K4, 2),
        (3 * M2, M2 - K4, 2),
        // In different 2M of the same 1G.
        (3 * M2 + K4, M2, 3),
        (3 * M2 + K4, 200 * M2, 3),
        // One on a 2M boundary.
        (3 * M2, 4 * M2 + K4, 2),
        (3 * M2 + K4, 4 * M2 - K4, 2),
        // In different 1G leaves.
        (G1 - M2, 2 * M2, 2),
        (G1 - K4, 2 * K4, 4),
        (G1 - M2, M2 + K4, 3),
        // One edge only.
        (0, K4, 2),
        (0, M2, 1),
        (M2, 2 * G1 - M2, 1),
        (G1, K4, 2),
        (G1 - K4, G1 + K4, 2),
        // None.
        (0, G1, 0),
        (G1, G1, 0),
        (0, 2 * G1, 0),
    ] {
        let mut rig = Rig::<Vtd>::new(Setup::plain(3));
        rig.map_ok(0, 2 * G1, 8 * G1, rw());
        assert_eq!(rig.split(va, len), Ok(tables), "{va:#x} {len:#x}");
        assert_eq!(rig.split(va, len), Ok(0), "again");
        assert_eq!(rig.unmap(va, len), len, "unmap is exact");
        rig.finish();
    }
}

#[test]
fn every_replaced_leaf_is_reported_at_its_old_size() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(3));
    rig.map_ok(0, 2 * G1 + M2, 8 * G1, rw());
    let split = |rig: &Rig<Vtd>, va, len| {
        let lock = rig.arena.lock(va, len).unwrap();
        let flush = rig.pt().split(lock.range()).unwrap();
        let leaves: Vec<_> = flush.leaves().collect();
        assert_eq!(flush.is_empty(), leaves.is_empty());
        assert_eq!(flush.finish(), Ok(()));
        leaves
    };
    let old = |va, size_lg2, level| Replaced {
        va: Iova(va),
        size_lg2,
        level: Level(level),
    };
    let leaves = split(&rig, G1 - M2, G1);
    assert_eq!(leaves, [old(0, 30, 2), old(G1, 30, 2)]);
    assert_eq!(split(&rig, G1 - M2, G1), []);
    assert_eq!(split(&rig, 2 * G1, K4), [old(2 * G1, 21, 1)]);
    assert_eq!(split(&rig, 3 * M2 + K4, K4), [old(3 * M2, 21, 1)]);
    rig.finish();
}

#[test]
fn first_and_last_addresses_of_the_space() {
    let top = 1 << 57;
    for (base, holes) in [
        (0, [(0, K4), (0, M2), (M2 - K4, K4)]),
        (top - G1, [(top - K4, K4), (top - M2, M2), (top - G1, K4)]),
    ] {
        for (va, len) in holes {
            let mut rig = one_gig(Setup::plain(4), base);
            rig.split(va, len).unwrap();
            assert_eq!(rig.unmap(va, len), len);
            rig.lookup(base);
            rig.lookup(base + G1 - 1);
            rig.finish();
        }
    }
    // The sum of address and length does not fit in 64 bits.
    let page = 1u64 << 11;
    for size_lg2 in [12, 18, 24, 26, 32, 37] {
        let size = 1u64 << size_lg2;
        for (va, len) in [
            (page.wrapping_neg(), page),
            (size.wrapping_neg(), page),
            (size.wrapping_neg(), size / 2),
            ((size / 2).wrapping_neg(), size / 2),
        ] {
            let mut rig = Rig::<Odd>::new(odd());
            rig.map_ok(size.wrapping_neg(), size, 0, rw());
            rig.split(va, len).unwrap();
            assert_eq!(rig.unmap(va, len), len);
            rig.lookup(u64::MAX);
            rig.finish();
        }
    }
}

// Every leaf size of the odd format, cut in every alignment class, once and twice.
#[test]
fn odd_leaves_in_all_sizes() {
    for size_lg2 in (12..38).filter(|&lg2| lg2 != 25) {
        let size = 1u64 << size_lg2;
        let page = 1 << 11;
        let mut points = vec![0, page, size - page, size];
        for lg2 in (12..size_lg2).step_by(3) {
            points.extend([1 << lg2, size - (1 << lg2), size / 2 + (1 << lg2)]);
        }
        points.retain(|&at| at <= size);
        points.sort_unstable();
        points.dedup();
        // All with the ends, and neighbours with each other.
        let ends = points.iter().flat_map(|&at| [(0, at), (at, size)]);
        let pairs = points.windows(2).map(|pair| (pair[0], pair[1]));
        for (from, to) in ends.chain(pairs).filter(|(from, to)| from < to) {
            let base = 1 << 37;
            let mut rig = Rig::<Odd>::new(odd());
            rig.map_ok(base, size, 0, rw());
            assert_eq!(rig.model.count(), 1);
            if size_lg2 % 2 == 0 {
                rig.set_dirty(base + size / 2).unwrap();
            }
            rig.split(base + from, to - from).unwrap();
            assert_eq!(rig.unmap(base + from, to - from), to - from);
            rig.finish();
        }
    }
}

#[test]
fn odd_costs() {
    // Level 2 has no single leaves: each half of a 64M leaf needs a table.
    let mut rig = Rig::<Odd>::new(odd());
    rig.map_ok(0, 1 << 26, 0, rw());
    assert_eq!(rig.split(0, 1 << 25), Ok(2));
    let sizes: Vec<_> = rig.leaves().iter().map(|l| l.bits.size_lg2).collect();
    assert_eq!(sizes, [24; 4]);
    rig.finish();
    // Within one level a contiguous leaf is cut without a table.
    let mut rig = Rig::<Odd>::new(odd());
    rig.map_ok(0, 1 << 17, 0, rw());
    assert_eq!(rig.split(0, 1 << 11), Ok(0));
    let sizes: Vec<_> = rig.leaves().iter().map(|l| l.bits.size_lg2).collect();
    assert_eq!(sizes, [11, 11, 12, 13, 14, 15, 16]);
    rig.finish();
}

#[test]
fn narrow_page_sizes() {
    // 4K and 1G: nothing between, so a 4K hole takes a table for every 2M.
    let mut rig = one_gig(Setup::plain(2).without(M2), 0);
    assert_eq!(rig.split(77 * K4, K4), Ok(513));
    assert_eq!(counts(&rig), (1 << 18, 0, 0));
    rig.finish();
    // 2M is the smallest page.
    let mut rig = one_gig(Setup::plain(2).without(K4), 0);
    assert_eq!(rig.split(M2, K4), Err(Error::Invalid));
    assert_eq!(rig.split(K4, M2), Err(Error::Invalid));
    assert_eq!(rig.split(M2, M2), Ok(1));
    rig.finish();
    let mut rig =
        Rig::<Odd>::new(odd().without((1 << 11) | (1 << 13) | (1 << 18) | (1 << 24) | (1 << 31)));
    rig.map_ok(0, 1 << 37, 0, rw());
    assert_eq!(rig.split(0, 1 << 11), Err(Error::Invalid));
    rig.split(1 << 12, 1 << 12).unwrap();
    rig.split(1 << 31, 1 << 31).unwrap();
    rig.finish();
}

fn keeps_all_bits<H: Hardware>(mut rig: Rig<H>, va: u64, size: u64, hole: u64, len: u64) {
    rig.map_ok(va, size, 0, Prot::READ);
    let bit = |n: u32| 1u64 << n;
    let ignored: Vec<u64> = (0..64).map(bit).filter(|b| H::IGNORED & b != 0).collect();
    // All, and every other one.
    let alternate = ignored.iter().step_by(2).sum();
    for (extra, hole) in [(H::IGNORED, hole), (alternate, hole + 2 * len)] {
        let (start, bits) = rig.model.find(hole).unwrap();
        let rest = bits.rest & !H::IGNORED | extra;
        let items = bits.size_lg2
            - rig
                .model
                .rules
                .item_lg2(rig.model.rules.level_of(bits.size_lg2));
        let hit = rig.root().translate(start).unwrap();
        for i in 0..1 << items {
            let at = hit.item + 8 * i;
            let item = rig.arena.hw_read(at, View::Cpu);
            rig.arena.poke(at, item & !H::IGNORED | extra | H::ACCESSED);
        }
        rig.model.set_rest(start, rest);
        rig.check();
        rig.split(hole, len).unwrap();
        for leaf in rig.leaves() {
            if start <= leaf.va && leaf.va - start < 1 << bits.size_lg2 {
                assert_eq!(leaf.bits.rest, rest, "{leaf:x?}");
                assert!(leaf.bits.accessed, "{leaf:x?}");
            }
        }
    }
    rig.finish();
}

#[test]
fn all_bits_of_the_leaf_survive() {
    for features in [Features::default(), Vtdss::FORCE_COHERENCE] {
        keeps_all_bits(
            Rig::<Vtd>::new(Setup::plain(2).with(features)),
            G1,
            G1,
            G1 + M2,
            M2,
        );
        keeps_all_bits(
            Rig::<Vtd>::new(Setup::plain(2).with(features)),
            G1,
            G1,
            G1 + K4,
            K4,
        );
    }
    for lg2 in [14, 18, 22, 27, 32, 35] {
        let rig = Rig::<Odd>::new(odd());
        keeps_all_bits(rig, 0, 1 << lg2, 1 << 11, 1 << 11);
    }
    for setup in [x86(), x86().encrypted(47)] {
        for size in [M2, G1] {
            keeps_all_bits(Rig::<X86>::new(setup), size, size, size + K4, K4);
        }
    }
    for lg2 in [16, 20, 21, 22, 30, 35, 41] {
        let (size, rig) = (1 << lg2, Rig::<Amd<false>>::new(amd()));
        keeps_all_bits(rig, size, size, size + K4, K4);
        let rig = Rig::<Amd<true>>::new(mock());
        keeps_all_bits(rig, size, size, size + (1 << 11), 1 << 11);
    }
    for lg2 in [16, 21, 30] {
        let (size, rig) = (1 << lg2, Rig::<Riscv>::new(riscv()));
        keeps_all_bits(rig, size, size, size + K4, K4);
    }
    for size in [M2, G1] {
        keeps_all_bits(Rig::<Arm<12>>::new(arm_4k()), size, size, size + K4, K4);
    }
    let (size, page) = (1 << 25, 1 << 14);
    keeps_all_bits(
        Rig::<Arm<14>>::new(arm_16k()),
        size,
        size,
        size + page,
        page,
    );
    let (size, page) = (1 << 29, 1 << 16);
    keeps_all_bits(
        Rig::<Arm<16>>::new(arm_64k()),
        size,
        size,
        size + page,
        page,
    );
}

#[test]
fn dirty_leaves_have_dirty_children_only() {
    for dirty in [false, true] {
        let mut rig = Rig::<Vtd>::new(Setup::plain(2));
        rig.map_ok(0, 2 * G1, 0, rw());
        if dirty {
            rig.set_dirty(G1 + 12345).unwrap();
        }
        rig.split(G1 - K4, 2 * K4).unwrap();
        let leaves = rig.leaves();
        assert_eq!(leaves.len(), 2 * (511 + 512));
        for leaf in leaves {
            assert_eq!(leaf.bits.dirty, dirty && leaf.va >= G1);
        }
        rig.finish();
    }
}

#[test]
fn errors() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(G1, G1, 0, rw());
    for (va, len) in [
        (G1 + 1, K4),
        (G1, 1),
        (G1 + 2048, K4),
        (G1, K4 + 8),
        (G1 + 2048, 2048),
    ] {
        assert_eq!(rig.split(va, len), Err(Error::Invalid));
    }
    for (va, len) in [
        (0, K4),
        (G1 - K4, 2 * K4),
        (2 * G1 - K4, 2 * K4),
        (0, 4 * G1),
    ] {
        assert_eq!(rig.split(va, len), Err(Error::NotMapped));
    }
    // Beyond the table.
    for (va, len) in [(1 << 39, K4), ((1 << 39) - K4, 2 * K4), (G1 + K4, 1 << 40)] {
        assert_eq!(rig.split(va, len), Err(Error::NotMapped));
    }
    assert_eq!(rig.arena.lock(G1, 0).err(), Some(Error::Invalid));
    assert_eq!(rig.arena.lock(K4, u64::MAX).err(), Some(Error::Overflow));
    // A hole in the middle is not at an edge.
    rig.split(G1 + M2, M2).unwrap();
    assert_eq!(rig.unmap(G1 + M2, M2), M2);
    assert_eq!(rig.split(G1 + K4, 4 * M2), Ok(2));
    assert_eq!(rig.split(G1 + K4, M2), Err(Error::NotMapped));
    rig.finish();
}

#[test]
fn hardware_that_needs_break_before_make() {
    let mut rig = Rig::<OddHw<false, true>>::new(odd());
    rig.map_ok(0, 1 << 18, 0, rw());
    rig.map_ok(1 << 19, 1 << 19, 0, rw());
    // A table would be needed, at either edge.
    assert_eq!(rig.split(1 << 11, 1 << 11), Err(Error::NotSupported));
    assert_eq!(rig.split(0, 1 << 11), Err(Error::NotSupported));
    assert_eq!(
        rig.split(1 << 11, (1 << 18) - (1 << 11)),
        Err(Error::NotSupported)
    );
    // Nothing crosses, or a contiguous leaf is only resized.
    assert_eq!(rig.split(0, 1 << 18), Ok(0));
    assert_eq!(rig.split(1 << 19, 1 << 18), Ok(0));
    assert_eq!(rig.model.count(), 3);
    rig.finish();

    let mut rig = Rig::<OddHw<true, false>>::new(odd());
    rig.map_ok(0, 1 << 18, 0, rw());
    rig.map_ok(1 << 19, 1 << 19, 0, rw());
    assert_eq!(rig.split(1 << 19, 1 << 18), Err(Error::NotSupported));
    assert_eq!(
        rig.split((1 << 19) + (1 << 11), 1 << 11),
        Err(Error::NotSupported)
    );
    assert_eq!(rig.split(1 << 11, 1 << 11), Ok(1));
    rig.finish();

    // The first edge could be cut, the second cannot: nothing may happen.
    let mut rig = Rig::<OddHw<true, false>>::new(odd());
    rig.map_ok(0, 1 << 18, 0, rw());
    rig.map_ok(1 << 18, 1 << 13, 1 << 20, rw());
    assert_eq!(rig.model.count(), 2);
    assert_eq!(rig.split(1 << 11, 1 << 18), Err(Error::NotSupported));
    assert_eq!(rig.model.count(), 2);
    rig.finish();
}

// What is said before there is a table is what the calls say of the leaves.
#[test]
fn can_split_speaks_for_every_leaf() {
    fn refuses<const T: bool, const R: bool>() -> bool {
        let mut rig = Rig::<OddHw<T, R>>::new(odd());
        let mut refused = false;
        for lg2 in 12..=32 {
            for (va, len) in [(0, 1 << 11), (0, 1 << (lg2 - 1))] {
                rig.map_ok(0, 1 << lg2, 0, rw());
                refused |= rig.split(va, len) == Err(Error::NotSupported);
                assert_eq!(rig.unmap(0, 1 << lg2), 1 << lg2);
            }
        }
        rig.finish();
        refused
    }

    fn agrees<const T: bool, const R: bool>() {
        assert_eq!(can_split::<OddFmt<T, R>>(), !refuses::<T, R>());
    }

    agrees::<true, true>();
    agrees::<true, false>();
    agrees::<false, true>();
    agrees::<false, false>();
    assert!(can_split::<Vtdss>() && can_split::<X86_64>() && can_split::<Riscv64>());
    assert!(can_split::<Amdv1<false>>() && can_split::<Amdv1<true>>());
    assert!(can_split::<Armv8<12>>() && can_split::<Armv8<14>>() && can_split::<Armv8<16>>());
}

// The same set of holes, in any order, leaves the same leaves.
#[test]
fn repeated_splits_in_any_order() {
    let holes: Vec<(u64, u64)> = (0..24)
        .map(|i| (i * 41 % 512 * M2 + i * 97 % 512 * K4, (1 + i * i % 7) * K4))
        .collect();
    let mut shapes = Vec::new();
    for (step, features) in [
        (1, Features::default()),
        (5, Features::default()),
        (7, Features::DMA_INCOHERENT),
        (23, Features::default()),
    ] {
        let mut rig = one_gig(Setup::plain(2).with(features), 0);
        for i in 0..holes.len() {
            let (va, len) = holes[i * step % holes.len()];
            rig.split(va, len).unwrap();
        }
        shapes.push(rig.leaves());
        for &(va, len) in &holes {
            assert_eq!(rig.unmap(va, len), len);
        }
        rig.finish();
    }
    assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]));
}
