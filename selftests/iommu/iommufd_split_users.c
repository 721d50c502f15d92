// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_IOAS_SPLIT next to everything else that uses a mapping: accesses,
 * hardware queues, copies that share the pages, accounting, dirty tracking, and
 * domains that differ.
 */
#include <sys/capability.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "iommufd_split_utils.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

FIXTURE(iommufd_split_users)
{
	int fd;
	uint32_t ioas_id;
	uint32_t stdev_id;
	uint32_t hwpt_id;
	uint32_t idev_id;
	bool can_split;
};

FIXTURE_VARIANT(iommufd_split_users)
{
	enum pt_kind pt;
};

FIXTURE_SETUP(iommufd_split_users)
{
	uint32_t caps = 0;

	/* Teardown is run after a skip too */
	memset(self, 0, sizeof(*self));
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);

	self->can_split = true;
	if (variant->pt == PT_NONE)
		return;
	if (variant->pt == PT_SMALL)
		ASSERT_EQ(0, set_huge_pages(self->fd, self->ioas_id, false));
	test_cmd_mock_domain(self->ioas_id, &self->stdev_id, &self->hwpt_id,
			     &self->idev_id);
	test_cmd_get_hw_capabilities(self->idev_id, caps);
	if (variant->pt == PT_LARGE)
		self->can_split = caps & IOMMU_HW_CAP_HITLESS_SPLIT;
}

FIXTURE_TEARDOWN(iommufd_split_users)
{
	teardown_iommufd(self->fd, _metadata);
}

/* clang-format off */
FIXTURE_VARIANT_ADD(iommufd_split_users, no_domain) { .pt = PT_NONE };
FIXTURE_VARIANT_ADD(iommufd_split_users, small) { .pt = PT_SMALL };
FIXTURE_VARIANT_ADD(iommufd_split_users, large) { .pt = PT_LARGE };
/* clang-format on */

#define map_buffer() \
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, BASE_IOVA)

/* The split succeeds, or is refused for lack of support */
static void _split_if_possible(struct __test_metadata *_metadata,
			       struct _test_data_iommufd_split_users *self,
			       __u64 iova, size_t length)
{
	if (!self->can_split) {
		test_err_ioctl_ioas_split(EOPNOTSUPP, iova, length);
		return;
	}
	test_ioctl_ioas_split(iova, length);
}

#define split_if_possible(...) \
	_split_if_possible(_metadata, self, __VA_ARGS__)

/* The split is refused, support comes first */
#define split_refused(_errno, iova, length) \
	test_err_ioctl_ioas_split(self->can_split ? _errno : EOPNOTSUPP, iova, \
				  length)

static int unpin_pages(int fd, __u32 access_id, __u32 pages_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
		.id = access_id,
		.destroy_access_pages = { .access_pages_id = pages_id },
	};

	return ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_DESTROY_ACCESS_PAGES),
		     &cmd);
}

/* Pin some pages of what is mapped at BASE_IOVA */
static void _pin(struct __test_metadata *_metadata,
		 struct _test_data_iommufd_split_users *self, __u32 access_id,
		 void *memory, unsigned int first, unsigned int npages,
		 __u32 *pages_id)
{
	size_t offset = first * PAGE_SIZE;

	ASSERT_EQ(0, pin_pages(self->fd, access_id, BASE_IOVA + offset,
			       npages * PAGE_SIZE, memory + offset, pages_id));
}

#define pin(...) _pin(_metadata, self, access_id, buffer, __VA_ARGS__)
#define pin_file(...) _pin(_metadata, self, access_id, mfd_buffer, __VA_ARGS__)

/* A cut goes beside a pin, and not through it */
TEST_F(iommufd_split_users, access_pinned)
{
	uint32_t access_id, pages_id;

	map_buffer();
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	pin(4, 3, &pages_id);

	/* Through the pin: by the start, by the end, by both */
	split_refused(EBUSY, BASE_IOVA + 5 * PAGE_SIZE, 4 * PAGE_SIZE);
	split_refused(EBUSY, BASE_IOVA + 2 * PAGE_SIZE, 4 * PAGE_SIZE);
	split_refused(EBUSY, BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
				   BASE_IOVA + 5 * PAGE_SIZE));
	/* A split that has nothing to do is no conflict */
	test_ioctl_ioas_split(BASE_IOVA, BUFFER_SIZE);

	/* Left of it, right of it, around it */
	split_if_possible(BASE_IOVA + 2 * PAGE_SIZE, PAGE_SIZE);
	split_if_possible(BASE_IOVA + 8 * PAGE_SIZE, PAGE_SIZE);
	split_if_possible(BASE_IOVA + 4 * PAGE_SIZE, 3 * PAGE_SIZE);
	if (self->can_split) {
		/* Unmap around it, for which the mock must not unpin */
		test_ioctl_ioas_unmap(BASE_IOVA, 4 * PAGE_SIZE);
		test_ioctl_ioas_unmap(BASE_IOVA + 7 * PAGE_SIZE,
				      BUFFER_SIZE - 7 * PAGE_SIZE);
		test_cmd_destroy_access_pages(access_id, pages_id);
		test_ioctl_ioas_unmap(BASE_IOVA + 4 * PAGE_SIZE, 3 * PAGE_SIZE);
	} else {
		test_cmd_destroy_access_pages(access_id, pages_id);
		test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
	}
	test_cmd_destroy_access(access_id);
}

/*
 * Make several pins, some of them of the same pages, cut between them, and
 * unpin and unmap the parts in every order. If a pin was counted in the wrong
 * part there is a warning, or an unmap asks the mock for a pin that does not
 * exist, or does not ask for one that does.
 */
static void _pins_in_order(struct __test_metadata *_metadata,
			   struct _test_data_iommufd_split_users *self,
			   const unsigned int *order, unsigned int how)
{
	/* Two cuts: 0 to 3, 4 to 9, 10 to 15 */
	static const unsigned int ends[4] = { 0, 4, 10, 16 };
	uint32_t access_id, ids[3][3];
	unsigned int i, n;

	map_buffer();
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	pin(0, 4, &ids[0][0]);
	pin(1, 1, &ids[0][1]);
	pin(1, 1, &ids[0][2]);
	pin(4, 1, &ids[1][0]);
	pin(5, 5, &ids[1][1]);
	pin(4, 6, &ids[1][2]);
	pin(10, 1, &ids[2][0]);
	pin(15, 1, &ids[2][1]);
	pin(10, 6, &ids[2][2]);
	test_err_ioctl_ioas_split(EBUSY, BASE_IOVA, PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, 6 * PAGE_SIZE);
	if (how == 2)
		test_cmd_destroy_access(access_id);
	for (i = 0; i != 3; i++) {
		unsigned int part = order[i];
		size_t start = ends[part] * PAGE_SIZE;
		size_t end = ends[part + 1] * PAGE_SIZE;

		for (n = 0; how == 0 && n != 3; n++)
			ASSERT_EQ(0, unpin_pages(self->fd, access_id,
						 ids[part][n]));
		test_ioctl_ioas_unmap(BASE_IOVA + start, end - start);
		for (n = 0; how == 1 && n != 3; n++)
			EXPECT_ERRNO(ENOENT, unpin_pages(self->fd, access_id,
							 ids[part][n]));
	}
	if (how != 2)
		test_cmd_destroy_access(access_id);
}

