// SPDX-License-Identifier: GPL-2.0-only

//! Caches that keep what the specifications let them, while leaves are split, unmapped and mapped.
//! `IOTABLE_EXPLORE=full` makes all scenes, except of formats with a leaf for each power of two, of
//! which it makes more than the default.

use std::println;
use std::time::Instant;

use super::explore::{carve, holes, split, targets, Place, Stride};
use crate::explore::{Call, Scene};
use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Vtd, X86};
use crate::iotlb::driver::{live, Mistake};
use crate::iotlb::{Count, Vendor};
use crate::rig::Setup;
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, odd, riscv, rw, x86};
use iotable::fmt::Features;

type Odd = OddHw<true, true>;

/// The life of one leaf, and the places to fill caches for.
fn lives<H: Hardware>(setup: Setup, size_lg2: u32, hole: (u64, u64)) -> (Vec<Scene>, Vec<u64>) {
    let place = Place::new::<H>(setup);
    let leaves = place.with_neighbours(size_lg2);
    let (va, size, page) = (leaves[0].0, 1u64 << size_lg2, place.page);
    let (start, len) = (va + hole.0, hole.1 - hole.0);
    let mut places = targets(&leaves, hole, page);
    places.extend([va + size / 2, va + size / 4 * 3, va + size / 2 - 1]);
    let unmap = |va, len| Call::Unmap { va, len };
    // Not where it was before.
    let map = |va, len| Call::Map {
        va,
        len,
        oa: va & (size - 1),
        prot: rw(),
    };
    let make = |after: &[Call]| {
        let mut scene = Scene::of_leaves::<H>(setup, &leaves, unmap(va, size));
        scene.before.pop();
        scene.before.extend(after);
        scene
    };
    let cut = split(va, hole);
    let mut scenes = vec![
        make(&[cut, unmap(start, len), map(start, len)]),
        make(&[cut]),
    ];
    // Another hole next to the first, while that is there.
    let next = [hole.1, hole.0.wrapping_sub(page)]
        .into_iter()
        .find(|&next| next < size);
    if let Some(next) = next {
        let other = unmap(va + next, page);
        let mut scene = make(&[
            cut,
            unmap(start, len),
            split(va, (next, next + page)),
            other,
        ]);
        // Not all of the leaf is there any more.
        scene.before.push(map(va + next, page));
        scene.call = unmap(va + next, page);
        scene.before.push(map(start, len));
        scenes.push(scene);
    }
    // The leaf takes the place of tables that are empty.
    let mut scene = make(&[cut, unmap(start, len)]);
    let leaf = scene.before.remove(0);
    scene
        .before
        .splice(0..0, [map(va, page), unmap(va, page), leaf]);
    scene.call = map(start, len);
    scenes.push(scene);
    (scenes, places)
}

/// The same for a hole that is made in one call.
fn carved<H: Hardware>(setup: Setup, size_lg2: u32, hole: (u64, u64)) -> [Scene; 2] {
    let leaves = Place::new::<H>(setup).with_neighbours(size_lg2);
    let (va, size) = (leaves[0].0, 1u64 << size_lg2);
    let (start, len) = (va + hole.0, hole.1 - hole.0);
    let make = |call| {
        let mut scene = Scene::of_leaves::<H>(setup, &leaves, call);
        scene.before.pop();
        scene
    };
    let once = make(carve(va, hole));
    // Something else comes into the hole, and goes as it came.
    let mut twice = make(carve(va, hole));
    twice.before.push(carve(va, hole));
    twice.before.push(Call::Map {
        va: start,
        len,
        oa: start & (size - 1),
        prot: rw(),
    });
    [once, twice]
}

/// The same for a leaf that is made whole again.
fn joined<H: Hardware>(setup: Setup, size_lg2: u32, hole: (u64, u64)) -> [Scene; 2] {
    let leaves = Place::new::<H>(setup).with_neighbours(size_lg2);
    let (va, size) = (leaves[0].0, 1u64 << size_lg2);
    let (start, len) = (va + hole.0, hole.1 - hole.0);
    let whole = Call::Unmap { va, len: size };
    let join = Call::Join { va, len: size };
    let make = |after: &[Call]| {
        let mut scene = Scene::of_leaves::<H>(setup, &leaves, whole);
        scene.before.pop();
        let Call::Map { oa, prot, .. } = scene.before[0] else {
            unreachable!()
        };
        for &call in after {
            scene.before.push(call);
            // What was taken out comes back as it was.
            if matches!(call, Call::Unmap { .. }) {
                scene.before.push(Call::Map {
                    va: start,
                    len,
                    oa: oa + hole.0,
                    prot,
                });
            }
        }
        scene
    };
    let unmap = Call::Unmap { va: start, len };
    let cut = split(va, hole);
    [
        make(&[cut, join]),
        make(&[cut, unmap, join, cut, unmap, join]),
    ]
}

