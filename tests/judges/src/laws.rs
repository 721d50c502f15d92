// SPDX-License-Identifier: GPL-2.0-only

//! The laws of [`iotable::fmt`], for any format.

#![forbid(unsafe_code)]

use super::hw::{Entry, Hardware};
use crate::size::pow2;
use iotable::fmt::{Attrs, Features, Format, Kind, Params, Prot};
use iotable::{Level, Oa};

/// Every protection there is.
pub fn all_prots() -> impl Iterator<Item = Prot> {
    (0..64).map(Prot)
}

/// A sequence of bits without a pattern.
fn noise(n: u64) -> u64 {
    let x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 29)
}

/// OAs to try for a leaf of this size: each address bit alone, all of them, and noise.
fn oas(size_lg2: u32, oa_lg2: u32) -> Vec<u64> {
    let mask = (pow2(oa_lg2) - 1) & !(pow2(size_lg2) - 1);
    let mut oas: Vec<u64> = (size_lg2..oa_lg2).map(pow2).collect();
    oas.extend([0, mask]);
    oas.extend((0..4).map(|n| noise(n) & mask));
    oas
}

/// Checks laws 1 to 8 for the format of `H`, and that the hardware agrees.
pub fn check<H: Hardware>(params: &Params) {
    type F<H> = <H as Hardware>::Format;
    let hw = H::new(params);
    let oa_lg2 = match params.enc_mask {
        0 => F::<H>::MAX_OA_LG2,
        enc => enc.trailing_zeros(),
    };
    assert_eq!(F::<H>::DIRTY, if H::PRESET { 0 } else { H::DIRTY });
    assert_eq!(F::<H>::HW_BITS, H::ACCESSED | H::DIRTY, "law 8");
    assert_eq!(
        (F::<H>::GRANULE_LG2, F::<H>::ITEMS_LG2),
        (H::GRANULE_LG2, H::ITEMS_LG2)
    );

    let incoherent = F::<H>::FEATURES.has(Features::DMA_INCOHERENT);
    assert_eq!(F::<H>::CLEANED.count_ones(), u32::from(incoherent));

    let mut sizes = 0;
    let mut level = Level::LEAF;
    while level <= F::<H>::MAX_TOP_LEVEL {
        assert_eq!(F::<H>::kind(0, level), Kind::Empty);
        assert!(!F::<H>::is_single(0, level, params), "law 2");
        for set in [H::ACCESSED, H::DIRTY, H::ACCESSED | H::DIRTY] {
            assert_eq!(F::<H>::kind(set, level), Kind::Empty, "law 8: {set:#x}");
        }
        for size_lg2 in 0..64 {
            if F::<H>::leaf_sizes(level, params) & pow2(size_lg2) != 0 {
                assert_eq!(Level::of_size::<F<H>>(size_lg2), level);
                assert_eq!(sizes & pow2(size_lg2), 0, "a size at two levels");
                sizes |= pow2(size_lg2);
                let contig = size_lg2 != level.item_lg2::<F<H>>();
                assert!(!contig || F::<H>::CONTIG, "law 7");
                if size_lg2 >= oa_lg2 {
                    // The encryption bit would be inside the page.
                    continue;
                }
                check_leaf::<H>(&hw, params, level, size_lg2, oa_lg2);
            }
        }
        if level != Level::LEAF {
            check_table::<H>(&hw, params, level, oa_lg2);
        }
        level = level.above();
    }
    let va_lg2 = F::<H>::MAX_VA_LG2;
    assert_eq!(sizes & (pow2(va_lg2 - 1) - 1), hw.page_sizes());
}

