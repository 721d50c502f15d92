// SPDX-License-Identifier: GPL-2.0-only

//! A top that grows.

use iotable::fmt::Features;

use crate::env::Broken;
use crate::model::{explore, explore_to, spawn, Seen};
use crate::rig::{Rig, Setup, K4};

/// One map needs one level more and another `levels`, while
/// hardware walks from whichever top it knows. At most 2 preemptions.
fn grow(setup: Setup, levels: u32) -> Vec<u8> {
    let setup = setup.with(Features::DYNAMIC_TOP).threads(3);
    let seen = Seen::new();
    let tops = seen.clone();
    explore_to(Some(2), move || {
        let rig = Rig::<1>::new(setup);
        rig.map(0, K4);
        let far = 1 << levels;
        let mappers = [if levels == 1 { 3 } else { 2 }, far].map(|page| {
            let rig = rig.clone();
            spawn(move || rig.map(page * K4, K4))
        });
        tops.add(rig.mem.hw_top().1);
        rig.still(0, 0);
        for mapper in mappers {
            mapper.join().unwrap();
        }
        rig.still(0, 0);
        let mut pages = vec![0, far, if levels == 1 { 3 } else { 2 }];
        pages.sort_unstable();
        rig.check(&pages);
    });
    seen.all()
}

#[test]
fn two_maps_that_grow_the_top() {
    assert_eq!(grow(Setup::new(0, 6), 1), [0, 1]);
    assert_eq!(grow(Setup::new(0, 9), 2), [0, 1, 2]);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_a_new_top_with_a_relaxed_store() {
    grow(Setup::new(0, 6).broken(Broken::RELAXED).goes_on(), 1);
}

#[test]
#[should_panic(expected = "leaked")]
fn control_a_new_top_that_is_not_compared() {
    grow(Setup::new(0, 6).broken(Broken::BLIND_TOP).goes_on(), 1);
}

/// A map that read the old top, and does not need a new one, next to one that grows it.
fn old_top(setup: Setup) {
    let setup = setup.with(Features::DYNAMIC_TOP).threads(3);
    explore(move || {
        let rig = Rig::<1>::new(setup);
        rig.map(0, K4);
        let growing = rig.clone();
        let mapper = spawn(move || growing.map(2 * K4, K4));
        let hw = rig.clone();
        let walker = spawn(move || {
            let old = hw.mem.hw_top();
            hw.still(0, 0);
            // A walk that began before.
            assert!(
                hw.walk_from(old, 0, 0).is_some(),
                "the old top was disturbed"
            );
        });
        let old = rig.pt();
        rig.map_with(&old, K4, K4);
        rig.still(K4, 0);
        mapper.join().unwrap();
        walker.join().unwrap();
        rig.check(&[0, 1, 2]);
    });
}

#[test]
fn a_map_below_the_old_top() {
    old_top(Setup::new(0, 4));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_map_next_to_a_new_top_with_a_relaxed_store() {
    old_top(Setup::new(0, 4).broken(Broken::RELAXED));
}
