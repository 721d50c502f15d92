// SPDX-License-Identifier: GPL-2.0-only

//! Every state of every format, counted. The tables of counts appear with `--nocapture`.
//!
//! By default every n-th scene is explored. `IOTABLE_EXPLORE=full` explores all scenes of formats
//! whose leaves have the sizes of levels. Of formats with a leaf for each power of two it explores
//! all single edges and every n-th pair of edges. `IOTABLE_EXPLORE=all` leaves nothing out, which
//! takes hours.

use std::println;
use std::time::{Duration, Instant};

use crate::explore::touch::{self, Touches};
use crate::explore::{cuts, everything, full, view, Call, Count, Scene};
use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Vtd, X86};
use crate::model::Rules;
use crate::rig::{Rig, Setup};
use crate::size::max_offset;
use crate::tests::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, rw, x86};
use iotable::can_join;
use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{Features, Format};

type Odd = OddHw<true, true>;

/// Where the leaves of a scene go.
pub(super) struct Place {
    pub(super) rules: Rules,
    pub(super) page: u64,
}

impl Place {
    pub(super) fn new<H: Hardware>(setup: Setup) -> Place {
        let rules = Rig::<H>::new(setup);
        let model = rules.model.rules;
        rules.finish();
        Place {
            rules: model,
            page: model.page(),
        }
    }

    /// The leaf sizes, the smallest page excepted.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u32> + '_ {
        (0..64).filter(|&lg2| (self.rules.sizes >> lg2) & 1 == 1 && 1 << lg2 != self.page)
    }

    /// An address for a leaf: in each half that there is, by turns.
    fn of(&self, size_lg2: u32) -> u64 {
        let size = 1u64 << size_lg2;
        if self.rules.sign && size_lg2 % 2 == 0 {
            return (2 * size).wrapping_neg();
        }
        [size, 0]
            .into_iter()
            .find(|&va| self.rules.in_range(va, va + (size - 1)))
            .unwrap()
    }

    /// A leaf, with another before and behind it, where the space has room, in the same table.
    pub(super) fn with_neighbours(&self, size_lg2: u32) -> Vec<(u64, u32)> {
        let va = self.of(size_lg2);
        let item_lg2 = self.rules.item_lg2(self.rules.level_of(size_lg2));
        let other_lg2 = (self.rules.sizes & max_offset(item_lg2 + 1)).ilog2();
        let other = 1u64 << other_lg2;
        let mut leaves = vec![(va, size_lg2)];
        for at in [va.wrapping_sub(other), va.wrapping_add(1 << size_lg2)] {
            if self.rules.in_range(at, at.wrapping_add(other - 1)) && at != 0 {
                leaves.push((at, other_lg2));
            }
        }
        leaves
    }
}

/// Takes every n-th of many.
#[derive(Clone, Copy)]
pub(super) struct Stride {
    n: usize,
    at: usize,
}

impl Stride {
    /// By default, and for the full exploration; 0: never.
    pub(super) fn of(part: usize, all: usize) -> Stride {
        Stride {
            n: if everything() {
                1
            } else if full() {
                all
            } else {
                part
            },
            at: 0,
        }
    }

    /// Of less, of which more is taken.
    fn dense(self) -> Stride {
        let n = (self.n / 8).clamp(1, 29);
        Stride { n, at: 0 }
    }

    fn times(self, factor: usize) -> Stride {
        let n = if self.n == 1 { 1 } else { self.n * factor };
        Stride { n, at: 0 }
    }

    pub(super) fn take(&mut self) -> bool {
        self.at += 1;
        self.n != 0 && self.at % self.n == 0
    }
}

/// Every pair of edges, of which at least one lies in the leaf, as offsets.
pub(super) fn holes(rules: &Rules, size_lg2: u32) -> Vec<(u64, u64)> {
    let cuts = cuts(rules, size_lg2);
    let size = 1 << size_lg2;
    let mut holes = Vec::new();
    for (n, &low) in cuts.iter().enumerate() {
        holes.extend([(0, low), (low, size)]);
        holes.extend(cuts[n + 1..].iter().map(|&high| (low, high)));
    }
    holes
}

