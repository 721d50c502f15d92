// SPDX-License-Identifier: GPL-2.0-only

//! From what a call reports to the commands that reach the hardware: the kernel layer's gather, the
//! core's `iommu_split()` and each driver's `iotlb_sync()`, as they are in the kernel.

#![forbid(unsafe_code)]

use std::cell::RefCell;

use super::{range_lg2, Caches, Command, Count, Vendor};
use crate::arena::{watch, Arena, Event, Step};
use crate::explore::view::{seen, Notice, Reachable, Seen};
use crate::explore::{expected, Call, Scene};
use crate::hw::{Hardware, Root};
use crate::model::Model;
use crate::rig::Rig;
use crate::size::floor;
use iotable::fmt::{Features, Format};
use iotable::gather::Gather;
use iotable::{Bytes, Flusher, Iova, Level, Oa, RawTable, SplitFlush, Stale};

/// A mistake in the driver or the kernel layer, which has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// None.
    None,
    /// A split is not flushed at all.
    NoFlush,
    /// A split is flushed at the size of the smallest page, at the edge; a carve where the hole is.
    SmallFlush,
    /// Tables are freed before the flush.
    FreedEarly,
    /// Cached table items are not dropped when tables are.
    WalksKept,
    /// Unmap is not flushed.
    NoUnmapFlush,
    /// A join is not flushed.
    NoJoinFlush,
    /// A join is flushed at its last page only.
    SmallJoinFlush,
}

/// `struct iommu_iotlb_gather`.
struct Iotlb {
    start: u64,
    end: u64,
    leaf_levels: u32,
    table_levels: u32,
    leaf_to_table: bool,
    freelist: Vec<RawTable<Arena>>,
}

impl Iotlb {
    fn new() -> Self {
        Iotlb {
            start: u64::MAX,
            end: 0,
            leaf_levels: 0,
            table_levels: 0,
            leaf_to_table: false,
            freelist: Vec::new(),
        }
    }

    fn is_disjoint(&self, va: u64, len: u64) -> bool {
        let end = va.wrapping_add(len).wrapping_sub(1);
        self.end != 0 && (end.wrapping_add(1) < self.start || va > self.end.wrapping_add(1))
    }

    fn add_range(&mut self, va: u64, len: u64) {
        self.start = self.start.min(va);
        self.end = self.end.max(va.wrapping_add(len).wrapping_sub(1));
    }
}

impl Vendor {
    /// The commands of the driver's `iotlb_sync()`.
    fn sync(self, iotlb: &Iotlb) -> Vec<Command> {
        let (start, last) = (iotlb.start, iotlb.end);
        let freed = !iotlb.freelist.is_empty();
        let size_lg2 = range_lg2(floor(start, 12), last).max(12);
        let pages = |tables| {
            let va = floor(start, size_lg2);
            vec![Command::Pages {
                va,
                size_lg2,
                tables,
            }]
        };
        match self {
            // cache_tag_flush_range()
            Vendor::Vtd { max_mask } if size_lg2 - 12 > max_mask => {
                vec![Command::All { tables: true }]
            }
            Vendor::Vtd { .. } => pages(freed || iotlb.leaf_to_table),
            // build_inv_address()
            Vendor::Amd if size_lg2 > 52 => vec![Command::All {
                tables: freed || iotlb.leaf_to_table,
            }],
            Vendor::Amd => pages(freed || iotlb.leaf_to_table),
            // riscv_iommu_tlbi_calc(), riscv_iommu_iotlb_inval_iommu()
            Vendor::Riscv { range, non_leaf } => {
                let all = vec![Command::All { tables: true }];
                let tables = iotlb.table_levels != 0;
                let levels = iotlb.leaf_levels | iotlb.table_levels;
                if levels == 0 || size_lg2 >= 64 || (tables && !non_leaf) {
                    return all;
                }
                if range && size_lg2 >= 13 {
                    return pages(tables);
                }
                let stride_lg2 = 12 + 9 * levels.trailing_zeros();
                let n = (last - start).wrapping_add(1) >> stride_lg2;
                if n == 0 || n > 512 {
                    return all;
                }
                let address = |i| Command::Address {
                    va: start + (i << stride_lg2),
                    tables,
                };
                (0..n).map(address).collect()
            }
            // arm_smmu_pt_inv_granule(), arm_smmu_cmdq_batch_add_range()
            Vendor::Smmu { granule_lg2 } => {
                let one_level = iotlb.leaf_levels.count_ones() == 1;
                let only = iotlb.table_levels == 0 && !iotlb.leaf_to_table && one_level;
                let level = iotlb.leaf_levels.trailing_zeros();
                let leaf_lg2 = granule_lg2
                    .filter(|_| only)
                    .map(|lg2| lg2 + (lg2 - 3) * level);
                vec![Command::Range {
                    va: start,
                    last,
                    leaf_lg2,
                    tables: !only,
                }]
            }
        }
    }
}

