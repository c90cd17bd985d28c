//! Virtio devices: a modern PCI transport, split virtqueues and the three drivers this machine needs.
//!
//! Every device is the host's, so every driver holds to the same rules. All memory a device sees comes out of the
//! [`SharedArena`]; private data is copied in and out of it, each byte once. Identifiers and lengths from a device are
//! checked against a private record. A device that breaks the rules gets the FAILED status, its users a
//! [`DeviceError`], and everything else goes on. Nothing here waits without a deadline.

pub mod blk;
mod device;
pub mod net;
mod pci;
mod queue;
mod shared;
pub mod vsock;

#[cfg(test)]
pub(crate) mod fake;

pub use device::{Clock, Device, DeviceError, Transport, status};
pub use pci::{PciTransport, TransportError};
pub use queue::{Completion, QueueAddresses, Segment, VirtQueue};
pub use shared::{ArenaFull, DeviceAddress, SharedArena, SharedBuffer};

#[cfg(test)]
pub(crate) use shared::test_arena;

use crate::pci::{self as bus, ConfigSpace, MmioWindow};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

const VENDOR: u16 = 0x1af4;
/// PCI device numbers of virtio 1 devices are this plus the virtio device type.
const MODERN_BASE: u16 = 0x1040;

/// The device types this machine has drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Network card.
    Net,
    /// Disk.
    Block,
    /// Host-guest sockets.
    Vsock,
}

impl DeviceKind {
    fn from_pci(vendor: u16, device: u16) -> Option<Self> {
        match (vendor, device.checked_sub(MODERN_BASE)?) {
            (VENDOR, 1) => Some(Self::Net),
            (VENDOR, 2) => Some(Self::Block),
            (VENDOR, 19) => Some(Self::Vsock),
            _ => None,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Net => "virtio-net",
            Self::Block => "virtio-blk",
            Self::Vsock => "virtio-vsock",
        })
    }
}

/// A virtio device found on the bus, with its registers placed and ready for a driver, or the reason it cannot be used.
pub struct Found {
    /// Where it is.
    pub address: bus::Address,
    /// What it is.
    pub kind: DeviceKind,
    /// Its registers.
    pub transport: Result<Box<dyn Transport>, TransportError>,
}

/// Finds the virtio devices on bus 0 and places their registers; functions of any other kind are left untouched.
///
/// # Safety
/// The physical window of [`MmioWindow`] is mapped one to one, holds no memory, and is used through nothing else.
pub unsafe fn probe(config: &mut dyn ConfigSpace, window: &mut MmioWindow) -> Vec<Found> {
    let mut found = Vec::new();
    for function in bus::scan(config) {
        let Some(kind) = DeviceKind::from_pci(function.vendor, function.device) else {
            continue;
        };
        // SAFETY: passed on to the caller.
        let transport = unsafe { PciTransport::new(config, function.address, window) };
        found.push(Found {
            address: function.address,
            kind,
            transport: transport.map(|transport| Box::new(transport) as Box<dyn Transport>),
        });
    }
    found
}
