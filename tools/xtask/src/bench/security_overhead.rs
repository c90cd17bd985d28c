//! `cargo xtask bench security-overhead`: what each layer of protection costs while tokens are decoded, one layer after the other.
//!
//! | layer | how it is measured |
//! |---|---|
//! | engine alone | `vitrine generate` on this machine |
//! | + emulated TD | answers in one piece: nothing is encrypted while they are computed |
//! | + TLS | answers streamed: every token is a record |
//! | + attestation | streamed, and for every answer a new connection is opened and attested meanwhile |
//!
//! The speeds are what a client sees. They differ by more from one minute to the next than what is looked for, so what is ours is not their
//! difference but read off the trust domain's own clock: while the engine computes, all its CPUs do, and whatever else its first CPU does
//! meanwhile (connections, TLS, evidence, requests, devices) is time in which no tokens come. That is taken whole, the emulator's handling of
//! exits in it included. What hardware would charge for calls to the host is their number, which is the same there, times a stated cost. What
//! the emulator costs is not what hardware costs, so it has a row of its own.

mod report;

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use synthesis::Mix;

use super::alone;
use super::latency;
use super::served::{Delivery, Served};
use super::statistics::median;
use super::workload::Workload;
use crate::failure::{Failure, Result, ensure};
use crate::workspace::Workspace;
use crate::{image_step, models, packages, tools};
use report::{Layers, Report};

/// What of decoding the engine alone, the emulated trust domain, TLS and attestation take
///
/// All compute the same tokens with the same number of threads, in turns. What is ours (connections, TLS, attestation, calls to the host) may
/// take --most of decode; more makes the command exit with 1. The machine should have nothing else to do.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The model's shape: tiny, qwen3-0.6b or qwen3-1.7b; its weights are random
    #[arg(long, value_name = "NAME", default_value = "qwen3-1.7b")]
    shape: String,
    /// Virtual CPUs, and threads on the host
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,
    /// How many answers are computed together, one measurement after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 8])]
    streams: Vec<u32>,
    /// Answers of each layer, for each number of streams
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What one call to the host costs on hardware: out of the trust domain, into the kernel or the VMM, and back
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 10.0)]
    exit_cost: f64,
    /// Tokens of context at which handshakes and attestations are timed
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [64, 1024])]
    contexts: Vec<u32>,
    /// Handshakes and attestations in each situation
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// What may be ours, in per cent of decode
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    most: f64,
    /// How much longer handshake and attestation may take after the longest context than after the shortest one
    #[arg(long, value_name = "RATIO", default_value_t = 1.5)]
    most_growth: f64,
    /// Shows that it works, not what anything costs: a small model, one round of few tokens, no judgement
    #[arg(long, conflicts_with_all = ["shape", "tokens", "rounds", "contexts", "samples"])]
    quick: bool,
    /// Print one JSON object on stdout; everything else goes to stderr
    #[arg(long)]
    json: bool,
}

/// What is done of everything.
struct Effort {
    shape: String,
    tokens: u32,
    rounds: u32,
    contexts: Vec<u32>,
    samples: u32,
}

impl Arguments {
    fn effort(&self) -> Effort {
        if self.quick {
            return Effort {
                shape: "tiny".into(),
                tokens: 192,
                rounds: 1,
                contexts: vec![16, 256],
                samples: 10,
            };
        }
        Effort {
            shape: self.shape.clone(),
            tokens: self.tokens,
            rounds: self.rounds,
            contexts: self.contexts.clone(),
            samples: self.samples,
        }
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::BUILD)?;
    let effort = arguments.effort();
    let image = image_step::build(workspace)?;
    let vitrine = tools::fast_vitrine(workspace)?;
    let workload = Workload {
        model: models::of_shape(workspace, &effort.shape, Mix::Q4KM)?,
        cpus: arguments.cpus,
        tokens: effort.tokens,
        huge_pages: true,
    };
    eprintln!("booting in the emulator");
    let mut bench = Bench {
        served: Served::boot(&vitrine, &image.path, &workload)?,
        vitrine,
        workload,
    };
    let mut layers = Vec::new();
    for &streams in &arguments.streams {
        let rounds = (1..=effort.rounds).map(|round| {
            let measured = bench.round(streams)?;
            eprintln!("{streams} streams, round {round}: {measured}");
            Ok(measured)
        });
        let rounds = rounds.collect::<Result<Vec<_>>>()?;
        layers.push(Layers::new(
            streams,
            &bench.workload,
            arguments.exit_cost,
            rounds,
        ));
    }
    let mut latencies = Vec::new();
    for context in std::iter::once(None).chain(effort.contexts.into_iter().map(Some)) {
        match context {
            None => eprintln!("timing handshakes and attestations, nothing else being done"),
            Some(tokens) => {
                eprintln!("timing them while an answer with {tokens} tokens of context is computed")
            }
        }
        latencies.push(latency::measure(&bench.served, effort.samples, context)?);
    }
    bench.served.check_alive()?;
    let huge_page_bytes = bench.served.counters()?.huge_pages << 21;
    let report = Report {
        shape: effort.shape,
        isa: bench.served.ready.isa.clone(),
        cpus: arguments.cpus,
        tokens: effort.tokens,
        exit_cost_us: arguments.exit_cost,
        most_percent: arguments.most,
        most_growth: arguments.most_growth,
        layers,
        latencies,
        huge_page_bytes,
        memory_encryption: "not measured: needs hardware",
    };
    report.print(arguments.json)?;
    match arguments.quick {
        true => Ok(()),
        false => report.judge(),
    }
}

