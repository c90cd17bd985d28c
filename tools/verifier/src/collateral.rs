//! Collateral: what Intel publishes about a family of platforms, needed to judge a quote. Whoever supplies it is not trusted.

use core::fmt;

use dcap_qvl::QuoteCollateralV3;

use crate::code::Code;

/// The longest collateral file. Genuine ones have about 24 KB.
pub const MAX_COLLATERAL: usize = 256 << 10;

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

    /// The documents.
    pub(crate) fn documents(&self) -> &QuoteCollateralV3 {
        &self.0
    }
}

impl fmt::Debug for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collateral")
    }
}
