//! The options of every command that judges evidence: what is accepted, and under which trust anchor.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use attestation::provisioning::PublicKey;
use verifier::policy::ConfigurationPolicy;
use verifier::{
    Code, Collateral, MAX_POLICY, ManifestKey, ManifestSource, Policy, Report, Scope, TrustAnchor,
    UntrustedCertificate, Verifier, parse_model_digest,
};

use crate::collateral::{INTEL, Source};
use crate::failure::Failure;
use crate::memory::{Memory, clock};

/// A manifest, a signature, a configuration: all far below this.
const MAX_FILE: usize = 1 << 20;

/// What is accepted, and on whose word
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "What is accepted")]
pub struct Trust {
    /// Intel's word on the platform: a file, a directory of files, or a service (PCS or PCCS, version 4)
    #[arg(long, value_name = "FILE|DIR|URL", default_value = INTEL)]
    collateral: Source,
    /// A policy file (TOML); docs/verification.md shows one with every key
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The program: a release's manifest; may be given more than once
    #[arg(long, value_name = "FILE")]
    manifest: Vec<PathBuf>,
    /// Demand a minisign signature by this key beside each manifest (FILE.minisig) [default: the policy's key]
    #[arg(long, value_name = "KEY|FILE", requires = "manifest")]
    manifest_key: Option<String>,
    /// The model: SHA-256 of its GGUF file, or of the sealed file
    #[arg(long, value_name = "SHA256", value_parser = model_digest)]
    model_digest: Vec<[u8; 32]>,
    /// The configuration: a name in the manifest (default: "default"), or a file with the canonical text
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<String>,
    /// Judge under this root certificate instead of Intel's: for tests, it proves nothing
    #[arg(long, value_name = "FILE")]
    test_root: Option<PathBuf>,
}

fn model_digest(text: &str) -> Result<[u8; 32], &'static str> {
    parse_model_digest(text).ok_or("not 64 hexadecimal digits")
}

impl Trust {
    /// The trust anchor; warns on stderr about one for tests.
    fn anchor(&self) -> Result<TrustAnchor, Failure> {
        let Some(path) = &self.test_root else {
            return Ok(TrustAnchor::intel());
        };
        let anchor = TrustAnchor::test(&read(path, MAX_FILE)?)
            .ok_or_else(|| Failure::usage(format!("{}: not a certificate", path.display())))?;
        eprintln!(
            "warning: --test-root: whoever has the key of {} can make any evidence; nothing below proves anything",
            path.display()
        );
        Ok(anchor)
    }

    /// What is accepted. What the command line names takes the place of what the policy file names of the same kind.
    fn policy(&self) -> Result<Policy, Failure> {
        let mut policy = match &self.policy {
            None => Policy::default(),
            Some(path) => {
                let beside = path.parent().unwrap_or(Path::new("."));
                Policy::parse(&read(path, MAX_POLICY + 1)?, |name| {
                    read_at_most(&beside.join(name), MAX_FILE)
                })
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
            }
        };
        if let Some(key) = &self.manifest_key {
            policy.manifest_key = Some(manifest_key(key)?);
        }
        if !self.manifest.is_empty() {
            policy.manifests = self.manifests(policy.manifest_key.as_ref())?;
        }
        if !self.model_digest.is_empty() {
            policy.model.names.clear();
            policy.model.digests = self.model_digest.clone();
        }
        if let Some(config) = &self.config {
            policy.configuration = configuration(config, &policy.manifests)?;
        }
        Ok(policy)
    }

    fn manifests(&self, key: Option<&ManifestKey>) -> Result<Vec<ManifestSource>, Failure> {
        self.manifest
            .iter()
            .map(|path| {
                let manifest = read(path, MAX_FILE)?;
                Ok(match key {
                    None => ManifestSource::read(&manifest),
                    Some(key) => {
                        let signature = measurements::signature::path(path);
                        let signature = read_at_most(&signature, MAX_FILE);
                        ManifestSource::read_signed(&manifest, key, signature)
                    }
                })
            })
            .collect()
    }

    /// The judge of connections over which prompts are sent, or a model's key.
    pub fn judge(&self, scope: Scope) -> Result<Judge, Failure> {
        self.judge_at(None, scope)
    }

