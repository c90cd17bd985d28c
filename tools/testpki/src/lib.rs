//! A public-key infrastructure of the shape of Intel's for SGX and TDX, and a quoting enclave whose quotes it certifies.
//!
//! The TD emulator attests with it, and the verifier's tests take evidence from it: sound evidence, and every defect of the
//! attack catalogue. Nothing accepts such evidence without being told this PKI's root certificate. Its names say "Vitrine Test".
//!
//! * [`TestPki`]: root → platform CA → PCK, root → TCB signing; kept in a directory or made anew.
//! * [`Platform::report`] and [`authenticate`]: TDREPORTs as its TDX module makes them.
//! * [`QuotingEnclave`]: checks a TDREPORT as the real one does, then signs a quote.
//! * [`Collateral`]: CRLs, TCB info and QE identity in the JSON form of `dcap-qvl` (`QuoteCollateralV3`).
//! * [`Scenario`]: everything a verifier is shown, open to change before and after it is signed.
//! * [`catalogue`]: the attacks on it, by name.
//! * [`qgs`]: the messages by which QEMU asks a quote generation service.
//!
//! Layouts: Intel's DCAP sources (`sgx_quote_4.h`, `sgx_quote_5.h`) and the PCK certificate profile, as read from genuine quotes.

#![forbid(unsafe_code)]

pub mod catalogue;
mod certificate;
mod collateral;
mod enclave;
mod error;
mod key;
mod pck_extension;
mod pki;
mod platform;
pub mod qgs;
mod quote;
mod report;
mod scenario;
mod store;
mod tcb;

pub use collateral::{Collateral, Revoked};
pub use enclave::{QuoteFormat, QuotingEnclave, QuotingError};
pub use error::Error;
pub use key::Key;
pub use pki::TestPki;
pub use platform::Platform;
pub use quote::{Lengths, Quote, QuoteBody};
pub use report::{authenticate, is_authentic};
pub use scenario::{Evidence, Scenario};
pub use tcb::{
    Level, Module, ModuleIdentity, ModuleSvn, QeIdentity, QeSvn, Status, Svn, Svns, TcbInfo,
    rfc3339,
};
