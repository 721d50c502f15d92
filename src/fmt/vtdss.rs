// SPDX-License-Identifier: GPL-2.0-only

//! Intel VT-d second-stage tables, 3 to 5 levels.
//!
//! Intel Virtualization Technology for Directed I/O, Architecture Specification:
//! section 3.7 "Second-Stage Translation", section 9.8 "Second-Stage Paging Entries".
//!
//! | level | name in the specification |
//! |---|---|
//! | 0 | SS-PTE |
//! | 1 | SS-PDE |
//! | 2 | SS-PDPTE |
//! | 3 | SS-PML4E |
//! | 4 | SS-PML5E |

#![forbid(unsafe_code)]

use super::{
    Attrs,
    Features,
    Format,
    Kind,
    Live,
    Params,
    Prot, //
};
use crate::size;
use crate::{
    Error,
    Level,
    Oa,
    Result, //
};

/// Read access.
const R: u64 = 1 << 0;
/// Write access.
const W: u64 = 1 << 1;
/// Page size: a leaf above level 0. Ignored (and never set) in an SS-PTE.
const PS: u64 = 1 << 7;
/// Accessed, set by hardware if SSADS is enabled.
const A: u64 = 1 << 8;
/// Dirty, set by hardware in a leaf if SSADS is enabled.
const D: u64 = 1 << 9;
/// Ignored by hardware; the first software bit of the C format, with the same use.
const SW0: u64 = 1 << 10;
/// Snoop.
const SNP: u64 = 1 << 11;
/// Output or table address.
const OA: u64 = ((1 << 52) - 1) & !0xfff;

/// VT-d second stage.
#[derive(Debug)]
pub enum Vtdss {}

impl Vtdss {
    /// Set SNP in every leaf.
    pub const FORCE_COHERENCE: Features = Features(1 << Features::FORMAT_START);
    /// Refuse read-only leaves: errata SPR17.
    pub const FORCE_WRITEABLE: Features = Features(1 << (Features::FORMAT_START + 1));
}

impl Format for Vtdss {
    const NAME: &'static str = "vtdss";
    const GRANULE_LG2: u32 = 12;
    const MAX_TOP_LEVEL: Level = Level(4);
    const MAX_VA_LG2: u32 = 57;
    const MAX_OA_LG2: u32 = 52;
    const CONTIG: bool = false;
    const FEATURES: Features = Features::FLUSH_RANGE
        .with(Features::DMA_INCOHERENT)
        .with(Self::FORCE_COHERENCE)
        .with(Self::FORCE_WRITEABLE);
    // The IOTLB may hold a page in several sizes and use any of them (section 6.2.4); no
    // break-before-make is asked for.
    const LIVE: Live = Live {
        leaf_to_table: true,
        table_to_leaf: true,
        contig_resize: true,
    };
    const DIRTY: u64 = D;
    const HW_BITS: u64 = A | D;
    const CLEANED: u64 = SW0;
    const TOP_OA_MASK: u64 = !0xfff;

    #[inline(always)]
    fn kind(item: u64, level: Level) -> Kind {
        // There is no present bit: R or W make an entry present, and one of them is always set.
        if item & !Self::HW_BITS == 0 {
            Kind::Empty
        } else if level.0 == 0 || (level.0 <= 2 && item & PS != 0) {
            Kind::Leaf
        } else {
            Kind::Table
        }
    }

    #[inline(always)]
    fn table_oa(item: u64, _params: &Params) -> Oa {
        Oa(item & OA)
    }

    #[inline(always)]
    fn leaf_oa(item: u64, _level: Level, _params: &Params) -> Oa {
        Oa(item & OA)
    }

    #[inline(always)]
    fn leaf_attrs(item: u64, _level: Level, _params: &Params) -> Attrs {
        Attrs(item & !(OA | PS))
    }

    #[inline(always)]
    fn encode_leaf(Oa(oa): Oa, _size_lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let ps = if level.0 == 0 { 0 } else { PS };
        (oa & OA) | ps | attrs.0
    }

    #[inline(always)]
    fn encode_table(Oa(oa): Oa, _level: Level, _params: &Params) -> u64 {
        // Rights are the AND over all levels: the leaf alone decides.
        (oa & OA) | R | W
    }

    #[inline(always)]
    fn leaf_sizes(level: Level, _params: &Params) -> u64 {
        if level.0 <= 2 {
            size::pow2(level.item_lg2::<Self>())
        } else {
            0
        }
    }

    #[inline(always)]
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs> {
        let mut bits = 0;
        if prot.has(Prot::READ) {
            bits |= R;
        }
        if prot.has(Prot::WRITE) {
            bits |= W;
        } else if params.features.has(Self::FORCE_WRITEABLE) {
            return Err(Error::Invalid);
        }
        if bits == 0 {
            return Err(Error::Invalid);
        }
        if params.features.has(Self::FORCE_COHERENCE) {
            bits |= SNP;
        }
        Ok(Attrs(bits))
    }
}
