// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An iommufd that counts what is asked of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use iommufd_bindings::iommufd::{
    iommu_hw_info, iommu_hwpt_get_dirty_bitmap, iommu_ioas_map, iommu_ioas_map_file,
    iommu_ioas_unmap,
};

use crate::dirty::Bits;
use crate::ioctls::Ioctls;
use crate::{iommu_ioas_join, iommu_ioas_split, Result};

pub(crate) struct Counted {
    iommufd: Arc<dyn Ioctls>,
    calls: AtomicU64,
}

impl Counted {
    pub(crate) fn new(iommufd: Arc<dyn Ioctls>) -> Self {
        Self {
            iommufd,
            calls: AtomicU64::new(0),
        }
    }

    /// Also of those that failed.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What is to be called. A number for people: no thread learns anything else from it.
    fn counted(&self) -> &dyn Ioctls {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &*self.iommufd
    }
}

impl Ioctls for Counted {
    fn map(&self, map: &iommu_ioas_map) -> Result<()> {
        self.counted().map(map)
    }

    fn map_file(&self, map: &iommu_ioas_map_file) -> Result<()> {
        self.counted().map_file(map)
    }

    fn unmap(&self, unmap: &mut iommu_ioas_unmap) -> Result<()> {
        self.counted().unmap(unmap)
    }

    fn split(&self, split: &mut iommu_ioas_split) -> Result<()> {
        self.counted().split(split)
    }

    fn join(&self, join: &mut iommu_ioas_join) -> Result<()> {
        self.counted().join(join)
    }

    fn hw_info(&self, info: &mut iommu_hw_info) -> Result<()> {
        self.counted().hw_info(info)
    }

    fn dirty_bitmap(&self, get: &mut iommu_hwpt_get_dirty_bitmap, bits: &mut Bits) -> Result<()> {
        self.counted().dirty_bitmap(get, bits)
    }
}
