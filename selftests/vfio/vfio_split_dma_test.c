// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_IOAS_SPLIT and IOMMU_IOAS_JOIN under live DMA: a device copies without
 * pause while holes are cut into the large mappings that it copies through, and
 * filled again. It must not notice.
 *
 * The test looks at every copied byte, at the kernel's fault reports, and at
 * the page tables in iommufd's debugfs. control_remap and control_rejoin show
 * that this reveals a disruption when there is one.
 *
 * The device must be alone: a network card copies by sending frames to itself,
 * and a frame from outside would be taken for a copy. Give an emulated one a
 * hub without other ports (QEMU: -netdev hubport,id=n0,hubid=0).
 *
 *   VFIO_SELFTESTS_SPLITS  splits of random_holes, carves of random_carves, and
 *                          both with joins of random_joins, for each kind of
 *                          memory
 *   VFIO_SELFTESTS_SEED    repeat a run
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/sizes.h>

#include <libvfio.h>

#include "kselftest_harness.h"
#include "split_dma.h"

#define DEFAULT_SPLITS 1000
#define MAX_CUTS 24		/* before a window is mapped anew */
#define PROBE_SIZE 512
#define LONG_TIMEOUT 7200

static const char *device_bdf;
static u64 seed;
static u64 nr_splits = DEFAULT_SPLITS;

enum cut_flags {
	CUT_PROBE_WRITE = 1 << 0,	/* stray DMA into the hole */
	CUT_PROBE_READ = 1 << 1,	/* stray DMA out of the hole */
	CUT_CHECK_TABLES = 1 << 2,	/* if debugfs shows them */
	CUT_CARVE = 1 << 3,	/* in one call, not by split and unmap */
};

FIXTURE(vfio_split_dma_test) {
	struct split_dma d;
	u64 rng;
	const char *no_tables;
	struct ptable base[SPLIT_DMA_WINDOWS];
};

FIXTURE_VARIANT(vfio_split_dma_test) {
	enum backing backing;
	bool nest_parent;
};

FIXTURE_VARIANT_ADD(vfio_split_dma_test, small_pages) {
	.backing = BACKING_PAGES,
};

FIXTURE_VARIANT_ADD(vfio_split_dma_test, hugetlb_pmd) {
	.backing = BACKING_PMD,
};

FIXTURE_VARIANT_ADD(vfio_split_dma_test, hugetlb_pud) {
	.backing = BACKING_PUD,
};

FIXTURE_VARIANT_ADD(vfio_split_dma_test, nest_parent) {
	.backing = BACKING_LARGEST,
	.nest_parent = true,
};

FIXTURE_SETUP(vfio_split_dma_test)
{
	struct split_dma *d = &self->d;
	const char *err;
	u32 i;

	self->rng = seed;
	err = split_dma_init(d, device_bdf, variant->backing, variant->nest_parent,
			     split_dma_random(&self->rng));
	if (err)
		SKIP(return, "%s", err);

	for (i = 0; i < SPLIT_DMA_WINDOWS; i++) {
		self->no_tables = ptable_read(&self->base[i], d->iommu,
					      d->iova[i], d->size);
		if (!self->no_tables)
			ASSERT_TRUE(ptable_same_translation(&self->base[i],
							    &self->base[i],
							    d->iova[i], d->size,
							    0, 0));
	}
	if (self->no_tables)
		TH_LOG("page tables are not checked: %s", self->no_tables);
}

FIXTURE_TEARDOWN(vfio_split_dma_test)
{
	u32 i;

	for (i = 0; i < SPLIT_DMA_WINDOWS; i++)
		ptable_free(&self->base[i]);
	split_dma_cleanup(&self->d);
}

#define self_data FIXTURE_DATA(vfio_split_dma_test)

/* Why this machine cannot run a test that splits, or NULL. */
static const char *cannot_split(self_data *self)
{
	if (!split_dma_capable(&self->d))
		return "kernel or IOMMU cannot split live (no IOMMU_HW_CAP_HITLESS_SPLIT)";
	return NULL;
}

/* Why this machine cannot run a test that joins, or NULL. */
static const char *cannot_join(self_data *self)
{
	const char *err = cannot_split(self);

	/* A kernel that knows the call dislikes the length */
	if (!err && split_dma_join(&self->d, IOMMU_IOAS_JOIN_FILL, 0, 0, 0) != -EINVAL)
		err = "no IOMMU_IOAS_JOIN in this kernel";
	return err;
}

static void print_numbers(struct split_dma *d, const char *what)
{
	printf("# %s: splits=%lu copies=%lu copies_during_splits=%lu bytes_checked=%lu",
	       what, d->splits, d->copies, d->overlapped, d->bytes);
	printf(" failed=%lu mismatches=%lu fault_reports=%lu faults_suppressed=%lu",
	       d->failed, d->mismatched, d->faults.reports, d->faults.suppressed);
	if (d->faults.repeated)
		printf(" (and %lu repetitions)",
		       d->faults.repeated);
	if (d->splits)
		printf(" split_us_avg=%lu split_us_max=%lu",
		       d->split_ns / d->splits / 1000, d->split_ns_max / 1000);
	if (d->joins)
		printf(" joins=%lu join_us_avg=%lu join_us_max=%lu", d->joins,
		       d->join_ns / d->joins / 1000, d->join_ns_max / 1000);
	printf("\n");
}

