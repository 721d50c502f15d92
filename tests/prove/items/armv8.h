/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arm Architecture Reference Manual for A-profile architecture (DDI 0487),
 * section D8.3: "Table descriptor format", "Block descriptor and Page
 * descriptor formats". SPEC_GRANULE is the lg2 of the granule, SPEC_STAGE the
 * stage. An OA of 48 bits; no contiguous hint and no dirty state (DBM), which
 * have to be 0. The manual's level 3 is level 0 here.
 */
#define SPEC_TOP (SPEC_GRANULE == 16 ? 2 : 3)
#define SPEC_TABLES_FROM 1
#define SPEC_OA_BITS 48
#define SPEC_TABLE_LG2 SPEC_GRANULE
#define SPEC_LEVEL_LG2 (SPEC_GRANULE - 3)
#define SPEC_D 0
#define SPEC_A BIT(10)
#define SPEC_PRESET 1
#define SPEC_FEATURES (SPEC_STAGE == 2 ? 0x200 : 0) /* S2 */

/* Blocks: 4K at levels 1 and 2, 16K and 64K at level 2 of the manual. */
static u64 spec_sizes(unsigned int level)
{
	if (level > (SPEC_GRANULE == 12 ? 2 : 1))
		return 0;
	return BIT(SPEC_GRANULE + SPEC_LEVEL_LG2 * level);
}

static bool spec_empty(u64 item)
{
	return !(item & BIT(0));
}

static bool spec_leaf(u64 item, unsigned int level, u64 enc, struct leaf *leaf)
{
	unsigned int lg2 = SPEC_GRANULE + SPEC_LEVEL_LG2 * level;

	/* Bits 1:0: 3 is a page, at the last level; 1 is a block, above. */
	if (enc || !spec_sizes(level) || (item & BITS(1, 0)) != (level ? 1 : 3))
		return false;
	/* Reserved: 50:48 and the address below the size; nT 16 is not used. */
	if (item & (BITS(50, 48) | (BITS(47, 12) & BITS(lg2 - 1, 0))))
		return false;
	/* Contiguous 52, DBM 51. SH 9:8 = 1 is reserved. */
	if (item & BITS(52, 51) || (item & BITS(9, 8)) == BIT(8))
		return false;
	leaf->oa = item & BITS(47, 12);
	leaf->lg2 = lg2;
	/*
	 * SH 9:8, AF 10, PXN 53 and UXN 54 or XN, software 58:55, PBHA or
	 * ignored 62:59, ignored 63.
	 */
	leaf->rest = item & (BITS(10, 8) | BITS(63, 53));
	if (SPEC_STAGE == 2) {
		if (item & BIT(11))
			return false;
		leaf->read = item & BIT(6); /* S2AP */
		leaf->write = item & BIT(7);
		leaf->rest |= item & BITS(5, 2); /* MemAttr */
	} else {
		leaf->read = true;
		leaf->write = !(item & BIT(7)); /* AP[2] */
		/* AttrIndx 4:2, NS 5, AP[1] 6, nG 11. */
		leaf->rest |= item & (BITS(6, 2) | BIT(11));
	}
	leaf->dirty = leaf->write; /* what is writable without DBM */
	return true;
}

static bool spec_table(u64 item, unsigned int level, u64 enc, u64 *oa)
{
	*oa = item & BITS(47, 12);
	/*
	 * NSTable 63, APTable 62:61, UXNTable 60, PXNTable 59 take nothing away;
	 * reserved 50:48, and the address below the granule.
	 */
	return !enc && level && (item & BITS(1, 0)) == 3 &&
	       !(item & (BITS(63, 59) | BITS(50, 48))) &&
	       !(*oa & BITS(SPEC_GRANULE - 1, 0));
}
