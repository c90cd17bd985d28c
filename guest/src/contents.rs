//! What is on a disk, read once into private memory, a piece at a time.

use core::fmt;

use machine::heap::{Arena, OutOfMemory};
use machine::virtio::blk::{Disk, DiskError, Role};

/// Why a disk's contents are not in memory.
#[derive(Debug)]
pub enum ReadError {
    /// The device failed, or its padding is not zero.
    Disk(Role, DiskError),
    /// Memory does not hold it.
    Memory(Role, OutOfMemory),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(role, error) => write!(f, "{role} disk: {error}"),
            Self::Memory(role, error) => {
                write!(f, "{role} disk: {error}; give the machine more memory")
            }
        }
    }
}

impl core::error::Error for ReadError {}

/// A disk on its way into memory.
pub struct Reading {
    disk: Disk,
    memory: Arena,
    filled: usize,
}

impl Reading {
    /// Bytes handed on between two looks at the network.
    const PIECE: usize = 1 << 20;

    /// Takes the memory for the whole disk.
    ///
    /// # Errors
    /// There is not enough.
    pub fn start(disk: Disk) -> Result<Self, ReadError> {
        let label = disk.label();
        let length = usize::try_from(label.length).unwrap_or(usize::MAX);
        let memory = Arena::new(length).map_err(|error| ReadError::Memory(label.role, error))?;
        Ok(Self {
            disk,
            memory,
            filled: 0,
        })
    }

    /// Takes in what has arrived, without waiting. Returns whether anything had.
    ///
    /// # Errors
    /// The disk is broken; every further call says so too.
    pub fn advance(&mut self) -> Result<bool, ReadError> {
        let role = self.disk.label().role;
        let end = self
            .memory
            .len()
            .min(self.filled.saturating_add(Self::PIECE));
        let space = self.memory.get_mut(self.filled..end).unwrap_or_default();
        let arrived = self
            .disk
            .read(space)
            .map_err(|error| ReadError::Disk(role, error))?;
        self.filled += arrived;
        Ok(arrived > 0)
    }

    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        self.disk.remaining() == 0
    }

    /// The contents, exactly as long as the label says.
    pub fn into_memory(self) -> Arena {
        self.memory
    }
}
