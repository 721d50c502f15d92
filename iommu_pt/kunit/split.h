/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of split_range for one format, in the way of kunit_iommu_pt.h:
 * what the op did is read back with the C code of the format. Included after
 * the format.
 */
#include "../../../kunit_iommu.h"
#include "../../../pt_iter.h"
#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>
#include "pages.h"

MODULE_IMPORT_NS("IOMMUFD_INTERNAL");

#define SPLIT_FMT(op) CONCATENATE(CONCATENATE(pt_iommu_, PTPFX), op)

struct leaf_walk {
	struct kunit *test;
	pt_vaddr_t va; /* where the next leaf has to start */
	pt_oaddr_t oa;
	pt_vaddr_t last;
	pt_vaddr_t low; /* no leaf may cross these two */
	pt_vaddr_t high;
	u64 attrs;
	bool dirty;
	unsigned int leaves;
};

/* The size of the leaf that has to be at va: the largest that crosses no cut */
static unsigned int want_lg2sz(struct leaf_walk *walk)
{
	struct kunit_iommu_priv *priv = walk->test->priv;
	pt_vaddr_t last = walk->last;

	if (walk->va < walk->low)
		last = walk->low - 1;
	else if (walk->va < walk->high)
		last = walk->high - 1;
	return pt_compute_best_pgsize(priv->domain.pgsize_bitmap, walk->va,
				      last, walk->oa);
}

static int check_leaves(struct pt_range *range, void *arg, unsigned int level,
			struct pt_table_p *table)
{
	struct pt_state pts = pt_init(range, level, table);
	struct leaf_walk *walk = arg;
	struct kunit *test = walk->test;
	struct pt_write_attrs attrs = {};
	unsigned int lg2sz;
	int ret;

	for_each_pt_level_entry(&pts) {
		if (pts.type == PT_ENTRY_TABLE) {
			ret = pt_descend(&pts, arg, check_leaves);
			if (ret)
				return ret;
			continue;
		}
		KUNIT_ASSERT_EQ(test, pts.type, PT_ENTRY_OA);
		lg2sz = pt_entry_oa_lg2sz(&pts);
		KUNIT_ASSERT_EQ_MSG(test, lg2sz, want_lg2sz(walk), "va %llx",
				    (u64)walk->va);
		KUNIT_ASSERT_EQ_MSG(test, pt_entry_oa(&pts), walk->oa,
				    "va %llx", (u64)walk->va);
		pt_attr_from_entry(&pts, &attrs);
		KUNIT_ASSERT_EQ(test, attrs.descriptor_bits, walk->attrs);
		KUNIT_ASSERT_EQ(test, pt_entry_is_write_dirty(&pts),
				walk->dirty);
		walk->va += log2_to_int(lg2sz);
		walk->oa += log2_to_int(lg2sz);
		walk->leaves++;
	}
	return 0;
}

/*
 * The leaf before it is split, as hardware has cached it. If it is written
 * through late, hardware sets the dirty bit in the item that it read then,
 * without a look at what is there now.
 */
static struct {
	struct pt_range range;
	struct pt_state pts;
	u64 attrs;
	bool late;
	bool armed;
} cached;

static int find_leaf(struct pt_range *range, void *arg, unsigned int level,
		     struct pt_table_p *table)
{
	struct pt_state pts = pt_init(range, level, table);
	struct pt_write_attrs attrs = {};

	if (pt_load_single_entry(&pts) == PT_ENTRY_TABLE)
		return pt_descend(&pts, arg, find_leaf);
	if (pts.type != PT_ENTRY_OA)
		return -ENOENT;
	pt_attr_from_entry(&pts, &attrs);
	cached.attrs = attrs.descriptor_bits;
	cached.range = *range;
	cached.pts = pts;
	cached.pts.range = &cached.range;
	return 0;
}

static struct {
	unsigned int calls;
	struct iommu_iotlb_gather gather;
} synced;

static void split_iotlb_sync(struct iommu_domain *domain,
			     struct iommu_iotlb_gather *gather)
{
	synced.calls++;
	synced.gather = *gather;
	if (cached.armed) {
		pt_load_single_entry(&cached.pts);
		pt_entry_make_write_dirty(&cached.pts);
	}
	iommu_put_pages_list(&gather->freelist);
}

