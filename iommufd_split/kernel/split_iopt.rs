// SPDX-License-Identifier: GPL-2.0-only

//! The objects of iommufd that a split works on, and the locks that make that safe.
//!
//! All unsafe code of the ioctls but their entries is here, and in `join_iopt.rs` what only a join
//! needs. A [`LockedIopt`] is the evidence that the locks are held; [`Area`]s and [`Domain`]s can
//! only be had from one and do not outlive it.

use core::{
    marker::PhantomData,
    mem,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    container_of,
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

use super::split_plan::{
    Cuts,
    Extent,
    Parts,
    Pinned,
    Pins,
    Refusal,
    Shares,
    Slice, //
};

#[path = "join_iopt.rs"]
pub(crate) mod join_iopt;

/// A reference to an IOAS, held for the duration of the ioctl.
///
/// # Invariants
///
/// `ioas` is live, with a reference that this object owns, and `ictx` is the context it belongs to.
pub(crate) struct Ioas {
    ictx: NonNull<bindings::iommufd_ctx>,
    ioas: NonNull<bindings::iommufd_ioas>,
}

impl Ioas {
    /// Gets the IOAS with the given ID.
    ///
    /// # Safety
    ///
    /// `ictx` must be valid for as long as the result exists.
    pub(crate) unsafe fn get(ictx: NonNull<bindings::iommufd_ctx>, id: u32) -> Result<Self> {
        // SAFETY: `ictx` is valid by the function's requirement.
        let obj = from_err_ptr(unsafe {
            bindings::iommufd_get_object(
                ictx.as_ptr(),
                id,
                bindings::iommufd_object_type_IOMMUFD_OBJ_IOAS,
            )
        })?;
        // SAFETY: An object of type IOMMUFD_OBJ_IOAS is the `obj` member of an `iommufd_ioas`.
        let ioas = unsafe { container_of!(obj, bindings::iommufd_ioas, obj) };

        // INVARIANT: `iommufd_get_object()` took the reference.
        Ok(Self {
            ictx,
            ioas: NonNull::new(ioas).ok_or(ENOENT)?,
        })
    }

    /// Takes the locks under which areas may be cut.
    pub(crate) fn lock(&self) -> LockedIopt<'_> {
        // SAFETY: By the type invariant the field is in bounds of a live object.
        let iopt = unsafe { &raw mut (*self.ioas.as_ptr()).iopt };

        // SAFETY: The semaphores live as long as the IOAS, and this is the documented lock order.
        unsafe {
            bindings::down_read(&raw mut (*iopt).domains_rwsem);
            bindings::down_write(&raw mut (*iopt).iova_rwsem);
        }
        // INVARIANT: Both locks have just been taken.
        LockedIopt {
            iopt,
            ioas: PhantomData,
        }
    }
}

impl Ioas {
    /// Asks the in-kernel users of the IOAS to unpin what they have pinned in `range`. No lock may
    /// be held.
    pub(crate) fn notify_unmap(&self, range: Extent) {
        let length = range.last.wrapping_sub(range.first).wrapping_add(1);

        // SAFETY: By the type invariant the IOAS is live, and the function does its own locking.
        unsafe {
            bindings::iommufd_access_notify_unmap(
                &raw mut (*self.ioas.as_ptr()).iopt,
                range.first,
                length,
            )
        }
    }
}

impl Drop for Ioas {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::iommufd_split_put_ioas(self.ictx.as_ptr(), self.ioas.as_ptr()) }
    }
}

/// The IO page table of an IOAS whose areas may be cut.
///
/// # Invariants
///
/// As long as the object exists, the current task holds `domains_rwsem` for read and `iova_rwsem`
/// for write, and `iopt` belongs to a live IOAS.
pub(crate) struct LockedIopt<'a> {
    iopt: *mut bindings::io_pagetable,
    ioas: PhantomData<&'a Ioas>,
}