/// The reverse of a split of the leaf, and of all that is around it.
fn join(leaves: &[(u64, u32)]) -> Call {
    let first = leaves.iter().map(|leaf| leaf.0).min().unwrap();
    let last = leaves.iter().map(|leaf| leaf.0 + max_offset(leaf.1));
    Call::Join {
        va: first,
        len: (last.max().unwrap() - first).wrapping_add(1),
    }
}

pub(super) fn split(va: u64, (from, to): (u64, u64)) -> Call {
    Call::Split {
        va: va + from,
        len: to - from,
    }
}

/// Unmaps what `split` cuts out.
pub(super) fn carve(va: u64, (from, to): (u64, u64)) -> Call {
    Call::Carve {
        va: va + from,
        len: to - from,
    }
}

/// Both edges in one leaf, or one of them.
fn splits_of_one_leaf<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        for hole in holes(&place.rules, size_lg2) {
            // Each single cut there is.
            let one = full() && (hole.0 == 0 || hole.1 == 1 << size_lg2);
            if stride.take() || one {
                for call in [split, carve] {
                    let scene = Scene::of_leaves::<H>(setup, &leaves, call(leaves[0].0, hole));
                    count.add(view::explore::<H>(&scene));
                }
            }
        }
    }
    count
}

/// The edges in two leaves of any two sizes, with a page between them or not.
fn splits_of_two_leaves<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    for low_lg2 in place.sizes() {
        for high_lg2 in place.sizes() {
            let (low, high) = (1u64 << low_lg2, 1u64 << high_lg2);
            let at = low.max(high);
            let last = at + (high - 1);
            if !place.rules.in_range(at - low, last) {
                continue;
            }
            let leaves = [(at - low, low_lg2), (at, high_lg2)];
            let page = place.page;
            for first in [page, low / 2, low - page] {
                for end in [page, high / 2, high - page] {
                    if stride.take() {
                        for call in [split, carve] {
                            let call = call(at - low, (first, low + end));
                            let scene = Scene::of_leaves::<H>(setup, &leaves, call);
                            count.add(view::explore::<H>(&scene));
                        }
                    }
                }
            }
        }
    }
    count
}

/// A split next to an older one: of groups that came out of a group, in tables that are there.
fn splits_after_a_split<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        let (va, size) = (leaves[0].0, 1u64 << size_lg2);
        for cut in cuts(&place.rules, size_lg2) {
            let again = [
                (0, place.page),
                (cut - place.page, cut),
                (cut, (cut + place.page).min(size)),
                ((cut / 2) & !(place.page - 1), cut),
                (cut, cut + (((size - cut) / 2) & !(place.page - 1))),
            ];
            for hole in again.into_iter().filter(|hole| hole.0 < hole.1) {
                if stride.take() {
                    for call in [split, carve] {
                        let mut scene = Scene::of_leaves::<H>(setup, &leaves, call(va, hole));
                        scene.before.push(split(va, (0, cut)));
                        count.add(view::explore::<H>(&scene));
                    }
                }
            }
        }
    }
    count
}

