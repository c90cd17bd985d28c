//! The `vitrine` command line: boots guests, talks to them, and runs the same engine on the host.

#![forbid(unsafe_code)]

mod chat;
mod collateral;
mod connection;
mod doctor;
mod emulator;
mod eval;
mod failure;
mod generate;
mod hardware_report;
mod health;
mod host;
mod measure;
mod memory;
mod model;
mod owner;
mod progress;
mod provision;
mod proxy;
mod run;
mod sampling;
mod seal;
mod sealed;
mod shell;
mod synthesize;
mod terminal;
mod tokenize;
mod trust;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// A language model in one measured image: boot it, talk to it, check it
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Addresses:
  tcp://HOST:PORT       TCP (IPv6 in brackets)
  vsock://CID:PORT      a guest on this host, through /dev/vhost-vsock
  unix:PATH#PORT        the same through a Unix socket, as `vitrine run --vsock-uds` offers it

Exit codes:
  0  done; accepted    20  platform-untrusted; not signed by whom it must be
  1  failed            21  evidence-mismatch; not what it should be
  2  wrong usage or    22  policy-unsatisfied
     unreadable file   23  no evidence
 30  no connection, or it broke                         130  interrupted

Examples:
  vitrine synthesize --out tiny.gguf
  vitrine run --image vitrine.fd --model tiny.gguf --tcp 8443
  vitrine chat --to tcp://127.0.0.1:8443 --insecure-no-tee --prompt 'Good morning.'
  vitrine verify --to tcp://127.0.0.1:8443 --manifest vitrine.json --model-digest SHA256
  vitrine generate --model tiny.gguf --chat 'Good morning.' --seed 1"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Args),
    Doctor(doctor::Args),
    HardwareReport(hardware_report::Args),
    Emulator(emulator::Args),
    Chat(chat::Args),
    Proxy(proxy::Args),
    Health(health::Args),
    Verify(verify::Args),
    Seal(seal::Args),
    Provision(provision::Args),
    Model(model::Args),
    Generate(generate::Args),
    Tokenize(tokenize::Args),
    Eval(eval::Args),
    Synthesize(synthesize::Args),
    Measure(measure::Args),
}

fn main() -> ExitCode {
    let outcome: Result<(), Failure> = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::HardwareReport(args) => hardware_report::run(&args),
        Command::Emulator(args) => emulator::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Seal(args) => seal::run(&args),
        Command::Provision(args) => provision::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Synthesize(args) => synthesize::run(&args),
        Command::Measure(args) => measure::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // It may quote what a server said.
            eprintln!("error: {}", terminal::printable(&failure.to_string()));
            ExitCode::from(failure.code as u8)
        }
    }
}
