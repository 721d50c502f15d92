/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Common parts of the IOMMU_IOAS_SPLIT tests: one block of memory, mapped at
 * one IOVA, in an IOAS with none, one or two mock domains.
 */
#ifndef __SELFTEST_IOMMUFD_SPLIT_UTILS
#define __SELFTEST_IOMMUFD_SPLIT_UTILS

#include <stdlib.h>
#include <sys/mman.h>

#include "iommufd_utils.h"

enum {
	/* Pages in the block, unless it is a huge page */
	NPAGES = 16,
	HUGE_SIZE = 2 * 1024 * 1024,
	/* Aligned for the largest page of the block */
	BASE_IOVA = MOCK_APERTURE_START,
};

enum pt_kind {
	/* No domain: areas only */
	PT_NONE,
	/* IOMMU_OPTION_HUGE_PAGES is off, no leaf is larger than a page */
	PT_SMALL,
	/* The default: leaves as large as alignment allows */
	PT_LARGE,
};

#define NO_HUGE_PAGE \
	"no free huge page of 2M, write 64 to /proc/sys/vm/nr_hugepages"
#define NO_LARGE_SPLIT \
	"large pages of the mock cannot be split, enable CONFIG_IOMMU_PT_RUST"

/* What the block of memory is made of */
struct block {
	uint8_t *ptr;
	size_t length;
	/* -1 if it is mapped by address */
	int file;
};

static __attribute__((constructor)) void setup_block(void)
{
	PAGE_SIZE = sysconf(_SC_PAGE_SIZE);
	BUFFER_SIZE = NPAGES * PAGE_SIZE;

	/* teardown_iommufd() checks that nothing of this stays pinned */
	buffer = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	assert(buffer != MAP_FAILED);
	mfd_buffer = memfd_mmap(BUFFER_SIZE, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_POPULATE, &mfd);
	assert(mfd_buffer != MAP_FAILED);
}

/* False if the block cannot be had, for lack of huge pages */
static inline bool block_init(struct block *block, bool file, bool huge)
{
	*block = (struct block){ .ptr = buffer,
				 .length = BUFFER_SIZE,
				 .file = -1 };
	if (file) {
		block->ptr = mfd_buffer;
		block->file = mfd;
	}
	if (huge) {
		int huge_mfd;
		void *ptr;

		ptr = memfd_mmap(HUGE_SIZE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_HUGETLB | MAP_POPULATE,
				 &huge_mfd);
		if (ptr == MAP_FAILED)
			return false;
		block->ptr = ptr;
		block->length = HUGE_SIZE;
		if (file)
			block->file = huge_mfd;
		else
			close(huge_mfd);
	}
	return true;
}

static inline void block_release(struct block *block)
{
	if (!block->ptr || block->length == BUFFER_SIZE)
		return;
	munmap(block->ptr, block->length);
	if (block->file != -1)
		close(block->file);
}

/* Map a part of the block at the IOVA that belongs to it */
static inline int map_block(int fd, __u32 ioas_id, struct block *block,
			    size_t offset, size_t length, __u64 iova)
{
	const unsigned int flags = IOMMU_IOAS_MAP_FIXED_IOVA |
				   IOMMU_IOAS_MAP_WRITEABLE |
				   IOMMU_IOAS_MAP_READABLE;

	if (block->file != -1)
		return _test_ioctl_ioas_map_file(fd, ioas_id, block->file,
						 offset, length, &iova, flags);
	return _test_ioctl_ioas_map(fd, ioas_id, block->ptr + offset, length,
				    &iova, flags);
}

static inline int set_huge_pages(int fd, __u32 ioas_id, bool on)
{
	struct iommu_option cmd = {
		.size = sizeof(cmd),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.object_id = ioas_id,
		.val64 = on,
	};

	return ioctl(fd, IOMMU_OPTION, &cmd);
}

/*
 * Attach a new device with a domain of its own. A plain attach would give it the
 * domain that another mock device has in this IOAS already.
 */
