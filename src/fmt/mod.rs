// SPDX-License-Identifier: GPL-2.0-only

//! The contract of a page table format: a table of facts about bits.
//!
//! A format never touches memory and knows no algorithm; operations never name a format. All
//! methods are pure functions of their arguments, and small: they are inlined into every loop.
//!
//! # Laws
//!
//! For every level, every size in [`Format::leaf_sizes`], every aligned OA below
//! `2^MAX_OA_LG2` and every `attrs` from [`Format::attrs`] or [`Format::leaf_attrs`]:
//!
//! 1. `kind(encode_leaf(..)) == Leaf`, `kind(encode_table(..)) == Table`, `kind(0) == Empty`.
//! 2. `leaf_oa(encode_leaf(oa, ..)) == oa`, and `contig_lg2` gives the size back; `is_single` is
//!    true for leaves of one item and for nothing else.
//! 3. `leaf_attrs(encode_leaf(.., attrs)) == attrs`: nothing is lost and nothing is added, bits
//!    that are ignored by hardware, encryption and dirty bits included.
//! 4. For an item of a contiguous leaf, 1 to 3 hold whichever item of the group is read.
//! 5. `table_oa(encode_table(oa, ..)) == oa`, with every right that a leaf below might grant.
//! 6. The items of leaves that follow each other are equally far apart as numbers:
//!    `encode_leaf(oa + 2^size_lg2, ..) - encode_leaf(oa, ..)` is the same for every OA.
//! 7. Unless `CONTIG` is set, a leaf takes one item.
//! 8. [`Format::HW_BITS`] are attributes: whichever of them hardware sets in an item, it stays
//!    empty, or a leaf of the same size and OA, and `leaf_attrs` says which are set.
//!
//! The test suite in `tests/judges/src/laws.rs` checks these for every format.

#![forbid(unsafe_code)]

use crate::{
    Bytes,
    Level,
    Oa,
    Result, //
};

pub mod amdv1;
pub mod armv8;
pub mod riscv_64;
pub mod vtdss;
pub mod x86_64;

/// Feature bits, numbered as `enum pt_features`; bits from [`Features::FORMAT_START`] on belong to
/// the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// The hardware does not snoop CPU caches when it reads tables: they must be cleaned.
    pub const DMA_INCOHERENT: Features = Features(1 << 0);
    /// The table spans all 64 bits of IOVA.
    pub const FULL_VA: Features = Features(1 << 1);
    /// The top level may grow while the table is in use.
    pub const DYNAMIC_TOP: Features = Features(1 << 2);
    /// The most significant translated bit extends to bit 63.
    pub const SIGN_EXTEND: Features = Features(1 << 3);
    /// IOTLB flushes are by range.
    pub const FLUSH_RANGE: Features = Features(1 << 4);
    /// As [`Self::FLUSH_RANGE`], but a flush must not cover anything that did not change.
    pub const FLUSH_RANGE_NO_GAPS: Features = Features(1 << 5);
    /// The gather is told which levels changed.
    pub const DETAILED_GATHER: Features = Features(1 << 6);
    /// Number of the first bit that has a meaning of its own in each format.
    pub const FORMAT_START: u32 = 7;

    /// The union of both.
    #[inline(always)]
    pub const fn with(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What one table item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Translates nothing.
    Empty,
    /// Points to a table one level below.
    Table,
    /// Translates, alone or as part of a contiguous leaf.
    Leaf,
}

/// All bits of a leaf item that are neither its address nor its size: rights, memory type, snoop,
/// encryption, accessed and dirty, and those that hardware ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attrs(pub u64);

/// The items of leaves of one size that follow each other, made by adding (law 6).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaves {
    item: u64,
    step: u64,
}

impl Leaves {
    /// Items for leaves of `2^size_lg2` bytes from `oa` on.
    #[inline(always)]
    pub(crate) fn new<F: Format>(oa: Oa, size_lg2: u32, level: Level, attrs: Attrs) -> Self {
        let item = F::encode_leaf(oa, size_lg2, level, attrs);
        let second = F::encode_leaf(oa.plus(Bytes::block(size_lg2)), size_lg2, level, attrs);
        Leaves {
            item,
            step: second.wrapping_sub(item),
        }
    }

    /// The item of the next leaf.
    #[inline(always)]
    pub(crate) fn next_item(&mut self) -> u64 {
        let item = self.item;
        self.item = item.wrapping_add(self.step);
        item
    }
}

/// What a mapping may be used for, numbered as `IOMMU_READ` and friends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prot(pub u32);

