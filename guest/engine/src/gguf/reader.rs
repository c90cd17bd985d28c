//! A cursor over untrusted little-endian bytes: reads what is there or says that it is not.

use super::error::Problem;

/// Reads forward through a byte slice; never past its end.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: u64) -> Result<&'a [u8], Problem> {
        let count = usize::try_from(count).map_err(|_| Problem::Truncated)?;
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Problem::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Problem::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length-prefixed string of at most `limit` bytes.
    pub fn string(&mut self, limit: u64) -> Result<&'a str, Problem> {
        let length = self.u64()?;
        if length > self.remaining() as u64 {
            return Err(Problem::Truncated);
        }
        if length > limit {
            return Err(Problem::TooLong);
        }
        core::str::from_utf8(self.bytes(length)?).map_err(|_| Problem::NotUtf8)
    }
}
