//! Collateral: what a verifier needs besides the quote, in the JSON form of `dcap-qvl` (`QuoteCollateralV3`).

use serde::{Deserialize, Serialize};

use crate::tcb::VALID_SECONDS;
use crate::{Error, QeIdentity, TcbInfo, TestPki};

/// A year: how long the genuine root CRL is valid.
const ROOT_CRL_SECONDS: u64 = 365 * 24 * 3600;

/// A certificate that a revocation list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Pck,
    PlatformCa,
    TcbSigning,
}

/// Revocation lists, TCB info and QE identity with the chains of their signers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collateral {
    /// PEM: platform CA, root.
    pub pck_crl_issuer_chain: String,
    /// DER.
    #[serde(with = "hex::serde")]
    pub root_ca_crl: Vec<u8>,
    /// DER.
    #[serde(with = "hex::serde")]
    pub pck_crl: Vec<u8>,
    /// PEM: TCB signing, root.
    pub tcb_info_issuer_chain: String,
    /// JSON: the exact bytes that are signed.
    pub tcb_info: String,
    /// `r ‖ s`.
    #[serde(with = "hex::serde")]
    pub tcb_info_signature: Vec<u8>,
    /// PEM: TCB signing, root.
    pub qe_identity_issuer_chain: String,
    /// JSON: the exact bytes that are signed.
    pub qe_identity: String,
    /// `r ‖ s`.
    #[serde(with = "hex::serde")]
    pub qe_identity_signature: Vec<u8>,
}

impl Collateral {
    /// Collateral of `pki` for its platform, issued at `issued` (seconds since 1970) and valid for 30 days.
    pub fn issue(pki: &TestPki, issued: u64) -> Result<Self, Error> {
        let tcb_info = TcbInfo::new(pki.platform(), issued)?;
        let qe_identity = QeIdentity::new(pki.platform(), issued)?;
        Self::sign(pki, &tcb_info, &qe_identity, &[], issued)
    }

    /// Collateral of the given documents and revocations; the lists are dated `issued` (seconds since 1970).
    pub fn sign(
        pki: &TestPki,
        tcb_info: &TcbInfo,
        qe_identity: &QeIdentity,
        revoked: &[Revoked],
        issued: u64,
    ) -> Result<Self, Error> {
        let tcb_info = json(tcb_info);
        let qe_identity = json(qe_identity);
        Ok(Self {
            pck_crl_issuer_chain: pki.pck_crl_chain(),
            root_ca_crl: pki.root_crl(revoked, (issued, issued + ROOT_CRL_SECONDS))?,
            pck_crl: pki.pck_crl(revoked, (issued, issued + VALID_SECONDS))?,
            tcb_info_issuer_chain: pki.tcb_signing_chain(),
            tcb_info_signature: pki.sign_collateral(&tcb_info)?,
            tcb_info,
            qe_identity_issuer_chain: pki.tcb_signing_chain(),
            qe_identity_signature: pki.sign_collateral(&qe_identity)?,
            qe_identity,
        })
    }

    /// The bundle as JSON.
    pub fn to_json(&self) -> String {
        json(self)
    }
}

/// Structures of strings and numbers always have a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structures serialise")
}
