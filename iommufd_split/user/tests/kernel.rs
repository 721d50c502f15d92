// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The crate against the kernel: `kernel [OPTION] PCI-ADDRESS...` with devices that are bound to
//! vfio-pci. Prints TAP. Without devices there is nothing to test. `--cannot-split` says that their
//! IOMMU is one that cannot, `--until=COMMAND` that it can until COMMAND has run.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;

use iommufd_bindings::iommufd::{iommu_hwpt_alloc, iommu_ioas_iova_ranges, iommu_iova_range};
use iommufd_ioctls::{IommuFd, IommufdIoas};
use iommufd_split::{
    can_carve, can_restore, can_split, carve, iommu_ioas_join, iommu_ioas_split, join, read_dirty,
    restore, split, try_split, Clear, Granularity, IommuFdSplit, Permissions, SharedMemory, Source,
    SplitError, Tracker,
};
use rustix::fs::{fallocate, memfd_create, FallocateFlags, MemfdFlags};
use vfio_ioctls::{VfioDevice, VfioIommufd};

const GIB: u64 = 1 << 30;
/// Where the memory is mapped.
const BASE: u64 = 4 * GIB;

type Case = fn(&Setup) -> Result<(), String>;

/// Which IOMMUs a case is for: all, those that can split, those that will no longer.
#[derive(PartialEq)]
enum For {
    All,
    Splitting,
    Changing,
}
use For::{All, Changing, Splitting};

const CASES: &[(For, &str, Case)] = &[
    (All, "the capability of every device", capability),
    (All, "granularity follows the capability", granularity),
    (
        All,
        "an IOAS without devices is mapped in pieces",
        no_device,
    ),
    (All, "a page out of a large page", |s| {
        carve_one(s, pages(123), pages(1))
    }),
    (All, "16 pages out of a large page", |s| {
        carve_one(s, pages(70 * 16), pages(16))
    }),
    (All, "512 pages out of a large page", |s| {
        carve_one(s, pages(0x600), pages(0x200))
    }),
    (All, "the first page", |s| carve_one(s, 0, pages(1))),
    (All, "the last page", |s| {
        carve_one(s, s.size - pages(1), pages(1))
    }),
    (All, "everything", |s| carve_one(s, 0, s.size)),
    (Splitting, "a range across a refilled hole", across_refilled),
    (
        Splitting,
        "a hundred holes, refilled, then all in one",
        many,
    ),
    (All, "a second page table in the IOAS", second_hwpt),
    (Splitting, "splitting again changes nothing", again),
    (Splitting, "memory of the process", process_memory),
    (All, "pieces are carved without a split", pieces),
    (
        All,
        "pieces that cannot be shared leave nothing behind",
        pieces_rollback,
    ),
    (
        Splitting,
        "two IOASes prepare before one lets go",
        several_ioases,
    ),
    (All, "ranges that are none are refused", bad_ranges),
    (All, "every errno arrives", errnos),
    (All, "one call, all or nothing", one_call),
    (All, "a trial says what the capability does", trial),
    (All, "a tracker agrees with the kernel", tracker),
    (
        Splitting,
        "what was carved is restored, and is one mapping",
        restored,
    ),
    (
        Splitting,
        "what cannot be restored stays a hole",
        not_restored,
    ),
    (
        Splitting,
        "a guest that shares all again has one mapping",
        all_again,
    ),
    #[cfg(feature = "vfio-ioctls")]
    (All, "parts are unmapped through VfioOps", vfio_ops),
    // The last one: the IOMMU is another one after it.
    (
        Changing,
        "a page table that can be split stays away from an IOMMU that cannot",
        from_before,
    ),
];

/// An IOAS with devices, new for every case, and a file of large pages.
struct Setup {
    iommufd: Arc<IommuFd>,
    ioas: Arc<IommufdIoas>,
    /// Attached as long as they live.
    devices: Vec<VfioDevice>,
    dev_ids: Vec<u32>,
    file: File,
    size: u64,
    splits: bool,
    until: Option<String>,
}

impl Setup {
    fn new(
        addresses: &[String],
        splits: bool,
        until: Option<String>,
        (file, size): (File, u64),
    ) -> Result<Self, String> {
        let iommufd = Arc::new(IommuFd::new().map_err(text)?);
        let ioas = Arc::new(IommufdIoas::new(Arc::clone(&iommufd)).map_err(text)?);
        let vfio = Arc::new(
            VfioIommufd::new(Arc::clone(&iommufd), Some(Arc::clone(&ioas)), None).map_err(text)?,
        );
        let mut devices = Vec::new();
        let mut dev_ids = Vec::new();
        for address in addresses {
            let path = Path::new("/sys/bus/pci/devices").join(address);
            let device = VfioDevice::new(&path, vfio.clone(), true).map_err(text)?;
            dev_ids.push(device.iommufd_dev_id().ok_or("device without ID")?);
            devices.push(device);
        }
        Ok(Self {
            iommufd,
            ioas,
            devices,
            dev_ids,
            file,
            size,
            splits,
            until,
        })
    }

