// SPDX-License-Identifier: GPL-2.0-only
/*
 * iommu_split() and iommu_carve() on a table that only records what it is asked
 * for: what is refused before the table is touched, and when the IOTLB is
 * flushed. No emulated IOMMU shows that the flush of an old, large translation
 * is missing.
 */
#include <kunit/test.h>
#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>
#include <linux/sizes.h>

struct fake_domain {
	union {
		struct iommu_domain domain;
		struct pt_iommu iommu;
	};
	/* The leaf that split_range() replaces around its first edge, if any */
	size_t leaf_size;
	int result;

	unsigned int splits;
	unsigned int prepared;
	dma_addr_t iova;
	dma_addr_t len;
	gfp_t gfp;

	unsigned int syncs;
	unsigned int splits_at_sync;
	struct iommu_iotlb_gather synced;
};

PT_IOMMU_CHECK_DOMAIN(struct fake_domain, iommu, domain);

static int fake_split_range(struct pt_iommu *iommu, dma_addr_t iova,
			    dma_addr_t len, gfp_t gfp,
			    struct iommu_iotlb_gather *iotlb_gather)
{
	struct fake_domain *fake =
		container_of(iommu, struct fake_domain, iommu);

	fake->splits++;
	fake->iova = iova;
	fake->len = len;
	fake->gfp = gfp;
	if (fake->leaf_size)
		iommu_iotlb_gather_add_range(iotlb_gather,
					     ALIGN_DOWN(iova, fake->leaf_size),
					     fake->leaf_size);
	return fake->result;
}

static int fake_carve_prepare(struct pt_iommu *iommu, dma_addr_t iova,
			      dma_addr_t len, gfp_t gfp,
			      struct iommu_pages_list *tables)
{
	struct fake_domain *fake =
		container_of(iommu, struct fake_domain, iommu);

	fake->prepared++;
	fake->iova = iova;
	fake->len = len;
	fake->gfp = gfp;
	return fake->result;
}

static int fake_carve_range(struct pt_iommu *iommu, dma_addr_t iova,
			    dma_addr_t len, struct iommu_pages_list *tables,
			    struct iommu_iotlb_gather *iotlb_gather)
{
	return fake_split_range(iommu, iova, len, 0, iotlb_gather);
}

static void fake_iotlb_sync(struct iommu_domain *domain,
			    struct iommu_iotlb_gather *iotlb_gather)
{
	struct fake_domain *fake =
		container_of(domain, struct fake_domain, domain);

	fake->syncs++;
	fake->splits_at_sync = fake->splits;
	fake->synced = *iotlb_gather;
}

static const struct iommu_domain_ops fake_domain_ops = {
	.iotlb_sync = fake_iotlb_sync,
};

static const struct pt_iommu_ops fake_pt_ops = {
	.split_range = fake_split_range,
	.carve_prepare = fake_carve_prepare,
	.carve_range = fake_carve_range,
};

static const struct pt_iommu_ops fake_pt_ops_no_split = {};

static int fake_init(struct kunit *test)
{
	struct fake_domain *fake;

	fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	if (!fake)
		return -ENOMEM;
	fake->domain.type = IOMMU_DOMAIN_UNMANAGED;
	fake->domain.is_iommupt = true;
	fake->domain.ops = &fake_domain_ops;
	fake->domain.pgsize_bitmap = SZ_4K | SZ_2M | SZ_1G;
	fake->iommu.ops = &fake_pt_ops;
	fake->leaf_size = SZ_1G;
	test->priv = fake;
	return 0;
}

static void test_arguments_reach_the_table(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	KUNIT_EXPECT_EQ(test, 0,
			iommu_split(&fake->domain, SZ_1G + SZ_4K, SZ_64K,
				    GFP_KERNEL_ACCOUNT));
	KUNIT_EXPECT_EQ(test, fake->splits, 1);
	KUNIT_EXPECT_EQ(test, fake->iova, SZ_1G + SZ_4K);
	KUNIT_EXPECT_EQ(test, fake->len, SZ_64K);
	KUNIT_EXPECT_TRUE(test, fake->gfp == GFP_KERNEL_ACCOUNT);
}

