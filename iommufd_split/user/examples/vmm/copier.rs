// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Threads that keep every disk copying, and check every byte. That says that what is mapped stays
//! so. It does not say that holes are closed (`vfio_split_dma_test` does), nor which of the times
//! that the same page is mapped was used.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::Scope;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, VolatileMemory};

use crate::list::Random;
use crate::machine::{Memory, BASE};
use crate::nvme::Nvme;
use crate::options::{Options, CHUNK, PAGE};

const BLOCK: u64 = 512;
/// A disk's blocks that are used.
const BLOCKS: u64 = (8 << 20) / BLOCK;

/// What one disk does, as others see it.
#[derive(Default)]
struct Turn {
    /// Copies begun.
    begun: AtomicU64,
    /// When the last one ended, in ns.
    ended: AtomicU64,
}

/// What all disks did.
pub(crate) struct Copies {
    pub(crate) finished: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Copies with a wrong byte.
    wrong: AtomicU64,
    /// Copies that a disk refused, as it does when it meets a fault.
    failed: AtomicU64,
    turns: Vec<Turn>,
    epoch: Instant,
    /// Gaps count from here, in ns.
    from: AtomicU64,
    longest: AtomicU64,
    /// No copy goes to this one of the times that the file is mapped.
    avoid: AtomicU64,
    stop: AtomicBool,
}