/// Into an empty space, in place of empty tables, and as a mix of sizes.
fn maps<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    let page = place.page;
    for size_lg2 in place.sizes() {
        let (va, size) = (place.of(size_lg2), 1u64 << size_lg2);
        let neighbours = place.with_neighbours(size_lg2).split_off(1);
        let oa = va & (size - 1);
        let map = |va, len| Call::Map {
            va,
            len,
            oa: if len == size {
                0
            } else {
                oa + (va & (size - 1))
            },
            prot: rw(),
        };
        let mut explore = |before: &[Call], call| {
            if stride.take() {
                let mut scene = Scene::of_leaves::<H>(setup, &neighbours, call);
                scene.before.extend(before);
                count.add(view::explore::<H>(&scene));
            }
        };
        let large = map(va, size);
        explore(&[], large);
        // Tables that nothing is left in: at the start, at the end, in the middle, everywhere.
        for pages in [
            vec![va],
            vec![va + (size - page)],
            vec![va + size / 2, va],
            vec![va, va + size / 2, va + (size - page)],
        ] {
            let mut before: Vec<Call> = pages.iter().map(|&at| map(at, page)).collect();
            before.extend(pages.iter().map(|&va| Call::Unmap { va, len: page }));
            explore(&before, large);
        }
        // From the middle of one to the middle of the next, in pieces of all sizes.
        for (from, to) in [(page, size), (0, size - page), (page, size - page)] {
            if from < to {
                explore(&[], map(va + from, to - from));
            }
        }
    }
    count
}

/// A leaf, the hole that was cut into it, and all that is left of it.
fn unmaps<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        let (va, size) = (leaves[0].0, 1u64 << size_lg2);
        let unmap = |(from, to)| Call::Unmap {
            va: va + from,
            len: to - from,
        };
        let scene = Scene::of_leaves::<H>(setup, &leaves, unmap((0, size)));
        count.add(view::explore::<H>(&scene));
        for hole in holes(&place.rules, size_lg2) {
            for what in [hole, (0, size)] {
                if stride.take() {
                    let mut scene = Scene::of_leaves::<H>(setup, &leaves, unmap(what));
                    scene.before.push(split(va, hole));
                    count.add(view::explore::<H>(&scene));
                }
            }
        }
    }
    count
}

/// What was split, in one place or in two, comes together again; all of it, or what a part of the
/// range has.
fn joins<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let place = Place::new::<H>(setup);
    let mut count = Count::default();
    // A stride that is no multiple of three, or it takes the same of the calls each time.
    if !can_join::<H::Format>() {
        return count;
    }
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        let (va, size) = (leaves[0].0, 1u64 << size_lg2);
        for hole in holes(&place.rules, size_lg2) {
            for call in [
                join(&leaves),
                join(&leaves[..1]),
                Call::Join {
                    va: va + hole.0,
                    len: hole.1 - hole.0,
                },
            ] {
                if stride.take() {
                    let mut scene = Scene::of_leaves::<H>(setup, &leaves, call);
                    scene.before.push(split(va, hole));
                    if stride.at % 2 == 0 {
                        scene.before.push(split(va, (size / 2, size)));
                    }
                    count.add(view::explore::<H>(&scene));
                }
            }
        }
    }
    count
}

/// Dirty bits are cleared in a leaf and in what a split makes of it.
fn clears<H: Hardware>(setup: Setup, mut stride: Stride) -> Count {
    let mut count = Count::default();
    if H::Format::DIRTY == 0 || setup.params.features.has(Features::DMA_INCOHERENT) {
        return count;
    }
    let place = Place::new::<H>(setup);
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        let (va, size) = (leaves[0].0, 1u64 << size_lg2);
        for hole in holes(&place.rules, size_lg2) {
            if stride.take() {
                let len = size;
                let mut scene = Scene::of_leaves::<H>(setup, &leaves, Call::Clear { va, len });
                scene.before.push(split(va, hole));
                for at in [hole.0, hole.1 - 1, size - 1] {
                    scene.before.push(Call::Write { va: va + at });
                }
                count.add(view::explore::<H>(&scene));
                // A part of it, of one leaf and of several.
                let part = (va + hole.0, hole.1 - hole.0);
                scene
                    .before
                    .retain(|call| !matches!(call, Call::Split { .. }));
                for whole in [true, false] {
                    if !whole {
                        scene.before.push(split(va, (size / 2, size)));
                    }
                    scene.call = Call::Clear {
                        va: part.0,
                        len: part.1,
                    };
                    count.add(view::explore::<H>(&scene));
                }
            }
        }
    }
    count
}

