//! What can go wrong while a PKI is made or read.

use std::fmt;
use std::path::PathBuf;

/// Why there is no PKI.
#[derive(Debug)]
pub enum Error {
    /// A certificate, a list or a key could not be made or read.
    Certificate(rcgen::Error),
    /// A key is not what it should be, or the machine gives no random numbers.
    Key,
    /// A time is outside what certificates can say.
    Time(u64),
    /// A file could not be read or written.
    File(PathBuf, std::io::Error),
    /// A file is not what was saved there.
    Content(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => write!(f, "cannot make a test certificate: {error}"),
            Self::Key => f.write_str("cannot make or read a test key"),
            Self::Time(seconds) => {
                write!(f, "no certificate can be dated {seconds} s after 1970")
            }
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Content(path) => write!(
                f,
                "{} is not what a test PKI saved; remove the directory to have a new one made",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}
