//! What only a TD's boot does: check what the TDX module says, believe the host's memory map as far as `hob.rs` checks it, accept the memory that
//! boot needs, and give the host its window.

use core::fmt;

use loader::handoff::Span;
use loader::hob::{self, HobError};
use loader::launch::{self, LaunchError};
use loader::layout;
use loader::memory::MemoryRange;
use tdx::accept::{self, RangeError};
use tdx::address::AddressWidth;
use tdx::hypercall::{self, HostError};
use tdx::{Hardware, leaf, status};

use crate::machine;

/// Why the guest cannot be started in this TD.
pub enum TrustDomainError {
    Module(status::Error),
    Launch(LaunchError),
    HandOff(HobError),
    Accept(RangeError),
    Share(HostError),
}

impl fmt::Display for TrustDomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(error) => error.fmt(f),
            Self::Launch(error) => error.fmt(f),
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
        let width = launch::check(&info, address_bits).map_err(TrustDomainError::Launch)?;
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