    fn shared(&self, granularity: Granularity) -> SharedMemory {
        SharedMemory::with_granularity(Arc::clone(&self.iommufd), self.ioas.id(), granularity)
            .expect("every granularity here is one")
    }

    fn whole(&self) -> Result<SharedMemory, String> {
        let shared = self.shared(Granularity::Whole);
        self.share(&shared, 0, self.size)?;
        Ok(shared)
    }

    /// A new page table for the first device, with all that is mapped in `ioas`.
    fn page_table(&self, ioas: &IommufdIoas) -> Result<u32, String> {
        let mut hwpt = iommu_hwpt_alloc {
            size: size_of::<iommu_hwpt_alloc>() as u32,
            dev_id: self.dev_ids[0],
            pt_id: ioas.id(),
            ..Default::default()
        };
        self.iommufd.alloc_iommu_hwpt(&mut hwpt).map_err(text)?;
        Ok(hwpt.out_hwpt_id)
    }

    fn share(&self, shared: &SharedMemory, offset: u64, length: u64) -> Result<(), String> {
        shared
            .share_file(
                self.file.as_fd(),
                offset,
                BASE + offset,
                length,
                Permissions::ReadWrite,
            )
            .map_err(text)
    }

    /// All of a range is mapped, or nothing of it. Where it is, its ends are ends of mappings
    /// already, or a split makes them so.
    fn expect(&self, offset: u64, length: u64, mapped: bool) -> Result<(), String> {
        let (iova, ioas_id) = (BASE + offset, self.ioas.id());
        if mapped {
            return match split(&self.iommufd, ioas_id, iova, length) {
                Err(e) if e.errno() == Some(libc::ENOENT) => Err(format!(
                    "not all of {length:#x} bytes at {offset:#x} is mapped"
                )),
                Err(e) if self.splits || !e.is_unsupported() => Err(e.to_string()),
                _ => Ok(()),
            };
        }
        let all = self.shared(Granularity::Whole);
        self.share(&all, offset, length)
            .map_err(|e| format!("something of {length:#x} bytes at {offset:#x} is mapped: {e}"))?;
        self.ioas.unmap(iova, length).map_err(text)
    }

    /// The kernel has one mapping of this: it refuses to unmap a part.
    fn expect_one(&self, offset: u64, length: u64) -> Result<(), String> {
        for (at, part) in [
            (offset, pages(1)),
            (offset, length - pages(1)),
            (offset + pages(1), length - pages(1)),
        ] {
            match self.ioas.unmap(BASE + at, part).map_err(SplitError::from) {
                Err(e) if e.errno() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e.to_string()),
                Ok(()) => return Err(format!("{part:#x} bytes at {at:#x} were a mapping")),
            }
        }
        Ok(())
    }
}