TEST_F(iommufd_split_users, access_in_every_order)
{
	static const unsigned int orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 },
						  { 1, 0, 2 }, { 1, 2, 0 },
						  { 2, 0, 1 }, { 2, 1, 0 } };
	unsigned int i, how;

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	/* Unpin before the unmap, by the unmap, or by the end of the access */
	for (how = 0; how != 3; how++)
		for (i = 0; i != ARRAY_SIZE(orders); i++)
			_pins_in_order(_metadata, self, orders[i], how);
}

/* A carve asks users to unpin in the hole, and nowhere else */
TEST_F(iommufd_split_users, carve_pinned)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE |
			 IOMMU_IOAS_MAP_READABLE,
		.ioas_id = self->ioas_id,
		.user_va = (uintptr_t)buffer + 3 * PAGE_SIZE,
		.length = 5 * PAGE_SIZE,
	};
	uint32_t access_id, pages_id[4];

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	map_buffer();
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	pin(0, 2, &pages_id[0]);
	pin(4, 2, &pages_id[1]);
	pin(5, 1, &pages_id[2]);
	pin(9, 2, &pages_id[3]);

	/* Through a pin, as a split */
	test_err_ioctl_ioas_carve(EBUSY, BASE_IOVA + 5 * PAGE_SIZE,
				  2 * PAGE_SIZE);
	test_err_ioctl_ioas_carve(EBUSY, BASE_IOVA + 6 * PAGE_SIZE,
				  4 * PAGE_SIZE);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
				   BASE_IOVA + 6 * PAGE_SIZE));

	test_ioctl_ioas_carve(BASE_IOVA + 3 * PAGE_SIZE, 5 * PAGE_SIZE);
	test_err_destroy_access_pages(ENOENT, access_id, pages_id[1]);
	test_err_destroy_access_pages(ENOENT, access_id, pages_id[2]);
	/* The parts have the rest, and can be pinned as before */
	pin(2, 1, &pages_id[1]);
	pin(8, 1, &pages_id[2]);
	test_cmd_destroy_access_pages(access_id, pages_id[0]);
	test_ioctl_ioas_unmap(BASE_IOVA, 3 * PAGE_SIZE);
	test_err_destroy_access_pages(ENOENT, access_id, pages_id[1]);
	test_cmd_destroy_access_pages(access_id, pages_id[2]);

	/* Mappings that go as a whole are asked for, too */
	map.iova = BASE_IOVA + 3 * PAGE_SIZE;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_MAP, &map));
	pin(4, 1, &pages_id[0]);
	test_ioctl_ioas_carve(BASE_IOVA + 3 * PAGE_SIZE, 6 * PAGE_SIZE);
	test_err_destroy_access_pages(ENOENT, access_id, pages_id[0]);
	test_cmd_destroy_access_pages(access_id, pages_id[3]);
	test_ioctl_ioas_unmap(BASE_IOVA + 9 * PAGE_SIZE,
			      BUFFER_SIZE - 9 * PAGE_SIZE);
	test_cmd_destroy_access(access_id);
}

/* Another IOAS shares the pages and pins them: whose pin is it? */
TEST_F(iommufd_split_users, access_of_two)
{
	uint32_t access_id, other_access_id, pages_id[3], other_id;
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE |
			 IOMMU_IOAS_MAP_READABLE,
		.src_ioas_id = self->ioas_id,
		.dst_iova = BASE_IOVA,
		.src_iova = BASE_IOVA,
		.length = BUFFER_SIZE,
	};

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	map_buffer();
	test_ioctl_ioas_alloc(&other_id);
	copy.dst_ioas_id = other_id;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	test_cmd_create_access(other_id, &other_access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);

	/* Nothing is pinned through this IOAS, so nothing is in the way */
	ASSERT_EQ(0, pin_pages(self->fd, other_access_id,
			       BASE_IOVA + 3 * PAGE_SIZE, 2 * PAGE_SIZE,
			       buffer + 3 * PAGE_SIZE, &pages_id[0]));
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, 6 * PAGE_SIZE);

	/* The cut is in the middle, all pins are on one side of it */
	pin(4, 1, &pages_id[1]);
	ASSERT_EQ(0, pin_pages(self->fd, other_access_id,
			       BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE,
			       buffer + 5 * PAGE_SIZE, &pages_id[2]));
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, 2 * PAGE_SIZE);
	/* One on each side, and one is not ours */
	test_err_ioctl_ioas_split(EBUSY, BASE_IOVA + 4 * PAGE_SIZE, PAGE_SIZE);
	test_cmd_destroy_access_pages(other_access_id, pages_id[2]);
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, PAGE_SIZE);

	test_ioctl_ioas_unmap(BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE);
	test_cmd_destroy_access_pages(access_id, pages_id[1]);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
	test_cmd_destroy_access_pages(other_access_id, pages_id[0]);
	test_cmd_destroy_access(access_id);
	test_cmd_destroy_access(other_access_id);
}

/* Accesses work across the parts, and are told when a part is unmapped */
TEST_F(iommufd_split_users, access_after_split)
{
	uint32_t access_id, pages_id[2];
	uint8_t *copy;
	struct iommu_test_cmd rw = {
		.op = IOMMU_TEST_OP_ACCESS_RW,
		.access_rw = { .iova = BASE_IOVA + 10,
			       .length = BUFFER_SIZE - 20 },
	};
	size_t i;

	map_buffer();
	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	for (i = 0; i != BUFFER_SIZE; i++)
		((uint8_t *)buffer)[i] = i * 7 + i / PAGE_SIZE;
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, 2 * PAGE_SIZE);

	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	copy = malloc(BUFFER_SIZE);
	ASSERT_NE(NULL, copy);
	rw.id = access_id;
	rw.access_rw.uptr = (uintptr_t)copy;
	ASSERT_EQ(0, mock_cmd(self->fd, &rw));
	ASSERT_EQ(0, memcmp(copy, buffer + 10, BUFFER_SIZE - 20));
	free(copy);

	/* One pin in two parts, one in the third */
	pin(3, 2, &pages_id[0]);
	pin(8, 1, &pages_id[1]);
	test_ioctl_ioas_split(BASE_IOVA, PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + 7 * PAGE_SIZE, PAGE_SIZE);
	test_cmd_destroy_access_pages(access_id, pages_id[0]);

	/* The mock lets go of a pin when it is asked to */
	test_ioctl_ioas_unmap(BASE_IOVA + 8 * PAGE_SIZE,
			      BUFFER_SIZE - 8 * PAGE_SIZE);
	test_err_destroy_access_pages(ENOENT, access_id, pages_id[1]);
	test_ioctl_ioas_unmap(BASE_IOVA, 8 * PAGE_SIZE);
	test_cmd_destroy_access(access_id);
}

