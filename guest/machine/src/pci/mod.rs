//! PCI: finding the devices on bus 0 and giving them addresses of our own choosing.
//!
//! On entry nobody has configured the bus: this program is the firmware. Everything read from configuration space is
//! the host's word and only selects among things that are safe whatever it says: the scan is bounded by the size of the
//! bus, every base address register gets an address from a constant window that never overlaps memory (`tdx.md` §1.9),
//! and whatever stood there before is ignored.

mod bars;
mod capabilities;
mod msix;
mod ports;

pub use bars::{Bars, MmioWindow, WINDOW_BASE, WINDOW_LENGTH};
pub use capabilities::{VENDOR_SPECIFIC, capabilities};
pub use msix::{Message, enable as enable_messages};
pub use ports::ConfigPorts;

use alloc::vec::Vec;
use core::fmt;

/// Offsets of the registers used in the 256-byte configuration header.
mod register {
    pub const IDENTITY: u8 = 0x00;
    pub const COMMAND: u8 = 0x04;
    pub const HEADER_TYPE: u8 = 0x0c;
    pub const BAR0: u8 = 0x10;
    pub const CAPABILITIES_POINTER: u8 = 0x34;
}

/// Bits of the command register.
mod command {
    pub const MEMORY_SPACE: u32 = 1 << 1;
    pub const BUS_MASTER: u32 = 1 << 2;
    pub const INTERRUPT_DISABLE: u32 = 1 << 10;
}

const NO_FUNCTION: u16 = 0xffff;
const MULTI_FUNCTION: u32 = 1 << 23;
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

/// A function on bus 0. The image needs no other bus: every virtio device sits on the root complex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.{}", self.device, self.function)
    }
}

/// Access to configuration space, 32 bits at a time. `offset` is a multiple of four.
pub trait ConfigSpace {
    /// Reads a register; all ones if nothing answers.
    fn read(&mut self, address: Address, offset: u8) -> u32;
    /// Writes a register.
    fn write(&mut self, address: Address, offset: u8, value: u32);
}

/// A function that answered the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// PCI vendor, never 0xffff.
    pub vendor: u16,
    /// Device number of that vendor.
    pub device: u16,
}

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// A base address register asks for a size that is no power of two or larger than any device of ours needs.
    BarSize {
        /// Index of the register, 0 to 5.
        bar: u8,
    },
    /// The address window is used up.
    WindowFull,
    /// A base address register did not keep the address written to it.
    BarRefused {
        /// Index of the register, 0 to 5.
        bar: u8,
    },
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarSize { bar } => write!(f, "BAR {bar} asks for an unacceptable size"),
            Self::WindowFull => write!(f, "the device address window is full"),
            Self::BarRefused { bar } => write!(f, "BAR {bar} did not keep its address"),
        }
    }
}

impl core::error::Error for PciError {}

/// Every function present on bus 0, at most 256.
pub fn scan(config: &mut dyn ConfigSpace) -> Vec<Function> {
    let mut found = Vec::new();
    for device in 0..DEVICES {
        let first = Address {
            device,
            function: 0,
        };
        let Some(function) = identify(config, first) else {
            continue;
        };
        found.push(function);
        if config.read(first, register::HEADER_TYPE) & MULTI_FUNCTION != 0 {
            found.extend(
                (1..FUNCTIONS)
                    .filter_map(|function| identify(config, Address { device, function })),
            );
        }
    }
    found
}

fn identify(config: &mut dyn ConfigSpace, address: Address) -> Option<Function> {
    let identity = config.read(address, register::IDENTITY);
    let vendor = identity as u16;
    (vendor != NO_FUNCTION).then_some(Function {
        address,
        vendor,
        device: (identity >> 16) as u16,
    })
}

/// Lets a function answer at its memory addresses and reach memory by itself; legacy interrupt lines stay off.
pub fn enable(config: &mut dyn ConfigSpace, address: Address) {
    // The upper half is the status register, whose bits are cleared by writing ones: it is written as zero.
    let bits = command::MEMORY_SPACE | command::BUS_MASTER | command::INTERRUPT_DISABLE;
    config.write(address, register::COMMAND, bits);
}

/// Makes a function deaf: no address decoding, no access to memory.
pub fn disable(config: &mut dyn ConfigSpace, address: Address) {
    config.write(address, register::COMMAND, command::INTERRUPT_DISABLE);
}

#[cfg(test)]
pub(crate) mod fake {
    //! Configuration space in memory, with base address registers that size themselves like real ones.

    use super::{Address, ConfigSpace};
    use alloc::collections::BTreeMap;

    /// One function: its 256 bytes and, for each base address register, the bits that cannot be written.
    pub struct FakeFunction {
        pub words: [u32; 64],
        pub bar_sizes: [u32; 6],
    }

    impl FakeFunction {
        pub fn new(vendor: u16, device: u16) -> Self {
            let mut words = [0; 64];
            words[0] = u32::from(device) << 16 | u32::from(vendor);
            Self {
                words,
                bar_sizes: [0; 6],
            }
        }
    }

    #[derive(Default)]
    pub struct FakeConfig {
        pub functions: BTreeMap<Address, FakeFunction>,
        /// Reads so far: what a hostile device can make the scan cost.
        pub reads: usize,
    }

    impl ConfigSpace for FakeConfig {
        fn read(&mut self, address: Address, offset: u8) -> u32 {
            self.reads += 1;
            match self.functions.get(&address) {
                Some(function) => function.words[usize::from(offset) / 4],
                None => u32::MAX,
            }
        }

        fn write(&mut self, address: Address, offset: u8, value: u32) {
            let Some(function) = self.functions.get_mut(&address) else {
                return;
            };
            let word = usize::from(offset) / 4;
            function.words[word] = match word {
                4..10 => {
                    let size = function.bar_sizes[word - 4];
                    let kind = function.words[word] & 0xf;
                    // An absent register reads zero whatever is written.
                    if size == 0 {
                        0
                    } else {
                        value & !(size - 1) | kind
                    }
                }
                _ => value,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{FakeConfig, FakeFunction};
    use super::*;

    fn at(device: u8, function: u8) -> Address {
        Address { device, function }
    }

    #[test]
    fn an_empty_bus_has_no_functions() {
        assert!(scan(&mut FakeConfig::default()).is_empty());
    }

    #[test]
    fn functions_beyond_the_first_need_the_multi_function_bit() {
        let mut config = FakeConfig::default();
        config
            .functions
            .insert(at(3, 0), FakeFunction::new(0x1af4, 0x1042));
        config
            .functions
            .insert(at(3, 1), FakeFunction::new(0x1af4, 0x1041));
        assert_eq!(scan(&mut config).len(), 1);
        config.functions.get_mut(&at(3, 0)).unwrap().words[3] = MULTI_FUNCTION;
        let found = scan(&mut config);
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].address, found[1].device), (at(3, 1), 0x1041));
    }

    #[test]
    fn the_scan_of_a_full_bus_is_bounded() {
        let mut config = FakeConfig::default();
        for device in 0..32 {
            for function in 0..8 {
                let mut fake = FakeFunction::new(0x8086, 1);
                fake.words[3] = u32::MAX;
                config.functions.insert(at(device, function), fake);
            }
        }
        assert_eq!(scan(&mut config).len(), 256);
        assert!(config.reads <= 256 + 32);
    }
}
