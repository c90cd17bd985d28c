//! `vitrine health`: how far a server is.

use client::State;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::terminal;

/// Ask a server how far it is (exit code 0 only when it is ready)
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let health = args.connection.client()?.health()?;
    if args.json {
        println!("{}", serde_json::json!(health));
    }
    if let Some(failure) = &health.evidence_failure {
        let standing = health.evidence.as_deref().unwrap_or("unknown");
        let note = format!("its evidence is {standing}: {failure}");
        eprintln!("note: {}", terminal::printable(&note));
    }
    let detail = match health.state {
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
    };
    if health.state != State::Ready {
        return Err(Failure::new(detail));
    }
    if !args.json {
        println!("{}", terminal::printable(&detail));
    }
    Ok(())
}
