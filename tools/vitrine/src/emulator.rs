//! `vitrine emulator`: runs an image as a trust domain on this machine, without TDX hardware.

mod options;

use std::collections::BTreeMap;
use std::io::{BufWriter, stderr, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use emulator::bus::Interrupts;
use emulator::devices::{Board, DiskOptions, FirmwareConfig, Forward, Options, VsockOptions};
use emulator::hostile::Host;
use emulator::machine::{Configuration, Machine, Outcome};
use emulator::memory::Memory;
use emulator::quoting::QuotingService;
use emulator::symbols::Symbols;
use emulator::td::{End, Parameters};
use emulator::trace::{Sink, Trace};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::failure::Failure;
use options::{DiskOption, HostStackOption, PageSize, Width};

/// The context identifier of the vsock device.
const VSOCK_CID: u32 = 3;

/// Run an image as an emulated trust domain (TD)
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The TD's console goes to stdout; the emulator's own words go to stderr. What would end a real TD ends this one, with the rule \
named. Quotes are signed under a test root, which --pki keeps for `vitrine verify --test-root`. SIGQUIT makes it print on \
stderr, as one JSON object, how often the TD has called the host and each attack of a hostile one was carried out.

A hostile host behaves from SIGUSR2 on, and attacks again from SIGUSR1 on; one that only withholds something waits for SIGUSR1.

Exit codes:
  0  stopped by a signal      1  the TD reported a fatal error, or was ended      2  wrong usage, or an image no host takes

Examples:
  vitrine emulator --image vitrine.fd --disk model=tiny.gguf --tcp 8443
  vitrine emulator --image vitrine.fd --hostile disk-used-twice --trace trace.txt
  vitrine emulator --image /usr/share/ovmf/OVMF.fd --host-stack out-of-tree --firmware-config")]
pub struct Args {
    /// The image (vitrine.fd, or another one with TDVF metadata)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Memory of the TD, such as 512M or 6G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = crate::run::parse_memory)]
    memory: u64,
    /// A disk and what it is for, such as model=tiny.gguf or config=vitrine.toml
    #[arg(long, value_name = "ROLE=FILE")]
    disk: Vec<DiskOption>,
    /// A network card; this port of 127.0.0.1 leads to the TD
    #[arg(long, value_name = "PORT")]
    tcp: Option<u16>,
    /// A vsock device; clients connect at this Unix socket
    #[arg(long, value_name = "PATH")]
    vsock_uds: Option<PathBuf>,
    /// The port the TD listens on
    #[arg(long, value_name = "PORT", default_value_t = crate::run::GUEST_PORT)]
    guest_port: u16,
    /// Describe the machine as QEMU does, for firmware that asks (fw_cfg)
    #[arg(long)]
    firmware_config: bool,
    /// Directory of the test root that signs quotes; made if it is not there [default: one that is forgotten]
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// The quoting service is down whenever there is a file of this name
    #[arg(long, value_name = "FILE")]
    quote_outage: Option<PathBuf>,
    /// Set the TD's battery clock ahead of this machine's, or with a minus behind it
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    clock_ahead: i64,
    /// Pages that back private memory
    #[arg(long, value_enum, default_value = "4k")]
    sept: PageSize,
    /// The host software to play
    #[arg(long, value_enum, default_value = "mainline")]
    host_stack: HostStackOption,
    /// Width of guest-physical addresses, the shared bit included
    #[arg(long, value_enum, default_value = "48")]
    gpaw: Width,
    /// Play a hostile host: the name of an attack, or a number for a random combination
    #[arg(long, value_name = "NAME|SEED")]
    hostile: Option<String>,
    /// Back the TD with 4 KiB pages of this machine, even where 2 MiB pages are to be had
    #[arg(long)]
    small_pages: bool,
    /// End the TD at an instruction that raises a virtualization exception (#VE) instead of delivering it
    #[arg(long)]
    strict: bool,
    /// ELF files with names for the addresses in reports, such as the loader and the guest
    #[arg(long, value_name = "FILE")]
    symbols: Vec<PathBuf>,
    /// Write one line for every exit to this file (-: stderr)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// When it has ended, write all memory that it shared with the host to this file
    #[arg(long, value_name = "FILE")]
    dump_shared: Option<PathBuf>,
    /// Print how it ended and the measurements as one JSON object on stderr
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let host = Arc::new(match &args.hostile {
        None => Host::honest(),
        Some(name) => Host::parse(name).map_err(Failure::usage)?,
    });
    let mut quoting = match &args.pki {
        None => QuotingService::forgotten(),
        Some(directory) => QuotingService::open(directory, now()),
    }
    .map_err(Failure::new)?;
    eprintln!("emulator: {quoting}");
    if let Some(file) = &args.quote_outage {
        quoting = quoting.with_outage(file.clone());
    }
    for attack in host.attacks() {
        eprintln!("emulator: the host attacks: {}", attack.name);
    }
    let configuration = Configuration {
        image: read(&args.image)?,
        memory: args.memory << 20,
        parameters: Parameters {
            vcpus: args.cpus,
            gpaw: args.gpaw as u8,
            sept: args.sept.into(),
            host: args.host_stack.into(),
            huge_pages: !args.small_pages,
            strict: args.strict,
        },
        quoting,
        symbols: symbols(&args.symbols)?,
        trace: Trace::new(trace(args.trace.as_deref())?, Box::new(stderr())),
        host: host.clone(),
    };
    let machine = Machine::new(configuration, |memory, interrupts| {
        board(args, memory, interrupts, host)
    })
    .map_err(Failure::usage)?;
    obey_signals(&machine)?;
    let outcome = machine.run();
    report(args, &outcome, &machine.td().host);
    if let Some(path) = &args.dump_shared {
        let pages = machine.td().memory.shared_pages();
        std::fs::write(path, pages)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    match outcome.end {
        End::Stopped => Ok(()),
        End::FatalError { code, message } => Err(Failure::new(format!(
            "the TD reports a fatal error: {message} (code {code:#x})"
        ))),
        End::Killed { vcpu, death } => {
            Err(Failure::new(format!("vCPU {vcpu} ends the TD: {death}")))
        }
    }
}

/// The devices of the machine.
fn board(
    args: &Args,
    memory: &Memory,
    interrupts: Arc<dyn Interrupts>,
    host: Arc<Host>,
) -> std::io::Result<Board> {
    let layout = memory.layout();
    let disks = args.disk.iter().map(DiskOption::device);
    let options = Options {
        below_4g: layout.low,
        above_4g: layout.high,
        cpus: args.cpus as u8,
        disks: disks.collect::<std::io::Result<Vec<DiskOptions>>>()?,
        card: args.tcp.map(|port| {
            vec![Forward {
                host: ([127, 0, 0, 1], port).into(),
                guest: args.guest_port,
            }]
        }),
        vsock: args.vsock_uds.clone().map(|path| VsockOptions {
            cid: VSOCK_CID,
            path,
        }),
        firmware: args
            .firmware_config
            .then(|| FirmwareConfig::new(args.cpus as u16, &layout.ram())),
        clock_ahead: args.clock_ahead,
    };
    let shared = Arc::new(memory.shared().clone());
    Board::new(options, shared, interrupts, Box::new(stdout()), host)
}

/// Ends the TD when someone asks this program to end; tells a hostile host when to attack; and tells how often the TD called the host.
fn obey_signals(machine: &Machine) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2])
        .map_err(|error| Failure::new(format!("cannot watch signals: {error}")))?;
    let td = machine.td().clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => td.host.attack(),
                SIGUSR2 => td.host.behave(),
                SIGQUIT => {
                    let running = Running {
                        event: "running",
                        host_calls: td.host_calls(),
                        huge_pages: td.memory.huge_pages(),
                        struck: td.host.struck(),
                    };
                    eprintln!("{}", serde_json::json!(running));
                }
                _ => td.finish(End::Stopped),
            }
        }
    });
    Ok(())
}

