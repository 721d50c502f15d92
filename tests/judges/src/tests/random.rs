// SPDX-License-Identifier: GPL-2.0-only

//! Random sequences of all operations against the model and the hardware.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::hw::OddHw;
use crate::lean::Lean;
use crate::model::{Grant, Model, Rules};
use crate::rig::{Rig, Setup};
use crate::runs::Runs;
use crate::sequence::{self, Op, Subject};
use crate::setups::{for_each_format, Choice};

fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
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
        2 => (any::<u16>(), any::<u16>(), any::<u8>(), any::<u16>(), fail(), any::<Option<u16>>())
            .prop_map(|(leaf, from, to_leaf, to, fail, late)| Op::Carve {
                leaf, from, to_leaf, to, fail, late
            }),
        2 => (any::<u16>(), any::<u16>(), any::<u8>(), any::<u16>(), any::<Option<u16>>())
            .prop_map(|(leaf, from, to_leaf, to, late)| Op::Join {
                leaf, from, to_leaf, to, late
            }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(leaf, size)| Op::Refill { leaf, size }),
        2 => (any::<u16>(), any::<u16>(), any::<bool>())
            .prop_map(|(leaf, at, write)| Op::Access { leaf, at, write }),
        1 => any::<u16>().prop_map(|leaf| Op::SetDirty { leaf }),
        1 => (any::<u16>(), any::<u16>(), any::<bool>())
            .prop_map(|(leaf, pages, clear)| Op::ReadDirty { leaf, pages, clear }),
    ];
    proptest::collection::vec(op, 1..most)
}

/// Room for so many tables is enough for a short sequence.
const SLOTS: usize = 4096;

fn on<S: Subject>(setup: Setup, ops: &[Op]) {
    let slots = SLOTS;
    sequence::sequence::<S>(Setup { slots, ..setup }, ops.iter().copied(), slots);
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

macro_rules! random {
    ($($name:ident: $hw:ty, $usual:ident;)*) => {
        /// With all judges.
        mod thorough {
            use super::*;

            proptest! {
                #![proptest_config(config())]

                $(
                    #[test]
                    fn $name(ops in ops(24), choice in any::<u64>()) {
                        on::<Rig<$hw>>(Choice::new(choice).$name(), &ops);
                    }
                )*
            }
        }

        /// The same and longer, with the quick ones.
        mod lean {
            use super::*;

            proptest! {
                #![proptest_config(config())]

                $(
                    #[test]
                    fn $name(ops in ops(240), choice in any::<u64>()) {
                        on::<Lean<$hw>>(Choice::new(choice).$name(), &ops);
                    }
                )*
            }
        }
    };
}
for_each_format!(random);

proptest! {
    #![proptest_config(config())]

    #[test]
    fn odd_format_that_cannot_split(ops in ops(24), resize in any::<bool>()) {
        if resize {
            on::<Rig<OddHw<false, true>>>(Choice::new(0).odd(), &ops);
        } else {
            on::<Rig<OddHw<true, false>>>(Choice::new(0).odd(), &ops);
        }
    }
}

const PAGE: u64 = 1 << 12;

fn rules() -> impl Strategy<Value = Rules> {
    let sizes = prop_oneof![
        Just((1 << 12) | (1 << 21) | (1 << 30)),
        Just((1u64 << 31) - (1 << 12)),
        any::<u64>().prop_map(|sizes| (sizes | PAGE) & ((1 << 31) - PAGE)),
    ];
    (sizes, any::<bool>()).prop_map(|(sizes, sign)| Rules {
        sizes,
        granule_lg2: 12,
        items_lg2: 9,
        va_lg2: 39,
        sign,
        oa_lg2: 40,
    })
}

// Each call, in a space of few pages and leaves, on both.
proptest! {
    #[test]
    fn the_quick_model_is_the_plain_one(
        rules in rules(),
        upper in any::<bool>(),
        calls in proptest::collection::vec(
            (0..6u8, 0..3000u64, 1..2000u64, 0..4u64, any::<bool>()), 1..40),
    ) {
        let (mut plain, mut runs) = (Model::new(rules), Runs::new(rules, 2, false));
        let base = if upper && rules.sign { (1u64 << 38).wrapping_neg() } else { 0 };
        for (call, at, pages, oa, flag) in calls {
            let (va, len) = (base + at * PAGE, pages * PAGE);
            let last = va + (len - 1);
            // Where a leaf starts, more often than not.
            let start = plain.find(va).map_or(va, |(start, _)| start);
            match call {
                0 | 1 => {
                    let grant = Grant { read: true, write: flag, dirty: false, rest: oa };
                    let oa = (at + oa * oa * 512) * PAGE;
                    let want = plain.map(va, len, oa, grant);
                    let (mapped, _) = runs.map(va, len, oa, grant, None);
                    prop_assert_eq!((mapped.bytes.0, mapped.result), want);
                }
                2 => {
                    let gone = plain.unmap(start, last);
                    let bytes: u64 = gone.iter().map(|(_, bits)| 1 << bits.size_lg2).sum();
                    prop_assert_eq!(runs.unmap(start, last).0, bytes);
                }
                3 => {
                    let crossed = plain.crossed(va, len);
                    prop_assert_eq!(&runs.crossed(va, len), &crossed);
                    if let Ok(cuts) = crossed {
                        let tables: usize = cuts.iter().map(|cut| cut.tables).sum();
                        plain.split(va, len);
                        prop_assert_eq!(runs.split(va, len), tables);
                    }
                }
                4 => {
                    prop_assert_eq!(runs.set_dirty(va), plain.set_dirty(va));
                }
                _ => prop_assert_eq!(
                    runs.read_dirty(va, last, flag), plain.read_dirty(va, last, flag)),
            }
            prop_assert!(runs.leaves().eq(plain.leaves()));
            prop_assert_eq!(runs.find(last), plain.find(last));
            prop_assert_eq!(runs.next(va), plain.next(va));
            if plain.find(va).is_some() {
                prop_assert_eq!(runs.stretch(va), plain.stretch(va));
            }
        }
    }
}
