// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An NVMe disk as a device that copies: what is written to it from one place is read back to
//! another. One command at a time, polled. NVM Express Base Specification 2.0, sections 3.1.3
//! (registers), 3.5.1 (initialisation), 4 (queues), 5 and NVM Command Set 3 (commands).

use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_ioctls::VfioDevice;
use vm_memory::{Bytes, VolatileMemory};

use crate::machine::Region;
use crate::options::PAGE;
use crate::Result;

/// Bytes of a block of the disk.
const BLOCK: u64 = 512;
const ENTRIES: u32 = 16;
/// Admin and I/O queue, submissions and completions: a page each. And one for data.
pub(crate) const QUEUE_BYTES: u64 = 5 * PAGE;
const DATA: u64 = 4 * PAGE;
const TIMEOUT: Duration = Duration::from_secs(20);

const CAP: u64 = 0x00;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
/// Enable, pages of 4K, entries of 2^6 and 2^4 bytes.
const CC_ENABLE: u32 = 1 | 6 << 16 | 4 << 20;

const CREATE_SUBMISSION: u32 = 0x01;
const CREATE_COMPLETION: u32 = 0x05;
const IDENTIFY: u32 = 0x06;
const WRITE: u32 = 0x01;
const READ: u32 = 0x02;

/// Numbers of the queues.
const ADMIN: usize = 0;
const IO: usize = 1;

struct Queue {
    tail: u32,
    head: u32,
    phase: u32,
}

const NEW_QUEUE: Queue = Queue {
    tail: 0,
    head: 0,
    phase: 1,
};

pub(crate) struct Nvme {
    device: Arc<VfioDevice>,
    queues: Region,
    iova: u64,
    /// Bytes from one doorbell to the next.
    stride: u64,
    pairs: [Queue; 2],
}

