/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Each allocation of a call fails once: nothing has changed then and nothing
 * is lost, and the next try does all of it.
 */

struct raw_call {
	/* What is there before, and what the call maps or splits */
	u64 before_va, before_oa, before_len;
	u64 va, oa, len;
	bool split;
	bool top;
	unsigned int tables; /* that it has to allocate */
};

static int raw_do(struct raw_test *t, const struct raw_call *call)
{
	if (call->split)
		return iommu_split(&t->pt.domain, call->va, call->len,
				   GFP_KERNEL);
	return iommu_map(&t->pt.domain, call->va, call->oa, call->len,
			 IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
}

/* Some other table above the same items, and what is to be split */
static void raw_before(struct raw_test *t, const struct raw_call *call)
{
	raw_init_table(t);
	raw_map(t, call->before_va, call->before_oa, call->before_len,
		IOMMU_READ | IOMMU_WRITE);
	raw_check(t);
}

static void raw_want_after(struct raw_test *t, const struct raw_call *call)
{
	const int prot = IOMMU_READ | IOMMU_WRITE;
	u64 off = call->va - call->before_va;

	if (!call->split) {
		raw_want(t, call->va, call->oa, call->len, prot);
		return;
	}
	t->wants = 0;
	raw_want(t, call->before_va, call->before_oa, off, prot);
	raw_want(t, call->va, call->before_oa + off, call->len, prot);
	off += call->len;
	raw_want(t, call->before_va + off, call->before_oa + off,
		 call->before_len - off, prot);
}

static void raw_nomem(struct raw_test *t, const struct raw_call *call,
		      bool start)
{
	unsigned int *fail = start ? &t->fail_start : &t->fail_alloc;
	struct kunit *test = t->test;
	unsigned int nth, tables;
	int ret;

	raw_deinit_table(t);
	for (nth = 1;; nth++) {
		raw_before(t, call);
		tables = t->tables;
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
		KUNIT_ASSERT_EQ(test, t->tables, tables + call->tables);
		raw_deinit_table(t);
	}
	*fail = 0;
	KUNIT_ASSERT_NO_ERRNO(test, ret);
	raw_want_after(t, call);
	raw_check(t);
	KUNIT_ASSERT_EQ(test, t->tables, tables + call->tables);
	KUNIT_ASSERT_EQ_MSG(test, nth - 1, call->tables,
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

static void test_nomem_split(struct kunit *test)
{
	struct raw_test *t = test->priv;
	u64 page = t->pt.smallest_pgsz;
	unsigned int lg2;

	for_each_set_bit(lg2, &t->pt.domain.pgsize_bitmap, BITS_PER_LONG) {
		unsigned int level = raw_level(lg2);
		u64 size = BIT_ULL(lg2);
		struct raw_call call = {
			.before_va = 2 * size,
			.before_oa = raw_oa(t, lg2) & ~size,
			.before_len = size,
			.split = true,
		};

		if (!level || 4 * size - 1 > t->va_mask / 2)
			continue;
		/* Both edges in the same smallest table */
		call.va = call.before_va + size / 2 + page;
		call.len = page;
		call.tables = level;
		raw_nomem(t, &call, false);
		/* In tables of their own, below one or (contiguous) two items */
		call.va = call.before_va + page;
		call.len = size - 2 * page;
		call.tables = 2 * level - (lg2 == raw_item_lg2(level));
		raw_nomem(t, &call, false);
		/* In two leaves */
		call.before_len = 2 * size;
		call.va = call.before_va + page;
		call.len = 2 * size - 2 * page;
		call.tables = 2 * level;
		if (raw_best_lg2(t, call.before_va,
				 call.before_va + call.before_len - 1,
				 call.before_oa) == lg2)
			raw_nomem(t, &call, false);
		cond_resched();
	}
}