impl Drop for LockedIopt<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant both are held.
        unsafe {
            bindings::up_write(&raw mut (*self.iopt).iova_rwsem);
            bindings::up_read(&raw mut (*self.iopt).domains_rwsem);
        }
    }
}

impl<'a> LockedIopt<'a> {
    /// Lets go of `iova_rwsem`, and not of `domains_rwsem`.
    fn unlock_areas(self) -> LockedDomains<'a> {
        let iopt = mem::ManuallyDrop::new(self).iopt;

        // SAFETY: By the type invariant it is held, and it is not used any more.
        unsafe { bindings::up_write(&raw mut (*iopt).iova_rwsem) };
        LockedDomains(iopt, PhantomData)
    }
}

impl LockedIopt<'_> {
    pub(crate) fn iova_alignment(&self) -> usize {
        // SAFETY: The field is stable under the locks that the type invariant speaks of.
        unsafe { (*self.iopt).iova_alignment }
    }

    /// All leaves are at most a page, and all cuts are aligned to a page.
    ///
    /// The option can only be switched off while there is nothing mapped in any domain, so if it
    /// is off now then it was off when the domains were filled.
    fn large_pages_disabled(&self) -> bool {
        // SAFETY: The IO page table is live, and the option changes under `iova_rwsem` only, which
        // the type invariant says is held.
        unsafe { (*self.iopt).disable_large_pages != 0 }
    }

    /// Every domain that holds the areas.
    pub(crate) fn domains(&self) -> impl Iterator<Item = Domain<'_>> {
        // SAFETY: The IO page table is live, and domains are added and removed under the write side
        // of `domains_rwsem` only, of which the type invariant holds the read side.
        let count = unsafe { (*self.iopt).next_domain_id };

        (0..count as usize).filter_map(|index| {
            // SAFETY: The xarray is initialized and does its own locking.
            let domain = unsafe { bindings::xa_load(&raw mut (*self.iopt).domains, index) };

            // INVARIANT: Domains stay in the xarray as long as `domains_rwsem` is held.
            Some(Domain {
                domain: NonNull::new(domain.cast())?,
                locked: PhantomData,
            })
        })
    }

    /// The first area that has an IOVA in `range`, in flight or not.
    fn first_area(&self, range: Extent) -> Option<NonNull<bindings::iopt_area>> {
        // SAFETY: The type invariant gives exclusive access to the tree.
        let node = unsafe {
            bindings::interval_tree_iter_first(
                &raw mut (*self.iopt).area_itree,
                range.first,
                range.last,
            )
        };

        area_of(node)
    }

    /// What the mapping that holds `iova` covers, in flight or not.
    pub(crate) fn mapping_of(&self, iova: usize) -> Option<Extent> {
        let area = self.first_area(Extent {
            first: iova,
            last: iova,
        })?;

        // SAFETY: The area is in `area_itree`, which does not change while `self` exists.
        Some(unsafe { extent_of(area) })
    }

    /// The areas that have an IOVA in `range`, which [`Self::locate`] has looked at: none is in
    /// flight.
    pub(crate) fn areas(&self, range: Extent) -> impl Iterator<Item = Area<'_>> {
        let mut next = self.first_area(range);

        core::iter::from_fn(move || {
            let area = next?;
            // SAFETY: The area is in the tree, to which the type invariant gives exclusive access.
            let node = unsafe {
                bindings::interval_tree_iter_next(
                    &raw mut (*area.as_ptr()).node,
                    range.first,
                    range.last,
                )
            };

            next = area_of(node);
            // INVARIANT: It is in the tree. That it has pages is checked here once more.
            // SAFETY: What is in the tree is live, and `pages` changes under the write side of
            // `iova_rwsem` only, which is held.
            (!unsafe { (*area.as_ptr()).pages }.is_null()).then_some(Area {
                area,
                locked: PhantomData,
            })
        })
    }

    /// Finds the areas that hold the first and the last byte of `range`.
    ///
    /// Fails if a part of the range is not mapped, or is only about to be. A hole is reported in
    /// preference to an area in flight, because trying again does not help against it.
    pub(crate) fn locate(&self, range: Extent) -> Result<(Area<'_>, Area<'_>), Refusal> {
        let head = self.first_area(range).ok_or(Refusal::NotMapped)?;
        let mut tail = head;
        let mut next = range.first;
        let mut in_flight = false;

        loop {
            // SAFETY: The area is in the tree, to which the type invariant gives exclusive access.
            let (node, pages) = unsafe { ((*tail.as_ptr()).node, (*tail.as_ptr()).pages) };

            if node.start > next {
                return Err(Refusal::NotMapped);
            }
            in_flight |= pages.is_null();
            if node.last >= range.last {
                break;
            }
            // Cannot wrap, `range.last` is larger.
            next = node.last.wrapping_add(1);
            // SAFETY: `tail` is in the tree, which nobody changes while the locks are held.
            let node = unsafe {
                bindings::interval_tree_iter_next(
                    &raw mut (*tail.as_ptr()).node,
                    range.first,
                    range.last,
                )
            };
            tail = area_of(node).ok_or(Refusal::NotMapped)?;
        }

        if in_flight {
            return Err(Refusal::Busy);
        }
        // INVARIANT: Both are in the tree and have pages. Neither can change while `self` exists.
        let area = |area| Area {
            area,
            locked: PhantomData,
        };
        Ok((area(head), area(tail)))
    }

    /// Does `domain` have to split leaves before `area` can be cut?
    pub(crate) fn must_split(&self, domain: &Domain<'_>, area: Extent, cuts: Cuts) -> bool {
        if self.large_pages_disabled() {
            return false;
        }
        // Only generic_pt is known to remove any leaf on its own. Other drivers may tie together
        // what was mapped by one call, as virtio-iommu does, whatever their page sizes are.
        !domain.is_iommupt() || cuts.leaf_may_cross(area, domain.pgsize_bitmap())
    }
}