/// The bytes of so many of the system's pages: 4K or, on Arm, more. Offsets are in pages, of which a
/// file of large pages has 0x2000 at least.
fn pages(count: u64) -> u64 {
    // SAFETY: It has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    count * bytes.unsigned_abs()
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// The largest pages that the system has free.
fn large_pages() -> Result<(File, u64), String> {
    for (page, size) in [
        (MemfdFlags::HUGE_1GB, GIB),
        (MemfdFlags::HUGE_512MB, GIB / 2),
        (MemfdFlags::HUGE_2MB, pages(0x2000)),
    ] {
        let Ok(file) = memfd_create("guest", MemfdFlags::HUGETLB | page).map(File::from) else {
            continue;
        };
        // The pages, or an error.
        if fallocate(&file, FallocateFlags::empty(), 0, size).is_ok() {
            return Ok((file, size));
        }
    }
    Err("no hugetlb pages: boot with hugepagesz=1G hugepages=1, or 512M with pages of 64K".into())
}

fn capability(s: &Setup) -> Result<(), String> {
    for &dev_id in &s.dev_ids {
        if can_split(&s.iommufd, dev_id).map_err(text)? != s.splits {
            return Err(format!("device {dev_id} says otherwise"));
        }
    }
    match can_split(&s.iommufd, 12345) {
        Err(e) if e.errno() == Some(libc::ENOENT) => Ok(()),
        other => Err(format!("a device that does not exist: {other:?}")),
    }
}

fn granularity(s: &Setup) -> Result<(), String> {
    let shared =
        SharedMemory::new(Arc::clone(&s.iommufd), s.ioas.id(), &s.dev_ids).map_err(text)?;
    let want = if s.splits {
        Granularity::Whole
    } else {
        Granularity::Pieces(pages(1))
    };
    if shared.granularity() != want {
        return Err(format!("{:?}", shared.granularity()));
    }
    if !shared.accepts(s.dev_ids[0]).map_err(text)? {
        return Err("its own device is not accepted".into());
    }
    let length = pages(16);
    s.share(&shared, 0, length)?;
    shared.carve(BASE + pages(1), pages(2)).map_err(text)?;
    s.expect(pages(1), pages(2), false)?;
    s.expect(0, pages(1), true)?;
    s.expect(pages(3), length - pages(3), true)
}

fn no_device(s: &Setup) -> Result<(), String> {
    let shared = SharedMemory::new(Arc::clone(&s.iommufd), s.ioas.id(), &[]).map_err(text)?;
    match shared.granularity() {
        Granularity::Pieces(bytes) if bytes == pages(1) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Where the IOMMU cannot split, nothing changes and the error says why.
fn carve_one(s: &Setup, offset: u64, length: u64) -> Result<(), String> {
    let shared = s.whole()?;
    let done = shared.carve(BASE + offset, length);
    if !s.splits && length != s.size {
        return match done {
            Err(e) if e.is_unsupported() => s.expect(offset, length, true),
            other => Err(format!("{other:?}")),
        };
    }
    done.map_err(text)?;
    s.expect(offset, length, false)?;
    if offset > 0 {
        s.expect(0, offset, true)?;
    }
    if offset + length < s.size {
        s.expect(offset + length, s.size - offset - length, true)?;
    }
    s.share(&shared, offset, length)?;
    s.expect(0, s.size, true)
}

fn across_refilled(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    shared
        .carve(BASE + pages(0x200), pages(0x200))
        .map_err(text)?;
    s.share(&shared, pages(0x200), pages(0x200))?;
    shared
        .carve(BASE + pages(0x100), pages(0x400))
        .map_err(text)?;
    s.expect(pages(0x100), pages(0x400), false)?;
    s.expect(0, pages(0x100), true)?;
    s.expect(pages(0x500), s.size - pages(0x500), true)
}

fn many(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    for i in 0..100 {
        let (offset, length) = (pages(17 * i), pages(1 + i % 16));
        shared.carve(BASE + offset, length).map_err(text)?;
        s.expect(offset, length, false)?;
        s.share(&shared, offset, length)?;
    }
    s.expect(0, s.size, true)?;
    shared.carve(BASE, s.size).map_err(text)?;
    s.expect(0, s.size, false)
}

fn second_hwpt(s: &Setup) -> Result<(), String> {
    let hwpt_id = s.page_table(&s.ioas)?;
    carve_one(s, pages(0x300), pages(2))?;
    s.devices[0].attach_hwpt(hwpt_id).map_err(text)?;
    s.expect(0, s.size, true)?;
    s.devices[0].attach_hwpt(s.ioas.id()).map_err(text)?;
    s.iommufd.destroy_iommu_object(hwpt_id).map_err(text)
}

fn again(s: &Setup) -> Result<(), String> {
    let _shared = s.whole()?;
    for _ in 0..3 {
        split(&s.iommufd, s.ioas.id(), BASE + pages(0x400), pages(1)).map_err(text)?;
    }
    // The whole of what was mapped: both ends are ends of a mapping.
    split(&s.iommufd, s.ioas.id(), BASE, s.size).map_err(text)?;
    s.expect(0, s.size, true)
}

fn process_memory(s: &Setup) -> Result<(), String> {
    let region = vm_memory::MmapRegion::<()>::from_file(
        vm_memory::FileOffset::new(s.file.try_clone().map_err(text)?, 0),
        s.size as usize,
    )
    .map_err(text)?;
    let shared = s.shared(Granularity::Whole);
    // SAFETY: Nothing refers to the memory of the file; `region` outlives the mapping, which is
    // removed below.
    unsafe { shared.share_memory(region.as_ptr(), BASE, s.size, Permissions::Read) }
        .map_err(text)?;
    shared.carve(BASE + pages(0x800), pages(1)).map_err(text)?;
    s.expect(pages(0x800), pages(1), false)?;
    shared.carve(BASE, pages(0x800)).map_err(text)?;
    let rest = pages(0x800) + pages(1);
    shared.carve(BASE + rest, s.size - rest).map_err(text)
}

fn pieces(s: &Setup) -> Result<(), String> {
    let shared = s.shared(Granularity::Pieces(pages(1)));
    s.share(&shared, 0, pages(0x100))?;
    shared.carve(BASE + pages(16), pages(1)).map_err(text)?;
    s.expect(pages(16), pages(1), false)?;
    s.expect(0, pages(16), true)?;
    s.expect(pages(17), pages(0x100) - pages(17), true)
}

fn pieces_rollback(s: &Setup) -> Result<(), String> {
    let shared = s.shared(Granularity::Pieces(pages(1)));
    s.share(&shared, pages(10), pages(1))?;
    match s.share(&shared, 0, pages(16)) {
        Err(e) if e.contains("File exists") => {}
        other => return Err(format!("{other:?}")),
    }
    s.expect(0, pages(10), false)?;
    s.expect(pages(10), pages(1), true)?;
    s.expect(pages(11), pages(5), false)
}

/// The second IOAS has no devices; it has other mappings, so that it can refuse what the first one
/// accepts.
fn several_ioases(s: &Setup) -> Result<(), String> {
    let first = s.whole()?;
    let ioas = IommufdIoas::new(Arc::clone(&s.iommufd)).map_err(text)?;
    let second =
        SharedMemory::with_granularity(Arc::clone(&s.iommufd), ioas.id(), Granularity::Whole)
            .map_err(text)?;
    s.share(&second, 0, pages(0x800))?;
    let prepare = |iova, length| {
        first
            .prepare(iova, length)
            .and_then(|()| second.prepare(iova, length))
    };
    match prepare(BASE + pages(0x700), pages(0x200)) {
        Err(e) if e.errno() == Some(libc::ENOENT) => {}
        other => return Err(format!("not shared in the second: {other:?}")),
    }
    s.expect(0, s.size, true)?;
    for _ in 0..2 {
        prepare(BASE + pages(0x100), pages(16)).map_err(text)?;
    }
    s.expect(0, s.size, true)?;
    for shared in [&first, &second] {
        shared.carve(BASE + pages(0x100), pages(16)).map_err(text)?;
        match shared.prepare(BASE + pages(0x100), pages(16)) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {}
            other => return Err(format!("carved, yet: {other:?}")),
        }
    }
    s.expect(pages(0x100), pages(16), false)
}

fn bad_ranges(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    for (iova, length) in [
        (BASE, 0),
        (BASE + 1, pages(1)),
        (BASE, pages(1) + 8),
        (u64::MAX - pages(1) + 1, pages(2)),
    ] {
        match shared.carve(iova, length) {
            Err(SplitError::Range { .. }) => {}
            other => return Err(format!("{length:#x} at {iova:#x}: {other:?}")),
        }
    }
    match shared.share_file(
        s.file.as_fd(),
        u64::MAX - pages(1) + 1,
        BASE,
        pages(2),
        Permissions::ReadWrite,
    ) {
        Err(SplitError::Range { .. }) => {}
        other => return Err(format!("offset: {other:?}")),
    }
    s.expect(0, s.size, true)
}

/// What IOVAs in the IOAS have to be aligned to.
fn alignment(s: &Setup) -> Result<u64, String> {
    const IOMMU_IOAS_IOVA_RANGES: libc::Ioctl = 0x3b84;
    let mut ranges = [iommu_iova_range::default(); 64];
    let mut cmd = iommu_ioas_iova_ranges {
        size: size_of::<iommu_ioas_iova_ranges>() as u32,
        ioas_id: s.ioas.id(),
        num_iovas: ranges.len() as u32,
        allowed_iovas: ranges.as_mut_ptr() as u64,
        ..Default::default()
    };
    let fd = s.iommufd.as_raw_fd();
    // SAFETY: Both structs live, and the kernel writes `num_iovas` ranges at most.
    let rc = unsafe { libc::ioctl(fd, IOMMU_IOAS_IOVA_RANGES, &raw mut cmd) };
    if rc != 0 {
        return Err(text(std::io::Error::last_os_error()));
    }
    Ok(cmd.out_iova_alignment)
}

fn errnos(s: &Setup) -> Result<(), String> {
    let _shared = s.whole()?;
    // Otherwise half a page would be aligned.
    let alignment = alignment(s)?;
    if alignment != pages(1) {
        return Err(format!("IOVAs are aligned to {alignment:#x}"));
    }
    let good = iommu_ioas_split {
        size: 32,
        ioas_id: s.ioas.id(),
        iova: BASE,
        length: s.size,
        ..Default::default()
    };
    let cases = [
        (libc::EINVAL, iommu_ioas_split { size: 8, ..good }),
        (libc::EOPNOTSUPP, iommu_ioas_split { flags: 2, ..good }),
        (libc::EOPNOTSUPP, iommu_ioas_split { flags: 3, ..good }),
        (
            libc::EOPNOTSUPP,
            iommu_ioas_split {
                __reserved: 1,
                ..good
            },
        ),
        (
            libc::EINVAL,
            iommu_ioas_split {
                iova: BASE + pages(1) / 2,
                ..good
            },
        ),
        (libc::EINVAL, iommu_ioas_split { length: 0, ..good }),
        (
            libc::EOVERFLOW,
            iommu_ioas_split {
                iova: u64::MAX - pages(1) + 1,
                length: pages(2),
                ..good
            },
        ),
        (
            libc::ENOENT,
            iommu_ioas_split {
                ioas_id: 12345,
                ..good
            },
        ),
        (
            libc::ENOENT,
            iommu_ioas_split {
                iova: BASE + pages(1),
                ..good
            },
        ),
    ];
    s.iommufd.split_iommu_ioas(&mut { good }).map_err(text)?;
    for (errno, mut split) in cases {
        match s.iommufd.split_iommu_ioas(&mut split) {
            Err(e) if e.errno() == Some(errno) => {}
            other => return Err(format!("{split:?}: {other:?}")),
        }
    }
    // A page table that does not track.
    let hwpt_id = s.page_table(&s.ioas)?;
    for (hwpt_id, errno) in [(hwpt_id, libc::EOPNOTSUPP), (12345, libc::ENOENT)] {
        match read_dirty(
            &s.iommufd,
            hwpt_id,
            BASE,
            pages(0x100),
            Clear::Yes,
            |_, _| (),
        ) {
            Err(e) if e.errno() == Some(errno) => {}
            other => return Err(format!("dirty bits of {hwpt_id}: {other:?}")),
        }
    }
    s.iommufd.destroy_iommu_object(hwpt_id).map_err(text)
}

/// What `SharedMemory::carve` does is one ioctl on this kernel, and what that refuses is all still
/// there.
fn one_call(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    if !can_carve(&s.iommufd) || !shared.carves_in_one_call() {
        return Err("the kernel does not know the flag".into());
    }
    let carve = |offset, length| carve(&s.iommufd, s.ioas.id(), BASE + offset, length);
    match carve(s.size - pages(1), pages(2)) {
        Err(e) if e.errno() == Some(libc::ENOENT) => {}
        other => return Err(format!("beyond the end: {other:?}")),
    }
    s.expect(0, s.size, true)?;
    if s.splits {
        carve(pages(0x100), pages(1)).map_err(text)?;
        s.expect(pages(0x100), pages(1), false)?;
        s.expect(0, pages(0x100), true)?;
        match carve(0, pages(0x200)) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {}
            other => return Err(format!("across the hole: {other:?}")),
        }
        s.expect(0, pages(0x100), true)?;
        s.share(&shared, pages(0x100), pages(1))?;
    }
    carve(0, s.size).map_err(text)?;
    s.expect(0, s.size, false)
}

fn trial(s: &Setup) -> Result<(), String> {
    for offset in [0, pages(0x600)] {
        let tried = try_split(&s.iommufd, s.ioas.id(), BASE + offset).map_err(text)?;
        if tried != s.splits {
            return Err(format!("the trial says {tried}"));
        }
        s.expect(offset, pages(0x200), false)?;
    }
    let shared = SharedMemory::by_trial(Arc::clone(&s.iommufd), &s.ioas, BASE).map_err(text)?;
    match (shared.granularity(), s.splits) {
        (Granularity::Whole, true) => {}
        (Granularity::Pieces(bytes), false) if bytes == pages(1) => {}
        (other, _) => return Err(format!("{other:?}")),
    }
    let _whole = s.whole()?;
    match try_split(&s.iommufd, s.ioas.id(), BASE) {
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
        other => Err(format!("where memory is: {other:?}")),
    }
}

/// Ranges at random: what is shared in the tracker is mapped, in the mappings that it says, and
/// nothing else is. A second IOAS comes in the midst of it, without devices.
fn tracker(s: &Setup) -> Result<(), String> {
    let all = pages(0x400);
    let new = |ioas| SharedMemory::new(Arc::clone(&s.iommufd), ioas, &s.dev_ids).map_err(text);
    let mut tracker = Tracker::new();
    tracker.add_ioas(new(&s.ioas)?).map_err(text)?;
    let file = s.file.try_clone().map_err(text)?;
    let source = Source::file(file, 0);
    tracker
        .add_region(BASE, all, source, Permissions::ReadWrite)
        .map_err(text)?;
    tracker.set_shared(BASE, all).map_err(text)?;
    let late = Arc::new(IommufdIoas::new(Arc::clone(&s.iommufd)).map_err(text)?);
    let mut random = 1u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) % n
    };
    for i in 0..200 {
        let offset = pages(below(all / pages(1)));
        let length = pages(1 + below(64));
        let (iova, length) = (BASE + offset, length.min(all - offset));
        match below(2) {
            0 => tracker.set_private(iova, length).map_err(text)?,
            _ => tracker.set_shared(iova, length).map_err(text)?,
        }
        if i == 100 {
            tracker.add_ioas(new(&late)?).map_err(text)?;
        }
        if i % 20 != 0 {
            continue;
        }
        let mut at = 0;
        for (iova, length) in tracker.mappings(s.ioas.id(), BASE, all).map_err(text)? {
            let offset = iova - BASE;
            if offset > at {
                s.expect(at, offset - at, false)?;
            }
            s.expect(offset, length, true)?;
            at = offset + length;
        }
        if at < all {
            s.expect(at, all - at, false)?;
        }
    }
    let shared: u64 = tracker.shared().map(|(_, length)| length).sum();
    let mapped: u64 = tracker
        .mappings(late.id(), BASE, all)
        .map_err(text)?
        .iter()
        .map(|(_, length)| length)
        .sum();
    if shared != mapped {
        return Err(format!(
            "{mapped:#x} bytes in the second IOAS of {shared:#x}"
        ));
    }
    // Mappings that are larger than the record has them cannot be unmapped so.
    for (iova, length) in tracker.mappings(s.ioas.id(), BASE, all).map_err(text)? {
        s.ioas
            .unmap(iova, length)
            .map_err(|e| format!("{length:#x} bytes at {iova:#x} are no mapping: {e}"))?;
    }
    s.expect(0, all, false)?;
    // What is gone already is no error.
    tracker.remove_region(BASE).map_err(text)?;
    // Nothing is left there, either.
    match late.unmap(BASE, all) {
        Err(_) => Ok(()),
        Ok(()) => Err("something was mapped in the second IOAS".into()),
    }
}