/// What the hardware has, and what must be.
struct World<'a, H: Hardware> {
    root: Root<'a, H>,
    places: &'a [u64],
    before: &'a Model,
    after: &'a Model,
    caches: &'a mut Caches,
    reachable: Reachable,
}

impl<H: Hardware> World<'_, H> {
    fn fill(&mut self) {
        self.fill_for(self.places);
    }

    /// While a call runs, an entry is as before or as after it.
    fn fill_for(&mut self, changed: &[u64]) {
        let (before, after) = (self.before, self.after);
        let right = |va, got: Seen| {
            let got = Some(got);
            got == seen(before, va) || got == seen(after, va)
        };
        let views = self.reachable.views;
        self.caches
            .fill(&self.root, changed, self.places, views, &right);
    }

    fn step(&mut self, event: Event) {
        let table = floor(event.at, H::ITEMS_LG2 + 3);
        let notice = self.reachable.step(&self.root, event);
        // What is not reachable any more may still be cached.
        let level = self.reachable.level(table).or(self.caches.level(table));
        match (notice, level, event.step) {
            (Notice::Nothing, ..) => {}
            (_, Some(level), Step::After(_)) => {
                // Only walks that read the item can find something else.
                let reads = |va: &u64| Root::<H>::item_at(table, level, *va) == event.at;
                let changed: Vec<u64> = self.places.iter().copied().filter(reads).collect();
                self.fill_for(&changed);
            }
            (Notice::No, None, _) => self.caches.count.states += 1,
            _ => self.fill(),
        }
    }
}

/// A domain, for one call.
struct Domain<'a, H: Hardware> {
    rig: &'a Rig<H>,
    vendor: Vendor,
    mistake: Mistake,
    world: RefCell<World<'a, H>>,
}

