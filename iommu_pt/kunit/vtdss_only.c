// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the Rust page tables for what the suites of generic_pt do not
 * look at: every bit of the entries, what is flushed and when tables are
 * freed, and split_range.
 *
 * The expected bits are written out from the VT-d specification, section 9.8,
 * and not taken from any code that is tested.
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>
#include <linux/sizes.h>

#include "../../../../iommu-pages.h"
#include "../iommu_pt_rust.h"
#include "pages.h"

#define SS_R BIT_ULL(0)
#define SS_W BIT_ULL(1)
#define SS_PS BIT_ULL(7)
#define SS_D BIT_ULL(9)
#define SS_CLEANED BIT_ULL(10)
#define SS_SNP BIT_ULL(11)
#define SS_ADDR GENMASK_ULL(51, 12)

#define TEST_OA 0x123440000000ULL /* aligned to 1G */
#define MAX_SYNCS 8

struct sync_log {
	unsigned long start;
	unsigned long end;
	unsigned long pages; /* table pages that existed when it was called */
	bool leaf_to_table;
};

struct rust_pt {
	union {
		struct iommu_domain domain;
		struct pt_iommu_vtdss pt;
	};
	struct sync_log syncs[MAX_SYNCS];
	unsigned int num_syncs;
	unsigned long base_pages;
	u64 *late; /* what hardware that is flushed takes for a leaf */
};

PT_IOMMU_CHECK_DOMAIN(struct rust_pt, pt.iommu, domain);

static void log_sync(struct iommu_domain *domain,
		     struct iommu_iotlb_gather *gather)
{
	struct rust_pt *t = container_of(domain, struct rust_pt, domain);

	if (t->num_syncs < MAX_SYNCS)
		t->syncs[t->num_syncs] = (struct sync_log){
			.start = gather->start,
			.end = gather->end,
			.pages = kunit_table_pages(),
			.leaf_to_table = gather->leaf_to_table,
		};
	t->num_syncs++;
	if (t->late)
		*t->late |= SS_D;
	iommu_put_pages_list(&gather->freelist);
}

static const struct iommu_domain_ops test_domain_ops = {
	IOMMU_PT_DOMAIN_OPS(vtdss),
	.iotlb_sync = log_sync,
};

static void setup(struct kunit *test, unsigned int features)
{
	struct pt_iommu_vtdss_cfg cfg = {
		.common.features = BIT(PT_FEAT_FLUSH_RANGE) | features,
		.common.hw_max_vasz_lg2 = 48,
		.common.hw_max_oasz_lg2 = 52,
		.top_level = 3,
	};
	struct rust_pt *t = test->priv;

	t->pt.iommu.nid = NUMA_NO_NODE;
	t->pt.iommu.iommu_device = kunit_device_register(test, "rust_pt");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->pt.iommu.iommu_device);
	t->domain.ops = &test_domain_ops;
	KUNIT_ASSERT_EQ(test, 0, pt_iommu_vtdss_init(&t->pt, &cfg, GFP_KERNEL));
}

static void map(struct kunit *test, unsigned long iova, phys_addr_t oa,
		size_t len, int prot)
{
	struct rust_pt *t = test->priv;

	KUNIT_ASSERT_EQ(test, 0, iommu_map(&t->domain, iova, oa, len, prot,
					   GFP_KERNEL));
}

static u64 *top_table(struct rust_pt *t)
{
	return (u64 *)(t->pt.vtdss_pt.common.top_of_table &
		       ~(uintptr_t)PT_TOP_LEVEL_MASK);
}

/* The entry for @iova at @level, NULL if a leaf or nothing is above it */
static u64 *entry_at(struct rust_pt *t, unsigned long iova, unsigned int level)
{
	u64 *table = top_table(t);
	unsigned int l;

	for (l = 3;; l--) {
		u64 *entry = table + ((iova >> (12 + 9 * l)) & 511);

		if (l == level)
			return entry;
		if (!*entry || (l <= 2 && (*entry & SS_PS)))
			return NULL;
		table = phys_to_virt(*entry & SS_ADDR);
	}
}

