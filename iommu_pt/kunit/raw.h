/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of one format against its specification: every item of the
 * table, in all bits, has to be what raw_leaf() and raw_table() say. Included
 * after these, which know nothing of the code that is tested.
 */
#include <kunit/static_stub.h>
#include <linux/bitops.h>
#include <linux/mem_encrypt.h>
#include <linux/sort.h>
#include <linux/xarray.h>

#include "../iommu_pt_rust.h"

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("IOMMUFD");

#define RAW_MAX_LEAVES 4096
#define RAW_MAX_TABLES 256
#define RAW_MAX_PROBES 16

/* A leaf that has to be there. Addresses are without the sign extension. */
struct raw_want {
	u64 va;
	u64 last;
	u64 oa;
	u64 ignore; /* bits that may differ */
	unsigned int lg2;
	int prot;
};

struct raw_seen {
	void *table;
	u64 va;
	u64 last;
	unsigned int level; /* of the item that points to it */
	bool freed;
};

/* An address that the device uses, and where it has to get to */
struct raw_probe {
	u64 va;
	u64 oa;
	bool always; /* also while the operation is under way */
};

struct raw_test {
	struct kunit_iommu_priv pt; /* first: kunit_iommu.h takes it for all */
	struct kunit *test;
	unsigned int features;
	u64 va_mask;

	struct raw_want *want;
	unsigned int wants;
	unsigned int next;
	unsigned int tables;

	/* Allocations */
	unsigned int allocs;
	unsigned int fail_alloc; /* which one fails, from 1; 0: none */
	unsigned int fail_start;

	/* Flushes of the IOTLB */
	unsigned int syncs;
	u64 sync_start;
	u64 sync_last;
	bool leaf_to_table;
	struct raw_seen *seen;
	unsigned int num_seen;
	bool watch_frees;

	/* Flushes of caches */
	struct xarray memory; /* what an incoherent walker has in reach */
	unsigned int flushes;
	struct raw_probe probes[RAW_MAX_PROBES];
	unsigned int num_probes;
};

static unsigned int raw_item_lg2(unsigned int level)
{
	return RAW_GRANULE_LG2 + 9 * level;
}

static unsigned int raw_level(unsigned int lg2)
{
	return (lg2 - RAW_GRANULE_LG2) / 9;
}

static u64 *raw_top(struct raw_test *t, unsigned int *level)
{
	uintptr_t top = READ_ONCE(t->pt.common->top_of_table);

	*level = top & PT_TOP_LEVEL_MASK;
	return (u64 *)(top & ~(uintptr_t)PT_TOP_LEVEL_MASK);
}

/* An output address of many bits that leaves of this size may have */
static u64 raw_oa(struct raw_test *t, unsigned int lg2)
{
	return t->pt.test_oa & ~(BIT_ULL(lg2) - 1);
}

static bool raw_incoherent(struct raw_test *t)
{
	return t->features & BIT(PT_FEAT_DMA_INCOHERENT);
}

static unsigned long raw_pages(struct raw_test *t)
{
	return kunit_table_pages() - t->pt.orig_nr_secondary_pagetable;
}

/* The size of the largest leaf at va that may go up to last */
static unsigned int raw_best_lg2(struct raw_test *t, u64 va, u64 last, u64 oa)
{
	unsigned int lg2 = 63;

	while (lg2 && (!(t->pt.domain.pgsize_bitmap & BIT_ULL(lg2)) ||
		       (va | oa) & (BIT_ULL(lg2) - 1) ||
		       last - va < BIT_ULL(lg2) - 1))
		lg2--;
	return lg2;
}

/* All leaves that a mapping of len bytes has to consist of */
static void raw_want(struct raw_test *t, u64 va, u64 oa, u64 len, int prot)
{
	u64 last;

	va &= t->va_mask;
	last = va + len - 1;
	while (true) {
		unsigned int lg2 = raw_best_lg2(t, va, last, oa);
		struct raw_want *want = &t->want[t->wants];

		KUNIT_ASSERT_NE(t->test, lg2, 0);
		KUNIT_ASSERT_LT(t->test, t->wants, RAW_MAX_LEAVES);
		t->wants++;
		*want = (struct raw_want){
			.va = va,
			.last = va + BIT_ULL(lg2) - 1,
			.oa = oa,
			.lg2 = lg2,
			.prot = prot,
		};
		if (want->last == last)
			break;
		va += BIT_ULL(lg2);
		oa += BIT_ULL(lg2);
	}
}

static int raw_want_cmp(const void *a, const void *b)
{
	const struct raw_want *left = a, *right = b;

	return left->va < right->va ? -1 : left->va > right->va;
}

