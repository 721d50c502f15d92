/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Intel Virtualization Technology for Directed I/O, Architecture Specification,
 * revision 4.1: section 9.8 "Second-Stage Paging Entries", tables of SS-PTE,
 * SS-PDE and SS-PDPTE; section 3.7 for the walk.
 */
#define SPEC_TOP 4
#define SPEC_TABLES_FROM 1
#define SPEC_OA_BITS 52
#define SPEC_TABLE_LG2 12
#define SPEC_D BIT(9)
#define SPEC_A BIT(8)
#define SPEC_PRESET 0
/* An entry is present if R or W is set: one with A or D alone is not. */

static u64 spec_sizes(unsigned int level)
{
	return level == 0 ? BIT(12) : level == 1 ? BIT(21) : level == 2 ? BIT(30) : 0;
}

static bool spec_empty(u64 item)
{
	return !(item & BITS(1, 0));
}

static bool spec_leaf(u64 item, unsigned int level, u64 enc, struct leaf *leaf)
{
	unsigned int lg2 = 12 + 9 * level;

	if (enc || level > 2 || spec_empty(item))
		return false;
	/*
	 * Bit 7 is PS from the SS-PDE on, and has to be 0 or ignored in an
	 * SS-PTE: Linux leaves it 0.
	 */
	if ((item & BIT(7)) ? !level : level)
		return false;
	/* The address is 51:12, 51:21 or 51:30, what is below it reserved. */
	if (level && item & BITS(lg2 - 1, 12))
		return false;
	leaf->oa = item & BITS(51, lg2);
	leaf->lg2 = lg2;
	leaf->read = item & BIT(0);
	leaf->write = item & BIT(1);
	leaf->dirty = item & BIT(9);
	/* X 2, EMT 5:3, IPAT 6, A 8, ignored 10, SNP 11, ignored 61:52, 62, ignored 63. */
	leaf->rest = item & (BITS(6, 2) | BIT(8) | BITS(11, 10) | BITS(63, 52));
	return true;
}

static bool spec_table(u64 item, unsigned int level, u64 enc, u64 *oa)
{
	*oa = item & BITS(51, 12);
	/* R 0, W 1; rights are those of all levels together. PS 7 is 0. */
	return !enc && (item & BITS(1, 0)) == 3 && !(item & BIT(7)) && !(item & BITS(63, 52));
}
