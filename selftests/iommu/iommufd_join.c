// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_IOAS_JOIN: arguments, errors, and what becomes of the mappings, their
 * pins and their leaves.
 *
 * Areas cannot be listed, but an unmap shows where they end: it succeeds only
 * if both ends of its range are ends of areas. What is pinned shows in the
 * references of the pages.
 */
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "iommufd_split_utils.h"

FIXTURE(iommufd_join)
{
	int fd;
	uint32_t ioas_id;
	uint32_t stdev_ids[2];
	uint32_t hwpt_ids[2];
	uint32_t idev_ids[2];
	struct block block;
};

FIXTURE_VARIANT(iommufd_join)
{
	unsigned int mock_domains;
	enum pt_kind pt;
	bool file;
	bool huge;
};

FIXTURE_SETUP(iommufd_join)
{
	unsigned int i;

	/* Teardown is run after a skip too */
	memset(self, 0, sizeof(*self));
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
	if (!block_init(&self->block, variant->file, variant->huge))
		SKIP(return, NO_HUGE_PAGE);

	if (variant->pt == PT_SMALL)
		ASSERT_EQ(0, set_huge_pages(self->fd, self->ioas_id, false));
	for (i = 0; i != variant->mock_domains; i++) {
		uint32_t caps = 0;

		ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id,
					       &self->stdev_ids[i],
					       &self->hwpt_ids[i],
					       &self->idev_ids[i]));
		test_cmd_get_hw_capabilities(self->idev_ids[i], caps);
		if (variant->pt == PT_LARGE &&
		    !(caps & IOMMU_HW_CAP_HITLESS_SPLIT))
			SKIP(return, NO_LARGE_SPLIT);
	}
}

FIXTURE_TEARDOWN(iommufd_join)
{
	teardown_iommufd(self->fd, _metadata);
	block_release(&self->block);
}

/* clang-format off */
FIXTURE_VARIANT_ADD(iommufd_join, no_domain) { .pt = PT_NONE };
FIXTURE_VARIANT_ADD(iommufd_join, small) { .mock_domains = 1, .pt = PT_SMALL };
FIXTURE_VARIANT_ADD(iommufd_join, small_huge) {
	.mock_domains = 1, .pt = PT_SMALL, .huge = true };
FIXTURE_VARIANT_ADD(iommufd_join, large) { .mock_domains = 1, .pt = PT_LARGE };
FIXTURE_VARIANT_ADD(iommufd_join, two_large_file) {
	.mock_domains = 2, .pt = PT_LARGE, .file = true };
FIXTURE_VARIANT_ADD(iommufd_join, two_large_huge) {
	.mock_domains = 2, .pt = PT_LARGE, .huge = true };
/* clang-format on */

/* Map a part of the block where it belongs */
static void _map_part(struct __test_metadata *_metadata,
		      struct _test_data_iommufd_join *self, size_t offset,
		      size_t length)
{
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, offset,
			       length, BASE_IOVA + offset));
}

#define map_part(...) _map_part(_metadata, self, __VA_ARGS__)

#define join(offset, length) \
	test_ioctl_ioas_join(0, BASE_IOVA + (offset), length)
#define fill(offset, length)                                            \
	test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, BASE_IOVA + (offset), \
			     length)
#define split(offset, length) \
	test_ioctl_ioas_split(BASE_IOVA + (offset), length)
#define carve(offset, length) \
	test_ioctl_ioas_carve(BASE_IOVA + (offset), length)

/* No mapping ends at @cut, in the only one that begins at @start */
#define check_joined(start, cut)                                            \
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id,                 \
				   BASE_IOVA + (start), BASE_IOVA + (cut)))

/* Every domain translates this part of the block, and it is pinned once */
static void _check_mapped(struct __test_metadata *_metadata,
			  struct _test_data_iommufd_join *self,
			  const struct _fixture_variant_iommufd_join *variant,
			  size_t offset, size_t length)
{
	unsigned int i;

	for (i = 0; i != variant->mock_domains; i++)
		ASSERT_EQ(0, check_map(self->fd, self->hwpt_ids[i],
				       BASE_IOVA + offset, length,
				       self->block.ptr + offset));
	/* All parts of a huge page have the references of the whole */
	if (!variant->huge)
		check_refs(self->block.ptr + offset, length,
			   !!variant->mock_domains);
}

#define check_mapped(...) _check_mapped(_metadata, self, variant, __VA_ARGS__)

/* No domain translates any page of this part of the block, none is pinned */
static void _check_hole(struct __test_metadata *_metadata,
			struct _test_data_iommufd_join *self,
			const struct _fixture_variant_iommufd_join *variant,
			size_t offset, size_t length)
{
	size_t end = offset + length;
	unsigned int i;

	if (!variant->huge)
		check_refs(self->block.ptr + offset, length, 0);
	for (; offset != end; offset += PAGE_SIZE)
		for (i = 0; i != variant->mock_domains; i++)
			EXPECT_ERRNO(EINVAL,
				     check_map(self->fd, self->hwpt_ids[i],
					       BASE_IOVA + offset, PAGE_SIZE,
					       self->block.ptr + offset));
}

#define check_hole(...) _check_hole(_metadata, self, variant, __VA_ARGS__)

/* An unmap of this part of the block removes exactly this part */
static void _unmap_exact(struct __test_metadata *_metadata,
			 struct _test_data_iommufd_join *self,
			 const struct _fixture_variant_iommufd_join *variant,
			 size_t offset, size_t length)
{
	uint64_t unmapped = 0;

	ASSERT_EQ(0, _test_ioctl_ioas_unmap(self->fd, self->ioas_id,
					    BASE_IOVA + offset, length,
					    &unmapped));
	ASSERT_EQ(length, unmapped);
	check_hole(offset, length);
}

#define unmap_exact(...) _unmap_exact(_metadata, self, variant, __VA_ARGS__)

