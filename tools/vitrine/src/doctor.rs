//! `vitrine doctor`: what this machine can run, what it lacks, and what to do about each.

mod backend;
mod check;
mod machine;
mod qemu;

use std::path::PathBuf;

use crate::failure::Failure;
use crate::run::{Backend, DEFAULT_QUOTE_SERVICE, QuoteService};
use backend::{ALL, title};
pub use backend::{Finding, examine};
use check::State;
pub use machine::Machine;

/// Check what this machine can run, and what to do about what is missing
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code 0 if every backend named by --backend can run here; without --backend, if any can. Otherwise 1.

  good  as it should be
  poor  runs, and something is slower or missing
  bad   cannot run before this is changed

VITRINE_QEMU names another QEMU than the one in PATH.

Examples:
  vitrine doctor
  vitrine doctor --backend tdx --quote-service vsock://2:4050
  vitrine doctor --backend emulator --json")]
pub struct Args {
    /// Check for this backend only (can be repeated)
    #[arg(long, value_enum)]
    backend: Vec<Backend>,
    /// Where the quote generation service should listen, unix:PATH or vsock://CID:PORT
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_QUOTE_SERVICE)]
    quote_service: QuoteService,
    /// Look at /proc, /sys and /dev below this directory instead
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the findings as one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let subjects = match args.backend.as_slice() {
        [] => &ALL[..],
        some => some,
    };
    let machine = Machine::new(&args.root);
    let findings: Vec<Finding> = subjects
        .iter()
        .map(|&subject| examine(subject, &machine, &args.quote_service))
        .collect();
    match args.json {
        true => println!("{}", serde_json::json!({ "backends": findings })),
        false => findings.iter().for_each(print),
    }
    let usable = match args.backend.is_empty() {
        true => findings.iter().any(|finding| finding.usable),
        false => findings.iter().all(|finding| finding.usable),
    };
    match usable {
        true => Ok(()),
        false => Err(Failure::new(
            "not everything asked for can run here; the arrows above say what to do",
        )),
    }
}

fn print(finding: &Finding) {
    let verdict = match finding.usable {
        true => "can run here",
        false => "cannot run here",
    };
    println!("{}: {verdict}", title(finding.backend));
    for check in &finding.checks {
        let state = match check.state {
            State::Good => "good",
            State::Poor => "poor",
            State::Bad => "bad ",
        };
        println!("  {state}  {:<14} {}", check.name, check.found);
        if let Some(advice) = &check.advice {
            println!("        → {advice}");
        }
    }
    println!();
}
