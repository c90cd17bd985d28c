//! The common configuration of a virtio function (virtio 1.2, 4.1.4.3): negotiation and the set-up of queues.
//!
//! Only virtio 1 behind the platform's translation is spoken, as a confidential machine's devices are set up: a driver that does not accept
//! both features is refused (virtio 1.2, 6.1).

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

/// Offsets of the fields (virtio 1.2, 4.1.4.3: `struct virtio_pci_common_cfg`).
pub mod field {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    /// `queue_desc`, `queue_driver`, `queue_device`.
    pub const QUEUE_ADDRESSES: u64 = 0x20;
    pub const END: u64 = 0x38;
}

/// Bits of the device status (virtio 1.2, 2.1).
pub mod status {
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on.
    pub const NEEDS_RESET: u8 = 64;
}

/// VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM (virtio 1.2, 6).
pub const VERSION_1: u64 = 1 << 32;
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_MSI_NO_VECTOR (virtio 1.2, 4.1.5.1.2): no interrupt.
pub const NO_VECTOR: u16 = 0xffff;
/// Bytes of the block.
pub const LENGTH: u32 = field::END as u32;

/// One queue as the driver sets it up.
#[derive(Clone, Copy)]
struct QueueSetup {
    largest: u16,
    size: u16,
    vector: u16,
    enabled: bool,
    /// Descriptors, available ring, used ring.
    addresses: [u64; 3],
}

impl QueueSetup {
    fn new(largest: u16) -> Self {
        Self {
            largest,
            size: largest,
            vector: NO_VECTOR,
            enabled: false,
            addresses: [0; 3],
        }
    }
}

/// What a write asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Stop and forget everything.
    Reset,
    /// Take the queues into operation.
    Start,
}

/// The registers.
pub struct Registers {
    offered: u64,
    /// What a driver must accept.
    required: u64,
    vectors: u16,
    accepted: u64,
    device_select: u32,
    driver_select: u32,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueSetup>,
}

impl Registers {
    /// Registers of a device that offers `features` besides the `required` ones, has queues of at most these sizes and that many interrupts.
    pub fn new(features: u64, required: u64, queues: &[u16], vectors: u16) -> Self {
        Self {
            offered: features | required,
            required,
            vectors,
            accepted: 0,
            device_select: 0,
            driver_select: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: queues
                .iter()
                .map(|largest| QueueSetup::new(*largest))
                .collect(),
        }
    }