#define ASSERT_BLOCKED(_err) do {					\
	const char *__err = (_err);					\
									\
	ASSERT_EQ(NULL, __err) {					\
		TH_LOG("stray DMA: %s", __err);				\
	}								\
} while (0)

/*
 * Nothing was noticed so far: no fault but those made on purpose, no wrong byte.
 * atomic_load(), because ASSERT_EQ() declares a variable of the same type: clang
 * does not compare those of an atomic one.
 */
#define ASSERT_UNDISTURBED(_d) do {					\
	struct split_dma *__d = (_d);					\
									\
	ASSERT_EQ(0, split_dma_unexpected_faults(__d));			\
	ASSERT_EQ(0, atomic_load(&__d->failed));			\
	ASSERT_EQ(0, atomic_load(&__d->mismatched));			\
	ASSERT_EQ(0, __d->faults.suppressed);				\
	ASSERT_EQ(0, __d->faults.lost);					\
} while (0)

static void read_tables(struct __test_metadata *_metadata, self_data *self,
			u32 window, struct ptable *pt)
{
	ASSERT_EQ(NULL, ptable_read(pt, self->d.iommu,
				    self->d.iova[window], self->d.size));
}

static void check_table(struct __test_metadata *_metadata, self_data *self,
			u32 window, const struct ptable *want, u64 hole_start,
			u64 hole_end)
{
	struct ptable have;

	read_tables(_metadata, self, window, &have);
	if (want)
		ASSERT_TRUE(ptable_equal(want, &have));
	ASSERT_TRUE(ptable_same_translation(&self->base[window], &have,
					    self->d.iova[window], self->d.size,
					    hole_start, hole_end));
	ptable_free(&have);
}

/* Make and check the hole [off, off + len) under DMA, and close it again. */
static void cut_hole(struct __test_metadata *_metadata, self_data *self,
		     u32 window, u64 off, u64 len, unsigned int flags)
{
	struct split_dma *d = &self->d;
	u64 start = d->iova[window] + off, end = start + len, unmapped = 0;
	struct ptable before, want, punched;

	if (self->no_tables)
		flags &= ~CUT_CHECK_TABLES;

	/* All of it is mapped and busy: both edges, inside and across */
	split_dma_aim(d, window, AIM_EDGES, off, len);
	split_dma_lap(d);
	if (flags & CUT_CHECK_TABLES)
		read_tables(_metadata, self, window, &before);

	if (flags & CUT_CHECK_TABLES) {
		ptable_cut(&before, start, end, &want);
		ptable_punch(&want, start, end, &punched);
	}
	if (!(flags & CUT_CARVE)) {
		ASSERT_EQ(0, split_dma_split(d, window, off, len, NULL)) {
			TH_LOG("split of iova 0x%lx length 0x%lx", start, len);
		}
		if (flags & CUT_CHECK_TABLES)
			check_table(_metadata, self, window, &want, 0, 0);
		split_dma_lap(d);
		ASSERT_UNDISTURBED(d);
	}

	/* Up to the edges from outside while the hole opens */
	split_dma_aim(d, window, AIM_OUTSIDE, off, len);
	if (flags & CUT_CARVE) {
		ASSERT_EQ(0, split_dma_carve(d, window, off, len, NULL)) {
			TH_LOG("carve of iova 0x%lx length 0x%lx", start, len);
		}
		ASSERT_EQ(-ENOENT,
			  split_dma_unmap(d, window, off, len, &unmapped));
	} else {
		ASSERT_EQ(0, split_dma_unmap(d, window, off, len, &unmapped)) {
			TH_LOG("unmap of iova 0x%lx length 0x%lx", start, len);
		}
		ASSERT_EQ(len, unmapped);
	}
	if (flags & CUT_CHECK_TABLES)
		check_table(_metadata, self, window, &punched, start, end);
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);

	/* First bytes of the hole for writes, last bytes for reads */
	if (flags & CUT_PROBE_WRITE)
		ASSERT_BLOCKED(split_dma_stray(d, window, off, PROBE_SIZE, true));
	if (flags & CUT_PROBE_READ)
		ASSERT_BLOCKED(split_dma_stray(d, window, off + len - PROBE_SIZE,
					       PROBE_SIZE, false));

	ASSERT_EQ(0, split_dma_map(d, window, off, len));
	if (flags & CUT_CHECK_TABLES) {
		check_table(_metadata, self, window, NULL, 0, 0);
		ptable_free(&before);
		ptable_free(&want);
		ptable_free(&punched);
	}
	split_dma_aim(d, window, AIM_EDGES, off, len);
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
}

