//! The 256-byte configuration space of one function (PCI Local Bus 3.0, chapter 6): bytes, and which of their bits software may change.
//!
//! A base address register needs no code of its own here: the bits below its size cannot be written, so a write of all ones reads back as
//! the size, as software expects.

/// Offsets of the registers that this crate names (PCI Local Bus 3.0, 6.1, figure 6-1).
pub mod register {
    pub const COMMAND: u8 = 0x04;
    pub const STATUS: u8 = 0x06;
    pub const REVISION: u8 = 0x08;
    pub const CLASS: u8 = 0x09;
    pub const BAR0: u8 = 0x10;
    pub const SUBSYSTEM_VENDOR: u8 = 0x2c;
    pub const SUBSYSTEM: u8 = 0x2e;
    pub const CAPABILITIES: u8 = 0x34;
    pub const INTERRUPT_LINE: u8 = 0x3c;
}

/// Bit of the command register (PCI Local Bus 3.0, 6.2.2): the function answers at its memory addresses.
const MEMORY_SPACE: u8 = 1 << 1;
/// I/O space, memory space, bus master, interrupt disable (the same).
const COMMAND_WRITABLE: u16 = 0x0407;
/// Bit of the status register (PCI Local Bus 3.0, 6.2.3): there is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// Type bits of a base address register (PCI Local Bus 3.0, 6.2.5.1).
const BAR_64: u32 = 0b100;
const BAR_PREFETCHABLE: u32 = 1 << 3;
/// Where the list of capabilities begins: the first byte that PCI Local Bus 3.0 leaves to the device.
pub const FIRST_CAPABILITY: u8 = 0x40;

/// Who a function says it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor and device.
    pub subsystem: [u16; 2],
}

/// The configuration space of a function.
pub struct Header {
    bytes: [u8; 256],
    writable: [u8; 256],
    /// Size of each memory register, and whether it takes two slots.
    bars: [Option<(u64, bool)>; 6],
    next_capability: u8,
    /// Where the link to the next capability belongs.
    last_link: u8,
}