TEST_F(iommufd_join, arguments)
{
	struct iommu_ioas_join cmd = {
		.size = sizeof(cmd),
		.ioas_id = self->ioas_id,
		.iova = BASE_IOVA,
		.length = PAGE_SIZE,
	};
	unsigned int i;

	map_part(0, self->block.length);

	/* The byte that is cut off is 0 anyway: only the size is wrong */
	cmd.size = sizeof(cmd) - 1;
	EXPECT_ERRNO(EINVAL, ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
	cmd.size = sizeof(cmd);

	for (i = 1; i != 32; i++) {
		cmd.flags = 1U << i;
		EXPECT_ERRNO(EOPNOTSUPP,
			     ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
		cmd.flags |= IOMMU_IOAS_JOIN_FILL;
		EXPECT_ERRNO(EOPNOTSUPP,
			     ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
	}
	for (cmd.flags = 0; cmd.flags <= IOMMU_IOAS_JOIN_FILL; cmd.flags++) {
		cmd.__reserved = 1;
		EXPECT_ERRNO(EOPNOTSUPP,
			     ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
		cmd.__reserved = 0;
		cmd.length = 0;
		EXPECT_ERRNO(EINVAL, ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
		cmd.length = PAGE_SIZE;
		cmd.iova = -PAGE_SIZE + 1;
		EXPECT_ERRNO(EOVERFLOW, ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
		cmd.iova = BASE_IOVA;
		cmd.ioas_id = 0;
		EXPECT_ERRNO(ENOENT, ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
		if (variant->mock_domains) {
			/* Something else than an IOAS */
			cmd.ioas_id = self->hwpt_ids[0];
			EXPECT_ERRNO(ENOENT,
				     ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
		}
		cmd.ioas_id = self->ioas_id;
		ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_JOIN, &cmd));
	}
	unmap_exact(0, self->block.length);
}

/* A part of the range is not mapped, and there is nothing to fill it from */
TEST_F(iommufd_join, unmapped)
{
	size_t length = self->block.length;
	__u64 end = BASE_IOVA + length;
	unsigned int flags;

	for (flags = 0; flags <= IOMMU_IOAS_JOIN_FILL; flags++) {
		test_err_ioctl_ioas_join(ENOENT, flags, BASE_IOVA, PAGE_SIZE);
		test_err_ioctl_ioas_join(ENOENT, flags, -PAGE_SIZE, PAGE_SIZE);
		test_err_ioctl_ioas_join(ENOENT, flags, 0, -PAGE_SIZE);
	}
	/* How a hole may be aligned is asked first */
	test_err_ioctl_ioas_join(ENOENT, 0, 0, UINT64_MAX);
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL, 0, UINT64_MAX);

	map_part(0, length);
	carve(4 * PAGE_SIZE, 2 * PAGE_SIZE);
	for (flags = 0; flags <= IOMMU_IOAS_JOIN_FILL; flags++) {
		/* The memory ends with the block, also if a part is there */
		test_err_ioctl_ioas_join(ENOENT, flags, end, PAGE_SIZE);
		test_err_ioctl_ioas_join(ENOENT, flags, end - PAGE_SIZE,
					 2 * PAGE_SIZE);
		test_err_ioctl_ioas_join(ENOENT, flags, BASE_IOVA - PAGE_SIZE,
					 2 * PAGE_SIZE);
		/* Nor is the hole filled then, in the same range */
		test_err_ioctl_ioas_join(ENOENT, flags, BASE_IOVA,
					 length + PAGE_SIZE);
		check_hole(4 * PAGE_SIZE, 2 * PAGE_SIZE);
	}
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA + 4 * PAGE_SIZE,
				 PAGE_SIZE);
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA, length);

	/* Still two */
	unmap_exact(0, 4 * PAGE_SIZE);
	unmap_exact(6 * PAGE_SIZE, length - 6 * PAGE_SIZE);
}

/* The reverse of a split of the same range */
TEST_F(iommufd_join, back)
{
	size_t length = self->block.length;

	map_part(0, length);
	split(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	join(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	check_joined(0, 3 * PAGE_SIZE);
	check_joined(0, 5 * PAGE_SIZE);
	check_mapped(0, length);

	/* Of two cuts the one that the range does not reach stays */
	split(3 * PAGE_SIZE, 4 * PAGE_SIZE);
	join(PAGE_SIZE, 3 * PAGE_SIZE);
	check_joined(0, 3 * PAGE_SIZE);
	check_mapped(0, length);
	unmap_exact(7 * PAGE_SIZE, length - 7 * PAGE_SIZE);
	check_mapped(0, 7 * PAGE_SIZE);

	/* Nothing to join: what is cut elsewhere stays cut */
	split(PAGE_SIZE, PAGE_SIZE);
	join(4 * PAGE_SIZE, PAGE_SIZE);
	unmap_exact(PAGE_SIZE, PAGE_SIZE);
	unmap_exact(0, PAGE_SIZE);
	unmap_exact(2 * PAGE_SIZE, 5 * PAGE_SIZE);
}

/* Every page a mapping of its own, then all at once, then at one page each */
TEST_F(iommufd_join, many)
{
	size_t length = self->block.length;
	size_t i;

	map_part(0, length);
	for (i = 0; i != length; i += 2 * PAGE_SIZE)
		split(i, PAGE_SIZE);
	join(0, length);
	for (i = PAGE_SIZE; i != length; i += PAGE_SIZE)
		check_joined(0, i);
	check_mapped(0, length);

	for (i = 0; i != length; i += 2 * PAGE_SIZE)
		split(i, PAGE_SIZE);
	for (i = 0; i != length; i += 2 * PAGE_SIZE)
		join(i, PAGE_SIZE);
	for (i = PAGE_SIZE; i != length; i += PAGE_SIZE)
		check_joined(0, i);
	check_mapped(0, length);

	/* A domain that comes later gets all of it */
	if (variant->pt == PT_NONE) {
		uint32_t stdev_id, hwpt_id;

		test_cmd_mock_domain(self->ioas_id, &stdev_id, &hwpt_id, NULL);
		ASSERT_EQ(0, check_map(self->fd, hwpt_id, BASE_IOVA, length,
				       self->block.ptr));
		test_ioctl_destroy(stdev_id);
	}
	unmap_exact(0, length);
}

/* What was unmapped is mapped again, and one mapping with what is around it */
TEST_F(iommufd_join, fill)
{
	size_t length = self->block.length;
	size_t i;

	map_part(0, length);

	/* One hole: the range of the hole is enough */
	carve(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	check_hole(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	fill(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	check_mapped(0, length);
	check_joined(0, 3 * PAGE_SIZE);
	check_joined(0, 5 * PAGE_SIZE);
	/* Nothing is left to fill */
	fill(0, length);
	check_mapped(0, length);

	/* Many, in one call */
	for (i = 0; i != length; i += 2 * PAGE_SIZE)
		carve(i, PAGE_SIZE);
	fill(0, length);
	check_mapped(0, length);
	for (i = PAGE_SIZE; i != length; i += PAGE_SIZE)
		check_joined(0, i);

	/* In pieces, from the middle, where nothing is next to them */
	carve(0, 7 * PAGE_SIZE);
	fill(3 * PAGE_SIZE, PAGE_SIZE);
	check_mapped(3 * PAGE_SIZE, PAGE_SIZE);
	check_hole(0, 3 * PAGE_SIZE);
	check_hole(4 * PAGE_SIZE, 3 * PAGE_SIZE);
	fill(5 * PAGE_SIZE, PAGE_SIZE);
	fill(0, 2 * PAGE_SIZE);
	fill(4 * PAGE_SIZE, 3 * PAGE_SIZE);
	check_hole(2 * PAGE_SIZE, PAGE_SIZE);
	fill(0, 4 * PAGE_SIZE);
	check_mapped(0, length);
	for (i = PAGE_SIZE; i != length; i += PAGE_SIZE)
		check_joined(0, i);

	/* The last page, which has a mapping below it only, and all but it */
	carve(length - PAGE_SIZE, PAGE_SIZE);
	fill(length - PAGE_SIZE, PAGE_SIZE);
	check_mapped(0, length);
	check_joined(0, length - PAGE_SIZE);
	carve(0, length - PAGE_SIZE);
	fill(0, length - PAGE_SIZE);
	check_mapped(0, length);
	check_joined(0, length - PAGE_SIZE);
	unmap_exact(0, length);
}

/* Holes are filled whole or not at all */
TEST_F(iommufd_join, fill_edges)
{
	/* Pages of the mock have that size. Without a domain it is a page, too */
	size_t half = variant->pt == PT_LARGE ? PAGE_SIZE / 2 : PAGE_SIZE;

	map_part(0, self->block.length);
	carve(4 * PAGE_SIZE, 4 * PAGE_SIZE);
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + 5 * PAGE_SIZE + 1, PAGE_SIZE);
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE - 1);
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + 5 * PAGE_SIZE, 1);
	/* The first byte follows a mapping, and still it would make an edge */
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + 4 * PAGE_SIZE, 1);
	check_hole(4 * PAGE_SIZE, 4 * PAGE_SIZE);
	if (half != PAGE_SIZE)
		fill(5 * PAGE_SIZE + half, PAGE_SIZE);
	fill(5 * PAGE_SIZE, half);
	fill(6 * PAGE_SIZE + half % PAGE_SIZE, half);
	check_mapped(5 * PAGE_SIZE, 2 * PAGE_SIZE);
	fill(0, self->block.length);
	check_mapped(0, self->block.length);
	check_joined(0, 4 * PAGE_SIZE);
	check_joined(0, 5 * PAGE_SIZE + half);
	check_joined(0, 8 * PAGE_SIZE);
	unmap_exact(0, self->block.length);
}

/* What was mapped by different calls stays apart, and is no error */
TEST_F(iommufd_join, apart)
{
	size_t length = self->block.length;

	map_part(0, length);
	carve(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	map_part(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	join(0, length);
	fill(0, length);
	check_mapped(0, length);
	unmap_exact(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	check_mapped(0, 3 * PAGE_SIZE);
	unmap_exact(0, 3 * PAGE_SIZE);
	unmap_exact(5 * PAGE_SIZE, length - 5 * PAGE_SIZE);
}

/* Other permissions, or another place in the same memory */
TEST_F(iommufd_join, copies)
{
	const unsigned int rw = IOMMU_IOAS_MAP_FIXED_IOVA |
				IOMMU_IOAS_MAP_WRITEABLE |
				IOMMU_IOAS_MAP_READABLE;
	struct iommu_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = rw,
		.dst_ioas_id = self->ioas_id,
		.length = 4 * PAGE_SIZE,
	};
	uint32_t other_id;
	int rc;

	test_ioctl_ioas_alloc(&other_id);
	ASSERT_EQ(0, map_block(self->fd, other_id, &self->block, 0,
			       self->block.length, BASE_IOVA));
	copy.src_ioas_id = other_id;

	copy.src_iova = BASE_IOVA;
	copy.dst_iova = BASE_IOVA;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));

	/* Read only */
	copy.src_iova = BASE_IOVA + 4 * PAGE_SIZE;
	copy.dst_iova = copy.src_iova;
	copy.flags = rw & ~IOMMU_IOAS_MAP_WRITEABLE;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	join(0, 8 * PAGE_SIZE);
	/* Which of both a hole between them was cut from cannot be told */
	carve(3 * PAGE_SIZE, PAGE_SIZE);
	test_err_ioctl_ioas_join(ENOTUNIQ, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + 3 * PAGE_SIZE, PAGE_SIZE);
	copy.src_iova = BASE_IOVA + 3 * PAGE_SIZE;
	copy.dst_iova = copy.src_iova;
	copy.length = PAGE_SIZE;
	copy.flags = rw;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	join(0, 8 * PAGE_SIZE);
	check_joined(0, 3 * PAGE_SIZE);
	copy.src_iova = BASE_IOVA + 4 * PAGE_SIZE;
	copy.dst_iova = copy.src_iova;
	copy.length = 4 * PAGE_SIZE;
	unmap_exact(4 * PAGE_SIZE, 4 * PAGE_SIZE);

	/* The first pages once more */
	copy.src_iova = BASE_IOVA;
	copy.flags = rw;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	join(0, 8 * PAGE_SIZE);
	rc = _test_ioctl_ioas_unmap(self->fd, self->ioas_id,
				    BASE_IOVA + 4 * PAGE_SIZE, 4 * PAGE_SIZE,
				    NULL);
	ASSERT_EQ(0, rc);

	/* The same, and what goes on there */
	copy.src_iova = BASE_IOVA + 4 * PAGE_SIZE;
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_COPY, &copy));
	join(0, 8 * PAGE_SIZE);
	check_joined(0, 4 * PAGE_SIZE);
	check_mapped(0, 8 * PAGE_SIZE);

	/* A hole is filled from there as well, and stays what it was here */
	carve(PAGE_SIZE, 2 * PAGE_SIZE);
	fill(PAGE_SIZE, 2 * PAGE_SIZE);
	check_joined(0, PAGE_SIZE);
	check_mapped(0, 8 * PAGE_SIZE);
	unmap_exact(0, 8 * PAGE_SIZE);
	test_ioctl_ioas_unmap_id(other_id, BASE_IOVA, self->block.length);
}

/*
 * The mappings on both sides of a hole have memory for it, because a part of the
 * one below was unmapped to make room for the one above. Neither is taken.
 */
TEST_F(iommufd_join, two_memories)
{
	const size_t start = 4 * PAGE_SIZE, end = 8 * PAGE_SIZE;

	map_part(0, end);
	split(start, end - start);
	unmap_exact(start, end - start);
	/* Other memory at the same place */
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, end,
			       end - start, BASE_IOVA + start));
	carve(start, PAGE_SIZE);
	test_err_ioctl_ioas_join(ENOTUNIQ, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + start, PAGE_SIZE);
	/* Nor is another hole filled then, which has one memory only */
	carve(PAGE_SIZE, PAGE_SIZE);
	test_err_ioctl_ioas_join(ENOTUNIQ, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 end);
	check_hole(PAGE_SIZE, PAGE_SIZE);
	check_hole(start, PAGE_SIZE);
	fill(PAGE_SIZE, PAGE_SIZE);
	check_mapped(0, start);
	check_joined(0, PAGE_SIZE);

	/* The one above does not go down that far, and this end is its own */
	carve(start - PAGE_SIZE, PAGE_SIZE);
	fill(start - PAGE_SIZE, PAGE_SIZE);
	carve(end - PAGE_SIZE, PAGE_SIZE);
	fill(end - PAGE_SIZE, PAGE_SIZE);
	if (variant->mock_domains)
		ASSERT_EQ(0, check_map(self->fd, self->hwpt_ids[0],
				       BASE_IOVA + start + PAGE_SIZE,
				       end - start - PAGE_SIZE,
				       self->block.ptr + end + PAGE_SIZE));
	unmap_exact(0, start);
	test_ioctl_ioas_unmap(BASE_IOVA + start + PAGE_SIZE,
			      end - start - PAGE_SIZE);
}

