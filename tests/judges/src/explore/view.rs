// SPDX-License-Identifier: GPL-2.0-only

//! What walks find at every point between two steps of a call.
//!
//! The rule is the same for all calls. An address translates as before the call or as after it, and
//! once it was seen as after it stays so; for a split and a join there is no difference between the
//! two, and none for whatever lies outside of the range. Before and after are the model's, for the first and
//! the last byte of each leaf that there is then.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::{expected, prepare, AtFlush, Call, Count, Scene};
use crate::arena::{watch, Event, Step, Store, View};
use crate::hw::{Entry, Hardware, Reach, Root};
use crate::log::{Dirty, Log};
use crate::model::Model;
use crate::size::max_offset;
use iotable::fmt::Format;
use iotable::{Bytes, Level, Oa};

/// What a device can notice of a translation: address, rights, other bits.
pub type Seen = (u64, bool, bool, u64);

/// The translation that the model has.
pub fn seen(model: &Model, va: u64) -> Option<Seen> {
    let (start, bits) = model.find(va)?;
    let granted = bits.read || bits.write;
    granted.then_some((bits.oa + (va - start), bits.read, bits.write, bits.rest))
}

/// An address that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The address.
    pub va: u64,
    /// Before the call.
    pub before: Option<Seen>,
    /// After it.
    pub after: Option<Seen>,
    /// Mixes of views in which it was seen as after.
    done: u64,
}

/// The first and the last byte of each leaf that there is before or after, the bytes next to them,
/// and the first byte of each item.
pub fn probes(before: &Model, after: &Model) -> Vec<Probe> {
    let mut at = BTreeSet::from([0, u64::MAX]);
    for leaf in before.leaves().iter().chain(&after.leaves()) {
        let last = leaf.va + max_offset(leaf.bits.size_lg2);
        at.extend([leaf.va, last]);
        at.extend([leaf.va.wrapping_sub(1), last.wrapping_add(1)]);
        let item = 1 << before.rules.item_lg2(leaf.level);
        at.extend((leaf.va..=last).step_by(item));
    }
    let probe = |va| Probe {
        va,
        before: seen(before, va),
        after: seen(after, va),
        done: 0,
    };
    at.into_iter().map(probe).collect()
}

/// Which tables walks reach, kept up to date from the stores.
pub struct Reachable {
    /// The views that walks may have.
    pub views: &'static [View],
    reach: Reach,
}

/// What a step means for walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Not a step of interest.
    Nothing,
    /// It went to memory that no walk reaches.
    No,
    /// Walks may see it.
    Yes,
}

impl Reachable {
    /// As it is now.
    pub fn new<H: Hardware>(root: &Root<'_, H>) -> Self {
        let views: &[View] = if root.arena.incoherent() {
            &[View::Cpu, View::Memory]
        } else {
            &[View::Cpu]
        };
        Reachable {
            views,
            reach: root.reach(views),
        }
    }

    /// The level of the table at `addr`, if a walk can reach it.
    pub fn level(&self, addr: u64) -> Option<u8> {
        self.reach.tables.get(&addr).copied()
    }

    /// Takes note of a step. Panics if it is one that no call may make.
    pub fn step<H: Hardware>(&mut self, root: &Root<'_, H>, event: Event) -> Notice {
        let table = event.at & !max_offset(H::ITEMS_LG2 + 3);
        let level = self.level(table);
        match event.step {
            Step::Before(Store::Init) => {
                assert_eq!(level, None, "a plain store to a live table");
                Notice::Nothing
            }
            Step::Free => {
                assert_eq!(level, None, "freed while reachable");
                Notice::Nothing
            }
            Step::After(_) | Step::Cleaned => {
                let Some(level) = level else {
                    return Notice::No;
                };
                let link = |&view: &View| {
                    let item = root.arena.hw_read(event.at, view);
                    matches!(root.hw.decode(item, level), Entry::Table { .. })
                };
                let cleaned = event.step == Step::Cleaned && level > 0;
                if cleaned || self.reach.links.contains(&event.at) || self.views.iter().any(link) {
                    self.reach = root.reach(self.views);
                }
                Notice::Yes
            }
            Step::AfterTop => {
                self.reach = root.reach(self.views);
                Notice::Yes
            }
            Step::Read | Step::Before(_) | Step::Alloc | Step::BeforeTop => Notice::Nothing,
        }
    }
}

/// Looks at a table.
struct Eye<'a, H: Hardware> {
    scene: &'a Scene,
    root: Root<'a, H>,
    probes: Vec<Probe>,
    /// By item, the probes whose walks read it: what else is written does not concern them.
    readers: BTreeMap<u64, BTreeSet<usize>>,
    reachable: Reachable,
    tops: usize,
    count: Count,
}

