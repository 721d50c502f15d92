// SPDX-License-Identifier: GPL-2.0-only

//! Sequences of all operations, made of arbitrary numbers.
//!
//! The same [`Op`]s run on [`Rig`], which looks at everything all the time, and on [`Lean`], which
//! is quick. `tests/random.rs` has them from proptest, the programs in `fuzz/` from bytes
//! ([`Case`]).

#![forbid(unsafe_code)]

use std::fmt;

use super::arena::Arena;
use super::hw::{Bits, Hardware, OddHw};
use super::lean::Lean;
use super::model::Rules;
use super::rig::{Rig, Setup};
use super::setups::{for_each_format, Choice};
use crate::size::max_offset;
use iotable::fmt::{Format as _, Prot};
use iotable::{Bytes, Error, Joined, Mapped, Result};

/// Leaves that one call may make: more would only take longer.
const MANY: u64 = 1500;

/// A call; numbers are turned into addresses that make sense at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "numbers without a meaning of their own")]
pub enum Op {
    Map {
        place: u8,
        size: u8,
        step: u8,
        shift: u8,
        pages: u16,
        prot: u8,
        fail: Option<u8>,
    },
    Unmap {
        leaf: u16,
        inside: u16,
        leaves: u8,
        pages: u16,
    },
    Split {
        leaf: u16,
        from: u16,
        to_leaf: u8,
        to: u16,
        fail: Option<u8>,
        late: Option<u16>,
    },
    /// As a split, and the range is unmapped.
    Carve {
        leaf: u16,
        from: u16,
        to_leaf: u8,
        to: u16,
        fail: Option<u8>,
        late: Option<u16>,
    },
    /// Joins around some leaf; not from bytes, as [`Lean`] does not know it.
    Join {
        leaf: u16,
        from: u16,
        to_leaf: u8,
        to: u16,
        late: Option<u16>,
    },
    /// Empties a block leaf by leaf, so that its tables stay, and maps it as one leaf.
    Refill {
        leaf: u16,
        size: u8,
    },
    Access {
        leaf: u16,
        at: u16,
        write: bool,
    },
    SetDirty {
        leaf: u16,
    },
    ReadDirty {
        leaf: u16,
        pages: u16,
        clear: bool,
    },
}

/// Bytes of an [`Op`].
pub const OP_BYTES: usize = 12;

impl Op {
    /// The operation that these bytes stand for. Every value is one.
    pub fn from_bytes(bytes: &[u8; OP_BYTES]) -> Op {
        let [kind, flags, ..] = *bytes;
        let n = |i: usize| u16::from_le_bytes([bytes[2 + 2 * i], bytes[3 + 2 * i]]);
        let byte = |i: usize| bytes[2 + i];
        // One in eight.
        let fail = (flags & 7 == 7).then_some((flags >> 3) & 3);
        let flag = flags & 0x80 != 0;
        match kind % 16 {
            0..=3 => Op::Map {
                place: byte(0),
                size: byte(1),
                step: byte(2),
                shift: byte(3),
                pages: n(2),
                prot: byte(6),
                fail,
            },
            4..=6 => Op::Unmap {
                leaf: n(0),
                inside: n(1),
                leaves: byte(4),
                pages: n(3),
            },
            9 | 10 => Op::Carve {
                leaf: n(0),
                from: n(1),
                to_leaf: flags >> 5,
                to: n(2),
                fail,
                late: flag.then_some(n(3)),
            },
            7 | 8 => Op::Split {
                leaf: n(0),
                from: n(1),
                to_leaf: flags >> 5,
                to: n(2),
                fail,
                late: flag.then_some(n(3)),
            },
            11 => Op::Refill {
                leaf: n(0),
                size: byte(2),
            },
            12 | 13 => Op::Access {
                leaf: n(0),
                at: n(1),
                write: flag,
            },
            14 => Op::SetDirty { leaf: n(0) },
            _ => Op::ReadDirty {
                leaf: n(0),
                pages: n(1),
                clear: flag,
            },
        }
    }
}

