// SPDX-License-Identifier: GPL-2.0-only

//! The plan of a split against models that count bytes one by one.
//!
//! The worlds are small enough to try every case: pages of 4 bytes, areas of at most a dozen.

use iommufd_split_plan::{Cuts, Extent, Parts, Pinned, Pins, Refusal, Request, Shares, Slice};

const PAGE: usize = 4;
const MAX: u64 = u64::MAX;

fn request(first: usize, last: usize) -> Request {
    Request::new(0, 0, first as u64, (last - first + 1) as u64).expect("valid")
}

#[test]
fn unknown_flags_come_first() {
    for (flags, reserved) in [
        (2, 0),
        (3, 0),
        (1 << 31, 0),
        (0, 1),
        (1, 1),
        (u32::MAX, u32::MAX),
    ] {
        for (iova, length) in [(0, 0), (MAX, MAX), (4096, 4096)] {
            assert_eq!(
                Request::new(flags, reserved, iova, length),
                Err(Refusal::Unsupported)
            );
        }
    }
}

#[test]
fn one_flag_unmaps() {
    for (flags, carve) in [(0, false), (1, true)] {
        let request = Request::new(flags, 0, 4096, 8192).expect("valid");
        assert_eq!(request.is_carve(), carve);
        let range = Extent {
            first: 4096,
            last: 12287,
        };
        assert_eq!(request.extent(), range);
        for flags in [flags, 3, 2] {
            let invalid = flags < 2;
            assert_eq!(
                Request::new(flags, 0, 0, 0) == Err(Refusal::Invalid),
                invalid
            );
        }
    }
}

#[test]
fn bounds_of_the_iova_space() {
    assert_eq!(Request::new(0, 0, 0, 0), Err(Refusal::Invalid));
    assert_eq!(Request::new(0, 0, MAX, 0), Err(Refusal::Invalid));
    assert_eq!(Request::new(0, 0, MAX, 2), Err(Refusal::Overflow));
    assert_eq!(Request::new(0, 0, 2, MAX), Err(Refusal::Overflow));
    assert_eq!(Request::new(0, 0, MAX, MAX), Err(Refusal::Overflow));
    // A range may end with the last IOVA of all, but not contain one IOVA more.
    let last_page = Request::new(0, 0, MAX - 4095, 4096).expect("fits").extent();
    assert_eq!(last_page.last, usize::MAX);
    assert_eq!(Request::new(0, 0, MAX - 4095, 4097), Err(Refusal::Overflow));
    let one = Request::new(0, 0, 7, 1).expect("fits").extent();
    assert_eq!((one.first, one.last), (7, 7));
}

#[test]
fn alignment_is_that_of_the_ioas_or_a_page() {
    for (alignment, granule) in [(1, 4096), (2048, 2048), (4096, 4096), (512, 512)] {
        let ok = |iova, length| {
            Request::new(0, 0, iova, length)
                .expect("valid")
                .check_alignment(alignment, 4096, |_| None)
                .is_ok()
        };

        assert!(ok(granule, granule));
        assert!(ok(0, granule * 3));
        assert!(ok(MAX - granule + 1, granule));
        for off in [1, granule / 2, granule - 1, granule + 1] {
            assert!(!ok(off, granule));
            assert!(!ok(granule, off));
            // The end alone would be aligned.
            assert!(!ok(off, granule * 2 - off));
        }
    }
}