impl<H: Hardware> Eye<'_, H> {
    fn step(&mut self, event: Event) {
        if let (Call::Split { .. }, Step::Before(Store::Set)) = (self.scene.call, event.step) {
            panic!("a split publishes");
        }
        if let (Call::Join { .. }, Step::Before(Store::Set | Store::Init)) =
            (self.scene.call, event.step)
        {
            panic!("a join publishes");
        }
        match self.reachable.step(&self.root, event) {
            Notice::Nothing => {}
            Notice::No => self.count.states += 1,
            Notice::Yes => {
                self.count.states += 1;
                self.count.seen += 1;
                let changed = match event.step {
                    Step::AfterTop => return self.look_at_all(),
                    // As far as it may go.
                    Step::Cleaned => event.at..=event.at | max_offset(H::ITEMS_LG2 + 3),
                    _ => event.at..=event.at,
                };
                let readers = self.readers.range(changed).flat_map(|(_, probes)| probes);
                let readers: BTreeSet<usize> = readers.copied().collect();
                let tops = self.tops();
                for probe in readers {
                    self.look(probe, &tops);
                }
            }
        }
    }

    /// All tops that walks may have begun at.
    fn tops(&self) -> Vec<(u64, u8)> {
        match self.root.arena.tops() {
            tops if tops.is_empty() => vec![self.root.start()],
            tops => tops[self.tops..]
                .iter()
                .map(|top| (top.0, top.1 .0))
                .collect(),
        }
    }

    fn look_at_all(&mut self) {
        let tops = self.tops();
        for probe in 0..self.probes.len() {
            self.look(probe, &tops);
        }
    }

    /// One address, in every mix of views, from every top.
    fn look(&mut self, n: usize, tops: &[(u64, u8)]) {
        let probe = &mut self.probes[n];
        for (i, &(top, level)) in tops.iter().enumerate() {
            let reach = Level(level).above().item_lg2::<H::Format>();
            if i + 1 != tops.len() && probe.va > max_offset(reach) {
                continue;
            }
            for views in 0..self.root.mixes() {
                self.count.walks += 1;
                let hit = self.root.translate_from((top, level), probe.va, views);
                let got = hit.map(|hit| hit.seen());
                let done = (probe.done >> views) & 1 == 1;
                assert!(
                    got == probe.after || got == probe.before && !done,
                    "{:x?}: step {} of {:x?}, views {views:#b}: {got:x?}",
                    self.scene,
                    self.count.states,
                    probe
                );
                if got == probe.after {
                    probe.done |= 1 << views;
                }
            }
        }
        for at in self.root.path(probe.va, self.reachable.views) {
            self.readers.entry(at).or_default().insert(n);
        }
    }
}

/// Makes the call of a scene, looks at every point between two steps, and compares the outcome with
/// the model.
pub fn explore<H: Hardware>(scene: &Scene) -> Count {
    explore_with::<H>(scene, false)
}

/// The same of a call that empties each item before it replaces it, which has to be noticed.
pub fn explore_through_empty<H: Hardware>(scene: &Scene) -> Count {
    explore_with::<H>(scene, true)
}

fn explore_with<H: Hardware>(scene: &Scene, through_empty: bool) -> Count {
    let mut rig = prepare::<H>(scene);
    let after = expected(&rig, scene.call);
    let root = rig.root();
    let mut eye = Eye {
        scene,
        root,
        probes: probes(&rig.model, &after),
        reachable: Reachable::new(&root),
        readers: BTreeMap::new(),
        tops: rig.arena.tops().len().saturating_sub(1),
        count: Count {
            calls: 1,
            ..Count::default()
        },
    };
    eye.look_at_all();
    let mut look = |event: Event| {
        eye.step(event);
        if through_empty && event.step == Step::Before(Store::Publish) {
            let old = root.arena.hw_read(event.at, View::Cpu);
            root.arena.poke(event.at, 0);
            eye.step(Event {
                step: Step::After(Store::Publish),
                ..event
            });
            root.arena.poke(event.at, old);
        }
    };
    match scene.call {
        Call::Split { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let flush = watch(&mut look, || rig.pt().split(lock.range())).unwrap();
            watch(&mut look, || flush.fold_late_dirty()).unwrap();
        }
        Call::Carve { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let mut log = Log::new(root);
            let flush = watch(&mut look, || rig.pt().carve(lock.range(), &mut log)).unwrap();
            watch(&mut look, || flush.fold_late_dirty()).unwrap();
            log.finish();
        }
        Call::Map { va, len, oa, prot } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let attrs = H::Format::attrs(prot, &rig.cfg.params).unwrap();
            let mut log = Log::new(root);
            let done = watch(&mut look, || {
                rig.pt().map(lock.range(), Oa(oa), attrs, &mut log)
            });
            assert_eq!(
                (done.bytes, done.result),
                (Bytes(len), Ok(())),
                "{scene:x?}"
            );
            log.finish();
        }
        Call::Unmap { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let mut log = Log::new(root);
            let done = watch(&mut look, || rig.pt().unmap(lock.range(), &mut log));
            assert_eq!(done, Bytes(len), "{scene:x?}");
            log.finish();
        }
        Call::Join { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let mut flusher = AtFlush::new(&rig.arena, || {});
            let done = watch(&mut look, || rig.pt().join(lock.range(), &mut flusher));
            done.unwrap();
        }
        Call::Clear { va, len } => {
            let lock = rig.arena.lock(va, len).unwrap();
            let mut sink = Dirty::default();
            watch(&mut look, || {
                rig.pt().read_dirty(lock.range(), true, &mut sink)
            })
            .unwrap();
            let want = rig.model.clone().read_dirty(va, va + (len - 1), true);
            assert_eq!(sink.joined(), want.joined(), "{scene:x?}");
        }
        call => panic!("{call:x?} cannot be explored"),
    }
    eye.look_at_all();
    // By now everything is as after the call, whatever was written back.
    for probe in &eye.probes {
        let all = max_offset(root.mixes());
        assert_eq!(probe.done & all, all, "{scene:x?}: {probe:x?} at the end");
    }
    let count = eye.count;
    rig.model = after;
    rig.check();
    rig.finish();
    count
}
