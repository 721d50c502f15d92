// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of split_range: riscv_64. The format is configured as in
 * fmt/iommu_riscv64.c.
 */
#define PT_FMT riscv
#define PT_FMT_VARIANT 64
#define PT_SUPPORTED_FEATURES                                  \
	(BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) | \
	 BIT(PT_FEAT_RISCV_SVNAPOT_64K) |                      \
	 BIT(PT_FEAT_DETAILED_GATHER))
#define PT_FORCE_ENABLED_FEATURES BIT(PT_FEAT_DETAILED_GATHER)
#include "kunit_split_fmt.h"
#include "../../fmt/defs_riscv.h"
#include "../../pt_defs.h"
#include "../../fmt/riscv.h"
#include "../../pt_common.h"
#include "kunit_split.h"
