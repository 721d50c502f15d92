// SPDX-License-Identifier: GPL-2.0-only
/*
 * Split, beside what has to be done without it and beside the least that it
 * can cost; and a hole in one call, beside split and unmap.
 */
#include <linux/sizes.h>
#include <linux/slab.h>

#include "../../../../iommu-pages.h"
#include "bench.h"

enum {
	SPLIT_CALLS = 64,
};

static const u64 split_iova = 48ULL << 40;

struct bench_hole {
	const char *split;
	const char *remap; /* NULL: as one of the others */
	const char *split_unmap; /* NULL: as above */
	const char *carve;
	u64 leaf;
	u64 offset;
	u64 len;
	/* From one split to the next, everything between is mapped */
	u64 stride;
};

static const struct bench_hole bench_holes[] = {
	{ "split 2M out of 1G", "remap 2M out of 1G",
	  "split and unmap 2M out of 1G", "carve 2M out of 1G", SZ_1G, SZ_512M,
	  SZ_2M, SZ_1G },
	{ "split 2M out of 1G of 1T", NULL, NULL, NULL, SZ_1G, SZ_512M, SZ_2M,
	  16ULL * SZ_1G },
	{ "split 4K out of 2M", "remap 4K out of 2M",
	  "split and unmap 4K out of 2M", "carve 4K out of 2M", SZ_2M, SZ_1M,
	  SZ_4K, SZ_2M },
	{ "split 4K out of 1G", "remap 4K out of 1G",
	  "split and unmap 4K out of 1G", "carve 4K out of 1G", SZ_1G, SZ_512M,
	  SZ_4K, SZ_1G },
	{ "split 512M out of 1G", NULL, "split and unmap 512M out of 1G",
	  "carve 512M out of 1G", SZ_1G, SZ_256M, SZ_512M, SZ_1G },
};

static const int prot = IOMMU_READ | IOMMU_WRITE;

/* In leaves of the hole's size: the OA is aligned for no larger one */
static int hole_map(struct bench_table *table, const struct bench_hole *hole)
{
	return iommu_map(&table->domain, split_iova, split_iova ^ hole->leaf,
			 SPLIT_CALLS * hole->stride, prot, GFP_KERNEL);
}

static int hole_unmap(struct bench_table *table, const struct bench_hole *hole)
{
	size_t len = SPLIT_CALLS * hole->stride;

	return iommu_unmap(&table->domain, split_iova, len) == len ? 0 : -EIO;
}

static int hole_split(struct bench *bench, struct bench_table *table,
		      const struct bench_hole *hole)
{
	gfp_t gfp = bench_gfp(bench);
	unsigned long i;
	int ret = 0;

	bench_start(bench);
	for (i = 0; i != SPLIT_CALLS; i++)
		ret |= iommu_split(&table->domain,
				   split_iova + i * hole->stride + hole->offset,
				   hole->len, gfp);
	bench_stop(bench, hole->split, SPLIT_CALLS);
	return ret ? -EIO : 0;
}

static int hole_split_unmap(struct bench *bench, struct bench_table *table,
			    const struct bench_hole *hole)
{
	struct iommu_domain *domain = &table->domain;
	gfp_t gfp = bench_gfp(bench);
	unsigned long i;
	int ret = 0;

	bench_start(bench);
	for (i = 0; i != SPLIT_CALLS; i++) {
		u64 iova = split_iova + i * hole->stride + hole->offset;

		ret |= iommu_split(domain, iova, hole->len, gfp);
		if (iommu_unmap(domain, iova, hole->len) != hole->len)
			ret = -EIO;
	}
	bench_stop(bench, hole->split_unmap, SPLIT_CALLS);
	return ret ? -EIO : 0;
}

static int hole_carve(struct bench *bench, struct bench_table *table,
		      const struct bench_hole *hole)
{
	struct iommu_domain *domain = &table->domain;
	gfp_t gfp = bench_gfp(bench);
	unsigned long i;
	int ret = 0;

	bench_start(bench);
	for (i = 0; i != SPLIT_CALLS; i++) {
		u64 iova = split_iova + i * hole->stride + hole->offset;
		struct iommu_pages_list tables = IOMMU_PAGES_LIST_INIT(tables);

		ret |= iommu_carve_prepare(domain, iova, hole->len, gfp,
					   &tables);
		if (!ret && iommu_carve(domain, iova, hole->len, &tables) !=
				    hole->len)
			ret = -EIO;
		iommu_carve_free(domain, &tables);
	}
	bench_stop(bench, hole->carve, SPLIT_CALLS);
	return ret ? -EIO : 0;
}