static inline int attach_own_domain(int fd, __u32 ioas_id, __u32 *stdev_id,
				    __u32 *hwpt_id, __u32 *idev_id)
{
	__u32 scratch_id;

	if (_test_ioctl_ioas_alloc(fd, &scratch_id) ||
	    _test_cmd_mock_domain(fd, scratch_id, stdev_id, NULL, idev_id) ||
	    _test_cmd_hwpt_alloc(fd, *idev_id, ioas_id, 0, 0, hwpt_id,
				 IOMMU_HWPT_DATA_NONE, NULL, 0) ||
	    _test_cmd_mock_domain_replace(fd, *stdev_id, *hwpt_id, NULL))
		return -1;
	return _test_ioctl_destroy(fd, scratch_id);
}

/* A command to the mock devices */
static inline int mock_cmd(int fd, struct iommu_test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);
	return ioctl(fd, _IOMMU_TEST_CMD(cmd->op), cmd);
}

/* 0 if @hwpt_id maps @iova to the page behind @ptr */
static inline int check_map(int fd, __u32 hwpt_id, __u64 iova, size_t length,
			    void *ptr)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_MD_CHECK_MAP,
		.id = hwpt_id,
		.check_map = { .iova = iova,
			       .length = length,
			       .uptr = (uintptr_t)ptr },
	};

	return mock_cmd(fd, &cmd);
}

/*
 * 0 if there is no cut at @cut, which lies inside the only area that begins at
 * @start. The unmap is refused then, so it changes nothing.
 */
static inline int check_not_cut(int fd, __u32 ioas_id, __u64 start, __u64 cut)
{
	if (_test_ioctl_ioas_unmap(fd, ioas_id, start, cut - start, NULL) !=
		    -1 ||
	    errno != ENOENT)
		return -1;
	return 0;
}

/* An access pins what @iova is mapped to, which must be what is behind @ptr */
static inline int pin_pages(int fd, __u32 access_id, __u64 iova, size_t length,
			    void *ptr, __u32 *pages_id)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_ACCESS_PAGES,
		.id = access_id,
		.access_pages = { .iova = iova,
				  .length = length,
				  .uptr = (uintptr_t)ptr },
	};
	int rc;

	rc = mock_cmd(fd, &cmd);
	*pages_id = cmd.access_pages.out_access_pages_id;
	return rc;
}

/* A count of memory in /proc/PID/status, -1 if it cannot be read */
static inline long status_kb(pid_t pid, const char *name)
{
	size_t len = strlen(name);
	char path[64], line[128];
	long kb = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, len) &&
		    sscanf(line + len, ": %ld", &kb) == 1)
			break;
	fclose(file);
	return kb;
}

/*
 * Say why if nothing can be tested here. The harness would let a program pass of
 * which every case is skipped.
 */
static inline void skip_without_split(void)
{
	struct iommu_test_cmd mock = {
		.op = IOMMU_TEST_OP_MD_CHECK_REFS,
		.check_refs = { .length = BUFFER_SIZE,
				.uptr = (uintptr_t)buffer },
	};
	const char *why = NULL;
	__u32 ioas_id;
	int fd;

	fd = open("/dev/iommu", O_RDWR);
	if (fd == -1)
		why = errno == EACCES ? "cannot open /dev/iommu, run as root" :
					"no /dev/iommu, enable CONFIG_IOMMUFD";
	else if (mock_cmd(fd, &mock) && errno == ENOTTY)
		why = "no mock devices, enable CONFIG_IOMMUFD_TEST";
	else if (!_test_ioctl_ioas_alloc(fd, &ioas_id) &&
		 _test_ioctl_ioas_split(fd, ioas_id, BASE_IOVA, PAGE_SIZE) &&
		 (errno == ENOTTY || errno == EOPNOTSUPP))
		why = "no IOMMU_IOAS_SPLIT, enable CONFIG_IOMMUFD_SPLIT";
	if (why) {
		ksft_print_header();
		ksft_exit_skip("%s\n", why);
	}
	close(fd);
}

static inline unsigned int next_random(unsigned int *seed)
{
	/* The same sequence in every run, so that a failure can be repeated */
	*seed = *seed * 1103515245 + 12345;
	return *seed >> 16;
}

static inline void shuffle(unsigned int *order, unsigned int count,
			   unsigned int *seed)
{
	unsigned int i;

	for (i = 0; i != count; i++)
		order[i] = i;
	for (i = count - 1; i; i--) {
		unsigned int j = next_random(seed) % (i + 1);
		unsigned int tmp = order[i];

		order[i] = order[j];
		order[j] = tmp;
	}
}

#endif
