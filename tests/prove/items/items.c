// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the compiled crate makes of items, against a specification that knows
 * nothing of it, for every item among all 2^64. Each function is one harness.
 * With CONTROL its last line cannot hold: CBMC has to say so, or the harness
 * looks at nothing.
 */
#include <assert.h>
#include "code.c" /* the crate, as wasm2c wrote it, with u64; the script makes it */
#include "items.h"
#include SPEC

#ifndef SPEC_FEATURES
#define SPEC_FEATURES 0
#endif
#ifndef SPEC_LEVEL_LG2
#define SPEC_LEVEL_LG2 9
#endif

#define assume(what) __CPROVER_assume(what)

#ifdef CONTROL
#define DONE assert(!"reached")
#else
#define DONE
#endif

/* What a trap in the wasm is: a panic, an access out of range, unreachable code. */
void wasm_rt_trap(wasm_rt_trap_t code)
{
	(void)code;
	assert(!"trap");
	assume(0);
}

static w2c_code code;

#define CALL(f, ...) w2c_code_##f(&code, ##__VA_ARGS__)

/* No encryption, or one bit of the address. */
static u64 any_enc(void)
{
	u64 enc = 0;

#ifdef SPEC_ENC
	unsigned int bit = any();

	assume(bit == 0 || (bit >= 32 && bit < 52));
	enc = bit ? BIT(bit) : 0;
#endif
	return enc;
}

/* Where memory may be: all of it below the encryption bit. */
static bool in_range(u64 oa, unsigned int lg2, u64 enc)
{
	u64 end = enc ? enc : BIT(SPEC_OA_BITS);

	return lg2 < 64 && BIT(lg2) <= end && oa <= end - BIT(lg2);
}

static u64 any_leaf(unsigned int *level, u64 enc, struct leaf *leaf)
{
	u64 item = any64();

	*level = any();
	assume(*level <= SPEC_TOP);
	assume(spec_leaf(item, *level, enc, leaf));
	assume(in_range(leaf->oa, leaf->lg2, enc));
	return item;
}

/* The crate reads a leaf as the manual does. */
void decode(void)
{
	struct leaf leaf;
	unsigned int level;
	u64 enc = any_enc(), item = any_leaf(&level, enc, &leaf);

	assert(CALL(kind, item, level) == 2);
	assert(CALL(leaf_oa, item, level, enc) == leaf.oa);
	assert(CALL(leaf_lg2, item, level, enc) == leaf.lg2);
	assert(CALL(is_single, item, level, enc) == (leaf.lg2 == SPEC_TABLE_LG2 + SPEC_LEVEL_LG2 * level));
	DONE;
}

/* What hardware sets changes nothing but that it is set. */
void hardware_bits(void)
{
	struct leaf leaf, after;
	unsigned int level;
	u64 enc = any_enc(), item = any_leaf(&level, enc, &leaf), set = any64();

	assume(!(set & ~CALL(hw_bits)));
	assert(spec_leaf(item | set, level, enc, &after));
	assert(after.oa == leaf.oa && after.lg2 == leaf.lg2);
	assert(after.read == leaf.read && after.write == leaf.write);
	assert(CALL(kind, item | set, level) == 2);
	assert(CALL(leaf_oa, item | set, level, enc) == leaf.oa);
	assert(CALL(leaf_lg2, item | set, level, enc) == leaf.lg2);
	assert(!SPEC_D || CALL(hw_bits) & SPEC_D);
	assert(CALL(dirty) == (SPEC_PRESET ? 0 : SPEC_D));
	DONE;
}

/*
 * Split. Whichever smaller leaf takes the place of whichever part of a leaf:
 * every byte goes where it went, with the same rights, and every other bit is
 * what it was, D included.
 */
void split(void)
{
	struct leaf old, new;
	unsigned int level, below = any(), size = any();
	u64 enc = any_enc(), item = any_leaf(&level, enc, &old);
	u64 at = any64(), byte = any64(), child, next, first, second;

	assume(below <= level && size < old.lg2 && (spec_sizes(below) & BIT(size)));
	assume(at < BIT(old.lg2) && !(at & (BIT(size) - 1)) && byte < BIT(size));

	child = CALL(child, item, level, at, size, below, enc);
	assert(spec_leaf(child, below, enc, &new));
	assert(new.lg2 == size);
	assert(new.oa + byte == old.oa + at + byte);
	assert(new.read == old.read && new.write == old.write);
	assert(new.dirty == old.dirty);
	assert(new.rest == old.rest);
	assert(CALL(kind, child, below) == 2 && CALL(leaf_oa, child, below, enc) == new.oa);

	/*
	 * Leaves that follow each other are made by adding: each is as far from
	 * the one before as the second from the first.
	 */
	if (at + BIT(size) < BIT(old.lg2)) {
		next = CALL(child, item, level, at + BIT(size), size, below, enc);
		first = CALL(child, item, level, 0, size, below, enc);
		second = CALL(child, item, level, BIT(size), size, below, enc);
		assert(next - child == second - first);
	}
	DONE;
}

/*
 * Two leaves, `at` bytes apart. Join takes them together if they go to memory
 * that lies so and all bits but A and D are the same, and only then.
 */
struct pair {
	struct leaf one, other;
	unsigned int level, below;
	u64 first, next, at, enc;
	bool goes_on;
};

