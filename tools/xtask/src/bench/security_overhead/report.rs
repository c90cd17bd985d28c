//! What the rounds come to, for a person and for a program.

use serde::Serialize;

use super::super::latency::Latency;
use super::super::statistics::Percentiles;
use super::super::workload::Workload;
use super::{Layer, Round, median};
use crate::failure::{Result, ensure};

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    pub shape: String,
    pub isa: String,
    pub cpus: u32,
    pub tokens: u32,
    pub exit_cost_us: f64,
    pub most_percent: f64,
    pub layers: Vec<Layers>,
    pub latencies: Vec<Latency>,
    pub memory_encryption: &'static str,
}

/// The layers with one number of answers at a time. Speeds are of all answers together, medians of the rounds; shares are of the time that the
/// trust domain's engine takes, medians of what they are in each round.
#[derive(Clone, Debug, Serialize)]
pub struct Layers {
    pub streams: u32,
    pub rounds: usize,
    /// Tokens a second.
    pub alone: f64,
    pub emulated: f64,
    pub tls: f64,
    pub attested: f64,
    /// Of the time of the engine alone.
    pub emulator_percent: f64,
    /// Connections, and answers in one piece.
    pub serving_percent: f64,
    /// What a record for every token adds to that.
    pub tls_percent: f64,
    /// What attestation adds to both.
    pub attestation_percent: f64,
    pub host_calls_per_token: f64,
    pub host_calls_percent: f64,
    /// All of these.
    pub ours_percent: f64,
}

impl Layers {
    /// Judges rounds.
    pub fn new(streams: u32, workload: &Workload, exit_cost_us: f64, rounds: Vec<Round>) -> Self {
        let of = |value: &dyn Fn(&Round) -> f64| {
            let values: Vec<f64> = rounds.iter().map(value).collect();
            median(&values)
        };
        let speed = |seconds: &dyn Fn(&Round) -> f64| {
            let tokens = workload.steps() * f64::from(streams);
            of(&|round| tokens / seconds(round))
        };
        let share = |part: &dyn Fn(&Round) -> f64| of(&|round| part(round) * 100.0);
        let serving = |layer: &Layer| layer.serving / layer.computing;
        let calls =
            |round: &Round| round.host_calls * exit_cost_us / 1e6 / round.attested.computing;
        Self {
            streams,
            rounds: rounds.len(),
            alone: speed(&|round| round.alone),
            emulated: speed(&|round| round.emulated.decode),
            tls: speed(&|round| round.tls.decode),
            attested: speed(&|round| round.attested.decode),
            emulator_percent: of(&|round| {
                (round.emulated.decode - round.alone) / round.alone * 100.0
            }),
            serving_percent: share(&|round| serving(&round.emulated)),
            tls_percent: share(&|round| serving(&round.tls) - serving(&round.emulated)),
            attestation_percent: share(&|round| serving(&round.attested) - serving(&round.tls)),
            host_calls_per_token: of(&|round| {
                round.host_calls / f64::from(streams * workload.tokens)
            }),
            host_calls_percent: share(&calls),
            ours_percent: share(&|round| serving(&round.attested) + calls(round)),
        }
    }
}

impl Report {
    /// Prints the tables.
    pub fn print(&self, json: bool) -> Result<()> {
        let text = self.for_a_person();
        if json {
            eprintln!("{text}");
            println!("{}", serde_json::to_string(self)?);
        } else {
            println!("{text}");
        }
        Ok(())
    }

    /// Fails if too much is ours.
    pub fn judge(&self) -> Result<()> {
        for layers in &self.layers {
            ensure!(
                layers.ours_percent <= self.most_percent,
                "with {} streams {:.2} % of decode is ours, {} % may be",
                layers.streams,
                layers.ours_percent,
                self.most_percent
            );
        }
        Ok(())
    }

    fn for_a_person(&self) -> String {
        let mut lines = vec![format!(
            "{} Q4_K_M, {} CPUs, {}, answers of {} tokens",
            self.shape, self.cpus, self.isa, self.tokens
        )];
        for layers in &self.layers {
            lines.push(format!(
                "\n{} streams, medians of {} rounds",
                layers.streams, layers.rounds
            ));
            let speed = |name: &str, tokens: f64| format!("  {name:<34} {tokens:9.2} tokens/s");
            let share = |name: &str, percent: f64, of: &str| {
                format!("  {name:<34} {percent:9.2} % of {of}")
            };
            lines.extend([
                speed("engine alone", layers.alone),
                speed("+ emulated TD", layers.emulated),
                speed("+ TLS", layers.tls),
                speed("+ attestation", layers.attested),
                share(
                    "the emulator's own",
                    layers.emulator_percent,
                    "the engine's time",
                ),
                share(
                    "connections, whole answers",
                    layers.serving_percent,
                    "computing",
                ),
                share(
                    "TLS: a record for each token",
                    layers.tls_percent,
                    "computing",
                ),
                share(
                    "attestation, one for each answer",
                    layers.attestation_percent,
                    "computing",
                ),
                format!(
                    "{}: {:.2} for each token, {} us each",
                    share("calls to the host", layers.host_calls_percent, "computing"),
                    layers.host_calls_per_token,
                    self.exit_cost_us
                ),
                share("ours: all four", layers.ours_percent, "computing"),
                format!("  {:<34} {}", "memory encryption", self.memory_encryption),
            ]);
        }
        lines.push(format!(
            "\n  {:<34} {:>24}   {:>24}",
            "milliseconds (p50 p90 p99)", "handshake", "attestation"
        ));
        for latency in &self.latencies {
            let name = match latency.context {
                None => "nothing else being done".to_owned(),
                Some(context) => format!("decoding after {context} tokens"),
            };
            let numbers =
                |of: &Percentiles| format!("{:7.1} {:7.1} {:7.1} ", of.p50, of.p90, of.p99);
            lines.push(format!(
                "  {name:<34} {}   {}",
                numbers(&latency.handshake_ms),
                numbers(&latency.attestation_ms)
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layer;
    use super::*;

    #[test]
    fn shares_are_of_decode() {
        let workload = Workload {
            model: "m".into(),
            cpus: 2,
            tokens: 101,
            huge_pages: true,
        };
        let layer = |decode, serving| Layer {
            decode,
            computing: 20.0,
            serving,
        };
        let round = Round {
            alone: 9.0,
            emulated: layer(10.0, 0.02),
            tls: layer(10.1, 0.06),
            attested: layer(10.2, 0.16),
            host_calls: 2000.0,
        };
        let layers = Layers::new(2, &workload, 10.0, vec![round; 3]);
        assert_eq!(layers.emulated, 20.0);
        assert!((layers.emulator_percent - 100.0 / 9.0).abs() < 1e-9);
        for (percent, expected) in [
            (layers.serving_percent, 0.1),
            (layers.tls_percent, 0.2),
            (layers.attestation_percent, 0.5),
            (layers.host_calls_percent, 0.1),
            (layers.ours_percent, 0.9),
        ] {
            assert!((percent - expected).abs() < 1e-9, "{percent} {expected}");
        }
    }
}
