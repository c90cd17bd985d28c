//! What a hostile host does to virtqueues and registers. With an honest host everything here passes through unchanged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::BLOCKS_BAR;
use super::registers::{ACCESS_PLATFORM, VERSION_1, field, status};
use super::ring::Chain;
use super::vsock::HOST_CID;
use crate::bus::SharedMemory;
use crate::devices::pci::header::{FIRST_CAPABILITY, register};
use crate::hostile::{Attack, Host, Target};

/// How long a completion is late: some of the guest's waits, far below its limits.
const DELAY: Duration = Duration::from_millis(20);
/// How long a length flickers: a few times what the guest takes to notice a completion.
const FLICKER: Duration = Duration::from_micros(300);
/// Completions held back before they are given out in reverse.
const HELD: usize = 4;
/// More than any queue holds, in whole rounds of every queue.
const AHEAD: u16 = 0x4000;
/// What is written over what was the guest's.
const GARBAGE: u8 = 0xa5;
/// VIRTQ_USED_F_NO_NOTIFY (virtio 1.2, 2.7.8).
const NO_NOTIFY: u16 = 1;
/// ACKNOWLEDGE, DRIVER, DRIVER_OK and FEATURES_OK (virtio 1.2, 2.1).
const STILL_RUNNING: u64 = 0x0f;
/// The queue through which a network device sends: the second (virtio 1.2, 5.1.2 and 5.10.2).
const TRANSMIT: u16 = 1;

/// A request that the guest must not look at again.
struct Taken {
    descriptors: Vec<u16>,
    readable: Vec<(GuestAddress, u32)>,
    /// The entry of the available ring that announced it.
    entry: u16,
}

/// The host's hand in one ring.
pub struct Tamper {
    host: Arc<Host>,
    target: Target,
    queue: u16,
    taken: HashMap<u16, Taken>,
    held: Vec<(u16, u32)>,
    /// Requests that were completed twice. The guest will submit them twice as well.
    surplus: Vec<u16>,
}

impl Tamper {
    /// A hand in queue number `queue` of a device.
    pub fn new(host: &Arc<Host>, target: Target, queue: u16) -> Self {
        Self {
            host: host.clone(),
            target,
            queue,
            taken: HashMap::new(),
            held: Vec::new(),
            surplus: Vec::new(),
        }
    }

    fn strikes(&self, attack: Attack) -> bool {
        self.host.strikes(attack, self.target)
    }

    /// Skips what the guest wrote over because it was given buffers back twice: there is more in the ring than it holds.
    pub fn recover(&self, queue: &mut Queue, memory: &SharedMemory) {
        if self.surplus.is_empty() {
            return;
        }
        let skipped = waiting(queue, memory).saturating_sub(queue.size());
        queue.set_next_avail(queue.next_avail().wrapping_add(skipped));
    }

    /// Whether a request exists only because its buffer was given back twice: a host that behaves again leaves it alone.
    pub fn is_surplus(&mut self, chain: &Chain) -> bool {
        let head = chain.head_index();
        let found = self.surplus.iter().position(|surplus| *surplus == head);
        found.map(|place| self.surplus.swap_remove(place)).is_some()
    }

    /// A request was taken from the ring; the device has not looked at its buffers yet.
    pub fn taken(&mut self, queue: &Queue, memory: &SharedMemory, chain: &Chain) {
        if !self.host.is_hostile() {
            return;
        }
        let mut descriptors = vec![chain.head_index()];
        let mut readable = Vec::new();
        for segment in chain.clone() {
            if segment.has_next() {
                descriptors.push(segment.next());
            }
            if !segment.is_write_only() {
                readable.push((segment.addr(), segment.len()));
            }
        }
        if self.strikes(Attack::BufferOverwritten) {
            for segment in chain.clone().writable() {
                overwrite(memory, segment.addr(), segment.len());
            }
        }
        let entry = queue.next_avail().wrapping_sub(1) % queue.size();
        let taken = Taken {
            descriptors,
            readable,
            entry,
        };
        self.taken.insert(chain.head_index(), taken);
    }