/// The area of a node of `area_itree`.
fn area_of(node: *mut bindings::interval_tree_node) -> Option<NonNull<bindings::iopt_area>> {
    if node.is_null() {
        return None;
    }
    // SAFETY: `area_itree` links the `node` members of areas.
    NonNull::new(unsafe { container_of!(node, bindings::iopt_area, node) })
}

/// The IOVA that an area covers.
///
/// # Safety
///
/// `area` must be live, and `iova_rwsem` of its IO page table be held.
unsafe fn extent_of(area: NonNull<bindings::iopt_area>) -> Extent {
    // SAFETY: The caller says that the area is live and holds `iova_rwsem`, under which `node` does
    // not change.
    unsafe {
        Extent {
            first: (*area.as_ptr()).node.start,
            last: (*area.as_ptr()).node.last,
        }
    }
}

/// A domain of a locked IOAS.
///
/// # Invariants
///
/// `domain` is in `domains` of the IO page table that is locked for `'l`, so it is live.
pub(crate) struct Domain<'l> {
    domain: NonNull<bindings::iommu_domain>,
    locked: PhantomData<&'l LockedIopt<'l>>,
}

impl Domain<'_> {
    fn is_iommupt(&self) -> bool {
        // SAFETY: The domain is live by the type invariant, and the field does not change.
        unsafe { (*self.domain.as_ptr()).is_iommupt }
    }

    fn pgsize_bitmap(&self) -> usize {
        // SAFETY: The domain is live by the type invariant, and its page sizes are constant while
        // it is in use.
        unsafe { (*self.domain.as_ptr()).pgsize_bitmap }
    }

    pub(crate) fn can_split(&self) -> bool {
        // SAFETY: The domain is live by the type invariant.
        unsafe { bindings::iommu_can_split(self.domain.as_ptr()) }
    }

    /// Splits the leaves that cross a cut of `area`, and flushes the IOTLB.
    pub(crate) fn split(&self, area: &Area<'_>, cuts: Cuts) -> Result {
        let range = cuts.middle(area.extent());
        let length = range.last.wrapping_sub(range.first).wrapping_add(1);

        // SAFETY: The domain is live. The range, and the leaves that cross its ends, lie in an area
        // that is not in flight: nobody maps or unmaps there while the locks are held.
        to_result(unsafe {
            bindings::iommu_split(
                self.domain.as_ptr(),
                range.first,
                length,
                bindings::GFP_KERNEL_ACCOUNT,
            )
        })
    }
}

