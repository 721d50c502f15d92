/* SPDX-License-Identifier: GPL-2.0-only */
/* How many pages are in page tables of IOMMUs. */
#ifndef __IOMMU_PT_RUST_KUNIT_PAGES
#define __IOMMU_PT_RUST_KUNIT_PAGES

#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/percpu.h>
#include <linux/vmstat.h>

/* SecPageTables, with what the processors have not handed over yet */
static inline unsigned long kunit_table_pages(void)
{
	long pages = atomic_long_read(&vm_node_stat[NR_SECONDARY_PAGETABLE]);
#ifdef CONFIG_SMP
	int nid, cpu;

	for_each_online_node(nid) {
		for_each_online_cpu(cpu) {
			struct per_cpu_nodestat *stat =
				per_cpu_ptr(NODE_DATA(nid)->per_cpu_nodestats,
					    cpu);

			pages += stat->vm_node_stat_diff[NR_SECONDARY_PAGETABLE];
		}
	}
#endif
	return pages;
}

#endif
