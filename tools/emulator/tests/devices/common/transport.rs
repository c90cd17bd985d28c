//! Virtio registers through the bus: what the guest's own transport does with hypercalls.

use std::sync::Arc;

use emulator::bus::Bus;
use machine::pci::{self, Address, Bars, ConfigSpace, Function, MmioWindow, VENDOR_SPECIFIC};
use machine::virtio::{QueueAddresses, Transport};

/// Configuration space through the two ports.
pub struct Ports(pub Arc<dyn Bus>);

impl Ports {
    fn select(&self, address: Address, offset: u8) {
        let function = u32::from(address.device) << 11 | u32::from(address.function) << 8;
        self.0
            .io(0xcf8, 4, Some(1 << 31 | function | u32::from(offset)));
    }
}

impl ConfigSpace for Ports {
    fn read(&mut self, address: Address, offset: u8) -> u32 {
        self.select(address, offset);
        self.0.io(0xcfc, 4, None)
    }

    fn write(&mut self, address: Address, offset: u8, value: u32) {
        self.select(address, offset);
        self.0.io(0xcfc, 4, Some(value));
    }
}

/// The virtio functions on the bus.
pub fn functions(ports: &mut Ports) -> Vec<Function> {
    let all = pci::scan(ports);
    all.into_iter()
        .filter(|function| function.vendor == 0x1af4)
        .collect()
}

/// A block of registers, checked to lie in a memory register of the function.
#[derive(Clone, Copy)]
struct Block {
    base: u64,
    length: u32,
}

/// A virtio function with its registers placed.
pub struct BusTransport {
    bus: Arc<dyn Bus>,
    common: Block,
    notify: Block,
    step: u32,
    device: Block,
    doorbells: Vec<u64>,
    /// The message of every queue, or none.
    vector: u16,
}

impl BusTransport {
    /// Places the registers of a function and finds its blocks, as the guest does.
    pub fn new(
        bus: &Arc<dyn Bus>,
        address: Address,
        window: &mut MmioWindow,
        vector: u16,
    ) -> Option<Self> {
        let mut ports = Ports(bus.clone());
        pci::disable(&mut ports, address);
        let bars = Bars::place(&mut ports, address, window).ok()?;
        let mut blocks = [None; 5];
        let mut step = 0;
        for at in pci::capabilities(&mut ports, address, VENDOR_SPECIFIC) {
            at.checked_add(16)?;
            let kind = (ports.read(address, at) >> 24) as usize;
            let bar = ports.read(address, at + 4) as u8;
            let (offset, length) = (ports.read(address, at + 8), ports.read(address, at + 12));
            let Some(base) = bars.locate(bar, offset, length) else {
                continue;
            };
            if kind == 2 {
                step = ports.read(address, at + 16);
            }
            if let Some(place @ None) = blocks.get_mut(kind) {
                *place = Some(Block { base, length });
            }
        }
        let [_, common, notify, _, device] = blocks;
        let (common, notify, device) = (common?, notify?, device?);
        if common.length < 0x38 {
            return None;
        }
        pci::enable(&mut ports, address);
        Some(Self {
            bus: bus.clone(),
            common,
            notify,
            step,
            device,
            doorbells: Vec::new(),
            vector,
        })
    }

    fn read(&self, offset: u64, size: u8) -> u64 {
        self.bus.mmio(self.common.base + offset, size, None)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.bus.mmio(self.common.base + offset, size, Some(value));
    }

    fn write_address(&self, offset: u64, address: u64) {
        self.write(offset, 4, address & 0xffff_ffff);
        self.write(offset + 4, 4, address >> 32);
    }
}

impl Transport for BusTransport {
    fn offered_features(&mut self) -> u64 {
        (0..2).fold(0, |features, half| {
            self.write(0x00, 4, half);
            features | self.read(0x04, 4) << (32 * half)
        })
    }

    fn accept_features(&mut self, features: u64) {
        for half in 0..2 {
            self.write(0x08, 4, half);
            self.write(0x0c, 4, features >> (32 * half) & 0xffff_ffff);
        }
    }

    fn status(&mut self) -> u8 {
        self.read(0x14, 1) as u8
    }

    fn set_status(&mut self, status: u8) {
        self.write(0x14, 1, status.into());
    }

    fn largest_queue(&mut self, queue: u16) -> u16 {
        self.write(0x16, 2, queue.into());
        self.read(0x18, 2) as u16
    }

    fn enable_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> bool {
        self.write(0x16, 2, queue.into());
        let slot = self.read(0x1e, 2) as u32;
        let Some(offset) = slot
            .checked_mul(self.step)
            .filter(|offset| offset + 2 <= self.notify.length)
        else {
            return false;
        };
        self.doorbells.resize(usize::from(queue) + 1, 0);
        self.doorbells[usize::from(queue)] = self.notify.base + u64::from(offset);
        self.write(0x1a, 2, self.vector.into());
        self.write(0x18, 2, size.into());
        self.write_address(0x20, addresses.descriptors.0);
        self.write_address(0x28, addresses.available.0);
        self.write_address(0x30, addresses.used.0);
        self.write(0x1c, 2, 1);
        true
    }

    fn has_interrupts(&self) -> bool {
        false
    }

    fn notify(&mut self, queue: u16) {
        self.bus
            .mmio(self.doorbells[usize::from(queue)], 2, Some(queue.into()));
    }

    fn config_byte(&mut self, offset: u32) -> u8 {
        if offset >= self.device.length {
            return 0;
        }
        self.bus.mmio(self.device.base + u64::from(offset), 1, None) as u8
    }

    fn config_generation(&mut self) -> u8 {
        self.read(0x15, 1) as u8
    }
}
