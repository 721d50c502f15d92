// SPDX-License-Identifier: GPL-2.0-only

//! What the crate makes of one item, as plain functions, for CBMC: it is compiled to wasm and that
//! to C. `F` is the format; the script puts its name here.

#![no_std]

use iotable::fmt::{Attrs, Features, Format, Kind, Params, Prot};
use iotable::{Level, Oa};

type F = FORMAT;

fn params(features: u32, enc_mask: u64) -> Params {
    Params {
        features: Features(features),
        enc_mask,
    }
}

/// 0 empty, 1 table, 2 leaf.
#[no_mangle]
pub extern "C" fn kind(item: u64, level: u32) -> u32 {
    match F::kind(item, Level(level as u8)) {
        Kind::Empty => 0,
        Kind::Table => 1,
        Kind::Leaf => 2,
    }
}

/// What split puts at offset `at` of a leaf.
#[no_mangle]
pub extern "C" fn child(item: u64, level: u32, at: u64, size: u32, below: u32, enc: u64) -> u64 {
    let (level, params) = (Level(level as u8), params(0, enc));
    let Oa(oa) = F::leaf_oa(item, level, &params);
    F::encode_leaf(
        Oa(oa.wrapping_add(at)),
        size,
        Level(below as u8),
        F::leaf_attrs(item, level, &params),
    )
}

/// Whether join takes `next` for what follows `at` bytes after the start of `first`: as it compares
/// them, without what hardware sets.
#[no_mangle]
pub extern "C" fn goes_on(
    first: u64,
    level: u32,
    at: u64,
    next: u64,
    next_level: u32,
    enc: u64,
) -> u32 {
    let params = params(0, enc);
    let read = |item: u64, level: u32| {
        let level = Level(level as u8);
        let Oa(oa) = F::leaf_oa(item, level, &params);
        (oa, F::leaf_attrs(item & !F::HW_BITS, level, &params))
    };
    let (oa, attrs) = read(first, level);
    (read(next, next_level) == (oa.wrapping_add(at), attrs)).into()
}

/// What join puts in the place of leaves the first of which is `first`, if hardware has set `hw` in
/// them.
#[no_mangle]
pub extern "C" fn joined(first: u64, level: u32, hw: u64, size: u32, above: u32, enc: u64) -> u64 {
    child(first & !F::HW_BITS, level, 0, size, above, enc) | (hw & F::HW_BITS)
}

#[no_mangle]
pub extern "C" fn leaf_oa(item: u64, level: u32, enc: u64) -> u64 {
    F::leaf_oa(item, Level(level as u8), &params(0, enc)).0
}

#[no_mangle]
pub extern "C" fn leaf_lg2(item: u64, level: u32, enc: u64) -> u32 {
    let level = Level(level as u8);
    level.item_lg2::<F>() + F::contig_lg2(item, level, &params(0, enc))
}

#[no_mangle]
pub extern "C" fn is_single(item: u64, level: u32, enc: u64) -> u32 {
    F::is_single(item, Level(level as u8), &params(0, enc)).into()
}

#[no_mangle]
pub extern "C" fn leaf_sizes(level: u32, features: u32) -> u64 {
    F::leaf_sizes(Level(level as u8), &params(features, 0))
}

/// What map makes; 0 if the format refuses it.
#[no_mangle]
pub extern "C" fn map(oa: u64, size: u32, level: u32, prot: u32, features: u32, enc: u64) -> u64 {
    match F::attrs(Prot(prot), &params(features, enc)) {
        Ok(Attrs(attrs)) => F::encode_leaf(Oa(oa), size, Level(level as u8), Attrs(attrs)),
        Err(_) => 0,
    }
}

#[no_mangle]
pub extern "C" fn table(oa: u64, level: u32, enc: u64) -> u64 {
    F::encode_table(Oa(oa), Level(level as u8), &params(0, enc))
}

#[no_mangle]
pub extern "C" fn table_oa(item: u64, enc: u64) -> u64 {
    F::table_oa(item, &params(0, enc)).0
}

/// What hardware may set in a leaf, and the dirty bit that software reads.
#[no_mangle]
pub extern "C" fn hw_bits() -> u64 {
    F::HW_BITS
}

#[no_mangle]
pub extern "C" fn dirty() -> u64 {
    F::DIRTY
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
