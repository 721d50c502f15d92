/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Items of AMD v1 tables for raw.h, from the AMD I/O Virtualization
 * Technology (IOMMU) Specification, section 2.2.3, tables 14 and 15. The
 * address field counts pages of RAW_GRANULE_LG2.
 */
#define RAW_DIRTY BIT_ULL(6)
/* There is a present bit, so D may be set in an empty item */
#define RAW_LATE_DIRTY 1
#define RAW_CLEANED 0

static u64 raw_address(unsigned int features, u64 oa)
{
	return ((oa >> RAW_GRANULE_LG2) << 12) & GENMASK_ULL(51, 12);
}

static u64 raw_encrypted(unsigned int features, u64 item)
{
	if (features & BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES))
		return __sme_set(item);
	return item;
}

static u64 raw_leaf(unsigned int features, int prot, u64 oa, unsigned int lg2,
		    unsigned int level)
{
	u64 item = BIT_ULL(0) | raw_address(features, oa);

	if (lg2 != RAW_GRANULE_LG2 + 9 * level) {
		/* Size in the address: ones below its highest zero bit */
		item |= 7ULL << 9;
		item |= (BIT_ULL(lg2 - RAW_GRANULE_LG2 - 1) - 1) << 12;
	}
	if (features & BIT(PT_FEAT_AMDV1_FORCE_COHERENCE))
		item |= BIT_ULL(60);
	if (prot & IOMMU_READ)
		item |= BIT_ULL(61);
	if (prot & IOMMU_WRITE)
		item |= BIT_ULL(62);
	return prot & IOMMU_MMIO ? item : raw_encrypted(features, item);
}

static u64 raw_table(unsigned int features, u64 oa, unsigned int level)
{
	/* Rights are the AND over all levels */
	return raw_encrypted(features, BIT_ULL(0) | (u64)level << 9 |
					       raw_address(features, oa) |
					       BIT_ULL(61) | BIT_ULL(62));
}

static u64 raw_table_oa(u64 item)
{
	return ((__sme_clr(item) & GENMASK_ULL(51, 12)) >> 12)
	       << RAW_GRANULE_LG2;
}

static bool raw_is_leaf(u64 item, unsigned int level)
{
	u64 next = (item >> 9) & 7;

	return !level || !next || next == 7;
}
