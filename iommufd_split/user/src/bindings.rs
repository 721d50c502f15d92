// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `linux/iommufd.h` has for split and join, named and laid out as bindgen does it for
//! `iommufd-bindings`.

#![allow(non_camel_case_types, non_upper_case_globals)]

/// Number of the command; see `enum` `IOMMUFD_CMD_*`.
pub const IOMMUFD_CMD_IOAS_SPLIT: u32 = 0x96;

/// Number of the command; see `enum` `IOMMUFD_CMD_*`.
pub const IOMMUFD_CMD_IOAS_JOIN: u32 = 0x97;

/// Bit of `iommu_hw_info::out_capabilities`: large IOMMU pages can be split while the device uses
/// them.
pub const iommufd_hw_capabilities_IOMMU_HW_CAP_HITLESS_SPLIT: u32 = 1 << 4;

/// Bit of `iommu_ioas_split::flags`: unmap the range as well.
pub const iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP: u32 = 1 << 0;

/// `struct iommu_ioas_split`, the argument of `IOMMU_IOAS_SPLIT`.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct iommu_ioas_split {
    /// `size_of::<iommu_ioas_split>()`, 32 bytes.
    pub size: u32,
    /// 0, or [`iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP`].
    pub flags: u32,
    /// IOAS to change the mapping of.
    pub ioas_id: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// First byte of the range, aligned to the page size of the IOAS.
    pub iova: u64,
    /// Bytes of the range, aligned as well.
    pub length: u64,
}

const _: () = {
    assert!(size_of::<iommu_ioas_split>() == 32);
    assert!(align_of::<iommu_ioas_split>() == 8);
    assert!(std::mem::offset_of!(iommu_ioas_split, size) == 0);
    assert!(std::mem::offset_of!(iommu_ioas_split, flags) == 4);
    assert!(std::mem::offset_of!(iommu_ioas_split, ioas_id) == 8);
    assert!(std::mem::offset_of!(iommu_ioas_split, __reserved) == 12);
    assert!(std::mem::offset_of!(iommu_ioas_split, iova) == 16);
    assert!(std::mem::offset_of!(iommu_ioas_split, length) == 24);
};

/// Bit of `iommu_ioas_join::flags`: map what is not mapped in the range, from the memory of the
/// mappings around it.
pub const iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL: u32 = 1 << 0;

/// `struct iommu_ioas_join`, the argument of `IOMMU_IOAS_JOIN`.
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct iommu_ioas_join {
    /// `size_of::<iommu_ioas_join>()`, 32 bytes.
    pub size: u32,
    /// 0, or [`iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL`].
    pub flags: u32,
    /// IOAS to change the mapping of.
    pub ioas_id: u32,
    /// Must be 0.
    pub __reserved: u32,
    /// First byte of the range.
    pub iova: u64,
    /// Bytes of the range.
    pub length: u64,
}

const _: () = {
    assert!(size_of::<iommu_ioas_join>() == 32);
    assert!(align_of::<iommu_ioas_join>() == 8);
    assert!(std::mem::offset_of!(iommu_ioas_join, size) == 0);
    assert!(std::mem::offset_of!(iommu_ioas_join, flags) == 4);
    assert!(std::mem::offset_of!(iommu_ioas_join, ioas_id) == 8);
    assert!(std::mem::offset_of!(iommu_ioas_join, __reserved) == 12);
    assert!(std::mem::offset_of!(iommu_ioas_join, iova) == 16);
    assert!(std::mem::offset_of!(iommu_ioas_join, length) == 24);
};
