// SPDX-License-Identifier: GPL-2.0-only
/*
 * The least that runs of entries can cost: a plain loop over as many items of
 * as many tables, one after the other, and the page allocator. What this takes
 * no page table can avoid; mostly it waits for memory.
 */
#include <linux/sizes.h>
#include <linux/slab.h>

#include "../../../../iommu-pages.h"
#include "bench.h"

enum {
	ITEMS = SZ_4K / sizeof(u64),
	/* 256 x 4K, 256 times: the tables stay */
	RUN_ITEMS = 256,
	RUN_TABLES = 128,
	/* 1 GiB of 4K, 4 times: the tables come and go */
	GIB_TABLES = 512,
	GIB_CALLS = 4,
};

static noinline bool fill_items(u64 *items, unsigned int n, u64 leaf)
{
	unsigned int i;

	for (i = 0; i != n; i++) {
		if (READ_ONCE(items[i]))
			return false;
		WRITE_ONCE(items[i], leaf + i * SZ_4K);
	}
	return true;
}

static noinline bool clear_items(u64 *items, unsigned int n)
{
	unsigned int i;

	for (i = 0; i != n; i++) {
		if (!READ_ONCE(items[i]))
			return false;
		WRITE_ONCE(items[i], 0);
	}
	return true;
}

static int tables_alloc(u64 **tables, unsigned int n, gfp_t gfp)
{
	unsigned int i;

	for (i = 0; i != n; i++) {
		tables[i] = iommu_alloc_pages_node_sz(NUMA_NO_NODE, gfp, SZ_4K);
		if (!tables[i])
			return -ENOMEM;
	}
	return 0;
}

static void tables_free(u64 **tables, unsigned int n)
{
	struct iommu_pages_list list = IOMMU_PAGES_LIST_INIT(list);
	unsigned int i;

	for (i = 0; i != n; i++) {
		if (tables[i])
			iommu_pages_list_add(&list, tables[i]);
		tables[i] = NULL;
	}
	iommu_put_pages_list(&list);
}

static int memory_run(struct bench *bench, u64 **tables)
{
	unsigned int n = RUN_TABLES * ITEMS / RUN_ITEMS, i;
	bool ok = true;

	if (tables_alloc(tables, RUN_TABLES, GFP_KERNEL))
		return -ENOMEM;
	bench_start(bench);
	for (i = 0; i != n; i++)
		ok &= fill_items(tables[i / 2] + i % 2 * RUN_ITEMS, RUN_ITEMS,
				 1);
	bench_stop(bench, "memory of map 256 x 4K", n);
	bench_start(bench);
	for (i = 0; i != n; i++)
		ok &= clear_items(tables[i / 2] + i % 2 * RUN_ITEMS,
				  RUN_ITEMS);
	bench_stop(bench, "memory of unmap 256 x 4K", n);
	tables_free(tables, RUN_TABLES);
	return ok ? 0 : -EIO;
}

static int memory_gib(struct bench *bench, u64 **tables)
{
	gfp_t gfp = bench_gfp(bench);
	bool ok = true;
	int ret = 0;
	unsigned int i, j;

	bench_start(bench);
	for (i = 0; i != GIB_CALLS * GIB_TABLES && !ret; i++) {
		ret = tables_alloc(&tables[i], 1, gfp);
		ok = ok && !ret && fill_items(tables[i], ITEMS, 1);
	}
	bench_stop(bench, "memory of map 1 GiB of 4K", GIB_CALLS);
	if (ret)
		return ret;
	bench_start(bench);
	for (i = 0; i != GIB_CALLS; i++) {
		u64 **gib = tables + i * GIB_TABLES;

		for (j = 0; j != GIB_TABLES; j++)
			ok &= clear_items(gib[j], ITEMS);
		tables_free(gib, GIB_TABLES);
	}
	bench_stop(bench, "memory of unmap 1 GiB of 4K", GIB_CALLS);
	return ok ? 0 : -EIO;
}

int bench_memory(struct bench *bench)
{
	u64 **tables = kcalloc(GIB_CALLS * GIB_TABLES, sizeof(*tables),
			       GFP_KERNEL);
	int ret;

	if (!tables)
		return -ENOMEM;
	ret = memory_run(bench, tables);
	ret = ret ?: memory_gib(bench, tables);
	tables_free(tables, GIB_CALLS * GIB_TABLES);
	kfree(tables);
	return ret;
}
