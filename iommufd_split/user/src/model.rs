// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel for tests: IOASes with their mappings, after `Documentation/uapi.md`, and any of its
//! ioctls can be made to fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use iommufd_bindings::iommufd::{
    iommu_hw_info, iommu_hwpt_get_dirty_bitmap, iommu_ioas_map, iommu_ioas_map_file,
    iommu_ioas_unmap, iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
};
use iommufd_ioctls::IommufdError;
use vmm_sys_util::errno::Error as SysError;

use crate::dirty::Bits;
use crate::ioctls::{page_size, Ioctls};
use crate::{
    iommu_ioas_join, iommu_ioas_split, iommufd_hw_capabilities_IOMMU_HW_CAP_HITLESS_SPLIT,
    iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL, iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP,
    Result, SplitError,
};

/// What the kernel and its IOMMUs know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Knows {
    pub(crate) split: bool,
    pub(crate) split_and_unmap: bool,
    pub(crate) join: bool,
    /// The number is another ioctl's, which does nothing and succeeds.
    pub(crate) otherwise: bool,
}

impl Knows {
    pub(crate) const ALL: Self = Self {
        split: true,
        split_and_unmap: true,
        join: true,
        otherwise: false,
    };
    pub(crate) const NO_JOIN: Self = Self {
        join: false,
        ..Self::ALL
    };
    pub(crate) const TWO_CALLS: Self = Self {
        split_and_unmap: false,
        ..Self::NO_JOIN
    };
    pub(crate) const OTHERWISE: Self = Self {
        otherwise: true,
        ..Self::NOTHING
    };
    pub(crate) const NOTHING: Self = Self {
        split: false,
        split_and_unmap: false,
        join: false,
        otherwise: false,
    };
}

/// A mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) end: u64,
    /// First byte of it in the file or the process.
    pub(crate) source: u64,
    /// Descriptor; `None` for memory of the process.
    pub(crate) fd: Option<i32>,
    pub(crate) flags: u32,
    /// Which map it is of, and what that has mapped: first byte and end, as `source`.
    pages: (usize, u64, u64),
}

#[derive(Default)]
struct Ioas {
    areas: BTreeMap<u64, Area>,
    /// Its IOMMUs can split.
    splits: bool,
    /// Areas that a device has written to, by their first address: they are one IOPTE each.
    dirty: BTreeSet<u64>,
}

#[derive(Default)]
struct State {
    ioases: BTreeMap<u32, Ioas>,
    /// Devices, and whether their IOMMU can split.
    devices: BTreeMap<u32, bool>,
    /// For the next ioctls, one each: which of their errors they give, how far an unmap comes.
    faults: VecDeque<Option<u8>>,
    calls: usize,
    /// Pages that were mapped or unmapped, in any IOAS, since [`Kernel::arm`].
    touched: BTreeSet<u64>,
    /// So many maps.
    maps: usize,
    /// A join has left apart what could be one, as the pins of an in-kernel user make it do.
    apart: bool,
}

pub(crate) struct Kernel {
    knows: Knows,
    state: Mutex<State>,
}

