// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_IOAS_SPLIT: arguments, errors, and what becomes of the mappings.
 *
 * Areas cannot be listed, but an unmap shows where they end: it succeeds only
 * if both ends of its range are ends of areas.
 */
#include "iommufd_split_utils.h"

FIXTURE(iommufd_split)
{
	int fd;
	uint32_t ioas_id;
	uint32_t stdev_ids[2];
	uint32_t hwpt_ids[2];
	uint32_t idev_ids[2];
	struct block block;
	/* Can the leaves of the domains be split, if there are large ones? */
	bool can_split;
};

FIXTURE_VARIANT(iommufd_split)
{
	unsigned int mock_domains;
	enum pt_kind pt;
	bool file;
	bool huge;
};

FIXTURE_SETUP(iommufd_split)
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

	self->can_split = true;
	for (i = 0; i != variant->mock_domains; i++) {
		ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id,
					       &self->stdev_ids[i],
					       &self->hwpt_ids[i],
					       &self->idev_ids[i]));
		if (variant->pt == PT_LARGE) {
			uint32_t caps = 0;

			test_cmd_get_hw_capabilities(self->idev_ids[i], caps);
			if (!(caps & IOMMU_HW_CAP_HITLESS_SPLIT))
				self->can_split = false;
		}
	}
}

FIXTURE_TEARDOWN(iommufd_split)
{
	teardown_iommufd(self->fd, _metadata);
	block_release(&self->block);
}

/* clang-format off */
FIXTURE_VARIANT_ADD(iommufd_split, no_domain) { .pt = PT_NONE };
FIXTURE_VARIANT_ADD(iommufd_split, no_domain_file) {
	.pt = PT_NONE, .file = true };
FIXTURE_VARIANT_ADD(iommufd_split, small) { .mock_domains = 1, .pt = PT_SMALL };
FIXTURE_VARIANT_ADD(iommufd_split, two_small) {
	.mock_domains = 2, .pt = PT_SMALL };
FIXTURE_VARIANT_ADD(iommufd_split, small_file) {
	.mock_domains = 1, .pt = PT_SMALL, .file = true };
FIXTURE_VARIANT_ADD(iommufd_split, two_small_huge) {
	.mock_domains = 2, .pt = PT_SMALL, .huge = true };
FIXTURE_VARIANT_ADD(iommufd_split, large) { .mock_domains = 1, .pt = PT_LARGE };
FIXTURE_VARIANT_ADD(iommufd_split, two_large) {
	.mock_domains = 2, .pt = PT_LARGE };
FIXTURE_VARIANT_ADD(iommufd_split, large_file) {
	.mock_domains = 1, .pt = PT_LARGE, .file = true };
FIXTURE_VARIANT_ADD(iommufd_split, large_huge) {
	.mock_domains = 1, .pt = PT_LARGE, .huge = true };
FIXTURE_VARIANT_ADD(iommufd_split, two_large_huge_file) {
	.mock_domains = 2, .pt = PT_LARGE, .huge = true, .file = true };
/* clang-format on */

/* Map the whole block */
#define map_all()                                                     \
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, \
			       0, self->block.length, BASE_IOVA))

/* Every domain translates this part of the block */
static void _check_mapped(struct __test_metadata *_metadata,
			  struct _test_data_iommufd_split *self,
			  const struct _fixture_variant_iommufd_split *variant,
			  size_t offset, size_t length)
{
	unsigned int i;

	for (i = 0; i != variant->mock_domains; i++)
		ASSERT_EQ(0, check_map(self->fd, self->hwpt_ids[i],
				       BASE_IOVA + offset, length,
				       self->block.ptr + offset));
}

#define check_mapped(...) _check_mapped(_metadata, self, variant, __VA_ARGS__)

