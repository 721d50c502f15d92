// SPDX-License-Identifier: GPL-2.0-only

//! IOVA ranges, and the evidence that they are locked.

use crate::{
    Bytes,
    Error,
    Iova,
    Result, //
};

/// A non-empty range of IOVA, `va..=last`, that the caller holds locked.
///
/// A leaf is removed or replaced as a whole, even if an operation was asked for a part of it. So
/// such an operation needs the lock over more than its range: two splits of one leaf exclude each
/// other, wherever in the leaf their ranges are.
///
/// # Invariants
///
/// 1. `va <= last`.
/// 2. For as long as the value exists, no other operation on the same table works on an address of
///    the range: the range lock of `pt_iommu_ops` (exclusive, or shared for operations that only
///    read). Only [`iova_to_phys`](crate::Pt::iova_to_phys) and [`split`](crate::Pt::split) may
///    overlap with each other.
/// 3. In a value for [`split`](crate::Pt::split), [`carve`](crate::Pt::carve) or
///    [`unmap`](crate::Pt::unmap), 2 is true for all
///    addresses of each leaf that crosses an edge of the range, too.
/// 4. In a value for [`join`](crate::Pt::join), 2 is true for
///    [`iova_to_phys`](crate::Pt::iova_to_phys) as well, whatever lock its caller holds: a join
///    frees tables of the range, in which it might be.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    va: Iova,
    last: Iova,
}

impl Locked {
    /// Makes the evidence, from the caller's promise that `len` bytes from `va` are locked.
    ///
    /// Errors: [`Error::Invalid`] if `len` is 0, [`Error::Overflow`] if the end does not fit.
    ///
    /// # Safety
    ///
    /// For as long as the value or a copy of it is used, the caller holds the range lock over the
    /// range, exclusively if it is given to an operation that changes the table.
    ///
    /// If it is given to [`split`](crate::Pt::split), [`carve`](crate::Pt::carve) or
    /// [`unmap`](crate::Pt::unmap), the caller holds the lock over all of each leaf that crosses an
    /// edge of the range, too, exclusively. The result of a split,
    /// [`SplitFlush`](crate::SplitFlush), counts as a copy.
    ///
    /// If it is given to [`join`](crate::Pt::join), the caller keeps
    /// [`iova_to_phys`](crate::Pt::iova_to_phys) out of the range, too, by a lock or otherwise.
    #[inline]
    pub unsafe fn new(va: Iova, len: Bytes) -> Result<Self> {
        if len == Bytes(0) {
            return Err(Error::Invalid);
        }
        // INVARIANT: 1 by the checked sum, 2 to 4 by the safety requirement.
        match va.0.checked_add(len.minus(Bytes(1)).0) {
            Some(last) => Ok(Locked {
                va,
                last: Iova(last),
            }),
            None => Err(Error::Overflow),
        }
    }

    /// The part of the range from `va` to `last`; `None` if that is empty.
    ///
    /// A leaf may cross an edge of the part only where that is an edge of the range, too.
    #[inline(always)]
    pub(crate) fn part(self, va: Iova, last: Iova) -> Option<Self> {
        let inside = self.va <= va && va <= last && last <= self.last;
        // INVARIANT: 1 by the comparison, 2 and 4 as a part of this range, 3 by what the caller
        // ensures.
        inside.then_some(Locked { va, last })
    }

    /// First address.
    #[inline(always)]
    pub fn va(self) -> Iova {
        self.va
    }

    /// Last address, inclusive.
    #[inline(always)]
    pub fn last(self) -> Iova {
        self.last
    }

    /// Length; 0 stands for 2^64.
    #[inline(always)]
    pub fn len(self) -> Bytes {
        self.va.through(self.last)
    }

    /// Always false; a range has at least one byte.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        false
    }
}
