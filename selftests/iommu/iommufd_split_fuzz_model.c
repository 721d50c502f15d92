// SPDX-License-Identifier: GPL-2.0-only
/*
 * The part of iommufd_split_fuzz that knows what must happen.
 *
 * All threads work on the same two IOASes, in tables that they share down to the
 * last but one level. But each has a window of IOVA of its own in both, which
 * nobody else maps. So a thread knows every area in its windows, and with it the
 * result of each of its calls: the errno, what an unmap returns, what every
 * domain translates, what an access reads, which pages are dirty.
 *
 * Meanwhile one more thread attaches and detaches further domains. What is
 * mapped in a window must be in each of them.
 */
#include "iommufd_split_fuzz_model.h"

static struct window *some_window(struct worker *me)
{
	struct model *model = me->state;

	return &model->windows[pick(me, NUM_IOAS)];
}

static void do_map(struct worker *me, struct window *window)
{
	struct model *model = me->state;
	struct ioas *ioas = window->ioas;
	unsigned int flags = IOMMU_IOAS_MAP_FIXED_IOVA;
	struct area area = { .block = pick(me, NUM_BLOCKS),
			     .pages = model->next_pages++,
			     .prot = IOMMU_IOAS_MAP_READABLE |
				     IOMMU_IOAS_MAP_WRITEABLE };
	const struct block *block = &me->blocks[area.block];
	__u64 iova;
	int want;

	if (window->num_areas >= MAX_AREAS)
		return;
	if (chance(me, 15))
		area.prot = chance(me, 70) ? IOMMU_IOAS_MAP_READABLE :
					     IOMMU_IOAS_MAP_WRITEABLE;
	area.writable = area.prot & IOMMU_IOAS_MAP_WRITEABLE;

	if (chance(me, 50)) {
		/* As large and as well aligned as the block allows */
		area.length = block->slots;
		area.start =
			pick(me, WINDOW_SLOTS / block->slots) * block->slots;
	} else {
		area.length = 1 + pick(me, min_u(block->slots, 300));
		area.offset = pick(me, block->slots - area.length + 1);
		area.start = pick(me, WINDOW_SLOTS - area.length);
		if (chance(me, 90)) {
			area.length += area.length & 1;
			area.offset &= ~1;
			area.start &= ~1;
			if (area.offset + area.length > block->slots)
				area.length = block->slots - area.offset;
		}
	}

	if (misaligned(area.length, ioas->map_align) ||
	    misaligned(area.start, ioas->map_align) ||
	    misaligned(area.offset, ioas->map_align))
		want = EINVAL;
	else if (!is_free(window, area.start, area.length))
		want = EEXIST;
	else
		want = 0;

	iova = iova_of(window, area.start);
	if (!fuzz_expect(me, "map",
			 fuzz_map(me, model_now.fd, ioas->id, block,
				  (size_t)area.offset * SLOT,
				  (size_t)area.length * SLOT, &iova,
				  flags | area.prot),
			 want))
		return;
	area.pages_start = align(area.offset, PAGE);
	area.pages_end = align(area.offset + area.length + 1, PAGE);
	if (!want)
		insert_area(window, area);
	check_around(me, window, area.start, area.length);
}

/* The kernel chooses the IOVA. Map, split, unmap the parts */
static void do_map_anywhere(struct worker *me, struct window *window)
{
	struct ioas *ioas = window->ioas;
	struct area area = { .block = pick(me, NUM_BLOCKS) };
	struct window place = { .ioas = ioas };
	const struct block *block = &me->blocks[area.block];
	unsigned int first = 2 * pick(me, block->slots / 2 - 1);
	__u64 iova = 0, length;
	unsigned int part;

	area.length = block->slots - first;
	area.offset = first;
	if (!fuzz_expect(me, "map anywhere",
			 fuzz_map(me, model_now.fd, ioas->id, block,
				  (size_t)area.offset * SLOT,
				  (size_t)area.length * SLOT, &iova,
				  IOMMU_IOAS_MAP_READABLE),
			 0))
		return;
	if (iova < CHOICE_START ||
	    iova + area.length * SLOT - 1 > CHOICE_LAST) {
		fuzz_fail(me, "the IOVA is not in the allowed range");
		return;
	}
	place.iova = iova;
	check_part(me, &place, &area, 0, area.length, false);

	/* Two pages at least */
	part = 2 * (1 + pick(me, area.length / 2 - 1));
	if (part != area.length) {
		int err = fuzz_split(me, model_now.fd, ioas->id, iova,
				     part * SLOT);

		if (err == EOPNOTSUPP && !fuzz_can_split)
			part = area.length;
		else
			fuzz_expect(me, "split", err, 0);
	}
	length = part * SLOT;
	fuzz_expect(me, "unmap of the first part",
		    fuzz_unmap(me, model_now.fd, ioas->id, iova, &length), 0);
	fuzz_expect(me, "length of the first part", length != part * SLOT, 0);
	if (part == area.length)
		return;
	check_part(me, &place, &area, part, area.length - part, false);
	length = (__u64)(area.length - part) * SLOT;
	fuzz_expect(me, "unmap of the second part",
		    fuzz_unmap(me, model_now.fd, ioas->id, iova + part * SLOT,
			       &length),
		    0);
}