/* The flush has the size of the old leaf and comes before the return */
static void test_success_flushes(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	KUNIT_EXPECT_EQ(test, 0,
			iommu_split(&fake->domain, SZ_1G + SZ_4K, SZ_4K,
				    GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fake->syncs, 1);
	KUNIT_EXPECT_EQ(test, fake->splits_at_sync, 1);
	KUNIT_EXPECT_EQ(test, fake->synced.start, SZ_1G);
	KUNIT_EXPECT_EQ(test, fake->synced.end, 2UL * SZ_1G - 1);
	KUNIT_EXPECT_FALSE(test, fake->synced.queued);
	KUNIT_EXPECT_TRUE(test, fake->synced.leaf_to_table);
}

/* A leaf may have been replaced before the failure */
static void test_failure_flushes(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	fake->result = -ENOMEM;
	KUNIT_EXPECT_EQ(test, -ENOMEM,
			iommu_split(&fake->domain, SZ_1G + SZ_4K, SZ_4K,
				    GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fake->syncs, 1);
	KUNIT_EXPECT_EQ(test, fake->synced.start, SZ_1G);
	KUNIT_EXPECT_EQ(test, fake->synced.end, 2UL * SZ_1G - 1);
}

/* Only the carve itself changes something and flushes, once */
static void test_carve(struct kunit *test)
{
	struct fake_domain *fake = test->priv;
	struct iommu_pages_list tables = IOMMU_PAGES_LIST_INIT(tables);
	struct iommu_domain *domain = &fake->domain;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_carve_prepare(domain, SZ_4K, 0, GFP_KERNEL,
					    &tables));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_carve_prepare(domain, SZ_2K, SZ_4K, GFP_KERNEL,
					    &tables));
	KUNIT_EXPECT_EQ(test, -EOVERFLOW,
			iommu_carve_prepare(domain, ULONG_MAX - SZ_4K + 1,
					    SZ_8K, GFP_KERNEL, &tables));
	KUNIT_EXPECT_EQ(test, fake->prepared, 0);
	fake->result = -ENOMEM;
	KUNIT_EXPECT_EQ(test, -ENOMEM,
			iommu_carve_prepare(domain, SZ_4K, SZ_4K, GFP_KERNEL,
					    &tables));
	fake->result = 0;
	KUNIT_EXPECT_EQ(test, 0,
			iommu_carve_prepare(domain, SZ_1G + SZ_4K, SZ_64K,
					    GFP_KERNEL_ACCOUNT, &tables));
	KUNIT_EXPECT_EQ(test, fake->prepared, 2);
	KUNIT_EXPECT_EQ(test, fake->iova, SZ_1G + SZ_4K);
	KUNIT_EXPECT_EQ(test, fake->len, SZ_64K);
	KUNIT_EXPECT_TRUE(test, fake->gfp == GFP_KERNEL_ACCOUNT);
	KUNIT_EXPECT_EQ(test, fake->splits, 0);
	KUNIT_EXPECT_EQ(test, fake->syncs, 0);

	KUNIT_EXPECT_EQ(test, SZ_64K,
			iommu_carve(domain, SZ_1G + SZ_4K, SZ_64K, &tables));
	KUNIT_EXPECT_EQ(test, fake->splits, 1);
	KUNIT_EXPECT_EQ(test, fake->syncs, 1);
	KUNIT_EXPECT_EQ(test, fake->splits_at_sync, 1);
	KUNIT_EXPECT_EQ(test, fake->synced.start, SZ_1G);
	KUNIT_EXPECT_EQ(test, fake->synced.end, 2UL * SZ_1G - 1);
	KUNIT_EXPECT_FALSE(test, fake->synced.queued);

	/* A failure shows in what is returned, and is flushed all the same */
	fake->result = -EBUSY;
	KUNIT_EXPECT_EQ(test, 0,
			iommu_carve(domain, SZ_1G + SZ_4K, SZ_64K, &tables));
	KUNIT_EXPECT_EQ(test, fake->syncs, 2);
	iommu_carve_free(domain, &tables);
}

static void test_nothing_replaced(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	fake->leaf_size = 0;
	KUNIT_EXPECT_EQ(test, 0,
			iommu_split(&fake->domain, SZ_4K, SZ_4K, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fake->splits, 1);
	KUNIT_EXPECT_EQ(test, fake->syncs, 0);
}

static void test_bad_ranges(struct kunit *test)
{
	struct fake_domain *fake = test->priv;
	struct iommu_domain *domain = &fake->domain;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_split(domain, SZ_4K, 0, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_split(domain, SZ_2K, SZ_4K, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_split(domain, SZ_4K, SZ_2K, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EOVERFLOW,
			iommu_split(domain, ULONG_MAX - SZ_4K + 1, SZ_8K,
				    GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fake->splits, 0);

	/* The last page is a range like any other */
	KUNIT_EXPECT_EQ(test, 0,
			iommu_split(domain, ULONG_MAX - SZ_4K + 1, SZ_4K,
				    GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fake->splits, 1);
}

static void expect_unsupported(struct kunit *test, struct fake_domain *fake)
{
	struct iommu_pages_list tables = IOMMU_PAGES_LIST_INIT(tables);

	KUNIT_EXPECT_FALSE(test, iommu_can_split(&fake->domain));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			iommu_carve_prepare(&fake->domain, SZ_4K, SZ_4K,
					    GFP_KERNEL, &tables));
	KUNIT_EXPECT_EQ(test, fake->prepared, 0);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			iommu_split(&fake->domain, SZ_4K, SZ_4K, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fake->splits, 0);
	KUNIT_EXPECT_EQ(test, fake->syncs, 0);
}

static void test_supported(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	KUNIT_EXPECT_TRUE(test, iommu_can_split(&fake->domain));
}

/* A format of an IOMMU that needs break-before-make */
static void test_no_op(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	fake->iommu.ops = &fake_pt_ops_no_split;
	expect_unsupported(test, fake);
}

static void test_other_tables(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	fake->domain.is_iommupt = false;
	expect_unsupported(test, fake);
}

/* Whatever the format allows */
static void test_no_live_split(struct kunit *test)
{
	struct fake_domain *fake = test->priv;

	fake->domain.no_live_split = true;
	expect_unsupported(test, fake);
}

static struct kunit_case iommu_split_cases[] = {
	KUNIT_CASE(test_arguments_reach_the_table),
	KUNIT_CASE(test_success_flushes),
	KUNIT_CASE(test_failure_flushes),
	KUNIT_CASE(test_carve),
	KUNIT_CASE(test_nothing_replaced),
	KUNIT_CASE(test_bad_ranges),
	KUNIT_CASE(test_supported),
	KUNIT_CASE(test_no_op),
	KUNIT_CASE(test_other_tables),
	KUNIT_CASE(test_no_live_split),
	{}
};

static struct kunit_suite iommu_split_suite = {
	.name = "iommu_split",
	.init = fake_init,
	.test_cases = iommu_split_cases,
};

kunit_test_suite(iommu_split_suite);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KUnit tests of iommu_split()");
MODULE_IMPORT_NS("IOMMUFD_INTERNAL");
