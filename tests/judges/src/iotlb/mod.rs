// SPDX-License-Identifier: GPL-2.0-only

//! IOTLBs and paging-structure caches that keep as much as the specifications let them.
//!
//! A cache here takes in, at every point of a run, everything that a walk could find at that point,
//! from the top table and from each table that it remembers, and lets go of nothing until an
//! invalidation must have dropped it. What any real cache holds, filled in whatever order, is a
//! part of this: whether an entry is right, and whether a command drops it, never depends on the
//! other entries. So if no entry here is ever wrong, no cache is.
//!
//! [`Vendor`] has the rules for dropping, each read in the way that is worst for software.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::format;

use super::arena::View;
use super::explore::view::Seen;
use super::hw::{Entry, Hardware, Root};
use crate::size::{block_last, floor, max_offset};

pub mod driver;

/// A cached translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cached {
    /// Its first address.
    pub va: u64,
    /// log2 of its bytes.
    pub size_lg2: u32,
    /// First address and lg2 of the bytes of the leaf that it was made from.
    pub leaf: (u64, u32),
    /// What its first address translates to.
    seen: Seen,
}

impl Cached {
    fn last(&self) -> u64 {
        block_last(self.va, self.size_lg2)
    }

    fn holds(&self, va: u64) -> bool {
        floor(va, self.size_lg2) == self.va
    }

    fn translate(&self, va: u64) -> Seen {
        let (oa, read, write, rest) = self.seen;
        (oa + (va - self.va), read, write, rest)
    }
}

/// A cached table item: where walks for some addresses may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    /// The first address that the item serves.
    pub va: u64,
    /// log2 of the bytes that it serves.
    pub size_lg2: u32,
    /// The table.
    pub table: u64,
    /// Its level.
    level: u8,
    /// The rights of all levels down to it.
    rights: (bool, bool),
}

/// What software sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// For everything.
    All {
        /// Cached table items as well.
        tables: bool,
    },
    /// For a naturally aligned range of `2^size_lg2` bytes.
    Pages {
        /// First address.
        va: u64,
        /// log2 of its bytes.
        size_lg2: u32,
        /// Cached table items as well: VT-d's IH is clear, AMD's PDE or RISC-V's NL set.
        tables: bool,
    },
    /// Arm, for any range.
    Range {
        /// First address.
        va: u64,
        /// Last address.
        last: u64,
        /// Only what was made from leaves of `2^leaf_lg2` bytes (TG and TTL). `None`: from any.
        leaf_lg2: Option<u32>,
        /// Cached table items as well: LEAF is clear.
        tables: bool,
    },
    /// For one address.
    Address {
        /// The address.
        va: u64,
        /// As above.
        tables: bool,
    },
}

/// What a command must have dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Intel VT-d, section 6.5: what lies in the range and is not larger. Table items only if the
    /// range covers all that they serve.
    Vtd {
        /// Largest range that can be given, as lg2 of 4K pages.
        max_mask: u32,
    },
    /// AMD, INVALIDATE_IOMMU_PAGES: never an entry that is larger than the size given.
    Amd,
    /// RISC-V, IOTINVAL.VMA: what was made from a leaf that the address is in.
    Riscv {
        /// The extension for ranges (S).
        range: bool,
        /// The extension for table items (NL); without it, only all table items can be dropped.
        non_leaf: bool,
    },
    /// Arm SMMUv3 with BBML 2 and range invalidation (IHI 0070, 3.21.1.3 and 4.4.1.1): two sizes
    /// at once are no conflict, and a command removes all that overlap; but if it names a level,
    /// only what was made from leaves of that level.
    Smmu {
        /// lg2 of the granule, of which the sizes of levels follow. `None`: a format whose levels
        /// have leaves of several sizes. Then no level is named.
        granule_lg2: Option<u32>,
    },
}

fn overlap(a: (u64, u32), b: (u64, u32)) -> bool {
    let lg2 = a.1.max(b.1);
    floor(a.0, lg2) == floor(b.0, lg2)
}

