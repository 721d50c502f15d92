/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of a test: where its memory comes from, what it flushes and frees,
 * and for which configurations and features a case runs.
 */
#ifndef __IOMMU_PT_RUST_KUNIT_RAW_FIXTURE_H
#define __IOMMU_PT_RUST_KUNIT_RAW_FIXTURE_H

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
	t->sync_pages = raw_pages(t);
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

#endif
