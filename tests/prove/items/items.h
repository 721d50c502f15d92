/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a manual says of one item. Each format has a file that defines these, with bit positions from
 * the manual and nothing from our code.
 */
#include <stdbool.h>
#include <stdint.h>

#define BIT(n) (1ull << (n))
#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))

struct leaf {
	uint64_t oa; /* where its first byte goes */
	unsigned int lg2; /* log2 of its bytes */
	bool read, write, dirty;
	uint64_t rest; /* all other bits, those that are ignored too, each in one place for all sizes */
};

/* Whether the item is a leaf without a reserved bit set, in a table of this level; 0 holds the smallest. */
static bool spec_leaf(uint64_t item, unsigned int level, uint64_t enc, struct leaf *leaf);
/* Whether it points to a table, grants every right, and has no reserved bit set. */
static bool spec_table(uint64_t item, unsigned int level, uint64_t enc, uint64_t *oa);
/* Whether the item translates nothing. */
static bool spec_empty(uint64_t item);
/* The leaf sizes of the level, bit n for 2^n bytes. */
static uint64_t spec_sizes(unsigned int level);
