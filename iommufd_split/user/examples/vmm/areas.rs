// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped, as the kernel's areas: to count them, and to know what is shared.

use std::collections::BTreeMap;

/// Offset in guest memory of the first byte -> bytes.
#[derive(Default)]
pub(crate) struct Areas(BTreeMap<u64, u64>);

impl Areas {
    pub(crate) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether every byte is mapped (`true`) or none is (`false`); `None` if it differs.
    pub(crate) fn mapped(&self, offset: u64, length: u64) -> Option<bool> {
        let end = offset + length;
        let before = self.0.range(..offset).next_back();
        let mut at = match before {
            Some((&start, &bytes)) if start + bytes > offset => start + bytes,
            _ => offset,
        };
        let mut any = at > offset;
        for (&start, &bytes) in self.0.range(offset..end) {
            any = true;
            if start != at {
                return None;
            }
            at = start + bytes;
        }
        match any {
            false => Some(false),
            true if at >= end => Some(true),
            true => None,
        }
    }

    /// One more, in memory that is not mapped.
    pub(crate) fn map(&mut self, offset: u64, length: u64) {
        self.0.insert(offset, length);
    }

    /// A hole in memory that one call has mapped, from `unit` on, is filled and joined with what it
    /// was cut out of.
    pub(crate) fn restore(&mut self, offset: u64, length: u64, unit: (u64, u64)) {
        let mut all = offset..offset + length;
        let (first, end) = (unit.0, unit.0 + unit.1);
        if let Some(bytes) = self.0.get(&all.end).copied().filter(|_| all.end < end) {
            self.0.remove(&all.end);
            all.end += bytes;
        }
        let before = self.0.range_mut(first..offset).next_back();
        match before.filter(|(start, bytes)| **start + **bytes == offset) {
            Some((start, bytes)) => *bytes = all.end - start,
            None => self.map(all.start, all.end - all.start),
        }
    }

    /// The mapped range becomes areas of its own, then goes.
    pub(crate) fn carve(&mut self, offset: u64, length: u64) {
        self.cut(offset);
        self.cut(offset + length);
        let gone: Vec<u64> = self
            .0
            .range(offset..offset + length)
            .map(|a| *a.0)
            .collect();
        for start in gone {
            self.0.remove(&start);
        }
    }

    fn cut(&mut self, at: u64) {
        if let Some((&start, bytes)) = self.0.range_mut(..at).next_back() {
            let end = start + *bytes;
            if end > at {
                *bytes = at - start;
                self.0.insert(at, end - at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Random;

    #[test]
    fn what_is_restored_is_one_again() {
        let mut random = Random(5);
        let mut areas = Areas::default();
        for unit in [0, 32] {
            areas.map(unit, 32);
        }
        for _ in 0..1000 {
            let mut holes = Vec::new();
            for _ in 0..8 {
                let from = random.below(64);
                let length = 1 + random.below(32 - from % 32);
                if areas.mapped(from, length) == Some(true) {
                    areas.carve(from, length);
                    holes.push((from, length));
                }
            }
            while !holes.is_empty() {
                let (from, length) = holes.swap_remove(random.below(holes.len() as u64) as usize);
                areas.restore(from, length, (from / 32 * 32, 32));
                assert_eq!(areas.mapped(from, length), Some(true));
            }
            assert_eq!(areas.count(), 2);
        }
    }

    #[test]
    fn agrees_with_a_list_of_pages() {
        let mut random = Random(3);
        let mut areas = Areas::default();
        // For each page the number of the area that it is in.
        let mut pages = [0u64; 64];
        let mut number = 0;
        for _ in 0..20_000 {
            let from = random.below(64);
            let length = 1 + random.below(64 - from);
            let range = from as usize..(from + length) as usize;
            let shared = pages[range.clone()].iter().filter(|p| **p != 0).count() as u64;
            let want = match shared {
                0 => Some(false),
                n if n == length => Some(true),
                _ => None,
            };
            assert_eq!(areas.mapped(from, length), want);
            match want {
                Some(false) => {
                    number += 1;
                    areas.map(from, length);
                    pages[range].fill(number);
                }
                Some(true) => {
                    areas.carve(from, length);
                    let behind = pages.get(range.end).copied();
                    // What is left behind the hole, of an area that reached across it, is one of
                    // its own.
                    if let Some(cut) = behind.filter(|b| *b != 0) {
                        number += 1;
                        for p in &mut pages[range.end..] {
                            if *p == cut {
                                *p = number;
                            }
                        }
                    }
                    pages[range].fill(0);
                }
                None => {}
            }
            let mut ids: Vec<u64> = pages.iter().copied().filter(|p| *p != 0).collect();
            ids.dedup();
            assert_eq!(areas.count(), ids.len() as u64);
        }
    }
}