/// A table with judges.
#[expect(missing_docs, reason = "as in `Rig`")]
pub trait Subject: Sized {
    type Hw: Hardware;
    fn new(setup: Setup) -> Self;
    fn arena(&self) -> &Arena;
    fn rules(&self) -> Rules;
    /// Some leaf of the model.
    fn nth(&self, n: usize) -> Option<(u64, Bits)>;
    fn find(&self, va: u64) -> Option<(u64, Bits)>;
    /// The first leaf that starts at or after `va`.
    fn next(&self, va: u64) -> Option<(u64, Bits)>;
    /// The ends of what is mapped without a gap around `va`.
    fn stretch(&self, va: u64) -> Option<(u64, u64)>;
    fn map(&mut self, va: u64, len: u64, oa: u64, prot: Prot) -> Option<Mapped>;
    fn unmap(&mut self, va: u64, len: u64) -> u64;
    fn split_written(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize>;
    fn carve(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize>;
    /// `None` if it is not judged.
    fn join(&mut self, va: u64, len: u64, late: Option<u64>) -> Option<Result<Joined>>;
    fn access(&mut self, va: u64, write: bool);
    fn set_dirty(&mut self, va: u64) -> Result;
    fn read_dirty(&mut self, va: u64, len: u64, clear: bool);
    fn lookup(&self, va: u64);
    fn finish(self);
}

macro_rules! subject {
    ($subject:ident, $rig:ident => $arena:expr, $model:ident, $join:expr) => {
        impl<H: Hardware> Subject for $subject<H> {
            type Hw = H;
            fn new(setup: Setup) -> Self {
                Self::new(setup)
            }
            fn arena(&self) -> &Arena {
                let $rig = self;
                $arena
            }
            fn rules(&self) -> Rules {
                self.$model.rules
            }
            fn nth(&self, n: usize) -> Option<(u64, Bits)> {
                self.$model.nth(n)
            }
            fn find(&self, va: u64) -> Option<(u64, Bits)> {
                self.$model.find(va)
            }
            fn next(&self, va: u64) -> Option<(u64, Bits)> {
                self.$model.next(va)
            }
            fn stretch(&self, va: u64) -> Option<(u64, u64)> {
                self.$model.stretch(va)
            }
            fn map(&mut self, va: u64, len: u64, oa: u64, prot: Prot) -> Option<Mapped> {
                self.map(va, len, oa, prot)
            }
            fn unmap(&mut self, va: u64, len: u64) -> u64 {
                self.unmap(va, len)
            }
            fn split_written(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize> {
                self.split_written(va, len, late)
            }
            fn carve(&mut self, va: u64, len: u64, late: Option<u16>) -> Result<usize> {
                self.carve(va, len, late)
            }
            fn join(&mut self, va: u64, len: u64, late: Option<u64>) -> Option<Result<Joined>> {
                let join: fn(&mut Self, u64, u64, Option<u64>) -> _ = $join;
                join(self, va, len, late)
            }
            fn access(&mut self, va: u64, write: bool) {
                self.access(va, write);
            }
            fn set_dirty(&mut self, va: u64) -> Result {
                self.set_dirty(va)
            }
            fn read_dirty(&mut self, va: u64, len: u64, clear: bool) {
                self.read_dirty(va, len, clear);
            }
            fn lookup(&self, va: u64) {
                self.lookup(va);
            }
            fn finish(self) {
                self.finish();
            }
        }
    };
}

subject!(Rig, rig => &rig.arena, model, |rig, va, len, late| Some(
    rig.join(va, len, late)
));
subject!(Lean, lean => &lean.rig.arena, runs, |_, _, _, _| None);

/// The allowed sizes in ascending order.
fn sizes(rules: &Rules) -> impl DoubleEndedIterator<Item = u32> + Clone {
    let sizes = rules.sizes;
    (0..64u32).filter(move |lg2| (sizes >> lg2) & 1 == 1)
}

/// A page aligned offset in `0..size`: often near an end or a boundary.
fn offset(n: u16, size: u64, page: u64) -> u64 {
    let pages = size / page;
    let n = u64::from(n);
    let at = match n % 4 {
        0 => n / 4 % 4,
        1 => pages - 1 - n / 4 % pages.min(4),
        2 => pages >> (n / 4 % 20),
        _ => n.wrapping_mul(0x9e37_79b9) % pages,
    };
    at % pages * page
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sequences.
    pub sequences: u64,
    /// Operations, without those that found nothing to act on.
    pub ops: u64,
    /// Of these, maps (a refill is one).
    pub maps: u64,
    /// Unmaps.
    pub unmaps: u64,
    /// Splits, also those that found no leaf to replace.
    pub splits: u64,
    /// Joins, also those that found nothing to join.
    pub joins: u64,
    /// Reads and writes by hardware.
    pub accesses: u64,
    /// Dirty bits set, and ranges read.
    pub dirty: u64,
    /// Allocations that failed.
    pub failures: u64,
    /// Most tables at once.
    pub tables_max: usize,
}

impl Counts {
    /// Nothing yet.
    pub const NONE: Counts = Counts {
        sequences: 0,
        ops: 0,
        maps: 0,
        unmaps: 0,
        splits: 0,
        joins: 0,
        accesses: 0,
        dirty: 0,
        failures: 0,
        tables_max: 0,
    };

    /// Both together.
    pub fn add(&mut self, other: &Counts) {
        self.sequences += other.sequences;
        self.ops += other.ops;
        self.maps += other.maps;
        self.unmaps += other.unmaps;
        self.splits += other.splits;
        self.joins += other.joins;
        self.accesses += other.accesses;
        self.dirty += other.dirty;
        self.failures += other.failures;
        self.tables_max = self.tables_max.max(other.tables_max);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ops={} sequences={} maps={} unmaps={} splits={} joins={} accesses={} dirty={} failures={} \
             tables_max={}",
            self.ops,
            self.sequences,
            self.maps,
            self.unmaps,
            self.splits,
            self.joins,
            self.accesses,
            self.dirty,
            self.failures,
            self.tables_max
        )
    }
}

/// Runs one operation.
pub fn run<S: Subject>(subject: &mut S, op: &Op, counts: &mut Counts) {
    if run_op(subject, op, &mut counts.failures).is_none() {
        return;
    }
    let count = match op {
        Op::Map { .. } | Op::Refill { .. } => &mut counts.maps,
        Op::Unmap { .. } => &mut counts.unmaps,
        Op::Split { .. } | Op::Carve { .. } => &mut counts.splits,
        Op::Join { .. } => &mut counts.joins,
        Op::Access { .. } => &mut counts.accesses,
        Op::SetDirty { .. } | Op::ReadDirty { .. } => &mut counts.dirty,
    };
    *count += 1;
    counts.ops += 1;
    counts.tables_max = counts.tables_max.max(subject.arena().in_use());
}

/// `None` if there was nothing to act on.
fn run_op<S: Subject>(subject: &mut S, op: &Op, failures: &mut u64) -> Option<()> {
    let rules = subject.rules();
    let page = rules.page();
    match *op {
        Op::Map {
            place,
            size,
            step,
            shift,
            pages,
            prot,
            fail,
        } => {
            let count = rules.sizes.count_ones() as usize;
            let lg2 = sizes(&rules).nth(usize::from(size) % count)?;
            let unit = 1u64 << lg2;
            let space_last = max_offset(rules.va_lg2 - u32::from(rules.sign));
            // The start, the middle and the end of the space, and of its upper half.
            let half = space_last / 2 + 1;
            let mut va = match place % 4 {
                0 => 0,
                1 => half,
                2 => space_last.wrapping_sub((8 << lg2) - 1),
                _ => half - unit,
            };
            if rules.sign && place & 4 != 0 {
                va |= !space_last;
            }
            if subject.arena().hw_top().is_some() && place & 8 != 0 {
                // Not far beyond what the first top serves.
                va = 1 << (30 + place / 16);
            }
            va = (va & !(unit - 1)).wrapping_add(u64::from(step % 16) * unit);
            // Leaves that do not fit their size, and those that do.
            let small = u64::from(shift % 4) * page;
            let odd_oa = if shift & 0x30 == 0x30 { page } else { 0 };
            let mut len = match pages % 3 {
                0 => unit * u64::from(pages % 5 + 1),
                1 => page * u64::from(pages % 600 + 1),
                _ => unit * u64::from(pages % 3 + 1) + page * u64::from(pages % 50),
            };
            if odd_oa != 0 {
                len = len.min(MANY * page);
            }
            va = va.wrapping_add(small);
            let oa = (va & space_last & max_offset(rules.oa_lg2 - 1))
                .wrapping_add(if lg2 + 7 < rules.oa_lg2 { unit * 64 } else { 0 })
                .wrapping_add(odd_oa);
            if va != 0 {
                len = len.min(va.wrapping_neg());
            }
            let prot_bits = Prot((prot & 63).into());
            let map = |subject: &mut S| subject.map(va, len, oa, prot_bits);
            let mapped = failing(subject, fail, failures, map);
            // A mapping that no format has was compared too.
            if let Some(mapped) = mapped {
                // As the callers of map do.
                if mapped.result.is_err() && mapped.bytes != Bytes(0) && prot & 128 != 0 {
                    let Bytes(bytes) = mapped.bytes;
                    assert_eq!(subject.unmap(va, bytes), bytes);
                }
            }
        }
        Op::Unmap {
            leaf,
            inside,
            leaves,
            pages,
        } => {
            let (mut va, mut len) = (u64::from(inside) * page, page);
            if let Some((start, bits)) = subject.nth(leaf.into()) {
                let size = 1u64 << bits.size_lg2;
                va = start;
                if inside % 8 == 0 {
                    va += offset(inside / 8, size, page);
                }
                len = match leaves % 8 {
                    0 | 4 => size,
                    1 | 5 => size.saturating_mul(u64::from(leaves / 8) + 1),
                    2 | 6 => offset(pages, size, page) + page,
                    3 => u64::from(pages) * page + page,
                    _ => {
                        // All there is around it.
                        let (first, last) = subject.stretch(start)?;
                        va = first;
                        (last - first).saturating_add(1)
                    }
                };
            }
            len = len.min((u64::MAX - va).saturating_add(1));
            subject.unmap(va, len);
        }
        Op::Split {
            leaf,
            from,
            to_leaf,
            to,
            fail,
            late,
        }
        | Op::Carve {
            leaf,
            from,
            to_leaf,
            to,
            fail,
            late,
        } => {
            let carve = matches!(op, Op::Carve { .. });
            let Some((start, bits)) = subject.nth(leaf.into()) else {
                assert_eq!(subject.split_written(0, page, None), Err(Error::NotMapped));
                return Some(());
            };
            let (va, last) = from_to(subject, (start, bits), from, to_leaf, to);
            let len = (last - va).saturating_add(1);
            if carve && subject.stretch(va).is_none_or(|(_, end)| end < last) {
                // There is something to carve in all of it, else nobody may ask.
                return None;
            }
            let split = |subject: &mut S| {
                if carve {
                    subject.carve(va, len, late)
                } else {
                    subject.split_written(va, len, late)
                }
            };
            if failing(subject, fail, failures, split) == Err(Error::NoMemory) {
                split(subject).expect("a retry");
            }
        }
        Op::Join {
            leaf,
            from,
            to_leaf,
            to,
            late,
        } => {
            let (start, bits) = subject.nth(leaf.into())?;
            let (va, last) = match to_leaf & 0x30 {
                // All there is around it.
                0 => subject.stretch(start)?,
                _ => from_to(subject, (start, bits), from, to_leaf, to),
            };
            let len = (last - va).saturating_add(1);
            let late = late.map(|n| start + offset(n, 1 << bits.size_lg2, page));
            match subject.join(va, len, late)? {
                Ok(_) | Err(Error::NotSupported) => {}
                // Between the halves of a signed space lies what is no IOVA.
                Err(error) => assert_eq!((error, (va ^ last) >> 63), (Error::OutOfRange, 1)),
            }
        }
        Op::Refill { leaf, size } => {
            let (va, bits) = subject.nth(leaf.into())?;
            let larger =
                sizes(&rules).filter(|&lg2| bits.size_lg2 < lg2 && lg2 < bits.size_lg2 + 20);
            let count = larger.clone().count().max(1);
            let lg2 = larger.clone().nth(usize::from(size) % count)?;
            let len = 1u64 << lg2;
            let block = va & !(len - 1);
            let mut inside = Vec::new();
            let mut at = Some(block);
            while let Some((va, bits)) = at.and_then(|at| subject.next(at)) {
                if va - block >= len || inside.len() == 100 {
                    break;
                }
                inside.push((va, 1 << bits.size_lg2));
                at = va.checked_add(1 << bits.size_lg2);
            }
            if inside.len() < 100 {
                for (va, len) in inside {
                    subject.unmap(va, len);
                }
            }
            let rw = Prot::READ.with(Prot::WRITE);
            if subject.map(block, len, 0, rw)?.result.is_ok() {
                assert_eq!(subject.find(va).map(|(start, _)| start), Some(block));
            }
        }
        Op::Access { leaf, at, write } => {
            let (start, bits) = subject.nth(leaf.into())?;
            let va = start + offset(at, 1 << bits.size_lg2, page);
            let granted = if write { bits.write } else { bits.read };
            if granted && !subject.arena().incoherent() {
                subject.access(va, write);
            }
            subject.lookup(va);
            subject.lookup(start.wrapping_sub(1));
        }
        Op::SetDirty { leaf } => {
            let (va, bits) = subject.nth(leaf.into())?;
            let result = subject.set_dirty(va + ((1 << bits.size_lg2) - 1));
            assert_eq!(result.is_ok(), !S::Hw::PRESET);
        }
        Op::ReadDirty { leaf, pages, clear } => {
            let (va, bits) = subject.nth(leaf.into())?;
            let inside = offset(pages, 1 << bits.size_lg2, page);
            let len = (u64::from(pages) * page + page).min(u64::MAX - va - inside);
            subject.read_dirty(va + inside, len, clear);
        }
    }
    Some(())
}

/// A range that begins in a leaf and ends there, or in one of the next: first and last address.
fn from_to<S: Subject>(
    subject: &S,
    (start, bits): (u64, Bits),
    from: u16,
    to_leaf: u8,
    to: u16,
) -> (u64, u64) {
    let page = subject.rules().page();
    let va = start + offset(from, 1 << bits.size_lg2, page);
    let (mut other, mut other_bits) = (start, bits);
    for _ in 0..to_leaf % 4 {
        let end = other + max_offset(other_bits.size_lg2);
        if let Some(next) = end.checked_add(1).and_then(|end| subject.next(end)) {
            (other, other_bits) = next;
        }
    }
    let last = other + offset(to, 1 << other_bits.size_lg2, page) + (page - 1);
    if last < va {
        return (va, va + (page - 1));
    }
    (va, last)
}

/// Runs `body` with its `fail`-th allocation failing, and counts if it came to that.
fn failing<S: Subject, R>(
    subject: &mut S,
    fail: Option<u8>,
    failures: &mut u64,
    body: impl FnOnce(&mut S) -> R,
) -> R {
    subject.arena().fail_at(fail.map(usize::from));
    let result = body(subject);
    if fail.is_some() && !subject.arena().failure_pending() {
        *failures += 1;
    }
    subject.arena().fail_at(None);
    result
}

/// Runs a sequence on a table of its own, until it has `most` tables.
pub fn sequence<S: Subject>(
    setup: Setup,
    ops: impl IntoIterator<Item = Op>,
    most: usize,
) -> Counts {
    let mut subject = S::new(setup);
    let mut counts = Counts {
        sequences: 1,
        ..Counts::NONE
    };
    for op in ops {
        run(&mut subject, &op, &mut counts);
        if subject.arena().in_use() > most {
            break;
        }
    }
    subject.finish();
    counts
}

macro_rules! names {
    ($($name:ident: $hw:ty, $usual:ident;)*) => {
        /// The names of the formats, by number.
        pub const FORMATS: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];
    };
}
for_each_format!(names);

/// Bytes before the operations of a [`Case`].
pub const HEAD_BYTES: usize = 12;

/// A sequence in bytes: the number of the format, three that are ignored, eight for the
/// [`Choice`] of the table, and then [`OP_BYTES`] for each operation.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// A place in [`FORMATS`].
    pub format: usize,
    choice: u64,
    ops: &'a [u8],
}

