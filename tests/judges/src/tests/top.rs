// SPDX-License-Identifier: GPL-2.0-only

//! A top that grows while hardware uses it.
//!
//! [`Rig::map`] checks each time that the top grows level by level and no further than it takes,
//! that no table is allocated in vain, and that what was mapped is found from each top.

use crate::arena::{watch, Arena, Event, Step, Store, View};
use crate::hw::{Amd, Hardware, Root};
use crate::lean::Lean;
use crate::log::Log;
use crate::rig::{self, still_from_every_top, Rig, Setup};
use crate::tests::{amd, mock, rw, G1, K4, M2};
use iotable::fmt::{Features, Format};
use iotable::gather::Gather;
use iotable::mem::PtMem;
use iotable::{Bytes, Error, Iova, Level, Oa, Pt, RawTable};

type Real = Amd<false>;
type Mock = Amd<true>;

const T512: u64 = 1 << 39;

/// Without encryption, so that all OAs can be used.
fn plain(top: u8, va_lg2: u32) -> Setup {
    Setup::plain(top).with(Features::DYNAMIC_TOP).space(va_lg2)
}

fn level<H: Hardware>(rig: &Rig<H>) -> u8 {
    rig.root().start().1
}

/// Maps one page and looks at everything else that is mapped, from each top, after each store.
fn map_watched<H: Hardware>(rig: &mut Rig<H>, va: u64, oa: u64) {
    let page = rig.model.rules.page();
    let probes = rig.some_leaves();
    let first = rig.arena.tops().len();
    let root = rig.root();
    let before = root.reachable(&[View::Cpu]);
    let attrs = H::Format::attrs(rw(), &rig.cfg.params).unwrap();
    let lock = rig.arena.lock(va, page).unwrap();
    let mut log = Log::new(rig.root());
    let mut look = |event: Event| match event.step {
        Step::Before(Store::Init) => {
            let table = event.at & !((8 << H::ITEMS_LG2) - 1);
            let reachable = root.reachable(&[View::Cpu]);
            assert!(!reachable.contains(&table), "a plain store to a live table");
        }
        Step::Free => panic!("nothing was raced"),
        Step::After(_) | Step::BeforeTop | Step::AfterTop => {
            still_from_every_top(&root, first, &probes);
            if event.step == Step::AfterTop {
                // All that there was is below the new top.
                assert!(before.is_subset(&root.reachable(&[View::Cpu])));
            }
        }
        _ => {}
    };
    let mapped = watch(&mut look, || {
        rig::map(&rig.pt(), lock.range(), oa, attrs, &mut log)
    });
    assert_eq!((mapped.bytes, mapped.result), (Bytes(page), Ok(())));
    log.finish();
    drop(lock);
    let (read, write, rest) = rig.hw.expect(rw(), &rig.cfg.params).unwrap();
    let grant = crate::model::Grant {
        read,
        write,
        dirty: false,
        rest,
    };
    rig.model.map(va, page, oa, grant).1.unwrap();
    rig.check();
}

#[test]
fn it_grows_level_by_level_and_disturbs_nobody() {
    let mut rig = Rig::<Real>::new(Setup {
        top_level: 1,
        ..amd()
    });
    rig.map_ok(0, M2 + 3 * K4, 0, rw());
    for (va, want) in [
        (G1 - K4, 1),
        (G1, 2),
        (T512 - K4, 2),
        (T512, 3),
        (1 << 48, 4),
        ((1 << 57) - K4, 4),
        (1 << 57, 5),
        (1 << 63, 5),
        (K4.wrapping_neg(), 5),
    ] {
        map_watched(&mut rig, va, va & (T512 - 1));
        assert_eq!(level(&rig), want, "{va:#x}");
        rig.lookup(va);
        rig.lookup(va.wrapping_sub(1));
        rig.lookup(M2 + 12345);
    }
    rig.finish();

    let mut rig = Rig::<Mock>::new(mock());
    rig.map_ok(0, M2 + 3 * K4, 0, rw());
    for (va, want) in [(1 << 38, 3), ((1 << 56) - 2048, 4)] {
        map_watched(&mut rig, va, va & (T512 - 1));
        assert_eq!(level(&rig), want, "{va:#x}");
    }
    rig.finish();
}