static void do_copy(struct worker *me, struct window *src, struct window *dst)
{
	struct iommu_ioas_copy cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA,
		.src_ioas_id = src->ioas->id,
		.dst_ioas_id = dst->ioas->id,
	};
	unsigned int prot = IOMMU_IOAS_MAP_READABLE;
	unsigned int map_align = dst->ioas->map_align;
	unsigned int start, length, to, end, i;
	struct area parts[MAX_AREAS];
	unsigned int num_parts = 0;
	bool read_only = false;
	int want = 0;

	if (!src->num_areas || dst->num_areas >= MAX_AREAS / 2)
		return;
	if (chance(me, 70))
		prot |= IOMMU_IOAS_MAP_WRITEABLE;
	i = pick(me, src->num_areas);
	start = src->areas[i].start;
	end = end_of(&src->areas[min_u(i + pick(me, 3), src->num_areas - 1)]);
	if (chance(me, 50)) {
		start += pick(me, src->areas[i].length);
		end = start + 1 + pick(me, end - start);
	}
	if (chance(me, 90)) {
		start &= ~1;
		end += end & 1;
	}
	length = end - start;
	if (length >= WINDOW_SLOTS)
		return;
	to = pick(me, WINDOW_SLOTS - length);
	if (chance(me, 90))
		to &= ~1;

	if (!is_mapped(src, start, length))
		want = ENOENT;
	else if (misaligned(to, map_align))
		want = EINVAL;
	i = want == ENOENT ? src->num_areas : find(src, start);
	for (; i != src->num_areas && src->areas[i].start < end; i++) {
		struct area part = src->areas[i];
		unsigned int first = part.start > start ? part.start : start;

		part.offset += first - part.start;
		part.length = min_u(end_of(&part), end) - first;
		part.start = to + first - start;
		part.prot = prot;
		part.pins = 0;
		if (num_parts == MAX_AREAS / 2)
			return;
		parts[num_parts++] = part;
		/* Each area, not only what they are together */
		if (misaligned(part.length, map_align) ||
		    misaligned(part.offset, map_align))
			want = EINVAL;
		if ((prot & IOMMU_IOAS_MAP_WRITEABLE) && !part.writable)
			read_only = true;
	}
	if (!want && !is_free(dst, to, length))
		want = EEXIST;
	if (!want && read_only)
		want = EPERM;

	cmd.flags |= prot;
	cmd.length = (__u64)length * SLOT;
	cmd.src_iova = iova_of(src, start);
	cmd.dst_iova = iova_of(dst, to);
	i = CALL(me, OP_COPY, model_now.fd, IOMMU_IOAS_COPY, cmd);
	fuzz_note(me, cmd.src_iova, cmd.dst_iova, cmd.length);
	if (!fuzz_expect(me, "copy", i, want))
		return;
	if (!want)
		for (i = 0; i != num_parts; i++)
			insert_area(dst, parts[i]);
	check_around(me, dst, to, length);
}

