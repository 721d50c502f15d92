// SPDX-License-Identifier: GPL-2.0-only

//! What a join does with the objects of iommufd.

use core::{
    iter,
    mem,
    ptr, //
};
use kernel::{
    bindings,
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

use super::{
    extent_of,
    pinned,
    Area,
    Domain,
    Extent,
    FreshArea,
    LockedDomains,
    LockedIopt,
    PagesGuard,
    PhantomData,
    Slice, //
};
use crate::join_plan::{
    blocks,
    check_hole,
    follows,
    reach, //
};

impl<'a> LockedDomains<'a> {
    /// Takes `iova_rwsem` again.
    fn lock_areas(self) -> LockedIopt<'a> {
        let iopt = mem::ManuallyDrop::new(self).0;

        // SAFETY: `domains_rwsem` of a live IOAS is held, after which `iova_rwsem` may be taken.
        unsafe { bindings::down_write(&raw mut (*iopt).iova_rwsem) };
        // INVARIANT: Both locks are held.
        LockedIopt {
            iopt,
            ioas: PhantomData,
        }
    }
}

impl LockedIopt<'_> {
    /// What the first area in a range covers, and the area, unless it is in flight.
    fn next_area(&self, range: Extent) -> Option<(Extent, Option<Area<'_>>)> {
        let area = self.first_area(range)?;
        // SAFETY: The area is in `area_itree`, which does not change while `self` exists.
        let (extent, pages) = unsafe { (extent_of(area), (*area.as_ptr()).pages) };

        // INVARIANT: It is in the tree, and has pages.
        let area = (!pages.is_null()).then_some(Area {
            area,
            locked: PhantomData,
        });
        Some((extent, area))
    }

    /// The area that holds `iova`, unless it is in flight.
    fn area_at(&self, iova: usize) -> Option<Area<'_>> {
        let range = Extent {
            first: iova,
            last: iova,
        };

        self.next_area(range)?.1
    }

    /// The areas that have an IOVA in `range`, `None` for those in flight.
    fn all_areas(&self, range: Extent) -> impl Iterator<Item = Option<Area<'_>>> {
        let mut next = Some(range);

        iter::from_fn(move || {
            let (extent, area) = self.next_area(next?)?;

            next = range.after(extent.last);
            Some(area)
        })
    }

    /// Where nothing is mapped in `range`, nor about to be.
    fn holes(&self, range: Extent) -> impl Iterator<Item = Extent> + '_ {
        let mut next = Some(range);

        iter::from_fn(move || loop {
            let rest = next?;
            let Some((extent, _)) = self.next_area(rest) else {
                next = None;
                return Some(rest);
            };

            next = range.after(extent.last);
            if let Some(last) = extent.first.checked_sub(1).filter(|&l| l >= rest.first) {
                return Some(Extent {
                    first: rest.first,
                    last,
                });
            }
        })
    }

    /// Refuses what cannot be joined, now or ever. Holes are none of its business. A task that is
    /// about to die gets `EINTR`.
    pub(crate) fn check_areas(&self, range: Extent) -> Result {
        let (mut in_flight, mut going) = (false, false);
        let mut kind = Ok(());

        for area in self.all_areas(range) {
            if pause() {
                return Err(EINTR);
            }
            let Some(area) = area else {
                in_flight = true;
                continue;
            };
            kind = kind.and_then(|()| area.check_kind());
            going |= area.is_going();
        }

        if in_flight {
            return Err(EBUSY);
        }
        kind?;
        if going {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Joins the areas that meet in `range` or at its edges, where they can be. A task that is
    /// about to die leaves the rest apart.
    ///
    /// No [`Area`] of the IOAS outlives this, because it is borrowed mutably: of two that are
    /// joined one is freed.
    pub(crate) fn join_areas(&mut self, range: Extent) {
        let below = range.first.checked_sub(1);
        let mut area = below
            .and_then(|iova| self.area_at(iova))
            .or_else(|| self.area_at(range.first));

        while let Some(left) = area.filter(|_| !pause()) {
            let last = left.extent().last;
            // An area that starts behind the one that holds the last byte starts out of reach.
            let right = (last <= range.last)
                .then(|| last.checked_add(1))
                .flatten()
                .and_then(|iova| self.area_at(iova));

            area = match right {
                Some(right) if left.try_join(right) => Some(left),
                right => right,
            };
        }
    }

    /// Joins the leaves that have a byte of `range`, in every domain. All of it is mapped. A task
    /// that is about to die leaves the rest small.
    pub(crate) fn join_leaves(&self, range: Extent) {
        if self.large_pages_disabled() {
            return;
        }
        for (area, domain) in self
            .areas(range)
            .flat_map(|area| self.domains().map(move |domain| (area, domain)))
        {
            if !domain.may_join() {
                if pause() {
                    return;
                }
                continue;
            }
            for leaves in blocks(reach(range, area.extent(), domain.pgsize_bitmap())) {
                domain.join(&area, leaves);
                if pause() {
                    return;
                }
            }
        }
    }
}

/// Lets others run. Is the task about to die? Then it is better to end soon.
fn pause() -> bool {
    // SAFETY: May be called from a context that can sleep, with mutexes and semaphores held.
    unsafe { bindings::iopt_join_pause() }
}

impl Extent {
    /// The rest of the range behind `iova`.
    fn after(&self, iova: usize) -> Option<Self> {
        let first = iova.checked_add(1)?;

        (first <= self.last).then_some(Self { first, ..*self })
    }
}

impl Domain<'_> {
    /// May leaves of the domain be made larger?
    fn may_join(&self) -> bool {
        // SAFETY: The domain is live by the type invariant, and the locks are held.
        unsafe { bindings::iopt_may_join_domain(self.domain.as_ptr()) }
    }

    /// Joins the leaves of `area` that lie in `range`, which is a part of it.
    fn join(&self, area: &Area<'_>, range: Extent) {
        let length = range.last.wrapping_sub(range.first).wrapping_add(1);
        // SAFETY: By the invariant of `Area` it is live and has pages, to which it keeps its
        // reference while the locks are held.
        let _guard = unsafe { PagesGuard::lock((*area.area.as_ptr()).pages) };

        // What cannot be joined stays as it is. There is no error but that somebody changed the
        // table without the locks, of which the page table warns.
        // SAFETY: The domain is live. The leaves lie in an area that is not in flight: nobody maps,
        // unmaps or reads dirty bits there while the locks are held, nor PFNs without the mutex.
        let _ = unsafe { bindings::iommu_join(self.domain.as_ptr(), range.first, length) };
    }
}

