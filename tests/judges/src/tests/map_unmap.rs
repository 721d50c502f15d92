// SPDX-License-Identifier: GPL-2.0-only

//! The contracts of map and unmap, case by case.
//!
//! [`Rig`] compares every call with the model, the gather's order with what the hardware can reach,
//! and the number of tables with what is reachable; the tests here choose the cases.

use crate::arena::{watch, Event, Step, Store, View};
use crate::hw::{Entry, Hardware, OddHw, Vtd};
use crate::rig::{self, Rig, Setup};
use crate::tests::{odd, rw, G1, K4, M2};
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::{Features, Format, Params, Prot};
use iotable::{Bytes, Error, Iova, Level, Mapped, Oa};

type Odd = OddHw<true, true>;

fn vtd(top: u8) -> Rig<Vtd> {
    Rig::new(Setup::plain(top))
}

/// What `map` answers.
fn map(rig: &mut Rig<Vtd>, va: u64, len: u64, oa: u64) -> (u64, Option<Error>) {
    let Mapped { bytes, result } = rig.map(va, len, oa, rw()).unwrap();
    (bytes.0, result.err())
}

#[test]
fn the_largest_leaves_that_fit() {
    let mut rig = vtd(3);
    // 4K up to a 2M boundary, 2M up to a 1G boundary, 1G, and the same down.
    let (va, end) = (G1 - 2 * M2 - 3 * K4, 3 * G1 + M2 + 2 * K4);
    rig.map_ok(va, end - va, 0x10_0000_0000 + va, rw());
    let sizes: Vec<_> = rig.leaves().iter().map(|l| l.bits.size_lg2).collect();
    assert_eq!(sizes, [12, 12, 12, 21, 21, 30, 30, 21, 12, 12]);
    rig.lookup(va);
    rig.lookup(va - 1);
    rig.lookup(end - 1);
    rig.lookup(end);
    rig.lookup(G1 + 12345);
    // The OA decides too.
    let mut other = vtd(3);
    other.map_ok(0, M2, M2 + K4, rw());
    assert_eq!(other.model.count(), 512);
    other.finish();
    rig.finish();
}

#[test]
fn rights_and_features() {
    for features in [
        Features::default(),
        Vtdss::FORCE_COHERENCE,
        Vtdss::FORCE_WRITEABLE,
        Vtdss::FORCE_WRITEABLE.with(Vtdss::FORCE_COHERENCE),
    ] {
        let mut rig = Rig::<Vtd>::new(Setup::plain(2).with(features));
        for (n, prot) in (0..32).map(Prot).enumerate() {
            let va = n as u64 * G1;
            let refused = rig.map(va, M2 + K4, 0, prot).is_none();
            let must = !prot.has(Prot::WRITE)
                && (!prot.has(Prot::READ) || features.has(Vtdss::FORCE_WRITEABLE));
            assert_eq!(refused, must, "{prot:?}");
        }
        rig.finish();
    }
}

#[test]
fn what_a_range_says() {
    let rig = Rig::<Vtd>::new(Setup::plain(2));
    let lock = rig.arena.lock(M2, 2 * K4).unwrap();
    let range = lock.range();
    let (first, last) = (Iova(M2), Iova(M2 + 2 * K4 - 1));
    assert_eq!((range.va(), range.last()), (first, last));
    assert_eq!((range.len(), range.is_empty()), (Bytes(2 * K4), false));
    drop(lock);
    rig.finish();
}