/*
 * The parts give the rights that the mapping gave. It has fewer than its pages,
 * so that it is the mapping that is asked.
 */
TEST_F(iommufd_split_users, read_only)
{
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.dst_ioas_id = self->ioas_id,
		.dst_iova = BASE_IOVA,
		.src_iova = BASE_IOVA,
		.length = BUFFER_SIZE,
	};
	uint64_t data = 0;
	struct iommu_test_cmd rw = {
		.op = IOMMU_TEST_OP_ACCESS_RW,
		.access_rw = { .length = sizeof(data),
			       .uptr = (uintptr_t)&data },
	};
	size_t i;

	test_ioctl_ioas_alloc(&copy.src_ioas_id);
	test_ioctl_ioas_map_fixed_id(copy.src_ioas_id, buffer, BUFFER_SIZE,
				     BASE_IOVA);
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	split_if_possible(BASE_IOVA + 4 * PAGE_SIZE, 2 * PAGE_SIZE);
	test_cmd_create_access(self->ioas_id, &rw.id, 0);
	for (i = 0; i != BUFFER_SIZE; i += PAGE_SIZE) {
		rw.access_rw.iova = BASE_IOVA + i;
		rw.access_rw.flags = 0;
		ASSERT_EQ(0, mock_cmd(self->fd, &rw));
		rw.access_rw.flags = MOCK_ACCESS_RW_WRITE;
		EXPECT_ERRNO(EPERM, mock_cmd(self->fd, &rw));
	}
	test_cmd_destroy_access(rw.id);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
}

/* The pages of a hardware queue are locked until the queue is destroyed */
TEST_F(iommufd_split_users, hw_queue)
{
	uint32_t hwpt_id, viommu_id, queue_id, access_id, pages_id[2];

	if (variant->pt == PT_NONE)
		SKIP(return, "not for an IOAS without a domain");
	test_cmd_hwpt_alloc(self->idev_id, self->ioas_id,
			    IOMMU_HWPT_ALLOC_NEST_PARENT, &hwpt_id);
	test_cmd_viommu_alloc(self->idev_id, hwpt_id,
			      IOMMU_VIOMMU_TYPE_SELFTEST, NULL, 0, &viommu_id);
	map_buffer();
	test_cmd_hw_queue_alloc(viommu_id, IOMMU_HW_QUEUE_TYPE_SELFTEST, 0,
				BASE_IOVA + 2 * PAGE_SIZE, PAGE_SIZE,
				&queue_id);
	/* An access pins the page of the queue, and another one, and locks none */
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	pin(2, 1, &pages_id[0]);
	pin(8, 1, &pages_id[1]);

	test_ioctl_ioas_split(BASE_IOVA, BUFFER_SIZE);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, BUFFER_SIZE);

	/* Locked, with a pin that would be let go and must not be asked for */
	if (self->can_split)
		test_err_ioctl_ioas_carve(EBUSY, BASE_IOVA, 9 * PAGE_SIZE);
	test_err_ioctl_ioas_carve(EBUSY, BASE_IOVA, BUFFER_SIZE);
	split_if_possible(BASE_IOVA + 8 * PAGE_SIZE, PAGE_SIZE);
	if (self->can_split) {
		/* The queue keeps its own part, and nothing around it */
		test_ioctl_ioas_unmap(BASE_IOVA + 8 * PAGE_SIZE, PAGE_SIZE);
		test_err_destroy_access_pages(ENOENT, access_id, pages_id[1]);
		test_ioctl_ioas_unmap(BASE_IOVA + 9 * PAGE_SIZE,
				      BUFFER_SIZE - 9 * PAGE_SIZE);
		test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, 8 * PAGE_SIZE);
		test_ioctl_ioas_split(BASE_IOVA + 2 * PAGE_SIZE, PAGE_SIZE);
		test_ioctl_ioas_unmap(BASE_IOVA, 2 * PAGE_SIZE);
		test_ioctl_ioas_unmap(BASE_IOVA + 3 * PAGE_SIZE, 5 * PAGE_SIZE);
		test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA + 2 * PAGE_SIZE,
					  PAGE_SIZE);
	}
	/* Without the queue it is as with any access */
	test_ioctl_destroy(queue_id);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
	test_err_destroy_access_pages(ENOENT, access_id, pages_id[0]);
	test_cmd_destroy_access(access_id);
	test_ioctl_destroy(viommu_id);
	test_ioctl_destroy(hwpt_id);
}

/* Memory of the file that is allocated */
static size_t file_bytes(int file)
{
	struct stat st;

	return fstat(file, &st) ? 0 : st.st_blocks * 512;
}

/* 0 if the hole is made and reads as zeros, whatever it frees */
static int punch(int file, size_t offset, size_t length)
{
	uint8_t bytes[2] = { 1, 1 };

	if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
		      length))
		return -1;
	/* A read of the mapping would allocate pages */
	if (pread(file, &bytes[0], 1, offset) != 1 ||
	    pread(file, &bytes[1], 1, offset + length - 1) != 1)
		return -1;
	return bytes[0] | bytes[1];
}

/* A part of the block is unmapped, and punched out of the file */
static void _carve_and_punch(struct __test_metadata *_metadata,
			     struct _test_data_iommufd_split_users *self,
			     struct block *block, size_t offset, size_t length)
{
	test_ioctl_ioas_split(BASE_IOVA + offset, length);
	test_ioctl_ioas_unmap(BASE_IOVA + offset, length);
	ASSERT_EQ(0, punch(block->file, offset, length));
}

#define carve_and_punch(...) _carve_and_punch(_metadata, self, __VA_ARGS__)

