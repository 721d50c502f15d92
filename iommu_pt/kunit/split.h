/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of split_range for one format, in the way of kunit_iommu_pt.h:
 * what the op did is read back with the C code of the format. Included after
 * the format.
 */
#include "../../../kunit_iommu.h"
#include "../../../pt_iter.h"
#include <kunit/static_stub.h>
#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>
#include "../../../../iommu-pages.h"
#include "../iommu_pt_rust.h"
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
	struct iommu_iotlb_gather first;
	struct iommu_iotlb_gather gather; /* the last one */
} synced;

static void split_iotlb_sync(struct iommu_domain *domain,
			     struct iommu_iotlb_gather *gather)
{
	if (!synced.calls++)
		synced.first = *gather;
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

/* A mapping of leaves of 2^lg2 side by side, which make no larger one */
static pt_vaddr_t map_leaves(struct kunit *test, unsigned int lg2,
			     unsigned int count)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t va = pt_top_range(priv->common).va;
	pt_vaddr_t size = log2_to_int(lg2);

	/* Where the IOVA is aligned to twice the size, the OA is not */
	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(&priv->domain, va, size,
					      count * size,
					      IOMMU_READ | IOMMU_WRITE,
					      GFP_KERNEL));
	return va;
}

/* Whether three of them, behind one that is left out, fit into both spaces */
static bool leaves_fit(struct kunit_iommu_priv *priv, unsigned int lg2)
{
	return (priv->safe_pgsize_bitmap & log2_to_int(lg2)) &&
	       lg2 + 3 <= priv->common->max_vasz_lg2 &&
	       lg2 + 3 <= priv->common->max_oasz_lg2;
}

/* The leaf of map_leaves() at @va becomes what hardware has cached */
static void cache_leaf(struct kunit *test, pt_vaddr_t va, unsigned int lg2)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct pt_range range = pt_make_range(priv->common, va,
					      va + log2_to_int(lg2) - 1);

	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, find_leaf, NULL));
}

/* What one leaf of map_leaves() has become, @low and @high are its cuts */
static void check_pieces(struct kunit *test, pt_vaddr_t va, unsigned int lg2,
			 pt_vaddr_t low, pt_vaddr_t high, bool dirty)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t size = log2_to_int(lg2);
	struct leaf_walk walk = {
		.test = test,
		.va = va,
		.oa = va - pt_top_range(priv->common).va + size,
		.last = va + size - 1,
		.low = low,
		.high = high,
		.attrs = cached.attrs,
		.dirty = dirty,
	};
	struct pt_range range = pt_make_range(priv->common, va, walk.last);

	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, check_leaves, &walk));
	KUNIT_ASSERT_EQ(test, walk.va - 1, walk.last);
}

/*
 * Edges in two leaves, with one between that stays: each of the two is flushed
 * by itself, at its own size. A late write to one leaves the others clean.
 */
static void test_split_two_leaves(struct kunit *test)
{
	static const struct iommu_dirty_ops dirty_ops = {};
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	bool dirty = pt_dirty_supported(priv->common) &&
		     priv->iommu->ops->set_dirty;
	unsigned int lg2;

	priv->domain.dirty_ops = &dirty_ops;
	for (lg2 = priv->smallest_pgsz_lg2 + 1; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		pt_vaddr_t size = log2_to_int(lg2);
		pt_vaddr_t va, last;
		int ret;

		if (!leaves_fit(priv, lg2))
			continue;
		va = map_leaves(test, lg2, 3);
		last = va + 2 * size;
		cache_leaf(test, last, lg2);
		synced.calls = 0;
		cached.armed = dirty;
		ret = iommu_split(&priv->domain, va + page, 2 * size,
				  GFP_KERNEL);
		cached.armed = false;
		KUNIT_ASSERT_NO_ERRNO(test, ret);
		KUNIT_ASSERT_EQ(test, synced.calls, 2);
		KUNIT_ASSERT_EQ(test, synced.first.start, va);
		KUNIT_ASSERT_EQ(test, synced.first.end, va + size - 1);
		KUNIT_ASSERT_TRUE(test, synced.first.leaf_to_table);
		KUNIT_ASSERT_EQ(test, synced.gather.start, last);
		KUNIT_ASSERT_EQ(test, synced.gather.end, last + size - 1);
		KUNIT_ASSERT_TRUE(test, synced.gather.leaf_to_table);
		check_pieces(test, va, lg2, va + page, va + size, false);
		check_pieces(test, va + size, lg2, va + size, last, false);
		check_pieces(test, last, lg2, last, last + page, dirty);

		/* With nothing to cut nothing is flushed */
		synced.calls = 0;
		KUNIT_ASSERT_NO_ERRNO(test, iommu_split(&priv->domain,
							va + page, 2 * size,
							GFP_KERNEL));
		KUNIT_ASSERT_EQ(test, synced.calls, 0);
		KUNIT_ASSERT_EQ(test, 3 * size,
				iommu_unmap(&priv->domain, va, 3 * size));
		cond_resched();
	}
}

