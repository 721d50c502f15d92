// SPDX-License-Identifier: GPL-2.0-only

//! Hardware sets A and D while an operation looks at the item: no D is lost.

use crate::env::Broken;
use crate::model::{explore, explore_to, spawn};
use crate::rig::{Rig, Setup, K4};

/// How hardware notes a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Note {
    /// In the item that it walked to, if that still is what it was.
    Compare,
    /// Where it once found the leaf, whatever is there now.
    Late,
}

/// What a model leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Dirty bits are carried before the flush, that is while the write is on its way.
    Flush,
    Fold,
}

/// Devices write to pages of a leaf of `pages` pages while the second one is cut out. With two
/// devices: at most 2 preemptions.
fn split<const I: u32>(setup: Setup, pages: u64, writes: &'static [(u64, Note)], without: Without) {
    explore_to((writes.len() > 1).then_some(2), move || {
        let rig = Rig::<I>::new(setup.threads(1 + writes.len()));
        rig.map(0, pages * K4);
        let devices: Vec<_> = writes
            .iter()
            .map(|&(page, note)| {
                let hw = rig.clone();
                spawn(move || match note {
                    Note::Compare => hw.write(page * K4),
                    Note::Late => hw.write_late(hw.still(page * K4, 0)),
                })
            })
            .collect();
        let mut flush = Some(rig.split(K4, K4));
        let mut end = |now| {
            if let Some(flush) = flush.take_if(|_| now) {
                flush.fold_late_dirty().unwrap();
            }
        };
        end(without == Without::Flush);
        // The flush waits for all that uses a translation from before.
        for device in devices {
            device.join().unwrap();
        }
        end(without == Without::Nothing);
        if let Some(flush) = flush {
            flush.finish().unwrap();
        }
        let dirty = rig.read_dirty(0, pages * K4, false);
        for (page, _) in writes {
            assert!(dirty.has(page * K4), "the dirty bit of {page} is lost");
        }
        if without == Without::Nothing {
            rig.check(&(0..pages).collect::<Vec<_>>());
        }
    });
}

#[test]
fn hardware_that_compares_against_a_split() {
    for page in [1, 2] {
        let writes: &[_] = if page == 1 {
            &[(1, Note::Compare)]
        } else {
            &[(2, Note::Compare)]
        };
        split::<1>(Setup::new(2, 3), 4, writes, Without::Nothing);
        // It does not need the fold.
        split::<1>(Setup::new(2, 3), 4, writes, Without::Fold);
        split::<2>(Setup::new(1, 2), 8, writes, Without::Fold);
    }
}

#[test]
fn two_devices_at_once() {
    let writes = &[(0, Note::Compare), (2, Note::Compare)];
    split::<1>(Setup::new(2, 3), 4, writes, Without::Nothing);
}

#[test]
#[should_panic(expected = "is lost")]
fn control_a_split_that_does_not_compare() {
    let setup = Setup::new(2, 3).broken(Broken::BLIND).goes_on();
    split::<1>(setup, 4, &[(1, Note::Compare)], Without::Fold);
}

#[test]
fn hardware_that_does_not_look_again() {
    split::<1>(Setup::new(2, 3), 4, &[(2, Note::Late)], Without::Nothing);
    // Items of a group: one becomes a table, one a smaller leaf.
    split::<2>(Setup::new(1, 2), 8, &[(1, Note::Late)], Without::Nothing);
    split::<2>(Setup::new(1, 2), 8, &[(6, Note::Late)], Without::Nothing);
}

#[test]
fn both_kinds_of_hardware_at_once() {
    let writes = &[(0, Note::Late), (2, Note::Compare)];
    split::<1>(Setup::new(2, 3), 4, writes, Without::Nothing);
}

#[test]
#[should_panic(expected = "a dirty table item")]
fn control_dirty_bits_carried_before_the_flush() {
    explore(|| {
        let rig = Rig::<1>::new(Setup::new(2, 3));
        rig.map(0, 4 * K4);
        let hw = rig.clone();
        let device = spawn(move || hw.write_late(hw.still(0, 0)));
        rig.split(K4, K4).fold_late_dirty().unwrap();
        device.join().unwrap();
        rig.check(&[0, 1, 2, 3]);
    });
}

#[test]
#[should_panic(expected = "is lost")]
fn control_dirty_bits_carried_before_the_flush_are_lost() {
    split::<1>(Setup::new(2, 3), 4, &[(2, Note::Late)], Without::Flush);
}

#[test]
#[should_panic(expected = "is lost")]
fn control_late_dirty_bits_that_nobody_carries() {
    split::<1>(Setup::new(2, 3), 4, &[(2, Note::Late)], Without::Fold);
}

/// Dirty bits are read and cleared while two devices write, one through a leaf that is dirty
/// already. What is set is reported or stays, and A stays too. At most 2 preemptions.
fn read_and_clear<const I: u32>(setup: Setup, pages: u64) {
    explore_to(Some(2), move || {
        let rig = Rig::<I>::new(setup.threads(3));
        rig.map(0, pages * K4);
        rig.set_dirty(0);
        let devices = [0, pages - 1].map(|page| {
            let hw = rig.clone();
            spawn(move || hw.write(page * K4))
        });
        let first = rig.read_dirty(0, pages * K4, true);
        for device in devices {
            device.join().unwrap();
        }
        let second = rig.read_dirty(0, pages * K4, false);
        for page in [0, pages - 1] {
            let reported = first.has(page * K4) || second.has(page * K4);
            assert!(reported, "the dirty bit of {page} is lost");
            let bits = rig.still(page * K4, 0).bits;
            assert!(bits.accessed, "the accessed bit of {page} is lost");
        }
        assert!(first.has(0), "it was dirty from the start");
    });
}

#[test]
fn dirty_bits_read_and_cleared_while_devices_write() {
    read_and_clear::<1>(Setup::new(1, 1), 2);
    read_and_clear::<2>(Setup::new(1, 1), 8);
}

#[test]
#[should_panic(expected = "is lost")]
fn control_dirty_bits_cleared_with_a_store() {
    read_and_clear::<1>(Setup::new(1, 1).broken(Broken::BLIND).goes_on(), 2);
}

/// Dirty bits are read next to a map that adds tables to the same top. They are read beyond the
/// range as well, which nobody does: it is safe all the same.
fn read_next_to_map(setup: Setup) {
    explore(move || {
        let rig = Rig::<1>::new(setup);
        rig.map(0, K4);
        let hw = rig.clone();
        let device = spawn(move || hw.write(0));
        let mapper = {
            let rig = rig.clone();
            spawn(move || rig.map(3 * K4, K4))
        };
        let first = rig.read_dirty(0, 4 * K4, true);
        device.join().unwrap();
        mapper.join().unwrap();
        let second = rig.read_dirty(0, 4 * K4, true);
        assert!(first.has(0) || second.has(0), "the dirty bit is lost");
        assert!(
            !first.has(3 * K4) && !second.has(3 * K4),
            "nobody wrote there"
        );
        rig.check(&[0, 3]);
    });
}

#[test]
fn dirty_bits_read_next_to_a_map() {
    read_next_to_map(Setup::new(1, 3).threads(3));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_dirty_bits_read_next_to_a_relaxed_map() {
    read_next_to_map(Setup::new(1, 3).threads(3).broken(Broken::RELAXED));
}