/* Two folios of 2M in a memfd, false if there are none */
static bool block_of_folios(struct block *block)
{
	const size_t length = 2 * HUGE_SIZE;
	uintptr_t at;
	uint8_t *ptr;

	/* The address has to be aligned for a folio too */
	ptr = mmap(NULL, length + HUGE_SIZE, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ptr == MAP_FAILED)
		return false;
	at = ((uintptr_t)ptr + HUGE_SIZE - 1) & ~((uintptr_t)HUGE_SIZE - 1);
	*block = (struct block){ .length = length,
				 .file = memfd_create("folios", 0) };
	if (block->file == -1 || ftruncate(block->file, length))
		return false;
	block->ptr = mmap((void *)at, length, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, block->file, 0);
	if (block->ptr == MAP_FAILED)
		return false;
	memset(block->ptr, 0xa5, length);
	return !madvise(block->ptr, length, MADV_COLLAPSE);
}

/*
 * What comes back of memory that was unmapped. Pins are counted for a folio, and
 * one that is pinned is not divided: a hole in a part of it frees nothing while
 * another part is mapped, and is not made up for later.
 */
TEST_F(iommufd_split_users, memory_of_folios)
{
	const size_t part = HUGE_SIZE / 16;
	/* Without a domain nothing is */
	bool pinned = variant->pt != PT_NONE;
	size_t freed = pinned ? 0 : part;
	struct block block;
	size_t offset;

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	if (!block_of_folios(&block))
		SKIP(return,
		     "no large folios, enable CONFIG_TRANSPARENT_HUGEPAGE");
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &block, 0, block.length,
			       BASE_IOVA));
	ASSERT_EQ(2 * HUGE_SIZE, file_bytes(block.file));

	carve_and_punch(&block, 3 * part, part);
	ASSERT_EQ(2 * HUGE_SIZE - freed, file_bytes(block.file));

	/* All of a folio comes back */
	carve_and_punch(&block, HUGE_SIZE, HUGE_SIZE);
	ASSERT_EQ(HUGE_SIZE - freed, file_bytes(block.file));

	/* The last part takes the last pins away, and frees itself alone */
	for (offset = 0; offset != HUGE_SIZE; offset += part)
		if (offset != 3 * part)
			carve_and_punch(&block, offset, part);
	ASSERT_EQ(pinned ? HUGE_SIZE - part : 0, file_bytes(block.file));
	ASSERT_EQ(0, punch(block.file, 0, HUGE_SIZE));
	ASSERT_EQ(0, file_bytes(block.file));
	block_release(&block);
}

/* hugetlb has nothing smaller than a page, pinned or not */
TEST_F(iommufd_split_users, memory_of_hugetlb)
{
	const size_t part = HUGE_SIZE / 2;
	struct block block;

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	if (!block_init(&block, true, true))
		SKIP(return, NO_HUGE_PAGE);
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &block, 0, block.length,
			       BASE_IOVA));

	carve_and_punch(&block, 0, part);
	ASSERT_EQ(HUGE_SIZE, file_bytes(block.file));
	carve_and_punch(&block, part, part);
	ASSERT_EQ(HUGE_SIZE, file_bytes(block.file));
	ASSERT_EQ(0, punch(block.file, 0, HUGE_SIZE));
	ASSERT_EQ(0, file_bytes(block.file));
	block_release(&block);
}

/*
 * Two IOAS share the pages. The second has no domain and finds the PFNs through
 * the areas of the first, so it notices if a part of an area got lost there.
 */
TEST_F(iommufd_split_users, copy)
{
	uint32_t access_id, pages_id, other_id;
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE |
			 IOMMU_IOAS_MAP_READABLE,
		.src_ioas_id = self->ioas_id,
		.dst_iova = BASE_IOVA,
		.src_iova = BASE_IOVA,
		.length = BUFFER_SIZE,
	};
	unsigned int refs = variant->pt == PT_NONE ? 0 : 1;

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	map_buffer();
	test_ioctl_ioas_alloc(&other_id);
	copy.dst_ioas_id = other_id;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, 2 * PAGE_SIZE);
	/* The other IOAS is not cut, and keeps what is carved out of this one */
	test_ioctl_ioas_carve(BASE_IOVA + 12 * PAGE_SIZE, PAGE_SIZE);
	ASSERT_EQ(0, check_not_cut(self->fd, other_id, BASE_IOVA,
				   BASE_IOVA + 4 * PAGE_SIZE));
	ASSERT_EQ(0, check_not_cut(self->fd, other_id, BASE_IOVA,
				   BASE_IOVA + 12 * PAGE_SIZE));
	check_refs(buffer + 12 * PAGE_SIZE, PAGE_SIZE, 0);

	/* What a domain holds is not pinned a second time */
	test_cmd_create_access(other_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	ASSERT_EQ(0, pin_pages(self->fd, access_id, BASE_IOVA, BUFFER_SIZE,
			       buffer, &pages_id));
	check_refs(buffer, BUFFER_SIZE, 1);

	/* It stays pinned by the access when the domain lets go of a part */
	test_ioctl_ioas_unmap(BASE_IOVA + 4 * PAGE_SIZE, 2 * PAGE_SIZE);
	check_refs(buffer, BUFFER_SIZE, 1);
	test_cmd_destroy_access_pages(access_id, pages_id);
	check_refs(buffer, 4 * PAGE_SIZE, refs);
	check_refs(buffer + 4 * PAGE_SIZE, 2 * PAGE_SIZE, 0);
	check_refs(buffer + 6 * PAGE_SIZE, 6 * PAGE_SIZE, refs);
	check_refs(buffer + 12 * PAGE_SIZE, PAGE_SIZE, 0);
	check_refs(buffer + 13 * PAGE_SIZE, BUFFER_SIZE - 13 * PAGE_SIZE, refs);

	/* A part can be copied too, with the offset it has in the pages */
	test_ioctl_ioas_unmap_id(other_id, BASE_IOVA, BUFFER_SIZE);
	copy.src_iova = BASE_IOVA + 7 * PAGE_SIZE;
	copy.length = 2 * PAGE_SIZE;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	ASSERT_EQ(0, pin_pages(self->fd, access_id, BASE_IOVA, 2 * PAGE_SIZE,
			       buffer + 7 * PAGE_SIZE, &pages_id));
	test_cmd_destroy_access_pages(access_id, pages_id);
	test_cmd_destroy_access(access_id);

	/* Across the hole there is nothing to copy */
	copy.src_iova = BASE_IOVA;
	copy.dst_iova = BASE_IOVA + BUFFER_SIZE;
	copy.length = BUFFER_SIZE;
	EXPECT_ERRNO(ENOENT, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));

	test_ioctl_ioas_unmap(BASE_IOVA, 4 * PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 6 * PAGE_SIZE,
			      BUFFER_SIZE - 6 * PAGE_SIZE);
}

static long pinned_kb(pid_t pid)
{
	return status_kb(pid, "VmPin");
}