static struct pair any_pair(void)
{
	struct pair pair;

	pair.enc = any_enc();
	pair.first = any_leaf(&pair.level, pair.enc, &pair.one);
	pair.next = any_leaf(&pair.below, pair.enc, &pair.other);
	pair.at = any64();
	assume(pair.at >= BIT(pair.one.lg2) && !(pair.at & (BIT(pair.other.lg2) - 1)));
	pair.goes_on = pair.other.oa == pair.one.oa + pair.at && pair.other.read == pair.one.read &&
		       pair.other.write == pair.one.write && !((pair.other.rest ^ pair.one.rest) & ~SPEC_A);
	return pair;
}

/*
 * Join. Of all leaves that the new one is made of this looks at the first and at
 * any other one, of any sizes and levels. The new leaf has the size that was
 * asked for, goes where the first one went, and has what both had; A and D if
 * one of them had. What is said of any other is said of all.
 */
void join(void)
{
	struct pair pair = any_pair();
	unsigned int above = any(), size = any();
	struct leaf new;
	u64 item;

	assume(above <= SPEC_TOP && pair.level <= above && pair.below <= above);
	assume(size < 64 && (spec_sizes(above) & BIT(size)));
	assume(pair.one.lg2 < size && pair.other.lg2 < size && pair.at < BIT(size));
	assume(!(pair.one.oa & (BIT(size) - 1)) && in_range(pair.one.oa, size, pair.enc));
	assert(CALL(goes_on, pair.first, pair.level, pair.at, pair.next, pair.below, pair.enc) == pair.goes_on);
	assume(pair.goes_on);
	item = CALL(joined, pair.first, pair.level, pair.first | pair.next, size, above, pair.enc);
	assert(spec_leaf(item, above, pair.enc, &new));
	assert(new.lg2 == size && new.oa == pair.one.oa);
	assert(new.read == pair.one.read && new.write == pair.one.write);
	assert(new.dirty == (pair.one.dirty || pair.other.dirty));
	assert(new.rest == (pair.one.rest | pair.other.rest));
	DONE;
}

/*
 * Leaves of one size that follow each other are found by adding: the item of the
 * second, but for A and D, is that of the first and a step, and then the step
 * from there on is the same.
 */
void join_step(void)
{
	struct pair pair = any_pair();
	u64 first = pair.first & ~CALL(hw_bits), next = pair.next & ~CALL(hw_bits), size = BIT(pair.one.lg2), step;

	assume(pair.level == pair.below && pair.one.lg2 == pair.other.lg2 && pair.at == size);
	assume(in_range(pair.one.oa, pair.one.lg2 + 1, pair.enc));
	step = CALL(child, first, pair.level, size, pair.one.lg2, pair.level, pair.enc) - first;
	assert((next == first + step) == pair.goes_on);
	if (pair.goes_on && in_range(pair.other.oa, pair.one.lg2 + 1, pair.enc))
		assert(CALL(child, next, pair.level, size, pair.one.lg2, pair.level, pair.enc) - next == step);
	DONE;
}

/*
 * A table item leads where it should, takes no right away, and stays what it is
 * when hardware sets A or D in it.
 */
void table(void)
{
	unsigned int level = any();
	u64 enc = any_enc(), oa = any64(), set = any64(), found, item;

	assume(level >= SPEC_TABLES_FROM && level <= SPEC_TOP);
	assume(!(oa & (BIT(SPEC_TABLE_LG2) - 1)) && in_range(oa, SPEC_TABLE_LG2, enc));
	item = CALL(table, oa, level, enc);
	assert(spec_table(item, level, enc, &found) && found == oa);
	assume(!(set & ~CALL(hw_bits)));
	assert(CALL(kind, item | set, level) == 1 && CALL(table_oa, item | set, enc) == oa);
	assert(!spec_empty(item));
	DONE;
}

/*
 * An empty item is empty, also to hardware, and stays so when hardware sets bits
 * in it.
 */
void empty(void)
{
	unsigned int level = any();
	u64 set = any64();

	assume(level <= SPEC_TOP);
	assert(CALL(kind, 0, level) == 0 && spec_empty(0));
	assume(!(set & ~CALL(hw_bits)));
	assert(spec_empty(set));
	assert(CALL(kind, set, level) == 0);
	DONE;
}

/*
 * Map: a leaf of any size that the manual has, and no other, goes where it
 * should with the rights that were asked for.
 */
void map(void)
{
	struct leaf leaf;
	unsigned int level = any(), size = any(), prot = any();
	u64 enc = any_enc(), oa = any64(), item;

	assume(level <= SPEC_TOP);
	assert(CALL(leaf_sizes, level, SPEC_FEATURES) == spec_sizes(level));
	assume(size < 64 && (spec_sizes(level) & BIT(size)) && prot < 64);
	assume(!(oa & (BIT(size) - 1)) && in_range(oa, size, enc));
	item = CALL(map, oa, size, level, prot, SPEC_FEATURES, enc);
	assume(prot & 3 && item);
	assert(spec_leaf(item, level, enc, &leaf));
	assert(leaf.oa == oa && leaf.lg2 == size);
	assert(leaf.write == !!(prot & 2));
	assert(leaf.read || !(prot & 1));
	assert(leaf.dirty == (SPEC_PRESET && leaf.write));
	DONE;
}