/* A revocation takes a dma-buf away at any moment, so it is left alone */
TEST_F(iommufd_join, dma_buf)
{
	const size_t start = 8 * PAGE_SIZE, length = 4 * PAGE_SIZE;
	const size_t hole = 6 * PAGE_SIZE;
	unsigned int flags;
	int dfd;

	if (_test_cmd_get_dmabuf(self->fd, length, &dfd))
		SKIP(return, "no dma-buf");
	map_part(0, start);
	test_ioctl_ioas_map_fixed_file(dfd, 0, length, BASE_IOVA + start);
	split(3 * PAGE_SIZE, PAGE_SIZE);
	for (flags = 0; flags <= IOMMU_IOAS_JOIN_FILL; flags++) {
		/* All of it, a part, and with what could be joined */
		test_err_ioctl_ioas_join(EOPNOTSUPP, flags, BASE_IOVA + start,
					 length);
		test_err_ioctl_ioas_join(EOPNOTSUPP, flags,
					 BASE_IOVA + start + PAGE_SIZE,
					 PAGE_SIZE);
		test_err_ioctl_ioas_join(EOPNOTSUPP, flags, BASE_IOVA,
					 start + PAGE_SIZE);
	}
	unmap_exact(3 * PAGE_SIZE, PAGE_SIZE);

	/* A hole comes first, unless it is to be filled */
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA, start + length);
	test_err_ioctl_ioas_join(EOPNOTSUPP, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 start + length);
	check_hole(3 * PAGE_SIZE, PAGE_SIZE);

	/* Beside the range it is no obstacle, and has no memory for a hole */
	carve(hole, start - hole);
	fill(0, start);
	check_mapped(0, start);
	check_joined(0, 3 * PAGE_SIZE);
	check_joined(0, hole);
	test_err_ioctl_ioas_join(ENOENT, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + start + length, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + start, length);
	unmap_exact(0, start);
	close(dfd);
}

