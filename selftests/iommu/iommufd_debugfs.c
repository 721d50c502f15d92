// SPDX-License-Identifier: GPL-2.0-only
/*
 * What iommufd shows of an IOAS in debugfs, and the tracepoints of iommu_split()
 * and iommu_carve().
 *
 * The tables are those of the mock domain: pages of 2K, and leaves of any power
 * of two. So all numbers are known beforehand.
 */
#include <ctype.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "iommufd_split_utils.h"

#define SIZES 64
#define K 1024UL
#define M (1024 * K)

#define TRACING "/sys/kernel/tracing"
#define INSTANCE TRACING "/instances/iommufd_debugfs"

struct hwpt_summary {
	unsigned int id;
	bool known;
	unsigned long page_sizes;
	unsigned long tables;
	unsigned long table_bytes;
	/* By log2 of the size */
	unsigned long leaves[SIZES];
};

struct summary {
	unsigned long mappings;
	unsigned long mapped_bytes;
	unsigned long changing;
	unsigned long pinned_pages;
	unsigned int nr_hwpts;
	struct hwpt_summary hwpts[4];
};

FIXTURE(iommufd_debugfs)
{
	int fd;
	uint32_t ioas_id;
	uint32_t stdev_id;
	uint32_t hwpt_id;
	uint32_t idev_id;
	char dir[128];
	struct block block;
};

