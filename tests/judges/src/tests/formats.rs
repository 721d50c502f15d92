// SPDX-License-Identifier: GPL-2.0-only

//! The laws, and facts of each format that are not laws.

use crate::hw::{Amd, Arm, OddHw, Riscv, Vtd, X86};
use crate::laws;
use crate::odd::{Odd, ENC};
use crate::tests::{K4, M2};
use iotable::fmt::amdv1::{features as amdv1, Amdv1};
use iotable::fmt::armv8::{features as armv8, Armv8};
use iotable::fmt::riscv_64::Riscv64;
use iotable::fmt::vtdss::Vtdss;
use iotable::fmt::x86_64::X86_64;
use iotable::fmt::{Attrs, Features, Format, Params, Prot};
use iotable::{page_sizes, Config, Error, Iova, Level, Oa};

fn with(features: Features) -> Params {
    Params {
        features,
        enc_mask: 0,
    }
}

fn encrypted(features: Features, bit: u32) -> Params {
    Params {
        features,
        enc_mask: 1 << bit,
    }
}

/// The item that maps `oa`.
fn leaf<F: Format>(prot: Prot, params: &Params, oa: u64, size_lg2: u32, level: u8) -> u64 {
    let attrs = F::attrs(prot, params).unwrap();
    F::encode_leaf(Oa(oa), size_lg2, Level(level), attrs)
}

fn rw() -> Prot {
    Prot::READ.with(Prot::WRITE)
}

#[test]
fn vtdss_keeps_the_laws() {
    for features in [
        Features::default(),
        Features::DMA_INCOHERENT,
        Vtdss::FORCE_COHERENCE,
        Vtdss::FORCE_WRITEABLE,
        Vtdss::FORCE_WRITEABLE.with(Vtdss::FORCE_COHERENCE),
    ] {
        laws::check::<Vtd>(&with(features));
    }
}

#[test]
fn odd_keeps_the_laws() {
    laws::check::<OddHw<true, true>>(&with(Features::SIGN_EXTEND));
    laws::check::<OddHw<true, true>>(&Params {
        features: Features::SIGN_EXTEND,
        enc_mask: ENC,
    });
}

#[test]
fn x86_64_keeps_the_laws() {
    for features in [
        Features::default(),
        Features::DMA_INCOHERENT.with(Features::SIGN_EXTEND),
    ] {
        laws::check::<X86>(&with(features));
    }
    for bit in [43, 47, 51] {
        laws::check::<X86>(&encrypted(X86_64::AMD_ENCRYPT_TABLES, bit));
    }
}

#[test]
fn amdv1_keeps_the_laws() {
    for features in [Features::DYNAMIC_TOP, amdv1::FORCE_COHERENCE] {
        laws::check::<Amd<false>>(&with(features));
    }
    for bit in [47, 51] {
        laws::check::<Amd<false>>(&encrypted(amdv1::ENCRYPT_TABLES, bit));
    }
    laws::check::<Amd<true>>(&with(Features::DYNAMIC_TOP));
}

#[test]
fn riscv_64_keeps_the_laws() {
    let both = Riscv64::SVNAPOT_64K.with(Riscv64::SVPBMT);
    for features in [
        Features::default(),
        Riscv64::SVNAPOT_64K,
        Riscv64::SVPBMT,
        both.with(Features::SIGN_EXTEND),
    ] {
        laws::check::<Riscv>(&with(features));
    }
}

#[test]
fn armv8_keeps_the_laws() {
    for features in [
        Features::default(),
        Features::DMA_INCOHERENT,
        armv8::S2,
        armv8::S2.with(armv8::S2FWB),
        armv8::S2.with(Features::DMA_INCOHERENT),
    ] {
        laws::check::<Arm<12>>(&with(features));
        laws::check::<Arm<14>>(&with(features));
        laws::check::<Arm<16>>(&with(features));
    }
}

