// SPDX-License-Identifier: GPL-2.0-only
/*
 * The algorithm, as the compiled crate has it, on a tiny format (tiny.rs): this
 * file is the memory that its tables are in, the hardware that walks them and
 * sets A and D between any two accesses, and the judge of every store.
 *
 * Whatever is any() may have every value at once, so one run of CBMC looks at
 * all contents and at all that hardware may do. It looks at one address, which
 * is any address.
 */
#include <assert.h>
#include <stdbool.h>
#include "code.c" /* the crate, as wasm2c wrote it; the script makes it */

#define assume(what) __CPROVER_assume(what)

#ifdef CONTROL
#define DONE assert(!"reached")
#else
#define DONE
#endif

bool nondet_bool(void);
u16 nondet_u16(void);

/*
 * The case: the pages from LO to before HI, and what is given. The script writes
 * a function for each, which sets these and calls its harness.
 */
static u8 LO, HI, GIVEN;

/* The format, as hardware reads it. Sizes and addresses in pages of 2^8 bytes. */
#ifdef INSTANCE_FOUR
#define ITEMS_LG2 2
#define TOP 1
#define TABLES 4
#define LARGEST 8

#else
#define ITEMS_LG2 1
#define TOP 2
#define TABLES 8
#define LARGEST 4

#endif
#define ITEMS (1u << ITEMS_LG2)
#define PAGES (1u << (ITEMS_LG2 * (TOP + 1)))

/* The low half of an item; above is where it leads. */
enum { PRESENT = 1 << 0, LEAF = 1 << 1, TWO = 1 << 2, EXEC = 1 << 3 };

/* The high half. */
enum { A = 1 << 0, D = 1 << 1, WRITE = 1 << 2, IGNORED = 1 << 3 };

/*
 * A table: not there yet, only software knows it, hardware can reach it, taken
 * out by an unmap, freed; its place taken by a leaf, and that flushed.
 */
enum state { UNUSED, OURS, LIVE, GATHERED, FREED, DETACHED, FLUSHED };

/* The items, both halves. */
static u16 low[16], high[16];
static u8 state[8];
static u8 tables; /* handed out, the top included */

/* An item by a number that is not a constant. */
#define P2(array, at, n) ((at) & 1 ? array[(n) + 1] : array[n])
#define P4(array, at, n) ((at) & 2 ? P2(array, at, (n) + 2) : P2(array, at, n))
#define P8(array, at, n) ((at) & 4 ? P4(array, at, (n) + 4) : P4(array, at, n))
#define PICK_STATE(at) P8(state, (at) / ITEMS, 0)
#define PICK(array, at) ((at) & 8 ? P8(array, at, 8) : P8(array, at, 0))

/* What a walk finds. */
struct leaf {
	bool mapped, dirty;
	u8 at, level; /* its item */
	u8 start, pages, oa; /* all of it */
	u16 attrs; /* rights and what is ignored */
};

static struct leaf walk(u32 page)
{
	struct leaf leaf = { 0 };
	u32 table = 0;

	for (int level = TOP; level >= 0; level--) {
		u32 lg2 = ITEMS_LG2 * level;
		u32 at = table * ITEMS + (page >> lg2 & (ITEMS - 1));

		u16 now = PICK(low, at);

		if (!(now & PRESENT))
			break;
		if (now & LEAF) {
			u16 more = PICK(high, at);

			leaf.mapped = true;
			leaf.at = at;
			leaf.level = level;
			leaf.pages = now & TWO ? 2u << lg2 : 1u << lg2;
			leaf.start = page & ~(leaf.pages - 1);
			leaf.oa = now >> 8;
			leaf.attrs = (more & (WRITE | IGNORED)) | (now & EXEC) << 8;
			leaf.dirty = more & D || (now & TWO && PICK(high, at ^ 1) & D);
			assert(!(leaf.oa & (leaf.pages - 1)));
			break;
		}
		table = now >> 8;
		assert(level > 0 && table < TABLES && P8(state, table, 0) == LIVE);
		if (table >= TABLES)
			break;
	}
	return leaf;
}

/* The address that is looked at, what it was translated to, and whether a device wrote to it. */
static u8 probe;
static struct leaf was;
static bool written, any_dirty;

/* A join: whatever way a device writes, its D must not be lost. */
static bool joining;

