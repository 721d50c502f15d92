// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_IOAS_SPLIT and IOMMU_IOAS_JOIN while other threads map, unmap, copy,
 * attach, split and join too.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <linux/userfaultfd.h>

#include "iommufd_split_utils.h"

FIXTURE(iommufd_split_threads)
{
	int fd;
	uint32_t ioas_id;
	uint32_t stdev_id;
	uint32_t idev_id;
	uint32_t hwpt_id;
};

FIXTURE_VARIANT(iommufd_split_threads)
{
	bool large;
};

FIXTURE_SETUP(iommufd_split_threads)
{
	uint32_t caps = 0;

	/* Teardown is run after a skip too */
	memset(self, 0, sizeof(*self));
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
	if (!variant->large)
		ASSERT_EQ(0, set_huge_pages(self->fd, self->ioas_id, false));
	test_cmd_mock_domain(self->ioas_id, &self->stdev_id, &self->hwpt_id,
			     &self->idev_id);
	test_cmd_get_hw_capabilities(self->idev_id, caps);
	if (variant->large && !(caps & IOMMU_HW_CAP_HITLESS_SPLIT))
		SKIP(return, NO_LARGE_SPLIT);
}

FIXTURE_TEARDOWN(iommufd_split_threads)
{
	teardown_iommufd(self->fd, _metadata);
}

/* clang-format off */
FIXTURE_VARIANT_ADD(iommufd_split_threads, small) { .large = false };
FIXTURE_VARIANT_ADD(iommufd_split_threads, large) { .large = true };
/* clang-format on */

#define map_buffer() \
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, BASE_IOVA)

/* Pages that are missing until a test gives them: who wants one has to wait */
struct missing {
	int uffd;
	struct uffdio_range range;
};

#define NO_USERFAULTFD "no userfaultfd, enable CONFIG_USERFAULTFD"

static int missing_open(struct missing *missing)
{
	struct uffdio_api api = { .api = UFFD_API };

	missing->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (missing->uffd == -1)
		return -1;
	return ioctl(missing->uffd, UFFDIO_API, &api);
}

static int missing_set(struct missing *missing, void *ptr, size_t length)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)ptr, .len = length },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	missing->range = reg.range;
	return ioctl(missing->uffd, UFFDIO_REGISTER, &reg);
}

/* 1 if somebody waits for one of them */
static int missing_wait(struct missing *missing)
{
	struct pollfd pollfd = { .fd = missing->uffd, .events = POLLIN };

	return poll(&pollfd, 1, 10000);
}

static int missing_give(struct missing *missing)
{
	struct uffdio_zeropage zero = { .range = missing->range };

	return ioctl(missing->uffd, UFFDIO_ZEROPAGE, &zero);
}

struct slow_map {
	int fd;
	__u32 ioas_id;
	void *ptr;
	__u64 iova;
	int rc;
};

static void *slow_map_thread(void *arg)
{
	struct slow_map *map = arg;

	map->rc = _test_ioctl_ioas_map(map->fd, map->ioas_id, map->ptr,
				       4 * PAGE_SIZE, &map->iova,
				       IOMMU_IOAS_MAP_FIXED_IOVA |
					       IOMMU_IOAS_MAP_WRITEABLE |
					       IOMMU_IOAS_MAP_READABLE);
	return NULL;
}

