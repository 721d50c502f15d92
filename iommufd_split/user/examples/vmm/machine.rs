// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory, an IOAS and devices; what the ioctls cost.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iommufd_bindings::iommufd::iommu_hwpt_alloc;
use iommufd_ioctls::{IommuFd, IommufdIoas};
use iommufd_split::{Granularity, Permissions, SharedMemory};
use memfd::{HugetlbSize, MemfdOptions};
use vfio_ioctls::{VfioDevice, VfioIommufd};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use crate::areas::Areas;
use crate::debugfs::{Debugfs, Summary};
use crate::nvme::{Nvme, QUEUE_BYTES};
use crate::options::{Options, Strategy, PAGE};
use crate::Result;

/// IOVA of guest memory. Below it are the disks' queues, and what the IOMMU keeps for interrupts.
pub(crate) const BASE: u64 = 4 << 30;
const QUEUES: u64 = 16 << 20;

/// Memory of a file, for the CPU.
pub(crate) type Region = MmapRegion<()>;

/// A file of so many bytes, made of pages of this size.
pub(crate) fn file_of(bytes: u64, pages: u64) -> Result<(File, Region)> {
    let options = match pages {
        PAGE => MemfdOptions::new(),
        0x20_0000 => MemfdOptions::new().hugetlb(Some(HugetlbSize::Huge2MB)),
        _ => MemfdOptions::new().hugetlb(Some(HugetlbSize::Huge1GB)),
    };
    let none = |e: &dyn std::fmt::Display| {
        format!("there are no {bytes:#x} bytes in pages of {pages:#x} bytes ({e}): reserve hugetlb pages, or use smaller --pages")
    };
    let file = options.create("guest").map_err(|e| none(&e))?.into_file();
    // Allocate all of it now, so that the first measurement does not pay for it.
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)
        .map_err(|e| none(&e))?;
    let clone = file.try_clone().map_err(|e| none(&e))?;
    let region =
        Region::from_file(FileOffset::new(clone, 0), bytes as usize).map_err(|e| none(&e))?;
    // The kernel clears a page that fallocate() made when it is used for the first time. Linux 7.3
    // does not count a device as a user: the first processor to come has the page cleared, and with
    // it what the device wrote. That is not needed where "mm/gup: Clear fallocated folios in
    // memfd_pin_folios()" is applied, but a VMM cannot know that.
    for at in (0..bytes).step_by(PAGE as usize) {
        let slice = region.as_volatile_slice();
        slice.write_obj(0u8, at as usize).map_err(|e| none(&e))?;
    }
    Ok((file, region))
}

/// The memory of the guest: outlives every machine, as it takes long to make.
pub(crate) struct Memory {
    pub(crate) file: File,
    pub(crate) region: Region,
    /// Bytes that are there.
    pub(crate) backing: u64,
    /// Bytes of the guest.
    pub(crate) size: u64,
}

impl Memory {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let (file, region) = file_of(options.backing, options.pages)?;
        Ok(Self {
            file,
            region,
            backing: options.backing,
            size: options.memory,
        })
    }
}

/// How often, and how long altogether.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) ioctls: u64,
    pub(crate) time: Duration,
}

impl Spent {
    fn add(&mut self, ioctls: u64, since: Instant) {
        self.ioctls += ioctls;
        self.time += since.elapsed();
    }
}

pub(crate) struct Machine<'m> {
    pub(crate) memory: &'m Memory,
    pub(crate) shared: SharedMemory,
    pub(crate) ioas: Arc<IommufdIoas>,
    pub(crate) iommufd: Arc<IommuFd>,
    pub(crate) areas: Areas,
    pub(crate) sharing: Spent,
    pub(crate) carving: Spent,
    strategy: Strategy,
    /// What is shared again is joined.
    join: bool,
    /// Attached as long as they live. The disks' have the queues of [`Nvme`].
    devices: Vec<Arc<VfioDevice>>,
    /// Page tables that we made.
    hwpts: Vec<u32>,
    /// Mappings that are no memory of the guest: the disks' queues.
    queues: u64,
    /// What the kernel says about the IOAS.
    pub(crate) debugfs: Option<Debugfs>,
}