/* No domain translates any page of this part of the block */
static void _check_hole(struct __test_metadata *_metadata,
			struct _test_data_iommufd_split *self,
			const struct _fixture_variant_iommufd_split *variant,
			size_t offset, size_t length)
{
	size_t end = offset + length;
	unsigned int i;

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
			 struct _test_data_iommufd_split *self,
			 const struct _fixture_variant_iommufd_split *variant,
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

/* A refused split has changed nothing */
static void
expect_unchanged(struct __test_metadata *_metadata,
		 struct _test_data_iommufd_split *self,
		 const struct _fixture_variant_iommufd_split *variant,
		 size_t offset, size_t length)
{
	size_t end = offset + length;

	test_err_ioctl_ioas_split(EOPNOTSUPP, BASE_IOVA + offset, length);
	test_err_ioctl_ioas_carve(EOPNOTSUPP, BASE_IOVA + offset, length);
	if (offset)
		ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
					   BASE_IOVA + offset));
	if (end != self->block.length)
		ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
					   BASE_IOVA + end));
	check_mapped(0, self->block.length);
	unmap_exact(0, self->block.length);
}

/*
 * Split this part of the mapped block. Returns false if the tables cannot be
 * split: then there is nothing more to check.
 */
static bool _split(struct __test_metadata *_metadata,
		   struct _test_data_iommufd_split *self,
		   const struct _fixture_variant_iommufd_split *variant,
		   size_t offset, size_t length)
{
	if (!self->can_split) {
		expect_unchanged(_metadata, self, variant, offset, length);
		return false;
	}
	test_ioctl_ioas_split(BASE_IOVA + offset, length);
	check_mapped(0, self->block.length);
	return true;
}

#define split(...) _split(_metadata, self, variant, __VA_ARGS__)

/* Refused with and without the flag */
static void _err_both(struct __test_metadata *_metadata,
		      struct _test_data_iommufd_split *self, int err,
		      __u64 iova, __u64 length)
{
	test_err_ioctl_ioas_split(err, iova, length);
	test_err_ioctl_ioas_carve(err, iova, length);
}

#define test_err_both(...) _err_both(_metadata, self, __VA_ARGS__)