impl Area<'_> {
    /// Has an unmap told the users of the area to let go, so that none may pin it any more?
    fn is_marked(&self) -> bool {
        // SAFETY: By the type invariant the area is live, and `iova_rwsem` is held for write.
        unsafe { bindings::iopt_area::prevent_access_raw(self.area.as_ptr()) }
    }

    /// Is an unmap waiting for the users of the area?
    fn is_going(&self) -> bool {
        self.is_marked() && self.pins().accesses != 0
    }

    /// Joins two areas, if nobody can tell the difference. If so, `right` is not to be used again.
    fn try_join(&self, right: Area<'_>) -> bool {
        let (left, next) = (self.area.as_ptr(), right.area.as_ptr());
        // SAFETY: By the type invariant both are live and have pages. `iommu_prot` and `pages` do
        // not change while the locks are held.
        let (pages, same) = unsafe {
            let pages = (*left).pages;

            (
                pages,
                (*next).pages == pages && (*next).iommu_prot == (*left).iommu_prot,
            )
        };
        // The unmap may look again at any moment, and must find the area that it left, also if all
        // users have let go.
        if !same || self.check_kind().is_err() || self.is_marked() || right.is_marked() {
            return false;
        }
        if !follows(self.slice(), right.slice(), PAGE_SIZE) {
            return false;
        }

        // SAFETY: The area keeps its reference to the pages beyond the end of this function.
        let _guard = unsafe { PagesGuard::lock(pages) };
        // SAFETY: The mutex is held.
        if unsafe { may_be_pinned_across(self, &right, pages) } {
            return false;
        }
        // SAFETY: All the locks are held. Both areas are in the trees, no unmap has marked them,
        // and the second goes on where the first ends. It is not used again: the caller is told so.
        unsafe { bindings::iopt_area_join(left, next) };
        true
    }
}

/// May a user have pinned a range that lies in both areas? The pages have that as two pins, one
/// that ends where the first area ends, and one that starts where the second one starts. When the
/// user unpins the range, there must be two areas to ask for them.
///
/// # Safety
///
/// `pages` are those of both areas, and their mutex is held.
unsafe fn may_be_pinned_across(
    left: &Area<'_>,
    right: &Area<'_>,
    pages: *mut bindings::iopt_pages,
) -> bool {
    if left.pins().accesses == 0 || right.pins().accesses == 0 {
        return false;
    }
    let (end, start) = (left.slice().last_index, right.slice().first_index);
    // Only the pins of one page: an area may have any number of them.
    let at = |index| Slice {
        first_index: index,
        last_index: index,
        ..left.slice()
    };
    // SAFETY: The mutex is held until the end of the function.
    let ends = unsafe { pinned(pages, at(end)) }.any(|pin| pin.last_index == end);
    // SAFETY: The mutex stays held, and `at` names one page of those that the areas have.
    let starts = unsafe { pinned(pages, at(start)) }.any(|pin| pin.first_index == start);

    ends && starts
}