/* Map a window anew, as large as it goes, while the device works in another. */
static void renew(struct __test_metadata *_metadata, self_data *self, u32 window,
		  bool check)
{
	struct split_dma *d = &self->d;
	u64 unmapped = 0;

	split_dma_aim(d, (window + 1) % SPLIT_DMA_WINDOWS, AIM_ANYWHERE, 0, 0);
	ASSERT_EQ(0, split_dma_unmap(d, window, 0, d->size, &unmapped));
	ASSERT_EQ(d->size, unmapped);
	ASSERT_EQ(0, split_dma_map(d, window, 0, d->size));
	if (check && !self->no_tables)
		check_table(_metadata, self, window, &self->base[window], 0, 0);
}

/* The machine shows what the other tests rely on. Needs no split. */
TEST_F(vfio_split_dma_test, fault_reports)
{
	struct split_dma *d = &self->d;
	u64 unmapped;

	split_dma_start(d);
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);

	/* Mapped memory does not fault */
	ASSERT_STREQ("the kernel reported no fault",
		     split_dma_stray(d, 1, d->size / 2, PROBE_SIZE, true));

	ASSERT_EQ(0, split_dma_unmap(d, 1, 0, d->size, &unmapped));
	ASSERT_EQ(0, split_dma_map(d, 1, 0, SZ_64K));
	ASSERT_EQ(0, split_dma_map(d, 1, d->size - SZ_64K, SZ_64K));
	ASSERT_BLOCKED(split_dma_stray(d, 1, SZ_64K, PROBE_SIZE, true));
	TH_LOG("%s", d->last_fault.text);
	ASSERT_BLOCKED(split_dma_stray(d, 1, d->size - SZ_64K - PROBE_SIZE,
				       PROBE_SIZE, false));
	TH_LOG("%s", d->last_fault.text);

	/* The device works again after both */
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
	split_dma_stop(d);
	print_numbers(d, "fault_reports");
}

/* An IOMMU that cannot split live says so before anything has changed. */
TEST_F(vfio_split_dma_test, refused_if_not_capable)
{
	struct split_dma *d = &self->d;
	u64 unmapped;

	if (!cannot_split(self))
		SKIP(return, "this IOMMU can split live");

	split_dma_start(d);
	ASSERT_EQ(-EOPNOTSUPP, split_dma_split(d, 0, SZ_64K, SZ_64K, NULL));
	ASSERT_EQ(-EOPNOTSUPP, split_dma_carve(d, 0, SZ_64K, SZ_64K, NULL));
	/* Still one area, all of it mapped */
	ASSERT_EQ(-ENOENT, split_dma_unmap(d, 0, SZ_64K, SZ_64K, &unmapped));
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
	split_dma_stop(d);
	print_numbers(d, "refused_if_not_capable");
}

/* There a join makes one mapping, and leaves the leaves alone. */
TEST_F(vfio_split_dma_test, joined_if_not_capable)
{
	struct split_dma *d = &self->d;
	u64 cut = d->size / 2 + d->page;
	struct ptable before;
	u64 unmapped;

	if (!cannot_split(self))
		SKIP(return, "this IOMMU can join live");

	/* Two parts of one mapping, without a split: copies of the other window */
	split_dma_start(d);
	split_dma_aim(d, 1, AIM_ANYWHERE, 0, 0);
	ASSERT_EQ(0, split_dma_unmap(d, 0, 0, d->size, &unmapped));
	ASSERT_EQ(0, split_dma_copy(d, 0, 0, cut));
	ASSERT_EQ(0, split_dma_copy(d, 0, cut, d->size - cut));
	if (!self->no_tables) {
		read_tables(_metadata, self, 0, &before);
		/* Its leaves could be as large as those of the other */
		if (d->backing >= d->block)
			ASSERT_LT(self->base[1].nr, before.nr);
	}

	split_dma_aim(d, 0, AIM_EDGES, cut, d->page);
	ASSERT_EQ(0, split_dma_join(d, 0, 0, cut, d->page));
	ASSERT_EQ(-ENOENT, split_dma_unmap(d, 0, 0, cut, &unmapped));
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
	if (!self->no_tables) {
		check_table(_metadata, self, 0, &before, 0, 0);
		ptable_free(&before);
	}

	/* So does a hole that is filled */
	split_dma_aim(d, 1, AIM_ANYWHERE, 0, 0);
	ASSERT_EQ(0, split_dma_unmap(d, 0, 0, d->size, &unmapped));
	ASSERT_EQ(d->size, unmapped);
	ASSERT_EQ(0, split_dma_copy(d, 0, 0, cut));
	ASSERT_EQ(0, split_dma_join(d, IOMMU_IOAS_JOIN_FILL, 0, cut,
				    d->size - cut));
	split_dma_aim(d, 0, AIM_EDGES, cut, d->page);
	ASSERT_EQ(-ENOENT, split_dma_unmap(d, 0, 0, cut, &unmapped));
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
	split_dma_stop(d);
	print_numbers(d, "joined_if_not_capable");
}

