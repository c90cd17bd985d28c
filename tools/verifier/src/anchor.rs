//! Trust anchors: Intel's root, built in, or one for tests that the caller has to name.

use dcap_qvl::verify::QuoteVerifier;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _};

use crate::report::hex;

/// A certificate longer than this is none.
const MAX_ROOT: usize = 16 << 10;

/// Where chains must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor(Anchor);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Anchor {
    Intel,
    Test(Vec<u8>),
}

impl TrustAnchor {
    /// Intel SGX Root CA, the only anchor that means anything. It comes with the verification library.
    pub fn intel() -> Self {
        Self(Anchor::Intel)
    }

    /// A root for tests, PEM or DER: evidence under it proves nothing. `None` if it is not a certificate.
    pub fn test(file: &[u8]) -> Option<Self> {
        if file.len() > MAX_ROOT {
            return None;
        }
        let certificate = match file.starts_with(b"-----BEGIN") {
            true => Certificate::from_pem(file),
            false => Certificate::from_der(file),
        };
        Some(Self(Anchor::Test(certificate.ok()?.to_der().ok()?)))
    }

    /// What to call it.
    pub fn name(&self) -> String {
        match &self.0 {
            Anchor::Intel => "Intel SGX Root CA".into(),
            Anchor::Test(der) => {
                let digest = hex(&attestation::sha384(der)[..8]);
                format!("TEST ROOT {digest} (proves nothing)")
            }
        }
    }

    /// Whether it is one for tests.
    pub fn is_test(&self) -> bool {
        self.0 != Anchor::Intel
    }

    /// The verification library under this anchor. What it would refuse for reasons of policy is ours to judge.
    pub(crate) fn verifier(&self) -> QuoteVerifier {
        let verifier = match &self.0 {
            Anchor::Intel => QuoteVerifier::new_prod(),
            Anchor::Test(der) => QuoteVerifier::new(der.clone()),
        };
        verifier.allow_debug(true).allow_service_td(true)
    }
}
