// SPDX-License-Identifier: GPL-2.0-only
/* Memory, a device, and the mappings between them. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/kernel.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/sizes.h>
#include <linux/vfio.h>

#include "split_dma.h"

int split_dma_map(struct split_dma *d, u32 window, u64 off, u64 len)
{
	const u32 flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			  IOMMU_IOAS_MAP_WRITEABLE;
	struct iommu_ioas_map_file file = {
		.size = sizeof(file),
		.flags = flags,
		.ioas_id = d->iommu->ioas_id,
		.fd = d->memfd,
		.start = off,
		.length = len,
		.iova = d->iova[window] + off,
	};
	struct iommu_ioas_map user = {
		.size = sizeof(user),
		.flags = flags,
		.ioas_id = d->iommu->ioas_id,
		.user_va = (u64)split_dma_vaddr(d, off),
		.length = len,
		.iova = d->iova[window] + off,
	};
	int ret;

	/* Odd windows are mapped by file, as VMMs do */
	if (window % 2 && d->memfd >= 0)
		ret = ioctl(d->iommu->iommufd, IOMMU_IOAS_MAP_FILE, &file);
	else
		ret = ioctl(d->iommu->iommufd, IOMMU_IOAS_MAP, &user);
	return ret ? -errno : 0;
}

int split_dma_copy(struct split_dma *d, u32 window, u64 off, u64 len)
{
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.dst_ioas_id = d->iommu->ioas_id,
		.src_ioas_id = d->iommu->ioas_id,
		.length = len,
		.dst_iova = d->iova[window] + off,
		.src_iova = d->iova[(window + 1) % SPLIT_DMA_WINDOWS] + off,
	};

	return ioctl(d->iommu->iommufd, IOMMU_IOAS_COPY, &cmd) ? -errno : 0;
}

int split_dma_unmap(struct split_dma *d, u32 window, u64 off, u64 len,
		    u64 *unmapped)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd),
		.ioas_id = d->iommu->ioas_id,
		.iova = d->iova[window] + off,
		.length = len,
	};

	if (ioctl(d->iommu->iommufd, IOMMU_IOAS_UNMAP, &cmd))
		return -errno;
	*unmapped = cmd.length;
	return 0;
}

/* A call that DMA must not notice */
static int live_call(struct split_dma *d, unsigned long request, void *cmd,
		     u64 *took)
{
	int ret, err;

	atomic_fetch_add(&d->splitting, 1);
	*took = now_ns();
	ret = ioctl(d->iommu->iommufd, request, cmd);
	err = errno;
	*took = now_ns() - *took;
	atomic_fetch_add(&d->splitting, 1);
	return ret ? -err : 0;
}

static int split_call(struct split_dma *d, u32 flags, u32 window, u64 off,
		      u64 len, u64 *ns)
{
	struct iommu_ioas_split cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = d->iommu->ioas_id,
		.iova = d->iova[window] + off,
		.length = len,
	};
	u64 took;
	int ret;

	ret = live_call(d, IOMMU_IOAS_SPLIT, &cmd, &took);
	if (ns)
		*ns = took;
	if (ret)
		return ret;
	d->splits++;
	d->split_ns += took;
	d->split_ns_max = max(d->split_ns_max, took);
	return 0;
}

int split_dma_split(struct split_dma *d, u32 window, u64 off, u64 len, u64 *ns)
{
	return split_call(d, 0, window, off, len, ns);
}

int split_dma_carve(struct split_dma *d, u32 window, u64 off, u64 len, u64 *ns)
{
	return split_call(d, IOMMU_IOAS_SPLIT_UNMAP, window, off, len, ns);
}

int split_dma_join(struct split_dma *d, u32 flags, u32 window, u64 off, u64 len)
{
	struct iommu_ioas_join cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = d->iommu->ioas_id,
		.iova = d->iova[window] + off,
		.length = len,
	};
	u64 took;
	int ret;

	ret = live_call(d, IOMMU_IOAS_JOIN, &cmd, &took);
	if (ret)
		return ret;
	d->joins++;
	d->join_ns += took;
	d->join_ns_max = max(d->join_ns_max, took);
	return 0;
}

bool split_dma_capable(struct split_dma *d)
{
	struct iommu_hw_info info = {
		.size = sizeof(info),
		.dev_id = d->device->iommufd_devid,
	};

	ioctl_assert(d->iommu->iommufd, IOMMU_GET_HW_INFO, &info);
	return info.out_capabilities & IOMMU_HW_CAP_HITLESS_SPLIT;
}

/* How large pages and windows are; or why there are none of this kind. */
static const char *set_sizes(struct split_dma *d, enum backing backing)
{
	u64 page = sysconf(_SC_PAGESIZE);
	u64 pmd = page * (page / sizeof(u64));
	u64 pud = pmd * (page / sizeof(u64));

	if (backing == BACKING_LARGEST)
		backing = pud <= SZ_1G ? BACKING_PUD : BACKING_PMD;

	d->page = page;
	d->block = pmd;
	switch (backing) {
	case BACKING_PAGES:
		d->backing = page;
		d->block = 512 * page;
		d->size = 8 * d->block;
		break;
	case BACKING_PMD:
		d->backing = pmd;
		/* Whole leaves are left between two that are cut */
		d->size = max(4 * pmd, (u64)SZ_64M);
		break;
	default:
		d->backing = pud;
		d->size = pud;
		break;
	}
	return d->backing <= SZ_1G ? NULL : "huge pages of this kind are larger than 1G";
}

