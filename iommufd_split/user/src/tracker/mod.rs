// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest shares with its devices, in all IOASes.

mod areas;
mod dirty;
mod ioas;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use self::ioas::{Ioas, Part};
use self::ranges::Ranges;
use crate::ioctls::{page_size, range_of_pages, whole_pages};
use crate::{Granularity, Permissions, Result, SharedMemory, Source, SplitError};

/// Keeps account of which guest memory is shared with devices, and keeps every IOAS like it.
///
/// Guest memory is added in regions, IOASes as devices come. Nothing of a region is shared at
/// first. After that [`Self::set_shared`] and [`Self::set_private`] take any range of guest memory,
/// whatever is shared of it: guests repeat conversions, and convert ranges of which a part has been
/// converted before. What is shared when an IOAS comes is mapped in it.
///
/// ```no_run
/// use std::fs::File;
/// use std::sync::{Arc, Mutex};
///
/// use iommufd_ioctls::{IommuFd, IommufdIoas};
/// use iommufd_split::{Permissions, Result, SharedMemory, Source, Tracker};
///
/// fn start(iommufd: Arc<IommuFd>, memfd: File, dev_ids: &[u32]) -> Result<Mutex<Tracker>> {
///     let mut tracker = Tracker::new();
///     // 4 GiB of guest memory at 4 GiB, all of it shared: one ioctl for each IOAS, where the
///     // IOMMU can split.
///     tracker.add_region(4 << 30, 4 << 30, Source::file(memfd, 0), Permissions::ReadWrite)?;
///     tracker.set_shared(4 << 30, 4 << 30)?;
///
///     let ioas = Arc::new(IommufdIoas::new(Arc::clone(&iommufd))?);
///     tracker.add_ioas(SharedMemory::new(iommufd, ioas, dev_ids)?)?;
///     Ok(Mutex::new(tracker))
/// }
///
/// /// Of any vCPU, for any range.
/// fn convert(tracker: &Mutex<Tracker>, gpa: u64, length: u64, private: bool) -> Result<()> {
///     // Held until the guest's memory has changed hands, or another vCPU that converts the same
///     // page could come in between.
///     let mut tracker = tracker.lock().unwrap();
///     if private {
///         tracker.set_private(gpa, length)?;
///         // Now KVM_SET_MEMORY_ATTRIBUTES, and fallocate(PUNCH_HOLE).
///     } else {
///         // KVM_SET_MEMORY_ATTRIBUTES, then:
///         tracker.set_shared(gpa, length)?;
///     }
///     Ok(())
/// }
/// ```
///
/// # After an error
///
/// The record is as the kernel has it, whatever failed and wherever: [`Self::is_private`] and
/// [`Self::mappings`] tell what devices can reach, and the call can be made again. Every call that
/// fails tries to leave things as they were before it, in all IOASes. Where the kernel refuses even
/// that, two errors say so:
///
/// - [`SplitError::Rollback`]: something is mapped that should not be. Memory must not become
///   private there; [`Self::set_private`] of the range is to be called until it succeeds.
/// - [`SplitError::Hole`]: something is not mapped that should be, so a device's DMA may fail
///   there. [`Self::set_shared`] of the range closes the hole.
///
/// # What it takes for granted
///
/// That it alone maps and unmaps the IOVAs of its regions in its IOASes. A device that is attached
/// to one of them later finds everything there; ask [`Self::ioas_for`] first. An IOAS in which
/// memory is mapped in pieces makes larger ones the smallest unit of all conversions.
///
/// # Threads
///
/// Methods that change something take `&mut self`: a VMM with several vCPUs has a lock around it,
/// and must have, see the example.
///
/// Dropping a tracker changes nothing in the kernel.
#[derive(Debug, Default)]
pub struct Tracker {
    /// By first address. They do not overlap.
    regions: BTreeMap<u64, Region>,
    /// What shall be mapped, in all IOASes. Nothing that is not in a region.
    shared: Ranges,
    ioases: Vec<Ioas>,
}

#[derive(Debug)]
struct Region {
    range: Range<u64>,
    source: Source,
    permissions: Permissions,
}

// Conversions come from every vCPU.
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Tracker>();
};

