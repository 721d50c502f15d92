// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether an IOAS can be split, found out by doing it.

use std::os::fd::AsRawFd;

use iommufd_bindings::iommufd::iommu_ioas_map_file;
use iommufd_ioctls::IommuFd;

use crate::ioctls::{self, memory_file, page_size, Ioctls};
use crate::shared::Permissions;
use crate::{split_flags, Result, SplitError};

/// The range that is mapped for the trial: a large page of every format whose small ones have 4K. The
/// kernel answers for the page table, also where nothing in the range is large.
pub const TRIAL_BYTES: u64 = 2 << 20;

/// Whether all page tables (HWPTs) that the IOAS has now can be split: maps 2 MiB of empty memory
/// at `iova`, cuts a page off, unmaps everything.
///
/// [`can_split`](crate::can_split) is about the page table that the kernel makes when a device is
/// attached to the IOAS. This is for
///
/// - HWPTs that the VMM allocates itself, with flags: those may be of another format;
/// - devices whose ID is not known, as those that another process has bound, and mediated devices.
///   Attach such a device, try, and detach it if the answer is no;
/// - a kernel of which nothing is known: the number of `IOMMU_IOAS_SPLIT` is not upstream's, so
///   that another kernel can come to use it for something else. That is found out, too.
///
/// `iova` is a multiple of [`TRIAL_BYTES`] at which nothing is mapped, where guest memory will be,
/// say; before it is. In an IOAS without page tables the answer is yes, and says nothing.
///
/// # Errors
///
/// [`SplitError::Range`] if `iova` is not such a multiple, [`SplitError::Memory`] if there is no
/// memory, or what the kernel gives: the IOAS is as it was. Or [`SplitError::Rollback`].
pub fn try_split(iommufd: &IommuFd, ioas_id: u32, iova: u64) -> Result<bool> {
    trial(iommufd, ioas_id, iova)
}

pub(crate) fn trial(iommufd: &dyn Ioctls, ioas_id: u32, iova: u64) -> Result<bool> {
    if !iova.is_multiple_of(TRIAL_BYTES) {
        return Err(SplitError::Range {
            iova,
            length: TRIAL_BYTES,
            page_size: TRIAL_BYTES,
        });
    }
    let file = memory_file(TRIAL_BYTES).map_err(SplitError::Memory)?;
    let mapped = iommufd.map_file(&iommu_ioas_map_file {
        size: size_of::<iommu_ioas_map_file>() as u32,
        flags: Permissions::Read.map_flags(),
        ioas_id,
        fd: file.as_raw_fd(),
        start: 0,
        length: TRIAL_BYTES,
        iova,
    });
    match mapped {
        // Older than IOMMU_IOAS_MAP_FILE, and than any split.
        Err(e) if e.errno() == Some(libc::ENOTTY) => return Ok(false),
        other => other?,
    }
    let answer = cut_off(iommufd, ioas_id, iova, page_size());
    match unmap(iommufd, ioas_id, iova, TRIAL_BYTES) {
        Ok(_) => answer,
        Err(cause) => Err(SplitError::Rollback {
            cause: Box::new(cause),
            iova,
            length: TRIAL_BYTES,
        }),
    }
}

fn cut_off(iommufd: &dyn Ioctls, ioas_id: u32, iova: u64, length: u64) -> Result<bool> {
    match split_flags(iommufd, 0, ioas_id, iova, length) {
        Err(e) if e.is_unsupported() => return Ok(false),
        other => other?,
    }
    Ok(unmap(iommufd, ioas_id, iova, length)? == length)
}

/// Bytes that were mapped.
fn unmap(iommufd: &dyn Ioctls, ioas_id: u32, iova: u64, length: u64) -> Result<u64> {
    match ioctls::unmap(iommufd, ioas_id, iova, length) {
        // Nothing, or a mapping that reaches beyond the range.
        Err(e) if e.errno() == Some(libc::ENOENT) => Ok(0),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kernel, Knows};

    #[test]
    fn it_is_what_the_iommus_can() {
        for (knows, splits, answer) in [
            (Knows::ALL, true, true),
            (Knows::TWO_CALLS, true, true),
            (Knows::ALL, false, false),
            (Knows::NOTHING, true, false),
            // A kernel that has something else by that number, which succeeds.
            (Knows::OTHERWISE, true, false),
        ] {
            let kernel = Kernel::new(knows);
            kernel.add_ioas(1, splits);
            for iova in [0, 4 << 30] {
                let tried = trial(&*kernel, 1, iova).unwrap();
                assert_eq!(tried, answer, "{knows:?}, {splits}");
                assert!(kernel.areas(1).is_empty(), "{knows:?}, {splits}");
            }
        }
    }

    #[test]
    fn every_ioctl_may_fail() {
        for at in 0..4 {
            for kind in 0..16 {
                let kernel = Kernel::new(Knows::ALL);
                kernel.add_ioas(1, true);
                let mut faults = vec![None; at];
                faults.push(Some(kind));
                kernel.arm(&faults);
                let failed = trial(&*kernel, 1, 0).unwrap_err();
                let left = matches!(failed, SplitError::Rollback { .. });
                // The last one is the unmap of everything.
                assert_eq!(left, at == 3, "{faults:?}: {failed}");
                assert_eq!(left, !kernel.areas(1).is_empty(), "{faults:?}");
            }
        }
    }

    #[test]
    fn not_where_memory_is() {
        let kernel = Kernel::new(Knows::ALL);
        kernel.add_ioas(1, true);
        let refused = trial(&*kernel, 1, 4096).unwrap_err();
        assert!(matches!(refused, SplitError::Range { .. }));
        let gone = trial(&*kernel, 2, 0).unwrap_err();
        assert_eq!(gone.errno(), Some(libc::ENOENT));
    }
}