TEST_F(iommufd_split, arguments)
{
	struct iommu_ioas_split cmd = {
		.size = sizeof(cmd),
		.ioas_id = self->ioas_id,
		.iova = BASE_IOVA + PAGE_SIZE,
		.length = PAGE_SIZE,
	};
	unsigned int i;

	map_all();

	/* The byte that is cut off is 0 anyway: only the size is wrong */
	cmd.size = sizeof(cmd) - 1;
	EXPECT_ERRNO(EINVAL, ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
	cmd.size = sizeof(cmd);

	for (i = 1; i != 32; i++) {
		cmd.flags = 1U << i;
		EXPECT_ERRNO(EOPNOTSUPP,
			     ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
		cmd.flags |= IOMMU_IOAS_SPLIT_UNMAP;
		EXPECT_ERRNO(EOPNOTSUPP,
			     ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
	}
	for (cmd.flags = 0; cmd.flags <= IOMMU_IOAS_SPLIT_UNMAP; cmd.flags++) {
		cmd.__reserved = 1;
		EXPECT_ERRNO(EOPNOTSUPP,
			     ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
		cmd.__reserved = 0;
	}
	cmd.flags = 0;

	cmd.ioas_id = 0;
	EXPECT_ERRNO(ENOENT, ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
	cmd.ioas_id = UINT32_MAX;
	EXPECT_ERRNO(ENOENT, ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
	if (variant->mock_domains) {
		/* Something else than an IOAS */
		cmd.ioas_id = self->hwpt_ids[0];
		EXPECT_ERRNO(ENOENT, ioctl(self->fd, IOMMU_IOAS_SPLIT, &cmd));
	}

	test_err_both(EINVAL, BASE_IOVA, 0);
	test_err_both(EINVAL, BASE_IOVA + 1, PAGE_SIZE);
	test_err_both(EINVAL, BASE_IOVA + PAGE_SIZE, 1);
	test_err_both(EINVAL, BASE_IOVA + PAGE_SIZE, PAGE_SIZE + 1);
	test_err_both(EINVAL, BASE_IOVA + PAGE_SIZE - 1, 1);
	test_err_both(EINVAL, BASE_IOVA + PAGE_SIZE / 4,
		      PAGE_SIZE * 2);
	/* Also where nothing is mapped */
	test_err_both(EINVAL, 1, PAGE_SIZE);

	test_err_both(EOVERFLOW, UINT64_MAX - PAGE_SIZE + 1,
		      2 * PAGE_SIZE);
	test_err_both(EOVERFLOW, UINT64_MAX, UINT64_MAX);
	test_err_both(EOVERFLOW, 2 * PAGE_SIZE,
		      UINT64_MAX - PAGE_SIZE + 1);

	unmap_exact(0, self->block.length);
}

TEST_F(iommufd_split, unmapped)
{
	size_t length = self->block.length;

	/* Nothing at all */
	test_err_both(ENOENT, BASE_IOVA, PAGE_SIZE);
	/* The last page of all, which no range can wrap around */
	test_err_both(ENOENT, -PAGE_SIZE, PAGE_SIZE);

	/* Two mappings, with a hole of one page between them */
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       4 * PAGE_SIZE, BASE_IOVA));
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block,
			       5 * PAGE_SIZE, length - 5 * PAGE_SIZE,
			       BASE_IOVA + 5 * PAGE_SIZE));

	/* The hole, and across it */
	test_err_both(ENOENT, BASE_IOVA + 4 * PAGE_SIZE, PAGE_SIZE);
	test_err_both(ENOENT, BASE_IOVA + 3 * PAGE_SIZE,
		      2 * PAGE_SIZE);
	test_err_both(ENOENT, BASE_IOVA + 4 * PAGE_SIZE,
		      2 * PAGE_SIZE);
	test_err_both(ENOENT, BASE_IOVA + 3 * PAGE_SIZE,
		      4 * PAGE_SIZE);
	test_err_both(ENOENT, BASE_IOVA, length);
	/* In front of the first, behind the last */
	test_err_both(ENOENT, BASE_IOVA - PAGE_SIZE, 2 * PAGE_SIZE);
	test_err_both(ENOENT, BASE_IOVA + length - PAGE_SIZE,
		      2 * PAGE_SIZE);
	test_err_both(ENOENT, BASE_IOVA + length, PAGE_SIZE);

	/* Still two */
	unmap_exact(0, 4 * PAGE_SIZE);
	unmap_exact(5 * PAGE_SIZE, length - 5 * PAGE_SIZE);
}

TEST_F(iommufd_split, three_areas)
{
	size_t length = self->block.length;
	size_t i;

	map_all();
	if (!split(3 * PAGE_SIZE, 2 * PAGE_SIZE))
		return;

	/* There are these three, and none of them can be unmapped in part */
	for (i = 0; i != length; i += PAGE_SIZE)
		test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA + i, PAGE_SIZE);

	unmap_exact(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	check_mapped(0, 3 * PAGE_SIZE);
	check_mapped(5 * PAGE_SIZE, length - 5 * PAGE_SIZE);

	/* Back again, as a mapping of its own */
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block,
			       3 * PAGE_SIZE, 2 * PAGE_SIZE,
			       BASE_IOVA + 3 * PAGE_SIZE));
	check_mapped(0, length);

	unmap_exact(5 * PAGE_SIZE, length - 5 * PAGE_SIZE);
	check_mapped(0, 5 * PAGE_SIZE);
	unmap_exact(0, 3 * PAGE_SIZE);
	check_mapped(3 * PAGE_SIZE, 2 * PAGE_SIZE);
	unmap_exact(3 * PAGE_SIZE, 2 * PAGE_SIZE);
}

TEST_F(iommufd_split, two_areas_at_start)
{
	size_t length = self->block.length;

	map_all();
	if (!split(0, PAGE_SIZE))
		return;
	test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	unmap_exact(0, PAGE_SIZE);
	check_mapped(PAGE_SIZE, length - PAGE_SIZE);
	unmap_exact(PAGE_SIZE, length - PAGE_SIZE);
}

TEST_F(iommufd_split, two_areas_at_end)
{
	size_t length = self->block.length;

	map_all();
	if (!split(length - PAGE_SIZE, PAGE_SIZE))
		return;
	test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA + length - 2 * PAGE_SIZE,
				  PAGE_SIZE);
	unmap_exact(length - PAGE_SIZE, PAGE_SIZE);
	check_mapped(0, length - PAGE_SIZE);
	unmap_exact(0, length - PAGE_SIZE);
}