/* What the operation may unmap: nothing, or the pages from `hole` to before `hole_end`. */
static u8 hole, hole_end;

/* What it may map: nothing, or the pages from `goal` to before `goal_end`, so. */
static u8 goal, goal_end, goal_oa;
static u16 goal_attrs;

static bool is_same(struct leaf is)
{
	return is.mapped == was.mapped &&
	       (!is.mapped || ((u8)(is.oa + (probe - is.start)) == (u8)(was.oa + (probe - was.start)) && is.attrs == was.attrs));
}

static bool in_hole(void)
{
	return probe >= hole && probe < hole_end;
}

static bool in_goal(void)
{
	return probe >= goal && probe < goal_end && !was.mapped;
}

static bool is_goal(struct leaf is)
{
	return is.mapped && (u8)(is.oa + (probe - is.start)) == (u8)(goal_oa + (probe - goal)) && is.attrs == goal_attrs;
}

/* After every store that hardware can see. */
static void judge(void)
{
	struct leaf is = walk(probe);

	assert(is_same(is) || (in_hole() && !is.mapped) || (in_goal() && is_goal(is)));
}

/* A translation that hardware holds. */
static struct leaf cached;

static bool in_leaf(u32 page, struct leaf leaf)
{
	return page >= leaf.start && page - leaf.start < leaf.pages;
}

/* Whether both pages of the leaf are of one item, and so is its D. */
static bool same_item(u32 one, u32 other, struct leaf leaf)
{
#ifdef INSTANCE_FOUR
	u32 lg2 = leaf.pages >= 4 ? 2 : 0;

	return one >> lg2 == other >> lg2;
#else
	(void)one, (void)other, (void)leaf;
	return true;
#endif
}

/* Whether hardware may still use what is in the table. */
static bool is_hot(u8 now)
{
	return now == LIVE || now == GATHERED || now == DETACHED;
}

/*
 * Before every access of software to what hardware can reach: a device may use
 * any address, by a walk now or by what is cached, which sets A or D, and the
 * IOMMU may keep what it found. With a cached translation it does not look
 * again before it sets them.
 */
static void hardware(void)
{
	u16 page = nondet_u16(), set = nondet_u16() & (A | D);
	struct leaf found, used;
	bool blind = nondet_bool();

	assume(page < PAGES);
	found = walk(page);
	used = blind ? cached : found;
	if (used.mapped) {
		if (!(used.attrs & WRITE))
			set &= ~D;
		assert(is_hot(PICK_STATE(used.at)));
		/* Written so that what it cannot reach stays what it is for CBMC, too. */
		for (u32 i = 0; i < TABLES * ITEMS; i++) {
			/* It is empty: so it was all the time, if nothing is unmapped. */
			if (!(low[i] & PRESENT) && hole == hole_end)
				continue;
			if (is_hot(state[i / ITEMS]))
				high[i] |= used.at == i ? set : 0;
		}
		if (set & D) {
			any_dirty = true;
			if (!blind && in_leaf(probe, used) && same_item(probe, page, used) && nondet_bool())
				written = true;
		}
		if (joining && (set & D || used.dirty) && in_leaf(probe, used) && nondet_bool())
			written = true;
		if (blind && set & D)
			cached.dirty = true;
	}
	if (nondet_bool())
		cached = found;
}

static void write(u32 at, u32 new_low, u32 new_high)
{
	assert(!(new_low & 0xffff0000) && !(new_high & 0xffff0000));
	low[at] = new_low;
	high[at] = new_high;
}

/* The item at an address of the crate's. */
static u32 place(u32 address)
{
	u32 offset = address - w2c_code_places(0);
	u32 at = offset / 8;

	assert(!(offset & 7) && at < TABLES * ITEMS);
	assert(state[at / ITEMS] != UNUSED && state[at / ITEMS] != FREED);
	return at;
}

static u32 read_high;

u32 w2c_env_item_read(struct w2c_env *env, u32 address)
{
	u32 at = place(address);

	(void)env;
	if (is_hot(state[at / ITEMS]))
		hardware();
	read_high = high[at];
	return low[at];
}

u32 w2c_env_item_high(struct w2c_env *env)
{
	(void)env;
	return read_high;
}

void w2c_env_item_init(struct w2c_env *env, u32 address, u32 new_low, u32 new_high)
{
	u32 at = place(address);

	(void)env;
	assert(state[at / ITEMS] == OURS);
	write(at, new_low, new_high);
}

