// SPDX-License-Identifier: GPL-2.0-only

//! The plan of a join against models that count bytes one by one.
//!
//! The worlds are small enough to try every case: pages of 4 bytes, areas of at most a dozen.

use iommufd_split_plan::{blocks, check_hole, follows, reach, Extent, JoinRequest, Refusal, Slice};

const PAGE: usize = 4;
const MAX: u64 = u64::MAX;

#[test]
fn requests() {
    for flags in [2, 3, 1 << 31, u32::MAX] {
        for (reserved, iova, length) in [(0, 0, 0), (1, MAX, MAX), (0, 4096, 4096)] {
            let refused = JoinRequest::new(flags, reserved, iova, length);
            assert_eq!(refused, Err(Refusal::Unsupported));
        }
    }
    for (flags, fills) in [(0, false), (1, true)] {
        let new = |reserved, iova, length| JoinRequest::new(flags, reserved, iova, length);

        assert_eq!(new(1, 0, 0), Err(Refusal::Unsupported));
        assert_eq!(new(0, 1, 0), Err(Refusal::Invalid));
        assert_eq!(new(0, MAX, 2), Err(Refusal::Overflow));
        let request = new(0, MAX - 1, 2).expect("up to the last byte of all");
        assert_eq!(request.fills(), fills);
        let range = Extent {
            first: usize::MAX - 1,
            last: usize::MAX,
        };
        assert_eq!(request.extent(), range);
    }
}

/// Which byte of the pages is at `iova`.
fn byte(slice: Slice, iova: usize) -> usize {
    slice.first_index * PAGE + slice.page_offset + (iova - slice.iova.first)
}

fn slice(first: usize, bytes: usize, start_byte: usize) -> Slice {
    Slice {
        iova: Extent {
            first,
            last: first + bytes - 1,
        },
        first_index: start_byte / PAGE,
        last_index: (start_byte + bytes - 1) / PAGE,
        page_offset: start_byte % PAGE,
    }
}

/// Two slices are one if the first, made longer, has the same bytes at the same places.
#[test]
fn one_goes_on_where_the_other_ends() {
    let mut joined = 0;

    for (start, bytes) in (0..6).flat_map(|start| (1..10).map(move |bytes| (start, bytes))) {
        let left = slice(20, bytes, start);

        for (first, other) in (12..34).flat_map(|first| (0..18).map(move |other| (first, other))) {
            let right = slice(first, 3, other);
            let want = first == left.iova.last + 1 && byte(right, first) == byte(left, first);

            assert_eq!(follows(left, right, PAGE), want, "{left:?} {right:?}");
            joined += usize::from(want);
        }
    }
    assert!(joined > 0);
}

/// What a cut makes is one again.
#[test]
fn a_cut_is_undone() {
    for (start, bytes) in (0..6).flat_map(|start| (2..12).map(move |bytes| (start, bytes))) {
        let whole = slice(20, bytes, start);

        for cut in 21..20 + bytes {
            let (left, right) = whole.cut(cut, PAGE).expect("inside");
            assert!(follows(left, right, PAGE));
            assert!(!follows(right, left, PAGE));
        }
    }
}

#[test]
fn nothing_follows_the_last_byte_of_all() {
    let left = Slice {
        iova: Extent {
            first: usize::MAX - 3,
            last: usize::MAX,
        },
        first_index: 0,
        last_index: 0,
        page_offset: 0,
    };

    assert!(!follows(left, slice(0, 4, 4), PAGE));
}

