// SPDX-License-Identifier: GPL-2.0-only
/*
 * The least that replacing a leaf by a table can cost, and a table by a leaf:
 * the items that have to be written or looked at, one store that devices see,
 * and the page allocator.
 */
#include <linux/sizes.h>
#include <linux/slab.h>

#include "../../../../iommu-pages.h"
#include "bench.h"

enum {
	FLOOR_CALLS = 64,
	ITEMS = SZ_4K / sizeof(u64),
};

static const u64 floor_leaf = 0x4000000083;

/* A table, filled with leaves, and made visible */
static noinline u64 *floor_split(u64 *item, u64 leaf, u64 step, gfp_t gfp)
{
	u64 *items = iommu_alloc_pages_node_sz(NUMA_NO_NODE, gfp, SZ_4K);
	unsigned int i;

	if (!items)
		return NULL;
	for (i = 0; i != ITEMS; i++)
		items[i] = leaf + i * step;
	cmpxchg_release(item, leaf, virt_to_phys(items) | 3);
	return items;
}

/* Are all items leaves that follow each other? Then one leaf for the table */
static noinline bool floor_join(u64 *item, u64 *items, u64 step)
{
	u64 table = virt_to_phys(items) | 3;
	u64 leaf = READ_ONCE(items[0]);
	unsigned int i;

	for (i = 1; i != ITEMS; i++)
		if (READ_ONCE(items[i]) != leaf + i * step)
			return false;
	if (cmpxchg_release(item, table, leaf) != table)
		return false;
	iommu_free_pages(items);
	return true;
}

int bench_floors(struct bench *bench)
{
	u64 **tables = kzalloc_objs(*tables, FLOOR_CALLS);
	u64 *top = kzalloc_objs(*top, FLOOR_CALLS);
	gfp_t gfp = bench_gfp(bench);
	unsigned long i;
	int ret = 0;

	if (!tables || !top) {
		ret = -ENOMEM;
		goto out;
	}
	for (i = 0; i != FLOOR_CALLS; i++)
		top[i] = floor_leaf;
	bench_start(bench);
	for (i = 0; i != FLOOR_CALLS; i++)
		tables[i] = floor_split(&top[i], floor_leaf, SZ_2M, gfp);
	bench_stop(bench, "floor of a split", FLOOR_CALLS);
	for (i = 0; i != FLOOR_CALLS; i++)
		if (!tables[i])
			ret = -ENOMEM;
	if (!ret) {
		bench_start(bench);
		for (i = 0; i != FLOOR_CALLS; i++)
			if (floor_join(&top[i], tables[i], SZ_2M))
				tables[i] = NULL;
		bench_stop(bench, "floor of a join", FLOOR_CALLS);
	}
	for (i = 0; i != FLOOR_CALLS; i++) {
		if (!tables[i])
			continue;
		iommu_free_pages(tables[i]);
		ret = ret ?: -EIO;
	}
out:
	kfree(top);
	kfree(tables);
	return ret;
}