static const char *no_huge_pages(struct split_dma *d)
{
	const char *size = leaf_size_name(d->backing);
	u64 nr = d->size / d->backing;
	static char reason[128];

	if (d->backing <= SZ_2M)
		snprintf_assert(reason, sizeof(reason),
				"not enough free huge pages of %s, write %lu to /proc/sys/vm/nr_hugepages",
				size, 2 * nr);
	else
		snprintf_assert(reason, sizeof(reason),
				"not enough free huge pages of %s, boot with hugepagesz=%s hugepages=%lu",
				size, size, nr);
	return reason;
}

/*
 * Small pages that follow each other in memory are mapped by a large leaf, if
 * it so happens. First every other page is allocated, then those between.
 */
static void scatter(struct split_dma *d)
{
	u64 first, off;

	for (first = 0; first != 2; first++)
		for (off = first * d->page; off < d->size; off += 2 * d->page)
			memset(d->mem + off, 0, 1);
}

static const char *alloc_memory(struct split_dma *d)
{
	int flags = MAP_SHARED;

	d->memfd = -1;
	if (d->backing == d->page) {
		flags = MAP_PRIVATE | MAP_ANONYMOUS;
	} else {
		d->memfd = memfd_create("split_dma", MFD_HUGETLB |
					__builtin_ctzl(d->backing) << MFD_HUGE_SHIFT);
		if (d->memfd < 0 || ftruncate(d->memfd, d->size))
			return "no huge pages of this size, enable CONFIG_HUGETLBFS";
	}

	d->mem = mmap(NULL, d->size, PROT_READ | PROT_WRITE, flags, d->memfd, 0);
	if (d->mem == MAP_FAILED)
		return no_huge_pages(d);
	if (d->backing == d->page) {
		madvise(d->mem, d->size, MADV_NOHUGEPAGE);
		scatter(d);
	}
	return NULL;
}

static void map_ring(struct split_dma *d)
{
	struct dma_region *ring = &d->device->driver.region;

	ring->size = SZ_2M;
	ring->vaddr = mmap(NULL, ring->size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(ring->vaddr, MAP_FAILED);
	ring->iova = iova_allocator_alloc(d->iova_allocator, ring->size);
	iommu_map(d->iommu, ring);
}

/* The domain that vfio_pci_device_init() made goes with its last device */
static const char *attach_nest_parent(struct split_dma *d)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = IOMMU_HWPT_ALLOC_NEST_PARENT,
		.dev_id = d->device->iommufd_devid,
		.pt_id = d->iommu->ioas_id,
	};
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach),
	};

	if (ioctl(d->iommu->iommufd, IOMMU_HWPT_ALLOC, &alloc))
		return "this IOMMU has no nest parents (IOMMU_HWPT_ALLOC_NEST_PARENT)";
	attach.pt_id = alloc.out_hwpt_id;
	ioctl_assert(d->device->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
	return NULL;
}

const char *split_dma_init(struct split_dma *d, const char *bdf,
			   enum backing backing, bool nest_parent, u64 seed)
{
	const char *err;
	u32 i;

	memset(d, 0, sizeof(*d));
	pthread_mutex_init(&d->lock, NULL);
	d->rng = seed;

	err = set_sizes(d, backing);
	if (!err)
		err = alloc_memory(d);
	if (err)
		return err;

	fault_log_open(&d->faults, bdf);
	d->iommu = iommu_init(MODE_IOMMUFD);
	d->device = vfio_pci_device_init(bdf, d->iommu);
	if (!d->device->driver.ops)
		return "libvfio has no driver for this device";
	d->iova_allocator = iova_allocator_init(d->iommu);
	if (nest_parent) {
		err = attach_nest_parent(d);
		if (err)
			return err;
	}
	map_ring(d);

	/* Neighbours, so that one range can reach into both */
	d->iova[0] = iova_allocator_alloc(d->iova_allocator,
					  d->size * SPLIT_DMA_WINDOWS);
	for (i = 0; i < SPLIT_DMA_WINDOWS; i++) {
		d->iova[i] = d->iova[0] + i * d->size;
		VFIO_ASSERT_EQ(split_dma_map(d, i, 0, d->size), 0);
	}

	vfio_pci_driver_init(d->device);
	return NULL;
}

void split_dma_cleanup(struct split_dma *d)
{
	split_dma_stop(d);
	iova_allocator_cleanup(d->iova_allocator);
	vfio_pci_device_cleanup(d->device);
	iommu_cleanup(d->iommu);
	fault_log_close(&d->faults);
	munmap(d->mem, d->size);
	if (d->memfd >= 0)
		close(d->memfd);
}
