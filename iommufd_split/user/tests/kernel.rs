// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The crate against the kernel: `kernel [OPTION] PCI-ADDRESS...` with devices that are bound to
//! vfio-pci. Prints TAP. Without devices there is nothing to test. `--cannot-split` says that their
//! IOMMU is one that cannot, `--until=COMMAND` that it can until COMMAND has run.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;

use iommufd_bindings::iommufd::iommu_hwpt_alloc;
use iommufd_ioctls::{IommuFd, IommufdIoas};
use iommufd_split::{
    can_carve, can_restore, can_split, carve, iommu_ioas_join, iommu_ioas_split, join, read_dirty,
    restore, split, try_split, Clear, Granularity, IommuFdSplit, Permissions, SharedMemory, Source,
    SplitError, Tracker,
};
use memfd::{HugetlbSize, MemfdOptions};
use vfio_ioctls::{VfioDevice, VfioIommufd};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
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
    (All, "4K out of a large page", |s| {
        carve_one(s, 123 * 4 * KIB, 4 * KIB)
    }),
    (All, "64K out of a large page", |s| {
        carve_one(s, 70 * 64 * KIB, 64 * KIB)
    }),
    (All, "2M out of a large page", |s| {
        carve_one(s, 6 * MIB, 2 * MIB)
    }),
    (All, "the first page", |s| carve_one(s, 0, 4 * KIB)),
    (All, "the last page", |s| {
        carve_one(s, s.size - 4 * KIB, 4 * KIB)
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
            (offset, 4 * KIB),
            (offset, length - 4 * KIB),
            (offset + 4 * KIB, length - 4 * KIB),
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

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// The largest pages that the system has free.
fn large_pages() -> Result<(File, u64), String> {
    for (page, size) in [
        (HugetlbSize::Huge1GB, GIB),
        (HugetlbSize::Huge2MB, 32 * MIB),
    ] {
        let options = MemfdOptions::new().hugetlb(Some(page));
        let Ok(file) = options.create("guest").map(memfd::Memfd::into_file) else {
            continue;
        };
        // The pages, or an error.
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).is_ok() {
            return Ok((file, size));
        }
    }
    Err("no hugetlb pages: boot with hugepagesz=1G hugepages=1".into())
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
        Granularity::Pieces(4 * KIB)
    };
    if shared.granularity() != want {
        return Err(format!("{:?}", shared.granularity()));
    }
    if !shared.accepts(s.dev_ids[0]).map_err(text)? {
        return Err("its own device is not accepted".into());
    }
    let length = 64 * KIB;
    s.share(&shared, 0, length)?;
    shared.carve(BASE + 4 * KIB, 8 * KIB).map_err(text)?;
    s.expect(4 * KIB, 8 * KIB, false)?;
    s.expect(0, 4 * KIB, true)?;
    s.expect(12 * KIB, length - 12 * KIB, true)
}

