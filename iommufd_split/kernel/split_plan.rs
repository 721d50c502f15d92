// SPDX-License-Identifier: GPL-2.0-only

//! What a split has to do, computed from numbers alone.
//!
//! This file holds every decision of `IOMMU_IOAS_SPLIT` that needs no lock and no kernel object:
//! is the request valid, which areas are cut and where, can a large leaf be in the way, and which
//! of the pins each part gets. It serves the kernel module and a host crate from the same source;
//! the tests are in the host crate.
//!
//! Words: an *area* is one mapping of an IOAS. A *cut* is the IOVA of the first byte to the right
//! of an edge. `first` and `last` are inclusive, so that a range may end at the last IOVA of all.

#![forbid(unsafe_code)]

/// Why a split is refused. Nothing has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The caller asked wrongly: length 0, or an unaligned edge where no mapping ends. `EINVAL`
    Invalid,
    /// The range does not fit the IOVA space. `EOVERFLOW`
    Overflow,
    /// A part of the range is not mapped. `ENOENT`
    NotMapped,
    /// Unknown flags, or a mapping that cannot be cut, now or later. `EOPNOTSUPP`
    Unsupported,
    /// Somebody else uses a mapping in a way that forbids the cut for now. `EBUSY`
    Busy,
}

/// A non-empty inclusive range of IOVA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First IOVA.
    pub first: usize,
    /// Last IOVA, not smaller than `first`.
    pub last: usize,
}

impl Extent {
    /// Does the other one lie inside?
    pub fn holds(&self, other: Extent) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Does the naturally aligned block of `size` bytes around `iova` lie inside? `size` is a
    /// power of two.
    fn holds_block(&self, iova: usize, size: usize) -> bool {
        let mask = size.wrapping_sub(1);

        (iova & !mask) >= self.first && (iova | mask) <= self.last
    }
}

/// What the edges of new areas are aligned to.
///
/// `iova_alignment` is a power of two. It is 1 as long as neither a domain nor an access has asked
/// for more. Areas cut finer than a page would then refuse every later attach, which nobody can
/// mean, so the page size takes its place: a domain never needs more than that.
pub(super) fn granule(iova_alignment: usize, page_size: usize) -> usize {
    if iova_alignment == 1 {
        page_size
    } else {
        iova_alignment
    }
}

/// The range of a valid request, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    extent: Extent,
    carve: bool,
}

/// `IOMMU_IOAS_SPLIT_UNMAP`
const FLAG_UNMAP: u32 = 1;

impl Request {
    /// Checks everything that can be checked without looking at the IOAS.
    ///
    /// The order is that of the other ioctls: what this kernel does not know comes first, what
    /// cannot be represented next.
    pub fn new(flags: u32, reserved: u32, iova: u64, length: u64) -> Result<Self, Refusal> {
        if flags & !FLAG_UNMAP != 0 || reserved != 0 {
            return Err(Refusal::Unsupported);
        }

        let first = usize::try_from(iova).map_err(|_| Refusal::Overflow)?;
        let length = usize::try_from(length).map_err(|_| Refusal::Overflow)?;
        let Some(to_last) = length.checked_sub(1) else {
            return Err(Refusal::Invalid);
        };
        let last = first.checked_add(to_last).ok_or(Refusal::Overflow)?;

        Ok(Self {
            extent: Extent { first, last },
            carve: flags & FLAG_UNMAP != 0,
        })
    }

    /// The range is to be unmapped, and not to become a mapping of its own.
    pub fn is_carve(&self) -> bool {
        self.carve
    }

    /// The requested range.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Checks the edges against the granule of the IOAS.
    ///
    /// An edge where a mapping starts or ends already cuts nothing, so it may be anywhere, as for
    /// an unmap. `mapping_of` finds what the mapping of an IOVA covers. It is not asked about edges
    /// that are aligned.
    pub fn check_alignment(
        &self,
        iova_alignment: usize,
        page_size: usize,
        mapping_of: impl Fn(usize) -> Option<Extent>,
    ) -> Result<(), Refusal> {
        let mask = granule(iova_alignment, page_size).wrapping_sub(1);
        let Extent { first, last } = self.extent;
        let starts = || mapping_of(first).is_some_and(|mapping| mapping.first == first);
        let ends = || mapping_of(last).is_some_and(|mapping| mapping.last == last);

        // The edge behind the last IOVA of all is 0, which is aligned.
        if (first & mask == 0 || starts()) && (last.wrapping_add(1) & mask == 0 || ends()) {
            return Ok(());
        }
        Err(Refusal::Invalid)
    }

