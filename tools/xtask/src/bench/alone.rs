//! The engine without protection: `vitrine generate` on this machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::workload::Workload;
use crate::failure::Result;
use crate::process;

const LIMIT: Duration = Duration::from_secs(3600);
/// Makes the C library ask for 2 MiB pages for all that it allocates (glibc 2.35 and later).
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// What `vitrine generate --json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Alone {
    pub tokens: Vec<u32>,
    pub threads: u32,
    pub isa: String,
    pub decode_ms: f64,
    pub memory: Memory,
}

/// Resident memory at its end, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Memory {
    pub resident: u64,
    /// Of that, in pages of 2 MiB.
    pub huge: u64,
}

/// Computes `streams` answers together.
pub fn generate(vitrine: &Path, workload: &Workload, streams: u32) -> Result<Alone> {
    let prompt: Vec<String> = workload.prompt().iter().map(u32::to_string).collect();
    let mut command = Command::new(vitrine);
    command
        .args(["generate", "--json", "--ignore-eos", "--temperature", "0"])
        .args(["--tokens", &prompt.join(",")])
        .args(["--max-tokens", &workload.tokens.to_string()])
        .args(["--threads", &workload.cpus.to_string()])
        .args(["--streams", &streams.to_string(), "--model"])
        .arg(&workload.model);
    if workload.huge_pages {
        command.env(HUGE_PAGES.0, HUGE_PAGES.1);
    }
    Ok(serde_json::from_str(&process::text(&mut command, LIMIT)?)?)
}
