//! The policy file (TOML). Every key is optional, but a file without any, or with one that is not known, is refused: it would not say what
//! its author meant. `docs/verification.md` shows one with every key.

use core::fmt;

use attestation::Sha256;
use serde::Deserialize;
use serde::de::Error as _;

use crate::date;
use crate::policy::{
    CertificatePolicy, ConfigurationPolicy, ManifestKey, ManifestSource, ModelPolicy,
    PlatformPolicy, Policy, TcbPolicy,
};

/// A longer file is not a policy.
pub const MAX_POLICY: usize = 64 << 10;

/// The statuses that a policy can accept.
const STATUSES: [&str; 8] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
];

/// Why a file is not a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// Longer than [`MAX_POLICY`].
    TooLong,
    /// It says nothing.
    Empty,
    /// This section or list of it says nothing, as if it were not there.
    EmptyKey(String),
    /// Not TOML, or with a key or value that is not known; the parser's words.
    Invalid(String),
    /// A file that it names cannot be read: its name, and why.
    File(String, String),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {MAX_POLICY} bytes"),
            Self::Empty => f.write_str("it is empty; without --policy the default policy applies"),
            Self::EmptyKey(key) => {
                write!(f, "`{key}` is empty; leave it out, or say what is accepted")
            }
            Self::Invalid(words) => f.write_str(words.trim_end()),
            Self::File(name, why) => write!(f, "{name}: {why}"),
        }
    }
}

impl std::error::Error for PolicyError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tcb: Option<Tcb>,
    platform: Option<Platform>,
    program: Option<Program>,
    configuration: Option<Configuration>,
    model: Option<Model>,
    certificate: Option<Certificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tcb {
    statuses: Option<Vec<Status>>,
    minimum_date: Option<Date>,
    minimum_evaluation: Option<u32>,
    minimum_issue_date: Option<Date>,
    #[serde(default)]
    refused_advisories: Vec<String>,
    minimum_cpu_svns: Option<[u8; 16]>,
    minimum_pce_svn: Option<u16>,
    minimum_tdx_svns: Option<[u8; 16]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    #[serde(default)]
    mrseam: Vec<Hex<48>>,
    #[serde(default)]
    allowed: Vec<Hex<16>>,
    dynamic: Option<bool>,
    cached_keys: Option<bool>,
    smt: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    #[serde(default)]
    manifests: Vec<String>,
    manifest_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    fields: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    digests: Vec<Hex<32>>,
    minimum_version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    maximum_life: Option<u64>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Status(String);

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match STATUSES.contains(&&*text) {
            true => Ok(Self(text)),
            false => Err(format!(
                "`{text}` is not a status that can be accepted; these are: {}",
                STATUSES.join(", ")
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Date(u64);

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        date::parse(&text).map(Self).ok_or_else(|| {
            format!("`{text}` is not a date; write \"2026-01-31\" or \"2026-01-31T12:00:00Z\"")
        })
    }
}

/// So many bytes in hexadecimal.
struct Hex<const N: usize>([u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is not {} hexadecimal digits", 2 * N))
        })
    }
}

/// Reads `2 * N` hexadecimal digits.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Reads the SHA-256 of a model file, 64 hexadecimal digits.
pub fn parse_model_digest(text: &str) -> Option<Sha256> {
    parse_hex(text)
}

