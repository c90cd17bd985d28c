//! Evidence: what vouches for this machine, and how it reaches clients.
//!
//! A [`TrustDomain`] has quotes made; outside one there is none, and everything here works without. The [`Attestor`] keeps the
//! certificate current and answers challenges, one quote at a time, while connections go on.

mod attestor;

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use attestation::{Sha384, fingerprint::Registers, report_data::ReportData};
use rustls::sign::CertifiedKey;
use serde::Serialize;

pub(crate) use attestor::{Attestor, Peer, QueueFull, Statement, Ticket};

/// The trust domain as the server needs it.
///
/// One quote is made at a time: [`TrustDomain::poll_quote`] is called until it gives the outcome of one
/// [`TrustDomain::start_quote`] before the next is started. Neither waits.
pub trait TrustDomain {
    /// What runs here: MRTD and the RTMRs of this moment.
    ///
    /// # Errors
    /// The domain could not be asked.
    fn registers(&mut self) -> Result<Registers, QuoteError>;

    /// SHA-384 of the guest executable as the loader copied it.
    fn compile(&self) -> Sha384;

    /// Begins to have a quote made over `report_data` and the registers of this moment.
    ///
    /// # Errors
    /// It could not even begin.
    fn start_quote(&mut self, report_data: &ReportData) -> Result<(), QuoteError>;

    /// The quote, once it is there. The implementation has checked that it is this domain's and carries the REPORTDATA asked
    /// for, and gives up after a time: an error always comes.
    fn poll_quote(&mut self) -> Option<Result<Vec<u8>, QuoteError>>;
}

/// Why there is no quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteError {
    /// The host offers no quoting service, or it is down.
    Unavailable,
    /// The host did not answer in time.
    Timeout,
    /// The host's answer is not a quote of this domain over what was asked.
    NotOurs,
    /// The host's answer, or the TDX module's, was an error.
    Failed,
}

impl fmt::Display for QuoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the host's quoting service is not available",
            Self::Timeout => "the host's quoting service did not answer in time",
            Self::NotOurs => "the host returned a quote of something else",
            Self::Failed => "the quote was refused",
        })
    }
}

impl core::error::Error for QuoteError {}

/// What the evidence in the certificate for new connections is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// There is no trust domain.
    None,
    /// It is being made, or made anew because the model has come.
    Pending,
    /// It says what there is to say.
    Current,
    /// It could not be replaced in time.
    Expired,
}

/// The certificate connections are opened with for a while.
#[derive(Debug)]
pub(crate) struct Leaf {
    certified_key: Arc<CertifiedKey>,
    /// SHA-384 of the certificate in DER.
    certificate: Sha384,
    /// The trust fingerprint in its claims; None if it carries no evidence.
    fingerprint: Option<Sha384>,
    /// The public key: SubjectPublicKeyInfo in DER.
    public_key: Vec<u8>,
    /// When it ceases to be valid; monotonic time.
    end: Duration,
}

impl Leaf {
    /// The certificate and its key as rustls wants them.
    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified_key)
    }

    /// The certificate in DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        let chain = self.certified_key.cert.first();
        chain.map_or(&[], |certificate| certificate.as_ref())
    }

    /// The public key: SubjectPublicKeyInfo in DER.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