static const struct iommu_domain_ops split_domain_ops = {
	IOMMU_PT_DOMAIN_OPS1(PTPFX_RAW),
	.iotlb_sync = split_iotlb_sync,
};

/* One hole in one leaf of 2^leaf_lg2 */
static void check_split(struct kunit *test, unsigned int leaf_lg2,
			pt_vaddr_t off, pt_vaddr_t len, bool dirty)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t size = log2_to_int(leaf_lg2);
	pt_vaddr_t va = pt_top_range(priv->common).va;
	pt_oaddr_t oa = log2_set_mod(priv->test_oa, 0, leaf_lg2);
	struct leaf_walk walk = {
		.test = test,
		.va = va,
		.oa = oa,
		.last = va + size - 1,
		.low = va + off,
		.high = va + off + len,
	};
	struct pt_range range;
	int ret;

	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(&priv->domain, va, oa, size,
					      IOMMU_READ | IOMMU_WRITE,
					      GFP_KERNEL));
	if (dirty && !cached.late && priv->iommu->ops->set_dirty) {
		ret = priv->iommu->ops->set_dirty(priv->iommu, va);
		KUNIT_ASSERT_NO_ERRNO(test, ret);
		walk.dirty = pt_dirty_supported(priv->common);
	}
	/* Any of the items, if there are many */
	range = pt_make_range(priv->common, va + off, va + size - 1);
	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, find_leaf, NULL));
	walk.attrs = cached.attrs;
	walk.dirty |= cached.late;

	synced.calls = 0;
	cached.armed = cached.late;
	ret = iommu_split(&priv->domain, va + off, len, GFP_KERNEL);
	cached.armed = false;
	KUNIT_ASSERT_NO_ERRNO(test, ret);
	/* One flush, of the old leaf, with what drivers look at */
	KUNIT_ASSERT_EQ(test, synced.calls, 1);
	KUNIT_ASSERT_EQ(test, synced.gather.start, va);
	KUNIT_ASSERT_EQ(test, synced.gather.end, va + size - 1);
	KUNIT_ASSERT_TRUE(test, synced.gather.leaf_to_table);
	KUNIT_ASSERT_FALSE(test, synced.gather.queued);
	KUNIT_ASSERT_EQ(test, synced.gather.pt.leaf_levels_bitmap,
			BIT(cached.pts.level));
	KUNIT_ASSERT_EQ(test, synced.gather.pt.table_levels_bitmap, 0);
	range = pt_make_range(priv->common, va, va + size - 1);
	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, check_leaves, &walk));
	KUNIT_ASSERT_EQ(test, walk.va - 1, walk.last);

	/* Each piece goes by itself, and nothing else with it */
	KUNIT_ASSERT_EQ(test, len, iommu_unmap(&priv->domain, va + off, len));
	if (off) {
		KUNIT_ASSERT_EQ(test, oa + off - 1,
				iommu_iova_to_phys(&priv->domain,
						   va + off - 1));
		KUNIT_ASSERT_EQ(test, off,
				iommu_unmap(&priv->domain, va, off));
	}
	if (off + len != size) {
		KUNIT_ASSERT_EQ(test, oa + off + len,
				iommu_iova_to_phys(&priv->domain,
						   va + off + len));
		KUNIT_ASSERT_EQ(test, size - off - len,
				iommu_unmap(&priv->domain, va + off + len,
					    size - off - len));
	}
}

/* Every pair of sizes: a hole of the small one in a leaf of the large one */
static void test_split_pairs(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	unsigned int small_lg2, large_lg2;
	unsigned int pairs = 0;

	for (large_lg2 = 0; large_lg2 != PT_VADDR_MAX_LG2; large_lg2++) {
		pt_vaddr_t large = log2_to_int(large_lg2);

		if (!(priv->safe_pgsize_bitmap & large))
			continue;
		for (small_lg2 = 0; small_lg2 != large_lg2; small_lg2++) {
			pt_vaddr_t small = log2_to_int(small_lg2);

			if (!(priv->safe_pgsize_bitmap & small))
				continue;
			check_split(test, large_lg2, 0, small, false);
			check_split(test, large_lg2, large - small, small,
				    true);
			if (large / small > 2)
				check_split(test, large_lg2,
					    large / 2 - small, small, false);
			pairs++;
		}
		cond_resched();
	}
	if (!pairs)
		kunit_skip(test, "Test needs two page sizes");
	kunit_info(test, "%u pairs of sizes", pairs);
}

