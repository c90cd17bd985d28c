//! A model file on its way into memory, sealed or plain: whoever takes it in need not know which.

use alloc::boxed::Box;
use core::ops::DerefMut;

use ring::digest::{Context, SHA256};

use crate::{Envelope, FileKey, OpenError, Opening, Parallel, opening::finish};

/// A file that is arriving.
///
/// `M` is the memory it ends up in, as plaintext.
pub enum Arrival<M: DerefMut<Target = [u8]>> {
    /// Opened as it arrives.
    Sealed(Box<Opening<M>>),
    /// Taken as it is.
    Plain(Box<Plain<M>>),
}

/// A file that is taken as it is.
pub struct Plain<M> {
    memory: M,
    arrived: usize,
    digest: Context,
}

/// A file that has arrived, whole.
#[derive(Debug)]
pub struct Contents<M> {
    /// The plaintext.
    pub memory: M,
    /// SHA-256 of the sealed file; None if it was plain.
    pub sealed: Option<[u8; 32]>,
    /// SHA-256 of the plaintext.
    pub plaintext: [u8; 32],
}

impl<M: DerefMut<Target = [u8]>> Arrival<M> {
    /// Awaits the payload of the file with this envelope. `memory` is as long as its plaintext.
    ///
    /// # Errors
    /// As [`Opening::new`].
    pub fn sealed(envelope: Envelope, key: &FileKey, memory: M) -> Result<Self, OpenError> {
        Opening::new(envelope, key, memory).map(|opening| Self::Sealed(Box::new(opening)))
    }

    /// Awaits a plain file. `memory` is as long as it.
    pub fn plain(memory: M) -> Self {
        Self::Plain(Box::new(Plain {
            memory,
            arrived: 0,
            digest: Context::new(&SHA256),
        }))
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// As [`Opening::push`].
    pub fn push(&mut self, bytes: &[u8], parallel: Parallel<'_>) -> Result<(), OpenError> {
        match self {
            Self::Sealed(opening) => opening.push(bytes, parallel),
            Self::Plain(plain) => {
                let end = plain.arrived + bytes.len();
                let place = plain.memory.get_mut(plain.arrived..end);
                place.ok_or(OpenError::Overlong)?.copy_from_slice(bytes);
                plain.digest.update(bytes);
                plain.arrived = end;
                Ok(())
            }
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`Opening::finish`].
    pub fn finish(self, parallel: Parallel<'_>) -> Result<Contents<M>, OpenError> {
        match self {
            Self::Sealed(opening) => {
                let opened = opening.finish(parallel)?;
                Ok(Contents {
                    memory: opened.memory,
                    sealed: Some(opened.sealed),
                    plaintext: opened.plaintext,
                })
            }
            Self::Plain(plain) => {
                let missing = plain.memory.len() - plain.arrived;
                match missing {
                    0 => Ok(Contents {
                        memory: plain.memory,
                        sealed: None,
                        plaintext: finish(&plain.digest),
                    }),
                    _ => Err(OpenError::Truncated(missing as u64)),
                }
            }
        }
    }
}
