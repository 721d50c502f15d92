// SPDX-License-Identifier: GPL-2.0-only
/*
 * Malformed calls of iommufd_split_fuzz. Each has one errno that it must give,
 * taken from the order in which a handler looks at its arguments, and changes
 * nothing. The caller's model of the IOAS finds out if it did.
 */
#include "iommufd_split_fuzz.h"

struct bad {
	struct worker *me;
	int fd;
	__u32 ioas_id;
	const __u32 *wrong_ids;
	unsigned int num_wrong_ids;
	/* @granule bytes are mapped here */
	__u64 mapped;
	/* What the IOAS wants, 1 if it has no wish */
	unsigned int alignment;
	/* Bytes of any alignment that are legal for the IOAS */
	unsigned int granule;
};

/* An ID of nothing, or of something that is no IOAS */
static __u32 wrong_id(const struct bad *bad)
{
	struct worker *me = bad->me;

	switch (pick(me, 4)) {
	case 0:
		return 0;
	case 1:
		return UINT32_MAX - pick(me, 3);
	case 2:
		/* Object IDs are handed out from 1 upwards */
		return (1U << 24) + pick(me, 1U << 24);
	default:
		return bad->num_wrong_ids ?
			       bad->wrong_ids[pick(me, bad->num_wrong_ids)] :
			       0;
	}
}

static __u32 bad_flags(struct worker *me, __u32 known)
{
	__u32 flags = 1U << pick(me, 32);

	return flags & ~known ? flags : 1U << 31;
}

/* An edge where an area may end would be right, however it is aligned. */
static unsigned int unaligned(struct worker *me, unsigned int granule)
{
	unsigned int bytes = 1 + pick(me, granule - 1);

	return bytes % SLOT ? bytes : bytes + 1;
}

/*
 * Try a structure of a wrong size, at a wrong place, or with something behind
 * it. Returns true if that was done.
 */
static bool bad_frame(const struct bad *bad, enum fuzz_op op,
		      unsigned long request, const void *cmd, size_t size)
{
	struct worker *me = bad->me;
	uint8_t *end = me->scratch + SCRATCH_SIZE;
	uint8_t *at;
	int want, err;
	void *arg;

	switch (pick(me, 12)) {
	case 0: /* too small, from nothing to one byte less */
		arg = memcpy(me->scratch, cmd, size);
		*(__u32 *)arg = pick(me, size);
		want = EINVAL;
		break;
	case 1: /* something that the kernel does not know */
		arg = memcpy(me->scratch, cmd, size);
		memset(me->scratch + size, 0, 64);
		me->scratch[size + pick(me, 64)] = 1 + pick(me, 255);
		*(__u32 *)arg = size + 64;
		want = E2BIG;
		break;
	case 2: /* reaches into what is not mapped */
		at = end - 8 * (1 + pick(me, size / 8 - 1));
		memcpy(at, cmd, end - at);
		arg = at;
		want = EFAULT;
		break;
	case 3: /* nowhere */
		arg = (void *)(chance(me, 50) ? 0UL : -(unsigned long)PAGE);
		want = EFAULT;
		break;
	case 4: /* not even the size can be read */
		arg = end - 2;
		want = EFAULT;
		break;
	case 5: /* the number is right, the rest of the request is not */
		arg = memcpy(me->scratch, cmd, size);
		request |= (unsigned long)size << _IOC_SIZESHIFT;
		request |= 2UL << _IOC_DIRSHIFT;
		want = ENOTTY;
		break;
	default:
		return false;
	}
	err = fuzz_call(me, op, bad->fd, request, arg, NULL);
	fuzz_note(me, request, (uintptr_t)arg, want);
	fuzz_expect(me, "malformed structure", err, want);
	return true;
}