/// Everything, for one kind of table.
fn all<H: Hardware>(setup: Setup, stride: Stride) -> Count {
    let mut count = splits_of_one_leaf::<H>(setup, stride);
    count.add(splits_of_two_leaves::<H>(setup, stride));
    count.add(splits_after_a_split::<H>(setup, stride));
    count.add(maps::<H>(setup, stride.dense()));
    count.add(unmaps::<H>(setup, stride.times(3)));
    count.add(clears::<H>(setup, stride.times(3)));
    count
}

fn few(setup: Setup) -> Setup {
    Setup { slots: 32, ..setup }
}

/// A line of the table.
struct Row {
    name: &'static str,
    count: Count,
    /// There were at least so many states by default, so that nothing is left out unnoticed.
    least: u64,
    time: Duration,
}

fn row<H: Hardware>(name: &'static str, setup: Setup, part: (usize, usize), least: u64) -> Row {
    let start = Instant::now();
    let count = all::<H>(few(setup), Stride::of(part.0, part.1));
    Row {
        name,
        count,
        least,
        time: start.elapsed(),
    }
}

#[test]
fn walks_at_every_point() {
    let incoherent = Features::DMA_INCOHERENT;
    let five = Setup {
        top_level: 4,
        ..riscv()
    };
    let sme = x86().with(X86_64::AMD_ENCRYPT_TABLES).encrypted(51);
    let plain = Setup::plain;
    print(
        "what walks find",
        &[
            row::<Vtd>("vtdss", plain(2), (13, 1), 10_000),
            row::<Vtd>(
                "vtdss, incoherent",
                plain(3).with(incoherent),
                (23, 1),
                5_000,
            ),
            row::<X86>("x86_64", x86(), (17, 1), 10_000),
            row::<X86>("x86_64, incoherent", x86().with(incoherent), (23, 1), 5_000),
            row::<X86>("x86_64, SME", sme, (19, 1), 6_000),
            row::<Amd<false>>("amdv1", plain(5), (4001, 29), 110_000),
            row::<Amd<false>>("amdv1, SME, growing top", amd(), (6007, 61), 45_000),
            row::<Amd<true>>("amdv1_mock", mock(), (4001, 29), 54_000),
            row::<Riscv>("riscv_64", five, (61, 1), 29_000),
            row::<Odd>("odd", odd(), (997, 3), 33_000),
            row::<Odd>("odd, incoherent", odd().with(incoherent), (1999, 7), 23_000),
        ],
    );
}

#[test]
fn armv8_walks_at_every_point() {
    let incoherent = Features::DMA_INCOHERENT;
    print(
        "what walks find",
        &[
            row::<Arm<12>>("armv8, 4K", arm_4k(), (17, 1), 22_000),
            row::<Arm<14>>(
                "armv8, 16K, incoherent",
                arm_16k().with(incoherent),
                (11, 1),
                11_000,
            ),
            row::<Arm<16>>("armv8, 64K, stage 2", arm_64k(), (11, 1), 45_000),
        ],
    );
}

fn print(what: &str, rows: &[Row]) {
    let part = if full() { "in full" } else { "in part" };
    println!("{what}, {part}:");
    println!(
        "{:26}{:>9}{:>12}{:>12}{:>14}{:>7}",
        "", "calls", "states", "visible", "translations", "s"
    );
    for Row {
        name,
        count,
        least,
        time,
    } in rows
    {
        println!(
            "{name:26}{:>9}{:>12}{:>12}{:>14}{:>7.1}",
            count.calls,
            count.states,
            count.seen,
            count.walks,
            time.as_secs_f64()
        );
        assert!(
            count.states >= *least,
            "{name}: fewer states than there were"
        );
    }
}

