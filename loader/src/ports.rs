//! Port I/O, only to the three devices that the loader knows: COM1 and, outside a TD, QEMU's fw_cfg selector and data.

use core::arch::asm;

use tdx::Hardware;
use tdx::hypercall::{self, Width};

const COM1: core::ops::RangeInclusive<u16> = 0x3f8..=0x3ff;
/// Selects a fw_cfg item.
pub const FW_CFG_SELECTOR: u16 = 0x510;
/// Gives the item's bytes one after the other.
pub const FW_CFG_DATA: u16 = 0x511;

/// How this machine reaches ports.
#[derive(Clone, Copy)]
pub enum Ports {
    /// By instructions.
    Plain,
    /// By hypercalls.
    TrustDomain(Hardware),
}

impl Ports {
    /// Reads a byte; 0xFF, like a missing device, from any other port.
    pub fn in8(self, port: u16) -> u8 {
        if !COM1.contains(&port) && port != FW_CFG_DATA {
            return 0xff;
        }
        match self {
            Self::Plain => {
                let value;
                // SAFETY: reading from COM1 or fw_cfg changes nothing but these devices' own state.
                unsafe {
                    asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
                }
                value
            }
            Self::TrustDomain(tdcall) => {
                hypercall::read_port(&tdcall, port, Width::Byte).unwrap_or(0xff) as u8
            }
        }
    }

    /// Writes a byte to COM1, nowhere else.
    pub fn out8(self, port: u16, value: u8) {
        if !COM1.contains(&port) {
            return;
        }
        match self {
            // SAFETY: writing to COM1 has no effect but on the serial line.
            Self::Plain => unsafe {
                asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
            },
            Self::TrustDomain(tdcall) => {
                // A host that refuses the byte does not get to see it.
                let _ = hypercall::write_port(&tdcall, port, Width::Byte, u32::from(value));
            }
        }
    }
}

/// Selects a fw_cfg item, outside a TD.
pub fn select(item: u16) {
    // SAFETY: the selector only decides what the data port gives.
    unsafe {
        asm!("out dx, ax", in("dx") FW_CFG_SELECTOR, in("ax") item, options(nomem, nostack, preserves_flags))
    }
}