/* Pinned memory is only charged to those who do not have it */
static void drop_cap_ipc_lock(struct __test_metadata *_metadata)
{
	cap_value_t cap_list[1] = { CAP_IPC_LOCK };
	cap_t caps;

	caps = cap_get_proc();
	ASSERT_NE(NULL, caps);
	ASSERT_NE(-1,
		  cap_set_flag(caps, CAP_EFFECTIVE, 1, cap_list, CAP_CLEAR));
	ASSERT_NE(-1, cap_set_proc(caps));
	cap_free(caps);
}

/* The process that is charged for the pages changes, parts or not */
TEST_F(iommufd_split_users, change_process)
{
	struct iommu_ioas_change_process cmd = { .size = sizeof(cmd) };
	long total = BUFFER_SIZE / 1024;
	long page = PAGE_SIZE / 1024;
	pid_t parent = getpid();
	pid_t child;
	int status;

	if (variant->pt == PT_NONE)
		SKIP(return, "not for an IOAS without a domain");
	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	drop_cap_ipc_lock(_metadata);
	test_ioctl_ioas_map_fixed_file(mfd, 0, BUFFER_SIZE, BASE_IOVA);
	ASSERT_EQ(total, pinned_kb(parent));
	test_ioctl_ioas_split(BASE_IOVA + 2 * PAGE_SIZE, 3 * PAGE_SIZE);
	ASSERT_EQ(total, pinned_kb(parent));

	child = fork();
	ASSERT_NE(-1, child);
	if (!child) {
		ASSERT_EQ(0, pinned_kb(getpid()));
		ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_CHANGE_PROCESS, &cmd));
		ASSERT_EQ(0, pinned_kb(parent));
		ASSERT_EQ(total, pinned_kb(getpid()));

		/* Each part gives back its own */
		test_ioctl_ioas_unmap(BASE_IOVA + 2 * PAGE_SIZE, 3 * PAGE_SIZE);
		ASSERT_EQ(total - 3 * page, pinned_kb(getpid()));
		test_ioctl_ioas_unmap(BASE_IOVA, 2 * PAGE_SIZE);
		ASSERT_EQ(total - 5 * page, pinned_kb(getpid()));
		test_ioctl_ioas_carve(BASE_IOVA + 8 * PAGE_SIZE, 2 * PAGE_SIZE);
		ASSERT_EQ(total - 7 * page, pinned_kb(getpid()));
		test_ioctl_ioas_unmap(BASE_IOVA + 5 * PAGE_SIZE,
				      BUFFER_SIZE - 5 * PAGE_SIZE);
		ASSERT_EQ(0, pinned_kb(getpid()));
		exit(0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status));
}

/* How many pages a process is charged for, with a domain and without */
#define EXPECT_CHARGED(pid, with_domain, without)                         \
	EXPECT_EQ((variant->pt == PT_NONE ? (without) : (with_domain)) * \
			  page,                                           \
		  pinned_kb(pid))

/*
 * The same while an access pins pages beside the cuts. CHANGE_PROCESS takes them
 * over as well, and who lets go of a pin later, or of what is beside it, takes
 * its own from whoever is charged then.
 */
TEST_F(iommufd_split_users, change_process_pinned)
{
	struct iommu_ioas_change_process cmd = { .size = sizeof(cmd) };
	uint32_t access_id, pages_id[3];
	long page = PAGE_SIZE / 1024;
	pid_t parent = getpid();
	pid_t child;
	int status;

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	drop_cap_ipc_lock(_metadata);
	test_ioctl_ioas_map_fixed_file(mfd, 0, BUFFER_SIZE, BASE_IOVA);
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	/* What a domain has pinned is not pinned again, by a second pin neither */
	pin_file(4, 3, &pages_id[0]);
	pin_file(9, 1, &pages_id[1]);
	pin_file(9, 1, &pages_id[2]);
	EXPECT_CHARGED(parent, 16, 4);

	/* On both sides of both, up to the pinned pages */
	test_ioctl_ioas_split(BASE_IOVA + 4 * PAGE_SIZE, 3 * PAGE_SIZE);
	EXPECT_CHARGED(parent, 16, 4);
	test_ioctl_ioas_carve(BASE_IOVA + 2 * PAGE_SIZE, 2 * PAGE_SIZE);
	test_ioctl_ioas_carve(BASE_IOVA + 7 * PAGE_SIZE, 2 * PAGE_SIZE);
	test_ioctl_ioas_carve(BASE_IOVA + 10 * PAGE_SIZE, PAGE_SIZE);
	EXPECT_CHARGED(parent, 11, 4);

	child = fork();
	ASSERT_NE(-1, child);
	if (!child) {
		EXPECT_CHARGED(getpid(), 0, 0);
		ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_CHANGE_PROCESS, &cmd));
		EXPECT_CHARGED(parent, 0, 0);
		EXPECT_CHARGED(getpid(), 11, 4);

		/* Cut again, beside the pins only */
		test_err_ioctl_ioas_split(EBUSY, BASE_IOVA + 5 * PAGE_SIZE,
					  PAGE_SIZE);
		test_ioctl_ioas_split(BASE_IOVA + 14 * PAGE_SIZE, PAGE_SIZE);
		test_ioctl_ioas_carve(BASE_IOVA + 12 * PAGE_SIZE, PAGE_SIZE);
		EXPECT_CHARGED(getpid(), 10, 4);

		/* One of two pins, then the mapping, which ends the other */
		test_cmd_destroy_access_pages(access_id, pages_id[1]);
		EXPECT_CHARGED(getpid(), 10, 4);
		test_ioctl_ioas_unmap(BASE_IOVA + 9 * PAGE_SIZE, PAGE_SIZE);
		test_err_destroy_access_pages(ENOENT, access_id, pages_id[2]);
		EXPECT_CHARGED(getpid(), 9, 3);
		EXPECT_CHARGED(parent, 0, 0);
		exit(_metadata->exit_code);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(KSFT_PASS, WEXITSTATUS(status));

	/* Back from a process that is gone */
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_CHANGE_PROCESS, &cmd));
	EXPECT_CHARGED(parent, 9, 3);
	test_cmd_destroy_access_pages(access_id, pages_id[0]);
	EXPECT_CHARGED(parent, 9, 0);
	test_ioctl_ioas_unmap(BASE_IOVA + 4 * PAGE_SIZE, 3 * PAGE_SIZE);
	EXPECT_CHARGED(parent, 6, 0);
	test_ioctl_ioas_unmap(0, UINT64_MAX);
	EXPECT_CHARGED(parent, 0, 0);
	test_cmd_destroy_access(access_id);
}