impl<H: Hardware> Domain<'_, H> {
    fn has(&self, feature: Features) -> bool {
        self.rig.cfg.params.features.has(feature)
    }

    fn free(&self, tables: &mut Vec<RawTable<Arena>>) {
        for table in tables.drain(..) {
            let addr = table.ptr().as_ptr() as u64;
            self.world.borrow_mut().caches.freed(addr);
            self.rig.arena.free_gathered(table);
        }
    }

    /// `iommu_iotlb_sync()`.
    fn sync(&self, iotlb: &mut Iotlb) {
        if iotlb.start < iotlb.end {
            let mut commands = self.vendor.sync(iotlb);
            if self.mistake == Mistake::FreedEarly {
                self.free(&mut iotlb.freelist);
            }
            for command in &mut commands {
                if self.mistake == Mistake::WalksKept {
                    match command {
                        Command::All { tables }
                        | Command::Pages { tables, .. }
                        | Command::Range { tables, .. }
                        | Command::Address { tables, .. } => *tables = false,
                    }
                }
                // Hardware goes on while it invalidates.
                self.world.borrow_mut().fill();
                self.world.borrow_mut().caches.invalidate(*command);
            }
            self.free(&mut iotlb.freelist);
        }
        assert!(iotlb.freelist.is_empty(), "tables that no flush covers");
        *iotlb = Iotlb::new();
    }

    /// `split_range()` of the kernel layer, in `iommu_split()` of the core.
    fn split(&self, va: u64, len: u64) {
        let lock = self.rig.arena.lock(va, len).unwrap();
        let mut iotlb = Iotlb::new();
        let mut step = |event| self.world.borrow_mut().step(event);
        let flush = watch(&mut step, || self.rig.pt().split(lock.range())).unwrap();
        self.world.borrow_mut().fill();
        if self.mistake != Mistake::NoFlush {
            self.flush_split(&flush, va, &mut iotlb);
            if H::Format::DIRTY != 0 && !flush.is_empty() {
                self.sync(&mut iotlb);
            }
        }
        watch(&mut step, || flush.fold_late_dirty()).unwrap();
        iotlb.leaf_to_table = true;
        self.sync(&mut iotlb);
    }

    fn flush_split(&self, flush: &SplitFlush<'_, H::Format, Arena>, edge: u64, iotlb: &mut Iotlb) {
        for leaf in flush.leaves() {
            let mut world = self.world.borrow_mut();
            world.caches.note_split(leaf.va.0, leaf.size_lg2);
            drop(world);
            let (mut va, mut len) = (leaf.va.0, leaf.bytes().0);
            if self.mistake == Mistake::SmallFlush {
                let page = self.rig.model.rules.page();
                va = edge.clamp(va, va + (len - page));
                len = page;
            }
            if iotlb.is_disjoint(va, len) {
                self.sync(iotlb);
            }
            iotlb.add_range(va, len);
            iotlb.leaf_to_table = true;
            iotlb.leaf_levels |= 1 << leaf.level.0;
        }
    }

    /// `carve_range()` of the kernel layer, in `iommu_carve()` of the core.
    fn carve(&self, va: u64, len: u64) {
        let lock = self.rig.arena.lock(va, len).unwrap();
        let mut gather = KernelGather::new(self);
        let mut step = |event| self.world.borrow_mut().step(event);
        let flush = watch(&mut step, || self.rig.pt().carve(lock.range(), &mut gather)).unwrap();
        self.world.borrow_mut().fill();
        let mut iotlb = gather.iotlb;
        match self.mistake {
            Mistake::SmallFlush => {
                iotlb.add_range(va, len);
                iotlb.leaf_to_table = true;
                iotlb.leaf_levels |= 1;
            }
            Mistake::NoFlush => {}
            _ => self.flush_split(&flush, va, &mut iotlb),
        }
        if H::Format::DIRTY != 0 && !flush.is_empty() && self.mistake != Mistake::NoFlush {
            iotlb.leaf_to_table = true;
            self.sync(&mut iotlb);
        }
        watch(&mut step, || flush.fold_late_dirty()).unwrap();
        if self.mistake == Mistake::NoFlush {
            self.free(&mut iotlb.freelist);
            return;
        }
        self.sync(&mut iotlb);
    }

    fn unmap(&self, va: u64, len: u64) {
        let lock = self.rig.arena.lock(va, len).unwrap();
        let mut gather = KernelGather::new(self);
        let mut step = |event| self.world.borrow_mut().step(event);
        let done = watch(&mut step, || self.rig.pt().unmap(lock.range(), &mut gather));
        assert_eq!(done, Bytes(len));
        let mut iotlb = gather.iotlb;
        if self.mistake == Mistake::NoUnmapFlush {
            self.free(&mut iotlb.freelist);
            return;
        }
        self.sync(&mut iotlb);
    }

    /// `join_range()` of the kernel layer.
    fn join(&self, va: u64, len: u64) {
        let lock = self.rig.arena.lock(va, len).unwrap();
        let mut flusher = KernelFlusher {
            domain: self,
            list: Vec::new(),
        };
        let mut step = |event| self.world.borrow_mut().step(event);
        watch(&mut step, || self.rig.pt().join(lock.range(), &mut flusher)).unwrap();
        self.free(&mut flusher.list);
    }

    fn map(&self, call: Call) {
        let Call::Map { va, len, oa, prot } = call else {
            unreachable!()
        };
        let lock = self.rig.arena.lock(va, len).unwrap();
        let attrs = H::Format::attrs(prot, &self.rig.cfg.params).unwrap();
        let mut gather = KernelGather::new(self);
        let mut step = |event| self.world.borrow_mut().step(event);
        let done = watch(&mut step, || {
            self.rig.pt().map(lock.range(), Oa(oa), attrs, &mut gather)
        });
        assert_eq!((done.bytes, done.result), (Bytes(len), Ok(())));
        self.sync(&mut gather.iotlb);
    }
}

/// `KernelGather` of the kernel layer.
struct KernelGather<'d, 'a, H: Hardware> {
    domain: &'d Domain<'a, H>,
    iotlb: Iotlb,
    list: Vec<RawTable<Arena>>,
    leaf_levels: u32,
    table_levels: u32,
}

