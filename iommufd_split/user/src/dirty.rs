// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What devices have written to, for migration.

use iommufd_bindings::iommufd::{
    iommu_hwpt_get_dirty_bitmap,
    iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
};
use iommufd_ioctls::IommuFd;

use crate::ioctls::{page_size, some_pages, Ioctls};
use crate::Result;

/// Whether a page that is reported is clean afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clear {
    /// It is reported again when a device has written to it again.
    Yes,
    /// It is reported again by the next read. For memory that is unmapped next, as that spares a
    /// flush.
    No,
}

/// Bits that a kernel can write to: whole pages of memory, and no others.
///
/// A kernel without `patches/0019` sets bits behind those that were asked for, up to the end of the
/// page that they are in, if the last IOPTE reaches that far.
pub(crate) struct Bits {
    words: Vec<u64>,
    /// The first word that starts a page.
    first: usize,
    /// How many bits are asked for.
    count: u64,
}

impl Bits {
    pub(crate) fn new(count: u64) -> Self {
        let page = page_size() as usize / size_of::<u64>();
        let pages = (count as usize).div_ceil(u64::BITS as usize).div_ceil(page);
        let words = vec![0u64; (pages + 1) * page];
        let first = words.as_ptr().align_offset(page_size() as usize);
        Self {
            words,
            first,
            count,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whole pages.
    pub(crate) fn pages(&mut self) -> &mut [u64] {
        let page = page_size() as usize / size_of::<u64>();
        let end = self.first + (self.words.len() / page - 1) * page;
        &mut self.words[self.first..end]
    }

    #[cfg(test)]
    pub(crate) fn set(&mut self, i: u64) {
        self.pages()[(i / 64) as usize] |= 1 << (i % 64);
    }

    fn is_set(&self, i: u64) -> bool {
        self.words[self.first + (i / 64) as usize] & 1 << (i % 64) != 0
    }

    /// The runs of bits that are set, as first bit and number.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < self.count && !self.is_set(at) {
                // Most words are 0.
                let word = self.words[self.first + (at / 64) as usize];
                at += if word == 0 { 64 - at % 64 } else { 1 };
            }
            let start = at;
            while at < self.count && self.is_set(at) {
                at += 1;
            }
            (start < at).then(|| (start, at - start))
        })
    }
}

/// Calls `dirty` with every run of pages (IOVA, bytes) of the range that devices have written to
/// through this HWPT.
///
/// One ioctl. **The range should begin and end where mappings do, and have no holes**: only that is
/// right on every kernel. Linux 7.3 without the fixes of this crate's repository reports nothing
/// behind a hole, and forgets about the rest of a large IOPTE of which a part is read.
/// [`Tracker::read_dirty`](crate::Tracker::read_dirty) sees to it.
///
/// # Errors
///
/// [`SplitError::Range`](crate::SplitError::Range) for what is not made of whole pages;
/// [`SplitError::DirtyBitmap`](crate::SplitError::DirtyBitmap) with the kernel's errno. What
/// `dirty` was called with by then has been dirty, and may be clean now.
pub fn read_dirty(
    iommufd: &IommuFd,
    hwpt_id: u32,
    iova: u64,
    length: u64,
    clear: Clear,
    mut dirty: impl FnMut(u64, u64),
) -> Result<()> {
    read(iommufd, hwpt_id, iova, length, clear, &mut dirty)
}

pub(crate) fn read(
    iommufd: &dyn Ioctls,
    hwpt_id: u32,
    iova: u64,
    length: u64,
    clear: Clear,
    dirty: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let page_size = page_size();
    some_pages(iova, length, page_size)?;
    let mut bits = Bits::new(length / page_size);
    let mut get = iommu_hwpt_get_dirty_bitmap {
        size: size_of::<iommu_hwpt_get_dirty_bitmap>() as u32,
        hwpt_id,
        flags: match clear {
            Clear::Yes => 0,
            Clear::No => iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
        },
        iova,
        length,
        page_size,
        ..Default::default()
    };
    let done = iommufd.dirty_bitmap(&mut get, &mut bits);
    // After an error, too: what was reported is not dirty any more.
    for (first, count) in bits.runs() {
        dirty(iova + first * page_size, count * page_size);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitError;
    use std::collections::BTreeSet;
    use std::fs::File;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_the_bits(
            count in 1..5000u64,
            set in proptest::collection::btree_set(0..5000u64, 0..200),
        ) {
            let set: BTreeSet<u64> = set.into_iter().filter(|i| *i < count).collect();
            let mut bits = Bits::new(count);
            for &i in &set {
                bits.set(i);
            }
            let runs: Vec<_> = bits.runs().collect();
            prop_assert!(runs.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0));
            let all: BTreeSet<u64> = runs.iter().flat_map(|&(at, n)| at..at + n).collect();
            prop_assert_eq!(all, set);
        }
    }

    /// What a kernel may write to is whole pages, and all bits are in them.
    #[test]
    fn bits_are_in_pages_of_their_own() {
        let bits_per_page = page_size() * 8;
        for count in [1, 64, bits_per_page - 1, bits_per_page, bits_per_page + 1] {
            let mut bits = Bits::new(count);
            let pages = bits.pages();
            assert!((pages.as_ptr() as usize).is_multiple_of(page_size() as usize));
            assert_eq!(
                size_of_val(pages) as u64,
                count.div_ceil(bits_per_page) * page_size()
            );
        }
    }

    #[test]
    fn ranges_are_whole_pages() {
        let iommufd = IommuFd::new_from_fd(File::open("/dev/null").unwrap());
        let page = page_size();
        let last = u64::MAX - page + 1;
        for (iova, length) in [(0, 0), (1, page), (0, page + 8), (last, 2 * page)] {
            let done = read_dirty(&iommufd, 1, iova, length, Clear::Yes, |_, _| ());
            assert!(matches!(done, Err(SplitError::Range { .. })), "{done:?}");
        }
        for iova in [0, last] {
            let done = read_dirty(&iommufd, 1, iova, page, Clear::Yes, |_, _| ());
            assert_eq!(done.unwrap_err().errno(), Some(libc::ENOTTY));
        }
    }
}
