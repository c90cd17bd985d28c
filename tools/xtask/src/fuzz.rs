//! `cargo xtask fuzz`: a search for bytes that do harm, guided by what they reach in the code that reads them.
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

/// What is searched.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    /// Model files
    Gguf,
    /// Claims of a trust domain
    Claims,
    /// Certificates with evidence, and answers to challenges
    Certificate,
    /// Policies of clients
    Policy,
    /// Manifests of releases
    Manifest,
    /// Headers of sealed models
    Sealed,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Claims => "claims",
            Self::Certificate => "certificate",
            Self::Policy => "policy",
            Self::Manifest => "manifest",
            Self::Sealed => "sealed",
        }
    }

    /// Where its search starts and its findings belong.
    const fn corpus(self) -> &'static str {
        match self {
            Self::Gguf => "guest/engine/tests/corpus",
            Self::Claims => "tools/verifier/tests/corpus/claims",
            Self::Certificate => "tools/verifier/tests/corpus/certificate",
            Self::Policy => "tools/verifier/tests/corpus/policy",
            Self::Manifest => "tools/verifier/tests/corpus/manifest",
            Self::Sealed => "guest/seal/tests/corpus",
        }
    }
}

/// Look for bytes that do harm: a panic, an overflow, an allocation or a time beyond what they justify
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// What to search
    #[arg(long, value_name = "NAME", default_value = "gguf")]
    target: Target,
    /// How long to look
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u32,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::BUILD)?;
    let target = workspace.target.join("fuzz");
    // What was found interesting is kept, and where the next search starts.
    let name = arguments.target.name();
    let found = target.join(format!("{name}-corpus"));
    let findings = target.join(format!("{name}-findings"));
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
            name,
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
        .arg(workspace.root.join(arguments.target.corpus()));
    let limit = BESIDES + Duration::from_secs(arguments.seconds.into());
    process::run(&mut cargo, limit).map_err(|failure| {
        Failure::new(format!(
            "{failure}; a file that did harm lies in {} and belongs into {}",
            workspace.show(&findings),
            arguments.target.corpus()
        ))
    })?;
    println!("no finding in {} s", arguments.seconds);
    Ok(())
}
