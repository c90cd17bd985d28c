//! REPORTDATA: the 64 bytes of a quote that its requester chooses.
//!
//! There is no way to choose them freely here: every value is a hash of something this crate built, under a domain string of its own, so
//! that no peer can have its bytes signed and no quote serves two purposes. A certificate's quote has the form that CCC Interoperable
//! RA-TLS prescribes, SHA-256 and zeros; its domain is the claims' own name, `vitrine.v1`.

use ring::digest::{SHA256, SHA512};

use crate::challenge::{Purpose, Root};
use crate::hash;
use crate::transcript::Transcript;

/// The value to request a quote for, or to find in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportData([u8; 64]);

impl ReportData {
    /// For the quote in a certificate: SHA-256 of the claims buffer, then 32 zero bytes.
    pub fn certificate(claims_buffer: &[u8]) -> Self {
        let mut value = [0; 64];
        value[..32].copy_from_slice(&hash::<32>(&SHA256, claims_buffer));
        Self(value)
    }

    /// For the quote that answers all the challenges under `root`: SHA-512 under the purpose's domain string.
    pub fn challenges(purpose: Purpose, root: &Root) -> Self {
        let domain = match purpose {
            Purpose::Session => "vitrine session report v1",
            Purpose::KeyRelease => "vitrine key release report v1",
        };
        Self(Transcript::new(&SHA512, domain).field(&root.0).finish())
    }

    /// The 64 bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}