fn restored(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    if !can_restore(&s.iommufd) || !shared.can_restore() {
        return Err("the kernel does not know the ioctl".into());
    }
    for (offset, length) in [
        (0, pages(1)),
        (s.size - pages(1), pages(1)),
        (pages(123), pages(1)),
        (pages(70 * 16), pages(16)),
        (pages(0x600), pages(0x200)),
        (pages(0x700) + pages(1), pages(0x300)),
        (pages(1), s.size - pages(2)),
    ] {
        shared.carve(BASE + offset, length).map_err(text)?;
        s.expect(offset, length, false)?;
        shared.restore(BASE + offset, length).map_err(text)?;
        s.expect_one(0, s.size)?;
    }
    // Many holes, and a range that has them all and what is between them.
    for i in 0..50 {
        shared.carve(BASE + pages(17 * i), pages(2)).map_err(text)?;
    }
    restore(&s.iommufd, s.ioas.id(), BASE, pages(0x400)).map_err(text)?;
    s.expect_one(0, s.size)?;
    // Without a hole.
    split(&s.iommufd, s.ioas.id(), BASE + pages(0x100), pages(1)).map_err(text)?;
    join(&s.iommufd, s.ioas.id(), BASE + pages(0x100), pages(1)).map_err(text)?;
    s.expect_one(0, s.size)?;
    // Still good for a hole.
    carve_and_check(s, &shared, pages(0x500), pages(1))
}