/* The fewest leaves and tables: "511 x 2M + 512 x 4K". */
TEST_F(vfio_split_dma_test, page_table_levels)
{
	const struct ptable *base = &self->base[0];
	struct split_dma *d = &self->d;
	const u64 holes[] = { d->block, d->page };
	const u64 items = d->page / sizeof(u64);
	const u64 sizes = d->page | d->page * items | d->page * items * items;
	struct ptable pt, want, punched;
	char was[256], is[256], left[256];
	u64 off, len, start, unmapped;
	const char *reason;
	bool plain;
	u32 i;

	if (self->no_tables)
		SKIP(return, "%s", self->no_tables);
	for (i = 0; i < base->nr; i++) {
		if (base->leaf[i].size < d->backing)
			SKIP(return, "this IOMMU does not map %s pages as %s leaves",
			     leaf_size_name(d->backing),
			     leaf_size_name(d->backing));
	}
	reason = cannot_split(self);
	if (reason)
		SKIP(return, "%s", reason);
	/* Other IOMMUs have sizes in between, and join what is contiguous */
	plain = !((base->page_sizes ^ sizes) & (SZ_2G - 1));

	split_dma_start(d);
	for (i = 0; i < ARRAY_SIZE(holes); i++) {
		bool cut_pud = d->backing > d->block;
		bool cut_pmd = holes[i] == d->page && d->backing >= d->block;

		len = holes[i];
		off = d->size / 2 + (cut_pmd ? 16 * d->page : 0);
		start = d->iova[0] + off;
		ptable_cut(base, start, start + len, &want);
		ptable_punch(&want, start, start + len, &punched);

		split_dma_aim(d, 0, AIM_EDGES, off, len);
		ASSERT_EQ(0, split_dma_split(d, 0, off, len, NULL));
		read_tables(_metadata, self, 0, &pt);
		ptable_summary(base, was, sizeof(was));
		ptable_summary(&pt, is, sizeof(is));
		EXPECT_TRUE(ptable_equal(&want, &pt));
		EXPECT_EQ(want.tables, pt.tables);
		if (cut_pud)
			EXPECT_EQ(0, ptable_count(&pt, d->backing));
		if (plain) {
			u64 nr = d->size / d->block;

			if (d->backing >= d->block) {
				EXPECT_EQ(nr - cut_pmd, ptable_count(&pt, d->block));
				EXPECT_EQ(cut_pmd * items, ptable_count(&pt, d->page));
			} else {
				EXPECT_EQ(d->size / d->page,
					  ptable_count(&pt, d->page));
			}
			/* One table for each level that was cut */
			EXPECT_EQ(base->tables + cut_pud + cut_pmd, pt.tables);
		}
		ptable_free(&pt);

		split_dma_aim(d, 0, AIM_OUTSIDE, off, len);
		ASSERT_EQ(0, split_dma_unmap(d, 0, off, len, &unmapped));
		ASSERT_EQ(len, unmapped);
		read_tables(_metadata, self, 0, &pt);
		ptable_summary(&pt, left, sizeof(left));
		EXPECT_TRUE(ptable_equal(&punched, &pt));
		ptable_free(&pt);
		ptable_free(&want);
		ptable_free(&punched);
		ASSERT_EQ(0, split_dma_map(d, 0, off, len));
		TH_LOG("%s hole: %s -> split %s -> unmap %s",
		       leaf_size_name(len), was, is, left);

		renew(_metadata, self, 0, true);
	}
	ASSERT_UNDISTURBED(d);
	split_dma_stop(d);
}

/* Every size at both ends, in the middle and where it is aligned to nothing. */
TEST_F_TIMEOUT(vfio_split_dma_test, hole_shapes, 600)
{
	struct split_dma *d = &self->d;
	const u64 lens[] = {
		d->page, 16 * d->page, d->block, 3 * d->page, d->block + d->page,
		d->block / 2 - d->page,
	};
	const char *reason;
	u64 len, probes = 0, cuts = 0;
	u32 i, j;

	reason = cannot_split(self);
	if (reason)
		SKIP(return, "%s", reason);
	split_dma_start(d);
	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		len = lens[i];
		const u64 offs[] = {
			0, d->size - len, d->size / 2, d->size / 4 - len,
			d->block - d->page, 2 * d->block + 5 * d->page,
		};

		for (j = 0; j < ARRAY_SIZE(offs); j++) {
			unsigned int flags = CUT_CHECK_TABLES;

			/* A window may be of few blocks */
			if (offs[j] > d->size - len)
				continue;
			/* Faults are paced, so not each time */
			if (j == i && (i % 3 == 1 || d->backing == SZ_1G))
				flags |= CUT_PROBE_WRITE;
			if (j == i && i % 3 == 2)
				flags |= CUT_PROBE_READ;
			probes += !!(flags & (CUT_PROBE_WRITE | CUT_PROBE_READ));
			cut_hole(_metadata, self, 0, offs[j], len, flags);
			cuts++;
		}
		renew(_metadata, self, 0, true);

		/* The same in one call */
		for (j = 0; j < ARRAY_SIZE(offs); j++) {
			if (offs[j] > d->size - len)
				continue;
			cut_hole(_metadata, self, 0, offs[j], len,
				 CUT_CHECK_TABLES | CUT_CARVE);
			cuts++;
		}
		renew(_metadata, self, 0, true);
	}
	ASSERT_LT(0, probes);
	split_dma_stop(d);
	ASSERT_UNDISTURBED(d);
	ASSERT_EQ(cuts, d->splits);
	print_numbers(d, "hole_shapes");
}

