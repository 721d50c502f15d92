// SPDX-License-Identifier: GPL-2.0-only

//! Hardware that walks and writes all the time, while the leaves that it uses are split, unmapped
//! and mapped again.
//!
//! Each translation is checked: it goes where it must with the rights that it must have, and it may
//! only find nothing if its zone was unmapped meanwhile. Each write has to be reported as dirty.
//! `IOTABLE_WALKS=1000000000` is the number of translations for each format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::arena::{RangeLock, View};
use crate::hw::{Entry, Hardware, Hit, OddHw, Vtd};
use crate::rig::{self, Rig, Setup};
use crate::setups::{self, for_each_format};
use crate::size::max_offset;
use crate::tests::threads::{noise, Flush, Walker, Walkers};
use crate::tests::{rw, G1};
use iotable::fmt::{Features, Format};
use iotable::{Bytes, DirtySink, Iova, Result};

/// Hardware threads; with more than there are processors a flush takes long.
const WALKERS: usize = 1;
/// Translations in one turn.
const BATCH: u64 = 16;
/// Times that each zone is unmapped, at least.
const ROUNDS: u64 = 2;
/// Places of a zone that are written to, spread over all of it.
const PLACES: u64 = 64;
/// Log2 of the bytes of a zone: one leaf in most formats, a group of items in others.
const ZONE_LG2: u32 = 31;
const ZONES: u64 = 2;
/// Zones begin at this address; every address goes where it says, plus this.
const BASE: u64 = 1 << ZONE_LG2;
const OA: u64 = 16 * G1;

/// What threads know of a zone.
#[derive(Default)]
struct Zone {
    /// Even while all of it is mapped.
    epoch: AtomicU64,
    /// Where it was cut last.
    cut: AtomicU64,
    /// Places, by number, that a write began to that was not accounted for yet, and those where it
    /// ended.
    began: AtomicU64,
    ended: AtomicU64,
}

impl Zone {
    fn va(n: u64) -> u64 {
        BASE + (n << ZONE_LG2)
    }

    fn place(n: u64, place: u64) -> u64 {
        Self::va(n) + place * ((1 << ZONE_LG2) / PLACES) + 0x1234 * place
    }
}

/// Places that were reported as dirty.
struct Places {
    zone: u64,
    dirty: u64,
}

impl DirtySink for Places {
    fn dirty(&mut self, Iova(va): Iova, Bytes(len): Bytes) -> Result {
        for place in 0..PLACES {
            if Zone::place(self.zone, place).wrapping_sub(va) < len {
                self.dirty |= 1 << place;
            }
        }
        Ok(())
    }

    fn cleared(&mut self, _va: Iova, _len: Bytes) {}
}

/// All threads share this.
struct Shared<'a, H: Hardware> {
    rig: &'a Rig<H>,
    zones: Vec<Zone>,
    walkers: Walkers,
    /// Whether hardware sets A and D.
    writes: bool,
    /// The translations that were asked for.
    wanted: u64,
}

impl<H: Hardware> Shared<'_, H> {
    fn done(&self) -> bool {
        self.walkers.turns() >= self.wanted / BATCH
    }
}