/* No dirty bit is lost or invented, in whatever part it is */
TEST_F(iommufd_split_users, dirty_tracking)
{
	__u64 set[1] = { 0x8421 }, got[1] = { 0 };
	uint32_t stdev_id, hwpt_id, idev_id;
	__u64 count;

	if (variant->pt == PT_NONE)
		SKIP(return, "not for an IOAS without a domain");
	test_cmd_mock_domain(self->ioas_id, &stdev_id, NULL, &idev_id);
	test_cmd_hwpt_alloc(idev_id, self->ioas_id,
			    IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &hwpt_id);
	test_cmd_mock_domain_replace(stdev_id, hwpt_id);
	map_buffer();
	test_cmd_set_dirty_tracking(hwpt_id, true);

	if (variant->pt == PT_SMALL) {
		test_cmd_mock_domain_set_dirty(self->fd, hwpt_id, BUFFER_SIZE,
					       BASE_IOVA, PAGE_SIZE, set,
					       &count);
		ASSERT_EQ(4, count);
		test_ioctl_ioas_split(BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE);
		test_ioctl_ioas_split(BASE_IOVA + 10 * PAGE_SIZE,
				      3 * PAGE_SIZE);
	} else {
		/* Clean leaves have clean parts, which get dirty on their own */
		split_if_possible(BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE);
		test_cmd_get_dirty_bitmap(self->fd, hwpt_id, BUFFER_SIZE,
					  BASE_IOVA, PAGE_SIZE, got, 0);
		ASSERT_EQ(0, got[0]);
		set[0] = 1 << 5;
		test_cmd_mock_domain_set_dirty(self->fd, hwpt_id, PAGE_SIZE,
					       BASE_IOVA + 5 * PAGE_SIZE,
					       PAGE_SIZE,
					       (__u64[]){ 1 }, &count);
		ASSERT_EQ(1, count);
		if (!self->can_split)
			return;
	}
	/* What is dirty in a hole is lost, and nothing else is */
	if (self->can_split) {
		test_ioctl_ioas_carve(BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE);
		set[0] &= ~(1 << 5);
	}
	test_cmd_get_dirty_bitmap(self->fd, hwpt_id, BUFFER_SIZE, BASE_IOVA,
				  PAGE_SIZE, got, 0);
	ASSERT_EQ(set[0], got[0] & 0xffff);
	got[0] = 0;
	test_cmd_get_dirty_bitmap(self->fd, hwpt_id, BUFFER_SIZE, BASE_IOVA,
				  PAGE_SIZE, got, 0);
	ASSERT_EQ(0, got[0]);
}

/*
 * What a VMM does for a device that cannot split: a second IOAS, in pieces. Copied
 * pieces are neither pinned nor charged again, what is mapped once more is.
 */
TEST_F(iommufd_split_users, second_ioas)
{
	uint32_t other_id, stdev_id, hwpt_id, idev_id;
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE |
			 IOMMU_IOAS_MAP_READABLE,
		.src_ioas_id = self->ioas_id,
		.length = PAGE_SIZE,
	};
	long total = BUFFER_SIZE / 1024;
	size_t offset;

	if (variant->pt == PT_NONE)
		SKIP(return, "not for an IOAS without a domain");
	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	drop_cap_ipc_lock(_metadata);
	test_ioctl_ioas_alloc(&other_id);
	ASSERT_EQ(0, attach_own_domain(self->fd, other_id, &stdev_id, &hwpt_id,
				       &idev_id));
	copy.dst_ioas_id = other_id;
	map_buffer();
	for (offset = 0; offset != BUFFER_SIZE; offset += PAGE_SIZE) {
		copy.src_iova = BASE_IOVA + offset;
		copy.dst_iova = copy.src_iova;
		ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	}
	ASSERT_EQ(0, check_map(self->fd, hwpt_id, BASE_IOVA, BUFFER_SIZE,
			       buffer));
	check_refs(buffer, BUFFER_SIZE, 1);
	ASSERT_EQ(total, pinned_kb(getpid()));

	/* Each lets go of a page, the pin ends with the second */
	test_ioctl_ioas_split(BASE_IOVA + 3 * PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 3 * PAGE_SIZE, PAGE_SIZE);
	check_refs(buffer + 3 * PAGE_SIZE, PAGE_SIZE, 1);
	test_ioctl_ioas_unmap_id(other_id, BASE_IOVA + 3 * PAGE_SIZE,
				 PAGE_SIZE);
	check_refs(buffer + 3 * PAGE_SIZE, PAGE_SIZE, 0);
	ASSERT_EQ(total - (long)PAGE_SIZE / 1024, pinned_kb(getpid()));

	/* Mapped, and not copied */
	test_ioctl_ioas_unmap_id(other_id, BASE_IOVA, BUFFER_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
	map_buffer();
	test_ioctl_ioas_map_fixed_id(other_id, buffer, BUFFER_SIZE, BASE_IOVA);
	check_refs(buffer, BUFFER_SIZE, 2);
	ASSERT_EQ(2 * total, pinned_kb(getpid()));
	test_ioctl_ioas_unmap_id(other_id, BASE_IOVA, BUFFER_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
}

/* Domains with large pages, in the ways the mock has them */
FIXTURE(iommufd_split_large)
{
	int fd;
	uint32_t ioas_id;
	uint32_t hwpt_id;
	uint32_t idev_id;
	bool can_split;
};

FIXTURE_SETUP(iommufd_split_large)
{
	uint32_t caps = 0;

	memset(self, 0, sizeof(*self));
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
	test_cmd_mock_domain(self->ioas_id, NULL, &self->hwpt_id,
			     &self->idev_id);
	test_cmd_get_hw_capabilities(self->idev_id, caps);
	self->can_split = caps & IOMMU_HW_CAP_HITLESS_SPLIT;
}

FIXTURE_TEARDOWN(iommufd_split_large)
{
	teardown_iommufd(self->fd, _metadata);
}

/* What the leaves of one huge page must be: where each starts, and if it is dirty */
#define HUGE_PAGES_MAX 512

struct dirty_model {
	unsigned int npages;
	unsigned int len[HUGE_PAGES_MAX]; /* of the leaf that starts here, or 0 */
	bool dirty[HUGE_PAGES_MAX];
};

static unsigned int leaf_start(struct dirty_model *m, unsigned int page)
{
	while (!m->len[page])
		page--;
	return page;
}

/* The largest naturally aligned leaves; they inherit the dirty bit */
static void fill_leaves(struct dirty_model *m, unsigned int start,
			unsigned int end, bool dirty)
{
	unsigned int len;

	for (; start != end; start += len) {
		for (len = 1; !(start & len) && start + 2 * len <= end;
		     len *= 2)
			;
		m->len[start] = len;
		m->dirty[start] = dirty;
	}
}

static void cut_model(struct dirty_model *m, unsigned int at)
{
	unsigned int start, end;
	bool dirty;

	if (at == m->npages || m->len[at])
		return;
	start = leaf_start(m, at);
	end = start + m->len[start];
	dirty = m->dirty[start];
	fill_leaves(m, start, at, dirty);
	fill_leaves(m, at, end, dirty);
}

/* Dirty bits, splits and reads in turn: no bit is lost, and none invented */
TEST_F(iommufd_split_large, dirty_in_turn)
{
	__u64 got[HUGE_PAGES_MAX / 64];
	const __u32 no_clear = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
	unsigned int round, i, seed = 1;
	__u64 one[1] = { 1 };
	uint32_t stdev_id, dirty_hwpt_id, idev_id;
	struct dirty_model m;
	struct block block;

	if (!self->can_split)
		SKIP(return, NO_LARGE_SPLIT);
	if (!block_init(&block, true, true))
		SKIP(return, NO_HUGE_PAGE);
	m.npages = HUGE_SIZE / PAGE_SIZE;
	ASSERT_GE(HUGE_PAGES_MAX, m.npages);
	test_cmd_mock_domain(self->ioas_id, &stdev_id, NULL, &idev_id);
	test_cmd_hwpt_alloc(idev_id, self->ioas_id,
			    IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &dirty_hwpt_id);
	test_cmd_mock_domain_replace(stdev_id, dirty_hwpt_id);
	test_cmd_set_dirty_tracking(dirty_hwpt_id, true);

	for (round = 0; round != 20; round++) {
		memset(m.len, 0, sizeof(m.len));
		fill_leaves(&m, 0, m.npages, false);
		ASSERT_EQ(m.npages, m.len[0]);
		ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &block, 0,
				       HUGE_SIZE, BASE_IOVA));

		for (i = 0; i != 60; i++) {
			unsigned int page = next_random(&seed) % m.npages;
			unsigned int end = page + 1 + next_random(&seed) %
							(m.npages - page);
			bool clear = next_random(&seed) & 1;
			unsigned int p;

			/* A clean leaf has clean parts, so let many be clean */
			if (next_random(&seed) % 3 == 0) {
				__u64 iova = BASE_IOVA + page * PAGE_SIZE;

				test_cmd_mock_domain_set_dirty(self->fd,
							       dirty_hwpt_id,
							       PAGE_SIZE, iova,
							       PAGE_SIZE, one,
							       NULL);
				m.dirty[leaf_start(&m, page)] = true;
			}
			/* Down to a page, and from there to the whole rest */
			if (next_random(&seed) & 1)
				end = page + 1;
			test_ioctl_ioas_split(BASE_IOVA + page * PAGE_SIZE,
					      (end - page) * PAGE_SIZE);
			cut_model(&m, page);
			cut_model(&m, end);

			if (next_random(&seed) & 1)
				continue;
			memset(got, 0, sizeof(got));
			test_cmd_get_dirty_bitmap(self->fd, dirty_hwpt_id,
						  HUGE_SIZE, BASE_IOVA,
						  PAGE_SIZE, got,
						  clear ? 0 : no_clear);
			for (p = 0; p != m.npages; p++) {
				ASSERT_EQ(m.dirty[leaf_start(&m, p)],
					  got[p / 64] >> (p % 64) & 1)
				{
					TH_LOG("round %u step %u page %u",
					       round, i, p);
				}
			}
			if (clear)
				memset(m.dirty, 0, sizeof(m.dirty));
		}
		for (i = 0; i != m.npages; i++)
			ASSERT_EQ(0, check_map(self->fd, dirty_hwpt_id,
					       BASE_IOVA + i * PAGE_SIZE,
					       PAGE_SIZE,
					       block.ptr + i * PAGE_SIZE));
		test_ioctl_ioas_unmap(BASE_IOVA, HUGE_SIZE);
	}
	block_release(&block);
}

