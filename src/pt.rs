// SPDX-License-Identifier: GPL-2.0-only

//! One page table, as an operation sees it.

#![forbid(unsafe_code)]

use core::marker::PhantomData;

use crate::fmt::{
    Features,
    Format,
    Params, //
};
use crate::mem::PtMem;
use crate::range::Locked;
use crate::size::{
    self,
    Iova,
    Level, //
};
use crate::table::Table;
use crate::{
    Error,
    Result, //
};

/// The top table: pointer and level, read together.
pub type Top<'t, F, M> = Table<'t, F, M>;

/// What is fixed for the life of a table.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Features and encryption bit.
    pub params: Params,
    /// log2 of the IOVA space, the sign bit included with
    /// [`SIGN_EXTEND`](Features::SIGN_EXTEND).
    pub max_va_lg2: u32,
    /// log2 of the OA space.
    pub max_oa_lg2: u32,
    /// Leaf sizes that may be used, bit n for `2^n` bytes: those of the format, or fewer.
    pub pgsize_bitmap: u64,
}

/// A page table of format `F` in the environment `M`, for the duration of one call.
#[derive(Debug)]
pub struct Pt<'t, F: Format, M: PtMem> {
    pub(crate) mem: &'t M,
    pub(crate) cfg: Config,
    pub(crate) top: Top<'t, F, M>,
    _format: PhantomData<F>,
}

impl<'t, F: Format, M: PtMem> Pt<'t, F, M> {
    /// A view of the table below `top`.
    #[inline(always)]
    pub fn new(mem: &'t M, cfg: Config, top: Top<'t, F, M>) -> Self {
        Pt {
            mem,
            cfg,
            top,
            _format: PhantomData,
        }
    }

    /// The view's configuration.
    #[inline(always)]
    pub fn config(&self) -> &Config {
        &self.cfg
    }

    /// The environment of the call.
    #[inline(always)]
    pub fn mem(&self) -> &'t M {
        self.mem
    }

    #[inline(always)]
    pub(crate) fn has(&self, feature: Features) -> bool {
        F::FEATURES.has(feature) && self.cfg.params.features.has(feature)
    }

    #[inline(always)]
    pub(crate) fn incoherent(&self) -> bool {
        self.has(Features::DMA_INCOHERENT)
    }

    /// The sizes of leaves that may be installed at a level.
    #[inline(always)]
    pub(crate) fn sizes(&self, level: Level) -> u64 {
        F::leaf_sizes(level, &self.cfg.params) & self.cfg.pgsize_bitmap
    }

    /// Whether the table can translate the range; [`Error::OutOfRange`] if not.
    #[inline(always)]
    pub fn check_range(&self, range: Locked) -> Result {
        let lg2 = self.top_va_lg2();
        if F::MAX_VA_LG2 >= 64 && lg2 >= 64 {
            return Ok(());
        }
        let inside = if self.has(Features::SIGN_EXTEND) {
            // All bits from the sign bit on are equal, at both ends.
            let sign = |va: Iova| (va.0 as i64).wrapping_shr(lg2.wrapping_sub(1));
            sign(range.va()) == sign(range.last()) && matches!(sign(range.va()), 0 | -1)
        } else {
            range.last().0.wrapping_shr(lg2) == 0
        };
        if inside {
            Ok(())
        } else {
            Err(Error::OutOfRange)
        }
    }
}

/// The leaf sizes of a table whose top is at `top` (any level the format has, with
/// [`DYNAMIC_TOP`](Features::DYNAMIC_TOP)): the `pgsize_bitmap` of a new domain.
pub fn page_sizes<F: Format>(params: &Params, top: Level, max_va_lg2: u32, max_oa_lg2: u32) -> u64 {
    let dynamic =
        F::FEATURES.has(Features::DYNAMIC_TOP) && params.features.has(Features::DYNAMIC_TOP);
    let highest = if dynamic { F::MAX_TOP_LEVEL } else { top };
    let mut sizes = 0;
    let mut level = Level::LEAF;
    while level <= highest {
        if dynamic && level.item_lg2::<F>() >= max_va_lg2 {
            break;
        }
        sizes |= F::leaf_sizes(level, params);
        level = level.above();
    }
    // A page as large as all of the IOVA space is not allowed.
    sizes & size::max_offset(max_va_lg2.wrapping_sub(1)) & size::max_offset(max_oa_lg2)
}

impl Config {
    /// Lowest and highest IOVA of the space, the lower half of it with
    /// [`SIGN_EXTEND`](Features::SIGN_EXTEND): the aperture of a domain.
    pub fn aperture(&self) -> (Iova, Iova) {
        let lg2 = if self.params.features.has(Features::SIGN_EXTEND) {
            self.max_va_lg2.wrapping_sub(1)
        } else {
            self.max_va_lg2
        };
        (Iova(0), Iova(size::max_offset(lg2)))
    }
}