/// An area that a hole is filled by.
///
/// # Invariants
///
/// If `pages` is not null, the area is in the tree of its IO page table without pages: it is in
/// flight, and nobody but the owner of this object touches it. A reference to the pages is owned.
struct Hole {
    area: FreshArea,
    pages: *mut bindings::iopt_pages,
}

/// The areas of the holes of a range. It is dropped with `domains_rwsem` held and `iova_rwsem` not.
struct HoleList(KVVec<Hole>);

impl Drop for HoleList {
    fn drop(&mut self) {
        for Hole { area, pages } in self.0.drain_all() {
            if !pages.is_null() {
                // SAFETY: By the invariant of `Hole` the area is in flight, and has been since
                // `domains_rwsem` was taken. The reference to the pages is given up.
                unsafe { bindings::iopt_remove_area(area.into_raw(), pages) }
            }
        }
    }
}

/// The holes of a range, in which areas are in flight. Dropping it takes them out again.
pub(crate) struct Holes<'a> {
    // In this order: the areas go before the lock.
    list: HoleList,
    domains: LockedDomains<'a>,
}

impl<'a> Holes<'a> {
    /// Puts an area in flight into each hole of `range`.
    pub(crate) fn reserve(iopt: LockedIopt<'a>, range: Extent) -> Result<Self> {
        let mut list = HoleList(KVVec::new());
        let result = list.insert(&iopt, range);
        let holes = Self {
            list,
            domains: iopt.unlock_areas(),
        };

        // On failure those that are in the tree are taken out by now.
        result?;
        Ok(holes)
    }

    /// Pins the memory of all areas, accounts it, and maps it in every domain.
    pub(crate) fn fill(self) -> Result<Self> {
        for hole in self.list.0.iter() {
            if pause() {
                return Err(EINTR);
            }
            // SAFETY: By the invariant of `Hole` the area is in flight and the pages are
            // referenced. `domains_rwsem` has been held since it was put in flight.
            to_result(unsafe {
                bindings::iopt_area_fill_domains(hole.area.0.as_ptr(), hole.pages)
            })?;
        }
        Ok(self)
    }

    /// The areas are mapped from now on, if all of `range` is, and can be joined.
    pub(crate) fn publish(self, range: Extent) -> Result<LockedIopt<'a>> {
        let Self { mut list, domains } = self;
        let iopt = domains.lock_areas();

        // From here the invariant of `Hole` is broken, until the areas are in flight again or
        // belong to the tree alone. Either comes before the lock is dropped, or the list.
        list.set_pages(&iopt, true);
        let whole = iopt.locate(range).map_err(|_| EBUSY);
        let checked = whole.and_then(|_| iopt.check_areas(range));
        if let Err(e) = checked {
            list.set_pages(&iopt, false);

            let domains = iopt.unlock_areas();

            drop(list);
            drop(domains);
            return Err(if e == EINTR { e } else { EBUSY });
        }
        for Hole { area, .. } in list.0.drain_all() {
            // The tree has it now.
            area.into_raw();
        }
        Ok(iopt)
    }
}

impl HoleList {
    fn insert(&mut self, iopt: &LockedIopt<'_>, range: Extent) -> Result {
        let mut holes: usize = 0;

        for _ in iopt.holes(range) {
            if pause() {
                return Err(EINTR);
            }
            holes = holes.wrapping_add(1);
        }
        // Allocated once: a list that grows does arithmetic of which the compiler cannot tell that
        // it does not overflow. There may be more than the allocator takes.
        self.0 = KVVec::with_capacity(holes, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?;

        for hole in iopt.holes(range) {
            if pause() {
                return Err(EINTR);
            }
            check_hole(hole, iopt.iova_alignment(), PAGE_SIZE, |iova| {
                iopt.mapping_of(iova).is_some()
            })?;
            // INVARIANT: It is in no tree.
            let new = Hole {
                area: FreshArea::new()?,
                pages: ptr::null_mut(),
            };

            self.0.push_within_capacity(new)?;

            let Some(Hole { area, pages }) = self.0.last_mut() else {
                return Err(ENOMEM);
            };
            // INVARIANT: If it succeeds, the area is in the tree, and there is a reference.
            // SAFETY: The locks are held, nothing is mapped in the hole, and the area is in no
            // tree.
            to_result(unsafe {
                bindings::iopt_insert_hole(iopt.iopt, area.0.as_ptr(), hole.first, hole.last, pages)
            })?;
        }
        Ok(())
    }

    /// Makes the areas mapped ones, or puts them in flight again.
    fn set_pages(&mut self, _iopt: &LockedIopt<'_>, mapped: bool) {
        for hole in self.0.iter() {
            let pages = if mapped { hole.pages } else { ptr::null_mut() };

            // SAFETY: The area is in the tree, so it is live, and `LockedIopt` is the evidence that
            // the lock is held under which its pages are set.
            unsafe { (*hole.area.0.as_ptr()).pages = pages };
        }
    }
}