#[test]
fn map_out_of_range() {
    let mut rig = vtd(2);
    let end = 1 << 39;
    let out = (0, Some(Error::OutOfRange));
    assert_eq!(map(&mut rig, end, K4, 0), out);
    assert_eq!(map(&mut rig, end - K4, 2 * K4, 0), out);
    assert_eq!(map(&mut rig, 0, K4, 1 << 52), out);
    assert_eq!(map(&mut rig, 0, 2 * K4, (1 << 52) - K4), out);
    assert_eq!(map(&mut rig, 0, 2 * K4, K4.wrapping_neg()), out);
    assert_eq!(map(&mut rig, end - K4, K4, (1 << 52) - K4), (K4, None));
    assert_eq!(rig.unmap(end - K4, 2 * K4), 0);
    assert_eq!(rig.unmap(end, K4), 0);
    rig.read_dirty(end, K4, true);
    rig.lookup(end);
    rig.lookup(u64::MAX);
    rig.finish();

    let mut rig = Rig::<Odd>::new(odd());
    let (half, page) = (1u64 << 38, 1 << 11);
    for (va, len) in [
        (half, page),
        (half - page, 2 * page),
        (half.wrapping_neg() - page, page),
    ] {
        let mapped = rig.map(va, len, 0, rw()).unwrap();
        assert_eq!(mapped.result, Err(Error::OutOfRange));
    }
    rig.map_ok(half - page, page, 0, rw());
    rig.map_ok(half.wrapping_neg(), page, 0, rw());
    rig.map_ok(page.wrapping_neg(), page, 0, rw());
    rig.lookup(u64::MAX);
    rig.lookup(half);
    rig.finish();
}

#[test]
fn no_page_size_fits() {
    let mut rig = vtd(2);
    assert_eq!(map(&mut rig, 0, K4, 2048), (0, Some(Error::NoPageSize)));
    assert_eq!(map(&mut rig, 2048, K4, 0), (0, Some(Error::NoPageSize)));
    assert_eq!(map(&mut rig, 0, 2048, 0), (0, Some(Error::NoPageSize)));
    // What comes before the odd end stays.
    assert_eq!(
        map(&mut rig, 0, M2 + K4 + 8, 0),
        (M2 + K4, Some(Error::NoPageSize))
    );
    rig.finish();
    let mut rig = Rig::<Vtd>::new(Setup::plain(2).without(K4));
    assert_eq!(map(&mut rig, 0, M2 + K4, 0), (M2, Some(Error::NoPageSize)));
    rig.finish();
}

#[test]
fn something_is_mapped_already() {
    let mut rig = vtd(2);
    let busy = Some(Error::Busy);
    rig.map_ok(5 * K4, K4, 0, rw());
    assert_eq!(map(&mut rig, 0, 9 * K4, 0), (5 * K4, busy));
    assert_eq!(map(&mut rig, 0, M2, 0), (0, busy));
    assert_eq!(map(&mut rig, 6 * K4, K4, 0), (K4, None));
    rig.map_ok(4 * G1, G1, 0, rw());
    assert_eq!(map(&mut rig, 4 * G1 + K4, K4, 0), (0, busy));
    assert_eq!(map(&mut rig, 4 * G1 - K4, 2 * K4, G1 - K4), (K4, busy));
    // A leaf deep below what would be a large one.
    rig.map_ok(9 * G1 - K4, K4, 0, rw());
    assert_eq!(map(&mut rig, 7 * G1, 2 * G1, 0), (G1, busy));
    rig.finish();

    let mut rig = Rig::<Odd>::new(odd());
    rig.map_ok(7 << 11, 1 << 11, 0, rw());
    let mapped = rig.map(0, 1 << 14, 0, rw()).unwrap();
    assert_eq!((mapped.bytes, mapped.result), (Bytes(0), Err(Error::Busy)));
    rig.finish();
}

#[test]
fn empty_tables_make_room_for_a_large_leaf() {
    for features in [Features::default(), Features::DMA_INCOHERENT] {
        let mut rig = Rig::<Vtd>::new(Setup::plain(3).with(features));
        // The last table below stays when a range inside of it is unmapped.
        rig.map_ok(G1 + K4, 2 * K4, 0, rw());
        rig.map_ok(G1 + 9 * M2 + K4, 2 * K4, 0, rw());
        assert_eq!(rig.unmap(G1 + K4, 2 * K4), 2 * K4);
        assert_eq!(rig.unmap(G1 + 9 * M2 + K4, 2 * K4), 2 * K4);
        assert_eq!(rig.tables(), 5);
        rig.map_ok(G1, G1, 0, rw());
        assert_eq!(rig.tables(), 2);
        rig.finish();

        // A contiguous leaf over several of them.
        let mut rig = Rig::<Odd>::new(odd().with(features));
        let page = 1 << 11;
        for n in [1u64, 2, 5] {
            rig.map_ok((n << 18) + page, page, 0, rw());
            assert_eq!(rig.unmap((n << 18) + page, page), page);
        }
        assert_eq!(rig.tables(), 6);
        rig.map_ok(0, 1 << 21, 0, rw());
        assert_eq!(rig.tables(), 3);
        rig.finish();
    }
}

