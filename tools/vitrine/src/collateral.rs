//! Where collateral comes from: a file, a directory of files, or a service.

mod pcs;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use verifier::{Code, Collateral, MAX_COLLATERAL, UntrustedQuote};

use crate::failure::{Code as Exit, Failure};
use pcs::Service;

/// Intel's service.
pub const INTEL: &str = "https://api.trustedservices.intel.com";
/// A directory with more files than this is not one of collateral.
const MAX_FILES: usize = 1024;

/// Where collateral comes from, as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, or a directory of them.
    Path(PathBuf),
    /// A service that speaks Intel's PCS protocol, version 4.
    Url(String),
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(
            match text.starts_with("https://") || text.starts_with("http://") {
                true => Self::Url(text.trim_end_matches('/').to_owned()),
                false => Self::Path(text.into()),
            },
        )
    }
}

impl Source {
    /// Collateral for a quote at a time (seconds since 1970). What cannot be read as such is a finding, not a failure.
    ///
    /// # Errors
    /// When a file cannot be read, or a service does not answer.
    pub fn collateral(&self, quote: &[u8], now: u64) -> Result<Result<Collateral, Code>, Failure> {
        match self {
            Self::Path(path) if path.is_dir() => choose(path, quote, now),
            Self::Path(path) => Ok(Collateral::parse(&read(path)?)),
            Self::Url(base) => match UntrustedQuote::parse(quote) {
                Ok(quote) => {
                    let service = Service::new(base);
                    let json = service.collateral(&quote, now);
                    let json = json.map_err(|error| Failure::with_code(Exit::Transport, error))?;
                    Ok(json.and_then(|json| Collateral::parse(&json)))
                }
                // Nothing to ask for; the verifier says what is wrong with the quote.
                Err(_) => Ok(Err(Code::CollateralMissing)),
            },
        }
    }
}

/// The newest of a directory's files for the quote's processors that is valid; if none is, the newest.
fn choose(directory: &Path, quote: &[u8], now: u64) -> Result<Result<Collateral, Code>, Failure> {
    let fmspc = UntrustedQuote::parse(quote)
        .ok()
        .and_then(|quote| quote.fmspc());
    let failed = |error| Failure::usage(format!("{}: {error}", directory.display()));
    let mut best = None;
    for entry in fs::read_dir(directory).map_err(failed)?.take(MAX_FILES) {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(collateral) = Collateral::parse(&read(&path)?) else {
            continue;
        };
        let Some(subject) = collateral.subject() else {
            continue;
        };
        let valid = (subject.issued..=subject.expires).contains(&now);
        let rank = (valid, subject.issued);
        if Some(subject.fmspc) == fmspc && best.as_ref().is_none_or(|(found, _)| rank > *found) {
            best = Some((rank, collateral));
        }
    }
    Ok(best
        .map(|(_, collateral)| collateral)
        .ok_or(Code::CollateralMissing))
}

/// Reads a file of collateral, and no more of it than collateral can have.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    crate::trust::read(path, MAX_COLLATERAL)
}