/* What was reserved since the unmap is not mapped again */
TEST_F(iommufd_join, reserved)
{
	const size_t reserved = 5 * PAGE_SIZE, length = 8 * PAGE_SIZE;
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_ADD_RESERVED,
		.id = self->ioas_id,
		.add_reserved = { .start = BASE_IOVA + reserved,
				  .length = PAGE_SIZE },
	};

	map_part(0, length);
	carve(PAGE_SIZE, PAGE_SIZE);
	carve(reserved - PAGE_SIZE, 3 * PAGE_SIZE);
	ASSERT_EQ(0, mock_cmd(self->fd, &cmd));
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + reserved, PAGE_SIZE);
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + reserved - PAGE_SIZE,
				 3 * PAGE_SIZE);
	/* Nor is another hole filled then */
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 length);
	check_hole(PAGE_SIZE, PAGE_SIZE);
	check_hole(reserved - PAGE_SIZE, 3 * PAGE_SIZE);

	/* All but the reserved page */
	fill(0, reserved);
	fill(reserved + PAGE_SIZE, PAGE_SIZE);
	check_mapped(0, reserved);
	check_hole(reserved, PAGE_SIZE);
	check_mapped(reserved + PAGE_SIZE, length - reserved - PAGE_SIZE);
	unmap_exact(0, reserved);
	unmap_exact(reserved + PAGE_SIZE, length - reserved - PAGE_SIZE);
}

