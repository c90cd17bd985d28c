//! What vouches for this machine: the trust domain as the server sees it, and the registers in which configuration and model are measured.
//! Outside a trust domain nothing vouches, and measuring does nothing.

use core::fmt;

use alloc::boxed::Box;
use alloc::vec::Vec;

use attestation::events::{ModelIdentity, configuration_digest, model_digest};
use attestation::fingerprint::Registers;
use attestation::report_data::ReportData;
use attestation::{Sha384, sha384};
use machine::clock;
use machine::measurement::{ConfigurationRegister, ModelRegister};
use machine::platform;
use machine::println;
use machine::quote::{QuoteError, Quoter};
use machine::virtio::{ArenaFull, SharedArena};
use tdx::status;

/// Everything that vouches.
pub struct Evidence {
    domain: Option<TrustDomain>,
    register: ConfigurationRegister,
}

/// Why configuration or model could not be measured: the machine must not serve.
#[derive(Debug)]
pub enum MeasureError {
    /// The TDX module refuses.
    Module(status::Error),
    /// It gives no report.
    Report(QuoteError),
    /// The host set MRCONFIGID, and it is not the digest of this configuration.
    ConfigId,
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(error) => write!(f, "cannot extend a measurement register: {error}"),
            Self::Report(error) => write!(f, "cannot read the measurement registers: {error}"),
            Self::ConfigId => f.write_str("MRCONFIGID is not the digest of the configuration"),
        }
    }
}

impl Evidence {
    /// Finds out what vouches for this machine. `executable` is the guest as the loader copied it.
    ///
    /// # Errors
    /// The arena has no room for quotes.
    ///
    /// # Safety
    /// Once per boot.
    pub unsafe fn of_machine(
        executable: &[u8],
        arena: &mut SharedArena,
    ) -> Result<Self, ArenaFull> {
        let domain = platform::trust_domain().map(|domain| {
            Ok(TrustDomain {
                quoter: Quoter::new(domain, arena, clock::now)?,
                compile: sha384(executable),
                failure: None,
            })
        });
        Ok(Self {
            domain: domain.transpose()?,
            // SAFETY: the caller's promise.
            register: unsafe { ConfigurationRegister::of_machine() },
        })
    }

    /// Measures the configuration. What is left is the trust domain, and the right to measure one model.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn configure(
        self,
        canonical: &str,
    ) -> Result<(Option<Box<dyn server::TrustDomain>>, ModelRegister), MeasureError> {
        let digest = configuration_digest(canonical.as_bytes());
        if let Some(domain) = &self.domain {
            let report = domain.quoter.report(&[0; 64]);
            let chosen = report.map_err(MeasureError::Report)?.td.mr_config_id;
            if chosen != [0; 48] && chosen != digest {
                return Err(MeasureError::ConfigId);
            }
        }
        let register = self
            .register
            .extend(&digest)
            .map_err(MeasureError::Module)?;
        let domain = self.domain.map(|domain| Box::new(domain) as _);
        Ok((domain, register))
    }
}

/// Measures the model.
///
/// # Errors
/// The TDX module refuses.
pub fn measure(register: ModelRegister, model: &ModelIdentity) -> Result<(), MeasureError> {
    register
        .extend(&model_digest(model))
        .map_err(MeasureError::Module)
}

/// The trust domain this is.
struct TrustDomain {
    quoter: Quoter,
    compile: Sha384,
    /// Why there was no quote when one was last wanted.
    failure: Option<QuoteError>,
}

impl server::TrustDomain for TrustDomain {
    fn compile(&self) -> Sha384 {
        self.compile
    }

    fn registers(&mut self) -> Result<Registers, server::QuoteError> {
        let report = self.quoter.report(&[0; 64]);
        let report = report.map_err(|error| self.failed(error))?;
        Ok(Registers {
            mrtd: report.td.mr_td,
            rtmr: report.td.rtmr,
        })
    }

    fn start_quote(&mut self, report_data: &ReportData) -> Result<(), server::QuoteError> {
        let started = self.quoter.start(report_data.as_bytes());
        started.map_err(|error| self.failed(error))
    }

    fn poll_quote(&mut self) -> Option<Result<Vec<u8>, server::QuoteError>> {
        let outcome = self.quoter.poll()?;
        if outcome.is_ok() {
            self.failure = None;
        }
        Some(outcome.map_err(|error| self.failed(error)))
    }
}

impl TrustDomain {
    /// What clients are told of a failure. The console gets all of it, once: the server tries again and again.
    fn failed(&mut self, error: QuoteError) -> server::QuoteError {
        if self.failure.replace(error) != Some(error) {
            println!("vitrine: no quote: {error}");
        }
        match error {
            QuoteError::Refused(_) | QuoteError::Service(_) => server::QuoteError::Unavailable,
            QuoteError::Timeout => server::QuoteError::Timeout,
            QuoteError::NotOurs(_) => server::QuoteError::NotOurs,
            QuoteError::Busy | QuoteError::Report(_) => server::QuoteError::Failed,
        }
    }
}