impl Prot {
    /// Devices may read.
    pub const READ: Prot = Prot(1 << 0);
    /// Devices may write.
    pub const WRITE: Prot = Prot(1 << 1);
    /// DMA is cache coherent.
    pub const CACHE: Prot = Prot(1 << 2);
    /// Devices may not execute.
    pub const NOEXEC: Prot = Prot(1 << 3);
    /// The OA is device memory.
    pub const MMIO: Prot = Prot(1 << 4);
    /// Only for what devices do with privileges.
    pub const PRIV: Prot = Prot(1 << 5);

    /// The union of both.
    #[inline(always)]
    pub const fn with(self, other: Prot) -> Prot {
        Prot(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Prot) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What may be done to an item while the hardware walks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// A leaf may become a table item (and both translations may be cached for a while).
    pub leaf_to_table: bool,
    /// A table item may become a leaf that translates as all below it did (and both may be cached
    /// for a while).
    pub table_to_leaf: bool,
    /// The items of a contiguous leaf may be rewritten one by one as smaller leaves, and those of
    /// smaller leaves as a contiguous one.
    pub contig_resize: bool,
}

/// Facts about one table that its format's bits depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Features in use.
    pub features: Features,
    /// The memory encryption bit of table items (and of leaves that are not MMIO), or 0.
    pub enc_mask: u64,
}

/// A page table format of 8-byte items. See the [module documentation](self) for its laws.
pub trait Format: 'static {
    /// Short name, as in `pt_iommu_<name>_init`; with the granule, if C has one name for several.
    const NAME: &'static str;
    /// log2 of the smallest leaf, in bytes.
    const GRANULE_LG2: u32;
    /// log2 of the number of items in a table. The top table may be used in part.
    const ITEMS_LG2: u32 = 9;
    /// The highest level a top table may have.
    const MAX_TOP_LEVEL: Level;
    /// Most bits of IOVA that a table can translate.
    const MAX_VA_LG2: u32;
    /// Most bits of OA that an item can hold.
    const MAX_OA_LG2: u32;
    /// Whether there are contiguous leaves, of several items.
    const CONTIG: bool;
    /// Features that the format supports.
    const FEATURES: Features;
    /// What the hardware allows on live items.
    const LIVE: Live;
    /// The dirty bit of a leaf item, set by hardware or by [`crate::Pt::set_dirty`]; 0 if the
    /// format has no dirty tracking.
    const DIRTY: u64;
    /// The bits of a leaf item that hardware may set at any instant, whatever the table is used
    /// for: accessed and dirty. If any other bit of a leaf changes, software changed it.
    const HW_BITS: u64;
    /// A bit of a table item that hardware ignores, which says that the item was cleaned to memory;
    /// 0 if the format does not support [`Features::DMA_INCOHERENT`].
    const CLEANED: u64;
    /// The bits of the address of a top table that the hardware can hold.
    const TOP_OA_MASK: u64;

    /// What `item`, read from a table of this level, is.
    fn kind(item: u64, level: Level) -> Kind;

    /// Where a table item points to.
    fn table_oa(item: u64, params: &Params) -> Oa;

    /// The OA of the start of the leaf that `item` is part of.
    fn leaf_oa(item: u64, level: Level, params: &Params) -> Oa;

    /// log2 of the number of items of the leaf that `item` is part of.
    #[inline(always)]
    fn contig_lg2(_item: u64, _level: Level, _params: &Params) -> u32 {
        0
    }

    /// Whether `item` is a leaf of one item: cheaper than to ask [`Self::kind`] and
    /// [`Self::contig_lg2`].
    #[inline(always)]
    fn is_single(item: u64, level: Level, params: &Params) -> bool {
        Self::kind(item, level) == Kind::Leaf && Self::contig_lg2(item, level, params) == 0
    }

    /// All bits of a leaf item that [`Self::encode_leaf`] does not derive from OA and size.
    fn leaf_attrs(item: u64, level: Level, params: &Params) -> Attrs;

    /// The item, the same for all items of a contiguous leaf, that translates `2^size_lg2` bytes to
    /// `oa`.
    fn encode_leaf(oa: Oa, size_lg2: u32, level: Level, attrs: Attrs) -> u64;

    /// The item of this level that points to the table at `oa`.
    fn encode_table(oa: Oa, level: Level, params: &Params) -> u64;

    /// The leaf sizes of this level, bit n for `2^n` bytes; 0 where no leaf is possible.
    fn leaf_sizes(level: Level, params: &Params) -> u64;

    /// The attributes of a new mapping.
    ///
    /// [`crate::Error::Invalid`] or [`crate::Error::NotSupported`] if the format cannot express it.
    fn attrs(prot: Prot, params: &Params) -> Result<Attrs>;
}
