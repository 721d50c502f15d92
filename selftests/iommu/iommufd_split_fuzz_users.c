// SPDX-License-Identifier: GPL-2.0-only
/*
 * What else uses a mapping, in the model of iommufd_split_fuzz: accesses that
 * read, write and pin, and a device that makes pages dirty.
 */
#include "iommufd_split_fuzz_model.h"

/* An area is unmapped, and every pin that touches it ends */
void drop_pins(struct window *window, const struct area *gone)
{
	unsigned int i, j;

	for (i = 0; i < window->num_pins;) {
		struct pin pin = window->pins[i];

		if (pin.start >= end_of(gone) ||
		    pin.start + pin.length <= gone->start) {
			i++;
			continue;
		}
		for (j = find(window, pin.start);
		     j != window->num_areas &&
		     window->areas[j].start < pin.start + pin.length;
		     j++)
			window->areas[j].pins--;
		window->pins[i] = window->pins[--window->num_pins];
	}
}

/* An access goes from left to right and stops where it may not go on */
static int rights(const struct window *window, unsigned int start,
		  unsigned int length, unsigned int prot)
{
	unsigned int i = find(window, start);
	unsigned int end = start + length;
	int err = 0;

	for (; start < end && !err; i++) {
		const struct area *area = &window->areas[i];

		if (i == window->num_areas || area->start > start)
			err = ENOENT;
		else if (!(area->prot & prot))
			err = EPERM;
		start = end_of(area);
	}
	return err;
}

void do_access(struct worker *me, struct window *window)
{
	unsigned int flags = chance(me, 40) ? MOCK_ACCESS_RW_WRITE : 0;
	unsigned int slow = chance(me, 40) ? MOCK_ACCESS_RW_SLOW_PATH : 0;
	size_t length = 1 + pick(me, 3 * PAGE);
	struct area *area;
	unsigned int i, last;
	__u64 begin, end;
	int want;

	if (!window->num_areas)
		return;
	i = pick(me, window->num_areas);
	area = &window->areas[i];
	begin = (__u64)area->start * SLOT + pick(me, area->length * SLOT);
	/* The same memory may be mapped twice, so write into one area only */
	if (flags && begin + length > (__u64)end_of(area) * SLOT)
		length = (__u64)end_of(area) * SLOT - begin;
	end = begin + length;
	last = (end - 1) / SLOT;

	want = rights(window, begin / SLOT, last - begin / SLOT + 1,
		      flags ? IOMMU_IOAS_MAP_WRITEABLE :
			      IOMMU_IOAS_MAP_READABLE);

	for (i = 0; flags && i < length; i += 8)
		*(uint64_t *)(me->scratch + i) = random64(me);
	if (!fuzz_expect(me, "access",
			 fuzz_access_rw(me, model_now.fd, window->access,
					window->iova + begin, length,
					me->scratch, flags | slow),
			 want) ||
	    want)
		return;

	for (i = find(window, begin / SLOT); begin != end; i++) {
		__u64 area_end = (__u64)end_of(&window->areas[i]) * SLOT;
		size_t part = (area_end < end ? area_end : end) - begin;

		area = &window->areas[i];
		if (memcmp(me->scratch + length - (end - begin),
			   memory_of(me, area, area->start) +
				   (begin - (__u64)area->start * SLOT),
			   part)) {
			fuzz_fail(me, "the data at %llx is not that in memory",
				  window->iova + begin);
			return;
		}
		begin += part;
	}
}

void do_pin(struct worker *me, struct window *window)
{
	unsigned int flags = chance(me, 30) ? MOCK_FLAGS_ACCESS_WRITE : 0;
	struct pin pin;
	void *ptr = NULL;
	unsigned int i;
	int want;

	if (!window->ioas->pins || !window->num_areas ||
	    window->num_pins == MAX_PINS)
		return;
	i = pick(me, window->num_areas);
	pin.start = window->areas[i].start + pick(me, window->areas[i].length);
	pin.start &= ~1;
	pin.length = 2 * (1 + pick(me, 16));
	if (pin.start + pin.length <= end_of(&window->areas[i]))
		ptr = memory_of(me, &window->areas[i], pin.start);
	want = rights(window, pin.start, pin.length,
		      flags ? IOMMU_IOAS_MAP_WRITEABLE :
			      IOMMU_IOAS_MAP_READABLE);
	if (!fuzz_expect(me, "pin",
			 fuzz_pin(me, model_now.fd, window->access,
				  iova_of(window, pin.start),
				  (size_t)pin.length * SLOT, ptr, flags,
				  &pin.id),
			 want) ||
	    want)
		return;
	window->pins[window->num_pins++] = pin;
	for (i = find(window, pin.start);
	     i != window->num_areas &&
	     window->areas[i].start < pin.start + pin.length;
	     i++)
		window->areas[i].pins++;
}

void do_unpin(struct worker *me, struct window *window)
{
	unsigned int i, j;
	struct pin pin;

	if (!window->ioas->pins)
		return;
	if (!window->num_pins) {
		fuzz_expect(me, "unpin of nothing",
			    fuzz_unpin(me, model_now.fd, window->access,
				       1 << 30),
			    ENOENT);
		return;
	}
	i = pick(me, window->num_pins);
	pin = window->pins[i];
	window->pins[i] = window->pins[--window->num_pins];
	fuzz_expect(me, "unpin",
		    fuzz_unpin(me, model_now.fd, window->access, pin.id), 0);
	for (j = find(window, pin.start);
	     j != window->num_areas &&
	     window->areas[j].start < pin.start + pin.length;
	     j++)
		window->areas[j].pins--;
}

