// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioctls: the only unsafe code of the crate.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::FromRawFd;

use iommufd_bindings::iommufd::{
    iommu_hw_info, iommu_hwpt_get_dirty_bitmap, iommu_ioas_map, iommu_ioas_map_file,
    iommu_ioas_unmap, IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, IOMMUFD_TYPE,
};
use iommufd_ioctls::IommuFd;
use vmm_sys_util::errno::Error as SysError;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_io_nr;

use crate::dirty::Bits;
use crate::{
    iommu_ioas_join, iommu_ioas_split, Result, SplitError, IOMMUFD_CMD_IOAS_JOIN,
    IOMMUFD_CMD_IOAS_SPLIT,
};

// The macro takes no documentation.
#[allow(missing_docs)]
mod request {
    use super::{
        ioctl_io_nr, IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, IOMMUFD_CMD_IOAS_JOIN,
        IOMMUFD_CMD_IOAS_SPLIT, IOMMUFD_TYPE,
    };

    ioctl_io_nr!(
        IOMMU_IOAS_SPLIT,
        IOMMUFD_TYPE as u32,
        IOMMUFD_CMD_IOAS_SPLIT
    );
    ioctl_io_nr!(IOMMU_IOAS_JOIN, IOMMUFD_TYPE as u32, IOMMUFD_CMD_IOAS_JOIN);
    ioctl_io_nr!(
        IOMMU_HWPT_GET_DIRTY_BITMAP,
        IOMMUFD_TYPE as u32,
        IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP
    );
}

/// The request number of the ioctl, `0x3b97`.
pub use request::IOMMU_IOAS_JOIN;
/// The request number of the ioctl, `0x3b96`.
pub use request::IOMMU_IOAS_SPLIT;

mod sealed {
    pub trait Sealed {}
    impl Sealed for iommufd_ioctls::IommuFd {}
}

/// `IOMMU_IOAS_SPLIT` and `IOMMU_IOAS_JOIN` as methods of [`IommuFd`], in the manner of its own.
///
/// Sealed, so that it can get more methods when the kernel gets more of this kind:
///
/// ```compile_fail,E0277
/// use iommufd_split::{iommu_ioas_join, iommu_ioas_split, IommuFdSplit, Result};
///
/// struct Mine;
///
/// impl IommuFdSplit for Mine {
///     fn split_iommu_ioas(&self, _: &mut iommu_ioas_split) -> Result<()> {
///         Ok(())
///     }
///
///     fn join_iommu_ioas(&self, _: &mut iommu_ioas_join) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
pub trait IommuFdSplit: sealed::Sealed {
    /// Calls `IOMMU_IOAS_SPLIT` with `split`, as it is.
    ///
    /// # Errors
    ///
    /// [`SplitError::IommuIoasSplit`] with the kernel's errno.
    fn split_iommu_ioas(&self, split: &mut iommu_ioas_split) -> Result<()>;

    /// Calls `IOMMU_IOAS_JOIN` with `join`, as it is.
    ///
    /// # Errors
    ///
    /// [`SplitError::IommuIoasJoin`] with the kernel's errno.
    fn join_iommu_ioas(&self, join: &mut iommu_ioas_join) -> Result<()>;
}

impl IommuFdSplit for IommuFd {
    fn split_iommu_ioas(&self, split: &mut iommu_ioas_split) -> Result<()> {
        // The kernel reads as many bytes as `size` says.
        if split.size as usize > size_of::<iommu_ioas_split>() {
            return Err(SplitError::IommuIoasSplit(SysError::new(libc::E2BIG)));
        }
        // SAFETY: The descriptor is open as long as `self` is borrowed. The kernel reads at most
        // the whole of `split`, by the check above, and writes nothing.
        let ret = unsafe { ioctl_with_mut_ref(self, IOMMU_IOAS_SPLIT(), split) };
        if ret < 0 {
            return Err(SplitError::IommuIoasSplit(SysError::last()));
        }
        Ok(())
    }