impl<'m> Machine<'m> {
    /// Everything but the guest's memory in the IOAS.
    pub(crate) fn new(options: &Options, memory: &'m Memory, strategy: Strategy) -> Result<Self> {
        let iommufd = Arc::new(IommuFd::new().map_err(|e| e.to_string())?);
        let ioas = Arc::new(IommufdIoas::new(Arc::clone(&iommufd)).map_err(|e| e.to_string())?);
        let vfio = VfioIommufd::new(Arc::clone(&iommufd), Some(Arc::clone(&ioas)), None)
            .map(Arc::new)
            .map_err(|e| e.to_string())?;
        let mut devices = Vec::new();
        let mut ids = Vec::new();
        for address in &options.addresses {
            let path = Path::new("/sys/bus/pci/devices").join(address);
            let device = VfioDevice::new(&path, vfio.clone(), false)
                .map_err(|e| format!("{address}: {e}: is it bound to vfio-pci?"))?;
            ids.push(device.iommufd_dev_id().ok_or("a device without an ID")?);
            devices.push(Arc::new(device));
        }
        let shared = match strategy {
            Strategy::Pages => SharedMemory::with_granularity(
                Arc::clone(&iommufd),
                ioas.id(),
                Granularity::Pieces(PAGE),
            )
            .map_err(|e| e.to_string())?,
            Strategy::Split => {
                let shared = SharedMemory::new(Arc::clone(&iommufd), ioas.id(), &ids)
                    .map_err(|e| e.to_string())?;
                if shared.granularity() != Granularity::Whole {
                    return Err("an IOMMU here cannot split: only --strategy pages works".into());
                }
                shared
            }
        };
        let join = options.join && strategy == Strategy::Split;
        if join && !shared.can_restore() {
            return Err("this kernel cannot join mappings: leave out --join".into());
        }
        let hwpts = attach(&iommufd, &ioas, &devices, &ids, options.hwpts)?;
        let debugfs = Debugfs::new(&*iommufd, ioas.id());
        if debugfs.is_none() {
            eprintln!(
                "vmm: mappings and page tables are not checked: no IOAS in debugfs, mount it and \
                 enable CONFIG_IOMMUFD_DEBUGFS"
            );
        }
        Ok(Self {
            memory,
            shared,
            ioas,
            iommufd,
            areas: Areas::default(),
            sharing: Spent::default(),
            carving: Spent::default(),
            strategy,
            join,
            devices,
            hwpts,
            queues: 0,
            debugfs,
        })
    }

    /// Takes the devices off and empties the IOAS. Not their reset, which closing them brings.
    pub(crate) fn end(&self) -> Result<()> {
        for device in &self.devices {
            device.detach_hwpt().map_err(|e| e.to_string())?;
        }
        for &id in &self.hwpts {
            self.iommufd
                .destroy_iommu_object(id)
                .map_err(|e| e.to_string())?;
        }
        self.ioas.unmap(0, u64::MAX).map_err(|e| e.to_string())
    }

    /// Those of the devices that are NVMe disks, ready to copy.
    pub(crate) fn disks(&mut self) -> Result<Vec<Nvme>> {
        let mut disks = Vec::new();
        for device in &self.devices {
            if !Nvme::is_one(device) {
                continue;
            }
            let (file, region) = file_of(QUEUE_BYTES, PAGE)?;
            let iova = QUEUES + disks.len() as u64 * QUEUE_BYTES;
            self.shared
                .share_file(file.as_fd(), 0, iova, QUEUE_BYTES, Permissions::ReadWrite)
                .map_err(|e| e.to_string())?;
            disks.push(Nvme::new(Arc::clone(device), region, iova)?);
            self.queues += match self.strategy {
                Strategy::Pages => QUEUE_BYTES / PAGE,
                Strategy::Split => 1,
            };
        }
        if disks.is_empty() {
            return Err(
                "none of the devices is an NVMe disk: nothing would copy; give one, or --idle"
                    .into(),
            );
        }
        Ok(disks)
    }

    pub(crate) fn share_all(&mut self) -> Result<()> {
        self.share(0, self.memory.size)?;
        if !self.join {
            return Ok(());
        }
        // Memory may go on where a map did not notice, and then a join makes larger leaves.
        for at in (0..self.memory.size).step_by(self.memory.backing as usize) {
            self.shared
                .restore(BASE + at, self.memory.backing)
                .map_err(|e| format!("joining all at {at:#x}: {e}"))?;
        }
        Ok(())
    }

