//! What TDINFO must hold: the part of a TD's report that says how the TD was built and what it has measured since (TDINFO_STRUCT of the TDX
//! module; `tdx::report` has its layout).

use crate::comparison::ImageMeasurement;
use crate::hex::{Hex, Sha384Hex};
use crate::manifest::{ConfigurationEntry, Masked, ModelEntry, MrtdEntry};

const ZERO: Sha384Hex = Hex([0; 48]);

/// TDINFO of a TD before it exists, as far as files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedTdInfo {
    /// Condition on ATTRIBUTES.
    pub attributes: Masked,
    /// Condition on XFAM.
    pub xfam: Masked,
    /// MRTD, by kind of host.
    pub mrtd: MrtdEntry,
    /// MRCONFIGID: zero, or the configuration's digest if the host announces it.
    pub mr_config_id: [Sha384Hex; 2],
    /// MROWNER: zero.
    pub mr_owner: Sha384Hex,
    /// MROWNERCONFIG: zero.
    pub mr_owner_config: Sha384Hex,
    /// RTMR[0]: zero.
    pub rtmr0: Sha384Hex,
    /// RTMR[1]: zero.
    pub rtmr1: Sha384Hex,
    /// RTMR[2]: the configuration.
    pub rtmr2: Sha384Hex,
    /// RTMR[3]: the model; `None` where it is not known.
    pub rtmr3: Option<Sha384Hex>,
    /// SERVTD_HASH: zero.
    pub servtd_hash: Sha384Hex,
}

impl ExpectedTdInfo {
    /// Of a TD that is started from this image, with this configuration and this model.
    pub fn new(
        image: &ImageMeasurement,
        configuration: &ConfigurationEntry,
        model: Option<&ModelEntry>,
    ) -> Self {
        Self {
            attributes: Masked::ATTRIBUTES,
            xfam: Masked::XFAM,
            mrtd: image.mrtd,
            mr_config_id: [ZERO, configuration.digest],
            mr_owner: ZERO,
            mr_owner_config: ZERO,
            rtmr0: ZERO,
            rtmr1: ZERO,
            rtmr2: configuration.rtmr2,
            rtmr3: model.map(|model| model.rtmr3),
            servtd_hash: ZERO,
        }
    }
}