/* Edges that are ends of areas already need nothing, from any kind of table */
TEST_F(iommufd_split, boundaries)
{
	size_t length = self->block.length;

	map_all();
	test_ioctl_ioas_split(BASE_IOVA, length);
	test_ioctl_ioas_split(BASE_IOVA, length);
	check_mapped(0, length);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
				   BASE_IOVA + length / 2));
	if (!split(PAGE_SIZE, PAGE_SIZE))
		return;

	/* Again: each part, and any run of parts */
	test_ioctl_ioas_split(BASE_IOVA, PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA + 2 * PAGE_SIZE, length - 2 * PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA, 2 * PAGE_SIZE);
	test_ioctl_ioas_split(BASE_IOVA, length);

	unmap_exact(PAGE_SIZE, PAGE_SIZE);
	unmap_exact(2 * PAGE_SIZE, length - 2 * PAGE_SIZE);
	unmap_exact(0, PAGE_SIZE);
}

/* Only the areas that hold an edge are cut, what lies between stays whole */
TEST_F(iommufd_split, spanning)
{
	size_t length = self->block.length;
	size_t quarter = length / 4;
	size_t i;

	/* Four mappings in a row */
	for (i = 0; i != length; i += quarter)
		ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, i,
				       quarter, BASE_IOVA + i));
	check_mapped(0, length);
	test_ioctl_ioas_split(BASE_IOVA + quarter, 2 * quarter);

	if (!self->can_split) {
		/* One edge falls between two mappings, the other in one */
		test_err_ioctl_ioas_split(EOPNOTSUPP, BASE_IOVA + quarter,
					  2 * quarter + PAGE_SIZE);
		test_err_ioctl_ioas_split(EOPNOTSUPP,
					  BASE_IOVA + quarter - PAGE_SIZE,
					  2 * quarter + PAGE_SIZE);
		for (i = 0; i != length; i += quarter)
			unmap_exact(i, quarter);
		return;
	}

	/* From the last page of the first to the first page of the last */
	test_ioctl_ioas_split(BASE_IOVA + quarter - PAGE_SIZE,
			      2 * quarter + 2 * PAGE_SIZE);
	check_mapped(0, length);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA + quarter,
				   BASE_IOVA + quarter + PAGE_SIZE));

	unmap_exact(quarter - PAGE_SIZE, 2 * quarter + 2 * PAGE_SIZE);
	check_mapped(0, quarter - PAGE_SIZE);
	check_mapped(3 * quarter + PAGE_SIZE, quarter - PAGE_SIZE);
	unmap_exact(0, quarter - PAGE_SIZE);
	unmap_exact(3 * quarter + PAGE_SIZE, quarter - PAGE_SIZE);
}

/* Two cuts in two areas, and only the second of them is impossible */
TEST_F(iommufd_split, all_or_nothing)
{
	size_t half = self->block.length / 2;
	__u64 second = BASE_IOVA + half;
	int dfd;

	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0, half,
			       BASE_IOVA));
	if (_test_cmd_get_dmabuf(self->fd, 4 * PAGE_SIZE, &dfd))
		SKIP(return, "no dma-buf");
	test_ioctl_ioas_map_fixed_file(dfd, 0, 4 * PAGE_SIZE, second);

	/* A dma-buf is never cut, the other mapping must stay whole then */
	test_err_both(EOPNOTSUPP, second + PAGE_SIZE, PAGE_SIZE);
	test_err_both(EOPNOTSUPP, second - PAGE_SIZE, 2 * PAGE_SIZE);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
				   second - PAGE_SIZE));
	check_mapped(0, half);

	/* A range may contain all of it */
	test_ioctl_ioas_split(BASE_IOVA, half + 4 * PAGE_SIZE);
	if (self->can_split) {
		test_ioctl_ioas_split(second - PAGE_SIZE, 5 * PAGE_SIZE);
		check_mapped(0, half);
		test_ioctl_ioas_unmap(second - PAGE_SIZE, 5 * PAGE_SIZE);
		unmap_exact(0, half - PAGE_SIZE);
	} else {
		test_err_ioctl_ioas_split(EOPNOTSUPP, second - PAGE_SIZE,
					  5 * PAGE_SIZE);
		test_ioctl_ioas_unmap(second, 4 * PAGE_SIZE);
		unmap_exact(0, half);
	}
	close(dfd);
}