    fn join_iommu_ioas(&self, join: &mut iommu_ioas_join) -> Result<()> {
        // The kernel reads as many bytes as `size` says.
        if join.size as usize > size_of::<iommu_ioas_join>() {
            return Err(SplitError::IommuIoasJoin(SysError::new(libc::E2BIG)));
        }
        // SAFETY: The descriptor is open as long as `self` is borrowed. The kernel reads at most
        // the whole of `join`, by the check above, and writes nothing.
        let ret = unsafe { ioctl_with_mut_ref(self, IOMMU_IOAS_JOIN(), join) };
        if ret < 0 {
            return Err(SplitError::IommuIoasJoin(SysError::last()));
        }
        Ok(())
    }
}

/// What the crate asks of an iommufd. The tests have one that is no kernel's.
pub(crate) trait Ioctls: Send + Sync {
    fn map(&self, map: &iommu_ioas_map) -> Result<()>;
    fn map_file(&self, map: &iommu_ioas_map_file) -> Result<()>;
    fn unmap(&self, unmap: &mut iommu_ioas_unmap) -> Result<()>;
    fn split(&self, split: &mut iommu_ioas_split) -> Result<()>;
    fn join(&self, join: &mut iommu_ioas_join) -> Result<()>;
    fn hw_info(&self, info: &mut iommu_hw_info) -> Result<()>;
    /// Into `bits`, one for each page of the range.
    fn dirty_bitmap(&self, get: &mut iommu_hwpt_get_dirty_bitmap, bits: &mut Bits) -> Result<()>;
}

/// One ioctl; how many bytes are no longer mapped. After an error that may be the mappings in front.
pub(crate) fn unmap(iommufd: &dyn Ioctls, ioas_id: u32, iova: u64, length: u64) -> Result<u64> {
    let mut unmap = iommu_ioas_unmap {
        size: size_of::<iommu_ioas_unmap>() as u32,
        ioas_id,
        iova,
        length,
    };
    iommufd.unmap(&mut unmap)?;
    Ok(unmap.length)
}

/// That an unmap of `wanted` bytes has unmapped all of them.
pub(crate) fn all_unmapped(iova: u64, wanted: u64, unmapped: u64) -> Result<()> {
    if unmapped == wanted {
        return Ok(());
    }
    Err(SplitError::UnmappedLength {
        iova,
        wanted,
        unmapped,
    })
}

/// A range that is made of whole pages, not empty, and ends below 2^64.
pub(crate) fn range_of_pages(iova: u64, length: u64, page_size: u64) -> Result<Range<u64>> {
    some_pages(iova, length, page_size)?;
    match iova.checked_add(length) {
        Some(end) => Ok(iova..end),
        None => Err(SplitError::Range {
            iova,
            length,
            page_size,
        }),
    }
}

/// The same for a range that may end at 2^64: that end is no `u64`.
pub(crate) fn some_pages(iova: u64, length: u64, page_size: u64) -> Result<()> {
    let whole = (iova | length).is_multiple_of(page_size);
    if whole && length != 0 && iova.checked_add(length - 1).is_some() {
        return Ok(());
    }
    Err(SplitError::Range {
        iova,
        length,
        page_size,
    })
}

pub(crate) fn whole_pages(range: &Range<u64>, page_size: u64) -> Result<()> {
    // Of a power of two: both are multiples if this is.
    if (range.start | range.end).is_multiple_of(page_size) {
        return Ok(());
    }
    Err(SplitError::Range {
        iova: range.start,
        length: range.end - range.start,
        page_size,
    })
}

impl Ioctls for IommuFd {
    fn map(&self, map: &iommu_ioas_map) -> Result<()> {
        Ok(self.map_iommu_ioas(map)?)
    }

    fn map_file(&self, map: &iommu_ioas_map_file) -> Result<()> {
        Ok(self.map_iommu_ioas_file(map)?)
    }

    fn unmap(&self, unmap: &mut iommu_ioas_unmap) -> Result<()> {
        Ok(self.unmap_iommu_ioas(unmap)?)
    }

    fn split(&self, split: &mut iommu_ioas_split) -> Result<()> {
        self.split_iommu_ioas(split)
    }