impl Kernel {
    pub(crate) fn new(knows: Knows) -> Arc<Self> {
        Arc::new(Self {
            knows,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn add_ioas(&self, ioas_id: u32, splits: bool) {
        let ioas = Ioas {
            splits,
            ..Ioas::default()
        };
        self.state().ioases.insert(ioas_id, ioas);
    }

    pub(crate) fn remove_ioas(&self, ioas_id: u32) {
        self.state().ioases.remove(&ioas_id);
    }

    pub(crate) fn add_device(&self, dev_id: u32, splits: bool) {
        self.state().devices.insert(dev_id, splits);
    }

    /// From now on the ioctls fail so, one after the other, and what they do is noted.
    pub(crate) fn arm(&self, faults: &[Option<u8>]) {
        let mut state = self.state();
        state.faults = faults.iter().copied().collect();
        state.calls = 0;
        state.touched.clear();
    }

    /// A device writes to the page at `iova`.
    pub(crate) fn write(&self, ioas_id: u32, iova: u64) {
        let mut state = self.state();
        let ioas = state.ioas(ioas_id).unwrap();
        let (start, area) = ioas.areas.range(..=iova).next_back().unwrap();
        assert!(area.end > iova);
        ioas.dirty.insert(*start);
    }

    /// Ioctls since [`Self::arm`].
    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }

    /// Whether there may be more areas than there need be.
    pub(crate) fn kept_apart(&self) -> bool {
        self.state().apart
    }

    pub(crate) fn touched(&self) -> BTreeSet<u64> {
        self.state().touched.clone()
    }

    pub(crate) fn areas(&self, ioas_id: u32) -> BTreeMap<u64, Area> {
        let state = self.state();
        let ioas = state.ioases.get(&ioas_id);
        ioas.map_or_else(BTreeMap::new, |i| i.areas.clone())
    }

    /// Every page that is mapped, and the byte that it is.
    pub(crate) fn pages(&self, ioas_id: u32) -> BTreeMap<u64, u64> {
        let areas = self.areas(ioas_id);
        let pages = areas.iter().flat_map(|(&start, area)| {
            let step = page_size() as usize;
            (start..area.end)
                .step_by(step)
                .map(move |at| (at, area.source + (at - start)))
        });
        pages.collect()
    }
}

impl State {
    /// Whether this ioctl fails.
    fn fault(&mut self) -> Option<u8> {
        self.calls += 1;
        self.faults.pop_front().flatten()
    }

    fn ioas(&mut self, ioas_id: u32) -> std::result::Result<&mut Ioas, i32> {
        self.ioases.get_mut(&ioas_id).ok_or(libc::ENOENT)
    }

    fn touch(&mut self, start: u64, end: u64) {
        self.touched
            .extend((start..end).step_by(page_size() as usize));
    }

    fn map(
        &mut self,
        ioas_id: u32,
        iova: u64,
        length: u64,
        area: Area,
    ) -> std::result::Result<(), i32> {
        let fault = self.fault();
        let ioas = self.ioas(ioas_id)?;
        let fixed = iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA;
        let pages = (iova | length | area.source).is_multiple_of(page_size());
        if length == 0 || !pages || area.flags & fixed == 0 {
            return Err(libc::EINVAL);
        }
        // Memory is allocated before the IOVA is looked at, and after.
        if fault.is_some_and(|f| f % 2 == 0) {
            return Err(libc::ENOMEM);
        }
        if ioas.overlapping(iova, area.end).next().is_some() {
            return Err(libc::EEXIST);
        }
        if fault.is_some() {
            return Err(libc::ENOMEM);
        }
        let area = Area {
            pages: (self.maps, area.source, area.source + length),
            ..area
        };
        self.maps += 1;
        self.ioas(ioas_id)?.areas.insert(iova, area);
        self.touch(iova, area.end);
        Ok(())
    }

    fn unmap(&mut self, unmap: &mut iommu_ioas_unmap) -> std::result::Result<(), i32> {
        let fault = self.fault();
        let ioas = self.ioas(unmap.ioas_id)?;
        let (start, end) = (unmap.iova, unmap.iova + unmap.length);
        let areas: Vec<(u64, u64)> = ioas.overlapping(start, end).collect();
        let mut gone = 0;
        let mut error = Err(libc::ENOENT);
        for (i, &(s, e)) in areas.iter().enumerate() {
            if s < start || e > end {
                error = Err(libc::ENOENT);
                break;
            }
            // An in-kernel user or a hardware queue holds this one.
            if let Some(f) = fault.filter(|f| usize::from(f / 2) % areas.len() == i) {
                error = Err([libc::EBUSY, libc::EDEADLK][usize::from(f % 2)]);
                break;
            }
            ioas.areas.remove(&s);
            ioas.dirty.remove(&s);
            gone += 1;
            error = Ok(());
        }
        for &(s, e) in &areas[..gone] {
            self.touch(s, e);
        }
        error?;
        unmap.length = areas.iter().map(|(s, e)| e - s).sum();
        Ok(())
    }

    fn split(
        &mut self,
        split: &iommu_ioas_split,
        knows_unmap: bool,
    ) -> std::result::Result<(), i32> {
        let unmap = iommufd_ioas_split_flags_IOMMU_IOAS_SPLIT_UNMAP;
        let known = if knows_unmap { unmap } else { 0 };
        if split.flags & !known != 0 || split.__reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        if split.length == 0 {
            return Err(libc::EINVAL);
        }
        let last = split.iova.checked_add(split.length - 1);
        let end = last.ok_or(libc::EOVERFLOW)? + 1;
        let fault = self.fault();
        let ioas = self.ioas(split.ioas_id)?;
        let areas: Vec<(u64, u64)> = ioas.overlapping(split.iova, end).collect();
        let starts = areas.first().is_some_and(|a| a.0 == split.iova);
        let ends = areas.last().is_some_and(|a| a.1 == end);
        if !split.iova.is_multiple_of(page_size()) && !starts
            || !end.is_multiple_of(page_size()) && !ends
        {
            return Err(libc::EINVAL);
        }
        let holes = areas.windows(2).any(|w| w[0].1 != w[1].0);
        let reach = |a: &&(u64, u64)| a.0 <= split.iova;
        if areas.first().filter(reach).is_none() || areas.last().is_none_or(|a| a.1 < end) || holes
        {
            return Err(libc::ENOENT);
        }
        let busy = fault.is_some_and(|f| f % 4 == 0);
        if busy {
            return Err(libc::EBUSY);
        }
        if !(ioas.splits || starts && ends) {
            return Err(libc::EOPNOTSUPP);
        }
        match fault.map(|f| f % 4) {
            None => {}
            Some(1) if split.flags & unmap != 0 => return Err(libc::EDEADLK),
            Some(2) => return Err(libc::EBUSY),
            Some(_) => return Err(libc::ENOMEM),
        }
        ioas.cut(split.iova);
        ioas.cut(end);
        if split.flags & unmap != 0 {
            ioas.areas.retain(|s, a| a.end <= split.iova || *s >= end);
            ioas.dirty.retain(|s| *s < split.iova || *s >= end);
            self.touch(split.iova, end);
        }
        Ok(())
    }
}

impl State {
    fn join(&mut self, join: &iommu_ioas_join) -> std::result::Result<(), i32> {
        let fill = join.flags & iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL != 0;
        if join.flags & !iommufd_ioas_join_flags_IOMMU_IOAS_JOIN_FILL != 0 || join.__reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        if join.length == 0 {
            return Err(libc::EINVAL);
        }
        let last = join.iova.checked_add(join.length - 1);
        let (start, end) = (join.iova, last.ok_or(libc::EOVERFLOW)? + 1);
        let fault = self.fault();
        let ioas = self.ioas(join.ioas_id)?;
        let gaps = ioas.gaps(start, end);
        if !fill && !gaps.is_empty() {
            return Err(libc::ENOENT);
        }
        if fault.is_some_and(|f| f % 4 == 0) {
            return Err(libc::EBUSY);
        }
        let mut new = Vec::new();
        for &(first, end) in &gaps {
            new.push((first, ioas.memory_for(first, end)?));
        }
        let apart = match fault.map(|f| f % 4) {
            Some(1) => true,
            Some(2) if !gaps.is_empty() => return Err(libc::EPERM),
            Some(_) if !gaps.is_empty() => return Err(libc::ENOMEM),
            _ => false,
        };
        ioas.areas.extend(new);
        if !apart {
            ioas.join(start, end);
        }
        self.apart |= apart;
        for (first, end) in gaps {
            self.touch(first, end);
        }
        Ok(())
    }
}

impl Ioas {
    /// What is not mapped from `start` to `end`.
    fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = start;
        for (s, e) in self.overlapping(start, end) {
            gaps.push((at, s));
            at = e;
        }
        gaps.push((at, end));
        gaps.retain(|(s, e)| s < e);
        gaps
    }

    /// The area that fills a hole.
    fn memory_for(&self, first: u64, end: u64) -> std::result::Result<Area, i32> {
        let fits = |(&start, area): (&u64, &Area)| {
            let source = area.source.checked_add(first)?.checked_sub(start)?;
            let (_, low, high) = area.pages;
            let filled = Area {
                end,
                source,
                ..*area
            };
            (low <= source && source + (end - first) <= high).then_some(filled)
        };
        let below = self.areas.range(..first).next_back().and_then(fits);
        let above = self.areas.range(end..).next().and_then(fits);
        match (below, above) {
            (None, None) => Err(libc::ENOENT),
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (Some(one), Some(other)) if one == other => Ok(one),
            _ => Err(libc::ENOTUNIQ),
        }
    }

    /// What meets from `start` to `end` becomes one, if it was.
    fn join(&mut self, start: u64, end: u64) {
        let edges: Vec<u64> = self.areas.range(start..=end).map(|(&at, _)| at).collect();
        for at in edges {
            let Some((&before, left)) = self.areas.range(..at).next_back() else {
                continue;
            };
            let (left, right) = (*left, self.areas[&at]);
            let goes_on = left.end == at && left.source + (at - before) == right.source;
            if goes_on && left.pages == right.pages && left.flags == right.flags {
                self.areas.remove(&at);
                let joined = Area {
                    end: right.end,
                    ..left
                };
                self.areas.insert(before, joined);
                if self.dirty.remove(&at) {
                    self.dirty.insert(before);
                }
            }
        }
    }

    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let all = self.areas.iter().map(|(&s, a)| (s, a.end));
        all.filter(move |&(s, e)| s < end && e > start)
    }

