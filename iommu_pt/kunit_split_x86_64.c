// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of split_range: x86_64. The format is configured as in
 * fmt/iommu_x86_64.c.
 */
#define PT_FMT x86_64
#define PT_SUPPORTED_FEATURES                                  \
	(BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) | \
	 BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS) |                    \
	 BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES) | BIT(PT_FEAT_DMA_INCOHERENT))
#include "kunit_split_fmt.h"
#include "../../fmt/defs_x86_64.h"
#include "../../pt_defs.h"
#include "../../fmt/x86_64.h"
#include "../../pt_common.h"
#include "kunit_split.h"
