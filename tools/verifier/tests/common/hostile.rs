//! What hostile bytes are put through, by the tests with the corpus and by `cargo xtask fuzz`.

use attestation::certificate::Evidence;
use attestation::challenge::Answer;
use attestation::claims::Claims;
use measurements::Manifest;
use verifier::{Policy, UntrustedCertificate};

/// Any bytes as claims: refused, or the only encoding of what they say.
pub fn claims(bytes: &[u8]) {
    if let Ok(claims) = Claims::decode(bytes) {
        assert_eq!(claims.encode(), bytes);
    }
}

/// Any bytes as a certificate, as the value of its extension, and as an answer to a challenge.
pub fn certificate(bytes: &[u8]) {
    let _ = UntrustedCertificate::parse(bytes);
    if let Ok(evidence) = Evidence::decode(bytes) {
        assert_eq!(evidence.encode(), bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode(), bytes);
    }
}

/// Any bytes as a policy: never one that says nothing.
pub fn policy(bytes: &[u8]) {
    let absent = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    if Policy::parse(bytes, absent).is_ok() {
        assert!(bytes.contains(&b'='));
    }
}

/// Any bytes as a manifest: refused, or the only spelling of what they say.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(manifest.encode().as_bytes(), bytes);
    }
}
