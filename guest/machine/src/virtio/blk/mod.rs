//! The disk driver: reads one labelled disk from its first byte to its last, each byte once.
//!
//! The contents are streamed: several requests are in flight, [`Disk::read`] hands out what has arrived and never
//! waits, so that the caller can show progress and serve the network in between. A block read here is copied out of
//! shared memory a single time; whatever is parsed or hashed later is that private copy.

mod label;

pub use label::{Label, Role, SERIAL_LENGTH};

use super::device::{Clock, Device, DeviceError, Transport};
use super::queue::{Segment, VirtQueue};
use super::shared::{SharedArena, SharedBuffer};
use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

/// Bytes in a sector, the unit of capacity.
pub const SECTOR: usize = 512;
const CHUNK: usize = 128 << 10;
const SLOTS: u16 = 8;
const QUEUE: u16 = 0;
/// Request header, data, status.
const LINKS: u16 = 3;
/// Per slot: the request header, and behind it the status byte.
const CONTROL: usize = 32;
const HEADER_LENGTH: usize = 16;
const STATUS_AT: usize = HEADER_LENGTH;

const READ_ONLY: u64 = 1 << 5;
const TYPE_READ: u32 = 0;
const TYPE_IDENTIFY: u32 = 8;
const STATUS_OK: u8 = 0;
const STATUS_UNSET: u8 = 0xff;

/// How long a disk may leave requests unanswered. Generous: a cold network disk is slow, a dead one stays dead.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a disk cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The device misbehaved.
    Device(DeviceError),
    /// The device reported an error; its status byte.
    Status(u8),
    /// The serial names a role but no decimal length.
    Label,
    /// The length in the serial does not end in the last sector.
    Length {
        /// Bytes, from the serial.
        length: u64,
        /// Sectors, from the device.
        capacity: u64,
    },
    /// The last sector is not zero behind the contents.
    Padding,
}

impl From<DeviceError> for DiskError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Status(status) => write!(f, "the disk reports error {status}"),
            Self::Label => write!(f, "the disk serial is not <role>:<decimal length>"),
            Self::Length { length, capacity } => {
                write!(
                    f,
                    "the disk serial says {length} bytes, which {capacity} sectors do not hold exactly"
                )
            }
            Self::Padding => write!(f, "the disk is not zero behind its contents"),
        }
    }
}

impl core::error::Error for DiskError {}

/// A disk with one of our labels, being read from start to end.
pub struct Disk {
    device: Device,
    queue: VirtQueue,
    control: SharedBuffer,
    data: SharedBuffer,
    label: Label,
    capacity: u64,
    /// Chunks requested so far. Chunk `n` goes through slot `n % slots`, so at most `slots` are under way.
    requested: u64,
    /// Contents handed out so far, in bytes.
    position: u64,
    /// Slots whose chunk has arrived and is not handed out yet.
    arrived: [bool; SLOTS as usize],
    deadline: Duration,
    failed: Option<DiskError>,
}

impl Disk {
    /// Sets up a disk and reads its label, waiting for it with a deadline. None if the label is not one of ours.
    pub fn open(
        transport: Box<dyn Transport>,
        arena: &mut SharedArena,
        clock: Clock,
    ) -> Result<Option<Self>, DiskError> {
        let mut device = Device::negotiate(transport, clock, 0, READ_ONLY)?;
        let mut queue = device.queue(arena, QUEUE, SLOTS, LINKS)?;
        let mut control = arena
            .allocate(CONTROL * usize::from(SLOTS), 16)
            .map_err(DeviceError::from)?;
        let capacity = u64::from_le_bytes(device.config(0)?);
        device.start();
        let label = identify(&mut device, &mut queue, &mut control, arena)
            .and_then(|serial| Label::parse(&serial, capacity));
        let label = match label {
            Ok(Some(label)) => label,
            Ok(None) => return Ok(None),
            Err(error) => {
                device.fail(DeviceError::Configuration);
                return Err(error);
            }
        };
        let bytes = CHUNK * usize::from(queue.slots());
        let data = arena
            .allocate(bytes, 4096)
            .map_err(|full| device.fail(full.into()))?;
        let deadline = device.now().saturating_add(TIMEOUT);
        Ok(Some(Self {
            device,
            queue,
            control,
            data,
            label,
            capacity,
            requested: 0,
            position: 0,
            arrived: [false; SLOTS as usize],
            deadline,
            failed: None,
        }))
    }

    /// Role and exact length, from the serial.
    pub fn label(&self) -> Label {
        self.label
    }

    /// Sectors on the disk.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes not handed out yet.
    pub fn remaining(&self) -> u64 {
        self.label.length - self.position
    }

