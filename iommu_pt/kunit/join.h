/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of join_range for one format. Included after split.h: what a
 * split or a hole left behind is made one leaf again, and read back with the C
 * code of the format.
 */

/* What a join of one leaf has to flush: the topmost table items below it */
struct join_tables {
	pt_vaddr_t va;
	pt_vaddr_t first;
	pt_vaddr_t last;
	unsigned int levels; /* of these items */
};

static int find_tables(struct pt_range *range, void *arg, unsigned int level,
		       struct pt_table_p *table)
{
	struct pt_state pts = pt_init(range, level, table);
	struct join_tables *found = arg;

	for_each_pt_level_entry(&pts) {
		unsigned int lg2sz = pt_table_item_lg2sz(&pts);
		pt_vaddr_t va = log2_set_mod(pts.range->va, 0, lg2sz);
		int ret;

		if (pts.type != PT_ENTRY_TABLE)
			continue;
		if (va < found->va || range->last_va - va <
					      log2_to_int(lg2sz) - 1) {
			ret = pt_descend(&pts, arg, find_tables);
			if (ret)
				return ret;
			continue;
		}
		found->first = min(found->first, va);
		found->last = max(found->last, va + log2_to_int(lg2sz) - 1);
		found->levels |= BIT(level);
	}
	return 0;
}

/* All leaves from @va on: as large as can be without one across a cut */
static void check_joined(struct kunit *test, pt_vaddr_t va, pt_oaddr_t oa,
			 pt_vaddr_t len, pt_vaddr_t low, pt_vaddr_t high,
			 u64 attrs, bool dirty)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct leaf_walk walk = {
		.test = test,
		.va = va,
		.oa = oa,
		.last = va + len - 1,
		.low = low,
		.high = high,
		.attrs = attrs,
		.dirty = dirty,
	};
	struct pt_range range = pt_make_range(priv->common, va, walk.last);

	KUNIT_ASSERT_NO_ERRNO(test, pt_walk_range(&range, check_leaves, &walk));
	KUNIT_ASSERT_EQ(test, walk.va - 1, walk.last);
}

static u64 attrs_at(struct kunit *test, pt_vaddr_t va)
{
	struct kunit_iommu_priv *priv = test->priv;

	cache_leaf(test, va, priv->smallest_pgsz_lg2);
	return cached.attrs;
}

/* One leaf of 2^lg2, mapped at the start of the table */
struct join_leaf {
	unsigned int lg2;
	pt_vaddr_t va;
	pt_oaddr_t oa;
	pt_vaddr_t size;
	unsigned long pages;
};

static struct join_leaf join_map(struct kunit *test, unsigned int lg2)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct join_leaf leaf = {
		.lg2 = lg2,
		.va = pt_top_range(priv->common).va,
		.oa = log2_set_mod(priv->test_oa, 0, lg2),
		.size = log2_to_int(lg2),
	};

	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(&priv->domain, leaf.va, leaf.oa,
					      leaf.size,
					      IOMMU_READ | IOMMU_WRITE,
					      GFP_KERNEL));
	leaf.pages = kunit_table_pages();
	return leaf;
}

static void join_unmap(struct kunit *test, const struct join_leaf *leaf)
{
	struct kunit_iommu_priv *priv = test->priv;

	KUNIT_ASSERT_EQ(test, leaf->size,
			iommu_unmap(&priv->domain, leaf->va, leaf->size));
}

/* A hole is made, and filled from there */
static void join_refill(struct kunit *test, const struct join_leaf *leaf,
			pt_vaddr_t off, pt_vaddr_t len, pt_oaddr_t oa, int prot)
{
	struct kunit_iommu_priv *priv = test->priv;

	synced.calls = 0;
	carve(test, leaf->va + off, len, leaf->oa + off);
	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(&priv->domain, leaf->va + off, oa,
					      len, prot, GFP_KERNEL));
}

/* Joins, and looks at what is flushed and when tables are freed */
static void join_whole(struct kunit *test, const struct join_leaf *leaf)
{
	struct kunit_iommu_priv *priv = test->priv;
	bool detailed = pt_feature(priv->common, PT_FEAT_DETAILED_GATHER);
	struct join_tables tables = { .va = leaf->va, .first = PT_VADDR_MAX };
	pt_vaddr_t last = leaf->va + leaf->size - 1;
	struct pt_range range = pt_make_range(priv->common, leaf->va, last);
	unsigned long pages = kunit_table_pages();

	KUNIT_ASSERT_NO_ERRNO(test,
			      pt_walk_range(&range, find_tables, &tables));
	synced.calls = 0;
	cached.armed = cached.late;
	KUNIT_ASSERT_NO_ERRNO(test, iommu_join(&priv->domain, leaf->va,
					       leaf->size));
	cached.armed = false;
	KUNIT_ASSERT_EQ(test, kunit_table_pages(), leaf->pages);
	KUNIT_ASSERT_EQ(test, synced.calls, tables.levels ? 1 : 0);
	if (!synced.calls)
		return;
	KUNIT_ASSERT_EQ(test, synced.gather.start, tables.first);
	KUNIT_ASSERT_EQ(test, synced.gather.end, tables.last);
	KUNIT_ASSERT_TRUE(test, synced.gather.leaf_to_table);
	KUNIT_ASSERT_FALSE(test, synced.gather.queued);
	/* The old leaves are below the items, and the tables above these */
	KUNIT_ASSERT_EQ(test, synced.gather.pt.leaf_levels_bitmap,
			detailed ? tables.levels - 1 : 0);
	KUNIT_ASSERT_EQ(test, synced.gather.pt.table_levels_bitmap,
			detailed ? (tables.levels - 1) << 1 : 0);
	/* Until then hardware may use the tables */
	KUNIT_ASSERT_EQ(test, synced.pages, pages);
}

