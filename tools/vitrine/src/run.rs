//! `vitrine run`: boots an image, shows its console, waits until it serves, and ends it on Ctrl-C.

mod accelerator;
mod advice;
mod console;
mod emulated;
mod guest;
mod machine;
mod plan;
mod tdx;
mod vsock;

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::shell;
use accelerator::Choice;
use console::{Line, Ready};
use guest::{Event, Guest, Source};
pub use machine::GUEST_PORT;
use plan::Plan;
pub use plan::{Backend, locate_qemu};
pub use tdx::{DEFAULT_QUOTE_SERVICE, QuoteService};

/// Back to the start of a terminal's line, and nothing on it.
const CLEAR_LINE: &str = "\r\x1b[K";

/// Boot an image and serve a model from it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A way in: --tcp forwards a loopback port; --vsock-uds needs vhost-device-vsock (in PATH, in target/tools/bin, or named by \
VITRINE_VHOST_DEVICE_VSOCK); --vsock-cid needs /dev/vhost-vsock. With none of them, vsock CID 3 where /dev/vhost-vsock is \
usable, else TCP port 8443. VITRINE_QEMU names another QEMU.

The console goes to stderr. When the guest is ready, its addresses go to stdout. A guest that fails stays up and tells why at \
/health until Ctrl-C, unless --exit-on-failure.

Examples:
  vitrine run --image vitrine.fd --model tiny.gguf --tcp 8443
  vitrine run --image vitrine.fd --model tiny.gguf --backend emulator --tcp 8443 -- --sept 2m
  vitrine run --image vitrine.fd --model tiny.gguf --vsock-uds /tmp/vm.sock --cpus 4 --memory 2G
  vitrine run --image vitrine.fd --model tiny.gguf --backend tdx --vsock-cid 10 --cpus 16 --memory 64G
  vitrine run --image vitrine.fd --model tiny.gguf --tcp 8443 --dry-run")]
pub struct Args {
    /// The image (vitrine.fd)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// What runs it
    #[arg(long, value_enum, default_value = "qemu")]
    backend: Backend,
    /// The model (GGUF); without one the guest says that it has none
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The guest's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Guest memory, such as 512M or 6G [default: the model's size and 512M]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
    /// Forward this port of 127.0.0.1 to the guest (0: a free one)
    #[arg(long, value_name = "PORT")]
    tcp: Option<u16>,
    /// Offer vsock at this Unix socket, through vhost-device-vsock
    #[arg(long, value_name = "PATH", conflicts_with = "vsock_cid")]
    vsock_uds: Option<PathBuf>,
    /// Offer vsock through the kernel, under this context identifier
    #[arg(long, value_name = "CID", value_parser = clap::value_parser!(u32).range(3..=0xffff_fffe))]
    vsock_cid: Option<u32>,
    /// The port the guest listens on, if its configuration changes it
    #[arg(long, value_name = "PORT", default_value_t = GUEST_PORT)]
    guest_port: u16,
    /// With --backend tdx: where the quote generation service listens, unix:PATH or vsock://CID:PORT
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_QUOTE_SERVICE)]
    quote_service: QuoteService,
    /// With --backend emulator: more arguments for `vitrine emulator`, such as --sept 2m
    #[arg(last = true, value_name = "ARGUMENT")]
    emulator: Vec<OsString>,
    /// How QEMU runs the guest's code
    #[arg(long, value_enum, default_value = "auto")]
    accel: Choice,
    /// Give up if the guest is not ready after this many seconds; the time for which it waits for its model's key does not count
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    ready_timeout: u64,
    /// End with exit code 1 as soon as the guest says that it failed
    #[arg(long)]
    exit_on_failure: bool,
    /// Print one JSON object on stdout when the guest is ready, and one before if its model is sealed and waits for its key
    #[arg(long)]
    json: bool,
    /// Print the exact commands and exit
    #[arg(long)]
    dry_run: bool,
}

/// What `--json` prints once the guest waits for its model's key, and once it is ready.
#[derive(Serialize)]
struct StateReport<'a> {
    event: &'static str,
    backend: Backend,
    addresses: &'a [String],
    accelerator: &'static str,
    isa: Option<&'a str>,
    vcpus: Option<u64>,
    boot_ms: Option<u64>,
    process: u32,
}