fn carve_and_check(
    s: &Setup,
    shared: &SharedMemory,
    offset: u64,
    length: u64,
) -> Result<(), String> {
    shared.carve(BASE + offset, length).map_err(text)?;
    s.expect(offset, length, false)?;
    s.expect(0, offset, true)?;
    s.expect(offset + length, s.size - offset - length, true)
}

/// Every errno arrives, and nothing has changed.
fn not_restored(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    shared
        .carve(BASE + pages(0x100), pages(0x100))
        .map_err(text)?;
    let good = iommu_ioas_join {
        size: 32,
        flags: 1,
        ioas_id: s.ioas.id(),
        iova: BASE + pages(0x100),
        length: pages(0x100),
        ..Default::default()
    };
    let end = BASE + s.size;
    for (errno, mut join) in [
        (libc::EINVAL, iommu_ioas_join { size: 8, ..good }),
        (libc::EOPNOTSUPP, iommu_ioas_join { flags: 2, ..good }),
        (libc::EOPNOTSUPP, iommu_ioas_join { flags: 3, ..good }),
        (
            libc::EOPNOTSUPP,
            iommu_ioas_join {
                __reserved: 1,
                ..good
            },
        ),
        (libc::EINVAL, iommu_ioas_join { length: 0, ..good }),
        (
            libc::EINVAL,
            iommu_ioas_join {
                length: 512,
                ..good
            },
        ),
        (
            libc::EOVERFLOW,
            iommu_ioas_join {
                iova: u64::MAX - pages(1) + 1,
                length: pages(2),
                ..good
            },
        ),
        (
            libc::ENOENT,
            iommu_ioas_join {
                ioas_id: 12345,
                ..good
            },
        ),
        (libc::ENOENT, iommu_ioas_join { flags: 0, ..good }),
        // The memory ends there.
        (libc::ENOENT, iommu_ioas_join { iova: end, ..good }),
    ] {
        match s.iommufd.join_iommu_ioas(&mut join) {
            Err(e) if e.errno() == Some(errno) => {}
            other => return Err(format!("{join:?}: {other:?}")),
        }
        s.expect(pages(0x100), pages(0x100), false)?;
    }
    // Other memory in a part of the hole: which of both the rest is of, nobody knows.
    shared
        .share_file(
            s.file.as_fd(),
            pages(0x1000),
            BASE + pages(0x100),
            pages(0x100),
            Permissions::ReadWrite,
        )
        .map_err(text)?;
    shared.carve(BASE + pages(0x100), pages(1)).map_err(text)?;
    match shared.restore(BASE + pages(0x100), pages(1)) {
        Err(e) if e.errno() == Some(libc::ENOTUNIQ) => {}
        other => return Err(format!("two memories: {other:?}")),
    }
    s.expect(pages(0x100), pages(1), false)?;
    let pieces = s.shared(Granularity::Pieces(pages(1)));
    match pieces.restore(BASE + pages(0x100), pages(1)) {
        Err(e) if e.is_unsupported() => Ok(()),
        other => Err(format!("pieces: {other:?}")),
    }
}