    /// The interrupt for changes of the configuration.
    pub fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// Declares that the device cannot go on.
    pub fn need_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
    }

    /// The enabled queues, in order, each with its interrupt; None for a queue that cannot exist as set up.
    pub fn enabled_queues(&self) -> Option<Vec<(Queue, u16)>> {
        self.queues
            .iter()
            .map(|setup| build(setup).map(|queue| (queue, setup.vector)))
            .collect()
    }

    /// Reads `size` bytes.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let bytes = self.bytes();
        let start = (offset as usize).min(bytes.len());
        let wanted = bytes[start..].iter().take(size.into());
        wanted
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn bytes(&self) -> [u8; field::END as usize] {
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let absent = QueueSetup::new(0);
        let queue = self
            .queues
            .get(usize::from(self.queue_select))
            .unwrap_or(&absent);
        let mut bytes = [0; field::END as usize];
        let mut rest = &mut bytes[..];
        let mut put = |field: &[u8]| {
            let (head, tail) = core::mem::take(&mut rest).split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        };
        put(&self.device_select.to_le_bytes());
        put(&half(self.offered, self.device_select).to_le_bytes());
        put(&self.driver_select.to_le_bytes());
        put(&half(self.accepted, self.driver_select).to_le_bytes());
        put(&self.config_vector.to_le_bytes());
        put(&(self.queues.len() as u16).to_le_bytes());
        // The configuration of these devices never changes: its generation is always 0.
        put(&[self.status, 0]);
        put(&self.queue_select.to_le_bytes());
        put(&queue.size.to_le_bytes());
        put(&queue.vector.to_le_bytes());
        put(&u16::from(queue.enabled).to_le_bytes());
        // Each queue has a doorbell of its own.
        put(&self.queue_select.to_le_bytes());
        for address in queue.addresses {
            put(&address.to_le_bytes());
        }
        bytes
    }

    /// Writes a field of `size` bytes. What cannot be written keeps its value.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) -> Effect {
        let vector = |vectors: u16| {
            if (value as u16) < vectors {
                value as u16
            } else {
                NO_VECTOR
            }
        };
        let running = self.status & status::DRIVER_OK != 0;
        match offset {
            field::DEVICE_FEATURE_SELECT => self.device_select = value as u32,
            field::DRIVER_FEATURE_SELECT => self.driver_select = value as u32,
            field::DRIVER_FEATURE if self.status & status::FEATURES_OK == 0 => {
                let half = value & u64::from(u32::MAX);
                match self.driver_select {
                    0 => self.accepted = self.accepted >> 32 << 32 | half,
                    1 => self.accepted = self.accepted & u64::from(u32::MAX) | half << 32,
                    _ => {}
                }
            }
            field::CONFIG_VECTOR => self.config_vector = vector(self.vectors),
            field::STATUS => return self.write_status(value as u8),
            field::QUEUE_SELECT => self.queue_select = value as u16,
            _ => {
                let vector = vector(self.vectors);
                let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
                    return Effect::None;
                };
                match offset {
                    field::QUEUE_VECTOR => queue.vector = vector,
                    // A queue in operation keeps its shape.
                    _ if running || queue.enabled => {}
                    field::QUEUE_SIZE => queue.size = value as u16,
                    field::QUEUE_ENABLE => queue.enabled = value & 1 != 0,
                    field::QUEUE_ADDRESSES..field::END => {
                        write_address(&mut queue.addresses, offset, size, value)
                    }
                    _ => {}
                }
            }
        }
        Effect::None
    }

    fn write_status(&mut self, new: u8) -> Effect {
        if new == 0 {
            let queues: Vec<u16> = self.queues.iter().map(|queue| queue.largest).collect();
            *self = Self::new(self.offered, self.required, &queues, self.vectors);
            return Effect::Reset;
        }
        let before = self.status;
        let mut new = new | before & status::NEEDS_RESET;
        let acceptable =
            self.accepted & !self.offered == 0 && self.accepted & self.required == self.required;
        if !acceptable {
            new &= !status::FEATURES_OK;
        }
        self.status = new;
        let started = new & !before & status::DRIVER_OK != 0 && new & status::FEATURES_OK != 0;
        if started { Effect::Start } else { Effect::None }
    }
}

/// Writes one or both halves of a queue's address (virtio 1.2, 4.1.3.1).
fn write_address(addresses: &mut [u64; 3], offset: u64, size: u8, value: u64) {
    let within = offset - field::QUEUE_ADDRESSES;
    let address = &mut addresses[(within / 8) as usize];
    let low = u64::from(u32::MAX);
    match (within % 8, size) {
        (0, 8) => *address = value,
        (0, 4) => *address = *address & !low | value & low,
        (4, 4) => *address = *address & low | value << 32,
        _ => {}
    }
}