// As the kernel's headers number them; the kernel layer passes both on as they are.
#[test]
fn numbers_of_features_and_protections() {
    for (n, feature) in [
        Features::DMA_INCOHERENT,
        Features::FULL_VA,
        Features::DYNAMIC_TOP,
        Features::SIGN_EXTEND,
        Features::FLUSH_RANGE,
        Features::FLUSH_RANGE_NO_GAPS,
        Features::DETAILED_GATHER,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(feature.0, 1 << n);
    }
    assert_eq!(Features::FORMAT_START, 7);
    // Each format counts its own from there.
    for (first, second) in [
        (amdv1::ENCRYPT_TABLES, Some(amdv1::FORCE_COHERENCE)),
        (Vtdss::FORCE_COHERENCE, Some(Vtdss::FORCE_WRITEABLE)),
        (Riscv64::SVNAPOT_64K, Some(Riscv64::SVPBMT)),
        (X86_64::AMD_ENCRYPT_TABLES, None),
    ] {
        assert_eq!(first.0, 1 << 7);
        assert!(second.is_none_or(|second| second.0 == 1 << 8));
    }
    // The numbers between them are those of upstream's features that are not served.
    assert_eq!((armv8::S2.0, armv8::S2FWB.0), (1 << 9, 1 << 11));
    for (n, prot) in [
        Prot::READ,
        Prot::WRITE,
        Prot::CACHE,
        Prot::NOEXEC,
        Prot::MMIO,
        Prot::PRIV,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(prot.0, 1 << n);
    }
}

#[test]
fn sets_of_features_and_protections() {
    for a in 0..64 {
        for b in 0..64 {
            let (has_all, union) = (a & b == b, a | b);
            assert_eq!(Prot(a).has(Prot(b)), has_all);
            assert_eq!(Features(a).has(Features(b)), has_all);
            assert_eq!(Prot(a).with(Prot(b)), Prot(union));
            assert_eq!(Features(a).with(Features(b)), Features(union));
        }
    }
}

// What the registers and context entries hold of the address of a top table.
#[test]
fn addresses_of_a_top_table() {
    let pages = !0xfff;
    assert_eq!(Amdv1::<false>::TOP_OA_MASK, pages & ((1 << 52) - 1));
    assert_eq!(Amdv1::<true>::TOP_OA_MASK, pages & ((1 << 52) - 1));
    assert_eq!(Armv8::<12>::TOP_OA_MASK, pages & ((1 << 48) - 1));
    assert_eq!(Armv8::<16>::TOP_OA_MASK, pages & ((1 << 48) - 1));
    assert_eq!(Riscv64::TOP_OA_MASK, pages & ((1 << 56) - 1));
    assert_eq!(Vtdss::TOP_OA_MASK, pages);
    assert_eq!(X86_64::TOP_OA_MASK, pages & ((1 << 52) - 1));
}

// The software bits that the C formats use: a table may be looked at by either.
#[test]
fn bits_of_a_cleaned_item() {
    assert_eq!(Vtdss::CLEANED, 1 << 10);
    assert_eq!(X86_64::CLEANED, 1 << 9);
    assert_eq!(Armv8::<12>::CLEANED, 1 << 55);
}

// Exact bytes, from section 9.8 of the VT-d specification and not from the code.
#[test]
fn vtdss_items_bit_by_bit() {
    let plain = Params::default();
    let snoop = with(Vtdss::FORCE_COHERENCE);
    let (rw, leaf) = (rw(), leaf::<Vtdss>);
    assert_eq!(leaf(rw, &plain, 0x1234_5000, 12, 0), 0x1234_5003);
    assert_eq!(leaf(Prot::READ, &plain, 0x1234_5000, 12, 0), 0x1234_5001);
    assert_eq!(leaf(Prot::WRITE, &plain, 0x20_0000, 21, 1), 0x20_0082);
    assert_eq!(leaf(rw, &snoop, 0x4000_0000, 30, 2), 0x4000_0883);
    let top = 0xf_ffff_ffff_f000;
    assert_eq!(leaf(rw, &plain, top, 12, 0), 0xf_ffff_ffff_f003);
    assert_eq!(Vtdss::encode_table(Oa(0x7000), Level(1), &plain), 0x7003);
    assert_eq!(Vtdss::encode_table(Oa(0x7000), Level(4), &snoop), 0x7003);
    // EMT, IPAT, X, A, D and the ignored bits of a 1G leaf.
    let attrs = Vtdss::leaf_attrs(0xfff0_0000_4000_0fff, Level(2), &plain);
    assert_eq!(attrs, Attrs(0xfff0_0000_0000_0f7f));
}