#[test]
fn several_levels_in_one_call() {
    for top in 0..5 {
        let mut rig = Rig::<Real>::new(plain(top, 64));
        rig.map_ok(5 * K4, K4, 0, rw());
        map_watched(&mut rig, K4.wrapping_neg(), 7 * K4);
        assert_eq!(
            (level(&rig), rig.arena.tops().len()),
            (5, 6 - usize::from(top))
        );
        rig.lookup(5 * K4);
        rig.finish();
    }
}

#[test]
fn a_range_with_leaves_of_many_sizes() {
    // It begins below the old top and ends above; nothing is allocated twice.
    for (va, len) in [
        (G1 - 3 * K4, 2 * G1 + 7 * M2 + K4),
        (T512 - M2 - K4, G1 + 5 * K4),
        (K4, 2 * T512),
    ] {
        let mut rig = Rig::<Real>::new(plain(1, 64));
        rig.map_ok(va, len, va + T512, rw());
        rig.lookup(va);
        rig.lookup(va + len - 1);
        rig.lookup(va + len);
        rig.split(va + K4, len - 3 * K4).unwrap();
        assert_eq!(rig.unmap(va, len), len);
        rig.finish();
    }
}

#[test]
fn a_leaf_that_is_larger_than_an_item_of_the_top() {
    // 2^48 bytes are within the reach of level 3, and are leaves of level 4.
    let mut rig = Rig::<Real>::new(plain(3, 64));
    rig.map_ok(0, 1 << 48, 0, rw());
    assert_eq!((level(&rig), rig.model.count()), (4, 1));
    rig.finish();
    let mut rig = Rig::<Real>::new(plain(0, 64));
    rig.map_ok(0, M2, 0, rw());
    assert_eq!((level(&rig), rig.model.count()), (1, 1));
    rig.finish();
}

#[test]
fn not_beyond_the_space() {
    let out = |rig: &mut Rig<Real>, va, len| {
        let before = (rig.arena.allocated(), level(rig));
        let mapped = rig.map(va, len, 0, rw()).unwrap();
        assert_eq!(
            (mapped.bytes, mapped.result),
            (Bytes(0), Err(Error::OutOfRange))
        );
        assert_eq!((rig.arena.allocated(), level(rig)), before, "it grew");
    };
    for (top, va_lg2, highest) in [(1, 48, 3), (2, 40, 3), (2, 32, 2), (2, 57, 4), (5, 32, 5)] {
        let mut rig = Rig::<Real>::new(plain(top, va_lg2));
        let end = 1u64 << va_lg2;
        rig.map_ok(0, K4, 0, rw());
        for (va, len) in [
            (end, K4),
            (end - K4, 2 * K4),
            (1 << 63, K4),
            (K4.wrapping_neg(), K4),
        ] {
            out(&mut rig, va, len);
        }
        rig.map_ok(end - K4, K4, M2, rw());
        assert_eq!(level(&rig), highest);
        out(&mut rig, end, K4);
        rig.lookup(end);
        rig.lookup(end - 1);
        assert_eq!(rig.unmap(end - K4, 2 * K4), 0);
        assert_eq!(rig.unmap(end - K4, K4), K4);
        rig.finish();
    }
    let mut rig = Rig::<Mock>::new(mock());
    let mapped = rig.map(1 << 56, 2048, 0, rw()).unwrap();
    assert_eq!(mapped.result, Err(Error::OutOfRange));
    // It is not known to help before the whole range is.
    let mapped = rig.map(0, (1 << 56) + 2048, 0, rw()).unwrap();
    assert_eq!(mapped.result, Err(Error::OutOfRange));
    assert_eq!(level(&rig), 2);
    rig.finish();
}

// The AMD driver's table for a device with 32 bits.
#[test]
fn a_space_of_32_bits_never_grows() {
    let mut rig = Rig::<Real>::new(plain(2, 32));
    assert_eq!(rig.cfg.pgsize_bitmap, (1 << 31) - (1 << 12));
    rig.map_ok(0, 1 << 32, 0, rw());
    assert_eq!((rig.model.count(), rig.tables()), (4, 1));
    assert_eq!(rig.split((1 << 32) - K4, K4), Ok(2));
    assert_eq!(rig.unmap((1 << 32) - K4, K4), K4);
    rig.lookup((1 << 32) - 1);
    rig.lookup(1 << 32);
    assert_eq!(rig.arena.tops().len(), 1);
    rig.finish();
}