/* A mapping that is still being made is busy, its neighbours are not */
TEST_F(iommufd_split_threads, in_flight)
{
	struct missing missing;
	struct slow_map map = { .fd = self->fd,
				.ioas_id = self->ioas_id,
				.iova = BASE_IOVA + BUFFER_SIZE };
	unsigned int flags;
	pthread_t thread;

	if (missing_open(&missing))
		SKIP(return, NO_USERFAULTFD);
	map.ptr = mmap(NULL, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map.ptr);
	ASSERT_EQ(0, missing_set(&missing, map.ptr, 4 * PAGE_SIZE));

	map_buffer();
	ASSERT_EQ(0, pthread_create(&thread, NULL, slow_map_thread, &map));
	/* The map waits for its first page now */
	ASSERT_EQ(1, missing_wait(&missing));

	test_err_ioctl_ioas_split(EBUSY, map.iova + PAGE_SIZE, PAGE_SIZE);
	test_err_ioctl_ioas_split(EBUSY, map.iova, 4 * PAGE_SIZE);
	test_err_ioctl_ioas_split(EBUSY, map.iova - PAGE_SIZE, 2 * PAGE_SIZE);
	test_err_ioctl_ioas_carve(EBUSY, map.iova + PAGE_SIZE, PAGE_SIZE);
	test_err_ioctl_ioas_carve(EBUSY, map.iova, 4 * PAGE_SIZE);
	test_err_ioctl_ioas_carve(EBUSY, map.iova - PAGE_SIZE, 2 * PAGE_SIZE);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
				   map.iova - PAGE_SIZE));
	/* A hole is reported before what is busy */
	test_err_ioctl_ioas_split(ENOENT, map.iova, 5 * PAGE_SIZE);
	test_err_ioctl_ioas_join(ENOENT, 0, map.iova, 5 * PAGE_SIZE);
	test_err_ioctl_ioas_join(EBUSY, IOMMU_IOAS_JOIN_FILL, map.iova,
				 5 * PAGE_SIZE);
	for (flags = 0; flags <= IOMMU_IOAS_JOIN_FILL; flags++) {
		test_err_ioctl_ioas_join(EBUSY, flags, map.iova, PAGE_SIZE);
		test_err_ioctl_ioas_join(EBUSY, flags, map.iova - PAGE_SIZE,
					 2 * PAGE_SIZE);
	}
	test_ioctl_ioas_split(BASE_IOVA + PAGE_SIZE, PAGE_SIZE);
	/* Beside a range it stays what it is, and no hole is filled from it */
	test_ioctl_ioas_carve(map.iova - PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, map.iova - PAGE_SIZE,
			     PAGE_SIZE);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id,
				   BASE_IOVA + 2 * PAGE_SIZE,
				   map.iova - PAGE_SIZE));

	ASSERT_EQ(0, missing_give(&missing));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, map.rc);
	test_ioctl_ioas_split(map.iova + PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE + 4 * PAGE_SIZE);
	close(missing.uffd);
}

struct slow_join {
	int fd;
	__u32 ioas_id;
	__u64 iova;
	__u64 length;
	int err;
};

static void *slow_join_thread(void *arg)
{
	struct slow_join *join = arg;
	int rc;

	rc = _test_ioctl_ioas_join(join->fd, join->ioas_id, IOMMU_IOAS_JOIN_FILL,
				   join->iova, join->length);
	join->err = rc ? errno : 0;
	return NULL;
}

/*
 * While a hole is being filled it is busy, and nothing else is that has other
 * pages. If a part of the range goes meanwhile, the call undoes what it has done.
 */
TEST_F(iommufd_split_threads, fill_in_flight)
{
	const size_t length = 8 * PAGE_SIZE, hole = length - PAGE_SIZE;
	const __u64 other = BASE_IOVA + length;
	struct missing missing;
	/* The hole, and a part of what is behind it */
	struct slow_join join = { .fd = self->fd,
				  .ioas_id = self->ioas_id,
				  .iova = BASE_IOVA + PAGE_SIZE,
				  .length = 11 * PAGE_SIZE };
	struct uffd_msg msg;
	unsigned int round;
	pthread_t thread;
	void *ptr;

	if (missing_open(&missing))
		SKIP(return, NO_USERFAULTFD);
	ptr = mmap(NULL, length, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	ASSERT_EQ(0, missing_set(&missing, ptr + hole, PAGE_SIZE));
	test_ioctl_ioas_map_fixed(ptr, length, BASE_IOVA);
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, other);

	for (round = 0; round != 2; round++) {
		test_ioctl_ioas_carve(BASE_IOVA + hole, PAGE_SIZE);
		ASSERT_EQ(0, madvise(ptr + hole, PAGE_SIZE, MADV_DONTNEED));
		ASSERT_EQ(0, pthread_create(&thread, NULL, slow_join_thread,
					    &join));
		/* It waits for the page now */
		ASSERT_EQ(1, missing_wait(&missing));
		ASSERT_EQ(sizeof(msg), read(missing.uffd, &msg, sizeof(msg)));

		test_err_ioctl_ioas_join(EBUSY, IOMMU_IOAS_JOIN_FILL,
					 BASE_IOVA + hole, PAGE_SIZE);
		test_err_ioctl_ioas_join(EBUSY, 0, BASE_IOVA, 2 * length);
		test_err_ioctl_ioas_split(EBUSY, BASE_IOVA + hole, PAGE_SIZE);
		test_err_ioctl_ioas_carve(EBUSY, BASE_IOVA + hole, PAGE_SIZE);
		EXPECT_ERRNO(EBUSY,
			     _test_ioctl_ioas_unmap(self->fd, self->ioas_id,
						    BASE_IOVA + hole, PAGE_SIZE,
						    NULL));
		/* The hole beside it is filled from what is behind both */
		test_ioctl_ioas_carve(other, PAGE_SIZE);
		test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, other, PAGE_SIZE);
		/* Behind its range, or the second time in it */
		test_ioctl_ioas_carve(other + (round ? 2 : 12) * PAGE_SIZE,
				      PAGE_SIZE);

		ASSERT_EQ(0, missing_give(&missing));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(round ? EBUSY : 0, join.err);
		if (round) {
			/* Neither mapped nor pinned */
			test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA + hole,
						 PAGE_SIZE);
			check_refs(ptr + hole, PAGE_SIZE, 0);
		}
		test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				     length + BUFFER_SIZE);
		ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, BASE_IOVA,
				       length, ptr));
		ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, other,
				       BUFFER_SIZE, buffer));
		ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
					   BASE_IOVA + hole));
		ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, other,
					   other + PAGE_SIZE));
		check_refs(ptr, length, 1);
		check_refs(buffer, BUFFER_SIZE, 1);
	}
	test_ioctl_ioas_unmap(BASE_IOVA, length);
	test_ioctl_ioas_unmap(other, BUFFER_SIZE);
	check_refs(ptr, length, 0);
	munmap(ptr, length);
	close(missing.uffd);
}

