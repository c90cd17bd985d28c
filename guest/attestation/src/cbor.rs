//! The part of CBOR (RFC 8949) that the formats here use: unsigned integers, byte and text strings, arrays, maps and tags of known shape.
//!
//! The reader accepts the deterministic encoding (section 4.2.1) only: definite lengths and the shortest form of every number. It borrows from
//! its input, never allocates, never recurses; the caller states the shape, so there is no nesting to bound.

use alloc::vec::Vec;
use core::fmt;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// Why bytes are not what a decoder expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The input ends too early.
    Truncated,
    /// Bytes follow the end.
    Trailing,
    /// A length is indefinite, or a number not in its shortest form.
    NotDeterministic,
    /// Another type of item than this.
    Expected(&'static str),
    /// A string, list or number beyond its bounds: this one.
    OutOfBounds(&'static str),
    /// A key, tag or constant differs from what the format fixes.
    Unexpected(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it ends too early"),
            Self::Trailing => f.write_str("bytes follow its end"),
            Self::NotDeterministic => f.write_str("it is not deterministic CBOR"),
            Self::Expected(what) => write!(f, "{what} should be where something else is"),
            Self::OutOfBounds(what) => write!(f, "{what}: out of bounds"),
            Self::Unexpected(what) => write!(f, "{what}: not the value the format fixes"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Writes items one after the other; the caller writes as many as it announced.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn array(&mut self, items: usize) {
        self.head(ARRAY, items as u64);
    }

    pub(crate) fn map(&mut self, pairs: usize) {
        self.head(MAP, pairs as u64);
    }

    pub(crate) fn tag(&mut self, tag: u64) {
        self.head(TAG, tag);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// An item's first bytes: its major type and a number in the shortest form.
    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        match value {
            0..=23 => self.0.push(major | value as u8),
            24..=0xff => self.0.extend_from_slice(&[major | 24, bytes[7]]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&bytes[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&bytes[4..]);
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&bytes);
            }
        }
    }
}

/// Reads items one after the other. `what` names the item in errors.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn unsigned(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.head(UNSIGNED, what)
    }

    /// A byte string of at most `limit` bytes.
    pub(crate) fn bytes(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let length = self.length(BYTES, limit, what)?;
        self.take(length)
    }

    /// A byte string of exactly `N` bytes.
    pub(crate) fn fixed<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        self.bytes(N, what)?
            .try_into()
            .map_err(|_| DecodeError::OutOfBounds(what))
    }

    /// A text string of at most `limit` bytes.
    pub(crate) fn text(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<&'a str, DecodeError> {
        let length = self.length(TEXT, limit, what)?;
        core::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Expected(what))
    }

    /// The head of an array; returns its number of items, at most `limit`.
    pub(crate) fn array(&mut self, limit: usize, what: &'static str) -> Result<usize, DecodeError> {
        self.length(ARRAY, limit, what)
    }

    /// The head of an array of exactly `items`.
    pub(crate) fn tuple(&mut self, items: usize, what: &'static str) -> Result<(), DecodeError> {
        exactly(items, self.array(items, what)?, what)
    }

    /// The head of a map of exactly `pairs`.
    pub(crate) fn map(&mut self, pairs: usize, what: &'static str) -> Result<(), DecodeError> {
        exactly(pairs, self.length(MAP, pairs, what)?, what)
    }

    /// A text that the format fixes: a map's key.
    pub(crate) fn constant(&mut self, text: &'static str) -> Result<(), DecodeError> {
        match self.text(text.len(), text) {
            Ok(found) if found == text => Ok(()),
            Err(error @ DecodeError::Truncated) => Err(error),
            _ => Err(DecodeError::Unexpected(text)),
        }
    }

    /// A number that the format fixes: a map's key.
    pub(crate) fn number(&mut self, number: u64, what: &'static str) -> Result<(), DecodeError> {
        match self.unsigned(what)? == number {
            true => Ok(()),
            false => Err(DecodeError::Unexpected(what)),
        }
    }

    /// A tag that the format fixes.
    pub(crate) fn tag(&mut self, tag: u64, what: &'static str) -> Result<(), DecodeError> {
        match self.head(TAG, what)? == tag {
            true => Ok(()),
            false => Err(DecodeError::Unexpected(what)),
        }
    }

    /// Whether the next item is a text string.
    pub(crate) fn text_follows(&self) -> bool {
        self.0.first().is_some_and(|byte| byte >> 5 == TEXT)
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(DecodeError::Trailing),
        }
    }

    fn length(
        &mut self,
        major: u8,
        limit: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        usize::try_from(self.head(major, what)?)
            .ok()
            .filter(|&length| length <= limit)
            .ok_or(DecodeError::OutOfBounds(what))
    }

    /// An item's major type, which must be this one, and its number.
    fn head(&mut self, major: u8, what: &'static str) -> Result<u64, DecodeError> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err(DecodeError::Expected(what));
        }
        // The number follows in so many bytes; the shortest form of the next size begins at `least`.
        let (size, least) = match first & 0x1f {
            short @ 0..=23 => return Ok(short.into()),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            _ => return Err(DecodeError::NotDeterministic),
        };
        let value = self
            .take(size)?
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        match value >= least {
            true => Ok(value),
            false => Err(DecodeError::NotDeterministic),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn exactly(expected: usize, found: usize, what: &'static str) -> Result<(), DecodeError> {
    match found == expected {
        true => Ok(()),
        false => Err(DecodeError::OutOfBounds(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsigned(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = reader.unsigned("a number")?;
        reader.finish().map(|()| value)
    }

    #[test]
    fn numbers_have_one_form() {
        for value in [
            0,
            23,
            24,
            255,
            256,
            65_535,
            65_536,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ] {
            let mut writer = Writer::default();
            writer.unsigned(value);
            assert_eq!(unsigned(&writer.finish()), Ok(value));
        }
        for longer in [
            &[24, 23][..],
            &[25, 0, 255],
            &[26, 0, 0, 255, 255],
            &[27, 0, 0, 0, 0, 255, 255, 255, 255],
        ] {
            assert_eq!(unsigned(longer), Err(DecodeError::NotDeterministic));
        }
    }

    #[test]
    fn indefinite_lengths_are_refused() {
        const ERROR: Result<usize, DecodeError> = Err(DecodeError::NotDeterministic);
        assert_eq!(
            Reader::new(&[0x5f, 0xff]).bytes(9, "").map(<[u8]>::len),
            ERROR
        );
        assert_eq!(Reader::new(&[0x7f, 0xff]).text(9, "").map(str::len), ERROR);
        assert_eq!(Reader::new(&[0x9f, 0xff]).array(9, ""), ERROR);
        assert_eq!(Reader::new(&[0xbf, 0xff]).map(0, "").map(|()| 0), ERROR);
        assert_eq!(unsigned(&[28]), Err(DecodeError::NotDeterministic));
    }
}
