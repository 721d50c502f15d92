// SPDX-License-Identifier: GPL-2.0-only

//! Arithmetic of powers of two. The judges' own: a mistake in the crate's must not excuse itself.

#![forbid(unsafe_code)]

/// `2^lg2`; 0 when `lg2` is 64 or more.
pub fn pow2(lg2: u32) -> u64 {
    1u64.checked_shl(lg2).unwrap_or(0)
}

/// `2^lg2 - 1`, the largest offset in a block of that size.
pub fn max_offset(lg2: u32) -> u64 {
    match lg2 {
        0..64 => (1 << lg2) - 1,
        _ => u64::MAX,
    }
}

/// The first address of the block of `2^lg2` bytes around `va`.
pub fn floor(va: u64, lg2: u32) -> u64 {
    va & !max_offset(lg2)
}

/// The last address of the block of `2^lg2` bytes around `va`.
pub fn block_last(va: u64, lg2: u32) -> u64 {
    va | max_offset(lg2)
}