    fn join(&self, join: &mut iommu_ioas_join) -> Result<()> {
        self.join_iommu_ioas(join)
    }

    fn hw_info(&self, info: &mut iommu_hw_info) -> Result<()> {
        Ok(self.get_hw_info(info)?)
    }

    fn dirty_bitmap(&self, get: &mut iommu_hwpt_get_dirty_bitmap, bits: &mut Bits) -> Result<()> {
        assert!(get.page_size.is_power_of_two() && get.length / get.page_size <= bits.count());
        let pages = bits.pages();
        get.size = size_of::<iommu_hwpt_get_dirty_bitmap>() as u32;
        get.data = pages.as_mut_ptr() as u64;
        // SAFETY: The descriptor is open as long as `self` is borrowed. The kernel reads `get`, all
        // of which is there, and sets bits at `data`: those that were asked for and, if it is an
        // older one, up to the end of the page that the last of them is in. All of these pages are
        // in `pages`, and borrowed for writing until it returns.
        let ret = unsafe { ioctl_with_mut_ref(self, request::IOMMU_HWPT_GET_DIRTY_BITMAP(), get) };
        if ret < 0 {
            return Err(SplitError::DirtyBitmap(SysError::last()));
        }
        Ok(())
    }
}

/// Memory of so many bytes that is in no file system.
pub(crate) fn memory_file(bytes: u64) -> io::Result<File> {
    const NAME: &CStr = c"iommufd-split";
    // SAFETY: The name ends in a zero byte.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: It is new, and nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes)?;
    Ok(file)
}

/// The system's page size in bytes.
pub(crate) fn page_size() -> u64 {
    // SAFETY: It has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_documented_ones() {
        assert_eq!(IOMMU_IOAS_SPLIT(), 0x3b96);
        assert_eq!(IOMMU_IOAS_JOIN(), 0x3b97);
    }

    #[test]
    fn error_keeps_the_errno() {
        // A device without ioctls.
        let iommufd = IommuFd::new_from_fd(File::open("/dev/null").unwrap());
        let error = crate::split(&iommufd, 1, 0, 4096).unwrap_err();
        assert!(matches!(&error, SplitError::IommuIoasSplit(e) if e.errno() == libc::ENOTTY));
        assert_eq!(error.errno(), Some(libc::ENOTTY));
        assert!(error.is_unsupported());
        assert!(error.to_string().contains("split"), "{error}");
        let error = crate::join(&iommufd, 1, 0, 4096).unwrap_err();
        assert!(matches!(&error, SplitError::IommuIoasJoin(e) if e.errno() == libc::ENOTTY));
        assert_eq!(error.errno(), Some(libc::ENOTTY));
        assert!(error.is_unsupported());
        assert!(error.to_string().contains("join"), "{error}");
    }

    #[test]
    fn errors_of_other_ioctls_keep_theirs() {
        let iommufd = IommuFd::new_from_fd(File::open("/dev/null").unwrap());
        let error = SplitError::from(iommufd.destroy_iommu_object(1).unwrap_err());
        assert_eq!(error.errno(), Some(libc::ENOTTY));
        let no_file = std::io::Error::from_raw_os_error(libc::ENOENT);
        let error = SplitError::from(iommufd_ioctls::IommufdError::OpenIommufd(no_file));
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(!error.is_unsupported());
    }

    #[test]
    fn size_beyond_the_struct_never_reaches_the_kernel() {
        let iommufd = IommuFd::new_from_fd(File::open("/dev/null").unwrap());
        let mut split = iommu_ioas_split {
            size: 40,
            ..Default::default()
        };
        let mut join = iommu_ioas_join {
            size: 40,
            ..Default::default()
        };
        for error in [
            iommufd.split_iommu_ioas(&mut split).unwrap_err(),
            iommufd.join_iommu_ioas(&mut join).unwrap_err(),
        ] {
            assert_eq!(error.errno(), Some(libc::E2BIG));
            assert!(!error.is_unsupported());
        }
    }
}