/// Targets for hardware around a hole in a leaf: each place that differs, and a neighbour.
pub(super) fn targets(leaves: &[(u64, u32)], (from, to): (u64, u64), page: u64) -> Vec<u64> {
    let (va, size) = (leaves[0].0, 1u64 << leaves[0].1);
    let mut targets = vec![va, va + (size - 1)];
    for edge in [from, to]
        .into_iter()
        .filter(|&edge| edge != 0 && edge != size)
    {
        targets.extend([va + edge, va + (edge - page)]);
    }
    targets.extend(leaves.get(1).map(|leaf| leaf.0));
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// How hardware notes A and D, and how much of it is explored.
#[derive(Clone, Copy)]
struct Manner {
    blind: bool,
    compare: bool,
    /// Strides: of holes with one act each, with two, with three.
    strides: [Stride; 3],
}

/// Hardware acts during splits of leaves of every size.
fn touches<H: Hardware>(setup: Setup, manner: Manner) -> touch::Count {
    let place = Place::new::<H>(setup);
    let mut strides = manner.strides;
    let mut count = touch::Count::default();
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        let (va, size) = (leaves[0].0, 1u64 << size_lg2);
        for hole in holes(&place.rules, size_lg2) {
            let (from, to) = hole;
            let part = Call::Unmap {
                va: va + from,
                len: to - from,
            };
            let whole = Call::Clear { va, len: size };
            let map = Call::Map {
                va: va + from,
                len: to - from,
                oa: from,
                prot: rw(),
            };
            let all = targets(&leaves, hole, place.page);
            for (depth, stride) in strides.iter_mut().enumerate() {
                if !stride.take() {
                    continue;
                }
                let most = if full() { [7, 2, 2] } else { [4, 2, 0] };
                let few = &all[..all.len().min(most[depth])];
                let mut scene = Scene::of_leaves::<H>(setup, &leaves, split(va, hole));
                scene.before.pop();
                if H::PRESET {
                    scene.before.push(Call::Unset);
                }
                let mut explore = |scene: &Scene| {
                    let mut touches = Touches::new(scene, few, manner.blind, manner.compare);
                    touches.explore::<H>(depth + 1);
                    count.add(touches.count);
                };
                explore(&scene);
                scene.call = carve(va, hole);
                explore(&scene);
                if depth != 0 {
                    continue;
                }
                // Dirty bits of a part of the leaf, which stays dirty.
                if H::Format::DIRTY != 0 {
                    scene.call = Call::Clear {
                        va: va + from,
                        len: to - from,
                    };
                    explore(&scene);
                }
                // The same for the calls that come after.
                scene.before.push(split(va, hole));
                scene.call = part;
                explore(&scene);
                if H::Format::DIRTY != 0 {
                    scene.call = whole;
                    explore(&scene);
                }
                if hole != (0, size) {
                    scene.before.push(part);
                    scene.call = map;
                    explore(&scene);
                }
            }
        }
    }
    count
}

/// One act at every single point, for some scenes.
fn every_point<H: Hardware>(setup: Setup, size_lg2: u32, hole: (u64, u64), blind: bool) -> u64 {
    let place = Place::new::<H>(setup);
    let leaves = place.with_neighbours(size_lg2);
    let mut scene = Scene::of_leaves::<H>(setup, &leaves, split(leaves[0].0, hole));
    scene.before.pop();
    if H::PRESET {
        scene.before.push(Call::Unset);
    }
    let targets = targets(&leaves, hole, place.page);
    let few = if full() { &targets[..] } else { &targets[..2] };
    let mut touches = Touches::new(&scene, few, blind, false);
    touches.unmerged::<H>();
    touches.count.states
}

fn touches_head() {
    println!("A and D by hardware:");
    println!(
        "{:26}{:>12}{:>10}{:>10}{:>10}{:>7}",
        "", "states", "calls", "raced", "rewalked", "s"
    );
}

fn touches_line(name: &str, least: u64, run: &dyn Fn() -> touch::Count) {
    let start = Instant::now();
    let count = run();
    println!(
        "{name:26}{:>12}{:>10}{:>10}{:>10}{:>7.1}",
        count.states,
        count.calls,
        count.raced,
        count.rewalked,
        start.elapsed().as_secs_f64()
    );
    assert!(
        count.states >= least,
        "{name}: fewer states than there were"
    );
}