// As `x86_64.h` of the C formats writes them.
#[test]
fn x86_64_items_bit_by_bit() {
    let (plain, leaf) = (Params::default(), leaf::<X86_64>);
    let sme = encrypted(X86_64::AMD_ENCRYPT_TABLES, 47);
    // D and RW come together; reading needs nothing but P.
    assert_eq!(leaf(rw(), &plain, 0x1234_5000, 12, 0), 0x1234_5067);
    assert_eq!(leaf(Prot::WRITE, &plain, 0x1234_5000, 12, 0), 0x1234_5067);
    assert_eq!(leaf(Prot::READ, &plain, 0x1234_5000, 12, 0), 0x1234_5025);
    assert_eq!(leaf(rw(), &plain, 0x20_0000, 21, 1), 0x20_00e7);
    assert_eq!(leaf(Prot::READ, &plain, 0x4000_0000, 30, 2), 0x4000_00a5);
    let top = 0xf_ffff_ffff_f000;
    assert_eq!(leaf(rw(), &plain, top, 12, 0), 0xf_ffff_ffff_f067);
    // Device memory is not encrypted, tables are.
    assert_eq!(leaf(rw(), &sme, 0x1000, 12, 0), 0x8000_0000_1067);
    let mmio = rw().with(Prot::MMIO);
    assert_eq!(leaf(mmio, &sme, 0x20_0000, 21, 1), 0x20_00e7);
    assert_eq!(X86_64::encode_table(Oa(0x7000), Level(1), &plain), 0x7027);
    assert_eq!(
        X86_64::encode_table(Oa(0x7000), Level(4), &sme),
        0x8000_0000_7027
    );
    // PAT is bit 12 of a large leaf, bit 7 of a small one, where PS is otherwise.
    let attrs = X86_64::leaf_attrs(0x20_10e7, Level(1), &plain);
    assert_eq!(X86_64::encode_leaf(Oa(0x3000), 12, Level(0), attrs), 0x30e7);
    assert_eq!(
        X86_64::encode_leaf(Oa(0x20_0000), 21, Level(1), attrs),
        0x20_10e7
    );
    let attrs = X86_64::leaf_attrs(0x4000_00e7, Level(2), &plain);
    assert_eq!(X86_64::encode_leaf(Oa(0x3000), 12, Level(0), attrs), 0x3067);
    // XD and all that is ignored, the encryption bit too.
    let attrs = X86_64::leaf_attrs(0xfff0_8000_4000_0fff, Level(2), &sme);
    assert_eq!(attrs, Attrs(0xfff0_8000_0000_0f7f));
}

// As `amdv1.h` of the C formats writes them.
#[test]
fn amdv1_items_bit_by_bit() {
    const IR: u64 = 1 << 61;
    const IW: u64 = 1 << 62;
    const RW: u64 = IR | IW;
    type Real = Amdv1<false>;
    let (plain, leaf_of) = (Params::default(), leaf::<Real>);
    let sme = encrypted(amdv1::ENCRYPT_TABLES, 47);
    assert_eq!(leaf_of(rw(), &plain, 0x1234_5000, 12, 0), RW | 0x1234_5001);
    assert_eq!(leaf_of(Prot::READ, &plain, 0x5000, 12, 0), IR | 0x5001);
    assert_eq!(leaf_of(Prot::WRITE, &plain, 0x5000, 12, 0), IW | 0x5001);
    assert_eq!(leaf_of(rw(), &plain, 0x20_0000, 21, 1), RW | 0x20_0001);
    assert_eq!(leaf_of(rw(), &plain, 0x4000_0000, 30, 2), RW | 0x4000_0001);
    // Sizes between: next level 7, and n-1 ones from bit 12 on for 2^n pages.
    for (oa, size_lg2, level, item) in [
        (0x2000, 13, 0, 0x2e01),
        (0x4000, 14, 0, 0x5e01),
        (0x1_0000, 16, 0, 0x1_7e01),
        (0x10_0000, 20, 0, 0x17_fe01),
        (0x40_0000, 22, 1, 0x5f_fe01),
        (0x80_0000, 23, 1, 0xbf_fe01),
        (0x8000_0000, 31, 2, 0xbfff_fe01),
        (0x100_0000_0000, 40, 3, 0x17f_ffff_fe01),
        (0, 51, 4, 0x3_ffff_ffff_fe01),
    ] {
        assert_eq!(leaf_of(rw(), &plain, oa, size_lg2, level), RW | item);
    }
    let forced = with(amdv1::FORCE_COHERENCE);
    assert_eq!(
        leaf_of(rw(), &forced, 0x5000, 12, 0),
        RW | (1 << 60) | 0x5001
    );
    assert_eq!(leaf_of(rw(), &sme, 0x1_0000, 16, 0), RW | 0x8000_0001_7e01);
    let mmio = rw().with(Prot::MMIO);
    assert_eq!(leaf_of(mmio, &sme, 0x1_0000, 16, 0), RW | 0x1_7e01);
    for level in 1..=5 {
        let item = RW | 0x7001 | (u64::from(level) << 9);
        assert_eq!(Real::encode_table(Oa(0x7000), Level(level), &plain), item);
        let item = item | 0x8000_0000_0000;
        assert_eq!(Real::encode_table(Oa(0x7000), Level(level), &sme), item);
    }
    let attrs = Real::leaf_attrs(0xfff0_8000_0001_7fff, Level(0), &sme);
    assert_eq!(attrs, Attrs(0xfff0_8000_0000_01ff));
    // No leaves of 512G, none in the highest level.
    let sizes = |level| Real::leaf_sizes(Level(level), &plain);
    assert_eq!(sizes(0), (1 << 21) - (1 << 12));
    assert_eq!(sizes(2), (1 << 39) - (1 << 30));
    assert_eq!(sizes(3), (1 << 48) - (1 << 40));
    assert_eq!((sizes(4), sizes(5)), ((1 << 52) - (1 << 48), 0));

    // Everything is in units of 2K; no feature of the real one.
    type Mock = Amdv1<true>;
    let leaf_of = leaf::<Mock>;
    assert_eq!(leaf_of(rw(), &forced, 0x1800, 11, 0), RW | 0x3001);
    assert_eq!(leaf_of(rw(), &plain, 0x1000, 12, 0), RW | 0x2e01);
    assert_eq!(leaf_of(rw(), &plain, 0x2000, 13, 0), RW | 0x5e01);
    assert_eq!(leaf_of(rw(), &plain, 0x10_0000, 20, 1), RW | 0x20_0001);
    assert_eq!(leaf_of(rw(), &plain, 0x20_0000, 21, 1), RW | 0x5f_fe01);
    assert_eq!(
        Mock::encode_table(Oa(0x7000), Level(3), &plain),
        RW | 0xe601
    );
    assert_eq!(Mock::leaf_sizes(Level(4), &plain), 0);
}