/* The levels of the tables that hardware can reach. */
static u8 level_of[TABLES];

/* Whatever is below an item of this level can be reached now. */
static void reach(u32 at, u32 level)
{
	u32 table = low[at] >> 8;

	if ((low[at] & (PRESENT | LEAF)) != PRESENT)
		return;
	assert(level > 0 && table < tables && state[table] == OURS);
	state[table] = LIVE;
	level_of[table] = level - 1;
	if (level > 1) {
		for (u32 i = 0; i < ITEMS; i++)
			reach(table * ITEMS + i, level - 1);
	}
}

/* A leaf has taken the place of a table: it, and all below, is reached from what is cached only. */
static void detach(u32 table, u32 level)
{
	assert(state[table] == LIVE && level_of[table] == level);
	state[table] = DETACHED;
	for (u32 i = 0; i < ITEMS && level; i++) {
		u16 now = low[table * ITEMS + i];

		if ((now & (PRESENT | LEAF)) == PRESENT)
			detach(now >> 8, level - 1);
	}
}

static u8 stores;

static void store(u32 at, u32 new_low, u32 new_high)
{
	u16 old = low[at];

	assert(state[at / ITEMS] == LIVE);
	write(at, new_low, new_high);
	stores++;
	if (old != new_low) {
		if ((old & (PRESENT | LEAF)) == PRESENT && new_low & LEAF)
			detach(old >> 8, level_of[at / ITEMS] - 1);
		reach(at, level_of[at / ITEMS]);
	}
	judge();
}

u32 w2c_env_item_is(struct w2c_env *env, u32 address, u32 old_low, u32 old_high)
{
	u32 at = place(address);

	(void)env;
	hardware();
	return low[at] == old_low && high[at] == old_high;
}

void w2c_env_item_replace(struct w2c_env *env, u32 address, u32 new_low, u32 new_high)
{
	u32 at = place(address);

	(void)env;
	store(at, new_low, new_high);
}

void w2c_env_item_set(struct w2c_env *env, u32 address, u32 new_low, u32 new_high)
{
	u32 at = place(address);

	(void)env;
	/* Hardware may just set a bit of a leaf. */
	assert(hole < hole_end || !(low[at] & LEAF));
	assert(!joining);
	hardware();
	store(at, new_low, new_high);
}

void w2c_env_item_clear_bits(struct w2c_env *env, u32 address, u32 low_bits, u32 high_bits)
{
	(void)env, (void)address, (void)low_bits, (void)high_bits;
	assert(!"nothing here reads dirty bits");
}

/* There is memory for so many tables. */
static u8 memory_for = 255;
static bool no_memory;

u32 w2c_env_table_fails(struct w2c_env *env)
{
	(void)env;
	if (memory_for)
		memory_for--;
	else
		no_memory = true;
	return no_memory;
}

u32 w2c_env_table_alloc(struct w2c_env *env, u32 zeroed)
{
	u32 table = tables;

	(void)env;
	assert(table < TABLES);
	tables++;
	state[table] = OURS;
	for (u32 i = 0; i < ITEMS; i++) {
		low[table * ITEMS + i] = zeroed ? 0 : nondet_u16();
		high[table * ITEMS + i] = zeroed ? 0 : nondet_u16();
	}
	return table;
}

void w2c_env_table_free(struct w2c_env *env, u32 table)
{
	(void)env;
	assert(table < tables && state[table] == OURS);
	state[table] = FREED;
}

static bool leads(u32 from, u32 level, u32 table)
{
	for (u32 i = 0; i < ITEMS && level; i++) {
		u16 now = low[from * ITEMS + i];

		if ((now & (PRESENT | LEAF)) == PRESENT && (now >> 8 == table || leads(now >> 8, level - 1, table)))
			return true;
	}
	return false;
}

void w2c_env_gather_table(struct w2c_env *env, u32 table, u32 level)
{
	(void)env;
	assert(table < tables && state[table] == LIVE && level_of[table] + 1 == level);
	assert(!leads(0, TOP, table));
	state[table] = GATHERED;
}

/* What is to be flushed. */
static struct { u32 start, end; } flushes[4];
static u8 flush_count;