/* One call over several leaves, several areas, and again over the same. */
TEST_F_TIMEOUT(vfio_split_dma_test, several_leaves, 300)
{
	struct split_dma *d = &self->d;
	const char *reason;
	u64 off, len, i, unmapped, whole;
	struct ptable before, after;

	reason = cannot_split(self);
	if (reason)
		SKIP(return, "%s", reason);
	split_dma_start(d);

	/* Both edges in leaves of their own, whole ones between */
	whole = min(3UL, d->size / d->block - 2);
	off = d->block - 2 * d->page;
	len = whole * d->block + 4 * d->page;
	cut_hole(_metadata, self, 0, off, len, CUT_CHECK_TABLES);
	renew(_metadata, self, 0, true);
	cut_hole(_metadata, self, 0, off, len, CUT_CHECK_TABLES | CUT_CARVE);
	renew(_metadata, self, 0, true);

	/* From one area into the next: only the outer edges are cut */
	off = d->size - d->block - d->page;
	len = 2 * d->block;
	split_dma_aim(d, 0, AIM_EDGES, off, d->size - off);
	ASSERT_EQ(0, split_dma_split(d, 0, off, len, NULL));
	split_dma_lap(d);
	split_dma_aim(d, 1, AIM_EDGES, 0, off + len - d->size);
	split_dma_lap(d);
	split_dma_aim(d, 1, AIM_OUTSIDE, 0, off + len - d->size);
	ASSERT_EQ(0, split_dma_unmap(d, 0, off, len, &unmapped));
	ASSERT_EQ(len, unmapped);
	split_dma_lap(d);
	split_dma_aim(d, 0, AIM_OUTSIDE, off, d->size - off);
	split_dma_lap(d);
	ASSERT_EQ(0, split_dma_map(d, 0, off, d->size - off));
	ASSERT_EQ(0, split_dma_map(d, 1, 0, off + len - d->size));
	renew(_metadata, self, 0, true);
	renew(_metadata, self, 1, true);

	/* Nested: each range lies inside the one before */
	split_dma_aim(d, 0, AIM_EDGES, d->size / 2, 16 * d->page);
	for (off = d->size / 4, len = d->size / 2; len >= d->page; len /= 4) {
		ASSERT_EQ(0, split_dma_split(d, 0, off, len, NULL));
		off += len / 4;
		split_dma_lap(d);
	}

	/* Again: nothing is left to cut, nothing changes */
	if (!self->no_tables)
		read_tables(_metadata, self, 0, &before);
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, split_dma_split(d, 0, d->size / 4, d->size / 2, NULL));
	if (!self->no_tables) {
		read_tables(_metadata, self, 0, &after);
		EXPECT_TRUE(ptable_equal(&before, &after));
		EXPECT_EQ(before.tables, after.tables);
		ptable_free(&before);
		ptable_free(&after);
	}
	split_dma_lap(d);

	/* The same page as a hole, over and over */
	for (i = 0; i < 50; i++)
		cut_hole(_metadata, self, 0, d->size / 2 + d->page, d->page, 0);

	split_dma_stop(d);
	ASSERT_UNDISTURBED(d);
	print_numbers(d, "several_leaves");
}

static void random_hole(self_data *self, u64 *off, u64 *len)
{
	const u64 page = self->d.page, block = self->d.block;
	const u64 lens[] = { page, 16 * page, block, 3 * page, block + page };
	u64 size = self->d.size, pick = split_dma_random(&self->rng);

	if (pick % 8 < ARRAY_SIZE(lens))
		*len = lens[pick % 8];
	else
		*len = (1 + (pick >> 8) % 1024) * page;

	pick = split_dma_random(&self->rng);
	*off = (pick >> 8) % ((size - *len) / page + 1) * page;
	switch (pick % 8) {
	case 0:
		*off = 0;
		break;
	case 1:
		*off = size - *len;
		break;
	case 2:		/* start where a large leaf may, or end there */
		*off = *off / block * block;
		break;
	case 3:
		*off = (*off + *len) / block * block;
		*off = *off >= *len ? *off - *len : 0;
		break;
	}
}

