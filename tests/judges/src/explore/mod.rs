// SPDX-License-Identifier: GPL-2.0-only

//! Every state that hardware can meet while an operation runs, visited and counted.
//!
//! A *scene* is a table and one call. [`view`] makes the call and looks at the table at every point
//! between two stores; [`touch`] makes the call again and again, with hardware that sets A and D at
//! every point between two accesses.
//!
//! States are merged by two arguments only, each of which is checked where it is used:
//!
//! 1. A walk reads items of tables that it can reach. So a store to a table that no walk reaches,
//!    in whatever mix of views, leaves every walk as it was.
//! 2. What hardware does to one item and what software does to another item commute, unless the
//!    latter is on the way of the walk. So it does not matter between which of those accesses
//!    hardware acts.

#![forbid(unsafe_code)]

use super::arena::{Arena, View};
use super::hw::{Entry, Hardware};
use super::model::{Model, Rules};
use super::rig::{Rig, Setup};
use crate::size::max_offset;
use iotable::fmt::{Format, Prot};
use iotable::gather::Gather;
use iotable::{Bytes, Flusher, Iova, Level, Oa, RawTable, Stale};

pub mod touch;
pub mod view;

fn asked_for(what: &str) -> bool {
    std::env::var("IOTABLE_EXPLORE").is_ok_and(|value| value == what)
}

/// Whether to explore more than `cargo test` has time for.
pub fn full() -> bool {
    everything() || asked_for("full")
}

/// Whether nothing is to be left out, however long it takes.
pub fn everything() -> bool {
    asked_for("all")
}

/// One call, or something that a test does to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Map `len` bytes from `va` to `oa`.
    Map {
        /// First address.
        va: u64,
        /// Bytes.
        len: u64,
        /// Output address.
        oa: u64,
        /// Rights.
        prot: Prot,
    },
    /// Unmap `len` bytes from `va`.
    Unmap {
        /// First address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// Split at both edges of `len` bytes from `va`.
    Split {
        /// First address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// Unmap `len` bytes from `va`, and nothing else of the leaves at the edges.
    Carve {
        /// First address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// Join what lies in `len` bytes from `va` as a whole.
    Join {
        /// First address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// Read and clear dirty bits.
    Clear {
        /// First address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// A device writes to an address.
    Write {
        /// The address.
        va: u64,
    },
    /// All bits of leaves that hardware ignores become 1: they have to survive.
    Paint,
    /// A and D of all leaves become 0, where Linux sets them beforehand.
    Unset,
}

/// A table and what is done to it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The kind of table.
    pub setup: Setup,
    /// What was done before.
    pub before: Vec<Call>,
    /// The call to explore.
    pub call: Call,
}

impl Scene {
    /// Leaves, each mapped by a call of its own so that none becomes part of a larger one, all
    /// ignored bits set, and a call.
    pub fn of_leaves<H: Hardware>(setup: Setup, leaves: &[(u64, u32)], call: Call) -> Scene {
        let prot = Prot::READ.with(Prot::WRITE);
        let oas = max_offset(setup.oa_lg2::<H::Format>());
        let mut before: Vec<Call> = leaves
            .iter()
            .enumerate()
            .map(|(n, &(va, size_lg2))| Call::Map {
                va,
                len: 1 << size_lg2,
                // As much alignment as the leaf needs, and no more.
                oa: ((2 * n as u64 + 1) << size_lg2) & oas,
                prot,
            })
            .collect();
        before.push(Call::Paint);
        Scene {
            setup,
            before,
            call,
        }
    }
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls.
    pub calls: u64,
    /// Points between two steps.
    pub states: u64,
    /// Those after a step that a walk can notice: all addresses were looked at there. The others
    /// were checked to be unnoticeable.
    pub seen: u64,
    /// Translations.
    pub walks: u64,
}

impl Count {
    /// Adds what another exploration did.
    pub fn add(&mut self, other: Count) {
        self.calls += other.calls;
        self.states += other.states;
        self.seen += other.seen;
        self.walks += other.walks;
    }
}

/// Frees what is gathered at once: for calls that are not explored.
pub struct Free<'a> {
    arena: &'a Arena,
    tables: Vec<RawTable<Arena>>,
}

impl<'a> Free<'a> {
    /// For a call on a table in `arena`.
    pub fn new(arena: &'a Arena) -> Self {
        Free {
            arena,
            tables: Vec::new(),
        }
    }
}

impl Gather<Arena> for Free<'_> {
    fn table(&mut self, table: RawTable<Arena>, _level: Level) {
        self.tables.push(table);
    }

    fn leaf(&mut self, _level: Level) {}

    fn range(&mut self, _va: Iova, _len: Bytes) {
        for table in self.tables.drain(..) {
            self.arena.free_gathered(table);
        }
    }
}

/// For a join: what is to happen at a flush, and tables that are freed at once.
pub struct AtFlush<'a, F: FnMut()> {
    arena: &'a Arena,
    flushed: F,
}