/* The capability is a promise about the ioctl */
TEST_F(iommufd_split_large, capability)
{
	uint32_t caps = 0;

	test_cmd_get_hw_capabilities(self->idev_id, caps);
	map_buffer();
	if (caps & IOMMU_HW_CAP_HITLESS_SPLIT) {
		test_ioctl_ioas_split(BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	} else {
		test_err_ioctl_ioas_split(EOPNOTSUPP, BASE_IOVA + PAGE_SIZE,
					  PAGE_SIZE);
	}
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
}

/*
 * Every domain counts. The mock's "huge" kind has pages of 4K and 1M, of which
 * none reaches across an edge inside a mapping of 64K. The default kind may have
 * such a page. So one domain of the IOAS can always be cut, and the other needs
 * support, in both orders.
 */
TEST_F(iommufd_split_large, domains_differ)
{
	unsigned int huge_first;

	for (huge_first = 0; huge_first != 2; huge_first++) {
		uint32_t ioas_id, stdev_id, idev_id;
		uint32_t huge_id = 0, default_id = 0;
		__u64 iova = BASE_IOVA;
		unsigned int i;

		test_ioctl_ioas_alloc(&ioas_id);
		for (i = 0; i != 2; i++) {
			if (i != huge_first) {
				test_cmd_hwpt_alloc_iommupt(self->idev_id,
							    ioas_id, 0,
							    MOCK_IOMMUPT_HUGE,
							    &huge_id);
				continue;
			}
			ASSERT_EQ(0, attach_own_domain(self->fd, ioas_id,
						       &stdev_id, &default_id,
						       &idev_id));
		}

		test_ioctl_ioas_map_fixed_id(ioas_id, buffer, BUFFER_SIZE,
					     iova);
		if (self->can_split) {
			ASSERT_EQ(0, _test_ioctl_ioas_split(self->fd, ioas_id,
							    iova + PAGE_SIZE,
							    PAGE_SIZE));
			test_ioctl_ioas_unmap_id(ioas_id, iova + PAGE_SIZE,
						 PAGE_SIZE);
		} else {
			EXPECT_ERRNO(EOPNOTSUPP,
				     _test_ioctl_ioas_split(self->fd, ioas_id,
							    iova + PAGE_SIZE,
							    PAGE_SIZE));
			ASSERT_EQ(0, check_not_cut(self->fd, ioas_id, iova,
						   iova + PAGE_SIZE));
		}
		ASSERT_EQ(0, check_map(self->fd, default_id, iova, PAGE_SIZE,
				       buffer));
		ASSERT_EQ(0, check_map(self->fd, huge_id, iova, PAGE_SIZE,
				       buffer));
		ASSERT_EQ(0, _test_ioctl_ioas_unmap(self->fd, ioas_id, 0,
						    UINT64_MAX, NULL));

		/* The domain that needs support is gone */
		test_ioctl_destroy(stdev_id);
		test_ioctl_destroy(default_id);
		test_ioctl_ioas_map_fixed_id(ioas_id, buffer, BUFFER_SIZE,
					     iova);
		ASSERT_EQ(0, _test_ioctl_ioas_split(self->fd, ioas_id,
						    iova + PAGE_SIZE,
						    PAGE_SIZE));
		test_ioctl_ioas_unmap_id(ioas_id, iova + PAGE_SIZE, PAGE_SIZE);
		ASSERT_EQ(0, check_map(self->fd, huge_id, iova, PAGE_SIZE,
				       buffer));
	}
}

/*
 * The mock's smallest page is half a page. A cut in the middle of a page leaves
 * two areas that hold the same page.
 */
TEST_F(iommufd_split_large, sub_page)
{
	__u64 iova = BASE_IOVA + MOCK_PAGE_SIZE;

	/* The one page around the cut is not inside the mapping */
	test_ioctl_ioas_map_fixed(buffer, 2 * MOCK_PAGE_SIZE, iova);
	test_err_ioctl_ioas_split(EINVAL, iova + MOCK_PAGE_SIZE / 2,
				  MOCK_PAGE_SIZE);
	test_ioctl_ioas_split(iova + MOCK_PAGE_SIZE, MOCK_PAGE_SIZE);
	ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, iova,
			       2 * MOCK_PAGE_SIZE, buffer));
	check_refs(buffer, PAGE_SIZE, 1);

	/* The page stays pinned for the other half */
	test_ioctl_ioas_unmap(iova, MOCK_PAGE_SIZE);
	check_refs(buffer, PAGE_SIZE, 1);
	ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, iova + MOCK_PAGE_SIZE,
			       MOCK_PAGE_SIZE, buffer + MOCK_PAGE_SIZE));
	test_ioctl_ioas_unmap(iova + MOCK_PAGE_SIZE, MOCK_PAGE_SIZE);
	check_refs(buffer, PAGE_SIZE, 0);
}

