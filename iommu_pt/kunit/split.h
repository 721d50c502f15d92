/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of split_range and carve_range for one format. As in
 * kunit_iommu_pt.h, the result is read back with the C code of the format.
 * Included after the format.
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
	bool hole; /* nothing is mapped between low and high */
	unsigned int leaves;
	/* What walk_range() has to count: by size, and below the top */
	u64 sizes[64];
	u64 tables;
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
			walk->tables++;
			ret = pt_descend(&pts, arg, check_leaves);
			if (ret)
				return ret;
			continue;
		}
		if (walk->hole && walk->va >= walk->low &&
		    walk->va < walk->high) {
			KUNIT_ASSERT_EQ(test, pts.type, PT_ENTRY_EMPTY);
			lg2sz = pt_table_item_lg2sz(&pts);
			walk->va += log2_to_int(lg2sz);
			walk->oa += log2_to_int(lg2sz);
			KUNIT_ASSERT_LE(test, walk->va, walk->high);
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
		walk->sizes[lg2sz]++;
	}
	return 0;
}

struct told {
	struct pt_iommu_walk walk;
	const struct leaf_walk *want;
	struct kunit *test;
	pt_vaddr_t va; /* where the next leaf has to start */
	pt_oaddr_t oa;
	u64 attrs;
};

/* walk_range() reports nothing in a hole */
static void told_hole(struct told *told)
{
	pt_vaddr_t len = told->want->high - told->want->low;

	if (told->want->hole && told->va == told->want->low) {
		told->va += len;
		told->oa += len;
	}
}

static void told_leaf(struct pt_iommu_walk *walk,
		      const struct pt_iommu_leaf *leaf)
{
	struct told *told = container_of(walk, struct told, walk);
	struct kunit *test = told->test;

	told_hole(told);
	KUNIT_EXPECT_EQ(test, leaf->iova, told->va);
	KUNIT_EXPECT_EQ(test, leaf->paddr, told->oa);
	/* The rights are among them, and all leaves have the same */
	KUNIT_EXPECT_NE(test, leaf->attrs, 0);
	if (told->attrs)
		KUNIT_EXPECT_EQ(test, leaf->attrs, told->attrs);
	told->attrs = leaf->attrs;
	told->va += log2_to_int(leaf->size_lg2);
	told->oa += log2_to_int(leaf->size_lg2);
}

/* walk_range() reports what the C code has found, in one call or several */
static void check_told(struct kunit *test, const struct leaf_walk *walk,
		       pt_vaddr_t va, pt_oaddr_t oa, unsigned int max_tables)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct told told = {
		.walk = { .leaf = told_leaf, .max_tables = max_tables },
		.want = walk,
		.test = test,
		.va = va,
		.oa = oa,
	};
	dma_addr_t at = va;
	unsigned int i;

	while (priv->iommu->ops->walk_range(priv->iommu, at, walk->last,
					    &told.walk)) {
		KUNIT_ASSERT_GT(test, told.walk.next, at);
		KUNIT_ASSERT_LE(test, told.walk.next, walk->last);
		at = told.walk.next;
	}
	told_hole(&told);
	KUNIT_ASSERT_EQ(test, told.va - 1, walk->last);
	KUNIT_ASSERT_EQ(test, told.walk.tables, walk->tables);
	KUNIT_ASSERT_EQ(test, told.walk.table_size, SZ_4K);
	for (i = 0; i != ARRAY_SIZE(walk->sizes); i++)
		KUNIT_ASSERT_EQ_MSG(test, told.walk.leaves[i], walk->sizes[i],
				    "leaves of 2^%u", i);
}

/*
 * The leaf before it is split, as hardware has cached it. If it is written
 * through late, hardware sets the dirty bit in the item that it read then,
 * without looking at what is there now.
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
	unsigned long pages; /* in tables, then */
} synced;

static void split_iotlb_sync(struct iommu_domain *domain,
			     struct iommu_iotlb_gather *gather)
{
	if (!synced.calls++)
		synced.first = *gather;
	synced.gather = *gather;
	synced.pages = kunit_table_pages();
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

/* Carve, with the two calls that iommufd makes for each domain */
static void carve(struct kunit *test, pt_vaddr_t va, pt_vaddr_t len,
		  pt_oaddr_t oa)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct iommu_pages_list tables = IOMMU_PAGES_LIST_INIT(tables);
	unsigned long pages;

