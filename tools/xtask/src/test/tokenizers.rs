//! `vitrine tokenize` against Hugging Face `tokenizers`: every code point and a hundred thousand generated strings.
//!
//! `oracles/huggingface.py` says what is generated and what it is compared with.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::Suite;
use crate::failure::{Context, Failure, Result, ensure};
use crate::process;
use crate::python;
use crate::tools;
use crate::workspace::Workspace;

const NAME: &str = "engine/huggingface-tokenizers";
const VOCABULARY: &str = "vocab/ggml-vocab-qwen2.gguf";
/// Random strings, besides the systematic ones.
const STRINGS: usize = 100_000;
/// For the other tokenizer on a slow machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// Runs the test.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    if !suite.wants(NAME) {
        return;
    }
    let model = workspace.vectors().join(VOCABULARY);
    if !model.exists() {
        return suite.skip(NAME, &format!("oracle {VOCABULARY} is missing"));
    }
    let oracles = workspace.root.join("tools/xtask/oracles");
    let python = match python::environment(workspace, &oracles.join("requirements.txt")) {
        Ok(python) => python,
        Err(failure) => return suite.skip(NAME, &failure.to_string()),
    };
    suite.check(NAME, || {
        let directory =
            TempDir::with_prefix("vitrine-tokenizers-").context("create a directory")?;
        let (strings, theirs) = (
            directory.path().join("strings"),
            directory.path().join("ids"),
        );
        let mut oracle = Command::new(&python);
        oracle.arg(oracles.join("huggingface.py")).arg(&model);
        oracle.arg(STRINGS.to_string()).arg(&strings).arg(&theirs);
        eprint!("{}", process::text(&mut oracle, LIMIT)?);

        let ours = directory.path().join("ours");
        let mut vitrine = Command::new(tools::vitrine(workspace)?);
        vitrine.args(["tokenize", "--json", "--json-lines", "--model"]);
        vitrine.arg(&model).arg("--file").arg(&strings);
        let output = File::create(&ours).context("create a file")?;
        vitrine.stdin(Stdio::null()).stdout(output);
        let status = process::Process::start(&mut vitrine)?.wait(LIMIT)?;
        ensure!(status.success(), "vitrine tokenize ended with {status}");

        let read = |path| fs::read_to_string(path).context("read what was written");
        compare(&read(&strings)?, &read(&ours)?, &read(&theirs)?)
    });
}

/// Compares line by line.
fn compare(strings: &str, ours: &str, theirs: &str) -> Result<()> {
    let count = strings.lines().count();
    ensure!(
        count >= STRINGS && ours.lines().count() == count && theirs.lines().count() == count,
        "{count} strings, {} lines of ours, {} of theirs",
        ours.lines().count(),
        theirs.lines().count()
    );
    let pairs = ours.lines().zip(theirs.lines());
    let mut different = strings
        .lines()
        .zip(pairs)
        .filter(|(_, (ours, theirs))| ours != theirs);
    match different.next() {
        None => Ok(()),
        Some((string, (ours, theirs))) => Err(Failure::new(format!(
            "{} strings of {count} differ, the first is {string}: {ours} here, {theirs} there",
            1 + different.count()
        ))),
    }
}