static void bad_split(const struct bad *bad)
{
	struct worker *me = bad->me;
	unsigned int granule = bad->granule;
	struct iommu_ioas_split cmd = {
		.size = sizeof(cmd),
		.ioas_id = bad->ioas_id,
		.iova = bad->mapped,
		.length = granule,
	};
	bool wrong = false;
	__u64 last;
	int want;

	if (bad_frame(bad, OP_SPLIT, IOMMU_IOAS_SPLIT, &cmd, sizeof(cmd)))
		return;

	/* Any mixture of mistakes, at least one */
	do {
		if (chance(me, 15))
			cmd.flags = bad_flags(me, IOMMU_IOAS_SPLIT_UNMAP);
		if (chance(me, 50))
			cmd.flags ^= IOMMU_IOAS_SPLIT_UNMAP;
		if (chance(me, 15))
			cmd.__reserved = bad_flags(me, 0);
		if (chance(me, 20)) {
			cmd.ioas_id = wrong_id(bad);
			wrong = true;
		}
		if (chance(me, 15))
			cmd.length = 0;
		if (chance(me, 20))
			cmd.length += unaligned(me, granule);
		if (chance(me, 20))
			cmd.iova += unaligned(me, granule);
		if (chance(me, 15))
			cmd.length = -(__u64)granule * (1 + pick(me, 1000));
		if (chance(me, 15))
			cmd.iova = -(__u64)granule * (1 + pick(me, 3));
	} while (cmd.iova == bad->mapped && cmd.length == granule &&
		 !(cmd.flags & ~IOMMU_IOAS_SPLIT_UNMAP) && !cmd.__reserved &&
		 !wrong);

	if (cmd.flags & ~IOMMU_IOAS_SPLIT_UNMAP || cmd.__reserved)
		want = EOPNOTSUPP;
	else if (!cmd.length)
		want = EINVAL;
	else if (__builtin_add_overflow(cmd.iova, cmd.length - 1, &last))
		want = EOVERFLOW;
	else if (wrong)
		want = ENOENT;
	else if ((cmd.iova | cmd.length) & (granule - 1))
		want = EINVAL;
	else /* Far longer or far away from what is mapped */
		want = ENOENT;

	fuzz_expect(me, "malformed split",
		    CALL(me, OP_SPLIT, bad->fd, IOMMU_IOAS_SPLIT, cmd), want);
	fuzz_note(me, cmd.iova, cmd.length, cmd.ioas_id);
}

/* A join changes nothing only if it fails, so each of these has to */
static void bad_join(const struct bad *bad)
{
	struct worker *me = bad->me;
	unsigned int granule = bad->granule;
	struct iommu_ioas_join cmd = {
		.size = sizeof(cmd),
		.flags = chance(me, 50) ? IOMMU_IOAS_JOIN_FILL : 0,
		.ioas_id = bad->ioas_id,
		.iova = bad->mapped,
		.length = granule,
	};
	__u64 last;
	int want;

	if (bad_frame(bad, OP_JOIN, IOMMU_IOAS_JOIN, &cmd, sizeof(cmd)))
		return;

	want = 0;
	if (chance(me, 30)) {
		cmd.ioas_id = wrong_id(bad);
		want = ENOENT;
	}
	if (chance(me, 30)) {
		/* Nothing is mapped there, or near there */
		cmd.iova = -(__u64)granule * (1 + pick(me, 3));
		if (chance(me, 50))
			cmd.length = unaligned(me, granule);
		if (want != ENOENT && cmd.flags && cmd.length % granule)
			want = EINVAL;
		else
			want = ENOENT;
	}
	if (chance(me, 20))
		cmd.length = -(__u64)granule * (1 + pick(me, 1000));
	if (__builtin_add_overflow(cmd.iova, cmd.length - 1, &last))
		want = EOVERFLOW;
	if (chance(me, 20)) {
		cmd.length = 0;
		want = EINVAL;
	}
	if (chance(me, 20)) {
		cmd.__reserved = bad_flags(me, 0);
		want = EOPNOTSUPP;
	}
	if (!want || chance(me, 20)) {
		cmd.flags |= bad_flags(me, IOMMU_IOAS_JOIN_FILL);
		want = EOPNOTSUPP;
	}

	fuzz_expect(me, "malformed join",
		    CALL(me, OP_JOIN, bad->fd, IOMMU_IOAS_JOIN, cmd), want);
	fuzz_note(me, cmd.iova, cmd.length, cmd.ioas_id);
}