/* The directory of an iommufd, false if there is none */
static bool find_dir(int fd, char *dir, size_t len)
{
	char path[64], line[128];
	unsigned int number;
	bool found = false;
	FILE *fdinfo;
	glob_t dirs;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	fdinfo = fopen(path, "r");
	while (fdinfo && fgets(line, sizeof(line), fdinfo)) {
		if (sscanf(line, "iommufd-debugfs: %u", &number) != 1)
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/debug/iommufd/*-%u", number);
		if (glob(path, 0, NULL, &dirs))
			continue;
		found = dirs.gl_pathc == 1 &&
			snprintf(dir, len, "%s", dirs.gl_pathv[0]) < (int)len;
		globfree(&dirs);
	}
	if (fdinfo)
		fclose(fdinfo);
	return found;
}

static int open_file(struct _test_data_iommufd_debugfs *self, uint32_t ioas_id,
		     const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/ioas-%u/%s", self->dir, ioas_id, name);
	return open(path, O_RDONLY);
}

/* The log2 of a size as in "64K", -1 if it is none */
static int size_lg2(const char *text)
{
	static const char units[] = "BKMGTPE";
	const char *unit;
	char *end;
	unsigned long size = strtoul(text, &end, 10);

	unit = *end && !end[1] ? strchr(units, *end) : NULL;
	if (!unit || !size || size & (size - 1))
		return -1;
	return __builtin_ctzl(size) + 10 * (unit - units);
}

static int parse_hwpt(char *line, struct hwpt_summary *hwpt)
{
	static const char space[] = "\n ";
	char *save, *key = strtok_r(line, space, &save), *value;

	if (!key || strcmp(key, "hwpt"))
		return -1;
	value = strtok_r(NULL, space, &save);
	if (!value)
		return -1;
	hwpt->id = strtoul(value, NULL, 0);
	while ((key = strtok_r(NULL, space, &save))) {
		if (!strcmp(key, "unknown"))
			return 0;
		value = strtok_r(NULL, space, &save);
		if (!value)
			return -1;
		hwpt->known = true;
		if (!strcmp(key, "page_sizes"))
			hwpt->page_sizes = strtoul(value, NULL, 0);
		else if (!strcmp(key, "tables"))
			hwpt->tables = strtoul(value, NULL, 0);
		else if (!strcmp(key, "table_bytes"))
			hwpt->table_bytes = strtoul(value, NULL, 0);
		else if (size_lg2(key) >= 0)
			hwpt->leaves[size_lg2(key)] = strtoul(value, NULL, 0);
		else
			return -1;
	}
	return 0;
}

/* 0, or -1 if the file cannot be read or is not as it should be */
static int read_summary(struct _test_data_iommufd_debugfs *self,
			uint32_t ioas_id, struct summary *summary)
{
	int fd = open_file(self, ioas_id, "summary"), rc = -1;
	char line[4096];
	FILE *file;

	memset(summary, 0, sizeof(*summary));
	if (fd == -1)
		return -1;
	file = fdopen(fd, "r");
	if (fscanf(file,
		   "mappings %lu mapped_bytes %lu changing %lu pinned_pages %lu ",
		   &summary->mappings, &summary->mapped_bytes,
		   &summary->changing, &summary->pinned_pages) != 4)
		goto out;
	while (fgets(line, sizeof(line), file)) {
		if (summary->nr_hwpts == ARRAY_SIZE(summary->hwpts) ||
		    parse_hwpt(line, &summary->hwpts[summary->nr_hwpts++]))
			goto out;
	}
	rc = ferror(file) ? -1 : 0;
out:
	fclose(file);
	return rc;
}

/* The same by counting the list of leaves */
static int count_leaves(struct _test_data_iommufd_debugfs *self,
			uint32_t ioas_id, uint32_t hwpt_id,
			unsigned long *leaves)
{
	int fd = open_file(self, ioas_id, "leaves");
	unsigned long iova, size, oa, attrs, next = 0;
	unsigned int id;
	char line[256];
	FILE *file;

	memset(leaves, 0, SIZES * sizeof(*leaves));
	if (fd == -1)
		return -1;
	file = fdopen(fd, "r");
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#')
			continue;
		if (sscanf(line, "%u %lx %lx %lx %lx", &id, &iova, &size, &oa,
			   &attrs) != 5)
			goto bad;
		if (id != hwpt_id)
			continue;
		/* In order, aligned, and each with some rights */
		if (iova < next || (iova | oa) & (size - 1) || !attrs)
			goto bad;
		next = iova + size;
		leaves[__builtin_ctzl(size)]++;
	}
	if (ferror(file))
		goto bad;
	fclose(file);
	return 0;
bad:
	printf("# leaves: %s", line);
	fclose(file);
	return -1;
}

FIXTURE_SETUP(iommufd_debugfs)
{
	struct summary summary;

	memset(self, 0, sizeof(*self));
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
	if (!find_dir(self->fd, self->dir, sizeof(self->dir)))
		SKIP(return,
		     "no iommufd in debugfs, mount it and enable CONFIG_IOMMUFD_DEBUGFS");
	if (!block_init(&self->block, false, true))
		SKIP(return, NO_HUGE_PAGE);
	ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id,
				       &self->stdev_id, &self->hwpt_id,
				       &self->idev_id));
	ASSERT_EQ(0, read_summary(self, self->ioas_id, &summary));
	ASSERT_EQ(1, summary.nr_hwpts);
	if (!summary.hwpts[0].known)
		SKIP(return, "the tables of the mock are unknown, enable CONFIG_IOMMU_PT_RUST");
}

FIXTURE_TEARDOWN(iommufd_debugfs)
{
	teardown_iommufd(self->fd, _metadata);
	block_release(&self->block);
}

/* Read the summary of an IOAS with one HWPT, compare it with the leaves */
static void _read_one(struct __test_metadata *_metadata,
		      struct _test_data_iommufd_debugfs *self,
		      struct summary *summary)
{
	unsigned long leaves[SIZES];
	int fd;

	ASSERT_EQ(0, read_summary(self, self->ioas_id, summary));
	ASSERT_EQ(0, summary->changing);
	ASSERT_EQ(1, summary->nr_hwpts);
	ASSERT_EQ(self->hwpt_id, summary->hwpts[0].id);
	ASSERT_EQ(4096 * summary->hwpts[0].tables,
		  summary->hwpts[0].table_bytes);

