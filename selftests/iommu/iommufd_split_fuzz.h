/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of iommufd_split_fuzz need of each other: what a worker is, how
 * it calls the kernel and how it complains.
 */
#ifndef __SELFTEST_IOMMUFD_SPLIT_FUZZ
#define __SELFTEST_IOMMUFD_SPLIT_FUZZ

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"
#include "../../../../drivers/iommu/iommufd/iommufd_test.h"

enum {
	/* Other sizes are refused */
	PAGE = 4096,
	/* The smallest IOMMU page of the mock. The model counts in these */
	SLOT = MOCK_PAGE_SIZE,
	MAX_WORKERS = 8,
	MAX_ERRNO = 134,
	NUM_BLOCKS = 4,
	HISTORY = 24,
};

/* What is counted, mostly by ioctl */
enum fuzz_op {
	OP_OPEN,
	OP_CLOSE,
	OP_IOAS_ALLOC,
	OP_IOVA_RANGES,
	OP_ALLOW_IOVAS,
	OP_OPTION,
	OP_MAP,
	OP_MAP_FILE,
	OP_COPY,
	OP_UNMAP,
	OP_SPLIT,
	OP_JOIN,
	OP_DESTROY,
	OP_HWPT_ALLOC,
	OP_HW_INFO,
	OP_MOCK_DOMAIN,
	OP_REPLACE,
	OP_DIRTY_TRACKING,
	OP_DIRTY_READ,
	OP_SET_DIRTY,
	OP_ACCESS_CREATE,
	OP_ACCESS_REPLACE,
	OP_ACCESS_RW,
	OP_ACCESS_PIN,
	OP_ACCESS_UNPIN,
	OP_CHANGE_PROCESS,
	OP_DMABUF,
	OP_LIMIT,
	/* A look at a table, which is no call to be tested */
	OP_CHECK_MAP,
	OP_NR,
};

/* Memory to map. A worker's own, so nobody else changes it */
struct block {
	uint8_t *ptr;
	/* In slots */
	unsigned int slots;
	/* -1 if it is mapped by address */
	int file;
};

struct step {
	enum fuzz_op op;
	int err;
	__u64 a, b, c;
};

struct worker {
	unsigned int index;
	uint64_t random;
	pthread_t thread;
	bool started;
	/* Written by the worker, read by the one who watches for hangs */
	uint64_t progress;
	/* When to stop, in calls */
	uint64_t budget;
	uint64_t calls;
	uint64_t splits;
	uint64_t cuts;
	/* Of two areas each */
	uint64_t joins;
	uint32_t stats[OP_NR][MAX_ERRNO];
	struct step history[HISTORY];
	unsigned int steps;
	struct block blocks[NUM_BLOCKS];
	uint8_t *scratch;
	void *state;
};

enum { SCRATCH_SIZE = 64 * 1024 };

/* What a failure is reported with, to be repeated */
struct fuzz_run {
	uint64_t seed;
	unsigned int round;
	time_t started;
};

extern struct fuzz_run fuzz_run;

/* The one behind the last attaches and detaches */
extern struct worker workers[MAX_WORKERS + 1];
extern unsigned int num_workers;
extern const char *const op_names[OP_NR];
/* Somebody has found something, everybody stops */
extern bool fuzz_failed;
/* Huge leaves can be split on this kernel */
extern bool fuzz_can_split;

static inline bool failed(void)
{
	return __atomic_load_n(&fuzz_failed, __ATOMIC_RELAXED);
}

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static inline uint64_t random64(struct worker *me)
{
	me->random += 0x9e3779b97f4a7c15;
	return mix(me->random);
}

/* 0 to @below - 1 */
static inline unsigned int pick(struct worker *me, unsigned int below)
{
	return (random64(me) >> 33) % below;
}

static inline bool chance(struct worker *me, unsigned int percent)
{
	return pick(me, 100) < percent;
}

