/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, revision 3.10:
 * section 2.2.3 "I/O Page Tables for Host Translations": figures of PTE and PDE,
 * table 14 "Example Page Size Encodings", table 15 "Page Table Level
 * Parameters". The C-bit is a bit of the address (SME).
 *
 * SPEC_GRANULE is 12; the mock of iommufd's selftest is the same format with
 * pages of 2^11 bytes: the field of the address counts pages, levels have 512
 * items as ever.
 */
#define SPEC_TOP (SPEC_GRANULE == 12 ? 5 : 4)
#define SPEC_TABLES_FROM 1
#define SPEC_OA_BITS (40 + SPEC_GRANULE)
#define SPEC_TABLE_LG2 SPEC_GRANULE
#define SPEC_D BIT(6)
#define SPEC_A BIT(5)
#define SPEC_PRESET 0
#if SPEC_GRANULE == 12
#define SPEC_ENC
#endif

/*
 * Each power of two from the level's own to half of the next level's; not at the
 * top most level, and not 512G.
 */
static u64 spec_sizes(unsigned int level)
{
	unsigned int own = SPEC_GRANULE + 9 * level;
	unsigned int last = own + 8 > 51 ? 51 : own + 8;

	return level >= SPEC_TOP ? 0 : BITS(last, own) & ~BIT(39);
}

static bool spec_empty(u64 item)
{
	return !(item & BIT(0));
}

static bool spec_leaf(u64 item, unsigned int level, u64 enc, struct leaf *leaf)
{
	unsigned int own = SPEC_GRANULE + 9 * level, ones = 0, i;
	u64 next = (item >> 9) & 7, page = (item & ~enc & BITS(51, 12)) >> 12;

	/*
	 * PR 0. Next level 11:9: 0 for the level's own size, 7 for one in the
	 * address. Reserved: 58:52.
	 */
	if (level >= SPEC_TOP || spec_empty(item) || item & BITS(58, 52))
		return false;
	if (next != 0 && next != 7)
		return false;
	leaf->lg2 = own;
	if (next == 7) {
		/*
		 * The bits of the address from the lowest on that are one, and a
		 * zero: 0 for two pages, 01 for four, ...
		 */
		for (i = 0; i < 40; i++) {
			if (!(page & BIT(i)))
				break;
			ones++;
		}
		leaf->lg2 = SPEC_GRANULE + 1 + ones;
		page &= ~BITS(ones, 0);
	}
	if (leaf->lg2 > 51 || !(spec_sizes(level) & BIT(leaf->lg2)))
		return false;
	/* One way to write each size. */
	if (next == 7 ? leaf->lg2 == own : leaf->lg2 != own)
		return false;
	leaf->oa = page << SPEC_GRANULE;
	if (leaf->oa & BITS(leaf->lg2 - 1, 0))
		return false;
	leaf->read = item & BIT(61);
	leaf->write = item & BIT(62);
	leaf->dirty = item & BIT(6);
	/* PR 0, ignored 4:1, A 5, ignored 8:7, U 59, FC 60, ignored 63. */
	leaf->rest = item & (BITS(5, 0) | BITS(8, 7) | BITS(60, 59) | BIT(63) | enc);
	return true;
}

static bool spec_table(u64 item, unsigned int level, u64 enc, u64 *oa)
{
	*oa = ((item & ~enc & BITS(51, 12)) >> 12) << SPEC_GRANULE;
	/*
	 * PR 0, next level is this one (the specification's levels begin at 1),
	 * IR 61 and IW 62, of all levels together.
	 */
	return (item & BIT(0)) && ((item >> 9) & 7) == level &&
	       (item & BITS(62, 61)) == BITS(62, 61) && (item & enc) == enc &&
	       !(item & BITS(58, 52));
}
