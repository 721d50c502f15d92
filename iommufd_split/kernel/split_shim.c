// SPDX-License-Identifier: GPL-2.0-only
/*
 * Out of line copies of static inlines, for split.rs. They cannot live in
 * rust/helpers, which is built in and must not call into a module.
 */
#include "split_shim.h"

void iommufd_split_put_ioas(struct iommufd_ctx *ictx, struct iommufd_ioas *ioas)
{
	iommufd_put_object(ictx, &ioas->obj);
}