/* The device writes here and there in one area */
void do_set_dirty(struct worker *me, struct window *window)
{
	__u64 bitmap[4] = {};
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_DIRTY,
		.id = window->ioas->dirty_hwpt,
		.dirty = { .page_size = SLOT, .uptr = (uintptr_t)bitmap },
	};
	unsigned int start, length, i;
	const struct area *area;

	if (!window->ioas->dirty_hwpt || !window->num_areas)
		return;
	area = &window->areas[pick(me, window->num_areas)];
	start = area->start + pick(me, area->length);
	length = 1 + pick(me, min_u(end_of(area) - start, 256));
	for (i = 1 + pick(me, 6); i; i--) {
		unsigned int bit = pick(me, length);

		bitmap[bit / 64] |= 1ULL << (bit % 64);
		window->must[start + bit] = true;
	}
	/* A leaf is dirty as a whole, but does not leave its area */
	memset(&window->may[area->start], 1, area->length);

	cmd.dirty.iova = iova_of(window, start);
	cmd.dirty.length = (__u64)length * SLOT;
	i = TEST_CALL(me, OP_SET_DIRTY, model_now.fd, cmd);
	fuzz_note(me, cmd.dirty.iova, cmd.dirty.length, bitmap[0]);
	fuzz_expect(me, "set dirty", i, 0);
}

/* A read of the dirty bitmap */
struct dirty_read {
	unsigned int start;
	unsigned int length;
	/* Of which the bitmap has room for so many */
	unsigned int room;
	bool keep;
	uint8_t *map;
	int err;
};

static bool is_reported(const struct dirty_read *read, unsigned int i)
{
	return i < read->room && read->map[i / 8] >> i % 8 & 1;
}

/* Somewhere in the window, or from an area to another, with what is between */
static bool pick_dirty_read(struct worker *me, const struct window *window,
			    struct dirty_read *read)
{
	unsigned int map_align = window->ioas->map_align;
	unsigned int end, i;

	if (window->num_areas && chance(me, 50)) {
		i = pick(me, window->num_areas);
		read->start = window->areas[i].start;
		end = end_of(&window->areas[i + pick(me, window->num_areas - i)]);
	} else {
		read->start = align(pick(me, WINDOW_SLOTS), map_align);
		end = align(read->start + 1 + pick(me, WINDOW_SLOTS - read->start),
			    map_align);
	}
	read->length = end - read->start;
	return read->start < end;
}

/* Nothing is written next to the bitmap, nor behind the last bit in it */
static bool wrote_beyond(const struct dirty_read *read, const uint8_t *first,
			 const uint8_t *end)
{
	const uint8_t *map_end = read->map + (read->length + 7) / 8;
	unsigned int i;

	for (; first < read->map; first++)
		if (*first)
			return true;
	for (; map_end < end; map_end++)
		if (*map_end)
			return true;
	for (i = read->length; i % 8 && i < read->room; i++)
		if (is_reported(read, i))
			return true;
	return false;
}

/*
 * A leaf is clean after the read if it was reported as a whole. Where its edges
 * are is not known, but they are inside of its area.
 */
static void learn_dirty(struct window *window, const struct area *area,
			const struct dirty_read *read)
{
	bool whole = read->start <= area->start &&
		     end_of(area) <= read->start + read->length && !read->err;
	unsigned int slot;

	for (slot = area->start; slot != end_of(area); slot++) {
		unsigned int i = slot - read->start;
		bool dirty = i < read->length && is_reported(read, i);

		/* After an error nothing is known of what was not reported */
		if (i >= read->length || (read->err && !dirty))
			continue;
		window->must[slot] = read->keep && dirty;
		window->may[slot] = (read->keep || !whole) && dirty;
	}
}

void do_dirty_read(struct worker *me, struct window *window)
{
	static const unsigned int flags[2] = {
		0, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR
	};
	struct dirty_read read = { .keep = chance(me, 40) };
	uint8_t *end = me->scratch + SCRATCH_SIZE, *first;
	bool fault = false;
	unsigned int i, bytes;

	if (!window->ioas->dirty_hwpt || !pick_dirty_read(me, window, &read))
		return;

	/* At the end of memory, or a bit too far, or anywhere */
	bytes = (read.length + 7) / 8;
	read.room = bytes * 8;
	read.map = end - bytes;
	if (chance(me, 10)) {
		read.room = pick(me, bytes) * 8;
		read.map = end - read.room / 8;
	} else if (chance(me, 70)) {
		read.map -= pick(me, PAGE + 64);
	}
	first = read.map - 64;
	memset(first, 0, end - first);
	read.err = fuzz_dirty_read(me, model_now.fd, window->ioas->dirty_hwpt,
				   iova_of(window, read.start),
				   (size_t)read.length * SLOT,
				   (__u64 *)read.map, flags[read.keep]);
	for (i = read.room; i < read.length; i++)
		fault |= window->may[read.start + i];
	if ((read.err != EFAULT || !fault) &&
	    !fuzz_expect(me, "read of dirty bits", read.err, 0))
		return;
	if (wrote_beyond(&read, first, end)) {
		fuzz_fail(me, "a read of dirty bits at %llx writes too much",
			  iova_of(window, read.start));
		return;
	}

	for (i = 0; i != read.length; i++) {
		unsigned int slot = read.start + i;
		bool dirty = is_reported(&read, i);

		if (window->must[slot] && !dirty && !read.err) {
			fuzz_fail(me, "a dirty bit is lost at %llx",
				  iova_of(window, slot));
			return;
		}
		if (!window->may[slot] && dirty) {
			fuzz_fail(me, "a dirty bit is invented at %llx",
				  iova_of(window, slot));
			return;
		}
	}
	for (i = 0; i != window->num_areas; i++)
		learn_dirty(window, &window->areas[i], &read);
}