static void random_cuts(struct __test_metadata *_metadata, self_data *self,
			unsigned int how, const char *name)
{
	struct split_dma *d = &self->d;
	const char *reason;
	u64 i, off, len, probes = 0;
	u32 window = 0, cuts = 0;

	reason = cannot_split(self);
	if (reason)
		SKIP(return, "%s", reason);
	TH_LOG("VFIO_SELFTESTS_SEED=%lu VFIO_SELFTESTS_SPLITS=%lu", seed, nr_splits);
	split_dma_start(d);
	for (i = 0; i < nr_splits; i++) {
		unsigned int flags = how;

		if (!cuts) {
			renew(_metadata, self, window, i % 4 == 0);
			window = (window + 1) % SPLIT_DMA_WINDOWS;
			cuts = 1 + split_dma_random(&self->rng) % MAX_CUTS;
		}
		cuts--;

		/* As often as the kernel reports them; most are writes */
		if (fault_log_ready(&d->faults)) {
			flags |= i % 4 ? CUT_PROBE_WRITE : CUT_PROBE_READ;
			probes++;
		}
		/* Slow: debugfs formats the whole table for each of them */
		if (i % 64 == 0)
			flags |= CUT_CHECK_TABLES;
		random_hole(self, &off, &len);
		cut_hole(_metadata, self, window, off, len, flags);
	}
	split_dma_stop(d);
	ASSERT_UNDISTURBED(d);

	print_numbers(d, name);
	ASSERT_EQ(nr_splits, d->splits);
	ASSERT_LE(probes, d->faults.reports);
	/* The device was really busy while the ioctl ran */
	ASSERT_LT(nr_splits / 2, atomic_load(&d->overlapped));
}

TEST_F_TIMEOUT(vfio_split_dma_test, random_holes, LONG_TIMEOUT)
{
	random_cuts(_metadata, self, 0, "random_holes");
}

/* Split and unmap in one call */
TEST_F_TIMEOUT(vfio_split_dma_test, random_carves, LONG_TIMEOUT)
{
	random_cuts(_metadata, self, CUT_CARVE, "random_carves");
}

/* The open hole that has a byte of the range, or -1 */
static int hole_in(const struct split_dma *d, u64 off, u64 len)
{
	u32 i;

	for (i = 0; i < d->holes; i++)
		if (off < d->hole_off[i] + d->hole_len[i] &&
		    d->hole_off[i] < off + len)
			return i;
	return -1;
}

/* Is there room for the device with one more hole? It needs one of the ends. */
static bool may_open(const struct split_dma *d, u64 off, u64 len)
{
	u64 last = d->size - d->page;

	if (d->holes == SPLIT_DMA_HOLES || hole_in(d, off, len) >= 0)
		return false;
	if (!off)
		return hole_in(d, last, d->page) < 0;
	return off + len <= last || hole_in(d, 0, d->page) < 0;
}

/* Fill an open hole while the device works up to its edges, then in it. */
static void fill_hole(struct __test_metadata *_metadata, self_data *self,
		      u32 window, u32 hole)
{
	struct split_dma *d = &self->d;
	u64 off = d->hole_off[hole], len = d->hole_len[hole];

	split_dma_aim(d, window, AIM_OUTSIDE, off, len);
	ASSERT_EQ(0, split_dma_join(d, IOMMU_IOAS_JOIN_FILL, window, off, len)) {
		TH_LOG("fill of iova 0x%lx length 0x%lx", d->iova[window] + off, len);
	}
	split_dma_permit(d, hole);
	split_dma_aim(d, window, AIM_EDGES, off, len);
}

/* Split, carve, join or fill: what comes next is not known to the kernel. */
static void random_step(struct __test_metadata *_metadata, self_data *self,
			u32 window)
{
	struct split_dma *d = &self->d;
	u64 off, len, pick = split_dma_random(&self->rng);
	int hole;

	random_hole(self, &off, &len);
	hole = hole_in(d, off, len);
	if (pick % 4 == 0 && may_open(d, off, len)) {
		split_dma_avoid(d, off, len);
		split_dma_aim(d, window, AIM_OUTSIDE, off, len);
		ASSERT_EQ(0, split_dma_carve(d, window, off, len, NULL)) {
			TH_LOG("carve of iova 0x%lx length 0x%lx",
			       d->iova[window] + off, len);
		}
	} else if (pick % 4 == 1 && d->holes) {
		fill_hole(_metadata, self, window, (pick >> 8) % d->holes);
	} else if (hole >= 0) {
		/* Refused. The range and the holes may have both ends. */
		split_dma_aim(d, window, AIM_ANYWHERE, 0, 0);
		ASSERT_EQ(-ENOENT, split_dma_join(d, 0, window, off, len));
	} else if (pick % 4 == 2) {
		split_dma_aim(d, window, AIM_EDGES, off, len);
		ASSERT_EQ(0, split_dma_split(d, window, off, len, NULL));
	} else {
		split_dma_aim(d, window, AIM_EDGES, off, len);
		ASSERT_EQ(0, split_dma_join(d, pick >> 8 & IOMMU_IOAS_JOIN_FILL,
					    window, off, len));
	}
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
}