/* Cut out the pages of the block in one order, unmap them in another */
TEST_F(iommufd_split, any_order)
{
	size_t step = self->block.length / NPAGES;
	unsigned int order[NPAGES];
	unsigned int seed;
	unsigned int i;

	for (seed = 1; seed != 9; seed++) {
		unsigned int state = seed;
		uint32_t mapped = (1U << NPAGES) - 1;

		map_all();
		shuffle(order, NPAGES, &state);
		for (i = 0; i != NPAGES; i++)
			if (!split(order[i] * step, step))
				return;

		shuffle(order, NPAGES, &state);
		for (i = 0; i != NPAGES; i++) {
			unsigned int j;

			unmap_exact(order[i] * step, step);
			mapped &= ~(1U << order[i]);
			for (j = 0; j != NPAGES; j++)
				if (mapped & (1U << j))
					check_mapped(j * step, step);
		}
	}
}

/* Cut, unmap and map again at random, as a guest shares and unshares memory */
TEST_F(iommufd_split, random_holes)
{
	bool mapped[NPAGES];
	size_t step = self->block.length / NPAGES;
	unsigned int state = 1;
	unsigned int round;
	uint64_t unmapped;
	size_t expected = 0;
	unsigned int i;

	map_all();
	for (i = 0; i != NPAGES; i++)
		mapped[i] = true;

	for (round = 0; round != 200; round++) {
		unsigned int first = next_random(&state) % NPAGES;
		unsigned int count =
			1 + next_random(&state) % (NPAGES - first);
		bool all = true;

		for (i = first; i != first + count; i++)
			all &= mapped[i];

		if (all) {
			if (!self->can_split && round == 0 &&
			    count != NPAGES) {
				expect_unchanged(_metadata, self, variant,
						 first * step, count * step);
				return;
			}
			test_ioctl_ioas_split(BASE_IOVA + first * step,
					      count * step);
			unmap_exact(first * step, count * step);
			for (i = first; i != first + count; i++)
				mapped[i] = false;
		} else {
			test_err_ioctl_ioas_split(ENOENT,
						  BASE_IOVA + first * step,
						  count * step);
			for (i = first; i != first + count; i++) {
				if (mapped[i])
					continue;
				ASSERT_EQ(0, map_block(self->fd, self->ioas_id,
						       &self->block, i * step,
						       step,
						       BASE_IOVA + i * step));
				mapped[i] = true;
			}
		}
		for (i = 0; i != NPAGES; i++) {
			if (mapped[i])
				check_mapped(i * step, step);
			else
				check_hole(i * step, step);
		}
	}

	for (i = 0; i != NPAGES; i++)
		expected += mapped[i] ? step : 0;
	ASSERT_EQ(0, _test_ioctl_ioas_unmap(self->fd, self->ioas_id, 0,
					    UINT64_MAX, &unmapped));
	ASSERT_EQ(expected, unmapped);
}

/*
 * Carve this part of the mapped block. Returns false if the tables cannot be
 * split: then there is nothing more to check.
 */
static bool _carve(struct __test_metadata *_metadata,
		   struct _test_data_iommufd_split *self,
		   const struct _fixture_variant_iommufd_split *variant,
		   size_t offset, size_t length)
{
	if (!self->can_split) {
		expect_unchanged(_metadata, self, variant, offset, length);
		return false;
	}
	test_ioctl_ioas_carve(BASE_IOVA + offset, length);
	check_hole(offset, length);
	/* Gone, and only that */
	test_err_ioctl_ioas_carve(ENOENT, BASE_IOVA + offset, length);
	test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA + offset, length);
	return true;
}

#define carve(...) _carve(_metadata, self, variant, __VA_ARGS__)

/* In one call: two areas are left, and the hole can be filled */
TEST_F(iommufd_split, carve_middle)
{
	size_t length = self->block.length;

	map_all();
	if (!carve(3 * PAGE_SIZE, 2 * PAGE_SIZE))
		return;
	check_mapped(0, 3 * PAGE_SIZE);
	check_mapped(5 * PAGE_SIZE, length - 5 * PAGE_SIZE);
	test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA, PAGE_SIZE);
	test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA + 6 * PAGE_SIZE, PAGE_SIZE);

	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block,
			       3 * PAGE_SIZE, 2 * PAGE_SIZE,
			       BASE_IOVA + 3 * PAGE_SIZE));
	check_mapped(0, length);
	unmap_exact(5 * PAGE_SIZE, length - 5 * PAGE_SIZE);
	unmap_exact(0, 3 * PAGE_SIZE);
	unmap_exact(3 * PAGE_SIZE, 2 * PAGE_SIZE);
}

