//! Trust domains of the emulator whose evidence holds, and what a client has to pin to accept them: the image just built, a model, and
//! the root that signs for the emulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use measurements::{ConfigurationEntry, ModelEntry};
use serde::Deserialize;
use testpki::TestPki;

use super::{READY, World};
use crate::calendar;
use crate::failure::{Context, Result};
use crate::guest::{Guest, Setup};
use crate::process;

/// For hashing a small model.
const MEASURE: Duration = Duration::from_secs(120);

/// A test root, and the image's manifest.
pub struct Pins {
    directory: PathBuf,
    pki: String,
    manifest: String,
}

/// What follows from an image, a configuration and a model.
#[derive(Deserialize)]
pub struct Measured {
    pub configuration: ConfigurationEntry,
    pub model: ModelEntry,
}

impl Pins {
    /// Makes both; `name` tells them from those of other tests.
    pub fn new(world: &World, name: &str) -> Result<Self> {
        let directory = world.directory.path().join(name);
        let pki = directory.join("pki");
        // Here, because several machines that are started at once would each make one.
        TestPki::open(&pki, calendar::now()).context("make a test root")?;
        let manifest = directory.join("manifest.json");
        fs::write(&manifest, world.manifest()?.encode()).context("write a manifest")?;
        Ok(Self {
            directory,
            pki: pki.display().to_string(),
            manifest: manifest.display().to_string(),
        })
    }

    /// Where these tests put what they make.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file there.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).context(format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The directory of the test root.
    pub fn pki(&self) -> &str {
        &self.pki
    }

    /// The image's manifest.
    pub fn manifest(&self) -> &str {
        &self.manifest
    }

    /// Boots a trust domain, and waits until it serves.
    pub fn boot(&self, world: &World, model: &Path, config: Option<&str>) -> Result<Guest> {
        let mut guest = self.start(world, model, config, None)?;
        guest.wait_ready(READY, || {})?;
        Ok(guest)
    }

    /// Starts a trust domain; `forward` is the loopback port that leads to it.
    pub fn start(
        &self,
        world: &World,
        model: &Path,
        config: Option<&str>,
        forward: Option<u16>,
    ) -> Result<Guest> {
        let arguments = ["--pki", &self.pki];
        let mut setup = Setup::new(&world.vitrine, &world.image.path, Some(model), 1);
        setup.backend = "emulator";
        setup.emulator = &arguments;
        (setup.config, setup.forward) = (config, forward);
        Guest::start(&setup)
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
}

/// What a trust domain with this model and configuration measures.
pub fn measure(world: &World, model: &Path, config: Option<&Path>) -> Result<Measured> {
    let mut vitrine = world.vitrine(&["measure", "--json"]);
    vitrine.arg(&world.image.path).arg("--model").arg(model);
    if let Some(config) = config {
        vitrine.arg("--config").arg(config);
    }
    let text = process::text(&mut vitrine, MEASURE)?;
    Ok(serde_json::from_str(&text)?)
}
