//! Everything a verifier is shown, described before it is signed, so that a test changes exactly one thing.

use tdx::report::TdReport;

use crate::enclave::unsigned;
use crate::{Collateral, Error, QeIdentity, Quote, QuoteFormat, Revoked, TcbInfo, TestPki};

/// Evidence about to be made. All of it is sound until something is changed.
pub struct Scenario<'a> {
    pub pki: &'a TestPki,
    /// When everything is issued and shown, seconds since 1970.
    pub now: u64,
    /// What the TDX module reports, and the quote therefore says.
    pub report: TdReport,
    pub format: QuoteFormat,
    /// The PCK chain in the quote, PEM.
    pub chain: String,
    /// Changes the quote before it is signed: what a quoting enclave gone wrong would sign.
    pub before_signing: fn(&mut Quote),
    /// Changes the quote after it is signed: what an attacker on the way does.
    pub after_signing: fn(&mut Quote),
    /// An attestation key (`x ‖ y`) that the PCK vouches for though another one signs.
    pub vouched_key: Option<[u8; 64]>,
    pub tcb_info: TcbInfo,
    pub qe_identity: QeIdentity,
    pub revoked: Vec<Revoked>,
}

/// What a verifier is shown.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub quote: Vec<u8>,
    pub collateral: Collateral,
    /// The trust anchor under which it is to be judged, DER.
    pub root: Vec<u8>,
    /// When it is to be judged, seconds since 1970.
    pub now: u64,
}

impl<'a> Scenario<'a> {
    pub(crate) fn new(pki: &'a TestPki, now: u64) -> Result<Self, Error> {
        Ok(Self {
            pki,
            now,
            report: pki.platform().report(),
            format: QuoteFormat::V4,
            chain: pki.pck_chain(),
            before_signing: |_| {},
            after_signing: |_| {},
            vouched_key: None,
            tcb_info: TcbInfo::new(pki.platform(), now)?,
            qe_identity: QeIdentity::new(pki.platform(), now)?,
            revoked: Vec::new(),
        })
    }

    /// Makes and signs everything.
    pub fn build(self) -> Result<Evidence, Error> {
        let keys = &self.pki.keys;
        let mut quote = unsigned(self.pki, &self.report, self.format, &self.chain);
        (self.before_signing)(&mut quote);
        quote.sign(&keys.attestation, &keys.pck)?;
        if let Some(key) = self.vouched_key {
            quote.vouch(key, &keys.pck)?;
        }
        (self.after_signing)(&mut quote);
        let collateral = Collateral::sign(
            self.pki,
            &self.tcb_info,
            &self.qe_identity,
            &self.revoked,
            self.now,
        )?;
        Ok(Evidence {
            quote: quote.to_bytes(),
            collateral,
            root: self.pki.root_der(),
            now: self.now,
        })
    }
}