TEST_F(iommufd_split, carve_ends)
{
	size_t length = self->block.length;

	map_all();
	if (!carve(0, PAGE_SIZE))
		return;
	check_mapped(PAGE_SIZE, length - PAGE_SIZE);
	carve(length - PAGE_SIZE, PAGE_SIZE);
	check_mapped(PAGE_SIZE, length - 2 * PAGE_SIZE);
	/* What is an area as a whole is unmapped */
	carve(PAGE_SIZE, length - 2 * PAGE_SIZE);
	test_err_ioctl_ioas_unmap(ENOENT, BASE_IOVA, length);
}

/* A whole area needs nothing, from any kind of table */
TEST_F(iommufd_split, carve_all)
{
	size_t length = self->block.length;

	map_all();
	test_ioctl_ioas_carve(BASE_IOVA, length);
	check_hole(0, length);
	check_refs(self->block.ptr, length, 0);
}

/* Several areas: the outer ones are cut, those between go as a whole */
TEST_F(iommufd_split, carve_spanning)
{
	size_t quarter = self->block.length / 4;
	unsigned int i;

	for (i = 0; i != 4; i++)
		ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block,
				       i * quarter, quarter,
				       BASE_IOVA + i * quarter));
	/* Nothing is unmapped if there is a hole, however far behind */
	test_ioctl_ioas_carve(BASE_IOVA + 3 * quarter, quarter);
	test_err_both(ENOENT, BASE_IOVA + PAGE_SIZE, 3 * quarter);
	check_mapped(0, 3 * quarter);
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block,
			       3 * quarter, quarter, BASE_IOVA + 3 * quarter));

	if (!self->can_split) {
		test_err_both(EOPNOTSUPP, BASE_IOVA + PAGE_SIZE,
			      4 * quarter - 2 * PAGE_SIZE);
		check_mapped(0, 4 * quarter);
		return;
	}
	carve(PAGE_SIZE, 4 * quarter - 2 * PAGE_SIZE);
	check_mapped(0, PAGE_SIZE);
	check_mapped(4 * quarter - PAGE_SIZE, PAGE_SIZE);
	unmap_exact(0, PAGE_SIZE);
	unmap_exact(4 * quarter - PAGE_SIZE, PAGE_SIZE);
}

/* Carve every page in any order, with some of the holes filled again */
TEST_F(iommufd_split, carve_any_order)
{
	size_t step = self->block.length / NPAGES;
	unsigned int order[NPAGES];
	unsigned int seed, i, j;

	for (seed = 1; seed != 9; seed++) {
		unsigned int state = seed;
		uint32_t mapped = (1U << NPAGES) - 1;

		map_all();
		shuffle(order, NPAGES, &state);
		for (i = 0; i != NPAGES; i++) {
			unsigned int back = order[i ? i - 1 : 0];

			if (!carve(order[i] * step, step))
				return;
			mapped &= ~(1U << order[i]);
			if (i % 3 == 2) {
				ASSERT_EQ(0, map_block(self->fd, self->ioas_id,
						       &self->block,
						       back * step, step,
						       BASE_IOVA + back * step));
				mapped |= 1U << back;
			}
			for (j = 0; j != NPAGES; j++) {
				if (mapped & (1U << j))
					check_mapped(j * step, step);
				else
					check_hole(j * step, step);
			}
		}
		test_ioctl_ioas_unmap(0, UINT64_MAX);
		check_refs(self->block.ptr, self->block.length, 0);
	}
}

/* The hole gives back its pins at once, and no other */
TEST_F(iommufd_split, carve_pins)
{
	unsigned int refs = variant->mock_domains ? 1 : 0;
	uint8_t *ptr = self->block.ptr;
	size_t length = self->block.length;

	map_all();
	if (!carve(2 * PAGE_SIZE, PAGE_SIZE))
		return;
	check_refs(ptr, 2 * PAGE_SIZE, refs);
	check_refs(ptr + 2 * PAGE_SIZE, PAGE_SIZE, 0);
	check_refs(ptr + 3 * PAGE_SIZE, length - 3 * PAGE_SIZE, refs);
	unmap_exact(0, 2 * PAGE_SIZE);
	unmap_exact(3 * PAGE_SIZE, length - 3 * PAGE_SIZE);
	check_refs(ptr, length, 0);
}

