// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped in one IOAS, in the mappings (areas) that the kernel has.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ranges::{clipped, cut, remove_whole, Span};
use crate::Granularity;

/// By first IOVA. With pieces an entry is any number of them, one behind the other, so that there
/// are few entries.
///
/// The kernel may have more areas than there are here, never fewer: a join leaves apart what an
/// in-kernel user has pinned across.
#[derive(Debug)]
pub(super) struct Areas {
    map: BTreeMap<u64, Area>,
    /// Bytes of a piece.
    piece: Option<u64>,
}

#[derive(Debug, Clone)]
struct Area {
    end: u64,
    /// All that was mapped by the call that the area is a part of. No two calls that something is
    /// left of have mapped the same range.
    map: Range<u64>,
}

impl Span for Area {
    fn end(&self) -> u64 {
        self.end
    }

    fn set_end(&mut self, end: u64) {
        self.end = end;
    }
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
            before.filter(|(_, area)| area.end > at)
        };
        let start = reaching(range.start).map_or(range.start, |(&start, _)| start);
        let end = reaching(range.end).map_or(range.end, |(_, area)| area.end);
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
            if let Some((_, area)) = self.map.range_mut(..range.start).next_back() {
                if area.end == range.start {
                    area.end = range.end;
                    return;
                }
            }
        }
        let area = Area {
            end: range.end,
            map: range.clone(),
        };
        self.map.insert(range.start, area);
    }

    /// Whether an area reaches across an end of `range`.
    pub(super) fn reach_across(&self, range: &Range<u64>) -> bool {
        self.widened(range) != *range
    }

    /// Whether the kernel can fill the gap: what it is a part of then, by the nearest area on either
    /// side.
    pub(super) fn source_of(&self, gap: &Range<u64>) -> Option<Range<u64>> {
        let reaches = |(_, area): (&u64, &Area)| {
            let reaches = area.map.start <= gap.start && gap.end <= area.map.end;
            reaches.then(|| area.map.clone())
        };
        let below = self.map.range(..gap.start).next_back().and_then(reaches);
        let above = self.map.range(gap.end..).next().and_then(reaches);
        match (below, above) {
            (Some(one), Some(other)) => (one == other).then_some(one),
            (one, other) => one.or(other),
        }
    }

    /// The kernel has filled the gaps of `range` and joined what meets in it.
    pub(super) fn fill(&mut self, range: &Range<u64>) {
        let gaps = self.gaps(range);
        let areas: Vec<_> = gaps
            .into_iter()
            .filter_map(|gap| Some((gap.start, gap.end, self.source_of(&gap)?)))
            .collect();
        for (start, end, map) in areas {
            self.map.insert(start, Area { end, map });
        }
        self.join(range);
    }

    /// What meets in `range`, or at an edge of it, is one area if it was mapped by one call.
    pub(super) fn join(&mut self, range: &Range<u64>) {
        let edges: Vec<u64> = self
            .map
            .range(range.start..=range.end)
            .map(|(&at, _)| at)
            .collect();
        for at in edges {
            let Some(right) = self.map.get(&at).cloned() else {
                continue;
            };
            match self.map.range_mut(..at).next_back() {
                Some((_, left)) if left.end == at && left.map == right.map => left.end = right.end,
                _ => continue,
            }
            self.map.remove(&at);
        }
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
