//! The two bridges that firmware recognises a q35 by (Intel 3 Series chipset and ICH9 datasheets): configuration space only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Function;
use super::header::{Header, Identity};

/// Intel's vendor identifier (PCI-SIG).
const INTEL: u16 = 0x8086;
/// Base of the memory-mapped configuration window: address bits 35:28, size in bits 2:1 (0: 256 MiB), enable in bit 0 (3 Series datasheet,
/// PCIEXBAR).
const PCIEXBAR: u8 = 0x60;
const PCIEXBAR_ENABLE: u32 = 1;
const PCIEXBAR_WRITABLE: u64 = 0x000f_f000_0000 | PCIEXBAR_ENABLE as u64;
const WINDOW: u64 = 256 << 20;
/// The rest of the chipset's registers (3 Series datasheet, host bridge: from DMIBAR on): firmware programs memory shadowing there, which means nothing here.
const HOST_REGISTERS: core::ops::Range<u8> = 0x68..0xf0;

/// Base of the power management ports: bits 15:7, with bit 0 always set (ICH9 datasheet, LPC interface: PMBASE, ACPI_CNTL).
const PMBASE: u8 = 0x40;
const PMBASE_WRITABLE: u16 = 0xff80;
const ACPI_CONTROL: u8 = 0x44;
const ACPI_ENABLE: u32 = 1 << 7;
const ISA_REGISTERS: core::ops::Range<u8> = 0x44..0xf8;

fn lock(header: &Mutex<Header>) -> MutexGuard<'_, Header> {
    header.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Device 0: the memory controller hub.
pub struct HostBridge(Mutex<Header>);

impl HostBridge {
    pub fn new() -> Self {
        let mut header = Header::new(Identity {
            vendor: INTEL,
            device: 0x29c0,
            revision: 0,
            class: [6, 0, 0],
            subsystem: [0x1af4, 0x1100],
        });
        header.allow(PCIEXBAR, &PCIEXBAR_WRITABLE.to_le_bytes());
        for register in HOST_REGISTERS {
            header.allow(register, &[0xff]);
        }
        Self(Mutex::new(header))
    }

    /// The offset of an address in the memory-mapped configuration window, while it is open.
    pub fn window_offset(&self, address: u64) -> Option<u64> {
        let header = lock(&self.0);
        let low = header.read(PCIEXBAR, 4);
        if low & PCIEXBAR_ENABLE == 0 {
            return None;
        }
        let base =
            u64::from(header.read(PCIEXBAR + 4, 4)) << 32 | u64::from(low & !PCIEXBAR_ENABLE);
        address.checked_sub(base).filter(|offset| *offset < WINDOW)
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for HostBridge {
    fn read_config(&self, offset: u8, size: u8) -> u32 {
        lock(&self.0).read(offset, size)
    }

    fn write_config(&self, offset: u8, size: u8, value: u32) {
        lock(&self.0).write(offset, size, value);
    }

    fn memory(&self, _: u64, _: u8, _: Option<u64>) -> Option<u64> {
        None
    }
}

/// Device 31 function 0: the bridge to the devices at fixed ports, which says where the power management ports are.
pub struct IsaBridge(Mutex<Header>);

impl IsaBridge {
    pub fn new() -> Self {
        let mut header = Header::new(Identity {
            vendor: INTEL,
            device: 0x2918,
            revision: 2,
            class: [6, 1, 0],
            subsystem: [0x1af4, 0x1100],
        });
        header.set(PMBASE, &[1]);
        header.allow(PMBASE, &PMBASE_WRITABLE.to_le_bytes());
        for register in ISA_REGISTERS {
            header.allow(register, &[0xff]);
        }
        Self(Mutex::new(header))
    }

    /// The offset of a port in the power management block, once software has placed it and switched it on.
    pub fn power_management(&self, port: u16) -> Option<u8> {
        let header = lock(&self.0);
        let on = header.read(ACPI_CONTROL, 1) & ACPI_ENABLE != 0;
        let base = header.read(PMBASE, 2) as u16 & PMBASE_WRITABLE;
        let offset = port
            .checked_sub(base)
            .filter(|offset| on && base != 0 && *offset < 0x80)?;
        u8::try_from(offset).ok()
    }
}

impl Default for IsaBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for IsaBridge {
    fn read_config(&self, offset: u8, size: u8) -> u32 {
        lock(&self.0).read(offset, size)
    }

    fn write_config(&self, offset: u8, size: u8, value: u32) {
        lock(&self.0).write(offset, size, value);
    }

    fn memory(&self, _: u64, _: u8, _: Option<u64>) -> Option<u64> {
        None
    }
}
