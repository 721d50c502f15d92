// SPDX-License-Identifier: GPL-2.0-only

//! Reads of dirty bits: parts of leaves, reports that fail, and bits where nothing is mapped.

use crate::arena::View;
use crate::hw::{Amd, Hardware, OddHw, Vtd};
use crate::log::Dirty;
use crate::rig::{Rig, Setup};
use crate::tests::{amd, mock, odd, rw, G1, K4, M2};
use iotable::Error;

/// A read that clears, of which `room` reports are taken.
fn read<H: Hardware>(rig: &Rig<H>, va: u64, len: u64, room: Option<usize>) -> (Dirty, bool) {
    let lock = rig.arena.lock(va, len).unwrap();
    let mut sink = Dirty {
        room,
        ..Dirty::default()
    };
    match rig.pt().read_dirty(lock.range(), true, &mut sink) {
        Ok(()) => (sink, true),
        Err(error) => {
            assert_eq!(error, Error::Env(-14), "the sink's own error");
            (sink, false)
        }
    }
}

/// All kinds of leaves, next to each other and with holes: dirty, clean, dirty, and so on, two by
/// two. Returns the last address.
fn leaves<H: Hardware>(rig: &mut Rig<H>, sizes: &[u32]) -> u64 {
    let mut va = 0;
    let mut n = 0;
    for &lg2 in sizes.iter().rev() {
        for _ in 0..5 {
            let size = 1u64 << lg2;
            rig.map_ok(va, size, va, rw());
            if n % 4 < 2 {
                rig.set_dirty(va).unwrap();
            }
            va += size;
            n += 1;
        }
        // A hole.
        va += 1 << lg2;
    }
    va - 1
}

/// Each report fails once. What was reported is clean, nothing else is, and the next read has it.
fn a_report_fails<H: Hardware>(setup: Setup, sizes: &[u32]) {
    let mut reports = 0;
    loop {
        let mut rig = Rig::<H>::new(setup);
        let last = leaves(&mut rig, sizes);
        let dirty = |rig: &Rig<H>| {
            let all = rig.leaves().into_iter().filter(|leaf| leaf.bits.dirty);
            all.map(|leaf| (leaf.va, 1u64 << leaf.bits.size_lg2))
                .collect::<Vec<_>>()
        };
        let before = dirty(&rig);
        let (told, done) = read(&rig, 0, last + 1, Some(reports));
        let told = told.joined();
        assert_eq!(told.found, told.cleared, "all of them whole");
        let has = |leaf: &&(u64, u64)| {
            let mut found = told.found.iter();
            found.any(|run| leaf.0.wrapping_sub(run.0) < run.1)
        };
        let still = dirty(&rig);
        assert!(before.iter().filter(|leaf| !has(leaf)).eq(&still));
        assert_eq!(still.is_empty(), done);
        let (rest, _) = read(&rig, 0, last + 1, None);
        let rest = rest.found.iter().map(|run| run.1).sum::<u64>();
        assert_eq!(rest, still.iter().map(|leaf| leaf.1).sum());
        assert!(dirty(&rig).is_empty());
        for (va, _) in before {
            let (start, bits) = rig.model.find(va).unwrap();
            rig.model
                .read_dirty(start, start + ((1 << bits.size_lg2) - 1), true);
        }
        rig.check();
        rig.finish();
        if done {
            break;
        }
        reports += 1;
    }
    // Not all at once, or this has tried little.
    assert!(reports > sizes.len(), "{reports}");
}

#[test]
fn nothing_is_clean_that_was_not_reported() {
    a_report_fails::<Vtd>(Setup::plain(3), &[12, 21, 30]);
    a_report_fails::<Amd<false>>(amd(), &[12, 13, 16, 20, 21, 22, 26, 30]);
    a_report_fails::<Amd<true>>(mock(), &[11, 12, 15, 20, 21, 23]);
}

