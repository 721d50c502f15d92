// SPDX-License-Identifier: GPL-2.0-only

//! A join, compared with the model, the hardware and the accounts.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::still::{marked_after_cleaning, still};
use super::Rig;
use crate::arena::{watch, Arena, Event, Step, Store, View};
use crate::hw::{Hardware, Hit, Root, TableAt};
use crate::size::max_offset;
use iotable::{Error, Flusher, Joined, RawTable, Result, Stale};

/// Flushes at once. A device writes through what it has cached just before that is flushed.
struct Flushes<'a, H: Hardware> {
    root: Root<'a, H>,
    places: BTreeMap<u64, TableAt>,
    stale: Vec<Stale>,
    /// The address that it writes to, and the item that it has cached.
    late: Option<(u64, u64)>,
    freed: usize,
}

impl<H: Hardware> Flushes<'_, H> {
    /// Whether what is flushed has all of a block.
    fn covers(&self, stale: Stale, va: u64, size_lg2: u32) -> bool {
        let mut first = va;
        if self.root.sign && stale.va.0 >> 63 == 1 {
            first |= !max_offset(self.root.va_lg2);
        }
        stale.va.0 <= first && first + max_offset(size_lg2) <= stale.last.0
    }
}

impl<H: Hardware> Flusher<Arena> for Flushes<'_, H> {
    fn flush(&mut self, stale: Stale) {
        if let Some((_, item)) = self.late.filter(|(va, _)| self.covers(stale, *va, 0)) {
            self.root.arena.hw_set(item, H::DIRTY);
            self.late = None;
        }
        self.stale.push(stale);
    }

    fn free(&mut self, table: RawTable<Arena>) {
        let addr = table.ptr().as_ptr() as u64;
        let place = self.places[&addr];
        let stale = *self.stale.last().expect("freed before a flush");
        assert!(
            self.covers(stale, place.va, place.size_lg2),
            "{stale:x?} does not cover the freed {place:x?}"
        );
        assert_ne!(
            stale.leaf_levels & (1 << place.level),
            0,
            "level of old leaves"
        );
        assert_ne!(
            stale.table_levels & (2 << place.level),
            0,
            "level of old table items"
        );
        let reachable = self.root.reachable(&[View::Cpu, View::Memory]);
        assert!(
            !reachable.contains(&addr),
            "freed while hardware reaches it"
        );
        self.root.arena.free_gathered(table);
        self.freed += 1;
    }
}

/// A device that writes to `va` just before the exchange with this number.
pub struct Used {
    va: u64,
    exchange: usize,
    /// How many exchanges there were.
    pub exchanges: usize,
    wrote: bool,
}

impl Used {
    /// Uses `va` before that exchange.
    pub fn new(va: u64, exchange: usize) -> Self {
        Used {
            va,
            exchange,
            exchanges: 0,
            wrote: false,
        }
    }

    /// Sets what hardware sets on the way, and in the leaf.
    fn before_exchange<H: Hardware>(&mut self, root: &Root<'_, H>) {
        if self.exchanges == self.exchange {
            root.access_tables(self.va);
            if H::DIRTY != 0 && !H::PRESET {
                let hit = root.translate_any(self.va).expect("it is mapped");
                root.arena.hw_set(hit.item, H::DIRTY);
                self.wrote = true;
            }
        }
        self.exchanges += 1;
    }
}

impl<H: Hardware> Rig<H> {
    /// Addresses in what lies in the range, each with what it translates to.
    fn probes_within(&self, va: u64, len: u64) -> Vec<(u64, Option<Hit>)> {
        let mut probes = self.probes(va, len);
        let last = va.wrapping_add(len).wrapping_sub(1);
        let leaves = self.model.leaves();
        let inside: Vec<_> = leaves
            .iter()
            .filter(|leaf| va <= leaf.va && leaf.va <= last)
            .collect();
        let root = self.root();
        for leaf in inside.iter().step_by(inside.len() / 24 + 1) {
            for at in [leaf.va, leaf.va + max_offset(leaf.bits.size_lg2)] {
                probes.push((at, root.translate_any(at)));
            }
        }
        probes
    }

