// SPDX-License-Identifier: GPL-2.0-only

//! Sizes, levels and alignment: pure arithmetic.
//!
//! Nothing here can panic: shifts and sums wrap, and callers pass values for which they do not.

#![forbid(unsafe_code)]

use crate::fmt::Format;

/// A table level; level 0 holds the smallest leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u8);

impl Level {
    /// The level of the smallest leaves.
    pub const LEAF: Level = Level(0);

    /// One level nearer to the leaves. Must not be called on level 0.
    #[inline(always)]
    pub fn below(self) -> Level {
        Level(self.0.wrapping_sub(1))
    }

    /// One level nearer to the root.
    #[inline(always)]
    pub fn above(self) -> Level {
        Level(self.0.wrapping_add(1))
    }

    /// log2 of the bytes of IOVA that one item of this level covers.
    #[inline(always)]
    pub fn item_lg2<F: Format>(self) -> u32 {
        F::GRANULE_LG2.wrapping_add(F::ITEMS_LG2.wrapping_mul(u32::from(self.0)))
    }

    /// log2 of the number of items that a leaf of `size_lg2`, a size of this level, takes.
    #[inline(always)]
    pub(crate) fn contig_lg2<F: Format>(self, size_lg2: u32) -> u32 {
        if F::CONTIG {
            size_lg2.wrapping_sub(self.item_lg2::<F>())
        } else {
            0
        }
    }

    /// The level whose items hold leaves of `size_lg2`, contiguous ones included.
    #[inline(always)]
    pub fn of_size<F: Format>(size_lg2: u32) -> Level {
        Level((size_lg2.wrapping_sub(F::GRANULE_LG2) / F::ITEMS_LG2) as u8)
    }
}

/// `value * 2^lg2`. `lg2` is less than 64.
///
/// A plain `<<` would leave a call of a panic in the kernel's object where overflow checks are on,
/// unless the compiler could prove that `lg2` is less than 64. The tests on the host check that it
/// is.
#[inline(always)]
pub(crate) fn shl(value: u64, lg2: u32) -> u64 {
    #[cfg(not(CONFIG_RUST))]
    debug_assert!(lg2 < u64::BITS);
    value.wrapping_shl(lg2)
}

/// `value / 2^lg2`. `lg2` is less than 64, see [`shl`].
#[inline(always)]
pub(crate) fn shr(value: u64, lg2: u32) -> u64 {
    #[cfg(not(CONFIG_RUST))]
    debug_assert!(lg2 < u64::BITS);
    value.wrapping_shr(lg2)
}

/// `2^lg2`; 0 when `lg2` is 64 or more.
#[inline(always)]
pub(crate) fn pow2(lg2: u32) -> u64 {
    1u64.checked_shl(lg2).unwrap_or(0)
}

/// `2^lg2 - 1`, the largest offset in a block of that size.
#[inline(always)]
pub(crate) fn max_offset(lg2: u32) -> u64 {
    pow2(lg2).wrapping_sub(1)
}

/// The offset of `value` in its block of `2^lg2`.
#[inline(always)]
pub(crate) fn offset(value: u64, lg2: u32) -> u64 {
    value & max_offset(lg2)
}

/// The start of the block of `2^lg2` around `value`.
#[inline(always)]
pub(crate) fn floor(value: u64, lg2: u32) -> u64 {
    value & !max_offset(lg2)
}

/// An address that devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Iova(pub u64);

/// An output address: what an IOVA is translated to, or where hardware finds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Oa(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Bytes(pub u64);

impl Iova {
    /// So many bytes further. Behind the last address of all comes 0.
    #[inline(always)]
    pub(crate) fn plus(self, bytes: Bytes) -> Iova {
        Iova(self.0.wrapping_add(bytes.0))
    }

    /// The address before this one. Before 0 comes the last address of all.
    #[inline(always)]
    pub(crate) fn before(self) -> Iova {
        Iova(self.0.wrapping_sub(1))
    }

