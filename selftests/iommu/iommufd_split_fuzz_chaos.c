// SPDX-License-Identifier: GPL-2.0-only
/*
 * The rounds of iommufd_split_fuzz without a model. All threads work on the
 * same IOVAs, objects and files, use IDs that are gone, destroy what others
 * use, and close files that others use. For each call there are errnos that it
 * may give. Nothing may hang, no WARN may come, and nothing may be left when
 * all files are closed.
 *
 * Two calls of the mock are left out, to set dirty bits and to check a
 * translation: they walk a table that nobody keeps from being freed. The model
 * has them.
 */
#include <fcntl.h>

#include "iommufd_split_fuzz.h"

enum {
	NUM_FILES = 2,
	NUM_IDS = 4,
	MAX_PERMITTED = 8,
	/* The objects that all threads fight over */
	CHAOS_PAGES = 2048,
};

/* Everything here is read and written by all, atomically but without order */
struct file {
	int fd;
	__u32 ioas[NUM_IDS];
	__u32 hwpt[NUM_IDS];
	__u32 stdev[NUM_IDS];
	__u32 idev[NUM_IDS];
	int access[NUM_IDS];
	int dmabuf;
};

static struct file files[NUM_FILES];

/* Besides 0, and EBADF and ENOTTY for a file that has been closed */
static const int permitted[OP_NR][MAX_PERMITTED] = {
	[OP_IOVA_RANGES] = { ENOENT, EMSGSIZE },
	[OP_ALLOW_IOVAS] = { ENOENT, EADDRINUSE },
	/* EINVAL: mapped in a domain already, EADDRINUSE: too fine for it */
	[OP_OPTION] = { ENOENT, EINVAL, EADDRINUSE },
	/* EINVAL: the alignment has changed, or reserved by a domain */
	[OP_MAP] = { ENOENT, EEXIST, EINVAL, ENOSPC, EFAULT },
	/* ENODEV: the dma-buf is revoked */
	[OP_MAP_FILE] = { ENOENT, EEXIST, EINVAL, ENOSPC, ENODEV, EOPNOTSUPP },
	[OP_COPY] = { ENOENT, EEXIST, EINVAL, EPERM, ENOSPC, EFAULT, ENODEV },
	/* Not EDEADLOCK: all accesses let go when they are told */
	[OP_UNMAP] = { ENOENT, EBUSY },
	/*
	 * EINVAL: the alignment has changed. EOPNOTSUPP: a dma-buf. EDEADLOCK: it
	 * is pinned again each time that it was let go
	 */
	[OP_SPLIT] = { ENOENT, EBUSY, EINVAL, EOPNOTSUPP, EDEADLOCK },
	/* EINVAL: the alignment has changed. ENOTUNIQ: two memories for a hole */
	[OP_JOIN] = { ENOENT, EBUSY, EINVAL, EOPNOTSUPP, ENOTUNIQ },
	[OP_DESTROY] = { ENOENT, EBUSY },
	/*
	 * EADDRINUSE: mapped where the domain cannot have it. EFAULT: no memory.
	 * EOPNOTSUPP: nested, if the ID is that of a HWPT by now
	 */
	[OP_HWPT_ALLOC] = { ENOENT, EINVAL, EADDRINUSE, EFAULT, ENODEV,
			    EOPNOTSUPP },
	[OP_HW_INFO] = { ENOENT },
	[OP_MOCK_DOMAIN] = { ENOENT, EINVAL, EADDRINUSE, EFAULT, ENODEV },
	[OP_REPLACE] = { ENOENT, EINVAL, EADDRINUSE, EFAULT, ENODEV },
	[OP_DIRTY_TRACKING] = { ENOENT, EOPNOTSUPP },
	[OP_DIRTY_READ] = { ENOENT, EOPNOTSUPP, EINVAL },
	[OP_ACCESS_CREATE] = { ENOENT, EADDRINUSE },
	[OP_ACCESS_REPLACE] = { ENOENT, EBUSY, EADDRINUSE, EBADFD },
	/* EINVAL: is being unmapped, or a dma-buf */
	[OP_ACCESS_RW] = { ENOENT, EINVAL, EPERM, EFAULT, EBADFD },
	[OP_ACCESS_PIN] = { ENOENT, EINVAL, EPERM, EFAULT, EOPNOTSUPP, EBADFD },
	[OP_ACCESS_UNPIN] = { ENOENT, EBADFD },
	/* Not all is mapped from files, or something is being mapped */
	[OP_CHANGE_PROCESS] = { EINVAL, EBUSY },
	[OP_DMABUF] = { EINVAL, EOPNOTSUPP },
};

