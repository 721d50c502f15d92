// SPDX-License-Identifier: GPL-2.0-only

//! The tests, by what they are about.

#![forbid(unsafe_code)]

mod carve;
mod dirty;
mod each_format;
mod explore;
mod failures;
mod formats;
mod iotlb;
mod join;
mod judges;
mod map_unmap;
mod protocol;
mod random;
mod split_race;
mod split_shape;
mod split_unlocked;
mod threads;
mod top;
mod walk;
mod walks;

use super::setups::{amd, arm_16k, arm_4k, arm_64k, mock, odd, riscv, x86};
use iotable::fmt::Prot;

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

fn rw() -> Prot {
    Prot::READ.with(Prot::WRITE)
}
