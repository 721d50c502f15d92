// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a DMA costs an IOMMU, as a model: the leaves are the kernel's, addresses and IOTLB are made
//! up.
//!
//! Each DMA goes to an address of its own in guest memory, any one as likely as another. A hit of
//! the IOTLB reads no table. A miss reads one item of each level from the top down to the leaf, and
//! the leaf takes the place of the one that was not used for longest: an entry reaches as far as
//! the leaf that it came from. So the figures compare layouts. They do not tell what a machine
//! does: DMA has places that it comes back to, an IOTLB may have fewer ways than entries, and other
//! caches keep items of the upper levels.

use std::ops::Range;

use crate::debugfs::{Leaf, Tables};
use crate::list::Random;
use crate::Result;

/// Of the IOTLB.
const ENTRIES: usize = 64;
/// These fill the IOTLB and are not counted.
const WARM_UP: u64 = 10_000;
const DMAS: u64 = 100_000;

/// Of a page table, each table of which has the size of the smallest page, and items of 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    page_lg2: u32,
    levels: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Walks {
    /// That a walk reads, the mean for all addresses.
    pub(crate) levels: f64,
    /// For each DMA, from 0 to 1.
    pub(crate) misses: f64,
    /// That are read for each DMA: none for one that hits.
    pub(crate) levels_per_dma: f64,
}

impl Shape {
    /// The number of levels is the one with which the leaves need just the tables that there are.
    /// `None` if there is no such number: an empty table is left over.
    pub(crate) fn new(tables: &Tables, leaves: &[Leaf]) -> Option<Self> {
        let mut shape = Self {
            page_lg2: tables.page_sizes.trailing_zeros(),
            levels: 1,
        };
        let least = leaves.iter().map(|l| shape.level(l.size) + 1).max()?;
        let mut below = 0;
        while shape.levels < least || below + 1 < tables.tables {
            below += shape.needed(leaves, shape.levels - 1);
            shape.levels += 1;
        }
        (below + 1 == tables.tables).then_some(shape)
    }

    fn items_lg2(&self) -> u32 {
        self.page_lg2 - 3
    }

    /// Of the table that has a leaf of this size. 0 has the smallest.
    fn level(&self, size: u64) -> u32 {
        (size.ilog2() - self.page_lg2) / self.items_lg2()
    }

    /// Tables of a level, for leaves in order.
    fn needed(&self, leaves: &[Leaf], level: u32) -> u64 {
        let reach = self.page_lg2 + (level + 1) * self.items_lg2();
        let mut last = None;
        let mut count = 0;
        for leaf in leaves.iter().filter(|l| self.level(l.size) <= level) {
            let table = leaf.iova.checked_shr(reach).unwrap_or(0);
            count += u64::from(last != Some(table));
            last = Some(table);
        }
        count
    }

    fn walked(&self, leaf: &Leaf) -> u32 {
        self.levels - self.level(leaf.size)
    }
}

/// Its leaves, the last used first.
struct Iotlb(Vec<u64>);

impl Iotlb {
    /// Whether the leaf was there. It is now.
    fn find(&mut self, leaf: u64, entries: usize) -> bool {
        let found = self.0.iter().position(|l| *l == leaf);
        match found {
            Some(at) => self.0[..=at].rotate_right(1),
            None => {
                self.0.truncate(entries - 1);
                self.0.insert(0, leaf);
            }
        }
        found.is_some()
    }
}

/// For DMA to a range that is all mapped, by leaves in order.
pub(crate) fn walks(shape: &Shape, leaves: &[Leaf], range: Range<u64>, seed: u64) -> Result<Walks> {
    let length = range.end - range.start;
    let (mut mapped, mut levels) = (0, 0);
    for leaf in leaves {
        let (from, end) = (leaf.iova, leaf.iova + leaf.size);
        let bytes = end.min(range.end).saturating_sub(from.max(range.start));
        mapped += bytes;
        levels += bytes * u64::from(shape.walked(leaf));
    }
    if mapped != length {
        return Err(format!(
            "leaves translate {mapped:#x} bytes of the {length:#x} that are mapped"
        ));
    }
    let mut random = Random(seed);
    let mut iotlb = Iotlb(Vec::new());
    let (mut misses, mut read) = (0u64, 0u64);
    for i in 0..WARM_UP + DMAS {
        let leaf = leaf_at(leaves, range.start + random.below(length));
        if !iotlb.find(leaf.iova, ENTRIES) && i >= WARM_UP {
            misses += 1;
            read += u64::from(shape.walked(leaf));
        }
    }
    Ok(Walks {
        levels: levels as f64 / length as f64,
        misses: misses as f64 / DMAS as f64,
        levels_per_dma: read as f64 / DMAS as f64,
    })
}

