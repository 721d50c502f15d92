// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Rust cannot do for the Rust IOMMU page tables: export symbols, print
 * with a rate limit, and let KUnit take the place of a function.
 */
#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/atomic.h>
#include <linux/export.h>
#include <linux/generic_pt/iommu.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/printk.h>
#include <linux/spinlock.h>

#include "../../../iommu-pages.h"
#include "iommu_pt_rust.h"

/*
 * Tables are in the linear map, so their addresses differ from the physical
 * ones by a constant. A walk converts one for each level, and rustc does not
 * inline phys_to_virt().
 */
unsigned long pt_iommu_rust_linear_map __ro_after_init;

static int __init pt_iommu_rust_linear_map_init(void)
{
	pt_iommu_rust_linear_map = (unsigned long)phys_to_virt(0);
	return 0;
}
pure_initcall(pt_iommu_rust_linear_map_init);

/* Where the tables meet memory: tests fail allocations and see each flush */
void *pt_iommu_rust_alloc(int nid, gfp_t gfp, size_t size, bool zeroed)
{
	KUNIT_STATIC_STUB_REDIRECT(pt_iommu_rust_alloc, nid, gfp, size, zeroed);
	if (!zeroed)
		return iommu_alloc_pages_node_sz_undefined(nid, gfp, size);
	return iommu_alloc_pages_node_sz(nid, gfp, size);
}
EXPORT_SYMBOL_IF_KUNIT(pt_iommu_rust_alloc);

int pt_iommu_rust_start_incoherent(void *table, struct device *dev)
{
	KUNIT_STATIC_STUB_REDIRECT(pt_iommu_rust_start_incoherent, table, dev);
	return iommu_pages_start_incoherent(table, dev);
}
EXPORT_SYMBOL_IF_KUNIT(pt_iommu_rust_start_incoherent);

void pt_iommu_rust_flush_incoherent(struct device *dev, void *table,
				    size_t offset, size_t len)
{
	KUNIT_STATIC_STUB_REDIRECT(pt_iommu_rust_flush_incoherent, dev, table,
				   offset, len);
	iommu_pages_flush_incoherent(dev, table, offset, len);
}
EXPORT_SYMBOL_IF_KUNIT(pt_iommu_rust_flush_incoherent);

/*
 * The HW must know the new top before readers without a lock do, so that they
 * do not map into it too early. The new table was written before, and has to
 * be seen by either once they see its address. No flush: see change_top().
 */
bool pt_iommu_rust_change_top(struct pt_iommu *iommu_table,
			      struct pt_common *common, uintptr_t old_top,
			      uintptr_t new_top, phys_addr_t top_paddr,
			      unsigned int top_level)
{
	spinlock_t *lock = iommu_table->driver_ops->get_top_lock(iommu_table);

	guard(spinlock_irqsave)(lock);
	if (common->top_of_table != old_top)
		return false;
	dma_wmb();
	iommu_table->driver_ops->change_top(iommu_table, top_paddr, top_level);
	/* Pairs with the address dependency of whoever reads the top */
	smp_store_release(&common->top_of_table, new_top);
	return true;
}

/* rustc does not inline atomic64_andnot(): one call for all items */
void pt_iommu_rust_clear_bits(u64 *items, size_t n, u64 bits)
{
	size_t i;

	for (i = 0; i != n; i++)
		atomic64_andnot(bits, (atomic64_t *)&items[i]);
}

#ifdef CONFIG_IOMMU_PT_RUST_VTDSS
void pt_iommu_vtdss_read_only_refused(void)
{
	pr_err_ratelimited("Read-only mapping is disallowed on the domain which serves as the parent in a nested configuration, due to HW errata (ERRATA_772415_SPR17)\n");
}
#endif

#ifdef CONFIG_IOMMU_PT_RUST_AMDV1
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_init, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_can_split, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_hw_info, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_iova_to_phys, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_read_and_clear_dirty, "GENERIC_PT_IOMMU");
#endif

#ifdef CONFIG_IOMMU_PT_RUST_AMDV1_MOCK
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_mock_init, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_mock_can_split, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_mock_iova_to_phys, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_amdv1_mock_read_and_clear_dirty, "GENERIC_PT_IOMMU");
#endif

#ifdef CONFIG_IOMMU_PT_RUST_RISCV64
EXPORT_SYMBOL_NS_GPL(pt_iommu_riscv_64_init, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_riscv_64_can_split, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_riscv_64_hw_info, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_riscv_64_iova_to_phys, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_riscv_64_read_and_clear_dirty, "GENERIC_PT_IOMMU");
#endif

#ifdef CONFIG_IOMMU_PT_RUST_VTDSS
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_init, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_can_split, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_hw_info, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_iova_to_phys, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_vtdss_read_and_clear_dirty, "GENERIC_PT_IOMMU");
#endif

#ifdef CONFIG_IOMMU_PT_RUST_X86_64
EXPORT_SYMBOL_NS_GPL(pt_iommu_x86_64_init, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_x86_64_can_split, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_x86_64_hw_info, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_x86_64_iova_to_phys, "GENERIC_PT_IOMMU");
EXPORT_SYMBOL_NS_GPL(pt_iommu_x86_64_read_and_clear_dirty, "GENERIC_PT_IOMMU");
#endif
