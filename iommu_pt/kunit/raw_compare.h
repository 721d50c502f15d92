/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The same calls on this table and on the C one (CONFIG_IOMMU_PT_RUST_COMPARE):
 * item by item the two have to be equal, but for where tables lie, and so has
 * what is gathered.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_COMPARE_H
#define __IOMMU_PT_RUST_KUNIT_RAW_COMPARE_H

#include <linux/prandom.h>
#include "raw_dirty.h"

#ifndef RAW_NO_COMPARE_FEATURES
#define RAW_NO_COMPARE_FEATURES 0
#endif

#if IS_ENABLED(CONFIG_IOMMU_PT_RUST_COMPARE) && !defined(RAW_NO_COMPARE)
#define RAW_C(op) \
	CONCATENATE(pt_iommu_, CONCATENATE(PTPFX_RAW, CONCATENATE(_c_, op)))

struct raw_c {
	union {
		struct iommu_domain domain;
		struct pt_iommu_table table;
	};
	spinlock_t top_lock; /* of a top that grows */
	unsigned int syncs;

	/* Bitmaps: a page with nothing behind it, and what the two gave */
	u8 __user *user;
	u8 *bytes;
	unsigned int dirty_reads;
	unsigned int faults;
};

PT_IOMMU_CHECK_DOMAIN(struct raw_c, table.iommu, domain);

static spinlock_t *raw_c_top_lock(struct pt_iommu *iommu)
{
	return &container_of(iommu, struct raw_c, table.iommu)->top_lock;
}

static const struct pt_iommu_driver_ops raw_c_driver_ops = {
	.change_top = pt_kunit_change_top,
	.get_top_lock = raw_c_top_lock,
};

static void raw_c_iotlb_sync(struct iommu_domain *domain,
			     struct iommu_iotlb_gather *gather)
{
	container_of(domain, struct raw_c, domain)->syncs++;
	iommu_put_pages_list(&gather->freelist);
}

static const struct iommu_domain_ops raw_c_domain_ops = {
	.iova_to_phys = RAW_C(iova_to_phys),
	.iotlb_sync = raw_c_iotlb_sync,
};

static void raw_same_table(struct kunit *test, u64 *rust, u64 *c,
			   unsigned int level, u64 va)
{
	unsigned int i;

	for (i = 0; i != PTRS_PER_PTE; i++) {
		u64 left = rust[i], right = c[i];
		u64 rust_oa = raw_table_oa(left), c_oa = raw_table_oa(right);

		if (left && !raw_is_leaf(left, level)) {
			KUNIT_ASSERT_NE_MSG(test, right, 0, "va %llx level %u",
					    va, level);
			KUNIT_ASSERT_FALSE(test, raw_is_leaf(right, level));
			raw_same_table(test, phys_to_virt(rust_oa),
				       phys_to_virt(c_oa), level - 1, va);
			/* All but the address */
			left ^= raw_table(0, rust_oa, level);
			right ^= raw_table(0, c_oa, level);
		}
		if (left != right)
			KUNIT_FAIL_AND_ABORT(test,
					     "va %llx level %u: %llx, C %llx",
					     va, level, left, right);
		va += BIT_ULL(raw_item_lg2(level));
	}
}

static u64 *raw_c_top(struct raw_c *c)
{
	uintptr_t c_top = common_from_iommu(&c->table.iommu)->top_of_table;

	return (u64 *)(c_top & ~(uintptr_t)PT_TOP_LEVEL_MASK);
}

static void raw_same(struct raw_test *t, struct raw_c *c)
{
	uintptr_t c_top = common_from_iommu(&c->table.iommu)->top_of_table;
	unsigned int level;
	u64 *top = raw_top(t, &level);

	KUNIT_ASSERT_EQ(t->test, level, c_top & PT_TOP_LEVEL_MASK);
	raw_same_table(t->test, top, raw_c_top(c), level, 0);
}

static void raw_same_unmap(struct raw_test *t, struct raw_c *c, u64 va, u64 len)
{
	struct iommu_iotlb_gather left, right;
	size_t bytes;

	iommu_iotlb_gather_init(&left);
	iommu_iotlb_gather_init(&right);
	bytes = iommu_unmap_fast(&t->pt.domain, va, len, &left);
	KUNIT_ASSERT_EQ(t->test, bytes,
			iommu_unmap_fast(&c->domain, va, len, &right));
	if (!bytes) {
		/* C gathers an empty range here, which is none or all */
		KUNIT_ASSERT_TRUE(t->test, list_empty(&left.freelist.pages));
		KUNIT_ASSERT_TRUE(t->test, list_empty(&right.freelist.pages));
		return;
	}
	KUNIT_ASSERT_EQ(t->test, left.start, right.start);
	KUNIT_ASSERT_EQ(t->test, left.end, right.end);
	KUNIT_ASSERT_EQ(t->test, list_count_nodes(&left.freelist.pages),
			list_count_nodes(&right.freelist.pages));
	KUNIT_ASSERT_EQ(t->test, left.pt.leaf_levels_bitmap,
			right.pt.leaf_levels_bitmap);
	KUNIT_ASSERT_EQ(t->test, left.pt.table_levels_bitmap,
			right.pt.table_levels_bitmap);
	iommu_iotlb_sync(&t->pt.domain, &left);
	iommu_iotlb_sync(&c->domain, &right);
}

