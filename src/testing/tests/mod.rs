// SPDX-License-Identifier: GPL-2.0-only

//! The tests, by what they are about.

#![forbid(unsafe_code)]

mod formats;
mod judges;
mod map_unmap;
mod random;
mod split_race;
mod split_shape;
mod threads;

use super::odd::ENC;
use super::rig::Setup;
use crate::fmt::{Features, Params, Prot};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

fn rw() -> Prot {
    Prot::READ.with(Prot::WRITE)
}

/// The odd format with all that it has, on coherent hardware.
fn odd() -> Setup {
    Setup {
        params: Params {
            features: Features::SIGN_EXTEND
                .with(Features::FLUSH_RANGE_NO_GAPS)
                .with(Features::DETAILED_GATHER),
            enc_mask: ENC,
        },
        ..Setup::plain(3)
    }
}
