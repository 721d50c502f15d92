// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of split_range: vtdss. The format is configured as in
 * fmt/iommu_vtdss.c.
 */
#define PT_FMT vtdss
#define PT_SUPPORTED_FEATURES                                            \
	(BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_COHERENCE) | \
	 BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE) | BIT(PT_FEAT_DMA_INCOHERENT))
#include "kunit_split_fmt.h"
#include "../../fmt/defs_vtdss.h"
#include "../../pt_defs.h"
#include "../../fmt/vtdss.h"
#include "../../pt_common.h"
#include "kunit_split.h"
