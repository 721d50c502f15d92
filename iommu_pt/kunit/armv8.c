// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of armv8. There is no C format of this name, so neither the
 * suites of GENERIC_PT nor raw.h know it. io-pgtable-arm is the judge: every
 * item has to be, in all bits but those of a table's address, the one that it
 * writes. A few are in constants from the specification, too.
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test-bug.h>
#include <kunit/test.h>
#include <linux/dma-mapping.h>
#include <linux/generic_pt/iommu.h>
#include <linux/io-pgtable.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include "../../../../iommu-pages.h"
#include "../iommu_pt_rust.h"
#include "pages.h"

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
MODULE_IMPORT_NS("IOMMUFD_INTERNAL");

#define S2 BIT(PT_FEAT_ARMV8_S2)
#define S2FWB BIT(PT_FEAT_ARMV8_S2FWB)
#define INCOHERENT BIT(PT_FEAT_DMA_INCOHERENT)
/* As the driver asks for */
#define ALWAYS (BIT(PT_FEAT_DETAILED_GATHER) | BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS))

/* One kind of table, without side by side top tables in either */
static const struct armv8_kind {
	unsigned int tgsz_lg2;
	unsigned int features;
	unsigned int ias;
	unsigned int oas;
} armv8_kinds[] = {
	{ 12, 0, 39, 48 },	  { 12, 0, 48, 48 },
	{ 12, S2, 39, 40 },	  { 12, S2, 44, 44 },
	{ 12, S2 | S2FWB, 48, 48 }, { 14, 0, 47, 44 },
	{ 14, 0, 48, 48 },	  { 14, S2, 44, 44 },
	{ 14, S2 | S2FWB, 36, 42 }, { 16, 0, 48, 48 },
	{ 16, 0, 42, 44 },	  { 16, S2, 44, 44 },
	{ 16, S2 | S2FWB, 48, 48 }, { 12, INCOHERENT, 48, 48 },
	{ 14, INCOHERENT, 47, 44 }, { 16, S2 | INCOHERENT, 44, 44 },
};

struct armv8_test {
	const struct armv8_kind *kind;
	struct pt_iommu_armv8 rust;
	struct pt_iommu_armv8_hw_info info;
	struct io_pgtable_cfg cfg;
	struct io_pgtable_ops *c;
	struct device *dev;
	/* Tables that were made for an incoherent walker */
	unsigned int started;
	/* Flushes, and what the last one was of; not its freelist */
	unsigned int syncs;
	struct iommu_iotlb_gather gather;
	/* An item, what of it an incoherent walker has seen, and all at a flush */
	u64 *watched;
	u64 cleaned;
	u64 sync_item;
	u64 sync_cleaned;
	/* In tables: before there was one, and at the first flush */
	unsigned long orig_pages;
	unsigned long sync_pages;
};

static void armv8_sync(struct iommu_domain *domain,
		       struct iommu_iotlb_gather *gather)
{
	struct armv8_test *t =
		container_of(domain, struct armv8_test, rust.iommu.domain);

	if (!t->syncs++)
		t->sync_pages = kunit_table_pages();
	if (t->watched) {
		t->sync_item = READ_ONCE(*t->watched);
		t->sync_cleaned = t->cleaned;
	}
	t->gather = *gather;
	iommu_put_pages_list(&gather->freelist);
}

static int armv8_start_incoherent(void *table, struct device *dev)
{
	struct kunit *test = kunit_get_current_test();
	struct armv8_test *t = test->priv;

	t->started++;
	KUNIT_EXPECT_PTR_EQ(test, dev, t->dev);
	return iommu_pages_start_incoherent(table, dev);
}

static void armv8_flush_incoherent(struct device *dev, void *table,
				   size_t offset, size_t len)
{
	struct armv8_test *t = kunit_get_current_test()->priv;
	size_t watched = (void *)t->watched - table;

	if (t->watched && watched >= offset && watched < offset + len)
		t->cleaned = READ_ONCE(*t->watched);
	iommu_pages_flush_incoherent(dev, table, offset, len);
}

static const struct iommu_domain_ops armv8_domain_ops = {
	IOMMU_PT_DOMAIN_OPS(armv8),
	.iotlb_sync = armv8_sync,
};

static void armv8_flush_all(void *cookie)
{
}

static void armv8_flush(unsigned long iova, size_t size, size_t granule,
			void *cookie)
{
}

static const struct iommu_flush_ops armv8_flush_ops = {
	.tlb_flush_all = armv8_flush_all,
	.tlb_flush_walk = armv8_flush,
};

