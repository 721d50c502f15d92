// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a guest does that takes memory away from its devices: converts it to private and back, from
 * pages of 4K to blocks of 2M, while a disk copies into the memory around it without pause. How it
 * asks its VMM for that is in another file (converter.h). Loading it runs it. What it prints is for
 * the scripts in tools/guest: "converter: KEY VALUE...", and TAP with bad=1.
 *
 * The guest judges by its own eyes. It knows each byte of the disk, because it has written it.
 * "Wrong bytes" are those that a read of the disk should have put into memory and that are not
 * there. DMA to private memory is "blocked" if nothing moves: what is private stays as it is when
 * the disk is read into it, and what was there while it was shared does not get to the disk when it
 * is written from there. Whether the disk tells of an error is up to the disk.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "converter.h"

static char *disk = "/dev/nvme0n1";
module_param(disk, charp, 0);
MODULE_PARM_DESC(disk, "the disk that copies; it is overwritten");
static int rounds = 100;
module_param(rounds, int, 0);
MODULE_PARM_DESC(rounds, "conversions of 4K there and back; of 64K (or 1M) a quarter, of 2M a tenth");
static bool bad;
module_param(bad, bool, 0);
MODULE_PARM_DESC(bad, "ask for what cannot be had, and look at what devices reach then");

/*
 * A block of 2M has groups, of 128K or of two granules: the disk copies into the first half of
 * each, and the second half is converted. So what is converted lies between memory under DMA, in
 * the same IOPTE of 2M.
 */
#define BLOCK_ORDER	9
#define CHUNK		(64 << 10)
#define HALF		max_t(size_t, CHUNK, conversion.granule)
#define GROUP		(2 * HALF)
#define GROUPS		(BLOCK / GROUP)
#define BLOCK		(PAGE_SIZE << BLOCK_ORDER)
/* Bytes of the disk that are read again and again. Behind them is a page for trials. */
#define AREA		(4 << 20)
#define SCRATCH		AREA

#define SHARED_BYTE	0xa5
#define PRIVATE_BYTE	0x3c
#define SCRATCH_BYTE	0x11
#define SAMPLE_MS	100
#define SAMPLES		600

static struct file *disk_file;
static struct page *block, *large;
/* A page that is always shared. */
static u8 *safe;

static struct {
	u64 bytes;
	u64 wrong;
	u64 failed;
} copies;

static u64 converted;
static u64 samples[SAMPLES][2];
static int nsamples;

/* What is on the disk, 8 bytes at a time: no two are the same. */
static u64 word_at(u64 offset)
{
	return (offset / 8 + 1) * 0x9e3779b97f4a7c15ULL;
}

long convert(void *at, size_t bytes, bool private)
{
	return convert_range(virt_to_phys(at), bytes >> PAGE_SHIFT, private);
}

static int disk_io(blk_opf_t opf, void *at, size_t bytes, u64 offset)
{
	struct bio_vec bv;
	struct bio bio;
	int rc;

	/* What fails because memory is private is not tried again. */
	bio_init(&bio, file_bdev(disk_file), &bv, 1, opf | REQ_FAILFAST_DEV | REQ_FAILFAST_DRIVER);
	bio.bi_iter.bi_sector = offset >> SECTOR_SHIFT;
	__bio_add_page(&bio, virt_to_page(at), bytes, 0);
	rc = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return rc;
}

static u64 wrong_bytes(const void *at, size_t bytes, u64 offset)
{
	const u64 *have = at;
	u64 wrong = 0;
	size_t i;

	for (i = 0; i < bytes / 8; i++) {
		u64 diff = READ_ONCE(have[i]) ^ word_at(offset + i * 8);

		for (; diff; diff >>= 8)
			wrong += !!(diff & 0xff);
	}
	return wrong;
}

/* Reads the disk into shared memory; how many bytes are not there: all, if the disk says so. */
u64 read_wrong(void *at, size_t bytes, u64 offset)
{
	memset(at, SHARED_BYTE, bytes);
	if (disk_io(REQ_OP_READ, at, bytes, offset))
		return bytes;
	return wrong_bytes(at, bytes, offset);
}

