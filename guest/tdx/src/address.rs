//! Guest-physical addresses (GPA). The highest bit of a GPA says who may see the page: clear, the TD alone; set, the host too.

use core::fmt;

/// Bytes of the smallest page.
pub const PAGE: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;

/// The width of guest-physical addresses (GPAW), one of the two that exist. The shared bit is the highest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWidth {
    /// 48 bits: the shared bit is bit 47.
    Bits48,
    /// 52 bits: the shared bit is bit 51.
    Bits52,
}

/// A width that no TD has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WidthError(pub u64);

impl fmt::Display for WidthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest-physical addresses cannot have {} bits", self.0)
    }
}

impl core::error::Error for WidthError {}

impl AddressWidth {
    /// The width of `bits` bits.
    ///
    /// # Errors
    /// [`WidthError`] for anything but 48 and 52.
    pub const fn new(bits: u64) -> Result<Self, WidthError> {
        match bits {
            48 => Ok(Self::Bits48),
            52 => Ok(Self::Bits52),
            _ => Err(WidthError(bits)),
        }
    }

    /// The bit that makes an address shared.
    pub const fn shared_bit(self) -> u64 {
        match self {
            Self::Bits48 => 1 << 47,
            Self::Bits52 => 1 << 51,
        }
    }

    /// The shared alias of a private address.
    pub const fn share(self, private: u64) -> SharedAddress {
        SharedAddress(private | self.shared_bit())
    }
}

/// A guest-physical address with the shared bit set: what stands there is the host's to read and to change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedAddress(u64);

impl SharedAddress {
    /// The address, shared bit included, as page tables and hypercalls take it.
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_bit_is_the_highest() {
        assert_eq!(AddressWidth::new(48), Ok(AddressWidth::Bits48));
        assert_eq!(AddressWidth::new(52), Ok(AddressWidth::Bits52));
        for bits in [0, 47, 51, 57, u64::MAX] {
            assert_eq!(AddressWidth::new(bits), Err(WidthError(bits)));
        }
        assert_eq!(AddressWidth::Bits48.share(0x1000).get(), 0x8000_0000_1000);
        assert_eq!(AddressWidth::Bits52.share(0x1000).get(), 0x8_0000_0000_1000);
    }
}
