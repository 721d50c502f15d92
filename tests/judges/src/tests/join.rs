// SPDX-License-Identifier: GPL-2.0-only

//! The way back: what a join makes, and what it costs. [`Rig::join`] compares it with the model and
//! looks at the table after each store.

use super::{amd, arm_4k, mock, odd, riscv, rw, x86, G1, K4, M2};
use crate::hw::{Amd, Arm, Hardware, OddHw, Riscv, Vtd, X86};
use crate::rig::{Rig, Setup, Used};
use crate::size::max_offset;
use iotable::fmt::{Features, Prot};
use iotable::{Error, Joined};

/// 1G, of which one page is missing, was filled again in pages: one store, one flush.
#[test]
fn a_hole_is_closed() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(3));
    rig.map_ok(0, G1, 8 * G1, rw());
    let whole = rig.leaves();
    rig.carve(5 * M2 + K4, K4, None).unwrap();
    let nothing = rig.join(0, G1, None).unwrap();
    assert_eq!(nothing, Joined::default());
    rig.map_ok(5 * M2 + K4, K4, 8 * G1 + 5 * M2 + K4, rw());
    assert_eq!(rig.leaves().len(), 511 + 512);
    let done = rig.join(0, G1, None).unwrap();
    let want = Joined {
        leaves: 1,
        tables: 2,
        flushes: 1,
    };
    assert_eq!(done, want);
    assert_eq!(rig.leaves(), whole);
    assert_eq!(rig.join(0, G1, None), Ok(Joined::default()), "again");
    rig.finish();
}

/// The memory that came back is another: what is around it is joined as far as it can be.
#[test]
fn other_memory_stays_apart() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(3));
    rig.map_ok(0, G1, 8 * G1, rw());
    rig.carve(5 * M2, M2, None).unwrap();
    rig.map_ok(5 * M2, M2, 16 * G1 + K4, rw());
    rig.split(7 * M2 + K4, K4).unwrap();
    let done = rig.join(0, G1, None).unwrap();
    assert_eq!((done.leaves, done.tables, done.flushes), (1, 1, 1));
    assert_eq!(rig.leaves().len(), 511 + 512);
    rig.finish();
}

/// AMD has no leaves of 512G. Two tables of that size are one leaf of 1T all the same, and one of
/// them is two of 256G.
#[test]
fn a_size_is_missing() {
    let (g512, t1) = (512 * G1, 1024 * G1);
    let mut rig = Rig::<Amd<false>>::new(amd());
    rig.map_ok(t1, t1, 2 * t1, rw());
    rig.split(t1 + 5 * M2 + K4, K4).unwrap();
    rig.join(t1, t1, None).unwrap();
    assert_eq!(rig.leaves().len(), 1);
    rig.split(t1 + 5 * M2 + K4, K4).unwrap();
    rig.split(t1 + g512 + K4, K4).unwrap();
    rig.join(t1, g512, None).unwrap();
    let sizes: Vec<u32> = rig.leaves().iter().map(|at| at.bits.size_lg2).collect();
    assert_eq!(sizes[..3], [38, 38, 12]);
    rig.join(t1, t1, Some(t1 + g512)).unwrap();
    assert_eq!(rig.leaves().len(), 1);
    rig.finish();
}

/// Many tables below one item: still one store and one flush, and every table comes back.
#[test]
fn a_subtree_goes_as_a_whole() {
    let mut setup = Setup::plain(3);
    setup.slots = 128;
    let mut rig = Rig::<Vtd>::new(setup);
    rig.map_ok(0, 2 * G1, 8 * G1, rw());
    for n in 0..24 {
        rig.split(21 * n * M2 + K4, K4).unwrap();
    }
    let done = rig.join(0, 2 * G1, Some(63 * M2 + 5 * K4)).unwrap();
    assert_eq!((done.leaves, done.tables, done.flushes), (1, 25, 1));
    assert_eq!(rig.leaves().len(), 2);
    rig.finish();
}

/// Many subtrees share a flush, and more of them than that are more flushes.
#[test]
fn flushes() {
    for (blocks, flushes) in [(1, 1), (8, 1), (9, 2), (20, 3)] {
        let mut setup = Setup::plain(2);
        // Nothing larger than 2M.
        setup.without = G1;
        let mut rig = Rig::<Vtd>::new(setup);
        rig.map_ok(0, 64 * M2, G1, rw());
        for n in 0..blocks {
            rig.split(2 * n * M2 + K4, K4).unwrap();
        }
        let done = rig.join(0, 64 * M2, Some(K4)).unwrap();
        assert_eq!(
            (done.leaves, done.tables),
            (blocks as usize, blocks as usize)
        );
        assert_eq!(done.flushes, flushes);
        assert_eq!(rig.leaves().len(), 64);
        rig.finish();
    }
}

