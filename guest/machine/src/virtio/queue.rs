//! A split virtqueue (virtio 1.2 §2.7) that believes nothing it reads.
//!
//! The queue is divided into *slots*: each owns a fixed run of descriptors and carries one request at a time. What the
//! device owns, and how much it may write, is kept in private memory; the ring in shared memory is written from there
//! and never read back. From the used ring only the index, an identifier and a length are read, each once, and checked
//! against the private record: a slot the device does not own, a second completion of one, or more bytes than it was
//! given is an error, after which the driver shuts the device down.

use super::DeviceError;
use super::shared::{ArenaFull, DeviceAddress, SharedArena, SharedBuffer};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

const DESCRIPTOR_SIZE: usize = 16;
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// In the available ring's flags: the device need not interrupt.
const NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: the driver need not notify.
const NO_NOTIFY: u16 = 1;
const RING_HEADER: usize = 4;
const AVAILABLE_ENTRY: usize = 2;
const USED_ENTRY: usize = 8;

/// One contiguous piece of a request.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where it lies.
    pub address: DeviceAddress,
    /// Its length in bytes.
    pub length: u32,
    /// Whether the device writes it; otherwise the device reads it. Readable segments come first.
    pub device_writes: bool,
}

/// A request the device has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The slot it was submitted in, idle again.
    pub slot: u16,
    /// Bytes the device says it wrote, at most what the request let it write. That they were written is not promised.
    pub written: u32,
}

/// Where a queue's three parts lie, for the transport to tell the device.
#[derive(Clone, Copy, Debug)]
pub struct QueueAddresses {
    /// Descriptor table.
    pub descriptors: DeviceAddress,
    /// Available ring, written by the driver.
    pub available: DeviceAddress,
    /// Used ring, written by the device.
    pub used: DeviceAddress,
}

/// A virtqueue and the private record of what the device owns.
pub struct VirtQueue {
    size: u16,
    links: u16,
    descriptors: SharedBuffer,
    available: SharedBuffer,
    used: SharedBuffer,
    /// For each slot, the bytes the device may write while it owns the slot.
    owned: Vec<Option<u32>>,
    in_flight: u16,
    published: u16,
    consumed: u16,
}

impl VirtQueue {
    /// A queue of `slots` requests of up to `links` segments each. With `interrupts` the device raises one for each finished request: they are
    /// looked at only around a halt, which one that came before ends at once, so nothing has to be switched on first.
    pub fn new(
        arena: &mut SharedArena,
        slots: u16,
        links: u16,
        interrupts: bool,
    ) -> Result<Self, ArenaFull> {
        let size = (slots * links).next_power_of_two();
        let entries = usize::from(size);
        let mut available = arena.allocate(RING_HEADER + AVAILABLE_ENTRY * entries + 2, 2)?;
        available.write_u16(0, if interrupts { 0 } else { NO_INTERRUPT });
        Ok(Self {
            size,
            links,
            descriptors: arena.allocate(DESCRIPTOR_SIZE * entries, 16)?,
            available,
            used: arena.allocate(RING_HEADER + USED_ENTRY * entries + 2, 4)?,
            owned: vec![None; usize::from(slots)],
            in_flight: 0,
            published: 0,
            consumed: 0,
        })
    }

    /// Descriptors in the ring, a power of two.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Requests the queue can hold.
    pub fn slots(&self) -> u16 {
        self.owned.len() as u16
    }

    /// Where the rings lie.
    pub fn addresses(&self) -> QueueAddresses {
        QueueAddresses {
            descriptors: self.descriptors.address(0),
            available: self.available.address(0),
            used: self.used.address(0),
        }
    }

    /// A slot the device does not own.
    pub fn idle_slot(&self) -> Option<u16> {
        self.owned
            .iter()
            .position(Option::is_none)
            .map(|slot| slot as u16)
    }

