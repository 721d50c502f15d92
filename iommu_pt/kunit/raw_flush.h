/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An incoherent walker: it has in reach what was flushed from the caches.
 * Caches may write an item back earlier, so until it is flushed the walker may
 * read either value.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_FLUSH_H
#define __IOMMU_PT_RUST_KUNIT_RAW_FLUSH_H

#include "raw.h"

static void raw_flushed(struct raw_test *t, void *table, size_t offset,
			size_t len)
{
	unsigned long index = (unsigned long)table / SZ_4K;
	void *page = xa_load(&t->memory, index);

	t->flushes++;
	KUNIT_EXPECT_LE(t->test, offset + len, SZ_4K);
	if (!page) {
		/* A table that was never flushed as a whole holds anything */
		KUNIT_EXPECT_EQ(t->test, len, SZ_4K);
		page = kmalloc(SZ_4K, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(t->test, page);
		xa_store(&t->memory, index, page, GFP_KERNEL);
	}
	memcpy(page + offset, table + offset, len);
}

/* Follows every pair of a cached and a flushed item from here on */
static void raw_probe_table(struct raw_test *t, u64 *table, unsigned int level,
			    const struct raw_probe *probe)
{
	u64 *page = xa_load(&t->memory, (unsigned long)table / SZ_4K);
	unsigned int lg2 = raw_item_lg2(level);
	unsigned int index = (probe->va >> lg2) % PTRS_PER_PTE;
	u64 items[2];
	unsigned int i;

	KUNIT_EXPECT_NOT_NULL_MSG(t->test, page, "va %llx level %u: not flushed",
				  probe->va, level);
	if (!page)
		return;
	items[0] = READ_ONCE(table[index]);
	items[1] = page[index];
	for (i = 0; i != 2 && (!i || items[0] != items[1]); i++) {
		/* The address field is the same in leaves of these formats */
		u64 oa = raw_table_oa(items[i]);

		if (!items[i])
			KUNIT_EXPECT_FALSE_MSG(t->test, probe->always,
					       "va %llx level %u: fault",
					       probe->va, level);
		else if (raw_is_leaf(items[i], level))
			KUNIT_EXPECT_EQ(t->test, probe->oa,
					oa | (probe->va & (BIT_ULL(lg2) - 1)));
		else
			raw_probe_table(t, phys_to_virt(oa), level - 1, probe);
	}
}

static void raw_probe_all(struct raw_test *t)
{
	unsigned int level, i;
	u64 *top = raw_top(t, &level);

	for (i = 0; i != t->num_probes; i++)
		raw_probe_table(t, top, level, &t->probes[i]);
}

static void raw_add_probe(struct raw_test *t, u64 va, u64 oa, bool always)
{
	KUNIT_ASSERT_LT(t->test, t->num_probes, RAW_MAX_PROBES);
	t->probes[t->num_probes++] = (struct raw_probe){
		.va = va & t->va_mask,
		.oa = oa,
		.always = always,
	};
}

static void raw_check_flushed(struct raw_test *t, u64 *table,
			      unsigned int level)
{
	u64 *page = xa_load(&t->memory, (unsigned long)table / SZ_4K);
	unsigned int i;

	KUNIT_EXPECT_NOT_NULL(t->test, page);
	if (!page)
		return;
	for (i = 0; i != PTRS_PER_PTE; i++) {
		u64 item = READ_ONCE(table[i]);

		if (!item || raw_is_leaf(item, level)) {
			KUNIT_EXPECT_EQ_MSG(t->test, page[i], item,
					    "level %u item %u: not flushed",
					    level, i);
			continue;
		}
		/* The bit that says so is set after the flush */
		KUNIT_EXPECT_EQ_MSG(t->test, page[i] | RAW_CLEANED, item,
				    "level %u item %u: not flushed", level, i);
		raw_check_flushed(t, phys_to_virt(raw_table_oa(item)),
				  level - 1);
	}
}

/* Nothing unflushed is left in the caches: the walker sees what the CPU sees */
static void raw_check_memory(struct raw_test *t)
{
	unsigned int level;
	u64 *top = raw_top(t, &level);

	if (raw_incoherent(t) && t->test->status == KUNIT_SUCCESS)
		raw_check_flushed(t, top, level);
}

static void test_flush_map(struct kunit *test)
{
	struct raw_test *t = test->priv;
	u64 large = BIT_ULL(raw_item_lg2(1));
	u64 page = t->pt.smallest_pgsz;
	u64 va = 4 * large - page;
	u64 oa = raw_oa(t, raw_item_lg2(1)) - 4 * large;
	unsigned int i;

	/* Small leaves in a table and its neighbours, then large ones */
	for (i = 0; i != 2; i++) {
		u64 at = i ? 8 * large : va;
		u64 len = i ? 2 * large : 2 * large + 2 * page;

		t->num_probes = 0;
		raw_add_probe(t, at, oa, false);
		raw_add_probe(t, at + page, oa + page, false);
		raw_add_probe(t, at + large, oa + large, false);
		raw_add_probe(t, at + len - 1, oa + len - 1, false);
		raw_map(t, at, oa, len, IOMMU_READ | IOMMU_WRITE);
		raw_check(t);
		raw_check_memory(t);
	}
	/* These stay mapped while something else is unmapped */
	for (i = 0; i != t->num_probes; i++)
		t->probes[i].always = true;
	raw_unmap(t, va + page, 2 * large);
	raw_check(t);
	raw_check_memory(t);
	t->num_probes = 0;
	raw_unmap(t, va, page);
	raw_unmap(t, va + page + 2 * large, page);
	raw_unmap(t, 8 * large, 2 * large);
	raw_check(t);
	raw_check_memory(t);
	/* In place of the table that is empty now */
	raw_map(t, 3 * large, oa, large, IOMMU_READ | IOMMU_WRITE);
	raw_check(t);
	raw_check_memory(t);
	if (raw_incoherent(t))
		KUNIT_EXPECT_GT(test, t->flushes, 0);
}

static void raw_flush_cut(struct raw_test *t, bool carve)
{
	struct kunit *test = t->test;
	unsigned int lg2, i;

	for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		u64 page = t->pt.smallest_pgsz;
		u64 size = BIT_ULL(lg2);
		u64 oa = raw_oa(t, lg2);
		u64 off = size / 2 + page;

		if (lg2 == t->pt.smallest_pgsz_lg2)
			continue;
		raw_map(t, size, oa, size, IOMMU_READ | IOMMU_WRITE);
		t->num_probes = 0;
		for (i = 0; i != 8; i++) {
			if (i * size / 8 - off < page)
				continue;
			raw_add_probe(t, size + i * size / 8, oa + i * size / 8,
				      true);
		}
		raw_add_probe(t, size + off - 1, oa + off - 1, true);
		raw_add_probe(t, size + off, oa + off, !carve);
		raw_add_probe(t, size + off + page, oa + off + page, true);
		raw_add_probe(t, 2 * size - 1, oa + size - 1, true);
		t->flushes = 0;
		KUNIT_ASSERT_NO_ERRNO(test,
				      raw_cut(t, size + off, page, carve));
		KUNIT_EXPECT_GT(test, t->flushes, 0);
		t->wants = 0;
		raw_want(t, size, oa, off, IOMMU_READ | IOMMU_WRITE);
		if (!carve)
			raw_want(t, size + off, oa + off, page,
				 IOMMU_READ | IOMMU_WRITE);
		raw_want(t, size + off + page, oa + off + page,
			 size - off - page, IOMMU_READ | IOMMU_WRITE);
		raw_check(t);
		raw_check_memory(t);
		t->num_probes = 0;
		if (carve) {
			raw_unmap(t, size, off);
			raw_unmap(t, size + off + page, size - off - page);
		} else {
			raw_unmap(t, size, size);
		}
		raw_check(t);
		raw_check_memory(t);
	}
}

static void test_flush_split(struct kunit *test)
{
	struct raw_test *t = test->priv;

	if (!raw_incoherent(t))
		kunit_skip(test, "For incoherent walkers");
	raw_flush_cut(t, false);
	raw_flush_cut(t, true);
}

#endif