    /// Joins, with a look at the table after each store. With `late`, a device writes to that
    /// address, which is mapped, through a cached copy of the leaf.
    pub fn join(&mut self, va: u64, len: u64, late: Option<u64>) -> Result<Joined> {
        self.join_used(va, len, late, None)
    }

    /// As [`join`](Self::join), with a device that walks the table just before an exchange.
    pub fn join_used(
        &mut self,
        va: u64,
        len: u64,
        late: Option<u64>,
        mut used: Option<&mut Used>,
    ) -> Result<Joined> {
        let last = va.wrapping_add(len).wrapping_sub(1);
        let probes = self.probes_within(va, len);
        let (before, tables) = (self.model.count(), self.tables());
        let lock = self.arena.lock(va, len).unwrap();
        let root = self.root();
        let cached = late
            .filter(|_| H::DIRTY != 0 && !H::PRESET && !self.arena.incoherent())
            .and_then(|at| Some((at, root.translate_any(at)?.item)));
        let scan = root.scan(View::Cpu).tables;
        let mut flushes = Flushes {
            root,
            places: scan.into_iter().map(|at| (at.addr, at)).collect(),
            stale: Vec::new(),
            late: cached,
            freed: 0,
        };
        let mut look = |event: Event| {
            marked_after_cleaning(&root, event);
            match event.step {
                Step::After(Store::Publish) | Step::Cleaned => still(&root, &probes),
                Step::Before(Store::Publish) => {
                    if let Some(used) = &mut used {
                        used.before_exchange(&root);
                    }
                }
                Step::Before(_) | Step::After(_) => panic!("{:?} in a join", event.step),
                _ => {}
            }
        };
        let allocated = self.arena.allocated();
        let result = watch(&mut look, || self.pt().join(lock.range(), &mut flushes));
        assert_eq!(self.arena.allocated(), allocated, "a join allocated");
        drop(lock);
        let written = cached.is_some() && flushes.late.is_none();
        let (flushed, freed) = (flushes.stale.len(), flushes.freed);
        let done = result?;
        self.model.join(va, last);
        if let (true, Some(at)) = (written, late) {
            self.model.set_dirty(at);
        }
        if let Some(used) = used.filter(|used| used.wrote) {
            self.model.set_dirty(used.va);
        }
        assert_eq!((done.flushes, done.tables), (flushed, freed));
        assert_eq!(self.tables() + freed, tables);
        assert!(self.model.count() <= before);
        self.check();
        Ok(done)
    }

    /// Joins, and somebody who does not hold the lock changes an item just before the exchange with
    /// this number. `false` if there is none.
    pub fn join_raced(&mut self, va: u64, len: u64, exchange: usize) -> bool {
        let probes = self.probes_within(va, len);
        let in_use = self.arena.in_use();
        let lock = self.arena.lock(va, len).unwrap();
        let root = self.root();
        let scan = root.scan(View::Cpu).tables;
        let mut flushes = Flushes {
            root,
            places: scan.into_iter().map(|at| (at.addr, at)).collect(),
            stale: Vec::new(),
            late: None,
            freed: 0,
        };
        let bit = H::FOREIGN;
        let (mut exchanges, mut changed) = (0, None);
        let mut look = |event: Event| {
            if event.step == Step::Before(Store::Publish) {
                if exchanges == exchange {
                    let old = root.arena.hw_read(event.at, View::Cpu);
                    root.arena.poke(event.at, old ^ bit);
                    changed = Some((event.at, old));
                }
                exchanges += 1;
            }
        };
        let result = watch(&mut look, || self.pt().join(lock.range(), &mut flushes));
        let freed = flushes.freed;
        let Some((item, old)) = changed else {
            assert!(result.is_ok());
            return false;
        };
        assert_eq!(result, Err(Error::Raced), "exchange {exchange}");
        let now = root.arena.hw_read(item, View::Cpu);
        assert_eq!(now, old ^ bit, "the change of another is gone");
        root.arena.poke(item, old);
        still(&root, &probes);
        assert_eq!(self.arena.in_use() + freed, in_use);
        true
    }
}