	fd = open_file(self, self->ioas_id, "leaves");
	if (fd == -1)
		return; /* Only with CONFIG_IOMMU_DEBUGFS */
	close(fd);
	ASSERT_EQ(0, count_leaves(self, self->ioas_id, self->hwpt_id, leaves));
	ASSERT_EQ(0, memcmp(leaves, summary->hwpts[0].leaves, sizeof(leaves)));
}

#define read_one(summary) _read_one(_metadata, self, summary)

/* @want has the number of leaves of each size, from 2^@lg2 bytes on */
static bool leaves_are(const struct summary *summary, unsigned int lg2,
		       const unsigned int *want, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i != SIZES; i++) {
		unsigned long n = i >= lg2 && i - lg2 < nr ? want[i - lg2] : 0;

		if (summary->hwpts[0].leaves[i] != n) {
			printf("# %lu leaves of 2^%u bytes, expected %lu\n",
			       summary->hwpts[0].leaves[i], i, n);
			return false;
		}
	}
	return true;
}

#define ASSERT_LEAVES(summary, lg2, ...)                              \
	do {                                                          \
		static const unsigned int __want[] = { __VA_ARGS__ }; \
								      \
		ASSERT_TRUE(leaves_are(summary, lg2, __want,          \
				       ARRAY_SIZE(__want)));          \
	} while (0)

/* One page of 2M, a hole of 4K in it, and what is left */
TEST_F(iommufd_debugfs, split)
{
	unsigned long iova = BASE_IOVA + 64 * K;
	struct summary s;

	read_one(&s);
	ASSERT_EQ(0, s.mappings);
	ASSERT_EQ(0, s.mapped_bytes);
	ASSERT_EQ(0, s.pinned_pages);
	ASSERT_EQ(1, s.hwpts[0].tables);
	ASSERT_LEAVES(&s, 0, 0);
	/* 2K is the smallest */
	ASSERT_EQ(2 * K, s.hwpts[0].page_sizes & -s.hwpts[0].page_sizes);

	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       HUGE_SIZE, BASE_IOVA));
	read_one(&s);
	ASSERT_EQ(1, s.mappings);
	ASSERT_EQ(2 * M, s.mapped_bytes);
	ASSERT_EQ(2 * M / PAGE_SIZE, s.pinned_pages);
	ASSERT_EQ(2, s.hwpts[0].tables);
	ASSERT_LEAVES(&s, 21, 1);

	test_ioctl_ioas_split(iova, 4 * K);
	read_one(&s);
	ASSERT_EQ(3, s.mappings);
	ASSERT_EQ(2 * M, s.mapped_bytes);
	ASSERT_EQ(2 * M / PAGE_SIZE, s.pinned_pages);
	ASSERT_EQ(3, s.hwpts[0].tables);
	/* 64K in front of the hole; 4K to 512K behind it, and 1M */
	ASSERT_LEAVES(&s, 12, 2, 1, 1, 1, 1, 1, 1, 1, 1);

	test_ioctl_ioas_unmap(iova, 4 * K);
	read_one(&s);
	ASSERT_EQ(2, s.mappings);
	ASSERT_EQ(2 * M - 4 * K, s.mapped_bytes);
	ASSERT_EQ(2 * M / PAGE_SIZE - 1, s.pinned_pages);
	ASSERT_LEAVES(&s, 12, 1, 1, 1, 1, 1, 1, 1, 1, 1);

	/* No unmap covered all of the table, so it stays until a leaf comes */
	test_ioctl_ioas_unmap(BASE_IOVA, 64 * K);
	test_ioctl_ioas_unmap(iova + 4 * K, 2 * M - 68 * K);
	read_one(&s);
	ASSERT_EQ(0, s.mappings);
	ASSERT_EQ(0, s.pinned_pages);
	ASSERT_EQ(3, s.hwpts[0].tables);
	ASSERT_LEAVES(&s, 0, 0);
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       HUGE_SIZE, BASE_IOVA));
	read_one(&s);
	ASSERT_EQ(2, s.hwpts[0].tables);
	ASSERT_LEAVES(&s, 21, 1);
}