    /// The bytes from `start`, which is not above, to this address.
    #[inline(always)]
    pub(crate) fn since(self, start: Iova) -> Bytes {
        Bytes(self.0.wrapping_sub(start.0))
    }

    /// The bytes from this address to `last`, which is not below, with both; 0 stands for 2^64.
    #[inline(always)]
    pub fn through(self, last: Iova) -> Bytes {
        last.since(self).plus(Bytes(1))
    }

    /// The last one of `len` from this address on.
    #[inline(always)]
    pub fn last_of(self, len: Bytes) -> Iova {
        self.plus(len).before()
    }

    /// The offset in the block of `2^lg2` bytes around the address.
    #[inline(always)]
    pub(crate) fn offset(self, lg2: u32) -> Bytes {
        Bytes(offset(self.0, lg2))
    }

    /// The first address of the block of `2^lg2` bytes around this one.
    #[inline(always)]
    pub(crate) fn floor(self, lg2: u32) -> Iova {
        Iova(floor(self.0, lg2))
    }

    /// The last address of the block of `2^lg2` bytes around this one.
    #[inline(always)]
    pub(crate) fn block_last(self, lg2: u32) -> Iova {
        Iova(self.0 | max_offset(lg2))
    }

    /// The number of boundaries of blocks of `2^lg2` bytes from this address to `last`, which is
    /// not below.
    #[inline(always)]
    pub(crate) fn boundaries_to(self, last: Iova, lg2: u32) -> u64 {
        shr(last.0, lg2).wrapping_sub(shr(self.0, lg2))
    }
}

impl Oa {
    /// So many bytes further: callers have checked that the OA space does not end before.
    #[inline(always)]
    pub(crate) fn plus(self, bytes: Bytes) -> Oa {
        Oa(self.0.wrapping_add(bytes.0))
    }
}

impl Bytes {
    /// The bytes of a block of `2^lg2` bytes; 0 stands for 2^64.
    #[inline(always)]
    pub(crate) fn block(lg2: u32) -> Bytes {
        Bytes(pow2(lg2))
    }

    /// The bytes of `n` blocks of `2^lg2` bytes.
    #[inline(always)]
    pub(crate) fn blocks(n: u64, lg2: u32) -> Bytes {
        Bytes(shl(n, lg2))
    }

    /// So many whole blocks of `2^lg2` bytes.
    #[inline(always)]
    pub(crate) fn count(self, lg2: u32) -> u64 {
        shr(self.0, lg2)
    }

    /// Without what is behind the last whole block of `2^lg2` bytes.
    #[inline(always)]
    pub(crate) fn floor(self, lg2: u32) -> Bytes {
        Bytes(floor(self.0, lg2))
    }

    /// The sum: callers add parts of one range.
    #[inline(always)]
    pub(crate) fn plus(self, more: Bytes) -> Bytes {
        Bytes(self.0.wrapping_add(more.0))
    }

    /// What is left without `part`, which is not more.
    #[inline(always)]
    pub(crate) fn minus(self, part: Bytes) -> Bytes {
        Bytes(self.0.wrapping_sub(part.0))
    }
}

/// A run of leaves of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// log2 of the bytes of one leaf.
    pub size_lg2: u32,
    /// The bytes of all of them, of one at least.
    pub bytes: Bytes,
}

impl Run {
    /// Number of leaves, at least 1.
    #[inline(always)]
    pub(crate) fn count(self) -> u64 {
        self.bytes.count(self.size_lg2)
    }
}

