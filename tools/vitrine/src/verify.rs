//! `vitrine verify`: judges evidence and says why.

mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use attestation::provisioning::PublicKey;
use client::{Address, Connector, Options};
use verifier::{
    Code, Collateral, MAX_CERTIFICATE, MAX_QUOTE, Report, Scope, Verifier, certificate_der, date,
};

use crate::failure::{Code as Exit, Failure};
use crate::owner::Owner;
use crate::trust::{Judge, Trust, read};

/// Judge the evidence of a trust domain: platform, binding, policy
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Verdicts:
  accepted            a genuine platform runs exactly the program, configuration and model that were named
  platform-genuine    a genuine platform, and nothing else was asked (--platform-only)
  platform-untrusted  no genuine, unrevoked platform is shown to have signed this
  evidence-mismatch   the quote does not belong to the certificate or claims it came with
  policy-unsatisfied  all of it is genuine, and not what is accepted; without --manifest and --model-digest nothing is
  no-evidence         the certificate carries none

Each finding has a code; docs/verification.md says what it means and what to do about it.

Examples:
  vitrine verify --to tcp://example.org:8443 --manifest vitrine-1.0.0.json --model-digest SHA256
  vitrine verify --cert server.pem --collateral collateral.json --at 2026-11-26T10:00:00Z --policy policy.toml
  vitrine verify --platform-only --quote quote.bin --collateral collateral.json --at 1795651200 --json")]
pub struct Args {
    #[command(flatten)]
    evidence: Evidence,
    #[command(flatten)]
    trust: Trust,
    #[command(flatten)]
    owner: Owner,
    /// Judge the platform and nothing that runs on it
    #[arg(long)]
    platform_only: bool,
    /// Judge at this time instead of now: seconds since 1970, 2026-11-26, or 2026-11-26T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Evidence {
    /// A bare quote; it is bound to no key, so it shows that such a domain exists and not who is talking
    #[arg(long, value_name = "FILE")]
    quote: Option<PathBuf>,
    /// A server's certificate, PEM or DER
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// A server, which must also answer a challenge: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
}

fn time(text: &str) -> Result<u64, &'static str> {
    date::parse(text).ok_or("not a time: write 2026-11-26T10:00:00Z, or seconds since 1970")
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let scope = match args.platform_only {
        true => Scope::PlatformOnly,
        false => Scope::Everything,
    };
    let owner = args.owner.key();
    if owner.is_some() && args.evidence.to.is_none() {
        return Err(Failure::usage(
            "--owner-key: only a server can show its owner's word, which stands in no file; it goes with --to",
        ));
    }
    let judge = args.trust.judge_at(args.at, scope)?.demanding(owner);
    let report = match &args.evidence {
        Evidence {
            quote: Some(path), ..
        } => judge.quote(&read(path, MAX_QUOTE)?)?,
        Evidence {
            cert: Some(path), ..
        } => {
            let file = read(path, 2 * MAX_CERTIFICATE)?;
            // What is not a certificate in PEM either is for the verifier to refuse.
            judge.certificate(&certificate_der(&file).unwrap_or(file))?
        }
        Evidence { to, .. } => {
            let address = to.as_ref().expect("the group demands one of the three");
            judge_server(judge, address)?
        }
    };
    let text = match args.json {
        true => format!("{}\n", report.json()),
        false => table::render(&report),
    };
    let shown = std::io::stdout().write_all(text.as_bytes());
    shown.map_err(|error| Failure::new(format!("the verdict cannot be shown: {error}")))?;
    conclude(&report)
}

/// Judges a server as before every prompt: by its certificate, and if that is accepted by its answer to a challenge and by its owner's word
/// if that is demanded. Nothing else is sent.
fn judge_server(judge: Judge, address: &Address) -> Result<Report, Failure> {
    let witness = Arc::new(Witness {
        judge,
        report: Mutex::default(),
        failure: Mutex::default(),
    });
    let trust = client::Trust::Evidence(Arc::clone(&witness) as Arc<dyn client::Judge>);
    let connected = Connector::new(Options::new(trust))?.connect(address);
    if let Some(failure) = take(&witness.failure) {
        return Err(failure);
    }
    match (take(&witness.report), connected) {
        (Some(report), _) => Ok(report),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => Err(Failure::new("a connection that nobody judged")),
    }
}

/// Keeps what came of judging a server.
struct Witness {
    judge: Judge,
    report: Mutex<Option<Report>>,
    /// Why there was no way to collateral.
    failure: Mutex<Option<Failure>>,
}

impl client::Judge for Witness {
    fn owner(&self) -> Option<PublicKey> {
        self.judge.owner()
    }

    fn verifier(&self) -> Verifier {
        self.judge.verifier()
    }

    fn collateral(&self, quote: &[u8]) -> Result<Collateral, Code> {
        self.judge.collateral(quote).unwrap_or_else(|failure| {
            set(&self.failure, failure);
            Err(Code::CollateralMissing)
        })
    }

    fn judged(&self, report: &Report) {
        self.judge.learn(report);
        set(&self.report, report.clone());
    }
}

fn set<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The exit code of a verdict.
fn conclude(report: &Report) -> Result<(), Failure> {
    let Some(code) = Exit::of_verdict(report.verdict) else {
        return Ok(());
    };
    let findings: Vec<&str> = report.findings.iter().map(|code| code.name()).collect();
    Err(Failure::with_code(
        code,
        format!("{}: {}", report.verdict, findings.join(", ")),
    ))
}
