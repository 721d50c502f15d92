/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A table is freed once, with the flush of the IOTLB that covers it, after the
 * walker cannot get to it any more.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_FREE_H
#define __IOMMU_PT_RUST_KUNIT_RAW_FREE_H

#include "raw.h"

static void raw_see_table(struct raw_test *t, u64 *table, unsigned int level,
			  u64 va)
{
	unsigned int i;

	for (i = 0; i != PTRS_PER_PTE; i++) {
		u64 item = READ_ONCE(table[i]);
		u64 last = va + BIT_ULL(raw_item_lg2(level)) - 1;

		if (item && !raw_is_leaf(item, level)) {
			void *child = phys_to_virt(raw_table_oa(item));

			KUNIT_ASSERT_LT(t->test, t->num_seen, RAW_MAX_TABLES);
			t->seen[t->num_seen++] = (struct raw_seen){
				.table = child,
				.va = va,
				.last = last,
				.level = level,
			};
			raw_see_table(t, child, level - 1, va);
		}
		va = last + 1;
	}
}

/* Notes all tables that there are, to follow them from now on */
static void raw_watch_frees(struct raw_test *t)
{
	unsigned int level;
	u64 *top = raw_top(t, &level);

	t->num_seen = 0;
	raw_see_table(t, top, level, 0);
	t->watch_frees = true;
	t->syncs = 0;
}

static bool raw_reaches(u64 *table, unsigned int level, void *wanted)
{
	unsigned int i;

	if (table == wanted)
		return true;
	for (i = 0; i != PTRS_PER_PTE; i++) {
		u64 item = READ_ONCE(table[i]);

		if (item && !raw_is_leaf(item, level) &&
		    raw_reaches(phys_to_virt(raw_table_oa(item)), level - 1,
				wanted))
			return true;
	}
	return false;
}

static bool raw_in_use(struct raw_test *t, void *table)
{
	unsigned int level;
	u64 *top = raw_top(t, &level);

	return raw_reaches(top, level, table);
}

static void raw_check_frees(struct raw_test *t,
			    struct iommu_iotlb_gather *gather)
{
	struct kunit *test = t->test;
	unsigned int levels = 0;
	struct ioptdesc *desc;
	unsigned int i;

	if (!t->watch_frees)
		return;
	list_for_each_entry(desc, &gather->freelist.pages, iopt_freelist_elm) {
		void *table = folio_address(ioptdesc_folio(desc));
		struct raw_seen *seen = NULL;

		for (i = 0; i != t->num_seen; i++)
			if (t->seen[i].table == table)
				seen = &t->seen[i];
		KUNIT_EXPECT_NOT_NULL(test, seen);
		if (!seen)
			continue;
		KUNIT_EXPECT_FALSE(test, seen->freed);
		seen->freed = true;
		levels |= BIT(seen->level);
		KUNIT_EXPECT_FALSE_MSG(test, raw_in_use(t, table),
				       "freed while in use: va %llx level %u",
				       seen->va, seen->level - 1);
		if (gather->queued)
			continue;
		KUNIT_EXPECT_GE_MSG(test, seen->va, t->sync_start,
				    "freed by another flush");
		KUNIT_EXPECT_LE_MSG(test, seen->last, t->sync_last,
				    "freed by another flush");
	}
	if (t->features & BIT(PT_FEAT_DETAILED_GATHER))
		KUNIT_EXPECT_EQ(test, gather->pt.table_levels_bitmap, levels);
}

/* Each of the tables was freed, or is where it was. Returns how many were. */
static unsigned int raw_freed(struct raw_test *t)
{
	unsigned int i, freed = 0;

	t->watch_frees = false;
	for (i = 0; i != t->num_seen; i++) {
		KUNIT_EXPECT_NE_MSG(t->test, t->seen[i].freed,
				    raw_in_use(t, t->seen[i].table),
				    "va %llx level %u", t->seen[i].va,
				    t->seen[i].level - 1);
		freed += t->seen[i].freed;
	}
	return freed;
}

/* Two tables of smallest leaves */
static void raw_map_tables(struct raw_test *t, u64 va)
{
	u64 len = 2 * BIT_ULL(raw_item_lg2(1));
	u64 oa = raw_oa(t, raw_item_lg2(1)) - 2 * len;

	raw_map(t, va, oa + t->pt.smallest_pgsz, len, IOMMU_READ | IOMMU_WRITE);
}