impl Header {
    /// A function without registers or capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut header = Self {
            bytes: [0; 256],
            writable: [0; 256],
            bars: [None; 6],
            next_capability: FIRST_CAPABILITY,
            last_link: register::CAPABILITIES,
        };
        let [base, sub, interface] = identity.class;
        header.set(0, &identity.vendor.to_le_bytes());
        header.set(2, &identity.device.to_le_bytes());
        header.set(register::REVISION, &[identity.revision]);
        header.set(register::CLASS, &[interface, sub, base]);
        let [vendor, device] = identity.subsystem;
        header.set(register::SUBSYSTEM_VENDOR, &vendor.to_le_bytes());
        header.set(register::SUBSYSTEM, &device.to_le_bytes());
        header.allow(register::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        header.allow(register::INTERRUPT_LINE, &[0xff]);
        header
    }

    /// Sets bytes, whether software may write them or not.
    pub fn set(&mut self, offset: u8, bytes: &[u8]) {
        let start = usize::from(offset);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Lets software write the bits of `mask`.
    pub fn allow(&mut self, offset: u8, mask: &[u8]) {
        let start = usize::from(offset);
        self.writable[start..start + mask.len()].copy_from_slice(mask);
    }

    /// Adds a 32-bit memory register of `size` bytes, a power of two of at least 16.
    pub fn add_bar(&mut self, bar: u8, size: u32) {
        let offset = register::BAR0 + 4 * bar;
        self.allow(offset, &(!(size - 1)).to_le_bytes());
        self.bars[usize::from(bar)] = Some((size.into(), false));
    }

    /// Adds a 64-bit prefetchable memory register, which takes `bar` and the slot behind it.
    pub fn add_wide_bar(&mut self, bar: u8, size: u64) {
        let offset = register::BAR0 + 4 * bar;
        self.set(offset, &(BAR_64 | BAR_PREFETCHABLE).to_le_bytes());
        self.allow(offset, &(!(size - 1)).to_le_bytes());
        self.bars[usize::from(bar)] = Some((size, true));
    }

    /// Appends a capability: its identifier and what follows the link to the next. Returns its offset.
    pub fn add_capability(&mut self, identifier: u8, body: &[u8]) -> u8 {
        let offset = self.next_capability;
        self.set(self.last_link, &[offset]);
        self.set(offset, &[identifier, 0]);
        self.set(offset + 2, body);
        self.bytes[usize::from(register::STATUS)] |= STATUS_CAPABILITIES;
        self.last_link = offset + 1;
        self.next_capability = (offset + 2 + body.len() as u8).next_multiple_of(4);
        offset
    }

    /// Reads `size` bytes, which do not cross a 32-bit boundary.
    pub fn read(&self, offset: u8, size: u8) -> u32 {
        let start = usize::from(offset);
        let bytes = self.bytes[start..].iter().take(usize::from(size));
        bytes
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    /// Writes those bits of `size` bytes that may be written.
    pub fn write(&mut self, offset: u8, size: u8, value: u32) {
        let start = usize::from(offset);
        let places = self.bytes[start..].iter_mut().zip(&self.writable[start..]);
        for ((byte, mask), new) in places.zip(value.to_le_bytes()).take(usize::from(size)) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// Which register decodes `address`, and the offset in it. None while memory decoding is off.
    pub fn decode(&self, address: u64) -> Option<(u8, u64)> {
        if self.bytes[usize::from(register::COMMAND)] & MEMORY_SPACE == 0 {
            return None;
        }
        self.bars.iter().zip(0u8..).find_map(|(bar, index)| {
            let (size, wide) = (*bar)?;
            let offset = register::BAR0 + 4 * index;
            let low = u64::from(self.read(offset, 4) & !0xf);
            let high = if wide {
                u64::from(self.read(offset + 4, 4))
            } else {
                0
            };
            let within = address.checked_sub(high << 32 | low)?;
            (within < size).then_some((index, within))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: [1, 0, 0],
            subsystem: [0x1af4, 0x1100],
        })
    }

    #[test]
    fn identity_cannot_be_written() {
        let mut header = header();
        header.write(0, 4, 0);
        assert_eq!(header.read(0, 4), 0x1042_1af4);
        assert_eq!(header.read(register::REVISION, 4), 0x0100_0001);
        assert_eq!(header.read(register::SUBSYSTEM, 2), 0x1100);
    }

    #[test]
    fn a_register_tells_its_size_and_decodes_only_when_switched_on() {
        let mut header = header();
        header.add_bar(1, 0x1000);
        header.add_wide_bar(4, 0x4000);
        for (offset, size) in [(0x14, 0xffff_f000), (0x20, 0xffff_c00c), (0x24, u32::MAX)] {
            header.write(offset, 4, u32::MAX);
            assert_eq!(header.read(offset, 4), size);
        }
        header.write(0x14, 4, 0xe000_0000);
        header.write(0x20, 4, 0xe000_4000);
        header.write(0x24, 4, 2);
        assert_eq!(header.decode(0xe000_0000), None);
        header.write(register::COMMAND, 2, 2);
        assert_eq!(header.decode(0xe000_0fff), Some((1, 0xfff)));
        assert_eq!(header.decode(0xe000_1000), None);
        assert_eq!(header.decode(0x2_e000_4004), Some((4, 4)));
    }

    #[test]
    fn capabilities_are_chained() {
        let mut header = header();
        assert_eq!(header.read(register::STATUS, 2) & 0x10, 0);
        let first = header.add_capability(0x11, &[0; 10]);
        let second = header.add_capability(0x09, &[0; 14]);
        assert_eq!((first, second), (0x40, 0x4c));
        assert_eq!(header.read(register::CAPABILITIES, 1), 0x40);
        assert_eq!(header.read(first, 2), 0x4c11);
        assert_eq!(header.read(second, 2), 0x0009);
        assert_eq!(header.read(register::STATUS, 2) & 0x10, 0x10);
    }
}