/* More tables than one hold of the locks looks at */
TEST_F(iommufd_debugfs, chunks)
{
	/* Each has a table of its own, and all share two tables above */
	unsigned int nr = 1200, i;
	struct summary s;

	for (i = 0; i != nr; i++)
		test_ioctl_ioas_map_fixed(buffer, PAGE_SIZE,
					  BASE_IOVA + i * M + 512 * K);
	read_one(&s);
	ASSERT_EQ(nr, s.mappings);
	ASSERT_EQ(nr * PAGE_SIZE, s.mapped_bytes);
	ASSERT_EQ(nr, s.pinned_pages);
	ASSERT_EQ(1 + DIV_ROUND_UP(BASE_IOVA / M + nr, 512) + nr,
		  s.hwpts[0].tables);
	ASSERT_EQ(nr, s.hwpts[0].leaves[__builtin_ctzl(PAGE_SIZE)]);
	test_ioctl_ioas_unmap(0, UINT64_MAX);
}

/* Without a domain only accesses pin */
TEST_F(iommufd_debugfs, access)
{
	struct iommu_test_cmd pin = {
		.size = sizeof(pin),
		.op = IOMMU_TEST_OP_ACCESS_PAGES,
		.access_pages = { .iova = BASE_IOVA + 4 * PAGE_SIZE,
				  .length = 3 * PAGE_SIZE,
				  .uptr = (uintptr_t)buffer + 4 * PAGE_SIZE },
	};
	uint32_t access_id, ioas_id;
	struct summary s;

	test_ioctl_ioas_alloc(&ioas_id);
	test_ioctl_ioas_map_fixed_id(ioas_id, buffer, BUFFER_SIZE, BASE_IOVA);
	ASSERT_EQ(0, read_summary(self, ioas_id, &s));
	ASSERT_EQ(1, s.mappings);
	ASSERT_EQ(0, s.pinned_pages);
	ASSERT_EQ(0, s.nr_hwpts);

	test_cmd_create_access(ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	pin.id = access_id;
	ASSERT_EQ(0, ioctl(self->fd,
			   _IOMMU_TEST_CMD(IOMMU_TEST_OP_ACCESS_PAGES), &pin));
	ASSERT_EQ(0, read_summary(self, ioas_id, &s));
	ASSERT_EQ(3, s.pinned_pages);

	test_cmd_destroy_access_pages(access_id,
				      pin.access_pages.out_access_pages_id);
	ASSERT_EQ(0, read_summary(self, ioas_id, &s));
	ASSERT_EQ(0, s.pinned_pages);
	test_cmd_destroy_access(access_id);
}

/* A line for each HWPT. Reading keeps none of them, nor the IOAS. */
TEST_F(iommufd_debugfs, lifetime)
{
	uint32_t stdev_id, hwpt_id, idev_id, ioas_id;
	char text[64], other[128];
	struct summary s;
	struct stat st;
	int fd, leaves, second;

	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, BASE_IOVA);
	ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id, &stdev_id,
				       &hwpt_id, &idev_id));
	ASSERT_EQ(0, read_summary(self, self->ioas_id, &s));
	ASSERT_EQ(2, s.nr_hwpts);
	ASSERT_EQ(self->hwpt_id, s.hwpts[0].id);
	ASSERT_EQ(hwpt_id, s.hwpts[1].id);
	ASSERT_EQ(0, memcmp(s.hwpts[0].leaves, s.hwpts[1].leaves,
			    sizeof(s.hwpts[0].leaves)));

	/* For root alone */
	fd = open_file(self, self->ioas_id, "summary");
	ASSERT_NE(-1, fd);
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_EQ(0400, st.st_mode & 0777);
	leaves = open_file(self, self->ioas_id, "leaves");
	if (leaves != -1) {
		ASSERT_EQ(0, fstat(leaves, &st));
		ASSERT_EQ(0400, st.st_mode & 0777);
		ASSERT_LT(0, read(leaves, text, 16));
	}

	test_ioctl_destroy(stdev_id);
	test_ioctl_destroy(hwpt_id);
	if (leaves != -1)
		while (read(leaves, text, sizeof(text)) > 0)
			;
	ASSERT_EQ(0, read_summary(self, self->ioas_id, &s));
	ASSERT_EQ(1, s.nr_hwpts);

	/* Of another IOAS, and of another iommufd */
	test_ioctl_ioas_alloc(&ioas_id);
	ASSERT_EQ(0, read_summary(self, ioas_id, &s));
	ASSERT_EQ(0, s.mappings);
	second = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, second);
	ASSERT_TRUE(find_dir(second, other, sizeof(other)));
	ASSERT_NE(0, strcmp(self->dir, other));
	close(second);
	ASSERT_EQ(-1, access(other, F_OK));

	/* Open files of objects that are gone cannot be read any more */
	test_ioctl_destroy(self->stdev_id);
	test_ioctl_destroy(self->hwpt_id);
	test_ioctl_destroy(self->ioas_id);
	ASSERT_EQ(-1, pread(fd, text, sizeof(text), 0));
	ASSERT_EQ(-1, open_file(self, self->ioas_id, "summary"));
	close(fd);
	if (leaves != -1) {
		ASSERT_EQ(-1, pread(leaves, text, sizeof(text), 0));
		close(leaves);
	}
}

