//! The quoting enclave: believes a TDREPORT only if this platform's module made it, then signs what it says.

use std::fmt;

use ring::hmac;
use tdx::report::{REPORT, ReportMac, TdReport};

use crate::report::{mac_key, sha384};
use crate::{Error, Quote, QuoteBody, TestPki};

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
            Self::Size(size) => write!(f, "a TDREPORT has {REPORT} bytes, not {size}"),
            Self::Type(kind) => write!(f, "report type {kind:#x} is not a TD's"),
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
        let report = &self.check(report)?;
        let keys = &self.pki.keys;
        let mut quote = unsigned(self.pki, report, format, &self.pki.pck_chain());
        quote
            .sign(&keys.attestation, &keys.pck)
            .map_err(QuotingError::Signing)?;
        Ok(quote.to_bytes())
    }

    /// A TDREPORT that this platform's module made and nobody changed.
    fn check(&self, bytes: &[u8]) -> Result<TdReport, QuotingError> {
        let bytes = bytes
            .try_into()
            .map_err(|_| QuotingError::Size(bytes.len()))?;
        let report = TdReport::from_bytes(bytes);
        let TdReport { mac, tcb, td, .. } = &report;
        if mac.tee_type != ReportMac::TDX {
            return Err(QuotingError::Type(mac.tee_type));
        }
        if mac.subtype != TD {
            return Err(QuotingError::Subtype(mac.subtype));
        }
        if mac.version > LAST_VERSION {
            return Err(QuotingError::Version(mac.version));
        }
        let key = mac_key(&self.pki.keys.report);
        hmac::verify(&key, report.authenticated_bytes(), &mac.mac)
            .map_err(|_| QuotingError::Mac)?;
        if mac.tee_tcb_info_hash != sha384(tcb.as_bytes()) {
            return Err(QuotingError::TeeTcbInfoHash);
        }
        if mac.tee_info_hash != sha384(td.as_bytes()) {
            return Err(QuotingError::TdInfoHash);
        }
        Ok(report)
    }
}

/// The quote that says what `report` says, not signed yet.
pub(crate) fn unsigned(
    pki: &TestPki,
    report: &TdReport,
    format: QuoteFormat,
    chain: &str,
) -> Quote {
    let TdReport { mac, tcb, td, .. } = report;
    let mut bytes = [
        &tcb.tee_tcb_svn[..],
        &tcb.mr_seam,
        &tcb.mr_signer_seam,
        &tcb.attributes,
        &td.attributes.0.to_le_bytes(),
        &td.xfam.to_le_bytes(),
        &td.mr_td,
        &td.mr_config_id,
        &td.mr_owner,
        &td.mr_owner_config,
        td.rtmr.as_flattened(),
        &mac.report_data,
    ]
    .concat();
    if format == QuoteFormat::V5Td15 {
        bytes.extend(tcb.tee_tcb_svn_2);
        bytes.extend(td.servtd_hash);
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
