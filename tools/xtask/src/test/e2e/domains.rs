//! Trust domains of the emulator whose evidence holds, for clients that pin the image just built and the root that signs for the emulator.

use std::fs;
use std::path::Path;
use std::time::Duration;

use measurements::{ConfigurationEntry, ModelEntry};
use serde::Deserialize;

use super::{READY, World};
use crate::failure::{Context, Result};
use crate::guest::{Guest, Setup};
use crate::pins::Pins;
use crate::process;

/// For hashing a small model.
const MEASURE: Duration = Duration::from_secs(120);

/// What follows from an image, a configuration and a model.
#[derive(Deserialize)]
pub struct Measured {
    pub configuration: ConfigurationEntry,
    pub model: ModelEntry,
}

/// What clients have to pin, in a directory named for the tests that use it.
pub fn pins(world: &World, name: &str) -> Result<Pins> {
    let directory = world.directory.path().join(name);
    fs::create_dir_all(&directory).context(format!("create {}", directory.display()))?;
    Pins::write(&world.manifest()?, &directory)
}

/// Boots a trust domain, and waits until it serves.
pub fn boot(world: &World, pins: &Pins, model: &Path, config: Option<&str>) -> Result<Guest> {
    let mut guest = start(world, pins, model, config, None)?;
    guest.wait_ready(READY, || {})?;
    Ok(guest)
}

/// Starts a trust domain; `forward` is the loopback port that leads to it.
pub fn start(
    world: &World,
    pins: &Pins,
    model: &Path,
    config: Option<&str>,
    forward: Option<u16>,
) -> Result<Guest> {
    let arguments = ["--pki", pins.pki()];
    let mut setup = Setup::new(&world.vitrine, &world.image.path, Some(model), 1);
    setup.backend = "emulator";
    setup.emulator = &arguments;
    (setup.config, setup.forward) = (config, forward);
    Guest::start(&setup)
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
