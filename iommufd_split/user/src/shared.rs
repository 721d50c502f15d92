// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory of a guest that devices may reach.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use iommufd_bindings::iommufd::{
    iommu_ioas_map, iommu_ioas_map_file, iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
};
use iommufd_ioctls::{IommuFd, IommufdIoas};
use vmm_sys_util::errno::Error as SysError;

use crate::count::Counted;
use crate::ioctls::{all_unmapped, page_size, unmap, Ioctls};
use crate::trial::trial;
use crate::{
    has_capability, iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL,
    iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP, join_flags, knows_fill, knows_unmap,
    split_flags, Result, SplitError,
};

/// How memory is mapped, so that every page of it can be taken out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granularity {
    /// With one mapping for each range. It is split where it has to be.
    Whole,
    /// In mappings of so many bytes each: the IOMMU of at least one device cannot split.
    Pieces(u64),
}

/// What devices may do with memory that is shared; a part of what `Permissions` of vm-memory can
/// say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Permissions {
    /// Read it.
    Read,
    /// Read and write it.
    ReadWrite,
}

impl Permissions {
    pub(crate) fn map_flags(self) -> u32 {
        let readable = iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
            | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
        match self {
            Self::Read => readable,
            Self::ReadWrite => readable | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
        }
    }
}

/// An IOAS: one that is kept as long as this lives, or the ID of one.
///
/// With an ID alone the IOAS is the caller's to keep. **The kernel gives the ID of an IOAS that was
/// destroyed to the next object**, and a [`SharedMemory`] that is used after that works on whatever
/// has it now.
#[derive(Clone)]
pub struct Ioas {
    id: u32,
    kept: Option<Arc<IommufdIoas>>,
}

impl Ioas {
    /// The ID of the IOAS.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl From<Arc<IommufdIoas>> for Ioas {
    fn from(ioas: Arc<IommufdIoas>) -> Self {
        Self {
            id: ioas.id(),
            kept: Some(ioas),
        }
    }
}

impl From<&Arc<IommufdIoas>> for Ioas {
    fn from(ioas: &Arc<IommufdIoas>) -> Self {
        Arc::clone(ioas).into()
    }
}

impl From<u32> for Ioas {
    fn from(id: u32) -> Self {
        Self { id, kept: None }
    }
}

impl std::fmt::Debug for Ioas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ioas")
            .field("id", &self.id)
            .field("kept", &self.kept.is_some())
            .finish()
    }
}

/// Where the memory of a region is, for a [`Tracker`](crate::Tracker), which maps parts of it again
/// and again.
#[derive(Clone, Debug)]
pub struct Source(Backing);

#[derive(Clone, Debug)]
enum Backing {
    File(Arc<File>, u64),
    /// An address, as the kernel takes it.
    Memory(u64),
}

impl Source {
    /// The memory in `file` (a memfd) from `offset` on. vm-memory's `FileOffset` has both.
    pub fn file(file: impl Into<Arc<File>>, offset: u64) -> Self {
        Self(Backing::File(file.into(), offset))
    }

    /// This process's memory at `user_va`.
    ///
    /// # Safety
    ///
    /// What [`SharedMemory::share_memory`] asks for, as long as a region has this as its source:
    /// for all of the region's memory, from [`Tracker::add_region`](crate::Tracker::add_region) on
    /// until [`Tracker::remove_region`](crate::Tracker::remove_region) has succeeded or all IOASes
    /// are gone. If the tracker is gone before: until the IOASes are.
    pub unsafe fn memory(user_va: *mut u8) -> Self {
        Self(Backing::Memory(user_va as u64))
    }

    /// First byte, of the file or the process.
    pub(crate) fn start(&self) -> u64 {
        match self.0 {
            Backing::File(_, offset) => offset,
            Backing::Memory(user_va) => user_va,
        }
    }
}

/// The part of an IOAS that holds a guest's shared memory.
///
/// What is shared and what is not is the caller's to know: each call is for memory that is all
/// shared, or not at all. A [`Tracker`](crate::Tracker) knows it.
///
/// A guest with several IOASes has one of these for each: see [the crate](crate#several-ioases).
///
/// This type does not remember what is mapped: the kernel knows. Several threads may call all
/// methods; the kernel does one after the other. The caller must not make two calls for overlapping
/// ranges at the same time.
#[derive(Clone)]
pub struct SharedMemory {
    iommufd: Arc<Counted>,
    ioas: Ioas,
    granularity: Granularity,
    /// A power of two: every range is made of pages of so many bytes.
    page_size: u64,
    /// The kernel can split and unmap in one call.
    one_call: bool,
    /// The kernel can join.
    joins: bool,
}

