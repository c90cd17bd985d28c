//! `cargo xtask bench first-request`: whether anybody pays for being the first, by the time until the first token of an answer.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use synthesis::Mix;

use super::print;
use super::served::{Delivery, Front, Served, first_token};
use super::statistics::median;
use super::workload::Workload;
use crate::failure::{Result, ensure};
use crate::workspace::Workspace;
use crate::{image_step, models, packages, tools};

/// Before each request, so that all of them find a trust domain that sleeps.
const PAUSE: Duration = Duration::from_millis(100);
/// Tokens of an answer: what comes after the first is of no interest.
const ANSWER: u32 = 2;

/// How soon the first request after a start is answered, relative to the next ones
///
/// Boots the image in the emulator several times and takes, each time, the time until the first token of the very first request and of the
/// ones after it. All prompts have the same length and no beginning in common. Exits with 1 if the median of the ratios exceeds
/// --most. The machine should have nothing else to do.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The model's shape: tiny, qwen3-0.6b or qwen3-1.7b; its weights are random
    #[arg(long, value_name = "NAME", default_value = "qwen3-0.6b")]
    shape: String,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    prompt: u32,
    /// Starts
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    boots: u32,
    /// Requests after the first one of each start
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    followers: u32,
    /// How much longer the first request may take than the median of the others
    #[arg(long, value_name = "RATIO", default_value_t = 1.1)]
    most: f64,
    /// Print one JSON object on stdout; everything else goes to stderr
    #[arg(long)]
    json: bool,
}

/// Milliseconds until the first token after one start.
#[derive(Serialize)]
struct Boot {
    first_ms: f64,
    followers_median_ms: f64,
    followers_least_ms: f64,
    followers_most_ms: f64,
    ratio: f64,
}

#[derive(Serialize)]
struct Report {
    shape: String,
    isa: String,
    cpus: u32,
    prompt: u32,
    followers: u32,
    boots: Vec<Boot>,
    /// The median of the boots'.
    ratio: f64,
    most: f64,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::BUILD)?;
    let image = image_step::build(workspace)?;
    let vitrine = tools::fast_vitrine(workspace)?;
    let workload = Workload {
        model: models::of_shape(workspace, &arguments.shape, Mix::Q4KM)?,
        cpus: arguments.cpus,
        tokens: ANSWER,
        huge_pages: true,
    };
    let (mut boots, mut isa) = (Vec::new(), String::new());
    for number in 1..=arguments.boots {
        let served = Served::boot(&vitrine, &image.path, &workload)?;
        isa.clone_from(&served.ready.isa);
        let front = served.front()?;
        let times = (0..=arguments.followers)
            .map(|request| until_first_token(&front, request, arguments.prompt))
            .collect::<Result<Vec<_>>>()?;
        let boot = Boot::of(&times);
        eprintln!("start {number}: {}", boot.line());
        boots.push(boot);
    }
    let ratios: Vec<f64> = boots.iter().map(|boot| boot.ratio).collect();
    let report = Report {
        shape: arguments.shape.clone(),
        isa,
        cpus: arguments.cpus,
        prompt: arguments.prompt,
        followers: arguments.followers,
        ratio: median(&ratios),
        most: arguments.most,
        boots,
    };
    report.print(arguments.json)?;
    ensure!(
        report.ratio <= report.most,
        "the first request takes {:.2} times as long as the ones after it, {} is allowed",
        report.ratio,
        report.most
    );
    Ok(())
}

/// Milliseconds until the first token of an answer, on a new connection that stands already.
fn until_first_token(front: &Front, request: u32, length: u32) -> Result<f64> {
    // What is computed of a prompt serves the next one that begins alike, so no two begin with the same token.
    let rest = (1..length).map(|index| 100 + index % 100);
    let prompt: Vec<u32> = std::iter::once(200 + request % 100).chain(rest).collect();
    let question = front.question(&prompt, ANSWER, Delivery::Streamed)?;
    let session = front.connect()?;
    thread::sleep(PAUSE);
    let asked = Instant::now();
    first_token(session, &question)?;
    Ok(asked.elapsed().as_secs_f64() * 1e3)
}

impl Boot {
    /// Of the times of the first request and the ones after it.
    fn of(times: &[f64]) -> Self {
        let (first, followers) = times.split_first().unwrap_or((&f64::NAN, &[]));
        let middle = median(followers);
        Self {
            first_ms: *first,
            followers_median_ms: middle,
            followers_least_ms: followers.iter().copied().fold(f64::NAN, f64::min),
            followers_most_ms: followers.iter().copied().fold(f64::NAN, f64::max),
            ratio: first / middle,
        }
    }

    fn line(&self) -> String {
        format!(
            "first {:.1} ms, others {:.1} ms ({:.1} to {:.1}), ratio {:.3}",
            self.first_ms,
            self.followers_median_ms,
            self.followers_least_ms,
            self.followers_most_ms,
            self.ratio
        )
    }
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        let text = format!(
            "{} Q4_K_M, {} CPUs, {}: time until the first token after {} tokens of prompt\nmedian of {} starts: the first request takes {:.3} \
             times as long as the median of the next {}",
            self.shape,
            self.cpus,
            self.isa,
            self.prompt,
            self.boots.len(),
            self.ratio,
            self.followers
        );
        print(&text, self, json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_compared_with_the_median_of_the_others() {
        let boot = Boot::of(&[3.0, 1.0, 4.0, 2.0]);
        assert_eq!((boot.first_ms, boot.followers_median_ms), (3.0, 2.0));
        assert_eq!(
            (boot.followers_least_ms, boot.followers_most_ms, boot.ratio),
            (1.0, 4.0, 1.5)
        );
    }
}
