//! The two run-time measurement registers that this program extends, each exactly once and in this order: what it was configured to do, then which
//! model it serves. The right to extend is a value that the extension consumes, so there is no second time, and none after the model.
//!
//! Outside a TD nothing measures, and extending does nothing.

use tdx::leaf::{self, Digest, Rtmr};
use tdx::status::Error;

use crate::platform;

/// The right to extend RTMR\[2\].
#[derive(Debug)]
pub struct ConfigurationRegister(());

/// The right to extend RTMR\[3\]. There is one once the configuration is measured.
#[derive(Debug)]
pub struct ModelRegister(());

impl ConfigurationRegister {
    /// The machine's.
    ///
    /// # Safety
    /// Once per boot.
    pub const unsafe fn of_machine() -> Self {
        Self(())
    }

    /// Extends RTMR\[2\] with the digest of the configuration.
    ///
    /// # Errors
    /// The TDX module refuses: the machine must not serve.
    pub fn extend(self, digest: &[u8; 48]) -> Result<ModelRegister, Error> {
        extend(Rtmr::Rtmr2, digest)?;
        Ok(ModelRegister(()))
    }
}

impl ModelRegister {
    /// Extends RTMR\[3\] with the digest of the model. Nothing can be extended afterwards.
    ///
    /// # Errors
    /// The TDX module refuses: the machine must not serve.
    pub fn extend(self, digest: &[u8; 48]) -> Result<(), Error> {
        extend(Rtmr::Rtmr3, digest)
    }
}

fn extend(register: Rtmr, digest: &[u8; 48]) -> Result<(), Error> {
    match platform::trust_domain() {
        Some(domain) => leaf::extend_rtmr(domain.tdcall(), register, &Digest(*digest)),
        None => Ok(()),
    }
}