static bool armv8_stage2(const struct armv8_kind *kind)
{
	return kind->features & S2;
}

static bool armv8_incoherent(const struct armv8_kind *kind)
{
	return kind->features & INCOHERENT;
}

static int armv8_init_rust(struct pt_iommu_armv8 *table,
			   const struct armv8_kind *kind)
{
	struct pt_iommu_armv8_cfg cfg = {
		.common.features = ALWAYS | kind->features,
		.common.hw_max_vasz_lg2 = kind->ias,
		.common.hw_max_oasz_lg2 = kind->oas,
		.tgsz_lg2 = kind->tgsz_lg2,
	};

	table->iommu.nid = NUMA_NO_NODE;
	table->iommu.domain.ops = &armv8_domain_ops;
	return pt_iommu_armv8_init(table, &cfg, GFP_KERNEL);
}

static void armv8_start(struct kunit *test, struct armv8_test *t,
			const struct armv8_kind *kind, struct device *dev)
{
	static const unsigned long sizes[] = {
		[12] = SZ_4K | SZ_2M | SZ_1G,
		[14] = SZ_16K | SZ_32M,
		[16] = SZ_64K | SZ_512M,
	};

	memset(t, 0, sizeof(*t));
	t->kind = kind;
	t->dev = dev;
	t->rust.iommu.iommu_device = dev;
	test->priv = t;
	kunit_activate_static_stub(test, pt_iommu_rust_start_incoherent,
				   armv8_start_incoherent);
	kunit_activate_static_stub(test, pt_iommu_rust_flush_incoherent,
				   armv8_flush_incoherent);
	t->orig_pages = kunit_table_pages();
	KUNIT_ASSERT_EQ(test, 0, armv8_init_rust(&t->rust, kind));
	KUNIT_EXPECT_EQ(test, t->started, armv8_incoherent(kind));
	pt_iommu_armv8_hw_info(&t->rust, &t->info);
	t->cfg = (struct io_pgtable_cfg){
		.quirks = kind->features & S2FWB ? IO_PGTABLE_QUIRK_ARM_S2FWB :
						   0,
		.pgsize_bitmap = sizes[kind->tgsz_lg2],
		.ias = kind->ias,
		.oas = kind->oas,
		.coherent_walk = !armv8_incoherent(kind),
		.tlb = &armv8_flush_ops,
		.iommu_dev = dev,
	};
	t->c = alloc_io_pgtable_ops(armv8_stage2(kind) ? ARM_64_LPAE_S2 :
							 ARM_64_LPAE_S1,
				    &t->cfg, NULL);
	KUNIT_ASSERT_NOT_NULL(test, t->c);
	KUNIT_EXPECT_EQ(test, t->rust.iommu.domain.pgsize_bitmap,
			t->cfg.pgsize_bitmap);
}

static void armv8_stop(struct kunit *test, struct armv8_test *t)
{
	free_io_pgtable_ops(t->c);
	pt_iommu_deinit(&t->rust.iommu);
	/* Nothing else uses secondary page tables while KUnit runs */
	KUNIT_EXPECT_EQ(test, kunit_table_pages(), t->orig_pages);
}

static struct device *armv8_device(struct kunit *test)
{
	struct device *dev = kunit_device_register(test, "armv8-pt");

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	/* So that the allocator works, and tables need no bounce buffers */
	set_dev_node(dev, NUMA_NO_NODE);
	dev->coherent_dma_mask = DMA_BIT_MASK(64);
	return dev;
}

/* An output address of many bits that leaves of this size may have */
static u64 armv8_oa(struct armv8_test *t, unsigned int lg2)
{
	return 0x5a5aa5a5969600ULL & GENMASK_ULL(t->kind->oas - 1, lg2);
}

static void armv8_map_c(struct kunit *test, struct armv8_test *t, u64 va,
			u64 oa, u64 len, u64 size, int prot)
{
	while (len) {
		size_t mapped = 0;

		KUNIT_ASSERT_EQ(test, 0,
				t->c->map_pages(t->c, va, oa, size, len / size,
						prot, GFP_KERNEL, &mapped));
		KUNIT_ASSERT_NE(test, mapped, 0);
		va += mapped;
		oa += mapped;
		len -= mapped;
	}
}

/* The level whose items are of 2^lg2 */
static unsigned int armv8_level(struct armv8_test *t, unsigned int lg2)
{
	return (lg2 - t->kind->tgsz_lg2) / (t->kind->tgsz_lg2 - 3);
}

