//! The options of every command that judges evidence: what is accepted, and under which trust anchor.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use attestation::provisioning::PublicKey;
use verifier::policy::ConfigurationPolicy;
use verifier::{
    Code, Collateral, MAX_POLICY, ManifestSource, Policy, Scope, TrustAnchor, Verifier,
    parse_manifest_key, parse_model_digest, signed_manifest,
};

use crate::clock::{self, Mark};
use crate::collateral::{INTEL, Source};
use crate::failure::Failure;

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
    /// Demand a minisign signature by this key beside each manifest (FILE.minisig)
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
    /// Where collateral comes from.
    pub fn collateral(&self) -> &Source {
        &self.collateral
    }

    /// The trust anchor; warns on stderr about one for tests.
    pub fn anchor(&self) -> Result<TrustAnchor, Failure> {
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
    pub fn policy(&self) -> Result<Policy, Failure> {
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
        if !self.manifest.is_empty() {
            policy.manifests = self.manifests()?;
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

    fn manifests(&self) -> Result<Vec<ManifestSource>, Failure> {
        let key = match &self.manifest_key {
            None => None,
            Some(key) => Some(manifest_key(key)?),
        };
        self.manifest
            .iter()
            .map(|path| {
                let manifest = read(path, MAX_FILE)?;
                Ok(match &key {
                    None => ManifestSource::read(&manifest, None),
                    Some(key) => {
                        let mut signature = path.clone().into_os_string();
                        signature.push(".minisig");
                        let signature = read_at_most(Path::new(&signature), MAX_FILE);
                        signed_manifest(&manifest, key, signature)
                    }
                })
            })
            .collect()
    }

    /// A verifier by this machine's clock, with the mark that it must not be behind.
    pub fn verifier(&self, scope: Scope) -> Result<(Verifier, Option<Mark>), Failure> {
        let anchor = self.anchor()?;
        // Evidence for tests leaves no mark.
        let mark = match anchor.is_test() {
            true => None,
            false => Mark::read()?,
        };
        let verifier = Verifier {
            policy: self.policy()?,
            anchor,
            scope,
            now: clock::now(),
            seen: mark.as_ref().and_then(Mark::earliest),
        };
        Ok((verifier, mark))
    }

    /// The judge of connections over which prompts are sent, or a model's key.
    pub fn judge(&self, scope: Scope) -> Result<ConnectionJudge, Failure> {
        let (verifier, _) = self.verifier(scope)?;
        Ok(ConnectionJudge {
            verifier,
            collateral: self.collateral.clone(),
            owner: None,
        })
    }

    /// A verifier at another time than now. It neither looks at the clock's mark nor moves it.
    pub fn verifier_at(&self, scope: Scope, now: u64) -> Result<Verifier, Failure> {
        Ok(Verifier {
            policy: self.policy()?,
            anchor: self.anchor()?,
            scope,
            now,
            seen: None,
        })
    }
}

/// Judges connections by what the command line accepts and this machine's clock.
pub struct ConnectionJudge {
    verifier: Verifier,
    collateral: Source,
    owner: Option<PublicKey>,
}

impl ConnectionJudge {
    /// The same, who besides demands an endorsement by this owner, if one is named.
    pub fn demanding(self, owner: Option<PublicKey>) -> Self {
        Self { owner, ..self }
    }

    /// Whether chains end at a root for tests.
    pub fn is_test(&self) -> bool {
        self.verifier.anchor.is_test()
    }
}

impl client::Judge for ConnectionJudge {
    fn owner(&self) -> Option<PublicKey> {
        self.owner
    }

    fn verifier(&self) -> Verifier {
        Verifier {
            now: clock::now(),
            ..self.verifier.clone()
        }
    }

    fn collateral(&self, quote: &[u8]) -> Result<Collateral, Code> {
        self.collateral
            .collateral(quote, clock::now())
            .unwrap_or_else(|failure| {
                eprintln!("note: no collateral: {failure}");
                Err(Code::CollateralMissing)
            })
    }
}

/// A key as its line of base64, or in a file.
fn manifest_key(text: &str) -> Result<verifier::ManifestKey, Failure> {
    let key = match Path::new(text).is_file() {
        true => {
            let file = read(Path::new(text), MAX_FILE)?;
            parse_manifest_key(&String::from_utf8_lossy(&file))
        }
        false => parse_manifest_key(text),
    };
    key.map_err(Failure::usage)
}

/// A name that a manifest has, else a file.
fn configuration(text: &str, manifests: &[ManifestSource]) -> Result<ConfigurationPolicy, Failure> {
    let named = manifests.iter().any(|source| match source {
        ManifestSource::Good(manifest) => manifest.configuration(text).is_some(),
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
