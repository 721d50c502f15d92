/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A join leaves the table as it was before, in all bits, and an incoherent
 * walker gets to the same place at every moment.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_JOIN_H
#define __IOMMU_PT_RUST_KUNIT_RAW_JOIN_H

#include "raw_dirty.h"
#include "raw_flush.h"

/* A page was taken out of a leaf of 2^lg2, and filled again */
static void raw_join(struct raw_test *t, unsigned int lg2, bool dirty)
{
	const int rw = IOMMU_READ | IOMMU_WRITE;
	u64 page = t->pt.smallest_pgsz;
	u64 size = BIT_ULL(lg2);
	u64 oa = raw_oa(t, lg2);
	u64 off = size / 2 + page * (size > 2 * page);
	struct kunit *test = t->test;
	unsigned int syncs, i;
	unsigned long pages;
	bool tables;

	t->num_probes = 0;
	raw_map(t, size, oa, size, rw);
	raw_check(t);
	KUNIT_ASSERT_NO_ERRNO(test, raw_cut(t, size + off, page, true));
	KUNIT_ASSERT_NO_ERRNO(test, iommu_map(&t->pt.domain, size + off,
					      oa + off, page, rw, GFP_KERNEL));
	pages = raw_pages(t);
	tables = pages != t->tables;
	if (dirty)
		*raw_item(t, size + off, 0) |= RAW_DIRTY;
	for (i = 0; i != 8; i++)
		raw_add_probe(t, size + i * size / 8, oa + i * size / 8, true);
	raw_add_probe(t, size + off - 1, oa + off - 1, true);
	raw_add_probe(t, size + off, oa + off, true);
	raw_add_probe(t, 2 * size - 1, oa + size - 1, true);

	syncs = t->syncs;
	t->flushes = 0;
	KUNIT_ASSERT_NO_ERRNO(test, iommu_join(&t->pt.domain, size, size));
	KUNIT_EXPECT_EQ(test, t->syncs - syncs, tables);
	if (tables) {
		/* Tables are freed after the flush */
		KUNIT_EXPECT_EQ(test, t->sync_pages, pages);
		KUNIT_EXPECT_TRUE(test, t->leaf_to_table);
		KUNIT_EXPECT_LE(test, t->sync_start, size + off);
		KUNIT_EXPECT_GE(test, t->sync_last, size + off + page - 1);
	}
	if (raw_incoherent(t))
		KUNIT_EXPECT_GT(test, t->flushes, 0);
	if (dirty) {
		u64 *item = raw_item(t, size + off, raw_level(lg2));

		KUNIT_EXPECT_TRUE(test, *item & RAW_DIRTY);
		*item &= ~RAW_DIRTY;
	}
	raw_check(t);
	raw_check_memory(t);
	t->num_probes = 0;
	raw_unmap(t, size, size);
	raw_check(t);
}

static void test_join(struct kunit *test)
{
	struct raw_test *t = test->priv;
	unsigned int lg2;

	for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		if (lg2 == t->pt.smallest_pgsz_lg2 ||
		    3 * BIT_ULL(lg2) - 1 > t->va_mask / 2)
			continue;
		raw_join(t, lg2, false);
		if (RAW_DIRTY && !raw_incoherent(t))
			raw_join(t, lg2, true);
		cond_resched();
	}
}

#endif
