//! The modern PCI transport (virtio 1.2 §4.1): register blocks described by vendor capabilities, reached by MMIO.
//!
//! The capabilities are the host's and are read once: a block counts only if it lies wholly inside a register we
//! placed ourselves. Legacy and transitional interfaces are not spoken.

use super::device::Transport;
use super::queue::QueueAddresses;
use crate::mmio::{self, Register};
use crate::pci::{
    self as bus, Address, Bars, ConfigSpace, Message, MmioWindow, PciError, VENDOR_SPECIFIC,
};
use core::fmt;

/// Types of register block.
mod block {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const DEVICE: u8 = 4;
}

/// Offsets in the common configuration block.
mod common {
    pub const DEVICE_FEATURE_SELECT: u32 = 0x00;
    pub const DEVICE_FEATURE: u32 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u32 = 0x08;
    pub const DRIVER_FEATURE: u32 = 0x0c;
    pub const MSIX_CONFIG: u32 = 0x10;
    pub const DEVICE_STATUS: u32 = 0x14;
    pub const CONFIG_GENERATION: u32 = 0x15;
    pub const QUEUE_SELECT: u32 = 0x16;
    pub const QUEUE_SIZE: u32 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u32 = 0x1a;
    pub const QUEUE_ENABLE: u32 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u32 = 0x1e;
    pub const QUEUE_DESC: u32 = 0x20;
    pub const QUEUE_DRIVER: u32 = 0x28;
    pub const QUEUE_DEVICE: u32 = 0x30;
    pub const LENGTH: u32 = 0x38;
}

/// Tells the device to raise no message interrupt, or by the device that it cannot.
const NO_VECTOR: u16 = 0xffff;
/// The one message of a function.
const VECTOR: u16 = 0;
/// The most queues any of our devices has.
const QUEUES: usize = 3;

/// Why a virtio function cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Its registers could not be placed.
    Pci(PciError),
    /// A register block is missing or does not lie inside a placed register. Legacy-only devices end here.
    Block(u8),
}

impl From<PciError> for TransportError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(error) => error.fmt(f),
            Self::Block(block) => write!(f, "no usable virtio 1 register block of type {block}"),
        }
    }
}

impl core::error::Error for TransportError {}

/// A register block: a stretch of device registers in the window.
#[derive(Clone, Copy, Debug)]
struct Registers {
    base: u64,
    length: u32,
}

impl Registers {
    fn address<T>(&self, offset: u32) -> u64 {
        let size = size_of::<T>() as u64;
        let inside = u64::from(offset) + size <= u64::from(self.length);
        assert!(inside, "access outside a register block");
        let address = self.base + u64::from(offset);
        assert!(address.is_multiple_of(size), "unaligned device register");
        address
    }

    fn read<T: Register>(&self, offset: u32) -> T {
        // SAFETY: the address was checked to lie in a register of the device, which `PciTransport::new`'s caller
        // vouches is mapped and ours.
        unsafe { mmio::read(self.address::<T>(offset)) }
    }

    fn write<T: Register>(&mut self, offset: u32, value: T) {
        // SAFETY: as in `read`.
        unsafe { mmio::write(self.address::<T>(offset), value) }
    }

    fn write_address(&mut self, offset: u32, address: u64) {
        // 64-bit registers are accessed as two halves (virtio 1.2 §4.1.3.1).
        self.write(offset, address as u32);
        self.write(offset + 4, (address >> 32) as u32);
    }
}

/// A virtio function with its registers placed.
#[derive(Debug)]
pub struct PciTransport {
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    device: Option<Registers>,
    /// Whether the function raises an interrupt for each finished request.
    interrupts: bool,
    /// Where to notify each queue, read once when the queue is enabled.
    doorbells: [Option<u32>; QUEUES],
}