#[test]
fn unmap_by_whole_leaves() {
    let mut rig = vtd(3);
    rig.map_ok(0, 2 * G1 + 3 * M2, 0, rw());
    // It starts inside a leaf.
    assert_eq!(rig.unmap(K4, G1), 0);
    assert_eq!(rig.unmap(G1 + M2, M2), 0);
    // It ends inside a leaf.
    assert_eq!(rig.unmap(0, K4), G1);
    assert_eq!(rig.unmap(2 * G1, M2 + K4), 2 * M2);
    // A hole ends it.
    assert_eq!(rig.unmap(0, 3 * G1), 0);
    assert_eq!(rig.unmap(G1, 4 * G1), G1);
    assert_eq!(rig.unmap(2 * G1 + 2 * M2, 1 << 40), M2);
    rig.finish();

    let mut rig = Rig::<Odd>::new(odd());
    rig.map_ok(0, 3 << 14, 0, rw());
    assert_eq!(rig.unmap(1 << 11, 1 << 11), 0);
    assert_eq!(rig.unmap(1 << 14, 1 << 14), 0);
    assert_eq!(rig.unmap(0, 1 << 11), 1 << 15);
    assert_eq!(rig.unmap(1 << 15, 1 << 15), 1 << 14);
    rig.finish();
}

#[test]
fn tables_that_are_covered_go_and_others_stay() {
    let mut rig = vtd(2);
    rig.map_ok(0, 2 * M2, K4, rw());
    assert_eq!(rig.tables(), 4);
    // All but one page, then the page: the table is not covered by either range.
    assert_eq!(rig.unmap(0, M2 - K4), M2 - K4);
    assert_eq!(rig.unmap(M2 - K4, K4), K4);
    assert_eq!(rig.tables(), 4);
    assert_eq!(rig.unmap(M2, M2), M2);
    assert_eq!(rig.tables(), 3);
    rig.map_ok(0, G1, K4, rw());
    assert_eq!(rig.tables(), 514);
    assert_eq!(rig.unmap(0, G1), G1);
    assert_eq!(rig.tables(), 1);
    rig.finish();
}

#[test]
fn table_items_are_marked_once_they_are_clean() {
    fn all_marked<H: Hardware>(rig: &Rig<H>) {
        let root = rig.root();
        for at in root.scan(View::Cpu).tables {
            for index in 0..1 << H::ITEMS_LG2 {
                let item = rig.arena.hw_read(at.addr + 8 * index, View::Cpu);
                if let Entry::Table { .. } = rig.hw.decode(item, at.level) {
                    assert_ne!(item & H::Format::CLEANED, 0, "{item:#x} in {at:x?}");
                }
            }
        }
    }
    let mut rig = Rig::<Vtd>::new(Setup::plain(4).with(Features::DMA_INCOHERENT));
    rig.map_ok(G1 - K4, G1 + 2 * K4, 9 * G1 - K4, rw());
    rig.split(G1 + 5 * K4, M2).unwrap();
    all_marked(&rig);
    rig.finish();
    let mut rig = Rig::<Odd>::new(odd().with(Features::DMA_INCOHERENT));
    rig.map_ok(1 << 33, 1 << 33, 0, rw());
    rig.split((1 << 33) + (1 << 11), 1 << 20).unwrap();
    all_marked(&rig);
    rig.finish();
}

