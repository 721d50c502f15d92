// SPDX-License-Identifier: GPL-2.0-only

//! What must hold between any two stores.

#![forbid(unsafe_code)]

use crate::arena::{Event, Step, Store, View};
use crate::hw::{Hardware, Hit, Root};
use crate::size::max_offset;
use iotable::fmt::Format;

/// Panics if a table item says that it was cleaned and was not: another CPU would rely on it.
pub(super) fn marked_after_cleaning<H: Hardware>(root: &Root<'_, H>, event: Event) {
    if event.step == Step::After(Store::Publish) && root.arena.incoherent() {
        let mark = H::Format::CLEANED;
        let item = root.arena.hw_read(event.at, View::Cpu);
        let memory = root.arena.hw_read(event.at, View::Memory);
        assert!(
            item & mark == 0 || memory & !mark == item & !mark,
            "{item:#x} is marked as clean, but is {memory:#x} in memory"
        );
    }
}

/// Panics if an address does not translate as it did, whatever was written back by now.
pub fn still<H: Hardware>(root: &Root<'_, H>, probes: &[(u64, Option<Hit>)]) {
    for (va, want) in probes {
        for views in 0..root.mixes() {
            let got = root.translate_mixed(*va, views);
            assert_eq!(
                got.map(|hit| hit.seen()),
                want.map(|hit| hit.seen()),
                "{va:#x} was disturbed"
            );
        }
    }
}

/// As [`still`], from each top that hardware was told of since the first one that counts: a walk
/// may have begun at any of them.
pub fn still_from_every_top<H: Hardware>(
    root: &Root<'_, H>,
    first: usize,
    probes: &[(u64, Option<Hit>)],
) {
    let tops = root.arena.tops();
    // The one that was the top when `first` were known.
    for &(top, level) in tops.iter().skip(first.wrapping_sub(1)) {
        for (va, want) in probes {
            if *va <= max_offset(H::GRANULE_LG2 + H::ITEMS_LG2 * (u32::from(level.0) + 1)) {
                let got = root.translate_from((top, level.0), *va, 0);
                assert_eq!(
                    got.map(|hit| hit.seen()),
                    want.map(|hit| hit.seen()),
                    "{va:#x} was disturbed below the top of level {}",
                    level.0
                );
            }
        }
    }
}
