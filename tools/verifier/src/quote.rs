//! A quote as bytes from anywhere: its structure, checked before any parser sees it (Intel DCAP, `sgx_quote_4.h` and `sgx_quote_5.h`).
//!
//! The parser behind it is generous: it takes any outer certification data, ignores what follows and allocates what a length says. Here
//! every length has to fit exactly, and only zeros may follow, which some hosts pad with.

use dcap_qvl::quote::{Quote, TDReport10, TDReport15};

use crate::code::Code;

/// The longest quote with its padding.
pub const MAX_QUOTE: usize = attestation::MAX_QUOTE;

const HEADER: usize = 48;
const TDX: u32 = 0x81;
const ECDSA_P256: u16 = 2;
/// Intel's quoting enclaves.
const VENDOR: [u8; 16] = dcap_qvl::INTEL_QE_VENDOR_ID;
/// The report of TDX 1.0, the only one that version 4 has.
const TD_1_0: usize = 584;
/// Version 5: types and sizes of reports.
const BODIES: [(u16, usize); 3] = [(2, TD_1_0), (3, 648), (4, 885)];
/// Certification data that is a quoting enclave's report with its own certification data.
const QE_REPORT: u16 = 6;
/// Certification data that is a chain of certificates in PEM.
const PEM_CHAIN: u16 = 5;
/// The authentication data of every quoting enclave seen; the hash over it is of fixed length in the verification library.
const QE_AUTHENTICATION: usize = 32;

/// A quote of the right form. Nothing in it is true yet.
#[derive(Clone, Debug)]
pub struct UntrustedQuote {
    bytes: Vec<u8>,
    parsed: Quote,
}

impl UntrustedQuote {
    /// Checks the structure of a quote.
    ///
    /// # Errors
    /// What is wrong with it, a code of class platform.
    pub fn parse(bytes: &[u8]) -> Result<Self, Code> {
        if bytes.len() > MAX_QUOTE {
            return Err(Code::QuoteTooLarge);
        }
        check(bytes)?;
        let parsed = Quote::parse(bytes).map_err(|_| Code::QuoteMalformed)?;
        if parsed.report.as_td10().is_none() {
            return Err(Code::NotTdx);
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            parsed,
        })
    }

    /// The quote as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The family of processors, for which collateral is to be fetched: a claim of the certificate in the quote. `None` if it has no such
    /// certificate.
    pub fn fmspc(&self) -> Option<[u8; 6]> {
        let extension = dcap_qvl::intel::parse_pck_extension(&self.pck()?);
        extension.ok().map(|extension| extension.fmspc)
    }

    /// The authority that says it issued the platform's certificate: what the name of the issuer ends in. `None` if it has no certificate.
    pub fn pck_issuer(&self) -> Option<String> {
        use x509_cert::der::Decode as _;
        let certificate = x509_cert::Certificate::from_der(&self.pck()?).ok()?;
        Some(certificate.tbs_certificate().issuer().to_string())
    }

    /// The platform's certificate, DER.
    fn pck(&self) -> Option<Vec<u8>> {
        let mut chain = dcap_qvl::intel::extract_cert_chain(&self.parsed).ok()?;
        (!chain.is_empty()).then(|| chain.swap_remove(0))
    }

    pub(crate) fn parsed(&self) -> &Quote {
        &self.parsed
    }

    /// The report that every kind has.
    pub(crate) fn report(&self) -> &TDReport10 {
        self.parsed
            .report
            .as_td10()
            .expect("checked when it was parsed")
    }

    /// What TDX 1.5 adds.
    pub(crate) fn extension(&self) -> Option<&TDReport15> {
        self.parsed.report.as_td15()
    }
}

/// Checks everything that a length or a type says.
fn check(bytes: &[u8]) -> Result<(), Code> {
    let mut rest = Fields(bytes);
    let mut header = Fields(rest.take(HEADER)?);
    let version = header.u16()?;
    let key_type = header.u16()?;
    if header.u32()? != TDX {
        return Err(Code::NotTdx);
    }
    header.take(4)?;
    if key_type != ECDSA_P256 {
        return Err(Code::QuoteKeyType);
    }
    if header.take(16)? != VENDOR {
        return Err(Code::QuoteVendor);
    }
    match version {
        4 => rest.take(TD_1_0)?,
        5 => {
            let kind = (rest.u16()?, rest.u32()? as usize);
            if !BODIES.contains(&kind) {
                return Err(Code::QuoteBody);
            }
            rest.take(kind.1)?
        }
        _ => return Err(Code::QuoteVersion),
    };

    let length = rest.u32()? as usize;
    let mut signature = Fields(rest.take(length)?);
    if rest.0.iter().any(|&byte| byte != 0) {
        return Err(Code::QuoteTrailingBytes);
    }
    // The quote's signature and the attestation key.
    signature.take(64 + 64)?;
    let mut outer = signature.certification(QE_REPORT)?;
    signature.finish()?;
    // The quoting enclave's report and its signature.
    outer.take(384 + 64)?;
    let length = outer.u16()?.into();
    if length != QE_AUTHENTICATION {
        return Err(Code::QuoteMalformed);
    }
    outer.take(length)?;
    outer.certification(PEM_CHAIN)?;
    outer.finish()
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Code> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Code::QuoteMalformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Code> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Code> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Code> {
        self.take(N)?.try_into().map_err(|_| Code::QuoteMalformed)
    }

    /// Certification data of one type.
    fn certification(&mut self, kind: u16) -> Result<Self, Code> {
        if self.u16()? != kind {
            return Err(Code::CertificationData);
        }
        let length = self.u32()? as usize;
        Ok(Self(self.take(length)?))
    }

    fn finish(self) -> Result<(), Code> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Code::QuoteMalformed),
        }
    }
}