// As `riscv.h` of the C formats writes them.
#[test]
fn riscv_64_items_bit_by_bit() {
    let (plain, leaf) = (Params::default(), leaf::<Riscv64>);
    let napot = with(Riscv64::SVNAPOT_64K);
    let no_exec = |prot: Prot| prot.with(Prot::NOEXEC);
    assert_eq!(leaf(rw(), &plain, 0x1234_5000, 12, 0), 0x48d_14df);
    assert_eq!(leaf(no_exec(rw()), &plain, 0x5000, 12, 0), 0x14d7);
    // Writing is never without reading.
    assert_eq!(leaf(no_exec(Prot::WRITE), &plain, 0x5000, 12, 0), 0x14d7);
    assert_eq!(leaf(no_exec(Prot::READ), &plain, 0x5000, 12, 0), 0x1453);
    assert_eq!(leaf(Prot::default(), &plain, 0x5000, 12, 0), 0x1459);
    assert_eq!(leaf(rw(), &plain, 0x20_0000, 21, 1), 0x8_00df);
    let huge = 3 << 48;
    assert_eq!(leaf(rw(), &plain, huge, 48, 4), (huge >> 2) | 0xdf);
    let top = 0xff_ffff_ffff_f000;
    assert_eq!(leaf(rw(), &plain, top, 12, 0), 0x3f_ffff_ffff_fcdf);
    let n = 1 << 63;
    assert_eq!(leaf(rw(), &napot, 0x1_0000, 16, 0), n | 0x60df);
    assert_eq!(leaf(rw(), &napot, 0x1_0000, 12, 0), 0x40df);
    assert_eq!(Riscv64::encode_table(Oa(0x7000), Level(1), &plain), 0x1c01);
    assert_eq!(Riscv64::encode_table(Oa(0x7000), Level(4), &napot), 0x1c01);
    // Memory types.
    let types = with(Riscv64::SVPBMT);
    for (prot, memory_type) in [
        (rw(), 1 << 61),
        (rw().with(Prot::CACHE), 0),
        (rw().with(Prot::MMIO), 1 << 62),
        (rw().with(Prot::MMIO).with(Prot::CACHE), 1 << 62),
    ] {
        assert_eq!(leaf(prot, &types, 0x5000, 12, 0), memory_type | 0x14df);
        assert_eq!(leaf(prot, &plain, 0x5000, 12, 0), 0x14df);
    }
    let attrs = Riscv64::leaf_attrs(0xffc0_0000_0000_63ff, Level(0), &napot);
    assert_eq!(attrs, Attrs(0x7fc0_0000_0000_03ff));
    let none = Riscv64::attrs(Prot::NOEXEC, &plain);
    assert_eq!(none, Err(Error::NotSupported));
}

