// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Dirty bits of what is mapped, whatever holes it has.

use super::Tracker;
use crate::dirty::{read, Clear};
use crate::Result;

impl Tracker {
    /// Calls `dirty` with every run of pages (IOVA, bytes) that devices of an IOAS have written to
    /// through one of its HWPTs.
    ///
    /// All mappings that the range touches are read as a whole, so pages beside the range may be
    /// reported: **all that is reported counts**, as it is clean after that. Holes are left out.
    /// That is right on every kernel, see [`read_dirty`](crate::read_dirty), and takes one ioctl
    /// for each run of mappings.
    ///
    /// Every HWPT of the IOAS that tracks has its own dirty bits. Those of a range that is to
    /// become private are gone with it: [`Self::prepare`] and then this, with [`Clear::No`], if its
    /// contents matter.
    ///
    /// # Errors
    ///
    /// [`SplitError::NoIoas`](crate::SplitError::NoIoas),
    /// [`SplitError::Range`](crate::SplitError::Range);
    /// [`SplitError::DirtyBitmap`](crate::SplitError::DirtyBitmap) with the kernel's errno: what
    /// `dirty` was not called with is still dirty if it was.
    pub fn read_dirty(
        &self,
        ioas_id: u32,
        hwpt_id: u32,
        iova: u64,
        length: u64,
        clear: Clear,
        mut dirty: impl FnMut(u64, u64),
    ) -> Result<()> {
        let range = self.range(iova, length)?;
        let ioas = &self.ioases[self.index(ioas_id)?];
        for run in ioas.areas.runs(&ioas.areas.widened(&range)) {
            let iommufd = ioas.memory.ioctls();
            read(
                iommufd,
                hwpt_id,
                run.start,
                run.end - run.start,
                clear,
                &mut dirty,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::ioctls::page_size;
    use crate::model::{Kernel, Knows};
    use crate::{Granularity, Permissions, SharedMemory, Source};

    fn tracker(kernel: &Arc<Kernel>, granularity: Granularity) -> Tracker {
        let page = page_size();
        kernel.add_ioas(1, granularity == Granularity::Whole);
        let kernel = Arc::clone(kernel);
        let memory = SharedMemory::with_ioctls(kernel, 1.into(), granularity).unwrap();
        let mut tracker = Tracker::new();
        tracker.add_ioas(memory).unwrap();
        let file = Source::file(File::open("/dev/null").unwrap(), 0);
        tracker
            .add_region(0, 256 * page, file, Permissions::ReadWrite)
            .unwrap();
        tracker.set_shared(0, 256 * page).unwrap();
        tracker
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// The model's kernel is of the kind that stops at a hole and forgets the rest of a mapping
        /// that it reads a part of.
        #[test]
        fn nothing_dirty_is_missed(
            whole in any::<bool>(),
            holes in proptest::collection::vec((0..256u64, 1..40u64), 0..8),
            refilled in proptest::collection::vec((0..256u64, 1..40u64), 0..3),
            written in proptest::collection::btree_set(0..256u64, 0..60),
            reads in proptest::collection::vec((0..256u64, 1..=256u64), 0..4),
        ) {
            let page = page_size();
            let kernel = Kernel::new(Knows::ALL);
            let granularity = if whole { Granularity::Whole } else { Granularity::Pieces(page) };
            let mut tracker = tracker(&kernel, granularity);
            let clipped = |from: u64, n: u64| (from * page, n.min(256 - from) * page);
            for (from, n) in holes {
                let (iova, length) = clipped(from, n);
                tracker.set_private(iova, length).unwrap();
            }
            for (from, n) in refilled {
                let (iova, length) = clipped(from, n);
                tracker.set_shared(iova, length).unwrap();
            }
            let mapped = kernel.pages(1);
            let written: BTreeSet<u64> = written
                .into_iter()
                .map(|p| p * page)
                .filter(|at| mapped.contains_key(at))
                .collect();
            for &at in &written {
                kernel.write(1, at);
            }
            let mut reported = BTreeSet::new();
            let mut read = |tracker: &Tracker, iova, length, clear| {
                let mut now = BTreeSet::new();
                tracker
                    .read_dirty(1, 1, iova, length, clear, |at, n| {
                        now.extend((at..at + n).step_by(page as usize));
                    })
                    .unwrap();
                let within = written.iter().filter(|at| (iova..iova + length).contains(*at));
                let missed: Vec<_> = within
                    .filter(|at| !now.contains(*at) && !reported.contains(*at))
                    .collect();
                assert!(missed.is_empty(), "{missed:x?}");
                reported.extend(now.iter().copied());
                now
            };
            let first = read(&tracker, 0, 256 * page, Clear::No);
            prop_assert_eq!(&read(&tracker, 0, 256 * page, Clear::No), &first);
            let mut cleared = BTreeSet::new();
            for (from, n) in reads {
                let (iova, length) = clipped(from, n);
                cleared.extend(read(&tracker, iova, length, Clear::Yes));
            }
            cleared.extend(read(&tracker, 0, 256 * page, Clear::Yes));
            prop_assert_eq!(cleared, first);
            prop_assert!(read(&tracker, 0, 256 * page, Clear::Yes).is_empty());
        }
    }

    #[test]
    fn what_was_read_before_an_error_is_told() {
        let page = page_size();
        let kernel = Kernel::new(Knows::ALL);
        let mut tracker = tracker(&kernel, Granularity::Whole);
        tracker.set_private(10 * page, page).unwrap();
        kernel.write(1, 9 * page);
        kernel.write(1, 11 * page);
        let mut told = Vec::new();
        kernel.arm(&[None, Some(0)]);
        let done = tracker.read_dirty(1, 1, 0, 256 * page, Clear::Yes, |at, n| told.push((at, n)));
        assert_eq!(done.unwrap_err().errno(), Some(libc::EFAULT));
        assert_eq!(told, [(0, 10 * page)]);
        tracker
            .read_dirty(1, 1, 0, 256 * page, Clear::Yes, |at, n| told.push((at, n)))
            .unwrap();
        assert_eq!(told[1..], [(11 * page, 245 * page)]);
        let none = tracker.read_dirty(2, 1, 0, page, Clear::Yes, |_, _| ());
        assert!(none.is_err());
    }
    /// It is clean now, so nobody else will tell.
    #[test]
    fn what_was_cleared_before_an_error_is_told() {
        let page = page_size();
        let kernel = Kernel::new(Knows::ALL);
        let tracker = tracker(&kernel, Granularity::Whole);
        kernel.write(1, 9 * page);
        let mut told = Vec::new();
        kernel.arm(&[Some(1)]);
        let done = tracker.read_dirty(1, 1, 0, 256 * page, Clear::Yes, |at, n| told.push((at, n)));
        assert_eq!(done.unwrap_err().errno(), Some(libc::EFAULT));
        assert_eq!(told, [(0, 256 * page)]);
    }
}
