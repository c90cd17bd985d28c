//! Everything of a sealed file that comes before its chunks, and the check that a key is this file's.

use alloc::vec::Vec;
use core::fmt;

use ring::{aead::LessSafeKey, error::Unspecified, hmac};

use crate::{FileKey, Header, HeaderError, Layout, LayoutError};

/// Bytes of the nonce between header and chunks.
const NONCE: usize = 16;

/// The beginning of a sealed file: header and nonce, read and not yet authenticated.
#[derive(Clone, Debug)]
pub struct Envelope {
    header: Header,
    /// Header and nonce, as they stand in the file.
    bytes: Vec<u8>,
    layout: Layout,
}

/// An envelope whose key is known: its header is authentic, its chunks can be opened.
pub(crate) struct Unlocked {
    pub(crate) key: LessSafeKey,
    /// Header and nonce, for the digest of the file.
    pub(crate) bytes: Vec<u8>,
    pub(crate) layout: Layout,
}

/// The key is not the one this file was sealed with, or the header was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongKey;

/// Why a file is not a sealed model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Its header.
    Header(HeaderError),
    /// Its length.
    Layout(LayoutError),
}

/// What a file is, by its first bytes.
#[derive(Debug)]
pub enum Kind {
    /// More of them are needed.
    Unclear,
    /// A sealed file.
    Sealed(Envelope),
    /// Any other.
    Plain,
}

impl Envelope {
    /// Tells what a file of `length` bytes is from its first ones.
    ///
    /// # Errors
    /// It begins like a sealed file and is none.
    pub fn identify(start: &[u8], length: u64) -> Result<Kind, EnvelopeError> {
        match Self::read(start, length) {
            Ok(None) => Ok(Kind::Unclear),
            Ok(Some(envelope)) => Ok(Kind::Sealed(envelope)),
            Err(EnvelopeError::Header(HeaderError::NotAge)) => Ok(Kind::Plain),
            Err(error) => Err(error),
        }
    }

    /// Reads the envelope of a file of `length` bytes from its first ones. None if more of them are needed.
    ///
    /// # Errors
    /// It is no age v1 file, or one cannot be that long.
    pub fn read(start: &[u8], length: u64) -> Result<Option<Self>, EnvelopeError> {
        let whole = start.len() as u64 >= length;
        let header = match Header::parse(start) {
            Err(HeaderError::Incomplete) if !whole => return Ok(None),
            outcome => outcome.map_err(EnvelopeError::Header)?,
        };
        let end = header.length + NONCE;
        let Some(bytes) = start.get(..end) else {
            return match whole {
                true => Err(EnvelopeError::Layout(LayoutError::Cut)),
                false => Ok(None),
            };
        };
        let payload = length.checked_sub(end as u64).ok_or(LayoutError::Cut);
        let layout = payload
            .and_then(Layout::of_payload)
            .map_err(EnvelopeError::Layout)?;
        Ok(Some(Self {
            bytes: bytes.to_vec(),
            header,
            layout,
        }))
    }

    /// The header, of which nothing is authentic before [`crate::Opening::new`] has accepted a key.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes come before the first chunk.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// What the chunks look like.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether `key` is the one that this file was sealed with, and its header unchanged since.
    ///
    /// # Errors
    /// It is not, or it is.
    pub fn check(&self, key: &FileKey) -> Result<(), WrongKey> {
        let header_key = key.header_key().map_err(|_| WrongKey)?;
        let covered = self.bytes.get(..self.header.covered).ok_or(WrongKey)?;
        hmac::verify(&header_key, covered, &self.header.mac).map_err(|_| WrongKey)
    }

    /// Derives the payload's key.
    pub(crate) fn unlock(self, key: &FileKey) -> Result<Unlocked, WrongKey> {
        self.check(key)?;
        let nonce = &self.bytes[self.header.length..];
        let key = key.payload_key(nonce).map_err(|_: Unspecified| WrongKey)?;
        Ok(Unlocked {
            key,
            layout: self.layout,
            bytes: self.bytes,
        })
    }
}

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is not the one this file was sealed with")
    }
}

impl core::error::Error for WrongKey {}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Layout(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EnvelopeError {}
