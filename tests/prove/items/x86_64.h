/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Intel Virtualization Technology for Directed I/O, Architecture Specification,
 * revision 4.1: section 9.7 "First-Stage Paging Entries", tables of FS-PTE,
 * FS-PDE and FS-PDPE. AMD v2 is the same with the C-bit in the address: AMD64
 * Architecture Programmer's Manual volume 2, section 5.4 "Page-Translation-Table
 * Entry Fields", section 7.10.5 for the C-bit.
 */
#define SPEC_TOP 4
#define SPEC_TABLES_FROM 1
#define SPEC_OA_BITS 52
#define SPEC_TABLE_LG2 12
#define SPEC_D BIT(6)
#define SPEC_A BIT(5)
#define SPEC_PRESET 1
#define SPEC_ENC

static u64 spec_sizes(unsigned int level)
{
	return level == 0 ? BIT(12) : level == 1 ? BIT(21) : level == 2 ? BIT(30) : 0;
}

static bool spec_empty(u64 item)
{
	return !(item & BIT(0));
}

static bool spec_leaf(u64 item, unsigned int level, u64 enc, struct leaf *leaf)
{
	unsigned int lg2 = 12 + 9 * level;
	bool pat;

	if (level > 2 || spec_empty(item))
		return false;
	if (level == 0) {
		pat = item & BIT(7);
	} else {
		/*
		 * PS is where PAT is in a PTE; PAT is bit 12, and from there to
		 * the address all is reserved.
		 */
		if (!(item & BIT(7)) || (item & ~enc & BITS(lg2 - 1, 13)))
			return false;
		pat = item & BIT(12);
	}
	leaf->oa = item & ~enc & BITS(51, lg2);
	leaf->lg2 = lg2;
	leaf->read = true;
	leaf->write = item & BIT(1);
	leaf->dirty = item & BIT(6);
	/* P 0, U/S 2, PWT 3, PCD 4, A 5, G 8, ignored 9, EA 10, ignored 11 and 62:52, XD 63. */
	leaf->rest = item & (BIT(0) | BITS(5, 2) | BITS(11, 8) | BITS(63, 52) | enc);
	leaf->rest |= pat ? BIT(7) : 0;
	return true;
}

static bool spec_table(u64 item, unsigned int level, u64 enc, u64 *oa)
{
	*oa = item & ~enc & BITS(51, 12);
	/* P 0, R/W 1, U/S 2, PS 7 is 0, XD 63 is 0. */
	return (item & BITS(2, 0)) == 7 && !(item & BIT(7)) &&
	       (item & enc) == enc && !(item & BITS(63, 52));
}