/// Every range over every two mappings: what is not aligned is refused if it would cut, or if no
/// mapping ends there.
#[test]
fn an_end_of_a_mapping_need_not_be_aligned() {
    const END: usize = 14;
    let mut seen = [0; 2];

    for bounds in 0..(END * END * END) {
        let (a, b, c) = (bounds % END, bounds / END % END, bounds / END / END);
        // Two mappings, side by side if `hole` is 0.
        for hole in 0..3 {
            if !(a < b && b + hole < c) {
                continue;
            }
            let mappings =
                [(a, b - 1), (b + hole, c - 1)].map(|(first, last)| Extent { first, last });
            let mapping_of = |iova| {
                mappings
                    .into_iter()
                    .find(|m| (m.first..=m.last).contains(&iova))
            };

            for first in 0..END {
                for last in first..END {
                    let left = first % PAGE == 0 || mappings.iter().any(|m| m.first == first);
                    let right = (last + 1) % PAGE == 0 || mappings.iter().any(|m| m.last == last);
                    let asked = request(first, last);
                    let got = asked.check_alignment(1, PAGE, mapping_of);

                    assert_eq!(got.is_ok(), left && right, "{mappings:?} {first}..={last}");
                    seen[usize::from(got.is_ok())] += 1;
                    // So no cut is finer than a page.
                    for cut in mappings
                        .iter()
                        .flat_map(|m| asked.cuts(*m).iter().collect::<Vec<_>>())
                    {
                        assert!(got.is_err() || cut % PAGE == 0);
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen > 1000));
}

#[test]
fn cuts_lie_strictly_inside() {
    for area_first in 0..6 {
        for area_last in area_first..9 {
            let area = Extent {
                first: area_first,
                last: area_last,
            };
            for first in 0..12 {
                for last in first..12 {
                    let cuts = request(first, last).cuts(area);
                    let inside = |cut: usize| (area_first + 1..=area_last).contains(&cut);
                    let want: Vec<_> = [first, last + 1]
                        .into_iter()
                        .filter(|c| inside(*c))
                        .collect();

                    assert_eq!(cuts.iter().collect::<Vec<_>>(), want);
                    assert_eq!(cuts.is_empty(), want.is_empty());
                    if first <= area_last && last >= area_first {
                        let middle = cuts.middle(area);
                        assert_eq!(middle.first, first.max(area_first));
                        assert_eq!(middle.last, last.min(area_last));
                    }
                }
            }
        }
    }
}

#[test]
fn no_cut_behind_the_last_iova() {
    let area = Extent {
        first: usize::MAX - 11,
        last: usize::MAX,
    };
    let cuts = request(usize::MAX - 3, usize::MAX).cuts(area);

    assert_eq!(cuts.left, Some(usize::MAX - 3));
    assert_eq!(cuts.right, None);
    assert_eq!(cuts.middle(area).last, usize::MAX);
}

/// Is there any leaf, of any size, at any place in the area, that holds the bytes on both sides?
fn model_leaf_crosses(area: Extent, bitmap: usize, cuts: Cuts) -> bool {
    (0..6).filter(|lg2| bitmap & (1 << lg2) != 0).any(|lg2| {
        let size = 1 << lg2;

        (0..64).step_by(size).any(|start: usize| {
            let fits = start >= area.first && start + size - 1 <= area.last;

            fits && cuts.iter().any(|cut| start < cut && cut < start + size)
        })
    })
}

#[test]
fn leaf_may_cross_finds_every_leaf() {
    let mut seen = [0; 2];

    for area_first in 0..18 {
        for area_last in area_first..34 {
            let area = Extent {
                first: area_first,
                last: area_last,
            };
            for first in (area_first..=area_last).step_by(2) {
                for last in (first..=area_last).step_by(3) {
                    let cuts = request(first, last).cuts(area);
                    for bitmap in 1..64 {
                        let may = cuts.leaf_may_cross(area, bitmap);

                        assert_eq!(
                            may,
                            model_leaf_crosses(area, bitmap, cuts),
                            "{area:?} {bitmap:#x} {cuts:?}"
                        );
                        seen[usize::from(may)] += 1;
                    }
                }
            }
        }
    }
    assert!(seen[0] > 1000 && seen[1] > 1000);
}

#[test]
fn leaf_may_cross_at_the_ends_of_the_iova_space() {
    let all = Extent {
        first: 0,
        last: usize::MAX,
    };
    let middle = Cuts {
        left: Some(1 << 40),
        right: None,
    };

    assert!(middle.leaf_may_cross(all, 1 << 63));
    assert!(middle.leaf_may_cross(all, 1 << 41));
    assert!(!middle.leaf_may_cross(all, 1 << 40));
    assert!(!middle.leaf_may_cross(all, 0));
}

/// Which byte of the pages belongs to each IOVA.
fn bytes(slice: Slice) -> Vec<(usize, usize)> {
    (slice.iova.first..=slice.iova.last)
        .map(|iova| {
            let byte = iova - slice.iova.first + slice.page_offset + slice.first_index * PAGE;
            (iova, byte)
        })
        .collect()
}

fn check_indexes(slice: Slice) {
    let all = bytes(slice);
    let (_, first) = all[0];
    let (_, last) = all[all.len() - 1];

    assert!(slice.page_offset < PAGE);
    assert_eq!(slice.first_index, first / PAGE);
    assert_eq!(slice.last_index, last / PAGE);
}

fn parts(parts: Parts) -> Vec<Slice> {
    [parts.below, Some(parts.middle), parts.above]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_iova_keeps_its_byte() {
    let mut parts_seen = [0; 4];

    for first_iova in [0, 5, 8] {
        for length in 1..14 {
            for first_index in 0..3 {
                for page_offset in 0..PAGE {
                    let last_byte = first_index * PAGE + page_offset + length - 1;
                    let area = Slice {
                        iova: Extent {
                            first: first_iova,
                            last: first_iova + length - 1,
                        },
                        first_index,
                        last_index: last_byte / PAGE,
                        page_offset,
                    };
                    check_indexes(area);
                    for first in 0..22 {
                        for last in first..22 {
                            let cuts = request(first, last).cuts(area.iova);
                            let all = area.cut_all(cuts, PAGE).expect("inside");
                            assert_eq!(all.middle.iova, cuts.middle(area.iova));
                            let parts = parts(all);

                            assert_eq!(parts.len(), cuts.iter().count() + 1);
                            parts.iter().for_each(|part| check_indexes(*part));
                            let joined: Vec<_> =
                                parts.iter().flat_map(|part| bytes(*part)).collect();
                            assert_eq!(joined, bytes(area));
                            let starts: Vec<_> =
                                parts[1..].iter().map(|part| part.iova.first).collect();
                            assert_eq!(starts, cuts.iter().collect::<Vec<_>>());
                            parts_seen[parts.len()] += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(parts_seen[1..].iter().all(|seen| *seen > 1000));
}

#[test]
fn a_cut_outside_is_refused() {
    let area = Slice {
        iova: Extent { first: 8, last: 15 },
        first_index: 0,
        last_index: 1,
        page_offset: 0,
    };

    for cut in [0, 7, 8, 16, 17, usize::MAX] {
        assert_eq!(area.cut(cut, PAGE), None);
    }
    assert!(area.cut(9, PAGE).is_some());
    assert!(area.cut(15, PAGE).is_some());
}

/// Six pages from index 3 on, that start and end in the middle of a page if `ragged`.
fn area_of_pages(ragged: bool) -> Slice {
    let page_offset = if ragged { 2 } else { 0 };
    Slice {
        iova: Extent {
            first: 40 + page_offset,
            last: 40 + 6 * PAGE - 1 - page_offset,
        },
        first_index: 3,
        last_index: 8,
        page_offset,
    }
}

/// A pin as whoever made it sees it: bytes of IOVA from the start of the first page.
#[derive(Clone, Copy)]
struct Pin {
    /// Through the area that is cut, or through another one.
    own: bool,
    lock: bool,
    first: usize,
    last: usize,
}

/// What the pages and the area know of these pins.
fn recorded(area: Slice, pins: &[Pin]) -> (Pins, Vec<Pinned>) {
    let mut own = Pins::default();
    let mut nodes: Vec<Pinned> = Vec::new();
    for pin in pins {
        let one = Pins {
            accesses: 1,
            locks: u32::from(pin.lock),
        };
        let add = |pins: &mut Pins| {
            pins.accesses += one.accesses;
            pins.locks += one.locks;
        };
        if pin.own {
            add(&mut own);
        }
        let (first, last) = (
            area.first_index * PAGE + pin.first,
            area.first_index * PAGE + pin.last,
        );
        let key = (first / PAGE, last / PAGE);
        match nodes
            .iter_mut()
            .find(|node| (node.first_index, node.last_index) == key)
        {
            Some(node) => add(&mut node.pins),
            None => nodes.push(Pinned {
                first_index: key.0,
                last_index: key.1,
                pins: one,
            }),
        }
    }
    (own, nodes)
}

/// Every pair of pins and every pair of cuts: a share is given only if it is the true one, and a
/// pin of the area that is cut is always refused.
#[test]
fn pins_go_where_they_are() {
    let (mut given, mut refused) = (0, 0);
    for ragged in [false, true] {
        let area = area_of_pages(ragged);
        // What can be pinned starts at a page. The last byte may be anywhere.
        let mut kinds = Vec::new();
        for first in (0..6 * PAGE).step_by(PAGE) {
            for last in first..6 * PAGE {
                for (own, lock) in [(true, false), (true, true), (false, false), (false, true)] {
                    let inside = first >= area.page_offset && last < 6 * PAGE - area.page_offset;
                    if !own || inside {
                        let pin = Pin {
                            own,
                            lock,
                            first,
                            last,
                        };
                        kinds.push(pin);
                    }
                }
            }
        }
        let base = area.iova.first - area.page_offset;
        for (n, a) in kinds.iter().enumerate() {
            for b in kinds.iter().skip(n) {
                let pins = [*a, *b];
                let (own, nodes) = recorded(area, &pins);
                for (left, right) in [(4, 12), (8, 10), (6, 20), (0, 9), (5, 24), (12, 16), (3, 7)]
                {
                    let cuts = request(base + left, base + right - 1).cuts(area.iova);
                    let parts = area.cut_all(cuts, PAGE).expect("inside");
                    let got = Shares::new(area, parts, own, nodes.iter().copied());
                    let mut want = Shares::default();
                    let mut torn = false;
                    for pin in pins.iter().filter(|pin| pin.own) {
                        let holds = |cut: Slice| {
                            cut.iova.first <= base + pin.first && base + pin.last <= cut.iova.last
                        };
                        let share = if parts.below.is_some_and(holds) {
                            &mut want.below
                        } else if holds(parts.middle) {
                            &mut want.middle
                        } else if parts.above.is_some_and(holds) {
                            &mut want.above
                        } else {
                            torn = true;
                            continue;
                        };
                        share.accesses += 1;
                        share.locks += u32::from(pin.lock);
                    }
                    match got {
                        Ok(got) => {
                            assert!(!torn, "a pin was cut");
                            assert_eq!(got, want);
                            given += 1;
                        }
                        Err(refusal) => {
                            assert_eq!(refusal, Refusal::Busy);
                            // Nobody else pins the pages, and the cuts are at pages: then it is
                            // known where each pin is.
                            let sure = a.own && b.own && left % PAGE == 0 && right % PAGE == 0;
                            assert!(torn || !sure, "could be told");
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(given > 1000 && refused > 1000, "{given} {refused}");
}

/// An area without pins is cut whatever others pin; and one with pins where others pin as well,
/// if all are in one part.
#[test]
fn pins_of_others_do_not_matter_if_no_own_one_can_be_meant() {
    let area = area_of_pages(false);
    let parts = area
        .cut_all(request(48, 55).cuts(area.iova), PAGE)
        .expect("inside");
    let pin = |own, page: usize| Pin {
        own,
        lock: false,
        first: page * PAGE,
        last: page * PAGE + 3,
    };
    let shares = |pins: &[Pin]| {
        let (own, nodes) = recorded(area, pins);
        Shares::new(area, parts, own, nodes.into_iter())
    };
    let one = Pins {
        accesses: 1,
        locks: 0,
    };
    let none = Shares::default();

    assert_eq!(shares(&[pin(false, 1), pin(false, 2)]), Ok(none));
    let torn = Pin {
        last: 12,
        ..pin(false, 0)
    };
    assert_eq!(shares(&[torn]), Ok(none));
    let above = Shares { above: one, ..none };
    assert_eq!(shares(&[pin(true, 5), pin(false, 5)]), Ok(above));
    assert_eq!(shares(&[pin(true, 5), pin(false, 4)]), Ok(above));
    let below = Shares { below: one, ..none };
    assert_eq!(shares(&[pin(false, 0), pin(true, 1)]), Ok(below));
    let middle = Shares {
        middle: one,
        ..none
    };
    assert_eq!(shares(&[pin(false, 2), pin(true, 3)]), Ok(middle));
    assert_eq!(shares(&[pin(true, 5), pin(false, 0)]), Err(Refusal::Busy));
    assert_eq!(shares(&[pin(true, 5), torn]), Err(Refusal::Busy));
}
