// SPDX-License-Identifier: GPL-2.0-only
/* A device that copies without pause, and stray DMA. */
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <linux/compiler.h>
#include <linux/kernel.h>
#include <linux/sizes.h>

#include "split_dma.h"

#define CHUNK_MAX 1024u
#define CHUNK_MIN 64u		/* igb sends frames: 60 bytes at least */
#define PLACES 8
#define MAX_PRINT 4
#define STUCK_NS 60000000000ULL
#define REPORT_NS 1000000000ULL
#define SETTLE_US 20000

/*
 * Every 8 bytes of a source say where they lie and which copy they belong to:
 * data from another place, or left over from another time, cannot pass. The tag
 * sits where an Ethernet device that sends the chunk as a frame expects the
 * type: 0x88b5 is the one for local experiments.
 */
#define TAG_DATA 0xb588ULL
#define TAG_POISON 0x5a5aULL

static u64 pattern(u64 off, u64 tag, u64 seq)
{
	return (off / 8) | tag << 32 | seq << 48;
}

static void pattern_fill(struct split_dma *d, u64 off, u64 len, u64 tag, u64 seq)
{
	u64 *word = split_dma_vaddr(d, off);
	u64 i;

	for (i = 0; i < len / 8; i++)
		word[i] = pattern(off + i * 8, tag, seq);
}

static const char *tag_name(u64 word)
{
	switch (word >> 32 & 0xffff) {
	case TAG_DATA:
		return "data of another copy";
	case TAG_POISON:
		return "never written";
	default:
		return "not ours";
	}
}

/* Does memory at @off hold what pattern_fill() wrote to @from? */
static bool pattern_check(struct split_dma *d, u64 off, u64 from, u64 len,
			  u64 tag, u64 seq)
{
	const u64 *word = split_dma_vaddr(d, off);
	u64 i, have, want;

	for (i = 0; i < len / 8; i++) {
		have = READ_ONCE(word[i]);
		want = pattern(from + i * 8, tag, seq);
		if (have == want)
			continue;
		if (atomic_load(&d->mismatched) >= MAX_PRINT)
			return false;
		printf("# wrong data at 0x%lx + 0x%lx, copied from 0x%lx:\n",
		       off, i * 8, from);
		printf("#   expected 0x%lx (place 0x%lx, copy %lu)\n", want,
		       (want & 0xffffffff) * 8, want >> 48);
		printf("#   found    0x%lx (place 0x%lx, copy %lu, %s)\n", have,
		       (have & 0xffffffff) * 8, have >> 48, tag_name(have));
		return false;
	}
	return true;
}

