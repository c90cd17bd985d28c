//! The quoting enclave: believes a TDREPORT only if this platform's module made it, then signs what it says.

use std::fmt;

use ring::{digest, hmac};

use crate::td::{REPORT_BYTES, at, mac_key};
use crate::{Error, Quote, QuoteBody, TestPki};

/// REPORTTYPE.TYPE of a TDREPORT.
const TDX: u8 = 0x81;
/// REPORTTYPE.SUBTYPE of a TDREPORT.
const TD: u8 = 0;
/// Highest REPORTTYPE.VERSION known here; 1 says that SERVTD_HASH is valid.
const LAST_VERSION: u8 = 1;

/// Which quote to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuoteFormat {
    /// Version 4 with the TD 1.0 body of 584 bytes.
    #[default]
    V4,
    /// Version 5 with the TD 1.0 body.
    V5Td10,
    /// Version 5 with the TD 1.5 body of 648 bytes: with the module's SVNs now, and the service TDs.
    V5Td15,
}

/// Why a TDREPORT is not quoted.
#[derive(Debug)]
pub enum QuotingError {
    /// Not 1024 bytes.
    Size(usize),
    /// REPORTTYPE.TYPE is not that of a TD.
    Type(u8),
    /// REPORTTYPE.SUBTYPE is unknown.
    Subtype(u8),
    /// REPORTTYPE.VERSION is unknown.
    Version(u8),
    /// This platform's module did not make it, or it was changed since.
    Mac,
    /// TEE_TCB_INFO is not what the authenticated hash says.
    TeeTcbInfoHash,
    /// TDINFO is not what the authenticated hash says.
    TdInfoHash,
    /// Signing failed.
    Signing(Error),
}

impl fmt::Display for QuotingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "a TDREPORT has {REPORT_BYTES} bytes, not {size}"),
            Self::Type(kind) => write!(f, "report type {kind:#x} is not a TD's ({TDX:#x})"),
            Self::Subtype(subtype) => write!(f, "TDREPORT subtype {subtype} is unknown"),
            Self::Version(version) => write!(f, "TDREPORT version {version} is unknown"),
            Self::Mac => f.write_str("the TDREPORT's MAC is not of this platform"),
            Self::TeeTcbInfoHash => {
                f.write_str("TEE_TCB_INFO differs from its hash in the TDREPORT")
            }
            Self::TdInfoHash => f.write_str("TDINFO differs from its hash in the TDREPORT"),
            Self::Signing(error) => write!(f, "cannot sign: {error}"),
        }
    }
}

impl std::error::Error for QuotingError {}

/// The quoting enclave of a platform.
#[derive(Clone, Copy)]
pub struct QuotingEnclave<'a> {
    pki: &'a TestPki,
}

impl<'a> QuotingEnclave<'a> {
    pub(crate) fn new(pki: &'a TestPki) -> Self {
        Self { pki }
    }

    /// Checks a TDREPORT and returns the bytes of the quote that says the same.
    pub fn quote(&self, report: &[u8], format: QuoteFormat) -> Result<Vec<u8>, QuotingError> {
        let report = self.check(report)?;
        let keys = &self.pki.keys;
        let mut quote = unsigned(self.pki, report, format, &self.pki.pck_chain());
        quote
            .sign(&keys.attestation, &keys.pck)
            .map_err(QuotingError::Signing)?;
        Ok(quote.to_bytes())
    }

    /// A TDREPORT that this platform's module made and nobody changed.
    fn check<'r>(&self, report: &'r [u8]) -> Result<&'r [u8; REPORT_BYTES], QuotingError> {
        let report: &[u8; REPORT_BYTES] = report
            .try_into()
            .map_err(|_| QuotingError::Size(report.len()))?;
        if report[at::TYPE] != TDX {
            return Err(QuotingError::Type(report[at::TYPE]));
        }
        if report[at::SUBTYPE] != TD {
            return Err(QuotingError::Subtype(report[at::SUBTYPE]));
        }
        if report[at::VERSION] > LAST_VERSION {
            return Err(QuotingError::Version(report[at::VERSION]));
        }
        let key = mac_key(&self.pki.keys.report);
        hmac::verify(&key, &report[at::AUTHENTICATED], &report[at::MAC])
            .map_err(|_| QuotingError::Mac)?;
        let hashes =
            |of, hash| digest::digest(&digest::SHA384, &report[of]).as_ref() == &report[hash];
        if !hashes(at::TEE_TCB_INFO, at::TEE_TCB_INFO_HASH) {
            return Err(QuotingError::TeeTcbInfoHash);
        }
        if !hashes(at::TD_INFO, at::TEE_INFO_HASH) {
            return Err(QuotingError::TdInfoHash);
        }
        Ok(report)
    }
}

/// The quote that says what `report` says, not signed yet.
pub(crate) fn unsigned(
    pki: &TestPki,
    report: &[u8; REPORT_BYTES],
    format: QuoteFormat,
    chain: &str,
) -> Quote {
    // TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM and SEAMATTRIBUTES lie together in both; so do ATTRIBUTES to RTMR3.
    let module = at::TEE_TCB_SVN.start..at::SEAM_ATTRIBUTES.end;
    let mut bytes = [
        &report[module],
        &report[at::TD_FIELDS],
        &report[at::REPORT_DATA],
    ]
    .concat();
    if format == QuoteFormat::V5Td15 {
        bytes.extend(&report[at::TEE_TCB_SVN_2]);
        bytes.extend(&report[at::SERVTD_HASH]);
    }
    let size = bytes.len() as u32;
    let (version, descriptor) = match format {
        QuoteFormat::V4 => (4, None),
        QuoteFormat::V5Td10 => (5, Some((2, size))),
        QuoteFormat::V5Td15 => (5, Some((3, size))),
    };
    let body = QuoteBody { descriptor, bytes };
    Quote::new(version, body, &pki.platform, chain)
}
