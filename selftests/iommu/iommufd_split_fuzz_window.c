// SPDX-License-Identifier: GPL-2.0-only
/*
 * The areas of a window in the model of iommufd_split_fuzz, and the comparison
 * with the tables of all domains.
 */
#include "iommufd_split_fuzz_model.h"

struct model_round model_now;

/* Index of the first area that ends behind @slot */
unsigned int find(const struct window *window, unsigned int slot)
{
	unsigned int i;

	for (i = 0; i != window->num_areas; i++)
		if (end_of(&window->areas[i]) > slot)
			break;
	return i;
}

bool is_free(const struct window *window, unsigned int start,
	     unsigned int length)
{
	unsigned int i = find(window, start);

	return i == window->num_areas ||
	       window->areas[i].start >= start + length;
}

bool is_mapped(const struct window *window, unsigned int start,
	       unsigned int length)
{
	unsigned int end = start + length;
	unsigned int i;

	for (i = find(window, start); i != window->num_areas; i++) {
		if (window->areas[i].start > start)
			return false;
		start = end_of(&window->areas[i]);
		if (start >= end)
			return true;
	}
	return false;
}

void insert_area(struct window *window, struct area area)
{
	unsigned int i = find(window, area.start);

	memmove(&window->areas[i + 1], &window->areas[i],
		(window->num_areas - i) * sizeof(area));
	window->areas[i] = area;
	window->num_areas++;
}

void remove_area(struct window *window, unsigned int i)
{
	window->num_areas--;
	memmove(&window->areas[i], &window->areas[i + 1],
		(window->num_areas - i) * sizeof(window->areas[0]));
}

/* Cut what lies across @slot. Returns true if there was something */
bool cut(struct window *window, unsigned int slot)
{
	unsigned int i = find(window, slot);
	struct area right;

	if (i == window->num_areas || window->areas[i].start >= slot)
		return false;
	right = window->areas[i];
	right.length = end_of(&right) - slot;
	right.offset += slot - right.start;
	right.start = slot;
	window->areas[i].length = slot - window->areas[i].start;
	insert_area(window, right);
	return true;
}

/* How often each area is pinned: a pin counts in every area that it lies in */
void count_pins(struct window *window)
{
	unsigned int i, j;

	for (i = 0; i != window->num_areas; i++)
		window->areas[i].pins = 0;
	for (j = 0; j != window->num_pins; j++) {
		const struct pin *pin = &window->pins[j];

		for (i = find(window, pin->start);
		     i != window->num_areas &&
		     window->areas[i].start < pin->start + pin->length;
		     i++)
			window->areas[i].pins++;
	}
}

static int check_map(struct worker *me, const struct domain *domain, __u64 iova,
		     unsigned int slots, const void *ptr)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MD_CHECK_MAP,
		.id = domain->hwpt_id,
		.check_map = { .iova = iova,
			       .length = (__u64)slots * SLOT,
			       .uptr = (uintptr_t)ptr },
	};
	int err = TEST_CALL(me, OP_CHECK_MAP, model_now.fd, cmd);

	fuzz_note(me, domain->hwpt_id, iova, slots * SLOT);
	return err;
}

/* Every domain has this part of an area. Long parts are only sampled */
void check_part(struct worker *me, struct window *window,
		const struct area *area, unsigned int start,
		unsigned int length, bool thorough)
{
	unsigned int sample = thorough ? length : min_u(length, 8);
	struct ioas *ioas = window->ioas;
	unsigned int i, at;

	pthread_rwlock_rdlock(&ioas->lock);
	for (i = 0; i != ioas->num_domains && !failed(); i++) {
		struct domain *domain = &ioas->domains[i];
		unsigned int places[3] = { 0, length - sample,
					   pick(me, length - sample + 1) };
		unsigned int j;

		for (j = 0; j != (sample == length ? 1 : 3); j++) {
			at = start + align(places[j], domain->page);
			fuzz_expect(me, "translation",
				    check_map(me, domain, iova_of(window, at),
					      sample, memory_of(me, area, at)),
				    0);
		}
	}
	pthread_rwlock_unlock(&ioas->lock);
}

static void check_area(struct worker *me, struct window *window, unsigned int i,
		       bool thorough)
{
	const struct area *area;

	if (i >= window->num_areas || failed())
		return;
	area = &window->areas[i];
	check_part(me, window, area, area->start, area->length, thorough);
}

/* No domain has anything at @slot, where nothing is mapped */
static void check_hole(struct worker *me, struct window *window,
		       unsigned int slot)
{
	struct ioas *ioas = window->ioas;
	unsigned int i;

	pthread_rwlock_rdlock(&ioas->lock);
	for (i = 0; i != ioas->num_domains && !failed(); i++) {
		struct domain *domain = &ioas->domains[i];
		unsigned int at = align(slot, domain->page);

		fuzz_expect(me, "translation of what is not mapped",
			    check_map(me, domain, iova_of(window, at),
				      domain->page / SLOT, me->blocks[0].ptr),
			    EINVAL);
	}
	pthread_rwlock_unlock(&ioas->lock);
}

/* What lies around and in the range is as the model has it */
void check_around(struct worker *me, struct window *window, unsigned int start,
		  unsigned int length)
{
	unsigned int i = find(window, start ? start - 1 : 0);
	unsigned int last = start + length;
	unsigned int checked = 0;

	if (length && start < WINDOW_SLOTS) {
		unsigned int slot = start + pick(me, length);

		if (is_free(window, slot, 2))
			check_hole(me, window, slot);
	}
	for (; i < window->num_areas && window->areas[i].start <= last; i++)
		if (checked++ < 4 || chance(me, 25))
			check_area(me, window, i, false);
}

void check_window(struct worker *me, struct window *window)
{
	unsigned int slot = 0;
	unsigned int i;

	for (i = 0; i != window->num_areas && !failed(); i++) {
		const struct area *area = &window->areas[i];

		check_area(me, window, i, true);
		if (area->start >= slot + 2) {
			check_hole(me, window, slot);
			check_hole(me, window, align(area->start - 2, PAGE));
		}
		slot = end_of(area);
		slot += slot & 1;
	}
}