    /// Hands `segments` to the device in an idle slot. Slot and segments are the driver's own choice; a slot in use or
    /// more segments than the queue was made for panics.
    pub fn submit(&mut self, slot: u16, segments: &[Segment]) {
        let record = &mut self.owned[usize::from(slot)];
        assert!(record.is_none(), "the device owns this slot");
        assert!(!segments.is_empty() && segments.len() <= usize::from(self.links));
        let writable = segments.iter().filter(|segment| segment.device_writes);
        *record = Some(writable.map(|segment| segment.length).sum());
        self.in_flight += 1;

        let head = slot * self.links;
        for (index, segment) in (head..).zip(segments) {
            let last = usize::from(index - head) + 1 == segments.len();
            let flags = if last { 0 } else { NEXT }
                | if segment.device_writes {
                    DEVICE_WRITES
                } else {
                    0
                };
            let at = DESCRIPTOR_SIZE * usize::from(index);
            self.descriptors.write_u64(at, segment.address.0);
            self.descriptors.write_u32(at + 8, segment.length);
            self.descriptors.write_u16(at + 12, flags);
            self.descriptors
                .write_u16(at + 14, if last { 0 } else { index + 1 });
        }
        let entry = usize::from(self.published % self.size);
        self.available
            .write_u16(RING_HEADER + AVAILABLE_ENTRY * entry, head);
        self.published = self.published.wrapping_add(1);
        // The device may look at the entry as soon as it sees the index.
        fence(Ordering::Release);
        self.available.write_u16(2, self.published);
    }

    /// Whether the device wants to be told about new requests.
    pub fn wants_notification(&self) -> bool {
        // The store of the index above must be visible before the flag is looked at, or both sides may sleep.
        fence(Ordering::SeqCst);
        self.used.read_u16(0) & NO_NOTIFY == 0
    }