static inline unsigned int min_u(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

/* Call, count and remember. Returns 0 or an errno, @out is what was returned */
int fuzz_call(struct worker *me, enum fuzz_op op, int fd, unsigned long request,
	      void *arg, int *out);
/* Count and remember what was called in another way */
int fuzz_count(struct worker *me, enum fuzz_op op, int err);
/* Say what the last entry of the history was about */
void fuzz_note(struct worker *me, __u64 a, __u64 b, __u64 c);
/* Print what is wrong, once, with what led to it */
void __printf(2, 3) fuzz_fail(struct worker *me, const char *format, ...);
/* True if @got is @want; else a report */
bool fuzz_expect(struct worker *me, const char *what, int got, int want);

#define CALL(_me, _op, _fd, _request, _cmd) \
	fuzz_call(_me, _op, _fd, _request, &(_cmd), NULL)
#define TEST_CALL(_me, _op, _fd, _cmd) CALL(_me, _op, _fd, IOMMU_TEST_CMD, _cmd)

static inline int fuzz_destroy(struct worker *me, int fd, __u32 id)
{
	struct iommu_destroy cmd = { .size = sizeof(cmd), .id = id };
	int err = CALL(me, OP_DESTROY, fd, IOMMU_DESTROY, cmd);

	fuzz_note(me, id, 0, 0);
	return err;
}

static inline int fuzz_ioas_alloc(struct worker *me, int fd, __u32 *id)
{
	struct iommu_ioas_alloc cmd = { .size = sizeof(cmd) };
	int err = CALL(me, OP_IOAS_ALLOC, fd, IOMMU_IOAS_ALLOC, cmd);

	if (!err)
		*id = cmd.out_ioas_id;
	return err;
}

/* @flags: IOMMU_IOAS_SPLIT_UNMAP or 0 */
static inline int fuzz_split_flags(struct worker *me, int fd, __u32 ioas_id,
				   __u32 flags, __u64 iova, __u64 length)
{
	struct iommu_ioas_split cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = ioas_id,
		.iova = iova,
		.length = length,
	};
	int err = CALL(me, OP_SPLIT, fd, IOMMU_IOAS_SPLIT, cmd);

	fuzz_note(me, ioas_id, iova, length);
	if (!err)
		me->splits++;
	return err;
}

static inline int fuzz_split(struct worker *me, int fd, __u32 ioas_id,
			     __u64 iova, __u64 length)
{
	return fuzz_split_flags(me, fd, ioas_id, 0, iova, length);
}

/* @flags: IOMMU_IOAS_JOIN_FILL or 0 */
static inline int fuzz_join(struct worker *me, int fd, __u32 ioas_id,
			    __u32 flags, __u64 iova, __u64 length)
{
	struct iommu_ioas_join cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = ioas_id,
		.iova = iova,
		.length = length,
	};
	int err = CALL(me, OP_JOIN, fd, IOMMU_IOAS_JOIN, cmd);

	fuzz_note(me, ioas_id, iova, length);
	return err;
}

/* @length becomes what was unmapped */
static inline int fuzz_unmap(struct worker *me, int fd, __u32 ioas_id,
			     __u64 iova, __u64 *length)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas_id,
		.iova = iova,
		.length = *length,
	};
	int err = CALL(me, OP_UNMAP, fd, IOMMU_IOAS_UNMAP, cmd);

	fuzz_note(me, ioas_id, iova, *length);
	*length = cmd.length;
	return err;
}

/* Map a part of a block, the way that block is mapped. @iova is in and out */
static inline int fuzz_map(struct worker *me, int fd, __u32 ioas_id,
			   const struct block *block, size_t offset,
			   size_t length, __u64 *iova, unsigned int flags)
{
	int err;

	if (block->file == -1) {
		struct iommu_ioas_map cmd = {
			.size = sizeof(cmd),
			.flags = flags,
			.ioas_id = ioas_id,
			.user_va = (uintptr_t)block->ptr + offset,
			.length = length,
			.iova = *iova,
		};

		err = CALL(me, OP_MAP, fd, IOMMU_IOAS_MAP, cmd);
		*iova = cmd.iova;
	} else {
		struct iommu_ioas_map_file cmd = {
			.size = sizeof(cmd),
			.flags = flags,
			.ioas_id = ioas_id,
			.fd = block->file,
			.start = offset,
			.length = length,
			.iova = *iova,
		};

		err = CALL(me, OP_MAP_FILE, fd, IOMMU_IOAS_MAP_FILE, cmd);
		*iova = cmd.iova;
	}
	fuzz_note(me, ioas_id, *iova, length);
	return err;
}

static inline int fuzz_hwpt_alloc(struct worker *me, int fd, __u32 dev_id,
				  __u32 pt_id, __u32 flags, int pagetable,
				  __u32 *hwpt_id)
{
	struct iommu_hwpt_selftest data = { .pagetable_type = pagetable };
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.dev_id = dev_id,
		.pt_id = pt_id,
		.data_type = IOMMU_HWPT_DATA_SELFTEST,
		.data_len = sizeof(data),
		.data_uptr = (uintptr_t)&data,
	};
	int err = CALL(me, OP_HWPT_ALLOC, fd, IOMMU_HWPT_ALLOC, cmd);

	fuzz_note(me, dev_id, pt_id, flags);
	if (!err)
		*hwpt_id = cmd.out_hwpt_id;
	return err;
}

static inline int fuzz_replace(struct worker *me, int fd, __u32 stdev_id,
			       __u32 pt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
		.id = stdev_id,
		.mock_domain_replace = { .pt_id = pt_id },
	};
	int err = TEST_CALL(me, OP_REPLACE, fd, cmd);

	fuzz_note(me, stdev_id, pt_id, 0);
	return err;
}