static void test_free_unmap(struct kunit *test)
{
	struct raw_test *t = test->priv;
	u64 large = BIT_ULL(raw_item_lg2(1));
	u64 page = t->pt.smallest_pgsz;

	raw_map_tables(t, 2 * large);
	raw_watch_frees(t);
	raw_unmap(t, 2 * large, 2 * large);
	KUNIT_EXPECT_EQ(test, t->syncs, 1);
	KUNIT_EXPECT_EQ(test, t->sync_start, 2 * large);
	KUNIT_EXPECT_EQ(test, t->sync_last, 4 * large - 1);
	KUNIT_EXPECT_EQ(test, raw_freed(t), 2);
	raw_check(t);

	/* Tables that are in use in part stay */
	raw_map_tables(t, 2 * large);
	raw_watch_frees(t);
	raw_unmap(t, 2 * large, 2 * large - page);
	KUNIT_EXPECT_EQ(test, t->syncs, 1);
	KUNIT_EXPECT_EQ(test, raw_freed(t), 1);
	raw_check(t);
}

static void raw_unmap_two(struct raw_test *t, struct iommu_iotlb_gather *gather)
{
	u64 large = BIT_ULL(raw_item_lg2(1));

	raw_map_tables(t, 2 * large);
	raw_map_tables(t, 8 * large);
	raw_watch_frees(t);
	KUNIT_ASSERT_EQ(t->test, 2 * large,
			iommu_unmap_fast(&t->pt.domain, 2 * large, 2 * large,
					 gather));
	KUNIT_ASSERT_EQ(t->test, t->syncs, 0);
	KUNIT_ASSERT_EQ(t->test, 2 * large,
			iommu_unmap_fast(&t->pt.domain, 8 * large, 2 * large,
					 gather));
	t->wants = 0;
}

static void test_free_two_ranges(struct kunit *test)
{
	struct raw_test *t = test->priv;
	bool gaps = !(t->features & BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS));
	struct iommu_iotlb_gather gather;

	iommu_iotlb_gather_init(&gather);
	raw_unmap_two(t, &gather);
	KUNIT_EXPECT_EQ(test, t->syncs, gaps ? 0 : 1);
	iommu_iotlb_sync(&t->pt.domain, &gather);
	KUNIT_EXPECT_EQ(test, raw_freed(t), 4);
	raw_check(t);
}

/* The flush is a later one, of everything */
static void test_free_queued(struct kunit *test)
{
	struct raw_test *t = test->priv;
	struct iommu_iotlb_gather gather;

	iommu_iotlb_gather_init(&gather);
	gather.queued = true;
	raw_unmap_two(t, &gather);
	KUNIT_EXPECT_EQ(test, t->syncs, 0);
	KUNIT_EXPECT_EQ(test, raw_pages(t), t->num_seen + 1);
	t->pt.domain.ops->iotlb_sync(&t->pt.domain, &gather);
	KUNIT_EXPECT_EQ(test, raw_freed(t), 4);
	raw_check(t);
}

/* Empty tables in the way of a large leaf */
static void test_free_map(struct kunit *test)
{
	struct raw_test *t = test->priv;
	u64 page = t->pt.smallest_pgsz;
	unsigned int lg2;

	for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		unsigned int level = raw_level(lg2);
		u64 size = BIT_ULL(lg2);
		unsigned int tables;
		u64 va;

		if (!level)
			continue;
		/* Two small leaves below the first item and the last */
		for (va = size; va <= 2 * size - page; va += size - page) {
			raw_map(t, va, 0, page, IOMMU_READ | IOMMU_WRITE);
			raw_unmap(t, va, page);
		}
		tables = 2 * level - (lg2 == raw_item_lg2(level));
		raw_watch_frees(t);
		raw_map(t, size, raw_oa(t, lg2), size,
			IOMMU_READ | IOMMU_WRITE);
		KUNIT_EXPECT_GE(test, t->syncs, 1);
		KUNIT_EXPECT_EQ_MSG(test, raw_freed(t), tables, "size 2^%u",
				    lg2);
		raw_check(t);
		raw_unmap(t, size, size);
		raw_check(t);
	}
}

#endif