/* Pages stay pinned as long as any part of the mapping holds them */
TEST_F(iommufd_split, pins)
{
	unsigned int refs = variant->mock_domains ? 1 : 0;
	uint8_t *ptr = self->block.ptr;
	size_t length = self->block.length;

	map_all();
	check_refs(ptr, length, refs);
	if (!split(2 * PAGE_SIZE, PAGE_SIZE))
		return;
	check_refs(ptr, length, refs);
	unmap_exact(2 * PAGE_SIZE, PAGE_SIZE);
	/* Cannot be told for a part of a huge page */
	check_refs(ptr, 2 * PAGE_SIZE, refs);
	check_refs(ptr + 2 * PAGE_SIZE, PAGE_SIZE, 0);
	check_refs(ptr + 3 * PAGE_SIZE, length - 3 * PAGE_SIZE, refs);
	unmap_exact(0, 2 * PAGE_SIZE);
	unmap_exact(3 * PAGE_SIZE, length - 3 * PAGE_SIZE);
	check_refs(ptr, length, 0);
}

/* New domains are filled, and old ones emptied, area by area */
TEST_F(iommufd_split, attach_and_detach)
{
	size_t length = self->block.length;
	uint32_t stdev_id, hwpt_id, idev_id;
	unsigned int i;

	map_all();
	if (!split(PAGE_SIZE, 2 * PAGE_SIZE))
		return;

	ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id, &stdev_id,
				       &hwpt_id, &idev_id));
	ASSERT_EQ(0, check_map(self->fd, hwpt_id, BASE_IOVA, length,
			       self->block.ptr));
	unmap_exact(PAGE_SIZE, 2 * PAGE_SIZE);
	EXPECT_ERRNO(EINVAL, check_map(self->fd, hwpt_id, BASE_IOVA + PAGE_SIZE,
				       PAGE_SIZE, self->block.ptr + PAGE_SIZE));

	/* The domain that holds the PFNs goes first */
	for (i = 0; i != variant->mock_domains; i++) {
		test_ioctl_destroy(self->stdev_ids[i]);
		test_ioctl_destroy(self->hwpt_ids[i]);
		ASSERT_EQ(0, check_map(self->fd, hwpt_id, BASE_IOVA, PAGE_SIZE,
				       self->block.ptr));
		check_refs(self->block.ptr, PAGE_SIZE, 1);
	}
	test_ioctl_destroy(stdev_id);
	test_ioctl_destroy(hwpt_id);
	check_refs(self->block.ptr, length, 0);

	/* A detached IOAS still has its areas */
	test_ioctl_ioas_unmap(BASE_IOVA, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA + 3 * PAGE_SIZE,
			      length - 3 * PAGE_SIZE);
}

/* A split does not change which IOVAs may be mapped */
TEST_F(iommufd_split, iova_ranges)
{
	struct iommu_iova_range ranges[2][8];
	struct iommu_ioas_iova_ranges cmd[2];
	unsigned int i;

	map_all();
	for (i = 0; i != 2; i++) {
		memset(ranges[i], 0, sizeof(ranges[i]));
		cmd[i] = (struct iommu_ioas_iova_ranges){
			.size = sizeof(cmd[i]),
			.ioas_id = self->ioas_id,
			.num_iovas = ARRAY_SIZE(ranges[i]),
			.allowed_iovas = (uintptr_t)ranges[i],
		};
		ASSERT_EQ(0, ioctl(self->fd, IOMMU_IOAS_IOVA_RANGES, &cmd[i]));
		if (i == 0 && !split(PAGE_SIZE, PAGE_SIZE))
			return;
	}
	ASSERT_EQ(cmd[0].num_iovas, cmd[1].num_iovas);
	ASSERT_EQ(cmd[0].out_iova_alignment, cmd[1].out_iova_alignment);
	ASSERT_EQ(0, memcmp(ranges[0], ranges[1], sizeof(ranges[0])));
	unmap_exact(PAGE_SIZE, PAGE_SIZE);
}

int main(int argc, char **argv)
{
	skip_without_split();
	return test_harness_run(argc, argv);
}