static unsigned int armv8_top_level(struct armv8_test *t)
{
	return armv8_level(t, t->kind->ias - 1);
}

/* Returns the number of leaves */
static unsigned int armv8_same(struct kunit *test, struct armv8_test *t,
			       const u64 *c, const u64 *rust,
			       unsigned int level, unsigned int items)
{
	u64 address = GENMASK_ULL(47, t->kind->tgsz_lg2);
	unsigned int i, leaves = 0;

	for (i = 0; i != items; i++) {
		bool table = level && (c[i] & 3) == 3;
		u64 ignore = table ? address : 0;

		KUNIT_ASSERT_EQ_MSG(test, c[i] & ~ignore, rust[i] & ~ignore,
				    "level %u item %u", level, i);
		if (table)
			leaves += armv8_same(test, t,
					     phys_to_virt(c[i] & address),
					     phys_to_virt(rust[i] & address),
					     level - 1,
					     1U << (t->kind->tgsz_lg2 - 3));
		else if (c[i])
			leaves++;
	}
	return leaves;
}

static unsigned int armv8_compare(struct kunit *test, struct armv8_test *t)
{
	unsigned int bits = t->kind->tgsz_lg2 - 3;
	unsigned int level = armv8_top_level(t);
	unsigned int items =
		1U << (t->kind->ias - t->kind->tgsz_lg2 - level * bits);
	u64 *c = phys_to_virt(armv8_stage2(t->kind) ?
				      t->cfg.arm_lpae_s2_cfg.vttbr :
				      t->cfg.arm_lpae_s1_cfg.ttbr);
	u64 *rust = phys_to_virt(t->info.ttb);
	unsigned int i;

	/* The top may be larger than the space takes */
	for (i = items; i < 1U << bits; i++)
		KUNIT_ASSERT_EQ(test, rust[i], 0);
	return armv8_same(test, t, c, rust, level, items);
}

/* Every protection and size */
static void armv8_items(struct kunit *test)
{
	struct device *dev = armv8_device(test);
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i, lg2;
	int prot;

	KUNIT_ASSERT_NOT_NULL(test, t);
	for (i = 0; i != ARRAY_SIZE(armv8_kinds); i++) {
		for (prot = 1; prot != 64; prot++) {
			unsigned long sizes;

			if (!(prot & (IOMMU_READ | IOMMU_WRITE)))
				continue;
			armv8_start(test, t, &armv8_kinds[i], dev);
			sizes = t->cfg.pgsize_bitmap;
			for_each_set_bit(lg2, &sizes, BITS_PER_LONG) {
				u64 size = BIT_ULL(lg2);

				KUNIT_ASSERT_EQ(test, 0,
						iommu_map(&t->rust.iommu.domain,
							  size,
							  armv8_oa(t, lg2),
							  size, prot,
							  GFP_KERNEL));
				armv8_map_c(test, t, size, armv8_oa(t, lg2),
					    size, size, prot);
			}
			KUNIT_EXPECT_EQ(test, armv8_compare(test, t),
					hweight_long(sizes));
			armv8_stop(test, t);
		}
	}
}

/* A split leaves what io-pgtable-arm makes of the same pieces */
static void armv8_split(struct kunit *test)
{
	struct device *dev = armv8_device(test);
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	int prot = IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	KUNIT_EXPECT_TRUE(test, pt_iommu_armv8_can_split());
	for (i = 0; i != ARRAY_SIZE(armv8_kinds); i++) {
		struct iommu_domain *domain = &t->rust.iommu.domain;
		unsigned long page, block, below;
		u64 oa;

		armv8_start(test, t, &armv8_kinds[i], dev);
		page = BIT(__ffs(t->cfg.pgsize_bitmap));
		block = BIT(__fls(t->cfg.pgsize_bitmap));
		/* The size between them, where there is one */
		below = BIT(__fls(t->cfg.pgsize_bitmap & ~block));
		oa = armv8_oa(t, __fls(block));
		KUNIT_ASSERT_EQ(test, 0, iommu_map(domain, block, oa, block,
						   prot, GFP_KERNEL));
		KUNIT_ASSERT_EQ(test, 0, iommu_split(domain, block + page, page,
						     GFP_KERNEL));
		if (below == page)
			below = block;
		armv8_map_c(test, t, block, oa, below, page, prot);
		if (below != block)
			armv8_map_c(test, t, block + below, oa + below,
				    block - below, below, prot);
		KUNIT_EXPECT_EQ(test, armv8_compare(test, t),
				below / page + block / below - 1);

		KUNIT_EXPECT_EQ(test, page,
				iommu_unmap(domain, block + page, page));
		KUNIT_EXPECT_EQ(test, page,
				t->c->unmap_pages(t->c, block + page, page, 1,
						  NULL));
		armv8_compare(test, t);
		KUNIT_EXPECT_EQ(test, oa,
				iommu_iova_to_phys(domain, block));
		KUNIT_EXPECT_EQ(test, 0,
				iommu_iova_to_phys(domain, block + page));
		armv8_stop(test, t);
	}
}

