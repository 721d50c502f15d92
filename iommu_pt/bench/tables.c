// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tables to compare: each format as its driver configures it where the
 * hardware is coherent, once in C and once in Rust.
 */
#include <linux/slab.h>

#include "../../../../iommu-pages.h"
#include "bench.h"

void bench_iotlb_sync(struct iommu_domain *domain,
		      struct iommu_iotlb_gather *gather)
{
	if (gather->leaf_to_table)
		container_of(domain, struct bench_table, domain)->replaced++;
	iommu_put_pages_list(&gather->freelist);
}

static void bench_change_top(struct pt_iommu *iommu, phys_addr_t top_paddr,
			     unsigned int top_level)
{
}

static spinlock_t *bench_get_top_lock(struct pt_iommu *iommu)
{
	return &container_of(iommu, struct bench_table, iommu)->top_lock;
}

static const struct pt_iommu_driver_ops bench_driver_ops = {
	.change_top = bench_change_top,
	.get_top_lock = bench_get_top_lock,
};

static const struct pt_iommu_amdv1_cfg bench_amdv1_cfg = {
	.common.features = BIT(PT_FEAT_DYNAMIC_TOP) |
			   BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) |
			   BIT(PT_FEAT_AMDV1_FORCE_COHERENCE) |
			   BIT(PT_FEAT_FLUSH_RANGE),
	.common.hw_max_vasz_lg2 = 64,
	.common.hw_max_oasz_lg2 = 52,
	.starting_level = 2,
};

static const struct pt_iommu_armv8_cfg bench_armv8_cfg = {
	.common.features = BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS) |
			   BIT(PT_FEAT_DETAILED_GATHER),
	.common.hw_max_vasz_lg2 = 48,
	.common.hw_max_oasz_lg2 = 48,
	.tgsz_lg2 = 12,
};

static const struct pt_iommu_riscv_64_cfg bench_riscv_64_cfg = {
	.common.features = BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) |
			   BIT(PT_FEAT_RISCV_SVNAPOT_64K) |
			   BIT(PT_FEAT_DETAILED_GATHER),
	.common.hw_max_vasz_lg2 = 48,
	.common.hw_max_oasz_lg2 = 56,
};

static const struct pt_iommu_vtdss_cfg bench_vtdss_cfg = {
	.common.features = BIT(PT_FEAT_FLUSH_RANGE),
	.common.hw_max_vasz_lg2 = 48,
	.common.hw_max_oasz_lg2 = 52,
	.top_level = 3,
};

static const struct pt_iommu_x86_64_cfg bench_x86_64_cfg = {
	.common.features = BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE),
	.common.hw_max_vasz_lg2 = 48,
	.common.hw_max_oasz_lg2 = 52,
	.top_level = 3,
};

#define BENCH_INIT(fmt, symbol)                                            \
	static int bench_##symbol##_init(struct bench_table *table)        \
	{                                                                  \
		return pt_iommu_##symbol##_init(&table->fmt,               \
						&bench_##fmt##_cfg,        \
						GFP_KERNEL);               \
	}

/* What follows the first three is of formats with dirty bits */
#define BENCH_PROVIDER(fmt, symbol, provider, ...)                     \
	{                                                              \
		.format = #fmt, .name = provider,                      \
		.init = bench_##symbol##_init,                         \
		.domain_ops = {                                        \
			IOMMU_PT_DOMAIN_OPS(symbol),                   \
			.iotlb_sync = bench_iotlb_sync,                \
		},                                                     \
		__VA_ARGS__                                            \
	}

#define BENCH_PROVIDER_DIRTY(fmt, symbol, provider)                    \
	BENCH_PROVIDER(fmt, symbol, provider,                          \
		       .dirty_ops = { IOMMU_PT_DIRTY_OPS(symbol) })

BENCH_INIT(vtdss, vtdss)
BENCH_INIT(vtdss, vtdss_c)
BENCH_INIT(x86_64, x86_64)
BENCH_INIT(x86_64, x86_64_c)
BENCH_INIT(amdv1, amdv1)
BENCH_INIT(amdv1, amdv1_c)
BENCH_INIT(riscv_64, riscv_64)
BENCH_INIT(riscv_64, riscv_64_c)
BENCH_INIT(armv8, armv8)

/* C and Rust by turns: they are measured in this order */
const struct bench_provider bench_providers[] = {
	BENCH_PROVIDER_DIRTY(vtdss, vtdss_c, "c"),
	BENCH_PROVIDER_DIRTY(vtdss, vtdss, "rust"),
	BENCH_PROVIDER_DIRTY(x86_64, x86_64_c, "c"),
	BENCH_PROVIDER_DIRTY(x86_64, x86_64, "rust"),
	BENCH_PROVIDER_DIRTY(amdv1, amdv1_c, "c"),
	BENCH_PROVIDER_DIRTY(amdv1, amdv1, "rust"),
	BENCH_PROVIDER_DIRTY(riscv_64, riscv_64_c, "c"),
	BENCH_PROVIDER_DIRTY(riscv_64, riscv_64, "rust"),
	{
		.format = "armv8", .name = "c",
		.init = bench_io_init,
		.domain_ops = {
			.map_pages = bench_io_map,
			.unmap_pages = bench_io_unmap,
			.iova_to_phys = bench_io_iova_to_phys,
			.iotlb_sync = bench_iotlb_sync,
		},
	},
	BENCH_PROVIDER(armv8, armv8, "rust"),
};

const unsigned int bench_num_providers = ARRAY_SIZE(bench_providers);

struct bench_table *bench_table_alloc(const struct bench_provider *provider)
{
	struct bench_table *table = kzalloc_obj(*table);
	int ret;

	if (!table)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&table->top_lock);
	table->iommu.nid = NUMA_NO_NODE;
	table->iommu.driver_ops = &bench_driver_ops;
	ret = provider->init(table);
	if (ret) {
		kfree(table);
		return ERR_PTR(ret);
	}
	table->domain.ops = &provider->domain_ops;
	if (!table->io && table->iommu.ops->set_dirty)
		table->domain.dirty_ops = &provider->dirty_ops;
	return table;
}

void bench_table_free(struct bench_table *table)
{
	if (table->io)
		bench_io_free(table);
	else
		pt_iommu_deinit(&table->iommu);
	kfree(table);
}