/// An area of a locked IOAS that is not in flight.
///
/// # Invariants
///
/// `area` is in `area_itree` of the IO page table that is locked for `'l`, and has pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area<'l> {
    area: NonNull<bindings::iopt_area>,
    locked: PhantomData<&'l LockedIopt<'l>>,
}

/// Fields are read one by one, and no reference is made to the whole. `pages_node` contains the
/// links of `domains_itree`: another IOAS that shares the pages puts its areas into that tree and
/// takes them out again, and rewrites the links of ours, under the mutex of the pages alone.
impl Area<'_> {
    pub(crate) fn extent(&self) -> Extent {
        // SAFETY: By the type invariant the area is live and in `area_itree`.
        unsafe { extent_of(self.area) }
    }

    /// Refuses what can never be cut.
    pub(crate) fn check_kind(&self) -> Result<(), Refusal> {
        // SAFETY: By the type invariant the area is live and has pages, whose type does not change.
        let kind = unsafe { (*(*self.area.as_ptr()).pages).type_ };

        // The exporter may revoke the mapping at any time, and tracks it per area.
        if kind == bindings::iopt_address_type_IOPT_ADDRESS_DMABUF {
            return Err(Refusal::Unsupported);
        }
        Ok(())
    }

    /// How the area is cut, and what its parts get of its pins. Refuses what cannot be cut for now.
    ///
    /// The areas count their pins and are asked for the same page indexes again when a pin ends,
    /// while where a pin lies is only recorded in the pages, without its area. [`Shares::new`] puts
    /// both together. The answer stays true for as long as the locks are held: the counts of this
    /// area only change under the read side of `iova_rwsem`, at least.
    pub(crate) fn plan(&self, cuts: Cuts) -> Result<Plan> {
        let area = self.area.as_ptr();

        // The area is being unmapped, and its users are told to unpin. An unmap that gave up leaves
        // the mark behind: without pins it keeps nobody from a cut. The part that stays in this
        // area keeps it, and cannot be pinned again; the others are new.
        // SAFETY: By the type invariant the area is live, and `iova_rwsem` is held for write.
        if unsafe { bindings::iopt_area::prevent_access_raw(area) } && self.pins().accesses != 0 {
            return Err(Refusal::Busy.into());
        }

        let all = self.slice();
        let parts = all.cut_all(cuts, PAGE_SIZE).ok_or(EINVAL)?;
        // SAFETY: By the type invariant the area has pages, and keeps its reference to them.
        let (pages, _guard) = unsafe { ((*area).pages, PagesGuard::lock((*area).pages)) };
        // SAFETY: The mutex is held until the end of the function.
        let pinned = unsafe { pinned(pages, all) };
        let shares = Shares::new(all, parts, self.pins(), pinned)?;

        Ok(Plan { parts, shares })
    }

    /// How often the area is pinned.
    pub(crate) fn pins(&self) -> Pins {
        let area = self.area.as_ptr();

        // SAFETY: By the type invariant the area is live, and `iova_rwsem` is held for write, under
        // the read side of which pins are counted, at least.
        unsafe {
            Pins {
                accesses: (*area).num_accesses,
                locks: (*area).num_locks,
            }
        }
    }

    fn slice(&self) -> Slice {
        let area = self.area.as_ptr();

        // SAFETY: By the type invariant the area is live. What it covers of the pages only changes
        // under the locks that are held.
        unsafe {
            Slice {
                iova: self.extent(),
                first_index: (*area).pages_node.start,
                last_index: (*area).pages_node.last,
                page_offset: (*area).page_offset as usize,
            }
        }
    }
}

