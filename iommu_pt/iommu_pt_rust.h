/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C functions that the kernel layer of the Rust IOMMU page tables calls.
 */
#ifndef __IOMMU_PT_RUST_H
#define __IOMMU_PT_RUST_H

void pt_iommu_vtdss_read_only_refused(void);

#endif
