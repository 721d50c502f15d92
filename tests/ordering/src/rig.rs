// SPDX-License-Identifier: GPL-2.0-only

//! A small table in a model, and the hardware that walks it.

use std::sync::Arc;

use iotable::fmt::{Features, Format, Params, Prot};
use iotable::gather::Gather;
use iotable::mem::PtMem;
use iotable::range::Locked;
use iotable::{
    page_sizes, Bytes, Config, DirtySink, Flusher, Iova, Joined, Level, Oa, Pt, RawTable,
    SplitFlush, Stale, Table,
};
use iotable_judges::hw::{Bits, Entry, Hardware};

use crate::env::{Broken, Init, LoomMem, Options};
use crate::tiny::{Tiny, TinyHw};

/// The smallest page.
pub(crate) const K4: u64 = 1 << 12;
/// Every address goes here, plus this.
const OA: u64 = 1 << 30;

/// The choices for a model.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    top_level: u8,
    /// Room for this many tables.
    tables: usize,
    features: Features,
    options: Options,
}

impl Setup {
    /// For two threads.
    pub(crate) fn new(top_level: u8, tables: usize) -> Setup {
        Setup {
            top_level,
            tables,
            features: Features::default(),
            options: Options {
                threads: 2,
                incoherent: false,
                init: Init::Plain,
                fences: true,
                broken: Broken::default(),
            },
        }
    }

    pub(crate) fn with(mut self, features: Features) -> Setup {
        self.features = features;
        self.options.incoherent = features.has(Features::DMA_INCOHERENT);
        self
    }

    pub(crate) fn incoherent(self) -> bool {
        self.options.incoherent
    }

    /// For this many threads.
    pub(crate) fn threads(mut self, threads: usize) -> Setup {
        self.options.threads = threads;
        self
    }

    /// With this fault.
    pub(crate) fn broken(mut self, broken: Broken) -> Setup {
        self.options.broken = broken;
        self
    }

    /// Without an order between an address and what is read through it; implies
    /// [`goes_on`](Self::goes_on).
    pub(crate) fn without_fences(mut self) -> Setup {
        self.options.fences = false;
        self.goes_on()
    }

    /// Who reads a store of [`Cell::init`](iotable::mem::Cell::init) without order is not told so,
    /// but may get an old value.
    pub(crate) fn goes_on(mut self) -> Setup {
        self.options.init = Init::Relaxed;
        self
    }
}

/// Tables that were handed over and not freed yet.
#[derive(Default)]
pub(crate) struct Pending(pub(crate) Vec<RawTable<LoomMem>>);

impl Gather<LoomMem> for Pending {
    fn table(&mut self, table: RawTable<LoomMem>, _level: Level) {
        self.0.push(table);
    }

    fn leaf(&mut self, _level: Level) {}

    fn range(&mut self, _va: Iova, _len: Bytes) {}
}

/// Flushes of a join.
struct Flushes<'a, F: FnMut()> {
    mem: &'a LoomMem,
    flush: F,
}

impl<F: FnMut()> Flusher<LoomMem> for Flushes<'_, F> {
    fn flush(&mut self, _stale: Stale) {
        (self.flush)();
    }

    fn free(&mut self, table: RawTable<LoomMem>) {
        self.mem.free_gathered(table);
    }
}

/// Leaves that were reported as dirty.
#[derive(Default)]
pub(crate) struct Dirty(Vec<(u64, u64)>);

impl Dirty {
    pub(crate) fn has(&self, va: u64) -> bool {
        self.0
            .iter()
            .any(|&(start, len)| va.wrapping_sub(start) < len)
    }
}

impl DirtySink for Dirty {
    fn dirty(&mut self, Iova(va): Iova, Bytes(len): Bytes) -> iotable::Result {
        self.0.push((va, len));
        Ok(())
    }

    fn cleared(&mut self, _va: Iova, _len: Bytes) {}
}

/// A translation, as hardware keeps it.
#[derive(Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) oa: u64,
    pub(crate) bits: Bits,
    /// Table and index of the item.
    place: (u64, usize),
    item: u64,
}

/// A table in a model.
pub(crate) struct Rig<const ITEMS_LG2: u32, const MARKED: bool = false> {
    pub(crate) mem: LoomMem,
    cfg: Config,
}