    /// Calls once for each time that the file is mapped.
    pub(crate) fn share(&mut self, offset: u64, length: u64) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let next = (at / self.memory.backing + 1) * self.memory.backing;
            let length = end.min(next) - at;
            self.share_part(at, length)?;
            at += length;
        }
        Ok(())
    }

    /// Inside one length of the file.
    fn share_part(&mut self, offset: u64, length: u64) -> Result<()> {
        let unit = (
            offset / self.memory.backing * self.memory.backing,
            self.memory.backing,
        );
        let since = Instant::now();
        // There is a mapping of the file around it.
        if self.join && self.areas.mapped(unit.0, unit.1) != Some(false) {
            self.shared
                .restore(BASE + offset, length)
                .map_err(|e| format!("joining {length:#x} bytes at {offset:#x}: {e}"))?;
            self.sharing.add(1, since);
            self.areas.restore(offset, length, unit);
            return Ok(());
        }
        let file = self.memory.file.as_fd();
        self.shared
            .share_file(
                file,
                offset % self.memory.backing,
                BASE + offset,
                length,
                Permissions::ReadWrite,
            )
            .map_err(|e| format!("sharing {length:#x} bytes at {offset:#x}: {e}"))?;
        let step = match self.strategy {
            Strategy::Pages => PAGE,
            Strategy::Split => length,
        };
        self.sharing.add(length / step, since);
        for at in (offset..offset + length).step_by(step as usize) {
            self.areas.map(at, step);
        }
        Ok(())
    }

    /// What the kernel has for guest memory and the disks, `None` if it does not tell. It has to have
    /// the mappings that we know of.
    pub(crate) fn summary(&self) -> Result<Option<Summary>> {
        let Some(debugfs) = &self.debugfs else {
            return Ok(None);
        };
        let summary = debugfs.summary()?;
        let known = self.areas.count() + self.queues;
        if summary.mappings != known {
            return Err(format!(
                "the kernel has {} mappings, and {known} were made",
                summary.mappings
            ));
        }
        Ok(Some(summary))
    }

    /// The same by its address in this process. Not counted.
    pub(crate) fn share_by_address(&self, offset: u64, length: u64) -> Result<()> {
        let from = self
            .memory
            .region
            .as_ptr()
            .wrapping_add((offset % self.memory.backing) as usize);
        // SAFETY: The region is used through volatile accesses only, and outlives the machine,
        // whose IOAS goes with it.
        unsafe {
            self.shared
                .share_memory(from, BASE + offset, length, Permissions::ReadWrite)
        }
        .map_err(|e| format!("sharing {length:#x} bytes at {offset:#x}: {e}"))
    }

    pub(crate) fn carve(&mut self, offset: u64, length: u64) -> Result<Duration> {
        let since = Instant::now();
        self.shared
            .carve(BASE + offset, length)
            .map_err(|e| format!("carving {length:#x} bytes at {offset:#x}: {e}"))?;
        let took = since.elapsed();
        self.carving
            .add(1 + u64::from(self.strategy == Strategy::Split), since);
        self.areas.carve(offset, length);
        Ok(took)
    }
}

/// Spreads the devices over page tables of one IOAS: the one that the kernel makes, and explicit
/// ones.
fn attach(
    iommufd: &IommuFd,
    ioas: &IommufdIoas,
    devices: &[Arc<VfioDevice>],
    ids: &[u32],
    hwpts: usize,
) -> Result<Vec<u32>> {
    let mut made = Vec::new();
    for (i, device) in devices.iter().enumerate() {
        let pt_id = if i % hwpts == 0 {
            ioas.id()
        } else {
            let mut hwpt = iommu_hwpt_alloc {
                size: size_of::<iommu_hwpt_alloc>() as u32,
                dev_id: ids[i],
                pt_id: ioas.id(),
                ..Default::default()
            };
            iommufd
                .alloc_iommu_hwpt(&mut hwpt)
                .map_err(|e| e.to_string())?;
            made.push(hwpt.out_hwpt_id);
            hwpt.out_hwpt_id
        };
        device.attach_hwpt(pt_id).map_err(|e| e.to_string())?;
    }
    Ok(made)
}

/// Kernel memory, in bytes; a difference can be negative.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KernelMemory {
    /// Page tables of IOMMUs, and of processes' nested tables.
    pub(crate) page_tables: i64,
    /// Small objects: areas among them.
    pub(crate) slab: i64,
}

impl KernelMemory {
    pub(crate) fn now() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
        // The processors keep differences of their own; this adds them up.
        read("/proc/sys/vm/stat_refresh")?;
        let text = read("/proc/meminfo")?;
        let field = |name: &str| {
            text.lines()
                .find_map(|l| {
                    l.strip_prefix(name)?
                        .strip_prefix(':')?
                        .trim()
                        .strip_suffix(" kB")
                })
                .and_then(|n| n.trim().parse::<i64>().ok())
                .map(|kib| kib * 1024)
                .ok_or(format!("this kernel's /proc/meminfo has no {name}"))
        };
        Ok(Self {
            page_tables: field("SecPageTables")?,
            slab: field("Slab")?,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            page_tables: self.page_tables - before.page_tables,
            slab: self.slab - before.slab,
        }
    }
}
