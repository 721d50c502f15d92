// SPDX-License-Identifier: GPL-2.0-only

//! Maps of neighbouring ranges that need the same missing tables.

use std::sync::Arc;

use iotable::fmt::Features;
use loom::sync::atomic::{AtomicBool, Ordering};

use crate::env::Broken;
use crate::model::{explore_to, spawn, Seen};
use crate::rig::{Rig, Setup, K4};

/// Two map one page each below the same table, which is missing, and so is the table above with a
/// top of level 2. `rig.check` finds who freed too much or too little. With more than two
/// threads or tables: at most 3 preemptions.
fn two_maps(setup: Setup, walker: bool, bound: Option<usize>) -> Vec<bool> {
    let seen = Seen::new();
    let hits = seen.clone();
    explore_to(bound, move || {
        let rig = Rig::<1>::new(setup.threads(if walker { 3 } else { 2 }));
        let other = rig.clone();
        let mapper = spawn(move || {
            other.map(K4, K4);
            other.still(K4, 0);
        });
        let hardware = walker.then(|| {
            let (hw, hits) = (rig.clone(), hits.clone());
            spawn(move || hits.add(hw.translate(0, 0).is_some()))
        });
        rig.map(0, K4);
        rig.still(0, 0);
        mapper.join().unwrap();
        if let Some(hardware) = hardware {
            hardware.join().unwrap();
        }
        rig.check(&[0, 1]);
    });
    seen.all()
}

#[test]
fn two_maps_share_a_missing_table() {
    two_maps(Setup::new(1, 3), false, None);
    two_maps(Setup::new(2, 5), false, Some(3));
    let seen = two_maps(Setup::new(1, 3), true, Some(3));
    assert_eq!(seen, [false, true]);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_two_maps_and_a_relaxed_publish() {
    let broken = Setup::new(1, 3).broken(Broken::RELAXED);
    two_maps(broken, false, None);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_two_maps_that_do_not_compare() {
    two_maps(
        Setup::new(1, 3).broken(Broken::BLIND).goes_on(),
        false,
        None,
    );
}

/// Each mapper's device, which does not snoop, uses the mapping as soon as the call has returned.
/// At most `bound` preemptions.
fn two_incoherent_maps<const MARKED: bool>(setup: Setup, bound: usize) {
    let setup = setup.with(Features::DMA_INCOHERENT);
    explore_to(Some(bound), move || {
        let rig = Rig::<1, MARKED>::new(setup);
        let other = rig.clone();
        let mapper = spawn(move || {
            other.map(K4, K4);
            other.still(K4, !0);
        });
        rig.map(0, K4);
        rig.still(0, !0);
        mapper.join().unwrap();
        rig.still(0, !0);
        rig.still(K4, !0);
        rig.check(&[0, 1]);
    });
}

#[test]
fn what_a_map_returns_is_in_memory() {
    two_incoherent_maps::<false>(Setup::new(1, 3), 3);
    two_incoherent_maps::<false>(Setup::new(2, 5), 2);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_nothing_is_cleaned() {
    two_incoherent_maps::<false>(Setup::new(1, 3).broken(Broken::NO_CLEAN).goes_on(), 3);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_a_table_item_that_another_did_not_clean_yet() {
    two_incoherent_maps::<true>(Setup::new(1, 3), 3);
}

/// Two map one page each below a table that is missing; when the second one's call has returned, it
/// tells a device of its own, which does not snoop. No address orders anything, so that only the
/// mark of the table item can order the device's walk after what the first one cleaned. At most 3
/// preemptions.
fn told_by_another_thread(setup: Setup) -> Vec<bool> {
    let setup = setup.with(Features::DMA_INCOHERENT).threads(3);
    let seen = Seen::new();
    let hits = seen.clone();
    explore_to(Some(3), move || {
        let rig = Rig::<1>::new(setup.without_fences());
        let told = Arc::new(AtomicBool::new(false));
        let (other, bell) = (rig.clone(), told.clone());
        let mapper = spawn(move || {
            other.map(K4, K4);
            bell.store(true, Ordering::Release);
        });
        let (hw, hits) = (rig.clone(), hits.clone());
        let device = spawn(move || {
            let told = told.load(Ordering::Acquire);
            if told {
                hw.still(K4, !0);
            }
            hits.add(told);
        });
        rig.map(0, K4);
        mapper.join().unwrap();
        device.join().unwrap();
        rig.check(&[0, 1]);
    });
    seen.all()
}

#[test]
fn what_a_map_returns_is_in_memory_for_every_device() {
    assert_eq!(told_by_another_thread(Setup::new(1, 3)), [false, true]);
}

#[test]
#[should_panic(expected = "was disturbed")]
fn control_a_mark_that_is_read_without_order() {
    told_by_another_thread(Setup::new(1, 3).broken(Broken::PLAIN_READ));
}
