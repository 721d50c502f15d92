// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `IOMMU_IOAS_SPLIT` and `IOMMU_IOAS_JOIN` for VMMs: cut an iommufd mapping, and make it whole
//! again, while devices do DMA through it.
//!
//! A VMM that runs a confidential guest with assigned devices has to take any page of shared memory
//! out of the IOAS when the guest makes it private. `IOMMU_IOAS_UNMAP` removes whole mappings only.
//! With the ioctl of this crate memory is mapped in large pieces all the same, and cut where a hole
//! is needed; no device notices. When the guest shares the page again, the hole is filled and what
//! was cut is one mapping again.
//!
//! The crate adds to [`iommufd_ioctls`] and works on its types, in four layers:
//!
//! - [`IommuFdSplit`]: the raw ioctls with their structs, [`iommu_ioas_split`] and
//!   [`iommu_ioas_join`], as methods of [`IommuFd`];
//! - [`split`], [`join`] and [`can_split`]: one range of one IOAS, and whether a device's IOMMU can
//!   do it;
//! - [`SharedMemory`]: *share this range*, *carve this range out* of one IOAS, on kernels and
//!   hardware that can split and on those that cannot;
//! - [`Tracker`]: what a VMM wants. It knows what is shared, takes whatever ranges a guest names,
//!   and makes every IOAS agree.
//!
//! ```no_run
//! use std::fs::File;
//! use std::os::fd::AsFd;
//! use std::sync::Arc;
//!
//! use iommufd_ioctls::{IommuFd, IommufdIoas};
//! use iommufd_split::{Granularity, Permissions, SharedMemory};
//!
//! # fn devices(_: &IommuFd) -> Vec<u32> { vec![] }
//! # fn memfd() -> File { unimplemented!() }
//! # fn main() -> Result<(), iommufd_split::SplitError> {
//! let iommufd = Arc::new(IommuFd::new()?);
//! let ioas = IommufdIoas::new(Arc::clone(&iommufd))?;
//! // Bound to the iommufd; vfio-ioctls gives the ID by VfioDevice::iommufd_dev_id().
//! let dev_ids = devices(&iommufd);
//!
//! let shared = SharedMemory::new(iommufd, ioas.id(), &dev_ids)?;
//! if let Granularity::Pieces(bytes) = shared.granularity() {
//!     eprintln!("this IOMMU cannot split mappings: sharing memory in pieces of {bytes} bytes");
//! }
//!
//! // Guest memory, 4 GiB at guest physical address 4 GiB. One ioctl if the IOMMU can split.
//! let memory = memfd();
//! shared.share_file(memory.as_fd(), 0, 4 << 30, 4 << 30, Permissions::ReadWrite)?;
//!
//! // The guest makes 64 KiB private: no device reaches them any more when this returns.
//! shared.carve((4 << 30) + 0x1230_0000, 64 << 10)?;
//!
//! // And shares them again, as a part of the mapping that they were cut out of. A kernel that
//! // cannot do that maps them.
//! let iova = (4 << 30) + 0x1230_0000;
//! if shared.restore(iova, 64 << 10).is_err() {
//!     shared.share_file(memory.as_fd(), 0x1230_0000, iova, 64 << 10, Permissions::ReadWrite)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Several IOASes
//!
//! Devices whose IOMMU cannot split are in an IOAS of their own, see [`SharedMemory::accepts`]; a
//! vIOMMU can be a reason for more. Make a [`SharedMemory`] for each IOAS. It pins and accounts
//! what it shares. Memory may become private when all of them have let go of it. The step that may
//! fail in normal operation is the split, so all IOASes prepare before the first one carves:
//!
//! ```
//! use iommufd_split::{Result, SharedMemory};
//!
//! fn make_private(ioases: &[SharedMemory], iova: u64, length: u64) -> Result<()> {
//!     for shared in ioases {
//!         // Nothing has changed for any device: refuse the conversion, or try again later.
//!         shared.prepare(iova, length)?;
//!     }
//!     for shared in ioases {
//!         // If this fails the IOASes before it have let go and it has not: the memory must stay
//!         // shared.
//!         shared.carve(iova, length)?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! If the second loop fails, the cause lies outside of the IOAS, see [`SharedMemory::carve`]. The
//! VMM can share the range again in the IOASes that have let go, but their devices may have run
//! into the hole meanwhile, and then they and the guest have to cope with a failed DMA.
//! [`Tracker::set_private`] does all of that, and cannot promise more.
//!
//! # Seccomp
//!
//! A filter that lists the iommufd ioctls by number needs those of [`seccomp`] in the threads that
//! call this crate.
//!
//! # Versions
//!
//! The crate works on [`iommufd_ioctls`], and exports the version that it was built with. A VMM
//! that has another version of it, or none, can use the crate all the same: IDs belong to the open
//! file, and any number of descriptors may share it.
//!
//! ```no_run
//! use std::fs::File;
//! use std::os::fd::{AsFd, BorrowedFd};
//! use std::sync::Arc;
//!
//! use iommufd_split::iommufd_ioctls::IommuFd;
//! use iommufd_split::SharedMemory;
//!
//! fn shared(iommufd: BorrowedFd<'_>, ioas_id: u32, ids: &[u32]) -> std::io::Result<SharedMemory> {
//!     let same = IommuFd::new_from_fd(File::from(iommufd.try_clone_to_owned()?));
//!     Ok(SharedMemory::new(Arc::new(same), ioas_id, ids)?)
//! }
//! ```

