//! `vitrine health`: how far a server is.

use client::{Error, Health, State};
use serde::Serialize;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::terminal;

/// Ask a server how far it is (exit code 0 only when it is ready)
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A server that is not accepted, as one is not whose model is still sealed or loading, is asked all the same, over a connection that nobody \
has judged: nothing private is sent. What it says is then marked \"unverified\", since anybody could say it, and the exit code is the \
verdict's (20 to 23).

With --json, what the server says is one JSON object, with \"verified\": true or false beside it.

Examples:
  vitrine health --to tcp://127.0.0.1:8443 --policy policy.toml
  vitrine health --to tcp://127.0.0.1:8443 --insecure-no-tee --json")]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    /// Whether it comes from a server whose evidence was accepted.
    verified: bool,
    #[serde(flatten)]
    health: &'a Health,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let connection = &args.connection;
    match connection.client()?.health() {
        Ok(health) => {
            let detail = show(args, &health, !connection.is_insecure());
            if health.state != State::Ready {
                return Err(Failure::new(detail));
            }
            if !args.json {
                println!("{}", terminal::printable(&detail));
            }
            Ok(())
        }
        Err(refusal @ (Error::Untrusted(_) | Error::NoEvidence)) => {
            // Whoever does not even say how far it is was refused all the same.
            if let Ok(health) = connection.unverified_health() {
                let detail = show(args, &health, false);
                eprintln!("unverified: {}", terminal::printable(&detail));
            }
            Err(refusal.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows what does not go into one sentence, and gives the sentence.
fn show(args: &Args, health: &Health, verified: bool) -> String {
    if args.json {
        println!("{}", serde_json::json!(Shown { verified, health }));
    }
    if let Some(failure) = &health.evidence_failure {
        let standing = health.evidence.as_deref().unwrap_or("unknown");
        let note = format!("its evidence is {standing}: {failure}");
        eprintln!("note: {}", terminal::printable(&note));
    }
    match health.state {
        State::Ready => format!(
            "ready: model {}, {} CPUs, {}",
            health.model.as_deref().unwrap_or("unnamed"),
            health
                .vcpus
                .map_or_else(|| "?".to_owned(), |n| n.to_string()),
            health.isa.as_deref().unwrap_or("unknown instruction set"),
        ),
        State::Booting => "booting".to_owned(),
        State::Sealed => "sealed: the model waits for its key".to_owned(),
        State::Warming => "warming up".to_owned(),
        State::Draining => "draining: its evidence has expired and cannot be renewed".to_owned(),
        State::Loading => format!("loading: {} %", health.percent.unwrap_or(0)),
        State::Failed => format!(
            "failed: {}",
            health.reason.as_deref().unwrap_or("no reason given")
        ),
    }
}
