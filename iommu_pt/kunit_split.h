/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of split_range for one format, in the way of kunit_iommu_pt.h:
 * what the op did is read back with the C code of the format. Included after
 * the format.
 */
#include "../../kunit_iommu.h"
#include "../../pt_iter.h"
#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>

MODULE_IMPORT_NS("IOMMUFD_INTERNAL");

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

static int read_attrs(struct pt_range *range, void *arg, unsigned int level,
		      struct pt_table_p *table)
{
	struct pt_state pts = pt_init(range, level, table);
	struct pt_write_attrs attrs = {};

	if (pt_load_single_entry(&pts) == PT_ENTRY_TABLE)
		return pt_descend(&pts, arg, read_attrs);
	if (pts.type != PT_ENTRY_OA)
		return -ENOENT;
	pt_attr_from_entry(&pts, &attrs);
	*(u64 *)arg = attrs.descriptor_bits;
	return 0;
}

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
	if (dirty && priv->iommu->ops->set_dirty) {
		ret = priv->iommu->ops->set_dirty(priv->iommu, va);
		KUNIT_ASSERT_NO_ERRNO(test, ret);
		walk.dirty = pt_dirty_supported(priv->common);
	}
	range = pt_make_range(priv->common, va, va + size - 1);
	KUNIT_ASSERT_NO_ERRNO(test,
			      pt_walk_range(&range, read_attrs, &walk.attrs));

	KUNIT_ASSERT_NO_ERRNO(test, iommu_split(&priv->domain, va + off, len,
						GFP_KERNEL));
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

static struct kunit_case split_test_cases[] = {
	KUNIT_CASE_FMT(test_split_pairs),
	KUNIT_CASE_FMT(test_split_odd),
	{},
};

static int pt_kunit_split_init(struct kunit *test)
{
	struct kunit_iommu_priv *priv;
	int ret;

	priv = kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	if (!priv)
		return -ENOMEM;

	priv->orig_nr_secondary_pagetable =
		global_node_page_state(NR_SECONDARY_PAGETABLE);
	ret = pt_kunit_priv_init(test, priv);
	if (ret) {
		kunit_kfree(test, priv);
		return ret;
	}
	test->priv = priv;
	return 0;
}

static void pt_kunit_split_exit(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;

	if (!priv)
		return;
	pt_iommu_deinit(priv->iommu);
	/* Nothing else uses secondary page tables while KUnit runs */
	KUNIT_ASSERT_EQ(test, priv->orig_nr_secondary_pagetable,
			global_node_page_state(NR_SECONDARY_PAGETABLE));
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