static void raw_check_table(struct raw_test *t, u64 *table, unsigned int level,
			    u64 va)
{
	struct kunit *test = t->test;
	unsigned int i;

	t->tables++;
	for (i = 0; i != PTRS_PER_PTE; i++) {
		u64 item = READ_ONCE(table[i]);
		u64 last = va + BIT_ULL(raw_item_lg2(level)) - 1;
		struct raw_want *want = &t->want[t->next];
		bool some = t->next != t->wants && want->va <= last;

		if (some && want->lg2 >= raw_item_lg2(level)) {
			u64 leaf = raw_leaf(t->features, want->prot, want->oa,
					    want->lg2, level);

			KUNIT_ASSERT_EQ_MSG(test, item | want->ignore,
					    leaf | want->ignore,
					    "va %llx level %u", va, level);
			if (last == want->last)
				t->next++;
		} else if (!item) {
			KUNIT_ASSERT_FALSE_MSG(test, some, "va %llx level %u",
					       va, level);
		} else {
			u64 oa = raw_table_oa(item);

			KUNIT_ASSERT_FALSE_MSG(test, raw_is_leaf(item, level),
					       "va %llx level %u item %llx", va,
					       level, item);
			KUNIT_ASSERT_EQ_MSG(test, item,
					    raw_table(t->features, oa, level),
					    "va %llx level %u", va, level);
			raw_check_table(t, phys_to_virt(oa), level - 1, va);
		}
		va = last + 1;
	}
}

/* The whole table: the leaves that are wanted, their tables, and no more */
static void raw_check(struct raw_test *t)
{
	unsigned int level;
	u64 *top = raw_top(t, &level);

	sort(t->want, t->wants, sizeof(*t->want), raw_want_cmp, NULL);
	t->next = 0;
	t->tables = 0;
	raw_check_table(t, top, level, 0);
	KUNIT_ASSERT_EQ(t->test, t->next, t->wants);
	/* Nothing else uses secondary page tables while KUnit runs */
	KUNIT_ASSERT_EQ(t->test, raw_pages(t), t->tables);
}

/* How many tables all that needs, if it is on its own */
static unsigned int raw_count_tables(struct raw_test *t)
{
	unsigned int level, top, i, tables = 1;

	raw_top(t, &top);
	sort(t->want, t->wants, sizeof(*t->want), raw_want_cmp, NULL);
	for (level = 1; level <= top; level++) {
		unsigned int lg2 = raw_item_lg2(level);
		u64 last = U64_MAX;

		for (i = 0; i != t->wants; i++) {
			if (t->want[i].lg2 >= lg2 ||
			    t->want[i].va >> lg2 == last)
				continue;
			last = t->want[i].va >> lg2;
			tables++;
		}
	}
	return tables;
}

static void raw_map(struct raw_test *t, u64 va, u64 oa, u64 len, int prot)
{
	KUNIT_ASSERT_NO_ERRNO(t->test, iommu_map(&t->pt.domain, va, oa, len,
						 prot, GFP_KERNEL));
	raw_want(t, va, oa, len, prot);
}

static void raw_unmap(struct raw_test *t, u64 va, u64 len)
{
	unsigned int i, kept = 0;

	KUNIT_ASSERT_EQ(t->test, len, iommu_unmap(&t->pt.domain, va, len));
	va &= t->va_mask;
	for (i = 0; i != t->wants; i++)
		if (t->want[i].va < va || t->want[i].va > va + len - 1)
			t->want[kept++] = t->want[i];
	t->wants = kept;
}

#include "raw_flush.h"
#include "raw_free.h"

static void *raw_alloc(int nid, gfp_t gfp, size_t size, bool zeroed)
{
	struct raw_test *t = kunit_get_current_test()->priv;
	void *table;

	t->allocs++;
	if (t->fail_alloc && !--t->fail_alloc)
		return NULL;
	table = iommu_alloc_pages_node_sz(nid, gfp, size);
	/* What is not written is no item of a right table then */
	if (table && !zeroed)
		memset(table, 0xff, size);
	return table;
}

static int raw_start_incoherent(void *table, struct device *dev)
{
	struct raw_test *t = kunit_get_current_test()->priv;

	if (t->fail_start && !--t->fail_start)
		return -EIO;
	raw_flushed(t, table, 0, SZ_4K);
	return iommu_pages_start_incoherent(table, dev);
}

static void raw_flush_incoherent(struct device *dev, void *table,
				 size_t offset, size_t len)
{
	struct raw_test *t = kunit_get_current_test()->priv;

	KUNIT_EXPECT_PTR_EQ(t->test, dev, t->pt.dummy_dev);
	raw_probe_all(t);
	raw_flushed(t, table, offset, len);
	raw_probe_all(t);
	iommu_pages_flush_incoherent(dev, table, offset, len);
}

static void raw_iotlb_sync(struct iommu_domain *domain,
			   struct iommu_iotlb_gather *gather)
{
	struct raw_test *t = container_of(domain, struct raw_test, pt.domain);

	t->syncs++;
	t->sync_start = gather->start & t->va_mask;
	t->sync_last = gather->end & t->va_mask;
	t->leaf_to_table = gather->leaf_to_table;
	raw_check_memory(t);
	raw_check_frees(t, gather);
	iommu_put_pages_list(&gather->freelist);
}

