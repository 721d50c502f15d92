// SPDX-License-Identifier: GPL-2.0-only

//! Real threads: neighbouring ranges that share tables, and hardware that walks meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::arena::Arena;
use crate::hw::{Hardware, Root, Vtd};
use crate::rig;
use crate::tests::{rw, G1, K4, M2};
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::{Features, Format, Params};
use iotable::gather::Gather;
use iotable::{page_sizes, Bytes, Config, Iova, Level, Oa, Pt, RawTable};

/// Every address goes here, plus this.
const OA: u64 = 64 * G1;
/// Pages of each thread: a 2M table is shared by four of them.
const PAGES: u64 = 128;
const ROUNDS: u64 = 400;

/// Hardware threads. Each walk, or a few together, is a turn.
pub(super) struct Walkers(Vec<(AtomicU64, AtomicBool)>);

/// A hardware thread; gone when dropped, so that nobody waits for it if it panicked.
pub(super) struct Walker<'a>(&'a AtomicU64, &'a AtomicBool);

impl Walkers {
    pub(super) fn new(n: usize) -> Walkers {
        let one = || (AtomicU64::new(0), AtomicBool::new(true));
        Walkers((0..n).map(|_| one()).collect())
    }

    /// To be called in the n-th thread.
    pub(super) fn start(&self, n: usize) -> Walker<'_> {
        Walker(&self.0[n].0, &self.0[n].1)
    }

    /// All turns that have begun.
    pub(super) fn turns(&self) -> u64 {
        self.0
            .iter()
            .map(|(turns, _)| turns.load(Ordering::Relaxed))
            .sum()
    }

    /// The flush: waits until all turns that began before have ended. Those that begin later see
    /// all that happened before the call.
    pub(super) fn flush(&self) {
        for (turns, active) in &self.0 {
            // A read-modify-write, so that the next turn begins after it.
            let now = turns.fetch_add(0, Ordering::AcqRel);
            let mut spins = 0u32;
            while active.load(Ordering::Acquire) && turns.load(Ordering::Acquire) == now {
                // A turn is short, if it is not interrupted.
                spins += 1;
                if spins < 10_000 {
                    core::hint::spin_loop();
                } else {
                    thread::yield_now();
                }
            }
        }
    }
}

impl Walker<'_> {
    pub(super) fn turn(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Walker<'_> {
    fn drop(&mut self) {
        self.1.store(false, Ordering::Release);
    }
}

/// Frees after the flush.
pub(super) struct Flush<'a> {
    pub(super) arena: &'a Arena,
    pub(super) walkers: &'a Walkers,
    pub(super) pending: Vec<RawTable<Arena>>,
}

impl Gather<Arena> for Flush<'_> {
    fn table(&mut self, table: RawTable<Arena>, _level: Level) {
        self.pending.push(table);
    }

    fn leaf(&mut self, _level: Level) {}

    fn range(&mut self, _va: Iova, _len: Bytes) {
        if self.pending.is_empty() {
            return;
        }
        self.walkers.flush();
        for table in self.pending.drain(..) {
            self.arena.free_gathered(table);
        }
    }
}

pub(super) fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Maps, splits and unmaps parts of its own range, round and round.
fn worker(pt: &Pt<'_, Vtdss, Arena>, arena: &Arena, flush: &mut Flush<'_>, base: u64, len: u64) {
    let attrs = Vtdss::attrs(rw(), &pt.config().params).unwrap();
    let mut seed = base + 1;
    let lock = arena.lock(base, len).unwrap();
    for _ in 0..ROUNDS {
        let mapped = rig::map(pt, lock.range(), OA + base, attrs, flush);
        assert_eq!((mapped.bytes, mapped.result), (Bytes(len), Ok(())));
        // One cut: both parts go by themselves.
        let at = (noise(&mut seed) % (len / K4 - 1) + 1) * K4;
        let part = |va, len| lock.part(va, len);
        let split = pt.split(part(base, at)).unwrap();
        assert!(split.leaves().all(|leaf| leaf.va.0 >= base));
        split.finish().unwrap();
        assert_eq!(pt.unmap(part(base, at), flush), Bytes(at));
        assert_eq!(pt.iova_to_phys(part(base, 1)), None);
        assert_eq!(
            pt.iova_to_phys(part(base + at, 1)),
            Some(Oa(OA + base + at))
        );
        assert_eq!(pt.unmap(part(base + at, len - at), flush), Bytes(len - at));
    }
}