u64 split_dma_random(u64 *state)
{
	u64 z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* The copying thread ------------------------------------------------------- */

struct copy {
	u32 window;
	u64 src;
	u64 dst;
	u64 size;
	u64 gen;
};

static bool overlap(u64 a, u64 a_len, u64 b, u64 b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool place_ok(struct split_dma *d, u64 off, u64 size)
{
	u32 i;

	if (off > d->size || off + size > d->size)
		return false;
	/* Emulated devices cannot send what is not contiguous in memory */
	if (off / d->backing != (off + size - 1) / d->backing)
		return false;
	for (i = 0; i < d->holes; i++) {
		if (overlap(off, size, d->hole_off[i], d->hole_len[i]))
			return false;
	}
	return d->aim != AIM_OUTSIDE || !overlap(off, size, d->off, d->len);
}

static u64 random_place(struct split_dma *d, u64 base, u64 span, u64 size)
{
	u64 off;
	int i;

	for (i = 0; i < 64; i++) {
		off = base + (split_dma_random(&d->rng) % (span - size)) / 8 * 8;
		if (place_ok(d, off, size))
			return off;
	}
	/* A hole is never that large: room is left at one of the ends */
	return place_ok(d, 0, size) ? 0 : d->size - size;
}

/*
 * The places worth hitting: the last bytes before and the first bytes behind
 * each edge, across each edge, the rest of the leaf that is cut, anywhere.
 */
static u32 places(struct split_dma *d, u64 size, u64 *place)
{
	u64 start = d->off, end = d->off + d->len;
	u64 near = start / d->block * d->block;
	const u64 edges[] = {
		start - size, end, start, end - size,
		start - size / 2, end - size / 2,
	};
	u32 i, nr = 0;

	if (d->aim != AIM_ANYWHERE) {
		for (i = 0; i < ARRAY_SIZE(edges); i++) {
			if (place_ok(d, edges[i], size))
				place[nr++] = edges[i];
		}
	}
	place[nr++] = random_place(d, near, min(d->block, d->size - near), size);
	while (nr < 3)
		place[nr++] = random_place(d, 0, d->size, size);
	if (nr < PLACES)
		place[nr++] = random_place(d, 0, d->size, size);
	return nr;
}

static void next_copy(struct split_dma *d, u64 turn, struct copy *copy)
{
	u64 place[PLACES], size;
	u32 nr, from, to;
	int tries;

	size = min_t(u64, CHUNK_MAX, d->device->driver.max_memcpy_size);
	if (turn & 1)
		size = CHUNK_MIN + (split_dma_random(&d->rng) %
				    (size - CHUNK_MIN + 1)) / 8 * 8;
	/* Half of it is an offset too */
	size = size / 16 * 16;

	nr = places(d, size, place);
	/* In nr turns each place is read once and written once */
	from = turn % nr;
	to = (from + 1 + (turn / nr) % (nr - 1)) % nr;
	copy->window = d->window;
	copy->size = size;
	copy->src = place[from];
	copy->dst = place[to];
	copy->gen = d->gen;
	for (tries = 0; overlap(copy->src, size, copy->dst, size); tries++) {
		VFIO_ASSERT_LT(tries, 1000);
		copy->dst = random_place(d, 0, d->size, size);
	}
}

static int run_copy(struct split_dma *d, iova_t src, iova_t dst, u64 size)
{
	vfio_pci_driver_memcpy_start(d->device, src, dst, size, 1);
	return vfio_pci_driver_memcpy_wait(d->device);
}

/* Some drivers reset the device themselves when a copy fails, some do not. */
static void recover(struct split_dma *d)
{
	vfio_pci_driver_remove(d->device);
	vfio_pci_driver_init(d->device);
	atomic_fetch_add(&d->recoveries, 1);
}

static void do_copy(struct split_dma *d, const struct copy *copy, u64 seq)
{
	u64 before, start, took;
	int ret;

	pattern_fill(d, copy->src, copy->size, TAG_DATA, seq & 0xffff);
	pattern_fill(d, copy->dst, copy->size, TAG_POISON, seq & 0xffff);
	atomic_thread_fence(memory_order_seq_cst);

	before = atomic_load(&d->splitting);
	atomic_store(&d->seen_gen, copy->gen);
	start = now_ns();
	ret = run_copy(d, d->iova[copy->window] + copy->src,
		       d->iova[copy->window] + copy->dst, copy->size);
	took = now_ns() - start;

	atomic_fetch_add(&d->copies, 1);
	if (before & 1 || before != atomic_load(&d->splitting))
		atomic_fetch_add(&d->overlapped, 1);
	if (took > atomic_load(&d->longest_ns))
		atomic_store(&d->longest_ns, took);

	if (ret) {
		if (atomic_load(&d->failed) < MAX_PRINT)
			printf("# copy %lu from 0x%lx to 0x%lx did not finish: %d\n", seq,
			       d->iova[copy->window] + copy->src,
			       d->iova[copy->window] + copy->dst, ret);
		atomic_fetch_add(&d->failed, 1);
		recover(d);
	} else if (!pattern_check(d, copy->dst, copy->src, copy->size, TAG_DATA,
				  seq & 0xffff)) {
		atomic_fetch_add(&d->mismatched, 1);
	} else {
		atomic_fetch_add(&d->bytes, copy->size);
	}
	atomic_fetch_add(&d->done, 1);
}

/* A copy with one end in memory that is not mapped: nothing may come through. */
static void do_probe(struct split_dma *d, struct dma_probe *probe)
{
	const u64 *word = split_dma_vaddr(d, probe->dst);
	u64 i;

	pattern_fill(d, probe->src, probe->size, TAG_DATA, 0xffff);
	pattern_fill(d, probe->dst, probe->size, TAG_POISON, 0xffff);
	atomic_thread_fence(memory_order_seq_cst);

	if (run_copy(d, d->iova[probe->window] + probe->src,
		     d->iova[probe->window] + probe->dst, probe->size))
		recover(d);

	for (i = 0; i < probe->size / 8; i++) {
		u64 have = READ_ONCE(word[i]);

		/*
		 * Memory that is not mapped must be as before. What a device
		 * makes of a read that failed is up to the device, as long as
		 * it is not the memory.
		 */
		if (probe->write)
			probe->passed |= have != pattern(probe->dst + i * 8,
							 TAG_POISON, 0xffff);
		else
			probe->passed |= have == pattern(probe->src + i * 8,
							 TAG_DATA, 0xffff);
	}
}

static void *copy_thread(void *arg)
{
	struct dma_probe *probe;
	struct split_dma *d = arg;
	struct copy copy = {};
	u64 seq = 0, turn = 0, gen = 0;
	bool stop;

	for (;;) {
		pthread_mutex_lock(&d->lock);
		stop = d->stop;
		probe = d->probe;
		if (gen != d->gen) {
			gen = d->gen;
			turn = 0;
			atomic_store(&d->done, 0);
		}
		next_copy(d, turn++, &copy);
		pthread_mutex_unlock(&d->lock);

		if (stop)
			return NULL;
		if (probe) {
			do_probe(d, probe);
			pthread_mutex_lock(&d->lock);
			d->probe = NULL;
			pthread_mutex_unlock(&d->lock);
			continue;
		}
		do_copy(d, &copy, seq++);
	}
}

void split_dma_start(struct split_dma *d)
{
	VFIO_ASSERT_FALSE(d->running);
	d->window = 0;
	d->aim = AIM_ANYWHERE;
	d->off = 0;
	d->len = 0;
	d->stop = false;
	d->gen++;
	VFIO_ASSERT_EQ(pthread_create(&d->thread, NULL, copy_thread, d), 0);
	d->running = true;
	split_dma_lap(d);
}

void split_dma_stop(struct split_dma *d)
{
	if (!d->running)
		return;
	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
	d->running = false;
	/* What the last copies did is reported by now */
	usleep(SETTLE_US);
}

#define wait_until(_cond) do {						\
	u64 __end = now_ns() + STUCK_NS;				\
									\
	while (!(_cond)) {						\
		VFIO_ASSERT_LT(now_ns(), __end, "DMA is stuck\n");	\
		sched_yield();						\
	}								\
} while (0)

void split_dma_aim(struct split_dma *d, u32 window, enum dma_aim aim, u64 off,
		   u64 len)
{
	u64 gen;

	pthread_mutex_lock(&d->lock);
	d->window = window;
	d->aim = aim;
	d->off = off;
	d->len = len;
	gen = ++d->gen;
	pthread_mutex_unlock(&d->lock);

	/* One copy at a time: when this one has begun the last one is over */
	if (d->running)
		wait_until(atomic_load(&d->seen_gen) == gen);
}

void split_dma_avoid(struct split_dma *d, u64 off, u64 len)
{
	VFIO_ASSERT_LT(d->holes, SPLIT_DMA_HOLES);
	pthread_mutex_lock(&d->lock);
	d->hole_off[d->holes] = off;
	d->hole_len[d->holes] = len;
	d->holes++;
	pthread_mutex_unlock(&d->lock);
}

void split_dma_permit(struct split_dma *d, u32 hole)
{
	VFIO_ASSERT_LT(hole, d->holes);
	pthread_mutex_lock(&d->lock);
	d->holes--;
	d->hole_off[hole] = d->hole_off[d->holes];
	d->hole_len[hole] = d->hole_len[d->holes];
	pthread_mutex_unlock(&d->lock);
}

void split_dma_lap(struct split_dma *d)
{
	u64 gen = d->gen, from;

	wait_until(atomic_load(&d->seen_gen) == gen);
	from = atomic_load(&d->done);
	wait_until(atomic_load(&d->done) >= from + PLACES);
}

/* Stray DMA ---------------------------------------------------------------- */

static const char *check_report(const struct fault_report *report, u64 iova,
				u64 size, bool write)
{
	/* Reports name the page, so compare with whole pages */
	if (report->has_iova && (report->iova < iova / SZ_4K * SZ_4K ||
				 report->iova >= iova + size))
		return "a fault outside the range was reported";
	if (report->access == (write ? FAULT_READ : FAULT_WRITE))
		return "the wrong kind of access was reported";
	return NULL;
}

static const char *stray_report(struct split_dma *d, u64 iova, u64 size, bool write)
{
	u64 end = now_ns() + REPORT_NS;
	bool reported = false;
	const char *err;

	do {
		while (fault_log_next(&d->faults, &d->last_fault)) {
			err = check_report(&d->last_fault, iova, size, write);
			if (err) {
				printf("# %s\n", d->last_fault.text);
				return err;
			}
			/* A fault may be reported more than once */
			if (!reported)
				end = now_ns() + SETTLE_US * 1000ULL;
			reported = true;
		}
		usleep(SETTLE_US / 8);
	} while (now_ns() < end);

	return reported ? NULL : "the kernel reported no fault";
}

const char *split_dma_stray(struct split_dma *d, u32 window, u64 off, u64 size,
			    bool write)
{
	/* The other end is mapped, far away from the range */
	u64 good = off >= d->size / 2 ? 0 : d->size - size;
	struct dma_probe probe = {
		.window = window,
		.src = write ? good : off,
		.dst = write ? off : good,
		.size = size,
		.write = write,
	};
	bool busy = true;
	const char *err;

	fault_log_pace(&d->faults);
	if (split_dma_unexpected_faults(d))
		return "a fault was reported before there was stray DMA";

	if (d->running) {
		pthread_mutex_lock(&d->lock);
		d->probe = &probe;
		pthread_mutex_unlock(&d->lock);
		while (busy) {
			usleep(100);
			pthread_mutex_lock(&d->lock);
			busy = d->probe;
			pthread_mutex_unlock(&d->lock);
		}
	} else {
		do_probe(d, &probe);
	}

	err = stray_report(d, d->iova[window] + off, size, write);
	if (!err && probe.passed)
		err = write ? "the device wrote to memory that is not mapped" :
			      "the device read memory that is not mapped";
	return err;
}

u64 split_dma_unexpected_faults(struct split_dma *d)
{
	struct fault_report report;
	u64 nr = 0;

	while (fault_log_next(&d->faults, &report)) {
		printf("# unexpected: %s\n", report.text);
		nr++;
	}
	return nr;
}
