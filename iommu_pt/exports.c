// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Rust cannot do for the Rust IOMMU page tables: export symbols and print
 * with a rate limit.
 */
#include <linux/export.h>
#include <linux/generic_pt/iommu.h>
#include <linux/printk.h>

#include "iommu_pt_rust.h"

#ifdef CONFIG_IOMMU_PT_RUST_VTDSS
void pt_iommu_vtdss_read_only_refused(void)
{
	pr_err_ratelimited("Read-only mapping is disallowed on the domain which serves as the parent in a nested configuration, due to HW errata (ERRATA_772415_SPR17)\n");
}

EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_init, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_hw_info, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_iova_to_phys, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_read_and_clear_dirty, "GENERIC_PT_IOMMU");
#endif
