//! What is computed, the same on every side of a comparison.

use std::path::PathBuf;

use serde::Serialize;

/// A model, and how much of it is computed.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    pub model: PathBuf,
    /// Threads of the engine: the trust domain's virtual CPUs, the host's threads.
    pub cpus: u32,
    /// Tokens of an answer.
    pub tokens: u32,
    /// Whether this machine's 2 MiB pages are asked for, on every side, or its 4 KiB pages.
    pub huge_pages: bool,
}

/// Tokens of the prompt: enough to be one, and eight of them are computed at once.
const PROMPT: std::ops::Range<u32> = 100..116;

impl Workload {
    /// The prompt of every answer, as token identifiers.
    pub fn prompt(&self) -> Vec<u32> {
        PROMPT.collect()
    }

    /// Steps between the first token of an answer and the last.
    pub fn steps(&self) -> f64 {
        f64::from(self.tokens - 1)
    }
}