fn covers(outer: (u64, u32), inner: (u64, u32)) -> bool {
    inner.1 <= outer.1 && overlap(outer, inner)
}

impl Vendor {
    /// Whether a translation must be gone after the command.
    pub fn drops(self, command: Command, entry: &Cached) -> bool {
        let own = (entry.va, entry.size_lg2);
        let range = match command {
            Command::All { .. } => return true,
            Command::Range {
                va, last, leaf_lg2, ..
            } => {
                return va <= entry.last()
                    && entry.va <= last
                    && leaf_lg2.is_none_or(|lg2| lg2 == entry.leaf.1);
            }
            Command::Pages { va, size_lg2, .. } => (va, size_lg2),
            Command::Address { va, .. } => (va, 0),
        };
        match self {
            Vendor::Vtd { .. } | Vendor::Amd => covers(range, own),
            Vendor::Riscv { .. } => overlap(range, entry.leaf),
            Vendor::Smmu { .. } => overlap(range, own),
        }
    }

    /// Whether a table item must be gone after the command.
    pub fn drops_walk(self, command: Command, walk: &Walk) -> bool {
        let own = (walk.va, walk.size_lg2);
        match command {
            Command::All { tables } => tables,
            Command::Pages {
                va,
                size_lg2,
                tables,
            } => {
                let range = (va, size_lg2);
                let hit = match self {
                    Vendor::Vtd { .. } | Vendor::Amd => covers(range, own),
                    Vendor::Riscv { .. } | Vendor::Smmu { .. } => overlap(range, own),
                };
                tables && hit
            }
            Command::Range {
                va, last, tables, ..
            } => tables && va <= block_last(walk.va, walk.size_lg2) && walk.va <= last,
            Command::Address { va, tables } => tables && overlap((va, 0), own),
        }
    }
}

/// What happened in the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Points at which they were filled.
    pub states: u64,
    /// Entries that were taken in, table items included.
    pub fills: u64,
    /// Commands.
    pub commands: u64,
    /// Entries that were dropped.
    pub drops: u64,
    /// Flushes of a leaf that was split, while both the old leaf and pieces of it were cached.
    pub mixed: u64,
}

impl Count {
    /// Adds what happened in others.
    pub fn add(&mut self, other: Count) {
        self.states += other.states;
        self.fills += other.fills;
        self.commands += other.commands;
        self.drops += other.drops;
        self.mixed += other.mixed;
    }
}

/// All that may be cached.
#[derive(Debug)]
pub struct Caches {
    vendor: Vendor,
    entries: HashSet<Cached>,
    walks: HashSet<Walk>,
    /// What went wrong first.
    pub broken: Option<String>,
    /// What happened.
    pub count: Count,
}

impl Caches {
    /// Empty.
    pub fn new(vendor: Vendor) -> Self {
        Caches {
            vendor,
            entries: HashSet::new(),
            walks: HashSet::new(),
            broken: None,
            count: Count::default(),
        }
    }