void w2c_env_gather_range(struct w2c_env *env, u32 page, u32 pages)
{
	(void)env;
	assert(flush_count < 4);
	flushes[flush_count].start = page;
	flushes[flush_count].end = page + pages;
	flush_count++;
}

void w2c_env_replaced(struct w2c_env *env, u32 page, u32 pages_lg2, u32 level)
{
	assert(level <= TOP && pages_lg2 < 8);
	w2c_env_gather_range(env, page, 1u << pages_lg2);
}

static bool is_flushed(struct leaf leaf)
{
	for (u32 i = 0; i < 4; i++) {
		if (i < flush_count && flushes[i].start <= leaf.start && leaf.start + leaf.pages <= flushes[i].end)
			return true;
	}
	return false;
}

/* A translation that lies in a range as a whole is gone after it. */
static void drop(void)
{
	if (is_flushed(cached))
		cached.mapped = false;
}

void w2c_env_flush(struct w2c_env *env)
{
	(void)env;
	hardware();
	drop();
}

/* The first page that a table serves. */
static u8 first_page[TABLES];

/*
 * The flush of a join: leaves of these levels, and table items of these, that lie
 * in the range as a whole. Those that overlap it stay.
 */
void w2c_env_join_flush(struct w2c_env *env, u32 page, u32 pages, u32 leaf_levels, u32 table_levels)
{
	(void)env;
	hardware();
	if (cached.mapped && leaf_levels >> cached.level & 1 && page <= cached.start &&
	    cached.start + cached.pages <= page + pages)
		cached.mapped = false;
	for (u32 i = 0; i < TABLES; i++) {
		u32 level = level_of[i] + 1;

		if (state[i] == DETACHED && table_levels >> level & 1 && page <= first_page[i] &&
		    first_page[i] + (1u << ITEMS_LG2 * level) <= page + pages)
			state[i] = FLUSHED;
	}
}

void w2c_env_join_free(struct w2c_env *env, u32 table)
{
	(void)env;
	assert(table < tables && state[table] == FLUSHED && !leads(0, TOP, table));
	state[table] = FREED;
}

void wasm_rt_trap(wasm_rt_trap_t code)
{
	(void)code;
	assert(!"trap");
	assume(0);
}

static w2c_code code;

static void begin(void)
{
	init_globals(&code);
	init_memories(&code);
	tables = 1;
	state[0] = LIVE;
	level_of[0] = TOP;
}

/* A leaf with any rights and bits. */
static void any_leaf(u32 at, u32 oa, u16 two)
{
	low[at] = PRESENT | LEAF | two | oa << 8;
	high[at] = nondet_u16() & (A | D | WRITE | IGNORED);
	if (two) {
		low[at + 1] = low[at];
		high[at + 1] = (high[at] & ~(A | D)) | (nondet_u16() & (A | D));
	}
}

static void look(void)
{
	probe = nondet_u16();
	assume(probe < PAGES);
	was = walk(probe);
}

/* At the end of any operation. */
static void ended(void)
{
	struct leaf is = walk(probe);

	/* No dirty bit is lost, and none comes from nowhere. */
	if (is.mapped) {
		assert(!(was.dirty || written) || is.dirty);
		assert(!is.dirty || was.dirty || any_dirty);
	}
	/* What is there no more is flushed, at its old size. */
	if (was.mapped && (!is.mapped || is.start != was.start || is.pages != was.pages))
		assert(is_flushed(was));
	/* No table is left over, none is lost. */
	for (u32 i = 0; i < TABLES; i++)
		assert(state[i] != OURS && (state[i] != LIVE || !i || leads(0, TOP, i)));
}

/* After the flush: nothing leads into the hole, all else is as it was. */
static void only_hole_is_gone(void)
{
	struct leaf is = walk(probe);

	assert(in_hole() ? !is.mapped : is_same(is));
	assert(!cached.mapped || hole == hole_end || cached.start >= hole_end || cached.start + cached.pages <= hole);
}

/* At the end of a split or a carve, which ended with this code. */
static void was_split(u32 result)
{
	assert(result != 2 || no_memory);
	if (result) {
		assert(!stores && is_same(walk(probe)));
	} else {
		struct leaf low = walk(LO), high = walk(HI - 1);

		assert(!low.mapped || low.start == LO);
		assert(!high.mapped || high.start + high.pages == HI);
		only_hole_is_gone();
	}
	ended();
}