    /// Where the edges of the range cut `area`.
    pub fn cuts(&self, area: Extent) -> Cuts {
        let inside = |cut: usize| cut > area.first && cut <= area.last;
        let left = Some(self.extent.first).filter(|cut| inside(*cut));
        let right = self.extent.last.checked_add(1).filter(|cut| inside(*cut));

        Cuts { left, right }
    }
}

/// The cuts of one area, in ascending order. Each lies strictly inside the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// The range starts here.
    pub left: Option<usize>,
    /// The range has ended here.
    pub right: Option<usize>,
}

impl Cuts {
    /// The area stays as it is.
    pub fn is_empty(&self) -> bool {
        self.left.is_none() && self.right.is_none()
    }

    /// The cuts from left to right.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.left.into_iter().chain(self.right)
    }

    /// The part of `area` that lies in the requested range: its ends are cuts or ends of the area.
    pub fn middle(&self, area: Extent) -> Extent {
        Extent {
            first: self.left.unwrap_or(area.first),
            // A cut is above `area.first`, so it is not 0.
            last: self
                .right
                .map_or(area.last, |right| right.saturating_sub(1)),
        }
    }

    /// May a leaf of an IOMMU page table reach across one of the cuts?
    ///
    /// A leaf of size S is aligned to S in IOVA, and was made by mapping inside the area. So it
    /// crosses a cut only if the S-aligned block around the cut lies inside the area. Whether the
    /// physical addresses allowed such a leaf is not known here, hence "may".
    pub fn leaf_may_cross(&self, area: Extent, pgsize_bitmap: usize) -> bool {
        let crosses = |size: usize, cut: usize| {
            cut & size.wrapping_sub(1) != 0 && area.holds_block(cut, size)
        };
        let mut sizes = pgsize_bitmap;

        while sizes != 0 {
            // The lowest bit, and the others without it.
            let size = sizes & sizes.wrapping_neg();
            sizes ^= size;

            if self.iter().any(|cut| crosses(size, cut)) {
                return true;
            }
        }
        false
    }
}

/// An area as a slice of the pages that back it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The IOVA it covers.
    pub iova: Extent,
    /// Index of the page that holds the first byte.
    pub first_index: usize,
    /// Index of the page that holds the last byte.
    pub last_index: usize,
    /// Offset of the first byte in its page.
    pub page_offset: usize,
}

impl Slice {
    /// Cuts in two at `cut`, the first IOVA of the right part.
    ///
    /// Every IOVA keeps its byte. If the cut is not at a page boundary of the backing pages, then
    /// both parts hold the page that is cut. `None` if `cut` is not strictly inside.
    pub fn cut(self, cut: usize, page_size: usize) -> Option<(Self, Self)> {
        if cut <= self.iova.first || cut > self.iova.last {
            return None;
        }

        // Byte of the cut, counted from the start of the first page.
        let bytes = cut
            .checked_sub(self.iova.first)?
            .checked_add(self.page_offset)?;
        let last_byte = bytes.checked_sub(1)?;

        let left = Self {
            iova: Extent {
                first: self.iova.first,
                last: cut.checked_sub(1)?,
            },
            last_index: self
                .first_index
                .checked_add(last_byte.checked_div(page_size)?)?,
            ..self
        };
        let right = Self {
            iova: Extent {
                first: cut,
                last: self.iova.last,
            },
            first_index: self
                .first_index
                .checked_add(bytes.checked_div(page_size)?)?,
            last_index: self.last_index,
            page_offset: bytes.checked_rem(page_size)?,
        };
        Some((left, right))
    }

    /// Cuts in up to three.
    pub fn cut_all(self, cuts: Cuts, page_size: usize) -> Option<Parts> {
        let (below, rest) = match cuts.left {
            Some(cut) => {
                let (below, rest) = self.cut(cut, page_size)?;
                (Some(below), rest)
            }
            None => (None, self),
        };
        let (middle, above) = match cuts.right {
            Some(cut) => {
                let (middle, above) = rest.cut(cut, page_size)?;
                (middle, Some(above))
            }
            None => (rest, None),
        };

        Some(Parts {
            below,
            middle,
            above,
        })
    }

