/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What split.rs sees of iommufd: the private headers for bindgen, and functions
 * for what it cannot bind.
 */
#ifndef __IOMMUFD_SPLIT_SHIM_H
#define __IOMMUFD_SPLIT_SHIM_H

#include "io_pagetable.h"
#include "iommufd_private.h"

void iommufd_split_put_ioas(struct iommufd_ctx *ictx,
			    struct iommufd_ioas *ioas);

#endif