/// How many there are. [`Iterator::count`] has a check for overflow, and with it a panic.
pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> usize {
    items.fold(0, |n: usize, _| n.wrapping_add(1))
}

/// Every pin that shares a page with `slice`.
///
/// # Safety
///
/// `pages` must be live and its mutex held for as long as the result is used.
unsafe fn pinned(pages: *mut bindings::iopt_pages, slice: Slice) -> impl Iterator<Item = Pinned> {
    let (first, last) = (slice.first_index, slice.last_index);
    // SAFETY: The caller says that the pages are live and holds their mutex, which protects the
    // tree.
    let mut node =
        unsafe { bindings::interval_tree_iter_first(&raw mut (*pages).access_itree, first, last) };

    core::iter::from_fn(move || {
        if node.is_null() {
            return None;
        }
        // SAFETY: `access_itree` links the `node` members of `iopt_pages_access`.
        let access = unsafe { container_of!(node, bindings::iopt_pages_access, node) };
        // SAFETY: What is in the tree is live as long as the mutex is held.
        let pin = unsafe {
            Pinned {
                first_index: (*access).node.start,
                last_index: (*access).node.last,
                pins: Pins {
                    accesses: (*access).users,
                    locks: (*access).locks,
                },
            }
        };

        // SAFETY: `node` is in the tree, which does not change as long as the mutex is held.
        node = unsafe { bindings::interval_tree_iter_next(node, first, last) };
        Some(pin)
    })
}

/// How an area is cut.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    parts: Parts,
    shares: Shares,
}

impl Plan {
    /// How often the part in the requested range is pinned.
    pub(crate) fn pins_of_middle(&self) -> Pins {
        self.shares.middle
    }
}

/// An area that is in no tree yet.
struct FreshArea(NonNull<bindings::iopt_area>);

impl FreshArea {
    fn new() -> Result<Self> {
        // SAFETY: May be called from a context that can sleep, which an ioctl is.
        let area = unsafe { bindings::iopt_area_alloc() };

        Ok(Self(NonNull::new(area).ok_or(ENOMEM)?))
    }

    /// Gives up ownership.
    fn into_raw(self) -> *mut bindings::iopt_area {
        let area = self.0.as_ptr();

        mem::forget(self);
        area
    }
}

impl Drop for FreshArea {
    fn drop(&mut self) {
        // SAFETY: `iopt_area_alloc()` allocates with kmalloc, and nobody else has the pointer.
        unsafe { bindings::kfree(self.0.as_ptr().cast()) }
    }
}

/// The mutex of the pages of an area, held.
struct PagesGuard(*mut bindings::iopt_pages);

impl PagesGuard {
    /// # Safety
    ///
    /// `pages` must be live for as long as the result exists.
    unsafe fn lock(pages: *mut bindings::iopt_pages) -> Self {
        // SAFETY: The caller says that the pages are live, so their mutex is initialised.
        unsafe { bindings::mutex_lock(&raw mut (*pages).mutex) };
        Self(pages)
    }
}

impl Drop for PagesGuard {
    fn drop(&mut self) {
        // SAFETY: `lock()` took the mutex, and the pages are still live.
        unsafe { bindings::mutex_unlock(&raw mut (*self.0).mutex) }
    }
}

/// A part of an area that is cut, with what it gets of the pins.
type Share = (Extent, Pins);

/// Says how often an area is pinned.
///
/// # Safety
///
/// `area` must be live, and `iova_rwsem` of its IO page table and the mutex of its pages be held.
unsafe fn set_pins(area: *mut bindings::iopt_area, pins: Pins) {
    // SAFETY: The caller says that the area is live, and holds the locks under which pins are
    // counted.
    unsafe {
        (*area).num_accesses = pins.accesses;
        (*area).num_locks = pins.locks;
    }
}

/// Makes a new area for a part, if there is that part.
fn allocate(share: Option<Share>) -> Result<Option<(Share, FreshArea)>> {
    share
        .map(|share| Ok((share, FreshArea::new()?)))
        .transpose()
}

