// SPDX-License-Identifier: GPL-2.0-only

//! `IOMMU_IOAS_SPLIT`: make a part of a mapping a mapping of its own, while devices use it.
//!
//! # Two levels
//!
//! A mapping exists twice: as an *area* of the IOAS, and as leaves in every domain of the IOAS. A
//! domain prefers large leaves. An area can only be unmapped if no leaf reaches across its ends.
//! So the leaves are split first, which no device can notice, and then the area is cut, which
//! cannot fail:
//!
//! 1. find the areas that the edges of the range fall into, at most two, and plan the cuts;
//! 2. refuse, having changed nothing, if an area or a domain does not allow it;
//! 3. allocate the new areas;
//! 4. split the leaves in every domain, [`iommu_split`] flushes the IOTLB;
//! 5. cut the areas.
//!
//! Step 4 may fail for lack of memory. The leaves that are smaller by then stay so: they translate
//! as before and are unmapped with the area as before.
//!
//! # Locks
//!
//! `domains_rwsem` for read, then `iova_rwsem` for write, then `iopt_pages::mutex`.
//!
//! `domains_rwsem` keeps the set of domains: every domain that holds the area is seen. Other
//! mappings may be filled or unfilled under it at the same time, in the same tables, but an area in
//! that state has `pages == NULL` and is left alone. Together with the write side of `iova_rwsem`
//! this is the range lock that [`iommu_split`] asks for: nobody maps or unmaps inside an area that
//! has pages, except the revocation of a dma-buf, whose areas are refused.
//!
//! Readers of the tables do not hold `iova_rwsem`. Another IOAS that shares the pages reads PFNs
//! back through `domains_itree` under the mutex of the pages alone. It sees the same PFNs before,
//! during and after step 4, and step 5 happens under that mutex.
//!
//! [`iommu_split`]: srctree/drivers/iommu/iommu.c

use core::ptr::NonNull;
use kernel::{bindings, error::from_result, ffi::c_int, page::PAGE_SIZE, prelude::*};

mod split_iopt;
pub mod split_plan;

use split_iopt::{Area, Ioas, LockedIopt, PreparedCut};
use split_plan::{Cuts, Refusal, Request};

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid => EINVAL,
            Refusal::Overflow => EOVERFLOW,
            Refusal::NotMapped => ENOENT,
            Refusal::Unsupported => EOPNOTSUPP,
            Refusal::Busy => EBUSY,
        }
    }
}

/// One area to be cut.
struct Job<'l> {
    area: Area<'l>,
    cuts: Cuts,
}

impl<'l> Job<'l> {
    fn new(area: Area<'l>, request: Request) -> Option<Self> {
        let cuts = request.cuts(area.extent());

        (!cuts.is_empty()).then_some(Self { area, cuts })
    }

    /// Refuses what will not get better by trying again.
    fn check_support(&self, iopt: &LockedIopt<'_>) -> Result<(), Refusal> {
        self.area.check_kind()?;

        let extent = self.area.extent();
        let supported = iopt
            .domains()
            .all(|domain| domain.can_split() || !iopt.must_split(&domain, extent, self.cuts));
        if !supported {
            return Err(Refusal::Unsupported);
        }
        Ok(())
    }

    /// Splits the leaves that cross a cut, in every domain.
    fn split_leaves(&self, iopt: &LockedIopt<'_>) -> Result {
        let extent = self.area.extent();

        iopt.domains()
            .filter(|domain| iopt.must_split(domain, extent, self.cuts))
            .try_for_each(|domain| domain.split(&self.area, self.cuts))
    }
}

/// Splits under the locks. See the five steps at the top of the file.
fn split(iopt: &LockedIopt<'_>, request: Request) -> Result {
    request.check_alignment(iopt.iova_alignment(), PAGE_SIZE, |iova| {
        iopt.mapping_of(iova)
    })?;

    let (head, tail) = iopt.locate(request.extent())?;
    let jobs = [
        Job::new(head, request),
        Job::new(tail, request).filter(|_| tail != head),
    ];
    let jobs = || jobs.iter().flatten();

    jobs().try_for_each(|job| job.check_support(iopt))?;
    let mut plans = [None, None];
    for (slot, job) in plans.iter_mut().zip(jobs()) {
        *slot = Some(job.area.plan(job.cuts)?);
    }

    let mut prepared = [None, None];
    for ((slot, plan), job) in prepared.iter_mut().zip(plans).zip(jobs()) {
        *slot = plan.map(|plan| PreparedCut::new(job.area, plan)).transpose()?;
    }

    jobs().try_for_each(|job| job.split_leaves(iopt))?;

    // Nothing fails from here on.
    for cut in prepared.into_iter().flatten() {
        cut.commit(iopt);
    }
    Ok(())
}

/// The handler of `IOMMU_IOAS_SPLIT`.
///
/// # Safety
///
/// `ucmd` must be valid, with `ucmd->ictx` valid for the duration of the call, and `ucmd->cmd` must
/// point to a `struct iommu_ioas_split`.
#[export]
pub unsafe extern "C" fn iommufd_ioas_split(ucmd: *mut bindings::iommufd_ucmd) -> c_int {
    from_result(|| {
        // SAFETY: `ucmd` is valid, and `cmd` points to a copy of the user's structure.
        let cmd = unsafe { (*ucmd).cmd.cast::<bindings::iommu_ioas_split>().read() };
        let request = Request::new(cmd.flags, cmd.__reserved, cmd.iova, cmd.length)?;
        // SAFETY: `ucmd` is valid.
        let ictx = NonNull::new(unsafe { (*ucmd).ictx }).ok_or(EINVAL)?;
        // SAFETY: `ictx` is valid for the duration of the call.
        let ioas = unsafe { Ioas::get(ictx, cmd.ioas_id) }?;

        // The locks are dropped before the reference.
        split(&ioas.lock(), request)?;
        Ok(0)
    })
}