/* Pin some pages of the block */
static void _pin(struct __test_metadata *_metadata,
		 struct _test_data_iommufd_join *self, __u32 access_id,
		 unsigned int first, unsigned int npages, __u32 *pages_id)
{
	size_t offset = first * PAGE_SIZE;

	ASSERT_EQ(0, pin_pages(self->fd, access_id, BASE_IOVA + offset,
			       npages * PAGE_SIZE, self->block.ptr + offset,
			       pages_id));
}

#define pin(...) _pin(_metadata, self, access_id, __VA_ARGS__)

/*
 * Pins go with their mapping. One that was made across two mappings keeps them
 * apart, or nobody would find it when it ends.
 */
TEST_F(iommufd_join, pinned)
{
	size_t length = self->block.length;
	uint32_t access_id, ids[4];

	map_part(0, length);
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	split(4 * PAGE_SIZE, 4 * PAGE_SIZE);
	pin(0, 2, &ids[0]);
	pin(1, 3, &ids[1]);
	pin(5, 1, &ids[2]);
	pin(5, 3, &ids[3]);
	join(4 * PAGE_SIZE, 4 * PAGE_SIZE);
	check_joined(0, 8 * PAGE_SIZE);
	test_cmd_destroy_access_pages(access_id, ids[2]);
	test_cmd_destroy_access_pages(access_id, ids[1]);
	test_cmd_destroy_access_pages(access_id, ids[0]);
	/* The unmap asks for the last one */
	test_ioctl_ioas_unmap(BASE_IOVA, length);
	EXPECT_ERRNO(ENOENT, _test_cmd_destroy_access_pages(self->fd, access_id,
							    ids[3]));

	map_part(0, length);
	split(4 * PAGE_SIZE, 4 * PAGE_SIZE);
	pin(3, 2, &ids[0]);
	pin(6, 4, &ids[1]);
	join(0, length);
	test_cmd_destroy_access_pages(access_id, ids[0]);
	/* One is gone: now the two below can be one */
	join(0, length);
	check_joined(0, 4 * PAGE_SIZE);
	test_cmd_destroy_access_pages(access_id, ids[1]);
	test_ioctl_ioas_unmap(BASE_IOVA, 8 * PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 8 * PAGE_SIZE,
			      length - 8 * PAGE_SIZE);
	test_cmd_destroy_access(access_id);
}

/* Two queues hold the mapping that they are in, whatever it is joined with */
TEST_F(iommufd_join, hw_queue)
{
	uint32_t hwpt_id, viommu_id, queue_ids[2];
	size_t length = self->block.length;
	uint64_t unmapped;

	if (!variant->mock_domains)
		SKIP(return, "not for an IOAS without a domain");
	test_cmd_hwpt_alloc(self->idev_ids[0], self->ioas_id,
			    IOMMU_HWPT_ALLOC_NEST_PARENT, &hwpt_id);
	test_cmd_viommu_alloc(self->idev_ids[0], hwpt_id,
			      IOMMU_VIOMMU_TYPE_SELFTEST, NULL, 0, &viommu_id);
	map_part(0, length);
	test_cmd_hw_queue_alloc(viommu_id, IOMMU_HW_QUEUE_TYPE_SELFTEST, 0,
				BASE_IOVA + 2 * PAGE_SIZE, PAGE_SIZE,
				&queue_ids[0]);
	/* In the second of three mappings, which the first one takes in */
	split(2 * PAGE_SIZE, 3 * PAGE_SIZE);
	join(2 * PAGE_SIZE, 3 * PAGE_SIZE);
	/* What could go before is not a part of its own any more */
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, 2 * PAGE_SIZE);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA + 5 * PAGE_SIZE,
				  length - 5 * PAGE_SIZE);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, length);
	check_mapped(0, length);

	/* Another queue, in what was joined */
	test_cmd_hw_queue_alloc(viommu_id, IOMMU_HW_QUEUE_TYPE_SELFTEST, 1,
				BASE_IOVA + 12 * PAGE_SIZE, PAGE_SIZE,
				&queue_ids[1]);

	/* A split finds them where they are: this part has none, and goes */
	carve(4 * PAGE_SIZE, 8 * PAGE_SIZE);
	check_hole(4 * PAGE_SIZE, 8 * PAGE_SIZE);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, 4 * PAGE_SIZE);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA + 12 * PAGE_SIZE,
				  length - 12 * PAGE_SIZE);
	/* With the hole they are one mapping, which either queue holds */
	fill(4 * PAGE_SIZE, 8 * PAGE_SIZE);
	check_mapped(0, length);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, length);
	test_ioctl_destroy(queue_ids[1]);
	test_err_ioctl_ioas_unmap(EBUSY, BASE_IOVA, length);
	test_ioctl_destroy(queue_ids[0]);
	check_joined(0, 2 * PAGE_SIZE);
	check_joined(0, 4 * PAGE_SIZE);
	check_joined(0, 5 * PAGE_SIZE);
	ASSERT_EQ(0, _test_ioctl_ioas_unmap(self->fd, self->ioas_id, BASE_IOVA,
					    length, &unmapped));
	ASSERT_EQ(length, unmapped);
	test_ioctl_destroy(viommu_id);
	test_ioctl_destroy(hwpt_id);
}