/// Everything that is needed to cut an area without failing.
pub(crate) struct PreparedCut<'l> {
    area: Area<'l>,
    kept: Share,
    rest: [Option<(Share, FreshArea)>; 2],
    /// The part in the requested range, if it is to be unmapped.
    hole: Option<Carve>,
}

impl<'l> PreparedCut<'l> {
    /// Prepares to make the middle an area of its own.
    pub(crate) fn split(area: Area<'l>, plan: Plan) -> Result<Self> {
        let Plan { parts, shares } = plan;
        let middle = (parts.middle.iova, shares.middle);
        let above = parts.above.map(|above| (above.iova, shares.above));
        // The old area becomes the leftmost part.
        let (kept, [first, second]) = match parts.below {
            Some(below) => ((below.iova, shares.below), [Some(middle), above]),
            None => (middle, [above, None]),
        };

        Ok(Self {
            area,
            kept,
            rest: [allocate(first)?, allocate(second)?],
            hole: None,
        })
    }

    /// Prepares to unmap the middle, in every domain. Nobody pins it.
    ///
    /// `must_split`: may a leaf of the domain reach across a cut?
    pub(crate) fn carve(
        iopt: &'l LockedIopt<'_>,
        area: Area<'l>,
        plan: Plan,
        must_split: impl Fn(&Domain<'_>) -> bool,
    ) -> Result<Self> {
        let Plan { parts, shares } = plan;
        let above = parts.above.map(|above| (above.iova, shares.above));
        // There is a cut, so there is one of them.
        let (kept, rest) = match (parts.below, above) {
            (Some(below), above) => ((below.iova, shares.below), above),
            (None, Some(above)) => (above, None),
            (None, None) => return Err(EINVAL),
        };

        Ok(Self {
            area,
            kept,
            rest: [allocate(rest)?, None],
            hole: Some(Carve::new(iopt, &area, parts.middle.iova, must_split)?),
        })
    }

    /// Cuts the area, and unmaps the middle if that was prepared. Else no leaf of any domain may
    /// cross the cuts any more.
    ///
    /// The old area keeps its reference to the pages, each new area gets one; what is pinned and
    /// accounted belongs to the pages, and only changes by the unmap. How often the area was pinned
    /// is handed on to its parts.
    pub(crate) fn commit(self) {
        let old = self.area.area.as_ptr();
        // SAFETY: By the invariant of `Area` it is live.
        let pages = unsafe { (*old).pages };
        // SAFETY: By the invariant of `Area` there are pages. The area keeps its reference to them
        // beyond the end of this function.
        let _guard = unsafe { PagesGuard::lock(pages) };

        for ((range, pins), fresh) in self.rest.into_iter().flatten() {
            let new = fresh.into_raw();

            // SAFETY: All the locks are held. By the invariant of `Area` the old one is in the
            // trees, and it covers the range. `new` is in no tree, and freed with kfree when it is
            // unmapped.
            unsafe { bindings::iopt_area_add_part(old, new, range.first, range.last) };
            // SAFETY: `new` is in the trees, and all the locks are held.
            unsafe { set_pins(new, pins) };
        }

        let (range, pins) = self.kept;
        // SAFETY: All the locks are held, and by the invariant of `Area` the old one is in the
        // trees. The rest of it is in the new areas, or is unmapped below.
        unsafe { bindings::iopt_area_shrink(old, range.first, range.last) };
        // SAFETY: The old area is in the trees, and all the locks are held.
        unsafe { set_pins(old, pins) };

        if let Some(hole) = self.hole {
            // SAFETY: The trees do not have the part any more, and all the locks are held.
            unsafe { hole.commit() };
        }
    }
}

/// What all domains need to lose a part of an area.
///
/// # Invariants
///
/// The pointer is from `iopt_carve_alloc()`, and every domain of the IO page table was added.
struct Carve(NonNull<bindings::iopt_carve>);

impl Carve {
    fn new(
        iopt: &LockedIopt<'_>,
        area: &Area<'_>,
        range: Extent,
        must_split: impl Fn(&Domain<'_>) -> bool,
    ) -> Result<Self> {
        let (area, count) = (area.area.as_ptr(), count(iopt.domains()));
        // SAFETY: May be called from a context that can sleep, which an ioctl is. `area` is live by
        // the invariant of `Area`, and covers the range.
        let carve =
            unsafe { bindings::iopt_carve_alloc(area, range.first, range.last, count as u32) };
        // From here on it is given back if something fails.
        let carve = Self(NonNull::new(carve).ok_or(ENOMEM)?);

        for domain in iopt.domains() {
            // SAFETY: There is room for `count` domains, of which this is one. It is live for as
            // long as the locks are held, and so is what is mapped there.
            to_result(unsafe {
                bindings::iopt_carve_add_domain(
                    carve.0.as_ptr(),
                    domain.domain.as_ptr(),
                    must_split(&domain),
                )
            })?;
        }
        // INVARIANT: All were added.
        Ok(carve)
    }

    /// Unmaps the part.
    ///
    /// # Safety
    ///
    /// The locks of the IO page table and the mutex of the pages are held. The part is in no tree.
    unsafe fn commit(self) {
        // SAFETY: By the type invariant every domain was added. The caller holds the locks and took
        // the part out of the trees.
        unsafe { bindings::iopt_carve_domains(self.0.as_ptr()) }
    }
}

impl Drop for Carve {
    fn drop(&mut self) {
        // SAFETY: It is ours, and the domains are live: the locks are still held.
        unsafe { bindings::iopt_carve_free(self.0.as_ptr()) }
    }
}

/// Areas that are unmapped as a whole.
///
/// # Invariants
///
/// Each area is in the tree of the IO page table that it was taken from, without pages: it is in
/// flight, and nobody but the owner of this object touches it. The reference to the pages is owned.
pub(crate) struct WholeAreas(KVVec<(NonNull<bindings::iopt_area>, NonNull<bindings::iopt_pages>)>);

impl WholeAreas {
    /// Makes room for `count` areas.
    pub(crate) fn with_capacity(count: usize) -> Result<Self> {
        // There may be more than the allocator takes.
        let none = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?;

        // INVARIANT: There are none.
        Ok(Self(none))
    }

