// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped in one IOAS, in the mappings (areas) that the kernel has.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ranges::{clipped, cut, remove_whole};
use crate::Granularity;

/// First IOVA -> end. With pieces an entry is any number of them, one behind the other, so that
/// there are few entries.
#[derive(Debug)]
pub(super) struct Areas {
    map: BTreeMap<u64, u64>,
    /// Bytes of a piece.
    piece: Option<u64>,
}

impl Areas {
    pub(super) fn new(granularity: Granularity) -> Self {
        let piece = match granularity {
            Granularity::Whole => None,
            Granularity::Pieces(bytes) => Some(bytes),
        };
        Self {
            map: BTreeMap::new(),
            piece,
        }
    }

    /// The mapped parts of `range`, each as long as it can be.
    pub(super) fn runs(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for part in clipped(&self.map, range) {
            match runs.last_mut() {
                Some(run) if run.end == part.start => run.end = part.end,
                _ => runs.push(part),
            }
        }
        runs
    }

    /// The parts of `range` that are not mapped.
    pub(super) fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for run in self.runs(range) {
            gaps.push(at..run.start);
            at = run.end;
        }
        gaps.push(at..range.end);
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// The areas in `range`, whose ends are ends of areas or not mapped.
    pub(super) fn areas(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let entries = clipped(&self.map, range);
        match self.piece {
            None => entries.collect(),
            Some(bytes) => entries
                .flat_map(|e| e.step_by(bytes as usize).map(move |at| at..at + bytes))
                .collect(),
        }
    }

    /// With all of the areas that reach across its ends.
    pub(super) fn widened(&self, range: &Range<u64>) -> Range<u64> {
        if self.piece.is_some() {
            return range.clone();
        }
        let reaching = |at: u64| {
            let before = self.map.range(..at).next_back();
            before.filter(|(_, &end)| end > at)
        };
        let start = reaching(range.start).map_or(range.start, |(&start, _)| start);
        let end = reaching(range.end).map_or(range.end, |(_, &end)| end);
        start..end
    }

    /// In bytes.
    pub(super) fn mapped(&self, range: &Range<u64>) -> u64 {
        clipped(&self.map, range).map(|r| r.end - r.start).sum()
    }

    /// What the kernel maps in the size of this: one area, where memory is mapped whole.
    pub(super) fn step(&self, range: &Range<u64>) -> u64 {
        self.piece.unwrap_or(range.end - range.start)
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if self.piece.is_some() {
            if let Some((_, end)) = self.map.range_mut(..range.start).next_back() {
                if *end == range.start {
                    *end = range.end;
                    return;
                }
            }
        }
        self.map.insert(range.start, range.end);
    }

    /// The edges of `range` are ends of areas now, where they are mapped.
    pub(super) fn split(&mut self, range: &Range<u64>) {
        if self.piece.is_none() {
            cut(&mut self.map, range.start);
            cut(&mut self.map, range.end);
        }
    }

    pub(super) fn remove(&mut self, range: &Range<u64>) {
        cut(&mut self.map, range.start);
        cut(&mut self.map, range.end);
        remove_whole(&mut self.map, range);
    }
}
