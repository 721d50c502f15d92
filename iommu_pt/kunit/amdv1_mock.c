// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of amdv1_mock. The format is configured as in
 * fmt/iommu_mock.c.
 */
#define AMDV1_IOMMUFD_SELFTEST 1
#define PT_FMT amdv1
#define PT_FMT_VARIANT mock
#define PT_SUPPORTED_FEATURES 0
#include "split_fmt.h"
#include "../../../fmt/defs_amdv1.h"
#include "../../../pt_defs.h"
#include "../../../fmt/amdv1.h"
#include "../../../pt_common.h"
#include "split.h"
#include "join.h"

#define RAW_GRANULE_LG2 11
#define RAW_NO_COMPARE 1
static const unsigned int raw_features[] = { 0 };

#include "raw_amdv1.h"
#include "raw_suite.h"
