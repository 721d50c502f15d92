// SPDX-License-Identifier: GPL-2.0-only
/*
 * What armv8 is compared with: io-pgtable-arm, called as the SMMUv3 driver
 * calls it where the hardware is coherent.
 */
#include <linux/device.h>

#include "bench.h"

static struct bench_table *to_table(struct iommu_domain *domain)
{
	return container_of(domain, struct bench_table, domain);
}

int bench_io_map(struct iommu_domain *domain, unsigned long iova,
		 phys_addr_t paddr, size_t pgsize, size_t pgcount, int prot,
		 gfp_t gfp, size_t *mapped)
{
	struct io_pgtable_ops *io = to_table(domain)->io;

	return io->map_pages(io, iova, paddr, pgsize, pgcount, prot, gfp,
			     mapped);
}

size_t bench_io_unmap(struct iommu_domain *domain, unsigned long iova,
		      size_t pgsize, size_t pgcount,
		      struct iommu_iotlb_gather *gather)
{
	struct io_pgtable_ops *io = to_table(domain)->io;

	return io->unmap_pages(io, iova, pgsize, pgcount, gather);
}

phys_addr_t bench_io_iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	struct io_pgtable_ops *io = to_table(domain)->io;

	return io->iova_to_phys(io, iova);
}

static void bench_io_flush_all(void *cookie)
{
}

static void bench_io_flush_walk(unsigned long iova, size_t size, size_t granule,
				void *cookie)
{
}

static void bench_io_add_page(struct iommu_iotlb_gather *gather,
			      unsigned long iova, size_t granule, void *cookie)
{
	struct bench_table *table = cookie;

	iommu_iotlb_gather_add_page(&table->domain, gather, iova, granule);
}

static const struct iommu_flush_ops bench_io_flush_ops = {
	.tlb_flush_all = bench_io_flush_all,
	.tlb_flush_walk = bench_io_flush_walk,
	.tlb_add_page = bench_io_add_page,
};

int bench_io_init(struct bench_table *table)
{
	struct device *dev = root_device_register("iommu_pt_rust_bench");

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	table->io_cfg = (struct io_pgtable_cfg){
		.pgsize_bitmap = SZ_4K | SZ_2M | SZ_1G,
		.ias = 48,
		.oas = 48,
		.coherent_walk = true,
		.tlb = &bench_io_flush_ops,
		.iommu_dev = dev,
	};
	table->io = alloc_io_pgtable_ops(ARM_64_LPAE_S1, &table->io_cfg, table);
	if (!table->io) {
		root_device_unregister(dev);
		return -ENOMEM;
	}
	table->domain.type = __IOMMU_DOMAIN_PAGING;
	table->domain.pgsize_bitmap = table->io_cfg.pgsize_bitmap;
	return 0;
}

void bench_io_free(struct bench_table *table)
{
	free_io_pgtable_ops(table->io);
	root_device_unregister(table->io_cfg.iommu_dev);
}