/// Every part of a leaf between two of `cuts`, with dirty neighbours: the leaf stays dirty.
fn parts_of_a_leaf<H: Hardware>(setup: Setup, size_lg2: u32) {
    let page = 1 << H::GRANULE_LG2;
    let size = 1u64 << size_lg2;
    let base = 4 * size;
    let mut rig = Rig::<H>::new(setup);
    // Each with neighbours of its own size, and of the smallest.
    rig.map_ok(base - page, page, base - page, rw());
    for n in 0..3 {
        rig.map_ok(base + n * size, size, base + n * size, rw());
    }
    rig.map_ok(base + 3 * size, page, base + 3 * size, rw());
    let all = rig.leaves();
    assert_eq!(all.len(), 5);
    let mut at = vec![0, page, size / 2, size - page, size];
    at.extend([size + page, 2 * size - page, 2 * size, 2 * size + page]);
    at.sort_unstable();
    at.dedup();
    for (n, &from) in at.iter().enumerate() {
        for &to in &at[n + 1..] {
            for leaf in &all {
                rig.set_dirty(leaf.va).unwrap();
            }
            for clear in [false, true] {
                rig.read_dirty(base + from, to - from, clear);
            }
            // And with what is next to the three.
            rig.read_dirty(base - page, from + page, true);
            rig.read_dirty(base + to, 3 * size - to + page, true);
            rig.read_dirty(base - page, 3 * size + 2 * page, true);
            assert!(rig.leaves().iter().all(|leaf| !leaf.bits.dirty));
        }
    }
    rig.finish();
}

#[test]
fn a_part_of_a_leaf_leaves_it_dirty() {
    for size_lg2 in [21, 30] {
        parts_of_a_leaf::<Vtd>(Setup::plain(3), size_lg2);
    }
    for size_lg2 in 13..=31 {
        parts_of_a_leaf::<Amd<false>>(amd(), size_lg2);
        parts_of_a_leaf::<Amd<true>>(mock(), size_lg2);
    }
    for size_lg2 in (0..64).filter(|&lg2| (odd_sizes() >> lg2) & 1 == 1) {
        parts_of_a_leaf::<OddHw<true, true>>(odd(), size_lg2);
    }
}

/// The leaf sizes of the odd format, but for its smallest.
fn odd_sizes() -> u64 {
    let rig = Rig::<OddHw<true, true>>::new(odd());
    let rules = rig.model.rules;
    rig.finish();
    let room = rules.va_lg2 - 3;
    rules.sizes & !rules.page() & ((1 << room) - 1)
}

// In plain numbers.
#[test]
fn a_quarter_of_a_group_is_reported_and_the_group_stays_dirty() {
    let mut rig = Rig::<Amd<false>>::new(amd());
    rig.map_ok(M2, 16 * K4, M2, rw());
    rig.set_dirty(M2 + 13 * K4).unwrap();
    for _ in 0..2 {
        let (told, done) = read(&rig, M2 + 4 * K4, 4 * K4, None);
        assert!(done);
        assert_eq!(told.found, [(M2 + 4 * K4, 4 * K4)]);
        assert_eq!(told.cleared, []);
    }
    let (told, _) = read(&rig, M2, 16 * K4, None);
    assert_eq!(
        (told.found, told.cleared),
        (vec![(M2, 16 * K4)], vec![(M2, 16 * K4)])
    );
    let (told, _) = read(&rig, 0, 2 * M2, None);
    assert_eq!(told, Dirty::default());
    rig.model.read_dirty(M2, M2 + (16 * K4 - 1), true);
    rig.check();
    rig.finish();
}

// Hardware that had a translation cached may set D after the unmap, without a look.
#[test]
fn a_late_bit_in_an_empty_item_is_not_reported() {
    for size in [K4, 4 * K4, M2, 4 * M2] {
        let mut rig = Rig::<Amd<false>>::new(amd());
        rig.map_ok(G1, size, 0, rw());
        rig.map_ok(G1 + size, size, G1, rw());
        let item = rig.root().translate(G1 + size).unwrap().item;
        assert_eq!(rig.unmap(G1 + size, size), size);
        rig.arena.hw_set(item, <Amd<false> as Hardware>::DIRTY);
        let (told, done) = read(&rig, G1, 2 * size, None);
        assert!(done);
        assert_eq!(told, Dirty::default(), "nothing is mapped there");
        // The bit stays, and the next map of the item writes over it.
        let item_now = rig.arena.hw_read(item, View::Cpu);
        assert_eq!(item_now, <Amd<false> as Hardware>::DIRTY);
        rig.arena.poke(item, 0);
        rig.check();
        rig.finish();
    }
}
