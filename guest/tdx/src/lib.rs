//! The guest's side of the Intel TDX interfaces, defined once.
//!
//! - [`call`]: the two forms of the TDCALL instruction behind one trait, [`Tdcall`];
//! - [`leaf`]: calls that the TDX module answers, trustworthy as the processor is (TDX Module ABI specification);
//! - [`hypercall`]: calls that the module passes on to the host, whose answers are the host's word and nothing more (GHCI specification);
//! - [`status`]: what the module says about how a call went;
//! - [`address`]: guest-physical addresses, private and shared; [`accept`]: making private memory of ranges of them;
//! - [`report`], [`quote`]: the structures of attestation.
//!
//! Nothing here allocates or keeps state. The crate also serves programs that never run in a TD: an emulator, a verifier.
#![no_std]

#[cfg(any(test, feature = "fake"))]
extern crate std;

pub mod accept;
pub mod address;
pub mod call;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod hypercall;
pub mod leaf;
pub mod quote;
pub mod report;
pub mod status;

#[cfg(target_arch = "x86_64")]
pub use call::Hardware;
pub use call::Tdcall;