static void expect_entry(struct kunit *test, unsigned long iova,
			 unsigned int level, u64 want)
{
	u64 *entry = entry_at(test->priv, iova, level);

	KUNIT_ASSERT_NOT_NULL_MSG(test, entry, "iova %lx level %u", iova,
				  level);
	KUNIT_ASSERT_EQ_MSG(test, *entry, want, "iova %lx level %u", iova,
			    level);
}

static void expect_sync(struct kunit *test, unsigned int i,
			unsigned long start, unsigned long len, bool split)
{
	struct rust_pt *t = test->priv;

	KUNIT_ASSERT_LT(test, i, t->num_syncs);
	KUNIT_EXPECT_EQ(test, t->syncs[i].start, start);
	KUNIT_EXPECT_EQ(test, t->syncs[i].end, start + len - 1);
	KUNIT_EXPECT_EQ(test, t->syncs[i].leaf_to_table, split);
}

static void check_bits(struct kunit *test, unsigned int features, u64 leaf,
		       u64 table)
{
	static const int prots[] = { IOMMU_READ | IOMMU_WRITE, IOMMU_WRITE,
				     IOMMU_READ };
	unsigned int i;

	setup(test, features);
	for (i = 0; i != ARRAY_SIZE(prots); i++) {
		unsigned long iova = SZ_4G * (i + 1);
		u64 want = leaf;

		if (prots[i] & IOMMU_READ)
			want |= SS_R;
		if (prots[i] & IOMMU_WRITE)
			want |= SS_W;
		map(test, iova, TEST_OA, SZ_1G, prots[i]);
		expect_entry(test, iova, 2, TEST_OA | want | SS_PS);
		map(test, iova + SZ_1G, TEST_OA, SZ_2M, prots[i]);
		expect_entry(test, iova + SZ_1G, 1, TEST_OA | want | SS_PS);
		map(test, iova + SZ_1G + SZ_2M, TEST_OA + SZ_4K, SZ_4K,
		    prots[i]);
		expect_entry(test, iova + SZ_1G + SZ_2M, 0,
			     (TEST_OA + SZ_4K) | want);
		KUNIT_EXPECT_EQ(test,
				*entry_at(test->priv, iova + SZ_1G, 2) &
					~SS_ADDR,
				table);
	}
}

static void test_bits(struct kunit *test)
{
	check_bits(test, 0, 0, SS_R | SS_W);
}

static void test_bits_snoop(struct kunit *test)
{
	check_bits(test, BIT(PT_FEAT_VTDSS_FORCE_COHERENCE), SS_SNP,
		   SS_R | SS_W);
}

static void test_bits_incoherent(struct kunit *test)
{
	check_bits(test, BIT(PT_FEAT_DMA_INCOHERENT), 0,
		   SS_R | SS_W | SS_CLEANED);
}

static void test_force_writeable(struct kunit *test)
{
	struct rust_pt *t = test->priv;

	setup(test, BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_map(&t->domain, 0, TEST_OA, SZ_4K, IOMMU_READ,
				  GFP_KERNEL));
	map(test, 0, TEST_OA, SZ_4K, IOMMU_READ | IOMMU_WRITE);
}

