//! Virtio devices: a modern PCI transport, split virtqueues and the three drivers this machine needs.
//!
//! Every device is the host's, so every driver holds to the same rules. All memory a device sees comes out of the
//! [`SharedArena`]; private data is copied in and out of it, each byte once. Identifiers and lengths from a device are
//! checked against a private record. A device that breaks the rules gets the FAILED status, its users a
//! [`DeviceError`], and everything else goes on. Nothing here waits without a deadline.

pub mod blk;
mod device;
mod discovery;
pub mod net;
mod pci;
mod queue;
mod shared;
pub mod vsock;

#[cfg(test)]
pub(crate) mod fake;

pub use device::{Clock, Device, DeviceError, Transport, status};
pub use discovery::{DeviceKind, Devices, Failure, FailureReason};
pub use pci::{PciTransport, TransportError};
pub use queue::{Completion, QueueAddresses, Segment, VirtQueue};
pub use shared::{ArenaFull, DeviceAddress, SharedArena, SharedBuffer};

#[cfg(test)]
pub(crate) use shared::test_arena;
