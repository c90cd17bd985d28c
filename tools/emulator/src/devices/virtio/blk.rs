//! virtio-blk (virtio 1.2, 5.2): a file as a read-only disk with a serial.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::Events;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_RO, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use vm_memory::{Bytes, GuestAddress};

use super::{Backend, Chain, Ring};
use crate::bus::SharedMemory;
use crate::hostile::{Attack, Host, Target};

/// Block device (virtio 1.2, 5).
const DEVICE_TYPE: u16 = 2;
/// Mass storage, SCSI: QEMU's class of the device (PCI Local Bus 3.0, appendix D; QEMU `PCI_CLASS_STORAGE_SCSI`).
const MASS_STORAGE: [u8; 3] = [1, 0, 0];
const QUEUES: [u16; 1] = [256];
/// The unit of addresses, and bytes of a request's header (virtio 1.2, 5.2.4 and 5.2.6).
const SECTOR: u64 = 512;
const HEADER: usize = 16;
/// Bytes of a serial; a shorter one ends with a zero byte (virtio 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID).
const SERIAL: usize = 20;
/// The configuration up to and including the block size (virtio 1.2, 5.2.4).
const CONFIG: usize = 24;

/// A disk to attach.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The file with its contents.
    pub path: PathBuf,
    /// Its serial, at most 20 bytes.
    pub serial: String,
}

/// A read-only disk.
pub struct Disk {
    file: File,
    length: u64,
    serial: [u8; SERIAL],
    host: Arc<Host>,
}

impl Disk {
    /// Opens the file. A last sector that the file does not fill reads as zeros behind it.
    ///
    /// # Errors
    /// The file cannot be read, or the serial is too long.
    pub fn open(path: &Path, serial: &str, host: Arc<Host>) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = [0; SERIAL];
        let place = bytes.get_mut(..serial.len());
        let too_long = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a disk serial has at most 20 bytes",
            )
        };
        place
            .ok_or_else(too_long)?
            .copy_from_slice(serial.as_bytes());
        Ok(Self {
            file,
            length,
            serial: bytes,
            host,
        })
    }

    /// Handles one request and returns the bytes written.
    fn handle(&mut self, memory: &SharedMemory, chain: &Chain) -> u32 {
        let mut header = [0; HEADER];
        let mut filled = 0;
        for segment in chain.clone().readable() {
            let part = (HEADER - filled).min(segment.len() as usize);
            if memory
                .read_slice(&mut header[filled..filled + part], segment.addr())
                .is_err()
            {
                return 0;
            }
            filled += part;
        }
        let mut places: Vec<(GuestAddress, u32)> = chain
            .clone()
            .writable()
            .map(|segment| (segment.addr(), segment.len()))
            .collect();
        // The status is the last writable byte.
        while places.last().is_some_and(|(_, length)| *length == 0) {
            places.pop();
        }
        let Some((last, length)) = places.last_mut() else {
            return 0;
        };
        *length -= 1;
        let status_at = GuestAddress(last.0.wrapping_add((*length).into()));
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let request = u32::from_le_bytes([a, b, c, d]);
        let outcome = if filled < HEADER {
            Err(VIRTIO_BLK_S_IOERR)
        } else {
            self.perform(memory, request, u64::from_le_bytes(sector), &places)
        };
        let (status, written) = match outcome {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(status) => (status, 0),
        };
        let status = if self.host.strikes(Attack::DiskStatus, Target::Disk) {
            VIRTIO_BLK_S_IOERR
        } else {
            status
        };
        match memory.write_obj(status as u8, status_at) {
            Ok(()) => written + 1,
            Err(_) => 0,
        }
    }

    /// Does what is asked, into `places`; the bytes written, or a status.
    fn perform(
        &mut self,
        memory: &SharedMemory,
        request: u32,
        sector: u64,
        places: &[(GuestAddress, u32)],
    ) -> Result<u32, u32> {
        match request {
            VIRTIO_BLK_T_IN => {
                let start = sector.checked_mul(SECTOR).ok_or(VIRTIO_BLK_S_IOERR)?;
                self.read(memory, start, places)
                    .map_err(|_| VIRTIO_BLK_S_IOERR)
            }
            VIRTIO_BLK_T_GET_ID => {
                let serial = tampered_serial(self.serial, &self.host);
                let mut rest = &serial[..];
                for (address, length) in places {
                    let (part, tail) = rest.split_at(rest.len().min(*length as usize));
                    memory
                        .write_slice(part, *address)
                        .map_err(|_| VIRTIO_BLK_S_IOERR)?;
                    rest = tail;
                }
                Ok((SERIAL - rest.len()) as u32)
            }
            VIRTIO_BLK_T_OUT => Err(VIRTIO_BLK_S_IOERR),
            VIRTIO_BLK_T_FLUSH => Ok(0),
            _ => Err(VIRTIO_BLK_S_UNSUPP),
        }
    }

    /// Reads from the file straight into shared memory.
    fn read(
        &mut self,
        memory: &SharedMemory,
        start: u64,
        places: &[(GuestAddress, u32)],
    ) -> io::Result<u32> {
        let wanted: u64 = places.iter().map(|(_, length)| u64::from(*length)).sum();
        let capacity = self.length.next_multiple_of(SECTOR);
        if start.checked_add(wanted).is_none_or(|end| end > capacity) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.seek(SeekFrom::Start(start))?;
        let mut left = self.length.saturating_sub(start);
        for (address, length) in places {
            let from_file = left.min((*length).into()) as usize;
            memory
                .read_exact_volatile_from(*address, &mut self.file, from_file)
                .map_err(io::Error::other)?;
            left -= from_file as u64;
            let padding = *length as usize - from_file;
            let mut filler = vec![0; padding];
            if padding > 0 && self.host.strikes(Attack::DiskPadding, Target::Disk) {
                filler.fill(0xa5);
            }
            let behind = GuestAddress(address.0.wrapping_add(from_file as u64));
            memory
                .write_slice(&filler, behind)
                .map_err(io::Error::other)?;
        }
        Ok(wanted as u32)
    }
}

impl Backend for Disk {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn class(&self) -> [u8; 3] {
        MASS_STORAGE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_RO
    }

    fn queues(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; CONFIG];
        config[..8].copy_from_slice(&self.length.div_ceil(SECTOR).to_le_bytes());
        config[20..].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        config
    }

    fn work(&mut self, _: &Events, rings: Option<&mut [Ring]>) -> Option<Duration> {
        if let Some([ring]) = rings {
            ring.drain(|ring, chain| {
                let written = self.handle(&ring.memory(), &chain);
                ring.finish(chain.head_index(), written);
                // A driver that waits for the first piece need not wait for the last.
                ring.signal();
            });
        }
        None
    }
}

/// The serial as a lying host gives it.
fn tampered_serial(serial: [u8; SERIAL], host: &Host) -> [u8; SERIAL] {
    let lie = |text: &[u8]| {
        let mut bytes = [0; SERIAL];
        bytes[..text.len()].copy_from_slice(text);
        bytes
    };
    if host.strikes(Attack::SerialText, Target::Disk) {
        lie(b"model:many")
    } else if host.strikes(Attack::SerialHuge, Target::Disk) {
        lie(b"model:99999999999999")
    } else if host.strikes(Attack::SerialRole, Target::Disk) {
        lie(b"other:1")
    } else {
        serial
    }
}
