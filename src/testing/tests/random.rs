// SPDX-License-Identifier: GPL-2.0-only

//! Random sequences of all operations against the model and the hardware.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::vec::Vec;

use crate::fmt::amdv1::features as amdv1;
use crate::fmt::riscv_64::Riscv64;
use crate::fmt::vtdss::Vtdss;
use crate::fmt::x86_64::X86_64;
use crate::fmt::{Features, Prot};
use crate::size::max_offset;
use crate::testing::hw::{Amd, Hardware, OddHw, Riscv, Vtd, X86};
use crate::testing::rig::{Rig, Setup};
use crate::testing::tests::{amd, mock, odd, riscv, rw, x86};
use crate::Error;

/// Leaves that one call may make: more would only take longer.
const MANY: u64 = 1500;

/// A call; numbers are turned into addresses that make sense at that moment.
#[derive(Clone, Debug)]
enum Op {
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

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let fail = || proptest::option::weighted(0.1, 0u8..4);
    let op = prop_oneof![
        4 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<u8>(), fail())
            .prop_map(|(place, size, step, shift, pages, prot, fail)| Op::Map {
                place, size, step, shift, pages, prot, fail
            }),
        2 => (any::<u16>(), any::<u16>(), any::<u8>(), any::<u16>())
            .prop_map(|(leaf, inside, leaves, pages)| Op::Unmap { leaf, inside, leaves, pages }),
        4 => (any::<u16>(), any::<u16>(), any::<u8>(), any::<u16>(), fail(), any::<Option<u16>>())
            .prop_map(|(leaf, from, to_leaf, to, fail, late)| Op::Split {
                leaf, from, to_leaf, to, fail, late
            }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(leaf, size)| Op::Refill { leaf, size }),
        2 => (any::<u16>(), any::<u16>(), any::<bool>())
            .prop_map(|(leaf, at, write)| Op::Access { leaf, at, write }),
        1 => any::<u16>().prop_map(|leaf| Op::SetDirty { leaf }),
        1 => (any::<u16>(), any::<u16>(), any::<bool>())
            .prop_map(|(leaf, pages, clear)| Op::ReadDirty { leaf, pages, clear }),
    ];
    proptest::collection::vec(op, 1..24)
}

