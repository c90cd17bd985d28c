//! What the rounds come to, for a person and for a program.

use serde::Serialize;

use super::super::latency::Latency;
use super::super::print;
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
    /// What handshake and attestation may take after the longest context, times the shortest.
    pub most_growth: f64,
    pub layers: Vec<Layers>,
    pub latencies: Vec<Latency>,
    /// Of the trust domain's memory, in this machine's pages of 2 MiB.
    pub huge_page_bytes: u64,
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
    /// What clients wait longer with attested streams than with answers in one piece: smallest, median, largest. All of it, the machine's noise
    /// included, which is why it is not judged.
    pub clients_percent: [f64; 3],
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
        let calls = |round: &Round| {
            round.attested.host_calls * exit_cost_us / 1e6 / round.attested.computing
        };
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
            clients_percent: spread(&rounds),
            serving_percent: share(&|round| serving(&round.emulated)),
            tls_percent: share(&|round| serving(&round.tls) - serving(&round.emulated)),
            attestation_percent: share(&|round| serving(&round.attested) - serving(&round.tls)),
            host_calls_per_token: of(&|round| {
                round.attested.host_calls / f64::from(streams * workload.tokens)
            }),
            host_calls_percent: share(&calls),
            ours_percent: share(&|round| serving(&round.attested) + calls(round)),
        }
    }
}

/// See [`Layers::clients_percent`].
fn spread(rounds: &[Round]) -> [f64; 3] {
    let longer = |round: &Round| (round.attested.decode / round.emulated.decode - 1.0) * 100.0;
    let values: Vec<f64> = rounds.iter().map(longer).collect();
    let least = values.iter().copied().fold(f64::NAN, f64::min);
    let most = values.iter().copied().fold(f64::NAN, f64::max);
    [least, median(&values), most]
}

impl Report {
    /// Prints the tables.
    pub fn print(&self, json: bool) -> Result<()> {
        let text = self.for_a_person();
        print(&text, self, json)
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
        for growth in growth(&self.latencies).into_iter().flatten() {
            ensure!(
                growth <= self.most_growth,
                "handshake or attestation takes {growth:.2} times as long after the longest context, {} is allowed",
                self.most_growth
            );
        }
        Ok(())
    }

    fn for_a_person(&self) -> String {
        let mut lines = vec![format!(
            "{} Q4_K_M, {} CPUs, {}, answers of {} tokens, {} MiB in 2 MiB pages",
            self.shape,
            self.cpus,
            self.isa,
            self.tokens,
            self.huge_page_bytes >> 20
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
                format!(
                    "{}, from {:.2} to {:.2}",
                    share(
                        "clients of the last wait longer by",
                        layers.clients_percent[1],
                        "the second"
                    ),
                    layers.clients_percent[0],
                    layers.clients_percent[2]
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
        if let Some(growth) = growth(&self.latencies) {
            lines.push(format!(
                "  {:<34} {:>8.2} {:>26.2}",
                "longest context, times the shortest", growth[0], growth[1]
            ));
        }
        lines.join("\n")
    }
}

/// How much longer handshakes and attestations take after the longest context than after the shortest one, by their medians.
fn growth(latencies: &[Latency]) -> Option<[f64; 2]> {
    let decoding = || latencies.iter().filter(|latency| latency.context.is_some());
    let shortest = decoding().min_by_key(|latency| latency.context)?;
    let longest = decoding().max_by_key(|latency| latency.context)?;
    Some([
        longest.handshake_ms.p50 / shortest.handshake_ms.p50,
        longest.attestation_ms.p50 / shortest.attestation_ms.p50,
    ])
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
            host_calls: 2000.0,
        };
        let round = Round {
            alone: 9.0,
            emulated: layer(10.0, 0.02),
            tls: layer(10.1, 0.06),
            attested: layer(10.2, 0.16),
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
