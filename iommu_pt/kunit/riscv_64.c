// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of riscv_64. The format is configured as in
 * fmt/iommu_riscv64.c.
 */
#define PT_FMT riscv
#define PT_FMT_VARIANT 64
#define PT_SUPPORTED_FEATURES                                  \
	(BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) | \
	 BIT(PT_FEAT_RISCV_SVNAPOT_64K) |                      \
	 BIT(PT_FEAT_DETAILED_GATHER))
#define PT_FORCE_ENABLED_FEATURES BIT(PT_FEAT_DETAILED_GATHER)
#include "split_fmt.h"
#include "../../../fmt/defs_riscv.h"
#include "../../../pt_defs.h"
#include "../../../fmt/riscv.h"
#include "../../../pt_common.h"
#include "split.h"
#include "join.h"

/*
 * The RISC-V Instruction Set Manual, Volume II: "Sv39" and on, "Svnapot",
 * "Svpbmt". Linux sets A and D beforehand.
 */
#define RAW_GRANULE_LG2 12
#define RAW_DIRTY 0
#define RAW_CLEANED 0
static const unsigned int raw_features[] = {
	BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_DETAILED_GATHER) |
		BIT(PT_FEAT_FLUSH_RANGE),
	BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_DETAILED_GATHER) |
		BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_RISCV_SVPBMT),
};

/* The C format is built without Svpbmt */
#define RAW_NO_COMPARE_FEATURES BIT(PT_FEAT_RISCV_SVPBMT)

static u64 raw_leaf(unsigned int features, int prot, u64 oa, unsigned int lg2,
		    unsigned int level)
{
	u64 item = BIT_ULL(0) | BIT_ULL(4) | BIT_ULL(6) | (oa >> 12) << 10;

	if (lg2 != 12 + 9 * level)
		item |= BIT_ULL(63) | BIT_ULL(13); /* 64K */
	if (prot & (IOMMU_READ | IOMMU_WRITE)) /* W without R is reserved */
		item |= BIT_ULL(1);
	if (prot & IOMMU_WRITE)
		item |= BIT_ULL(2) | BIT_ULL(7);
	if (!(prot & IOMMU_NOEXEC))
		item |= BIT_ULL(3);
	if (features & BIT(PT_FEAT_RISCV_SVPBMT)) {
		if (prot & IOMMU_MMIO)
			item |= BIT_ULL(62);
		else if (!(prot & IOMMU_CACHE))
			item |= BIT_ULL(61);
	}
	return item;
}

static u64 raw_table(unsigned int features, u64 oa, unsigned int level)
{
	return BIT_ULL(0) | (oa >> 12) << 10;
}

static u64 raw_table_oa(u64 item)
{
	return ((item & GENMASK_ULL(53, 10)) >> 10) << 12;
}

static bool raw_is_leaf(u64 item, unsigned int level)
{
	return !level || item & GENMASK_ULL(3, 1);
}

#include "raw_suite.h"
