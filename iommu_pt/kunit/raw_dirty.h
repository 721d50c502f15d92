/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Dirty bits as hardware sets them, in one item of a leaf, and what is reported
 * of them: in the bitmap that user space gets.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_DIRTY_H
#define __IOMMU_PT_RUST_KUNIT_RAW_DIRTY_H

#include <linux/iova_bitmap.h>
#include <linux/uaccess.h>
#include <uapi/linux/mman.h>
#include "raw.h"

#define RAW_RUST(op) CONCATENATE(pt_iommu_, CONCATENATE(PTPFX, op))

/* A read of the dirty bits of a domain, by the function of its format */
struct raw_report {
	struct raw_test *t;
	struct iommu_domain *domain;
	int (*read)(struct iommu_domain *domain, unsigned long iova,
		    size_t size, unsigned long flags,
		    struct iommu_dirty_bitmap *dirty);
	struct iommu_iotlb_gather gather;
	unsigned long flags;
};

static struct raw_report raw_report(struct raw_test *t, unsigned long flags)
{
	return (struct raw_report){
		.t = t,
		.domain = &t->pt.domain,
		.read = RAW_RUST(read_and_clear_dirty),
		.flags = flags,
	};
}

static int raw_read_dirty(struct iova_bitmap *bitmap, unsigned long iova,
			  size_t len, void *arg)
{
	struct raw_report *report = arg;
	struct iommu_dirty_bitmap dirty;

	iommu_dirty_bitmap_init(&dirty, bitmap, &report->gather);
	return report->read(report->domain, iova, len, report->flags, &dirty);
}

/* The call into a bitmap of that memory */
static int raw_read_into(struct raw_report *report, u64 __user *user, u64 va,
			 u64 len, u64 step)
{
	struct iova_bitmap *bitmap;
	int ret;

	bitmap = iova_bitmap_alloc(va, len, step, user);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(report->t->test, bitmap);
	ret = iova_bitmap_for_each(bitmap, report, raw_read_dirty);
	iova_bitmap_free(bitmap);
	return ret;
}

/* The bits for len bytes from va, of step bytes each; none is set elsewhere */
static u64 raw_bitmap(struct raw_report *report, u64 __user *user, u64 va,
		      u64 len, u64 step)
{
	struct raw_test *t = report->t;
	const u64 fill = 0xa5a5a5a5a5a5a5a5;
	u64 bits[3] = { fill, 0, fill };

	KUNIT_ASSERT_EQ(t->test, 0, copy_to_user(user, bits, sizeof(bits)));
	KUNIT_ASSERT_NO_ERRNO(t->test,
			      raw_read_into(report, user + 1, va, len, step));
	KUNIT_ASSERT_EQ(t->test, 0, copy_from_user(bits, user, sizeof(bits)));
	KUNIT_ASSERT_EQ(t->test, bits[0], fill);
	KUNIT_ASSERT_EQ(t->test, bits[2], fill);
	return bits[1];
}

/* The same for four leaves, of which the second may be dirty */
static u64 raw_dirty_bits(struct raw_test *t, u64 __user *user, u64 va,
			  u64 len, u64 step, unsigned long flags)
{
	struct raw_report report = raw_report(t, flags);
	u64 bits = raw_bitmap(&report, user, va, len, step);

	/* The leaf in the middle has to be flushed if it was made clean */
	if (bits && !(flags & IOMMU_DIRTY_NO_CLEAR)) {
		KUNIT_ASSERT_EQ(t->test, report.gather.start, va + len / 4);
		KUNIT_ASSERT_EQ(t->test, report.gather.end,
				va + len / 2 - 1);
	} else {
		KUNIT_ASSERT_GT(t->test, report.gather.start,
				report.gather.end);
	}
	return bits;
}

/*
 * A part of a dirty leaf is reported and leaves it dirty, and so does a bitmap
 * that cannot be written; then there is nothing to flush.
 */
static void raw_dirty_stays(struct raw_test *t, u64 __user *user, u64 va,
			    u64 size, u64 step, u64 *item)
{
	u64 __user *bad = (u64 __user *)((u8 __user *)user + PAGE_SIZE);
	struct raw_report report = raw_report(t, 0);
	unsigned int bits = size / step;
	unsigned int from, to;

	*item |= RAW_DIRTY;
	for (from = 0; from != bits; from++) {
		for (to = from + 1; to <= bits; to++) {
			if (to - from == bits)
				continue;
			KUNIT_ASSERT_EQ(t->test, GENMASK_ULL(to - from - 1, 0),
					raw_bitmap(&report, user,
						   va + from * step,
						   (to - from) * step, step));
			KUNIT_ASSERT_TRUE(t->test, *item & RAW_DIRTY);
			KUNIT_ASSERT_GT(t->test, report.gather.start,
					report.gather.end);
		}
	}
	KUNIT_ASSERT_EQ(t->test, -EFAULT,
			raw_read_into(&report, bad, va, size, step));
	KUNIT_ASSERT_TRUE(t->test, *item & RAW_DIRTY);
	KUNIT_ASSERT_GT(t->test, report.gather.start, report.gather.end);

	KUNIT_ASSERT_EQ(t->test, GENMASK_ULL(bits - 1, 0),
			raw_bitmap(&report, user, va, size, step));
	KUNIT_ASSERT_FALSE(t->test, *item & RAW_DIRTY);
	KUNIT_ASSERT_EQ(t->test, report.gather.start, va);
	KUNIT_ASSERT_EQ(t->test, report.gather.end, va + size - 1);
}

