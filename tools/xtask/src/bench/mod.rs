//! `cargo xtask bench`: what protection costs.
//!
//! Both sides of each comparison run on this machine, in turns, so that what else it does hits them alike; medians are compared. For numbers that mean something
//! the machine must have nothing else to do.

mod alone;
mod first_request;
mod latency;
mod opening;
mod security_overhead;
mod served;
mod statistics;
mod td_overhead;
mod workload;

use clap::Subcommand;
use serde::Serialize;

use crate::failure::Result;
use crate::workspace::Workspace;

/// Measure what protection costs
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand, Debug)]
enum Benchmark {
    TdOverhead(td_overhead::Arguments),
    SecurityOverhead(security_overhead::Arguments),
    FirstRequest(first_request::Arguments),
    Opening(opening::Arguments),
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    match &arguments.benchmark {
        Benchmark::TdOverhead(arguments) => td_overhead::run(workspace, arguments),
        Benchmark::SecurityOverhead(arguments) => security_overhead::run(workspace, arguments),
        Benchmark::FirstRequest(arguments) => first_request::run(workspace, arguments),
        Benchmark::Opening(arguments) => opening::run(workspace, arguments),
    }
}

/// Prints what was measured: for a person, or as JSON for a program and for a person on stderr.
fn print(text: &str, report: &impl Serialize, json: bool) -> Result<()> {
    if json {
        eprintln!("{text}");
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{text}");
    }
    Ok(())
}
