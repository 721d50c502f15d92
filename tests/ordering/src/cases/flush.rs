// SPDX-License-Identifier: GPL-2.0-only

//! A table is freed after the flush only, since a walk may be in it.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use iotable::Bytes;

use crate::model::{explore_to, spawn, Seen};
use crate::rig::{Pending, Rig, Setup, K4};

/// The invalidation queue: hardware answers when all walks that began before have ended.
pub(super) struct Queue {
    asked: AtomicBool,
    done: AtomicBool,
}

impl Queue {
    pub(super) fn new() -> Arc<Queue> {
        Arc::new(Queue {
            asked: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    pub(super) fn flush(&self) {
        // What was unlinked before is seen by walks that begin after.
        self.asked.store(true, Ordering::Release);
        while !self.done.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }

    pub(super) fn serve(&self) {
        while !self.asked.load(Ordering::Acquire) {
            thread::yield_now();
        }
        self.done.store(true, Ordering::Release);
    }
}

/// `take` removes the table below address 0. Hardware walks to it, walks again from a cached
/// pointer to the table, does the flush, and walks once more. Returns what it found before.
/// At most 3 preemptions.
fn walk_and_free(
    setup: Setup,
    wait: bool,
    take: impl Fn(&Rig<1>) -> Pending + Copy + Send + Sync + 'static,
    after: Option<u32>,
) -> Vec<Option<u32>> {
    let seen = Seen::new();
    let found = seen.clone();
    explore_to(Some(3), move || {
        let rig = Rig::<1>::new(setup);
        rig.map(0, K4);
        rig.map(K4, K4);
        let queue = Queue::new();
        let hw = (rig.clone(), queue.clone(), found.clone());
        let hardware = spawn(move || {
            let (rig, queue, found) = hw;
            let size = |hit: Option<crate::rig::Hit>| hit.map(|hit| hit.bits.size_lg2);
            let hit = rig.translate(0, 0);
            found.add(size(hit));
            if let Some(hit) = hit {
                rig.look_again(hit);
            }
            queue.serve();
            assert_eq!(size(rig.translate(0, 0)), after, "after the flush");
        });
        let gathered = take(&rig);
        if wait {
            queue.flush();
        }
        for table in gathered.0 {
            rig.mem.free_gathered(table);
        }
        if !wait {
            queue.flush();
        }
        hardware.join().unwrap();
    });
    seen.all()
}

fn unmap(rig: &Rig<1>) -> Pending {
    let mut gather = Pending::default();
    let range = Rig::<1>::range(0, 2 * K4);
    assert_eq!(rig.pt().unmap(range, &mut gather), Bytes(2 * K4));
    assert_eq!(gather.0.len(), 1);
    gather
}

/// Takes what is mapped away and leaves the empty table, then puts a large leaf in its place.
fn replace(rig: &Rig<1>) -> Pending {
    let mut gather = Pending::default();
    for page in 0..2 {
        let range = Rig::<1>::range(page * K4, K4);
        assert_eq!(rig.pt().unmap(range, &mut gather), Bytes(K4));
    }
    assert!(gather.0.is_empty());
    rig.map_gathering(0, 2 * K4, &mut gather);
    assert_eq!(gather.0.len(), 1);
    gather
}

#[test]
fn an_unmapped_table_is_freed_after_the_flush() {
    let found = walk_and_free(Setup::new(1, 2), true, unmap, None);
    assert_eq!(found, [None, Some(12)]);
}

#[test]
fn a_table_that_a_leaf_replaces_is_freed_after_the_flush() {
    let found = walk_and_free(Setup::new(1, 2), true, replace, Some(13));
    assert_eq!(found, [None, Some(12), Some(13)]);
}

#[test]
#[should_panic(expected = "use of a freed table")]
fn control_an_unmapped_table_is_freed_before_the_flush() {
    walk_and_free(Setup::new(1, 2), false, unmap, None);
}

#[test]
#[should_panic(expected = "use of a freed table")]
fn control_a_replaced_table_is_freed_before_the_flush() {
    let setup = Setup::new(1, 2);
    walk_and_free(setup, false, replace, Some(13));
}