/// Walks all the time: each address is either not mapped, or goes where it always goes.
fn walker(root: Root<'_, Vtd>, turns: &Walker<'_>, stop: &AtomicBool, always: u64) -> u64 {
    let mut seed = 99;
    let mut hits = 0;
    while !stop.load(Ordering::SeqCst) {
        turns.turn();
        let va = noise(&mut seed) % (8 * M2);
        if let Some(hit) = root.translate(va) {
            assert_eq!(hit.oa, OA + va, "{va:#x} goes elsewhere");
            hits += 1;
        }
        let va = always + noise(&mut seed) % K4;
        assert!(root.translate(va).is_some(), "nobody unmaps {va:#x}");
    }
    hits
}

fn neighbours(features: Features) {
    let arena = Arena::new::<Vtdss>(4096, features.has(Features::DMA_INCOHERENT));
    let params = Params {
        features,
        ..Params::default()
    };
    let cfg = Config {
        params,
        max_va_lg2: 39,
        max_oa_lg2: 52,
        pgsize_bitmap: page_sizes::<Vtdss>(&params, Level(2), 39, 52),
    };
    let top = arena.new_top::<Vtdss>().unwrap();
    let pt = || Pt::<Vtdss, _>::new(&arena, cfg, arena.table(top, Level(2)));
    let (stop, walkers) = (AtomicBool::new(false), Walkers::new(1));
    let root = Root {
        hw: Vtd::new(&params),
        arena: &arena,
        top,
        level: 2,
        va_lg2: 39,
        sign: false,
    };
    let flush = || Flush {
        arena: &arena,
        walkers: &walkers,
        pending: Vec::new(),
    };
    // A page in the same 2M as the first workers, that nobody touches.
    let always = (4 * PAGES - 1) * K4;
    let lock = arena.lock(always, K4).unwrap();
    let attrs = Vtdss::attrs(rw(), &params).unwrap();
    let mapped = rig::map(&pt(), lock.range(), OA + always, attrs, &mut flush());
    assert_eq!(mapped.result, Ok(()));

    let hits = thread::scope(|scope| {
        let hardware = scope.spawn(|| walker(root, &walkers.start(0), &stop, always));
        // Three that share a 4K table with the page above, one with a 4K table of its own, and one
        // that has 2M leaves and replaces its empty tables by them.
        let ranges = [
            (0, PAGES * K4),
            (PAGES * K4, PAGES * K4),
            (2 * PAGES * K4, PAGES * K4),
            (M2, M2),
            (2 * M2, 6 * M2),
        ];
        let workers: Vec<_> = ranges
            .into_iter()
            .map(|(base, len)| {
                let (pt, flush, arena) = (&pt, &flush, &arena);
                scope.spawn(move || worker(&pt(), arena, &mut flush(), base, len))
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::SeqCst);
        let hits = hardware.join().expect("the walker");
        for result in results {
            result.expect("a worker");
        }
        hits
    });
    assert!(hits > 0, "the walker never saw a mapping");
    assert_eq!(pt().unmap(lock.range(), &mut flush()), Bytes(K4));
    drop(lock);
    let mut all = flush();
    pt().take_down(&mut all);
    all.range(Iova(0), Bytes(1));
}

#[test]
fn neighbours_do_not_disturb_each_other() {
    neighbours(Features::default());
}

#[test]
fn neighbours_on_incoherent_hardware() {
    neighbours(Features::DMA_INCOHERENT);
}
