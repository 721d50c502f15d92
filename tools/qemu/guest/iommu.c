// SPDX-License-Identifier: GPL-2.0-only
/*
 * Conversions by an emulated IOMMU: what is "private" is not mapped for the disk. The disk gets a
 * domain in which all memory is mapped to itself, with pages of 2M where they fit. To take memory
 * away that lies in one, the page is split, which the kernel does in a guest only with
 * iommu.split_shadowed=1. The VMM has to follow. The kernel's own use of DMA must be without the
 * IOMMU (iommu=pt), as the addresses of disk and memory are the same then.
 */

#include <linux/io.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/pci.h>

#include "converter.h"

#define LOW	SZ_1M

/* It is the same memory all the time. */
const struct conversion conversion = {
	.granule = PAGE_SIZE,
	.private_keeps_shared = true,
	.shared_keeps_private = true,
};

static struct pci_dev *nvme;
static struct iommu_domain *domain;

static int map(u64 addr, u64 bytes)
{
	return iommu_map(domain, addr, addr, bytes, IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
}

/* From the first MiB, in which not all is RAM, to the end. */
static int give_domain(void)
{
	int rc;

	domain = iommu_paging_domain_alloc(&nvme->dev);
	if (IS_ERR(domain))
		return PTR_ERR(domain);
	rc = map(LOW, PFN_PHYS(node_end_pfn(0)) - LOW);
	if (!rc)
		rc = iommu_attach_device(domain, &nvme->dev);
	if (rc)
		iommu_domain_free(domain);
	return rc;
}

int converter_open(void)
{
	int rc;

	nvme = pci_get_class(PCI_CLASS_STORAGE_EXPRESS, NULL);
	if (!nvme)
		return -ENODEV;
	rc = give_domain();
	if (rc)
		pci_dev_put(nvme);
	return rc;
}

void converter_close(void)
{
	iommu_detach_device(domain, &nvme->dev);
	iommu_domain_free(domain);
	pci_dev_put(nvme);
}

long convert_range(u64 gpa, u64 npages, bool private)
{
	u64 bytes = PFN_PHYS(npages);
	int rc;

	if (!private)
		return map(gpa, bytes);
	rc = iommu_split(domain, gpa, bytes, GFP_KERNEL);
	if (rc)
		return rc;
	return iommu_unmap(domain, gpa, bytes) == bytes ? 0 : -EIO;
}

/* There are none: its own kernel looks at them, not the VMM. */
void bad_requests(void *at)
{
}

MODULE_IMPORT_NS("IOMMUFD_INTERNAL");
