// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOMMU_IOAS_SPLIT while other threads map, unmap, copy, attach and split too.
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
	test_cmd_mock_domain(self->ioas_id, &self->stdev_id, NULL,
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
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = {};
	struct slow_map map = { .fd = self->fd,
				.ioas_id = self->ioas_id,
				.iova = BASE_IOVA + BUFFER_SIZE };
	struct pollfd pollfd = { .events = POLLIN };
	pthread_t thread;
	int uffd;

	uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd == -1 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd, enable CONFIG_USERFAULTFD");
	map.ptr = mmap(NULL, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map.ptr);
	reg.range.start = (uintptr_t)map.ptr;
	reg.range.len = 4 * PAGE_SIZE;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));

	map_buffer();
	ASSERT_EQ(0, pthread_create(&thread, NULL, slow_map_thread, &map));
	/* The map waits for its first page now */
	pollfd.fd = uffd;
	ASSERT_EQ(1, poll(&pollfd, 1, 10000));

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
	test_ioctl_ioas_split(BASE_IOVA + PAGE_SIZE, PAGE_SIZE);

	zero.range = reg.range;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, map.rc);
	test_ioctl_ioas_split(map.iova + PAGE_SIZE, PAGE_SIZE);
	test_ioctl_ioas_unmap(BASE_IOVA, BUFFER_SIZE + 4 * PAGE_SIZE);
	close(uffd);
}

enum { STRESS_SECONDS = 2, STRESS_THREADS = 7 };

/* Stays mapped: the threads leave it alone */
#define KEPT_IOVA (BASE_IOVA + (1UL << 30))

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
	me->fills++;

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
	unsigned long splits = 0, carves = 0, fills = 0;
	__u32 copy_ioas_id;
	uint64_t rest = 0;
	unsigned int i;

	test_ioctl_ioas_alloc(&copy_ioas_id);
	map_buffer();
	test_ioctl_ioas_map_fixed(buffer, BUFFER_SIZE, KEPT_IOVA);
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
		fills += stress[i].fills;
	}
	/* It did happen */
	ASSERT_LT(100, splits);
	ASSERT_LT(100, carves);
	ASSERT_LT(10, fills);
	ASSERT_LT(2 * BUFFER_SIZE, mapped);
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