/// What reaches out of the range is not touched.
#[test]
fn only_within_the_range() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(3));
    rig.map_ok(0, 2 * G1, 8 * G1, rw());
    rig.split(M2 + K4, K4).unwrap();
    rig.split(G1 + K4, K4).unwrap();
    assert_eq!(rig.join(K4, 2 * G1 - K4, None).unwrap().leaves, 2);
    assert_eq!(rig.join(M2, G1 - M2, None), Ok(Joined::default()));
    assert_eq!(rig.join(0, G1 - K4, None), Ok(Joined::default()));
    assert_eq!(rig.join(0, G1, None).unwrap().leaves, 1);
    assert_eq!(rig.leaves().len(), 2);
    rig.finish();
}

/// Rights that differ, and bits that hardware ignores.
#[test]
fn what_differs_stays_apart() {
    let mut rig = Rig::<Vtd>::new(Setup::plain(2));
    for n in 0..512 {
        let prot = if n == 100 { Prot::READ } else { rw() };
        rig.map_ok(n * K4, K4, G1 + n * K4, prot);
    }
    assert_eq!(rig.join(0, M2, None), Ok(Joined::default()));
    rig.unmap(100 * K4, K4);
    rig.map_ok(100 * K4, K4, G1 + 100 * K4, rw());
    assert_eq!(rig.join(0, M2, None).unwrap().tables, 1);
    rig.finish();
}

/// A dirty page makes the leaf dirty, wherever it is, and so does one that is written to before the
/// flush.
#[test]
fn dirty_bits() {
    fn check<H: Hardware>(setup: Setup, tables: u64, early: Option<u64>, late: Option<u64>) {
        let mut rig = Rig::<H>::new(setup);
        let len = tables * M2;
        rig.map_ok(0, len, G1, rw());
        for n in 0..tables {
            rig.split(n * M2 + K4, K4).unwrap();
        }
        if let Some(va) = early {
            rig.access(va, true);
        }
        rig.join(0, len, late).unwrap();
        rig.read_dirty(0, len, true);
        rig.finish();
    }
    // Of one table what is set is known when it has been read; several are read once more.
    for (tables, at) in [
        (1, [0, K4, 77 * K4, M2 - K4].as_slice()),
        (4, &[0, K4, 77 * K4, M2 - K4, M2, 3 * M2 + 5 * K4]),
        // Three flushes.
        (
            20,
            &[
                5 * M2,
                8 * M2 - K4,
                8 * M2,
                13 * M2 + K4,
                16 * M2 - K4,
                19 * M2 + 7 * K4,
            ],
        ),
    ] {
        for &at in at {
            for (early, late) in [
                (Some(at), None),
                (None, Some(at)),
                (Some(at), Some((M2 - at % M2) % (tables * M2))),
            ] {
                check::<Vtd>(Setup::plain(2), tables, early, late);
                check::<Amd<false>>(amd(), tables, early, late);
                check::<Amd<true>>(mock(), tables, early, late);
            }
        }
    }
}

/// Tables that become leaves, leaves that become a contiguous one, and both at once, in `check` of a
/// format: how to map, where to split, and an address in the last part.
macro_rules! each_exchange {
    ($check:ident) => {
        let page = 1 << 11;
        $check::<Vtd>(Setup::plain(2), 2 * M2, &[K4, M2 + K4], 2 * M2 - K4);
        $check::<Vtd>(Setup::plain(3), G1, &[5 * M2 + K4], G1 - 1);
        $check::<X86>(x86(), M2, &[K4], M2 - 1);
        $check::<Riscv>(riscv(), M2, &[K4], M2 - 1);
        $check::<Amd<false>>(amd(), 4 * K4, &[K4], 4 * K4 - 1);
        $check::<Amd<false>>(amd(), 4 * M2, &[K4, 3 * M2 + K4], 4 * M2 - 1);
        $check::<Amd<true>>(mock(), 2 << 20, &[page], (2 << 20) - 1);
        $check::<OddHw<true, true>>(odd(), 8 * page, &[2 * page], 8 * page - 1);
        $check::<OddHw<true, true>>(odd(), 4 << 18, &[(1 << 18) + page], (4 << 18) - 1);
    };
}

/// One leaf that was split.
fn cut<H: Hardware>(setup: Setup, len: u64, cuts: &[u64]) -> Rig<H> {
    let mut rig = Rig::<H>::new(Setup { slots: 64, ..setup });
    rig.map_ok(0, len, 0, rw());
    for &va in cuts {
        rig.split(va, rig.model.rules.page()).unwrap();
    }
    rig
}

/// A device writes just before an exchange, anywhere: what it sets makes the exchange fail, or is
/// in the table that goes. No dirty bit is lost.
#[test]
fn a_device_writes_before_an_exchange() {
    fn check<H: Hardware>(setup: Setup, len: u64, cuts: &[u64], end: u64) {
        for va in [0, cuts[0], end] {
            for exchange in 0.. {
                let mut used = Used::new(va, exchange);
                let mut rig = cut::<H>(setup, len, cuts);

                rig.join_used(0, len, None, Some(&mut used)).unwrap();
                rig.read_dirty(0, len, true);
                rig.finish();
                assert!(used.exchanges > 0);
                if used.exchanges <= exchange {
                    break;
                }
            }
        }
    }
    each_exchange!(check);
}