static int may(struct worker *me, enum fuzz_op op, int err)
{
	unsigned int i;

	if (!err || err == EBADF || err == ENOTTY)
		return err;
	for (i = 0; i != MAX_PERMITTED && permitted[op][i]; i++)
		if (err == permitted[op][i])
			return err;
	fuzz_fail(me, "%s gives %s (%d)", op_names[op], strerror(err), err);
	return err;
}

#define get(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#define swap(place, value) \
	__atomic_exchange_n(&(place), value, __ATOMIC_RELAXED)

static __u64 some_iova(struct worker *me)
{
	__u64 iova = MOCK_APERTURE_START + (__u64)pick(me, CHAOS_PAGES) * PAGE;

	if (chance(me, 2))
		return random64(me) & -(__u64)SLOT;
	/* Beside an area that is finer than others permit */
	return chance(me, 10) ? iova + SLOT : iova;
}

static size_t some_length(struct worker *me)
{
	switch (pick(me, 8)) {
	case 0:
		return PAGE * (1 + pick(me, CHAOS_PAGES));
	case 1:
		return SLOT * (1 + pick(me, 32));
	default:
		return PAGE * (1 + pick(me, 16));
	}
}

static void chaos_map(struct worker *me, struct file *file)
{
	const struct block *block = &me->blocks[pick(me, NUM_BLOCKS)];
	struct block other = *block;
	size_t size = (size_t)block->slots * SLOT;
	unsigned int flags = IOMMU_IOAS_MAP_READABLE;
	__u64 iova = some_iova(me);
	size_t offset = 0, length = size;
	enum fuzz_op op;

	if (chance(me, 50))
		iova &= -(__u64)size;
	if (chance(me, 90))
		flags |= IOMMU_IOAS_MAP_FIXED_IOVA;
	if (chance(me, 90))
		flags |= IOMMU_IOAS_MAP_WRITEABLE;
	if (chance(me, 50)) {
		length = some_length(me) % size;
		offset = pick(me, (size - length) / SLOT + 1) * SLOT;
	}
	if (chance(me, 1)) {
		/* Behind this there is nothing */
		other.ptr = me->scratch + SCRATCH_SIZE;
		offset = 0;
		length = PAGE;
	} else if (chance(me, 5)) {
		other.file = get(file->dmabuf);
		offset = 0;
		length = PAGE << pick(me, 3);
	}
	op = other.file == -1 ? OP_MAP : OP_MAP_FILE;
	may(me, op,
	    fuzz_map(me, get(file->fd), get(file->ioas[pick(me, NUM_IDS)]),
		     &other, offset, length, &iova, flags));
}

static void chaos_unmap(struct worker *me, struct file *file)
{
	__u64 iova = some_iova(me), length = some_length(me);

	if (chance(me, 3)) {
		iova = 0;
		length = UINT64_MAX;
	} else if (chance(me, 20)) {
		iova = MOCK_APERTURE_START;
		length = CHAOS_PAGES * PAGE;
	}
	may(me, OP_UNMAP,
	    fuzz_unmap(me, get(file->fd), get(file->ioas[pick(me, NUM_IDS)]),
		       iova, &length));
}

