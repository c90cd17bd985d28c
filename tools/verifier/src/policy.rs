//! What a user accepts. Everything has a default that is strict; program, configuration and model have none and must be named.

use attestation::Sha256;
use measurements::Manifest;

use crate::release;

pub use crate::policy_file::PolicyError;
pub use crate::release::{ManifestKey, ManifestSource, NewestReleases, Release, Signed};

/// What a user accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of Intel's word on a platform.
    pub tcb: TcbPolicy,
    /// Of platforms.
    pub platform: PlatformPolicy,
    /// Of programs: any of these manifests.
    pub manifests: Vec<ManifestSource>,
    /// By whom they must be signed, if by anyone.
    pub manifest_key: Option<ManifestKey>,
    /// Of configurations.
    pub configuration: ConfigurationPolicy,
    /// Of models.
    pub model: ModelPolicy,
    /// Of certificates.
    pub certificate: CertificatePolicy,
    /// What was accepted before: of none of these keys, the newest manifest may be an older one.
    pub accepted_before: NewestReleases,
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

impl Policy {
    /// The newest of the releases named here, of each key that signed some.
    pub fn newest_releases(&self) -> NewestReleases {
        release::newest(self.releases())
    }

    /// The releases whose manifests can be read.
    fn releases(&self) -> impl Iterator<Item = &Release> {
        self.manifests.iter().filter_map(|source| match source {
            ManifestSource::Good(release) => Some(&**release),
            _ => None,
        })
    }

    /// The manifests that can be read.
    pub(crate) fn good_manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.releases().map(|release| &release.manifest)
    }
}