static const struct iommu_domain_ops raw_domain_ops = {
	IOMMU_PT_DOMAIN_OPS1(PTPFX_RAW),
	.iotlb_sync = raw_iotlb_sync,
};

/* Every configuration that the format wants tested, with each set of features */
static const void *raw_gen_params(struct kunit *test, const void *prev,
				  char *desc)
{
	uintptr_t id = (uintptr_t)prev;

	if (id == ARRAY_SIZE(kunit_fmt_cfgs) * ARRAY_SIZE(raw_features))
		return NULL;
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s_cfg_%u_features_%x",
		 __stringify(PTPFX_RAW),
		 (unsigned int)(id / ARRAY_SIZE(raw_features)),
		 raw_features[id % ARRAY_SIZE(raw_features)]);
	return (void *)(id + 1);
}

#define RAW_CASE(name) KUNIT_CASE_PARAM(name, raw_gen_params)

static void raw_init_table(struct raw_test *t)
{
	struct kunit_iommu_priv *pt = &t->pt;
	struct kunit *test = t->test;

	pt->fmt_table.iommu.nid = NUMA_NO_NODE;
	pt->fmt_table.iommu.driver_ops = &pt_kunit_driver_ops;
	pt->fmt_table.iommu.iommu_device = pt->dummy_dev;
	pt->domain.ops = &raw_domain_ops;
	pt->orig_nr_secondary_pagetable = kunit_table_pages();
	KUNIT_ASSERT_NO_ERRNO(test, pt_iommu_init(&pt->fmt_table, &pt->cfg,
						  GFP_KERNEL));
	pt->iommu = &pt->fmt_table.iommu;
	pt->common = common_from_iommu(pt->iommu);
	t->va_mask = pt->common->max_vasz_lg2 == 64 ?
			     U64_MAX :
			     BIT_ULL(pt->common->max_vasz_lg2) - 1;
	t->wants = 0;
}

static void raw_deinit_table(struct raw_test *t)
{
	pt_iommu_deinit(t->pt.iommu);
	t->pt.iommu = NULL;
	KUNIT_EXPECT_EQ(t->test, raw_pages(t), 0);
}

static int raw_init(struct kunit *test)
{
	uintptr_t id = (uintptr_t)test->param_value - 1;
	struct raw_test *t;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t);
	t->test = test;
	t->want = kunit_kcalloc(test, RAW_MAX_LEAVES, sizeof(*t->want),
				GFP_KERNEL);
	t->seen = kunit_kcalloc(test, RAW_MAX_TABLES, sizeof(*t->seen),
				GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->want);
	KUNIT_ASSERT_NOT_NULL(test, t->seen);
	xa_init(&t->memory);
	test->priv = t;

	t->pt.dummy_dev = kunit_device_register(test, "raw_pt");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->pt.dummy_dev);
	spin_lock_init(&t->pt.top_lock);
	t->pt.cfg = kunit_fmt_cfgs[id / ARRAY_SIZE(raw_features)];
	t->pt.cfg.common.features |= raw_features[id % ARRAY_SIZE(raw_features)];
	t->features = t->pt.cfg.common.features;
	if (!t->pt.cfg.common.hw_max_vasz_lg2)
		t->pt.cfg.common.hw_max_vasz_lg2 = PT_MAX_VA_ADDRESS_LG2;
	if (!t->pt.cfg.common.hw_max_oasz_lg2)
		t->pt.cfg.common.hw_max_oasz_lg2 = pt_max_oa_lg2(NULL);

	kunit_activate_static_stub(test, pt_iommu_rust_alloc, raw_alloc);
	kunit_activate_static_stub(test, pt_iommu_rust_start_incoherent,
				   raw_start_incoherent);
	kunit_activate_static_stub(test, pt_iommu_rust_flush_incoherent,
				   raw_flush_incoherent);
	raw_init_table(t);
	t->pt.smallest_pgsz_lg2 = __ffs(t->pt.domain.pgsize_bitmap);
	t->pt.smallest_pgsz = BIT_ULL(t->pt.smallest_pgsz_lg2);
	t->pt.test_oa = oalog2_mod(0x74a71445deadbeef,
				   t->pt.common->max_oasz_lg2);
	return 0;
}

static void raw_exit(struct kunit *test)
{
	struct raw_test *t = test->priv;
	unsigned long index;
	void *page;

	if (!t)
		return;
	t->watch_frees = false;
	if (t->pt.iommu)
		raw_deinit_table(t);
	if (!raw_incoherent(t))
		KUNIT_EXPECT_EQ(test, t->flushes, 0);
	xa_for_each(&t->memory, index, page)
		kfree(page);
	xa_destroy(&t->memory);
}

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

#include "raw_dirty.h"
#include "raw_nomem.h"
#include "raw_compare.h"

static struct kunit_case raw_cases[] = {
	RAW_CASE(test_items),
	RAW_CASE(test_items_unaligned_oa),
	RAW_CASE(test_flush_map),
	RAW_CASE(test_flush_split),
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