struct pin_of_hole {
	int fd;
	__u32 access_id;
	__u64 iova;
	/* To compare with: it is not there yet, and will be other memory */
	void *ptr;
	int err;
};

static void *pin_thread(void *arg)
{
	struct pin_of_hole *pin = arg;
	__u32 pages_id;
	int rc;

	rc = pin_pages(pin->fd, pin->access_id, pin->iova, PAGE_SIZE, pin->ptr,
		       &pages_id);
	pin->err = rc ? errno : 0;
	return NULL;
}

struct slow_unmap {
	int fd;
	__u32 ioas_id;
	__u64 iova;
	__u64 length;
	uint64_t unmapped;
	int rc;
};

static void *slow_unmap_thread(void *arg)
{
	struct slow_unmap *unmap = arg;

	unmap->rc = _test_ioctl_ioas_unmap(unmap->fd, unmap->ioas_id,
					   unmap->iova, unmap->length,
					   &unmap->unmapped);
	return NULL;
}

/* Wait for an unmap to say that a mapping is not to be used any more */
static int wait_until_marked(int fd, __u32 access_id, __u64 iova)
{
	uint8_t byte;
	struct iommu_test_cmd rw = {
		.op = IOMMU_TEST_OP_ACCESS_RW,
		.id = access_id,
		.access_rw = { .iova = iova,
			       .length = 1,
			       .uptr = (uintptr_t)&byte },
	};
	unsigned int i;

	for (i = 0; i != 10000; i++) {
		if (mock_cmd(fd, &rw))
			return errno == EINVAL ? 0 : -1;
		usleep(1000);
	}
	return -1;
}

/*
 * An unmap asks one user after the other to let go. The first one does not
 * answer: it is about to pin something else, and waits for memory to compare it
 * with. As long as another one has its pin a join is refused. Without pins the
 * unmap is still to find what it left, so that stays apart.
 */
