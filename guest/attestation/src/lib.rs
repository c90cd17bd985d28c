//! What a trust domain says about itself, and how that is bound to a quote. The domain encodes, its clients decode; both use this crate,
//! so that there is one definition of each.
//!
//! | module          | what it defines                                                                          |
//! |-----------------|------------------------------------------------------------------------------------------|
//! | [`claims`]      | the claims and their CBOR (`claims.cddl` in this folder)                                    |
//! | [`certificate`] | the certificate extension that carries a quote and the claims                             |
//! | [`challenge`]   | fresh evidence on an established connection                                               |
//! | [`provisioning`]| what a model's owner signs                                                               |
//! | [`report_data`] | the 64 bytes a quote is asked for: always a hash under a domain string of ours            |
//! | [`fingerprint`] | program, configuration, model and session key in one hash                                 |
//! | [`events`]      | the digests that extend RTMR\[2\] and RTMR\[3\]                                            |
//!
//! Hashes come from *ring*, which the server links anyhow. Signatures, quotes and certificates are other crates' business.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod cbor;
pub mod certificate;
pub mod challenge;
pub mod claims;
pub mod events;
pub mod fingerprint;
pub mod provisioning;
pub mod report_data;
mod transcript;

pub use cbor::DecodeError;

use ring::digest;

/// A SHA-384 digest.
pub type Sha384 = [u8; 48];
/// A SHA-256 digest.
pub type Sha256 = [u8; 32];

/// A quote is never longer. Genuine ones have about 5 KB; some hosts pad them to 8 000 bytes.
pub const MAX_QUOTE: usize = 16 << 10;

/// SHA-384 of some bytes: of a SubjectPublicKeyInfo, a certificate, an executable.
pub fn sha384(bytes: &[u8]) -> Sha384 {
    hash(&digest::SHA384, bytes)
}

/// The digest of some bytes. `algorithm` has `N` bytes of output.
fn hash<const N: usize>(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> [u8; N] {
    let mut digest = [0; N];
    digest.copy_from_slice(digest::digest(algorithm, bytes).as_ref());
    digest
}
