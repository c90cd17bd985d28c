//! From what was asked for to the commands that do it.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Args;
use super::accelerator::{self, Accelerator, Choice};
use super::emulated::Emulated;
use super::machine::{Disk, Forward, GUEST_PORT, Machine, Vsock};
use super::vsock::{self, Device};
use crate::failure::Failure;

const QEMU: &str = "qemu-system-x86_64";
/// Names another QEMU.
const QEMU_VARIABLE: &str = "VITRINE_QEMU";
/// What a guest needs besides its model: itself, buffers, a KV cache of ordinary size.
const BASE_MEMORY_MIB: u64 = 512;

/// What runs the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// QEMU: not a trust domain, for development
    Qemu,
    /// The emulator: a trust domain without TDX hardware, for development; its evidence is signed by a test root
    Emulator,
    /// QEMU and KVM on a TDX host: a trust domain (`vitrine doctor` says whether this is one)
    Tdx,
}

impl Backend {
    /// As `--backend` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Emulator => "emulator",
            Self::Tdx => "tdx",
        }
    }
}

/// A guest ready to be started.
pub struct Plan {
    /// The command that runs it: program first.
    pub command: Vec<OsString>,
    /// The process that plays its vsock device.
    pub device: Option<Device>,
    /// Where clients reach it, in words `--to` takes.
    pub addresses: Vec<String>,
    /// What executes its code: `kvm`, `tcg` or `emulator`.
    pub accelerator: &'static str,
    pub cpus: u32,
    pub memory_mib: u64,
}

impl Plan {
    /// What the arguments describe.
    pub fn new(args: &Args) -> Result<Self, Failure> {
        length(&args.image)?;
        let disks = disks(args)?;
        let model = disks.iter().find(|disk| disk.role == "model");
        let memory_mib = args
            .memory
            .unwrap_or_else(|| default_memory(model.map_or(0, |disk| disk.length)));
        match args.backend {
            Backend::Emulator => Self::emulated(args, disks, memory_mib),
            Backend::Qemu | Backend::Tdx => Self::virtual_machine(args, disks, memory_mib),
        }
    }

    /// For this program's own emulator.
    fn emulated(args: &Args, disks: Vec<Disk>, memory_mib: u64) -> Result<Self, Failure> {
        if args.vsock_cid.is_some() {
            return Err(Failure::usage(
                "the emulator's vsock devices are Unix sockets: use --vsock-uds",
            ));
        }
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
        let tcp = match (args.tcp, &args.vsock_uds) {
            (Some(0), _) => Some(free_port()?),
            (None, None) => Some(GUEST_PORT),
            (port, _) => port,
        };
        let vsock = args.vsock_uds.as_ref();
        let addresses = tcp
            .map(|port| format!("tcp://127.0.0.1:{port}"))
            .into_iter()
            .chain(vsock.map(|path| format!("unix:{}#{}", path.display(), args.guest_port)))
            .collect();
        let machine = Emulated {
            program,
            image: args.image.clone(),
            cpus: args.cpus,
            memory_mib,
            disks: disks
                .into_iter()
                .map(|disk| (disk.role, disk.path))
                .collect(),
            tcp: tcp.map(|host| Forward {
                host,
                guest: args.guest_port,
            }),
            vsock: vsock.cloned(),
            guest_port: args.guest_port,
            more: args.emulator.clone(),
        };
        Ok(Self {
            command: machine.command(),
            device: None,
            addresses,
            accelerator: "emulator",
            cpus: args.cpus,
            memory_mib,
        })
    }

    /// For QEMU.
    fn virtual_machine(args: &Args, disks: Vec<Disk>, memory_mib: u64) -> Result<Self, Failure> {
        if !args.emulator.is_empty() {
            return Err(Failure::usage(
                "arguments behind `--` are the emulator's: use --backend emulator",
            ));
        }
        let qemu = locate_qemu()?;
        let accelerator = accelerator(args, &qemu)?;
        let device = args.vsock_uds.as_deref().map(Device::new).transpose()?;
        let (tcp, vsock) = ways_in(args, device.as_ref())?;
        let machine = Machine {
            accelerator,
            qemu,
            image: args.image.clone(),
            cpus: args.cpus,
            memory_mib,
            disks,
            tcp,
            vsock,
            quotes: (args.backend == Backend::Tdx).then(|| args.quote_service.clone()),
        };
        Ok(Self {
            command: machine.command(),
            device,
            addresses: addresses(args, &machine),
            accelerator: machine.accelerator.accel(),
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
        })
    }
}