/* After an unmap hardware may set D late, without looking at the item */
static void raw_dirty_empty(struct raw_test *t, u64 __user *user, u64 va,
			    u64 size, u64 step, u64 *item)
{
#ifdef RAW_LATE_DIRTY
	struct raw_report report = raw_report(t, 0);

	KUNIT_ASSERT_EQ(t->test, *item, 0);
	*item = RAW_DIRTY;
	KUNIT_ASSERT_EQ(t->test, 0,
			raw_bitmap(&report, user, va, size, step));
	KUNIT_ASSERT_GT(t->test, report.gather.start, report.gather.end);
	*item = 0;
#endif
}

/* The item for va in the table of that level */
static u64 *raw_item(struct raw_test *t, u64 va, unsigned int wanted)
{
	unsigned int level;
	u64 *table = raw_top(t, &level);

	while (true) {
		u64 *item = &table[((va & t->va_mask) >> raw_item_lg2(level)) %
				   PTRS_PER_PTE];

		if (level-- == wanted)
			return item;
		KUNIT_ASSERT_NE(t->test, *item, 0);
		table = phys_to_virt(raw_table_oa(*item));
	}
}

static void test_dirty_report(struct kunit *test)
{
	const int rw = IOMMU_READ | IOMMU_WRITE;
	struct raw_test *t = test->priv;
	u64 __user *user;
	unsigned int lg2, i;

	if (!RAW_DIRTY) {
		struct raw_report report = raw_report(t, 0);

		raw_map(t, 0, 0, t->pt.smallest_pgsz, rw);
		KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
				raw_read_dirty(NULL, 0, t->pt.smallest_pgsz,
					       &report));
		KUNIT_EXPECT_NULL(test, t->pt.iommu->ops->set_dirty);
		return;
	}
	if (!IS_ENABLED(CONFIG_IOMMUFD_DRIVER))
		kunit_skip(test, "Needs CONFIG_IOMMUFD_DRIVER");
	user = (u64 __user *)kunit_vm_mmap(test, NULL, 0, PAGE_SIZE,
					   PROT_READ | PROT_WRITE,
					   MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NOT_NULL(test, (void __force *)user);

	for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		unsigned int level = raw_level(lg2);
		unsigned int items = BIT(lg2 - raw_item_lg2(level));
		u64 size = BIT_ULL(lg2);
		u64 oa = raw_oa(t, lg2);
		u64 step = max(size / 8, t->pt.smallest_pgsz);
		u64 leaf = GENMASK_ULL(size / step - 1, 0) << size / step;
		u64 va = 4 * size;

		if (va > t->va_mask / 2 || lg2 > 62)
			continue;
		/* Three leaves of the four, the one in the middle is dirty */
		for (i = 0; i != 3; i++)
			raw_map(t, va + i * size, oa - (oa ? size : 0), size,
				rw);
		KUNIT_ASSERT_EQ(test, 0,
				raw_dirty_bits(t, user, va, 4 * size, step,
					       IOMMU_DIRTY_NO_CLEAR));
		for (i = 0; i < items; i += max(1U, items / 3)) {
			u64 at = va + size + i * BIT_ULL(raw_item_lg2(level));

			*raw_item(t, at, level) |= RAW_DIRTY;
			KUNIT_ASSERT_EQ(test, leaf,
					raw_dirty_bits(t, user, va, 4 * size,
						       step,
						       IOMMU_DIRTY_NO_CLEAR));
			KUNIT_ASSERT_TRUE(test, *raw_item(t, at, level) &
							RAW_DIRTY);
			KUNIT_ASSERT_EQ(test, leaf,
					raw_dirty_bits(t, user, va, 4 * size,
						       step, 0));
			raw_check(t);
			KUNIT_ASSERT_EQ(test, 0,
					raw_dirty_bits(t, user, va, 4 * size,
						       step, 0));
		}
		raw_dirty_stays(t, user, va + size, size, step,
				raw_item(t, va + size, level));
		raw_dirty_empty(t, user, va + 3 * size, size, step,
				raw_item(t, va + 3 * size, level));
		raw_unmap(t, va, 3 * size);
		raw_check(t);
		cond_resched();
	}
}

#endif
