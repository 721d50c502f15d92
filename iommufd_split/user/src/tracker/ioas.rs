// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One IOAS of a tracker: what is mapped in it, kept true through every error.

use std::ops::Range;

use super::areas::Areas;
use super::Region;
use crate::ioctls::{all_unmapped, page_size};
use crate::{Granularity, Result, SharedMemory};

/// A part of a region that shall be mapped.
pub(super) struct Part<'a> {
    pub(super) region: &'a Region,
    pub(super) range: Range<u64>,
}

#[derive(Debug)]
pub(super) struct Ioas {
    pub(super) memory: SharedMemory,
    pub(super) areas: Areas,
}

impl Ioas {
    pub(super) fn new(memory: SharedMemory) -> Self {
        Self {
            areas: Areas::new(memory.granularity()),
            memory,
        }
    }

    /// Maps what of `part` is not mapped, and adds that to `mapped`. After an error `mapped` has
    /// what was mapped by then.
    ///
    /// A gap in what was mapped by one call becomes a part of that again, if the kernel can do it.
    pub(super) fn fill(&mut self, part: &Part<'_>, mapped: &mut Vec<Range<u64>>) -> Result<()> {
        let gaps = self.areas.gaps(&part.range);
        let restorable = |ioas: &Self, gap: &Range<u64>| {
            ioas.memory.can_restore() && ioas.areas.source_of(gap).is_some()
        };
        // Nobody but this maps in regions, so the kernel finds the memory that belongs there.
        let all = !gaps.is_empty() && gaps.iter().all(|gap| restorable(self, gap));
        if all && self.restore(&part.range).is_ok() {
            mapped.extend(gaps);
            return Ok(());
        }
        for gap in gaps {
            if !all && restorable(self, &gap) && self.restore(&gap).is_ok() {
                mapped.push(gap);
                continue;
            }
            let step = self.areas.step(&gap);
            let mut at = gap.start;
            while at < gap.end {
                self.map(part.region, at..at + step)?;
                match mapped.last_mut() {
                    Some(last) if step < gap.end - gap.start && last.end == at => last.end += step,
                    _ => mapped.push(at..at + step),
                }
                at += step;
            }
        }
        Ok(())
    }

    /// Makes the range whole again. The kernel fills all of its gaps or none.
    fn restore(&mut self, range: &Range<u64>) -> Result<()> {
        self.memory.fill(range.start, range.end - range.start)?;
        self.areas.fill(range);
        Ok(())
    }

    /// One area. The kernel maps all of it or nothing.
    fn map(&mut self, region: &Region, range: Range<u64>) -> Result<()> {
        let (offset, length) = (range.start - region.range.start, range.end - range.start);
        self.memory.map(
            &region.source,
            offset,
            range.start,
            length,
            region.permissions,
        )?;
        self.areas.insert(range);
        Ok(())
    }

    /// The mapped range becomes areas of its own. An error changes nothing.
    pub(super) fn split(&mut self, run: &Range<u64>) -> Result<()> {
        if self.memory.granularity() == Granularity::Whole {
            self.memory.split(run.start, run.end - run.start)?;
            self.areas.split(run);
        }
        Ok(())
    }

    /// Whether [`Self::take`] needs no split before it.
    pub(super) fn takes_at_once(&self) -> bool {
        self.memory.granularity() != Granularity::Whole || self.memory.carves_in_one_call()
    }

    /// Unmaps a range that is all mapped. After an error `lost` has the areas that may be gone:
    /// [`Self::recover`] finds out.
    pub(super) fn take(&mut self, run: &Range<u64>, lost: &mut Vec<Range<u64>>) -> Result<()> {
        let length = run.end - run.start;
        if self.memory.granularity() == Granularity::Whole && self.memory.carves_in_one_call() {
            match self.memory.split_and_unmap(run.start, length) {
                // An unmap keeps in-kernel users from pinning again, once it has a mapping to
                // close.
                Err(e) if e.errno() == Some(libc::EDEADLK) => self.split(run)?,
                Err(e) => return Err(e),
                Ok(()) => {
                    self.areas.remove(run);
                    return Ok(());
                }
            }
        }
        match self.memory.unmap(run.start, length) {
            Ok(unmapped) => {
                self.areas.remove(run);
                all_unmapped(run.start, length, unmapped)
            }
            Err(e) => {
                *lost = self.areas.areas(run);
                Err(e)
            }
        }
    }

    /// After an unmap that stopped somewhere: maps again what of `area` is in `parts`, if `area` is
    /// gone. What cannot be mapped again stays a hole.
    ///
    /// Only a map or unmap tells whether it is gone, or a join: then the record is put right, and
    /// what is missing is for [`Self::fill`]. The kernel unmaps front to back, but that is not
    /// relied upon.
    pub(super) fn recover(&mut self, area: &Range<u64>, parts: &[Part<'_>]) -> Result<()> {
        if self.memory.can_restore() {
            self.find_gone(area);
            return Ok(());
        }
        let mut result = Ok(());
        let mut gone = false;
        for Part { region, range } in parts {
            if gone {
                // Free, as the part before it was.
                result = self.map(region, range.clone()).and(result);
                continue;
            }
            // As if it were: the record is of what is there.
            let areas_before = self.areas.areas(area);
            self.areas.remove(area);
            match self.map(region, range.clone()) {
                Ok(()) => gone = true,
                Err(e) if e.errno() == Some(libc::EEXIST) => {
                    self.put_back(areas_before);
                    return result;
                }
                Err(e) => {
                    self.put_back(areas_before);
                    result = Err(e);
                    if self.unmap(area).is_err() {
                        return result;
                    }
                    gone = true;
                }
            }
        }
        if !gone {
            // Nothing of it is to be there. What stays is still in the record.
            let _ = self.unmap(area);
        }
        result
    }

    fn put_back(&mut self, areas: Vec<Range<u64>>) {
        for area in areas {
            self.areas.insert(area);
        }
    }

    /// Finds out what of a mapped range is gone after an unmap that stopped, where the kernel may
    /// have more areas than the record has.
    fn find_gone(&mut self, range: &Range<u64>) {
        let length = range.end - range.start;
        match self.memory.join(range.start, length) {
            Ok(()) => self.areas.join(range),
            Err(e) if e.errno() != Some(libc::ENOENT) => {}
            Err(_) if length <= page_size() => self.areas.remove(range),
            Err(_) => {
                let middle = range.start + (length / 2).next_multiple_of(page_size());
                self.find_gone(&(range.start..middle));
                self.find_gone(&(middle..range.end));
            }
        }
    }

    /// Unmaps what is there. An error means that something still is; the record has it.
    pub(super) fn unmap(&mut self, range: &Range<u64>) -> Result<()> {
        if self.areas.mapped(range) == 0 {
            return Ok(());
        }
        let Err(refused) = self.memory.unmap(range.start, range.end - range.start) else {
            self.areas.remove(range);
            return Ok(());
        };
        // Areas in front of the one that refused are gone, and those behind it may go.
        for area in self.areas.areas(range) {
            // What a fill has mapped is no area of its own; and the look for what is gone may have
            // joined it with the one before.
            if self.areas.reach_across(&area) && self.split(&area).is_err() {
                continue;
            }
            match self.memory.unmap(area.start, area.end - area.start) {
                Ok(_) => self.areas.remove(&area),
                Err(e) if e.errno() == Some(libc::ENOENT) => self.areas.remove(&area),
                Err(_) if self.memory.can_restore() => self.find_gone(&area),
                Err(_) => {}
            }
        }
        match self.areas.mapped(range) {
            0 => Ok(()),
            _ => Err(refused),
        }
    }
}
