/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The C and the Rust page tables, timed side by side.
 */
#ifndef __IOMMU_PT_BENCH_H
#define __IOMMU_PT_BENCH_H

#include <linux/generic_pt/iommu.h>
#include <linux/io-pgtable.h>
#include <linux/iommu.h>
#include <linux/spinlock.h>

struct bench_table {
	union {
		struct iommu_domain domain;
		struct pt_iommu iommu;
		struct pt_iommu_amdv1 amdv1;
		struct pt_iommu_armv8 armv8;
		struct pt_iommu_riscv_64 riscv_64;
		struct pt_iommu_vtdss vtdss;
		struct pt_iommu_x86_64 x86_64;
	};
	spinlock_t top_lock; /* of a top that grows */
	unsigned long replaced; /* flushes after leaf_to_table */
	/* Of a table of io-pgtable, which is the domain alone */
	struct io_pgtable_cfg io_cfg;
	struct io_pgtable_ops *io;
};

/**
 * struct bench_provider - one implementation of one format
 * @format: name of the format, as in pt_iommu_<format>_init()
 * @name: "c" or "rust"
 * @init: makes an empty table, as the driver does on coherent hardware
 * @domain_ops: of the domain
 * @dirty_ops: of the domain, if the format has dirty bits
 */
struct bench_provider {
	const char *format;
	const char *name;
	int (*init)(struct bench_table *table);
	struct iommu_domain_ops domain_ops;
	struct iommu_dirty_ops dirty_ops;
};

extern const struct bench_provider bench_providers[];
extern const unsigned int bench_num_providers;

struct bench_table *bench_table_alloc(const struct bench_provider *provider);
void bench_table_free(struct bench_table *table);
void bench_iotlb_sync(struct iommu_domain *domain,
		      struct iommu_iotlb_gather *gather);

/* Of io-pgtable-arm: there is no C format of the name armv8 */
int bench_io_init(struct bench_table *table);
void bench_io_free(struct bench_table *table);
int bench_io_map(struct iommu_domain *domain, unsigned long iova,
		 phys_addr_t paddr, size_t pgsize, size_t pgcount, int prot,
		 gfp_t gfp, size_t *mapped);
size_t bench_io_unmap(struct iommu_domain *domain, unsigned long iova,
		      size_t pgsize, size_t pgcount,
		      struct iommu_iotlb_gather *gather);
phys_addr_t bench_io_iova_to_phys(struct iommu_domain *domain,
				  dma_addr_t iova);

/*
 * What operations need from the runner: bench_start() and bench_stop() enclose
 * a section in which one thing is done @calls times, and nothing else.
 */
struct bench;
void bench_start(struct bench *bench);
void bench_stop(struct bench *bench, const char *what, unsigned long calls);
gfp_t bench_gfp(struct bench *bench);

/* Runs everything once; 0, or the errno of what failed */
int bench_operations(struct bench *bench, struct bench_table *table);
int bench_memory(struct bench *bench);
int bench_split(struct bench *bench, struct bench_table *table);
int bench_floors(struct bench *bench);

#endif
