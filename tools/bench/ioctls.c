// SPDX-License-Identifier: GPL-2.0-only
/*
 * ioctls MODE CDEV...: a hole in a mapping at the ioctls of iommufd, on devices
 * of /dev/vfio/devices. Memory is one huge page of 1G, mapped as often as needed.
 *
 *   cost     one hole by SPLIT + UNMAP, by one call, and by UNMAP of what was
 *            mapped alone, with 1, 2, 4, ... domains
 *            "ioctl: ROUND DOMAINS UNITS OPERATION"
 *   once     the same, few times and with marks for the tracer around each
 *            "ioctls: DOMAINS OPERATION"
 *   threads  holes that 1, 2 and 4 threads carve and map again, in one IOAS and
 *            in one for each thread
 *            "threads: ROUND THREADS IOASES HOLES NS"
 *
 * Units are of the cycle counter: instructions, in an emulator that counts one
 * for each. Round 0 warms up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/memfd.h>
#include <linux/vfio.h>

enum {
	MAX_DEVICES = 8,
	ROUNDS = 12,
	MAX_THREADS = 4,
	/* A thread has BLOCKS mappings of 1G, and a hole in each 2M */
	BLOCKS = 2,
	HOLES = BLOCKS * 512,
};

#define SZ_4K 0x1000ULL
#define SZ_2M 0x200000ULL
#define SZ_1G 0x40000000ULL
#define BASE (4 * SZ_1G)

struct device {
	int fd;
	uint32_t id;
};

/* An IOAS with a HWPT for each of its devices */
struct space {
	uint32_t ioas;
	unsigned int num_hwpts;
	uint32_t hwpts[MAX_DEVICES];
	struct device *devices;
};

static int iommufd;
static int memory_fd;
static int marker = -1;
static struct device devices[MAX_DEVICES];
static unsigned int num_devices;

static void fail(const char *what)
{
	printf("ioctls: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void check(int ret, const char *what)
{
	if (ret < 0)
		fail(what);
}

static void mark(const char *format, ...)
{
	va_list args;

	if (marker < 0)
		return;
	va_start(args, format);
	vdprintf(marker, format, args);
	va_end(args);
}

static void open_device(const char *name)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.iommufd = iommufd,
	};
	struct device *device = &devices[num_devices++];
	char path[256];

	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", name);
	device->fd = open(path, O_RDWR);
	check(device->fd, path);
	check(ioctl(device->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind),
	      "VFIO_DEVICE_BIND_IOMMUFD");
	device->id = bind.out_devid;
}

static void destroy(uint32_t id)
{
	struct iommu_destroy cmd = { .size = sizeof(cmd), .id = id };

	check(ioctl(iommufd, IOMMU_DESTROY, &cmd), "IOMMU_DESTROY");
}

static void space_init(struct space *space, unsigned int domains,
		       struct device *first)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	unsigned int i;

	check(ioctl(iommufd, IOMMU_IOAS_ALLOC, &alloc), "IOMMU_IOAS_ALLOC");
	*space = (struct space){
		.ioas = alloc.out_ioas_id,
		.num_hwpts = domains,
		.devices = first,
	};
	for (i = 0; i != domains; i++) {
		struct iommu_hwpt_alloc hwpt = {
			.size = sizeof(hwpt),
			.dev_id = first[i].id,
			.pt_id = space->ioas,
		};
		struct vfio_device_attach_iommufd_pt attach = {
			.argsz = sizeof(attach),
		};

		check(ioctl(iommufd, IOMMU_HWPT_ALLOC, &hwpt),
		      "IOMMU_HWPT_ALLOC");
		space->hwpts[i] = hwpt.out_hwpt_id;
		attach.pt_id = space->hwpts[i];
		check(ioctl(first[i].fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT,
			    &attach), "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
	}
}

static void space_free(struct space *space)
{
	unsigned int i;

	for (i = 0; i != space->num_hwpts; i++) {
		struct vfio_device_detach_iommufd_pt detach = {
			.argsz = sizeof(detach),
		};

		check(ioctl(space->devices[i].fd, VFIO_DEVICE_DETACH_IOMMUFD_PT,
			    &detach), "VFIO_DEVICE_DETACH_IOMMUFD_PT");
		destroy(space->hwpts[i]);
	}
	destroy(space->ioas);
}

/* @iova has the same place in a page of 1G as what it is mapped to */
static void map(uint32_t ioas, uint64_t iova, uint64_t length)
{
	struct iommu_ioas_map_file cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = ioas,
		.fd = memory_fd,
		.start = iova % SZ_1G,
		.length = length,
		.iova = iova,
	};

	if (length)
		check(ioctl(iommufd, IOMMU_IOAS_MAP_FILE, &cmd),
		      "IOMMU_IOAS_MAP_FILE");
}

static void cut(uint32_t ioas, uint64_t iova, uint64_t length,
		uint32_t flags)
{
	struct iommu_ioas_split cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.ioas_id = ioas,
		.iova = iova,
		.length = length,
	};

	check(ioctl(iommufd, IOMMU_IOAS_SPLIT, &cmd), "IOMMU_IOAS_SPLIT");
}

static void unmap(uint32_t ioas, uint64_t iova, uint64_t length)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas,
		.iova = iova,
		.length = length,
	};

	check(ioctl(iommufd, IOMMU_IOAS_UNMAP, &cmd), "IOMMU_IOAS_UNMAP");
}