/// How the time in the guest ended.
enum End {
    /// A signal after the guest was ready.
    Stopped,
    /// A signal before that.
    Interrupted,
    /// The guest said why it cannot serve.
    Failed(String),
    /// QEMU ended by itself.
    Ended,
    /// Not ready in time.
    TimedOut,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan::new(args)?;
    if args.dry_run {
        if let Some(device) = &plan.device {
            println!("{} &", shell::join(device.command()));
        }
        println!("{}", shell::join(&plan.command));
        return Ok(());
    }
    if let (Backend::Tdx, QuoteService::Unix { path }) = (args.backend, &args.quote_service)
        && !path.exists()
    {
        eprintln!(
            "warning: {} is not there, so the guest will have no evidence; `vitrine doctor` says what to do",
            path.display()
        );
    }
    eprintln!(
        "starting {} ({}, {} CPUs, {} MiB)",
        args.backend.name(),
        plan.accelerator,
        plan.cpus,
        plan.memory_mib
    );
    let mut guest = Guest::start(&plan.command, plan.device.clone())?;
    let end = attend(args, &guest, |state| {
        report(args, &plan, guest.process(), state);
    });
    if shows_progress(args) {
        eprint!("{CLEAR_LINE}");
    }
    let status = match end {
        End::Ended => {
            let (status, lines) = guest.wait();
            for line in lines {
                eprintln!("{} | {line}", Source::Qemu.prefix());
            }
            status
        }
        _ => None,
    };
    guest.stop();
    match end {
        End::Stopped => {
            eprintln!("the guest is stopped");
            Ok(())
        }
        End::Interrupted => Err(Failure::with_code(
            Code::Interrupted,
            "stopped before the guest was ready",
        )),
        End::Failed(reason) => Err(Failure::new(format!("the guest failed: {reason}"))),
        End::Ended => {
            let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
            let advice = match args.backend {
                Backend::Qemu | Backend::Emulator => "",
                Backend::Tdx => " `vitrine doctor` checks this host.",
            };
            Err(Failure::new(format!(
                "the machine ended by itself ({status}); its last lines above say why. `--dry-run` prints its command.{advice}"
            )))
        }
        End::TimedOut => Err(Failure::new(format!(
            "the guest is not ready after {} s; large models under TCG may need a longer --ready-timeout",
            args.ready_timeout
        ))),
    }
}

/// Whether a line that counts the seconds is of use to anyone.
fn shows_progress(args: &Args) -> bool {
    !args.json && stderr().is_terminal()
}

/// Shows the console and follows the guest until something ends it.
fn attend(args: &Args, guest: &Guest, on_state: impl Fn(State<'_>)) -> End {
    let mut started = Instant::now();
    let ticker = shows_progress(args);
    let mut ready = false;
    let mut sealed = false;
    let mut failed = None;
    loop {
        match guest.next_event(Duration::from_secs(1)) {
            Event::Line { source, text } => {
                let clear = if ticker { CLEAR_LINE } else { "" };
                eprintln!("{clear}{} | {text}", source.prefix());
                if source == Source::Qemu && text.starts_with(accelerator::INTERNAL_ERROR) {
                    return End::Failed(
                        "KVM cannot run its instructions; use --accel tcg".to_owned(),
                    );
                }
                if source != Source::Console {
                    continue;
                }
                match Line::parse(&text) {
                    Line::Ready(line) if !ready => {
                        ready = true;
                        on_state(State::Ready(&line));
                    }
                    Line::Sealed => {
                        sealed = true;
                        on_state(State::Sealed);
                    }
                    Line::Opening => (sealed, started) = (false, Instant::now()),
                    Line::Failed(reason) if args.exit_on_failure => return End::Failed(reason),
                    Line::Failed(reason) => {
                        eprintln!("the guest failed and answers /health only; Ctrl-C ends it");
                        failed = Some(reason);
                    }
                    Line::Ready(_) | Line::Other => {}
                }
            }
            Event::ConsoleClosed => return failed.map_or(End::Ended, End::Failed),
            Event::Signal => {
                return match (failed, ready) {
                    (Some(reason), _) => End::Failed(reason),
                    (None, true) => End::Stopped,
                    (None, false) => End::Interrupted,
                };
            }
            Event::Quiet => {
                let waited = started.elapsed();
                if ready || sealed || failed.is_some() {
                    continue;
                }
                if ticker {
                    eprint!(
                        "\rwaiting for the guest to be ready: {} s",
                        waited.as_secs()
                    );
                    // A terminal that is gone takes no progress; the guest matters more.
                    let _ = stderr().flush();
                }
                if waited.as_secs() >= args.ready_timeout {
                    return End::TimedOut;
                }
            }
        }
    }
}

/// What is to be told of a guest.
enum State<'a> {
    /// It waits for its model's key.
    Sealed,
    /// It serves.
    Ready(&'a Ready),
}

fn report(args: &Args, plan: &Plan, process: u32, state: State<'_>) {
    let ready = match state {
        State::Ready(ready) => Some(ready),
        State::Sealed => None,
    };
    if args.json {
        let report = StateReport {
            event: match ready {
                Some(_) => "ready",
                None => "sealed",
            },
            backend: args.backend,
            addresses: &plan.addresses,
            accelerator: plan.accelerator,
            isa: ready.and_then(|ready| ready.text("isa")),
            vcpus: ready.and_then(|ready| ready.number("vcpus")),
            boot_ms: ready.and_then(|ready| ready.number("boot_ms")),
            process,
        };
        println!("{}", serde_json::json!(report));
        return;
    }
    let waits = args.model.as_deref().filter(|_| ready.is_none());
    match waits {
        Some(_) => print!("the guest waits for its model's key"),
        None => print!("the guest is ready"),
    }
    println!("; Ctrl-C stops it. In another terminal:");
    for address in &plan.addresses {
        let command = match waits {
            Some(model) => advice::provision(args, model, address),
            None => advice::chat(args, address),
        };
        println!("  {command}");
    }
}

/// `512M`, `6G`, or MiB without a unit.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|mib| (64..=16 << 20).contains(mib))
        .ok_or_else(|| "write a size from 64M to 16384G, such as 512M or 6G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(parse_memory("512M"), Ok(512));
        assert_eq!(parse_memory("6G"), Ok(6144));
        assert_eq!(parse_memory("1024"), Ok(1024));
        for wrong in ["", "M", "1T", "-1G", "63M", "99999999999999999999G"] {
            assert!(parse_memory(wrong).is_err(), "{wrong}");
        }
    }
}
