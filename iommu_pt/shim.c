// SPDX-License-Identifier: GPL-2.0-only
/*
 * The C half of the kernel layer: what the Rust half calls because only C can
 * do it, or does it better.
 *
 * - Memory of tables: KUnit may take the place of these functions.
 * - The top of a table that grows: the driver's spinlock, and the store that
 *   publishes the new top to readers without a lock.
 * - Clearing dirty bits: an atomic operation that rustc does not inline.
 * - A message with a rate limit.
 * - EXPORT_SYMBOL for the functions by which drivers know a format.
 */
#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/args.h>
#include <linux/atomic.h>
#include <linux/export.h>
#include <linux/generic_pt/iommu.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kconfig.h>
#include <linux/memblock.h>
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

/*
 * Early enough to be before a driver makes a table, and before memblock_discard()
 * frees what memblock knows of: page_alloc_init_late() calls that, between early
 * and pure initcalls.
 */
static int __init pt_iommu_rust_linear_map_init(void)
{
	/* arm64 converts what is below the memory to something else */
	phys_addr_t start = memblock_start_of_DRAM();

	pt_iommu_rust_linear_map = (unsigned long)phys_to_virt(start) - start;
	return 0;
}
early_initcall(pt_iommu_rust_linear_map_init);

/* Where the tables meet memory: tests fail allocations and see each flush */
void *pt_iommu_rust_alloc(int nid, gfp_t gfp, size_t size, bool zeroed)
{
	KUNIT_STATIC_STUB_REDIRECT(pt_iommu_rust_alloc, nid, gfp, size, zeroed);
	if (!zeroed)
		return iommu_alloc_pages_node_sz_undefined(nid, gfp, size);
	return iommu_alloc_pages_node_sz(nid, gfp, size);
}
EXPORT_SYMBOL_IF_KUNIT(pt_iommu_rust_alloc);

/* The first table of a list, or NULL */
void *pt_iommu_rust_take(struct iommu_pages_list *list)
{
	struct ioptdesc *iopt =
		list_first_entry_or_null(&list->pages, struct ioptdesc,
					 iopt_freelist_elm);

	if (!iopt)
		return NULL;
	list_del(&iopt->iopt_freelist_elm);
	return folio_address(ioptdesc_folio(iopt));
}

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
 * The HW must know the new top before readers without a lock do, or they might
 * map into a part that the HW does not reach yet. Both must see the contents of
 * the new table once they see its address. No flush is needed: see
 * change_top().
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
	/* Pairs with the address dependency in the readers of the top */
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

void pt_iommu_vtdss_read_only_refused(void)
{
	pr_err_ratelimited("Read-only mapping is disallowed on the domain which serves as the parent in a nested configuration, due to HW errata (ERRATA_772415_SPR17)\n");
}

/* Export the functions of a format, which Rust implements, if it is built */
#define EXPORT_FORMAT(option, fmt) \
	CONCATENATE(EXPORT_FORMAT_, IS_BUILTIN(option))(fmt)
#define EXPORT_FORMAT_0(fmt)
#define EXPORT_FORMAT_1(fmt)                                                  \
	EXPORT_SYMBOL_NS_GPL(pt_iommu_##fmt##_init, "GENERIC_PT_IOMMU");      \
	EXPORT_SYMBOL_NS_GPL(pt_iommu_##fmt##_can_split, "GENERIC_PT_IOMMU"); \
	EXPORT_SYMBOL_NS_GPL(pt_iommu_##fmt##_iova_to_phys,                   \
			     "GENERIC_PT_IOMMU");                             \
	EXPORT_SYMBOL_NS_GPL(pt_iommu_##fmt##_read_and_clear_dirty,           \
			     "GENERIC_PT_IOMMU")

/* The same with hw_info, which the mock domain does not have */
#define EXPORT_HW_FORMAT(option, fmt) \
	CONCATENATE(EXPORT_HW_FORMAT_, IS_BUILTIN(option))(fmt)
#define EXPORT_HW_FORMAT_0(fmt)
#define EXPORT_HW_FORMAT_1(fmt) \
	EXPORT_FORMAT_1(fmt);   \
	EXPORT_SYMBOL_NS_GPL(pt_iommu_##fmt##_hw_info, "GENERIC_PT_IOMMU")

EXPORT_HW_FORMAT(CONFIG_IOMMU_PT_RUST_AMDV1, amdv1);
EXPORT_FORMAT(CONFIG_IOMMU_PT_RUST_AMDV1_MOCK, amdv1_mock);
EXPORT_HW_FORMAT(CONFIG_IOMMU_PT_RUST_ARMV8, armv8);
EXPORT_HW_FORMAT(CONFIG_IOMMU_PT_RUST_RISCV64, riscv_64);
EXPORT_HW_FORMAT(CONFIG_IOMMU_PT_RUST_VTDSS, vtdss);
EXPORT_HW_FORMAT(CONFIG_IOMMU_PT_RUST_X86_64, x86_64);
