//! The chunked transfer coding (RFC 9112, 7.1), decoded byte by byte.
//!
//! Chunk extensions and trailers are read and ignored, within a limit: nothing here needs them, and
//! merging trailers into headers is how requests get smuggled.

use alloc::vec::Vec;

use super::HttpError;

/// Bytes of size lines, extensions and trailers one body may spend in all, beyond what its own chunks
/// need: enough for any honest client, too little to be a way around the body limit.
const FRAMING_LIMIT: usize = 8 * 1024;
/// A chunk size has at most this many hexadecimal digits: 4 GiB, far above every body limit.
const SIZE_DIGITS: u8 = 8;

/// Where the decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Reading the hexadecimal chunk size, of which this many digits are known.
    Size(u8),
    /// Skipping a chunk extension.
    Extension,
    /// The carriage return after a chunk size was read; its line feed must follow.
    SizeEnd,
    /// Copying chunk data.
    Data,
    /// After chunk data: its carriage return, then its line feed.
    DataCr,
    DataLf,
    /// At the start of a trailer line, inside one, and after its carriage return.
    TrailerStart,
    Trailer,
    TrailerEnd,
    /// The carriage return of the empty last line was read.
    LastLf,
    Done,
}

/// Decodes one chunked body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of the current chunk still to come.
    remaining: usize,
    /// Framing bytes that carried no digit, delimiter or data.
    overhead: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            state: State::Size(0),
            remaining: 0,
            overhead: 0,
        }
    }

    /// Decodes as much of `input` as belongs to the body, appending to `body`, which may grow to
    /// `limit` bytes. Returns how much of `input` was used, and whether the body is complete.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(usize, bool), HttpError> {
        let mut rest = input;
        while self.state != State::Done {
            if self.state == State::Data {
                let (data, after) = rest.split_at(self.remaining.min(rest.len()));
                body.extend_from_slice(data);
                self.remaining -= data.len();
                rest = after;
                if self.remaining > 0 {
                    break;
                }
                self.state = State::DataCr;
            }
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            self.state = self.next(byte, body.len(), limit)?;
            rest = after;
        }
        Ok((input.len() - rest.len(), self.state == State::Done))
    }

    /// The state after one framing byte.
    fn next(&mut self, byte: u8, length: usize, limit: usize) -> Result<State, HttpError> {
        let state = match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS {
                    return Err(HttpError::BodyTooLarge(limit));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0) as usize;
                self.remaining = self.remaining * 16 + digit;
                State::Size(digits + 1)
            }
            (State::Size(1..), b';') => State::Extension,
            (State::Size(1..) | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\n') => return Err(MALFORMED),
            (State::Extension, _) => State::Extension,
            (State::SizeEnd, b'\n') => {
                if self.remaining > limit.saturating_sub(length) {
                    return Err(HttpError::BodyTooLarge(limit));
                }
                if self.remaining == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::Trailer, b'\n') => return Err(MALFORMED),
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerStart | State::Trailer, _) => State::Trailer,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(MALFORMED),
        };
        if matches!(state, State::Extension | State::Trailer) {
            self.overhead += 1;
            if self.overhead > FRAMING_LIMIT {
                return Err(HttpError::HeadersTooLarge);
            }
        }
        Ok(state)
    }
}

const MALFORMED: HttpError = HttpError::Malformed("the chunked body is not well-formed");

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8]) -> Result<(usize, bool, Vec<u8>), HttpError> {
        let mut body = Vec::new();
        let (used, done) = Decoder::new().decode(input, &mut body, 100)?;
        Ok((used, done, body))
    }

    #[test]
    fn reads_chunks_extensions_and_trailers() {
        let input = b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nGET";
        let (used, done, body) = decode(input).unwrap();
        assert_eq!((used, done), (input.len() - 3, true));
        assert_eq!(body, b"abc0123456789");
    }

    #[test]
    fn waits_for_more() {
        for end in 0..b"3\r\nabc\r\n0\r\n\r\n".len() {
            let (used, done, _) = decode(&b"3\r\nabc\r\n0\r\n\r\n"[..end]).unwrap();
            assert_eq!((used, done), (end, false));
        }
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        for input in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"3\nabc\n0\n\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"3;a\nabc",
        ] {
            assert_eq!(decode(input), Err(MALFORMED), "{input:?}");
        }
    }

    #[test]
    fn limits_sizes() {
        assert_eq!(decode(b"65\r\n"), Err(HttpError::BodyTooLarge(100)));
        assert_eq!(decode(b"fffffffff\r\n"), Err(HttpError::BodyTooLarge(100)));
        let mut long = Vec::from(*b"3;");
        long.resize(FRAMING_LIMIT + 10, b'x');
        assert_eq!(decode(&long), Err(HttpError::HeadersTooLarge));
    }
}
