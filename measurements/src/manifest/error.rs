//! Why a manifest is refused.

use std::fmt;

use crate::configuration::ConfigurationError;
use crate::register::Register;

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// Longer than any manifest.
    TooLong,
    /// Not JSON, or not with these fields; the parser's words.
    Json(String),
    /// A schema this program does not know.
    Schema(String),
    /// The same data in another spelling.
    NotCanonical,
    /// A register's value does not follow from the rest of the manifest.
    Inconsistent {
        /// Which register.
        register: Register,
        /// Of which configuration or model; empty where there is one value only.
        entry: String,
    },
    /// What should be a canonical configuration is none.
    Configuration {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        error: ConfigurationError,
    },
    /// Configurations or models are not sorted by name, or a name appears twice.
    Order,
    /// There is no configuration called "default".
    NoDefault,
}

impl ManifestError {
    pub(super) fn json(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("too long for a manifest"),
            Self::Json(error) => write!(f, "not a manifest: {error}"),
            Self::Schema(schema) => write!(
                f,
                "unknown schema {schema:?}; this program knows {:?}",
                super::SCHEMA
            ),
            Self::NotCanonical => {
                f.write_str("not in canonical form: it was edited, or written by another program")
            }
            Self::Inconsistent { register, entry } if entry.is_empty() => {
                write!(
                    f,
                    "{register} is not what it can be: the manifest was altered"
                )
            }
            Self::Inconsistent { register, entry } => write!(
                f,
                "{register} of {entry:?} does not follow from the rest: the manifest was altered"
            ),
            Self::Configuration { entry, error } => {
                write!(f, "the configuration {entry:?} is not canonical: {error}")
            }
            Self::Order => f.write_str("configurations and models must be sorted by their names"),
            Self::NoDefault => f.write_str("there is no configuration called \"default\""),
        }
    }
}

impl std::error::Error for ManifestError {}