static bool all_bytes(const u8 *at, size_t bytes, u8 value)
{
	size_t i;

	for (i = 0; i < bytes; i++)
		if (READ_ONCE(at[i]) != value)
			return false;
	return true;
}

/*
 * Whether anything of the page gets to the disk. It must not have been zero while it was shared:
 * zeros are what a disk gets that reads from nowhere.
 */
static bool gets_out(void *at)
{
	memset(safe, SCRATCH_BYTE, PAGE_SIZE);
	if (disk_io(REQ_OP_WRITE, safe, PAGE_SIZE, SCRATCH))
		return true;
	disk_io(REQ_OP_WRITE, at, PAGE_SIZE, SCRATCH);
	memset(safe, SHARED_BYTE, PAGE_SIZE);
	if (disk_io(REQ_OP_READ, safe, PAGE_SIZE, SCRATCH))
		return true;
	return !all_bytes(safe, PAGE_SIZE, SCRATCH_BYTE) && !all_bytes(safe, PAGE_SIZE, 0);
}

/* Whether no DMA reaches memory that is private. */
bool dma_blocked(void *at, size_t bytes)
{
	memset(at, PRIVATE_BYTE, bytes);
	disk_io(REQ_OP_READ, at, bytes, 0);
	return all_bytes(at, bytes, PRIVATE_BYTE) && !gets_out(at) &&
	       !gets_out(at + bytes - PAGE_SIZE);
}

static int copier(void *unused)
{
	unsigned int i;

	for (i = 0; !kthread_should_stop(); i++) {
		void *at = page_address(block) + (i % GROUPS) * GROUP + i / GROUPS * CHUNK % HALF;
		u64 offset = (u64)i * CHUNK % AREA;

		memset(at, SHARED_BYTE, CHUNK);
		if (disk_io(REQ_OP_READ, at, CHUNK, offset))
			copies.failed++;
		copies.wrong += wrong_bytes(at, CHUNK, offset);
		copies.bytes += CHUNK;
		cond_resched();
	}
	return 0;
}

static int sampler(void *unused)
{
	u64 bytes = 0, done = 0;

	while (!kthread_should_stop()) {
		schedule_timeout_interruptible(msecs_to_jiffies(SAMPLE_MS));
		if (nsamples == SAMPLES)
			continue;
		samples[nsamples][0] = READ_ONCE(copies.bytes) - bytes;
		samples[nsamples++][1] = READ_ONCE(converted) - done;
		bytes = READ_ONCE(copies.bytes);
		done = READ_ONCE(converted);
	}
	return 0;
}

/* Conversions of one size, there and back. */
static int run_size(size_t bytes, int times)
{
	u64 to_private = 0, to_shared = 0, wrong = 0, stale = 0, blocked = 0, let_through = 0, t;
	int i;

	for (i = 0; i < times; i++) {
		u64 offset = (u64)i * bytes % AREA;
		long rc;
		u64 *p;

		if (bytes == BLOCK)
			p = page_address(large);
		else
			p = page_address(block) + (i % GROUPS) * GROUP + HALF +
			    i / GROUPS * bytes % HALF;

		memset(p, SHARED_BYTE, bytes);
		t = ktime_get_ns();
		rc = convert(p, bytes, true);
		to_private += ktime_get_ns() - t;
		if (rc) {
			pr_err("error: to private: %ld\n", rc);
			return -EIO;
		}
		WRITE_ONCE(converted, converted + 1);
		/* If it is other memory now, it has none of the old bytes. */
		stale += !conversion.private_keeps_shared &&
			 READ_ONCE(p[0]) == 0x0101010101010101ULL * SHARED_BYTE;
		if (i < 3) {
			if (dma_blocked(p, bytes))
				blocked++;
			else
				let_through++;
		}
		memset(p, PRIVATE_BYTE, bytes);

		t = ktime_get_ns();
		rc = convert(p, bytes, false);
		to_shared += ktime_get_ns() - t;
		if (rc) {
			pr_err("error: to shared: %ld\n", rc);
			return -EIO;
		}
		WRITE_ONCE(converted, converted + 1);
		stale += !conversion.shared_keeps_private &&
			 READ_ONCE(p[0]) == 0x0101010101010101ULL * PRIVATE_BYTE;
		wrong += read_wrong(p, bytes, offset);
		cond_resched();
	}
	pr_err("size %zu conversions %d private_ns %llu shared_ns %llu wrong %llu stale %llu blocked %llu let_through %llu\n",
	       bytes, 2 * times, to_private / times, to_shared / times, wrong, stale, blocked,
	       let_through);
	return 0;
}