	KUNIT_ASSERT_NO_ERRNO(test, iommu_carve_prepare(&priv->domain, va, len,
							GFP_KERNEL, &tables));
	KUNIT_ASSERT_EQ(test, synced.calls, 0);
	KUNIT_ASSERT_EQ(test, oa, iommu_iova_to_phys(&priv->domain, va));
	pages = kunit_table_pages();
	KUNIT_ASSERT_EQ(test, len,
			iommu_carve(&priv->domain, va, len, &tables));
	/* The carve took all prepared tables and allocated none */
	KUNIT_EXPECT_TRUE(test, iommu_pages_list_empty(&tables));
	KUNIT_EXPECT_LE(test, kunit_table_pages(), pages);
	iommu_carve_free(&priv->domain, &tables);
}

/* One hole in one leaf of 2^leaf_lg2, by a split or a carve */
static void check_cut(struct kunit *test, unsigned int leaf_lg2, pt_vaddr_t off,
		      pt_vaddr_t len, bool dirty, bool hole)
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
		.hole = hole,
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
	if (hole) {
		carve(test, va + off, len, oa + off);
	} else {
		ret = iommu_split(&priv->domain, va + off, len, GFP_KERNEL);
		KUNIT_ASSERT_NO_ERRNO(test, ret);
	}
	cached.armed = false;
	/* One flush, of the old leaf, with what drivers look at */
	KUNIT_ASSERT_EQ(test, synced.calls, 1);
	KUNIT_ASSERT_EQ(test, synced.gather.start, va);
	KUNIT_ASSERT_EQ(test, synced.gather.end, va + size - 1);
	KUNIT_ASSERT_TRUE(test, synced.gather.leaf_to_table);
	KUNIT_ASSERT_FALSE(test, synced.gather.queued);
	KUNIT_ASSERT_EQ(test, synced.gather.pt.leaf_levels_bitmap,
			pt_feature(priv->common, PT_FEAT_DETAILED_GATHER) ?
				BIT(cached.pts.level) : 0);
	KUNIT_ASSERT_EQ(test, synced.gather.pt.table_levels_bitmap, 0);
	range = pt_make_range(priv->common, va, va + size - 1);
	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, check_leaves, &walk));
	KUNIT_ASSERT_EQ(test, walk.va - 1, walk.last);
	check_told(test, &walk, va, oa, 1);
	check_told(test, &walk, va, oa, UINT_MAX);

	/* Each piece goes by itself, and nothing else with it */
	if (!hole)
		KUNIT_ASSERT_EQ(test, len,
				iommu_unmap(&priv->domain, va + off, len));
	KUNIT_ASSERT_EQ(test, 0, iommu_iova_to_phys(&priv->domain, va + off));
	KUNIT_ASSERT_EQ(test, 0,
			iommu_iova_to_phys(&priv->domain, va + off + len - 1));
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

static void check_split(struct kunit *test, unsigned int leaf_lg2,
			pt_vaddr_t off, pt_vaddr_t len, bool dirty)
{
	check_cut(test, leaf_lg2, off, len, dirty, false);
	check_cut(test, leaf_lg2, off, len, dirty, true);
}

/* A carve that is only prepared changes nothing and leaves nothing behind */
static void test_carve_prepared(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct iommu_pages_list tables = IOMMU_PAGES_LIST_INIT(tables);
	pt_vaddr_t va = pt_top_range(priv->common).va;
	pt_vaddr_t page = priv->smallest_pgsz;
	unsigned int lg2 = fls64(priv->safe_pgsize_bitmap) - 1;
	pt_oaddr_t oa = log2_set_mod(priv->test_oa, 0, lg2);
	pt_vaddr_t size = log2_to_int(lg2);
	struct iommu_domain *domain = &priv->domain;
	unsigned long pages;

	KUNIT_ASSERT_EQ(test, -ENOENT,
			iommu_carve_prepare(domain, va, page, GFP_KERNEL,
					    &tables));
	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(domain, va, oa, size,
					      IOMMU_READ | IOMMU_WRITE,
					      GFP_KERNEL));
	pages = kunit_table_pages();
	KUNIT_ASSERT_NO_ERRNO(test, iommu_carve_prepare(domain, va + page, page,
							GFP_KERNEL, &tables));
	iommu_carve_free(domain, &tables);
	KUNIT_EXPECT_EQ(test, kunit_table_pages(), pages);
	KUNIT_EXPECT_EQ(test, oa + page, iommu_iova_to_phys(domain, va + page));
	KUNIT_EXPECT_EQ(test, size, iommu_unmap(domain, va, size));
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