/// Ends the copying, also when something else ends in a panic.
pub(crate) struct Running(Arc<Copies>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Copies {
    pub(crate) fn new(disks: usize) -> Arc<Self> {
        Arc::new(Self {
            finished: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            turns: (0..disks).map(|_| Turn::default()).collect(),
            epoch: Instant::now(),
            from: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            avoid: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
        })
    }

    pub(crate) fn bad(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    /// Waits until every disk has copied a little, or cannot.
    pub(crate) fn enough(&self) {
        let slow = |turn: &Turn| turn.begun.load(Ordering::Relaxed) <= 20;
        while self.turns.iter().any(slow) && self.bad() == 0 {
            std::thread::yield_now();
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The longest time without a completion of a disk is counted from now on.
    pub(crate) fn watch_gaps(&self) {
        self.from.store(self.now(), Ordering::SeqCst);
        self.longest.store(0, Ordering::SeqCst);
    }

    /// It, with the gap that has not ended yet.
    pub(crate) fn longest_gap(&self) -> Duration {
        for turn in &self.turns {
            self.gap(turn.ended.load(Ordering::Relaxed), self.now());
        }
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }

    fn gap(&self, last: u64, now: u64) {
        let from = last.max(self.from.load(Ordering::Relaxed));
        self.longest
            .fetch_max(now.saturating_sub(from), Ordering::Relaxed);
    }

    /// On return no disk uses the `copy`th mapping of the file, until another one is to be avoided.
    pub(crate) fn avoid(&self, copy: u64) {
        self.avoid.store(copy, Ordering::SeqCst);
        for turn in &self.turns {
            let begun = turn.begun.load(Ordering::SeqCst);
            while turn.begun.load(Ordering::SeqCst) < begun + 2
                && !self.stop.load(Ordering::Relaxed)
            {
                std::thread::yield_now();
            }
        }
    }

    /// Starts a thread for each disk, in places that nobody else writes to.
    pub(crate) fn start<'s>(
        self: &Arc<Self>,
        scope: &'s Scope<'s, '_>,
        memory: &'s Memory,
        disks: Vec<Nvme>,
        options: &Options,
    ) -> Running {
        for (i, mut disk) in disks.into_iter().enumerate() {
            let copies = Arc::clone(self);
            let mut places = Places {
                random: Random(options.seed ^ ((i as u64 + 1) << 32)),
                memory,
                halves: options.halves(),
                first: i as u64,
                step: self.turns.len() as u64,
            };
            scope.spawn(move || {
                let turn = &copies.turns[i];
                turn.ended.store(copies.now(), Ordering::Relaxed);
                while !copies.stop.load(Ordering::Relaxed) {
                    let number = turn.begun.fetch_add(1, Ordering::SeqCst) + 1;
                    copies.one(&mut disk, &mut places, number);
                    let now = copies.now();
                    copies.gap(turn.ended.swap(now, Ordering::Relaxed), now);
                }
            });
        }
        Running(Arc::clone(self))
    }

    fn one(&self, disk: &mut Nvme, places: &mut Places<'_>, number: u64) {
        let length = BLOCK << places.random.below(4);
        let (from, to) = places.pair(length, self.avoid.load(Ordering::SeqCst));
        let block = places.random.below(BLOCKS - PAGE / BLOCK);
        places.fill(from, length, number);
        places.fill(to, length, !number);
        if let Err(e) = disk.copy(BASE + from, BASE + to, length, block) {
            if self.failed.fetch_add(1, Ordering::Relaxed) < 4 {
                eprintln!("vmm: copy {number}: {e}");
            }
            return;
        }
        if !places.holds(to, from, length, number) {
            if self.wrong.fetch_add(1, Ordering::Relaxed) < 4 {
                eprintln!(
                    "vmm: copy {number} of {length:#x} bytes from {from:#x} to {to:#x} brought something else"
                );
            }
            return;
        }
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length, Ordering::Relaxed);
    }
}

/// Where one disk may copy: in slots of the memory, shared out evenly.
struct Places<'m> {
    random: Random,
    memory: &'m Memory,
    halves: bool,
    first: u64,
    step: u64,
}

impl Places<'_> {
    /// Two offsets into guest memory, in different slots of what backs it, and not in the mapping
    /// to avoid.
    fn pair(&mut self, length: u64, avoid: u64) -> (u64, u64) {
        let chunks = self.memory.backing / CHUNK;
        let slots = if self.halves { chunks } else { chunks / 2 } / self.step;
        let a = self.random.below(slots);
        let b = (a + 1 + self.random.below(slots - 1)) % slots;
        (self.place(a, length, avoid), self.place(b, length, avoid))
    }

    /// Often at the edge of the slot, because what is beside it comes and goes.
    fn place(&mut self, slot: u64, length: u64, avoid: u64) -> u64 {
        let slot = slot * self.step + self.first;
        let (start, room) = match self.halves {
            true => (slot * CHUNK + CHUNK / 2, CHUNK / 2),
            false => ((2 * slot + 1) * CHUNK, CHUNK),
        };
        let copies = self.memory.size / self.memory.backing;
        let copy = match self.random.below(copies) {
            c if c == avoid => (c + 1) % copies,
            c => c,
        };
        let inside = match self.random.below(4) {
            0 => 0,
            1 => room - length,
            _ => self.random.below((room - length) / 8) * 8,
        };
        copy * self.memory.backing + start + inside
    }

    /// Every word says where it lies and in which copy, so nothing from elsewhere or from before
    /// can pass.
    fn word(offset: u64, number: u64) -> u64 {
        offset ^ number.rotate_left(40)
    }

    fn bytes(offset: u64, length: u64, number: u64) -> Vec<u8> {
        (0..length / 8)
            .flat_map(|i| Self::word(offset + i * 8, number).to_le_bytes())
            .collect()
    }

    fn fill(&self, offset: u64, length: u64, number: u64) {
        let at = (offset % self.memory.backing) as usize;
        let slice = self.memory.region.as_volatile_slice();
        let wrote = slice.write_slice(&Self::bytes(offset, length, number), at);
        assert!(wrote.is_ok(), "places are inside of memory");
    }

    fn holds(&self, offset: u64, from: u64, length: u64, number: u64) -> bool {
        let at = (offset % self.memory.backing) as usize;
        let mut have = vec![0; length as usize];
        let slice = self.memory.region.as_volatile_slice();
        slice.read_slice(&mut have, at).is_ok() && have == Self::bytes(from, length, number)
    }
}