/* Memory that a process has taken back is not for others to map again */
TEST_F(iommufd_join, other_process)
{
	int status = -1;
	pid_t pid;

	map_part(0, self->block.length);
	carve(PAGE_SIZE, PAGE_SIZE);
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid) {
		int rc = _test_ioctl_ioas_join(self->fd, self->ioas_id,
					       IOMMU_IOAS_JOIN_FILL,
					       BASE_IOVA + PAGE_SIZE,
					       PAGE_SIZE);

		_exit(rc ? errno : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(EPERM, WEXITSTATUS(status));
	check_hole(PAGE_SIZE, PAGE_SIZE);
	fill(PAGE_SIZE, PAGE_SIZE);
	check_mapped(0, self->block.length);
	unmap_exact(0, self->block.length);
}

/* The new owner of the memory may not have the file */
TEST_F(iommufd_join, changed_process)
{
	struct iommu_ioas_change_process change = { .size = sizeof(change) };
	int status = -1;
	pid_t pid;

	if (!variant->file)
		SKIP(return, "only memory of a file can change its owner");
	map_part(0, self->block.length);
	carve(PAGE_SIZE, PAGE_SIZE);
	/* Not a change */
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_CHANGE_PROCESS, &change));
	fill(PAGE_SIZE, PAGE_SIZE);
	carve(PAGE_SIZE, PAGE_SIZE);
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid) {
		int rc = ioctl(self->fd, IOMMU_IOAS_CHANGE_PROCESS, &change);

		if (rc)
			_exit(255);
		rc = _test_ioctl_ioas_join(self->fd, self->ioas_id,
					   IOMMU_IOAS_JOIN_FILL,
					   BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
		_exit(rc ? errno : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(EPERM, WEXITSTATUS(status));
	check_hole(PAGE_SIZE, PAGE_SIZE);

	/* Nor when it is back: holes may be the other one's by now */
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_CHANGE_PROCESS, &change));
	test_err_ioctl_ioas_join(EPERM, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	/* What is mapped is joined all the same */
	split(4 * PAGE_SIZE, PAGE_SIZE);
	join(4 * PAGE_SIZE, PAGE_SIZE);
	check_joined(2 * PAGE_SIZE, 4 * PAGE_SIZE);
	map_part(PAGE_SIZE, PAGE_SIZE);
	check_mapped(0, self->block.length);
	unmap_exact(0, self->block.length);
}

/* Memory that has gone meanwhile: what a map says of it, and nothing changes */
TEST_F(iommufd_join, fill_fails)
{
	size_t length = 8 * PAGE_SIZE;
	void *ptr;
	__u64 iova = BASE_IOVA;

	if (variant->pt == PT_NONE || variant->file || variant->huge)
		SKIP(return, "only where memory is pinned by address");
	ptr = mmap(NULL, length, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	ASSERT_EQ(0, _test_ioctl_ioas_map(self->fd, self->ioas_id, ptr, length,
					  &iova,
					  IOMMU_IOAS_MAP_FIXED_IOVA |
						  IOMMU_IOAS_MAP_WRITEABLE |
						  IOMMU_IOAS_MAP_READABLE));
	carve(PAGE_SIZE, PAGE_SIZE);
	carve(5 * PAGE_SIZE, PAGE_SIZE);
	ASSERT_EQ(0, munmap(ptr + 5 * PAGE_SIZE, PAGE_SIZE));
	test_err_ioctl_ioas_join(EFAULT, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 length);
	/* The first hole is as it was, too */
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 2 * PAGE_SIZE, 3 * PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 6 * PAGE_SIZE, 2 * PAGE_SIZE);
	munmap(ptr, length);
}

/* The same for a file: what it had there has gone with its end */
TEST_F(iommufd_join, fill_short_file)
{
	size_t length = 8 * PAGE_SIZE, end = 5 * PAGE_SIZE;
	struct block block = { .length = length };
	unsigned int i;

	if (variant->pt == PT_NONE || variant->huge)
		SKIP(return, "only where pages are pinned, one by one");
	block.ptr = memfd_mmap(length, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_POPULATE, &block.file);
	ASSERT_NE(MAP_FAILED, block.ptr);
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &block, 0, length,
			       BASE_IOVA));
	carve(PAGE_SIZE, PAGE_SIZE);
	carve(end, PAGE_SIZE);
	ASSERT_EQ(0, ftruncate(block.file, end));
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL, BASE_IOVA + end,
				 PAGE_SIZE);
	test_err_ioctl_ioas_join(EINVAL, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 length);
	/* The first hole is as it was, too, and can be filled */
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA + end, PAGE_SIZE);
	check_refs(block.ptr + PAGE_SIZE, PAGE_SIZE, 0);
	fill(PAGE_SIZE, PAGE_SIZE);
	check_joined(0, PAGE_SIZE);

	/* A file that is long enough again has other memory there */
	ASSERT_EQ(0, ftruncate(block.file, length));
	fill(end, PAGE_SIZE);
	check_joined(0, end);
	for (i = 0; i != variant->mock_domains; i++)
		ASSERT_EQ(0, check_map(self->fd, self->hwpt_ids[i], BASE_IOVA,
				       end + PAGE_SIZE, block.ptr));
	check_refs(block.ptr, end + PAGE_SIZE, 1);
	test_ioctl_ioas_unmap(BASE_IOVA, length);
	check_refs(block.ptr, end + PAGE_SIZE, 0);
	block_release(&block);
}

