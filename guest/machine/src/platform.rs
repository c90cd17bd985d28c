//! What kind of machine this is: an ordinary one, or a TDX trust domain (TD). Decided once, at run time, by how the image was entered.
//!
//! In a TD the host plays every device, and an instruction that reaches for one would raise an exception. So the few modules that touch devices
//! ([`port`](crate::port), [`msr`](crate::msr), [`mmio`](crate::mmio), [`interrupts`](crate::interrupts), [`fatal`](crate::fatal)) ask here
//! first, and make a hypercall in its place. Whatever comes back is the host's word.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use loader::handoff::Mode;
use tdx::address::{AddressWidth, SharedAddress, WidthError};
use tdx::leaf::{self, VpInfo};
use tdx::{Hardware, status};

/// The width of a TD's addresses in bits; 0 outside a TD.
static ADDRESS_BITS: AtomicU64 = AtomicU64::new(0);

/// The TDX module says something that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformError {
    /// It refuses to describe the TD.
    Module(status::Error),
    /// It describes one that cannot exist.
    Width(WidthError),
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(error) => error.fmt(f),
            Self::Width(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PlatformError {}

/// The trust domain that this program runs in.
#[derive(Clone, Copy, Debug)]
pub struct TrustDomain {
    width: AddressWidth,
    tdcall: Hardware,
}

impl TrustDomain {
    /// The right to call the module and the host.
    pub const fn tdcall(&self) -> &Hardware {
        &self.tdcall
    }

    /// The width of guest-physical addresses.
    pub const fn width(&self) -> AddressWidth {
        self.width
    }

    /// The shared alias of a guest-physical address.
    pub const fn share(&self, address: u64) -> SharedAddress {
        self.width.share(address)
    }

    /// What the module says about this virtual CPU and the TD.
    ///
    /// # Errors
    /// [`PlatformError::Module`], which the module has no reason to give.
    pub fn info(&self) -> Result<VpInfo, PlatformError> {
        leaf::vp_info(&self.tdcall).map_err(PlatformError::Module)
    }
}

/// Learns what machine this is. Before anything that touches a device; on the boot processor, once.
///
/// # Errors
/// [`PlatformError`] if it is a TD that cannot be.
///
/// # Safety
/// `mode` must be true: the mode in which the loader was entered.
pub unsafe fn init(mode: Mode) -> Result<(), PlatformError> {
    if mode == Mode::TrustDomain {
        // SAFETY: this is a TD, by the caller's promise; the loader maps private memory at its own addresses.
        let info = leaf::vp_info(&unsafe { Hardware::new() }).map_err(PlatformError::Module)?;
        AddressWidth::new(info.address_bits).map_err(PlatformError::Width)?;
        ADDRESS_BITS.store(info.address_bits, Ordering::SeqCst);
    }
    Ok(())
}

/// The trust domain, if this is one.
pub fn trust_domain() -> Option<TrustDomain> {
    let width = AddressWidth::new(ADDRESS_BITS.load(Ordering::Relaxed)).ok()?;
    // SAFETY: the width is stored in a TD only.
    let tdcall = unsafe { Hardware::new() };
    Some(TrustDomain { width, tdcall })
}
