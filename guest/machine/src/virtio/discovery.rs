//! Finding the devices of the machine and starting a driver for each.
//!
//! Which devices there are is the host's choice. At most one network card and one vsock device are used, the first of
//! each on the bus, and disks that carry one of our labels. A device that cannot be used is reported and left behind.

use super::blk::{Disk, DiskError, Role};
use super::device::{Clock, DeviceError, Transport};
use super::net::NetDevice;
use super::pci::{PciTransport, TransportError};
use super::shared::SharedArena;
use super::vsock::VsockDevice;
use crate::pci::{self as bus, ConfigSpace, Function, Message, MmioWindow};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

const VENDOR: u16 = 0x1af4;

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
    fn of(function: Function) -> Option<Self> {
        // A virtio 1 device has number 0x1040 plus its type. The other number of each is that of a device which offers
        // the legacy interface as well; only its virtio 1 side is used.
        match (function.vendor, function.device) {
            (VENDOR, 0x1041 | 0x1000) => Some(Self::Net),
            (VENDOR, 0x1042 | 0x1001) => Some(Self::Block),
            (VENDOR, 0x1053 | 0x1012) => Some(Self::Vsock),
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

/// Why a device was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// Its registers cannot be used.
    Transport(TransportError),
    /// It could not be set up.
    Device(DeviceError),
    /// It is a disk that could not be set up or whose label is wrong.
    Disk(DiskError),
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

/// A device that was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it is on the bus.
    pub address: bus::Address,
    /// What it is.
    pub kind: DeviceKind,
    /// What is wrong with it.
    pub reason: FailureReason,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            kind,
            reason,
        } = self;
        write!(f, "{kind} at {address}: {reason}")
    }
}

impl core::error::Error for Failure {}

/// The devices of the machine, started.
#[derive(Default)]
pub struct Devices {
    /// The network card.
    pub card: Option<NetDevice>,
    /// The vsock device.
    pub vsock: Option<VsockDevice>,
    /// Labelled disks, in bus order.
    pub disks: Vec<Disk>,
    /// What could not be used.
    pub failures: Vec<Failure>,
    /// Whether one of the devices in use raises no interrupts, so that somebody has to look.
    pub polled: bool,
}

impl Devices {
    /// Finds the virtio devices on bus 0, places their registers and starts their drivers; functions of any other
    /// kind are left untouched. Each device is waited for with a deadline, and raises `interrupt` from then on if it can.
    ///
    /// # Safety
    /// The physical window of [`MmioWindow`] is mapped one to one, holds no memory, and is used through nothing else.
    pub unsafe fn start(
        config: &mut dyn ConfigSpace,
        window: &mut MmioWindow,
        arena: &mut SharedArena,
        clock: Clock,
        interrupt: Option<Message>,
    ) -> Self {
        let mut devices = Self::default();
        for function in bus::scan(config) {
            let Some(kind) = DeviceKind::of(function) else {
                continue;
            };
            let address = function.address;
            // SAFETY: passed on to the caller.
            let transport = unsafe { PciTransport::new(config, address, window, interrupt) };
            let started = match transport {
                Ok(transport) => {
                    devices.polled |= !transport.has_interrupts();
                    devices.add(kind, Box::new(transport), arena, clock)
                }
                Err(error) => Err(FailureReason::Transport(error)),
            };
            if let Err(reason) = started {
                bus::disable(config, address);
                devices.failures.push(Failure {
                    address,
                    kind,
                    reason,
                });
            }
        }
        devices
    }

    /// Starts the driver of one device. A second card or vsock device stays untouched.
    fn add(
        &mut self,
        kind: DeviceKind,
        transport: Box<dyn Transport>,
        arena: &mut SharedArena,
        clock: Clock,
    ) -> Result<(), FailureReason> {
        match kind {
            DeviceKind::Net if self.card.is_none() => {
                self.card =
                    Some(NetDevice::new(transport, arena, clock).map_err(FailureReason::Device)?);
            }
            DeviceKind::Vsock if self.vsock.is_none() => {
                self.vsock =
                    Some(VsockDevice::new(transport, arena, clock).map_err(FailureReason::Device)?);
            }
            DeviceKind::Block => {
                self.disks
                    .extend(Disk::open(transport, arena, clock).map_err(FailureReason::Disk)?);
            }
            DeviceKind::Net | DeviceKind::Vsock => {}
        }
        Ok(())
    }

    /// Takes the first disk with a role.
    pub fn take_disk(&mut self, role: Role) -> Option<Disk> {
        let index = self
            .disks
            .iter()
            .position(|disk| disk.label().role == role)?;
        Some(self.disks.remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeDevice, FakeTransport};
    use super::super::test_arena;
    use super::*;
    use crate::pci::Address;
    use crate::pci::fake::{FakeConfig, FakeFunction};
    use alloc::string::ToString;
    use core::time::Duration;

    fn clock() -> Duration {
        Duration::ZERO
    }

    #[test]
    fn only_virtio_devices_with_a_driver_are_looked_at() {
        let kind = |vendor, device| {
            DeviceKind::of(Function {
                address: Address {
                    device: 0,
                    function: 0,
                },
                vendor,
                device,
            })
        };
        assert_eq!(kind(VENDOR, 0x1041), Some(DeviceKind::Net));
        assert_eq!(kind(VENDOR, 0x1042), Some(DeviceKind::Block));
        assert_eq!(kind(VENDOR, 0x1053), Some(DeviceKind::Vsock));
        assert_eq!(
            kind(VENDOR, 0x1001),
            Some(DeviceKind::Block),
            "transitional"
        );
        assert_eq!(kind(VENDOR, 0x1044), None, "no driver");
        assert_eq!(kind(0x8086, 0x1041), None);
    }

    #[test]
    fn an_unusable_device_is_reported_and_silenced() {
        let mut config = FakeConfig::default();
        let address = Address {
            device: 4,
            function: 0,
        };
        config
            .functions
            .insert(address, FakeFunction::new(VENDOR, 0x1042));
        let mut arena = test_arena(1 << 20);
        // SAFETY: a function without registers is never accessed.
        let devices =
            unsafe { Devices::start(&mut config, &mut MmioWindow::new(), &mut arena, clock, None) };
        assert_eq!(devices.failures.len(), 1);
        assert_eq!(
            devices.failures[0].to_string(),
            "virtio-blk at 00:04.0: no usable virtio 1 register block of type 1"
        );
        assert_eq!(
            config.functions[&address].words[1] & 0b110,
            0,
            "neither memory nor bus mastering"
        );
    }

    #[test]
    fn the_first_card_counts() {
        let mut arena = test_arena(1 << 20);
        let mut devices = Devices::default();
        let mut add = |mac: [u8; 6]| {
            let fake = FakeDevice::new(1 << 5, &mac);
            devices
                .add(
                    DeviceKind::Net,
                    FakeTransport::silent(&fake),
                    &mut arena,
                    clock,
                )
                .unwrap();
        };
        add([2, 0, 0, 0, 0, 1]);
        add([2, 0, 0, 0, 0, 2]);
        assert_eq!(devices.card.unwrap().mac(), [2, 0, 0, 0, 0, 1]);
    }
}
