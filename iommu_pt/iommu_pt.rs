// SPDX-License-Identifier: GPL-2.0-only

//! The kernel layer of the Rust IOMMU page tables: a provider of `struct pt_iommu_ops`.
//!
//! C calls in through the symbols of each format (`pt_iommu_<fmt>_init` and friends) and through
//! the ops table that init sets; each is turned into one call of the `iotable` crate, and the
//! answer into an errno. No bit of any format is known here.
//!
//! | file | what |
//! |---|---|
//! | `ops.rs` | the operations, generic over the format |
//! | `init.rs` | init, generic over the format |
//! | `view.rs` | what both need: a C table as `iotable` sees it |
//! | `mem.rs` | table memory: `iotable`'s environment |
//! | `gather.rs` | from what was removed to `struct iommu_iotlb_gather` |
//! | `symbols.rs` | the symbols that C knows a format by |
//! | `amdv1.rs armv8.rs riscv_64.rs vtdss.rs x86_64.rs` | one file per format: its C structs |
//! | `shim.c` | the C half: what only C can do, `EXPORT_SYMBOL` among it |

#[cfg(any(CONFIG_IOMMU_PT_RUST_AMDV1, CONFIG_IOMMU_PT_RUST_AMDV1_MOCK))]
mod amdv1;
#[cfg(CONFIG_IOMMU_PT_RUST_ARMV8)]
mod armv8;
mod gather;
mod init;
mod mem;
mod ops;
#[cfg(CONFIG_IOMMU_PT_RUST_RISCV64)]
mod riscv_64;
mod symbols;
mod view;
#[cfg(CONFIG_IOMMU_PT_RUST_VTDSS)]
mod vtdss;
#[cfg(CONFIG_IOMMU_PT_RUST_X86_64)]
mod x86_64;
