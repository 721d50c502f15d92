// SPDX-License-Identifier: GPL-2.0-only
/*
 * Joins, in the model of iommufd_split_fuzz: which holes are filled, with what,
 * and which areas become one.
 */
#include "iommufd_split_fuzz_model.h"

/* What would be mapped from @start to @end, if the pages of @area go that far? */
static bool reaches(const struct area *area, unsigned int start,
		    unsigned int end, struct area *fill)
{
	int offset = (int)area->offset + (int)start - (int)area->start;
	int length = end - start;

	if (offset < (int)area->pages_start ||
	    offset + length > (int)area->pages_end)
		return false;
	*fill = *area;
	fill->start = start;
	fill->length = length;
	fill->offset = offset;
	fill->pins = 0;
	return true;
}

/*
 * What is a hole filled with? Only the nearest area below and above is asked, and
 * in this window: others are further away than any pages are long.
 */
static int fill_hole(const struct window *window, unsigned int start,
		     unsigned int end, struct area *fill)
{
	unsigned int i = find(window, start);
	const struct area *below = i ? &window->areas[i - 1] : NULL;
	const struct area *above = NULL;
	unsigned int granule = window->ioas->split_align;
	struct area other;
	int err = ENOENT;

	if (i != window->num_areas)
		above = &window->areas[i];
	if (below && reaches(below, start, end, fill))
		err = 0;
	if (above && reaches(above, start, end, &other)) {
		if (!err &&
		    (other.pages != fill->pages || other.prot != fill->prot ||
		     other.offset != fill->offset))
			err = ENOTUNIQ;
		else
			err = 0;
		*fill = other;
	}
	/* An edge where an area begins or ends may be anywhere */
	if ((misaligned(start, granule) && (!below || end_of(below) != start)) ||
	    (misaligned(end, granule) && (!above || above->start != end)))
		err = EINVAL;
	return err;
}

/*
 * Does a pin end with @left and another one, or a second part of it, start with
 * @right? It may be that of any area of the same pages.
 */
static bool pinned_across(struct worker *me, const struct area *left,
			  const struct area *right)
{
	struct model *model = me->state;
	/* In pages: an area may end inside one */
	unsigned int last_page = (left->offset + left->length - 1) * SLOT / PAGE;
	unsigned int first_page = right->offset * SLOT / PAGE;
	bool ends = false, starts = false;
	unsigned int i, j, k;

	if (!left->pins || !right->pins)
		return false;
	for (i = 0; i != NUM_IOAS; i++) {
		const struct window *window = &model->windows[i];

		for (j = 0; j != window->num_areas; j++) {
			const struct area *area = &window->areas[j];

			if (area->pages != left->pages)
				continue;
			for (k = 0; k != window->num_pins; k++) {
				unsigned int from = window->pins[k].start;
				unsigned int to = from + window->pins[k].length;

				from = from > area->start ? from : area->start;
				to = min_u(to, end_of(area));
				if (from >= to)
					continue;
				from += area->offset - area->start;
				to += area->offset - area->start;
				ends |= (to - 1) * SLOT / PAGE == last_page;
				starts |= from * SLOT / PAGE == first_page;
			}
		}
	}
	return ends && starts;
}

static bool may_join(struct worker *me, const struct area *left,
		     const struct area *right)
{
	return left->pages == right->pages && left->prot == right->prot &&
	       left->offset + left->length == right->offset &&
	       !pinned_across(me, left, right);
}

/*
 * Join the areas that meet in the range or at its edges, from left to right.
 * Returns where the last two met, 0 if there were none.
 */
static unsigned int join_areas(struct worker *me, struct window *window,
			       unsigned int start, unsigned int end)
{
	unsigned int i = find(window, start ? start - 1 : 0);
	unsigned int met = 0;

	while (i + 1 < window->num_areas) {
		struct area *left = &window->areas[i];
		struct area *right = left + 1;

		if (end_of(left) > end || end_of(left) != right->start)
			break;
		if (!may_join(me, left, right)) {
			i++;
			continue;
		}
		met = right->start;
		left->length += right->length;
		left->pins += right->pins;
		remove_area(window, i + 1);
		me->joins++;
	}
	return met;
}

/* A range that has holes, or where areas meet, or anywhere */
static void pick_join(struct worker *me, const struct window *window,
		      unsigned int *start, unsigned int *end)
{
	unsigned int i = pick(me, window->num_areas);
	const struct area *area = &window->areas[i];

	*start = chance(me, 60) ? end_of(area) :
				  area->start + pick(me, area->length);
	i = min_u(i + 1 + pick(me, 4), window->num_areas - 1);
	*end = chance(me, 60) ? window->areas[i].start :
				*start + 1 + pick(me, 512);
	if (*end <= *start)
		*end = *start + 1;
	if (chance(me, 85)) {
		*start &= ~1;
		*end += *end & 1;
	}
	/* Pages may go on behind the window */
	*end = min_u(*end, WINDOW_SLOTS);
}

void do_join(struct worker *me, struct window *window)
{
	__u32 flags = chance(me, 60) ? IOMMU_IOAS_JOIN_FILL : 0;
	struct area fills[MAX_AREAS];
	unsigned int num_fills = 0;
	unsigned int start, end, slot, met, i;
	int want = 0;

	if (!window->num_areas)
		return;
	pick_join(me, window, &start, &end);
	if (start >= end)
		return;

	if (!flags && !is_mapped(window, start, end - start))
		want = ENOENT;
	for (slot = start; flags && !want && slot < end;) {
		unsigned int hole_end = end;

		i = find(window, slot);
		if (i != window->num_areas && window->areas[i].start <= slot) {
			slot = end_of(&window->areas[i]);
			continue;
		}
		if (i != window->num_areas)
			hole_end = min_u(end, window->areas[i].start);
		if (window->num_areas + num_fills >= MAX_AREAS)
			return;
		want = fill_hole(window, slot, hole_end, &fills[num_fills++]);
		slot = hole_end;
	}

	if (!fuzz_expect(me, flags ? "join that fills" : "join",
			 fuzz_join(me, model_now.fd, window->ioas->id, flags,
				   iova_of(window, start),
				   (__u64)(end - start) * SLOT),
			 want))
		return;
	if (want) {
		check_around(me, window, start, end - start);
		return;
	}
	for (i = 0; i != num_fills; i++)
		insert_area(window, fills[i]);
	met = join_areas(me, window, start, end);
	check_around(me, window, start, end - start);

	/* Nothing ends any more where two areas met */
	if (met && chance(me, 50)) {
		__u64 part;

		i = find(window, met);
		part = (__u64)(met - window->areas[i].start) * SLOT;
		fuzz_expect(me, "unmap of a part that was joined",
			    fuzz_unmap(me, model_now.fd, window->ioas->id,
				       iova_of(window, window->areas[i].start),
				       &part),
			    ENOENT);
	}
}
