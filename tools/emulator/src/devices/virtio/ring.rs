//! The device's side of a split virtqueue (virtio 1.2, 2.7): requests out of it, completions and interrupts back.
//!
//! Rings and buffers lie where the driver said, in shared memory and nowhere else: an address outside of it is an error, an address of a
//! page that the TD keeps private holds other bytes. Neither stops the emulator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use super::tamper::Tamper;
use crate::bus::SharedMemory;
use crate::devices::pci::msix::MsiX;

/// In the available ring's flags: the driver wants no interrupt (virtio 1.2, 2.7.6).
const NO_INTERRUPT: u16 = 1;
/// The interrupt status register's bit for rings (virtio 1.2, 4.1.4.5).
const ISR_QUEUE: u8 = 1;

/// A request of the driver.
pub type Chain = DescriptorChain<Arc<SharedMemory>>;

/// How a ring tells the driver that there is something in it.
pub struct RingInterrupt {
    /// The function's messages.
    pub msix: Arc<MsiX>,
    /// Which of them, 0xffff for none.
    pub vector: u16,
    /// The interrupt status register, for drivers without messages.
    pub status: Arc<AtomicU8>,
}

impl RingInterrupt {
    fn raise(&self) {
        self.status.fetch_or(ISR_QUEUE, Ordering::Release);
        self.msix.raise(self.vector);
    }
}

/// One queue in operation.
pub struct Ring {
    queue: Queue,
    memory: Arc<SharedMemory>,
    interrupt: RingInterrupt,
    tamper: Tamper,
    unsignalled: bool,
}

impl Ring {
    /// Takes a queue into operation.
    pub fn new(
        queue: Queue,
        memory: Arc<SharedMemory>,
        interrupt: RingInterrupt,
        tamper: Tamper,
    ) -> Self {
        Self {
            queue,
            memory,
            interrupt,
            tamper,
            unsignalled: false,
        }
    }

    /// The memory that its addresses refer to.
    pub fn memory(&self) -> Arc<SharedMemory> {
        self.memory.clone()
    }

    /// The next request, if there is one.
    pub fn take(&mut self) -> Option<Chain> {
        self.tamper.recover(&mut self.queue, &self.memory);
        let chain = loop {
            let chain = self.queue.pop_descriptor_chain(self.memory.clone())?;
            if !self.tamper.is_surplus(&chain) {
                break chain;
            }
        };
        self.tamper.taken(&self.queue, &self.memory, &chain);
        Some(chain)
    }

    /// Whether a request waits.
    pub fn has_request(&self) -> bool {
        let published = self.queue.avail_idx(&*self.memory, Ordering::Acquire);
        published.is_ok_and(|published| published.0 != self.queue.next_avail())
    }

    /// Gives a request back, with `written` bytes in its writable part.
    pub fn finish(&mut self, head: u16, written: u32) {
        self.unsignalled = true;
        self.tamper
            .finish(&mut self.queue, &self.memory, head, written);
    }

    /// Interrupts the driver if requests were finished since the last time, and it wants that.
    pub fn signal(&mut self) {
        if !core::mem::take(&mut self.unsignalled) {
            return;
        }
        // The driver may look for completions and then ask for an interrupt: its wish must not be read before they are visible.
        fence(Ordering::SeqCst);
        let flags = self
            .memory
            .load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
        if flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT == 0) {
            self.interrupt.raise();
        }
    }

    /// Handles every request there is, telling the driver not to notify meanwhile. `handle` finishes them, now or later.
    pub fn drain(&mut self, mut handle: impl FnMut(&mut Self, Chain)) {
        loop {
            // A used ring outside of shared memory is the driver's loss.
            let _ = self.queue.disable_notification(&*self.memory);
            while let Some(chain) = self.take() {
                handle(self, chain);
            }
            if !self
                .queue
                .enable_notification(&*self.memory)
                .unwrap_or(false)
            {
                break;
            }
        }
        self.rest();
    }

    /// Nothing is left to do for now: interrupts the driver if anything was done.
    pub fn rest(&mut self) {
        self.tamper.rest(&mut self.queue, &self.memory);
        self.signal();
    }
}

/// Whether a queue's three parts lie in shared memory at all.
pub fn is_reachable(queue: &Queue, memory: &SharedMemory) -> bool {
    let entries = usize::from(queue.size());
    [
        (queue.desc_table(), 16 * entries, Permissions::Read),
        (queue.avail_ring(), 6 + 2 * entries, Permissions::Read),
        (queue.used_ring(), 6 + 8 * entries, Permissions::Write),
    ]
    .into_iter()
    .all(|(start, length, access)| memory.check_range(GuestAddress(start), length, access))
}
