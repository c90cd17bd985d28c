//! What the demonstration has to say in the end, for a program or for a person.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::failure::Result;

/// What `--json` prints.
#[derive(Serialize)]
pub struct Report<'a> {
    pub backend: &'static str,
    /// What is weaker here than on hardware, in one sentence.
    pub weaker: &'static str,
    /// What `vitrine verify` makes of the machine: accepted, or why not.
    pub verdict: Value,
    pub findings: Value,
    /// MRTD, the RTMRs and what else the quote says; null without a quote that holds.
    pub measurements: Value,
    pub trust_anchor: Value,
    pub accelerator: &'a str,
    pub isa: &'a str,
    pub vcpus: u32,
    pub image_bytes: usize,
    pub image_sha384: String,
    /// What a TDX module would measure, in the page order of mainline KVM.
    pub image_mrtd: String,
    pub model: &'a str,
    /// SHA-256 of the file on the machine's disk, and of the model in it.
    pub sealed_sha256: &'a str,
    pub plaintext_sha256: &'a str,
    /// From reset to ready, by the guest's clock.
    pub boot_ms: u64,
    /// From starting it to ready, by this machine's clock.
    pub start_to_ready_ms: u128,
    #[serde(flatten)]
    pub answer: Answer,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// What came back.
#[derive(Serialize)]
pub struct Answer {
    pub prompt: String,
    pub answer: String,
    /// What `vitrine generate` gives on this machine too, with the same model, prompt, seed and instruction set.
    pub token_ids: Vec<u32>,
    pub finish_reason: Option<String>,
    pub tokens: usize,
    /// From sending the request to the first token.
    pub time_to_first_token_ms: f64,
    /// After the first token; none if there was only one.
    pub tokens_per_second: Option<f64>,
}

/// How to reach a guest that was left running.
#[derive(Serialize)]
pub struct Kept {
    pub address: String,
    /// The options with which `vitrine` judges it.
    pub options: String,
    pub process: u32,
    pub log: PathBuf,
}

impl Report<'_> {
    /// Prints it: one JSON object, or lines.
    pub fn print(&self, json: bool, vitrine: &Path) -> Result<()> {
        let text = self.for_a_person(vitrine);
        if json {
            eprintln!("\n{text}");
            println!("{}", serde_json::to_string(self)?);
        } else {
            println!("\n{text}");
        }
        Ok(())
    }

    fn for_a_person(&self, vitrine: &Path) -> String {
        let Answer {
            tokens,
            time_to_first_token_ms,
            tokens_per_second,
            ..
        } = &self.answer;
        let mut lines = Vec::new();
        for name in ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"] {
            if let Some(register) = self.measurements[name].as_str() {
                lines.push(format!("{:20} {register}", name.to_uppercase()));
            }
        }
        let verdict = self.verdict.as_str().unwrap_or_default();
        lines.extend([
            format!("verdict              {verdict}"),
            format!("weaker than hardware {}", self.weaker),
            format!(
                "boot                 {} ms from reset to ready",
                self.boot_ms
            ),
            format!("time to first token  {time_to_first_token_ms:.0} ms"),
        ]);
        if let Some(rate) = tokens_per_second {
            lines.push(format!("tokens per second    {rate:.1} ({tokens} tokens)"));
        }
        if let Some(kept) = &self.kept {
            let Kept {
                address,
                options,
                process,
                log,
            } = kept;
            let (vitrine, log) = (vitrine.display(), log.display());
            let https = address.replace("tcp://", "https://");
            lines.extend([
                "\nThe guest runs on. Talk to it:".to_owned(),
                format!("  {vitrine} chat --to {address} {options}"),
                format!("  curl -k {https}/v1/chat/completions -H 'Content-Type: application/json' \\"),
                "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"max_tokens\": 32}'".to_owned(),
                format!("Its console is in {log}; `kill {process}` ends it."),
            ]);
        }
        lines.join("\n")
    }
}