    fn cut(&mut self, at: u64) {
        let Some((&start, area)) = self.areas.range_mut(..at).next_back() else {
            return;
        };
        if area.end > at {
            let behind = Area {
                source: area.source + (at - start),
                ..*area
            };
            area.end = at;
            self.areas.insert(at, behind);
            if self.dirty.contains(&start) {
                self.dirty.insert(at);
            }
        }
    }
}

impl Ioctls for Kernel {
    fn map(&self, map: &iommu_ioas_map) -> Result<()> {
        let area = Area {
            end: map.iova + map.length,
            source: map.user_va,
            fd: None,
            flags: map.flags,
            pages: (0, 0, 0),
        };
        let done = self.state().map(map.ioas_id, map.iova, map.length, area);
        done.map_err(|e| IommufdError::IommuIoasMap(SysError::new(e)).into())
    }

    fn map_file(&self, map: &iommu_ioas_map_file) -> Result<()> {
        let area = Area {
            end: map.iova + map.length,
            source: map.start,
            fd: Some(map.fd),
            flags: map.flags,
            pages: (0, 0, 0),
        };
        let done = self.state().map(map.ioas_id, map.iova, map.length, area);
        done.map_err(|e| IommufdError::IommuIoasMapFile(SysError::new(e)).into())
    }

