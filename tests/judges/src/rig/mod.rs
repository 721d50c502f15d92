// SPDX-License-Identifier: GPL-2.0-only

//! A table under watch: every operation is compared with the model, the hardware and the accounts.

#![forbid(unsafe_code)]

use crate::arena::{Arena, View};
use crate::hw::{Hardware, LeafAt, Root};
use crate::model::{Grant, Model, Rules};
use crate::size::max_offset;
use iotable::fmt::{Attrs, Features, Format, Prot};
use iotable::gather::Gather;
use iotable::range::Locked;
use iotable::{page_sizes, Bytes, Config, Iova, Level, Mapped, Oa, Pt, RawTable, Table};

mod join;
mod ops;
mod setup;
mod still;

pub use join::Used;
pub use setup::Setup;
pub use still::{still, still_from_every_top};

/// A table, its model and its judges.
pub struct Rig<H: Hardware> {
    /// The memory.
    pub arena: Arena,
    /// The hardware.
    pub hw: H,
    /// The table's configuration.
    pub cfg: Config,
    /// What must be mapped.
    pub model: Model,
    /// The first top table and its level.
    top: u64,
    top_level: u8,
}

/// Maps as the kernel layer does, the shortest way first.
pub fn map<F: Format, G: Gather<Arena>>(
    pt: &Pt<'_, F, Arena>,
    range: Locked,
    oa: u64,
    attrs: Attrs,
    gather: &mut G,
) -> Mapped {
    match pt.map_page(range, Oa(oa), attrs) {
        Some(()) => Mapped {
            bytes: range.len(),
            result: Ok(()),
        },
        None => pt.map(range, Oa(oa), attrs, gather),
    }
}

/// The leaf list without accessed bits: hardware's hints, which nobody reads.
fn plain(leaves: &[LeafAt]) -> Vec<LeafAt> {
    let mut leaves = leaves.to_vec();
    for leaf in &mut leaves {
        leaf.bits.accessed = false;
    }
    leaves
}

impl<H: Hardware> Rig<H> {
    /// An empty table.
    pub fn new(setup: Setup) -> Self {
        type Fmt<H> = <H as Hardware>::Format;
        let params = setup.params;
        let hw = H::new(&params);
        let top_level = Level(setup.top_level);
        let dynamic = params.features.has(Features::DYNAMIC_TOP);
        let below_top = top_level.above().item_lg2::<Fmt<H>>();
        let va_lg2 = match setup.va_lg2 {
            Some(lg2) => lg2,
            None if dynamic => Fmt::<H>::MAX_VA_LG2,
            None => below_top.min(Fmt::<H>::MAX_VA_LG2),
        };
        let oa_lg2 = setup.oa_lg2::<Fmt<H>>();
        let sizes = page_sizes::<Fmt<H>>(&params, top_level, va_lg2, oa_lg2);
        // Less than all of either space.
        let possible = hw.page_sizes() & max_offset(va_lg2 - 1) & max_offset(oa_lg2);
        assert_eq!(sizes, possible, "page sizes");
        let cfg = Config {
            params,
            max_va_lg2: va_lg2,
            max_oa_lg2: oa_lg2,
            pgsize_bitmap: sizes & !setup.without,
        };
        let arena =
            Arena::new::<Fmt<H>>(setup.slots, params.features.has(Features::DMA_INCOHERENT));
        let top = arena.new_top::<Fmt<H>>().unwrap();
        if dynamic {
            arena.set_top(top, top_level);
        }
        let rules = Rules {
            sizes: cfg.pgsize_bitmap,
            granule_lg2: H::GRANULE_LG2,
            items_lg2: H::ITEMS_LG2,
            va_lg2,
            sign: params.features.has(Features::SIGN_EXTEND),
            oa_lg2,
        };
        Rig {
            arena,
            hw,
            cfg,
            model: Model::new(rules),
            top,
            top_level: setup.top_level,
        }
    }

