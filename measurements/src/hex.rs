//! Digests and bit masks as text: lower-case hexadecimal, one spelling each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `N` bytes that are written as `2 * N` lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// SHA-256, the digest model hubs show.
pub type Sha256Hex = Hex<32>;
/// SHA-384, the digest of every TDX register.
pub type Sha384Hex = Hex<48>;
/// A 64-bit register or mask. Its most significant byte is written first, as numbers are.
pub type BitsHex = Hex<8>;

/// The text is not exactly that many lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HexError {
    /// How many there must be.
    pub digits: usize,
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {} lower-case hexadecimal digits", self.digits)
    }
}

impl std::error::Error for HexError {}

impl BitsHex {
    /// The bits of a number.
    pub const fn of(bits: u64) -> Self {
        Self(bits.to_be_bytes())
    }

    /// The number.
    pub const fn bits(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let error = HexError { digits: 2 * N };
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(error),
        };
        if text.len() != 2 * N {
            return Err(error);
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_spelling() {
        let value = Hex([0x01, 0xaf]);
        assert_eq!(value.to_string(), "01af");
        assert_eq!("01af".parse(), Ok(value));
        for text in ["01AF", "1af", "01a", "01aff", "0x01", " 01a", "01ag", "é1a"] {
            assert_eq!(
                text.parse::<Hex<2>>(),
                Err(HexError { digits: 4 }),
                "{text}"
            );
        }
    }

    #[test]
    fn bits_are_written_as_a_number_is() {
        assert_eq!(BitsHex::of(0x1000_0000).to_string(), "0000000010000000");
        assert_eq!(BitsHex::of(7).bits(), 7);
    }
}