// Conversions come from every vCPU.
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<SharedMemory>();
};

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedMemory")
            .field("ioas", &self.ioas)
            .field("granularity", &self.granularity)
            .finish_non_exhaustive()
    }
}

impl SharedMemory {
    /// Asks the IOMMUs of all `devices`, IDs by which they are bound to `iommufd`, whether they can
    /// split.
    ///
    /// Call it before any memory is mapped: memory that was mapped whole cannot be taken out page
    /// by page if the IOMMU cannot split. [`Self::granularity`] tells the outcome, for the log.
    /// Without any device the answer is [`Granularity::Pieces`], because nothing is known of the
    /// first one that comes.
    ///
    /// `ioas` is an `Arc<IommufdIoas>`, which is kept then, or an ID: see [`Ioas`].
    ///
    /// # Errors
    ///
    /// [`SplitError::Iommufd`] if a device cannot be asked, as when there is none with this ID.
    pub fn new(iommufd: Arc<IommuFd>, ioas: impl Into<Ioas>, devices: &[u32]) -> Result<Self> {
        let mut whole = !devices.is_empty();
        for &dev_id in devices {
            whole = has_capability(&*iommufd, dev_id)? && whole;
        }
        let granularity = if whole {
            Granularity::Whole
        } else {
            Granularity::Pieces(page_size())
        };
        Self::with_granularity(iommufd, ioas, granularity)
    }

    /// The same by trial at `iova`, see [`try_split`](crate::try_split()): for page tables that the
    /// VMM has allocated itself, and for devices without an ID. Call it with all of them attached,
    /// and before any memory is mapped.
    ///
    /// # Errors
    ///
    /// Those of the trial.
    pub fn by_trial(iommufd: Arc<IommuFd>, ioas: impl Into<Ioas>, iova: u64) -> Result<Self> {
        let ioas = ioas.into();
        let granularity = match trial(&*iommufd, ioas.id(), iova)? {
            true => Granularity::Whole,
            false => Granularity::Pieces(page_size()),
        };
        Self::with_ioctls(iommufd, ioas, granularity)
    }

    /// The same, without asking the IOMMUs: the caller chooses.
    ///
    /// # Errors
    ///
    /// [`SplitError::Granularity`] if the size of pieces is not a power of two, or smaller than the
    /// system's pages.
    pub fn with_granularity(
        iommufd: Arc<IommuFd>,
        ioas: impl Into<Ioas>,
        granularity: Granularity,
    ) -> Result<Self> {
        Self::with_ioctls(iommufd, ioas.into(), granularity)
    }

    pub(crate) fn with_ioctls(
        iommufd: Arc<dyn Ioctls>,
        ioas: Ioas,
        granularity: Granularity,
    ) -> Result<Self> {
        let page_size = match granularity {
            Granularity::Whole => page_size(),
            Granularity::Pieces(bytes) if bytes.is_power_of_two() && bytes >= page_size() => bytes,
            Granularity::Pieces(bytes) => return Err(SplitError::Granularity(bytes)),
        };
        Ok(Self {
            one_call: knows_unmap(&*iommufd),
            joins: knows_fill(&*iommufd),
            iommufd: Arc::new(Counted::new(iommufd)),
            ioas,
            granularity,
            page_size,
        })
    }

    /// The IOAS.
    pub fn ioas_id(&self) -> u32 {
        self.ioas.id()
    }

    /// How memory is mapped.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Whether a device that is plugged in later may be attached to the IOAS.
    ///
    /// If memory is mapped whole and the device's IOMMU cannot split, then nothing could be carved
    /// out any more. Such a device belongs into an IOAS of its own, with [`Granularity::Pieces`].
    ///
    /// # Errors
    ///
    /// [`SplitError::Iommufd`] if the device cannot be asked.
    pub fn accepts(&self, dev_id: u32) -> Result<bool> {
        match self.granularity {
            Granularity::Whole => has_capability(&*self.iommufd, dev_id),
            Granularity::Pieces(_) => Ok(true),
        }
    }

