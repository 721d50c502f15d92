// SPDX-License-Identifier: GPL-2.0-only

//! What a join has to do, computed from numbers alone, as `split_plan.rs` does for a split.

#![forbid(unsafe_code)]

use core::iter;

use super::split_plan::{
    granule,
    Extent,
    Refusal,
    Request,
    Slice, //
};

/// The range of a valid request, and whether its holes are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    range: Extent,
    fill: bool,
}

/// `IOMMU_IOAS_JOIN_FILL`
const FLAG_FILL: u32 = 1;

impl JoinRequest {
    /// Checks everything that can be checked without looking at the IOAS, in the order of the other
    /// ioctls.
    pub fn new(flags: u32, reserved: u32, iova: u64, length: u64) -> Result<Self, Refusal> {
        if flags & !FLAG_FILL != 0 {
            return Err(Refusal::Unsupported);
        }
        Ok(Self {
            range: Request::new(0, reserved, iova, length)?.extent(),
            fill: flags & FLAG_FILL != 0,
        })
    }

    /// The requested range.
    pub fn extent(&self) -> Extent {
        self.range
    }

    /// What is not mapped in the range is to be mapped.
    pub fn fills(&self) -> bool {
        self.fill
    }
}

/// Checks the edges of a hole that is to be mapped against the granule of the IOAS, as for a cut:
/// an edge where a mapping ends or starts may be anywhere.
pub fn check_hole(
    hole: Extent,
    iova_alignment: usize,
    page_size: usize,
    is_mapped: impl Fn(usize) -> bool,
) -> Result<(), Refusal> {
    let mask = granule(iova_alignment, page_size).wrapping_sub(1);
    // An edge at 0, below the first IOVA or behind the last one, is aligned.
    let (first, end) = (hole.first, hole.last.wrapping_add(1));

    if (first & mask == 0 || is_mapped(first.wrapping_sub(1)))
        && (end & mask == 0 || is_mapped(end))
    {
        return Ok(());
    }
    Err(Refusal::Invalid)
}

/// Does `right` go on where `left` ends, in IOVA and in the pages that back both?
pub fn follows(left: Slice, right: Slice, page_size: usize) -> bool {
    left.iova.last.checked_add(1) == Some(right.iova.first)
        && left
            .start_byte(page_size)
            .zip(right.iova.first.checked_sub(left.iova.first))
            .and_then(|(start, length)| start.checked_add(length))
            .is_some_and(|end| right.start_byte(page_size) == Some(end))
}

impl Slice {
    fn start_byte(&self, page_size: usize) -> Option<usize> {
        self.first_index
            .checked_mul(page_size)?
            .checked_add(self.page_offset)
    }
}

/// No leaf is made larger than that. Some formats have larger ones (AMD's up to 2^51 bytes), and a
/// join of one page would have to look at all that could be a part of the same leaf.
const LARGEST_LEAF: usize = 1 << 30;

/// The part of `area` that a leaf can have which has a byte of `range`: whatever a join of the
/// range makes lies in there. Both have a byte in common.
pub fn reach(range: Extent, area: Extent, pgsize_bitmap: usize) -> Extent {
    let sizes = pgsize_bitmap & (LARGEST_LEAF | LARGEST_LEAF.wrapping_sub(1));
    // A leaf is aligned to its size, and no size is larger.
    let largest = sizes.checked_ilog2().unwrap_or(0);
    let mask = 1usize.wrapping_shl(largest).wrapping_sub(1);

    Extent {
        first: area.first.max(range.first & !mask),
        last: area.last.min(range.last | mask),
    }
}

/// A range in pieces that take a bounded time. No leaf that a join makes lies in two of them.
pub fn blocks(range: Extent) -> impl Iterator<Item = Extent> {
    let mut next = Some(range.first);

    iter::from_fn(move || {
        let first = next?;
        let last = range.last.min(first | LARGEST_LEAF.wrapping_sub(1));

        next = last.checked_add(1).filter(|_| last < range.last);
        Some(Extent { first, last })
    })
}
