// SPDX-License-Identifier: GPL-2.0-only

//! What [`Pt::walk`](iotable::Pt::walk) reports, whole and in parts, against what hardware can
//! reach.

#![forbid(unsafe_code)]

use super::hw::{Hardware, Scan};
use super::rig::Rig;
use iotable::{Iova, Level, Seen, Visitor};

/// All that a walk reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// The leaves.
    pub leaves: Vec<Seen>,
    /// The level of each table.
    pub tables: Vec<u8>,
}

impl Visitor for Walked {
    fn leaf(&mut self, leaf: Seen) {
        let last = self.leaves.last().map(|leaf| leaf.va);
        assert!(last.is_none_or(|last| last < leaf.va), "out of order");
        self.leaves.push(leaf);
    }

    fn table(&mut self, level: Level) {
        self.tables.push(level.0);
    }
}

impl<H: Hardware> Rig<H> {
    /// Walks over `va..=last`, with a limit of so many tables for each call.
    pub fn walk(&self, va: u64, last: u64, limit: u32) -> Walked {
        let mut walked = Walked::default();
        let mut next = Some(va);
        let mut calls = 0;
        while let Some(va) = next {
            let part = self.walk_part(va, last, limit, &mut walked);
            assert!(part.is_none_or(|next| va < next && next <= last), "no way");
            next = part;
            calls += 1;
        }
        // A call enters as many as it may, but some of them again, on the way down to where it
        // starts.
        let tables = walked.tables.len() as u32;
        let again = u32::from(self.root().start().1) + 1;
        let each = limit.saturating_sub(again).max(1);
        assert!(calls <= tables.div_ceil(each) + 2, "{calls} calls");
        walked
    }

    fn walk_part(&self, va: u64, last: u64, limit: u32, walked: &mut Walked) -> Option<u64> {
        // A length of 2^64 is none.
        if va == 0 && last == u64::MAX {
            let half = u64::MAX / 2;
            return self.walk_part(0, half, limit, walked).or(Some(half + 1));
        }
        let before = walked.tables.len();
        let lock = self.arena.lock(va, last - va + 1).unwrap();
        let next = self.pt().walk(lock.range(), limit, walked);
        let next = next.map(|Iova(next)| next);
        let entered = (walked.tables.len() - before) as u32;
        assert!(entered <= limit.saturating_add(u32::from(self.root().start().1)));
        next
    }

    /// Panics if a walk reports anything else than what hardware can reach.
    pub(super) fn check_walk(&self, scan: &Scan) {
        let all = self.walk(0, u64::MAX, u32::MAX);
        for (seen, leaf) in all.leaves.iter().zip(&scan.leaves) {
            let seen = (seen.va.0, seen.oa.0, seen.size_lg2);
            let leaf = (leaf.va, leaf.bits.oa, leaf.bits.size_lg2);
            assert_eq!(seen, leaf, "the walk reports another leaf");
        }
        assert_eq!(all.leaves.len(), scan.leaves.len(), "leaves of the walk");
        // The first is the top.
        let mut want: Vec<u8> = scan.tables[1..].iter().map(|at| at.level).collect();
        let mut got = all.tables.clone();
        want.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, want, "tables of the walk");
        // Not the same number each time.
        let limit = (self.arena.allocated() % 7) as u32;
        assert_eq!(self.walk(0, u64::MAX, limit), all, "by {limit} tables");
    }
}
