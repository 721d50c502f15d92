// SPDX-License-Identifier: GPL-2.0-only

//! Tables whose top level grows while they are in use.
//!
//! A new top table is complete before hardware learns of it: its item 0 points to the old top, all
//! others are empty. What was mapped translates as before through either top, and what the new
//! level adds is empty in both, so neither is ever wrong in a cache.

#![forbid(unsafe_code)]

use crate::fmt::{
    Features,
    Format, //
};
use crate::mem::PtMem;
use crate::range::Locked;
use crate::size::{
    self,
    Level, //
};
use crate::{
    Error,
    Pt,
    Result, //
};

impl<F: Format, M: PtMem> Pt<'_, F, M> {
    /// log2 of the IOVA space below the current top.
    #[inline(always)]
    pub(crate) fn top_va_lg2(&self) -> u32 {
        if self.has(Features::DYNAMIC_TOP) && self.top.level() != F::MAX_TOP_LEVEL {
            let below_top = self.top.item_lg2().wrapping_add(F::ITEMS_LG2);
            self.cfg.max_va_lg2.min(below_top)
        } else {
            self.cfg.max_va_lg2
        }
    }

    /// The same table under a top that serves `range` and leaves of `level`, grown if need be.
    ///
    /// Errors: [`Error::OutOfRange`], those of [`PtMem::alloc`].
    #[inline(always)]
    pub(crate) fn reach(&self, range: Locked, level: Level) -> Result<Self> {
        if !self.has(Features::DYNAMIC_TOP) {
            return self.check_range(range).map(|()| *self);
        }
        if self.check_range(range).is_ok() && self.top.level() >= level {
            return Ok(*self);
        }
        self.grow(range, level)
    }

    #[cold]
    fn grow(&self, range: Locked, level: Level) -> Result<Self> {
        // Only grow the top if the range fits then.
        let outside = !size::max_offset(self.cfg.max_va_lg2);
        if range.last().0 & outside != 0 || level > F::MAX_TOP_LEVEL {
            return Err(Error::OutOfRange);
        }
        let mut pt = *self;
        while pt.check_range(range).is_err() || pt.top.level() < level {
            let above = pt.top.level().above();
            if above > F::MAX_TOP_LEVEL || above.item_lg2::<F>() >= pt.cfg.max_va_lg2 {
                return Err(Error::OutOfRange);
            }
            pt.top = pt.add_top(above)?;
        }
        Ok(pt)
    }
}
