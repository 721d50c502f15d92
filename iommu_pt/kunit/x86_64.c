// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of x86_64. The format is configured as in
 * fmt/iommu_x86_64.c.
 */
#define PT_FMT x86_64
#define PT_SUPPORTED_FEATURES                                  \
	(BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) | \
	 BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS) |                    \
	 BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES) | BIT(PT_FEAT_DMA_INCOHERENT))
#include "split_fmt.h"
#include "../../../fmt/defs_x86_64.h"
#include "../../../pt_defs.h"
#include "../../../fmt/x86_64.h"
#include "../../../pt_common.h"
#include "split.h"
#include "join.h"

/*
 * Intel Virtualization Technology for Directed I/O, section 9.7; AMD I/O
 * Virtualization Technology (IOMMU), section 2.2.6. Linux sets A and D
 * beforehand. A bit that hardware ignores says that a table item was flushed.
 */
#define RAW_GRANULE_LG2 12
#define RAW_DIRTY 0
#define RAW_CLEANED BIT_ULL(9)
static const unsigned int raw_features[] = {
	BIT(PT_FEAT_FLUSH_RANGE),
	BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS) |
		BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES),
	BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_DMA_INCOHERENT),
};

static u64 raw_encrypted(unsigned int features, u64 item)
{
	if (features & BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES))
		return __sme_set(item);
	return item;
}

static u64 raw_leaf(unsigned int features, int prot, u64 oa, unsigned int lg2,
		    unsigned int level)
{
	u64 item = oa | BIT_ULL(0) | BIT_ULL(2) | BIT_ULL(5);

	if (prot & IOMMU_WRITE)
		item |= BIT_ULL(1) | BIT_ULL(6);
	if (level)
		item |= BIT_ULL(7);
	return prot & IOMMU_MMIO ? item : raw_encrypted(features, item);
}

static u64 raw_table(unsigned int features, u64 oa, unsigned int level)
{
	u64 item = oa | BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2) | BIT_ULL(5);

	if (features & BIT(PT_FEAT_DMA_INCOHERENT))
		item |= RAW_CLEANED;
	return raw_encrypted(features, item);
}

static u64 raw_table_oa(u64 item)
{
	return __sme_clr(item) & GENMASK_ULL(51, 12);
}

static bool raw_is_leaf(u64 item, unsigned int level)
{
	return !level || (level <= 2 && item & BIT_ULL(7));
}

#include "raw_suite.h"
