//! The devices of the machine: a q35 as far as this guest, and the firmware of others, look at it.
//!
//! They see the machine through [`crate::bus`] and nothing else: no private memory, no processor. [`Board`] is what answers the guest's
//! accesses; each virtio device works on a thread of its own.

mod chipset;
mod cmos;
mod fw_cfg;
mod pci;
mod serial;
mod virtio;

pub use fw_cfg::FirmwareConfig;
pub use serial::Console;
pub use virtio::blk::DiskOptions;
pub use virtio::net::Forward;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::bus::{Bus, Interrupts, SharedMemory};
use crate::hostile::{Host, TamperedInterrupts, Target};
use chipset::Chipset;
use cmos::Cmos;
use pci::{IsaBridge, Pci};
use serial::SerialPort;
use virtio::blk::Disk;
use virtio::net::Card;
use virtio::vsock::Vsock;
use virtio::{Surroundings, VirtioFunction};

/// The first slot with a virtio device.
const FIRST_SLOT: u8 = 1;
/// The last before the chipset's own.
const LAST_SLOT: u8 = 30;

/// The vsock device.
#[derive(Clone, Debug)]
pub struct VsockOptions {
    /// The guest's context identifier, at least 3.
    pub cid: u32,
    /// The Unix socket that clients connect to; must not exist yet.
    pub path: PathBuf,
}

/// Which machine.
#[derive(Debug, Default)]
pub struct Options {
    /// Bytes of memory below 4 GiB.
    pub below_4g: u64,
    /// Bytes of memory above.
    pub above_4g: u64,
    /// Processors.
    pub cpus: u8,
    /// Disks, in the order of their slots.
    pub disks: Vec<DiskOptions>,
    /// A network card, with the ports that lead to the guest.
    pub card: Option<Vec<Forward>>,
    /// A vsock device.
    pub vsock: Option<VsockOptions>,
    /// What firmware of QEMU's finds behind its configuration ports; None leaves the ports empty.
    pub firmware: Option<FirmwareConfig>,
    /// Seconds by which the battery clock is ahead of this machine's.
    pub clock_ahead: i64,
}

/// The machine around processors and memory.
pub struct Board {
    serial: SerialPort,
    cmos: Cmos,
    chipset: Chipset,
    firmware: Option<FirmwareConfig>,
    pci: Pci,
}

impl Board {
    /// Builds the machine and starts its devices.
    ///
    /// # Errors
    /// A file, socket or port that a device needs cannot be had.
    pub fn new(
        options: Options,
        memory: Arc<SharedMemory>,
        interrupts: Arc<dyn Interrupts>,
        console: Console,
        host: Arc<Host>,
    ) -> io::Result<Self> {
        let isa = Arc::new(IsaBridge::new());
        let mut pci = Pci::new(isa.clone(), host.clone());
        let surroundings = Surroundings {
            memory,
            interrupts: Arc::new(TamperedInterrupts {
                inner: interrupts,
                host: host.clone(),
            }),
            host: host.clone(),
        };
        let mut slots = FIRST_SLOT..=LAST_SLOT;
        let mut plug = |function: io::Result<VirtioFunction>| {
            let slot = slots
                .next()
                .ok_or_else(|| io::Error::other("there are more devices than slots"))?;
            pci.add(slot, Arc::new(function?));
            io::Result::Ok(())
        };
        for disk in &options.disks {
            let disk = Disk::open(&disk.path, &disk.serial, host.clone())
                .map_err(|error| named(error, &format!("disk {}", disk.path.display())))?;
            plug(VirtioFunction::start(
                Target::Disk,
                disk,
                surroundings.clone(),
            ))?;
        }
        if let Some(forwards) = &options.card {
            let card = Card::new(forwards, host.clone())
                .map_err(|error| named(error, "forwarded port"))?;
            plug(VirtioFunction::start(
                Target::Card,
                card,
                surroundings.clone(),
            ))?;
        }
        if let Some(VsockOptions { cid, path }) = &options.vsock {
            let vsock = Vsock::listen(*cid, path, host.clone())
                .map_err(|error| named(error, &format!("vsock socket {}", path.display())))?;
            plug(VirtioFunction::start(Target::Vsock, vsock, surroundings))?;
        }
        let ahead = options.clock_ahead;
        let shift = Duration::from_secs(ahead.unsigned_abs());
        let now = move || match ahead < 0 {
            true => SystemTime::now() - shift,
            false => SystemTime::now() + shift,
        };
        Ok(Self {
            serial: SerialPort::new(console),
            cmos: Cmos::new(
                options.below_4g,
                options.above_4g,
                options.cpus,
                Box::new(now),
                host,
            ),
            chipset: Chipset::new(isa),
            firmware: options.firmware,
            pci,
        })
    }

    /// A port access of a device that is one byte wide.
    fn byte(&self, port: u16, write: Option<u8>) -> Option<u8> {
        Some(match port {
            serial::BASE..=serial::LAST => self.serial.io((port - serial::BASE) as u8, write),
            serial::DEBUG_PORT => self.serial.debug(write),
            cmos::INDEX_PORT | cmos::DATA_PORT => self.cmos.io(port, write),
            _ => return None,
        })
    }
}

impl Bus for Board {
    fn io(&self, port: u16, size: u8, write: Option<u32>) -> u32 {
        let byte = self.byte(port, write.map(|value| value as u8));
        let value = byte.map(u32::from).or_else(|| match port {
            pci::ADDRESS_PORT => Some(self.pci.io(port, size, write)),
            pci::DATA_PORT..=pci::LAST_DATA_PORT => Some(self.pci.io(port, size, write)),
            fw_cfg::SELECTOR_PORT..=fw_cfg::LAST_PORT => {
                Some(self.firmware.as_ref()?.io(port, size, write))
            }
            _ => self.chipset.io(port, size, write),
        });
        truncate(value.map_or(u64::MAX, u64::from), size) as u32
    }

    fn mmio(&self, gpa: u64, size: u8, write: Option<u64>) -> u64 {
        truncate(self.pci.memory(gpa, size, write).unwrap_or(u64::MAX), size)
    }
}

/// The lowest `size` bytes.
fn truncate(value: u64, size: u8) -> u64 {
    match size {
        0..8 => value & ((1 << (8 * size)) - 1),
        _ => value,
    }
}

/// Says what an error is about.
fn named(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
