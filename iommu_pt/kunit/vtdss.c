// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of vtdss. The format is configured as in
 * fmt/iommu_vtdss.c.
 */
#define PT_FMT vtdss
#define PT_SUPPORTED_FEATURES                                            \
	(BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_COHERENCE) | \
	 BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE) | BIT(PT_FEAT_DMA_INCOHERENT))
#include "split_fmt.h"
#include "../../../fmt/defs_vtdss.h"
#include "../../../pt_defs.h"
#include "../../../fmt/vtdss.h"
#include "../../../pt_common.h"
#include "split.h"
#include "join.h"

/*
 * Intel Virtualization Technology for Directed I/O, section 9.8. A bit that
 * hardware ignores says that a table item was flushed.
 */
#define RAW_GRANULE_LG2 12
#define RAW_DIRTY BIT_ULL(9)
#define RAW_CLEANED BIT_ULL(10)
static const unsigned int raw_features[] = {
	BIT(PT_FEAT_FLUSH_RANGE),
	BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_COHERENCE),
	BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE),
	BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_DMA_INCOHERENT),
};

static u64 raw_leaf(unsigned int features, int prot, u64 oa, unsigned int lg2,
		    unsigned int level)
{
	u64 item = oa;

	if (prot & IOMMU_READ)
		item |= BIT_ULL(0);
	if (prot & IOMMU_WRITE)
		item |= BIT_ULL(1);
	else if (features & BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE))
		return 0;
	if (level)
		item |= BIT_ULL(7);
	if (features & BIT(PT_FEAT_VTDSS_FORCE_COHERENCE))
		item |= BIT_ULL(11);
	return item;
}

static u64 raw_table(unsigned int features, u64 oa, unsigned int level)
{
	u64 item = oa | BIT_ULL(0) | BIT_ULL(1);

	if (features & BIT(PT_FEAT_DMA_INCOHERENT))
		item |= RAW_CLEANED;
	return item;
}

static u64 raw_table_oa(u64 item)
{
	return item & GENMASK_ULL(51, 12);
}

static bool raw_is_leaf(u64 item, unsigned int level)
{
	return !level || (level <= 2 && item & BIT_ULL(7));
}

#include "raw_suite.h"
