// SPDX-License-Identifier: GPL-2.0-only

//! The tests, by what they are about.

#![forbid(unsafe_code)]

mod each_format;
mod formats;
mod judges;
mod map_unmap;
mod random;
mod split_race;
mod split_shape;
mod threads;
mod top;
mod walks;

use super::odd::ENC;
use super::rig::Setup;
use crate::fmt::amdv1::features as amdv1;
use crate::fmt::riscv_64::Riscv64;
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

/// 4 levels with an upper half, as VT-d uses its first stage.
fn x86() -> Setup {
    Setup::plain(3).with(Features::SIGN_EXTEND.with(Features::FLUSH_RANGE))
}

/// As the AMD driver begins: 3 levels, all 64 bits, tables and memory encrypted.
fn amd() -> Setup {
    Setup::plain(2)
        .with(Features::DYNAMIC_TOP.with(Features::FULL_VA))
        .with(amdv1::ENCRYPT_TABLES.with(amdv1::FORCE_COHERENCE))
        .encrypted(47)
}

/// As iommufd's selftest begins.
fn mock() -> Setup {
    Setup::plain(2).with(Features::DYNAMIC_TOP)
}

/// Sv39, with all extensions.
fn riscv() -> Setup {
    Setup::plain(2)
        .with(Features::SIGN_EXTEND.with(Features::DETAILED_GATHER))
        .with(Riscv64::SVNAPOT_64K.with(Riscv64::SVPBMT))
}
