//! `cargo xtask fuzz`: a search for model files that do harm, guided by what they reach in the engine's code.
//!
//! libFuzzer and the instrumentation it is guided by; both work with the compiler everything here is built with.

use std::fs;
use std::time::Duration;

use crate::failure::{Context, Failure, Result};
use crate::packages;
use crate::process;
use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What libFuzzer needs of LLVM: counters on every edge, and the operands of comparisons. One unit of code generation a crate, so
/// that counters of inlined functions are not lost.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// For a build from nothing, and for ending after the time is up.
const BESIDES: Duration = Duration::from_secs(3600);

/// Look for model files (GGUF) that do harm: a panic, an overflow, an allocation or a time beyond what the file justifies
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// How long to look
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u32,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::BUILD)?;
    let target = workspace.target.join("fuzz");
    // What was found interesting is kept, and where the next search starts.
    let found = target.join("gguf-corpus");
    let findings = target.join("gguf-findings");
    for directory in [&found, &findings] {
        fs::create_dir_all(directory).context(format!("create {}", directory.display()))?;
    }
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.root.join("tools/fuzz"))
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", FLAGS)
        .args([
            "run",
            "--locked",
            "--release",
            "--target",
            TARGET,
            "--bin",
            "gguf",
            "--",
        ])
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args([
            "-max_len=16384",
            "-malloc_limit_mb=64",
            "-rss_limit_mb=1024",
            "-timeout=20",
        ])
        .arg("-print_final_stats=1")
        .arg(&found)
        .arg(workspace.root.join("guest/engine/tests/corpus"));
    let limit = BESIDES + Duration::from_secs(arguments.seconds.into());
    process::run(&mut cargo, limit).map_err(|failure| {
        Failure::new(format!(
            "{failure}; a file that did harm lies in {} and belongs into guest/engine/tests/corpus",
            workspace.show(&findings)
        ))
    })?;
    println!("no finding in {} s", arguments.seconds);
    Ok(())
}