#[test]
fn above_the_top_nothing_is_mapped() {
    let mut rig = Rig::<Real>::new(plain(1, 64));
    rig.map_ok(0, G1 / 2, 0, rw());
    for va in [G1, T512, 1 << 57, K4.wrapping_neg()] {
        rig.lookup(va);
        assert_eq!(rig.unmap(va, K4), 0);
        assert_eq!(rig.split(va, K4), Err(Error::NotMapped));
        rig.read_dirty(va, K4, true);
    }
    // Half of it is above the top: as if all was.
    assert_eq!(rig.unmap(0, 2 * G1), 0);
    rig.read_dirty(0, 2 * G1, true);
    assert_eq!(rig.split(M2, G1), Err(Error::NotMapped));
    assert_eq!(level(&rig), 1);
    assert_eq!(rig.unmap(0, G1), G1 / 2);
    rig.finish();
}

#[test]
fn the_last_page_of_all_64_bits() {
    let mut rig = Rig::<Real>::new(amd());
    let last = K4.wrapping_neg();
    rig.map_ok(last, K4, 5 * M2, rw());
    rig.lookup(u64::MAX);
    assert_eq!(rig.root().translate(u64::MAX).unwrap().oa, 5 * M2 + K4 - 1);
    rig.set_dirty(u64::MAX).unwrap();
    rig.read_dirty(last, K4, true);
    assert_eq!(rig.unmap(last, K4), K4);
    // A leaf of 16 items, a larger one, and cuts in both.
    for lg2 in [16, 30, 34] {
        let size = 1u64 << lg2;
        let va = size.wrapping_neg();
        rig.map_ok(va, size, size, rw());
        assert_eq!(rig.model.count(), 1);
        rig.set_dirty(u64::MAX).unwrap();
        rig.split(last, K4).unwrap();
        rig.read_dirty(va, size, true);
        rig.read_dirty(va, size, false);
        rig.lookup(u64::MAX);
        assert_eq!(rig.unmap(va, size), size);
    }
    // All that the last item of the top covers.
    rig.map_ok(last - K4, 2 * K4, 0, rw());
    assert_eq!(rig.unmap(last - K4, 2 * K4), 2 * K4);
    rig.finish();
}

#[test]
fn an_old_top_can_go() {
    let mut rig = Rig::<Real>::new(plain(1, 64));
    let first = rig.root().start().0;
    rig.map_ok(K4, K4, 0, rw());
    rig.map_ok(T512, K4, 0, rw());
    assert_eq!(rig.unmap(K4, K4), K4);
    // Now a table like any other: a large leaf takes the place of it.
    rig.map_ok(0, G1, 0, rw());
    assert!(!rig.root().reachable(&[View::Cpu]).contains(&first));
    rig.map_ok(1 << 57, K4, 0, rw());
    rig.lookup(T512);
    rig.lookup(G1 - 1);
    rig.finish();
}

#[test]
fn a_new_top_can_go_at_once() {
    // Each new top but the last leads to nothing, and a leaf takes the place of all of them.
    let mut rig = Rig::<Real>::new(plain(1, 64));
    rig.map_ok(0, 1 << 48, 0, rw());
    assert_eq!((level(&rig), rig.tables(), rig.model.count()), (4, 1, 1));
    rig.lookup((1 << 48) - 1);
    rig.split(K4, K4).unwrap();
    rig.finish();
    let mut lean = Lean::<Real>::new(plain(1, 64));
    lean.map(0, 1 << 48, 0, rw()).unwrap().result.unwrap();
    lean.finish();
}

/// Installs `levels` more levels, as another CPU would that is faster. Returns the tables.
fn grow_by_another(arena: &Arena, levels: u8) -> Vec<u64> {
    let mut made = Vec::new();
    for _ in 0..levels {
        let (top, level) = arena.hw_top().unwrap();
        let new = arena.new_top::<<Real as Hardware>::Format>().unwrap();
        let next_level = u64::from(level.0 + 1) << 9;
        arena.poke(new, top | next_level | (3 << 61) | 1);
        arena.set_top(new, level.above());
        made.push(new);
    }
    made
}