static void chaos_split(struct worker *me, struct file *file)
{
	may(me, OP_SPLIT,
	    fuzz_split_flags(me, get(file->fd),
			     get(file->ioas[pick(me, NUM_IDS)]),
			     chance(me, 50) ? IOMMU_IOAS_SPLIT_UNMAP : 0,
			     MOCK_APERTURE_START +
				     (__u64)pick(me, CHAOS_PAGES) * PAGE,
			     some_length(me)));
}

static void chaos_join(struct worker *me, struct file *file)
{
	may(me, OP_JOIN,
	    fuzz_join(me, get(file->fd), get(file->ioas[pick(me, NUM_IDS)]),
		      chance(me, 60) ? IOMMU_IOAS_JOIN_FILL : 0, some_iova(me),
		      some_length(me)));
}

static void chaos_copy(struct worker *me, struct file *file)
{
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.dst_ioas_id = get(file->ioas[pick(me, NUM_IDS)]),
		.src_ioas_id = get(file->ioas[pick(me, NUM_IDS)]),
		.length = some_length(me),
		.dst_iova = some_iova(me),
		.src_iova = some_iova(me),
	};

	may(me, OP_COPY,
	    CALL(me, OP_COPY, get(file->fd), IOMMU_IOAS_COPY, cmd));
	fuzz_note(me, cmd.src_iova, cmd.dst_iova, cmd.length);
}

static void chaos_access(struct worker *me, struct file *file)
{
	int *access = &file->access[pick(me, NUM_IDS)];
	int fd = get(file->fd);
	unsigned int i;
	int new = -1;
	__u32 id;

	switch (pick(me, 8)) {
	case 0:
		if (!may(me, OP_ACCESS_CREATE,
			 fuzz_access_create(me, fd,
					    get(file->ioas[pick(me, NUM_IDS)]),
					    pick(me, 2), &new)))
			goto swap;
		break;
	case 1: {
		struct iommu_test_cmd cmd = {
			.size = sizeof(cmd),
			.op = IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
			.id = get(*access),
		};

		i = pick(me, NUM_IDS);
		cmd.access_replace_ioas.ioas_id = get(file->ioas[i]);
		may(me, OP_ACCESS_REPLACE,
		    TEST_CALL(me, OP_ACCESS_REPLACE, fd, cmd));
		break;
	}
	case 2:
	case 3:
		may(me, OP_ACCESS_RW,
		    fuzz_access_rw(me, fd, get(*access), some_iova(me),
				   1 + pick(me, SCRATCH_SIZE / 2), me->scratch,
				   pick(me, 2) | (pick(me, 2) << 2)));
		break;
	case 4:
		may(me, OP_ACCESS_UNPIN,
		    fuzz_unpin(me, fd, get(*access), pick(me, 64)));
		break;
	case 5:
		if (chance(me, 20)) {
			new = -1;
			goto swap;
		}
		break;
	default:
		may(me, OP_ACCESS_PIN,
		    fuzz_pin(me, fd, get(*access), some_iova(me),
			     PAGE * (1 + pick(me, 16)), NULL, pick(me, 2),
			     &id));
		break;
	}
	return;
swap:
	new = swap(*access, new);
	if (new != -1) {
		close(new);
		fuzz_count(me, OP_CLOSE, 0);
	}
}