static void bad_map(const struct bad *bad)
{
	struct worker *me = bad->me;
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE |
			 IOMMU_IOAS_MAP_READABLE,
		.ioas_id = bad->ioas_id,
		.user_va = (uintptr_t)me->blocks[0].ptr,
		.length = bad->granule,
		.iova = bad->mapped,
	};
	int want;

	if (bad_frame(bad, OP_MAP, IOMMU_IOAS_MAP, &cmd, sizeof(cmd)))
		return;

	switch (pick(me, 9)) {
	case 0:
		cmd.flags |= bad_flags(me, 7);
		want = EOPNOTSUPP;
		break;
	case 1:
		cmd.__reserved = 1;
		want = EOPNOTSUPP;
		break;
	case 2:
		cmd.iova = UINT64_MAX;
		want = EOVERFLOW;
		break;
	case 3:
		cmd.length = UINT64_MAX;
		want = EOVERFLOW;
		break;
	case 4:
		cmd.flags = IOMMU_IOAS_MAP_FIXED_IOVA;
		want = EINVAL;
		break;
	case 5:
		cmd.ioas_id = wrong_id(bad);
		want = ENOENT;
		break;
	case 6:
		cmd.user_va = -(__u64)bad->granule;
		cmd.length = 2 * bad->granule;
		want = EOVERFLOW;
		break;
	case 7:
		cmd.length = 0;
		want = EINVAL;
		break;
	default: /* there is something already */
		want = EEXIST;
		break;
	}
	fuzz_expect(me, "malformed map",
		    CALL(me, OP_MAP, bad->fd, IOMMU_IOAS_MAP, cmd), want);
	fuzz_note(me, cmd.iova, cmd.length, cmd.flags);
}

static void bad_map_file(const struct bad *bad)
{
	struct worker *me = bad->me;
	struct iommu_ioas_map_file cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.ioas_id = bad->ioas_id,
		.fd = -1,
		.length = bad->granule,
		.iova = bad->mapped,
	};
	int want = EBADF;

	if (bad_frame(bad, OP_MAP_FILE, IOMMU_IOAS_MAP_FILE, &cmd, sizeof(cmd)))
		return;

	if (chance(me, 30)) {
		cmd.ioas_id = wrong_id(bad);
		want = ENOENT;
	} else if (chance(me, 30)) {
		cmd.start = UINT64_MAX;
		cmd.length = 2 * bad->granule;
		want = EOVERFLOW;
	}
	fuzz_expect(me, "malformed map of a file",
		    CALL(me, OP_MAP_FILE, bad->fd, IOMMU_IOAS_MAP_FILE, cmd),
		    want);
}

static void bad_unmap(const struct bad *bad)
{
	struct worker *me = bad->me;
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd),
		.ioas_id = bad->ioas_id,
		.iova = bad->mapped,
		.length = bad->granule,
	};
	int want;

	if (bad_frame(bad, OP_UNMAP, IOMMU_IOAS_UNMAP, &cmd, sizeof(cmd)))
		return;

	switch (pick(me, 5)) {
	case 0:
		cmd.ioas_id = wrong_id(bad);
		want = ENOENT;
		break;
	case 1:
		cmd.iova = UINT64_MAX;
		want = EOVERFLOW;
		break;
	case 2:
		cmd.length = UINT64_MAX;
		want = EOVERFLOW;
		break;
	case 3:
		cmd.length = 0;
		want = EINVAL;
		break;
	default:
		cmd.iova = -(__u64)bad->granule;
		cmd.length = 2 * bad->granule;
		want = EOVERFLOW;
		break;
	}
	fuzz_expect(me, "malformed unmap",
		    CALL(me, OP_UNMAP, bad->fd, IOMMU_IOAS_UNMAP, cmd), want);
}