/// The allowed sizes in ascending order.
fn sizes<H: Hardware>(rig: &Rig<H>) -> Vec<u32> {
    (0..64)
        .filter(|lg2| (rig.cfg.pgsize_bitmap >> lg2) & 1 == 1)
        .collect()
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

fn run<H: Hardware>(rig: &mut Rig<H>, op: &Op) {
    let page = rig.model.rules.page();
    let coherent = !rig.arena.incoherent();
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
            let sizes = sizes(rig);
            let lg2 = sizes[usize::from(size) % sizes.len()];
            let unit = 1u64 << lg2;
            let rules = rig.model.rules;
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
            if rig.arena.hw_top().is_some() && place & 8 != 0 {
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
            rig.arena.fail_at(fail.map(usize::from));
            let mapped = rig.map(va, len, oa, Prot((prot & 31).into()));
            rig.arena.fail_at(None);
            if let Some(mapped) = mapped {
                // As the callers of map do.
                if mapped.result.is_err() && mapped.bytes != 0 && prot & 128 != 0 {
                    assert_eq!(rig.unmap(va, mapped.bytes), mapped.bytes);
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
            if let Some((start, bits)) = rig.model.nth(leaf.into()) {
                let size = 1u64 << bits.size_lg2;
                va = start;
                if inside % 8 == 0 {
                    va += offset(inside / 8, size, page);
                }
                len = match leaves % 4 {
                    0 => size,
                    1 => size.saturating_mul(u64::from(leaves / 4) + 1),
                    2 => offset(pages, size, page) + page,
                    _ => u64::from(pages) * page + page,
                };
            }
            len = len.min(u64::MAX - va);
            rig.unmap(va, len);
        }
        Op::Split {
            leaf,
            from,
            to_leaf,
            to,
            fail,
            late,
        } => {
            let Some((start, bits)) = rig.model.nth(leaf.into()) else {
                assert_eq!(rig.split(0, page), Err(Error::NotMapped));
                return;
            };
            let va = start + offset(from, 1 << bits.size_lg2, page);
            // It ends in the same leaf or in one of the next.
            let n = usize::from(leaf) % rig.model.count() + usize::from(to_leaf % 4);
            let (other, other_bits) = rig.model.nth(n).unwrap();
            let mut last = other + offset(to, 1 << other_bits.size_lg2, page) + (page - 1);
            if last < va {
                last = va + (page - 1);
            }
            let fail = fail.map(usize::from);
            rig.arena.fail_at(fail);
            let result = rig.split_written(va, last - va + 1, late);
            rig.arena.fail_at(None);
            if result == Err(Error::NoMemory) {
                rig.split_written(va, last - va + 1, late).expect("a retry");
            }
        }
        Op::Refill { leaf, size } => {
            let Some((va, bits)) = rig.model.nth(leaf.into()) else {
                return;
            };
            let larger: Vec<u32> = sizes(rig)
                .into_iter()
                .filter(|&lg2| lg2 > bits.size_lg2 && lg2 < bits.size_lg2 + 20)
                .collect();
            let Some(&lg2) = larger.get(usize::from(size) % larger.len().max(1)) else {
                return;
            };
            let len = 1u64 << lg2;
            let block = va & !(len - 1);
            let inside: Vec<_> = (rig.model.leaves().into_iter())
                .filter(|leaf| leaf.va.wrapping_sub(block) < len)
                .collect();
            if inside.len() < 100 {
                for leaf in inside {
                    rig.unmap(leaf.va, 1 << leaf.bits.size_lg2);
                }
            }
            if rig.map(block, len, 0, rw()).unwrap().result.is_ok() {
                assert_eq!(rig.model.find(va).map(|(start, _)| start), Some(block));
            }
        }
        Op::Access { leaf, at, write } => {
            if let Some((start, bits)) = rig.model.nth(leaf.into()) {
                let va = start + offset(at, 1 << bits.size_lg2, page);
                if coherent && if write { bits.write } else { bits.read } {
                    rig.root().access_tables(va);
                    rig.root().access(va, write).expect("mapped");
                    rig.model.touch(va, write);
                    rig.check();
                }
                rig.lookup(va);
                rig.lookup(start.wrapping_sub(1));
            }
        }
        Op::SetDirty { leaf } => {
            if let Some((va, bits)) = rig.model.nth(leaf.into()) {
                let result = rig.set_dirty(va + ((1 << bits.size_lg2) - 1));
                assert_eq!(result.is_ok(), !H::PRESET);
            }
        }
        Op::ReadDirty { leaf, pages, clear } => {
            if let Some((va, bits)) = rig.model.nth(leaf.into()) {
                let inside = offset(pages, 1 << bits.size_lg2, page);
                let len = (u64::from(pages) * page + page).min(u64::MAX - va - inside);
                rig.read_dirty(va + inside, len, clear);
            }
        }
    }
}

fn sequence<H: Hardware>(setup: Setup, ops: &[Op]) {
    let mut rig = Rig::<H>::new(setup);
    for op in ops {
        run(&mut rig, op);
    }
    rig.finish();
}

/// Always the same cases; with `PROPTEST_CASES=n` that many others each time.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 300;
        config.rng_seed = RngSeed::Fixed(0x7ab1e);
    }
    config
}

fn vtd_features() -> impl Strategy<Value = Features> {
    prop_oneof![
        2 => Just(Features::default()),
        1 => Just(Features::DMA_INCOHERENT),
        1 => Just(Vtdss::FORCE_COHERENCE),
        1 => Just(Vtdss::FORCE_WRITEABLE),
        1 => Just(Features::DMA_INCOHERENT.with(Vtdss::FORCE_COHERENCE)),
    ]
}

/// These stay in AMD's, for the same reason.
const AMD_SIZES: u64 = 0x3_81c0_e070_3800;

/// These stay, or a small hole takes a table for every item.
const ODD_SIZES: u64 = (1 << 12) | (1 << 17) | (1 << 18) | (1 << 23) | (1 << 24) | (1 << 31);