/// Every leaf that has a byte of the range and lies in the area lies within reach.
#[test]
fn all_leaves_are_within_reach() {
    const END: usize = 32;
    let extents =
        || (0..END).flat_map(|first| (first..END).map(move |last| Extent { first, last }));
    let touches = |a: Extent, b: Extent| a.first <= b.last && b.first <= a.last;

    for sizes in [1, 4, 4 | 16, 1 | 2 | 8, 32] {
        for (area, range) in extents().flat_map(|area| extents().map(move |range| (area, range))) {
            if !touches(area, range) {
                continue;
            }
            let found = reach(range, area, sizes);

            assert!(area.holds(found));
            for size in (0..6).map(|lg2| 1 << lg2).filter(|size| sizes & size != 0) {
                for first in (0..END).step_by(size) {
                    let leaf = Extent {
                        first,
                        last: first + size - 1,
                    };

                    if area.holds(leaf) && touches(leaf, range) {
                        assert!(found.holds(leaf), "{area:?} {range:?} {leaf:?}");
                    }
                }
            }
        }
    }
    // Not all of a large area is read for a small range.
    let area = Extent {
        first: 0,
        last: 0xffff,
    };
    let range = Extent {
        first: 0x1234,
        last: 0x1234,
    };
    let block = Extent {
        first: 0x1200,
        last: 0x12ff,
    };
    assert_eq!(reach(range, area, 0x110), block);
}

/// AMD's format has leaves of up to 2^51 bytes. A join of one page does not read all of a large
/// area for their sake.
#[test]
fn a_small_range_does_not_reach_far() {
    const G1: usize = 1 << 30;
    let area = Extent {
        first: 0,
        last: 1024 * G1 - 1,
    };
    let page = Extent {
        first: 7 * G1 + 0x5000,
        last: 7 * G1 + 0x5fff,
    };
    let block = Extent {
        first: 7 * G1,
        last: 8 * G1 - 1,
    };
    for sizes in [
        0x4020_1000,
        0x000f_ffff_ffff_f000,
        (1 << 39) | (1 << 30) | (1 << 12),
    ] {
        assert_eq!(reach(page, area, sizes), block, "{sizes:#x}");
    }
    let last = 7 * G1 + (1 << 29) - 1;
    let half = Extent { last, ..block };
    let sizes = (1 << 39) | (1 << 29) | (1 << 12);
    assert_eq!(reach(page, area, sizes), half);
    assert_eq!(reach(page, area, 1 << 39), page);
}

/// Blocks make up the range, and no leaf of up to 1G lies in two of them.
#[test]
fn blocks_make_up_the_range() {
    const G1: usize = 1 << 30;
    let top = usize::MAX - G1 + 1;

    for (first, last, count) in [
        (0, 0, 1),
        (0, G1 - 1, 1),
        (G1 - 1, G1, 2),
        (5 * G1 + 4096, 7 * G1 - 1, 2),
        (5 * G1 + 4096, 7 * G1, 3),
        (0, 300 * G1 - 1, 300),
        (top, usize::MAX, 1),
        (top - 1, usize::MAX, 2),
        (usize::MAX, usize::MAX, 1),
    ] {
        let pieces: Vec<Extent> = blocks(Extent { first, last }).take(999).collect();

        assert_eq!(pieces.len(), count);
        assert_eq!((pieces[0].first, pieces[count - 1].last), (first, last));
        assert!(pieces.iter().all(|at| at.first / G1 == at.last / G1));
        assert!(pieces.iter().all(|at| at.first <= at.last));
        assert!(pieces.windows(2).all(|at| at[0].last + 1 == at[1].first));
    }
}

/// The edges of a hole are aligned, or lie where there is an edge already.
#[test]
fn edges_of_holes() {
    for (alignment, granule) in [(1, PAGE), (2, 2), (8, 8)] {
        for (first, last) in
            (0..24usize).flat_map(|first| (first..24).map(move |last| (first, last)))
        {
            for (below, above) in [(false, false), (false, true), (true, false), (true, true)] {
                let is_mapped = |iova| {
                    assert!(iova == first.wrapping_sub(1) || iova == last + 1);
                    (below && iova == first.wrapping_sub(1)) || (above && iova == last + 1)
                };
                let good = (below || first % granule == 0) && (above || (last + 1) % granule == 0);
                let want = if good { Ok(()) } else { Err(Refusal::Invalid) };

                let hole = Extent { first, last };
                assert_eq!(check_hole(hole, alignment, PAGE, is_mapped), want);
            }
        }
    }
    let end = Extent {
        first: usize::MAX - 3,
        last: usize::MAX,
    };
    assert_eq!(check_hole(end, 1, PAGE, |_| unreachable!()), Ok(()));
}