/* The pages of a range, from LO to before HI. */
static void leaves(void)
{
	begin();
#ifdef INSTANCE_FOUR
	any_leaf(0, 64, TWO); /* 8 pages */
	any_leaf(2, 48, 0); /* 4 pages */
	any_leaf(3, 32, 0);
#else
	any_leaf(0, 64, 0); /* 4 pages */
	any_leaf(1, 48, 0);
#endif
	look();
}

void split(void)
{
	u32 result;

	leaves();
	result = w2c_code_split(&code, LO, HI - LO);
	assert(!result);
	was_split(result);
	DONE;
}

void carve(void)
{
	u32 result;

	leaves();
	hole = LO;
	hole_end = HI;
	result = w2c_code_carve(&code, LO, HI - LO);
	assert(!result);
	was_split(result);
	DONE;
}

/* Without memory for the last table, or for any, nothing has changed. */
void fails(void)
{
	u32 result;

	leaves();
	memory_for = GIVEN;
	result = w2c_code_split(&code, LO, HI - LO);
	assert(result == 2);
	was_split(result);
	DONE;
}

/* A table that hardware can reach, and the item that leads to it. */
static void live_table(u32 at, u32 level)
{
	low[at] = PRESENT | tables << 8;
	state[tables] = LIVE;
	level_of[tables] = level;
	tables++;
}

/* Tables, and all that can be in them. */
static void tree(void)
{
	begin();
#ifdef INSTANCE_FOUR
	any_leaf(0, 64, TWO); /* pages 0 to 7 */
	live_table(2, 0);
	any_leaf(3, 32, 0); /* pages 12 to 15 */
	any_leaf(4, 80, TWO); /* pages 8, 9 */
	any_leaf(6, 83, 0);
	any_leaf(7, 87, 0);
#else
	live_table(0, 1);
	any_leaf(1, 48, 0); /* pages 4 to 7 */
	any_leaf(2, 64, 0); /* pages 0, 1 */
	live_table(3, 0);
	any_leaf(4, 71, 0);
	any_leaf(5, 81, 0);
#endif
	look();
}

/* The range's leaves are gone, whole ones, so many pages from its start on. */
void unmap(void)
{
	u32 pages;

	tree();
	hole = LO;
	hole_end = LO + GIVEN;
	pages = w2c_code_unmap(&code, LO, HI - LO);
	assert(pages == GIVEN);
	w2c_env_flush(0); /* as the caller does */
	only_hole_is_gone();
	ended();
	DONE;
}

/* Tables without a leaf, and one leaf. */
static void mostly_empty(void)
{
	begin();
#ifdef INSTANCE_FOUR
	live_table(2, 0);
	any_leaf(3, 32, 0); /* pages 12 to 15 */
#else
	live_table(0, 1);
	live_table(3, 0); /* pages 2, 3 */
	any_leaf(5, 81, 0); /* page 3 */
	live_table(2, 0); /* pages 0, 1 */
#endif
	look();
}

/* What the range translates to; so many pages of it, if something stops the map. */
static void mapped(u32 expected)
{
	u32 result, pages;
	struct leaf is;

	goal = LO;
	goal_end = HI;
	goal_oa = 128 + LO;
	goal_attrs = nondet_u16() & (WRITE | IGNORED);
	result = w2c_code_map(&code, LO, HI - LO, goal_oa, goal_attrs);
	pages = result >> 3;
	assert((result & 7) == expected && no_memory == (expected == 2));
	assert(expected ? pages < HI - LO : pages == HI - LO);
	is = walk(probe);
	if (probe >= LO && probe < LO + pages)
		assert(is_goal(is));
	else
		assert(is_same(is));
	ended();
	DONE;
}

void map(void)
{
	mostly_empty();
	mapped(0);
}

/* There is a leaf in the range. */
void map_busy(void)
{
	mostly_empty();
	mapped(3);
}

void map_fails(void)
{
	mostly_empty();
	memory_for = GIVEN;
	mapped(2);
}

/*
 * Trees for joins. What is not hardware's to set is the same everywhere, whatever
 * it is, but for EXEC, which each tree has where it wants it: what to join is
 * decided by constants.
 */
static u16 common;

static void part(u32 at, u32 oa, u16 more)
{
	low[at] = PRESENT | LEAF | more | oa << 8;
	high[at] = common | (nondet_u16() & (A | D));
	if (more & TWO) {
		low[at + 1] = low[at];
		high[at + 1] = common | (nondet_u16() & (A | D));
	}
}