    /// A judge of evidence at this time, or by this machine's clock.
    pub fn judge_at(&self, at: Option<u64>, scope: Scope) -> Result<Judge, Failure> {
        let anchor = self.anchor()?;
        let memory = Memory::read(at.is_none() && !anchor.is_test())?;
        let mut policy = self.policy()?;
        policy.accepted_before = memory.releases();
        Ok(Judge {
            verifier: Verifier {
                policy,
                anchor,
                scope,
                now: at.unwrap_or_else(clock::now),
                seen: memory.earliest(),
            },
            at,
            collateral: self.collateral.clone(),
            owner: None,
            memory,
        })
    }
}

/// Judges evidence by what the command line accepts.
pub struct Judge {
    verifier: Verifier,
    /// The time of judgement, if not the clock's.
    at: Option<u64>,
    collateral: Source,
    owner: Option<PublicKey>,
    memory: Memory,
}

impl Judge {
    /// The same, who besides demands an endorsement by this owner, if one is named.
    pub fn demanding(self, owner: Option<PublicKey>) -> Self {
        Self { owner, ..self }
    }

    /// Whether chains end at a root for tests.
    pub fn is_test(&self) -> bool {
        self.verifier.anchor.is_test()
    }

    /// The verifier of this moment.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            now: self.at.unwrap_or_else(clock::now),
            ..self.verifier.clone()
        }
    }

    /// Collateral for a quote; what cannot be read as such is a finding.
    ///
    /// # Errors
    /// There is no way to it.
    pub fn collateral(&self, quote: &[u8]) -> Result<Result<Collateral, Code>, Failure> {
        self.collateral.collateral(quote, self.verifier().now)
    }

    /// Judges a bare quote, and takes note of it.
    ///
    /// # Errors
    /// There is no way to its collateral.
    pub fn quote(&self, quote: &[u8]) -> Result<Report, Failure> {
        let report = self.verifier().quote(quote, self.collateral(quote)?);
        self.learn(&report);
        Ok(report)
    }

    /// Judges a certificate in DER, and takes note of it.
    ///
    /// # Errors
    /// There is no way to its collateral.
    pub fn certificate(&self, der: &[u8]) -> Result<Report, Failure> {
        // Collateral is for the quote's platform; without a quote there is nothing to ask for.
        let collateral = match UntrustedCertificate::parse(der) {
            Ok(certificate) => self.collateral(certificate.quote())?,
            Err(_) => Err(Code::CollateralMissing),
        };
        let (report, _) = self.verifier().certificate(der, collateral);
        self.learn(&report);
        Ok(report)
    }

    /// Takes note of a final judgement, so that going back behind it is noticed later.
    pub fn learn(&self, report: &Report) {
        self.memory.learn(report, &self.verifier());
    }
}

impl client::Judge for Judge {
    fn owner(&self) -> Option<PublicKey> {
        self.owner
    }

    fn verifier(&self) -> Verifier {
        self.verifier()
    }

    fn collateral(&self, quote: &[u8]) -> Result<Collateral, Code> {
        self.collateral(quote).unwrap_or_else(|failure| {
            eprintln!("note: no collateral: {failure}");
            Err(Code::CollateralMissing)
        })
    }

    fn judged(&self, report: &Report) {
        self.learn(report);
    }
}

/// A key as its line of base64, or in a file.
fn manifest_key(text: &str) -> Result<ManifestKey, Failure> {
    let key = match Path::new(text).is_file() {
        true => {
            let file = read(Path::new(text), MAX_FILE)?;
            ManifestKey::parse(&String::from_utf8_lossy(&file))
        }
        false => ManifestKey::parse(text),
    };
    key.map_err(Failure::usage)
}

/// A name that a manifest has, else a file.
fn configuration(text: &str, manifests: &[ManifestSource]) -> Result<ConfigurationPolicy, Failure> {
    let named = manifests.iter().any(|source| match source {
        ManifestSource::Good(release) => release.manifest.configuration(text).is_some(),
        _ => false,
    });
    let mut policy = ConfigurationPolicy::default();
    match named {
        true => policy.names.push(text.to_owned()),
        false => {
            let file = read(Path::new(text), MAX_FILE).map_err(|failure| {
                Failure::usage(format!(
                    "--config: no manifest has a configuration of that name, and as a file: {failure}"
                ))
            })?;
            policy.canonical.push(file);
        }
    }
    Ok(policy)
}

/// Reads a file that the command line names; one longer than `limit` is read to one byte beyond it.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    read_at_most(path, limit)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn read_at_most(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