    fn unmap(&self, unmap: &mut iommu_ioas_unmap) -> Result<()> {
        let done = self.state().unmap(unmap);
        done.map_err(|e| IommufdError::IommuIoasUnmap(SysError::new(e)).into())
    }

    fn split(&self, split: &mut iommu_ioas_split) -> Result<()> {
        let done = match self.knows.split {
            true => self.state().split(split, self.knows.split_and_unmap),
            false if self.knows.otherwise => Ok(()),
            false => Err(libc::ENOTTY),
        };
        done.map_err(|e| SplitError::IommuIoasSplit(SysError::new(e)))
    }

    fn join(&self, join: &mut iommu_ioas_join) -> Result<()> {
        let done = match self.knows.join {
            true => self.state().join(join),
            false if self.knows.otherwise => Ok(()),
            false => Err(libc::ENOTTY),
        };
        done.map_err(|e| SplitError::IommuIoasJoin(SysError::new(e)))
    }

    /// As Linux does it without `patches/0018` and `patches/0021`: up to the first hole, and an
    /// IOPTE of which a part is read is clean.
    fn dirty_bitmap(&self, get: &mut iommu_hwpt_get_dirty_bitmap, bits: &mut Bits) -> Result<()> {
        let mut state = self.state();
        let fault = state.fault();
        let error = |e| SplitError::DirtyBitmap(SysError::new(e));
        // A bitmap that cannot be written: not at all, or not to its end.
        if fault.is_some_and(|f| f % 2 == 0) {
            return Err(error(libc::EFAULT));
        }
        let ioas = state.ioas(get.hwpt_id).map_err(error)?;
        let end = get.iova + get.length;
        let mut at = get.iova;
        while let Some((&start, area)) = ioas.areas.range(..=at).next_back() {
            if area.end <= at || at >= end {
                break;
            }
            if ioas.dirty.contains(&start) {
                for page in (at..area.end.min(end)).step_by(get.page_size as usize) {
                    bits.set((page - get.iova) / get.page_size);
                }
                if get.flags == 0 {
                    ioas.dirty.remove(&start);
                }
            }
            at = area.end;
        }
        match fault {
            Some(_) => Err(error(libc::EFAULT)),
            None => Ok(()),
        }
    }

    fn hw_info(&self, info: &mut iommu_hw_info) -> Result<()> {
        match self.state().devices.get(&info.dev_id) {
            Some(&splits) => {
                let bit = iommufd_hw_capabilities_IOMMU_HW_CAP_HITLESS_SPLIT;
                info.out_capabilities = u64::from(if splits { bit } else { 0 });
                Ok(())
            }
            None => Err(IommufdError::IommuGetHwInfo(SysError::new(libc::ENOENT)).into()),
        }
    }
}
