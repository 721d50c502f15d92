/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of one format against its specification: every item of the
 * table, in all bits, has to be what raw_leaf() and raw_table() say. Included
 * after these, which know nothing of the code that is tested.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_H
#define __IOMMU_PT_RUST_KUNIT_RAW_H

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
	unsigned long sync_pages;
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

/* Splits, or splits and unmaps in one step as iommufd does */
static int raw_cut(struct raw_test *t, u64 va, u64 len, bool carve)
{
	struct iommu_pages_list tables = IOMMU_PAGES_LIST_INIT(tables);
	struct iommu_domain *domain = &t->pt.domain;
	int ret;

	if (!carve)
		return iommu_split(domain, va, len, GFP_KERNEL);
	ret = iommu_carve_prepare(domain, va, len, GFP_KERNEL, &tables);
	if (!ret)
		KUNIT_EXPECT_EQ(t->test, len,
				iommu_carve(domain, va, len, &tables));
	iommu_carve_free(domain, &tables);
	return ret;
}

#endif
