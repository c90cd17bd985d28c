//! Configuration mechanism 1: an address written to port 0xCF8, a register read or written at 0xCFC.
//!
//! Used by one CPU only; needs no memory-mapped window to be programmed first.

use super::{Address, ConfigSpace};
use crate::port;

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// The two ports. There is one such pair in a machine: whoever holds this value owns it.
pub struct ConfigPorts(());

impl ConfigPorts {
    /// # Safety
    /// The caller runs in ring 0 on a machine with configuration mechanism 1, and nobody else uses ports 0xCF8 and
    /// 0xCFC while the value lives.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    fn select(&mut self, address: Address, offset: u8) {
        let selected = ENABLE
            | u32::from(address.device & 31) << 11
            | u32::from(address.function & 7) << 8
            | u32::from(offset & 0xfc);
        // SAFETY: by the contract of `new` this value owns the ports; selecting a register has no other effect.
        unsafe { port::out32(ADDRESS_PORT, selected) }
    }
}

impl ConfigSpace for ConfigPorts {
    fn read(&mut self, address: Address, offset: u8) -> u32 {
        self.select(address, offset);
        // SAFETY: as in `select`; configuration reads do not touch memory.
        unsafe { port::in32(DATA_PORT) }
    }

    fn write(&mut self, address: Address, offset: u8, value: u32) {
        self.select(address, offset);
        // SAFETY: as in `select`; what a function may do to memory is decided by the drivers, which enable bus
        // mastering only for devices whose rings they own.
        unsafe { port::out32(DATA_PORT, value) }
    }
}