fn check_leaf<H: Hardware>(hw: &H, params: &Params, level: Level, size_lg2: u32, oa_lg2: u32) {
    type F<H> = <H as Hardware>::Format;
    let contig_lg2 = size_lg2 - level.item_lg2::<F<H>>();
    for prot in all_prots() {
        let expect = hw.expect(prot, params);
        let Ok(base) = F::<H>::attrs(prot, params) else {
            assert_eq!(expect, None, "{prot:?} must be possible");
            continue;
        };
        let (read, write, rest) = expect.expect("this protection must be refused");
        for (k, oa) in (u64::from(prot.0)..).zip(oas(size_lg2, oa_lg2)) {
            // As mapped, then with each other bit that a live leaf may have: every eighth of them,
            // others for the next OA.
            let mut attrs = vec![base];
            for n in (k % 8..64).step_by(8) {
                let extra = F::<H>::leaf_attrs(pow2(n as u32), level, params);
                attrs.push(Attrs(base.0 | extra.0));
                let extra = F::<H>::leaf_attrs(noise(n), level, params);
                attrs.push(Attrs(base.0 | extra.0));
            }
            for attrs in attrs {
                let item = F::<H>::encode_leaf(Oa(oa), size_lg2, level, attrs);
                assert_eq!(F::<H>::kind(item, level), Kind::Leaf, "law 1: {item:#x}");
                assert_eq!(
                    F::<H>::leaf_oa(item, level, params),
                    Oa(oa),
                    "law 2: {item:#x}"
                );
                assert_eq!(F::<H>::contig_lg2(item, level, params), contig_lg2, "law 2");
                let single = F::<H>::is_single(item, level, params);
                assert_eq!(single, contig_lg2 == 0, "law 2: {item:#x}");
                assert_eq!(F::<H>::leaf_attrs(item, level, params), attrs, "law 3");
                for set in [H::ACCESSED, H::DIRTY, H::ACCESSED | H::DIRTY] {
                    let now = item | set;
                    assert_eq!(F::<H>::kind(now, level), Kind::Leaf, "law 8: {now:#x}");
                    assert_eq!(
                        F::<H>::leaf_oa(now, level, params),
                        Oa(oa),
                        "law 8: {now:#x}"
                    );
                    let contig = F::<H>::contig_lg2(now, level, params);
                    assert_eq!(contig, contig_lg2, "law 8: {now:#x}");
                    let with = Attrs(attrs.0 | set);
                    assert_eq!(F::<H>::leaf_attrs(now, level, params), with, "law 8");
                }
                let encode = |oa| F::<H>::encode_leaf(Oa(oa), size_lg2, level, attrs);
                if 2 * pow2(size_lg2) <= pow2(oa_lg2) {
                    let step = encode(pow2(size_lg2)).wrapping_sub(encode(0));
                    let steps = step.wrapping_mul(oa >> size_lg2);
                    assert_eq!(item.wrapping_sub(encode(0)), steps, "law 6: {item:#x}");
                }
                let Entry::Leaf(bits) = hw.decode(item, level.0) else {
                    panic!("for the hardware {item:#x} is no leaf");
                };
                assert_eq!((bits.oa, bits.size_lg2), (oa, size_lg2), "{item:#x}");
                let dirty = match H::DIRTY {
                    0 => bits.write,
                    bit => attrs.0 & bit != 0,
                };
                assert_eq!(bits.dirty, dirty);
                if attrs == base {
                    assert_eq!((bits.read, bits.write, bits.rest), (read, write, rest));
                    let preset = (H::PRESET, H::PRESET && write);
                    assert_eq!((bits.accessed, bits.dirty), preset, "a new leaf");
                }
            }
        }
        // Bits that hardware ignores, and its own, are attributes too.
        for bit in (0..64).map(pow2) {
            if (H::IGNORED | H::ACCESSED | H::DIRTY) & bit != 0 {
                let attrs = Attrs(base.0 | bit);
                let item = F::<H>::encode_leaf(Oa(0), size_lg2, level, attrs);
                assert_eq!(item & bit, bit, "bit {bit:#x} is not written");
                assert_eq!(
                    F::<H>::leaf_attrs(item, level, params),
                    attrs,
                    "law 3: {bit:#x}"
                );
            }
        }
    }
}

fn check_table<H: Hardware>(hw: &H, params: &Params, level: Level, oa_lg2: u32) {
    type F<H> = <H as Hardware>::Format;
    for oa in oas(F::<H>::ITEMS_LG2 + 3, oa_lg2) {
        assert_eq!(oa & !F::<H>::TOP_OA_MASK, 0, "no top table at {oa:#x}");
        let item = F::<H>::encode_table(Oa(oa), level, params);
        // As it is, once cleaned, and after the hardware came by.
        for item in [item, item | F::<H>::CLEANED, item | H::TABLE_ACCESSED] {
            assert_eq!(F::<H>::kind(item, level), Kind::Table, "law 1: {item:#x}");
            assert!(!F::<H>::is_single(item, level, params), "law 2: {item:#x}");
            assert_eq!(F::<H>::table_oa(item, params), Oa(oa), "law 5: {item:#x}");
            let want = Entry::Table {
                addr: oa,
                read: true,
                write: true,
            };
            assert_eq!(hw.decode(item, level.0), want, "law 5: {item:#x}");
        }
        assert_eq!(item & F::<H>::CLEANED, 0, "a new item was not cleaned yet");
    }
}
