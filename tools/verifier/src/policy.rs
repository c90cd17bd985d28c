//! What a user accepts. Everything has a default that is strict; program, configuration and model have none and must be named.

use attestation::Sha256;
use measurements::Manifest;

pub use crate::policy_file::PolicyError;

/// What a user accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of Intel's word on a platform.
    pub tcb: TcbPolicy,
    /// Of platforms.
    pub platform: PlatformPolicy,
    /// Of programs: any of these manifests.
    pub manifests: Vec<ManifestSource>,
    /// Of configurations.
    pub configuration: ConfigurationPolicy,
    /// Of models.
    pub model: ModelPolicy,
    /// Of certificates.
    pub certificate: CertificatePolicy,
}

/// What is accepted of Intel's word on a platform. The default accepts `UpToDate` and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbPolicy {
    /// Statuses, as Intel writes them. `Revoked` is never accepted.
    pub statuses: Vec<String>,
    /// The oldest TCB level, seconds since 1970.
    pub minimum_date: u64,
    /// The lowest `tcbEvaluationDataNumber`: Intel serves several at once, and who supplies collateral would choose the easiest.
    pub minimum_evaluation: u32,
    /// The oldest collateral, seconds since 1970.
    pub minimum_issue_date: u64,
    /// Advisories that must not apply.
    pub refused_advisories: Vec<String>,
    /// Lowest security versions of the platform's sixteen components; 0 and 1 are early and late microcode.
    pub minimum_cpu_svns: [u8; 16],
    /// Lowest security version of the provisioning enclave.
    pub minimum_pce_svn: u16,
    /// Lowest TEE_TCB_SVN: (1, 0) is the TDX module's version, 2 late microcode.
    pub minimum_tdx_svns: [u8; 16],
}

/// What is accepted of platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformPolicy {
    /// Measurements of TDX modules; empty: any that Intel signed.
    pub mrseam: Vec<[u8; 48]>,
    /// Provisioning identifiers (PPID) or platform instance identifiers; empty: any.
    pub allowed: Vec<[u8; 16]>,
    /// Platforms to which packages can be added.
    pub dynamic: bool,
    /// Platforms whose root keys Intel's registration service keeps.
    pub cached_keys: bool,
    /// Simultaneous multithreading.
    pub smt: bool,
}

/// A manifest, or why there is none: a broken manifest is a refusal, not an absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestSource {
    /// A manifest whose signature holds, if one was asked for.
    Good(Box<Manifest>),
    /// It cannot be read; the words say why.
    Invalid(String),
    /// Its signature is missing or does not hold; the words say which.
    Unsigned(String),
}

/// What is accepted of configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationPolicy {
    /// Names in the manifests.
    pub names: Vec<String>,
    /// Whole canonical configurations.
    pub canonical: Vec<Vec<u8>>,
    /// Values that named fields of the canonical configuration must have.
    pub fields: Vec<(String, String)>,
}

/// What is accepted of models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPolicy {
    /// Names in the manifests.
    pub names: Vec<String>,
    /// SHA-256 of sealed or of plain files.
    pub digests: Vec<Sha256>,
    /// The lowest release.
    pub minimum_version: u64,
}

/// What is accepted of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePolicy {
    /// The longest validity, in seconds. A certificate carries the quote of its making for as long.
    pub maximum_life: u64,
}

impl Default for TcbPolicy {
    fn default() -> Self {
        Self {
            statuses: vec!["UpToDate".into()],
            minimum_date: 0,
            minimum_evaluation: 0,
            minimum_issue_date: 0,
            refused_advisories: Vec::new(),
            minimum_cpu_svns: [0; 16],
            minimum_pce_svn: 0,
            minimum_tdx_svns: [0; 16],
        }
    }
}

impl Default for PlatformPolicy {
    fn default() -> Self {
        Self {
            mrseam: Vec::new(),
            allowed: Vec::new(),
            dynamic: true,
            cached_keys: true,
            smt: true,
        }
    }
}

impl Default for CertificatePolicy {
    fn default() -> Self {
        Self {
            maximum_life: 60 * 60,
        }
    }
}

impl ManifestSource {
    /// Reads a manifest; with a public key, its minisign signature too.
    pub fn read(manifest: &[u8], signature: Option<(&minisign_verify::PublicKey, &str)>) -> Self {
        if let Some((key, signature)) = signature {
            let verified = minisign_verify::Signature::decode(signature)
                .and_then(|signature| key.verify(manifest, &signature, false));
            if let Err(error) = verified {
                return Self::Unsigned(error.to_string());
            }
        }
        match Manifest::parse(manifest) {
            Ok(manifest) => Self::Good(Box::new(manifest)),
            Err(error) => Self::Invalid(error.to_string()),
        }
    }
}

impl Policy {
    /// The manifests that can be read.
    pub(crate) fn good_manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().filter_map(|source| match source {
            ManifestSource::Good(manifest) => Some(&**manifest),
            _ => None,
        })
    }
}
