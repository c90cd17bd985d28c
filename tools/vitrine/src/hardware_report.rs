//! `vitrine hardware-report`: one command for an owner of TDX hardware, one file of evidence out of it.
//!
//! Each step is a command of this program, run as its user would run it, so that the file shows what the user would see.

mod benchmark;
mod evidence;
mod guest;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use client::{Connector, Options, Trust};
use serde_json::Value;

use crate::doctor::{self, Machine};
use crate::failure::{Code, Failure};
use crate::run::{Backend, DEFAULT_QUOTE_SERVICE, QuoteService};
use benchmark::Benchmark;
use evidence::{Evidence, Image, Stop, Verification};
use guest::Guest;

/// Names another program that makes the steps.
const PROGRAM_VARIABLE: &str = "VITRINE_PROGRAM";

/// Boot, verify and benchmark on TDX hardware, and write one file that shows it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Steps: doctor, measure the image, boot it as a trust domain, verify it, benchmark it. The file is written in any case, with what was \
reached; the first step that fails decides the exit code. Nothing is asked of a guest that is not accepted.

What stands behind -- goes to `vitrine verify` and `vitrine chat`: what to accept, as for any client. VITRINE_PROGRAM names another \
vitrine for the steps.

Examples:
  vitrine hardware-report --image vitrine.fd --model model.gguf --cpus 16 --memory 64G -- --manifest vitrine.json --model-digest SHA256
  vitrine hardware-report --image vitrine.fd --model model.gguf --quote-service vsock://2:4050 --out report.json -- --policy policy.toml")]
pub struct Args {
    /// The image (vitrine.fd)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The model (GGUF)
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The guest's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 16)]
    cpus: u32,
    /// Guest memory, such as 64G [default: as `vitrine run`]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Reach the guest through vsock under this context identifier
    #[arg(long, value_name = "CID", default_value_t = 10)]
    vsock_cid: u32,
    /// Reach the guest through this port of 127.0.0.1 instead
    #[arg(long, value_name = "PORT", conflicts_with = "vsock_cid")]
    tcp: Option<u16>,
    /// Where the quote generation service listens, unix:PATH or vsock://CID:PORT
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_QUOTE_SERVICE)]
    quote_service: QuoteService,
    /// Give up if the guest is not ready after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    ready_timeout: u64,
    /// Answers that are timed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    answers: u32,
    /// Look at /proc, /sys and /dev below this directory instead
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The file of evidence (JSON)
    #[arg(long, value_name = "FILE", default_value = "hardware-report.json")]
    out: PathBuf,
    /// What `vitrine verify` and `vitrine chat` get
    #[arg(last = true, value_name = "TRUST")]
    trust: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let program = match std::env::var_os(PROGRAM_VARIABLE) {
        Some(program) => program.into(),
        None => std::env::current_exe()
            .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut evidence = Evidence::new(now.map_or(0, |since| since.as_secs()));
    let outcome = collect(args, &program, &mut evidence);
    evidence.stopped = outcome.err();
    evidence.write(&args.out)?;
    println!("{}", evidence.summary());
    println!("the evidence is in {}", args.out.display());
    match evidence.stopped {
        None => Ok(()),
        Some(stop) => Err(Failure::with_code(
            stop.code,
            format!("stopped at `{}`: {}", stop.step, stop.reason),
        )),
    }
}

/// All steps, until one fails.
fn collect(args: &Args, program: &Path, evidence: &mut Evidence) -> Result<(), Stop> {
    eprintln!("1/5 looking at this machine");
    let machine = Machine::new(&args.root);
    evidence.machine = evidence::describe(&machine);
    let finding = doctor::examine(Backend::Tdx, &machine, &args.quote_service);
    let usable = finding.usable;
    evidence.doctor = Some(finding);
    if !usable {
        let advice = "`vitrine doctor --backend tdx` says what to do";
        return Err(Stop::new("doctor", Code::Failed, advice));
    }

    eprintln!("2/5 measuring the image");
    let image = Image::read(&args.image)
        .map_err(|error| Stop::new("measure", Code::Usage, error.to_string()))?;
    evidence.image = Some(image);

    eprintln!("3/5 booting it as a trust domain");
    let options = run_options(args);
    evidence.command = command_line(program, &options);
    let mut guest = Guest::start(program, &options)?;
    let ready = guest.wait_ready();
    let outcome = ready.and_then(|ready| {
        let address = guest::address(&ready)?;
        evidence.ready = Some(ready);
        judge(args, program, &address, evidence)
    });
    evidence.console = guest.stop();
    outcome
}

