//! The chain: from the trust anchor over certificates, collateral and the quoting enclave to the quote.
//!
//! `dcap-qvl` does the cryptography. It answers with words only, and it refuses some things at its very end that are a matter of policy here.
//! So its words are read in two places, [`STEPS`] and [`refused_by_attributes`]; its version is pinned exactly, the catalogue's tests
//! provoke every one of them, and words that are not known mean that the chain does not hold.

use dcap_qvl::{QuotePolicy, TcbInfo};

use crate::anchor::TrustAnchor;
use crate::code::Code;
use crate::collateral::Collateral;
use crate::platform::Platform;
use crate::quote::UntrustedQuote;

/// A chain that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub code: Code,
    /// Words for a person.
    pub detail: String,
}

impl Broken {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

/// Verifies the chain at a time (seconds since 1970). The platform it returns is what the quote proves.
pub(crate) fn verify(
    quote: &UntrustedQuote,
    collateral: &Collateral,
    anchor: &TrustAnchor,
    now: u64,
) -> Result<Platform, Broken> {
    if collateral.documents().pck_crl.is_empty() || collateral.documents().root_ca_crl.is_empty() {
        return Err(Broken::new(
            Code::CrlInvalid,
            "a revocation list is missing",
        ));
    }
    let result = anchor.verifier().verify_with_policy(
        quote.bytes(),
        collateral.documents(),
        now,
        &QuotePolicy::claims_only(now),
    );
    let claims = match result {
        Ok(claims) => Some(claims),
        Err(error) if refused_by_attributes(&error.root_cause().to_string()) => None,
        Err(error) => {
            let words = format!("{error:#}");
            return Err(Broken::new(step(&words), words));
        }
    };
    // From here on the documents are Intel's and the report is the platform's.
    let platform = Platform::read(quote, collateral)?;
    if claims.is_some_and(|claims| claims.tcb.status != platform.status) {
        return Err(Broken::new(
            Code::TcbLevelUnmatched,
            "two evaluations of the TCB status differ",
        ));
    }
    Ok(platform)
}

/// Whether the library refuses for something that it looks at only after every signature has been verified, and that policy decides here:
/// the TCB level's revocation, and attributes of the domain.
fn refused_by_attributes(cause: &str) -> bool {
    const WORDS: [&str; 5] = [
        "TCB status is invalid: Revoked",
        "Reserved bits in TD attributes are set",
        "TD migration is enabled",
        "SERVTD_EXT is enabled",
        "SEPT_VE_DISABLE is not enabled",
    ];
    WORDS.contains(&cause)
}

/// Words of the library, whole or in part, and the step they come from. The first that occurs counts.
const STEPS: &[(&str, Code)] = &[
    (
        "Failed to parse root CA CRL: InvalidCrlSignatureForPublicKey",
        Code::UntrustedRoot,
    ),
    ("Failed to parse root CA CRL", Code::CrlInvalid),
    ("Failed to parse PCK CRL", Code::CrlInvalid),
    ("InvalidCrlSignatureForPublicKey", Code::CrlInvalid),
    ("CrlExpired", Code::CrlExpired),
    ("UnknownRevocationStatus", Code::RevocationUnknown),
    ("CertRevoked", Code::CertificateRevoked),
    ("CertExpired", Code::ChainCertificateExpired),
    ("CertNotValidYet", Code::ChainCertificateExpired),
    ("UnknownIssuer", Code::UntrustedRoot),
    ("InvalidSignatureForPublicKey", Code::UntrustedRoot),
    ("TCBInfo expired", Code::CollateralExpired),
    ("QE Identity expired", Code::CollateralExpired),
    ("issue date is in the future", Code::CollateralNotYetValid),
    ("Signature is invalid for tcb_info", Code::TcbInfoSignature),
    (
        "Signature is invalid for qe_identity",
        Code::QeIdentitySignature,
    ),
    (
        "Signature is invalid for qe_report",
        Code::QeReportSignature,
    ),
    ("QE report hash mismatch", Code::AttestationKey),
    (
        "ISV enclave report signature is invalid",
        Code::QuoteSignature,
    ),
    ("Fmspc mismatch", Code::FmspcMismatch),
    ("non-TDX TCB info", Code::CollateralKind),
    ("Unsupported QE Identity id/version", Code::CollateralKind),
    ("No matching TCB level found", Code::TcbLevelUnmatched),
    ("No TDX module identity", Code::TcbLevelUnmatched),
    (
        "is below minimum required from TDX module TCB levels",
        Code::TcbLevelUnmatched,
    ),
    ("TDX module MRSIGNER mismatch", Code::ModuleMismatch),
    ("TDX module SEAMATTRIBUTES", Code::ModuleMismatch),
    ("QE MRSIGNER mismatch", Code::QeMismatch),
    ("QE report validation failed", Code::QeMismatch),
    ("QE ISVPRODID mismatch", Code::QeMismatch),
    ("QE MISCSELECT mismatch", Code::QeMismatch),
    ("QE ATTRIBUTES mismatch", Code::QeMismatch),
    ("Failed to decode TcbInfo", Code::CollateralMalformed),
    ("Failed to decode QeIdentity", Code::CollateralMalformed),
    ("Failed to parse TCB Info", Code::CollateralMalformed),
    ("Failed to parse QE Identity", Code::CollateralMalformed),
];

/// The step that refused.
fn step(words: &str) -> Code {
    STEPS
        .iter()
        .find(|(part, _)| words.contains(part))
        .map_or(Code::ChainInvalid, |(_, code)| *code)
}

/// TCB information for another provisioning enclave than the platform's is not for this platform; the library does not compare them.
pub(crate) fn check_pce(tcb_info: &TcbInfo, pce_id: &[u8]) -> Result<(), Broken> {
    let found = crate::report::hex(pce_id);
    match tcb_info.pce_id.eq_ignore_ascii_case(&found) {
        true => Ok(()),
        false => Err(Broken::new(
            Code::PceMismatch,
            format!(
                "TCB info is for PCEID {}, the platform has {found}",
                tcb_info.pce_id
            ),
        )),
    }
}