/* One hole in one leaf, and back */
static void check_join(struct kunit *test, unsigned int lg2, pt_vaddr_t off,
		       pt_vaddr_t len, bool hole, bool dirty)
{
	const int rw = IOMMU_READ | IOMMU_WRITE;
	struct kunit_iommu_priv *priv = test->priv;
	struct join_leaf leaf = join_map(test, lg2);
	u64 attrs = attrs_at(test, leaf.va);
	bool is_dirty = cached.late;
	int ret;

	if (hole)
		join_refill(test, &leaf, off, len, leaf.oa + off, rw);
	else
		KUNIT_ASSERT_NO_ERRNO(test, iommu_split(&priv->domain,
							leaf.va + off, len,
							GFP_KERNEL));
	if (dirty && !cached.late && priv->iommu->ops->set_dirty) {
		ret = priv->iommu->ops->set_dirty(priv->iommu, leaf.va + off);
		KUNIT_ASSERT_NO_ERRNO(test, ret);
		is_dirty = pt_dirty_supported(priv->common);
	}
	cache_leaf(test, leaf.va + off, priv->smallest_pgsz_lg2);
	join_whole(test, &leaf);
	check_joined(test, leaf.va, leaf.oa, leaf.size, leaf.va, leaf.va, attrs,
		     is_dirty);
	/* Once more is nothing to do */
	synced.calls = 0;
	KUNIT_ASSERT_NO_ERRNO(test, iommu_join(&priv->domain, leaf.va,
					       leaf.size));
	KUNIT_ASSERT_EQ(test, synced.calls, 0);
	join_unmap(test, &leaf);
}

/* Every pair of sizes: the small one at three places of the large one */
static void test_join_pairs(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	unsigned int small_lg2, large_lg2;
	unsigned int pairs = 0, i;

	for (large_lg2 = 0; large_lg2 != PT_VADDR_MAX_LG2; large_lg2++) {
		pt_vaddr_t large = log2_to_int(large_lg2);

		if (!(priv->safe_pgsize_bitmap & large))
			continue;
		for (small_lg2 = 0; small_lg2 != large_lg2; small_lg2++) {
			pt_vaddr_t small = log2_to_int(small_lg2);

			if (!(priv->safe_pgsize_bitmap & small))
				continue;
			for (i = 0; i != 2; i++) {
				check_join(test, large_lg2, 0, small, i, true);
				check_join(test, large_lg2, large - small,
					   small, i, false);
				check_join(test, large_lg2, large / 2, small, i,
					   true);
			}
			pairs++;
		}
		cond_resched();
	}
	if (!pairs)
		kunit_skip(test, "Test needs two page sizes");
	kunit_info(test, "%u pairs of sizes", pairs);
}

/*
 * Written to late, through what hardware has cached of a table that no item
 * leads to any more
 */
static void test_join_late_dirty(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	unsigned int lg2;

	if (!pt_dirty_supported(priv->common) || !priv->iommu->ops->set_dirty)
		kunit_skip(test, "No dirty tracking");
	cached.late = true;
	for (lg2 = priv->smallest_pgsz_lg2 + 1; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		struct join_leaf leaf;
		pt_vaddr_t size = log2_to_int(lg2);
		bool table;

		if (!(priv->safe_pgsize_bitmap & size))
			continue;
		/* Without a table there is no flush in which it could be late */
		leaf = join_map(test, lg2);
		KUNIT_ASSERT_NO_ERRNO(test, iommu_split(&priv->domain, leaf.va,
							page, GFP_KERNEL));
		table = kunit_table_pages() != leaf.pages;
		join_unmap(test, &leaf);
		if (!table)
			continue;
		check_join(test, lg2, 0, page, false, false);
		check_join(test, lg2, size - page, page, true, false);
		check_join(test, lg2, size / 2, page, true, false);
		cond_resched();
	}
}