/// Through a tracker, after conversions at random.
fn all_again(s: &Setup) -> Result<(), String> {
    let all = pages(0x800);
    let mut tracker = Tracker::new();
    let memory = SharedMemory::new(Arc::clone(&s.iommufd), &s.ioas, &s.dev_ids).map_err(text)?;
    let counted = memory.clone();
    tracker.add_ioas(memory).map_err(text)?;
    let source = Source::file(s.file.try_clone().map_err(text)?, 0);
    tracker
        .add_region(BASE, all, source, Permissions::ReadWrite)
        .map_err(text)?;
    tracker.set_shared(BASE, all).map_err(text)?;
    let mut random = 7u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) % n
    };
    for round in 0..5 {
        for _ in 0..100 {
            // The first page stays: something has to be left of a mapping.
            let offset = pages(1 + below(all / pages(1) - 1));
            let length = pages(1 + below(64)).min(all - offset);
            match below(3) {
                0 => tracker.set_shared(BASE + offset, length).map_err(text)?,
                _ => tracker.set_private(BASE + offset, length).map_err(text)?,
            }
        }
        let before = counted.ioctl_count();
        tracker.set_shared(BASE, all).map_err(text)?;
        if counted.ioctl_count() - before != 1 {
            return Err(format!("round {round}: more than one ioctl"));
        }
        let mapped = tracker.mappings(s.ioas.id(), BASE, all).map_err(text)?;
        if mapped != [(BASE, all)] {
            return Err(format!("round {round}: {mapped:x?}"));
        }
        s.expect_one(0, all)?;
    }
    tracker.remove_region(BASE).map_err(text)?;
    s.expect(0, all, false)
}

