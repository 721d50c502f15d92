/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Each allocation of a call fails once: nothing has changed then and nothing
 * is lost, and the next try does all of it.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_NOMEM_H
#define __IOMMU_PT_RUST_KUNIT_RAW_NOMEM_H

#include "raw_fixture.h"

struct raw_call {
	/* What is there before, and what the call maps or splits */
	u64 before_va, before_oa, before_len;
	u64 before_step; /* in calls of this size, so in leaves of their own */
	u64 va, oa, len;
	bool split;
	bool carve; /* unmaps what a split would cut out */
	unsigned int tables; /* that it has to allocate, if it is no split */
};

static int raw_do(struct raw_test *t, const struct raw_call *call)
{
	if (call->split)
		return raw_cut(t, call->va, call->len, call->carve);
	return iommu_map(&t->pt.domain, call->va, call->oa, call->len,
			 IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
}

/* Some other table above the same items, or what is to be split */
static void raw_before(struct raw_test *t, const struct raw_call *call)
{
	u64 at;

	raw_init_table(t);
	for (at = 0; at != call->before_len; at += call->before_step)
		raw_map(t, call->before_va + at, call->before_oa + at,
			call->before_step, IOMMU_READ | IOMMU_WRITE);
	raw_check(t);
}

/* All of what is there before, cut at both edges and where it was before */
static void raw_want_pieces(struct raw_test *t, const struct raw_call *call,
			    u64 low, u64 high)
{
	u64 at = 0;

	t->wants = 0;
	while (at != call->before_len) {
		u64 end = at - at % call->before_step + call->before_step;

		if (at < low)
			end = min(end, low);
		else if (at < high)
			end = min(end, high);
		if (!call->carve || at < low || at >= high)
			raw_want(t, call->before_va + at, call->before_oa + at,
				 end - at, IOMMU_READ | IOMMU_WRITE);
		at = end;
	}
}

static void raw_want_after(struct raw_test *t, const struct raw_call *call)
{
	u64 off = call->va - call->before_va;

	if (call->split)
		raw_want_pieces(t, call, off, off + call->len);
	else
		raw_want(t, call->va, call->oa, call->len,
			 IOMMU_READ | IOMMU_WRITE);
}

/* The fewest tables that the pieces need, beyond those that are there */
static unsigned int raw_split_tables(struct raw_test *t,
				     const struct raw_call *call)
{
	unsigned int before = raw_count_tables(t);
	unsigned int after;

	raw_want_after(t, call);
	after = raw_count_tables(t);
	raw_want_pieces(t, call, 0, 0);
	return after - before;
}

static void raw_nomem(struct raw_test *t, const struct raw_call *call,
		      bool start)
{
	unsigned int *fail = start ? &t->fail_start : &t->fail_alloc;
	struct kunit *test = t->test;
	unsigned int nth, tables, more;
	int ret;

	raw_deinit_table(t);
	for (nth = 1;; nth++) {
		raw_before(t, call);
		tables = t->tables;
		more = call->tables;
		if (call->split)
			more = raw_split_tables(t, call);
		t->syncs = 0;
		*fail = nth;
		ret = raw_do(t, call);
		if (*fail)
			break;
		KUNIT_ASSERT_EQ_MSG(test, ret, start ? -EIO : -ENOMEM,
				    "allocation %u", nth);
		raw_check(t);
		if (call->split) {
			KUNIT_ASSERT_EQ(test, t->tables, tables);
			KUNIT_ASSERT_EQ(test, t->syncs, 0);
		}
		KUNIT_ASSERT_NO_ERRNO(test, raw_do(t, call));
		raw_want_after(t, call);
		raw_check(t);
		KUNIT_ASSERT_EQ(test, t->tables, tables + more);
		raw_deinit_table(t);
	}
	*fail = 0;
	KUNIT_ASSERT_NO_ERRNO(test, ret);
	raw_want_after(t, call);
	raw_check(t);
	KUNIT_ASSERT_EQ(test, t->tables, tables + more);
	KUNIT_ASSERT_EQ_MSG(test, nth - 1, more,
			    "va %llx len %llx: failures", call->va, call->len);
	if (!start && raw_incoherent(t))
		raw_nomem(t, call, true);
}

static void test_nomem_map(struct kunit *test)
{
	struct raw_test *t = test->priv;
	u64 large = BIT_ULL(raw_item_lg2(1));
	u64 page = t->pt.smallest_pgsz;
	struct raw_call call = {
		.before_len = page,
		.before_step = page,
		.va = BIT_ULL(raw_item_lg2(2)) - large - page,
		.len = page,
		.tables = 1,
	};

	raw_nomem(t, &call, false);
	/* From one table through two and into a fourth, of two above */
	call.len = 2 * large + 2 * page;
	call.oa = page;
	call.tables = 5;
	raw_nomem(t, &call, false);
	/* Large leaves, and others on both sides */
	call.oa = call.va;
	call.tables = raw_best_lg2(t, call.va + page, call.va + call.len - 1,
				   call.va + page) >= raw_item_lg2(1) ? 3 : 5;
	raw_nomem(t, &call, false);
}

static void test_nomem_top(struct kunit *test)
{
	struct raw_test *t = test->priv;
	u64 page = t->pt.smallest_pgsz;
	struct raw_call call = {
		.before_len = page,
		.before_step = page,
		.len = page,
	};
	unsigned int level, top, last;

	if (!(t->features & BIT(PT_FEAT_DYNAMIC_TOP)))
		kunit_skip(test, "The top does not grow");
	raw_top(t, &top);
	last = top;
	while (raw_item_lg2(last + 1) < t->pt.common->max_vasz_lg2)
		last++;
	if (top == last)
		kunit_skip(test, "The top cannot grow");
	for (level = top + 1; level <= last; level++) {
		/* Beyond what the level below serves, in a part of its own */
		call.va = BIT_ULL(raw_item_lg2(level));
		call.tables = level - top + level;
		raw_nomem(t, &call, false);
	}
}

static void raw_nomem_cut(struct raw_test *t, bool carve)
{
	u64 page = t->pt.smallest_pgsz;
	unsigned int lg2;

	for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		unsigned int level = raw_level(lg2);
		u64 size = BIT_ULL(lg2);
		struct raw_call call = {
			.before_va = 2 * size,
			.before_oa = raw_oa(t, lg2) & ~size,
			.before_len = size,
			.before_step = size,
			.split = true,
			.carve = carve,
		};

		if (!level || 4 * size - 1 > t->va_mask / 2)
			continue;
		/* Both edges in the same smallest table */
		call.va = call.before_va + size / 2 + page;
		call.len = page;
		raw_nomem(t, &call, false);
		/* In tables of their own */
		call.va = call.before_va + page;
		call.len = size - 2 * page;
		raw_nomem(t, &call, false);
		/* In two leaves */
		call.before_len = 2 * size;
		call.len = 2 * size - 2 * page;
		raw_nomem(t, &call, false);
		cond_resched();
	}
}

static void test_nomem_split(struct kunit *test)
{
	struct raw_test *t = test->priv;

	raw_nomem_cut(t, false);
	raw_nomem_cut(t, true);
}

#endif
