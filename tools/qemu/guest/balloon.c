// SPDX-License-Identifier: GPL-2.0-only
/*
 * Conversions by a virtio balloon: what is "private" is in the balloon. The kernel's own driver
 * chooses the pages that it gives to the balloon, so the device must have no driver when this is
 * loaded. Inflating drops what is in the pages; deflating keeps what is there by then.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "converter.h"

static void last_requests(void *at);

const struct conversion conversion = {
	.granule = PAGE_SIZE,
	.shared_keeps_private = true,
	.last_requests = last_requests,
};

/* Of virtio-mem, which is at 4 GiB: mem.c has been here before, and has left it allocated. */
#define PLUGGED	(SZ_4G + SZ_64M)

/* Pages in one request, as many as the kernel's driver has. */
#define PFNS	256

/* One request at a time. */
static DEFINE_MUTEX(lock);
static struct virtio_device *device;
static struct virtqueue *queues[2];
static DECLARE_COMPLETION(answered);
/* Allocated: the device does not read the memory of modules. */
static __virtio32 *pfns;

static void answer(struct virtqueue *vq)
{
	complete(&answered);
}

static int find_queues(struct virtio_device *vdev)
{
	struct virtqueue_info info[] = {
		{ "inflate", answer },
		{ "deflate", answer },
	};
	int rc = virtio_find_vqs(vdev, ARRAY_SIZE(info), queues, info, NULL);

	if (!rc)
		virtio_device_ready(vdev);
	return rc;
}

static int probe(struct virtio_device *vdev)
{
	int rc;

	/* Else a page may be used before it is out of the balloon, and QEMU takes none. */
	if (!virtio_has_feature(vdev, VIRTIO_BALLOON_F_MUST_TELL_HOST))
		return -ENODEV;
	rc = find_queues(vdev);
	if (!rc)
		device = vdev;
	return rc;
}

static void remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	device = NULL;
}

static const struct virtio_device_id ids[] = {
	{ VIRTIO_ID_BALLOON, VIRTIO_DEV_ANY_ID },
	{ }
};

static const unsigned int features[] = { VIRTIO_BALLOON_F_MUST_TELL_HOST };

static struct virtio_driver driver = {
	.driver.name = "converter",
	.id_table = ids,
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.probe = probe,
	.remove = remove,
};

int converter_open(void)
{
	int rc;

	pfns = kmalloc_array(PFNS, sizeof(*pfns), GFP_KERNEL);
	if (!pfns)
		return -ENOMEM;
	rc = register_virtio_driver(&driver);
	if (!rc && device)
		return 0;
	if (!rc) {
		unregister_virtio_driver(&driver);
		rc = -ENODEV;
	}
	kfree(pfns);
	return rc;
}

void converter_close(void)
{
	unregister_virtio_driver(&driver);
	kfree(pfns);
}

/* Sends the first @bytes of what is in pfns, and waits for the answer. */
static int request(bool private, size_t bytes)
{
	struct virtqueue *vq = queues[private ? 0 : 1];
	struct scatterlist sg;
	unsigned int len;
	int rc;

	sg_init_one(&sg, pfns, bytes);
	rc = virtqueue_add_outbuf(vq, &sg, 1, pfns, GFP_KERNEL);
	if (rc)
		return rc;
	reinit_completion(&answered);
	virtqueue_kick(vq);
	while (!virtqueue_get_buf(vq, &len))
		if (!wait_for_completion_timeout(&answered, 10 * HZ))
			return -ETIMEDOUT;
	return 0;
}

long convert_range(u64 gpa, u64 npages, bool private)
{
	u64 pfn = gpa >> VIRTIO_BALLOON_PFN_SHIFT, end = pfn + npages;
	int rc = 0;

	guard(mutex)(&lock);
	while (pfn < end && !rc) {
		unsigned int n;

		for (n = 0; n < PFNS && pfn < end; n++)
			pfns[n] = cpu_to_virtio32(device, pfn++);
		rc = request(private, n * sizeof(pfns[0]));
	}
	return rc;
}

/* A request that is about nothing: no error can come back, and the disk reaches @at as before. */
static void no_effect(u64 gpa, bool private, void *at, const char *name)
{
	result(!convert_range(gpa, 1, private) && !read_wrong(at, PAGE_SIZE, 0), name);
}

/* The balloon does not take the page: it has what it had, and the disk reaches it. */
static void not_taken(void *at, const char *name)
{
	memset(at, 0x77, PAGE_SIZE);
	result(!convert(at, PAGE_SIZE, true) && !memchr_inv(at, 0x77, PAGE_SIZE) &&
	       !read_wrong(at, PAGE_SIZE, 0), name);
}

