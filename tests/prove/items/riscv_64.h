/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The RISC-V Instruction Set Manual, Volume II: Privileged Architecture
 * (20240411): section 10.4.1 "Addressing and Memory Protection" (Sv39; 10.5,
 * 10.6: Sv48, Sv57), chapter 11 "Svnapot", chapter 12 "Svpbmt". Bits 60:59 are
 * for software by Svrsw60t59b.
 */
#define SPEC_TOP 4
#define SPEC_TABLES_FROM 1
#define SPEC_OA_BITS 56
#define SPEC_TABLE_LG2 12
#define SPEC_D BIT(7)
#define SPEC_A BIT(6)
#define SPEC_PRESET 1
#define SPEC_FEATURES 0x180 /* Svnapot, Svpbmt */

static u64 spec_sizes(unsigned int level)
{
	return BIT(12 + 9 * level) | (level == 0 ? BIT(16) : 0);
}

static bool spec_empty(u64 item)
{
	return !(item & BIT(0));
}

static bool spec_leaf(u64 item, unsigned int level, u64 enc, struct leaf *leaf)
{
	unsigned int lg2 = 12 + 9 * level;
	bool n = item & BIT(63);

	if (enc || level > 4 || spec_empty(item))
		return false;
	/* R 1, W 2, X 3: a leaf has R or X; W without R is reserved. */
	if (!(item & (BIT(1) | BIT(3))) || (item & BITS(2, 1)) == BIT(2))
		return false;
	/* Reserved: 58:54, and PBMT 62:61 = 3. */
	if (item & BITS(58, 54) || (item & BITS(62, 61)) == BITS(62, 61))
		return false;
	if (n) {
		/* ppn[0] = xxxx1000: 64K; other encodings, and other levels, are reserved. */
		if (level != 0 || (item & BITS(13, 10)) != BIT(13))
			return false;
		lg2 = 16;
		item &= ~BITS(13, 10);
	}
	leaf->oa = (item & BITS(53, 10)) << 2;
	/* A misaligned superpage is a fault. */
	if (leaf->oa & BITS(lg2 - 1, 0))
		return false;
	leaf->lg2 = lg2;
	leaf->read = item & BIT(1);
	leaf->write = item & BIT(2);
	leaf->dirty = item & BIT(7);
	/* V 0, X 3, U 4, G 5, A 6, RSW 9:8, 60:59, PBMT 62:61. */
	leaf->rest = item & (BIT(0) | BITS(6, 3) | BITS(9, 8) | BITS(62, 59));
	return true;
}

static bool spec_table(u64 item, unsigned int level, u64 enc, u64 *oa)
{
	*oa = (item & BITS(53, 10)) << 2;
	/* V 0, R = W = X = 0, and D, A, U, N, PBMT and what is reserved must be 0. */
	return !enc && (item & BITS(3, 0)) == BIT(0) &&
	       !(item & (BIT(4) | BITS(7, 6) | BITS(63, 54)));
}