static uint64_t cycles(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* A hole at @offset of a mapping of @leaf bytes that is one leaf */
struct hole {
	const char *name;
	uint64_t leaf, offset, length;
};

static const struct hole holes[] = {
	{ "2M out of 1G", SZ_1G, SZ_1G / 2, SZ_2M },
	{ "4K out of 2M", SZ_2M, SZ_2M / 2, SZ_4K },
	{ "4K out of 1G", SZ_1G, SZ_1G / 2, SZ_4K },
};

enum way { SPLIT_UNMAP, CARVE, ALONE, WAYS };

static const char *const ways[] = { "split and unmap", "carve", "unmap alone" };

static uint64_t one_hole(struct space *space, const struct hole *hole,
			 enum way way)
{
	uint64_t at = BASE + hole->offset, behind = at + hole->length;
	uint32_t ioas = space->ioas;
	uint64_t units;

	if (way == ALONE) {
		map(ioas, BASE, hole->offset);
		map(ioas, at, hole->length);
		map(ioas, behind, BASE + hole->leaf - behind);
	} else {
		map(ioas, BASE, hole->leaf);
	}
	mark("ioctls: %u %s %s", space->num_hwpts, ways[way], hole->name);
	units = cycles();
	switch (way) {
	case SPLIT_UNMAP:
		cut(ioas, at, hole->length, 0);
		unmap(ioas, at, hole->length);
		break;
	case CARVE:
		cut(ioas, at, hole->length, IOMMU_IOAS_SPLIT_UNMAP);
		break;
	default:
		unmap(ioas, at, hole->length);
	}
	units = cycles() - units;
	mark("ioctls: end");
	unmap(ioas, 0, UINT64_MAX);
	return units;
}

static void print_hole(unsigned int round, struct space *space,
		       const struct hole *hole, enum way way)
{
	unsigned long long units = one_hole(space, hole, way);

	printf("ioctl: %u %u %llu %s %s\n", round, space->num_hwpts, units,
	       ways[way], hole->name);
}

static void cost(unsigned int rounds)
{
	unsigned int domains, round, way, i;
	struct space space;

	for (domains = 1; domains <= num_devices; domains *= 2) {
		space_init(&space, domains, devices);
		for (round = 0; round <= rounds; round++)
			for (i = 0; i != sizeof(holes) / sizeof(*holes); i++)
				for (way = 0; way != WAYS; way++)
					print_hole(round, &space, &holes[i], way);
		space_free(&space);
	}
}

static pthread_barrier_t barrier;

struct worker {
	pthread_t thread;
	uint32_t ioas;
	uint64_t base;
};

/* What a vCPU of a confidential guest asks for: private, and shared again */
static void *work(void *arg)
{
	struct worker *worker = arg;
	unsigned int i;

	pthread_barrier_wait(&barrier);
	for (i = 0; i != HOLES; i++) {
		uint64_t iova = worker->base + i * SZ_2M + SZ_2M / 2;

		cut(worker->ioas, iova, SZ_4K, IOMMU_IOAS_SPLIT_UNMAP);
		map(worker->ioas, iova, SZ_4K);
	}
	pthread_barrier_wait(&barrier);
	return NULL;
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void contend(unsigned int round, unsigned int threads,
		    unsigned int ioases)
{
	struct worker workers[MAX_THREADS];
	struct space spaces[MAX_THREADS];
	unsigned int i, block;
	uint64_t ns;

	for (i = 0; i != ioases; i++)
		space_init(&spaces[i], 1, &devices[i]);
	pthread_barrier_init(&barrier, NULL, threads + 1);
	for (i = 0; i != threads; i++) {
		workers[i].ioas = spaces[i % ioases].ioas;
		workers[i].base = BASE + i * BLOCKS * SZ_1G;
		for (block = 0; block != BLOCKS; block++)
			map(workers[i].ioas, workers[i].base + block * SZ_1G,
			    SZ_1G);
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			fail("pthread_create");
	}
	pthread_barrier_wait(&barrier);
	ns = now();
	pthread_barrier_wait(&barrier);
	ns = now() - ns;
	for (i = 0; i != threads; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_barrier_destroy(&barrier);
	printf("threads: %u %u %u %u %llu\n", round, threads, ioases,
	       threads * HOLES, (unsigned long long)ns);
	for (i = 0; i != ioases; i++) {
		unmap(spaces[i].ioas, 0, UINT64_MAX);
		space_free(&spaces[i]);
	}
}

static void contend_all(unsigned int round)
{
	unsigned int threads;

	for (threads = 1; threads <= MAX_THREADS && threads <= num_devices;
	     threads *= 2) {
		contend(round, threads, 1);
		if (threads > 1)
			contend(round, threads, threads);
	}
}

int main(int argc, char **argv)
{
	unsigned int i, round;

	if (argc < 3 || argc - 2 > MAX_DEVICES) {
		puts("usage: ioctls cost|once|threads CDEV...");
		return 2;
	}
	iommufd = open("/dev/iommu", O_RDWR);
	check(iommufd, "/dev/iommu");
	for (i = 2; i != (unsigned int)argc; i++)
		open_device(argv[i]);
	memory_fd = memfd_create("memory", MFD_HUGETLB | MFD_HUGE_1GB);
	check(memory_fd, "memfd_create");
	check(ftruncate(memory_fd, SZ_1G), "ftruncate");
	check(fallocate(memory_fd, 0, 0, SZ_1G), "one huge page of 1G");

	if (!strcmp(argv[1], "cost")) {
		cost(ROUNDS);
	} else if (!strcmp(argv[1], "once")) {
		marker = open("/sys/kernel/tracing/trace_marker", O_WRONLY);
		check(marker, "trace_marker");
		cost(1);
	} else {
		for (round = 0; round <= 3; round++)
			contend_all(round);
	}
	puts("ioctls: done");
	return 0;
}