static int run(void)
{
	struct task_struct *copy, *sample;
	int rc, i;

	copy = kthread_run(copier, NULL, "copier");
	if (IS_ERR(copy))
		return PTR_ERR(copy);
	sample = kthread_run(sampler, NULL, "sampler");
	if (IS_ERR(sample)) {
		kthread_stop(copy);
		return PTR_ERR(sample);
	}
	rc = conversion.granule > PAGE_SIZE ? 0 : run_size(PAGE_SIZE, rounds);
	if (!rc)
		rc = run_size(HALF, max(rounds / 4, 1));
	if (!rc)
		rc = run_size(BLOCK, max(rounds / 10, 1));
	kthread_stop(sample);
	kthread_stop(copy);
	pr_err("copies bytes %llu wrong %llu failed %llu\n", copies.bytes, copies.wrong,
	       copies.failed);
	for (i = 0; i < nsamples; i++)
		pr_err("sample %d %llu %llu\n", i * SAMPLE_MS, samples[i][0], samples[i][1]);
	return rc;
}

static int test_number, tests_failed;

void result(bool pass, const char *name)
{
	tests_failed += !pass;
	pr_err("%s %d %s\n", pass ? "ok" : "not ok", ++test_number, name);
}

/* Whether the disk reaches exactly the pages of @at that have a bit in @shared. */
static bool reaches(void *at, int pages, unsigned int shared)
{
	bool right = true;
	int i;

	for (i = 0; i < pages; i++, at += PAGE_SIZE) {
		bool wanted = shared & BIT(i), reached;

		if (wanted)
			reached = !read_wrong(at, PAGE_SIZE, i * PAGE_SIZE);
		else
			reached = !dma_blocked(at, PAGE_SIZE);
		if (reached != wanted) {
			pr_err("page %d is %s\n", i, reached ? "reached" : "not reached");
			right = false;
		}
	}
	return right;
}

/* A conversion that has to succeed, after which the disk reaches what has a bit in @shared. */
static void step(void *at, int first, int pages, bool private, unsigned int shared,
		 const char *name)
{
	long rc = convert(at + first * PAGE_SIZE, pages * PAGE_SIZE, private);

	result(!rc && reaches(at, 6, shared), name);
}

static void overlaps(void *at)
{
	step(at, 0, 4, true, 0x30, "four pages to private");
	step(at, 2, 4, true, 0x00, "four that overlap them");
	step(at, 0, 6, true, 0x00, "all of them again");
	step(at, 1, 2, false, 0x06, "two in the middle to shared");
	step(at, 0, 6, false, 0x3f, "all of them to shared");
	step(at, 0, 6, false, 0x3f, "all of them to shared again");
}

struct contender {
	struct task_struct *task;
	void *at;
	size_t bytes;
	int errors;
};

