//! A scripted device for tests: registers, the device's side of the rings, and a behaviour for each notification.
//!
//! Device addresses of a test arena are pointers, so the fake reaches the driver's memory as a real device would.

use super::device::{Transport, status};
use super::queue::QueueAddresses;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

/// One descriptor as the device sees it.
#[derive(Clone, Copy, Debug)]
pub struct FakeSegment {
    pub address: u64,
    pub length: u32,
    pub device_writes: bool,
}

/// One request as the device sees it.
#[derive(Clone, Debug)]
pub struct Chain {
    pub head: u16,
    pub segments: Vec<FakeSegment>,
}

impl Chain {
    /// All bytes the driver wrote for the device.
    pub fn readable(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in self
            .segments
            .iter()
            .filter(|segment| !segment.device_writes)
        {
            // SAFETY: the driver under test put a buffer of its arena there.
            let part = unsafe {
                core::slice::from_raw_parts(segment.address as *const u8, segment.length as usize)
            };
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Writes `bytes` into the writable segments, as far as they reach, and returns how many fitted.
    pub fn write(&self, mut bytes: &[u8]) -> u32 {
        let mut written = 0;
        for segment in self.segments.iter().filter(|segment| segment.device_writes) {
            let part = bytes.len().min(segment.length as usize);
            // SAFETY: as in `readable`, and the segment was made for the device to write.
            unsafe {
                core::ptr::copy_nonoverlapping(bytes.as_ptr(), segment.address as *mut u8, part)
            };
            bytes = &bytes[part..];
            written += part as u32;
        }
        written
    }
}

/// The device's side of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    size: u16,
    addresses: QueueAddresses,
    taken: u16,
    finished: u16,
}

impl Ring {
    pub fn new(size: u16, addresses: QueueAddresses) -> Self {
        Self {
            size,
            addresses,
            taken: 0,
            finished: 0,
        }
    }

    fn read<T>(address: u64) -> T {
        // SAFETY: only called for addresses inside the rings the driver under test announced.
        unsafe { (address as *const T).read_volatile() }
    }

    fn write<T>(address: u64, value: T) {
        // SAFETY: as in `read`.
        unsafe { (address as *mut T).write_volatile(value) }
    }

    /// The next request the driver published.
    pub fn take(&mut self) -> Option<Chain> {
        let available = self.addresses.available.0;
        if Self::read::<u16>(available + 2) == self.taken {
            return None;
        }
        let entry = u64::from(self.taken % self.size);
        let head: u16 = Self::read(available + 4 + 2 * entry);
        self.taken = self.taken.wrapping_add(1);
        let mut segments = Vec::new();
        let mut index = head;
        loop {
            let at = self.addresses.descriptors.0 + 16 * u64::from(index);
            let flags: u16 = Self::read(at + 12);
            segments.push(FakeSegment {
                address: Self::read(at),
                length: Self::read(at + 8),
                device_writes: flags & 2 != 0,
            });
            if flags & 1 == 0 {
                break;
            }
            index = Self::read(at + 14);
        }
        Some(Chain { head, segments })
    }

    /// Completes a request as a well-behaved device does.
    pub fn finish(&mut self, head: u16, written: u32) {
        self.finish_raw(head.into(), written);
    }

    /// Puts anything into the used ring and advances its index.
    pub fn finish_raw(&mut self, id: u32, written: u32) {
        let at = self.addresses.used.0 + 4 + 8 * u64::from(self.finished % self.size);
        Self::write(at, id);
        Self::write(at + 4, written);
        self.finished = self.finished.wrapping_add(1);
        self.set_used_index(self.finished);
    }

    /// Overwrites the used index.
    pub fn set_used_index(&mut self, index: u16) {
        Self::write(self.addresses.used.0 + 2, index);
    }
}

/// The state of a fake device, shared between the transport the driver holds and the test.
pub struct FakeDevice {
    pub features: u64,
    pub accepted: u64,
    pub status: u8,
    pub config: Vec<u8>,
    pub generation: u8,
    /// Added to the generation at every look.
    pub generation_step: u8,
    pub largest_queue: u16,
    /// Whether writing zero to the status resets the device.
    pub resets: bool,
    pub rings: BTreeMap<u16, Ring>,
    pub notifications: Vec<u16>,
}

impl FakeDevice {
    /// A device that offers virtio 1 plus `features`.
    pub fn new(features: u64, config: &[u8]) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            features: features | 1 << 32,
            accepted: 0,
            status: 0,
            config: config.to_vec(),
            generation: 0,
            generation_step: 0,
            largest_queue: 256,
            resets: true,
            rings: BTreeMap::new(),
            notifications: Vec::new(),
        }))
    }

    pub fn ring(&mut self, queue: u16) -> &mut Ring {
        self.rings
            .get_mut(&queue)
            .expect("the driver enabled this queue")
    }

    pub fn failed(&self) -> bool {
        self.status & status::FAILED != 0
    }
}

type Behaviour = Box<dyn FnMut(&mut FakeDevice, u16)>;

/// The transport of a [`FakeDevice`]; `on_notify` plays the device whenever the driver notifies a queue.
pub struct FakeTransport {
    pub device: Rc<RefCell<FakeDevice>>,
    pub on_notify: Behaviour,
}

impl FakeTransport {
    /// A device that never does anything by itself; the test moves its rings.
    pub fn silent(device: &Rc<RefCell<FakeDevice>>) -> Box<dyn Transport> {
        Self::scripted(device, |_, _| {})
    }

    /// A device that acts on every notification.
    pub fn scripted(
        device: &Rc<RefCell<FakeDevice>>,
        on_notify: impl FnMut(&mut FakeDevice, u16) + 'static,
    ) -> Box<dyn Transport> {
        Box::new(Self {
            device: device.clone(),
            on_notify: Box::new(on_notify),
        })
    }
}

impl Transport for FakeTransport {
    fn offered_features(&mut self) -> u64 {
        self.device.borrow().features
    }

    fn accept_features(&mut self, features: u64) {
        self.device.borrow_mut().accepted = features;
    }

    fn status(&mut self) -> u8 {
        self.device.borrow().status
    }

    fn set_status(&mut self, status: u8) {
        let mut device = self.device.borrow_mut();
        if status != 0 || device.resets {
            device.status = status;
        }
    }

    fn largest_queue(&mut self, _: u16) -> u16 {
        self.device.borrow().largest_queue
    }

    fn enable_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> bool {
        self.device
            .borrow_mut()
            .rings
            .insert(queue, Ring::new(size, addresses));
        true
    }

    fn has_interrupts(&self) -> bool {
        false
    }

    fn notify(&mut self, queue: u16) {
        let mut device = self.device.borrow_mut();
        device.notifications.push(queue);
        (self.on_notify)(&mut device, queue);
    }

    fn config_byte(&mut self, offset: u32) -> u8 {
        self.device
            .borrow()
            .config
            .get(offset as usize)
            .copied()
            .unwrap_or(0)
    }

    fn config_generation(&mut self) -> u8 {
        let mut device = self.device.borrow_mut();
        device.generation = device.generation.wrapping_add(device.generation_step);
        device.generation
    }
}