#include "armv8_join.h"

/* DDI 0487, section D8.3: block and page descriptors */
static void armv8_raw(struct kunit *test)
{
	static const struct {
		unsigned int tgsz_lg2;
		unsigned int features;
		int prot;
		u64 oa;
		unsigned int lg2;
		u64 item;
	} cases[] = {
		/* Page, AP[1], SH outer, AF, nG */
		{ 12, 0, IOMMU_READ | IOMMU_WRITE, 0x12345000, 12, 0x12345e43 },
		/* AP[2]; UXN, PXN */
		{ 12, 0, IOMMU_READ | IOMMU_NOEXEC, 0x12345000, 12,
		  BIT_ULL(54) | BIT_ULL(53) | 0x12345ec3 },
		/* Block, SH inner, AttrIndx 1; privileged */
		{ 12, 0, IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE | IOMMU_PRIV,
		  0x200000, 21, 0x200f05 },
		/* AttrIndx 2 */
		{ 12, 0, IOMMU_READ | IOMMU_WRITE | IOMMU_MMIO, 0x40000000, 30,
		  0x40000e49 },
		/* S2AP, MemAttr 15; 6 with FWB; 5; 1 */
		{ 12, S2, IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE, 0x7000, 12,
		  0x77ff },
		{ 12, S2 | S2FWB, IOMMU_READ | IOMMU_CACHE, 0x7000, 12,
		  0x775b },
		{ 14, S2, IOMMU_WRITE, 0x6000000, 25, 0x6000695 },
		{ 16, S2, IOMMU_READ | IOMMU_MMIO, 0x70000, 16, 0x70647 },
		{ 14, 0, IOMMU_READ | IOMMU_WRITE, 0x1c000, 14, 0x1ce43 },
		{ 16, 0, IOMMU_READ | IOMMU_WRITE, 0x20000000, 29, 0x20000e41 },
	};
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	struct pt_iommu_armv8 *table = &t->rust;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	for (i = 0; i != ARRAY_SIZE(cases); i++) {
		unsigned int bits = cases[i].tgsz_lg2 - 3;
		unsigned int level = bits == 9 ? 2 : 1; /* of the top */
		struct armv8_kind kind = {
			.tgsz_lg2 = cases[i].tgsz_lg2,
			.features = cases[i].features,
			.ias = cases[i].tgsz_lg2 + (level + 1) * bits,
			.oas = 40,
		};
		unsigned int leaf = (cases[i].lg2 - kind.tgsz_lg2) / bits;
		struct pt_iommu_armv8_hw_info info = {};
		u64 *items;

		KUNIT_ASSERT_EQ(test, 0, armv8_init_rust(table, &kind));
		pt_iommu_armv8_hw_info(table, &info);
		KUNIT_ASSERT_EQ(test, 0,
				iommu_map(&table->iommu.domain, 0, cases[i].oa,
					  BIT(cases[i].lg2), cases[i].prot,
					  GFP_KERNEL));
		items = phys_to_virt(info.ttb);
		for (; level != leaf; level--) {
			u64 address = GENMASK_ULL(47, kind.tgsz_lg2);

			/* Table: nothing but type and address */
			KUNIT_ASSERT_EQ(test, items[0] & ~address, 3);
			items = phys_to_virt(items[0] & address);
		}
		KUNIT_EXPECT_EQ_MSG(test, items[0], cases[i].item, "case %u",
				    i);
		pt_iommu_deinit(&table->iommu);
	}
}

static void armv8_field(struct kunit *test, const char *name, u64 rust, u64 c)
{
	KUNIT_EXPECT_EQ_MSG(test, rust, c, "%s", name);
}