static void chaos_domain(struct worker *me, struct file *file)
{
	__u32 ioas_id = get(file->ioas[pick(me, NUM_IDS)]);
	unsigned int i = pick(me, NUM_IDS);
	int fd = get(file->fd);
	__u32 stdev_id = 0, idev_id = 0, hwpt_id = 0;

	switch (pick(me, 4)) {
	case 0:
		if (may(me, OP_MOCK_DOMAIN,
			fuzz_mock_device(me, fd, ioas_id, &stdev_id, &idev_id,
					 &hwpt_id)))
			return;
		stdev_id = swap(file->stdev[i], stdev_id);
		swap(file->idev[i], idev_id);
		if (chance(me, 50))
			swap(file->hwpt[i], hwpt_id);
		may(me, OP_DESTROY, fuzz_destroy(me, fd, stdev_id));
		break;
	case 1:
		if (may(me, OP_HWPT_ALLOC,
			fuzz_hwpt_alloc(me, fd, get(file->idev[i]), ioas_id,
					chance(me, 70) ?
						IOMMU_HWPT_ALLOC_DIRTY_TRACKING :
						0,
					chance(me, 85) ? MOCK_IOMMUPT_DEFAULT :
							 MOCK_IOMMUPT_HUGE,
					&hwpt_id)))
			return;
		hwpt_id = swap(file->hwpt[i], hwpt_id);
		may(me, OP_DESTROY, fuzz_destroy(me, fd, hwpt_id));
		break;
	default:
		may(me, OP_REPLACE,
		    fuzz_replace(me, fd, get(file->stdev[i]),
				 chance(me, 70) ?
					 get(file->hwpt[pick(me, NUM_IDS)]) :
					 ioas_id));
		break;
	}
}

static void chaos_dirty(struct worker *me, struct file *file)
{
	__u32 hwpt_id = get(file->hwpt[pick(me, NUM_IDS)]);
	int fd = get(file->fd);

	if (chance(me, 30))
		may(me, OP_DIRTY_TRACKING,
		    fuzz_dirty_tracking(me, fd, hwpt_id, pick(me, 2)));
	else
		may(me, OP_DIRTY_READ,
		    fuzz_dirty_read(me, fd, hwpt_id, some_iova(me),
				    PAGE * (1 + pick(me, 512)),
				    (__u64 *)me->scratch, pick(me, 2)));
}

static void chaos_destroy(struct worker *me, struct file *file)
{
	unsigned int i = pick(me, NUM_IDS);
	__u32 id;

	switch (pick(me, 4)) {
	case 0:
		id = get(file->ioas[i]);
		break;
	case 1:
		id = get(file->hwpt[i]);
		break;
	case 2:
		id = get(file->stdev[i]);
		break;
	default:
		id = pick(me, 64);
		break;
	}
	may(me, OP_DESTROY, fuzz_destroy(me, get(file->fd), id));
}

static void chaos_ioas(struct worker *me, struct file *file)
{
	__u32 *place = &file->ioas[pick(me, NUM_IDS)];
	struct iommu_iova_range ranges[4];
	struct iommu_ioas_iova_ranges cmd = {
		.size = sizeof(cmd),
		.ioas_id = get(*place),
		.num_iovas = 1 + pick(me, 4),
		.allowed_iovas = (uintptr_t)ranges,
	};
	struct iommu_ioas_change_process change = { .size = sizeof(change) };
	int fd = get(file->fd);
	__u32 id = 0;

	switch (pick(me, 4)) {
	case 0:
		if (may(me, OP_IOAS_ALLOC, fuzz_ioas_alloc(me, fd, &id)))
			return;
		id = swap(*place, id);
		may(me, OP_DESTROY, fuzz_destroy(me, fd, id));
		break;
	case 1:
		may(me, OP_OPTION,
		    fuzz_option_huge(me, fd, get(*place), chance(me, 70)));
		break;
	case 2:
		may(me, OP_CHANGE_PROCESS,
		    CALL(me, OP_CHANGE_PROCESS, fd, IOMMU_IOAS_CHANGE_PROCESS,
			 change));
		break;
	default:
		may(me, OP_IOVA_RANGES,
		    CALL(me, OP_IOVA_RANGES, fd, IOMMU_IOAS_IOVA_RANGES, cmd));
		break;
	}
}