impl<'d, 'a, H: Hardware> KernelGather<'d, 'a, H> {
    fn new(domain: &'d Domain<'a, H>) -> Self {
        KernelGather {
            domain,
            iotlb: Iotlb::new(),
            list: Vec::new(),
            leaf_levels: 0,
            table_levels: 0,
        }
    }
}

impl<H: Hardware> Gather<Arena> for KernelGather<'_, '_, H> {
    fn table(&mut self, table: RawTable<Arena>, level: Level) {
        self.list.push(table);
        self.table_levels |= 1 << level.0;
    }

    fn leaf(&mut self, level: Level) {
        self.leaf_levels |= 1 << level.0;
    }

    fn range(&mut self, Iova(va): Iova, Bytes(len): Bytes) {
        let no_gaps = self.domain.has(Features::FLUSH_RANGE_NO_GAPS);
        if no_gaps && self.iotlb.is_disjoint(va, len) {
            self.domain.sync(&mut self.iotlb);
        }
        self.iotlb.add_range(va, len);
        self.iotlb.freelist.append(&mut self.list);
        if self.domain.has(Features::DETAILED_GATHER) {
            self.iotlb.leaf_levels |= self.leaf_levels;
            self.iotlb.table_levels |= self.table_levels;
            (self.leaf_levels, self.table_levels) = (0, 0);
        }
    }
}

/// `KernelFlusher` of the kernel layer.
struct KernelFlusher<'d, 'a, H: Hardware> {
    domain: &'d Domain<'a, H>,
    list: Vec<RawTable<Arena>>,
}

impl<H: Hardware> Flusher<Arena> for KernelFlusher<'_, '_, H> {
    fn flush(&mut self, stale: Stale) {
        let (domain, mistake) = (self.domain, self.domain.mistake);
        if mistake == Mistake::NoJoinFlush {
            return;
        }
        let mut va = stale.va.0;
        if mistake == Mistake::SmallJoinFlush {
            va = stale.last.0 - (domain.rig.model.rules.page() - 1);
        }
        let mut iotlb = Iotlb::new();
        iotlb.add_range(va, (stale.last.0 - va).wrapping_add(1));
        if domain.has(Features::DETAILED_GATHER) {
            iotlb.leaf_levels |= stale.leaf_levels;
            iotlb.table_levels |= stale.table_levels;
        }
        iotlb.leaf_to_table = true;
        domain.sync(&mut iotlb);
    }

    fn free(&mut self, table: RawTable<Arena>) {
        self.list.push(table);
    }
}

/// Makes all calls of a scene, with caches that are filled for `places` all the time. `Err`: what
/// was wrong with an entry.
pub fn live<H: Hardware>(
    scene: &Scene,
    places: &[u64],
    vendor: Vendor,
    mistake: Mistake,
) -> Result<Count, String> {
    let mut rig = Rig::<H>::new(scene.setup);
    let mut caches = Caches::new(vendor);
    for &call in scene.before.iter().chain([&scene.call]) {
        let after = expected(&rig, call);
        let root = rig.root();
        let domain = Domain {
            rig: &rig,
            vendor,
            mistake,
            world: RefCell::new(World {
                root,
                places,
                before: &rig.model,
                after: &after,
                caches: &mut caches,
                reachable: Reachable::new(&root),
            }),
        };
        domain.world.borrow_mut().fill();
        match call {
            Call::Split { va, len } => domain.split(va, len),
            Call::Carve { va, len } => domain.carve(va, len),
            Call::Unmap { va, len } => domain.unmap(va, len),
            Call::Join { va, len } => domain.join(va, len),
            Call::Map { .. } => domain.map(call),
            call => panic!("{call:x?} does not concern caches"),
        }
        domain.world.borrow_mut().fill();
        drop(domain);
        // It returned: nothing is as before any more.
        let right = |va, got: Seen| Some(got) == seen(&after, va);
        let what = match call {
            Call::Unmap { .. } | Call::Carve { .. } => "a translation into the hole survived",
            _ => "an old translation survived",
        };
        caches.check(what, places, &right);
        rig.model = after;
        rig.check();
    }
    rig.finish();
    match caches.broken {
        Some(broken) => Err(broken),
        None => Ok(caches.count),
    }
}
