//! `vitrine proxy`: an OpenAI-compatible endpoint on this machine, for programs that know nothing of attestation.

use core::time::Duration;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use client::{Address, Connector, Options};
use proxy::{Dialed, Dialer, Limits, Pool, Refusal, Shown, WeakerMode};
use verifier::{Code, Report, Scope};

use crate::failure::Failure;
use crate::owner::Owner;
use crate::terminal;
use crate::trust::Trust;

/// Pass on what OpenAI clients ask, to verified servers only
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Every connection to a server is verified before anything of a prompt goes over it, and again when its certificate changes or it \
is too old. A server that fails is skipped until it passes. What each one showed is at /vitrine/status, and for a person at /.

Answers carry the header Vitrine-Upstream, and Vitrine-Weaker-Mode while --insecure-no-tee or --test-root is in force.

Examples:
  vitrine proxy --to tcp://one.example:8443 tcp://two.example:8443 --policy policy.toml
  vitrine proxy --to tcp://127.0.0.1:8443 --insecure-no-tee --listen 127.0.0.1:9000
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python3 program.py")]
pub struct Args {
    /// The servers: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT (one or more, repeatable)
    #[arg(long, value_name = "ADDRESS", required = true, num_args = 1..)]
    to: Vec<Address>,
    /// Where to listen. What is asked here travels in the clear: keep it on this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Verify a connection anew after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    max_age: u32,
    /// Accept servers that are not in a trust domain: whoever runs them reads everything (development only)
    #[arg(long, conflicts_with_all = ["Trust", "Owner"])]
    insecure_no_tee: bool,
    #[command(flatten)]
    trust: Trust,
    #[command(flatten)]
    owner: Owner,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let listener = TcpListener::bind(args.listen)
        .map_err(|error| Failure::new(format!("cannot listen at {}: {error}", args.listen)))?;
    let listening = listener.local_addr().map_err(Failure::new)?;
    if !listening.ip().is_loopback() {
        eprintln!(
            "warning: --listen {}: prompts and answers travel in the clear to whoever asks here",
            args.listen
        );
    }
    let dialer = Judge::new(args)?;
    let limits = Limits {
        max_age: Duration::from_secs(args.max_age.into()),
        ..Limits::default()
    };
    let pool = Pool::new(Box::new(dialer), &args.to, limits);
    println!(
        "listening at http://{listening}; programs use http://{listening}/v1, people http://{listening}/"
    );
    match proxy::serve(pool, listener) {
        Ok(never) => match never {},
        Err(error) => Err(Failure::new(format!("the proxy stopped: {error}"))),
    }
}

/// Opens connections, and says on stderr when a server begins to pass or to fail.
struct Judge {
    connector: Connector,
    weaker_modes: Vec<WeakerMode>,
    /// What was last said of each server.
    said: Mutex<HashMap<String, String>>,
}

impl Judge {
    fn new(args: &Args) -> Result<Self, Failure> {
        if args.insecure_no_tee {
            eprintln!(
                "warning: --insecure-no-tee: nothing shows who or what answers at these addresses; they can read everything sent to them"
            );
            return Ok(Self::with(
                client::Trust::InsecureNoTee,
                vec![WeakerMode::InsecureNoTee],
            )?);
        }
        let judge = args
            .trust
            .judge(Scope::Everything)?
            .demanding(args.owner.key());
        let weaker_modes = match judge.is_test() {
            true => vec![WeakerMode::TestRoot],
            false => Vec::new(),
        };
        Ok(Self::with(
            client::Trust::Evidence(Arc::new(judge)),
            weaker_modes,
        )?)
    }

    fn with(trust: client::Trust, weaker_modes: Vec<WeakerMode>) -> Result<Self, client::Error> {
        Ok(Self {
            connector: Connector::new(Options::new(trust))?,
            weaker_modes,
            said: Mutex::default(),
        })
    }

    /// Says what a server has come to, unless that was the last thing said of it. `kind` tells two such things apart: the words may name a
    /// time.
    fn say(&self, address: &Address, kind: String, words: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.to_string();
        if said.get(&address) != Some(&kind) {
            eprintln!("{address}: {}", terminal::printable(words));
            said.insert(address, kind);
        }
    }
}

/// What decided against a server.
fn findings(reports: &[Report]) -> &[Code] {
    reports.last().map_or(&[], |report| &report.findings)
}

impl Dialer for Judge {
    fn dial(&self, address: &Address) -> Result<Dialed, Refusal> {
        let dialed = self.connector.connect(address).map_err(Refusal::from);
        match &dialed {
            Ok(_) => self.say(address, "accepted".to_owned(), "accepted"),
            Err(refusal) => {
                let words = refusal.to_string();
                let kind = match refusal {
                    Refusal::Evidence(reports) => format!("{:?}", findings(reports)),
                    Refusal::Connection(_) => words.clone(),
                };
                self.say(address, kind, &words);
            }
        }
        let session = dialed?;
        let shown = session.proof().map(Shown::from).unwrap_or_default();
        Ok(Dialed { session, shown })
    }

    fn weaker_modes(&self) -> &[WeakerMode] {
        &self.weaker_modes
    }
}