static void chaos_dmabuf(struct worker *me, struct file *file)
{
	struct iommu_test_cmd cmd = { .size = sizeof(cmd) };
	int new = -1;

	if (chance(me, 50)) {
		cmd.op = IOMMU_TEST_OP_DMABUF_REVOKE;
		cmd.dmabuf_revoke.dmabuf_fd = get(file->dmabuf);
		cmd.dmabuf_revoke.revoked = pick(me, 2);
		may(me, OP_DMABUF,
		    TEST_CALL(me, OP_DMABUF, get(file->fd), cmd));
		return;
	}
	cmd.op = IOMMU_TEST_OP_DMABUF_GET;
	cmd.dmabuf_get.length = PAGE << pick(me, 3);
	cmd.dmabuf_get.open_flags = O_CLOEXEC;
	if (may(me, OP_DMABUF,
		fuzz_call(me, OP_DMABUF, get(file->fd), IOMMU_TEST_CMD, &cmd,
			  &new)))
		return;
	new = swap(file->dmabuf, new);
	if (new != -1)
		close(new);
}

/* Replace this file by another. Calls on it that are under way go on */
static void chaos_reopen(struct worker *me, struct file *file)
{
	int fd;

	if (chance(me, 95))
		return;
	fd = open("/dev/iommu", O_RDWR);
	if (fuzz_count(me, OP_OPEN, fd == -1 ? errno : 0)) {
		fuzz_fail(me, "/dev/iommu cannot be opened");
		return;
	}
	close(swap(file->fd, fd));
	fuzz_count(me, OP_CLOSE, 0);
}

static const struct {
	void (*op)(struct worker *me, struct file *file);
	unsigned int weight;
} chaos_ops[] = {
	{ chaos_split, 28 },  { chaos_map, 22 },    { chaos_unmap, 18 },
	{ chaos_access, 12 }, { chaos_copy, 6 },    { chaos_domain, 5 },
	{ chaos_dirty, 5 },   { chaos_destroy, 3 }, { chaos_ioas, 3 },
	{ chaos_dmabuf, 1 },  { chaos_reopen, 1 },  { chaos_join, 16 },
};

static void *chaos_worker(void *arg)
{
	struct worker *me = arg;
	uint64_t end = me->calls + me->budget;
	unsigned int total = 0;
	unsigned int i;

	for (i = 0; i != ARRAY_SIZE(chaos_ops); i++)
		total += chaos_ops[i].weight;
	while (me->calls < end && !failed()) {
		unsigned int ticket = pick(me, total);

		for (i = 0; ticket >= chaos_ops[i].weight; i++)
			ticket -= chaos_ops[i].weight;
		chaos_ops[i].op(me, &files[pick(me, NUM_FILES)]);
	}
	return NULL;
}

bool chaos_round(uint64_t seed, uint64_t calls)
{
	struct worker *me = &workers[0];
	unsigned int i, j;

	for (i = 0; i != NUM_FILES; i++) {
		struct file *file = &files[i];

		memset(file, 0, sizeof(*file));
		file->dmabuf = -1;
		file->fd = open("/dev/iommu", O_RDWR);
		if (fuzz_count(me, OP_OPEN, file->fd == -1 ? errno : 0))
			return false;
		for (j = 0; j != NUM_IDS; j++) {
			file->access[j] = -1;
			fuzz_ioas_alloc(me, file->fd, &file->ioas[j]);
		}
	}
	run_workers(chaos_worker, seed, calls);
	/* The accesses keep their file. Sometimes they are the last to go */
	for (i = 0; i != NUM_FILES; i++) {
		struct file *file = &files[i];
		bool first = chance(me, 50);

		if (first)
			close(file->fd);
		for (j = 0; j != NUM_IDS; j++)
			if (file->access[j] != -1)
				close(file->access[j]);
		if (!first)
			close(file->fd);
		fuzz_count(me, OP_CLOSE, 0);
		if (file->dmabuf != -1)
			close(file->dmabuf);
	}
	return !failed();
}