#[test]
fn the_loser_of_a_race_frees_its_own_table_only() {
    // The other CPU adds as many levels at our first or our second attempt.
    for (attempt, levels) in [(0, 1), (0, 2), (0, 4), (1, 1), (1, 3), (2, 1), (3, 1)] {
        let mut rig = Rig::<Real>::new(plain(1, 64));
        rig.map_ok(0, M2 + K4, 0, rw());
        let (arena, root) = (&rig.arena, rig.root());
        let probes = rig.some_leaves();
        let before = root.reachable(&[View::Cpu]);
        let attrs = <Real as Hardware>::Format::attrs(rw(), &rig.cfg.params).unwrap();
        let va = K4.wrapping_neg();
        let lock = arena.lock(va, K4).unwrap();
        let mut log = Log::new(rig.root());
        let (mut attempts, mut ours, mut freed, mut theirs) = (0, 0, Vec::new(), Vec::new());
        let mut look = |event: Event| match event.step {
            Step::BeforeTop => {
                if attempts == attempt {
                    ours = event.at;
                    theirs = grow_by_another(arena, levels);
                }
                attempts += 1;
            }
            Step::Free => {
                freed.push(event.at);
                let reachable = root.reachable(&[View::Cpu]);
                assert!(before.is_subset(&reachable), "the old top is lost");
                assert!(!reachable.contains(&event.at), "freed while reachable");
            }
            Step::After(_) | Step::AfterTop => still_from_every_top(&root, 1, &probes),
            _ => {}
        };
        let mapped = watch(&mut look, || {
            rig::map(&rig.pt(), lock.range(), 0, attrs, &mut log)
        });
        assert_eq!((mapped.bytes, mapped.result), (Bytes(K4), Ok(())));
        assert_eq!(freed, [ours], "the loser's table, and it only");
        log.finish();
        drop(lock);
        let reachable = root.reachable(&[View::Cpu]);
        assert!(theirs.iter().all(|table| reachable.contains(table)));
        assert_eq!(level(&rig), 5);
        let grant = crate::model::Grant {
            read: true,
            write: true,
            dirty: false,
            rest: 0,
        };
        rig.model.map(va, K4, 0, grant).1.unwrap();
        rig.check();
        rig.finish();
    }
}

// A view that was made before the top grew.
#[test]
fn an_old_view_is_good_for_what_it_served() {
    let mut rig = Rig::<Real>::new(plain(1, 64));
    rig.map_ok(0, M2, 0, rw());
    let old = rig.root().start();
    rig.map_ok(T512, K4, M2, rw());
    let lock = rig.arena.lock(M2 - 1, 1).unwrap();
    let table = rig.arena.table(old.0, Level(old.1));
    let pt = Pt::<<Real as Hardware>::Format, _>::new(&rig.arena, rig.cfg, table);
    assert_eq!(pt.iova_to_phys(lock.range()), Some(Oa(M2 - 1)));
    drop(lock);
    rig.finish();
}

struct Keep(Vec<RawTable<Arena>>);

impl Gather<Arena> for Keep {
    fn table(&mut self, table: RawTable<Arena>, _level: Level) {
        self.0.push(table);
    }
    fn leaf(&mut self, _level: Level) {}
    fn range(&mut self, _va: Iova, _len: Bytes) {}
}

#[test]
fn threads_that_grow_it_at_once() {
    type Fmt = <Real as Hardware>::Format;
    for round in 0..12u64 {
        let rig = Rig::<Real>::new(plain(1, 64));
        let attrs = Fmt::attrs(rw(), &rig.cfg.params).unwrap();
        let arena = &rig.arena;
        // What was mapped before is looked at all the time.
        let root: Root<'_, Real> = rig.root();
        let map = |va: u64| {
            let lock = arena.lock(va, K4).unwrap();
            let (top, level) = arena.top();
            let top = arena.table::<Fmt>(Arena::table_oa(top).0, level);
            let mut keep = Keep(Vec::new());
            let mapped = Pt::<Fmt, _>::new(arena, rig.cfg, top).map(
                lock.range(),
                Oa(va & (T512 - 1)),
                attrs,
                &mut keep,
            );
            assert_eq!((mapped.bytes, mapped.result), (Bytes(K4), Ok(())));
            assert!(keep.0.is_empty());
            assert_eq!(root.translate(5 * K4).unwrap().oa, 5 * K4);
        };
        map(5 * K4);
        let places = [T512, 1 << 48, 1 << 57, (1 << 57) + T512, K4.wrapping_neg()];
        std::thread::scope(|scope| {
            for n in 0..4 {
                let map = &map;
                scope.spawn(move || {
                    for (k, place) in places.iter().enumerate() {
                        let other = (k as u64 * round + n) % 5;
                        map(place.wrapping_sub((n * 8 + other) * M2) & !(K4 - 1));
                    }
                });
            }
        });
        assert_eq!(level(&rig), 5);
        assert_eq!(rig.leaves().len(), 21);
        assert_eq!(rig.arena.in_use(), rig.tables(), "tables leaked");
        rig.finish();
    }
}
