//! The header: a version line, a stanza for every recipient, and a MAC over all of it.
//!
//! The parser takes what the format's specification allows and nothing else: one space between arguments, LF line ends,
//! unpadded canonical base64, body lines of exactly 64 columns with a shorter last one. So two parsers cannot read two things
//! in one file.

use alloc::{string::String, vec::Vec};
use core::fmt;

use base64ct::{Base64Unpadded, Encoding};

/// The longest header that is read, in bytes: more than a thousand recipients.
pub const HEADER_LIMIT: usize = 64 << 10;

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const STANZA_START: &[u8] = b"-> ";
const MAC_START: &[u8] = b"--- ";
/// Columns of a full line of a stanza's body.
const COLUMNS: usize = 64;
/// Bytes of the MAC, an HMAC-SHA-256.
const MAC: usize = 32;

/// What one recipient needs to get at the file key: opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// The recipient type, `X25519` for one.
    pub kind: String,
    /// What else stands in the stanza's first line.
    pub arguments: Vec<String>,
    /// Usually the wrapped file key.
    pub body: Vec<u8>,
}

/// A header, well-formed and not yet authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// One for every recipient, at least one.
    pub stanzas: Vec<Stanza>,
    /// The MAC the file claims.
    pub(crate) mac: [u8; MAC],
    /// How many of the file's bytes the MAC covers: all up to and including `---`.
    pub(crate) covered: usize,
    /// How many bytes the header is long.
    pub(crate) length: usize,
}

/// Why bytes are not the beginning of an age v1 file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It is well-formed as far as it goes, but the header does not end here.
    Incomplete,
    /// It does not begin with the version line of age v1.
    NotAge,
    /// It does not end within [`HEADER_LIMIT`] bytes.
    TooLong,
    /// There is something else where a stanza or the MAC should begin.
    Line,
    /// There is no recipient.
    NoStanza,
    /// A stanza's first line is not a type with arguments, separated by single spaces.
    Arguments,
    /// A stanza's body is not canonical base64, in lines of 64 columns and a shorter last one.
    Body,
    /// The MAC is not 32 bytes in canonical base64.
    Mac,
}

impl Header {
    /// Parses the header at the start of `file`, of which any number of bytes may be there.
    ///
    /// # Errors
    /// [`HeaderError::Incomplete`] if more bytes could make a header of it, any other if none can.
    pub fn parse(file: &[u8]) -> Result<Self, HeaderError> {
        let file = &file[..file.len().min(HEADER_LIMIT)];
        match Self::parse_within(file) {
            Err(HeaderError::Incomplete) if file.len() == HEADER_LIMIT => Err(HeaderError::TooLong),
            outcome => outcome,
        }
    }

    fn parse_within(file: &[u8]) -> Result<Self, HeaderError> {
        let known = file.len().min(VERSION.len());
        if file[..known] != VERSION[..known] {
            return Err(HeaderError::NotAge);
        }
        let mut lines = Lines {
            file,
            at: VERSION.len(),
        };
        let mut stanzas = Vec::new();
        loop {
            let start = lines.at;
            let line = lines.next_line()?;
            if let Some(first) = line.strip_prefix(STANZA_START) {
                stanzas.push(parse_stanza(first, &mut lines)?);
            } else if let Some(mac) = line.strip_prefix(MAC_START) {
                if stanzas.is_empty() {
                    return Err(HeaderError::NoStanza);
                }
                let mac = decode(mac).and_then(|mac| mac.try_into().ok());
                return Ok(Self {
                    stanzas,
                    mac: mac.ok_or(HeaderError::Mac)?,
                    covered: start + MAC_START.len() - 1,
                    length: lines.at,
                });
            } else {
                return Err(HeaderError::Line);
            }
        }
    }

    /// How many bytes the header is long.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// A stanza, of which `first` is the first line without its arrow and the body is still to be read.
fn parse_stanza(first: &[u8], lines: &mut Lines<'_>) -> Result<Stanza, HeaderError> {
    let mut words = first.split(|&byte| byte == b' ').map(|word| {
        let printable = !word.is_empty() && word.iter().all(u8::is_ascii_graphic);
        let text = core::str::from_utf8(word).ok().filter(|_| printable);
        text.map(String::from).ok_or(HeaderError::Arguments)
    });
    let kind = words.next().ok_or(HeaderError::Arguments)??;
    let arguments = words.collect::<Result<_, _>>()?;
    let mut body = Vec::new();
    loop {
        let line = lines.next_line()?;
        if line.len() > COLUMNS {
            return Err(HeaderError::Body);
        }
        body.extend(decode(line).ok_or(HeaderError::Body)?);
        if line.len() < COLUMNS {
            return Ok(Stanza {
                kind,
                arguments,
                body,
            });
        }
    }
}

/// Canonical base64 without padding.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(text).ok()?;
    let bytes = Base64Unpadded::decode_vec(text).ok()?;
    // The decoder may be lenient about bits that carry nothing; the format is not.
    (Base64Unpadded::encode_string(&bytes) == text).then_some(bytes)
}

/// The lines of a file, each ended by LF.
struct Lines<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end.
    fn next_line(&mut self) -> Result<&'a [u8], HeaderError> {
        let rest = self.file.get(self.at..).ok_or(HeaderError::Incomplete)?;
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or(HeaderError::Incomplete)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("the file ends within its age header"),
            Self::NotAge => f.write_str("the file is not sealed in the age v1 format"),
            Self::TooLong => write!(f, "the age header is longer than {HEADER_LIMIT} bytes"),
            Self::Line => f.write_str("the age header has a line that is no stanza and no MAC"),
            Self::NoStanza => f.write_str("the age header names no recipient"),
            Self::Arguments => f.write_str("the age header has a malformed recipient line"),
            Self::Body => f.write_str("the age header has a malformed recipient body"),
            Self::Mac => f.write_str("the age header has a malformed MAC"),
        }
    }
}

impl core::error::Error for HeaderError {}

#[cfg(test)]
mod tests;