    /// The next finished request, if there is one.
    pub fn completion(&mut self) -> Result<Option<Completion>, DeviceError> {
        let pending = self.used.read_u16(2).wrapping_sub(self.consumed);
        if pending == 0 {
            return Ok(None);
        }
        if pending > self.in_flight {
            return Err(DeviceError::UsedIndex);
        }
        fence(Ordering::Acquire);
        let at = RING_HEADER + USED_ENTRY * usize::from(self.consumed % self.size);
        let id = self.used.read_u32(at);
        let written = self.used.read_u32(at + 4);

        let links = u32::from(self.links);
        let record = self.owned.get_mut((id / links) as usize);
        let (Some(record), true) = (record, id.is_multiple_of(links)) else {
            return Err(DeviceError::UsedId);
        };
        let allowed = record.take().ok_or(DeviceError::UsedId)?;
        self.in_flight -= 1;
        self.consumed = self.consumed.wrapping_add(1);
        // For a request the device only reads, the length means nothing and devices differ in what they put there.
        if allowed != 0 && written > allowed {
            return Err(DeviceError::UsedLength);
        }
        Ok(Some(Completion {
            slot: (id / links) as u16,
            written: written.min(allowed),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Ring;
    use super::super::shared::test_arena;
    use super::*;
    use proptest::prelude::*;

    fn queue(slots: u16, links: u16) -> (VirtQueue, Ring, SharedBuffer) {
        let mut arena = test_arena(0x10000);
        let queue = VirtQueue::new(&mut arena, slots, links, false).unwrap();
        let ring = Ring::new(queue.size(), queue.addresses());
        (queue, ring, arena.allocate(0x1000, 16).unwrap())
    }

    fn writable(buffer: &SharedBuffer, length: u32) -> Segment {
        Segment {
            address: buffer.address(0),
            length,
            device_writes: true,
        }
    }

    #[test]
    fn requests_come_back_in_the_order_the_device_finishes_them() {
        let (mut queue, mut ring, buffer) = queue(4, 2);
        let readable = Segment {
            device_writes: false,
            ..writable(&buffer, 16)
        };
        queue.submit(0, &[readable, writable(&buffer, 64)]);
        queue.submit(2, &[writable(&buffer, 32)]);
        assert_eq!(queue.idle_slot(), Some(1));
        let (first, second) = (ring.take().unwrap(), ring.take().unwrap());
        assert!(ring.take().is_none());
        assert_eq!((first.head, first.segments.len()), (0, 2));
        assert_eq!((second.head, second.segments.len()), (4, 1));
        ring.finish(second.head, 32);
        ring.finish(first.head, 5);
        assert_eq!(
            queue.completion(),
            Ok(Some(Completion {
                slot: 2,
                written: 32
            }))
        );
        assert_eq!(
            queue.completion(),
            Ok(Some(Completion {
                slot: 0,
                written: 5
            }))
        );
        assert_eq!(queue.completion(), Ok(None));
    }

    #[test]
    fn indices_wrap() {
        let (mut queue, mut ring, buffer) = queue(3, 1);
        for round in 0..70_000u32 {
            queue.submit((round % 3) as u16, &[writable(&buffer, 8)]);
            let chain = ring.take().unwrap();
            ring.finish(chain.head, 8);
            assert!(queue.completion().unwrap().is_some());
        }
    }

    #[test]
    fn a_used_index_ahead_of_what_was_submitted_is_refused() {
        let (mut queue, mut ring, buffer) = queue(4, 1);
        queue.submit(0, &[writable(&buffer, 8)]);
        ring.set_used_index(2);
        assert_eq!(queue.completion(), Err(DeviceError::UsedIndex));
        ring.set_used_index(u16::MAX);
        assert_eq!(queue.completion(), Err(DeviceError::UsedIndex));
    }

    #[test]
    fn identifiers_not_owned_by_the_device_are_refused() {
        for id in [1, 2, 4, 6, 8, 0xffff, u32::MAX] {
            let (mut queue, mut ring, buffer) = queue(3, 2);
            queue.submit(0, &[writable(&buffer, 8)]);
            ring.finish_raw(id, 0);
            assert_eq!(queue.completion(), Err(DeviceError::UsedId), "id {id}");
        }
    }

    #[test]
    fn a_request_is_finished_once() {
        let (mut queue, mut ring, buffer) = queue(2, 1);
        queue.submit(0, &[writable(&buffer, 8)]);
        queue.submit(1, &[writable(&buffer, 8)]);
        ring.finish_raw(0, 8);
        ring.finish_raw(0, 8);
        assert!(queue.completion().unwrap().is_some());
        assert_eq!(queue.completion(), Err(DeviceError::UsedId));
    }

    #[test]
    fn absurd_lengths_are_refused() {
        let (mut queue, mut ring, buffer) = queue(2, 1);
        queue.submit(0, &[writable(&buffer, 8)]);
        ring.finish_raw(0, 9);
        assert_eq!(queue.completion(), Err(DeviceError::UsedLength));
    }

    #[test]
    fn the_length_of_a_readable_request_means_nothing() {
        let (mut queue, mut ring, buffer) = queue(2, 1);
        let readable = Segment {
            device_writes: false,
            ..writable(&buffer, 8)
        };
        queue.submit(0, &[readable]);
        ring.finish_raw(0, u32::MAX);
        assert_eq!(
            queue.completion(),
            Ok(Some(Completion {
                slot: 0,
                written: 0
            }))
        );
    }

    proptest! {
        /// Whatever the device writes into the used ring, a slot comes back at most as often as it was submitted.
        #[test]
        fn no_slot_comes_back_that_was_not_submitted(
            entries in proptest::collection::vec((0u32..20, any::<u32>()), 1..40),
            index in any::<u16>(),
        ) {
            let (mut queue, mut ring, buffer) = queue(8, 2);
            for slot in 0..8 {
                queue.submit(slot, &[writable(&buffer, 64)]);
            }
            for (id, length) in entries {
                ring.finish_raw(id, length);
            }
            ring.set_used_index(index);
            let mut seen = [false; 8];
            while let Ok(Some(done)) = queue.completion() {
                prop_assert!(!core::mem::replace(&mut seen[usize::from(done.slot)], true));
                prop_assert!(done.written <= 64);
            }
        }
    }
}