static void test_split_errors(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct iommu_domain *d = &priv->domain;
	pt_vaddr_t page = priv->smallest_pgsz;
	pt_vaddr_t va = pt_top_range(priv->common).va + page;

	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(d, va, page, page,
					      IOMMU_READ | IOMMU_WRITE,
					      GFP_KERNEL));
	synced.calls = 0;
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_split(d, va + 1, page,
						   GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_split(d, va, 1, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_split(d, va, 0, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EOVERFLOW,
			iommu_split(d, -(unsigned long)page, 2 * page,
				    GFP_KERNEL));
	/* Nothing is mapped at one of the edges */
	KUNIT_EXPECT_EQ(test, -ENOENT, iommu_split(d, va - page, 2 * page,
						   GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -ENOENT, iommu_split(d, va, 2 * page,
						   GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -ENOENT, iommu_split(d, BIT_ULL(60), page,
						   GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, synced.calls, 0);
	KUNIT_EXPECT_EQ(test, page, iommu_iova_to_phys(d, va));
	KUNIT_EXPECT_EQ(test, page, iommu_unmap(d, va, page));
}

#ifdef kunit_warning_suppress
/*
 * Somebody without the lock, who changes a leaf between the moment that a split
 * has found it and the one that it is to be replaced.
 */
static struct {
	u64 *item;
	u64 value;
} intruder;

static void *intrude(int nid, gfp_t gfp, size_t size, bool zeroed)
{
	*intruder.item = intruder.value;
	return iommu_alloc_pages_node_sz(nid, gfp, size);
}

/* Of two leaves @hit is taken out, or becomes the other */
static void check_unlocked(struct kunit *test, unsigned int lg2,
			   unsigned int hit, bool clear, bool dirty)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	pt_vaddr_t size = log2_to_int(lg2);
	pt_vaddr_t va = map_leaves(test, lg2, 2);
	unsigned long pages = kunit_table_pages();
	u64 *items[2], old;

	cache_leaf(test, va + size, lg2);
	items[1] = pt_cur_table(&cached.pts, u64) + cached.pts.index;
	/* The late write is to the first one */
	cache_leaf(test, va, lg2);
	items[0] = pt_cur_table(&cached.pts, u64) + cached.pts.index;
	old = *items[hit];
	intruder.item = items[hit];
	intruder.value = clear ? 0 : *items[!hit];
	synced.calls = 0;
	cached.armed = dirty && hit;
	kunit_activate_static_stub(test, pt_iommu_rust_alloc, intrude);
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, -EBUSY,
				iommu_split(&priv->domain, va + page, size,
					    GFP_KERNEL));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	kunit_deactivate_static_stub(test, pt_iommu_rust_alloc);
	cached.armed = false;
	KUNIT_EXPECT_EQ(test, *items[hit], intruder.value);
	*items[hit] = old;
	if (!hit) {
		/* Stopped before anything changed */
		KUNIT_EXPECT_EQ(test, synced.calls, 0);
		KUNIT_EXPECT_EQ(test, kunit_table_pages(), pages);
		check_pieces(test, va, lg2, va, va + size, false);
	} else {
		/* The first leaf was replaced, and flushed at its old size */
		KUNIT_EXPECT_EQ(test, synced.calls, 1);
		KUNIT_EXPECT_EQ(test, synced.gather.start, va);
		KUNIT_EXPECT_EQ(test, synced.gather.end, va + size - 1);
		check_pieces(test, va, lg2, va + page, va + size, dirty);
	}
	check_pieces(test, va + size, lg2, va + size, va + 2 * size, false);
	KUNIT_EXPECT_EQ(test, 2 * size,
			iommu_unmap(&priv->domain, va, 2 * size));
}

/*
 * A split that meets somebody else in a leaf lets that be, flushes what it has
 * replaced, and warns
 */
static void test_split_unlocked(struct kunit *test)
{
	static const struct iommu_dirty_ops dirty_ops = {};
	struct kunit_iommu_priv *priv = test->priv;
	bool dirty = pt_dirty_supported(priv->common) &&
		     priv->iommu->ops->set_dirty;
	unsigned int lg2, i;

	priv->domain.dirty_ops = &dirty_ops;
	for (lg2 = priv->smallest_pgsz_lg2 + 1; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		pt_vaddr_t va;
		bool table;

		if (!leaves_fit(priv, lg2))
			continue;
		/* Only a leaf that becomes a table takes an allocation */
		va = map_leaves(test, lg2, 1);
		cache_leaf(test, va, lg2);
		table = pt_table_item_lg2sz(&cached.pts) == lg2;
		iommu_unmap(&priv->domain, va, log2_to_int(lg2));
		for (i = 0; table && i != 8; i++)
			check_unlocked(test, lg2, i & 1, i & 2,
				       dirty && (i & 4));
		cond_resched();
	}
}
#else
static void test_split_unlocked(struct kunit *test)
{
	kunit_skip(test, "KUnit cannot suppress warnings");
}
#endif

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
	KUNIT_CASE_FMT(test_split_two_leaves),
	KUNIT_CASE_FMT(test_split_errors),
	KUNIT_CASE_FMT(test_split_unlocked),
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