/// The disks that the arguments name.
fn disks(args: &Args) -> Result<Vec<Disk>, Failure> {
    let named = [("model", &args.model), ("config", &args.config)];
    let given = named
        .into_iter()
        .filter_map(|(role, path)| Some((role, path.as_ref()?)));
    given
        .map(|(role, path)| {
            Ok(Disk {
                role,
                length: length(path)?,
                path: path.clone(),
            })
        })
        .collect()
}

/// QEMU, named by the environment or found in PATH.
pub fn locate_qemu() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os(QEMU_VARIABLE) {
        return Ok(path.into());
    }
    vsock::find_in_path(QEMU).ok_or_else(|| {
        Failure::usage(format!(
            "{QEMU} is not installed: `apt install qemu-system-x86`, or name it in {QEMU_VARIABLE}"
        ))
    })
}

/// How the guest's code is executed. A trust domain leaves no choice.
fn accelerator(args: &Args, qemu: &Path) -> Result<Accelerator, Failure> {
    match (args.backend, args.accel) {
        (Backend::Qemu | Backend::Emulator, choice) => Accelerator::choose(choice, qemu),
        (Backend::Tdx, Choice::Auto | Choice::Kvm) => Ok(Accelerator::Kvm { cpu: "host" }),
        (Backend::Tdx, Choice::Tcg) => Err(Failure::usage(
            "a trust domain runs under KVM: leave out --accel, or use --backend qemu",
        )),
    }
}

/// The forwarded port and the vsock device.
fn ways_in(
    args: &Args,
    device: Option<&Device>,
) -> Result<(Option<Forward>, Option<Vsock>), Failure> {
    if args.backend == Backend::Tdx && device.is_some() {
        return Err(Failure::usage(
            "a process beside QEMU has no access to a trust domain's buffers: use --vsock-cid, or --tcp",
        ));
    }
    let mut tcp = args.tcp;
    let vsock = match (device, args.vsock_cid) {
        (Some(device), _) => Some(Vsock::User {
            socket: device.qemu.clone(),
        }),
        (None, Some(cid)) => Some(Vsock::Kernel { cid }),
        (None, None) if tcp.is_some() => None,
        (None, None) if accelerator::usable(Path::new("/dev/vhost-vsock")) => {
            Some(Vsock::Kernel { cid: 3 })
        }
        (None, None) => {
            tcp = Some(GUEST_PORT);
            None
        }
    };
    let tcp = match tcp {
        Some(0) => Some(free_port()?),
        port => port,
    };
    let forward = tcp.map(|host| Forward {
        host,
        guest: args.guest_port,
    });
    Ok((forward, vsock))
}

/// Where a client reaches the guest, in words `--to` takes.
fn addresses(args: &Args, machine: &Machine) -> Vec<String> {
    let tcp = machine
        .tcp
        .map(|Forward { host, .. }| format!("tcp://127.0.0.1:{host}"));
    let vsock = match (&machine.vsock, &args.vsock_uds) {
        (Some(Vsock::Kernel { cid }), _) => Some(format!("vsock://{cid}:{}", args.guest_port)),
        (Some(Vsock::User { .. }), Some(path)) => {
            Some(format!("unix:{}#{}", path.display(), args.guest_port))
        }
        _ => None,
    };
    tcp.into_iter().chain(vsock).collect()
}

/// A file's length in bytes; it must be there and be a file.
fn length(path: &Path) -> Result<u64, Failure> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(_) => Err(Failure::usage(format!("{} is not a file", path.display()))),
        Err(error) => Err(Failure::usage(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

/// A port nobody listens on now.
fn free_port() -> Result<u16, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::new(format!("no free port: {error}")))
}

/// The model once, and the base, in steps of 256 MiB.
fn default_memory(model_bytes: u64) -> u64 {
    let model_mib = model_bytes.div_ceil(1 << 20);
    (BASE_MEMORY_MIB + model_mib).next_multiple_of(256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_the_model() {
        assert_eq!(default_memory(0), 512);
        assert_eq!(default_memory(3 << 20), 768);
        assert_eq!(default_memory(1_107_408_416), 1792);
    }
}
