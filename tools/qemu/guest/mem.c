// SPDX-License-Identifier: GPL-2.0-only
/*
 * Conversions by a virtio-mem device: what is "private" is unplugged. The kernel's own driver
 * chooses the blocks, so it must not be loaded; it does the rest of the test (init). As it does,
 * this plugs all blocks and adds them to the kernel's memory.
 *
 * A driver may not touch what is unplugged. QEMU lets it, and to see that no DMA arrives there
 * somebody has to look.
 */

#include <linux/completion.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>

#include "converter.h"

/* One request at a time. */
static DEFINE_MUTEX(lock);
static struct virtio_device *device;
static struct virtqueue *queue;
static DECLARE_COMPLETION(answered);
static u64 block_size, region, region_size;
/* Allocated: the device does not read the memory of modules. There are two. */
static struct message {
	struct virtio_mem_req req;
	struct virtio_mem_resp resp;
} *messages;

/* Between other blocks, all of which are one mapping for devices if they can be. */
static void *memory(size_t bytes)
{
	unsigned long pfn = PHYS_PFN(region + region_size / 4);

	if (alloc_contig_range(pfn, pfn + PHYS_PFN(bytes), ACR_FLAGS_NONE, GFP_KERNEL))
		return NULL;
	return phys_to_virt(PFN_PHYS(pfn));
}

/* The block size that tools/guest/qemu chooses. */
const struct conversion conversion = {
	.granule = 1 << 20,
	.shared_keeps_private = true,
	.memory = memory,
};

static void answer(struct virtqueue *vq)
{
	complete(&answered);
}

static int probe(struct virtio_device *vdev)
{
	struct virtqueue_info info[] = { { "guest-request", answer } };
	int rc = virtio_find_vqs(vdev, ARRAY_SIZE(info), &queue, info, NULL);

	if (rc)
		return rc;
	virtio_cread_le(vdev, struct virtio_mem_config, block_size, &block_size);
	virtio_cread_le(vdev, struct virtio_mem_config, addr, &region);
	virtio_cread_le(vdev, struct virtio_mem_config, region_size, &region_size);
	virtio_device_ready(vdev);
	device = vdev;
	return 0;
}

static void remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	device = NULL;
}

static const struct virtio_device_id ids[] = {
	{ VIRTIO_ID_MEM, VIRTIO_DEV_ANY_ID },
	{ }
};

static const unsigned int features[] = {
	VIRTIO_MEM_F_ACPI_PXM,
	VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE,
};

static struct virtio_driver driver = {
	.driver.name = "converter-mem",
	.id_table = ids,
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.probe = probe,
	.remove = remove,
};

static int add_request(struct message *message, unsigned int type, u64 addr, unsigned int blocks)
{
	struct scatterlist req, resp, *sgs[] = { &req, &resp };

	memset(message, 0, sizeof(*message));
	message->req.type = cpu_to_virtio16(device, type);
	/* All requests have these two at the same place. */
	message->req.u.plug.addr = cpu_to_virtio64(device, addr);
	message->req.u.plug.nb_blocks = cpu_to_virtio16(device, blocks);
	sg_init_one(&req, &message->req, sizeof(message->req));
	sg_init_one(&resp, &message->resp, sizeof(message->resp));
	return virtqueue_add_sgs(queue, sgs, 1, 1, message, GFP_KERNEL);
}

static int wait_for_answer(void)
{
	unsigned int len;

	while (!virtqueue_get_buf(queue, &len))
		if (!wait_for_completion_timeout(&answered, 10 * HZ))
			return -ETIMEDOUT;
	return 0;
}

static int answer_to(const struct message *message)
{
	return virtio16_to_cpu(device, message->resp.type);
}

/* Sends a request, waits for the answer, and returns what it says. */
static int request(unsigned int type, u64 addr, unsigned int blocks)
{
	int rc;

	guard(mutex)(&lock);
	rc = add_request(messages, type, addr, blocks);
	if (rc)
		return rc;
	reinit_completion(&answered);
	virtqueue_kick(queue);
	rc = wait_for_answer();
	return rc ?: answer_to(messages);
}