/// A queue that was not enabled stays without requests.
fn build(setup: &QueueSetup) -> Option<Queue> {
    let mut queue = Queue::new(setup.largest).ok()?;
    if setup.enabled {
        let [descriptors, available, used] = setup.addresses.map(GuestAddress);
        queue.try_set_size(setup.size).ok()?;
        queue.try_set_desc_table_address(descriptors).ok()?;
        queue.try_set_avail_ring_address(available).ok()?;
        queue.try_set_used_ring_address(used).ok()?;
        queue.set_ready(true);
    }
    Some(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: u64 = VERSION_1 | ACCESS_PLATFORM;

    const ACKNOWLEDGED: u64 = 3;

    fn negotiate(registers: &mut Registers, features: u64) -> bool {
        registers.write(field::STATUS, 1, ACKNOWLEDGED);
        for half in 0..2 {
            registers.write(field::DRIVER_FEATURE_SELECT, 4, half);
            registers.write(
                field::DRIVER_FEATURE,
                4,
                features >> (32 * half) & 0xffff_ffff,
            );
        }
        registers.write(field::STATUS, 1, ACKNOWLEDGED | 8);
        registers.read(field::STATUS, 1) & 8 != 0
    }

    #[test]
    fn only_virtio_1_behind_translation_is_agreed_on() {
        for (features, agreed) in [
            (REQUIRED | 1 << 5, true),
            (REQUIRED, true),
            (1 << 32, false),
            (1 << 33, false),
            (REQUIRED | 1 << 6, false),
            (0, false),
        ] {
            let mut registers = Registers::new(1 << 5, REQUIRED, &[8], 2);
            assert_eq!(negotiate(&mut registers, features), agreed, "{features:x}");
        }
    }

    #[test]
    fn features_are_offered_in_halves() {
        let mut registers = Registers::new(1 << 5, REQUIRED, &[8], 2);
        assert_eq!(registers.read(4, 4), 1 << 5);
        registers.write(field::DEVICE_FEATURE_SELECT, 4, 1);
        assert_eq!(registers.read(4, 4), 3);
        registers.write(field::DEVICE_FEATURE_SELECT, 4, 2);
        assert_eq!(registers.read(4, 4), 0);
    }

    #[test]
    fn a_queue_is_set_up_once() {
        let mut registers = Registers::new(0, REQUIRED, &[8, 16], 3);
        assert!(negotiate(&mut registers, REQUIRED));
        registers.write(field::QUEUE_SELECT, 2, 1);
        assert_eq!(registers.read(field::QUEUE_SIZE, 2), 16);
        assert_eq!(registers.read(0x1e, 2), 1, "the doorbell of queue 1");
        registers.write(field::QUEUE_SIZE, 2, 4);
        registers.write(field::QUEUE_VECTOR, 2, 2);
        registers.write(0x20, 4, 0x1000);
        registers.write(0x24, 4, 1);
        registers.write(0x28, 8, 0x2000);
        registers.write(0x30, 4, 0x3000);
        registers.write(field::QUEUE_ENABLE, 2, 1);
        registers.write(field::QUEUE_SIZE, 2, 8);
        assert_eq!(
            registers.write(field::STATUS, 1, ACKNOWLEDGED | 12),
            Effect::Start
        );
        let queues = registers.enabled_queues().unwrap();
        let (queue, vector) = &queues[1];
        assert_eq!((queue.size(), *vector, queue.ready()), (4, 2, true));
        assert_eq!(queue.desc_table(), 0x1_0000_1000);
        assert!(!queues[0].0.ready());
        assert_eq!(registers.write(field::STATUS, 1, 0), Effect::Reset);
        assert_eq!(registers.read(field::QUEUE_SIZE, 2), 8, "queue 0 again");
        assert_eq!(registers.read(field::STATUS, 1), 0);
    }

    #[test]
    fn impossible_queues_and_absent_ones() {
        let mut registers = Registers::new(0, REQUIRED, &[8], 1);
        registers.write(field::QUEUE_SELECT, 2, 7);
        assert_eq!(registers.read(field::QUEUE_SIZE, 2), 0);
        registers.write(field::QUEUE_SIZE, 2, 8);
        registers.write(field::QUEUE_SELECT, 2, 0);
        registers.write(field::QUEUE_VECTOR, 2, 1);
        assert_eq!(
            registers.read(field::QUEUE_VECTOR, 2),
            0xffff,
            "there is no such interrupt"
        );
        for size in [0, 3, 16] {
            registers.write(field::QUEUE_ENABLE, 2, 0);
            let mut registers = Registers::new(0, REQUIRED, &[8], 1);
            registers.write(field::QUEUE_SIZE, 2, size);
            registers.write(field::QUEUE_ENABLE, 2, 1);
            assert!(registers.enabled_queues().is_none(), "size {size}");
        }
    }

    #[test]
    fn nothing_starts_without_agreed_features() {
        let mut registers = Registers::new(0, REQUIRED, &[8], 1);
        assert_eq!(registers.write(field::STATUS, 1, 15), Effect::None);
        assert_eq!(registers.read(60, 8), 0, "beyond the block");
    }
}
