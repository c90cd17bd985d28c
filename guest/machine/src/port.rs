//! Port I/O of x86. Outside a TD these are plain instructions; a TD will need explicit hypercalls in their place, which is why
//! every port access of the guest goes through this module.

use core::arch::asm;

/// Writes one byte to `port`.
///
/// # Safety
/// The device behind `port` must tolerate the write: a port can start DMA or reset the machine.
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes 16 bits to `port`.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out16(port: u16, value: u16) {
    // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
    unsafe {
        asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
    }
}

/// Writes 32 bits to `port`.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
    }
}

/// Reads one byte from `port`.
///
/// # Safety
/// The device behind `port` must tolerate the read (reading can have side effects).
pub unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads 16 bits from `port`.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
    unsafe {
        asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Reads 32 bits from `port`.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
    }
    value
}