/// Somebody changes an item without the lock: that change stays, the join says so, every address
/// translates as before, and no table is lost.
#[test]
fn somebody_breaks_the_lock() {
    fn check<H: Hardware>(setup: Setup, len: u64, cuts: &[u64], _end: u64) {
        for exchange in 0.. {
            let mut rig = cut::<H>(setup, len, cuts);

            let raced = rig.join_raced(0, len, exchange);
            rig.finish();
            assert!(raced || exchange > 0);
            if !raced {
                break;
            }
        }
    }
    each_exchange!(check);
    // Where no device sets a bit, so that this is all that can come in between.
    for setup in [arm_4k(), arm_4k().with(Features::DMA_INCOHERENT)] {
        check::<Arm<12>>(setup, 2 * M2, &[K4, M2 + K4], 0);
        check::<Arm<12>>(setup, G1, &[5 * M2 + K4], 0);
    }
}

/// Splits at many places, then a join: as if nothing had been split. Also with holes, which are
/// filled with the memory that was there.
fn back_again<H: Hardware>(setup: Setup, rounds: u64) {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = move |n: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 20) % n
    };
    let mut joined = 0;
    for round in 0..rounds {
        let mut rig = Rig::<H>::new(setup);
        let page = rig.model.rules.page();
        // Largest sizes, so that some of them are contiguous, and OAs that do not always fit.
        let sizes: Vec<u32> = (0..=24)
            .filter(|&lg2| (rig.model.rules.sizes >> lg2) & 1 == 1)
            .collect();
        let shift = sizes[below(sizes.len() as u64) as usize];
        let len = (1u64 << sizes[below(sizes.len() as u64) as usize]) * (1 + below(3));
        let va = (1 + below(4)) << 30;
        let oa = (1 << 33) + (below(3) << shift);
        rig.map_ok(va, len, oa, rw());
        let whole = rig.leaves();
        for _ in 0..1 + below(5) {
            let first = va + below(len / page) * page;
            let bytes = page * (1 + below((va + len - first) / page));
            if below(3) == 0 {
                rig.carve(first, bytes, None).unwrap();
                rig.map_ok(first, bytes, oa + (first - va), rw());
            } else {
                rig.split(first, bytes).unwrap();
            }
            if below(3) == 0 && !rig.arena.incoherent() {
                rig.access(first, true);
            }
        }
        let late = (below(2) == 0).then(|| va + below(len));
        if round % 3 == 0 {
            // A part of it first.
            let first = va + below(len / page) * page;
            let bytes = page * (1 + below((va + len - first) / page));
            rig.join(first, bytes, None).unwrap();
        }
        joined += rig.join(va, len, late).unwrap().leaves;
        let plain = |leaves: &[crate::hw::LeafAt]| -> Vec<(u64, u64, u32)> {
            let bits = leaves.iter();
            bits.map(|at| (at.va, at.bits.oa, at.bits.size_lg2))
                .collect()
        };
        assert_eq!(plain(&rig.leaves()), plain(&whole));
        assert!(rig
            .leaves()
            .iter()
            .all(|at| at.va >= va && at.va - va <= max_offset(40)));
        rig.finish();
    }
    assert!(joined > 0);
}

#[test]
fn back_again_in_every_format() {
    let incoherent = Features::DMA_INCOHERENT;
    let slots = |setup: Setup| Setup {
        slots: 4096,
        ..setup
    };
    back_again::<Vtd>(slots(Setup::plain(3)), 30);
    back_again::<Vtd>(slots(Setup::plain(3).with(incoherent)), 10);
    back_again::<X86>(slots(x86()), 20);
    back_again::<Amd<false>>(slots(amd()), 30);
    back_again::<Amd<true>>(slots(mock()), 20);
    back_again::<Riscv>(slots(riscv()), 30);
    // The other granules have no block of less than 16M to join.
    back_again::<Arm<12>>(slots(arm_4k()), 20);
    back_again::<Arm<12>>(slots(arm_4k().with(incoherent)), 10);
    back_again::<OddHw<true, true>>(slots(odd()), 30);
    back_again::<OddHw<true, true>>(slots(odd().with(incoherent)), 10);
}

/// Where the hardware does not allow it.
#[test]
fn where_nothing_can_be_joined() {
    let mut rig = Rig::<OddHw<false, true>>::new(odd());
    let page = rig.model.rules.page();
    rig.map_ok(0, page, 0, rw());
    assert_eq!(rig.join(0, page, None), Err(Error::NotSupported));
    rig.finish();
}
