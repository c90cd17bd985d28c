//! The image header: how the loader finds the guest. Measured like everything else; at [`layout::HEADER`].

use crate::layout;

/// The first bytes of the header.
pub const MAGIC: [u8; 8] = *b"VITR-IMG";
/// Changes with every change of the format.
pub const VERSION: u32 = 1;
/// Bytes of an encoded header.
pub const SIZE: usize = 24;

/// Where things are in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Size of the whole image; it starts this far below 4 GiB.
    pub image_length: u32,
    /// Where the guest executable starts, counted from the start of the image.
    pub guest_offset: u32,
    /// Bytes of the guest executable.
    pub guest_length: u32,
}

/// The header does not describe an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The first bytes are wrong.
    Magic,
    /// A version this loader does not know.
    Version(u32),
    /// The image has an impossible size.
    ImageLength(u32),
    /// The guest does not lie between the start of the image and the loader.
    Guest {
        /// Its offset.
        offset: u32,
        /// Its length.
        length: u32,
    },
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => f.write_str("the image has no header"),
            Self::Version(version) => {
                write!(f, "the image header has version {version}, not {VERSION}")
            }
            Self::ImageLength(length) => write!(f, "the image cannot be {length} bytes long"),
            Self::Guest { offset, length } => write!(
                f,
                "the guest ({length} bytes at {offset:#x}) is not inside the image"
            ),
        }
    }
}

impl core::error::Error for HeaderError {}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let (magic, fields) = bytes.split_at_mut(8);
        magic.copy_from_slice(&MAGIC);
        for (field, value) in fields.chunks_exact_mut(4).zip([
            VERSION,
            self.image_length,
            self.guest_offset,
            self.guest_length,
        ]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads a header and checks it against the layout.
    ///
    /// # Errors
    /// [`HeaderError`] if the bytes are not a header of a possible image.
    pub fn decode(bytes: &[u8; SIZE]) -> Result<Self, HeaderError> {
        let (magic, fields) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let mut values = fields.chunks_exact(4).map(|field| {
            field
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u32::from(*byte))
        });
        let mut next = || values.next().unwrap_or(0);
        let version = next();
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let header = Self {
            image_length: next(),
            guest_offset: next(),
            guest_length: next(),
        };
        let length = u64::from(header.image_length);
        if !(layout::LOADER_SIZE..=layout::IMAGE_MAX).contains(&length)
            || !length.is_multiple_of(layout::IMAGE_UNIT)
        {
            return Err(HeaderError::ImageLength(header.image_length));
        }
        let guest_end = u64::from(header.guest_offset) + u64::from(header.guest_length);
        if header.guest_length == 0 || guest_end > length - layout::LOADER_SIZE {
            return Err(HeaderError::Guest {
                offset: header.guest_offset,
                length: header.guest_length,
            });
        }
        Ok(header)
    }

    /// The address of the image's first byte.
    pub fn image_start(&self) -> u64 {
        layout::IMAGE_END - u64::from(self.image_length)
    }

    /// The address of the guest's first byte.
    pub fn guest_start(&self) -> u64 {
        self.image_start() + u64::from(self.guest_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        image_length: 1 << 20,
        guest_offset: 0x1000,
        guest_length: 0x2000,
    };

    #[test]
    fn survives_encoding() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
        assert_eq!(HEADER.image_start(), 0xfff0_0000);
        assert_eq!(HEADER.guest_start(), 0xfff0_1000);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let decode = |header: Header| Header::decode(&header.encode());
        for length in [0, 64 << 10, (1 << 20) + 4096, 32 << 20] {
            assert_eq!(
                decode(Header {
                    image_length: length,
                    ..HEADER
                }),
                Err(HeaderError::ImageLength(length))
            );
        }
        for (offset, length) in [
            (0, 0),
            (0, u32::MAX),
            (u32::MAX, u32::MAX),
            ((1 << 20) - 0x1_f000, 0x1000),
        ] {
            let header = Header {
                guest_offset: offset,
                guest_length: length,
                ..HEADER
            };
            assert_eq!(decode(header), Err(HeaderError::Guest { offset, length }));
        }
        let mut bytes = HEADER.encode();
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Version(2)));
        bytes[0] = 0;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Magic));
    }
}
