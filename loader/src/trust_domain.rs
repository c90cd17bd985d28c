//! What only a TD's boot does: check what the TDX module says, believe the host's memory map as far as `hob.rs` checks it, accept the memory that
//! boot needs, and give the host its window.

use core::fmt;

use loader::handoff::Span;
use loader::hob::{self, HobError};
use loader::layout;
use loader::memory::MemoryRange;
use tdx::accept::{self, RangeError};
use tdx::address::{AddressWidth, WidthError};
use tdx::hypercall::{self, HostError};
use tdx::report::Attributes;
use tdx::{Hardware, leaf, status};

use crate::machine;

/// Why this TD is not one to start in.
pub enum TrustDomainError {
    Module(status::Error),
    Width(WidthError),
    /// The register at reset and the module do not agree.
    Widths(u64, u64),
    /// The CPU that boots is not number 0.
    Index(u32),
    /// The host can read everything.
    Debug,
    /// The host could have the program run into memory that was never accepted without the TD's end.
    SeptVeEnabled,
    HandOff(HobError),
    Accept(RangeError),
    Share(HostError),
}

impl fmt::Display for TrustDomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(error) => error.fmt(f),
            Self::Width(error) => error.fmt(f),
            Self::Widths(reset, module) => write!(
                f,
                "addresses have {reset} bits at reset and {module} by the TDX module"
            ),
            Self::Index(index) => write!(f, "booting on virtual CPU {index}"),
            Self::Debug => f.write_str("the TD has the DEBUG attribute"),
            Self::SeptVeEnabled => f.write_str("the TD lacks the SEPT_VE_DISABLE attribute"),
            Self::HandOff(error) => error.fmt(f),
            Self::Accept(error) => error.fmt(f),
            Self::Share(error) => error.fmt(f),
        }
    }
}

/// A TD that was checked.
#[derive(Clone, Copy)]
pub struct TrustDomain {
    pub tdcall: Hardware,
    pub width: AddressWidth,
}

impl TrustDomain {
    /// Checks what the module says about this TD, and `address_bits`, the register at reset, against it.
    pub fn check(tdcall: Hardware, address_bits: u64) -> Result<Self, TrustDomainError> {
        let info = leaf::vp_info(&tdcall).map_err(TrustDomainError::Module)?;
        if info.index != 0 {
            return Err(TrustDomainError::Index(info.index));
        }
        if info.address_bits != address_bits {
            return Err(TrustDomainError::Widths(address_bits, info.address_bits));
        }
        let width = AddressWidth::new(address_bits).map_err(TrustDomainError::Width)?;
        if info.attributes.contains(Attributes::DEBUG) {
            return Err(TrustDomainError::Debug);
        }
        if !info.attributes.contains(Attributes::SEPT_VE_DISABLE) {
            return Err(TrustDomainError::SeptVeEnabled);
        }
        Ok(Self { tdcall, width })
    }

    /// The RAM that the host says there is.
    pub fn ram(&self) -> Result<hob::Ram, TrustDomainError> {
        hob::parse(machine::hand_off_block(), self.width).map_err(TrustDomainError::HandOff)
    }

    /// Accepts the RAM that boot needs.
    pub fn accept(&self, memory: &[MemoryRange]) -> Result<(), TrustDomainError> {
        for MemoryRange { span, .. } in memory
            .iter()
            .filter(|range| range.usage.is_accepted_by_loader())
        {
            // SAFETY: the memory map has these ranges for the guest, its stack, its tables and its heap, none of which is in use yet.
            unsafe { accept::accept(&self.tdcall, span.start, span.end()) }
                .map_err(TrustDomainError::Accept)?;
        }
        Ok(())
    }

    /// Converts the memory that devices see to shared memory, once and for all. It was never accepted.
    pub fn share_window(&self) -> Result<(), TrustDomainError> {
        let Span { start, length } = Span {
            start: layout::SHARED,
            length: layout::SHARED_SIZE,
        };
        // SAFETY: the memory map keeps these pages for this purpose.
        unsafe { hypercall::share(&self.tdcall, self.width.share(start), length) }
            .map_err(TrustDomainError::Share)
    }

    /// Asks the host to end the TD.
    pub fn stop(tdcall: Hardware) -> ! {
        loop {
            hypercall::report_fatal_error(&tdcall, "vitrine: the loader stopped; see the console");
            core::hint::spin_loop();
        }
    }
}