impl<'a, F: FnMut()> AtFlush<'a, F> {
    /// For a join of a table in `arena`.
    pub fn new(arena: &'a Arena, flushed: F) -> Self {
        AtFlush { arena, flushed }
    }
}

impl<F: FnMut()> Flusher<Arena> for AtFlush<'_, F> {
    fn flush(&mut self, _stale: Stale) {
        (self.flushed)();
    }

    fn free(&mut self, table: RawTable<Arena>) {
        self.arena.free_gathered(table);
    }
}

/// What the model says after `call`.
pub fn expected<H: Hardware>(rig: &Rig<H>, call: Call) -> Model {
    let mut model = rig.model.clone();
    match call {
        Call::Map { va, len, oa, prot } => {
            let (grant, _) = rig.grant(prot).expect("a usual mapping");
            assert_eq!(model.map(va, len, oa, grant), (len, Ok(())), "{call:x?}");
        }
        Call::Unmap { va, len } => {
            model.unmap(va, va + (len - 1));
        }
        Call::Split { va, len } => model.split(va, len),
        Call::Carve { va, len } => {
            model.split(va, len);
            model.unmap(va, va + (len - 1));
        }
        Call::Join { va, len } => model.join(va, va + (len - 1)),
        Call::Clear { va, len } => {
            model.read_dirty(va, va + (len - 1), true);
        }
        Call::Write { va } => assert!(model.touch(va, true)),
        Call::Paint => {
            for leaf in model.leaves() {
                model.set_rest(leaf.va, leaf.bits.rest | H::IGNORED);
            }
        }
        Call::Unset => {}
    }
    model
}

/// Does `call` without a look at it.
pub fn apply<H: Hardware>(rig: &mut Rig<H>, call: Call) {
    if let Call::Join { va, len } = call {
        rig.join(va, len, None).unwrap();
        return;
    }
    let after = expected(rig, call);
    match call {
        Call::Map { va, len, oa, prot } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let attrs = H::Format::attrs(prot, &rig.cfg.params).unwrap();
            let mut free = Free::new(&rig.arena);
            let done = rig.pt().map(lock.range(), Oa(oa), attrs, &mut free);
            assert_eq!(done.result, Ok(()), "{call:x?}");
        }
        Call::Unmap { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let done = rig.pt().unmap(lock.range(), &mut Free::new(&rig.arena));
            assert_eq!(done, Bytes(len), "{call:x?}");
        }
        Call::Split { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let flush = rig.pt().split(lock.range()).unwrap();
            flush.fold_late_dirty().unwrap();
        }
        Call::Carve { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let mut free = Free::new(&rig.arena);
            let flush = rig.pt().carve(lock.range(), &mut free).unwrap();
            flush.fold_late_dirty().unwrap();
        }
        Call::Write { va } => {
            rig.root().access(va, true).expect("mapped");
        }
        Call::Join { .. } => unreachable!("done above"),
        Call::Clear { .. } => unreachable!("only explored"),
        Call::Paint => poke_leaves(rig, |item| item | H::IGNORED),
        Call::Unset => poke_leaves(rig, |item| item & !(H::ACCESSED | H::DIRTY)),
    }
    rig.model = after;
}

fn poke_leaves<H: Hardware>(rig: &Rig<H>, change: impl Fn(u64) -> u64) {
    for table in rig.root().scan(View::Cpu).tables {
        for at in (table.addr..table.addr + (8 << H::ITEMS_LG2)).step_by(8) {
            let item = rig.arena.hw_read(at, View::Cpu);
            if let Entry::Leaf(_) = rig.hw.decode(item, table.level) {
                rig.arena.poke(at, change(item));
            }
        }
    }
}

/// The table of a scene, as the call finds it.
pub fn prepare<H: Hardware>(scene: &Scene) -> Rig<H> {
    let mut rig = Rig::new(scene.setup);
    for &call in &scene.before {
        apply(&mut rig, call);
    }
    rig
}

/// Every way to cut a leaf of `2^size_lg2` bytes, by where the cut lies: for each alignment that
/// makes a difference the first such place, the last, and some next to the middle, as offsets.
pub fn cuts(rules: &Rules, size_lg2: u32) -> Vec<u64> {
    let size = 1u64 << size_lg2;
    let mut cuts = Vec::new();
    for lg2 in (0..size_lg2).filter(|&lg2| (rules.sizes >> lg2) & 1 == 1) {
        let page = 1u64 << lg2;
        cuts.extend([page, size - page, size / 2 - page, size / 2 + page]);
    }
    cuts.push(size / 2);
    cuts.retain(|&cut| cut != 0 && cut < size);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}