fn manner(blind: bool, compare: bool, [a, b, c]: [(usize, usize); 3]) -> Manner {
    Manner {
        blind,
        compare,
        strides: [
            Stride::of(a.0, a.1),
            Stride::of(b.0, b.1),
            Stride::of(c.0, c.1),
        ],
    }
}

// Hardware updates the access flag of a descriptor that it compares with what it walked.
#[test]
fn armv8_accessed_at_every_point() {
    touches_head();
    let line = touches_line;
    let wide = [(29, 3), (71, 7), (0, 73)];
    line("armv8, 4K", 8_700_000, &|| {
        touches::<Arm<12>>(few(arm_4k()), manner(false, true, wide))
    });
    // There are few places to cut, but each takes the time that goes with the size of a table.
    line("armv8, 16K", 450_000, &|| {
        let strides = [(13, 5), (0, 13), (0, 0)];
        touches::<Arm<14>>(few(arm_16k()), manner(false, true, strides))
    });
    if full() {
        line("armv8, 64K", 100_000, &|| {
            let strides = [(0, 13), (0, 0), (0, 0)];
            touches::<Arm<16>>(few(arm_64k()), manner(false, true, strides))
        });
    }
}

#[test]
fn accessed_and_dirty_at_every_point() {
    touches_head();
    let line = touches_line;
    let wide = [(29, 3), (71, 7), (0, 73)];
    line("vtdss", 9_000_000, &|| {
        touches::<Vtd>(few(Setup::plain(2)), manner(true, true, wide))
    });
    line("x86_64", 8_600_000, &|| {
        touches::<X86>(few(x86()), manner(false, true, wide))
    });
    let wide = [(30011, 4001), (80021, 10007), (0, 150001)];
    line("amdv1", 58_000_000, &|| {
        touches::<Amd<false>>(few(amd()), manner(true, true, wide))
    });
    let wide = [(60013, 8009), (0, 20011), (0, 0)];
    line("amdv1_mock", 1_300_000, &|| {
        touches::<Amd<true>>(few(mock()), manner(true, true, wide))
    });
    let wide = [(67, 5), (167, 17), (0, 0)];
    line("riscv_64", 3_890_000, &|| {
        touches::<Riscv>(few(riscv()), manner(false, true, wide))
    });
    let wide = [(9001, 997), (0, 3001), (0, 30011)];
    line("odd", 15_000_000, &|| {
        touches::<Odd>(few(odd()), manner(true, true, wide))
    });
    let mut single = every_point::<Odd>(few(odd()), 17, (1 << 11, 1 << 16), true);
    if full() {
        single += every_point::<Vtd>(few(Setup::plain(2)), 30, (1 << 12, 1 << 13), true);
        single += every_point::<Amd<false>>(few(amd()), 24, (1 << 12, 1 << 22), true);
        single += every_point::<Riscv>(few(riscv()), 21, (1 << 16, 1 << 17), false);
    }
    println!("{single} states one by one, each as the one that stands for it");
    assert!(single > 0);
}

/// Hardware acts once during a join of what was split.
fn touches_of_joins<H: Hardware>(setup: Setup, blind: bool, mut stride: Stride) -> touch::Count {
    let place = Place::new::<H>(setup);
    let mut count = touch::Count::default();
    for size_lg2 in place.sizes() {
        let leaves = place.with_neighbours(size_lg2);
        for hole in holes(&place.rules, size_lg2) {
            if !stride.take() {
                continue;
            }
            let mut scene = Scene::of_leaves::<H>(setup, &leaves, join(&leaves[..1]));
            scene.before.pop();
            if H::PRESET {
                scene.before.push(Call::Unset);
            }
            scene.before.push(split(leaves[0].0, hole));
            let targets = targets(&leaves, hole, place.page);
            let few = &targets[..targets.len().min(3)];
            let mut touches = Touches::new(&scene, few, blind, true);
            touches.explore::<H>(1);
            count.add(touches.count);
        }
    }
    count
}

