//! How fast a model is here: reading a prompt, and one token after another.

use std::time::Instant;

use super::HostSession;
use crate::failure::Failure;

/// Tokens decoded for the measurement.
const DECODED: usize = 16;
/// Runs of which the best counts: others' work on the machine only ever slows one down.
const RUNS: usize = 3;

/// Tokens a second.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    pub prompt: f64,
    pub decode: f64,
}

/// Reads the first half of a window, then decodes tokens of the second.
pub fn measure(session: &mut HostSession<'_>, window: &[u32]) -> Result<Speed, Failure> {
    let (prompt, rest) = window.split_at(window.len() / 2);
    let decoded = rest.get(..DECODED.min(rest.len())).unwrap_or_default();
    let mut best = Speed {
        prompt: 0.0,
        decode: 0.0,
    };
    for _ in 0..RUNS {
        session.clear();
        let started = Instant::now();
        session.feed(prompt).map_err(Failure::new)?;
        best.prompt = best.prompt.max(rate(prompt.len(), started));
        let started = Instant::now();
        for token in decoded {
            session.feed(&[*token]).map_err(Failure::new)?;
        }
        best.decode = best.decode.max(rate(decoded.len(), started));
    }
    Ok(best)
}

fn rate(tokens: usize, since: Instant) -> f64 {
    tokens as f64 / since.elapsed().as_secs_f64().max(1e-9)
}