fn all<H: Hardware>(setup: Setup, vendor: Vendor, mut stride: Stride) -> Count {
    let setup = Setup { slots: 48, ..setup };
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    for size_lg2 in place.sizes() {
        for hole in holes(&place.rules, size_lg2) {
            if !stride.take() {
                continue;
            }
            let (scenes, places) = lives::<H>(setup, size_lg2, hole);
            let carved = carved::<H>(setup, size_lg2, hole);
            let joined = joined::<H>(setup, size_lg2, hole);
            for scene in scenes.into_iter().chain(carved).chain(joined) {
                match live::<H>(&scene, &places, vendor, Mistake::None) {
                    Ok(done) => count.add(done),
                    Err(wrong) => panic!("{wrong}: {scene:x?}"),
                }
            }
        }
    }
    count
}

const VTD: Vendor = Vendor::Vtd { max_mask: 18 };
const VTD_FIRST: Vendor = Vendor::Vtd { max_mask: 51 };

/// Levels of the odd format have leaves of several sizes.
const SMMU_ODD: Vendor = Vendor::Smmu { granule_lg2: None };

fn smmu(granule_lg2: u32) -> Vendor {
    Vendor::Smmu {
        granule_lg2: Some(granule_lg2),
    }
}

fn riscv_iommu(range: bool, non_leaf: bool) -> Vendor {
    Vendor::Riscv { range, non_leaf }
}

fn vtd_incoherent() -> Setup {
    Setup::plain(2).with(Features::DMA_INCOHERENT)
}

fn head() {
    println!("caches:");
    println!(
        "{:26}{:>10}{:>10}{:>10}{:>10}{:>8}{:>7}",
        "", "states", "fills", "commands", "dropped", "mixed", "s"
    );
}

fn caches_line(name: &str, least: u64, run: &dyn Fn() -> Count) {
    let start = Instant::now();
    let count = run();
    println!(
        "{name:26}{:>10}{:>10}{:>10}{:>10}{:>8}{:>7.1}",
        count.states,
        count.fills,
        count.commands,
        count.drops,
        count.mixed,
        start.elapsed().as_secs_f64()
    );
    assert!(
        count.states >= least,
        "{name}: fewer states than there were"
    );
    assert!(count.mixed != 0, "{name}: never two sizes at once");
}

#[test]
fn armv8_nothing_that_is_cached_is_ever_wrong() {
    head();
    let line = caches_line;
    let at = Stride::of;
    line("SMMUv3 BBML 2, 4K", 34_000, &|| {
        all::<Arm<12>>(arm_4k(), smmu(12), at(23, 1))
    });
    line("SMMUv3 BBML 2, 16K", 24_000, &|| {
        all::<Arm<14>>(arm_16k(), smmu(14), at(11, 1))
    });
    line("SMMUv3 BBML 2, 64K", 160_000, &|| {
        all::<Arm<16>>(arm_64k(), smmu(16), at(7, 1))
    });
}

#[test]
fn nothing_that_is_cached_is_ever_wrong() {
    head();
    let line = caches_line;
    let at = Stride::of;
    line("VT-d second stage", 38_900, &|| {
        all::<Vtd>(Setup::plain(2), VTD, at(11, 1))
    });
    line("VT-d, incoherent", 26_000, &|| {
        all::<Vtd>(vtd_incoherent(), VTD, at(23, 1))
    });
    line("VT-d first stage", 25_900, &|| {
        all::<X86>(x86(), VTD_FIRST, at(23, 1))
    });
    line("AMD v1", 270_000, &|| {
        all::<Amd<false>>(amd(), Vendor::Amd, at(6007, 31))
    });
    line("AMD v1, no gaps", 225_000, &|| {
        let setup = Setup::plain(5).with(Features::FLUSH_RANGE_NO_GAPS);
        all::<Amd<false>>(setup, Vendor::Amd, at(12007, 97))
    });
    line("AMD v2", 25_900, &|| {
        all::<X86>(x86(), Vendor::Amd, at(23, 1))
    });
    for (name, range, non_leaf, part) in [
        ("RISC-V", false, false, 53),
        ("RISC-V, NL", false, true, 53),
        ("RISC-V, S", true, false, 53),
        ("RISC-V, S and NL", true, true, 31),
    ] {
        line(name, 23_000, &|| {
            all::<Riscv>(riscv(), riscv_iommu(range, non_leaf), at(part, 1))
        });
    }
    line("SMMUv3 BBML 2, odd", 145_000, &|| {
        all::<Odd>(odd(), SMMU_ODD, at(1499, 17))
    });
}

/// What the hardware forgives: with a command for less, it drops all that is wrong.
#[derive(Clone, Copy, Default)]
struct Forgiven<'a> {
    /// Mistakes in a split.
    split: &'a [Mistake],
    /// A carve may be flushed where the hole is only.
    small_carve: bool,
    /// Sizes of leaves, as lg2: a join that makes them may be flushed at one page only.
    small_join: &'a [u32],
}