/* A hole of @len at @off in one 1G leaf: all entries, tables and the flush */
static void check_hole(struct kunit *test, unsigned int features,
		       unsigned long off, unsigned long len,
		       unsigned int tables)
{
	struct rust_pt *t = test->priv;
	const unsigned long iova = SZ_4G;
	unsigned long end = off + len;
	unsigned long pages;
	unsigned long at;

	setup(test, features);
	map(test, iova, TEST_OA, SZ_1G, IOMMU_READ | IOMMU_WRITE);
	*entry_at(t, iova, 2) |= BIT_ULL(55); /* ignored by hardware */

	pages = kunit_table_pages();
	t->num_syncs = 0;
	KUNIT_ASSERT_EQ(test, 0, iommu_split(&t->domain, iova + off, len,
					     GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, kunit_table_pages() - pages, tables);
	KUNIT_EXPECT_EQ(test, t->num_syncs, 1);
	expect_sync(test, 0, iova, SZ_1G, true);

	for (at = 0; at != SZ_1G; at += SZ_2M) {
		bool cut = (off > at && off < at + SZ_2M) ||
			   (end > at && end < at + SZ_2M);
		u64 bits = SS_R | SS_W | BIT_ULL(55);
		unsigned long page;

		if (!cut) {
			expect_entry(test, iova + at, 1,
				     (TEST_OA + at) | bits | SS_PS);
			continue;
		}
		for (page = at; page != at + SZ_2M; page += SZ_4K)
			expect_entry(test, iova + page, 0,
				     (TEST_OA + page) | bits);
	}

	/* Again is free, and the hole can be unmapped exactly */
	t->num_syncs = 0;
	KUNIT_ASSERT_EQ(test, 0, iommu_split(&t->domain, iova + off, len,
					     GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, kunit_table_pages() - pages, tables);
	KUNIT_EXPECT_EQ(test, t->num_syncs, 0);
	KUNIT_EXPECT_EQ(test, len, iommu_unmap(&t->domain, iova + off, len));
	expect_sync(test, 0, iova + off, len, false);
	for (at = 0; at != SZ_1G; at += SZ_4K)
		KUNIT_ASSERT_EQ(test, iommu_iova_to_phys(&t->domain, iova + at),
				at >= off && at < end ? 0 : TEST_OA + at);
}

static void test_split_2m(struct kunit *test)
{
	check_hole(test, 0, SZ_512M, SZ_2M, 1);
}

static void test_split_4k(struct kunit *test)
{
	check_hole(test, 0, SZ_512M + SZ_4K, SZ_4K, 2);
}

static void test_split_far(struct kunit *test)
{
	check_hole(test, 0, SZ_4M + SZ_64K, SZ_512M, 3);
}

static void test_split_incoherent(struct kunit *test)
{
	check_hole(test, BIT(PT_FEAT_DMA_INCOHERENT), SZ_512M + SZ_4K, SZ_4K,
		   2);
}

/* Edges in different leaves: each is flushed by itself, at its own size */
static void test_split_two_leaves(struct kunit *test)
{
	struct rust_pt *t = test->priv;

	setup(test, 0);
	map(test, 0, TEST_OA, 4UL * SZ_1G, IOMMU_READ | IOMMU_WRITE);
	map(test, 4UL * SZ_1G, TEST_OA, SZ_2M, IOMMU_READ | IOMMU_WRITE);
	t->num_syncs = 0;
	KUNIT_ASSERT_EQ(test, 0,
			iommu_split(&t->domain, SZ_1G + SZ_2M,
				    3UL * SZ_1G - SZ_2M + SZ_4K, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, t->num_syncs, 2);
	expect_sync(test, 0, SZ_1G, SZ_1G, true);
	expect_sync(test, 1, 4UL * SZ_1G, SZ_2M, true);
	/* Leaves between the edges are left alone */
	expect_entry(test, 2UL * SZ_1G, 2,
		     (TEST_OA + 2UL * SZ_1G) | SS_R | SS_W | SS_PS);
}

static void test_split_errors(struct kunit *test)
{
	struct rust_pt *t = test->priv;
	struct iommu_domain *d = &t->domain;
	u64 before;

	setup(test, 0);
	map(test, SZ_1G, TEST_OA, SZ_1G, IOMMU_READ | IOMMU_WRITE);
	before = *entry_at(t, SZ_1G, 2);
	t->num_syncs = 0;
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_split(d, SZ_1G + 1, SZ_4K,
						   GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_split(d, SZ_1G, 1, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_split(d, SZ_1G, 0, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -EOVERFLOW,
			iommu_split(d, -(unsigned long)SZ_4K, SZ_8K,
				    GFP_KERNEL));
	/* Nothing is mapped at one of the edges */
	KUNIT_EXPECT_EQ(test, -ENOENT, iommu_split(d, SZ_1G - SZ_4K, SZ_8K,
						   GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -ENOENT,
			iommu_split(d, SZ_2G - SZ_4K, SZ_8K, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, -ENOENT,
			iommu_split(d, BIT_ULL(60), SZ_4K, GFP_KERNEL));
	t->domain.no_live_split = true;
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			iommu_split(d, SZ_1G + SZ_4K, SZ_4K, GFP_KERNEL));
	t->domain.no_live_split = false;
	KUNIT_EXPECT_EQ(test, before, *entry_at(t, SZ_1G, 2));
	KUNIT_EXPECT_EQ(test, t->num_syncs, 0);
}

static int read_dirty(struct rust_pt *t, unsigned long iova, size_t size,
		      unsigned long flags, struct iommu_dirty_bitmap *dirty)
{
	return pt_iommu_vtdss_read_and_clear_dirty(&t->domain, iova, size,
						   flags, dirty);
}

static void test_dirty(struct kunit *test)
{
	struct iommu_iotlb_gather gather;
	struct iommu_dirty_bitmap dirty;
	struct rust_pt *t = test->priv;
	unsigned long at;

	setup(test, 0);
	/* The left leaf is dirty, the right one is clean */
	map(test, 0, TEST_OA, SZ_2G, IOMMU_READ | IOMMU_WRITE);
	*entry_at(t, 0, 2) |= SS_D;
	KUNIT_ASSERT_EQ(test, 0, iommu_split(&t->domain, SZ_2M, SZ_1G,
					     GFP_KERNEL));
	for (at = 0; at != SZ_2G; at += SZ_2M)
		expect_entry(test, at, 1,
			     (TEST_OA + at) | SS_R | SS_W | SS_PS |
				     (at < SZ_1G ? SS_D : 0));

	iommu_dirty_bitmap_init(&dirty, NULL, &gather);
	KUNIT_ASSERT_EQ(test, 0, read_dirty(t, 0, SZ_2G, IOMMU_DIRTY_NO_CLEAR,
					    &dirty));
	expect_entry(test, 0, 1, TEST_OA | SS_R | SS_W | SS_PS | SS_D);
	KUNIT_ASSERT_EQ(test, 0, read_dirty(t, SZ_4M, SZ_4M, 0, &dirty));
	KUNIT_EXPECT_EQ(test, gather.start, SZ_4M);
	KUNIT_EXPECT_EQ(test, gather.end, SZ_8M - 1);
	for (at = 0; at != SZ_1G; at += SZ_2M)
		expect_entry(test, at, 1,
			     (TEST_OA + at) | SS_R | SS_W | SS_PS |
				     (at == SZ_4M || at == SZ_4M + SZ_2M ?
					      0 :
					      SS_D));
}

/*
 * A write through a translation that was cached before the split shows late,
 * as a dirty bit where the leaf was. It may have gone anywhere in the leaf.
 */
static void test_late_dirty(struct kunit *test)
{
	static const struct iommu_dirty_ops dirty_ops = {};
	struct rust_pt *t = test->priv;
	unsigned long at;

	setup(test, 0);
	t->domain.dirty_ops = &dirty_ops;
	map(test, 0, TEST_OA, 3UL * SZ_1G, IOMMU_READ | IOMMU_WRITE);
	t->late = entry_at(t, SZ_1G, 2);
	t->num_syncs = 0;
	/* Edges in two leaves: the second one only is written to */
	KUNIT_ASSERT_EQ(test, 0, iommu_split(&t->domain, SZ_2M, SZ_1G,
					     GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, t->num_syncs, 1);
	expect_sync(test, 0, 0, SZ_2G, true);
	KUNIT_EXPECT_EQ(test, *t->late & ~SS_ADDR, SS_R | SS_W);
	t->late = NULL;
	for (at = 0; at != SZ_2G; at += SZ_2M)
		expect_entry(test, at, 1,
			     (TEST_OA + at) | SS_R | SS_W | SS_PS |
				     (at < SZ_1G ? 0 : SS_D));
	expect_entry(test, SZ_2G, 2,
		     (TEST_OA + SZ_2G) | SS_R | SS_W | SS_PS);

	/* With nothing to cut nothing is flushed */
	t->num_syncs = 0;
	KUNIT_ASSERT_EQ(test, 0, iommu_split(&t->domain, SZ_2M, SZ_1G,
					     GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, t->num_syncs, 0);
}

#ifdef kunit_warning_suppress
/*
 * Somebody without the lock, who changes a leaf between the moment that a split
 * has found it and the one that it is to be replaced.
 */
static struct {
	u64 *leaf;
	u64 value;
} intruder;

static void *intrude(int nid, gfp_t gfp, size_t size, bool zeroed)
{
	*intruder.leaf = intruder.value;
	return iommu_alloc_pages_node_sz(nid, gfp, size);
}

static void check_unlocked(struct kunit *test, unsigned long hit, u64 value,
			   bool dirty)
{
	static const struct iommu_dirty_ops dirty_ops = {};
	struct rust_pt *t = test->priv;
	u64 old = TEST_OA | SS_R | SS_W | SS_PS;
	unsigned long pages;
	unsigned long at;

	t->domain.dirty_ops = dirty ? &dirty_ops : NULL;
	map(test, 0, TEST_OA, SZ_2G, IOMMU_READ | IOMMU_WRITE);
	pages = kunit_table_pages();
	intruder.leaf = entry_at(t, hit, 2);
	intruder.value = value;
	t->late = dirty && hit ? entry_at(t, 0, 2) : NULL;
	t->num_syncs = 0;
	kunit_activate_static_stub(test, pt_iommu_rust_alloc, intrude);
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, -EBUSY,
				iommu_split(&t->domain, SZ_2M, SZ_1G,
					    GFP_KERNEL));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	kunit_deactivate_static_stub(test, pt_iommu_rust_alloc);
	t->late = NULL;
	KUNIT_EXPECT_EQ(test, *intruder.leaf, value);
	if (!hit) {
		/* Stopped before anything changed */
		KUNIT_EXPECT_EQ(test, t->num_syncs, 0);
		KUNIT_EXPECT_EQ(test, kunit_table_pages(), pages);
		expect_entry(test, SZ_1G, 2, old + SZ_1G);
	} else {
		/* The first leaf was replaced, and flushed at its old size */
		KUNIT_EXPECT_EQ(test, t->num_syncs, 1);
		expect_sync(test, 0, 0, SZ_1G, true);
		KUNIT_EXPECT_EQ(test, kunit_table_pages(), pages + 1);
		for (at = 0; at != SZ_1G; at += SZ_2M)
			expect_entry(test, at, 1,
				     (old + at) | (dirty ? SS_D : 0));
	}
	*intruder.leaf = old + hit;
	KUNIT_EXPECT_EQ(test, SZ_2G, iommu_unmap(&t->domain, 0, SZ_2G));
}

/*
 * A split that meets somebody else in a leaf lets that be, flushes what it has
 * replaced, and warns
 */
static void test_split_unlocked(struct kunit *test)
{
	static const u64 others[] = {
		0, /* unmapped */
		TEST_OA | SS_R | SS_PS, /* mapped with other rights */
		TEST_OA + SZ_4G | SS_R | SS_W | SS_PS, /* and to elsewhere */
	};
	unsigned int i;

	setup(test, 0);
	for (i = 0; i != ARRAY_SIZE(others); i++) {
		check_unlocked(test, 0, others[i], false);
		check_unlocked(test, SZ_1G, others[i], false);
		check_unlocked(test, 0, others[i], true);
		check_unlocked(test, SZ_1G, others[i], true);
	}
}
#else
static void test_split_unlocked(struct kunit *test)
{
	kunit_skip(test, "KUnit cannot suppress warnings");
}
#endif

/* Tables go with the unmap that empties them, and not before its flush */
static void test_free_after_flush(struct kunit *test)
{
	struct rust_pt *t = test->priv;
	unsigned long pages;

	setup(test, 0);
	map(test, 0, TEST_OA + SZ_4K, SZ_4M, IOMMU_READ | IOMMU_WRITE);
	pages = kunit_table_pages();
	t->num_syncs = 0;
	KUNIT_ASSERT_EQ(test, SZ_4M, iommu_unmap(&t->domain, 0, SZ_4M));
	KUNIT_ASSERT_EQ(test, t->num_syncs, 1);
	expect_sync(test, 0, 0, SZ_4M, false);
	KUNIT_EXPECT_EQ(test, t->syncs[0].pages, pages);
	KUNIT_EXPECT_EQ(test, pages - kunit_table_pages(), 2);

	/* An empty table that is in the way of a large leaf, too */
	map(test, 0, TEST_OA, SZ_4K, IOMMU_READ | IOMMU_WRITE);
	KUNIT_ASSERT_EQ(test, SZ_4K, iommu_unmap(&t->domain, 0, SZ_4K));
	pages = kunit_table_pages();
	t->num_syncs = 0;
	map(test, 0, TEST_OA, SZ_2M, IOMMU_READ | IOMMU_WRITE);
	expect_entry(test, 0, 1, TEST_OA | SS_R | SS_W | SS_PS);
	KUNIT_ASSERT_EQ(test, t->num_syncs, 1);
	expect_sync(test, 0, 0, SZ_2M, false);
	KUNIT_EXPECT_EQ(test, t->syncs[0].pages, pages);
	KUNIT_EXPECT_EQ(test, pages - kunit_table_pages(), 1);
}

static int rust_pt_init(struct kunit *test)
{
	struct rust_pt *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	if (!t)
		return -ENOMEM;
	t->base_pages = kunit_table_pages();
	test->priv = t;
	return 0;
}

static void rust_pt_exit(struct kunit *test)
{
	struct rust_pt *t = test->priv;

	pt_iommu_deinit(&t->pt.iommu);
	/* Nothing else uses secondary page tables while KUnit runs */
	KUNIT_EXPECT_EQ(test, t->base_pages, kunit_table_pages());
}

static struct kunit_case rust_pt_cases[] = {
	KUNIT_CASE(test_bits),
	KUNIT_CASE(test_bits_snoop),
	KUNIT_CASE(test_bits_incoherent),
	KUNIT_CASE(test_force_writeable),
	KUNIT_CASE(test_split_2m),
	KUNIT_CASE(test_split_4k),
	KUNIT_CASE(test_split_far),
	KUNIT_CASE(test_split_incoherent),
	KUNIT_CASE(test_split_two_leaves),
	KUNIT_CASE(test_split_errors),
	KUNIT_CASE(test_dirty),
	KUNIT_CASE(test_late_dirty),
	KUNIT_CASE(test_split_unlocked),
	KUNIT_CASE(test_free_after_flush),
	{},
};

static struct kunit_suite rust_pt_suite = {
	.name = "iommu_pt_rust_vtdss",
	.init = rust_pt_init,
	.exit = rust_pt_exit,
	.test_cases = rust_pt_cases,
};

kunit_test_suite(rust_pt_suite);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KUnit tests of the Rust IOMMU page tables");
MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
MODULE_IMPORT_NS("IOMMUFD_INTERNAL");
