//! Sealed models, and what it takes to trust the emulated machine that is to open one: made with the commands that users have.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Pinned, Trust};
use emulator::quoting::QuotingService;
use serde::Deserialize;
use verifier::policy::ModelPolicy;
use verifier::{Collateral, ManifestSource, Policy, TrustAnchor};

use crate::failure::{Context, Failure, Result};
use crate::image_step::Image;
use crate::process;
use crate::release;
use crate::workspace::Workspace;

/// For encrypting or hashing a model.
const LIMIT: Duration = Duration::from_secs(600);

/// A model sealed with `vitrine seal`.
#[derive(Debug, Deserialize)]
pub struct SealedModel {
    #[serde(rename = "sealed")]
    pub file: PathBuf,
    /// The age identity that opens it.
    pub identity: PathBuf,
    /// SHA-256 of the sealed file, in hexadecimal digits.
    pub sealed_sha256: String,
    /// SHA-256 of the model.
    pub plaintext_sha256: String,
}

impl SealedModel {
    /// Seals a model into `directory`, under a fresh identity.
    pub fn make(vitrine: &Path, model: &Path, directory: &Path) -> Result<Self> {
        let name = model.file_name().unwrap_or(model.as_os_str());
        let beside = |extension: &str| {
            let mut name = name.to_owned();
            name.push(extension);
            directory.join(name)
        };
        let (file, identity) = (beside(".age"), beside(".key"));
        for old in [&file, &identity] {
            // Neither is ever overwritten by `vitrine seal`.
            let _ = fs::remove_file(old);
        }
        let mut seal = Command::new(vitrine);
        seal.arg("seal").arg(model).arg("--json");
        seal.arg("--out")
            .arg(&file)
            .arg("--identity")
            .arg(&identity);
        Ok(serde_json::from_str(&process::text(&mut seal, LIMIT)?)?)
    }
}

/// By what clients judge an image in the emulator: its manifest, and the test root under which the emulator signs quotes.
pub struct Pins {
    manifest: PathBuf,
    pki: PathBuf,
}

impl Pins {
    /// Writes manifest and test root into `directory`.
    pub fn write(workspace: &Workspace, image: &Image, directory: &Path) -> Result<Self> {
        let manifest = directory.join("manifest.json");
        let text = release::manifest(workspace, image)?.encode();
        fs::write(&manifest, text).context(format!("write {}", manifest.display()))?;
        let pki = directory.join("pki");
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        QuotingService::open(&pki, now.unwrap_or_default().as_secs())
            .context(format!("make a test root in {}", pki.display()))?;
        Ok(Self { manifest, pki })
    }

    /// Where the emulator keeps root and collateral: its argument `--pki`.
    pub fn pki(&self) -> &Path {
        &self.pki
    }

    /// The same for this program's own connections to a machine with this model.
    pub fn trust(&self, digest: &str) -> Result<Trust> {
        let read = |path: &Path| fs::read(path).context(format!("read {}", path.display()));
        let collateral = read(&self.pki.join("collateral.json"))?;
        let root = read(&self.pki.join("root.pem"))?;
        let digest = verifier::parse_model_digest(digest);
        let model = ModelPolicy {
            digests: digest.into_iter().collect(),
            ..ModelPolicy::default()
        };
        let pinned = Pinned {
            policy: Policy {
                manifests: vec![ManifestSource::read(&read(&self.manifest)?)],
                model,
                ..Policy::default()
            },
            anchor: TrustAnchor::test(&root).ok_or_else(|| Failure::new("the root is not one"))?,
            collateral: Collateral::parse(&collateral).ok(),
        };
        Ok(Trust::Evidence(Arc::new(pinned)))
    }

    /// The options of commands that judge evidence.
    pub fn options(&self) -> Vec<OsString> {
        let (root, collateral) = (self.pki.join("root.pem"), self.pki.join("collateral.json"));
        [
            ("--manifest", &self.manifest),
            ("--test-root", &root),
            ("--collateral", &collateral),
        ]
        .into_iter()
        .flat_map(|(option, path)| [option.into(), path.clone().into_os_string()])
        .collect()
    }
}

/// What RTMR[3] of an unconfigured machine is going to be, computed from files alone.
pub fn expected_rtmr3(
    vitrine: &Path,
    image: &Path,
    model: &Path,
    sealed: &SealedModel,
) -> Result<String> {
    #[derive(Deserialize)]
    struct Measured {
        model: Entry,
    }
    #[derive(Deserialize)]
    struct Entry {
        rtmr3: String,
    }
    let mut measure = Command::new(vitrine);
    measure.arg("measure").arg(image).arg("--json");
    measure.arg("--model").arg(model);
    measure.arg("--sealed").arg(&sealed.file);
    let measured: Measured = serde_json::from_str(&process::text(&mut measure, LIMIT)?)?;
    Ok(measured.model.rtmr3)
}
