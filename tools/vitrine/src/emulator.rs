//! `vitrine emulator`: runs an image as a trust domain on this machine, without TDX hardware.

use std::io::{BufWriter, Write, stderr, stdout};
use std::path::PathBuf;
use std::sync::Arc;

use emulator::bus::Bus;
use emulator::machine::{Configuration, Machine, Outcome};
use emulator::quoting::QuotingService;
use emulator::symbols::Symbols;
use emulator::td::{End, HostStack, Parameters, Sept};
use emulator::trace::{Sink, Trace};

use crate::failure::Failure;

/// Run an image as an emulated trust domain (TD)
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The TD's console goes to stdout. What would end a real TD ends this one, and the rule is named.

Examples:
  vitrine emulator --image vitrine.fd
  vitrine emulator --image /usr/share/ovmf/OVMF.fd --trace trace.txt")]
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
    /// Pages that back private memory: 4k as mainline KVM, or 2m
    #[arg(long, value_enum, default_value = "4k")]
    sept: PageSize,
    /// The host software to play
    #[arg(long, value_enum, default_value = "mainline")]
    host_stack: Stack,
    /// Width of guest-physical addresses, the shared bit included
    #[arg(long, value_enum, default_value = "48")]
    gpaw: Width,
    /// Back the TD with 4 KiB pages of this machine, even where 2 MiB pages are to be had
    #[arg(long)]
    small_pages: bool,
    /// Report instructions that raise a virtualization exception (#VE)
    #[arg(long)]
    strict: bool,
    /// ELF files with names for the addresses in reports, such as the loader and the guest
    #[arg(long, value_name = "FILE")]
    symbols: Vec<PathBuf>,
    /// Write one line for every exit to this file (-: stderr)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// What `--sept` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PageSize {
    /// 4 KiB pages only: accepting 2 MiB at once fails, as with mainline KVM
    #[value(name = "4k")]
    Small,
    /// 2 MiB pages where the TD asks for them
    #[value(name = "2m")]
    Large,
}

/// What `--host-stack` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Stack {
    /// Linux 6.16 and later with mainline QEMU
    Mainline,
    /// Linux and QEMU with Intel's patches of 2022 to 2024; needed by firmware of that time
    OutOfTree,
}

/// What `--gpaw` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Width {
    /// The shared bit is bit 47
    #[value(name = "48")]
    Bits48 = 48,
    /// The shared bit is bit 51
    #[value(name = "52")]
    Bits52 = 52,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let image = std::fs::read(&args.image).map_err(|error| {
        Failure::usage(format!("cannot read {}: {error}", args.image.display()))
    })?;
    let lines: Option<Sink> = match &args.trace {
        None => None,
        Some(path) if path.as_os_str() == "-" => Some(Box::new(stderr())),
        Some(path) => {
            let file = std::fs::File::create(path).map_err(|error| {
                Failure::usage(format!("cannot write {}: {error}", path.display()))
            })?;
            Some(Box::new(BufWriter::new(file)))
        }
    };
    let trace = Trace::new(lines, Box::new(stderr()));
    let mut symbols = Symbols::default();
    for path in &args.symbols {
        let named = std::fs::read(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        if !symbols.add(&named) {
            return Err(Failure::usage(format!(
                "{} has no functions: not an ELF file, or stripped",
                path.display()
            )));
        }
    }
    let quoting = QuotingService::forgotten().map_err(Failure::new)?;
    let configuration = Configuration {
        image,
        memory: args.memory << 20,
        parameters: Parameters {
            vcpus: args.cpus,
            gpaw: args.gpaw as u8,
            sept: match args.sept {
                PageSize::Small => Sept::Small,
                PageSize::Large => Sept::Large,
            },
            host: match args.host_stack {
                Stack::Mainline => HostStack::Mainline,
                Stack::OutOfTree => HostStack::OutOfTree,
            },
            huge_pages: !args.small_pages,
            strict: args.strict,
        },
        quoting,
        symbols,
        trace,
    };
    let machine =
        Machine::new(configuration, |_, _| Arc::new(SerialOnly)).map_err(Failure::usage)?;
    let outcome = machine.run();
    report(&outcome);
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

/// A machine with a serial port and nothing else.
struct SerialOnly;

impl Bus for SerialOnly {
    fn io(&self, port: u16, _size: u8, write: Option<u32>) -> u32 {
        match (port, write) {
            (0x3f8 | 0x402, Some(value)) => {
                let mut console = stdout().lock();
                // A console that is gone loses its bytes.
                let _ = console.write_all(&[value as u8]);
                let _ = console.flush();
                0
            }
            (0x402, None) => 0xe9,
            (0x3fd, None) => 0x60,
            _ => u32::MAX,
        }
    }

    fn mmio(&self, _gpa: u64, _size: u8, _write: Option<u64>) -> u64 {
        u64::MAX
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn report(outcome: &Outcome) {
    eprintln!("MRTD    {}", hex(&outcome.mrtd));
    for (index, register) in outcome.rtmr.iter().enumerate() {
        eprintln!("RTMR[{index}] {}", hex(register));
    }
    eprintln!("exits   {:?}", outcome.exits);
}
