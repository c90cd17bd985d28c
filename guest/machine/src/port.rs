//! Port I/O of x86: instructions, or hypercalls in a TD. Every port access of the guest goes through this module.

use core::arch::asm;

use tdx::hypercall::{self, Width};

use crate::platform::{self, TrustDomain};

/// Writes one byte to `port`.
///
/// # Safety
/// The device behind `port` must tolerate the write: a port can start DMA or reset the machine.
pub unsafe fn out8(port: u16, value: u8) {
    match platform::trust_domain() {
        // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
        None => unsafe {
            asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
        },
        Some(domain) => write(domain, port, Width::Byte, u32::from(value)),
    }
}

/// Writes 16 bits to `port`.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out16(port: u16, value: u16) {
    match platform::trust_domain() {
        // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
        None => unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
        },
        Some(domain) => write(domain, port, Width::Word, u32::from(value)),
    }
}

/// Writes 32 bits to `port`.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    match platform::trust_domain() {
        // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
        None => unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
        },
        Some(domain) => write(domain, port, Width::Double, value),
    }
}

/// Reads one byte from `port`.
///
/// # Safety
/// The device behind `port` must tolerate the read (reading can have side effects).
pub unsafe fn in8(port: u16) -> u8 {
    match platform::trust_domain() {
        None => {
            let value;
            // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
            unsafe {
                asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
            }
            value
        }
        Some(domain) => read(domain, port, Width::Byte) as u8,
    }
}

/// Reads 16 bits from `port`.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn in16(port: u16) -> u16 {
    match platform::trust_domain() {
        None => {
            let value;
            // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
            unsafe {
                asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags))
            }
            value
        }
        Some(domain) => read(domain, port, Width::Word) as u16,
    }
}

/// Reads 32 bits from `port`.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn in32(port: u16) -> u32 {
    match platform::trust_domain() {
        None => {
            let value;
            // SAFETY: the caller vouches for the device; the instruction itself touches no memory.
            unsafe {
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
            }
            value
        }
        Some(domain) => read(domain, port, Width::Double),
    }
}

/// All ones, as from a missing device, if the host refuses.
fn read(domain: TrustDomain, port: u16, width: Width) -> u32 {
    hypercall::read_port(domain.tdcall(), port, width).unwrap_or(u32::MAX)
}

/// A device that is not told does not act: whoever waits for it has a deadline.
fn write(domain: TrustDomain, port: u16, width: Width, value: u32) {
    let _ = hypercall::write_port(domain.tdcall(), port, width, value);
}