static void do_unmap(struct worker *me, struct window *window)
{
	unsigned int start, end, i, removed = 0;
	__u64 length;
	int want = 0;

	if (!window->num_areas && chance(me, 90))
		return;
	i = window->num_areas ? pick(me, window->num_areas) : 0;
	if (!window->num_areas || chance(me, 3)) {
		start = 0;
		end = WINDOW_SLOTS + WINDOW_SLOTS / 2;
	} else if (chance(me, 50)) {
		start = window->areas[i].start;
		end = end_of(&window->areas[i]);
	} else if (chance(me, 50)) {
		start = window->areas[i].start;
		i = min_u(i + pick(me, 5), window->num_areas - 1);
		end = end_of(&window->areas[i]);
		/* The rim may be free */
		start -= chance(me, 20) ? min_u(start, pick(me, 8)) : 0;
		end += chance(me, 20) ? pick(me, 8) : 0;
	} else {
		start = pick(me, WINDOW_SLOTS);
		end = start + 1 + pick(me, 1024);
	}

	/* From left to right, until one does not lie in the range as a whole */
	for (i = find(window, start);
	     i < window->num_areas && window->areas[i].start < end;) {
		struct area area = window->areas[i];

		if (area.start < start || end_of(&area) > end) {
			want = ENOENT;
			break;
		}
		drop_pins(window, &area);
		remove_area(window, i);
		memset(&window->must[area.start], 0, area.length);
		memset(&window->may[area.start], 0, area.length);
		removed += area.length;
	}
	if (!removed)
		want = ENOENT;

	length = (__u64)(end - start) * SLOT;
	if (!fuzz_expect(me, "unmap",
			 fuzz_unmap(me, model_now.fd, window->ioas->id,
				    iova_of(window, start), &length),
			 want))
		return;
	if (!want && length != (__u64)removed * SLOT)
		fuzz_fail(me, "unmapped %llu bytes, not %llu", length,
			  (__u64)removed * SLOT);
	check_around(me, window, start, end - start);
}

/* Where something would be cut. An end of an area cuts nothing. */
static bool may_be_edge(const struct window *window, unsigned int edge,
			unsigned int slot_inside)
{
	unsigned int i = find(window, slot_inside);

	if (!misaligned(edge, window->ioas->split_align))
		return true;
	return i != window->num_areas && window->areas[i].start <= slot_inside &&
	       (window->areas[i].start == edge ||
		end_of(&window->areas[i]) == edge);
}

/*
 * May the area be cut at both edges of the range, with what is pinned there? The
 * kernel knows how often an area is pinned, and which pages are, but not through
 * which area of those that share the pages.
 */
static bool pins_allow(struct worker *me, const struct window *window,
		       const struct area *area, unsigned int start,
		       unsigned int end)
{
	unsigned int low = area->offset, high = low + area->length;
	unsigned int cut[2] = { low, high };
	unsigned int parts[3] = {}, sum, i, j, k;
	struct model *model = me->state;

	if (!area->pins)
		return true;
	if (start > area->start)
		cut[0] += start - area->start;
	if (end < end_of(area))
		cut[1] -= end_of(area) - end;
	for (i = 0; i != NUM_IOAS; i++) {
		const struct window *other = &model->windows[i];

		for (j = 0; j != other->num_areas; j++) {
			const struct area *same = &other->areas[j];

			if (same->pages != area->pages || !same->pins)
				continue;
			for (k = 0; k != other->num_pins; k++) {
				unsigned int from = other->pins[k].start;
				unsigned int to = from + other->pins[k].length;

				from = from > same->start ? from : same->start;
				to = min_u(to, end_of(same));
				if (from >= to)
					continue;
				from += same->offset - same->start;
				to += same->offset - same->start;
				if (from < low || to > high)
					continue;
				if (to <= cut[0])
					parts[0]++;
				else if (from >= cut[0] && to <= cut[1])
					parts[1]++;
				else if (from >= cut[1])
					parts[2]++;
				else
					return false;
			}
		}
	}
	sum = parts[0] + parts[1] + parts[2];
	return sum == area->pins || sum == parts[0] || sum == parts[1] ||
	       sum == parts[2];
}

/* Take away the areas of a range, in which none lies in part */
static void remove_range(struct window *window, unsigned int start,
			 unsigned int end)
{
	unsigned int i = find(window, start);

	while (i != window->num_areas && window->areas[i].start < end) {
		struct area area = window->areas[i];

		drop_pins(window, &area);
		remove_area(window, i);
	}
	memset(&window->must[start], 0, end - start);
	memset(&window->may[start], 0, end - start);
}