/// What a running TD's emulator says when asked.
#[derive(Serialize)]
struct Running {
    event: &'static str,
    host_calls: u64,
    huge_pages: u64,
    /// How often each attack of a hostile host was carried out.
    struck: BTreeMap<&'static str, u32>,
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

fn trace(path: Option<&Path>) -> Result<Option<Sink>, Failure> {
    let Some(path) = path else {
        return Ok(None);
    };
    if path.as_os_str() == "-" {
        return Ok(Some(Box::new(stderr())));
    }
    let file = std::fs::File::create(path)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    Ok(Some(Box::new(BufWriter::new(file))))
}

fn symbols(paths: &[PathBuf]) -> Result<Symbols, Failure> {
    let mut symbols = Symbols::default();
    for path in paths {
        if !symbols.add(&read(path)?) {
            return Err(Failure::usage(format!(
                "{} has no functions: not an ELF file, or stripped",
                path.display()
            )));
        }
    }
    Ok(symbols)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// What `--json` prints at the end.
#[derive(Serialize)]
struct Report {
    event: &'static str,
    end: &'static str,
    reason: Option<String>,
    mrtd: String,
    rtmr: [String; 4],
    exits: Vec<u64>,
    huge_pages: u64,
    /// How often each attack of a hostile host was carried out.
    struck: BTreeMap<&'static str, u32>,
}

fn report(args: &Args, outcome: &Outcome, host: &Host) {
    let hex = |bytes: &[u8; 48]| bytes.map(|byte| format!("{byte:02x}")).concat();
    let (end, reason) = match &outcome.end {
        End::Stopped => ("stopped", None),
        End::FatalError { message, .. } => ("fatal-error", Some(message.clone())),
        End::Killed { death, .. } => (death.name(), Some(death.to_string())),
    };
    let report = Report {
        event: "ended",
        end,
        reason,
        mrtd: hex(&outcome.mrtd),
        rtmr: outcome.rtmr.each_ref().map(hex),
        exits: outcome.exits.clone(),
        huge_pages: outcome.huge_pages,
        struck: host.struck(),
    };
    if args.json {
        eprintln!("{}", serde_json::json!(report));
        return;
    }
    eprintln!("emulator: MRTD    {}", report.mrtd);
    for (index, register) in report.rtmr.iter().enumerate() {
        eprintln!("emulator: RTMR[{index}] {register}");
    }
    for (attack, times) in &report.struck {
        eprintln!("emulator: {attack}: carried out {times} times");
    }
    eprintln!(
        "emulator: exits of each vCPU {:?}; {} huge pages of this machine",
        report.exits, report.huge_pages
    );
}