/// A hardware thread. Returns its writes.
fn hardware<H: Hardware>(
    shared: &Shared<'_, H>,
    turns: &Walker<'_>,
    n: u64,
    stop: &AtomicU64,
) -> u64 {
    let root = shared.rig.root();
    let (read, write, rest) = shared.rig.hw.expect(rw(), &shared.rig.cfg.params).unwrap();
    let page = shared.rig.model.rules.page();
    // Incoherent hardware sees what was cleaned.
    let views = if shared.rig.arena.incoherent() { !0 } else { 0 };
    let mut seed = 99 + n;
    let mut writes = 0;
    while stop.load(Ordering::Relaxed) == 0 {
        turns.turn();
        let start = root.start();
        // Panics if it is wrong; false if it found nothing, and may.
        let translate = |va: u64, n: u64| -> Option<Hit> {
            let zone = &shared.zones[n as usize];
            let before = zone.epoch.load(Ordering::Acquire);
            match root.translate_from(start, va, views) {
                Some(hit) => {
                    let want = (va + OA, read, write, rest);
                    assert_eq!(hit.seen(), want, "{va:#x} is disturbed");
                    Some(hit)
                }
                None => {
                    let after = zone.epoch.load(Ordering::Acquire);
                    assert!(
                        before % 2 == 1 || after != before,
                        "{va:#x} is disturbed: nothing there"
                    );
                    None
                }
            }
        };
        let random = noise(&mut seed);
        let (n, place) = (random % ZONES, (random >> 8) % PLACES);
        let zone = &shared.zones[n as usize];
        // An odd epoch means that the zone goes away, though not before this turn has ended:
        // nothing may be written to it any more.
        // Only if the write before was accounted for: two would hide that the bit of one is lost.
        let writing = shared.writes
            && zone.epoch.load(Ordering::Acquire) % 2 == 0
            && (zone.began.fetch_or(1 << place, Ordering::AcqRel) >> place) & 1 == 0;
        let mut cached = None;
        if writing {
            // Any address of the leaf may have brought it into the cache, by another item of a
            // group.
            let (via, va) = (
                Zone::place(n, (random >> 16) % PLACES),
                Zone::place(n, place),
            );
            cached = translate(via, n)
                .filter(|hit| (via ^ va) >> hit.bits.size_lg2 == 0)
                .or_else(|| translate(va, n));
        }
        for _ in 0..BATCH {
            let random = noise(&mut seed);
            let n = random % ZONES;
            let offset = if random & 16 == 0 {
                random >> 8
            } else {
                // Around the last cut.
                let near = ((random >> 8) % (8 * page)).wrapping_sub(4 * page);
                let cut = shared.zones[n as usize].cut.load(Ordering::Relaxed);
                cut.wrapping_add(near)
            };
            translate(Zone::va(n) + (offset & max_offset(ZONE_LG2)), n);
        }
        if writing {
            let bits = H::ACCESSED | H::DIRTY;
            let late = random & 16 == 0;
            loop {
                // Nothing is unmapped before the turn ends.
                let hit = cached.expect("a place that is written to is mapped");
                if late {
                    // As hardware that does not look again.
                    shared.rig.arena.hw_set(hit.item, bits);
                    break;
                }
                let item = shared.rig.arena.hw_read(hit.item, View::Cpu);
                let same = match shared.rig.hw.decode(item, hit.level) {
                    Entry::Leaf(now) => (now.oa, now.size_lg2) == (hit.bits.oa, hit.bits.size_lg2),
                    _ => false,
                };
                if same && shared.rig.arena.hw_update(hit.item, item, bits) {
                    break;
                }
                cached = translate(Zone::place(n, place), n);
            }
            zone.ended.fetch_or(1 << place, Ordering::AcqRel);
            writes += 1;
        }
    }
    writes
}

/// What the thread that changes the table has done.
#[derive(Debug, Default)]
struct Done {
    splits: u64,
    unmaps: u64,
    dirty_reads: u64,
    reported: u64,
}

/// The thread that changes one zone after the other.
struct Software<'a, H: Hardware> {
    shared: &'a Shared<'a, H>,
    seed: u64,
    done: Done,
}

impl<H: Hardware> Software<'_, H> {
    fn flush(&self) -> Flush<'_> {
        Flush {
            arena: &self.shared.rig.arena,
            walkers: &self.shared.walkers,
            pending: Vec::new(),
        }
    }

    fn map(&self, lock: &RangeLock<'_>) {
        let range = lock.range();
        let attrs = H::Format::attrs(rw(), &self.shared.rig.cfg.params).unwrap();
        let mut flush = self.flush();
        let pt = self.shared.rig.pt();
        let mapped = rig::map(&pt, range, range.va().0 + OA, attrs, &mut flush);
        assert_eq!((mapped.bytes, mapped.result), (range.len(), Ok(())));
    }

    fn split(&mut self, n: u64, lock: &RangeLock<'_>) {
        let page = self.shared.rig.model.rules.page();
        let pages = (1 << ZONE_LG2) / page;
        let first = noise(&mut self.seed) % pages;
        // Small holes and large ones.
        let most = (pages - first).min(1 << (noise(&mut self.seed) % 20));
        let count = noise(&mut self.seed) % most + 1;
        self.shared.zones[n as usize]
            .cut
            .store(first * page, Ordering::Relaxed);
        let range = lock.part(Zone::va(n) + first * page, count * page);
        let pt = self.shared.rig.pt();
        let flush = pt.split(range).unwrap();
        self.done.splits += flush.leaves().count() as u64;
        self.shared.walkers.flush();
        flush.fold_late_dirty().unwrap();
    }

    /// Reads and clears what is dirty. Each write that ended before must be reported, now or, if it
    /// is in `before`, last time. Returns the writes that may have been reported now though they
    /// had not ended when it began: `before` of the next time.
    fn read_dirty(&mut self, n: u64, lock: &RangeLock<'_>, before: u64) -> u64 {
        if !self.shared.writes {
            return 0;
        }
        let zone = &self.shared.zones[n as usize];
        let ended = zone.ended.swap(0, Ordering::AcqRel);
        assert_eq!(before & !ended, 0, "a write goes on after a flush");
        let mut places = Places { zone: n, dirty: 0 };
        let pt = self.shared.rig.pt();
        pt.read_dirty(lock.range(), true, &mut places).unwrap();
        let lost = ended & !(places.dirty | before);
        assert_eq!(lost, 0, "dirty bits of these places are lost");
        // Only what has ended may be written to again. Else the end of one write could hide that
        // another to the same place, which came while the bits were read, was reported already.
        let open = zone.began.fetch_and(!ended, Ordering::AcqRel) & !ended;
        self.shared.walkers.flush();
        self.done.dirty_reads += 1;
        self.done.reported += u64::from((ended & !before).count_ones());
        open & places.dirty
    }

    fn round(&mut self, n: u64) {
        let arena = &self.shared.rig.arena;
        let zone = &self.shared.zones[n as usize];
        let lock = arena.lock(Zone::va(n), 1 << ZONE_LG2).unwrap();
        self.map(&lock);
        zone.epoch.fetch_add(1, Ordering::AcqRel);
        let mut before = 0;
        for _ in 0..noise(&mut self.seed) % 12 + 1 {
            // Before, so that all places are written to again during the split.
            before = self.read_dirty(n, &lock, before);
            self.split(n, &lock);
        }
        zone.epoch.fetch_add(1, Ordering::AcqRel);
        // Writes end.
        self.shared.walkers.flush();
        before = self.read_dirty(n, &lock, before);
        assert_eq!((before, zone.began.load(Ordering::Acquire)), (0, 0));
        // Half of the zone, cut out, and then what is left.
        let half = lock.part(Zone::va(n), 1 << (ZONE_LG2 - 1));
        let pt = self.shared.rig.pt();
        pt.split(half).unwrap().finish().unwrap();
        let mut flush = self.flush();
        for range in [half, lock.part(half.last().0 + 1, half.len().0)] {
            assert_eq!(pt.unmap(range, &mut flush), range.len());
            self.shared.walkers.flush();
        }
        self.done.unmaps += 1;
    }
}