/* How many pages of the block one write makes dirty: the size of its leaf */
static unsigned int dirtied(struct __test_metadata *_metadata, int fd,
			    uint32_t hwpt_id)
{
	__u64 got[HUGE_SIZE / 4096 / 64] = {};
	unsigned int pages = 0, i;
	__u64 count = 0;

	test_cmd_mock_domain_set_dirty(fd, hwpt_id, PAGE_SIZE,
				       BASE_IOVA + 5 * PAGE_SIZE, PAGE_SIZE,
				       (__u64[]){ 1 }, &count);
	ASSERT_EQ(1, count);
	test_cmd_get_dirty_bitmap(fd, hwpt_id, HUGE_SIZE, BASE_IOVA, PAGE_SIZE,
				  got, 0);
	for (i = 0; i != ARRAY_SIZE(got); i++)
		pages += __builtin_popcountll(got[i]);
	return pages;
}

/*
 * Leaves grow again, but not while dirty pages are tracked, and never where they
 * are to be small.
 */
TEST_F(iommufd_join, leaves)
{
	size_t length = self->block.length;
	const unsigned int whole =
		variant->pt == PT_LARGE ? length / PAGE_SIZE : 1;
	uint32_t stdev_id, hwpt_id, idev_id;

	if (!variant->huge)
		SKIP(return, "only where a huge page can be one leaf");
	test_cmd_mock_domain(self->ioas_id, &stdev_id, NULL, &idev_id);
	test_cmd_hwpt_alloc(idev_id, self->ioas_id,
			    IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &hwpt_id);
	test_cmd_mock_domain_replace(stdev_id, hwpt_id);
	map_part(0, length);

	test_cmd_set_dirty_tracking(hwpt_id, true);
	ASSERT_EQ(whole, dirtied(_metadata, self->fd, hwpt_id));
	split(5 * PAGE_SIZE, PAGE_SIZE);
	ASSERT_EQ(1, dirtied(_metadata, self->fd, hwpt_id));
	join(5 * PAGE_SIZE, PAGE_SIZE);
	check_joined(0, 5 * PAGE_SIZE);
	ASSERT_EQ(1, dirtied(_metadata, self->fd, hwpt_id));
	test_cmd_set_dirty_tracking(hwpt_id, false);
	join(5 * PAGE_SIZE, PAGE_SIZE);
	test_cmd_set_dirty_tracking(hwpt_id, true);
	ASSERT_EQ(whole, dirtied(_metadata, self->fd, hwpt_id));
	test_cmd_set_dirty_tracking(hwpt_id, false);

	/* So they do after a hole was filled */
	carve(5 * PAGE_SIZE, PAGE_SIZE);
	fill(5 * PAGE_SIZE, PAGE_SIZE);
	test_cmd_set_dirty_tracking(hwpt_id, true);
	ASSERT_EQ(whole, dirtied(_metadata, self->fd, hwpt_id));
	test_cmd_set_dirty_tracking(hwpt_id, false);
	check_mapped(0, length);
	unmap_exact(0, length);
}

/* How many pages of the buffer may be locked, and who counts them */
FIXTURE(iommufd_join_limit)
{
	int fd;
	uint32_t ioas_id;
	uint32_t stdev_id;
	uint32_t hwpt_id;
};

FIXTURE_VARIANT(iommufd_join_limit)
{
	/* IOMMU_OPTION_RLIMIT_MODE: by process, as VFIO does, or by user */
	bool process;
};

/* Nobody else's: all that a user has locked counts */
#define LIMIT_UID 2000000000

FIXTURE_SETUP(iommufd_join_limit)
{
	struct iommu_option mode = {
		.size = sizeof(mode),
		.option_id = IOMMU_OPTION_RLIMIT_MODE,
		.op = IOMMU_OPTION_OP_SET,
		.val64 = variant->process,
	};

	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	ASSERT_EQ(0, ioctl(self->fd, IOMMU_OPTION, &mode));
	test_ioctl_ioas_alloc(&self->ioas_id);
	/* Whether larger pages can be split does not matter here */
	ASSERT_EQ(0, set_huge_pages(self->fd, self->ioas_id, false));
	test_cmd_mock_domain(self->ioas_id, &self->stdev_id, &self->hwpt_id,
			     NULL);
	/* Without CAP_IPC_LOCK. The way back stays open for the teardown */
	ASSERT_EQ(0, setresuid(LIMIT_UID, LIMIT_UID, 0));
}

FIXTURE_TEARDOWN(iommufd_join_limit)
{
	EXPECT_EQ(0, setresuid(0, 0, 0));
	teardown_iommufd(self->fd, _metadata);
}

/* clang-format off */
FIXTURE_VARIANT_ADD(iommufd_join_limit, user) { .process = false };
FIXTURE_VARIANT_ADD(iommufd_join_limit, process) { .process = true };
/* clang-format on */

static int set_limit(unsigned int npages)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return -1;
	limit.rlim_cur = npages * PAGE_SIZE;
	return setrlimit(RLIMIT_MEMLOCK, &limit);
}

/* So many pages are pinned and charged */
#define check_charged(npages)                                               \
	do {                                                                \
		long kb = (npages) * PAGE_SIZE / 1024;                      \
									    \
		ASSERT_EQ(kb, status_kb(getpid(), "VmPin"));                \
		ASSERT_EQ(variant->process ? kb : 0,                        \
			  status_kb(getpid(), "VmLck"));                    \
	} while (0)

/*
 * A hole gives back what it was charged, and what fills it is charged again: one
 * page more than is allowed is refused, with nothing charged.
 */