// As `io-pgtable-arm.c` writes them.
#[test]
fn armv8_items_bit_by_bit() {
    let s1 = Params::default();
    let (s2, fwb) = (with(armv8::S2), with(armv8::S2.with(armv8::S2FWB)));
    let (read, write, cache) = (Prot::READ, Prot::WRITE, Prot::CACHE);
    let leaf_of = leaf::<Armv8<12>>;
    // nG, AF, outer shareable, unprivileged too; not cached.
    assert_eq!(leaf_of(rw(), &s1, 0x1234_5000, 12, 0), 0x1234_5e43);
    assert_eq!(leaf_of(read, &s1, 0x1234_5000, 12, 0), 0x1234_5ec3);
    // What may be written to can be read.
    assert_eq!(leaf_of(write, &s1, 0x1234_5000, 12, 0), 0x1234_5e43);
    for (prot, bits) in [
        (cache, 0xf47),
        (Prot::MMIO, 0xe4b),
        (cache.with(Prot::MMIO), 0xf4b),
        (Prot::PRIV, 0xe03),
        (Prot::NOEXEC, 0x60_0000_0000_0e43),
        (cache.with(Prot::NOEXEC), 0x60_0000_0000_0f47),
        (cache.with(Prot::PRIV), 0xf07),
    ] {
        let prot = rw().with(prot);
        assert_eq!(leaf_of(prot, &s1, 0x5000, 12, 0), 0x5000 | bits);
        // A block is the same but for its type.
        assert_eq!(
            leaf_of(prot, &s1, 0x20_0000, 21, 1),
            0x20_0000 | (bits & !2)
        );
    }
    assert_eq!(leaf_of(rw(), &s1, 0x4000_0000, 30, 2), 0x4000_0e41);
    for (params, prot, bits) in [
        (&s2, rw(), 0x6d7),
        (&s2, read, 0x657),
        (&s2, write, 0x697),
        (&s2, rw().with(cache), 0x7ff),
        (&fwb, rw().with(cache), 0x7db),
        (&fwb, rw(), 0x6d7),
        (&s2, rw().with(Prot::MMIO), 0x6c7),
        (&fwb, rw().with(Prot::MMIO).with(cache), 0x7c7),
        (&s2, rw().with(Prot::PRIV), 0x6d7),
        (&s2, rw().with(Prot::NOEXEC), 0x60_0000_0000_06d7),
    ] {
        assert_eq!(
            leaf_of(prot, params, 0x7000, 12, 0),
            0x7000 | bits,
            "{prot:?}"
        );
    }
    // The highest address, and the smallest and the largest leaf of each granule.
    let top = 0xffff_ffff_f000;
    assert_eq!(leaf_of(rw(), &s1, top, 12, 0), top | 0xe43);
    let leaf_of = leaf::<Armv8<14>>;
    assert_eq!(
        leaf_of(rw(), &s1, 0xffff_ffff_c000, 14, 0),
        0xffff_ffff_ce43
    );
    assert_eq!(
        leaf_of(rw(), &s1, 0xffff_fe00_0000, 25, 1),
        0xffff_fe00_0e41
    );
    let leaf_of = leaf::<Armv8<16>>;
    assert_eq!(
        leaf_of(rw(), &s1, 0xffff_ffff_0000, 16, 0),
        0xffff_ffff_0e43
    );
    assert_eq!(
        leaf_of(rw(), &s1, 0xffff_e000_0000, 29, 1),
        0xffff_e000_0e41
    );
    // Nothing but type and address.
    assert_eq!(Armv8::<12>::encode_table(Oa(0x7000), Level(1), &s1), 0x7003);
    assert_eq!(
        Armv8::<14>::encode_table(Oa(0x1_c000), Level(3), &s2),
        0x1_c003
    );
    assert_eq!(
        Armv8::<16>::encode_table(Oa(0x7_0000), Level(2), &fwb),
        0x7_0003
    );
    let attrs = Armv8::<12>::leaf_attrs(0xfff0_0000_4000_0fff, Level(2), &s1);
    assert_eq!(attrs, Attrs(0xfff0_0000_0000_0ffc));
    for params in [s1, s2, fwb] {
        for prot in [Prot::default(), cache, Prot::NOEXEC.with(Prot::PRIV)] {
            assert_eq!(Armv8::<12>::attrs(prot, &params), Err(Error::Invalid));
        }
    }
}

