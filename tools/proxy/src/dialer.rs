//! The seam to verification: whoever opens connections, judges them first.

use core::fmt;

use client::{Address, Error, Proof, Session, Term};
use verifier::Report;

/// Opens connections to servers and judges what they show.
pub trait Dialer: Send + Sync {
    /// Opens a connection, verifies its evidence, and has it confirmed on the connection itself. Nothing of a prompt is sent.
    ///
    /// # Errors
    /// There is no connection, or it must not be used.
    fn dial(&self, address: &Address) -> Result<Dialed, Refusal>;

    /// The modes in force that make a verdict worth less. Every answer carries them.
    fn weaker_modes(&self) -> &[WeakerMode];
}

/// A connection that may be used, and why.
pub struct Dialed {
    pub session: Session,
    pub shown: Shown,
}

/// What a server showed on a connection.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The judgements of its certificate and of its fresh evidence; none if none was asked for.
    pub reports: Vec<Report>,
    /// SHA-384 of its certificate: connections to one server that show another are from before or after a change of keys.
    pub certificate: Option<[u8; 48]>,
    /// How long that holds.
    pub term: Option<Term>,
}

impl From<&Proof> for Shown {
    fn from(proof: &Proof) -> Self {
        Self {
            reports: proof.reports.clone(),
            certificate: Some(proof.evidence.certificate),
            term: Some(proof.term()),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Refusal {
    /// Nobody is there, or what is there does not speak the protocol.
    Connection(Error),
    /// Somebody is there, and is not to be trusted; the last report says why.
    Evidence(Vec<Report>),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Untrusted(reports) => Self::Evidence(reports),
            error => Self::Connection(error),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Evidence(reports) => {
                let Some(report) = reports.last() else {
                    return f.write_str("no evidence");
                };
                write!(f, "{}", report.verdict)?;
                if let Some(code) = report.findings.first() {
                    write!(f, " ({})", code.name())?;
                }
                match report.deciding() {
                    Some(check) => write!(f, ": {check}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Something that makes a verdict worth less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakerMode {
    /// Servers without any evidence are accepted.
    InsecureNoTee,
    /// Evidence may end at a root that is not Intel's.
    TestRoot,
}

impl WeakerMode {
    /// The option that brought it about, without its dashes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InsecureNoTee => "insecure-no-tee",
            Self::TestRoot => "test-root",
        }
    }
}