impl Nvme {
    /// By its PCI class: mass storage, non-volatile memory, NVMe.
    pub(crate) fn is_one(device: &VfioDevice) -> bool {
        let mut class = [0; 3];
        device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut class, 0x09);
        class == [0x02, 0x08, 0x01]
    }

    /// `queues` is the memory that the device finds at `iova`.
    pub(crate) fn new(device: Arc<VfioDevice>, queues: Region, iova: u64) -> Result<Self> {
        // Memory and bus master.
        let mut command = [0; 2];
        device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut command, 0x04);
        command[0] |= 0x06;
        device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &command, 0x04);

        let mut nvme = Self {
            device,
            queues,
            iova,
            stride: 0,
            pairs: [NEW_QUEUE; 2],
        };
        let capabilities = nvme.read(CAP + 4);
        nvme.stride = 4 << (capabilities & 0xf);
        if capabilities >> 16 & 0xf != 0 {
            return Err("the disk wants pages larger than 4K: this program does not".into());
        }
        nvme.enable()?;
        nvme.check_blocks()?;
        Ok(nvme)
    }

    fn enable(&mut self) -> Result<()> {
        self.write(CC, 0);
        self.wait_ready(0)?;
        self.write(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write64(ASQ, self.iova);
        self.write64(ACQ, self.iova + PAGE);
        self.write(CC, CC_ENABLE);
        self.wait_ready(1)?;
        let size = (ENTRIES - 1) << 16 | 1;
        let (submissions, completions) = (self.iova + 2 * PAGE, self.iova + 3 * PAGE);
        self.admin(CREATE_COMPLETION, completions, size, 1)?;
        self.admin(CREATE_SUBMISSION, submissions, size, 1 << 16 | 1)
    }

    /// The first namespace has to have blocks of the size that we count in.
    fn check_blocks(&mut self) -> Result<()> {
        let iova = self.iova + DATA;
        self.admin_of(1, IDENTIFY, iova, 0, 0)?;
        let format = u64::from(self.byte(DATA + 26)? & 0xf);
        let bits = self.byte(DATA + 128 + 4 * format + 2)?;
        if 1 << bits != BLOCK {
            return Err(format!(
                "the disk has blocks of 2^{bits} bytes: this program knows 512 only"
            ));
        }
        Ok(())
    }

    fn byte(&self, at: u64) -> Result<u8> {
        let slice = self.queues.as_volatile_slice();
        slice
            .load(at as usize, Ordering::Acquire)
            .map_err(|e| e.to_string())
    }

    /// `length` bytes, at most a page, whole blocks, from one IOVA to another, by way of the disk's
    /// block `block`.
    pub(crate) fn copy(&mut self, from: u64, to: u64, length: u64, block: u64) -> Result<()> {
        self.transfer(WRITE, from, length, block)?;
        self.transfer(READ, to, length, block)
    }

    fn transfer(&mut self, opcode: u32, iova: u64, length: u64, block: u64) -> Result<()> {
        // A second pointer where it reaches into the next page.
        let next = (iova / PAGE + 1) * PAGE;
        let second = if iova + length > next { next } else { 0 };
        let mut entry = [0u32; 16];
        entry[0] = opcode;
        entry[1] = 1;
        put64(&mut entry, 6, iova);
        put64(&mut entry, 8, second);
        put64(&mut entry, 10, block);
        entry[12] = (length / BLOCK) as u32 - 1;
        self.command(IO, entry).map_err(|e| {
            format!(
                "{} {length:#x} bytes at {iova:#x}: {e}",
                if opcode == READ { "writing" } else { "reading" }
            )
        })
    }

    fn admin(&mut self, opcode: u32, iova: u64, word10: u32, word11: u32) -> Result<()> {
        self.admin_of(0, opcode, iova, word10, word11)
    }

    fn admin_of(
        &mut self,
        namespace: u32,
        opcode: u32,
        iova: u64,
        word10: u32,
        word11: u32,
    ) -> Result<()> {
        let mut entry = [0u32; 16];
        entry[0] = opcode;
        entry[1] = namespace;
        put64(&mut entry, 6, iova);
        entry[10] = word10;
        entry[11] = word11;
        self.command(ADMIN, entry)
    }

    fn command(&mut self, queue: usize, mut entry: [u32; 16]) -> Result<()> {
        let id = self.pairs[queue].tail;
        entry[0] |= id << 16;
        let bytes: Vec<u8> = entry.iter().flat_map(|w| w.to_le_bytes()).collect();
        let at = queue as u64 * 2 * PAGE;
        self.put(at + u64::from(id) * 64, &bytes)?;
        let tail = (id + 1) % ENTRIES;
        self.pairs[queue].tail = tail;
        let doorbell = DOORBELLS + 2 * queue as u64 * self.stride;
        // What the device reads and the device's writes are on the other side of the doorbell.
        fence(Ordering::SeqCst);
        self.write(doorbell, tail);
        let status = self.completion(queue, at + PAGE, id)?;
        fence(Ordering::SeqCst);
        self.write(doorbell + self.stride, self.pairs[queue].head);
        if status != 0 {
            return Err(format!("the disk reports status {status:#x}"));
        }
        Ok(())
    }

    /// Waits for the one of this command; its status field.
    fn completion(&mut self, queue: usize, at: u64, id: u32) -> Result<u32> {
        let since = Instant::now();
        loop {
            let word = self.get(at + u64::from(self.pairs[queue].head) * 16 + 12)?;
            let queue = &mut self.pairs[queue];
            if word >> 16 & 1 == queue.phase {
                queue.head = (queue.head + 1) % ENTRIES;
                if queue.head == 0 {
                    queue.phase ^= 1;
                }
                // One that came too late for the command before says nothing about this one.
                if word & 0xffff == id {
                    return Ok(word >> 17);
                }
            }
            if since.elapsed() > TIMEOUT {
                return Err(format!(
                    "the disk did not answer in {} s",
                    TIMEOUT.as_secs()
                ));
            }
            // The emulated disk works beside us.
            std::thread::yield_now();
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let slice = self.queues.as_volatile_slice();
        slice
            .write_slice(bytes, at as usize)
            .map_err(|e| e.to_string())
    }

    fn get(&self, at: u64) -> Result<u32> {
        let slice = self.queues.as_volatile_slice();
        slice
            .load(at as usize, Ordering::Acquire)
            .map_err(|e| e.to_string())
    }

    fn wait_ready(&self, ready: u32) -> Result<()> {
        let since = Instant::now();
        while self.read(CSTS) & 1 != ready {
            if since.elapsed() > TIMEOUT {
                return Err(
                    "the disk does not get ready: is there one behind this address?".into(),
                );
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.device
            .region_read(VFIO_PCI_BAR0_REGION_INDEX, &mut bytes, register);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, register: u64, value: u32) {
        self.device
            .region_write(VFIO_PCI_BAR0_REGION_INDEX, &value.to_le_bytes(), register);
    }

    fn write64(&self, register: u64, value: u64) {
        self.write(register, value as u32);
        self.write(register + 4, (value >> 32) as u32);
    }
}

impl Drop for Nvme {
    /// No DMA after this.
    fn drop(&mut self) {
        self.write(CC, 0);
        let _ = self.wait_ready(0);
    }
}

fn put64(entry: &mut [u32; 16], word: usize, value: u64) {
    entry[word] = value as u32;
    entry[word + 1] = (value >> 32) as u32;
}
