//! Port I/O, only to the three devices that the loader knows: COM1 and QEMU's fw_cfg selector and data.

use core::arch::asm;

const COM1: core::ops::RangeInclusive<u16> = 0x3f8..=0x3ff;
/// Selects a fw_cfg item.
pub const FW_CFG_SELECTOR: u16 = 0x510;
/// Gives the item's bytes one after the other.
pub const FW_CFG_DATA: u16 = 0x511;

/// Reads a byte; 0xFF, like a missing device, from any other port.
pub fn in8(port: u16) -> u8 {
    if !COM1.contains(&port) && port != FW_CFG_DATA {
        return 0xff;
    }
    let value;
    // SAFETY: reading from COM1 or fw_cfg changes nothing but these devices' own state.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Writes a byte to COM1, nowhere else.
pub fn out8(port: u16, value: u8) {
    if COM1.contains(&port) {
        // SAFETY: writing to COM1 has no effect but on the serial line.
        unsafe {
            asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
        }
    }
}

/// Selects a fw_cfg item.
pub fn select(item: u16) {
    // SAFETY: the selector only decides what the data port gives.
    unsafe {
        asm!("out dx, ax", in("dx") FW_CFG_SELECTOR, in("ax") item, options(nomem, nostack, preserves_flags))
    }
}