TEST_F(iommufd_split_threads, unmap_waits)
{
	const __u64 going = BASE_IOVA + 4 * PAGE_SIZE;
	const size_t length = 4 * PAGE_SIZE;
	struct missing missing;
	struct pin_of_hole pin = { .fd = self->fd,
				   .iova = BASE_IOVA + 12 * PAGE_SIZE };
	struct slow_unmap unmap = { .fd = self->fd,
				    .ioas_id = self->ioas_id,
				    .iova = going,
				    .length = length };
	pthread_t pinner, unmapper;
	__u32 access_id, pages_id;
	unsigned int flags;

	if (missing_open(&missing))
		SKIP(return, NO_USERFAULTFD);
	pin.ptr = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pin.ptr);
	ASSERT_EQ(0, missing_set(&missing, pin.ptr, PAGE_SIZE));

	map_buffer();
	test_ioctl_ioas_split(going, length);
	/* In the order in which they are asked */
	test_cmd_create_access(self->ioas_id, &pin.access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	test_cmd_create_access(self->ioas_id, &access_id,
			       MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
	ASSERT_EQ(0, pin_pages(self->fd, access_id, going + PAGE_SIZE,
			       PAGE_SIZE, buffer + 5 * PAGE_SIZE, &pages_id));
	ASSERT_EQ(0, pthread_create(&pinner, NULL, pin_thread, &pin));
	/* It waits for the page now */
	ASSERT_EQ(1, missing_wait(&missing));
	ASSERT_EQ(0,
		  pthread_create(&unmapper, NULL, slow_unmap_thread, &unmap));
	ASSERT_EQ(0, wait_until_marked(self->fd, access_id, going));

	for (flags = 0; flags <= IOMMU_IOAS_JOIN_FILL; flags++) {
		test_err_ioctl_ioas_join(EBUSY, flags, going, length);
		test_err_ioctl_ioas_join(EBUSY, flags, going - PAGE_SIZE,
					 2 * PAGE_SIZE);
		test_err_ioctl_ioas_join(EBUSY, flags, BASE_IOVA, BUFFER_SIZE);
		/* Beside the range it stays apart */
		test_ioctl_ioas_join(flags, going - PAGE_SIZE, PAGE_SIZE);
		test_ioctl_ioas_join(flags, going + length, PAGE_SIZE);
	}
	/* Nor is a hole filled then that could be */
	test_ioctl_ioas_carve(BASE_IOVA, PAGE_SIZE);
	test_err_ioctl_ioas_join(EBUSY, IOMMU_IOAS_JOIN_FILL, BASE_IOVA,
				 BUFFER_SIZE);
	test_err_ioctl_ioas_join(ENOENT, 0, BASE_IOVA, PAGE_SIZE);
	check_refs(buffer, PAGE_SIZE, 0);

	test_cmd_destroy_access_pages(access_id, pages_id);
	test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, BASE_IOVA, BUFFER_SIZE);
	test_ioctl_ioas_join(0, going, length);

	/* Nobody pins it, so the unmap goes on, with the mapping that it had */
	ASSERT_EQ(0, missing_give(&missing));
	ASSERT_EQ(0, pthread_join(pinner, NULL));
	ASSERT_EQ(EBADE, pin.err);
	ASSERT_EQ(0, pthread_join(unmapper, NULL));
	ASSERT_EQ(0, unmap.rc);
	ASSERT_EQ(length, unmap.unmapped);
	ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, BASE_IOVA,
			       going - BASE_IOVA, buffer));
	check_refs(buffer + (going - BASE_IOVA), length, 0);

	/* Then it is a hole as any other */
	test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, going, length);
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA, going));
	ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, BASE_IOVA,
				   going + length));
	ASSERT_EQ(0, check_map(self->fd, self->hwpt_id, BASE_IOVA, BUFFER_SIZE,
			       buffer));
	check_refs(buffer, BUFFER_SIZE, 1);
	test_cmd_destroy_access(pin.access_id);
	test_cmd_destroy_access(access_id);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE);
	munmap(pin.ptr, PAGE_SIZE);
	close(missing.uffd);
}

enum { STRESS_SECONDS = 3, STRESS_THREADS = 12 };

/* Stays mapped: the threads leave it alone */
#define KEPT_IOVA (BASE_IOVA + (1UL << 30))

/*
 * Carved and filled again: nobody else maps or unmaps there. The first page stays
 * mapped, so that there always is something to fill a hole from.
 */
#define FILL_IOVA (BASE_IOVA + (3UL << 29))

struct stress {
	int fd;
	__u32 ioas_id;
	__u32 copy_ioas_id;
	__u32 stdev_id;
	__u32 idev_id;
	unsigned int index;
	bool *stop;
	/* What the kernel said, in bytes and in calls */
	size_t mapped;
	size_t unmapped;
	unsigned long calls;
	unsigned long splits;
	unsigned long carves;
	unsigned long attaches;
	unsigned long joins;
	/* In bytes, where holes are filled again */
	size_t carved;
	unsigned long fills;
	/* An errno that no one may see, 0 if there was none */
	int unexpected;
};

static void stress_expect(struct stress *me, int rc, int busy, int none)
{
	me->calls++;
	if (rc && errno != busy && errno != none)
		me->unexpected = errno;
}