impl Policy {
    /// Reads a policy file. `read` gets the files that it names: manifests, their `.minisig` signatures, canonical configurations.
    ///
    /// # Errors
    /// [`PolicyError`]. A file that was read and is no manifest, or not signed, is a finding at every verification instead.
    pub fn parse(
        file: &[u8],
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, PolicyError> {
        if file.len() > MAX_POLICY {
            return Err(PolicyError::TooLong);
        }
        let text = core::str::from_utf8(file)
            .map_err(|_| PolicyError::Invalid("it is not UTF-8 text".into()))?;
        let invalid = |error: toml::de::Error| PolicyError::Invalid(error.to_string());
        let table: toml::Table = toml::from_str(text).map_err(invalid)?;
        if table.is_empty() {
            return Err(PolicyError::Empty);
        }
        let file: File = toml::from_str(text).map_err(invalid)?;
        if let Some(key) = empty_key(&table) {
            return Err(PolicyError::EmptyKey(key));
        }
        let open = |name: &str| {
            read(name).map_err(|error| PolicyError::File(name.into(), error.to_string()))
        };
        let mut policy = Self {
            tcb: file.tcb.map(TcbPolicy::from).unwrap_or_default(),
            platform: file.platform.map(PlatformPolicy::from).unwrap_or_default(),
            model: file.model.map(ModelPolicy::from).unwrap_or_default(),
            certificate: file
                .certificate
                .map(CertificatePolicy::from)
                .unwrap_or_default(),
            ..Self::default()
        };
        if let Some(configuration) = file.configuration {
            let canonical = configuration.files.iter().map(|name| open(name));
            policy.configuration = ConfigurationPolicy {
                names: configuration.names,
                canonical: canonical.collect::<Result<_, _>>()?,
                fields: configuration.fields.into_iter().collect(),
            };
        }
        if let Some(program) = file.program {
            let key = program.manifest_key.as_deref().map(ManifestKey::parse);
            policy.manifest_key = key.transpose().map_err(PolicyError::Invalid)?;
            for name in &program.manifests {
                let manifest = open(name)?;
                let source = match &policy.manifest_key {
                    None => ManifestSource::read(&manifest),
                    Some(key) => {
                        let signature = read(&format!("{name}.minisig"));
                        ManifestSource::read_signed(&manifest, key, signature)
                    }
                };
                policy.manifests.push(source);
            }
        }
        Ok(policy)
    }
}

/// The first section or list that is empty. An empty list of what is accepted could mean anything and nothing.
fn empty_key(table: &toml::Table) -> Option<String> {
    table.iter().find_map(|(key, value)| match value {
        toml::Value::Array(list) => list.is_empty().then(|| key.clone()),
        toml::Value::Table(table) if table.is_empty() => Some(key.clone()),
        toml::Value::Table(table) => empty_key(table).map(|inner| format!("{key}.{inner}")),
        _ => None,
    })
}

impl From<Tcb> for TcbPolicy {
    fn from(file: Tcb) -> Self {
        let default = Self::default();
        let names = |list: Vec<Status>| list.into_iter().map(|status| status.0).collect();
        Self {
            statuses: file.statuses.map_or(default.statuses, names),
            minimum_date: file.minimum_date.map_or(0, |date| date.0),
            minimum_evaluation: file.minimum_evaluation.unwrap_or(0),
            minimum_issue_date: file.minimum_issue_date.map_or(0, |date| date.0),
            refused_advisories: file.refused_advisories,
            minimum_cpu_svns: file.minimum_cpu_svns.unwrap_or_default(),
            minimum_pce_svn: file.minimum_pce_svn.unwrap_or(0),
            minimum_tdx_svns: file.minimum_tdx_svns.unwrap_or_default(),
        }
    }
}

impl From<Platform> for PlatformPolicy {
    fn from(file: Platform) -> Self {
        let default = Self::default();
        Self {
            mrseam: file.mrseam.into_iter().map(|hex| hex.0).collect(),
            allowed: file.allowed.into_iter().map(|hex| hex.0).collect(),
            dynamic: file.dynamic.unwrap_or(default.dynamic),
            cached_keys: file.cached_keys.unwrap_or(default.cached_keys),
            smt: file.smt.unwrap_or(default.smt),
        }
    }
}

impl From<Model> for ModelPolicy {
    fn from(file: Model) -> Self {
        Self {
            names: file.names,
            digests: file.digests.into_iter().map(|hex| hex.0).collect(),
            minimum_version: file.minimum_version.unwrap_or(0),
        }
    }
}

impl From<Certificate> for CertificatePolicy {
    fn from(file: Certificate) -> Self {
        let default = Self::default();
        Self {
            maximum_life: file.maximum_life.unwrap_or(default.maximum_life),
        }
    }
}