/// The largest leaf that can start at `va` and how many of them may follow each other before a
/// larger one becomes possible, for a mapping of `len` bytes from `va` on to `oa`.
///
/// `sizes` has bit n set when leaves of `2^n` bytes are allowed. `None` if no allowed size fits.
#[inline]
pub(crate) fn best_run(sizes: u64, va: Iova, len: Bytes, oa: Oa) -> Option<Run> {
    let (Iova(va), Bytes(len), Oa(oa)) = (va, len, oa);
    // Without branches, because in a split each leaf may have another size, which would be
    // mispredicted. These are the sizes that the addresses are aligned to and that fit the length:
    let aligned = (va | oa) ^ (va | oa).wrapping_sub(1);
    let short = u64::MAX.wrapping_shr(63u32.wrapping_sub(len.checked_ilog2()?));
    let size_lg2 = (sizes & aligned & short).checked_ilog2()?;

    let whole = u64::MAX.wrapping_shl(size_lg2);
    let larger = sizes & (whole << 1);
    let below_next = larger.wrapping_sub(1) & !larger;
    let mut rest = len.wrapping_sub(1);
    if (va ^ oa) & below_next == 0 {
        // Stop where a larger leaf could start.
        rest = rest.min(!va & below_next);
    }
    Some(Run {
        size_lg2,
        bytes: Bytes(rest.wrapping_add(1) & whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VTD: u64 = (1 << 12) | (1 << 21) | (1 << 30);

    fn best(sizes: u64, va: u64, len: u64, oa: u64) -> Option<Run> {
        best_run(sizes, Iova(va), Bytes(len), Oa(oa))
    }

    #[test]
    fn best_run_takes_the_largest_leaf() {
        let run = best(VTD, 0, 2 << 30, 0).unwrap();
        assert_eq!((run.size_lg2, run.count()), (30, 2));
        // 14 x 2M up to the next 1G boundary: the case that once broke the C code.
        let start = 0x3f_e400u64 << 12;
        let end = 0x4c_0600u64 << 12;
        let run = best(VTD, start, end - start, start).unwrap();
        assert_eq!((run.size_lg2, run.count()), (21, 14));
        // Only 4K alignment of the OA.
        let run = best(VTD, 0, 1 << 30, 0x1000).unwrap();
        assert_eq!((run.size_lg2, run.count()), (12, 1 << 18));
        // The OA is as aligned as the length is large.
        let run = best(VTD, 0, 1 << 21, 1 << 21).unwrap();
        assert_eq!((run.size_lg2, run.count()), (21, 1));
        assert_eq!(best(VTD, 0, 0x800, 0), None);
        assert_eq!(best(VTD, 0, 0, 0), None);
        assert_eq!(best(1 << 12, 0, 1 << 63, 0).unwrap().count(), 1 << 51);
    }

    proptest! {
        // The definition, written out naively: every leaf is aligned and inside; no larger size is
        // allowed at its start; and the run ends where a larger one is allowed, or where no further
        // leaf fits.
        #[test]
        fn best_run_matches_its_definition(
            sizes in any::<u64>(), va in 0u64..1 << 40, pages in 1u64..1 << 20, oa in 0u64..1 << 40,
        ) {
            let sizes = (sizes & !0xfff & ((1 << 41) - 1)) | (1 << 12);
            let (va, oa) = (va & !0xfff, oa & !0xfff);
            let end = va + pages * 4096;
            let at = |va: u64, oa: u64| {
                (12..41).rev().find(|&s| {
                    (sizes >> s) & 1 == 1 && va % (1 << s) == 0 && oa % (1 << s) == 0
                        && va + (1 << s) <= end
                })
            };
            let run = best(sizes, va, end - va, oa).unwrap();
            prop_assert_eq!(Some(run.size_lg2), at(va, oa));
            let step = 1u64 << run.size_lg2;
            for i in (0..run.count()).step_by((run.count() / 8 + 1) as usize) {
                prop_assert!(va + (i + 1) * step <= end);
                // Inside the run the size is right unless the tail is too short for a larger one.
                prop_assert_eq!(Some(run.size_lg2), at(va + i * step, oa + i * step));
            }
        }
    }
}