/* So that everything can be unmapped at once */
static int hole_fill(struct bench_table *table, const struct bench_hole *hole)
{
	unsigned long i;
	int ret = 0;

	for (i = 0; i != SPLIT_CALLS; i++) {
		u64 iova = split_iova + i * hole->stride + hole->offset;

		ret = ret ?: iommu_map(&table->domain, iova, iova ^ hole->leaf,
				       hole->len, prot, GFP_KERNEL);
	}
	return ret;
}

/* Takes the hole's leaf away and maps the rest again; devices notice */
static int hole_remap(struct bench *bench, struct bench_table *table,
		      const struct bench_hole *hole)
{
	u64 behind = hole->offset + hole->len;
	struct iommu_domain *domain = &table->domain;
	gfp_t gfp = bench_gfp(bench);
	unsigned long i;
	int ret = 0;

	bench_start(bench);
	for (i = 0; i != SPLIT_CALLS; i++) {
		u64 iova = split_iova + i * hole->stride;
		u64 oa = iova ^ hole->leaf;

		if (iommu_unmap(domain, iova, hole->leaf) != hole->leaf)
			ret = -EIO;
		ret |= iommu_map(domain, iova, oa, hole->offset, prot, gfp);
		ret |= iommu_map(domain, iova + hole->offset,
				 oa + hole->offset, hole->len, prot, gfp);
		ret |= iommu_map(domain, iova + behind, oa + behind,
				 hole->leaf - behind, prot, gfp);
	}
	bench_stop(bench, hole->remap, SPLIT_CALLS);
	return ret ? -EIO : 0;
}

/* A table, filled with leaves, and made visible: nothing else */
static noinline u64 *floor_split(u64 *item, u64 leaf, u64 step, gfp_t gfp)
{
	u64 *items = iommu_alloc_pages_node_sz(NUMA_NO_NODE, gfp, SZ_4K);
	unsigned int i;

	if (!items)
		return NULL;
	for (i = 0; i != SZ_4K / sizeof(*items); i++)
		items[i] = leaf + i * step;
	cmpxchg_release(item, leaf, virt_to_phys(items) | 3);
	return items;
}

static int bench_floor(struct bench *bench)
{
	u64 **tables = kzalloc_objs(*tables, SPLIT_CALLS);
	gfp_t gfp = bench_gfp(bench);
	u64 item = 0x4000000083;
	unsigned long i;
	int ret = 0;

	if (!tables)
		return -ENOMEM;
	bench_start(bench);
	for (i = 0; i != SPLIT_CALLS; i++) {
		item = 0x4000000083;
		tables[i] = floor_split(&item, item, SZ_2M, gfp);
	}
	bench_stop(bench, "floor of a split", SPLIT_CALLS);
	for (i = 0; i != SPLIT_CALLS; i++) {
		if (tables[i])
			iommu_free_pages(tables[i]);
		else
			ret = -ENOMEM;
	}
	kfree(tables);
	return ret;
}

int bench_split(struct bench *bench, struct bench_table *table)
{
	unsigned int i;
	int ret;

	ret = bench_floor(bench);
	for (i = 0; i != ARRAY_SIZE(bench_holes); i++) {
		const struct bench_hole *hole = &bench_holes[i];

		if (table->iommu.ops->split_range) {
			ret = ret ?: hole_map(table, hole);
			ret = ret ?: hole_split(bench, table, hole);
			ret = ret ?: hole_unmap(table, hole);
		}
		if (table->iommu.ops->carve_range && hole->carve) {
			ret = ret ?: hole_map(table, hole);
			ret = ret ?: hole_split_unmap(bench, table, hole);
			ret = ret ?: hole_fill(table, hole);
			ret = ret ?: hole_unmap(table, hole);
			ret = ret ?: hole_map(table, hole);
			ret = ret ?: hole_carve(bench, table, hole);
			ret = ret ?: hole_fill(table, hole);
			ret = ret ?: hole_unmap(table, hole);
		}
		if (hole->remap) {
			ret = ret ?: hole_map(table, hole);
			ret = ret ?: hole_remap(bench, table, hole);
			ret = ret ?: hole_unmap(table, hole);
		}
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}
