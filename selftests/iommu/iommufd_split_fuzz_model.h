/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the model of iommufd_split_fuzz knows: windows, areas, domains.
 */
#ifndef __SELFTEST_IOMMUFD_SPLIT_FUZZ_MODEL
#define __SELFTEST_IOMMUFD_SPLIT_FUZZ_MODEL

#include "iommufd_split_fuzz.h"

enum {
	NUM_IOAS = 2,
	MAX_DOMAINS = 6,
	MAX_AREAS = 96,
	MAX_PINS = 12,
	/* 8M to work in, and as much that stays free */
	WINDOW_SLOTS = 8 * 1024 * 1024 / SLOT,
	/* Where the kernel may choose the IOVA, beyond all windows */
	CHOICE_START = 1 << 30,
	CHOICE_LAST = CHOICE_START + (1 << 28) - 1,
};

/* Everything in slots, relative to the window or to the block */
struct area {
	unsigned int start;
	unsigned int length;
	unsigned int block;
	unsigned int offset;
	/* Which map call made the pages. Copies and parts share them */
	unsigned int pages;
	/* The part of the block that the pages have, in whole pages */
	unsigned int pages_start;
	unsigned int pages_end;
	unsigned int prot;
	bool writable;
	unsigned int pins;
};

struct pin {
	__u32 id;
	unsigned int start;
	unsigned int length;
};

struct window {
	struct ioas *ioas;
	__u64 iova;
	int access;
	unsigned int num_areas;
	struct area areas[MAX_AREAS + 4];
	unsigned int num_pins;
	struct pin pins[MAX_PINS];
	/* Slots that a read of the dirty bitmap must, and may, report */
	bool must[WINDOW_SLOTS];
	bool may[WINDOW_SLOTS];
};

struct domain {
	__u32 hwpt_id;
	/* What may be asked for at once */
	unsigned int page;
};

struct ioas {
	__u32 id;
	/* The alignment that a map and a split must have */
	unsigned int map_align;
	unsigned int split_align;
	bool pins;
	/* Bits of a HWPT with dirty tracking are modelled in one domain */
	__u32 dirty_hwpt;
	/* The list only has domains that are attached and stay so under the lock */
	pthread_rwlock_t lock;
	unsigned int num_domains;
	unsigned int base_domains;
	struct domain domains[MAX_DOMAINS];
};

/* Of one worker */
struct model {
	struct window windows[NUM_IOAS];
	unsigned int next_pages;
};

/* Of all. model_round() fills it in */
struct model_round {
	int fd;
	struct ioas ioas[NUM_IOAS];
	/* Objects that are no IOAS */
	unsigned int num_wrong_ids;
	__u32 wrong_ids[8];
};

extern struct model_round model_now;

static inline __u64 iova_of(const struct window *window, unsigned int slot)
{
	return window->iova + (__u64)slot * SLOT;
}

static inline unsigned int end_of(const struct area *area)
{
	return area->start + area->length;
}

static inline bool misaligned(unsigned int slots, unsigned int alignment)
{
	return (slots * SLOT) & (alignment - 1);
}

static inline unsigned int align(unsigned int slots, unsigned int alignment)
{
	return alignment > SLOT ? slots & ~(alignment / SLOT - 1) : slots;
}

static inline uint8_t *memory_of(struct worker *me, const struct area *area,
				 unsigned int slot)
{
	return me->blocks[area->block].ptr +
	       (size_t)(area->offset + slot - area->start) * SLOT;
}

/* iommufd_split_fuzz_window.c: the areas of a window, and looks at the tables */
unsigned int find(const struct window *window, unsigned int slot);
bool is_free(const struct window *window, unsigned int start,
	     unsigned int length);
bool is_mapped(const struct window *window, unsigned int start,
	       unsigned int length);
void insert_area(struct window *window, struct area area);
void remove_area(struct window *window, unsigned int i);
bool cut(struct window *window, unsigned int slot);
void count_pins(struct window *window);
void check_part(struct worker *me, struct window *window,
		const struct area *area, unsigned int start,
		unsigned int length, bool thorough);
void check_around(struct worker *me, struct window *window, unsigned int start,
		  unsigned int length);
void check_window(struct worker *me, struct window *window);

/* iommufd_split_fuzz_users.c: accesses and dirty tracking */
void do_access(struct worker *me, struct window *window);
void do_pin(struct worker *me, struct window *window);
void do_unpin(struct worker *me, struct window *window);
void do_set_dirty(struct worker *me, struct window *window);
void do_dirty_read(struct worker *me, struct window *window);
void drop_pins(struct window *window, const struct area *gone);

/* iommufd_split_fuzz_join.c */
void do_join(struct worker *me, struct window *window);

/* iommufd_split_fuzz_model.c */
void *model_worker(void *worker);

#endif
