//! `vitrine verify`: judges evidence and says why.

mod table;

use std::io::Write as _;
use std::path::PathBuf;

use client::{Address, Connector, Options, Trust as TlsTrust};
use verifier::{
    Code as Finding, MAX_CERTIFICATE, MAX_QUOTE, Report, Scope, UntrustedCertificate,
    certificate_der, date,
};

use crate::failure::{Code, Failure};
use crate::trust::{Trust, read};

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
    /// A server: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT
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
    let (verifier, mark) = match args.at {
        Some(now) => (args.trust.verifier_at(scope, now)?, None),
        None => args.trust.verifier(scope)?,
    };
    let source = args.trust.collateral();
    let report = match &args.evidence {
        Evidence {
            quote: Some(path), ..
        } => {
            let quote = read(path, MAX_QUOTE)?;
            verifier.quote(&quote, source.collateral(&quote, verifier.now)?)
        }
        Evidence {
            cert: Some(path), ..
        } => {
            let file = read(path, 2 * MAX_CERTIFICATE)?;
            // What is not a certificate in PEM either is for the verifier to refuse.
            let der = certificate_der(&file).unwrap_or(file);
            judge_certificate(&verifier, &der, source)?
        }
        Evidence { to, .. } => {
            let address = to.as_ref().expect("the group demands one of the three");
            judge_certificate(&verifier, &server_certificate(address)?, source)?
        }
    };
    if let Some(mark) = &mark {
        if report.findings.contains(&Finding::ClockRolledBack) {
            eprintln!(
                "note: if this computer's clock is right and was once wrong, delete {}",
                mark.file().display()
            );
        } else if report.proved.is_some() {
            mark.advance(verifier.now);
        }
    }
    let text = match args.json {
        true => format!("{}\n", report.json()),
        false => table::render(&report),
    };
    let shown = std::io::stdout().write_all(text.as_bytes());
    shown.map_err(|error| Failure::new(format!("the verdict cannot be shown: {error}")))?;
    conclude(&report)
}

/// The certificate of a server, which nothing is sent to: whom it belongs to is what is about to be judged.
fn server_certificate(address: &Address) -> Result<Vec<u8>, Failure> {
    let session = Connector::new(Options::new(TlsTrust::InsecureNoTee))?.connect(address)?;
    let certificate = session.certificate();
    Ok(certificate
        .expect("a TLS server has a certificate")
        .to_vec())
}

fn judge_certificate(
    verifier: &verifier::Verifier,
    der: &[u8],
    source: &crate::collateral::Source,
) -> Result<Report, Failure> {
    // Collateral is for the quote's platform; without a quote there is nothing to ask for.
    let collateral = match UntrustedCertificate::parse(der) {
        Ok(certificate) => source.collateral(certificate.quote(), verifier.now)?,
        Err(_) => Err(Finding::CollateralMissing),
    };
    Ok(verifier.certificate(der, collateral).0)
}

/// The exit code of a verdict.
fn conclude(report: &Report) -> Result<(), Failure> {
    let Some(code) = Code::of_verdict(report.verdict) else {
        return Ok(());
    };
    let findings: Vec<&str> = report.findings.iter().map(|code| code.name()).collect();
    Err(Failure::with_code(
        code,
        format!("{}: {}", report.verdict, findings.join(", ")),
    ))
}