fn walks<H: Hardware + Send + Sync>(setup: Setup) {
    let wanted = std::env::var("IOTABLE_WALKS").map_or(500_000, |n| n.parse().unwrap());
    let rig = Rig::<H>::new(setup);
    let shared = Shared {
        rig: &rig,
        zones: (0..ZONES)
            .map(|_| Zone {
                epoch: AtomicU64::new(1),
                ..Zone::default()
            })
            .collect(),
        walkers: Walkers::new(WALKERS),
        writes: !H::PRESET && !rig.arena.incoherent(),
        wanted,
    };
    let (stop, start) = (AtomicU64::new(0), Instant::now());
    let (done, writes) = thread::scope(|scope| {
        let walkers: Vec<_> = (0..WALKERS)
            .map(|n| {
                let (shared, stop) = (&shared, &stop);
                scope.spawn(move || hardware(shared, &shared.walkers.start(n), n as u64, stop))
            })
            .collect();
        let mut software = Software {
            shared: &shared,
            seed: 7,
            done: Done::default(),
        };
        // The walkers end too if this panics.
        struct Stop<'a>(&'a AtomicU64);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(1, Ordering::Relaxed);
            }
        }
        let stop = Stop(&stop);
        while software.done.unmaps < ROUNDS * ZONES || !shared.done() {
            let n = software.done.unmaps % ZONES;
            software.round(n);
            assert!(
                walkers.iter().all(|walker| !walker.is_finished()),
                "a walker has failed"
            );
        }
        drop(stop);
        let writes: u64 = walkers
            .into_iter()
            .map(|walker| walker.join().unwrap())
            .sum();
        (software.done, writes)
    });
    println!(
        "{}: {} translations, {writes} writes, {done:?}, {:.1?}",
        H::Format::NAME,
        shared.walkers.turns() * BATCH,
        start.elapsed()
    );
    assert!(done.splits >= ROUNDS * ZONES && (done.reported != 0) == shared.writes);
    drop(shared);
    rig.finish();
}

macro_rules! each_walk {
    ($($name:ident: $hw:ty, $usual:ident;)*) => {
        $(
            #[test]
            fn $name() {
                walks::<$hw>(setups::$usual());
            }
        )*
    };
}
for_each_format!(each_walk);

#[test]
fn vtdss_on_incoherent_hardware() {
    walks::<Vtd>(Setup::plain(2).with(Features::DMA_INCOHERENT));
}

#[test]
fn odd_format_on_incoherent_hardware() {
    let mut setup = setups::odd();
    setup.params.features = setup.params.features.with(Features::DMA_INCOHERENT);
    walks::<OddHw<true, true>>(setup);
}