impl Tracker {
    /// Without memory and without IOASes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds guest memory: `length` bytes at `iova` are those of `source`. Nothing of it is shared.
    ///
    /// # Errors
    ///
    /// [`SplitError::Range`] for what is not made of whole pages, in `source` either, or does not
    /// end below 2^64; [`SplitError::RegionExists`] if a part of the range is in a region.
    pub fn add_region(
        &mut self,
        iova: u64,
        length: u64,
        source: Source,
        permissions: Permissions,
    ) -> Result<()> {
        let range = self.range(iova, length)?;
        self.range(source.start(), length)?;
        let before = self.regions.range(..range.end).next_back();
        if before.is_some_and(|(_, r)| r.range.end > range.start) {
            return Err(SplitError::RegionExists { iova, length });
        }
        let region = Region {
            range,
            source,
            permissions,
        };
        self.regions.insert(iova, region);
        Ok(())
    }

    /// Takes the region that starts at `iova` from the devices, and forgets it.
    ///
    /// # Errors
    ///
    /// [`SplitError::NoRegion`] if there is none; otherwise that of the first unmap that failed.
    /// The region is still there then, nothing of it is shared, and what could be unmapped is: call
    /// it again.
    pub fn remove_region(&mut self, iova: u64) -> Result<()> {
        let region = self.regions.get(&iova);
        let range = region.ok_or(SplitError::NoRegion { iova })?.range.clone();
        self.shared.remove(&range);
        let mut result = Ok(());
        for ioas in &mut self.ioases {
            // What failed first is told.
            result = result.and(ioas.unmap(&range));
        }
        result?;
        self.regions.remove(&iova);
        Ok(())
    }

    /// Maps what is shared in an IOAS that comes now, and keeps it like the others.
    ///
    /// # Errors
    ///
    /// [`SplitError::IoasExists`] if it is there; [`SplitError::Range`] if what is shared is not
    /// made of the pieces of this one; what the kernel gives. The IOAS is not added, and nothing is
    /// mapped in it. After [`SplitError::Rollback`] it is added, because something is.
    pub fn add_ioas(&mut self, memory: SharedMemory) -> Result<()> {
        let ioas_id = memory.ioas_id();
        if self.position(ioas_id).is_some() {
            return Err(SplitError::IoasExists { ioas_id });
        }
        for region in self.regions.values() {
            whole_pages(&region.range, memory.page_size())?;
            let at = region.source.start();
            whole_pages(&(at..at), memory.page_size())?;
        }
        for run in self.shared.iter() {
            whole_pages(&run, memory.page_size())?;
        }
        let mut ioas = Ioas::new(memory);
        let mut mapped = Vec::new();
        for part in self.shared.iter().flat_map(|run| parts(&self.regions, run)) {
            if let Err(cause) = ioas.fill(&part, &mut mapped) {
                let Some(left) = take_back(&mut ioas, &mapped) else {
                    return Err(cause);
                };
                self.ioases.push(ioas);
                return Err(rollback(cause, left));
            }
        }
        self.ioases.push(ioas);
        Ok(())
    }

    /// Unmaps everything in the IOAS, and gives it back.
    ///
    /// # Errors
    ///
    /// [`SplitError::NoIoas`] if it is not there; otherwise that of the first unmap that failed.
    /// The IOAS is still there then, without what could be unmapped: call it again.
    pub fn remove_ioas(&mut self, ioas_id: u32) -> Result<SharedMemory> {
        let i = self.index(ioas_id)?;
        let ioas = &mut self.ioases[i];
        let mut result = Ok(());
        for region in self.regions.values() {
            result = result.and(ioas.unmap(&region.range));
        }
        result?;
        Ok(self.ioases.remove(i).memory)
    }

    /// Gives the IOAS back as it is, without an ioctl, as when it is destroyed.
    ///
    /// # Errors
    ///
    /// [`SplitError::NoIoas`] if it is not there.
    pub fn forget_ioas(&mut self, ioas_id: u32) -> Result<SharedMemory> {
        let i = self.index(ioas_id)?;
        Ok(self.ioases.remove(i).memory)
    }

    /// The IOAS that a device, bound to the iommufd as `dev_id`, may be attached to. One that is
    /// mapped whole, if there are both.
    ///
    /// `None`: there is none, or its IOMMU cannot split and memory is mapped whole in all of them.
    /// The device needs an IOAS of its own, [`SharedMemory::new`] with its ID and
    /// [`Self::add_ioas`].
    ///
    /// # Errors
    ///
    /// [`SplitError::Iommufd`] if the device cannot be asked.
    pub fn ioas_for(&self, dev_id: u32) -> Result<Option<u32>> {
        let whole = |i: &&Ioas| i.memory.granularity() == Granularity::Whole;
        let (whole, pieces): (Vec<_>, Vec<_>) = self.ioases.iter().partition(whole);
        for ioas in whole.into_iter().chain(pieces) {
            if ioas.memory.accepts(dev_id)? {
                return Ok(Some(ioas.memory.ioas_id()));
            }
        }
        Ok(None)
    }

