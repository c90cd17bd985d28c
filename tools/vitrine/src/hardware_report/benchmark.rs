//! Timed answers: how long until the first piece, and how fast the rest comes.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// What is asked each time: long enough to see the pace, and the same tokens on every machine.
const QUESTION: &str =
    "Tell a long story about a lighthouse keeper who counts the ships that pass.";
/// Tokens of an answer.
const TOKENS: &str = "128";

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Milliseconds to the first piece.
    pub first_ms: f64,
    /// Tokens per second after it.
    pub tokens_per_second: f64,
}

/// Timed answers in order.
#[derive(Clone, Debug, Default)]
pub struct Benchmark {
    answers: Vec<Timing>,
}

/// The arguments of `vitrine chat` for one answer.
pub fn question(address: &str) -> [&str; 11] {
    [
        "chat",
        "--json",
        "--to",
        address,
        "--prompt",
        QUESTION,
        "--max-tokens",
        TOKENS,
        "--temperature",
        "0",
        "--seed=1",
    ]
}

/// What `vitrine chat --json` says of an answer's time; `None` where it is too short to have a pace.
pub fn timing(answer: &Value) -> Option<Timing> {
    let number = |key: &str| answer.get(key)?.as_f64();
    let (first_ms, total_ms) = (number("ttft_ms")?, number("total_ms")?);
    let tokens = answer.get("usage")?.get("completion_tokens")?.as_f64()?;
    let seconds = (total_ms - first_ms) / 1000.0;
    (tokens > 1.0 && seconds > 0.0).then(|| Timing {
        first_ms,
        tokens_per_second: (tokens - 1.0) / seconds,
    })
}

impl Benchmark {
    /// One more answer.
    pub fn add(&mut self, timing: Timing) {
        self.answers.push(timing);
    }

    /// Without the first answer, which warms up.
    pub fn without_first(mut self) -> Self {
        self.answers.drain(..1.min(self.answers.len()));
        self
    }

    fn median(&self, of: impl Fn(&Timing) -> f64) -> f64 {
        let mut values: Vec<f64> = self.answers.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let upper = values.len() / 2;
        match (values.len() % 2, values.get(upper)) {
            (1, Some(&middle)) => middle,
            (0, Some(&above)) => values[upper - 1].midpoint(above),
            _ => f64::NAN,
        }
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "first piece after {:.1} ms, then {:.2} tokens/s (medians of {})",
            self.median(|timing| timing.first_ms),
            self.median(|timing| timing.tokens_per_second),
            self.answers.len()
        )
    }
}

/// Medians, then every answer.
impl Serialize for Benchmark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form<'a> {
            median_first_ms: f64,
            median_tokens_per_second: f64,
            answers: &'a [Timing],
        }
        let form = Form {
            median_first_ms: self.median(|timing| timing.first_ms),
            median_tokens_per_second: self.median(|timing| timing.tokens_per_second),
            answers: &self.answers,
        };
        form.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pace_is_that_after_the_first_piece() {
        let answer =
            json!({"ttft_ms": 100.0, "total_ms": 1100.0, "usage": {"completion_tokens": 51}});
        assert_eq!(
            timing(&answer),
            Some(Timing {
                first_ms: 100.0,
                tokens_per_second: 50.0
            })
        );
    }

    #[test]
    fn an_answer_without_a_pace_is_none() {
        for answer in [
            json!({"ttft_ms": 100.0, "total_ms": 100.0, "usage": {"completion_tokens": 51}}),
            json!({"ttft_ms": 100.0, "total_ms": 200.0, "usage": {"completion_tokens": 1}}),
            json!({"ttft_ms": 100.0, "total_ms": 200.0, "usage": null}),
            json!({}),
        ] {
            assert_eq!(timing(&answer), None, "{answer}");
        }
    }

    #[test]
    fn medians_leave_the_first_answer_out() {
        let mut benchmark = Benchmark::default();
        for first_ms in [1000.0, 3.0, 1.0, 2.0, 10.0] {
            benchmark.add(Timing {
                first_ms,
                tokens_per_second: first_ms * 2.0,
            });
        }
        let form = serde_json::to_value(benchmark.without_first()).unwrap();
        assert_eq!(form["median_first_ms"], 2.5);
        assert_eq!(form["median_tokens_per_second"], 5.0);
        assert_eq!(form["answers"].as_array().unwrap().len(), 4);
    }
}