/// Verifies the guest; only an accepted one is asked anything.
fn judge(args: &Args, program: &Path, address: &str, evidence: &mut Evidence) -> Result<(), Stop> {
    eprintln!("4/5 verifying it");
    // A guest that cannot be reached is for `vitrine verify` to complain of.
    evidence.certificate = certificate(address);
    let arguments = [&words(&["verify", "--json", "--to", address]), &*args.trust].concat();
    let verification = Verification::from(&output(program, &arguments, "verify")?);
    let code = verification.exit_code;
    evidence.verification = Some(verification);
    if let Some(refusal) = refusal(code) {
        let reason = "the verification in the evidence says why";
        return Err(Stop::new("verify", refusal, reason));
    }

    eprintln!("5/5 timing {} answers", args.answers);
    let mut benchmark = Benchmark::default();
    // The first answer is not counted.
    for _ in 0..=args.answers {
        let question = words(&benchmark::question(address));
        let answer = output(program, &[&question, &*args.trust].concat(), "benchmark")?;
        let report = serde_json::from_slice(&answer.stdout).ok();
        let timing = report.as_ref().and_then(benchmark::timing);
        match (answer.status.success(), timing) {
            (true, Some(timing)) => benchmark.add(timing),
            _ => {
                let reason = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
                return Err(Stop::new("benchmark", Code::Failed, reason));
            }
        }
    }
    evidence.benchmark = Some(benchmark.without_first());
    Ok(())
}

/// The certificate of the guest, PEM. Nothing is sent to it: whom it belongs to is judged afterwards.
fn certificate(address: &str) -> Option<String> {
    let connector = Connector::new(Options::new(Trust::InsecureNoTee)).ok()?;
    let session = connector.connect(&address.parse().ok()?).ok()?;
    let certificate = session.certificate()?;
    Some(pem::encode(&pem::Pem::new("CERTIFICATE", certificate)))
}

/// What an exit code of `vitrine verify` means for this command; `None` for acceptance.
fn refusal(code: Option<i32>) -> Option<Code> {
    match code {
        Some(0) => None,
        Some(20) => Some(Code::PlatformUntrusted),
        Some(21) => Some(Code::EvidenceMismatch),
        Some(22) => Some(Code::PolicyUnsatisfied),
        Some(23) => Some(Code::NoEvidence),
        Some(30) => Some(Code::Transport),
        Some(2) => Some(Code::Usage),
        _ => Some(Code::Failed),
    }
}

/// The options of `vitrine run`.
fn run_options(args: &Args) -> Vec<OsString> {
    let mut options = words(&["run", "--backend", "tdx", "--json", "--exit-on-failure"]);
    let mut add = |name: &str, value: OsString| options.extend([name.into(), value]);
    add("--image", args.image.clone().into());
    add("--model", args.model.clone().into());
    if let Some(config) = &args.config {
        add("--config", config.clone().into());
    }
    add("--cpus", args.cpus.to_string().into());
    if let Some(memory) = &args.memory {
        add("--memory", memory.into());
    }
    match args.tcp {
        Some(port) => add("--tcp", port.to_string().into()),
        None => add("--vsock-cid", args.vsock_cid.to_string().into()),
    }
    add("--quote-service", args.quote_service.to_string().into());
    add("--ready-timeout", args.ready_timeout.to_string().into());
    options
}

/// QEMU's command line, as `--dry-run` prints it.
fn command_line(program: &Path, options: &[OsString]) -> Option<String> {
    let arguments = [options, &["--dry-run".into()]].concat();
    let output = output(program, &arguments, "run").ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Runs a command of this program to its end.
fn output(
    program: &Path,
    arguments: &[OsString],
    step: &'static str,
) -> Result<std::process::Output, Stop> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Stop::new(step, Code::Failed, error.to_string()))
}

fn words(text: &[&str]) -> Vec<OsString> {
    text.iter().map(OsString::from).collect()
}

/// A member of a JSON object that is text.
fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_is_acceptance() {
        assert!(refusal(Some(0)).is_none());
        for code in [1, 2, 20, 21, 22, 23, 30, 77] {
            let refusal = refusal(Some(code)).unwrap();
            assert!(refusal as i32 == code || refusal == Code::Failed, "{code}");
        }
        assert_eq!(refusal(None), Some(Code::Failed));
    }
}