    fn report(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// The level of the table at `addr`, if a cached table item leads to it.
    pub fn level(&self, addr: u64) -> Option<u8> {
        let leads = |walk: &&Walk| walk.table == addr;
        self.walks.iter().find(leads).map(|walk| walk.level)
    }

    /// Takes in all that walks for `changed` find now. What is new has to be as `right` says, for
    /// the first and the last address of an entry and each of `places` in it.
    pub fn fill<H: Hardware>(
        &mut self,
        root: &Root<'_, H>,
        changed: &[u64],
        places: &[u64],
        views: &[View],
        right: &dyn Fn(u64, Seen) -> bool,
    ) {
        self.count.states += 1;
        let (top, level) = root.start();
        for &va in changed.iter().filter(|&&va| root.canonical(va, level)) {
            let mut from = vec![(top, level, (true, true))];
            let held = self
                .walks
                .iter()
                .filter(|walk| floor(va, walk.size_lg2) == walk.va);
            from.extend(held.map(|walk| (walk.table, walk.level, walk.rights)));
            while let Some((table, level, rights)) = from.pop() {
                for &view in views {
                    let item_lg2 = H::GRANULE_LG2 + H::ITEMS_LG2 * u32::from(level);
                    match root.entry(table, level, va, view) {
                        Entry::Empty => {}
                        Entry::Table { addr, read, write } => {
                            let walk = Walk {
                                va: floor(va, item_lg2),
                                size_lg2: item_lg2,
                                table: addr,
                                level: level - 1,
                                rights: (rights.0 && read, rights.1 && write),
                            };
                            if self.walks.insert(walk) {
                                self.count.fills += 1;
                                from.push((addr, walk.level, walk.rights));
                            }
                        }
                        Entry::Leaf(bits) => {
                            let (read, write) = (bits.read && rights.0, bits.write && rights.1);
                            if !read && !write {
                                continue;
                            }
                            // All of it, or the smallest part.
                            for size_lg2 in [bits.size_lg2, H::GRANULE_LG2] {
                                let first = floor(va, size_lg2);
                                let offset = first & max_offset(bits.size_lg2);
                                self.take(
                                    Cached {
                                        va: first,
                                        size_lg2,
                                        leaf: (floor(va, bits.size_lg2), bits.size_lg2),
                                        seen: (bits.oa + offset, read, write, bits.rest),
                                    },
                                    places,
                                    right,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, entry: Cached, places: &[u64], right: &dyn Fn(u64, Seen) -> bool) {
        if self.entries.insert(entry) {
            self.count.fills += 1;
            if let Some(va) = wrong(&entry, places, right) {
                self.report(format!("{va:#x} was cached as {entry:x?}"));
            }
        }
    }

    /// Reports, without a panic, if an entry is not as `right` says by now.
    pub fn check(&mut self, what: &str, places: &[u64], right: &dyn Fn(u64, Seen) -> bool) {
        let bad = self.entries.iter().find_map(|entry| {
            let va = wrong(entry, places, right)?;
            Some(format!("{what}: {va:#x} is still cached as {entry:x?}"))
        });
        if let Some(bad) = bad {
            self.report(bad);
        }
    }

    /// A command, completed.
    pub fn invalidate(&mut self, command: Command) {
        let (vendor, before) = (self.vendor, self.entries.len() + self.walks.len());
        self.entries.retain(|entry| !vendor.drops(command, entry));
        self.walks.retain(|walk| !vendor.drops_walk(command, walk));
        self.count.commands += 1;
        self.count.drops += (before - self.entries.len() - self.walks.len()) as u64;
    }

    /// A table is about to be freed: nothing may lead there any more.
    pub fn freed(&mut self, table: u64) {
        if self.level(table).is_some() {
            self.report(format!("a walk cache leads to the freed table {table:#x}"));
            self.walks.retain(|walk| walk.table != table);
        }
    }

    /// The leaf `va`, `2^size_lg2` is about to be flushed after a split.
    pub fn note_split(&mut self, va: u64, size_lg2: u32) {
        let old = |entry: &&Cached| entry.size_lg2 == size_lg2 && entry.va == va;
        let piece = |entry: &&Cached| {
            entry.leaf.1 < size_lg2
                && floor(entry.va, size_lg2) == va
                && entry.size_lg2 == entry.leaf.1
        };
        let mixed = self.entries.iter().any(|entry| old(&entry))
            && self.entries.iter().any(|entry| piece(&entry));
        self.count.mixed += u64::from(mixed);
    }
}

/// An address for which the entry is not right.
fn wrong(entry: &Cached, places: &[u64], right: &dyn Fn(u64, Seen) -> bool) -> Option<u64> {
    let inside = places.iter().copied().filter(|&va| entry.holds(va));
    [entry.va, entry.last()]
        .into_iter()
        .chain(inside)
        .find(|&va| !right(va, entry.translate(va)))
}

/// log2 of the smallest aligned range that holds both.
fn range_lg2(first: u64, last: u64) -> u32 {
    64 - (first ^ last).leading_zeros()
}
