// SPDX-License-Identifier: GPL-2.0-only
/*
 * Split, beside what has to be done without it; a hole in one call, beside
 * split and unmap; and the way back. floor.c has the least that they can cost.
 */
#include <linux/sizes.h>

#include "../../../../iommu-pages.h"
#include "bench.h"

enum {
	SPLIT_CALLS = 64,
};

static const u64 split_iova = 48ULL << 40;

struct bench_hole {
	const char *split;
	const char *join; /* NULL: as one of the others */
	const char *remap; /* NULL: as above */
	const char *split_unmap; /* NULL: as above */
	const char *carve;
	u64 leaf;
	u64 offset;
	u64 len;
	/* From one split to the next, everything between is mapped */
	u64 stride;
};

static const struct bench_hole bench_holes[] = {
	{ "split 2M out of 1G", "join 2M into 1G", "remap 2M out of 1G",
	  "split and unmap 2M out of 1G", "carve 2M out of 1G", SZ_1G, SZ_512M,
	  SZ_2M, SZ_1G },
	{ "split 2M out of 1G of 1T", NULL, NULL, NULL, NULL, SZ_1G, SZ_512M,
	  SZ_2M, 16ULL * SZ_1G },
	{ "split 4K out of 2M", "join 4K into 2M", "remap 4K out of 2M",
	  "split and unmap 4K out of 2M", "carve 4K out of 2M", SZ_2M, SZ_1M,
	  SZ_4K, SZ_2M },
	{ "split 4K out of 1G", "join 4K into 1G", "remap 4K out of 1G",
	  "split and unmap 4K out of 1G", "carve 4K out of 1G", SZ_1G, SZ_512M,
	  SZ_4K, SZ_1G },
	{ "split 512M out of 1G", NULL, NULL, "split and unmap 512M out of 1G",
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

/* What was split becomes what it was */
static int hole_join(struct bench *bench, struct bench_table *table,
		     const struct bench_hole *hole)
{
	unsigned long replaced = table->replaced;
	unsigned long i;
	int ret = 0;

	bench_start(bench);
	for (i = 0; i != SPLIT_CALLS; i++)
		ret |= iommu_join(&table->domain, split_iova + i * hole->stride,
				  hole->leaf);
	bench_stop(bench, hole->join, SPLIT_CALLS);
	/* It is no error if there is nothing to join: see what was flushed */
	return ret || table->replaced - replaced < SPLIT_CALLS ? -EIO : 0;
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

int bench_split(struct bench *bench, struct bench_table *table)
{
	const struct pt_iommu_ops *ops = table->io ? NULL : table->iommu.ops;
	unsigned int i;
	int ret = 0;

	for (i = 0; i != ARRAY_SIZE(bench_holes); i++) {
		const struct bench_hole *hole = &bench_holes[i];

		if (ops && ops->split_range) {
			ret = ret ?: hole_map(table, hole);
			ret = ret ?: hole_split(bench, table, hole);
			if (hole->join)
				ret = ret ?: hole_join(bench, table, hole);
			ret = ret ?: hole_unmap(table, hole);
		}
		if (ops && ops->carve_range && hole->carve) {
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
