// SPDX-License-Identifier: GPL-2.0-only

//! The symbols by which C reaches a format.

/// Defines `pt_iommu_<fmt>_{init,can_split,iova_to_phys,read_and_clear_dirty}` for a format.
///
/// `$shape` maps the format's cfg struct, and the features that the table will have, to a
/// [`Shape`](crate::init::Shape) or an error. The prototypes in `linux/generic_pt/iommu.h` are
/// checked by `#[export]`.
///
/// Where C has one name for several formats, as for Arm, the symbols are written by hand: if there
/// is no other format, nothing uses this.
#[allow(unused_macros)]
macro_rules! format_symbols {
    ($fmt:ident, $format:ty, $table:ident, $cfg:ident, $shape:expr) => {
        kernel::macros::paste! {
            const _: () = assert!(core::mem::offset_of!(kernel::bindings::$table, iommu) == 0);

            /// Initialises a table.
            ///
            /// # Safety
            ///
            /// `table` and `cfg` are valid, and nobody else uses the table.
            #[kernel::prelude::export]
            pub(crate) unsafe extern "C" fn [<pt_iommu_ $fmt _init>](
                table: *mut kernel::bindings::$table,
                cfg: *const kernel::bindings::$cfg,
                gfp: kernel::bindings::gfp_t,
            ) -> core::ffi::c_int {
                // SAFETY: The caller gives a valid configuration, and does not change it meanwhile.
                let cfg = unsafe { &*cfg };
                // SAFETY: The caller gives a valid table that nobody else uses, and `$table` is the
                // table struct of this format; it starts with its `struct pt_iommu`.
                unsafe {
                    crate::init::init::<$format, _>(table, &cfg.common, gfp, |features| {
                        $shape(cfg, features)
                    })
                }
            }

            /// Whether tables of this format have `split_range`, for drivers that have no table
            /// yet.
            ///
            /// # Safety
            ///
            /// No requirements. It is unsafe only because bindgen declares all C functions so.
            #[kernel::prelude::export]
            pub(crate) unsafe extern "C" fn [<pt_iommu_ $fmt _can_split>]() -> bool {
                crate::ops::Ops::<$format>::TABLE.split_range.is_some()
            }

            /// See [`iova_to_phys`](crate::ops::iova_to_phys).
            ///
            /// # Safety
            ///
            /// `domain` is part of an initialised table of this format; the caller holds a lock as
            /// that function asks for.
            #[kernel::prelude::export]
            pub(crate) unsafe extern "C" fn [<pt_iommu_ $fmt _iova_to_phys>](
                domain: *mut kernel::bindings::iommu_domain,
                iova: kernel::bindings::dma_addr_t,
            ) -> kernel::bindings::phys_addr_t {
                // SAFETY: The caller gives a table of this format, and holds the lock.
                unsafe { crate::ops::iova_to_phys::<$format>(domain, iova) }
            }

            /// See [`read_and_clear_dirty`](crate::ops::read_and_clear_dirty).
            ///
            /// # Safety
            ///
            /// `domain` is part of an initialised table of this format, `dirty` is valid, and the
            /// caller holds a read range lock over the range.
            #[kernel::prelude::export]
            pub(crate) unsafe extern "C" fn [<pt_iommu_ $fmt _read_and_clear_dirty>](
                domain: *mut kernel::bindings::iommu_domain,
                iova: usize,
                size: usize,
                flags: usize,
                dirty: *mut kernel::bindings::iommu_dirty_bitmap,
            ) -> core::ffi::c_int {
                // SAFETY: The caller gives a table of this format and a valid `dirty`, and holds
                // the lock.
                unsafe {
                    crate::ops::read_and_clear_dirty::<$format>(domain, iova, size, flags, dirty)
                }
            }
        }
    };
}

/// Defines `pt_iommu_<fmt>_hw_info`; `$fill` gets the C struct, the address and level of the top.
///
/// The mock domain has no hardware: if its format is the only one, nothing uses this.
#[allow(unused_macros)]
macro_rules! format_hw_info {
    ($fmt:ident, $format:ty, $table:ident, $info:ident, $fill:expr) => {
        kernel::macros::paste! {
            /// What the driver tells the hardware about the table.
            ///
            /// # Safety
            ///
            /// `table` is initialised, `info` is valid for writes.
            #[kernel::prelude::export]
            pub(crate) unsafe extern "C" fn [<pt_iommu_ $fmt _hw_info>](
                table: *mut kernel::bindings::$table,
                info: *mut kernel::bindings::$info,
            ) {
                // SAFETY: The caller gives an initialised table, which starts with its
                // `struct pt_iommu`.
                let (oa, level) = unsafe { crate::ops::top::<$format>(table.cast()) };
                // SAFETY: The caller gives a valid `info`, which nobody else uses meanwhile.
                $fill(unsafe { &mut *info }, oa, level)
            }
        }
    };
}

#[allow(unused_imports)]
pub(crate) use format_hw_info;
#[allow(unused_imports)]
pub(crate) use format_symbols;