/* A random number below 2^lg2 */
static u64 raw_random(struct rnd_state *rnd, unsigned int lg2)
{
	u64 value = (u64)prandom_u32_state(rnd) << 32 | prandom_u32_state(rnd);

	return lg2 > 63 ? value : value & (BIT_ULL(lg2) - 1);
}

/* Sets the dirty bit of some leaves, in both the same */
static void raw_same_write(struct rnd_state *rnd, u64 *rust, u64 *c,
			   unsigned int level)
{
	unsigned int i;

	for (i = 0; i != PTRS_PER_PTE; i++) {
		if (!rust[i])
			continue;
		if (!raw_is_leaf(rust[i], level)) {
			raw_same_write(rnd, phys_to_virt(raw_table_oa(rust[i])),
				       phys_to_virt(raw_table_oa(c[i])),
				       level - 1);
		} else if (raw_random(rnd, 2) == 0) {
			rust[i] |= RAW_DIRTY;
			c[i] |= RAW_DIRTY;
		}
	}
}

/* The call, and all of the page that the bitmap is in */
static int raw_read_page(struct raw_report *report, struct raw_c *c,
			 u8 __user *bytes, u64 va, u64 len, u8 *page)
{
	struct kunit *test = report->t->test;
	int ret;

	memset(page, 0, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, copy_to_user(c->user, page, PAGE_SIZE));
	ret = raw_read_into(report, (u64 __user *)bytes, va, len,
			    report->t->pt.smallest_pgsz);
	KUNIT_ASSERT_EQ(test, 0, copy_from_user(page, c->user, PAGE_SIZE));
	return ret;
}

/* The call on both. What is in front of the bitmap must stay as well */
static int raw_same_read(struct raw_test *t, struct raw_c *c,
			 u8 __user *bytes, u64 va, u64 len, unsigned long flags)
{
	struct raw_report left = raw_report(t, flags);
	struct raw_report right = {
		.t = t,
		.domain = &c->domain,
		.read = RAW_C(read_and_clear_dirty),
		.flags = flags,
	};
	int ret;

	ret = raw_read_page(&left, c, bytes, va, len, c->bytes);
	KUNIT_ASSERT_EQ(t->test, ret,
			raw_read_page(&right, c, bytes, va, len,
				      c->bytes + PAGE_SIZE));
	if (!ret) {
		KUNIT_ASSERT_MEMEQ(t->test, c->bytes, c->bytes + PAGE_SIZE,
				   PAGE_SIZE);
		KUNIT_ASSERT_EQ(t->test, left.gather.start, right.gather.start);
		KUNIT_ASSERT_EQ(t->test, left.gather.end, right.gather.end);
	}
	return ret;
}

/* A leaf that is dirty in one of them gets dirty in both */
static void raw_same_again(u64 *rust, u64 *c, unsigned int level)
{
	unsigned int i;

	for (i = 0; i != PTRS_PER_PTE; i++) {
		if (rust[i] && !raw_is_leaf(rust[i], level))
			raw_same_again(phys_to_virt(raw_table_oa(rust[i])),
				       phys_to_virt(raw_table_oa(c[i])),
				       level - 1);
		else if ((rust[i] ^ c[i]) == RAW_DIRTY)
			rust[i] = c[i] |= RAW_DIRTY;
	}
}

/* Reads of any part report, clear and flush the same, and fail alike */
static void raw_same_dirty(struct raw_test *t, struct raw_c *c,
			   struct rnd_state *rnd, u64 va, u64 len)
{
	u64 step = t->pt.smallest_pgsz;
	unsigned long flags = raw_random(rnd, 1) ? IOMMU_DIRTY_NO_CLEAR : 0;
	unsigned int level, bytes, room;
	u8 __user *end = c->user + PAGE_SIZE;
	u64 *top = raw_top(t, &level);
	int ret;

	va += raw_random(rnd, 4) * step;
	len = div64_u64((1 + raw_random(rnd, 3)) * len,
			(1 + raw_random(rnd, 3)) * step);
	/* As much as there is a bitmap for */
	len = clamp(len, 1, PAGE_SIZE * BITS_PER_BYTE);
	raw_same_write(rnd, top, raw_c_top(c), level);
	bytes = DIV_ROUND_UP((unsigned int)len, BITS_PER_BYTE);
	room = raw_random(rnd, 1) ? bytes : raw_random(rnd, 30) % bytes;
	ret = raw_same_read(t, c, end - room, va, len * step, flags);
	if (ret == -EFAULT) {
		KUNIT_ASSERT_LT(t->test, room, bytes);
		/* After an error it does not matter how much is clean */
		raw_same_again(top, raw_c_top(c), level);
	}
	c->faults += ret == -EFAULT;
	c->dirty_reads += !ret;
}