impl<'a> Case<'a> {
    /// `None` if there are too few bytes.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (head, ops) = bytes.split_at_checked(HEAD_BYTES)?;
        let choice = head[4..].try_into().expect("eight bytes");
        Some(Case {
            format: usize::from(head[0]) % FORMATS.len(),
            choice: u64::from_le_bytes(choice),
            ops,
        })
    }

    /// The operations.
    pub fn ops(&self) -> impl Iterator<Item = Op> + 'a {
        let whole = self.ops.chunks_exact(OP_BYTES);
        whole.map(|bytes| Op::from_bytes(bytes.try_into().expect("whole chunks")))
    }

    fn lean<H: Hardware>(&self, setup: Setup) -> Counts {
        assert_eq!(H::Format::NAME, FORMATS[self.format]);
        // One more call adds a few dozen at most.
        let slots = 512;
        let setup = Setup { slots, ..setup };
        sequence::<Lean<H>>(setup, self.ops(), slots / 4)
    }

    /// Runs it.
    pub fn run(&self) -> Counts {
        let mut choice = Choice::new(self.choice);
        let format = FORMATS[self.format];
        if format == "odd" {
            match choice.below(8) {
                0 => return self.lean::<OddHw<false, true>>(choice.odd()),
                1 => return self.lean::<OddHw<true, false>>(choice.odd()),
                _ => {}
            }
        }
        macro_rules! lean {
            ($($name:ident: $hw:ty, $usual:ident;)*) => {
                $(
                    if format == stringify!($name) {
                        return self.lean::<$hw>(choice.$name());
                    }
                )*
            };
        }
        for_each_format!(lean);
        unreachable!("a format that is not in the list");
    }
}
