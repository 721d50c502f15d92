// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of amdv1. The format is configured as in
 * fmt/iommu_amdv1.c.
 */
#define PT_FMT amdv1
#define PT_SUPPORTED_FEATURES                                          \
	(BIT(PT_FEAT_FULL_VA) | BIT(PT_FEAT_DYNAMIC_TOP) |             \
	 BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS) | \
	 BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) |                           \
	 BIT(PT_FEAT_AMDV1_FORCE_COHERENCE))
#define PT_FORCE_ENABLED_FEATURES                                       \
	(BIT(PT_FEAT_DYNAMIC_TOP) | BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) | \
	 BIT(PT_FEAT_AMDV1_FORCE_COHERENCE))
#include "split_fmt.h"
#include "../../../fmt/defs_amdv1.h"
#include "../../../pt_defs.h"
#include "../../../fmt/amdv1.h"
#include "../../../pt_common.h"
#include "split.h"
#include "join.h"

#define RAW_GRANULE_LG2 12
static const unsigned int raw_features[] = {
	BIT(PT_FEAT_DYNAMIC_TOP) | BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) |
		BIT(PT_FEAT_AMDV1_FORCE_COHERENCE) | BIT(PT_FEAT_FLUSH_RANGE),
	BIT(PT_FEAT_DYNAMIC_TOP) | BIT(PT_FEAT_AMDV1_ENCRYPT_TABLES) |
		BIT(PT_FEAT_AMDV1_FORCE_COHERENCE) |
		BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS),
};

#include "raw_amdv1.h"
#include "raw_suite.h"