impl PciTransport {
    /// Places the registers of the function at `address` and finds its register blocks. It may raise `interrupt` if it can; otherwise it has to be
    /// polled.
    ///
    /// # Safety
    /// The physical window of [`MmioWindow`] is mapped one to one, holds no memory, and is used through nothing else.
    pub unsafe fn new(
        config: &mut dyn ConfigSpace,
        address: Address,
        window: &mut MmioWindow,
        interrupt: Option<Message>,
    ) -> Result<Self, TransportError> {
        bus::disable(config, address);
        let bars = Bars::place(config, address, window)?;
        let mut blocks = [None; 5];
        let mut notify_multiplier = 0;
        for at in bus::capabilities(config, address, VENDOR_SPECIFIC) {
            let Some((kind, registers)) = register_block(config, address, at, &bars) else {
                continue;
            };
            let Some(place @ None) = blocks.get_mut(usize::from(kind)) else {
                // A type of no interest, or a second choice: the first one counts.
                continue;
            };
            *place = Some(registers);
            if kind == block::NOTIFY {
                // The capability ends inside configuration space, or `register_block` had refused it.
                notify_multiplier = config.read(address, at + 16);
            }
        }
        let found = |kind: u8| blocks[usize::from(kind)].ok_or(TransportError::Block(kind));
        let common: Registers = found(block::COMMON)?;
        if common.length < common::LENGTH {
            return Err(TransportError::Block(block::COMMON));
        }
        let mut transport = Self {
            common,
            notify: found(block::NOTIFY)?,
            notify_multiplier,
            device: found(block::DEVICE).ok(),
            interrupts: false,
            doorbells: [None; QUEUES],
        };
        bus::enable(config, address);
        // SAFETY: the caller vouches for the window, and `bars` for the function's part of it, where it answers from now on.
        transport.interrupts = interrupt.is_some_and(|message| unsafe {
            bus::enable_messages(config, address, &bars, message)
        });
        Ok(transport)
    }
}

/// The type and place of the register block that the capability at `at` describes, if it is inside a placed register.
fn register_block(
    config: &mut dyn ConfigSpace,
    address: Address,
    at: u8,
    bars: &Bars,
) -> Option<(u8, Registers)> {
    // Type, register and length fit before the end of configuration space for every block; the notification block
    // has one word more.
    at.checked_add(16)?;
    let kind = (config.read(address, at) >> 24) as u8;
    let bar = config.read(address, at + 4) as u8;
    let offset = config.read(address, at + 8);
    let length = config.read(address, at + 12);
    let base = bars.locate(bar, offset, length)?;
    // The common block holds 32-bit registers, and the others are placed at least as well by every real device.
    base.is_multiple_of(4)
        .then_some((kind, Registers { base, length }))
}

