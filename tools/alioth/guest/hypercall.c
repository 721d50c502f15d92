// SPDX-License-Identifier: GPL-2.0-only
/* Conversions by KVM_HC_MAP_GPA_RANGE, which a confidential guest makes and its VMM follows. */

#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/pci.h>
#include <uapi/linux/kvm_para.h>

#include "converter.h"

/* Private memory is another file. */
const struct conversion conversion = { .granule = PAGE_SIZE };

int converter_open(void)
{
	return 0;
}

void converter_close(void)
{
}

long convert_range(u64 gpa, u64 npages, bool private)
{
	u64 attributes = KVM_MAP_GPA_RANGE_PAGE_SZ_4K;

	attributes |= private ? KVM_MAP_GPA_RANGE_ENCRYPTED : KVM_MAP_GPA_RANGE_DECRYPTED;
	return kvm_hypercall3(KVM_HC_MAP_GPA_RANGE, gpa, npages, attributes);
}

/* A request that has to fail, and after which the disk reaches the page at @at as before. */
static void refused(u64 gpa, u64 npages, bool private, void *at, const char *name)
{
	long rc = convert_range(gpa, npages, private);
	bool as_before;

	/* What was to become shared is private. */
	as_before = private ? !read_wrong(at, PAGE_SIZE, 0) : dma_blocked(at, PAGE_SIZE);
	pr_err("%s: %ld\n", name, rc);
	result(rc && as_before, name);
}

void bad_requests(void *at)
{
	u64 gpa = virt_to_phys(at), ram_end = PFN_PHYS(node_end_pfn(0));
	struct pci_dev *nvme = pci_get_class(PCI_CLASS_STORAGE_EXPRESS, NULL);

	refused(ram_end + (1 << 30), 1, true, at, "not RAM");
	refused(ram_end - PAGE_SIZE, 2, true, at, "RAM, and what is behind it");
	if (nvme)
		refused(pci_resource_start(nvme, 0), 1, true, at, "the registers of the disk");
	pci_dev_put(nvme);
	refused(gpa, 0, true, at, "no page");
	refused(gpa + 512, 1, true, at, "not whole pages");
	refused(gpa, 1ULL << 52, true, at, "2^64 bytes");
	refused(gpa, (1ULL << 52) + 1, true, at, "2^64 bytes and a page");
	refused(gpa, (1ULL << 52) - (gpa >> PAGE_SHIFT), true, at, "up to 2^64");
	refused(gpa, (1ULL << 52) - 1, true, at, "beyond 2^64");

	result(!convert(at, PAGE_SIZE, true) && dma_blocked(at, PAGE_SIZE), "a page to private");
	refused(gpa, (1ULL << 52) + 1, false, at, "2^64 bytes and a page, to shared");
	refused(gpa, (ram_end - gpa) / PAGE_SIZE + 1, false, at, "RAM and more, to shared");
	result(!convert(at, PAGE_SIZE, false) && !read_wrong(at, PAGE_SIZE, 0),
	       "the page to shared");
}