struct reader {
	struct _test_data_iommufd_debugfs *self;
	const char *file;
	uint32_t ioas_id;
	atomic_bool stop;
	unsigned long reads;
};

static void *read_all_the_time(void *arg)
{
	struct reader *reader = arg;
	char text[4096];

	while (!reader->stop) {
		int fd = open_file(reader->self, reader->ioas_id, reader->file);

		if (fd == -1)
			continue;
		while (read(fd, text, sizeof(text)) > 0)
			;
		close(fd);
		reader->reads++;
	}
	return NULL;
}

/* Read while everything changes: nothing may be used after it is freed */
TEST_F_TIMEOUT(iommufd_debugfs, while_it_changes, 120)
{
	struct reader readers[] = {
		{ .self = self, .file = "summary" },
		{ .self = self, .file = "leaves" },
	};
	pthread_t threads[ARRAY_SIZE(readers)];
	unsigned int i, n, seed = 1;
	struct summary s;
	bool listed;
	int fd;

	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       HUGE_SIZE, BASE_IOVA));
	read_one(&s);
	fd = open_file(self, self->ioas_id, "leaves");
	listed = fd != -1;
	close(fd);
	test_ioctl_ioas_unmap(BASE_IOVA, HUGE_SIZE);

	for (i = 0; i != ARRAY_SIZE(readers); i++) {
		readers[i].ioas_id = self->ioas_id;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL,
					    read_all_the_time, &readers[i]));
	}
	for (n = 0; n != 300; n++) {
		uint32_t stdev_id, hwpt_id, idev_id, ioas_id;

		ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
				       HUGE_SIZE, BASE_IOVA));
		for (i = 0; i != 8; i++) {
			unsigned long page = next_random(&seed) % 512;

			test_ioctl_ioas_split(BASE_IOVA + page * 4 * K, 4 * K);
		}
		if (n % 8 == 0) {
			ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id,
						       &stdev_id, &hwpt_id,
						       &idev_id));
			test_ioctl_destroy(stdev_id);
			test_ioctl_destroy(hwpt_id);
		}
		/* An IOAS comes and goes, probably with the ID of the last */
		test_ioctl_ioas_alloc(&ioas_id);
		test_ioctl_destroy(ioas_id);
		test_ioctl_ioas_unmap(BASE_IOVA, HUGE_SIZE);
	}
	/* While they are being read */
	test_ioctl_destroy(self->stdev_id);
	test_ioctl_destroy(self->hwpt_id);
	test_ioctl_destroy(self->ioas_id);
	for (i = 0; i != ARRAY_SIZE(readers); i++) {
		readers[i].stop = true;
		pthread_join(threads[i], NULL);
		if (i == 0 || listed)
			ASSERT_LT(0, readers[i].reads);
	}
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), rc;

	if (fd == -1)
		return -1;
	rc = write(fd, text, strlen(text));
	close(fd);
	return rc < 0 ? -1 : 0;
}