proptest! {
    #![proptest_config(config())]

    #[test]
    fn vtdss(
        ops in ops(),
        features in vtd_features(),
        top in 2u8..=4,
        without in prop_oneof![3 => Just(0u64), 1 => Just(1 << 30), 1 => Just(1 << 12)],
    ) {
        let setup = Setup { slots: 4096, ..Setup::plain(top).with(features).without(without) };
        sequence::<Vtd>(setup, &ops);
    }

    #[test]
    fn odd_format(
        ops in ops(),
        incoherent in any::<bool>(),
        sign in any::<bool>(),
        encrypted in any::<bool>(),
        without in prop_oneof![2 => Just(0u64), 3 => any::<u64>()],
    ) {
        let mut setup = Setup { slots: 4096, ..odd() };
        if incoherent {
            setup = setup.with(Features::DMA_INCOHERENT);
        }
        if !sign {
            setup.params.features.0 &= !Features::SIGN_EXTEND.0;
        }
        if !encrypted {
            setup.params.enc_mask = 0;
        }
        setup.without = without & !ODD_SIZES;
        sequence::<OddHw<true, true>>(setup, &ops);
    }

    #[test]
    fn odd_format_that_cannot_split(ops in ops(), resize in any::<bool>()) {
        // The retry after a failure does not apply: leave failures out.
        let ops: Vec<Op> = ops
            .into_iter()
            .filter(|op| !matches!(op, Op::Split { fail: Some(_), .. }))
            .collect();
        let setup = Setup { slots: 4096, ..odd() };
        if resize {
            sequence::<OddHw<false, true>>(setup, &ops);
        } else {
            sequence::<OddHw<true, false>>(setup, &ops);
        }
    }

    #[test]
    fn x86_64(
        ops in ops(),
        incoherent in any::<bool>(),
        encrypted in any::<bool>(),
        // As VT-d has it, and as AMD has it for what has no PASID.
        (top, sign, va_lg2) in prop_oneof![
            Just((3, true, 48)), Just((4, true, 57)), Just((3, false, 47)), Just((4, false, 56)),
        ],
        without in prop_oneof![3 => Just(0u64), 1 => Just(1 << 30), 1 => Just(1 << 12)],
    ) {
        let mut setup = Setup { slots: 4096, top_level: top, ..x86() }.space(va_lg2);
        if !sign {
            setup.params.features.0 &= !Features::SIGN_EXTEND.0;
        }
        if incoherent {
            setup = setup.with(Features::DMA_INCOHERENT);
        }
        if encrypted {
            setup = setup.with(X86_64::AMD_ENCRYPT_TABLES).encrypted(47);
        }
        sequence::<X86>(setup.without(without), &ops);
    }

    #[test]
    fn amdv1(
        ops in ops(),
        encrypted in any::<bool>(),
        top in 1u8..=5,
        va_lg2 in prop_oneof![2 => Just(64u32), 1 => Just(32), 1 => Just(48), 1 => Just(57)],
        without in prop_oneof![2 => Just(0u64), 3 => any::<u64>()],
    ) {
        let mut setup = Setup { slots: 4096, top_level: top, ..amd() }.space(va_lg2);
        if va_lg2 != 64 {
            setup.params.features.0 &= !Features::FULL_VA.0;
        }
        if !encrypted {
            setup.params.enc_mask = 0;
            setup.params.features.0 &= !amdv1::ENCRYPT_TABLES.0;
        }
        sequence::<Amd<false>>(setup.without(without & !AMD_SIZES), &ops);
    }

    #[test]
    fn amdv1_mock(
        ops in ops(),
        top in 1u8..=4,
        va_lg2 in prop_oneof![2 => Just(56u32), 1 => Just(32), 1 => Just(47)],
        without in prop_oneof![2 => Just(0u64), 3 => any::<u64>()],
    ) {
        let setup = Setup { slots: 4096, top_level: top, ..mock() }.space(va_lg2);
        sequence::<Amd<true>>(setup.without(without & !AMD_SIZES), &ops);
    }

    #[test]
    fn riscv_64(
        ops in ops(),
        napot in any::<bool>(),
        types in any::<bool>(),
        top in 2u8..=4,
        without in prop_oneof![3 => Just(0u64), 1 => Just(1 << 39), 1 => Just(1 << 12)],
    ) {
        let mut setup = Setup { slots: 4096, top_level: top, ..riscv() };
        if !napot {
            setup.params.features.0 &= !Riscv64::SVNAPOT_64K.0;
        }
        if !types {
            setup.params.features.0 &= !Riscv64::SVPBMT.0;
        }
        sequence::<Riscv>(setup.without(without), &ops);
    }
}
