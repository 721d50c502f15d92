/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a join makes of Arm's tables has to be what io-pgtable-arm writes for
 * the same leaves, in all bits. join.h cannot serve here: it reads tables with
 * the C code of the format, which armv8 does not have. Neither has it dirty
 * bits (HTTU is left out), so there is no write that could come late.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_ARMV8_JOIN_H
#define __IOMMU_PT_RUST_KUNIT_ARMV8_JOIN_H

/* What the driver is told to flush, once and of no more than this */
static void armv8_flushed(struct kunit *test, struct armv8_test *t, u64 va,
			  u64 len, bool leaf_to_table, u8 leaves, u8 tables)
{
	KUNIT_EXPECT_EQ(test, t->syncs, 1);
	KUNIT_EXPECT_EQ(test, t->gather.start, va);
	KUNIT_EXPECT_EQ(test, t->gather.end, va + len - 1);
	KUNIT_EXPECT_EQ(test, t->gather.leaf_to_table, leaf_to_table);
	KUNIT_EXPECT_EQ(test, t->gather.pt.leaf_levels_bitmap, leaves);
	KUNIT_EXPECT_EQ(test, t->gather.pt.table_levels_bitmap, tables);
	t->syncs = 0;
}

/*
 * The life of a block: it takes the place of empty tables, a page of it comes
 * and goes, a join makes it whole again. Then it is what io-pgtable-arm makes.
 */