static void raw_compare(struct raw_test *t, struct raw_c *c, unsigned int calls)
{
	unsigned int page_lg2 = t->pt.smallest_pgsz_lg2;
	struct rnd_state rnd;
	unsigned int mapped = 0;

	prandom_seed_state(&rnd, 0x5eed);
	while (calls--) {
		/* In and around 16 items of level 1, or of level 2 */
		unsigned int level = 1 + raw_random(&rnd, 2) / 3;
		u64 room = 16 * BIT_ULL(raw_item_lg2(level));
		unsigned int lg2 = page_lg2 + prandom_u32_state(&rnd) %
			(raw_item_lg2(level) + 2 - page_lg2);
		u64 mask = BIT_ULL(lg2) - 1;
		u64 va = raw_random(&rnd, 63) % room & ~mask;
		u64 oa = (va + (raw_random(&rnd, 1) ? 0 : room)) & ~mask;
		u64 len = (1 + raw_random(&rnd, 2)) << lg2;
		int prot = 1 + prandom_u32_state(&rnd) % 31;
		int left, right;

		if (!(prot & (IOMMU_READ | IOMMU_WRITE)))
			prot |= IOMMU_READ;
		if (level == 1 && raw_random(&rnd, 3) == 0)
			oa += t->pt.smallest_pgsz;
		if (raw_random(&rnd, 3) < 3) {
			raw_same_unmap(t, c, va, len);
		} else {
			left = iommu_map(&t->pt.domain, va, oa, len, prot,
					 GFP_KERNEL);
			right = iommu_map(&c->domain, va, oa, len, prot,
					  GFP_KERNEL);
			KUNIT_ASSERT_EQ(t->test, left, right);
			mapped += !left;
		}
		raw_same(t, c);
		if (c->user && mapped) {
			raw_same_dirty(t, c, &rnd, va, len);
			raw_same(t, c);
		}
		cond_resched();
	}
	KUNIT_EXPECT_GT(t->test, mapped, 0);
	KUNIT_EXPECT_EQ(t->test, t->syncs, c->syncs);
	if (c->user) {
		KUNIT_EXPECT_GT(t->test, c->dirty_reads, 50);
		KUNIT_EXPECT_GT(t->test, c->faults, 10);
	}
}

static void raw_c_deinit(void *c)
{
	pt_iommu_deinit(&((struct raw_c *)c)->table.iommu);
}

static void test_compare(struct kunit *test)
{
	struct raw_test *t = test->priv;
	unsigned long addr;
	struct raw_c *c;

	if (t->features & RAW_NO_COMPARE_FEATURES)
		kunit_skip(test, "Not in the C format");
	c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, c);
	spin_lock_init(&c->top_lock);
	c->table.iommu.nid = NUMA_NO_NODE;
	c->table.iommu.driver_ops = &raw_c_driver_ops;
	c->table.iommu.iommu_device = t->pt.dummy_dev;
	c->domain.ops = &raw_c_domain_ops;
	KUNIT_ASSERT_NO_ERRNO(test,
			      RAW_C(init)(&c->table, &t->pt.cfg, GFP_KERNEL));
	KUNIT_ASSERT_NO_ERRNO(test, kunit_add_action_or_reset(test, raw_c_deinit,
							      c));
	/* The C format does not say that it can be split */
	KUNIT_EXPECT_FALSE(test, RAW_C(can_split)());
	KUNIT_EXPECT_NULL(test, c->table.iommu.ops->split_range);
	KUNIT_EXPECT_FALSE(test, iommu_can_split(&c->domain));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			iommu_split(&c->domain, 0, t->pt.smallest_pgsz,
				    GFP_KERNEL));
	/* C sets this one when the first top spans all of it */
	KUNIT_ASSERT_EQ(test, t->pt.common->features & ~BIT(PT_FEAT_FULL_VA),
			common_from_iommu(&c->table.iommu)->features &
				~BIT(PT_FEAT_FULL_VA));
	KUNIT_ASSERT_EQ(test, t->pt.domain.pgsize_bitmap,
			c->domain.pgsize_bitmap);
	/* An incoherent walker sets no dirty bits */
	if (RAW_DIRTY && IS_ENABLED(CONFIG_IOMMUFD_DRIVER) &&
	    !raw_incoherent(t)) {
		addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE,
				     PROT_READ | PROT_WRITE,
				     MAP_ANONYMOUS | MAP_PRIVATE, 0);
		KUNIT_ASSERT_NE(test, addr, 0);
		c->user = (u8 __user *)addr;
		c->bytes = kunit_kzalloc(test, 2 * PAGE_SIZE, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, c->bytes);
	}
	raw_compare(t, c, 500);
	kunit_release_action(test, raw_c_deinit, c);
}
#else
static void test_compare(struct kunit *test)
{
	kunit_skip(test, "There is no C table of this format in this kernel");
}
#endif

#endif