    /// Takes an area, for which there is room.
    pub(crate) fn take(&mut self, area: Area<'_>) {
        let area = area.area;
        // SAFETY: By the invariant of `Area` it is live and has pages; the locks are held under
        // which it may be put in flight.
        let Some(pages) = NonNull::new(unsafe {
            core::ptr::replace(&raw mut (*area.as_ptr()).pages, core::ptr::null_mut())
        }) else {
            return;
        };
        // INVARIANT: In flight from now on.
        if self.0.push_within_capacity((area, pages)).is_err() {
            // SAFETY: The area is live and the locks are held. It gets back the pages that it had.
            unsafe { (*area.as_ptr()).pages = pages.as_ptr() };
        }
    }

    /// Unmaps the areas. As in an unmap the areas of the IOAS may be looked at and changed
    /// meanwhile, but its domains stay.
    pub(crate) fn remove(self, iopt: LockedIopt<'_>) {
        let domains = iopt.unlock_areas();

        for &(area, pages) in self.0.iter() {
            // SAFETY: By the type invariant; `domains_rwsem` has been held all the time.
            unsafe { bindings::iopt_remove_area(area.as_ptr(), pages.as_ptr()) }
        }
        drop(domains);
    }
}

/// `domains_rwsem` of an IO page table, held for read.
struct LockedDomains<'a>(*mut bindings::io_pagetable, PhantomData<&'a Ioas>);

impl Drop for LockedDomains<'_> {
    fn drop(&mut self) {
        // SAFETY: `unlock_areas()` has handed on the semaphore, and the IOAS is still referenced.
        unsafe { bindings::up_read(&raw mut (*self.0).domains_rwsem) }
    }
}
