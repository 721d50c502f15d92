// SPDX-License-Identifier: GPL-2.0-only

//! A leaf takes the place of a table while hardware walks: each walk ends at the same address, no D
//! is lost, and the table is freed after the flush only.
//!
//! Of hardware that snoops: in the format of these models a table item is a larger number than a
//! leaf, and what is written back only grows.

use super::flush::Queue;
use crate::env::Broken;
use crate::model::{explore_to, spawn, Seen};
use crate::rig::{Rig, Setup, K4};

/// Hardware walks, walks again from a cached pointer to the table, does the flush, and walks once
/// more. Returns the sizes of the leaves that it found before. At most 3 preemptions.
fn walk_and_join(wait: bool) -> Vec<u32> {
    let seen = Seen::new();
    let found = seen.clone();
    explore_to(Some(3), move || {
        let rig = Rig::<1>::new(Setup::new(1, 2));
        rig.map(0, K4);
        rig.map(K4, K4);
        let queue = Queue::new();
        let hw = (rig.clone(), queue.clone(), found.clone());
        let hardware = spawn(move || {
            let (rig, queue, found) = hw;
            let hit = rig.still(K4, 0);
            found.add(hit.bits.size_lg2);
            rig.look_again(hit);
            queue.serve();
            for va in [0, K4] {
                let after = rig.still(va, 0);
                assert_eq!(after.bits.size_lg2, 13, "after the flush");
            }
        });
        let done = rig.join(0, 2 * K4, || {
            if wait {
                queue.flush();
            }
        });
        assert_eq!((done.leaves, done.tables, done.flushes), (1, 1, 1));
        if !wait {
            queue.flush();
        }
        hardware.join().unwrap();
        rig.check(&[0, 1]);
    });
    seen.all()
}

#[test]
fn a_walk_ends_where_it_did() {
    assert_eq!(walk_and_join(true), [12, 13]);
}

#[test]
#[should_panic(expected = "use of a freed table")]
fn control_a_joined_table_is_freed_before_the_flush() {
    walk_and_join(false);
}

/// A device writes to the last of `pages` pages while they are joined. `late`: through a translation
/// that hardware has cached, without a look at what is there now.
fn write_and_join<const I: u32>(setup: Setup, pages: u64, late: bool) {
    explore_to(Some(3), move || {
        let rig = Rig::<I>::new(setup);
        for page in 0..pages {
            rig.map(page * K4, K4);
        }
        let last = (pages - 1) * K4;
        let hw = rig.clone();
        let mut device = Some(spawn(move || match late {
            true => hw.write_late(hw.still(last, 0)),
            false => hw.write(last),
        }));
        // The flush waits for all that uses a translation from before.
        let mut end = || {
            if let Some(device) = device.take() {
                device.join().unwrap();
            }
        };
        let done = rig.join(0, pages * K4, &mut end);
        end();
        assert_eq!(done.leaves, 1);
        let dirty = rig.read_dirty(0, pages * K4, false);
        assert!(dirty.has(last), "the dirty bit is lost");
        rig.check(&(0..pages).collect::<Vec<_>>());
    });
}

#[test]
fn no_dirty_bit_is_lost_in_a_table_that_goes() {
    for late in [false, true] {
        write_and_join::<1>(Setup::new(1, 2), 2, late);
    }
}

#[test]
fn no_dirty_bit_is_lost_in_a_group() {
    for late in [false, true] {
        write_and_join::<2>(Setup::new(1, 2), 2, late);
    }
}

#[test]
#[should_panic(expected = "is lost")]
fn control_a_join_that_does_not_compare() {
    let setup = Setup::new(1, 2).broken(Broken::BLIND).goes_on();
    write_and_join::<2>(setup, 2, false);
}