/// Of leaves in order, one of which has the address.
fn leaf_at(leaves: &[Leaf], iova: u64) -> &Leaf {
    &leaves[leaves.partition_point(|l| l.iova <= iova) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;

    /// From `iova` on.
    fn row(iova: u64, size: u64, count: u64) -> Vec<Leaf> {
        (0..count)
            .map(|i| Leaf {
                iova: iova + i * size,
                size,
            })
            .collect()
    }

    fn shape(page_sizes: u64, tables: u64, leaves: &[Leaf]) -> Option<(u32, u32)> {
        let tables = Tables {
            page_sizes,
            tables,
            ..Tables::default()
        };
        Shape::new(&tables, leaves).map(|s| (s.page_lg2, s.levels))
    }

    #[test]
    fn levels_are_known_by_the_number_of_tables() {
        let sizes = 4 * K | 2 * M | G;
        // The queue of a disk at 16M, and 2G from 4G on: a table of each level for the queue, and
        // the table of leaves of 1G, which is the queue's too.
        let mut leaves = [row(16 * M, 4 * K, 1), row(4 * G, G, 2)].concat();
        assert_eq!(shape(sizes, 3, &leaves), Some((12, 3)));
        assert_eq!(shape(sizes, 4, &leaves), Some((12, 4)));
        assert_eq!(shape(sizes, 5, &leaves), Some((12, 5)));
        assert_eq!(shape(sizes, 2, &leaves), None);
        // A page of the second leaf is 4K now: two tables more.
        leaves.pop();
        leaves.extend(row(5 * G, 4 * K, 512));
        leaves.extend(row(5 * G + 2 * M, 2 * M, 511));
        assert_eq!(shape(sizes, 6, &leaves), Some((12, 4)));
        // On the other side of 512G nothing but the top is common.
        assert_eq!(shape(sizes, 3, &row(4 * G, G, 600)), Some((12, 4)));
        // Two leaves at the ends of two tables: the tables between are not needed.
        let far = [row(0, 2 * M, 1), row(G - 2 * M, 2 * M, 1), row(G, 2 * M, 1)].concat();
        assert_eq!(shape(sizes, 4, &far), Some((12, 4)));
        assert_eq!(shape(sizes, 6, &far), Some((12, 6)));
        // No leaf needs one of these.
        let far = [row(0, 4 * K, 1), row(600 * G, 4 * K, 1)].concat();
        assert_eq!(shape(sizes, 7, &far), Some((12, 4)));
        assert_eq!(shape(sizes, 6, &far), None);
        // Leaves of a table have more sizes than one; pages of 64K have 8192 items a table.
        assert_eq!(shape(!0xfff, 2, &row(0, 64 * K, 1)), Some((12, 2)));
        assert_eq!(shape(!0xfff, 3, &row(0, 512 * M, 1)), Some((12, 4)));
        assert_eq!(
            shape(64 * K | 512 * M, 3, &row(0, 64 * K, 1)),
            Some((16, 3))
        );
        assert_eq!(shape(sizes, 1, &[]), None);
    }

    #[test]
    fn every_address_counts_for_the_levels() {
        let shape = Shape {
            page_lg2: 12,
            levels: 4,
        };
        let levels = |leaves: &[Leaf], range| walks(&shape, leaves, range, 1).map(|w| w.levels);
        assert_eq!(levels(&row(4 * G, G, 2), 4 * G..6 * G), Ok(2.0));
        assert_eq!(levels(&row(4 * G, 2 * M, 512), 4 * G..5 * G), Ok(3.0));
        assert_eq!(levels(&row(4 * G, 4 * K, 512), 4 * G..4 * G + M), Ok(4.0));
        // One half is a leaf of 1G, the other is leaves of 2M, the first of them in pages of 4K.
        let mixed = [
            row(4 * G, G, 1),
            row(5 * G, 4 * K, 512),
            row(5 * G + 2 * M, 2 * M, 511),
        ]
        .concat();
        let want = (2.0 + (511.0 * 3.0 + 4.0) / 512.0) / 2.0;
        assert_eq!(levels(&mixed, 4 * G..6 * G), Ok(want));
        // What is outside does not count.
        let outside = [row(0, 4 * K, 1), mixed, row(6 * G, 4 * K, 1)].concat();
        assert_eq!(levels(&outside, 4 * G..6 * G), Ok(want));
        assert!(levels(&row(4 * G, G, 2), 4 * G..7 * G).is_err());
        assert!(levels(&row(5 * G, G, 2), 4 * G..7 * G).is_err());
    }

    #[test]
    fn a_leaf_has_its_first_and_its_last_byte() {
        let leaves = row(G, 4 * K, 3);
        for leaf in &leaves {
            for at in [leaf.iova, leaf.iova + 1, leaf.iova + leaf.size - 1] {
                assert_eq!(leaf_at(&leaves, at), leaf, "{at:#x}");
            }
        }
    }

    #[test]
    fn the_leaf_that_was_not_used_for_longest_goes() {
        let mut iotlb = Iotlb(Vec::new());
        let mut found = |leaf| iotlb.find(leaf, 2);
        for (leaf, want) in [
            (1, false),
            (2, false),
            (1, true),
            // In place of 2.
            (3, false),
            (1, true),
            (2, false),
            // 3 went, then 1 goes.
            (3, false),
            (2, true),
            (1, false),
        ] {
            assert_eq!(found(leaf), want, "{leaf}");
        }
    }

    #[test]
    fn misses_are_as_many_as_leaves_have_no_entry() {
        let shape = Shape {
            page_lg2: 12,
            levels: 4,
        };
        let of = |size: u64, count: u64| {
            walks(&shape, &row(G, size, count), G..G + size * count, 7).unwrap()
        };
        // As many as there are entries, all of them after the warm-up.
        let all = of(G, ENTRIES as u64);
        assert_eq!((all.misses, all.levels_per_dma), (0.0, 0.0));
        for (size, count, levels) in [(G, 128, 2.0), (2 * M, 256, 3.0), (4 * K, 6400, 4.0)] {
            let w = of(size, count);
            let want = 1.0 - ENTRIES as f64 / count as f64;
            assert!((w.misses - want).abs() < 0.01, "{count}: {w:?}");
            assert!((w.levels_per_dma - want * levels).abs() < 0.03, "{w:?}");
        }
        // Half of memory fits, and takes the entries that the other half leaves it.
        let mixed = [row(0, G, 8), row(8 * G, 4 * K, 8 * G / (4 * K))].concat();
        let w = walks(&shape, &mixed, 0..16 * G, 7).unwrap();
        assert!((0.49..0.52).contains(&w.misses), "{w:?}");
    }
}