    /// The device is done with a request: gives it back, one way or another.
    pub fn finish(&mut self, queue: &mut Queue, memory: &SharedMemory, head: u16, written: u32) {
        if !self.host.is_hostile() {
            return add_used(queue, memory, head, written);
        }
        let taken = self.taken.remove(&head);
        if self.strikes(Attack::RequestOverwritten)
            && let Some(taken) = &taken
        {
            overwrite_request(queue, memory, taken);
        }
        if self.strikes(Attack::Delayed) {
            thread::sleep(DELAY);
        }
        let writable = written != 0;
        let several = taken.is_some_and(|taken| taken.descriptors.len() > 1);
        let transmit = self.queue == TRANSMIT && self.target != Target::Disk;
        // A driver that is far behind would find more completions than it has requests, and rightly complain of that.
        let roomy =
            self.target == Target::Disk || !transmit && waiting(queue, memory) > queue.size() / 2;
        // What must be noticed comes first: what need not would hide it.
        if self.strikes(Attack::UsedIdOutOfRange) {
            let id = u32::from(queue.size()) + self.host.below(1 << 20) as u32;
            add_raw(queue, memory, id, written);
        } else if several && self.strikes(Attack::UsedIdInsideRequest) {
            add_raw(queue, memory, u32::from(head) + 1, written);
        } else if roomy && self.strikes(Attack::UsedTwice)
            || transmit && self.strikes(Attack::SentTwice)
        {
            self.surplus.push(head);
            add_twice(queue, memory, head, written);
        } else if self.strikes(Attack::UsedIndexAhead) {
            shift_used_index(queue, AHEAD);
            add_used(queue, memory, head, written);
        } else if self.strikes(Attack::UsedIndexBack) {
            shift_used_index(queue, AHEAD.wrapping_neg());
            add_used(queue, memory, head, written);
        } else if writable && self.strikes(Attack::UsedLengthHuge) {
            add_raw(
                queue,
                memory,
                head.into(),
                u32::MAX - self.host.below(1 << 16) as u32,
            );
        } else if self.strikes(Attack::Reordered) {
            self.held.push((head, written));
            if self.held.len() >= HELD {
                self.release(queue, memory);
            }
        } else if writable && self.strikes(Attack::UsedLengthZero) {
            add_used(queue, memory, head, 0);
        } else if writable && self.strikes(Attack::LengthFlickers) {
            flicker(queue, memory, head, written);
        } else {
            add_used(queue, memory, head, written);
        }
    }

    /// The device has nothing more to do: gives out what was held back, and may ask not to be notified.
    pub fn rest(&mut self, queue: &mut Queue, memory: &SharedMemory) {
        if !self.held.is_empty() {
            self.release(queue, memory);
        }
        if self.host.is_hostile() && self.strikes(Attack::NoNotifications) {
            // A ring outside of shared memory is not worth attacking, here and below.
            let _ = memory.write_obj(NO_NOTIFY.to_le(), GuestAddress(queue.used_ring()));
        }
    }

    fn release(&mut self, queue: &mut Queue, memory: &SharedMemory) {
        for (head, written) in self.held.drain(..).rev() {
            add_used(queue, memory, head, written);
        }
    }
}

/// Requests that the guest submitted and the device has not taken; none if the ring is not in shared memory.
fn waiting(queue: &Queue, memory: &SharedMemory) -> u16 {
    let published = queue.avail_idx(memory, Ordering::Acquire);
    published.map_or(0, |published| published.0.wrapping_sub(queue.next_avail()))
}

/// As a device should.
fn add_used(queue: &mut Queue, memory: &SharedMemory, head: u16, written: u32) {
    // A used ring outside of shared memory is the driver's loss.
    let _ = queue.add_used(memory, head, written);
}

fn put_element(queue: &Queue, memory: &SharedMemory, position: u16, id: u32, written: u32) {
    // Behind flags and index, elements of identifier and length (virtio 1.2, 2.7.8).
    let offset = 4 + 8 * u64::from(position % queue.size());
    let element = u64::from(written) << 32 | u64::from(id);
    let _ = memory.write_obj(
        element.to_le(),
        GuestAddress(queue.used_ring().wrapping_add(offset)),
    );
}

fn set_used_index(queue: &Queue, memory: &SharedMemory, index: u16) {
    let at = GuestAddress(queue.used_ring().wrapping_add(2));
    let _ = memory.store(index.to_le(), at, Ordering::Release);
}

/// Moves the index by so many rounds that entries stay where they belong, for good.
fn shift_used_index(queue: &mut Queue, by: u16) {
    queue.set_next_used(queue.next_used().wrapping_add(by));
}

/// Any identifier at all.
fn add_raw(queue: &mut Queue, memory: &SharedMemory, id: u32, written: u32) {
    put_element(queue, memory, queue.next_used(), id, written);
    queue.set_next_used(queue.next_used().wrapping_add(1));
    set_used_index(queue, memory, queue.next_used());
}

/// Both copies become visible at once.
fn add_twice(queue: &mut Queue, memory: &SharedMemory, head: u16, written: u32) {
    let first = queue.next_used();
    for position in [first, first.wrapping_add(1)] {
        put_element(queue, memory, position, head.into(), written);
    }
    queue.set_next_used(first.wrapping_add(2));
    set_used_index(queue, memory, queue.next_used());
}

/// Publishes a completion whose length changes between the truth and zero for a while, and is the truth in the end.
fn flicker(queue: &mut Queue, memory: &SharedMemory, head: u16, written: u32) {
    let position = queue.next_used();
    add_used(queue, memory, head, written);
    let start = Instant::now();
    while start.elapsed() < FLICKER {
        for length in [0, written] {
            put_element(queue, memory, position, head.into(), length);
        }
    }
}

fn overwrite(memory: &SharedMemory, address: GuestAddress, length: u32) {
    let _ = memory.write_slice(&vec![GARBAGE; length as usize], address);
}