/*
 * A new domain is filled with all that is mapped. The device moves to it, and
 * the one that it was attached to goes: whoever reads PFNs finds them in the new
 * one now. Back in the IOAS a domain is made and filled for the device, and then
 * it is the other one that goes.
 */
static void stress_attach(struct stress *me)
{
	__u32 hwpt_id;
	int rc;

	rc = _test_cmd_hwpt_alloc(me->fd, me->idev_id, me->ioas_id, 0, 0,
				  &hwpt_id, IOMMU_HWPT_DATA_NONE, NULL, 0);
	stress_expect(me, rc, 0, 0);
	if (rc)
		return;
	if (check_map(me->fd, hwpt_id, KEPT_IOVA, BUFFER_SIZE, buffer)) {
		me->unexpected = ENXIO;
		return;
	}
	me->attaches++;

	if (_test_cmd_mock_domain_replace(me->fd, me->stdev_id, hwpt_id,
					  NULL) ||
	    _test_cmd_mock_domain_replace(me->fd, me->stdev_id, me->ioas_id,
					  NULL) ||
	    _test_ioctl_destroy(me->fd, hwpt_id))
		me->unexpected = errno;
}

static void *stress_thread(void *arg)
{
	struct stress *me = arg;
	const unsigned int flags = IOMMU_IOAS_MAP_FIXED_IOVA |
				   IOMMU_IOAS_MAP_WRITEABLE |
				   IOMMU_IOAS_MAP_READABLE;
	unsigned int seed = me->index + 1;

	while (!__atomic_load_n(me->stop, __ATOMIC_RELAXED)) {
		unsigned int first = rand_r(&seed) % NPAGES;
		unsigned int count = 1 + rand_r(&seed) % (NPAGES - first);
		__u64 iova = BASE_IOVA + first * PAGE_SIZE;
		uint64_t unmapped = 0;
		int rc;

		switch (me->index) {
		case 0: /* map */
			rc = _test_ioctl_ioas_map(me->fd, me->ioas_id,
						  buffer + first * PAGE_SIZE,
						  count * PAGE_SIZE, &iova,
						  flags);
			stress_expect(me, rc, EEXIST, EADDRINUSE);
			me->mapped += rc ? 0 : count * PAGE_SIZE;
			break;
		case 1: /* unmap a page, which is refused in a larger area */
			rc = _test_ioctl_ioas_unmap(me->fd, me->ioas_id, iova,
						    PAGE_SIZE, &unmapped);
			stress_expect(me, rc, EBUSY, ENOENT);
			me->unmapped += rc ? 0 : unmapped;
			if (!rc && unmapped != PAGE_SIZE)
				me->unexpected = ERANGE;
			break;
		case 2: /* attach and detach */
			stress_attach(me);
			break;
		case 3: /* share the pages with another IOAS */
		{
			struct iommu_ioas_copy copy = {
				.size = sizeof(copy),
				.flags = flags,
				.src_ioas_id = me->ioas_id,
				.dst_ioas_id = me->copy_ioas_id,
				.src_iova = iova,
				.dst_iova = iova,
				.length = count * PAGE_SIZE,
			};

			rc = ioctl(me->fd, IOMMU_IOAS_COPY, &copy);
			stress_expect(me, rc, EEXIST, ENOENT);
			rc = _test_ioctl_ioas_unmap(me->fd, me->copy_ioas_id, 0,
						    UINT64_MAX, NULL);
			stress_expect(me, rc, 0, 0);
			break;
		}
		case 4: /* carve: what was mapped goes, or nothing does */
			rc = _test_ioctl_ioas_carve(me->fd, me->ioas_id, iova,
						    count * PAGE_SIZE);
			stress_expect(me, rc, EBUSY, ENOENT);
			me->unmapped += rc ? 0 : count * PAGE_SIZE;
			me->carves += !rc;
			break;
		case 5: /* join what the others have cut */
		case 6:
			rc = _test_ioctl_ioas_join(me->fd, me->ioas_id, 0, iova,
						   count * PAGE_SIZE);
			stress_expect(me, rc, EBUSY, ENOENT);
			me->joins += !rc;
			break;
		case 7: /* carve what the next two fill */
			iova += FILL_IOVA - BASE_IOVA;
			if (!first)
				break;
			rc = _test_ioctl_ioas_carve(me->fd, me->ioas_id, iova,
						    count * PAGE_SIZE);
			stress_expect(me, rc, EBUSY, ENOENT);
			me->carved += rc ? 0 : count * PAGE_SIZE;
			break;
		case 8: /* fill: there always is something to fill from */
		case 9:
			iova += FILL_IOVA - BASE_IOVA;
			rc = _test_ioctl_ioas_join(me->fd, me->ioas_id,
						   IOMMU_IOAS_JOIN_FILL, iova,
						   count * PAGE_SIZE);
			stress_expect(me, rc, EBUSY, 0);
			me->fills += !rc;
			break;
		default: /* split */
			rc = _test_ioctl_ioas_split(me->fd, me->ioas_id, iova,
						    count * PAGE_SIZE);
			stress_expect(me, rc, EBUSY, ENOENT);
			me->splits += !rc;
			break;
		}
	}
	return NULL;
}