/* Holes that are no power of two, in every leaf */
static void test_split_odd(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	unsigned int lg2;

	for (lg2 = priv->smallest_pgsz_lg2 + 3; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		pt_vaddr_t size = log2_to_int(lg2);

		if (!(priv->safe_pgsize_bitmap & size))
			continue;
		check_split(test, lg2, page, 3 * page, true);
		check_split(test, lg2, page, size - 2 * page, false);
		check_split(test, lg2, size / 4 + page, size / 2, true);
		cond_resched();
	}
}

/* Written to late, through what hardware has cached */
static void test_split_late_dirty(struct kunit *test)
{
	static const struct iommu_dirty_ops dirty_ops = {};
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	unsigned int lg2;

	if (!pt_dirty_supported(priv->common) || !priv->iommu->ops->set_dirty)
		kunit_skip(test, "No dirty tracking");
	priv->domain.dirty_ops = &dirty_ops;
	cached.late = true;
	for (lg2 = priv->smallest_pgsz_lg2 + 1; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		pt_vaddr_t size = log2_to_int(lg2);

		if (!(priv->safe_pgsize_bitmap & size))
			continue;
		check_split(test, lg2, 0, size / 2, false);
		check_split(test, lg2, size - page, page, false);
		check_split(test, lg2, size / 2, page, false);
		cond_resched();
	}
}

/* The format, its ops and the domain give one answer, and the call agrees */
static void test_can_split(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t va = pt_top_range(priv->common).va;
	pt_vaddr_t page = priv->smallest_pgsz;

	KUNIT_EXPECT_TRUE(test, SPLIT_FMT(can_split)());
	KUNIT_EXPECT_NOT_NULL(test, priv->iommu->ops->split_range);
	KUNIT_EXPECT_TRUE(test, iommu_can_split(&priv->domain));
	KUNIT_EXPECT_EQ(test, -ENOENT,
			iommu_split(&priv->domain, va, page, GFP_KERNEL));

	/* A driver may know better */
	priv->domain.no_live_split = true;
	KUNIT_EXPECT_FALSE(test, iommu_can_split(&priv->domain));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			iommu_split(&priv->domain, va, page, GFP_KERNEL));
}

static struct kunit_case split_test_cases[] = {
	KUNIT_CASE_FMT(test_can_split),
	KUNIT_CASE_FMT(test_split_pairs),
	KUNIT_CASE_FMT(test_split_odd),
	KUNIT_CASE_FMT(test_split_late_dirty),
	{},
};

static int pt_kunit_split_init(struct kunit *test)
{
	struct kunit_iommu_priv *priv;
	int ret;

	priv = kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	if (!priv)
		return -ENOMEM;

	priv->orig_nr_secondary_pagetable = kunit_table_pages();
	ret = pt_kunit_priv_init(test, priv);
	if (ret) {
		kunit_kfree(test, priv);
		return ret;
	}
	priv->domain.ops = &split_domain_ops;
	test->priv = priv;
	return 0;
}

static void pt_kunit_split_exit(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;

	if (!priv)
		return;
	cached.late = false;
	pt_iommu_deinit(priv->iommu);
	/* Nothing else uses secondary page tables while KUnit runs */
	KUNIT_ASSERT_EQ(test, priv->orig_nr_secondary_pagetable,
			kunit_table_pages());
	kunit_kfree(test, priv);
}

static struct kunit_suite NS(split_suite) = {
	.name = __stringify(NS(split_test)),
	.init = pt_kunit_split_init,
	.exit = pt_kunit_split_exit,
	.test_cases = split_test_cases,
};

kunit_test_suites(&NS(split_suite));

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KUnit tests of splitting IOMMU page tables");
MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