/* A hole that was filled with other rights, or with other memory */
static void test_join_differs(struct kunit *test)
{
	const int rw = IOMMU_READ | IOMMU_WRITE;
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	unsigned int lg2, i;

	for (lg2 = priv->smallest_pgsz_lg2 + 2; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		pt_vaddr_t size = log2_to_int(lg2);
		pt_vaddr_t low = size / 2, high = low + page;

		if (!(priv->safe_pgsize_bitmap & size))
			continue;
		for (i = 0; i != 2; i++) {
			struct join_leaf leaf = join_map(test, lg2);
			u64 attrs = attrs_at(test, leaf.va);
			pt_oaddr_t oa = leaf.oa + low;
			unsigned long pages;

			if (i)
				oa = leaf.oa;
			join_refill(test, &leaf, low, page, oa,
				    i ? rw : IOMMU_READ);
			pages = kunit_table_pages();
			synced.calls = 0;
			KUNIT_ASSERT_NO_ERRNO(test, iommu_join(&priv->domain,
							       leaf.va, size));
			KUNIT_ASSERT_EQ(test, synced.calls, 0);
			KUNIT_ASSERT_EQ(test, kunit_table_pages(), pages);
			check_joined(test, leaf.va, leaf.oa, low, leaf.va,
				     leaf.va, attrs, false);
			check_joined(test, leaf.va + low, oa, page, leaf.va,
				     leaf.va, attrs_at(test, leaf.va + low),
				     false);
			KUNIT_ASSERT_EQ(test, attrs == cached.attrs, i);
			check_joined(test, leaf.va + high, leaf.oa + high,
				     size - high, leaf.va, leaf.va, attrs,
				     false);
			join_unmap(test, &leaf);
		}
		cond_resched();
	}
}

/* Nothing grows across an edge of what was asked for */
static void test_join_edges(struct kunit *test)
{
	const int rw = IOMMU_READ | IOMMU_WRITE;
	struct kunit_iommu_priv *priv = test->priv;
	pt_vaddr_t page = priv->smallest_pgsz;
	unsigned int lg2;

	for (lg2 = priv->smallest_pgsz_lg2 + 2; lg2 != PT_VADDR_MAX_LG2;
	     lg2++) {
		pt_vaddr_t size = log2_to_int(lg2);
		struct join_leaf leaf;
		u64 attrs;

		if (!(priv->safe_pgsize_bitmap & size))
			continue;
		leaf = join_map(test, lg2);
		attrs = attrs_at(test, leaf.va);
		/* A page at each end, and one in the middle */
		join_refill(test, &leaf, size / 2, page, leaf.oa + size / 2,
			    rw);
		KUNIT_ASSERT_NO_ERRNO(test, iommu_split(&priv->domain,
							leaf.va + page,
							size - 2 * page,
							GFP_KERNEL));
		KUNIT_ASSERT_NO_ERRNO(test, iommu_join(&priv->domain,
						       leaf.va + page,
						       size - 2 * page));
		check_joined(test, leaf.va, leaf.oa, size, leaf.va + page,
			     leaf.va + size - page, attrs, false);
		/* Whoever asks for all of it gets it */
		join_whole(test, &leaf);
		check_joined(test, leaf.va, leaf.oa, size, leaf.va, leaf.va,
			     attrs, false);
		join_unmap(test, &leaf);
		cond_resched();
	}
}

static void test_join_errors(struct kunit *test)
{
	struct kunit_iommu_priv *priv = test->priv;
	struct iommu_domain *d = &priv->domain;
	pt_vaddr_t page = priv->smallest_pgsz;
	pt_vaddr_t va = pt_top_range(priv->common).va;

	synced.calls = 0;
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_join(d, va + 1, page));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_join(d, va, 1));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_join(d, va, 0));
	KUNIT_EXPECT_EQ(test, -EOVERFLOW,
			iommu_join(d, -(unsigned long)page, 2 * page));
	/* Nothing is mapped, or nothing can be joined */
	KUNIT_EXPECT_EQ(test, 0, iommu_join(d, va, 4 * page));
	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(d, va, page, page,
					      IOMMU_READ | IOMMU_WRITE,
					      GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, 0, iommu_join(d, va, 4 * page));
	KUNIT_EXPECT_EQ(test, synced.calls, 0);
	KUNIT_EXPECT_EQ(test, page, iommu_iova_to_phys(d, va));
	KUNIT_EXPECT_EQ(test, page, iommu_unmap(d, va, page));

	/* What can be split can be joined, if the driver allows it */
	KUNIT_EXPECT_NOT_NULL(test, priv->iommu->ops->join_range);
	KUNIT_EXPECT_TRUE(test, iommu_can_join(d));
	d->no_live_split = true;
	KUNIT_EXPECT_FALSE(test, iommu_can_join(d));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, iommu_join(d, va, page));
}

static struct kunit_case join_test_cases[] = {
	KUNIT_CASE_FMT(test_join_pairs),
	KUNIT_CASE_FMT(test_join_late_dirty),
	KUNIT_CASE_FMT(test_join_differs),
	KUNIT_CASE_FMT(test_join_edges),
	KUNIT_CASE_FMT(test_join_errors),
	{},
};

static struct kunit_suite NS(join_suite) = {
	.name = __stringify(NS(join_test)),
	.init = pt_kunit_split_init,
	.exit = pt_kunit_split_exit,
	.test_cases = join_test_cases,
};

kunit_test_suites(&NS(join_suite));