#[test]
fn vtdss_refuses_what_it_cannot_say() {
    let plain = Params::default();
    assert_eq!(Vtdss::attrs(Prot::default(), &plain), Err(Error::Invalid));
    assert_eq!(Vtdss::attrs(Prot::CACHE, &plain), Err(Error::Invalid));
    let forced = with(Vtdss::FORCE_WRITEABLE);
    assert_eq!(Vtdss::attrs(Prot::READ, &forced), Err(Error::Invalid));
    assert!(Vtdss::attrs(Prot::WRITE, &forced).is_ok());
}

#[test]
fn page_sizes_of_a_table() {
    let plain = Params::default();
    let sizes = |top, va, oa| page_sizes::<Vtdss>(&plain, Level(top), va, oa);
    let all = (1 << 12) | (1 << 21) | (1 << 30);
    assert_eq!(sizes(2, 39, 52), all);
    assert_eq!(sizes(4, 57, 52), all);
    // Not as large as the IOVA or the OA space.
    assert_eq!(sizes(2, 31, 52), (1 << 12) | (1 << 21));
    assert_eq!(sizes(2, 39, 30), (1 << 12) | (1 << 21));
    assert_eq!(
        page_sizes::<Odd>(&plain, Level(3), 39, 49),
        ((1 << 38) - (1 << 11)) & !(1 << 25)
    );
    // With a top that grows, those of all levels that it may get.
    let dynamic = with(Features::DYNAMIC_TOP);
    let sizes = |params, va| page_sizes::<Amdv1<false>>(params, Level(2), va, 52);
    let all = ((1 << 52) - (1 << 12)) & !(1 << 39);
    assert_eq!(sizes(&dynamic, 64), all);
    assert_eq!(sizes(&dynamic, 32), (1 << 31) - (1 << 12));
    assert_eq!(sizes(&dynamic, 48), all & ((1 << 47) - 1));
    assert_eq!(sizes(&plain, 39), (1 << 38) - (1 << 12));
    assert_eq!(
        page_sizes::<Amdv1<true>>(&dynamic, Level(2), 56, 51),
        ((1 << 47) - (1 << 11)) & !(1 << 39)
    );
    // A top grows only if the format can do it and the table is to do it.
    assert_eq!(sizes(&plain, 48), (1 << 39) - (1 << 12));
    assert_eq!(page_sizes::<Vtdss>(&dynamic, Level(1), 48, 52), K4 | M2);
    let (all_4k, both_64k) = (K4 | M2 | (1 << 30), (1 << 16) | (1 << 29));
    fn arm<const GRANULE_LG2: u32>(top: u8, va: u32, oa: u32) -> u64 {
        page_sizes::<Armv8<GRANULE_LG2>>(&Params::default(), Level(top), va, oa)
    }
    assert_eq!(
        (arm::<12>(2, 39, 48), arm::<12>(3, 48, 48)),
        (all_4k, all_4k)
    );
    assert_eq!(arm::<12>(1, 30, 48), K4 | M2);
    assert_eq!(arm::<14>(3, 48, 44), (1 << 14) | (1 << 25));
    assert_eq!(
        (arm::<16>(2, 48, 48), arm::<16>(1, 42, 32)),
        (both_64k, both_64k)
    );
    let sizes = |features, top, va| page_sizes::<Riscv64>(&with(features), Level(top), va, 56);
    let five = 0x1_0080_4020_1000;
    assert_eq!(sizes(Features::default(), 4, 57), five);
    assert_eq!(sizes(Riscv64::SVNAPOT_64K, 2, 39), 0x4021_1000);
    assert_eq!(sizes(Features::default(), 3, 48), five & ((1 << 47) - 1));
}

#[test]
fn aperture_of_a_table() {
    let aperture = |features, max_va_lg2| {
        let config = Config {
            params: with(features),
            max_va_lg2,
            max_oa_lg2: 52,
            pgsize_bitmap: K4,
        };
        config.aperture()
    };
    assert_eq!(
        aperture(Features::default(), 48),
        (Iova(0), Iova((1 << 48) - 1))
    );
    assert_eq!(aperture(Features::FULL_VA, 64), (Iova(0), Iova(u64::MAX)));
    // The half above the sign bit is not part of it.
    assert_eq!(
        aperture(Features::SIGN_EXTEND, 48),
        (Iova(0), Iova((1 << 47) - 1))
    );
}