    /// Are all of these pages in the slice?
    fn holds(&self, first_index: usize, last_index: usize) -> bool {
        self.first_index <= first_index && last_index <= self.last_index
    }

    /// Is any of these pages in the slice?
    fn touches(&self, first_index: usize, last_index: usize) -> bool {
        self.first_index <= last_index && first_index <= self.last_index
    }
}

/// What an area is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Below the requested range.
    pub below: Option<Slice>,
    /// In the requested range.
    pub middle: Slice,
    /// Above the requested range.
    pub above: Option<Slice>,
}

/// One of the [`Parts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Below,
    Middle,
    Above,
}

impl Parts {
    /// The part that has all of these pages, of which the others have none; `None` if there is no
    /// such part.
    ///
    /// A cut that is not at a page boundary leaves its page in both parts, and nobody wrote down on
    /// which side of the cut a pin of that page ends.
    fn holder(&self, first_index: usize, last_index: usize) -> Option<Part> {
        let touches = |part: &Slice| part.touches(first_index, last_index);

        match (
            self.below.as_ref().is_some_and(touches),
            touches(&self.middle),
            self.above.as_ref().is_some_and(touches),
        ) {
            (true, false, false) => Some(Part::Below),
            (false, true, false) => Some(Part::Middle),
            (false, false, true) => Some(Part::Above),
            _ => None,
        }
    }
}

/// How often pages are pinned by accesses, and how many of these pins belong to hardware queues,
/// which lock the area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// All pins.
    pub accesses: u32,
    /// Those of hardware queues.
    pub locks: u32,
}

impl Pins {
    fn plus(self, other: Self) -> Self {
        Self {
            accesses: self.accesses.saturating_add(other.accesses),
            locks: self.locks.saturating_add(other.locks),
        }
    }
}

/// A range of pages that is pinned, through this area or through another one that shares the pages.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    /// Index of its first page.
    pub first_index: usize,
    /// Index of its last page.
    pub last_index: usize,
    /// How often.
    pub pins: Pins,
}

/// What each of the [`Parts`] gets of the pins of the area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Goes to [`Parts::below`].
    pub below: Pins,
    /// Goes to [`Parts::middle`].
    pub middle: Pins,
    /// Goes to [`Parts::above`].
    pub above: Pins,
}

impl Shares {
    /// Hands the pins of `area` on to its parts.
    ///
    /// The area knows how many there are, the pages know where, but not through which area. So
    /// there is an answer only if nobody else can be meant:
    ///
    /// - a pin that lies in the area but in none of its parts may be the area's, and then it is
    ///   cut;
    /// - else, if all pins that lie in the area add up to its own, each goes where it lies;
    /// - else, if they all lie in one part, the area's are among them.
    ///
    /// All other cases are refused. `pinned` has every pin that shares a page with the area; those
    /// that reach out of it are another area's.
    pub fn new(
        area: Slice,
        parts: Parts,
        pins: Pins,
        pinned: impl Iterator<Item = Pinned>,
    ) -> Result<Self, Refusal> {
        let mut shares = Self::default();

        if pins == Pins::default() {
            return Ok(shares);
        }
        for pin in pinned.filter(|pin| area.holds(pin.first_index, pin.last_index)) {
            let share = match parts.holder(pin.first_index, pin.last_index) {
                Some(Part::Below) => &mut shares.below,
                Some(Part::Middle) => &mut shares.middle,
                Some(Part::Above) => &mut shares.above,
                None => return Err(Refusal::Busy),
            };
            *share = share.plus(pin.pins);
        }
        if shares.below.plus(shares.middle).plus(shares.above) == pins {
            return Ok(shares);
        }

        let none = Pins::default();
        match (
            shares.below != none,
            shares.middle != none,
            shares.above != none,
        ) {
            (true, false, false) => shares.below = pins,
            (false, true, false) => shares.middle = pins,
            (false, false, true) => shares.above = pins,
            _ => return Err(Refusal::Busy),
        }
        Ok(shares)
    }
}
