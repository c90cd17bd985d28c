//! The network card as smoltcp wants it.
//!
//! smoltcp has no way to hear of a device error, so the first one is kept here and the card falls silent.

use crate::virtio::DeviceError;
use crate::virtio::net::{FRAME, NetDevice};
use core::time::Duration;
use smoltcp::phy;
use smoltcp::time::Instant;

/// The card as smoltcp wants it: one frame in private memory in each direction.
pub struct Card {
    device: NetDevice,
    incoming: [u8; FRAME],
    outgoing: [u8; FRAME],
    error: Option<DeviceError>,
}

impl Card {
    /// A card that works until its device breaks a rule.
    pub fn new(device: NetDevice) -> Self {
        Self {
            device,
            incoming: [0; FRAME],
            outgoing: [0; FRAME],
            error: None,
        }
    }

    /// How the device broke a rule, if it did. From then on nothing is sent or received.
    pub fn result(&self) -> Result<(), DeviceError> {
        self.error.map_or(Ok(()), Err)
    }

    /// Notices a device that was reset or gave up.
    pub fn check_health(&mut self, now: Duration) -> Result<(), DeviceError> {
        self.device.check_health(now)
    }

    /// Shuts the device down.
    pub fn fail(&mut self, error: DeviceError) {
        self.device.fail(error);
    }

    fn can_transmit(&mut self) -> bool {
        self.device.can_transmit().unwrap_or_else(|error| {
            self.error = Some(error);
            false
        })
    }
}

/// A received frame.
pub struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Leave to send one frame.
pub struct Outgoing<'a> {
    device: &'a mut NetDevice,
    frame: &'a mut [u8; FRAME],
    error: &'a mut Option<DeviceError>,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // smoltcp keeps to the MTU it was told, which is the size of this buffer.
        let frame = &mut self.frame[..length];
        let result = f(frame);
        // A frame that finds no buffer is lost like any other on a network.
        *self.error = self.device.transmit(frame).err().or(*self.error);
        result
    }
}

impl phy::Device for Card {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let ready = self.error.is_none() && self.can_transmit();
        let length = match ready.then(|| self.device.receive(&mut self.incoming))? {
            Ok(length) => length?,
            Err(error) => {
                self.error = Some(error);
                return None;
            }
        };
        let outgoing = Outgoing {
            device: &mut self.device,
            frame: &mut self.outgoing,
            error: &mut self.error,
        };
        Some((Incoming(&self.incoming[..length]), outgoing))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        let ready = self.error.is_none() && self.can_transmit();
        ready.then_some(Outgoing {
            device: &mut self.device,
            frame: &mut self.outgoing,
            error: &mut self.error,
        })
    }

    fn capabilities(&self) -> phy::DeviceCapabilities {
        let mut capabilities = phy::DeviceCapabilities::default();
        capabilities.medium = phy::Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}
