//! Where the chunks are: a payload's length alone says how many there are and which is the last.

use core::fmt;

/// Plaintext of a chunk; the last one may hold less.
pub const CHUNK: usize = 64 << 10;
/// What authentication adds to a chunk.
pub const TAG: usize = 16;

const SEALED_CHUNK: u64 = (CHUNK + TAG) as u64;

/// The lengths of a payload: all the chunks, with a tag each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    plaintext: u64,
    chunks: u64,
}

/// Why a payload cannot be that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The file ends before its first chunk, or within a tag.
    Cut,
    /// The last chunk is empty although it is not the only one, which no writer makes.
    EmptyLastChunk,
}

impl Layout {
    /// The layout of a payload of `length` bytes.
    ///
    /// # Errors
    /// No payload is that long.
    pub fn of_payload(length: u64) -> Result<Self, LayoutError> {
        let last = match length % SEALED_CHUNK {
            0 if length > 0 => SEALED_CHUNK,
            rest => rest,
        };
        let last_plaintext = last.checked_sub(TAG as u64).ok_or(LayoutError::Cut)?;
        let chunks = length.div_ceil(SEALED_CHUNK);
        if last_plaintext == 0 && chunks > 1 {
            return Err(LayoutError::EmptyLastChunk);
        }
        Ok(Self {
            plaintext: length - chunks * TAG as u64,
            chunks,
        })
    }

    /// Bytes of the plaintext.
    pub fn plaintext_length(&self) -> u64 {
        self.plaintext
    }

    /// Bytes of the payload.
    pub fn payload_length(&self) -> u64 {
        self.plaintext + self.chunks * TAG as u64
    }

    /// How many chunks there are; at least one.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the sealed file is cut short"),
            Self::EmptyLastChunk => f.write_str("the sealed file ends in an empty chunk"),
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_from_the_payload() {
        for (plaintext, chunks) in [
            (0, 1),
            (1, 1),
            (CHUNK - 1, 1),
            (CHUNK, 1),
            (CHUNK + 1, 2),
            (2 * CHUNK, 2),
            (5 * CHUNK + 7, 6),
        ] {
            let (plaintext, chunks) = (plaintext as u64, chunks as u64);
            let payload = plaintext + chunks * TAG as u64;
            let layout = Layout::of_payload(payload).unwrap();
            assert_eq!((layout.plaintext, layout.chunks), (plaintext, chunks));
            assert_eq!(layout.payload_length(), payload);
        }
    }

    #[test]
    fn lengths_that_no_writer_makes_are_refused() {
        for cut in [0, 1, 15, SEALED_CHUNK + 1, 3 * SEALED_CHUNK + 15] {
            assert_eq!(Layout::of_payload(cut), Err(LayoutError::Cut), "{cut}");
        }
        for length in [SEALED_CHUNK + 16, 9 * SEALED_CHUNK + 16] {
            assert_eq!(Layout::of_payload(length), Err(LayoutError::EmptyLastChunk));
        }
    }
}
