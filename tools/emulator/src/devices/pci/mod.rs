//! PCI: bus 0 with its functions, reached by configuration ports (mechanism 1), by the memory-mapped window that the host bridge can open
//! (ECAM), and by the memory registers of the functions themselves.

pub mod header;
mod host;
pub mod msix;

pub use host::{HostBridge, IsaBridge};

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::hostile::{Attack, Host, Target};

/// The port that selects a register, and the first and last of four through which it is accessed (PCI Local Bus 3.0, 3.2.2.3.2).
pub const ADDRESS_PORT: u16 = 0xcf8;
pub const DATA_PORT: u16 = 0xcfc;
pub const LAST_DATA_PORT: u16 = 0xcff;

/// Bit of the selecting port (the same).
const ENABLE: u32 = 1 << 31;
/// A function's share of the memory-mapped configuration window, and a bus's (PCI Express Base, enhanced configuration access mechanism).
const ECAM_FUNCTION: u64 = 4096;
const ECAM_BUS: u64 = 1 << 20;

/// One function on the bus.
pub trait Function: Send + Sync {
    /// Reads `size` bytes of configuration space, which do not cross a 32-bit boundary.
    fn read_config(&self, offset: u8, size: u8) -> u32;
    /// Writes to configuration space.
    fn write_config(&self, offset: u8, size: u8, value: u32);
    /// An access to a memory register of the function, if one decodes the address.
    fn memory(&self, address: u64, size: u8, write: Option<u64>) -> Option<u64>;
}

/// Bus 0.
pub struct Pci {
    selected: AtomicU32,
    host: Arc<HostBridge>,
    functions: Vec<(u8, Arc<dyn Function>)>,
    attacker: Arc<Host>,
}

impl Pci {
    /// A bus with its host bridge as device 0 and, of a q35, the bridge to the old devices as 31.0.
    pub fn new(isa: Arc<IsaBridge>, attacker: Arc<Host>) -> Self {
        let host = Arc::new(HostBridge::new());
        Self {
            selected: AtomicU32::new(0),
            functions: vec![(0, host.clone()), (31 << 3, isa)],
            host,
            attacker,
        }
    }

    /// Plugs a function into device `slot`, 1 to 30.
    pub fn add(&mut self, slot: u8, function: Arc<dyn Function>) {
        self.functions.push((slot << 3, function));
    }

    /// An access to one of the configuration ports.
    pub fn io(&self, port: u16, size: u8, write: Option<u32>) -> u32 {
        if port == ADDRESS_PORT {
            return match write {
                Some(value) if size == 4 => {
                    self.selected.store(value, Ordering::Relaxed);
                    0
                }
                Some(_) => 0,
                None => self.selected.load(Ordering::Relaxed),
            };
        }
        let selected = self.selected.load(Ordering::Relaxed);
        let within = port.wrapping_sub(DATA_PORT) as u8;
        if selected & ENABLE == 0 || within.saturating_add(size) > 4 {
            return u32::MAX;
        }
        let [offset, function, bus, _] = selected.to_le_bytes();
        self.config(bus, function, (offset & 0xfc) + within, size, write)
    }

    /// An access to memory-mapped configuration space or a memory register of a function.
    pub fn memory(&self, address: u64, size: u8, write: Option<u64>) -> Option<u64> {
        if let Some(offset) = self.host.window_offset(address) {
            let (bus, function) = (
                (offset / ECAM_BUS) as u8,
                (offset % ECAM_BUS / ECAM_FUNCTION) as u8,
            );
            let register = offset % ECAM_FUNCTION;
            let value = match u8::try_from(register) {
                Ok(register) => self.config(
                    bus,
                    function,
                    register,
                    size.min(4),
                    write.map(|value| value as u32),
                ),
                // There are no extended capabilities.
                Err(_) => 0,
            };
            return Some(value.into());
        }
        self.functions
            .iter()
            .find_map(|(_, function)| function.memory(address, size, write))
    }

    /// What is read where no function is.
    fn nothing(&self, offset: u8) -> u32 {
        if !self.attacker.is_hostile()
            || !self
                .attacker
                .strikes(Attack::GhostFunctions, Target::Platform)
        {
            return u32::MAX;
        }
        // Often enough one that the guest has a driver for.
        let random = self.attacker.below(1 << 32) as u32;
        // Disk, card, vsock (virtio 1.2, 4.1.2 and 5).
        let choices = [0x1042_1af4, 0x1041_1af4, 0x1053_1af4, random];
        if offset == 0 {
            choices[self.attacker.below(4) as usize]
        } else {
            random
        }
    }

    fn config(&self, bus: u8, function: u8, offset: u8, size: u8, write: Option<u32>) -> u32 {
        let found = self
            .functions
            .iter()
            .find(|(number, _)| bus == 0 && *number == function);
        let Some((_, found)) = found else {
            return self.nothing(offset);
        };
        match write {
            Some(value) => {
                found.write_config(offset, size, value);
                0
            }
            None => found.read_config(offset, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Pci {
        Pci::new(Arc::new(IsaBridge::new()), Arc::new(Host::honest()))
    }

    fn select(bus: &Pci, device: u32, offset: u32) {
        bus.io(ADDRESS_PORT, 4, Some(ENABLE | device << 11 | offset));
    }

    #[test]
    fn the_bridges_of_a_q35_are_found() {
        let bus = bus();
        select(&bus, 0, 0);
        assert_eq!(bus.io(DATA_PORT, 4, None), 0x29c0_8086);
        assert_eq!(bus.io(DATA_PORT + 2, 2, None), 0x29c0);
        select(&bus, 31, 0);
        assert_eq!(bus.io(DATA_PORT, 4, None), 0x2918_8086);
    }

    #[test]
    fn nothing_answers_elsewhere() {
        let bus = bus();
        assert_eq!(bus.io(DATA_PORT, 4, None), u32::MAX, "nothing is selected");
        select(&bus, 1, 0);
        assert_eq!(bus.io(DATA_PORT, 4, None), u32::MAX);
        bus.io(ADDRESS_PORT, 4, Some(ENABLE | 1 << 16));
        assert_eq!(bus.io(DATA_PORT, 4, None), u32::MAX, "bus 1");
        assert_eq!(bus.memory(0xe000_0000, 4, None), None);
    }

    #[test]
    fn the_window_shows_the_same_registers() {
        let bus = bus();
        select(&bus, 0, 0x60);
        bus.io(DATA_PORT, 4, Some(0xb000_0001));
        assert_eq!(bus.memory(0xb000_0000, 4, None), Some(0x29c0_8086));
        assert_eq!(bus.memory(0xb000_0000 + (31 << 15), 2, None), Some(0x8086));
        assert_eq!(
            bus.memory(0xb000_0000 + (1 << 15), 4, None),
            Some(0xffff_ffff)
        );
        assert_eq!(bus.memory(0xb000_0100, 4, None), Some(0));
        assert_eq!(bus.memory(0xc000_0000, 4, None), None);
    }
}