mod bindings;
mod count;
mod dirty;
mod ioctls;
#[cfg(test)]
mod model;
pub mod seccomp;
mod shared;
mod tracker;
mod trial;
#[cfg(feature = "vfio-ioctls")]
mod vfio;

/// The README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use bindings::{
    iommu_ioas_join, iommu_ioas_split, iommufd_hw_capabilities_IOMMU_HW_CAP_HITLESS_SPLIT,
    iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL, iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP,
    IOMMUFD_CMD_IOAS_JOIN, IOMMUFD_CMD_IOAS_SPLIT,
};
pub use dirty::{read_dirty, Clear};
pub use ioctls::{IommuFdSplit, IOMMU_IOAS_JOIN, IOMMU_IOAS_SPLIT};
pub use iommufd_ioctls;
pub use shared::{Granularity, Ioas, Permissions, SharedMemory, Source};
pub use tracker::Tracker;
pub use trial::{try_split, TRIAL_BYTES};
#[cfg(feature = "vfio-ioctls")]
pub use vfio::SplitVfioOps;

use iommufd_bindings::iommufd::iommu_hw_info;
use iommufd_ioctls::{IommuFd, IommufdError};
use vmm_sys_util::errno::Error as SysError;

use ioctls::Ioctls;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// `IOMMU_IOAS_SPLIT` failed. No mapping has been cut.
    ///
    /// | errno | meaning |
    /// |---|---|
    /// | `ENOTTY`, `EOPNOTSUPP` | this kernel, this IOMMU or this kind of memory cannot be split, see [`Self::is_unsupported`] |
    /// | `EINVAL`, `EOVERFLOW`, `E2BIG` | a mistake of the caller: alignment, length |
    /// | `ENOENT` | a part of the range is not mapped |
    /// | `EBUSY` | a part of the range is being mapped or unmapped by another thread, or an edge goes through what an in-kernel user has pinned |
    /// | `ENOMEM` | out of memory; may be retried |
    #[error("failed to split a mapping of the IOAS: {0}")]
    IommuIoasSplit(#[source] SysError),
    /// `IOMMU_IOAS_JOIN` failed. Nothing has changed.
    ///
    /// | errno | meaning |
    /// |---|---|
    /// | `ENOTTY`, `EOPNOTSUPP` | this kernel or this kind of memory cannot be joined, see [`Self::is_unsupported`] |
    /// | `EINVAL`, `EOVERFLOW`, `E2BIG` | a mistake of the caller: alignment, length; or a file is shorter now |
    /// | `ENOENT` | a part of the range is not mapped, and shall not be, or no mapping has memory for it |
    /// | `ENOTUNIQ` | the mappings below and above a hole have different memory for it |
    /// | `EPERM` | the memory of a hole was mapped by another process |
    /// | `EBUSY` | a part of the range is being mapped or unmapped by another thread |
    /// | `EFAULT` | the memory of a hole is no longer there |
    /// | `ENOMEM` | out of memory, or `RLIMIT_MEMLOCK`; may be retried |
    #[error("failed to join mappings of the IOAS: {0}")]
    IommuIoasJoin(#[source] SysError),
    /// Another ioctl failed.
    #[error(transparent)]
    Iommufd(#[from] IommufdError),
    /// Dirty bits could not be read.
    #[error("failed to read dirty bits: {0}")]
    DirtyBitmap(#[source] SysError),
    /// There is no memory for a trial.
    #[error("failed to allocate memory for a trial: {0}")]
    Memory(#[source] std::io::Error),
    /// An unmap removed another number of bytes than it was asked for.
    #[error("unmapping {wanted:#x} bytes at {iova:#x} removed {unmapped:#x} bytes")]
    UnmappedLength {
        /// First byte of the range.
        iova: u64,
        /// Bytes that should have been unmapped.
        wanted: u64,
        /// Bytes that were.
        unmapped: u64,
    },
    /// Memory could not be shared in pieces, and what had been shared by then could not be taken
    /// back: it is still shared.
    #[error("{cause}; {length:#x} bytes at {iova:#x} are shared all the same")]
    Rollback {
        /// Why the rest could not be shared.
        #[source]
        cause: Box<SplitError>,
        /// First byte of what is shared.
        iova: u64,
        /// Bytes that are shared.
        length: u64,
    },
    /// Memory could not be made private, and what had been taken from devices by then could not be
    /// given back: they miss it.
    #[error("{cause}; {length:#x} bytes at {iova:#x} are no longer mapped in IOAS {ioas_id}")]
    Hole {
        /// Why the rest could not be taken.
        #[source]
        cause: Box<SplitError>,
        /// The first IOAS with a hole.
        ioas_id: u32,
        /// First byte of the hole.
        iova: u64,
        /// Bytes of the hole.
        length: u64,
    },
    /// Not guest memory: it is in no region of the tracker.
    #[error("there is no guest memory at {iova:#x}")]
    NotMemory {
        /// First byte that is in no region.
        iova: u64,
    },
    /// The range overlaps a region of the tracker.
    #[error("a part of {length:#x} bytes at {iova:#x} is in a region already")]
    RegionExists {
        /// First byte of the range.
        iova: u64,
        /// Bytes.
        length: u64,
    },
    /// No region of the tracker starts there.
    #[error("no region starts at {iova:#x}")]
    NoRegion {
        /// Where none starts.
        iova: u64,
    },
    /// The tracker has the IOAS already.
    #[error("IOAS {ioas_id} is there already")]
    IoasExists {
        /// Its ID.
        ioas_id: u32,
    },
    /// The tracker does not have the IOAS.
    #[error("there is no IOAS {ioas_id}")]
    NoIoas {
        /// Its ID.
        ioas_id: u32,
    },
    /// Not a size of pieces: a power of two of bytes, at least the system's page size.
    #[error("memory cannot be mapped in pieces of {0:#x} bytes")]
    Granularity(u64),
    /// The range is empty, does not end in 64 bits, or is not made of whole pages.
    #[error(
        "{length:#x} bytes at {iova:#x} are not a range of whole pages of {page_size:#x} bytes"
    )]
    Range {
        /// First byte of the range.
        iova: u64,
        /// Bytes.
        length: u64,
        /// Bytes of a page.
        page_size: u64,
    },
}

impl SplitError {
    /// The errno that the kernel gave, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::IommuIoasSplit(e) | Self::IommuIoasJoin(e) | Self::DirtyBitmap(e) => {
                Some(e.errno())
            }
            Self::Memory(e) => e.raw_os_error(),
            Self::Rollback { cause, .. } | Self::Hole { cause, .. } => cause.errno(),
            Self::Iommufd(e) => errno_of(e),
            _ => None,
        }
    }

    /// Whether a split or join failed because this kernel, IOMMU or memory can never do it: do not
    /// retry.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::IommuIoasSplit(e) | Self::IommuIoasJoin(e)
            if matches!(e.errno(), libc::EOPNOTSUPP | libc::ENOTTY))
    }
}

