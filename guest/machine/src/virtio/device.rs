//! What all virtio devices share: negotiation, queues, and being declared failed.
//!
//! A [`Device`] is reached through a [`Transport`]: registers only, no memory. Every number read through it is the
//! host's word; waits are bounded by the clock.

use super::queue::{QueueAddresses, VirtQueue};
use super::shared::{ArenaFull, SharedArena};
use crate::platform;
use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

/// Monotonic time since some fixed moment.
pub type Clock = fn() -> Duration;

/// Bits of the device status register (virtio 1.2 §2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device gave up.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver gave up on the device.
    pub const FAILED: u8 = 128;
}

const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;
const RESET_TIMEOUT: Duration = Duration::from_secs(1);
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// The registers of a device.
pub trait Transport {
    /// Features the device offers.
    fn offered_features(&mut self) -> u64;
    /// Tells the device which features the driver uses.
    fn accept_features(&mut self, features: u64);
    /// The device status register.
    fn status(&mut self) -> u8;
    /// Writes the device status register; zero resets the device.
    fn set_status(&mut self, status: u8);
    /// Descriptors queue `queue` may have at most; zero if there is no such queue.
    fn largest_queue(&mut self, queue: u16) -> u16;
    /// Gives queue `queue` its rings and switches it on. False if the device has no place to be notified at, or does not take the interrupt that
    /// it offered.
    fn enable_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> bool;
    /// Whether the device raises an interrupt for each finished request, or has to be polled.
    fn has_interrupts(&self) -> bool;
    /// Tells the device that queue `queue` has new requests.
    fn notify(&mut self, queue: u16);
    /// Reads a byte of the device-specific configuration; zero beyond its end.
    fn config_byte(&mut self, offset: u32) -> u8;
    /// A number that changes whenever the device changes its configuration.
    fn config_generation(&mut self) -> u8;
}

/// How a device misbehaved. After any of these it is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// It did not complete a reset within a second.
    ResetTimeout,
    /// It does not offer a feature that is needed, virtio 1 first of all.
    FeatureMissing,
    /// It refused the features it had offered.
    FeaturesRefused,
    /// A queue is missing or too small.
    Queue(u16),
    /// Its configuration makes no sense or never stood still.
    Configuration,
    /// Its used ring ran ahead of what was submitted.
    UsedIndex,
    /// It completed a request it did not own.
    UsedId,
    /// It claims to have written more than it was given.
    UsedLength,
    /// It did not answer in time.
    Timeout,
    /// It asks for a reset, or was reset behind our back.
    Reset,
    /// The shared arena has no room for it.
    ArenaFull,
}

impl From<ArenaFull> for DeviceError {
    fn from(_: ArenaFull) -> Self {
        Self::ArenaFull
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResetTimeout => write!(f, "the device did not complete a reset"),
            Self::FeatureMissing => write!(f, "the device lacks a required feature"),
            Self::FeaturesRefused => write!(f, "the device refused its own features"),
            Self::Queue(queue) => write!(f, "queue {queue} is missing or too small"),
            Self::Configuration => write!(f, "the device configuration is invalid"),
            Self::UsedIndex => write!(f, "the device's used index is out of range"),
            Self::UsedId => write!(f, "the device completed a request it did not own"),
            Self::UsedLength => write!(f, "the device claims to have written beyond a buffer"),
            Self::Timeout => write!(f, "the device did not answer in time"),
            Self::Reset => write!(f, "the device was reset or needs a reset"),
            Self::ArenaFull => write!(f, "the shared arena has no room for the device"),
        }
    }
}

impl core::error::Error for DeviceError {}

/// What every device must offer: virtio 1, and in a trust domain access through the platform's translation, because a device without it would
/// believe that it reaches private memory. Elsewhere that changes nothing, and is taken if it is offered.
const fn needed_by_platform(is_trust_domain: bool) -> u64 {
    if is_trust_domain {
        VERSION_1 | ACCESS_PLATFORM
    } else {
        VERSION_1
    }
}

/// A device between reset and failure.
pub struct Device {
    transport: Box<dyn Transport>,
    clock: Clock,
    features: u64,
    next_health_check: Duration,
}