static void bad_copy(const struct bad *bad)
{
	struct worker *me = bad->me;
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.src_ioas_id = bad->ioas_id,
		.dst_ioas_id = bad->ioas_id,
		.src_iova = bad->mapped,
		.dst_iova = bad->mapped,
		.length = bad->granule,
	};
	int want;

	if (bad_frame(bad, OP_COPY, IOMMU_IOAS_COPY, &cmd, sizeof(cmd)))
		return;

	switch (pick(me, 7)) {
	case 0:
		/* Bit 16 is eaten by the test mode of the kernel */
		cmd.flags |= bad_flags(me, 7 | MOCK_FLAGS_ACCESS_SYZ);
		want = EOPNOTSUPP;
		break;
	case 1:
		cmd.flags = IOMMU_IOAS_MAP_FIXED_IOVA;
		want = EINVAL;
		break;
	case 2:
		cmd.src_iova = UINT64_MAX;
		want = EOVERFLOW;
		break;
	case 3:
		cmd.src_ioas_id = wrong_id(bad);
		want = ENOENT;
		break;
	case 4:
		cmd.dst_ioas_id = wrong_id(bad);
		want = ENOENT;
		break;
	case 5:
		cmd.length = 0;
		want = EINVAL;
		break;
	default:
		want = EEXIST;
		break;
	}
	fuzz_expect(me, "malformed copy",
		    CALL(me, OP_COPY, bad->fd, IOMMU_IOAS_COPY, cmd), want);
}

/* What has to do with domains and objects */
static void bad_object(const struct bad *bad)
{
	struct worker *me = bad->me;
	__u32 none = (1U << 24) + pick(me, 1U << 24);
	struct iommu_hwpt_set_dirty_tracking track = { .size = sizeof(track),
						       .hwpt_id = none };
	struct iommu_hwpt_alloc alloc = { .size = sizeof(alloc),
					  .dev_id = none,
					  .pt_id = bad->ioas_id };
	struct iommu_option option = { .size = sizeof(option),
				       .option_id = IOMMU_OPTION_HUGE_PAGES,
				       .op = IOMMU_OPTION_OP_SET,
				       .object_id = bad->ioas_id,
				       .val64 = 2 };
	__u64 bitmap;

	switch (pick(me, 7)) {
	case 0:
		fuzz_expect(me, "destroy of nothing",
			    fuzz_destroy(me, bad->fd, none), ENOENT);
		break;
	case 1:
		fuzz_expect(me, "destroy of an IOAS with accesses",
			    fuzz_destroy(me, bad->fd, bad->ioas_id), EBUSY);
		break;
	case 2:
		track.flags = chance(me, 50) ? bad_flags(me, 1) : 0;
		fuzz_expect(me, "dirty tracking of nothing",
			    CALL(me, OP_DIRTY_TRACKING, bad->fd,
				 IOMMU_HWPT_SET_DIRTY_TRACKING, track),
			    track.flags ? EOPNOTSUPP : ENOENT);
		break;
	case 3:
		fuzz_expect(me, "dirty bitmap of nothing",
			    fuzz_dirty_read(me, bad->fd, none, bad->mapped,
					    bad->granule, &bitmap, 0),
			    ENOENT);
		break;
	case 4:
		fuzz_expect(me, "HWPT of no device",
			    CALL(me, OP_HWPT_ALLOC, bad->fd, IOMMU_HWPT_ALLOC,
				 alloc),
			    ENOENT);
		break;
	case 5:
		fuzz_expect(me, "option with a bad value",
			    CALL(me, OP_OPTION, bad->fd, IOMMU_OPTION, option),
			    EINVAL);
		break;
	default:
		fuzz_expect(me, "unknown request",
			    CALL(me, OP_OPTION, bad->fd,
				 _IO(IOMMUFD_TYPE, 0xf0), option),
			    ENOTTY);
		break;
	}
}

bool bad_call(struct worker *me, int fd, __u32 ioas_id, const __u32 *wrong_ids,
	      unsigned int num_wrong_ids, __u64 mapped_iova,
	      unsigned int alignment)
{
	struct bad bad = {
		.me = me,
		.fd = fd,
		.ioas_id = ioas_id,
		.wrong_ids = wrong_ids,
		.num_wrong_ids = num_wrong_ids,
		.mapped = mapped_iova,
		.alignment = alignment,
		.granule = alignment == 1 ? PAGE : alignment,
	};

	switch (pick(me, 12)) {
	case 0:
		bad_map(&bad);
		break;
	case 1:
		bad_map_file(&bad);
		break;
	case 2:
		bad_unmap(&bad);
		break;
	case 3:
		bad_copy(&bad);
		break;
	case 4:
		bad_object(&bad);
		break;
	case 5:
	case 6:
		bad_join(&bad);
		break;
	default:
		bad_split(&bad);
		break;
	}
	return !failed();
}