#[test]
fn a_subtree_that_was_never_linked_is_freed() {
    // Tables of two levels for each of two leaves, the first of which is not what it was.
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    rig.map_ok(0, 2 * G1, 0, rw());
    let (item, mut in_use) = (rig.root().translate(0).unwrap().item, Vec::new());
    let old = rig.arena.hw_read(item, View::Cpu);
    let lock = rig.arena.lock(0, 2 * G1).unwrap();
    let hole = lock.part(G1 - K4, 2 * K4);
    let mut look = |event: Event| match event.step {
        Step::Before(Store::Publish) => rig.arena.poke(item, old ^ (1 << 62)),
        Step::Free => in_use.push(rig.arena.in_use()),
        _ => {}
    };
    let flush = watch(&mut look, || rig.pt().split(hole)).unwrap();
    assert_eq!(flush.finish(), Err(Error::Raced));
    assert_eq!(in_use, [5, 4, 3, 2]);
    assert_eq!(rig.arena.in_use(), 1);
    let top = rig.arena.table::<Vtdss>(rig.root().start().0, Level(2));
    assert!(format!("{top:?}").ends_with(", level 2)"));
    rig.arena.poke(item, old);
    drop(lock);
    rig.finish();
}

/// Publishes for somebody else just before the code under test does.
fn published_by_another(mark_cleaned: bool) {
    let mut rig = Rig::<Vtd>::new(Setup::plain(2).with(Features::DMA_INCOHERENT));
    let other = rig.arena.new_top::<Vtdss>().unwrap();
    let params = Params::default();
    let mut item = Vtdss::encode_table(Oa(other), iotable::Level(2), &params);
    if mark_cleaned {
        item |= Vtdss::CLEANED;
    }
    let lock = rig.arena.lock(0, M2).unwrap();
    let mut log = crate::log::Log::new(rig.root());
    let attrs = Vtdss::attrs(rw(), &rig.cfg.params).unwrap();
    let (mut done, mut freed, mut cleaned) = (false, 0, false);
    let mut hook = |event: Event| match event.step {
        Step::Before(Store::Publish) if !done => {
            done = true;
            // In the cache only, as if the other CPU had not come to cleaning it.
            rig.arena.hw_publish(event.at, item);
        }
        Step::Free => freed += 1,
        Step::Cleaned => cleaned |= rig.arena.hw_read(rig.root().top, View::Memory) == item,
        _ => {}
    };
    let mapped = watch(&mut hook, || {
        rig::map(&rig.pt(), lock.range(), 0, attrs, &mut log)
    });
    log.finish();
    drop(lock);
    assert_eq!(mapped.result, Ok(()));
    assert_eq!(
        freed, 1,
        "the table that lost the race is freed, and it only"
    );
    // Whoever finds an item without the mark cleans it before it relies on it.
    assert_eq!(cleaned, !mark_cleaned);
    let grant = crate::model::Grant {
        read: true,
        write: true,
        dirty: false,
        rest: 0,
    };
    rig.model.map(0, M2, 0, grant).1.unwrap();
    if !mark_cleaned {
        rig.check();
    }
    rig.finish();
}

#[test]
fn a_table_that_another_cpu_linked_is_used() {
    published_by_another(false);
    published_by_another(true);
}

// The table may be gone the moment the gather has its range.
#[test]
fn an_item_is_emptied_before_its_table_is_gathered() {
    for features in [Features::default(), Features::DMA_INCOHERENT] {
        let mut rig = Rig::<Odd>::new(odd().with(features));
        rig.map_ok(0, (1 << 25) - (1 << 11), 1 << 11, rw());
        rig.map_ok(1 << 36, 1 << 36, 0, rw());
        rig.split((1 << 36) + (1 << 11), 1 << 11).unwrap();
        assert_eq!(rig.unmap(0, (1 << 25) - (1 << 11)), (1 << 25) - (1 << 11));
        // The last table goes with the range up to its end.
        assert_eq!(rig.unmap(1 << 36, 1 << 36), 1 << 36);
        rig.finish();
    }
}
