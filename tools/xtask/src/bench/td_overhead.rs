//! `cargo xtask bench td-overhead`: decoding inside the emulated trust domain against the same engine on this machine.

use serde::Serialize;
use synthesis::Mix;

use super::alone;
use super::print;
use super::served::{Delivery, Served};
use super::statistics::median;
use super::workload::Workload;
use crate::failure::{Result, ensure};
use crate::workspace::Workspace;
use crate::{image_step, models, packages, tools};

/// Decode speed inside the emulated trust domain, relative to `vitrine generate` on this machine
///
/// Both compute the same tokens with the same number of threads in turns; the trust domain's answer comes in one piece, so that nothing but
/// decoding happens in the time that is measured. Exits with 1 if the trust domain has less than --least of the host's speed. The
/// machine should have nothing else to do.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The model's shape: tiny, qwen3-0.6b or qwen3-1.7b; its weights are random
    #[arg(long, value_name = "NAME", default_value = "qwen3-0.6b")]
    shape: String,
    /// Virtual CPUs, and threads on the host
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,
    /// Answers of each side
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Hold memory in this machine's 4 KiB pages on both sides, not in its 2 MiB pages
    #[arg(long)]
    small_pages: bool,
    /// What the trust domain has to reach, in per cent of the host's speed
    #[arg(long, value_name = "PERCENT", default_value_t = 97.0)]
    least: f64,
    /// Print one JSON object on stdout; everything else goes to stderr
    #[arg(long)]
    json: bool,
}

/// One side of the comparison.
#[derive(Serialize)]
struct Side {
    /// The median.
    tokens_per_second: f64,
    /// Every round.
    rounds: Vec<f64>,
    /// What of its memory this machine holds in 2 MiB pages.
    huge_page_bytes: u64,
    /// Of so much in all; not known of the trust domain, whose memory the emulator gets as it is touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    shape: String,
    isa: String,
    threads: u32,
    tokens: u32,
    huge_pages_asked_for: bool,
    host: Side,
    trust_domain: Side,
    /// Of the medians.
    ratio_percent: f64,
    least_percent: f64,
    /// Calls to the host for each token (TDVMCALL).
    host_calls_per_token: f64,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::BUILD)?;
    let image = image_step::build(workspace)?;
    let vitrine = tools::fast_vitrine(workspace)?;
    let workload = Workload {
        model: models::of_shape(workspace, &arguments.shape, Mix::Q4KM)?,
        cpus: arguments.cpus,
        tokens: arguments.tokens,
        huge_pages: !arguments.small_pages,
    };
    eprintln!("booting in the emulator");
    let mut served = Served::boot(&vitrine, &image.path, &workload)?;
    ensure!(
        served.ready.vcpus == arguments.cpus,
        "{} of {} CPUs came",
        served.ready.vcpus,
        arguments.cpus
    );
    let (mut host, mut trust_domain, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let mut host_memory = None;
    for round in 1..=arguments.rounds {
        let alone = alone::generate(&vitrine, &workload, 1)?;
        ensure!(
            alone.isa == served.ready.isa && alone.threads == arguments.cpus,
            "the host computes with {} and {} threads, the trust domain with {} and {}",
            alone.isa,
            alone.threads,
            served.ready.isa,
            served.ready.vcpus
        );
        let before = served.counters()?.host_calls;
        let (time, tokens) = served.decode(&workload, 1, Delivery::Whole)?;
        let after = served.counters()?.host_calls;
        ensure!(
            tokens == alone.tokens,
            "the trust domain and the host computed different tokens"
        );
        host.push(workload.steps() / (alone.decode_ms / 1e3));
        trust_domain.push(workload.steps() / time.as_secs_f64());
        calls.push((after - before) as f64 / f64::from(arguments.tokens));
        host_memory = Some(alone.memory);
        eprintln!(
            "round {round}: host {:.2} tokens/s, trust domain {:.2} tokens/s",
            host.last().unwrap_or(&f64::NAN),
            trust_domain.last().unwrap_or(&f64::NAN)
        );
    }
    served.check_alive()?;
    let side = |rounds: Vec<f64>, huge_page_bytes, resident_bytes| Side {
        tokens_per_second: median(&rounds),
        rounds,
        huge_page_bytes,
        resident_bytes,
    };
    let host = side(
        host,
        host_memory.map_or(0, |memory| memory.huge),
        host_memory.map(|memory| memory.resident),
    );
    let trust_domain = side(trust_domain, served.counters()?.huge_pages << 21, None);
    let report = Report {
        shape: arguments.shape.clone(),
        isa: served.ready.isa.clone(),
        threads: arguments.cpus,
        tokens: arguments.tokens,
        huge_pages_asked_for: workload.huge_pages,
        ratio_percent: trust_domain.tokens_per_second / host.tokens_per_second * 100.0,
        least_percent: arguments.least,
        host_calls_per_token: median(&calls),
        host,
        trust_domain,
    };
    report.print(arguments.json)?;
    ensure!(
        report.ratio_percent >= arguments.least,
        "the trust domain decodes at {:.1} % of the host's speed, {} % are wanted",
        report.ratio_percent,
        arguments.least
    );
    Ok(())
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        let side = |name: &str, side: &Side| {
            let of = side.resident_bytes;
            let of = of.map_or_else(String::new, |bytes| format!(" of {} MiB", bytes >> 20));
            format!(
                "{name:<22} {:8.2} tokens/s   {:5} MiB{of} in 2 MiB pages",
                side.tokens_per_second,
                side.huge_page_bytes >> 20
            )
        };
        let lines = [
            format!(
                "{} Q4_K_M, {} threads, {}, medians of {} answers of {} tokens",
                self.shape,
                self.threads,
                self.isa,
                self.host.rounds.len(),
                self.tokens
            ),
            side("vitrine generate", &self.host),
            side("emulated trust domain", &self.trust_domain),
            format!(
                "ratio                  {:8.2} %          {:.1} calls to the host for each token",
                self.ratio_percent, self.host_calls_per_token
            ),
        ];
        let text = lines.join("\n");
        print(&text, self, json)
    }
}
