/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a manual says of one item. Each format has a file that defines these,
 * with bit positions from the manual and nothing from our code.
 */
#include <stdbool.h>

/* Any value at all: CBMC takes a function without a body so. */
u64 any64(void);
unsigned int any(void);

#define BIT(n) (1ull << (n))
#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))

struct leaf {
	u64 oa; /* where its first byte goes */
	unsigned int lg2; /* log2 of its bytes */
	bool read, write, dirty;
	u64 rest; /* all other bits, those that are ignored too, each in one place for all sizes */
};

/*
 * Whether the item is a leaf without a reserved bit set, in a table of this
 * level; 0 holds the smallest.
 */
static bool spec_leaf(u64 item, unsigned int level, u64 enc, struct leaf *leaf);
/* Whether it points to a table, grants every right, and has no reserved bit set. */
static bool spec_table(u64 item, unsigned int level, u64 enc, u64 *oa);
/* Whether the item translates nothing. */
static bool spec_empty(u64 item);
/* The leaf sizes of the level, bit n for 2^n bytes. */
static u64 spec_sizes(unsigned int level);