static void do_split(struct worker *me, struct window *window)
{
	unsigned int start, end, i, slot;
	bool carve = chance(me, 40);
	bool cuts = false;
	int want = 0, err;

	if (!window->num_areas || window->num_areas >= MAX_AREAS)
		return;
	i = pick(me, window->num_areas);
	start = window->areas[i].start + pick(me, window->areas[i].length);
	if (chance(me, 15))
		start = window->areas[i].start;
	if (chance(me, 30))
		i = min_u(i + pick(me, 4), window->num_areas - 1);
	end = end_of(&window->areas[i]);
	if (chance(me, 80))
		end = start + 1 + pick(me, end - start);
	if (chance(me, 5)) {
		start = pick(me, WINDOW_SLOTS);
		end = start + 1 + pick(me, 1024);
	}
	if (chance(me, 85)) {
		start &= ~1;
		end += end & 1;
	}

	if (!may_be_edge(window, start, start) ||
	    !may_be_edge(window, end, end - 1))
		want = EINVAL;
	else if (!is_mapped(window, start, end - start))
		want = ENOENT;
	else
		for (slot = start;; slot = end) {
			i = find(window, slot);
			if (i != window->num_areas &&
			    window->areas[i].start < slot) {
				cuts = true;
				if (!pins_allow(me, window, &window->areas[i],
						start, end))
					want = EBUSY;
			}
			if (slot == end)
				break;
		}

	err = fuzz_split_flags(me, model_now.fd, window->ioas->id,
			       carve ? IOMMU_IOAS_SPLIT_UNMAP : 0,
			       iova_of(window, start),
			       (__u64)(end - start) * SLOT);
	/* Small leaves may still be in the way or not, that is not modelled */
	if (cuts && !fuzz_can_split && err == EOPNOTSUPP)
		want = err;
	if (!fuzz_expect(me, carve ? "carve" : "split", err, want))
		return;
	if (!want) {
		me->cuts += cut(window, start);
		me->cuts += cut(window, end);
		count_pins(window);
		if (carve)
			remove_range(window, start, end);
	}
	check_around(me, window, start, end - start);

	/* An area that was not cut cannot be unmapped in part */
	i = find(window, start);
	if (i != window->num_areas && window->areas[i].length > 2 &&
	    chance(me, 25)) {
		__u64 part = window->ioas->split_align;

		fuzz_expect(me, "unmap of a part",
			    fuzz_unmap(me, model_now.fd, window->ioas->id,
				       iova_of(window, window->areas[i].start),
				       &part),
			    ENOENT);
	}
}

static void do_bad(struct worker *me, struct window *window)
{
	unsigned int map_align = window->ioas->map_align;
	unsigned int granule = window->ioas->split_align;
	const struct area *area;
	unsigned int start;

	if (!window->num_areas)
		return;
	area = &window->areas[pick(me, window->num_areas)];
	start = area->start + (misaligned(area->start, granule) ? 1 : 0);
	if (start + granule / SLOT > end_of(area))
		return;
	bad_call(me, model_now.fd, window->ioas->id, model_now.wrong_ids,
		 model_now.num_wrong_ids, iova_of(window, start), map_align);
}

static void do_query(struct worker *me, struct window *window)
{
	struct iommu_iova_range ranges[8];
	struct iommu_ioas_iova_ranges cmd = {
		.size = sizeof(cmd),
		.ioas_id = window->ioas->id,
		.num_iovas = 8,
		.allowed_iovas = (uintptr_t)ranges,
	};
	int err = CALL(me, OP_IOVA_RANGES, model_now.fd, IOMMU_IOAS_IOVA_RANGES,
		       cmd);

	fuzz_expect(me, "IOVA ranges", err, 0);
	fuzz_expect(me, "alignment of the IOAS", cmd.out_iova_alignment,
		    window->ioas->map_align);
}

struct model_op {
	void (*op)(struct worker *me, struct window *window);
	unsigned int weight;
};

static void do_copy_inside(struct worker *me, struct window *window)
{
	do_copy(me, window, some_window(me));
}

static const struct model_op model_ops[] = {
	{ do_split, 26 },     { do_map, 18 },	{ do_unmap, 16 },
	{ do_bad, 14 },	      { do_access, 8 }, { do_copy_inside, 7 },
	{ do_pin, 4 },	      { do_unpin, 3 },	{ do_set_dirty, 5 },
	{ do_dirty_read, 5 }, { do_query, 1 },	{ do_map_anywhere, 2 },
	{ do_join, 20 },
};

void *model_worker(void *arg)
{
	struct worker *me = arg;
	struct model *model = me->state;
	uint64_t end = me->calls + me->budget;
	unsigned int total = 0;
	unsigned int i;

	for (i = 0; i != ARRAY_SIZE(model_ops); i++)
		total += model_ops[i].weight;
	while (me->calls < end && !failed()) {
		unsigned int ticket = pick(me, total);

		for (i = 0; ticket >= model_ops[i].weight; i++)
			ticket -= model_ops[i].weight;
		model_ops[i].op(me, some_window(me));
	}
	for (i = 0; i != NUM_IOAS; i++)
		check_window(me, &model->windows[i]);
	return NULL;
}