impl<const ITEMS_LG2: u32, const MARKED: bool> Rig<ITEMS_LG2, MARKED> {
    /// An empty table.
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        type F<const I: u32, const M: bool> = Tiny<I, M>;
        let top_level = Level(setup.top_level);
        let (most, oa_lg2) = (
            F::<ITEMS_LG2, MARKED>::MAX_VA_LG2,
            F::<ITEMS_LG2, MARKED>::MAX_OA_LG2,
        );
        let params = Params {
            features: setup.features,
            enc_mask: 0,
        };
        let max_va_lg2 = if params.features.has(Features::DYNAMIC_TOP) {
            most
        } else {
            top_level.above().item_lg2::<F<ITEMS_LG2, MARKED>>()
        };
        let cfg = Config {
            params,
            max_va_lg2,
            max_oa_lg2: oa_lg2,
            pgsize_bitmap: page_sizes::<F<ITEMS_LG2, MARKED>>(&params, top_level, most, oa_lg2),
        };
        let mem = LoomMem::new(setup.tables, ITEMS_LG2, setup.options);
        let top = mem.alloc(ITEMS_LG2 + 3).unwrap();
        mem.set_top(top, top_level);
        Arc::new(Rig { mem, cfg })
    }

    /// The table, from what the top is now.
    pub(crate) fn pt(&self) -> Pt<'_, Tiny<ITEMS_LG2, MARKED>, LoomMem> {
        let (top, level) = self.mem.top();
        // SAFETY: The top table stays as long as the rig.
        Pt::new(&self.mem, self.cfg, unsafe { Table::from_raw(top, level) })
    }

    /// Stands for the range lock; each model gives its threads ranges, and leaves, that do not
    /// overlap, unless it says so.
    pub(crate) fn range(va: u64, len: u64) -> Locked {
        // SAFETY: Each model sees to it, as said above.
        unsafe { Locked::new(Iova(va), Bytes(len)) }.unwrap()
    }

    /// Maps, and needs no flush.
    pub(crate) fn map(&self, va: u64, len: u64) {
        self.map_with(&self.pt(), va, len);
    }

    /// Maps below a top that was read before.
    pub(crate) fn map_with(
        &self,
        pt: &Pt<'_, Tiny<ITEMS_LG2, MARKED>, LoomMem>,
        va: u64,
        len: u64,
    ) {
        let mut gather = Pending::default();
        self.map_all(pt, va, len, &mut gather);
        assert!(gather.0.is_empty());
    }

    /// Maps where empty tables may be in the way.
    pub(crate) fn map_gathering(&self, va: u64, len: u64, gather: &mut Pending) {
        self.map_all(&self.pt(), va, len, gather);
    }

    fn map_all(
        &self,
        pt: &Pt<'_, Tiny<ITEMS_LG2, MARKED>, LoomMem>,
        va: u64,
        len: u64,
        gather: &mut Pending,
    ) {
        let rw = Prot::READ.with(Prot::WRITE);
        let attrs = Tiny::<ITEMS_LG2, MARKED>::attrs(rw, &self.cfg.params).unwrap();
        let (range, oa) = (Self::range(va, len), Oa(Self::oa(va)));
        // As the kernel layer does.
        if pt.map_page(range, oa, attrs).is_none() {
            let mapped = pt.map(range, oa, attrs, gather);
            assert_eq!((mapped.bytes, mapped.result), (Bytes(len), Ok(())));
        }
    }

    pub(crate) fn split(
        &self,
        va: u64,
        len: u64,
    ) -> SplitFlush<'_, Tiny<ITEMS_LG2, MARKED>, LoomMem> {
        self.pt().split(Self::range(va, len)).unwrap()
    }

    /// Joins, with this for a flush.
    pub(crate) fn join(&self, va: u64, len: u64, flush: impl FnMut()) -> Joined {
        let mut flushes = Flushes {
            mem: &self.mem,
            flush,
        };
        self.pt().join(Self::range(va, len), &mut flushes).unwrap()
    }

    pub(crate) fn read_dirty(&self, va: u64, len: u64, clear: bool) -> Dirty {
        let mut dirty = Dirty::default();
        let range = Self::range(va, len);
        self.pt().read_dirty(range, clear, &mut dirty).unwrap();
        dirty
    }

    pub(crate) fn set_dirty(&self, va: u64) {
        self.pt().set_dirty(Self::range(va, 1)).unwrap();
    }

    /// Where `va` goes.
    pub(crate) fn oa(va: u64) -> u64 {
        OA + va
    }

    fn hw() -> TinyHw<ITEMS_LG2, MARKED> {
        TinyHw
    }

    /// Hardware translates. `views` says for each item on the way (bit n: the n-th) whether it is
    /// read as it was written back last, or as CPUs see it.
    pub(crate) fn walk_from(&self, top: (u64, u8), va: u64, views: u32) -> Option<Hit> {
        let (mut table, mut level) = top;
        let mut views = views;
        if va >> (12 + ITEMS_LG2 * (u32::from(level) + 1)) != 0 {
            return None;
        }
        loop {
            let index =
                (va >> (12 + ITEMS_LG2 * u32::from(level))) as usize & ((1 << ITEMS_LG2) - 1);
            let memory = views & 1 == 1;
            let item = self.mem.hw_item(table, index, |cell| cell.walk(memory));
            views >>= 1;
            match Self::hw().decode(item, level) {
                Entry::Empty => return None,
                Entry::Table { addr, .. } => {
                    table = addr;
                    level -= 1;
                }
                Entry::Leaf(bits) => {
                    return Some(Hit {
                        oa: bits.oa | va & ((1 << bits.size_lg2) - 1),
                        bits,
                        place: (table, index),
                        item,
                    });
                }
            }
        }
    }

    /// Hardware translates an address that is mapped or not; if it is, then right. Returns the
    /// translation.
    pub(crate) fn translate(&self, va: u64, views: u32) -> Option<Hit> {
        let hit = self.walk_from(self.mem.hw_top(), va, views);
        if let Some(hit) = hit {
            assert_eq!(hit.oa, Self::oa(va), "{va:#x} goes elsewhere");
            assert!(hit.bits.write, "{va:#x} lost a right");
        }
        hit
    }

    /// Hardware translates an address that is mapped all the time.
    pub(crate) fn still(&self, va: u64, views: u32) -> Hit {
        self.translate(va, views)
            .unwrap_or_else(|| panic!("{va:#x} was disturbed"))
    }

    /// Hardware reads a leaf again through a pointer to its table that it has cached.
    pub(crate) fn look_again(&self, hit: Hit) {
        let (table, index) = hit.place;
        let item = self.mem.hw_item(table, index, |cell| cell.walk(false));
        Self::hw().decode(item, 0);
    }

    /// A device writes through `va`, and hardware notes it as one that compares the item with what
    /// it walked.
    pub(crate) fn write(&self, va: u64) {
        loop {
            let hit = self.still(va, 0);
            let new = hit.item | crate::tiny::A | crate::tiny::D;
            let (table, index) = hit.place;
            let done = self
                .mem
                .hw_item(table, index, |cell| cell.hw_update(hit.item, new));
            if done {
                return;
            }
        }
    }

    /// A device writes through a translation that hardware has cached, and hardware notes it where
    /// it once found it, without a look at what is there now.
    pub(crate) fn write_late(&self, hit: Hit) {
        let (table, index) = hit.place;
        self.mem.hw_item(table, index, |cell| {
            cell.hw_set(crate::tiny::A | crate::tiny::D);
        });
    }

    /// Panics if `pages` (by number) are not exactly what is mapped, a table leaked, or a table
    /// item has a bit that it must not have. To be called when the threads are done.
    pub(crate) fn check(&self, pages: &[u64]) {
        let (top, level) = self.mem.hw_top();
        let tables = self.count(top, level);
        assert_eq!(self.mem.in_use(), tables, "tables leaked");
        for page in 0..1 << (ITEMS_LG2 * (u32::from(level) + 1)) {
            let hit = self.translate(page * K4, 0);
            assert_eq!(hit.is_some(), pages.contains(&page), "page {page}");
        }
        let first = pages[0] * K4;
        let oa = self.pt().iova_to_phys(Self::range(first, 1));
        assert_eq!(oa, Some(Oa(Self::oa(first))));
    }

    fn count(&self, table: u64, level: u8) -> usize {
        let mut tables = 1;
        for index in 0..1 << ITEMS_LG2 {
            let item = self.mem.hw_item(table, index, |cell| cell.walk(false));
            if let Entry::Table { addr, .. } = Self::hw().decode(item, level) {
                assert_eq!(item & crate::tiny::D, 0, "a dirty table item");
                tables += self.count(addr, level - 1);
            }
        }
        tables
    }
}
