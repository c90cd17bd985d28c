//! Device registers in memory: plain loads and stores, which never meet RAM; hypercalls in a TD, where registers are not mapped at all.

use tdx::hypercall::{self, Width};

use crate::platform;

/// A number that a register can hold.
pub trait Register: Copy {
    /// Its size.
    const WIDTH: Width;
    /// Its value in the low bits of a 64-bit number.
    fn widen(self) -> u64;
    /// The number in the low bits of `value`.
    fn narrow(value: u64) -> Self;
}

macro_rules! register {
    ($type:ty, $width:ident) => {
        impl Register for $type {
            const WIDTH: Width = Width::$width;
            fn widen(self) -> u64 {
                u64::from(self)
            }
            fn narrow(value: u64) -> Self {
                value as Self
            }
        }
    };
}

register!(u8, Byte);
register!(u16, Word);
register!(u32, Double);

/// Reads the register at the physical address `address`; all ones, as from a missing device, if the host of a TD refuses.
///
/// # Safety
/// Outside a TD, a device's register must be mapped there, at the same virtual address, aligned to its size.
pub unsafe fn read<T: Register>(address: u64) -> T {
    match platform::trust_domain() {
        None => {
            // SAFETY: passed on from the caller.
            unsafe { pointer::<T>(address).read_volatile() }
        }
        Some(domain) => T::narrow(
            hypercall::read_register(domain.tdcall(), domain.share(address), T::WIDTH)
                .unwrap_or(u64::MAX),
        ),
    }
}

/// Writes the register at the physical address `address`; to nobody, if the host of a TD refuses.
///
/// # Safety
/// As for [`read`]; and the device must tolerate the write.
pub unsafe fn write<T: Register>(address: u64, value: T) {
    match platform::trust_domain() {
        None => {
            // SAFETY: passed on from the caller.
            unsafe { pointer::<T>(address).write_volatile(value) }
        }
        Some(domain) => {
            let address = domain.share(address);
            // A device that is not told does not act: whoever waits for it has a deadline.
            let _ = hypercall::write_register(domain.tdcall(), address, T::WIDTH, value.widen());
        }
    }
}

fn pointer<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(address as usize)
}