TEST_F(iommufd_join_limit, fill)
{
	const size_t holes[] = { 3 * PAGE_SIZE, 8 * PAGE_SIZE };
	unsigned int i;

	check_charged(0);
	ASSERT_EQ(0, set_limit(NPAGES));
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, BASE_IOVA);
	check_charged(NPAGES);
	carve(holes[0], 2 * PAGE_SIZE);
	check_charged(NPAGES - 2);
	fill(holes[0], 2 * PAGE_SIZE);
	check_charged(NPAGES);

	/* One hole of two pages, of which one would be allowed */
	ASSERT_EQ(0, set_limit(NPAGES - 1));
	carve(holes[0], 2 * PAGE_SIZE);
	check_charged(NPAGES - 2);
	test_err_ioctl_ioas_join(ENOMEM, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + holes[0], 2 * PAGE_SIZE);
	check_charged(NPAGES - 2);
	check_refs(buffer + holes[0], 2 * PAGE_SIZE, 0);
	fill(holes[0] + PAGE_SIZE, PAGE_SIZE);
	check_charged(NPAGES - 1);
	test_err_ioctl_ioas_join(ENOMEM, IOMMU_IOAS_JOIN_FILL,
				 BASE_IOVA + holes[0], PAGE_SIZE);
	check_charged(NPAGES - 1);

	/* Two holes, of which one would be allowed: it is undone */
	carve(holes[1], PAGE_SIZE);
	check_charged(NPAGES - 2);
	test_err_ioctl_ioas_join(ENOMEM, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 BUFFER_SIZE);
	check_charged(NPAGES - 2);
	for (i = 0; i != ARRAY_SIZE(holes); i++) {
		test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA + holes[i],
					 PAGE_SIZE);
		EXPECT_ERRNO(EINVAL, check_map(self->fd, self->hwpt_id,
					       BASE_IOVA + holes[i], PAGE_SIZE,
					       buffer + holes[i]));
		check_refs(buffer + holes[i], PAGE_SIZE, 0);
	}

	ASSERT_EQ(0, set_limit(NPAGES));
	fill(0, BUFFER_SIZE);
	check_charged(NPAGES);
	ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, BASE_IOVA, BUFFER_SIZE,
			       buffer));
	check_joined(0, holes[0]);
	check_joined(0, holes[1]);
	/* Neither cuts nor joins have a price */
	split(holes[0], PAGE_SIZE);
	check_charged(NPAGES);
	join(holes[0], PAGE_SIZE);
	check_charged(NPAGES);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
	check_charged(0);
}

/* Pages that are a mapping each, enough of them for a join to take a while */
#define MANY 16384

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000ULL + now.tv_nsec / 1000;
}

/* A child joins everything, and is killed after @us, unless that is 0 */
static bool join_in_child(int fd, __u32 ioas_id, size_t length, uint64_t us)
{
	struct itimerval alarm = {
		.it_value = { us / 1000000, us % 1000000 },
	};
	int status = 0;
	pid_t pid;

	pid = fork();
	if (!pid) {
		/* What nobody handles kills as SIGKILL does */
		if (setitimer(ITIMER_REAL, &alarm, NULL))
			_exit(1);
		_exit(!!_test_ioctl_ioas_join(fd, ioas_id, 0, BASE_IOVA,
					      length));
	}
	return pid != -1 && waitpid(pid, &status, 0) == pid &&
	       (WIFEXITED(status) ? !WEXITSTATUS(status) : us != 0);
}

/* A task that is killed leaves the rest apart, and what it leaves is right */
TEST(join_killed)
{
	size_t length = MANY * PAGE_SIZE;
	uint64_t took = 0, unmapped;
	unsigned int i, tried;
	bool apart = false;
	void *ptr;
	int fd;

	ptr = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, fd);
	for (tried = 0; tried != 40 && !apart; tried++) {
		__u64 iova = BASE_IOVA;
		size_t gone = 0;
		uint64_t start;
		__u32 ioas_id;

		ASSERT_EQ(0, _test_ioctl_ioas_alloc(fd, &ioas_id));
		ASSERT_EQ(0, _test_ioctl_ioas_map(fd, ioas_id, ptr, length,
						  &iova,
						  IOMMU_IOAS_MAP_FIXED_IOVA |
							  IOMMU_IOAS_MAP_READABLE));
		for (i = 0; i != MANY; i += 2)
			ASSERT_EQ(0, _test_ioctl_ioas_split(fd, ioas_id,
							    iova + i * PAGE_SIZE,
							    PAGE_SIZE));

		/* How long it takes shows first, then it is killed halfway */
		start = now_us();
		ASSERT_TRUE(join_in_child(fd, ioas_id, length,
					  took * (1 + tried % 8) / 8));
		if (!took) {
			took = now_us() - start;
		} else if (check_not_cut(fd, ioas_id, iova, iova + PAGE_SIZE)) {
			/* Killed too early: the page was there, and has gone */
			gone = 1;
		} else if (!_test_ioctl_ioas_unmap(fd, ioas_id,
						   iova + length - PAGE_SIZE,
						   PAGE_SIZE, NULL)) {
			/* Joined on the left, and not on the right */
			apart = true;
			gone = 1;
		}

		/* Whole or in parts, all of it is mapped, and no more */
		ASSERT_EQ(0, _test_ioctl_ioas_unmap(fd, ioas_id, 0, UINT64_MAX,
						    &unmapped));
		ASSERT_EQ(length - gone * PAGE_SIZE, unmapped);
		ASSERT_EQ(0, _test_ioctl_destroy(fd, ioas_id));
	}
	EXPECT_TRUE(apart)
		TH_LOG("killed %u times, and never in the middle of a join of %u us",
		       tried, (unsigned int)took);
	close(fd);
	munmap(ptr, length);
}

int main(int argc, char **argv)
{
	skip_without_split();
	return test_harness_run(argc, argv);
}
