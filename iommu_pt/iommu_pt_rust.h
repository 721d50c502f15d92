/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C functions that the kernel layer of the Rust IOMMU page tables calls.
 */
#ifndef __IOMMU_PT_RUST_H
#define __IOMMU_PT_RUST_H

#include <linux/generic_pt/iommu.h>

/* phys_to_virt(0), which is all that the conversion adds where tables can be */
extern unsigned long pt_iommu_rust_linear_map;

bool pt_iommu_rust_change_top(struct pt_iommu *iommu_table,
			      struct pt_common *common, uintptr_t old_top,
			      uintptr_t new_top, phys_addr_t top_paddr,
			      unsigned int top_level);
void *pt_iommu_rust_alloc(int nid, gfp_t gfp, size_t size, bool zeroed);
void *pt_iommu_rust_take(struct iommu_pages_list *list);
int pt_iommu_rust_start_incoherent(void *table, struct device *dev);
void pt_iommu_rust_flush_incoherent(struct device *dev, void *table,
				    size_t offset, size_t len);
void pt_iommu_rust_clear_bits(u64 *items, size_t n, u64 bits);
void pt_iommu_vtdss_read_only_refused(void);

#endif