/// A part of what the report has to say, or nothing if the hardware forgives the mistake.
fn mistakes<H: Hardware>(setup: Setup, vendor: Vendor, forgiven: Forgiven<'_>, sizes: &[u32]) {
    let page = 1 << H::GRANULE_LG2;
    let into_the_hole = "a translation into the hole survived";
    let freed_table = "a walk cache leads to the freed table";
    for &size_lg2 in sizes {
        let hole = (3 * page, 4 * page);
        let tables = size_lg2 > H::GRANULE_LG2 + H::ITEMS_LG2 - 1;
        let sees = |found: Option<String>, mistake, what: &str| {
            assert!(
                found.as_ref().is_some_and(|found| found.contains(what)),
                "{mistake:?} of {size_lg2} with {vendor:?}: {found:?}"
            );
        };
        let setup = Setup { slots: 48, ..setup };
        let (splits, places) = lives::<H>(setup, size_lg2, hole);
        let carves = carved::<H>(setup, size_lg2, hole);
        let joins = joined::<H>(setup, size_lg2, hole);
        // What the checks say of a driver that makes a mistake.
        let found = |scenes: &[Scene], mistake| {
            scenes
                .iter()
                .find_map(|scene| live::<H>(scene, &places, vendor, mistake).err())
        };
        let of = |mistake| found(&splits, mistake);
        assert_eq!(of(Mistake::None), None);
        let carve = |mistake| found(&carves, mistake);
        assert_eq!(carve(Mistake::None), None);
        let join = |mistake| found(&joins, mistake);
        assert_eq!(join(Mistake::None), None);
        sees(carve(Mistake::NoFlush), Mistake::NoFlush, "survived");
        if forgiven.small_carve {
            assert_eq!(carve(Mistake::SmallFlush), None);
        } else {
            sees(carve(Mistake::SmallFlush), Mistake::SmallFlush, "survived");
        }
        for mistake in [Mistake::NoFlush, Mistake::SmallFlush] {
            if forgiven.split.contains(&mistake) {
                assert_eq!(of(mistake), None, "{mistake:?}");
            } else {
                sees(of(mistake), mistake, into_the_hole);
            }
        }
        let mistake = Mistake::NoUnmapFlush;
        sees(of(mistake), mistake, into_the_hole);
        if !tables {
            continue;
        }
        for mistake in [Mistake::FreedEarly, Mistake::WalksKept] {
            sees(of(mistake), mistake, freed_table);
        }
        for mistake in [Mistake::NoJoinFlush, Mistake::WalksKept] {
            sees(join(mistake), mistake, freed_table);
        }
        let small = join(Mistake::SmallJoinFlush);
        assert_eq!(
            small.is_none(),
            forgiven.small_join.contains(&size_lg2),
            "{size_lg2} with {vendor:?}: {small:?}"
        );
    }
}

// The controls: what is checked above can fail. RISC-V drops the old leaf for any of its addresses,
// so there the flush of the hole itself would be enough. So it would on Arm if it named no level;
// but the flush of a hole names that of the leaves that were in it, and what was made from the old
// leaf stays, be it all of that leaf or a part elsewhere.
//
// Of a join, one address is enough for the table that it is in. The small leaves are as the large
// one until that goes, and then it depends on what is said of it: its first address, or its level.
#[test]
fn mistakes_of_a_driver_are_seen() {
    let nothing = Forgiven::default();
    let split: &[Mistake] = &[Mistake::NoFlush, Mistake::SmallFlush];
    mistakes::<Vtd>(Setup::plain(2), VTD, nothing, &[21, 30]);
    mistakes::<Vtd>(vtd_incoherent(), VTD, nothing, &[30]);
    mistakes::<X86>(x86(), VTD_FIRST, nothing, &[21, 30]);
    mistakes::<X86>(x86(), Vendor::Amd, nothing, &[21, 30]);
    mistakes::<Amd<false>>(amd(), Vendor::Amd, nothing, &[14, 20, 21, 24, 30, 33]);
    for (range, non_leaf) in [(false, false), (false, true), (true, false), (true, true)] {
        let vendor = riscv_iommu(range, non_leaf);
        let small_join: &[u32] = match (range, non_leaf) {
            // All tables, and with them all leaves.
            (_, false) => &[21, 30],
            (false, true) => &[],
            (true, true) => &[21],
        };
        let forgiven = Forgiven {
            split,
            small_carve: true,
            small_join,
        };
        mistakes::<Riscv>(riscv(), vendor, forgiven, &[16, 21, 30]);
    }
    let forgiven = Forgiven {
        split,
        small_carve: true,
        small_join: &[20],
    };
    mistakes::<Odd>(odd(), SMMU_ODD, forgiven, &[14, 20, 27]);
}

#[test]
fn armv8_mistakes_of_a_driver_are_seen() {
    let forgiven = Forgiven {
        small_carve: true,
        ..Forgiven::default()
    };
    mistakes::<Arm<12>>(arm_4k(), smmu(12), forgiven, &[21, 30]);
    mistakes::<Arm<14>>(arm_16k(), smmu(14), forgiven, &[25]);
    mistakes::<Arm<16>>(arm_64k(), smmu(16), forgiven, &[29]);
}
