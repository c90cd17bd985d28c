//! `vitrine generate --logits` from the outside, against the oracle vectors: the table of their README, on every instruction set;
//! and the same digits whatever the number of threads and the size of a chunk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Suite;
use crate::failure::{Context, Failure, Result, ensure};
use crate::process;
use crate::tools;
use crate::workspace::Workspace;

/// For one prompt on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);
/// Tokens fed after the prompt; the vectors have 32 greedy tokens, the last of which follows nothing.
const FORCED: usize = 31;
/// Threads, and prompt tokens at once; the first is judged, the others must agree with it. 1 at once is token by token.
const WAYS: [[&str; 2]; 4] = [["1", "1024"], ["2", "48"], ["4", "7"], ["2", "1"]];
/// Prompts computed in all ways.
const THOROUGH: [&str; 3] = ["seven", "text", "rand257"];

#[derive(Deserialize)]
struct Case {
    model: String,
    prompts: String,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Tolerance {
    relrms: f64,
    margin: f64,
}

#[derive(Deserialize)]
struct Prompt {
    id: String,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Greedy {
    greedy: Vec<Vec<u32>>,
    margin: Vec<Vec<f64>>,
}

/// What the command prints; equal only if every bit is, for it prints every number so that it can be read back.
#[derive(Deserialize, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    const NAME: &str = "engine/logits";
    if !suite.wants(NAME) {
        return;
    }
    let vectors = workspace.vectors().join("engine");
    if !vectors.exists() {
        return suite.skip(NAME, "oracle engine is missing");
    }
    suite.check(NAME, || {
        let program = tools::vitrine(workspace)?;
        for case in read::<Vec<Case>>(&vectors.join("manifest.json"))? {
            let name = case.model.trim_end_matches(".gguf");
            let judge = Judge {
                program: &program,
                model: vectors.join(&case.model),
                prompts: read(&vectors.join(&case.prompts))?,
                logits: rows(&vectors.join(format!("{name}.ref.logits.npy")))?,
                greedy: read(&vectors.join(format!("{name}.ref.greedy.json")))?,
                tolerance: case.tolerance,
            };
            for isa in instruction_sets() {
                let worst = judge.judge(isa)?;
                eprintln!("{name} {isa}: worst relRMS {worst:.5}");
            }
        }
        Ok(())
    });
}

fn instruction_sets() -> Vec<&'static str> {
    let avx512 = is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    if !avx512 {
        eprintln!("this processor has no AVX-512: only avx2 is judged");
    }
    [Some("avx2"), avx512.then_some("avx512")]
        .into_iter()
        .flatten()
        .collect()
}

struct Judge<'a> {
    program: &'a Path,
    model: PathBuf,
    prompts: Vec<Prompt>,
    logits: Vec<Vec<f32>>,
    greedy: Greedy,
    tolerance: Tolerance,
}

impl Judge<'_> {
    /// Judges every prompt; the worst relative error.
    fn judge(&self, isa: &str) -> Result<f64> {
        let greedy = self.greedy.greedy.iter().zip(&self.greedy.margin);
        let references = self.logits.iter().zip(greedy);
        ensure!(
            self.prompts.len() == references.len() && !self.prompts.is_empty(),
            "the vectors have {} prompts and {} answers",
            self.prompts.len(),
            references.len()
        );
        let mut worst = 0.0f64;
        for (prompt, (reference, (greedy, margins))) in self.prompts.iter().zip(references) {
            let what = format!("{} {isa} {}", self.model.display(), prompt.id);
            let forced = greedy.get(..FORCED).unwrap_or(greedy);
            let answer = self.ask(isa, WAYS[0], prompt, forced)?;
            ensure!(
                answer.logits.len() == forced.len() + 1 && answer.tokens.len() == forced.len() + 1,
                "{what}: {} rows",
                answer.logits.len()
            );
            let error = relative_rms(&answer.logits[0], reference);
            let near = error <= self.tolerance.relrms;
            ensure!(
                near,
                "{what}: relRMS {error} where {} is allowed",
                self.tolerance.relrms
            );
            worst = worst.max(error);
            for (step, (token, (expected, margin))) in answer
                .tokens
                .iter()
                .zip(greedy.iter().zip(margins))
                .enumerate()
            {
                ensure!(
                    token == expected || *margin <= self.tolerance.margin,
                    "{what}: step {step} is {token}, not {expected}, margin {margin}"
                );
            }
            if !THOROUGH.contains(&prompt.id.as_str()) {
                continue;
            }
            for way in &WAYS[1..] {
                ensure!(
                    self.ask(isa, *way, prompt, forced)? == answer,
                    "{what}: other digits with {} threads and chunks of {}",
                    way[0],
                    way[1]
                );
            }
        }
        Ok(worst)
    }

    fn ask(&self, isa: &str, way: [&str; 2], prompt: &Prompt, forced: &[u32]) -> Result<Answer> {
        let mut command = Command::new(self.program);
        command.args(["generate", "--logits", "--json", "--isa", isa]);
        command.args(["--threads", way[0], "--chunk", way[1]]);
        command.arg("--model").arg(&self.model);
        command.args(["--tokens", &list(&prompt.tokens)]);
        command.args(["--force", &list(forced)]);
        Ok(serde_json::from_str(&process::text(&mut command, LIMIT)?)?)
    }
}

fn list(tokens: &[u32]) -> String {
    let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
    tokens.join(",")
}

/// rms(answer - reference) / rms(reference); infinite if they are not of one length.
fn relative_rms(answer: &[f32], reference: &[f32]) -> f64 {
    if answer.len() != reference.len() {
        return f64::INFINITY;
    }
    let squares =
        |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let pairs = answer.iter().zip(reference);
    let error = squares(&mut pairs.map(|(&a, &r)| f64::from(a) - f64::from(r)));
    (error / squares(&mut reference.iter().map(|&r| f64::from(r)))).sqrt()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).context(format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The rows of a two-dimensional float32 array in NumPy's format 1.0.
fn rows(path: &Path) -> Result<Vec<Vec<f32>>> {
    let bytes = fs::read(path).context(format!("read {}", path.display()))?;
    let parse = || {
        let preamble = bytes.strip_prefix(b"\x93NUMPY\x01\x00")?;
        let (length, rest) = preamble.split_first_chunk()?;
        let (header, data) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let header = core::str::from_utf8(header).ok()?;
        let (_, shape) = header.split_once("'shape': (")?;
        let columns: usize = shape.split([',', ')']).nth(1)?.trim().parse().ok()?;
        let values = data.chunks_exact(4).map(|value| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(value);
            f32::from_le_bytes(bytes)
        });
        let values: Vec<f32> = values.collect();
        (header.contains("'<f4'") && columns > 0)
            .then(|| values.chunks(columns).map(<[f32]>::to_vec).collect())
    };
    parse().ok_or_else(|| Failure::new(format!("{} is not understood", path.display())))
}