#[test]
fn joins_at_every_point() {
    fn look<H: Hardware>(name: &str, setup: Setup, (part, all): (usize, usize)) -> u64 {
        let count = joins::<H>(few(setup), Stride::of(part, all));
        println!(
            "{name:26}{:>9}{:>12}{:>12}",
            count.calls, count.states, count.seen
        );
        count.seen
    }
    let incoherent = Features::DMA_INCOHERENT;
    let seen = [
        look::<Vtd>("vtdss", Setup::plain(2), (2, 1)),
        look::<Vtd>(
            "vtdss, incoherent",
            Setup::plain(3).with(incoherent),
            (5, 1),
        ),
        look::<X86>("x86_64", x86(), (5, 1)),
        look::<Amd<false>>("amdv1, growing top", amd(), (3001, 97)),
        look::<Amd<true>>("amdv1_mock", mock(), (2003, 97)),
        look::<Riscv>("riscv_64", riscv(), (7, 1)),
        look::<Odd>("odd", odd(), (499, 17)),
        look::<Odd>("odd, incoherent", odd().with(incoherent), (997, 17)),
    ];
    assert!(seen.iter().sum::<u64>() > 20);
}

#[test]
fn accessed_and_dirty_in_joins() {
    touches_head();
    touches_line("vtdss", 1, &|| {
        touches_of_joins::<Vtd>(few(Setup::plain(2)), true, Stride::of(7, 1))
    });
    touches_line("riscv_64", 1, &|| {
        touches_of_joins::<Riscv>(few(riscv()), false, Stride::of(11, 1))
    });
    touches_line("amdv1", 1, &|| {
        touches_of_joins::<Amd<false>>(few(amd()), true, Stride::of(8009, 401))
    });
    touches_line("amdv1_mock", 1, &|| {
        touches_of_joins::<Amd<true>>(few(mock()), true, Stride::of(20011, 401))
    });
}

/// A page of a leaf of two levels was cut out, and comes back.
fn join_of_two_levels<H: Hardware>(setup: Setup) -> Scene {
    let place = Place::new::<H>(setup);
    let level = |lg2: &u32| place.rules.level_of(*lg2);
    let size_lg2 = place.sizes().find(|lg2| level(lg2) == 2).unwrap();
    let leaves = place.with_neighbours(size_lg2);
    let mut scene = Scene::of_leaves::<H>(setup, &leaves, join(&leaves[..1]));
    scene
        .before
        .push(split(leaves[0].0, (place.page, 2 * place.page)));
    scene
}

#[test]
fn a_join_of_two_levels_is_not_noticed() {
    for setup in [
        Setup::plain(3),
        Setup::plain(3).with(Features::DMA_INCOHERENT),
    ] {
        let count = view::explore::<Vtd>(&join_of_two_levels::<Vtd>(few(setup)));
        assert!(count.seen > 0);
    }
    view::explore::<Amd<false>>(&join_of_two_levels::<Amd<false>>(few(amd())));
    view::explore::<Riscv>(&join_of_two_levels::<Riscv>(few(riscv())));
}

// The controls: a join that empties an item before the leaf is there would be noticed.
#[test]
#[should_panic(expected = ": None")]
fn vtdss_join_through_an_empty_item() {
    let scene = join_of_two_levels::<Vtd>(few(Setup::plain(3)));
    view::explore_through_empty::<Vtd>(&scene);
}

#[test]
#[should_panic(expected = ": None")]
fn amdv1_join_through_an_empty_item() {
    let scene = join_of_two_levels::<Amd<false>>(few(amd()));
    view::explore_through_empty::<Amd<false>>(&scene);
}

#[test]
#[should_panic(expected = ": None")]
fn riscv_64_join_through_an_empty_item() {
    let scene = join_of_two_levels::<Riscv>(few(riscv()));
    view::explore_through_empty::<Riscv>(&scene);
}