static void armv8_join_block(struct kunit *test, struct armv8_test *t,
			     unsigned int lg2)
{
	struct iommu_domain *domain = &t->rust.iommu.domain;
	const int prot = IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE;
	unsigned int level = armv8_level(t, lg2);
	/* Those of leaves below the block, and of what leads there */
	u8 below = BIT(level) - 1, tables = below << 1;
	u64 page = BIT_ULL(t->kind->tgsz_lg2);
	u64 size = BIT_ULL(lg2), va = size;
	u64 oa = armv8_oa(t, lg2);

	t->syncs = 0;
	KUNIT_ASSERT_EQ(test, 0,
			iommu_map(domain, va, oa, page, prot, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, t->syncs, 0);
	KUNIT_ASSERT_EQ(test, page, iommu_unmap(domain, va, page));
	armv8_flushed(test, t, va, page, false, BIT(0), 0);

	KUNIT_ASSERT_EQ(test, 0,
			iommu_map(domain, va, oa, size, prot, GFP_KERNEL));
	armv8_flushed(test, t, va, size, false, 0, tables);

	KUNIT_ASSERT_EQ(test, 0,
			iommu_split(domain, va + page, page, GFP_KERNEL));
	armv8_flushed(test, t, va, size, true, BIT(level), 0);
	KUNIT_ASSERT_EQ(test, page, iommu_unmap(domain, va + page, page));
	armv8_flushed(test, t, va + page, page, false, BIT(0), 0);
	KUNIT_ASSERT_EQ(test, 0, iommu_map(domain, va + page, oa + page, page,
					   prot, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, t->syncs, 0);

	KUNIT_ASSERT_EQ(test, 0, iommu_join(domain, va, size));
	armv8_flushed(test, t, va, size, true, below, tables);
	armv8_map_c(test, t, va, oa, size, size, prot);
	KUNIT_EXPECT_EQ(test, armv8_compare(test, t), 1);

	/* It is one already */
	KUNIT_ASSERT_EQ(test, 0, iommu_join(domain, va, size));
	KUNIT_EXPECT_EQ(test, t->syncs, 0);

	KUNIT_ASSERT_EQ(test, size, iommu_unmap(domain, va, size));
	armv8_flushed(test, t, va, size, false, BIT(level), 0);
	KUNIT_ASSERT_EQ(test, size,
			t->c->unmap_pages(t->c, va, size, 1, NULL));
	KUNIT_EXPECT_EQ(test, armv8_compare(test, t), 0);
}

static void armv8_join(struct kunit *test)
{
	struct device *dev = armv8_device(test);
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i, lg2;

	KUNIT_ASSERT_NOT_NULL(test, t);
	for (i = 0; i != ARRAY_SIZE(armv8_kinds); i++) {
		unsigned long sizes;

		armv8_start(test, t, &armv8_kinds[i], dev);
		KUNIT_EXPECT_TRUE(test, iommu_can_join(&t->rust.iommu.domain));
		sizes = t->cfg.pgsize_bitmap & ~BIT(t->kind->tgsz_lg2);
		for_each_set_bit(lg2, &sizes, BITS_PER_LONG)
			armv8_join_block(test, t, lg2);
		armv8_stop(test, t);
	}
}

/* Leaves of two sizes, and where three of the large ones are side by side */
struct armv8_pair {
	unsigned int large_lg2;
	unsigned int small_lg2;
	u64 large;
	u64 small;
	u64 va;
	u64 oa;
};

static const int armv8_prot = IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE;

static void armv8_each_pair(struct kunit *test,
			    void (*check)(struct kunit *test,
					  struct armv8_test *t,
					  const struct armv8_pair *pair))
{
	struct device *dev = armv8_device(test);
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i, large_lg2, small_lg2, pairs = 0;

	KUNIT_ASSERT_NOT_NULL(test, t);
	for (i = 0; i != ARRAY_SIZE(armv8_kinds); i++) {
		armv8_start(test, t, &armv8_kinds[i], dev);
		for_each_set_bit(large_lg2, &t->cfg.pgsize_bitmap,
				 BITS_PER_LONG) {
			u64 large = BIT_ULL(large_lg2);

			for_each_set_bit(small_lg2, &t->cfg.pgsize_bitmap,
					 large_lg2) {
				struct armv8_pair pair = {
					.large_lg2 = large_lg2,
					.small_lg2 = small_lg2,
					.large = large,
					.small = BIT_ULL(small_lg2),
					.va = 4 * large,
					.oa = armv8_oa(t, large_lg2),
				};

				check(test, t, &pair);
				pairs++;
				cond_resched();
			}
		}
		armv8_stop(test, t);
	}
	kunit_info(test, "%u pairs of sizes", pairs);
}

/* Maps @count large leaves, and splits them until all are small */
static void armv8_map_small(struct kunit *test, struct armv8_test *t,
			    const struct armv8_pair *pair, unsigned int count,
			    int prot)
{
	struct iommu_domain *domain = &t->rust.iommu.domain;
	u64 small = pair->small, len = count * pair->large, off;
	/* A split makes one leaf of this size small, and its neighbours that */
	u64 next = BIT_ULL(__ffs(t->cfg.pgsize_bitmap & ~(2 * small - 1)));

	KUNIT_ASSERT_EQ(test, 0, iommu_map(domain, pair->va, pair->oa, len,
					   prot, GFP_KERNEL));
	for (off = small; off < len; off += next)
		KUNIT_ASSERT_EQ(test, 0, iommu_split(domain, pair->va + off,
						     small, GFP_KERNEL));
}

/* Maps with the largest leaves that there may be */
static void armv8_best_c(struct kunit *test, struct armv8_test *t, u64 va,
			 u64 oa, u64 len, int prot)
{
	while (len) {
		unsigned int lg2 = __fls(t->cfg.pgsize_bitmap);

		while (!(t->cfg.pgsize_bitmap & BIT_ULL(lg2)) ||
		       (va | oa) & (BIT_ULL(lg2) - 1) || len < BIT_ULL(lg2))
			lg2--;
		armv8_map_c(test, t, va, oa, BIT_ULL(lg2), BIT_ULL(lg2), prot);
		va += BIT_ULL(lg2);
		oa += BIT_ULL(lg2);
		len -= BIT_ULL(lg2);
	}
}

/* With the tables below, if @count leaves of this size could take their place */
static void armv8_unmap_c(struct kunit *test, struct armv8_test *t,
			  const struct armv8_pair *pair, unsigned int count)
{
	KUNIT_ASSERT_EQ(test, count * pair->large,
			t->c->unmap_pages(t->c, pair->va, pair->large, count,
					  NULL));
}

static void armv8_unmap_both(struct kunit *test, struct armv8_test *t,
			     const struct armv8_pair *pair, unsigned int count)
{
	armv8_unmap_c(test, t, pair, count);
	KUNIT_ASSERT_EQ(test, count * pair->large,
			iommu_unmap(&t->rust.iommu.domain, pair->va,
				    count * pair->large));
	KUNIT_ASSERT_EQ(test, armv8_compare(test, t), 0);
}

/* The item of a leaf or a table */
static u64 *armv8_item(struct armv8_test *t, u64 va, unsigned int level)
{
	unsigned int bits = t->kind->tgsz_lg2 - 3, at = armv8_top_level(t);
	u64 address = GENMASK_ULL(47, t->kind->tgsz_lg2);
	u64 *items = phys_to_virt(t->info.ttb);

	for (;; at--) {
		u64 *item = items + ((va >> (t->kind->tgsz_lg2 + at * bits)) &
				     (BIT(bits) - 1));

		if (at == level)
			return item;
		items = phys_to_virt(*item & address);
	}
}

/* Joins. What was a table may be used until the first flush. */
static void armv8_join_range(struct kunit *test, struct armv8_test *t, u64 va,
			     u64 len)
{
	unsigned long pages = kunit_table_pages();

	t->syncs = 0;
	KUNIT_ASSERT_EQ(test, 0,
			iommu_join(&t->rust.iommu.domain, va, len));
	if (t->syncs)
		KUNIT_EXPECT_EQ(test, t->sync_pages, pages);
	else
		KUNIT_EXPECT_EQ(test, kunit_table_pages(), pages);
}

/* From one large leaf to small ones, and back */
static void armv8_join_whole(struct kunit *test, struct armv8_test *t,
			     const struct armv8_pair *pair, int prot)
{
	unsigned int level = armv8_level(t, pair->large_lg2);
	/* Those of leaves below the large one, and of what leads there */
	u8 below = BIT(level) - 1, tables = below << 1;
	unsigned long before, pages;
	u64 item;

	armv8_map_small(test, t, pair, 1, prot);
	armv8_map_c(test, t, pair->va, pair->oa, pair->large, pair->small,
		    prot);
	KUNIT_ASSERT_EQ(test, armv8_compare(test, t),
			pair->large / pair->small);
	/* As many tables as go here have to go in the join */
	before = kunit_table_pages();
	armv8_unmap_c(test, t, pair, 1);
	pages = kunit_table_pages();

	t->watched = armv8_item(t, pair->va, level);
	t->cleaned = 0;
	armv8_join_range(test, t, pair->va, pair->large);
	KUNIT_EXPECT_EQ(test, pages - kunit_table_pages(), before - pages);
	armv8_flushed(test, t, pair->va, pair->large, true, below, tables);
	/* The leaf is there when that is flushed, for every walker */
	item = *t->watched;
	t->watched = NULL;
	KUNIT_EXPECT_EQ(test, t->sync_item, item);
	KUNIT_EXPECT_EQ(test, t->sync_cleaned,
			armv8_incoherent(t->kind) ? item : 0);

	armv8_map_c(test, t, pair->va, pair->oa, pair->large, pair->large,
		    prot);
	KUNIT_ASSERT_EQ(test, armv8_compare(test, t), 1);
	armv8_unmap_both(test, t, pair, 1);
}

/* Every protection, where that does not take 2^18 leaves */
static void armv8_check_pair(struct kunit *test, struct armv8_test *t,
			     const struct armv8_pair *pair)
{
	int prot;

	if (armv8_level(t, pair->large_lg2) -
		    armv8_level(t, pair->small_lg2) > 1) {
		armv8_join_whole(test, t, pair, armv8_prot);
		return;
	}
	for (prot = 1; prot != 64; prot++)
		if (prot & (IOMMU_READ | IOMMU_WRITE))
			armv8_join_whole(test, t, pair, prot);
}

static void armv8_join_pairs(struct kunit *test)
{
	armv8_each_pair(test, armv8_check_pair);
}

/*
 * Of three that are side by side the one in the middle has something in it that
 * differs. That stays, and all around it is joined.
 */
static void armv8_check_differs(struct kunit *test, struct armv8_test *t,
				const struct armv8_pair *pair)
{
	u64 large = pair->large, va = pair->va, oa = pair->oa;
	struct iommu_domain *domain = &t->rust.iommu.domain;
	const struct {
		u64 off;
		u64 len;
		u64 oa;
		int prot;
	} odd[] = {
		/* The rights of a piece */
		{ large + large / 2, pair->small, oa + large + large / 2,
		  IOMMU_READ | IOMMU_CACHE },
		/* Where it is */
		{ large + large / 2, pair->small, oa, armv8_prot },
		/* Where all of them are, so that they fit into no larger leaf */
		{ large, large, oa + large + pair->small, armv8_prot },
	};
	unsigned int i;

	for (i = 0; i != ARRAY_SIZE(odd); i++) {
		u64 off = odd[i].off, len = odd[i].len, end = off + len;

		armv8_map_small(test, t, pair, 3, armv8_prot);
		KUNIT_ASSERT_EQ(test, len, iommu_unmap(domain, va + off, len));
		KUNIT_ASSERT_EQ(test, 0, iommu_map(domain, va + off, odd[i].oa,
						   len, odd[i].prot,
						   GFP_KERNEL));
		armv8_join_range(test, t, va, 3 * large);
		KUNIT_EXPECT_GT(test, t->syncs, 0);
		armv8_best_c(test, t, va, oa, off, armv8_prot);
		armv8_best_c(test, t, va + off, odd[i].oa, len, odd[i].prot);
		armv8_best_c(test, t, va + end, oa + end, 3 * large - end,
			     armv8_prot);
		armv8_compare(test, t);

		/* Nothing is left to join */
		armv8_join_range(test, t, va, 3 * large);
		KUNIT_EXPECT_EQ(test, t->syncs, 0);
		armv8_compare(test, t);
		armv8_unmap_both(test, t, pair, 3);
	}
}

static void armv8_join_differs(struct kunit *test)
{
	armv8_each_pair(test, armv8_check_differs);
}

/* Nothing grows across an edge of what was asked for */
static void armv8_check_edges(struct kunit *test, struct armv8_test *t,
			      const struct armv8_pair *pair)
{
	u64 small = pair->small, va = pair->va, oa = pair->oa;
	u64 len = 3 * pair->large, last = len - small;

	armv8_map_small(test, t, pair, 3, armv8_prot);
	armv8_join_range(test, t, va + small, last - small);
	KUNIT_EXPECT_GT(test, t->syncs, 0);
	armv8_best_c(test, t, va, oa, small, armv8_prot);
	armv8_best_c(test, t, va + small, oa + small, last - small, armv8_prot);
	armv8_best_c(test, t, va + last, oa + last, small, armv8_prot);
	armv8_compare(test, t);

	/* Whoever asks for all of it gets it */
	armv8_join_range(test, t, va, len);
	KUNIT_EXPECT_GT(test, t->syncs, 0);
	armv8_unmap_c(test, t, pair, 3);
	armv8_map_c(test, t, va, oa, len, pair->large, armv8_prot);
	KUNIT_ASSERT_EQ(test, armv8_compare(test, t), 3);

	/* And what lies in the range in part is no part of a join */
	armv8_join_range(test, t, va + small, last - small);
	KUNIT_EXPECT_EQ(test, t->syncs, 0);
	KUNIT_ASSERT_EQ(test, armv8_compare(test, t), 3);
	armv8_unmap_both(test, t, pair, 3);
}

static void armv8_join_edges(struct kunit *test)
{
	armv8_each_pair(test, armv8_check_edges);
}

#endif