struct event {
	unsigned long iova;
	unsigned long size;
	unsigned int leaves;
	unsigned int tables;
	unsigned int flushes;
	int ret;
};

/*
 * The number of events of that name since the trace was cleared. @event is the
 * last, or NULL if the event has other fields.
 */
static int read_trace(const char *name, struct event *event)
{
	FILE *file = fopen(INSTANCE "/trace", "r");
	int nr = file ? 0 : -1;
	char line[512], what[32];

	snprintf(what, sizeof(what), ": %s: ", name);
	while (file && fgets(line, sizeof(line), file)) {
		char *at = strstr(line, " iova=");

		if (line[0] == '#' || !strstr(line, what) || !at)
			continue;
		if (event &&
		    sscanf(at,
			   " iova=%lx - %*s size=%lu leaves=%u tables=%u flushes=%u ret=%d",
			   &event->iova, &event->size, &event->leaves,
			   &event->tables, &event->flushes, &event->ret) != 6)
			nr = -1000;
		nr++;
	}
	if (file)
		fclose(file);
	return nr;
}

static const char *const trace_switches[] = {
	INSTANCE "/events/iommu/split/enable",
	INSTANCE "/events/iommu/carve/enable",
	INSTANCE "/events/iommu/unmap/enable",
};

#define NO_TRACE \
	"no iommu:split and iommu:carve in tracefs, enable CONFIG_FTRACE and any tracer"

static int trace_stop(void)
{
	unsigned int i;

	for (i = 0; i != ARRAY_SIZE(trace_switches); i++)
		write_text(trace_switches[i], "0");
	return rmdir(INSTANCE);
}

static int trace_clear(void)
{
	int fd = open(INSTANCE "/trace", O_WRONLY | O_TRUNC);

	if (fd == -1)
		return -1;
	return close(fd);
}

/* One flush of one range, whose edges were in so many leaves */
static void check_event(struct __test_metadata *_metadata,
			const struct event *event, unsigned long iova,
			unsigned long size, unsigned int leaves)
{
	EXPECT_EQ(iova, event->iova);
	EXPECT_EQ(size, event->size);
	EXPECT_EQ(leaves, event->leaves);
	EXPECT_EQ(leaves, event->tables);
	EXPECT_EQ(1, event->flushes);
	EXPECT_EQ(0, event->ret);
}

/* False if there is nothing to listen to */
static bool trace_start(void)
{
	unsigned int i;

	mount("tracefs", TRACING, "tracefs", 0, NULL);
	mkdir(INSTANCE, 0700);
	for (i = 0; i != ARRAY_SIZE(trace_switches); i++)
		if (write_text(trace_switches[i], "1"))
			break;
	if (i == ARRAY_SIZE(trace_switches) && !trace_clear())
		return true;
	trace_stop();
	return false;
}