    /// Copies the next bytes that have arrived into `into` and requests more. Returns how many, zero if none have
    /// arrived yet or [`Self::remaining`] is zero. Never waits; a disk that leaves requests unanswered for half a
    /// minute fails. After an error the disk is shut down and every further call returns the same error.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, DiskError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance(into).inspect_err(|error| {
            self.failed = Some(*error);
            self.device.fail(DeviceError::Timeout);
        })
    }

    /// Goes back to the first byte, for a caller that threw away what it had. Waits until no request is under way, with the
    /// same deadline as reading.
    pub fn rewind(&mut self) -> Result<(), DiskError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.settle().inspect_err(|error| {
            self.failed = Some(*error);
            self.device.fail(DeviceError::Timeout);
        })?;
        self.requested = 0;
        self.position = 0;
        self.arrived = [false; SLOTS as usize];
        Ok(())
    }

    /// Waits until every request has been answered.
    fn settle(&mut self) -> Result<(), DiskError> {
        let deadline = self.device.now().saturating_add(TIMEOUT);
        // A chunk handed out in part has arrived.
        let first = self.position.div_ceil(CHUNK as u64);
        while (first..self.requested).any(|chunk| !self.arrived[usize::from(self.slot_of(chunk))]) {
            self.collect()?;
            if self.device.now() > deadline {
                return Err(DeviceError::Timeout.into());
            }
        }
        Ok(())
    }

    fn advance(&mut self, into: &mut [u8]) -> Result<usize, DiskError> {
        self.collect()?;
        let mut copied = 0;
        while copied < into.len() && self.remaining() > 0 {
            let chunk = self.position / CHUNK as u64;
            let slot = self.slot_of(chunk);
            if !self.arrived[usize::from(slot)] {
                break;
            }
            let within = (self.position % CHUNK as u64) as usize;
            let contents = self.contents_of(chunk);
            let part = (contents - within).min(into.len() - copied);
            let at = CHUNK * usize::from(slot) + within;
            self.data.copy_out(at, &mut into[copied..copied + part]);
            copied += part;
            self.position += part as u64;
            if within + part == contents {
                self.check_padding(at + part, self.sectors_of(chunk) * SECTOR - contents)?;
                self.arrived[usize::from(slot)] = false;
            }
        }
        self.request();
        Ok(copied)
    }

    /// Notes which chunks have arrived.
    fn collect(&mut self) -> Result<(), DiskError> {
        if self.requested == 0 {
            self.deadline = self.device.now().saturating_add(TIMEOUT);
            return Ok(());
        }
        let mut progress = false;
        while let Some(done) = self.queue.completion()? {
            check_status(&self.control, done.slot)?;
            self.arrived[usize::from(done.slot)] = true;
            progress = true;
        }
        let now = self.device.now();
        let next = self.slot_of(self.position / CHUNK as u64);
        if progress || self.arrived[usize::from(next)] {
            self.deadline = now.saturating_add(TIMEOUT);
        } else if self.remaining() > 0 && now > self.deadline {
            return Err(DeviceError::Timeout.into());
        }
        Ok(())
    }

    /// Keeps every slot busy.
    fn request(&mut self) {
        let first_wanted = self.position / CHUNK as u64;
        let chunks = self.label.length.div_ceil(CHUNK as u64);
        let end = chunks.min(first_wanted + u64::from(self.queue.slots()));
        let before = self.requested;
        while self.requested < end {
            let chunk = self.requested;
            let slot = self.slot_of(chunk);
            let segment = Segment {
                address: self.data.address(CHUNK * usize::from(slot)),
                length: (self.sectors_of(chunk) * SECTOR) as u32,
                device_writes: true,
            };
            let sector = chunk * (CHUNK / SECTOR) as u64;
            submit(
                &mut self.queue,
                &mut self.control,
                slot,
                TYPE_READ,
                sector,
                segment,
            );
            self.requested += 1;
        }
        if self.requested != before {
            self.device.notify(QUEUE, &self.queue);
        }
    }

    fn slot_of(&self, chunk: u64) -> u16 {
        (chunk % u64::from(self.queue.slots())) as u16
    }

    /// Bytes of contents in a chunk.
    fn contents_of(&self, chunk: u64) -> usize {
        (self.label.length - chunk * CHUNK as u64).min(CHUNK as u64) as usize
    }

    fn sectors_of(&self, chunk: u64) -> usize {
        self.contents_of(chunk).div_ceil(SECTOR)
    }

    fn check_padding(&self, at: usize, length: usize) -> Result<(), DiskError> {
        let mut padding = [0; SECTOR];
        let padding = &mut padding[..length];
        self.data.copy_out(at, padding);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(DiskError::Padding);
        }
        Ok(())
    }
}

/// Submits a request whose data goes to or comes from `data`.
fn submit(
    queue: &mut VirtQueue,
    control: &mut SharedBuffer,
    slot: u16,
    kind: u32,
    sector: u64,
    data: Segment,
) {
    let at = CONTROL * usize::from(slot);
    control.write_u32(at, kind);
    control.write_u32(at + 4, 0);
    control.write_u64(at + 8, sector);
    control.copy_in(at + STATUS_AT, &[STATUS_UNSET]);
    let header = Segment {
        address: control.address(at),
        length: HEADER_LENGTH as u32,
        device_writes: false,
    };
    let status = Segment {
        address: control.address(at + STATUS_AT),
        length: 1,
        device_writes: true,
    };
    queue.submit(slot, &[header, data, status]);
}

fn check_status(control: &SharedBuffer, slot: u16) -> Result<(), DiskError> {
    let mut status = [0];
    control.copy_out(CONTROL * usize::from(slot) + STATUS_AT, &mut status);
    match status {
        [STATUS_OK] => Ok(()),
        [other] => Err(DiskError::Status(other)),
    }
}

/// Asks the disk for its serial.
fn identify(
    device: &mut Device,
    queue: &mut VirtQueue,
    control: &mut SharedBuffer,
    arena: &mut SharedArena,
) -> Result<[u8; SERIAL_LENGTH], DiskError> {
    let serial = arena
        .allocate(SERIAL_LENGTH, 16)
        .map_err(DeviceError::from)?;
    let segment = Segment {
        address: serial.address(0),
        length: SERIAL_LENGTH as u32,
        device_writes: true,
    };
    submit(queue, control, 0, TYPE_IDENTIFY, 0, segment);
    device.notify(QUEUE, queue);
    let deadline = device.now().saturating_add(TIMEOUT);
    while queue.completion()?.is_none() {
        if device.now() > deadline {
            return Err(DeviceError::Timeout.into());
        }
        core::hint::spin_loop();
    }
    check_status(control, 0)?;
    let mut bytes = [0; SERIAL_LENGTH];
    serial.copy_out(0, &mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
