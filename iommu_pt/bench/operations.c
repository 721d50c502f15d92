// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operations that both providers have, through the interface that drivers
 * and iommufd use.
 */
#include <linux/sizes.h>

#include "bench.h"

/*
 * Leaves of one size, mapped by @calls calls of @leaves each. IOVA and OA
 * differ in the bit of the size, so that no larger leaf can be used. Each has
 * addresses of its own: a table that was there stays.
 */
struct bench_leaves {
	const char *map;
	const char *unmap;
	const char *lookup;
	u64 iova;
	unsigned int lg2;
	unsigned long calls;
	unsigned long leaves;
};

static const struct bench_leaves bench_leaves[] = {
	{ "map 4K", "unmap 4K", "iova_to_phys 4K", 1ULL << 40, 12, 16384, 1 },
	{ "map 64K", "unmap 64K", NULL, 2ULL << 40, 16, 8192, 1 },
	{ "map 2M", "unmap 2M", "iova_to_phys 2M", 3ULL << 40, 21, 8192, 1 },
	{ "map 32M", "unmap 32M", NULL, 4ULL << 40, 25, 8192, 1 },
	{ "map 1G", "unmap 1G", "iova_to_phys 1G", 16ULL << 40, 30, 8192, 1 },
	{ "map 256 x 4K", "unmap 256 x 4K", NULL, 5ULL << 40, 12, 256, 256 },
	{ "map 512 x 2M", "unmap 512 x 2M", NULL, 6ULL << 40, 21, 64, 512 },
	{ "map 1 GiB of 4K", "unmap 1 GiB of 4K", NULL, 7ULL << 40, 12, 4,
	  262144 },
	{ "map 4K, 262144 calls", "unmap 4K, 262144 calls", NULL, 8ULL << 40,
	  12, 262144, 1 },
	{ "map 16 x 1G", "unmap 16 x 1G", NULL, 32ULL << 40, 30, 512, 16 },
};

static int bench_lookup(struct bench *bench, struct bench_table *table,
			const struct bench_leaves *leaves)
{
	phys_addr_t oa = 0;
	unsigned long i;

	bench_start(bench);
	/* In an order that caches cannot predict; calls is a power of two */
	for (i = 0; i != leaves->calls; i++) {
		u64 n = i * 7919 & (leaves->calls - 1);
		u64 iova = leaves->iova + (n << leaves->lg2);

		oa |= iommu_iova_to_phys(&table->domain, iova);
	}
	bench_stop(bench, leaves->lookup, leaves->calls);
	return oa ? 0 : -EFAULT;
}

static int bench_map(struct bench *bench, struct bench_table *table,
		     const struct bench_leaves *leaves)
{
	struct iommu_domain *domain = &table->domain;
	u64 len = (u64)leaves->leaves << leaves->lg2;
	gfp_t gfp = bench_gfp(bench);
	unsigned long i;
	int ret = 0;

	bench_start(bench);
	for (i = 0; i != leaves->calls; i++) {
		u64 iova = leaves->iova + i * len;

		ret |= iommu_map(domain, iova, iova ^ (1ULL << leaves->lg2),
				 len, IOMMU_READ | IOMMU_WRITE, gfp);
	}
	bench_stop(bench, leaves->map, leaves->calls);
	return ret ? -EIO : 0;
}

static int bench_unmap(struct bench *bench, struct bench_table *table,
		       const struct bench_leaves *leaves)
{
	struct iommu_domain *domain = &table->domain;
	u64 len = (u64)leaves->leaves << leaves->lg2;
	u64 bytes = 0;
	unsigned long i;

	bench_start(bench);
	for (i = 0; i != leaves->calls; i++)
		bytes += iommu_unmap(domain, leaves->iova + i * len, len);
	bench_stop(bench, leaves->unmap, leaves->calls);
	return bytes == leaves->calls * len ? 0 : -EIO;
}

/* One GiB of 4K, clean and then dirty all over */
static int bench_dirty(struct bench *bench, struct bench_table *table)
{
	struct pt_iommu *iommu = &table->iommu;
	struct iommu_domain *domain = &table->domain;
	const struct iommu_dirty_ops *ops = domain->dirty_ops;
	u64 iova = 9ULL << 40;
	struct iommu_iotlb_gather gather;
	struct iommu_dirty_bitmap dirty;
	u64 at;
	int ret;

	if (!ops)
		return 0;
	iommu_iotlb_gather_init(&gather);
	iommu_dirty_bitmap_init(&dirty, NULL, &gather);
	ret = iommu_map(domain, iova, iova + SZ_4K, SZ_1G,
			IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
	if (ret)
		return ret;
	bench_start(bench);
	ret = ops->read_and_clear_dirty(domain, iova, SZ_1G, 0, &dirty);
	bench_stop(bench, "read dirty, 1 GiB clean", 1);
	if (gather.end)
		ret = -EIO; /* not clean */
	for (at = iova; at != iova + SZ_1G; at += SZ_4K)
		ret = ret ?: iommu->ops->set_dirty(iommu, at);
	bench_start(bench);
	ret = ret ?: ops->read_and_clear_dirty(domain, iova, SZ_1G,
					       IOMMU_DIRTY_NO_CLEAR, &dirty);
	bench_stop(bench, "read dirty, 1 GiB dirty", 1);
	bench_start(bench);
	ret = ret ?: ops->read_and_clear_dirty(domain, iova, SZ_1G, 0, &dirty);
	bench_stop(bench, "clear dirty, 1 GiB dirty", 1);
	if (gather.start != iova || gather.end != iova + SZ_1G - 1)
		ret = ret ?: -EIO;
	if (iommu_unmap(domain, iova, SZ_1G) != SZ_1G)
		ret = ret ?: -EIO;
	return ret;
}

int bench_operations(struct bench *bench, struct bench_table *table)
{
	unsigned int i;
	int ret;

	for (i = 0; i != ARRAY_SIZE(bench_leaves); i++) {
		const struct bench_leaves *leaves = &bench_leaves[i];

		if (!(table->domain.pgsize_bitmap & BIT_ULL(leaves->lg2)))
			continue;
		ret = bench_map(bench, table, leaves);
		if (!ret && leaves->lookup)
			ret = bench_lookup(bench, table, leaves);
		ret = ret ?: bench_unmap(bench, table, leaves);
		if (ret)
			return ret;
		cond_resched();
	}
	return bench_dirty(bench, table);
}