fn overwrite_request(queue: &Queue, memory: &SharedMemory, taken: &Taken) {
    for (address, length) in &taken.readable {
        overwrite(memory, *address, *length);
    }
    for index in &taken.descriptors {
        // A descriptor has 16 bytes (virtio 1.2, 2.7.5).
        let at = queue.desc_table().wrapping_add(16 * u64::from(*index));
        overwrite(memory, GuestAddress(at), 16);
    }
    // Behind flags and index, a number of 16 bits each (virtio 1.2, 2.7.6).
    let entry = queue
        .avail_ring()
        .wrapping_add(4 + 2 * u64::from(taken.entry));
    overwrite(memory, GuestAddress(entry), 2);
}

/// The features that a device demands of its driver: virtio 1, and, as a confidential machine's devices do, the platform's translation.
pub fn required(host: &Host, target: Target) -> u64 {
    if host.is_hostile() && host.strikes(Attack::PlatformBypassed, target) {
        VERSION_1
    } else {
        VERSION_1 | ACCESS_PLATFORM
    }
}

/// What a driver reads from the common configuration at `offset`, where the truth is `value`.
pub fn common(host: &Host, target: Target, offset: u64, value: u64) -> u64 {
    if !host.is_hostile() {
        return value;
    }
    let strikes = |attack| host.strikes(attack, target);
    let has = |bit: u8| value & u64::from(bit) != 0;
    match offset {
        // In the upper half of the features.
        field::DEVICE_FEATURE if strikes(Attack::FeaturesMissing) => value & !(VERSION_1 >> 32),
        field::STATUS if has(status::FEATURES_OK) && strikes(Attack::FeaturesRefused) => {
            value & !u64::from(status::FEATURES_OK)
        }
        field::STATUS if value == 0 && strikes(Attack::ResetStuck) => STILL_RUNNING,
        field::STATUS if has(status::DRIVER_OK) && strikes(Attack::NeedsReset) => {
            value | u64::from(status::NEEDS_RESET)
        }
        field::CONFIG_GENERATION if strikes(Attack::GenerationFlaps) => host.below(256),
        field::QUEUE_SIZE if strikes(Attack::QueueSizeZero) => 0,
        field::QUEUE_SIZE if strikes(Attack::QueueSizeOdd) => value.saturating_sub(3),
        field::QUEUE_NOTIFY_OFF if strikes(Attack::DoorbellOutside) => 0xffff,
        _ => value,
    }
}

/// What a driver reads from the device's own configuration.
pub fn device(host: &Host, target: Target, offset: u64, value: u64) -> u64 {
    if !host.is_hostile() {
        return value;
    }
    let strikes = |attack| host.strikes(attack, target);
    // The first field is a disk's capacity, a card's address, vsock's context identifier (virtio 1.2, 5.2.4, 5.1.4, 5.10.4).
    match offset {
        0 if target == Target::Disk && strikes(Attack::CapacityWrong) => value.wrapping_add(1),
        0 if target == Target::Card && strikes(Attack::MacGroup) => value | 1,
        0 if target == Target::Vsock && strikes(Attack::CidReserved) => HOST_CID,
        _ => value,
    }
}

/// The base address register of the register blocks, and its bits that are no address (PCI Local Bus 3.0, 6.2.5.1).
const BLOCKS_REGISTER: u8 = register::BAR0 + 4 * BLOCKS_BAR;
const BAR_TYPE: u32 = 0xf;
const BAR_64_PREFETCHABLE: u32 = 0b1100;
/// An address where every machine has memory.
const IN_MEMORY: u32 = 1 << 20;
/// Where the four blocks' capabilities keep their offset: at 8 (virtio 1.2, 4.1.4), in capabilities of 16, 16, 16 and 20 bytes behind the 12
/// of the one for messages.
const BLOCK_OFFSETS: [u8; 4] = {
    const FIRST: u8 = FIRST_CAPABILITY + 12 + 8;
    [FIRST, FIRST + 16, FIRST + 32, FIRST + 48]
};

/// What a base address register holds before software writes to it, if the host has been there.
pub fn preset(host: &Host, target: Target) -> Option<(u8, u32)> {
    let strikes = host.is_hostile() && host.strikes(Attack::BarPreset, target);
    strikes.then_some((BLOCKS_REGISTER, IN_MEMORY | BAR_64_PREFETCHABLE))
}

/// What software reads from configuration space.
pub fn configuration(host: &Host, target: Target, offset: u8, value: u32) -> u32 {
    if !host.is_hostile() {
        return value;
    }
    let strikes = |attack| host.strikes(attack, target);
    match offset {
        // The first capability is the one for messages: the list never gets to the register blocks.
        FIRST_CAPABILITY if strikes(Attack::CapabilityLoop) => {
            value & 0xffff_00ff | u32::from(FIRST_CAPABILITY) << 8
        }
        _ if BLOCK_OFFSETS.contains(&offset) && strikes(Attack::BlockOutside) => 0xffff_ff00,
        BLOCKS_REGISTER if strikes(Attack::BarHuge) => value & (1 << 31 | BAR_TYPE),
        BLOCKS_REGISTER if strikes(Attack::BarStuck) => IN_MEMORY | BAR_64_PREFETCHABLE,
        _ => value,
    }
}