static int contend(void *data)
{
	struct contender *c = data;
	int i;

	for (i = 0; i < rounds; i++) {
		c->errors += !!convert(c->at, c->bytes, true);
		c->errors += !!convert(c->at, c->bytes, false);
		cond_resched();
	}
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

/* Both end with a conversion to shared; the memory is whoever's was last. */
static void two_vcpus(void *at)
{
	struct contender c[2] = {
		{ .at = at, .bytes = 8 * PAGE_SIZE },
		{ .at = at + 4 * PAGE_SIZE, .bytes = 8 * PAGE_SIZE },
	};
	bool started = num_online_cpus() >= 2;
	int i;

	for (i = 0; i < 2 && started; i++) {
		c[i].task = kthread_create_on_cpu(contend, &c[i], i, "contend/%u");
		if (IS_ERR(c[i].task)) {
			started = false;
			c[i].task = NULL;
		} else {
			wake_up_process(c[i].task);
		}
	}
	for (i = 0; i < 2; i++)
		if (c[i].task)
			kthread_stop(c[i].task);
	result(started && !c[0].errors && !c[1].errors, "the same pages on two vCPUs");
	result(reaches(at, 12, 0xfff), "the disk reaches all of them");
	result(!convert(at, 12 * PAGE_SIZE, true) && reaches(at, 12, 0),
	       "and none when all are private");
	result(!convert(at, 12 * PAGE_SIZE, false) && reaches(at, 12, 0xfff),
	       "and all when they are shared");
}

static int run_bad(void)
{
	struct task_struct *copy = kthread_run(copier, NULL, "copier");
	int i;

	if (IS_ERR(copy))
		return PTR_ERR(copy);
	for (i = 0; i < GROUPS; i++)
		memset(page_address(block) + i * GROUP + HALF, SHARED_BYTE, HALF);
	bad_requests(page_address(block) + HALF);
	/* A device with larger granules may refuse a range of which a part is as it is to be. */
	if (conversion.granule == PAGE_SIZE) {
		overlaps(page_address(block) + GROUP + HALF);
		two_vcpus(page_address(block) + 2 * GROUP + HALF);
	}
	if (conversion.last_requests)
		conversion.last_requests(page_address(block) + 3 * GROUP + HALF);
	kthread_stop(copy);
	pr_err("copies bytes %llu wrong %llu failed %llu\n", copies.bytes, copies.wrong,
	       copies.failed);
	result(copies.bytes && !copies.wrong && !copies.failed, "the disk has copied all the time");
	pr_err("tests %d failed %d\n", test_number, tests_failed);
	return tests_failed ? -EIO : 0;
}

static int write_disk(void)
{
	u64 *p = page_address(block);
	u64 offset, i;
	int rc = 0;

	for (offset = 0; offset < AREA && !rc; offset += CHUNK) {
		for (i = 0; i < CHUNK / 8; i++)
			p[i] = word_at(offset + i * 8);
		rc = disk_io(REQ_OP_WRITE, p, CHUNK, offset);
	}
	return rc;
}

static void find_memory(void)
{
	if (conversion.memory) {
		void *memory = conversion.memory(2 * BLOCK);

		block = memory ? virt_to_page(memory) : NULL;
		large = memory ? virt_to_page(memory + BLOCK) : NULL;
	} else {
		block = alloc_pages(GFP_KERNEL, BLOCK_ORDER);
		large = alloc_pages(GFP_KERNEL, BLOCK_ORDER);
	}
	safe = (u8 *)__get_free_page(GFP_KERNEL);
}

static int __init converter_init(void)
{
	int rc;

	disk_file = bdev_file_open_by_path(disk, BLK_OPEN_READ | BLK_OPEN_WRITE, NULL, NULL);
	if (IS_ERR(disk_file))
		return PTR_ERR(disk_file);
	rc = converter_open();
	if (rc) {
		pr_err("error %d: there is nobody to ask\n", rc);
		bdev_fput(disk_file);
		return rc;
	}
	rc = -ENOMEM;
	find_memory();
	if (block && large && safe) {
		rc = write_disk();
		if (!rc)
			rc = bad ? run_bad() : run();
	}
	if (rc)
		pr_err("error %d\n", rc);
	else
		pr_err("done\n");
	/* After an error some of it may be private: the guest ends with it. */
	if (!rc) {
		free_page((unsigned long)safe);
		if (!conversion.memory) {
			__free_pages(large, BLOCK_ORDER);
			__free_pages(block, BLOCK_ORDER);
		}
	}
	converter_close();
	bdev_fput(disk_file);
	/* It said what went wrong. Busybox would load a module that fails a second time. */
	return 0;
}
module_init(converter_init);

MODULE_DESCRIPTION("Converts memory to private and back under DMA");
MODULE_LICENSE("GPL");
