//! The model on its way from its disk into private memory: plain or sealed, measured either way.
//!
//! The first bytes tell what the file is. A plain one is taken in at once. A sealed one waits for its key, and is opened while it
//! arrives; if a part of it turns out not to be authentic, what was opened is overwritten, and it waits for its key again.

use core::fmt;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use machine::heap::{Arena, OutOfMemory};
use machine::smp::Team;
use machine::virtio::blk::{Disk, Role};
use seal::{Arrival, Contents, Envelope, EnvelopeError, FileKey, Kind, OpenError, Parallel};

use crate::contents::ReadError;

/// Bytes taken in between two looks at the network.
const PIECE: usize = 1 << 20;

/// Why there is no model in memory.
#[derive(Debug)]
pub enum ModelError {
    /// Its disk, or the memory for it.
    Read(ReadError),
    /// It begins like a sealed file and is none.
    Envelope(EnvelopeError),
    /// It was not opened.
    Open(OpenError),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Envelope(error) => write!(f, "model: {error}"),
            Self::Open(error) => write!(f, "model: {error}"),
        }
    }
}

/// What a turn came to.
pub enum Turn {
    /// Nothing has arrived, or nothing is to be done without the key.
    Idle,
    /// So much of it is there, in per cent.
    Arriving(u8),
    /// It is sealed like this.
    Sealed(Envelope),
    /// All of it is there.
    Complete(Contents<Arena>),
    /// A part of it was not authentic. It will wait for its key again.
    Refused(OpenError),
}

/// A model on its way.
pub struct Model {
    disk: Disk,
    piece: Box<[u8]>,
    stage: Stage,
}

enum Stage {
    /// The beginning, as far as it is there.
    Unknown(Vec<u8>),
    /// Waiting for its key; what has been read beyond the envelope.
    Sealed(Vec<u8>),
    Arriving(Arrival<Arena>),
    Over,
}

impl Model {
    /// Begins with the first byte of the disk.
    pub fn start(disk: Disk) -> Self {
        Self {
            disk,
            piece: vec![0; PIECE].into_boxed_slice(),
            stage: Stage::Unknown(Vec::new()),
        }
    }

    /// Takes in what has arrived, without waiting.
    ///
    /// # Errors
    /// There will be no model.
    pub fn advance(&mut self, team: &Team) -> Result<Turn, ModelError> {
        match &mut self.stage {
            Stage::Unknown(_) => self.identify(),
            Stage::Sealed(_) | Stage::Over => Ok(Turn::Idle),
            Stage::Arriving(_) => self.take_in(team),
        }
    }

    /// Begins to open a sealed model with its key.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn open(
        &mut self,
        envelope: Envelope,
        key: &FileKey,
        team: &Team,
    ) -> Result<Turn, ModelError> {
        let Stage::Sealed(surplus) = &mut self.stage else {
            return Ok(Turn::Idle);
        };
        let surplus = core::mem::take(surplus);
        let memory = arena(envelope.layout().plaintext_length())?;
        let mut arrival = Arrival::sealed(envelope, key, memory).map_err(ModelError::Open)?;
        let pushed = arrival.push(&surplus, &|task| team.run(&|_| task()));
        self.stage = Stage::Arriving(arrival);
        match pushed {
            Ok(()) => Ok(Turn::Arriving(0)),
            Err(error) => self.start_again(error),
        }
    }

    /// Reads on until it is clear what the file is.
    fn identify(&mut self) -> Result<Turn, ModelError> {
        let arrived = self.read(PIECE)?;
        let Stage::Unknown(start) = &mut self.stage else {
            return Ok(Turn::Idle);
        };
        start.extend_from_slice(&self.piece[..arrived]);
        let length = self.disk.label().length;
        match Envelope::identify(start, length).map_err(ModelError::Envelope)? {
            Kind::Unclear => Ok(match arrived {
                0 => Turn::Idle,
                _ => Turn::Arriving(0),
            }),
            Kind::Sealed(envelope) => {
                let surplus = start.split_off(envelope.length());
                self.stage = Stage::Sealed(surplus);
                Ok(Turn::Sealed(envelope))
            }
            Kind::Plain => {
                let mut arrival = Arrival::plain(arena(length)?);
                arrival
                    .push(start, &|task| task())
                    .map_err(ModelError::Open)?;
                self.stage = Stage::Arriving(arrival);
                Ok(Turn::Arriving(0))
            }
        }
    }

    fn take_in(&mut self, team: &Team) -> Result<Turn, ModelError> {
        let arrived = self.read(PIECE)?;
        let Stage::Arriving(arrival) = &mut self.stage else {
            return Ok(Turn::Idle);
        };
        let parallel: Parallel<'_> = &|task| team.run(&|_| task());
        if arrived > 0
            && let Err(error) = arrival.push(&self.piece[..arrived], parallel)
        {
            return self.start_again(error);
        }
        if self.disk.remaining() > 0 {
            return Ok(match arrived {
                0 => Turn::Idle,
                _ => Turn::Arriving(self.percent()),
            });
        }
        let Stage::Arriving(arrival) = core::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(Turn::Idle);
        };
        match arrival.finish(parallel) {
            Ok(contents) => Ok(Turn::Complete(contents)),
            Err(error) => self.start_again(error),
        }
    }

    /// Forgets everything that was read, which overwrites it, and begins with the first byte again.
    fn start_again(&mut self, error: OpenError) -> Result<Turn, ModelError> {
        self.stage = Stage::Unknown(Vec::new());
        let role = self.disk.label().role;
        let rewound = self.disk.rewind();
        rewound.map_err(|error| ModelError::Read(ReadError::Disk(role, error)))?;
        Ok(Turn::Refused(error))
    }

    fn read(&mut self, limit: usize) -> Result<usize, ModelError> {
        let role = self.disk.label().role;
        self.disk
            .read(&mut self.piece[..limit])
            .map_err(|error| ModelError::Read(ReadError::Disk(role, error)))
    }

    fn percent(&self) -> u8 {
        let length = self.disk.label().length.max(1);
        ((length - self.disk.remaining()) * 100 / length).min(100) as u8
    }
}

fn arena(length: u64) -> Result<Arena, ModelError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Arena::new(length)
        .map_err(|error: OutOfMemory| ModelError::Read(ReadError::Memory(Role::Model, error)))
}