long convert_range(u64 gpa, u64 npages, bool private)
{
	return request(private ? VIRTIO_MEM_REQ_UNPLUG : VIRTIO_MEM_REQ_PLUG, gpa,
		       PFN_PHYS(npages) / block_size);
}

static int plug_all(void)
{
	if (!device || block_size != conversion.granule)
		return -ENODEV;
	if (request(VIRTIO_MEM_REQ_PLUG, region, region_size / block_size))
		return -EIO;
	return add_memory_driver_managed(0, region, region_size, "System RAM (converter)",
					 MHP_NONE);
}

int converter_open(void)
{
	int rc;

	messages = kcalloc(2, sizeof(*messages), GFP_KERNEL);
	if (!messages)
		return -ENOMEM;
	rc = register_virtio_driver(&driver);
	if (rc)
		goto free;
	rc = plug_all();
	if (!rc)
		return 0;
	unregister_virtio_driver(&driver);
free:
	kfree(messages);
	return rc;
}

/* Memory that the kernel has stays with it, and with the device. */
void converter_close(void)
{
	unregister_virtio_driver(&driver);
	kfree(messages);
}

/* Too many are denied before it is looked which. */
static bool denied(int rc)
{
	return rc == VIRTIO_MEM_RESP_ERROR || rc == VIRTIO_MEM_RESP_NACK;
}

/* Blocks of which one cannot be had, after which the disk reaches @at as before. */
static void refused(unsigned int type, u64 addr, unsigned int blocks, void *at, const char *name)
{
	int rc = request(type, addr, blocks);

	result(denied(rc) && !read_wrong(at, block_size, 0), name);
}

/*
 * The same request twice before the device looks at either, as two processors would send it: the
 * second is denied.
 */
static bool once_of_two(unsigned int type, u64 addr)
{
	guard(mutex)(&lock);
	if (add_request(&messages[0], type, addr, 1) || add_request(&messages[1], type, addr, 1))
		return false;
	reinit_completion(&answered);
	virtqueue_kick(queue);
	if (wait_for_answer() || wait_for_answer())
		return false;
	return answer_to(&messages[0]) == VIRTIO_MEM_RESP_ACK && denied(answer_to(&messages[1]));
}

void bad_requests(void *at)
{
	const unsigned int plug = VIRTIO_MEM_REQ_PLUG, unplug = VIRTIO_MEM_REQ_UNPLUG;
	u64 gpa = virt_to_phys(at);

	refused(unplug, region + region_size, 1, at, "a block behind the device's");
	refused(unplug, region - block_size, 1, at, "a block in front of the device's");
	refused(unplug, 0, 1, at, "a block of ordinary memory");
	refused(unplug, gpa, 0, at, "no block");
	refused(unplug, gpa + block_size / 2, 1, at, "two halves of blocks");
	refused(unplug, gpa, U16_MAX, at, "more blocks than there are");
	refused(unplug, -block_size, 2, at, "blocks beyond 2^64");
	refused(plug, gpa, 1, at, "a block to plug that is plugged");

	result(!convert(at, block_size, true) && dma_blocked(at, block_size),
	       "a block to private");
	result(denied(request(unplug, gpa, 1)) && dma_blocked(at, block_size),
	       "a block to private again");
	result(denied(request(unplug, gpa, 2)) && dma_blocked(at, block_size) &&
	       !read_wrong(at + block_size, block_size, 0),
	       "a block to private again, and one that is shared");
	result(denied(request(plug, gpa - block_size, 2)) && dma_blocked(at, block_size),
	       "a block to shared, and one that is");
	result(!convert(at, block_size, false) && !read_wrong(at, block_size, 0),
	       "the block to shared");

	result(once_of_two(unplug, gpa) && dma_blocked(at, block_size),
	       "a block to private by two at once");
	result(once_of_two(plug, gpa) && !read_wrong(at, block_size, 0),
	       "the block to shared by two at once");
}
