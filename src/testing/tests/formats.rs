// SPDX-License-Identifier: GPL-2.0-only

//! The laws, and facts of each format that are not laws.

use crate::fmt::vtdss::Vtdss;
use crate::fmt::{Attrs, Features, Format, Params, Prot};
use crate::testing::hw::{OddHw, Vtd};
use crate::testing::laws;
use crate::testing::odd::{Odd, ENC};
use crate::{page_sizes, Error, Level};

fn with(features: Features) -> Params {
    Params {
        features,
        enc_mask: 0,
    }
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

// Exact bytes, from section 9.8 of the VT-d specification and not from the code.
#[test]
fn vtdss_items_bit_by_bit() {
    let plain = Params::default();
    let snoop = with(Vtdss::FORCE_COHERENCE);
    let rw = Prot::READ.with(Prot::WRITE);
    let leaf = |prot, params: &Params, oa, size_lg2, level| {
        let attrs = Vtdss::attrs(prot, params).unwrap();
        Vtdss::encode_leaf(oa, size_lg2, Level(level), attrs)
    };
    assert_eq!(leaf(rw, &plain, 0x1234_5000, 12, 0), 0x1234_5003);
    assert_eq!(leaf(Prot::READ, &plain, 0x1234_5000, 12, 0), 0x1234_5001);
    assert_eq!(leaf(Prot::WRITE, &plain, 0x20_0000, 21, 1), 0x20_0082);
    assert_eq!(leaf(rw, &snoop, 0x4000_0000, 30, 2), 0x4000_0883);
    let top = 0xf_ffff_ffff_f000;
    assert_eq!(leaf(rw, &plain, top, 12, 0), 0xf_ffff_ffff_f003);
    assert_eq!(Vtdss::encode_table(0x7000, Level(1), &plain), 0x7003);
    assert_eq!(Vtdss::encode_table(0x7000, Level(4), &snoop), 0x7003);
    // EMT, IPAT, X, A, D and the ignored bits of a 1G leaf.
    let attrs = Vtdss::leaf_attrs(0xfff0_0000_4000_0fff, Level(2), &plain);
    assert_eq!(attrs, Attrs(0xfff0_0000_0000_0f7f));
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
}