/// `VfioDevice` takes it for the `VfioIommufd` inside: see [`Setup::new`].
#[cfg(feature = "vfio-ioctls")]
fn vfio_ops(s: &Setup) -> Result<(), String> {
    use vfio_ioctls::VfioOps;

    let vfio = VfioIommufd::new(Arc::clone(&s.iommufd), Some(Arc::clone(&s.ioas)), None);
    let shared = SharedMemory::new(Arc::clone(&s.iommufd), &s.ioas, &s.dev_ids).map_err(text)?;
    let ops = iommufd_split::SplitVfioOps::new(Arc::new(vfio.map_err(text)?), shared);
    if !ops.as_any().is::<VfioIommufd>() {
        return Err("a device does not find the VfioIommufd".into());
    }
    let region = vm_memory::MmapRegion::<()>::from_file(
        vm_memory::FileOffset::new(s.file.try_clone().map_err(text)?, 0),
        // Whole pages of the file, or munmap() refuses.
        s.size as usize,
    )
    .map_err(text)?;
    // SAFETY: Nothing refers to the memory of the file; `region` outlives the mapping, which is
    // removed below.
    unsafe { ops.vfio_dma_map(BASE, pages(0x100) as usize, region.as_ptr()) }.map_err(text)?;
    ops.vfio_dma_unmap(BASE + pages(16), pages(1) as usize)
        .map_err(text)?;
    s.expect(pages(16), pages(1), false)?;
    s.expect(0, pages(16), true)?;
    s.expect(pages(17), pages(0x100) - pages(17), true)?;
    ops.vfio_dma_unmap(BASE, pages(16) as usize).map_err(text)?;
    ops.vfio_dma_unmap(BASE + pages(17), (pages(0x100) - pages(17)) as usize)
        .map_err(text)
}

