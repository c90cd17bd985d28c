//! The certificate extension that carries the evidence, as CCC Interoperable RA-TLS has it: a CBOR tag directly in the extension's value.

use alloc::vec::Vec;

use crate::MAX_QUOTE;
use crate::cbor::{DecodeError, Reader, Writer};
use crate::claims::MAX_CLAIMS_BUFFER;

/// The extension's identifier: TCG DICE conceptual message wrapper. The extension is not critical.
pub const EXTENSION_ID: &str = "2.23.133.5.4.9";

/// An extension's value is never longer.
pub const MAX_EXTENSION: usize = MAX_QUOTE + MAX_CLAIMS_BUFFER + 16;

/// The tag of a TDX quote with its claims.
const TAG: u64 = 60000;

/// A quote and the claims it covers, not yet compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// The quote, 1 to [`MAX_QUOTE`] bytes.
    pub quote: &'a [u8],
    /// The encoded claims, 1 to [`MAX_CLAIMS_BUFFER`] bytes; the quote's REPORTDATA is their hash.
    pub claims_buffer: &'a [u8],
}

impl<'a> Evidence<'a> {
    /// The extension's value: `evidence` in `claims.cddl`.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.tag(TAG);
        writer.array(2);
        writer.bytes(self.quote);
        writer.bytes(self.claims_buffer);
        writer.finish()
    }

    /// Reads an extension's value.
    ///
    /// # Errors
    /// When the bytes are anything else than one such tag in its only encoding.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(value);
        reader.tag(TAG, "tag 60000")?;
        reader.tuple(2, "quote and claims")?;
        let quote = reader.bytes(MAX_QUOTE, "the quote")?;
        let claims_buffer = reader.bytes(MAX_CLAIMS_BUFFER, "the claims")?;
        reader.finish()?;
        if quote.is_empty() {
            return Err(DecodeError::OutOfBounds("the quote"));
        }
        Ok(Self {
            quote,
            claims_buffer,
        })
    }
}
