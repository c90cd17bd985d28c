//! A server's certificate as bytes from anywhere: its key, its dates, and the one extension that carries evidence.
//!
//! Nothing here builds a path: the certificate is signed by its own key, and counts through its evidence alone.

use attestation::certificate::{EXTENSION_ID, Evidence, MAX_EXTENSION};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};

use crate::code::Code;

/// The longest certificate; TLS allows no longer message.
pub const MAX_CERTIFICATE: usize = 64 << 10;

/// A certificate file's DER, whether the file is DER or PEM.
///
/// # Errors
/// [`Code::CertificateTooLarge`] or [`Code::CertificateMalformed`].
pub fn certificate_der(file: &[u8]) -> Result<Vec<u8>, Code> {
    if file.len() > 2 * MAX_CERTIFICATE {
        return Err(Code::CertificateTooLarge);
    }
    if !file.starts_with(b"-----BEGIN") {
        return Ok(file.to_vec());
    }
    match x509_cert::der::pem::decode_vec(file) {
        Ok(("CERTIFICATE", der)) => Ok(der),
        _ => Err(Code::CertificateMalformed),
    }
}

const EVIDENCE: ObjectIdentifier = ObjectIdentifier::new_unwrap(EXTENSION_ID);
/// Evidence as other systems carry it: Gramine before 1.8, dstack, IETF CMW, Constellation and Contrast (`1.3.9900`, `1.3.9901`).
const FOREIGN: [&str; 5] = [
    "1.2.840.113741.1337.6",
    "1.3.6.1.4.1.62397.1",
    "1.3.6.1.5.5.7.1.35",
    "1.3.9900",
    "1.3.9901",
];
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A certificate of the right form with evidence of the right form. Nothing in it is true yet.
#[derive(Clone, Debug)]
pub struct UntrustedCertificate {
    /// SHA-384 of the certificate.
    digest: attestation::Sha384,
    /// SubjectPublicKeyInfo, DER.
    public_key: Vec<u8>,
    /// First and last second of validity.
    validity: (u64, u64),
    quote: Vec<u8>,
    claims_buffer: Vec<u8>,
}

impl UntrustedCertificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// What is wrong with it: a code of class binding, or [`Code::EvidenceMissing`].
    pub fn parse(der: &[u8]) -> Result<Self, Code> {
        if der.len() > MAX_CERTIFICATE {
            return Err(Code::CertificateTooLarge);
        }
        let certificate = Certificate::from_der(der).map_err(|_| Code::CertificateMalformed)?;
        let tbs = certificate.tbs_certificate();
        let public_key = tbs
            .subject_public_key_info()
            .to_der()
            .map_err(|_| Code::CertificateMalformed)?;
        let value = evidence(&certificate)?;
        check_signature(&certificate)?;
        let evidence = Evidence::decode(value).map_err(|_| Code::EvidenceMalformed)?;
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        Ok(Self {
            digest: attestation::sha384(der),
            public_key,
            validity: (
                seconds(tbs.validity().not_before),
                seconds(tbs.validity().not_after),
            ),
            quote: evidence.quote.to_vec(),
            claims_buffer: evidence.claims_buffer.to_vec(),
        })
    }

    /// SHA-384 of the certificate.
    pub fn digest(&self) -> &attestation::Sha384 {
        &self.digest
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// First and last second of validity.
    pub fn validity(&self) -> (u64, u64) {
        self.validity
    }

    /// The quote, not yet looked at.
    pub fn quote(&self) -> &[u8] {
        &self.quote
    }

    /// The encoded claims, not yet looked at.
    pub fn claims_buffer(&self) -> &[u8] {
        &self.claims_buffer
    }
}

/// The value of the one extension that carries evidence.
fn evidence(certificate: &Certificate) -> Result<&[u8], Code> {
    let extensions = certificate.tbs_certificate().extensions();
    let mut found = None;
    let mut foreign = false;
    for extension in extensions.into_iter().flatten() {
        if extension.extn_id == EVIDENCE {
            if found.replace(extension).is_some() {
                return Err(Code::EvidenceDuplicate);
            }
        } else {
            let id = extension.extn_id.to_string();
            foreign |= FOREIGN.iter().any(|&prefix| {
                id.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
        }
    }
    let extension = found.ok_or(match foreign {
        true => Code::EvidenceForeign,
        false => Code::EvidenceMissing,
    })?;
    if extension.critical {
        return Err(Code::EvidenceCritical);
    }
    let value = extension.extn_value.as_bytes();
    match value.len() <= MAX_EXTENSION {
        true => Ok(value),
        false => Err(Code::EvidenceMalformed),
    }
}

/// Checks that the certificate's own key signed it: nobody else can give the key other dates or names.
fn check_signature(certificate: &Certificate) -> Result<(), Code> {
    let tbs = certificate.tbs_certificate();
    let signed = || {
        let oid = certificate.signature_algorithm().oid;
        if oid != ECDSA_WITH_SHA256 {
            return None;
        }
        let key = tbs
            .subject_public_key_info()
            .subject_public_key
            .as_bytes()?;
        let message = tbs.to_der().ok()?;
        let signature = certificate.signature().as_bytes()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&message, signature)
            .ok()
    };
    signed().ok_or(Code::CertificateSignature)
}