impl Device {
    /// Resets the device and agrees on features: `required` must be offered, of `wanted` what is offered is taken.
    /// Queues are added next, then [`Self::start`].
    pub fn negotiate(
        transport: Box<dyn Transport>,
        clock: Clock,
        required: u64,
        wanted: u64,
    ) -> Result<Self, DeviceError> {
        let mut device = Self {
            transport,
            clock,
            features: 0,
            next_health_check: Duration::ZERO,
        };
        device.reset()?;
        device.transport.set_status(status::ACKNOWLEDGE);
        device
            .transport
            .set_status(status::ACKNOWLEDGE | status::DRIVER);
        let offered = device.transport.offered_features();
        let required = required | needed_by_platform(platform::trust_domain().is_some());
        if offered & required != required {
            return Err(device.fail(DeviceError::FeatureMissing));
        }
        device.features = offered & (required | wanted | ACCESS_PLATFORM);
        device.transport.accept_features(device.features);
        device
            .transport
            .set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        if device.transport.status() & status::FEATURES_OK == 0 {
            return Err(device.fail(DeviceError::FeaturesRefused));
        }
        Ok(device)
    }

    fn reset(&mut self) -> Result<(), DeviceError> {
        self.transport.set_status(0);
        let deadline = self.now().saturating_add(RESET_TIMEOUT);
        while self.transport.status() != 0 {
            if self.now() > deadline {
                return Err(DeviceError::ResetTimeout);
            }
            core::hint::spin_loop();
        }
        Ok(())
    }

    /// Whether a feature was agreed on.
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// The time.
    pub fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Makes queue `index` with `slots` requests of up to `links` segments.
    pub fn queue(
        &mut self,
        arena: &mut SharedArena,
        index: u16,
        slots: u16,
        links: u16,
    ) -> Result<VirtQueue, DeviceError> {
        let largest = self.transport.largest_queue(index);
        // A power of two for the ring, so that a device that is slightly too small still gets whole slots.
        let room = if largest == 0 {
            0
        } else {
            1 << largest.ilog2()
        };
        let slots = slots.min(room / links);
        if slots == 0 {
            return Err(self.fail(DeviceError::Queue(index)));
        }
        let interrupts = self.transport.has_interrupts();
        let queue = match VirtQueue::new(arena, slots, links, interrupts) {
            Ok(queue) => queue,
            Err(error) => return Err(self.fail(error.into())),
        };
        if !self
            .transport
            .enable_queue(index, queue.size(), queue.addresses())
        {
            return Err(self.fail(DeviceError::Queue(index)));
        }
        Ok(queue)
    }

    /// Lets the device begin.
    pub fn start(&mut self) {
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.transport.set_status(all);
    }

    /// Tells the device about new requests in `queue` unless it does not want to know.
    pub fn notify(&mut self, index: u16, queue: &VirtQueue) {
        if queue.wants_notification() {
            self.transport.notify(index);
        }
    }

    /// Copies the device-specific configuration at `offset`, all of one generation.
    pub fn config<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], DeviceError> {
        // A device that changes its configuration at every look is not one to wait for.
        for _ in 0..16 {
            let before = self.transport.config_generation();
            let mut bytes = [0; N];
            for (index, byte) in (offset..).zip(&mut bytes) {
                *byte = self.transport.config_byte(index);
            }
            if self.transport.config_generation() == before {
                return Ok(bytes);
            }
        }
        Err(self.fail(DeviceError::Configuration))
    }

    /// Looks once a second whether the device still runs. A look costs an exit to the host, hence the interval.
    pub fn check_health(&mut self, now: Duration) -> Result<(), DeviceError> {
        if now < self.next_health_check {
            return Ok(());
        }
        self.next_health_check = now.saturating_add(HEALTH_INTERVAL);
        let status = self.transport.status();
        if status & status::DRIVER_OK == 0 || status & status::NEEDS_RESET != 0 {
            return Err(DeviceError::Reset);
        }
        Ok(())
    }

    /// Declares the device failed, so that it stops using its rings, and returns `error` for the caller to pass on.
    pub fn fail(&mut self, error: DeviceError) -> DeviceError {
        let failed = self.transport.status() | status::FAILED;
        self.transport.set_status(failed);
        error
    }
}