/* What the driver tells the SMMU is what it tells it of io-pgtable-arm */
static void armv8_hw_info(struct kunit *test)
{
	struct device *dev = armv8_device(test);
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	for (i = 0; i != ARRAY_SIZE(armv8_kinds); i++) {
		const struct io_pgtable_cfg *c = &t->cfg;
		bool s2 = armv8_stage2(&armv8_kinds[i]);

		armv8_start(test, t, &armv8_kinds[i], dev);
		armv8_field(test, "tsz", t->info.tsz,
			    s2 ? c->arm_lpae_s2_cfg.vtcr.tsz :
				 c->arm_lpae_s1_cfg.tcr.tsz);
		armv8_field(test, "tg", t->info.tg,
			    s2 ? c->arm_lpae_s2_cfg.vtcr.tg :
				 c->arm_lpae_s1_cfg.tcr.tg);
		armv8_field(test, "ps", t->info.ps,
			    s2 ? c->arm_lpae_s2_cfg.vtcr.ps :
				 c->arm_lpae_s1_cfg.tcr.ips);
		armv8_field(test, "sh", t->info.sh,
			    s2 ? c->arm_lpae_s2_cfg.vtcr.sh :
				 c->arm_lpae_s1_cfg.tcr.sh);
		armv8_field(test, "irgn", t->info.irgn,
			    s2 ? c->arm_lpae_s2_cfg.vtcr.irgn :
				 c->arm_lpae_s1_cfg.tcr.irgn);
		armv8_field(test, "orgn", t->info.orgn,
			    s2 ? c->arm_lpae_s2_cfg.vtcr.orgn :
				 c->arm_lpae_s1_cfg.tcr.orgn);
		/* Outer shareable and not cached, or else the CPU's caches */
		armv8_field(test, "sh of walks", t->info.sh,
			    armv8_incoherent(t->kind) ? 2 : 3);
		armv8_field(test, "irgn of walks", t->info.irgn,
			    !armv8_incoherent(t->kind));
		armv8_field(test, "orgn of walks", t->info.orgn,
			    !armv8_incoherent(t->kind));
		if (s2)
			armv8_field(test, "sl0", t->info.s2.sl0,
				    c->arm_lpae_s2_cfg.vtcr.sl);
		else
			/*
			 * The attributes that items name. io-pgtable-arm sets
			 * the others by extending a sign.
			 */
			armv8_field(test, "mair", t->info.s1.mair,
				    lower_32_bits(c->arm_lpae_s1_cfg.mair));
		armv8_stop(test, t);
	}
}

/* What is not served: refused, never guessed */
static void armv8_refused(struct kunit *test)
{
	static const struct {
		struct armv8_kind kind;
		int ret;
	} cases[] = {
		{ { 13, 0, 39, 48 }, -EOPNOTSUPP }, /* no such granule */
		{ { 12, 0, 39, 45 }, -EOPNOTSUPP }, /* no such size of OA */
		{ { 12, 0, 49, 48 }, -EINVAL },
		{ { 12, 0, 48, 52 }, -EOPNOTSUPP },
		{ { 16, 0, 48, 52 }, -EOPNOTSUPP },
		{ { 12, 0, 12, 48 }, -EINVAL }, /* no item to look up */
		{ { 12, S2FWB, 39, 48 }, -EINVAL },
		/* What would take several top tables side by side */
		{ { 12, S2, 40, 40 }, -EOPNOTSUPP },
		{ { 12, S2, 42, 42 }, -EOPNOTSUPP },
		{ { 14, S2, 48, 48 }, -EOPNOTSUPP },
		{ { 14, S2, 40, 40 }, -EOPNOTSUPP },
		{ { 16, S2, 43, 42 }, -EOPNOTSUPP },
		{ { 12, S2, 21, 48 }, -EOPNOTSUPP }, /* one level */
	};
	struct armv8_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	struct pt_iommu_armv8 *table = &t->rust;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	for (i = 0; i != ARRAY_SIZE(cases); i++)
		KUNIT_EXPECT_EQ_MSG(test, cases[i].ret,
				    armv8_init_rust(table, &cases[i].kind),
				    "case %u", i);
}

static struct kunit_case armv8_cases[] = {
	KUNIT_CASE(armv8_items), KUNIT_CASE(armv8_split),
	KUNIT_CASE(armv8_join),	 KUNIT_CASE(armv8_join_pairs),
	KUNIT_CASE(armv8_join_differs), KUNIT_CASE(armv8_join_edges),
	KUNIT_CASE(armv8_raw),	 KUNIT_CASE(armv8_hw_info),
	KUNIT_CASE(armv8_refused), {}
};

static struct kunit_suite armv8_suite = {
	.name = "armv8_raw_test",
	.test_cases = armv8_cases,
};

kunit_test_suite(armv8_suite);

MODULE_LICENSE("GPL");