impl Transport for PciTransport {
    fn offered_features(&mut self) -> u64 {
        self.common.write(common::DEVICE_FEATURE_SELECT, 0u32);
        let low: u32 = self.common.read(common::DEVICE_FEATURE);
        self.common.write(common::DEVICE_FEATURE_SELECT, 1u32);
        let high: u32 = self.common.read(common::DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    fn accept_features(&mut self, features: u64) {
        self.common.write(common::DRIVER_FEATURE_SELECT, 0u32);
        self.common.write(common::DRIVER_FEATURE, features as u32);
        self.common.write(common::DRIVER_FEATURE_SELECT, 1u32);
        self.common
            .write(common::DRIVER_FEATURE, (features >> 32) as u32);
    }

    fn status(&mut self) -> u8 {
        self.common.read(common::DEVICE_STATUS)
    }

    fn set_status(&mut self, status: u8) {
        self.common.write(common::DEVICE_STATUS, status);
    }

    fn largest_queue(&mut self, queue: u16) -> u16 {
        self.common.write(common::QUEUE_SELECT, queue);
        self.common.read(common::QUEUE_SIZE)
    }

    fn enable_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> bool {
        let common = &mut self.common;
        common.write(common::QUEUE_SELECT, queue);
        let slot: u16 = common.read(common::QUEUE_NOTIFY_OFF);
        let doorbell = u32::from(slot).checked_mul(self.notify_multiplier);
        let doorbell = doorbell.filter(|offset| {
            let end = offset.checked_add(2);
            offset.is_multiple_of(2) && end.is_some_and(|end| end <= self.notify.length)
        });
        let (Some(place), Some(doorbell)) = (self.doorbells.get_mut(usize::from(queue)), doorbell)
        else {
            return false;
        };
        *place = Some(doorbell);
        common.write(common::MSIX_CONFIG, NO_VECTOR);
        let vector = if self.interrupts { VECTOR } else { NO_VECTOR };
        common.write(common::QUEUE_MSIX_VECTOR, vector);
        if common.read::<u16>(common::QUEUE_MSIX_VECTOR) != vector {
            return false;
        }
        common.write(common::QUEUE_SIZE, size);
        common.write_address(common::QUEUE_DESC, addresses.descriptors.0);
        common.write_address(common::QUEUE_DRIVER, addresses.available.0);
        common.write_address(common::QUEUE_DEVICE, addresses.used.0);
        common.write(common::QUEUE_ENABLE, 1u16);
        true
    }

    fn has_interrupts(&self) -> bool {
        self.interrupts
    }

    fn notify(&mut self, queue: u16) {
        if let Some(Some(doorbell)) = self.doorbells.get(usize::from(queue)) {
            self.notify.write(*doorbell, queue);
        }
    }

    fn config_byte(&mut self, offset: u32) -> u8 {
        match &self.device {
            Some(registers) if offset < registers.length => registers.read(offset),
            _ => 0,
        }
    }

    fn config_generation(&mut self) -> u8 {
        self.common.read(common::CONFIG_GENERATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::{FakeConfig, FakeFunction};
    use proptest::prelude::*;

    const DEVICE: Address = Address {
        device: 2,
        function: 0,
    };

    /// A function with one 16 KiB register (number 4) and the given blocks: type, register, offset, length.
    fn with_blocks(blocks: &[(u8, u8, u32, u32)]) -> FakeConfig {
        let mut function = FakeFunction::new(VENDOR, 0x1042);
        function.bar_sizes[4] = 0x4000;
        function.words[8] = 0b100;
        function.words[1] = 1 << 20;
        let mut at = 0x40u8;
        function.words[0x34 / 4] = at.into();
        for &(kind, bar, offset, length) in blocks {
            let next = at + 20;
            let words = [
                u32::from(kind) << 24
                    | 20 << 16
                    | u32::from(next) << 8
                    | u32::from(VENDOR_SPECIFIC),
                bar.into(),
                offset,
                length,
                4,
            ];
            function.words[usize::from(at) / 4..][..5].copy_from_slice(&words);
            at = next;
        }
        let mut config = FakeConfig::default();
        config.functions.insert(DEVICE, function);
        config
    }

    const VENDOR: u16 = 0x1af4;

    fn transport(blocks: &[(u8, u8, u32, u32)]) -> Result<PciTransport, TransportError> {
        // The command register of the fake forgets its status half when written, as `disable` does: keep it set.
        struct WithStatus(FakeConfig);
        impl ConfigSpace for WithStatus {
            fn read(&mut self, address: Address, offset: u8) -> u32 {
                self.0.read(address, offset) | if offset == 4 { 1 << 20 } else { 0 }
            }
            fn write(&mut self, address: Address, offset: u8, value: u32) {
                self.0.write(address, offset, value);
            }
        }
        let mut config = WithStatus(with_blocks(blocks));
        // SAFETY: these tests touch no register, only the places found for them.
        unsafe { PciTransport::new(&mut config, DEVICE, &mut MmioWindow::new(), None) }
    }

    #[test]
    fn the_first_usable_block_of_each_type_counts() {
        let found = transport(&[
            (block::COMMON, 5, 0, 0x38),
            (block::COMMON, 4, 0x1000, 0x38),
            (block::COMMON, 4, 0x2000, 0x38),
            (block::NOTIFY, 4, 0x3000, 0x1000),
            (block::DEVICE, 4, 0x0, 0x40),
            (200, 4, 0, 16),
        ])
        .unwrap();
        assert_eq!(found.common.base, bus::WINDOW_BASE + 0x1000);
        assert_eq!(found.notify_multiplier, 4);
        assert!(found.device.is_some());
    }

    #[test]
    fn blocks_outside_their_register_are_not_used() {
        let notify = (block::NOTIFY, 4, 0x3000, 0x1000);
        for common in [
            (0x3ff0, 0x38),
            (u32::MAX, 0x38),
            (0, 0x4001),
            (0, u32::MAX),
            (0, 8),
            (2, 0x38),
        ] {
            let error = transport(&[(block::COMMON, 4, common.0, common.1), notify]).unwrap_err();
            assert_eq!(error, TransportError::Block(block::COMMON), "{common:x?}");
        }
        let error = transport(&[(block::COMMON, 4, 0, 0x38)]).unwrap_err();
        assert_eq!(error, TransportError::Block(block::NOTIFY));
    }

    proptest! {
        #[test]
        fn every_block_found_lies_in_the_window(
            blocks in proptest::collection::vec((0u8..6, 3u8..6, any::<u32>(), 0u32..0x5000), 0..9),
        ) {
            if let Ok(found) = transport(&blocks) {
                for registers in [Some(found.common), Some(found.notify), found.device].into_iter().flatten() {
                    let end = registers.base + u64::from(registers.length);
                    prop_assert!(registers.base >= bus::WINDOW_BASE);
                    prop_assert!(end <= bus::WINDOW_BASE + bus::WINDOW_LENGTH);
                }
            }
        }
    }
}
