// SPDX-License-Identifier: GPL-2.0-only

//! `IOMMU_IOAS_JOIN`: make one mapping of what a split has cut, while devices use it.
//!
//! 1. Refuse, having changed nothing, if a part of the range is not mapped, or does not allow it.
//! 2. With `IOMMU_IOAS_JOIN_FILL`, map the holes, all or none: put an area without pages into each
//!    of them, let go of the areas of the IOAS, pin the memory and fill every domain, and take hold
//!    of the areas again. All of this is what a map does.
//! 3. Join areas where nobody can tell the difference. This cannot fail.
//! 4. Join leaves, in every domain, as far as the areas go. What cannot be joined stays small.
//!
//! All of this may be long: a range may have any number of holes and areas, and any size. Between
//! two of them, and after each 1G of a page table, others may run, and a task that is killed stops:
//! in step 2 with nothing changed, later with a part not joined, which is no harm.
//!
//! # Locks
//!
//! Those of a split, and for steps 3 and 4 the mutex of the pages, for no longer than two areas or
//! 1G of a page table take. A join of leaves frees tables, and another IOAS that shares the pages
//! reads PFNs back from these under that mutex alone.
//!
//! As in a map, step 2 lets go of `iova_rwsem` and keeps `domains_rwsem`: areas that are in flight
//! are left alone by others, and no domain comes or goes that would have to be filled. If a part of
//! the range was unmapped meanwhile, that is an error.

use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_result,
    ffi::c_int,
    prelude::*, //
};

use super::join_plan::JoinRequest;
use super::split_iopt::{
    join_iopt::Holes,
    Ioas, //
};

fn join(ioas: &Ioas, request: JoinRequest) -> Result {
    let range = request.extent();
    let mut iopt = ioas.lock();

    if request.fills() {
        iopt.check_areas(range)?;
        iopt = Holes::reserve(iopt, range)?.fill()?.publish(range)?;
    } else {
        iopt.locate(range)?;
        iopt.check_areas(range)?;
    }

    // Nothing fails from here on.
    iopt.join_areas(range);
    iopt.join_leaves(range);
    Ok(())
}

/// The handler of `IOMMU_IOAS_JOIN`.
///
/// # Safety
///
/// `ucmd` must be valid, with `ucmd->ictx` valid for the duration of the call, and `ucmd->cmd` must
/// point to a `struct iommu_ioas_join`.
#[export]
pub unsafe extern "C" fn iommufd_ioas_join(ucmd: *mut bindings::iommufd_ucmd) -> c_int {
    from_result(|| {
        // SAFETY: `ucmd` is valid, and `cmd` points to a copy of the user's structure.
        let cmd = unsafe { (*ucmd).cmd.cast::<bindings::iommu_ioas_join>().read() };
        let request = JoinRequest::new(cmd.flags, cmd.__reserved, cmd.iova, cmd.length)?;
        // SAFETY: `ucmd` is valid.
        let ictx = NonNull::new(unsafe { (*ucmd).ictx }).ok_or(EINVAL)?;
        // SAFETY: `ictx` is valid for the duration of the call.
        let ioas = unsafe { Ioas::get(ictx, cmd.ioas_id) }?;

        // The locks are dropped before the reference.
        join(&ioas, request)?;
        Ok(0)
    })
}