fn no_device(s: &Setup) -> Result<(), String> {
    let shared = SharedMemory::new(Arc::clone(&s.iommufd), s.ioas.id(), &[]).map_err(text)?;
    match shared.granularity() {
        Granularity::Pieces(bytes) if bytes == 4 * KIB => Ok(()),
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
    shared.carve(BASE + 2 * MIB, 2 * MIB).map_err(text)?;
    s.share(&shared, 2 * MIB, 2 * MIB)?;
    shared.carve(BASE + MIB, 4 * MIB).map_err(text)?;
    s.expect(MIB, 4 * MIB, false)?;
    s.expect(0, MIB, true)?;
    s.expect(5 * MIB, s.size - 5 * MIB, true)
}

fn many(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    for i in 0..100 {
        let (offset, length) = (i * 68 * KIB, (1 + i % 16) * 4 * KIB);
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
    carve_one(s, 3 * MIB, 8 * KIB)?;
    s.devices[0].attach_hwpt(hwpt_id).map_err(text)?;
    s.expect(0, s.size, true)?;
    s.devices[0].attach_hwpt(s.ioas.id()).map_err(text)?;
    s.iommufd.destroy_iommu_object(hwpt_id).map_err(text)
}

fn again(s: &Setup) -> Result<(), String> {
    let _shared = s.whole()?;
    for _ in 0..3 {
        split(&s.iommufd, s.ioas.id(), BASE + 4 * MIB, 4 * KIB).map_err(text)?;
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
    shared.carve(BASE + 8 * MIB, 4 * KIB).map_err(text)?;
    s.expect(8 * MIB, 4 * KIB, false)?;
    shared.carve(BASE, 8 * MIB).map_err(text)?;
    let rest = 8 * MIB + 4 * KIB;
    shared.carve(BASE + rest, s.size - rest).map_err(text)
}

fn pieces(s: &Setup) -> Result<(), String> {
    let shared = s.shared(Granularity::Pieces(4 * KIB));
    s.share(&shared, 0, MIB)?;
    shared.carve(BASE + 64 * KIB, 4 * KIB).map_err(text)?;
    s.expect(64 * KIB, 4 * KIB, false)?;
    s.expect(0, 64 * KIB, true)?;
    s.expect(68 * KIB, MIB - 68 * KIB, true)
}

fn pieces_rollback(s: &Setup) -> Result<(), String> {
    let shared = s.shared(Granularity::Pieces(4 * KIB));
    s.share(&shared, 40 * KIB, 4 * KIB)?;
    match s.share(&shared, 0, 64 * KIB) {
        Err(e) if e.contains("File exists") => {}
        other => return Err(format!("{other:?}")),
    }
    s.expect(0, 40 * KIB, false)?;
    s.expect(40 * KIB, 4 * KIB, true)?;
    s.expect(44 * KIB, 20 * KIB, false)
}

/// The second IOAS has no devices; it has other mappings, so that it can refuse what the first one
/// accepts.
fn several_ioases(s: &Setup) -> Result<(), String> {
    let first = s.whole()?;
    let ioas = IommufdIoas::new(Arc::clone(&s.iommufd)).map_err(text)?;
    let second =
        SharedMemory::with_granularity(Arc::clone(&s.iommufd), ioas.id(), Granularity::Whole)
            .map_err(text)?;
    s.share(&second, 0, 8 * MIB)?;
    let prepare = |iova, length| {
        first
            .prepare(iova, length)
            .and_then(|()| second.prepare(iova, length))
    };
    match prepare(BASE + 7 * MIB, 2 * MIB) {
        Err(e) if e.errno() == Some(libc::ENOENT) => {}
        other => return Err(format!("not shared in the second: {other:?}")),
    }
    s.expect(0, s.size, true)?;
    for _ in 0..2 {
        prepare(BASE + MIB, 64 * KIB).map_err(text)?;
    }
    s.expect(0, s.size, true)?;
    for shared in [&first, &second] {
        shared.carve(BASE + MIB, 64 * KIB).map_err(text)?;
        match shared.prepare(BASE + MIB, 64 * KIB) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {}
            other => return Err(format!("carved, yet: {other:?}")),
        }
    }
    s.expect(MIB, 64 * KIB, false)
}

fn bad_ranges(s: &Setup) -> Result<(), String> {
    let shared = s.whole()?;
    for (iova, length) in [
        (BASE, 0),
        (BASE + 1, 4 * KIB),
        (BASE, 4 * KIB + 8),
        (u64::MAX - 4 * KIB + 1, 8 * KIB),
    ] {
        match shared.carve(iova, length) {
            Err(SplitError::Range { .. }) => {}
            other => return Err(format!("{length:#x} at {iova:#x}: {other:?}")),
        }
    }
    match shared.share_file(
        s.file.as_fd(),
        u64::MAX - 4095,
        BASE,
        8 * KIB,
        Permissions::ReadWrite,
    ) {
        Err(SplitError::Range { .. }) => {}
        other => return Err(format!("offset: {other:?}")),
    }
    s.expect(0, s.size, true)
}

fn errnos(s: &Setup) -> Result<(), String> {
    let _shared = s.whole()?;
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
                iova: BASE + 512,
                ..good
            },
        ),
        (libc::EINVAL, iommu_ioas_split { length: 0, ..good }),
        (
            libc::EOVERFLOW,
            iommu_ioas_split {
                iova: !4095,
                length: 8192,
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
                iova: BASE + 4096,
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
        match read_dirty(&s.iommufd, hwpt_id, BASE, MIB, Clear::Yes, |_, _| ()) {
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
    match carve(s.size - 4 * KIB, 8 * KIB) {
        Err(e) if e.errno() == Some(libc::ENOENT) => {}
        other => return Err(format!("beyond the end: {other:?}")),
    }
    s.expect(0, s.size, true)?;
    if s.splits {
        carve(MIB, 4 * KIB).map_err(text)?;
        s.expect(MIB, 4 * KIB, false)?;
        s.expect(0, MIB, true)?;
        match carve(0, 2 * MIB) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {}
            other => return Err(format!("across the hole: {other:?}")),
        }
        s.expect(0, MIB, true)?;
        s.share(&shared, MIB, 4 * KIB)?;
    }
    carve(0, s.size).map_err(text)?;
    s.expect(0, s.size, false)
}

fn trial(s: &Setup) -> Result<(), String> {
    for offset in [0, 6 * MIB] {
        let tried = try_split(&s.iommufd, s.ioas.id(), BASE + offset).map_err(text)?;
        if tried != s.splits {
            return Err(format!("the trial says {tried}"));
        }
        s.expect(offset, 2 * MIB, false)?;
    }
    let shared = SharedMemory::by_trial(Arc::clone(&s.iommufd), &s.ioas, BASE).map_err(text)?;
    match (shared.granularity(), s.splits) {
        (Granularity::Whole, true) | (Granularity::Pieces(4096), false) => {}
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
    const LENGTH: u64 = 4 * MIB;
    let new = |ioas| SharedMemory::new(Arc::clone(&s.iommufd), ioas, &s.dev_ids).map_err(text);
    let mut tracker = Tracker::new();
    tracker.add_ioas(new(&s.ioas)?).map_err(text)?;
    let file = s.file.try_clone().map_err(text)?;
    let source = Source::file(file, 0);
    tracker
        .add_region(BASE, LENGTH, source, Permissions::ReadWrite)
        .map_err(text)?;
    tracker.set_shared(BASE, LENGTH).map_err(text)?;
    let late = Arc::new(IommufdIoas::new(Arc::clone(&s.iommufd)).map_err(text)?);
    let mut random = 1u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) % n
    };
    for i in 0..200 {
        let offset = below(LENGTH / (4 * KIB)) * 4 * KIB;
        let length = (1 + below(64)) * 4 * KIB;
        let (iova, length) = (BASE + offset, length.min(LENGTH - offset));
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
        for (iova, length) in tracker.mappings(s.ioas.id(), BASE, LENGTH).map_err(text)? {
            let offset = iova - BASE;
            if offset > at {
                s.expect(at, offset - at, false)?;
            }
            s.expect(offset, length, true)?;
            at = offset + length;
        }
        if at < LENGTH {
            s.expect(at, LENGTH - at, false)?;
        }
    }
    let shared: u64 = tracker.shared().map(|(_, length)| length).sum();
    let mapped: u64 = tracker
        .mappings(late.id(), BASE, LENGTH)
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
    for (iova, length) in tracker.mappings(s.ioas.id(), BASE, LENGTH).map_err(text)? {
        s.ioas
            .unmap(iova, length)
            .map_err(|e| format!("{length:#x} bytes at {iova:#x} are no mapping: {e}"))?;
    }
    s.expect(0, LENGTH, false)?;
    // What is gone already is no error.
    tracker.remove_region(BASE).map_err(text)?;
    // Nothing is left there, either.
    match late.unmap(BASE, LENGTH) {
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
        (0, 4 * KIB),
        (s.size - 4 * KIB, 4 * KIB),
        (123 * 4 * KIB, 4 * KIB),
        (70 * 64 * KIB, 64 * KIB),
        (6 * MIB, 2 * MIB),
        (7 * MIB + 4 * KIB, 3 * MIB),
        (4 * KIB, s.size - 8 * KIB),
    ] {
        shared.carve(BASE + offset, length).map_err(text)?;
        s.expect(offset, length, false)?;
        shared.restore(BASE + offset, length).map_err(text)?;
        s.expect_one(0, s.size)?;
    }
    // Many holes, and a range that has them all and what is between them.
    for i in 0..50 {
        shared.carve(BASE + i * 68 * KIB, 8 * KIB).map_err(text)?;
    }
    restore(&s.iommufd, s.ioas.id(), BASE, 4 * MIB).map_err(text)?;
    s.expect_one(0, s.size)?;
    // Without a hole.
    split(&s.iommufd, s.ioas.id(), BASE + MIB, 4 * KIB).map_err(text)?;
    join(&s.iommufd, s.ioas.id(), BASE + MIB, 4 * KIB).map_err(text)?;
    s.expect_one(0, s.size)?;
    // Still good for a hole.
    carve_and_check(s, &shared, 5 * MIB, 4 * KIB)
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
    shared.carve(BASE + MIB, MIB).map_err(text)?;
    let good = iommu_ioas_join {
        size: 32,
        flags: 1,
        ioas_id: s.ioas.id(),
        iova: BASE + MIB,
        length: MIB,
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
                iova: !4095,
                length: 8192,
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
        s.expect(MIB, MIB, false)?;
    }
    // Other memory in a part of the hole: which of both the rest is of, nobody knows.
    shared
        .share_file(
            s.file.as_fd(),
            16 * MIB,
            BASE + MIB,
            MIB,
            Permissions::ReadWrite,
        )
        .map_err(text)?;
    shared.carve(BASE + MIB, 4 * KIB).map_err(text)?;
    match shared.restore(BASE + MIB, 4 * KIB) {
        Err(e) if e.errno() == Some(libc::ENOTUNIQ) => {}
        other => return Err(format!("two memories: {other:?}")),
    }
    s.expect(MIB, 4 * KIB, false)?;
    let pieces = s.shared(Granularity::Pieces(4 * KIB));
    match pieces.restore(BASE + MIB, 4 * KIB) {
        Err(e) if e.is_unsupported() => Ok(()),
        other => Err(format!("pieces: {other:?}")),
    }
}

/// Through a tracker, after conversions at random.
fn all_again(s: &Setup) -> Result<(), String> {
    const LENGTH: u64 = 8 * MIB;
    let mut tracker = Tracker::new();
    let memory = SharedMemory::new(Arc::clone(&s.iommufd), &s.ioas, &s.dev_ids).map_err(text)?;
    let counted = memory.clone();
    tracker.add_ioas(memory).map_err(text)?;
    let source = Source::file(s.file.try_clone().map_err(text)?, 0);
    tracker
        .add_region(BASE, LENGTH, source, Permissions::ReadWrite)
        .map_err(text)?;
    tracker.set_shared(BASE, LENGTH).map_err(text)?;
    let mut random = 7u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) % n
    };
    for round in 0..5 {
        for _ in 0..100 {
            // The first page stays: something has to be left of a mapping.
            let offset = (1 + below(LENGTH / (4 * KIB) - 1)) * 4 * KIB;
            let length = ((1 + below(64)) * 4 * KIB).min(LENGTH - offset);
            match below(3) {
                0 => tracker.set_shared(BASE + offset, length).map_err(text)?,
                _ => tracker.set_private(BASE + offset, length).map_err(text)?,
            }
        }
        let before = counted.ioctl_count();
        tracker.set_shared(BASE, LENGTH).map_err(text)?;
        if counted.ioctl_count() - before != 1 {
            return Err(format!("round {round}: more than one ioctl"));
        }
        let mapped = tracker.mappings(s.ioas.id(), BASE, LENGTH).map_err(text)?;
        if mapped != [(BASE, LENGTH)] {
            return Err(format!("round {round}: {mapped:x?}"));
        }
        s.expect_one(0, LENGTH)?;
    }
    tracker.remove_region(BASE).map_err(text)?;
    s.expect(0, LENGTH, false)
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
    unsafe { ops.vfio_dma_map(BASE, MIB as usize, region.as_ptr()) }.map_err(text)?;
    ops.vfio_dma_unmap(BASE + 64 * KIB, 4096).map_err(text)?;
    s.expect(64 * KIB, 4 * KIB, false)?;
    s.expect(0, 64 * KIB, true)?;
    s.expect(68 * KIB, MIB - 68 * KIB, true)?;
    ops.vfio_dma_unmap(BASE, 64 << 10).map_err(text)?;
    ops.vfio_dma_unmap(BASE + 68 * KIB, (MIB - 68 * KIB) as usize)
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
    match shared.carve(BASE + 4 * KIB, 4 * KIB) {
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