/*
 * One page of three is in the balloon when all are to be taken, and QEMU fails when the disk has
 * lost them (tools/qemu/demo.patch).
 */
static void failed_discard(void *at)
{
	bool right = !convert(at + PAGE_SIZE, PAGE_SIZE, true) &&
		     !convert(at, 3 * PAGE_SIZE, true);

	result(right && !read_wrong(at, PAGE_SIZE, 0) &&
	       !read_wrong(at + 2 * PAGE_SIZE, PAGE_SIZE, 0), "what cannot be discarded is shared");
	result(dma_blocked(at + PAGE_SIZE, PAGE_SIZE), "what was private before is not");
	result(!convert(at, 3 * PAGE_SIZE, false) && !read_wrong(at, 3 * PAGE_SIZE, 0),
	       "all of it to shared");
}

static bool reset_device(void)
{
	guard(mutex)(&lock);
	virtio_reset_device(device);
	device->config->del_vqs(device);
	virtio_add_status(device, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	virtio_add_status(device, VIRTIO_CONFIG_S_DRIVER);
	if (device->config->finalize_features(device))
		return false;
	virtio_add_status(device, VIRTIO_CONFIG_S_FEATURES_OK);
	return !find_queues(device);
}

void bad_requests(void *at)
{
	u64 gpa = virt_to_phys(at), end = PFN_PHYS(node_end_pfn(0));
	struct pci_dev *nvme = pci_get_class(PCI_CLASS_STORAGE_EXPRESS, NULL);
	bool right;
	int i;

	no_effect(end, true, at, "behind all memory");
	no_effect(SZ_2G, true, at, "not RAM");
	no_effect(0xffffffffULL << PAGE_SHIFT, true, at, "the last page that has a number");
	no_effect(0xfffff000, true, at, "firmware");
	if (nvme)
		no_effect(pci_resource_start(nvme, 0), true, at, "the registers of the disk");
	pci_dev_put(nvme);
	if (end > PLUGGED)
		not_taken(phys_to_virt(PLUGGED), "memory of virtio-mem");
	else
		result(false, "there is memory of virtio-mem");

	scoped_guard(mutex, &lock) {
		pfns[0] = cpu_to_virtio32(device, gpa >> PAGE_SHIFT);
		right = !request(true, 3);
	}
	result(right && !read_wrong(at, PAGE_SIZE, 0), "three bytes of a number");

	/* DMA to it does not stop for that: a page that is not in the balloon is not touched. */
	right = true;
	for (i = 0; i < 50; i++)
		right &= !convert(at, PAGE_SIZE, false) && !read_wrong(at, PAGE_SIZE, 0);
	result(right, "out of the balloon what is not in it");

	result(!convert(at, PAGE_SIZE, true) && dma_blocked(at, PAGE_SIZE), "a page to private");
	result(!convert(at, PAGE_SIZE, true) && dma_blocked(at, PAGE_SIZE), "again");
	result(!convert(at, PAGE_SIZE, false) && !read_wrong(at, PAGE_SIZE, 0),
	       "the page to shared");
	failed_discard(at);

	/* As after a reboot: nobody says what was in the balloon. */
	right = !convert(at, 4 * PAGE_SIZE, true) && dma_blocked(at, 4 * PAGE_SIZE);
	result(right && reset_device() && !read_wrong(at, 4 * PAGE_SIZE, 0),
	       "all is shared when the balloon has been reset");
}

/* The monitor asks for another size of the balloon when it has plugged in a device. */
static bool plugged_in(void)
{
	u32 pages = 0;
	int i;

	pr_err("ready for another device\n");
	for (i = 0; i < 1200 && !pages; i++) {
		msleep(100);
		virtio_cread_le(device, struct virtio_balloon_config, num_pages, &pages);
	}
	return pages;
}

/* A device comes that cannot let go of single pages. The balloon has to give back what it has. */
static void last_requests(void *at)
{
	bool right = !convert(at, 4 * PAGE_SIZE, true) && dma_blocked(at, 4 * PAGE_SIZE);

	result(right && plugged_in() && dma_blocked(at, 4 * PAGE_SIZE),
	       "private, and another device comes");
	result(!convert(at, 4 * PAGE_SIZE, false) && !read_wrong(at, 4 * PAGE_SIZE, 0),
	       "to shared beside it");
	not_taken(at, "a page beside it");
}