/// What a round measures with.
struct Bench {
    vitrine: PathBuf,
    workload: Workload,
    served: Served,
}

/// One round: seconds of the engine alone from the first token to the last, and the layers.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    alone: f64,
    emulated: Layer,
    tls: Layer,
    attested: Layer,
}

/// Seconds of one layer.
#[derive(Clone, Copy, Debug)]
struct Layer {
    /// From the first token to the last, as the clients see it.
    decode: f64,
    /// What the trust domain's engine took for it, from the prompt on.
    computing: f64,
    /// What its first CPU did besides, from the connections on.
    serving: f64,
    /// Calls to the host meanwhile, of all CPUs.
    host_calls: f64,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "alone {:.3} s, emulated {:.3} s, TLS {:.3} s, attestation {:.3} s of which {:.3} s not computing",
            self.alone,
            self.emulated.decode,
            self.tls.decode,
            self.attested.decode,
            self.attested.serving
        )
    }
}

impl Bench {
    fn round(&mut self, streams: u32) -> Result<Round> {
        let alone = alone::generate(&self.vitrine, &self.workload, streams)?;
        let (emulated, tokens) = self.layer(streams, Delivery::Whole, Self::ask)?;
        ensure!(
            tokens == alone.tokens,
            "the trust domain and the host computed different tokens"
        );
        let (tls, _) = self.layer(streams, Delivery::Streamed, Self::ask)?;
        let attest = |bench: &Self, streams, delivery| {
            bench.ask_attested(streams, delivery, Duration::from_secs_f64(tls.decode))
        };
        let (attested, _) = self.layer(streams, Delivery::Streamed, attest)?;
        Ok(Round {
            alone: alone.decode_ms / 1e3,
            emulated,
            tls,
            attested,
        })
    }

    /// Measures a layer: answers as `ask` has them computed, less the time that answers of one token take. And the tokens.
    fn layer(
        &mut self,
        streams: u32,
        delivery: Delivery,
        ask: impl FnOnce(&Self, u32, Delivery) -> Result<(Duration, Vec<u32>)>,
    ) -> Result<(Layer, Vec<u32>)> {
        let (prefill, _) = self.served.ask(&self.workload, streams, 1, delivery)?;
        let (calls, before) = (self.served.counters()?.host_calls, self.served.load()?);
        let (all, tokens) = ask(self, streams, delivery)?;
        let (after, all_calls) = (self.served.load()?, self.served.counters()?.host_calls);
        let seconds =
            |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64();
        let layer = Layer {
            decode: seconds(prefill, all),
            computing: seconds(before.computing, after.computing),
            serving: seconds(before.serving, after.serving),
            host_calls: (all_calls - calls) as f64,
        };
        Ok((layer, tokens))
    }

    /// Whole answers.
    fn ask(&self, streams: u32, delivery: Delivery) -> Result<(Duration, Vec<u32>)> {
        self.served
            .ask(&self.workload, streams, self.workload.tokens, delivery)
    }

    /// Whole answers, and meanwhile as many new connections that are attested, evenly spread over half of the time `expected`: answers
    /// that take less than that do not end before the last of them.
    fn ask_attested(
        &self,
        streams: u32,
        delivery: Delivery,
        expected: Duration,
    ) -> Result<(Duration, Vec<u32>)> {
        let front = self.served.front()?;
        let pause = expected / 2 / streams;
        let begun = Instant::now();
        let (over, is_over) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let attesting = scope.spawn(move || {
                for done in 0..streams {
                    let wait = (pause * (done + 1)).saturating_sub(begun.elapsed());
                    if is_over.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                        return Err(Failure::new(format!(
                            "only {done} of {streams} connections were attested before the answers were complete"
                        )));
                    }
                    latency::attest(&front)?;
                }
                Ok(())
            });
            let answered = self.ask(streams, delivery);
            // It may have ended already.
            let _ = over.send(());
            let attested = attesting
                .join()
                .unwrap_or_else(|_| Err(Failure::new("a client panicked")));
            let answered = answered?;
            attested.map(|()| answered)
        })
    }
}