/* A table, by its item, with a leaf of one item for each page from `oa` on. */
static u32 small(u32 at, u32 level, u32 page, u32 oa)
{
	u32 table = tables;

	live_table(at, level);
	first_page[table] = page;
	for (u32 i = 0; i < ITEMS && !level; i++)
		part(table * ITEMS + i, oa + i, 0);
	return table * ITEMS;
}

/* As each page was before. */
static struct leaf before[PAGES];
static u8 had_dirty[PAGES];

/* Whether the pages of a block can be one leaf. */
static bool is_one(u32 start, u32 pages)
{
	if (before[start].oa + start - before[start].start & (pages - 1))
		return false;
	for (u32 i = start; i < start + pages; i++) {
		u32 oa = before[start].oa + (start - before[start].start) + (i - start);

		if (!before[i].mapped || before[i].attrs != before[start].attrs ||
		    before[i].oa + (i - before[i].start) != oa)
			return false;
	}
	return true;
}

/* The largest leaf of the range that a page can be in, or the one that it was in. */
static u32 largest[PAGES];

static void expect(void)
{
	for (u32 page = 0; page < PAGES; page++)
		before[page] = walk(page);
	for (u32 page = 0; page < PAGES; page++) {
		had_dirty[page] = before[page].dirty;
		largest[page] = before[page].pages;
		for (u32 pages = 2 * before[page].pages; pages && pages <= LARGEST; pages *= 2) {
			u32 start = page & ~(pages - 1);

			if (start >= LO && start + pages <= HI && is_one(start, pages))
				largest[page] = pages;
		}
	}
}

static void joinable(void)
{
	u32 i, j;

	begin();
	common = nondet_u16() & (WRITE | IGNORED);
#ifdef INSTANCE_FOUR
	switch (GIVEN) {
	case 0: /* pages 0 to 3 and 4 to 7 small ones */
		small(0, 0, 0, 64);
		small(1, 0, 4, 68);
		part(2, 48, 0); /* pages 8 to 11 */
		part(3, 32, 0); /* pages 12 to 15 */
		break;
	default: /* a group and small ones, and a leaf that goes on */
		i = small(0, 0, 0, 64);
		part(i, 64, TWO);
		part(1, 68, 0);
		part(2, 48, 0);
		part(3, 52, 0);
	}
#else
	switch (GIVEN) {
	case 0: /* all small */
	case 1: /* page 2 is different */
	case 2: /* page 2 is empty */
	case 3: /* page 3 goes elsewhere */
	case 4: /* no address is aligned to more than a page */
		j = small(0, 1, 0, 0);
		small(j, 0, 0, GIVEN == 4 ? 65 : 64);
		i = small(j + 1, 0, 2, GIVEN == 4 ? 67 : 66);
		part(1, 48, 0); /* pages 4 to 7 */
		if (GIVEN == 1)
			part(i, 66, EXEC);
		if (GIVEN == 2)
			low[i] = high[i] = 0;
		if (GIVEN == 3)
			part(i + 1, 99, 0);
		break;
	default: /* pages 0 and 1 are a leaf, 2 and 3 are small */
		j = small(0, 1, 0, 0);
		part(j, 64, 0);
		small(j + 1, 0, 2, 66);
		part(1, 48, 0);
	}
#endif
	look();
	expect();
	joining = true;
}

/*
 * Join. What belongs together is one leaf, nothing else has changed, and all
 * tables that are not linked are freed.
 */
void join(void)
{
	bool had = false;
	struct leaf is;

	joinable();
	assert(!w2c_code_join(&code, LO, HI - LO));
	is = walk(probe);
	assert(is_same(is));
	if (is.mapped) {
		assert(is.pages == largest[probe]);
		assert(!(was.dirty || written) || is.dirty);
		for (u32 i = 0; i < PAGES; i++)
			had |= in_leaf(i, is) && had_dirty[i];
		assert(!is.dirty || had || any_dirty);
	}
	assert(!cached.mapped || PICK_STATE(cached.at) == LIVE);
	for (u32 i = 0; i < TABLES; i++)
		assert(state[i] == UNUSED || state[i] == FREED || (state[i] == LIVE && (!i || leads(0, TOP, i))));
	DONE;
}
