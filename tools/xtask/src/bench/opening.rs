//! `cargo xtask bench opening`: how fast a sealed model is opened, by one processor and by several.
//!
//! The trust domain's own clock counts, from the arrival of the key to the last byte of the model: the disk is read, decrypted and hashed
//! meanwhile. Chunks of 64 KiB are decrypted by all processors together; the two SHA-256 of the whole file cannot be.

use std::time::Duration;

use serde::Serialize;
use synthesis::Mix;

use super::print;
use super::statistics::median;
use crate::failure::{Context as _, Failure, Result};
use crate::guest::{Guest, Setup};
use crate::sealed::SealedModel;
use crate::workspace::Workspace;
use crate::{image_step, models, packages, process, tools};

/// For each step of a start.
const READY: Duration = Duration::from_secs(900);
/// Memory besides the model.
const MEMORY_MIB: u64 = 1536;

/// How fast a sealed model is opened in the emulated trust domain, by the number of its processors
///
/// Seals a model, boots the image without the key, hands the key over and takes what the trust domain says of it; all numbers of processors
/// in turns. The machine should have nothing else to do, and at least as many processors.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The model's shape: tiny, qwen3-0.6b or qwen3-1.7b; its weights are random
    #[arg(long, value_name = "NAME", default_value = "qwen3-0.6b")]
    shape: String,
    /// Numbers of virtual CPUs; the first one is what the others are compared with
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2])]
    cpus: Vec<u32>,
    /// Starts with each number
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print one JSON object on stdout; everything else goes to stderr
    #[arg(long)]
    json: bool,
}

/// With one number of processors.
#[derive(Serialize)]
struct Opening {
    cpus: u32,
    milliseconds: Vec<f64>,
    mib_per_second: f64,
    /// Of the first number of processors.
    speedup: f64,
}

#[derive(Serialize)]
struct Report {
    shape: String,
    mib: u64,
    openings: Vec<Opening>,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::BUILD)?;
    let image = image_step::build(workspace)?;
    let vitrine = tools::fast_vitrine(workspace)?;
    let model = models::of_shape(workspace, &arguments.shape, Mix::Q4KM)?;
    let mib = model.metadata().context("look at the model")?.len() >> 20;
    let sealed = SealedModel::make(&vitrine, &model, &workspace.products()?)?;
    let mut milliseconds = vec![Vec::new(); arguments.cpus.len()];
    for round in 1..=arguments.rounds {
        for (&cpus, times) in arguments.cpus.iter().zip(&mut milliseconds) {
            let setup = Setup {
                backend: "emulator",
                emulator: &["--sept", "2m"],
                memory_mib: Some(u32::try_from(mib + MEMORY_MIB).context("count the memory")?),
                ..Setup::new(&vitrine, &image.path, Some(&sealed.file), cpus)
            };
            let time = open(&setup, &sealed)?;
            eprintln!("round {round}, {cpus} CPUs: {time:.0} ms");
            times.push(time);
        }
    }
    let speed = |times: &[f64]| mib as f64 / median(times) * 1e3;
    let first = speed(&milliseconds[0]);
    let openings = arguments.cpus.iter().zip(milliseconds);
    let report = Report {
        shape: arguments.shape.clone(),
        mib,
        openings: openings
            .map(|(&cpus, milliseconds)| Opening {
                cpus,
                mib_per_second: speed(&milliseconds),
                speedup: speed(&milliseconds) / first,
                milliseconds,
            })
            .collect(),
    };
    report.print(arguments.json)
}

/// Boots, hands the key over, and takes the milliseconds that the trust domain says.
fn open(setup: &Setup<'_>, sealed: &SealedModel) -> Result<f64> {
    let mut guest = Guest::start(setup)?;
    guest.wait_sealed(READY, || {})?;
    let address = guest.tcp().to_string();
    let mut provision = std::process::Command::new(setup.vitrine);
    provision.args(["provision", "--insecure-no-tee", "--to", &address]);
    provision.arg("--sealed").arg(&sealed.file);
    provision.arg("--identity").arg(&sealed.identity);
    process::run(&mut provision, READY)?;
    guest.wait_ready(READY, || {})?;
    let lines = guest.lines();
    let time = lines.iter().find_map(|line| loading_time(line));
    time.ok_or_else(|| Failure::new("the guest does not say how long loading took"))
}

/// Milliseconds, of the guest's line that says how long loading took.
fn loading_time(line: &str) -> Option<f64> {
    let (_, told) = line.split_once("vitrine: loaded ")?;
    let (_, time) = told.split_once(" MiB in ")?;
    time.strip_suffix(" ms")?.parse().ok()
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        let mut lines = vec![format!(
            "{} Q4_K_M, {} MiB: from the key to the last byte, medians",
            self.shape, self.mib
        )];
        lines.extend(self.openings.iter().map(|opening| {
            format!(
                "{:3} CPUs   {:8.1} MiB/s   {:.2} times as fast",
                opening.cpus, opening.mib_per_second, opening.speedup
            )
        }));
        let text = lines.join("\n");
        print(&text, self, json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_s_word_is_understood() {
        let line = "guest | vitrine: loaded 378 MiB in 1234 ms";
        assert_eq!(loading_time(line), Some(1234.0));
        assert_eq!(loading_time("guest | vitrine: loading 20 %"), None);
    }
}
