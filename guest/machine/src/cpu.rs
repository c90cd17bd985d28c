//! What every CPU is switched to before it runs anything of ours: protections, and the vector registers the kernels use.
//!
//! On entry a CPU is in 64-bit mode with SSE on, as the loader left it. Everything follows CPUID; nothing is assumed about the model.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv, _xsetbv};

const CR4_UMIP: u64 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// State components of XCR0: x87, SSE, AVX, and the three of AVX-512.
const STATE_X87: u64 = 1 << 0;
const STATE_SSE: u64 = 1 << 1;
const STATE_AVX: u64 = 1 << 2;
const STATE_AVX512: u64 = 0b111 << 5;

/// Sets this CPU's CR4 and XCR0 to what CPUID offers and we use.
pub fn init() {
    let mut bits = 0;
    let features = __cpuid(1).ecx;
    let extended = if __cpuid(0).eax >= 7 {
        __cpuid_count(7, 0)
    } else {
        __cpuid_count(0, 0)
    };
    let has_extended = __cpuid(0).eax >= 7;
    let has_xsave = features & 1 << 26 != 0;
    for (present, bit) in [
        (has_xsave, CR4_OSXSAVE),
        (has_extended && extended.ebx & 1 << 7 != 0, CR4_SMEP),
        (has_extended && extended.ebx & 1 << 20 != 0, CR4_SMAP),
        (has_extended && extended.ecx & 1 << 2 != 0, CR4_UMIP),
    ] {
        if present {
            bits |= bit;
        }
    }
    // SAFETY: each bit is one that CPUID offers. There are no user pages that SMEP or SMAP could take away, and no user mode for UMIP.
    unsafe {
        asm!("mov {old}, cr4", "or {old}, {bits}", "mov cr4, {old}", old = out(reg) _, bits = in(reg) bits, options(nostack))
    }
    if has_xsave {
        // SAFETY: CR4.OSXSAVE is set, and the value is a valid combination of components that CPUID reports.
        unsafe { enable_state(wanted_state(supported_state())) }
    }
}

/// The state components that are switched on, as XCR0 holds them; 0 without XSAVE.
pub fn enabled_state() -> u64 {
    if __cpuid(1).ecx & 1 << 27 == 0 {
        return 0;
    }
    // SAFETY: CPUID says that the operating system (us) enabled XGETBV.
    unsafe { read_state() }
}

/// XCR0 for a CPU that supports the components in `supported`.
fn wanted_state(supported: u64) -> u64 {
    let mut state = STATE_X87 | STATE_SSE;
    if supported & STATE_AVX != 0 {
        state |= STATE_AVX;
        if supported & STATE_AVX512 == STATE_AVX512 {
            state |= STATE_AVX512;
        }
    }
    state
}

fn supported_state() -> u64 {
    let leaf = __cpuid_count(0xd, 0);
    u64::from(leaf.edx) << 32 | u64::from(leaf.eax)
}

#[target_feature(enable = "xsave")]
unsafe fn enable_state(state: u64) {
    // SAFETY: the caller chose components that exist and has set CR4.OSXSAVE.
    unsafe { _xsetbv(0, state) }
}

#[target_feature(enable = "xsave")]
unsafe fn read_state() -> u64 {
    // SAFETY: the caller checked that XGETBV is enabled.
    unsafe { _xgetbv(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn avx512_state_comes_whole_or_not_at_all() {
        assert_eq!(wanted_state(0), 0b11);
        assert_eq!(wanted_state(0b111), 0b111);
        assert_eq!(wanted_state(0b0110_0111), 0b111);
        assert_eq!(wanted_state(0b1110_0111), 0b1110_0111);
        assert_eq!(wanted_state(0b1110_0011), 0b11);
        assert_eq!(wanted_state(u64::MAX), 0b1110_0111);
    }
}