/* The tracepoint tells what a split did */
TEST_F(iommufd_debugfs, trace)
{
	struct event event;

	if (!trace_start())
		SKIP(return, NO_TRACE);
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       HUGE_SIZE, BASE_IOVA));

	/* Both edges in one leaf */
	test_ioctl_ioas_split(BASE_IOVA + 64 * K, 4 * K);
	ASSERT_EQ(1, read_trace("split", &event));
	check_event(_metadata, &event, BASE_IOVA + 64 * K, 4 * K, 1);

	/* Two mappings are cut, at their ends nothing is left to do */
	test_ioctl_ioas_split(BASE_IOVA + 32 * K, 1536 * K - 32 * K);
	ASSERT_EQ(3, read_trace("split", &event));
	check_event(_metadata, &event, BASE_IOVA + 68 * K,
		    1536 * K - 68 * K, 1);
	test_ioctl_ioas_unmap(BASE_IOVA, HUGE_SIZE);

	/* One mapping of two leaves of 1M */
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       HUGE_SIZE, BASE_IOVA + M));
	test_ioctl_ioas_split(BASE_IOVA + M + 512 * K, M);
	ASSERT_EQ(4, read_trace("split", &event));
	check_event(_metadata, &event, BASE_IOVA + M + 512 * K, M, 2);

	/* Where mappings end already nothing is split. Nothing was a carve */
	test_ioctl_ioas_split(BASE_IOVA + M + 512 * K, M);
	test_ioctl_ioas_split(BASE_IOVA + M, HUGE_SIZE);
	ASSERT_EQ(4, read_trace("split", &event));
	ASSERT_EQ(0, read_trace("carve", &event));
	ASSERT_EQ(0, trace_stop());
}

/* The same of a carve, which is never a split, and not always an iommu:carve */
TEST_F(iommufd_debugfs, trace_carve)
{
	uint32_t stdev_id, hwpt_id, idev_id;
	struct event event;

	if (!trace_start())
		SKIP(return, NO_TRACE);
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 0,
			       HUGE_SIZE, BASE_IOVA));

	/* Both edges in one leaf */
	test_ioctl_ioas_carve(BASE_IOVA + 64 * K, 4 * K);
	ASSERT_EQ(1, read_trace("carve", &event));
	check_event(_metadata, &event, BASE_IOVA + 64 * K, 4 * K, 1);
	EXPECT_EQ(1, read_trace("unmap", NULL));

	/* The end of one mapping, the start of another, and one as a whole */
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 64 * K,
			       4 * K, BASE_IOVA + 64 * K));
	ASSERT_EQ(0, trace_clear());
	test_ioctl_ioas_carve(BASE_IOVA + 32 * K, 1536 * K - 32 * K);
	ASSERT_EQ(2, read_trace("carve", &event));
	EXPECT_EQ(BASE_IOVA + 68 * K, event.iova);
	EXPECT_EQ(1536 * K - 68 * K, event.size);
	EXPECT_EQ(1, event.flushes);
	EXPECT_EQ(0, event.ret);
	EXPECT_EQ(3, read_trace("unmap", NULL));

	/* Whole mappings only, and a cut that no leaf reaches across */
	ASSERT_EQ(0, trace_clear());
	test_ioctl_ioas_carve(BASE_IOVA, 32 * K);
	EXPECT_EQ(1, read_trace("unmap", NULL));
	ASSERT_EQ(0, map_block(self->fd, self->ioas_id, &self->block, 4 * K,
			       8 * K, BASE_IOVA + 4 * K));
	test_ioctl_ioas_carve(BASE_IOVA + 4 * K, 4 * K);
	EXPECT_EQ(2, read_trace("unmap", NULL));
	EXPECT_EQ(0, read_trace("carve", &event));

	/* Each domain has its own event */
	ASSERT_EQ(0, attach_own_domain(self->fd, self->ioas_id, &stdev_id,
				       &hwpt_id, &idev_id));
	ASSERT_EQ(0, trace_clear());
	test_ioctl_ioas_carve(BASE_IOVA + 1792 * K, 4 * K);
	EXPECT_EQ(2, read_trace("carve", &event));
	EXPECT_EQ(BASE_IOVA + 1792 * K, event.iova);
	EXPECT_EQ(4 * K, event.size);
	EXPECT_EQ(1, event.flushes);

	EXPECT_EQ(0, read_trace("split", &event));
	ASSERT_EQ(0, trace_stop());
}

int main(int argc, char **argv)
{
	skip_without_split();
	return test_harness_run(argc, argv);
}