    /// The IOASes.
    pub fn ioases(&self) -> impl Iterator<Item = &SharedMemory> + '_ {
        self.ioases.iter().map(|i| &i.memory)
    }

    /// Lets devices reach the range, whatever of it they reach already.
    ///
    /// What [`Self::set_private`] has taken out of a mapping becomes a part of it again, in one
    /// ioctl, where the kernel can do that ([`SharedMemory::can_restore`]): a guest that has
    /// converted everything and back is mapped as it was in the beginning. Elsewhere, and where it
    /// fails, it is mapped.
    ///
    /// # Errors
    ///
    /// [`SplitError::Range`], [`SplitError::NotMemory`], or what the kernel gives: nothing has
    /// changed, but for [`SplitError::Rollback`].
    pub fn set_shared(&mut self, iova: u64, length: u64) -> Result<()> {
        let range = self.memory(iova, length)?;
        let mut done: Vec<Vec<Range<u64>>> = Vec::new();
        for i in 0..self.ioases.len() {
            done.push(Vec::new());
            for part in parts(&self.regions, range.clone()) {
                if let Err(cause) = self.ioases[i].fill(&part, &mut done[i]) {
                    let undo = self.ioases.iter_mut().zip(&done);
                    let left = undo.filter_map(|(ioas, mapped)| take_back(ioas, mapped));
                    // All of them are taken back before the first is told.
                    return Err(match left.collect::<Vec<_>>().into_iter().next() {
                        None => cause,
                        Some(left) => rollback(cause, left),
                    });
                }
            }
        }
        self.shared.insert(range);
        Ok(())
    }

    /// Splits whatever [`Self::set_private`] of the range would have to split. No device notices.
    ///
    /// What fails for lack of support or memory fails here. The other use is to read the dirty bits
    /// of exactly the range before it goes.
    ///
    /// # Errors
    ///
    /// [`SplitError::Range`], [`SplitError::NotMemory`] and [`SplitError::IommuIoasSplit`]: nothing
    /// has changed for anybody.
    pub fn prepare(&mut self, iova: u64, length: u64) -> Result<()> {
        let range = self.memory(iova, length)?;
        for ioas in &mut self.ioases {
            for run in ioas.areas.runs(&range) {
                ioas.split(&run)?;
            }
        }
        Ok(())
    }

    /// Takes the range out of what devices can reach, whatever of it they reach. They do not notice
    /// where it is not.
    ///
    /// When this returns `Ok` no device reads or writes the range, in any IOAS. See
    /// [`SharedMemory::carve`] for which memory that frees.
    ///
    /// # Errors
    ///
    /// The memory must not become private. [`SplitError::Range`], [`SplitError::NotMemory`], or
    /// what the kernel gives: everything is shared that was, but for [`SplitError::Hole`]. With
    /// several IOASes, or where the kernel cannot do all in one call, a device may have met a hole
    /// for a moment.
    pub fn set_private(&mut self, iova: u64, length: u64) -> Result<()> {
        let range = self.memory(iova, length)?;
        let runs = |ioas: &Ioas| ioas.areas.runs(&range);
        let work: Vec<Vec<Range<u64>>> = self.ioases.iter().map(runs).collect();
        // One call that does all or nothing needs no preparation.
        let single = work.iter().flatten().count() == 1;
        for (ioas, runs) in self.ioases.iter_mut().zip(&work) {
            if !single || !ioas.takes_at_once() {
                for run in runs {
                    ioas.split(run)?;
                }
            }
        }
        for (i, runs) in work.iter().enumerate() {
            for run in runs {
                let mut lost = Vec::new();
                if let Err(cause) = self.ioases[i].take(run, &mut lost) {
                    return Err(self.give_back(i, &lost, &work, cause));
                }
            }
        }
        self.shared.remove(&range);
        Ok(())
    }

    /// An unmap failed in IOAS `failed`, where `lost` may be gone: everything in `work` that is
    /// shared is mapped again.
    fn give_back(
        &mut self,
        failed: usize,
        lost: &[Range<u64>],
        work: &[Vec<Range<u64>>],
        cause: SplitError,
    ) -> SplitError {
        let shared = |range: &Range<u64>| self.shared.within(range).into_iter();
        for area in lost {
            let parts: Vec<_> = shared(area).flat_map(|r| parts(&self.regions, r)).collect();
            // What it could not map is tried once more.
            let _ = self.ioases[failed].recover(area, &parts);
        }
        let mut hole = None;
        for (ioas, runs) in self.ioases.iter_mut().zip(work) {
            for run in runs.iter().flat_map(shared) {
                for part in parts(&self.regions, run) {
                    if ioas.fill(&part, &mut Vec::new()).is_err() {
                        let gap = ioas.areas.gaps(&part.range).into_iter().next();
                        hole = hole.or(gap.map(|g| (ioas.memory.ioas_id(), g)));
                    }
                }
            }
        }
        match hole {
            None => cause,
            Some((ioas_id, gap)) => SplitError::Hole {
                cause: Box::new(cause),
                ioas_id,
                iova: gap.start,
                length: gap.end - gap.start,
            },
        }
    }

    /// Whether devices can reach all of the range, in every IOAS.
    pub fn is_shared(&self, iova: u64, length: u64) -> bool {
        let Ok(range) = self.range(iova, length) else {
            return false;
        };
        let mapped = |i: &Ioas| i.areas.mapped(&range) == length;
        self.shared.contains(&range) && self.ioases.iter().all(mapped)
    }

    /// Whether devices can reach nothing of the range, in any IOAS.
    ///
    /// For the block of memory that comes back when all of it is private, say 2 MiB: see
    /// [`SharedMemory::carve`].
    pub fn is_private(&self, iova: u64, length: u64) -> bool {
        let Some(end) = iova.checked_add(length) else {
            return false;
        };
        let range = iova..end;
        let mapped = |i: &Ioas| i.areas.mapped(&range) != 0;
        self.shared.within(&range).is_empty() && !self.ioases.iter().any(mapped)
    }

    /// What is shared: (first address, bytes), in order, each as long as it can be.
    pub fn shared(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.shared.iter().map(|r| (r.start, r.end - r.start))
    }

    /// The mappings that the kernel has of the range in an IOAS: (IOVA, bytes), in order. Where an
    /// in-kernel user has pinned memory the kernel may have kept apart what is one here.
    ///
    /// # Errors
    ///
    /// [`SplitError::NoIoas`] if it is not there; [`SplitError::Range`].
    pub fn mappings(&self, ioas_id: u32, iova: u64, length: u64) -> Result<Vec<(u64, u64)>> {
        let range = self.range(iova, length)?;
        let areas = self.ioases[self.index(ioas_id)?].areas.areas(&range);
        Ok(areas
            .into_iter()
            .map(|a| (a.start, a.end - a.start))
            .collect())
    }

    fn position(&self, ioas_id: u32) -> Option<usize> {
        self.ioases
            .iter()
            .position(|i| i.memory.ioas_id() == ioas_id)
    }

    fn index(&self, ioas_id: u32) -> Result<usize> {
        self.position(ioas_id).ok_or(SplitError::NoIoas { ioas_id })
    }

    /// Whole pages of all IOASes.
    fn range(&self, iova: u64, length: u64) -> Result<Range<u64>> {
        let sizes = self.ioases.iter().map(|i| i.memory.page_size());
        let page_size = sizes.fold(page_size(), u64::max);
        range_of_pages(iova, length, page_size)
    }

    /// A range of guest memory.
    fn memory(&self, iova: u64, length: u64) -> Result<Range<u64>> {
        let range = self.range(iova, length)?;
        let mut at = iova;
        for part in parts(&self.regions, range.clone()) {
            if part.range.start != at {
                break;
            }
            at = part.range.end;
        }
        match at == range.end {
            true => Ok(range),
            false => Err(SplitError::NotMemory { iova: at }),
        }
    }
}

/// What of `range` is in regions, in order.
fn parts(
    regions: &BTreeMap<u64, Region>,
    range: Range<u64>,
) -> impl Iterator<Item = Part<'_>> + '_ {
    let before = regions.range(..range.start).next_back();
    let parts = before.into_iter().chain(regions.range(range.clone()));
    parts
        .map(move |(_, region)| Part {
            region,
            range: region.range.start.max(range.start)..region.range.end.min(range.end),
        })
        .filter(|part| !part.range.is_empty())
}

/// Unmaps what a call has mapped before it failed; the first that is still there, if any.
fn take_back(ioas: &mut Ioas, mapped: &[Range<u64>]) -> Option<Range<u64>> {
    for range in mapped {
        // What remains is in the record.
        let _ = ioas.unmap(range);
    }
    mapped
        .iter()
        .find_map(|range| ioas.areas.runs(range).into_iter().next())
}

fn rollback(cause: SplitError, left: Range<u64>) -> SplitError {
    SplitError::Rollback {
        cause: Box::new(cause),
        iova: left.start,
        length: left.end - left.start,
    }
}