static inline int fuzz_mock_device(struct worker *me, int fd, __u32 pt_id,
				   __u32 *stdev_id, __u32 *idev_id,
				   __u32 *hwpt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DOMAIN,
		.id = pt_id,
	};
	int err = TEST_CALL(me, OP_MOCK_DOMAIN, fd, cmd);

	fuzz_note(me, pt_id, 0, 0);
	if (!err) {
		*stdev_id = cmd.mock_domain.out_stdev_id;
		*idev_id = cmd.mock_domain.out_idev_id;
		*hwpt_id = cmd.mock_domain.out_hwpt_id;
	}
	return err;
}

static inline int fuzz_access_create(struct worker *me, int fd, __u32 ioas_id,
				     unsigned int flags, int *access)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_CREATE_ACCESS,
		.id = ioas_id,
		.create_access = { .flags = flags },
	};
	int err = TEST_CALL(me, OP_ACCESS_CREATE, fd, cmd);

	fuzz_note(me, ioas_id, flags, 0);
	if (!err)
		*access = cmd.create_access.out_access_fd;
	return err;
}

static inline int fuzz_access_rw(struct worker *me, int fd, int access,
				 __u64 iova, size_t length, void *data,
				 unsigned int flags)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_ACCESS_RW,
		.id = access,
		.access_rw = { .iova = iova,
			       .length = length,
			       .uptr = (uintptr_t)data,
			       .flags = flags },
	};
	int err = TEST_CALL(me, OP_ACCESS_RW, fd, cmd);

	fuzz_note(me, iova, length, flags);
	return err;
}

static inline int fuzz_pin(struct worker *me, int fd, int access, __u64 iova,
			   size_t length, void *ptr, unsigned int flags,
			   __u32 *id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_ACCESS_PAGES,
		.id = access,
		.access_pages = { .iova = iova,
				  .length = length,
				  .uptr = (uintptr_t)ptr,
				  .flags = flags },
	};
	int err = TEST_CALL(me, OP_ACCESS_PIN, fd, cmd);

	fuzz_note(me, iova, length, flags);
	*id = cmd.access_pages.out_access_pages_id;
	return err;
}

static inline int fuzz_unpin(struct worker *me, int fd, int access, __u32 id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
		.id = access,
		.destroy_access_pages = { .access_pages_id = id },
	};
	int err = TEST_CALL(me, OP_ACCESS_UNPIN, fd, cmd);

	fuzz_note(me, id, 0, 0);
	return err;
}

static inline int fuzz_dirty_tracking(struct worker *me, int fd, __u32 hwpt_id,
				      bool on)
{
	struct iommu_hwpt_set_dirty_tracking cmd = {
		.size = sizeof(cmd),
		.flags = on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
		.hwpt_id = hwpt_id,
	};
	int err = CALL(me, OP_DIRTY_TRACKING, fd, IOMMU_HWPT_SET_DIRTY_TRACKING,
		       cmd);

	fuzz_note(me, hwpt_id, on, 0);
	return err;
}

static inline int fuzz_dirty_read(struct worker *me, int fd, __u32 hwpt_id,
				  __u64 iova, size_t length, __u64 *bitmap,
				  unsigned int flags)
{
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.size = sizeof(cmd),
		.hwpt_id = hwpt_id,
		.flags = flags,
		.iova = iova,
		.length = length,
		.page_size = SLOT,
		.data = (uintptr_t)bitmap,
	};
	int err = CALL(me, OP_DIRTY_READ, fd, IOMMU_HWPT_GET_DIRTY_BITMAP, cmd);

	fuzz_note(me, iova, length, flags);
	return err;
}

static inline int fuzz_option_huge(struct worker *me, int fd, __u32 ioas_id,
				   bool on)
{
	struct iommu_option cmd = {
		.size = sizeof(cmd),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.object_id = ioas_id,
		.val64 = on,
	};
	int err = CALL(me, OP_OPTION, fd, IOMMU_OPTION, cmd);

	fuzz_note(me, ioas_id, on, 0);
	return err;
}

/* Run @body in every worker, and watch them */
bool run_workers(void *(*body)(void *worker), uint64_t seed, uint64_t calls);
uint64_t all_calls(void);
/* Since the start of the run */
unsigned int seconds(void);
/* The number behind @key, or -1 */
long number_in(const char *path, const char *key);
/* Pages that this process is charged for, or -1 */
long pinned_pages(void);

/*
 * iommufd_split_fuzz_bad.c: one malformed call, which must change nothing. False
 * after a failure
 */
bool bad_call(struct worker *me, int fd, __u32 ioas_id, const __u32 *wrong_ids,
	      unsigned int num_wrong_ids, __u64 mapped_iova,
	      unsigned int alignment);

/* _round.c and _chaos.c: one round, until all its workers are done */
bool model_round(int fd, uint64_t seed, uint64_t calls);
bool chaos_round(uint64_t seed, uint64_t calls);

#endif