/* Everybody at once: only errors that make sense, and not a byte gets lost */
TEST_F(iommufd_split_threads, stress)
{
	struct stress stress[STRESS_THREADS] = {};
	pthread_t threads[STRESS_THREADS];
	bool stop = false;
	size_t mapped, unmapped;
	unsigned long splits = 0, carves = 0, attaches = 0, joins = 0;
	unsigned long fills = 0;
	size_t carved = 0;
	__u32 copy_ioas_id, hwpt_id;
	uint64_t rest = 0;
	unsigned int i;
	int rc;

	test_ioctl_ioas_alloc(&copy_ioas_id);
	map_buffer();
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, KEPT_IOVA);
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, FILL_IOVA);
	for (i = 0; i != STRESS_THREADS; i++) {
		stress[i] = (struct stress){ .fd = self->fd,
					     .ioas_id = self->ioas_id,
					     .copy_ioas_id = copy_ioas_id,
					     .stdev_id = self->stdev_id,
					     .idev_id = self->idev_id,
					     .index = i,
					     .stop = &stop };
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, stress_thread,
					    &stress[i]));
	}
	sleep(STRESS_SECONDS);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	mapped = 2 * BUFFER_SIZE;
	unmapped = 0;
	for (i = 0; i != STRESS_THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		ASSERT_EQ(0, stress[i].unexpected) {
			TH_LOG("thread %u: %s", i,
			       strerror(stress[i].unexpected));
		}
		mapped += stress[i].mapped;
		unmapped += stress[i].unmapped;
		splits += stress[i].splits;
		carves += stress[i].carves;
		attaches += stress[i].attaches;
		joins += stress[i].joins;
		carved += stress[i].carved;
		fills += stress[i].fills;
	}
	/* It did happen */
	ASSERT_LT(100, splits);
	ASSERT_LT(100, carves);
	ASSERT_LT(10, attaches);
	ASSERT_LT(100, joins);
	ASSERT_LT(100, fills);
	ASSERT_LT(2 * BUFFER_SIZE, mapped);
	/* More than there is: what was carved was filled before */
	ASSERT_LT(BUFFER_SIZE, carved);

	/* All of it comes back as one mapping */
	test_ioctl_ioas_join(IOMMU_IOAS_JOIN_FILL, FILL_IOVA, BUFFER_SIZE);
	for (i = 1; i != NPAGES; i++)
		ASSERT_EQ(0, check_not_cut(self->fd, self->ioas_id, FILL_IOVA,
					   FILL_IOVA + i * PAGE_SIZE));
	rc = _test_cmd_hwpt_alloc(self->fd, self->idev_id, self->ioas_id, 0, 0,
				  &hwpt_id, IOMMU_HWPT_DATA_NONE, NULL, 0);
	ASSERT_EQ(0, rc);
	ASSERT_EQ(0, check_map(self->fd, hwpt_id, FILL_IOVA, BUFFER_SIZE,
			       buffer));
	test_ioctl_destroy(hwpt_id);
	test_ioctl_ioas_unmap(FILL_IOVA, BUFFER_SIZE);
	if (_test_ioctl_ioas_unmap(self->fd, self->ioas_id, 0, UINT64_MAX,
				   &rest))
		ASSERT_EQ(ENOENT, errno);
	ASSERT_EQ(mapped, unmapped + rest);
	check_refs(buffer, BUFFER_SIZE, 0);
}

int main(int argc, char **argv)
{
	skip_without_split();
	return test_harness_run(argc, argv);
}
