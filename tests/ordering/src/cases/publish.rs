// SPDX-License-Identifier: GPL-2.0-only

//! A walk while a leaf is split: it sees the old leaf, or all of what replaces it.

use iotable::fmt::Features;
use iotable::Oa;

use crate::env::Broken;
use crate::model::{explore, explore_to, spawn, Seen};
use crate::rig::{Rig, Setup, K4};

/// A page is cut out of the second quarter of a leaf of the top level, which takes a table with a
/// table, while hardware walks to two addresses of it. Returns the sizes that it found. At most 3
/// preemptions if incoherent.
fn hole(setup: Setup, views: u32) -> Vec<u32> {
    let seen = Seen::new();
    let sizes = seen.clone();
    let bound = (setup.incoherent()).then_some(3);
    explore_to(bound, move || {
        let rig = Rig::<1>::new(setup);
        rig.map(0, 4 * K4);
        let (hw, sizes) = (rig.clone(), sizes.clone());
        let walker = spawn(move || {
            for va in [K4 + 8, 0] {
                sizes.add(hw.still(va, views).bits.size_lg2);
            }
        });
        let flush = rig.split(K4, K4);
        assert_eq!(flush.leaves().next().unwrap().size_lg2, 14);
        flush.finish().unwrap();
        walker.join().unwrap();
        assert_eq!(rig.still(K4, views).bits.size_lg2, 12);
        rig.check(&[0, 1, 2, 3]);
    });
    seen.all()
}

#[test]
fn a_walk_sees_the_old_leaf_or_the_whole_new_subtree() {
    assert_eq!(hole(Setup::new(2, 3), 0), [12, 14]);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_relaxed_publish_does_not_order_plain_stores() {
    let broken = Setup::new(2, 3).broken(Broken::RELAXED);
    hole(broken, 0);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_a_relaxed_publish_lets_a_walk_find_nothing() {
    hole(Setup::new(2, 3).broken(Broken::RELAXED).goes_on(), 0);
}

#[test]
fn incoherent_walks_see_one_or_the_other_whatever_was_written_back() {
    for views in 0..8 {
        let setup = Setup::new(2, 3).with(Features::DMA_INCOHERENT);
        assert_eq!(hole(setup, views), [12, 14], "{views:#b}");
    }
}

/// With `views`, the top item is seen as soon as it is stored, and what is below as it is in
/// memory.
#[test]
#[should_panic(expected = "was disturbed")]
fn control_a_subtree_that_is_not_cleaned() {
    let setup = Setup::new(2, 3).with(Features::DMA_INCOHERENT);
    // What is mapped at the start is not cleaned either, so not with the top item in memory.
    hole(setup.broken(Broken::NO_CLEAN).goes_on(), 0b110);
}

/// A leaf of two items: one gets a table, the other is rewritten in place, while one walker looks
/// at each.
fn group(setup: Setup) -> Vec<(u64, u32)> {
    let seen = Seen::new();
    let sizes = seen.clone();
    explore(move || {
        let rig = Rig::<2>::new(setup);
        rig.map(0, 8 * K4);
        let walkers = [K4, 6 * K4].map(|va| {
            let (hw, sizes) = (rig.clone(), sizes.clone());
            spawn(move || sizes.add((va / K4, hw.still(va, 0).bits.size_lg2)))
        });
        let flush = rig.split(0, 2 * K4);
        assert_eq!(flush.leaves().next().unwrap().size_lg2, 15);
        flush.finish().unwrap();
        for walker in walkers {
            walker.join().unwrap();
        }
        rig.check(&[0, 1, 2, 3, 4, 5, 6, 7]);
    });
    seen.all()
}

#[test]
fn a_group_of_items_is_rewritten_one_by_one() {
    let seen = [(1, 13), (1, 15), (6, 14), (6, 15)];
    assert_eq!(group(Setup::new(1, 2).threads(3)), seen);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_a_group_and_a_relaxed_publish() {
    group(
        Setup::new(1, 2)
            .threads(3)
            .broken(Broken::RELAXED)
            .goes_on(),
    );
}

/// `iova_to_phys` does not take the range lock of a split.
fn reader(setup: Setup) {
    explore(move || {
        let rig = Rig::<1>::new(setup);
        rig.map(0, 4 * K4);
        let reader = {
            let rig = rig.clone();
            spawn(move || {
                for va in [K4 + 8, 2 * K4] {
                    let oa = rig.pt().iova_to_phys(Rig::<1>::range(va, 1));
                    assert_eq!(oa, Some(Oa(Rig::<1>::oa(va))), "{va:#x} was disturbed");
                }
            })
        };
        rig.split(K4, 2 * K4).finish().unwrap();
        reader.join().unwrap();
        rig.check(&[0, 1, 2, 3]);
    });
}

#[test]
fn iova_to_phys_during_a_split() {
    reader(Setup::new(2, 4));
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_iova_to_phys_and_a_relaxed_publish() {
    reader(Setup::new(2, 4).broken(Broken::RELAXED).goes_on());
}
