// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A set of addresses, as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// First address -> end. No range is empty, and none touches the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// The parts of `range` that are in the set.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        clipped(&self.0, range).collect()
    }

    pub(super) fn contains(&self, range: &Range<u64>) -> bool {
        self.within(range) == [range.clone()]
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        let mut all = range;
        // A range that ends where this one starts is before it in the map.
        if let Some((&start, &end)) = self.0.range(..all.start).next_back() {
            if end >= all.start {
                all = start..all.end.max(end);
            }
        }
        while let Some((&start, &end)) = self.0.range(all.start..=all.end).next() {
            self.0.remove(&start);
            all.end = all.end.max(end);
        }
        self.0.insert(all.start, all.end);
    }

    pub(super) fn remove(&mut self, range: &Range<u64>) {
        cut(&mut self.0, range.start);
        cut(&mut self.0, range.end);
        remove_whole(&mut self.0, range);
    }
}

/// What a map has for a range that starts at its key.
pub(super) trait Span: Clone {
    fn end(&self) -> u64;
    fn set_end(&mut self, end: u64);
}

impl Span for u64 {
    fn end(&self) -> u64 {
        *self
    }

    fn set_end(&mut self, end: u64) {
        *self = end;
    }
}

/// The parts of `range` that are in ranges of `map`, in order.
pub(super) fn clipped<'a, S: Span>(
    map: &'a BTreeMap<u64, S>,
    range: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> + 'a {
    let Range { start, end } = range.clone();
    let before = map.range(..start).next_back();
    before
        .into_iter()
        .chain(map.range(start..end))
        .map(move |(&s, e)| s.max(start)..e.end().min(end))
        .filter(|r| !r.is_empty())
}

/// The range that reaches across `at` becomes two.
pub(super) fn cut<S: Span>(map: &mut BTreeMap<u64, S>, at: u64) {
    if let Some((_, span)) = map.range_mut(..at).next_back() {
        if span.end() > at {
            let behind = span.clone();
            span.set_end(at);
            map.insert(at, behind);
        }
    }
}

/// Removes the ranges that start in `range`; none reaches across an end of it.
pub(super) fn remove_whole<S>(map: &mut BTreeMap<u64, S>, range: &Range<u64>) {
    while let Some((&start, _)) = map.range(range.clone()).next() {
        map.remove(&start);
    }
}