/// What a domain may do is decided when it is made, for the IOMMU of one device; another IOMMU may
/// not permit it.
fn from_before(s: &Setup) -> Result<(), String> {
    let ioas = IommufdIoas::new(Arc::clone(&s.iommufd)).map_err(text)?;
    let before = s.page_table(&ioas)?;
    let command = s.until.as_deref().unwrap_or_default();
    let status = Command::new("/bin/sh").args(["-c", command]).status();
    if !status.as_ref().is_ok_and(ExitStatus::success) {
        return Err(format!("{command}: {status:?}"));
    }
    if can_split(&s.iommufd, s.dev_ids[0]).map_err(text)? {
        return Err(format!("the device can be split after {command}"));
    }
    match s.devices[0].attach_hwpt(before) {
        Err(e) if e.to_string().contains("Invalid argument") => {}
        other => return Err(format!("attach to what can be split: {other:?}")),
    }
    let after = s.page_table(&ioas)?;
    s.devices[0].attach_hwpt(after).map_err(text)?;
    s.iommufd.destroy_iommu_object(before).map_err(text)?;

    let shared =
        SharedMemory::with_granularity(Arc::clone(&s.iommufd), ioas.id(), Granularity::Whole)
            .map_err(text)?;
    s.share(&shared, 0, s.size)?;
    match shared.carve(BASE + pages(1), pages(1)) {
        Err(e) if e.is_unsupported() => {}
        other => return Err(format!("carve: {other:?}")),
    }
    shared.carve(BASE, s.size).map_err(text)?;
    s.devices[0].attach_hwpt(s.ioas.id()).map_err(text)?;
    s.iommufd.destroy_iommu_object(after).map_err(text)
}

fn main() -> ExitCode {
    let mut splits = true;
    let mut until = None;
    let mut addresses = Vec::new();
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--cannot-split" => splits = false,
            arg if arg.starts_with("--until=") => until = arg.split_once('=').map(|a| a.1.into()),
            flag if flag.starts_with('-') => {}
            _ => addresses.push(arg),
        }
    }
    println!("TAP version 13");
    if addresses.is_empty() {
        println!("1..0 # SKIP no device: give PCI addresses of devices bound to vfio-pci");
        return ExitCode::SUCCESS;
    }
    println!("1..{}", CASES.len());
    let memory = large_pages();
    let mut failed = false;
    for (i, (kind, name, case)) in CASES.iter().enumerate() {
        if *kind == Splitting && !splits {
            println!("ok {} {name} # SKIP this IOMMU cannot split", i + 1);
            continue;
        }
        if *kind == Changing && until.is_none() {
            println!("ok {} {name} # SKIP without --until", i + 1);
            continue;
        }
        // The pages are made once: that takes longest.
        let done = memory
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|(file, size)| Ok((file.try_clone().map_err(text)?, *size)))
            .and_then(|memory| Setup::new(&addresses, splits, until.clone(), memory))
            .and_then(|setup| case(&setup));
        match done {
            Ok(()) => println!("ok {} {name}", i + 1),
            Err(e) => {
                failed = true;
                println!("# {e}");
                println!("not ok {} {name}", i + 1);
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
