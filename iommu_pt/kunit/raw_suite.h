/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The suite <format>_raw_test. Included after the format and its items.
 */
#include "raw_compare.h"
#include "raw_dirty.h"
#include "raw_fixture.h"
#include "raw_join.h"
#include "raw_nomem.h"

/* One leaf of each size and kind, at both ends of the IOVA space */
static void test_items(struct kunit *test)
{
	static const int prots[] = {
		IOMMU_READ,
		IOMMU_WRITE,
		IOMMU_READ | IOMMU_WRITE,
		IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE,
		IOMMU_READ | IOMMU_WRITE | IOMMU_NOEXEC,
		IOMMU_READ | IOMMU_NOEXEC | IOMMU_CACHE,
		IOMMU_READ | IOMMU_WRITE | IOMMU_MMIO,
	};
	struct raw_test *t = test->priv;
	unsigned int lg2, i;

	for (i = 0; i != ARRAY_SIZE(prots); i++) {
		for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
			u64 size = BIT_ULL(lg2);
			u64 high = t->pt.domain.geometry.aperture_end -
				   size + 1;
			u64 oa = raw_oa(t, lg2);

			if (!raw_leaf(t->features, prots[i], oa, lg2,
				      raw_level(lg2))) {
				KUNIT_ASSERT_EQ(test, -EINVAL,
						iommu_map(&t->pt.domain, size,
							  oa, size, prots[i],
							  GFP_KERNEL));
				continue;
			}
			raw_map(t, size, oa, size, prots[i]);
			raw_check(t);
			raw_map(t, high, 0, size, prots[i]);
			raw_check(t);
			raw_unmap(t, size, size);
			raw_check(t);
			raw_unmap(t, high, size);
			raw_check(t);
		}
		cond_resched();
	}
}

/* IOVA that allows large leaves, on output addresses that do not */
static void test_items_unaligned_oa(struct kunit *test)
{
	struct raw_test *t = test->priv;
	unsigned int small, large;

	for_each_set_bit(large, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		for_each_set_bit(small, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
			u64 size = BIT_ULL(large);
			u64 oa = raw_oa(t, large);

			if (small >= large || large - small > 9)
				continue;
			if (oa >= size)
				oa -= size;
			oa += BIT_ULL(small);
			raw_map(t, size, oa, size, IOMMU_READ | IOMMU_WRITE);
			raw_check(t);
			raw_unmap(t, size, size);
			/* Sizes in ascending and descending order */
			raw_map(t, size + BIT_ULL(small), oa,
				size - BIT_ULL(small),
				IOMMU_READ | IOMMU_WRITE);
			raw_check(t);
			raw_unmap(t, size + BIT_ULL(small),
				  size - BIT_ULL(small));
			raw_check(t);
		}
		cond_resched();
	}
}

static struct kunit_case raw_cases[] = {
	RAW_CASE(test_items),
	RAW_CASE(test_items_unaligned_oa),
	RAW_CASE(test_flush_map),
	RAW_CASE(test_flush_split),
	RAW_CASE(test_join),
	RAW_CASE(test_free_unmap),
	RAW_CASE(test_free_two_ranges),
	RAW_CASE(test_free_queued),
	RAW_CASE(test_free_map),
	RAW_CASE(test_dirty_report),
	RAW_CASE(test_nomem_map),
	RAW_CASE(test_nomem_top),
	RAW_CASE(test_nomem_split),
	RAW_CASE(test_compare),
	{},
};

static struct kunit_suite NS(raw_suite) = {
	.name = __stringify(NS(raw_test)),
	.init = raw_init,
	.exit = raw_exit,
	.test_cases = raw_cases,
};

kunit_test_suites(&NS(raw_suite));