    /// The table, as the hardware sees it.
    pub fn root(&self) -> Root<'_, H> {
        Root {
            hw: self.hw,
            arena: &self.arena,
            top: self.top,
            level: self.top_level,
            va_lg2: self.model.rules.va_lg2,
            sign: self.model.rules.sign,
        }
    }

    fn top(&self) -> Table<'_, H::Format, Arena> {
        let (top, level) = self.root().start();
        self.arena.table(top, Level(level))
    }

    /// Whether the current top serves all of the range.
    pub fn in_reach(&self, va: u64, last: u64) -> bool {
        let level = self.root().start().1;
        let reach = max_offset(self.model.rules.item_lg2(level + 1));
        // A top that does not grow serves all there is.
        self.model.rules.in_range(va, last) && (self.arena.hw_top().is_none() || last <= reach)
    }

    /// The table, as operations see it.
    pub fn pt(&self) -> Pt<'_, H::Format, Arena> {
        Pt::new(&self.arena, self.cfg, self.top())
    }

    /// The leaves, as the hardware sees them.
    pub fn leaves(&self) -> Vec<LeafAt> {
        self.root().scan(View::Cpu).leaves
    }

    /// The number of tables, the top one included.
    pub fn tables(&self) -> usize {
        self.root().scan(View::Cpu).tables.len()
    }

    /// Panics if the table is not what the model says, in each view of the hardware, or if a table
    /// that nobody reaches is still allocated.
    pub fn check(&self) {
        let want = plain(&self.model.leaves());
        let scan = self.root().scan(View::Cpu);
        // Not by assert_eq!, which would print thousands of leaves.
        let got = plain(&scan.leaves);
        if let Some((got, want)) = got.iter().zip(&want).find(|(got, want)| got != want) {
            panic!("the table has {got:x?}, the model {want:x?}");
        }
        assert_eq!(got.len(), want.len(), "number of leaves");
        if self.arena.incoherent() {
            // Incoherent hardware has no dirty bits, so nobody cleans those that tests set.
            let cleaned = |leaves: &[LeafAt]| {
                let mut leaves = plain(leaves);
                leaves.iter_mut().for_each(|leaf| leaf.bits.dirty = false);
                leaves
            };
            let memory = self.root().scan(View::Memory);
            assert!(
                cleaned(&memory.leaves) == cleaned(&want),
                "leaves were not cleaned"
            );
            assert_eq!(memory.tables, scan.tables, "table items were not cleaned");
        }
        assert_eq!(self.arena.in_use(), scan.tables.len(), "tables leaked");
        self.check_walk(&scan);
    }

    /// What the hardware makes of these rights, and what the format does. `None` if the format
    /// refuses them, as it must.
    pub(crate) fn grant(&self, prot: Prot) -> Option<(Grant, Attrs)> {
        let params = self.cfg.params;
        let expect = self.hw.expect(prot, &params);
        let attrs = H::Format::attrs(prot, &params);
        assert_eq!(attrs.is_ok(), expect.is_some(), "attrs of {prot:?}");
        let (read, write, rest) = expect?;
        let grant = Grant {
            read,
            write,
            dirty: H::PRESET && write,
            rest,
        };
        Some((grant, attrs.ok()?))
    }

    /// Compares one address in all three: operation, hardware, model.
    pub fn lookup(&self, va: u64) {
        let lock = self.arena.lock(va, 1).unwrap();
        let found = self.pt().iova_to_phys(lock.range());
        let hit = self.root().translate_any(va);
        let leaf = self.model.find(va);
        let want = leaf.map(|(start, bits)| bits.oa + (va - start));
        assert_eq!(found, want.map(Oa), "iova_to_phys({va:#x})");
        // A leaf may grant nothing at all.
        let granted = leaf.is_some_and(|(_, bits)| bits.read || bits.write);
        let want = want.filter(|_| granted);
        assert_eq!(hit.map(|hit| hit.oa), want, "{va:#x}");
    }

    /// Takes the table down; the arena then sees what leaked.
    pub fn finish(self) {
        struct All(Vec<RawTable<Arena>>);
        impl Gather<Arena> for All {
            fn table(&mut self, table: RawTable<Arena>, _level: Level) {
                self.0.push(table);
            }
            fn leaf(&mut self, _level: Level) {}
            fn range(&mut self, _va: Iova, _len: Bytes) {}
        }
        let mut all = All(Vec::new());
        self.pt().take_down(&mut all);
        for table in all.0 {
            self.arena.free_gathered(table);
        }
        assert_eq!(self.arena.in_use(), 0, "tables leaked");
    }
}