/* What the kernel has when no window is cut */
struct uncut {
	char *summary;		/* of the IOAS, NULL if not known */
	struct ptable tables[SPLIT_DMA_WINDOWS];
};

/*
 * Join all of a window, the only one that is cut: it becomes what it was before
 * the first cut, and so does the IOAS.
 */
static void join_window(struct __test_metadata *_metadata, self_data *self,
			u32 window, const struct uncut *want, bool check)
{
	struct split_dma *d = &self->d;
	char *summary;

	split_dma_aim(d, window, AIM_ANYWHERE, 0, 0);
	ASSERT_EQ(0, split_dma_join(d, IOMMU_IOAS_JOIN_FILL, window, 0, d->size));
	while (d->holes)
		split_dma_permit(d, 0);
	split_dma_aim(d, window, AIM_ANYWHERE, 0, 0);
	split_dma_lap(d);
	ASSERT_UNDISTURBED(d);
	/* No mapping, leaf or table too many, wherever it is */
	if (want->summary) {
		ASSERT_EQ(NULL, ioas_summary(d->iommu, &summary));
		ASSERT_STREQ(want->summary, summary);
		free(summary);
	}
	if (check && !self->no_tables)
		check_table(_metadata, self, window,
			    want->summary ? &want->tables[window] : NULL, 0, 0);
}

/* Splits, carves and joins in any order: the tables end as they began. */
TEST_F_TIMEOUT(vfio_split_dma_test, random_joins, LONG_TIMEOUT)
{
	struct split_dma *d = &self->d;
	struct uncut uncut = {};
	const char *reason;
	u64 i, rounds = 0;
	u32 window = 0, steps = 0;

	reason = cannot_join(self);
	if (reason)
		SKIP(return, "%s", reason);
	TH_LOG("VFIO_SELFTESTS_SEED=%lu VFIO_SELFTESTS_SPLITS=%lu", seed, nr_splits);
	split_dma_start(d);

	/* Memory may go on where a map did not notice */
	for (i = 0; i < SPLIT_DMA_WINDOWS; i++)
		join_window(_metadata, self, i, &uncut, true);
	for (i = 0; i < SPLIT_DMA_WINDOWS && !self->no_tables; i++)
		read_tables(_metadata, self, i, &uncut.tables[i]);
	reason = ioas_summary(d->iommu, &uncut.summary);
	if (reason)
		TH_LOG("mappings are not counted: %s", reason);

	for (i = 0; i < nr_splits; i++) {
		if (!steps) {
			join_window(_metadata, self, window, &uncut,
				    rounds++ % 4 == 0);
			window = (window + 1) % SPLIT_DMA_WINDOWS;
			steps = 1 + split_dma_random(&self->rng) % MAX_CUTS;
		}
		steps--;
		random_step(_metadata, self, window);
	}
	for (i = 0; i < SPLIT_DMA_WINDOWS; i++)
		join_window(_metadata, self, (window + i) % SPLIT_DMA_WINDOWS,
			    &uncut, true);
	split_dma_stop(d);
	ASSERT_UNDISTURBED(d);

	print_numbers(d, "random_joins");
	for (i = 0; i < SPLIT_DMA_WINDOWS; i++)
		ptable_free(&uncut.tables[i]);
	free(uncut.summary);
	ASSERT_LT(nr_splits / 8, d->splits);
	ASSERT_LT(nr_splits / 8, d->joins);
	/* The device was really busy while the ioctls ran */
	ASSERT_LT(nr_splits / 8, atomic_load(&d->overlapped));
}

/*
 * Negative control: the same holes by unmapping all and mapping the rest again,
 * which is all that there was before. If that goes unnoticed, so would a split
 * that disturbs DMA, and the other tests prove nothing.
 */
TEST_F_TIMEOUT(vfio_split_dma_test, control_remap, 300)
{
	struct split_dma *d = &self->d;
	u64 off, len, i, unmapped, faults = 0;
	struct fault_report report;

	TH_LOG("VFIO_SELFTESTS_SEED=%lu; wrong copies are wanted here", seed);
	fault_log_pace(&d->faults);
	split_dma_start(d);
	for (i = 0; i < 100 && d->failed + d->mismatched < 3; i++) {
		random_hole(self, &off, &len);
		split_dma_aim(d, 0, AIM_OUTSIDE, off, len);
		split_dma_lap(d);
		ASSERT_EQ(0, split_dma_unmap(d, 0, 0, d->size, &unmapped));
		if (off)
			ASSERT_EQ(0, split_dma_map(d, 0, 0, off));
		if (off + len < d->size)
			ASSERT_EQ(0, split_dma_map(d, 0, off + len,
						   d->size - off - len));
		split_dma_lap(d);
		ASSERT_EQ(0, split_dma_map(d, 0, off, len));
	}
	split_dma_stop(d);

	/* Reports may be suppressed here, wrong copies cannot */
	usleep(100000);
	while (fault_log_next(&d->faults, &report))
		faults++;
	print_numbers(d, "control_remap");
	TH_LOG("control: %lu remaps disrupted %lu copies, %lu faults reported",
	       i, d->failed + d->mismatched, faults);
	ASSERT_LT(0, d->failed + d->mismatched);
	ASSERT_LT(0, faults);
}

