// SPDX-License-Identifier: GPL-2.0-only

//! The kernel layer of the Rust IOMMU page tables: a provider of `struct pt_iommu_ops`.
//!
//! C calls in through the symbols of each format (`pt_iommu_<fmt>_init` and friends) and through
//! the ops table that init sets; everything is turned into one call of the `iotable` crate and its
//! answer into an errno. No bit of any format is known here.
//!
//! | file | what |
//! |---|---|
//! | `ops.rs` | the operations, generic over the format |
//! | `init.rs` | init and deinit |
//! | `mem.rs` | table memory: `iotable`'s environment |
//! | `gather.rs` | from what was removed to `struct iommu_iotlb_gather` |
//! | `vtdss.rs` | one file per format: its C structs and symbols |
//! | `exports.c` | `EXPORT_SYMBOL`, which Rust cannot do |

mod gather;
mod init;
mod mem;
mod ops;
#[cfg(CONFIG_IOMMU_PT_RUST_VTDSS)]
mod vtdss;
