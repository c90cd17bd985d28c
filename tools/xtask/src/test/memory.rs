//! What `vitrine generate` needs: the weights, the keys and values, and little more; and how long it takes to load.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use synthesis::{Mix, Recipe, Shape};
use tempfile::TempDir;

use super::Suite;
use crate::failure::{Context, Result, ensure};
use crate::interrupt;
use crate::process::{self, Process};
use crate::tools;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(1800);
/// For everything that is neither weights nor keys and values.
const BESIDES: u64 = 64 << 20;
/// Tokens of the prompt and of the answer: what there are keys and values of.
const PROMPT: u32 = 300;
const ANSWER: u32 = 16;

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    // The width of the 0.6B model and its vocabulary, which is most of its file, with fewer layers.
    let short = Shape {
        layers: 4,
        ..Shape::qwen3_0_6b()
    };
    suite.check("engine/memory", || measure(workspace, &short));
    if suite.full() {
        suite.check("engine/memory-1.1-gb", || {
            measure(workspace, &Shape::qwen3_1_7b())
        });
    }
}

fn measure(workspace: &Workspace, shape: &Shape) -> Result<()> {
    let program = tools::vitrine(workspace)?;
    let directory =
        TempDir::with_prefix_in("memory-", &workspace.target).context("create a directory")?;
    let model = directory.path().join("model.gguf");
    Recipe::new("memory", shape, Mix::Q4KM, 1)
        .context("describe a model")?
        .write_file(&model, &mut |_| {})
        .context("write a model")?;
    let weights = fs::metadata(&model).context("look at the model")?.len();
    // Two bytes for each element of a key and a value.
    let cache =
        u64::from((PROMPT + ANSWER) * shape.layers * shape.kv_heads * shape.head_dim) * 2 * 2;

    let prompt: Vec<String> = (0..PROMPT).map(|token| token.to_string()).collect();
    let mut command = Command::new(&program);
    command.args(["generate", "--max-tokens", &ANSWER.to_string()]);
    // A context that allows much more must not cost anything.
    command.args(["--context", "40960"]);
    command
        .args(["--tokens", &prompt.join(","), "--model"])
        .arg(&model);
    let peak = peak(&mut command)?;
    let besides = peak.saturating_sub(weights + cache);
    eprintln!(
        "peak {} MiB: weights {} MiB, keys and values {} MiB, {} MiB besides",
        peak >> 20,
        weights >> 20,
        cache >> 20,
        besides >> 20
    );

    let mut cat = Command::new("cat");
    let reading = time(cat.arg(&model))?;
    let mut load = Command::new(&program);
    load.args([
        "generate",
        "--tokens",
        "1",
        "--max-tokens",
        "1",
        "--context",
        "16",
        "--model",
    ]);
    let loading = time(load.arg(&model))?;
    // For a person to judge: the machine may be busy.
    eprintln!(
        "from start to the first token {:.2} s, `cat` {:.2} s: ratio {:.1}",
        loading.as_secs_f64(),
        reading.as_secs_f64(),
        loading.as_secs_f64() / reading.as_secs_f64().max(1e-3)
    );
    ensure!(
        peak >= weights,
        "a peak of {peak} bytes cannot hold the weights"
    );
    ensure!(
        besides <= BESIDES,
        "generate peaks {} MiB above weights, keys and values",
        besides >> 20
    );
    Ok(())
}

fn time(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = Process::start(command)?.wait(LIMIT)?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        process::words(command)
    );
    Ok(started.elapsed())
}

/// The most memory a program had resident, in bytes. Linux forgets it when the program ends, so it is asked often until then; what
/// the last few milliseconds add is missed.
fn peak(command: &mut Command) -> Result<u64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()));
    let mut process = Process::start(command)?;
    let path = format!("/proc/{}/status", process.child().id());
    let (mut peak, deadline) = (0, Instant::now() + LIMIT);
    let status = loop {
        if let Some(status) = process.ended() {
            break status;
        }
        peak = peak.max(high_water(Path::new(&path)).unwrap_or(0));
        interrupt::check()?;
        ensure!(
            Instant::now() < deadline,
            "generate is not finished after {} s",
            LIMIT.as_secs()
        );
        thread::sleep(Duration::from_millis(2));
    };
    ensure!(status.success(), "generate ended with {status}");
    Ok(peak)
}

/// `VmHWM` of a process.
fn high_water(status: &Path) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}
