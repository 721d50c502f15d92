/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The names that fmt/iommu_template.h makes for a format, without what it
 * builds from them.
 */
#include <linux/args.h>
#include <linux/stringify.h>

#define GENERIC_PT_KUNIT 1

#ifdef PT_FMT_VARIANT
#define PTPFX_RAW CONCATENATE(CONCATENATE(PT_FMT, _), PT_FMT_VARIANT)
#else
#define PTPFX_RAW PT_FMT
#endif

#define PTPFX CONCATENATE(PTPFX_RAW, _)

#include <linux/generic_pt/common.h>