/*
 * What one leaf of map_leaves() has become, @low and @high are its cuts, with a
 * hole between them or none
 */
static void check_rest(struct kunit *test, pt_vaddr_t va, unsigned int lg2,
		       pt_vaddr_t low, pt_vaddr_t high, bool dirty, bool hole)
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
		.hole = hole,
	};
	struct pt_range range = pt_make_range(priv->common, va, walk.last);

	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, check_leaves, &walk));
	KUNIT_ASSERT_EQ(test, walk.va - 1, walk.last);
}

static void check_pieces(struct kunit *test, pt_vaddr_t va, unsigned int lg2,
			 pt_vaddr_t low, pt_vaddr_t high, bool dirty)
{
	check_rest(test, va, lg2, low, high, dirty, false);
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

/*
 * One hole with its edges in two leaves, side by side or with one between that
 * goes as a whole: one flush for all of it. A late write to one of the two
 * leaves the rest of the other clean.
 */
static void check_carve_two(struct kunit *test, unsigned int lg2,
			    unsigned int count, bool dirty)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct iommu_domain *domain = &priv->domain;
	bool detailed = pt_feature(priv->common, PT_FEAT_DETAILED_GATHER);
	pt_vaddr_t size = log2_to_int(lg2);
	pt_vaddr_t va = map_leaves(test, lg2, count);
	pt_vaddr_t end = va + count * size;
	pt_vaddr_t last = end - size;
	pt_vaddr_t low = va + priv->smallest_pgsz;
	pt_vaddr_t high = last + size / 2;
	pt_oaddr_t oa = size; /* of va */

	cache_leaf(test, last, lg2);
	synced.calls = 0;
	cached.armed = dirty;
	carve(test, low, high - low, oa + low - va);
	cached.armed = false;
	KUNIT_ASSERT_EQ(test, synced.calls, 1);
	KUNIT_ASSERT_EQ(test, synced.gather.start, va);
	KUNIT_ASSERT_EQ(test, synced.gather.end, end - 1);
	KUNIT_ASSERT_TRUE(test, synced.gather.leaf_to_table);
	KUNIT_ASSERT_FALSE(test, synced.gather.queued);
	KUNIT_ASSERT_EQ(test, synced.gather.pt.leaf_levels_bitmap,
			detailed ? BIT(cached.pts.level) : 0);
	KUNIT_ASSERT_EQ(test, synced.gather.pt.table_levels_bitmap, 0);
	check_rest(test, va, lg2, low, va + size, false, true);
	if (count == 3)
		check_rest(test, va + size, lg2, va + size, last, false, true);
	check_rest(test, last, lg2, last, high, dirty, true);

	KUNIT_ASSERT_EQ(test, oa + low - va - 1,
			iommu_iova_to_phys(domain, low - 1));
	KUNIT_ASSERT_EQ(test, 0, iommu_iova_to_phys(domain, low));
	KUNIT_ASSERT_EQ(test, 0, iommu_iova_to_phys(domain, high - 1));
	KUNIT_ASSERT_EQ(test, oa + high - va, iommu_iova_to_phys(domain, high));
	KUNIT_ASSERT_EQ(test, low - va, iommu_unmap(domain, va, low - va));
	KUNIT_ASSERT_EQ(test, end - high,
			iommu_unmap(domain, high, end - high));
}

static void test_carve_two_leaves(struct kunit *test)
{
	static const struct iommu_dirty_ops dirty_ops = {};
	struct kunit_iommu_priv *priv = test->priv;
	bool dirty = pt_dirty_supported(priv->common) &&
		     priv->iommu->ops->set_dirty;
	unsigned int lg2;

	priv->domain.dirty_ops = &dirty_ops;
	for (lg2 = priv->smallest_pgsz_lg2 + 1; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		if (!leaves_fit(priv, lg2))
			continue;
		check_carve_two(test, lg2, 2, dirty);
		check_carve_two(test, lg2, 3, dirty);
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
 * A split that finds a leaf changed by somebody else keeps that change, flushes
 * what it has replaced, and warns
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

	/* The driver may forbid it */
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
	KUNIT_CASE_FMT(test_carve_prepared),
	KUNIT_CASE_FMT(test_split_two_leaves),
	KUNIT_CASE_FMT(test_carve_two_leaves),
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
