// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! For VMMs that map and unmap through `VfioOps` of vfio-ioctls.

use std::any::Any;

use vfio_ioctls::{VfioError, VfioOps};
use vmm_sys_util::errno::Error as SysError;

use crate::{Permissions, SharedMemory, SplitError};

/// [`VfioOps`] that can unmap any part of what was mapped.
///
/// In place of the `VfioIommufd` of `vfio-ioctls` that it is made of, for devices and for DMA:
/// `VfioDevice::new` finds that inside, and `vfio_dma_map` and `vfio_dma_unmap` go through a
/// [`SharedMemory`] of the same IOAS. Memory is mapped whole or in pieces as that does it.
///
/// ```no_run
/// # use std::{path::Path, sync::Arc};
/// use iommufd_ioctls::{IommuFd, IommufdIoas};
/// use iommufd_split::{SharedMemory, SplitVfioOps};
/// use vfio_ioctls::{VfioDevice, VfioIommufd, VfioOps};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let iommufd = Arc::new(IommuFd::new()?);
/// let ioas = Arc::new(IommufdIoas::new(Arc::clone(&iommufd))?);
/// let vfio = Arc::new(VfioIommufd::new(Arc::clone(&iommufd), Some(Arc::clone(&ioas)), None)?);
/// // Bound and attached, before any memory is mapped: what its IOMMU can decides.
/// let path = Path::new("/sys/bus/pci/devices/0000:01:00.0");
/// let device = VfioDevice::new(path, vfio.clone(), true)?;
/// let dev_id = device.iommufd_dev_id().ok_or("no ID")?;
/// let ops: Arc<dyn VfioOps> =
///     Arc::new(SplitVfioOps::new(vfio, SharedMemory::new(iommufd, ioas, &[dev_id])?));
/// # let guest_memory = std::ptr::null_mut();
///
/// // SAFETY: (the caller's)
/// unsafe { ops.vfio_dma_map(0, 1 << 30, guest_memory)? };
/// ops.vfio_dma_unmap(0x1230_0000, 64 << 10)?;
/// # Ok(())
/// # }
/// ```
///
/// Safety of `vfio_dma_map`: as in `vfio-ioctls`, with two differences. The range counts as mapped
/// until all of it has been unmapped, by whatever calls, and not only by one with the same
/// arguments. If memory is mapped in pieces and `vfio_dma_map` fails, some of them may be mapped
/// all the same (see [`SplitError::Rollback`]); the range counts as mapped then, too.
pub struct SplitVfioOps<V> {
    vfio: V,
    shared: SharedMemory,
}

impl<V> SplitVfioOps<V> {
    /// `vfio` is an `Arc<VfioIommufd>`, and `shared` is of the IOAS that it has.
    pub fn new(vfio: V, shared: SharedMemory) -> Self {
        Self { vfio, shared }
    }

    /// The memory of the IOAS.
    pub fn shared(&self) -> &SharedMemory {
        &self.shared
    }
}

impl<V, T> VfioOps for SplitVfioOps<V>
where
    V: std::ops::Deref<Target = T> + Send + Sync + 'static,
    T: VfioOps,
{
    unsafe fn vfio_dma_map(
        &self,
        iova: u64,
        size: usize,
        user_addr: *mut u8,
    ) -> vfio_ioctls::Result<()> {
        let length = size as u64;
        self.shared
            .share_address(user_addr as u64, iova, length, Permissions::ReadWrite)
            .map_err(|e| vfio_error(e, VfioError::IommuDmaMap))
    }

    fn vfio_dma_unmap(&self, iova: u64, size: usize) -> vfio_ioctls::Result<()> {
        self.shared
            .carve(iova, size as u64)
            .map_err(|e| vfio_error(e, VfioError::IommuDmaUnmap))
    }

    fn as_any(&self) -> &dyn Any {
        (*self.vfio).as_any()
    }
}

/// The one of vfio-ioctls that says most of it, or else `call`; the errno is kept.
fn vfio_error(error: SplitError, call: fn(SysError) -> VfioError) -> VfioError {
    match error {
        SplitError::Iommufd(e) => VfioError::IommufdIoctlError(e),
        SplitError::UnmappedLength { .. } => VfioError::InvalidDmaUnmapSize,
        e => call(SysError::new(e.errno().unwrap_or(libc::EINVAL))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioctls::page_size;
    use crate::model::{Kernel, Knows};
    use crate::Granularity;
    use std::sync::Arc;

    struct Inside;

    impl VfioOps for Inside {
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    #[test]
    fn any_part_can_be_unmapped_and_devices_find_what_is_inside() {
        let page = page_size() as usize;
        let kernel = Kernel::new(Knows::ALL);
        kernel.add_ioas(1, true);
        let shared = Arc::clone(&kernel);
        let shared = SharedMemory::with_ioctls(shared, 1.into(), Granularity::Whole).unwrap();
        let ops: Arc<dyn VfioOps> = Arc::new(SplitVfioOps::new(Arc::new(Inside), shared));
        assert!(ops.as_any().is::<Inside>());
        let memory = (100 * page) as *mut u8;
        // SAFETY: The kernel is a model, which maps nothing.
        unsafe { ops.vfio_dma_map(0, 10 * page, memory) }.unwrap();
        ops.vfio_dma_unmap(4 * page as u64, page).unwrap();
        let pages: Vec<_> = kernel.pages(1).into_keys().collect();
        let left = [0, 1, 2, 3, 5, 6, 7, 8, 9].map(|p| p * page as u64);
        assert_eq!(pages, left);
        let twice = ops.vfio_dma_unmap(4 * page as u64, page).unwrap_err();
        assert!(
            matches!(&twice, VfioError::IommuDmaUnmap(e) if e.errno() == libc::ENOENT),
            "{twice}"
        );
        // No whole page.
        ops.vfio_dma_unmap(1, page).unwrap_err();
        // SAFETY: The model refuses this, and maps nothing in any case.
        let there = unsafe { ops.vfio_dma_map(0, page, memory) }.unwrap_err();
        assert!(matches!(&there, VfioError::IommufdIoctlError(_)), "{there}");
        // SAFETY: The model refuses this, and maps nothing in any case.
        let odd = unsafe { ops.vfio_dma_map(1, page, memory) }.unwrap_err();
        assert!(
            matches!(&odd, VfioError::IommuDmaMap(e) if e.errno() == libc::EINVAL),
            "{odd}"
        );
    }
}
