//! What a client has to pin to accept an image in the emulator: the image's manifest, and the test root that signs for the emulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::{Pinned, Trust};
use measurements::Manifest;
use testpki::TestPki;
use verifier::policy::ModelPolicy;
use verifier::{Collateral, ManifestSource, Policy, TrustAnchor};

use crate::calendar;
use crate::failure::{Context, Failure, Result};

/// Both, in a directory.
pub struct Pins {
    directory: PathBuf,
    pki: String,
    manifest: String,
}

impl Pins {
    /// Writes `manifest` into `directory`, and a test root if there is none yet.
    pub fn write(manifest: &Manifest, directory: &Path) -> Result<Self> {
        let pki = directory.join("pki");
        // Here, because several machines that are started at once would each make one.
        TestPki::open(&pki, calendar::now())
            .context(format!("make a test root in {}", pki.display()))?;
        let path = directory.join("manifest.json");
        fs::write(&path, manifest.encode()).context(format!("write {}", path.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            pki: pki.display().to_string(),
            manifest: path.display().to_string(),
        })
    }

    /// Where both are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file beside them.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).context(format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The directory of the test root: the emulator's argument `--pki`.
    pub fn pki(&self) -> &str {
        &self.pki
    }

    /// The image's manifest.
    pub fn manifest(&self) -> &str {
        &self.manifest
    }

    /// The options of a client that accepts whatever the test root signs for, as far as the platform goes.
    pub fn platform(&self) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let directory = Path::new(&self.pki);
        let root = path(TestPki::root_path(directory));
        let collateral = path(TestPki::collateral_path(directory));
        ["--test-root", &root, "--collateral", &collateral]
            .map(str::to_owned)
            .into()
    }

    /// The options of a client that accepts this image with the default configuration, and any model or none.
    pub fn program(&self) -> Vec<String> {
        let mut options = self.platform();
        options.extend(["--manifest", &self.manifest].map(str::to_owned));
        options
    }

    /// The options of a client that accepts this image with the default configuration and the model of this SHA-256.
    pub fn accepting(&self, model: &str) -> Vec<String> {
        let mut options = self.program();
        options.extend(["--model-digest", model].map(str::to_owned));
        options
    }

    /// The same for this program's own connections.
    pub fn trust(&self, model: &str) -> Result<Trust> {
        let read = |path: &Path| fs::read(path).context(format!("read {}", path.display()));
        let directory = Path::new(&self.pki);
        let collateral = read(&TestPki::collateral_path(directory))?;
        let root = read(&TestPki::root_path(directory))?;
        let digest = verifier::parse_model_digest(model);
        let model = ModelPolicy {
            digests: digest.into_iter().collect(),
            ..ModelPolicy::default()
        };
        let pinned = Pinned {
            policy: Policy {
                manifests: vec![ManifestSource::read(&read(Path::new(&self.manifest))?)],
                model,
                ..Policy::default()
            },
            anchor: TrustAnchor::test(&root).ok_or_else(|| Failure::new("the root is not one"))?,
            collateral: Collateral::parse(&collateral).ok(),
        };
        Ok(Trust::Evidence(Arc::new(pinned)))
    }
}
