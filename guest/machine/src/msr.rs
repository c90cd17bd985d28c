//! Model-specific registers. In a TD the processor keeps a few of them for the guest; for the others the host is asked.

use core::arch::asm;

use tdx::hypercall::{self, HostError};

use crate::{fatal, platform};

/// Base address of the GS segment.
pub const GS_BASE: u32 = 0xc000_0101;
/// The local APIC's register at offset `o` is the register `X2APIC + o / 16`.
pub const X2APIC: u32 = 0x800;

const TASK_PRIORITY: u32 = X2APIC + 0x8;
const END_OF_INTERRUPT: u32 = X2APIC + 0xb;

/// Whether the processor itself has the register in a TD, of those that this program uses (TDX module, MSR virtualization table).
const fn is_direct(register: u32) -> bool {
    matches!(register, GS_BASE | TASK_PRIORITY | END_OF_INTERRUPT)
}

/// Reads a register.
///
/// # Safety
/// The register must exist on this CPU.
pub unsafe fn read(register: u32) -> u64 {
    match platform::trust_domain() {
        Some(domain) if !is_direct(register) => hypercall::read_msr(domain.tdcall(), register)
            .unwrap_or_else(|error| refused(register, error)),
        _ => {
            let (low, high): (u32, u32);
            // SAFETY: the caller vouches for the register.
            unsafe {
                asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
            }
            u64::from(high) << 32 | u64::from(low)
        }
    }
}

/// Writes a register.
///
/// # Safety
/// The register must exist, take the value, and not break what the rest of the program relies on.
pub unsafe fn write(register: u32, value: u64) {
    match platform::trust_domain() {
        Some(domain) if !is_direct(register) => {
            hypercall::write_msr(domain.tdcall(), register, value)
                .unwrap_or_else(|error| refused(register, error));
        }
        // SAFETY: the caller vouches for the register and the value.
        _ => unsafe {
            asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
        },
    }
}

/// Without its interrupt controller the machine would sleep for ever: better to say why.
fn refused(register: u32, error: HostError) -> ! {
    fatal::stop(format_args!(
        "model-specific register {register:#x}: {error}"
    ))
}
