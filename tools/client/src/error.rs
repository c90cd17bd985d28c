//! What can go wrong between here and an answer.

use core::fmt;
use core::time::Duration;
use std::io;

use verifier::{Code, Report, Verdict};

use crate::address::Address;

/// A failed connection or request.
#[derive(Debug)]
pub enum Error {
    /// No connection to the address.
    Connect { address: Address, source: io::Error },
    /// The server shows no evidence that it runs in a trust domain, and the caller did not waive it.
    NoEvidence,
    /// The server's evidence is not good enough. The last report says why, and there is one more if it is the fresh one's.
    Untrusted(Vec<Report>),
    /// The system has no random numbers.
    Random,
    /// The TLS handshake or a record failed.
    Tls(rustls::Error),
    /// The connection broke.
    Io(io::Error),
    /// The server sent nothing for this long.
    Timeout(Duration),
    /// The server closed the connection before its answer was complete.
    Closed,
    /// The answer is not the protocol; the text says which rule it breaks.
    Protocol(&'static str),
    /// The path of a request is not one.
    Path,
    /// The answer's JSON is not what was asked for.
    Json(serde_json::Error),
    /// The server refused the request.
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's words, or the start of the body where it is not an API error.
        message: String,
        /// When the server suggests to try again, in seconds.
        retry_after: Option<u64>,
    },
}

impl Error {
    /// The request never got an answer: the network, the transport or TLS failed, not the server's judgement of the request.
    pub fn is_transport(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Tls(_)
            | Self::Io(_)
            | Self::Timeout(_)
            | Self::Closed
            | Self::Protocol(_)
            | Self::Json(_) => true,
            Self::NoEvidence
            | Self::Untrusted(_)
            | Self::Random
            | Self::Path
            | Self::Refused { .. } => false,
        }
    }

    /// An I/O error on an open connection, unwrapped to what caused it.
    pub(crate) fn from_io(error: io::Error, timeout: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Self::Timeout(timeout),
            io::ErrorKind::UnexpectedEof => return Self::Closed,
            _ => {}
        }
        match error.downcast::<rustls::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Io(error),
        }
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            Self::NoEvidence => write!(
                f,
                "the server shows no evidence of running in a trust domain, and nothing was sent: {}, {}",
                Verdict::NoEvidence,
                Code::EvidenceMissing
            ),
            Self::Untrusted(reports) => {
                f.write_str("the server is not trusted, and nothing was sent")?;
                let Some(report) = reports.last() else {
                    return Ok(());
                };
                write!(f, ": {}", report.verdict)?;
                for code in &report.findings {
                    write!(f, ", {}", code.name())?;
                }
                match report.deciding() {
                    Some(check) => write!(f, "\n{check}"),
                    None => Ok(()),
                }
            }
            Self::Random => f.write_str("the system has no random numbers"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Timeout(after) => write!(f, "no answer for {} s", after.as_secs_f32()),
            Self::Closed => write!(
                f,
                "the server closed the connection before its answer was complete"
            ),
            Self::Protocol(rule) => write!(f, "the server's answer breaks the protocol: {rule}"),
            Self::Path => f.write_str("the path of a request begins with / and has no blanks"),
            Self::Json(error) => write!(f, "the server's JSON is not understood: {error}"),
            Self::Refused {
                status,
                message,
                retry_after,
            } => {
                write!(f, "the server answered {status}: {message}")?;
                match retry_after {
                    Some(seconds) => write!(f, " (try again in {seconds} s)"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Connect { source, .. } => Some(source),
            Self::Tls(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::Json(error) => Some(error),
            _ => None,
        }
    }
}