/// With the kind that the errno has, and the [`SplitError`] inside: `error.get_ref()` gives it
/// back, and the errno with it.
impl From<SplitError> for std::io::Error {
    fn from(error: SplitError) -> Self {
        let kind = match (&error, error.errno()) {
            (_, Some(errno)) => Self::from_raw_os_error(errno).kind(),
            (SplitError::UnmappedLength { .. }, None) => std::io::ErrorKind::Other,
            // The caller's mistakes.
            _ => std::io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Every variant of [`IommufdError`] that has an errno has it as its source.
fn errno_of(error: &IommufdError) -> Option<i32> {
    let source = std::error::Error::source(error)?;
    match source.downcast_ref::<SysError>() {
        Some(e) => Some(e.errno()),
        None => source.downcast_ref::<std::io::Error>()?.raw_os_error(),
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, SplitError>;

/// Makes `iova..iova + length` (bytes) of the IOAS a mapping of its own, so that it can be unmapped
/// without what surrounds it.
///
/// Devices can do DMA to the range and around it all the time and do not notice. If both ends are
/// ends of mappings already, it does nothing and succeeds, so a split may be repeated.
///
/// # Errors
///
/// [`SplitError::IommuIoasSplit`] with the kernel's errno. All or nothing: after an error no
/// mapping has been cut.
pub fn split(iommufd: &IommuFd, ioas_id: u32, iova: u64, length: u64) -> Result<()> {
    split_flags(iommufd, 0, ioas_id, iova, length)
}

/// Splits and unmaps the range in one call: no device reaches `iova..iova + length` afterwards, and
/// none notices anything around it. Other callers never see the range as a mapping of its own, and
/// IOTLBs are flushed once.
///
/// The kernel has to know this call, see [`can_carve`]. [`SharedMemory::carve`] works with and
/// without it.
///
/// # Errors
///
/// [`SplitError::IommuIoasSplit`] with the kernel's errno. All or nothing: after an error
/// everything is mapped as before. In addition to those of [`split`], `EBUSY` if a hardware queue
/// lies in the range, and `EDEADLK` if an in-kernel user does not unpin what it has pinned there.
pub fn carve(iommufd: &IommuFd, ioas_id: u32, iova: u64, length: u64) -> Result<()> {
    let flags = iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP;
    split_flags(iommufd, flags, ioas_id, iova, length)
}

fn split_flags(
    iommufd: &dyn Ioctls,
    flags: u32,
    ioas_id: u32,
    iova: u64,
    length: u64,
) -> Result<()> {
    iommufd.split(&mut iommu_ioas_split {
        size: size_of::<iommu_ioas_split>() as u32,
        flags,
        ioas_id,
        iova,
        length,
        ..Default::default()
    })
}

/// Whether the kernel knows [`carve`]. This is about the kernel alone; whether an IOMMU can split
/// is for [`can_split`] to say.
pub fn can_carve(iommufd: &IommuFd) -> bool {
    knows_unmap(iommufd)
}

fn knows_unmap(iommufd: &dyn Ioctls) -> bool {
    let flags = iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP;
    // The kernel looks at the flags first and then at the length, and refuses a length of 0.
    split_flags(iommufd, flags, 0, 0, 0).is_err_and(|e| e.errno() == Some(libc::EINVAL))
}

/// Joins mappings that meet in `iova..iova + length` or at an edge of it: the reverse of [`split`]
/// of the same range. All of it has to be mapped.
///
/// Devices can do DMA to it all the time and do not notice. Mappings become one if they were cut
/// from one, and IOPTEs as large as memory allows. What cannot be joined stays as it is, and that
/// is no error.
///
/// # Errors
///
/// [`SplitError::IommuIoasJoin`] with the kernel's errno: nothing has changed.
pub fn join(iommufd: &IommuFd, ioas_id: u32, iova: u64, length: u64) -> Result<()> {
    join_flags(iommufd, 0, ioas_id, iova, length)
}

/// Maps what is not mapped in `iova..iova + length`, from the memory that the mappings around it
/// were cut from, and joins it with them: the reverse of [`carve`] of the same range.
///
/// The kernel finds the memory: each hole is filled with what the nearest mapping, below or above,
/// had there. So **use it only where the memory was never replaced** by other memory at the same
/// IOVA, and leave out of the range what devices must not reach.
///
/// The kernel has to know this call, see [`can_restore`].
///
/// # Errors
///
/// [`SplitError::IommuIoasJoin`] with the kernel's errno. All or nothing: after an error everything
/// is mapped as before, and [`SharedMemory::share_file`] can map the range.
pub fn restore(iommufd: &IommuFd, ioas_id: u32, iova: u64, length: u64) -> Result<()> {
    let flags = iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL;
    join_flags(iommufd, flags, ioas_id, iova, length)
}

fn join_flags(
    iommufd: &dyn Ioctls,
    flags: u32,
    ioas_id: u32,
    iova: u64,
    length: u64,
) -> Result<()> {
    iommufd.join(&mut iommu_ioas_join {
        size: size_of::<iommu_ioas_join>() as u32,
        flags,
        ioas_id,
        iova,
        length,
        ..Default::default()
    })
}

/// Whether the kernel knows [`join`] and [`restore`].
pub fn can_restore(iommufd: &IommuFd) -> bool {
    knows_fill(iommufd)
}

fn knows_fill(iommufd: &dyn Ioctls) -> bool {
    let flags = iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL;
    // As for a split, the length comes after the flags.
    join_flags(iommufd, flags, 0, 0, 0).is_err_and(|e| e.errno() == Some(libc::EINVAL))
}

/// Whether the IOMMU of a device, bound to `iommufd` as `dev_id`, can split large pages that the
/// device is using.
///
/// Also false if the kernel does not know the capability, or cannot tell (`ENOTTY`, `EOPNOTSUPP`).
/// The answer is for the page table that the kernel makes when the device is attached to an IOAS;
/// an IOAS can be split if all its devices have the capability. Ask before mapping memory.
///
/// # Errors
///
/// [`SplitError::Iommufd`] if there is no such device (`ENOENT`). A mediated device has no ID to
/// ask for: its driver pins guest memory, and a split may go beside a pin, but not through it.
pub fn can_split(iommufd: &IommuFd, dev_id: u32) -> Result<bool> {
    has_capability(iommufd, dev_id)
}

fn has_capability(iommufd: &dyn Ioctls, dev_id: u32) -> Result<bool> {
    let mut info = iommu_hw_info {
        size: size_of::<iommu_hw_info>() as u32,
        dev_id,
        ..Default::default()
    };

    match iommufd.hw_info(&mut info) {
        Err(e) if matches!(e.errno(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => return Ok(false),
        other => other?,
    }
    let capability = u64::from(iommufd_hw_capabilities_IOMMU_HW_CAP_HITLESS_SPLIT);
    Ok(info.out_capabilities & capability != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn io_errors_have_the_kind_and_the_errno() {
        let split = |errno| SplitError::IommuIoasSplit(SysError::new(errno));
        let held = SplitError::Rollback {
            cause: Box::new(split(libc::EBUSY)),
            iova: 0,
            length: 4096,
        };
        for (error, kind, errno) in [
            (split(libc::ENOENT), ErrorKind::NotFound, Some(libc::ENOENT)),
            (
                split(libc::ENOMEM),
                ErrorKind::OutOfMemory,
                Some(libc::ENOMEM),
            ),
            (held, ErrorKind::ResourceBusy, Some(libc::EBUSY)),
            (SplitError::Granularity(3), ErrorKind::InvalidInput, None),
            (
                SplitError::NotMemory { iova: 0 },
                ErrorKind::InvalidInput,
                None,
            ),
        ] {
            let text = error.to_string();
            let error = Error::from(error);
            assert_eq!(error.kind(), kind, "{text}");
            assert_eq!(error.to_string(), text);
            let inner = error.get_ref().and_then(|e| e.downcast_ref::<SplitError>());
            assert_eq!(inner.and_then(SplitError::errno), errno, "{text}");
        }
    }
}