/*
 * Negative control for joins: make one mapping of the parts by unmapping all of
 * them and mapping them at once, which is what a join through an empty entry
 * looks like to a device. It has to be noticed.
 */
TEST_F_TIMEOUT(vfio_split_dma_test, control_rejoin, 300)
{
	struct split_dma *d = &self->d;
	u64 off, len, i, unmapped, faults = 0;
	struct fault_report report;
	const char *reason;

	reason = cannot_join(self);
	if (reason)
		SKIP(return, "%s", reason);
	TH_LOG("VFIO_SELFTESTS_SEED=%lu; wrong copies are wanted here", seed);
	fault_log_pace(&d->faults);
	split_dma_start(d);
	for (i = 0; i < 100 && d->failed + d->mismatched < 3; i++) {
		random_hole(self, &off, &len);
		split_dma_aim(d, 0, AIM_OUTSIDE, off, len);
		ASSERT_EQ(0, split_dma_carve(d, 0, off, len, NULL));
		split_dma_lap(d);
		ASSERT_EQ(0, split_dma_unmap(d, 0, 0, d->size, &unmapped));
		ASSERT_EQ(d->size - len, unmapped);
		ASSERT_EQ(0, split_dma_map(d, 0, 0, d->size));
		split_dma_lap(d);
	}
	split_dma_stop(d);

	/* Reports may be suppressed here, wrong copies cannot */
	usleep(100000);
	while (fault_log_next(&d->faults, &report))
		faults++;
	print_numbers(d, "control_rejoin");
	TH_LOG("control: %lu remaps disrupted %lu copies, %lu faults reported",
	       i, d->failed + d->mismatched, faults);
	ASSERT_LT(0, d->failed + d->mismatched);
	ASSERT_LT(0, faults);
}

static u64 env_number(const char *name, u64 value)
{
	const char *text = getenv(name);
	char *end;

	if (!text)
		return value;
	value = strtoull(text, &end, 0);
	if (!*text || *end) {
		fprintf(stderr, "%s=%s is not a number\n", name, text);
		exit(KSFT_FAIL);
	}
	return value;
}

/* What this machine lacks for any of the cases, or NULL. */
static const char *missing(void)
{
	struct iommu_ioas_split split = { .size = sizeof(split) };
	struct vfio_pci_device *device;
	const char *err = NULL, *cdev;
	struct iommu *iommu;
	char path[PATH_MAX];

	if (access("/dev/iommu", F_OK))
		return "no /dev/iommu, enable CONFIG_IOMMUFD";
	if (access("/dev/iommu", R_OK | W_OK))
		return "cannot open /dev/iommu, run as root";
	if (access("/dev/kmsg", R_OK))
		return "cannot read /dev/kmsg, run as root and enable CONFIG_PRINTK";
	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s", device_bdf);
	if (access(path, F_OK))
		return "no such PCI device";
	strcat(path, "/vfio-dev");
	if (access(path, F_OK))
		return "the device is not bound to vfio-pci, see scripts/setup.sh";
	cdev = vfio_pci_get_cdev_path(device_bdf);
	if (access(cdev, R_OK | W_OK))
		return "cannot open its /dev/vfio/devices/*, enable CONFIG_VFIO_DEVICE_CDEV";

	iommu = iommu_init(MODE_IOMMUFD);
	split.ioas_id = iommu->ioas_id;
	split.length = sysconf(_SC_PAGESIZE);
	if (ioctl(iommu->iommufd, IOMMU_IOAS_SPLIT, &split) &&
	    (errno == ENOTTY || errno == EOPNOTSUPP))
		err = "no IOMMU_IOAS_SPLIT, enable CONFIG_IOMMUFD_SPLIT";
	device = vfio_pci_device_init(device_bdf, iommu);
	if (!err && !device->driver.ops)
		err = "libvfio has no driver for this device, see vfio/lib/drivers";
	vfio_pci_device_cleanup(device);
	iommu_cleanup(iommu);
	return err;
}

int main(int argc, char *argv[])
{
	const char *err;

	device_bdf = vfio_selftests_get_bdf(&argc, argv);
	/* The harness would let it pass if every case were skipped */
	err = missing();
	if (err) {
		ksft_print_header();
		ksft_exit_skip("%s: %s\n", device_bdf, err);
	}
	seed = env_number("VFIO_SELFTESTS_SEED", time(NULL));
	nr_splits = env_number("VFIO_SELFTESTS_SPLITS", DEFAULT_SPLITS);

	/* The lines of the copying thread must not be lost or torn */
	setvbuf(stdout, NULL, _IOLBF, 0);
	return test_harness_run(argc, argv);
}
