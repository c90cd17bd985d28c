//! Collateral: what Intel publishes about a family of platforms, needed to judge a quote. Whoever supplies it is not trusted.

use core::fmt;

use dcap_qvl::{QeIdentity, QuoteCollateralV3, TcbInfo};

use crate::code::Code;
use crate::date;
use crate::policy_file::parse_hex;

/// The longest collateral file. Genuine ones have about 24 KB.
pub const MAX_COLLATERAL: usize = 128 << 10;

/// Collateral of the right form. Nothing in it is true yet.
#[derive(Clone)]
pub struct Collateral(QuoteCollateralV3);

impl Collateral {
    /// Reads the JSON form (`QuoteCollateralV3` of dcap-qvl).
    ///
    /// # Errors
    /// What is wrong with it, a code of class platform.
    pub fn parse(json: &[u8]) -> Result<Self, Code> {
        if json.len() > MAX_COLLATERAL {
            return Err(Code::CollateralTooLarge);
        }
        let mut collateral: QuoteCollateralV3 =
            serde_json::from_slice(json).map_err(|_| Code::CollateralMalformed)?;
        // The platform's certificates come with the quote; two sources would be one too many.
        collateral.pck_certificate_chain = None;
        Ok(Self(collateral))
    }

    /// What it says it is for, by which to choose among several; `None` if it does not say. Nothing of it is true yet.
    pub fn subject(&self) -> Option<Subject> {
        let tcb_info: TcbInfo = serde_json::from_str(&self.0.tcb_info).ok()?;
        let qe_identity: QeIdentity = serde_json::from_str(&self.0.qe_identity).ok()?;
        let issued = date::parse(&tcb_info.issue_date)?.max(date::parse(&qe_identity.issue_date)?);
        let expires =
            date::parse(&tcb_info.next_update)?.min(date::parse(&qe_identity.next_update)?);
        Some(Subject {
            fmspc: parse_hex(&tcb_info.fmspc)?,
            issued,
            expires,
        })
    }

    /// The documents.
    pub(crate) fn documents(&self) -> &QuoteCollateralV3 {
        &self.0
    }
}

/// What collateral says it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The family of processors.
    pub fmspc: [u8; 6],
    /// When the later of its documents was issued, seconds since 1970.
    pub issued: u64,
    /// When the earlier of them must be replaced, seconds since 1970.
    pub expires: u64,
}

impl fmt::Debug for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collateral")
    }
}