    /// Lets devices reach `length` bytes of the memory in `file` (a memfd), from `offset` on, at
    /// `iova`.
    ///
    /// All or nothing, but for [`SplitError::Rollback`].
    ///
    /// # Errors
    ///
    /// [`SplitError::Range`] for what is not made of whole pages, `offset` included;
    /// [`SplitError::Iommufd`] if the kernel refuses, with `EEXIST` if a part of the range is
    /// mapped.
    pub fn share_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        iova: u64,
        length: u64,
        permissions: Permissions,
    ) -> Result<()> {
        self.check(offset, length)?;
        self.share(iova, length, |done, bytes| {
            self.map_file(
                file.as_raw_fd(),
                offset + done,
                iova + done,
                bytes,
                permissions,
            )
        })
    }

    /// Lets devices reach the `length` bytes of this process's memory at `user_va`.
    ///
    /// All or nothing, but for [`SplitError::Rollback`].
    ///
    /// # Safety
    ///
    /// `user_va..user_va + length` has to be memory of the caller's, and has to stay mapped, the
    /// same memory at the same place, until [`Self::carve`] of all of it has succeeded or the IOAS
    /// is gone. Until then devices may read it at any time, and write it with
    /// [`Permissions::ReadWrite`]. So no reference to it may exist; what is permitted are atomic
    /// and volatile accesses through raw pointers, sharing it with another process or a guest, and
    /// system calls that read or write it whatever it holds.
    ///
    /// # Errors
    ///
    /// As for [`Self::share_file`].
    pub unsafe fn share_memory(
        &self,
        user_va: *mut u8,
        iova: u64,
        length: u64,
        permissions: Permissions,
    ) -> Result<()> {
        self.share_address(user_va as u64, iova, length, permissions)
    }

    /// [`Self::share_memory`]: for callers that have promised the same.
    pub(crate) fn share_address(
        &self,
        user_va: u64,
        iova: u64,
        length: u64,
        permissions: Permissions,
    ) -> Result<()> {
        self.check(user_va, length)?;
        self.share(iova, length, |done, bytes| {
            self.map_memory(user_va + done, iova + done, bytes, permissions)
        })
    }

    /// The first half of [`Self::carve`]: the range becomes mappings of its own, and stays shared.
    ///
    /// No device notices. If something is to fail for lack of support or memory, it fails here. So
    /// with several IOASes all of them prepare before the first one carves. Memory that is mapped
    /// in pieces needs no preparation; [`Self::carve`] finds out whether all pieces are shared.
    ///
    /// # Errors
    ///
    /// [`SplitError::Range`] and [`SplitError::IommuIoasSplit`]: nothing has changed.
    pub fn prepare(&self, iova: u64, length: u64) -> Result<()> {
        self.check(iova, length)?;
        match self.granularity {
            Granularity::Whole => self.split(iova, length),
            Granularity::Pieces(_) => Ok(()),
        }
    }

    /// Takes `iova..iova + length` out of what devices can reach. They notice nothing around it.
    ///
    /// When this returns `Ok` no device of the IOAS reads or writes the range any more, and the
    /// IOAS has given back its pins. All of the range has to be shared; it may lie across several
    /// mappings.
    ///
    /// That frees no memory. To free it, punch a hole into the file. The hole frees each folio (a
    /// THP or page of hugetlb) that it covers as a whole. A part of a folio reads as zeros then,
    /// but stays allocated: as long as another part is pinned, and in hugetlb always. So punch the
    /// whole folio when all of it has been carved.
    ///
    /// # Errors
    ///
    /// - [`SplitError::Range`] and [`SplitError::IommuIoasSplit`]: nothing has changed. The range
    ///   is still shared, and a confidential guest's page must not be made private. If the kernel
    ///   can do all in one call, see [`carve`](crate::carve()), and memory is mapped whole, these
    ///   are the only errors, unless an in-kernel user pins the range again and again.
    /// - [`SplitError::Iommufd`]: the unmap failed. After a split that only happens if another
    ///   thread works on the same range, or an in-kernel user does not let go of a mapping in it.
    ///   Mappings in front of it may be unmapped.
    /// - [`SplitError::UnmappedLength`]: a part of the range was not shared. No device reaches any
    ///   of it now.
    pub fn carve(&self, iova: u64, length: u64) -> Result<()> {
        if self.one_call && self.granularity == Granularity::Whole {
            self.check(iova, length)?;
            match self.split_and_unmap(iova, length) {
                // An unmap keeps in-kernel users from pinning again, if it has a mapping of its own
                // to close.
                Err(e) if e.errno() == Some(libc::EDEADLK) => {}
                done => return done,
            }
        }
        self.prepare(iova, length)?;
        self.unmap_all_of(iova, length)
    }

    /// Shares again what [`Self::carve`] has taken out of a mapping, in one ioctl, and makes it a
    /// part of that mapping again. No device notices anything around it.
    ///
    /// Sharing it by [`Self::share_file`] leaves three mappings where there was one, and small
    /// IOPTEs, for as long as the guest runs. After this the next [`Self::carve`] finds what the
    /// first one found. A part of the range may be mapped: so this also undoes [`Self::prepare`].
    ///
    /// The kernel finds the memory: it is what was mapped there by the call that made the mapping
    /// around the hole. **If other memory belongs there now, map it** in place of this, and leave
    /// out of the range what is to stay private.
    ///
    /// # Errors
    ///
    /// [`SplitError::Range`] and [`SplitError::IommuIoasJoin`], with `EOPNOTSUPP` if not
    /// [`Self::can_restore`]: nothing has changed, and the range can be mapped instead.
    pub fn restore(&self, iova: u64, length: u64) -> Result<()> {
        self.check(iova, length)?;
        if !self.can_restore() {
            return Err(SplitError::IommuIoasJoin(SysError::new(libc::EOPNOTSUPP)));
        }
        self.fill(iova, length)
    }

    /// Whether memory is mapped whole, and the kernel knows how to make it whole again.
    pub fn can_restore(&self) -> bool {
        self.joins && self.granularity == Granularity::Whole
    }

    /// Whether [`Self::carve`] is one ioctl if memory is mapped whole.
    pub fn carves_in_one_call(&self) -> bool {
        self.one_call
    }

    /// How many ioctls this and its clones have made so far, with those that failed.
    pub fn ioctl_count(&self) -> u64 {
        self.iommufd.calls()
    }

    /// Calls `map` with offset and length of every mapping that the range needs; takes them back if
    /// one fails.
    fn share(&self, iova: u64, length: u64, map: impl Fn(u64, u64) -> Result<()>) -> Result<()> {
        self.check(iova, length)?;
        let step = match self.granularity {
            Granularity::Whole => length,
            Granularity::Pieces(bytes) => bytes,
        };
        let mut done = 0;
        while done < length {
            if let Err(cause) = map(done, step) {
                if done > 0 && self.unmap_all_of(iova, done).is_err() {
                    return Err(SplitError::Rollback {
                        cause: Box::new(cause),
                        iova,
                        length: done,
                    });
                }
                return Err(cause);
            }
            done += step;
        }
        Ok(())
    }

    /// One ioctl: `length` bytes of `source`, from `offset` into it on, at `iova`.
    pub(crate) fn map(
        &self,
        source: &Source,
        offset: u64,
        iova: u64,
        length: u64,
        permissions: Permissions,
    ) -> Result<()> {
        match &source.0 {
            Backing::File(file, start) => {
                self.map_file(file.as_raw_fd(), start + offset, iova, length, permissions)
            }
            Backing::Memory(start) => self.map_memory(start + offset, iova, length, permissions),
        }
    }

    fn map_file(
        &self,
        fd: RawFd,
        start: u64,
        iova: u64,
        length: u64,
        permissions: Permissions,
    ) -> Result<()> {
        self.iommufd.map_file(&iommu_ioas_map_file {
            size: size_of::<iommu_ioas_map_file>() as u32,
            flags: permissions.map_flags(),
            ioas_id: self.ioas.id(),
            fd,
            start,
            length,
            iova,
        })
    }

    pub(crate) fn map_memory(
        &self,
        user_va: u64,
        iova: u64,
        length: u64,
        permissions: Permissions,
    ) -> Result<()> {
        self.iommufd.map(&iommu_ioas_map {
            size: size_of::<iommu_ioas_map>() as u32,
            flags: permissions.map_flags(),
            ioas_id: self.ioas.id(),
            user_va,
            length,
            iova,
            ..Default::default()
        })
    }

    /// One ioctl.
    pub(crate) fn split(&self, iova: u64, length: u64) -> Result<()> {
        split_flags(&*self.iommufd, 0, self.ioas.id(), iova, length)
    }

    /// One ioctl, which the kernel has to know.
    pub(crate) fn split_and_unmap(&self, iova: u64, length: u64) -> Result<()> {
        let flags = iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP;
        split_flags(&*self.iommufd, flags, self.ioas.id(), iova, length)
    }

    /// One ioctl: fills the holes of the range, and joins what meets in it.
    pub(crate) fn fill(&self, iova: u64, length: u64) -> Result<()> {
        let flags = iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL;
        join_flags(&*self.iommufd, flags, self.ioas.id(), iova, length)
    }

    /// One ioctl: joins what meets in the range. `ENOENT` if a part of it is not mapped, which is
    /// looked at before anything that may be in the way.
    pub(crate) fn join(&self, iova: u64, length: u64) -> Result<()> {
        join_flags(&*self.iommufd, 0, self.ioas.id(), iova, length)
    }

    /// One ioctl; how many bytes are no longer mapped. After an error that may be the mappings in
    /// front.
    pub(crate) fn unmap(&self, iova: u64, length: u64) -> Result<u64> {
        unmap(&*self.iommufd, self.ioas.id(), iova, length)
    }

    /// Unmaps a range that is all mapped.
    fn unmap_all_of(&self, iova: u64, length: u64) -> Result<()> {
        all_unmapped(iova, length, self.unmap(iova, length)?)
    }

    pub(crate) fn ioctls(&self) -> &dyn Ioctls {
        &*self.iommufd
    }

    /// All ranges are multiples of this.
    pub(crate) fn page_size(&self) -> u64 {
        self.page_size
    }

    fn check(&self, iova: u64, length: u64) -> Result<()> {
        // Of a power of two: both are multiples if this is.
        let pages = (iova | length).is_multiple_of(self.page_size);
        if length == 0 || !pages || iova.checked_add(length - 1).is_none() {
            return Err(self.not_a_range(iova, length));
        }
        Ok(())
    }

    fn not_a_range(&self, iova: u64, length: u64) -> SplitError {
        SplitError::Range {
            iova,
            length,
            page_size: self.page_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kernel, Knows};
    use crate::Tracker;

    #[test]
    fn pieces_are_powers_of_two_and_at_least_a_page() {
        let iommufd = Arc::new(IommuFd::new_from_fd(File::open("/dev/null").unwrap()));
        for bytes in [0, 1, 2048, 12 << 10, page_size() / 2, page_size() + 1] {
            let made =
                SharedMemory::with_granularity(Arc::clone(&iommufd), 1, Granularity::Pieces(bytes));
            assert!(matches!(made, Err(SplitError::Granularity(b)) if b == bytes));
        }
        for bytes in [page_size(), 2 << 20] {
            let granularity = Granularity::Pieces(bytes);
            let made = SharedMemory::with_granularity(Arc::clone(&iommufd), 1, granularity);
            assert_eq!(made.unwrap().granularity(), granularity);
        }
    }

    #[test]
    fn permissions_are_the_flags_of_the_kernel() {
        // FIXED_IOVA is 1, WRITEABLE 2, READABLE 4.
        assert_eq!(Permissions::Read.map_flags(), 5);
        assert_eq!(Permissions::ReadWrite.map_flags(), 7);
    }

    #[test]
    fn pieces_need_no_preparation() {
        // A device without ioctls, so that none can have succeeded.
        let iommufd = Arc::new(IommuFd::new_from_fd(File::open("/dev/null").unwrap()));
        let length = page_size();
        let of = |granularity| {
            SharedMemory::with_granularity(Arc::clone(&iommufd), 1, granularity).unwrap()
        };
        let pieces = of(Granularity::Pieces(length));
        pieces.prepare(0, length).unwrap();
        assert!(matches!(
            pieces.prepare(0, length + 1),
            Err(SplitError::Range { .. })
        ));
        let whole = of(Granularity::Whole).prepare(0, length);
        assert!(matches!(whole, Err(SplitError::IommuIoasSplit(_))));
    }

    #[test]
    fn without_devices_and_without_a_kernel_memory_is_in_pieces() {
        let iommufd = Arc::new(IommuFd::new_from_fd(File::open("/dev/null").unwrap()));
        for devices in [&[][..], &[1]] {
            let shared = SharedMemory::new(Arc::clone(&iommufd), 1, devices).unwrap();
            assert_eq!(shared.granularity(), Granularity::Pieces(page_size()));
            assert!(shared.accepts(1).unwrap());
        }
        let tried = SharedMemory::by_trial(iommufd, 1, 0).unwrap();
        assert_eq!(tried.granularity(), Granularity::Pieces(page_size()));
    }

    /// Not being able to split and unmap in one call is a reason for two, but no other error is.
    #[test]
    fn a_carve_is_one_call_or_two() {
        const DEADLOCK: Option<u8> = Some(1);
        const BUSY: Option<u8> = Some(0);
        let page = page_size();
        for (knows, fault, calls, errno) in [
            (Knows::ALL, None, 1, None),
            (Knows::TWO_CALLS, None, 2, None),
            (Knows::ALL, DEADLOCK, 3, None),
            (Knows::ALL, BUSY, 1, Some(libc::EBUSY)),
        ] {
            let kernel = Kernel::new(knows);
            kernel.add_ioas(1, true);
            let same = Arc::clone(&kernel);
            let memory = SharedMemory::with_ioctls(same, 1.into(), Granularity::Whole).unwrap();
            let read = Permissions::Read;
            memory.map_memory(0, 0, 4 * page, read).unwrap();
            kernel.arm(&[fault]);
            let before = memory.ioctl_count();
            let carved = memory.clone().carve(page, page);
            assert_eq!(kernel.calls(), calls, "{knows:?}, {fault:?}");
            assert_eq!(memory.ioctl_count() - before, calls as u64);
            assert_eq!(carved.err().and_then(|e| e.errno()), errno);
            let mapped: Vec<u64> = kernel.pages(1).into_keys().collect();
            let left = [0, 1, 2, 3].map(|p| p * page);
            let left = left.iter().filter(|&&at| at != page || errno.is_some());
            assert!(mapped.iter().eq(left), "{knows:?}, {fault:?}: {mapped:x?}");
        }
    }

    /// The reverse of a carve, or an error that changes nothing.
    #[test]
    fn a_restore_is_one_call() {
        let page = page_size();
        let read = Permissions::Read;
        for (knows, granularity, fault, errno) in [
            (Knows::ALL, Granularity::Whole, None, None),
            (Knows::ALL, Granularity::Whole, Some(0), Some(libc::EBUSY)),
            (
                Knows::NO_JOIN,
                Granularity::Whole,
                None,
                Some(libc::EOPNOTSUPP),
            ),
            (
                Knows::ALL,
                Granularity::Pieces(page),
                None,
                Some(libc::EOPNOTSUPP),
            ),
        ] {
            let kernel = Kernel::new(knows);
            kernel.add_ioas(1, granularity == Granularity::Whole);
            let same = Arc::clone(&kernel);
            let memory = SharedMemory::with_ioctls(same, 1.into(), granularity).unwrap();
            memory.share_address(8 * page, 0, 4 * page, read).unwrap();
            let whole = kernel.areas(1);
            memory.carve(page, 2 * page).unwrap();
            let carved = kernel.areas(1);
            kernel.arm(&[fault]);
            let restored = memory.restore(page, 2 * page);
            let areas = kernel.areas(1);
            let what = format!("{knows:?}, {granularity:?}, {fault:?}");
            assert_eq!(kernel.calls(), usize::from(memory.can_restore()), "{what}");
            match errno {
                None => assert_eq!(areas, whole, "{what}"),
                Some(_) => assert_eq!(areas, carved, "{what}"),
            }
            let error = restored.as_ref().err();
            assert_eq!(error.and_then(SplitError::errno), errno, "{what}");
            let unsupported = error.is_some_and(SplitError::is_unsupported);
            assert_eq!(unsupported, errno == Some(libc::EOPNOTSUPP), "{what}");
            assert!(matches!(
                memory.restore(page + 1, page),
                Err(SplitError::Range { .. })
            ));
        }
    }

    #[test]
    fn memory_of_the_process_is_mapped_at_its_address() {
        let page = page_size();
        let kernel = Kernel::new(Knows::NOTHING);
        kernel.add_ioas(1, false);
        let pieces = Granularity::Pieces(page);
        let same = Arc::clone(&kernel);
        let memory = SharedMemory::with_ioctls(same, 1.into(), pieces).unwrap();
        let mut tracker = Tracker::new();
        tracker.add_ioas(memory).unwrap();
        // SAFETY: The kernel is a model, which maps nothing.
        let source = unsafe { Source::memory((page * 1000) as *mut u8) };
        tracker
            .add_region(page, 4 * page, source, Permissions::ReadWrite)
            .unwrap();
        tracker.set_shared(2 * page, 2 * page).unwrap();
        let mapped = kernel.areas(1);
        assert_eq!(mapped.len(), 2);
        assert_eq!(mapped[&(2 * page)].source, 1001 * page);
        assert_eq!(mapped[&(3 * page)].fd, None);
    }
}
