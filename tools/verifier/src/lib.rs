//! Judges the evidence of a trust domain. Bytes in, a [`Report`] out: no files, no network, no clock of its own.
//!
//! Evidence is judged in one order, and the first class with a finding decides the verdict; the other findings are listed:
//!
//! 1. the *chain*, from the trust anchor to the quote: is there a genuine, unrevoked platform behind it?
//! 2. the *binding*: do certificate, claims, registers and quote belong together?
//! 3. the *policy*: is it what the user accepts?
//!
//! What has not been judged has other types than what has: [`UntrustedQuote`] and [`UntrustedCertificate`] on one side,
//! [`VerifiedEvidence`] on the other, which only an accepting [`Verifier`] hands out. Sizes are capped before any parser runs.

#![forbid(unsafe_code)]

mod anchor;
mod binding;
mod certificate;
mod chain;
mod code;
mod collateral;
pub mod date;
mod endorsement;
mod fresh;
mod judge;
mod judge_platform;
mod platform;
pub mod policy;
mod policy_file;
mod quote;
mod release;
mod report;
mod verifier;

pub use anchor::TrustAnchor;
pub use certificate::{MAX_CERTIFICATE, UntrustedCertificate, certificate_der};
pub use code::{Class, Code};
pub use collateral::{Collateral, MAX_COLLATERAL, Subject};
pub use endorsement::{MAX_ENDORSEMENT, endorsed_key, endorsed_until};
pub use fresh::Connection;
pub use policy::{ManifestKey, ManifestSource, NewestReleases, Policy, PolicyError, Release};
pub use policy_file::{MAX_POLICY, parse_model_digest};
pub use quote::{MAX_QUOTE, UntrustedQuote};
pub use report::{Check, Outcome, Proved, Report, Verdict};
pub use verifier::{Scope, VerifiedEvidence, Verifier};