/* No domain ever, so that nothing asks for alignment */
FIXTURE(iommufd_split_unaligned)
{
	int fd;
	uint32_t ioas_id;
};

FIXTURE_SETUP(iommufd_split_unaligned)
{
	memset(self, 0, sizeof(*self));
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
}

FIXTURE_TEARDOWN(iommufd_split_unaligned)
{
	teardown_iommufd(self->fd, _metadata);
}

/* Memory that does not begin at a page: each part finds its own bytes */
TEST_F(iommufd_split_unaligned, page_offset)
{
	const size_t offset = 0x123;
	size_t length = 4 * PAGE_SIZE;
	uint32_t access_id;
	uint8_t byte;
	size_t i;

	for (i = 0; i != BUFFER_SIZE; i++)
		((uint8_t *)buffer)[i] = i * 13 + i / PAGE_SIZE;
	test_ioctl_ioas_map_fixed(buffer + offset, length, BASE_IOVA);

	/* Areas finer than a page would keep every domain away later */
	test_err_ioctl_ioas_split(EINVAL, BASE_IOVA + 1, PAGE_SIZE);
	test_err_ioctl_ioas_split(EINVAL, BASE_IOVA + PAGE_SIZE / 2,
				  PAGE_SIZE / 2);
	test_ioctl_ioas_split(BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + 3 * PAGE_SIZE, PAGE_SIZE);

	test_cmd_create_access(self->ioas_id, &access_id, 0);
	for (i = 0; i != length; i++) {
		struct iommu_test_cmd rw = {
			.op = IOMMU_TEST_OP_ACCESS_RW,
			.id = access_id,
			.access_rw = { .iova = BASE_IOVA + i,
				       .length = 1,
				       .uptr = (uintptr_t)&byte },
		};

		ASSERT_EQ(0, mock_cmd(self->fd, &rw));
		ASSERT_EQ(((uint8_t *)buffer)[offset + i], byte);
	}
	test_cmd_destroy_access(access_id);
	for (i = 0; i != length; i += PAGE_SIZE)
		if (i != 2 * PAGE_SIZE)
			test_ioctl_ioas_unmap(BASE_IOVA + i, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 2 * PAGE_SIZE, PAGE_SIZE);
}

/* Only what is cut has to be aligned, not where a mapping ends already */
TEST_F(iommufd_split_unaligned, edges)
{
	const size_t half = PAGE_SIZE / 2;
	const uint64_t iova = BASE_IOVA + half;
	const size_t length = 3 * PAGE_SIZE + half / 2;

	/* Two side by side, and one behind a hole */
	test_ioctl_ioas_map_fixed(buffer, length, iova);
	test_ioctl_ioas_map_fixed(buffer, half, iova + length);
	test_ioctl_ioas_map_fixed(buffer, half, iova + length + PAGE_SIZE);

	/* Each as a whole, and both */
	test_ioctl_ioas_split(iova, length);
	test_ioctl_ioas_split(iova + length, half);
	test_ioctl_ioas_split(iova, length + half);
	test_ioctl_ioas_split(iova + length + PAGE_SIZE, half);

	/* A start is no end, and an end no start */
	test_err_ioctl_ioas_split(EINVAL, iova + length + half, half);
	test_err_ioctl_ioas_split(EINVAL, iova - half, half);
	test_err_ioctl_ioas_split(EINVAL, BASE_IOVA,
				  half + length + half + 1);
	test_err_ioctl_ioas_split(EINVAL, iova + half / 2, length - half / 2);
	test_err_ioctl_ioas_split(EINVAL, iova, half / 2);
	test_err_ioctl_ioas_split(EINVAL, iova, length - 1);
	test_err_ioctl_ioas_split(EINVAL, iova + 1, length - 1);
	/* Right edges, but a hole between them */
	test_err_ioctl_ioas_split(ENOENT, iova, length + PAGE_SIZE + half);

	/* Nothing has been cut so far */
	test_err_ioctl_ioas_unmap(ENOENT, iova, length - PAGE_SIZE);
	/* An end of the mapping to a page */
	test_ioctl_ioas_split(iova, half + PAGE_SIZE);
	test_err_ioctl_ioas_unmap(ENOENT, iova, half);
	test_ioctl_ioas_unmap(iova, half + PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + 3 * PAGE_SIZE,
			      length + half - 3 * PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 2 * PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 3 * PAGE_SIZE,
			      length + half - 3 * PAGE_SIZE);
	test_ioctl_ioas_unmap(iova + length, half);
	test_ioctl_ioas_unmap(iova + length + PAGE_SIZE, half);
}

int main(int argc, char **argv)
{
	skip_without_split();
	return test_harness_run(argc, argv);
}
