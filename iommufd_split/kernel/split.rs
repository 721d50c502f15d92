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
//! # Carve
//!
//! With `IOMMU_IOAS_SPLIT_UNMAP` the range is unmapped in the same call. Steps 1 and 2 are the
//! same, and what an unmap would refuse is refused as well. Step 3 allocates for every domain also
//! the tables that its leaves at the edges are replaced by, so that nothing can fail when the first
//! domain has lost its mapping. Steps 4 and 5 are one for each area that is cut: the part in the
//! range leaves the trees, [`iommu_carve`] takes it out of each domain with one flush, and then it
//! is unpinned. The part is never an area of its own. Areas that lie in the range as a whole are
//! put in flight before the areas are unlocked, and unmapped after that, as in an unmap.
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
//! [`iommu_carve`]: srctree/drivers/iommu/iommu.c

use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_result,
    ffi::c_int,
    page::PAGE_SIZE,
    prelude::*, //
};

pub mod join;
pub mod join_plan;
mod split_iopt;
pub mod split_plan;

use split_iopt::{
    count,
    Area,
    Domain,
    Ioas,
    LockedIopt,
    Plan,
    PreparedCut,
    WholeAreas, //
};
use split_plan::{
    Cuts,
    Pins,
    Refusal,
    Request, //
};

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

    /// May a leaf of the domain reach across a cut?
    fn must_split(&self, iopt: &LockedIopt<'_>, domain: &Domain<'_>) -> bool {
        iopt.must_split(domain, self.area.extent(), self.cuts)
    }

    /// Refuses what will not get better by trying again.
    fn check_support(&self, iopt: &LockedIopt<'_>) -> Result<(), Refusal> {
        self.area.check_kind()?;

        let supported = iopt
            .domains()
            .all(|domain| domain.can_split() || !self.must_split(iopt, &domain));
        if !supported {
            return Err(Refusal::Unsupported);
        }
        Ok(())
    }

    /// Splits the leaves that cross a cut, in every domain.
    fn split_leaves(&self, iopt: &LockedIopt<'_>) -> Result {
        iopt.domains()
            .filter(|domain| self.must_split(iopt, domain))
            .try_for_each(|domain| domain.split(&self.area, self.cuts))
    }
}

/// The areas that are cut, and how: at most two.
struct Jobs<'l>([Option<(Job<'l>, Plan)>; 2]);

impl<'l> Jobs<'l> {
    /// Steps 1 and 2: everything that may be refused.
    fn find(iopt: &'l LockedIopt<'_>, request: Request) -> Result<Self> {
        request.check_alignment(iopt.iova_alignment(), PAGE_SIZE, |iova| {
            iopt.mapping_of(iova)
        })?;

        let (head, tail) = iopt.locate(request.extent())?;
        let jobs = [
            Job::new(head, request),
            Job::new(tail, request).filter(|_| tail != head),
        ];

        jobs.iter()
            .flatten()
            .try_for_each(|job| job.check_support(iopt))?;

        let plan = |job: Option<Job<'l>>| -> Result<Option<(Job<'l>, Plan)>> {
            job.map(|job| {
                let plan = job.area.plan(job.cuts)?;
                Ok((job, plan))
            })
            .transpose()
        };
        let [head, tail] = jobs;

        Ok(Self([plan(head)?, plan(tail)?]))
    }

    fn iter(&self) -> impl Iterator<Item = &(Job<'l>, Plan)> {
        self.0.iter().flatten()
    }

    /// Steps 3 and 4 are up to `prepare`, step 5.
    fn prepare(
        &self,
        prepare: impl Fn(&Job<'l>, Plan) -> Result<PreparedCut<'l>>,
    ) -> Result<[Option<PreparedCut<'l>>; 2]> {
        let mut prepared = [None, None];

        for (slot, (job, plan)) in prepared.iter_mut().zip(self.iter()) {
            *slot = Some(prepare(job, *plan)?);
        }
        Ok(prepared)
    }
}

/// Splits under the locks. See the five steps at the top of the file.
fn split(iopt: &LockedIopt<'_>, request: Request) -> Result {
    let jobs = Jobs::find(iopt, request)?;
    let prepared = jobs.prepare(|job, plan| PreparedCut::split(job.area, plan))?;

    jobs.iter()
        .try_for_each(|(job, _)| job.split_leaves(iopt))?;

    // Nothing fails from here on.
    for cut in prepared.into_iter().flatten() {
        cut.commit();
    }
    Ok(())
}

/// What stands in the way of a carve.
enum Obstacle {
    /// In-kernel users pin a part of the range, and can be told to let go.
    Pins,
    /// It is refused.
    Error(Error),
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Obstacle::Error(error)
    }
}

/// Refuses what is locked by a hardware queue, and says whether something is pinned.
fn check_pins(pins: Pins) -> Result<bool, Obstacle> {
    if pins.locks != 0 {
        return Err(Obstacle::Error(EBUSY));
    }
    Ok(pins.accesses != 0)
}

/// Splits and unmaps under the locks, which it lets go of at the end.
fn try_carve(iopt: LockedIopt<'_>, request: Request) -> Result<(), Obstacle> {
    let range = request.extent();
    let jobs = Jobs::find(&iopt, request)?;
    let whole = || iopt.areas(range).filter(|area| range.holds(area.extent()));

    // As in an unmap: a lock does not go away by asking, a pin does.
    let mut pinned = false;
    for (_, plan) in jobs.iter() {
        pinned |= check_pins(plan.pins_of_middle())?;
    }
    for area in whole() {
        pinned |= check_pins(area.pins())?;
    }
    if pinned {
        return Err(Obstacle::Pins);
    }

    let mut areas = WholeAreas::with_capacity(count(whole()))?;
    let prepared = jobs.prepare(|job, plan| {
        PreparedCut::carve(&iopt, job.area, plan, |domain| {
            job.must_split(&iopt, domain)
        })
    })?;

    // Nothing fails from here on.
    whole().for_each(|area| areas.take(area));
    for cut in prepared.into_iter().flatten() {
        cut.commit();
    }
    areas.remove(iopt);
    Ok(())
}

/// How often in-kernel users are told to unpin, as in an unmap.
const MAX_NOTIFICATIONS: usize = 100;

/// Splits and unmaps.
///
/// An in-kernel user is told to unpin without a lock, so all may be different afterwards. Unlike
/// an unmap this does not keep it from pinning again: the area is not about to go, only a part of
/// it, and who pins the rest must not notice.
fn carve(ioas: &Ioas, request: Request) -> Result {
    for notifications in 0..=MAX_NOTIFICATIONS {
        match try_carve(ioas.lock(), request) {
            Ok(()) => return Ok(()),
            Err(Obstacle::Error(error)) => return Err(error),
            Err(Obstacle::Pins) if notifications == MAX_NOTIFICATIONS => break,
            Err(Obstacle::Pins) => ioas.notify_unmap(request.extent()),
        }
    }
    Err(EDEADLK)
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
        if request.is_carve() {
            carve(&ioas, request)?;
        } else {
            split(&ioas.lock(), request)?;
        }
        Ok(0)
    })
}
